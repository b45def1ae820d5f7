//! Attacks with bodies and heads, each beside an upload that has to come out as ever: too large, too small, too well
//! compressed, with two ends or none.

use serde_json::json;

use crate::bombs::{bombs, brotli_bomb, gzip_bomb, zstandard_bomb};
use crate::bystander::{Bystander, PIECES};
use crate::harness::{HEADER, gzip, lines};
use crate::senders::{FORM_TYPE, LAST_CHUNK, chunk, chunked_head, csv, form};
use crate::service::{Connection, Reply, Service};
use crate::token_file::wait_until;

/// What a server may take more for an attack that does not work. One that works has it take a hundred MiB or more.
const USUAL_MIB: u64 = 48;

/// Sends each request before a piece of an upload, and gives the answers in the same order.
fn answers_beside(service: &Service, bystander: &Bystander<'_>, requests: &[Vec<u8>]) -> Vec<Reply> {
    let each = requests.len().div_ceil(PIECES);
    let connections: Vec<Connection> = bystander.beside(Vec::new, |connections, piece| {
        for request in requests.chunks(each).nth(piece).unwrap_or_default() {
            let mut connection = service.connect();
            // What the server does not read to its end it answers none the less.
            connection.try_send(request);
            connections.push(connection);
        }
    });
    assert_eq!(connections.len(), requests.len());
    connections.into_iter().map(|mut connection| connection.read_reply()).collect()
}

/// A request with a body of known length.
fn request(method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{fields}\r\n");
    [head.as_bytes(), body].concat()
}

/// Checks a refusal; several codes fit where none is named.
#[track_caller]
fn assert_problem(reply: &Reply, status: u16, code: &str) {
    println!("{status} {code}: {}", reply.text());
    match code {
        "" => assert_eq!(reply.status, status, "{reply:?}"),
        code => drop(reply.expect_problem(status, code, &[])),
    }
}

fn post_form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    request("POST", "/v1/jobs", &format!("Content-Type: {FORM_TYPE}\r\n"), &form(parts))
}

#[test]
fn bombs_in_every_coding() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let bombs = bombs();
    let requests: Vec<_> = bombs
        .iter()
        .map(|(coding, bomb)| request("PUT", "/v1/jobs/bomb", &format!("Content-Encoding: {coding}\r\n"), bomb))
        .collect();
    for (reply, (coding, _)) in answers_beside(&service, &bystander, &requests).iter().zip(&bombs) {
        let problem = reply.expect_problem(413, "decompression_ratio", &["250 times"]);
        assert_eq!(problem["limit"]["name"], "max_decompression_ratio", "{coding}: {problem}");
    }
    // Windows of 8 MiB (Zstandard) and 24 MiB (Brotli), while 80 MiB come out of each.
    bystander.assert_unharmed(USUAL_MIB);
}

#[test]
fn bombs_as_parts_of_forms() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let (gzipped, zstd, whole) = (gzip_bomb(), zstandard_bomb(), csv(5));
    let part = |bytes| ("name=\"file\"; filename=\"a.csv\"", bytes);
    let good = ("name=\"file\"; filename=\"good.csv\"", &*whole);
    let requests = [
        post_form(&[part(&*gzipped)]),
        post_form(&[part(&*zstd)]),
        // A good part before it makes no difference.
        post_form(&[good, part(&*gzipped)]),
        post_form(&[good, part(&*zstd)]),
    ];
    for reply in answers_beside(&service, &bystander, &requests) {
        let problem = reply.expect_problem(413, "decompression_ratio", &["250 times"]);
        let job = service.get(problem["job"].as_str().unwrap()).expect(200);
        assert_eq!((&job["state"], &job["stats"]), (&json!("failed"), &json!(null)), "{job}");
    }
    bystander.assert_unharmed(USUAL_MIB);
}

#[test]
fn bombs_in_disguise() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let zip = [b"PK\x03\x04\x14\0\0\0\x08\0", &gzip_bomb()[10..]].concat();
    // A frame that announces a window of 2 GiB, and one that announces 1 EiB of text.
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0, (31 - 10) << 3][..], &zstandard_bomb()[6..]].concat();
    let text = [
        &[0x28, 0xb5, 0x2f, 0xfd, 0xc0, (23 - 10) << 3][..],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &zstandard_bomb()[6..],
    ]
    .concat();
    let twice = gzip(&gzip(&gzip_bomb()));
    let put = |fields: &str, body: &[u8]| request("PUT", "/v1/jobs/disguised", fields, body);
    let members = gzip(b"").repeat(50_000);
    let cases = [
        (put("", &zip), 422, "not_csv"),
        (post_form(&[("name=\"file\"; filename=\"a.csv\"", &*zip)]), 422, "not_csv"),
        (put("", &window), 422, "damaged_compression"),
        (put("", &text), 413, "decompression_ratio"),
        // What is compressed within is no CSV, and is not taken apart again.
        (put("Content-Encoding: gzip\r\n", &twice), 422, ""),
        (put("Content-Encoding: gzip, gzip\r\n", &twice), 415, "unsupported_content_coding"),
        (put("Content-Encoding: br, zstd\r\n", &brotli_bomb()), 415, "unsupported_content_coding"),
        // A million bytes without any text.
        (put("", &members), 422, "empty_input"),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, ..)| request.clone()).collect();
    for (reply, (_, status, code)) in answers_beside(&service, &bystander, &requests).iter().zip(&cases) {
        assert_problem(reply, *status, code);
    }
    bystander.assert_unharmed(USUAL_MIB);
}

