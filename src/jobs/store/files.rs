//! The records of files of open jobs, and what complete files have counted.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::database::Store;
use super::error::StoreError;
use super::reject_blocks::delete_blocks;
use super::sql;
use crate::jobs::access::Scope;
use crate::jobs::model::{FileId, FileState, Job, JobFile, JobId, State, now};

/// The right to write a file: void once another writer has the file, or the file is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The file.
    pub file: FileId,
    /// The writer's number.
    pub epoch: i64,
}

/// A file as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFile {
    /// Its latest writer.
    pub writer: Writer,
    /// What is known of it.
    pub file: JobFile,
}

/// How the wish to write a file from its first byte ended.
#[derive(Clone, Debug, PartialEq)]
pub enum OpenedFile {
    /// It awaits its bytes.
    Writer(Writer),
    /// It is complete.
    Complete(Box<JobFile>),
    /// Another writer is receiving it.
    BeingReceived,
    /// It exists already and waits for its sender; the caller wanted to create it.
    Waiting,
    /// It waits for its sender, with another format. The format is fixed until the file is complete or has failed.
    OtherFormat,
    /// The job has as many files as it may have.
    TooManyFiles,
    /// The job takes no files at the moment.
    Closed(JobClosed),
}

/// Why a job takes no change of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobClosed {
    /// There is no such job.
    Gone,
    /// It has ended.
    Ended(State),
    /// It finishes with the request that made it.
    ClosesItself,
    /// Its results are being made.
    Finishing,
}

/// The right to make the results of a job, and the files they are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Finishing {
    /// The finisher's number: an earlier one can store nothing more.
    pub epoch: i64,
    /// All of the job's files, in the order of completion.
    pub files: Vec<StoredFile>,
}

/// How the wish to finish an open job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum FinishingBegun {
    /// Its files no longer change.
    Files(Finishing),
    /// These files are not complete.
    Incomplete(Vec<String>),
    /// It has no file.
    NoFiles,
    /// It cannot be finished, or is being finished.
    Closed(JobClosed),
}

/// Who changes the files of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedBy {
    /// The request that made a job that closes itself.
    ItsUpload,
    /// Another request: only open jobs let it.
    Others,
}

/// How long a job is kept while no file is received.
pub(super) type Keep = jiff::SignedDuration;

