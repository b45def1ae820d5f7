//! tus 1.0, a protocol for uploads that go on (<https://tus.io>): another way to the files of jobs.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body::Body as _;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::appends::{Appended, Place, append};
use super::file_answers::{describe, job_id};
use super::files::job_where_it_stands;
use super::set_field;
use super::uploads::IDEMPOTENCY_REPLAYED;
use crate::engine::Fatal;
use crate::http::app::{App, Shared};
use crate::http::body::too_large;
use crate::http::checks::Checksum;
use crate::http::digests::PartDigests;
use crate::http::fields::{content_length, idempotency_key, invalid_header, whole_number};
use crate::http::media::content_coding;
use crate::http::name::check_name;
use crate::http::problem::{JobTag, Kind, Problem};
use crate::http::query::{Query, file_options, job_options, refuse_job_options};
use crate::http::tus_fields::{Metadata, creation_length};
use crate::http::upload_fields::{
    TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_RESUMABLE, TUS_VERSION, UPLOAD_DEFER_LENGTH,
    UPLOAD_EXPIRES, UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET,
};
use crate::http::view::tus_path;
use crate::ingest::ContentError;
use crate::jobs::{
    Begun, BodyEnd, Failure, FailureKind, FileFormat, FileOptions, FileState, Job, JobError, JobFile, JobId, NewJob,
};

const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");

const EXTENSIONS: HeaderValue =
    HeaderValue::from_static("creation,creation-with-upload,creation-defer-length,expiration,termination,checksum");

const CHECKSUM_ALGORITHMS: HeaderValue = HeaderValue::from_static("sha1,sha256");

const X_HTTP_METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// The media type of bytes that belong at an offset.
const BYTES_TYPE: &[u8] = b"application/offset+octet-stream";

type Address = Result<Path<(String, String)>, PathRejection>;

/// Refuses other versions.
pub(in crate::http) async fn require_version(request: Request, next: Next) -> Result<Response, Problem> {
    if request.headers().get(TUS_RESUMABLE) == Some(&VERSION) {
        return Ok(next.run(request).await);
    }
    let problem = Problem::new(Kind::TusVersion, "expected Tus-Resumable: 1.0.0");
    Err(problem.with_header(TUS_VERSION, VERSION))
}

/// Says on every answer which version is spoken.
pub(in crate::http) async fn name_version(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(TUS_RESUMABLE, VERSION);
    response
}

/// The method that a `POST` stands for, where something on its way knows no other.
fn overriding_method(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(X_HTTP_METHOD_OVERRIDE).map(HeaderValue::as_bytes)
}

/// `OPTIONS /v1/tus`
pub(in crate::http) async fn options(State(shared): State<Shared>) -> Response {
    let fields = [
        (TUS_VERSION, VERSION),
        (TUS_EXTENSION, EXTENSIONS),
        (TUS_MAX_SIZE, HeaderValue::from(shared.config.max_upload_bytes)),
        (TUS_CHECKSUM_ALGORITHM, CHECKSUM_ALGORITHMS),
    ];
    (StatusCode::NO_CONTENT, fields).into_response()
}

/// `POST /v1/tus`
pub(in crate::http) async fn create(app: App, request: Request) -> Result<Response, Problem> {
    if overriding_method(request.headers()).is_some_and(|method| method != b"POST") {
        return Err(Problem::method_not_allowed("OPTIONS, POST"));
    }
    Query::read(request.uri(), &[])?;
    let headers = request.headers();
    let has_bytes = has_bytes_type(headers);
    if !has_bytes && !request.body().is_end_stream() {
        return Err(Problem::not_a_tus_body());
    }
    let length = creation_length(headers)?;
    let max_upload_bytes = app.config.max_upload_bytes;
    if length.is_some_and(|length| length > max_upload_bytes) {
        return Err(too_large(max_upload_bytes).into());
    }
    if length == Some(0) {
        // It would be complete at once, and has no header line.
        return Err(Failure::from(ContentError::from(Fatal::EmptyInput)).into());
    }
    if let (Some(length), Some(bytes)) = (length, content_length(headers))
        && has_bytes
        && bytes > length
    {
        let detail = format!("the body has {bytes} bytes, and the upload {length}");
        return Err(FailureKind::LengthMismatch.because(detail).into());
    }
    let checksum = Checksum::read(headers)?;
    let (id, file, is_replayed) = create_file(&app, headers, length).await?;
    let mut response = if has_bytes && !is_replayed {
        let place = Place { offset: 0, bytes: None, length, end: BodyEnd::LeavesOpen, checksum };
        match append(&app, id, &file, place, request).await {
            Ok(appended) => describe(StatusCode::CREATED.into_response(), id, &appended.file(&file.name)),
            // The upload is there: its bytes may come later.
            Err(problem) if problem.may_pass() => {
                let job = app.jobs.get(&id.to_string()).await?;
                let file = job.file(&file.name).unwrap_or(&file);
                describe(StatusCode::CREATED.into_response(), id, file)
            }
            Err(problem) => problem.into_response(),
        }
    } else {
        describe(StatusCode::CREATED.into_response(), id, &file)
    };
    set_field(response.headers_mut(), LOCATION, &tus_path(id, &file.name));
    if is_replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    tell_expiry(&app, id, &file.name, &mut response).await;
    Ok(response)
}

