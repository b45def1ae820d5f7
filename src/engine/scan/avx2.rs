//! The scanner's instructions with AVX2, BMI and carry-less multiplication.
#![expect(unsafe_code, reason = "vector instructions and unchecked loads")]
#![expect(clippy::cast_ptr_alignment, reason = "only unaligned loads are made")]

use std::arch::x86_64::{
    __m256i, _MM_HINT_T0, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_prefetch, _mm_set_epi64x, _mm_set1_epi8,
    _mm256_and_si256, _mm256_andnot_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256, _mm256_packus_epi32,
    _mm256_set_epi64x, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_shuffle_epi32, _mm256_sub_epi64, _mm256_testz_si256, _mm256_xor_si256,
};

use super::instructions::{BLOCK_BYTES, Instructions, Masks, SLACK_BYTES};
use super::job::{Job, Scanned};
use super::marks::{self, Marked, Marks, Quotes};
use super::rows::{self, Batch, Loops, Window};
use crate::engine::error::Fatal;
use crate::engine::totals::{Lanes, Lookup};

/// How far ahead the text is prefetched, in bytes. It often lies in memory or in another core's cache, and processors
/// by themselves prefetch only to the end of a page of 4 KiB.
const PREFETCH_BYTES: usize = 1024;

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
fn mark(window: &[u8], blocks: usize, delimiter: u8, quotes: Quotes, marks: &mut Marks) -> Marked {
    marks::mark::<Avx2>(window, blocks, delimiter, quotes, marks)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn add_plain_rows<const LINE_END: usize, const QUOTED: bool>(
    window: &Window<'_>,
    start: &mut usize,
    room: &mut [usize],
    lookup: Lookup<'_>,
) -> u64 {
    rows::add_plain_rows::<Avx2, LINE_END, QUOTED>(window, start, room, lookup)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn collect_batch<const LINE_END: usize, const QUOTED: bool>(
    window: &Window<'_>,
    start: &mut usize,
    room: &mut [usize],
    lookup: &Lookup<'_>,
    batch: &mut Batch,
) {
    rows::collect_batch::<Avx2, LINE_END, QUOTED>(window, start, room, lookup, batch);
}

/// The bytes of a block that are the wanted one: all ones, the others zero.
#[inline(always)]
fn equal(block: &[u8; BLOCK_BYTES], wanted: u8) -> [__m256i; 2] {
    let start = block.as_ptr().cast::<__m256i>();
    // SAFETY: the block has 64 bytes, and unaligned loads may start anywhere; only inlined into the functions above, which
    // have AVX2.
    unsafe {
        let wanted = _mm256_set1_epi8(wanted.cast_signed());
        let (low, high) = (_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1)));
        [_mm256_cmpeq_epi8(low, wanted), _mm256_cmpeq_epi8(high, wanted)]
    }
}

/// One bit for each byte.
#[inline(always)]
fn mask_of(block: &[u8; BLOCK_BYTES], wanted: u8) -> u64 {
    let [low, high] = equal(block, wanted);
    // SAFETY: AVX2 as in `equal`.
    let (low, high) = unsafe { (_mm256_movemask_epi8(low), _mm256_movemask_epi8(high)) };
    u64::from(low.cast_unsigned()) | u64::from(high.cast_unsigned()) << 32
}

impl Loops for Avx2 {
    fn mark(window: &[u8], blocks: usize, delimiter: u8, quotes: Quotes, marks: &mut Marks) -> Marked {
        // SAFETY: `Available` has found the features.
        unsafe { mark(window, blocks, delimiter, quotes, marks) }
    }

    fn add_plain_rows<const LINE_END: usize, const QUOTED: bool>(
        window: &Window<'_>,
        start: &mut usize,
        room: &mut [usize],
        lookup: Lookup<'_>,
    ) -> u64 {
        // SAFETY: as in `mark`.
        unsafe { add_plain_rows::<LINE_END, QUOTED>(window, start, room, lookup) }
    }

    fn collect_batch<const LINE_END: usize, const QUOTED: bool>(
        window: &Window<'_>,
        start: &mut usize,
        room: &mut [usize],
        lookup: &Lookup<'_>,
        batch: &mut Batch,
    ) {
        // SAFETY: as in `mark`.
        unsafe { collect_batch::<LINE_END, QUOTED>(window, start, room, lookup, batch) };
    }
}

impl Instructions for Avx2 {
    #[inline(always)]
    fn masks(block: &[u8; BLOCK_BYTES], delimiter: u8) -> Masks {
        let ahead = block.as_ptr().wrapping_add(PREFETCH_BYTES);
        // SAFETY: a hint that may name any address; only inlined into the functions above.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) };
        Masks { delimiters: mask_of(block, delimiter), newlines: mask_of(block, b'\n'), returns: mask_of(block, b'\r') }
    }

    #[inline(always)]
    fn quotes(block: &[u8; BLOCK_BYTES]) -> u64 {
        mask_of(block, b'"')
    }

