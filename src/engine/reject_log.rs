//! All rows that did not count, up to a limit, in compressed blocks.
//!
//! A log consists of closed blocks, which never change, and one open block. Rows are appended to the open block; at
//! [`BLOCK_BYTES`] of text it is compressed (Zstandard) and closed. So a checkpoint needs only the blocks that were closed since
//! the one before, and the text of the open block.
//!
//! In a block, a row is its distance in lines and in bytes from the row before, its reason, and its record. Lines count from the
//! start of the part of the file that was read (`lines_before` are before it), so parts of a file join without a look into their
//! blocks. Which rows are kept depends on the rows alone, not on where blocks end: the result is the same however a file is cut.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::envelope::{RestoreError, append, read};
use super::record::{MAX_TEXT_BYTES, Position};
use super::row::SkipReason;

/// Bytes of a skipped record that are kept for the report.
pub const SHOWN_RECORD_BYTES: usize = 200;

/// What a row counts for against the limit, beside its record: about as much as its position and reason take in the report.
pub const REJECT_ROW_BYTES: u64 = 32;

/// The limit on the rows that are kept, unless another one is set.
pub const DEFAULT_MAX_REJECTS_BYTES: u64 = 64 * 1024 * 1024;

/// A block is closed behind the row with which its text reaches this.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// More than the text of a block: the last row may have two numbers of ten bytes, a reason, a length, and its record.
const MAX_BLOCK_BYTES: usize = BLOCK_BYTES + 32 + SHOWN_RECORD_BYTES;

/// Fast, and a third of the size.
const ZSTD_LEVEL: i32 = 1;

/// The file that rows are of, and the lines of it before the part that was read.
#[derive(Clone, Debug)]
struct Origin {
    /// Empty until it is set for a data set of several files.
    file: Arc<str>,
    lines_before: u64,
}

impl Default for Origin {
    fn default() -> Self {
        Self { file: Arc::from(""), lines_before: 0 }
    }
}

/// Rows that are no longer added to.
#[derive(Clone, Debug)]
pub(super) struct Block {
    origin: Origin,
    rows: u64,
    /// What they count for against the limit.
    bytes: u64,
    /// The text of the rows, compressed.
    pub(super) body: Arc<[u8]>,
    crc32: u32,
}

impl Block {
    fn new(origin: Origin, rows: u64, bytes: u64, body: Arc<[u8]>) -> Self {
        let crc32 = crc32fast::hash(&body);
        Self { origin, rows, bytes, body, crc32 }
    }

    fn text(&self) -> Vec<u8> {
        // It was compressed here, or looked through when it was restored.
        decompress(&self.body).unwrap_or_default()
    }
}

fn decompress(body: &[u8]) -> Result<Vec<u8>, RestoreError> {
    zstd::bulk::decompress(body, MAX_BLOCK_BYTES).map_err(|_| RestoreError::Inconsistent("rejects cannot be read"))
}

/// The latest rows.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenBlock {
    origin: Origin,
    rows: u64,
    bytes: u64,
    /// Where the last row stands; its line counts from the start of the part.
    last: Position,
    pub(super) text: Vec<u8>,
}

impl OpenBlock {
    fn new(origin: Origin) -> Self {
        Self { origin, ..Self::default() }
    }

    fn push(&mut self, row: RejectRow<'_>) {
        let line = row.position.line.wrapping_sub(self.origin.lines_before);
        let byte_offset = row.position.byte_offset;
        let distances = (line.wrapping_sub(self.last.line), byte_offset.wrapping_sub(self.last.byte_offset));
        self.text = append(std::mem::take(&mut self.text), &(distances, row.reason, row.record.len()));
        self.text.extend_from_slice(row.record);
        self.last = Position { line, byte_offset };
        self.rows += 1;
        self.bytes += row.bytes();
    }
}

/// A row that did not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RejectRow<'a> {
    pub(crate) position: Position,
    pub(crate) reason: SkipReason,
    /// At most [`SHOWN_RECORD_BYTES`].
    pub(crate) record: &'a [u8],
}

