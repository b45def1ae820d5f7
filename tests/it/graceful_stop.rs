//! A server that is told to stop lets uploads finish for a while, stores what has come of the others, and ends in time.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broken_uploads::terminate;
use crate::database::Database;
use crate::expected::Expected;
use crate::files::{complete, file_path, job_path, open};
use crate::harness::{HEADER, gzip, lines};
use crate::senders::{FORM_TYPE, OpenUpload, csv, form, row};
use crate::service::{Connection, PATIENCE, Reply, Service};

/// A server takes no longer than this to stop beyond the time that uploads have: two seconds, and as much again on a busy machine.
const STOP_TIME: Duration = Duration::from_secs(4);

/// Tells a server to stop, and waits until it takes no uploads any more.
#[track_caller]
fn drain(service: &mut Service) {
    terminate(service);
    let deadline = Instant::now() + PATIENCE;
    while service.get("/readyz").status == 200 {
        assert!(Instant::now() < deadline, "the signal is not heard");
    }
}

/// Waits for the end of a server that was told to stop, and gives the time that it took from here on.
#[track_caller]
fn assert_stops(service: &mut Service) -> Duration {
    let begun = Instant::now();
    assert_eq!(service.process().wait().unwrap().code(), Some(0));
    begun.elapsed()
}

/// Sends the head of a request and the beginning of its body.
fn begin(service: &Service, request: &str, fields: &str, body: &[u8], sent: usize) -> Connection {
    let mut connection = service.connect();
    let length = body.len();
    connection.send(format!("{request} HTTP/1.1\r\nHost: test\r\n{fields}Content-Length: {length}\r\n\r\n"));
    connection.send(&body[..sent]);
    connection
}

#[track_caller]
fn stored_bytes(service: &Service, file: &str) -> usize {
    let head = service.request("HEAD", file);
    assert_eq!((head.status, head.header("upload-complete")), (200, Some("?0")), "{head:?}");
    head.header("upload-offset").unwrap().parse().unwrap()
}

#[track_caller]
fn go_on(service: &Service, file: &str, start: usize, whole: &[u8]) -> Value {
    service.send("PATCH", file, &[("upload-offset", &start.to_string())], &whole[start..]).expect(200)
}

#[test]
fn uploads_that_are_stopped_go_on_after_the_start_and_come_to_the_same() {
    let mut service = Service::start_with(&["--drain-timeout", "1s", "--checkpoint-interval", "0s"]);
    let bad_rows =
        lines(3000, |number| if number % 3 == 0 { format!("c{number},\"x\n") + "\",-1" } else { row(number) });
    let members: Vec<_> =
        (0..20).flat_map(|part| gzip(csv(300)[if part == 0 { 0 } else { HEADER.len() }..].as_ref())).collect();
    let uploads = [("plain", csv(5000)), ("messy", (HEADER.to_owned() + &bad_rows).into()), ("gzip", members)];
    let mut connections = Vec::new();
    for (name, whole) in &uploads {
        let (first, half) = (whole.len() / 4, whole.len() / 2);
        let mut connection = begin(&service, &format!("PUT /v1/jobs/{name}"), "", whole, first);
        service.wait_for_job(name, |job| job["progress"]["bytes_received"] == first);
        connection.send(&whole[first..half]);
        service.wait_for_job(name, |job| job["progress"]["bytes_received"] == half);
        connections.push(connection);
    }
    let id = open(&service, &json!({"name": "open"}));
    let (one, two) = (csv(700), csv(900));
    service.put(&file_path(&id, "one.csv"), &one).expect(201);
    connections.push(begin(&service, &format!("PUT {}", file_path(&id, "two.csv")), "", &two, 5000));
    service.wait_for_job(&id, |job| job["files"][1]["offset"] == 5000);
    terminate(&mut service);
    for mut connection in connections {
        let reply = connection.read_reply();
        reply.expect_problem(503, "server_stopped", &["bytes are stored: go on there"]);
        assert!(reply.header("upload-offset").is_some() && reply.header("retry-after").is_some(), "{reply:?}");
    }
    // All of them are told at the end of the time that they had.
    let took = assert_stops(&mut service);
    assert!(took < STOP_TIME, "{took:?}");

    service.crash_and_restart();
    for (name, whole) in &uploads {
        let job = service.get(&format!("/v1/jobs/{name}")).expect(200);
        assert_eq!(job["state"], "interrupted", "{job}");
        let file = job["links"]["resume"].as_str().unwrap();
        let start = stored_bytes(&service, file);
        // Everything that came is stored; of compressed data as far as it can be cut.
        let is_kept = if *name == "gzip" { start > 0 } else { start == whole.len() / 2 };
        assert!(is_kept, "{name}: {start} of {}", whole.len() / 2);
        let job = go_on(&service, file, start, whole);
        Expected::of([(*name, whole.as_slice())]).assert_are_those_of(&service, &job);
    }
    let job = service.get(&job_path(&id)).expect(200);
    assert_eq!((&job["state"], &job["files"][0]["state"]), (&json!("interrupted"), &json!("complete")), "{job}");
    let file = job["links"]["resume"].as_str().unwrap();
    assert_eq!(stored_bytes(&service, file), 5000);
    go_on(&service, file, 5000, &two);
    let job = complete(&service, &id).expect(200);
    Expected::of([("one.csv", one.as_slice()), ("two.csv", &two)]).assert_are_those_of(&service, &job);
}

