//! What a processor's instructions do for the scanner, and the sizes it works with.

use crate::engine::totals::Lanes;

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
}
