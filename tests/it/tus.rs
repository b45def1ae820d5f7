//! tus 1.0: another way to the same files, and pages of other origins that use it.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha1::Digest as _;

use crate::harness::HEADER;
use crate::senders::{OpenUpload, csv};
use crate::service::{PATIENCE, Reply, Service};
use crate::uploads::digest;

const RESULTS: [&str; 3] = ["campaigns.csv", "top10_ctr.csv", "top10_cpa.csv"];

/// Requests as clients of tus send them.
struct Tus<'a>(&'a Service);

impl Tus<'_> {
    #[track_caller]
    fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Reply {
        let fields = [&[("tus-resumable", "1.0.0")], fields].concat();
        let reply = self.0.send(method, path, &fields, body);
        assert_eq!(reply.header("tus-resumable"), Some("1.0.0"), "{reply:?}");
        reply
    }

    #[track_caller]
    fn create(&self, fields: &[(&str, &str)]) -> Reply {
        self.send("POST", "/v1/tus", fields, b"")
    }

    /// Creates an upload, and gives its address.
    #[track_caller]
    fn created(&self, length: usize, metadata: &str) -> String {
        let reply = self.create(&[("upload-length", &length.to_string()), ("upload-metadata", metadata)]);
        assert_eq!((reply.status, reply.header("upload-offset")), (201, Some("0")), "{reply:?}");
        assert!(reply.header("upload-expires").unwrap().ends_with(" GMT"), "{reply:?}");
        reply.header("location").unwrap().to_owned()
    }

    #[track_caller]
    fn patch_with(&self, path: &str, offset: usize, fields: &[(&str, &str)], body: &[u8]) -> Reply {
        let offset = offset.to_string();
        let own = [("upload-offset", &*offset), ("content-type", "application/offset+octet-stream")];
        self.send("PATCH", path, &[&own, fields].concat(), body)
    }

    #[track_caller]
    fn patch(&self, path: &str, offset: usize, body: &[u8]) -> Reply {
        self.patch_with(path, offset, &[], body)
    }

    /// Sends the next bytes, all of which must be taken.
    #[track_caller]
    fn take(&self, path: &str, offset: usize, body: &[u8]) {
        let reply = self.patch(path, offset, body);
        let reached = (offset + body.len()).to_string();
        assert_eq!((reply.status, reply.header("upload-offset")), (204, Some(&*reached)), "{reply:?}");
    }

    #[track_caller]
    fn head(&self, path: &str) -> Reply {
        let reply = self.send("HEAD", path, &[], b"");
        if reply.status == 200 {
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
        }
        reply
    }

    #[track_caller]
    fn assert_offset(&self, path: &str, offset: usize) {
        let reply = self.head(path);
        assert_eq!((reply.status, reply.header("upload-offset")), (200, Some(&*offset.to_string())), "{reply:?}");
    }
}

/// A pair of `Upload-Metadata`.
fn pair(key: &str, value: &str) -> String {
    format!("{key} {}", STANDARD.encode(value))
}

/// The job of an upload.
fn job_of(address: &str) -> String {
    format!("/v1/jobs/{}", address.split('/').nth(3).unwrap())
}

fn sha1(body: &[u8]) -> String {
    format!("sha1 {}", STANDARD.encode(sha1::Sha1::digest(body)))
}

fn sha256(body: &[u8]) -> String {
    format!("sha256 {}", STANDARD.encode(sha2::Sha256::digest(body)))
}

#[track_caller]
fn tables(service: &Service, job: &Value) -> Vec<String> {
    assert_eq!(job["state"], "succeeded", "{job}");
    let address = |name: &str| job["links"]["results"][name].as_str().unwrap().to_owned();
    RESULTS.iter().map(|name| service.get(&address(name)).text().to_owned()).collect()
}

#[track_caller]
fn expected(service: &Service, whole: &[u8]) -> Vec<String> {
    tables(service, &service.put("/v1/jobs/whole", whole).expect(201))
}

