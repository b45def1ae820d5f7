//! Requests that could be taken for different ones on their way: refused, and the connection is closed.

use crate::senders::{LAST_CHUNK, chunk, csv};
use crate::service::{Connection, Service};

/// Sends these bytes, and checks that they are refused with a problem that says this, and that nothing else is answered.
#[track_caller]
fn assert_refused(service: &Service, request: impl AsRef<[u8]>, says: &str) {
    let mut connection = service.connect();
    connection.send(&request);
    let reply = connection.read_reply();
    reply.expect_problem(400, "invalid_header", &[says]);
    assert_eq!(reply.header("connection"), Some("close"), "{reply:?}");
    assert_closed(connection);
}

#[track_caller]
fn assert_closed(connection: Connection) {
    assert_eq!(connection.read_rest(), "");
}

#[test]
fn a_host_that_is_missing_or_there_twice_or_none() {
    let service = Service::start_with(&["--allowed-host", "*"]);
    let healthz = |fields: &str| format!("GET /healthz HTTP/1.1\r\n{fields}\r\n");
    assert_refused(&service, healthz(""), "Host: it is missing");
    assert_refused(&service, "GET http://test/healthz HTTP/1.1\r\n\r\n", "Host: it is missing");
    assert_refused(&service, healthz("Host: a\r\nHost: a\r\n"), "more than once");
    assert_refused(&service, healthz("Host: a\r\nhost: b\r\n"), "more than once");
    for host in ["a b", "a/b", "a:port", "a:1:2", "user@a", "http://a", "\"a\"", "a\tb"] {
        assert_refused(&service, healthz(&format!("Host: {host}\r\n")), "expected a name or an address");
    }
    // The bytes behind it are not taken for a request.
    assert_refused(&service, healthz("") + &healthz("Host: a\r\n"), "Host: it is missing");
    let put = format!("PUT /v1/jobs/none HTTP/1.1\r\nContent-Length: {}\r\n\r\n", csv(5).len());
    assert_refused(&service, [put.as_bytes(), &csv(5)].concat(), "Host: it is missing");
    service.get("/v1/jobs/none").expect_problem(404, "job_not_found", &[]);

    for request in [
        healthz("Host: a\r\n"),
        healthz("Host: 127.0.0.1:8080\r\n"),
        healthz("Host: [::1]:8080\r\n"),
        "GET http://b/healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.0\r\n\r\n".to_owned(),
    ] {
        let mut connection = service.connect();
        connection.send(&request);
        assert_eq!(connection.read_reply().status, 200, "{request}");
    }
}

#[test]
fn a_transfer_coding_beside_chunked() {
    let service = Service::start();
    let put = |fields: &str| {
        let head = format!("PUT /v1/jobs/coded HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        [head.as_bytes(), &chunk(&csv(5)), LAST_CHUNK].concat()
    };
    for fields in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
    ] {
        assert_refused(&service, put(fields), "expected chunked alone");
    }
    // hyper refuses what does not end with chunked.
    for fields in
        ["Transfer-Encoding: gzip\r\n", "Transfer-Encoding: chunked, gzip\r\n", "Transfer-Encoding: xchunked\r\n"]
    {
        let mut connection = service.connect();
        connection.send(put(fields));
        let answer = connection.read_rest();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields}: {answer}");
    }
    service.get("/v1/jobs/coded").expect_problem(404, "job_not_found", &[]);
    let mut connection = service.connect();
    connection.send(put("Transfer-Encoding: Chunked\r\n"));
    assert_eq!(connection.read_reply().status, 201);
}

#[test]
fn a_length_beside_chunks_ends_the_connection() {
    let service = Service::start();
    let smuggled = "GET /v1/jobs HTTP/1.1\r\nHost: test\r\n\r\n";
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 100000\r\n",
    ] {
        let mut connection = service.connect();
        let head = format!("PUT /v1/jobs/both HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        connection.send([head.as_bytes(), &chunk(&csv(5)), LAST_CHUNK, smuggled.as_bytes()].concat());
        let answer = connection.read_rest();
        // The chunks count (RFC 9112, 6.3), and nothing behind them.
        assert!(answer.starts_with("HTTP/1.1 201 ") || answer.starts_with("HTTP/1.1 400 "), "{fields}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{fields}: {answer}");
    }
}

/// hyper is not ready for the next request while it sends such an answer.
#[test]
fn a_connection_ends_after_an_answer_that_begins_before_the_body_has_ended() {
    let service = Service::start();
    let whole = service.get("/openapi.yaml").body;
    let mut connection = service.connect();
    connection.send("GET /openapi.yaml HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345");
    let head = connection.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("\r\nconnection: close\r\n"), "{head}");
    connection.try_send("67890");
    assert_eq!(connection.read_until_closed().len(), whole.len());
    // One whose body has ended is kept.
    let mut connection = service.connect();
    for _ in 0..2 {
        connection.send(
            "POST /v1/jobs HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        );
        assert_eq!(connection.read_reply().status, 201);
    }
}
