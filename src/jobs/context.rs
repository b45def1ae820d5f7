//! What the parts of the jobs layer share.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::Live;
use super::error::JobError;
use super::model::{JobId, JobOptions};
use super::results_dir::ResultsDir;
use super::store::{DatabaseLock, Store, StoreError};
use crate::engine::{Kernel, Limits, TallyOptions};
use crate::ingest::{Coding, PipelineOptions, Workers};

/// How the service runs.
#[derive(Clone, Debug)]
pub struct JobsConfig {
    /// The database's address.
    pub database_url: String,
    /// Where results also appear as files.
    pub results_dir: Option<PathBuf>,
    /// Threads that parse.
    pub parser_threads: NonZeroUsize,
    /// Uploads at once; more are refused.
    pub max_concurrent_uploads: usize,
    /// What a single file may make grow.
    pub limits: Limits,
    /// The most bytes that may come out of decompression.
    pub max_text_bytes: u64,
    /// How many times more bytes may come out of decompression than went in.
    pub max_decompression_ratio: u64,
    /// How long jobs are kept after they have ended.
    pub keep_finished: SignedDuration,
}

/// The store, the threads and the running jobs.
pub(super) struct Context {
    pub(super) config: JobsConfig,
    pub(super) store: Store,
    pub(super) results_dir: Option<ResultsDir>,
    pub(super) workers: Workers,
    /// Owns every task that outlives its request.
    pub(super) tracker: TaskTracker,
    /// One permit for each upload that may run.
    pub(super) upload_permits: Arc<Semaphore>,
    /// Cancelled when no new uploads are taken.
    pub(super) draining: CancellationToken,
    /// Cancelled when running uploads end.
    pub(super) stopping: CancellationToken,
    live: Mutex<HashMap<JobId, Arc<Live>>>,
    /// Released after the store.
    _lock: DatabaseLock,
}

impl Context {
    /// Locks and opens the store.
    pub(super) async fn open(config: JobsConfig) -> Result<Arc<Self>, StoreError> {
        let url = config.database_url.clone();
        let lock = spawn_blocking(move || DatabaseLock::acquire(&url)).await;
        let lock = lock.map_err(|error| StoreError::Output(error.to_string()))??;
        Ok(Arc::new(Self {
            store: Store::open(&config.database_url).await?,
            results_dir: config.results_dir.clone().map(ResultsDir::new),
            workers: Workers::new(config.parser_threads),
            tracker: TaskTracker::new(),
            upload_permits: Arc::new(Semaphore::new(config.max_concurrent_uploads)),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            live: Mutex::default(),
            config,
            _lock: lock,
        }))
    }

    pub(super) fn pipeline_options(
        &self,
        options: &JobOptions,
        coding: Option<Coding>,
        with_digest: bool,
    ) -> PipelineOptions {
        PipelineOptions {
            tally: TallyOptions {
                delimiter: options.delimiter,
                has_header: options.has_header,
                limits: self.config.limits,
                kernel: Kernel::Detect,
            },
            encoding: options.encoding,
            coding,
            max_text_bytes: self.config.max_text_bytes,
            max_decompression_ratio: self.config.max_decompression_ratio,
            with_digest,
        }
    }

    /// Permits one more upload.
    pub(super) fn permit_upload(&self) -> Result<OwnedSemaphorePermit, JobError> {
        let max_concurrent_uploads = self.config.max_concurrent_uploads;
        let permit = Arc::clone(&self.upload_permits).try_acquire_owned();
        permit.map_err(|_| JobError::TooManyUploads { max_concurrent_uploads })
    }

    /// The job, when it is being received.
    pub(super) fn live_job(&self, id: JobId) -> Option<Arc<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Every job that is being received.
    pub(super) fn live_jobs(&self) -> Vec<Arc<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn show_live(&self, id: JobId, live: &Arc<Live>) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(live));
    }

    pub(super) fn forget_live(&self, id: JobId) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}
