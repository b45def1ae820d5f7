//! Two at once: of those who write one file, finish one job, or end it, one wins, and every byte counts once.
//!
//! `ADTALLY_RACES` says how many rounds each race has, instead of a few.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use adtally::engine::{DEFAULT_MAX_REJECTS_BYTES, Limits};
use adtally::ingest::PipelineOptions;
use adtally::jobs::store::{ChangedBy, Checkpoint, NewBlocks, OpenedFile, ResumedFile, Writer};
use adtally::jobs::{
    Access, Begun, BodyEnd, Details, Failure, FailureKind, FileFormat, FileOpened, FileOptions, FileState, FileUpload,
    Job, JobError, JobFile, JobId, Jobs, JobsConfig, NewJob, OpenJobLimits, Scope, State, Store, TenantJobs,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::spawn;
use tokio::task::yield_now;

use crate::random::{Random, rounds};
use crate::senders::csv;
use crate::service::Service;

/// How many rounds a race has, unless the environment says otherwise.
const FEW_ROUNDS: usize = 30;

/// Data rows of the files here.
const ROWS: u32 = 200;

/// The jobs of one test, with a database and a results directory of their own.
struct Place {
    jobs: TenantJobs,
    url: String,
    /// `campaigns.csv` of one file.
    expected: Vec<u8>,
    random: Random,
    directory: TempDir,
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = Store::file_url(&directory.path().join("adtally.db"));
        std::fs::create_dir(directory.path().join("results")).unwrap();
        let jobs = Jobs::open(config(&url, directory.path())).await.unwrap().of(Access::tenant(""));
        let mut place = Self { jobs, url, expected: Vec::new(), random: Random::new(), directory };
        let mut upload = place.begin("whole").await;
        assert!(upload.read(&mut body(&csv(ROWS)), BodyEnd::EndsFile).await.unwrap());
        let job = upload.finish().await.unwrap();
        place.expected = place.campaigns(job.id).await;
        place
    }

    /// Begins a job of one file.
    async fn begin(&self, name: &str) -> FileUpload {
        let new = NewJob { name: Some(name.to_owned()), ..NewJob::default() };
        match self.jobs.begin(new, options(name)).await.unwrap() {
            Begun::New(upload) => *upload,
            Begun::Before(job) => panic!("{job:?}"),
        }
    }

    /// Begins a job of one file, of which this many bytes are stored.
    async fn interrupted(&self, name: &str, stored: usize) -> JobId {
        let mut upload = self.begin(name).await;
        assert!(!upload.read(&mut body(&csv(ROWS)[..stored]), BodyEnd::LeavesOpen).await.unwrap());
        assert_eq!(upload.pause().await.unwrap().durable_offset, stored as u64);
        self.jobs.get(name).await.unwrap().id
    }

    /// Opens a job for several files.
    async fn open(&self, name: &str) -> JobId {
        let new = NewJob { name: Some(name.to_owned()), ..NewJob::default() };
        match self.jobs.open_job(new).await.unwrap() {
            Begun::New(job) => job.id,
            Begun::Before(job) => panic!("{job:?}"),
        }
    }

    async fn campaigns(&self, id: JobId) -> Vec<u8> {
        let (_, result) = self.jobs.result(&id.to_string(), "campaigns.csv").await.unwrap();
        let pieces = self.jobs.read_result(id, "campaigns.csv", 0, result.length);
        pieces.try_fold(Vec::new(), async |text, piece| Ok([text, piece.to_vec()].concat())).await.unwrap()
    }

    /// Checks that a job has succeeded, and has counted one file once.
    async fn assert_counted_once(&self, id: JobId) {
        let job = self.jobs.get(&id.to_string()).await.unwrap();
        assert_eq!(job.state, State::Succeeded, "{job:?}");
        assert_eq!(job.details.progress.bytes_received, csv(ROWS).len() as u64);
        assert_eq!(job.details.stats.as_ref().unwrap().rows_read, u64::from(ROWS));
        assert_eq!(self.campaigns(id).await, self.expected);
    }

    /// Checks that nothing of a job is left to be published or gone on from.
    async fn assert_nothing_is_left(&self, id: JobId) {
        let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
        for (table, column) in [("results", "job_id"), ("result_pieces", "job_id"), ("files", "job_id")] {
            let query = format!("SELECT COUNT(*) FROM {table} WHERE {column} = '{id}'");
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap();
            assert_eq!(rows, 0, "{table}");
        }
        assert!(!self.directory.path().join("results").join(id.to_string()).exists());
    }
}

