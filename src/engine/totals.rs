//! The campaign table: ids to exact totals.
//!
//! A campaign has a key of 16 bytes and sums of 32, found through an open table of 32-bit slots; both together take about 55
//! bytes a campaign. Ids of up to 15 bytes are part of the key, longer ones lie in one shared buffer.
//!
//! Sums are kept twice: small addends, which nearly all are, go to four 64-bit lanes that a vector addition serves;
//! what does not fit there goes to 128-bit sums that exist only once they are needed. A campaign's totals are both
//! together, so nothing is ever rounded or lost.

use super::dialect::trim;
use super::key::{Key, MAX_SHORT_ID_BYTES, Seed, word_to_index};
use super::lookup::{Entry, Lookup, find, find_long, tag};
use super::number::{Conversions, Money};
use super::row::{MAX_CAMPAIGN_ID_BYTES, Row};
use super::sums::{Fine, Lanes, MAX_COUNT_TOTAL, MAX_DECIMAL_CONVERSIONS, MAX_LANE_ADDENDS, MAX_SPEND_TOTAL, Wide};

/// Campaigns of another table that are looked up at once.
const MERGED_AT_ONCE: usize = 64;

/// Campaigns whose slots are loaded at once.
const PLACED_AT_ONCE: usize = 32;

/// Slots in a page of memory of the smallest size.
const PAGE_SLOTS: usize = 1024;

/// The smallest table.
const MIN_SLOTS: usize = 1024;

/// Up to this size a table is kept so sparse that nearly every search ends at its first slot: a mispredicted branch
/// costs more than a few cache lines. Larger tables are limited by the speed of memory and kept dense.
const MAX_SPARSE_SLOTS: usize = 1 << 15;

/// One campaign's exact totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CampaignTotals<'a> {
    /// The id's bytes, which are UTF-8.
    pub campaign_id: &'a [u8],
    /// Sum of the impressions.
    pub impressions: u128,
    /// Sum of the clicks.
    pub clicks: u128,
    /// Sum of the spends.
    pub spend: Money,
    /// Sum of the conversions.
    pub conversions: Conversions,
}

impl CampaignTotals<'_> {
    /// Adds another's totals. A sum that no table accepts stays at a limit, with which reports can still compute.
    pub(crate) fn add(&mut self, other: &Self) {
        // A table's totals are its wide sums, which have limits, and its lanes, which are small: together far below twice
        // the limits.
        let add = |sum: u128, addend: u128, limit: u128| sum.saturating_add(addend).min(limit);
        self.impressions = add(self.impressions, other.impressions, 2 * MAX_COUNT_TOTAL);
        self.clicks = add(self.clicks, other.clicks, 2 * MAX_COUNT_TOTAL);
        self.spend = Money(add(self.spend.0, other.spend.0, MAX_SPEND_TOTAL / 2 * 3));
        self.conversions = self.conversions.saturating_add(other.conversions, 2 * MAX_COUNT_TOTAL);
    }
}

/// The table is full: it holds as many campaigns as allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableFull;

/// All campaigns with their totals.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    /// A power of two of slots. Each is 0, or has an index into `entries` in the low bits, which `slots.len() - 1`
    /// masks, and the same campaign's upper hash bits above. At most three quarters are taken, in a small table an
    /// eighth.
    pub(super) slots: Vec<u32>,
    /// Entry 0 is vacant.
    pub(super) entries: Vec<Entry>,
    pub(super) long_ids: Vec<u8>,
    /// Empty, or as long as `entries`.
    pub(super) wide: Vec<Wide>,
    seed: Seed,
    /// Additions to lanes since they were last empty. No lane exceeds this number times 2^32.
    lane_addends: u64,
    max_campaigns: usize,
    overflowed: bool,
}

/// Campaigns that are added to a table.
pub(super) struct OtherCampaigns<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) long_ids: &'a [u8],
    /// Empty, or as long as `entries`.
    pub(super) wide: &'a [Wide],
    /// What the hashes of long ids depend on.
    pub(super) seed: Seed,
}

