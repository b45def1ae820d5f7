//! What one tenant may use, while the others have what is theirs.

use serde_json::json;

use crate::harness::{HEADER, lines};
use crate::senders::csv;
use crate::service::Service;
use crate::token_file::wait_until;
use crate::tokens::Guarded;

const MINE: &[&str] = &["mine", "--tenant", "we"];
const YOURS: &[&str] = &["yours", "--tenant", "you"];

#[test]
fn a_tenant_that_sends_too_many_requests_is_told_to_wait() {
    let (guarded, [mine, yours]) = Guarded::start([MINE, YOURS], &["--max-request-rate", "2"]);
    let [mine, yours] = [&mine, &yours].map(|token| guarded.client(token));
    let limit = json!({"name": "max_request_rate", "value": 2});
    let refused = (0..1000).map(|_| mine.get("/v1/jobs")).find(|reply| reply.status != 200).unwrap();
    let problem = refused.expect_problem(429, "too_many_requests", &["2 requests of this tenant"]);
    assert_eq!(problem["limit"], limit);
    assert_eq!(refused.header("retry-after"), Some("1"));
    guarded.service.wait_for_log("status=429", 1);
    assert_logged_with_caller(&guarded.service, "status=429");
    // Nobody else is: another tenant, and who only asks whether the service is there.
    yours.get("/v1/jobs").expect(200);
    for _ in 0..10 {
        guarded.service.get("/healthz").assert_ready();
    }
    // Clients that resume uploads would give up at 429.
    let is_locked = |method: &str, path: &str| {
        let fields = [("tus-resumable", "1.0.0")];
        let reply = (0..1000).map(|_| mine.send(method, path, &fields, b"")).find(|reply| reply.status == 423);
        assert_eq!(reply.unwrap().header("retry-after"), Some("1"), "{method} {path}");
    };
    is_locked("HEAD", "/v1/tus/nowhere/nothing");
    is_locked("PATCH", "/v1/tus/nowhere/nothing");
    is_locked("HEAD", "/v1/jobs/nowhere/files/nothing");
    wait_until("requests are taken again", || mine.get("/v1/jobs").status == 200);
}

/// Every line of the log with this names the token and its tenant.
#[track_caller]
fn assert_logged_with_caller(service: &Service, text: &str) {
    let log = service.log();
    for line in log.lines().filter(|line| line.contains(text)) {
        assert!(line.contains("token=\"mine\"") && line.contains("tenant=\"we\""), "{line}");
    }
}

#[test]
fn without_tokens_all_requests_are_of_one_tenant() {
    let service = Service::start_with(&["--max-request-rate", "1"]);
    let refused = (0..1000).map(|_| service.get("/v1/jobs")).find(|reply| reply.status != 200).unwrap();
    refused.expect_problem(429, "too_many_requests", &[]);
}

#[test]
fn a_tenant_has_no_more_connections_than_it_may() {
    let (guarded, [mine, yours]) = Guarded::start([MINE, YOURS], &["--max-connections-per-tenant", "2"]);
    let service = &guarded.service;
    let request = |token: &str| format!("GET /v1/jobs HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n\r\n");
    let [mut first, mut second] = [service.connect(), service.connect()];
    for connection in [&mut first, &mut second] {
        for _ in 0..3 {
            assert_eq!(connection.send(request(&mine)).read_reply().status, 200);
        }
    }
    let mut third = service.connect();
    let refused = third.send(request(&mine)).read_reply();
    let problem = refused.expect_problem(503, "too_many_connections", &["2 connections of this tenant"]);
    assert_eq!(problem["limit"], json!({"name": "max_connections_per_tenant", "value": 2}));
    assert_eq!((refused.header("connection"), refused.header("retry-after")), (Some("close"), Some("1")));
    assert_eq!(third.read_rest(), "");
    service.wait_for_log("status=503", 1);
    assert_logged_with_caller(service, "status=503");
    assert_eq!(service.connect().send(request(&yours)).read_reply().status, 200);
    // A proxy's connection is of the tenant that used it last.
    assert_eq!(second.send(request(&yours)).read_reply().status, 200);
    let mut fourth = service.connect();
    assert_eq!(fourth.send(request(&mine)).read_reply().status, 200);
    drop(first);
    wait_until("its place is free", || service.connect().send(request(&mine)).read_reply().status == 200);
}