fn config(url: &str, directory: &Path) -> JobsConfig {
    let PipelineOptions { max_text_bytes, max_decompression_ratio, .. } = PipelineOptions::default();
    JobsConfig {
        database_url: url.to_owned(),
        results_dir: Some(directory.join("results")),
        parser_threads: NonZeroUsize::new(2).unwrap(),
        memory_budget_bytes: 1 << 30,
        max_concurrent_uploads: 16,
        max_uploads_per_tenant: 16,
        limits: Limits::default(),
        max_rejects_bytes: DEFAULT_MAX_REJECTS_BYTES,
        max_text_bytes,
        max_decompression_ratio,
        keep_finished: KEEP,
        keep_open: KEEP,
        open_jobs: OpenJobLimits { max_open_jobs: u64::MAX, max_open_jobs_per_tenant: u64::MAX },
        max_stored_bytes: u64::MAX,
        max_stored_bytes_per_tenant: None,
        disk_reserve_bytes: 0,
        max_files: 9,
        checkpoint_interval: Duration::ZERO,
    }
}

const KEEP: SignedDuration = SignedDuration::from_hours(1);

fn options(name: &str) -> FileOptions {
    let length = Some(csv(ROWS).len() as u64);
    FileOptions { name: name.to_owned(), format: FileFormat::default(), length, sha256: None, metadata: None }
}

/// A body that comes in two pieces.
fn body(bytes: &[u8]) -> impl Stream<Item = Result<Bytes, Failure>> + Unpin + Send + use<> {
    let (left, right) = bytes.split_at(bytes.len() / 2);
    let pieces = [left, right].map(|piece| Ok(Bytes::copy_from_slice(piece)));
    stream::iter(pieces)
        .then(async |piece| {
            yield_now().await;
            piece
        })
        .boxed()
}

/// Goes on with a file to its end.
async fn go_on(jobs: TenantJobs, id: JobId, name: String, stored: usize) -> Result<Arc<Job>, JobError> {
    match jobs.resume_file(id, &name, stored as u64, None).await? {
        FileOpened::Upload(upload) => end(*upload, &csv(ROWS)[stored..]).await,
        FileOpened::Complete(file) => panic!("{file:?}"),
    }
}

/// Reads the rest of a job's only file, and finishes the job.
async fn end(mut upload: FileUpload, rest: &[u8]) -> Result<Arc<Job>, JobError> {
    match upload.read(&mut body(rest), BodyEnd::EndsFile).await {
        Ok(true) => upload.finish().await,
        Ok(false) => panic!("its end has come"),
        Err(failure) => Err(upload.fail(failure).await),
    }
}

/// Sends a whole file of an open job.
async fn add_file(jobs: TenantJobs, id: JobId, name: &'static str) -> Result<JobFile, JobError> {
    match jobs.open_file(id, options(name)).await? {
        FileOpened::Upload(mut upload) => match upload.read(&mut body(&csv(ROWS)), BodyEnd::EndsFile).await {
            Ok(true) => upload.complete().await,
            Ok(false) => panic!("its end has come"),
            Err(failure) => Err(upload.fail(failure).await),
        },
        FileOpened::Complete(file) => Ok(*file),
    }
}

/// True for what the sender of a file is told that another one has.
fn is_lost_race(error: &JobError) -> bool {
    match error {
        JobError::OtherOffset { .. } | JobError::Ended { .. } | JobError::Finishing(_) => true,
        JobError::Failed { failure, .. } | JobError::FileFailed { failure, .. } => {
            matches!(failure.kind, FailureKind::FileDeleted | FailureKind::UploadCancelled)
        }
        _ => false,
    }
}

