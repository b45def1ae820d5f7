//! An upload over HTTP/2 that its sender aborts never counts, whichever code it gives and whenever it does.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use h2::{Reason, SendStream};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use ureq::http::{HeaderMap, Request};

use crate::harness::HEADER;
use crate::senders::{FORM_TYPE, csv, row};
use crate::service::Service;

/// Every code of RFC 9113, 7, and one that is not registered.
const REASONS: [Reason; 15] = [
    Reason::NO_ERROR,
    Reason::PROTOCOL_ERROR,
    Reason::INTERNAL_ERROR,
    Reason::FLOW_CONTROL_ERROR,
    Reason::SETTINGS_TIMEOUT,
    Reason::STREAM_CLOSED,
    Reason::FRAME_SIZE_ERROR,
    Reason::REFUSED_STREAM,
    Reason::CANCEL,
    Reason::COMPRESSION_ERROR,
    Reason::CONNECT_ERROR,
    Reason::ENHANCE_YOUR_CALM,
    Reason::INADEQUATE_SECURITY,
    Reason::HTTP_1_1_REQUIRED,
    Reason::NO_ERROR,
];

/// How far an upload comes before it is aborted.
const STAGES: [fn() -> Vec<Vec<u8>>; 6] = [
    Vec::new,
    || csv(1500).chunks(500).map(<[u8]>::to_vec).collect(),
    || vec![HEADER.as_bytes().to_vec()],
    || vec![csv(40)],
    || vec![csv(40), row(41).into_bytes()],
    || vec![csv(1), vec![b'\n'; 40_000], format!("{}\n", row(2)).into_bytes()],
];

const ABORTS: usize = 1000;

/// Aborts on one connection. More than 20 resets that a server has not yet seen end a connection (CVE-2023-44487).
const UPLOADS_PER_CONNECTION: usize = 10;

async fn connect(service: &Service) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(service.address()).await.unwrap();
    let (client, connection) = handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

async fn begin(client: &mut SendRequest<Bytes>, request: Request<()>) -> SendStream<Bytes> {
    *client = client.clone().ready().await.unwrap();
    client.send_request(request, false).unwrap().1
}

fn request(service: &Service, method: &str, path: &str) -> ureq::http::request::Builder {
    Request::builder().method(method).uri(service.url(path))
}

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

/// The states of all jobs, by name.
fn states(service: &Service) -> Vec<(String, String)> {
    let mut states = Vec::new();
    let mut path = "/v1/jobs?limit=100".to_owned();
    loop {
        let page = service.get(&path).expect(200);
        for job in page["jobs"].as_array().unwrap() {
            let text = |name: &str| job[name].as_str().unwrap().to_owned();
            states.push((text("name"), text("state")));
        }
        match &page["next_cursor"] {
            Value::String(cursor) => path = format!("/v1/jobs?limit=100&cursor={cursor}"),
            _ => return states,
        }
    }
}

#[track_caller]
fn assert_none_counts(service: &Service) {
    // Ends are recorded in the background, each within moments.
    let deadline = Instant::now() + crate::service::PATIENCE;
    loop {
        let states = states(service);
        let succeeded: Vec<_> = states.iter().filter(|(_, state)| state == "succeeded").collect();
        assert!(succeeded.is_empty(), "{} of {} were taken for whole: {succeeded:?}", succeeded.len(), states.len());
        if states.iter().all(|(_, state)| ["failed", "interrupted", "open"].contains(&state.as_str())) {
            return;
        }
        assert!(Instant::now() < deadline, "{states:?}");
    }
}

/// Lets frames leave before a reset follows them: at once, or while the server is reading them.
async fn leave(number: usize) {
    tokio::task::yield_now().await;
    let pause = Duration::from_micros(number as u64 * 7 % 300);
    let started = Instant::now();
    while started.elapsed() < pause {
        std::hint::spin_loop();
    }
}

