//! One process owns a database in a file: at its start it ends the jobs that an earlier one left behind.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::dialect::Dialect;
use super::error::StoreError;

/// Held while this process uses a database; gone with the process, however it ends.
///
/// The lock is on a file beside the database, `DB.lock`. The database's own file is never opened here: closing it would drop
/// the locks that `SQLite` holds on it (<https://www.sqlite.org/howtocorrupt.html>, 2.2).
#[derive(Debug)]
pub struct DatabaseLock {
    _file: Option<File>,
}

impl DatabaseLock {
    /// Locks the database at this address. One that is not in a file needs no lock. Blocks on the file system.
    ///
    /// # Errors
    /// When another process holds the lock, or the file cannot be made.
    pub fn acquire(url: &str) -> Result<Self, StoreError> {
        let Some(path) = lock_file(url)? else {
            return Ok(Self { _file: None });
        };
        let failed = |error| StoreError::Lock { path: path.clone(), error };
        let lock = File::create(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _file: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Checks that no other process holds the lock, and makes no file for that. Blocks on the file system.
    ///
    /// # Errors
    /// When another process holds it, or the address is unknown.
    pub fn check(url: &str) -> Result<(), StoreError> {
        match lock_file(url) {
            Ok(Some(path)) if path.exists() => Self::acquire(url).map(drop),
            checked => checked.map(drop),
        }
    }
}

/// The file beside the database at this address; none when that is not in a file.
fn lock_file(url: &str) -> Result<Option<PathBuf>, StoreError> {
    let Some(database) = Dialect::of_url(url).map_err(StoreError::unknown_database)?.file_of(url)? else {
        return Ok(None);
    };
    beside(&database, ".lock").map(Some).map_err(|error| StoreError::Lock { path: database, error })
}

/// Links that lead to links are followed this often.
const MAX_LINKS: usize = 40;

/// The file of this suffix beside a database. Links are followed, also to a database that is still to be made: they lead to the same one.
pub(super) fn beside(database: &Path, suffix: &str) -> io::Result<PathBuf> {
    let mut database = database.to_path_buf();
    for _ in 0..MAX_LINKS {
        let directory = database.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = fs::canonicalize(directory)?;
        database = directory.join(database.file_name().unwrap_or_default());
        match fs::read_link(&database) {
            Ok(target) => database = directory.join(target),
            // It is no link, or not there.
            Err(_) => break,
        }
    }
    let mut name = OsString::from(database);
    name.push(suffix);
    Ok(name.into())
}
