//! Checkpoints: the state of a file that is being received, to go on from when its body has broken off.

use sqlx::{AnyConnection, Row as _};

use super::database::Store;
use super::error::StoreError;
use super::files::{ChangedBy, JobClosed, Keep, StoredFile, Writer, details_text, file_of_row, settle, why_closed};
use super::reject_blocks::{NewBlocks, delete_blocks};
use super::sql;
use crate::jobs::access::Scope;
use crate::jobs::model::{FileState, JobFile, JobId};

/// Which of a file's checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointId {
    /// The writer that saved it.
    pub epoch: i64,
    /// Its number among that writer's.
    pub number: i64,
}

/// A state to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its number among its writer's.
    pub number: i64,
    /// Bytes of the file that it stands for.
    pub offset: u64,
    /// The state, each piece at most about 1 MiB. There is one at least.
    pub pieces: Vec<Vec<u8>>,
    /// The blocks of rejects that the state has besides, and no earlier checkpoint.
    pub reject_blocks: NewBlocks,
    /// What is known of the file there. None leaves what is stored.
    pub file: Option<Box<JobFile>>,
}

/// How the wish to go on with a file ended.
#[derive(Clone, Debug, PartialEq)]
pub enum ResumedFile {
    /// It awaits its next bytes, after this state; after none its first byte.
    Writer(Box<StoredFile>, Option<CheckpointId>),
    /// This many of its bytes are stored: the next one is wanted.
    OtherOffset(u64),
    /// It is complete.
    Complete(Box<JobFile>),
    /// It has failed: only its first byte is wanted.
    Failed,
    /// There is no such file.
    NotFound,
    /// The job takes no bytes at the moment.
    Closed(JobClosed),
}

