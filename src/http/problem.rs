//! The only place where an error becomes a status: problem documents (RFC 9457).

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::upload_fields::UPLOAD_OFFSET;
use crate::jobs::{Failure, FailureKind, JobError, JobId, Limit, SkippedRows, StoreError};

/// The job that an answer is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobTag(pub(super) JobId);

/// The media type of a problem.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// How a request says whose it is (RFC 9110, 11.6.1).
const BEARER_CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"adtally\"");
const BASIC_CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"adtally\", charset=\"UTF-8\"");

/// Seconds after which it is worth trying again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// What a request comes to when it is refused or fails. It becomes a document on its way out, when the request id
/// is known: see [`render`].
#[derive(Clone, Debug)]
pub(super) struct Problem(Box<Facts>);

#[derive(Clone, Debug)]
struct Facts {
    kind: Kind,
    detail: Cow<'static, str>,
    job: Option<JobId>,
    limit: Option<Limit>,
    skipped: Option<Box<SkippedRows>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What really happened, for the log alone.
    cause: Option<Arc<str>>,
}

/// The kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unauthorized,
    InvalidToken,
    TokenExpired,
    Forbidden,
    InvalidName,
    UnknownOption,
    InvalidOption,
    InvalidHeader,
    InvalidCursor,
    RangeNotSupported,
    NotFound,
    JobNotFound,
    ResultNotFound,
    FileNotFound,
    FileComplete,
    FileIncomplete,
    FileBeingReceived,
    OtherOffset,
    OtherLength,
    OtherOptions,
    FileUnusable,
    TooManyFiles,
    JobClosesItself,
    JobFinishing,
    FilesIncomplete,
    NoFiles,
    TooManyOpenJobs,
    InvalidBody,
    MethodNotAllowed,
    NotAcceptable,
    JobNotFinished,
    JobEnded,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    JobExpired,
    UnsupportedMediaType,
    UnsupportedContentCoding,
    RangeNotSatisfiable,
    DamagedRecord,
    TooManyUploads,
    TooManyDownloads,
    TooManyConnections,
    TooManyRequests,
    Draining,
    NotReady,
    TusVersion,
    UploadLocked,
    UploadGone,
    PreconditionFailed,
    CrossOrigin,
    UnknownHost,
    Failure(FailureKind),
}

