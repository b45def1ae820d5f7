//! Which web pages may make a browser change something here, and under which names the service may be reached.
//!
//! A page of any origin can make a browser send forms to a service that only the browser's user can reach. Browsers say where such a
//! request comes from. And a page can give its own name the address of such a service (DNS rebinding): for the browser, the service
//! is the page's own origin then. But the requests still carry the page's name in `Host`.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

use super::cors::CorsOrigin;
use super::problem::{Kind, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A name under which the service may be reached: that of a host, without a port; or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost(String);

/// A text that is no name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the name of a host without a port, such as ads.example.com, or * for any")]
pub struct NoHost;

impl AllowedHost {
    const ANY: &str = "*";

    /// Takes every name.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0 == Self::ANY
    }
}

impl FromStr for AllowedHost {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        let is_name = text.parse::<Authority>().is_ok_and(|authority| authority.host() == text && !text.contains('@'));
        if text == Self::ANY || (is_name && !text.contains('*')) {
            return Ok(Self(text.trim_end_matches('.').to_ascii_lowercase()));
        }
        Err(NoHost)
    }
}

/// What requests have to say about where they come from and where they go.
#[derive(Clone)]
pub(super) struct RequestOrigins {
    /// Pages of these origins may change something, too.
    cors_origins: Arc<[CorsOrigin]>,
    /// Names of hosts that are taken beside addresses and `localhost`. None: every name is taken.
    allowed_hosts: Option<Arc<[AllowedHost]>>,
}

impl RequestOrigins {
    pub(super) fn new(cors_origins: &[CorsOrigin], allowed_hosts: Option<&[AllowedHost]>) -> Self {
        Self { cors_origins: cors_origins.into(), allowed_hosts: allowed_hosts.map(Into::into) }
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let hosts = hosts(request);
        if let Some(allowed) = &self.allowed_hosts
            && let Some(other) = hosts.iter().find(|host| !is_allowed(host, allowed))
        {
            let detail = format!("{other:?} is no name of this service; --allowed-host adds one");
            return Err(Problem::new(Kind::UnknownHost, detail));
        }
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            || self.is_from_here(request.headers(), &hosts)
        {
            return Ok(());
        }
        let origin = request.headers().get(ORIGIN).or_else(|| request.headers().get(SEC_FETCH_SITE));
        let origin = origin.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default();
        let detail = format!("a page of another origin, {origin:?}, sent this; --cors-origin allows one to");
        Err(Problem::new(Kind::CrossOrigin, detail))
    }

    /// True unless a browser says that the request comes from a page of another origin.
    fn is_from_here(&self, headers: &HeaderMap, hosts: &[String]) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter().peekable();
        let has_origin = origins.peek().is_some();
        if has_origin && origins.all(|origin| self.cors_origins.iter().any(|known| known.is(origin))) {
            return true;
        }
        // What browsers themselves have found out is right also behind a proxy that changes `Host`. They say it only over TLS and on
        // this machine.
        let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
        if sites.peek().is_some() {
            return sites.all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
        }
        headers.get_all(ORIGIN).iter().all(|origin| is_of_host(origin, hosts))
    }
}

/// Refuses requests that another page makes a browser send, and those for another host, before their body.
pub(super) async fn check_origin(
    State(origins): State<RequestOrigins>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    origins.check(&request)?;
    Ok(next.run(request).await)
}

/// Where a request goes, with the port as far as it is said.
fn hosts(request: &Request) -> Vec<String> {
    let fields = request.headers().get_all(HOST).iter();
    let fields = fields.map(|host| String::from_utf8_lossy(host.as_bytes()).to_ascii_lowercase());
    let authority = request.uri().authority().map(|authority| authority.as_str().to_ascii_lowercase());
    fields.chain(authority).collect()
}

/// True for a name that is allowed, for `localhost`, which browsers look up nowhere, and for an address: what has no name cannot be given
/// another address.
fn is_allowed(host: &str, allowed: &[AllowedHost]) -> bool {
    let Some(authority) = host.parse::<Authority>().ok().filter(|_| !host.contains('@')) else {
        return false;
    };
    let name = authority.host().trim_end_matches('.');
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok() || name.starts_with('[');
    let is_local = name == "localhost" || name.ends_with(".localhost");
    is_address || is_local || allowed.iter().any(|known| known.is_any() || known.0 == name)
}

