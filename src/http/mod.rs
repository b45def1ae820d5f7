//! The interface: requests in, problems and documents out. What a job does is not decided here.

mod activity;
mod address;
mod app;
mod body;
mod caller;
mod checks;
mod conditions;
mod cors;
mod deadline;
mod digests;
mod fields;
mod framing;
mod log;
mod media;
mod name;
mod origin;
mod pace;
mod problem;
mod query;
mod routes;
mod row_parts;
mod security_fields;
mod sent_body;
mod server;
mod streams;
mod table;
mod tenant_limits;
mod tls;
mod tls_client;
mod tokens;
mod tus_fields;
mod upload_fields;
mod view;
mod write_deadline;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, head, post};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tower::ServiceBuilder;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

pub use cors::CorsOrigin;
pub use origin::{AllowedHost, NoHost};
pub use server::{ConnectionLimits, Shutdown, serve};
pub use tls::{TlsError, TlsFiles, TlsTermination};
pub use tls_client::{TlsClientError, connect_pinned, is_other_certificate};
pub use tokens::{
    InvalidTokenLine, NewToken, SECRET_BYTES, TokenTable, Tokens, check_tenant, check_token_name, parse_expiry,
};

use crate::jobs::{Jobs, TenantPermits};
pub use app::HttpConfig;
use app::Shared;
use body::{LingerLimits, MAX_LINGERING_BODIES, linger};
use caller::{Gate, authorize};
use conditions::drop_malformed_tags;
use framing::refuse_ambiguous;
use log::{X_REQUEST_ID, log_request, sanitize_request_id, tag_route};
use media::allow_identity;
use origin::{RequestOrigins, check_origin};
use problem::{Kind, Problem};
use routes::page::TaggedAsSent;
use routes::{appends, events, files, jobs, page, results, service, tus, uploads};
use security_fields::add_security_fields;
use tenant_limits::TenantLimits;

/// The least of a refused body that is read, also when uploads have to be smaller: without it senders do not get to read the answer.
const MIN_LINGER_BYTES: u64 = 1024 * 1024;

/// The whole interface.
pub fn router(jobs: Arc<Jobs>, mut config: HttpConfig, metrics: PrometheusHandle) -> Router {
    let layered = layers(&config);
    let gate = Gate {
        tokens: config.tokens.take(),
        limits: TenantLimits::new(config.max_request_rate, config.max_connections_per_tenant),
    };
    let metrics_route =
        if config.serves_metrics { Router::new().route("/metrics", get(service::metrics)) } else { Router::new() };
    let routes = metrics_route
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .route("/healthz", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .route("/openapi.yaml", get(service::openapi))
        .route("/v1/jobs", get(jobs::list).put(uploads::put_unnamed).post(uploads::post))
        .route("/v1/jobs/", get(jobs::list).put(uploads::put_unnamed).post(uploads::post))
        .route("/v1/jobs/{job}", get(jobs::get).put(uploads::put_named).delete(jobs::delete))
        .route("/v1/jobs/{job}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{job}/complete", post(jobs::complete))
        .route("/v1/jobs/{job}/files", get(files::list))
        .route(
            "/v1/jobs/{job}/files/{file}",
            get(files::get)
                .put(files::put)
                .patch(appends::patch)
                .delete(files::delete)
                .layer(from_fn(appends::answer_interop_version)),
        )
        .route(
            "/v1/tus",
            post(tus::create)
                .route_layer(from_fn(tus::require_version))
                .options(tus::options)
                .layer(from_fn(tus::name_version)),
        )
        .route(
            "/v1/tus/{job}/{file}",
            head(tus::head)
                .patch(tus::patch)
                .delete(tus::delete)
                .post(tus::post)
                .route_layer(from_fn(tus::require_version))
                .layer(from_fn(tus::name_version)),
        )
        .route("/v1/formats", get(service::formats))
        .route("/v1/jobs/{job}/events", get(events::get))
        .route("/v1/jobs/{job}/results/{file}", get(results::get))
        .fallback(not_found)
        // Uploads have limits of their own.
        .layer(DefaultBodyLimit::disable())
        // Around every route and what answers when there is none.
        .layer(from_fn_with_state(gate, authorize))
        .layer(from_fn(tag_route))
        .with_state(shared(jobs, config, metrics));
    layered(routes)
}

/// `/metrics` alone, for an address of its own, which asks for no token.
pub fn metrics_router(jobs: Arc<Jobs>, config: HttpConfig, metrics: PrometheusHandle) -> Router {
    let layered = layers(&HttpConfig { cors_origins: Vec::new(), allowed_hosts: None, ..config.clone() });
    let routes = Router::new()
        .route("/metrics", get(service::metrics))
        .fallback(not_found)
        .layer(from_fn(tag_route))
        .with_state(shared(jobs, config, metrics));
    layered(routes)
}

fn shared(jobs: Arc<Jobs>, config: HttpConfig, metrics: PrometheusHandle) -> Shared {
    let downloads = TenantPermits::new(config.max_concurrent_downloads, config.max_downloads_per_tenant);
    Shared { service: jobs, config, metrics, downloads }
}

/// The layers around all routes.
fn layers(config: &HttpConfig) -> impl FnOnce(Router) -> Router + use<> {
    let max_bytes = config.max_upload_bytes.max(MIN_LINGER_BYTES);
    let origins = RequestOrigins::new(&config.cors_origins, config.allowed_hosts.as_deref());
    let cors = cors::layer(&config.cors_origins);
    let linger_limits = LingerLimits {
        max_bytes,
        max_time: config.linger_timeout,
        permits: Arc::new(Semaphore::new(MAX_LINGERING_BODIES)),
    };
    let layers = ServiceBuilder::new()
        .layer(from_fn_with_state(linger_limits, linger))
        .layer(map_request(|request| async { sanitize_request_id(request) }))
        .layer(SetRequestIdLayer::new(X_REQUEST_ID, MakeRequestUuid))
        .layer(PropagateRequestIdLayer::new(X_REQUEST_ID))
        .map_response(add_security_fields)
        .map_response(describe_as_sent)
        .layer(map_request(|request| async { allow_identity(request) }))
        // Zstandard has a window of 512 KiB at this level, and of 2 MiB at the default one. Each answer has its own.
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .layer(from_fn(log_request))
        .layer(from_fn(refuse_ambiguous))
        .layer(map_request(|request| async { drop_malformed_tags(request) }))
        .option_layer(cors)
        .layer(from_fn_with_state(origins, check_origin))
        .layer(CatchPanicLayer::custom(answer_panic));
    // Around the routes, so that what the router itself answers passes the layers, too.
    move |routes| Router::new().fallback_service(routes).layer(layers)
}

/// Compressed bytes are not those that a strong entity tag stands for, and an answer that leaves the body out is not one of no
/// bytes (RFC 9110, 8.6).
fn describe_as_sent<B>(mut response: Response<B>) -> Response<B> {
    if response.status() == StatusCode::NOT_MODIFIED {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    if response.extensions().get::<TaggedAsSent>().is_none()
        && response.headers().contains_key(CONTENT_ENCODING)
        && let Some(tag) = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok())
        && !tag.starts_with("W/")
        && let Ok(tag) = HeaderValue::from_str(&format!("W/{tag}"))
    {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(Kind::NotFound, format!("{:?}: the interface is described at /openapi.yaml", uri.path()))
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands it over")]
fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Problem::internal(&format_args!("panic: {}", text.unwrap_or("without words"))).into_response()
}
