//! The service, and its verbs for a caller: begin an upload, find, list, watch, cancel, remove, read results.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::access::{Access, Scope};
use super::begin::{Begun, FileOpened, NewJob};
use super::board::cancelled;
use super::context::{Context, JobsConfig as Config, Presence};
use super::error::JobError;
use super::file_options::FileOptions;
use super::finish::{end_without_results, finish_files, load_counted, record_unrecorded};
use super::form::FormUpload;
use super::model::{Job, JobFile, JobId, State};
use super::publish::remove_published;
use super::receive::FileUpload;
use super::results::read_result;
use super::store::{ChangedBy, EndedBy, FinishingBegun, JobClosed, JobFilter, JobPage, ResultFile, StoreError};
use super::upkeep::{end_left_behind, expire, run_upkeep};

/// An upload that is cancelled ends within this time, unless something is very wrong.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// A writer from which nothing has come for this long may have lost its sender.
const SILENCE: Duration = Duration::from_secs(1);

/// A silent writer ends within this time, unless its state is large.
const INTERRUPT_TIMEOUT: Duration = Duration::from_millis(800);

/// An upload that is stopped with the server ends within this time.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The service: jobs from its start to its end.
pub struct Jobs(Arc<Context>);

impl Jobs {
    /// Opens the store, ends the jobs that an earlier process left behind, and starts the upkeep of the others.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub async fn open(config: Config) -> Result<Arc<Self>, StoreError> {
        let context = Context::open(config).await?;
        end_left_behind(&context).await?;
        // Asked before there are requests: a job that one of these finishes has its finisher.
        let left_finishing = context.store.finishing_jobs().await?;
        context.tracker.spawn(run_upkeep(Arc::clone(&context), left_finishing));
        Ok(Arc::new(Self(context)))
    }

    /// The jobs that a caller reaches.
    #[must_use]
    pub fn of(&self, access: Access) -> TenantJobs {
        TenantJobs { context: Arc::clone(&self.0), access }
    }

    /// True when new uploads are refused because the server is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Uploads that are running.
    #[must_use]
    pub fn running_uploads(&self) -> usize {
        self.0.uploads.running()
    }

    /// Memory that uploads may take together, and what they take.
    #[must_use]
    pub fn memory_budget(&self) -> (u64, u64) {
        (self.0.memory.max_bytes(), self.0.memory.used_bytes())
    }

    /// Checks that new jobs would be taken and stored.
    ///
    /// # Errors
    /// When they would not: the server is stopping, the store does not answer, is full, or is no longer where it was.
    pub async fn check(&self) -> Result<(), JobError> {
        if self.is_draining() {
            return Err(JobError::Draining);
        }
        // First: whether the database is still there.
        self.0.room.check(&self.0.store).await?;
        let (room, store) = (&self.0.room, &self.0.store);
        if let Err(error) = store.check().await {
            // A database that was removed since the latest look does not answer, either.
            room.measure_again(store).await?;
            room.check(store).await?;
            return Err(error.into());
        }
        Ok(store.check_writes().await?)
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
        // What is still running then is stopped.
        drop(timeout(at_most, self.0.uploads.wait_for_all()).await);
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

/// The jobs that a caller reaches: begun, found, listed, cancelled, removed; their results read. Those of other tenants do not exist for it.
#[derive(Clone)]
pub struct TenantJobs {
    context: Arc<Context>,
    access: Access,
}

impl TenantJobs {
    /// The tenant of the caller.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.access.own_tenant()
    }

    fn scope(&self) -> &Scope {
        self.access.scope()
    }

    /// Makes a new job the caller's.
    fn own(&self, new: NewJob) -> NewJob {
        NewJob { tenant: self.access.own_tenant().to_owned(), ..new }
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
        self.context.tracker.spawn(work).await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(JobError::Draining),
        })
    }

    /// Begins a job of one file, which finishes with it.
    ///
    /// # Errors
    /// When uploads are refused at the moment, or the key was used otherwise.
    pub async fn begin(&self, new: NewJob, file: FileOptions) -> Result<Begun<FileUpload>, JobError> {
        let (jobs, new) = (self.clone(), self.own(new));
        // A task of its own: were it dropped with the request, the file would have a writer that is nowhere.
        self.outlive(async move { jobs.context.begin_job(&new, file).await }).await
    }

    /// Begins a job that a form makes.
    ///
    /// # Errors
    /// When uploads are refused at the moment, or the key was used otherwise.
    pub async fn begin_form(&self, new: NewJob) -> Result<Begun<FormUpload>, JobError> {
        let (jobs, new) = (self.clone(), self.own(new));
        self.outlive(async move { jobs.context.begin_form_job(&new).await }).await
    }

    /// Makes a job that takes files until it is completed. With a key that was used before, gives the job that it made.
    ///
    /// # Errors
    /// When too many jobs are open, the key was used otherwise, or the store refuses.
    pub async fn open_job(&self, new: NewJob) -> Result<Begun<Job>, JobError> {
        self.context.open_job(self.own(new)).await
    }

    /// Makes a job of one file, which finishes with it, before anybody sends the file. With a key that was used before, gives the job that
    /// it made.
    ///
    /// # Errors
    /// When too many jobs are open, the key was used otherwise, or the store refuses.
    pub async fn create_job_of_file(&self, new: NewJob, file: FileOptions) -> Result<Begun<Job>, JobError> {
        self.context.create_job_of_file(self.own(new), file).await
    }

    /// Adds a file to an open job before anybody sends it.
    ///
    /// # Errors
    /// When the job takes no files, has too many, or another request is sending the file.
    pub async fn create_file(&self, id: JobId, file: FileOptions) -> Result<JobFile, JobError> {
        let jobs = self.clone();
        // A task of its own: what has been stored must be shown, too.
        self.outlive(async move { jobs.context.create_file(jobs.scope(), id, file).await }).await
    }

    /// Makes the caller the writer of a file of an open job.
    ///
    /// # Errors
    /// When the job takes no files, has too many, or another request is sending the file.
    pub async fn open_file(&self, id: JobId, options: FileOptions) -> Result<FileOpened, JobError> {
        let jobs = self.clone();
        // A task of its own: were it dropped with the request, the file would have a writer that is nowhere.
        self.outlive(async move { jobs.context.open_writer(jobs.scope(), id, options, ChangedBy::Others).await }).await
    }

    /// Makes the caller the writer of a file that goes on at this offset, of this length if that is known.
    ///
    /// # Errors
    /// When the file goes on elsewhere, has another length, another request is sending it, or the job takes no bytes.
    pub async fn resume_file(
        &self,
        id: JobId,
        name: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<FileOpened, JobError> {
        let (jobs, name) = (self.clone(), name.to_owned());
        self.outlive(async move { jobs.context.resume_file(jobs.scope(), id, &name, offset, length).await }).await
    }

    /// Ends the writer of a file that has been silent for a second, so that its sender learns where to go on. Leaves any other alone.
    pub async fn interrupt_if_silent(&self, id: JobId, name: &str) {
        let Some(live) = self.context.live_job(self.scope(), id) else {
            return;
        };
        let mut changes = live.subscribe();
        if !live.interrupt_if_silent(name, SILENCE) {
            return;
        }
        let ended = async { while live.running(name).is_some() && changes.changed().await.is_ok() {} };
        // What is not stored by then is told at the next question.
        drop(timeout(INTERRUPT_TIMEOUT, ended).await);
    }

    /// Removes a file that is not counted yet, also while it is being received.
    ///
    /// # Errors
    /// When there is none, or the job does not let its files be changed.
    pub async fn delete_file(&self, id: JobId, name: &str) -> Result<(), JobError> {
        let (jobs, name) = (self.clone(), name.to_owned());
        self.outlive(async move { jobs.remove_file(id, &name).await }).await
    }

    async fn remove_file(&self, id: JobId, name: &str) -> Result<(), JobError> {
        let Some(presence) = self.context.enter(self.scope(), id).await? else {
            return Err(self.context.why_closed(self.scope(), id, JobClosed::Gone).await);
        };
        let keep = self.context.config.keep_open;
        match self.context.store.delete_file(self.scope(), id, name, keep).await? {
            Ok(true) => {}
            Ok(false) => return Err(JobError::FileNotFound { id, name: name.into() }),
            Err(closed) => return Err(self.context.why_closed(self.scope(), id, closed).await),
        }
        self.context.room.forget(self.access.own_tenant());
        presence.live().fence_file(name);
        presence.live().forget_file(name, keep);
        load_counted(&presence);
        Ok(())
    }

    /// Merges the files of an open job and makes it succeed. One that has succeeded is given as it is. Goes on to the end also when the
    /// caller is dropped.
    ///
    /// # Errors
    /// When files are incomplete, there is none, or the results cannot be stored.
    pub async fn complete(&self, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let job = self.context.find(self.scope(), id_or_name).await?;
        let jobs = self.clone();
        self.outlive(async move { jobs.complete_job(&job).await }).await
    }

    async fn complete_job(&self, job: &Arc<Job>) -> Result<Arc<Job>, JobError> {
        let id = job.id;
        if job.state == State::Succeeded {
            return Ok(Arc::clone(job));
        }
        let Some(presence) = self.context.enter(self.scope(), id).await? else {
            return match self.context.find(self.scope(), &id.to_string()).await? {
                job if job.state == State::Succeeded => Ok(job),
                job => Err(JobError::Ended { id, state: job.state }),
            };
        };
        // It may be open again without the store's knowing it.
        record_unrecorded(&self.context, presence.live()).await;
        match self.context.store.begin_finishing(self.scope(), id, ChangedBy::Others).await? {
            FinishingBegun::Files(finishing) => {
                finish_files(&presence, finishing).await.map_err(|failure| JobError::Failed { id, failure })
            }
            FinishingBegun::Incomplete(names) => Err(JobError::FilesIncomplete { id, names }),
            FinishingBegun::NoFiles => Err(JobError::NoFiles(id)),
            FinishingBegun::Closed(JobClosed::Ended(State::Succeeded)) => {
                // Another request has just stored the results, and may still have to show them.
                let latest = presence.live().latest();
                if latest.state == State::Succeeded { Ok(latest) } else { Err(JobError::Finishing(id)) }
            }
            FinishingBegun::Closed(closed) => Err(self.context.why_closed(self.scope(), id, closed).await),
        }
    }

    /// The job that an id, or the newest one that a name means.
    ///
    /// # Errors
    /// When there is none.
    pub async fn get(&self, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        self.context.find(self.scope(), id_or_name).await
    }

    /// Jobs, newest first.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn list(&self, filter: &JobFilter) -> Result<JobPage<Arc<Job>>, JobError> {
        self.context.list(self.scope(), filter).await
    }

    /// Told of every change of a job; none when it has ended.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn subscribe(&self, id: JobId) -> Result<Option<Subscription>, JobError> {
        let presence = self.context.enter(self.scope(), id).await?;
        Ok(presence.map(|presence| {
            let changes = presence.live().subscribe();
            Subscription { changes, shown: presence.live().latest(), presence }
        }))
    }

    /// Cancels a job that has not ended.
    ///
    /// # Errors
    /// When there is none, it has ended otherwise, or its end cannot be recorded.
    pub async fn cancel(&self, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let (jobs, id_or_name) = (self.clone(), id_or_name.to_owned());
        // A task of its own: what has been recorded must be shown, too.
        self.outlive(async move { jobs.cancel_job(&id_or_name).await }).await
    }

    async fn cancel_job(&self, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let mut job = self.context.find(self.scope(), id_or_name).await?;
        if let Some(presence) = self.context.enter(self.scope(), job.id).await? {
            let live = presence.live();
            let is_recorded = end_without_results(&self.context, live, EndedBy::Request, cancelled()).await?;
            live.cancel();
            job =
                if is_recorded { live.latest() } else { self.context.find(self.scope(), &job.id.to_string()).await? };
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
        let (jobs, id_or_name) = (self.clone(), id_or_name.to_owned());
        self.outlive(async move { jobs.delete_job(&id_or_name).await }).await
    }

    async fn delete_job(&self, id_or_name: &str) -> Result<(), JobError> {
        let id = match (self.context.find(self.scope(), id_or_name).await, id_or_name.parse()) {
            (Ok(job), _) => job.id,
            // What cannot be read can be removed.
            (Err(JobError::Store(StoreError::Damaged(_))), Ok(id)) => id,
            (Err(error), _) => return Err(error),
        };
        // The store first: files without a job are removed at the next start, at the latest.
        if !self.context.store.delete(self.scope(), id).await? {
            return Err(JobError::NotFound(id_or_name.into()));
        }
        self.context.room.forget(self.access.own_tenant());
        if let Some(live) = self.context.live_job(self.scope(), id) {
            self.context.end_removed(&live);
            // Its files may just be being written.
            if live.latest().closes_itself {
                drop(timeout(CANCEL_TIMEOUT, live.over()).await);
            }
        }
        remove_published(&self.context, id).await;
        Ok(())
    }

    /// A result of a job that has succeeded.
    ///
    /// # Errors
    /// When there is none.
    pub async fn result(&self, id_or_name: &str, name: &str) -> Result<(Arc<Job>, ResultFile), JobError> {
        let job = self.context.find(self.scope(), id_or_name).await?;
        if job.state != State::Succeeded {
            return Err(JobError::NotSucceeded { job: Box::new(Job::clone(&job)) });
        }
        match self.context.store.result(self.scope(), job.id, name).await? {
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
        read_result(&self.context, self.scope(), id, name, start, end)
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
