//! The disk that the database is on: the room that is left, a reserve for when there is none, and whether the database is still there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::iter::successors;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustix::fs::{FallocateFlags, StatVfsMountFlags, fallocate, statvfs};
use tokio::task::spawn_blocking;

use super::error::StoreError;
use super::lock::beside;

/// The size of the reserve: what `SQLite` needs to open a database, to end a job and to delete some. All that can be in the log has to go to the
/// database ahead of that: half a mebibyte that it waits for, and a transaction of a mebibyte, with some pages that have to change with it.
const RESERVE_BYTES: usize = 2 * 1024 * 1024;

/// The reserve is made only where this is free: it must not take the last room itself. One that was given is put back wherever it fits.
const RESERVE_NEEDS_BYTES: u64 = 2 * RESERVE_BYTES as u64;

/// Something is added only where this is free. The largest transactions write a mebibyte and a half: to the log, and then to the database.
pub const GROWTH_NEEDS_BYTES: u64 = 3 * 1024 * 1024;

/// With less room the database is not opened. The index of its log has at least 32 KiB (sqlite.org/walformat.html), and the log and the file
/// system need some, too.
const LOG_INDEX_NEEDS_BYTES: u64 = 64 * 1024;

/// The unit of what a file has of the disk (stat, `st_blocks`).
const BLOCK_BYTES: u64 = 512;

/// The reserve is put back in pieces of this size, as far as there is room.
const PIECE_BYTES: usize = 4 * 1024;

/// The disk below a database in a file.
#[derive(Clone, Debug)]
pub(super) struct Disk(Option<Arc<Place>>);

#[derive(Debug)]
struct Place {
    database: PathBuf,
    /// A file without meaning beside the database, `DB.reserve`. Emptying it makes room.
    reserve: PathBuf,
    /// Device and inode of the database's file once it has been opened.
    identity: OnceLock<(u64, u64)>,
    /// The index of the database's log. To close it would end the locks that `SQLite` has on it (POSIX, fcntl).
    log_index: OnceLock<File>,
}

/// How the disk is.
#[derive(Clone, Copy, Debug)]
pub struct DiskCondition {
    /// What an unprivileged process can still write. Nothing where the disk takes no writes. `u64::MAX` without a disk.
    pub free_bytes: u64,
    /// The file that was opened is the one that the address names.
    pub is_in_place: bool,
}

impl Disk {
    /// The disk of a database in this file; none for one that is in no file. Blocks on the file system.
    pub(super) fn of(database: Option<PathBuf>) -> io::Result<Self> {
        let Some(database) = database else {
            return Ok(Self(None));
        };
        let (database, reserve) = (beside(&database, "")?, beside(&database, ".reserve")?);
        let (identity, log_index) = (OnceLock::new(), OnceLock::new());
        Ok(Self(Some(Arc::new(Place { database, reserve, identity, log_index }))))
    }

    /// Makes room from the reserve where there is too little to open the database: that `SQLite` does not always survive.
    pub(super) async fn make_way(&self) {
        if self.condition().await.free_bytes < RESERVE_BYTES as u64 {
            self.give_reserve().await;
        }
    }

    /// Checks that there is room for the index of the database's log. Without room, a write to the index ends the process (SIGBUS).
    pub(super) async fn check_log_index(&self) -> Result<(), StoreError> {
        match self.run(None, Place::missing_for_log_index).await {
            Some(free_bytes) => Err(StoreError::NoRoomToOpen { free_bytes, needed_bytes: LOG_INDEX_NEEDS_BYTES }),
            None => Ok(()),
        }
    }

    /// Takes note of the database's file, which has been opened, and has room for all of the index of its log.
    pub(super) async fn note_opened(&self) {
        self.run((), |place| {
            if let Ok(identity) = place.current_identity() {
                place.identity.get_or_init(|| identity);
            }
            if let Err(error) = place.allocate_log_index() {
                tracing::debug!(%error, "the index of the database's log may have holes");
            }
        })
        .await;
    }

    /// Makes the reserve where it is missing and there is room for it. Puts back what was given, as far as there is room.
    pub(super) async fn keep_reserve(&self) {
        self.run((), Place::keep_reserve_if_possible).await;
    }

    /// Makes room for the caller from the reserve. Gives false when there is none left.
    pub(super) async fn give_reserve(&self) -> bool {
        self.run(false, |place| match place.give_reserve() {
            Ok(was_there) => {
                if was_there {
                    tracing::warn!(path = %place.reserve.display(), "the disk is full; its reserve is used");
                }
                was_there
            }
            Err(error) => {
                tracing::error!(path = %place.reserve.display(), %error, "the reserve cannot be used");
                false
            }
        })
        .await
    }

    /// True when something failed with this error for want of room.
    pub(super) async fn is_why(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Full(_) => true,
            // SQLite has many words for it.
            StoreError::Database(_) | StoreError::Migration(_) => {
                self.condition().await.free_bytes < RESERVE_NEEDS_BYTES
            }
            _ => false,
        }
    }

    /// Checks that there is room for a transaction that adds something, beside the reserve.
    pub(super) async fn check_growth(&self) -> Result<(), StoreError> {
        let free_bytes = self.run(u64::MAX, |place| place.free_bytes_beside_reserve().unwrap_or(u64::MAX)).await;
        if free_bytes < GROWTH_NEEDS_BYTES { Err(StoreError::HeldBack { free_bytes }) } else { Ok(()) }
    }

    /// How the disk is now.
    pub(super) async fn condition(&self) -> DiskCondition {
        let condition = DiskCondition { free_bytes: u64::MAX, is_in_place: true };
        self.run(condition, |place| DiskCondition {
            free_bytes: place.free_bytes().unwrap_or(u64::MAX),
            is_in_place: place
                .identity
                .get()
                .is_none_or(|known| place.current_identity().is_ok_and(|now| now == *known)),
        })
        .await
    }

    /// Runs what blocks on the file system. Gives `otherwise` without a disk.
    async fn run<T: Send + 'static>(&self, otherwise: T, work: impl FnOnce(&Place) -> T + Send + 'static) -> T {
        let Some(place) = self.0.clone() else {
            return otherwise;
        };
        spawn_blocking(move || work(&place)).await.unwrap_or(otherwise)
    }
}

