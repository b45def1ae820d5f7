//! Jobs from the first byte to the last download: states and transitions, live progress, and the store that outlives us.
//!
//! [`Jobs`] is the service; an [`Upload`] is a job that is being received. Nothing here knows of HTTP.

mod error;
mod job;
mod live;
mod publish;
mod reports;
mod results_dir;
mod service;
pub mod store;
mod upload;

pub use error::{Failure, FailureKind, JobError, Limit};
pub use job::{Details, FileState, Job, JobFile, JobId, JobOptions, Leader, Progress, State};
pub use live::Stopped;
pub use reports::{fingerprint, hex};
pub use service::{Begun, Jobs, JobsConfig, NewJob};
pub use store::{JobFilter, ResultFile, Store, StoreError};
pub use upload::{FileOptions, Upload};