    #[inline(always)]
    fn has_quotes(block: &[u8; BLOCK_BYTES]) -> bool {
        let [low, high] = equal(block, b'"');
        // SAFETY: AVX2 as in `equal`.
        unsafe {
            let any = _mm256_or_si256(low, high);
            _mm256_testz_si256(any, any) == 0
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
    fn numbers(text: &[u8], start: usize, ends: [usize; 4], len: usize) -> Option<Lanes> {
        // Only rows that start within the first eight bytes need the second comparison.
        if start < 8 && ends.iter().any(|end| start + end < 8) {
            return None;
        }
        let load = |index: usize| load_8_before(text, start, ends[index]);
        // SAFETY: only inlined into the functions above, which have AVX2.
        unsafe {
            // Lane by lane the last digit in the last byte, with whatever stands before the number in the first ones.
            let loaded = _mm256_set_epi64x(load(3), load(2), load(1), load(0));
            let values = _mm256_xor_si256(loaded, _mm256_set1_epi8(b'0'.cast_signed()));
            let points = _mm256_movemask_epi8(_mm256_cmpeq_epi8(loaded, _mm256_set1_epi8(b'.'.cast_signed())));
            let form = &SPEND_FORMS[(points.cast_unsigned() >> 21 & 3) as usize];
            // Now the last digit comes first. Digits are kept up to the first byte above nine: adding one to all ones
            // carries up to there.
            let moved = _mm256_shuffle_epi8(values, load_vector(&form.moves));
            let up_to_nine = _mm256_cmpeq_epi8(_mm256_min_epu8(moved, _mm256_set1_epi8(9)), moved);
            let carried = _mm256_sub_epi64(up_to_nine, _mm256_set1_epi8(-1));
            let keep = _mm256_andnot_si256(carried, up_to_nine);
            let kept = _mm256_movemask_epi8(keep).cast_unsigned();
            // No lane keeps more than its number has. So if all of them together have as many, each one has.
            if kept.count_ones() as usize != len.wrapping_add(form.further) || form.needed & !kept != 0 {
                return None;
            }
            let digits = _mm256_and_si256(moved, keep);
            // Two digits, four digits, eight digits; then each number to the low half of its lane.
            let pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x0a01));
            let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x0064_0001));
            let packed = _mm256_packus_epi32(fours, _mm256_setzero_si256());
            let eights = _mm256_madd_epi16(packed, _mm256_set1_epi32(0x2710_0001));
            let numbers = _mm256_shuffle_epi32::<0b11_01_10_00>(eights);
            Some(Lanes(std::mem::transmute::<__m256i, [u64; 4]>(numbers)))
        }
    }
}

#[inline(always)]
fn load_vector(of: &[u8; 32]) -> __m256i {
    // SAFETY: unaligned loads may start anywhere; only inlined into the functions above, which have AVX2.
    unsafe { _mm256_loadu_si256(of.as_ptr().cast()) }
}

/// The eight bytes before a position relative to `start`.
#[inline(always)]
fn load_8_before(text: &[u8], start: usize, end: usize) -> i64 {
    debug_assert!((8..=text.len()).contains(&(start + end)));
    // The sum that all four loads have in common is formed first.
    let before_start = text.as_ptr().wrapping_add(start).wrapping_sub(8);
    // SAFETY: `numbers` has made sure that there are eight bytes before it, and fields end within the text.
    unsafe { before_start.wrapping_add(end).cast::<i64>().read_unaligned() }
}

/// How the digits of a spend, the third lane, become those of its cents; the other lanes are only reversed.
#[repr(align(64))]
struct SpendForm {
    moves: [u8; 32],
    /// What must be among the bytes that are kept, a bit for each: the last digit of every number, and the other decimal.
    needed: u32,
    /// How many more bytes of all numbers are kept than these have with the bytes before them, modulo 2^64.
    further: usize,
}

/// By the place of the point: none, before the last two digits, before the last, both of these.
static SPEND_FORMS: [SpendForm; 4] = {
    const ZERO: u8 = 0x80;
    const fn form(spend: [u8; 8], needed_of_spend: u32, further: isize) -> SpendForm {
        let mut moves = [0; 32];
        let mut byte = 0_u8;
        while byte < 32 {
            // A shuffle moves within sixteen bytes; the third lane is the first half of the second sixteen.
            let turned = byte % 16 / 8 * 8 + 7 - byte % 8;
            moves[byte as usize] = if byte >= 16 && byte < 24 { spend[byte as usize - 16] } else { turned };
            byte += 1;
        }
        SpendForm { moves, needed: 0x0100_0101 | needed_of_spend << 16, further: further.cast_unsigned() }
    }
    [
        // The digits move up by two places; one is needed. More than six digits would lose some, which the count of
        // kept bytes shows.
        form([ZERO, ZERO, 7, 6, 5, 4, 3, 2], 0b100, -2),
        // The point comes last: it is not a digit. Both decimals are needed: they show that the point is in this field.
        form([7, 6, 4, 3, 2, 1, 0, 5], 0b11, -5),
        form([ZERO, 7, 5, 4, 3, 2, 1, 0], 0b10, -4),
        // Two points are no number: one of them comes first, so that nothing needed is kept.
        form([5, 7, 6, 4, 3, 2, 1, 0], 0b1, -4),
    ]
};
