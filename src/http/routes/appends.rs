//! Going on with a file: `PUT` with `Content-Range` (RFC 9110, 14.4 and 14.5), which `curl -C OFFSET -T` sends, and `PATCH` with
//! `Upload-Offset` (Resumable Uploads for HTTP, an IETF draft).

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mime::Mime;
use sfv::{BareItem, Item, Parser};

use super::file_answers::{describe, document, job_id};
use crate::http::app::App;
use crate::http::body::{BodyLimits, UploadBody, too_large};
use crate::http::checks::{CheckedBody, Checksum};
use crate::http::digests::PartDigests;
use crate::http::fields::{FileRange, content_length, invalid_header, whole_number};
use crate::http::media::{content_coding, file_media};
use crate::http::problem::{JobTag, Problem, json_line};
use crate::http::query::{Query, file_options};
use crate::http::upload_fields::{UPLOAD_COMPLETE, UPLOAD_DRAFT_INTEROP_VERSION, UPLOAD_LENGTH, UPLOAD_OFFSET};
use crate::http::view::{FileView, JobView};
use crate::ingest::Coding;
use crate::jobs::{BodyEnd, FailureKind, FileOpened, FileState, FileUpload, Job, JobError, JobFile, JobId};

/// Where a body belongs in its file.
pub(super) struct Place {
    pub(super) offset: u64,
    /// How many bytes it has, as far as it was said.
    pub(super) bytes: Option<u64>,
    /// How many bytes the file has, as far as it was said.
    pub(super) length: Option<u64>,
    pub(super) end: BodyEnd,
    /// Its checksum, with which it counts as a whole or not at all.
    pub(super) checksum: Option<Checksum>,
}

/// What a body has led to.
pub(super) enum Appended {
    /// The file waits for more, or is complete.
    File(Box<JobFile>),
    /// It was the last of its job.
    Job(Arc<Job>),
}

impl From<FileRange> for Place {
    fn from(FileRange { first, bytes, length }: FileRange) -> Self {
        // Without a length, nothing says that the file ends here.
        Self { offset: first, bytes: Some(bytes), length, end: BodyEnd::LeavesOpen, checksum: None }
    }
}

/// `PATCH /v1/jobs/{job}/files/{file}`
pub(in crate::http) async fn patch(
    app: App,
    address: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path((job, name)) = address?;
    let id = job_id(&job)?;
    let uri = request.uri().clone();
    let query = Query::read(&uri, &[])?;
    let headers = request.headers();
    let Some(offset) = whole_number(headers, &UPLOAD_OFFSET)? else {
        return Err(invalid_header(&UPLOAD_OFFSET, "expected the position of the body's first byte in the file"));
    };
    let length = whole_number(headers, &UPLOAD_LENGTH)?;
    let end = match headers.get(UPLOAD_COMPLETE).map(HeaderValue::as_bytes) {
        None | Some(b"?1") => BodyEnd::EndsFile,
        Some(b"?0") => BodyEnd::LeavesOpen,
        Some(_) => return Err(invalid_header(&UPLOAD_COMPLETE, "expected ?0 or ?1")),
    };
    let content_type = file_media(headers)?;
    let coding = content_coding(headers)?;
    let job = app.jobs.get(&job).await?;
    let file = job.file(&name).ok_or(JobError::FileNotFound { id, name })?;
    check_format(id, file, &query, content_type.as_ref(), coding)?;
    let place = Place { offset, bytes: None, length, end, checksum: None };
    append(&app, id, file, place, request).await?.response(&app, id)
}

/// The version of the draft that is spoken here.
const INTEROP_VERSION: u16 = 9;

/// Says that this version of the draft is spoken, when a client asks.
pub(in crate::http) async fn answer_interop_version(request: Request, next: Next) -> Response {
    let asked = request.headers().get(UPLOAD_DRAFT_INTEROP_VERSION).map(HeaderValue::as_bytes);
    let asked: Option<Item> = asked.and_then(|value| Parser::new(value).parse().ok());
    let is_spoken = asked.is_some_and(|item| item.bare_item == BareItem::Integer(INTEROP_VERSION.into()));
    let mut response = next.run(request).await;
    if is_spoken {
        response.headers_mut().insert(UPLOAD_DRAFT_INTEROP_VERSION, HeaderValue::from(INTEROP_VERSION));
    }
    response
}

/// Refuses to read a file otherwise than it was begun.
pub(super) fn check_format(
    id: JobId,
    file: &JobFile,
    query: &Query<'_>,
    content_type: Option<&Mime>,
    coding: Option<Coding>,
) -> Result<(), Problem> {
    let options = file_options(query, content_type, file.format.options.clone())?;
    if options == file.format.options && coding.is_none_or(|coding| file.format.coding == Some(coding)) {
        return Ok(());
    }
    Err(JobError::OtherFormat { id, name: file.name.clone() }.into())
}