impl Store {
    /// Makes the caller the writer of a file, from its first byte. A file whose state is `waiting` is only added, for a later writer; one of its
    /// name must have failed, or not be there.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn open_file(
        &self,
        scope: &Scope,
        job: JobId,
        file: &JobFile,
        by: ChangedBy,
        max_files: usize,
        keep: Keep,
    ) -> Result<OpenedFile, StoreError> {
        let (turn, mut transaction) = self.begin_growing().await?;
        let job_id = job.to_string();
        let known = sqlx::query(sql::FILE_BY_NAME).bind(job_id.clone()).bind(file.name.clone());
        let known = known.fetch_optional(&mut *transaction).await?.as_ref().map(file_of_row).transpose()?;
        // A job that closes itself takes no further files, but its own may start over.
        let by = if known.is_some() { ChangedBy::ItsUpload } else { by };
        if let Some(closed) = why_closed(&mut transaction, scope, job, by).await? {
            return Ok(OpenedFile::Closed(closed));
        }
        let is_creation = file.state == FileState::Waiting;
        let writer = match known {
            Some(StoredFile { file, .. }) if file.state == FileState::Complete => {
                return Ok(OpenedFile::Complete(Box::new(file)));
            }
            Some(StoredFile { file, .. }) if is_creation && file.state == FileState::Waiting => {
                return Ok(OpenedFile::Waiting);
            }
            Some(StoredFile { file, .. }) if file.state == FileState::Receiving => {
                return Ok(OpenedFile::BeingReceived);
            }
            // The caller chose the format before this transaction. Another request may have created the file since.
            Some(StoredFile { file: known, .. })
                if known.state == FileState::Waiting && !known.format.reads_like(&file.format) =>
            {
                return Ok(OpenedFile::OtherFormat);
            }
            Some(StoredFile { writer, .. }) => {
                delete_blocks(&mut transaction, writer.file, 0).await?;
                Writer { epoch: writer.epoch + 1, ..writer }
            }
            None => {
                let count: i64 = sqlx::query(sql::COUNT_FILES)
                    .bind(job_id.clone())
                    .fetch_one(&mut *transaction)
                    .await?
                    .try_get(0)?;
                if usize::try_from(count).unwrap_or(usize::MAX) >= max_files {
                    return Ok(OpenedFile::TooManyFiles);
                }
                Writer { file: FileId::new(), epoch: 1 }
            }
        };
        write_file(&mut transaction, job, writer, file).await?;
        settle(&mut transaction, job, keep).await?;
        turn.commit(transaction).await?;
        Ok(OpenedFile::Writer(writer))
    }

    /// Stores a piece of what a file has counted, ahead of [`complete_file`](Self::complete_file).
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn stage_totals(&self, writer: Writer, sequence: i64, body: Vec<u8>) -> Result<(), StoreError> {
        let (turn, mut transaction) = self.begin_growing_by(body.len()).await?;
        insert_totals(&mut transaction, writer, sequence, body).await?;
        turn.commit(transaction).await
    }

    /// Makes a file complete with the totals that its writer has staged and the last piece of them. Gives false, and changes nothing,
    /// when it has another writer or is gone.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn complete_file(
        &self,
        job: JobId,
        writer: Writer,
        file: &JobFile,
        last_piece: (i64, Vec<u8>),
        keep: Keep,
    ) -> Result<bool, StoreError> {
        let (turn, mut transaction) = self.begin_growing_by(last_piece.1.len()).await?;
        let changed = sqlx::query(sql::COMPLETE_FILE)
            .bind(writer.file.to_string())
            .bind(writer.epoch)
            .bind(file.state.name())
            .bind(details_text(file)?)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if changed == 0 {
            return Ok(false);
        }
        let (sequence, body) = last_piece;
        insert_totals(&mut transaction, writer, sequence, body).await?;
        settle(&mut transaction, job, keep).await?;
        turn.commit(transaction).await?;
        Ok(true)
    }

    /// Discards what a writer has staged, unless its file is complete. What cannot be discarded now is once the file has another writer, or
    /// with its job.
    pub async fn discard_totals(&self, writer: Writer) {
        if let Err(error) = Box::pin(self.with_reserve(|| self.try_to_discard_totals(writer))).await {
            tracing::error!(file = %writer.file, %error, "staged totals could not be discarded");
        }
    }

    async fn try_to_discard_totals(&self, writer: Writer) -> Result<(), StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let query = sqlx::query(sql::DISCARD_TOTALS).bind(writer.file.to_string()).bind(writer.epoch);
        query.execute(&mut *transaction).await?;
        turn.commit(transaction).await
    }

    /// Removes a file that is not counted yet, with its writer. Gives whether there was one, or why that is not possible.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn delete_file(
        &self,
        scope: &Scope,
        job: JobId,
        name: &str,
        keep: Keep,
    ) -> Result<Result<bool, JobClosed>, StoreError> {
        self.with_reserve(|| self.try_delete_file(scope, job, name, keep)).await
    }

    async fn try_delete_file(
        &self,
        scope: &Scope,
        job: JobId,
        name: &str,
        keep: Keep,
    ) -> Result<Result<bool, JobClosed>, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        if let Some(closed) = why_closed(&mut transaction, scope, job, ChangedBy::Others).await? {
            return Ok(Err(closed));
        }
        let deleted = sqlx::query(sql::DELETE_FILE).bind(job.to_string()).bind(name.to_owned());
        let deleted = deleted.execute(&mut *transaction).await?.rows_affected();
        settle(&mut transaction, job, keep).await?;
        turn.commit(transaction).await?;
        Ok(Ok(deleted > 0))
    }

    /// The files of an open job: complete ones in the order of completion, then the others in the order in which they began.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn files(&self, job: JobId) -> Result<Vec<StoredFile>, StoreError> {
        let rows = sqlx::query(sql::FILES).bind(job.to_string()).fetch_all(&self.pool).await?;
        rows.iter().map(file_of_row).collect()
    }

    /// Begins to finish a job: from here on its files do not change.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn begin_finishing(
        &self,
        scope: &Scope,
        job: JobId,
        by: ChangedBy,
    ) -> Result<FinishingBegun, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        if let Some(closed) = why_closed(&mut transaction, scope, job, by).await? {
            return Ok(FinishingBegun::Closed(closed));
        }
        let rows = sqlx::query(sql::FILES).bind(job.to_string()).fetch_all(&mut *transaction).await?;
        let files = rows.iter().map(file_of_row).collect::<Result<Vec<_>, _>>()?;
        let incomplete: Vec<_> = files
            .iter()
            .filter(|stored| stored.file.state != FileState::Complete)
            .map(|stored| stored.file.name.clone())
            .collect();
        if !incomplete.is_empty() {
            return Ok(FinishingBegun::Incomplete(incomplete));
        }
        if files.is_empty() {
            return Ok(FinishingBegun::NoFiles);
        }
        let epoch = begin_finisher(&mut transaction, job).await?;
        turn.commit(transaction).await?;
        Ok(FinishingBegun::Files(Finishing { epoch, files }))
    }

    /// Takes the place of a finisher that an earlier process was. None when the job is not finishing.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn resume_finishing(&self, job: JobId) -> Result<Option<Finishing>, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        if why_closed(&mut transaction, &Scope::All, job, ChangedBy::ItsUpload).await? != Some(JobClosed::Finishing) {
            return Ok(None);
        }
        let rows = sqlx::query(sql::FILES).bind(job.to_string()).fetch_all(&mut *transaction).await?;
        let files = rows.iter().map(file_of_row).collect::<Result<Vec<_>, _>>()?;
        let epoch = begin_finisher(&mut transaction, job).await?;
        turn.commit(transaction).await?;
        Ok(Some(Finishing { epoch, files }))
    }

    /// Opens a job again whose results this finisher could not store.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn end_finishing(&self, job: JobId, epoch: i64, keep: Keep) -> Result<(), StoreError> {
        self.with_reserve(|| self.try_end_finishing(job, epoch, keep)).await
    }

    async fn try_end_finishing(&self, job: JobId, epoch: i64, keep: Keep) -> Result<(), StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        sqlx::query(sql::END_FINISHING).bind(job.to_string()).bind(epoch).execute(&mut *transaction).await?;
        settle(&mut transaction, job, keep).await?;
        turn.commit(transaction).await
    }

    /// Jobs whose results were being made.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn finishing_jobs(&self) -> Result<Vec<JobId>, StoreError> {
        let rows = sqlx::query(sql::FINISHING_JOBS).fetch_all(&self.pool).await?;
        Ok(rows.iter().filter_map(|row| row.try_get::<String, _>(0).ok()?.parse().ok()).collect())
    }

    /// A piece of what a complete file has counted; none behind the last one.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn totals(&self, writer: Writer, sequence: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query(sql::TOTALS).bind(writer.file.to_string()).bind(writer.epoch).bind(sequence);
        Ok(query.fetch_optional(&self.pool).await?.map(|row| row.try_get(0)).transpose()?)
    }

    /// Frees some of the totals of files that are gone or have another writer. Gives how many pieces there were.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn free_totals(&self) -> Result<u64, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let freed = sqlx::query(sql::FREE_TOTALS).execute(&mut *transaction).await?.rows_affected();
        turn.commit(transaction).await?;
        Ok(freed)
    }

    /// Keeps the leaders of an open job with it.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn save_leaders(&self, job: &Job) -> Result<(), StoreError> {
        let (turn, mut transaction) = self.begin_growing().await?;
        let details = serde_json::to_string(&job.details).map_err(|error| StoreError::Damaged(error.to_string()))?;
        sqlx::query(sql::SAVE_OPEN_JOB).bind(job.id.to_string()).bind(details).execute(&mut *transaction).await?;
        turn.commit(transaction).await
    }

    /// Keeps the options of a job that a form makes. Gives false, and changes nothing, when it has ended.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn save_form(&self, job: &Job) -> Result<bool, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let details = serde_json::to_string(&job.details).map_err(|error| StoreError::Damaged(error.to_string()))?;
        let saved =
            sqlx::query(sql::SAVE_FORM).bind(job.id.to_string()).bind(details).execute(&mut *transaction).await?;
        turn.commit(transaction).await?;
        Ok(saved.rows_affected() > 0)
    }

    /// Shows in a job that has not ended which files it has.
    pub(super) async fn with_files(&self, mut job: Job) -> Result<Job, StoreError> {
        if !job.state.is_final() {
            job.details.files = self.files(job.id).await?.into_iter().map(|stored| stored.file).collect();
            job.add_up();
        }
        Ok(job)
    }
}

