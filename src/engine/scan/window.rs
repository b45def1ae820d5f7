//! A piece of a text with its marks.

use super::marks::Marks;
use crate::engine::dialect::Columns;
use crate::engine::key::MAX_SHORT_ID_BYTES;

/// A piece of text that starts at a record, and what is known of it.
pub(super) struct Window<'a> {
    pub(super) text: &'a [u8],
    pub(super) marks: &'a Marks,
    /// Where its marks end.
    pub(super) regular_to: usize,
    pub(super) columns: &'a Columns,
    /// It has the usual columns and the same line ends everywhere.
    pub(super) is_standard: bool,
}

impl Window<'_> {
    /// Where the row from `start` on ends.
    pub(super) fn row_end(&self, start: usize) -> Option<usize> {
        self.marks.newlines.first(start, self.regular_to)
    }

    /// True when there are doubled quotes from `start` on and below `end`, in an input of which they are marked.
    #[inline(always)]
    pub(super) fn has_doubled_quotes(&self, start: usize, end: usize) -> bool {
        self.marks.doubled.first(start, end).is_some()
    }

    /// The separators of a row, relative to its start, if it has six. The row is short; or, with `LONG_ID`, its first field and
    /// all the others together are.
    #[inline(always)]
    pub(super) fn six_separators<const LONG_ID: bool>(&self, start: usize) -> Option<[usize; 6]> {
        let mut row = [0; 6];
        let (offset, others) = if LONG_ID {
            let delimiters = self.marks.delimiters.behind(start);
            let before_first = (delimiters & delimiters.wrapping_neg()).wrapping_sub(1);
            // A row that ends before it has no separator, and is not long.
            if delimiters == 0 || self.marks.newlines.behind(start) & before_first != 0 {
                return None;
            }
            row[0] = delimiters.trailing_zeros() as usize;
            (row[0] + 1, &mut row[1..])
        } else {
            (0, &mut row[..])
        };
        let newlines = self.marks.newlines.behind(start + offset);
        if newlines == 0 {
            return None;
        }
        let up_to_end = newlines ^ (newlines - 1);
        let mut delimiters = self.marks.delimiters.behind(start + offset) & up_to_end;
        let last = others.len() - 1;
        if delimiters.count_ones() as usize != last {
            return None;
        }
        others[last] = offset + newlines.trailing_zeros() as usize;
        for separator in &mut others[..last] {
            *separator = offset + delimiters.trailing_zeros() as usize;
            delimiters &= delimiters.wrapping_sub(1);
        }
        Some(row)
    }

    /// Writes out the separators of a row, relative to its start; false unless they are as many as there are places.
    #[inline(always)]
    pub(super) fn find_separators(&self, start: usize, room: &mut [usize]) -> bool {
        if let Some(found) = self.find_near_separators(start, 0, room) {
            return found;
        }
        // Often only the first field is long.
        let delimiters = self.marks.delimiters.behind(start);
        if let (Some((first, others)), true) = (room.split_first_mut(), delimiters != 0) {
            *first = delimiters.trailing_zeros() as usize;
            if let Some(found) = self.find_near_separators(start, *first + 1, others) {
                return found;
            }
        }
        self.find_far_separators(start, room)
    }

    /// Does the same for the separators from an offset on. `None` when the end of the row is too far behind the offset
    /// to be in the same word of marks.
    #[inline(always)]
    fn find_near_separators(&self, start: usize, offset: usize, room: &mut [usize]) -> Option<bool> {
        let newlines = self.marks.newlines.behind(start + offset);
        if newlines == 0 {
            return None;
        }
        let up_to_end = newlines ^ (newlines - 1);
        let mut separators = (self.marks.delimiters.behind(start + offset) | newlines) & up_to_end;
        if separators.count_ones() as usize != room.len() {
            return Some(false);
        }
        for separator in room {
            *separator = offset + separators.trailing_zeros() as usize;
            separators &= separators.wrapping_sub(1);
        }
        Some(true)
    }

    #[inline(never)]
    fn find_far_separators(&self, start: usize, room: &mut [usize]) -> bool {
        let (Some(end), Some((last, others))) = (self.row_end(start), room.split_last_mut()) else { return false };
        *last = end - start;
        let mut delimiters = self.marks.delimiters.between(start, end);
        for separator in others {
            let Some(delimiter) = delimiters.next() else { return false };
            *separator = delimiter - start;
        }
        delimiters.next().is_none()
    }

    /// True when a row or its id is too long for the functions that read short rows in standard windows.
    #[inline(always)]
    pub(super) fn is_long(&self, start: usize) -> bool {
        let is_long_id = self.marks.delimiters.behind(start).trailing_zeros() as usize > MAX_SHORT_ID_BYTES;
        is_long_id || self.marks.newlines.behind(start) == 0
    }
}

/// Masks for the first bytes of sixteen, eight by eight.
pub(super) const FIRST_BYTES: [(u64, u64); 16] = {
    let mut masks = [(0, 0); 16];
    let mut len = 1;
    while len < 16 {
        let (low, high) = masks[len - 1];
        masks[len] = if len <= 8 { (low << 8 | 0xff, 0) } else { (low, high << 8 | 0xff) };
        len += 1;
    }
    masks
};
