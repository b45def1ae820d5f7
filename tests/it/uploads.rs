//! Uploads that go well, and what their senders may ask for: names, options, digests, retries, forms.

use std::process::Stdio;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cases::Case;
use crate::harness::{HEADER, Workspace};
use crate::senders::{FORM_TYPE, LAST_CHUNK, OpenUpload, chunk, chunked_head, csv, curl, form, row};
use crate::service::{Reply, Service};

const ONE_ROW: &str = "campaign_id,impressions,clicks,spend,conversions\nA,100,5,1.50,1\n";

/// A digest as RFC 9530 writes it.
pub(crate) fn digest(body: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in Sha256::digest(body).chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = if at <= three.len() { ALPHABET[bits >> (18 - 6 * at) & 63] } else { b'=' };
            text.push(char::from(letter));
        }
    }
    format!("sha-256=:{text}:")
}

/// Checks that an upload went well, and gives its job.
#[track_caller]
fn created(reply: &Reply) -> Value {
    let job = reply.expect(201);
    assert_eq!(job["state"], "succeeded");
    assert_eq!(reply.header("location"), job["links"]["self"].as_str());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.header("x-request-id").is_some());
    job
}

fn options(job: &Value) -> Value {
    job["options"].clone()
}

#[test]
fn a_job_is_found_under_its_id_and_its_name_where_the_answer_says() {
    let service = Service::start();
    let body = csv(5);
    let job = created(&service.put("/v1/jobs/ad_data.csv", &body));
    let id = job["id"].as_str().unwrap();
    assert_eq!(job["links"]["self"], format!("/v1/jobs/{id}"));
    assert_eq!(job["links"]["events"], format!("/v1/jobs/{id}/events"));
    assert_eq!(job["name"], "ad_data.csv");
    assert_eq!(job["error"], Value::Null);
    let length = body.len();
    let file = &job["files"][0];
    assert_eq!(job["files"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&file["name"], &file["state"], &file["rows_read"]),
        (&json!("ad_data.csv"), &json!("complete"), &json!(5))
    );
    assert_eq!((&file["offset"], &file["length"]), (&json!(length), &json!(length)));
    let progress = &job["progress"];
    assert_eq!(progress["bytes_received"], length);
    assert_eq!(progress["bytes_expected"], length);
    assert_eq!(progress["rows_read"], 5);
    assert_eq!(progress["unique_campaigns"], 5);
    assert_eq!(progress["eta_seconds"], Value::Null);
    for address in [id, "ad_data.csv"] {
        assert_eq!(service.get(&format!("/v1/jobs/{address}")).expect(200), job, "{address}");
    }
}

#[test]
fn every_way_to_say_a_name_is_understood() {
    let service = Service::start();
    let body = csv(1);
    let name = |job: &Value| job["name"].as_str().unwrap().to_owned();
    for path in ["/v1/jobs", "/v1/jobs/"] {
        let job = created(&service.put(path, &body));
        assert_eq!(job["name"], job["id"], "without a name the id is it");
    }
    assert_eq!(name(&created(&service.put("/v1/jobs/Bericht%20Mai.csv", &body))), "Bericht Mai.csv");
    assert_eq!(name(&created(&service.put("/v1/jobs/caf%C3%A9%3F%23", &body))), "caf\u{e9}?#");
    assert_eq!(name(&created(&service.put("/v1/jobs/...", &body))), "...");
    assert_eq!(name(&created(&service.put(&format!("/v1/jobs/{}", "x".repeat(255)), &body))), "x".repeat(255));
    assert_eq!(service.get("/v1/jobs/caf%C3%A9%3F%23").expect(200)["name"], "caf\u{e9}?#");
    let job = created(&service.send("POST", "/v1/jobs?name=a+b%26c", &[], &body));
    assert_eq!(name(&job), "a b&c");
    assert_eq!(job["files"][0]["name"], "a b&c");
    let headers = [("content-type", FORM_TYPE)];
    let form = form(&[("name=\"file\"; filename=\"C:\\\\data\\\\may.csv\"", &body)]);
    let job = created(&service.send("POST", "/v1/jobs?name=both", &headers, &form));
    assert_eq!((&job["name"], &job["files"][0]["name"]), (&json!("both"), &json!("may.csv")));
    let job = created(&service.send("POST", "/v1/jobs", &headers, &form));
    assert_eq!(job["files"][0]["name"], "may.csv");
}

