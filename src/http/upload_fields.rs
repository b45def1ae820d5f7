//! Names of header fields about uploads that go on (Resumable Uploads for HTTP, an IETF draft).

use axum::http::HeaderName;

/// Bytes of a file: those before the body of a request; in answers, those that are stored for good.
pub(super) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// All bytes of a file.
pub(super) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
/// Whether a file ends with the body of a request; in answers, whether it is complete.
pub(super) const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
