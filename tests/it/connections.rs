//! Connections: those without a request are closed, those with one are not, over HTTP/1.1 and HTTP/2.

use std::future::Future;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use ureq::http::Request;

use crate::broken_uploads::terminate;
use crate::harness::{HEADER, lines};
use crate::senders::{OpenUpload, csv, row};
use crate::service::{Connection, PATIENCE, Service};

/// The first bytes of a connection of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A `SETTINGS` frame that changes nothing.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A `PING` frame.
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingpong";

/// A request that leaves the connection open.
const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n";

/// A client of HTTP/2 that answers pings in the background.
struct Http2 {
    runtime: Runtime,
    requests: SendRequest<bytes::Bytes>,
    /// Ends with the connection.
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    fn connect(service: &Service) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (requests, connection) = runtime.block_on(async {
            let stream = TcpStream::connect(service.address()).await.unwrap();
            let (requests, connection) = h2::client::handshake(stream).await.unwrap();
            (requests, tokio::spawn(connection))
        });
        Self { runtime, requests, connection }
    }

    /// Waits, but not for ever.
    #[track_caller]
    fn wait_for<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(async { timeout(PATIENCE, future).await }).expect("nothing happened for a minute")
    }

    /// A request for this service, yet without a body.
    fn request(service: &Service, method: &str, path: &str) -> Request<()> {
        Request::builder().method(method).uri(service.url(path)).body(()).unwrap()
    }
}

#[test]
fn connections_that_do_not_say_what_they_speak_are_closed() {
    let service = Service::start_with(&["--header-timeout", "1s"]);
    let beginnings = [&b""[..], b"P", &PREFACE[..14], &PREFACE[..23]];
    let connections = beginnings.map(|beginning| {
        let mut connection = service.connect();
        connection.send(beginning);
        connection
    });
    for (connection, beginning) in connections.into_iter().zip(beginnings) {
        assert_eq!(connection.read_until_closed(), b"", "{beginning:?}");
    }
}

#[test]
fn connections_of_http_1_without_a_whole_request_are_closed() {
    let service = Service::start_with(&["--header-timeout", "1s"]);
    let mut begun = service.connect();
    begun.send("GET /healthz HTTP/1.1\r\nHost: te");
    let mut idle = service.connect();
    idle.send(HEALTHZ);
    assert_eq!(idle.read_reply().status, 200);
    let mut second = service.connect();
    second.send(HEALTHZ);
    assert_eq!(second.read_reply().status, 200);
    second.send("PUT /v1/jo");
    for connection in [begun, idle, second] {
        // At most an answer that says so.
        let answer = String::from_utf8(connection.read_until_closed()).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer:?}");
    }
}

#[test]
fn connections_of_http_2_without_a_request_are_closed() {
    let service = Service::start_with(&["--header-timeout", "1s"]);
    let beginnings = [PREFACE.to_vec(), [PREFACE, SETTINGS].concat()];
    let connections = beginnings.map(|beginning| {
        let mut connection = service.connect();
        connection.send(beginning);
        connection
    });
    for connection in connections {
        connection.read_until_closed();
    }
}

#[test]
fn a_client_of_http_2_that_only_answers_pings_is_sent_away() {
    let service = Service::start_with(&["--header-timeout", "1s"]);
    let mut before_any = Http2::connect(&service);
    let mut after_one = Http2::connect(&service);
    let request = Http2::request(&service, "GET", "/healthz");
    let (response, _) = after_one.requests.send_request(request, true).unwrap();
    assert_eq!(after_one.wait_for(response).unwrap().status(), 200);
    for client in [&mut before_any, &mut after_one] {
        let ended = client.runtime.block_on(async { timeout(PATIENCE, &mut client.connection).await });
        let ended = ended.expect("an idle connection stays open").unwrap();
        // A graceful end is no error, or one that says so.
        assert!(ended.as_ref().err().is_none_or(h2::Error::is_go_away), "{ended:?}");
    }
}

