//! Finding and reading plain rows many bytes at a time.
//!
//! The text is taken in windows that start at a record. First the marks of a window are found, 64 bytes at a time: every
//! separator and every row end, those inside quotes left out (the inside of quotes is a prefix xor over the quotes, as in
//! simdjson: Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019). Then rows are read off the marks: a row
//! is plain when the next row end is where the header says, its id is short and known, and its four numbers are at most
//! eight digits, the spend with up to two decimals. Any other row goes, fields already found, to the general judgement.
//!
//! Marks are right only where the text is regular: quotes open and close whole fields, nothing is doubled or broken
//! inside them, CR stands only before LF. At the first block of 64 bytes where it is not, the scanner stops and says how
//! far the general reader has to go. So a text without any regular block costs one look at each block and no more.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod marks;
mod portable;
mod rows;

use self::marks::{Marked, Marks, Masks};
use self::rows::{Batch, Cursor, Rows, Window};
use super::aggregate::{Aggregate, Position};
use super::dialect::Columns;
use super::error::Fatal;
use super::record::Fields;
use super::totals::{Lanes, Lookup};

/// Bytes that marks are found for at once: few enough for the first-level cache.
const WINDOW_BYTES: usize = 8192;

/// Bytes looked at in one step, and the bits of a mask.
const BLOCK_BYTES: usize = 64;

/// Readable bytes behind every marked block, so that a field can be loaded as one word from its first byte.
const SLACK_BYTES: usize = 16;

/// Rows longer than a window are the general reader's; limits below this one too.
pub(crate) const MIN_RECORD_LIMIT_BYTES: usize = WINDOW_BYTES;

/// Which instructions the scanner uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// The fastest that this processor has.
    #[default]
    Detect,
    /// Those that every processor has.
    Portable,
    /// None: the general reader reads everything. For tests and comparisons.
    Off,
}

/// The instructions a scanner is made of.
trait Instructions: Sized {
    /// The special bytes of a block.
    fn masks(block: &[u8; BLOCK_BYTES], delimiter: u8) -> Masks;

    /// Bit `n` of the result is the parity of bits 0 to `n`.
    fn prefix_xor(bits: u64) -> u64;

    /// Sixteen bytes as two words, the first one lowest. All of them are readable.
    fn load_16(text: &[u8], start: usize) -> [u64; 2];

    /// Reads three whole numbers and, third, an amount with up to two decimals, in cents. They start behind the positions
    /// `before` and end before the positions `ends`, the last one `last_trim` bytes earlier. Eight bytes from each start on
    /// are readable. `None` when one of them is not as plain as that.
    fn numbers(text: &[u8], before: &[u32; 4], ends: &[u32; 4], last_trim: u32) -> Option<Lanes>;

    /// [`marks::mark`] with these instructions.
    fn mark(window: &[u8], blocks: usize, delimiter: u8, marks: &mut Marks) -> Marked {
        marks::mark::<Self>(window, blocks, delimiter, marks)
    }

    /// [`rows::add_plain_rows`] with these instructions.
    fn add_plain_rows<const STANDARD: bool, const QUOTED: bool>(
        window: &Window<'_>,
        cursor: &mut Cursor<'_>,
        lookup: Lookup<'_>,
    ) -> usize {
        rows::add_plain_rows::<Self, STANDARD, QUOTED>(window, cursor, lookup)
    }

    /// [`rows::collect_batch`] with these instructions.
    fn collect_batch<'a, const STANDARD: bool, const QUOTED: bool>(
        window: &Window<'_>,
        cursor: &mut Cursor<'a>,
        lookup: &Lookup<'_>,
        batch: &mut Batch<'a>,
    ) {
        rows::collect_batch::<Self, STANDARD, QUOTED>(window, cursor, lookup, batch);
    }
}

/// How far a scan came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Bytes of whole rows.
    pub(crate) consumed: usize,
    /// The general reader has to read on until here before it is worth scanning again.
    pub(crate) general_to: usize,
}

/// The scanner with its buffers.
pub(crate) struct Scanner {
    instructions: Selected,
    marks: Marks,
    fields: Fields,
}

#[derive(Clone, Copy)]
enum Selected {
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Available),
    Portable,
}

impl Scanner {
    /// A scanner, unless it is switched off.
    pub(crate) fn new(kernel: Kernel) -> Option<Self> {
        let instructions = match kernel {
            Kernel::Off => return None,
            Kernel::Portable => Selected::Portable,
            #[cfg(target_arch = "x86_64")]
            Kernel::Detect => avx2::Available::detect().map_or(Selected::Portable, Selected::Avx2),
            #[cfg(not(target_arch = "x86_64"))]
            Kernel::Detect => Selected::Portable,
        };
        Some(Self { instructions, marks: Marks::new(), fields: Fields::default() })
    }

    /// Counts the rows at the start of `text`, which starts at the record at `start`, as far as they are regular and whole.
    /// `start` moves on with them.
    pub(crate) fn scan(
        &mut self,
        text: &[u8],
        columns: &Columns,
        delimiter: u8,
        aggregate: &mut Aggregate,
        start: &mut Position,
    ) -> Result<Scanned, Fatal> {
        let Self { instructions, marks, fields } = self;
        let job = Job { text, marks, rows: Rows { columns, delimiter, fields, aggregate, start } };
        match *instructions {
            #[cfg(target_arch = "x86_64")]
            Selected::Avx2(available) => available.run(job),
            Selected::Portable => job.run::<portable::Portable>(),
        }
    }
}

/// One call of [`Scanner::scan`].
struct Job<'a> {
    text: &'a [u8],
    marks: &'a mut Marks,
    rows: Rows<'a>,
}

impl Job<'_> {
    fn run<I: Instructions>(mut self) -> Result<Scanned, Fatal> {
        let mut consumed = 0;
        loop {
            let text = &self.text[consumed..];
            let blocks = text.len().saturating_sub(SLACK_BYTES).min(WINDOW_BYTES) / BLOCK_BYTES;
            let marked = I::mark(text, blocks, self.rows.delimiter, self.marks);
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

/// Positions in a window are small.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
#[inline(always)]
fn index_to_position(index: usize) -> u32 {
    index as u32
}
