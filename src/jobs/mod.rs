//! Jobs from the first byte to the last download: states and transitions, live progress, and the store that outlives the process.
//!
//! [`Jobs`] is the service, [`TenantJobs`] has the verbs of a caller; a [`FileUpload`] is a file that is being received. Nothing here knows of HTTP.

mod access;
mod begin;
mod board;
mod checkpoint;
mod context;
mod durable;
mod error;
mod failure;
mod file_options;
mod find;
mod finish;
mod form;
mod live_file;
mod memory;
mod model;
mod observer;
mod options;
mod permits;
mod publish;
mod receive;
mod reports;
mod results;
mod results_dir;
mod room;
mod service;
pub mod store;
mod upkeep;
mod watched;

pub use access::{Access, Scope};
pub use begin::{Begun, FileOpened, NewJob};
pub use board::Stopped;
pub use context::JobsConfig;
pub use error::JobError;
pub use failure::{Failure, FailureKind, Limit, SkippedRows};
pub use file_options::{BodyEnd, FileOptions};
pub use form::FormUpload;
pub use memory::MIN_MEMORY_BUDGET_BYTES;
pub use model::{Details, FileFormat, FileId, FileState, Job, JobFile, JobId, Leader, Progress, State};
pub use options::{InvalidOption, JobOptions};
pub use permits::{NoPermit, TenantPermit, TenantPermits};
pub use receive::FileUpload;
pub use reports::{fingerprint, hex};
pub use service::{Jobs, Subscription, TenantJobs};
pub use store::{DatabaseLock, JobFilter, JobPage, OpenJobLimits, ResultFile, Store, StoreError};
