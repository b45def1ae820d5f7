//! A job that is being received.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::sync::DropGuard;

use super::board::{FileObserver, Live, LiveFile, Stopped};
use super::context::{Context, Presence};
use super::error::JobError;
use super::failure::{Failure, FailureKind};
use super::finish::{conclude, end_without_results, show_leaders};
use super::model::{FileId, FileState, Job, JobFile, JobId, JobOptions};
use super::reports::hex;
use super::store::{StoreError, Writer};
use crate::engine::Aggregate;
use crate::ingest::{Coding, ContentError, FileProgress, Finished, LaneError, Pipeline, Sha256Digest, receive};

/// Stored totals are cut into pieces of at most this size.
const PIECE_BYTES: usize = 1024 * 1024;

/// Fast, and a third of the size.
const ZSTD_LEVEL: i32 = 1;

/// What is known of a file before its first byte.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The name its sender gave it.
    pub name: String,
    /// How it is read: its own header and encoding may be others than those of the job.
    pub options: JobOptions,
    /// How it is compressed; `None`: its beginning tells.
    pub coding: Option<Coding>,
    /// Bytes to come, as they are sent.
    pub length: Option<u64>,
    /// Compute the digest of the bytes as they are sent.
    pub with_digest: bool,
}

/// A job that is being received. It ends as [succeeded](Self::finish) or [failed](Self::fail); when it is dropped before,
/// its sender has vanished.
pub struct Upload {
    context: Arc<Context>,
    live: Arc<Live>,
    has_ended: bool,
    _over: DropGuard,
    /// One of the uploads that may run at once.
    _permit: OwnedSemaphorePermit,
}

impl Upload {
    pub(super) fn new(context: Arc<Context>, live: Arc<Live>, permit: OwnedSemaphorePermit) -> Self {
        let over = live.over().clone().drop_guard();
        Self { context, live, has_ended: false, _over: over, _permit: permit }
    }

    /// Forgets a job that the store has not taken.
    pub(super) fn never_began(mut self) {
        self.has_ended = true;
        self.context.forget_live(self.id());
    }

    /// The job's id.
    #[must_use]
    pub fn id(&self) -> JobId {
        self.live.latest().id
    }

    /// The job's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.live.latest().name.clone()
    }

    /// Resolves on cancel or shutdown. The byte source must poll it.
    #[must_use]
    pub fn stopped(&self) -> Stopped {
        self.live.stopped(None)
    }

    /// Reads a file to its end, and gives its digest when that was wanted. What it counted is kept for the end of the job.
    ///
    /// # Errors
    /// When the source fails, or the file cannot be used. The caller must [fail](Self::fail) the job with that.
    pub async fn read_file(
        &mut self,
        file: FileOptions,
        source: &mut (impl Stream<Item = Result<Bytes, Failure>> + Unpin),
    ) -> Result<Option<Sha256Digest>, Failure> {
        let FileOptions { name, options, coding, length, with_digest } = file;
        let pipeline = Pipeline::new(&self.context.pipeline_options(&options, coding, with_digest))?;
        self.live.update(|job| {
            let is_shown = job.file(&name).is_some_and(|file| file.state == FileState::Receiving);
            if !is_shown {
                job.details.files.push(JobFile::begin(name.clone(), length));
            }
        });
        let live_file = self.live.add_file(&name, Arc::new(Mutex::new(Some(pipeline))));
        let read = read_to_end(&self.context, &self.live, &live_file, length, source).await?;
        let mut aggregate = read.aggregate;
        aggregate.name_file(&name);
        count(&self.context, &self.live, None, aggregate).await?;
        self.live.remove_file(&live_file, |job| {
            if let Some(file) = job.details.files.last_mut() {
                file.show(read.progress);
                file.state = FileState::Complete;
                file.crc64nvme = read.crc64nvme;
            }
            job.details.sha256 = read.sha256.map(hex);
        });
        Ok(read.sha256)
    }

    /// Ends the job with everything its files have counted. When this returns a job, it and its results are in the store
    /// for good. Goes on to the end also when the caller is dropped.
    ///
    /// # Errors
    /// When the job fails after all.
    pub async fn finish(self) -> Result<Arc<Job>, JobError> {
        let id = self.id();
        let tracker = self.context.tracker.clone();
        match tracker.spawn(self.conclude()).await {
            Ok(result) => result,
            Err(_) => Err(JobError::Failed { id, failure: FailureKind::Internal.because("internal error") }),
        }
    }

    async fn conclude(mut self) -> Result<Arc<Job>, JobError> {
        let Some(aggregate) = self.live.take_counted() else {
            return Err(self.fail(FailureKind::FormWithoutFile.because("there was no file")).await);
        };
        match conclude(&self.context, &self.live, aggregate).await {
            Ok(job) => {
                self.has_ended = true;
                Ok(job)
            }
            Err(failure) => Err(self.fail(failure).await),
        }
    }

    /// Ends the job without results, and gives the answer for its sender.
    pub async fn fail(mut self, failure: Failure) -> JobError {
        self.has_ended = true;
        let id = self.id();
        let told = failure.clone();
        let tracker = self.context.tracker.clone();
        // A panic there has been reported.
        drop(tracker.spawn(async move { end_without_results(&self.context, &self.live, failure).await }).await);
        JobError::Failed { id, failure: told }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let failure = if std::thread::panicking() {
            FailureKind::Internal.because("internal error")
        } else {
            FailureKind::UploadIncomplete.because("the sender vanished before the end; nothing was counted")
        };
        // Without a runtime the process is ending, and the next start will say so of the job.
        if let Ok(runtime) = Handle::try_current() {
            let (context, live) = (Arc::clone(&self.context), Arc::clone(&self.live));
            let end = async move { end_without_results(&context, &live, failure).await };
            drop(self.context.tracker.spawn_on(end, &runtime));
        }
    }
}

