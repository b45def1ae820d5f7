//! Compressed data as it becomes text, with what has to be read again to go on from any byte of it.
//!
//! Decompressors do not give their state away. So the latest [place](Decompressor::place) is kept from which another one can go on, and the bytes
//! behind it, the tail. A decompressor that reads the tail again stands where this one does; the text that comes out of it has been counted.

use super::decompress::{Coding, DecompressError, Decompressor, Place};
use super::step::Step;
use crate::engine::RestoreError;

/// The longest tail that is kept. Where no place is found within this length, as within large Zstandard frames, and in all of Brotli and deflate
/// but the start, the upload cannot be gone on with until one is.
pub const MAX_TAIL_BYTES: usize = 16 * 1024 * 1024;

/// The most text that comes out of a tail that is kept: reading it again takes one or two seconds.
const MAX_TAIL_TEXT_BYTES: u64 = 512 * 1024 * 1024;

/// The length from which on the next place replaces the one that is kept. Gzip has one every few ten kilobytes, and each costs a copy of the
/// window of 32 KiB; so tails of gzip are hardly longer.
const LONG_TAIL_BYTES: usize = 128 * 1024;

/// The most memory of a place: a window.
const PLACE_BYTES: usize = 33 * 1024;

/// Compressed data that is being read.
pub(super) struct Compressed {
    decompressor: Box<Decompressor>,
    /// Text that has come out, from the first byte on.
    text_bytes: u64,
    place: Place,
    /// The text before the place.
    text_before_place: u64,
    /// What has been taken behind the place; none when that is too much.
    tail: Option<Vec<u8>>,
}

impl Compressed {
    /// Data of an untrusted sender from its first byte on.
    ///
    /// # Errors
    /// When the decompressor's memory cannot be had.
    pub(super) fn new(coding: Coding) -> Result<Self, DecompressError> {
        Ok(Self::begin(Decompressor::untrusted(coding)?, Place::start(coding), 0))
    }

    /// Data from a place on that has this text before it.
    ///
    /// # Errors
    /// When there is no such place.
    pub(super) fn at(place: Place, text_before_place: u64) -> Result<Self, RestoreError> {
        Ok(Self::begin(Decompressor::at(&place)?, place, text_before_place))
    }

    fn begin(decompressor: Decompressor, place: Place, text_bytes: u64) -> Self {
        Self {
            decompressor: Box::new(decompressor),
            text_bytes,
            place,
            text_before_place: text_bytes,
            tail: Some(Vec::new()),
        }
    }

    /// How the data is compressed.
    pub(super) fn coding(&self) -> Coding {
        self.place.coding()
    }

    /// Takes from the input, and writes the text that comes out. All there is has come out when the input is used up and less than all
    /// room is filled.
    ///
    /// # Errors
    /// When the data is damaged.
    pub(super) fn step(&mut self, input: &[u8], room: &mut [u8]) -> Result<Step, DecompressError> {
        let is_place_wanted = self.tail.as_ref().is_none_or(|tail| tail.len() >= LONG_TAIL_BYTES);
        let step = if is_place_wanted {
            self.decompressor.step_to_place(input, room)?
        } else {
            self.decompressor.step(input, room)?
        };
        self.text_bytes = self.text_bytes.saturating_add(step.produced as u64);
        if let Some(place) = self.decompressor.place() {
            (self.place, self.text_before_place) = (place, self.text_bytes);
            let tail = self.tail.get_or_insert_default();
            tail.clear();
            tail.shrink_to(2 * LONG_TAIL_BYTES);
        } else if let Some(tail) = &mut self.tail {
            tail.extend_from_slice(&input[..step.consumed]);
            if tail.len() > MAX_TAIL_BYTES || self.text_bytes - self.text_before_place > MAX_TAIL_TEXT_BYTES {
                self.tail = None;
            }
        }
        Ok(step)
    }

    /// Memory of the decompressor and of what is kept.
    pub(super) fn memory_bytes(&self) -> usize {
        self.decompressor.memory_bytes() + PLACE_BYTES + self.tail.as_ref().map_or(0, Vec::capacity)
    }

    /// The most memory that reading this much takes on top of that. A tail that grows is there twice.
    pub(super) fn growth_bytes(&self, bytes: usize) -> usize {
        let capacity = self.tail.as_ref().map_or(0, Vec::capacity);
        let len = self.tail.as_ref().map_or(0, Vec::len) + bytes;
        let tail = if len <= capacity { 0 } else { len.max(2 * capacity) };
        self.decompressor.growth_bytes() + PLACE_BYTES + tail
    }

    /// Text that has come out, from the first byte on.
    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The place to go on from, the text before it, and what has to be read again behind it.
    pub(super) fn kept(&self) -> Option<(&Place, u64, &[u8])> {
        Some((&self.place, self.text_before_place, self.tail.as_deref()?))
    }

    /// Checks that the data is complete.
    ///
    /// # Errors
    /// When its end is missing.
    pub(super) fn finish(&self) -> Result<(), DecompressError> {
        self.decompressor.finish()
    }
}
