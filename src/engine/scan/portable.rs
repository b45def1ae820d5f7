//! The scanner's instructions on 64-bit words, for every processor.
#![expect(clippy::needless_bitwise_bool, reason = "a branch here could not be predicted")]

use super::instructions::{BLOCK_BYTES, Instructions, Masks};
use super::rows::Loops;
use crate::engine::sums::Lanes;

pub(super) struct Portable;

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const LOW_SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// The bit that stands for each byte of a block within its word.
const BYTE_BITS: [u8; BLOCK_BYTES] = {
    let mut bits = [0; BLOCK_BYTES];
    let mut index = 0;
    while index < BLOCK_BYTES {
        bits[index] = 1 << (index % 8);
        index += 1;
    }
    bits
};

/// One bit for each byte that is the wanted one. Compilers make the first loop into the vector instructions they have;
/// the second one gathers the bits of eight bytes by a multiplication, which adds them up into the highest.
#[inline(always)]
fn mask_of(block: &[u8; BLOCK_BYTES], wanted: u8) -> u64 {
    let mut bits = BYTE_BITS;
    for (bit, byte) in bits.iter_mut().zip(block) {
        *bit &= if *byte == wanted { 0xff } else { 0 };
    }
    let words = bits.as_chunks::<8>().0;
    words.iter().rev().fold(0, |mask, word| mask << 8 | u64::from_le_bytes(*word).wrapping_mul(LOW_BITS) >> 56)
}

/// Eight digit values, the first one most significant, to their number: pairs, then fours, then all eight at once.
#[inline(always)]
fn eight_digits(digits: u64) -> u64 {
    let pairs = digits.wrapping_mul(10 * 0x100 + 1) >> 8 & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100 * 0x1_0000 + 1) >> 16 & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(10_000 * 0x1_0000_0000 + 1) >> 32
}

#[inline(always)]
fn word_at(text: &[u8], start: usize) -> u64 {
    text[start..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Loops for Portable {}

impl Instructions for Portable {
    #[inline(always)]
    fn masks(block: &[u8; BLOCK_BYTES], delimiter: u8) -> Masks {
        Masks { delimiters: mask_of(block, delimiter), newlines: mask_of(block, b'\n'), returns: mask_of(block, b'\r') }
    }

    #[inline(always)]
    fn quotes(block: &[u8; BLOCK_BYTES]) -> u64 {
        mask_of(block, b'"')
    }

    #[inline(always)]
    fn has_quotes(block: &[u8; BLOCK_BYTES]) -> bool {
        block.iter().fold(false, |found, byte| found | (*byte == b'"'))
    }

    #[inline(always)]
    fn prefix_xor(mut bits: u64) -> u64 {
        for shift in [1, 2, 4, 8, 16, 32] {
            bits ^= bits << shift;
        }
        bits
    }

    #[inline(always)]
    fn load_16(text: &[u8], start: usize) -> [u64; 2] {
        [word_at(text, start), word_at(text, start + 8)]
    }

    #[inline(always)]
    fn numbers(text: &[u8], start: usize, ends: [usize; 4], len: usize) -> Option<Lanes> {
        let mut words = [0; 4];
        for (word, end) in words.iter_mut().zip(ends) {
            *word = u64::from_le_bytes(*text[..start + end].last_chunk()?) ^ 0x3030_3030_3030_3030;
        }
        let (cents, filled, further) = cents_digits(words[2]);
        words[2] = cents;
        let kept = [kept_bits(words[0]), kept_bits(words[1]), kept_bits(words[2]), kept_bits(words[3])];
        let is_long_enough = (kept[0] > 0) & (kept[1] > 0) & (kept[2] > filled) & (kept[3] > 0);
        // No word keeps more than its number has. So if all of them together have as many, each one has.
        let len = len.wrapping_add(further);
        if !is_long_enough | (kept.iter().sum::<u32>() as usize != 8 * len) {
            return None;
        }
        let digits = |index: usize| {
            let dropped = 64 - kept[index];
            eight_digits(words[index] >> dropped << dropped)
        };
        Some(Lanes([digits(0), digits(1), digits(2), digits(3)]))
    }
}

/// How many bits at the end of a word are digit values: those of the bytes behind the last that is above nine.
#[inline(always)]
fn kept_bits(word: u64) -> u32 {
    // A byte above nine reaches its highest bit when 118 is added, or has it already. One that is not ASCII may carry into
    // the byte behind it, but what stands before a number is ASCII.
    let above_nine = (word.wrapping_add(0x7676_7676_7676_7676) | word) & !LOW_SEVEN;
    above_nine.leading_zeros()
}

/// Takes the point out of an amount's digits and gives those of its cents; how many bits of them any text has; and how
/// many more bytes of all numbers are kept than these have with the bytes before them, modulo 2^64.
#[inline(always)]
fn cents_digits(digits: u64) -> (u64, u32, usize) {
    const POINT: u64 = (b'.' ^ b'0') as u64;
    let two = digits & 0xffff_0000_0000_0000 | digits << 8 & 0x0000_ffff_ffff_ff00 | POINT;
    let one = digits & 0x0000_ffff_ffff_ffff | digits >> 8 & 0x00ff_0000_0000_0000;
    let none = digits >> 16;
    let has_two = digits >> 40 & 0xff == POINT;
    let has_one = digits >> 48 & 0xff == POINT;
    if has_two {
        (two, 8, 5_usize.wrapping_neg())
    } else if has_one {
        (one, 8, 4_usize.wrapping_neg())
    } else {
        (none, 16, 2_usize.wrapping_neg())
    }
}
