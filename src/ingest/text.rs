//! A buffer for decompressed text that has not been counted yet.

use std::ops::Range;

use super::block::BLOCK_BYTES;

/// The most text that comes out of one step of decompression.
pub(super) const STEP_BYTES: usize = 64 * 1024;

/// Decompressed text. Its memory is used again.
#[derive(Default)]
pub(super) struct Text {
    /// The text, and behind it room for more.
    room: Vec<u8>,
    /// The length of the text, at most that of `room`.
    len: usize,
}

impl Text {
    /// Room behind the text for what a step makes: [`STEP_BYTES`].
    pub(super) fn step_room(&mut self) -> &mut [u8] {
        let end = self.len + STEP_BYTES;
        if self.room.len() < end {
            // The first step needs no more, and all further ones no more than this.
            let most = if self.len == 0 { STEP_BYTES } else { BLOCK_BYTES + STEP_BYTES };
            self.room.reserve_exact(most.max(end) - self.room.len());
            self.room.resize(end, 0);
        }
        &mut self.room[self.len..end]
    }

    /// Appends a part of what a step has written to its room.
    pub(super) fn append(&mut self, part: Range<usize>) {
        let len = part.len();
        if part.start > 0 {
            self.room.copy_within(self.len + part.start..self.len + part.end, self.len);
        }
        self.len += len;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.room[..self.len]
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}
