//! What is shown of a file that is being received, and how its writer is told to end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::memory::MemoryShare;
use super::permits::TenantPermit;
use crate::ingest::{FileProgress, LANE_BYTES, Pipeline, SharedPipeline};

/// One of the uploads that may run at once. The files of a form, which come one after the other, share one; so do the writer of a file and
/// the one that takes its place.
pub(super) struct Running {
    _permit: TenantPermit,
    /// Of a job that closes itself: tells when nothing more is written for it.
    _over: Option<DropGuard>,
}

impl Running {
    pub(super) fn new(permit: TenantPermit, over: Option<DropGuard>) -> Arc<Self> {
        Arc::new(Self { _permit: permit, _over: over })
    }
}

/// Memory of an upload whose pipeline takes this.
pub(super) fn upload_bytes(pipeline_bytes: usize) -> u64 {
    (LANE_BYTES + pipeline_bytes) as u64
}

const NOT_WAITING: u64 = u64::MAX;

/// A file that is being received.
pub(super) struct LiveFile {
    name: String,
    pipeline: SharedPipeline,
    /// Of the pipeline, and of what becomes of it. Freed behind it.
    memory: MemoryShare,
    bytes_received: AtomicU64,
    durable_offset: AtomicU64,
    rows_read: AtomicU64,
    rows_skipped: AtomicU64,
    unique_campaigns: AtomicU64,
    /// Cancelled to end the writer: with the job, when the file is deleted or has another writer, or when [`Self::is_asked_for`].
    fence: CancellationToken,
    /// The sender has asked by another request where the file goes on.
    is_asked_for: AtomicBool,
    begun: Instant,
    /// Milliseconds after `begun` since which its sender has been waited for; [`NOT_WAITING`] while it is not.
    waiting_since_millis: AtomicU64,
    /// Its writer has it: a file may be shown for longer.
    running: Weak<Running>,
}

impl LiveFile {
    /// A file that goes on after what `pipeline` has read, which is stored.
    pub(super) fn new(
        name: &str,
        pipeline: Pipeline,
        memory: MemoryShare,
        fence: CancellationToken,
        running: &Arc<Running>,
    ) -> Self {
        memory.settle(upload_bytes(pipeline.memory_bytes()));
        let progress = FileProgress::of(&pipeline);
        let file = Self {
            name: name.to_owned(),
            pipeline: Arc::new(Mutex::new(Some(pipeline))),
            memory,
            bytes_received: AtomicU64::new(0),
            durable_offset: AtomicU64::new(progress.bytes_received),
            rows_read: AtomicU64::new(0),
            rows_skipped: AtomicU64::new(0),
            unique_campaigns: AtomicU64::new(0),
            fence,
            is_asked_for: AtomicBool::new(false),
            begun: Instant::now(),
            waiting_since_millis: AtomicU64::new(NOT_WAITING),
            running: Arc::downgrade(running),
        };
        file.show(progress);
        file
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Locked by a worker while it reads a batch.
    pub(super) fn pipeline(&self) -> &SharedPipeline {
        &self.pipeline
    }

    /// What its pipeline, and what becomes of it, may take.
    pub(super) fn memory(&self) -> &MemoryShare {
        &self.memory
    }

    /// What its writer runs with, as long as it does.
    pub(super) fn running(&self) -> Option<Arc<Running>> {
        self.running.upgrade()
    }

    /// Cancelled when its writer must end.
    pub(super) fn fence(&self) -> &CancellationToken {
        &self.fence
    }

    /// Ends its writer, because the sender has asked by another request where the file goes on.
    pub(super) fn interrupt(&self) {
        self.is_asked_for.store(true, Ordering::Relaxed);
        self.fence.cancel();
    }

    /// True when its writer was [interrupted](Self::interrupt).
    pub(super) fn is_asked_for(&self) -> bool {
        self.is_asked_for.load(Ordering::Relaxed)
    }

    /// Its sender is waited for.
    pub(super) fn waits(&self) {
        let since_millis = self.elapsed_millis();
        // When it is waited for already, that stays.
        let _ =
            self.waiting_since_millis.compare_exchange(NOT_WAITING, since_millis, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Something has come.
    pub(super) fn waits_no_more(&self) {
        self.waiting_since_millis.store(NOT_WAITING, Ordering::Relaxed);
    }

    /// For how long its sender has been waited for.
    pub(super) fn silence(&self) -> Duration {
        let since_millis = self.waiting_since_millis.load(Ordering::Relaxed);
        Duration::from_millis(self.elapsed_millis().saturating_sub(since_millis))
    }

    fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// This many bytes are stored for good.
    pub(super) fn set_durable_offset(&self, offset: u64) {
        self.durable_offset.store(offset, Ordering::Relaxed);
    }

    /// Bytes that are stored for good.
    pub(super) fn durable_offset(&self) -> u64 {
        self.durable_offset.load(Ordering::Relaxed)
    }

    /// Shows how far it has been read.
    pub(super) fn show(&self, progress: FileProgress) {
        let FileProgress { bytes_received, rows_read, rows_skipped, unique_campaigns } = progress;
        self.bytes_received.store(bytes_received, Ordering::Relaxed);
        self.rows_read.store(rows_read, Ordering::Relaxed);
        self.rows_skipped.store(rows_skipped, Ordering::Relaxed);
        self.unique_campaigns.store(unique_campaigns, Ordering::Relaxed);
    }

    /// How far it has been read.
    pub(super) fn progress(&self) -> FileProgress {
        FileProgress {
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            rows_read: self.rows_read.load(Ordering::Relaxed),
            rows_skipped: self.rows_skipped.load(Ordering::Relaxed),
            unique_campaigns: self.unique_campaigns.load(Ordering::Relaxed),
        }
    }
}
