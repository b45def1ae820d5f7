//! The connection to the database, and the turn of its one writer.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, Connection as _, Row as _, Transaction};
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::task::spawn_blocking;

use super::dialect::{Dialect, file_url, is_lost_at_exit};
use super::disk::{Disk, DiskCondition};
use super::error::StoreError;
use super::sql;

/// Connections at once.
const MAX_CONNECTIONS: u32 = 4;

/// What a record takes in the log, with its indexes: about a dozen pages.
const RECORD_BYTES: usize = 48 * 1024;

/// When this much has been added since the last check, the next writer checks that the log can be written back to the database.
const CHECKED_LOG_BYTES: usize = 512 * 1024;

/// The most steps of giving back, each of 256 KiB, that one writer waits for. Without a limit it could wait for long, while another program
/// takes what each step frees.
const MAX_STEPS_TO_GROW: usize = 32;

/// The database.
pub struct Store {
    pub(super) pool: AnyPool,
    dialect: Dialect,
    /// Held while writing: `SQLite` has one writer, and the others wait in order.
    writing: Mutex<Log>,
    /// The last write was not committed. If that was for want of room, the next one needs some.
    needs_room: AtomicBool,
    disk: Disk,
    /// Held by the one that has the reserve.
    has_reserve: Mutex<()>,
    /// While it is open, the log and its index stay where they are: `SQLite` removes them with the last connection, and their room would be
    /// lost to others. None once the store is closed.
    anchor: Mutex<Option<AnyConnection>>,
    /// Told when there is too little room.
    shortage: Notify,
}

/// What is known of the database's log.
#[derive(Debug, Default)]
struct Log {
    /// About what was added since the log was last seen to go to the database.
    unchecked_bytes: usize,
}

/// The turn of one writer.
pub(super) struct Turn<'a> {
    log: MutexGuard<'a, Log>,
    needs_room: &'a AtomicBool,
    pub(super) has_committed: bool,
}

impl Turn<'_> {
    pub(super) async fn commit(mut self, transaction: Transaction<'static, sqlx::Any>) -> Result<(), StoreError> {
        transaction.commit().await?;
        self.has_committed = true;
        Ok(())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.has_committed {
            self.needs_room.store(true, Ordering::Relaxed);
        }
    }
}

