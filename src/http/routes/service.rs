//! The service itself: whether it lives and is ready, its metrics, its description.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::engine::Format;
use crate::http::app::Shared;
use crate::http::problem::{Problem, json_line};
use crate::http::query::Query;

const OPENAPI: &str = include_str!("../../../openapi.yaml");

/// `GET /healthz`: the process answers.
pub(in crate::http) async fn healthz() -> Response {
    plain("ok\n")
}

/// `GET /readyz`: it takes uploads.
pub(in crate::http) async fn readyz(State(shared): State<Shared>) -> Result<Response, Problem> {
    shared.service.check().await.map_err(Problem::not_ready)?;
    Ok(plain("ready\n"))
}

fn plain(text: &'static str) -> Response {
    ([(CACHE_CONTROL, "no-store")], text).into_response()
}

/// `GET /metrics`, in the text format of Prometheus.
pub(in crate::http) async fn metrics(State(shared): State<Shared>) -> Response {
    #[expect(clippy::cast_precision_loss, reason = "uploads at once are few")]
    metrics::gauge!("adtally_uploads_in_progress").set(shared.service.running_uploads() as f64);
    let (max_bytes, used_bytes) = shared.service.memory_budget();
    #[expect(clippy::cast_precision_loss, reason = "memory is below 2^53 bytes")]
    for (name, bytes) in
        [("adtally_memory_budget_bytes", max_bytes as f64), ("adtally_memory_used_bytes", used_bytes as f64)]
    {
        metrics::gauge!(name).set(bytes);
    }
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    (StatusCode::OK, [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")], shared.metrics.render())
        .into_response()
}

/// The reports of ad platforms that can be read.
#[derive(Serialize)]
struct FormatList {
    formats: Vec<FormatView>,
}

#[derive(Serialize)]
struct FormatView {
    name: &'static str,
    title: &'static str,
    status: &'static str,
    options: BTreeMap<&'static str, String>,
}

/// `GET /v1/formats`
pub(in crate::http) async fn formats(uri: Uri) -> Result<Response, Problem> {
    Query::read(&uri, &[])?;
    let formats = Format::all().map(Format::definition).map(|format| FormatView {
        name: format.name,
        title: format.title,
        status: format.status(),
        options: format.options().into_iter().collect(),
    });
    let document = json_line(&FormatList { formats: formats.collect() }).map_err(|error| Problem::internal(&error))?;
    Ok(([(CONTENT_TYPE, "application/json")], document).into_response())
}

/// `GET /openapi.yaml`
pub(in crate::http) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}
