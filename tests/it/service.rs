//! The real server in a process of its own, on a port of its own, and a client for it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use ureq::http::Response;
use ureq::{Agent, Body, SendBody};

use crate::harness::{Running, adtally};

/// Nothing in a test takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A running server. It is killed, and what it stored is removed, when the test ends.
pub(crate) struct Service {
    process: Option<Running>,
    /// What it writes to its standard output after the first line.
    output: Option<BufReader<ChildStdout>>,
    directory: TempDir,
    arguments: Vec<String>,
    /// What a shell does before it becomes the server.
    prelude: Option<&'static str>,
    /// `http` or `https`
    scheme: String,
    address: String,
    agent: Agent,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Service {
    /// A server as it is without any options but a port and directories of its own.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with further options.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let mut service = Self::prepare(arguments);
        service.launch();
        service
    }

    /// The same, not yet started.
    pub(crate) fn prepare(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        let agent = config.new_agent();
        let (process, output, prelude) = (None, None, None);
        Self { process, output, directory, arguments, prelude, scheme: String::new(), address: String::new(), agent }
    }

    /// Adds options to one that has not been started yet.
    pub(crate) fn add_arguments<'a>(&mut self, arguments: impl IntoIterator<Item = &'a str>) {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
    }

    /// A server that a shell sets limits to.
    pub(crate) fn start_in_shell(prelude: &'static str) -> Self {
        let mut service = Self::prepare(&[]);
        service.launch_in_shell(prelude);
        service
    }

    /// Starts it with a shell that becomes the server.
    pub(crate) fn launch_in_shell(&mut self, prelude: &'static str) {
        self.prelude = Some(prelude);
        self.launch();
    }

    /// Leaves its further options away from the next start on.
    pub(crate) fn drop_arguments(&mut self) {
        self.arguments.clear();
    }

    /// Starts it.
    pub(crate) fn launch(&mut self) {
        let mut log = File::options();
        let log = log.create(true).append(true).open(self.path("log")).unwrap();
        let mut process = self.command().stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        self.output = Some(BufReader::new(process.stdout.take().unwrap()));
        self.process = Some(Running(process));
        let line = self.read_line();
        let address = line.strip_prefix("listening on ").and_then(|url| url.split_once("://"));
        let (scheme, address) = address.unwrap_or_else(|| panic!("the server said {line:?}, and {}", self.log()));
        (self.scheme, self.address) = (scheme.to_owned(), address.to_owned());
    }

    /// The next line of its standard output.
    pub(crate) fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.output.as_mut().unwrap().read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// What it has logged since its first start.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Waits until it has logged this so many times.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.log().matches(text).count() < times {
            assert!(Instant::now() < deadline, "{text:?} is not logged {times} times: {}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The most bytes of memory that it has had at once.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    /// The bytes of memory that it has now.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident_memory_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    #[cfg(target_os = "linux")]
    fn memory_bytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id())).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        memory.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The command that starts this server.
    pub(crate) fn command(&self) -> std::process::Command {
        let mut command = match self.prelude {
            None => adtally(),
            Some(prelude) => {
                let mut shell = std::process::Command::new("sh");
                shell.arg("-c").arg(format!("{prelude}; exec \"$0\" \"$@\"")).arg(adtally().get_program());
                shell
            }
        };
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--allowed-host", "test", "--data-dir"])
            .arg(self.path("data"));
        command.arg("--results-dir").arg(self.path("results")).args(&self.arguments);
        // Tests that wait for something ask for it again and again.
        command.env("ADTALLY_MAX_REQUEST_RATE", "0");
        command
    }

    /// A place in the server's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `HOST:PORT`
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// The server's process.
    pub(crate) fn process(&mut self) -> &mut Child {
        &mut self.process.as_mut().unwrap().0
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.as_ref().unwrap().0.id()
    }

    /// Kills the server without warning.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Kills the server without warning, and starts it again with what it has stored.
    pub(crate) fn crash_and_restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// A request without a body.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str) -> Reply {
        self.send(method, path, &[], b"")
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.request("GET", path)
    }

    /// A file, as `curl -T` sends it.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: &[u8]) -> Reply {
        self.send("PUT", path, &[], body)
    }

    /// A request with header fields and a body of known length.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let has_body = !body.is_empty() || matches!(method, "PUT" | "POST");
        let response = if has_body {
            self.agent.run(request.body(body).unwrap())
        } else {
            self.agent.run(request.body(()).unwrap())
        };
        Reply::of(response.unwrap_or_else(|error| panic!("{method} {path}: {error}")))
    }

    /// A file of unknown length, in chunks, as `curl -T -` sends it.
    #[track_caller]
    pub(crate) fn put_chunked(&self, path: &str, body: &mut dyn Read) -> Reply {
        let request = ureq::http::Request::put(self.url(path)).body(SendBody::from_reader(body)).unwrap();
        Reply::of(self.agent.run(request).unwrap())
    }

    /// Polls a job until it is as wanted.
    #[track_caller]
    pub(crate) fn wait_for_job(&self, job: &str, is_wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.send("GET", &format!("/v1/jobs/{job}"), &[("prefer", "wait=1")], b"");
            if reply.status == 200 && is_wanted(&reply.json()) {
                return reply.json();
            }
            assert!(Instant::now() < deadline, "job {job} is still {}", reply.text());
        }
    }

    /// A connection for bytes that no well-behaved client sends.
    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Connection(stream)
    }
}

