//! Requests that cannot be served: each is told what is wrong with it, and the service goes on.

use serde_json::json;

use crate::harness::{HEADER, gzip, lines, zstandard};
use crate::senders::{FORM_TYPE, LAST_CHUNK, OpenUpload, chunk, chunked_head, csv, form};
use crate::service::{Reply, Service};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";

/// Checks that the service takes uploads as before.
#[track_caller]
fn assert_fine(service: &Service) {
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.put("/v1/jobs/afterwards", &csv(3)).expect(201)["stats"]["rows_read"], 3);
    let receiving = service.get("/v1/jobs?state=receiving").expect(200);
    assert_eq!(receiving["jobs"], json!([]), "something is still being received");
}

/// Checks that an upload was refused after it had begun: there is a job that says the same.
#[track_caller]
fn assert_failed(service: &Service, reply: &Reply, status: u16, code: &str, says: &[&str]) {
    let problem = reply.expect_problem(status, code, says);
    let job = service.get(problem["job"].as_str().unwrap_or_else(|| panic!("no job: {problem}"))).expect(200);
    assert_eq!(job["state"], "failed");
    assert_eq!(job["links"]["results"], json!({}));
    for member in ["type", "status", "title", "detail"] {
        assert_eq!(job["error"][member], problem[member], "{member}");
    }
}

/// Checks that a request was refused before anything was made.
#[track_caller]
fn assert_no_job(service: &Service) {
    assert_eq!(service.get("/v1/jobs").expect(200)["jobs"], json!([]));
}

#[test]
fn contents_that_are_no_table() {
    let service = Service::start();
    let html = b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n";
    let semicolons = String::from_utf8(csv(2)).unwrap().replace(',', ";");
    for (body, code, says) in [
        (&b""[..], "empty_input", &["empty"][..]),
        (b"\n\n\r\n", "empty_input", &[]),
        (b"\xef\xbb\xbf", "empty_input", &[]),
        (PNG, "missing_columns", &["campaign_id"]),
        (html, "missing_columns", &["campaign_id", "spend"]),
        (b"{\"campaign_id\": 1}", "missing_columns", &["impressions"]),
        (b"c1,2025-01-01,1,1,1,1\n", "missing_columns", &["looks like data"]),
        (semicolons.as_bytes(), "missing_columns", &["';'"]),
        (b"campaign_id,clicks,clicks,spend,conversions,impressions\n", "duplicate_columns", &["clicks"]),
    ] {
        let reply = service.put("/v1/jobs/wrong", body);
        assert_failed(&service, &reply, 422, code, says);
        let reply = service.put_chunked("/v1/jobs/wrong", &mut &*body);
        assert_failed(&service, &reply, 422, code, says);
        let body = form(&[("name=\"file\"; filename=\"wrong.csv\"", body)]);
        let reply = service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], &body);
        assert_failed(&service, &reply, 422, code, says);
    }
    assert_fine(&service);
}

#[test]
fn a_request_without_a_body() {
    let service = Service::start();
    for head in ["PUT /v1/jobs/none HTTP/1.1\r\nHost: test\r\n\r\n", "POST /v1/jobs HTTP/1.1\r\nHost: test\r\n\r\n"] {
        let mut connection = service.connect();
        connection.send(head);
        assert_failed(&service, &connection.read_reply(), 422, "empty_input", &[]);
    }
    assert_fine(&service);
}