#[test]
fn every_common_media_type_of_a_file_is_taken() {
    let service = Service::start();
    for content_type in [
        "text/csv",
        "text/csv; charset=utf-8",
        "TEXT/CSV; Header=Present",
        "text/plain",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "application/vnd.ms-excel",
        "application/gzip",
    ] {
        for (method, path) in [("POST", "/v1/jobs"), ("PUT", "/v1/jobs/typed.csv")] {
            let reply = service.send(method, path, &[("content-type", content_type)], ONE_ROW.as_bytes());
            assert_eq!(reply.status, 201, "{method} {content_type}: {}", reply.text());
        }
    }
}

#[test]
fn options_come_from_the_query_and_the_media_type_and_the_query_wins() {
    let service = Service::start();
    let send = |query: &str, content_type: &str, body: &[u8]| {
        let path = format!("/v1/jobs/options{query}");
        options(&created(&service.send("PUT", &path, &[("content-type", content_type)], body)))
    };
    let all = |delimiter: &str, has_header: bool, encoding: &str, top: u16| json!({"delimiter": delimiter, "has_header": has_header, "encoding": encoding, "top": top});
    let row = b"A,2025-01-01,100,5,1.50,1\n";
    assert_eq!(send("", "text/csv", ONE_ROW.as_bytes()), all(",", true, "utf-8", 10));
    assert_eq!(send("?top=1000", "text/csv", ONE_ROW.as_bytes()), all(",", true, "utf-8", 1000));
    assert_eq!(send("", "text/csv; charset=ISO-8859-1; header=absent", row), all(",", false, "windows-1252", 10));
    assert_eq!(send("", "text/csv; header=\"absent\"", row), all(",", false, "utf-8", 10));
    let query = "?has_header=true&encoding=utf-8&top=3";
    assert_eq!(send(query, "text/csv; charset=latin1; header=absent", ONE_ROW.as_bytes()), all(",", true, "utf-8", 3));
    let tabs = ONE_ROW.replace(',', "\t");
    assert_eq!(send("?delimiter=tab", "text/csv", tabs.as_bytes()), all("\t", true, "utf-8", 10));
    assert_eq!(send("?delimiter=%09", "text/csv", tabs.as_bytes()), all("\t", true, "utf-8", 10));
    let semicolons = ONE_ROW.replace(',', ";");
    assert_eq!(send("?delimiter=;", "text/csv", semicolons.as_bytes()), all(";", true, "utf-8", 10));
    // The length of the lists is in their names.
    let job = created(&service.put("/v1/jobs/?top=25", ONE_ROW.as_bytes()));
    assert!(job["links"]["results"]["top25_ctr.csv"].is_string(), "{job}");
}

#[test]
fn a_digest_that_fits_is_taken_and_one_that_does_not_is_refused() {
    let service = Service::start();
    let body = csv(100);
    let (right, wrong) = (digest(&body), digest(b"something else"));
    for field in ["content-digest", "repr-digest"] {
        created(&service.send("PUT", "/v1/jobs/right", &[(field, &right)], &body));
        let reply = service.send("PUT", "/v1/jobs/wrong", &[(field, &wrong)], &body);
        let problem = reply.expect_problem(400, "digest_mismatch", &["nothing was counted"]);
        let job = service.get(problem["job"].as_str().unwrap()).expect(200);
        assert_eq!((&job["state"], &job["links"]["results"]), (&json!("failed"), &json!({})));
    }
    // Others may be there, too, and are not looked at.
    let others = format!("sha-512=:AAAA:, {right}, md5=:AAAA:");
    created(&service.send("PUT", "/v1/jobs/right", &[("content-digest", &others)], &body));
    created(&service.send("PUT", "/v1/jobs/right", &[("content-digest", "sha-512=:AAAA:")], &body));
    // Of compressed data the digest is that of the bytes as they are sent.
    let compressed = crate::harness::gzip(&body);
    let headers = [("content-encoding", "gzip"), ("content-digest", &*digest(&compressed))];
    created(&service.send("PUT", "/v1/jobs/right", &headers, &compressed));
    for malformed in ["sha-256=:AAAA:", "sha-256=AAAA", "sha-256", ":::", "sha-256=:!:"] {
        let reply = service.send("PUT", "/v1/jobs/malformed", &[("content-digest", malformed)], &body);
        reply.expect_problem(400, "invalid_header", &["content-digest", "sha-256=:BASE64:"]);
    }
    // Those were refused before there was a job.
    service.get("/v1/jobs/malformed").expect_problem(404, "job_not_found", &["malformed"]);
}

