//! Clients that send too slowly, or do not read: what they hold is given back, and others are served meanwhile.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use h2::client::SendRequest;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use ureq::http::Request;

use crate::harness::{HEADER, lines};
use crate::senders::{FORM_TYPE, OpenUpload, chunk, chunked_head, csv};
use crate::service::{PATIENCE, Reply, Service};

/// The first bytes of a connection of HTTP/2, and settings that change nothing.
const HTTP2_BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A trickle: far less than a kibibyte a second, and never silent for long.
const TRICKLE_PAUSE: Duration = Duration::from_millis(20);

/// A server whose senders must not be slower than a kibibyte a second.
fn service_for_fast_senders() -> Service {
    Service::start_with(&["--min-receive-rate", "1KiB", "--receive-grace", "1s"])
}

/// Sends a head and the beginning of a body, then one byte after the other, each as a chunk, until there is an answer.
fn trickle(service: &Service, head: &str, begin: &[u8], byte: u8) -> Reply {
    let mut connection = service.connect();
    connection.send(head).send(chunk(begin));
    let mut sender = connection.clone();
    let is_answered = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_answered.load(Ordering::Relaxed) && sender.try_send(chunk(&[byte])) {
                thread::sleep(TRICKLE_PAUSE);
            }
        });
        let reply = connection.read_reply();
        is_answered.store(true, Ordering::Relaxed);
        reply
    })
}

#[test]
fn a_sender_that_is_too_slow_is_told_so_and_may_go_on() {
    let service = service_for_fast_senders();
    let whole = csv(100);
    let reply = trickle(&service, &chunked_head("/v1/jobs/slow", ""), HEADER.as_bytes(), b'c');
    let problem = reply.expect_problem(408, "sender_too_slow", &["1024 bytes a second", "curl -C"]);
    assert_eq!(problem["limit"], serde_json::json!({"name": "min_receive_rate_bytes", "value": 1024}));
    let job = service.get("/v1/jobs/slow").expect(200);
    assert_eq!(job["state"], "interrupted", "{job}");
    // The bytes that trickled are no rows. The file goes on with the rest of the one row that they are.
    let resume = job["links"]["resume"].as_str().unwrap();
    let offset = job["files"][0]["offset"].as_u64().unwrap();
    assert!(offset >= HEADER.len() as u64, "{job}");
    let rest = [b"\n", &whole[HEADER.len()..]].concat();
    let offset = offset.to_string();
    let job = service.send("PATCH", resume, &[("upload-offset", &offset)], &rest).expect(200);
    assert_eq!((&job["state"], &job["stats"]["unique_campaigns"]), (&"succeeded".into(), &10.into()), "{job}");
}

#[test]
fn every_body_has_a_minimum_rate() {
    let service = service_for_fast_senders();
    let json =
        "POST /v1/jobs HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n";
    trickle(&service, json, b"{", b' ').expect_problem(408, "sender_too_slow", &[]);

    let form = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nContent-Type: {FORM_TYPE}\r\n\r\n"
    );
    let begin = format!("--frontier\r\nContent-Disposition: form-data; name=a; filename=a.csv\r\n\r\n{HEADER}");
    trickle(&service, &form, begin.as_bytes(), b'c').expect_problem(408, "sender_too_slow", &[]);
    // Ahead of the first part, too.
    trickle(&service, &form, b"x", b'x').expect_problem(408, "sender_too_slow", &[]);

    let job = service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let files = format!("/v1/jobs/{}/files", job["id"].as_str().unwrap());
    trickle(&service, &chunked_head(&format!("{files}/a.csv"), ""), HEADER.as_bytes(), b'c').expect_problem(
        408,
        "sender_too_slow",
        &[],
    );
    let offset = service.get(&format!("{files}/a.csv")).expect(200)["offset"].to_string();
    let patch = format!(
        "PATCH {files}/a.csv HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nUpload-Offset: {offset}\r\n\r\n"
    );
    trickle(&service, &patch, b"c", b'c').expect_problem(408, "sender_too_slow", &[]);

    // A body that is only compared with a complete file.
    let complete = format!("{files}/complete.csv");
    service.put(&complete, &csv(3)).expect(201);
    trickle(&service, &chunked_head(&complete, ""), HEADER.as_bytes(), b'c').expect_problem(409, "file_complete", &[]);
}

