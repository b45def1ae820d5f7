//! What the address and the header fields of a request ask for.

use std::borrow::Cow;
use std::str::FromStr;

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use mime::Mime;
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::problem::{Kind, Problem};
use crate::engine::Delimiter;
use crate::ingest::{Coding, Sha256Digest, encoding_for_label};
use crate::jobs::{JobId, JobOptions};

/// The longest name of a job or file, in bytes of UTF-8.
pub(super) const MAX_NAME_BYTES: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const TRAILER: HeaderName = HeaderName::from_static("trailer");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The parameters behind the question mark of an address.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads parameters of which only these may be there, each once.
    pub(super) fn read(uri: &'a Uri, known: &[&str]) -> Result<Self, Problem> {
        let pairs: Vec<_> = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect();
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_ref()) {
                let detail = match known {
                    [] => format!("{name:?}: this address takes no options"),
                    _ => format!("{name:?}: expected one of {}", known.join(", ")),
                };
                return Err(Problem::new(Kind::UnknownOption, detail));
            }
            if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(invalid_option(name, &"it is given more than once"));
            }
        }
        Ok(Self(pairs))
    }

    /// The same, apart from the address.
    pub(super) fn into_owned(self) -> Query<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Query(self.0.into_iter().map(|(name, value)| (owned(name), owned(value))).collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_ref())
    }

    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.text(name).map(|value| value.parse().map_err(|error| invalid_option(name, &error))).transpose()
    }
}

pub(super) fn invalid_option(name: &str, reason: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::InvalidOption, format!("{name}: {reason}"))
}

fn invalid_header(name: &HeaderName, reason: impl std::fmt::Display) -> Problem {
    Problem::new(Kind::InvalidHeader, format!("{name}: {reason}"))
}

/// The options of a new job.
pub(super) const JOB_OPTIONS: [&str; 4] = ["delimiter", "has_header", "encoding", "top"];

/// The options of a file of an open job.
pub(super) const FILE_OPTIONS: [&str; 3] = ["delimiter", "has_header", "encoding"];

/// Reads the options of a new job. A parameter wins over the content type.
pub(super) fn job_options(query: &Query<'_>, content_type: Option<&Mime>) -> Result<JobOptions, Problem> {
    file_options(query, content_type, JobOptions::default())
}

/// Reads the options of a file, which are those of its job unless it has others. A parameter wins over the content type.
pub(super) fn file_options(
    query: &Query<'_>,
    content_type: Option<&Mime>,
    mut options: JobOptions,
) -> Result<JobOptions, Problem> {
    // RFC 4180, 3: the type's parameters.
    if let Some(content_type) = content_type {
        if let Some(charset) = content_type.get_param("charset") {
            options.encoding = encoding_for_label(charset.as_str())
                .map_err(|error| invalid_header(&CONTENT_TYPE, format_args!("charset: {error}")))?;
        }
        match content_type.get_param("header").map(|header| header.as_str().to_ascii_lowercase()).as_deref() {
            None => {}
            Some("present") => options.has_header = true,
            Some("absent") => options.has_header = false,
            Some(other) => {
                let reason = format_args!("header: {other:?}: expected present or absent");
                return Err(invalid_header(&CONTENT_TYPE, reason));
            }
        }
    }
    if let Some(delimiter) = query.parsed::<Delimiter>("delimiter")? {
        options.delimiter = delimiter;
    }
    match query.text("has_header") {
        None => {}
        Some("true") => options.has_header = true,
        Some("false") => options.has_header = false,
        Some(other) => return Err(invalid_option("has_header", &format_args!("{other:?}: expected true or false"))),
    }
    if let Some(label) = query.text("encoding") {
        options.encoding = encoding_for_label(label).map_err(|error| invalid_option("encoding", &error))?;
    }
    if let Some(top) = query.text("top") {
        let parsed = top.parse().ok().filter(|top| (1..=JobOptions::MAX_TOP).contains(top));
        options.top = parsed.ok_or_else(|| {
            invalid_option("top", &format_args!("{top:?}: expected a number from 1 to {}", JobOptions::MAX_TOP))
        })?;
    }
    Ok(options)
}

/// What kind of body a request has.
pub(super) enum Media {
    /// The bytes of a file.
    File(Option<Mime>),
    /// A form, perhaps with files.
    Form,
    /// A JSON document.
    Json,
}

/// Media types under which CSV files, also compressed ones, are sent.
const FILE_TYPES: [&str; 9] = [
    "application/octet-stream",
    "application/csv",
    "application/x-csv",
    // What browsers call CSV files where a spreadsheet program is installed.
    "application/vnd.ms-excel",
    "application/gzip",
    "application/x-gzip",
    "application/zstd",
    // What curl calls the bytes of --data-binary.
    "application/x-www-form-urlencoded",
    "binary/octet-stream",
];

