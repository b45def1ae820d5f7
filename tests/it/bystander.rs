//! Somebody who uploads a file as everybody should, while others do what nobody should.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::harness::{HEADER, lines};
use crate::service::{PATIENCE, Reply, Service};

/// Rows of the upload.
const ROWS: u32 = 6000;

/// Pieces that it is sent in. The attack goes on before each of them.
pub(crate) const PIECES: usize = 12;

/// The results that have to be the same, byte by byte.
const TABLES: [&str; 3] = ["top10_ctr.csv", "top10_cpa.csv", "campaigns.csv"];

/// Handles that a server may have more than before: its connections to the database, and those that this test keeps.
#[cfg(target_os = "linux")]
const SPARE_HANDLES: usize = 12;

/// A connection, over TLS or not.
pub(crate) trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// A well-behaved sender, and what its upload comes to when it has the server for itself.
pub(crate) struct Bystander<'a> {
    service: &'a Service,
    connect: Box<dyn Fn() -> Box<dyn Wire> + 'a>,
    /// A header field with its line end, or nothing.
    authorization: String,
    file: Vec<u8>,
    alone: Vec<Vec<u8>>,
    peak_memory_bytes: u64,
    handles: usize,
    uploads: Cell<u32>,
}

/// A file of many campaigns, with some rows that do not count.
fn file() -> Vec<u8> {
    let row = |number: u32| match number % 101 {
        7 => format!("c{number},2025-01-01,many,1,1.00,1"),
        _ => format!("c{},2025-01-01,1000,{},{}.25,{}", number % 601, number % 97, number % 13, number % 5),
    };
    (HEADER.to_owned() + &lines(ROWS, row)).into_bytes()
}

impl<'a> Bystander<'a> {
    /// One who needs no token.
    pub(crate) fn of(service: &'a Service) -> Self {
        Self::start(service, String::new(), Box::new(|| Box::new(connect(service))))
    }

    /// One with a token.
    pub(crate) fn with_token(service: &'a Service, token: &str) -> Self {
        let authorization = format!("Authorization: Bearer {token}\r\n");
        Self::start(service, authorization, Box::new(|| Box::new(connect(service))))
    }

    /// One whose connections are made in another way.
    pub(crate) fn over(service: &'a Service, connect: impl Fn() -> Box<dyn Wire> + 'a) -> Self {
        Self::start(service, String::new(), Box::new(connect))
    }

    fn start(service: &'a Service, authorization: String, connect: Box<dyn Fn() -> Box<dyn Wire> + 'a>) -> Self {
        let (file, alone, uploads) = (file(), Vec::new(), Cell::new(0));
        let (peak_memory_bytes, handles) = (0, 0);
        let mut this = Self { service, connect, authorization, file, alone, peak_memory_bytes, handles, uploads };
        this.alone = this.upload(|_| {});
        assert!(this.alone.iter().all(|table| table.len() > 200), "{:?}", this.alone);
        this.note_resources();
        this
    }

    /// Begins an attack, sends the upload while it stands, and checks that the results are those of the same upload alone.
    /// The attack goes on before each piece, whose number it is told.
    #[track_caller]
    pub(crate) fn beside<A>(&self, begin: impl FnOnce() -> A, mut go_on: impl FnMut(&mut A, usize)) -> A {
        let mut attack = begin();
        let tables = self.upload(|piece| go_on(&mut attack, piece));
        for (name, (beside, alone)) in TABLES.iter().zip(tables.iter().zip(&self.alone)) {
            let [beside, alone] = [beside, alone].map(|table| String::from_utf8_lossy(table));
            assert!(beside == alone, "{name} is another one beside the attack: {beside}");
        }
        attack
    }

    /// Sends the upload in pieces, each after the other one has been taken by the system, and gives its tables.
    #[track_caller]
    fn upload(&self, mut before_piece: impl FnMut(usize)) -> Vec<Vec<u8>> {
        let mut wire = (self.connect)();
        self.uploads.set(self.uploads.get() + 1);
        let head = format!("PUT /v1/jobs/bystander-{} HTTP/1.1\r\n", self.uploads.get());
        self.send(&mut *wire, &head, &format!("Content-Length: {}\r\n", self.file.len()));
        for (number, piece) in self.file.chunks(self.file.len().div_ceil(PIECES)).enumerate() {
            before_piece(number);
            wire.write_all(piece).unwrap();
            wire.flush().unwrap();
        }
        let job = Reply::read(&mut *wire).expect(201);
        assert_eq!((&job["state"], &job["stats"]["rows_read"]), (&"succeeded".into(), &ROWS.into()), "{job}");
        let table = |name| {
            self.send(&mut *wire, &format!("GET {} HTTP/1.1\r\n", path(&job, name)), "");
            let table = Reply::read(&mut *wire);
            assert_eq!(table.status, 200, "{table:?}");
            table.body
        };
        TABLES.map(table).to_vec()
    }

    fn send(&self, wire: &mut dyn Wire, request_line: &str, fields: &str) {
        let head = format!("{request_line}Host: test\r\n{}{fields}\r\n", self.authorization);
        wire.write_all(head.as_bytes()).unwrap();
    }
}

fn connect(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(service.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn path<'a>(job: &'a Value, table: &str) -> &'a str {
    job["links"]["results"][table].as_str().unwrap()
}

#[cfg(target_os = "linux")]
impl Bystander<'_> {
    fn note_resources(&mut self) {
        self.peak_memory_bytes = self.service.peak_memory_bytes();
        self.handles = self.handles_now();
    }

    fn handles_now(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.service.process_id())).unwrap().count()
    }

    /// Checks what the server took at its peak, and waits until it has given back its handles.
    #[track_caller]
    fn assert_resources(&self, max_mib: u64) {
        let grown = self.service.peak_memory_bytes().saturating_sub(self.peak_memory_bytes);
        println!("{} MiB more at the peak", grown >> 20);
        assert!(grown < max_mib << 20, "the attack took {} MiB", grown >> 20);
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.handles_now() > self.handles + SPARE_HANDLES {
            let now = self.handles_now();
            assert!(std::time::Instant::now() < deadline, "{} handles before, {now} after", self.handles);
            std::thread::yield_now();
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Bystander<'_> {
    fn note_resources(&mut self) {
        (self.peak_memory_bytes, self.handles) = (0, 0);
    }

    fn assert_resources(&self, _max_mib: u64) {
        println!("skipped: memory and handles are looked up in /proc");
    }
}

impl Bystander<'_> {
    /// Checks, when the attack is over, that the server never had so many MiB more of memory than for the upload alone, that
    /// it gave back its handles, and that nothing went wrong on its side.
    #[track_caller]
    pub(crate) fn assert_unharmed(&self, max_mib: u64) {
        self.assert_not_logged("status=5");
        self.assert_busy(max_mib);
    }

    /// The same where some were told to come again, which is a status of 503.
    #[track_caller]
    pub(crate) fn assert_busy(&self, max_mib: u64) {
        for sign in ["ERROR", "panicked", "status=500"] {
            self.assert_not_logged(sign);
        }
        self.assert_resources(max_mib);
    }

    #[track_caller]
    fn assert_not_logged(&self, sign: &str) {
        let log = self.service.log();
        let line = log.lines().find(|line| line.contains(sign));
        assert!(line.is_none(), "{line:?}");
    }
}
