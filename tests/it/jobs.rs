//! Jobs after and while they are made: shown, waited for, listed, followed, cancelled, removed, expired.

use serde_json::{Value, json};

use crate::harness::HEADER;
use crate::senders::{FORM_TYPE, LAST_CHUNK, OpenUpload, csv, form};
use crate::service::{Connection, Reply, Service};

/// Makes a job that has succeeded, and gives it.
#[track_caller]
fn make(service: &Service, name: &str) -> Value {
    service.put(&format!("/v1/jobs/{name}"), &csv(20)).expect(201)
}

fn path(job: &Value) -> String {
    job["links"]["self"].as_str().unwrap().to_owned()
}

fn ids(list: &Value) -> Vec<&str> {
    list["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect()
}

#[test]
fn a_running_upload_shows_its_progress_and_its_leaders() {
    let service = Service::start();
    let mut upload = OpenUpload::begin(&service, "running");
    let reply = service.get("/v1/jobs/running");
    assert_eq!(reply.header("retry-after"), Some("1"));
    let job = reply.expect(200);
    assert_eq!((&job["state"], &job["finished_at"], &job["stats"]), (&json!("receiving"), &Value::Null, &Value::Null));
    assert_eq!(job["files"][0]["state"], "receiving");
    assert_eq!(job["links"]["results"], json!({}));
    service.get("/v1/jobs/running/results/top10_ctr.csv").expect_problem(409, "job_not_finished", &["receiving"]);
    let shown = upload.send_until_shown(&service);
    assert_eq!(shown["top_ctr"][0]["campaign_id"], "c7");
    assert_eq!(shown["top_cpa"][0]["campaign_id"], "c7");
    assert_eq!(shown["progress"]["unique_campaigns"], 1);
    assert_eq!(shown["progress"]["bytes_expected"], Value::Null);
    assert!(shown["progress"]["bytes_received"].as_u64() > Some(HEADER.len() as u64), "{shown}");
    assert!(shown["progress"]["bytes_per_second"].as_u64() > Some(0), "{shown}");
    let done = upload.finish();
    assert_eq!(service.get("/v1/jobs/running").header("retry-after"), None);
    let done = done.expect(201);
    assert_eq!(done["state"], "succeeded");
    assert!(done["progress"]["rows_read"].as_u64() >= shown["progress"]["rows_read"].as_u64());
    assert_eq!(service.get(&path(&done)).expect(200), done);
}

#[test]
fn progress_and_leaders_are_shown_even_when_the_sender_falls_silent_early() {
    let service = Service::start();
    let mut upload = OpenUpload::begin(&service, "early");
    upload.send(&csv(100)[HEADER.len()..]);
    let job =
        service.wait_for_job(&upload.id, |job| job["progress"]["rows_read"] == 100 && job["top_ctr"] != json!([]));
    assert_eq!(job["state"], "receiving");
    // Too soon after the first look for another one.
    upload.send(b"late,2025-01-01,1,1,0.01,1\n");
    service.wait_for_job(&upload.id, |job| job["top_ctr"][0]["campaign_id"] == "late");
}

#[test]
fn a_length_that_is_known_makes_a_forecast() {
    let service = Service::start();
    let body = csv(50_000);
    let length = body.len();
    let mut connection = service.connect();
    connection.send(format!("PUT /v1/jobs/forecast HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n"));
    let mut rest = body.chunks(1000);
    let job = service.wait_for_job("forecast", |job| job["state"] == "receiving");
    assert_eq!(job["progress"]["bytes_expected"], length);
    let mut job = job;
    while job["progress"]["eta_seconds"].is_null() {
        connection.send(rest.next().expect("some of it is shown before the end"));
        job = service.get("/v1/jobs/forecast").expect(200);
    }
    assert!(job["progress"]["bytes_received"].as_u64() < Some(length as u64), "{job}");
    for piece in rest {
        connection.send(piece);
    }
    assert_eq!(connection.read_reply().expect(201)["progress"]["eta_seconds"], Value::Null);
}

#[test]
fn a_name_means_its_newest_job() {
    let service = Service::start();
    let old = make(&service, "same");
    let new = make(&service, "same");
    let reply = service.get("/v1/jobs/same");
    assert_eq!(reply.expect(200)["id"], new["id"]);
    assert_eq!(reply.header("content-location"), Some(&*path(&new)));
    let reply = service.get(&path(&old));
    assert_eq!(reply.expect(200)["id"], old["id"]);
    assert_eq!(reply.header("content-location"), Some(&*path(&old)));
    // Also when it has failed, and when it is not done.
    let failed = service.put("/v1/jobs/same", b"x").expect(422);
    assert_eq!(service.get("/v1/jobs/same").expect(200)["links"]["self"], failed["job"]);
    let id = old["id"].as_str().unwrap();
    // A name cannot be mistaken for an id.
    service.put(&format!("/v1/jobs/{id}"), &csv(1)).expect_problem(400, "invalid_name", &["the id of a job"]);
    let result = service.get("/v1/jobs/same/results/top10_ctr.csv");
    result.expect_problem(409, "job_not_finished", &["failed"]);
}

#[test]
fn a_job_that_is_known_is_not_sent_again() {
    let service = Service::start();
    let job = make(&service, "known");
    let reply = service.get("/v1/jobs/known");
    let etag = reply.header("etag").unwrap().to_owned();
    for known in [&*etag, "*", &format!("\"other\", {etag}")] {
        let reply = service.send("GET", &path(&job), &[("if-none-match", known)], b"");
        assert_eq!((reply.status, &*reply.body), (304, &b""[..]), "{known}");
        assert_eq!(reply.header("etag"), Some(&*etag), "{known}");
    }
    let reply = service.send("GET", "/v1/jobs/known", &[("if-none-match", "\"other\"")], b"");
    assert_eq!(reply.expect(200), job);
    // Of a running job the tag is another whenever the job is.
    let mut upload = OpenUpload::begin(&service, "running");
    let before = service.get("/v1/jobs/running").header("etag").unwrap().to_owned();
    upload.send_until_shown(&service);
    let reply = service.send("GET", "/v1/jobs/running", &[("if-none-match", &before)], b"");
    assert_eq!(reply.status, 200);
    assert_ne!(reply.header("etag"), Some(&*before));
}

#[test]
fn a_head_is_a_get_without_a_body() {
    let service = Service::start();
    let job = make(&service, "head");
    for path in [&*path(&job), "/v1/jobs", "/healthz"] {
        let (get, head) = (service.get(path), service.request("HEAD", path));
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        for field in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(field), get.header(field), "{path}: {field}");
        }
    }
}

