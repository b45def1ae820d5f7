//! The way of one upload's bytes from the socket to the engine.
//!
//! Pieces are collected as they come, by reference, while a worker reads those before them; when enough have been
//! collected and the worker is still busy, nothing more is taken from the socket until it is done. So at most two batches
//! are in memory, and a slow parser slows the sender. Workers are not threads of the runtime, and their number is
//! limited: batches of different uploads wait in line for them.

use std::future::pending;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::block::BLOCK_BYTES;
use super::pipeline::{ContentError, Pipeline};

/// The most pieces in a batch. Senders that cut their data to shreds cost a piece of bookkeeping for each.
const MAX_BATCH_PIECES: usize = 1024;

/// Pieces wait no longer than this to be read, however few they are.
const MAX_BATCH_AGE: Duration = Duration::from_millis(100);

/// The threads that parse, a fixed number for all uploads together. Work waits in line for them, at most a batch of
/// each upload; a thread that is done takes the next from there without going to sleep between, which is what many uploads
/// at once would spend their time on.
#[derive(Clone)]
pub struct Workers(Arc<Pool>);

/// A runtime of which only the threads for blocking work are used: it keeps their number, and the line.
struct Pool(Option<Runtime>);

impl Workers {
    /// At most this many threads.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it does not")]
    pub fn new(threads: NonZeroUsize) -> Self {
        let runtime = Builder::new_current_thread().max_blocking_threads(threads.get()).thread_name("parser").build();
        #[expect(clippy::expect_used, reason = "without drivers there is nothing that the system could refuse")]
        let runtime = runtime.expect("a runtime without drivers can be made");
        Self(Arc::new(Pool(Some(runtime))))
    }

    fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match &self.0.0 {
            Some(runtime) => runtime.spawn_blocking(work),
            // It is taken only when the pool is dropped.
            None => spawn_blocking(work),
        }
    }

    /// Runs something that computes, as soon as it is its turn.
    ///
    /// # Errors
    /// When it panics.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkerPanicked> {
        Ok(self.spawn(work).await?)
    }

    fn read(&self, pipeline: &SharedPipeline, mut batch: Batch, observer: &Arc<impl LaneObserver>) -> Reading {
        let (pipeline, observer) = (Arc::clone(pipeline), Arc::clone(observer));
        self.spawn(move || {
            let progress = {
                let mut pipeline = pipeline.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(pipeline) = &mut *pipeline else {
                    // The upload is over.
                    return Ok(Batch::default());
                };
                for piece in batch.pieces.drain(..) {
                    pipeline.push(&piece)?;
                }
                FileProgress::of(pipeline)
            };
            observer.advanced(progress);
            batch.bytes = 0;
            Ok(batch)
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting for abandoned work would block a thread of the other runtime.
            runtime.shutdown_background();
        }
    }
}

/// A worker panicked: a defect in this program. The panic itself has been reported where it happened.
#[derive(Debug, Error)]
#[error("internal error while reading the data")]
pub struct WorkerPanicked(#[from] JoinError);

/// A pipeline that others may look at between two batches. Its owner takes it out at the end.
pub type SharedPipeline = Arc<Mutex<Option<Pipeline>>>;

/// How far an upload has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileProgress {
    /// Bytes as they were sent.
    pub bytes_received: u64,
    /// Data records.
    pub rows_read: u64,
    /// Those that did not count.
    pub rows_skipped: u64,
    /// Campaigns with at least one row that counted.
    pub unique_campaigns: u64,
}

impl FileProgress {
    /// Where a pipeline stands.
    #[must_use]
    pub fn of(pipeline: &Pipeline) -> Self {
        let so_far = pipeline.so_far();
        Self {
            bytes_received: pipeline.bytes_received(),
            rows_read: so_far.counters().rows_read,
            rows_skipped: so_far.counters().rows_skipped(),
            unique_campaigns: so_far.unique_campaigns() as u64,
        }
    }
}

/// Learns, on the worker's thread, of what has been read so far.
pub trait LaneObserver: Send + Sync + 'static {
    /// A batch has been read. The pipeline is not locked.
    fn advanced(&self, progress: FileProgress);
}

/// Why an upload was not read to its end.
#[derive(Debug, Error)]
pub enum LaneError<E> {
    /// The source of the bytes failed.
    #[error("{0}")]
    Source(E),
    /// The contents cannot be used.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// We failed.
    #[error(transparent)]
    Worker(#[from] WorkerPanicked),
}

/// Gives the batch back, empty, for the next pieces.
type Reading = JoinHandle<Result<Batch, ContentError>>;

/// Reads everything that comes into the pipeline. When this future is dropped, a batch that is being read is read to its end.
///
/// # Errors
/// When the source fails, or the contents cannot be used. What came before a failure of the source has been read.
pub async fn receive<E>(
    source: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    pipeline: &SharedPipeline,
    workers: &Workers,
    observer: &Arc<impl LaneObserver>,
) -> Result<(), LaneError<E>> {
    let mut reading: Option<Reading> = None;
    let mut batch = Batch::default();
    let mut spare = Batch::default();
    let mut overdue = pin!(sleep(MAX_BATCH_AGE));
    let mut is_overdue = false;
    let mut end: Option<Result<(), E>> = None;
    loop {
        if reading.is_none() && (batch.is_full() || is_overdue || end.is_some()) {
            if batch.pieces.is_empty()
                && let Some(end) = end
            {
                return end.map_err(LaneError::Source);
            }
            is_overdue = false;
            let next = std::mem::replace(&mut batch, std::mem::take(&mut spare));
            reading = Some(workers.read(pipeline, next, observer));
            continue;
        }
        tokio::select! {
            biased;
            read = finish(&mut reading), if reading.is_some() => {
                reading = None;
                spare = read.map_err(WorkerPanicked)??;
            }
            piece = source.next(), if !batch.is_full() && end.is_none() => match piece {
                Some(Ok(piece)) => {
                    if batch.pieces.is_empty() {
                        overdue.as_mut().reset(Instant::now() + MAX_BATCH_AGE);
                    }
                    batch.add(piece);
                }
                Some(Err(error)) => end = Some(Err(error)),
                None => end = Some(Ok(())),
            },
            () = &mut overdue, if reading.is_none() && !batch.pieces.is_empty() => is_overdue = true,
        }
    }
}

async fn finish(reading: &mut Option<Reading>) -> Result<Result<Batch, ContentError>, JoinError> {
    match reading {
        Some(reading) => reading.await,
        None => pending().await,
    }
}

/// Pieces that are read in one go. None is empty.
#[derive(Default)]
struct Batch {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BLOCK_BYTES || self.pieces.len() >= MAX_BATCH_PIECES
    }

    fn add(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push(piece);
        }
    }
}
