//! A disk without room, and a database that is taken away: the service says so, what frees room or ends something works, and when the
//! cause is gone it goes on without a restart.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

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
    /// Three megabytes. None where this system does not let us have a file system of our own.
    fn new(place: &Path) -> Option<Self> {
        fs::create_dir(place).unwrap();
        let script = "mount -t tmpfs -o size=3m tmpfs \"$0\" && echo ready && exec sleep 3600";
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
        let mut file = File::create(self.path("filler")).unwrap();
        for size in [64 * 1024, 512, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }
}

#[test]
fn without_room_jobs_are_deleted_and_ended_and_the_service_starts() {
    let mut service = Service::prepare(&[]);
    let Some(disk) = SmallDisk::new(&service.path("data")) else {
        println!("skipped: no file system of our own can be had here");
        return;
    };
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

#[test]
fn an_upload_whose_results_find_no_room_goes_on_when_there_is_some() {
    let mut service = Service::prepare(&[]);
    let Some(disk) = SmallDisk::new(&service.path("data")) else {
        println!("skipped: no file system of our own can be had here");
        return;
    };
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
