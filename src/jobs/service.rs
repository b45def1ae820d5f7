//! The verbs: begin an upload, find, list, watch, cancel, remove, read results, stop.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::board::{Live, cancelled};
use super::context::{Context, JobsConfig as Config, Presence};
use super::error::JobError;
use super::finish::{end_without_results, finish_open_job, load_counted};
use super::model::{Job, JobFile, JobId, JobOptions, State};
use super::publish::remove_published;
use super::receive::{FileOptions, FileUpload, Upload};
use super::results::read_result;
use super::store::{FinishingBegun, Inserted, JobClosed, JobFilter, OpenedFile, ResultFile, StoreError};
use super::upkeep::{end_left_behind, expire, run_upkeep};
use crate::ingest::Pipeline;

/// An upload that is cancelled ends within this time, unless something is very wrong.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// An upload that is stopped with the server ends within this time.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// The body is a file, of the job's name: it is shown from the start.
    pub is_one_file: bool,
}

/// How the wish to begin a job ended.
pub enum Begun {
    /// The job awaits its bytes.
    Upload(Box<Upload>),
    /// It was begun before, with the same key, and has ended.
    Before(Box<Job>),
}

/// How the wish to make an open job ended.
pub enum OpenedJob {
    /// It waits for files.
    New(Box<Job>),
    /// It was made before, with the same key.
    Before(Box<Job>),
}

/// How the wish to write a file of an open job ended.
pub enum FileOpened {
    /// It awaits its bytes.
    Upload(Box<FileUpload>),
    /// A file of this name is complete.
    Complete(Box<JobFile>),
}

/// Jobs: begun, found, listed, cancelled, removed; their results read.
pub struct Jobs(Arc<Context>);

