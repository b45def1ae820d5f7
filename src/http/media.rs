//! The form of bodies: the media type and the coding of a request's body, and what a client accepts of an answer's.

use axum::body::Body;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Request};
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
    let mut values = headers.get_all(ACCEPT).iter().peekable();
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

    #[test]
    fn the_better_liked_of_csv_and_json_is_given() {
        let accept = |value: &str| prefers_json(&[(ACCEPT, value.parse().unwrap())].into_iter().collect());
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
}
