//! Requests that hyper lets through although a server has to refuse them (RFC 9112, 3.2 and 6.1): two programs on the way could
//! take them for different ones.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::{Kind, Problem};

/// Refuses requests whose host or whose body is in doubt, and closes their connection.
pub(super) async fn refuse_ambiguous(request: Request, next: Next) -> Response {
    let has_connection_field = request.version() <= Version::HTTP_11;
    match check_host(&request).and_then(|()| check_transfer_coding(&request)) {
        Ok(()) => next.run(request).await,
        Err(problem) if has_connection_field => {
            problem.with_header(CONNECTION, HeaderValue::from_static("close")).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

fn check_host(request: &Request<Body>) -> Result<(), Problem> {
    let refused = |detail| Err(Problem::new(Kind::InvalidHeader, detail));
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => refused("Host: it is there more than once"),
        (Some(host), None) => {
            // It may be empty, for addresses that have no host.
            if host.is_empty() || is_host(host.as_bytes()) {
                Ok(())
            } else {
                refused("Host: expected a name or an address, with or without a port")
            }
        }
        // HTTP/1.1 wants the field also beside a whole address; HTTP/2 has `:authority` instead.
        (None, None) if request.version() == Version::HTTP_11 => refused("Host: it is missing"),
        (None, None) if request.version() >= Version::HTTP_2 && request.uri().authority().is_none() => {
            refused("Host: neither it nor :authority is there")
        }
        (None, None) => Ok(()),
    }
}

/// A host, perhaps with a port, and without a user.
fn is_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value) else {
        return false;
    };
    let (text, host) = (authority.as_str(), authority.host());
    let port = text.strip_prefix(host).map(|rest| rest.strip_prefix(':').unwrap_or(rest));
    port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// hyper reads bodies whose last transfer coding is `chunked`, and leaves the others in.
fn check_transfer_coding(request: &Request<Body>) -> Result<(), Problem> {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let (first, second) = (codings.next(), codings.next());
    if second.is_none() && first.is_none_or(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    Err(Problem::new(
        Kind::InvalidHeader,
        "Transfer-Encoding: expected chunked alone; compression is said in Content-Encoding",
    ))
}
