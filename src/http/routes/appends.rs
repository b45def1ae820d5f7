//! Going on with a file: `PUT` with `Content-Range` (RFC 9110, 14.4 and 14.5), which `curl -C OFFSET -T` sends, and `PATCH` with
//! `Upload-Offset` (Resumable Uploads for HTTP, an IETF draft).

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use mime::Mime;

use super::file_answers::{describe, document, job_id};
use crate::http::app::App;
use crate::http::body::{BodyLimits, UploadBody, too_large};
use crate::http::digests::Digests;
use crate::http::fields::{FileRange, content_length, invalid_header};
use crate::http::media::{content_coding, file_media};
use crate::http::problem::{JobTag, Problem, json_line};
use crate::http::query::{Query, file_options};
use crate::http::upload_fields::{UPLOAD_COMPLETE, UPLOAD_LENGTH, UPLOAD_OFFSET};
use crate::http::view::{FileView, JobView};
use crate::ingest::Coding;
use crate::jobs::{BodyEnd, FailureKind, FileOpened, FileState, FileUpload, Job, JobError, JobFile, JobId};

/// Where a body belongs in its file.
pub(super) struct Place {
    offset: u64,
    /// How many bytes it has, as far as it was said.
    bytes: Option<u64>,
    length: Option<u64>,
    end: BodyEnd,
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
        Self { offset: first, bytes: Some(bytes), length, end: BodyEnd::LeavesOpen }
    }
}

/// `PATCH /v1/jobs/{job}/files/{file}`
pub(in crate::http) async fn patch(
    State(app): State<App>,
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
    append(&app, id, file, Place { offset, bytes: None, length, end }, request).await
}

/// Refuses to read a file otherwise than it was begun.
pub(super) fn check_format(
    id: JobId,
    file: &JobFile,
    query: &Query<'_>,
    content_type: Option<&Mime>,
    coding: Option<Coding>,
) -> Result<(), Problem> {
    let options = file_options(query, content_type, file.format.options)?;
    if options == file.format.options && coding.is_none_or(|coding| file.format.coding == Some(coding)) {
        return Ok(());
    }
    Err(JobError::OtherFormat { id, name: file.name.clone() }.into())
}

fn whole_number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let number = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.and_then(|text| text.parse().ok()).filter(|number| i64::try_from(*number).is_ok());
    number.map(Some).ok_or_else(|| invalid_header(name, "expected a number of bytes"))
}

/// Goes on with a file.
pub(super) async fn append(
    app: &App,
    id: JobId,
    file: &JobFile,
    place: Place,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers();
    if Digests::read(headers)?.are_wanted() {
        let detail = "a digest of a part of a file is not verified: give the file's when you begin it";
        return Err(invalid_header(&HeaderName::from_static("content-digest"), detail));
    }
    let Place { offset, bytes, length, end } = place;
    let max_upload_bytes = app.config.max_upload_bytes;
    let body_bytes = content_length(headers).unwrap_or(0);
    if length.is_some_and(|length| length > max_upload_bytes) || offset.saturating_add(body_bytes) > max_upload_bytes {
        return Err(too_large(max_upload_bytes).into());
    }
    if let Some(all) = file.length.or(length)
        && offset.saturating_add(body_bytes) > all
    {
        let detail = format!("{body_bytes} bytes at {offset} are more than the file has: it has {all}");
        return Err(FailureKind::LengthMismatch.because(detail).into());
    }
    if file.state == FileState::Complete && offset != file.offset {
        return Err(JobError::OtherOffset { id, name: file.name.clone(), offset: file.offset }.into());
    }
    match app.jobs.resume_file(id, &file.name, offset, length).await? {
        FileOpened::Complete(file) if body_bytes == 0 => file_response(id, &file),
        FileOpened::Complete(file) => Err(JobError::FileComplete { id, name: file.name }.into()),
        FileOpened::Upload(upload) => {
            let bytes_to_come = [upload.bytes_to_come(), bytes].into_iter().flatten().min();
            let max_upload_bytes = max_upload_bytes - offset;
            let limits = BodyLimits { max_upload_bytes, bytes_to_come, ..app.body_limits() };
            let body = UploadBody::new(request, limits, upload.stopped());
            app.jobs.outlive(receive(*upload, body, end)).await?.response(id)
        }
    }
}

impl Appended {
    /// What a file that has been read to its end leads to.
    pub(super) async fn end(upload: FileUpload) -> Result<Self, JobError> {
        if upload.finishes_job() {
            return Ok(Self::Job(upload.finish().await?));
        }
        Ok(Self::File(Box::new(upload.complete().await?)))
    }

    pub(super) fn response(&self, id: JobId) -> Result<Response, Problem> {
        match self {
            Self::File(file) => file_response(id, file),
            Self::Job(job) => job_response(job),
        }
    }
}

async fn receive(mut upload: FileUpload, mut body: UploadBody, end: BodyEnd) -> Result<Appended, JobError> {
    match upload.read(&mut body, end).await {
        Ok(true) => Appended::end(upload).await,
        Ok(false) => Ok(Appended::File(Box::new(upload.pause().await?))),
        Err(failure) => Err(upload.fail(failure).await),
    }
}

fn file_response(id: JobId, file: &JobFile) -> Result<Response, Problem> {
    Ok(describe(document(&FileView::new(file, id))?, id, file))
}

fn job_response(job: &Job) -> Result<Response, Problem> {
    let document = json_line(&JobView::new(job)).map_err(|error| Problem::internal(&error))?;
    let mut response = ([(CONTENT_TYPE, "application/json")], document).into_response();
    response.extensions_mut().insert(JobTag(job.id));
    Ok(response)
}
