//! Blocks of rejected rows of files that are being received: stored once, while checkpoint follows checkpoint.

use std::sync::Arc;

use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::database::Store;
use super::error::StoreError;
use super::sql;
use crate::jobs::model::FileId;

/// Blocks of a checkpoint that are not stored yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewBlocks {
    /// How many are stored: the first ones of the file.
    pub stored: usize,
    /// Those that follow.
    pub blocks: Vec<Arc<[u8]>>,
}

impl NewBlocks {
    const MAX_BLOCKS: usize = 16;
    /// Others wait while a transaction writes.
    const MAX_BYTES: usize = 512 * 1024;

    /// How many blocks the file has with these.
    #[must_use]
    pub fn count(&self) -> usize {
        self.stored + self.blocks.len()
    }

    /// What these blocks take.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }

    /// Cuts off as many blocks as one transaction may write. The rest remains.
    pub(super) fn next_batch(&mut self) -> Self {
        let mut bytes = 0;
        let fitting = self.blocks.iter().take(Self::MAX_BLOCKS).take_while(|block| {
            bytes += block.len();
            bytes <= Self::MAX_BYTES
        });
        // At least one: each is much smaller.
        let length = fitting.count().max(1).min(self.blocks.len());
        let rest = self.blocks.split_off(length);
        let rest = Self { stored: self.stored + length, blocks: rest };
        std::mem::replace(self, rest)
    }

    /// Stores the blocks, at most a batch. Those of an earlier writer, which no checkpoint has, are replaced.
    pub(super) async fn insert(self, connection: &mut AnyConnection, file: FileId) -> Result<(), StoreError> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        let statement = sql::insert_rows(sql::INSERT_REJECT_BLOCKS, 3, self.blocks.len()) + sql::REPLACE_REJECT_BLOCKS;
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for (sequence, block) in (self.stored..).zip(self.blocks) {
            query = query.bind(file.to_string()).bind(number(sequence)?).bind(block.to_vec());
        }
        query.execute(connection).await?;
        Ok(())
    }
}

impl Store {
    /// A block of rejects of a file that is being received.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn reject_block(&self, file: FileId, sequence: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query(sql::REJECT_BLOCK).bind(file.to_string()).bind(number(sequence)?);
        Ok(query.fetch_optional(&self.pool).await?.map(|row| row.try_get(0)).transpose()?)
    }

    /// Frees some of the blocks of files that are complete, have failed or are gone. Gives how many there were.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn free_reject_blocks(&self) -> Result<u64, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let freed = sqlx::query(sql::FREE_REJECT_BLOCKS).execute(&mut *transaction).await?.rows_affected();
        turn.commit(transaction).await?;
        Ok(freed)
    }
}

/// Deletes the blocks of a file from a number on.
pub(super) async fn delete_blocks(
    connection: &mut AnyConnection,
    file: FileId,
    first: usize,
) -> Result<(), StoreError> {
    let query = sqlx::query(sql::DELETE_REJECT_BLOCKS).bind(file.to_string()).bind(number(first)?);
    query.execute(connection).await?;
    Ok(())
}

fn number<N: TryInto<i64, Error: std::fmt::Display>>(number: N) -> Result<i64, StoreError> {
    number.try_into().map_err(|error| StoreError::Output(error.to_string()))
}
