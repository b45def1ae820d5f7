//! Uploads that break off, stall, or are overtaken by the end of the server: none counts by half.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{HEADER, Running, Workspace, send_signal};
use crate::senders::{FORM_TYPE, LAST_CHUNK, OpenUpload, chunk, chunked_head, csv, curl, form};
use crate::service::{PATIENCE, Service};

/// How a sender goes away.
#[derive(Clone, Copy, Debug)]
enum Farewell {
    Close,
    HalfClose,
    Reset,
}

const FAREWELLS: [Farewell; 3] = [Farewell::Close, Farewell::HalfClose, Farewell::Reset];

/// An answer that stays unread makes the end of a connection a reset.
const UNREAD: &str = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n";

/// Sends the beginning of a request, and goes away.
fn break_off(service: &Service, beginning: &[u8], farewell: Farewell) {
    let mut connection = service.connect();
    match farewell {
        Farewell::Close => {
            connection.send(beginning);
            connection.vanish();
        }
        Farewell::HalfClose => {
            connection.send(beginning).half_close();
            connection.read_rest();
        }
        Farewell::Reset => {
            connection.send(UNREAD).send(beginning);
            connection.reset();
        }
    }
}

/// Checks that a job waits for its sender, and has no results.
#[track_caller]
fn assert_incomplete(service: &Service, job: &str) -> Value {
    let job = service.wait_for_job(job, |job| job["state"] != "receiving");
    assert_eq!(
        (&job["state"], &job["finished_at"], &job["error"]),
        (&json!("interrupted"), &Value::Null, &Value::Null)
    );
    assert_eq!(job["files"][0]["error"]["type"], "urn:adtally:problem:upload_incomplete", "{job}");
    assert_eq!(job["files"][0]["error"]["status"], 400, "{job}");
    assert_eq!(job["links"]["resume"], job["files"][0]["links"]["self"], "{job}");
    assert_eq!((&job["stats"], &job["links"]["results"]), (&Value::Null, &json!({})), "{job}");
    assert_eq!((&job["top_ctr"], &job["top_cpa"]), (&json!([]), &json!([])), "{job}");
    assert!(job["files"].as_array().unwrap().iter().all(|file| file["state"] != "complete"), "{job}");
    assert!(!service.path("results").join(job["id"].as_str().unwrap()).exists());
    job
}

/// Waits until the store, which lists are made from, knows of no job that is being received.
#[track_caller]
fn wait_until_recorded(service: &Service) {
    let deadline = std::time::Instant::now() + PATIENCE / 4;
    loop {
        let receiving = service.get("/v1/jobs?state=receiving&limit=100").expect(200);
        if receiving["jobs"] == json!([]) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "the end is not recorded: {receiving}");
    }
}

/// Checks that the service takes uploads as before.
#[track_caller]
fn assert_fine(service: &Service) {
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.put("/v1/jobs/afterwards", &csv(3)).expect(201)["stats"]["rows_read"], 3);
}