/// Some of them, while they are looked up.
struct MergedBatch {
    first: usize,
    wanted: Vec<(Key, u64)>,
    found: [usize; MERGED_AT_ONCE],
}

impl MergedBatch {
    fn new() -> Self {
        Self { first: 0, wanted: Vec::with_capacity(MERGED_AT_ONCE), found: [0; MERGED_AT_ONCE] }
    }

    /// Sets what is wanted of a table.
    fn fill(&mut self, entries: &[Entry], from: &OtherCampaigns<'_>, table: &mut Totals) {
        let seed = table.seed;
        let lookup = table.lookup();
        self.wanted.clear();
        self.wanted.extend(entries.iter().map(|entry| {
            let wanted = match entry.key {
                key if !key.is_long() => (key, seed.hash(key)),
                // A fork's hashes are those of the table that it was forked from.
                key if seed == from.seed => (key, key.low()),
                key => {
                    let place = key.long_range();
                    let hash = seed.hash_long(&from.long_ids[place.clone()]);
                    (Key::long(hash, place.start, place.len()), hash)
                }
            };
            lookup.prefetch(wanted.1);
            wanted
        }));
    }
}

impl Totals {
    pub(crate) fn new(max_campaigns: usize) -> Self {
        Self {
            slots: vec![0; MIN_SLOTS],
            entries: vec![Entry::VACANT],
            long_ids: Vec::new(),
            wide: Vec::new(),
            seed: Seed::random(),
            lane_addends: 0,
            // An index has to fit a slot.
            max_campaigns: max_campaigns.min(1 << 30),
            overflowed: false,
        }
    }

    /// An empty table with the same hashes: the two are merged faster.
    pub(crate) fn alike(&self) -> Self {
        Self { seed: self.seed, ..Self::new(self.max_campaigns) }
    }

    /// What its hashes depend on.
    #[inline]
    pub(crate) fn seed(&self) -> Seed {
        self.seed
    }

