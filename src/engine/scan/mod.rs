//! Finding and reading plain rows many bytes at a time.
//!
//! The text is taken in windows that start at a record. First the marks of a window are found, 64 bytes at a time: a bit
//! for every delimiter and one for every row end, those inside quotes left out (the inside of quotes is a prefix xor over
//! the quotes, as in simdjson: Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019). Then rows are read off
//! the marks: a row is plain when it has as many fields as the header, and its four numbers are at most eight bytes, the
//! spend with up to two decimals. It is counted at once when its id is known. Where other numbers are frequent, and in
//! every dialect, rows are read in another way (`usual`). Any other row goes, with its fields already found, to the code
//! that judges every kind of row.
//!
//! Nearly all rows are short: all their marks lie in one word, which is counted and read without a loop. Where all line
//! ends are the same and the columns are the usual ones, everything about such rows except their bytes is known at
//! compile time.
//!
//! Marks are right only where the text is regular: quotes open and close whole fields, nothing is broken inside them, and
//! all rows end with LF, before which there may be CR. What is regular is changed when a text needs it: doubled quotes, or
//! CRs that end rows by themselves. At the first block of 64 bytes that is irregular even so, the scanner stops and says
//! how far the general reader has to go. So in every text each block is scanned a few times at most.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod instructions;
mod job;
mod marks;
mod nearly_plain;
mod portable;
pub(super) mod prefetch;
mod rows;
mod usual;
mod window;

use self::instructions::WINDOW_BYTES;
use self::job::Job;
pub(crate) use self::job::Scanned;
use self::marks::{Form, Marks, Separators};
use self::rows::{Oddness, Rows};
use super::aggregate::Aggregate;
use super::dialect::Columns;
use super::error::Fatal;
use super::judge::Judge;
use super::record::{Fields, Position};

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

/// The scanner with its buffers.
pub(crate) struct Scanner {
    instructions: Selected,
    form: Form,
    marks: Box<Marks>,
    fields: Fields,
    room: Vec<usize>,
    separators: Vec<usize>,
    listed: Separators,
    oddness: Oddness,
}

#[derive(Clone, Copy)]
enum Selected {
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Available),
    Portable,
}

/// Memory of a scanner besides itself: its marks, and room for the separators of a window.
pub(crate) const SCANNER_BYTES: usize = size_of::<Marks>() + 8 * WINDOW_BYTES;

impl Scanner {
    /// A scanner for texts with this delimiter and limit; `None` when it is switched off or cannot read them.
    pub(crate) fn new(kernel: Kernel, delimiter: u8, max_record_bytes: usize) -> Option<Self> {
        // The scanner cannot read rows longer than a window, and needs a byte before each number that no number
        // contains.
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
            form: Form::USUAL,
            marks: Box::default(),
            fields: Fields::default(),
            room: Vec::new(),
            separators: Vec::new(),
            listed: Separators::default(),
            oddness: Oddness::default(),
        })
    }

    /// Counts the rows at the start of `text`, which starts at the record at `start`, as far as they are regular and whole.
    /// `start` moves on with them. A judge reads the rows of an input in a dialect.
    pub(crate) fn scan(
        &mut self,
        text: &[u8],
        columns: &Columns,
        delimiter: u8,
        judge: Option<Judge<'_>>,
        aggregate: &mut Aggregate,
        start: &mut Position,
    ) -> Result<Scanned, Fatal> {
        let Self { instructions, form, marks, fields, room, separators, listed, oddness } = self;
        // A window has no row with more columns than it has bytes; a forged state may say that there are.
        room.resize(columns.count.min(WINDOW_BYTES + 1), 0);
        let rows = Rows { columns, delimiter, judge, fields, room, separators, listed, oddness, aggregate, start };
        let job = Job { text, marks, form, rows };
        match *instructions {
            #[cfg(target_arch = "x86_64")]
            Selected::Avx2(available) => available.run(job),
            Selected::Portable => job.run::<portable::Portable>(),
        }
    }
}
