//! Who sends a request, and what is refused to those who do not say so.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::problem::{Kind, Problem};
use super::tenant_limits::TenantLimits;
use super::tokens::{Holder, TokenRefused, Tokens};
use crate::jobs::{Access, Failure, FailureKind};

/// What is there for everybody: whether the service lives, its page, and its description. So are the page's files.
const OPEN_PATHS: [&str; 4] = ["/", "/healthz", "/readyz", "/openapi.yaml"];

const PAGE_FILES: &str = "/page/";

/// What is about all tenants.
const ADMIN_PATHS: [&str; 1] = ["/metrics"];

/// The sender of a request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// None on a service without tokens.
    holder: Option<Arc<Holder>>,
}

/// The token that a request had, for the log: its name and its tenant.
#[derive(Clone, Debug)]
pub(super) struct CallerTag {
    pub(super) token: Arc<str>,
    pub(super) tenant: Arc<str>,
}

impl Caller {
    /// The jobs that it reaches.
    pub(super) fn access(&self) -> Access {
        self.holder.as_ref().map_or_else(|| Access::tenant(""), |holder| holder.access())
    }

    /// True for one that is shown whose a job is.
    pub(super) fn is_administrator(&self) -> bool {
        self.access().is_administrator()
    }

    /// Checks once more that its token is valid.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match &self.holder {
            Some(holder) if !holder.is_valid() => Err(token_revoked()),
            _ => Ok(()),
        }
    }

    /// Resolves when its token is no longer valid.
    pub(super) fn revoked(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let revoked = self.holder.as_ref().map(|holder| holder.revoked().clone());
        async move {
            match revoked {
                Some(revoked) => revoked.cancelled_owned().await,
                None => std::future::pending().await,
            }
        }
    }
}

/// Why an upload or a wait ends whose token is no longer valid.
pub(super) fn token_revoked() -> Failure {
    FailureKind::TokenRevoked.because("the token was revoked or has expired meanwhile")
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // `authorize` is around every route.
        parts.extensions.get().cloned().ok_or_else(|| Problem::internal(&"a request without a caller"))
    }
}

/// What requests have to pass.
#[derive(Clone)]
pub(super) struct Gate {
    /// None on a service without tokens.
    pub(super) tokens: Option<Tokens>,
    pub(super) limits: Arc<TenantLimits>,
}

impl Gate {
    /// The holder of a request's token; none on a service without tokens, and for what is there for everybody.
    fn identify(&self, request: &Request) -> Result<Option<Arc<Holder>>, Problem> {
        if is_open(request.uri().path()) {
            return Ok(None);
        }
        let holder = self.tokens.as_ref().map(|tokens| holder(tokens, request.headers())).transpose()?;
        Ok(holder.map(Arc::new))
    }

    /// Refuses requests beyond what their tenant may send.
    fn admit(&self, request: &Request, holder: Option<&Holder>) -> Result<(), Problem> {
        if is_open(request.uri().path()) {
            return Ok(());
        }
        let tenant = holder.map_or_else(Arc::default, |holder| Arc::clone(holder.tenant()));
        self.limits.admit(&tenant, request.extensions().get())
    }
}

/// True for what is there for everybody.
fn is_open(path: &str) -> bool {
    OPEN_PATHS.contains(&path) || path.starts_with(PAGE_FILES)
}

/// True for requests about an upload's offset: their senders take most refusals for the end of the upload.
fn is_resuming(request: &Request) -> bool {
    let path = request.uri().path();
    path.starts_with("/v1/tus/") || (request.method() == Method::HEAD && path.contains("/files/"))
}

/// Refuses requests without a valid token, and those beyond what their tenant may send, before their bodies are asked for and before anything is
/// told. Without tokens every request is taken for one of the same caller.
pub(super) async fn authorize(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let holder = match gate.identify(&request) {
        Ok(holder) => holder,
        Err(problem) => return refuse(&request, problem),
    };
    let tag = holder
        .as_ref()
        .map(|holder| CallerTag { token: Arc::clone(holder.name()), tenant: Arc::clone(holder.tenant()) });
    let admitted = gate.admit(&request, holder.as_deref());
    // No route sees the token.
    request.headers_mut().remove(AUTHORIZATION);
    let is_refused = ADMIN_PATHS.contains(&request.uri().path())
        && holder.as_ref().is_some_and(|holder| !holder.access().is_administrator());
    let mut response = if let Err(problem) = admitted {
        refuse(&request, problem)
    } else if is_refused {
        Problem::new(Kind::Forbidden, "expected a token of an administrator").into_response()
    } else {
        request.extensions_mut().insert(Caller { holder });
        next.run(request).await
    };
    if let Some(tag) = tag {
        response.extensions_mut().insert(tag);
    }
    response
}

/// The answer to a request that no route sees.
fn refuse(request: &Request, problem: Problem) -> Response {
    let closes = problem.kind() == Kind::TooManyConnections && request.version() < Version::HTTP_2;
    let problem = if is_resuming(request) { problem.for_resuming_client() } else { problem };
    let mut response = problem.into_response();
    if closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn holder(tokens: &Tokens, headers: &HeaderMap) -> Result<Holder, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        let detail = "expected a token: Authorization: Bearer adt_NAME_SECRET, or the token as the password of Basic";
        return Err(Problem::new(Kind::Unauthorized, detail));
    };
    if values.next().is_some() {
        return Err(Problem::new(Kind::InvalidToken, "authorization: it is given more than once"));
    }
    let Some(token) = token(value) else {
        let detail = "authorization: expected Bearer and a token, or Basic and Base64 of USER:TOKEN";
        return Err(Problem::new(Kind::InvalidToken, detail));
    };
    tokens.authenticate(&token).map_err(|refused| match refused {
        TokenRefused::Unknown => Problem::new(Kind::InvalidToken, "the token is not valid"),
        TokenRefused::Expired => Problem::new(Kind::TokenExpired, "the token has expired"),
    })
}

/// The token in an `Authorization` field: that of Bearer (RFC 6750, 2.1) or the password of Basic (RFC 7617, 2).
fn token(value: &HeaderValue) -> Option<String> {
    let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_both_schemes() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (value, found) in [
            ("Bearer adt_a_1".to_owned(), Some("adt_a_1")),
            ("bEARER   adt_a_1 ".to_owned(), Some("adt_a_1")),
            (basic(":adt_a_1"), Some("adt_a_1")),
            (basic("user:adt_a_1"), Some("adt_a_1")),
            (basic("user:a:b"), Some("a:b")),
            (basic("adt_a_1"), None),
            ("Basic !".to_owned(), None),
            ("adt_a_1".to_owned(), None),
            ("Bearer".to_owned(), None),
            ("Digest adt_a_1".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(token(&value.parse().unwrap()).as_deref(), found, "{value}");
        }
    }
}
