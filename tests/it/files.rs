//! Jobs of several files: any number of senders, one result, whatever happens in between.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::expected::Expected;
use crate::harness::{HEADER, gzip, lines, zstandard};
use crate::jobs::read_event;
use crate::senders::{LAST_CHUNK, chunk, chunked_head, csv};
use crate::service::{Connection, PATIENCE, Reply, Service};

/// Opens a job, and gives its id.
#[track_caller]
pub(crate) fn open(service: &Service, document: &Value) -> String {
    let headers = [("content-type", "application/json")];
    let job = service.send("POST", "/v1/jobs", &headers, document.to_string().as_bytes()).expect(201);
    assert_eq!((&job["state"], &job["files"]), (&json!("open"), &json!([])));
    job["id"].as_str().unwrap().to_owned()
}

pub(crate) fn job_path(id: &str) -> String {
    format!("/v1/jobs/{id}")
}

pub(crate) fn file_path(id: &str, file: &str) -> String {
    format!("/v1/jobs/{id}/files/{file}")
}

#[track_caller]
pub(crate) fn complete(service: &Service, id: &str) -> Reply {
    service.request("POST", &format!("/v1/jobs/{id}/complete"))
}

/// Completes a job whose results are perhaps being made.
#[track_caller]
pub(crate) fn complete_in_the_end(service: &Service, id: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = complete(service, id);
        if reply.status != 423 {
            return reply.expect(200);
        }
        reply.expect_problem(423, "job_finishing", &[]);
        assert!(Instant::now() < deadline, "{reply:?}");
    }
}

/// A file of an open job whose sender takes its time.
pub(crate) struct SlowFile {
    pub(crate) connection: Connection,
    text: String,
    path: String,
}

impl SlowFile {
    /// Sends the first line, and waits until the server shows the file as being received.
    #[track_caller]
    pub(crate) fn begin(service: &Service, id: &str, name: &str) -> Self {
        let path = file_path(id, name);
        let mut connection = service.connect();
        connection.send(chunked_head(&path, "")).send(chunk(HEADER.as_bytes()));
        let file = Self { connection, text: HEADER.to_owned(), path };
        file.wait_until(service, "receiving");
        file
    }

    #[track_caller]
    pub(crate) fn wait_until(&self, service: &Service, state: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = service.get(&self.path);
            if reply.status == 200 && reply.json()["state"] == state {
                return;
            }
            assert!(Instant::now() < deadline, "{reply:?}");
        }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.connection.send(chunk(text.as_bytes()));
        self.text.push_str(text);
    }

    #[track_caller]
    pub(crate) fn finish(mut self) -> (Reply, Vec<u8>) {
        self.connection.send(LAST_CHUNK);
        (self.connection.read_reply(), self.text.into_bytes())
    }
}

/// Files of a job by their names, as they are sent.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Files that differ in the order of their columns, their line ends, their quotes and their compression. Some rows do not count, in
/// all more of them than are reported.
fn samples(count: u32, rows: u32) -> Files {
    let sample = |file: u32| {
        let columns = ["campaign_id", "date", "impressions", "clicks", "spend", "conversions"];
        let mut order: Vec<usize> = (0..6).collect();
        order.rotate_left(file as usize % 6);
        let line = |values: [String; 6]| order.iter().map(|at| values[*at].clone()).collect::<Vec<_>>().join(",");
        let text = line(columns.map(str::to_owned))
            + "\n"
            + &lines(rows, |row| {
                let clicks = if row % (rows / 12) == 5 { "many".to_owned() } else { (row % 50).to_string() };
                let id = (row * 7 + file * 31) % 400;
                let id = if row % 3 == 0 { format!("\"c, {id}\"") } else { format!("c{id}") };
                line([
                    id,
                    "2025-01-01".into(),
                    (1000 + row % 17).to_string(),
                    clicks,
                    format!("{}.25", row % 90),
                    (row % 4).to_string(),
                ])
            });
        let text = if file % 2 == 1 { text.replace('\n', "\r\n") } else { text };
        let bytes = match file % 3 {
            0 => text.into_bytes(),
            1 => gzip(text.as_bytes()),
            _ => zstandard(text.as_bytes()),
        };
        (format!("file-{file}.csv"), bytes)
    };
    (0..count).map(sample).collect()
}

