//! What a processor's instructions do for the scanner, and the sizes it works with.

use crate::engine::dialect::Notation;
use crate::engine::short_number::Short;
use crate::engine::sums::Lanes;

/// Bytes that marks are found for at once: few enough for the first-level cache.
pub(super) const WINDOW_BYTES: usize = 8192;

/// Bytes looked at in one step, and the bits of a mask.
pub(super) const BLOCK_BYTES: usize = 64;

/// In place of the length of all line ends, one or two, where they differ. Functions with a length as their parameter
/// read short rows with the usual columns; with `ANY` they read all other rows.
pub(super) const ANY: usize = 0;

/// Readable bytes behind every marked block, so that an id can be loaded as two words.
pub(super) const SLACK_BYTES: usize = 16;

/// The special bytes of a block but its quotes, one bit a byte.
pub(super) struct Masks {
    pub(super) delimiters: u64,
    pub(super) newlines: u64,
    pub(super) returns: u64,
}

/// Where the contents of a field stand in a window.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Cell {
    #[inline(always)]
    pub(super) fn len(self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    pub(super) fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start..self.end]
    }
}

/// A notation, and its marks as instructions need them.
pub(super) struct NumberForm {
    pub(super) notation: Notation,
    /// The marks of one byte between groups, each at the index of its lower half. The others are no marks.
    pub(super) group_marks: [u8; 16],
    /// There are such marks.
    pub(super) has_groups: bool,
}

impl NumberForm {
    pub(super) const PLAIN: Self = Self { notation: Notation::PLAIN, group_marks: [u8::MAX; 16], has_groups: false };

    pub(super) fn new(notation: Notation) -> Self {
        let marks = [b' ', b'\'', b',', b'.'].into_iter().filter(|mark| notation.is_group_byte(*mark));
        let mut group_marks = [u8::MAX; 16];
        for mark in marks {
            group_marks[usize::from(mark % 16)] = mark;
        }
        Self { notation, group_marks, has_groups: group_marks != [u8::MAX; 16] }
    }

    /// Four short numbers, none of which is read together with another.
    #[inline(always)]
    pub(super) fn read_one_by_one(&self, text: &[u8], cells: [Cell; 4]) -> Option<[Short; 4]> {
        let short = |cell: Cell| self.notation.short_at_end(&text[..cell.end], cell.len());
        Some([short(cells[0])?, short(cells[1])?, short(cells[2])?, short(cells[3])?])
    }
}

/// The instructions a scanner is made of.
pub(super) trait Instructions: Sized {
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

    /// Reads four short numbers. `None` when one of them is none, which says nothing about validity.
    #[inline(always)]
    fn short_numbers(text: &[u8], cells: [Cell; 4], form: &NumberForm) -> Option<[Short; 4]> {
        form.read_one_by_one(text, cells)
    }
}
