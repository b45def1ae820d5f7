//! An upload that breaks off goes on where it was, and every byte counts once.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{HEADER, Workspace, lines};
use crate::senders::{FORM_TYPE, chunk, chunked_head, csv, curl, form, row};
use crate::service::{Connection, PATIENCE, Reply, Service};
use crate::uploads::digest;

const RESULTS: [&str; 3] = ["campaigns.csv", "top10_ctr.csv", "top10_cpa.csv"];

/// Sends the beginning of a file as a job of its own, vanishes, and gives the job as it waits then.
#[track_caller]
pub(crate) fn break_off(service: &Service, name: &str, whole: &[u8], sent: usize) -> Value {
    let mut connection = service.connect();
    let head = format!("PUT /v1/jobs/{name} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", whole.len());
    connection.send(head).send(&whole[..sent]).half_close();
    let answer = connection.read_rest();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("upload_incomplete"), "{answer:?}");
    let job = service.get(&format!("/v1/jobs/{name}")).expect(200);
    assert_eq!(
        (&job["state"], &job["finished_at"], &job["error"]),
        (&json!("interrupted"), &Value::Null, &Value::Null)
    );
    assert!(job["expires_at"].is_string(), "{job}");
    job
}

/// Where an interrupted job goes on, and how many bytes of its file are stored.
pub(crate) fn place(service: &Service, job: &Value) -> (String, usize) {
    let resume = job["links"]["resume"].as_str().unwrap().to_owned();
    let head = service.request("HEAD", &resume);
    assert_eq!((head.status, head.header("upload-complete")), (200, Some("?0")), "{head:?}");
    let offset = head.header("upload-offset").unwrap().parse().unwrap();
    (resume, offset)
}

pub(crate) fn patch(service: &Service, path: &str, offset: usize, body: &[u8]) -> Reply {
    service.send("PATCH", path, &[("upload-offset", &offset.to_string())], body)
}

fn put_range(service: &Service, path: &str, offset: usize, whole: &[u8]) -> Reply {
    let range = format!("bytes {offset}-{}/{}", whole.len() - 1, whole.len());
    service.send("PUT", path, &[("content-range", &range)], &whole[offset..])
}

/// The statistics but for times and rates, and the tables.
pub(crate) fn outcome(service: &Service, job: &Value) -> (Value, Vec<String>) {
    assert_eq!(job["state"], "succeeded", "{job}");
    let mut stats = job["stats"].clone();
    for rate in ["elapsed_seconds", "rows_per_second"] {
        stats.as_object_mut().unwrap().remove(rate);
    }
    let rejects = job["links"]["results"].as_object().unwrap().contains_key("rejects.csv").then_some("rejects.csv");
    let tables = RESULTS
        .iter()
        .copied()
        .chain(rejects)
        .map(|name| service.get(job["links"]["results"][name].as_str().unwrap()).text().to_owned());
    (stats, tables.collect())
}

/// Files of many kinds, each with a name.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let quoted = lines(300, |number| format!("\"c,{}\",\"2025\n01\",\"1{number}\",7,\"2.50\",1", number % 7));
    let messy = lines(300, |number| if number % 3 == 0 { format!("c{number},x,-1") } else { row(number) });
    let crlf = String::from_utf8(csv(300)).unwrap().replace('\n', "\r\n");
    let utf16 = format!("\u{feff}{}", String::from_utf8(csv(200)).unwrap());
    vec![
        ("plain", csv(500)),
        ("quoted", format!("{HEADER}{quoted}").into()),
        ("messy", format!("{HEADER}{messy}").into()),
        ("crlf", crlf.into()),
        ("utf16", utf16.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ]
}

