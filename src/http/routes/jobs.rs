//! Jobs: one, many, cancelled, removed.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, CONTENT_LOCATION, CONTENT_TYPE, ETAG, LINK, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use headers::{HeaderMapExt as _, IfNoneMatch};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::http::address::Address;
use crate::http::app::App;
use crate::http::caller::{Caller, token_revoked};
use crate::http::conditions::Precondition;
use crate::http::fields::preferred_wait_seconds;
use crate::http::problem::{JobTag, Kind, Problem, json_line};
use crate::http::query::{Query, invalid_option};
use crate::http::routes::set_field;
use crate::http::view::{JobList, JobView, path};
use crate::jobs::{Job, JobFilter, JobPage, fingerprint};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The longest that a request for a job waits for a change.
const MAX_WAIT_SECONDS: u64 = 60;

/// Jobs in a list, unless asked otherwise, and at most.
const LIST_LIMIT: usize = 50;
const MAX_LIST_LIMIT: usize = 100;

/// `GET /v1/jobs/{job}`
pub(in crate::http) async fn get(
    app: App,
    Address(job): Address<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = app.jobs.get(&job).await?;
    let if_none_match = headers.typed_get::<IfNoneMatch>();
    let Some(seconds) = preferred_wait_seconds(&headers) else {
        return respond(&app, &job, if_none_match.as_ref());
    };
    let seconds = seconds.min(MAX_WAIT_SECONDS);
    let job = wait_for_change(&app, job, if_none_match.as_ref(), Duration::from_secs(seconds)).await?;
    let mut response = respond(&app, &job, if_none_match.as_ref())?;
    if let Ok(applied) = HeaderValue::from_str(&format!("wait={seconds}")) {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// The job once it is another than the client knows: than it is now, or than the one it names.
async fn wait_for_change(
    app: &App,
    job: Arc<Job>,
    known: Option<&IfNoneMatch>,
    at_most: Duration,
) -> Result<Arc<Job>, Problem> {
    let Some(mut subscription) = app.jobs.subscribe(job.id).await? else {
        return Ok(app.jobs.get(&job.id.to_string()).await?);
    };
    let is_news = |latest: &Arc<Job>| match known {
        None => **latest != *job,
        Some(known) => document(&app.caller, latest)
            .is_ok_and(|(_, etag)| etag.parse().is_ok_and(|etag| known.precondition_passes(&etag))),
    };
    let mut latest = subscription.latest();
    let news = async {
        while !is_news(&latest) {
            match subscription.changed().await {
                Some(changed) => latest = changed,
                None => break,
            }
        }
        latest
    };
    let waited = tokio::select! {
        biased;
        () = app.caller.revoked() => return Err(token_revoked().into()),
        waited = timeout(at_most, news) => waited,
    };
    match waited {
        Ok(latest) => Ok(latest),
        Err(_) => Ok(app.jobs.get(&job.id.to_string()).await?),
    }
}

/// A job as JSON, and its entity tag: weak, as compression may change the bytes.
fn document(caller: &Caller, job: &Job) -> Result<(Vec<u8>, String), Problem> {
    let body = json_line(&JobView::new(job, caller)).map_err(|error| Problem::internal(&error))?;
    let etag = format!("W/\"{}\"", fingerprint(Sha256::digest(&body).into()));
    Ok((body, etag))
}

fn respond(app: &App, job: &Job, if_none_match: Option<&IfNoneMatch>) -> Result<Response, Problem> {
    let (body, etag) = document(&app.caller, job)?;
    let is_known = match (if_none_match, etag.parse()) {
        (Some(known), Ok(etag)) => !known.precondition_passes(&etag),
        _ => false,
    };
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, "application/json")], body).into_response()
    };
    let headers = response.headers_mut();
    set_field(headers, ETAG, &etag);
    set_field(headers, CONTENT_LOCATION, &path(job.id));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if !job.state.is_final() {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response.extensions_mut().insert(JobTag(job.id));
    Ok(response)
}

/// `GET /v1/jobs`
pub(in crate::http) async fn list(app: App, uri: Uri) -> Result<Response, Problem> {
    let query = Query::read(&uri, &["state", "name", "search", "limit", "cursor"])?;
    let limit = match query.text("limit") {
        None => LIST_LIMIT,
        Some(text) => {
            let limit = text.parse().ok().filter(|limit| (1..=MAX_LIST_LIMIT).contains(limit));
            let reason = format_args!("{text:?}: expected a number from 1 to {MAX_LIST_LIMIT}").to_string();
            limit.ok_or_else(|| invalid_option("limit", &reason))?
        }
    };
    let cursor = query.text("cursor").map(str::parse).transpose();
    let before = cursor.map_err(|_| {
        Problem::new(Kind::InvalidCursor, "cursor: expected the next_cursor of an earlier answer".to_owned())
    })?;
    let text = |name| query.text(name).map(str::to_owned);
    let filter = JobFilter { state: query.parsed("state")?, name: text("name"), search: text("search"), before, limit };
    let JobPage { jobs, has_more } = app.jobs.list(&filter).await?;
    let next_cursor = jobs.last().filter(|_| has_more).map(|job| job.id);
    let views = jobs.iter().map(|job| JobView::summary(job, &app.caller)).collect();
    let list = json_line(&JobList { jobs: views, next_cursor }).map_err(|error| Problem::internal(&error))?;
    let mut response = ([(CONTENT_TYPE, "application/json")], list).into_response();
    if let Some(cursor) = next_cursor {
        let mut parameters = form_urlencoded::Serializer::new(String::new());
        for name in ["state", "name", "search", "limit"] {
            if let Some(value) = query.text(name) {
                parameters.append_pair(name, value);
            }
        }
        let parameters = parameters.append_pair("cursor", &cursor.to_string()).finish();
        set_field(response.headers_mut(), LINK, &format!("</v1/jobs?{parameters}>; rel=\"next\""));
    }
    Ok(response)
}

/// The job that a request is to change: the one that was looked at, where that is as `If-Match` says.
async fn checked(app: &App, job: String, headers: &HeaderMap) -> Result<String, Problem> {
    let precondition = Precondition::read(headers)?;
    if !precondition.is_given() {
        return Ok(job);
    }
    let job = app.jobs.get(&job).await?;
    let (_, etag) = document(&app.caller, &job)?;
    precondition.check(&etag).map_err(|problem| problem.with_job(job.id))?;
    // By now a name may mean another one.
    Ok(job.id.to_string())
}

/// `POST /v1/jobs/{job}/cancel`
pub(in crate::http) async fn cancel(
    app: App,
    Address(job): Address<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = checked(&app, job, &headers).await?;
    let job = app.jobs.cancel(&job).await?;
    respond(&app, &job, None)
}

/// `POST /v1/jobs/{job}/complete`
pub(in crate::http) async fn complete(
    app: App,
    Address(job): Address<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = checked(&app, job, &headers).await?;
    let job = app.jobs.complete(&job).await?;
    respond(&app, &job, None)
}

/// `DELETE /v1/jobs/{job}`
pub(in crate::http) async fn delete(
    app: App,
    Address(job): Address<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let job = checked(&app, job, &headers).await?;
    app.jobs.delete(&job).await?;
    Ok(StatusCode::NO_CONTENT)
}
