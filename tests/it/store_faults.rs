//! A store that fails, hangs, is full or is damaged: nothing is acknowledged that is not stored, others go on, and afterwards so does
//! whoever was disturbed.

use std::thread;

use serde_json::{Value, json};

use crate::database::Database;
use crate::expected::Expected;
use crate::files::{complete, file_path, job_path, open};
use crate::senders::{OpenUpload, csv};
use crate::service::{Reply, Service};
use crate::storage::{SMALL_FILES, too_many_campaigns};

/// A statement that the database refuses, until the fault ends.
struct Fault(Database);

impl Fault {
    #[track_caller]
    fn begin(service: &Service, event: &str) -> Self {
        let mut database = Database::of(service);
        database.execute(&format!("CREATE TRIGGER fault {event} BEGIN SELECT RAISE(ABORT, 'fault'); END"));
        Self(database)
    }

    #[track_caller]
    fn end(mut self) {
        self.0.execute("DROP TRIGGER fault");
    }
}

fn start() -> Service {
    Service::start_with(&["--checkpoint-interval", "0s"])
}

/// Sends the beginning of a file as a job of its own, breaks off, and gives where the file is found.
#[track_caller]
fn break_off(service: &Service, name: &str, whole: &[u8], sent: usize) -> String {
    let mut connection = service.connect();
    let head = format!("PUT /v1/jobs/{name} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", whole.len());
    connection.send(head).send(&whole[..sent]).half_close();
    connection.read_rest();
    let job = service.get(&format!("/v1/jobs/{name}")).expect(200);
    job["files"][0]["links"]["self"].as_str().unwrap().to_owned()
}

#[track_caller]
fn stored_bytes(service: &Service, file: &str) -> usize {
    let head = service.request("HEAD", file);
    assert_eq!(head.status, 200, "{head:?}");
    head.header("upload-offset").unwrap().parse().unwrap()
}

fn patch(service: &Service, file: &str, start: usize, bytes: &[u8], complete: &str) -> Reply {
    let fields = [("upload-offset", &*start.to_string()), ("upload-complete", complete)];
    service.send("PATCH", file, &fields, bytes)
}

/// Goes on with a file where it stands, until its job has succeeded with what the file comes to.
#[track_caller]
fn go_on(service: &Service, file: &str, whole: &[u8]) {
    let start = stored_bytes(service, file);
    let job = patch(service, file, start, &whole[start..], "?1").expect(200);
    Expected::of([("file", whole)]).assert_are_those_of(service, &job);
}

#[track_caller]
fn assert_serves_others(service: &Service) {
    assert_eq!(service.put("/v1/jobs/other", &csv(5)).expect(201)["state"], "succeeded");
    assert_eq!(service.get("/v1/jobs?limit=1").expect(200)["jobs"][0]["name"], "other");
}

/// Checks that a request was refused for the store's sake, and may be tried again.
#[track_caller]
fn assert_unavailable(reply: &Reply) -> Value {
    let problem = reply.expect_problem(503, "store_unavailable", &[]);
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    problem
}

#[test]
fn checkpoints_that_cannot_be_stored_do_not_disturb_an_upload() {
    let service = start();
    let fault = Fault::begin(&service, "BEFORE INSERT ON checkpoints");
    let whole = csv(20_000);
    let job = service.put("/v1/jobs/undisturbed", &whole).expect(201);
    Expected::of([("file", whole.as_slice())]).assert_are_those_of(&service, &job);
    fault.end();
}

#[test]
fn what_cannot_be_stored_of_an_upload_is_not_acknowledged_and_is_sent_again_later() {
    let service = start();
    let whole = csv(500);
    for event in ["BEFORE INSERT ON checkpoints", "BEFORE UPDATE OF durable_offset ON files"] {
        let name = format!("job-{}", event.len());
        let file = break_off(&service, &name, &whole, 1000);
        assert_eq!(stored_bytes(&service, &file), 1000);
        let fault = Fault::begin(&service, event);
        assert_unavailable(&patch(&service, &file, 1000, &whole[1000..2000], "?0"));
        assert_eq!(stored_bytes(&service, &file), 1000);
        assert_serves_others(&service);
        fault.end();
        let job = service.wait_for_job(&name, |job| job["state"] == "interrupted");
        assert_eq!((&job["files"][0]["offset"], &job["links"]["resume"]), (&json!(1000), &json!(file)));
        go_on(&service, &file, &whole);
    }
}

