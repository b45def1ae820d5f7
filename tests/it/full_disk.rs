//! A disk without room, and a database that is taken away: the service says so, what frees room or ends something works, and when the
//! cause is gone it goes on without a restart.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::broken_uploads::terminate;
use crate::database::Database;
use crate::harness::{HEADER, Running, lines};
use crate::senders::csv;
use crate::service::{PATIENCE, Reply, Service};

/// A small file system that only the servers of one test see, and a process that keeps it.
struct SmallDisk {
    keeper: Running,
    /// Where the file system is, for the processes that see it.
    place: PathBuf,
}

impl SmallDisk {
    /// Eight megabytes. None where this system does not let us have a file system of our own.
    fn new(place: &Path) -> Option<Self> {
        fs::create_dir(place).unwrap();
        let script = "mount -t tmpfs -o size=8m tmpfs \"$0\" && echo ready && exec sleep 3600";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(place);
        let keeper = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut keeper = Running(keeper.ok()?);
        let mut line = String::new();
        BufReader::new(keeper.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (line == "ready\n").then(|| Self { keeper, place: place.to_path_buf() })
    }

    /// What a shell does to become a server that sees the file system.
    fn prelude(&self) -> &'static str {
        let process = self.keeper.0.id();
        let enter = format!("exec nsenter --target {process} --user --mount --preserve-credentials \"$0\" \"$@\"");
        // With a reserve of its usual size such a disk would take no jobs at all.
        Box::leak(format!("export ADTALLY_DISK_RESERVE=0; {enter}").into_boxed_str())
    }

    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.0.id()));
        root.join(self.place.strip_prefix("/").unwrap()).join(name)
    }

    /// Leaves no byte.
    fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path("filler")).unwrap();
        for size in [64 * 1024, 512, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }
}

/// A service, not started yet, with its data on a small disk. None where there cannot be one, which is said.
fn on_small_disk(arguments: &[&str]) -> Option<(Service, SmallDisk)> {
    let service = Service::prepare(arguments);
    let disk = SmallDisk::new(&service.path("data"));
    if disk.is_none() {
        println!("skipped: no file system of our own can be had here");
    }
    Some((service, disk?))
}

#[test]
fn without_room_jobs_are_deleted_and_ended_and_the_service_starts() {
    let Some((mut service, disk)) = on_small_disk(&[]) else { return };
    service.launch_in_shell(disk.prelude());
    for name in ["first", "second"] {
        service.put(&format!("/v1/jobs/{name}"), &csv(1000)).expect(201);
    }
    let open = service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let open = open["links"]["self"].as_str().unwrap();
    service.get("/readyz").assert_ready();
    disk.fill();
    let refused = until(&service, |service| service.put("/v1/jobs/third", &csv(1000)), |reply| reply.status != 201);
    refused.expect_problem(507, "storage_full", &["room"]);
    service.get("/readyz").expect_problem(503, "not_ready", &["no room"]);
    assert_eq!(service.request("DELETE", "/v1/jobs/first").status, 204);
    service.crash_and_restart();
    assert_eq!(service.request("POST", &format!("{open}/cancel")).expect(200)["state"], "cancelled");
    service.get("/v1/jobs/first").expect_problem(404, "job_not_found", &[]);
    assert_eq!(service.get("/v1/jobs/second").expect(200)["state"], "succeeded");
    disk.empty();
    let ready = until(&service, |service| service.get("/readyz"), |reply| reply.status == 200);
    ready.assert_ready();
    service.put("/v1/jobs/third", &csv(1000)).expect(201);
}

/// Another program takes every byte that comes free, and still all that is asked for is deleted.
#[test]
fn without_room_one_job_after_the_other_is_deleted() {
    let Some((mut service, disk)) = on_small_disk(&["--checkpoint-interval", "0s"]) else { return };
    service.launch_in_shell(disk.prelude());
    for number in 0..12 {
        service.put(&format!("/v1/jobs/whole{number}"), &many_campaigns(3000)).expect(201);
    }
    let body = many_campaigns(6000);
    let uploads: Vec<_> = (0..12)
        .map(|number| {
            let name = format!("part{number}");
            let mut upload = service.connect();
            let length = body.len();
            upload.send(format!("PUT /v1/jobs/{name} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n"));
            upload.send(&body[..length / 2]);
            service.wait_for_job(&name, |job| job["progress"]["bytes_received"].as_u64() == Some(length as u64 / 2));
            upload
        })
        .collect();
    disk.fill();
    // Half of them break off, and half end.
    for (number, mut upload) in uploads.into_iter().enumerate() {
        if number % 2 == 0 {
            let reply = upload.send(&body[body.len() / 2..]).read_reply();
            reply.expect_problem(507, "storage_full", &["no room"]);
        }
    }
    // What ends has the reserve meanwhile.
    for number in 0..12 {
        service.wait_for_job(&format!("part{number}"), |job| job["state"] == "interrupted");
    }
    let mut deleted = 0;
    for kind in ["whole", "part"] {
        for number in 0..12 {
            disk.fill();
            let reply = service.request("DELETE", &format!("/v1/jobs/{kind}{number}"));
            assert_eq!(reply.status, 204, "after {deleted}: {reply:?} {}", service.log());
            deleted += 1;
        }
    }
    disk.empty();
    until(&service, |service| service.get("/readyz"), |reply| reply.status == 200).assert_ready();
    service.put("/v1/jobs/more", &many_campaigns(1000)).expect(201);
}

