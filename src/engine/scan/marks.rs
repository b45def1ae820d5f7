//! Where the separators and the row ends of a window are.

use super::instructions::{ANY, BLOCK_BYTES, Instructions, Masks, WINDOW_BYTES};

/// The marks of one window.
#[derive(Default)]
pub(super) struct Marks {
    /// Those that separate fields.
    pub(super) delimiters: Positions,
    /// Row ends: the LF, whether there is a CR before it or not.
    pub(super) newlines: Positions,
    /// The second quotes of doubled ones; only where [`Quotes::MayBeDoubled`].
    pub(super) doubled: Positions,
    /// There may be such marks, of this window or of one before.
    has_doubled: bool,
}

/// What a regular text may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) quotes: Quotes,
    pub(super) line_ends: LineEnds,
}

impl Form {
    /// What most texts look like.
    pub(super) const USUAL: Self = Self { quotes: Quotes::AreSingle, line_ends: LineEnds::Newlines };

    /// Changes to a form in which a block that is irregular in this one may be regular. False if there is none.
    pub(super) fn suit(&mut self, block: &[u8]) -> bool {
        let has = |byte: u8| block.contains(&byte);
        if self.quotes == Quotes::AreSingle && has(b'"') {
            self.quotes = Quotes::MayBeDoubled;
            return true;
        }
        match self.line_ends {
            LineEnds::Newlines if has(b'\r') && !has(b'\n') => self.line_ends = LineEnds::Returns,
            LineEnds::Newlines => return false,
            LineEnds::Returns => self.line_ends = LineEnds::Newlines,
        }
        true
    }
}

/// What ends the rows of a regular text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnds {
    /// LF, or CR and LF.
    Newlines,
    /// CR, and there is no LF.
    Returns,
}

/// What quotes a regular text may have inside a quoted field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quotes {
    /// None.
    AreSingle,
    /// Doubled ones, which are marked.
    MayBeDoubled,
}

/// Positions in a window, as bits: those of eight bytes in one, the first one lowest. Behind those of the marked blocks
/// stand eight bytes without any.
// Aligned, so that no mask of a block lies in two cache lines.
#[repr(align(64))]
pub(super) struct Positions([u8; POSITION_BYTES]);

const POSITION_BYTES: usize = WINDOW_BYTES / 8 + MASK_BYTES;
const MASK_BYTES: usize = BLOCK_BYTES / 8;

impl Default for Positions {
    fn default() -> Self {
        Self([0; POSITION_BYTES])
    }
}

impl Positions {
    /// [`Self::behind`] gives at least this number of bits.
    const SURE_BITS: usize = BLOCK_BYTES - 7;

    /// The positions from `start` on, relative to it, as bits: all those below 57, and perhaps further ones.
    #[inline(always)]
    pub(super) fn behind(&self, start: usize) -> u64 {
        let mask = self.0[start / 8..].first_chunk::<MASK_BYTES>();
        mask.map_or(0, |mask| u64::from_le_bytes(*mask) >> (start % 8))
    }

