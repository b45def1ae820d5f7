//! The service: begins uploads, finds, lists, cancels and removes jobs, reads results.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use jiff::SignedDuration;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::{Failure, FailureKind, JobError};
use super::job::{Job, JobId, JobOptions, State, now};
use super::live::{Live, cancelled};
use super::reports;
use super::results_dir::ResultsDir;
use super::store::{DatabaseLock, Inserted, JobFilter, ResultFile, Store, StoreError};
use super::upload::{Upload, count_end};
use crate::engine::{Kernel, Limits, TallyOptions};
use crate::ingest::{Coding, PipelineOptions, Workers};

/// How often jobs are looked through for what has expired or could not be recorded.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// An upload that is cancelled ends within this time, unless something is very wrong.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// An upload that is stopped with the server ends within this time.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How the service is to run.
#[derive(Clone, Debug)]
pub struct JobsConfig {
    /// The database's address.
    pub database_url: String,
    /// Where results also appear as files.
    pub results_dir: Option<PathBuf>,
    /// Threads that parse.
    pub parser_threads: NonZeroUsize,
    /// Uploads at once; more are refused.
    pub max_concurrent_uploads: usize,
    /// What a single file may make grow.
    pub limits: Limits,
    /// The most bytes that may come out of decompression.
    pub max_text_bytes: u64,
    /// How many times more bytes may come out of decompression than went in.
    pub max_decompression_ratio: u64,
    /// How long jobs are kept after they have ended.
    pub keep_finished: SignedDuration,
}

/// A job to be received.
#[derive(Clone, Debug, Default)]
pub struct NewJob {
    /// A label; without one the id is it.
    pub name: Option<String>,
    /// How its files are read and reported.
    pub options: JobOptions,
    /// The same key means the same job.
    pub idempotency_key: Option<String>,
    /// Bytes to come, when the sender tells.
    pub bytes_expected: Option<u64>,
    /// SHA-256 of its one file in hexadecimal digits, when the sender tells.
    pub sha256: Option<String>,
}

/// How the wish to begin a job ended.
pub enum Begun {
    /// The job awaits its bytes.
    Upload(Box<Upload>),
    /// It was begun before, with the same key, and has ended.
    Before(Box<Job>),
}

/// The service.
pub struct Jobs {
    config: JobsConfig,
    store: Store,
    results_dir: Option<ResultsDir>,
    workers: Workers,
    /// One permit for each upload that may run.
    places: Arc<Semaphore>,
    live: Mutex<HashMap<JobId, Arc<Live>>>,
    /// No new uploads.
    draining: CancellationToken,
    /// No uploads at all.
    stopping: CancellationToken,
    tracker: TaskTracker,
    /// Let go of behind the store.
    _lock: DatabaseLock,
}