#[test]
fn the_server_says_what_it_speaks() {
    let service = Service::start_with(&["--max-upload", "12345"]);
    let reply = service.request("OPTIONS", "/v1/tus");
    assert_eq!((reply.status, reply.header("tus-resumable")), (204, Some("1.0.0")), "{reply:?}");
    assert_eq!((reply.header("tus-version"), reply.header("tus-max-size")), (Some("1.0.0"), Some("12345")));
    assert_eq!(reply.header("tus-checksum-algorithm"), Some("sha1,sha256"));
    let extensions = reply.header("tus-extension").unwrap();
    assert!(extensions.contains("creation-with-upload") && extensions.contains("termination"), "{extensions}");
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let path = Tus(&service).created(100, &pair("filename", "a.csv"));
    for (method, path) in [("POST", "/v1/tus"), ("HEAD", &*path), ("PATCH", &*path), ("DELETE", &*path)] {
        for fields in [&[][..], &[("tus-resumable", "0.2.2")]] {
            let reply = service.send(method, path, fields, b"");
            assert_eq!((reply.status, reply.header("tus-version")), (412, Some("1.0.0")), "{method} {reply:?}");
            assert_eq!(reply.header("tus-resumable"), Some("1.0.0"));
        }
    }
    service.send("POST", "/v1/tus", &[], b"").expect_problem(412, "tus_version", &["1.0.0"]);
}

#[test]
fn an_upload_in_parts_is_a_job_of_its_own() {
    let mut service = Service::start();
    let whole = csv(500);
    let expected = expected(&service, &whole);
    let metadata = [pair("filename", "M\u{e4}rz 1.csv"), pair("top", "10"), "is_new".to_owned()].join(",");
    let path = Tus(&service).created(whole.len(), &metadata);
    let job = service.get(&job_of(&path)).expect(200);
    assert_eq!((&job["state"], &job["name"]), (&json!("open"), &json!("M\u{e4}rz 1.csv")), "{job}");
    assert_eq!((&job["files"][0]["state"], &job["files"][0]["length"]), (&json!("waiting"), &json!(whole.len())));
    assert!(job["expires_at"].is_string() && job["links"]["resume"].is_string(), "{job}");
    assert_eq!(job["progress"]["bytes_expected"], whole.len(), "{job}");
    service.crash_and_restart();
    assert_eq!(service.get(&job_of(&path)).expect(200), job);
    let head = Tus(&service).head(&path);
    let length = whole.len().to_string();
    assert_eq!((head.header("upload-offset"), head.header("upload-length")), (Some("0"), Some(&*length)));
    assert_eq!((head.header("upload-metadata"), head.header("upload-defer-length")), (Some(&*metadata), None));
    let mut offset = 0;
    for size in [1, 99, 3000, 0, 2000] {
        Tus(&service).take(&path, offset, &whole[offset..offset + size]);
        offset += size;
        service.crash_and_restart();
        Tus(&service).assert_offset(&path, offset);
        assert_eq!(service.get(&job_of(&path)).expect(200)["progress"]["bytes_expected"], whole.len());
        assert!(Tus(&service).head(&path).header("upload-expires").is_some());
    }
    assert_eq!(service.get(&job_of(&path)).expect(200)["state"], "interrupted");
    Tus(&service).take(&path, offset, &whole[offset..]);
    let job = service.get(&job_of(&path)).expect(200);
    assert_eq!(tables(&service, &job), expected);
    assert_eq!(job["progress"]["bytes_received"], whole.len());
    // The answer was lost: the job has ended, and its upload is complete.
    let tus = Tus(&service);
    let head = tus.head(&path);
    assert_eq!((head.header("upload-offset"), head.header("upload-length")), (Some(&*length), Some(&*length)));
    assert_eq!((head.header("upload-metadata"), head.header("upload-expires")), (Some(&*metadata), None));
    let again = tus.patch(&path, offset, &whole[offset..]);
    again.expect_problem(409, "other_offset", &[&length]);
    assert_eq!(again.header("upload-offset"), Some(&*length));
    assert_eq!(tus.patch(&path, whole.len(), b"").status, 204);
    tus.patch(&path, whole.len(), b"x").expect_problem(400, "length_mismatch", &[]);
}