#[test]
fn a_digest_may_follow_the_last_byte() {
    let service = Service::start();
    let body = csv(100);
    let send = |announcement: &str, trailer: &str| {
        let mut connection = service.connect();
        connection.send(chunked_head("/v1/jobs/trailing", announcement)).send(chunk(&body[..1000]));
        connection.send(chunk(&body[1000..])).send(format!("0\r\n{trailer}\r\n"));
        connection.read_reply()
    };
    let announced = "Trailer: Content-Digest\r\n";
    created(&send(announced, &format!("Content-Digest: {}\r\n", digest(&body))));
    created(&send("Trailer: X-Other, repr-digest\r\n", &format!("Repr-Digest: {}\r\n", digest(&body))));
    created(&send("", "X-Other: something\r\n"));
    let wrong = format!("Content-Digest: {}\r\n", digest(b"other"));
    send(announced, &wrong).expect_problem(400, "digest_mismatch", &[]);
    send(announced, "Content-Digest: sha-256=:AAAA:\r\n").expect_problem(400, "invalid_digest", &["32 bytes"]);
    // What cannot be verified any more is not passed over.
    let right = format!("Content-Digest: {}\r\n", digest(&body));
    send("", &right).expect_problem(400, "invalid_digest", &["announced"]);
}

#[test]
fn a_digest_of_a_whole_form_is_verified_or_refused() {
    let service = Service::start();
    let body = form(&[("name=\"file\"; filename=\"a.csv\"", ONE_ROW.as_bytes())]);
    let wrong = digest(b"something else");
    let reply = service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE), ("content-digest", &wrong)], &body);
    assert_eq!(reply.status, 400, "a wrong digest was passed over: {}", reply.text());
}

#[test]
fn a_retry_with_the_same_key_gives_the_first_job() {
    let service = Service::start();
    let body = csv(3);
    let key = [("idempotency-key", "8e03978e-40d5-43e8-bc93-6894a57f9324")];
    let first = service.send("PUT", "/v1/jobs/keyed", &key, &body);
    assert_eq!(first.header("idempotency-replayed"), None);
    let job = created(&first);
    let again = service.send("PUT", "/v1/jobs/keyed", &key, &body);
    assert_eq!(again.expect(200), job);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("location"), first.header("location"));
    let jobs = service.get("/v1/jobs?name=keyed").expect(200);
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1);
    // Something else with the same key is a mistake.
    for path in ["/v1/jobs/another", "/v1/jobs/keyed?top=3"] {
        service.send("PUT", path, &key, &body).expect_problem(
            422,
            "idempotency_key_reused",
            &["another name, other options"],
        );
    }
    // Contents that cannot be used will be no better the next time.
    let key = [("idempotency-key", "bad")];
    let first = service.send("PUT", "/v1/jobs/bad", &key, b"x,y\n1,2\n");
    let problem = first.expect_problem(422, "missing_columns", &[]);
    let again = service.send("PUT", "/v1/jobs/bad", &key, b"x,y\n1,2\n");
    assert_eq!(again.expect_problem(422, "missing_columns", &[])["job"], problem["job"]);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    // With its job the key is gone.
    assert_eq!(service.request("DELETE", "/v1/jobs/keyed").status, 204);
    let key = [("idempotency-key", "8e03978e-40d5-43e8-bc93-6894a57f9324")];
    assert_ne!(created(&service.send("PUT", "/v1/jobs/keyed", &key, &body))["id"], job["id"]);
}

