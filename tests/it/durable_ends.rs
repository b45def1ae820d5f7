//! What was acknowledged is durable, what is stored is found again, and one process owns a database.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use adtally::jobs::Store;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use uuid::Uuid;

use crate::harness::{HEADER, Running, lines};
use crate::senders::{OpenUpload, csv};
use crate::service::{PATIENCE, Service};

/// Runs a statement in a database that no server has open.
fn execute(database: &Path, statement: &str) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = SqliteConnection::connect(&Store::file_url(database)).await.unwrap();
        let done = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        done.rows_affected()
    })
}

/// Kills the server, changes its database, and starts it again.
fn restart_after(service: &mut Service, statement: &'static str) {
    service.kill();
    assert_eq!(execute(&service.path("data").join("adtally.db"), statement), 1, "{statement}");
    service.launch();
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_cancel_that_was_acknowledged_survives_a_kill() {
    let mut service = Service::start();
    for round in 0..15 {
        let upload = OpenUpload::begin(&service, &format!("round-{round}"));
        let cancelled = service.request("POST", &format!("/v1/jobs/{}/cancel", upload.id)).expect(200);
        service.crash_and_restart();
        let job = service.get(&format!("/v1/jobs/{}", upload.id)).expect(200);
        assert_eq!(job["state"], "cancelled", "round {round}: {}", job["error"]);
        assert_eq!(job, cancelled);
    }
}

#[test]
fn a_deletion_that_was_acknowledged_survives_a_kill() {
    let mut service = Service::start();
    for round in 0..5 {
        let upload = OpenUpload::begin(&service, &format!("round-{round}"));
        assert_eq!(service.request("DELETE", &format!("/v1/jobs/{}", upload.id)).status, 204);
        service.crash_and_restart();
        service.get(&format!("/v1/jobs/{}", upload.id)).expect_problem(404, "job_not_found", &[]);
    }
}

#[test]
fn after_a_cancel_the_key_is_free_at_once() {
    let service = Service::start();
    for round in 0..30 {
        let key = format!("key-{round}");
        let upload =
            OpenUpload::begin_with(&service, &format!("round-{round}"), &format!("Idempotency-Key: {key}\r\n"));
        service.request("POST", &format!("/v1/jobs/{}/cancel", upload.id)).expect(200);
        service.send("PUT", &format!("/v1/jobs/round-{round}"), &[("idempotency-key", &key)], &csv(1)).expect(201);
    }
}

#[test]
fn the_sender_of_a_job_that_is_cancelled_or_deleted_is_told_so() {
    let service = Service::start();
    for (method, path, status) in [("POST", "/cancel", 200), ("DELETE", "", 204)] {
        let mut upload = OpenUpload::begin(&service, &format!("told-{method}"));
        assert_eq!(service.request(method, &format!("/v1/jobs/{}{path}", upload.id)).status, status);
        upload.connection.read_reply().expect_problem(409, "upload_cancelled", &[]);
    }
}

#[test]
fn files_of_jobs_that_are_gone_are_removed_at_the_start() {
    let mut service = Service::start();
    let job = service.put("/v1/jobs/kept", &csv(5)).expect(201);
    let gone = service.put("/v1/jobs/gone", &csv(5)).expect(201);
    let results = |name: &str| service.path("results").join(name);
    let (kept, orphan) = (results(job["id"].as_str().unwrap()), results(gone["id"].as_str().unwrap()));
    let (staged, foreign) = (results(&format!(".{}.tmp", Uuid::now_v7())), results("not of adtally"));
    // A UUID of version 4: adtally does not make such ids.
    let random = results("0b2cdc2f-4b6f-4d43-9ac5-6d05e80a4d6d");
    for directory in [&staged, &foreign, &random] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("top10_ctr.csv"), "").unwrap();
    }
    // As a crash between the removal of a job and that of its files leaves it.
    restart_after(&mut service, "DELETE FROM jobs WHERE name = 'gone'");
    wait_until("files without a job are still there", || !orphan.exists() && !staged.exists());
    for directory in [kept, foreign, random] {
        assert!(directory.join("top10_ctr.csv").exists(), "{} is gone", directory.display());
    }
}

#[test]
fn a_job_that_is_deleted_while_its_files_are_written_leaves_none() {
    let service = Service::start();
    let body = HEADER.to_owned() + &lines(60_000, |number| format!("campaign-{number},d,1000,10,2.50,1"));
    for round in 0..3 {
        let name = format!("round-{round}");
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| service.put(&format!("/v1/jobs/{name}"), body.as_bytes()));
            wait_until("no files are written", || {
                fs::read_dir(service.path("results")).unwrap().count() > 0 || sender.is_finished()
            });
            let deleted = service.request("DELETE", &format!("/v1/jobs/{name}"));
            assert_eq!(deleted.status, 204, "{deleted:?}");
            assert_eq!(fs::read_dir(service.path("results")).unwrap().count(), 0, "files outlive their job");
            // It had succeeded before it was deleted, or was never finished.
            assert!(matches!(sender.join().unwrap().status, 201 | 409));
        });
        assert_eq!(fs::read_dir(service.path("results")).unwrap().count(), 0, "files come back");
    }
}

