//! An aggregate as a sequence of pieces of bytes, so that neither saving nor restoring holds a second copy of all of it.
//!
//! Each piece has an [envelope](super::envelope). Its content starts with its number, from 0, and the checksum of the piece
//! before it, four zeros in the first. Items follow up to the end of the content. All pieces together have these items: a
//! head, then as many rejects, readings, blocks of the log of rejects, and campaigns as the head says. So a piece that is missing,
//! doubled, out of order, or of another aggregate does not fit. Version 1 had no readings and no log of rejects, and knew no decimals
//! of conversions.
//!
//! The closed blocks of the log can be stored separately: they never change, so each is stored once, while the pieces are stored
//! again and again. The head has their number and a checksum of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::aggregate::{Aggregate, Counters, MAX_REJECTS, Reject};
use super::envelope::{CHECKSUM_BYTES, Envelope, RestoreError, append, read};
use super::reading::Reading;
use super::reject_log::{LogHead, LogReader, RejectLog, SavedBlock};
use super::sums::{Wide, with_decimals};

const ENVELOPE: Envelope = Envelope { magic: *b"adtaggr\0", version: 2 };
const ENVELOPE_1: Envelope = Envelope { magic: *b"adtaggr\0", version: 1 };

/// More files than an aggregate is ever made of.
const MAX_READINGS: u64 = 1 << 20;

/// The position of a piece in its sequence.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    number: u64,
    previous_checksum: [u8; CHECKSUM_BYTES],
}

impl Place {
    fn behind(self, checksum: [u8; CHECKSUM_BYTES]) -> Self {
        Self { number: self.number.wrapping_add(1), previous_checksum: checksum }
    }
}

/// The first item.
#[derive(Serialize, Deserialize)]
struct Head {
    counters: Counters,
    lane_addends: u64,
    overflowed: bool,
    rejects: u64,
    readings: u64,
    reject_log: Option<LogHead>,
    campaigns: u64,
}

/// The same, in version 1.
#[derive(Deserialize)]
struct Head1 {
    counters: Counters,
    lane_addends: u64,
    overflowed: bool,
    rejects: u64,
    campaigns: u64,
}

impl From<Head1> for Head {
    fn from(head: Head1) -> Self {
        let Head1 { counters, lane_addends, overflowed, rejects, campaigns } = head;
        Self { counters, lane_addends, overflowed, rejects, readings: 0, reject_log: None, campaigns }
    }
}

/// Id, lanes, wide sums.
type Campaign<'a> = (&'a [u8], [u64; 4], Wide);

/// The same, in version 1.
type Campaign1<'a> = (&'a [u8], [u64; 4], [u128; 4]);

impl Aggregate {
    /// The whole aggregate as pieces, which an [`AggregateReader`] takes back in this order. Each is made when it is asked
    /// for, and has at most `max_piece_bytes`, or a single item (less than a kibibyte, without the name of a reject's file; or a block of
    /// the log of rejects, about 64 KiB).
    pub fn save_pieces(&self, max_piece_bytes: usize) -> impl Iterator<Item = Vec<u8>> {
        Pieces { aggregate: self, max_piece_bytes, separate_blocks: 0, next_item: 0, place: Place::default() }
    }

    /// The same without the [blocks of rejects](Self::reject_blocks), which are stored separately.
    pub fn save_pieces_without_blocks(&self, max_piece_bytes: usize) -> impl Iterator<Item = Vec<u8>> {
        let separate_blocks = self.reject_blocks().count();
        Pieces { aggregate: self, max_piece_bytes, separate_blocks, next_item: 0, place: Place::default() }
    }

    /// The blocks of rejects that are closed and never change: of a file that is being read, the first ones stay the same. None
    /// when only the first rejects are kept.
    pub fn reject_blocks(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.reject_log.iter().flat_map(RejectLog::bodies)
    }
}

struct Pieces<'a> {
    aggregate: &'a Aggregate,
    max_piece_bytes: usize,
    /// The first blocks of rejects, which are no items.
    separate_blocks: usize,
    next_item: usize,
    place: Place,
}

