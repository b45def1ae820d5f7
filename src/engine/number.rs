//! The number grammar of a field, and the exact values it yields.
//!
//! A number is `[+-]? (digits [. digits?] | . digits) ([eE] [+-]? digits)?`. It is read digit by digit into integers,
//! never through binary floating point, so that ten times `0.1` is exactly `1`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The largest count a row may hold: 2^63 - 1.
pub const MAX_COUNT: u64 = 0x7fff_ffff_ffff_ffff;

/// Decimals kept of a spend.
const SPEND_DECIMALS: u32 = 12;

/// An amount of money in units of 10^-12, exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Money(pub u128);

impl Money {
    /// The largest spend a row may hold: 10^15.
    pub const MAX_SPEND: Self = Self(1_000_000_000_000_000 * Self::UNITS_PER_WHOLE);
    /// Units per cent.
    pub const UNITS_PER_CENT: u128 = 10_000_000_000;
    const UNITS_PER_WHOLE: u128 = 1_000_000_000_000;

    /// An amount given in cents.
    #[must_use]
    pub fn from_cents(cents: u64) -> Self {
        Self(u128::from(cents) * Self::UNITS_PER_CENT)
    }
}

impl fmt::Display for Money {
    /// Two decimals, rounded half up from the exact value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents = self.0 / Self::UNITS_PER_CENT;
        let rest = self.0 % Self::UNITS_PER_CENT;
        let cents = cents + u128::from(rest >= Self::UNITS_PER_CENT / 2);
        write!(f, "{}.{:02}", cents / 100, cents % 100)
    }
}

/// A row's spend, in the cheapest form that is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spend {
    /// Whole cents, as nearly every row has them.
    Cents(u64),
    /// Anything finer.
    Exact(Money),
}

impl Spend {
    #[cfg(test)]
    pub(crate) fn money(self) -> Money {
        match self {
            Self::Cents(cents) => Money::from_cents(cents),
            Self::Exact(money) => money,
        }
    }
}

/// Reads a count: a whole number from 0 to [`MAX_COUNT`]. `None` when the field is anything else.
pub(crate) fn parse_count(field: &[u8]) -> Option<u64> {
    if let Some((value, 0)) = parse_short(field) {
        return Some(value);
    }
    let decimal = Decimal::parse(field)?;
    let mut digits = decimal.significant_digits();
    if decimal.is_zero() {
        return Some(0);
    }
    // 2^63 - 1 has 19 digits; with none before the point there is a fraction.
    if decimal.negative || !(1..=19).contains(&decimal.point) {
        return None;
    }
    let value = take_digits(&mut digits, decimal.point);
    let is_whole = digits.all(|digit| digit == 0);
    u64::try_from(value).ok().filter(|value| is_whole && *value <= MAX_COUNT)
}

/// Reads a spend: 0 to 10^15, kept to 12 decimals, rounded half to even. `None` when the field is anything else.
pub(crate) fn parse_spend(field: &[u8]) -> Option<Spend> {
    if let Some((value, decimals)) = parse_short(field)
        && decimals <= SPEND_DECIMALS
    {
        // At most 18 digits: neither product can overflow.
        let exact = Money(u128::from(value) * u128::from(10_u64.pow(SPEND_DECIMALS - decimals)));
        let spend = match decimals {
            0..=2 if value < 1 << 56 => Spend::Cents(value * 10_u64.pow(2 - decimals)),
            _ => Spend::Exact(exact),
        };
        return (exact <= Money::MAX_SPEND).then_some(spend);
    }
    let decimal = Decimal::parse(field)?;
    let mut digits = decimal.significant_digits();
    if decimal.is_zero() {
        return Some(Spend::Cents(0));
    }
    // 10^15 has 16 digits.
    if decimal.negative || decimal.point > 16 {
        return None;
    }
    let kept_digits = decimal.point + i64::from(SPEND_DECIMALS);
    if kept_digits < 0 {
        // Less than a tenth of a unit.
        return Some(Spend::Cents(0));
    }
    let floor = Money(take_digits(&mut digits, kept_digits));
    let next = digits.next().unwrap_or(0);
    let rest_is_zero = digits.all(|digit| digit == 0);
    if floor > Money::MAX_SPEND || (floor == Money::MAX_SPEND && (next > 0 || !rest_is_zero)) {
        return None;
    }
    let round_up = next > 5 || (next == 5 && (!rest_is_zero || floor.0 % 2 == 1));
    Some(Spend::Exact(Money(floor.0 + u128::from(round_up))))
}

/// Digits with at most one point, no sign, no exponent, at most 18 digits: the value without its point, and the number of
/// decimals. `None` says nothing about validity.
fn parse_short(field: &[u8]) -> Option<(u64, u32)> {
    if field.len() > 19 {
        return None;
    }
    let mut value = 0_u64;
    let mut digits = 0_u32;
    let mut point = None;
    for byte in field {
        match byte {
            b'0'..=b'9' => {
                // Nineteen digits fit into 64 bits.
                value = value * 10 + u64::from(byte - b'0');
                digits += 1;
            }
            b'.' if point.is_none() => point = Some(digits),
            _ => return None,
        }
    }
    // Nineteen digits may be more than a count can hold: the caller reads such a field as a `Decimal`.
    (1..=18).contains(&digits).then(|| (value, point.map_or(0, |point| digits - point)))
}