impl Place {
    fn current_identity(&self) -> io::Result<(u64, u64)> {
        let metadata = fs::metadata(&self.database)?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// `SQLite` maps this file, and writes one byte of each of its pages of 4 KiB before. Where the file system has smaller blocks, the others
    /// are holes, and to write to one ends the process (SIGBUS) when the disk is full.
    fn allocate_log_index(&self) -> io::Result<()> {
        if self.log_index.get().is_some() {
            return Ok(());
        }
        let path = beside(&self.database, "-shm")?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let file = self.log_index.get_or_init(|| file);
        Ok(fallocate(file, FallocateFlags::empty(), 0, file.metadata()?.len())?)
    }

    /// Free bytes, if they are too few for an index of the log.
    fn missing_for_log_index(&self) -> Option<u64> {
        // An index that an earlier process left is freed when the database is opened, so its room counts as free.
        let index = beside(&self.database, "-shm").and_then(fs::metadata);
        let left_bytes = index.map_or(0, |index| index.blocks() * BLOCK_BYTES);
        let free_bytes = self.free_bytes().ok()?.saturating_add(left_bytes);
        (free_bytes < LOG_INDEX_NEEDS_BYTES).then_some(free_bytes)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let directory = self.database.parent().unwrap_or(&self.database);
        let disk = statvfs(directory)?;
        let takes_writes = !disk.f_flag.contains(StatVfsMountFlags::RDONLY);
        Ok(if takes_writes { disk.f_bavail.saturating_mul(disk.f_frsize) } else { 0 })
    }

    /// Free bytes. If they are enough to add something, the reserve is put back first.
    fn free_bytes_beside_reserve(&self) -> io::Result<u64> {
        let free_bytes = self.free_bytes()?;
        if free_bytes < GROWTH_NEEDS_BYTES {
            return Ok(free_bytes);
        }
        self.keep_reserve_if_possible();
        self.free_bytes()
    }

    fn keep_reserve_if_possible(&self) {
        if let Err(error) = self.keep_reserve() {
            tracing::warn!(path = %self.reserve.display(), %error, "no room can be kept back for a full disk");
        }
    }

    fn keep_reserve(&self) -> io::Result<()> {
        let present = fs::metadata(&self.reserve).ok().map(|metadata| metadata.len());
        if present.is_some_and(|length| length >= RESERVE_BYTES as u64)
            || (present.is_none() && self.free_bytes()? < RESERVE_NEEDS_BYTES)
        {
            return Ok(());
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.reserve)?;
        let start = present.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        let mut bytes = incompressible_bytes().take(RESERVE_BYTES).skip(start);
        loop {
            let piece: Vec<u8> = bytes.by_ref().take(PIECE_BYTES).collect();
            if piece.is_empty() {
                break;
            }
            match file.write_all(&piece) {
                // What is there is better than nothing.
                Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    break;
                }
                written => written?,
            }
        }
        file.sync_all()
    }

    fn give_reserve(&self) -> io::Result<bool> {
        let file = match OpenOptions::new().write(true).open(&self.reserve) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let was_there = file.metadata()?.len() > 0;
        file.set_len(0)?;
        Ok(was_there)
    }
}

/// An endless sequence of bytes that a file system with compression cannot shrink (xorshift64, Marsaglia 2003).
fn incompressible_bytes() -> impl Iterator<Item = u8> {
    let next = |state: &u64| {
        let state = state ^ (state << 13);
        let state = state ^ (state >> 7);
        Some(state ^ (state << 17))
    };
    successors(Some(0x9e37_79b9_7f4a_7c15), next).flat_map(u64::to_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_reserve_is_given_once_and_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::of(Some(directory.path().join("adtally.db"))).unwrap();
        assert!(!disk.give_reserve().await, "there is none yet");
        disk.keep_reserve().await;
        let reserve = directory.path().join("adtally.db.reserve");
        assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE_BYTES as u64);
        assert!(disk.give_reserve().await);
        assert_eq!(fs::metadata(&reserve).unwrap().len(), 0);
        assert!(!disk.give_reserve().await, "it is used up");
        disk.keep_reserve().await;
        assert!(disk.give_reserve().await);
    }

    #[tokio::test]
    async fn a_file_that_is_removed_or_replaced_is_not_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("adtally.db");
        let disk = Disk::of(Some(path.clone())).unwrap();
        fs::write(&path, "a").unwrap();
        disk.note_opened().await;
        assert!(disk.condition().await.is_in_place);
        fs::rename(&path, directory.path().join("other")).unwrap();
        assert!(!disk.condition().await.is_in_place);
        fs::write(&path, "a").unwrap();
        assert!(!disk.condition().await.is_in_place);
        fs::rename(directory.path().join("other"), &path).unwrap();
        assert!(disk.condition().await.is_in_place, "it was put back");
    }
}