#[test]
fn a_one_shot_upload_goes_on_at_any_byte() {
    let service = Service::start();
    for (kind, whole) in files() {
        let expected = outcome(&service, &service.put(&format!("/v1/jobs/{kind}-whole"), &whole).expect(201));
        for sent in [0, 1, 3, HEADER.len(), whole.len() / 2, whole.len() - 1] {
            for by_range in [false, true] {
                let job = break_off(&service, &format!("{kind}-{sent}"), &whole, sent);
                let (resume, offset) = place(&service, &job);
                assert_eq!(offset, sent, "{job}");
                assert_eq!(job["files"][0]["offset"], sent);
                let reply = if by_range {
                    put_range(&service, &resume, offset, &whole)
                } else {
                    patch(&service, &resume, offset, &whole[offset..])
                };
                let finished = reply.expect(200);
                assert_eq!(finished["id"], job["id"]);
                assert_eq!(outcome(&service, &finished), expected, "{kind} cut at {sent}");
                let head = service.request("HEAD", &resume);
                let length = whole.len().to_string();
                assert_eq!(
                    (head.header("upload-offset"), head.header("upload-complete")),
                    (Some(&*length), Some("?1"))
                );
            }
        }
    }
}

#[test]
fn a_file_may_break_off_a_hundred_times() {
    let service = Service::start();
    let whole = csv(2000);
    let expected = outcome(&service, &service.put("/v1/jobs/whole", &whole).expect(201));
    let job = break_off(&service, "pieces", &whole, 10);
    let (resume, mut offset) = place(&service, &job);
    let step = whole.len() / 100;
    while offset + step < whole.len() {
        let mut connection = service.connect();
        let head = format!(
            "PATCH {resume} HTTP/1.1\r\nHost: test\r\nUpload-Offset: {offset}\r\nContent-Length: {}\r\n\r\n",
            whole.len() - offset
        );
        connection.send(head).send(&whole[offset..offset + step]).half_close();
        let answer = connection.read_rest();
        offset += step;
        assert!(
            answer.contains("400 Bad Request") && answer.contains(&format!("\r\nupload-offset: {offset}\r\n")),
            "{answer}"
        );
    }
    let finished = patch(&service, &resume, offset, &whole[offset..]).expect(200);
    assert_eq!(outcome(&service, &finished), expected);
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut service = Service::start_with(&["--checkpoint-interval", "0s"]);
    for (kind, whole) in files() {
        let expected = outcome(&service, &service.put(&format!("/v1/jobs/{kind}-whole"), &whole).expect(201));
        // Acknowledged.
        let job = break_off(&service, kind, &whole, whole.len() / 3);
        service.crash_and_restart();
        let (resume, offset) = place(&service, &service.get(&format!("/v1/jobs/{kind}")).expect(200));
        assert_eq!(offset, whole.len() / 3);
        // Being received: what a look has shown as durable is there.
        let mut connection = service.connect();
        let rest = whole.len() - offset;
        let head = format!(
            "PATCH {resume} HTTP/1.1\r\nHost: test\r\nUpload-Offset: {offset}\r\nContent-Length: {rest}\r\n\r\n"
        );
        connection.send(head).send(&whole[offset..whole.len() * 2 / 3]);
        let deadline = Instant::now() + PATIENCE;
        let shown = loop {
            let shown = place(&service, &json!({"links": {"resume": resume}})).1;
            if shown > offset {
                break shown;
            }
            assert!(Instant::now() < deadline, "no checkpoint is stored");
        };
        service.crash_and_restart();
        let waiting = service.get(job["links"]["self"].as_str().unwrap()).expect(200);
        assert_eq!(waiting["state"], "interrupted", "{waiting}");
        let (_, offset) = place(&service, &waiting);
        assert!((shown..=whole.len() * 2 / 3).contains(&offset), "{shown}, {offset}");
        let rows = |job: &Value| job["files"][0]["rows_read"].as_u64().unwrap();
        assert!(rows(&waiting) > rows(&job), "{waiting}");
        let finished = patch(&service, &resume, offset, &whole[offset..]).expect(200);
        assert_eq!(outcome(&service, &finished), expected, "{kind}");
    }
}