/// Adds the file to its job. Gives true when that was done before, by a request with the same key.
async fn create_file(app: &App, headers: &HeaderMap, length: Option<u64>) -> Result<(JobId, JobFile, bool), Problem> {
    let metadata = Metadata::read(headers)?;
    let digest = PartDigests::read(headers)?.file();
    let format = |options| -> Result<FileFormat, Problem> {
        Ok(FileFormat { options, coding: content_coding(headers)?, with_digest: digest.is_some() })
    };
    if let Some(name) = &metadata.file_name {
        check_name(name).map_err(|reason| Problem::new(Kind::InvalidName, reason))?;
    }
    if let Some(job) = &metadata.job {
        refuse_job_options(&metadata.options)?;
        let name = metadata.file_name.ok_or_else(|| {
            invalid_header(&UPLOAD_METADATA, "a file of a job needs a filename: what its name is in that job")
        })?;
        let id = job_id(job)?;
        let job = app.jobs.get(job).await?;
        let format = format(file_options(&metadata.options, None, job.details.options.clone())?)?;
        let file = FileOptions { name, format, length, sha256: digest, metadata: metadata.text };
        return Ok((id, app.jobs.create_file(id, file).await?, false));
    }
    let options = job_options(&metadata.options, None)?;
    let new = NewJob {
        name: metadata.file_name,
        options: options.clone(),
        idempotency_key: idempotency_key(headers)?,
        bytes_expected: length,
        ..NewJob::default()
    };
    let file =
        FileOptions { name: new.name(), format: format(options)?, length, sha256: digest, metadata: metadata.text };
    let (job, is_replayed) = match app.jobs.create_job_of_file(new, file).await? {
        Begun::New(job) => (job, false),
        Begun::Before(job) => (job, true),
    };
    match job.details.files.first() {
        Some(file) => Ok((job.id, file.clone(), is_replayed)),
        None => Err(JobError::IdempotencyKeyReused(job.id).into()),
    }
}

/// `HEAD /v1/tus/{job}/{file}`: where the upload goes on. A writer whose sender may have vanished ends first.
pub(in crate::http) async fn head(app: App, address: Address, uri: Uri) -> Result<Response, Problem> {
    let Path((job, name)) = address?;
    Query::read(&uri, &[])?;
    let id = upload_id(&job)?;
    let job = job_where_it_stands(&app, &id.to_string(), &name).await?;
    let file = usable_file(&job, &name)?;
    let mut response = describe(StatusCode::OK.into_response(), id, file);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if file.length.is_none() {
        headers.insert(UPLOAD_DEFER_LENGTH, HeaderValue::from_static("1"));
    }
    if let Some(metadata) = &file.metadata {
        set_field(headers, UPLOAD_METADATA, metadata);
    }
    set_expiry(headers, &job, file);
    Ok(response)
}

/// `PATCH /v1/tus/{job}/{file}`: goes on with the upload.
pub(in crate::http) async fn patch(app: App, address: Address, request: Request) -> Result<Response, Problem> {
    go_on(&app, address, request).await.map_err(Problem::for_resuming_client)
}