/// The disk is as large as what the service needs: only what jobs had can make room.
#[test]
fn a_disk_that_the_service_has_filled_has_room_again_when_jobs_are_deleted() {
    let Some((mut service, disk)) = on_small_disk(&[]) else { return };
    service.launch_in_shell(disk.prelude());
    for _ in 0..2 {
        let put = |number: usize| service.put(&format!("/v1/jobs/n{number}"), &many_campaigns(4000));
        let refused = (0..100).map(put).find(|reply| reply.status != 201).unwrap();
        refused.expect_problem(507, "storage_full", &["no room"]);
        let jobs = service.get("/v1/jobs?limit=100").expect(200);
        let jobs = jobs["jobs"].as_array().unwrap();
        assert!(jobs.len() > 4, "{jobs:?}");
        for job in jobs {
            assert_eq!(service.request("DELETE", job["links"]["self"].as_str().unwrap()).status, 204);
        }
        until(&service, |service| service.get("/readyz"), |reply| reply.status == 200).assert_ready();
        for number in 0..20 {
            service.put(&format!("/v1/jobs/small{number}"), &csv(10)).expect(201);
        }
    }
}

#[test]
fn stops_and_starts_on_a_full_disk_do_not_use_it_up() {
    let Some((mut service, disk)) = on_small_disk(&[]) else { return };
    service.launch_in_shell(disk.prelude());
    service.put("/v1/jobs/first", &many_campaigns(1000)).expect(201);
    for _ in 0..40 {
        disk.fill();
        terminate(&mut service);
        assert!(service.process().wait().unwrap().success());
        disk.fill();
        service.launch();
    }
    assert_eq!(service.request("DELETE", "/v1/jobs/first").status, 204, "{}", service.log());
}

#[test]
fn the_service_starts_again_and_again_on_a_full_disk_after_a_kill() {
    let Some((mut service, disk)) = on_small_disk(&["--checkpoint-interval", "0s"]) else { return };
    service.launch_in_shell(disk.prelude());
    for round in 0..5 {
        let put = |number: usize| service.put(&format!("/v1/jobs/r{round}n{number}"), &many_campaigns(8000));
        let refused = (0..100).map(put).find(|reply| reply.status != 201).unwrap();
        refused.expect_problem(507, "storage_full", &["no room"]);
        // A form cannot go on after a kill: that it has failed is written at the start.
        let head = "POST /v1/jobs HTTP/1.1\r\nHost: test\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 999\r\n\r\n";
        service.connect().send(head).send("--b\r\n");
        disk.fill();
        service.crash_and_restart();
        service.get("/readyz").expect_problem(503, "not_ready", &[]);
        let jobs = service.get("/v1/jobs?limit=100").expect(200);
        for job in jobs["jobs"].as_array().unwrap() {
            disk.fill();
            let reply = service.request("DELETE", job["links"]["self"].as_str().unwrap());
            assert_eq!(reply.status, 204, "{reply:?} {}", service.log());
        }
        disk.fill();
        service.crash_and_restart();
        disk.empty();
        until(&service, |service| service.get("/readyz"), |reply| reply.status == 200).assert_ready();
    }
}

#[test]
fn without_room_the_service_starts_when_as_much_as_can_be_is_in_the_log() {
    let Some((mut service, disk)) = on_small_disk(&[]) else { return };
    let mut killed = Service::start();
    killed.put("/v1/jobs/first", &csv(1000)).expect(201);
    // A mebibyte and a half: what waits to be written to the database, and a large transaction.
    let rows = "WITH RECURSIVE rows(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM rows WHERE n < 370)";
    let mut database = Database::of(&killed);
    database.execute(&format!("CREATE TABLE ballast AS {rows} SELECT randomblob(4000) AS bytes FROM rows"));
    drop(database);
    killed.kill();
    for suffix in ["", "-wal", "-shm", ".reserve"] {
        let name = format!("adtally.db{suffix}");
        fs::copy(killed.path("data").join(&name), disk.path(&name)).unwrap();
    }
    let log_bytes = fs::metadata(disk.path("adtally.db-wal")).unwrap().len();
    assert!(log_bytes > 1_500_000, "{log_bytes}");
    disk.fill();
    service.launch_in_shell(disk.prelude());
    disk.fill();
    assert_eq!(service.request("DELETE", "/v1/jobs/first").status, 204, "{}", service.log());
    disk.empty();
    until(&service, |service| service.get("/readyz"), |reply| reply.status == 200).assert_ready();
}

