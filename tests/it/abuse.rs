//! Attacks with connections, each beside an upload that has to come out as ever: too many, silent, slow, cut off.

use std::io::Write as _;

use serde_json::Value;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::bystander::Bystander;
use crate::floods::{
    Attacker, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, RST_STREAM, frame, head, stream_id,
};
use crate::harness::HEADER;
use crate::senders::{LAST_CHUNK, chunk, chunked_head, csv};
use crate::service::{Connection, Service};
use crate::slow_clients::large_result;
use crate::tls::{client_hello, connect, start_with_tls};

/// What a server may take more for some hundred connections. One holds some 10 KiB.
const CONNECTIONS_MIB: u64 = 16;

/// What it may take more for a thousand that have had an answer: each keeps a buffer.
const IDLE_MIB: u64 = 48;

/// A request that leaves its connection open.
const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n";

fn many<T>(count: usize, one: impl Fn(usize) -> T) -> Vec<T> {
    (0..count).map(one).collect()
}

/// Connections that these bytes were sent on.
fn begun(service: &Service, count: usize, beginning: impl AsRef<[u8]>) -> Vec<Connection> {
    many(count, |_| {
        let mut connection = service.connect();
        connection.send(&beginning);
        connection
    })
}

/// Checks that the server ends a connection of its own accord, and that its answer, if there is one, has this status.
#[track_caller]
fn assert_ended(connection: Connection, status: &str) {
    let answer = String::from_utf8(connection.read_until_closed()).unwrap();
    assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer:?}");
}

#[test]
fn heads_that_come_slowly() {
    let service = Service::start_with(&["--header-timeout", "2s"]);
    let bystander = Bystander::of(&service);
    let beginning = "PUT /v1/jobs/slow HTTP/1.1\r\nHost: test\r\nX-Slow: ";
    let slow = bystander.beside(
        || begun(&service, 200, beginning),
        |slow, _| {
            for connection in slow {
                connection.try_send("x");
            }
        },
    );
    for connection in slow {
        assert_ended(connection, "408");
    }
    service.get("/v1/jobs/slow").expect_problem(404, "job_not_found", &[]);
    bystander.assert_unharmed(CONNECTIONS_MIB);
}

#[test]
fn more_silent_sockets_than_connections_are_taken() {
    let service = Service::start_with(&["--header-timeout", "1s", "--max-connections", "32"]);
    let bystander = Bystander::of(&service);
    // The upload waits to be accepted until the first of them are closed.
    let silent = bystander.beside(|| many(40, |_| service.connect()), |_, _| {});
    for connection in silent {
        assert_ended(connection, "408");
    }
    bystander.assert_unharmed(CONNECTIONS_MIB);
}

#[test]
fn a_thousand_idle_connections() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let idle = bystander.beside(|| begun(&service, idle_connections(), HEALTHZ), |_, _| {});
    for mut connection in idle {
        assert_eq!(connection.read_reply().status, 200);
        // Each is served as ever.
        assert_eq!(connection.send(HEALTHZ).read_reply().status, 200);
    }
    bystander.assert_unharmed(IDLE_MIB);
}

/// A thousand, or as many as this process may have beside what other tests need.
fn idle_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let limit = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1024);
    1000.min(limit / 2)
}

#[test]
fn bodies_of_one_byte_at_a_time() {
    let service = Service::start_with(&["--min-receive-rate", "1KiB", "--receive-grace", "3s"]);
    let bystander = Bystander::of(&service);
    let begin = |number| {
        let mut connection = service.connect();
        connection.send(chunked_head(&format!("/v1/jobs/slow{number}"), "")).send(chunk(HEADER.as_bytes()));
        connection
    };
    let slow = bystander.beside(
        || many(20, begin),
        |slow, _| slow.iter_mut().for_each(|connection| _ = connection.try_send(chunk(b"c"))),
    );
    for (number, mut connection) in slow.into_iter().enumerate() {
        let reply = connection.read_reply();
        reply.expect_problem(408, "sender_too_slow", &["1024 bytes a second"]);
        assert_eq!(service.get(&format!("/v1/jobs/slow{number}")).expect(200)["state"], "interrupted");
    }
    // Each upload takes about 1 MiB.
    bystander.assert_unharmed(CONNECTIONS_MIB + 20);
}

#[test]
fn bodies_that_fall_silent() {
    let service = Service::start_with(&["--idle-timeout", "3s"]);
    let bystander = Bystander::of(&service);
    let begin = |number| {
        let mut connection = service.connect();
        let path = format!("/v1/jobs/silent{number}");
        connection.send(format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n")).send(HEADER);
        connection
    };
    for mut connection in bystander.beside(|| many(20, begin), |_, _| {}) {
        connection.read_reply().expect_problem(408, "sender_stalled", &[]);
    }
    bystander.assert_unharmed(CONNECTIONS_MIB + 20);
}

#[test]
fn sockets_that_are_closed_by_half() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let whole = csv(20);
    let length = whole.len();
    let put = |name: &str| format!("PUT /v1/jobs/{name} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
    let stages = [
        (String::new(), ""),
        ("PUT /v1/jobs/half HTTP/1.1\r\nHo".to_owned(), ""),
        (put("head"), "400"),
        (put("body") + HEADER, "400"),
        (put("whole") + std::str::from_utf8(&whole).unwrap(), "201"),
        (HEALTHZ.to_owned(), "200"),
    ];
    let half_closed = bystander.beside(Vec::new, |half_closed, piece| {
        let (beginning, status) = &stages[piece % stages.len()];
        for mut connection in begun(&service, 5, beginning) {
            connection.half_close();
            half_closed.push((connection, status));
        }
    });
    for (connection, status) in half_closed {
        let answer = String::from_utf8(connection.read_until_closed()).unwrap();
        match *status {
            "" => assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer:?}"),
            status => assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}"),
        }
        assert_eq!(answer.contains("urn:adtally:problem:upload_incomplete"), *status == "400", "{answer:?}");
    }
    bystander.assert_unharmed(CONNECTIONS_MIB + 20);
}