#[test]
fn uploads_are_files_of_an_open_job() {
    let service = Service::start();
    let tus = Tus(&service);
    let whole = csv(300);
    let job = service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let id = pair("job", job["id"].as_str().unwrap());
    let path = job["links"]["self"].as_str().unwrap();
    let first = tus.created(whole.len(), &format!("{},{id}", pair("filename", "first.csv")));
    let semicolons = String::from_utf8(csv(200)).unwrap().replace(',', ";").into_bytes();
    let options = format!("{},{id},{}", pair("filename", "second.csv"), pair("delimiter", ";"));
    let second = tus.created(semicolons.len(), &options);
    assert_eq!(service.get(path).expect(200)["state"], "open");
    tus.take(&first, 0, &whole[..100]);
    // The same file, in another way.
    let file = service.get(&format!("{path}/files/first.csv")).expect(200);
    assert_eq!((&file["state"], &file["offset"]), (&json!("interrupted"), &json!(100)));
    tus.take(&second, 0, &semicolons);
    service.request("POST", &format!("{path}/complete")).expect_problem(409, "files_incomplete", &["first.csv"]);
    tus.take(&first, 100, &whole[100..]);
    tus.assert_offset(&first, whole.len());
    assert_eq!(service.get(path).expect(200)["state"], "open");
    let finished = service.request("POST", &format!("{path}/complete")).expect(200);
    assert_eq!((&finished["stats"]["rows_read"], &finished["stats"]["rows_skipped"]), (&json!(500), &json!(0)));
    tus.assert_offset(&first, whole.len());
    tus.send("DELETE", &first, &[], b"").expect_problem(409, "job_ended", &[]);
    // What cannot be a file of a job.
    let refused = |metadata: &str| tus.create(&[("upload-length", "5"), ("upload-metadata", metadata)]);
    refused(&format!("{id},filename YQ==")).expect_problem(409, "job_ended", &[]);
    refused(&id).expect_problem(400, "invalid_header", &["filename"]);
    refused(&format!("{id},filename YQ==,top MTA=")).expect_problem(400, "invalid_option", &["top"]);
    refused(&format!("filename YQ==,{}", pair("job", "whole"))).expect_problem(400, "invalid_name", &["id"]);
    let unknown = pair("job", "0199f173-5810-7c3e-9b1d-3f5a7e2c8d41");
    refused(&format!("filename YQ==,{unknown}")).expect_problem(404, "job_not_found", &[]);
}

#[test]
fn an_upload_may_begin_with_its_creation() {
    let service = Service::start();
    let tus = Tus(&service);
    let whole = csv(300);
    let length = whole.len().to_string();
    let create = |fields: &[(&str, &str)], body: &[u8]| {
        let own = [("upload-length", &*length), ("content-type", "application/offset+octet-stream")];
        tus.send("POST", "/v1/tus", &[&own, fields].concat(), body)
    };
    let part = create(&[], &whole[..100]);
    assert_eq!((part.status, part.header("upload-offset")), (201, Some("100")), "{part:?}");
    tus.take(part.header("location").unwrap(), 100, &whole[100..]);
    let all = create(&[("upload-checksum", &sha1(&whole))], &whole);
    assert_eq!((all.status, all.header("upload-offset")), (201, Some(&*length)), "{all:?}");
    let job = service.get(&job_of(all.header("location").unwrap())).expect(200);
    assert_eq!(tables(&service, &job), expected(&service, &whole));
    let wrong = create(&[("upload-checksum", &sha1(b"other"))], &whole);
    wrong.expect_problem(460, "checksum_mismatch", &["sha1"]);
    tus.assert_offset(wrong.header("location").unwrap(), 0);
    create(&[], b"not a table at all, but long enough to tell\n").header("location").unwrap();
    // A body of another type is none.
    let other = [("upload-length", "5"), ("content-type", "text/csv")];
    tus.send("POST", "/v1/tus", &other, b"a,b,c").expect_problem(415, "unsupported_media_type", &["offset"]);
}

#[test]
fn a_length_may_be_told_late() {
    let mut service = Service::start();
    let whole = csv(300);
    let deferred = |service: &Service| {
        let reply = Tus(service).create(&[("upload-defer-length", "1")]);
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.header("location").unwrap().to_owned()
    };
    let path = deferred(&service);
    assert_eq!(service.get(&job_of(&path)).expect(200)["progress"]["bytes_expected"], Value::Null);
    // The end of a body is not the end of the upload.
    Tus(&service).take(&path, 0, &whole[..1000]);
    let head = Tus(&service).head(&path);
    assert_eq!((head.header("upload-defer-length"), head.header("upload-length")), (Some("1"), None), "{head:?}");
    let length = whole.len().to_string();
    let with = |service: &Service, length: &str, offset: usize, body: &[u8]| {
        Tus(service).patch_with(&path, offset, &[("upload-length", length)], body)
    };
    with(&service, "999", 1000, b"").expect_problem(400, "length_mismatch", &["999"]);
    assert_eq!(with(&service, &length, 1000, &whole[1000..2000]).status, 204);
    service.crash_and_restart();
    let head = Tus(&service).head(&path);
    assert_eq!((head.header("upload-defer-length"), head.header("upload-length")), (None, Some(&*length)), "{head:?}");
    // Twice, and otherwise.
    with(&service, "3000", 2000, &whole[2000..2100]).expect_problem(409, "other_length", &[&length]);
    assert_eq!(with(&service, &length, 2000, &whole[2000..2100]).status, 204);
    Tus(&service).patch(&path, 2100, &[&whole[2100..], b"x"].concat()).expect_problem(400, "length_mismatch", &[]);
    Tus(&service).assert_offset(&path, 2100);
    Tus(&service).take(&path, 2100, &whole[2100..]);
    let expected = expected(&service, &whole);
    assert_eq!(tables(&service, &service.get(&job_of(&path)).expect(200)), expected);
    // With a body of no bytes, behind the last one.
    let path = deferred(&service);
    Tus(&service).take(&path, 0, &whole);
    let reply = Tus(&service).patch_with(&path, whole.len(), &[("upload-length", &length)], b"");
    assert_eq!((reply.status, reply.header("upload-offset")), (204, Some(&*length)), "{reply:?}");
    assert_eq!(tables(&service, &service.get(&job_of(&path)).expect(200)), expected);
}