#[test]
fn peers_that_do_not_read_do_not_keep_others_out() {
    let service = Service::start_with(&["--header-timeout", "1s", "--max-connections", "2"]);
    let deaf: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(service.address()).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            stream.write_all(&[PREFACE, SETTINGS].concat()).unwrap();
            // Until the answers that are not read keep the server from reading.
            while stream.write_all(&PING.repeat(1000)).is_ok() {}
            stream
        })
        .collect();
    assert_eq!(service.get("/healthz").status, 200);
    drop(deaf);
}

#[test]
fn silent_connections_do_not_keep_others_out() {
    let service = Service::start_with(&["--header-timeout", "1s", "--max-connections", "6"]);
    let beginnings = [&b""[..], b"P", &PREFACE[..14]];
    let silent = beginnings.iter().cycle().take(12).map(|beginning| {
        let mut connection = service.connect();
        connection.send(beginning);
        connection
    });
    let silent: Vec<_> = silent.collect();
    assert_eq!(service.get("/healthz").status, 200);
    drop(silent);
}

#[test]
fn requests_over_http_2_may_take_longer_than_the_header_timeout() {
    let service = Service::start_with(&["--header-timeout", "1s"]);
    // Until an idle connection would have been closed, the second time-out included.
    let end = Instant::now() + Duration::from_millis(2500);

    let mut events_client = Http2::connect(&service);
    let mut watched = OpenUpload::begin(&service, "watched");
    let request = Http2::request(&service, "GET", "/v1/jobs/watched/events");
    let (response, _) = events_client.requests.send_request(request, true).unwrap();
    let mut events = events_client.wait_for(response).unwrap().into_body();

    let mut upload_client = Http2::connect(&service);
    let request = Http2::request(&service, "PUT", "/v1/jobs/sent");
    let (response, mut body) = upload_client.requests.send_request(request, false).unwrap();
    body.send_data(HEADER.into(), false).unwrap();
    let mut rows = 0;
    while Instant::now() < end {
        rows += 1;
        let line = format!("{}\n", row(rows));
        body.send_data(line.clone().into(), false).unwrap();
        watched.send(line.as_bytes());
        let sent_bytes = HEADER.len() + rows as usize * line.len();
        service.wait_for_job("sent", |job| job["progress"]["bytes_received"].as_u64() > Some(sent_bytes as u64 / 2));
    }
    body.send_data("".into(), true).unwrap();
    let mut response = upload_client.wait_for(response).unwrap();
    assert_eq!(response.status(), 201);
    let reply = upload_client.wait_for(response.body_mut().data()).unwrap().unwrap();
    let job: serde_json::Value = serde_json::from_slice(&reply).unwrap();
    assert_eq!(job["stats"]["rows_read"], rows, "{job}");

    watched.finish().expect(201);
    let mut text = Vec::new();
    while let Some(piece) = events_client.wait_for(events.data()) {
        let piece = piece.unwrap();
        events.flow_control().release_capacity(piece.len()).unwrap();
        text.extend_from_slice(&piece);
    }
    assert!(String::from_utf8(text).unwrap().contains("\"state\":\"succeeded\""));
}

/// Makes a result that is larger than all buffers between server and client.
fn large_result(service: &Service) -> (String, Vec<u8>) {
    let rows = HEADER.to_owned() + &lines(80_000, |row| format!("{row:0250},2025-01-01,1,1,1,1"));
    let job = service.put("/v1/jobs/large", rows.as_bytes()).expect(201);
    let path = job["links"]["results"]["campaigns.csv"].as_str().unwrap().to_owned();
    let whole = service.get(&path).body;
    assert!(whole.len() > 20_000_000);
    (path, whole)
}

