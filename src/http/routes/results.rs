//! The results of a job: whole, in part, as JSON, or for spreadsheet programs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, RANGE, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use headers::{HeaderMapExt as _, IfNoneMatch, IfRange};

use crate::http::app::App;
use crate::http::media::prefers_json;
use crate::http::problem::{JobTag, Kind, Problem};
use crate::http::query::{Query, invalid_option};
use crate::http::routes::set_field;
use crate::http::row_parts::row_parts;
use crate::http::table;
use crate::http::view::path;
use crate::jobs::{Job, NoPermit, ResultFile, StoreError};

/// The parameter that asks for tables for spreadsheet programs.
const SPREADSHEET: &str = "spreadsheet";

/// The media type of tables.
const CSV: &str = "text/csv; charset=utf-8; header=present";

/// `GET /v1/jobs/{job}/results/{file}`
pub(in crate::http) async fn get(
    app: App,
    address: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    method: Method,
    mut headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((job, file)) = address?;
    let for_spreadsheet = wants_spreadsheet(&uri)?;
    if method == Method::HEAD {
        // Ranges are for GET alone (RFC 9110, 14.2).
        headers.remove(RANGE);
    }
    let (job, result) = app.jobs.result(&job, &file).await?;
    let is_table = result.is_table();
    let as_json = match prefers_json(&headers) {
        Some(as_json) => as_json && is_table,
        None if is_table => {
            return Err(Problem::new(Kind::NotAcceptable, "a table is sent as text/csv or application/json"));
        }
        None => false,
    };
    if for_spreadsheet && (as_json || !is_table) {
        return Err(invalid_option(
            SPREADSHEET,
            &"JSON is no input of spreadsheet programs: it is for tables as text/csv",
        ));
    }
    let form = match (as_json, for_spreadsheet) {
        (true, _) => "-json",
        (_, true) => "-spreadsheet",
        _ => "",
    };
    let etag = format!("\"{}{form}\"", result.etag);
    let mut response = match etag.parse() {
        Ok(tag) if headers.typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(&tag)) => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Ok(tag) if form.is_empty() => contents(&app, &job, &result, &headers, &tag).await?,
        _ => {
            let text = app.jobs.read_result(job.id, &result.name, 0, result.length);
            if for_spreadsheet {
                let body = begun(&app, &job, &result, table::to_spreadsheet(row_parts(text))).await?;
                let mut response = ([(CONTENT_TYPE, CSV)], body).into_response();
                name_download(response.headers_mut(), &result.name);
                response
            } else {
                let body = begun(&app, &job, &result, table::to_json(row_parts(text))).await?;
                ([(CONTENT_TYPE, "application/json")], body).into_response()
            }
        }
    };
    let headers = response.headers_mut();
    set_field(headers, ETAG, &etag);
    let query = if for_spreadsheet { "?spreadsheet=safe" } else { "" };
    set_field(headers, CONTENT_LOCATION, &format!("{}/results/{}{query}", path(job.id), result.name));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response.extensions_mut().insert(JobTag(job.id));
    Ok(response)
}

/// True when a table is wanted whose text spreadsheet programs do not take for formulas.
fn wants_spreadsheet(uri: &Uri) -> Result<bool, Problem> {
    match Query::read(uri, &[SPREADSHEET])?.text(SPREADSHEET) {
        None => Ok(false),
        Some("safe") => Ok(true),
        Some(other) => Err(invalid_option(SPREADSHEET, &format_args!("{other:?}: expected safe"))),
    }
}

fn name_download(headers: &mut HeaderMap, name: &str) {
    set_field(headers, CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}\""));
}

