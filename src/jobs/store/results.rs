//! Results: written piece by piece in the transaction that makes their job succeed, read piece by piece.

use sqlx::Row as _;
use tokio::sync::mpsc;

use super::{Store, StoreError, sql, update};
use crate::jobs::job::{Job, JobId};

/// The name of the one result that is not a table.
pub(in crate::jobs) const STATS_NAME: &str = "stats.json";

/// What is to be stored of a result, in order.
#[derive(Debug)]
pub enum Output {
    /// The next piece of the contents.
    Piece {
        /// The result's name.
        name: String,
        /// Where in the contents the piece starts.
        start: u64,
        /// Its length.
        length: u64,
        /// The piece, compressed.
        body: Vec<u8>,
    },
    /// A result's last piece has been given.
    End(ResultFile),
    /// All results have been given. Without it something broke off.
    Complete,
}

/// A stored result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultFile {
    /// Its name.
    pub name: String,
    /// Bytes of its contents.
    pub length: u64,
    /// Hexadecimal digits that are others when the contents are.
    pub etag: String,
}

impl ResultFile {
    /// True for a table, false for the statistics.
    #[must_use]
    pub fn is_table(&self) -> bool {
        self.name != STATS_NAME
    }
}

/// A piece of a result's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultPiece {
    /// Where in the contents it starts.
    pub start: u64,
    /// Its length.
    pub length: u64,
    /// The piece, compressed.
    pub body: Vec<u8>,
}

impl Store {
    /// Stores what a job came to and makes it `succeeded`, both at once or neither. `produce` is called when the
    /// database is ready, and gives the results.
    ///
    /// Gives false when the job has ended otherwise, or is gone.
    ///
    /// # Errors
    /// When the database refuses, or the results cannot be made.
    pub async fn succeed(
        &self,
        job: &Job,
        produce: impl FnOnce() -> mpsc::Receiver<Result<Output, String>>,
    ) -> Result<bool, StoreError> {
        let (_turn, mut transaction) = self.begin().await?;
        if !update(&mut transaction, job, false).await? {
            return Ok(false);
        }
        let job_id = job.id.to_string();
        let mut outputs = produce();
        loop {
            let output = outputs.recv().await.unwrap_or_else(|| Err("they broke off".into()));
            let query = match output.map_err(StoreError::Output)? {
                Output::Complete => break,
                Output::Piece { name, start, length, body } => sqlx::query(sql::INSERT_PIECE)
                    .bind(job_id.clone())
                    .bind(name)
                    .bind(stored(start)?)
                    .bind(stored(length)?)
                    .bind(body),
                Output::End(ResultFile { name, length, etag }) => {
                    sqlx::query(sql::INSERT_RESULT).bind(job_id.clone()).bind(name).bind(stored(length)?).bind(etag)
                }
            };
            query.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// A result of a job.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn result(&self, job: JobId, name: &str) -> Result<Option<ResultFile>, StoreError> {
        let query = sqlx::query(sql::RESULT).bind(job.to_string()).bind(name.to_owned());
        let Some(row) = query.fetch_optional(&self.pool).await? else {
            return Ok(None);
        };
        Ok(Some(ResultFile { name: name.into(), length: read(row.try_get(0)?)?, etag: row.try_get(1)? }))
    }

    /// The piece of a result that a position lies in; none beyond the end, or when the job is gone.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn piece(&self, job: JobId, name: &str, position: u64) -> Result<Option<ResultPiece>, StoreError> {
        let query = sqlx::query(sql::PIECE_AT).bind(job.to_string()).bind(name.to_owned()).bind(stored(position)?);
        let Some(row) = query.fetch_optional(&self.pool).await? else {
            return Ok(None);
        };
        let piece = ResultPiece {
            start: read(row.try_get("start")?)?,
            length: read(row.try_get("length")?)?,
            body: row.try_get("body")?,
        };
        Ok((position - piece.start < piece.length).then_some(piece))
    }
}

fn stored(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|error| StoreError::Output(error.to_string()))
}

fn read(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|error| StoreError::Damaged(error.to_string()))
}
