//! The files of an open job: sent, listed, shown, deleted.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use crc_fast::{CrcAlgorithm, Digest};
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::time::timeout;

use crate::http::app::App;
use crate::http::body::{BodyLimits, UploadBody, too_large};
use crate::http::digests::Digests;
use crate::http::fields::{content_length, refuse_part_of_file};
use crate::http::media::{Media, content_coding, media};
use crate::http::name::check_name;
use crate::http::problem::{JobTag, Kind, Problem, json_line};
use crate::http::query::{FILE_OPTIONS, Query, file_options};
use crate::http::routes::set_field;
use crate::http::routes::uploads::digest_failure;
use crate::http::view::{FileView, file_path};
use crate::jobs::{FileOpened, FileOptions, FileUpload, Job, JobError, JobFile, JobId};

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");

type Address = Result<Path<(String, String)>, PathRejection>;

#[derive(Serialize)]
struct FileList<'a> {
    files: Vec<FileView<'a>>,
}

/// What writes takes ids, not names: a newer job of the same name must not get the bytes.
fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| {
        let detail = format!("{text:?}: files are sent to a job by its id, which the answer to its creation has");
        Problem::new(Kind::InvalidName, detail)
    })
}

/// `PUT /v1/jobs/{job}/files/{file}`
pub(in crate::http) async fn put(
    State(app): State<App>,
    address: Address,
    request: Request,
) -> Result<Response, Problem> {
    let Path((job, name)) = address?;
    let id = job_id(&job)?;
    check_name(&name).map_err(|reason| Problem::new(Kind::InvalidName, reason))?;
    let query = Query::read(request.uri(), &FILE_OPTIONS)?;
    let content_type = match media(request.headers())? {
        Media::File(content_type) => content_type,
        Media::Form => return Err(Problem::unsupported_media_type("multipart/form-data (here)")),
        Media::Json => return Err(Problem::unsupported_media_type("application/json (here)")),
    };
    let headers = request.headers();
    refuse_part_of_file(headers)?;
    let digests = Digests::read(headers)?;
    let coding = content_coding(headers)?;
    let length = content_length(headers);
    let max_upload_bytes = app.config.max_upload_bytes;
    if length.is_some_and(|length| length > max_upload_bytes) {
        return Err(too_large(max_upload_bytes).into());
    }
    let options = file_options(&query, content_type.as_ref(), app.jobs.get(&job).await?.details.options)?;
    let with_digest = digests.are_wanted();
    let file = FileOptions { name: name.clone(), options, coding, length, with_digest };
    match app.jobs.open_file(id, file).await? {
        FileOpened::Upload(upload) => {
            let limits = app.body_limits();
            let body = UploadBody::new(request, limits, upload.stopped());
            let file = app.jobs.outlive(receive(*upload, body, digests)).await?;
            let mut response = document(&FileView::new(&file, id))?;
            *response.status_mut() = StatusCode::CREATED;
            set_field(response.headers_mut(), LOCATION, &file_path(id, &name));
            Ok(describe(response, id, &file))
        }
        FileOpened::Complete(file) => {
            let body = request.into_body();
            if is_same(&file, length, body, app.body_limits()).await {
                Ok(describe(document(&FileView::new(&file, id))?, id, &file))
            } else {
                Err(JobError::FileComplete { id, name }.into())
            }
        }
    }
}

async fn receive(mut upload: FileUpload, mut body: UploadBody, digests: Digests) -> Result<JobFile, JobError> {
    let received = async {
        let digest = upload.read(&mut body).await?;
        digests.check(body.trailers(), digest).map_err(digest_failure)
    };
    match received.await {
        Ok(()) => upload.complete().await,
        Err(failure) => Err(upload.fail(failure).await),
    }
}

/// True when a body has the length and the CRC of a complete file. One of another length is not read.
async fn is_same(file: &JobFile, length: Option<u64>, body: Body, limits: BodyLimits) -> bool {
    if length.is_some_and(|length| Some(length) != file.length) {
        return false;
    }
    let mut crc64 = Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut bytes = 0;
    let mut pieces = body.into_data_stream();
    loop {
        let piece = match timeout(limits.idle_timeout, pieces.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(None) => break,
            // It broke off, or its sender fell silent.
            Ok(Some(Err(_))) | Err(_) => return false,
        };
        bytes += piece.len() as u64;
        if bytes > limits.max_upload_bytes {
            return false;
        }
        crc64.update(&piece);
    }
    Some(bytes) == file.length && file.crc64nvme == Some(format!("{:016x}", crc64.finalize()))
}

/// `GET /v1/jobs/{job}/files`
pub(in crate::http) async fn list(
    State(app): State<App>,
    job: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    let Path(job) = job?;
    Query::read(&uri, &[])?;
    let job = app.jobs.get(&job).await?;
    let files = job.details.files.iter().map(|file| FileView::new(file, job.id)).collect();
    let mut response = document(&FileList { files })?;
    response.extensions_mut().insert(JobTag(job.id));
    Ok(response)
}

/// `GET` and `HEAD /v1/jobs/{job}/files/{file}`
pub(in crate::http) async fn get(State(app): State<App>, address: Address, uri: Uri) -> Result<Response, Problem> {
    let Path((job, name)) = address?;
    Query::read(&uri, &[])?;
    let job = app.jobs.get(&job).await?;
    let file = find(&job, name)?;
    Ok(describe(document(&FileView::new(file, job.id))?, job.id, file))
}

fn find(job: &Job, name: String) -> Result<&JobFile, Problem> {
    Ok(job.file(&name).ok_or(JobError::FileNotFound { id: job.id, name })?)
}

/// `DELETE /v1/jobs/{job}/files/{file}`
pub(in crate::http) async fn delete(State(app): State<App>, address: Address, uri: Uri) -> Result<Response, Problem> {
    let Path((job, name)) = address?;
    Query::read(&uri, &[])?;
    let id = job_id(&job)?;
    app.jobs.delete_file(id, &name).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(JobTag(id));
    Ok(response)
}

fn document(view: &impl Serialize) -> Result<Response, Problem> {
    let document = json_line(view).map_err(|error| Problem::internal(&error))?;
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, document).into_response())
}

/// Says in header fields how much of the file is durable: all of a complete one, nothing of others.
fn describe(mut response: Response, job: JobId, file: &JobFile) -> Response {
    let headers = response.headers_mut();
    let is_complete = file.state == crate::jobs::FileState::Complete;
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(if is_complete { file.offset } else { 0 }));
    if let Some(length) = file.length {
        headers.insert(UPLOAD_LENGTH, HeaderValue::from(length));
    }
    headers.insert(UPLOAD_COMPLETE, HeaderValue::from_static(if is_complete { "?1" } else { "?0" }));
    response.extensions_mut().insert(JobTag(job));
    response
}
