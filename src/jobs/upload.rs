//! A job that is being received.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::DropGuard;

use super::error::{Failure, FailureKind, JobError};
use super::job::{FileState, Job, JobFile, JobId, JobOptions, State};
use super::live::{Live, Stopped, leaders_of};
use super::reports::{Reports, hex};
use super::service::Jobs;
use crate::engine::report::Stats;
use crate::engine::{Aggregate, Metric};
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
    jobs: Arc<Jobs>,
    live: Arc<Live>,
    has_ended: bool,
    _over: DropGuard,
    /// Its place among the uploads that may run at once.
    _place: OwnedSemaphorePermit,
}

impl Upload {
    pub(super) fn new(jobs: Arc<Jobs>, live: Arc<Live>, place: OwnedSemaphorePermit) -> Self {
        let over = live.over().clone().drop_guard();
        Self { jobs, live, has_ended: false, _over: over, _place: place }
    }

    /// Forgets a job that the store has not taken.
    pub(super) fn never_began(mut self) {
        self.has_ended = true;
        self.jobs.forget_live(self.id());
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

    /// Resolves when the upload is to end before its time. Whoever supplies its bytes is to listen.
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
        let options = self.jobs.pipeline_options(&options, coding, with_digest);
        self.live.update(|job| {
            job.details.files.push(JobFile { name: name.clone(), state: FileState::Receiving, offset: 0, length });
        });
        let workers = self.jobs.workers();
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
        let tracker = self.jobs.tracker().clone();
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
        let live = Arc::clone(&self.live);
        let keep = self.jobs.config().keep_finished;
        let summary = self.jobs.workers().run(move || summarize(&live, aggregate, keep)).await;
        let (job, reports) = match summary {
            Ok(summary) => summary,
            Err(panicked) => return Err(self.fail(panicked.into()).await),
        };
        match self.jobs.store().succeed(&job, reports.produce()).await {
            Ok(true) => {}
            // It was cancelled or deleted first.
            Ok(false) => return Err(self.fail(super::live::cancelled()).await),
            Err(error) => {
                tracing::error!(job = %job.id, %error, "the results could not be stored");
                return Err(self.fail(Failure::from(&error)).await);
            }
        }
        self.has_ended = true;
        let job = Arc::new(job);
        count_end(&job);
        self.jobs.publish_results(&job).await;
        self.live.end(Arc::clone(&job));
        self.jobs.forget_live(job.id);
        Ok(job)
    }

    /// Ends the job without results, and gives what its sender is to be told.
    pub async fn fail(mut self, failure: Failure) -> JobError {
        self.has_ended = true;
        let id = self.id();
        let told = failure.clone();
        let tracker = self.jobs.tracker().clone();
        // A panic there has been reported.
        drop(tracker.spawn(async move { self.jobs.end_without_results(&self.live, failure).await }).await);
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
            let (jobs, live) = (Arc::clone(&self.jobs), Arc::clone(&self.live));
            let end = async move { jobs.end_without_results(&live, failure).await };
            drop(self.jobs.tracker().spawn_on(end, &runtime));
        }
    }
}

/// Adds a job that has ended to the metrics.
pub(super) fn count_end(job: &Job) {
    let outcome = job.details.error.as_ref().map_or(job.state.name(), |failure| failure.kind.name());
    metrics::counter!("adtally_uploads_total", "outcome" => outcome).increment(1);
    metrics::counter!("adtally_received_bytes_total").increment(job.details.progress.bytes_received);
    if let Some(stats) = &job.details.stats {
        let count = |result, rows| metrics::counter!("adtally_rows_total", "result" => result).increment(rows);
        count("counted", stats.rows_read - stats.rows_skipped);
        count("skipped", stats.rows_skipped);
    }
}

/// The job as it will be when its results are stored, and these.
fn summarize(live: &Live, aggregate: Aggregate, keep: jiff::SignedDuration) -> (Job, Reports) {
    let mut job = Job::clone(&live.latest());
    let stats = Stats::new(aggregate.counters(), aggregate.unique_campaigns(), live.elapsed().as_secs_f64());
    let bytes_received = job.details.files.iter().map(|file| file.offset).sum();
    live.set_progress(&mut job, bytes_received, &[&aggregate]);
    // Of a form, all that was announced is more than its files.
    job.details.progress.bytes_expected = job.details.progress.bytes_expected.map(|_| bytes_received);
    let options = job.details.options;
    job.details.stats = Some(stats.clone());
    job.details.top_ctr = leaders_of(&aggregate, Metric::Ctr, options.top);
    job.details.top_cpa = leaders_of(&aggregate, Metric::Cpa, options.top);
    job.end(State::Succeeded, None, keep);
    let reports = Reports { aggregate, stats, options, has_several_files: job.details.files.len() > 1 };
    job.details.results = reports.names();
    (job, reports)
}