#[test]
fn two_servers_do_not_share_a_database_whatever_their_directories() {
    let place = tempfile::tempdir().unwrap();
    let database = Store::file_url(&place.path().join("shared.db"));
    let first = Service::start_with(&["--database-url", &database]);
    let upload = OpenUpload::begin(&first, "running");
    let second = Service::prepare(&["--database-url", &database]);
    let process = second.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut process = Running(process);
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "", "a second server starts with the database of the first");
    assert_eq!(process.0.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    process.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    for part in ["another adtally", "shared.db.lock"] {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
    assert_eq!(upload.finish().expect(201)["state"], "succeeded");
}

#[test]
fn links_to_a_database_lead_to_the_same_lock() {
    let place = tempfile::tempdir().unwrap();
    let (database, link, link_to_link) =
        (place.path().join("real.db"), place.path().join("link.db"), place.path().join("again.db"));
    std::os::unix::fs::symlink("real.db", &link).unwrap();
    std::os::unix::fs::symlink(&link, &link_to_link).unwrap();
    // The database is not there yet.
    let first = Store::file_url(&link);
    let _first = Service::start_with(&["--database-url", &first]);
    for path in [&database, &link, &link_to_link] {
        let url = Store::file_url(path);
        let second = Service::prepare(&["--database-url", &url]);
        let output = second.command().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{url}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("real.db.lock"), "{url}: {output:?}");
    }
}