#[test]
fn options_that_do_not_exist_or_have_impossible_values() {
    let service = Service::start();
    for (query, code, says) in [
        ("topp=10", "unknown_option", &["\"topp\"", "delimiter, has_header, encoding, top"][..]),
        ("Top=10", "unknown_option", &["\"Top\""]),
        ("=", "unknown_option", &[]),
        ("top=10&top=10", "invalid_option", &["top", "more than once"]),
        ("top=0", "invalid_option", &["top", "\"0\"", "1 to 1000"]),
        ("top=1001", "invalid_option", &["1001"]),
        ("top=-1", "invalid_option", &["top"]),
        ("top=ten", "invalid_option", &["ten"]),
        ("top=", "invalid_option", &["top"]),
        ("top=99999999999999999999", "invalid_option", &["1 to 1000"]),
        ("delimiter=", "invalid_option", &["delimiter"]),
        ("delimiter=ab", "invalid_option", &["delimiter"]),
        ("delimiter=%22", "invalid_option", &["delimiter"]),
        ("delimiter=%0a", "invalid_option", &["delimiter"]),
        ("delimiter=%0d", "invalid_option", &["delimiter"]),
        ("delimiter=%c3%a9", "invalid_option", &["delimiter"]),
        ("delimiter=%ff", "invalid_option", &["delimiter"]),
        ("has_header=yes", "invalid_option", &["has_header", "\"yes\"", "true or false"]),
        ("has_header=", "invalid_option", &["has_header"]),
        ("encoding=klingon", "invalid_option", &["encoding", "klingon"]),
        ("encoding=", "invalid_option", &["encoding"]),
    ] {
        let put = service.put(&format!("/v1/jobs/x?{query}"), &csv(1));
        put.expect_problem(400, code, says);
        let post = service.send("POST", &format!("/v1/jobs?{query}"), &[], &csv(1));
        post.expect_problem(400, code, says);
        let body = form(&[("name=\"file\"; filename=\"a.csv\"", &csv(1))]);
        let form = service.send("POST", &format!("/v1/jobs?{query}"), &[("content-type", FORM_TYPE)], &body);
        form.expect_problem(400, code, says);
    }
    // A name in the path leaves none for the query.
    service.put("/v1/jobs/x?name=y", &csv(1)).expect_problem(400, "unknown_option", &["name"]);
    for (query, code) in [
        ("limit=0", "invalid_option"),
        ("limit=101", "invalid_option"),
        ("limit=x", "invalid_option"),
        ("state=done", "invalid_option"),
        ("cursor=x", "invalid_cursor"),
        ("cursor=", "invalid_cursor"),
        ("page=2", "unknown_option"),
        ("state=failed&state=failed", "invalid_option"),
    ] {
        service.get(&format!("/v1/jobs?{query}")).expect_problem(400, code, &[]);
    }
    assert_no_job(&service);
    assert_fine(&service);
}

#[test]
fn header_fields_that_cannot_be_understood() {
    let service = Service::start();
    let long_key = "k".repeat(256);
    for (field, value, code, says) in [
        ("content-type", "text/csv; charset=klingon", "invalid_header", &["content-type", "klingon"][..]),
        ("content-type", "text/csv; header=perhaps", "invalid_header", &["perhaps", "present or absent"]),
        ("content-range", "bytes 5-14/15", "range_not_supported", &["bytes 5-14/15", "whole file"]),
        ("content-range", "bytes 0-5/15", "range_not_supported", &[]),
        ("content-range", "nonsense", "range_not_supported", &["nonsense"]),
        ("idempotency-key", "", "invalid_header", &["idempotency-key", "1 to 255"]),
        ("idempotency-key", "two words", "invalid_header", &["visible ASCII"]),
        ("idempotency-key", &long_key, "invalid_header", &["1 to 255"]),
        ("content-digest", "sha-256=x", "invalid_header", &["content-digest"]),
    ] {
        let reply = service.send("PUT", "/v1/jobs/x", &[(field, value)], &csv(1));
        reply.expect_problem(400, code, says);
    }
    let whole = csv(1);
    let range = format!("bytes 0-{}/{}", whole.len() - 1, whole.len());
    assert_no_job(&service);
    service.send("PUT", "/v1/jobs/x", &[("content-range", &range)], &whole).expect(201);
}

