//! A compressed upload that breaks off goes on at the byte where it was.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::codings::{bare_deflate, brotli, gzip_of_many_blocks, zlib};
use crate::harness::{HEADER, gzip, lines, zstandard};
use crate::resume::{break_off, outcome, patch, place};
use crate::senders::csv;
use crate::service::{PATIENCE, Service};

/// A file that does not compress well.
fn varied(rows: u32) -> Vec<u8> {
    let row = |number: u32| {
        let random = u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let random = (random ^ random >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        format!(
            "c{},2025-01-01,{},{},{}.25,{}",
            random >> 44,
            random >> 20 & 0xffff,
            number % 10,
            random & 0xfff,
            number % 3
        )
    };
    (HEADER.to_owned() + &lines(rows, row)).into_bytes()
}

/// Begins a file in an open job, and gives the path of the file.
fn begin(service: &Service, coding: &str, whole: &[u8], sent: usize) -> String {
    let job = service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let file = format!("{}/files/ads", job["links"]["self"].as_str().unwrap());
    let mut connection = service.connect();
    let head = format!("Content-Encoding: {coding}\r\nContent-Length: {}\r\n", whole.len());
    connection.send(format!("PUT {file} HTTP/1.1\r\nHost: test\r\n{head}\r\n")).send(&whole[..sent]).half_close();
    let answer = connection.read_rest();
    assert!(answer.contains("upload_incomplete"), "{answer}");
    file
}

fn complete(service: &Service, file: &str) -> Value {
    let (job, _) = file.split_once("/files").unwrap();
    service.request("POST", &format!("{job}/complete")).expect(200)
}

#[test]
fn every_coding_goes_on_at_the_byte_where_it_broke_off() {
    let service = Service::start();
    let text = varied(3000);
    let whole = service.put("/v1/jobs/whole", &text).expect(201);
    let campaigns =
        |job: &Value| service.get(job["links"]["results"]["campaigns.csv"].as_str().unwrap()).text().to_owned();
    let expected = campaigns(&whole);
    let halves = text.split_at(text.len() / 2);
    let frames = [zstandard(halves.0), zstandard(halves.1)].concat();
    let members = [gzip(halves.0), gzip(halves.1)].concat();
    for (coding, bytes) in [
        ("gzip", gzip(&text)),
        ("gzip", gzip_of_many_blocks(&text)),
        ("gzip", members),
        ("zstd", zstandard(&text)),
        ("zstd", frames),
        ("br", brotli(&text)),
        ("deflate", zlib(&text)),
        ("deflate", bare_deflate(&text)),
    ] {
        let file = begin(&service, coding, &bytes, bytes.len() / 4);
        let mut sent = bytes.len() / 4;
        for end in [bytes.len() / 2, bytes.len() - 3] {
            let fields = [("upload-offset", &*sent.to_string()), ("upload-complete", "?0")];
            let shown = service.send("PATCH", &file, &fields, &bytes[sent..end]).expect(200);
            assert_eq!((&shown["state"], &shown["offset"]), (&json!("interrupted"), &json!(end)), "{coding}: {shown}");
            sent = end;
        }
        let shown = patch(&service, &file, sent, &bytes[sent..]).expect(200);
        assert_eq!(shown["state"], "complete", "{coding}: {shown}");
        let direct = service.send("PUT", "/v1/jobs/direct", &[("content-encoding", coding)], &bytes).expect(201);
        assert_eq!(shown["crc64nvme"], direct["files"][0]["crc64nvme"], "{coding}");
        assert_eq!(campaigns(&complete(&service, &file)), expected, "{coding}");
    }
}

#[test]
fn one_large_gzip_member_survives_a_kill_in_its_middle() {
    let mut service = Service::start_with(&["--checkpoint-interval", "0s"]);
    let whole = gzip_of_many_blocks(&varied(300_000));
    assert!(whole.len() > 3_000_000, "{}", whole.len());
    let expected = outcome(&service, &service.put("/v1/jobs/whole", &whole).expect(201));
    // Acknowledged: all of it is there.
    let job = break_off(&service, "large", &whole, whole.len() / 3);
    service.crash_and_restart();
    let (resume, offset) = place(&service, &service.get("/v1/jobs/large").expect(200));
    assert_eq!(offset, whole.len() / 3);
    // Being received: what a look has shown as durable is there.
    let mut connection = service.connect();
    let head = format!("Upload-Offset: {offset}\r\nContent-Length: {}\r\n", whole.len() - offset);
    connection.send(format!("PATCH {resume} HTTP/1.1\r\nHost: test\r\n{head}\r\n"));
    connection.send(&whole[offset..whole.len() * 2 / 3]);
    let deadline = Instant::now() + PATIENCE;
    let shown = loop {
        let shown = place(&service, &job).1;
        if shown > offset {
            break shown;
        }
        assert!(Instant::now() < deadline, "no checkpoint is stored");
    };
    service.crash_and_restart();
    let (_, offset) = place(&service, &job);
    assert!((shown..=whole.len() * 2 / 3).contains(&offset), "{shown}, {offset}");
    assert_eq!(outcome(&service, &patch(&service, &resume, offset, &whole[offset..]).expect(200)), expected);
}

#[test]
fn single_frames_and_streams_survive_a_kill() {
    let mut service = Service::start();
    let text = varied(20_000);
    for (coding, bytes) in [("zstd", zstandard(&text)), ("br", brotli(&text)), ("deflate", zlib(&text))] {
        let file = begin(&service, coding, &bytes, bytes.len() * 2 / 3);
        service.crash_and_restart();
        let head = service.request("HEAD", &file);
        assert_eq!(head.header("upload-offset"), Some(&*(bytes.len() * 2 / 3).to_string()), "{coding}");
        patch(&service, &file, bytes.len() * 2 / 3, &bytes[bytes.len() * 2 / 3..]).expect(200);
        assert_eq!(complete(&service, &file)["stats"]["rows_read"], 20_000, "{coding}");
    }
}

#[test]
fn what_would_have_to_be_read_again_has_a_limit() {
    let service = Service::start();
    let text = csv(700_000);
    let whole = brotli(&text);
    let limit = adtally::ingest::MAX_TAIL_BYTES;
    assert!(whole.len() > limit + 1_000_000, "{}", whole.len());
    let file = begin(&service, "br", &whole, 1000);
    let leave_open = |offset: usize, end: usize| {
        let fields = [("upload-offset", &*offset.to_string()), ("upload-complete", "?0")];
        service.send("PATCH", &file, &fields, &whole[offset..end])
    };
    assert_eq!(leave_open(1000, limit).expect(200)["offset"], limit);
    let refused = leave_open(limit, limit + 1);
    refused.expect_problem(422, "not_divisible", &[&(limit + 1).to_string()]);
    assert_eq!(refused.header("upload-offset"), Some(&*limit.to_string()));
    patch(&service, &file, limit, &whole[limit..]).expect(200);
    assert_eq!(complete(&service, &file)["stats"]["rows_read"], 700_000);
}

/// Others send the whole file while its sender vanishes. Whenever that happens, they need not say again how it is compressed.
#[test]
fn a_file_keeps_its_coding_whenever_another_request_starts_it_over() {
    let service = Service::start();
    let text = csv(3000);
    let whole = zlib(&text);
    let expected = outcome(&service, &service.put("/v1/jobs/plain", &text).expect(201)).1;
    for round in 0..5 {
        let name = format!("left-{round}");
        let mut first = service.connect();
        let head = format!("Content-Encoding: deflate\r\nContent-Length: {}\r\n", whole.len());
        first.send(format!("PUT /v1/jobs/{name} HTTP/1.1\r\nHost: test\r\n{head}\r\n")).send(&whole[..1000]);
        let job = service.wait_for_job(&name, |job| job["files"][0]["offset"] == 1000);
        let file = format!("{}/files/{name}", job["links"]["self"].as_str().unwrap());
        let (refused, refusals) = channel();
        thread::scope(|scope| {
            for _ in 0..4 {
                let (service, file, whole, refused) = (&service, &file, &whole, refused.clone());
                scope.spawn(move || {
                    while service.put(file, whole).text().contains("file_being_received") {
                        refused.send(()).unwrap();
                    }
                });
            }
            drop(refused);
            (0..4).for_each(|_| refusals.recv().unwrap());
            first.vanish();
        });
        assert_eq!(outcome(&service, &service.get(&format!("/v1/jobs/{name}")).expect(200)).1, expected);
    }
}

#[test]
fn compressed_files_go_on_where_a_member_ends() {
    let service = Service::start();
    let text = csv(400);
    let (left, right) = text.split_at(text.len() / 2);
    let members = [gzip(left), gzip(right)];
    let whole = members.concat();
    let expected = outcome(&service, &service.put("/v1/jobs/whole", &whole).expect(201));
    for sent in [members[0].len() - 5, members[0].len(), members[0].len() + 5, whole.len() - 1] {
        let job = break_off(&service, &format!("cut-{sent}"), &whole, sent);
        let (resume, offset) = place(&service, &job);
        assert_eq!(offset, sent);
        assert_eq!(outcome(&service, &patch(&service, &resume, offset, &whole[offset..]).expect(200)), expected);
    }
}
