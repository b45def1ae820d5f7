//! What a store has to do, whatever database is behind it.

use std::sync::Arc;

use adtally::jobs::store::{
    ChangedBy, Checkpoint, EndedBy, FinishingBegun, Inserted, JobClosed, NewBlocks, OpenedFile, Output, ResumedFile,
    Writer,
};
use adtally::jobs::{
    Details, Failure, FailureKind, FileFormat, FileState, Job, JobFile, JobFilter, JobId, JobOptions, Leader,
    OpenJobLimits, ResultFile, Scope, State, Store, StoreError,
};
use jiff::{SignedDuration, Timestamp};
use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// An empty database of one test.
pub(crate) struct Database {
    url: String,
    _directory: TempDir,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // A path with characters that mean something in an address.
        let path = directory.path().join("a b%20#?.db");
        Self { url: Store::file_url(&path), _directory: directory }
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url).await.unwrap()
    }
}

/// Runs every part of the contract with databases of one kind.
macro_rules! contract {
    ($kind:ident: $($part:ident)*) => {
        mod $kind {
            $(
                #[test]
                fn $part() {
                    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                    runtime.unwrap().block_on(super::$part(&super::Database::$kind()));
                }
            )*
        }
    };
}

contract!(sqlite:
    what_is_inserted_is_there_also_for_the_next_process
    a_name_means_the_newest_job
    a_key_belongs_to_one_job
    of_many_with_the_same_key_at_once_one_is_inserted
    each_tenant_has_keys_of_its_own
    no_more_jobs_are_open_than_may_be
    a_migration_that_was_not_recorded_is_repeated
    a_database_that_takes_no_writes_is_read_and_says_so
    jobs_are_listed_newest_first_by_what_is_asked
    a_job_ends_once
    results_come_with_the_success_of_their_job
    results_that_break_off_leave_nothing
    a_job_that_has_ended_takes_no_results
    others_read_while_results_are_written
    others_write_while_results_are_made
    a_finisher_that_died_leaves_no_staged_results
    a_finisher_that_another_has_replaced_stores_nothing
    a_removed_job_takes_its_results_with_it
    expired_jobs_are_removed_and_remembered
    jobs_left_behind_fail
    texts_of_all_kinds_are_kept
    a_writer_whose_file_was_deleted_or_reopened_changes_nothing
    totals_of_files_that_are_gone_are_freed
    blocks_of_rejects_are_stored_once
    blocks_of_an_earlier_writer_are_not_used
    files_are_in_the_order_of_their_completion
    files_of_a_job_that_is_finished_do_not_change
    a_job_that_closes_itself_begins_and_succeeds_with_its_file
    only_its_upload_changes_the_files_of_a_job_that_closes_itself
);

/// Now, as exact as a store keeps it.
fn now() -> Timestamp {
    Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap()
}

pub(crate) fn receiving(name: &str) -> Job {
    Job {
        id: JobId::new(),
        tenant: String::new(),
        name: name.into(),
        state: State::Receiving,
        closes_itself: true,
        created_at: now(),
        finished_at: None,
        expires_at: None,
        details: Details::default(),
    }
}

/// The same job after its end.
fn ended(job: &Job, state: State) -> Job {
    let mut job = job.clone();
    job.state = state;
    job.finished_at = Some(now());
    job.expires_at = Some(now() + SignedDuration::from_hours(1));
    if state != State::Succeeded {
        job.details.error = Some(FailureKind::UploadIncomplete.because("it broke off"));
    }
    job
}

async fn insert(store: &Store, name: &str) -> Job {
    let job = receiving(name);
    assert_eq!(store.insert(&job, None).await.unwrap(), Inserted::Done);
    job
}

#[expect(clippy::unnecessary_wraps, reason = "what a producer sends")]
fn piece(name: &str, start: u64, length: u64) -> Result<Output, String> {
    Ok(Output::Piece { name: name.into(), start, length, body: vec![7; 10] })
}

#[expect(clippy::unnecessary_wraps, reason = "what a producer sends")]
fn end(name: &str, length: u64) -> Result<Output, String> {
    Ok(Output::End(ResultFile { name: name.into(), length, etag: "0af".into() }))
}

/// A producer that gives these outputs and goes.
fn producer(outputs: Vec<Result<Output, String>>) -> mpsc::Receiver<Result<Output, String>> {
    let (sender, receiver) = mpsc::channel(outputs.len().max(1));
    for output in outputs {
        sender.try_send(output).unwrap();
    }
    receiver
}

/// Two results, one in two pieces.
fn outputs() -> Vec<Result<Output, String>> {
    vec![
        piece("a.csv", 0, 100),
        piece("a.csv", 100, 50),
        end("a.csv", 150),
        piece("b.json", 0, 5),
        end("b.json", 5),
        Ok(Output::Complete),
    ]
}

/// A result of more pieces than one transaction may hold.
fn many_outputs() -> Vec<Result<Output, String>> {
    let pieces = (0..40).map(|number| piece("many.csv", number * 10, 10));
    pieces.chain([end("many.csv", 400), Ok(Output::Complete)]).collect()
}

pub(crate) async fn succeed(store: &Store, job: &Job) -> Job {
    let job = ended(job, State::Succeeded);
    assert!(store.succeed(&job, EndedBy::Request, producer(outputs())).await.unwrap());
    job
}

fn ids(jobs: &[Job]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

async fn what_is_inserted_is_there_also_for_the_next_process(database: &Database) {
    let store = database.open().await;
    store.check().await.unwrap();
    let mut job = receiving("ad_data.csv");
    job.expires_at = Some(now());
    job.details.options = JobOptions { top: 25, has_header: false, ..JobOptions::default() };
    job.details.progress.bytes_expected = Some(u64::MAX);
    job.details.top_ctr = Arc::from([Leader {
        campaign_id: "\u{fffd}\n\"".into(),
        total_impressions: u128::MAX,
        total_clicks: 0,
        total_spend: "0.10".into(),
        total_conversions: 1.into(),
        ctr: "0.0000".into(),
        cpa: None,
    }]);
    assert_eq!(store.insert(&job, Some("key")).await.unwrap(), Inserted::Done);
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap().as_ref(), Some(&job));
    let done = succeed(&store, &job).await;
    store.close().await;
    let store = database.open().await;
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap().as_ref(), Some(&done));
    assert_eq!(store.job_by_key("", "key").await.unwrap().as_ref(), Some(&done));
    assert!(store.result(&Scope::All, job.id, "a.csv").await.unwrap().is_some());
    assert_eq!(store.job(&Scope::All, JobId::new()).await.unwrap(), None);
    assert_eq!(store.job_by_key("", "other").await.unwrap(), None);
}

