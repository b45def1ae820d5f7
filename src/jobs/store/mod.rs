//! Jobs and their results, kept for good.
//!
//! The SQL is the same for every database as far as it goes; what differs between them is in `dialect`. Whatever is
//! reported as done has been committed and synced.

mod dialect;
mod results;
mod sql;

use std::path::Path;

use jiff::Timestamp;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::{AnyConnection, AnyPool, Connection as _, Row as _, Transaction};
use thiserror::Error;
use tokio::sync::{Mutex, MutexGuard};

pub(super) use results::STATS_NAME;
pub use results::{Output, ResultFile, ResultPiece};

use super::error::Failure;
use super::job::{Details, Job, JobId, State, now};
use dialect::Dialect;

/// Connections at once.
const MAX_CONNECTIONS: u32 = 4;

/// How long an id is remembered after its job has expired.
const REMEMBER_EXPIRED: jiff::SignedDuration = jiff::SignedDuration::from_hours(24 * 90);

/// Why the store could not do something.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The address names no database that is supported. Only what it starts with is told: the rest may hold a password.
    #[error("not an address of a database that is supported ({scheme:?}): expected sqlite://PATH")]
    UnknownDatabase {
        /// What the address starts with.
        scheme: String,
    },
    /// The disk is full, or a quota used up.
    #[error("the database has no room: {0}")]
    Full(#[source] sqlx::Error),
    /// Something else that the database refuses.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
    /// The database was made by a version of this program that does not fit.
    #[error("the database's tables are not those of this version: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A record that does not make sense.
    #[error("the database holds a damaged record: {0}")]
    Damaged(String),
    /// The results could not be made.
    #[error("the results could not be made: {0}")]
    Output(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if dialect::is_full(&error) { Self::Full(error) } else { Self::Database(error) }
    }
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those of this name.
    pub name: Option<String>,
    /// Only those that began before this one.
    pub before: Option<JobId>,
    /// At most so many.
    pub limit: u32,
}

/// How the attempt to add a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    Done,
    /// Its idempotency key is taken.
    KeyTaken,
}

/// The database.
pub struct Store {
    pool: AnyPool,
    dialect: Dialect,
    /// Held while writing: `SQLite` has one writer, and those who wait are to take turns.
    writing: Mutex<()>,
}

