//! What is shown of jobs that are being received. It lives in memory alone: losing it loses nothing.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, watch};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::access::Scope;
use super::failure::{Failure, FailureKind};
use super::live_file::{LiveFile, Running};
use super::memory::MemoryShare;
use super::model::{FileId, FileState, Job, Leader, State};
use super::store::EndedBy;
use crate::engine::{Aggregate, Fatal, Metric, combined_leaders};
use crate::ingest::Pipeline;

/// Those who wait for changes are told of progress this often at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The leaders are looked for this often at most.
pub(super) const LEADERS_INTERVAL: Duration = Duration::from_secs(1);

/// Looking for the leaders takes at most this fraction of an upload's time: one part in 50.
const LEADERS_SHARE: u32 = 50;

/// A look that is worth no thought, when a file has just been completed.
const SHORT_LOOK: Duration = Duration::from_millis(5);

/// A job that is being received by this process.
pub(super) struct Live {
    /// The tenant that it belongs to.
    owner: Scope,
    latest: watch::Sender<Arc<Job>>,
    /// Cancelled on request and with the server.
    cancelled: CancellationToken,
    /// Cancelled with the server.
    stopping: CancellationToken,
    started: Instant,
    /// Bytes that had been received by then.
    bytes_before: u64,
    /// Files that are being received.
    files: Mutex<Vec<Arc<LiveFile>>>,
    /// Held while a writer of one of them begins.
    beginning: AsyncMutex<()>,
    counted: Mutex<Counted>,
    sum: Mutex<Sum>,
    /// Milliseconds after the start at which progress is told again.
    next_notice_millis: AtomicU64,
    /// Locked while the leaders are looked for.
    last_look: Mutex<LastLook>,
    /// They will be looked for as soon as they may be.
    is_look_planned: AtomicBool,
    /// Something has been read since the last look.
    are_leaders_behind: AtomicBool,
    unrecorded: Mutex<Option<Unrecorded>>,
    /// Cancelled when the upload is over and nothing more is written for it.
    over: CancellationToken,
    /// There has been an upload that tells when it is over.
    has_begun: AtomicBool,
}

/// What has happened to a job and is not recorded yet.
pub(super) enum Unrecorded {
    /// It has ended like this.
    End(EndedBy, Arc<Job>),
    /// The finisher with this number could not store its results: it is open again.
    Reopening(i64),
}

/// Which complete files are part of the sum.
#[derive(Default)]
struct Counted {
    files: HashSet<FileId>,
    /// Some complete files may not be part of it yet: it has no leaders.
    is_partial: bool,
    /// They are being loaded.
    is_loading: bool,
    /// One more whenever the sum begins anew.
    generation: u64,
}

/// What complete files have counted together. Locked for as long as merging and ranking take: only by workers.
#[derive(Default)]
struct Sum {
    aggregate: Option<Aggregate>,
    /// That of [`Counted`], or the sum is out of date.
    generation: u64,
}

/// The loading of files that were completed earlier into one sum.
#[derive(Clone, Copy)]
pub(super) struct Loading(u64);

struct LastLook {
    begun: Instant,
    took: Duration,
}

impl LastLook {
    /// When the leaders may be looked for again without taking more than their share of an upload's time.
    fn next(&self) -> Instant {
        if self.took < SHORT_LOOK { self.begun } else { self.begun + self.took * LEADERS_SHARE }
    }
}

impl Live {
    pub(super) fn new(job: Job, stopping: &CancellationToken) -> Self {
        let started = Instant::now();
        // Files that were completed earlier are loaded from the store.
        let is_partial = job.details.files.iter().any(|file| file.state == FileState::Complete);
        let bytes_before = job.details.progress.bytes_received;
        Self {
            owner: Scope::Tenant(job.tenant.as_str().into()),
            latest: watch::Sender::new(Arc::new(job)),
            bytes_before,
            cancelled: stopping.child_token(),
            stopping: stopping.clone(),
            started,
            files: Mutex::default(),
            beginning: AsyncMutex::default(),
            counted: Mutex::new(Counted { is_partial, ..Counted::default() }),
            next_notice_millis: AtomicU64::new(0),
            sum: Mutex::default(),
            last_look: Mutex::new(LastLook { begun: started, took: Duration::ZERO }),
            is_look_planned: AtomicBool::new(false),
            are_leaders_behind: AtomicBool::new(false),
            unrecorded: Mutex::new(None),
            over: CancellationToken::new(),
            has_begun: AtomicBool::new(false),
        }
    }

    /// The tenant that it belongs to.
    pub(super) fn owner(&self) -> &Scope {
        &self.owner
    }

    /// True when it is reached from there.
    pub(super) fn is_within(&self, scope: &Scope) -> bool {
        *scope == Scope::All || *scope == self.owner
    }

