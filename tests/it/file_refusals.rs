//! What is refused of a job of several files, and that a refusal changes nothing.

use serde_json::{Value, json};

use crate::files::{SlowFile, complete, file_path, job_path, open};
use crate::harness::HEADER;
use crate::senders::{LAST_CHUNK, chunk, chunked_head, csv};
use crate::service::{Reply, Service};
use crate::uploads::digest;

const JSON: (&str, &str) = ("content-type", "application/json");

fn post_json(service: &Service, document: &str) -> Reply {
    service.send("POST", "/v1/jobs", &[JSON], document.as_bytes())
}

#[track_caller]
fn file(service: &Service, id: &str, name: &str) -> Value {
    service.get(&file_path(id, name)).expect(200)
}

#[test]
fn a_job_is_opened_as_the_document_says() {
    let service = Service::start();
    for document in ["{}", r#"{"options":{}}"#, r#"{"name":null}"#] {
        let reply = post_json(&service, document);
        let job = reply.expect(201);
        assert_eq!(job["name"], job["id"]);
        assert_eq!(reply.header("location"), job["links"]["self"].as_str());
        assert_eq!(job["options"], json!({"delimiter": ",", "has_header": true, "encoding": "utf-8", "top": 10}));
        assert!(job["expires_at"].is_string() && job["finished_at"].is_null(), "{job}");
        assert_eq!(service.get(&job_path(job["id"].as_str().unwrap())).expect(200), job);
    }
    let options = json!({"delimiter": ";", "has_header": false, "encoding": "windows-1252", "top": 3});
    let job = post_json(&service, &json!({"name": "mine", "options": options}).to_string()).expect(201);
    assert_eq!((&job["name"], &job["options"]), (&json!("mine"), &options));
    let job = post_json(&service, r#"{"options":{"delimiter":"tab","encoding":"latin1"}}"#).expect(201);
    assert_eq!((&job["options"]["delimiter"], &job["options"]["encoding"]), (&json!("\t"), &json!("windows-1252")));
    assert_eq!(service.get("/v1/jobs?state=open").expect(200)["jobs"].as_array().unwrap().len(), 5);
}

#[test]
fn documents_that_make_no_sense_open_no_job() {
    let service = Service::start();
    for document in [
        "",
        "{",
        "[]",
        r#"["name"]"#,
        "null",
        "7",
        r#"{"name":7}"#,
        r#"{"title":"x"}"#,
        r#"{"options":{"delimeter":";"}}"#,
        r#"{"options":[]}"#,
        r#"{"options":{"has_header":"true"}}"#,
        r#"{"options":{"top":"10"}}"#,
        r#"{"options":{"top":-1}}"#,
        r#"{"name":"a","name":"b"}"#,
        r#"{"name":"a"} {}"#,
    ] {
        let reply = post_json(&service, document);
        assert_eq!(reply.status, 400, "{document}: {reply:?}");
        reply.expect_problem(400, "invalid_body", &[]);
    }
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(100_000));
    post_json(&service, &long).expect_problem(400, "invalid_body", &[]);
    for (options, name) in [
        (r#"{"top":0}"#, "top"),
        (r#"{"top":1001}"#, "top"),
        (r#"{"top":70000}"#, "top"),
        (r#"{"delimiter":"::"}"#, "delimiter"),
        (r#"{"delimiter":"\""}"#, "delimiter"),
        (r#"{"encoding":"klingon"}"#, "encoding"),
    ] {
        let reply = post_json(&service, &format!("{{\"options\":{options}}}"));
        assert_eq!(reply.status, 400, "{options}: {reply:?}");
        reply.expect_problem(400, "invalid_option", &[name]);
    }
    for name in ["", "a/b", "..", "01a21049-f0c5-7405-b52c-735e95d30a3f"] {
        post_json(&service, &json!({"name": name}).to_string()).expect_problem(400, "invalid_name", &[]);
    }
    service.send("POST", "/v1/jobs?top=3", &[JSON], b"{}").expect_problem(400, "unknown_option", &["top"]);
    service.send("PUT", "/v1/jobs/x", &[JSON], b"{}").expect_problem(415, "unsupported_media_type", &["POST"]);
    assert_eq!(service.get("/v1/jobs").expect(200)["jobs"], json!([]));
}

#[test]
fn a_retry_with_the_same_key_gives_the_open_job() {
    let service = Service::start_with(&["--max-open-jobs", "1"]);
    let send =
        |document: &str| service.send("POST", "/v1/jobs", &[JSON, ("idempotency-key", "k")], document.as_bytes());
    let job = send(r#"{"name":"a"}"#).expect(201);
    let again = send(r#"{"name":"a"}"#);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(200)["id"], job["id"]);
    send(r#"{"name":"b"}"#).expect_problem(422, "idempotency_key_reused", &[]);
    service.send("PUT", "/v1/jobs/a", &[("idempotency-key", "k")], &csv(1)).expect_problem(
        422,
        "idempotency_key_reused",
        &[],
    );
}

#[test]
fn no_more_jobs_are_open_and_no_more_files_in_one_than_may_be() {
    let service = Service::start_with(&["--max-open-jobs", "1", "--max-files", "2"]);
    let id = open(&service, &json!({}));
    let reply = post_json(&service, "{}");
    let problem = reply.expect_problem(503, "too_many_open_jobs", &["1"]);
    assert_eq!(problem["limit"], json!({"name": "max_open_jobs", "value": 1}));
    assert!(reply.header("retry-after").is_some());
    // Uploads that finish by themselves are not open.
    service.put("/v1/jobs/other", &csv(2)).expect(201);
    service.put(&file_path(&id, "1.csv"), &csv(2)).expect(201);
    let held = SlowFile::begin(&service, &id, "2.csv");
    let problem = service.put(&file_path(&id, "3.csv"), &csv(2)).expect_problem(413, "too_many_files", &["2"]);
    assert_eq!(problem["limit"], json!({"name": "max_files", "value": 2}));
    assert_eq!(service.get(&format!("{}/files", job_path(&id))).expect(200)["files"].as_array().unwrap().len(), 2);
    held.finish().0.expect(201);
    assert_eq!(service.request("DELETE", &file_path(&id, "1.csv")).status, 204);
    service.put(&file_path(&id, "3.csv"), &csv(3)).expect(201);
    let job = complete(&service, &id).expect(200);
    assert_eq!((&job["stats"]["rows_read"], &job["files"][1]["name"]), (&json!(3), &json!("3.csv")));
    open(&service, &json!({}));
}

#[test]
fn the_same_file_again_is_welcome_and_another_of_its_name_is_not() {
    let service = Service::start();
    let id = open(&service, &json!({}));
    let path = file_path(&id, "a.csv");
    let body = csv(5);
    let reply = service.put(&path, &body);
    let first = reply.expect(201);
    assert_eq!(reply.header("upload-offset"), Some(&*body.len().to_string()));
    assert_eq!((reply.header("upload-complete"), first["links"]["self"].as_str()), (Some("?1"), Some(&*path)));
    assert_eq!(first["crc64nvme"].as_str().unwrap().len(), 16);
    assert_eq!(service.put(&path, &body).expect(200), first);
    assert_eq!(service.put_chunked(&path, &mut &body[..]).expect(200), first);
    let mut other = body.clone();
    *other.last_mut().unwrap() ^= 1;
    for other in [&other[..], &body[1..], &csv(6), b""] {
        service.put(&path, other).expect_problem(409, "file_complete", &["a.csv"]);
        service.put_chunked(&path, &mut &other[..]).expect_problem(409, "file_complete", &["a.csv"]);
    }
    assert_eq!(file(&service, &id, "a.csv"), first);
    let head = service.request("HEAD", &path);
    assert_eq!((head.status, head.header("upload-complete"), &*head.body), (200, Some("?1"), &b""[..]));
    assert_eq!(head.header("upload-length"), Some(&*body.len().to_string()));
    let list = service.get(&format!("{}/files", job_path(&id))).expect(200);
    assert_eq!(list, json!({"files": [first]}));
    assert_eq!(complete(&service, &id).expect(200)["stats"]["rows_read"], 5);
}

#[test]
fn a_silent_sender_of_a_complete_file_is_not_waited_for() {
    let service = Service::start_with(&["--idle-timeout", "1s"]);
    let id = open(&service, &json!({}));
    service.put(&file_path(&id, "a.csv"), &csv(5)).expect(201);
    let mut silent = service.connect();
    silent.send(chunked_head(&file_path(&id, "a.csv"), "")).send(chunk(HEADER.as_bytes()));
    silent.read_reply().expect_problem(409, "file_complete", &[]);
}

#[test]
fn a_file_that_is_received_has_one_sender_until_it_is_deleted() {
    let service = Service::start();
    let id = open(&service, &json!({}));
    let mut held = SlowFile::begin(&service, &id, "a.csv");
    held.send("of the first,2025-01-01,1000,10,2.50,1\n");
    let reply = service.put(&file_path(&id, "a.csv"), &csv(5));
    reply.expect_problem(409, "file_being_received", &["a.csv"]);
    assert_eq!(file(&service, &id, "a.csv")["state"], "receiving");
    let shown = service.request("HEAD", &file_path(&id, "a.csv"));
    assert_eq!((shown.header("upload-offset"), shown.header("upload-complete")), (Some("0"), Some("?0")));
    assert_eq!(service.request("DELETE", &file_path(&id, "a.csv")).status, 204);
    held.connection.read_reply().expect_problem(409, "file_deleted", &[]);
    service.get(&file_path(&id, "a.csv")).expect_problem(404, "file_not_found", &["a.csv"]);
    service.request("DELETE", &file_path(&id, "a.csv")).expect_problem(404, "file_not_found", &["a.csv"]);
    complete(&service, &id).expect_problem(409, "no_files", &[]);
    service.put(&file_path(&id, "a.csv"), &csv(5)).expect(201);
    let job = complete(&service, &id).expect(200);
    assert_eq!(job["stats"]["rows_read"], 5, "{job}");
    let campaigns = service.get(&format!("{}/results/campaigns.csv", job_path(&id)));
    assert!(!campaigns.text().contains("of the first"), "{}", campaigns.text());
}

#[test]
fn what_was_deleted_is_not_shown_as_counted() {
    let service = Service::start();
    let id = open(&service, &json!({}));
    let held = SlowFile::begin(&service, &id, "held.csv");
    service.put(&file_path(&id, "a.csv"), &csv(500)).expect(201);
    assert_eq!(service.request("DELETE", &file_path(&id, "a.csv")).status, 204);
    let job = service.get(&job_path(&id)).expect(200);
    assert_eq!((&job["progress"]["unique_campaigns"], &job["progress"]["rows_read"]), (&json!(0), &json!(0)), "{job}");
    assert_eq!(job["top_ctr"], json!([]));
    held.finish().0.expect(201);
}

#[test]
fn a_file_with_bad_contents_has_failed_until_a_good_one_comes_or_it_is_deleted() {
    let service = Service::start();
    let id = open(&service, &json!({}));
    service.put(&file_path(&id, "good.csv"), &csv(5)).expect(201);
    for name in ["bad.csv", "worse.csv"] {
        let problem = service.put(&file_path(&id, name), b"a,b\n1,2\n").expect_problem(422, "missing_columns", &[]);
        assert_eq!(problem["job"], job_path(&id));
        let shown = file(&service, &id, name);
        assert_eq!((&shown["state"], &shown["error"]["type"]), (&json!("failed"), &problem["type"]));
        assert_eq!((&shown["offset"], &shown["rows_read"]), (&json!(0), &json!(0)), "it adds nothing");
    }
    let before = service.get(&job_path(&id)).expect(200);
    assert_eq!(before["state"], "open");
    complete(&service, &id).expect_problem(409, "files_incomplete", &["bad.csv", "worse.csv"]);
    service.put(&file_path(&id, "bad.csv"), b"").expect_problem(422, "empty_input", &[]);
    service.put(&file_path(&id, "bad.csv"), &csv(7)).expect(201);
    complete(&service, &id).expect_problem(409, "files_incomplete", &["worse.csv"]);
    assert_eq!(service.request("DELETE", &file_path(&id, "worse.csv")).status, 204);
    let job = complete(&service, &id).expect(200);
    assert_eq!((&job["stats"]["rows_read"], job["files"].as_array().unwrap().len()), (&json!(12), 2));
}

#[test]
fn what_breaks_off_or_has_another_digest_waits_for_another_sender() {
    let service = Service::start();
    let id = open(&service, &json!({}));
    let path = file_path(&id, "a.csv");
    let body = csv(5);
    let mut cut_off = service.connect();
    cut_off.send(format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 500\r\n\r\n{HEADER}"));
    let answer = cut_off.read_to_end();
    assert!(answer.is_empty() || answer.contains("upload_incomplete"), "{answer}");
    service.wait_for_job(&id, |job| job["files"][0]["state"] == "interrupted");
    let shown = file(&service, &id, "a.csv");
    assert_eq!(
        (&shown["offset"], &shown["error"]["type"]),
        (&json!(HEADER.len()), &json!("urn:adtally:problem:upload_incomplete"))
    );
    complete(&service, &id).expect_problem(409, "files_incomplete", &["a.csv"]);
    let wrong = digest(b"something else");
    for field in ["content-digest", "repr-digest"] {
        service.send("PUT", &path, &[(field, &wrong)], &body).expect_problem(400, "digest_mismatch", &[]);
        // It has begun anew.
        let shown = file(&service, &id, "a.csv");
        assert_eq!((&shown["state"], &shown["offset"]), (&json!("waiting"), &json!(0)));
        service.send("PUT", &path, &[(field, "sha-256=x")], &body).expect_problem(400, "invalid_header", &[]);
    }
    let mut trailing = service.connect();
    trailing.send(chunked_head(&path, "Trailer: content-digest\r\n")).send(chunk(&body));
    trailing.send(format!("0\r\nContent-Digest: {wrong}\r\n\r\n"));
    trailing.read_reply().expect_problem(400, "digest_mismatch", &[]);
    let mut unsaid = service.connect();
    unsaid.send(chunked_head(&path, "Trailer: content-digest\r\n")).send(chunk(&body)).send(LAST_CHUNK);
    unsaid.read_reply().expect_problem(400, "invalid_digest", &[]);
    assert_eq!(file(&service, &id, "a.csv")["state"], "waiting");
    service.send("PUT", &path, &[("content-digest", &digest(&body))], &body).expect(201);
    assert_eq!(complete(&service, &id).expect(200)["stats"]["rows_read"], 5);
}

#[test]
fn a_file_may_be_written_otherwise_than_its_job_says() {
    let service = Service::start();
    let id = open(&service, &json!({"options": {"delimiter": ";", "top": 3}}));
    let put = |name: &str, content_type: &str, body: &[u8]| {
        service.send("PUT", &file_path(&id, name), &[("content-type", content_type)], body).expect(201)
    };
    put("1", "text/csv", b"campaign_id;date;impressions;clicks;spend;conversions\na;d;100;1;1.00;1\n");
    put("2?delimiter=%7C&has_header=false", "text/csv", b"a|d|100|1|1.00|1\n");
    put("3?delimiter=tab", "text/csv; header=absent", b"a\td\t100\t1\t1.00\t1\n");
    put("4?encoding=windows-1252&has_header=false", "text/csv; charset=utf-8", b"caf\xe9;d;100;1;1.00;1\n");
    put("5?encoding=utf-16le&has_header=false", "application/octet-stream", &utf_16("caf\u{e9};d;100;1;1.00;1\n"));
    for (query, code) in [
        ("top=3", "unknown_option"),
        ("name=x", "unknown_option"),
        ("delimiter=", "invalid_option"),
        ("has_header=1", "invalid_option"),
        ("encoding=klingon", "invalid_option"),
        ("delimiter=%3B&delimiter=%3B", "invalid_option"),
    ] {
        let reply = service.put(&format!("{}?{query}", file_path(&id, "6")), &csv(1));
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
        reply.expect_problem(400, code, &[]);
    }
    let job = complete(&service, &id).expect(200);
    assert_eq!((&job["stats"]["rows_skipped"], &job["stats"]["rows_read"]), (&json!(0), &json!(5)));
    assert_eq!(job["options"], json!({"delimiter": ";", "has_header": true, "encoding": "utf-8", "top": 3}));
    let campaigns = service.get(&format!("{}/results/campaigns.csv", job_path(&id)));
    let ids: Vec<_> =
        campaigns.text().lines().skip(1).map(|line| line.split(',').take(2).collect::<Vec<_>>()).collect();
    assert_eq!(ids, [["a", "300"], ["caf\u{e9}", "200"]]);
}

fn utf_16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn files_are_sent_to_open_jobs_by_their_ids() {
    let service = Service::start();
    let id = open(&service, &json!({"name": "open"}));
    let unknown = "01a21049-f0c5-7405-b52c-735e95d30a3f";
    for (method, body) in [("PUT", csv(1)), ("DELETE", Vec::new())] {
        let send = |path: &str| service.send(method, path, &[], &body);
        send(&file_path(unknown, "a.csv")).expect_problem(404, "job_not_found", &[unknown]);
        send(&file_path("open", "a.csv")).expect_problem(400, "invalid_name", &["open"]);
    }
    for path in [job_path(unknown) + "/files", file_path(unknown, "a.csv")] {
        service.get(&path).expect_problem(404, "job_not_found", &[unknown]);
    }
    complete(&service, unknown).expect_problem(404, "job_not_found", &[unknown]);
    service.get(&file_path(&id, "a.csv")).expect_problem(404, "file_not_found", &["a.csv"]);
    for name in ["%2e%2e", "a%2Fb", "a%5Cb", "a%00b", unknown, &"x".repeat(256)] {
        service.put(&file_path(&id, name), &csv(1)).expect_problem(400, "invalid_name", &[]);
    }
    let put = |headers: &[(&str, &str)]| service.send("PUT", &file_path(&id, "a.csv"), headers, &csv(1));
    put(&[JSON]).expect_problem(415, "unsupported_media_type", &[]);
    put(&[("content-type", "multipart/form-data; boundary=x")]).expect_problem(415, "unsupported_media_type", &[]);
    put(&[("content-encoding", "lzma")]).expect_problem(415, "unsupported_content_coding", &[]);
    put(&[("content-range", "bytes 5-9/10")]).expect_problem(400, "invalid_header", &["another length"]);
    let range = format!("bytes 5-{}/500", csv(1).len() + 4);
    put(&[("content-range", &range)]).expect_problem(404, "file_not_found", &["a.csv"]);
    assert_eq!(service.get(&job_path(&id)).expect(200)["files"], json!([]));
    // Reading takes names.
    service.put(&file_path(&id, "caf%C3%A9%20%231.csv"), &csv(1)).expect(201);
    let shown = service.get("/v1/jobs/open/files/caf%C3%A9%20%231.csv").expect(200);
    assert_eq!(shown["name"], "caf\u{e9} #1.csv");
    assert_eq!(service.get(shown["links"]["self"].as_str().unwrap()).expect(200), shown);
    assert_eq!(service.request("POST", "/v1/jobs/open/complete").expect(200)["id"], id);
}

#[test]
fn jobs_that_end_by_themselves_or_have_ended_take_no_files() {
    let service = Service::start();
    let upload = crate::senders::OpenUpload::begin(&service, "one-shot");
    let refuse = |id: &str, name: &str, code: &str, say: &[&str]| {
        let before = service.get(&job_path(id)).expect(200);
        service.put(&file_path(id, name), &csv(1)).expect_problem(409, code, say);
        service.request("DELETE", &file_path(id, name)).expect_problem(409, code, say);
        assert_eq!(service.get(&job_path(id)).expect(200), before);
    };
    refuse(&upload.id, "new.csv", "job_closes_itself", &[&upload.id]);
    // Its own file can go on, once it is interrupted.
    let own = file_path(&upload.id, "one-shot");
    service.put(&own, &csv(1)).expect_problem(409, "file_being_received", &["one-shot"]);
    service.request("DELETE", &own).expect_problem(409, "job_closes_itself", &[&upload.id]);
    complete(&service, &upload.id).expect_problem(409, "job_closes_itself", &[]);
    let id = upload.id.clone();
    let done = upload.finish().expect(201);
    refuse(&id, "new.csv", "job_ended", &["succeeded"]);
    assert_eq!(complete(&service, &id).expect(200), done);
    let failed = service.put("/v1/jobs/failed", b"x").expect(422)["job"].as_str().unwrap().to_owned();
    let failed = failed.rsplit_once('/').unwrap().1;
    refuse(failed, "new.csv", "job_ended", &["failed"]);
    complete(&service, failed).expect_problem(409, "job_ended", &["failed"]);
    let open = open(&service, &json!({}));
    service.put(&file_path(&open, "a.csv"), &csv(2)).expect(201);
    complete(&service, &open).expect(200);
    refuse(&open, "a.csv", "job_ended", &["succeeded"]);
    refuse(&open, "new.csv", "job_ended", &["succeeded"]);
    service.request("POST", &(job_path(&open) + "/cancel")).expect_problem(409, "job_ended", &["succeeded"]);
}
