//! Jobs from the first byte to the last download: states and transitions, live progress, and the store that outlives the process.
//!
//! [`Jobs`] has the verbs; an [`Upload`] is a job that is being received. Nothing here knows of HTTP.

mod board;
mod context;
mod error;
mod failure;
mod finish;
mod model;
mod publish;
mod receive;
mod reports;
mod results;
mod results_dir;
mod service;
pub mod store;
mod upkeep;

pub use board::Stopped;
pub use context::JobsConfig;
pub use error::JobError;
pub use failure::{Failure, FailureKind, Limit};
pub use model::{Details, FileId, FileState, Job, JobFile, JobId, JobOptions, Leader, Progress, State};
pub use receive::{FileOptions, FileUpload, Upload};
pub use reports::{fingerprint, hex};
pub use service::{Begun, FileOpened, Jobs, NewJob, OpenedJob, Subscription};
pub use store::{JobFilter, ResultFile, Store, StoreError};
