//! What the parts of the jobs layer share.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Scope;
use super::board::{Live, cancelled};
use super::error::JobError;
use super::failure::{Failure, FailureKind};
use super::live_file::Running;
use super::memory::{Kind, MemoryBudget, MemoryShare};
use super::model::{FileFormat, Job, JobId, State};
use super::permits::{TenantPermit, TenantPermits};
use super::results_dir::ResultsDir;
use super::room::{Room, RoomLimits};
use super::store::{DatabaseLock, OpenJobLimits, Store, StoreError};
use crate::engine::{KeptRejects, Kernel, Limits, SkipBudget, TallyOptions};
use crate::ingest::{LANE_BYTES, Pipeline, PipelineOptions, Workers};

/// How the service runs.
#[derive(Clone, Debug)]
pub struct JobsConfig {
    /// The database's address.
    pub database_url: String,
    /// Where results also appear as files.
    pub results_dir: Option<PathBuf>,
    /// Threads that parse.
    pub parser_threads: NonZeroUsize,
    /// Memory that uploads may take together, and what becomes of them.
    pub memory_budget_bytes: u64,
    /// Uploads at once; more are refused.
    pub max_concurrent_uploads: usize,
    /// Uploads of one tenant at once; more are refused.
    pub max_uploads_per_tenant: usize,
    /// What a single file may make grow.
    pub limits: Limits,
    /// The most bytes of skipped rows that are kept, where all are wanted.
    pub max_rejects_bytes: u64,
    /// The most bytes that may come out of decompression.
    pub max_text_bytes: u64,
    /// How many times more bytes may come out of decompression than went in.
    pub max_decompression_ratio: u64,
    /// How long jobs are kept after they have ended.
    pub keep_finished: SignedDuration,
    /// How long open jobs are kept while no file is received.
    pub keep_open: SignedDuration,
    /// Open jobs at once; more are refused.
    pub open_jobs: OpenJobLimits,
    /// Bytes that the store may have in use; beyond that, no new jobs and files are taken.
    pub max_stored_bytes: u64,
    /// Bytes that the jobs of one tenant may take in the store; beyond that, it gets no new jobs and files. None is no limit.
    pub max_stored_bytes_per_tenant: Option<u64>,
    /// Bytes that stay free on the store's disk: below that, no new jobs and files are taken.
    pub disk_reserve_bytes: u64,
    /// Files of an open job.
    pub max_files: usize,
    /// The least time between two checkpoints of a file.
    pub checkpoint_interval: Duration,
}

/// Memory of an upload that has read nothing, besides its lane.
const FIRST_BYTES: u64 = 256 * 1024;

/// The store, the threads and the running jobs.
pub(super) struct Context {
    pub(super) config: JobsConfig,
    pub(super) store: Store,
    pub(super) results_dir: Option<ResultsDir>,
    workers: Workers,
    pub(super) memory: Arc<MemoryBudget>,
    /// Held while files are merged: each holds memory while it waits for more.
    pub(super) merging: AsyncMutex<()>,
    /// Owns every task that outlives its request.
    pub(super) tracker: TaskTracker,
    pub(super) room: Room,
    /// One permit for each upload that may run.
    pub(super) uploads: Arc<TenantPermits>,
    /// Cancelled when no new uploads are taken.
    pub(super) draining: CancellationToken,
    /// Cancelled when running uploads end.
    pub(super) stopping: CancellationToken,
    board: Mutex<HashMap<JobId, Shown>>,
    /// Held while a job is put on the board as the store knows it.
    entering: AsyncMutex<()>,
    /// Held while a job is stored that needs a name which no other job has.
    pub(super) naming: AsyncMutex<()>,
    /// Released after the store.
    _lock: DatabaseLock,
}

