//! Header fields of requests that need few lines each.

use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use axum::http::{HeaderMap, HeaderName};

use super::name::MAX_NAME_BYTES;
use super::problem::{Kind, Problem};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

pub(super) fn invalid_header(name: &HeaderName, reason: impl std::fmt::Display) -> Problem {
    Problem::new(Kind::InvalidHeader, format!("{name}: {reason}"))
}

/// Bytes of the body, when the sender tells.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Bytes of the file that the body is, when the sender tells. Refuses what is a part of a file: it would be taken for the whole.
pub(super) fn length_of_whole(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(CONTENT_RANGE) else {
        return Ok(content_length(headers));
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let whole = text.strip_prefix("bytes 0-").and_then(|range| range.split_once('/')).and_then(|(last, length)| {
        let (last, length) = (last.parse::<u64>().ok()?, length.parse::<u64>().ok()?);
        let is_whole = last.checked_add(1)? == length && content_length(headers).is_none_or(|bytes| bytes == length);
        is_whole.then_some(length)
    });
    whole.map(Some).ok_or_else(|| {
        let detail = format!("content-range: {text:?}: expected a whole file, from its first byte to its last");
        Problem::new(Kind::RangeNotSupported, detail)
    })
}

/// The key that makes retries safe.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(invalid_header(&IDEMPOTENCY_KEY, "it is given more than once"));
    }
    let is_key = (1..=MAX_NAME_BYTES).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(key) if is_key => Ok(Some(key.into())),
        _ => Err(invalid_header(
            &IDEMPOTENCY_KEY,
            format_args!("expected 1 to {MAX_NAME_BYTES} visible ASCII characters"),
        )),
    }
}

/// For how many seconds a client would rather wait for a change (RFC 7240, 4.3).
pub(super) fn preferred_wait_seconds(headers: &HeaderMap) -> Option<u64> {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next()?.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        [(name, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn only_a_range_that_is_the_whole_file_is_taken() {
        for (value, is_whole) in [
            ("bytes 0-9/10", true),
            ("bytes 0-0/1", true),
            ("bytes 0-8/10", false),
            ("bytes 5-9/10", false),
            ("bytes 0-9/*", false),
            ("bytes */10", false),
            ("items 0-9/10", false),
            ("bytes 0-18446744073709551615/0", false),
        ] {
            assert_eq!(length_of_whole(&headers(CONTENT_RANGE, value)).is_ok(), is_whole, "{value}");
        }
    }

    #[test]
    fn waiting_is_found_among_preferences() {
        for (value, seconds) in [
            ("wait=30", Some(30)),
            ("respond-async, Wait = 5", Some(5)),
            ("wait=\"7\"; foo", Some(7)),
            ("wait", None),
            ("wait=soon", None),
            ("handling=lenient", None),
        ] {
            assert_eq!(preferred_wait_seconds(&headers(PREFER, value)), seconds, "{value}");
        }
    }
}
