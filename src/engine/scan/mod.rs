//! Finding and reading plain rows many bytes at a time.
//!
//! The text is taken in windows that start at a record. First the marks of a window are found, 64 bytes at a time: a bit
//! for every delimiter and one for every row end, those inside quotes left out (the inside of quotes is a prefix xor over
//! the quotes, as in simdjson: Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019). Then rows are read off
//! the marks: a row is plain when it has as many fields as the header, its id is known, and its four numbers are at most
//! eight bytes, the spend with up to two decimals. Any other row goes, fields already found, to the general judgement.
//!
//! Nearly all rows are short: all their marks lie in one word, counted and read without a loop. Where line ends are the same
//! throughout and columns the usual ones, everything about such rows but their bytes is known when this is compiled.
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
use self::rows::{Batch, Rows, Window};
use super::aggregate::{Aggregate, Position};
use super::dialect::Columns;
use super::error::Fatal;
use super::record::Fields;
use super::totals::{Lanes, Lookup};

/// Bytes that marks are found for at once: few enough for the first-level cache.
const WINDOW_BYTES: usize = 8192;

/// Bytes looked at in one step, and the bits of a mask.
const BLOCK_BYTES: usize = 64;

/// As the length of all line ends, which is one or two: they differ. With one of these lengths as their parameter, functions
/// read short rows with the usual columns; with this, all other rows.
const ANY: usize = 0;

/// Readable bytes behind every marked block, so that an id can be loaded as two words.
const SLACK_BYTES: usize = 16;

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
    /// The special bytes of a block but its quotes.
    fn masks(block: &[u8; BLOCK_BYTES], delimiter: u8) -> Masks;

    /// The quotes of a block, one bit a byte.
    fn quotes(block: &[u8; BLOCK_BYTES]) -> u64;

    /// True when there are any.
    fn has_quotes(block: &[u8; BLOCK_BYTES]) -> bool;

    /// Bit `n` of the result is the parity of bits 0 to `n`.
    fn prefix_xor(bits: u64) -> u64;

    /// Sixteen bytes as two words, the first one lowest. All of them are readable.
    fn load_16(text: &[u8], start: usize) -> [u64; 2];

    /// Reads three whole numbers and, third, an amount with up to two decimals, in cents. They end before the positions
    /// `ends` and have, with the byte before each, `len` bytes together; positions are relative to `start`. The byte before
    /// each is none that numbers have. `None` when one of them is not as plain as that, or ends within the first eight bytes
    /// of the text.
    fn numbers(text: &[u8], start: usize, ends: [usize; 4], len: usize) -> Option<Lanes>;

    /// [`marks::mark`] with these instructions.
    fn mark(window: &[u8], blocks: usize, delimiter: u8, marks: &mut Marks) -> Marked {
        marks::mark::<Self>(window, blocks, delimiter, marks)
    }

    /// [`rows::add_plain_rows`] with these instructions.
    fn add_plain_rows<const LINE_END: usize, const QUOTED: bool>(
        window: &Window<'_>,
        start: &mut usize,
        room: &mut [usize],
        lookup: Lookup<'_>,
    ) -> u64 {
        rows::add_plain_rows::<Self, LINE_END, QUOTED>(window, start, room, lookup)
    }

    /// [`rows::collect_batch`] with these instructions.
    fn collect_batch<const LINE_END: usize, const QUOTED: bool>(
        window: &Window<'_>,
        start: &mut usize,
        room: &mut [usize],
        lookup: &Lookup<'_>,
        batch: &mut Batch,
    ) {
        rows::collect_batch::<Self, LINE_END, QUOTED>(window, start, room, lookup, batch);
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
    marks: Box<Marks>,
    fields: Fields,
    room: Vec<usize>,
    separators: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Selected {
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Available),
    Portable,
}

impl Scanner {
    /// A scanner for such texts, unless it is switched off.
    pub(crate) fn new(kernel: Kernel, delimiter: u8, max_record_bytes: usize) -> Option<Self> {
        // Rows longer than a window are the general reader's. Numbers are taken to start behind a byte that no number has.
        if max_record_bytes < WINDOW_BYTES || delimiter.is_ascii_digit() || delimiter == b'.' {
            return None;
        }
        let instructions = match kernel {
            Kernel::Off => return None,
            Kernel::Portable => Selected::Portable,
            #[cfg(target_arch = "x86_64")]
            Kernel::Detect => avx2::Available::detect().map_or(Selected::Portable, Selected::Avx2),
            #[cfg(not(target_arch = "x86_64"))]
            Kernel::Detect => Selected::Portable,
        };
        Some(Self {
            instructions,
            marks: Box::default(),
            fields: Fields::default(),
            room: Vec::new(),
            separators: Vec::new(),
        })
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
        let Self { instructions, marks, fields, room, separators } = self;
        // A window has no row with more columns than it has bytes; a forged state may say that there are.
        room.resize(columns.count.min(WINDOW_BYTES + 1), 0);
        let job = Job { text, marks, rows: Rows { columns, delimiter, fields, room, separators, aggregate, start } };
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