/// Makes the caller the finisher of a job, and gives its number.
async fn begin_finisher(connection: &mut AnyConnection, job: JobId) -> Result<i64, StoreError> {
    sqlx::query(sql::BEGIN_FINISHING).bind(job.to_string()).execute(&mut *connection).await?;
    Ok(sqlx::query(sql::FINISHER).bind(job.to_string()).fetch_one(connection).await?.try_get(0)?)
}

async fn insert_totals(
    connection: &mut AnyConnection,
    writer: Writer,
    sequence: i64,
    body: Vec<u8>,
) -> Result<(), StoreError> {
    let query = sqlx::query(sql::INSERT_TOTALS).bind(writer.file.to_string()).bind(writer.epoch);
    query.bind(sequence).bind(body).execute(connection).await?;
    Ok(())
}

/// Records that a file is being received by this writer, or waits for its first one.
pub(super) async fn write_file(
    connection: &mut AnyConnection,
    job: JobId,
    writer: Writer,
    file: &JobFile,
) -> Result<(), StoreError> {
    sqlx::query(sql::OPEN_FILE)
        .bind(writer.file.to_string())
        .bind(job.to_string())
        .bind(file.name.clone())
        .bind(writer.epoch)
        .bind(details_text(file)?)
        .execute(&mut *connection)
        .await?;
    if file.state == FileState::Waiting {
        let released = sqlx::query(sql::RELEASE_FILE).bind(writer.file.to_string()).bind(file.state.name());
        released.bind(details_text(file)?).execute(connection).await?;
    }
    Ok(())
}

