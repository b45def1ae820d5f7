//! Results: staged piece by piece ahead of the transaction that makes their job succeed, read piece by piece.

use sqlx::{AnyConnection, AssertSqlSafe, Row as _};
use tokio::sync::mpsc;

use super::database::Store;
use super::error::StoreError;
use super::jobs::{EndedBy, end_job};
use super::sql;
use crate::jobs::access::Scope;
use crate::jobs::model::{Job, JobId};

/// The name of the one result that is not a table.
pub(in crate::jobs) const STATS_NAME: &str = "stats.json";

/// The parts of a result, in the order in which they are stored.
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
    /// Stores the results of a job and makes it `succeeded`. More results than one transaction may hold are staged before, in
    /// short transactions between which others write; only the last transaction makes them results.
    ///
    /// Gives false when the job has ended otherwise, or is gone; also when another has taken the place of `by`.
    ///
    /// # Errors
    /// When the database refuses, or the results cannot be made. What was staged is discarded then.
    pub async fn succeed(
        &self,
        job: &Job,
        by: EndedBy,
        outputs: mpsc::Receiver<Result<Output, String>>,
    ) -> Result<bool, StoreError> {
        let mut has_staged = false;
        let stored = self.store_results(job, by, outputs, &mut has_staged).await;
        if has_staged && !matches!(stored, Ok(true)) {
            self.discard_staged(job.id, by).await;
        }
        stored
    }

    async fn store_results(
        &self,
        job: &Job,
        by: EndedBy,
        mut outputs: mpsc::Receiver<Result<Output, String>>,
        has_staged: &mut bool,
    ) -> Result<bool, StoreError> {
        let job_id = job.id.to_string();
        let mut pieces = Pieces::default();
        let mut results = Vec::new();
        loop {
            let output = outputs.recv().await.unwrap_or_else(|| Err("they broke off".into()));
            match output.map_err(StoreError::Output)? {
                Output::Piece { name, start, length, body } => {
                    if !pieces.have_room_for(body.len()) {
                        let is_first = !std::mem::replace(has_staged, true);
                        if !self.stage(&job_id, by, is_first, &mut pieces).await? {
                            return Ok(false);
                        }
                    }
                    pieces.add(name, ResultPiece { start, length, body });
                }
                Output::End(result) => results.push(result),
                Output::Complete => break,
            }
        }
        let (turn, mut transaction) = self.begin_growing_by(pieces.bytes).await?;
        if !end_job(&mut transaction, job, false, by).await? {
            return Ok(false);
        }
        if !*has_staged && by.may_follow_another() {
            sqlx::query(sql::DISCARD_RESULTS).bind(job_id.clone()).execute(&mut *transaction).await?;
        }
        pieces.insert(&mut transaction, &job_id).await?;
        insert_results(&mut transaction, &job_id, results).await?;
        turn.commit(transaction).await?;
        Ok(true)
    }

    /// Stores pieces ahead of the end of their job; with the first ones, what another has staged before is discarded. Gives false when the
    /// job has ended already, or another has taken the place of `by`.
    async fn stage(&self, job_id: &str, by: EndedBy, is_first: bool, pieces: &mut Pieces) -> Result<bool, StoreError> {
        let (turn, mut transaction) = self.begin_growing_by(pieces.bytes).await?;
        let statement = sql::UNENDED_JOB.to_owned() + &by.condition(2);
        let query = by.bind(sqlx::query(AssertSqlSafe(statement)).bind(job_id.to_owned()));
        if query.fetch_optional(&mut *transaction).await?.is_none() {
            return Ok(false);
        }
        if is_first && by.may_follow_another() {
            sqlx::query(sql::DISCARD_RESULTS).bind(job_id.to_owned()).execute(&mut *transaction).await?;
        }
        for name in pieces.names() {
            let query = sqlx::query(sql::STAGE_RESULT).bind(job_id.to_owned()).bind(name.to_owned());
            query.execute(&mut *transaction).await?;
        }
        pieces.insert(&mut transaction, job_id).await?;
        turn.commit(transaction).await?;
        Ok(true)
    }

    /// Discards what `by` has staged; what another has staged since stays. What cannot be discarded now is when the store is opened the next time, or with its job.
    async fn discard_staged(&self, job: JobId, by: EndedBy) {
        if let Err(error) = self.with_reserve(|| self.try_to_discard_staged(job, by)).await {
            tracing::error!(%job, %error, "staged results could not be discarded");
        }
    }

    async fn try_to_discard_staged(&self, job: JobId, by: EndedBy) -> Result<(), StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let statement = sql::discard_staged(&(sql::UNENDED_JOB.to_owned() + &by.condition(2)));
        by.bind(sqlx::query(AssertSqlSafe(statement)).bind(job.to_string())).execute(&mut *transaction).await?;
        turn.commit(transaction).await
    }

    /// A result of a job.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn result(&self, scope: &Scope, job: JobId, name: &str) -> Result<Option<ResultFile>, StoreError> {
        let statement = sql::RESULT.to_owned() + &sql::of_job_within(scope, 3);
        let query = sqlx::query(AssertSqlSafe(statement)).bind(job.to_string()).bind(name.to_owned());
        let Some(row) = sql::bind_scope(query, scope).fetch_optional(&self.pool).await? else {
            return Ok(None);
        };
        Ok(Some(ResultFile { name: name.into(), length: read(row.try_get(0)?)?, etag: row.try_get(1)? }))
    }

    /// The piece of a result that a position lies in; none beyond the end, or when the job is gone.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn piece(
        &self,
        scope: &Scope,
        job: JobId,
        name: &str,
        position: u64,
    ) -> Result<Option<ResultPiece>, StoreError> {
        let statement = sql::PIECE_AT.to_owned() + &sql::of_job_within(scope, 4) + sql::LAST_PIECE;
        let query = sqlx::query(AssertSqlSafe(statement)).bind(job.to_string()).bind(name.to_owned());
        let query = sql::bind_scope(query.bind(stored(position)?), scope);
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

/// Pieces that go to the database in one statement: a statement costs time however little it inserts.
#[derive(Default)]
struct Pieces {
    pieces: Vec<(String, ResultPiece)>,
    bytes: usize,
}

impl Pieces {
    const MAX_PIECES: usize = 16;
    /// Others wait while a transaction writes.
    const MAX_BYTES: usize = 1024 * 1024;

    fn have_room_for(&self, bytes: usize) -> bool {
        self.pieces.is_empty() || (self.pieces.len() < Self::MAX_PIECES && self.bytes + bytes <= Self::MAX_BYTES)
    }

    fn add(&mut self, name: String, piece: ResultPiece) {
        self.bytes += piece.body.len();
        self.pieces.push((name, piece));
    }

    /// The results that the pieces belong to, each once.
    fn names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<_> = self.pieces.iter().map(|(name, _)| name.as_str()).collect();
        // Pieces of a result come one after the other.
        names.dedup();
        names.into_iter()
    }

    async fn insert(&mut self, connection: &mut AnyConnection, job_id: &str) -> Result<(), StoreError> {
        let pieces = std::mem::take(self).pieces;
        if pieces.is_empty() {
            return Ok(());
        }
        let statement = sql::insert_rows(sql::INSERT_PIECES, 5, pieces.len());
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for (name, ResultPiece { start, length, body }) in pieces {
            query = query.bind(job_id.to_owned()).bind(name).bind(stored(start)?).bind(stored(length)?).bind(body);
        }
        query.execute(connection).await?;
        Ok(())
    }
}

async fn insert_results(
    connection: &mut AnyConnection,
    job_id: &str,
    results: Vec<ResultFile>,
) -> Result<(), StoreError> {
    let statement = sql::insert_rows(sql::INSERT_RESULTS, 4, results.len()) + sql::COMPLETE_STAGED;
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for ResultFile { name, length, etag } in results {
        query = query.bind(job_id.to_owned()).bind(name).bind(stored(length)?).bind(etag);
    }
    query.execute(connection).await?;
    Ok(())
}

fn stored(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|error| StoreError::Output(error.to_string()))
}

fn read(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|error| StoreError::Damaged(error.to_string()))
}
