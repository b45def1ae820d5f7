//! The scanner's instructions with AVX2, BMI and carry-less multiplication.
#![expect(unsafe_code, reason = "vector instructions and unchecked loads")]
#![expect(clippy::cast_ptr_alignment, reason = "only unaligned loads are made")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_castsi128_ps, _mm_clmulepi64_si128, _mm_cvtsi32_si128, _mm_cvtsi128_si64, _mm_loadu_si128,
    _mm_movemask_ps, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_slli_si128, _mm_sub_epi32, _mm256_adds_epu8,
    _mm256_cmpeq_epi8, _mm256_cvtepu32_epi64, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_movemask_epi8, _mm256_packus_epi32, _mm256_set_epi64x, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_shuffle_epi32,
    _mm256_slli_epi64, _mm256_sllv_epi64, _mm256_sub_epi64, _mm256_xor_si256,
};

use super::marks::{self, Marked, Marks, Masks};
use super::rows::{self, Batch, Cursor, Window};
use super::{BLOCK_BYTES, Instructions, Job, SLACK_BYTES, Scanned};
use crate::engine::error::Fatal;
use crate::engine::totals::{Lanes, Lookup};

/// Proof that this processor has the instructions: it is made by asking the processor, and nowhere else.
#[derive(Clone, Copy)]
pub(super) struct Available(());

impl Available {
    pub(super) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("pclmulqdq");
        has_all.then_some(Self(()))
    }

    #[expect(clippy::unused_self, reason = "having it is the proof")]
    pub(super) fn run(self, job: Job<'_>) -> Result<Scanned, Fatal> {
        job.run::<Avx2>()
    }
}

/// Only [`Available::run`] may use this type: its methods use the instructions without asking. The three functions below
/// are compiled with them, and all the others inlined there.
struct Avx2;

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn mark(window: &[u8], blocks: usize, delimiter: u8, marks: &mut Marks) -> Marked {
    marks::mark::<Avx2>(window, blocks, delimiter, marks)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn add_plain_rows<const STANDARD: bool, const QUOTED: bool>(
    window: &Window<'_>,
    cursor: &mut Cursor<'_>,
    lookup: Lookup<'_>,
) -> usize {
    rows::add_plain_rows::<Avx2, STANDARD, QUOTED>(window, cursor, lookup)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn collect_batch<'a, const STANDARD: bool, const QUOTED: bool>(
    window: &Window<'_>,
    cursor: &mut Cursor<'a>,
    lookup: &Lookup<'_>,
    batch: &mut Batch<'a>,
) {
    rows::collect_batch::<Avx2, STANDARD, QUOTED>(window, cursor, lookup, batch);
}

#[inline(always)]
fn mask_of(low: __m256i, high: __m256i, byte: u8) -> u64 {
    // SAFETY: only inlined into the functions above, which have AVX2.
    unsafe {
        let wanted = _mm256_set1_epi8(byte.cast_signed());
        let low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted)).cast_unsigned();
        let high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted)).cast_unsigned();
        u64::from(low) | u64::from(high) << 32
    }
}

impl Instructions for Avx2 {
    fn mark(window: &[u8], blocks: usize, delimiter: u8, marks: &mut Marks) -> Marked {
        // SAFETY: `Available` has found the features.
        unsafe { mark(window, blocks, delimiter, marks) }
    }

    fn add_plain_rows<const STANDARD: bool, const QUOTED: bool>(
        window: &Window<'_>,
        cursor: &mut Cursor<'_>,
        lookup: Lookup<'_>,
    ) -> usize {
        // SAFETY: as in `mark`.
        unsafe { add_plain_rows::<STANDARD, QUOTED>(window, cursor, lookup) }
    }