impl Context {
    /// Locks and opens the store.
    pub(super) async fn open(config: JobsConfig) -> Result<Arc<Self>, StoreError> {
        let url = config.database_url.clone();
        let lock = spawn_blocking(move || DatabaseLock::acquire(&url)).await;
        let lock = lock.map_err(|error| StoreError::Output(error.to_string()))??;
        let store = Store::open(&config.database_url).await?;
        let room_limits = RoomLimits {
            max_stored_bytes: config.max_stored_bytes,
            max_stored_bytes_per_tenant: config.max_stored_bytes_per_tenant,
            disk_reserve_bytes: config.disk_reserve_bytes,
        };
        Ok(Arc::new(Self {
            room: Room::measure(&store, room_limits).await?,
            store,
            results_dir: config.results_dir.clone().map(ResultsDir::new),
            workers: Workers::new(config.parser_threads).map_err(StoreError::NoThreads)?,
            memory: MemoryBudget::new(config.memory_budget_bytes),
            merging: AsyncMutex::default(),
            tracker: TaskTracker::new(),
            uploads: TenantPermits::new(config.max_concurrent_uploads, config.max_uploads_per_tenant),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            board: Mutex::default(),
            entering: AsyncMutex::default(),
            naming: AsyncMutex::default(),
            config,
            _lock: lock,
        }))
    }

    /// How a file is read.
    ///
    /// # Errors
    /// When its options contradict each other. Those of requests have been checked.
    pub(super) fn pipeline_options(&self, format: &FileFormat) -> Result<PipelineOptions, Failure> {
        let FileFormat { options, coding, with_digest } = format;
        let dialect = options.dialect().map_err(|conflict| FailureKind::Internal.because(conflict.to_string()))?;
        let keeps_all_rejects = options.rejects == KeptRejects::All;
        Ok(PipelineOptions {
            tally: TallyOptions {
                delimiter: options.plain_delimiter(),
                has_header: options.has_header,
                max_skipped: options.max_skipped.and_then(SkipBudget::max_rows),
                limits: self.config.limits,
                kernel: Kernel::Detect,
                max_rejects_bytes: keeps_all_rejects.then_some(self.config.max_rejects_bytes),
            },
            dialect: dialect.map(Arc::new),
            encoding: options.encoding,
            coding: *coding,
            max_text_bytes: self.config.max_text_bytes,
            max_decompression_ratio: self.config.max_decompression_ratio,
            with_digest: *with_digest,
        })
    }

    /// Memory for one more upload, which is restored from a state that takes so much.
    pub(super) fn share_memory(&self, state_bytes: u64) -> Result<MemoryShare, JobError> {
        let share = self.memory.begin(Kind::Upload, LANE_BYTES as u64 + FIRST_BYTES + state_bytes);
        share.map_err(|_| {
            metrics::counter!("adtally_memory_refusals_total", "upload" => "not_begun").increment(1);
            JobError::MemoryBudget { memory_budget_bytes: self.memory.max_bytes() }
        })
    }

    /// Reads a file from its first byte.
    ///
    /// # Errors
    /// When the memory of a decompressor cannot be had.
    pub(super) fn new_pipeline(&self, format: &FileFormat) -> Result<Pipeline, Failure> {
        Ok(Pipeline::new(&self.pipeline_options(format)?)?)
    }

    /// Refuses new jobs and files of a tenant when the store has no room for them. Uploads that have begun may go on: the store has little more of
    /// each at its end than while it runs.
    pub(super) async fn check_room_for(&self, tenant: &str) -> Result<(), JobError> {
        self.room.check_for(&self.store, tenant).await
    }

    /// The threads that compute, for what is done for a job besides receiving its files: on its tenant's account.
    pub(super) fn workers_for(&self, live: &Live) -> Workers {
        match live.owner() {
            Scope::Tenant(tenant) => self.workers.of(Arc::clone(tenant)),
            Scope::All => self.workers.clone(),
        }
    }

    /// The job, when it is shown on the board and reached.
    pub(super) fn live_job(&self, scope: &Scope, id: JobId) -> Option<Arc<Live>> {
        let board = self.board();
        let shown = board.get(&id).filter(|shown| shown.live.is_within(scope));
        shown.map(|shown| Arc::clone(&shown.live))
    }

    /// Every job that is shown on the board.
    pub(super) fn live_jobs(&self) -> Vec<Arc<Live>> {
        self.board().values().map(|shown| Arc::clone(&shown.live)).collect()
    }

