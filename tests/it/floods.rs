//! Floods of frames over HTTP/2: what each costs is bounded, and others are served meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::harness::{HEADER, lines};
use crate::service::{PATIENCE, Service};

/// The first bytes of a connection of HTTP/2, and settings that change nothing.
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// How much more memory than before a flood may take at its peak. An upload may take as much.
const MAX_MEMORY_BYTES: u64 = 48 << 20;

const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The reason of GOAWAY for a peer that costs too much.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field whose name is this entry of HPACK's static table.
fn field(index: u8, value: &str) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap();
    assert!(index < 15 && length < 127);
    [&[index, length], value.as_bytes()].concat()
}

/// A head: 0x82 is GET, 0x86 is http, 4 the path, 1 the authority, 2 another method.
pub(crate) fn head(method: &str, path: &str) -> Vec<u8> {
    [field(2, method), vec![0x86], field(4, path), field(1, "test")].concat()
}

/// A frame with its payload, as the server sent it.
struct Answer {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A client that sends whatever it wants to.
pub(crate) struct Attacker {
    stream: TcpStream,
    /// What the server sends, until it closes the connection.
    answers: Receiver<Answer>,
}

impl Attacker {
    pub(crate) fn connect(service: &Service) -> Self {
        let mut stream = TcpStream::connect(service.address()).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(BEGINNING).unwrap();
        let mut reader = stream.try_clone().unwrap();
        let (sender, answers) = channel();
        thread::spawn(move || {
            let mut head = [0; 9];
            while reader.read_exact(&mut head).is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                let mut payload = vec![0; length as usize];
                if reader.read_exact(&mut payload).is_err()
                    || sender.send(Answer { kind: head[3], stream, payload }).is_err()
                {
                    return;
                }
            }
        });
        Self { stream, answers }
    }

    /// Sends this, as long as the server takes it; false when it has closed the connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends this so many times, unless the server closes the connection before.
    pub(crate) fn flood(&mut self, times: usize, mut frames: impl FnMut(u32) -> Vec<u8>) -> bool {
        const BATCH: usize = 100;
        (0..times / BATCH).all(|batch| {
            let batch: Vec<_> =
                (0..BATCH).flat_map(|number| frames(u32::try_from(batch * BATCH + number).unwrap())).collect();
            self.send(&batch)
        })
    }

    /// Waits for the head of an answer.
    #[track_caller]
    fn wait_for_head(&self, stream: u32) {
        while let Ok(answer) = self.answers.recv_timeout(PATIENCE) {
            if answer.kind == HEADERS && answer.stream == stream {
                return;
            }
        }
        panic!("stream {stream} has no answer");
    }

    /// Ends the connection, and gives what came.
    fn end(self) -> Vec<Answer> {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.answers.iter().collect()
    }

    /// Waits until the server has closed the connection, and gives the reason of its GOAWAY, if there was one.
    pub(crate) fn reason_of_the_end(self) -> Option<u32> {
        let last = self.answers.iter().filter(|answer| answer.kind == GOAWAY).last()?;
        Some(u32::from_be_bytes(last.payload[4..8].try_into().unwrap()))
    }
}

/// The first streams that a client may use.
pub(crate) fn stream_id(number: u32) -> u32 {
    2 * number + 1
}

/// Checks that another client is answered, and how much memory was used.
#[track_caller]
fn assert_unharmed(service: &mut Service, memory_before: u64) {
    assert_eq!(service.get("/healthz").status, 200);
    let grown = service.peak_memory_bytes().saturating_sub(memory_before);
    assert!(grown < MAX_MEMORY_BYTES, "it took {grown} bytes more");
}

/// A server that has been used, and its memory.
fn start(arguments: &[&str]) -> (Service, u64) {
    let service = Service::start_with(arguments);
    assert_eq!(service.get("/readyz").status, 200);
    let memory = service.peak_memory_bytes();
    (service, memory)
}

#[test]
fn streams_that_are_reset_at_once() {
    let (mut service, memory) = start(&[]);
    let mut attacker = Attacker::connect(&service);
    let request = head("GET", "/healthz");
    attacker.flood(200_000, |number| {
        let id = stream_id(number);
        let cancel = frame(RST_STREAM, 0, id, &8_u32.to_be_bytes());
        [frame(HEADERS, END_STREAM | END_HEADERS, id, &request), cancel].concat()
    });
    assert_unharmed(&mut service, memory);
    assert_eq!(attacker.reason_of_the_end(), Some(ENHANCE_YOUR_CALM));
}

#[test]
fn streams_that_the_server_is_made_to_reset() {
    let (mut service, memory) = start(&[]);
    let mut attacker = Attacker::connect(&service);
    // `content-length: 1`, entry 28 of the table.
    let request = [head("PUT", "/v1/jobs/none"), vec![15, 13, 1, b'1']].concat();
    attacker.flood(50_000, |number| {
        let id = stream_id(number);
        // More than announced is an error of the stream.
        [frame(HEADERS, END_HEADERS, id, &request), frame(DATA, 0, id, b"12")].concat()
    });
    assert_unharmed(&mut service, memory);
    assert_eq!(attacker.reason_of_the_end(), Some(ENHANCE_YOUR_CALM));
}

