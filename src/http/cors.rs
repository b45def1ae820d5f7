//! Pages of other origins in browsers (CORS, in the Fetch standard): only of those that were named at the start.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, IF_MATCH, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE, RETRY_AFTER,
};
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};
use tower::ServiceBuilder;
use tower::layer::util::Stack;
use tower::util::MapRequestLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::log::X_REQUEST_ID;
use super::upload_fields::{
    TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_RESUMABLE, TUS_VERSION, UPLOAD_CHECKSUM, UPLOAD_COMPLETE,
    UPLOAD_DEFER_LENGTH, UPLOAD_DRAFT_INTEROP_VERSION, UPLOAD_EXPIRES, UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET,
};

/// For how long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_hours(1);

/// An origin as browsers write it: `scheme://host`, with a port that is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsOrigin(HeaderValue);

/// A text that no browser gives for an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an origin as browsers write it, such as https://ads.example.com or http://localhost:3000")]
pub struct NoOrigin;

impl CorsOrigin {
    /// True for this origin, as a browser sends it.
    pub(super) fn is(&self, origin: &HeaderValue) -> bool {
        self.0 == origin
    }
}

impl FromStr for CorsOrigin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let uri: Uri = text.parse().map_err(|_| NoOrigin)?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(NoOrigin);
        };
        let own_port = if scheme == "http" { 80 } else { 443 };
        // Compared byte by byte: only the form that browsers send can ever match. This leaves out paths and user names, too.
        let host = authority.host().to_ascii_lowercase();
        let origin = match authority.port_u16() {
            None => format!("{scheme}://{host}"),
            Some(port) => format!("{scheme}://{host}:{port}"),
        };
        if origin != text || host.is_empty() || authority.port_u16() == Some(own_port) {
            return Err(NoOrigin);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| NoOrigin)
    }
}

/// An `OPTIONS` that is no preflight.
#[derive(Clone, Copy)]
struct PlainOptions;

type Change = fn(Request<Body>) -> Request<Body>;
type Layer =
    Stack<MapRequestLayer<Change>, Stack<CorsLayer, Stack<MapRequestLayer<Change>, tower::layer::util::Identity>>>;

/// Answers preflights, and lets pages of these origins see answers; none without origins.
pub(super) fn layer(origins: &[CorsOrigin]) -> Option<Layer> {
    if origins.is_empty() {
        return None;
    }
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().map(|origin| origin.0.clone())))
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_ENCODING,
            CONTENT_RANGE,
            CONTENT_TYPE,
            IF_MATCH,
            IF_NONE_MATCH,
            IF_RANGE,
            RANGE,
            HeaderName::from_static("content-digest"),
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("prefer"),
            HeaderName::from_static("repr-digest"),
            HeaderName::from_static("x-http-method-override"),
            // What tus clients for browsers send besides.
            HeaderName::from_static("x-requested-with"),
            TUS_RESUMABLE,
            UPLOAD_CHECKSUM,
            UPLOAD_COMPLETE,
            UPLOAD_DEFER_LENGTH,
            UPLOAD_DRAFT_INTEROP_VERSION,
            UPLOAD_LENGTH,
            UPLOAD_METADATA,
            UPLOAD_OFFSET,
            X_REQUEST_ID,
        ])
        .expose_headers([
            CONTENT_LOCATION,
            ETAG,
            LOCATION,
            RETRY_AFTER,
            HeaderName::from_static("idempotency-replayed"),
            TUS_CHECKSUM_ALGORITHM,
            TUS_EXTENSION,
            TUS_MAX_SIZE,
            TUS_RESUMABLE,
            TUS_VERSION,
            UPLOAD_COMPLETE,
            UPLOAD_DEFER_LENGTH,
            UPLOAD_EXPIRES,
            UPLOAD_LENGTH,
            UPLOAD_METADATA,
            UPLOAD_OFFSET,
            X_REQUEST_ID,
        ])
        .max_age(MAX_AGE);
    let layers = ServiceBuilder::new().map_request(hide as Change).layer(cors).map_request(reveal as Change);
    Some(layers.into_inner())
}

/// The layer between takes every `OPTIONS` for a preflight. One that is none passes it under another name.
fn hide(mut request: Request<Body>) -> Request<Body> {
    if request.method() == Method::OPTIONS && !request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        *request.method_mut() = Method::GET;
        request.extensions_mut().insert(PlainOptions);
    }
    request
}

fn reveal(mut request: Request<Body>) -> Request<Body> {
    if request.extensions_mut().remove::<PlainOptions>().is_some() {
        *request.method_mut() = Method::OPTIONS;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_browsers_send_is_an_origin() {
        for origin in ["https://ads.example.com", "http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:3000"]
        {
            assert!(origin.parse::<CorsOrigin>().is_ok(), "{origin}");
        }
        for other in [
            "",
            "*",
            "null",
            "ads.example.com",
            "https://",
            "https://ads.example.com/",
            "https://ads.example.com/page",
            "https://Ads.example.com",
            "HTTPS://ads.example.com",
            "https://ads.example.com:443",
            "http://localhost:80",
            "https://user@ads.example.com",
            "ftp://ads.example.com",
            "https://*.example.com/",
            "https://a.com?b",
            "http://a:",
        ] {
            assert_eq!(other.parse::<CorsOrigin>(), Err(NoOrigin), "{other}");
        }
    }
}
