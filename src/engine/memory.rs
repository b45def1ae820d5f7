//! How much memory counting takes, and how much more the next text can make it take.
//!
//! Both are known without a look at the campaigns, so they can be asked for before every batch. Memory is what was asked of the allocator: the
//! capacity of a buffer, not its length.

use std::mem::size_of;

use super::aggregate::{Aggregate, Reject};
use super::lookup::Entry;
use super::reading::Reading;
use super::reject_log::{BLOCK_BYTES, Block, RejectLog, SHOWN_RECORD_BYTES};
use super::scan::SCANNER_BYTES;
use super::sums::Wide;
use super::tally::Tally;
use super::totals::{Totals, slots_for};

/// The least text of a row that adds a campaign: reports of platforms may have two columns. Nearly all ids of one and two bytes are taken
/// after less than a batch.
const MIN_ROW_BYTES: usize = 4;

/// The least that a campaign takes when it is saved: lengths, an id of one byte, four lanes, and five wide sums.
const MIN_SAVED_BYTES: usize = 11;

/// What is known of a file in a dialect besides its rows: names, words and lines, all of them bounded by the longest record.
const READING_BYTES: usize = 4096;

/// Rejects take at most this many times the text of their rows: a row of one byte has four bytes about it.
const REJECT_GROWTH: usize = 3;

/// How much a vector allocates when it is pushed to until it has this length, as long as the old memory is still there.
fn vec_growth<T>(capacity: usize, len: usize) -> usize {
    if len <= capacity { 0 } else { len.max(2 * capacity) * size_of::<T>() }
}

impl Totals {
    /// Memory of the table.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.long_ids.capacity()
            + self.wide.capacity() * size_of::<Wide>()
    }

    /// The most memory that adding campaigns may take beyond what is taken now: this many rows, with this many bytes of ids. While a table
    /// grows, the old one and the new one exist together.
    fn growth_bytes(&self, rows: usize, id_bytes: usize) -> usize {
        let entries = self.entries.len() + rows.min(self.max_campaigns().saturating_sub(self.len()));
        let slots = slots_for(entries, self.slots.len()) - self.slots.len();
        // The first number that does not fit the lanes makes wide sums for all campaigns.
        let wide = vec_growth::<Wide>(self.wide.capacity(), entries);
        slots * size_of::<u32>()
            + vec_growth::<Entry>(self.entries.capacity(), entries)
            + vec_growth::<u8>(self.long_ids.capacity(), self.long_ids.len() + id_bytes)
            + wide
    }
}

impl RejectLog {
    pub(super) fn memory_bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| block.body.len()).sum::<usize>();
        blocks + self.blocks.capacity() * size_of::<Block>() + self.open.text.capacity()
    }

    fn growth_bytes(&self, text_bytes: usize) -> usize {
        // A closed block is copied once, and the open one may grow to twice its size.
        (REJECT_GROWTH * text_bytes).min(usize::try_from(self.max_bytes() - self.bytes).unwrap_or(usize::MAX))
            + 4 * BLOCK_BYTES
    }
}

impl Aggregate {
    /// Memory of what has been counted.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.totals.memory_bytes()
            + self.reject_log.as_ref().map_or(0, RejectLog::memory_bytes)
            + self.rejects.len() * (size_of::<Reject>() + SHOWN_RECORD_BYTES)
            + self.readings.len() * (size_of::<Reading>() + READING_BYTES)
    }

    /// The most memory that merging another aggregate takes besides both of them.
    #[must_use]
    pub fn merge_growth_bytes(&self, next: &Self) -> usize {
        let (small, large) = if next.totals.len() > self.totals.len() { (self, next) } else { (next, self) };
        let wide = if small.totals.wide.is_empty() { 0 } else { small.totals.len() * size_of::<Wide>() };
        large.totals.growth_bytes(small.totals.len(), small.totals.long_ids.len()) + wide
    }

    /// The most memory that saved campaigns in this many bytes take besides this.
    #[must_use]
    pub fn restore_growth_bytes(&self, piece_bytes: usize) -> usize {
        self.totals.growth_bytes(piece_bytes / MIN_SAVED_BYTES, piece_bytes)
            + self.reject_log.as_ref().map_or(0, |log| log.growth_bytes(piece_bytes))
    }

    /// Memory for the order in which all campaigns are written at the end.
    #[must_use]
    pub fn sorting_bytes(&self) -> usize {
        self.totals.len() * size_of::<u32>()
    }
}

impl Tally {
    /// Memory of the tally, with what it has counted.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.unfinished.capacity()
            + self.searched.as_ref().map_or(0, Vec::capacity)
            + self.fields_bytes()
            + SCANNER_BYTES
            + self.aggregate.memory_bytes()
    }

    /// The most memory that the next text of this length takes on top of that.
    #[must_use]
    pub fn growth_bytes(&self, text_bytes: usize) -> usize {
        // What waits is counted with it.
        let waiting = self.unfinished.len() + self.searched.as_ref().map_or(0, Vec::len);
        let text_bytes = text_bytes.saturating_add(waiting);
        let record_bytes = self.options.limits.max_record_bytes.min(text_bytes);
        // A record lies in a buffer of up to twice its size, another while that grows, and in fields; one in which the header is looked for is
        // copied. Every byte may be a delimiter.
        let buffers = record_bytes * (4 + 4 + 2 * size_of::<usize>());
        let log = self.aggregate.reject_log.as_ref().map_or(0, |log| log.growth_bytes(text_bytes));
        let rows = text_bytes / MIN_ROW_BYTES + 1;
        self.aggregate.totals.growth_bytes(rows, text_bytes) + log + buffers
    }
}
