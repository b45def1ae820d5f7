//! The results of a job: whole, in part, or as JSON.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use headers::{HeaderMapExt as _, IfNoneMatch, IfRange, Range};

use crate::http::App;
use crate::http::log::JobTag;
use crate::http::options::{Query, prefers_json};
use crate::http::problem::{Kind, Problem};
use crate::http::routes::set_field;
use crate::http::table;
use crate::http::view::path;
use crate::jobs::{Job, ResultFile};

/// `GET /v1/jobs/{job}/results/{file}`
pub(in crate::http) async fn get(
    State(app): State<App>,
    address: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((job, file)) = address?;
    Query::read(&uri, &[])?;
    let (job, result) = app.jobs.result(&job, &file).await?;
    let is_table = result.is_table();
    let as_json = match prefers_json(&headers) {
        Some(as_json) => as_json && is_table,
        None if is_table => {
            return Err(Problem::new(Kind::NotAcceptable, "tables are to be had as text/csv or application/json"));
        }
        None => false,
    };
    let etag = if as_json { format!("\"{}-json\"", result.etag) } else { format!("\"{}\"", result.etag) };
    let mut response = match etag.parse() {
        Ok(tag) if headers.typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(&tag)) => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Ok(tag) if !as_json => contents(&app, &job, &result, &headers, &tag)?,
        _ => {
            let text = app.jobs.read_result(job.id, &result.name, 0, result.length);
            let body = Body::from_stream(table::to_json(text));
            ([(CONTENT_TYPE, "application/json")], body).into_response()
        }
    };
    let headers = response.headers_mut();
    set_field(headers, ETAG, &etag);
    set_field(headers, CONTENT_LOCATION, &format!("{}/results/{}", path(job.id), result.name));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.extensions_mut().insert(JobTag(job.id));
    Ok(response)
}

/// The result as it is stored, or the part of it that is asked for.
fn contents(
    app: &App,
    job: &Arc<Job>,
    result: &ResultFile,
    headers: &HeaderMap,
    etag: &headers::ETag,
) -> Result<Response, Problem> {
    let length = result.length;
    let is_same = headers.typed_get::<IfRange>().is_none_or(|condition| !condition.is_modified(Some(etag), None));
    let range = headers.typed_get::<Range>().filter(|_| is_same);
    let (status, start, end) = match range.map_or(Wanted::Everything, |range| wanted(&range, length)) {
        Wanted::Everything => (StatusCode::OK, 0, length),
        Wanted::Part { start, end } => (StatusCode::PARTIAL_CONTENT, start, end),
        Wanted::Nothing => return Err(Problem::range_not_satisfiable(length)),
    };
    let body = Body::from_stream(app.jobs.read_result(job.id, &result.name, start, end));
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    let content_type = if result.is_table() { "text/csv; charset=utf-8; header=present" } else { "application/json" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set_field(headers, CONTENT_DISPOSITION, &format!("attachment; filename=\"{}\"", result.name));
    if status == StatusCode::PARTIAL_CONTENT {
        set_field(headers, CONTENT_RANGE, &format!("bytes {start}-{}/{length}", end - 1));
    }
    Ok(response)
}

/// What a range asks for.
enum Wanted {
    Everything,
    /// Bytes from `start` up to `end`.
    Part {
        start: u64,
        end: u64,
    },
    /// What lies beyond the end.
    Nothing,
}

/// More than one range at once may be answered with the whole (RFC 9110, 14.2).
fn wanted(range: &Range, length: u64) -> Wanted {
    use std::ops::Bound;

    let mut ranges = range.satisfiable_ranges(length);
    let Some((start, end)) = ranges.next() else {
        return Wanted::Nothing;
    };
    if ranges.next().is_some() {
        return Wanted::Everything;
    }
    let start = match start {
        Bound::Included(start) => start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match end {
        Bound::Included(last) => last.saturating_add(1).min(length),
        Bound::Excluded(end) => end.min(length),
        Bound::Unbounded => length,
    };
    if start < end { Wanted::Part { start, end } } else { Wanted::Nothing }
}
