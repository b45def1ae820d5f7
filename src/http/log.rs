//! What is told of every request: an id, one line in the log, two metrics.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::request_id::RequestId;

use super::body::ReceivedBytes;
use super::caller::CallerTag;
use super::problem::{JobTag, render};

/// The header field with the request's id.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from a client.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Lets a client's own request id stand only where it can do no harm in logs.
pub(super) fn sanitize_request_id(mut request: Request<Body>) -> Request<Body> {
    let is_harmless = |id: &HeaderValue| {
        let is_harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(is_harmless)
    };
    if !request.headers().get(X_REQUEST_ID).is_some_and(is_harmless) {
        request.headers_mut().remove(X_REQUEST_ID);
    }
    request
}

/// Lets the layers around the router know the route.
pub(super) async fn tag_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// Writes a line for every request once it is answered, and lets problems know the request id.
pub(super) async fn log_request(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let received = request.extensions().get::<ReceivedBytes>().cloned().unwrap_or_default();
    let request_id = request.extensions().get::<RequestId>().cloned();
    let request_id = request_id.as_ref().and_then(|id| id.header_value().to_str().ok()).unwrap_or_default().to_owned();
    let response = render(next.run(request).await, &request_id);
    let elapsed_seconds = started.elapsed().as_secs_f64();
    let route = response.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let status = response.status().as_u16();
    let job = response.extensions().get::<JobTag>().map(|tag| tag.0.to_string());
    let caller = response.extensions().get::<CallerTag>();
    tracing::info!(
        %method,
        route,
        status,
        bytes = received.get(),
        seconds = (elapsed_seconds * 1e6).round() / 1e6,
        job,
        token = caller.map(|caller| &*caller.token),
        tenant = caller.map(|caller| &*caller.tenant),
        request_id,
        "request"
    );
    let labels = [("method", method_label(&method)), ("route", route), ("status", status.to_string())];
    metrics::counter!("http_requests_total", &labels).increment(1);
    metrics::histogram!("http_request_duration_seconds", &labels).record(elapsed_seconds);
    response
}

/// Clients can invent methods without end; labels must not grow with them.
fn method_label(method: &axum::http::Method) -> String {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "PUT" | "POST" | "PATCH" | "DELETE" | "OPTIONS") => known.into(),
        _ => "other".into(),
    }
}
