//! Header fields of requests that need few lines each.

use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use headers::{ContentRange, HeaderMapExt as _};

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

/// A number of bytes that a field says.
pub(super) fn whole_number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let number = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.and_then(|text| text.parse().ok()).filter(|number| i64::try_from(*number).is_ok());
    number.map(Some).ok_or_else(|| invalid_header(name, "expected a number of bytes"))
}

/// The bytes of a file that a body is, as `Content-Range` says (RFC 9110, 14.4).
pub(super) struct FileRange {
    /// The position of the first one.
    pub(super) first: u64,
    /// How many they are.
    pub(super) bytes: u64,
    /// How many the file has.
    pub(super) length: Option<u64>,
}

impl FileRange {
    /// Reads the field, if there is one.
    pub(super) fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        if !headers.contains_key(CONTENT_RANGE) {
            return Ok(None);
        }
        let invalid = |reason: &str| invalid_header(&CONTENT_RANGE, reason);
        let range: Option<ContentRange> = headers.typed_get();
        let length = range.as_ref().and_then(ContentRange::bytes_len);
        let (first, last) = range
            .and_then(|range| range.bytes_range())
            .ok_or_else(|| invalid("expected bytes FIRST-LAST/LENGTH, with * for a length that is not known"))?;
        let bytes = last.checked_sub(first).and_then(|behind_first| behind_first.checked_add(1));
        let bytes = bytes.filter(|_| length.is_none_or(|length| last < length));
        let bytes = bytes.ok_or_else(|| invalid("the first byte comes behind the last, or that behind the end"))?;
        if content_length(headers).is_some_and(|content_length| content_length != bytes) {
            return Err(invalid("the body has another length"));
        }
        Ok(Some(Self { first, bytes, length }))
    }

    /// True for all of the file.
    pub(super) fn is_whole(&self) -> bool {
        self.first == 0 && self.length == Some(self.bytes)
    }
}

/// Bytes of the file that the body is, when the sender tells. Refuses what is a part of a file: it would be taken for the whole.
pub(super) fn length_of_whole(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    match FileRange::read(headers) {
        Ok(None) => Ok(content_length(headers)),
        Ok(Some(range)) if range.is_whole() => Ok(range.length),
        Ok(Some(_)) | Err(_) => {
            let text = headers.get(CONTENT_RANGE).map_or(&[][..], HeaderValue::as_bytes);
            let text = String::from_utf8_lossy(text);
            let detail = format!("content-range: {text:?}: expected a whole file, from its first byte to its last");
            Err(Problem::new(Kind::RangeNotSupported, detail))
        }
    }
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
            ("bytes 0-18446744073709551615/*", false),
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
