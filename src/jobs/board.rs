//! What is known of a job while it is being received.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::failure::{Failure, FailureKind};
use super::model::{Job, Leader};
use crate::engine::{Aggregate, Metric};
use crate::ingest::LaneObserver;

/// Those who wait for changes hear of progress this often at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The leaders are looked for this often at most.
const LEADERS_INTERVAL: Duration = Duration::from_secs(1);

/// Looking for the leaders takes no more than one part in so many of an upload's time.
const LEADERS_SHARE: u32 = 50;

/// A job that is being received.
pub(super) struct Live {
    latest: watch::Sender<Arc<Job>>,
    /// On request.
    cancelled: CancellationToken,
    /// With the server.
    stopping: CancellationToken,
    started: Instant,
    /// What complete files have counted.
    pub(super) counted: Mutex<Option<Aggregate>>,
    /// Bytes of complete files.
    complete_bytes: AtomicU64,
    pace: Mutex<Pace>,
    /// How the job has ended, while that is not recorded.
    unrecorded: Mutex<Option<Arc<Job>>>,
    /// Cancelled when the upload is over and nothing more is written for it.
    over: CancellationToken,
}

/// When to tell of progress, and look for the leaders, again.
struct Pace {
    notify_at: Instant,
    leaders_at: Instant,
}

impl Live {
    pub(super) fn new(job: Job, stopping: &CancellationToken) -> Self {
        let started = Instant::now();
        Self {
            latest: watch::Sender::new(Arc::new(job)),
            cancelled: CancellationToken::new(),
            stopping: stopping.clone(),
            started,
            counted: Mutex::new(None),
            complete_bytes: AtomicU64::new(0),
            pace: Mutex::new(Pace { notify_at: started, leaders_at: started }),
            unrecorded: Mutex::new(None),
            over: CancellationToken::new(),
        }
    }

    /// The job as it was last shown.
    pub(super) fn latest(&self) -> Arc<Job> {
        Arc::clone(&self.latest.borrow())
    }

    /// Hears of every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Job>> {
        self.latest.subscribe()
    }

    /// Changes what is shown of a job that has not ended.
    pub(super) fn update(&self, change: impl FnOnce(&mut Job)) {
        self.latest.send_if_modified(|job| {
            let is_unended = !job.state.is_final();
            if is_unended {
                change(Arc::make_mut(job));
            }
            is_unended
        });
    }

    /// Shows the job as it has ended. The first end stays.
    pub(super) fn end(&self, job: Arc<Job>) {
        self.latest.send_if_modified(|latest| {
            let is_first = !latest.state.is_final();
            if is_first {
                *latest = job;
            }
            is_first
        });
    }

    /// Keeps an end that could not be recorded.
    pub(super) fn keep_unrecorded(&self, job: Arc<Job>) {
        *self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
    }

    /// The end that could not be recorded, if there is one.
    pub(super) fn take_unrecorded(&self) -> Option<Arc<Job>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Cancelled when the upload is over and nothing more is written for it.
    pub(super) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Asks the upload to end.
    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Resolves when the upload is to end before its time.
    pub(super) fn stopped(self: &Arc<Self>) -> Stopped {
        Stopped {
            cancelled: Box::pin(self.cancelled.clone().cancelled_owned()),
            stopping: Box::pin(self.stopping.clone().cancelled_owned()),
        }
    }

    /// Adds a complete file's bytes and counts.
    pub(super) fn complete_file(&self, bytes: u64) {
        self.complete_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Writes what has been received into a job's progress.
    pub(super) fn set_progress(&self, job: &mut Job, bytes_received: u64, counted: &[&Aggregate]) {
        let elapsed_seconds = self.started.elapsed().as_secs_f64();
        let progress = &mut job.details.progress;
        progress.bytes_received = bytes_received;
        progress.rows_read = counted.iter().map(|part| part.counters().rows_read).sum();
        progress.rows_skipped = counted.iter().map(|part| part.counters().rows_skipped()).sum();
        // Of several files the largest number is what is certain; the end knows the exact one.
        progress.unique_campaigns = counted.iter().map(|part| part.unique_campaigns() as u64).max().unwrap_or(0);
        progress.bytes_per_second = per_second(bytes_received, elapsed_seconds);
        progress.eta_seconds = progress
            .bytes_expected
            .filter(|_| progress.bytes_per_second > 0)
            .map(|expected| expected.saturating_sub(bytes_received).div_ceil(progress.bytes_per_second));
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is an approximation, and not negative"
)]
fn per_second(bytes: u64, elapsed_seconds: f64) -> u64 {
    if elapsed_seconds > 0.0 { (bytes as f64 / elapsed_seconds) as u64 } else { 0 }
}

impl LaneObserver for Live {
    fn advanced(&self, file_bytes: u64, so_far: &Aggregate) {
        let now = Instant::now();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let parts: Vec<&Aggregate> = counted.iter().chain([so_far]).collect();
        let leaders = (now >= pace.leaders_at).then(|| {
            let leaders = leaders(&parts, self.latest().details.options.top);
            pace.leaders_at = now + LEADERS_INTERVAL.max(now.elapsed() * LEADERS_SHARE);
            leaders
        });
        let is_due = now >= pace.notify_at;
        if is_due {
            pace.notify_at = now + PROGRESS_INTERVAL;
        }
        let bytes_received = self.complete_bytes.load(Ordering::Relaxed) + file_bytes;
        self.latest.send_if_modified(|job| {
            if job.state.is_final() {
                return false;
            }
            let job = Arc::make_mut(job);
            self.set_progress(job, bytes_received, &parts);
            if let Some(file) = job.details.files.last_mut() {
                file.offset = file_bytes;
            }
            if let Some([top_ctr, top_cpa]) = leaders {
                (job.details.top_ctr, job.details.top_cpa) = (top_ctr, top_cpa);
            }
            is_due
        });
    }
}

/// The leaders by CTR and by CPA of several parts together.
fn leaders(parts: &[&Aggregate], top: u16) -> [Vec<Leader>; 2] {
    let mut merged: Option<Aggregate> = None;
    if parts.len() > 1 {
        for part in parts.iter().copied().cloned() {
            match &mut merged {
                // More campaigns than allowed: the end will say so.
                Some(merged) => drop(merged.merge(part)),
                None => merged = Some(part),
            }
        }
    }
    let Some(all) = merged.as_ref().or(parts.first().copied()) else {
        return [Vec::new(), Vec::new()];
    };
    [Metric::Ctr, Metric::Cpa].map(|metric| leaders_of(all, metric, top))
}

/// A list as it is shown.
pub(super) fn leaders_of(aggregate: &Aggregate, metric: Metric, top: u16) -> Vec<Leader> {
    aggregate.leaders(metric, top.into()).iter().map(Leader::from).collect()
}

/// Why an upload ends whose job was cancelled or deleted.
pub(super) fn cancelled() -> Failure {
    FailureKind::UploadCancelled.because("the job was cancelled")
}

/// Waits for the reason to end an upload before its time.
pub struct Stopped {
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Future for Stopped {
    type Output = Failure;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Failure> {
        if self.cancelled.as_mut().poll(context).is_ready() {
            return Poll::Ready(cancelled());
        }
        if self.stopping.as_mut().poll(context).is_ready() {
            let reason = "the server was stopped before the upload was complete; nothing was counted: send it again";
            return Poll::Ready(FailureKind::ServerStopped.because(reason));
        }
        Poll::Pending
    }
}
