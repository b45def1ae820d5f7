//! Finding campaigns by their ids, one by one and many at once.

use std::ops::Range;

use super::key::{Key, MAX_SHORT_ID_BYTES, Seed, word_to_index};
use super::scan::prefetch::prefetch;
use super::sums::{Fine, Lanes, Wide};

/// One campaign. Its key and its lanes are side by side, so that finding it and adding to it touch one place in memory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Entry {
    pub(super) key: Key,
    pub(super) lanes: Lanes,
}

impl Entry {
    /// Entry 0 of every table. No id has its key.
    pub(super) const VACANT: Self = Self { key: Key::NONE, lanes: Lanes([0; 4]) };
}

/// The hash bits a slot holds above its index.
#[inline(always)]
pub(super) fn tag(hash: u64, mask: usize) -> usize {
    word_to_index(hash >> 32) & 0xffff_ffff & !mask
}

/// Where plain rows are counted.
pub(crate) trait CountRows {
    /// Never true. Checked once, it spares the bounds check at every row.
    fn is_unusable(&self) -> bool;

    /// Counts a row by the key of its short id; false when it has to be judged.
    fn add_short(&mut self, key: Key, lanes: Lanes) -> bool;

    /// Counts a row by its long id; false when it has to be judged.
    fn add_long(&mut self, id: &[u8], lanes: Lanes) -> bool;
}

/// Finds campaigns by their ids, and adds to their lanes.
pub(crate) struct Lookup<'a> {
    pub(super) slots: &'a [u32],
    pub(super) entries: &'a mut [Entry],
    pub(super) long_ids: &'a [u8],
    /// Empty, or as long as `entries`.
    pub(super) wide: &'a mut [Wide],
    pub(super) lane_addends: &'a mut u64,
    pub(super) seed: Seed,
}

impl Lookup<'_> {
    /// Adds what is finer than the lanes of a campaign that was found; `None` when `Totals::add_row` has to.
    #[inline(always)]
    pub(crate) fn add_fine(&mut self, campaign: usize, addends: Fine) -> Option<()> {
        if addends.is_none() { Some(()) } else { addends.add_to(self.wide.get_mut(campaign)?) }
    }

    /// Adds numbers of which one is too large for the lanes, and what is finer, to a campaign that was found; `None` when
    /// `Totals::add_row` has to.
    fn add_wide(&mut self, campaign: usize, addends: [u64; 4], fine: Fine) -> Option<()> {
        fine.add_with(addends, self.wide.get_mut(campaign)?)
    }

    /// Adds to the lanes of a campaign that was found; see `Totals::reserve_lane_addends`.
    #[inline(always)]
    pub(crate) fn add(&mut self, campaign: usize, addends: Lanes) {
        self.entries[campaign].lanes.add(addends);
    }

    /// Adds numbers that may be larger than those of plain rows to a campaign that was found, with what is finer; `None` when
    /// `Totals::add_row` has to. One addend is announced as for every row.
    #[inline(always)]
    pub(crate) fn add_numbers(&mut self, campaign: usize, addends: [u64; 4], fine: Fine) -> Option<()> {
        let Some((lanes, count)) = Lanes::new(addends) else { return self.add_wide(campaign, addends, fine) };
        self.add_fine(campaign, fine)?;
        *self.lane_addends += count - 1;
        self.add(campaign, lanes);
        Some(())
    }

    /// The hash of a short id's key.
    #[inline(always)]
    pub(crate) fn hash(&self, key: Key) -> u64 {
        self.seed.hash(key)
    }

    /// The campaign of a short id, if it is in the table.
    pub(crate) fn find_short(&self, key: Key, hash: u64) -> Option<usize> {
        self.find(hash, |found| found == key)
    }

    /// The key and the hash of a long id that lies in a text, to be found by [`Self::find_candidates`].
    #[inline(always)]
    pub(crate) fn wanted_long(&self, text: &[u8], place: Range<usize>) -> (Key, u64) {
        let hash = self.seed.hash_long(&text[place.clone()]);
        (Key::long(hash, place.start, place.len()), hash)
    }

    /// Prefetches where the search for an id starts.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch(&self.slots[word_to_index(hash) & (self.slots.len() - 1)]);
    }

    /// Finds where the campaigns of ids may be, or 0. Prefetches what [`Self::confirm`] will look at.
    ///
    /// Here and in [`Self::confirm`], nothing within a pass depends on what is loaded before it: the processor waits for many places of the
    /// table at once.
    #[inline(always)]
    pub(crate) fn find_candidates(&self, wanted: &[(Key, u64)], found: &mut [usize]) {
        let mask = self.slots.len() - 1;
        for (first, (_, hash)) in found.iter_mut().zip(wanted) {
            *first = self.slots[word_to_index(*hash) & mask] as usize;
        }
        for (index, (_, hash)) in found.iter_mut().zip(wanted) {
            let tag = tag(*hash, mask);
            let mut place = word_to_index(*hash) & mask;
            let mut slot = *index;
            while slot & !mask != tag && slot != 0 {
                place = (place + 1) & mask;
                slot = self.slots[place] as usize;
            }
            *index = slot & mask;
            prefetch(&self.entries[*index]);
        }
    }

    /// Puts 0 in place of candidates that are other campaigns with the same tag. The keys of long ids, which there are only with
    /// `LONG_IDS`, say where in `text` they lie.
    #[inline(always)]
    pub(crate) fn confirm<const LONG_IDS: bool>(&self, text: &[u8], wanted: &[(Key, u64)], found: &mut [usize]) {
        for (index, (key, _)) in found.iter_mut().zip(wanted) {
            let found = self.entries[*index].key;
            let is_wanted = if LONG_IDS && key.is_long() {
                let has_hash = found.is_long() && found.low() == key.low();
                let id = if has_hash { found.long_range() } else { 0..0 };
                if let [first, .., last] = &self.long_ids[id] {
                    prefetch(first);
                    prefetch(last);
                }
                has_hash
            } else {
                found == *key
            };
            *index = if is_wanted { *index } else { 0 };
        }
        if LONG_IDS {
            for (index, (key, _)) in found.iter_mut().zip(wanted) {
                if *index > 0 && key.is_long() {
                    let id = &self.long_ids[self.entries[*index].key.long_range()];
                    *index = if are_equal(id, &text[key.long_range()]) { *index } else { 0 };
                }
            }
        }
    }

    /// The campaign of an id of any length, if it is in the table.
    pub(crate) fn find_id(&self, id: &[u8]) -> Option<usize> {
        if id.len() <= MAX_SHORT_ID_BYTES {
            let key = Key::of_short_id(id);
            self.find_short(key, self.hash(key))
        } else {
            find_long(self.slots, self.entries, self.long_ids, id, self.seed.hash_long(id))
        }
    }

    #[inline(always)]
    fn find(&self, hash: u64, is_wanted: impl Fn(Key) -> bool) -> Option<usize> {
        find(self.slots, self.entries, hash, is_wanted)
    }
}

