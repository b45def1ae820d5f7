//! The server is killed at any moment, and every upload still ends in what it would have come to without.
//!
//! `ADTALLY_CRASHES` says how many kills there are in all, instead of about a dozen.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::database::Database;
use crate::expected::Expected;
use crate::files::{Files, assert_as_by_command, complete, complete_in_the_end, file_path, job_path, open};
use crate::harness::{HEADER, gzip, lines, zstandard};
use crate::random::{Random, rounds};
use crate::senders::{csv, row};
use crate::service::{Connection, PATIENCE, Service};

/// How many kills there are in all in the tests of this file, unless the environment says otherwise.
const FEW_KILLS: usize = 14;

/// A server that stores checkpoints as often as their cost allows.
fn start() -> Service {
    Service::start_with(&["--checkpoint-interval", "0s"])
}

/// How much of a file is stored, as its `HEAD` says.
#[track_caller]
fn stored_bytes(service: &Service, file: &str) -> usize {
    let head = service.request("HEAD", file);
    assert_eq!(head.status, 200, "{head:?}");
    head.header("upload-offset").unwrap().parse().unwrap()
}

/// The way in which a sender goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Patch,
    Range,
}

/// A file, and what it comes to.
struct Sample {
    contents: Vec<u8>,
    expected: Expected,
    /// Any number of its bytes can be stored. Compressed files can be cut only in some places.
    is_divisible: bool,
    /// How long the server takes at most from the last byte to the answer, or a little longer.
    finishing: Duration,
}

fn sample(kind: &'static str) -> Sample {
    let members = |compress: fn(&[u8]) -> Vec<u8>| {
        let parts = (0..40).map(|part| lines(500, |number| row(part * 1000 + number)));
        let parts = std::iter::once(HEADER.to_owned()).chain(parts);
        parts.flat_map(|part| compress(part.as_bytes())).collect::<Vec<_>>()
    };
    let contents = match kind {
        "plain" => csv(15_000),
        "quoted" => {
            let rows =
                lines(8_000, |number| format!("\"c,{}\",\"2025\n\"\"01\",\"1{number}\",7,\"2.50\",1", number % 7));
            (HEADER.to_owned() + &rows).into()
        }
        "crlf" => String::from_utf8(csv(15_000)).unwrap().replace('\n', "\r\n").into(),
        "messy" => {
            let bad = |number: u32| format!("c{number},\"x,-1");
            let rows = lines(12_000, |number| if number % 5 == 3 { bad(number) + "\"" } else { row(number) });
            (HEADER.to_owned() + &rows).into()
        }
        "gzip" => members(gzip),
        "zstd" => members(zstandard),
        "campaigns" => {
            let rows =
                lines(100_000, |number| format!("campaign-{number},2025-01-01,{},9,1.25,1", 1000 + number % 977));
            (HEADER.to_owned() + &rows).into()
        }
        other => panic!("{other}"),
    };
    let expected = Expected::of([(kind, contents.as_slice())]);
    let finishing = Duration::from_millis(if kind == "campaigns" { 1000 } else { 30 });
    Sample { contents, expected, is_divisible: !matches!(kind, "gzip" | "zstd"), finishing }
}

/// An upload that goes on after every kill.
struct Upload<'a> {
    service: &'a mut Service,
    sample: &'a Sample,
    random: &'a mut Random,
    way: Way,
    name: String,
    /// The largest offset that an answer has given: these bytes must be stored.
    acknowledged: usize,
    kills: usize,
    /// How many of them left something to go on from.
    kept: usize,
}

/// What an upload does next.
enum Step {
    /// Sends some of what is missing, and awaits the answer.
    Part(usize),
    /// Sends some of what is missing, and kills the server.
    Kill(usize),
    /// Sends all that is missing, and kills the server meanwhile or a little later.
    KillAtTheEnd,
    /// Sends all that is missing, and awaits the answer.
    Finish,
}