/// Asks for a result, and reads no more than the head of the answer.
fn begin_download(service: &Service, path: &str) -> Connection {
    let mut download = service.connect();
    download.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert!(download.read_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
    download
}

/// Waits until the process ends, and checks that it does so in order.
#[track_caller]
fn assert_ends(service: &mut Service) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = service.process().try_wait().unwrap() {
            assert_eq!(status.code(), Some(0));
            return;
        }
        assert!(Instant::now() < deadline, "the server does not stop");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_download_goes_on_while_the_server_stops() {
    let mut service = Service::start();
    let (path, whole) = large_result(&service);
    let upload = OpenUpload::begin(&service, "running");
    let download = begin_download(&service, &path);
    terminate(&mut service);
    while service.get("/readyz").status == 200 {}
    upload.finish().expect(201);
    // From here on the server waits for nothing but the download: longer than it waits for idle connections.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1500) {
        let end = service.process().try_wait().unwrap();
        assert!(end.is_none(), "the server ended in the middle of a download: {end:?}");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(download.read_until_closed() == whole, "the download is not whole");
    assert_ends(&mut service);
}

#[test]
fn a_download_that_takes_too_long_ends_with_the_drain_time() {
    let mut service = Service::start_with(&["--drain-timeout", "2s"]);
    let (path, _) = large_result(&service);
    let download = begin_download(&service, &path);
    terminate(&mut service);
    assert_ends(&mut service);
    drop(download);
}

#[test]
fn asked_twice_a_server_does_not_wait_for_downloads() {
    let mut service = Service::start_with(&["--drain-timeout", "3600s"]);
    let (path, _) = large_result(&service);
    let download = begin_download(&service, &path);
    let mut idle = service.connect();
    idle.send(HEALTHZ);
    assert_eq!(idle.read_reply().status, 200);
    terminate(&mut service);
    // Idle connections are closed at once: the signal has arrived.
    idle.read_until_closed();
    assert_eq!(service.process().try_wait().unwrap(), None);
    terminate(&mut service);
    assert_ends(&mut service);
    drop(download);
}

#[test]
fn an_answer_without_the_body_having_been_asked_for_says_that_the_connection_closes() {
    let service = Service::start();
    let body = csv(2);
    let request = |path: &str, expect: &str| {
        format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n{expect}\r\n", body.len())
    };
    let expect = "Expect: 100-continue\r\n";
    for (path, status) in [("/v1/jobs/refused?top=0", 400), ("/v1/nothing", 404), ("/v1/jobs/x/events", 405)] {
        let mut connection = service.connect();
        connection.send(request(path, expect));
        let reply = connection.read_reply();
        assert_eq!((reply.status, reply.header("connection")), (status, Some("close")), "{path}");
        assert_eq!(connection.read_until_closed(), b"", "{path}");
    }
    // The connection stays when the body was asked for, and is read to its end.
    let mut connection = service.connect();
    connection.send(request("/v1/jobs/taken", expect));
    assert_eq!(connection.read_reply().status, 100);
    connection.send(&body);
    let taken = connection.read_reply();
    assert_eq!((taken.status, taken.header("connection")), (201, None));
    connection.send(request("/v1/jobs/refused?top=0", "")).send(&body);
    let refused = connection.read_reply();
    assert_eq!((refused.status, refused.header("connection")), (400, Some("close")));
    assert_eq!(connection.read_until_closed(), b"");
    // HTTP/2 has no such field, and its connection stays.
    let mut client = Http2::connect(&service);
    let mut request = Http2::request(&service, "PUT", "/v1/jobs/refused?top=0");
    request.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (response, _body) = client.requests.send_request(request, false).unwrap();
    let response = client.wait_for(response).unwrap();
    assert_eq!((response.status().as_u16(), response.headers().get("connection")), (400, None));
    let (response, _) = client.requests.send_request(Http2::request(&service, "GET", "/healthz"), true).unwrap();
    assert_eq!(client.wait_for(response).unwrap().status(), 200);
}