/// Checks that a job has succeeded with what the command makes of the same files in the order in which the job shows them.
#[track_caller]
pub(crate) fn assert_as_by_command(service: &Service, job: &Value, files: &Files) {
    assert_eq!(job["state"], "succeeded", "{job}");
    let shown = job["files"].as_array().unwrap();
    assert_eq!(shown.len(), files.len(), "{job}");
    let in_order = shown.iter().map(|file| {
        assert_eq!(file["state"], "complete", "{file}");
        let (name, contents) = files.get_key_value(file["name"].as_str().unwrap()).unwrap();
        assert_eq!((&file["length"], &file["offset"]), (&json!(contents.len()), &json!(contents.len())), "{file}");
        (name.as_str(), contents.as_slice())
    });
    Expected::of(in_order).assert_are_those_of(service, job);
}

#[test]
fn two_senders_at_once_come_to_what_the_command_makes_of_the_same_files() {
    let service = Service::start();
    let id = open(&service, &json!({"name": "together"}));
    complete(&service, &id).expect_problem(409, "no_files", &[]);
    let mut held = SlowFile::begin(&service, &id, "held.csv");
    let mut files = samples(16, 1500);
    let is_over = AtomicBool::new(false);
    let most_campaigns = thread::scope(|scope| {
        let (even, odd): (Vec<_>, Vec<_>) = files.iter().enumerate().partition(|(number, _)| number % 2 == 0);
        let senders = [even, odd].map(|share| {
            let (service, id) = (&service, &id);
            scope.spawn(move || {
                for (_, (name, body)) in share {
                    let reply = service.put(&file_path(id, name), body);
                    let file = reply.expect(201);
                    assert_eq!((&file["state"], &file["length"]), (&json!("complete"), &json!(body.len())));
                    assert_eq!(reply.header("location"), Some(&*file_path(id, name)));
                    assert_eq!(service.get(&file_path(id, name)).expect(200), file);
                }
            })
        });
        let poller = scope.spawn(|| {
            let (mut before, mut most_campaigns) = ((0, 0, 0), 0);
            while !is_over.load(Ordering::Relaxed) {
                let job = service.get(&job_path(&id)).expect(200);
                let number = |name: &str| job["progress"][name].as_u64().unwrap();
                let now = (number("bytes_received"), number("rows_read"), number("rows_skipped"));
                assert!(
                    now.0 >= before.0 && now.1 >= before.1 && now.2 >= before.2,
                    "{before:?} became {now:?}: {job}"
                );
                assert_eq!(job["state"], "receiving");
                before = now;
                most_campaigns = most_campaigns.max(number("unique_campaigns"));
            }
            most_campaigns
        });
        let hasty = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                complete(&service, &id).expect_problem(409, "files_incomplete", &["held.csv"]);
            }
        });
        for sender in senders {
            sender.join().unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while service.get(&job_path(&id)).expect(200)["top_ctr"] == json!([]) {
            assert!(Instant::now() < deadline, "no leaders are shown");
            held.send("c7,2025-01-01,1000,10,2.50,1\n");
        }
        is_over.store(true, Ordering::Relaxed);
        hasty.join().unwrap();
        poller.join().unwrap()
    });
    let (reply, text) = held.finish();
    assert_eq!(reply.expect(201)["state"], "complete");
    files.insert("held.csv".to_owned(), text);
    let job = complete(&service, &id).expect(200);
    assert!(Some(most_campaigns) <= job["stats"]["unique_campaigns"].as_u64(), "{most_campaigns} were shown: {job}");
    assert_as_by_command(&service, &job, &files);
    assert_eq!(complete(&service, &id).expect(200), job, "once more it is what was asked for");
    assert_eq!(service.get(&format!("{}/files", job_path(&id))).expect(200)["files"], job["files"]);
}

