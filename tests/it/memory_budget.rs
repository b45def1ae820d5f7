//! Uploads that want more memory than there is: the oldest go on, the youngest are told to come again, and nothing is lost.

use std::ops::Range;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{HEADER, zstandard};
use crate::resume::{break_off, outcome, patch, place};
use crate::senders::{OpenUpload, chunk, chunked_head};
use crate::service::{Connection, PATIENCE, Reply, Service};

/// The least budget: 48 MiB are for uploads, the rest is set apart.
const BUDGET: [&str; 2] = ["--memory-budget", "64MiB"];

/// A row for each of these campaigns.
fn rows(campaigns: Range<u32>) -> Vec<u8> {
    campaigns.flat_map(|number| format!("C{number},2025-01-01,7,3,1.50,{}\n", number % 3).into_bytes()).collect()
}

fn file(campaigns: u32) -> Vec<u8> {
    [HEADER.as_bytes(), &rows(0..campaigns)].concat()
}

/// Checks that the sender is told to come again.
#[track_caller]
fn expect_refused(reply: &Reply) -> Value {
    let problem = reply.expect_problem(503, "memory_budget", &["memory"]);
    assert_eq!(reply.header("retry-after"), Some("1"), "{reply:?}");
    assert_eq!(problem["limit"], json!({"name": "memory_budget", "value": 64 << 20}), "{problem}");
    problem
}

fn has_counted(campaigns: u32) -> impl Fn(&Value) -> bool {
    move |job| job["progress"]["rows_read"] == campaigns
}

/// What a server without other uploads makes of a file.
fn expected(campaigns: u32) -> (Value, Vec<String>) {
    let service = Service::start();
    let job = service.put("/v1/jobs/expected", &file(campaigns)).expect(201);
    outcome(&service, &job)
}

/// Begins uploads that are held open until one is refused, whose answer is given.
fn fill(service: &Service) -> (Vec<Connection>, Reply) {
    let mut held = Vec::new();
    loop {
        let mut connection = service.connect();
        let path = format!("/v1/jobs/held{}", held.len());
        connection
            .send(format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"));
        let reply = connection.read_reply();
        if reply.status != 100 {
            assert_eq!(reply.header("connection"), Some("close"), "the body was asked for: {reply:?}");
            assert_eq!(service.get(&path).status, 404, "a job was made");
            return (held, reply);
        }
        held.push(connection);
        assert!(held.len() < 60, "nothing is refused");
    }
}

/// Begins so many uploads that are held open.
fn hold(service: &Service, count: usize) -> Vec<Connection> {
    let begin = |number| {
        let mut connection = service.connect();
        connection.send(format!(
            "PUT /v1/jobs/idle{number} HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
        ));
        assert_eq!(connection.read_reply().status, 100);
        connection
    };
    (0..count).map(begin).collect()
}

#[track_caller]
fn metric(service: &Service, name: &str) -> f64 {
    let metrics = service.get("/metrics");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing: {}", metrics.text())).parse().unwrap()
}

/// Tries again while it is told to.
#[track_caller]
fn again(send: impl Fn() -> Reply) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = send();
        if reply.status != 503 {
            return reply;
        }
        expect_refused(&reply);
        assert!(Instant::now() < deadline, "{reply:?}");
    }
}

#[test]
fn the_youngest_upload_makes_room_for_an_older_one_and_goes_on_later() {
    let service = Service::start_with(&BUDGET);
    let mut oldest = OpenUpload::begin(&service, "oldest");
    let mut youngest = OpenUpload::begin(&service, "youngest");
    let whole = file(150_000);
    youngest.send(&whole[HEADER.len()..]);
    service.wait_for_job(&youngest.id, has_counted(150_000));
    // This does not fit beside the other one, which sends nothing meanwhile.
    oldest.send(&rows(0..230_000));
    let refused = youngest.connection.read_reply();
    expect_refused(&refused);
    let finished = oldest.finish().expect(201);
    assert_eq!(finished["stats"]["unique_campaigns"], 230_000);
    assert!(outcome(&service, &finished) == expected(230_000), "other results");

    let job = service.get("/v1/jobs/youngest").expect(200);
    assert_eq!(job["state"], "interrupted", "{job}");
    let (path, offset) = place(&service, &job);
    assert_eq!(refused.header("upload-offset"), Some(offset.to_string().as_str()));
    assert_eq!(offset, whole.len(), "what had been counted was not stored");
    let more = rows(150_000..150_010);
    let finished = again(|| patch(&service, &path, offset, &more)).expect(200);
    assert!(outcome(&service, &finished) == expected(150_010), "other results");
}

