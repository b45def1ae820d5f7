//! A tally's whole state as bytes, to go on with it later, elsewhere, or in another version of the program.
//!
//! The form: the eight bytes `adtally\0`, the version as a little-endian `u16`, the state in the
//! [postcard](https://postcard.jamesmunns.com/wire-format) wire format, and the CRC-32 (IEEE 802.3) of all before it as a
//! little-endian `u32`. Buffers that only make reading faster are not part of it.

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use super::aggregate::{Counters, MAX_REJECTS, MAX_TEXT_BYTES, Position, Reject};
use super::dialect::{Columns, Delimiter};
use super::record::RecordFinder;
use super::row::MAX_CAMPAIGN_ID_BYTES;
use super::scan::Kernel;
use super::tally::{Limits, LineCounter, Tally, TallyOptions};
use super::totals::{Lanes, Totals};

const MAGIC: [u8; 8] = *b"adtally\0";
const VERSION: u16 = 1;
const CHECKSUM_BYTES: usize = 4;

/// Why saved bytes are not a state to go on from.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Cut, or something else altogether.
    #[error("this is no saved tally")]
    NotATally,
    /// Changed since it was saved.
    #[error("the saved tally is damaged: its checksum does not match")]
    Damaged,
    /// Written by a version that saves differently.
    #[error("the saved tally has format version {found}, this program reads version {VERSION}")]
    OtherVersion {
        /// The version it says.
        found: u16,
    },
    /// The checksum matches and the contents make no sense.
    #[error("the saved tally is inconsistent: {0}")]
    Inconsistent(&'static str),
}

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
    let campaigns = totals.raw();
    let mut sequence = serializer.serialize_seq(Some(campaigns.len()))?;
    for campaign in campaigns {
        sequence.serialize_element(&campaign)?;
    }
    sequence.end()
}

impl Tally {
    /// The whole state as bytes, which [`Self::restore`] takes back.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it does not")]
    pub fn save(&self) -> Vec<u8> {
        let outgoing = Outgoing {
            head: Head {
                delimiter: self.options.delimiter,
                has_header: self.options.has_header,
                limits: self.options.limits,
                record_start: self.record_start,
                offset: self.offset,
                lines: self.lines,
                lane_addends: self.aggregate.totals.lane_addends(),
                overflowed: self.aggregate.totals.overflowed(),
            },
            columns: &self.columns,
            finder: &self.finder,
            unfinished: &self.unfinished,
            counters: &self.aggregate.counters,
            rejects: &self.aggregate.rejects,
            totals: &self.aggregate.totals,
        };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        #[expect(clippy::expect_used, reason = "memory cannot refuse to be written, and every part has a length")]
        let mut bytes = postcard::to_extend(&outgoing, bytes).expect("a tally can be written to memory");
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Takes a saved state back; how the scanner works is chosen anew.
    ///
    /// # Errors
    /// When the bytes are not a whole, unchanged state of this version.
    pub fn restore(bytes: &[u8], kernel: Kernel) -> Result<Self, RestoreError> {
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(RestoreError::NotATally)?;
        let (magic, rest) = content.split_first_chunk().ok_or(RestoreError::NotATally)?;
        let (version, state) = rest.split_first_chunk().ok_or(RestoreError::NotATally)?;
        if *magic != MAGIC {
            return Err(RestoreError::NotATally);
        }
        if u32::from_le_bytes(*checksum) != crc32fast::hash(content) {
            return Err(RestoreError::Damaged);
        }
        let found = u16::from_le_bytes(*version);
        if found != VERSION {
            return Err(RestoreError::OtherVersion { found });
        }
        let incoming = postcard::from_bytes(state).map_err(|_| RestoreError::Inconsistent("it cannot be read"))?;
        Self::from_incoming(incoming, kernel).map_err(RestoreError::Inconsistent)
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
        let is_possible =
            |position: Position| position.line <= MAX_TEXT_BYTES && position.byte_offset <= MAX_TEXT_BYTES;
        let is_possible_reject =
            |reject: &Reject| is_possible(Position { line: reject.line, byte_offset: reject.byte_offset });
        if !counters.are_possible()
            || counters.bytes_read > offset
            || lines.ended > offset
            || offset > MAX_TEXT_BYTES
            || !is_possible(record_start)
            || !rejects.iter().all(is_possible_reject)
        {
            return Err("its counts are impossible");
        }
        if rejects.len() > MAX_REJECTS {
            return Err("there are more rejects than are kept");
        }
        if !Lanes::default().are_possible(lane_addends) {
            return Err("there are too many addends");
        }
        tally.aggregate.totals.reserve_lane_addends(lane_addends, 0);
        if overflowed {
            tally.aggregate.totals.mark_overflowed();
        }
        for (id, lanes, wide) in totals {
            if !Lanes(lanes).are_possible(lane_addends) {
                return Err("a campaign has totals beyond its rows");
            }
            if id.is_empty() || id.len() > MAX_CAMPAIGN_ID_BYTES || std::str::from_utf8(&id).is_err() {
                return Err("there is a campaign id that is none");
            }
            tally.aggregate.totals.restore_raw(&id, lanes, wide).map_err(|_| "there are too many campaigns")?;
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