async fn a_name_means_the_newest_job(database: &Database) {
    let store = database.open().await;
    insert(&store, "same").await;
    let newest = insert(&store, "same").await;
    insert(&store, "Same").await;
    insert(&store, "same ").await;
    assert_eq!(store.newest_named(&Scope::All, "same").await.unwrap(), Some(newest.clone()));
    assert_eq!(store.newest_named(&Scope::All, "sam%").await.unwrap(), None);
    // Another end makes no other age.
    store.end(&ended(&newest, State::Failed), false, EndedBy::Request).await.unwrap();
    assert_eq!(store.newest_named(&Scope::All, "same").await.unwrap().unwrap().id, newest.id);
}

async fn a_key_belongs_to_one_job(database: &Database) {
    let store = database.open().await;
    let (first, second) = (receiving("one"), receiving("two"));
    assert_eq!(store.insert(&first, Some("key")).await.unwrap(), Inserted::Done);
    assert_eq!(store.insert(&second, Some("key")).await.unwrap(), Inserted::KeyTaken);
    assert_eq!(store.job(&Scope::All, second.id).await.unwrap(), None);
    // Any number of jobs have none.
    insert(&store, "three").await;
    insert(&store, "four").await;
    // A key stays with a job that ended for good, and leaves one that came to nothing.
    store.end(&ended(&first, State::Failed), true, EndedBy::Request).await.unwrap();
    assert_eq!(store.job_by_key("", "key").await.unwrap(), None);
    assert_eq!(store.insert(&second, Some("key")).await.unwrap(), Inserted::Done);
    store.end(&ended(&second, State::Failed), false, EndedBy::Request).await.unwrap();
    assert_eq!(store.insert(&receiving("five"), Some("key")).await.unwrap(), Inserted::KeyTaken);
    assert_eq!(store.job_by_key("", "key").await.unwrap().map(|job| job.id), Some(second.id));
    store.delete(&Scope::All, second.id).await.unwrap();
    assert_eq!(store.insert(&receiving("six"), Some("key")).await.unwrap(), Inserted::Done);
}

async fn of_many_with_the_same_key_at_once_one_is_inserted(database: &Database) {
    let (one, other) = (database.open().await, database.open().await);
    let attempts = (0..20).map(|number| {
        let store = if number % 2 == 0 { &one } else { &other };
        async move { store.insert(&receiving("race"), Some("key")).await.unwrap() }
    });
    let inserted = futures_util::future::join_all(attempts).await;
    assert_eq!(inserted.iter().filter(|inserted| **inserted == Inserted::Done).count(), 1);
    let all = JobFilter { limit: 100, ..JobFilter::default() };
    assert_eq!(one.list(&Scope::All, &all).await.unwrap().jobs.len(), 1);
}

async fn each_tenant_has_keys_of_its_own(database: &Database) {
    let store = database.open().await;
    let (nobodys, theirs) = (receiving("job"), Job { tenant: "they".into(), ..receiving("job") });
    for job in [&nobodys, &theirs] {
        assert_eq!(store.insert(job, Some("key")).await.unwrap(), Inserted::Done);
        assert_eq!(store.job_by_key(&job.tenant, "key").await.unwrap().as_ref(), Some(job));
    }
    let another = Job { id: JobId::new(), ..theirs.clone() };
    assert_eq!(store.insert(&another, Some("key")).await.unwrap(), Inserted::KeyTaken);
    assert_eq!(store.job_by_key("others", "key").await.unwrap(), None);
}

async fn no_more_jobs_are_open_than_may_be(database: &Database) {
    let (one, other) = (database.open().await, database.open().await);
    let limits = OpenJobLimits { max_open_jobs: 7, max_open_jobs_per_tenant: 5 };
    let job =
        |tenant: &str| Job { state: State::Open, closes_itself: false, tenant: tenant.into(), ..receiving("open") };
    let attempts = (0..20).map(|number| {
        let (store, job) = (if number % 2 == 0 { &one } else { &other }, job("we"));
        async move { store.insert_open(&job, None, None, limits).await.unwrap() }
    });
    let inserted = futures_util::future::join_all(attempts).await;
    assert_eq!(inserted.iter().filter(|inserted| **inserted == Inserted::Done).count(), 5);
    assert_eq!(inserted.iter().filter(|inserted| **inserted == Inserted::TooManyOpenOfTenant).count(), 15);
    for expected in [Inserted::Done, Inserted::Done, Inserted::TooManyOpen] {
        assert_eq!(one.insert_open(&job("they"), None, None, limits).await.unwrap(), expected);
    }
    let all = JobFilter { limit: 100, ..JobFilter::default() };
    assert_eq!(one.list(&Scope::All, &all).await.unwrap().jobs.len(), 7);
}

/// The process can die between the end of a migration and its record.
async fn a_database_that_takes_no_writes_is_read_and_says_so(database: &Database) {
    let store = database.open().await;
    let one = insert(&store, "one").await;
    let read_only = Store::open(&format!("{}?mode=ro", database.url)).await.unwrap();
    assert_eq!(read_only.job(&Scope::All, one.id).await.unwrap(), Some(one));
    let refused = read_only.insert(&receiving("two"), None).await;
    assert!(matches!(refused, Err(StoreError::ReadOnly(_))), "{refused:?}");
}

async fn a_migration_that_was_not_recorded_is_repeated(database: &Database) {
    let store = database.open().await;
    let job = insert(&store, "kept").await;
    let job = succeed(&store, &job).await;
    let open = insert_open(&store).await;
    open_file(&store, &open, "a").await;
    store.close().await;
    let mut connection = sqlx::AnyConnection::connect(&database.url).await.unwrap();
    let forgotten = connection.execute("DELETE FROM _sqlx_migrations WHERE version = 6").await.unwrap();
    assert_eq!(forgotten.rows_affected(), 1);
    connection.close().await.unwrap();
    let store = database.open().await;
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap(), Some(job.clone()));
    assert!(store.result(&Scope::All, job.id, "a.csv").await.unwrap().is_some());
    assert_eq!(store.files(open.id).await.unwrap().len(), 1);
    // What belongs to a job goes with it as before.
    assert!(store.delete(&Scope::All, job.id).await.unwrap() && store.delete(&Scope::All, open.id).await.unwrap());
    assert_eq!(store.result(&Scope::All, job.id, "a.csv").await.unwrap(), None);
    assert_eq!(store.files(open.id).await.unwrap(), []);
}

