//! The number grammar of a field, and the exact values it yields.
//!
//! A number is `[+-]? (digits [. digits?] | . digits) ([eE] [+-]? digits)?`. It is read digit by digit into integers,
//! never through binary floating point, so that ten times `0.1` is exactly `1`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The largest count a row may hold: 2^63 - 1.
pub const MAX_COUNT: u64 = 0x7fff_ffff_ffff_ffff;

/// Decimals kept of a spend.
pub(super) const SPEND_DECIMALS: u32 = 12;

/// An amount of money in units of 10^-12, exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Money(pub u128);

impl Money {
    /// The largest spend a row may hold: 10^15.
    pub const MAX_SPEND: Self = Self(1_000_000_000_000_000 * Self::UNITS_PER_WHOLE);
    /// Units per cent.
    pub const UNITS_PER_CENT: u128 = 10_000_000_000;
    const UNITS_PER_WHOLE: u128 = 1_000_000_000_000;
    pub(super) const UNITS_PER_MICRO: u128 = 1_000_000;

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

/// A sum of conversions, exact: whole ones, and the rest of one in units of 10^-12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conversions {
    whole: u128,
    /// Less than a whole one.
    units: u64,
}

impl Conversions {
    const UNITS_PER_WHOLE: u64 = 1_000_000_000_000;

    /// Whole ones and any number of units.
    pub(crate) fn new(whole: u128, units: u128) -> Self {
        if units == 0 {
            return Self { whole, units: 0 };
        }
        let units_per_whole = u128::from(Self::UNITS_PER_WHOLE);
        #[expect(clippy::cast_possible_truncation, reason = "a remainder is less than the divisor")]
        let rest = (units % units_per_whole) as u64;
        Self { whole: whole.saturating_add(units / units_per_whole), units: rest }
    }

    /// The whole ones.
    #[must_use]
    pub fn whole(self) -> u128 {
        self.whole
    }

    /// The rest of one, in units of 10^-12.
    #[must_use]
    pub fn units(self) -> u64 {
        self.units
    }

    /// True when there are none.
    #[must_use]
    pub fn are_none(self) -> bool {
        self == Self::default()
    }

    /// All in units, when those can be counted.
    pub(crate) fn checked_units(self) -> Option<u128> {
        self.whole.checked_mul(u128::from(Self::UNITS_PER_WHOLE))?.checked_add(self.units.into())
    }

    /// An amount times these, in units, as three words of 128 bits, the highest first.
    pub(crate) fn times(self, amount: Money) -> [u128; 3] {
        let (whole, whole_high) = amount.0.carrying_mul(self.whole, 0);
        let (rest, rest_high) = amount.0.carrying_mul(self.units.into(), 0);
        let (low, carry) = whole.carrying_mul_add(Self::UNITS_PER_WHOLE.into(), rest, 0);
        let (middle, high) = whole_high.carrying_mul_add(Self::UNITS_PER_WHOLE.into(), rest_high, carry);
        [high, middle, low]
    }

    /// The sum, which is at most `limit` whole ones.
    pub(crate) fn saturating_add(self, other: Self, limit: u128) -> Self {
        let whole = self.whole.saturating_add(other.whole).min(limit);
        Self::new(whole, u128::from(self.units) + u128::from(other.units))
    }
}

impl From<u128> for Conversions {
    fn from(whole: u128) -> Self {
        Self { whole, units: 0 }
    }
}

impl fmt::Display for Conversions {
    /// Decimals only as far as there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.units == 0 {
            return self.whole.fmt(f);
        }
        let decimals = format!("{:012}", self.units);
        write!(f, "{}.{}", self.whole, decimals.trim_end_matches('0'))
    }
}

impl std::str::FromStr for Conversions {
    type Err = std::num::ParseIntError;