    /// Campaigns in the table.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - 1
    }

    /// The most campaigns the table may hold.
    pub(crate) fn max_campaigns(&self) -> usize {
        self.max_campaigns
    }

    /// True when a total has grown beyond what reports can compute with.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// The parts that are needed to find campaigns and to add to them, in a form that stays in registers.
    #[inline]
    pub(crate) fn lookup(&mut self) -> Lookup<'_> {
        let Self { slots, entries, long_ids, wide, lane_addends, seed, .. } = self;
        Lookup { slots, entries, long_ids, wide, lane_addends, seed: *seed }
    }

    /// The index of an id's campaign, from 1 to [`Self::len`], if it is in the table.
    pub(crate) fn find(&self, id: &[u8]) -> Option<usize> {
        self.locate(id).2
    }

    /// The key that an id has, or would get, with its hash; and the index of its campaign if it is in the table.
    fn locate(&self, id: &[u8]) -> (Key, u64, Option<usize>) {
        let Self { slots, entries, long_ids, seed, .. } = self;
        if id.len() <= MAX_SHORT_ID_BYTES {
            let key = Key::of_short_id(id);
            let hash = seed.hash(key);
            (key, hash, find(slots, entries, hash, |found| found == key))
        } else {
            let hash = seed.hash_long(id);
            (Key::long(hash, long_ids.len(), id.len()), hash, find_long(slots, entries, long_ids, id, hash))
        }
    }

    /// The index of an id's campaign, new if need be. The id has at most [`MAX_CAMPAIGN_ID_BYTES`].
    pub(crate) fn intern(&mut self, id: &[u8]) -> Result<usize, TableFull> {
        match self.locate(id) {
            (.., Some(index)) => Ok(index),
            (key, hash, None) => self.insert(id, key, hash),
        }
    }

    /// The campaign of an id that [`Lookup::confirm`] has not found, new if need be. `None` when its row has to be judged, or
    /// the table is full.
    pub(crate) fn find_or_add(&mut self, text: &[u8], (key, hash): (Key, u64)) -> Option<usize> {
        if let Some(found) = self.find_wanted(text, key, hash) {
            return Some(found);
        }
        let id = if key.is_long() { &text[key.long_range()] } else { key.short_id() };
        let is_valid =
            id.len() <= MAX_CAMPAIGN_ID_BYTES && id.is_ascii() && trim(id).len() == id.len() && !id.is_empty();
        if is_valid { self.insert(id, key, hash).ok() } else { None }
    }

    fn find_wanted(&self, text: &[u8], key: Key, hash: u64) -> Option<usize> {
        let Self { slots, entries, long_ids, .. } = self;
        if key.is_long() {
            find_long(slots, entries, long_ids, &text[key.long_range()], hash)
        } else {
            find(slots, entries, hash, |found| found == key)
        }
    }

    /// Adds the campaign of an id that is not in the table. The key of a long id need not say where it lies.
    fn insert(&mut self, id: &[u8], key: Key, hash: u64) -> Result<usize, TableFull> {
        if self.len() >= self.max_campaigns {
            return Err(TableFull);
        }
        let key = if key.is_long() { Key::long(hash, self.long_ids.len(), id.len()) } else { key };
        if key.is_long() {
            self.long_ids.extend_from_slice(id);
        }
        let index = self.entries.len();
        self.entries.push(Entry { key, ..Entry::VACANT });
        if !self.wide.is_empty() {
            self.wide.push([0; 5]);
        }
        let slots = slots_for(self.entries.len(), self.slots.len());
        if slots > self.slots.len() {
            self.resize(slots);
        } else {
            self.place(index, hash);
        }
        Ok(index)
    }

    fn place(&mut self, index: usize, hash: u64) {
        let mask = self.slots.len() - 1;
        let mut place = word_to_index(hash) & mask;
        while self.slots[place] != 0 {
            place = (place + 1) & mask;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a tag has 32 bits and an index at most 30")]
        let slot = (tag(hash, mask) | index) as u32;
        self.slots[place] = slot;
    }

    /// Places all campaigns in this number of slots.
    fn resize(&mut self, slots: usize) {
        // Freed first: at the peak there is one table, not two.
        self.slots = Vec::new();
        self.slots = vec![0; slots];
        // A page that is read before it is written is mapped twice, and for the second time all threads are interrupted.
        for page in self.slots.chunks_mut(PAGE_SLOTS) {
            page[0] = std::hint::black_box(0);
        }
        self.place_from(1);
    }

    /// Places the campaigns from an index on.
    fn place_from(&mut self, first: usize) {
        let mut hashes = [0; PLACED_AT_ONCE];
        for first in (first..self.entries.len()).step_by(PLACED_AT_ONCE) {
            // Whether a slot is taken cannot be guessed, and so must not be waited for.
            let end = self.entries.len().min(first + PLACED_AT_ONCE);
            for (hash, index) in hashes.iter_mut().zip(first..end) {
                *hash = self.hash_of(index);
                self.lookup().prefetch(*hash);
            }
            for (hash, index) in hashes.iter().zip(first..end) {
                self.place(index, *hash);
            }
        }
    }

    fn hash_of(&self, index: usize) -> u64 {
        let key = self.entries[index].key;
        if key.is_long() { key.low() } else { self.seed.hash(key) }
    }

    /// Announces `count` additions to lanes, of addends below 2^32. Empties the lanes first if these and `further` more
    /// could overflow them: the further ones are announced later by their own calls, which then do not empty the lanes.
    /// The lanes must not be emptied between an announcement and its additions.
    pub(crate) fn reserve_lane_addends(&mut self, count: u64, further: u64) {
        if self.lane_addends + count + further > MAX_LANE_ADDENDS {
            self.empty_lanes();
        }
        self.lane_addends += count;
    }

    /// Adds a row to its campaign.
    pub(crate) fn add_row(&mut self, row: &Row<'_>) -> Result<(), TableFull> {
        let index = self.intern(row.campaign_id)?;
        let (cents, spend) = row.spend.split();
        let addends = [row.impressions, row.clicks, cents, row.conversions];
        let fine = Fine { spend, conversion_units: row.conversion_units };
        if let Some((lanes, count)) = Lanes::new(addends) {
            self.reserve_lane_addends(count, 0);
            let mut lookup = self.lookup();
            lookup.add(index, lanes);
            if lookup.add_fine(index, fine).is_none() {
                self.add_wide(index, [0, 0, spend, 0, fine.conversion_units.into()]);
            }
        } else {
            let [impressions, clicks, _, conversions] = addends.map(u128::from);
            let spend = spend + Money::from_cents(cents).0;
            self.add_wide(index, [impressions, clicks, spend, conversions, fine.conversion_units.into()]);
        }
        Ok(())
    }

    fn add_wide(&mut self, index: usize, addends: Wide) {
        if self.wide.is_empty() {
            self.wide.resize(self.entries.len(), [0; 5]);
        }
        let limits = [MAX_COUNT_TOTAL, MAX_COUNT_TOTAL, MAX_SPEND_TOTAL, MAX_COUNT_TOTAL, MAX_COUNT_TOTAL];
        let sums = &mut self.wide[index];
        for ((sum, addend), limit) in sums.iter_mut().zip(addends).zip(limits) {
            *sum = sum.saturating_add(addend);
            if *sum > limit {
                *sum = limit;
                self.overflowed = true;
            }
        }
        self.overflowed |= sums[4] > 0 && sums[3] > MAX_DECIMAL_CONVERSIONS;
    }

    fn empty_lanes(&mut self) {
        for index in 1..self.entries.len() {
            let [impressions, clicks, cents, conversions] = std::mem::take(&mut self.entries[index].lanes).0;
            let wide = [impressions.into(), clicks.into(), Money::from_cents(cents).0, conversions.into(), 0];
            self.add_wide(index, wide);
        }
        self.lane_addends = 0;
    }

    /// Adds all of another table's totals.
    pub(crate) fn merge(&mut self, mut other: Self) -> Result<(), TableFull> {
        if self.lane_addends + other.lane_addends > MAX_LANE_ADDENDS {
            self.empty_lanes();
            other.empty_lanes();
        }
        self.overflowed |= other.overflowed;
        self.lane_addends += other.lane_addends;
        let Self { entries, long_ids, wide, seed, .. } = &other;
        self.add_entries(&OtherCampaigns {
            entries: &entries[1..],
            long_ids,
            wide: wide.get(1..).unwrap_or_default(),
            seed: *seed,
        })
    }

    /// Adds campaigns with their wide sums, if they have some. A campaign may be among them more than once. Their additions to
    /// lanes have been announced.
    pub(super) fn add_entries(&mut self, from: &OtherCampaigns<'_>) -> Result<(), TableFull> {
        let [mut searched, mut next] = [MergedBatch::new(), MergedBatch::new()];
        let mut batches = from.entries.chunks(MERGED_AT_ONCE);
        loop {
            // One batch is looked up while the slots and the entries of another are being loaded.
            next.fill(batches.next().unwrap_or_default(), from, self);
            self.add_batch(&mut searched, from)?;
            self.lookup().find_candidates(&next.wanted, &mut next.found);
            next.first = searched.first + searched.wanted.len();
            std::mem::swap(&mut searched, &mut next);
            if searched.wanted.is_empty() {
                return Ok(());
            }
        }
    }

    fn add_batch(&mut self, batch: &mut MergedBatch, from: &OtherCampaigns<'_>) -> Result<(), TableFull> {
        let MergedBatch { first, wanted, found } = batch;
        self.lookup().confirm::<true>(from.long_ids, wanted, found);
        for (place, (key, hash)) in wanted.iter().enumerate() {
            let entry = &from.entries[*first + place];
            // One before it may have added the id.
            let mine = match found[place] {
                0 => self.find_wanted(from.long_ids, *key, *hash),
                found => Some(found),
            };
            let mine = match mine {
                Some(mine) => mine,
                None => self.insert(id_of(&entry.key, from.long_ids), *key, *hash)?,
            };
            self.entries[mine].lanes.add(entry.lanes);
            if let Some(wide) = from.wide.get(*first + place)
                && *wide != [0; 5]
            {
                self.add_wide(mine, *wide);
            }
        }
        Ok(())
    }

    /// Takes over the campaigns of a table with the same hashes, none of which is in this one.
    pub(super) fn append(&mut self, mut other: Self) -> Result<(), TableFull> {
        debug_assert!(self.seed == other.seed, "the tables are alike");
        if self.len() + other.len() > self.max_campaigns {
            return Err(TableFull);
        }
        if self.lane_addends + other.lane_addends > MAX_LANE_ADDENDS {
            self.empty_lanes();
            other.empty_lanes();
        }
        self.overflowed |= other.overflowed;
        self.lane_addends += other.lane_addends;
        if !(self.wide.is_empty() && other.wide.is_empty()) {
            self.wide.resize(self.entries.len(), [0; 5]);
            other.wide.resize(other.entries.len(), [0; 5]);
            self.wide.extend_from_slice(&other.wide[1..]);
        }
        let (first, long_ids_before) = (self.entries.len(), self.long_ids.len());
        self.long_ids.extend_from_slice(&other.long_ids);
        self.entries.extend(other.entries[1..].iter().map(|entry| Entry {
            key: if entry.key.is_long() { entry.key.moved(long_ids_before) } else { entry.key },
            ..*entry
        }));
        let slots = slots_for(self.entries.len(), self.slots.len());
        if slots > self.slots.len() {
            self.resize(slots);
        } else {
            self.place_from(first);
        }
        Ok(())
    }

    /// Prepares an empty table for [`Self::restore_raw`].
    ///
    /// # Errors
    /// When no table has this number of additions in its lanes.
    pub(crate) fn prepare_restore(&mut self, lane_addends: u64, overflowed: bool) -> Result<(), &'static str> {
        if lane_addends > MAX_LANE_ADDENDS {
            return Err("there are too many addends");
        }
        self.lane_addends = lane_addends;
        self.overflowed = overflowed;
        Ok(())
    }

    /// Puts a campaign back as [`Self::raw`] gave it.
    ///
    /// # Errors
    /// When the number of additions cannot have given these lanes, the id is not valid, the campaign is there already,
    /// or the table is full.
    pub(crate) fn restore_raw(&mut self, id: &[u8], lanes: [u64; 4], wide: Wide) -> Result<(), &'static str> {
        if !Lanes(lanes).are_possible(self.lane_addends) {
            return Err("a campaign has totals beyond its rows");
        }
        if id.is_empty() || id.len() > MAX_CAMPAIGN_ID_BYTES || std::str::from_utf8(id).is_err() {
            return Err("there is a campaign id that is none");
        }
        let campaigns = self.len();
        let index = self.intern(id).map_err(|TableFull| "there are too many campaigns")?;
        if self.len() == campaigns {
            return Err("a campaign is there twice");
        }
        self.entries[index].lanes = Lanes(lanes);
        if wide != [0; 5] {
            self.add_wide(index, wide);
        }
        Ok(())
    }

    /// The campaign at an index from 1 to [`Self::len`] as it is kept: id, lanes, wide sums.
    pub(crate) fn raw(&self, index: usize) -> (&[u8], [u64; 4], Wide) {
        (self.id(index), self.entries[index].lanes.0, self.wide.get(index).copied().unwrap_or_default())
    }

    /// How many additions the lanes hold, to be given back to [`Self::prepare_restore`].
    pub(crate) fn lane_addends(&self) -> u64 {
        self.lane_addends
    }

    fn id(&self, index: usize) -> &[u8] {
        id_of(&self.entries[index].key, &self.long_ids)
    }

    /// The totals of the campaign at an index from 1 to [`Self::len`].
    #[inline]
    pub(crate) fn campaign(&self, index: usize) -> CampaignTotals<'_> {
        let [impressions, clicks, cents, conversions] = self.entries[index].lanes.0;
        let wide = self.wide.get(index).copied().unwrap_or_default();
        CampaignTotals {
            campaign_id: self.id(index),
            impressions: wide[0] + u128::from(impressions),
            clicks: wide[1] + u128::from(clicks),
            spend: Money(wide[2] + Money::from_cents(cents).0),
            conversions: Conversions::new(wide[3] + u128::from(conversions), wide[4]),
        }
    }

    /// The sums of all campaigns, of which there is at least one; the id is that of the first.
    pub(crate) fn sum(&self) -> Option<CampaignTotals<'_>> {
        let mut campaigns = self.iter();
        let mut sum = campaigns.next()?;
        campaigns.for_each(|campaign| sum.add(&campaign));
        Some(sum)
    }

    /// Every campaign, in any order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = CampaignTotals<'_>> {
        (1..self.entries.len()).map(|index| self.campaign(index))
    }

    /// The indices of all campaigns by campaign id.
    pub(crate) fn sorted_by_id(&self) -> Vec<u32> {
        #[expect(clippy::cast_possible_truncation, reason = "an index has at most 30 bits")]
        let mut indices: Vec<u32> = (1..self.entries.len() as u32).collect();
        indices.sort_unstable_by(|left, right| self.id(*left as usize).cmp(self.id(*right as usize)));
        indices
    }
}

