//! When the state of a file that is being received is taken, to be stored.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::memory::{Apart, MemoryBudget};
use super::store::{Checkpoint, NewBlocks};
use crate::ingest::{FileProgress, Pipeline, SavedPipeline};

/// Taking and storing a small state takes at most this fraction of a file's time: one part in 50.
const SMALL_SHARE: u32 = 50;

/// A large state: one part in 10.
const LARGE_SHARE: u32 = 10;

/// The most pieces of a small state: one for where the file stands, one for what has to be read again, one for what it has counted.
const SMALL_PIECES: usize = 3;

/// A state that repeats more of the file than this is taken only when half of that is new: what is written for a file whose middle cannot be
/// gone on from stays below four times its [tail](Pipeline::tail_bytes), however slowly it comes.
const SMALL_TAIL_BYTES: u64 = 1024 * 1024;

/// A state, and how far the file had been read.
pub(super) struct TakenState {
    pub(super) saved: SavedPipeline,
    pub(super) progress: FileProgress,
    /// Memory of the pipeline that goes on from it.
    pub(super) memory_bytes: u64,
    pub(super) taking: Taking,
    /// Memory of the state.
    pub(super) room: Apart,
}

/// What taking a state has cost.
#[derive(Clone, Copy)]
pub(super) struct Taking {
    took: Duration,
    is_large: bool,
}

impl TakenState {
    /// The latest state, if there is one that has not been taken, and there is room for it. Computes: for workers.
    pub(super) fn take(pipeline: &mut Pipeline, mut room: Apart) -> Option<Self> {
        let begun = Instant::now();
        let saved = pipeline.take_latest_within(room.bytes())?;
        room.shrink(saved.memory_bytes() as u64);
        let progress = FileProgress { bytes_received: saved.offset, ..FileProgress::of(pipeline) };
        let taking = Taking { took: begun.elapsed(), is_large: saved.pieces.len() > SMALL_PIECES };
        let memory_bytes = pipeline.memory_bytes() as u64;
        Some(Self { saved, progress, memory_bytes, taking, room })
    }
}

/// The checkpoints of a writer.
pub(super) struct Checkpoints {
    next_number: AtomicI64,
    /// How many of the file's blocks of rejects are stored.
    stored_blocks: AtomicUsize,
}

impl Checkpoints {
    /// Those of a writer that begins with this pipeline, which is new or was restored from the store.
    pub(super) fn behind(pipeline: &Pipeline) -> Self {
        let stored_blocks = AtomicUsize::new(pipeline.so_far().reject_blocks().count());
        Self { next_number: AtomicI64::new(0), stored_blocks }
    }

    /// A state to be stored, without the blocks of rejects that are stored.
    pub(super) fn next(&self, saved: SavedPipeline) -> Checkpoint {
        let SavedPipeline { offset, pieces, mut reject_blocks, .. } = saved;
        let stored = self.stored_blocks.load(Ordering::Relaxed).min(reject_blocks.len());
        let reject_blocks = NewBlocks { stored, blocks: reject_blocks.split_off(stored) };
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        Checkpoint { number, offset, pieces, reject_blocks, file: None }
    }

    /// A checkpoint with this many blocks of rejects has been stored.
    pub(super) fn set_stored_blocks(&self, count: usize) {
        self.stored_blocks.store(count, Ordering::Relaxed);
    }
}

/// Takes the state of a file every so often, on the thread that reads it.
pub(super) struct DueStates {
    next: Mutex<Next>,
    taken: mpsc::Sender<TakenState>,
    interval: Duration,
}

/// The next state.
struct Next {
    /// None while a state is being taken or stored, and when none is wanted.
    due: Option<Instant>,
    /// Where the one before it stands.
    offset_before: u64,
}

impl Next {
    fn is_worth_it(&self, pipeline: &Pipeline) -> bool {
        let tail_bytes = pipeline.tail_bytes();
        let new_bytes = pipeline.bytes_received().saturating_sub(self.offset_before);
        tail_bytes <= SMALL_TAIL_BYTES || new_bytes >= tail_bytes / 2
    }
}

impl DueStates {
    /// States of a file behind this offset. The receiver stores them. Without an interval none is taken.
    pub(super) fn new(interval: Option<Duration>, offset: u64) -> (Self, mpsc::Receiver<TakenState>) {
        let (taken, receiver) = mpsc::channel(1);
        let due = interval.map(|interval| Instant::now() + interval);
        let next = Mutex::new(Next { due, offset_before: offset });
        (Self { next, taken, interval: interval.unwrap_or_default() }, receiver)
    }

    /// Takes the state if it is time to: at once, or, within compressed data, at the next position that can be gone on from.
    pub(super) fn take_when_due(&self, pipeline: &mut Pipeline, budget: &Arc<MemoryBudget>) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.due.is_none_or(|due| Instant::now() < due) || !next.is_worth_it(pipeline) {
            return;
        }
        // Without room it is tried again behind the next batch.
        let Some(room) = budget.try_room_to_save(pipeline.state_bytes() as u64) else {
            return;
        };
        if let Some(state) = TakenState::take(pipeline, room) {
            *next = Next { due: None, offset_before: state.saved.offset };
            // The receiver is gone when the file has ended.
            drop(self.taken.try_send(state));
        } else if pipeline.can_be_saved() {
            // It is too large.
            next.due = Some(Instant::now() + self.interval);
        } else {
            pipeline.save_when_possible();
        }
    }

    /// A state has been stored: the next one is due when that is worth it.
    pub(super) fn stored(&self, taking: Taking, storing: Duration) {
        let share = if taking.is_large { LARGE_SHARE } else { SMALL_SHARE };
        let next = Instant::now() + self.interval.max((taking.took + storing) * share);
        self.next.lock().unwrap_or_else(PoisonError::into_inner).due = Some(next);
    }
}
