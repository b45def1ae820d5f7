//! The scanner's instructions with AVX2, BMI and carry-less multiplication.
#![expect(unsafe_code, reason = "vector instructions and unchecked loads")]
#![expect(clippy::cast_ptr_alignment, reason = "only unaligned loads are made")]

use std::arch::x86_64::{
    __m256i, _MM_HINT_T0, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_prefetch, _mm_set_epi64x,
    _mm_set1_epi8, _mm256_add_epi64, _mm256_and_si256, _mm256_andnot_si256, _mm256_broadcastsi128_si256,
    _mm256_cmpeq_epi8, _mm256_cmpeq_epi64, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256, _mm256_packus_epi32, _mm256_set_epi64x, _mm256_set_m128i,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_shuffle_epi32, _mm256_slli_epi64, _mm256_sllv_epi64, _mm256_srli_epi64,
    _mm256_srlv_epi64, _mm256_sub_epi64, _mm256_testz_si256, _mm256_xor_si256,
};

use super::instructions::{BLOCK_BYTES, Cell, Instructions, Masks, NumberForm, SLACK_BYTES};
use super::job::{Job, Scanned};
use super::marks::{self, Form, Marked, Marks, Separators};
use super::rows::{self, Batch, Loops};
use super::usual::{self, Cursor, Usual};
use super::window::Window;
use crate::engine::dialect::digits_at_end;
use crate::engine::error::Fatal;
use crate::engine::lookup::{CountRows, Lookup};
use crate::engine::short_number::Short;
use crate::engine::sums::Lanes;

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

    /// For tests.
    #[cfg(test)]
    #[expect(clippy::unused_self, reason = "having it is the proof")]
    pub(super) fn short_numbers(self, text: &[u8], cells: [Cell; 4], form: &NumberForm) -> Option<[Short; 4]> {
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
        fn with_features(text: &[u8], cells: [Cell; 4], form: &NumberForm) -> Option<[Short; 4]> {
            Avx2::short_numbers(text, cells, form)
        }
        // SAFETY: `Available` has found the features.
        unsafe { with_features(text, cells, form) }
    }
}