async fn go_on(app: &App, address: Address, request: Request) -> Result<Response, Problem> {
    let Path((job, name)) = address?;
    Query::read(request.uri(), &[])?;
    let id = upload_id(&job)?;
    let headers = request.headers();
    if !has_bytes_type(headers) {
        return Err(Problem::not_a_tus_body());
    }
    let Some(offset) = whole_number(headers, &UPLOAD_OFFSET)? else {
        return Err(invalid_header(&UPLOAD_OFFSET, "expected the position of the body's first byte in the file"));
    };
    let length = whole_number(headers, &UPLOAD_LENGTH)?;
    let checksum = Checksum::read(headers)?;
    let coding = content_coding(headers)?;
    let job = app.jobs.get(&id.to_string()).await?;
    let file = usable_file(&job, &name)?;
    if coding.is_some() && coding != file.format.coding {
        return Err(JobError::OtherFormat { id, name }.into());
    }
    let place = Place { offset, bytes: None, length, end: BodyEnd::LeavesOpen, checksum };
    let appended = append(app, id, file, place, request).await?.file(&name);
    let mut response = describe(StatusCode::NO_CONTENT.into_response(), id, &appended);
    tell_expiry(app, id, &name, &mut response).await;
    Ok(response)
}

/// `DELETE /v1/tus/{job}/{file}`: ends the upload. A job that consists of it goes with it, unless it has succeeded.
pub(in crate::http) async fn delete(app: App, address: Address, uri: Uri) -> Result<Response, Problem> {
    let Path((job, name)) = address?;
    Query::read(&uri, &[])?;
    let id = upload_id(&job)?;
    let job = app.jobs.get(&id.to_string()).await?;
    usable_file(&job, &name)?;
    if job.closes_itself && !job.details.is_form {
        // Cancelled first: one that has just succeeded keeps its results.
        app.jobs.cancel(&id.to_string()).await?;
        app.jobs.delete(&id.to_string()).await?;
    } else {
        app.jobs.delete_file(id, &name).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(JobTag(id));
    Ok(response)
}

/// `POST /v1/tus/{job}/{file}`, which stands for another method.
pub(in crate::http) async fn post(app: App, address: Address, request: Request) -> Result<Response, Problem> {
    match overriding_method(request.headers()) {
        Some(b"HEAD") => head(app, address, request.uri().clone()).await,
        Some(b"PATCH") => patch(app, address, request).await,
        Some(b"DELETE") => delete(app, address, request.uri().clone()).await,
        _ => Err(Problem::method_not_allowed("HEAD, PATCH, DELETE")),
    }
}

fn has_bytes_type(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(BYTES_TYPE))
}

/// Addresses of uploads are made here: what has no id of a job in it is none.
fn upload_id(job: &str) -> Result<JobId, Problem> {
    job.parse().map_err(|_| JobError::NotFound(job.into()).into())
}

/// The file of an upload that can still become complete, or is.
fn usable_file<'a>(job: &'a Arc<Job>, name: &str) -> Result<&'a JobFile, Problem> {
    let file = job.file(name).ok_or_else(|| JobError::FileNotFound { id: job.id, name: name.into() })?;
    if file.state != FileState::Failed {
        return Ok(file);
    }
    let reason = file.error.as_ref().or(job.details.error.as_ref());
    let reason = reason.map_or_else(|| format!("job {} has not succeeded", job.id), |failure| failure.detail.clone());
    Err(Problem::new(Kind::UploadGone, format!("{reason}; create the upload anew")).with_job(job.id))
}

impl Appended {
    /// The file as it is now.
    fn file(self, name: &str) -> JobFile {
        match self {
            Self::File(file) => *file,
            Self::Job(job) => job.file(name).cloned().unwrap_or_default(),
        }
    }
}

/// Says when an upload that waits will expire.
async fn tell_expiry(app: &App, id: JobId, name: &str, response: &mut Response) {
    // What has been done has been done, whether this is known or not.
    if let Ok(job) = app.jobs.get(&id.to_string()).await
        && let Some(file) = job.file(name)
    {
        set_expiry(response.headers_mut(), &job, file);
    }
}

fn set_expiry(headers: &mut HeaderMap, job: &Job, file: &JobFile) {
    let date = |time: Timestamp| DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok();
    if file.state != FileState::Complete
        && let Some(date) = job.expires_at.and_then(date)
    {
        set_field(headers, UPLOAD_EXPIRES, &date);
    }
}
