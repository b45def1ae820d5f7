//! One data set in several tallies, each of which counts a share of the campaigns.
//!
//! The segments of a file are read by tallies of their own. Where campaigns are few, each of them counts all of its rows.
//! Where they are many, it would fill a table of nearly all of them, and merging these tables would take as long again. So
//! from some number of campaigns on, a tally only reads its plain rows and sorts them, by the hash of the id, into parcels:
//! one for each tally, which counts what it is given in a table of its share.

use super::dialect::trim;
use super::error::Fatal;
use super::key::{Key, word_to_index};
use super::lookup::{CountRows, Entry};
use super::row::MAX_CAMPAIGN_ID_BYTES;
use super::sums::Lanes;
use super::totals::{OtherCampaigns, TableFull, Totals};

/// Plain rows of campaigns that one tally counts.
#[derive(Clone, Debug, Default)]
pub struct Parcel {
    /// One for each row. The key of a long id says where it lies in `long_ids`.
    entries: Vec<Entry>,
    long_ids: Vec<u8>,
}

impl Parcel {
    /// Rows in the parcel.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.entries.len()
    }
}

/// What a tally has of the campaigns that it shares with others.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    /// The campaigns that this tally counts. No other tally has them among its shares.
    table: Totals,
    /// By tally. No parcel has an id that is not valid.
    parcels: Vec<Parcel>,
    from_campaigns: usize,
    has_begun: bool,
}

impl Shares {
    /// Nothing yet, in a tally with this table, for `tallies` tallies. Rows are sorted once the tally itself has this
    /// number of campaigns.
    pub(crate) fn new(totals: &Totals, tallies: usize, from_campaigns: usize) -> Self {
        Self { table: totals.alike(), parcels: vec![Parcel::default(); tallies], from_campaigns, has_begun: false }
    }

    /// True when a tally with this number of campaigns sorts its rows. From then on it always does.
    pub(crate) fn begin(&mut self, campaigns: usize) -> bool {
        self.has_begun |= campaigns >= self.from_campaigns;
        self.has_begun
    }

    /// True when rows have been sorted, or counted for others.
    pub(crate) fn are_used(&self) -> bool {
        self.has_begun || self.table.len() > 0
    }

    /// Swaps the rows for a tally with an empty parcel. False when there are none.
    pub(crate) fn swap(&mut self, tally: usize, parcel: &mut Parcel) -> bool {
        let Some(sorted) = self.parcels.get_mut(tally).filter(|sorted| sorted.rows() > 0) else { return false };
        std::mem::swap(sorted, parcel);
        true
    }

    /// Counts the rows of a parcel that is for this tally, and empties it.
    pub(crate) fn count(&mut self, parcel: &mut Parcel) -> Result<(), Fatal> {
        let max_campaigns = self.table.max_campaigns();
        self.table.reserve_lane_addends(parcel.entries.len() as u64, 0);
        let Parcel { entries, long_ids } = parcel;
        let added = self.table.add_entries(&OtherCampaigns { entries, long_ids, wide: &[], seed: self.table.seed() });
        entries.clear();
        long_ids.clear();
        added.map_err(|TableFull| Fatal::TooManyCampaigns { max_campaigns })
    }

    /// Takes over what another tally has counted. All parcels have been counted.
    pub(crate) fn join(&mut self, other: Self) -> Result<(), Fatal> {
        debug_assert!(other.parcels.iter().all(|parcel| parcel.rows() == 0), "no sorted rows are left");
        let max_campaigns = self.table.max_campaigns();
        self.has_begun |= other.has_begun;
        self.table.append(other.table).map_err(|TableFull| Fatal::TooManyCampaigns { max_campaigns })
    }

    /// All campaigns, with those of `totals`. All parcels have been counted.
    pub(crate) fn into_totals(self, totals: Totals) -> Result<Totals, TableFull> {
        debug_assert!(self.parcels.iter().all(|parcel| parcel.rows() == 0), "no sorted rows are left");
        if !self.are_used() {
            return Ok(totals);
        }
        let mut all = self.table;
        all.merge(totals)?;
        Ok(all)
    }

    #[inline(always)]
    fn parcel_of(&mut self, hash: u64) -> &mut Parcel {
        // The table itself uses the lowest bits and the highest.
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let tallies = self.parcels.len();
        &mut self.parcels[word_to_index((mixed * tallies as u64) >> 32)]
    }
}

impl CountRows for Shares {
    #[inline(always)]
    fn is_unusable(&self) -> bool {
        self.parcels.is_empty()
    }

    #[inline(always)]
    fn add_short(&mut self, key: Key, lanes: Lanes) -> bool {
        if !key.is_plain() && !is_valid(key.short_id()) {
            return false;
        }
        let parcel = self.parcel_of(self.table.seed().hash(key));
        parcel.entries.push(Entry { key, lanes });
        true
    }

    #[inline(always)]
    fn add_long(&mut self, id: &[u8], lanes: Lanes) -> bool {
        if !is_plain(id) && !is_valid(id) {
            return false;
        }
        let hash = self.table.seed().hash_long(id);
        let parcel = self.parcel_of(hash);
        parcel.entries.push(Entry { key: Key::long(hash, parcel.long_ids.len(), id.len()), lanes });
        parcel.long_ids.extend_from_slice(id);
        true
    }
}

/// True for ids that are valid for sure: ASCII, without blanks at the ends. For long ones.
#[inline(always)]
fn is_plain(id: &[u8]) -> bool {
    let is_ascii = |chunk: &[u8; 16]| u128::from_ne_bytes(*chunk) & 0x8080_8080_8080_8080_8080_8080_8080_8080 == 0;
    id.len() <= MAX_CAMPAIGN_ID_BYTES
        && matches!(id, [b'!'..=b'~', .., b'!'..=b'~'])
        && id.as_chunks().0.iter().chain(id.last_chunk()).all(is_ascii)
}

#[cold]
#[inline(never)]
fn is_valid(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= MAX_CAMPAIGN_ID_BYTES && trim(id).len() == id.len() && std::str::from_utf8(id).is_ok()
}
