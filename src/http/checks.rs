//! Checks of a body that is a part of a file: `Content-Digest` (RFC 9530) and `Upload-Checksum` (tus 1.0).

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::body::UploadBody;
use super::digests::{DigestFault, PartDigests, digest_failure};
use super::fields::invalid_header;
use super::problem::Problem;
use super::upload_fields::UPLOAD_CHECKSUM;
use crate::jobs::{Failure, FailureKind};

/// The checksum of a body, as its sender tells it.
pub(super) enum Checksum {
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

impl Checksum {
    /// Reads `Upload-Checksum`, if it is there.
    pub(super) fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(UPLOAD_CHECKSUM) else {
            return Ok(None);
        };
        let invalid = || invalid_header(&UPLOAD_CHECKSUM, "expected sha1 or sha256, a space, and the digest in Base64");
        let (algorithm, digest) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(invalid)?;
        let digest = STANDARD.decode(digest).map_err(|_| invalid())?;
        let checksum = match algorithm {
            "sha1" => digest.try_into().map(Self::Sha1),
            "sha256" => digest.try_into().map(Self::Sha256),
            _ => return Err(invalid()),
        };
        checksum.map(Some).map_err(|_| invalid())
    }
}

/// What is computed of a body, and what it has to be.
struct Checks {
    sha1: Option<(Sha1, [u8; 20])>,
    sha256: Option<Sha256>,
    checksum: Option<[u8; 32]>,
    digests: PartDigests,
}

/// The body of an upload that fails at its end when it is not what its sender has said.
pub(super) struct CheckedBody {
    body: UploadBody,
    /// None when there is nothing to check, or no more.
    checks: Option<Box<Checks>>,
}

impl CheckedBody {
    pub(super) fn new(body: UploadBody, digests: PartDigests, checksum: Option<&Checksum>) -> Self {
        let has_checks = digests.are_of_part() || checksum.is_some();
        let (sha1, checksum) = match checksum {
            None => (None, None),
            Some(Checksum::Sha1(digest)) => (Some((Sha1::new(), *digest)), None),
            Some(Checksum::Sha256(digest)) => (None, Some(*digest)),
        };
        let sha256 = (digests.are_of_part() || checksum.is_some()).then(Sha256::new);
        Self { body, checks: has_checks.then(|| Box::new(Checks { sha1, sha256, checksum, digests })) }
    }

    /// True when the body counts as a whole or not at all.
    pub(super) fn has_checks(&self) -> bool {
        self.checks.is_some()
    }

    /// Reads what is left of the body, for its checks alone.
    ///
    /// # Errors
    /// When it breaks off, or is not what its sender has said.
    pub(super) async fn verify_rest(&mut self) -> Result<(), Failure> {
        while self.has_checks()
            && let Some(piece) = self.next().await
        {
            piece?;
        }
        Ok(())
    }
}

impl Checks {
    fn update(&mut self, piece: &[u8]) {
        if let Some((sha1, _)) = &mut self.sha1 {
            sha1.update(piece);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(piece);
        }
    }

    fn finish(self, trailers: &HeaderMap) -> Result<(), Failure> {
        let other_checksum = |name: &str| {
            let detail = format!("the {name} checksum of what came is another one; nothing of it was counted");
            Err(FailureKind::ChecksumMismatch.because(detail))
        };
        if let Some((sha1, expected)) = self.sha1
            && <[u8; 20]>::from(sha1.finalize()) != expected
        {
            return other_checksum("sha1");
        }
        let sha256 = self.sha256.map(|sha256| sha256.finalize().into());
        if self.checksum.is_some() && self.checksum != sha256 {
            return other_checksum("sha256");
        }
        if self.digests.content().is_some() && self.digests.content() != sha256 {
            return Err(digest_failure(DigestFault::Mismatch));
        }
        self.digests.check_trailer(trailers, sha256).map_err(digest_failure)
    }
}

impl Stream for CheckedBody {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.body.poll_next_unpin(context);
        match &polled {
            Poll::Ready(Some(Ok(piece))) => {
                if let Some(checks) = &mut self.checks {
                    checks.update(piece);
                }
            }
            Poll::Ready(None) => {
                if let Some(checks) = self.checks.take() {
                    return Poll::Ready(checks.finish(self.body.trailers()).err().map(Err));
                }
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }
}