#[test]
fn an_upload_of_known_length_that_is_cut_anywhere_does_not_count() {
    let service = Service::start();
    let body = csv(2000);
    let length = body.len();
    for farewell in FAREWELLS {
        for (stage, sent) in [("no byte", 0), ("one", 1), ("half", length / 2), ("all but one", length - 1)] {
            let name = format!("{farewell:?}-{sent}");
            let head = format!("PUT /v1/jobs/{name} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
            break_off(&service, &[head.as_bytes(), &body[..sent]].concat(), farewell);
            let job = assert_incomplete(&service, &name);
            assert_eq!(job["progress"]["bytes_expected"], length, "{farewell:?} {stage}");
        }
    }
    wait_until_recorded(&service);
    assert_fine(&service);
}

#[test]
fn a_chunked_upload_that_is_cut_anywhere_does_not_count() {
    let service = Service::start();
    let body = csv(2000);
    let request = |name: &str| {
        let (left, right) = body.split_at(body.len() / 2);
        let head = chunked_head(&format!("/v1/jobs/{name}"), "").into_bytes();
        let head_length = head.len();
        (head_length, [head, chunk(left), chunk(right), LAST_CHUNK.to_vec()].concat())
    };
    for farewell in FAREWELLS {
        let (head, whole) = request("Close-00");
        let last = whole.len();
        // After the head, in a size, in a chunk, between two, before the last one, in its size, before the last byte.
        let stages = [head, head + 1, head + 7, usize::midpoint(head, last), last - 5, last - 4, last - 2, last - 1];
        for (number, end) in stages.into_iter().enumerate() {
            let name = format!("{farewell:?}-{number:02}");
            let (own_head, whole) = request(&name);
            break_off(&service, &whole[..end + own_head - head], farewell);
            assert_incomplete(&service, &name);
        }
    }
    wait_until_recorded(&service);
    assert_fine(&service);
}

#[test]
fn a_request_that_is_cut_in_its_head_makes_no_job() {
    let service = Service::start();
    let head = "PUT /v1/jobs/headless HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n";
    for farewell in FAREWELLS {
        for end in [1, 5, 20, head.len() - 1] {
            break_off(&service, &head.as_bytes()[..end], farewell);
        }
    }
    assert_fine(&service);
    service.get("/v1/jobs/headless").expect_problem(404, "job_not_found", &[]);
}

#[test]
fn a_form_that_is_cut_has_no_results() {
    let service = Service::start();
    let part = ("name=\"file\"; filename=\"a.csv\"", &*csv(100));
    let body = form(&[part, part]);
    let length = body.len();
    // In the second file, when the first one is complete, and before the last byte that tells of the form's end.
    for sent in [length / 4, length * 3 / 4, length - 8] {
        for farewell in FAREWELLS {
            let name = format!("form-{sent}-{farewell:?}");
            let head = format!(
                "POST /v1/jobs?name={name} HTTP/1.1\r\nHost: test\r\nContent-Type: {FORM_TYPE}\r\n\
                 Content-Length: {length}\r\n\r\n"
            );
            break_off(&service, &[head.as_bytes(), &body[..sent]].concat(), farewell);
            let job = service.wait_for_job(&name, |job| job["state"] != "receiving");
            assert!(job["state"] == "open" || job["state"] == "interrupted", "{job}");
            assert_eq!((&job["finished_at"], &job["links"]["results"]), (&Value::Null, &json!({})), "{job}");
        }
    }
    wait_until_recorded(&service);
    assert_fine(&service);
}

#[test]
fn a_sender_that_still_listens_is_told_how_far_it_came() {
    let service = Service::start();
    let mut connection = service.connect();
    connection.send("PUT /v1/jobs/short HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n").send("0123456789");
    connection.half_close();
    let answer = connection.read_rest();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer:?}");
    assert!(answer.contains("upload_incomplete") && answer.contains("after 10 bytes"), "{answer:?}");
}

#[test]
fn chunks_that_are_none_break_an_upload() {
    let service = Service::start();
    for (number, bytes) in ["zz\r\n", "5\r\nabcdefgh\r\n", "ffffffffffffffffff\r\n", "-1\r\n"].iter().enumerate() {
        let name = format!("chunks-{number}");
        let mut connection = service.connect();
        connection.send(chunked_head(&format!("/v1/jobs/{name}"), "")).send(chunk(HEADER.as_bytes())).send(bytes);
        assert_incomplete(&service, &name);
        connection.vanish();
    }
    wait_until_recorded(&service);
    assert_fine(&service);
}

#[test]
fn an_upload_over_http2_that_is_cut_does_not_count() {
    let service = Service::start();
    let place = Workspace::new();
    place.write("ads.csv", csv(100_000));
    let file = place.path("ads.csv");
    let url = service.url("/v1/jobs/second");
    let slowly = ["--http2-prior-knowledge", "--limit-rate", "100k", "--max-time", "1"];
    let Some(run) = curl(&[&slowly[..], &["-T", file.to_str().unwrap(), &url]].concat(), Stdio::null()) else { return };
    assert_eq!(run.code, Some(28), "out of time: {run:?}");
    assert_incomplete(&service, "second");
    wait_until_recorded(&service);
    assert_fine(&service);
}

#[test]
fn ends_are_recorded_however_many_senders_vanish_at_once() {
    let service = Service::start();
    let body = csv(200);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for number in 0..16 {
                let (service, body) = (&service, &body);
                scope.spawn(move || {
                    let farewell = FAREWELLS[number % FAREWELLS.len()];
                    let head = chunked_head("/v1/jobs/crowd", "").into_bytes();
                    break_off(service, &[head, chunk(body)].concat(), farewell);
                });
            }
        });
        wait_until_recorded(&service);
    }
    let interrupted = service.get("/v1/jobs?name=crowd&state=interrupted&limit=100").expect(200);
    assert_eq!(interrupted["jobs"].as_array().unwrap().len(), 48);
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut service = Service::start();
    for round in 0..3 {
        let job = service.put(&format!("/v1/jobs/round-{round}"), &csv(50_000)).expect(201);
        let links = job["links"]["results"].as_object().unwrap().clone();
        let before: Vec<_> = links.values().map(|link| service.get(link.as_str().unwrap()).body).collect();
        // Once more, and the very next thing is a kill.
        let last = service.put("/v1/jobs/last", &csv(50_000)).expect(201);
        service.crash_and_restart();
        assert_eq!(service.get("/v1/jobs/last").expect(200), last);
        assert_eq!(service.get(&format!("/v1/jobs/round-{round}")).expect(200), job);
        let id = job["id"].as_str().unwrap();
        for ((name, link), before) in links.iter().zip(before) {
            assert_eq!(service.get(link.as_str().unwrap()).body, before, "{name}");
            assert_eq!(fs::read(service.path("results").join(id).join(name)).unwrap(), before, "{name}");
        }
        let files = fs::read_dir(service.path("results").join(last["id"].as_str().unwrap())).unwrap();
        assert_eq!(files.count(), last["links"]["results"].as_object().unwrap().len());
    }
}