/// Tells what kind of body a request has.
pub(super) fn media(headers: &HeaderMap) -> Result<Media, Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(Media::File(None));
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let Ok(mime) = text.parse::<Mime>() else {
        return Err(Problem::unsupported_media_type(&text));
    };
    if mime.essence_str() == "multipart/form-data" {
        return match mime.get_param("boundary") {
            Some(_) => Ok(Media::Form),
            None => Err(invalid_header(&CONTENT_TYPE, "a form has a boundary")),
        };
    }
    if mime.essence_str() == "application/json" {
        return Ok(Media::Json);
    }
    if mime.type_() == mime::TEXT || FILE_TYPES.contains(&mime.essence_str()) {
        return Ok(Media::File(Some(mime)));
    }
    Err(Problem::unsupported_media_type(&text))
}

/// How a body is compressed; none: its beginning tells.
pub(super) fn content_coding(headers: &HeaderMap) -> Result<Option<Coding>, Problem> {
    let mut coding = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes());
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let named = Coding::from_name(name).ok_or_else(|| Problem::unsupported_content_coding(name))?;
            match (coding, named) {
                // As if it were not there: the beginning may still tell.
                (_, Coding::Identity) => {}
                (None, named) => coding = Some(named),
                (Some(_), _) => return Err(Problem::unsupported_content_coding(&text)),
            }
        }
    }
    Ok(coding)
}

/// Bytes of the body, when the sender tells.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Refuses what is a part of a file: it would be taken for the whole.
pub(super) fn refuse_part_of_file(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(CONTENT_RANGE) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let whole = text.strip_prefix("bytes 0-").and_then(|range| range.split_once('/')).and_then(|(last, length)| {
        let (last, length) = (last.parse::<u64>().ok()?, length.parse::<u64>().ok()?);
        (last.checked_add(1)? == length).then_some(())
    });
    whole.ok_or_else(|| {
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

/// Digests of a body, as RFC 9530 writes them. Other algorithms than SHA-256 are passed over, as it allows.
pub(super) struct Digests {
    expected: Option<Sha256Digest>,
    /// Fields that follow the last byte.
    announced: Vec<HeaderName>,
}

impl Digests {
    /// Reads the digests ahead of a body. That of the representation and that of the content are the same for a whole
    /// file in a request.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let names: Vec<_> = headers
            .get_all(TRAILER)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .collect();
        let is_announced = |field: &HeaderName| names.iter().any(|name| name.eq_ignore_ascii_case(field.as_ref()));
        let announced = [CONTENT_DIGEST, REPR_DIGEST].into_iter().filter(is_announced).collect();
        let mut expected = read_digests(headers)?;
        expected.dedup();
        if expected.len() > 1 {
            return Err(invalid_header(&REPR_DIGEST, "a whole file has one SHA-256, and the fields name two"));
        }
        Ok(Self { expected: expected.first().copied(), announced })
    }

    /// True when the digest of the body has to be computed.
    pub(super) fn are_wanted(&self) -> bool {
        !self.announced.is_empty() || self.expected.is_some()
    }

    /// The digest that the body has to have, as far as it is known ahead of it.
    pub(super) fn expected(&self) -> Option<Sha256Digest> {
        self.expected
    }

    /// Checks a body that has come to its end.
    pub(super) fn check(&self, trailers: &HeaderMap, actual: Option<Sha256Digest>) -> Result<(), DigestFault> {
        let trailing = read_digests(trailers).map_err(DigestFault::Invalid)?;
        if !self.announced.iter().all(|field| trailers.contains_key(field)) {
            return Err(DigestFault::Missing);
        }
        let mut expected = self.expected.iter().chain(&trailing).peekable();
        if expected.peek().is_none() {
            return Ok(());
        }
        match actual {
            Some(actual) if expected.all(|expected| *expected == actual) => Ok(()),
            Some(_) => Err(DigestFault::Mismatch),
            None => Err(DigestFault::NotAnnounced),
        }
    }
}

/// What is wrong with a digest.
pub(super) enum DigestFault {
    Invalid(Problem),
    Mismatch,
    NotAnnounced,
    /// It was announced for behind the last byte.
    Missing,
}

fn read_digests(headers: &HeaderMap) -> Result<Vec<Sha256Digest>, Problem> {
    let mut digests = Vec::new();
    for field in [CONTENT_DIGEST, REPR_DIGEST] {
        for value in headers.get_all(&field) {
            let invalid = || invalid_header(&field, "expected sha-256=:BASE64: with a digest of 32 bytes (RFC 9530)");
            let dictionary: Dictionary = Parser::new(value.as_bytes()).parse().map_err(|_| invalid())?;
            let Some(entry) = dictionary.get("sha-256") else {
                continue;
            };
            match entry {
                ListEntry::Item(item) => match &item.bare_item {
                    BareItem::ByteSequence(bytes) => {
                        digests.push(bytes.as_slice().try_into().map_err(|_| invalid())?);
                    }
                    _ => return Err(invalid()),
                },
                ListEntry::InnerList(_) => return Err(invalid()),
            }
        }
    }
    Ok(digests)
}

/// Checks a name for a job or file.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(format!("a name has 1 to {MAX_NAME_BYTES} bytes of UTF-8; this one has {}", name.len()));
    }
    if matches!(name, "." | "..") || name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\')) {
        return Err(format!(
            "{name:?} cannot be a name: control characters, / and \\ are not allowed, nor are . and .."
        ));
    }
    if name.parse::<JobId>().is_ok() {
        return Err(format!("{name:?} cannot be a name: it looks like the id of a job"));
    }
    Ok(())
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