/// The result as it is stored, or the part of it that is asked for.
async fn contents(
    app: &App,
    job: &Arc<Job>,
    result: &ResultFile,
    headers: &HeaderMap,
    etag: &headers::ETag,
) -> Result<Response, Problem> {
    let length = result.length;
    let is_same = match headers.typed_try_get::<IfRange>() {
        Ok(condition) => condition.is_none_or(|condition| !condition.is_modified(Some(etag), None)),
        // A condition that cannot be understood does not hold.
        Err(_) => false,
    };
    let range = headers.get(RANGE).filter(|_| is_same).and_then(|range| range.to_str().ok());
    let (status, start, end) = match range.map_or(Wanted::Everything, |range| wanted(range, length)) {
        Wanted::Everything => (StatusCode::OK, 0, length),
        Wanted::Part { start, end } => (StatusCode::PARTIAL_CONTENT, start, end),
        Wanted::Nothing => return Err(Problem::range_not_satisfiable(length)),
    };
    let body = begun(app, job, result, app.jobs.read_result(job.id, &result.name, start, end)).await?;
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    let content_type = if result.is_table() { CSV } else { "application/json" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    name_download(headers, &result.name);
    if status == StatusCode::PARTIAL_CONTENT {
        set_field(headers, CONTENT_RANGE, &format!("bytes {start}-{}/{length}", end - 1));
    }
    Ok(response)
}

/// The pieces of a result as a body. The first one is read before the head of the answer is sent: damage found there is
/// answered with a problem, damage found later can only break the body off.
async fn begun(
    app: &App,
    job: &Job,
    result: &ResultFile,
    pieces: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static,
) -> Result<Body, Problem> {
    let permit = app.downloads.permit(app.jobs.tenant()).map_err(too_many_downloads)?;
    // It is held until the body has been sent, or its receiver is gone.
    let pieces = pieces.inspect(move |_| {
        let _ = &permit;
    });
    // Compression asks again behind the end, for trailers.
    let mut pieces = Box::pin(pieces.fuse());
    match pieces.try_next().await {
        Ok(first) => Ok(Body::from_stream(stream::iter(first.map(Ok)).chain(pieces))),
        Err(error) => {
            // A result that was removed in the meantime is not damaged.
            app.jobs.result(&job.id.to_string(), &result.name).await?;
            Err(error.into())
        }
    }
}

fn too_many_downloads(refused: NoPermit) -> Problem {
    let (max, whose, limit) = match refused {
        NoPermit::InAll { max } => (max, "", "max_concurrent_downloads"),
        NoPermit::OfTenant { max } => (max, " to this tenant", "max_downloads_per_tenant"),
    };
    let detail = format!("{max} results are being sent{whose}, as many as may; try again in a moment");
    Problem::new(Kind::TooManyDownloads, detail).with_limit(limit, max as u64)
}

/// What a range asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What a `Range` field asks for of so many bytes (RFC 9110, 14.1.2). One that makes no sense is passed over, and more than
/// one range at once may be answered with the whole.
fn wanted(range: &str, length: u64) -> Wanted {
    let range = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'));
    let Some((first, last)) = range else {
        return Wanted::Everything;
    };
    let part = |start: u64, end: u64| if start < end { Wanted::Part { start, end } } else { Wanted::Nothing };
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // One that is too large is more than any result has.
        is_number.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => part(first, last.saturating_add(1).min(length)),
        (Some(first), None) if last.is_empty() => part(first, length),
        (None, Some(suffix)) if first.is_empty() => part(length.saturating_sub(suffix), length),
        _ => Wanted::Everything,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let part = |start, end| Wanted::Part { start, end };
        for (range, asks_for) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-4", part(2, 5)),
            ("bytes=2-", part(2, 10)),
            ("bytes=9-99999999999999999999999", part(9, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-30", part(0, 10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=10-12", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-2", Wanted::Everything),
            ("bytes=-", Wanted::Everything),
            ("bytes=a-b", Wanted::Everything),
            ("bytes=+1-2", Wanted::Everything),
            ("bytes=0-1,3-4", Wanted::Everything),
            ("lines=1-2", Wanted::Everything),
            ("", Wanted::Everything),
        ] {
            assert_eq!(wanted(range, 10), asks_for, "{range}");
        }
    }
}
