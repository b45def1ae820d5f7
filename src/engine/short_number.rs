//! Numbers of few digits, and what they are in each field.

use super::number::{Money, SPEND_DECIMALS, Spend, parse_conversions, parse_count, parse_micros, parse_spend};

/// Looked up: to raise ten to a power takes a loop.
const POWERS_OF_TEN: [u64; 19] = {
    let mut powers = [1; 19];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// Ten to the power of a number of decimals of a [`Short`].
#[inline(always)]
fn ten_to(decimals: u32) -> Option<u64> {
    POWERS_OF_TEN.get(decimals as usize).copied()
}

/// At most 18 digits, with the number of those that are decimals.
pub(crate) type Short = (u64, u32);

/// What a field may be read as.
pub(crate) trait Number: Sized {
    /// The value of a short number. `None` says nothing about validity.
    fn of_short(short: Short) -> Option<Self>;

    /// Reads a field. `None` when it is anything else.
    fn parse(field: &[u8]) -> Option<Self>;
}

/// A count: a whole number from 0 to 2^63 - 1.
pub(crate) struct Count(pub(crate) u64);

impl Number for Count {
    #[inline(always)]
    fn of_short((value, decimals): Short) -> Option<Self> {
        match decimals {
            0 => Some(Self(value)),
            // As many programs write counts in a column that has had fractions.
            1 => value.is_multiple_of(10).then_some(Self(value / 10)),
            _ => {
                let scale = ten_to(decimals)?;
                value.is_multiple_of(scale).then_some(Self(value / scale))
            }
        }
    }

    fn parse(field: &[u8]) -> Option<Self> {
        parse_count(field).map(Self)
    }
}

impl Number for Spend {
    #[inline(always)]
    fn of_short((value, decimals): Short) -> Option<Self> {
        if decimals <= 2 && value < 1 << 49 {
            return Some(Self::Cents(value * [100, 10, 1][decimals as usize]));
        }
        // Programs write four or six decimals also where there are only cents.
        let cents = match decimals {
            4 if value.is_multiple_of(100) => Some(value / 100),
            6 if value.is_multiple_of(10_000) => Some(value / 10_000),
            _ => None,
        };
        if let Some(cents) = cents
            && value < 1 << 49
        {
            return Some(Self::Cents(cents));
        }
        let exact = Money(u128::from(value) * u128::from(ten_to(SPEND_DECIMALS.checked_sub(decimals)?)?));
        (exact <= Money::MAX_SPEND).then_some(Self::Exact(exact))
    }

    fn parse(field: &[u8]) -> Option<Self> {
        parse_spend(field)
    }
}

/// An amount in millionths: a whole number of them, up to 10^15 units of the currency.
pub(crate) struct Micros(pub(crate) Spend);

impl Number for Micros {
    #[inline(always)]
    fn of_short((value, decimals): Short) -> Option<Self> {
        const MICROS_PER_CENT: u64 = 10_000;
        // At most eighteen digits are less than the largest spend.
        match (decimals, value.is_multiple_of(MICROS_PER_CENT)) {
            (0, true) => Some(Self(Spend::Cents(value / MICROS_PER_CENT))),
            (0, false) => Some(Self(Spend::Exact(Money(u128::from(value) * Money::UNITS_PER_MICRO)))),
            _ => None,
        }
    }

    fn parse(field: &[u8]) -> Option<Self> {
        parse_micros(field).map(Self)
    }
}

/// Whole conversions and units of 10^-12. None has further decimals, or is more than 2^63 - 1.
pub(crate) struct DecimalConversions(pub(crate) u64, pub(crate) u64);

impl Number for DecimalConversions {
    #[inline(always)]
    fn of_short((value, decimals): Short) -> Option<Self> {
        match decimals {
            0 => Some(Self(value, 0)),
            2 => Some(Self(value / 100, value % 100 * 10_000_000_000)),
            1 => Some(Self(value / 10, value % 10 * 100_000_000_000)),
            _ => {
                let (scale, units_per_step) = (ten_to(decimals)?, ten_to(SPEND_DECIMALS.checked_sub(decimals)?)?);
                Some(Self(value / scale, value % scale * units_per_step))
            }
        }
    }

    fn parse(field: &[u8]) -> Option<Self> {
        parse_conversions(field).map(|(whole, units)| Self(whole, units))
    }
}