/// Only [`Available::run`] may use this type: its methods use the instructions without asking. The functions below
/// are compiled with them, and all the others inlined there.
struct Avx2;

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn mark(window: &[u8], blocks: usize, delimiter: u8, form: Form, marks: &mut Marks) -> Marked {
    marks::mark::<Avx2>(window, blocks, delimiter, form, marks)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn add_plain_rows<const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
    window: &Window<'_>,
    start: &mut usize,
    room: &mut [usize],
    rows: &mut impl CountRows,
) -> u64 {
    rows::add_plain_rows::<Avx2, LINE_END, QUOTED, LONG_ID>(window, start, room, rows)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn collect_batch<const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
    window: &Window<'_>,
    start: &mut usize,
    room: &mut [usize],
    lookup: &Lookup<'_>,
    batch: &mut Batch,
) {
    rows::collect_batch::<Avx2, LINE_END, QUOTED, LONG_ID>(window, start, room, lookup, batch);
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn list_separators(window: &[u8], marks: &Marks, separators: &mut Separators) {
    separators.list(window, marks);
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn add_usual_rows<const AROUND: u8>(
    window: &Window<'_>,
    usual: &Usual<'_>,
    cursor: &mut Cursor<'_>,
    lookup: Lookup<'_>,
) -> u64 {
    usual::add_usual_rows::<Avx2, AROUND>(window, usual, cursor, lookup)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn add_spelled_rows<const AROUND: u8>(
    window: &Window<'_>,
    usual: &Usual<'_>,
    start: &mut usize,
    lookup: Lookup<'_>,
) -> u64 {
    usual::add_spelled_rows::<Avx2, AROUND>(window, usual, start, lookup)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,pclmulqdq")]
fn has_blanks(text: &[u8]) -> bool {
    marks::has_blanks(text)
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
    fn mark(window: &[u8], blocks: usize, delimiter: u8, form: Form, marks: &mut Marks) -> Marked {
        // SAFETY: `Available` has found the features.
        unsafe { mark(window, blocks, delimiter, form, marks) }
    }

    fn add_plain_rows<const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
        window: &Window<'_>,
        start: &mut usize,
        room: &mut [usize],
        rows: &mut impl CountRows,
    ) -> u64 {
        // SAFETY: as in `mark`.
        unsafe { add_plain_rows::<LINE_END, QUOTED, LONG_ID>(window, start, room, rows) }
    }

    fn collect_batch<const LINE_END: usize, const QUOTED: bool, const LONG_ID: bool>(
        window: &Window<'_>,
        start: &mut usize,
        room: &mut [usize],
        lookup: &Lookup<'_>,
        batch: &mut Batch,
    ) {
        // SAFETY: as in `mark`.
        unsafe { collect_batch::<LINE_END, QUOTED, LONG_ID>(window, start, room, lookup, batch) };
    }

    fn list_separators(window: &[u8], marks: &Marks, separators: &mut Separators) {
        // SAFETY: as in `mark`.
        unsafe { list_separators(window, marks, separators) };
    }

    fn add_usual_rows<const AROUND: u8>(
        window: &Window<'_>,
        usual: &Usual<'_>,
        cursor: &mut Cursor<'_>,
        lookup: Lookup<'_>,
    ) -> u64 {
        // SAFETY: as in `mark`.
        unsafe { add_usual_rows::<AROUND>(window, usual, cursor, lookup) }
    }

    fn add_spelled_rows<const AROUND: u8>(
        window: &Window<'_>,
        usual: &Usual<'_>,
        start: &mut usize,
        lookup: Lookup<'_>,
    ) -> u64 {
        // SAFETY: as in `mark`.
        unsafe { add_spelled_rows::<AROUND>(window, usual, start, lookup) }
    }

    fn has_blanks(text: &[u8]) -> bool {
        // SAFETY: as in `mark`.
        unsafe { has_blanks(text) }
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
            Some(Lanes(std::mem::transmute::<__m256i, [u64; 4]>(eights(digits))))
        }
    }

    #[inline(always)]
    fn short_numbers(text: &[u8], cells: [Cell; 4], form: &NumberForm) -> Option<[Short; 4]> {
        if cells.iter().all(|cell| (1..=8).contains(&cell.len()) && cell.end >= 8) {
            return numbers_up_to_eight(text, cells, form);
        }
        if cells.iter().all(|cell| (1..=16).contains(&cell.len()) && cell.end >= 16) {
            let read = if form.has_groups {
                ungrouped_numbers(text, cells, form)
            } else {
                numbers_in_two_parts(text, cells, form)
            };
            if read.is_some() {
                return read;
            }
        }
        form.read_one_by_one(text, cells)
    }
}

/// Reads four numbers of one to eight bytes, each with at most one mark between groups, as `Notation::short` reads them one by
/// one. All of them end behind the first eight bytes of the text.
#[inline(always)]
fn numbers_up_to_eight(text: &[u8], cells: [Cell; 4], form: &NumberForm) -> Option<[Short; 4]> {
    let load = |cell: Cell| load_8_before(text, 0, cell.end);
    let bits = |cell: Cell| (8 * cell.len()).cast_signed() as i64;
    // SAFETY: only inlined into the functions above, which have AVX2.
    unsafe {
        let [one, zero, eight] = [_mm256_set1_epi64x(1), _mm256_setzero_si256(), _mm256_set1_epi64x(8)];
        let high_bits = _mm256_set1_epi8(i8::MIN);
        let bits_of_numbers = _mm256_set_epi64x(bits(cells[3]), bits(cells[2]), bits(cells[1]), bits(cells[0]));
        let loaded = _mm256_set_epi64x(load(cells[3]), load(cells[2]), load(cells[1]), load(cells[0]));
        // The last byte comes first; behind the number there are zeros.
        let turned = _mm256_shuffle_epi8(loaded, load_vector(&TURNED));
        let values = _mm256_xor_si256(turned, _mm256_set1_epi8(b'0'.cast_signed()));
        let values = _mm256_and_si256(values, _mm256_sub_epi64(_mm256_sllv_epi64(one, bits_of_numbers), one));
        // The highest bits of bytes that are no digits.
        let up_to_nine = _mm256_cmpeq_epi8(_mm256_min_epu8(values, _mm256_set1_epi8(9)), values);
        let marks = _mm256_andnot_si256(up_to_nine, high_bits);
        // The first mark may be the decimal one. A mark is taken out by moving what is behind it.
        let lowest = |marks| _mm256_and_si256(marks, _mm256_sub_epi64(zero, marks));
        let before = |mark| _mm256_sub_epi64(_mm256_srli_epi64::<7>(mark), one);
        let without = |bytes, before| {
            let moved = _mm256_andnot_si256(before, _mm256_srli_epi64::<8>(bytes));
            _mm256_or_si256(_mm256_and_si256(bytes, before), moved)
        };
        let decimal = _mm256_set1_epi8((form.notation.decimal ^ b'0').cast_signed());
        let point = _mm256_and_si256(lowest(marks), _mm256_cmpeq_epi8(values, decimal));
        let before_point = before(point);
        let values = without(values, before_point);
        let marks = without(marks, before_point);
        let has_no_point = _mm256_cmpeq_epi64(point, zero);
        let is_point_alone = _mm256_andnot_si256(has_no_point, _mm256_cmpeq_epi64(bits_of_numbers, eight));
        let (values, wrong) = if form.has_groups {
            // One more may stand between groups.
            let group = lowest(marks);
            let before_group = before(group);
            let has_no_group = _mm256_cmpeq_epi64(group, zero);
            let group_marks = _mm256_broadcastsi128_si256(_mm_loadu_si128(form.group_marks.as_ptr().cast()));
            let ascii = _mm256_xor_si256(values, _mm256_set1_epi8(b'0'.cast_signed()));
            let are_group_marks = _mm256_cmpeq_epi8(_mm256_shuffle_epi8(group_marks, ascii), ascii);
            let values = without(values, before_group);
            // Three digits stand behind it, before the decimal mark; one to three before it, the first of which is not zero.
            let last_whole = _mm256_or_si256(point, _mm256_and_si256(has_no_point, _mm256_set1_epi64x(0x80)));
            let place_of_group = _mm256_slli_epi64::<24>(last_whole);
            let leading = _mm256_andnot_si256(before_group, values);
            let without_marks = _mm256_sub_epi64(_mm256_set1_epi64x(-3), _mm256_add_epi64(has_no_point, has_no_group));
            let first_digit = _mm256_add_epi64(bits_of_numbers, _mm256_slli_epi64::<3>(without_marks));
            let leading_digit = _mm256_srlv_epi64(values, first_digit);
            let has_no_leading =
                _mm256_or_si256(_mm256_cmpeq_epi64(leading, zero), _mm256_cmpeq_epi64(leading_digit, zero));
            let wrong_group = _mm256_or_si256(_mm256_xor_si256(group, place_of_group), has_no_leading);
            let wrong = [
                _mm256_andnot_si256(has_no_group, wrong_group),
                _mm256_andnot_si256(are_group_marks, group),
                // Too many leading digits.
                _mm256_andnot_si256(before(_mm256_slli_epi64::<24>(group)), values),
                _mm256_and_si256(marks, _mm256_sub_epi64(marks, one)),
            ];
            (values, wrong.into_iter().fold(is_point_alone, |all, some| _mm256_or_si256(all, some)))
        } else {
            (values, _mm256_or_si256(is_point_alone, marks))
        };
        if _mm256_testz_si256(wrong, wrong) == 0 {
            return None;
        }
        let numbers = std::mem::transmute::<__m256i, [u64; 4]>(eights(values));
        let points = _mm256_movemask_epi8(point).cast_unsigned();
        let decimals = |lane: u32| ((points >> (8 * lane) & 0xff) | 0x100).trailing_zeros() % 8;
        Some([
            (numbers[0], decimals(0)),
            (numbers[1], decimals(1)),
            (numbers[2], decimals(2)),
            (numbers[3], decimals(3)),
        ])
    }
}

/// Reads four numbers of one to sixteen bytes without marks between groups: their last eight bytes together, and what is before
/// these one by one. That has to be digits.
#[inline(always)]
fn numbers_in_two_parts(text: &[u8], cells: [Cell; 4], form: &NumberForm) -> Option<[Short; 4]> {
    let last_parts = cells.map(|cell| Cell { start: cell.start.max(cell.end - 8), end: cell.end });
    let mut numbers = numbers_up_to_eight(text, last_parts, form)?;
    for ((value, decimals), Cell { start, end }) in numbers.iter_mut().zip(cells) {
        if end - start > 8 {
            // With a point among its eight bytes the last part has seven digits.
            let scale = match *decimals {
                0 if text[end - 1] == form.notation.decimal => return None,
                0 => 100_000_000,
                _ => 10_000_000,
            };
            *value += digits_at_end(&text[..end - 8], end - 8 - start)? * scale;
        }
    }
    Some(numbers)
}

/// Reads four numbers of one to sixteen bytes without marks between groups.
#[inline(always)]
fn ungrouped_numbers(text: &[u8], [first, second, third, fourth]: [Cell; 4], form: &NumberForm) -> Option<[Short; 4]> {
    let [first, second] = two_ungrouped_numbers(text, [first, second], form)?;
    let [third, fourth] = two_ungrouped_numbers(text, [third, fourth], form)?;
    Some([first, second, third, fourth])
}

/// Reads two numbers of one to sixteen bytes without marks between groups. Both end behind the first sixteen bytes of the text.
#[inline(always)]
fn two_ungrouped_numbers(text: &[u8], cells: [Cell; 2], form: &NumberForm) -> Option<[Short; 2]> {
    let before = cells.map(|cell| &text[..cell.end]);
    let loaded = [before[0].last_chunk::<16>()?, before[1].last_chunk::<16>()?];
    let kept = [KEPT.get(cells[0].len())?, KEPT.get(cells[1].len())?];
    // SAFETY: only inlined into the functions above, which have AVX2.
    unsafe {
        let values = _mm256_xor_si256(load_halves(loaded), _mm256_set1_epi8(b'0'.cast_signed()));
        let values = _mm256_and_si256(values, load_halves(kept));
        let up_to_nine = _mm256_cmpeq_epi8(_mm256_min_epu8(values, _mm256_set1_epi8(9)), values);
        let marks = !_mm256_movemask_epi8(up_to_nine).cast_unsigned();
        // The place of the first mark, sixteen without one. It has to be the decimal mark, and the only one.
        let marks = [marks & 0xffff, marks >> 16];
        let places = marks.map(|marks| (marks | 0x1_0000).trailing_zeros());
        let is_number = |index: usize| {
            let mark = loaded[index].get(places[index] as usize);
            let has_digit = mark.is_none() || cells[index].len() > 1;
            mark.is_none_or(|mark| *mark == form.notation.decimal)
                && marks[index] & (marks[index].wrapping_sub(1)) == 0
                && has_digit
        };
        if !is_number(0) || !is_number(1) {
            return None;
        }
        let moves = [&WITHOUT_BYTE[places[0] as usize], &WITHOUT_BYTE[places[1] as usize]];
        let digits = _mm256_shuffle_epi8(values, load_halves(moves));
        // Two digits, four digits, eight digits: the first eight in the lowest part of each half, the others behind them.
        let pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x010a));
        let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x0001_0064));
        let packed = _mm256_packus_epi32(fours, fours);
        let eights =
            std::mem::transmute::<__m256i, [u32; 8]>(_mm256_madd_epi16(packed, _mm256_set1_epi32(0x0001_2710)));
        let number = |half: usize| u64::from(eights[4 * half]) * 100_000_000 + u64::from(eights[4 * half + 1]);
        let decimals = |index: usize| 15_u32.saturating_sub(places[index]);
        Some([(number(0), decimals(0)), (number(1), decimals(1))])
    }
}

