//! What happens on the worker that reads a file: memory is asked for, states are taken, progress is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::board::Live;
use super::checkpoint::DueStates;
use super::live_file::{LiveFile, upload_bytes};
use super::memory::MemoryBudget;
use crate::ingest::{FileProgress, Growth, LaneObserver, Pipeline};

/// Shows how a file of a job is being read, asks for memory, and takes its state when that is due.
pub(super) struct FileObserver {
    pub(super) live: Arc<Live>,
    pub(super) file: Arc<LiveFile>,
    pub(super) states: DueStates,
    pub(super) budget: Arc<MemoryBudget>,
    /// Nothing is read: memory was refused.
    pub(super) waits_for_memory: AtomicBool,
}

impl LaneObserver for FileObserver {
    fn permit(&self, Growth { now_bytes, most_bytes, is_least }: Growth) -> bool {
        let memory = self.file.memory();
        let (now_bytes, most_bytes) = (upload_bytes(now_bytes), upload_bytes(most_bytes));
        let is_permitted = if is_least {
            memory.request(now_bytes, most_bytes).is_ok()
        } else {
            memory.try_raise(now_bytes, most_bytes).is_ok()
        };
        self.waits_for_memory.store(!is_permitted, Ordering::Relaxed);
        is_permitted
    }

    fn memory_freed(&self) -> impl Future<Output = ()> + Send {
        self.file.memory().freed()
    }

    fn batch_read(&self, pipeline: &mut Pipeline) {
        self.states.take_when_due(pipeline, &self.budget);
        self.file.memory().settle(upload_bytes(pipeline.memory_bytes()));
    }

    fn advanced(&self, progress: FileProgress) {
        self.file.show(progress);
        self.live.advanced();
    }
}