/// What a whole file came to.
struct Read {
    aggregate: Aggregate,
    progress: FileProgress,
    sha256: Option<Sha256Digest>,
    crc64nvme: Option<String>,
}

/// Reads a file to its end.
async fn read_to_end(
    context: &Context,
    live: &Arc<Live>,
    file: &Arc<LiveFile>,
    length: Option<u64>,
    source: &mut (impl Stream<Item = Result<Bytes, Failure>> + Unpin),
) -> Result<Read, Failure> {
    let observer = Arc::new(FileObserver { live: Arc::clone(live), file: Arc::clone(file) });
    receive(source, file.pipeline(), &context.workers, &observer).await.map_err(|error| match error {
        LaneError::Source(failure) => failure,
        LaneError::Content(error) => error.into(),
        LaneError::Worker(error) => error.into(),
    })?;
    let bytes_received = file.progress().bytes_received;
    if let Some(length) = length
        && length != bytes_received
    {
        let detail = format!("{bytes_received} bytes came of the {length} that were announced");
        return Err(FailureKind::LengthMismatch.because(detail));
    }
    let pipeline = Arc::clone(file.pipeline());
    let finish = move || -> Result<Read, Failure> {
        let pipeline = pipeline.lock().unwrap_or_else(PoisonError::into_inner).take();
        let pipeline = pipeline.ok_or_else(|| FailureKind::Internal.because("internal error"))?;
        let crc64nvme = pipeline.crc64().map(|crc| format!("{crc:016x}"));
        let Finished { aggregate, sha256 } = pipeline.finish()?;
        // The last row may have had no line end.
        let progress = FileProgress {
            bytes_received,
            rows_read: aggregate.counters().rows_read,
            rows_skipped: aggregate.counters().rows_skipped(),
            unique_campaigns: aggregate.unique_campaigns() as u64,
        };
        Ok(Read { aggregate, progress, sha256, crc64nvme })
    };
    context.workers.run(finish).await?
}

/// Adds what a complete file has counted to what is shown of its job.
async fn count(context: &Context, live: &Arc<Live>, file: Option<FileId>, aggregate: Aggregate) -> Result<(), Failure> {
    let live = Arc::clone(live);
    let counted = context.workers.run(move || live.count(file, aggregate)).await?;
    counted.map_err(|fatal| ContentError::from(fatal).into())
}

/// A file of an open job that is being received. It is [complete](Self::complete) or [fails](Self::fail); when it is dropped before, it
/// waits for another writer.
pub struct FileUpload {
    presence: Presence,
    writer: Writer,
    name: String,
    length: Option<u64>,
    live_file: Arc<LiveFile>,
    read: Option<Read>,
    has_ended: bool,
    /// One of the uploads that may run at once.
    _permit: OwnedSemaphorePermit,
}

impl FileUpload {
    /// Shows the file as being received by this writer.
    pub(super) fn begin(
        presence: Presence,
        writer: Writer,
        options: FileOptions,
        pipeline: Pipeline,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let FileOptions { name, length, .. } = options;
        let keep = presence.context().config.keep_open;
        presence.live().update(|job| {
            job.put_file(JobFile::begin(name.clone(), length));
            job.settle(keep);
        });
        let live_file = presence.live().add_file(&name, Arc::new(Mutex::new(Some(pipeline))));
        Self { presence, writer, name, length, live_file, read: None, has_ended: false, _permit: permit }
    }

    /// Resolves on cancel, shutdown, or when the file is deleted. The byte source must poll it.
    #[must_use]
    pub fn stopped(&self) -> Stopped {
        self.presence.live().stopped(Some(&self.live_file))
    }

    /// Reads the file to its end, and gives its digest when that was wanted.
    ///
    /// # Errors
    /// When the source fails, or the file cannot be used. The caller must [fail](Self::fail) the file with that.
    pub async fn read(
        &mut self,
        source: &mut (impl Stream<Item = Result<Bytes, Failure>> + Unpin),
    ) -> Result<Option<Sha256Digest>, Failure> {
        let (context, live) = (self.presence.context(), self.presence.live());
        let mut read = read_to_end(context, live, &self.live_file, self.length, source).await?;
        read.aggregate.name_file(&self.name);
        let sha256 = read.sha256;
        self.read = Some(read);
        Ok(sha256)
    }