impl Pieces<'_> {
    fn block_items(&self) -> usize {
        self.aggregate.reject_log.as_ref().map_or(0, |log| log.block_count() - self.separate_blocks)
    }

    fn append_item(&self, bytes: Vec<u8>) -> Vec<u8> {
        let Aggregate { totals, counters, rejects, reject_log, readings, .. } = self.aggregate;
        let Some(mut item) = self.next_item.checked_sub(1) else {
            let head = Head {
                counters: counters.clone(),
                lane_addends: totals.lane_addends(),
                overflowed: totals.overflowed(),
                rejects: rejects.len() as u64,
                readings: readings.len() as u64,
                reject_log: reject_log.as_ref().map(|log| log.head(self.separate_blocks)),
                campaigns: totals.len() as u64,
            };
            return append(bytes, &head);
        };
        if let Some(reject) = rejects.get(item) {
            return append(bytes, reject);
        }
        item -= rejects.len();
        if let Some(reading) = readings.get(item) {
            return append(bytes, reading);
        }
        item -= readings.len();
        match reject_log {
            Some(log) if item < self.block_items() => append(bytes, &log.saved_block(self.separate_blocks + item)),
            // Campaigns are numbered from 1.
            _ => append(bytes, &totals.raw(item - self.block_items() + 1)),
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let Aggregate { totals, rejects, readings, .. } = self.aggregate;
        let items = 1 + rejects.len() + readings.len() + self.block_items() + totals.len();
        let first_item = self.next_item;
        if first_item == items {
            return None;
        }
        let mut bytes = append(ENVELOPE.begin(), &self.place);
        while self.next_item < items {
            let end = bytes.len();
            bytes = self.append_item(bytes);
            if bytes.len() + CHECKSUM_BYTES > self.max_piece_bytes && self.next_item > first_item {
                // The next piece starts with this item.
                bytes.truncate(end);
                break;
            }
            self.next_item += 1;
        }
        let (bytes, checksum) = Envelope::close(bytes);
        self.place = self.place.behind(checksum);
        Some(bytes)
    }
}

/// Restores an aggregate from the pieces of [`Aggregate::save_pieces`].
pub struct AggregateReader {
    aggregate: Aggregate,
    /// Where the next piece belongs.
    place: Place,
    /// `None` before the head has been read.
    missing: Option<Missing>,
    reject_log: Option<LogReader>,
    has_failed: bool,
}

/// Items that are still to come.
struct Missing {
    rejects: u64,
    readings: u64,
    blocks: u64,
    campaigns: u64,
    is_version_1: bool,
}

impl AggregateReader {
    /// Nothing read yet, for an aggregate of at most `max_campaigns`.
    #[must_use]
    pub fn new(max_campaigns: usize) -> Self {
        let (aggregate, place) = (Aggregate::new(max_campaigns), Place::default());
        Self { aggregate, place, missing: None, reject_log: None, has_failed: false }
    }

    /// How many blocks of rejects are stored separately. Known after the first piece.
    #[must_use]
    pub fn reject_blocks(&self) -> u64 {
        self.reject_log.as_ref().map_or(0, LogReader::separate)
    }

    /// Memory of what has been read so far, and the most that the next piece of this length takes besides it.
    #[must_use]
    pub fn memory_bytes_with(&self, piece_bytes: usize) -> usize {
        let log = self.reject_log.as_ref().map_or(0, LogReader::memory_bytes);
        self.aggregate.memory_bytes() + self.aggregate.restore_growth_bytes(piece_bytes) + log
    }

    /// Reads the next of the blocks of rejects that are stored separately.
    ///
    /// # Errors
    /// When it makes no sense. Then all that follows is refused, too.
    pub fn push_reject_block(&mut self, block: Vec<u8>) -> Result<(), RestoreError> {
        let reader = self.reject_log.as_mut().ok_or(RestoreError::Inconsistent("it has no blocks of rejects"));
        let result = reader.and_then(|reader| reader.push_separate(block.into()));
        self.has_failed |= result.is_err();
        result
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// When it is not the next piece, whole and unchanged, of the same aggregate and this version. Then all further pieces
    /// are refused, too.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), RestoreError> {
        if self.has_failed {
            return Err(RestoreError::Inconsistent("an earlier piece was refused"));
        }
        let result = self.read_piece(piece);
        self.has_failed = result.is_err();
        result
    }

    /// The aggregate, after its last piece.
    ///
    /// # Errors
    /// When a piece or a block is missing or was refused.
    pub fn finish(self) -> Result<Aggregate, RestoreError> {
        let Self { mut aggregate, missing, reject_log, has_failed, .. } = self;
        match missing {
            Some(Missing { rejects: 0, readings: 0, blocks: 0, campaigns: 0, .. }) if !has_failed => {}
            _ => return Err(RestoreError::Inconsistent("a piece is missing or was refused")),
        }
        if let Some(reader) = reject_log {
            aggregate.reject_log = Some(reader.finish(aggregate.counters.rows_skipped())?);
        }
        Ok(aggregate)
    }