#[test]
fn a_sender_over_http_2_that_is_too_slow_is_told_so() {
    let service = service_for_fast_senders();
    let mut client = Http2::connect(&service, 65_535);
    let request = client.request("PUT", "/v1/jobs/slow");
    let (response, mut body) = client.requests.send_request(request, false).unwrap();
    body.send_data(HEADER.into(), false).unwrap();
    let response = client.runtime.spawn(response);
    let deadline = Instant::now() + PATIENCE;
    while !response.is_finished() {
        assert!(Instant::now() < deadline, "the sender may go on for ever");
        // It fails when the answer is on its way.
        let _ = body.send_data("c".into(), false);
        thread::sleep(TRICKLE_PAUSE);
    }
    let response = client.wait_for(response).unwrap().unwrap();
    assert_eq!(response.status(), 408);
    assert_eq!(service.get("/v1/jobs/slow").expect(200)["state"], "interrupted");
}

#[test]
fn without_a_minimum_rate_a_slow_sender_may_go_on() {
    let service = Service::start_with(&["--min-receive-rate", "0", "--receive-grace", "1ms"]);
    let mut upload = OpenUpload::begin(&service, "slow");
    for byte in b"c1,2025-01-01,1,1,1,1\n" {
        upload.send(&[*byte]);
        thread::sleep(TRICKLE_PAUSE);
    }
    let job = upload.finish().expect(201);
    assert_eq!(job["stats"]["rows_read"], 1, "{job}");
}

/// A client of HTTP/2 whose streams take so many bytes until they are asked to take more.
struct Http2 {
    runtime: Runtime,
    requests: SendRequest<bytes::Bytes>,
    base: String,
}

impl Http2 {
    fn connect(service: &Service, window: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let requests = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(service.address()).await.unwrap();
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(window);
            let (requests, connection) = builder.handshake(stream).await.unwrap();
            tokio::spawn(connection);
            requests
        });
        Self { runtime, requests, base: service.url("") }
    }

    fn request(&self, method: &str, path: &str) -> Request<()> {
        Request::builder().method(method).uri(format!("{}{path}", self.base)).body(()).unwrap()
    }

    fn get(&mut self, path: &str) -> ureq::http::Response<h2::RecvStream> {
        let request = self.request("GET", path);
        let (response, _) = self.requests.send_request(request, true).unwrap();
        self.wait_for(response).unwrap()
    }

    #[track_caller]
    fn wait_for<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(async { timeout(PATIENCE, future).await }).expect("nothing happened for a minute")
    }
}

/// Makes a result that is larger than all buffers between server and client.
pub(crate) fn large_result(service: &Service) -> String {
    let rows = HEADER.to_owned() + &lines(80_000, |row| format!("{row:0250},2025-01-01,1,1,1,1"));
    let job = service.put("/v1/jobs/large", rows.as_bytes()).expect(201);
    job["links"]["results"]["campaigns.csv"].as_str().unwrap().to_owned()
}

/// A server that sends one result at a time, and waits for nobody to take it.
fn service_for_one_download() -> Service {
    Service::start_with(&["--write-timeout", "1s", "--max-concurrent-downloads", "1"])
}

