//! A tally's whole state as bytes, to go on with it later, elsewhere, or in another version of the program.
//!
//! The form is that of an [envelope](super::envelope). Buffers that only make reading faster are not part of it. Version 1 knew
//! no dialects, and no decimals of conversions.

use std::sync::Arc;

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use super::aggregate::{Aggregate, Counters, MAX_REJECTS, Position, Reject};
use super::dialect::{Columns, Delimiter, Dialect, Layout, MAX_SEARCHED_BYTES};
use super::envelope::{Envelope, RestoreError, read_whole};
use super::reading::Reading;
use super::record::{LineCounter, MAX_TEXT_BYTES, RecordFinder};
use super::scan::Kernel;
use super::tally::{Limits, Tally, TallyOptions};
use super::totals::{Totals, Wide, with_decimals};

const ENVELOPE: Envelope = Envelope { magic: *b"adtally\0", version: 2 };
const ENVELOPE_1: Envelope = Envelope { magic: *b"adtally\0", version: 1 };

#[derive(Serialize)]
struct Outgoing<'a> {
    head: Head,
    columns: &'a Option<Columns>,
    finder: &'a RecordFinder,
    unfinished: &'a [u8],
    counters: &'a Counters,
    rejects: &'a [Reject],
    readings: &'a [Reading],
    dialect: Option<&'a Dialect>,
    layout: &'a Option<Layout>,
    searched: &'a Option<Vec<u8>>,
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
    readings: Vec<Reading>,
    dialect: Option<Dialect>,
    layout: Option<Layout>,
    searched: Option<Vec<u8>>,
    totals: Vec<Campaign>,
}

/// The same, in version 1.
#[derive(Deserialize)]
struct Incoming1 {
    head: Head,
    columns: Option<Columns>,
    finder: RecordFinder,
    unfinished: Vec<u8>,
    counters: Counters,
    rejects: Vec<Reject>,
    totals: Vec<(Vec<u8>, [u64; 4], [u128; 4])>,
}

impl From<Incoming1> for Incoming {
    fn from(incoming: Incoming1) -> Self {
        let Incoming1 { head, columns, finder, unfinished, counters, rejects, totals } = incoming;
        let totals = totals.into_iter().map(|(id, lanes, wide)| (id, lanes, with_decimals(wide))).collect();
        let (readings, dialect, layout, searched) = (Vec::new(), None, None, None);
        Self { head, columns, finder, unfinished, counters, rejects, readings, dialect, layout, searched, totals }
    }
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
type Campaign = (Vec<u8>, [u64; 4], Wide);

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
            readings: &aggregate.readings,
            dialect: self.dialect.as_deref(),
            layout: &self.layout,
            searched: &self.searched,
            totals: &aggregate.totals,
        };
        ENVELOPE.seal(&outgoing)
    }

    /// Takes a saved state back; how the scanner works is chosen anew.
    ///
    /// # Errors
    /// When the bytes are not a whole, unchanged state of a known version.
    pub fn restore(bytes: &[u8], kernel: Kernel) -> Result<Self, RestoreError> {
        let tally = Self::restore_any(bytes, kernel)?;
        if tally.aggregate.readings.len() != usize::from(tally.layout.is_some()) {
            return Err(RestoreError::Inconsistent("what was found out about the file is missing"));
        }
        Ok(tally)
    }

    /// Restores a state that may be saved apart from what was counted.
    fn restore_any(bytes: &[u8], kernel: Kernel) -> Result<Self, RestoreError> {
        let incoming = match ENVELOPE.open(bytes) {
            Ok((content, _)) => read_whole(content)?,
            Err(RestoreError::OtherVersion { found, .. }) if found == ENVELOPE_1.version => {
                read_whole::<Incoming1>(ENVELOPE_1.open(bytes)?.0)?.into()
            }
            Err(error) => return Err(error),
        };
        Self::from_incoming(incoming, kernel).map_err(RestoreError::Inconsistent)
    }

    /// The most campaigns of a state that was saved apart from what was counted.
    ///
    /// # Errors
    /// When the bytes are not a whole, unchanged state of a known version.
    pub fn max_campaigns_of(bytes: &[u8]) -> Result<usize, RestoreError> {
        Ok(Self::restore_any(bytes, Kernel::Off)?.options.limits.max_campaigns)
    }

    /// Takes back a state that was saved apart from what had been counted.
    ///
    /// # Errors
    /// When the bytes are not a whole, unchanged state of this version, or what was counted does not fit it.
    pub fn restore_position(bytes: &[u8], counted: Aggregate, kernel: Kernel) -> Result<Self, RestoreError> {
        let mut tally = Self::restore_any(bytes, kernel)?;
        if counted.counters.bytes_read > tally.offset {
            return Err(RestoreError::Inconsistent("more has been counted than was read"));
        }
        let Aggregate { totals, counters, rejects, readings } = &tally.aggregate;
        if totals.len() > 0 || *counters != Counters::default() || !rejects.is_empty() || !readings.is_empty() {
            return Err(RestoreError::Inconsistent("something has been counted twice"));
        }
        if counted.readings.len() != usize::from(tally.layout.is_some()) {
            return Err(RestoreError::Inconsistent("what was found out about the file is missing"));
        }
        tally.aggregate = counted;
        Ok(tally)
    }

    fn from_incoming(incoming: Incoming, kernel: Kernel) -> Result<Self, &'static str> {
        let Incoming {
            head,
            columns,
            finder,
            unfinished,
            counters,
            rejects,
            readings,
            dialect,
            layout,
            searched,
            totals,
        } = incoming;
        let Head { delimiter, has_header, limits, record_start, offset, lines, lane_addends, overflowed } = head;
        if searched.as_ref().is_some_and(|text| text.len() > MAX_SEARCHED_BYTES || columns.is_some()) {
            return Err("a header is looked for where it cannot be");
        }
        let has_layout = dialect.is_some() && searched.is_none();
        if layout.is_some() != has_layout
            || layout
                .as_ref()
                .is_some_and(|layout| Some(&layout.columns) != columns.as_ref() || !layout.is_consistent())
        {
            return Err("its columns are not those of its header");
        }
        let options = TallyOptions { delimiter, has_header, limits, kernel };
        let mut tally = Self::in_dialect(options, dialect.map(Arc::new));
        if let Some(layout) = layout {
            tally.lay_out(layout);
        }
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
            || !readings.iter().all(Reading::is_possible)
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
        tally.searched = searched;
        tally.aggregate.rejects = rejects;
        tally.aggregate.readings = readings;
        tally.aggregate.counters = counters;
        Ok(tally)
    }
}