#[test]
fn files_of_an_open_job_go_on() {
    let service = Service::start();
    let (first, second) = (csv(700), csv(400));
    let open = || service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let whole = open()["links"]["self"].as_str().unwrap().to_owned();
    service.put(&format!("{whole}/files/first.csv"), &first).expect(201);
    service.put(&format!("{whole}/files/second.csv"), &second).expect(201);
    let expected = outcome(&service, &service.request("POST", &format!("{whole}/complete")).expect(200));

    let job = open()["links"]["self"].as_str().unwrap().to_owned();
    let file = format!("{job}/files/first.csv");
    let (sent, rest) = first.split_at(first.len() / 2);
    let mut connection = service.connect();
    connection.send(chunked_head(&file, "")).send(chunk(sent)).half_close();
    assert!(connection.read_rest().contains("upload_incomplete"));
    let shown = service.get(&file).expect(200);
    assert_eq!((&shown["state"], &shown["offset"]), (&json!("interrupted"), &json!(sent.len())), "{shown}");
    assert_eq!(service.get(&job).expect(200)["state"], "interrupted");
    service.put(&format!("{job}/files/second.csv"), &second).expect(201);
    service.request("POST", &format!("{job}/complete")).expect_problem(409, "files_incomplete", &["first.csv"]);
    let shown = patch(&service, &file, sent.len(), rest).expect(200);
    assert_eq!((&shown["state"], &shown["length"]), (&json!("complete"), &json!(first.len())));
    let finished = service.request("POST", &format!("{job}/complete")).expect(200);
    assert_eq!(outcome(&service, &finished), expected);
}

#[test]
fn a_form_that_is_cut_in_its_second_file_goes_on_and_is_completed() {
    let mut service = Service::start();
    let files = [csv(300), csv(500), csv(200)];
    let names = ["a.csv", "b.csv", "c.csv"];
    let dispositions = names.map(|name| format!("name=\"file\"; filename=\"{name}\""));
    let parts: Vec<_> = dispositions.iter().zip(&files).map(|(head, file)| (head.as_str(), file.as_slice())).collect();
    let body = form(&parts);
    let whole = service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], &body).expect(201);
    let expected = outcome(&service, &whole);
    for is_killed in [false, true] {
        let name = format!("form-{is_killed}");
        let mut connection = service.connect();
        let sent = body.len() / 2;
        let head =
            format!("Content-Type: {FORM_TYPE}\r\nIdempotency-Key: {name}\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.send(format!("POST /v1/jobs?name={name} HTTP/1.1\r\nHost: test\r\n{head}")).send(&body[..sent]);
        service.wait_for_job(&name, |job| job["files"][1]["state"] == "receiving");
        if is_killed {
            service.crash_and_restart();
        } else {
            connection.half_close();
            let answer = connection.read_rest();
            assert!(answer.contains("upload_incomplete") && answer.contains("the job is open now"), "{answer}");
        }
        let job = service.get(&format!("/v1/jobs/{name}")).expect(200);
        assert!(job["state"] == "open" || job["state"] == "interrupted", "{job}");
        assert_eq!((&job["files"][0]["state"], &job["error"]), (&json!("complete"), &Value::Null), "{job}");
        let path = job["links"]["self"].as_str().unwrap();
        service.request("POST", &format!("{path}/complete")).expect_problem(409, "files_incomplete", &["b.csv"]);
        let second = format!("{path}/files/b.csv");
        let offset = service.request("HEAD", &second).header("upload-offset").unwrap().parse().unwrap();
        patch(&service, &second, offset, &files[1][offset..]).expect(200);
        service.put(&format!("{path}/files/c.csv"), &files[2]).expect(201);
        let finished = service.request("POST", &format!("{path}/complete")).expect(200);
        assert_eq!(outcome(&service, &finished), expected);
        // The form may also be sent again.
        let again = [("content-type", FORM_TYPE), ("idempotency-key", name.as_str())];
        assert_ne!(service.send("POST", &format!("/v1/jobs?name={name}"), &again, &body).expect(201)["id"], job["id"]);
    }
}

#[test]
fn a_file_is_left_open_until_it_is_said_to_end() {
    let service = Service::start();
    let whole = csv(300);
    let job = break_off(&service, "open", &whole, 0);
    let (resume, _) = place(&service, &job);
    let leave_open = |offset: usize, body: &[u8]| {
        let fields = [("upload-offset", &*offset.to_string()), ("upload-complete", "?0")];
        service.send("PATCH", &resume, &fields, body)
    };
    let answer = leave_open(0, &whole[..100]);
    assert_eq!(
        (answer.status, answer.header("upload-offset"), answer.header("upload-complete")),
        (200, Some("100"), Some("?0"))
    );
    // Its length says that more is to come.
    assert_eq!(patch(&service, &resume, 100, &whole[100..200]).expect(200)["state"], "interrupted");
    // The same again, as after an answer that was lost: nothing counts twice.
    let again = patch(&service, &resume, 100, &whole[100..200]);
    again.expect_problem(409, "other_offset", &["200"]);
    assert_eq!(again.header("upload-offset"), Some("200"));
    // Its length says that it has ended.
    let finished = leave_open(200, &whole[200..]).expect(200);
    assert_eq!(outcome(&service, &finished), outcome(&service, &service.put("/v1/jobs/whole", &whole).expect(201)));
}