#[test]
fn results_that_are_missing_as_files_are_written_at_the_next_start() {
    let mut service = Service::start();
    let job = service.put("/v1/jobs/ad_data.csv", &csv(50)).expect(201);
    let directory = service.path("results").join(job["id"].as_str().unwrap());
    let file = directory.join("top10_ctr.csv");
    let before = fs::read(&file).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    // As a fall in the middle of writing leaves it.
    let staged = service.path("results").join(format!(".{}.tmp", job["id"].as_str().unwrap()));
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("top10_ctr.csv"), "campaign_id").unwrap();
    service.crash_and_restart();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !directory.exists() {
        assert!(std::time::Instant::now() < deadline, "{} is not written", directory.display());
        std::thread::yield_now();
    }
    assert_eq!(fs::read(&file).unwrap(), before);
    assert!(!staged.exists());
}

#[test]
fn an_upload_that_a_kill_overtook_is_interrupted_after_the_restart() {
    let mut service = Service::start();
    let mut upload = OpenUpload::begin_with(&service, "overtaken", "Idempotency-Key: k\r\n");
    upload.send_until_shown(&service);
    service.crash_and_restart();
    let job = service.get("/v1/jobs/overtaken").expect(200);
    assert_eq!((&job["id"], &job["state"]), (&json!(upload.id), &json!("interrupted")));
    assert!(job["finished_at"].is_null() && job["expires_at"].is_string(), "{job}");
    assert_eq!((&job["links"]["results"], &job["top_ctr"]), (&json!({}), &json!([])));
    // Nothing of it was stored.
    assert_eq!((&job["files"][0]["state"], &job["files"][0]["offset"]), (&json!("waiting"), &json!(0)), "{job}");
    // It can be sent again with the same key.
    let reply = service.send("PUT", "/v1/jobs/overtaken", &[("idempotency-key", "k")], &csv(3));
    assert_eq!(reply.expect(201)["stats"]["rows_read"], 3);
}

#[test]
fn a_kill_while_results_are_stored_leaves_all_or_nothing() {
    let mut service = Service::start();
    let rows = crate::harness::lines(40_000, |number| format!("c{number},2025-01-01,1000,10,2.50,1"));
    let body = HEADER.to_owned() + &rows;
    for round in 0..4 {
        let name = format!("stored-{round}");
        let mut connection = service.connect();
        connection.send(chunked_head(&format!("/v1/jobs/{name}"), "")).send(chunk(body.as_bytes()));
        service.wait_for_job(&name, |_| true);
        connection.send(LAST_CHUNK);
        // Each round a little later: before the end, in the middle of storing, behind it.
        for _ in 0..round * 3 {
            assert_eq!(service.get("/healthz").status, 200);
        }
        service.crash_and_restart();
        let job = service.get(&format!("/v1/jobs/{name}")).expect(200);
        if job["state"] == "succeeded" {
            let campaigns = service.get(job["links"]["results"]["campaigns.csv"].as_str().unwrap());
            assert_eq!(campaigns.text().lines().count(), 40_001);
        } else {
            assert_eq!(job["state"], "interrupted", "{job}");
        }
    }
}

#[test]
fn a_sender_that_falls_silent_is_told_so() {
    let service = Service::start_with(&["--idle-timeout", "1s"]);
    let mut connection = service.connect();
    connection.send(chunked_head("/v1/jobs/silent", "")).send(chunk(HEADER.as_bytes()));
    let problem = connection.read_reply().expect_problem(408, "sender_stalled", &["1 seconds", "idle_timeout_seconds"]);
    let job = service.get(problem["job"].as_str().unwrap()).expect(200);
    assert_eq!((&job["state"], &job["files"][0]["error"]["type"]), (&json!("interrupted"), &problem["type"]));
    assert_eq!(job["files"][0]["offset"], HEADER.len());
    // Nor is one waited for that never begins, nor one that has no more than a part of a form.
    let mut connection = service.connect();
    connection.send("PUT /v1/jobs/never HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n");
    connection.read_reply().expect_problem(408, "sender_stalled", &["after 0 bytes"]);
    let mut connection = service.connect();
    let head = format!("Content-Type: {FORM_TYPE}\r\nContent-Length: 900\r\n\r\n--frontier\r\nContent-Dis");
    connection.send(format!("POST /v1/jobs HTTP/1.1\r\nHost: test\r\n{head}"));
    connection.read_reply().expect_problem(408, "sender_stalled", &["after 23 bytes"]);
    assert_fine(&service);
}