#[test]
fn resets_at_every_stage() {
    let service = Service::start();
    let large = large_result(&service);
    let bystander = Bystander::of(&service);
    let (header, whole) = (chunk(HEADER.as_bytes()), chunk(&csv(3000)));
    let put = |name: &str| chunked_head(&format!("/v1/jobs/{name}"), "").into_bytes();
    let get = format!("GET {large} HTTP/1.1\r\nHost: test\r\n\r\n");
    let stages: [(Vec<u8>, Option<&str>); 7] = [
        (Vec::new(), None),
        (b"PUT /v1/jobs/reset HTTP/1.1\r\nHost: te".to_vec(), None),
        (put("head"), None),
        ([put("middle"), header].concat(), None),
        ([put("unended"), whole.clone()].concat(), None),
        // Before the answer, which may be on its way.
        ([put("answer"), whole, LAST_CHUNK.to_vec()].concat(), None),
        (get.into_bytes(), Some("campaign_id")),
    ];
    bystander.beside(
        || (),
        |(), piece| {
            let (sent, awaited) = &stages[piece % stages.len()];
            for mut connection in begun(&service, 8, sent) {
                if let Some(text) = awaited {
                    connection.read_until(text);
                }
                connection.abort();
            }
        },
    );
    // Those whose last byte came may count; the others never do.
    for job in all_jobs(&service, |job| job["state"] != "receiving") {
        let name = job["name"].as_str().unwrap();
        let may_count = name.starts_with("bystander") || name == "answer" || name == "large";
        assert!(may_count || job["state"] == "interrupted", "{job}");
        if name == "answer" && job["state"] == "succeeded" {
            let job = service.get(&format!("/v1/jobs/{}", job["id"].as_str().unwrap())).expect(200);
            assert_eq!(job["stats"]["rows_read"], 3000, "{job}");
        }
    }
    // Uploads of 1 MiB each, eight at once.
    bystander.assert_unharmed(CONNECTIONS_MIB + 20);
}

/// Waits until all jobs are as wanted, and gives them.
#[track_caller]
fn all_jobs(service: &Service, is_wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let deadline = std::time::Instant::now() + crate::service::PATIENCE;
    loop {
        let page = service.get("/v1/jobs?limit=100").expect(200);
        assert_eq!(page["next_cursor"], Value::Null);
        let jobs = page["jobs"].as_array().unwrap();
        if jobs.iter().all(&is_wanted) {
            return jobs.clone();
        }
        assert!(std::time::Instant::now() < deadline, "{page}");
    }
}

#[test]
fn handshakes_that_are_cut_off() {
    let (service, pair) = start_with_tls(&["--header-timeout", "2s"]);
    let trusted: &CertificateDer<'static> = pair.cert.der();
    let bystander = Bystander::over(&service, || Box::new(connect(&service, trusted)));
    let hello = client_hello(trusted);
    let stages = [&hello[..0], &hello[..3], &hello[..hello.len() / 2], &hello[..]];
    let silent = bystander.beside(
        || stages.iter().flat_map(|stage| begun(&service, 20, stage)).collect::<Vec<_>>(),
        |_, piece| begun(&service, 20, stages[piece % stages.len()]).into_iter().for_each(Connection::abort),
    );
    for connection in silent {
        connection.read_rest();
    }
    // Behind the handshake, in the middle of a request.
    bystander.beside(
        || (),
        |(), _| {
            let mut client = connect(&service, trusted);
            client.write_all(b"PUT /v1/jobs/cut HTTP/1.1\r\nHost: test\r\nContent-Length: 99\r\n\r\ncampaign").unwrap();
            socket2::SockRef::from(&client.sock).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        },
    );
    // Keys and buffers of TLS take some 50 KiB for each connection.
    bystander.assert_unharmed(CONNECTIONS_MIB + 20);
}

#[test]
fn requests_whose_answers_are_not_read() {
    let service = Service::start_with(&["--write-timeout", "2s"]);
    let large = large_result(&service);
    let bystander = Bystander::of(&service);
    let get = format!("GET {large} HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n");
    // One behind the other on each connection, of which the server need not look at more than the first.
    let unread = bystander.beside(|| begun(&service, 24, get.repeat(50)), |_, _| {});
    // A download that nobody reads holds less than 1 MiB. They are ended while their clients are still there.
    bystander.assert_unharmed(CONNECTIONS_MIB + 24);
    drop(unread);
}

#[test]
fn streams_that_are_begun_and_reset() {
    let service = Service::start();
    let bystander = Bystander::of(&service);
    let request = head("GET", "/v1/jobs");
    let attackers = bystander.beside(
        || many(3, |_| Attacker::connect(&service)),
        |attackers, piece| {
            for attacker in attackers {
                // Until the server has closed the connection.
                attacker.flood(1000, |number| {
                    let id = stream_id(u32::try_from(piece).unwrap() * 1000 + number);
                    let cancel = frame(RST_STREAM, 0, id, &8_u32.to_be_bytes());
                    [frame(HEADERS, END_STREAM | END_HEADERS, id, &request), cancel].concat()
                });
            }
        },
    );
    for attacker in attackers {
        assert_eq!(attacker.reason_of_the_end(), Some(ENHANCE_YOUR_CALM));
    }
    bystander.assert_unharmed(CONNECTIONS_MIB);
}
