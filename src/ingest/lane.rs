//! The way of one upload's bytes from the socket to the engine.
//!
//! Pieces are collected as they come, by reference, while a worker reads those before them; when enough have been
//! collected and the worker is still busy, nothing more is taken from the socket until it is done. So at most two batches
//! are in memory, and a slow parser slows the sender. Workers are not threads of the runtime, and their number is
//! limited: uploads wait in line for them.
//!
//! While a worker has nothing to do, it counts the text of a compressed upload that another one decompresses ([`super::counter`]).
//!
//! Memory is asked for before it is taken ([`LaneObserver::permit`]). While it is refused, no worker reads: the pieces that are left wait for
//! [`LaneObserver::memory_freed`].
//!
//! Waking a thread costs more than reading a hundred kilobytes. So a worker that has read a batch goes on with the next one when that is
//! full, and wakes the upload's task only when that waits for it. When other work waits in line, it goes to the end of its account's
//! line instead, after each batch, and in the middle of one that becomes much text.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::panicking;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::block::BLOCK_BYTES;
use super::growth::{Growth, Pushed};
use super::pipeline::{ContentError, Pipeline};
use super::workers::{WorkerPanicked, Workers};

/// The most pieces in a batch. Senders that cut their data to shreds cost a piece of bookkeeping for each.
const MAX_BATCH_PIECES: usize = 1024;

/// Memory of what waits on a lane: two batches, the last piece of each beyond its end, and what the connection has read ahead.
pub const LANE_BYTES: usize = 4 * BLOCK_BYTES;

/// Pieces wait no longer than this to be read, however few they are.
const MAX_BATCH_AGE: Duration = Duration::from_millis(100);

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
    /// Asked before text is counted, and again until all of a batch has been read: whether the pipeline may take so much memory. The pipeline
    /// is locked.
    fn permit(&self, growth: Growth) -> bool {
        let _ = growth;
        true
    }

    /// Resolves when it is worth asking again for memory that was refused.
    fn memory_freed(&self) -> impl Future<Output = ()> + Send {
        pending()
    }

    /// A batch has been read, or as much of it as there was memory for, or as one turn allows. The pipeline is locked.
    fn batch_read(&self, pipeline: &mut Pipeline);

    /// The same. The pipeline is not locked.
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

/// Reads everything that comes into the pipeline. When this future is dropped, a worker that is reading ends its batch or its turn.
///
/// # Errors
/// When the source fails, or the contents cannot be used. What came before a failure of the source has been read.
pub async fn receive<E>(
    source: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    pipeline: &SharedPipeline,
    workers: &Workers,
    observer: &Arc<impl LaneObserver>,
) -> Result<(), LaneError<E>> {
    let lane = Arc::new(Lane::new(pipeline, workers, observer));
    let _abandon = AbandonOnDrop(&lane);
    let mut overdue = pin!(sleep(MAX_BATCH_AGE));
    let mut end: Option<Result<(), E>> = None;
    loop {
        let collected = Lane::read_if_due(&lane, end.is_some())?;
        if collected == Collected::AllRead
            && let Some(end) = end
        {
            return end.map_err(LaneError::Source);
        }
        let has_room = collected != Collected::Full && end.is_none();
        let is_parked = lane.state().is_parked;
        tokio::select! {
            biased;
            () = lane.changed.notified() => {}
            () = observer.memory_freed(), if is_parked => lane.state().is_parked = false,
            piece = source.next(), if has_room => match piece {
                Some(Ok(piece)) => {
                    if lane.add(piece) {
                        overdue.as_mut().reset(Instant::now() + MAX_BATCH_AGE);
                    }
                }
                Some(Err(error)) => end = Some(Err(error)),
                None => end = Some(Ok(())),
            },
            () = &mut overdue, if collected == Collected::Some => lane.state().due = Due::Now,
        }
    }
}

/// What an upload's task and its worker share.
struct Lane<O> {
    state: Mutex<State>,
    /// The upload's task waits for something that has happened.
    changed: Notify,
    pipeline: SharedPipeline,
    workers: Workers,
    observer: Arc<O>,
}

#[derive(Default)]
struct State {
    /// Pieces that wait to be read.
    batch: Batch,
    /// What is left of a batch, as memory was refused or the turn was over.
    rest: Batch,
    /// No worker reads until memory is freed.
    is_parked: bool,
    /// An empty batch that has its memory.
    spare: Batch,
    /// A worker is reading, or about to.
    is_reading: bool,
    due: Due,
    is_abandoned: bool,
    failure: Option<ReadError>,
}

/// When a worker reads the pieces that have been collected.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Due {
    #[default]
    WhenFull,
    /// However few there are: the first of them has waited for [`MAX_BATCH_AGE`].
    Now,
    /// However few there are: no others will follow, and the upload's task waits until all have been read.
    ToTheEnd,
}

/// Why a worker could not read.
enum ReadError {
    Content(ContentError),
    Worker(WorkerPanicked),
}