fn id_of<'a>(key: &'a Key, long_ids: &'a [u8]) -> &'a [u8] {
    if key.is_long() { &long_ids[key.long_range()] } else { key.short_id() }
}

/// How many slots a table has with this number of entries, if it had `slots` before.
#[inline]
pub(super) fn slots_for(entries: usize, mut slots: usize) -> usize {
    while entries > slots / 8 * if slots < MAX_SPARSE_SLOTS { 1 } else { 6 } {
        slots *= 2;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::number::Spend;

    #[test]
    fn lanes_are_emptied_before_a_window_and_never_within() {
        let mut totals = Totals::new(10);
        totals.lane_addends = MAX_LANE_ADDENDS - 399;
        totals.reserve_lane_addends(200, 200);
        for announced in 1..=200 {
            totals.reserve_lane_addends(1, 0);
            assert_eq!(totals.lane_addends, 200 + announced);
        }
        totals.lane_addends = MAX_LANE_ADDENDS - 400;
        totals.reserve_lane_addends(200, 200);
        (0..200).for_each(|_| totals.reserve_lane_addends(1, 0));
        assert_eq!(totals.lane_addends, MAX_LANE_ADDENDS);
    }

    #[test]
    fn emptied_lanes_keep_their_sums() {
        let row = Row {
            campaign_id: b"A",
            impressions: 4_000_000_000,
            clicks: 3,
            spend: Spend::Cents(150),
            conversions: 1,
            conversion_units: 600_000_000_000,
        };
        let mut totals = Totals::new(10);
        totals.add_row(&row).unwrap();
        totals.empty_lanes();
        totals.add_row(&row).unwrap();
        let campaign = totals.campaign(1);
        assert_eq!((campaign.impressions, campaign.clicks), (8_000_000_000, 6));
        assert_eq!(campaign.conversions, Conversions::new(3, 200_000_000_000));
        assert_eq!(campaign.spend, Money::from_cents(300));
    }

    #[test]
    fn large_addends_use_up_the_lanes_sooner() {
        let row = |impressions| Row {
            campaign_id: b"A",
            impressions,
            clicks: 1,
            spend: Spend::Cents(1),
            conversions: 1,
            conversion_units: 0,
        };
        let mut totals = Totals::new(10);
        for (impressions, expected) in [((1 << 32) - 1, 1), (1 << 32, 257), ((1 << 40) - 1, 513), (1 << 40, 513)] {
            totals.add_row(&row(impressions)).unwrap();
            assert_eq!(totals.lane_addends, expected);
        }
        totals.lane_addends = MAX_LANE_ADDENDS - 255;
        totals.add_row(&row((1 << 40) - 1)).unwrap();
        assert_eq!(totals.lane_addends, 256, "they were emptied before");
        let sum = (1 << 32) - 1 + (1 << 32) + 2 * ((1 << 40) - 1) + (1 << 40);
        let campaign = totals.campaign(1);
        assert_eq!((campaign.impressions, campaign.clicks), (sum, 5));
        assert!(Lanes([(1 << 40) - 1; 4]).are_possible(256));
    }
}