impl Kind {
    /// The stable name, the status, and what it means in a few words.
    fn describe(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "A token is needed"),
            Self::InvalidToken => ("invalid_token", S::UNAUTHORIZED, "There is no such token"),
            Self::TokenExpired => ("token_expired", S::UNAUTHORIZED, "The token has expired"),
            Self::Forbidden => ("forbidden", S::FORBIDDEN, "Not with this token"),
            Self::InvalidName => ("invalid_name", S::BAD_REQUEST, "This cannot be a name"),
            Self::UnknownOption => ("unknown_option", S::BAD_REQUEST, "There is no such option"),
            Self::InvalidOption => ("invalid_option", S::BAD_REQUEST, "An option has a value it cannot have"),
            Self::InvalidHeader => ("invalid_header", S::BAD_REQUEST, "A header field cannot be understood"),
            Self::InvalidCursor => ("invalid_cursor", S::BAD_REQUEST, "This is no cursor"),
            Self::RangeNotSupported => ("range_not_supported", S::BAD_REQUEST, "Only whole files are taken here"),
            Self::NotFound => ("not_found", S::NOT_FOUND, "There is nothing at this address"),
            Self::JobNotFound => ("job_not_found", S::NOT_FOUND, "There is no such job"),
            Self::ResultNotFound => ("result_not_found", S::NOT_FOUND, "The job has no such result"),
            Self::FileNotFound => ("file_not_found", S::NOT_FOUND, "The job has no such file"),
            Self::FileComplete => ("file_complete", S::CONFLICT, "Another file has this name"),
            Self::FileIncomplete => ("file_incomplete", S::CONFLICT, "A file of this name is not complete"),
            Self::FileBeingReceived => ("file_being_received", S::CONFLICT, "The file is being received already"),
            Self::OtherOffset => ("other_offset", S::CONFLICT, "The file goes on elsewhere"),
            Self::OtherLength => ("other_length", S::CONFLICT, "The file has another length"),
            Self::FileUnusable => ("file_unusable", S::CONFLICT, "The file has failed"),
            Self::OtherOptions => ("other_options", S::CONFLICT, "The file has other options"),
            Self::TooManyFiles => ("too_many_files", S::PAYLOAD_TOO_LARGE, "The job has too many files"),
            Self::JobClosesItself => ("job_closes_itself", S::CONFLICT, "The job takes no further files"),
            Self::JobFinishing => ("job_finishing", S::LOCKED, "The results are being made"),
            Self::FilesIncomplete => ("files_incomplete", S::CONFLICT, "Not all files are complete"),
            Self::NoFiles => ("no_files", S::CONFLICT, "The job has no file"),
            Self::TooManyOpenJobs => ("too_many_open_jobs", S::SERVICE_UNAVAILABLE, "Too many open jobs"),
            Self::InvalidBody => ("invalid_body", S::BAD_REQUEST, "The body cannot be understood"),
            Self::MethodNotAllowed => ("method_not_allowed", S::METHOD_NOT_ALLOWED, "Not with this method"),
            Self::NotAcceptable => ("not_acceptable", S::NOT_ACCEPTABLE, "Not to be had in this form"),
            Self::JobNotFinished => ("job_not_finished", S::CONFLICT, "The job has no results"),
            Self::JobEnded => ("job_ended", S::CONFLICT, "The job has already ended"),
            Self::IdempotencyKeyInUse => ("idempotency_key_in_use", S::CONFLICT, "The first attempt is still running"),
            Self::IdempotencyKeyReused => {
                ("idempotency_key_reused", S::UNPROCESSABLE_ENTITY, "The key was used for another job")
            }
            Self::JobExpired => ("job_expired", S::GONE, "The job has expired"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE, "Not a media type of CSV files")
            }
            Self::UnsupportedContentCoding => {
                ("unsupported_content_coding", S::UNSUPPORTED_MEDIA_TYPE, "Not a coding that is understood")
            }
            Self::RangeNotSatisfiable => {
                ("range_not_satisfiable", S::RANGE_NOT_SATISFIABLE, "The range lies beyond the end")
            }
            Self::DamagedRecord => ("damaged_record", S::INTERNAL_SERVER_ERROR, "A stored record cannot be read"),
            Self::TooManyUploads => ("too_many_uploads", S::SERVICE_UNAVAILABLE, "Too many uploads at once"),
            Self::TooManyDownloads => ("too_many_downloads", S::SERVICE_UNAVAILABLE, "Too many downloads at once"),
            Self::TooManyConnections => {
                ("too_many_connections", S::SERVICE_UNAVAILABLE, "Too many connections at once")
            }
            Self::TooManyRequests => ("too_many_requests", S::TOO_MANY_REQUESTS, "Too many requests in a second"),
            Self::Draining => ("draining", S::SERVICE_UNAVAILABLE, "The server is stopping"),
            Self::NotReady => ("not_ready", S::SERVICE_UNAVAILABLE, "The service takes no uploads at the moment"),
            Self::TusVersion => ("tus_version", S::PRECONDITION_FAILED, "Not a version of tus that is spoken here"),
            Self::UploadLocked => ("upload_locked", S::LOCKED, "The upload cannot be reached at the moment"),
            Self::UploadGone => ("upload_gone", S::GONE, "The upload cannot go on"),
            Self::PreconditionFailed => {
                ("precondition_failed", S::PRECONDITION_FAILED, "A condition of the request does not hold")
            }
            Self::CrossOrigin => ("cross_origin", S::FORBIDDEN, "Pages of other origins may not change anything"),
            Self::UnknownHost => ("unknown_host", S::MISDIRECTED_REQUEST, "The service has another name"),
            Self::Failure(kind) => {
                let (status, title) = describe_failure(kind);
                (kind.name(), status, title)
            }
        }
    }
}