#[test]
fn a_part_with_a_checksum_counts_as_a_whole_or_not_at_all() {
    // A state is stored after every batch, where one may be.
    let mut service = Service::start_with(&["--checkpoint-interval", "0s"]);
    let whole = csv(60_000);
    let expected = expected(&service, &whole);
    let half = whole.len() / 2;
    let path = Tus(&service).created(whole.len(), &pair("filename", "checked.csv"));
    let checked = |service: &Service, checksum: &str, offset: usize, body: &[u8]| {
        Tus(service).patch_with(&path, offset, &[("upload-checksum", checksum)], body)
    };
    // Also what would be no table at all, and is damaged on its way.
    checked(&service, &sha1(&whole[..half]), 0, &vec![b'x'; half]).expect_problem(460, "checksum_mismatch", &["sha1"]);
    Tus(&service).assert_offset(&path, 0);
    assert_eq!(checked(&service, &sha1(&whole[..half]), 0, &whole[..half]).status, 204);
    for wrong in [sha1(b"other"), sha256(b"other")] {
        for end in [half + 100, half + 800_000, whole.len()] {
            let reply = checked(&service, &wrong, half, &whole[half..end]);
            reply.expect_problem(460, "checksum_mismatch", &["nothing of it was counted"]);
            assert_eq!(reply.header("upload-offset"), Some(&*half.to_string()));
            Tus(&service).assert_offset(&path, half);
        }
    }
    for malformed in ["sha1", "md5 AAAA", "sha1 !", &sha1(b"x")[..20], &sha256(b"x").replace("256", "1")] {
        let reply = checked(&service, malformed, half, &whole[half..]);
        reply.expect_problem(400, "invalid_header", &["upload-checksum"]);
    }
    // It breaks off, or the server falls: nothing of it was there.
    let mut connection = service.connect();
    let fields =
        format!("Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: {half}");
    let rest = whole.len() - half;
    let head =
        format!("PATCH {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\nUpload-Checksum: {}\r\n", sha1(&whole[half..]));
    connection.send(format!("{head}Content-Length: {rest}\r\n\r\n")).send(&whole[half..whole.len() - 1]).half_close();
    assert!(connection.read_rest().contains("upload_incomplete"));
    Tus(&service).assert_offset(&path, half);
    let mut connection = service.connect();
    connection.send(format!("{head}Content-Length: {rest}\r\n\r\n")).send(&whole[half..whole.len() - 1]);
    let id = path.split('/').nth(3).unwrap();
    service.wait_for_job(id, |job| job["progress"]["bytes_received"].as_u64() > Some(half as u64));
    service.crash_and_restart();
    Tus(&service).assert_offset(&path, half);
    assert_eq!(checked(&service, &sha256(&whole[half..]), half, &whole[half..]).status, 204);
    assert_eq!(tables(&service, &service.get(&job_of(&path)).expect(200)), expected);
}

