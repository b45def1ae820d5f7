//! How many rows may be skipped, and how many of them are shown.

use std::fmt;
use std::str::FromStr;

use super::dialect::{InvalidValue, saved_as_text};

/// Which of the rows that were skipped are kept for `rejects.csv`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeptRejects {
    /// The first ones, up to [`MAX_REJECTS`](super::MAX_REJECTS).
    #[default]
    First,
    /// Every one.
    All,
}

impl FromStr for KeptRejects {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "first" => Ok(Self::First),
            "all" => Ok(Self::All),
            _ => Err(InvalidValue::new(text, "expected first, all")),
        }
    }
}

impl fmt::Display for KeptRejects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::All => "all",
        })
    }
}

/// A share of one, in the unit of [`SkipBudget::Share`].
const WHOLE: u32 = 1_000_000;

/// How many rows may be skipped before the input is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipBudget {
    /// At most this number of rows.
    Rows(u64),
    /// A share of the rows that were read, in ten-thousandths of a percent: at most 1,000,000, which is all of them.
    Share(u32),
}

impl SkipBudget {
    /// True when this number of skipped rows is allowed, of all rows of an input.
    #[must_use]
    pub fn allows(self, rows_skipped: u64, rows_read: u64) -> bool {
        match self {
            Self::Rows(rows) => rows_skipped <= rows,
            Self::Share(share) => {
                u128::from(rows_skipped) * u128::from(WHOLE) <= u128::from(share) * u128::from(rows_read)
            }
        }
    }

    /// The limit that can be checked while an input is read. A share can only be checked at its end.
    #[must_use]
    pub fn max_rows(self) -> Option<u64> {
        match self {
            Self::Rows(rows) => Some(rows),
            Self::Share(_) => None,
        }
    }
}

impl FromStr for SkipBudget {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let budget = match text.strip_suffix('%') {
            Some(percent) => parse_percent(percent).map(Self::Share),
            None => parse_digits(text).map(Self::Rows),
        };
        budget.ok_or_else(|| {
            InvalidValue::new(
                text,
                "expected a number of rows (1000), or a share of at most 100% with at most 4 decimals (0.5%)",
            )
        })
    }
}

/// A whole number without a sign.
fn parse_digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A percentage in ten-thousandths of a percent.
fn parse_percent(text: &str) -> Option<u32> {
    let (whole, decimals) = match text.split_once('.') {
        Some((_, decimals)) if !(1..=4).contains(&decimals.len()) => return None,
        Some(parts) => parts,
        None => (text, "0"),
    };
    let share = parse_digits(whole)?.checked_mul(10_000)?.checked_add(parse_digits(&format!("{decimals:0<4}"))?)?;
    u32::try_from(share).ok().filter(|share| *share <= WHOLE)
}

impl fmt::Display for SkipBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => rows.fmt(f),
            Self::Share(share) if share % 10_000 == 0 => write!(f, "{}%", share / 10_000),
            Self::Share(share) => {
                let decimals = format!("{:04}", share % 10_000);
                write!(f, "{}.{}%", share / 10_000, decimals.trim_end_matches('0'))
            }
        }
    }
}

saved_as_text!(KeptRejects);
saved_as_text!(SkipBudget);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_as_they_are_shown() {
        for (text, budget) in [
            ("0", SkipBudget::Rows(0)),
            ("1000", SkipBudget::Rows(1000)),
            ("18446744073709551615", SkipBudget::Rows(u64::MAX)),
            ("0%", SkipBudget::Share(0)),
            ("0.5%", SkipBudget::Share(5_000)),
            ("0.0001%", SkipBudget::Share(1)),
            ("12.34%", SkipBudget::Share(123_400)),
            ("100%", SkipBudget::Share(1_000_000)),
        ] {
            assert_eq!(text.parse(), Ok(budget), "{text}");
            assert_eq!(budget.to_string(), text);
            let stored = serde_json::to_string(&budget).unwrap();
            assert_eq!(serde_json::from_str::<SkipBudget>(&stored).unwrap(), budget, "{stored}");
        }
        assert_eq!("100.0000%".parse(), Ok(SkipBudget::Share(1_000_000)));
        for wrong in [
            "",
            "%",
            ".",
            "-1",
            "+1",
            "1.5",
            "1e3",
            " 1",
            ".5%",
            "5.%",
            "0.00001%",
            "100.0001%",
            "101%",
            "-1%",
            "1 %",
            "1%%",
            "18446744073709551616",
            "99999999999999999999%",
            "1.+5%",
        ] {
            assert!(wrong.parse::<SkipBudget>().is_err(), "{wrong}");
        }
        assert_eq!("all".parse(), Ok(KeptRejects::All));
        assert_eq!(KeptRejects::default().to_string(), "first");
        assert!("none".parse::<KeptRejects>().is_err());
    }

    #[test]
    fn budgets_are_kept_exactly() {
        assert!(SkipBudget::Rows(2).allows(2, 2) && !SkipBudget::Rows(2).allows(3, 1_000_000));
        let half_percent = SkipBudget::Share(5_000);
        assert!(half_percent.allows(5, 1000) && !half_percent.allows(6, 1000) && !half_percent.allows(5, 999));
        assert!(SkipBudget::Share(1_000_000).allows(u64::MAX, u64::MAX));
        assert!(!SkipBudget::Share(999_999).allows(u64::MAX, u64::MAX));
        assert!(SkipBudget::Share(0).allows(0, 1) && !SkipBudget::Share(0).allows(1, u64::MAX));
    }
}
