//! Attacks of those who may not do what they ask for, and with what they ask for, each beside an upload that has to come
//! out as ever: tokens, jobs of others, names, paths, places.

use std::fs;

use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::bystander::{Bystander, PIECES};
use crate::harness::{HEADER, send_signal};
use crate::openapi::Description;
use crate::senders::{chunk, chunked_head, csv};
use crate::service::{Connection, Service};
use crate::tenants::reach;
use crate::token_file::wait_until;
use crate::tokens::{Guarded, make_token};

/// What a server may take more for requests that it refuses.
const REFUSALS_MIB: u64 = 32;

const GOOD: &[&str] = &["good", "--tenant", "we"];
const BAD: &[&str] = &["bad", "--tenant", "you"];

#[test]
fn wrong_missing_and_expired_tokens() {
    let (guarded, [good, expired]) = Guarded::start([GOOD, &["old", "--expires", "2001-01-01"]], &[]);
    let service = &guarded.service;
    let bystander = Bystander::with_token(service, &good);
    let wrong = format!("{}{}", &good[..good.len() - 8], "00000000");
    let long = format!("adt_{}", "0".repeat(200_000));
    let body = csv(20_000);
    let length = body.len();
    let cases = [
        (String::new(), "unauthorized"),
        (format!("Authorization: Bearer {wrong}\r\n"), "invalid_token"),
        (format!("Authorization: Bearer {long}\r\n"), "invalid_token"),
        (format!("Authorization: Bearer {expired}\r\n"), "token_expired"),
        (format!("Authorization: Bearer {good}\r\nAuthorization: Bearer {wrong}\r\n"), "invalid_token"),
        ("Authorization: Basic AAAA\r\n".to_owned(), "invalid_token"),
    ];
    let refused = bystander.beside(Vec::new, |refused, piece| {
        let (fields, code) = &cases[piece % cases.len()];
        for _ in 0..10 {
            let mut connection = service.connect();
            connection.send(format!(
                "PUT /v1/jobs/uninvited HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{fields}\r\n"
            ));
            connection.try_send(&body);
            refused.push((connection, code));
        }
    });
    for (mut connection, code) in refused {
        connection.read_reply().expect_problem(401, code, &[]);
    }
    guarded.client(&good).get("/v1/jobs/uninvited").expect_problem(404, "job_not_found", &[]);
    // 120 connections at once, each with a buffer of up to half a MiB for heads of 200 KiB and for bodies that are thrown away.
    bystander.assert_unharmed(64);
}

#[test]
fn tokens_that_are_revoked() {
    let [(good, good_line), (bad, bad_line)] = [GOOD, BAD].map(make_token);
    let mut guarded = Guarded::prepare(&[&good_line, &bad_line], &[]);
    guarded.service.launch();
    let service = &guarded.service;
    let bystander = Bystander::with_token(service, &good);
    let client = guarded.client(&bad);
    let fields = "Transfer-Encoding: chunked\r\n";
    let held = bystander.beside(
        || {
            let hold = |number| {
                let mut connection = service.connect();
                connection.send(client.head("PUT", &format!("/v1/jobs/held{number}"), fields)).send(chunk(&csv(100)));
                connection
            };
            let uploads: Vec<_> = (0..10).map(hold).collect();
            let begun = |number| client.get(&format!("/v1/jobs/held{number}")).status == 200;
            wait_until("they have begun", || (0..10).all(begun));
            uploads
        },
        |_, piece| {
            if piece == PIECES / 2 {
                guarded.replace_file(&good_line);
                send_signal("HUP", service.process_id());
                wait_until("it is revoked", || client.get("/v1/jobs").status == 401);
            }
        },
    );
    for mut connection in held {
        connection.read_reply().expect_problem(401, "token_revoked", &["revoked or has expired"]);
    }
    client.put("/v1/jobs/again", &csv(5)).expect_problem(401, "invalid_token", &[]);
    bystander.assert_unharmed(REFUSALS_MIB);
}

#[test]
fn ids_of_another_tenant_by_every_route() {
    let description = Description::read();
    let (guarded, [good, bad]) = Guarded::start([GOOD, BAD], &[]);
    let service = &guarded.service;
    let bystander = Bystander::with_token(service, &good);
    let [mine, yours] = [&good, &bad].map(|token| guarded.client(token));
    // The running upload and the one before it.
    let jobs = ["bystander-1", "bystander-2"];
    let mut requests = Vec::new();
    for (path, operations) in description.paths() {
        let methods = operations.keys().filter(|_| path.contains("{job}"));
        requests.extend(methods.map(|method| (method.clone(), path.to_owned())));
    }
    assert!(requests.len() > 12, "{requests:?}");
    let each = requests.len().div_ceil(PIECES - 1);
    bystander.beside(
        || (),
        |(), piece| {
            // Before the second piece it is known.
            let Some(requests) = piece.checked_sub(1).and_then(|piece| requests.chunks(each).nth(piece)) else {
                return;
            };
            wait_until("it has begun", || mine.get(&format!("/v1/jobs/{}", jobs[1])).status == 200);
            for job in jobs {
                let id = mine.get(&format!("/v1/jobs/{job}")).expect(200)["id"].as_str().unwrap().to_owned();
                for (method, path) in requests {
                    for name in [&*id, job] {
                        if (method.as_str(), path.as_str(), name) == ("PUT", "/v1/jobs/{job}", job) {
                            // A name that it may use itself.
                            continue;
                        }
                        let path = path.replace("{job}", name).replace("{file}", job);
                        let reply = reach(&yours, method, &path);
                        assert!([400, 404].contains(&reply.status), "{method} {path}: {reply:?}");
                    }
                }
            }
        },
    );
    assert_eq!(yours.get("/v1/jobs").expect(200)["jobs"], json!([]));
    assert_eq!(mine.get("/v1/jobs").expect(200)["jobs"].as_array().unwrap().len(), 2);
    bystander.assert_unharmed(REFUSALS_MIB);
}