    /// The positions from `start` on and below `end`.
    #[inline(always)]
    pub(super) fn between(&self, start: usize, end: usize) -> Between<'_> {
        Between { positions: self, start, end, bits: self.sure_bits(start) }
    }

    /// The words that hold the positions from `start` on and below `end`, each with the position of its first bit; others than
    /// these are left out.
    #[inline(always)]
    fn words(&self, start: usize, end: usize) -> impl Iterator<Item = (usize, u64)> {
        let words = self.0.as_chunks::<MASK_BYTES>().0;
        (start / 64..=end / 64).map(move |index| {
            let mut bits = words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
            if index == start / 64 {
                bits &= u64::MAX << (start % 64);
            }
            if index == end / 64 {
                bits &= (1 << (end % 64)) - 1;
            }
            (index * 64, bits)
        })
    }

    /// Lists all positions of two sets below `end`, ascending. `STEP`: about as many as nearly all blocks have at most.
    #[expect(clippy::cast_possible_truncation, reason = "a window has fewer bytes than 2^16")]
    #[inline(always)]
    fn list<const STEP: usize>(&self, others: &Self, end: usize, list: &mut PositionList) {
        list.positions.resize(1 + MAX_POSITIONS + BLOCK_BYTES + STEP, 0);
        list.positions[0] = u16::MAX;
        let positions = &mut list.positions[1..];
        let (mine, others) = (self.0.as_chunks::<MASK_BYTES>().0, others.0.as_chunks::<MASK_BYTES>().0);
        let mut len = 0;
        for (index, (mine, others)) in mine.iter().zip(others).enumerate().take(end / BLOCK_BYTES) {
            let mut bits = u64::from_le_bytes(*mine) | u64::from_le_bytes(*others);
            let block_end = len + bits.count_ones() as usize;
            let block_start = (index * BLOCK_BYTES) as u16;
            loop {
                // Always this number of steps: a processor cannot predict a loop whose length changes each time. What is
                // written beyond the positions of the block is overwritten, or lies behind the end of the list.
                for place in &mut positions[len..len + STEP] {
                    *place = block_start + bits.trailing_zeros() as u16;
                    bits &= bits.wrapping_sub(1);
                }
                len += STEP;
                if len >= block_end {
                    break;
                }
            }
            len = block_end;
        }
        list.len = len;
    }

    /// The first position from `start` on and below `end`.
    #[inline(always)]
    pub(super) fn first(&self, start: usize, end: usize) -> Option<usize> {
        let (word, bits) = self.words(start, end).find(|(_, bits)| *bits != 0)?;
        Some(word + bits.trailing_zeros() as usize)
    }

    #[inline(always)]
    fn sure_bits(&self, start: usize) -> u64 {
        self.behind(start) & ((1 << Self::SURE_BITS) - 1)
    }
}

/// More positions than these no window has.
const MAX_POSITIONS: usize = WINDOW_BYTES;

/// Positions of a window, ascending.
#[derive(Default)]
pub(super) struct PositionList {
    /// Before the first one stands that of the byte before the window, modulo 2^16.
    positions: Vec<u16>,
    len: usize,
}

impl PositionList {
    /// The positions from an index on, behind the one before them.
    #[inline(always)]
    pub(super) fn with_one_before(&self, index: usize) -> Option<&[u16]> {
        self.positions.get(index..=self.len)
    }
}

impl std::ops::Deref for PositionList {
    type Target = [u16];

    #[inline(always)]
    fn deref(&self) -> &[u16] {
        &self.positions[1..=self.len]
    }
}

/// All separators of a window as lists.
#[derive(Default)]
pub(super) struct Separators {
    /// Of fields and of rows.
    pub(super) all: PositionList,
    /// Of rows alone.
    pub(super) row_ends: PositionList,
}

impl Separators {
    /// Lists those of a window with these marks.
    #[inline(always)]
    pub(super) fn list(&mut self, window: &[u8], marks: &Marks) {
        let end = window.len();
        marks.newlines.list::<12>(&marks.delimiters, end, &mut self.all);
        marks.newlines.list::<2>(&marks.newlines, end, &mut self.row_ends);
    }
}

/// True when there are blanks in a text.
#[inline(always)]
pub(super) fn has_blanks(text: &[u8]) -> bool {
    // Not `any`: that would look at the bytes one by one.
    text.iter().fold(false, |found, byte| found | matches!(byte, b' ' | b'\t'))
}

/// Some positions of a window, ascending.
pub(super) struct Between<'a> {
    positions: &'a Positions,
    /// What `bits` are relative to.
    start: usize,
    end: usize,
    bits: u64,
}

impl Iterator for Between<'_> {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        while self.bits == 0 {
            self.start += Positions::SURE_BITS;
            if self.start >= self.end {
                return None;
            }
            self.bits = self.positions.sure_bits(self.start);
        }
        let position = self.start + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        (position < self.end).then_some(position)
    }
}

/// What is known of a window.
pub(super) struct Marked {
    /// There are quotes in it.
    pub(super) quoted: bool,
    /// There are doubled quotes in it.
    pub(super) has_doubled: bool,
    /// The length of all its line ends, or [`ANY`].
    pub(super) line_end: usize,
    /// Up to here it is regular.
    pub(super) regular_to: usize,
    /// The block that starts there is irregular.
    pub(super) is_irregular: bool,
}