#[test]
fn a_digest_of_a_part_is_that_of_the_body() {
    let service = Service::start();
    let whole = csv(300);
    let path = Tus(&service).created(whole.len(), &pair("filename", "parts.csv"));
    let file = format!("{}/files/parts.csv", job_of(&path));
    let with = |field: &str, value: &str, offset: usize, end: usize| {
        service.send("PATCH", &file, &[("upload-offset", &offset.to_string()), (field, value)], &whole[offset..end])
    };
    let wrong = with("content-digest", &digest(&whole), 0, 1000);
    wrong.expect_problem(400, "digest_mismatch", &["nothing"]);
    assert_eq!(wrong.header("upload-offset"), Some("0"));
    with("content-digest", &digest(&whole[..1000]), 0, 1000).expect(200);
    with("repr-digest", &digest(&whole), 1000, 2000).expect_problem(400, "invalid_header", &["repr-digest"]);
    let range = format!("bytes 1000-1999/{}", whole.len());
    let fields = [("content-range", &*range), ("content-digest", &*digest(b"other"))];
    service.send("PUT", &file, &fields, &whole[1000..2000]).expect_problem(400, "digest_mismatch", &[]);
    Tus(&service).assert_offset(&path, 1000);
    let fields = [("content-range", &*range), ("content-digest", &*digest(&whole[1000..2000]))];
    assert_eq!(service.send("PUT", &file, &fields, &whole[1000..2000]).expect(200)["offset"], 2000);
    let finished = with("content-digest", &digest(&whole[2000..]), 2000, whole.len()).expect(200);
    assert_eq!(tables(&service, &finished), expected(&service, &whole));
    // With the file's own digest from the start.
    let fields = [("upload-length", &*whole.len().to_string()), ("repr-digest", &*digest(&whole))];
    let path = Tus(&service).create(&fields).header("location").unwrap().to_owned();
    Tus(&service).take(&path, 0, &whole[..1000]);
    let repr = |value: &str| Tus(&service).patch_with(&path, 1000, &[("repr-digest", value)], &whole[1000..]);
    repr(&digest(b"other")).expect_problem(400, "invalid_header", &["another SHA-256"]);
    assert_eq!(repr(&digest(&whole)).status, 204);
}

#[test]
fn what_does_not_fit_is_refused() {
    let service = Service::start_with(&["--max-upload", "100000"]);
    let tus = Tus(&service);
    let whole = csv(300);
    tus.create(&[("upload-length", "100001")]).expect_problem(413, "upload_too_large", &["max_upload_bytes"]);
    tus.create(&[("upload-length", "0")]).expect_problem(422, "empty_input", &[]);
    tus.create(&[]).expect_problem(400, "invalid_header", &["upload-length"]);
    for (field, value) in [
        ("upload-concat", "partial"),
        ("upload-metadata", "filename a.csv"),
        ("upload-metadata", "filename YQ==,filename Yg=="),
        ("upload-metadata", &"x".repeat(5000)),
        ("upload-defer-length", "1"),
    ] {
        tus.create(&[("upload-length", "5"), (field, value)]).expect_problem(400, "invalid_header", &[field]);
    }
    let named = |metadata: &str| tus.create(&[("upload-length", "5"), ("upload-metadata", metadata)]);
    named(&pair("filename", "a/b")).expect_problem(400, "invalid_name", &[]);
    named(&pair("encoding", "klingon")).expect_problem(400, "invalid_option", &["encoding"]);
    named(&pair("top", "0")).expect_problem(400, "invalid_option", &["top"]);
    named(&pair("has_header", "maybe")).expect_problem(400, "invalid_option", &["has_header"]);
    let path = tus.created(whole.len(), &pair("filename", "fit.csv"));
    tus.take(&path, 0, &whole[..100]);
    for wrong in [0, 99, 101] {
        let reply = tus.patch(&path, wrong, &whole[wrong..]);
        reply.expect_problem(409, "other_offset", &["goes on at byte 100"]);
        assert_eq!(reply.header("upload-offset"), Some("100"));
    }
    tus.patch(&path, 100, &[&whole[100..], b"x"].concat()).expect_problem(400, "length_mismatch", &[]);
    let own_type = ("content-type", "application/offset+octet-stream");
    for offset in ["", "-1", "1e2", "x"] {
        tus.send("PATCH", &path, &[own_type, ("upload-offset", offset)], b"x").expect_problem(
            400,
            "invalid_header",
            &[],
        );
    }
    tus.send("PATCH", &path, &[own_type], b"x").expect_problem(400, "invalid_header", &["upload-offset"]);
    let other_type = [("upload-offset", "100"), ("content-type", "text/csv")];
    let reply = tus.send("PATCH", &path, &other_type, b"x");
    reply.expect_problem(415, "unsupported_media_type", &["application/offset+octet-stream"]);
    let nowhere = path.replace("fit.csv", "other.csv");
    assert_eq!(tus.head(&nowhere).status, 404);
    tus.patch(&nowhere, 0, b"x").expect_problem(404, "file_not_found", &[]);
    tus.patch("/v1/tus/fit.csv/fit.csv", 0, b"x").expect_problem(404, "job_not_found", &[]);
    tus.assert_offset(&path, 100);
    // What no table can be made of ends the upload.
    let path = tus.created(HEADER.len(), &pair("filename", "unusable.csv"));
    tus.patch(&path, 0, "x".repeat(HEADER.len()).as_bytes()).expect_problem(422, "missing_columns", &[]);
    assert_eq!(service.get(&job_of(&path)).expect(200)["state"], "failed");
    assert_eq!(tus.head(&path).status, 410);
    tus.patch(&path, 0, b"x").expect_problem(410, "upload_gone", &["anew"]);
}

