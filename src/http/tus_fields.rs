//! What header fields of tus 1.0 say.

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fields::{invalid_header, whole_number};
use super::problem::Problem;
use super::query::{JOB_OPTIONS, Query};
use super::upload_fields::{UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_LENGTH, UPLOAD_METADATA};

/// The most bytes of `Upload-Metadata`: they are kept with the file.
const MAX_UPLOAD_METADATA_BYTES: usize = 4096;

/// The length of a new upload; none when it is told later.
pub(super) fn creation_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    if headers.contains_key(UPLOAD_CONCAT) {
        return Err(invalid_header(&UPLOAD_CONCAT, "uploads are not put together from others here"));
    }
    let is_deferred = match headers.get(UPLOAD_DEFER_LENGTH).map(HeaderValue::as_bytes) {
        None => false,
        Some(b"1") => true,
        Some(_) => return Err(invalid_header(&UPLOAD_DEFER_LENGTH, "expected 1")),
    };
    match (whole_number(headers, &UPLOAD_LENGTH)?, is_deferred) {
        (Some(_), true) => Err(invalid_header(&UPLOAD_DEFER_LENGTH, "the length is told, and said to be told later")),
        (None, false) => Err(invalid_header(&UPLOAD_LENGTH, "expected a number of bytes, or Upload-Defer-Length: 1")),
        (length, _) => Ok(length),
    }
}

/// What the creator of an upload says about it.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// The name of the file.
    pub(super) file_name: Option<String>,
    /// The job that it is a file of.
    pub(super) job: Option<String>,
    /// How it is read.
    pub(super) options: Query<'static>,
    /// All of it as it was written.
    pub(super) text: Option<String>,
}

impl Metadata {
    /// Reads the field, if it is there. Keys that are not known here are passed over.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(UPLOAD_METADATA) else {
            return Ok(Self::default());
        };
        let invalid = |reason: String| invalid_header(&UPLOAD_METADATA, reason);
        if value.len() > MAX_UPLOAD_METADATA_BYTES {
            let reason = format!("it has more than {MAX_UPLOAD_METADATA_BYTES} bytes");
            return Err(invalid(reason).with_limit("max_upload_metadata_bytes", MAX_UPLOAD_METADATA_BYTES as u64));
        }
        let text = value.to_str().map_err(|_| invalid("expected ASCII characters".into()))?;
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
            if pairs.iter().any(|(known, _)| known == key) {
                return Err(invalid(format!("{key:?} is given more than once")));
            }
            let value = STANDARD.decode(value.trim_start());
            let value = value.map_err(|error| invalid(format!("{key}: expected Base64: {error}")))?;
            let is_known = ["filename", "job"].contains(&key) || JOB_OPTIONS.contains(&key);
            let value = match String::from_utf8(value) {
                Ok(value) => value,
                Err(_) if is_known => return Err(invalid(format!("{key}: expected UTF-8"))),
                // Of keys that are not known, any bytes.
                Err(_) => String::new(),
            };
            pairs.push((key.to_owned(), value));
        }
        let mut take = |name: &str| {
            let place = pairs.iter().position(|(key, _)| key == name)?;
            Some(pairs.swap_remove(place).1)
        };
        let (file_name, job) = (take("filename"), take("job"));
        let options = pairs.into_iter().filter(|(key, _)| JOB_OPTIONS.contains(&key.as_str())).collect();
        Ok(Self {
            file_name,
            job,
            options: Query::from_pairs(options),
            text: (!text.is_empty()).then(|| text.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;
    use crate::http::query::refuse_job_options;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_length_is_told_or_deferred() {
        let length = |fields: &[_]| creation_length(&headers(fields)).ok();
        assert_eq!(length(&[(UPLOAD_LENGTH, "7")]), Some(Some(7)));
        assert_eq!(length(&[(UPLOAD_DEFER_LENGTH, "1")]), Some(None));
        for fields in [
            &[][..],
            &[(UPLOAD_LENGTH, "-7")],
            &[(UPLOAD_LENGTH, "x")],
            &[(UPLOAD_DEFER_LENGTH, "0")],
            &[(UPLOAD_LENGTH, "7"), (UPLOAD_DEFER_LENGTH, "1")],
            &[(UPLOAD_LENGTH, "7"), (UPLOAD_CONCAT, "partial")],
        ] {
            assert_eq!(length(fields), None, "{fields:?}");
        }
    }

    #[test]
    fn metadata_is_read_as_far_as_it_is_known() {
        let read = |text: &str| Metadata::read(&headers(&[(UPLOAD_METADATA, text)]));
        let metadata = read("filename YWRzLmNzdg==,is_confidential, top MjU=,blob /w==").unwrap();
        assert_eq!(metadata.file_name.as_deref(), Some("ads.csv"));
        assert_eq!((metadata.job.as_deref(), metadata.options.text("top")), (None, Some("25")));
        assert!(refuse_job_options(&metadata.options).is_err());
        for wrong in [
            "filename ads.csv",
            "filename YQ",
            "filename /w==",
            "job /w==",
            "encoding /w==",
            "top MjU=,top MjU=",
            "unknown !",
            &"x".repeat(4097),
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
