//! How jobs and the writers of their files begin.

use std::sync::Arc;

use tokio::sync::MutexGuard as AsyncMutexGuard;

use super::access::Scope;
use super::context::{Context, JobsConfig};
use super::error::JobError;
use super::failure::{Failure, FailureKind};
use super::file_options::FileOptions;
use super::finish::load_counted;
use super::form::FormUpload;
use super::live_file::upload_bytes;
use super::memory::MemoryShare;
use super::model::{FileState, Job, JobFile, JobId, State};
use super::options::JobOptions;
use super::receive::FileUpload;
use super::store::{
    ChangedBy, CheckpointId, Inserted, JobClosed, OpenJobLimits, OpenedFile, ResumedFile, StoredFile, Writer,
};
use super::upkeep::expire;
use crate::ingest::{Pipeline, PipelineReader, Workers};

/// A job to be received.
#[derive(Clone, Debug, Default)]
pub struct NewJob {
    /// Whose it is; empty without tenants.
    pub tenant: String,
    /// A label; without one the id is it.
    pub name: Option<String>,
    /// Make it only if no job that has not expired has its name.
    pub needs_free_name: bool,
    /// How its files are read and reported.
    pub options: JobOptions,
    /// The same key means the same job.
    pub idempotency_key: Option<String>,
    /// Bytes to come, when the sender tells.
    pub bytes_expected: Option<u64>,
    /// SHA-256 of its one file in hexadecimal digits, when the sender tells.
    pub sha256: Option<String>,
    /// Its id.
    pub id: JobId,
}

impl NewJob {
    /// The job's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }

    /// The job as it begins.
    fn begin(&self, state: State) -> Job {
        let mut job = Job::begin(self.id, self.name(), state, self.options.clone());
        job.tenant.clone_from(&self.tenant);
        job.details.progress.bytes_expected = self.bytes_expected;
        job.details.sha256.clone_from(&self.sha256);
        job
    }
}

/// How the wish to begin a job ended.
pub enum Begun<T> {
    /// It is there, and awaits its bytes or files.
    New(Box<T>),
    /// It was begun before, with the same key: an open one goes on, any other has ended.
    Before(Box<Job>),
}

/// How the wish to write a file ended.
pub enum FileOpened {
    /// It awaits its first or next bytes.
    Upload(Box<FileUpload>),
    /// It is complete.
    Complete(Box<JobFile>),
}

/// A job that was begun before with the same key.
enum Earlier {
    Ended(Box<Job>),
    Interrupted(Box<Job>),
}

impl Context {
    pub(super) async fn begin_job(
        self: &Arc<Self>,
        new: &NewJob,
        options: FileOptions,
    ) -> Result<Begun<FileUpload>, JobError> {
        match self.begun_before(new).await? {
            Some(Earlier::Ended(job)) => return Ok(Begun::Before(job)),
            Some(Earlier::Interrupted(job)) => return self.start_over(&job, options).await,
            None => {}
        }
        let _name = self.reserve_name(new).await?;
        self.check_room_for(&new.tenant).await?;
        let permit = self.uploads.permit(&new.tenant)?;
        let memory = self.share_memory(0)?;
        let failed = |failure| JobError::Failed { id: new.id, failure };
        let pipeline = self.new_pipeline(&options.format).map_err(failed)?;
        let job = new.begin(State::Receiving);
        let file = options.file();
        // First it is shown, then stored: who finds it in the store also finds what is shown of it.
        let mut shown = job.clone();
        shown.put_file(file.clone());
        let presence = self.enter_new(shown);
        let live = Arc::clone(presence.live());
        let _beginning = live.begin_writer().await;
        match self.store.insert_with_file(&job, new.idempotency_key.as_deref(), &file).await? {
            Some(writer) => {
                let running = presence.run_with(permit);
                Ok(Begun::New(Box::new(FileUpload::begin(presence, writer, file, (pipeline, memory), running))))
            }
            None => self.after_lost_race(new).await.map(Begun::Before),
        }
    }