#[test]
fn whatever_is_complete_survives_a_kill_between_any_two_files() {
    let mut service = Service::start();
    let id = open(&service, &json!({}));
    service.crash_and_restart();
    let files = samples(5, 300);
    for (name, body) in &files {
        let cut_off = SlowFile::begin(&service, &id, name);
        assert_eq!(service.get(&job_path(&id)).expect(200)["state"], "receiving");
        service.crash_and_restart();
        drop(cut_off);
        let job = service.get(&job_path(&id)).expect(200);
        assert_eq!(job["state"], "open", "{job}");
        assert!(job["expires_at"].is_string(), "{job}");
        assert_eq!(service.get(&file_path(&id, name)).expect(200)["state"], "waiting");
        complete(&service, &id).expect_problem(409, "files_incomplete", &[name]);
        let file = service.put(&file_path(&id, name), body).expect(201);
        service.crash_and_restart();
        assert_eq!(service.get(&file_path(&id, name)).expect(200), file);
    }
    let job = complete(&service, &id).expect(200);
    assert_as_by_command(&service, &job, &files);
    service.crash_and_restart();
    assert_eq!(service.get(&job_path(&id)).expect(200), job);
    assert_eq!(complete(&service, &id).expect(200), job);
}

/// Two files of many campaigns, which take a while to be made into results.
fn large() -> Files {
    let body = |first: u32| {
        let rows = lines(15_000, |number| format!("campaign-{},d,1000,{},2.50,1", first + number, number % 90));
        (HEADER.to_owned() + &rows).into_bytes()
    };
    [("a.csv".to_owned(), body(0)), ("b.csv".to_owned(), body(7_500))].into()
}

#[test]
fn a_kill_at_any_moment_of_the_completion_loses_nothing() {
    let mut service = Service::start();
    let files = large();
    for round in 0..8 {
        let id = open(&service, &json!({"name": format!("round-{round}")}));
        for (name, body) in &files {
            service.put(&file_path(&id, name), body).expect(201);
        }
        let mut connection = service.connect();
        connection.send(format!("POST /v1/jobs/{id}/complete HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"));
        let moment = Instant::now() + Duration::from_millis(round * 40);
        while Instant::now() < moment {
            thread::yield_now();
        }
        service.crash_and_restart();
        let job = service.get(&job_path(&id)).expect(200);
        assert!(["open", "receiving", "succeeded"].contains(&job["state"].as_str().unwrap()), "round {round}: {job}");
        let job = complete_in_the_end(&service, &id);
        assert_as_by_command(&service, &job, &files);
        assert_eq!(service.get(&job_path(&id)).expect(200), job);
    }
}

#[test]
fn of_many_completions_at_once_one_makes_the_results() {
    let service = Service::start();
    let files = large();
    let id = open(&service, &json!({}));
    for (name, body) in &files {
        service.put(&file_path(&id, name), body).expect(201);
    }
    let start = Barrier::new(9);
    let replies: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    complete(&service, &id)
                })
            })
            .collect();
        start.wait();
        // Meanwhile others ask for what is refused before, during and after, each time for another reason.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let other = service.put(&file_path(&id, "a.csv"), &csv(1));
            let deleted = service.request("DELETE", &file_path(&id, "nobody.csv"));
            for (reply, code) in [(other, "file_complete"), (deleted, "file_not_found")] {
                match reply.status {
                    423 => {
                        reply.expect_problem(423, "job_finishing", &[&id]);
                        assert!(reply.header("retry-after").is_some());
                    }
                    404 => drop(reply.expect_problem(404, code, &[])),
                    _ => {
                        let problem = reply.expect(409);
                        let codes = [code, "job_ended"].map(|code| json!(format!("urn:adtally:problem:{code}")));
                        assert!(codes.contains(&problem["type"]), "{problem}");
                    }
                }
            }
            if service.get(&job_path(&id)).expect(200)["state"] == "succeeded" {
                break;
            }
            assert!(Instant::now() < deadline, "nobody completes it");
        }
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let job = complete(&service, &id).expect(200);
    for reply in replies {
        if reply.status == 200 {
            assert_eq!(reply.json(), job);
        } else {
            reply.expect_problem(423, "job_finishing", &[&id]);
            assert!(reply.header("retry-after").is_some());
        }
    }
    assert_as_by_command(&service, &job, &files);
}