#[test]
fn a_form_that_is_stopped_in_its_second_file_is_completed_after_the_start() {
    let mut service = Service::start_with(&["--drain-timeout", "0s"]);
    let files = [("a.csv", csv(300)), ("b.csv", csv(500))];
    let heads = files.each_ref().map(|(name, _)| format!("name=\"file\"; filename=\"{name}\""));
    let parts: Vec<_> = heads.iter().zip(&files).map(|(head, (_, file))| (head.as_str(), file.as_slice())).collect();
    let body = form(&parts);
    let fields = format!("Content-Type: {FORM_TYPE}\r\n");
    let mut connection = begin(&service, "POST /v1/jobs?name=form", &fields, &body, body.len() - 5000);
    service.wait_for_job("form", |job| job["files"][1]["offset"].as_u64() > Some(1000));
    terminate(&mut service);
    connection.read_reply().expect_problem(503, "server_stopped", &["the job is open now"]);
    assert_stops(&mut service);
    service.crash_and_restart();
    let job = service.get("/v1/jobs/form").expect(200);
    assert_eq!((&job["state"], &job["files"][0]["state"]), (&json!("interrupted"), &json!("complete")), "{job}");
    let file = job["links"]["resume"].as_str().unwrap();
    let start = stored_bytes(&service, file);
    assert!(start > 1000, "{start}");
    go_on(&service, file, start, &files[1].1);
    let job = complete(&service, job["id"].as_str().unwrap()).expect(200);
    let files = files.each_ref().map(|(name, contents)| (*name, contents.as_slice()));
    Expected::of(files).assert_are_those_of(&service, &job);
}

/// Sends all of a request without looking for an answer before the end, as many clients do.
#[track_caller]
fn send_all(service: &Service, request: &str, fields: &str, body: &[u8]) -> Reply {
    let mut connection = begin(service, request, fields, body, 0);
    for piece in body.chunks(64 * 1024) {
        assert!(connection.try_send(piece), "{request}: the server hung up before the end");
    }
    connection.read_reply()
}

