//! Why the store could not do something.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::dialect::{is_full, is_read_only};

/// Why the store could not do something.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The address names no database that is supported. Only what it starts with is told: the rest may hold a password.
    #[error("not an address of a database that is supported ({scheme:?}): expected sqlite://PATH")]
    UnknownDatabase {
        /// What the address starts with.
        scheme: String,
    },
    /// Another process uses the database.
    #[error("another adtally uses this database: it has locked {}", path.display())]
    InUse {
        /// The file that is locked.
        path: PathBuf,
    },
    /// The database cannot be locked.
    #[error("the database cannot be locked: {}: {error}", path.display())]
    Lock {
        /// The file to be locked.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The disk is full, or a quota used up.
    #[error("the database has no room: {0}")]
    Full(#[source] sqlx::Error),
    /// The disk takes no writes.
    #[error("the database takes no writes, its disk is read-only: {0}")]
    ReadOnly(#[source] sqlx::Error),
    /// The disk has little room left, which only what deletes or ends something may use.
    #[error(
        "the database has no room: its disk has {free_bytes} bytes left, which are held back for deleting and ending jobs"
    )]
    HeldBack {
        /// What the disk has left.
        free_bytes: u64,
    },
    /// The disk has too little room to open the database.
    #[error(
        "the database cannot be opened: its disk has {free_bytes} bytes left, and {needed_bytes} are needed; make some room"
    )]
    NoRoomToOpen {
        /// What the disk has left.
        free_bytes: u64,
        /// What it has to have.
        needed_bytes: u64,
    },
    /// The database that was opened is no longer the one at its address: what is stored now would be lost.
    #[error(
        "the database's file was removed or replaced while the service ran: put it back, or start the service again"
    )]
    Removed,
    /// Something else that the database refuses.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
    /// The database was made by a version of this program that does not fit.
    #[error("the database's tables are not those of this version: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A record that does not make sense.
    #[error("the database holds a damaged record: {0}")]
    Damaged(String),
    /// The service cannot compute.
    #[error("the threads that parse cannot be started: {0}")]
    NoThreads(#[source] io::Error),
    /// The results could not be made.
    #[error("the results could not be made: {0}")]
    Output(String),
}

impl StoreError {
    pub(super) fn unknown_database(scheme: &str) -> Self {
        Self::UnknownDatabase { scheme: scheme.into() }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            error if is_full(&error) => Self::Full(error),
            error if is_read_only(&error) => Self::ReadOnly(error),
            // Another type than the column has, or bytes that are no text.
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Damaged(error.to_string()),
            error => Self::Database(error),
        }
    }
}