impl Jobs {
    /// Opens the store, ends the jobs that an earlier process left behind, and starts the upkeep of the others.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub async fn open(config: Config) -> Result<Arc<Self>, StoreError> {
        let context = Context::open(config).await?;
        end_left_behind(&context).await?;
        context.tracker.spawn(run_upkeep(Arc::clone(&context)));
        Ok(Arc::new(Self(context)))
    }

    /// Runs work to its end, also when the caller is dropped.
    ///
    /// # Panics
    /// When the work does.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn outlive<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, JobError>> + Send + 'static,
    ) -> Result<T, JobError> {
        self.0.tracker.spawn(work).await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(JobError::Draining),
        })
    }

    /// True when new uploads are refused because the server is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Uploads that are running.
    #[must_use]
    pub fn running_uploads(&self) -> usize {
        self.0.config.max_concurrent_uploads.saturating_sub(self.0.upload_permits.available_permits())
    }

    /// Checks that the store answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.0.store.check().await
    }

    /// Begins a job.
    ///
    /// # Errors
    /// When uploads are refused at the moment, or the key was used otherwise.
    pub async fn begin(self: &Arc<Self>, new: NewJob) -> Result<Begun, JobError> {
        // A task of its own: were it dropped with the request, the job could be inserted behind its end.
        self.outlive(Arc::clone(self).begin_job(new)).await
    }

    /// Makes a job that takes files until it is completed. With a key that was used before, gives the job that it made.
    ///
    /// # Errors
    /// When too many jobs are open, the key was used otherwise, or the store refuses.
    pub async fn open_job(&self, new: NewJob) -> Result<OpenedJob, JobError> {
        if self.is_draining() {
            return Err(JobError::Draining);
        }
        if let Some(job) = self.made_before(&new).await? {
            return Ok(OpenedJob::Before(Box::new(job)));
        }
        let max_open_jobs = self.0.config.max_open_jobs;
        if self.0.store.count_open_jobs().await? >= max_open_jobs {
            return Err(JobError::TooManyOpenJobs { max_open_jobs });
        }
        let id = JobId::new();
        let name = new.name.clone().unwrap_or_else(|| id.to_string());
        let mut job = Job::begin(id, name, State::Open, new.options);
        job.settle(self.0.config.keep_open);
        match self.0.store.insert(&job, new.idempotency_key.as_deref()).await? {
            Inserted::Done => Ok(OpenedJob::New(Box::new(job))),
            Inserted::KeyTaken => match self.made_before(&new).await? {
                Some(job) => Ok(OpenedJob::Before(Box::new(job))),
                None => Err(JobError::IdempotencyKeyInUse(id)),
            },
        }
    }

    /// The open job that the same request has made before.
    async fn made_before(&self, new: &NewJob) -> Result<Option<Job>, JobError> {
        let Some(key) = &new.idempotency_key else {
            return Ok(None);
        };
        let Some(job) = self.0.store.job_by_key(key).await? else {
            return Ok(None);
        };
        if job.has_expired() {
            self.expire().await?;
            return Ok(None);
        }
        if job.closes_itself || is_other(&job, new) {
            return Err(JobError::IdempotencyKeyReused(job.id));
        }
        Ok(Some(job))
    }

    /// Makes the caller the writer of a file of an open job.
    ///
    /// # Errors
    /// When the job takes no files, has too many, or another request is sending the file.
    pub async fn open_file(self: &Arc<Self>, id: JobId, options: FileOptions) -> Result<FileOpened, JobError> {
        let jobs = Arc::clone(self);
        // A task of its own: were it dropped with the request, the file would have a writer that is nowhere.
        self.outlive(async move { jobs.begin_file(id, options).await }).await
    }

    async fn begin_file(&self, id: JobId, options: FileOptions) -> Result<FileOpened, JobError> {
        if self.is_draining() {
            return Err(JobError::Draining);
        }
        let Some(presence) = self.0.enter(id).await? else {
            return Err(self.why_closed(id, JobClosed::Gone).await);
        };
        let permit = self.0.permit_upload()?;
        let FileOptions { name, options: job_options, coding, length, with_digest } = &options;
        let pipeline = self.0.pipeline_options(job_options, *coding, *with_digest);
        let pipeline = Pipeline::new(&pipeline).map_err(|error| JobError::FileFailed { id, failure: error.into() })?;
        let Config { max_files, keep_open, .. } = &self.0.config;
        let file = JobFile::begin(name.clone(), *length);
        match self.0.store.open_file(id, &file, *max_files, *keep_open).await? {
            OpenedFile::Writer(writer) => {
                if presence.live().begin_loading() {
                    self.0.tracker.spawn(load_counted(presence.clone()));
                }
                let upload = FileUpload::begin(presence, writer, options, pipeline, permit);
                Ok(FileOpened::Upload(Box::new(upload)))
            }
            OpenedFile::Complete(file) => Ok(FileOpened::Complete(Box::new(file))),
            OpenedFile::BeingReceived => Err(JobError::FileBeingReceived { id, name: name.clone() }),
            OpenedFile::TooManyFiles => Err(JobError::TooManyFiles { id, max_files: *max_files }),
            OpenedFile::Closed(closed) => Err(self.why_closed(id, closed).await),
        }
    }

    /// Why a job does not let its files be changed, as its sender is told.
    async fn why_closed(&self, id: JobId, closed: JobClosed) -> JobError {
        match closed {
            JobClosed::Ended(state) => JobError::Ended { id, state },
            JobClosed::ClosesItself => JobError::ClosesItself(id),
            JobClosed::Finishing => JobError::Finishing(id),
            JobClosed::Gone => match self.get(&id.to_string()).await {
                Ok(job) if job.state.is_final() => JobError::Ended { id, state: job.state },
                Ok(_) => JobError::NotFound(id.to_string()),
                Err(error) => error,
            },
        }
    }

    /// Removes a file that is not counted yet, also while it is being received.
    ///
    /// # Errors
    /// When there is none, or the job does not let its files be changed.
    pub async fn delete_file(self: &Arc<Self>, id: JobId, name: &str) -> Result<(), JobError> {
        let (jobs, name) = (Arc::clone(self), name.to_owned());
        self.outlive(async move { jobs.remove_file(id, &name).await }).await
    }

    async fn remove_file(&self, id: JobId, name: &str) -> Result<(), JobError> {
        let Some(presence) = self.0.enter(id).await? else {
            return Err(self.why_closed(id, JobClosed::Gone).await);
        };
        let keep = self.0.config.keep_open;
        match self.0.store.delete_file(id, name, keep).await? {
            Ok(true) => {}
            Ok(false) => return Err(JobError::FileNotFound { id, name: name.into() }),
            Err(closed) => return Err(self.why_closed(id, closed).await),
        }
        presence.live().fence_file(name);
        presence.live().forget_file(name, keep);
        if presence.live().begin_loading() {
            self.0.tracker.spawn(load_counted(presence.clone()));
        }
        Ok(())
    }

    /// Merges the files of an open job and makes it succeed. One that has succeeded is given as it is. Goes on to the end also when the
    /// caller is dropped.
    ///
    /// # Errors
    /// When files are incomplete, there is none, or the results cannot be stored.
    pub async fn complete(self: &Arc<Self>, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let job = self.get(id_or_name).await?;
        let jobs = Arc::clone(self);
        self.outlive(async move { jobs.complete_job(&job).await }).await
    }

    async fn complete_job(&self, job: &Arc<Job>) -> Result<Arc<Job>, JobError> {
        let id = job.id;
        if job.state == State::Succeeded {
            return Ok(Arc::clone(job));
        }
        let Some(presence) = self.0.enter(id).await? else {
            return match self.get(&id.to_string()).await? {
                job if job.state == State::Succeeded => Ok(job),
                job => Err(JobError::Ended { id, state: job.state }),
            };
        };
        match self.0.store.begin_finishing(id).await? {
            FinishingBegun::Files(files) => {
                finish_open_job(&presence, files).await.map_err(|failure| JobError::Failed { id, failure })
            }
            FinishingBegun::Incomplete(names) => Err(JobError::FilesIncomplete { id, names }),
            FinishingBegun::NoFiles => Err(JobError::NoFiles(id)),
            FinishingBegun::Closed(JobClosed::Ended(State::Succeeded)) => {
                // Another request has just stored the results, and may still have to show them.
                let latest = presence.live().latest();
                if latest.state == State::Succeeded { Ok(latest) } else { Err(JobError::Finishing(id)) }
            }
            FinishingBegun::Closed(closed) => Err(self.why_closed(id, closed).await),
        }
    }

    async fn begin_job(self: Arc<Self>, new: NewJob) -> Result<Begun, JobError> {
        if self.is_draining() {
            return Err(JobError::Draining);
        }
        if let Some(key) = &new.idempotency_key
            && let Some(job) = self.0.store.job_by_key(key).await?
        {
            if !job.has_expired() {
                return Self::answer_again(job, &new);
            }
            // It frees the key with it.
            self.expire().await?;
        }
        let permit = self.0.permit_upload()?;
        let id = JobId::new();
        let name = new.name.clone().unwrap_or_else(|| id.to_string());
        let mut job = Job::begin(id, name, State::Receiving, new.options);
        job.details.progress.bytes_expected = new.bytes_expected;
        job.details.sha256.clone_from(&new.sha256);
        let live = Arc::new(Live::new(job.clone(), &self.0.stopping));
        if new.is_one_file {
            live.update(|job| job.details.files.push(JobFile::begin(job.name.clone(), new.bytes_expected)));
        }
        self.0.show_live(id, &live);
        // From here on the upload ends the job in every case.
        let upload = Upload::new(Arc::clone(&self.0), live, permit);
        match self.0.store.insert(&job, new.idempotency_key.as_deref()).await {
            Ok(Inserted::Done) => Ok(Begun::Upload(Box::new(upload))),
            Ok(Inserted::KeyTaken) => {
                upload.never_began();
                // Another request won the race for the key.
                let key = new.idempotency_key.as_deref().unwrap_or_default();
                match self.0.store.job_by_key(key).await? {
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
        if !job.closes_itself || is_other(&job, new) {
            return Err(JobError::IdempotencyKeyReused(job.id));
        }
        if job.state.is_final() { Ok(Begun::Before(Box::new(job))) } else { Err(JobError::IdempotencyKeyInUse(job.id)) }
    }

    /// The job that an id, or the newest one that a name means.
    ///
    /// # Errors
    /// When there is none.
    pub async fn get(&self, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let id = id_or_name.parse::<JobId>().ok();
        let stored = match id {
            Some(id) => match self.0.live_job(id).map(|live| live.latest()).filter(|job| !job.has_expired()) {
                Some(job) => return Ok(job),
                None => self.0.store.job(id).await?,
            },
            None => None,
        };
        let stored = match stored {
            Some(job) => Some(job),
            None => self.0.store.newest_named(id_or_name).await?,
        };
        let Some(job) = stored else {
            return match id {
                Some(id) if self.0.store.has_expired(id).await? => Err(JobError::Expired(id)),
                _ => Err(JobError::NotFound(id_or_name.into())),
            };
        };
        if job.has_expired() {
            return Err(JobError::Expired(job.id));
        }
        Ok(self.as_of_now(job))
    }

    /// Jobs as the store knows them are behind while they are being received.
    fn as_of_now(&self, job: Job) -> Arc<Job> {
        self.0.live_job(job.id).map_or_else(|| Arc::new(job), |live| live.latest())
    }

    /// Jobs, newest first.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn list(&self, filter: &JobFilter) -> Result<Vec<Arc<Job>>, JobError> {
        Ok(self.0.store.list(filter).await?.into_iter().map(|job| self.as_of_now(job)).collect())
    }

    /// Told of every change of a job; none when it has ended.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn subscribe(&self, id: JobId) -> Result<Option<Subscription>, JobError> {
        let presence = self.0.enter(id).await?;
        Ok(presence.map(|presence| {
            let changes = presence.live().subscribe();
            Subscription { changes, shown: presence.live().latest(), presence }
        }))
    }

    /// Cancels a job that has not ended.
    ///
    /// # Errors
    /// When there is none, it has ended otherwise, or its end cannot be recorded.
    pub async fn cancel(self: &Arc<Self>, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let (jobs, id_or_name) = (Arc::clone(self), id_or_name.to_owned());
        // A task of its own: what has been recorded must be shown, too.
        self.outlive(async move { jobs.cancel_job(&id_or_name).await }).await
    }

    async fn cancel_job(&self, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let mut job = self.get(id_or_name).await?;
        if let Some(presence) = self.0.enter(job.id).await? {
            let live = presence.live();
            let is_recorded = end_without_results(&self.0, live, cancelled()).await?;
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
    pub async fn delete(self: &Arc<Self>, id_or_name: &str) -> Result<(), JobError> {
        let (jobs, id_or_name) = (Arc::clone(self), id_or_name.to_owned());
        self.outlive(async move { jobs.delete_job(&id_or_name).await }).await
    }

    async fn delete_job(&self, id_or_name: &str) -> Result<(), JobError> {
        let id = match (self.get(id_or_name).await, id_or_name.parse()) {
            (Ok(job), _) => job.id,
            // What cannot be read can be removed.
            (Err(JobError::Store(StoreError::Damaged(_))), Ok(id)) => id,
            (Err(error), _) => return Err(error),
        };
        // The store first: files without a job are removed at the next start, at the latest.
        if !self.0.store.delete(id).await? {
            return Err(JobError::NotFound(id_or_name.into()));
        }
        if let Some(live) = self.0.live_job(id) {
            self.0.end_removed(&live);
            // Its files may just be being written.
            if live.latest().closes_itself {
                drop(timeout(CANCEL_TIMEOUT, live.over().cancelled()).await);
            }
        }
        remove_published(&self.0, id).await;
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
        match self.0.store.result(job.id, name).await? {
            Some(result) => Ok((job, result)),
            None => Err(JobError::ResultNotFound { job: Box::new(Job::clone(&job)), name: name.into() }),
        }
    }

    /// The bytes of a result from one position up to another, piece by piece.
    pub fn read_result(
        &self,
        id: JobId,
        name: &str,
        start: u64,
        end: u64,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        read_result(&self.0, id, name, start, end)
    }

    /// Removes what has expired.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn expire(&self) -> Result<(), StoreError> {
        expire(&self.0).await
    }

    /// Takes no new uploads from now on.
    pub fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Waits until no upload is running, at most this long.
    pub async fn drained(&self, at_most: Duration) {
        let all = u32::try_from(self.0.config.max_concurrent_uploads).unwrap_or(u32::MAX);
        // What is still running then is stopped.
        drop(timeout(at_most, self.0.upload_permits.acquire_many(all)).await);
    }

    /// Ends the uploads that are still running, and waits until their end is recorded.
    pub async fn stop_uploads(&self) {
        self.0.draining.cancel();
        self.0.stopping.cancel();
        self.drained(STOP_TIMEOUT).await;
    }

    /// Waits for what is still being recorded, and closes the store.
    pub async fn close(&self) {
        self.0.draining.cancel();
        self.0.stopping.cancel();
        self.0.tracker.close();
        self.0.tracker.wait().await;
        self.0.store.close().await;
    }
}

/// How often a job is looked at whose last progress may not have been told.
const RECHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The changes of a job, as long as it has not ended.
pub struct Subscription {
    changes: watch::Receiver<Arc<Job>>,
    shown: Arc<Job>,
    presence: Presence,
}

impl Subscription {
    /// The job as it was given last.
    #[must_use]
    pub fn latest(&self) -> Arc<Job> {
        Arc::clone(&self.shown)
    }

    /// Waits for the next change, and gives the job as it is then; none when there will be no more.
    pub async fn changed(&mut self) -> Option<Arc<Job>> {
        while !self.shown.state.is_final() {
            if let Ok(Err(_)) = timeout(RECHECK_INTERVAL, self.changes.changed()).await {
                return None;
            }
            let latest = self.presence.live().latest();
            if *latest != *self.shown {
                self.shown = latest;
                return Some(self.latest());
            }
            if latest.has_expired() {
                return None;
            }
        }
        None
    }
}

/// True when a request with a key is not the one that made the job.
fn is_other(job: &Job, new: &NewJob) -> bool {
    let has_other_name = match &new.name {
        Some(name) => *name != job.name,
        None => job.name != job.id.to_string(),
    };
    let has_other_contents = match (&new.sha256, &job.details.sha256) {
        (Some(new), Some(known)) => new != known,
        _ => false,
    };
    has_other_name || has_other_contents || new.options != job.details.options
}