/// Runs an asynchronous test on two threads.
fn run(test: impl Future<Output = ()>) {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}

#[test]
fn of_two_who_go_on_at_the_same_place_one_finishes_the_job() {
    run(async {
        let mut place = Place::new().await;
        for round in 0..rounds("ADTALLY_RACES", FEW_ROUNDS) {
            let name = format!("race-{round}");
            let stored = place.random.below(csv(ROWS).len() - 1);
            let id = place.interrupted(&name, stored).await;
            let senders = [0, 1].map(|_| spawn(go_on(place.jobs.clone(), id, name.clone(), stored)));
            let mut won = 0;
            for sender in senders {
                match sender.await.unwrap() {
                    Ok(job) => {
                        won += 1;
                        assert_eq!(job.id, id);
                    }
                    Err(error) => assert!(is_lost_race(&error), "{error:?}"),
                }
            }
            assert_eq!(won, 1, "round {round}");
            place.assert_counted_once(id).await;
        }
    });
}

#[test]
fn a_sender_that_comes_back_after_another_has_the_file_changes_nothing() {
    run(async {
        let mut place = Place::new().await;
        let whole = csv(ROWS);
        for round in 0..rounds("ADTALLY_RACES", FEW_ROUNDS) {
            let name = format!("late-{round}");
            let stored = place.random.below(whole.len() - 2);
            let id = place.interrupted(&name, stored).await;
            let resume = async || match place.jobs.resume_file(id, &name, stored as u64, None).await.unwrap() {
                FileOpened::Upload(upload) => *upload,
                FileOpened::Complete(file) => panic!("{file:?}"),
            };
            let (mut late, other) = (resume().await, resume().await);
            // It reads on, and stores what it has, ends its body, or goes to the end of the file: before or after the other.
            let way = place.random.below(3);
            let rest = whole[stored..].to_vec();
            let late = spawn(async move {
                let ended = match way {
                    0 => late.read(&mut body(&rest[..1]), BodyEnd::LeavesOpen).await,
                    1 => return end(late, &rest).await.map(drop),
                    _ => Err(FailureKind::UploadIncomplete.because("it broke off")),
                };
                match ended {
                    Ok(_) => late.pause().await.map(drop),
                    Err(failure) => Err(late.fail(failure).await),
                }
            });
            let other = spawn({
                let rest = whole[stored..].to_vec();
                async move { end(other, &rest).await }
            });
            late.await.unwrap().unwrap_err();
            assert_eq!(other.await.unwrap().unwrap().id, id, "round {round}");
            place.assert_counted_once(id).await;
        }
    });
}

#[test]
fn what_is_shown_after_a_race_for_a_file_is_what_is_stored() {
    run(async {
        let mut place = Place::new().await;
        let whole = csv(ROWS);
        let id = place.open("shown").await;
        // The job stays on the board.
        let _watching = place.jobs.subscribe(id).await.unwrap().unwrap();
        for _ in 0..rounds("ADTALLY_RACES", FEW_ROUNDS) {
            let stored = place.random.below(whole.len() - 1);
            let FileOpened::Upload(mut upload) = place.jobs.open_file(id, options("a.csv")).await.unwrap() else {
                panic!("it is complete");
            };
            assert!(!upload.read(&mut body(&whole[..stored]), BodyEnd::LeavesOpen).await.unwrap());
            upload.pause().await.unwrap();
            let senders = [0, 1, 2].map(|_| {
                let (jobs, rest) = (place.jobs.clone(), whole[stored..].to_vec());
                spawn(async move {
                    let FileOpened::Upload(mut upload) = jobs.resume_file(id, "a.csv", stored as u64, None).await?
                    else {
                        panic!("it is complete");
                    };
                    match upload.read(&mut body(&rest), BodyEnd::EndsFile).await {
                        Ok(_) => upload.complete().await,
                        Err(failure) => Err(upload.fail(failure).await),
                    }
                })
            });
            let mut won = 0;
            for sender in senders {
                match sender.await.unwrap() {
                    Ok(file) => won += u64::from(file.offset == whole.len() as u64),
                    Err(error) => assert!(is_lost_race(&error), "{error:?}"),
                }
            }
            assert_eq!(won, 1);
            let job = place.jobs.get(&id.to_string()).await.unwrap();
            let file = job.file("a.csv").unwrap();
            let length = whole.len() as u64;
            assert_eq!(
                (file.state, file.offset, file.durable_offset),
                (FileState::Complete, length, length),
                "{file:?}"
            );
            assert_eq!(job.details.progress.rows_read, u64::from(ROWS));
            place.jobs.delete_file(id, "a.csv").await.unwrap();
        }
    });
}

