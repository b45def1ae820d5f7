//! Scanning a text window by window.

use super::instructions::{BLOCK_BYTES, SLACK_BYTES, WINDOW_BYTES};
use super::marks::{Form, Marks};
use super::rows::{Loops, Rows};
use crate::engine::error::Fatal;

/// Quotes and line ends.
const MAX_TRIED_FORMS: u32 = 2;

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
    /// What the text looks like, as far as it is known.
    pub(super) form: &'a mut Form,
    pub(super) rows: Rows<'a>,
}

impl Job<'_> {
    pub(super) fn run<I: Loops>(mut self) -> Result<Scanned, Fatal> {
        let mut consumed = 0;
        // Forms tried since a row was read: with each other form the same text is marked again.
        let mut tried = 0;
        loop {
            let text = &self.text[consumed..];
            let blocks = text.len().saturating_sub(SLACK_BYTES).min(WINDOW_BYTES) / BLOCK_BYTES;
            let marked = I::mark(text, blocks, self.rows.delimiter, *self.form, self.marks);
            let length = self.rows.take::<I>(text, self.marks, &marked)?;
            let irregular_to = consumed + marked.regular_to + BLOCK_BYTES;
            consumed += length;
            tried = if length == 0 { tried } else { 0 };
            if marked.is_irregular {
                if tried < MAX_TRIED_FORMS && self.form.suit(&self.text[irregular_to - BLOCK_BYTES..irregular_to]) {
                    tried += 1;
                    continue;
                }
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