async fn jobs_are_listed_newest_first_by_what_is_asked(database: &Database) {
    let store = database.open().await;
    let mut jobs = Vec::new();
    for number in 0..6 {
        let job = insert(&store, if number % 2 == 0 { "even" } else { "odd" }).await;
        let job = if number < 3 { succeed(&store, &job).await } else { job };
        jobs.insert(0, job);
    }
    let list = async |state: Option<State>, name: Option<&str>, before: Option<JobId>, limit| {
        let filter = JobFilter { state, name: name.map(str::to_owned), search: None, before, limit };
        store.list(&Scope::All, &filter).await.unwrap().jobs
    };
    assert_eq!(list(None, None, None, 100).await, jobs);
    assert_eq!(list(None, None, None, 2).await, jobs[..2]);
    assert_eq!(list(None, None, Some(jobs[1].id), 2).await, jobs[2..4]);
    assert_eq!(list(None, None, Some(jobs[5].id), 2).await, []);
    assert_eq!(list(Some(State::Succeeded), None, None, 100).await, jobs[3..]);
    assert_eq!(list(Some(State::Succeeded), None, Some(jobs[3].id), 1).await, jobs[4..5]);
    assert_eq!(list(Some(State::Cancelled), None, None, 100).await, []);
    assert_eq!(ids(&list(None, Some("odd"), None, 100).await), [jobs[0].id, jobs[2].id, jobs[4].id]);
    assert_eq!(ids(&list(None, Some("odd"), Some(jobs[0].id), 1).await), [jobs[2].id]);
    assert_eq!(ids(&list(Some(State::Receiving), Some("odd"), None, 100).await), [jobs[0].id, jobs[2].id]);
    assert_eq!(ids(&list(Some(State::Receiving), Some("odd"), Some(jobs[0].id), 9).await), [jobs[2].id]);
    assert_eq!(list(None, Some("nobody"), None, 100).await, []);
}

async fn a_job_ends_once(database: &Database) {
    let store = database.open().await;
    let job = insert(&store, "job").await;
    let failed = ended(&job, State::Failed);
    store.end(&failed, false, EndedBy::Request).await.unwrap();
    store.end(&ended(&job, State::Cancelled), true, EndedBy::Request).await.unwrap();
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap(), Some(failed));
    // One that is not there does not come by its end.
    let unknown = receiving("unknown");
    store.end(&ended(&unknown, State::Failed), false, EndedBy::Request).await.unwrap();
    assert_eq!(store.job(&Scope::All, unknown.id).await.unwrap(), None);
}

async fn results_come_with_the_success_of_their_job(database: &Database) {
    let store = database.open().await;
    let job = insert(&store, "job").await;
    let other = insert(&store, "other").await;
    assert_eq!(store.result(&Scope::All, job.id, "a.csv").await.unwrap(), None);
    let done = succeed(&store, &job).await;
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap(), Some(done));
    let file = |name: &str, length| Some(ResultFile { name: name.into(), length, etag: "0af".into() });
    assert_eq!(store.result(&Scope::All, job.id, "a.csv").await.unwrap(), file("a.csv", 150));
    assert_eq!(store.result(&Scope::All, job.id, "b.json").await.unwrap(), file("b.json", 5));
    for name in ["A.CSV", "c.csv", "", "a.csv "] {
        assert_eq!(store.result(&Scope::All, job.id, name).await.unwrap(), None, "{name}");
        assert_eq!(store.piece(&Scope::All, job.id, name, 0).await.unwrap(), None, "{name}");
    }
    for (position, expected) in [
        (0, Some((0, 100))),
        (99, Some((0, 100))),
        (100, Some((100, 50))),
        (149, Some((100, 50))),
        (150, None),
        (1 << 60, None),
    ] {
        let piece = store.piece(&Scope::All, job.id, "a.csv", position).await.unwrap();
        assert_eq!(piece.as_ref().map(|piece| (piece.start, piece.length)), expected, "{position}");
        assert!(piece.is_none_or(|piece| piece.body == [7; 10]));
    }
    assert_eq!(store.piece(&Scope::All, other.id, "a.csv", 0).await.unwrap(), None);
    assert_eq!(store.result(&Scope::All, other.id, "a.csv").await.unwrap(), None);
}

async fn results_that_break_off_leave_nothing(database: &Database) {
    let store = database.open().await;
    let job = insert(&store, "job").await;
    let success = ended(&job, State::Succeeded);
    let incomplete: Vec<_> = outputs().into_iter().take(5).collect();
    let failed = outputs().into_iter().take(3).chain([Err("out of paper".to_owned())]).collect();
    // The same piece twice, and a piece of a result that never ends.
    let twice = vec![piece("a.csv", 0, 10), piece("a.csv", 0, 10), end("a.csv", 10), Ok(Output::Complete)];
    let endless = vec![piece("a.csv", 0, 10), Ok(Output::Complete)];
    for (outputs, says) in
        [(vec![], "broke off"), (incomplete, "broke off"), (failed, "out of paper"), (twice, ""), (endless, "")]
    {
        let error: StoreError = store.succeed(&success, EndedBy::Request, producer(outputs)).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(store.job(&Scope::All, job.id).await.unwrap().as_ref(), Some(&job), "{error}");
        assert_eq!(store.result(&Scope::All, job.id, "a.csv").await.unwrap(), None, "{error}");
        assert_eq!(store.piece(&Scope::All, job.id, "a.csv", 0).await.unwrap(), None, "{error}");
    }
    // And the store goes on.
    succeed(&store, &job).await;
}