#[test]
fn a_head_that_goes_on_for_ever() {
    let (mut service, memory) = start(&[]);
    for fields_of_a_frame in [0, 100] {
        let mut attacker = Attacker::connect(&service);
        // Fields that are literals with a new name, `a: b`.
        let more = [0, 1, b'a', 1, b'b'].repeat(fields_of_a_frame);
        assert!(attacker.send(&frame(HEADERS, END_STREAM, 1, &head("GET", "/healthz"))));
        let is_open = attacker.flood(200_000, |_| frame(CONTINUATION, 0, 1, &more));
        assert!(!is_open, "it takes more and more of a head with {fields_of_a_frame} fields in each frame");
        assert_unharmed(&mut service, memory);
        attacker.end();
    }
}

#[test]
fn settings_and_pings_without_end() {
    let (mut service, memory) = start(&[]);
    let mut attacker = Attacker::connect(&service);
    let setting = [0, 4, 0, 0, 0xff, 0xff];
    assert!(attacker.flood(100_000, |_| frame(SETTINGS, 0, 0, &setting)));
    assert!(attacker.flood(100_000, |number| frame(PING, 0, 0, &u64::from(number).to_be_bytes())));
    // It is served, if slowly.
    assert!(attacker.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("GET", "/healthz"))));
    assert_unharmed(&mut service, memory);
    attacker.wait_for_head(1);
}

#[test]
fn settings_and_pings_whose_answers_are_not_read() {
    let (mut service, memory) = start(&["--header-timeout", "1s"]);
    for flood in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, b"pingpong")] {
        let mut stream = TcpStream::connect(service.address()).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        stream.write_all(BEGINNING).unwrap();
        // Until the server reads no more.
        while stream.write_all(&flood.repeat(1000)).is_ok() {}
        assert_unharmed(&mut service, memory);
    }
}

#[test]
fn window_updates_of_one_byte() {
    let mut service = Service::start();
    let rows = HEADER.to_owned() + &lines(2000, |row| format!("{row:0100},2025-01-01,1,1,1,1"));
    service.put("/v1/jobs/large", rows.as_bytes()).expect(201);
    let memory = service.peak_memory_bytes();
    let mut attacker = Attacker::connect(&service);
    // A window of nothing for each stream.
    assert!(attacker.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])));
    let request = head("GET", "/v1/jobs/large/results/campaigns.csv");
    let ids = (0..10).map(stream_id);
    let requests: Vec<_> = ids.flat_map(|id| frame(HEADERS, END_STREAM | END_HEADERS, id, &request)).collect();
    assert!(attacker.send(&requests));
    let is_open =
        attacker.flood(100_000, |number| frame(WINDOW_UPDATE, 0, stream_id(number % 10), &1_u32.to_be_bytes()));
    assert_unharmed(&mut service, memory);
    if is_open {
        attacker.wait_for_head(stream_id(9));
        let answers = attacker.end();
        let sent: usize = answers.iter().filter(|answer| answer.kind == DATA).map(|answer| answer.payload.len()).sum();
        // The window of the connection, as it is at first.
        assert!(sent <= 65_535, "it has sent {sent} bytes");
    }
}

#[test]
fn empty_frames_of_data_are_no_sign_of_life() {
    let (mut service, memory) = start(&["--idle-timeout", "1s"]);
    let mut attacker = Attacker::connect(&service);
    assert!(attacker.send(&frame(HEADERS, END_HEADERS, 1, &head("PUT", "/v1/jobs/empty"))));
    assert!(attacker.send(&frame(DATA, 0, 1, HEADER.as_bytes())));
    // Its sender may be ended for the flood, so the job has to be there before.
    service.wait_for_job("empty", |_| true);
    // As long as it takes to be told.
    while service.get("/v1/jobs/empty").expect(200)["state"] == "receiving" {
        if !attacker.flood(10_000, |_| frame(DATA, 0, 1, &[])) {
            break;
        }
    }
    service.wait_for_job("empty", |job| job["state"] == "interrupted");
    assert_unharmed(&mut service, memory);
    attacker.end();
}

#[test]
fn data_in_frames_of_one_byte() {
    let (mut service, memory) = start(&[]);
    let mut attacker = Attacker::connect(&service);
    assert!(attacker.send(&frame(HEADERS, END_HEADERS, 1, &head("PUT", "/v1/jobs/crumbs"))));
    // It may be ended, or be slow.
    attacker.flood(500_000, |_| frame(DATA, 0, 1, b"c"));
    assert_unharmed(&mut service, memory);
    attacker.end();
}