fn describe_failure(kind: FailureKind) -> (StatusCode, &'static str) {
    use FailureKind as F;
    use StatusCode as S;
    match kind {
        F::EmptyInput => (S::UNPROCESSABLE_ENTITY, "The input is empty"),
        F::NotCsv => (S::UNPROCESSABLE_ENTITY, "The file is not CSV"),
        F::TooManySkipped => (S::UNPROCESSABLE_ENTITY, "Too many rows were skipped"),
        F::AmbiguousDelimiter => (S::UNPROCESSABLE_ENTITY, "The delimiter is ambiguous"),
        F::UndecidedDecimalMark => (S::UNPROCESSABLE_ENTITY, "The decimal mark cannot be told"),
        F::MixedDecimalMarks => (S::UNPROCESSABLE_ENTITY, "There are two decimal marks"),
        F::MixedCurrencies => (S::UNPROCESSABLE_ENTITY, "There are two currencies"),
        F::UnsupportedReport => (S::UNPROCESSABLE_ENTITY, "This kind of report cannot be added up"),
        F::MissingColumns => (S::UNPROCESSABLE_ENTITY, "Required columns are missing"),
        F::DuplicateColumns => (S::UNPROCESSABLE_ENTITY, "Columns have the same name"),
        F::TooManyCampaigns => (S::UNPROCESSABLE_ENTITY, "Too many different campaign ids"),
        F::MemoryBudgetExceeded => (S::PAYLOAD_TOO_LARGE, "It takes more memory than all uploads may take"),
        F::MemoryBudget => (S::SERVICE_UNAVAILABLE, "All memory for uploads is taken"),
        F::TotalsOverflow => (S::UNPROCESSABLE_ENTITY, "Totals are too large"),
        F::DamagedCompression => (S::UNPROCESSABLE_ENTITY, "Compressed data is damaged"),
        F::TextTooLarge => (S::PAYLOAD_TOO_LARGE, "Too much text comes out of decompression"),
        F::DecompressionRatio => (S::PAYLOAD_TOO_LARGE, "The data is compressed too well"),
        F::UploadTooLarge => (S::PAYLOAD_TOO_LARGE, "The upload is too large"),
        F::UploadIncomplete => (S::BAD_REQUEST, "The upload broke off"),
        F::SenderStalled => (S::REQUEST_TIMEOUT, "The sender fell silent"),
        F::SenderTooSlow => (S::REQUEST_TIMEOUT, "The sender was too slow"),
        F::LengthMismatch => (S::BAD_REQUEST, "Not as many bytes as announced"),
        F::DigestMismatch => (S::BAD_REQUEST, "The contents are others than the digest says"),
        // What tus has chosen for it.
        F::ChecksumMismatch => {
            let status = S::from_u16(460).unwrap_or(S::BAD_REQUEST);
            (status, "The contents are others than the checksum says")
        }
        F::InvalidDigest => (S::BAD_REQUEST, "The digest cannot be understood"),
        F::MalformedForm => (S::BAD_REQUEST, "The form cannot be taken apart"),
        F::FormWithoutFile => (S::BAD_REQUEST, "The form has no file"),
        F::FormTooLarge => (S::PAYLOAD_TOO_LARGE, "The form has too many parts"),
        F::InvalidName => (S::BAD_REQUEST, "This cannot be a name"),
        F::InvalidOption => (S::BAD_REQUEST, "An option has a value it cannot have"),
        F::UploadCancelled => (S::CONFLICT, "The job was cancelled"),
        F::FileDeleted => (S::CONFLICT, "The file was deleted"),
        F::TokenRevoked => (S::UNAUTHORIZED, "The token is no longer valid"),
        F::ServerStopped => (S::SERVICE_UNAVAILABLE, "The server was stopped"),
        F::CheckpointLost => (S::GONE, "What was stored of the file cannot be read"),
        F::NotDivisible => (S::UNPROCESSABLE_ENTITY, "The file cannot be cut there"),
        F::StorageFull => (S::INSUFFICIENT_STORAGE, "There is no room to store it"),
        F::StoreUnavailable => (S::SERVICE_UNAVAILABLE, "The store does not answer"),
        F::Internal => (S::INTERNAL_SERVER_ERROR, "Something went wrong here"),
    }
}

/// A problem as it is sent, but for the request id.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a Limit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'a SkippedRows>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl<'a> Document<'a> {
    fn new(kind: Kind, detail: &'a str) -> Self {
        let (code, status, title) = kind.describe();
        let r#type = format!("urn:adtally:problem:{code}");
        Self { r#type, title, status: status.as_u16(), detail, job: None, limit: None, skipped: None, request_id: None }
    }
}