async fn a_job_that_has_ended_takes_no_results(database: &Database) {
    let store = database.open().await;
    let job = insert(&store, "job").await;
    store.end(&ended(&job, State::Cancelled), true, EndedBy::Request).await.unwrap();
    let removed = insert(&store, "removed").await;
    store.delete(&Scope::All, removed.id).await.unwrap();
    let done = succeed(&store, &insert(&store, "done").await).await;
    for job in [&job, &removed, &done] {
        for outputs in [outputs(), many_outputs()] {
            assert!(!store.succeed(&ended(job, State::Succeeded), EndedBy::Request, producer(outputs)).await.unwrap());
        }
        assert_eq!(store.piece(&Scope::All, job.id, "many.csv", 0).await.unwrap(), None, "staged pieces are left");
    }
    assert!(store.piece(&Scope::All, done.id, "a.csv", 0).await.unwrap().is_some());
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap().unwrap().state, State::Cancelled);
    assert_eq!(store.job(&Scope::All, removed.id).await.unwrap(), None);
    assert_eq!(store.job(&Scope::All, done.id).await.unwrap(), Some(done));
}

async fn others_read_while_results_are_written(database: &Database) {
    let store = database.open().await;
    let job = insert(&store, "job").await;
    let success = ended(&job, State::Succeeded);
    let (sender, receiver) = mpsc::channel(1);
    let reading = async {
        for output in outputs() {
            // What has not been committed is not seen.
            assert_eq!(store.job(&Scope::All, job.id).await.unwrap().as_ref(), Some(&job));
            assert_eq!(store.result(&Scope::All, job.id, "a.csv").await.unwrap(), None);
            assert_eq!(
                store.list(&Scope::All, &JobFilter { limit: 9, ..JobFilter::default() }).await.unwrap().jobs.len(),
                1
            );
            sender.send(output).await.unwrap();
        }
    };
    let (stored, ()) = tokio::join!(store.succeed(&success, EndedBy::Request, receiver), reading);
    assert!(stored.unwrap());
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap(), Some(success));
}

async fn others_write_while_results_are_made(database: &Database) {
    let store = database.open().await;
    let job = insert(&store, "large").await;
    let success = ended(&job, State::Succeeded);
    let (sender, receiver) = mpsc::channel(1);
    let others = async {
        for output in many_outputs() {
            // Another job comes and succeeds before the next piece of this one is made.
            let other = insert(&store, "small").await;
            succeed(&store, &other).await;
            assert_eq!(
                store.result(&Scope::All, job.id, "many.csv").await.unwrap(),
                None,
                "results are not there before the end"
            );
            sender.send(output).await.unwrap();
        }
    };
    let both = async { tokio::join!(store.succeed(&success, EndedBy::Request, receiver), others) };
    let (stored, ()) = tokio::time::timeout(crate::service::PATIENCE, both).await.expect("others wait for the results");
    assert!(stored.unwrap());
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap(), Some(success));
    let result = store.result(&Scope::All, job.id, "many.csv").await.unwrap().unwrap();
    assert_eq!((result.length, result.etag.as_str()), (400, "0af"));
    assert_eq!(store.piece(&Scope::All, job.id, "many.csv", 399).await.unwrap().map(|piece| piece.start), Some(390));
}

async fn a_finisher_that_died_leaves_no_staged_results(database: &Database) {
    let store = database.open().await;
    let job = insert(&store, "large").await;
    let (sender, receiver) = mpsc::channel(1);
    let success = ended(&job, State::Succeeded);
    let mut finisher = Box::pin(store.succeed(&success, EndedBy::Request, receiver));
    let dies_at_the_end = async {
        for output in many_outputs().into_iter().take(40) {
            sender.send(output).await.unwrap();
        }
    };
    tokio::select! {
        _ = &mut finisher => panic!("it ended without its last piece"),
        () = dies_at_the_end => {}
    }
    drop(finisher);
    assert!(store.piece(&Scope::All, job.id, "many.csv", 0).await.unwrap().is_some(), "nothing was staged");
    store.close().await;
    let store = database.open().await;
    let failure = FailureKind::ServerStopped.because("it fell");
    assert_eq!(
        store.fail_receiving(&failure, SignedDuration::from_hours(1), SignedDuration::from_hours(1)).await.unwrap(),
        1
    );
    assert_eq!(store.piece(&Scope::All, job.id, "many.csv", 0).await.unwrap(), None, "staged pieces are left");
}

async fn a_finisher_that_another_has_replaced_stores_nothing(database: &Database) {
    let (store, another) = (database.open().await, database.open().await);
    let job = insert_open(&store).await;
    let writer = open_file(&store, &job, "a").await;
    assert!(complete_file(&store, &job, writer, "a").await);
    let begun = store.begin_finishing(&Scope::All, job.id, ChangedBy::Others).await.unwrap();
    let FinishingBegun::Files(replaced) = begun else { panic!("{begun:?}") };
    let success = ended(&job, State::Succeeded);
    let (sender, receiver) = mpsc::channel(1);
    let mut late = Box::pin(store.succeed(&success, EndedBy::Finisher(replaced.epoch), receiver));
    let mut pieces = many_outputs().into_iter();
    let staging = async {
        for output in pieces.by_ref().take(40) {
            sender.send(output).await.unwrap();
        }
    };
    tokio::select! {
        _ = &mut late => panic!("it ended without its last piece"),
        () = staging => {}
    }
    assert!(another.piece(&Scope::All, job.id, "many.csv", 0).await.unwrap().is_some(), "nothing was staged");
    let finishing = another.resume_finishing(job.id).await.unwrap().unwrap();
    assert_eq!((finishing.files.len(), finishing.epoch), (1, replaced.epoch + 1));
    let by = EndedBy::Finisher(finishing.epoch);
    assert!(another.succeed(&success, by, producer(many_outputs())).await.unwrap());
    // The first one goes on as if nothing had happened.
    let rest = async {
        for output in pieces {
            // It may have stopped reading.
            drop(sender.send(output).await);
        }
        drop(sender);
    };
    assert!(!tokio::join!(late, rest).0.unwrap());
    assert_eq!(another.job(&Scope::All, job.id).await.unwrap().as_ref(), Some(&success));
    for start in [0, 10, 390] {
        let piece = another.piece(&Scope::All, job.id, "many.csv", start).await.unwrap();
        assert_eq!(piece.map(|piece| piece.start), Some(start));
    }
    assert_eq!(another.resume_finishing(job.id).await.unwrap(), None);
}

