//! Digests of a request's body: `Content-Digest` and `Repr-Digest` (RFC 9530).

use axum::http::header::TRAILER;
use axum::http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::fields::invalid_header;
use super::problem::Problem;
use crate::ingest::Sha256Digest;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

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

    /// Checks a body that has come to its end, and has the digest that was known ahead of it, by what follows it.
    pub(super) fn check(&self, trailers: &HeaderMap, actual: Option<Sha256Digest>) -> Result<(), DigestFault> {
        let trailing = read_digests(trailers).map_err(DigestFault::Invalid)?;
        if !self.announced.iter().all(|field| trailers.contains_key(field)) {
            return Err(DigestFault::Missing);
        }
        if trailing.is_empty() {
            return Ok(());
        }
        match actual {
            Some(actual) if trailing.iter().all(|expected| *expected == actual) => Ok(()),
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