impl Upload<'_> {
    /// Sends the file, kills the server at most so many times, and checks what came of it.
    fn survive(mut self, max_kills: usize) -> (usize, usize) {
        let deadline = Instant::now() + PATIENCE + 5 * PATIENCE;
        while !self.has_succeeded() {
            assert!(Instant::now() < deadline, "{} goes on for ever", self.name);
            let step = self.next_step(max_kills);
            self.take(&step);
        }
        (self.kills, self.kept)
    }

    fn job(&self) -> Option<Value> {
        let reply = self.service.get(&format!("/v1/jobs/{}", self.name));
        (reply.status == 200).then(|| reply.json())
    }

    fn has_succeeded(&self) -> bool {
        let Some(job) = self.job() else {
            assert_eq!(self.acknowledged, 0, "{} is gone", self.name);
            return false;
        };
        if job["state"] == "succeeded" {
            self.sample.expected.assert_are_those_of(self.service, &job);
            return true;
        }
        assert!(job["state"] == "interrupted" || job["state"] == "receiving", "{job}");
        false
    }

    /// Where the file is found, once there is one.
    fn file(&self) -> Option<String> {
        let job = self.job()?;
        Some(job["files"][0]["links"]["self"].as_str().unwrap().to_owned())
    }

    /// Asks how much is stored: never less than before.
    #[track_caller]
    fn ask(&mut self, file: &str) -> usize {
        let stored = stored_bytes(self.service, file);
        self.acknowledge(stored);
        stored
    }

    #[track_caller]
    fn acknowledge(&mut self, stored: usize) {
        assert!(stored >= self.acknowledged, "{}: {stored} after {}", self.name, self.acknowledged);
        self.acknowledged = stored;
    }

    fn next_step(&mut self, max_kills: usize) -> Step {
        let missing = self.sample.contents.len() - self.acknowledged;
        let may_kill = self.kills < max_kills;
        match self.random.below(8) {
            0 if missing > 1 => Step::Part(1 + self.random.below(missing - 1)),
            1..=5 if may_kill => Step::Kill(self.random.below(missing)),
            _ if may_kill => Step::KillAtTheEnd,
            _ => Step::Finish,
        }
    }

    fn take(&mut self, step: &Step) {
        let file = self.file();
        let start = file.as_ref().map_or(0, |file| self.ask(file));
        let missing = self.sample.contents.len() - start;
        if missing == 0 {
            // Its answer was lost. It is complete, and its job has ended.
            return;
        }
        let (bytes, is_part) = match step {
            // The first request makes the job, and has all of the file.
            Step::Part(bytes) if file.is_some() => ((*bytes).min(missing), *bytes < missing),
            Step::Kill(bytes) => ((*bytes).min(missing - 1), false),
            _ => (missing, false),
        };
        let mut connection = self.service.connect();
        let length = if is_part { bytes } else { missing };
        let is_open = connection.try_send(self.head(file.as_deref(), start, length, is_part));
        let is_slow = matches!(step, Step::Kill(_)) && !self.random.one_in(4);
        let is_open = is_open && self.send(&mut connection, file.as_deref(), start, bytes, is_slow);
        match step {
            Step::Kill(_) => {
                if is_slow {
                    self.await_checkpoint(start);
                }
                self.kill();
            }
            Step::KillAtTheEnd => {
                pass_up_to(self.sample.finishing, self.random);
                self.kill();
            }
            Step::Part(_) | Step::Finish if is_open => {
                let reply = connection.read_reply();
                if is_part && self.sample.is_divisible && reply.status == 200 {
                    assert_eq!(reply.header("upload-offset"), Some(&*(start + bytes).to_string()));
                }
                if let Some(stored) = reply.header("upload-offset") {
                    self.acknowledge(stored.parse().unwrap());
                }
                let is_well = match reply.status {
                    200 | 201 => true,
                    422 => is_part && !self.sample.is_divisible,
                    // On a busy machine the sender may seem to be silent.
                    408 => file.is_some(),
                    _ => false,
                };
                assert!(is_well, "{reply:?}");
            }
            Step::Part(_) | Step::Finish => {}
        }
    }

    fn head(&self, file: Option<&str>, start: usize, length: usize, is_part: bool) -> String {
        let common = format!("HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n");
        let whole = self.sample.contents.len();
        match (file, self.way) {
            (None, _) => format!("PUT /v1/jobs/{} {common}\r\n", self.name),
            (Some(file), Way::Patch) => {
                let complete = if is_part { "Upload-Complete: ?0\r\n" } else { "" };
                format!("PATCH {file} {common}Upload-Offset: {start}\r\n{complete}\r\n")
            }
            (Some(file), Way::Range) => {
                format!("PUT {file} {common}Content-Range: bytes {start}-{}/{whole}\r\n\r\n", start + length - 1)
            }
        }
    }

    /// Sends bytes in pieces of any size, and asks now and then how much is stored. A slow sender rests on its way. Gives false when the
    /// server takes no more.
    fn send(
        &mut self,
        connection: &mut Connection,
        file: Option<&str>,
        start: usize,
        bytes: usize,
        is_slow: bool,
    ) -> bool {
        let (mut sent, mut rests) = (0, is_slow);
        while sent < bytes {
            let piece = (1 + self.random.below(32 * 1024)).min(bytes - sent);
            if !connection.try_send(&self.sample.contents[start + sent..start + sent + piece]) {
                return false;
            }
            sent += piece;
            if rests && sent >= bytes / 3 {
                rests = false;
                self.await_checkpoint(start);
            }
            if let Some(file) = file
                && self.random.one_in(4)
            {
                self.ask(file);
            }
        }
        true
    }

    /// Waits a little for something more to be stored: there need not be anything.
    fn await_checkpoint(&mut self, start: usize) {
        let give_up = Instant::now() + Duration::from_millis(200);
        let file = loop {
            match self.file() {
                Some(file) => break file,
                None if Instant::now() > give_up => return,
                None => {}
            }
        };
        while self.ask(&file) == start && Instant::now() < give_up {}
    }

    fn kill(&mut self) {
        self.service.crash_and_restart();
        self.kills += 1;
        if let Some(file) = self.file() {
            let stored = self.ask(&file);
            self.kept += usize::from(stored > 0);
        }
    }
}

