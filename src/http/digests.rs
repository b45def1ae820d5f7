//! Digests of a request's body: `Content-Digest` and `Repr-Digest` (RFC 9530).

use axum::http::header::TRAILER;
use axum::http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::fields::invalid_header;
use super::problem::Problem;
use crate::ingest::Sha256Digest;
use crate::jobs::{Failure, FailureKind, JobFile, hex};

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
        let announced = announced(headers);
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
        check_trailers(&self.announced, trailers, actual)
    }
}

/// Digests of a body that is a part of a file: there `Content-Digest` is about the body, and `Repr-Digest` about the file.
pub(super) struct PartDigests {
    content: Option<Sha256Digest>,
    file: Option<Sha256Digest>,
    announced: Vec<HeaderName>,
}

impl PartDigests {
    /// Reads the digests ahead of a body.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let announced = announced(headers);
        if announced.contains(&REPR_DIGEST) {
            return Err(invalid_header(&REPR_DIGEST, "behind a part of a file it is not understood: send it ahead"));
        }
        let one = |field: &HeaderName| {
            let mut digests = read_field(headers, field)?;
            digests.dedup();
            match digests.as_slice() {
                [] => Ok(None),
                [digest] => Ok(Some(*digest)),
                _ => Err(invalid_header(field, "it names two SHA-256")),
            }
        };
        Ok(Self { content: one(&CONTENT_DIGEST)?, file: one(&REPR_DIGEST)?, announced })
    }

    /// True when the digest of the part has to be computed.
    pub(super) fn are_of_part(&self) -> bool {
        self.content.is_some() || !self.announced.is_empty()
    }

    /// The digest that the part has to have, as far as it is known ahead of it.
    pub(super) fn content(&self) -> Option<Sha256Digest> {
        self.content
    }

    /// The digest that the file has to have.
    pub(super) fn file(&self) -> Option<Sha256Digest> {
        self.file
    }

    /// The digest of the file, where it can be verified: when the file was hashed from its first byte.
    pub(super) fn verifiable(&self, file: &JobFile) -> Result<Option<Sha256Digest>, Problem> {
        let Some(told) = self.file else {
            return Ok(None);
        };
        if !file.format.with_digest {
            let detail = "the file's digest cannot be verified now: it has to be told when the file begins";
            return Err(invalid_header(&REPR_DIGEST, detail));
        }
        if file.sha256.as_ref().is_some_and(|known| *known != hex(told)) {
            return Err(invalid_header(&REPR_DIGEST, "another SHA-256 was told before"));
        }
        Ok(Some(told))
    }

    /// Checks a part that has come to its end by what follows it.
    pub(super) fn check_trailer(&self, trailers: &HeaderMap, actual: Option<Sha256Digest>) -> Result<(), DigestFault> {
        check_trailers(&self.announced, trailers, actual)
    }
}

/// Why an upload fails whose digest is wrong.
pub(super) fn digest_failure(fault: DigestFault) -> Failure {
    match fault {
        DigestFault::Invalid(problem) => FailureKind::InvalidDigest.because(problem.detail()),
        DigestFault::Mismatch => {
            FailureKind::DigestMismatch.because("the SHA-256 of what came is another one; nothing was counted")
        }
        DigestFault::NotAnnounced => FailureKind::InvalidDigest
            .because("a digest came behind the last byte without having been announced by the Trailer field"),
        DigestFault::Missing => FailureKind::InvalidDigest
            .because("the Trailer field announced a digest, and none came behind the last byte; nothing was counted"),
    }
}

/// The digests that will follow the last byte.
fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let names: Vec<_> = headers
        .get_all(TRAILER)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    let is_announced = |field: &HeaderName| names.iter().any(|name| name.eq_ignore_ascii_case(field.as_ref()));
    [CONTENT_DIGEST, REPR_DIGEST].into_iter().filter(is_announced).collect()
}

fn check_trailers(
    announced: &[HeaderName],
    trailers: &HeaderMap,
    actual: Option<Sha256Digest>,
) -> Result<(), DigestFault> {
    let trailing = read_digests(trailers).map_err(DigestFault::Invalid)?;
    if !announced.iter().all(|field| trailers.contains_key(field)) {
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

/// What is wrong with a digest.
pub(super) enum DigestFault {
    Invalid(Problem),
    Mismatch,
    NotAnnounced,
    /// It was announced for behind the last byte.
    Missing,
}

fn read_digests(headers: &HeaderMap) -> Result<Vec<Sha256Digest>, Problem> {
    Ok([read_field(headers, &CONTENT_DIGEST)?, read_field(headers, &REPR_DIGEST)?].concat())
}

fn read_field(headers: &HeaderMap, field: &HeaderName) -> Result<Vec<Sha256Digest>, Problem> {
    let mut digests = Vec::new();
    for value in headers.get_all(field) {
        let invalid = || invalid_header(field, "expected sha-256=:BASE64: with a digest of 32 bytes (RFC 9530)");
        let dictionary: Dictionary = Parser::new(value.as_bytes()).parse().map_err(|_| invalid())?;
        let Some(entry) = dictionary.get("sha-256") else {
            continue;
        };
        match entry {
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::ByteSequence(bytes) => digests.push(bytes.as_slice().try_into().map_err(|_| invalid())?),
                _ => return Err(invalid()),
            },
            ListEntry::InnerList(_) => return Err(invalid()),
        }
    }
    Ok(digests)
}