#[test]
fn media_types_and_codings_that_are_not_taken() {
    let service = Service::start();
    for content_type in
        ["application/xml", "image/png", "application/pdf", "multipart/mixed; boundary=x", "csv", ";", ""]
    {
        for (method, path) in [("PUT", "/v1/jobs/x"), ("POST", "/v1/jobs")] {
            let reply = service.send(method, path, &[("content-type", content_type)], &csv(1));
            reply.expect_problem(415, "unsupported_media_type", &["text/csv", "multipart/form-data"]);
            assert!(reply.header("accept").unwrap().contains("text/csv"), "{reply:?}");
        }
    }
    let body = form(&[("name=\"file\"; filename=\"a.csv\"", &csv(1))]);
    let reply = service.send("PUT", "/v1/jobs/x", &[("content-type", FORM_TYPE)], &body);
    reply.expect_problem(415, "unsupported_media_type", &["POST"]);
    let reply = service.send("POST", "/v1/jobs", &[("content-type", "multipart/form-data")], &body);
    reply.expect_problem(400, "invalid_header", &["boundary"]);
    for coding in ["lzma", "compress", "gzip, zstd", "gzip, gzip", "aws-chunked"] {
        let reply = service.send("PUT", "/v1/jobs/x", &[("content-encoding", coding)], &csv(1));
        reply.expect_problem(415, "unsupported_content_coding", &["gzip, zstd, br, deflate"]);
        assert_eq!(reply.header("accept-encoding"), Some("gzip, zstd, br, deflate, identity"));
    }
    let headers = [("content-type", FORM_TYPE), ("content-encoding", "gzip")];
    service.send("POST", "/v1/jobs", &headers, &gzip(&body)).expect_problem(
        415,
        "unsupported_content_coding",
        &["form"],
    );
    assert_no_job(&service);
    service.send("PUT", "/v1/jobs/x", &[("content-encoding", "identity")], &csv(1)).expect(201);
    service.send("PUT", "/v1/jobs/x", &[("content-encoding", "identity, X-GZIP")], &gzip(&csv(1))).expect(201);
}

#[test]
fn compressed_data_that_is_cut_off_damaged_or_something_else() {
    let service = Service::start();
    let (gzipped, zstd) = (gzip(&csv(2000)), zstandard(&csv(2000)));
    let mut damaged = gzipped.clone();
    damaged[gzipped.len() / 2] ^= 0x55;
    let cut = |data: &[u8], bytes: usize| data[..data.len() - bytes].to_vec();
    for (coding, body, says) in [
        ("", cut(&gzipped, 1), "cut off"),
        ("", cut(&gzipped, gzipped.len() / 2), "cut off"),
        ("", cut(&zstd, 1), "cut off"),
        ("", damaged, "damaged"),
        ("", [&*gzipped, b"more"].concat(), "damaged"),
        ("gzip", csv(10), "damaged"),
        ("zstd", csv(10), "damaged"),
        ("br", csv(10), "the br data"),
        ("deflate", csv(10), "the deflate data"),
        ("gzip", Vec::new(), "cut off"),
        ("gzip", zstd, "damaged"),
    ] {
        let headers = [("content-encoding", coding)];
        let headers = if coding.is_empty() { &headers[..0] } else { &headers };
        let reply = service.send("PUT", "/v1/jobs/x", headers, &body);
        assert_failed(&service, &reply, 422, "damaged_compression", &[says]);
    }
    assert_fine(&service);
}

#[test]
fn little_data_that_makes_much_text() {
    let service = Service::start_with(&["--max-text", "100000"]);
    let text = HEADER.to_owned() + &"c,2025-01-01,1,1,1,1\n".repeat(10_000);
    for body in [gzip(text.as_bytes()), zstandard(text.as_bytes())] {
        let reply = service.put("/v1/jobs/large", &body);
        assert_failed(&service, &reply, 413, "text_too_large", &["100000", "max_text_bytes"]);
    }
    // Text as such is only as long as it is.
    service.put("/v1/jobs/plain", text.as_bytes()).expect(201);
    assert_fine(&service);
}

#[test]
fn data_that_is_compressed_too_well() {
    let service = Service::start_with(&["--max-decompression-ratio", "3"]);
    // The first 64 MiB are free.
    let block = "c,2025-01-01,1,1,1,1\n".repeat(50_000);
    let text = HEADER.to_owned() + &block.repeat(64);
    let reply = service.put("/v1/jobs/bomb", &zstandard(text.as_bytes()));
    assert_failed(&service, &reply, 413, "decompression_ratio", &["3 times", "max_decompression_ratio"]);
    service.put("/v1/jobs/short", &zstandard((HEADER.to_owned() + &block).as_bytes())).expect(201);
    assert_fine(&service);
}

