//! What every request has at hand.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;

use super::body::BodyLimits;
use super::cors::CorsOrigin;
use crate::jobs::Jobs;

/// What requests may do.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The most bytes of an upload, as they are sent.
    pub max_upload_bytes: u64,
    /// The most parts of a form.
    pub max_form_parts: usize,
    /// The longest silence of a sender.
    pub idle_timeout: Duration,
    /// How long the rest of a refused upload is read, so that its sender gets to read the answer.
    pub linger_timeout: Duration,
    /// Pages of these origins may use the interface. Without any, nothing is said to browsers about it.
    pub cors_origins: Vec<CorsOrigin>,
}

/// What every request has at hand.
#[derive(Clone)]
pub(super) struct App {
    pub(super) jobs: Arc<Jobs>,
    pub(super) config: HttpConfig,
    pub(super) metrics: PrometheusHandle,
}

impl App {
    pub(super) fn body_limits(&self) -> BodyLimits {
        let (max_upload_bytes, idle_timeout) = (self.config.max_upload_bytes, self.config.idle_timeout);
        BodyLimits { max_upload_bytes, idle_timeout, bytes_to_come: None }
    }
}