/// How much waits to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Collected {
    /// Nothing, and nothing is being read.
    AllRead,
    /// Nothing, while a worker reads; or something that is due already.
    Nothing,
    /// Less than a batch.
    Some,
    /// A batch.
    Full,
}

impl State {
    fn has_next(&self) -> bool {
        let is_due = !self.batch.pieces.is_empty() && (self.batch.is_full() || self.due != Due::WhenFull);
        !self.is_parked && (is_due || !self.rest.pieces.is_empty())
    }

    fn take_next(&mut self) -> Batch {
        if !self.rest.pieces.is_empty() {
            return std::mem::take(&mut self.rest);
        }
        if self.due == Due::Now {
            self.due = Due::WhenFull;
        }
        let spare = std::mem::take(&mut self.spare);
        std::mem::replace(&mut self.batch, spare)
    }
}

impl<O: LaneObserver> Lane<O> {
    fn new(pipeline: &SharedPipeline, workers: &Workers, observer: &Arc<O>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            pipeline: Arc::clone(pipeline),
            workers: workers.clone(),
            observer: Arc::clone(observer),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece to those that wait. Gives whether it is the first of them.
    fn add(&self, piece: Bytes) -> bool {
        let mut state = self.state();
        let is_first = state.batch.pieces.is_empty();
        state.batch.add(piece);
        is_first
    }

    /// Sees to it that a worker reads what is due.
    fn read_if_due<E>(lane: &Arc<Self>, is_last: bool) -> Result<Collected, LaneError<E>> {
        let mut state = lane.state();
        match state.failure.take() {
            Some(ReadError::Content(error)) => return Err(error.into()),
            Some(ReadError::Worker(error)) => return Err(error.into()),
            None => {}
        }
        if is_last {
            state.due = Due::ToTheEnd;
        }
        if !state.is_reading && state.has_next() {
            state.is_reading = true;
            let reader = Arc::clone(lane);
            drop(lane.workers.spawn(move || Self::read(&reader)));
        }
        Ok(if state.batch.is_full() {
            Collected::Full
        } else if state.batch.pieces.is_empty() && state.rest.pieces.is_empty() && !state.is_reading {
            Collected::AllRead
        } else if state.batch.pieces.is_empty() || state.due != Due::WhenFull {
            Collected::Nothing
        } else {
            Collected::Some
        })
    }

    /// Reads what waits, and what is due then, until nothing is or others want the worker.
    fn read(lane: &Arc<Self>) {
        let _report = ReportPanic(lane);
        loop {
            let mut batch = {
                let mut state = lane.state();
                if state.batch.is_full() {
                    lane.changed.notify_one();
                }
                state.take_next()
            };
            let read = lane.read_batch(&mut batch);
            let mut state = lane.state();
            let goes_on = match read {
                Ok(Pushed::All) => {
                    batch.bytes = 0;
                    state.spare = batch;
                    state.has_next() && !state.is_abandoned
                }
                Ok(Pushed::TurnOver) => {
                    state.rest = batch;
                    !state.is_abandoned
                }
                Ok(Pushed::Part) => {
                    state.rest = batch;
                    state.is_parked = true;
                    false
                }
                Err(error) => {
                    state.failure = Some(ReadError::Content(error));
                    false
                }
            };
            if !goes_on {
                state.is_reading = false;
                if state.due == Due::ToTheEnd || state.failure.is_some() || state.is_parked {
                    lane.changed.notify_one();
                }
                return;
            }
            drop(state);
            if lane.workers.load().are_wanted() {
                let reader = Arc::clone(lane);
                drop(lane.workers.spawn(move || Self::read(&reader)));
                return;
            }
        }
    }

    fn read_batch(&self, batch: &mut Batch) -> Result<Pushed, ContentError> {
        let (pushed, progress) = {
            let mut pipeline = self.pipeline.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(pipeline) = &mut *pipeline else {
                // The upload is over.
                batch.pieces.clear();
                return Ok(Pushed::All);
            };
            let pushed = pipeline.push_all(&mut batch.pieces, &self.workers, |growth| self.observer.permit(growth))?;
            self.observer.batch_read(pipeline);
            (pushed, FileProgress::of(pipeline))
        };
        self.observer.advanced(progress);
        Ok(pushed)
    }
}

/// Tells the upload's task of a worker that panics.
struct ReportPanic<'a, O: LaneObserver>(&'a Lane<O>);

impl<O: LaneObserver> Drop for ReportPanic<'_, O> {
    fn drop(&mut self) {
        if panicking() {
            self.0.state().failure = Some(ReadError::Worker(WorkerPanicked));
            self.0.changed.notify_one();
        }
    }
}

/// Ends the reading when the upload's task is gone.
struct AbandonOnDrop<'a, O: LaneObserver>(&'a Lane<O>);

impl<O: LaneObserver> Drop for AbandonOnDrop<'_, O> {
    fn drop(&mut self) {
        self.0.state().is_abandoned = true;
    }
}

/// Pieces that are read in one go. None is empty.
#[derive(Default)]
struct Batch {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BLOCK_BYTES || self.pieces.len() >= MAX_BATCH_PIECES
    }

    fn add(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
    }
}