async fn a_removed_job_takes_its_results_with_it(database: &Database) {
    let store = database.open().await;
    let (job, other) = (insert(&store, "job").await, insert(&store, "other").await);
    succeed(&store, &job).await;
    succeed(&store, &other).await;
    assert!(store.delete(&Scope::All, job.id).await.unwrap());
    assert!(!store.delete(&Scope::All, job.id).await.unwrap());
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap(), None);
    assert_eq!(store.result(&Scope::All, job.id, "a.csv").await.unwrap(), None);
    for position in [0, 100] {
        assert_eq!(store.piece(&Scope::All, job.id, "a.csv", position).await.unwrap(), None);
    }
    assert!(!store.has_expired(&Scope::All, job.id).await.unwrap(), "to be removed is not to expire");
    assert!(store.piece(&Scope::All, other.id, "a.csv", 0).await.unwrap().is_some());
}

async fn expired_jobs_are_removed_and_remembered(database: &Database) {
    let store = database.open().await;
    let time = now();
    let mut jobs = Vec::new();
    // More than are removed at once.
    for number in 0..250 {
        let job = insert(&store, "job").await;
        let mut end = ended(&job, State::Failed);
        end.expires_at = Some(time + SignedDuration::from_secs(number));
        store.end(&end, false, EndedBy::Request).await.unwrap();
        jobs.push(end);
    }
    let running = insert(&store, "running").await;
    let mut done = ended(&insert(&store, "done").await, State::Succeeded);
    done.expires_at = Some(time);
    assert!(store.succeed(&done, EndedBy::Request, producer(outputs())).await.unwrap());
    assert_eq!(store.expire(time - SignedDuration::from_secs(1)).await.unwrap(), []);
    let until = time + SignedDuration::from_secs(200);
    let mut expired = Vec::new();
    loop {
        let some = store.expire(until).await.unwrap();
        if some.is_empty() {
            break;
        }
        expired.extend(some);
    }
    expired.sort();
    let mut expected: Vec<_> = jobs[..=200].iter().map(|job| job.id).chain([done.id]).collect();
    expected.sort();
    assert_eq!(expired, expected);
    for id in expired {
        assert!(store.has_expired(&Scope::All, id).await.unwrap());
        assert_eq!(store.job(&Scope::All, id).await.unwrap(), None);
    }
    assert_eq!(store.piece(&Scope::All, done.id, "a.csv", 0).await.unwrap(), None);
    assert!(!store.has_expired(&Scope::All, running.id).await.unwrap());
    assert_eq!(store.job(&Scope::All, jobs[201].id).await.unwrap().as_ref(), Some(&jobs[201]));
    // They are remembered for a while, not for ever.
    store.expire(time + SignedDuration::from_hours(24 * 400)).await.unwrap();
    assert!(!store.has_expired(&Scope::All, done.id).await.unwrap());
    assert!(store.job(&Scope::All, running.id).await.unwrap().is_some(), "what is received does not expire");
}

async fn jobs_left_behind_fail(database: &Database) {
    let store = database.open().await;
    let (one, two) = (receiving("one"), receiving("two"));
    store.insert(&one, Some("key")).await.unwrap();
    store.insert(&two, None).await.unwrap();
    let done = succeed(&store, &insert(&store, "done").await).await;
    let cancelled = ended(&insert(&store, "cancelled").await, State::Cancelled);
    store.end(&cancelled, false, EndedBy::Request).await.unwrap();
    let failure: Failure = FailureKind::ServerStopped.because("it fell");
    let keep = SignedDuration::from_hours(1);
    assert_eq!(store.fail_receiving(&failure, keep, keep).await.unwrap(), 2);
    assert_eq!(store.fail_receiving(&failure, keep, keep).await.unwrap(), 0);
    for job in [&one, &two] {
        let job = store.job(&Scope::All, job.id).await.unwrap().unwrap();
        assert_eq!((job.state, job.details.error), (State::Failed, Some(failure.clone())));
        assert_eq!(job.expires_at, job.finished_at.map(|finished_at| finished_at + keep));
    }
    assert_eq!(store.job_by_key("", "key").await.unwrap(), None, "it may be tried again");
    assert_eq!(store.job(&Scope::All, done.id).await.unwrap(), Some(done));
    assert_eq!(store.job(&Scope::All, cancelled.id).await.unwrap(), Some(cancelled));
}

async fn texts_of_all_kinds_are_kept(database: &Database) {
    let store = database.open().await;
    let longest = "\u{10ffff}".repeat(63);
    for name in ["'; DROP TABLE jobs; --", "caf\u{e9}", "cafe\u{301}", "\u{1f4c8} %_\\\"", " ", "NULL", &longest] {
        let mut job = receiving(name);
        job.details.error = Some(FailureKind::Internal.because(format!("{name}\n\u{7f}")));
        assert_eq!(store.insert(&job, Some(name)).await.unwrap(), Inserted::Done);
        assert_eq!(store.newest_named(&Scope::All, name).await.unwrap().as_ref(), Some(&job), "{name}");
        assert_eq!(store.job_by_key("", name).await.unwrap().as_ref(), Some(&job), "{name}");
        let filter = JobFilter { name: Some(name.into()), limit: 9, ..JobFilter::default() };
        assert_eq!(store.list(&Scope::All, &filter).await.unwrap().jobs, [job], "{name}");
    }
}

/// How long open jobs are kept.
pub(crate) const KEEP: SignedDuration = SignedDuration::from_hours(1);

async fn insert_open(store: &Store) -> Job {
    let job = Job { state: State::Open, closes_itself: false, ..receiving("open") };
    assert_eq!(store.insert(&job, None).await.unwrap(), Inserted::Done);
    job
}

#[track_caller]
fn writer(opened: OpenedFile) -> Writer {
    match opened {
        OpenedFile::Writer(writer) => writer,
        other => panic!("{other:?}"),
    }
}

async fn open_file(store: &Store, job: &Job, name: &str) -> Writer {
    writer(
        store
            .open_file(
                &Scope::All,
                job.id,
                &JobFile::begin(name, FileFormat::default(), None),
                ChangedBy::Others,
                9,
                KEEP,
            )
            .await
            .unwrap(),
    )
}

fn in_state(name: &str, state: FileState) -> JobFile {
    JobFile { state, ..JobFile::begin(name, FileFormat::default(), Some(7)) }
}

async fn complete_file(store: &Store, job: &Job, writer: Writer, name: &str) -> bool {
    let file = in_state(name, FileState::Complete);
    store.complete_file(job.id, writer, &file, (0, vec![7]), KEEP).await.unwrap()
}