    /// Receives the file of an interrupted job from its first byte again.
    async fn start_over(self: &Arc<Self>, job: &Job, options: FileOptions) -> Result<Begun<FileUpload>, JobError> {
        let Some(name) = job.details.files.first().map(|file| file.name.clone()) else {
            return Err(JobError::IdempotencyKeyInUse(job.id));
        };
        let owner = Scope::Tenant(job.tenant.as_str().into());
        match self.open_writer(&owner, job.id, FileOptions { name, ..options }, ChangedBy::ItsUpload).await? {
            FileOpened::Upload(upload) => Ok(Begun::New(upload)),
            FileOpened::Complete(_) => Err(JobError::IdempotencyKeyInUse(job.id)),
        }
    }

    pub(super) async fn begin_form_job(self: &Arc<Self>, new: &NewJob) -> Result<Begun<FormUpload>, JobError> {
        match self.begun_before(new).await? {
            Some(Earlier::Ended(job)) => return Ok(Begun::Before(job)),
            Some(Earlier::Interrupted(job)) => return Err(JobError::IdempotencyKeyInUse(job.id)),
            None => {}
        }
        let _name = self.reserve_name(new).await?;
        self.check_room_for(&new.tenant).await?;
        let permit = self.uploads.permit(&new.tenant)?;
        let memory = self.share_memory(0)?;
        let mut job = new.begin(State::Receiving);
        job.details.is_form = true;
        let presence = self.enter_new(job.clone());
        match self.store.insert(&job, new.idempotency_key.as_deref()).await? {
            Inserted::Done => Ok(Begun::New(Box::new(FormUpload::new(presence, permit, memory)))),
            // A job that a form makes is none of the open ones.
            Inserted::KeyTaken | Inserted::TooManyOpen | Inserted::TooManyOpenOfTenant => {
                self.after_lost_race(new).await.map(Begun::Before)
            }
        }
    }