#[test]
fn a_key_is_in_use_while_its_job_is_received_and_free_when_that_breaks_off() {
    let service = Service::start();
    let key = [("idempotency-key", "k")];
    let upload = OpenUpload::begin_with(&service, "keyed", "Idempotency-Key: k\r\n");
    let reply = service.send("PUT", "/v1/jobs/keyed", &key, &csv(1));
    let problem = reply.expect_problem(409, "idempotency_key_in_use", &[&upload.id]);
    assert_eq!(problem["job"], format!("/v1/jobs/{}", upload.id));
    assert_eq!(reply.header("retry-after"), Some("1"));
    let id = upload.id.clone();
    upload.connection.vanish();
    service.wait_for_job(&id, |job| job["state"] == "interrupted");
    // The end is shown before it is on the disk.
    let reply = loop {
        let reply = service.send("PUT", "/v1/jobs/keyed", &key, &csv(1));
        if reply.status != 409 {
            break reply;
        }
    };
    assert_eq!(created(&reply)["id"], id);
}

#[test]
fn of_two_uploads_with_the_same_key_at_once_one_counts() {
    let service = Service::start();
    let body = csv(1000);
    for round in 0..5 {
        let key = format!("round-{round}");
        let replies: Vec<_> = std::thread::scope(|scope| {
            let send = || service.send("PUT", "/v1/jobs/race", &[("idempotency-key", &key)], &body);
            let senders: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
            senders.into_iter().map(|sender| sender.join().unwrap()).collect()
        });
        let count = |status| replies.iter().filter(|reply| reply.status == status).count();
        assert_eq!((count(201), count(200) + count(409)), (1, 3), "{replies:?}");
    }
    assert_eq!(service.get("/v1/jobs?name=race").expect(200)["jobs"].as_array().unwrap().len(), 5);
}

#[test]
fn files_of_a_form_add_up_in_their_order() {
    let service = Service::start();
    let second = ONE_ROW.replace("A,100,5,1.50,1", "A,1,1,1,1\nB,x,1,1,1\nC,1,1,1");
    let first = ONE_ROW.replace("A,100", "A,100,5,1.50,1\n,100");
    let body = form(&[
        ("name=\"note\"", b"two files"),
        ("name=\"file\"; filename=\"first.csv\"", first.as_bytes()),
        ("name=\"file\"; filename=\"second, part.csv\"", second.as_bytes()),
    ]);
    let job = created(&service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], &body));
    let names: Vec<_> = job["files"].as_array().unwrap().iter().map(|file| &file["name"]).collect();
    assert_eq!(names, ["first.csv", "second, part.csv"]);
    assert_eq!(job["stats"]["rows_read"], 5);
    assert_eq!(job["stats"]["rows_skipped"], 3);
    assert_eq!(job["stats"]["skipped"], json!({"campaign_id": 1, "column_count": 1, "impressions": 1}));
    assert_eq!(job["progress"]["bytes_received"], first.len() + second.len());
    let document = |name: &str| service.get(job["links"]["results"][name].as_str().unwrap());
    assert!(document("campaigns.csv").text().contains("\nA,101,6,2.50,2,"), "{:?}", document("campaigns.csv"));
    assert_eq!(
        document("rejects.csv").text(),
        "line,byte_offset,reason,record,file\n\
         3,64,campaign_id,\",100,5,1.50,1\",first.csv\n\
         3,59,impressions,\"B,x,1,1,1\",\"second, part.csv\"\n\
         4,69,column_count,\"C,1,1,1\",\"second, part.csv\"\n"
    );
    let headers = [("accept", "application/json")];
    let json = service.send("GET", job["links"]["results"]["rejects.csv"].as_str().unwrap(), &headers, b"").expect(200);
    assert_eq!(json[0]["file"], "first.csv");
    assert_eq!(json[2]["byte_offset"], 69);
}

#[test]
fn forms_may_be_as_large_as_uploads() {
    let service = Service::start();
    let large = csv(200_000);
    assert!(large.len() > 4 * 1024 * 1024);
    let part = |name| (name, large.as_slice());
    let body = form(&[part("name=\"f\"; filename=\"a.csv\""), part("name=\"f\"; filename=\"b.csv\"")]);
    let job = created(&service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], &body));
    assert_eq!(
        (&job["stats"]["rows_read"], &job["progress"]["bytes_received"]),
        (&json!(400_000), &json!(2 * large.len()))
    );
}