    fn board(&self) -> MutexGuard<'_, HashMap<JobId, Shown>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a job that is about to begin.
    pub(super) fn enter_new(self: &Arc<Self>, job: Job) -> Presence {
        let id = job.id;
        let live = Arc::new(Live::new(job, &self.stopping));
        self.board().insert(id, Shown { live: Arc::clone(&live), presences: Some(1) });
        Presence { context: Arc::clone(self), id, live }
    }

    /// Shows a job until it is [forgotten](Self::forget_live).
    pub(super) fn keep_live(&self, id: JobId) {
        if let Some(shown) = self.board().get_mut(&id) {
            shown.presences = None;
        }
    }

    pub(super) fn forget_live(&self, id: JobId) {
        self.board().remove(&id);
    }

    /// Ends what is shown of a job that has been removed from the store, and its uploads.
    pub(super) fn end_removed(&self, live: &Live) {
        let mut job = Job::clone(&live.latest());
        self.forget_live(job.id);
        live.cancel();
        if !job.state.is_final() {
            job.end(State::Cancelled, Some(cancelled()), self.config.keep_finished);
            live.end(Arc::new(job));
        }
    }

    /// Shows a job that is reached, as long as something happens to it or its changes are watched.
    pub(super) async fn enter(self: &Arc<Self>, scope: &Scope, id: JobId) -> Result<Option<Presence>, StoreError> {
        let presence = |live| Presence { context: Arc::clone(self), id, live };
        if let Some(live) = self.join(scope, id) {
            return Ok(Some(presence(live)).filter(|presence| !presence.live.latest().has_expired()));
        }
        // Between the look into the store and the entry the job must not change.
        let _turn = self.entering.lock().await;
        if let Some(live) = self.join(scope, id) {
            return Ok(Some(presence(live)).filter(|presence| !presence.live.latest().has_expired()));
        }
        let goes_on = |job: &Job| !job.state.is_final() && !job.has_expired();
        let Some(job) = self.store.job(scope, id).await?.filter(goes_on) else {
            return Ok(None);
        };
        let live = {
            let live = Arc::new(Live::new(job, &self.stopping));
            let mut board = self.board();
            board.entry(id).or_insert_with(|| Shown { live, presences: Some(0) }).join()
        };
        let presence = presence(live);
        // One that was removed meanwhile was not yet on the board.
        if self.store.contains(id).await? {
            return Ok(Some(presence));
        }
        self.end_removed(&presence.live);
        Ok(None)
    }

    fn join(&self, scope: &Scope, id: JobId) -> Option<Arc<Live>> {
        self.board().get_mut(&id).filter(|shown| shown.live.is_within(scope)).map(Shown::join)
    }
}

/// A job on the board.
struct Shown {
    live: Arc<Live>,
    /// How many need it; none when it stays until it is forgotten.
    presences: Option<usize>,
}

impl Shown {
    fn join(&mut self) -> Arc<Live> {
        self.presences = self.presences.map(|presences| presences + 1);
        Arc::clone(&self.live)
    }
}

/// Keeps a job on the board.
pub(super) struct Presence {
    context: Arc<Context>,
    id: JobId,
    live: Arc<Live>,
}

impl Presence {
    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(super) fn id(&self) -> JobId {
        self.id
    }
}

impl Presence {
    /// What a writer of one of the job's files runs with.
    pub(super) fn run_with(&self, permit: TenantPermit) -> Arc<Running> {
        let over = self.live.latest().closes_itself.then(|| self.live.guard_over());
        Running::new(permit, over)
    }
}

impl Clone for Presence {
    fn clone(&self) -> Self {
        // The same entry, unless it has been forgotten: then it does not count.
        if let Some(shown) = self.context.board().get_mut(&self.id).filter(|shown| Arc::ptr_eq(&shown.live, &self.live))
        {
            shown.join();
        }
        Self { context: Arc::clone(&self.context), id: self.id, live: Arc::clone(&self.live) }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut board = self.context.board();
        let Some(shown) = board.get_mut(&self.id).filter(|shown| Arc::ptr_eq(&shown.live, &self.live)) else {
            return;
        };
        shown.presences = shown.presences.map(|presences| presences.saturating_sub(1));
        if shown.presences == Some(0) {
            board.remove(&self.id);
        }
    }
}
