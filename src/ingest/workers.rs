//! The threads that compute, so that those of the runtime do not.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, spawn_blocking};

use super::text::Text;

/// Buffers that are kept, for each thread: two threads that read an upload together use three.
const SPARE_TEXTS: usize = 2;

/// The threads that parse, a fixed number for all uploads together. Work waits in line for them, at most a batch of
/// each upload; a thread that is done takes the next from there without going to sleep between, which is what many uploads
/// at once would spend their time on.
#[derive(Clone)]
pub struct Workers(Arc<Pool>);

struct Pool {
    /// Only its threads for blocking work are used: it keeps their number, and the line.
    runtime: Option<Runtime>,
    threads: usize,
    load: Arc<Load>,
    /// Buffers that no upload uses, at most [`SPARE_TEXTS`] for each thread.
    spare_texts: Mutex<Vec<Text>>,
}

/// What the threads have to do.
#[derive(Default)]
pub(super) struct Load {
    /// How much work waits in line.
    waiting: AtomicUsize,
    /// How much work has been given to the threads and has not ended.
    unfinished: AtomicUsize,
}

impl Load {
    /// True when work waits in line.
    pub(super) fn are_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Work that counts as unfinished until this is dropped.
struct Unfinished(Arc<Load>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.unfinished.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// At most this many threads.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it does not")]
    pub fn new(threads: NonZeroUsize) -> Self {
        let runtime = Builder::new_current_thread().max_blocking_threads(threads.get()).thread_name("parser").build();
        #[expect(clippy::expect_used, reason = "without drivers there is nothing that the system could refuse")]
        let runtime = runtime.expect("a runtime without drivers can be made");
        let (load, spare_texts) = (Arc::default(), Mutex::default());
        Self(Arc::new(Pool { runtime: Some(runtime), threads: threads.get(), load, spare_texts }))
    }

    pub(super) fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let Pool { runtime, load, .. } = &*self.0;
        load.waiting.fetch_add(1, Ordering::Relaxed);
        load.unfinished.fetch_add(1, Ordering::Relaxed);
        let unfinished = Unfinished(Arc::clone(load));
        let work = move || {
            unfinished.0.waiting.fetch_sub(1, Ordering::Relaxed);
            work()
        };
        match runtime {
            Some(runtime) => runtime.spawn_blocking(work),
            // It is taken only when the pool is dropped.
            None => spawn_blocking(work),
        }
    }

    /// Has work done by a thread that has nothing to do. False when there is none: then it is not done. Other work may get the thread first,
    /// and perhaps for long.
    pub(super) fn spawn_if_idle(&self, work: impl FnOnce() + Send + 'static) -> bool {
        let Pool { runtime, threads, load, .. } = &*self.0;
        let one_more = |unfinished| (unfinished < *threads).then_some(unfinished + 1);
        let Some(runtime) = runtime else { return false };
        if load.unfinished.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return false;
        }
        let unfinished = Unfinished(Arc::clone(load));
        drop(runtime.spawn_blocking(move || {
            work();
            drop(unfinished);
        }));
        true
    }

    /// True when a thread has nothing to do.
    pub(super) fn are_idle(&self) -> bool {
        self.0.load.unfinished.load(Ordering::Relaxed) < self.0.threads
    }

    /// Runs something that computes, as soon as it is its turn.
    ///
    /// # Errors
    /// When it panics.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkerPanicked> {
        self.spawn(work).await.map_err(|_| WorkerPanicked)
    }

    pub(super) fn load(&self) -> &Arc<Load> {
        &self.0.load
    }

    /// A buffer, which may have its memory already. It is empty.
    pub(super) fn take_text(&self) -> Text {
        self.spare_texts().pop().unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn kept_texts(&self) -> usize {
        self.spare_texts().len()
    }

    /// Keeps a buffer to be taken later.
    pub(super) fn keep_text(&self, mut text: Text) {
        text.clear();
        let mut spare = self.spare_texts();
        if spare.len() < SPARE_TEXTS * self.0.threads {
            spare.push(text);
        }
    }

    fn spare_texts(&self) -> MutexGuard<'_, Vec<Text>> {
        self.0.spare_texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for abandoned work would block a thread of the other runtime.
            runtime.shutdown_background();
        }
    }
}

/// A worker panicked: a defect in this program. The panic itself has been reported where it happened.
#[derive(Debug, Error)]
#[error("internal error while reading the data")]
pub struct WorkerPanicked;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// In this order: work counts as ended before its end is told.
    #[test]
    fn threads_are_idle_again_whenever_work_has_ended() {
        let waiting = Builder::new_current_thread().build().unwrap();
        let workers = Workers::new(NonZeroUsize::new(1).unwrap());
        assert!(workers.are_idle());
        for _ in 0..3 {
            let (end, ended) = channel::<()>();
            let work = workers.spawn(move || ended.recv());
            assert!(!workers.are_idle());
            assert!(!workers.spawn_if_idle(|| ()));
            drop(end);
            assert!(waiting.block_on(work).unwrap().is_err());
            assert!(workers.are_idle());
            assert!(waiting.block_on(workers.run(|| panic!("as the test wants"))).is_err());
            assert!(workers.are_idle());
        }
        assert!(!workers.load().are_wanted());
    }
}
