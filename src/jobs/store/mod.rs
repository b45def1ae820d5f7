//! Jobs and their results, kept for good.
//!
//! The SQL is the same for every database as far as it goes; what differs between them is in `dialect`. What is reported as done has been
//! committed and synced.

mod checkpoints;
mod database;
mod dialect;
mod disk;
mod error;
mod files;
mod jobs;
mod lock;
mod reject_blocks;
mod results;
mod sql;

pub use checkpoints::{Checkpoint, CheckpointId, ResumedFile};
pub use database::Store;
pub use disk::{DiskCondition, GROWTH_NEEDS_BYTES};
pub use error::StoreError;
pub use files::{ChangedBy, Finishing, FinishingBegun, JobClosed, OpenedFile, StoredFile, Writer};
pub use jobs::{EndedBy, Inserted, JobFilter, JobPage, OpenJobLimits};
pub use lock::DatabaseLock;
pub use reject_blocks::NewBlocks;
pub(super) use results::STATS_NAME;
pub use results::{Output, ResultFile, ResultPiece};