#[test]
fn who_prefers_to_wait_is_answered_at_a_change() {
    let service = Service::start();
    let mut upload = OpenUpload::begin(&service, "awaited");
    upload.send_until_shown(&service);
    let mut waiting = service.connect();
    let known = service.get("/v1/jobs/awaited").header("etag").unwrap().to_owned();
    waiting.send(format!(
        "GET /v1/jobs/awaited HTTP/1.1\r\nHost: test\r\nPrefer: wait=50\r\nIf-None-Match: {known}\r\n\r\n"
    ));
    upload.finish().expect(201);
    let reply = waiting.read_reply();
    assert_eq!(reply.header("preference-applied"), Some("wait=50"));
    let job = reply.expect(200);
    assert!(job["state"] == "succeeded" || job["progress"]["rows_read"].as_u64() > Some(0), "{job}");
    // What has ended does not change any more.
    let headers = [("prefer", "wait=50"), ("if-none-match", "\"other\"")];
    assert_eq!(service.send("GET", "/v1/jobs/awaited", &headers, b"").expect(200)["state"], "succeeded");
    // Whoever waits in vain gets the job as it is.
    let upload = OpenUpload::begin(&service, "idle");
    let reply = service.send("GET", "/v1/jobs/idle", &[("prefer", "wait=1")], b"");
    assert_eq!(reply.expect(200)["state"], "receiving");
    let etag = service.get("/v1/jobs/idle").header("etag").unwrap().to_owned();
    let headers = [("prefer", "wait=1"), ("if-none-match", &*etag)];
    assert_eq!(service.send("GET", "/v1/jobs/idle", &headers, b"").status, 304);
    drop(upload);
}

#[test]
fn a_job_that_is_removed_ends_the_waiting_for_it() {
    let service = Service::start();
    let upload = OpenUpload::begin(&service, "removed");
    let known = service.get("/v1/jobs/removed").header("etag").unwrap().to_owned();
    let mut waiting = service.connect();
    let head = format!("GET /v1/jobs/{} HTTP/1.1\r\nHost: test\r\nPrefer: wait=50\r\n", upload.id);
    waiting.send(format!("{head}If-None-Match: {known}\r\n\r\n"));
    assert_eq!(service.request("DELETE", "/v1/jobs/removed").status, 204);
    let reply = waiting.read_reply();
    assert!(matches!(reply.status, 200 | 404), "{reply:?}");
}

