//! The exact order of campaigns: metrics are compared as fractions, never as rounded values.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::aggregate::Aggregate;
use super::totals::CampaignTotals;

/// What a list ranks by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Clicks per impression, highest first; 0 without impressions.
    Ctr,
    /// Spend per conversion, lowest first; campaigns without conversions are left out.
    Cpa,
}

/// Compares `left.0 / left.1` with `right.0 / right.1`. The denominators are not zero.
fn compare_fractions(left: (u128, u128), right: (u128, u128)) -> Ordering {
    let is_small = |word: u128| word <= u64::MAX.into();
    if [left.0, left.1, right.0, right.1].into_iter().all(is_small) {
        return (left.0 * right.1).cmp(&(right.0 * left.1));
    }
    let product = |a: u128, b: u128| {
        let (low, high) = a.carrying_mul(b, 0);
        (high, low)
    };
    product(left.0, right.1).cmp(&product(right.0, left.1))
}

/// Compares spends per conversion. Both have conversions.
fn compare_cpas(left: &CampaignTotals<'_>, right: &CampaignTotals<'_>) -> Ordering {
    if left.conversions.units() | right.conversions.units() == 0 {
        return compare_fractions((left.spend.0, left.conversions.whole()), (right.spend.0, right.conversions.whole()));
    }
    right.conversions.times(left.spend).cmp(&left.conversions.times(right.spend))
}

fn ctr(totals: &CampaignTotals<'_>) -> (u128, u128) {
    if totals.impressions == 0 { (0, 1) } else { (totals.clicks, totals.impressions) }
}

impl Metric {
    /// `Less` when `left` comes before `right`. With CPA both have conversions.
    #[inline]
    fn order(self, left: &CampaignTotals<'_>, right: &CampaignTotals<'_>) -> Ordering {
        let by_metric = match self {
            Self::Ctr => compare_fractions(ctr(right), ctr(left)),
            Self::Cpa => compare_cpas(left, right),
        };
        by_metric.then_with(|| right.spend.cmp(&left.spend)).then_with(|| left.campaign_id.cmp(right.campaign_id))
    }

    fn admits(self, totals: &CampaignTotals<'_>) -> bool {
        self == Self::Ctr || !totals.conversions.are_none()
    }
}

struct Ranked<'a>(Metric, CampaignTotals<'a>);

impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.order(&self.1, &other.1)
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked<'_> {}

/// The first campaigns of those offered, kept in memory for `top` campaigns.
struct TopList<'a> {
    metric: Metric,
    top: usize,
    last_first: BinaryHeap<Ranked<'a>>,
}

impl<'a> TopList<'a> {
    /// An empty list. It will be offered at most `campaigns` campaigns.
    fn new(metric: Metric, top: usize, campaigns: usize) -> Self {
        Self { metric, top, last_first: BinaryHeap::with_capacity(top.min(campaigns)) }
    }

    fn offer(&mut self, campaign: CampaignTotals<'a>) {
        let Self { metric, top, last_first } = self;
        if !metric.admits(&campaign) {
            return;
        }
        if last_first.len() < *top {
            last_first.push(Ranked(*metric, campaign));
        } else if let Some(mut last) = last_first.peek_mut()
            && metric.order(&campaign, &last.1).is_lt()
        {
            last.1 = campaign;
        }
    }

    fn into_sorted(self) -> Vec<CampaignTotals<'a>> {
        self.last_first.into_sorted_vec().into_iter().map(|ranked| ranked.1).collect()
    }
}

impl Aggregate {
    /// The first `top` campaigns by a metric, in exact order. Takes time for one pass and memory for `top` campaigns.
    #[must_use]
    pub fn leaders(&self, metric: Metric, top: usize) -> Vec<CampaignTotals<'_>> {
        let mut list = TopList::new(metric, top, self.totals.len());
        self.totals.iter().for_each(|campaign| list.offer(campaign));
        list.into_sorted()
    }
}

/// Both top lists and the number of campaigns of several aggregates together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CombinedLeaders<'a> {
    /// The first campaigns by [`Metric::Ctr`], in exact order.
    pub by_ctr: Vec<CampaignTotals<'a>>,
    /// The first campaigns by [`Metric::Cpa`], in exact order.
    pub by_cpa: Vec<CampaignTotals<'a>>,
    /// Different campaign ids in all parts.
    pub unique_campaigns: usize,
}

/// The first `top` campaigns by each metric over the sums of all `parts`, which may have campaigns in common. The result
/// is that of merging them, without a merged table: it takes memory for `2 * top` campaigns, and for each campaign of each
/// part a look into every other part.
///
/// A sum that [`Aggregate::merge`] refuses as too large stays at a limit here.
#[must_use]
pub fn combined_leaders<'a>(parts: &[&'a Aggregate], top: usize) -> CombinedLeaders<'a> {
    let campaigns = parts.iter().map(|part| part.totals.len()).sum();
    let mut by_ctr = TopList::new(Metric::Ctr, top, campaigns);
    let mut by_cpa = TopList::new(Metric::Cpa, top, campaigns);
    let mut unique_campaigns = 0;
    for (index, part) in parts.iter().enumerate() {
        let (earlier, later) = (&parts[..index], &parts[index + 1..]);
        for mut campaign in part.totals.iter() {
            let id = campaign.campaign_id;
            if earlier.iter().any(|part| part.totals.find(id).is_some()) {
                continue;
            }
            for totals in later.iter().map(|part| &part.totals) {
                if let Some(found) = totals.find(id) {
                    campaign.add(&totals.campaign(found));
                }
            }
            unique_campaigns += 1;
            by_ctr.offer(campaign);
            by_cpa.offer(campaign);
        }
    }
    CombinedLeaders { by_ctr: by_ctr.into_sorted(), by_cpa: by_cpa.into_sorted(), unique_campaigns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_compare_beyond_128_bits() {
        let huge = 1 << 120;
        assert_eq!(compare_fractions((huge, huge + 1), (huge - 1, huge)), Ordering::Greater);
        assert_eq!(compare_fractions((huge, huge + 1), (huge, huge + 1)), Ordering::Equal);
        assert_eq!(compare_fractions((1, 3), (33_333_333_333, 100_000_000_000)), Ordering::Greater);
    }
}