#[test]
fn without_any_room_the_service_does_not_start_and_says_what_it_needs() {
    let Some((mut service, disk)) = on_small_disk(&[]) else { return };
    service.launch_in_shell(disk.prelude());
    service.put("/v1/jobs/first", &csv(1000)).expect(201);
    terminate(&mut service);
    assert!(service.process().wait().unwrap().success());
    fs::remove_file(disk.path("adtally.db.reserve")).unwrap();
    disk.fill();
    let refused = service.command().output().unwrap();
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(
        message.contains("cannot be opened") && message.contains("0 bytes left, and 65536 are needed"),
        "{message}"
    );
    disk.empty();
    service.launch();
    assert_eq!(service.get("/v1/jobs/first").expect(200)["state"], "succeeded");
}

#[test]
fn an_upload_whose_results_find_no_room_goes_on_when_there_is_some() {
    let Some((mut service, disk)) = on_small_disk(&[]) else { return };
    service.launch_in_shell(disk.prelude());
    // More campaigns than the database's log has room for.
    let rows = lines(40_000, |row| format!("{:08x},2025-01-01,9,3,1.50,1", row.wrapping_mul(0x9e37_79b9)));
    let body = HEADER.to_owned() + &rows;
    let (first, rest) = body.split_at(body.len() / 2);
    let mut upload = service.connect();
    let head = format!("PUT /v1/jobs/late HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    upload.send(head).send(first);
    service.wait_for_job("late", |job| job["progress"]["bytes_received"].as_u64() == Some(first.len() as u64));
    disk.fill();
    let refused = upload.send(rest).read_reply();
    refused.expect_problem(507, "storage_full", &["no room", "go on there"]);
    let offset: usize = refused.header("upload-offset").unwrap().parse().unwrap();
    let job = service.get("/v1/jobs/late").expect(200);
    assert_eq!(job["state"], "interrupted");
    disk.empty();
    until(&service, |service| service.get("/readyz"), |reply| reply.status == 200).assert_ready();
    let range = format!("bytes {offset}-{}/{}", body.len() - 1, body.len());
    let address = job["links"]["resume"].as_str().unwrap();
    let reply = service.send("PUT", address, &[("content-range", &range)], &body.as_bytes()[offset..]);
    assert_eq!(reply.expect(200)["stats"]["rows_read"], 40_000);
}

#[test]
fn while_the_disk_has_less_room_than_its_reserve_nothing_new_is_taken() {
    let service = Service::start_with(&["--disk-reserve", "1PiB"]);
    let refused = service.put("/v1/jobs/a", &csv(10));
    let problem = refused.expect_problem(507, "storage_full", &["disk_reserve_bytes"]);
    assert_eq!(problem["limit"], json!({"name": "disk_reserve_bytes", "value": 1_u64 << 50}));
    service.get("/readyz").expect_problem(503, "not_ready", &["disk_reserve_bytes"]);
    service.get("/healthz").assert_ready();
}

#[test]
fn a_database_that_is_removed_is_noticed_until_it_is_back() {
    let service = Service::start();
    service.put("/v1/jobs/a", &csv(10)).expect(201);
    service.get("/readyz").assert_ready();
    let (database, elsewhere) = (service.path("data/adtally.db"), service.path("elsewhere"));
    fs::rename(&database, &elsewhere).unwrap();
    let not_ready = until(&service, |service| service.get("/readyz"), |reply| reply.status != 200);
    not_ready.expect_problem(503, "not_ready", &["database", "removed"]);
    service.put("/v1/jobs/b", &csv(10)).expect_problem(503, "store_unavailable", &["removed"]);
    fs::rename(&elsewhere, &database).unwrap();
    until(&service, |service| service.get("/readyz"), |reply| reply.status == 200).assert_ready();
    service.put("/v1/jobs/b", &csv(10)).expect(201);
}

/// A file with this number of campaigns. Their ids look random, so that results cannot be compressed well.
fn many_campaigns(count: u32) -> Vec<u8> {
    let rows = lines(count, |row| {
        let name = u64::from(row).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "{name:016x}{:016x},2025-01-01,1000,5,10.50,2",
            name.rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        )
    });
    (HEADER.to_owned() + &rows).into_bytes()
}

/// Asks until the answer is as wanted: the disk is looked at once a second.
#[track_caller]
fn until(service: &Service, ask: impl Fn(&Service) -> Reply, is_wanted: impl Fn(&Reply) -> bool) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = ask(service);
        if is_wanted(&reply) {
            return reply;
        }
        assert!(Instant::now() < deadline, "{reply:?}");
    }
}