/// What [`mark`] has to know of the blocks before.
#[derive(Default)]
struct Before {
    regular_blocks: usize,
    /// One when the last byte is a CR.
    after_return: u64,
    /// Bits that are set in some block: CRs; line ends without one.
    any_returns: u64,
    bare_newlines: u64,
}

impl Before {
    /// Where in the next block CR does not stand before LF. One at the end of a block is found out in the next: its row
    /// ends there.
    #[inline(always)]
    fn lone_returns(&self, newlines: u64, returns: u64) -> u64 {
        (returns << 1 | self.after_return) & !newlines
    }

    #[inline(always)]
    fn pass(&mut self, newlines: u64, returns: u64) {
        self.bare_newlines |= newlines & !(returns << 1 | self.after_return);
        self.any_returns |= returns;
        self.after_return = returns >> 63;
        self.regular_blocks += 1;
    }
}

/// Finds the marks of the first `blocks` blocks of a window that starts at a record.
#[inline(always)]
pub(super) fn mark<I: Instructions>(
    window: &[u8],
    blocks: usize,
    delimiter: u8,
    form: Form,
    marks: &mut Marks,
) -> Marked {
    match form.line_ends {
        LineEnds::Newlines => mark_with::<I, false>(window, blocks, delimiter, form.quotes, marks),
        LineEnds::Returns => mark_with::<I, true>(window, blocks, delimiter, form.quotes, marks),
    }
}

#[inline(always)]
fn mark_with<I: Instructions, const RETURNS: bool>(
    window: &[u8],
    blocks: usize,
    delimiter: u8,
    kept_quotes: Quotes,
    marks: &mut Marks,
) -> Marked {
    if std::mem::take(&mut marks.has_doubled) {
        marks.doubled = Positions::default();
    }
    let delimiter_masks = marks.delimiters.0.as_chunks_mut().0;
    let newline_masks = marks.newlines.0.as_chunks_mut().0;
    let mut before = Before::default();
    let doubled_masks = match kept_quotes {
        Quotes::AreSingle => None,
        Quotes::MayBeDoubled => Some(marks.doubled.0.as_chunks_mut().0),
    };
    let text = Text::<RETURNS> { window, blocks, delimiter };
    let regular = mark_unquoted::<I, RETURNS>(&text, delimiter_masks, newline_masks, &mut before);
    let quoted = regular && before.regular_blocks < blocks;
    if quoted {
        marks.has_doubled =
            mark_quoted::<I, RETURNS>(&text, delimiter_masks, newline_masks, doubled_masks, &mut before);
    }
    // Masks of the previous window may be left there.
    delimiter_masks[before.regular_blocks] = [0; MASK_BYTES];
    newline_masks[before.regular_blocks] = [0; MASK_BYTES];
    let line_end = match (before.any_returns, before.bare_newlines) {
        (0, _) => 1,
        (_, 0) => 2,
        _ => ANY,
    };
    let regular_to = before.regular_blocks * BLOCK_BYTES;
    let has_doubled = marks.has_doubled;
    Marked { quoted, has_doubled, line_end, regular_to, is_irregular: before.regular_blocks < blocks }
}

/// The blocks of a window. `RETURNS`: its line ends are CRs.
struct Text<'a, const RETURNS: bool> {
    window: &'a [u8],
    blocks: usize,
    delimiter: u8,
}

impl<'a, const RETURNS: bool> Text<'a, RETURNS> {
    #[inline(always)]
    fn blocks(&self) -> impl Iterator<Item = &'a [u8; BLOCK_BYTES]> {
        self.window.as_chunks().0[..self.blocks].iter()
    }

    /// The special bytes of the block at an index, its line ends as newlines. `None` when it is irregular by itself.
    #[inline(always)]
    fn masks<I: Instructions>(&self, index: usize, block: &[u8; BLOCK_BYTES]) -> Option<Masks> {
        let masks = I::masks(block, self.delimiter);
        if !RETURNS {
            return Some(masks);
        }
        // A pair of CR and LF is one line end, which these marks do not know. Behind the last block there is slack.
        let next = self.window.get((index + 1) * BLOCK_BYTES);
        let ends_within_pair = masks.returns >> 63 == 1 && next.is_none_or(|next| *next == b'\n');
        let has_newline = masks.newlines != 0 || ends_within_pair;
        (!has_newline).then_some(Masks { delimiters: masks.delimiters, newlines: masks.returns, returns: 0 })
    }
}