    fn read_piece(&mut self, piece: &[u8]) -> Result<(), RestoreError> {
        let (content, checksum, is_version_1) = match ENVELOPE.open(piece) {
            Ok((content, checksum)) => (content, checksum, false),
            Err(RestoreError::OtherVersion { found, .. }) if found == ENVELOPE_1.version => {
                let (content, checksum) = ENVELOPE_1.open(piece)?;
                (content, checksum, true)
            }
            Err(error) => return Err(error),
        };
        if self.missing.as_ref().is_some_and(|missing| missing.is_version_1 != is_version_1) {
            return Err(RestoreError::Inconsistent("its pieces are of different versions"));
        }
        let (place, mut content): (Place, _) = read(content)?;
        if place != self.place {
            return Err(RestoreError::Inconsistent("this is not the next piece"));
        }
        self.place = place.behind(checksum);
        if content.is_empty() {
            return Err(RestoreError::Inconsistent("the piece is empty"));
        }
        while !content.is_empty() {
            content = self.read_item(content, is_version_1)?;
        }
        Ok(())
    }

    /// Reads one item. Gives the rest.
    fn read_item<'a>(&mut self, content: &'a [u8], is_version_1: bool) -> Result<&'a [u8], RestoreError> {
        let Aggregate { totals, counters, rejects, readings, .. } = &mut self.aggregate;
        match &mut self.missing {
            None => {
                let (head, rest) = if is_version_1 {
                    let (head, rest): (Head1, _) = read(content)?;
                    (head.into(), rest)
                } else {
                    read::<Head>(content)?
                };
                if !head.counters.are_possible() {
                    return Err(RestoreError::Inconsistent("its counts are impossible"));
                }
                if head.rejects > MAX_REJECTS as u64 {
                    return Err(RestoreError::Inconsistent("there are more rejects than are kept"));
                }
                if head.readings > MAX_READINGS {
                    return Err(RestoreError::Inconsistent("there are more readings than files"));
                }
                if head.campaigns > totals.max_campaigns() as u64 {
                    return Err(RestoreError::Inconsistent("there are too many campaigns"));
                }
                totals.prepare_restore(head.lane_addends, head.overflowed).map_err(RestoreError::Inconsistent)?;
                *counters = head.counters;
                let Head { rejects, readings, reject_log, campaigns, .. } = head;
                let blocks = reject_log.as_ref().map_or(0, LogHead::following);
                self.reject_log = reject_log.map(LogReader::new);
                self.missing = Some(Missing { rejects, readings, blocks, campaigns, is_version_1 });
                Ok(rest)
            }
            Some(Missing { rejects: missing @ 1.., .. }) => {
                let (reject, rest): (Reject, _) = read(content)?;
                if !reject.is_possible() {
                    return Err(RestoreError::Inconsistent("a reject is impossible"));
                }
                rejects.push(reject);
                *missing -= 1;
                Ok(rest)
            }
            Some(Missing { readings: missing @ 1.., .. }) => {
                let (reading, rest): (Reading, _) = read(content)?;
                if !reading.is_possible() {
                    return Err(RestoreError::Inconsistent("a reading is impossible"));
                }
                readings.push(reading);
                *missing -= 1;
                Ok(rest)
            }
            Some(Missing { blocks: missing @ 1.., .. }) => {
                let (block, rest): (SavedBlock<'_>, _) = read(content)?;
                if let Some(reader) = &mut self.reject_log {
                    reader.push(&block)?;
                }
                *missing -= 1;
                Ok(rest)
            }
            Some(Missing { campaigns: missing @ 1.., .. }) => {
                let ((id, lanes, wide), rest): (Campaign<'_>, _) = if is_version_1 {
                    let ((id, lanes, wide), rest): (Campaign1<'_>, _) = read(content)?;
                    ((id, lanes, with_decimals(wide)), rest)
                } else {
                    read(content)?
                };
                totals.restore_raw(id, lanes, wide).map_err(RestoreError::Inconsistent)?;
                *missing -= 1;
                Ok(rest)
            }
            Some(_) => Err(RestoreError::Inconsistent("there is more than the head says")),
        }
    }
}
