//! Reading numbers that are plain ones with something before or behind them.

use super::instructions::{Cell, Instructions};
use crate::engine::dialect::digits_at_end;
use crate::engine::sums::{Fine, Lanes};

/// Numbers that are plain ones with something before or behind them: counts of up to sixteen digits, or with a decimal that is zero; a
/// spend with up to seven decimals.
pub(super) struct NearlyPlain {
    /// Without decimals that plain numbers do not have.
    cells: [Cell; 4],
    /// The decimals of the spend behind the second one, in units of 10^-12.
    spend_units: u64,
    /// The length of the longest cell.
    longest: usize,
}

impl NearlyPlain {
    #[inline(always)]
    pub(super) fn of(text: &[u8], [impressions, clicks, spend, conversions]: [Cell; 4]) -> Option<Self> {
        let (spend, spend_units) = without_fine_decimals(text, spend)?;
        let cells = [
            without_zero_decimal(text, impressions),
            without_zero_decimal(text, clicks),
            spend,
            without_zero_decimal(text, conversions),
        ];
        let longest = cells.iter().map(|cell| cell.len()).fold(0, usize::max);
        Some(Self { cells, spend_units, longest })
    }

    #[inline(always)]
    pub(super) fn fine(&self) -> Fine {
        Fine { spend: u128::from(self.spend_units), conversion_units: 0 }
    }

    /// The numbers of a row that starts there, when they are plain now.
    #[inline(always)]
    pub(super) fn lanes<I: Instructions>(&self, text: &[u8], start: usize) -> Option<Lanes> {
        if self.longest > 8 {
            return None;
        }
        let len = self.cells.iter().map(|cell| cell.len() + 1).sum();
        I::numbers(text, start, self.cells.map(|cell| cell.end - start), len)
    }

    /// The numbers of a row that starts there, when one of them is longer than plain ones.
    #[inline(always)]
    pub(super) fn long<I: Instructions>(&self, text: &[u8], start: usize) -> Option<[u64; 4]> {
        if !(9..=16).contains(&self.longest) {
            return None;
        }
        // The last eight bytes of each are a plain number, if it is one.
        let len = self.cells.iter().map(|cell| cell.len().min(8) + 1).sum();
        let Lanes(numbers) = I::numbers(text, start, self.cells.map(|cell| cell.end - start), len)?;
        let before = |cell: Cell| {
            if cell.len() > 8 { digits_at_end(&text[..cell.end - 8], cell.len() - 8) } else { Some(0) }
        };
        let [impressions, clicks, spend, conversions] = self.cells;
        // The last eight bytes of a longer spend have decimals.
        let before = [before(impressions)?, before(clicks)?, (spend.len() <= 8).then_some(0)?, before(conversions)?];
        Some(std::array::from_fn(|index| numbers[index] + before[index] * 100_000_000))
    }
}

/// A count without the decimal that many programs write in a column that has had fractions.
#[inline(always)]
fn without_zero_decimal(text: &[u8], Cell { start, mut end }: Cell) -> Cell {
    if end - start > 2 && text[end - 2..end] == *b".0" {
        end -= 2;
    }
    Cell { start, end }
}

/// A spend without its decimals behind the second one, and these in units of 10^-12. `None` when they are no digits.
#[inline(always)]
fn without_fine_decimals(text: &[u8], Cell { start, end }: Cell) -> Option<(Cell, u64)> {
    const POINTS: u64 = 0x2e2e_2e2e_2e2e_2e2e;
    const LOW_SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    /// By the number of all decimals.
    const UNITS: [u64; 8] = [0, 0, 0, 1_000_000_000, 100_000_000, 10_000_000, 1_000_000, 100_000];

    let others = u64::from_le_bytes(*text[..end].last_chunk()?) ^ POINTS;
    // The highest bit of each byte that is a point. The last of these points has the decimals behind it.
    let points = !(((others & LOW_SEVEN) + LOW_SEVEN) | others | LOW_SEVEN);
    let decimals = points.leading_zeros() as usize / 8;
    if !(3..8).contains(&decimals) || decimals + 1 >= end - start {
        return Some((Cell { start, end }, 0));
    }
    let fine_decimals = digits_at_end(&text[..end], decimals - 2)?;
    Some((Cell { start, end: end - (decimals - 2) }, fine_decimals * UNITS[decimals]))
}
