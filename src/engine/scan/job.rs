//! Scanning a text window by window.

use super::instructions::{BLOCK_BYTES, SLACK_BYTES, WINDOW_BYTES};
use super::marks::{Marks, Quotes};
use super::rows::{Loops, Rows};
use crate::engine::error::Fatal;

/// How far a scan came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Bytes of whole rows.
    pub(crate) consumed: usize,
    /// The general reader has to read on until here before it is worth scanning again.
    pub(crate) general_to: usize,
}

/// One call of [`Scanner::scan`](super::Scanner::scan).
pub(super) struct Job<'a> {
    pub(super) text: &'a [u8],
    pub(super) marks: &'a mut Marks,
    pub(super) rows: Rows<'a>,
}

impl Job<'_> {
    pub(super) fn run<I: Loops>(mut self) -> Result<Scanned, Fatal> {
        let mut consumed = 0;
        let quotes = if self.rows.judge.is_some() { Quotes::MayBeDoubled } else { Quotes::AreSingle };
        loop {
            let text = &self.text[consumed..];
            let blocks = text.len().saturating_sub(SLACK_BYTES).min(WINDOW_BYTES) / BLOCK_BYTES;
            let marked = I::mark(text, blocks, self.rows.delimiter, quotes, self.marks);
            let length = self.rows.take::<I>(text, self.marks, &marked)?;
            let irregular_to = consumed + marked.regular_to + BLOCK_BYTES;
            consumed += length;
            if marked.is_irregular {
                return Ok(Scanned { consumed, general_to: irregular_to });
            }
            if length == 0 {
                // Either the text ends here, or this row is longer than a window.
                let is_long_row = blocks == WINDOW_BYTES / BLOCK_BYTES;
                let general_to = if is_long_row { consumed + 1 } else { self.text.len() };
                return Ok(Scanned { consumed, general_to });
            }
        }
    }
}