#[test]
fn the_order_of_files_changes_no_table() {
    let service = Service::start();
    let case = Case::all().into_iter().find(|case| case.name == "more_than_ten").unwrap();
    let text = String::from_utf8(case.input.clone()).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    let rows: Vec<_> = rows.lines().collect();
    let (left, right) = rows.split_at(rows.len() / 2);
    let files = [left, right].map(|rows| format!("{header}\n{}\n", rows.join("\n")));
    for order in [[0, 1], [1, 0]] {
        let part = |at: usize| ("name=\"f\"; filename=\"f.csv\"", files[order[at]].as_bytes());
        let body = form(&[part(0), part(1)]);
        let job = created(&service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], &body));
        let names: Vec<_> = job["files"].as_array().unwrap().iter().map(|file| &file["name"]).collect();
        assert_eq!(names, ["f.csv", "f.csv (2)"]);
        for name in case.lists() {
            let reply = service.get(job["links"]["results"][&name].as_str().unwrap());
            assert_eq!(reply.text(), case.expected(&name), "{order:?}: {name}");
        }
    }
}

#[test]
fn a_body_is_asked_for_only_when_it_is_wanted() {
    let service = Service::start();
    let body = csv(2);
    let head = |path: &str| {
        let length = body.len();
        format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut connection = service.connect();
    connection.send(head("/v1/jobs/fine"));
    assert_eq!(connection.read_reply().status, 100);
    connection.send(&body);
    created(&connection.read_reply());
    for (path, status) in [("/v1/jobs/refused?top=0", 400), ("/v1/nothing", 404), ("/v1/jobs/x/events", 405)] {
        let mut connection = service.connect();
        connection.send(head(path));
        assert_eq!(connection.read_reply().status, status, "{path}");
    }
    // The body of a retry is not wanted either.
    let key = "Idempotency-Key: once\r\n\r\n";
    let keyed = head("/v1/jobs/fine").replacen("\r\n\r\n", &format!("\r\n{key}"), 1);
    let mut connection = service.connect();
    connection.send(&keyed);
    assert_eq!(connection.read_reply().status, 100);
    connection.send(&body);
    created(&connection.read_reply());
    let mut connection = service.connect();
    connection.send(&keyed);
    assert_eq!(connection.read_reply().status, 200);
}

#[test]
fn requests_follow_each_other_on_a_connection() {
    let service = Service::start();
    let mut connection = service.connect();
    let body = csv(2);
    let length = body.len();
    for path in ["/v1/jobs/one", "/v1/jobs/two", "/v1/jobs/three"] {
        let head = format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        connection.send(head).send(&body);
        assert_eq!(connection.read_reply().status, 201, "{path}");
    }
}

#[test]
fn an_upload_whose_sender_says_that_nothing_more_comes_is_answered() {
    let service = Service::start();
    let mut connection = service.connect();
    connection.send(chunked_head("/v1/jobs/half", "")).send(chunk(&csv(2))).send(LAST_CHUNK).half_close();
    let answer = connection.read_rest();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer:?}");
}

#[test]
fn many_small_chunks_are_one_file() {
    let service = Service::start();
    let body = csv(3000);
    let mut connection = service.connect();
    connection.send(chunked_head("/v1/jobs/shreds", ""));
    let shreds: Vec<u8> = body.chunks(7).flat_map(chunk).collect();
    connection.send(shreds).send(LAST_CHUNK);
    let job = created(&connection.read_reply());
    assert_eq!(job["stats"]["rows_read"], 3000);
    assert_eq!(job["progress"]["bytes_received"], body.len());
}

