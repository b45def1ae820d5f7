//! The exact order of campaigns: metrics are compared as fractions, never as rounded values.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::totals::{CampaignTotals, Totals};

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
    let product = |a: u128, b: u128| {
        let (low, high) = a.carrying_mul(b, 0);
        (high, low)
    };
    product(left.0, right.1).cmp(&product(right.0, left.1))
}

fn ctr(totals: &CampaignTotals<'_>) -> (u128, u128) {
    if totals.impressions == 0 { (0, 1) } else { (totals.clicks, totals.impressions) }
}

impl Metric {
    /// `Less` when `left` comes before `right`. With CPA both have conversions.
    fn order(self, left: &CampaignTotals<'_>, right: &CampaignTotals<'_>) -> Ordering {
        let by_metric = match self {
            Self::Ctr => compare_fractions(ctr(right), ctr(left)),
            Self::Cpa => compare_fractions((left.spend.0, left.conversions), (right.spend.0, right.conversions)),
        };
        by_metric.then_with(|| right.spend.cmp(&left.spend)).then_with(|| left.campaign_id.cmp(right.campaign_id))
    }

    fn admits(self, totals: &CampaignTotals<'_>) -> bool {
        self == Self::Ctr || totals.conversions > 0
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

/// The first `top` campaigns by a metric, in order. Takes time for one pass and memory for `top` campaigns.
pub(crate) fn leaders(totals: &Totals, metric: Metric, top: usize) -> Vec<CampaignTotals<'_>> {
    let mut last_first = BinaryHeap::with_capacity(top.min(totals.len()) + 1);
    for campaign in totals.iter().filter(|campaign| metric.admits(campaign)) {
        if last_first.len() < top {
            last_first.push(Ranked(metric, campaign));
        } else if let Some(mut last) = last_first.peek_mut()
            && metric.order(&campaign, &last.1).is_lt()
        {
            last.1 = campaign;
        }
    }
    last_first.into_sorted_vec().into_iter().map(|ranked| ranked.1).collect()
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
