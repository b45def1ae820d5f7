//! What every request has at hand.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use metrics_exporter_prometheus::PrometheusHandle;

use super::body::BodyLimits;
use super::caller::Caller;
use super::cors::CorsOrigin;
use super::origin::AllowedHost;
use super::pace::PaceLimits;
use super::problem::Problem;
use super::tokens::Tokens;
use crate::jobs::{Jobs, TenantJobs, TenantPermits};

/// What requests may do.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The most bytes of an upload, as they are sent.
    pub max_upload_bytes: u64,
    /// The most parts of a form.
    pub max_form_parts: usize,
    /// The longest silence of a sender.
    pub idle_timeout: Duration,
    /// The fewest bytes of an upload that may come in a second; 0 is no limit.
    pub min_receive_rate: u64,
    /// How long a sender may be waited for beyond what that rate allows.
    pub receive_grace: Duration,
    /// The most results that are sent at once.
    pub max_concurrent_downloads: usize,
    /// The most results that are sent at once to one tenant.
    pub max_downloads_per_tenant: usize,
    /// The most requests of one tenant in a second; none is no limit.
    pub max_request_rate: Option<NonZeroU32>,
    /// The most connections of one tenant at once; none is no limit.
    pub max_connections_per_tenant: Option<usize>,
    /// How long the rest of a refused upload is read, so that its sender gets to read the answer.
    pub linger_timeout: Duration,
    /// Pages of these origins may use the interface. Without any, nothing is said to browsers about it.
    pub cors_origins: Vec<CorsOrigin>,
    /// Who may send requests. Without tokens everybody may.
    pub tokens: Option<Tokens>,
    /// Requests have to name one of these hosts, an address, or `localhost`. Without a list, any.
    pub allowed_hosts: Option<Vec<AllowedHost>>,
    /// Whether `/metrics` is among the routes.
    pub serves_metrics: bool,
}

/// The service that all requests share. Routes about jobs take [`App`] instead, which reaches the caller's jobs alone.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) service: Arc<Jobs>,
    pub(super) config: HttpConfig,
    pub(super) metrics: PrometheusHandle,
    /// Permits for results that are being sent.
    pub(super) downloads: Arc<TenantPermits>,
}

/// What a request of a caller has at hand.
#[derive(Clone)]
pub(super) struct App {
    pub(super) caller: Caller,
    /// Those that the caller reaches.
    pub(super) jobs: TenantJobs,
    pub(super) config: HttpConfig,
    /// Permits for results that are being sent.
    pub(super) downloads: Arc<TenantPermits>,
}

impl FromRequestParts<Shared> for App {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, shared).await?;
        let (config, downloads) = (shared.config.clone(), Arc::clone(&shared.downloads));
        Ok(Self { jobs: shared.service.of(caller.access()), caller, config, downloads })
    }
}

impl App {
    pub(super) fn body_limits(&self) -> BodyLimits {
        let HttpConfig { max_upload_bytes, idle_timeout, min_receive_rate, receive_grace, .. } = self.config;
        let pace = PaceLimits { idle_timeout, min_receive_rate, receive_grace };
        BodyLimits { max_upload_bytes, pace, bytes_to_come: None }
    }
}
