//! The sums of a campaign. Numbers below 2^40 are added in 64 bits (the lanes), all others in 128 bits (the wide sums).

use super::number::Money;

/// After this number of addends below 2^32 the lanes are emptied, long before they could overflow.
pub(super) const MAX_LANE_ADDENDS: u64 = 1 << 31;

/// Numbers with more bits than this do not go to the lanes. Every number of twelve digits has fewer. With a higher limit the lanes would
/// have to be emptied more often.
const LARGE_ADDEND_BITS: u32 = 40;

/// A row with a number of 2^32 or more counts as this many addends below 2^32.
const ADDENDS_PER_LARGE_ONE: u64 = 1 << (LARGE_ADDEND_BITS - 32);

/// The most addends that one byte of text can stand for: a row with a large number has at least 16 bytes, ten of them the number's digits.
pub(super) const MAX_LANE_ADDENDS_PER_BYTE: u64 = ADDENDS_PER_LARGE_ONE / 16;

/// Totals beyond these are refused. They leave room for the arithmetic of reports and are out of reach of real data:
/// reaching them takes terabytes of rows with the greatest spend.
pub(super) const MAX_COUNT_TOTAL: u128 = 1 << 120;
pub(super) const MAX_SPEND_TOTAL: u128 = 1 << 127;

/// Sums that small addends go to: impressions, clicks, cents, conversions. Each stays below 2^63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lanes(pub(crate) [u64; 4]);

impl Lanes {
    /// Addends, and as how many below 2^32 they count; `None` when one of them is too large for the lanes.
    #[inline(always)]
    pub(crate) fn new(addends: [u64; 4]) -> Option<(Self, u64)> {
        let [first, second, third, fourth] = addends;
        let all = first | second | third | fourth;
        // Not a branch: which counts are large cannot be predicted.
        let count = 1 + u64::from(all >> 32 != 0) * (ADDENDS_PER_LARGE_ONE - 1);
        (all >> LARGE_ADDEND_BITS == 0).then_some((Self(addends), count))
    }

    /// True when this number of addends can have given these sums.
    pub(super) fn are_possible(self, addends: u64) -> bool {
        self.0.iter().all(|lane| *lane <= addends << 32)
    }

    /// Adds to each lane; see `Totals::reserve_lane_addends`.
    #[inline(always)]
    pub(crate) fn add(&mut self, addends: Self) {
        for (lane, addend) in self.0.iter_mut().zip(addends.0) {
            *lane += addend;
        }
    }
}

/// Conversions are reported with their decimals up to this sum of a campaign that has any.
pub(super) const MAX_DECIMAL_CONVERSIONS: u128 = 1 << 83;

/// Sums of what did not fit the lanes: impressions, clicks, spend in units of 10^-12, conversions, and what is not whole of
/// these, in units of 10^-12.
pub(crate) type Wide = [u128; 5];

/// The wide sums of a version that knew no decimals of conversions.
pub(crate) fn with_decimals([impressions, clicks, spend, conversions]: [u128; 4]) -> Wide {
    [impressions, clicks, spend, conversions, 0]
}

/// What is finer than the lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fine {
    /// In units of 10^-12, beside the cents.
    pub(crate) spend: u128,
    /// In units of 10^-12, beside the whole conversions.
    pub(crate) conversion_units: u64,
}

impl Fine {
    #[inline(always)]
    pub(super) fn is_none(self) -> bool {
        (self.spend | u128::from(self.conversion_units)) == 0
    }

    /// Adds it with the numbers of the lanes to wide sums far below their limits; `None`, and nothing is added, when they are not.
    pub(super) fn add_with(self, [impressions, clicks, cents, conversions]: [u64; 4], wide: &mut Wide) -> Option<()> {
        if wide[0].max(wide[1]).max(wide[3]) >= MAX_COUNT_TOTAL / 2 {
            return None;
        }
        let spend = self.spend + Money::from_cents(cents).0;
        Self { spend, ..self }.add_to(wide)?;
        wide[0] += u128::from(impressions);
        wide[1] += u128::from(clicks);
        wide[3] += u128::from(conversions);
        Some(())
    }

    /// Adds to wide sums far below their limits; `None`, and nothing is added, when they are not.
    #[inline(always)]
    pub(super) fn add_to(self, [_, _, spend, conversions, units]: &mut Wide) -> Option<()> {
        if spend.saturating_add(self.spend) >= MAX_SPEND_TOTAL / 2 || *conversions >= MAX_DECIMAL_CONVERSIONS {
            return None;
        }
        *spend += self.spend;
        *units += u128::from(self.conversion_units);
        Some(())
    }
}