    /// Where a job needs a free name: refuses when another job has it. Of requests that need the same name, the first one gets it: the others wait
    /// until its job is stored.
    async fn reserve_name(&self, new: &NewJob) -> Result<Option<AsyncMutexGuard<'_, ()>>, JobError> {
        let Some(name) = new.name.as_ref().filter(|_| new.needs_free_name) else {
            return Ok(None);
        };
        let reserved = self.naming.lock().await;
        match self.find(&Scope::Tenant(new.tenant.as_str().into()), name).await {
            Ok(job) => Err(JobError::NameTaken { id: job.id, name: name.clone() }),
            Err(JobError::NotFound(_) | JobError::Expired(_)) => Ok(Some(reserved)),
            Err(error) => Err(error),
        }
    }

    /// The job that an earlier request with the same key has begun, if that runs no more.
    async fn begun_before(&self, new: &NewJob) -> Result<Option<Earlier>, JobError> {
        if self.draining.is_cancelled() {
            return Err(JobError::Draining);
        }
        let Some(key) = &new.idempotency_key else {
            return Ok(None);
        };
        match self.store.job_by_key(&new.tenant, key).await? {
            None => Ok(None),
            Some(job) if job.has_expired() => {
                // It frees the key with it.
                expire(self).await?;
                Ok(None)
            }
            Some(job) if job.state == State::Interrupted && job.closes_itself && !is_other(&job, new) => {
                Ok(Some(Earlier::Interrupted(Box::new(job))))
            }
            Some(job) => Self::answer_again(job, new).map(|job| Some(Earlier::Ended(job))),
        }
    }

    /// The same, when another request has just taken the key.
    async fn after_lost_race(&self, new: &NewJob) -> Result<Box<Job>, JobError> {
        let key = new.idempotency_key.as_deref().unwrap_or_default();
        match self.store.job_by_key(&new.tenant, key).await? {
            Some(job) => Self::answer_again(job, new),
            None => Err(JobError::IdempotencyKeyInUse(new.id)),
        }
    }

    fn answer_again(job: Job, new: &NewJob) -> Result<Box<Job>, JobError> {
        if !job.closes_itself || is_other(&job, new) {
            return Err(JobError::IdempotencyKeyReused(job.id));
        }
        if job.state.is_final() { Ok(Box::new(job)) } else { Err(JobError::IdempotencyKeyInUse(job.id)) }
    }

    /// Makes a job that takes files until it is completed. With a key that was used before, gives the job that it made.
    ///
    /// # Errors
    /// When too many jobs are open, the key was used otherwise, or the store refuses.
    pub(super) async fn open_job(&self, new: NewJob) -> Result<Begun<Job>, JobError> {
        if self.draining.is_cancelled() {
            return Err(JobError::Draining);
        }
        if let Some(job) = self.made_before(&new, false).await? {
            return Ok(Begun::Before(Box::new(job)));
        }
        let _name = self.reserve_name(&new).await?;
        self.check_room_for(&new.tenant).await?;
        let mut job = new.begin(State::Open);
        job.settle(self.config.keep_open);
        match self.store.insert_open(&job, None, new.idempotency_key.as_deref(), self.config.open_jobs).await? {
            Inserted::Done => Ok(Begun::New(Box::new(job))),
            refused @ (Inserted::TooManyOpen | Inserted::TooManyOpenOfTenant) => Err(self.too_many_open(refused)),
            Inserted::KeyTaken => self.after_lost_creation(&new, false).await,
        }
    }

    /// Makes a job of one file, which finishes with it, ahead of the file's first byte: the job is open, and expires. With a key that was used
    /// before, gives the job that it made.
    ///
    /// # Errors
    /// When too many jobs are open, the key was used otherwise, or the store refuses.
    pub(super) async fn create_job_of_file(&self, new: NewJob, options: FileOptions) -> Result<Begun<Job>, JobError> {
        if self.draining.is_cancelled() {
            return Err(JobError::Draining);
        }
        if let Some(job) = self.made_before(&new, true).await? {
            return Ok(Begun::Before(Box::new(job)));
        }
        self.check_room_for(&new.tenant).await?;
        let file = waiting(options);
        let mut job = new.begin(State::Open);
        job.settle(self.config.keep_open);
        // From the first writer on it is settled as one that closes itself. Until then it is open, and would expect the bytes of no file.
        job.closes_itself = true;
        job.details.progress.bytes_expected = new.bytes_expected;
        match self.store.insert_open(&job, Some(&file), new.idempotency_key.as_deref(), self.config.open_jobs).await? {
            Inserted::Done => {
                job.put_file(file);
                Ok(Begun::New(Box::new(job)))
            }
            refused @ (Inserted::TooManyOpen | Inserted::TooManyOpenOfTenant) => Err(self.too_many_open(refused)),
            Inserted::KeyTaken => self.after_lost_creation(&new, true).await,
        }
    }

    fn too_many_open(&self, refused: Inserted) -> JobError {
        let OpenJobLimits { max_open_jobs, max_open_jobs_per_tenant } = self.config.open_jobs;
        match refused {
            Inserted::TooManyOpenOfTenant => JobError::TooManyOpenJobsOfTenant { max_open_jobs_per_tenant },
            _ => JobError::TooManyOpenJobs { max_open_jobs },
        }
    }

    /// Adds a file to an open job ahead of its first byte. One of its name must have failed, and starts over then.
    ///
    /// # Errors
    /// When the job takes no files, has too many, or another request is sending the file.
    pub(super) async fn create_file(
        self: &Arc<Self>,
        scope: &Scope,
        id: JobId,
        options: FileOptions,
    ) -> Result<JobFile, JobError> {
        if self.draining.is_cancelled() {
            return Err(JobError::Draining);
        }
        let Some(presence) = self.enter(scope, id).await? else {
            return Err(self.why_closed(scope, id, JobClosed::Gone).await);
        };
        self.check_room_for(&presence.live().latest().tenant).await?;
        let JobsConfig { max_files, keep_open, .. } = &self.config;
        let file = waiting(options);
        match self.store.open_file(scope, id, &file, ChangedBy::Others, *max_files, *keep_open).await? {
            OpenedFile::Writer(_) => {
                presence.live().update(|job| {
                    job.put_file(file.clone());
                    job.settle(*keep_open);
                });
                Ok(file)
            }
            refused => Err(self.why_not_opened(scope, id, file.name, refused).await),
        }
    }

    /// The job that another request has just made with the same key.
    async fn after_lost_creation(&self, new: &NewJob, closes_itself: bool) -> Result<Begun<Job>, JobError> {
        match self.made_before(new, closes_itself).await? {
            Some(job) => Ok(Begun::Before(Box::new(job))),
            None => Err(JobError::IdempotencyKeyInUse(new.id)),
        }
    }

    /// The job that the same request has made before.
    async fn made_before(&self, new: &NewJob, closes_itself: bool) -> Result<Option<Job>, JobError> {
        let Some(key) = &new.idempotency_key else {
            return Ok(None);
        };
        let Some(job) = self.store.job_by_key(&new.tenant, key).await? else {
            return Ok(None);
        };
        if job.has_expired() {
            expire(self).await?;
            return Ok(None);
        }
        if job.closes_itself != closes_itself || job.details.is_form || is_other(&job, new) {
            return Err(JobError::IdempotencyKeyReused(job.id));
        }
        Ok(Some(job))
    }

    /// Makes the caller the writer of a file, from its first byte.
    pub(super) async fn open_writer(
        self: &Arc<Self>,
        scope: &Scope,
        id: JobId,
        options: FileOptions,
        by: ChangedBy,
    ) -> Result<FileOpened, JobError> {
        if self.draining.is_cancelled() {
            return Err(JobError::Draining);
        }
        let Some(presence) = self.enter(scope, id).await? else {
            return Err(self.why_closed(scope, id, JobClosed::Gone).await);
        };
        self.check_room_for(&presence.live().latest().tenant).await?;
        let permit = self.uploads.permit(&presence.live().latest().tenant)?;
        let memory = self.share_memory(0)?;
        let failed = |failure| JobError::FileFailed { id, failure, offset: None };
        let pipeline = self.new_pipeline(&options.format).map_err(failed)?;
        let JobsConfig { max_files, keep_open, .. } = &self.config;
        let file = options.file();
        let live = Arc::clone(presence.live());
        let _beginning = live.begin_writer().await;
        match self.store.open_file(scope, id, &file, by, *max_files, *keep_open).await? {
            OpenedFile::Writer(writer) => {
                load_counted(&presence);
                let running = presence.run_with(permit);
                let upload = FileUpload::begin(presence, writer, file, (pipeline, memory), running);
                Ok(FileOpened::Upload(Box::new(upload)))
            }
            OpenedFile::Complete(file) => Ok(FileOpened::Complete(file)),
            refused => Err(self.why_not_opened(scope, id, file.name, refused).await),
        }
    }

    /// Why a file does not start over, as its sender is told.
    async fn why_not_opened(&self, scope: &Scope, id: JobId, name: String, refused: OpenedFile) -> JobError {
        match refused {
            OpenedFile::Complete(_) => JobError::FileComplete { id, name },
            OpenedFile::Writer(_) | OpenedFile::BeingReceived => JobError::FileBeingReceived { id, name },
            OpenedFile::Waiting => JobError::FileIncomplete { id, name },
            OpenedFile::OtherFormat => JobError::OtherFormat { id, name },
            OpenedFile::TooManyFiles => JobError::TooManyFiles { id, max_files: self.config.max_files },
            OpenedFile::Closed(closed) => self.why_closed(scope, id, closed).await,
        }
    }

    /// Makes the caller the writer of a file that goes on at this offset, of this length if that is known.
    pub(super) async fn resume_file(
        self: &Arc<Self>,
        scope: &Scope,
        id: JobId,
        name: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<FileOpened, JobError> {
        if self.draining.is_cancelled() {
            return Err(JobError::Draining);
        }
        let Some(presence) = self.enter(scope, id).await? else {
            return Err(self.why_closed(scope, id, JobClosed::Gone).await);
        };
        let known_length = presence.live().latest().file(name).and_then(|file| file.length);
        if let (Some(known), Some(length)) = (known_length, length)
            && known != length
        {
            return Err(JobError::OtherLength { id, name: name.into(), known });
        }
        let keep_open = self.config.keep_open;
        let other_offset = |offset| Err(JobError::OtherOffset { id, name: name.into(), offset });
        let live = Arc::clone(presence.live());
        let _beginning = live.begin_writer().await;
        // A writer that takes over runs with what the one before has.
        let running_or_permit = match presence.live().running(name) {
            Some(running) => Ok(running),
            None => Err(self.uploads.permit(&presence.live().latest().tenant)?),
        };
        let state_bytes = presence.live().latest().file(name).map_or(0, |file| file.memory_bytes);
        let memory = self.share_memory(state_bytes)?;
        match self.store.resume_file(scope, id, name, offset, keep_open).await? {
            ResumedFile::Writer(stored, checkpoint) => {
                let StoredFile { writer, mut file } = *stored;
                // An earlier writer, if there is one.
                presence.live().fence_file(name);
                file.length = file.length.or(length);
                let workers = self.workers_for(presence.live());
                let pipeline = match checkpoint {
                    Some(checkpoint) => load_pipeline(self, &workers, &file, writer, checkpoint, &memory).await,
                    None => self.new_pipeline(&file.format),
                };
                let pipeline = match pipeline {
                    Ok(pipeline) => pipeline,
                    Err(failure) => {
                        (file.state, file.error) = (FileState::Waiting, Some(failure.clone()));
                        self.store.release_file(id, writer, &file, None, keep_open).await?;
                        return Err(JobError::FileFailed { id, failure, offset: None });
                    }
                };
                load_counted(&presence);
                let running = running_or_permit.unwrap_or_else(|permit| presence.run_with(permit));
                Ok(FileOpened::Upload(Box::new(FileUpload::begin(presence, writer, file, (pipeline, memory), running))))
            }
            ResumedFile::Complete(file) if file.offset == offset && length.is_none_or(|length| length == offset) => {
                Ok(FileOpened::Complete(file))
            }
            ResumedFile::Complete(file) => other_offset(file.offset),
            ResumedFile::OtherOffset(offset) => other_offset(offset),
            ResumedFile::Failed => Err(JobError::FileUnusable { id, name: name.into() }),
            ResumedFile::NotFound => Err(JobError::FileNotFound { id, name: name.into() }),
            ResumedFile::Closed(closed) => Err(self.why_closed(scope, id, closed).await),
        }
    }
}