impl Store {
    /// Makes the caller the writer of a file that goes on at this offset. A writer that it has can write nothing more: otherwise its bytes
    /// would be stored behind the caller's.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn resume_file(
        &self,
        scope: &Scope,
        job: JobId,
        name: &str,
        offset: u64,
        keep: Keep,
    ) -> Result<ResumedFile, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        if let Some(closed) = why_closed(&mut transaction, scope, job, ChangedBy::ItsUpload).await? {
            return Ok(ResumedFile::Closed(closed));
        }
        let row = sqlx::query(sql::FILE_BY_NAME).bind(job.to_string()).bind(name.to_owned());
        let Some(row) = row.fetch_optional(&mut *transaction).await? else {
            return Ok(ResumedFile::NotFound);
        };
        let mut stored = file_of_row(&row)?;
        match stored.file.state {
            FileState::Complete => return Ok(ResumedFile::Complete(Box::new(stored.file))),
            FileState::Failed => return Ok(ResumedFile::Failed),
            FileState::Waiting | FileState::Receiving if stored.file.durable_offset != offset => {
                return Ok(ResumedFile::OtherOffset(stored.file.durable_offset));
            }
            FileState::Waiting | FileState::Receiving => {}
        }
        let checkpoint = match (row.try_get("checkpoint_epoch")?, row.try_get("checkpoint_number")?) {
            (Some(epoch), Some(number)) => Some(CheckpointId { epoch, number }),
            _ => None,
        };
        stored.writer.epoch += 1;
        stored.file.state = FileState::Receiving;
        stored.file.error = None;
        sqlx::query(sql::RESUME_FILE)
            .bind(stored.writer.file.to_string())
            .bind(stored.writer.epoch)
            .bind(details_text(&stored.file)?)
            .execute(&mut *transaction)
            .await?;
        settle(&mut transaction, job, keep).await?;
        turn.commit(transaction).await?;
        Ok(ResumedFile::Writer(Box::new(stored), checkpoint))
    }

    /// Stores a checkpoint, from which the file goes on then. Gives false when the file has another writer or is gone.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn save_checkpoint(&self, writer: Writer, checkpoint: Checkpoint) -> Result<bool, StoreError> {
        Ok(self.change_checkpoint(writer, Some(checkpoint), None).await?.is_some())
    }

    /// Ends a writer whose file is not complete: it waits for another one, or has failed. Gives where it goes on: at the checkpoint, or at
    /// an earlier one. None, and nothing changes, when the file has another writer or is gone.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn release_file(
        &self,
        job: JobId,
        writer: Writer,
        file: &JobFile,
        checkpoint: Option<Checkpoint>,
        keep: Keep,
    ) -> Result<Option<u64>, StoreError> {
        let release = Some((job, file, keep));
        if checkpoint.is_some() {
            return self.change_checkpoint(writer, checkpoint, release).await;
        }
        self.with_reserve(|| self.change_checkpoint(writer, None, release)).await
    }

    /// As [`Self::try_to_change_checkpoint`]. What was staged of a checkpoint that could not be stored takes the room of others, and is discarded.
    async fn change_checkpoint(
        &self,
        writer: Writer,
        checkpoint: Option<Checkpoint>,
        release: Option<(JobId, &JobFile, Keep)>,
    ) -> Result<Option<u64>, StoreError> {
        let number = checkpoint.as_ref().map(|checkpoint| checkpoint.number);
        let mut has_staged = false;
        let changed = self.try_to_change_checkpoint(writer, checkpoint, release, &mut has_staged).await;
        if changed.is_err()
            && has_staged
            && let Some(number) = number
        {
            let discarded = Box::pin(self.with_reserve(|| self.try_to_discard_checkpoint(writer, number))).await;
            if let Err(error) = discarded {
                tracing::error!(file = %writer.file, %error, "a staged checkpoint could not be discarded");
            }
        }
        changed
    }

    async fn try_to_discard_checkpoint(&self, writer: Writer, number: i64) -> Result<(), StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let query = sqlx::query(sql::DISCARD_CHECKPOINT).bind(writer.file.to_string()).bind(writer.epoch).bind(number);
        query.execute(&mut *transaction).await?;
        turn.commit(transaction).await
    }

    /// All pieces but the last are staged, and all blocks of rejects but the last batch. With these the checkpoint becomes the one that
    /// counts, and the writer may end. Gives where the file goes on; none when it has another writer.
    async fn try_to_change_checkpoint(
        &self,
        writer: Writer,
        checkpoint: Option<Checkpoint>,
        release: Option<(JobId, &JobFile, Keep)>,
        has_staged: &mut bool,
    ) -> Result<Option<u64>, StoreError> {
        let mut last = None;
        if let Some(Checkpoint { number, offset, mut pieces, mut reject_blocks, file }) = checkpoint {
            let block_count = reject_blocks.count();
            let mut blocks = reject_blocks.next_batch();
            while !reject_blocks.blocks.is_empty() {
                let (turn, mut transaction) = self.begin_growing_by(blocks.bytes()).await?;
                if durable_offset(&mut transaction, writer).await?.is_none() {
                    return Ok(None);
                }
                blocks.insert(&mut transaction, writer.file).await?;
                turn.commit(transaction).await?;
                blocks = reject_blocks.next_batch();
            }
            let last_piece = pieces.pop().unwrap_or_default();
            let mut sequence = 0;
            for piece in pieces {
                let (turn, mut transaction) = self.begin_growing_by(piece.len()).await?;
                if durable_offset(&mut transaction, writer).await?.is_none() {
                    return Ok(None);
                }
                insert_piece(&mut transaction, writer, number, sequence, piece).await?;
                free_old_pieces(&mut transaction, writer).await?;
                turn.commit(transaction).await?;
                *has_staged = true;
                sequence += 1;
            }
            last = Some((number, offset, (sequence, last_piece), (blocks, block_count), file));
        }
        let (turn, mut transaction) = match &last {
            Some((_, _, (_, piece), (blocks, _), _)) => self.begin_growing_by(piece.len() + blocks.bytes()).await?,
            None => self.begin().await?,
        };
        let Some(mut durable_offset) = durable_offset(&mut transaction, writer).await? else {
            return Ok(None);
        };
        if let Some((number, offset, (sequence, piece), (blocks, block_count), file)) = last {
            durable_offset = offset;
            insert_piece(&mut transaction, writer, number, sequence, piece).await?;
            sqlx::query(sql::SET_CHECKPOINT)
                .bind(writer.file.to_string())
                .bind(i64::try_from(offset).map_err(|error| StoreError::Output(error.to_string()))?)
                .bind(writer.epoch)
                .bind(number)
                .execute(&mut *transaction)
                .await?;
            if let Some(file) = file {
                let query = sqlx::query(sql::DESCRIBE_FILE).bind(writer.file.to_string()).bind(details_text(&file)?);
                query.execute(&mut *transaction).await?;
            }
            blocks.insert(&mut transaction, writer.file).await?;
            // What an earlier writer stored behind its last checkpoint.
            delete_blocks(&mut transaction, writer.file, block_count).await?;
            free_old_pieces(&mut transaction, writer).await?;
        }
        if let Some((job, file, keep)) = release {
            sqlx::query(sql::RELEASE_FILE)
                .bind(writer.file.to_string())
                .bind(file.state.name())
                .bind(details_text(file)?)
                .execute(&mut *transaction)
                .await?;
            settle(&mut transaction, job, keep).await?;
        }
        turn.commit(transaction).await?;
        Ok(Some(durable_offset))
    }

    /// A piece of a checkpoint; none behind the last one.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn checkpoint_piece(
        &self,
        file: Writer,
        CheckpointId { epoch, number }: CheckpointId,
        sequence: i64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query(sql::CHECKPOINT_PIECE).bind(file.file.to_string()).bind(epoch).bind(number);
        Ok(query.bind(sequence).fetch_optional(&self.pool).await?.map(|row| row.try_get(0)).transpose()?)
    }

    /// Frees some of the checkpoints that no file goes on from. Gives how many pieces there were.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn free_checkpoints(&self) -> Result<u64, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        // Every id starts with a hexadecimal digit.
        let freed = free_pieces(&mut transaction, String::new(), "g".into()).await?;
        turn.commit(transaction).await?;
        Ok(freed)
    }
}