#[test]
fn a_completion_and_an_end_at_once_leave_one_truth() {
    let service = Service::start();
    for round in 0..30 {
        let id = open(&service, &json!({}));
        service.put(&file_path(&id, "a.csv"), &csv(20)).expect(201);
        let (method, path) =
            if round % 2 == 0 { ("DELETE", job_path(&id)) } else { ("POST", job_path(&id) + "/cancel") };
        let start = Barrier::new(2);
        let (completed, ended) = thread::scope(|scope| {
            let other = scope.spawn(|| {
                start.wait();
                service.request(method, &path)
            });
            start.wait();
            (complete(&service, &id), other.join().unwrap())
        });
        let job = service.get(&job_path(&id));
        let way = format!("round {round}: {completed:?} and {ended:?} leave {job:?}");
        if method == "DELETE" {
            assert!(ended.status == 204 && job.status == 404, "{way}");
            assert!([200, 404, 409].contains(&completed.status), "{way}");
            assert!(!service.path("results").join(&id).exists(), "{way}");
        } else {
            let job = job.expect(200);
            let (expected, names) = match job["state"].as_str().unwrap() {
                "succeeded" => ((200, 409), 4),
                "cancelled" => ((409, 200), 0),
                _ => panic!("{way}"),
            };
            assert_eq!((completed.status, ended.status), expected, "{way}");
            assert_eq!(job["links"]["results"].as_object().unwrap().len(), names, "{way}");
            assert_eq!(service.path("results").join(&id).exists(), names > 0, "{way}");
        }
    }
}

#[test]
fn the_end_of_a_job_is_told_to_all_who_send_its_files() {
    let service = Service::start();
    for (method, path, status) in [("POST", "/cancel", 200), ("DELETE", "", 204)] {
        let idle = open(&service, &json!({}));
        assert_eq!(service.request(method, &(job_path(&idle) + path)).status, status);
        let id = open(&service, &json!({}));
        service.put(&file_path(&id, "done.csv"), &csv(3)).expect(201);
        let senders = ["one.csv", "two.csv"].map(|name| SlowFile::begin(&service, &id, name));
        assert_eq!(service.request(method, &(job_path(&id) + path)).status, status);
        for mut sender in senders {
            sender.connection.read_reply().expect_problem(409, "upload_cancelled", &[]);
        }
        for id in [idle, id] {
            if status == 204 {
                service.get(&job_path(&id)).expect_problem(404, "job_not_found", &[]);
                complete(&service, &id).expect_problem(404, "job_not_found", &[]);
                service.put(&file_path(&id, "late.csv"), &csv(1)).expect_problem(404, "job_not_found", &[]);
            } else {
                let job = service.get(&job_path(&id)).expect(200);
                assert_eq!((&job["state"], &job["links"]["results"]), (&json!("cancelled"), &json!({})));
                complete(&service, &id).expect_problem(409, "job_ended", &["cancelled"]);
                service.put(&file_path(&id, "late.csv"), &csv(1)).expect_problem(409, "job_ended", &["cancelled"]);
            }
        }
    }
}

#[track_caller]
fn wait_until_expired(service: &Service, id: &str) {
    let deadline = Instant::now() + PATIENCE;
    while service.get(&job_path(id)).status == 200 {
        assert!(Instant::now() < deadline, "it does not expire");
    }
    service.get(&job_path(id)).expect_problem(410, "job_expired", &[]);
}

#[test]
fn an_open_job_expires_unless_a_file_is_received() {
    let mut service = Service::start_with(&["--keep-open", "1s"]);
    let forgotten = open(&service, &json!({}));
    wait_until_expired(&service, &forgotten);
    complete(&service, &forgotten).expect_problem(410, "job_expired", &[]);
    service.put(&file_path(&forgotten, "late.csv"), &csv(1)).expect_problem(410, "job_expired", &[]);
    service.request("DELETE", &file_path(&forgotten, "late.csv")).expect_problem(410, "job_expired", &[]);
    let id = open(&service, &json!({}));
    let sender = SlowFile::begin(&service, &id, "slow.csv");
    let later = Instant::now() + Duration::from_secs(2);
    while Instant::now() < later {
        let job = service.get(&job_path(&id)).expect(200);
        assert_eq!((&job["state"], &job["expires_at"]), (&json!("receiving"), &Value::Null));
    }
    let (reply, _) = sender.finish();
    reply.expect(201);
    wait_until_expired(&service, &id);
    service.crash_and_restart();
    service.get(&job_path(&id)).expect_problem(410, "job_expired", &[]);
    assert_eq!(service.get("/v1/jobs").expect(200)["jobs"], json!([]));
}