impl RejectRow<'_> {
    /// What it counts for against the limit.
    fn bytes(&self) -> u64 {
        REJECT_ROW_BYTES + self.record.len() as u64
    }
}

/// Some rows, of one file.
pub(crate) struct RejectChunk {
    origin: Origin,
    text: Vec<u8>,
}

impl RejectChunk {
    pub(crate) fn file(&self) -> &str {
        &self.origin.file
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = RejectRow<'_>> {
        // Text that cannot be read has been refused.
        Rows::new(&self.origin, &self.text).map_while(Result::ok)
    }
}

/// Reads the rows of a block.
struct Rows<'a> {
    lines_before: u64,
    last: Position,
    rest: &'a [u8],
}

impl<'a> Rows<'a> {
    fn new(origin: &Origin, text: &'a [u8]) -> Self {
        Self { lines_before: origin.lines_before, last: Position::default(), rest: text }
    }

    fn read(&mut self) -> Result<RejectRow<'a>, RestoreError> {
        let (((lines, bytes), reason, record), rest): (((u64, u64), _, &[u8]), _) = read(self.rest)?;
        self.rest = rest;
        let Position { line, byte_offset } = self.last;
        self.last = Position { line: line.wrapping_add(lines), byte_offset: byte_offset.wrapping_add(bytes) };
        let line = self.last.line.wrapping_add(self.lines_before);
        let position = Position { line, byte_offset: self.last.byte_offset };
        if !position.is_possible() || record.len() > SHOWN_RECORD_BYTES {
            return Err(RestoreError::Inconsistent("a reject is impossible"));
        }
        Ok(RejectRow { position, reason, record })
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<RejectRow<'a>, RestoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() { None } else { Some(self.read()) }
    }
}

/// The rows of a file, or of several one after the other, that did not count.
#[derive(Clone, Debug)]
pub(crate) struct RejectLog {
    max_bytes: u64,
    /// A row did not fit. Those behind it are not kept either.
    is_full: bool,
    rows: u64,
    /// What they count for, at most `max_bytes`.
    pub(super) bytes: u64,
    pub(super) blocks: Vec<Block>,
    pub(super) open: OpenBlock,
}

impl RejectLog {
    /// No rows. `max_bytes` limits their records and [`REJECT_ROW_BYTES`] for each.
    pub(crate) fn new(max_bytes: u64) -> Self {
        let (is_full, rows, bytes) = (false, 0, 0);
        Self { max_bytes, is_full, rows, bytes, blocks: Vec::new(), open: OpenBlock::default() }
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// True when a row was left out, as it would have passed the limit.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// How many rows are kept.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a row, unless the limit is reached.
    pub(crate) fn push(&mut self, row: RejectRow<'_>) {
        if self.is_full || !self.has_room(row.bytes()) {
            self.is_full = true;
            return;
        }
        self.rows += 1;
        self.bytes += row.bytes();
        self.open.push(row);
        if self.open.text.len() >= BLOCK_BYTES {
            self.close_block();
        }
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) <= self.max_bytes
    }

    fn close_block(&mut self) {
        let origin = self.open.origin.clone();
        let OpenBlock { rows, bytes, text, .. } = std::mem::replace(&mut self.open, OpenBlock::new(origin.clone()));
        #[expect(clippy::expect_used, reason = "memory cannot refuse to be written")]
        let body = zstd::bulk::compress(&text, ZSTD_LEVEL).expect("text can be compressed into memory");
        self.blocks.push(Block::new(origin, rows, bytes, body.into()));
    }

    /// Names the file in every block that has no name yet.
    pub(crate) fn name_file(&mut self, file: &str) {
        let file: Arc<str> = file.into();
        for origin in self.origins().filter(|origin| origin.file.is_empty()) {
            origin.file = Arc::clone(&file);
        }
    }

    /// Says how many lines are before the part of the file that was read.
    pub(crate) fn move_down(&mut self, lines: u64) {
        self.origins().for_each(|origin| origin.lines_before = origin.lines_before.saturating_add(lines));
    }

    fn origins(&mut self) -> impl Iterator<Item = &mut Origin> {
        self.blocks.iter_mut().map(|block| &mut block.origin).chain([&mut self.open.origin])
    }

