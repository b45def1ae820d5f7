//! The files of an open job: sent, listed, shown, deleted.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::http::header::LOCATION;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use crc_fast::{CrcAlgorithm, Digest};
use futures_util::StreamExt as _;
use serde::Serialize;

use crate::http::app::App;
use crate::http::body::{BodyLimits, UploadBody, too_large};
use crate::http::conditions::{Precondition, must_create};
use crate::http::digests::{Digests, digest_failure};
use crate::http::fields::{FileRange, length_of_whole};
use crate::http::media::{content_coding, file_media};
use crate::http::name::check_name;
use crate::http::problem::{JobTag, Kind, Problem};
use crate::http::query::{FILE_OPTIONS, Query, file_options};
use crate::http::routes::appends::{Appended, append, check_format};
use crate::http::routes::file_answers::{describe, document, job_id};
use crate::http::routes::set_field;
use crate::http::view::{FileView, file_path};
use crate::jobs::{FileFormat, FileOpened, FileOptions, FileState, FileUpload, Job, JobError, JobFile, JobId};

type Address = Result<Path<(String, String)>, PathRejection>;

#[derive(Serialize)]
struct FileList<'a> {
    files: Vec<FileView<'a>>,
}

/// `PUT /v1/jobs/{job}/files/{file}`
pub(in crate::http) async fn put(app: App, address: Address, request: Request) -> Result<Response, Problem> {
    let Path((job, name)) = address?;
    let id = job_id(&job)?;
    check_name(&name).map_err(|reason| Problem::new(Kind::InvalidName, reason))?;
    let uri = request.uri().clone();
    let query = Query::read(&uri, &FILE_OPTIONS)?;
    let headers = request.headers();
    let content_type = file_media(headers)?;
    let coding = content_coding(headers)?;
    let job = app.jobs.get(&job).await?;
    let known = job.file(&name);
    Precondition::read(headers)?.check_existence(known.is_some()).map_err(|problem| problem.with_job(id))?;
    let must_create = must_create(headers)?;
    if must_create && known.is_some() {
        return Err(file_exists(id, &name));
    }
    if let Some(range) = FileRange::read(headers)?.filter(|range| !range.is_whole()) {
        let file = known.ok_or_else(|| JobError::FileNotFound { id, name: name.clone() })?;
        check_format(id, file, &query, content_type.as_ref(), coding)?;
        return append(&app, id, file, range.into(), request).await?.response(&app, id);
    }
    let digests = Digests::read(headers)?;
    let length = length_of_whole(headers)?;
    let max_upload_bytes = app.config.max_upload_bytes;
    if length.is_some_and(|length| length > max_upload_bytes) {
        return Err(too_large(max_upload_bytes).into());
    }
    let format = match known {
        // Its options are fixed, and need not be given again. One that is being received may be waiting in a moment.
        Some(file) if matches!(file.state, FileState::Waiting | FileState::Receiving) => {
            check_format(id, file, &query, content_type.as_ref(), coding)?;
            FileFormat { with_digest: digests.are_wanted(), ..file.format.clone() }
        }
        _ => {
            let options = file_options(&query, content_type.as_ref(), job.details.options.clone())?;
            FileFormat { options, coding, with_digest: digests.are_wanted() }
        }
    };
    let options = format.options.clone();
    let file = FileOptions { name: name.clone(), format, length, sha256: digests.expected(), metadata: None };
    match app.jobs.open_file(id, file).await? {
        FileOpened::Upload(upload) => {
            let limits = BodyLimits { bytes_to_come: length, ..app.body_limits() };
            let body = UploadBody::new(request, limits, upload.stopped());
            let appended = app.jobs.outlive(receive(*upload, body, digests)).await?;
            let mut response = appended.response(&app, id)?;
            if matches!(appended, Appended::File(_)) {
                *response.status_mut() = StatusCode::CREATED;
                set_field(response.headers_mut(), LOCATION, &file_path(id, &name));
            }
            Ok(response)
        }
        // Another request has just sent it.
        FileOpened::Complete(_) if must_create => Err(file_exists(id, &name)),
        FileOpened::Complete(file) if file.format.options != options => Err(JobError::OtherFormat { id, name }.into()),
        FileOpened::Complete(file) => {
            let body = UploadBody::of_document(request, app.body_limits());
            if is_same(&file, length, body).await {
                Ok(describe(document(&FileView::new(&file, id))?, id, &file))
            } else {
                Err(JobError::FileComplete { id, name }.into())
            }
        }
    }
}

fn file_exists(id: JobId, name: &str) -> Problem {
    Problem::new(Kind::PreconditionFailed, format!("if-none-match: the job has a file {name:?} already")).with_job(id)
}

async fn receive(mut upload: FileUpload, mut body: UploadBody, digests: Digests) -> Result<Appended, JobError> {
    let received = async {
        let digest = upload.read_whole(&mut body).await?;
        digests.check(body.trailers(), digest).map_err(digest_failure)
    };
    match received.await {
        Ok(()) => Appended::end(upload).await,
        Err(failure) => Err(upload.fail(failure).await),
    }
}

/// True when a body has the length and the CRC of a complete file. One of another length is not read.
async fn is_same(file: &JobFile, length: Option<u64>, mut body: UploadBody) -> bool {
    if length.is_some_and(|length| Some(length) != file.length) {
        return false;
    }
    let mut crc64 = Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut bytes = 0;
    while let Some(piece) = body.next().await {
        // It broke off, is too large, or its sender is too slow.
        let Ok(piece) = piece else { return false };
        bytes += piece.len() as u64;
        crc64.update(&piece);
    }
    Some(bytes) == file.length && file.crc64nvme == Some(format!("{:016x}", crc64.finalize()))
}

/// `GET /v1/jobs/{job}/files`
pub(in crate::http) async fn list(
    app: App,
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

/// `GET` and `HEAD /v1/jobs/{job}/files/{file}`. `HEAD` asks where the file goes on: a writer whose sender may have vanished ends first.
pub(in crate::http) async fn get(app: App, method: Method, address: Address, uri: Uri) -> Result<Response, Problem> {
    let Path((job, name)) = address?;
    Query::read(&uri, &[])?;
    let is_head = method == Method::HEAD;
    let job = if is_head { job_where_it_stands(&app, &job, &name).await? } else { app.jobs.get(&job).await? };
    let file = find(&job, name)?;
    Ok(describe(document(&FileView::new(file, job.id))?, job.id, file))
}

/// A job, to tell where one of its files goes on: a writer whose sender may have vanished ends first.
pub(super) async fn job_where_it_stands(app: &App, job: &str, name: &str) -> Result<Arc<Job>, Problem> {
    let found = async {
        let job = app.jobs.get(job).await?;
        app.jobs.interrupt_if_silent(job.id, name).await;
        app.jobs.get(&job.id.to_string()).await
    };
    found.await.map_err(|error| Problem::from(error).for_resuming_client())
}

fn find(job: &Job, name: String) -> Result<&JobFile, Problem> {
    Ok(job.file(&name).ok_or(JobError::FileNotFound { id: job.id, name })?)
}

/// `DELETE /v1/jobs/{job}/files/{file}`
pub(in crate::http) async fn delete(app: App, address: Address, uri: Uri) -> Result<Response, Problem> {
    let Path((job, name)) = address?;
    Query::read(&uri, &[])?;
    let id = job_id(&job)?;
    app.jobs.delete_file(id, &name).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(JobTag(id));
    Ok(response)
}
