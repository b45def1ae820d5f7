//! The verbs: begin an upload, find, list, watch, cancel, remove, read results, stop.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::board::{Live, cancelled};
use super::context::{Context, JobsConfig};
use super::error::JobError;
use super::finish::end_without_results;
use super::model::{Job, JobId, JobOptions, State, now};
use super::publish::remove_published;
use super::receive::Upload;
use super::results::read_result;
use super::store::{Inserted, JobFilter, ResultFile, StoreError};
use super::upkeep::{end_left_behind, expire, run_upkeep};

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
}

/// How the wish to begin a job ended.
pub enum Begun {
    /// The job awaits its bytes.
    Upload(Box<Upload>),
    /// It was begun before, with the same key, and has ended.
    Before(Box<Job>),
}

/// Jobs: begun, found, listed, cancelled, removed; their results read.
pub struct Jobs(Arc<Context>);

impl Jobs {
    /// Opens the store, ends the jobs that an earlier process left behind, and starts the upkeep of the others.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub async fn open(config: JobsConfig) -> Result<Arc<Self>, StoreError> {
        let context = Context::open(config).await?;
        end_left_behind(&context).await?;
        context.tracker.spawn(run_upkeep(Arc::clone(&context)));
        Ok(Arc::new(Self(context)))
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
    ///
    /// # Panics
    /// When the task that begins it has panicked.
    pub async fn begin(self: &Arc<Self>, new: NewJob) -> Result<Begun, JobError> {
        // A task of its own: were it dropped with the request, the job could be inserted behind its end.
        let begun = self.0.tracker.spawn(Arc::clone(self).begin_job(new)).await;
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
            && let Some(job) = self.0.store.job_by_key(key).await?
        {
            if !has_expired(&job) {
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
        self.0.show_live(id, &live);
        // From here on the upload sees to the job's end, whatever happens.
        let upload = Upload::new(Arc::clone(&self.0), live, permit);
        match self.0.store.insert(&job, new.idempotency_key.as_deref()).await {
            Ok(Inserted::Done) => Ok(Begun::Upload(Box::new(upload))),
            Ok(Inserted::KeyTaken) => {
                upload.never_began();
                // Somebody was faster by a hair.
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

    /// The job that an id, or the newest one that a name means.
    ///
    /// # Errors
    /// When there is none.
    pub async fn get(&self, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let id = id_or_name.parse::<JobId>().ok();
        let stored = match id {
            Some(id) => match self.0.live_job(id) {
                Some(live) => return Ok(live.latest()),
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
        if has_expired(&job) {
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

    /// Hears of every change of a job; none when it has ended.
    #[must_use]
    pub fn watch(&self, id: JobId) -> Option<watch::Receiver<Arc<Job>>> {
        self.0.live_job(id).map(|live| live.subscribe())
    }

    /// Cancels a job that is being received.
    ///
    /// # Errors
    /// When there is none, it has ended otherwise, or its end cannot be recorded.
    pub async fn cancel(&self, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let mut job = self.get(id_or_name).await?;
        if let Some(live) = self.0.live_job(job.id) {
            let is_recorded = end_without_results(&self.0, &live, cancelled()).await?;
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
        if !self.0.store.delete(id).await? {
            return Err(JobError::NotFound(id_or_name.into()));
        }
        if let Some(live) = self.0.live_job(id) {
            self.0.forget_live(id);
            live.cancel();
            let mut job = Job::clone(&live.latest());
            if !job.state.is_final() {
                job.end(State::Cancelled, Some(cancelled()), self.0.config.keep_finished);
                live.end(Arc::new(job));
            }
            // Its files may just be being written.
            drop(timeout(CANCEL_TIMEOUT, live.over().cancelled()).await);
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

    /// Waits until no upload is running, at most so long.
    pub async fn drained(&self, at_most: Duration) {
        let all = u32::try_from(self.0.config.max_concurrent_uploads).unwrap_or(u32::MAX);
        // Whatever is still running then is stopped.
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

/// True when a job's time is over, whether it has been removed already or not.
fn has_expired(job: &Job) -> bool {
    job.expires_at.is_some_and(|expires_at| expires_at <= now())
}