impl Store {
    /// Opens the database at this address, and makes it if need be.
    ///
    /// # Errors
    /// When the address is unknown, or the database cannot be opened or brought up to date.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of_url(url).map_err(StoreError::unknown_database)?;
        let database = dialect.file_of(url)?;
        let disk = spawn_blocking(move || Disk::of(database)).await.map_err(io::Error::other).flatten();
        let disk = disk.map_err(|error| StoreError::Database(error.into()))?;
        disk.make_way().await;
        let opened = match Self::open_on(url, dialect, disk.clone()).await {
            Err(error) if disk.is_why(&error).await => {
                disk.give_reserve().await;
                Self::open_on(url, dialect, disk.clone()).await
            }
            opened => opened,
        };
        disk.note_opened().await;
        disk.keep_reserve().await;
        opened
    }

    async fn open_on(url: &str, dialect: Dialect, disk: Disk) -> Result<Self, StoreError> {
        disk.check_log_index().await?;
        // The pool would try again and again what cannot be.
        let mut anchor = AnyConnection::connect(&dialect.connection_url(url)).await?;
        dialect.prepare_new(&mut anchor).await?;
        dialect.prepare(&mut anchor).await?;
        let pool = AnyPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            // After some errors the database has ended the transaction by itself, and the connection does not know.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .after_connect(move |connection, _| Box::pin(dialect.prepare(connection)))
            .connect(&dialect.existing_url(url))
            .await?;
        dialect.migrator().run(&pool).await?;
        Ok(Self {
            pool,
            dialect,
            writing: Mutex::default(),
            needs_room: AtomicBool::new(false),
            disk,
            has_reserve: Mutex::default(),
            anchor: Mutex::new(Some(anchor)),
            shortage: Notify::new(),
        })
    }

    /// The address of a database in a file.
    #[must_use]
    pub fn file_url(path: &Path) -> String {
        file_url(path)
    }

    /// True for the address of a database that is in no file with a name: the service cannot keep jobs in it.
    #[must_use]
    pub fn is_lost_at_exit(url: &str) -> bool {
        is_lost_at_exit(url)
    }

    /// Finishes what is going on and lets go of the database.
    pub async fn close(&self) {
        self.pool.close().await;
        if let Some(anchor) = self.anchor.lock().await.take()
            && let Err(error) = anchor.close().await
        {
            tracing::error!(%error, "the database could not be closed as it should");
        }
        // The log is gone, and its room is there.
        self.disk.keep_reserve().await;
    }

    /// Checks that the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<(), StoreError> {
        sqlx::query(sql::CHECK).fetch_optional(&self.pool).await?;
        Ok(())
    }

    /// How the disk of the database is. Makes its reserve again when there is room.
    pub async fn disk_condition(&self) -> DiskCondition {
        // What has the reserve puts it back itself.
        if let Ok(_has_reserve) = self.has_reserve.try_lock() {
            self.disk.keep_reserve().await;
        }
        self.disk.condition().await
    }

    /// Checks that there is room to add something, and that the database takes writes when the last one was not committed.
    ///
    /// # Errors
    /// When there is none, or it does not.
    pub async fn check_writes(&self) -> Result<(), StoreError> {
        self.disk.check_growth().await?;
        if !self.needs_room.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (turn, mut transaction) = self.begin_growing().await?;
        sqlx::query(self.dialect.trial_write()).execute(&mut *transaction).await?;
        turn.commit(transaction).await
    }

    /// Does what frees room or ends something. When that fails for want of room, it is done once more with the reserve, which is put back
    /// then: the next one needs it, too.
    pub(super) async fn with_reserve<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let first = attempt().await;
        match &first {
            Err(error) if self.disk.is_why(error).await => {}
            _ => return first,
        }
        let _has_reserve = self.has_reserve.lock().await;
        self.disk.give_reserve().await;
        // Pages in the log that the database has no room for would keep the log from being emptied.
        self.needs_room.store(true, Ordering::Relaxed);
        let second = attempt().await;
        self.needs_room.store(true, Ordering::Relaxed);
        // What was freed comes back to the disk step by step, and the room for further steps with it.
        if let Err(error) = Box::pin(self.give_back_some()).await {
            tracing::warn!(%error, "unused room of the database could not be given back");
        }
        self.disk.keep_reserve().await;
        second
    }

    /// Gives some of the pages that are not used back to the disk. Gives false when there are none, also in a database that an earlier version
    /// has made: those keep their size.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn give_back_some(&self) -> Result<bool, StoreError> {
        let mut turn = self.turn().await;
        let gave = self.give_back_step().await?;
        turn.has_committed = true;
        Ok(gave)
    }

    async fn give_back_step(&self) -> Result<bool, StoreError> {
        let gave = self.dialect.give_back_pages(&self.pool).await?;
        self.dialect.empty_log(&self.pool).await?;
        Ok(gave)
    }

    /// Waits until there is too little room for something.
    pub async fn shortage(&self) {
        self.shortage.notified().await;
    }

    /// Tells the one who waits for a [`shortage`](Self::shortage).
    pub fn note_shortage(&self) {
        self.shortage.notify_one();
    }

    /// Bytes that the database has in use: what was freed and can be used again does not count.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn stored_bytes(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(self.dialect.stored_bytes()).fetch_one(&self.pool).await?;
        u64::try_from(row.try_get::<i64, _>(0)?).map_err(|error| StoreError::Damaged(error.to_string()))
    }

    /// Bytes that the jobs of a tenant take, but for what the database needs to keep them in order.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn stored_bytes_of(&self, tenant: &str) -> Result<u64, StoreError> {
        let row = sqlx::query(sql::STORED_BYTES_OF_TENANT).bind(tenant.to_owned()).fetch_one(&self.pool).await?;
        u64::try_from(row.try_get::<i64, _>(0)?).map_err(|error| StoreError::Damaged(error.to_string()))
    }

    /// Waits until the caller is the only writer.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let log = self.writing.lock().await;
        if self.needs_room.load(Ordering::Relaxed) {
            // In a box: it is rare, and its future large.
            match Box::pin(self.make_room()).await {
                Ok(()) => self.needs_room.store(false, Ordering::Relaxed),
                Err(error) => {
                    // The one whose turn it is may free some, so that the next one finds it.
                    tracing::error!(%error, "no room could be made in the database");
                    self.note_shortage();
                }
            }
        }
        Turn { log, needs_room: &self.needs_room, has_committed: false }
    }

    /// Empties the log. Pages in it that the database has no room for need none once they are unused and given back.
    async fn make_room(&self) -> Result<(), sqlx::Error> {
        loop {
            let Err(error) = self.dialect.empty_log(&self.pool).await else {
                return Ok(());
            };
            if !self.dialect.give_back_pages(&self.pool).await? {
                return Err(error);
            }
        }
    }

    /// Gives back what the database does not use until there is room on the disk to add something.
    async fn make_room_to_grow(&self) -> Result<(), StoreError> {
        for _ in 0..MAX_STEPS_TO_GROW {
            if !matches!(self.give_back_step().await, Ok(true)) {
                break;
            }
            if self.disk.check_growth().await.is_ok() {
                return Ok(());
            }
        }
        self.disk.check_growth().await.inspect_err(|_| self.note_shortage())
    }

    /// Begins a transaction that adds a record.
    ///
    /// # Errors
    /// As [`Self::begin_growing_by`].
    pub(super) async fn begin_growing(&self) -> Result<(Turn<'_>, Transaction<'static, sqlx::Any>), StoreError> {
        self.begin_growing_by(0).await
    }

    /// Begins a transaction that adds a record and about this number of further bytes.
    ///
    /// # Errors
    /// When the database refuses, there is only the room that is held back, or what was added before does not go from the log to the
    /// database: if both could grow no further, nothing could be deleted.
    pub(super) async fn begin_growing_by(
        &self,
        bytes: usize,
    ) -> Result<(Turn<'_>, Transaction<'static, sqlx::Any>), StoreError> {
        let mut turn = self.turn().await;
        if self.disk.check_growth().await.is_err() {
            Box::pin(self.make_room_to_grow()).await?;
        }
        if turn.log.unchecked_bytes >= CHECKED_LOG_BYTES {
            if self.dialect.check_log(&self.pool).await.is_err() {
                Box::pin(self.make_room()).await?;
            }
            turn.log.unchecked_bytes = 0;
        }
        turn.log.unchecked_bytes += RECORD_BYTES + bytes;
        let transaction = self.pool.begin_with(self.dialect.begin()).await?;
        Ok((turn, transaction))
    }

    /// Begins a transaction that takes next to no room, or frees some.
    pub(super) async fn begin(&self) -> Result<(Turn<'_>, Transaction<'static, sqlx::Any>), StoreError> {
        let turn = self.turn().await;
        let transaction = self.pool.begin_with(self.dialect.begin()).await?;
        Ok((turn, transaction))
    }
}