/// Kills the server during uploads of files of one kind, so many times.
fn kill_during_uploads(kind: &'static str, kills: usize) {
    let sample = sample(kind);
    let mut random = Random::new();
    let mut service = start();
    let (mut all_kills, mut all_kept) = (0, 0);
    for number in 0.. {
        if all_kills >= kills {
            break;
        }
        let way = if random.one_in(2) { Way::Patch } else { Way::Range };
        let upload = Upload {
            service: &mut service,
            sample: &sample,
            random: &mut random,
            way,
            name: format!("{kind}-{number}"),
            acknowledged: 0,
            kills: 0,
            kept: 0,
        };
        let (kills, kept) = upload.survive((kills - all_kills).min(6));
        (all_kills, all_kept) = (all_kills + kills, all_kept + kept);
    }
    // What has succeeded stays.
    let list = |service: &Service| service.get("/v1/jobs?limit=100").expect(200);
    let before = list(&service);
    service.crash_and_restart();
    assert_eq!(list(&service), before);
    println!("{kind}: {} kills, {all_kept} of which left something to go on from", all_kills + 1);
}

/// So many per cent of all kills, but at least one.
fn share(percent: usize) -> usize {
    (rounds("ADTALLY_CRASHES", FEW_KILLS) * percent).div_ceil(100)
}

#[test]
fn uploads_of_plain_rows_survive_kills() {
    kill_during_uploads("plain", share(12));
}

#[test]
fn uploads_of_quoted_rows_survive_kills() {
    kill_during_uploads("quoted", share(10));
}

#[test]
fn uploads_with_windows_line_ends_survive_kills() {
    kill_during_uploads("crlf", share(10));
}

#[test]
fn uploads_with_bad_rows_survive_kills() {
    kill_during_uploads("messy", share(12));
}

#[test]
fn uploads_of_gzip_members_survive_kills() {
    kill_during_uploads("gzip", share(12));
}

#[test]
fn uploads_of_zstandard_frames_survive_kills() {
    kill_during_uploads("zstd", share(12));
}

#[test]
fn uploads_of_a_hundred_thousand_campaigns_survive_kills() {
    kill_during_uploads("campaigns", share(12));
}

/// Waits a random time, in which nothing is waited for: this is where the kill comes.
fn pass_up_to(longest: Duration, random: &mut Random) {
    let micros = usize::try_from(longest.as_micros()).unwrap();
    sleep(Duration::from_micros(random.below(micros) as u64));
}

/// Sends a file of an open job in one request, and goes on after each of at most `kills` kills until it is complete.
fn send_file(service: &mut Service, path: &str, contents: &[u8], kills: usize, random: &mut Random) {
    for number in 0.. {
        let shown = service.get(path);
        let (state, start) = match shown.status {
            404 => (json!("new"), 0),
            _ => (shown.expect(200)["state"].clone(), stored_bytes(service, path)),
        };
        assert_eq!(state == "complete", start == contents.len(), "{shown:?}");
        if state == "complete" {
            return;
        }
        let mut connection = service.connect();
        let length = contents.len() - start;
        let common = format!("HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n");
        let head = match start {
            0 => format!("PUT {path} {common}\r\n"),
            _ => format!("PATCH {path} {common}Upload-Offset: {start}\r\n\r\n"),
        };
        connection.send(head).send(&contents[start..]);
        if number < kills {
            pass_up_to(Duration::from_millis(25), random);
            service.crash_and_restart();
        } else {
            let reply = connection.read_reply();
            assert!(matches!(reply.status, 200 | 201), "{reply:?}");
        }
    }
}

