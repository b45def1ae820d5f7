//! Where the separators and the row ends of a window are.

use super::{BLOCK_BYTES, Instructions, WINDOW_BYTES, index_to_position};

/// The special bytes of a block, one bit a byte.
pub(super) struct Masks {
    pub(super) delimiters: u64,
    pub(super) newlines: u64,
    pub(super) returns: u64,
    pub(super) quotes: u64,
}

/// The marks of one window: positions in it, ascending. Room for one more block is left behind the last.
pub(super) struct Marks {
    /// Delimiters and row ends.
    pub(super) separators: Box<[u32]>,
    /// Row ends: the LF, whether there is a CR before it or not.
    pub(super) row_ends: Box<[u32]>,
}

impl Marks {
    pub(super) fn new() -> Self {
        let room = vec![0; WINDOW_BYTES + BLOCK_BYTES].into_boxed_slice();
        Self { separators: room.clone(), row_ends: room }
    }
}

/// What is known of a window.
pub(super) struct Marked {
    pub(super) separators: usize,
    pub(super) row_ends: usize,
    /// There are quotes in it.
    pub(super) quoted: bool,
    /// How many CRs stand before each LF, if it is the same everywhere.
    pub(super) returns_at_end: Option<u32>,
    /// Up to here it is regular.
    pub(super) regular_to: usize,
    /// The block there is not.
    pub(super) is_irregular: bool,
}

/// Finds the marks of the first `blocks` blocks of a window that starts at a record.
#[inline(always)]
pub(super) fn mark<I: Instructions>(window: &[u8], blocks: usize, delimiter: u8, marks: &mut Marks) -> Marked {
    let Marks { separators: separator_list, row_ends: row_end_list } = marks;
    let (separator_list, row_end_list) = (&mut **separator_list, &mut **row_end_list);
    let (mut separators, mut row_ends, mut quoted, mut regular_blocks) = (0, 0, false, 0);
    // All ones while inside quotes, else zero.
    let mut inside_before = 0_u64;
    // One when the byte before this block is such a one: a delimiter or line end, a closing quote, a CR.
    let (mut after_separator, mut after_closing, mut after_return) = (1, 0, 0);
    let (mut any_returns, mut bare_newlines) = (0, 0);
    for block in window.as_chunks::<BLOCK_BYTES>().0.iter().take(blocks) {
        let at = regular_blocks * BLOCK_BYTES;
        let Masks { mut delimiters, newlines, returns, quotes } = I::masks(block, delimiter);
        // CR stands before LF and nowhere else. One at the end of a block is found out in the next: its row ends there.
        let behind_return = returns << 1 | after_return;
        let mut irregular = behind_return & !newlines;
        if quotes | inside_before | after_closing != 0 {
            let inside = I::prefix_xor(quotes) ^ inside_before;
            let (opening, closing) = (quotes & inside, quotes & !inside);
            delimiters &= !inside;
            let separating = delimiters | newlines | returns;
            irregular |= opening & !(separating << 1 | after_separator);
            irregular |= (closing << 1 | after_closing) & !separating;
            irregular |= (newlines | returns) & inside;
            inside_before = 0_u64.wrapping_sub(inside >> 63);
            after_closing = closing >> 63;
            quoted = true;
        }
        if irregular != 0 {
            break;
        }
        after_return = returns >> 63;
        any_returns |= returns;
        bare_newlines |= newlines & !behind_return;
        after_separator = (delimiters | newlines) >> 63;
        separators = push_positions::<12>(separator_list, separators, delimiters | newlines, at);
        row_ends = push_positions::<2>(row_end_list, row_ends, newlines, at);
        regular_blocks += 1;
    }
    let returns_at_end = match (any_returns, bare_newlines) {
        (0, _) => Some(0),
        (_, 0) => Some(1),
        _ => None,
    };
    let regular_to = regular_blocks * BLOCK_BYTES;
    Marked { separators, row_ends, quoted, returns_at_end, regular_to, is_irregular: regular_blocks < blocks }
}

/// Appends the positions of the bits of a mask to a list of so many, and gives its new length. Writes in steps, beyond the
/// last position if need be: how many bits there are is hard to predict one by one. `FEW` is what most masks have.
#[inline(always)]
fn push_positions<const FEW: usize>(list: &mut [u32], len: usize, mask: u64, base: usize) -> usize {
    let count = mask.count_ones() as usize;
    let Some(room) = list[len..].first_chunk_mut::<BLOCK_BYTES>() else {
        return len;
    };
    let mut bits = Bits { mask, base: index_to_position(base) };
    bits.write(room, 0, FEW);
    if count > FEW {
        bits.write(room, FEW, 2 * FEW);
        if count > 2 * FEW {
            bits.write(room, 2 * FEW, BLOCK_BYTES);
        }
    }
    len + count
}

/// The bits of a mask that are still to be written.
struct Bits {
    mask: u64,
    base: u32,
}

impl Bits {
    #[expect(unsafe_code, reason = "a volatile write is the only kind that is not made into vectors")]
    #[inline(always)]
    fn write(&mut self, room: &mut [u32; BLOCK_BYTES], from: usize, to: usize) {
        for place in &mut room[from..to] {
            let position = self.base.wrapping_add(self.mask.trailing_zeros());
            // SAFETY: a reference may be written to. The compiler would otherwise gather positions into vectors element
            // by element, which takes longer than all the rest.
            unsafe { std::ptr::from_mut(place).write_volatile(position) };
            self.mask &= self.mask.wrapping_sub(1);
        }
    }
}