    fn collect_batch<'a, const STANDARD: bool, const QUOTED: bool>(
        window: &Window<'_>,
        cursor: &mut Cursor<'a>,
        lookup: &Lookup<'_>,
        batch: &mut Batch<'a>,
    ) {
        // SAFETY: as in `mark`.
        unsafe { collect_batch::<STANDARD, QUOTED>(window, cursor, lookup, batch) };
    }

    #[inline(always)]
    fn masks(block: &[u8; BLOCK_BYTES], delimiter: u8) -> Masks {
        let start = block.as_ptr().cast::<__m256i>();
        // SAFETY: the block has 64 bytes, and unaligned loads may start anywhere; AVX2 as in `mask_of`.
        let (low, high) = unsafe { (_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))) };
        Masks {
            delimiters: mask_of(low, high, delimiter),
            newlines: mask_of(low, high, b'\n'),
            returns: mask_of(low, high, b'\r'),
            quotes: mask_of(low, high, b'"'),
        }
    }

    #[inline(always)]
    fn prefix_xor(bits: u64) -> u64 {
        // SAFETY: only inlined into the functions above, which have carry-less multiplication.
        unsafe {
            let bits = _mm_set_epi64x(0, bits.cast_signed());
            _mm_cvtsi128_si64(_mm_clmulepi64_si128(bits, _mm_set1_epi8(-1), 0)).cast_unsigned()
        }
    }

    #[inline(always)]
    fn load_16(text: &[u8], start: usize) -> [u64; 2] {
        debug_assert!(start + SLACK_BYTES <= text.len());
        // SAFETY: every start lies in a marked block or right behind it, and the window has SLACK_BYTES readable bytes
        // behind its last marked block.
        unsafe { text.as_ptr().add(start).cast::<[u64; 2]>().read_unaligned() }
    }

    #[inline(always)]
    fn numbers(text: &[u8], before: &[u32; 4], ends: &[u32; 4], last_trim: u32) -> Option<Lanes> {
        // The point is looked for in the text itself, which is there long before the vectors are. It may belong to a field
        // before the spend; then the spend is shorter than its form allows.
        let last_four = text.get(..ends[2] as usize)?.last_chunk::<4>()?;
        // SAFETY: only inlined into the functions above, which have AVX2; the tables' rows are as long as what is loaded.
        unsafe {
            // Lane by lane the digits' values, the last digit in the last byte, zeros in front of the first.
            let loaded = _mm256_set_epi64x(
                load_8(text, before[3]),
                load_8(text, before[2]),
                load_8(text, before[1]),
                load_8(text, before[0]),
            );
            let values = _mm256_xor_si256(loaded, _mm256_set1_epi8(b'0'.cast_signed()));
            // Both were written one by one, long ago. From the loads above the compiler must not learn that they are the
            // same: it would take the addresses out of the vector again.
            let trim = _mm_slli_si128::<12>(_mm_cvtsi32_si128(last_trim.cast_signed()));
            let lens_and_one = _mm_sub_epi32(_mm_sub_epi32(load_vector(ends), load_vector(before)), trim);
            let bits = _mm256_slli_epi64::<3>(_mm256_cvtepu32_epi64(lens_and_one));
            let aligned = _mm256_sllv_epi64(values, _mm256_sub_epi64(_mm256_set1_epi64x(72), bits));
            // Where the spend has its point decides how its digits move.
            let form = &SPEND_FORMS[usize::from(last_four[1] == b'.') + 2 * usize::from(last_four[2] == b'.')];
            let digits = _mm256_shuffle_epi8(aligned, _mm256_loadu_si256((&raw const form.moves).cast::<__m256i>()));
            // Highest bits say what is wrong: a byte above nine, a length outside of what is allowed.
            let above_nine = _mm256_movemask_epi8(_mm256_adds_epu8(digits, _mm256_set1_epi8(0x76)));
            let too_short = _mm_sub_epi32(lens_and_one, load_vector(&form.min_lens_and_one));
            let too_long = _mm_sub_epi32(load_vector(&form.max_lens_and_one), lens_and_one);
            let wrong_length = _mm_movemask_ps(_mm_castsi128_ps(_mm_or_si128(too_short, too_long)));
            if above_nine | wrong_length != 0 {
                return None;
            }
            // Two digits, four digits, eight digits; then each number to the low half of its lane.
            let pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x010a));
            let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x0001_0064));
            let packed = _mm256_packus_epi32(fours, _mm256_setzero_si256());
            let eights = _mm256_madd_epi16(packed, _mm256_set1_epi32(0x0001_2710));
            let numbers = _mm256_shuffle_epi32::<0b11_01_10_00>(eights);
            Some(Lanes(std::mem::transmute::<__m256i, [u64; 4]>(numbers)))
        }
    }
}

#[inline(always)]
fn load_vector(of: &[u32; 4]) -> __m128i {
    // SAFETY: the array has 16 bytes, and unaligned loads may start anywhere; only inlined into the functions above.
    unsafe { _mm_loadu_si128(of.as_ptr().cast()) }
}

/// The eight bytes behind a position.
#[inline(always)]
fn load_8(text: &[u8], before: u32) -> i64 {
    // The position before the first byte is -1. Extended one by one, or the compiler would compute addresses in vectors.
    let start = before.cast_signed() as isize + 1;
    debug_assert!(usize::try_from(start).is_ok_and(|start| start + 8 <= text.len()));
    // SAFETY: as in `load_16`.
    unsafe { text.as_ptr().offset(start).cast::<i64>().read_unaligned() }
}

/// How the digits of a spend, the third lane, become those of its cents, and the lengths of the fields (and one) for which
/// that is right; the other lanes stay as they are.
struct SpendForm {
    moves: [u8; 32],
    min_lens_and_one: [u32; 4],
    max_lens_and_one: [u32; 4],
}

/// By the place of the point: none, before the last two digits, before the last, both of these.
static SPEND_FORMS: [SpendForm; 4] = {
    const ZERO: u8 = 0x80;
    const fn form(spend: [u8; 8], min_len: u32, max_len: u32) -> SpendForm {
        let mut moves = [0; 32];
        let mut byte = 0_u8;
        while byte < 32 {
            // A shuffle moves within sixteen bytes; the third lane is the first half of the second sixteen.
            moves[byte as usize] = if byte >= 16 && byte < 24 { spend[byte as usize - 16] } else { byte % 16 };
            byte += 1;
        }
        SpendForm { moves, min_lens_and_one: [2, 2, min_len + 1, 2], max_lens_and_one: [9, 9, max_len + 1, 9] }
    }
    [
        // Two places up; more than six digits would lose the first.
        form([2, 3, 4, 5, 6, 7, ZERO, ZERO], 1, 6),
        form([ZERO, 0, 1, 2, 3, 4, 6, 7], 3, 8),
        form([0, 1, 2, 3, 4, 5, 7, ZERO], 2, 8),
        // No number, of whatever length.
        form([0, 1, 2, 3, 4, 5, 6, 7], 8, 1),
    ]
};
