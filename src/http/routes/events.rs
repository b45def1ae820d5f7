//! A job's life as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};

use crate::http::address::Address;
use crate::http::app::App;
use crate::http::caller::Caller;
use crate::http::problem::{JobTag, Problem};
use crate::http::view::JobView;
use crate::jobs::{Job, Subscription};

/// A comment is sent after this time without an event.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `GET /v1/jobs/{job}/events`
pub(in crate::http) async fn get(app: App, Address(job): Address<String>) -> Result<Response, Problem> {
    let id = app.jobs.get(&job).await?.id;
    let subscription = app.jobs.subscribe(id).await?;
    let job = match &subscription {
        Some(subscription) => subscription.latest(),
        None => app.jobs.get(&id.to_string()).await?,
    };
    // It ends with the token, too.
    let events = events(&job, subscription, app.caller.clone());
    let events = events.take_until(Box::pin(app.caller.revoked())).map(Ok::<_, Infallible>);
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response();
    response.extensions_mut().insert(JobTag(id));
    Ok(response)
}

/// The state, then every progress, then the last state.
fn events(job: &Job, subscription: Option<Subscription>, caller: Caller) -> impl Stream<Item = Event> + use<> {
    let first = event("state", job, &caller);
    let subscription = subscription.filter(|_| !job.state.is_final());
    let rest = stream::unfold((subscription, job.state, caller), |(subscription, state, caller)| async move {
        let mut subscription = subscription?;
        let job = subscription.changed().await?;
        let event = event(if job.state == state { "progress" } else { "state" }, &job, &caller);
        let subscription = if job.state.is_final() { None } else { Some(subscription) };
        Some((event, (subscription, job.state, caller)))
    });
    stream::once(async { first }).chain(rest)
}

fn event(name: &str, job: &Job, caller: &Caller) -> Event {
    // Numbers and strings always can be written.
    Event::default().event(name).json_data(JobView::new(job, caller)).unwrap_or_default()
}