#[test]
fn an_upload_can_be_ended() {
    let service = Service::start();
    let tus = Tus(&service);
    let whole = csv(300);
    let path = tus.created(whole.len(), &pair("filename", "own.csv"));
    tus.take(&path, 0, &whole[..100]);
    let deleted = tus.send("POST", &path, &[("x-http-method-override", "DELETE")], b"");
    assert_eq!((deleted.status, deleted.body.len()), (204, 0), "{deleted:?}");
    assert_eq!(tus.head(&path).status, 404);
    service.get(&job_of(&path)).expect_problem(404, "job_not_found", &[]);
    tus.send("DELETE", &path, &[], b"").expect_problem(404, "job_not_found", &[]);
    // One that has become something stays.
    let path = tus.created(whole.len(), &pair("filename", "done.csv"));
    tus.take(&path, 0, &whole);
    tus.send("DELETE", &path, &[], b"").expect_problem(409, "job_ended", &[]);
    assert_eq!(service.get(&job_of(&path)).expect(200)["state"], "succeeded");
    // Of an open job only the file.
    let job = service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let id = pair("job", job["id"].as_str().unwrap());
    let path = tus.created(whole.len(), &format!("{id},{}", pair("filename", "one.csv")));
    tus.take(&path, 0, &whole[..100]);
    assert_eq!(tus.send("DELETE", &path, &[], b"").status, 204);
    assert_eq!(tus.head(&path).status, 404);
    let job = service.get(job["links"]["self"].as_str().unwrap()).expect(200);
    assert_eq!((&job["state"], &job["files"]), (&json!("open"), &json!([])), "{job}");
}

#[test]
fn methods_may_be_given_in_another_way() {
    let service = Service::start();
    let tus = Tus(&service);
    let whole = csv(20);
    let path = tus.created(whole.len(), &pair("filename", "override.csv"));
    let fields = [
        ("x-http-method-override", "PATCH"),
        ("upload-offset", "0"),
        ("content-type", "application/offset+octet-stream"),
    ];
    let reply = tus.send("POST", &path, &fields, &whole[..50]);
    assert_eq!((reply.status, reply.header("upload-offset")), (204, Some("50")), "{reply:?}");
    let reply = tus.send("POST", &path, &[("x-http-method-override", "HEAD")], b"");
    assert_eq!((reply.status, reply.header("upload-offset")), (200, Some("50")), "{reply:?}");
    for fields in [&[][..], &[("x-http-method-override", "PUT")]] {
        let reply = tus.send("POST", &path, fields, b"");
        reply.expect_problem(405, "method_not_allowed", &["PATCH"]);
        assert_eq!(reply.header("allow"), Some("HEAD, PATCH, DELETE"));
    }
    tus.create(&[("upload-length", "5"), ("x-http-method-override", "PATCH")]).expect_problem(
        405,
        "method_not_allowed",
        &["POST"],
    );
}

#[test]
fn uploads_that_wait_count_and_expire() {
    let service = Service::start_with(&["--max-open-jobs", "1", "--keep-open", "1s"]);
    let tus = Tus(&service);
    let create = || tus.create(&[("upload-length", "500"), ("idempotency-key", "k")]);
    let first = create();
    assert_eq!(first.status, 201, "{first:?}");
    let again = create();
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")), "{again:?}");
    assert_eq!(again.header("location"), first.header("location"));
    tus.create(&[("upload-length", "500")]).expect_problem(503, "too_many_open_jobs", &[]);
    let path = first.header("location").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while tus.head(path).status != 410 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_ne!(create().header("location"), Some(path));
}