#[test]
fn who_missed_the_last_answer_finds_the_file_complete_and_sends_nothing_twice() {
    let service = Service::start();
    let whole = csv(300);
    let expected = outcome(&service, &service.put("/v1/jobs/whole", &whole).expect(201));
    for by_range in [false, true] {
        let name = format!("missed-{by_range}");
        let job = break_off(&service, &name, &whole, 100);
        let (resume, _) = place(&service, &job);
        let length = whole.len() - 100;
        let common = format!("HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n");
        let head = if by_range {
            format!("PUT {resume} {common}Content-Range: bytes 100-{}/{}\r\n\r\n", whole.len() - 1, whole.len())
        } else {
            format!("PATCH {resume} {common}Upload-Offset: 100\r\n\r\n")
        };
        let mut connection = service.connect();
        connection.send(head).send(&whole[100..]);
        connection.vanish();
        let finished = service.wait_for_job(&name, |job| job["state"] != "receiving");
        assert_eq!(outcome(&service, &finished), expected);
        let end = whole.len().to_string();
        let head = service.request("HEAD", &resume);
        assert_eq!((head.header("upload-offset"), head.header("upload-complete")), (Some(&*end), Some("?1")));
        for again in [patch(&service, &resume, 100, &whole[100..]), put_range(&service, &resume, 100, &whole)] {
            again.expect_problem(409, "other_offset", &[]);
            assert_eq!(again.header("upload-offset"), Some(&*end));
        }
        assert_eq!(service.get(&format!("/v1/jobs/{name}")).expect(200), finished);
    }
}