#[test]
fn a_file_is_shown_as_its_last_sender_left_it_also_once_an_earlier_one_has_ended() {
    run(async {
        let place = Place::new().await;
        let whole = csv(ROWS);
        let id = place.open("taken-over").await;
        // The job stays on the board.
        let _watching = place.jobs.subscribe(id).await.unwrap().unwrap();
        let FileOpened::Upload(mut first) = place.jobs.open_file(id, options("a.csv")).await.unwrap() else {
            panic!("it is complete");
        };
        let FileOpened::Upload(mut last) = place.jobs.resume_file(id, "a.csv", 0, None).await.unwrap() else {
            panic!("it is complete");
        };
        assert!(last.read(&mut body(&whole), BodyEnd::EndsFile).await.unwrap());
        last.complete().await.unwrap();
        let shown = async || place.jobs.get(&id.to_string()).await.unwrap();
        let complete = shown().await;
        let length = whole.len() as u64;
        let file = complete.file("a.csv").unwrap();
        assert_eq!((file.state, file.offset, file.durable_offset), (FileState::Complete, length, length), "{file:?}");
        // Whatever the earlier one still does.
        let ended = match first.read(&mut body(&whole[..50]), BodyEnd::LeavesOpen).await {
            Ok(_) => first.pause().await.unwrap_err(),
            Err(failure) => first.fail(failure).await,
        };
        assert!(is_lost_race(&ended), "{ended:?}");
        assert_eq!(shown().await.file("a.csv"), complete.file("a.csv"));
    });
}

#[test]
fn a_job_that_is_completed_by_several_requests_is_merged_once() {
    run(async {
        let place = Place::new().await;
        for round in 0..rounds("ADTALLY_RACES", FEW_ROUNDS) {
            let id = place.open(&format!("twice-{round}")).await;
            add_file(place.jobs.clone(), id, "one.csv").await.unwrap();
            let completions = [0, 1, 2].map(|_| {
                let jobs = place.jobs.clone();
                spawn(async move { jobs.complete(&id.to_string()).await })
            });
            let mut done = 0;
            for completion in completions {
                match completion.await.unwrap() {
                    Ok(job) => {
                        done += 1;
                        assert_eq!(job.state, State::Succeeded);
                    }
                    Err(error) => assert!(matches!(error, JobError::Finishing(_)), "{error:?}"),
                }
            }
            assert!(done > 0, "round {round}");
            place.assert_counted_once(id).await;
        }
    });
}

#[test]
fn the_two_last_files_of_a_job_and_its_completion_at_the_same_moment_count_once() {
    run(async {
        let place = Place::new().await;
        for round in 0..rounds("ADTALLY_RACES", FEW_ROUNDS) {
            let id = place.open(&format!("last-{round}")).await;
            let files = ["one.csv", "two.csv"].map(|name| spawn(add_file(place.jobs.clone(), id, name)));
            let jobs = place.jobs.clone();
            let completion = spawn(async move {
                loop {
                    match jobs.complete(&id.to_string()).await {
                        Err(JobError::NoFiles(_) | JobError::FilesIncomplete { .. }) => yield_now().await,
                        completed => return completed,
                    }
                }
            });
            let mut added = 0;
            for file in files {
                match file.await.unwrap() {
                    Ok(file) => {
                        added += 1;
                        assert_eq!(file.state, FileState::Complete);
                    }
                    // The other one was the last that came in time.
                    Err(error) => assert!(is_lost_race(&error), "{error:?}"),
                }
            }
            let job = completion.await.unwrap().unwrap();
            assert_eq!(job.details.files.len(), added, "round {round}");
            assert_eq!(job.details.stats.as_ref().unwrap().rows_read, added as u64 * u64::from(ROWS));
        }
    });
}