    /// The job as it is now.
    pub(super) fn latest(&self) -> Arc<Job> {
        let mut job = Arc::clone(&self.latest.borrow());
        if !job.state.is_final() && !self.files().is_empty() {
            self.show_progress(Arc::make_mut(&mut job));
        }
        job
    }

    fn files(&self) -> MutexGuard<'_, Vec<Arc<LiveFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks what complete files have counted, without what is out of date. For workers.
    fn sum(&self) -> MutexGuard<'_, Sum> {
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.counted().generation;
        if sum.generation != generation {
            *sum = Sum { aggregate: None, generation };
        }
        sum
    }

    /// Begins the sum of complete files anew.
    pub(super) fn reset_counted(&self) {
        let mut counted = self.counted();
        *counted = Counted { is_partial: true, generation: counted.generation + 1, ..Counted::default() };
    }

    /// Frees the memory of what is out of date. For workers.
    pub(super) fn free_counted(&self) {
        drop(self.sum());
    }

    /// Adds what a complete file has counted, once. Computes: for workers.
    ///
    /// # Errors
    /// When files cannot be merged.
    pub(super) fn count(&self, file: FileId, aggregate: Aggregate) -> Result<(), Fatal> {
        self.count_for(None, file, aggregate)
    }

    /// The same for a file that was completed earlier, unless the sum has begun anew since.
    ///
    /// # Errors
    /// When files cannot be merged.
    pub(super) fn count_loaded(&self, loading: Loading, file: FileId, aggregate: Aggregate) -> Result<(), Fatal> {
        self.count_for(Some(loading), file, aggregate)
    }

    fn count_for(&self, loading: Option<Loading>, file: FileId, mut aggregate: Aggregate) -> Result<(), Fatal> {
        // Only leaders are shown.
        aggregate.forget_reject_log();
        let mut sum = self.sum();
        let mut counted = self.counted();
        if loading.is_some_and(|loading| loading.0 != counted.generation) || !counted.files.insert(file) {
            return Ok(());
        }
        drop(counted);
        if let Some(all) = &mut sum.aggregate {
            return all.merge(aggregate);
        }
        sum.aggregate = Some(aggregate);
        Ok(())
    }

    /// True when a complete file is part of what is shown.
    pub(super) fn has_counted(&self, file: FileId) -> bool {
        self.counted().files.contains(&file)
    }

    /// Given to the one caller that has to load the files that were completed earlier.
    pub(super) fn begin_loading(&self) -> Option<Loading> {
        let mut counted = self.counted();
        let is_begun = counted.is_partial && !std::mem::replace(&mut counted.is_loading, true);
        is_begun.then_some(Loading(counted.generation))
    }

    /// They could not be loaded: another may try.
    pub(super) fn give_up_loading(&self, loading: Loading) {
        let mut counted = self.counted();
        if loading.0 == counted.generation {
            counted.is_loading = false;
        }
    }

    /// All complete files are part of what is shown, unless the sum has begun anew since.
    pub(super) fn end_loading(&self, loading: Loading) {
        let mut counted = self.counted();
        if loading.0 == counted.generation {
            counted.is_partial = false;
        }
    }

    /// True for the one caller that has to look for the leaders as soon as they may be looked for.
    pub(super) fn plan_look(&self) -> bool {
        !self.is_look_planned.swap(true, Ordering::Relaxed)
    }

    /// True when the leaders are not those of everything that has been read.
    pub(super) fn are_leaders_behind(&self) -> bool {
        self.are_leaders_behind.load(Ordering::Relaxed)
    }

    /// Looks for the leaders, if they may be looked for already, and shows them; else gives when they may be. Computes: for workers.
    pub(super) fn show_leaders(&self) -> Result<(), Instant> {
        let mut last_look = self.last_look.lock().unwrap_or_else(PoisonError::into_inner);
        let next_look = last_look.next();
        if Instant::now() < next_look {
            return Err(next_look);
        }
        // What is completed from here on needs another look.
        self.is_look_planned.store(false, Ordering::Relaxed);
        if let Some(look) = self.look_for_leaders(&mut last_look) {
            self.update(|job| look.show(job));
        }
        Ok(())
    }

    /// Shows a file as being received.
    pub(super) fn add_file(
        &self,
        name: &str,
        pipeline: Pipeline,
        memory: MemoryShare,
        running: &Arc<Running>,
    ) -> Arc<LiveFile> {
        let file = Arc::new(LiveFile::new(name, pipeline, memory, self.cancelled.child_token(), running));
        self.files().push(Arc::clone(&file));
        file
    }

    /// Shows a file no longer as being received; what it has counted stays in the job as `change` says.
    pub(super) fn remove_file(&self, file: &Arc<LiveFile>, change: impl FnOnce(&mut Job)) {
        self.update(|job| {
            self.show_progress(job);
            self.files().retain(|known| !Arc::ptr_eq(known, file));
            change(job);
            job.add_up();
            self.show_rate(job);
        });
    }

    /// Shows a file no longer.
    pub(super) fn forget_file(&self, name: &str, keep: jiff::SignedDuration) {
        self.files().retain(|file| file.name() != name);
        // What one of them has counted cannot be taken out of the sum.
        self.reset_counted();
        self.update(|job| {
            job.details.files.retain(|file| file.name != name);
            job.details.progress.unique_campaigns = 0;
            (job.details.top_ctr, job.details.top_cpa) = (Arc::default(), Arc::default());
            job.settle(keep);
        });
    }

    /// Milliseconds since the job began here.
    pub(super) fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends the writers of a file whose senders have sent nothing for at least `silence`, so that everything that came is stored. Gives whether
    /// there was such a writer.
    pub(super) fn interrupt_if_silent(&self, name: &str, silence: Duration) -> bool {
        let mut is_interrupted = false;
        for file in self.files().iter().filter(|file| file.name() == name && file.silence() >= silence) {
            file.interrupt();
            is_interrupted = true;
        }
        is_interrupted
    }

    /// What the writer of a file, if it has one here, runs with.
    pub(super) fn running(&self, name: &str) -> Option<Arc<Running>> {
        self.files().iter().filter(|file| file.name() == name).find_map(|file| file.running())
    }

    /// Ends the writer of a file, if it has one here. What it still receives does not count, and is not shown.
    pub(super) fn fence_file(&self, name: &str) {
        self.update(|job| self.show_progress(job));
        for file in self.files().extract_if(.., |file| file.name() == name) {
            file.fence().cancel();
        }
    }

    /// Held while a writer begins: each must be shown before the next one replaces it.
    pub(super) async fn begin_writer(&self) -> AsyncMutexGuard<'_, ()> {
        self.beginning.lock().await
    }

    /// Told of every change.
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
        // Who watches the job must not keep the memory of what it has received.
        self.files().clear();
    }

    /// Resolves when the job has ended.
    pub(super) async fn ended(&self) {
        // Its sender lives as long as `self`.
        drop(self.subscribe().wait_for(|job| job.state.is_final()).await);
    }

    /// Keeps what could not be recorded.
    pub(super) fn keep_unrecorded(&self, unrecorded: Unrecorded) {
        *self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner) = Some(unrecorded);
    }

    /// What could not be recorded, if there is something.
    pub(super) fn take_unrecorded(&self) -> Option<Unrecorded> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Of the upload of a job that closes itself: it is over when this is dropped.
    pub(super) fn guard_over(&self) -> DropGuard {
        self.has_begun.store(true, Ordering::Relaxed);
        self.over.clone().drop_guard()
    }

    /// Resolves when nothing more is written for the upload of a job that closes itself.
    pub(super) async fn over(&self) {
        // An interrupted job has no upload here that could end.
        if self.has_begun.load(Ordering::Relaxed) {
            self.over.cancelled().await;
        }
    }

    /// Ends the job's uploads.
    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Resolves on cancel, shutdown, or when a file's writer is fenced.
    pub(super) fn stopped(self: &Arc<Self>, file: Option<&Arc<LiveFile>>) -> Stopped {
        let token = file.map_or(&self.cancelled, |file| file.fence());
        Stopped { token: Box::pin(token.clone().cancelled_owned()), live: Arc::clone(self), file: file.cloned() }
    }

    /// Writes what has been received into a job.
    fn show_progress(&self, job: &mut Job) {
        for file in self.files().iter() {
            let progress = file.progress();
            if let Some(shown) = job.details.files.iter_mut().rev().find(|shown| shown.name == file.name()) {
                shown.show(progress);
                shown.durable_offset = file.durable_offset();
            }
            let known = &mut job.details.progress.unique_campaigns;
            // Of several files the largest number is certain; a look at all of them may find more.
            *known = (*known).max(progress.unique_campaigns);
        }
        job.add_up();
    }

    /// Writes how fast the job is being received into it. Only when that is told: a job that does not change looks the same.
    fn show_rate(&self, job: &mut Job) {
        if job.state != State::Receiving {
            (job.details.progress.bytes_per_second, job.details.progress.eta_seconds) = (0, None);
            return;
        }
        let elapsed_seconds = self.started.elapsed().as_secs_f64();
        let progress = &mut job.details.progress;
        progress.bytes_per_second =
            per_second(progress.bytes_received.saturating_sub(self.bytes_before), elapsed_seconds);
        progress.eta_seconds = progress
            .bytes_expected
            .filter(|_| progress.bytes_per_second > 0)
            .map(|expected| expected.saturating_sub(progress.bytes_received).div_ceil(progress.bytes_per_second));
    }

    /// Tells of progress when that is due, with the leaders when it is time to look for them.
    pub(super) fn advanced(&self) {
        self.are_leaders_behind.store(true, Ordering::Relaxed);
        let now_millis = self.elapsed_millis();
        let due_millis = self.next_notice_millis.load(Ordering::Relaxed);
        let interval_millis = u64::try_from(PROGRESS_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let next_millis = now_millis.saturating_add(interval_millis);
        let is_due = now_millis >= due_millis
            && self
                .next_notice_millis
                .compare_exchange(due_millis, next_millis, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_due {
            let look = self.look_if_due();
            self.update(|job| {
                if let Some(look) = look {
                    look.show(job);
                }
                self.show_progress(job);
                self.show_rate(job);
            });
        }
    }

    fn look_if_due(&self) -> Option<Look> {
        let mut last_look = self.last_look.try_lock().ok()?;
        let next_look = last_look.next().max(last_look.begun + LEADERS_INTERVAL);
        // The first one at once.
        if Instant::now() < next_look && last_look.begun != self.started {
            return None;
        }
        self.look_for_leaders(&mut last_look)
    }

    /// Looks for the leaders over everything received so far.
    fn look_for_leaders(&self, last_look: &mut LastLook) -> Option<Look> {
        let begun = Instant::now();
        let top = self.latest.borrow().details.options.top;
        let files = self.files().clone();
        let pipelines: Vec<_> =
            files.iter().map(|file| file.pipeline().lock().unwrap_or_else(PoisonError::into_inner)).collect();
        self.are_leaders_behind.store(false, Ordering::Relaxed);
        let sum = self.sum();
        if self.counted().is_partial {
            return None;
        }
        let running = pipelines.iter().filter_map(|pipeline| pipeline.as_ref()).map(Pipeline::so_far);
        let parts: Vec<&Aggregate> = sum.aggregate.iter().chain(running).collect();
        let all = combined_leaders(&parts, top.into());
        let look = Look {
            top_ctr: all.by_ctr.iter().map(Leader::from).collect(),
            top_cpa: all.by_cpa.iter().map(Leader::from).collect(),
            unique_campaigns: all.unique_campaigns as u64,
        };
        *last_look = LastLook { begun, took: begun.elapsed() };
        Some(look)
    }
}

struct Look {
    top_ctr: Arc<[Leader]>,
    top_cpa: Arc<[Leader]>,
    unique_campaigns: u64,
}

impl Look {
    fn show(self, job: &mut Job) {
        (job.details.top_ctr, job.details.top_cpa) = (self.top_ctr, self.top_cpa);
        job.details.progress.unique_campaigns = self.unique_campaigns;
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

/// A list as it is shown.
pub(super) fn leaders_of(aggregate: &Aggregate, metric: Metric, top: u16) -> Arc<[Leader]> {
    aggregate.leaders(metric, top.into()).iter().map(Leader::from).collect()
}

/// Waits for the reason to end an upload before its time.
pub struct Stopped {
    token: Pin<Box<WaitForCancellationFutureOwned>>,
    live: Arc<Live>,
    file: Option<Arc<LiveFile>>,
}

/// Why a writer ends whose file was deleted, or has another writer.
pub(super) fn fenced() -> Failure {
    FailureKind::FileDeleted.because("the file was deleted, or is being sent by another request")
}

/// Why an upload ends whose job was cancelled or deleted.
pub(super) fn cancelled() -> Failure {
    FailureKind::UploadCancelled.because("the job was cancelled")
}

impl Future for Stopped {
    type Output = Failure;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Failure> {
        self.token.as_mut().poll(context).map(|()| {
            if self.live.stopping.is_cancelled() {
                let reason = "the server was stopped before the upload was complete";
                FailureKind::ServerStopped.because(reason)
            } else if self.live.cancelled.is_cancelled() {
                cancelled()
            } else if self.file.as_ref().is_some_and(|file| file.is_asked_for()) {
                FailureKind::SenderStalled
                    .because("nothing came any more, and another request asked where the file goes on")
            } else {
                fenced()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::super::model::JobId;
    use super::super::options::JobOptions;
    use super::*;

    /// Otherwise who removes an interrupted job that is watched would wait for nothing.
    #[test]
    fn an_upload_that_has_not_begun_here_is_over() {
        let job = Job::begin(JobId::new(), "job".into(), State::Interrupted, JobOptions::default());
        let live = Live::new(job, &CancellationToken::new());
        assert!(live.over().now_or_never().is_some());
        let upload = live.guard_over();
        assert!(live.over().now_or_never().is_none());
        drop(upload);
        assert!(live.over().now_or_never().is_some());
    }
}
