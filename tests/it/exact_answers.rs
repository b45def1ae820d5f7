//! Small things in requests and answers that clients rely on.

use serde_json::{Value, json};

use crate::harness::{HEADER, gzip, lines};
use crate::senders::{FORM_TYPE, LAST_CHUNK, OpenUpload, chunk, chunked_head, csv, form};
use crate::service::{Reply, Service};
use crate::uploads::digest;

fn post_form(service: &Service, parts: &[(&str, &[u8])]) -> Reply {
    service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], &form(parts))
}

fn first_result(service: &Service) -> String {
    let job = service.put("/v1/jobs/results", &csv(50)).expect(201);
    job["links"]["results"]["top10_ctr.csv"].as_str().unwrap().to_owned()
}

#[test]
fn two_idempotency_keys_are_refused() {
    let service = Service::start();
    let keys = [("idempotency-key", "one"), ("idempotency-key", "two")];
    service.send("PUT", "/v1/jobs/", &keys, &csv(1)).expect_problem(400, "invalid_header", &["more than once"]);
    assert_eq!(service.get("/v1/jobs").expect(200)["jobs"], json!([]));
}

#[test]
fn a_key_stands_for_one_name_or_for_none() {
    let service = Service::start();
    for (number, first, second) in [(1, "/v1/jobs/named", "/v1/jobs/"), (2, "/v1/jobs/", "/v1/jobs/named")] {
        let key = [("idempotency-key", ["", "one", "two"][number])];
        service.send("PUT", first, &key, &csv(1)).expect(201);
        let replay = service.send("PUT", first, &key, &csv(1));
        assert_eq!(replay.header("idempotency-replayed"), Some("true"));
        service.send("PUT", second, &key, &csv(1)).expect_problem(422, "idempotency_key_reused", &["name"]);
    }
}

#[test]
fn a_key_stands_for_one_content_as_far_as_digests_tell() {
    let service = Service::start();
    let (contents, other) = (csv(3), csv(4));
    let (known, changed) = (digest(&contents), digest(&other));
    let key = ("idempotency-key", "key");
    service.send("PUT", "/v1/jobs/", &[key, ("content-digest", &known)], &contents).expect(201);
    for headers in [vec![key, ("content-digest", known.as_str())], vec![key]] {
        assert_eq!(service.send("PUT", "/v1/jobs/", &headers, &contents).status, 200);
    }
    let reply = service.send("PUT", "/v1/jobs/", &[key, ("content-digest", &changed)], &other);
    reply.expect_problem(422, "idempotency_key_reused", &["contents"]);
}

#[test]
fn a_digest_that_was_announced_has_to_come() {
    let service = Service::start();
    let body = csv(3);
    let mut connection = service.connect();
    connection.send(chunked_head("/v1/jobs/missing", "Trailer: content-digest\r\n"));
    connection.send(chunk(&body)).send(LAST_CHUNK);
    connection.read_reply().expect_problem(400, "invalid_digest", &["announced", "none came"]);
    let mut connection = service.connect();
    connection.send(chunked_head("/v1/jobs/there", "Trailer: content-digest\r\n")).send(chunk(&body));
    connection.send(format!("0\r\nContent-Digest: {}\r\n\r\n", digest(&body)));
    connection.read_reply().expect(201);
}

#[test]
fn a_form_that_succeeded_has_received_what_was_expected() {
    let service = Service::start();
    let file = csv(30);
    let job = post_form(&service, &[("name=\"file\"; filename=\"a.csv\"", &file)]).expect(201);
    let progress = &job["progress"];
    assert_eq!((&progress["bytes_received"], &progress["bytes_expected"]), (&json!(file.len()), &json!(file.len())));
}