#[test]
fn forms_that_are_none() {
    let service = Service::start_with(&["--max-form-parts", "3"]);
    let post = |body: &[u8]| service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], body);
    let file = ("name=\"file\"; filename=\"a.csv\"", &*csv(1));
    let good = form(&[file]);
    for (body, code, says) in [
        (&b""[..], "malformed_form", &[][..]),
        (b"no form", "malformed_form", &[]),
        (&good[..good.len() - 4], "malformed_form", &[]),
        (&good[..60], "malformed_form", &[]),
        (b"--frontier\r\n\r\nno disposition\r\n--frontier--\r\n", "malformed_form", &[]),
        (b"--frontier\r\nContent-Disposition form-data\r\n\r\nx\r\n--frontier--\r\n", "malformed_form", &[]),
        (b"--other\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--other--\r\n", "malformed_form", &[]),
        (b"--frontier--\r\n", "form_without_file", &["file=@"]),
        (&form(&[("name=\"file\"", &csv(1))]), "form_without_file", &["file=@"]),
        (&form(&[("name=\"file\"; filename=\"\"", &csv(1))]), "invalid_name", &["1 to 255"]),
        (&form(&[("name=\"file\"; filename=\"..\"", &csv(1))]), "invalid_name", &[".."]),
        (&form(&[file, ("name=\"b\"; filename=\"b.csv\"", b"x,y\n")]), "missing_columns", &[]),
    ] {
        let reply = post(body);
        let status = if code == "missing_columns" { 422 } else { 400 };
        assert_failed(&service, &reply, status, code, says);
    }
    let reply = post(&form(&[file, file, file, file]));
    assert_failed(&service, &reply, 413, "form_too_large", &["3 parts", "max_form_parts"]);
    post(&form(&[file, file, file])).expect(201);
    assert_fine(&service);
}

#[test]
fn names_of_files_in_forms_are_never_paths() {
    let service = Service::start();
    for (given, name) in [
        ("../../../../etc/passwd", "passwd"),
        ("..\\\\..\\\\boot.ini", "boot.ini"),
        ("/etc/shadow", "shadow"),
        ("a%2f..%2fb", "a%2f..%2fb"),
    ] {
        let body = form(&[(&format!("name=\"f\"; filename=\"{given}\""), &csv(1))]);
        let reply = service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], &body);
        let job = reply.expect(201);
        assert_eq!(job["files"][0]["name"], name, "{given}");
    }
    let directories = std::fs::read_dir(service.path("results")).unwrap();
    assert_eq!(directories.count(), 4, "one for each job");
}

#[test]
fn heads_of_parts_without_end_are_not_collected() {
    let service = Service::start();
    for beginning in ["--frontier\r\nContent-Disposition: form-data; name=\"", ""] {
        let mut connection = service.connect();
        let head = format!("Content-Type: {FORM_TYPE}\r\nTransfer-Encoding: chunked\r\n");
        connection.send(format!("POST /v1/jobs?name=endless HTTP/1.1\r\nHost: test\r\n{head}\r\n"));
        if !beginning.is_empty() {
            connection.send(chunk(beginning.as_bytes()));
        }
        let piece = chunk(&vec![b'x'; 64 * 1024]);
        // What the service does not read to the end any more it refuses.
        for _ in 0..256 {
            if !connection.try_send(&piece) {
                break;
            }
        }
        let job = service.wait_for_job("endless", |job| job["finished_at"].is_string());
        assert_eq!(job["state"], "failed", "{job}");
        assert_ne!(job["error"]["type"], "urn:adtally:problem:upload_incomplete", "{job}");
        connection.try_send(LAST_CHUNK);
        let reply = connection.read_reply();
        assert!(matches!(reply.status, 400 | 413 | 431), "{reply:?}");
    }
    assert_fine(&service);
}

#[test]
fn more_campaigns_than_allowed() {
    let service = Service::start_with(&["--max-campaigns", "100"]);
    let rows = |first: u32, count: u32| HEADER.to_owned() + &lines(count, |row| format!("c{},d,1,1,1,1", first + row));
    let reply = service.put("/v1/jobs/many", rows(0, 101).as_bytes());
    assert_failed(&service, &reply, 422, "too_many_campaigns", &["100", "max_campaigns"]);
    service.put("/v1/jobs/enough", rows(0, 100).as_bytes()).expect(201);
    // Together two files have no more either.
    let (left, right) = (rows(0, 60), rows(60, 60));
    let parts = [
        ("name=\"f\"; filename=\"left.csv\"", left.as_bytes()),
        ("name=\"f\"; filename=\"right.csv\"", right.as_bytes()),
    ];
    let reply = service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], &form(&parts));
    assert_failed(&service, &reply, 422, "too_many_campaigns", &["100"]);
    assert_fine(&service);
}

