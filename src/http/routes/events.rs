//! A job's life as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::watch;

use crate::http::app::App;
use crate::http::options::Query;
use crate::http::problem::{JobTag, Problem};
use crate::http::view::JobView;
use crate::jobs::Job;

/// A comment is sent when nothing else has been for so long.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `GET /v1/jobs/{job}/events`
pub(in crate::http) async fn get(
    State(app): State<App>,
    job: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    let Path(job) = job?;
    Query::read(&uri, &[])?;
    // In this order, so that no change is lost between the two.
    let id = app.jobs.get(&job).await?.id;
    let changes = app.jobs.watch(id);
    let job = app.jobs.get(&id.to_string()).await?;
    let events = events(&job, changes).map(Ok::<_, Infallible>);
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response();
    response.extensions_mut().insert(JobTag(id));
    Ok(response)
}

/// The state, then every progress, then the last state.
fn events(job: &Job, changes: Option<watch::Receiver<Arc<Job>>>) -> impl Stream<Item = Event> + use<> {
    let first = event("state", job);
    let changes = changes.filter(|_| !job.state.is_final());
    let rest = stream::unfold((changes, job.state), |(changes, state)| async move {
        let mut changes = changes?;
        changes.changed().await.ok()?;
        let job = Arc::clone(&changes.borrow_and_update());
        let event = event(if job.state == state { "progress" } else { "state" }, &job);
        let changes = if job.state.is_final() { None } else { Some(changes) };
        Some((event, (changes, job.state)))
    });
    stream::once(async { first }).chain(rest)
}

fn event(name: &str, job: &Job) -> Event {
    // Numbers and strings always can be written.
    Event::default().event(name).json_data(JobView::new(job)).unwrap_or_default()
}