#[test]
fn jobs_are_listed_newest_first_and_page_by_page() {
    let service = Service::start();
    assert_eq!(service.get("/v1/jobs").expect(200), json!({"jobs": [], "next_cursor": null}));
    let mut made: Vec<String> = Vec::new();
    for number in 0..7 {
        let job = make(&service, if number % 2 == 0 { "even" } else { "odd" });
        made.insert(0, job["id"].as_str().unwrap().to_owned());
    }
    let failed = service.put("/v1/jobs/even", b"x").expect(422);
    made.insert(0, failed["job"].as_str().unwrap().rsplit('/').next().unwrap().to_owned());
    let upload = OpenUpload::begin(&service, "odd%20one");
    made.insert(0, upload.id.clone());
    let all = service.get("/v1/jobs").expect(200);
    assert_eq!(ids(&all), made);
    assert_eq!(all["next_cursor"], Value::Null);
    // The lists are in the jobs themselves.
    assert!(all["jobs"][2].get("top_ctr").is_none() && all["jobs"][2].get("top_cpa").is_none(), "{all}");
    for (query, count) in [
        ("state=succeeded", 7),
        ("state=failed", 1),
        ("state=receiving", 1),
        ("state=open", 0),
        ("name=even", 5),
        ("name=even&state=failed", 1),
        ("name=odd&state=failed", 0),
        ("name=odd+one&state=receiving", 1),
        ("name=nobody", 0),
        ("limit=100", 9),
        ("limit=1", 1),
    ] {
        assert_eq!(ids(&service.get(&format!("/v1/jobs?{query}")).expect(200)).len(), count, "{query}");
    }
    for (query, expected) in [("", &made[..]), ("state=succeeded&", &made[2..])] {
        let mut seen = Vec::new();
        let mut next = Some(format!("/v1/jobs?{query}limit=2"));
        while let Some(path) = next {
            let reply = service.get(&path);
            let page = reply.expect(200);
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            next = reply.header("link").map(|link| {
                let path = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap();
                assert!(path.contains(page["next_cursor"].as_str().unwrap()), "{link}");
                path.to_owned()
            });
            assert_eq!(next.is_none(), page["next_cursor"].is_null(), "{page}");
        }
        assert_eq!(seen, expected, "{query}");
    }
    drop(upload);
}