    /// Adds the rows that come after these, up to the limit.
    pub(crate) fn append(&mut self, next: Self) {
        let Self { max_bytes, is_full, rows, blocks, open, .. } = next;
        self.max_bytes = self.max_bytes.max(max_bytes);
        if rows == 0 {
            self.is_full |= is_full;
            return;
        }
        for block in blocks {
            if self.is_full {
                return;
            }
            if self.has_room(block.bytes) {
                self.begin_block(Origin::default());
                self.rows += block.rows;
                self.bytes += block.bytes;
                self.blocks.push(block);
            } else {
                self.push_all(&block.origin, &block.text());
            }
        }
        if self.is_full {
            return;
        }
        if self.has_room(open.bytes) {
            self.begin_block(open.origin.clone());
            self.rows += open.rows;
            self.bytes += open.bytes;
            self.open = open;
        } else {
            self.push_all(&open.origin, &open.text);
        }
        self.is_full |= is_full;
    }

    /// Adds as many of these rows as fit: not all do.
    fn push_all(&mut self, origin: &Origin, text: &[u8]) {
        self.begin_block(origin.clone());
        for row in Rows::new(origin, text).map_while(Result::ok) {
            self.push(row);
        }
    }

    /// Begins a block for rows of this origin.
    fn begin_block(&mut self, origin: Origin) {
        if self.open.rows > 0 {
            self.close_block();
        }
        self.open.origin = origin;
    }

    /// All rows, some at a time.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = RejectChunk> {
        let closed = self.blocks.iter().map(|block| RejectChunk { origin: block.origin.clone(), text: block.text() });
        let open = || RejectChunk { origin: self.open.origin.clone(), text: self.open.text.clone() };
        closed.chain(std::iter::once_with(open))
    }
}

/// What is saved of a log besides its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogHead {
    max_bytes: u64,
    is_full: bool,
    /// The first blocks, which are stored separately, and the checksum of their checksums.
    separate: u64,
    separate_crc32: u32,
    /// Blocks that follow: closed ones, and an open one.
    blocks: u64,
}

impl LogHead {
    /// Blocks that follow the head.
    pub(crate) fn following(&self) -> u64 {
        self.blocks.saturating_add(1)
    }
}

/// A saved block: closed ones are compressed, the open one is not.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedBlock<'a> {
    file: &'a str,
    lines_before: u64,
    body: &'a [u8],
}

impl RejectLog {
    /// The bodies of the first blocks that can be stored separately: of a file that is read from its start and has no name yet, all closed ones.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        let needs_no_origin = |block: &&Block| block.origin.file.is_empty() && block.origin.lines_before == 0;
        self.blocks.iter().take_while(needs_no_origin).map(|block| &block.body)
    }

    /// What is saved ahead of the blocks, the first of which are stored separately.
    pub(crate) fn head(&self, separate: usize) -> LogHead {
        let (max_bytes, is_full) = (self.max_bytes, self.is_full);
        let separate_crc32 = crc32_of(&self.blocks[..separate]);
        LogHead {
            max_bytes,
            is_full,
            separate: separate as u64,
            separate_crc32,
            blocks: (self.blocks.len() - separate) as u64,
        }
    }

    /// The block of a number, to be saved; the last one is open.
    pub(crate) fn saved_block(&self, number: usize) -> SavedBlock<'_> {
        let (origin, body) = match self.blocks.get(number) {
            Some(block) => (&block.origin, &*block.body),
            None => (&self.open.origin, self.open.text.as_slice()),
        };
        SavedBlock { file: &origin.file, lines_before: origin.lines_before, body }
    }

    /// All blocks but the first, to be saved.
    pub(crate) fn saved_blocks(&self, first: usize) -> impl Iterator<Item = SavedBlock<'_>> {
        (first..=self.blocks.len()).map(|number| self.saved_block(number))
    }

    /// How many blocks there are, with the open one.
    pub(crate) fn block_count(&self) -> usize {
        self.blocks.len() + 1
    }
}

