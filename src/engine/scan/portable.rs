//! The scanner's instructions on 64-bit words, for every processor.
#![expect(clippy::needless_bitwise_bool, reason = "a branch here could not be predicted")]

use super::marks::Masks;
use super::{BLOCK_BYTES, Instructions};
use crate::engine::totals::Lanes;

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

impl Instructions for Portable {
    #[inline(always)]
    fn masks(block: &[u8; BLOCK_BYTES], delimiter: u8) -> Masks {
        let is_quoted = block.iter().fold(false, |found, byte| found | (*byte == b'"'));
        Masks {
            delimiters: mask_of(block, delimiter),
            newlines: mask_of(block, b'\n'),
            returns: mask_of(block, b'\r'),
            quotes: if is_quoted { mask_of(block, b'"') } else { 0 },
        }
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
    fn numbers(text: &[u8], before: &[u32; 4], ends: &[u32; 4], last_trim: u32) -> Option<Lanes> {
        let len = |index: usize| {
            let trim = if index == 3 { last_trim } else { 0 };
            ends[index].wrapping_sub(before[index]).wrapping_sub(1 + trim)
        };
        // Every length less one is below 8 when all their bits together are.
        let lens_less_one = (0..4).fold(0, |bits, index| bits | len(index).wrapping_sub(1));
        if lens_less_one >= 8 {
            return None;
        }
        let digits = |index: usize| right_aligned(word_at(text, before[index].wrapping_add(1) as usize), len(index));
        let (cents, is_lost) = cents_digits(digits(2));
        let words = [digits(0), digits(1), cents, digits(3)];
        // A byte above 9 reaches its highest bit when 118 is added, or has it already.
        let not_digits = words.iter().fold(0, |bits, word| bits | word.wrapping_add(0x7676_7676_7676_7676) | word);
        if is_lost | (not_digits & !LOW_SEVEN != 0) {
            return None;
        }
        Some(Lanes(words.map(eight_digits)))
    }
}

/// The digit values of the first `len` bytes, 1 to 8, moved to the end; zeros before them.
#[inline(always)]
fn right_aligned(word: u64, len: u32) -> u64 {
    (word ^ 0x3030_3030_3030_3030).wrapping_shl(64_u32.wrapping_sub(8 * len))
}

/// Takes the point out of an amount's digits and gives those of its cents. The flag is true when leading digits were lost
/// on the way; bytes that are no digits are left for the caller to find.
#[inline(always)]
fn cents_digits(digits: u64) -> (u64, bool) {
    const POINT: u64 = (b'.' ^ b'0') as u64;
    let two = digits & 0xffff_0000_0000_0000 | digits << 8 & 0x0000_ffff_ffff_ff00;
    let one = digits & 0x0000_ffff_ffff_ffff | digits >> 8 & 0x00ff_0000_0000_0000;
    let none = digits >> 16;
    let has_two = digits >> 40 & 0xff == POINT;
    let has_one = digits >> 48 & 0xff == POINT;
    let is_lost = !has_two & !has_one & (digits & 0xffff != 0);
    (
        if has_two {
            two
        } else if has_one {
            one
        } else {
            none
        },
        is_lost,
    )
}