/// Rows of this many campaigns that no other number has.
fn campaigns(count: u32, first: u32) -> String {
    HEADER.to_owned() + &lines(count, |number| format!("{},d,1,1,1,1", first + number))
}

#[test]
fn more_campaigns_than_are_taken() {
    let service = Service::start_with(&["--max-campaigns", "5000"]);
    let bystander = Bystander::of(&service);
    let file = campaigns(20_000, 0);
    let requests = vec![request("PUT", "/v1/jobs/many", "", file.as_bytes()); PIECES];
    for reply in answers_beside(&service, &bystander, &requests) {
        reply.expect_problem(422, "too_many_campaigns", &["5000", "max_campaigns"]);
    }
    bystander.assert_unharmed(USUAL_MIB);
}

#[test]
fn more_campaigns_than_there_is_memory_for() {
    let service = Service::start_with(&["--memory-budget", "64MiB"]);
    let bystander = Bystander::of(&service);
    let attackers = bystander.beside(Vec::new, |attackers, piece| {
        match piece {
            // The upload was there before them.
            0 => wait_until("it has begun", || service.get("/v1/jobs/bystander-2").status == 200),
            1 => attackers.extend((0..4).map(|_| {
                let mut connection = service.connect();
                connection.send(chunked_head("/v1/jobs/greedy", "")).send(chunk(HEADER.as_bytes()));
                connection
            })),
            _ => {
                for (number, connection) in (0..).zip(attackers) {
                    let first = u32::try_from(piece).unwrap() * 1_000_000 + number * 100_000;
                    // Those that were refused are answered already.
                    connection.try_send(chunk(&campaigns(30_000, first).as_bytes()[HEADER.len()..]));
                }
            }
        }
    });
    let mut refused = 0;
    for mut connection in attackers {
        connection.try_send(LAST_CHUNK);
        let reply = connection.read_reply();
        match reply.status {
            201 => continue,
            413 => reply.expect_problem(413, "memory_budget_exceeded", &["memory_budget"]),
            _ => reply.expect_problem(503, "memory_budget", &["memory"]),
        };
        refused += 1;
    }
    assert!(refused > 0, "there was memory for all of them");
    // Of 64 MiB, and what the allocator keeps.
    bystander.assert_busy(96);
}

#[test]
fn chunks_that_are_none() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let header = chunk(HEADER.as_bytes());
    let extension = format!("5;{}\r\nhello\r\n", "x=y;".repeat(100_000));
    let trailers = format!("0\r\n{}", "X-Trailer: y\r\n".repeat(100_000));
    let nonsense: [&[u8]; 12] = [
        b"zz\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"ffffffffffffffff\r\nhello\r\n",
        b"fffffffffffffffff\r\nhello\r\n",
        b"5\r\nhelloworld\r\n",
        b"5\nhello\n0\n\n",
        b"\r\n\r\n\r\n",
        extension.as_bytes(),
        trailers.as_bytes(),
    ];
    let connections: Vec<_> = bystander.beside(Vec::new, |connections, piece| {
        let mut connection = service.connect();
        connection.send(chunked_head(&format!("/v1/jobs/nonsense{piece}"), "")).send(&header);
        connection.try_send(nonsense[piece]);
        connections.push(connection);
    });
    for (number, mut connection) in connections.into_iter().enumerate() {
        connection.half_close();
        let answer = connection.read_rest();
        println!("{number}: {}", answer.lines().next().unwrap_or_default());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{number}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{number}: {answer}");
        let job = service.wait_for_job(&format!("nonsense{number}"), |job| job["state"] != "receiving");
        assert_ne!(job["state"], "succeeded", "{number}: {job}");
    }
    bystander.assert_unharmed(USUAL_MIB);
}