#[test]
fn whatever_is_refused_by_a_server_that_stops_is_told_so_although_it_is_still_sending() {
    let mut service = Service::start();
    let whole = csv(60_000);
    let id = open(&service, &json!({"name": "open"}));
    service.put(&file_path(&id, "one.csv"), &csv(10)).expect(201);
    let mut cut = begin(&service, "PUT /v1/jobs/cut", "", &whole, 1000);
    cut.half_close();
    cut.read_rest();
    let job = service.get("/v1/jobs/cut").expect(200);
    let file = job["links"]["resume"].as_str().unwrap();
    let running = OpenUpload::begin(&service, "running");
    drain(&mut service);
    let form = form(&[("name=\"file\"; filename=\"a.csv\"", &whole)]);
    let form_fields = format!("Content-Type: {FORM_TYPE}\r\n");
    let rest = &whole[1000..];
    let range = format!("Content-Range: bytes 1000-{}/{}\r\n", whole.len() - 1, whole.len());
    let refused = [
        send_all(&service, "PUT /v1/jobs/late", "", &whole),
        send_all(&service, "PUT /v1/jobs/late", "Idempotency-Key: late\r\n", &whole),
        send_all(&service, "POST /v1/jobs?name=late", &form_fields, &form),
        send_all(&service, "POST /v1/jobs", "Content-Type: application/json\r\n", b"{\"name\":\"late\"}"),
        send_all(&service, &format!("PUT {}", file_path(&id, "two.csv")), "", &whole),
        send_all(&service, &format!("PATCH {file}"), "Upload-Offset: 1000\r\n", rest),
        send_all(&service, &format!("PUT {file}"), &range, rest),
    ];
    for reply in refused {
        reply.expect_problem(503, "draining", &["takes no new uploads"]);
        assert_eq!(reply.header("retry-after"), Some("1"), "{reply:?}");
    }
    // What is there is shown, and what has come whole may be completed.
    service.get("/v1/jobs/late").expect_problem(404, "job_not_found", &[]);
    assert_eq!(stored_bytes(&service, file), 1000);
    assert_eq!(complete(&service, &id).expect(200)["state"], "succeeded");
    assert_eq!(running.finish().expect(201)["state"], "succeeded");
    assert_stops(&mut service);
}

#[test]
fn a_server_whose_store_does_not_answer_stops_in_time() {
    let mut service = Service::start_with(&["--drain-timeout", "0s"]);
    let whole = csv(500);
    let mut cut = begin(&service, "PUT /v1/jobs/cut", "", &whole, 1000);
    cut.half_close();
    cut.read_rest();
    let file = service.get("/v1/jobs/cut").expect(200)["links"]["resume"].as_str().unwrap().to_owned();
    let _going_on = begin(&service, &format!("PATCH {file}"), "Upload-Offset: 1000\r\n", &whole[1000..], 500);
    service.wait_for_job("cut", |job| job["progress"]["bytes_received"] == 1500);
    let mut database = Database::of(&service);
    database.execute("BEGIN IMMEDIATE");
    terminate(&mut service);
    let took = assert_stops(&mut service);
    // The store alone would wait for ten seconds.
    assert!(took < STOP_TIME, "{took:?}");
    database.execute("COMMIT");
    service.crash_and_restart();
    assert_eq!(stored_bytes(&service, &file), 1000);
    let job = go_on(&service, &file, 1000, &whole);
    Expected::of([("cut", whole.as_slice())]).assert_are_those_of(&service, &job);
}

#[test]
fn a_sender_that_never_looks_for_its_answer_does_not_hold_the_server() {
    let mut service = Service::start_with(&["--drain-timeout", "1s"]);
    let whole = csv(60_000);
    let mut connection = begin(&service, "PUT /v1/jobs/endless", "", &whole, 1000);
    service.wait_for_job("endless", |job| job["progress"]["bytes_received"] == 1000);
    let begun = Instant::now();
    terminate(&mut service);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            whole[1000..].chunks(100).all(|piece| {
                thread::sleep(Duration::from_millis(1));
                connection.try_send(piece)
            })
        });
        assert_stops(&mut service);
        assert!(begun.elapsed() < Duration::from_secs(1) + STOP_TIME, "{:?}", begun.elapsed());
        assert!(!sender.join().unwrap(), "it has sent everything");
    });
    service.crash_and_restart();
    let job = service.get("/v1/jobs/endless").expect(200);
    let file = job["links"]["resume"].as_str().unwrap();
    let start = stored_bytes(&service, file);
    assert!(start >= 1000, "{job}");
    let job = go_on(&service, file, start, &whole);
    Expected::of([("endless", whole.as_slice())]).assert_are_those_of(&service, &job);
}

#[test]
fn a_refused_sender_that_falls_silent_does_not_hold_the_server() {
    let mut service = Service::start();
    let whole = csv(60_000);
    // It has its answer, and is silent in the middle of its body.
    let mut answered = begin(&service, "PUT /v1/jobs/refused?top=0", "", &whole, 1000);
    assert_eq!(answered.read_reply().status, 400);
    terminate(&mut service);
    let took = assert_stops(&mut service);
    assert!(took < STOP_TIME, "{took:?}");
}
