//! Values of flags: numbers of things, sizes and times.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::{Span, SpanRelativeTo};

use crate::engine::Limits;

/// The largest size that a flag takes, a pebibyte: the engine counts no further.
const MAX_SIZE_BYTES: u64 = 1 << 50;

/// The most threads that can be asked for.
const MAX_THREADS: u16 = 256;

/// The longest time that a flag takes, a hundred years.
const MAX_DURATION: Duration = Duration::from_hours(100 * 365 * 24);

/// A year: longer time-outs are a mistake.
const MAX_TIMEOUT: Duration = Duration::from_hours(365 * 24);

/// The longest record that can be asked for.
const MAX_RECORD_BYTES: u64 = 1 << 30;

pub(super) fn parse_max_record(text: &str) -> Result<usize, String> {
    let bytes = parse_size_within(text, 1..=MAX_RECORD_BYTES)?;
    usize::try_from(bytes).map_err(|error| error.to_string())
}

pub(super) fn parse_max_campaigns(text: &str) -> Result<usize, String> {
    parse_limit(text, Limits::default().max_campaigns)
}

/// A number of things, at least one.
pub(super) fn parse_count(text: &str) -> Result<usize, String> {
    parse_limit(text, 1 << 20)
}

/// The same, however many.
pub(super) fn parse_any_count(text: &str) -> Result<u64, String> {
    parse_number(text, 1..=u64::MAX)
}

/// A number of requests in a second; 0 is no limit.
pub(super) fn parse_rate(text: &str) -> Result<u32, String> {
    parse_number(text, 0..=u32::MAX)
}

/// A number of threads.
pub(super) fn parse_threads(text: &str) -> Result<u16, String> {
    parse_number(text, 1..=MAX_THREADS)
}

fn parse_limit(text: &str, largest: usize) -> Result<usize, String> {
    parse_number(text, 1..=largest)
}

fn parse_number<N: FromStr + PartialOrd + Display>(text: &str, range: RangeInclusive<N>) -> Result<N, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
}

/// A number of bytes with its unit, such as `64GiB`, at least one byte.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    parse_size_within(text, 1..=MAX_SIZE_BYTES)
}

/// The same, or `0`.
pub(super) fn parse_size_or_zero(text: &str) -> Result<u64, String> {
    parse_size_within(text, 0..=MAX_SIZE_BYTES)
}

fn parse_size_within(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let bytes = text.trim().parse().ok().map(|ByteSize(bytes)| bytes);
    let bytes = bytes.filter(|_| text.trim_start().starts_with(|first: char| first.is_ascii_digit()));
    bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let (smallest, largest) = (show_size(*range.start()), show_size(*range.end()));
        let examples = if *range.end() < 64 << 30 { "64KiB, 1MB or 1024" } else { "64GiB, 500MB or 1024" };
        format!("expected a size from {smallest} to {largest}, such as {examples}")
    })
}

/// A number of bytes as a flag takes it, rounded.
pub(super) fn show_size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string().replace(' ', "").replace(".0", "")
}

/// A time with its unit, such as `90s` or `7d`, longer than nothing.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse_duration_within(text, Duration::from_millis(1)..=MAX_DURATION)
}

/// A time after which something that is not done counts as failed.
pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    parse_duration_within(text, Duration::from_millis(1)..=MAX_TIMEOUT)
}

/// The same, or `0s`.
pub(super) fn parse_timeout_or_zero(text: &str) -> Result<Duration, String> {
    parse_duration_within(text, Duration::ZERO..=MAX_TIMEOUT)
}

fn parse_duration_within(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    // Days and weeks are 24 and 168 hours long. Months and years have no fixed length and are refused.
    let duration = text.trim().parse::<Span>().ok().and_then(|span| {
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
        Duration::try_from(duration).ok()
    });
    duration.filter(|duration| range.contains(duration)).ok_or_else(|| {
        let days = range.end().as_secs() / (24 * 3600);
        let shortest = if range.start().is_zero() { "0s" } else { "1ms" };
        format!("expected a time from {shortest} to {days}d, such as 90s, 15m, 24h or 7d")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_or_decimal_units_or_none() {
        for (text, bytes) in [
            ("1", 1),
            ("1024", 1024),
            ("64GiB", 64 << 30),
            ("64 GiB", 64 << 30),
            ("64gib", 64 << 30),
            ("500MB", 500_000_000),
            ("1.5KiB", 1536),
            ("1PiB", MAX_SIZE_BYTES),
            ("12345678901234", 12_345_678_901_234),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "GiB", "-1", "-1GiB", "0", "1e9", "64 GiB of it", "2PiB", "nan", "inf", "+", "1,000", "1_000", "0x10"]
        {
            let error = parse_size(text).unwrap_err();
            assert_eq!(error, "expected a size from 1B to 1PiB, such as 64GiB, 500MB or 1024", "{text}");
        }
        assert_eq!(parse_size_or_zero("0"), Ok(0));
    }

    #[test]
    fn what_is_refused_is_told_its_range() {
        let refused = |range: &str| Err(format!("expected a number from {range}"));
        for text in ["", "0", "-1", "x", "1.5", "18446744073709551616"] {
            assert_eq!(parse_any_count(text), refused("1 to 18446744073709551615").map(|()| 0), "{text}");
            assert_eq!(parse_threads(text), refused("1 to 256").map(|()| 0), "{text}");
        }
        assert_eq!(parse_rate("-1"), refused("0 to 4294967295").map(|()| 0));
        assert_eq!((parse_rate("0"), parse_threads("256")), (Ok(0), Ok(256)));
        assert_eq!(
            parse_max_record("1TiB").unwrap_err(),
            "expected a size from 1B to 1GiB, such as 64KiB, 1MB or 1024"
        );
    }

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("90 s", 90),
            ("15m", 900),
            ("24h", 86_400),
            ("7d", 604_800),
            ("1w", 604_800),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            ("PT90S", 90),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_timeout_or_zero("0s"), Ok(Duration::ZERO));
        for text in ["", "90", "0s", "-90s", "90s ago", "1 month", "1y", "200000d", "s", "1e3s"] {
            let error = parse_duration(text).unwrap_err();
            assert_eq!(error, "expected a time from 1ms to 36500d, such as 90s, 15m, 24h or 7d", "{text}");
        }
        assert!(parse_timeout("366d").is_err());
    }
}