#[test]
fn a_line_without_end_is_one_row_that_is_skipped() {
    let service = Service::start();
    let body = [HEADER.as_bytes(), &vec![b'x'; 20 << 20], b"\nA,2025-01-01,1,1,1,1\n"].concat();
    for body in [body.clone(), zstandard(&body)] {
        let job = service.put("/v1/jobs/long", &body).expect(201);
        assert_eq!(job["stats"]["skipped"], json!({"malformed_record": 1}), "{job}");
        assert_eq!(job["stats"]["rows_read"], 2);
    }
    // Nor does it matter when there is nothing else.
    let reply = service.put("/v1/jobs/long", &vec![b'x'; 5 << 20]);
    assert!(matches!(reply.status, 422), "{}", reply.text());
    let reply = service.put("/v1/jobs/long?has_header=false", &[b"\"", &*vec![b'x'; 5 << 20]].concat());
    assert_eq!(reply.expect(201)["stats"]["rows_skipped"], 1);
    assert_fine(&service);
}

#[test]
fn uploads_that_are_too_large() {
    let service = Service::start_with(&["--max-upload", "10000"]);
    let body = csv(1000);
    // Refused before it begins.
    let length = body.len();
    let mut connection = service.connect();
    connection.send(format!("PUT /v1/jobs/x HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n"));
    let problem = connection.read_reply().expect_problem(413, "upload_too_large", &["10000", "max_upload_bytes"]);
    assert_eq!(problem["limit"]["name"], "max_upload_bytes", "{problem}");
    assert_eq!(problem["limit"]["value"], 10_000, "{problem}");
    let headers = [("content-type", FORM_TYPE)];
    let form = form(&[("name=\"file\"; filename=\"a.csv\"", &body)]);
    service.send("POST", "/v1/jobs", &headers, &form).expect_problem(413, "upload_too_large", &["10000"]);
    assert_no_job(&service);
    // Refused once it is.
    let reply = service.put_chunked("/v1/jobs/chunked", &mut &*body);
    assert_failed(&service, &reply, 413, "upload_too_large", &["10000", "max_upload_bytes"]);
    let mut connection = service.connect();
    let head = format!("Content-Type: {FORM_TYPE}\r\nTransfer-Encoding: chunked\r\n");
    connection.send(format!("POST /v1/jobs HTTP/1.1\r\nHost: test\r\n{head}\r\n")).send(chunk(&form));
    assert_failed(&service, &connection.read_reply(), 413, "upload_too_large", &["10000"]);
    // Exactly as much is enough.
    let mut exact = csv(300);
    exact.truncate(10_000);
    service.put_chunked("/v1/jobs/chunked", &mut &*exact).expect(201);
    service.put("/v1/jobs/known", &exact).expect(201);
    assert_fine(&service);
}

#[test]
fn names_that_are_paths_or_worse() {
    let service = Service::start();
    let (long, longer) = ("x".repeat(256), "x".repeat(10 * 1024));
    for name in [
        "..",
        "%2e%2e",
        ".",
        "%2e",
        "a%2fb",
        "..%2f..%2fetc%2fpasswd",
        "a%5cb",
        "a%0d%0aX-Evil:%201",
        "%00",
        "a%7f",
        "%C2%85",
        &long,
        &longer,
    ] {
        let reply = service.put(&format!("/v1/jobs/{name}"), &csv(1));
        reply.expect_problem(400, "invalid_name", &[]);
        assert_eq!(reply.header("x-evil"), None);
        let reply = service.send("POST", &format!("/v1/jobs?name={name}"), &[], &csv(1));
        reply.expect_problem(400, "invalid_name", &[]);
        // Asked for, it is only a name that nothing has.
        service.get(&format!("/v1/jobs/{name}")).expect_problem(404, "job_not_found", &[]);
        service.request("DELETE", &format!("/v1/jobs/{name}")).expect_problem(404, "job_not_found", &[]);
    }
    service.send("POST", "/v1/jobs?name=", &[], &csv(1)).expect_problem(400, "invalid_name", &["1 to 255"]);
    for path in ["/v1/jobs/%ff", "/v1/jobs/%c3%28/results/top10_ctr.csv"] {
        service.get(path).expect_problem(400, "invalid_name", &["UTF-8"]);
    }
    service.put("/v1/jobs/%ff", &csv(1)).expect_problem(400, "invalid_name", &["UTF-8"]);
    service.put("/v1/jobs/../../etc/passwd", &csv(1)).expect_problem(404, "not_found", &[]);
    assert_no_job(&service);
    assert_fine(&service);
}