impl Jobs {
    /// Opens the store, ends the jobs that an earlier process left behind, and begins to look after the others.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub async fn open(config: JobsConfig) -> Result<Arc<Self>, StoreError> {
        let url = config.database_url.clone();
        let lock = spawn_blocking(move || DatabaseLock::acquire(&url)).await;
        let lock = lock.map_err(|error| StoreError::Output(error.to_string()))??;
        let store = Store::open(&config.database_url).await?;
        let reason = "the server stopped before the upload was complete; nothing was counted: send it again";
        let failure = FailureKind::ServerStopped.because(reason);
        let left_behind = store.fail_receiving(&failure, config.keep_finished).await?;
        if left_behind > 0 {
            tracing::warn!(jobs = left_behind, "jobs were being received when the server stopped; they have failed");
        }
        let jobs = Arc::new(Self {
            store,
            results_dir: config.results_dir.clone().map(ResultsDir::new),
            workers: Workers::new(config.parser_threads),
            places: Arc::new(Semaphore::new(config.max_concurrent_uploads)),
            live: Mutex::default(),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            tracker: TaskTracker::new(),
            config,
            _lock: lock,
        });
        jobs.tracker.spawn(Arc::clone(&jobs).look_after());
        Ok(jobs)
    }

    pub(super) fn config(&self) -> &JobsConfig {
        &self.config
    }

    pub(super) fn results_dir(&self) -> Option<&ResultsDir> {
        self.results_dir.as_ref()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn workers(&self) -> &Workers {
        &self.workers
    }

    pub(super) fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    pub(super) fn pipeline_options(
        &self,
        options: &JobOptions,
        coding: Option<Coding>,
        with_digest: bool,
    ) -> PipelineOptions {
        PipelineOptions {
            tally: TallyOptions {
                delimiter: options.delimiter,
                has_header: options.has_header,
                limits: self.config.limits,
                kernel: Kernel::Detect,
            },
            encoding: options.encoding,
            coding,
            max_text_bytes: self.config.max_text_bytes,
            max_decompression_ratio: self.config.max_decompression_ratio,
            with_digest,
        }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn live_job(&self, id: JobId) -> Option<Arc<Live>> {
        self.live().get(&id).cloned()
    }

    pub(super) fn forget_live(&self, id: JobId) {
        self.live().remove(&id);
    }

    /// True when new uploads are refused because the server is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Uploads that are running.
    #[must_use]
    pub fn running_uploads(&self) -> usize {
        self.config.max_concurrent_uploads.saturating_sub(self.places.available_permits())
    }

    /// Checks that the store answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.store.check().await
    }

    /// Begins a job.
    ///
    /// # Errors
    /// When uploads are refused at the moment, or the key was used otherwise.
    ///
    /// # Panics
    /// When the task that begins it has panicked.
    pub async fn begin(self: &Arc<Self>, new: NewJob) -> Result<Begun, JobError> {
        // A task of its own: were it dropped with the request, the job could be inserted behind its end.
        let begun = self.tracker.spawn(Arc::clone(self).begin_job(new)).await;
        begun.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(JobError::Draining),
        })
    }

    async fn begin_job(self: Arc<Self>, new: NewJob) -> Result<Begun, JobError> {
        if self.is_draining() {
            return Err(JobError::Draining);
        }
        if let Some(key) = &new.idempotency_key
            && let Some(job) = self.store.job_by_key(key).await?
        {
            if !has_expired(&job) {
                return Self::answer_again(job, &new);
            }
            // It frees the key with it.
            self.expire().await?;
        }
        let max_concurrent_uploads = self.config.max_concurrent_uploads;
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| JobError::TooManyUploads { max_concurrent_uploads })?;
        let id = JobId::new();
        let name = new.name.clone().unwrap_or_else(|| id.to_string());
        let mut job = Job::begin(id, name, State::Receiving, new.options);
        job.details.progress.bytes_expected = new.bytes_expected;
        job.details.sha256.clone_from(&new.sha256);
        let live = Arc::new(Live::new(job.clone(), &self.stopping));
        self.live().insert(id, Arc::clone(&live));
        // From here on the upload sees to the job's end, whatever happens.
        let upload = Upload::new(Arc::clone(&self), live, place);
        match self.store.insert(&job, new.idempotency_key.as_deref()).await {
            Ok(Inserted::Done) => Ok(Begun::Upload(Box::new(upload))),
            Ok(Inserted::KeyTaken) => {
                upload.never_began();
                // Somebody was faster by a hair.
                let key = new.idempotency_key.as_deref().unwrap_or_default();
                match self.store.job_by_key(key).await? {
                    Some(job) => Self::answer_again(job, &new),
                    None => Err(JobError::IdempotencyKeyInUse(id)),
                }
            }
            Err(error) => {
                upload.never_began();
                Err(error.into())
            }
        }
    }

    fn answer_again(job: Job, new: &NewJob) -> Result<Begun, JobError> {
        let has_other_name = match &new.name {
            Some(name) => *name != job.name,
            None => job.name != job.id.to_string(),
        };
        let has_other_contents = match (&new.sha256, &job.details.sha256) {
            (Some(new), Some(known)) => new != known,
            _ => false,
        };
        if has_other_name || has_other_contents || new.options != job.details.options {
            return Err(JobError::IdempotencyKeyReused(job.id));
        }
        if job.state.is_final() { Ok(Begun::Before(Box::new(job))) } else { Err(JobError::IdempotencyKeyInUse(job.id)) }
    }

    /// Ends a job that is being received. Gives false when it has ended otherwise, or is gone.
    ///
    /// # Errors
    /// When that cannot be recorded; it is tried again later.
    pub(super) async fn end_without_results(&self, live: &Live, failure: Failure) -> Result<bool, StoreError> {
        let state = if failure.kind == FailureKind::UploadCancelled { State::Cancelled } else { State::Failed };
        let mut job = Job::clone(&live.latest());
        if job.state.is_final() {
            return Ok(false);
        }
        job.end(state, Some(failure), self.config.keep_finished);
        self.record_end(live, Arc::new(job)).await
    }

    /// Records that a job has ended, and only then shows it.
    pub(super) async fn record_end(&self, live: &Live, job: Arc<Job>) -> Result<bool, StoreError> {
        let frees_key = job.details.error.as_ref().is_none_or(|failure| failure.kind.is_retryable());
        match self.store.end(&job, frees_key).await {
            Ok(is_recorded) => {
                if is_recorded {
                    count_end(&job);
                    live.end(Arc::clone(&job));
                }
                self.forget_live(job.id);
                Ok(is_recorded)
            }
            Err(error) => {
                tracing::error!(job = %job.id, %error, "the end of a job could not be recorded yet");
                live.keep_unrecorded(job);
                Err(error)
            }
        }
    }

    /// The job that an id, or the newest one that a name means.
    ///
    /// # Errors
    /// When there is none.
    pub async fn get(&self, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let id = id_or_name.parse::<JobId>().ok();
        let stored = match id {
            Some(id) => match self.live_job(id) {
                Some(live) => return Ok(live.latest()),
                None => self.store.job(id).await?,
            },
            None => None,
        };
        let stored = match stored {
            Some(job) => Some(job),
            None => self.store.newest_named(id_or_name).await?,
        };
        let Some(job) = stored else {
            return match id {
                Some(id) if self.store.has_expired(id).await? => Err(JobError::Expired(id)),
                _ => Err(JobError::NotFound(id_or_name.into())),
            };
        };
        if has_expired(&job) {
            return Err(JobError::Expired(job.id));
        }
        Ok(self.as_of_now(job))
    }

    /// Jobs as the store knows them are behind while they are being received.
    fn as_of_now(&self, job: Job) -> Arc<Job> {
        self.live_job(job.id).map_or_else(|| Arc::new(job), |live| live.latest())
    }

    /// Jobs, newest first.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn list(&self, filter: &JobFilter) -> Result<Vec<Arc<Job>>, JobError> {
        Ok(self.store.list(filter).await?.into_iter().map(|job| self.as_of_now(job)).collect())
    }

    /// Hears of every change of a job; none when it has ended.
    #[must_use]
    pub fn watch(&self, id: JobId) -> Option<watch::Receiver<Arc<Job>>> {
        self.live_job(id).map(|live| live.subscribe())
    }

    /// Cancels a job that is being received.
    ///
    /// # Errors
    /// When there is none, it has ended otherwise, or its end cannot be recorded.
    pub async fn cancel(&self, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let mut job = self.get(id_or_name).await?;
        if let Some(live) = self.live_job(job.id) {
            let is_recorded = self.end_without_results(&live, cancelled()).await?;
            live.cancel();
            job = if is_recorded { live.latest() } else { self.get(&job.id.to_string()).await? };
        }
        match job.state {
            State::Cancelled => Ok(job),
            state => Err(JobError::Ended { id: job.id, state }),
        }
    }

    /// Removes a job with its results; ends it first when it is being received.
    ///
    /// # Errors
    /// When there is none, or the store refuses.
    pub async fn delete(&self, id_or_name: &str) -> Result<(), JobError> {
        let id = match (self.get(id_or_name).await, id_or_name.parse()) {
            (Ok(job), _) => job.id,
            // What cannot be read can be removed.
            (Err(JobError::Store(StoreError::Damaged(_))), Ok(id)) => id,
            (Err(error), _) => return Err(error),
        };
        // The store first: files without a job are removed at the next start, at the latest.
        if !self.store.delete(id).await? {
            return Err(JobError::NotFound(id_or_name.into()));
        }
        if let Some(live) = self.live_job(id) {
            self.forget_live(id);
            live.cancel();
            let mut job = Job::clone(&live.latest());
            if !job.state.is_final() {
                job.end(State::Cancelled, Some(cancelled()), self.config.keep_finished);
                live.end(Arc::new(job));
            }
            // Its files may just be being written.
            drop(timeout(CANCEL_TIMEOUT, live.over().cancelled()).await);
        }
        self.remove_published(id).await;
        Ok(())
    }

    /// A result of a job that has succeeded.
    ///
    /// # Errors
    /// When there is none.
    pub async fn result(&self, id_or_name: &str, name: &str) -> Result<(Arc<Job>, ResultFile), JobError> {
        let job = self.get(id_or_name).await?;
        if job.state != State::Succeeded {
            return Err(JobError::NotSucceeded { job: Box::new(Job::clone(&job)) });
        }
        match self.store.result(job.id, name).await? {
            Some(result) => Ok((job, result)),
            None => Err(JobError::ResultNotFound { job: Box::new(Job::clone(&job)), name: name.into() }),
        }
    }

    /// The bytes of a result from one position up to another, piece by piece.
    pub fn read_result(
        self: &Arc<Self>,
        id: JobId,
        name: &str,
        start: u64,
        end: u64,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let state = (Arc::clone(self), name.to_owned(), start);
        try_unfold(state, move |(jobs, name, at)| async move {
            if at >= end {
                return Ok(None);
            }
            let Some(piece) = jobs.store.piece(id, &name, at).await? else {
                return Err(StoreError::Damaged(format!("{name} of job {id} ends at {at}, or is being removed")));
            };
            let text = spawn_blocking(move || reports::decompress(&piece).map(|text| (piece.start, text)));
            let (start, text) = text
                .await
                .map_err(|error| StoreError::Damaged(error.to_string()))?
                .map_err(|error| StoreError::Damaged(format!("{name} of job {id}: {error}")))?;
            // Both lie within a piece.
            let within = |position: u64| usize::try_from(position - start).unwrap_or(text.len()).min(text.len());
            let wanted = within(at)..within(end.max(start));
            let next = start + wanted.end as u64;
            Ok(Some((Bytes::from(text).slice(wanted), (jobs, name, next))))
        })
    }

    /// Writes missing files, then sees to what expires and to what could not be recorded, until the server stops.
    async fn look_after(self: Arc<Self>) {
        self.sweep_results_dir().await;
        self.publish_missing().await;
        let mut sweeps = interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                _ = sweeps.tick() => {}
            }
            let live: Vec<_> = self.live().values().cloned().collect();
            for live in live {
                if let Some(job) = live.take_unrecorded() {
                    // It has been logged.
                    drop(self.record_end(&live, job).await);
                }
            }
            if let Err(error) = self.expire().await {
                tracing::error!(%error, "expired jobs could not be removed");
            }
        }
    }

    /// Removes what has expired.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn expire(&self) -> Result<(), StoreError> {
        loop {
            let expired = self.store.expire(now()).await?;
            if expired.is_empty() {
                return Ok(());
            }
            tracing::info!(jobs = expired.len(), "expired jobs were removed");
            for id in expired {
                self.remove_published(id).await;
            }
        }
    }

    /// Takes no new uploads from now on.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Waits until no upload is running, at most so long.
    pub async fn drained(&self, at_most: Duration) {
        let all = u32::try_from(self.config.max_concurrent_uploads).unwrap_or(u32::MAX);
        // Whatever is still running then is stopped.
        drop(timeout(at_most, self.places.acquire_many(all)).await);
    }

    /// Ends the uploads that are still running, and waits until their end is recorded.
    pub async fn stop_uploads(&self) {
        self.draining.cancel();
        self.stopping.cancel();
        self.drained(STOP_TIMEOUT).await;
    }

    /// Waits for what is still being recorded, and closes the store.
    pub async fn close(&self) {
        self.draining.cancel();
        self.stopping.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.store.close().await;
    }
}

/// True when a job's time is over, whether it has been removed already or not.
fn has_expired(job: &Job) -> bool {
    job.expires_at.is_some_and(|expires_at| expires_at <= now())
}