#[test]
fn a_tenant_that_has_stored_too_much_has_to_delete_something() {
    let (guarded, [mine, yours]) = Guarded::start([MINE, YOURS], &["--max-stored-per-tenant", "1KiB"]);
    let [mine, yours] = [&mine, &yours].map(|token| guarded.client(token));
    // What is stored is measured once a second.
    let mut refused = None;
    wait_until("its room is used up", || {
        let reply = mine.put("/v1/jobs/mine", &csv(50));
        (reply.status != 201).then(|| refused = Some(reply)).is_some()
    });
    let problem = refused.unwrap().expect_problem(507, "storage_full", &["of this tenant's jobs", "delete some"]);
    assert_eq!(problem["limit"], json!({"name": "max_stored_bytes_per_tenant", "value": 1024}));
    let open = [("content-type", "application/json")];
    mine.send("POST", "/v1/jobs", &open, b"{}").expect_problem(507, "storage_full", &[]);
    yours.put("/v1/jobs/yours", &csv(50)).expect(201);
    while mine.send("DELETE", "/v1/jobs/mine", &[], b"").status == 204 {}
    mine.put("/v1/jobs/mine", &csv(50)).expect(201);
}

#[test]
fn a_tenant_has_no_more_open_jobs_than_it_may() {
    let (guarded, [mine, yours]) = Guarded::start([MINE, YOURS], &["--max-open-jobs-per-tenant", "1"]);
    let [mine, yours] = [&mine, &yours].map(|token| guarded.client(token));
    let json = [("content-type", "application/json")];
    let job = mine.send("POST", "/v1/jobs", &json, b"{}").expect(201);
    let refused = mine.send("POST", "/v1/jobs", &json, b"{}");
    let problem = refused.expect_problem(503, "too_many_open_jobs", &["of this tenant"]);
    assert_eq!(problem["limit"], json!({"name": "max_open_jobs_per_tenant", "value": 1}));
    yours.send("POST", "/v1/jobs", &json, b"{}").expect(201);
    mine.send("POST", &format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap()), &[], b"").expect(200);
    mine.send("POST", "/v1/jobs", &json, b"{}").expect(201);
}

#[test]
fn a_tenant_takes_no_more_places_for_uploads_than_it_may() {
    let (guarded, [mine, yours]) = Guarded::start([MINE, YOURS], &["--max-uploads-per-tenant", "1"]);
    let mut first = guarded.service.connect();
    let body = csv(10);
    let head = format!(
        "PUT /v1/jobs/first HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {mine}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    first.send(head).send(&body[..50]);
    let [mine, yours] = [&mine, &yours].map(|token| guarded.client(token));
    wait_until("it is received", || mine.get("/v1/jobs/first").status == 200);
    let refused = mine.put("/v1/jobs/second", &csv(10));
    let problem = refused.expect_problem(503, "too_many_uploads", &["of this tenant"]);
    assert_eq!(problem["limit"], json!({"name": "max_uploads_per_tenant", "value": 1}));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    yours.put("/v1/jobs/second", &csv(10)).expect(201);
    assert_eq!(first.send(&body[50..]).read_reply().status, 201);
    wait_until("its place is free", || mine.put("/v1/jobs/second", &csv(10)).status == 201);
}

#[test]
fn a_tenant_takes_no_more_places_for_downloads_than_it_may() {
    let (guarded, [mine, yours]) = Guarded::start([MINE, YOURS], &["--max-downloads-per-tenant", "1"]);
    let service = &guarded.service;
    let rows = HEADER.to_owned() + &lines(80_000, |row| format!("{row:0250},2025-01-01,1,1,1,1"));
    let large = guarded.client(&mine).put("/v1/jobs/large", rows.as_bytes()).expect(201);
    let path = large["links"]["results"]["campaigns.csv"].as_str().unwrap();
    guarded.client(&yours).put("/v1/jobs/small", &csv(10)).expect(201);
    // It is not read.
    let mut download = service.connect();
    download.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {mine}\r\n\r\n"));
    assert!(download.read_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
    let refused = guarded.client(&mine).get(path);
    let problem = refused.expect_problem(503, "too_many_downloads", &["1 results", "to this tenant"]);
    assert_eq!(problem["limit"], json!({"name": "max_downloads_per_tenant", "value": 1}));
    assert_eq!(guarded.client(&yours).get("/v1/jobs/small/results/campaigns.csv").status, 200);
    download.vanish();
    wait_until("its place is free", || guarded.client(&mine).get(path).status == 200);
}
