//! The form of bodies: the media type and the coding of a request's body, and what a client accepts of an answer's.

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Request};
use headers::HeaderMapExt as _;
use headers_accept::Accept;
use mediatype::names::{APPLICATION, CSV, JSON, Q, TEXT};
use mediatype::{MediaType, MediaTypeBuf, ReadParams as _, WriteParams as _};
use mime::Mime;

use super::fields::invalid_header;
use super::problem::Problem;
use crate::ingest::Coding;

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

/// The media type of a body that has to be a file.
pub(super) fn file_media(headers: &HeaderMap) -> Result<Option<Mime>, Problem> {
    match media(headers)? {
        Media::File(content_type) => Ok(content_type),
        Media::Form | Media::Json => Err(Problem::not_a_file()),
    }
}

/// How a body is compressed; none: its beginning tells.
pub(super) fn content_coding(headers: &HeaderMap) -> Result<Option<Coding>, Problem> {
    let mut coding: Option<Coding> = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes());
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let named = Coding::from_name(name).ok_or_else(|| Problem::unsupported_content_coding(name))?;
            match (coding, named) {
                // As if it were not there: the beginning may still tell.
                (_, Coding::Identity) => {}
                (None, named) => coding = Some(named),
                (Some(first), second) => return Err(Problem::several_content_codings(first.name(), second.name())),
            }
        }
    }
    Ok(coding)
}

/// Lets an answer be sent as it is, also to a client that excludes that without asking for a coding known here. By then the
/// request has been carried out, so refusing it would tell less than the truth (RFC 9110, 12.5.3, leaves the choice).
pub(super) fn allow_identity(mut request: Request<Body>) -> Request<Body> {
    let values = request.headers().get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (excluding, others): (Vec<_>, Vec<_>) = values.flat_map(|value| value.split(',')).partition(|member| {
        let (coding, is_excluded) = coding_of(member);
        is_excluded && ["identity", "*"].iter().any(|name| coding.eq_ignore_ascii_case(name))
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

/// True when an answer may be compressed with gzip (RFC 9110, 12.5.3).
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let codings: Vec<_> = values.flat_map(|value| value.split(',')).map(coding_of).collect();
    let named = |name: &str| codings.iter().find(|(coding, _)| coding.eq_ignore_ascii_case(name));
    named("gzip").or_else(|| named("*")).is_some_and(|(_, is_excluded)| !is_excluded)
}

/// A coding in `Accept-Encoding`, and whether its weight says that it is not acceptable.
fn coding_of(member: &str) -> (&str, bool) {
    let (coding, weight) = member.split_once(';').unwrap_or((member, ""));
    let weight = weight.trim().strip_prefix(['q', 'Q']).and_then(|weight| weight.trim_start().strip_prefix('='));
    (coding.trim(), weight.and_then(|weight| weight.trim().parse().ok()) == Some(0.0_f32))
}

/// The media types in which a table can be sent. A client without a preference gets the first one.
const TABLE_TYPES: [MediaType<'_>; 2] = [MediaType::new(TEXT, CSV), JSON_TYPE];

const JSON_TYPE: MediaType<'_> = MediaType::new(APPLICATION, JSON);

/// True when JSON is preferred to CSV; none when neither is accepted.
pub(super) fn prefers_json(headers: &HeaderMap) -> Option<bool> {
    // A field that cannot be understood is as good as none.
    let Ok(Some(accept)) = headers.typed_try_get::<Accept>() else {
        return Some(false);
    };
    // Parameters such as the charset do not make another form of a table. The order of precedence stays.
    let ranges: Accept = accept.media_types().map(without_parameters).collect();
    ranges.negotiate(&TABLE_TYPES).map(|chosen| *chosen == JSON_TYPE)
}

/// A media range with its weight alone.
fn without_parameters(range: &MediaTypeBuf) -> MediaType<'_> {
    let mut bare = range.essence();
    if let Some(weight) = range.get_param(Q) {
        bare.set_param(Q, weight);
    }
    bare
}

#[cfg(test)]
mod tests {
    use axum::http::header::ACCEPT;

    use super::*;

    fn accepting(fields: &[&str]) -> Option<bool> {
        prefers_json(&fields.iter().map(|value| (ACCEPT, value.parse().unwrap())).collect())
    }

    #[test]
    fn gzip_is_accepted_when_it_is_named_and_not_excluded() {
        for (field, accepts) in [
            ("gzip, deflate, br, zstd", true),
            ("br, GZIP;q=0.1", true),
            ("*", true),
            ("gzip;q=0", false),
            ("*, gzip; q=0.000", false),
            ("*;q=0", false),
            ("br", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, field.parse().unwrap())]);
            assert_eq!(accepts_gzip(&headers), accepts, "{field}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn the_form_that_is_preferred_of_csv_and_json_is_given() {
        for (fields, json) in [
            (&[][..], Some(false)),
            (&["*/*"], Some(false)),
            (&["text/csv"], Some(false)),
            (&["application/json"], Some(true)),
            (&["application/*"], Some(true)),
            (&["text/csv;q=0.5, application/json"], Some(true)),
            (&["application/json;q=0.5, text/*"], Some(false)),
            (&["application/json;q=0, */*"], Some(false)),
            (&["text/csv;q=0, */*;q=0.1"], Some(true)),
            (&["text/csv;q=0.001, application/json;q=0"], Some(false)),
            (&["image/png"], None),
            (&["text/csv;q=0.000"], None),
            (&["text/html, application/xhtml+xml, */*;q=0.8"], Some(false)),
            // Several fields are one list.
            (&["image/png", "application/json"], Some(true)),
            (&["text/csv;q=0.5", "application/json;q=0.9"], Some(true)),
            // Of equal weights the range that is more specific decides, then the one that comes first.
            (&["application/json, text/csv"], Some(true)),
            (&["text/csv, application/json"], Some(false)),
            (&["*/*, application/json"], Some(true)),
            (&["application/json, text/plain, */*"], Some(true)),
            (&["text/*, application/json"], Some(true)),
            // Parameters and the case of letters make no difference.
            (&["text/csv; charset=utf-8"], Some(false)),
            (&["text/csv; header=present; q=0.2, application/json; q=0.1"], Some(false)),
            (&["Application/JSON; Q=0.5, text/csv; q=0.1"], Some(true)),
        ] {
            assert_eq!(accepting(fields), json, "{fields:?}");
        }
    }

    #[test]
    fn a_field_that_cannot_be_understood_is_as_good_as_none() {
        for value in ["json", "application/json, *; q=.2", "text/csv;q=\"", "image/png, \u{fc}"] {
            assert_eq!(accepting(&[value]), Some(false), "{value}");
        }
    }
}