async fn a_writer_whose_file_was_deleted_or_reopened_changes_nothing(database: &Database) {
    let store = database.open().await;
    let job = insert_open(&store).await;
    let first = open_file(&store, &job, "a.csv").await;
    let file = JobFile::begin("a.csv", FileFormat::default(), None);
    assert_eq!(
        store.open_file(&Scope::All, job.id, &file, ChangedBy::Others, 9, KEEP).await.unwrap(),
        OpenedFile::BeingReceived
    );
    let waiting = in_state("a.csv", FileState::Waiting);
    assert_eq!(store.release_file(job.id, first, &waiting, None, KEEP).await.unwrap(), Some(0));
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap().unwrap().state, State::Open);
    let gzip = FileFormat { coding: Some(adtally::ingest::Coding::Gzip), ..FileFormat::default() };
    let other = JobFile::begin("a.csv", gzip, None);
    let opened = store.open_file(&Scope::All, job.id, &other, ChangedBy::Others, 9, KEEP).await.unwrap();
    assert_eq!(opened, OpenedFile::OtherFormat);
    let second = open_file(&store, &job, "a.csv").await;
    assert_eq!((second.file, second.epoch), (first.file, first.epoch + 1));
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap().unwrap().state, State::Receiving);
    let assert_fenced = async |writer: Writer| {
        let before = (store.job(&Scope::All, job.id).await.unwrap(), store.files(job.id).await.unwrap());
        assert!(!complete_file(&store, &job, writer, "a.csv").await);
        assert_eq!(store.release_file(job.id, writer, &waiting, None, KEEP).await.unwrap(), None);
        assert_eq!((store.job(&Scope::All, job.id).await.unwrap(), store.files(job.id).await.unwrap()), before);
        assert_eq!(store.totals(writer, 0).await.unwrap(), None);
    };
    assert_fenced(first).await;
    assert_eq!(store.delete_file(&Scope::All, job.id, "a.csv", KEEP).await.unwrap(), Ok(true));
    assert_eq!(store.delete_file(&Scope::All, job.id, "a.csv", KEEP).await.unwrap(), Ok(false));
    assert_fenced(second).await;
    // A new file of the same name is another one.
    let third = open_file(&store, &job, "a.csv").await;
    assert_ne!(third.file, second.file);
    assert_fenced(second).await;
    assert!(complete_file(&store, &job, third, "a.csv").await);
    assert!(!complete_file(&store, &job, third, "a.csv").await, "it is complete once");
    assert_eq!(store.release_file(job.id, third, &waiting, None, KEEP).await.unwrap(), None);
    assert_eq!(store.totals(third, 0).await.unwrap(), Some(vec![7]));
    let complete = store.open_file(&Scope::All, job.id, &file, ChangedBy::Others, 9, KEEP).await.unwrap();
    assert_eq!(complete, OpenedFile::Complete(Box::new(in_state("a.csv", FileState::Complete))));
    // The end of the job ends every writer.
    let last = open_file(&store, &job, "b.csv").await;
    assert!(store.end(&ended(&job, State::Cancelled), true, EndedBy::Request).await.unwrap());
    assert!(!complete_file(&store, &job, last, "b.csv").await);
    assert_eq!(store.release_file(job.id, last, &waiting, None, KEEP).await.unwrap(), None);
    let closed = OpenedFile::Closed(JobClosed::Ended(State::Cancelled));
    assert_eq!(store.open_file(&Scope::All, job.id, &file, ChangedBy::Others, 9, KEEP).await.unwrap(), closed);
}

async fn totals_of_files_that_are_gone_are_freed(database: &Database) {
    let store = database.open().await;
    let (job, gone) = (insert_open(&store).await, insert_open(&store).await);
    let kept = open_file(&store, &job, "kept").await;
    let deleted = open_file(&store, &job, "deleted").await;
    let broken_off = open_file(&store, &job, "broken off").await;
    let of_gone = open_file(&store, &gone, "of a job that is gone").await;
    for writer in [kept, deleted, broken_off, of_gone] {
        for sequence in 1..8 {
            store.stage_totals(writer, sequence, vec![3]).await.unwrap();
        }
    }
    assert!(complete_file(&store, &job, kept, "kept").await);
    assert!(complete_file(&store, &job, deleted, "deleted").await);
    assert_eq!(store.free_totals().await.unwrap(), 0);
    assert_eq!(
        store.release_file(job.id, broken_off, &in_state("broken off", FileState::Waiting), None, KEEP).await.unwrap(),
        Some(0)
    );
    let again = open_file(&store, &job, "broken off").await;
    store.stage_totals(again, 0, vec![4]).await.unwrap();
    store.delete_file(&Scope::All, job.id, "deleted", KEEP).await.unwrap().unwrap();
    store.delete(&Scope::All, gone.id).await.unwrap();
    let mut freed = 0;
    loop {
        match store.free_totals().await.unwrap() {
            0 => break,
            some => freed += some,
        }
    }
    assert_eq!(freed, 8 + 7 + 7);
    for writer in [deleted, broken_off, of_gone] {
        for sequence in 0..8 {
            assert_eq!(store.totals(writer, sequence).await.unwrap(), None);
        }
    }
    for sequence in 1..8 {
        assert_eq!(store.totals(kept, sequence).await.unwrap(), Some(vec![3]));
    }
    assert_eq!(store.totals(kept, 0).await.unwrap(), Some(vec![7]));
    assert_eq!(store.totals(again, 0).await.unwrap(), Some(vec![4]));
    // What has become results is not needed any more.
    store.delete_file(&Scope::All, job.id, "broken off", KEEP).await.unwrap().unwrap();
    assert!(matches!(
        store.begin_finishing(&Scope::All, job.id, ChangedBy::Others).await.unwrap(),
        FinishingBegun::Files(_)
    ));
    succeed(&store, &job).await;
    while store.free_totals().await.unwrap() > 0 {}
    assert_eq!(store.totals(kept, 0).await.unwrap(), None);
}

/// A block of this number, as one writer makes it.
fn block(writer: u8, number: usize) -> Arc<[u8]> {
    [writer, u8::try_from(number).unwrap()].repeat(20_000).into()
}