#[test]
fn addresses_and_methods_that_do_not_exist() {
    let service = Service::start();
    for path in ["/nothing", "/v1", "/v1/", "/v2/jobs", "/v1/jobs/x/y", "/v1/jobs/x/y/z", "//v1/jobs", "/V1/jobs"] {
        for method in ["GET", "PUT", "POST", "DELETE"] {
            service.request(method, path).expect_problem(404, "not_found", &["/openapi.yaml"]);
        }
    }
    for (method, path, allowed) in [
        ("DELETE", "/v1/jobs", &["GET", "PUT", "POST"][..]),
        ("PATCH", "/v1/jobs/x", &["GET", "PUT", "DELETE"]),
        ("POST", "/v1/jobs/x", &["GET", "PUT", "DELETE"]),
        ("GET", "/v1/jobs/x/cancel", &["POST"]),
        ("PUT", "/v1/jobs/x/events", &["GET"]),
        ("DELETE", "/v1/jobs/x/results/top10_ctr.csv", &["GET"]),
        ("POST", "/healthz", &["GET"]),
        ("PUT", "/", &["GET"]),
        ("OPTIONS", "/v1/jobs", &["GET"]),
    ] {
        let reply = service.send(method, path, &[], b"x");
        reply.expect_problem(405, "method_not_allowed", allowed);
        let allow = reply.header("allow").unwrap_or_else(|| panic!("{method} {path}: {reply:?}"));
        assert!(allowed.iter().all(|method| allow.contains(method)), "{method} {path}: {allow}");
    }
    assert_fine(&service);
}

#[test]
fn more_uploads_at_once_than_allowed() {
    let service = Service::start_with(&["--max-concurrent-uploads", "1"]);
    let upload = OpenUpload::begin(&service, "only");
    let reply = service.put("/v1/jobs/second", &csv(1));
    let problem = reply.expect_problem(503, "too_many_uploads", &["1 upload"]);
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(problem["limit"]["value"], 1, "{problem}");
    service.get("/v1/jobs/second").expect_problem(404, "job_not_found", &[]);
    // The others are served as ever.
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.get("/v1/jobs").status, 200);
    upload.finish().expect(201);
    service.put("/v1/jobs/second", &csv(1)).expect(201);
    // An upload that breaks off makes room again.
    OpenUpload::begin(&service, "broken").connection.vanish();
    service.wait_for_job("broken", |job| job["state"] == "interrupted");
    while service.put("/v1/jobs/third", &csv(1)).status == 503 {}
    assert_fine(&service);
}

#[test]
fn bytes_that_are_no_request() {
    let service = Service::start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PUT /v1/jobs/x HTTP/1.1\r\nHost: test\r\nContent-Length: ten\r\n\r\n",
        b"PUT /v1/jobs/x HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"PUT /v1/jobs/x HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip\r\n\r\nhello",
    ] {
        let mut connection = service.connect();
        connection.try_send(bytes);
        let answer = connection.read_to_end();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer:?}");
    }
    // A length and chunks at once are how requests are smuggled past a proxy: one of both holds, and the connection ends.
    let mut connection = service.connect();
    let both = chunked_head("/v1/jobs/both", "Content-Length: 3\r\n");
    connection.send(both).send(chunk(&csv(1))).send(LAST_CHUNK);
    let reply = connection.read_reply();
    assert!(matches!(reply.status, 201 | 400), "{reply:?}");
    assert_fine(&service);
}

#[test]
fn a_head_that_is_too_long_or_has_too_many_fields() {
    let service = Service::start();
    let many = "X-Field: 1\r\n".repeat(500);
    let long = format!("X-Field: {}\r\n", "x".repeat(1 << 20));
    for fields in [many, long] {
        let mut connection = service.connect();
        let head = format!("GET /healthz HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        connection.try_send(head);
        assert!(connection.read_rest().starts_with("HTTP/1.1 431"));
    }
    let mut connection = service.connect();
    connection.try_send(format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(100_000)));
    assert!(connection.read_rest().starts_with("HTTP/1.1 414"));
    assert_fine(&service);
}
