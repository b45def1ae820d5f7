//! An aggregate as a sequence of pieces of bytes, so that neither saving nor restoring holds a second copy of all of it.
//!
//! Each piece has an [envelope](super::envelope). Its content starts with its number, from 0, and the checksum of the piece
//! before it, four zeros in the first. Items follow up to the end of the content. All pieces together have these items: a
//! head, then as many rejects, readings and campaigns as the head says. So a piece that is missing, doubled, out of order, or
//! of another aggregate does not fit. Version 1 had no readings, and knew no decimals of conversions.

use serde::{Deserialize, Serialize};

use super::aggregate::{Aggregate, Counters, MAX_REJECTS, Reject};
use super::envelope::{CHECKSUM_BYTES, Envelope, RestoreError, append, read};
use super::reading::Reading;
use super::totals::{Wide, with_decimals};

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
        Self { counters, lane_addends, overflowed, rejects, readings: 0, campaigns }
    }
}

/// Id, lanes, wide sums.
type Campaign<'a> = (&'a [u8], [u64; 4], Wide);

/// The same, in version 1.
type Campaign1<'a> = (&'a [u8], [u64; 4], [u128; 4]);

impl Aggregate {
    /// The whole aggregate as pieces, which an [`AggregateReader`] takes back in this order. Each is made when it is asked
    /// for, and has at most `max_piece_bytes`, or a single item (less than a kibibyte, without the name of a reject's file).
    pub fn save_pieces(&self, max_piece_bytes: usize) -> impl Iterator<Item = Vec<u8>> {
        Pieces { aggregate: self, max_piece_bytes, next_item: 0, place: Place::default() }
    }
}

struct Pieces<'a> {
    aggregate: &'a Aggregate,
    max_piece_bytes: usize,
    next_item: usize,
    place: Place,
}

impl Pieces<'_> {
    fn append_item(&self, bytes: Vec<u8>) -> Vec<u8> {
        let Aggregate { totals, counters, rejects, readings } = self.aggregate;
        let Some(reject) = self.next_item.checked_sub(1) else {
            let head = Head {
                counters: counters.clone(),
                lane_addends: totals.lane_addends(),
                overflowed: totals.overflowed(),
                rejects: rejects.len() as u64,
                readings: readings.len() as u64,
                campaigns: totals.len() as u64,
            };
            return append(bytes, &head);
        };
        if let Some(reject) = rejects.get(reject) {
            return append(bytes, reject);
        }
        match readings.get(reject - rejects.len()) {
            Some(reading) => append(bytes, reading),
            // Campaigns are numbered from 1.
            None => append(bytes, &totals.raw(self.next_item - rejects.len() - readings.len())),
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let Aggregate { totals, rejects, readings, .. } = self.aggregate;
        let items = 1 + rejects.len() + readings.len() + totals.len();
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
    has_failed: bool,
}

/// Items that are still to come.
struct Missing {
    rejects: u64,
    readings: u64,
    campaigns: u64,
    is_version_1: bool,
}

impl AggregateReader {
    /// Nothing read yet, for an aggregate of at most `max_campaigns`.
    #[must_use]
    pub fn new(max_campaigns: usize) -> Self {
        Self { aggregate: Aggregate::new(max_campaigns), place: Place::default(), missing: None, has_failed: false }
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
    /// When a piece is missing or was refused.
    pub fn finish(self) -> Result<Aggregate, RestoreError> {
        match self.missing {
            Some(Missing { rejects: 0, readings: 0, campaigns: 0, .. }) if !self.has_failed => Ok(self.aggregate),
            _ => Err(RestoreError::Inconsistent("a piece is missing or was refused")),
        }
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
        let Aggregate { totals, counters, rejects, readings } = &mut self.aggregate;
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
                let Head { rejects, readings, campaigns, .. } = head;
                self.missing = Some(Missing { rejects, readings, campaigns, is_version_1 });
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
