//! A tally's whole state as bytes, to go on with it later, elsewhere, or in another version of the program.
//!
//! The form is that of an [envelope](super::envelope). Buffers that only make reading faster are not part of it. Version 1 knew
//! no dialects, no decimals of conversions, and only the first rejects.

use std::sync::Arc;

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use super::aggregate::{Aggregate, Counters, MAX_REJECTS, Reject};
use super::dialect::{Columns, Delimiter, Dialect, Layout, MAX_SEARCHED_BYTES};
use super::envelope::{Envelope, RestoreError, read_whole};
use super::reading::Reading;
use super::record::{LineCounter, MAX_TEXT_BYTES, Position, RecordFinder};
use super::reject_log::{LogHead, LogReader, RejectLog, SavedBlock};
use super::scan::Kernel;
use super::sums::{Wide, with_decimals};
use super::tally::{Limits, Tally, TallyOptions};
use super::totals::Totals;

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
    max_rejects_bytes: Option<u64>,
    reject_log: Option<(LogHead, Vec<SavedBlock<'a>>)>,
    readings: &'a [Reading],
    max_skipped: Option<u64>,
    dialect: Option<&'a Dialect>,
    layout: &'a Option<Layout>,
    searched: &'a Option<Vec<u8>>,
    #[serde(serialize_with = "serialize_totals")]
    totals: &'a Totals,
}

#[derive(Deserialize)]
struct Incoming<'a> {
    head: Head,
    columns: Option<Columns>,
    finder: RecordFinder,
    unfinished: Vec<u8>,
    counters: Counters,
    rejects: Vec<Reject>,
    max_rejects_bytes: Option<u64>,
    #[serde(borrow)]
    reject_log: Option<(LogHead, Vec<SavedBlock<'a>>)>,
    readings: Vec<Reading>,
    max_skipped: Option<u64>,
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

impl From<Incoming1> for Incoming<'_> {
    fn from(incoming: Incoming1) -> Self {
        let Incoming1 { head, columns, finder, unfinished, counters, rejects, totals } = incoming;
        let totals = totals.into_iter().map(|(id, lanes, wide)| (id, lanes, with_decimals(wide))).collect();
        let (max_rejects_bytes, reject_log) = (None, None);
        let (readings, max_skipped, dialect, layout, searched) = (Vec::new(), None, None, None, None);
        Self {
            head,
            columns,
            finder,
            unfinished,
            counters,
            rejects,
            max_rejects_bytes,
            reject_log,
            readings,
            max_skipped,
            dialect,
            layout,
            searched,
            totals,
        }
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
            max_rejects_bytes: self.options.max_rejects_bytes,
            reject_log: aggregate.reject_log.as_ref().map(|log| (log.head(0), log.saved_blocks(0).collect())),
            readings: &aggregate.readings,
            max_skipped: self.options.max_skipped,
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
        tally.check_counted()?;
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
        Self::from_incoming(incoming, kernel)
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
        let Aggregate { totals, counters, rejects, reject_log, readings, .. } = &tally.aggregate;
        let is_empty = rejects.is_empty() && reject_log.is_none() && readings.is_empty();
        if totals.len() > 0 || *counters != Counters::default() || !is_empty {
            return Err(RestoreError::Inconsistent("something has been counted twice"));
        }
        tally.aggregate = Aggregate { max_skipped: tally.options.max_skipped, ..counted };
        tally.check_counted()?;
        Ok(tally)
    }

    /// Checks that what has been counted belongs to a tally of these options.
    fn check_counted(&self) -> Result<(), RestoreError> {
        if self.aggregate.readings.len() != usize::from(self.layout.is_some()) {
            return Err(RestoreError::Inconsistent("what was found out about the file is missing"));
        }
        if self.aggregate.reject_log.as_ref().map(RejectLog::max_bytes) != self.options.max_rejects_bytes {
            return Err(RestoreError::Inconsistent("its rejects are missing"));
        }
        Ok(())
    }

    fn from_incoming(incoming: Incoming<'_>, kernel: Kernel) -> Result<Self, RestoreError> {
        use RestoreError::Inconsistent;

        let Incoming {
            head,
            columns,
            finder,
            unfinished,
            counters,
            rejects,
            max_rejects_bytes,
            reject_log,
            readings,
            max_skipped,
            dialect,
            layout,
            searched,
            totals,
        } = incoming;
        let Head { delimiter, has_header, limits, record_start, offset, lines, lane_addends, overflowed } = head;
        let is_searching = searched.is_some();
        if searched.as_ref().is_some_and(|text| text.len() > MAX_SEARCHED_BYTES || columns.is_some())
            || (is_searching && !unfinished.is_empty())
            || (is_searching && dialect.is_some() && (offset > 0 || counters.rows_read > 0))
        {
            return Err(Inconsistent("a header is looked for where it cannot be"));
        }
        let has_layout = dialect.is_some() && searched.is_none();
        if layout.is_some() != has_layout
            || layout
                .as_ref()
                .is_some_and(|layout| Some(&layout.columns) != columns.as_ref() || !layout.is_consistent())
        {
            return Err(Inconsistent("its columns are not those of its header"));
        }
        if dialect.as_ref().is_some_and(|dialect| !dialect.is_consistent()) {
            return Err(Inconsistent("its dialect lacks names of fields"));
        }
        let options = TallyOptions { delimiter, has_header, limits, max_skipped, kernel, max_rejects_bytes };
        let mut tally = Self::in_dialect(options, dialect.map(Arc::new));
        if let Some(layout) = layout {
            tally.lay_out(layout);
        }
        if !finder.fits(&tally.finder, unfinished.len()) {
            return Err(Inconsistent("the unfinished record does not fit the reader's state"));
        }
        if columns.as_ref().is_some_and(|columns| !columns.is_consistent()) {
            return Err(Inconsistent("a column lies outside the records"));
        }
        if !counters.are_possible()
            || counters.bytes_read > offset
            || lines.ended > offset
            || offset > MAX_TEXT_BYTES
            || !record_start.is_possible()
            || !rejects.iter().all(Reject::is_possible)
            || !readings.iter().all(Reading::is_possible)
        {
            return Err(Inconsistent("its counts are impossible"));
        }
        if rejects.len() > MAX_REJECTS {
            return Err(Inconsistent("there are more rejects than are kept"));
        }
        tally.aggregate.totals.prepare_restore(lane_addends, overflowed).map_err(Inconsistent)?;
        for (id, lanes, wide) in totals {
            tally.aggregate.totals.restore_raw(&id, lanes, wide).map_err(Inconsistent)?;
        }
        tally.aggregate.reject_log = match reject_log {
            Some((head, blocks)) => {
                let mut reader = LogReader::new(head);
                blocks.iter().try_for_each(|block| reader.push(block))?;
                Some(reader.finish(counters.rows_skipped())?)
            }
            None => None,
        };
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