#[test]
fn requests_with_two_ends() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let body = [chunk(&csv(5)), LAST_CHUNK.to_vec()].concat();
    let length = body.len();
    let smuggled = "DELETE /v1/jobs/bystander-1 HTTP/1.1\r\nHost: test\r\n\r\n";
    let fields = [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 100000\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked, identity\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: \x0bchunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding : chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: gzip\r\n chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 0x4\r\n",
    ];
    let connections: Vec<_> = bystander.beside(Vec::new, |connections, piece| {
        let mut connection = service.connect();
        let head = format!("PUT /v1/jobs/two HTTP/1.1\r\nHost: test\r\n{}\r\n", fields[piece]);
        connection.try_send([head.as_bytes(), &body, smuggled.as_bytes()].concat());
        connections.push(connection);
    });
    for (connection, fields) in connections.into_iter().zip(fields) {
        let answer = connection.read_rest();
        println!("{fields:?}: {}", answer.lines().next().unwrap_or_default());
        // A length beside chunks: the chunks count, and nothing behind them (RFC 9112, 6.3).
        assert!(["400", "201"].iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status} "))), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{fields:?}, {length} bytes: {answer}");
    }
    service.get("/v1/jobs/bystander-1").expect(200);
    bystander.assert_unharmed(USUAL_MIB);
}

#[test]
fn oversized_heads() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let heads = [
        (format!("GET /healthz HTTP/1.1\r\nHost: test\r\n{}\r\n", "X-Field: 1\r\n".repeat(500)), 431),
        (format!("GET /healthz HTTP/1.1\r\nHost: test\r\nX-Field: {}\r\n\r\n", "x".repeat(8 << 20)), 431),
        (format!("GET /healthz HTTP/1.1\r\nHost: test\r\n{}: x\r\n\r\n", "x".repeat(8 << 20)), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(100_000)), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(8 << 20)), 431),
    ];
    let connections: Vec<_> = bystander.beside(Vec::new, |connections, piece| {
        for (head, status) in heads.iter().skip(piece).step_by(PIECES) {
            let mut connection = service.connect();
            connection.try_send(head);
            connections.push((connection, status));
        }
    });
    for (connection, status) in connections {
        let answer = connection.read_rest();
        println!("{}", answer.lines().next().unwrap_or_default());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {:?}", answer.get(..100));
    }
    bystander.assert_unharmed(USUAL_MIB);
}

#[test]
fn oversized_bodies() {
    let service = Service::start_with(&["--max-upload", "1MiB", "--max-form-parts", "3"]);
    let bystander = Bystander::of(&service);
    let large = [HEADER.as_bytes(), &vec![b'x'; 16 << 20]].concat();
    let large_form = form(&[("name=a; filename=a", &large)]);
    let chunked = |head: String, body: &[u8]| [head.as_bytes(), &chunk(body), LAST_CHUNK].concat();
    let post = |kind: &str| {
        format!("POST /v1/jobs HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nContent-Type: {kind}\r\n\r\n")
    };
    let small = csv(1);
    let part = |number: usize| (["name=a; filename=a", "name=b; filename=b"][number % 2], &*small);
    let cases = [
        (request("PUT", "/v1/jobs/announced", "", &large), 413, "upload_too_large"),
        (chunked(chunked_head("/v1/jobs/chunked", ""), &large), 413, "upload_too_large"),
        (chunked(post("application/json"), &large), 400, "invalid_body"),
        (chunked(post(FORM_TYPE), &large_form), 413, "upload_too_large"),
        (post_form(&[part(0), part(1), part(0), part(1)]), 413, "form_too_large"),
        (
            request("POST", "/v1/tus", &format!("Tus-Resumable: 1.0.0\r\nUpload-Length: {}\r\n", 1_u64 << 60), b""),
            413,
            "upload_too_large",
        ),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, ..)| request.clone()).collect();
    for (reply, (_, status, code)) in answers_beside(&service, &bystander, &requests).iter().zip(&cases) {
        assert_problem(reply, *status, code);
    }
    bystander.assert_unharmed(USUAL_MIB);
}

#[test]
fn oversized_records_and_parts() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let endless = vec![b'x'; 16 << 20];
    let quoted = [HEADER.as_bytes(), b"\"", &endless].concat();
    let line = [HEADER.as_bytes(), &endless, b"\nA,2025-01-01,1,1,1,1\n"].concat();
    let columns = [HEADER.trim_end().as_bytes(), &b",x".repeat(4 << 20), b"\n"].concat();
    let name = String::from_utf8(endless[..1 << 20].to_vec()).unwrap();
    let put = |body: &[u8]| request("PUT", "/v1/jobs/oversized", "", body);
    let cases = [
        (put(&line), 201, ""),
        (put(&quoted), 201, ""),
        (put(&columns), 422, "missing_columns"),
        (post_form(&[(&format!("name=\"{name}\"; filename=a"), b"x")]), 422, "missing_columns"),
        (post_form(&[("name=\"delimiter\"", &endless), ("name=a; filename=a", b"x")]), 400, ""),
    ];
    let requests: Vec<_> = cases.iter().map(|(request, ..)| request.clone()).collect();
    for (reply, (_, status, code)) in answers_beside(&service, &bystander, &requests).iter().zip(&cases) {
        if *status == 201 {
            assert_eq!(reply.expect(201)["stats"]["skipped"], json!({"malformed_record": 1}));
        } else {
            assert_problem(reply, *status, code);
        }
    }
    bystander.assert_unharmed(USUAL_MIB);
}