/// Where a file goes on, as long as it has this writer.
async fn durable_offset(connection: &mut AnyConnection, writer: Writer) -> Result<Option<u64>, StoreError> {
    let query = sqlx::query(sql::WRITTEN_FILE).bind(writer.file.to_string()).bind(writer.epoch);
    let Some(row) = query.fetch_optional(connection).await? else {
        return Ok(None);
    };
    let offset = u64::try_from(row.try_get::<i64, _>(0)?);
    offset.map(Some).map_err(|error| StoreError::Damaged(format!("file {}: {error}", writer.file)))
}

async fn insert_piece(
    connection: &mut AnyConnection,
    writer: Writer,
    number: i64,
    sequence: i64,
    body: Vec<u8>,
) -> Result<(), StoreError> {
    let query = sqlx::query(sql::INSERT_CHECKPOINT_PIECE).bind(writer.file.to_string()).bind(writer.epoch);
    query.bind(number).bind(sequence).bind(body).execute(connection).await?;
    Ok(())
}

/// Frees some of the pieces of a file's earlier checkpoints: at least as many, on the whole, as are stored.
async fn free_old_pieces(connection: &mut AnyConnection, writer: Writer) -> Result<u64, StoreError> {
    free_pieces(connection, writer.file.to_string(), writer.file.to_string()).await
}

async fn free_pieces(connection: &mut AnyConnection, first: String, last: String) -> Result<u64, StoreError> {
    let query = sqlx::query(sql::FREE_CHECKPOINTS).bind(first).bind(last);
    Ok(query.execute(connection).await?.rows_affected())
}