/// Goes on with a file.
pub(super) async fn append(
    app: &App,
    id: JobId,
    file: &JobFile,
    place: Place,
    request: Request,
) -> Result<Appended, Problem> {
    let headers = request.headers();
    let digests = PartDigests::read(headers)?;
    let file_digest = digests.verifiable(file)?;
    let Place { offset, bytes, length, end, checksum } = place;
    let max_upload_bytes = app.config.max_upload_bytes;
    let body_bytes = content_length(headers).unwrap_or(0);
    if length.is_some_and(|length| length > max_upload_bytes) || offset.saturating_add(body_bytes) > max_upload_bytes {
        return Err(too_large(max_upload_bytes).into());
    }
    if file.state == FileState::Waiting && offset != file.durable_offset {
        return Err(JobError::OtherOffset { id, name: file.name.clone(), offset: file.durable_offset }.into());
    }
    if let Some(all) = file.length.or(length)
        && offset.saturating_add(body_bytes) > all
    {
        let detail = format!("{body_bytes} bytes at {offset} are more than the file has: it has {all}");
        return Err(FailureKind::LengthMismatch.because(detail).into());
    }
    if let (Some(known), Some(length)) = (file.length, length)
        && known != length
    {
        return Err(JobError::OtherLength { id, name: file.name.clone(), known }.into());
    }
    if file.state == FileState::Complete {
        // Its job may have ended.
        return append_to_complete(id, file, offset, body_bytes);
    }
    match app.jobs.resume_file(id, &file.name, offset, length).await? {
        FileOpened::Complete(file) => append_to_complete(id, &file, offset, body_bytes),
        FileOpened::Upload(mut upload) => {
            if let Some(digest) = file_digest {
                upload.expect_sha256(digest);
            }
            let bytes_to_come = [upload.bytes_to_come(), bytes].into_iter().flatten().min();
            let max_upload_bytes = max_upload_bytes - offset;
            let limits = BodyLimits { max_upload_bytes, bytes_to_come, ..app.body_limits() };
            let body = UploadBody::new(request, limits, upload.stopped());
            let body = CheckedBody::new(body, digests, checksum.as_ref());
            Ok(app.jobs.outlive(receive(*upload, body, end)).await?)
        }
    }
}

/// Nothing can be appended but nothing, as after an answer that was lost.
fn append_to_complete(id: JobId, file: &JobFile, offset: u64, body_bytes: u64) -> Result<Appended, Problem> {
    let name = file.name.clone();
    if offset != file.offset {
        return Err(JobError::OtherOffset { id, name, offset: file.offset }.into());
    }
    if body_bytes > 0 {
        return Err(JobError::FileComplete { id, name }.into());
    }
    Ok(Appended::File(Box::new(file.clone())))
}

impl Appended {
    /// What a file that has been read to its end leads to.
    pub(super) async fn end(upload: FileUpload) -> Result<Self, JobError> {
        if upload.finishes_job() {
            return Ok(Self::Job(upload.finish().await?));
        }
        Ok(Self::File(Box::new(upload.complete().await?)))
    }

    pub(super) fn response(&self, app: &App, id: JobId) -> Result<Response, Problem> {
        match self {
            Self::File(file) => file_response(id, file),
            Self::Job(job) => job_response(app, job),
        }
    }
}

async fn receive(mut upload: FileUpload, mut body: CheckedBody, end: BodyEnd) -> Result<Appended, JobError> {
    if body.has_checks() {
        upload.take_only_whole_body();
    }
    match upload.read(&mut body, end).await {
        Ok(true) => Appended::end(upload).await,
        Ok(false) => Ok(Appended::File(Box::new(upload.pause().await?))),
        Err(failure) if failure.kind.is_about_contents() => {
            // Bytes that were damaged on their way tell nothing about the file.
            let failure = body.verify_rest().await.err().unwrap_or(failure);
            Err(upload.fail(failure).await)
        }
        Err(failure) => Err(upload.fail(failure).await),
    }
}

fn file_response(id: JobId, file: &JobFile) -> Result<Response, Problem> {
    Ok(describe(document(&FileView::new(file, id))?, id, file))
}

fn job_response(app: &App, job: &Job) -> Result<Response, Problem> {
    let document = json_line(&JobView::new(job, &app.caller)).map_err(|error| Problem::internal(&error))?;
    let mut response = ([(CONTENT_TYPE, "application/json")], document).into_response();
    response.extensions_mut().insert(JobTag(job.id));
    Ok(response)
}