#[test]
fn files_that_are_killed_at_their_end_and_jobs_that_are_killed_while_they_complete_count_once() {
    let mut random = Random::new();
    let mut service = start();
    let kills = share(14);
    let mut files = Files::from([("gzip.csv".to_owned(), gzip(&csv(3000))), ("messy.csv".to_owned(), csv(2000))]);
    files.get_mut("messy.csv").unwrap().extend_from_slice(b"c1,2025-01-01,many,1,1,1\n\"");
    let many = lines(20_000, |number| format!("campaign-{number},2025-01-01,{},9,1.25,1", 1000 + number % 977));
    files.insert("many.csv".to_owned(), (HEADER.to_owned() + &many).into());
    let (mut all_kills, mut completed_by_itself) = (0, 0);
    while all_kills < kills {
        let id = open(&service, &json!({}));
        for (name, contents) in &files {
            let kills = random.below(2);
            send_file(&mut service, &file_path(&id, name), contents, kills, &mut random);
            all_kills += kills;
        }
        let mut connection = service.connect();
        connection.send(format!("POST /v1/jobs/{id}/complete HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"));
        pass_up_to(Duration::from_millis(300), &mut random);
        service.crash_and_restart();
        all_kills += 1;
        let job = service.get(&job_path(&id)).expect(200);
        // Before the request counted, or after. From there on it goes on by itself.
        if job["state"] == "open" {
            assert_eq!(job["links"]["results"], json!({}), "{job}");
            complete_in_the_end(&service, &id);
        } else {
            completed_by_itself += 1;
        }
        let job = service.wait_for_job(&id, |job| job["state"] != "receiving");
        assert_as_by_command(&service, &job, &files);
        assert_eq!(complete(&service, &id).expect(200), job);
    }
    println!("{all_kills} kills; {completed_by_itself} jobs went on completing by themselves");
}

/// A file whose results do not fit into one transaction.
fn large_results() -> Vec<u8> {
    // Digits that do not compress well.
    let id = |number: u32| u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (HEADER.to_owned() + &lines(60_000, |number| format!("{:032x},d,{},1,1,1", id(number), number % 97 + 1))).into()
}

/// Waits until some results are stored whose job does not have them yet. Gives false when they all came at once.
#[track_caller]
fn staged(service: &Service, database: &mut Database, id: &str) -> bool {
    let staged = format!("SELECT COUNT(*) FROM results WHERE job_id = '{id}' AND etag = ''");
    let ended = format!("SELECT COUNT(*) FROM jobs WHERE id = '{id}' AND state = 'succeeded'");
    let deadline = Instant::now() + PATIENCE;
    loop {
        if database.number(&staged) > 0 {
            return true;
        }
        if database.number(&ended) > 0 {
            return false;
        }
        assert!(Instant::now() < deadline, "{:?}", service.get(&job_path(id)));
    }
}

/// Kills a server that has stored some results of a job and not yet the others; so many times.
fn kill_between_results(kills: usize, is_open: bool) {
    let contents = large_results();
    let mut service = start();
    let mut killed = 0;
    let deadline = Instant::now() + 5 * PATIENCE;
    for number in 0.. {
        if killed >= kills {
            break;
        }
        assert!(Instant::now() < deadline, "results are never stored bit by bit");
        let name = format!("large-{number}");
        let files = Files::from([(name.clone(), contents.clone())]);
        let mut connection = service.connect();
        let id = if is_open {
            let id = open(&service, &json!({}));
            service.put(&file_path(&id, &name), &contents).expect(201);
            let head = "HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n";
            connection.send(format!("POST /v1/jobs/{id}/complete {head}"));
            id
        } else {
            let head = format!("HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", contents.len());
            connection.send(format!("PUT /v1/jobs/{name} {head}")).send(&contents);
            service.wait_for_job(&name, |_| true)["id"].as_str().unwrap().to_owned()
        };
        let mut database = Database::of(&service);
        if !staged(&service, &mut database, &id) {
            continue;
        }
        service.crash_and_restart();
        killed += 1;
        let job = service.get(&job_path(&id)).expect(200);
        if job["state"] == "interrupted" {
            assert!(!is_open, "{job}");
            let left = format!("SELECT COUNT(*) FROM result_pieces WHERE job_id = '{id}'");
            assert_eq!(database.number(&left), 0, "results are left");
            let file = file_path(&id, &name);
            let start = stored_bytes(&service, &file);
            let fields = [("upload-offset", &*start.to_string())];
            service.send("PATCH", &file, &fields, &contents[start..]).expect(200);
        }
        let job = service.wait_for_job(&id, |job| job["state"] != "receiving");
        assert_as_by_command(&service, &job, &files);
    }
}

#[test]
fn a_kill_between_two_parts_of_the_results_leaves_the_upload_to_go_on() {
    kill_between_results(share(7), false);
}

#[test]
fn a_kill_between_two_parts_of_the_results_of_an_open_job_leaves_them_to_be_made_again() {
    kill_between_results(share(7), true);
}