/// Who ends a job against one who finishes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Cancel,
    Delete,
}

/// Ends jobs while they finish: of one file, or open ones that are completed.
fn race_with_the_end(ending: Ending, is_open: bool) {
    run(async {
        let mut place = Place::new().await;
        let (mut finished, mut ended) = (0, 0);
        for round in 0..rounds("ADTALLY_RACES", FEW_ROUNDS) {
            let name = format!("end-{round}");
            let jobs = place.jobs.clone();
            let (id, finish) = if is_open {
                let id = place.open(&name).await;
                add_file(jobs.clone(), id, "one.csv").await.unwrap();
                (id, spawn(async move { jobs.complete(&id.to_string()).await }))
            } else {
                let mut upload = place.begin(&name).await;
                assert!(upload.read(&mut body(&csv(ROWS)), BodyEnd::EndsFile).await.unwrap());
                (place.jobs.get(&name).await.unwrap().id, spawn(upload.finish()))
            };
            // Nothing is waited for: the other one comes at a random moment.
            thread::sleep(Duration::from_micros(place.random.below(5000) as u64));
            let other = match ending {
                Ending::Cancel => place.jobs.cancel(&id.to_string()).await.map(drop),
                Ending::Delete => place.jobs.delete(&id.to_string()).await,
            };
            let finish = finish.await.unwrap();
            if let Err(error) = &finish {
                assert!(is_lost_race(error) || matches!(error, JobError::NotFound(_)), "{error:?}");
            }
            if let Err(error) = &other {
                assert!(matches!(error, JobError::Ended { state: State::Succeeded, .. }), "{error:?}");
            }
            finished += usize::from(finish.is_ok());
            ended += usize::from(other.is_ok());
            let shown = place.jobs.get(&id.to_string()).await;
            match (ending, finish.is_ok()) {
                (Ending::Cancel, true) => {
                    assert!(other.is_err(), "it was cancelled and has succeeded");
                    place.assert_counted_once(id).await;
                }
                (Ending::Cancel, false) => {
                    assert_eq!(shown.unwrap().state, State::Cancelled, "round {round}: {other:?}, {finish:?}");
                    place.assert_nothing_is_left(id).await;
                }
                (Ending::Delete, _) => {
                    assert!(other.is_ok() && matches!(shown, Err(JobError::NotFound(_))), "round {round}: {shown:?}");
                    place.assert_nothing_is_left(id).await;
                }
            }
        }
        println!("{finished} finished, {ended} ended before or after");
    });
}

#[test]
fn a_cancel_and_the_end_of_an_upload_exclude_each_other() {
    race_with_the_end(Ending::Cancel, false);
}

#[test]
fn a_cancel_and_a_completion_exclude_each_other() {
    race_with_the_end(Ending::Cancel, true);
}

#[test]
fn a_deletion_at_the_end_of_an_upload_leaves_nothing() {
    race_with_the_end(Ending::Delete, false);
}

#[test]
fn a_deletion_during_a_completion_leaves_nothing() {
    race_with_the_end(Ending::Delete, true);
}

/// A job with one file that is being received, and its writer.
async fn received(store: &Store) -> (Job, Writer) {
    let job = Job {
        id: JobId::new(),
        tenant: String::new(),
        name: "race".into(),
        state: State::Open,
        closes_itself: false,
        created_at: Timestamp::now(),
        finished_at: None,
        expires_at: None,
        details: Details::default(),
    };
    store.insert(&job, None).await.unwrap();
    let file = JobFile::begin("a.csv", FileFormat::default(), Some(20));
    match store.open_file(&Scope::All, job.id, &file, ChangedBy::Others, 9, KEEP).await.unwrap() {
        OpenedFile::Writer(writer) => (job, writer),
        other => panic!("{other:?}"),
    }
}