/// A page is as long as what its jobs say is, not only as many jobs as were asked for.
#[test]
fn a_page_ends_early_with_jobs_of_very_many_files() {
    let service = Service::start_with(&["--max-form-parts", "500"]);
    service.put("/v1/jobs/first", &csv(1)).expect(201);
    let file = csv(1);
    let parts: Vec<_> = (0..500).map(|number| format!("name=file; filename={number}.csv")).collect();
    let body = form(&parts.iter().map(|part| (part.as_str(), file.as_slice())).collect::<Vec<_>>());
    for name in ["second", "third"] {
        let job =
            service.send("POST", &format!("/v1/jobs?name={name}"), &[("content-type", FORM_TYPE)], &body).expect(201);
        assert_eq!(job["files"].as_array().unwrap().len(), 500);
    }
    let page = service.get("/v1/jobs?limit=9");
    let names =
        |page: &Value| page["jobs"].as_array().unwrap().iter().map(|job| job["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&page.expect(200)), ["third", "second"]);
    let next = page.expect(200)["next_cursor"].as_str().unwrap().to_owned();
    let last = service.get(&format!("/v1/jobs?limit=9&cursor={next}")).expect(200);
    assert_eq!((names(&last), &last["next_cursor"]), (vec!["first".into()], &Value::Null));
}

/// An event: its name and its data.
pub(crate) fn read_event(events: &mut Connection) -> (String, Value) {
    let event = events.read_until("\n\n");
    let field = |name: &str| {
        let line = event.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name:?} is missing in {event:?}")).trim().to_owned()
    };
    (field("event:"), serde_json::from_str(&field("data:")).unwrap())
}

#[test]
fn events_follow_a_job_to_its_end() {
    let service = Service::start();
    let mut upload = OpenUpload::begin(&service, "followed");
    let mut events = service.connect();
    events.send("GET /v1/jobs/followed/events HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = events.read_until("\r\n\r\n").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    assert!(!head.contains("content-encoding"), "{head}");
    let (name, job) = read_event(&mut events);
    assert_eq!((&*name, &job["state"]), ("state", &json!("receiving")));
    upload.send_until_shown(&service);
    let (name, job) = read_event(&mut events);
    assert_eq!((&*name, &job["state"]), ("progress", &json!("receiving")));
    assert!(job["progress"]["rows_read"].as_u64() > Some(0), "{job}");
    let done = upload.finish().expect(201);
    let last = loop {
        let (name, job) = read_event(&mut events);
        if name == "state" {
            break job;
        }
        assert_eq!((&*name, &job["state"]), ("progress", &json!("receiving")));
    };
    assert_eq!(last, done);
    // A head is not kept waiting for events.
    assert_eq!(service.request("HEAD", "/v1/jobs/followed/events").status, 200);
    // The stream ends, and the connection can be used again.
    events.read_until("0\r\n\r\n");
    events.send("GET /v1/jobs/followed/events HTTP/1.1\r\nHost: test\r\n\r\n");
    let (name, job) = read_event(&mut events);
    assert_eq!((&*name, &job), ("state", &done));
    events.read_until("0\r\n\r\n");
    service.get("/v1/jobs/nobody/events").expect_problem(404, "job_not_found", &["nobody"]);
}

#[test]
fn a_cancelled_upload_ends_for_both_sides() {
    let service = Service::start();
    let mut upload = OpenUpload::begin(&service, "cancelled");
    upload.send_until_shown(&service);
    let mut events = service.connect();
    events.send("GET /v1/jobs/cancelled/events HTTP/1.1\r\nHost: test\r\n\r\n");
    read_event(&mut events);
    let answer = service.request("POST", "/v1/jobs/cancelled/cancel");
    let job = answer.expect(200);
    assert_eq!(job["state"], "cancelled");
    assert_eq!((&job["top_ctr"], &job["links"]["results"]), (&json!([]), &json!({})));
    assert_eq!(job["files"][0]["state"], "failed");
    assert_eq!(job["error"]["type"], "urn:adtally:problem:upload_cancelled");
    let problem = upload.connection.read_reply().expect_problem(409, "upload_cancelled", &["cancelled"]);
    assert_eq!(problem["job"], job["links"]["self"]);
    assert_eq!(service.get(&path(&job)).expect(200), job);
    while read_event(&mut events) != ("state".to_owned(), job.clone()) {}
    service.get(&format!("{}/results/campaigns.csv", path(&job))).expect_problem(409, "job_not_finished", &["cancel"]);
    // Once more it is what was asked for.
    assert_eq!(service.request("POST", "/v1/jobs/cancelled/cancel").expect(200), job);
}

#[test]
fn what_has_ended_cannot_be_cancelled() {
    let service = Service::start();
    let job = make(&service, "done");
    let problem = service.request("POST", "/v1/jobs/done/cancel").expect_problem(409, "job_ended", &["succeeded"]);
    assert_eq!(problem["job"], job["links"]["self"]);
    service.put("/v1/jobs/failed", b"x").expect(422);
    service.request("POST", "/v1/jobs/failed/cancel").expect_problem(409, "job_ended", &["failed"]);
    service.request("POST", "/v1/jobs/nobody/cancel").expect_problem(404, "job_not_found", &["nobody"]);
    assert_eq!(service.get(&path(&job)).expect(200), job);
}

/// Checks that nothing is left of a job.
#[track_caller]
fn assert_gone(service: &Service, job: &Value) {
    service.get(&path(job)).expect_problem(404, "job_not_found", &[]);
    let result = format!("{}/results/top10_ctr.csv", path(job));
    service.get(&result).expect_problem(404, "job_not_found", &[]);
    service.request("DELETE", &path(job)).expect_problem(404, "job_not_found", &[]);
    assert!(!service.path("results").join(job["id"].as_str().unwrap()).exists());
}

#[test]
fn a_removed_job_is_gone_with_its_results() {
    let mut service = Service::start();
    let (old, new) = (make(&service, "same"), make(&service, "same"));
    assert!(service.path("results").join(new["id"].as_str().unwrap()).join("top10_ctr.csv").exists());
    let reply = service.request("DELETE", "/v1/jobs/same");
    assert_eq!((reply.status, &*reply.body), (204, &b""[..]));
    assert_gone(&service, &new);
    // The one before has become the newest.
    assert_eq!(service.get("/v1/jobs/same").expect(200)["id"], old["id"]);
    service.crash_and_restart();
    assert_gone(&service, &new);
    assert_eq!(ids(&service.get("/v1/jobs").expect(200)), [old["id"].as_str().unwrap()]);
}

#[test]
fn removing_a_running_upload_ends_it_first() {
    let service = Service::start();
    let mut upload = OpenUpload::begin(&service, "running");
    let job = upload.send_until_shown(&service);
    assert_eq!(service.request("DELETE", "/v1/jobs/running").status, 204);
    upload.connection.read_reply().expect_problem(409, "upload_cancelled", &[]);
    assert_gone(&service, &job);
    assert_eq!(service.get("/v1/jobs").expect(200)["jobs"], json!([]));
}

#[test]
fn cancelling_in_the_moment_of_the_end_leaves_one_truth() {
    let service = Service::start();
    for round in 0..10 {
        let name = format!("moment-{round}");
        let mut upload = OpenUpload::begin(&service, &name);
        upload.send(&csv(2000)[HEADER.len()..]);
        upload.connection.send(LAST_CHUNK);
        let cancelled = service.request("POST", &format!("/v1/jobs/{name}/cancel"));
        let sent = upload.connection.read_reply();
        let job = service.get(&format!("/v1/jobs/{name}")).expect(200);
        let statuses = (sent.status, cancelled.status);
        match job["state"].as_str().unwrap() {
            "succeeded" => assert_eq!(statuses, (201, 409), "{job}"),
            "cancelled" => assert_eq!(statuses, (409, 200), "{job}"),
            other => panic!("{other}: {job}"),
        }
    }
}

#[test]
fn jobs_expire() {
    let mut service = Service::start_with(&["--keep-finished", "1s"]);
    let reply = service.put("/v1/jobs/short-lived", &csv(3));
    let job = reply.expect(201);
    let expired = |reply: &Reply| reply.status == 410;
    while !expired(&service.get(&path(&job))) {}
    service.get(&path(&job)).expect_problem(410, "job_expired", &[job["id"].as_str().unwrap()]);
    let result = format!("{}/results/top10_ctr.csv", path(&job));
    service.get(&result).expect_problem(410, "job_expired", &[]);
    service.get(&format!("{}/events", path(&job))).expect_problem(410, "job_expired", &[]);
    service.request("DELETE", &path(&job)).expect_problem(410, "job_expired", &[]);
    assert_eq!(service.get("/v1/jobs").expect(200)["jobs"], json!([]), "what has expired is listed");
    // A start removes what has expired meanwhile.
    service.crash_and_restart();
    let directory = service.path("results").join(job["id"].as_str().unwrap());
    let deadline = std::time::Instant::now() + crate::service::PATIENCE;
    while directory.exists() {
        assert!(std::time::Instant::now() < deadline, "{} is still there", directory.display());
        std::thread::yield_now();
    }
    service.get(&path(&job)).expect_problem(410, "job_expired", &[]);
    service.get("/v1/jobs/short-lived").expect_problem(404, "job_not_found", &[]);
}

#[test]
fn jobs_are_searched_by_a_part_of_their_names() {
    let service = Service::start();
    for name in ["North_2025.csv", "north%2025.csv".replace('%', "%25").as_str(), "south.csv", "s%C3%BCd.csv"] {
        service.put(&format!("/v1/jobs/{name}"), &csv(1)).expect(201);
    }
    for (search, names) in [
        ("", &["s\u{fc}d.csv", "south.csv", "north%2025.csv", "North_2025.csv"][..]),
        ("NORTH", &["north%2025.csv", "North_2025.csv"]),
        // Neither is a wildcard.
        ("%25", &["north%2025.csv"]),
        ("_", &["North_2025.csv"]),
        ("%5C", &[]),
        ("%C3%BC", &["s\u{fc}d.csv"]),
        ("2025&name=south.csv", &[]),
        ("th&state=succeeded&name=south.csv", &["south.csv"]),
    ] {
        let list = service.get(&format!("/v1/jobs?search={search}")).expect(200);
        let found: Vec<_> = list["jobs"].as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap()).collect();
        assert_eq!(found, names, "{search}");
    }
    let first = service.get("/v1/jobs?search=north&limit=1");
    let next = first.header("link").unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
    assert!(next.contains("search=north"), "{next}");
    assert_eq!(service.get(&next).expect(200)["jobs"][0]["name"], "North_2025.csv");
}