/// Waits until another download may begin.
#[track_caller]
fn wait_for_download(service: &Service, path: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = service.send("GET", path, &[("range", "bytes=0-9")], b"");
        if reply.status == 206 {
            return;
        }
        let problem = reply.expect_problem(503, "too_many_downloads", &["1 "]);
        assert_eq!(problem["limit"], serde_json::json!({"name": "max_concurrent_downloads", "value": 1}));
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert!(Instant::now() < deadline, "the download that is not read is still there");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_download_that_is_not_read_ends() {
    let service = service_for_one_download();
    let path = large_result(&service);
    for accept in ["text/csv", "application/json"] {
        for half_close in [false, true] {
            let mut download = service.connect();
            download.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\n\r\n"));
            if half_close {
                download.half_close();
            }
            assert!(download.read_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
            wait_for_download(&service, &path);
            let rest = download.read_rest();
            assert!(rest.len() < 20_000_000, "{} bytes came after all", rest.len());
        }
    }
}

#[test]
fn a_stream_that_is_not_read_ends_and_its_connection_stays() {
    let service = service_for_one_download();
    let path = large_result(&service);
    for window in [0, 1, 65_535] {
        let mut client = Http2::connect(&service, window);
        let response = client.get(&path);
        assert_eq!(response.status(), 200);
        wait_for_download(&service, &path);
        // Only the head: of a body, this client would have to take bytes.
        assert_eq!(client.get("/healthz").status(), 200);
        let mut body = response.into_body();
        let mut bytes = 0;
        let end = loop {
            match client.wait_for(body.data()) {
                Some(Ok(piece)) => {
                    bytes += piece.len();
                    body.flow_control().release_capacity(piece.len()).unwrap();
                }
                Some(Err(error)) => break error,
                None => panic!("{bytes} bytes seem to be all of it"),
            }
        };
        assert!(end.is_reset(), "{end:?}");
        assert!(bytes < 1_000_000, "{bytes}");
    }
}

#[test]
fn events_that_are_not_read_end() {
    let service = service_for_one_download();
    let upload = OpenUpload::begin(&service, "watched");
    let mut client = Http2::connect(&service, 0);
    let mut events = client.get("/v1/jobs/watched/events").into_body();
    let end = client.wait_for(events.data()).unwrap().unwrap_err();
    assert!(end.is_reset(), "{end:?}");
    upload.finish().expect(201);
}

#[test]
fn events_that_are_read_go_on_however_rare_they_are() {
    let service = service_for_one_download();
    let upload = OpenUpload::begin(&service, "watched");
    let mut client = Http2::connect(&service, 65_535);
    let mut over_http_2 = client.get("/v1/jobs/watched/events").into_body();
    let mut over_http_1 = service.connect();
    over_http_1.send("GET /v1/jobs/watched/events HTTP/1.1\r\nHost: test\r\n\r\n");
    over_http_1.read_until("\"receiving\"");
    // Longer than the write time-out, in which nothing happens.
    thread::sleep(Duration::from_millis(2500));
    upload.finish().expect(201);
    assert!(over_http_1.read_until("\"succeeded\"").contains("event: state"));
    let mut text = Vec::new();
    while let Some(piece) = client.wait_for(over_http_2.data()) {
        let piece = piece.unwrap();
        over_http_2.flow_control().release_capacity(piece.len()).unwrap();
        text.extend_from_slice(&piece);
    }
    assert!(String::from_utf8(text).unwrap().contains("\"state\":\"succeeded\""));
}

/// Resident memory of the server in KiB, once it no longer grows.
#[cfg(target_os = "linux")]
fn settled_memory(service: &Service) -> u64 {
    let read = || service.resident_memory_bytes() / 1024;
    let (mut last, mut repeats) = (read(), 0);
    while repeats < 10 {
        thread::sleep(Duration::from_millis(50));
        let now = read();
        repeats = if now > last + 64 { 0 } else { repeats + 1 };
        last = now;
    }
    last
}

#[cfg(target_os = "linux")]
#[test]
fn downloads_that_are_not_read_hold_little() {
    const DOWNLOADS: u64 = 48;
    let service = Service::start();
    let path = large_result(&service);
    let before = settled_memory(&service);
    let downloads: Vec<_> = (0..DOWNLOADS)
        .map(|_| {
            let mut download = service.connect();
            download.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n"));
            assert!(download.read_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
            download
        })
        .collect();
    let each = settled_memory(&service).saturating_sub(before) / DOWNLOADS;
    assert!(each < 1024, "{each} KiB for each");
    drop(downloads);
}

/// Sends the same again and again until the server closes the connection.
#[track_caller]
fn send_until_closed(service: &Service, begin: &[u8], again: &[u8]) {
    let mut stream = TcpStream::connect(service.address()).unwrap();
    stream.write_all(begin).unwrap();
    stream.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 4096];
    loop {
        assert!(Instant::now() < deadline, "the connection stays open");
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if stream.write_all(again).is_err() {
                    return;
                }
                thread::sleep(TRICKLE_PAUSE);
            }
            Err(_) => return,
        }
    }
}

#[test]
fn connections_of_http_2_without_a_whole_request_are_closed() {
    let service = Service::start_with(&["--header-timeout", "1s"]);
    // A head that goes on for ever: an indexed field, `:method: GET`, again and again without END_HEADERS.
    let head = [HTTP2_BEGIN, b"\0\0\x01\x01\x01\0\0\0\x01\x82"].concat();
    send_until_closed(&service, &head, b"\0\0\x01\x09\0\0\0\0\x01\x82");
    // Pings, and nothing else.
    send_until_closed(&service, HTTP2_BEGIN, b"\0\0\x08\x06\0\0\0\0\0pingpong");
}