#[test]
fn between_processes_a_writer_and_the_one_that_replaces_it_never_both_store_something() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let url = Store::file_url(&directory.path().join("shared.db"));
        let (one, other) = (Arc::new(Store::open(&url).await.unwrap()), Arc::new(Store::open(&url).await.unwrap()));
        let (mut stored, mut replaced) = (0, 0);
        for round in 0..rounds("ADTALLY_RACES", FEW_ROUNDS) {
            let (job, first) = received(&one).await;
            let checkpoint = Checkpoint {
                number: 0,
                offset: 10,
                pieces: vec![vec![1], vec![2]],
                reject_blocks: NewBlocks::default(),
                file: None,
            };
            let complete =
                JobFile { state: FileState::Complete, ..JobFile::begin("a.csv", FileFormat::default(), Some(20)) };
            let writing = spawn({
                let (one, complete) = (Arc::clone(&one), complete.clone());
                async move {
                    // Every other round it is at its end.
                    if round % 2 == 0 {
                        one.save_checkpoint(first, checkpoint).await.unwrap()
                    } else {
                        one.complete_file(job.id, first, &complete, (0, vec![1]), KEEP).await.unwrap()
                    }
                }
            });
            let resumed = other.resume_file(&Scope::All, job.id, "a.csv", 0, KEEP).await.unwrap();
            let has_stored = writing.await.unwrap();
            match (has_stored, resumed) {
                (true, ResumedFile::OtherOffset(10)) if round % 2 == 0 => stored += 1,
                (true, ResumedFile::Complete(_)) if round % 2 == 1 => stored += 1,
                (false, ResumedFile::Writer(file, None)) => {
                    replaced += 1;
                    assert_eq!(file.writer.epoch, first.epoch + 1);
                    // The first one comes back late, again and again.
                    let late = Checkpoint {
                        number: 1,
                        offset: 20,
                        pieces: vec![vec![1]],
                        reject_blocks: NewBlocks::default(),
                        file: None,
                    };
                    let broken_off = JobFile { state: FileState::Waiting, ..complete.clone() };
                    assert!(!one.save_checkpoint(first, late.clone()).await.unwrap());
                    assert!(!one.complete_file(job.id, first, &complete, (1, vec![1]), KEEP).await.unwrap());
                    let released = one.release_file(job.id, first, &broken_off, Some(late), KEEP).await.unwrap();
                    assert_eq!(released, None);
                    let files = one.files(job.id).await.unwrap();
                    assert_eq!(files[0].writer, file.writer);
                    assert_eq!((files[0].file.state, files[0].file.durable_offset), (FileState::Receiving, 0));
                }
                unexpected => panic!("round {round}: {unexpected:?}"),
            }
        }
        println!("{stored} stored first, {replaced} replaced first");
    });
}

#[test]
fn of_two_requests_that_go_on_at_the_same_place_one_is_answered_with_the_job() {
    let service = Service::start_with(&["--checkpoint-interval", "0s"]);
    let whole = csv(20_000);
    for round in 0..rounds("ADTALLY_RACES", FEW_ROUNDS).div_ceil(5) {
        let name = format!("race-{round}");
        let mut connection = service.connect();
        let head = format!("PUT /v1/jobs/{name} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", whole.len());
        connection.send(head).send(&whole[..1000]).half_close();
        connection.read_rest();
        let job = service.get(&format!("/v1/jobs/{name}")).expect(200);
        let file = job["links"]["resume"].as_str().unwrap();
        let start = Barrier::new(2);
        let replies = thread::scope(|scope| {
            let senders = [0, 1].map(|_| {
                scope.spawn(|| {
                    start.wait();
                    service.send("PATCH", file, &[("upload-offset", "1000")], &whole[1000..])
                })
            });
            senders.map(|sender| sender.join().unwrap())
        });
        let won: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
        assert_eq!(won.len(), 1, "{replies:?}");
        assert!(replies.iter().all(|reply| matches!(reply.status, 200 | 409)), "{replies:?}");
        let finished = won[0].json();
        assert_eq!((&finished["id"], &finished["stats"]["rows_read"]), (&job["id"], &json!(20_000)));
        assert_eq!(service.get(&format!("/v1/jobs/{name}")).expect(200), finished);
    }
}