#[test]
fn a_file_whose_name_looks_like_memory_is_locked_all_the_same() {
    let place = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", place.path().join("a:memory:b.db").display());
    let _first = Service::start_with(&["--database-url", &url]);
    let output = Service::prepare(&["--database-url", &url]).command().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn a_damaged_record_hides_no_other_job() {
    let mut service = Service::start();
    for name in ["one", "damaged", "three"] {
        service.put(&format!("/v1/jobs/{name}"), &csv(3)).expect(201);
    }
    let damaged = service.get("/v1/jobs/damaged").expect(200);
    restart_after(&mut service, "UPDATE jobs SET details = '{\"options\":7' WHERE name = 'damaged'");
    let names = |query: &str| -> Vec<Value> {
        let list = service.get(&format!("/v1/jobs{query}")).expect(200);
        list["jobs"].as_array().unwrap().iter().map(|job| job["name"].clone()).collect()
    };
    assert_eq!(names(""), ["three", "one"]);
    assert_eq!(names("?name=damaged"), [] as [&str; 0]);
    // A page has as many jobs as are asked for.
    let first = service.get("/v1/jobs?limit=1").expect(200);
    let second =
        service.get(&format!("/v1/jobs?limit=1&cursor={}", first["next_cursor"].as_str().unwrap())).expect(200);
    assert_eq!((&first["jobs"][0]["name"], &second["jobs"][0]["name"]), (&json!("three"), &json!("one")));
    let path = damaged["links"]["self"].as_str().unwrap();
    let problem = service.get(path);
    problem.expect_problem(500, "damaged_record", &[]);
    assert_eq!(problem.header("retry-after"), None, "to try again does not help");
    assert_eq!(service.request("DELETE", path).status, 204);
    service.get(path).expect_problem(404, "job_not_found", &[]);
}

#[test]
fn a_result_that_is_damaged_at_its_start_is_a_problem_and_later_on_a_broken_body() {
    let mut service = Service::start();
    let rows = lines(40_000, |number| format!("a-campaign-with-a-long-name-{number},d,{number},1,1,1"));
    let job = service.put("/v1/jobs/damaged", (HEADER.to_owned() + &rows).as_bytes()).expect(201);
    let path = job["links"]["results"]["campaigns.csv"].as_str().unwrap();
    let whole = service.get(path).body;
    assert!(whole.len() > 3 << 19, "there are several pieces");
    restart_after(
        &mut service,
        "UPDATE result_pieces SET body = x'00' WHERE name = 'campaigns.csv' AND start BETWEEN 1000000 AND 1200000",
    );
    let mut connection = service.connect();
    connection.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"));
    let cut = connection.read_rest();
    assert!(cut.starts_with("HTTP/1.1 200 "), "{:?}", cut.lines().next());
    // What has not been sent yet when the damage is found may be missing, too.
    assert!((800_000..whole.len()).contains(&cut.len()), "{} bytes", cut.len());
    assert_eq!(service.send("GET", path, &[("range", "bytes=0-99")], b"").status, 206);
    let reply = service.send("GET", path, &[("range", "bytes=1100000-1100099")], b"");
    reply.expect_problem(500, "damaged_record", &[]);
    restart_after(&mut service, "UPDATE result_pieces SET body = x'00' WHERE name = 'campaigns.csv' AND start = 0");
    for headers in [&[][..], &[("accept", "application/json")], &[("range", "bytes=0-99")]] {
        let reply = service.send("GET", path, headers, b"");
        reply.expect_problem(500, "damaged_record", &[]);
    }
}

#[test]
fn a_damaged_record_of_a_job_that_was_received_does_not_stop_the_start() {
    let mut service = Service::start();
    let uploads = [OpenUpload::begin(&service, "damaged"), OpenUpload::begin(&service, "fine")];
    restart_after(&mut service, "UPDATE jobs SET details = 'no JSON' WHERE name = 'damaged'");
    let [damaged, fine] = uploads.map(|upload| service.get(&format!("/v1/jobs/{}", upload.id)).expect(200));
    assert_eq!(damaged["state"], "failed");
    assert_eq!(damaged["error"]["type"], "urn:adtally:problem:server_stopped", "{damaged}");
    assert_eq!(fine["state"], "interrupted");
}

/// Damage that goes deeper than an unreadable document, each to the job `damaged`.
const DAMAGE: [&str; 7] = [
    "UPDATE jobs SET details = CAST(x'fffe' AS TEXT) WHERE name = 'damaged'",
    "UPDATE jobs SET details = x'00' WHERE name = 'damaged'",
    "UPDATE jobs SET state = 'unknown' WHERE name = 'damaged'",
    "UPDATE jobs SET state = x'00' WHERE name = 'damaged'",
    "UPDATE jobs SET created_at = 'abc' WHERE name = 'damaged'",
    "UPDATE jobs SET expires_at = 'abc' WHERE name = 'damaged'",
    "UPDATE jobs SET created_at = 9223372036854775807 WHERE name = 'damaged'",
];

#[test]
fn whatever_is_damaged_others_are_listed_and_it_can_be_deleted() {
    let mut service = Service::start();
    service.put("/v1/jobs/fine", &csv(3)).expect(201);
    for damage in DAMAGE {
        let path = service.put("/v1/jobs/damaged", &csv(3)).expect(201)["links"]["self"].as_str().unwrap().to_owned();
        restart_after(&mut service, damage);
        let list = service.get("/v1/jobs").expect(200);
        assert_eq!((&list["jobs"][0]["name"], list["jobs"].as_array().unwrap().len()), (&json!("fine"), 1), "{damage}");
        service.get(&path).expect_problem(500, "damaged_record", &[]);
        assert_eq!(service.request("DELETE", &path).status, 204, "{damage}");
    }
}

#[test]
fn jobs_without_a_usable_id_keep_nothing_from_working() {
    let mut service = Service::start();
    for id in ["CAST(x'30ff' AS TEXT)", "'zz'", "upper(id)", "x'00'"] {
        let named = service.put("/v1/jobs/shared", &csv(3)).expect(201);
        service.put("/v1/jobs/shared", &csv(4)).expect(201);
        service.kill();
        let database = service.path("data").join("adtally.db");
        execute(&database, "PRAGMA foreign_keys = OFF; DELETE FROM results; DELETE FROM result_pieces");
        let newest = "(SELECT id FROM jobs WHERE name = 'shared' ORDER BY created_at DESC LIMIT 1)";
        execute(&database, &format!("PRAGMA foreign_keys = OFF; UPDATE jobs SET id = {id} WHERE id = {newest}"));
        service.launch();
        assert_eq!(service.get("/v1/jobs/shared").expect(200)["id"], named["id"], "{id}");
        assert_eq!(service.get("/v1/jobs").expect(200)["jobs"][0]["id"], named["id"], "{id}");
        service.put("/v1/jobs/another", &csv(1)).expect(201);
        restart_after(&mut service, "DELETE FROM jobs WHERE name = 'another'");
        assert_eq!(service.request("DELETE", named["links"]["self"].as_str().unwrap()).status, 204);
    }
}

#[test]
fn a_record_of_a_job_that_was_received_can_be_no_text_at_all() {
    let mut service = Service::start();
    let _uploads = [OpenUpload::begin(&service, "damaged"), OpenUpload::begin(&service, "fine")];
    restart_after(&mut service, "UPDATE jobs SET details = CAST(x'fffe' AS TEXT) WHERE name = 'damaged'");
    assert_eq!(service.get("/v1/jobs/fine").expect(200)["state"], "interrupted");
}

#[test]
fn a_record_without_fields_that_came_later_is_read() {
    let mut service = Service::start();
    let before = service.put("/v1/jobs/old", &csv(3)).expect(201);
    restart_after(&mut service, "UPDATE jobs SET details = json_remove(details, '$.files', '$.options.top') WHERE 1");
    let after = service.get("/v1/jobs/old").expect(200);
    assert_eq!((&after["stats"], &after["files"]), (&before["stats"], &json!([])));
}
