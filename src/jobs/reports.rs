//! From what a job has counted to its results, piece by piece.

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::memory::Apart;
use super::options::JobOptions;
use super::store::{Output, ResultFile, ResultPiece, STATS_NAME};
use crate::engine::report::{Stats, campaign_header, campaign_lines, campaign_table, list_name, rejects_pieces};
use crate::engine::{Aggregate, Metric};
use crate::ingest::Sha256Digest;

/// Contents are cut behind the first line that ends beyond this. Whoever reads a result has one piece in memory.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces between the thread that makes them and the store.
const QUEUED_PIECES: usize = 2;

/// Fast, and a third of the size.
const ZSTD_LEVEL: i32 = 1;

/// The most memory that storing totals or results takes besides the totals: text, what it is compressed to, and pieces that wait.
const STORING_BYTES: u64 = 6 * 1024 * 1024;

/// Memory that storing what was counted takes besides it.
pub(super) fn storing_bytes(aggregate: &Aggregate) -> u64 {
    // Small totals become small pieces.
    let pieces = (256 * 1024 + 4 * aggregate.memory_bytes() as u64).min(STORING_BYTES);
    pieces + aggregate.sorting_bytes() as u64
}

/// All that a finished job has counted.
pub(super) struct Reports {
    pub(super) aggregate: Aggregate,
    pub(super) stats: Stats,
    pub(super) options: JobOptions,
    /// Rows of several files may have been skipped.
    pub(super) has_several_files: bool,
}

impl Reports {
    /// The names of the results.
    pub(super) fn names(&self) -> Vec<String> {
        let top = self.options.top;
        let mut names = vec![list_name(Metric::Ctr, top), list_name(Metric::Cpa, top), "campaigns.csv".into()];
        if !self.aggregate.rejects().is_empty() {
            names.push("rejects.csv".into());
        }
        names.push(STATS_NAME.into());
        names
    }

    /// Makes the results on a thread of its own, which waits while the queue is full.
    pub(super) fn produce(self, room: Option<Apart>) -> mpsc::Receiver<Result<Output, String>> {
        let (sender, receiver) = mpsc::channel(QUEUED_PIECES);
        let runtime = Handle::current();
        // Ranking, sorting, writing and compressing take time that the runtime's threads are not to lose.
        spawn_blocking(move || {
            runtime.block_on(async {
                let result = self.write(&sender).await;
                drop((self, room));
                // The receiver is gone when the store has given up.
                drop(sender.send(result.map(|()| Output::Complete)).await);
            });
        });
        receiver
    }

    async fn write(&self, outputs: &mpsc::Sender<Result<Output, String>>) -> Result<(), String> {
        let top = self.options.top;
        for metric in [Metric::Ctr, Metric::Cpa] {
            let table = campaign_table(&self.aggregate.leaders(metric, top.into()));
            ResultWriter::new(list_name(metric, top), outputs).write_all(table.as_bytes()).await?;
        }
        let mut campaigns = ResultWriter::new("campaigns.csv".into(), outputs);
        write_campaigns(&self.aggregate, &mut campaigns).await?;
        campaigns.end().await?;
        if !self.aggregate.rejects().is_empty() {
            let mut rejects = ResultWriter::new("rejects.csv".into(), outputs);
            for piece in rejects_pieces(&self.aggregate, self.has_several_files, PIECE_BYTES) {
                rejects.write_piece(piece.as_bytes()).await?;
            }
            rejects.end().await?;
        }
        let mut stats = serde_json::to_vec_pretty(&self.stats).map_err(|error| error.to_string())?;
        stats.push(b'\n');
        ResultWriter::new(STATS_NAME.into(), outputs).write_all(&stats).await
    }
}

/// Writes every campaign: only a piece of the table is ever in memory as text.
async fn write_campaigns(aggregate: &Aggregate, result: &mut ResultWriter<'_>) -> Result<(), String> {
    let mut campaigns = aggregate.campaigns();
    let mut text = campaign_header().into_bytes();
    loop {
        let lines = campaign_lines(&mut campaigns, PIECE_BYTES);
        let is_end = lines.is_empty();
        text.extend(lines);
        if !text.is_empty() {
            result.write_piece(&text).await?;
        }
        if is_end {
            return Ok(());
        }
        text.clear();
    }
}

/// Compresses and hands on one result.
struct ResultWriter<'a> {
    name: String,
    length: u64,
    sha256: Sha256,
    outputs: &'a mpsc::Sender<Result<Output, String>>,
}

impl<'a> ResultWriter<'a> {
    fn new(name: String, outputs: &'a mpsc::Sender<Result<Output, String>>) -> Self {
        Self { name, length: 0, sha256: Sha256::new(), outputs }
    }

    async fn write_piece(&mut self, text: &[u8]) -> Result<(), String> {
        self.sha256.update(text);
        let body = zstd::bulk::compress(text, ZSTD_LEVEL).map_err(|error| error.to_string())?;
        let length = text.len() as u64;
        self.send(Output::Piece { name: self.name.clone(), start: self.length, length, body }).await?;
        self.length += length;
        Ok(())
    }

    async fn write_all(mut self, contents: &[u8]) -> Result<(), String> {
        self.write_piece(contents).await?;
        self.end().await
    }

    async fn end(self) -> Result<(), String> {
        let Self { name, length, sha256, outputs } = self;
        let etag = fingerprint(sha256.finalize().into());
        outputs.send(Ok(Output::End(ResultFile { name, length, etag }))).await.map_err(|error| error.to_string())
    }

    async fn send(&self, output: Output) -> Result<(), String> {
        self.outputs.send(Ok(output)).await.map_err(|error| error.to_string())
    }
}

/// Hexadecimal digits that are others when a digest is: half of it is plenty.
#[must_use]
pub fn fingerprint(digest: Sha256Digest) -> String {
    let mut digits = hex(digest);
    digits.truncate(32);
    digits
}

/// A digest in hexadecimal digits.
#[must_use]
pub fn hex(digest: Sha256Digest) -> String {
    digest.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

/// The contents of a stored piece.
pub(super) fn decompress(piece: &ResultPiece) -> Result<Vec<u8>, String> {
    let length = usize::try_from(piece.length).map_err(|error| error.to_string())?;
    zstd::bulk::decompress(&piece.body, length).map_err(|error| error.to_string())
}
