//! When the state of a file that is being received is taken, to be stored.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::ingest::{FileProgress, Pipeline, SavedPipeline};

/// Taking and storing a small state takes at most this fraction of a file's time: one part in 50.
const SMALL_SHARE: u32 = 50;

/// A large state: one part in 10.
const LARGE_SHARE: u32 = 10;

/// The most pieces of a small state: one for where the file stands, one for what it has counted.
const SMALL_PIECES: usize = 2;

/// A state, and how far the file had been read.
pub(super) struct TakenState {
    pub(super) saved: SavedPipeline,
    pub(super) progress: FileProgress,
    pub(super) taking: Taking,
}

/// What taking a state has cost.
#[derive(Clone, Copy)]
pub(super) struct Taking {
    took: Duration,
    is_large: bool,
}

impl TakenState {
    /// The latest state, if there is one that has not been taken. Computes: for workers.
    pub(super) fn take(pipeline: &mut Pipeline) -> Option<Self> {
        let begun = Instant::now();
        let saved = pipeline.take_latest()?;
        let progress = FileProgress { bytes_received: saved.offset, ..FileProgress::of(pipeline) };
        let taking = Taking { took: begun.elapsed(), is_large: saved.pieces.len() > SMALL_PIECES };
        Some(Self { saved, progress, taking })
    }
}

/// Takes the state of a file every so often, on the thread that reads it.
pub(super) struct DueStates {
    /// None while a state is being taken or stored, and when none is wanted.
    next: Mutex<Option<Instant>>,
    taken: mpsc::Sender<TakenState>,
    interval: Duration,
}

impl DueStates {
    /// The states go to the one who stores them. Without an interval none is taken.
    pub(super) fn new(interval: Option<Duration>) -> (Self, mpsc::Receiver<TakenState>) {
        let (taken, receiver) = mpsc::channel(1);
        let next = interval.map(|interval| Instant::now() + interval);
        (Self { next: Mutex::new(next), taken, interval: interval.unwrap_or_default() }, receiver)
    }

    /// Takes the state if it is time to: at once, or, within compressed data, at the next position that can be gone on from.
    pub(super) fn take_when_due(&self, pipeline: &mut Pipeline) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_none_or(|due| Instant::now() < due) {
            return;
        }
        if let Some(state) = TakenState::take(pipeline) {
            *next = None;
            // The receiver is gone when the file has ended.
            drop(self.taken.try_send(state));
        } else {
            pipeline.save_when_possible();
        }
    }

    /// A state has been stored: the next one is due when that is worth it.
    pub(super) fn stored(&self, taking: Taking, storing: Duration) {
        let share = if taking.is_large { LARGE_SHARE } else { SMALL_SHARE };
        let next = Instant::now() + self.interval.max((taking.took + storing) * share);
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }
}
