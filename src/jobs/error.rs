//! Why a request concerning a job is refused or fails, in the words of its sender.

use thiserror::Error;

use super::failure::{Failure, FailureKind};
use super::model::{Job, JobId, State};
use super::permits::NoPermit;
use super::store::StoreError;

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Full(_) | StoreError::HeldBack { .. } => {
                FailureKind::StorageFull.because("there is no room to store the results")
            }
            StoreError::ReadOnly(_) => FailureKind::StorageFull.because("the disk of the store is read-only"),
            _ => FailureKind::StoreUnavailable.because("the results could not be stored"),
        }
    }
}

/// Why a request concerning a job is refused, or failed.
#[derive(Debug, Error)]
pub enum JobError {
    /// There is no such job.
    #[error("there is no job with the id or name {0:?}")]
    NotFound(String),
    /// There was such a job.
    #[error("job {0} has expired and was removed with its results")]
    Expired(JobId),
    /// The job has no such result.
    #[error("job {} has no result {name:?}; it has {}", job.id, job.details.results.join(", "))]
    ResultNotFound {
        /// The job.
        job: Box<Job>,
        /// What was asked for.
        name: String,
    },
    /// The job has no results yet, or never will have.
    #[error("{}", no_results(job))]
    NotSucceeded {
        /// The job.
        job: Box<Job>,
    },
    /// The job has ended, or is about to: nothing of it changes any more.
    #[error("job {id} has ended: it is {} and does not change any more", state.name())]
    Ended {
        /// The job.
        id: JobId,
        /// How it ended.
        state: State,
    },
    /// The job has ended without results.
    #[error("{failure}")]
    Failed {
        /// The job.
        id: JobId,
        /// Why.
        failure: Failure,
    },
    /// The job has no such file.
    #[error("job {id} has no file {name:?}")]
    FileNotFound {
        /// The job.
        id: JobId,
        /// What was asked for.
        name: String,
    },
    /// A file was not received to its end, or cannot be used.
    #[error("{failure}")]
    FileFailed {
        /// The job, which goes on.
        id: JobId,
        /// Why.
        failure: Failure,
        /// Bytes of it that are stored: its sender may go on there.
        offset: Option<u64>,
    },
    /// The file goes on elsewhere.
    #[error("file {name:?} of job {id} goes on at byte {offset}")]
    OtherOffset {
        /// The job.
        id: JobId,
        /// The file.
        name: String,
        /// Bytes of it that are stored.
        offset: u64,
    },
    /// The file has contents that cannot be used.
    #[error("file {name:?} of job {id} cannot be used: send another one under its name, or delete it")]
    FileUnusable {
        /// The job.
        id: JobId,
        /// The file.
        name: String,
    },
    /// The file is read with other options.
    #[error("file {name:?} of job {id} was begun with other options: they are fixed")]
    OtherFormat {
        /// The job.
        id: JobId,
        /// The file.
        name: String,
    },
    /// The file has another length.
    #[error("file {name:?} of job {id} has {known} bytes, as was said before")]
    OtherLength {
        /// The job.
        id: JobId,
        /// The file.
        name: String,
        /// Its length.
        known: u64,
    },
    /// There is another file of this name, all of which has been received.
    #[error("file {name:?} of job {id} is complete: delete it first, or send this one under another name")]
    FileComplete {
        /// The job.
        id: JobId,
        /// The file.
        name: String,
    },
    /// A request wants to create a file that exists and is not complete. Another sender may have created it.
    #[error("file {name:?} of job {id} waits for its next bytes: go on with it, delete it, or choose another name")]
    FileIncomplete {
        /// The job.
        id: JobId,
        /// The file.
        name: String,
    },
    /// Another request is sending the file.
    #[error("file {name:?} of job {id} is being received already")]
    FileBeingReceived {
        /// The job.
        id: JobId,
        /// The file.
        name: String,
    },
    /// The job has as many files as it may have.
    #[error("job {id} has {max_files} files, as many as a job may have; the limit is max_files")]
    TooManyFiles {
        /// The job.
        id: JobId,
        /// The limit in force.
        max_files: usize,
    },
    /// The job finishes with the request that made it.
    #[error(
        "job {0} finishes with the upload that made it: files are added to jobs made by POST with application/json"
    )]
    ClosesItself(JobId),
    /// The job's results are being made.
    #[error("the results of job {0} are being made; try again in a moment")]
    Finishing(JobId),
    /// Not all files of the job are complete.
    #[error("these files of job {id} are not complete: {}; send them again or delete them", quoted(names))]
    FilesIncomplete {
        /// The job.
        id: JobId,
        /// The files.
        names: Vec<String>,
    },
    /// The job has no file.
    #[error("job {0} has no file yet: send some by PUT /v1/jobs/{0}/files/NAME")]
    NoFiles(JobId),
    /// As many jobs are open as may be.
    #[error("{max_open_jobs} jobs are open, as many as may be; complete or delete some")]
    TooManyOpenJobs {
        /// The limit in force.
        max_open_jobs: u64,
    },
    /// As many jobs of the tenant are open as may be.
    #[error("{max_open_jobs_per_tenant} jobs of this tenant are open, as many as may be; complete or delete some")]
    TooManyOpenJobsOfTenant {
        /// The limit in force.
        max_open_jobs_per_tenant: u64,
    },
    /// The store has as much as it may.
    #[error("the store has no room for more; delete jobs, or wait until some expire; the limit is max_stored_bytes")]
    StoreFull {
        /// The limit in force.
        max_stored_bytes: u64,
    },
    /// The tenant has as much in the store as it may.
    #[error(
        "what is stored of this tenant's jobs is as much as may be; delete some, or wait until some expire; the limit is max_stored_bytes_per_tenant"
    )]
    TenantStoreFull {
        /// The limit in force.
        max_stored_bytes_per_tenant: u64,
    },
    /// The disk of the store has too little room left.
    #[error(
        "the store's disk has {free_bytes} bytes left, and {disk_reserve_bytes} are kept free; delete jobs, or wait until some expire; \
         the limit is disk_reserve_bytes"
    )]
    DiskFull {
        /// What is left.
        free_bytes: u64,
        /// The limit in force.
        disk_reserve_bytes: u64,
    },
    /// As many uploads are running as may.
    #[error("{max_concurrent_uploads} uploads are running, as many as may; try again in a moment")]
    TooManyUploads {
        /// The limit in force.
        max_concurrent_uploads: usize,
    },
    /// The job was to be made only if there is none of its name.
    #[error("there is a job of the name {name:?} already: {id}")]
    NameTaken {
        /// The job that has it.
        id: JobId,
        /// The name.
        name: String,
    },
    /// All memory for uploads is taken.
    #[error("all memory for uploads is taken; try again in a moment")]
    MemoryBudget {
        /// The limit in force.
        memory_budget_bytes: u64,
    },
    /// As many uploads of the caller's tenant are running as may.
    #[error("{max_uploads_per_tenant} uploads of this tenant are running, as many as may; try again in a moment")]
    TooManyUploadsOfTenant {
        /// The limit in force.
        max_uploads_per_tenant: usize,
    },
    /// The server is about to stop.
    #[error("the server is stopping and takes no new uploads; try again in a moment")]
    Draining,
    /// The first upload with this key is still running.
    #[error("job {0}, created with the same Idempotency-Key, is still being received")]
    IdempotencyKeyInUse(JobId),
    /// The key was used for something else.
    #[error("the Idempotency-Key was used for job {0}, which has another name, other options or other contents")]
    IdempotencyKeyReused(JobId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// As many uploads run as may.
impl From<NoPermit> for JobError {
    fn from(refused: NoPermit) -> Self {
        match refused {
            NoPermit::InAll { max } => Self::TooManyUploads { max_concurrent_uploads: max },
            NoPermit::OfTenant { max } => Self::TooManyUploadsOfTenant { max_uploads_per_tenant: max },
        }
    }
}

impl JobError {
    /// What a job or file failed of.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Failed { failure, .. } | Self::FileFailed { failure, .. } => failure,
            Self::Store(error) => Failure::from(&error),
            Self::MemoryBudget { memory_budget_bytes } => {
                FailureKind::MemoryBudget.because(self.to_string()).with_limit("memory_budget", memory_budget_bytes)
            }
            other => FailureKind::Internal.because(other.to_string()),
        }
    }
}

/// At most ten names.
fn quoted(names: &[String]) -> String {
    let mut quoted: Vec<_> = names.iter().take(10).map(|name| format!("{name:?}")).collect();
    if names.len() > quoted.len() {
        quoted.push(format!("and {} more", names.len() - quoted.len()));
    }
    quoted.join(", ")
}

fn no_results(job: &Job) -> String {
    let Job { id, state, .. } = job;
    match state {
        State::Failed | State::Cancelled => format!("job {id} has {} and has no results", ended(*state)),
        _ => format!("job {id} is {}: results are there once it has succeeded", state.name()),
    }
}

fn ended(state: State) -> &'static str {
    if state == State::Cancelled { "been cancelled" } else { "failed" }
}