impl<'a> From<&'a Failure> for Document<'a> {
    /// The problem that a job ended with.
    fn from(failure: &'a Failure) -> Self {
        Self {
            limit: failure.limit.as_ref(),
            skipped: failure.skipped.as_deref(),
            ..Self::new(Kind::Failure(failure.kind), &failure.detail)
        }
    }
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let headers = match kind.describe().1 {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::LOCKED => vec![(RETRY_AFTER, RETRY_AFTER_SECONDS)],
            _ => Vec::new(),
        };
        Self(Box::new(Facts {
            kind,
            detail: detail.into(),
            job: None,
            limit: None,
            skipped: None,
            headers,
            cause: None,
        }))
    }

    /// An internal failure: the cause is for the log, not for the sender.
    pub(super) fn internal(cause: &dyn std::fmt::Display) -> Self {
        let detail = "an internal error; the request id helps to find it";
        Self::internal_failure(Kind::Failure(FailureKind::Internal), detail, cause)
    }

    /// What `GET /readyz` answers, with the reason, when uploads would be refused.
    pub(super) fn not_ready(error: JobError) -> Self {
        let mut problem = Self::from(error);
        if problem.0.kind != Kind::Draining {
            problem.0.kind = Kind::NotReady;
        }
        problem
    }

    fn internal_failure(kind: Kind, detail: &'static str, cause: &dyn std::fmt::Display) -> Self {
        let mut problem = Self::new(kind, detail);
        problem.0.cause = Some(cause.to_string().into());
        problem
    }

    /// What kind of problem it is.
    pub(super) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What was wrong, in words.
    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// A limit that a request passed, as a reader of the configuration knows it.
    pub(super) fn with_limit(mut self, name: &'static str, value: u64) -> Self {
        self.0.limit = Some(Limit { name: name.into(), value });
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// True when the same request may well succeed later.
    pub(super) fn may_pass(&self) -> bool {
        let status = self.0.kind.describe().1;
        (status.is_server_error() && self.0.kind != Kind::DamagedRecord) || status == StatusCode::TOO_MANY_REQUESTS
    }

    /// The same for clients that take a server's error for the end of their upload, and would start over from its first byte.
    pub(super) fn for_resuming_client(self) -> Self {
        let kind = match self.0.kind {
            Kind::DamagedRecord => Kind::UploadGone,
            _ if self.may_pass() => Kind::UploadLocked,
            _ => return self,
        };
        let Facts { detail, job, limit, skipped, headers, cause, .. } = *self.0;
        let mut problem = Self::new(kind, detail);
        problem.0.headers.extend(headers.into_iter().filter(|(name, _)| *name != RETRY_AFTER));
        (problem.0.job, problem.0.limit, problem.0.skipped, problem.0.cause) = (job, limit, skipped, cause);
        problem
    }

    pub(super) fn with_job(mut self, job: JobId) -> Self {
        self.0.job = Some(job);
        self
    }

    pub(super) fn unsupported_media_type(given: &str) -> Self {
        let detail = format!(
            "{given:?} is not a media type of CSV files: expected text/csv, application/octet-stream or multipart/form-data"
        );
        let accepted = HeaderValue::from_static("text/csv, application/octet-stream, multipart/form-data");
        Self::new(Kind::UnsupportedMediaType, detail).with_header(ACCEPT, accepted)
    }

    /// A form or a JSON document where only a file is taken.
    pub(super) fn not_a_file() -> Self {
        let detail = "here the body is a file: expected text/csv or application/octet-stream; forms and JSON make new jobs, by POST \
            to /v1/jobs";
        let accepted = HeaderValue::from_static("text/csv, application/octet-stream");
        Self::new(Kind::UnsupportedMediaType, detail).with_header(ACCEPT, accepted)
    }

    pub(super) fn not_a_tus_body() -> Self {
        let accepted = "application/offset+octet-stream";
        let detail = format!("here the body is bytes of an upload: expected {accepted}");
        Self::new(Kind::UnsupportedMediaType, detail).with_header(ACCEPT, HeaderValue::from_static(accepted))
    }

    /// A method that is given in another way than as that of the request.
    pub(super) fn method_not_allowed(allowed: &'static str) -> Self {
        let detail = format!("this address takes {allowed}");
        Self::new(Kind::MethodNotAllowed, detail).with_header(ALLOW, HeaderValue::from_static(allowed))
    }

    pub(super) fn unsupported_content_coding(given: &str) -> Self {
        Self::other_content_coding(format!(
            "{given:?} is not understood: expected one of gzip, zstd, br, deflate, identity"
        ))
    }

    /// A body that is said to be compressed twice, by several fields or by one.
    pub(super) fn several_content_codings(first: &str, second: &str) -> Self {
        Self::other_content_coding(format!(
            "the body is said to be compressed twice, with {first} and then with {second}: expected one of gzip, zstd, br, deflate, named once"
        ))
    }

    fn other_content_coding(detail: String) -> Self {
        let accepted = HeaderValue::from_static("gzip, zstd, br, deflate, identity");
        Self::new(Kind::UnsupportedContentCoding, detail).with_header(ACCEPT_ENCODING, accepted)
    }

    pub(super) fn range_not_satisfiable(length: u64) -> Self {
        let problem = Self::new(Kind::RangeNotSatisfiable, format!("the result has {length} bytes"));
        match HeaderValue::from_str(&format!("bytes */{length}")) {
            Ok(value) => problem.with_header(CONTENT_RANGE, value),
            Err(_) => problem,
        }
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        let detail = error.to_string();
        match error {
            JobError::NotFound(_) => Self::new(Kind::JobNotFound, detail),
            JobError::Expired(_) => Self::new(Kind::JobExpired, detail),
            JobError::ResultNotFound { job, .. } => Self::new(Kind::ResultNotFound, detail).with_job(job.id),
            JobError::NotSucceeded { job } => Self::new(Kind::JobNotFinished, detail).with_job(job.id),
            JobError::Ended { id, .. } => Self::new(Kind::JobEnded, detail).with_job(id),
            JobError::Failed { id, failure } | JobError::FileFailed { id, failure, offset: None } => {
                Self::from(failure).with_job(id)
            }
            JobError::FileFailed { id, mut failure, offset: Some(offset) } => {
                write_hint(&mut failure.detail, id, offset);
                Self::from(failure).with_job(id).with_header(UPLOAD_OFFSET, HeaderValue::from(offset))
            }
            JobError::OtherOffset { id, offset, .. } => {
                Self::new(Kind::OtherOffset, detail).with_job(id).with_header(UPLOAD_OFFSET, HeaderValue::from(offset))
            }
            JobError::OtherLength { id, .. } => Self::new(Kind::OtherLength, detail).with_job(id),
            JobError::FileUnusable { id, .. } => Self::new(Kind::FileUnusable, detail).with_job(id),
            JobError::OtherFormat { id, .. } => Self::new(Kind::OtherOptions, detail).with_job(id),
            JobError::FileNotFound { id, .. } => Self::new(Kind::FileNotFound, detail).with_job(id),
            JobError::FileComplete { id, .. } => Self::new(Kind::FileComplete, detail).with_job(id),
            JobError::FileIncomplete { id, .. } => Self::new(Kind::FileIncomplete, detail).with_job(id),
            JobError::FileBeingReceived { id, .. } => {
                Self::new(Kind::FileBeingReceived, detail).with_job(id).with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
            }
            JobError::TooManyFiles { id, max_files } => {
                Self::new(Kind::TooManyFiles, detail).with_job(id).with_limit("max_files", max_files as u64)
            }
            JobError::ClosesItself(id) => Self::new(Kind::JobClosesItself, detail).with_job(id),
            JobError::Finishing(id) => Self::new(Kind::JobFinishing, detail).with_job(id),
            JobError::FilesIncomplete { id, .. } => Self::new(Kind::FilesIncomplete, detail).with_job(id),
            JobError::NoFiles(id) => Self::new(Kind::NoFiles, detail).with_job(id),
            JobError::TooManyOpenJobs { max_open_jobs } => {
                Self::new(Kind::TooManyOpenJobs, detail).with_limit("max_open_jobs", max_open_jobs)
            }
            JobError::TooManyOpenJobsOfTenant { max_open_jobs_per_tenant } => Self::new(Kind::TooManyOpenJobs, detail)
                .with_limit("max_open_jobs_per_tenant", max_open_jobs_per_tenant),
            JobError::TenantStoreFull { max_stored_bytes_per_tenant } => {
                Self::new(Kind::Failure(FailureKind::StorageFull), detail)
                    .with_limit("max_stored_bytes_per_tenant", max_stored_bytes_per_tenant)
            }
            JobError::StoreFull { max_stored_bytes } => Self::new(Kind::Failure(FailureKind::StorageFull), detail)
                .with_limit("max_stored_bytes", max_stored_bytes),
            JobError::DiskFull { disk_reserve_bytes, .. } => Self::new(Kind::Failure(FailureKind::StorageFull), detail)
                .with_limit("disk_reserve_bytes", disk_reserve_bytes),
            JobError::TooManyUploads { max_concurrent_uploads } => Self::new(Kind::TooManyUploads, detail)
                .with_limit("max_concurrent_uploads", max_concurrent_uploads as u64),
            JobError::NameTaken { id, .. } => Self::new(Kind::PreconditionFailed, detail).with_job(id),
            JobError::MemoryBudget { memory_budget_bytes } => {
                Self::new(Kind::Failure(FailureKind::MemoryBudget), detail)
                    .with_limit("memory_budget", memory_budget_bytes)
            }
            JobError::TooManyUploadsOfTenant { max_uploads_per_tenant } => Self::new(Kind::TooManyUploads, detail)
                .with_limit("max_uploads_per_tenant", max_uploads_per_tenant as u64),
            JobError::Draining => Self::new(Kind::Draining, detail),
            JobError::IdempotencyKeyInUse(id) => {
                Self::new(Kind::IdempotencyKeyInUse, detail).with_job(id).with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
            }
            JobError::IdempotencyKeyReused(id) => Self::new(Kind::IdempotencyKeyReused, detail).with_job(id),
            JobError::Store(error) => error.into(),
        }
    }
}