#[inline(always)]
fn load_halves([low, high]: [&[u8; 16]; 2]) -> __m256i {
    // SAFETY: unaligned loads may start anywhere; only inlined into the functions above, which have AVX2.
    unsafe { _mm256_set_m128i(_mm_loadu_si128(high.as_ptr().cast()), _mm_loadu_si128(low.as_ptr().cast())) }
}

/// By the number of bytes at the end that are kept: all ones for these, else zero.
static KEPT: [[u8; 16]; 17] = {
    let mut kept = [[0; 16]; 17];
    let mut len = 1;
    while len <= 16 {
        kept[len] = kept[len - 1];
        kept[len][16 - len] = u8::MAX;
        len += 1;
    }
    kept
};

/// By the place of a byte: moves those before it to take its place. Without it, nothing moves.
static WITHOUT_BYTE: [[u8; 16]; 17] = {
    const ZERO: u8 = 0x80;
    let mut moves = [[0; 16]; 17];
    let mut place = 0;
    while place <= 16 {
        let mut byte = 0_u8;
        while byte < 16 {
            let from = if byte as usize > place || place == 16 {
                byte
            } else if byte == 0 {
                ZERO
            } else {
                byte - 1
            };
            moves[place][byte as usize] = from;
            byte += 1;
        }
        place += 1;
    }
    moves
};

/// The numbers that eight digits are in each lane, the last one first.
#[inline(always)]
fn eights(digits: __m256i) -> __m256i {
    // SAFETY: only inlined into the functions above, which have AVX2.
    unsafe {
        // Two digits, four digits, eight digits; then each number to the low half of its lane.
        let pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x0a01));
        let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x0064_0001));
        let packed = _mm256_packus_epi32(fours, _mm256_setzero_si256());
        let eights = _mm256_madd_epi16(packed, _mm256_set1_epi32(0x2710_0001));
        _mm256_shuffle_epi32::<0b11_01_10_00>(eights)
    }
}

/// Each lane with its last byte first.
static TURNED: [u8; 32] = {
    let mut moves = [0; 32];
    let mut byte = 0_u8;
    while byte < 32 {
        moves[byte as usize] = byte % 16 / 8 * 8 + 7 - byte % 8;
        byte += 1;
    }
    moves
};

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
