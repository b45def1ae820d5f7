//! Names of header fields about uploads that go on: of Resumable Uploads for HTTP, an IETF draft, and of tus 1.0.

use axum::http::HeaderName;

/// Bytes of a file: those before the body of a request; in answers, those that are stored for good.
pub(super) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// All bytes of a file.
pub(super) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
/// Whether a file ends with the body of a request; in answers, whether it is complete.
pub(super) const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
/// The version of the draft that a client speaks.
pub(super) const UPLOAD_DRAFT_INTEROP_VERSION: HeaderName = HeaderName::from_static("upload-draft-interop-version");

/// 1: the length of a tus upload is told later.
pub(super) const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
/// What the creator of a tus upload says about it.
pub(super) const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
/// When a tus upload that is not complete expires.
pub(super) const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
/// The checksum of the body of a request.
pub(super) const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
/// A tus upload that is put together from others.
pub(super) const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");
/// The version of tus that a message is written in.
pub(super) const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
/// The versions of tus that the server speaks.
pub(super) const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
/// The extensions of tus that the server has.
pub(super) const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
/// The most bytes of a tus upload.
pub(super) const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
/// The algorithms of [`UPLOAD_CHECKSUM`].
pub(super) const TUS_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
