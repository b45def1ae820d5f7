//! Metrics at an address of their own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::service::{PATIENCE, Service};

/// Asks for a path at an address, and gives the whole answer.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_may_have_an_address_of_their_own() {
    let mut service = Service::start_with(&["--metrics-listen", "127.0.0.1:0"]);
    let line = service.read_line();
    let address = line.strip_prefix("metrics on http://").and_then(|url| url.strip_suffix("/metrics"));
    let address = address.unwrap_or_else(|| panic!("the server said {line:?}"));
    assert_eq!(service.get("/healthz").status, 200);
    service.get("/metrics").expect_problem(404, "not_found", &[]);
    let metrics = get(address, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 ") && metrics.contains("http_requests_total{"), "{metrics}");
    for path in ["/", "/healthz", "/v1/jobs"] {
        let answer = get(address, path);
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("urn:adtally:problem:not_found"), "{answer}");
    }
    // Without the flag they are where everything else is.
    assert_eq!(Service::start().get("/metrics").status, 200);
}