#[test]
fn curl_sends_files_in_all_its_ways() {
    let service = Service::start();
    let place = Workspace::new();
    place.write("ad_data.csv", csv(20_000));
    let file = place.path("ad_data.csv");
    let file = file.to_str().unwrap();
    let (at_file, form_file) = (format!("@{file}"), format!("file=@{file}"));
    let url = service.url("/v1/jobs/");
    let jobs = service.url("/v1/jobs");
    let ways: [&[&str]; 7] = [
        &["-T", file, &url],
        &["-T", "-", &url],
        &["-F", &form_file, &jobs],
        &["--data-binary", &at_file, &jobs],
        &["-T", file, "-H", "Expect:", &url],
        &["-T", file, "-H", "Transfer-Encoding: chunked", &url],
        &["-T", file, "--http2-prior-knowledge", &url],
    ];
    let mut expected = None;
    for way in ways {
        let input = std::fs::File::open(file).unwrap().into();
        let Some(run) = curl(way, input) else { return };
        assert_eq!((run.code, run.status), (Some(0), 201), "{way:?}: {run:?}");
        let job: Value = serde_json::from_str(&run.body).unwrap();
        let campaigns = service.get(job["links"]["results"]["campaigns.csv"].as_str().unwrap()).body;
        let stats = (job["stats"]["rows_read"].clone(), job["stats"]["bytes_read"].clone());
        assert_eq!(expected.get_or_insert((campaigns.clone(), stats.clone())), &(campaigns, stats), "{way:?}");
    }
}

#[test]
fn curl_shows_why_a_large_upload_is_refused() {
    let service = Service::start();
    let place = Workspace::new();
    let row = row(1) + "\n";
    place.write("large.csv", HEADER.to_owned() + &row.repeat((64 << 20) / row.len()));
    let file = place.path("large.csv");
    let file = file.to_str().unwrap();
    let (at_file, form_file) = (format!("@{file}"), format!("file=@{file}"));
    let url = service.url("/v1/jobs/?top=0");
    let jobs = service.url("/v1/jobs?top=0");
    let ways: [&[&str]; 7] = [
        &["-T", file, &url],
        &["-T", "-", &url],
        &["-F", &form_file, &jobs],
        &["--data-binary", &at_file, &jobs],
        &["-T", file, "-H", "Expect:", &url],
        &["-T", "-", "-H", "Expect:", &url],
        &["-T", file, "--http2-prior-knowledge", &url],
    ];
    for way in ways {
        let input: Stdio = std::fs::File::open(file).unwrap().into();
        let Some(run) = curl(way, input) else { return };
        assert_eq!((run.code, run.status), (Some(0), 400), "{way:?}: {run:?}");
        assert!(run.body.contains("invalid_option") && run.body.contains("top"), "{way:?}: {run:?}");
        assert_eq!(run.stderr, "", "{way:?}");
    }
    // With --fail scripts learn of it by the exit code.
    if let Some(run) = curl(&["--fail", "-T", file, "-H", "Expect:", &url], Stdio::null()) {
        assert_eq!((run.code, run.status), (Some(22), 400), "{run:?}");
    }
    // Contents that are found unusable while they come are told of in the same way.
    place.write("wrong.csv", "a,b\n".repeat(16 << 20));
    let file = place.path("wrong.csv");
    for way in [&["-H", "Expect:"][..], &[], &["--http2-prior-knowledge"]] {
        let url = service.url("/v1/jobs/");
        let arguments = [way, &["-T", file.to_str().unwrap(), &url]].concat();
        let Some(run) = curl(&arguments, Stdio::null()) else { return };
        assert_eq!((run.code, run.status), (Some(0), 422), "{way:?}: {run:?}");
        assert!(run.body.contains("missing_columns"), "{way:?}: {run:?}");
    }
}

#[test]
fn a_file_of_a_form_may_say_how_it_is_to_be_read() {
    let service = Service::start();
    let file = "--frontier\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a.csv\"\r\n\
        Content-Type: text/csv; charset=windows-1252; header=absent\r\n\r\n";
    let body = [file.as_bytes(), b"caf\xe9,2025-01-01,100,5,1.50,1\r\n--frontier--\r\n"].concat();
    let job = created(&service.send("POST", "/v1/jobs/", &[("content-type", FORM_TYPE)], &body));
    assert_eq!(job["top_ctr"][0]["campaign_id"], "caf\u{e9}");
    assert_eq!(service.get("/v1/jobs/").expect(200)["jobs"].as_array().unwrap().len(), 1);
}