fn checkpoint(writer: u8, number: i64, stored: usize, blocks: usize) -> Checkpoint {
    let blocks = (stored..stored + blocks).map(|number| block(writer, number)).collect();
    let offset = 10 * u64::try_from(number + 1).unwrap();
    Checkpoint {
        number,
        offset,
        pieces: vec![vec![1], vec![2]],
        reject_blocks: NewBlocks { stored, blocks },
        file: None,
    }
}

/// The blocks of rejects of a file, as far as they have no gap.
async fn blocks(store: &Store, writer: Writer) -> Vec<Arc<[u8]>> {
    let mut blocks = Vec::new();
    while let Some(block) = store.reject_block(writer.file, blocks.len() as u64).await.unwrap() {
        blocks.push(block.into());
    }
    blocks
}

async fn blocks_of_rejects_are_stored_once(database: &Database) {
    let store = database.open().await;
    let job = insert_open(&store).await;
    let (one, other) = (open_file(&store, &job, "one").await, open_file(&store, &job, "other").await);
    // More than a transaction may hold.
    assert!(store.save_checkpoint(one, checkpoint(1, 0, 0, 40)).await.unwrap());
    assert!(store.save_checkpoint(other, checkpoint(2, 0, 0, 1)).await.unwrap());
    assert_eq!(blocks(&store, one).await, (0..40).map(|number| block(1, number)).collect::<Vec<_>>());
    // A block that is stored already is not written again: the changed one stays.
    let mut connection = sqlx::AnyConnection::connect(&database.url).await.unwrap();
    connection.execute("UPDATE reject_blocks SET body = x'07' WHERE sequence < 40").await.unwrap();
    connection.close().await.unwrap();
    assert!(store.save_checkpoint(one, checkpoint(1, 1, 40, 3)).await.unwrap());
    assert!(store.save_checkpoint(one, checkpoint(1, 2, 43, 0)).await.unwrap());
    let stored = blocks(&store, one).await;
    assert_eq!(stored.len(), 43);
    assert!(stored[..40].iter().all(|block| **block == [7]));
    assert_eq!(stored[40..], [block(1, 40), block(1, 41), block(1, 42)]);
    assert_eq!(store.free_reject_blocks().await.unwrap(), 0, "all are in use");
    // They go with their file: what it counted holds its rejects.
    assert!(complete_file(&store, &job, one, "one").await);
    let mut freed = 0;
    while let some @ 1.. = store.free_reject_blocks().await.unwrap() {
        freed += some;
    }
    assert_eq!((freed, blocks(&store, one).await.len(), blocks(&store, other).await.len()), (43, 0, 1));
    store.delete_file(&Scope::All, job.id, "other", KEEP).await.unwrap().unwrap();
    assert_eq!(store.free_reject_blocks().await.unwrap(), 1);
}

async fn blocks_of_an_earlier_writer_are_not_used(database: &Database) {
    let store = database.open().await;
    let job = insert_open(&store).await;
    let first = open_file(&store, &job, "a").await;
    assert!(store.save_checkpoint(first, checkpoint(1, 0, 0, 2)).await.unwrap());
    assert!(store.save_checkpoint(first, checkpoint(1, 1, 2, 8)).await.unwrap());
    // It died when some blocks of its next checkpoint were stored; the next writer goes on at the one before.
    let mut connection = sqlx::AnyConnection::connect(&database.url).await.unwrap();
    let staged = "INSERT INTO reject_blocks SELECT file_id, sequence + 10, body FROM reject_blocks";
    assert_eq!(connection.execute(staged).await.unwrap().rows_affected(), 10);
    connection.close().await.unwrap();
    let resumed = store.resume_file(&Scope::All, job.id, "a", 20, KEEP).await.unwrap();
    let ResumedFile::Writer(second, Some(_)) = resumed else { panic!("{resumed:?}") };
    let second = second.writer;
    assert!(!store.save_checkpoint(first, checkpoint(1, 2, 10, 40)).await.unwrap());
    assert_eq!(blocks(&store, second).await.len(), 20, "a writer that was replaced stores nothing");
    assert!(store.save_checkpoint(second, checkpoint(2, 0, 10, 3)).await.unwrap());
    let expected: Vec<_> = (0..13).map(|number| block(if number < 10 { 1 } else { 2 }, number)).collect();
    assert_eq!(blocks(&store, second).await, expected);
    // A file that starts over has none.
    let waiting = in_state("a", FileState::Waiting);
    assert_eq!(
        store.release_file(job.id, second, &waiting, Some(checkpoint(2, 1, 13, 1)), KEEP).await.unwrap(),
        Some(20)
    );
    assert_eq!(blocks(&store, second).await.len(), 14);
    let third = open_file(&store, &job, "a").await;
    assert_eq!((third.file, blocks(&store, third).await.len()), (first.file, 0));
    assert!(store.save_checkpoint(third, checkpoint(3, 0, 0, 1)).await.unwrap());
    assert_eq!(blocks(&store, third).await, [block(3, 0)]);
}

async fn files_are_in_the_order_of_their_completion(database: &Database) {
    let store = database.open().await;
    let job = insert_open(&store).await;
    let names = ["c", "a", "d", "b"];
    let mut writers = Vec::new();
    for name in names {
        writers.push(open_file(&store, &job, name).await);
    }
    for at in [3, 0, 2] {
        assert!(complete_file(&store, &job, writers[at], names[at]).await);
    }
    let shown = async || -> Vec<String> {
        store.files(job.id).await.unwrap().into_iter().map(|stored| stored.file.name).collect()
    };
    assert_eq!(shown().await, ["b", "c", "d", "a"]);
    store.delete_file(&Scope::All, job.id, "c", KEEP).await.unwrap().unwrap();
    let again = open_file(&store, &job, "c").await;
    assert!(complete_file(&store, &job, again, "c").await);
    assert_eq!(shown().await, ["b", "d", "c", "a"]);
    assert_eq!(
        store.begin_finishing(&Scope::All, job.id, ChangedBy::Others).await.unwrap(),
        FinishingBegun::Incomplete(vec!["a".into()])
    );
    store.close().await;
    let store = database.open().await;
    let failure = FailureKind::ServerStopped.because("it fell");
    assert_eq!(store.fail_receiving(&failure, KEEP, KEEP).await.unwrap(), 0, "open jobs go on");
    let files = store.files(job.id).await.unwrap();
    assert_eq!(files[3].file.state, FileState::Waiting);
    let job = store.job(&Scope::All, job.id).await.unwrap().unwrap();
    assert_eq!((job.state, job.expires_at.is_some(), job.details.files.len()), (State::Open, true, 4));
}

