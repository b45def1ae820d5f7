//! A job that is being received.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::DropGuard;

use super::board::{Live, Stopped};
use super::context::Context;
use super::error::JobError;
use super::failure::{Failure, FailureKind};
use super::finish::{conclude, end_without_results};
use super::model::{FileState, Job, JobFile, JobId, JobOptions};
use super::reports::hex;
use crate::ingest::{Coding, ContentError, LaneError, Pipeline, Sha256Digest, receive};

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
        self.live.stopped()
    }

    /// Reads a file to its end, and gives its digest when that was wanted. What it counted is kept for the end of the job.
    ///
    /// # Errors
    /// When the source fails, or the file cannot be used. The job is to [fail](Self::fail) with that.
    pub async fn read_file(
        &mut self,
        file: FileOptions,
        source: &mut (impl Stream<Item = Result<Bytes, Failure>> + Unpin),
    ) -> Result<Option<Sha256Digest>, Failure> {
        let FileOptions { name, options, coding, length, with_digest } = file;
        let options = self.context.pipeline_options(&options, coding, with_digest);
        self.live.update(|job| {
            job.details.files.push(JobFile { name: name.clone(), state: FileState::Receiving, offset: 0, length });
        });
        let workers = &self.context.workers;
        let pipeline = Box::new(Pipeline::new(&options)?);
        let pipeline = receive(source, pipeline, workers, &self.live).await.map_err(|error| match error {
            LaneError::Source(failure) => failure,
            LaneError::Content(error) => error.into(),
            LaneError::Worker(error) => error.into(),
        })?;
        let bytes_received = pipeline.bytes_received();
        if let Some(length) = length
            && length != bytes_received
        {
            let detail = format!("{bytes_received} bytes came of the {length} that were announced");
            return Err(FailureKind::LengthMismatch.because(detail));
        }
        let live = Arc::clone(&self.live);
        let finish = move || -> Result<_, ContentError> {
            let finished = pipeline.finish()?;
            let mut aggregate = finished.aggregate;
            aggregate.name_file(&name);
            let mut counted = live.counted.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *counted {
                Some(counted) => counted.merge(aggregate)?,
                None => *counted = Some(aggregate),
            }
            live.complete_file(bytes_received);
            Ok(finished.sha256)
        };
        let sha256 = workers.run(finish).await??;
        self.live.update(|job| {
            if let Some(file) = job.details.files.last_mut() {
                (file.state, file.offset) = (FileState::Complete, bytes_received);
            }
            job.details.sha256 = sha256.map(hex);
        });
        Ok(sha256)
    }

    /// Ends the job with everything its files have counted. When this returns a job, it and its results are in the store
    /// for good. Goes on to the end even when nobody waits for it any more.
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
        let counted = self.live.counted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(aggregate) = counted else {
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

    /// Ends the job without results, and gives what its sender is to be told.
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