#[test]
fn who_may_come_back_is_not_told_of_a_servers_error() {
    let service = Service::start_with(&["--max-concurrent-uploads", "1"]);
    let tus = Tus(&service);
    let whole = csv(100);
    let path = tus.created(whole.len(), &pair("filename", "later.csv"));
    let other = OpenUpload::begin(&service, "other");
    let refused = tus.patch(&path, 0, &whole);
    refused.expect_problem(423, "upload_locked", &["uploads are running"]);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    // The upload is there, and takes its bytes later.
    let fields = [("upload-length", &*whole.len().to_string()), ("content-type", "application/offset+octet-stream")];
    let created = tus.send("POST", "/v1/tus", &fields, &whole);
    assert_eq!((created.status, created.header("upload-offset")), (201, Some("0")), "{created:?}");
    drop(other);
    service.wait_for_job("other", |job| job["state"] == "interrupted");
    tus.take(&path, 0, &whole);
    tus.take(created.header("location").unwrap(), 0, &whole);
}

#[test]
fn pages_of_named_origins_may_upload() {
    let origins = ["--cors-origin", "https://ads.example.com,http://localhost:3000", "--cors-origin", "http://[::1]:1"];
    let service = Service::start_with(&origins);
    let preflight = |path: &str, origin: &str| {
        let fields = [
            ("origin", origin),
            ("access-control-request-method", "PATCH"),
            ("access-control-request-headers", "content-type,tus-resumable,upload-offset"),
        ];
        service.send("OPTIONS", path, &fields, b"")
    };
    for origin in ["https://ads.example.com", "http://localhost:3000", "http://[::1]:1"] {
        for path in ["/v1/tus", "/v1/jobs"] {
            let reply = preflight(path, origin);
            assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(origin)), "{reply:?}");
            let methods = reply.header("access-control-allow-methods").unwrap();
            assert!(["PATCH", "HEAD", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
            let fields = reply.header("access-control-allow-headers").unwrap();
            assert!(["tus-resumable", "upload-checksum"].iter().all(|name| fields.contains(name)), "{fields}");
            assert_eq!(reply.header("tus-version"), None);
            assert!(reply.header("x-request-id").is_some());
        }
        // No preflight, though it has the method of one.
        let reply = service.send("OPTIONS", "/v1/tus", &[("origin", origin)], b"");
        assert_eq!((reply.status, reply.header("tus-version")), (204, Some("1.0.0")), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        // Refusals, too, can be read.
        let reply = service.send("PATCH", "/v1/tus/x/y", &[("origin", origin)], b"x");
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (412, Some(origin)), "{reply:?}");
        let exposed = reply.header("access-control-expose-headers").unwrap();
        assert!(["upload-offset", "location", "x-request-id"].iter().all(|name| exposed.contains(name)), "{exposed}");
    }
    assert_eq!(preflight("/v1/tus", "https://evil.example.com").header("access-control-allow-origin"), None);
    let silent = Service::start();
    for method in ["OPTIONS", "POST"] {
        let reply = silent.send(method, "/v1/tus", &[("origin", "https://ads.example.com")], b"");
        assert_eq!(reply.header("access-control-allow-origin"), None, "{reply:?}");
        assert!(!reply.header("vary").unwrap_or_default().contains("origin"), "{reply:?}");
    }
    for wrong in ["*", "ads.example.com", "https://ads.example.com/", ""] {
        let mut command = Service::prepare(&["--cors-origin", wrong]).command();
        crate::harness::run(&mut command, b"").assert_misused("--cors-origin");
    }
}

#[test]
fn the_draft_is_spoken_in_the_version_that_is_asked_for() {
    let service = Service::start();
    let whole = csv(100);
    // A client of the draft makes a plain upload.
    let asked = [("upload-complete", "?1"), ("upload-draft-interop-version", "9")];
    for (method, path) in [("POST", "/v1/jobs"), ("PUT", "/v1/jobs/"), ("PUT", "/v1/jobs/draft")] {
        assert_eq!(service.send(method, path, &asked, &whole).expect(201)["state"], "succeeded");
    }
    let path = Tus(&service).created(whole.len(), &pair("filename", "draft.csv"));
    let file = format!("{}/files/draft.csv", job_of(&path));
    let version = |method: &str, version: &str, body: &[u8]| {
        let fields = [("upload-draft-interop-version", version), ("upload-offset", "0"), ("upload-complete", "?0")];
        let reply = service.send(method, &file, &fields, body);
        assert!(reply.status < 300, "{reply:?}");
        reply.header("upload-draft-interop-version").map(str::to_owned)
    };
    assert_eq!(version("HEAD", "9", b"").as_deref(), Some("9"));
    assert_eq!(version("HEAD", "9;a=b", b"").as_deref(), Some("9"));
    for other in ["8", "nine", "9.0", "\"9\""] {
        assert_eq!(version("HEAD", other, b""), None, "{other}");
    }
    assert_eq!(version("PATCH", "9", &whole[..100]).as_deref(), Some("9"));
    assert_eq!(version("PUT", "9", &whole).as_deref(), Some("9"));
    assert_eq!(service.get(&file).header("upload-draft-interop-version"), None);
}