#[test]
fn a_thousand_aborts_with_every_code_at_every_stage_count_nothing() {
    let service = Service::start();
    run(async {
        for first in (0..ABORTS).step_by(UPLOADS_PER_CONNECTION) {
            let mut client = connect(&service).await;
            for number in first..first + UPLOADS_PER_CONNECTION {
                let head = request(&service, "PUT", &format!("/v1/jobs/{number}")).body(()).unwrap();
                let mut body = begin(&mut client, head).await;
                for piece in STAGES[number / REASONS.len() % STAGES.len()]() {
                    body.send_data(piece.into(), false).unwrap();
                }
                leave(number).await;
                body.send_reset(REASONS[number % REASONS.len()]);
            }
            // What the server answers last comes when it has read all of it.
            let (answer, _) =
                client.send_request(request(&service, "GET", "/healthz").body(()).unwrap(), true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
        }
    });
    assert_none_counts(&service);
}

/// Aborts 500 uploads with the code that is none, each while the server reads it.
fn abort_while_read(service: &Service, head: impl Fn(usize) -> Request<()>, body: &[u8]) {
    run(async {
        for first in (0..500).step_by(UPLOADS_PER_CONNECTION) {
            let mut client = connect(service).await;
            for number in first..first + UPLOADS_PER_CONNECTION {
                let mut stream = begin(&mut client, head(number)).await;
                for piece in body.chunks(500) {
                    stream.send_data(piece.to_vec().into(), false).unwrap();
                }
                leave(number).await;
                stream.send_reset(Reason::NO_ERROR);
            }
            let (answer, _) = client.send_request(request(service, "GET", "/healthz").body(()).unwrap(), true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
        }
    });
    assert_none_counts(service);
}

#[test]
fn an_abort_without_an_error_while_the_upload_is_read_counts_nothing() {
    let service = Service::start();
    abort_while_read(&service, |n| request(&service, "PUT", &format!("/v1/jobs/{n}")).body(()).unwrap(), &csv(1500));
}

#[test]
fn a_digest_to_come_changes_nothing() {
    let service = Service::start();
    let head = |number| request(&service, "PUT", &format!("/v1/jobs/{number}")).header("trailer", "content-digest");
    abort_while_read(&service, |number| head(number).body(()).unwrap(), &csv(1500));
}

#[test]
fn a_form_is_not_whole_before_its_stream_ends() {
    let service = Service::start();
    let form = crate::senders::form(&[("name=\"file\"; filename=\"a.csv\"", &csv(1500))]);
    let head = |n| request(&service, "POST", &format!("/v1/jobs?name={n}")).header("content-type", FORM_TYPE);
    abort_while_read(&service, |number| head(number).body(()).unwrap(), &form);
}

#[test]
fn a_cancel_whose_request_is_aborted_is_done_as_a_whole_or_not_at_all() {
    let service = Service::start();
    run(async {
        for number in 0..60 {
            let name = format!("cancelled-{number}");
            let mut client = connect(&service).await;
            let head = request(&service, "PUT", &format!("/v1/jobs/{name}")).body(()).unwrap();
            let mut body = begin(&mut client, head).await;
            body.send_data(csv(40).into(), false).unwrap();
            tokio::task::yield_now().await;
            service.wait_for_job(&name, |_| true);
            let mut other = connect(&service).await;
            let cancel = request(&service, "POST", &format!("/v1/jobs/{name}/cancel")).body(()).unwrap();
            let (_answer, mut stream) = other.send_request(cancel, true).unwrap();
            leave(number * 11).await;
            stream.send_reset(Reason::CANCEL);
            tokio::task::yield_now().await;
            // Lists are chosen by what the store says.
            let deadline = Instant::now() + crate::service::PATIENCE;
            for _ in 0..20 {
                let listed = service.get(&format!("/v1/jobs?state=cancelled&name={name}")).expect(200);
                while listed["jobs"] != json!([])
                    && service.get(&format!("/v1/jobs/{name}")).json()["state"] != "cancelled"
                {
                    assert!(Instant::now() < deadline, "it is cancelled for the store alone");
                }
            }
        }
    });
}

#[test]
fn a_file_whose_request_is_aborted_waits_for_another_sender() {
    let service = Service::start();
    let job = service.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let files = format!("{}/files", job["links"]["self"].as_str().unwrap());
    run(async {
        for number in 0..200 {
            let mut client = connect(&service).await;
            let head = request(&service, "PUT", &format!("{files}/{number}.csv")).body(()).unwrap();
            let mut body = begin(&mut client, head).await;
            // Before the file has a writer, at that moment, and behind it.
            leave(number * 5).await;
            body.send_reset(Reason::CANCEL);
            tokio::task::yield_now().await;
        }
    });
    let deadline = Instant::now() + crate::service::PATIENCE;
    loop {
        let list = service.get(&files).expect(200);
        let states: Vec<_> = list["files"].as_array().unwrap().iter().map(|file| file["state"].clone()).collect();
        let uploads = service.get("/metrics").text().contains("adtally_uploads_in_progress 0");
        if uploads && states.iter().all(|state| state == "waiting") {
            break;
        }
        assert!(Instant::now() < deadline, "files have no sender and do not wait for one: {states:?}");
    }
    service.put(&format!("{files}/0.csv"), &csv(1)).expect(201);
}

#[test]
fn whole_uploads_count_however_their_stream_ends() {
    let service = Service::start();
    let ends: [fn(SendStream<Bytes>); 3] = [
        |mut body| body.send_data(csv(20).into(), true).unwrap(),
        |mut body| {
            body.send_data(csv(20).into(), false).unwrap();
            body.send_data(Bytes::new(), true).unwrap();
        },
        |mut body| {
            body.send_data(csv(20).into(), false).unwrap();
            body.send_trailers(HeaderMap::new()).unwrap();
        },
    ];
    run(async {
        let mut client = connect(&service).await;
        for number in 0..60 {
            client = client.clone().ready().await.unwrap();
            let head = request(&service, "PUT", &format!("/v1/jobs/{number}")).body(()).unwrap();
            let (answer, body) = client.send_request(head, false).unwrap();
            ends[number % ends.len()](body);
            assert_eq!(answer.await.unwrap().status(), 201);
        }
    });
    assert!(states(&service).iter().all(|(_, state)| state == "succeeded"));
}