#[test]
fn an_open_job_expires_also_while_it_is_watched() {
    let service = Service::start_with(&["--keep-open", "1s"]);
    let id = open(&service, &json!({}));
    let mut events = service.connect();
    events.send(format!("GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert_eq!(read_event(&mut events).1["state"], "open");
    wait_until_expired(&service, &id);
    // The stream ends.
    events.read_until("0\r\n\r\n");
}

#[test]
fn who_watches_an_open_job_hears_of_its_files_and_its_end() {
    let service = Service::start();
    let id = open(&service, &json!({"name": "watched"}));
    let mut events = service.connect();
    events.send("GET /v1/jobs/watched/events HTTP/1.1\r\nHost: test\r\n\r\n");
    let (name, job) = read_event(&mut events);
    assert_eq!((&*name, &job["state"]), ("state", &json!("open")));
    let mut states = Vec::new();
    let wait_for_change = |etag: &str| {
        let headers = [("prefer", "wait=50"), ("if-none-match", etag)];
        service.send("GET", &job_path(&id), &headers, b"")
    };
    let etag = service.get(&job_path(&id)).header("etag").unwrap().to_owned();
    let (sender, changed) = thread::scope(|scope| {
        let waiter = scope.spawn(|| wait_for_change(&etag));
        (SlowFile::begin(&service, &id, "a.csv"), waiter.join().unwrap())
    });
    assert_eq!(
        (&changed.expect(200)["state"], &changed.json()["files"][0]["name"]),
        (&json!("receiving"), &json!("a.csv"))
    );
    sender.finish().0.expect(201);
    service.put(&file_path(&id, "b.csv"), &csv(3)).expect(201);
    let reply = service.get(&job_path(&id));
    assert_eq!(reply.expect(200)["state"], "open");
    let etag = reply.header("etag").unwrap().to_owned();
    let (done, changed) = thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut changed = wait_for_change(&etag);
            while changed.expect(200)["state"] != "succeeded" {
                changed = wait_for_change(changed.header("etag").unwrap());
            }
            changed.json()
        });
        (complete(&service, &id).expect(200), waiter.join().unwrap())
    });
    assert_eq!(done, changed);
    let last = loop {
        let (name, job) = read_event(&mut events);
        if job["state"] == "succeeded" {
            break (name, job);
        }
        states.push((job["state"].clone(), job["files"].as_array().unwrap().len()));
    };
    assert_eq!(last, ("state".to_owned(), done));
    assert!(states.contains(&(json!("receiving"), 1)) && states.contains(&(json!("open"), 2)), "{states:?}");
    events.read_until("0\r\n\r\n");
}

#[test]
fn a_completion_right_behind_the_last_byte_shows_every_file_as_complete() {
    let service = Service::start();
    let files = large();
    for _ in 0..10 {
        let id = open(&service, &json!({}));
        // One that is being received, so that nobody completes the job before all files have begun.
        let held = SlowFile::begin(&service, &id, "held.csv");
        let start = Barrier::new(files.len() + 1);
        let (job, text) = thread::scope(|scope| {
            let senders: Vec<_> = files
                .iter()
                .map(|(name, body)| {
                    let mut connection = service.connect();
                    let (path, start) = (file_path(&id, name), &start);
                    connection.send(chunked_head(&path, "")).send(chunk(body));
                    scope.spawn(move || {
                        start.wait();
                        connection.send(LAST_CHUNK);
                        connection.read_reply().expect(201);
                    })
                })
                .collect();
            wait_for_files(&service, &id, files.len() + 1);
            let (reply, text) = held.finish();
            reply.expect(201);
            start.wait();
            // The answers to the senders are not waited for.
            let deadline = Instant::now() + PATIENCE;
            let job = loop {
                let reply = complete(&service, &id);
                if reply.status == 200 {
                    break reply.json();
                }
                reply.expect_problem(409, "files_incomplete", &[]);
                assert!(Instant::now() < deadline, "{reply:?}");
            };
            for sender in senders {
                sender.join().unwrap();
            }
            (job, text)
        });
        let mut files = files.clone();
        files.insert("held.csv".to_owned(), text);
        assert_as_by_command(&service, &job, &files);
    }
}

#[track_caller]
fn wait_for_files(service: &Service, id: &str, count: usize) {
    service.wait_for_job(id, |job| job["files"].as_array().unwrap().len() == count);
}