#[test]
fn every_size_that_is_too_large_names_its_limit() {
    let arguments = ["--max-upload", "20000", "--max-text", "30000", "--max-campaigns", "5", "--max-form-parts", "2"];
    let service = Service::start_with(&arguments);
    let limit = |name: &str, value: u64| json!({ "name": name, "value": value });
    let assert_limit = |reply: &Reply, status, code: &str, expected: Value| {
        let problem = reply.expect_problem(status, code, &[]);
        assert_eq!(problem["limit"], expected, "{problem}");
        if let Some(job) = problem["job"].as_str() {
            assert_eq!(service.get(job).expect(200)["error"]["limit"], expected);
        }
    };
    let same = HEADER.to_owned() + &"c1,2025-01-01,1000,10,2.50,1\n".repeat(2000);
    let chunked = service.put_chunked("/v1/jobs/chunked", &mut same.as_bytes());
    assert_limit(&chunked, 413, "upload_too_large", limit("max_upload_bytes", 20_000));
    assert_limit(
        &service.put("/v1/jobs/known", &csv(2000)),
        413,
        "upload_too_large",
        limit("max_upload_bytes", 20_000),
    );
    let text = service.put("/v1/jobs/text", &gzip(same.as_bytes()));
    assert_limit(&text, 413, "text_too_large", limit("max_text_bytes", 30_000));
    let many = HEADER.to_owned() + &lines(9, |number| format!("c{number},d,1,1,1,1"));
    let campaigns = service.put("/v1/jobs/many", many.as_bytes());
    assert_limit(&campaigns, 422, "too_many_campaigns", limit("max_campaigns", 5));
    let part: (&str, &[u8]) = ("name=\"a\"", b"");
    assert_limit(&post_form(&service, &[part; 3]), 413, "form_too_large", limit("max_form_parts", 2));
}

#[test]
fn what_excludes_identity_is_answered_all_the_same() {
    let service = Service::start();
    for (number, accepted) in ["identity;q=0", "*;q=0", "identity; q=0.0, *;Q=0", "br, *;q=0"].iter().enumerate() {
        let name = format!("/v1/jobs/job-{number}");
        let reply = service.send("PUT", &name, &[("accept-encoding", accepted)], &csv(1));
        assert_eq!(reply.expect(201)["state"], "succeeded", "{accepted}");
        assert_eq!(service.send("DELETE", &name, &[("accept-encoding", accepted)], b"").status, 204, "{accepted}");
    }
    let compressed = service.send("GET", "/openapi.yaml", &[("accept-encoding", "gzip, identity;q=0")], b"");
    assert_eq!((compressed.status, compressed.header("content-encoding")), (200, Some("gzip")));
}

#[test]
fn a_condition_for_a_range_that_cannot_be_understood_does_not_hold() {
    let service = Service::start();
    let result = first_result(&service);
    let etag = service.get(&result).header("etag").unwrap().to_owned();
    let status =
        |condition: &str| service.send("GET", &result, &[("range", "bytes=0-9"), ("if-range", condition)], b"").status;
    assert_eq!(status(&etag), 206);
    for condition in ["\"other\"", "nonsense", "\"unclosed", "W/", "32"] {
        assert_eq!(status(condition), 200, "{condition}");
    }
}

#[test]
fn an_answer_that_leaves_the_body_out_does_not_say_it_is_empty() {
    let service = Service::start();
    for path in [first_result(&service), "/v1/jobs/results".to_owned()] {
        let etag = service.get(&path).header("etag").unwrap().to_owned();
        for method in ["GET", "HEAD"] {
            let mut connection = service.connect();
            connection.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\nIf-None-Match: {etag}\r\n\r\n"));
            let head = connection.read_until("\r\n\r\n").to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 304"), "{head}");
            assert!(!head.contains("content-length"), "{method} {path}: {head}");
        }
    }
}