#[test]
fn a_one_shot_upload_that_broke_off_goes_on_in_each_of_the_four_ways() {
    let service = Service::start();
    let whole = csv(3000);
    let expected = expected(&service, &whole);
    let ways: [(&str, u16); 4] = [("range", 200), ("patch", 200), ("draft", 200), ("tus", 204)];
    for (way, status) in ways {
        let mut connection = service.connect();
        let head = format!("PUT /v1/jobs/{way} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", whole.len());
        connection.send(head).send(&whole[..1000]).half_close();
        assert!(connection.read_rest().starts_with("HTTP/1.1 400"));
        let job = service.get(&format!("/v1/jobs/{way}")).expect(200);
        let (file, id) = (job["links"]["resume"].as_str().unwrap(), job["id"].as_str().unwrap());
        let range = format!("bytes 1000-{}/{}", whole.len() - 1, whole.len());
        let offset = ("upload-offset", "1000");
        let draft = [offset, ("upload-draft-interop-version", "9"), ("upload-complete", "?1")];
        let rest = &whole[1000..];
        let reply = match way {
            "range" => service.send("PUT", file, &[("content-range", &range)], rest),
            "patch" => service.send("PATCH", file, &[offset], rest),
            "draft" => service.send("PATCH", file, &draft, rest),
            _ => Tus(&service).patch(&format!("/v1/tus/{id}/{way}"), 1000, rest),
        };
        assert_eq!(reply.status, status, "{way}: {reply:?}");
        let finished = service.get(&format!("/v1/jobs/{id}")).expect(200);
        if status == 200 {
            assert_eq!(reply.expect(200), finished, "{way}");
        }
        assert_eq!(tables(&service, &finished), expected, "{way}");
    }
}

#[test]
fn two_senders_do_not_share_an_address() {
    let service = Service::start();
    let job = service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let tus = Tus(&service);
    let whole = csv(100);
    let length = whole.len().to_string();
    let metadata = format!("{},{}", pair("filename", "export.csv"), pair("job", job["id"].as_str().unwrap()));
    let path = tus.created(whole.len(), &metadata);
    let again = || tus.create(&[("upload-length", &length), ("upload-metadata", &metadata)]);
    again().expect_problem(409, "file_incomplete", &["export.csv", "go on with it"]);
    tus.take(&path, 0, &whole[..500]);
    again().expect_problem(409, "file_incomplete", &[]);
    tus.assert_offset(&path, 500);
    tus.take(&path, 500, &whole[500..]);
    again().expect_problem(409, "file_complete", &["export.csv"]);
    // Whose name is free again may be created.
    assert_eq!(tus.send("DELETE", &path, &[], b"").status, 204);
    assert_eq!(tus.created(whole.len(), &metadata), path);
}

#[test]
fn uploads_that_have_expired_no_longer_count() {
    let service = Service::start_with(&["--max-open-jobs", "1", "--keep-open", "1s"]);
    let tus = Tus(&service);
    let path = tus.created(100, &pair("filename", "a.csv"));
    let deadline = Instant::now() + PATIENCE;
    while tus.head(&path).status == 200 {
        assert!(Instant::now() < deadline, "it does not expire");
    }
    tus.created(100, &pair("filename", "b.csv"));
    let reply = tus.create(&[("upload-length", "100")]);
    reply.expect_problem(503, "too_many_open_jobs", &["1"]);
}

#[test]
fn a_wrong_offset_is_told_before_anything_else() {
    let service = Service::start();
    let tus = Tus(&service);
    let path = tus.created(1000, &pair("filename", "a.csv"));
    let whole = csv(100);
    tus.take(&path, 0, &whole[..300]);
    let reply = tus.patch(&path, 5, &whole[..1000]);
    reply.expect_problem(409, "other_offset", &["300"]);
    assert_eq!(reply.header("upload-offset"), Some("300"));
    // What is longer than it was said to be is refused before the upload is made.
    let fields = [("upload-length", "10"), ("content-type", "application/offset+octet-stream")];
    let reply = tus.send("POST", "/v1/tus", &fields, &whole);
    reply.expect_problem(400, "length_mismatch", &["10"]);
    assert_eq!(reply.header("location"), None);
    assert_eq!(service.get("/v1/jobs").expect(200)["jobs"].as_array().unwrap().len(), 1);
}