/// Why a job takes no change of its files; none when it does.
pub(super) async fn why_closed(
    connection: &mut AnyConnection,
    scope: &Scope,
    job: JobId,
    by: ChangedBy,
) -> Result<Option<JobClosed>, StoreError> {
    let statement = sql::JOB_STATE.to_owned() + &sql::within(scope, 2);
    let query = sqlx::query(AssertSqlSafe(statement)).bind(job.to_string());
    let Some(row) = sql::bind_scope(query, scope).fetch_optional(connection).await? else {
        return Ok(Some(JobClosed::Gone));
    };
    let state: String = row.try_get("state")?;
    let state: State = state.parse().map_err(|error| StoreError::Damaged(format!("job {job}: {error}")))?;
    Ok(if state.is_final() {
        Some(JobClosed::Ended(state))
    } else if by == ChangedBy::Others && row.try_get::<i64, _>("closes_itself")? != 0 {
        Some(JobClosed::ClosesItself)
    } else if row.try_get::<i64, _>("finishing")? != 0 {
        Some(JobClosed::Finishing)
    } else {
        None
    })
}

/// Derives the state of an open job from those of its files. It expires only while none is being received.
pub(super) async fn settle(connection: &mut AnyConnection, job: JobId, keep: Keep) -> Result<(), StoreError> {
    let expires_at = now().checked_add(keep).unwrap_or(jiff::Timestamp::MAX).as_microsecond();
    sqlx::query(sql::SETTLE_JOB).bind(job.to_string()).bind(expires_at).execute(connection).await?;
    Ok(())
}

pub(super) fn details_text(file: &JobFile) -> Result<String, StoreError> {
    serde_json::to_string(file).map_err(|error| StoreError::Damaged(error.to_string()))
}

pub(super) fn file_of_row(row: &AnyRow) -> Result<StoredFile, StoreError> {
    let id: String = row.try_get("id")?;
    let damaged = |what: &dyn std::fmt::Display| StoreError::Damaged(format!("file {id}: {what}"));
    let details: String = row.try_get("details")?;
    let mut file: JobFile = serde_json::from_str(&details).map_err(|error| damaged(&error))?;
    let state: String = row.try_get("state")?;
    file.state = state.parse().map_err(|error| damaged(&error))?;
    file.name = row.try_get("name")?;
    file.durable_offset = u64::try_from(row.try_get::<i64, _>("durable_offset")?).map_err(|error| damaged(&error))?;
    if file.state == FileState::Complete {
        file.durable_offset = file.offset;
    } else {
        // What came behind that is lost.
        file.offset = file.durable_offset;
    }
    let writer = Writer { file: id.parse().map_err(|error| damaged(&error))?, epoch: row.try_get("epoch")? };
    Ok(StoredFile { writer, file })
}
