//! Storage that fails: what cannot be stored is not acknowledged, and the service goes on.

use std::time::Instant;

use serde_json::json;

use crate::harness::{HEADER, lines};
use crate::senders::{OpenUpload, csv};
use crate::service::{PATIENCE, Reply, Service};

/// No file grows beyond 2 MiB; to try is an error, not the end.
pub(crate) const SMALL_FILES: &str = "trap '' XFSZ; ulimit -f 4096";

/// More results than such a file has room for.
pub(crate) fn too_many_campaigns() -> String {
    // Digits that do not compress well.
    let id = |number: u32| u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    HEADER.to_owned() + &lines(250_000, |number| format!("{:032x},d,{},1,1,1", id(number), number % 97 + 1))
}

#[test]
fn after_a_write_that_failed_others_succeed() {
    let mut service = Service::start_in_shell(SMALL_FILES);
    let first = service.put("/v1/jobs/first", &csv(100)).expect(201);
    let large = too_many_campaigns();
    for _ in 0..5 {
        let reply = service.put("/v1/jobs/large", large.as_bytes());
        let problem = reply.expect(reply.status);
        assert!(matches!(reply.status, 503 | 507), "{problem}");
        assert!(reply.header("retry-after").is_some() || reply.status == 507, "{reply:?}");
        let job = service.get(problem["job"].as_str().unwrap()).expect(200);
        assert_eq!((&job["state"], &job["links"]["results"]), (&json!("interrupted"), &json!({})));
        assert_eq!(job["files"][0]["error"]["type"], problem["type"]);
        assert!(!service.path("results").join(job["id"].as_str().unwrap()).exists());
    }
    // Each connection to the database is as good as before.
    for _ in 0..10 {
        service.put("/v1/jobs/small", &csv(100)).expect(201);
    }
    assert_eq!(service.request("DELETE", "/v1/jobs/small").status, 204);
    let receiving = service.get("/v1/jobs?state=receiving").expect(200);
    assert_eq!(receiving["jobs"], json!([]), "the failures have not been recorded");
    service.crash_and_restart();
    assert_eq!(service.get("/v1/jobs/first").expect(200), first);
    assert_eq!(service.get("/v1/jobs?name=small").expect(200)["jobs"].as_array().unwrap().len(), 9);
    assert_eq!(service.get("/v1/jobs?name=large&state=interrupted").expect(200)["jobs"].as_array().unwrap().len(), 5);
}

#[test]
fn results_that_cannot_be_written_as_files_are_still_served() {
    let mut service = Service::start();
    // Something else stands where the directory was.
    std::fs::remove_dir_all(service.path("results")).unwrap();
    std::fs::write(service.path("results"), "").unwrap();
    let job = service.put("/v1/jobs/served", &csv(100)).expect(201);
    let link = job["links"]["results"]["campaigns.csv"].as_str().unwrap();
    let campaigns = service.get(link);
    assert_eq!((campaigns.status, campaigns.text().lines().count()), (200, 11));
    std::fs::remove_file(service.path("results")).unwrap();
    service.crash_and_restart();
    let file = service.path("results").join(job["id"].as_str().unwrap()).join("campaigns.csv");
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "{} is not written", file.display());
        std::thread::yield_now();
    }
    assert_eq!(std::fs::read(file).unwrap(), campaigns.body);
}

#[test]
fn a_store_that_has_as_much_as_it_may_takes_no_new_jobs_and_files_until_some_are_deleted() {
    let service = Service::start_with(&["--max-stored", "1000000"]);
    let opened = service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let file = format!("{}/files/a.csv", opened["links"]["self"].as_str().unwrap());
    let running = OpenUpload::begin(&service, "running");
    service.put("/v1/jobs/large", too_many_campaigns().as_bytes()).expect(201);
    // What is in use is counted once a second; what is taken until then must not fill the store.
    let refused = until_status(507, || {
        let reply = service.put("/v1/jobs/small", &csv(10));
        if reply.status == 201 {
            assert_eq!(service.request("DELETE", "/v1/jobs/small").status, 204);
        }
        reply
    });
    let problem = refused.expect_problem(507, "storage_full", &["max_stored_bytes"]);
    assert_eq!(problem["limit"], json!({"name": "max_stored_bytes", "value": 1_000_000}));
    service.put(&file, &csv(10)).expect_problem(507, "storage_full", &[]);
    let json_type = [("content-type", "application/json")];
    service.send("POST", "/v1/jobs", &json_type, b"{}").expect_problem(507, "storage_full", &[]);
    // What has begun goes on.
    running.finish().expect(201);
    assert_eq!(service.request("DELETE", "/v1/jobs/large").status, 204);
    until_status(201, || service.put("/v1/jobs/small", &csv(10)));
    service.put(&file, &csv(10)).expect(201);
}

fn until_status(status: u16, request: impl Fn() -> Reply) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = request();
        if reply.status == status {
            return reply;
        }
        assert!(Instant::now() < deadline, "{reply:?}");
    }
}