/// True when an origin is that of the host. With which scheme a page was loaded cannot be told behind a proxy.
fn is_of_host(origin: &HeaderValue, hosts: &[String]) -> bool {
    let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let Some((scheme @ ("http" | "https"), of_page)) = origin.split_once("://") else {
        return false;
    };
    let own_port = if scheme == "http" { ":80" } else { ":443" };
    !hosts.is_empty() && hosts.iter().all(|host| host.strip_suffix(own_port).unwrap_or(host) == of_page)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn is_taken(allowed: Option<&[&str]>, method: &str, fields: &[(&str, &str)]) -> bool {
        let allowed: Option<Vec<_>> = allowed.map(|names| names.iter().map(|name| name.parse().unwrap()).collect());
        let cors = ["https://ads.example.com".parse().unwrap()];
        let mut request = Request::builder().method(method).uri("/v1/jobs");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        RequestOrigins::new(&cors, allowed.as_deref()).check(&request.body(Body::empty()).unwrap()).is_ok()
    }

    #[test]
    fn only_pages_of_the_service_and_of_named_origins_change_something() {
        for (is_right, fields) in [
            (true, &[][..]),
            (true, &[("origin", "http://a.example:8080"), ("host", "a.example:8080")]),
            (true, &[("origin", "http://a.example"), ("host", "A.example:80")]),
            (true, &[("origin", "https://a.example"), ("host", "a.example")]),
            (true, &[("origin", "https://ads.example.com"), ("sec-fetch-site", "cross-site"), ("host", "x")]),
            (true, &[("origin", "https://a.example"), ("sec-fetch-site", "same-origin"), ("host", "127.0.0.1:8080")]),
            (true, &[("sec-fetch-site", "none"), ("host", "x")]),
            (false, &[("origin", "http://b.example"), ("host", "a.example")]),
            (false, &[("origin", "http://a.example:81"), ("host", "a.example")]),
            (false, &[("origin", "http://a.example"), ("host", "a.example:8080")]),
            (false, &[("origin", "http://a.example.evil.example"), ("host", "a.example")]),
            (false, &[("origin", "http://a.example")]),
            (false, &[("origin", "null"), ("host", "a.example")]),
            (false, &[("origin", ""), ("host", "a.example")]),
            (false, &[("origin", "http://a.example"), ("origin", "http://b.example"), ("host", "a.example")]),
            (false, &[("origin", "http://a.example"), ("sec-fetch-site", "cross-site"), ("host", "a.example")]),
            (false, &[("sec-fetch-site", "same-site"), ("host", "a.example")]),
            (false, &[("sec-fetch-site", "cross-site")]),
        ] {
            for method in ["POST", "PUT", "PATCH", "DELETE", "BREW"] {
                assert_eq!(is_taken(None, method, fields), is_right, "{method} {fields:?}");
            }
            for method in ["GET", "HEAD", "OPTIONS"] {
                assert!(is_taken(None, method, fields), "{method} {fields:?}");
            }
        }
    }

    #[test]
    fn names_that_anybody_could_point_here_are_unknown() {
        for (host, is_right) in [
            ("localhost", true),
            ("LocalHost:8080", true),
            ("ads.localhost", true),
            ("localhost.", true),
            ("127.0.0.1:8080", true),
            ("192.0.2.1", true),
            ("[::1]:8080", true),
            ("ads.example.com", true),
            ("ADS.example.com.:8080", true),
            ("evil.example", false),
            ("evil.ads.example.com", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example@localhost", false),
            ("localhost@evil.example", false),
            ("", false),
        ] {
            for method in ["GET", "POST"] {
                assert_eq!(is_taken(Some(&["ads.example.com"]), method, &[("host", host)]), is_right, "{host}");
                assert!(is_taken(None, method, &[("host", host)]), "{host}");
            }
        }
        assert!(is_taken(Some(&["*"]), "GET", &[("host", "evil.example")]));
        assert!(is_taken(Some(&[]), "GET", &[]));
        assert!(!is_taken(Some(&[]), "GET", &[("host", "localhost"), ("host", "evil.example")]));
    }

    #[test]
    fn only_names_are_hosts() {
        for name in ["ads.example.com", "adtally", "*", "ADS.example.com."] {
            assert!(name.parse::<AllowedHost>().is_ok(), "{name}");
        }
        for other in ["", "ads.example.com:80", "http://ads.example.com", "*.example.com", "a@b", "a b", "a/b"] {
            assert_eq!(other.parse::<AllowedHost>(), Err(NoHost), "{other}");
        }
    }
}