#[test]
fn uploads_without_room_are_refused_before_their_body_and_no_file_goes_on() {
    let service = Service::start_with(&BUDGET);
    let whole = file(150_000);
    let job = break_off(&service, "broken", &whole, whole.len() - 10);
    let (path, offset) = place(&service, &job);
    let (held, reply) = fill(&service);
    expect_refused(&reply);
    assert!((metric(&service, "adtally_memory_budget_bytes") - f64::from(64 << 20)).abs() < 1.0);
    let used = metric(&service, "adtally_memory_used_bytes");
    assert!(used > f64::from(40 << 20), "{used} bytes are used");
    expect_refused(&patch(&service, &path, offset, &whole[offset..]));
    assert_eq!(place(&service, &job), (path.clone(), offset), "it waits as before");
    held.into_iter().for_each(Connection::vanish);
    let finished = again(|| patch(&service, &path, offset, &whole[offset..])).expect(200);
    assert!(outcome(&service, &finished) == expected(150_000), "other results");
}

#[test]
fn a_state_needs_its_memory_before_it_is_loaded() {
    let service = Service::start_with(&BUDGET);
    let whole = file(200_000);
    let job = break_off(&service, "broken", &whole, whole.len() - 10);
    let (path, offset) = place(&service, &job);
    let mut others = Vec::new();
    for name in ["first", "second"] {
        let mut other = OpenUpload::begin(&service, name);
        other.send(&rows(0..132_000));
        service.wait_for_job(&other.id, has_counted(132_000));
        others.push(other);
    }
    let held = hold(&service, 8);
    // There is room for one that begins, but not for this one.
    service.put("/v1/jobs/small", &file(10)).expect(201);
    expect_refused(&patch(&service, &path, offset, &whole[offset..]));
    held.into_iter().for_each(Connection::vanish);
    for other in others {
        other.finish().expect(201);
    }
    again(|| patch(&service, &path, offset, &whole[offset..])).expect(200);
}

#[test]
fn what_never_fits_fails_with_the_name_of_the_limit() {
    let service = Service::start_with(&BUDGET);
    let large = file(700_000);
    let compressed = zstandard(&large);
    for (coding, body) in [("identity", &large), ("zstd", &compressed)] {
        let reply = service.send("PUT", &format!("/v1/jobs/{coding}"), &[("content-encoding", coding)], body);
        let problem = reply.expect_problem(413, "memory_budget_exceeded", &["memory_budget"]);
        assert_eq!(problem["limit"], json!({"name": "memory_budget", "value": 64 << 20}), "{problem}");
        assert_eq!(service.get(&format!("/v1/jobs/{coding}")).expect(200)["state"], "failed");
    }
    // Two files that fit alone and not together.
    let job = service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let path = job["links"]["self"].as_str().unwrap();
    for (name, campaigns) in [("a", 0..150_000), ("b", 150_000..300_000)] {
        let body = [HEADER.as_bytes(), &rows(campaigns)].concat();
        service.put(&format!("{path}/files/{name}"), &body).expect(201);
    }
    let reply = service.request("POST", &format!("{path}/complete"));
    reply.expect_problem(413, "memory_budget_exceeded", &["memory_budget"]);

    service.put("/v1/jobs/after", &file(1000)).expect(201);
    let peak = service.peak_memory_bytes();
    assert!(peak < 160 << 20, "{peak} bytes were resident");
}

/// With glibc's own settings, memory of the second table stays with the process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn tables_of_uploads_that_have_ended_go_back_to_the_system() {
    let service = Service::start();
    let large = file(300_000);
    let [first, second] = ["first", "second"].map(|name| {
        service.put(&format!("/v1/jobs/{name}"), &large).expect(201);
        let deadline = Instant::now() + PATIENCE;
        while metric(&service, "adtally_memory_used_bytes") > 0.0 {
            assert!(Instant::now() < deadline, "memory is still used");
        }
        service.resident_memory_bytes()
    });
    let kept = second.saturating_sub(first);
    assert!(kept < 12 << 20, "{kept} bytes of the second table are still resident");
}

#[test]
fn windows_of_decompressors_count() {
    let service = Service::start_with(&BUDGET);
    // Each of these has a window of 8 MiB: five fill what sixty plain ones do.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(23)).unwrap();
    std::io::Write::write_all(&mut encoder, &file(20_000)).unwrap();
    std::io::Write::flush(&mut encoder).unwrap();
    let beginning = encoder.get_ref().clone();
    let mut held = Vec::new();
    let mut refused = None;
    for number in 0..6 {
        let name = format!("w{number}");
        let mut connection = service.connect();
        connection.send(chunked_head(&format!("/v1/jobs/{name}"), "Content-Encoding: zstd\r\n"));
        connection.send(chunk(&beginning));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = service.get(&format!("/v1/jobs/{name}"));
            let job = if reply.status == 200 { reply.json() } else { Value::Null };
            if job["state"] == "interrupted" {
                refused = Some(connection.read_reply());
                break;
            }
            if job["progress"]["rows_read"].as_u64() > Some(0) {
                held.push(connection);
                break;
            }
            assert!(Instant::now() < deadline, "{reply:?}");
        }
        if refused.is_some() {
            break;
        }
    }
    expect_refused(&refused.expect("all have room"));
    assert!((3..=5).contains(&held.len()), "{}", held.len());
}
