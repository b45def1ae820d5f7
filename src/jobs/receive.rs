//! A file that is being received.

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
use super::finish::{LastFile, conclude, end_without_results, show_leaders};
use super::model::{FileState, Job, JobFile, JobOptions};
use super::store::{StoreError, Writer};
use crate::engine::Aggregate;
use crate::ingest::{Coding, FileProgress, Finished, LaneError, Pipeline, Sha256Digest, receive};

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

/// What a whole file came to.
struct Read {
    aggregate: Aggregate,
    progress: FileProgress,
    sha256: Option<Sha256Digest>,
    crc64nvme: Option<String>,
}

impl Read {
    /// The file as it is once that is recorded.
    fn file(&self, name: &str) -> JobFile {
        let mut file = JobFile::begin(name, Some(self.progress.bytes_received));
        file.show(self.progress);
        (file.state, file.crc64nvme) = (FileState::Complete, self.crc64nvme.clone());
        file
    }
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

/// One of the uploads that may run at once. The files of a form, which come one after the other, share one.
pub(super) struct Running {
    _permit: OwnedSemaphorePermit,
    /// Of a job that closes itself: tells when nothing more is written for it.
    _over: Option<DropGuard>,
}

impl Running {
    pub(super) fn new(presence: &Presence, permit: OwnedSemaphorePermit) -> Arc<Self> {
        let live = presence.live();
        let over = live.latest().closes_itself.then(|| live.over().clone().drop_guard());
        Arc::new(Self { _permit: permit, _over: over })
    }
}

/// A file that is being received. It is [complete](Self::complete), [finishes its job](Self::finish) or [fails](Self::fail); when it is
/// dropped before, its sender has vanished.
pub struct FileUpload {
    presence: Presence,
    writer: Writer,
    name: String,
    length: Option<u64>,
    live_file: Arc<LiveFile>,
    read: Option<Read>,
    has_ended: bool,
    _running: Arc<Running>,
}

impl FileUpload {
    /// Shows the file as being received by this writer.
    pub(super) fn begin(
        presence: Presence,
        writer: Writer,
        options: FileOptions,
        pipeline: Pipeline,
        running: Arc<Running>,
    ) -> Self {
        let FileOptions { name, length, .. } = options;
        let keep = presence.context().config.keep_open;
        presence.live().update(|job| {
            job.put_file(JobFile::begin(name.clone(), length));
            job.settle(keep);
        });
        let live_file = presence.live().add_file(&name, Arc::new(Mutex::new(Some(pipeline))));
        Self { presence, writer, name, length, live_file, read: None, has_ended: false, _running: running }
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
        let file = read.file(&self.name);
        let aggregate = match self.store_totals(&file, read.aggregate).await {
            Ok(aggregate) => aggregate,
            Err(failure) => return Err(self.fail(failure).await),
        };
        self.has_ended = true;
        let (context, live) = (self.presence.context(), self.presence.live());
        let (counted, id) = (Arc::clone(live), self.writer.file);
        if !matches!(context.workers.run(move || counted.count(id, aggregate)).await, Ok(Ok(()))) {
            // The end of the job will find the same.
            tracing::warn!(job = %self.presence.id(), "files cannot be shown together");
        }
        show(&self.presence, &self.live_file, file.clone());
        if !live.latest().closes_itself {
            show_leaders(&self.presence).await;
        }
        Ok(file)
    }

    /// Finishes the job, whose only file it is. When this returns a job, it and its results are in the store for good. Goes on to the end
    /// also when the caller is dropped.
    ///
    /// # Errors
    /// When the job fails after all.
    pub async fn finish(self) -> Result<Arc<Job>, JobError> {
        let id = self.presence.id();
        let tracker = self.presence.context().tracker.clone();
        match tracker.spawn(self.conclude()).await {
            Ok(result) => result,
            Err(_) => Err(JobError::Failed { id, failure: FailureKind::Internal.because("internal error") }),
        }
    }

    async fn conclude(mut self) -> Result<Arc<Job>, JobError> {
        let Some(read) = self.read.take() else {
            return Err(self.fail(FailureKind::Internal.because("internal error")).await);
        };
        let last_file = LastFile { writer: self.writer, file: read.file(&self.name), sha256: read.sha256 };
        let concluded = conclude(self.presence.context(), self.presence.live(), Some(last_file), read.aggregate).await;
        match concluded {
            Ok(job) => {
                self.has_ended = true;
                Ok(job)
            }
            Err(failure) => Err(self.fail(failure).await),
        }
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

    /// Ends the writer without a complete file, and gives what its sender is told. A job that closes itself fails with its file.
    pub async fn fail(mut self, failure: Failure) -> JobError {
        let id = self.presence.id();
        let closes_itself = self.presence.live().latest().closes_itself;
        let released = self.release(failure.clone());
        // A panic there has been reported.
        drop(self.presence.context().tracker.spawn(released).await);
        if closes_itself { JobError::Failed { id, failure } } else { JobError::FileFailed { id, failure } }
    }

    /// Records that the file has no writer any more, and shows it.
    fn release(&mut self, failure: Failure) -> impl Future<Output = ()> + Send + use<> {
        self.has_ended = true;
        let state = if failure.kind.is_about_contents() { FileState::Failed } else { FileState::Waiting };
        let file = JobFile { state, error: Some(failure), ..JobFile::begin(self.name.clone(), self.length) };
        let (presence, writer, live_file) = (self.presence.clone(), self.writer, Arc::clone(&self.live_file));
        async move {
            if presence.live().latest().closes_itself {
                let failure = file.error.unwrap_or_else(|| FailureKind::Internal.because("internal error"));
                // What cannot be recorded is tried again later.
                drop(end_without_results(presence.context(), presence.live(), failure).await);
                return;
            }
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
        let failure = vanished();
        // Without a runtime the process is ending, and the next start releases the file.
        if let Ok(runtime) = Handle::try_current() {
            let released = self.release(failure);
            self.presence.context().tracker.spawn_on(released, &runtime);
        }
    }
}

/// Why an upload ends whose task is dropped.
pub(super) fn vanished() -> Failure {
    if std::thread::panicking() {
        FailureKind::Internal.because("internal error")
    } else {
        FailureKind::UploadIncomplete.because("the sender vanished before the end; nothing was counted")
    }
}