/// A number taken apart. Its value is 0.DDD… x 10^`point`, DDD… being the digits behind the leading zeros.
struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    leading_zeros: usize,
    point: i64,
}

impl<'a> Decimal<'a> {
    fn parse(field: &'a [u8]) -> Option<Self> {
        let (negative, rest) = split_sign(field);
        let (whole, rest) = split_digits(rest);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => split_digits(rest),
            _ => (&[][..], rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => parse_exponent(rest)?,
            _ => return None,
        };
        let leading_zeros = whole.iter().chain(fraction).take_while(|digit| **digit == b'0').count();
        let point = exponent + i64::try_from(whole.len()).ok()? - i64::try_from(leading_zeros).ok()?;
        Some(Self { negative, whole, fraction, leading_zeros, point })
    }

    fn is_zero(&self) -> bool {
        self.leading_zeros == self.whole.len() + self.fraction.len()
    }

    fn significant_digits(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.whole.iter().chain(self.fraction).skip(self.leading_zeros).map(|digit| digit - b'0')
    }
}

fn split_sign(field: &[u8]) -> (bool, &[u8]) {
    match field {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, field),
    }
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Larger exponents are cut to a trillion: no field has enough digits to bring such a number back into range.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    const FAR: i64 = 1_000_000_000_000;
    let (negative, digits) = split_sign(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits.iter().fold(0, |size, digit| FAR.min(size * 10 + i64::from(digit - b'0')));
    Some(if negative { -size } else { size })
}

/// The integer of the next `count` digits, filled up with zeros behind the last. `count` is at most 28.
fn take_digits(digits: &mut impl Iterator<Item = u8>, count: i64) -> u128 {
    (0..count).fold(0, |value, _| value * 10 + u128::from(digits.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(text: &str) -> Option<u128> {
        parse_spend(text.as_bytes()).map(|spend| spend.money().0)
    }

    fn count(text: &str) -> Option<u64> {
        parse_count(text.as_bytes())
    }

    #[test]
    fn counts_are_whole_numbers_in_any_notation() {
        for (text, value) in [
            ("0", 0),
            ("+5", 5),
            ("05", 5),
            ("5.", 5),
            ("5.000", 5),
            ("1e3", 1000),
            ("1.5E1", 15),
            ("10e-1", 1),
            ("-0", 0),
            ("-0.0e7", 0),
            ("0e99999999999999999999", 0),
            (".0", 0),
            ("9223372036854775807", MAX_COUNT),
            ("00000000000000000000000000001", 1),
            ("9223372036854775807000e-3", MAX_COUNT),
        ] {
            assert_eq!(count(text), Some(value), "{text}");
        }
        for text in [
            "",
            ".",
            "+",
            "-",
            "-1",
            "1.5",
            "1e-1",
            ".5",
            "e5",
            "1e",
            "1e+",
            "1_0",
            "0x10",
            "NaN",
            "inf",
            " 1",
            "1 ",
            "9223372036854775808",
            "1e19",
            "1e99999999999999999999",
            "1..0",
            "1.0.0",
            "--1",
            "\u{661}",
        ] {
            assert_eq!(count(text), None, "{text}");
        }
    }

    #[test]
    fn spends_keep_twelve_decimals_rounded_half_to_even() {
        const ONE: u128 = 1_000_000_000_000;
        for (text, value) in [
            ("1", ONE),
            ("0.1", ONE / 10),
            (".5", ONE / 2),
            ("1e1", 10 * ONE),
            ("1.5e-1", ONE / 100 * 15),
            ("0.000000000001", 1),
            ("0.0000000000005", 0),
            ("0.00000000000051", 1),
            ("0.0000000000015", 2),
            ("0.0000000000025", 2),
            ("0.00000000000250000000000000000000000000001", 3),
            ("1e-400", 0),
            ("0.9e-12", 1),
            ("5e-13", 0),
            ("45.480000000000004", 45_480_000_000_000),
            ("1000000000000000", 1000 * ONE * ONE),
            ("1e15", 1000 * ONE * ONE),
            ("999999999999999.9999999999999", 1000 * ONE * ONE),
        ] {
            assert_eq!(spend(text), Some(value), "{text}");
        }
        for text in ["-0.01", "-1e-400", "1000000000000000.01", "1000000000000000.0000000000001", "1e16", "$5", "1,0"] {
            assert_eq!(spend(text), None, "{text}");
        }
    }

    #[test]
    fn money_shows_two_decimals_rounded_half_up() {
        assert_eq!(Money(5_000_000_000).to_string(), "0.01");
        assert_eq!(Money(4_999_999_999).to_string(), "0.00");
        assert_eq!(Money::MAX_SPEND.to_string(), "1000000000000000.00");
        assert_eq!(Money::from_cents(150).to_string(), "1.50");
    }
}