#[test]
fn a_file_input_without_a_file_is_passed_over() {
    let service = Service::start();
    let (good, rows) = ("name=\"good\"; filename=\"good.csv\"", csv(3));
    let empty: (&str, &[u8]) = ("name=\"other\"; filename=\"\"", b"");
    for parts in [[(good, rows.as_slice()), empty], [empty, (good, rows.as_slice())]] {
        let job = post_form(&service, &parts).expect(201);
        assert_eq!((&job["stats"]["rows_read"], job["files"].as_array().unwrap().len()), (&json!(3), 1));
    }
    post_form(&service, &[empty]).expect_problem(400, "form_without_file", &[]);
}

#[test]
fn files_of_forms_are_known_by_every_spelling_of_their_name() {
    let service = Service::start();
    for (disposition, name) in [
        ("name=\"file\"; FILENAME=\"capitals.csv\"", "capitals.csv"),
        ("name=\"file\"; filename*=UTF-8''caf%C3%A9.csv", "caf\u{e9}.csv"),
        ("name=\"file\"; filename*=utf-8''only.csv", "only.csv"),
        ("name=\"file\"; filename=\"plain.csv\"; filename*=UTF-8''other.csv", "plain.csv"),
    ] {
        let job = post_form(&service, &[(disposition, &csv(3))]).expect(201);
        assert_eq!(job["files"][0]["name"], name, "{disposition}");
    }
}

#[test]
fn names_of_files_in_forms_are_read_as_senders_write_them() {
    let service = Service::start();
    let first = |body: &[u8]| service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], body);
    let part = |disposition: &[u8]| {
        let head = [b"--frontier\r\nContent-Disposition: form-data; ", disposition, b"\r\n\r\n"].concat();
        [head, csv(3), b"\r\n--frontier--\r\n".to_vec()].concat()
    };
    for (disposition, name) in [
        ("name=\"f\"; FILENAME=\"\u{fc}.csv\"".as_bytes(), "\u{fc}.csv"),
        ("name=\"Anh\u{e4}nge\"; filename*=UTF-8''y.csv".as_bytes(), "y.csv"),
        (b"name=\"f\"; filename=\"M\xe4rz.csv\"", "M\u{e4}rz.csv"),
        (b"name=\"f\"; FILENAME=\"M\xe4rz.csv\"", "M\u{e4}rz.csv"),
        (b"name=\"a;filename=evil.csv\"; filename=\"good.csv\"", "good.csv"),
    ] {
        assert_eq!(first(&part(disposition)).expect(201)["files"][0]["name"], name, "{disposition:?}");
    }
    // A text field is no file, also when its name looks like one.
    first(&part(b"name=\"my filename=z.csv\"")).expect_problem(400, "form_without_file", &[]);
    first(&part(b"name=\"f\\\"; filename=evil.csv; x=\\\"\"")).expect_problem(400, "form_without_file", &[]);
}

#[test]
fn digests_that_contradict_each_other_or_do_not_come_are_refused() {
    let service = Service::start();
    let (one, other) = (digest(&csv(1)), digest(&csv(2)));
    let fields = [("content-digest", one.as_str()), ("repr-digest", other.as_str())];
    service.send("PUT", "/v1/jobs/", &fields, &csv(1)).expect_problem(400, "invalid_header", &["two"]);
    let mut connection = service.connect();
    connection.send(chunked_head("/v1/jobs/one", "Trailer: content-digest, repr-digest\r\n")).send(chunk(&csv(1)));
    connection.send(format!("0\r\nContent-Digest: {one}\r\n\r\n"));
    connection.read_reply().expect_problem(400, "invalid_digest", &["none came"]);
}

#[test]
fn documents_end_with_a_line_end() {
    let service = Service::start();
    let upload = OpenUpload::begin(&service, "running");
    service.put("/v1/jobs/done", &csv(1));
    for path in ["/v1/jobs", "/v1/jobs/done", "/v1/jobs/running", "/v1/jobs/unknown", "/nowhere"] {
        assert!(service.get(path).body.ends_with(b"}\n"), "{path}");
    }
    assert!(service.put("/v1/jobs/bad", b"").body.ends_with(b"}\n"));
    assert!(upload.finish().body.ends_with(b"}\n"));
}
