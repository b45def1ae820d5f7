//! What answers about files have in common.

use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::problem::{JobTag, Kind, Problem, json_line};
use crate::http::upload_fields::{UPLOAD_COMPLETE, UPLOAD_LENGTH, UPLOAD_OFFSET};
use crate::jobs::{FileState, JobFile, JobId};

/// What writes takes ids, not names: a newer job of the same name must not get the bytes.
pub(super) fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| {
        let detail = format!("{text:?}: files are sent to a job by its id, which the answer to its creation has");
        Problem::new(Kind::InvalidName, detail)
    })
}

pub(super) fn document(view: &impl Serialize) -> Result<Response, Problem> {
    let document = json_line(view).map_err(|error| Problem::internal(&error))?;
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, document).into_response())
}

/// Says in header fields how much of the file is stored for good.
pub(super) fn describe(mut response: Response, job: JobId, file: &JobFile) -> Response {
    let headers = response.headers_mut();
    let is_complete = file.state == FileState::Complete;
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(file.durable_offset));
    if let Some(length) = file.length {
        headers.insert(UPLOAD_LENGTH, HeaderValue::from(length));
    }
    headers.insert(UPLOAD_COMPLETE, HeaderValue::from_static(if is_complete { "?1" } else { "?0" }));
    response.extensions_mut().insert(JobTag(job));
    response
}
