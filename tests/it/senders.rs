//! Senders that a client library does not have: forms, chunks, uploads that take their time, curl.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::harness::{HEADER, lines};
use crate::service::{Connection, PATIENCE, Reply, Service};

/// The media type of what [`form`] makes.
pub(crate) const FORM_TYPE: &str = "multipart/form-data; boundary=frontier";

/// A form: of each part the parameters of its disposition, and its contents.
pub(crate) fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (parameters, contents) in parts {
        let head = format!("--frontier\r\nContent-Disposition: form-data; {parameters}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(contents);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--frontier--\r\n");
    body
}

/// Bytes as a chunk of a chunked body.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// What ends a chunked body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The head of a chunked upload.
pub(crate) fn chunked_head(path: &str, more_fields: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n{more_fields}\r\n")
}

/// A file of so many rows for the campaigns `c0` to `c9`.
pub(crate) fn csv(rows: u32) -> Vec<u8> {
    (HEADER.to_owned() + &lines(rows, row)).into_bytes()
}

/// One of its rows.
pub(crate) fn row(number: u32) -> String {
    format!("c{},2025-01-01,1000,{},2.50,{}", number % 10, 10 + number % 10, number % 3)
}

/// An upload in chunks that is held open; it has no end before its sender says so.
pub(crate) struct OpenUpload {
    pub(crate) connection: Connection,
    pub(crate) id: String,
}

impl OpenUpload {
    /// Begins an upload whose name no other job has, and waits until the server knows of it.
    #[track_caller]
    pub(crate) fn begin(service: &Service, name: &str) -> Self {
        Self::begin_with(service, name, "")
    }

    /// The same with more header fields, each with its line end.
    #[track_caller]
    pub(crate) fn begin_with(service: &Service, name: &str, more_fields: &str) -> Self {
        let mut connection = service.connect();
        connection.send(chunked_head(&format!("/v1/jobs/{name}"), more_fields)).send(chunk(HEADER.as_bytes()));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = service.get(&format!("/v1/jobs/{name}"));
            if reply.status == 200 {
                return Self { connection, id: reply.json()["id"].as_str().unwrap().to_owned() };
            }
            assert!(Instant::now() < deadline, "{reply:?}");
        }
    }

    /// Sends more.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.connection.send(chunk(bytes));
        self
    }

    /// Sends rows until the server shows some of them, and gives the job as it was shown then.
    #[track_caller]
    pub(crate) fn send_until_shown(&mut self, service: &Service) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let job = service.get(&format!("/v1/jobs/{}", self.id)).expect(200);
            if job["progress"]["rows_read"].as_u64() > Some(0) && job["top_ctr"] != serde_json::json!([]) {
                return job;
            }
            assert!(Instant::now() < deadline, "nothing is shown: {job}");
            self.send(format!("{}\n", row(7)).as_bytes());
        }
    }

    /// Ends the body, and gives the answer.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Reply {
        self.connection.send(LAST_CHUNK);
        self.connection.read_reply()
    }
}

/// Runs curl, which says the status behind the body. None when there is no curl: the test is skipped.
pub(crate) fn curl(arguments: &[&str], input: Stdio) -> Option<Curl> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--write-out", "\n%{http_code}"]);
    match command.args(arguments).stdin(input).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let (body, status) = text.rsplit_once('\n').unwrap_or_default();
            Some(Curl {
                code: output.status.code(),
                status: status.parse().unwrap_or_default(),
                body: body.to_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        }
        Err(error) => {
            println!("skipped: curl cannot be run: {error}");
            None
        }
    }
}

/// What curl came back with.
#[derive(Debug)]
pub(crate) struct Curl {
    pub(crate) code: Option<i32>,
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) stderr: String,
}