    /// Stores what the file has counted. When this returns, that is in the store for good.
    ///
    /// # Errors
    /// When it cannot be stored, or the file has another writer or is gone.
    pub async fn complete(mut self) -> Result<JobFile, JobError> {
        let Some(read) = self.read.take() else {
            return Err(self.fail(FailureKind::Internal.because("internal error")).await);
        };
        let mut file = JobFile::begin(self.name.clone(), Some(read.progress.bytes_received));
        file.show(read.progress);
        (file.state, file.crc64nvme) = (FileState::Complete, read.crc64nvme);
        let aggregate = match self.store_totals(&file, read.aggregate).await {
            Ok(aggregate) => aggregate,
            Err(failure) => return Err(self.fail(failure).await),
        };
        self.has_ended = true;
        let (context, live) = (self.presence.context(), self.presence.live());
        if let Err(failure) = count(context, live, Some(self.writer.file), aggregate).await {
            // The end of the job will find the same.
            tracing::warn!(job = %self.presence.id(), %failure, "files cannot be shown together");
        }
        show(&self.presence, &self.live_file, file.clone());
        show_leaders(&self.presence).await;
        Ok(file)
    }

    /// Stores totals piece by piece: all but the last are staged, with that one the file is complete.
    async fn store_totals(&self, file: &JobFile, aggregate: Aggregate) -> Result<Aggregate, Failure> {
        let context = self.presence.context();
        let (sender, mut pieces) = mpsc::channel(1);
        let save = spawn_blocking(move || {
            for piece in aggregate.save_pieces(PIECE_BYTES) {
                let piece = zstd::bulk::compress(&piece, ZSTD_LEVEL).map_err(|error| error.to_string());
                if sender.blocking_send(piece).is_err() {
                    // The store has refused.
                    break;
                }
            }
            aggregate
        });
        let failed = |error: StoreError| {
            tracing::error!(file = %self.writer.file, %error, "the totals of a file could not be stored");
            Failure::from(&error)
        };
        let mut staged = 0;
        let mut next = pieces.recv().await;
        while let Some(piece) = next {
            let piece = piece.map_err(|error| FailureKind::Internal.because(error))?;
            next = pieces.recv().await;
            if next.is_some() {
                context.store.stage_totals(self.writer, staged, piece).await.map_err(failed)?;
                staged += 1;
                continue;
            }
            let (job, keep) = (self.presence.id(), context.config.keep_open);
            let is_complete = context.store.complete_file(job, self.writer, file, (staged, piece), keep).await;
            if !is_complete.map_err(failed)? {
                return Err(
                    FailureKind::FileDeleted.because("the file was deleted, or is being sent by another request")
                );
            }
        }
        save.await.map_err(|_| FailureKind::Internal.because("internal error"))
    }

    /// Ends the writer without a complete file, and gives what its sender is told.
    pub async fn fail(mut self, failure: Failure) -> JobError {
        let id = self.presence.id();
        let released = self.release(failure.clone());
        // A panic there has been reported.
        drop(self.presence.context().tracker.spawn(released).await);
        JobError::FileFailed { id, failure }
    }

    /// Records that the file has no writer any more, and shows it.
    fn release(&mut self, failure: Failure) -> impl Future<Output = ()> + Send + use<> {
        self.has_ended = true;
        let state = if failure.kind.is_about_contents() { FileState::Failed } else { FileState::Waiting };
        let file = JobFile { state, error: Some(failure), ..JobFile::begin(self.name.clone(), self.length) };
        let (presence, writer, live_file) = (self.presence.clone(), self.writer, Arc::clone(&self.live_file));
        async move {
            let keep = presence.context().config.keep_open;
            match presence.context().store.release_file(presence.id(), writer, &file, keep).await {
                Ok(true) => show(&presence, &live_file, file),
                // It is another writer's, or gone.
                Ok(false) => presence.live().remove_file(&live_file, |_| {}),
                Err(error) => {
                    tracing::error!(file = %writer.file, %error, "a file is shown as being received until the next start");
                }
            }
        }
    }
}

/// Shows a file of an open job that has no writer any more.
fn show(presence: &Presence, live_file: &Arc<LiveFile>, file: JobFile) {
    let keep = presence.context().config.keep_open;
    presence.live().remove_file(live_file, |job| {
        job.put_file(file);
        job.settle(keep);
    });
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let failure = if std::thread::panicking() {
            FailureKind::Internal.because("internal error")
        } else {
            FailureKind::UploadIncomplete.because("the sender vanished before the end; nothing was counted")
        };
        // Without a runtime the process is ending, and the next start releases the file.
        if let Ok(runtime) = Handle::try_current() {
            let released = self.release(failure);
            self.presence.context().tracker.spawn_on(released, &runtime);
        }
    }
}
