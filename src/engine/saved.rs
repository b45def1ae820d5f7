//! A tally's whole state as bytes, to go on with it later, elsewhere, or in another version of the program.
//!
//! The form is that of an [envelope](super::envelope). Buffers that only make reading faster are not part of it.

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use super::aggregate::{Aggregate, Counters, MAX_REJECTS, MAX_TEXT_BYTES, Position, Reject};
use super::dialect::{Columns, Delimiter};
use super::envelope::{Envelope, RestoreError, read_whole};
use super::record::{LineCounter, RecordFinder};
use super::scan::Kernel;
use super::tally::{Limits, Tally, TallyOptions};
use super::totals::Totals;

const ENVELOPE: Envelope = Envelope { magic: *b"adtally\0", version: 1 };

#[derive(Serialize)]
struct Outgoing<'a> {
    head: Head,
    columns: &'a Option<Columns>,
    finder: &'a RecordFinder,
    unfinished: &'a [u8],
    counters: &'a Counters,
    rejects: &'a [Reject],
    #[serde(serialize_with = "serialize_totals")]
    totals: &'a Totals,
}

#[derive(Deserialize)]
struct Incoming {
    head: Head,
    columns: Option<Columns>,
    finder: RecordFinder,
    unfinished: Vec<u8>,
    counters: Counters,
    rejects: Vec<Reject>,
    totals: Vec<Campaign>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    delimiter: Delimiter,
    has_header: bool,
    limits: Limits,
    record_start: Position,
    offset: u64,
    lines: LineCounter,
    lane_addends: u64,
    overflowed: bool,
}

/// Id, lanes, wide sums.
type Campaign = (Vec<u8>, [u64; 4], [u128; 4]);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "this is how serde calls it")]
fn serialize_totals<S: Serializer>(totals: &&Totals, serializer: S) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(Some(totals.len()))?;
    for index in 1..=totals.len() {
        sequence.serialize_element(&totals.raw(index))?;
    }
    sequence.end()
}

impl Tally {
    /// The whole state as bytes, which [`Self::restore`] takes back.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.save_with(&self.aggregate)
    }

    /// The state without what has been counted: [`Aggregate::save_pieces`] saves that, and [`Self::restore_position`] takes both back.
    #[must_use]
    pub fn save_position(&self) -> Vec<u8> {
        self.save_with(&Aggregate::new(self.options.limits.max_campaigns))
    }

    fn save_with(&self, aggregate: &Aggregate) -> Vec<u8> {
        let outgoing = Outgoing {
            head: Head {
                delimiter: self.options.delimiter,
                has_header: self.options.has_header,
                limits: self.options.limits,
                record_start: self.record_start,
                offset: self.offset,
                lines: self.lines,
                lane_addends: aggregate.totals.lane_addends(),
                overflowed: aggregate.totals.overflowed(),
            },
            columns: &self.columns,
            finder: &self.finder,
            unfinished: &self.unfinished,
            counters: &aggregate.counters,
            rejects: &aggregate.rejects,
            totals: &aggregate.totals,
        };
        ENVELOPE.seal(&outgoing)
    }

    /// Takes a saved state back; how the scanner works is chosen anew.
    ///
    /// # Errors
    /// When the bytes are not a whole, unchanged state of this version.
    pub fn restore(bytes: &[u8], kernel: Kernel) -> Result<Self, RestoreError> {
        let incoming = read_whole(ENVELOPE.open(bytes)?.0)?;
        Self::from_incoming(incoming, kernel).map_err(RestoreError::Inconsistent)
    }

    /// Takes back a state that was saved apart from what had been counted.
    ///
    /// # Errors
    /// When the bytes are not a whole, unchanged state of this version, or what was counted does not fit it.
    pub fn restore_position(bytes: &[u8], counted: Aggregate, kernel: Kernel) -> Result<Self, RestoreError> {
        let mut tally = Self::restore(bytes, kernel)?;
        if counted.counters.bytes_read > tally.offset {
            return Err(RestoreError::Inconsistent("more has been counted than was read"));
        }
        let Aggregate { totals, counters, rejects } = &tally.aggregate;
        if totals.len() > 0 || *counters != Counters::default() || !rejects.is_empty() {
            return Err(RestoreError::Inconsistent("something has been counted twice"));
        }
        tally.aggregate = counted;
        Ok(tally)
    }

    fn from_incoming(incoming: Incoming, kernel: Kernel) -> Result<Self, &'static str> {
        let Incoming { head, columns, finder, unfinished, counters, rejects, totals } = incoming;
        let Head { delimiter, has_header, limits, record_start, offset, lines, lane_addends, overflowed } = head;
        let mut tally = Self::new(TallyOptions { delimiter, has_header, limits, kernel });
        if !finder.fits(&tally.finder, unfinished.len()) {
            return Err("the unfinished record does not fit the reader's state");
        }
        if columns.as_ref().is_some_and(|columns| !columns.is_consistent()) {
            return Err("a column lies outside the records");
        }
        if !counters.are_possible()
            || counters.bytes_read > offset
            || lines.ended > offset
            || offset > MAX_TEXT_BYTES
            || !record_start.is_possible()
            || !rejects.iter().all(Reject::is_possible)
        {
            return Err("its counts are impossible");
        }
        if rejects.len() > MAX_REJECTS {
            return Err("there are more rejects than are kept");
        }
        tally.aggregate.totals.prepare_restore(lane_addends, overflowed)?;
        for (id, lanes, wide) in totals {
            tally.aggregate.totals.restore_raw(&id, lanes, wide)?;
        }
        tally.columns = columns;
        tally.finder = finder;
        tally.unfinished = unfinished;
        tally.record_start = record_start;
        tally.offset = offset;
        tally.lines = lines;
        tally.aggregate.rejects = rejects;
        tally.aggregate.counters = counters;
        Ok(tally)
    }
}