#[test]
fn uploads_that_take_all_places() {
    let (guarded, [good, bad]) = Guarded::start([GOOD, BAD], &["--max-uploads-per-tenant", "8"]);
    let bystander = Bystander::with_token(&guarded.service, &good);
    let client = guarded.client(&bad);
    let held: Vec<Connection> = bystander.beside(Vec::new, |held, piece| {
        let mut connection = guarded.service.connect();
        let fields = "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n";
        connection.send(client.head("PUT", &format!("/v1/jobs/held{piece}"), fields));
        let reply = connection.read_reply();
        if piece < 8 {
            assert_eq!(reply.status, 100, "{reply:?}");
            held.push(connection);
        } else {
            reply.expect_problem(503, "too_many_uploads", &["of this tenant"]);
        }
    });
    drop(held);
    bystander.assert_busy(REFUSALS_MIB);
}

#[test]
fn nul_bytes_everywhere() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let with_fields = |fields: &str| format!("PUT /v1/jobs/nul HTTP/1.1\r\nHost: test\r\n{fields}\r\n").into_bytes();
    let json = |body: &str| {
        let length = body.len();
        let fields = format!("Host: test\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
        format!("POST /v1/jobs HTTP/1.1\r\n{fields}\r\n{body}").into_bytes()
    };
    let cases: [(Vec<u8>, u16); 10] = [
        (b"\0".repeat(100_000), 400),
        (b"PUT /v1/jobs/\0 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".to_vec(), 400),
        (b"PUT\0 /v1/jobs/nul HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".to_vec(), 400),
        (b"PUT /v1/jobs/%00 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".to_vec(), 400),
        (b"PUT /v1/jobs/nul?delimiter=%00 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".to_vec(), 400),
        (with_fields("Content-Length: 0\r\nX-Nul: \0\r\n"), 400),
        (with_fields("Content-Length: 0\r\nX\0: nul\r\n"), 400),
        (with_fields("Content-Length: 1\0\r\n"), 400),
        (json(r#"{"name": "\u0000"}"#), 400),
        (json("{\"name\": \"\0\"}"), 400),
    ];
    let connections: Vec<_> = bystander.beside(Vec::new, |connections, piece| {
        if let Some((request, status)) = cases.get(piece) {
            let mut connection = service.connect();
            connection.try_send(request);
            connections.push((connection, piece, status));
        }
    });
    for (connection, number, status) in connections {
        let answer = connection.read_rest();
        println!("{number}: {}", answer.lines().next().unwrap_or_default());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{number}: {answer:?}");
    }
    service.get("/v1/jobs/nul").expect_problem(404, "job_not_found", &[]);
    // Within a file they are bytes as others: of an id, or of what is no number.
    let nuls = [&b"\0".repeat(1 << 20), HEADER.as_bytes()].concat();
    service.put("/v1/jobs/first", &nuls).expect_problem(422, "missing_columns", &[]);
    let rows = [HEADER.as_bytes(), b"a\0b,d,1,1,1,1\na\0b,d,2,1,1,1\nc,d,\0,1,1,1\n", &b"\0".repeat(1 << 20)].concat();
    let job = service.put("/v1/jobs/rows", &rows).expect(201);
    assert_eq!(job["stats"]["unique_campaigns"], 1, "{job}");
    let table = service.get(job["links"]["results"]["campaigns.csv"].as_str().unwrap());
    assert!(table.text().contains("\na\0b,3,2,"), "{}", table.text());
    bystander.assert_unharmed(REFUSALS_MIB);
}

#[test]
fn paths_that_lead_elsewhere() {
    let service = Service::start();
    fs::write(service.path("data/secret"), "secret").unwrap();
    let bystander = Bystander::of(&service);
    let targets = [
        "/../../../../etc/passwd",
        "/v1/../../../../etc/passwd",
        "/v1/jobs/../../etc/passwd",
        "/v1/jobs/..%2f..%2fdata%2fsecret",
        "/v1/jobs/%2e%2e/%2e%2e/data/secret",
        "/v1/jobs/..%5c..%5cdata%5csecret",
        "/v1/jobs/%252e%252e%252fdata%252fsecret",
        "/v1/jobs/%c0%ae%c0%ae%c0%afdata",
        "/v1/jobs/bystander-1/results/..%2f..%2f..%2fdata%2fadtally.db",
        "/v1/jobs/bystander-1/results/../../../data/adtally.db",
        "/v1/jobs/bystander-1/results/%2fetc%2fpasswd",
        "/v1/jobs/bystander-1/files/..%2f..%2f..%2fdata%2fsecret",
        "/v1/jobs/.",
        "/v1/jobs/..",
        "//v1/jobs/bystander-1",
        "/./v1/jobs/bystander-1",
        "/v1//jobs/bystander-1",
        "/v1/jobs/bystander-1/",
        "/v1/jobs;/bystander-1",
        "/V1/JOBS/bystander-1",
        "file:///etc/passwd",
        "http://test/../../etc/passwd",
        "*",
        "etc/passwd",
    ];
    let connections: Vec<_> = bystander.beside(Vec::new, |connections, piece| {
        for target in targets.iter().skip(piece).step_by(PIECES) {
            for method in ["GET", "DELETE", "PUT"] {
                let mut connection = service.connect();
                let head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
                connection.send(format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n"));
                connections.push((connection, method, target));
            }
        }
    });
    for (connection, method, target) in connections {
        let answer = connection.read_rest();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "404", "405", "421", "422"].contains(&status), "{method} {target}: {answer:?}");
        assert!(!answer.contains("secret\n") && !answer.contains("root:"), "{method} {target}: {answer:?}");
    }
    // Names of jobs are no names of files: whatever was made lies where its id says.
    let names = fs::read_dir(service.path("results")).unwrap().map(|entry| entry.unwrap().file_name());
    for name in names {
        let name = name.into_string().unwrap();
        service.get(&format!("/v1/jobs/{name}")).expect(200);
    }
    let jobs = service.get("/v1/jobs?limit=100").expect(200);
    for job in jobs["jobs"].as_array().unwrap() {
        let name = percent_decode_str(job["name"].as_str().unwrap()).decode_utf8_lossy().into_owned();
        assert!(!name.contains("..") || job["state"] == "failed", "{job}");
    }
    assert_eq!(fs::read_to_string(service.path("data/secret")).unwrap(), "secret");
    bystander.assert_unharmed(REFUSALS_MIB);
}

#[test]
fn forms_whose_files_have_paths_for_names() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let names =
        ["../../../../etc/cron.d/x", "..\\\\..\\\\boot.ini", "/etc/shadow", "....//....//x", "C:\\\\x", "%2e%2e%2fx"];
    let connections: Vec<_> = bystander.beside(Vec::new, |connections, piece| {
        let body =
            crate::senders::form(&[(&format!("name=\"f\"; filename=\"{}\"", names[piece % names.len()]), &csv(1))]);
        let mut connection = service.connect();
        let kind = crate::senders::FORM_TYPE;
        connection.send(format!(
            "POST /v1/jobs HTTP/1.1\r\nHost: test\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        connection.send(&body);
        connections.push(connection);
    });
    for mut connection in connections {
        let job = connection.read_reply().expect(201);
        let name = job["files"][0]["name"].as_str().unwrap();
        assert!(!name.contains(['/', '\\']) && name != "..", "{job}");
        assert!(service.path("results").join(job["id"].as_str().unwrap()).is_dir(), "{job}");
    }
    let directories = fs::read_dir(service.path("results")).unwrap().count();
    assert_eq!(directories, PIECES + 2, "one for each job");
    bystander.assert_unharmed(REFUSALS_MIB);
}

#[test]
fn uploads_whose_names_others_wait_for() {
    let service = Service::start_with(&["--max-concurrent-uploads", "64"]);
    let bystander = Bystander::of(&service);
    // All of one name and one key: one of them is taken, the others are told so, or wait for nothing.
    let begun = bystander.beside(Vec::new, |begun, _| {
        for _ in 0..4 {
            let mut connection = service.connect();
            connection.send(chunked_head("/v1/jobs/same", "Idempotency-Key: same\r\n")).send(chunk(&csv(10)));
            begun.push(connection);
        }
    });
    let (mut refused, mut held) = (0, Vec::new());
    wait_until("one of them is taken", || service.get("/v1/jobs/same").status == 200);
    for connection in begun {
        connection.clone().send(crate::senders::LAST_CHUNK);
        held.push(connection);
    }
    for mut connection in held {
        let reply = connection.read_reply();
        match reply.status {
            409 => {
                reply.expect_problem(409, "idempotency_key_in_use", &[]);
                refused += 1;
            }
            status => assert!([200, 201].contains(&status), "{reply:?}"),
        }
    }
    assert_eq!(refused, PIECES * 4 - 1);
    bystander.assert_unharmed(REFUSALS_MIB);
}