/// Tells a sender how to go on.
fn write_hint(detail: &mut String, job: JobId, offset: u64) {
    let hint = format!(
        "; {offset} bytes are stored: go on there, with `curl -C {offset} -T FILE` and the address that links.resume of job {job} has"
    );
    detail.push_str(&hint);
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Full(_) | StoreError::HeldBack { .. } => {
                let detail = "there is no room to store anything more";
                Self::internal_failure(Kind::Failure(FailureKind::StorageFull), detail, &error)
            }
            StoreError::ReadOnly(_) => {
                let detail = "the disk of the store is read-only: nothing can be stored until its operator mends that";
                Self::internal_failure(Kind::Failure(FailureKind::StorageFull), detail, &error)
            }
            StoreError::Removed => {
                let detail = "the database of this service was removed; its operator has to put it back or start the service again";
                Self::internal_failure(Kind::Failure(FailureKind::StoreUnavailable), detail, &error)
            }
            StoreError::Damaged(_) => {
                let detail = "what is stored of this job is damaged; the request id helps to find out how";
                Self::internal_failure(Kind::DamagedRecord, detail, &error)
            }
            _ => {
                let detail = "the store does not answer; try again";
                Self::internal_failure(Kind::Failure(FailureKind::StoreUnavailable), detail, &error)
            }
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let mut problem = Self::new(Kind::Failure(failure.kind), failure.detail);
        (problem.0.limit, problem.0.skipped) = (failure.limit, failure.skipped);
        problem
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(Kind::InvalidName, format!("the path cannot be understood: {}", rejection.body_text()))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.kind.describe().1.into_response();
        if let Some(job) = self.0.job {
            response.extensions_mut().insert(JobTag(job));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// A document as JSON, with the line end that a terminal wants behind it.
pub(super) fn json_line(document: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(document)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes the problem that a response carries, if any, as its body.
pub(super) fn render(mut response: Response, request_id: &str) -> Response {
    let Problem(problem) = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        // An answer of the router itself.
        None if response.status() == StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = response.headers().get(ALLOW).and_then(|value| value.to_str().ok()).unwrap_or_default();
            Problem::new(Kind::MethodNotAllowed, format!("this address takes {}", allowed.replace(',', ", ")))
        }
        None => return response,
    };
    let (code, status, _) = problem.kind.describe();
    if let Some(cause) = &problem.cause {
        tracing::error!(request_id, code, %cause, "a request failed");
    }
    let mut document = Document::new(problem.kind, &problem.detail);
    document.job = problem.job.map(|id| format!("/v1/jobs/{id}"));
    (document.limit, document.skipped) = (problem.limit.as_ref(), problem.skipped.as_deref());
    document.request_id = Some(request_id);
    // Strings and numbers always can be written.
    let body = json_line(&document).unwrap_or_default();
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    for (name, value) in problem.headers {
        response.headers_mut().insert(name, value);
    }
    if status == StatusCode::UNAUTHORIZED {
        // Not insert: some clients read only one challenge of a field.
        response.headers_mut().append(WWW_AUTHENTICATE, BEARER_CHALLENGE);
        response.headers_mut().append(WWW_AUTHENTICATE, BASIC_CHALLENGE);
    }
    *response.body_mut() = Body::from(body);
    response
}