#[test]
fn what_does_not_fit_is_refused_before_it_counts() {
    let service = Service::start();
    let whole = csv(300);
    let job = break_off(&service, "fit", &whole, 100);
    let (resume, offset) = place(&service, &job);
    for wrong in [0, 99, 101, whole.len()] {
        let reply = patch(&service, &resume, wrong, &whole[wrong..]);
        reply.expect_problem(409, "other_offset", &["goes on at byte 100"]);
        assert_eq!(reply.header("upload-offset"), Some("100"));
    }
    let with = |method: &str, fields: &[(&str, &str)]| service.send(method, &resume, fields, &whole[offset..]);
    with("PATCH", &[]).expect_problem(400, "invalid_header", &["upload-offset"]);
    for value in ["", "-1", "+100", "0x64", "18446744073709551616"] {
        with("PATCH", &[("upload-offset", value)]).expect_problem(400, "invalid_header", &["upload-offset"]);
    }
    with("PATCH", &[("upload-offset", "100"), ("upload-complete", "yes")]).expect_problem(
        400,
        "invalid_header",
        &["?0 or ?1"],
    );
    with("PATCH", &[("upload-offset", "100"), ("upload-length", "7")]).expect_problem(
        409,
        "other_length",
        &[&whole.len().to_string()],
    );
    for range in ["bytes 100-", "bytes 200-100/300", "bytes 100-299/300", "rows 1-2/3", "bytes */300"] {
        let problem = with("PUT", &[("content-range", range)]);
        assert!(matches!(problem.status, 400 | 409), "{range}: {problem:?}");
    }
    let other = service.send(
        "PUT",
        &format!("{resume}?delimiter=tab"),
        &[("content-range", &format!("bytes 100-{}/{}", whole.len() - 1, whole.len()))],
        &whole[100..],
    );
    other.expect_problem(409, "other_options", &[]);
    // More than its length, announced or not.
    let long = [&whole[offset..], b"x"].concat();
    patch(&service, &resume, offset, &long).expect_problem(400, "length_mismatch", &[]);
    let mut connection = service.connect();
    connection.send(format!(
        "PATCH {resume} HTTP/1.1\r\nHost: test\r\nUpload-Offset: 100\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    connection.send(chunk(&long)).half_close();
    connection.read_reply().expect_problem(400, "length_mismatch", &["more came than"]);
    // Less or more than the range says.
    let range = format!("bytes 100-199/{}", whole.len());
    let mut connection = service.connect();
    connection.send(format!(
        "PUT {resume} HTTP/1.1\r\nHost: test\r\nContent-Range: {range}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    connection.send(chunk(&whole[100..300])).half_close();
    connection.read_reply().expect_problem(400, "length_mismatch", &["more came than the 100 bytes"]);
    // Otherwise than it was begun.
    for field in [("content-encoding", "gzip"), ("content-type", "text/csv; charset=windows-1252")] {
        let reply = service.send("PATCH", &resume, &[("upload-offset", "100"), field], &whole[100..]);
        reply.expect_problem(409, "other_options", &[]);
    }
    let reply =
        service.send("PATCH", &resume, &[("upload-offset", "100"), ("content-type", "application/json")], b"{}");
    reply.expect_problem(415, "unsupported_media_type", &[]);
    assert_eq!(place(&service, &job).1, 100, "none of that counts");
    let finished = patch(&service, &resume, 100, &whole[100..]).expect(200);
    assert_eq!(outcome(&service, &finished), outcome(&service, &service.put("/v1/jobs/whole", &whole).expect(201)));
    // After the end, as after an answer that was lost.
    let again = patch(&service, &resume, 100, &whole[100..]);
    again.expect_problem(409, "other_offset", &[]);
    assert_eq!(again.header("upload-offset"), Some(&*whole.len().to_string()));
}

#[test]
fn a_file_that_is_started_over_has_nothing_of_the_one_before() {
    let mut service = Service::start();
    let (one, other) = (csv(300), lines(300, |number| format!("d{number},2025-01-01,7,1,1.00,1")));
    let other = format!("{HEADER}{other}").into_bytes();
    let expected = outcome(&service, &service.put("/v1/jobs/whole", &other).expect(201));
    for is_killed in [false, true] {
        let name = format!("over-{is_killed}");
        let job = break_off(&service, &name, &one, 200);
        let (resume, _) = place(&service, &job);
        // Another file, of which nothing is stored when it ends.
        let mut connection = service.connect();
        connection.send(format!("PUT {resume} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", other.len()));
        service.wait_for_job(&name, |job| job["state"] == "receiving");
        if is_killed {
            service.crash_and_restart();
        } else {
            connection.half_close();
            connection.read_rest();
        }
        assert_eq!(place(&service, &job).1, 0);
        patch(&service, &resume, 200, &other[200..]).expect_problem(409, "other_offset", &["byte 0"]);
        assert_eq!(outcome(&service, &service.put(&resume, &other).expect(200)), expected);
    }
}

#[test]
fn a_digest_holds_for_a_file_in_many_parts() {
    let service = Service::start();
    let whole = csv(300);
    for (name, digest, is_right) in [("right", digest(&whole), true), ("wrong", digest(b"other"), false)] {
        let mut connection = service.connect();
        let head = format!("Repr-Digest: {digest}\r\nContent-Length: {}\r\n\r\n", whole.len());
        connection
            .send(format!("PUT /v1/jobs/{name} HTTP/1.1\r\nHost: test\r\n{head}"))
            .send(&whole[..200])
            .half_close();
        connection.read_rest();
        let job = service.get(&format!("/v1/jobs/{name}")).expect(200);
        let (resume, offset) = place(&service, &job);
        let reply = patch(&service, &resume, offset, &whole[offset..]);
        if is_right {
            assert_eq!(reply.expect(200)["state"], "succeeded");
        } else {
            reply.expect_problem(400, "digest_mismatch", &["nothing was counted"]);
            assert_eq!(service.get(&format!("/v1/jobs/{name}")).expect(200)["state"], "failed");
        }
    }
}

#[test]
fn options_are_those_that_a_file_was_begun_with() {
    let service = Service::start();
    let whole = String::from_utf8(csv(300)).unwrap().replace(',', ";").into_bytes();
    let mut connection = service.connect();
    let head = format!("Host: test\r\nContent-Length: {}\r\n\r\n", whole.len());
    connection.send(format!("PUT /v1/jobs/semicolons?delimiter=%3B HTTP/1.1\r\n{head}")).half_close();
    connection.read_rest();
    let job = service.get("/v1/jobs/semicolons").expect(200);
    let (resume, offset) = place(&service, &job);
    assert_eq!(offset, 0);
    service.put(&format!("{resume}?delimiter=tab"), &whole).expect_problem(409, "other_options", &[]);
    // As `curl -C 0 -T` sends it.
    assert_eq!(service.put(&resume, &whole).expect(200)["stats"]["rows_read"], 300);
}

#[test]
fn the_same_key_starts_the_file_over() {
    let service = Service::start();
    let whole = csv(300);
    let key = [("idempotency-key", "again")];
    let mut connection = service.connect();
    connection
        .send(chunked_head("/v1/jobs/keyed", "Idempotency-Key: again\r\n"))
        .send(chunk(&whole[..200]))
        .half_close();
    assert!(connection.read_rest().contains("upload_incomplete"));
    let job = service.get("/v1/jobs/keyed").expect(200);
    assert_eq!(job["state"], "interrupted");
    let finished = service.send("PUT", "/v1/jobs/keyed", &key, &whole).expect(201);
    assert_eq!(finished["id"], job["id"]);
    assert_eq!(outcome(&service, &finished), outcome(&service, &service.put("/v1/jobs/whole", &whole).expect(201)));
    assert_eq!(service.send("PUT", "/v1/jobs/keyed", &key, &whole).header("idempotency-replayed"), Some("true"));
}

#[test]
fn content_that_cannot_be_used_fails_for_good() {
    let service = Service::start();
    let whole = b"a,b,c\n1,2,3\n";
    let job = break_off(&service, "unusable", whole, 3);
    let (resume, offset) = place(&service, &job);
    patch(&service, &resume, offset, &whole[offset..]).expect_problem(422, "missing_columns", &[]);
    assert_eq!(service.get("/v1/jobs/unusable").expect(200)["state"], "failed");
    patch(&service, &resume, offset, &whole[offset..]).expect_problem(409, "job_ended", &[]);
}

#[test]
fn an_interrupted_job_can_be_cancelled_and_deleted() {
    let service = Service::start();
    let whole = csv(300);
    let job = break_off(&service, "cancelled", &whole, 100);
    let (resume, offset) = place(&service, &job);
    let path = job["links"]["self"].as_str().unwrap();
    assert_eq!(service.request("POST", &format!("{path}/cancel")).expect(200)["state"], "cancelled");
    patch(&service, &resume, offset, &whole[offset..]).expect_problem(409, "job_ended", &[]);
    let job = break_off(&service, "deleted", &whole, 100);
    let (resume, offset) = place(&service, &job);
    assert_eq!(service.request("DELETE", job["links"]["self"].as_str().unwrap()).status, 204);
    patch(&service, &resume, offset, &whole[offset..]).expect_problem(404, "job_not_found", &[]);
}

/// Begins to go on with a file, and stays silent after these bytes.
fn hang(service: &Service, resume: &str, offset: usize, sent: &[u8]) -> Connection {
    let mut connection = service.connect();
    let head = format!(
        "PATCH {resume} HTTP/1.1\r\nHost: test\r\nUpload-Offset: {offset}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    connection.send(head).send(chunk(sent));
    connection
}

#[test]
fn who_goes_on_where_the_file_stands_takes_it_over() {
    // The one that is taken over does not stand in the way, though only one may run.
    let service = Service::start_with(&["--max-concurrent-uploads", "1"]);
    let whole = csv(300);
    let expected = outcome(&service, &service.put("/v1/jobs/whole", &whole).expect(201));
    let job = break_off(&service, "two", &whole, 100);
    let (resume, _) = place(&service, &job);
    let mut first = hang(&service, &resume, 100, &whole[100..150]);
    service.wait_for_job("two", |job| job["progress"]["bytes_received"] == 150);
    // Elsewhere than where it stands nobody gets it.
    patch(&service, &resume, 150, &whole[150..]).expect_problem(409, "other_offset", &["100"]);
    let finished = patch(&service, &resume, 100, &whole[100..]).expect(200);
    assert_eq!(outcome(&service, &finished), expected);
    // The earlier writer is told so, and has changed nothing.
    first.try_send(chunk(&whole[150..]));
    first.read_reply().expect_problem(409, "file_deleted", &["being sent by another request"]);
    assert_eq!(service.get("/v1/jobs/two").expect(200), finished);
}

#[test]
fn a_file_that_was_taken_over_is_shown_as_its_last_sender_left_it() {
    let service = Service::start();
    let whole = csv(300);
    let open = service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let job = open["links"]["self"].as_str().unwrap();
    let file = format!("{job}/files/a.csv");
    // As long as another file is being received, the job is not read from the store.
    let mut other = service.connect();
    other.send(chunked_head(&format!("{job}/files/b.csv"), "")).send(chunk(&whole));
    let mut first = service.connect();
    first.send(chunked_head(&file, "")).send(chunk(&whole[..100])).half_close();
    first.read_rest();
    let mut first = hang(&service, &file, 100, &whole[100..150]);
    service.wait_for_job(open["id"].as_str().unwrap(), |job| {
        let offset = |name: &str| {
            let files = job["files"].as_array().unwrap();
            files.iter().find(|file| file["name"] == name).map(|file| file["offset"].clone())
        };
        offset("a.csv") == Some(json!(150)) && offset("b.csv") == Some(json!(whole.len()))
    });
    let complete = patch(&service, &file, 100, &whole[100..]).expect(200);
    assert_eq!((&complete["state"], &complete["offset"]), (&json!("complete"), &json!(whole.len())));
    first.read_reply().expect_problem(409, "file_deleted", &["being sent by another request"]);
    assert_eq!(service.get(&file).expect(200), complete);
    let head = service.request("HEAD", &file);
    assert_eq!(head.header("upload-offset"), Some(&*whole.len().to_string()));
    other.vanish();
}

#[test]
fn who_asks_where_a_silent_upload_stands_learns_all_that_came() {
    let service = Service::start();
    let whole = csv(300);
    let expected = outcome(&service, &service.put("/v1/jobs/whole", &whole).expect(201));
    let job = break_off(&service, "silent", &whole, 100);
    let (resume, _) = place(&service, &job);
    let mut silent = hang(&service, &resume, 100, &whole[100..150]);
    service.wait_for_job("silent", |job| job["progress"]["bytes_received"] == 150);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked = Instant::now();
        let (_, offset) = place(&service, &job);
        assert!(asked.elapsed() < PATIENCE / 10, "the answer is not made to wait");
        if offset == 150 {
            break;
        }
        // It has not been silent for long enough.
        assert_eq!(offset, 100);
        assert!(Instant::now() < deadline, "the silent writer stays");
    }
    silent.read_reply().expect_problem(408, "sender_stalled", &["asked where the file goes on"]);
    assert_eq!(outcome(&service, &patch(&service, &resume, 150, &whole[150..]).expect(200)), expected);
}

#[test]
fn curl_goes_on_where_it_was_cut() {
    let service = Service::start();
    let workspace = Workspace::new();
    let whole = csv(100_000);
    workspace.write("ads.csv", &whole);
    let file = workspace.path("ads.csv");
    let file = file.to_str().unwrap();
    let url = service.url("/v1/jobs/");
    let Some(cut) = curl(&["--limit-rate", "500k", "--max-time", "1", "-T", file, &url], Stdio::null()) else { return };
    assert_eq!(cut.code, Some(28), "{cut:?}");
    let job = service.wait_for_job("ads.csv", |job| job["state"] == "interrupted");
    let (resume, offset) = place(&service, &job);
    assert!(offset > 0 && offset < whole.len(), "{offset}");
    let run = curl(&["-C", &offset.to_string(), "-T", file, &service.url(&resume)], Stdio::null()).unwrap();
    assert_eq!(run.status, 200, "{run:?}");
    let finished: Value = serde_json::from_str(&run.body).unwrap();
    assert_eq!(outcome(&service, &finished), outcome(&service, &service.put("/v1/jobs/whole", &whole).expect(201)));
    drop(fs::remove_file(file));
}