impl Reply {
    fn of(response: Response<Body>) -> Self {
        let (parts, mut body) = response.into_parts();
        let text = |value: &ureq::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: body.with_config().limit(u64::MAX).read_to_vec().unwrap(),
        }
    }

    /// Reads an answer whose length its head tells; an interim one has none.
    #[track_caller]
    pub(crate) fn read(stream: &mut dyn Read) -> Self {
        let head = read_until(stream, "\r\n\r\n");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let field = |(name, value): (&str, &str)| (name.to_ascii_lowercase(), value.to_owned());
        let headers = lines.filter_map(|line| line.split_once(": ")).map(field).collect();
        let mut reply = Self { status, headers, body: Vec::new() };
        if let Some(length) = reply.header("content-length") {
            reply.body.resize(length.parse().unwrap(), 0);
            stream.read_exact(&mut reply.body).unwrap();
        }
        reply
    }

    /// The first field of this name, in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All fields of this name, in lower case.
    pub(crate) fn headers_named(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the status, and gives the JSON.
    #[track_caller]
    pub(crate) fn assert_ready(&self) {
        assert_eq!(self.status, 200, "{self:?}");
    }

    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Checks that the answer is this problem, as every problem is to be, and that its detail says all of this.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str, says: &[&str]) -> serde_json::Value {
        let problem = self.expect(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{problem}");
        assert_eq!(problem["type"], format!("urn:adtally:problem:{code}"), "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{problem}");
        assert!(problem["title"].is_string(), "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        for part in says {
            assert!(detail.contains(part), "{part:?} is missing: {problem}");
        }
        problem
    }
}

/// What comes up to and including this text.
#[track_caller]
fn read_until(stream: &mut dyn Read, text: &str) -> String {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(text.as_bytes()) {
        match stream.read(&mut byte) {
            Ok(1) => answer.push(byte[0]),
            end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&answer)),
        }
    }
    String::from_utf8(answer).unwrap()
}

/// A connection for bytes that no well-behaved client sends.
pub(crate) struct Connection(TcpStream);

impl Clone for Connection {
    /// The same connection, for another thread.
    fn clone(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }
}

impl Connection {
    /// Sends these bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Everything the server sends until it closes the connection; nothing more is sent.
    pub(crate) fn read_to_end(mut self) -> String {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What the server sends up to and including this text.
    #[track_caller]
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        read_until(&mut self.0, text)
    }

    /// Sends these bytes as far as the server takes them; false when it hung up before the last.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).is_ok()
    }

    /// An answer whose length its head tells; an interim one has none. The connection stays.
    #[track_caller]
    pub(crate) fn read_reply(&mut self) -> Reply {
        Reply::read(&mut self.0)
    }

    /// Says that nothing more will come, and still listens.
    pub(crate) fn half_close(&mut self) -> &mut Self {
        // The server may have closed it already.
        let _ = self.0.shutdown(std::net::Shutdown::Write);
        self
    }

    /// Everything the server sends until the connection ends, however it ends.
    pub(crate) fn read_rest(mut self) -> String {
        let mut answer = Vec::new();
        drop(self.0.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Everything the server sends until it closes the connection of its own accord.
    #[track_caller]
    pub(crate) fn read_until_closed(mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        let end = self.0.read_to_end(&mut answer);
        end.unwrap_or_else(|error| panic!("the connection is not closed: {error}, after {answer:?}"));
        answer
    }

    /// Vanishes without a word.
    pub(crate) fn vanish(self) {
        drop(self.0);
    }

    /// Vanishes by a reset, whatever the server has sent or not.
    pub(crate) fn abort(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Vanishes in a way that the server learns of by a reset, not by an end: something that it sent is there, unread.
    pub(crate) fn reset(self) {
        assert_eq!(self.0.peek(&mut [0]).unwrap(), 1);
        drop(self.0);
    }
}
