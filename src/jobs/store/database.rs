//! The connection to the database, and the turn of its one writer.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, Connection as _, Row as _, Transaction};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;

use super::dialect::{Dialect, file_url, is_lost_at_exit};
use super::disk::{Disk, DiskCondition};
use super::error::StoreError;
use super::sql;

/// Connections at once.
const MAX_CONNECTIONS: u32 = 4;

/// The database.
pub struct Store {
    pub(super) pool: AnyPool,
    dialect: Dialect,
    /// Held while writing: `SQLite` has one writer, and the others wait in order.
    writing: Mutex<()>,
    /// The last write was not committed. If that was for want of room, the next one needs some.
    needs_room: AtomicBool,
    disk: Disk,
}

/// The turn of one writer.
pub(super) struct Turn<'a> {
    _writing: MutexGuard<'a, ()>,
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
        let opened = match Self::open_on(url, dialect, disk.clone()).await {
            Err(error) if disk.gave_reserve_for(&error).await => Self::open_on(url, dialect, disk.clone()).await,
            opened => opened,
        };
        disk.note_opened().await;
        disk.keep_reserve().await;
        opened
    }

    async fn open_on(url: &str, dialect: Dialect, disk: Disk) -> Result<Self, StoreError> {
        // The pool would try again and again what cannot be.
        let mut connection = AnyConnection::connect(&dialect.connection_url(url)).await?;
        dialect.prepare(&mut connection).await?;
        connection.close().await?;
        let pool = AnyPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            // After some errors the database has ended the transaction by itself, and the connection does not know.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .after_connect(move |connection, _| Box::pin(dialect.prepare(connection)))
            .connect(&dialect.existing_url(url))
            .await?;
        dialect.migrator().run(&pool).await?;
        Ok(Self { pool, dialect, writing: Mutex::new(()), needs_room: AtomicBool::new(false), disk })
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
        self.disk.keep_reserve().await;
        self.disk.condition().await
    }

    /// Checks that the database takes writes, when the last one was not committed.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check_writes(&self) -> Result<(), StoreError> {
        if !self.needs_room.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (turn, mut transaction) = self.begin().await?;
        sqlx::query(self.dialect.trial_write()).execute(&mut *transaction).await?;
        turn.commit(transaction).await
    }

    /// True when the caller, which frees room or ends something, failed for want of room and should try once more: it has the reserve now.
    pub(super) async fn gave_reserve_for(&self, error: &StoreError) -> bool {
        self.disk.gave_reserve_for(error).await
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
        let writing = self.writing.lock().await;
        if self.needs_room.swap(false, Ordering::Relaxed)
            && let Err(error) = self.dialect.make_room(&self.pool).await
        {
            tracing::error!(%error, "no room could be made in the database");
        }
        Turn { _writing: writing, needs_room: &self.needs_room, has_committed: false }
    }

    pub(super) async fn begin(&self) -> Result<(Turn<'_>, Transaction<'static, sqlx::Any>), StoreError> {
        let turn = self.turn().await;
        let transaction = self.pool.begin_with(self.dialect.begin()).await?;
        Ok((turn, transaction))
    }
}