#[test]
fn a_file_whose_end_cannot_be_recorded_waits_for_its_sender_as_soon_as_that_can_be() {
    let mut service = start();
    let whole = csv(500);
    for is_started_over in [false, true] {
        let name = format!("job-{is_started_over}");
        let mut connection = service.connect();
        let head = format!("PUT /v1/jobs/{name} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", whole.len());
        connection.send(head).send(&whole[..1000]);
        service.wait_for_job(&name, |job| job["files"][0]["offset"] == 1000);
        let fault = Fault::begin(&service, "BEFORE UPDATE ON files");
        connection.half_close();
        let answer = connection.read_rest();
        assert!(!answer.to_lowercase().contains("upload-offset"), "{answer}");
        assert_serves_others(&service);
        fault.end();
        let job = service.wait_for_job(&name, |job| job["state"] == "interrupted");
        let file = job["links"]["resume"].as_str().unwrap().to_owned();
        if is_started_over {
            let job = service.put(&file, &whole).expect(200);
            Expected::of([("file", whole.as_slice())]).assert_are_those_of(&service, &job);
        } else {
            go_on(&service, &file, &whole);
        }
    }
    let list = service.get("/v1/jobs").expect(200);
    service.crash_and_restart();
    assert_eq!(service.get("/v1/jobs").expect(200), list);
}

#[test]
fn a_file_of_an_open_job_is_complete_only_once_its_totals_are_stored() {
    let service = start();
    for event in ["BEFORE INSERT ON file_totals", "BEFORE UPDATE OF place ON files"] {
        let id = open(&service, &json!({}));
        let file = file_path(&id, "a.csv");
        let fault = Fault::begin(&service, event);
        assert_unavailable(&service.put(&file, &csv(300)));
        assert_eq!(service.get(&file).expect(200)["state"], "waiting");
        complete(&service, &id).expect_problem(409, "files_incomplete", &["a.csv"]);
        assert_serves_others(&service);
        fault.end();
        service.put(&file, &csv(300)).expect(201);
        let job = complete(&service, &id).expect(200);
        Expected::of([("a.csv", csv(300).as_slice())]).assert_are_those_of(&service, &job);
    }
}

#[test]
fn results_that_cannot_be_stored_interrupt_an_upload_and_leave_an_open_job_open() {
    let mut service = start();
    let id = open(&service, &json!({}));
    service.put(&file_path(&id, "a.csv"), &csv(300)).expect(201);
    for event in ["BEFORE INSERT ON results", "BEFORE INSERT ON result_pieces"] {
        let fault = Fault::begin(&service, event);
        let problem = assert_unavailable(&service.put("/v1/jobs/late", &csv(300)));
        let late = service.get("/v1/jobs/late").expect(200);
        assert_eq!(
            (&late["state"], &late["files"][0]["error"]["type"]),
            (&json!("interrupted"), &problem["type"]),
            "{late}"
        );
        assert_unavailable(&complete(&service, &id));
        let job = service.get(&job_path(&id)).expect(200);
        assert_eq!((&job["state"], &job["files"][0]["state"]), (&json!("open"), &json!("complete")), "{job}");
        fault.end();
        assert_serves_others(&service);
        let late = service.put(late["links"]["resume"].as_str().unwrap(), &csv(300)).expect(200);
        Expected::of([("late", csv(300).as_slice())]).assert_are_those_of(&service, &late);
    }
    service.crash_and_restart();
    let job = complete(&service, &id).expect(200);
    Expected::of([("a.csv", csv(300).as_slice())]).assert_are_those_of(&service, &job);
}

#[test]
fn an_open_job_is_open_again_as_soon_as_that_can_be_recorded() {
    let mut service = start();
    let id = open(&service, &json!({}));
    service.put(&file_path(&id, "a.csv"), &csv(300)).expect(201);
    // Neither its results nor their failure.
    let fault = Fault::begin(&service, "BEFORE UPDATE ON jobs WHEN OLD.finishing = 1");
    assert_unavailable(&complete(&service, &id));
    assert_eq!(service.get(&job_path(&id)).expect(200)["state"], "receiving");
    complete(&service, &id).expect_problem(423, "job_finishing", &[]);
    assert_serves_others(&service);
    fault.end();
    let job = complete(&service, &id).expect(200);
    Expected::of([("a.csv", csv(300).as_slice())]).assert_are_those_of(&service, &job);
    let list = service.get("/v1/jobs").expect(200);
    service.crash_and_restart();
    assert_eq!(service.get("/v1/jobs").expect(200), list);
}

#[test]
fn a_cancel_that_cannot_be_recorded_is_not_acknowledged() {
    let service = start();
    let upload = OpenUpload::begin(&service, "running");
    let fault = Fault::begin(&service, "BEFORE UPDATE OF state ON jobs");
    assert_unavailable(&service.request("POST", &format!("/v1/jobs/{}/cancel", upload.id)));
    fault.end();
    assert_eq!(service.request("POST", &format!("/v1/jobs/{}/cancel", upload.id)).expect(200)["state"], "cancelled");
    upload.connection.vanish();
    assert_serves_others(&service);
}

#[test]
fn while_the_database_is_locked_others_read_and_uploads_wait() {
    let service = start();
    let upload = OpenUpload::begin(&service, "waits");
    let mut database = Database::of(&service);
    database.execute("BEGIN IMMEDIATE");
    thread::scope(|scope| {
        let id = upload.id.clone();
        let sender = scope.spawn(|| upload.finish());
        for _ in 0..50 {
            assert_eq!(service.get(&job_path(&id)).expect(200)["state"], "receiving");
            assert_eq!(service.get("/v1/jobs").status, 200);
        }
        assert!(!sender.is_finished(), "it has been acknowledged and cannot have been stored");
        database.execute("COMMIT");
        assert_eq!(sender.join().unwrap().expect(201)["state"], "succeeded");
    });
}