/// Marks blocks up to the first with quotes, or the first that is irregular; then the result is false.
#[inline(always)]
fn mark_unquoted<I: Instructions, const RETURNS: bool>(
    text: &Text<'_, RETURNS>,
    delimiter_masks: &mut [[u8; MASK_BYTES]],
    newline_masks: &mut [[u8; MASK_BYTES]],
    before: &mut Before,
) -> bool {
    let places = delimiter_masks[..text.blocks].iter_mut().zip(&mut newline_masks[..text.blocks]);
    for ((index, block), (delimiter_mask, newline_mask)) in text.blocks().enumerate().zip(places) {
        if I::has_quotes(block) {
            return true;
        }
        let Some(Masks { delimiters, newlines, returns }) = text.masks::<I>(index, block) else { return false };
        // Written before the block is known to be regular: masks behind the regular blocks are never read.
        *delimiter_mask = delimiters.to_le_bytes();
        *newline_mask = newlines.to_le_bytes();
        if before.lone_returns(newlines, returns) != 0 {
            return false;
        }
        before.pass(newlines, returns);
    }
    true
}

/// Marks the remaining blocks up to the first that is irregular. There are no quotes before them. True when some are doubled.
#[inline(always)]
fn mark_quoted<I: Instructions, const RETURNS: bool>(
    text: &Text<'_, RETURNS>,
    delimiter_masks: &mut [[u8; MASK_BYTES]],
    newline_masks: &mut [[u8; MASK_BYTES]],
    mut doubled_masks: Option<&mut [[u8; MASK_BYTES]]>,
    before: &mut Before,
) -> bool {
    // All ones where quotes may be doubled, else zero.
    let may_be_doubled = 0_u64.wrapping_sub(u64::from(doubled_masks.is_some()));
    // All ones while inside quotes, else zero.
    let mut inside_before = 0_u64;
    // One when the byte before this block is a delimiter or line end; below, when it is a closing quote.
    let mut after_separator = before.regular_blocks.checked_sub(1).map_or(1, |last| {
        let separators = u64::from_le_bytes(delimiter_masks[last]) | u64::from_le_bytes(newline_masks[last]);
        separators >> 63
    });
    let mut after_closing = 0;
    let mut any_doubled = 0;
    for (index, block) in text.blocks().enumerate().skip(before.regular_blocks) {
        let quotes = I::quotes(block);
        let Some(Masks { delimiters, newlines, returns }) = text.masks::<I>(index, block) else { break };
        let inside = I::prefix_xor(quotes) ^ inside_before;
        let (opening, closing) = (quotes & inside, quotes & !inside);
        let delimiters = delimiters & !inside;
        let separating = delimiters | newlines | returns;
        let behind_closing = closing << 1 | after_closing;
        // A quote right behind a closing one opens again: the two are one quote of the field.
        let doubled = opening & behind_closing & may_be_doubled;
        let irregular = before.lone_returns(newlines, returns)
            | opening & !(separating << 1 | after_separator | doubled)
            | behind_closing & !(separating | doubled)
            | (newlines | returns) & inside;
        if irregular != 0 {
            break;
        }
        any_doubled |= doubled;
        inside_before = 0_u64.wrapping_sub(inside >> 63);
        after_closing = closing >> 63;
        after_separator = (delimiters | newlines) >> 63;
        delimiter_masks[index] = delimiters.to_le_bytes();
        newline_masks[index] = newlines.to_le_bytes();
        if let Some(masks) = &mut doubled_masks {
            masks[index] = doubled.to_le_bytes();
        }
        before.pass(newlines, returns);
    }
    any_doubled != 0
}