impl CountRows for Lookup<'_> {
    #[inline(always)]
    fn is_unusable(&self) -> bool {
        self.slots.is_empty()
    }

    #[inline(always)]
    fn add_short(&mut self, key: Key, addends: Lanes) -> bool {
        let hash = self.hash(key);
        let mask = self.slots.len() - 1;
        let index = self.slots[word_to_index(hash) & mask] as usize & mask;
        let entry = &mut self.entries[index];
        // The first slot nearly always decides. Entry 0 is vacant: no key is equal to its key.
        if entry.key.is(key) {
            entry.lanes.add(addends);
            return true;
        }
        // Not a function of its own: a call, even one that is not made, would force everything out of its register.
        let Some(index) = self.find(hash, |found| found.is(key)) else { return false };
        self.add(index, addends);
        true
    }

    #[inline(always)]
    fn add_long(&mut self, id: &[u8], addends: Lanes) -> bool {
        let found = find_long(self.slots, self.entries, self.long_ids, id, self.seed.hash_long(id));
        found.map(|campaign| self.add(campaign, addends)).is_some()
    }
}

#[inline(always)]
pub(super) fn find(slots: &[u32], entries: &[Entry], hash: u64, is_wanted: impl Fn(Key) -> bool) -> Option<usize> {
    let mask = slots.len() - 1;
    let tag = tag(hash, mask);
    let mut place = word_to_index(hash) & mask;
    loop {
        let slot = slots[place] as usize;
        if slot & !mask == tag && is_wanted(entries[slot & mask].key) {
            return Some(slot & mask);
        }
        if slot == 0 {
            return None;
        }
        place = (place + 1) & mask;
    }
}

#[inline(always)]
pub(super) fn find_long(slots: &[u32], entries: &[Entry], long_ids: &[u8], id: &[u8], hash: u64) -> Option<usize> {
    find(slots, entries, hash, |key| key.is_long() && key.low() == hash && are_equal(&long_ids[key.long_range()], id))
}

/// Compares two long ids. Not by the comparison of slices: that is a call.
#[inline(always)]
fn are_equal(left: &[u8], right: &[u8]) -> bool {
    let (left_chunks, right_chunks) = (left.as_chunks::<16>().0, right.as_chunks::<16>().0);
    let same = |left: &[u8; 16], right: &[u8; 16]| u128::from_ne_bytes(*left) == u128::from_ne_bytes(*right);
    // The last sixteen bytes may be among those before them.
    left.len() == right.len()
        && left_chunks.iter().zip(right_chunks).all(|(left, right)| same(left, right))
        && left.last_chunk().zip(right.last_chunk()).is_some_and(|(left, right)| same(left, right))
}