/// A file ahead of its first byte.
fn waiting(options: FileOptions) -> JobFile {
    JobFile { state: FileState::Waiting, ..options.file() }
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
    let options = job.details.request_options.as_ref().unwrap_or(&job.details.options);
    has_other_name || has_other_contents || new.options != *options
}

/// Takes a file up where its checkpoint stands.
///
/// # Errors
/// When the store refuses, or what it has is damaged.
async fn load_pipeline(
    context: &Context,
    workers: &Workers,
    file: &JobFile,
    writer: Writer,
    checkpoint: CheckpointId,
    memory: &MemoryShare,
) -> Result<Pipeline, Failure> {
    let lost = |error: &dyn std::fmt::Display| {
        tracing::error!(file = %writer.file, %error, "a checkpoint cannot be read");
        FailureKind::CheckpointLost
            .because(format!("what was stored of {:?} cannot be read: send it from the start", file.name))
    };
    let mut reader = PipelineReader::new(&context.pipeline_options(&file.format)?);
    for sequence in 0.. {
        let piece = context.store.checkpoint_piece(writer, checkpoint, sequence).await;
        let Some(piece) = piece.map_err(|error| Failure::from(&error))? else {
            break;
        };
        let now_bytes = upload_bytes(reader.memory_bytes_with(&[]));
        let most_bytes = upload_bytes(reader.memory_bytes_with(&piece) + piece.len());
        memory.raise_or_give_up(now_bytes, most_bytes)?;
        let read = move || reader.push(&piece).map(|()| reader);
        reader = workers.run(read).await?.map_err(|error| lost(&error))?;
    }
    for sequence in 0..reader.reject_blocks() {
        let block = context.store.reject_block(writer.file, sequence).await.map_err(|error| Failure::from(&error))?;
        let block = block.ok_or_else(|| lost(&"a block of rejects is missing"))?;
        let read = move || reader.push_reject_block(block).map(|()| reader);
        reader = workers.run(read).await?.map_err(|error| lost(&error))?;
    }
    let pipeline = workers.run(move || reader.finish()).await?.map_err(|error| lost(&error))?;
    if pipeline.bytes_received() == file.durable_offset { Ok(pipeline) } else { Err(lost(&"it has another offset")) }
}