fn crc32_of(blocks: &[Block]) -> u32 {
    let mut crc32 = crc32fast::Hasher::new();
    for block in blocks {
        crc32.update(&block.crc32.to_le_bytes());
    }
    crc32.finalize()
}

/// Restores a log from what was saved of it.
pub(crate) struct LogReader {
    head: LogHead,
    /// Blocks that were stored separately.
    separate: Vec<Block>,
    log: RejectLog,
    has_open: bool,
}

impl LogReader {
    pub(crate) fn new(head: LogHead) -> Self {
        let log = RejectLog { is_full: head.is_full, ..RejectLog::new(head.max_bytes) };
        Self { head, separate: Vec::new(), log, has_open: false }
    }

    /// Memory of the blocks so far.
    pub(crate) fn memory_bytes(&self) -> usize {
        let separate = self.separate.iter().map(|block| block.body.len() + size_of::<Block>()).sum::<usize>();
        separate + self.log.memory_bytes()
    }

    /// How many blocks are stored separately.
    pub(crate) fn separate(&self) -> u64 {
        self.head.separate
    }

    /// Takes the next block that was stored separately.
    pub(crate) fn push_separate(&mut self, body: Arc<[u8]>) -> Result<(), RestoreError> {
        let block = closed_block(Origin::default(), body)?;
        self.separate.push(block);
        Ok(())
    }

    /// Takes the next block that follows the head.
    pub(crate) fn push(&mut self, block: &SavedBlock<'_>) -> Result<(), RestoreError> {
        let SavedBlock { file, lines_before, body } = *block;
        if lines_before > MAX_TEXT_BYTES {
            return Err(RestoreError::Inconsistent("a reject is impossible"));
        }
        let origin = Origin { file: file.into(), lines_before };
        if (self.log.blocks.len() as u64) < self.head.blocks {
            self.log.blocks.push(closed_block(origin, body.into())?);
            return Ok(());
        }
        if body.len() >= BLOCK_BYTES || self.has_open {
            return Err(RestoreError::Inconsistent("there are more rejects than its head says"));
        }
        let counted = count_rows(&origin, body)?;
        self.log.open =
            OpenBlock { origin, rows: counted.rows, bytes: counted.bytes, last: counted.last, text: body.to_vec() };
        self.has_open = true;
        Ok(())
    }

    /// The log, of a data set of which this many rows were skipped.
    pub(crate) fn finish(self, rows_skipped: u64) -> Result<RejectLog, RestoreError> {
        let Self { head, separate, mut log, has_open } = self;
        if separate.len() as u64 != head.separate || crc32_of(&separate) != head.separate_crc32 {
            return Err(RestoreError::Inconsistent("blocks of rejects are missing or of another state"));
        }
        if log.blocks.len() as u64 != head.blocks || !has_open {
            return Err(RestoreError::Inconsistent("blocks of rejects are missing"));
        }
        log.blocks.splice(0..0, separate);
        let rows = log.blocks.iter().map(|block| block.rows).chain([log.open.rows]);
        let bytes = log.blocks.iter().map(|block| block.bytes).chain([log.open.bytes]);
        (log.rows, log.bytes) = (rows.sum(), bytes.sum());
        if log.bytes > log.max_bytes || log.rows > rows_skipped {
            return Err(RestoreError::Inconsistent("there are more rejects than are kept"));
        }
        Ok(log)
    }
}

struct CountedRows {
    rows: u64,
    bytes: u64,
    last: Position,
}

/// Looks through the text of a block.
fn count_rows(origin: &Origin, text: &[u8]) -> Result<CountedRows, RestoreError> {
    let (mut rows, mut counted, mut bytes) = (Rows::new(origin, text), 0, 0);
    while let Some(row) = rows.next().transpose()? {
        counted += 1;
        bytes += row.bytes();
    }
    Ok(CountedRows { rows: counted, bytes, last: rows.last })
}

fn closed_block(origin: Origin, body: Arc<[u8]>) -> Result<Block, RestoreError> {
    let CountedRows { rows, bytes, .. } = count_rows(&origin, &decompress(&body)?)?;
    Ok(Block::new(origin, rows, bytes, body))
}