#[test]
#[ignore = "it takes half a minute"]
fn while_the_database_stays_locked_nothing_new_is_taken() {
    let service = start();
    let mut database = Database::of(&service);
    database.execute("BEGIN IMMEDIATE");
    assert_unavailable(&service.put("/v1/jobs/refused", &csv(5)));
    database.execute("COMMIT");
    service.get("/v1/jobs/refused").expect_problem(404, "job_not_found", &[]);
    assert_serves_others(&service);
}

#[test]
fn a_file_that_finds_no_room_stays_where_it_was_and_others_go_on() {
    let service = Service::start_in_shell(SMALL_FILES);
    let whole = too_many_campaigns().into_bytes();
    let file = break_off(&service, "large", &whole, 1000);
    assert_eq!(stored_bytes(&service, &file), 1000);
    let small = csv(500);
    let other = break_off(&service, "small", &small, 1000);
    for _ in 0..3 {
        let reply = patch(&service, &file, 1000, &whole[1000..whole.len() - 10], "?0");
        let problem = reply.expect(reply.status);
        assert!(matches!(reply.status, 503 | 507), "{problem}");
        assert_eq!(reply.header("upload-offset"), None, "{reply:?}");
        assert_eq!(stored_bytes(&service, &file), 1000);
        assert_serves_others(&service);
    }
    go_on(&service, &other, &small);
    let job = service.wait_for_job("large", |job| job["state"] == "interrupted");
    assert_eq!(service.request("DELETE", job["links"]["self"].as_str().unwrap()).status, 204);
    assert_serves_others(&service);
}

/// Statements that damage a checkpoint, each for the place of a condition.
const DAMAGE: [&str; 5] = [
    "UPDATE checkpoints SET body = x''",
    "UPDATE checkpoints SET body = x'00'",
    "UPDATE checkpoints SET body = substr(body, 1, length(body) - 5)",
    "UPDATE checkpoints SET body = CAST(substr(body, 1, 30) || x'ffff' || substr(body, 33) AS BLOB)",
    "DELETE FROM checkpoints",
];

#[test]
fn a_damaged_checkpoint_costs_its_upload_a_start_from_the_first_byte_and_others_nothing() {
    let service = start();
    let whole = csv(500);
    let other = break_off(&service, "other", &whole, 1000);
    for (number, damage) in DAMAGE.into_iter().enumerate() {
        let name = format!("damaged-{number}");
        let file = break_off(&service, &name, &whole, 1000);
        let id = service.get(&format!("/v1/jobs/{name}")).expect(200)["id"].clone();
        let files = format!("SELECT id FROM files WHERE job_id = '{}'", id.as_str().unwrap());
        let changed = Database::of(&service).execute(&format!("{damage} WHERE file_id IN ({files})"));
        assert!(changed > 0, "{damage}");
        for _ in 0..2 {
            let lost = patch(&service, &file, 1000, &whole[1000..], "?1");
            lost.expect_problem(410, "checkpoint_lost", &["send it from the start"]);
            assert_eq!(lost.header("upload-offset"), None, "{lost:?}");
        }
        let job = service.get(&format!("/v1/jobs/{name}")).expect(200);
        assert_eq!((&job["id"], &job["state"]), (&id, &json!("interrupted")), "{damage}: {job}");
        let job = service.put(&file, &whole).expect(200);
        Expected::of([("file", whole.as_slice())]).assert_are_those_of(&service, &job);
    }
    assert_eq!(stored_bytes(&service, &other), 1000);
    go_on(&service, &other, &whole);
}

#[test]
fn damaged_totals_keep_a_job_from_completing_until_their_file_has_been_sent_again() {
    let service = start();
    let id = open(&service, &json!({}));
    for name in ["fine.csv", "damaged.csv"] {
        service.put(&file_path(&id, name), &csv(300)).expect(201);
    }
    let damaged = "SELECT id FROM files WHERE name = 'damaged.csv'";
    let mut database = Database::of(&service);
    assert_eq!(database.execute(&format!("UPDATE file_totals SET body = x'00' WHERE file_id IN ({damaged})")), 1);
    complete(&service, &id).expect_problem(500, "internal", &[]);
    assert_eq!(service.get(&job_path(&id)).expect(200)["state"], "open");
    assert_serves_others(&service);
    assert_eq!(service.request("DELETE", &file_path(&id, "damaged.csv")).status, 204);
    service.put(&file_path(&id, "damaged.csv"), &csv(300)).expect(201);
    let job = complete(&service, &id).expect(200);
    let contents = csv(300);
    let files = [("fine.csv", contents.as_slice()), ("damaged.csv", contents.as_slice())];
    Expected::of(files).assert_are_those_of(&service, &job);
}