/// Asks a server to stop.
pub(crate) fn terminate(service: &mut Service) {
    send_signal("TERM", service.process().id());
}

#[test]
fn a_server_that_is_to_stop_lets_running_uploads_finish_and_takes_no_new_ones() {
    let mut service = Service::start();
    let mut upload = OpenUpload::begin(&service, "running");
    terminate(&mut service);
    loop {
        let reply = service.get("/readyz");
        if reply.status != 200 {
            reply.expect_problem(503, "draining", &["stopping"]);
            assert_eq!(reply.header("retry-after"), Some("1"));
            break;
        }
    }
    assert_eq!(service.get("/healthz").status, 200);
    let refused = service.put("/v1/jobs/late", &csv(1));
    refused.expect_problem(503, "draining", &["takes no new uploads"]);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let check = crate::harness::adtally().args(["healthcheck", "--listen", service.address()]).output().unwrap();
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    upload.send(b"A,2025-01-01,1,1,1,1\n");
    let job = upload.finish().expect(201);
    assert_eq!(job["stats"]["rows_read"], 1);
    assert_eq!(service.process().wait().unwrap().code(), Some(0));
    service.crash_and_restart();
    assert_eq!(service.get("/v1/jobs/running").expect(200), job);
    service.get("/v1/jobs/late").expect_problem(404, "job_not_found", &[]);
}

#[test]
fn uploads_that_take_too_long_are_ended_with_the_server_and_told_so() {
    let mut service = Service::start_with(&["--drain-timeout", "1s"]);
    let mut upload = OpenUpload::begin(&service, "endless");
    terminate(&mut service);
    let problem =
        upload.connection.read_reply().expect_problem(503, "server_stopped", &["bytes are stored: go on there"]);
    assert_eq!(service.process().wait().unwrap().code(), Some(0));
    service.crash_and_restart();
    let job = service.get("/v1/jobs/endless").expect(200);
    assert_eq!((&job["state"], &job["files"][0]["error"]["type"]), (&json!("interrupted"), &problem["type"]));
    assert_eq!(job["files"][0]["offset"], HEADER.len());
}

#[test]
fn asked_twice_a_server_stops_at_once() {
    let mut service = Service::start();
    let mut upload = OpenUpload::begin(&service, "endless");
    terminate(&mut service);
    while service.get("/readyz").status == 200 {}
    terminate(&mut service);
    upload.connection.read_reply().expect_problem(503, "server_stopped", &[]);
    assert_eq!(service.process().wait().unwrap().code(), Some(0));
}

#[test]
fn an_idle_server_stops_as_soon_as_it_is_asked() {
    let mut service = Service::start();
    // Connections without a request do not hold it back.
    let mut idle = service.connect();
    let mut begun = service.connect();
    begun.send("GET /healthz HT");
    idle.send(UNREAD);
    assert_eq!(idle.read_reply().status, 200);
    terminate(&mut service);
    assert_eq!(service.process().wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_server_does_not_end_the_uploads_of_the_first() {
    let service = Service::start();
    let upload = OpenUpload::begin(&service, "running");
    let second = service.command().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut second = Running(second);
    let mut line = String::new();
    let stdout = second.0.stdout.take().unwrap();
    // It either refuses to start or leaves the first one's jobs alone.
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert_eq!(upload.finish().expect(201)["state"], "succeeded", "the second server said {line:?}");
}

#[test]
fn a_form_is_complete_only_with_its_body() {
    let service = Service::start_with(&["--idle-timeout", "1s"]);
    let body = form(&[("name=\"file\"; filename=\"a.csv\"", &csv(2))]);
    let head = |length: usize| {
        let fields = format!("Content-Type: {FORM_TYPE}\r\nContent-Length: {length}\r\n\r\n");
        format!("POST /v1/jobs?name=form HTTP/1.1\r\nHost: test\r\n{fields}")
    };
    let mut connection = service.connect();
    connection.send(head(body.len() + 100)).send(&body);
    connection.read_reply().expect_problem(408, "sender_stalled", &[]);
    // Its file has come whole, but nobody has said that it was the last one.
    let job = service.get("/v1/jobs/form").expect(200);
    assert_eq!((&job["state"], &job["files"][0]["state"]), (&json!("open"), &json!("complete")));
    // What follows a form is no part of it (RFC 2046, 5.1.1).
    let mut connection = service.connect();
    connection.send(head(body.len() + 100)).send(&body).send([b'x'; 100]);
    connection.read_reply().expect(201);
}