async fn files_of_a_job_that_is_finished_do_not_change(database: &Database) {
    let store = database.open().await;
    let job = insert_open(&store).await;
    assert_eq!(store.begin_finishing(&Scope::All, job.id, ChangedBy::Others).await.unwrap(), FinishingBegun::NoFiles);
    let done = open_file(&store, &job, "a").await;
    assert!(complete_file(&store, &job, done, "a").await);
    assert!(
        matches!(store.begin_finishing(&Scope::All, job.id, ChangedBy::Others).await.unwrap(), FinishingBegun::Files(finishing) if finishing.files.len() == 1)
    );
    let assert_closed = async || {
        let finishing = JobClosed::Finishing;
        assert_eq!(
            store.begin_finishing(&Scope::All, job.id, ChangedBy::Others).await.unwrap(),
            FinishingBegun::Closed(finishing)
        );
        assert_eq!(store.delete_file(&Scope::All, job.id, "a", KEEP).await.unwrap(), Err(finishing));
        let opened = store
            .open_file(
                &Scope::All,
                job.id,
                &JobFile::begin("b", FileFormat::default(), None),
                ChangedBy::Others,
                9,
                KEEP,
            )
            .await
            .unwrap();
        assert_eq!(opened, OpenedFile::Closed(finishing));
        assert_eq!(store.finishing_jobs().await.unwrap(), [job.id]);
        let shown = store.job(&Scope::All, job.id).await.unwrap().unwrap();
        assert_eq!((shown.state, shown.expires_at), (State::Receiving, None));
    };
    assert_closed().await;
    // A start goes on with it.
    let failure = FailureKind::ServerStopped.because("it fell");
    assert_eq!(store.fail_receiving(&failure, KEEP, KEEP).await.unwrap(), 0);
    assert_closed().await;
    store.end_finishing(job.id, 2, KEEP).await.unwrap();
    assert_closed().await;
    store.end_finishing(job.id, 1, KEEP).await.unwrap();
    assert_eq!(store.finishing_jobs().await.unwrap(), []);
    assert_eq!(store.delete_file(&Scope::All, job.id, "a", KEEP).await.unwrap(), Ok(true));
    // Others have no files that change.
    let closes_itself = insert(&store, "one-shot").await;
    for (id, closed) in [(closes_itself.id, JobClosed::ClosesItself), (JobId::new(), JobClosed::Gone)] {
        assert_eq!(
            store.begin_finishing(&Scope::All, id, ChangedBy::Others).await.unwrap(),
            FinishingBegun::Closed(closed)
        );
        assert_eq!(store.delete_file(&Scope::All, id, "a", KEEP).await.unwrap(), Err(closed));
    }
}

#[test]
fn other_addresses_are_no_databases() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for url in ["", "adtally.db", "mysql://localhost/adtally", "file:///tmp/adtally.db"] {
        let error = runtime.block_on(Store::open(url)).err().unwrap();
        assert!(matches!(error, StoreError::UnknownDatabase { .. }), "{url}: {error}");
        assert!(error.to_string().contains("sqlite://PATH"), "{error}");
    }
}

async fn a_job_that_closes_itself_begins_and_succeeds_with_its_file(database: &Database) {
    let store = database.open().await;
    let (job, other) = (receiving("ad_data.csv"), receiving("other"));
    let file = JobFile::begin("ad_data.csv", FileFormat::default(), Some(7));
    let writer = store.insert_with_file(&job, Some("key"), &file).await.unwrap().unwrap();
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap().unwrap().details.files, std::slice::from_ref(&file));
    // A key that is taken leaves nothing behind.
    assert_eq!(store.insert_with_file(&other, Some("key"), &file).await.unwrap(), None);
    assert!(!store.contains(other.id).await.unwrap() && store.files(other.id).await.unwrap().is_empty());
    // With another writer than the file's nothing succeeds.
    let done = ended(&job, State::Succeeded);
    let stranger = Writer { epoch: writer.epoch + 1, ..writer };
    assert!(!store.succeed(&done, EndedBy::Writer(stranger), producer(outputs())).await.unwrap());
    assert!(!store.succeed(&done, EndedBy::Writer(stranger), producer(many_outputs())).await.unwrap());
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap().unwrap().state, State::Receiving);
    assert!(store.result(&Scope::All, job.id, "a.csv").await.unwrap().is_none());
    assert!(store.succeed(&done, EndedBy::Writer(writer), producer(outputs())).await.unwrap());
    assert_eq!(store.job(&Scope::All, job.id).await.unwrap(), Some(done));
    assert!(store.files(job.id).await.unwrap().is_empty());
}

async fn only_its_upload_changes_the_files_of_a_job_that_closes_itself(database: &Database) {
    let store = database.open().await;
    let job = insert(&store, "form").await;
    let file = JobFile::begin("part.csv", FileFormat::default(), None);
    let open = async |by| store.open_file(&Scope::All, job.id, &file, by, 9, KEEP).await.unwrap();
    assert_eq!(open(ChangedBy::Others).await, OpenedFile::Closed(JobClosed::ClosesItself));
    let OpenedFile::Writer(writer) = open(ChangedBy::ItsUpload).await else { panic!("no writer") };
    assert_eq!(store.delete_file(&Scope::All, job.id, "part.csv", KEEP).await.unwrap(), Err(JobClosed::ClosesItself));
    let complete = JobFile { state: FileState::Complete, ..file.clone() };
    assert!(store.complete_file(job.id, writer, &complete, (0, vec![1]), KEEP).await.unwrap());
    let closed = FinishingBegun::Closed(JobClosed::ClosesItself);
    assert_eq!(store.begin_finishing(&Scope::All, job.id, ChangedBy::Others).await.unwrap(), closed);
    let finishing = store.begin_finishing(&Scope::All, job.id, ChangedBy::ItsUpload).await.unwrap();
    assert!(matches!(finishing, FinishingBegun::Files(finishing) if finishing.files.len() == 1));
    // A finisher that died is not taken for an upload that broke off.
    let failure = FailureKind::ServerStopped.because("stopped");
    assert_eq!(store.fail_receiving(&failure, KEEP, KEEP).await.unwrap(), 0);
    assert_eq!(store.finishing_jobs().await.unwrap(), [job.id]);
}
