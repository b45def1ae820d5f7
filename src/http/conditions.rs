//! Conditions on requests that change something (RFC 9110, 13.1): `If-Match` and `If-None-Match`.

use axum::extract::Request;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue, Method};
use headers::{ETag, Header as _, IfNoneMatch};

use super::fields::invalid_header;
use super::problem::{Kind, Problem};

/// Leaves out conditions on tags that are none, as such conditions do not hold: a range that depends on one is not asked for, either.
/// Characters within a tag are those of RFC 9110, 8.8.3.
pub(super) fn drop_malformed_tags(mut request: Request) -> Request {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        // What changes something refuses them.
        return request;
    }
    let headers = request.headers_mut();
    if headers.get_all(IF_NONE_MATCH).iter().any(is_malformed) {
        headers.remove(IF_NONE_MATCH);
    }
    if headers.get_all(IF_RANGE).iter().any(is_malformed) {
        headers.remove(IF_RANGE);
        headers.remove(RANGE);
    }
    request
}

/// True when a blank or a control character is within a tag, or a tag has no end. A date has no quotes.
fn is_malformed(tags: &HeaderValue) -> bool {
    let mut is_quoted = false;
    for byte in tags.as_bytes() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            0..=b' ' | 0x7f if is_quoted => return true,
            _ => {}
        }
    }
    is_quoted
}

/// What has to be true of the present state of a resource before a request changes it.
#[derive(Debug)]
pub(super) struct Precondition {
    /// The tags of `If-Match`, compared as `If-None-Match` compares them: without `W/`. Tags of jobs are weak only because compression changes the
    /// bytes; they are computed from the whole document. A strict comparison would never let one match.
    tags: Option<IfNoneMatch>,
    is_any: bool,
}

impl Precondition {
    /// Reads `If-Match`.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        if !headers.contains_key(IF_MATCH) {
            return Ok(Self { tags: None, is_any: false });
        }
        let invalid = || invalid_header(&IF_MATCH, "expected * or entity tags, as ETag gives them");
        if headers.get_all(IF_MATCH).iter().any(is_malformed) {
            return Err(invalid());
        }
        let is_any = headers.get_all(IF_MATCH).iter().any(|value| value.as_bytes().trim_ascii() == b"*");
        let tags = IfNoneMatch::decode(&mut headers.get_all(IF_MATCH).iter()).map_err(|_| invalid())?;
        Ok(Self { tags: Some(tags), is_any })
    }

    /// True when there is something to check.
    pub(super) fn is_given(&self) -> bool {
        self.tags.is_some()
    }

    /// Refuses when the resource has another tag.
    pub(super) fn check(&self, etag: &str) -> Result<(), Problem> {
        let is_met = match (&self.tags, etag.parse::<ETag>()) {
            (None, _) => true,
            (Some(tags), Ok(etag)) => !tags.precondition_passes(&etag),
            (Some(_), Err(_)) => self.is_any,
        };
        if is_met { Ok(()) } else { Err(Self::failed(&format_args!("it is {etag} now"))) }
    }

    /// The same for a resource that has no tags: `*` alone can hold, where it exists.
    pub(super) fn check_existence(&self, exists: bool) -> Result<(), Problem> {
        let is_met = self.tags.is_none() || (self.is_any && exists);
        if is_met { Ok(()) } else { Err(Self::failed(&"there is none with such a tag")) }
    }

    fn failed(reason: &dyn std::fmt::Display) -> Problem {
        Problem::new(Kind::PreconditionFailed, format!("if-match: {reason}"))
    }
}

/// True when a request may only create: `If-None-Match: *`.
pub(super) fn must_create(headers: &HeaderMap) -> Result<bool, Problem> {
    match headers.get(IF_NONE_MATCH).map(HeaderValue::as_bytes) {
        None => Ok(false),
        Some(value) if value.trim_ascii() == b"*" => Ok(true),
        Some(_) => Err(invalid_header(&IF_NONE_MATCH, "expected * in a request that creates something")),
    }
}