impl Store {
    /// Opens the database at this address, and makes it if need be.
    ///
    /// # Errors
    /// When the address is unknown, or the database cannot be opened or brought up to date.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(url).ok_or_else(|| StoreError::UnknownDatabase {
            scheme: url.split_once(':').map_or("", |(scheme, _)| scheme).into(),
        })?;
        // The pool would try again and again what cannot be.
        let mut connection = AnyConnection::connect(&dialect.connection_url(url)).await?;
        dialect.prepare(&mut connection).await?;
        connection.close().await?;
        let pool = AnyPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            // After some errors the database has ended the transaction by itself, and the connection does not know.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .after_connect(move |connection, _| Box::pin(dialect.prepare(connection)))
            .connect(&dialect.connection_url(url))
            .await?;
        dialect.migrator().run(&pool).await?;
        Ok(Self { pool, dialect, writing: Mutex::new(()) })
    }

    /// The address of a database in a file.
    #[must_use]
    pub fn file_url(path: &Path) -> String {
        dialect::file_url(path)
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

    async fn begin(&self) -> Result<(MutexGuard<'_, ()>, Transaction<'static, sqlx::Any>), StoreError> {
        let turn = self.writing.lock().await;
        let transaction = self.pool.begin_with(self.dialect.begin()).await?;
        Ok((turn, transaction))
    }

    /// Adds a job.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn insert(&self, job: &Job, idempotency_key: Option<&str>) -> Result<Inserted, StoreError> {
        let _turn = self.writing.lock().await;
        // One statement is a transaction in itself.
        let inserted = sqlx::query(sql::INSERT_JOB)
            .bind(job.id.to_string())
            .bind(job.name.clone())
            .bind(job.state.name())
            .bind(job.created_at.as_microsecond())
            .bind(job.finished_at.map(Timestamp::as_microsecond))
            .bind(job.expires_at.map(Timestamp::as_microsecond))
            .bind(idempotency_key.map(str::to_owned))
            .bind(details_text(job)?)
            .execute(&self.pool)
            .await?;
        Ok(if inserted.rows_affected() == 0 { Inserted::KeyTaken } else { Inserted::Done })
    }

    /// Records that a job has ended without results. Does nothing when it has ended already.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn end(&self, job: &Job, frees_key: bool) -> Result<(), StoreError> {
        let (_turn, mut transaction) = self.begin().await?;
        update(&mut transaction, job, frees_key).await?;
        Ok(transaction.commit().await?)
    }

    /// The job with this id.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.one(sql::JOB_BY_ID, id.to_string()).await
    }

    /// The newest job of this name.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn newest_named(&self, name: &str) -> Result<Option<Job>, StoreError> {
        self.one(sql::NEWEST_JOB_BY_NAME, name.to_owned()).await
    }

    /// The job that was created with this key.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn job_by_key(&self, idempotency_key: &str) -> Result<Option<Job>, StoreError> {
        self.one(sql::JOB_BY_IDEMPOTENCY_KEY, idempotency_key.to_owned()).await
    }

    async fn one(&self, query: &'static str, key: String) -> Result<Option<Job>, StoreError> {
        let row = sqlx::query(query).bind(key).fetch_optional(&self.pool).await?;
        row.as_ref().map(job_of_row).transpose()
    }

    /// Jobs that have not expired, newest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, filter: &JobFilter) -> Result<Vec<Job>, StoreError> {
        let query = match (filter.name.is_some(), filter.state.is_some()) {
            (false, false) => sql::LIST_JOBS,
            (false, true) => sql::LIST_JOBS_BY_STATE,
            (true, false) => sql::LIST_JOBS_BY_NAME,
            (true, true) => sql::LIST_JOBS_BY_NAME_AND_STATE,
        };
        let mut query = sqlx::query(query)
            // Every id starts with a hexadecimal digit.
            .bind(filter.before.map_or_else(|| "g".to_owned(), |id| id.to_string()))
            .bind(now().as_microsecond())
            .bind(i64::from(filter.limit));
        for text in [filter.name.clone(), filter.state.map(|state| state.name().to_owned())].into_iter().flatten() {
            query = query.bind(text);
        }
        query.fetch_all(&self.pool).await?.iter().map(job_of_row).collect()
    }

    /// Removes a job with its results. Gives whether there was one.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn delete(&self, id: JobId) -> Result<bool, StoreError> {
        let (_turn, mut transaction) = self.begin().await?;
        let deleted = sqlx::query(sql::DELETE_JOB).bind(id.to_string()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// Removes the jobs whose time is over, and gives their ids, which are remembered for a while.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn expire(&self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        let (_turn, mut transaction) = self.begin().await?;
        let rows = sqlx::query(sql::EXPIRED_JOBS).bind(now.as_microsecond()).fetch_all(&mut *transaction).await?;
        let mut expired = Vec::new();
        for row in &rows {
            let id: String = row.try_get(0)?;
            sqlx::query(sql::REMEMBER_EXPIRED_JOB)
                .bind(id.clone())
                .bind(now.as_microsecond())
                .execute(&mut *transaction)
                .await?;
            sqlx::query(sql::DELETE_JOB).bind(id.clone()).execute(&mut *transaction).await?;
            expired.push(parse_id(&id)?);
        }
        let forget = now.checked_sub(REMEMBER_EXPIRED).unwrap_or(Timestamp::MIN).as_microsecond();
        sqlx::query(sql::FORGET_EXPIRED_JOBS).bind(forget).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(expired)
    }

    /// True when a job of this id has expired.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn has_expired(&self, id: JobId) -> Result<bool, StoreError> {
        let row = sqlx::query(sql::EXPIRED_JOB).bind(id.to_string()).fetch_optional(&self.pool).await?;
        Ok(row.is_some())
    }

    /// Ends every job that was being received: nobody is receiving it any more.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn fail_receiving(&self, failure: &Failure, keep: jiff::SignedDuration) -> Result<usize, StoreError> {
        let (_turn, mut transaction) = self.begin().await?;
        let rows = sqlx::query(sql::RECEIVING_JOBS).fetch_all(&mut *transaction).await?;
        for row in &rows {
            let mut job = job_of_row(row)?;
            job.end(State::Failed, Some(failure.clone()), keep);
            update(&mut transaction, &job, true).await?;
        }
        transaction.commit().await?;
        Ok(rows.len())
    }
}

/// Writes a job's new state, unless it has ended or is gone. Gives whether it was written.
async fn update(
    transaction: &mut Transaction<'static, sqlx::Any>,
    job: &Job,
    frees_key: bool,
) -> Result<bool, StoreError> {
    let updated = sqlx::query(sql::UPDATE_JOB)
        .bind(job.id.to_string())
        .bind(job.state.name())
        .bind(job.finished_at.map(Timestamp::as_microsecond))
        .bind(job.expires_at.map(Timestamp::as_microsecond))
        .bind(details_text(job)?)
        .bind(i64::from(frees_key))
        .execute(&mut **transaction)
        .await?;
    Ok(updated.rows_affected() > 0)
}

fn details_text(job: &Job) -> Result<String, StoreError> {
    serde_json::to_string(&job.details).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn job_of_row(row: &AnyRow) -> Result<Job, StoreError> {
    let damaged = |what: &dyn std::fmt::Display| StoreError::Damaged(what.to_string());
    let time = |microseconds: i64| Timestamp::from_microsecond(microseconds).map_err(|error| damaged(&error));
    let id: String = row.try_get("id")?;
    let state: String = row.try_get("state")?;
    let details: String = row.try_get("details")?;
    let details: Details = serde_json::from_str(&details).map_err(|error| damaged(&format!("job {id}: {error}")))?;
    Ok(Job {
        id: parse_id(&id)?,
        name: row.try_get("name")?,
        state: state.parse().map_err(|error| damaged(&format!("job {id}: state {state:?}: {error}")))?,
        created_at: time(row.try_get("created_at")?)?,
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(time).transpose()?,
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(time).transpose()?,
        details,
    })
}

fn parse_id(id: &str) -> Result<JobId, StoreError> {
    id.parse().map_err(|error| StoreError::Damaged(format!("job id {id:?}: {error}")))
}