/// Lets an answer be sent as it is, also to a client that excludes that without asking for a coding known here. By then the
/// request has been carried out, so refusing it would tell less than the truth (RFC 9110, 12.5.3, leaves the choice).
pub(super) fn allow_identity(mut request: Request<Body>) -> Request<Body> {
    let values = request.headers().get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (excluding, others): (Vec<_>, Vec<_>) = values.flat_map(|value| value.split(',')).partition(|member| {
        let (coding, weight) = member.split_once(';').unwrap_or((member, ""));
        let weight = weight.trim().strip_prefix(['q', 'Q']).and_then(|weight| weight.trim_start().strip_prefix('='));
        ["identity", "*"].contains(&coding.trim().to_ascii_lowercase().as_str())
            && weight.and_then(|weight| weight.trim().parse().ok()) == Some(0.0_f32)
    });
    if !excluding.is_empty() {
        let others = others.join(",");
        request.headers_mut().remove(ACCEPT_ENCODING);
        if let Ok(others) = HeaderValue::from_str(&others)
            && !others.is_empty()
        {
            request.headers_mut().insert(ACCEPT_ENCODING, others);
        }
    }
    request
}

/// True when JSON is liked better than CSV; none when neither is.
pub(super) fn prefers_json(headers: &HeaderMap) -> Option<bool> {
    let mut values = headers.get_all(axum::http::header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return Some(false);
    }
    let ranges: Vec<Mime> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.trim().parse().ok())
        .collect();
    // The most specific range that fits decides (RFC 9110, 12.5.1).
    let quality = |kind: &str, essence: &str| {
        let of = |wanted: &str| ranges.iter().find(|range| range.essence_str() == wanted);
        let range = of(essence).or_else(|| of(kind)).or_else(|| of("*/*"))?;
        Some(range.get_param("q").map_or(1.0, |q| q.as_str().parse::<f32>().unwrap_or(0.0)))
    };
    let csv = quality("text/*", "text/csv").unwrap_or(0.0);
    let json = quality("application/*", "application/json").unwrap_or(0.0);
    if csv <= 0.0 && json <= 0.0 { None } else { Some(json > csv) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_better_liked_of_csv_and_json_is_given() {
        let accept = |value: &str| prefers_json(&headers(&[(axum::http::header::ACCEPT, value)]));
        assert_eq!(prefers_json(&HeaderMap::new()), Some(false));
        for (value, json) in [
            ("*/*", Some(false)),
            ("text/csv", Some(false)),
            ("application/json", Some(true)),
            ("application/*", Some(true)),
            ("text/csv;q=0.5, application/json", Some(true)),
            ("application/json;q=0.5, text/*", Some(false)),
            ("application/json;q=0, */*", Some(false)),
            ("text/csv;q=0, */*;q=0.1", Some(true)),
            ("image/png", None),
            ("text/html, application/xhtml+xml, */*;q=0.8", Some(false)),
        ] {
            assert_eq!(accept(value), json, "{value}");
        }
    }

    #[test]
    fn names_are_labels_and_never_paths() {
        for name in ["ad_data.csv", "Bericht Mai.csv", "caf\u{e9}", "...", &"x".repeat(255)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\nb",
            "a\r\nb",
            "a\0",
            "\u{85}",
            &"x".repeat(256),
            &JobId::new().to_string(),
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
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
            assert_eq!(refuse_part_of_file(&headers(&[(CONTENT_RANGE, value)])).is_ok(), is_whole, "{value}");
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
            assert_eq!(preferred_wait_seconds(&headers(&[(PREFER, value)])), seconds, "{value}");
        }
    }
}