    /// As they are shown.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        Ok(Self::new(whole.parse()?, format!("{decimals:0<12}").parse()?))
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
    /// Whole cents, and units of 10^-12 beside them.
    #[inline(always)]
    pub(crate) fn split(self) -> (u64, u128) {
        match self {
            Self::Cents(cents) => (cents, 0),
            Self::Exact(money) => (0, money.0),
        }
    }

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

/// Reads conversions that may have decimals: whole ones and units of 10^-12. `None` when the field is anything else, has
/// further decimals, or is more than [`MAX_COUNT`].
pub(super) fn parse_conversions(field: &[u8]) -> Option<(u64, u64)> {
    if let Some((value, decimals)) = parse_short(field)
        && decimals <= SPEND_DECIMALS
    {
        let scale = 10_u64.pow(decimals);
        return Some((value / scale, value % scale * 10_u64.pow(SPEND_DECIMALS - decimals)));
    }
    let decimal = Decimal::parse(field)?;
    if decimal.is_zero() {
        return Some((0, 0));
    }
    let mut digits = decimal.significant_digits();
    // Nothing but zeros may follow the last decimal that is kept.
    if decimal.negative || decimal.point > 19 || decimal.point <= -i64::from(SPEND_DECIMALS) {
        return None;
    }
    let whole = take_digits(&mut digits, decimal.point.max(0));
    // Zeros between the point and the first digit.
    let zeros = (-decimal.point).max(0);
    let units = take_digits(&mut digits, i64::from(SPEND_DECIMALS) - zeros);
    let whole = u64::try_from(whole).ok().filter(|whole| *whole <= MAX_COUNT)?;
    digits.all(|digit| digit == 0).then_some((whole, u64::try_from(units).ok()?))
}

/// Reads an amount in millionths: a whole number of them, up to 10^15 units of the currency. `None` when the field is anything
/// else.
pub(super) fn parse_micros(field: &[u8]) -> Option<Spend> {
    let spend = |micros: u128| {
        let units = micros * Money::UNITS_PER_MICRO;
        let cents = u64::try_from(units / Money::UNITS_PER_CENT).ok();
        match cents {
            _ if units > Money::MAX_SPEND.0 => None,
            Some(cents) if units.is_multiple_of(Money::UNITS_PER_CENT) => Some(Spend::Cents(cents)),
            _ => Some(Spend::Exact(Money(units))),
        }
    };
    if let Some((value, 0)) = parse_short(field) {
        return spend(value.into());
    }
    let decimal = Decimal::parse(field)?;
    if decimal.is_zero() {
        return Some(Spend::Cents(0));
    }
    // 10^21 has 22 digits; with none before the point there is a fraction.
    if decimal.negative || !(1..=22).contains(&decimal.point) {
        return None;
    }
    let mut digits = decimal.significant_digits();
    let value = take_digits(&mut digits, decimal.point);
    if digits.all(|digit| digit == 0) { spend(value) } else { None }
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
    fn conversions_are_kept_to_twelve_decimals_and_no_more() {
        for (text, whole, units) in [
            ("0", 0, 0),
            ("428.20", 428, 200_000_000_000),
            (".5", 0, 500_000_000_000),
            ("0.000000000001", 0, 1),
            ("0.0000000000010000000000000000000000", 0, 1),
            ("1.5e3", 1500, 0),
            ("15e-1", 1, 500_000_000_000),
            ("9223372036854775807.999999999999", MAX_COUNT, 999_999_999_999),
            ("-0", 0, 0),
            ("0.00e99", 0, 0),
        ] {
            assert_eq!(parse_conversions(text.as_bytes()), Some((whole, units)), "{text}");
        }
        for text in ["", "-1", "0.0000000000001", "1.0000000000001", "9223372036854775808", "1e-13", "1,5", "1e30"] {
            assert_eq!(parse_conversions(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn micros_are_whole_millionths() {
        let micros = |text: &str| parse_micros(text.as_bytes()).map(|spend| spend.money().to_string());
        for (text, money) in
            [("3890564801", "3890.56"), ("0", "0.00"), ("10000", "0.01"), ("5.0", "0.00"), ("1e6", "1.00")]
        {
            assert_eq!(micros(text).as_deref(), Some(money), "{text}");
        }
        assert_eq!(parse_micros(b"10000"), Some(Spend::Cents(1)));
        assert_eq!(micros("1000000000000000000000").as_deref(), Some("1000000000000000.00"));
        for text in ["1.5", "-1", "", "1000000000000000000001", "1e22", "x"] {
            assert_eq!(micros(text), None, "{text}");
        }
    }

    #[test]
    fn sums_of_conversions_are_shown_as_they_are_read() {
        for (whole, units, shown) in
            [(7, 0, "7"), (3917, 200_000_000_000, "3917.2"), (0, 1, "0.000000000001"), (1, 2_500_000_000_000, "3.5")]
        {
            let conversions = Conversions::new(whole, units);
            assert_eq!(conversions.to_string(), shown);
            assert_eq!(shown.parse(), Ok(conversions));
        }
        let huge = Conversions::new(1 << 100, 999_999_999_999);
        let units = (1_u128 << 100).wrapping_mul(1_000_000_000_000).wrapping_add(999_999_999_999);
        assert_eq!(huge.times(Money(1))[2], units);
        assert_eq!(Conversions::from(3).times(Money(5)), [0, 0, 15_000_000_000_000]);
    }

    #[test]
    fn money_shows_two_decimals_rounded_half_up() {
        assert_eq!(Money(5_000_000_000).to_string(), "0.01");
        assert_eq!(Money(4_999_999_999).to_string(), "0.00");
        assert_eq!(Money::MAX_SPEND.to_string(), "1000000000000000.00");
        assert_eq!(Money::from_cents(150).to_string(), "1.50");
    }
}
