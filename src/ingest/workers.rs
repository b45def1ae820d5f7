//! The threads that compute, so that those of the runtime do not.
//!
//! Work that takes long and cannot be divided has threads of its own, because it keeps a thread until it ends. If it shared the threads of short
//! work, an upload of plain text could wait that long for each batch, and would get less than its share. The operating system divides the cores
//! between the two groups of threads: it can interrupt a thread at any time.

use std::io;
use std::mem::take;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use thiserror::Error;
use tokio::sync::oneshot;

use super::text::Text;
use super::turns::{Account, Turns};

/// Buffers that are kept, for each thread: two threads that read an upload together use three.
const SPARE_TEXTS: usize = 2;

/// The threads that parse, a fixed number for all uploads together, and as many for [long turns](Turn::Long). Work waits in line for them, at most
/// a batch of each upload; a thread that is done takes the next from there without going to sleep between, which is what many uploads
/// at once would spend their time on.
///
/// Tenants take turns, and so do the uploads of each: whose work has kept threads for the least time goes first. A clone works for the same
/// account.
#[derive(Clone)]
pub struct Workers {
    pool: Arc<Pool>,
    account: Account,
    /// How long a batch of the upload keeps a thread.
    turn: Turn,
}

/// For how long work keeps a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// About as long as a batch of plain text takes. What takes longer gives way in the middle.
    Short,
    /// Milliseconds or more, as it cannot be divided.
    Long,
}

struct Pool {
    short: Arc<Line>,
    long: Arc<Line>,
    /// Of each line.
    threads: usize,
    /// Uploads that have had an account.
    uploads: AtomicU64,
    /// Buffers that no upload uses, at most [`SPARE_TEXTS`] for each thread.
    spare_texts: Mutex<Vec<Text>>,
}

/// What the threads share. They do not keep the pool.
#[derive(Default)]
struct Line {
    state: Mutex<LineState>,
    /// Work has come, or the line is closed.
    changed: Condvar,
    load: Arc<Load>,
}

#[derive(Default)]
struct LineState {
    turns: Turns<Box<dyn Work>>,
    /// Threads that wait for work.
    sleeping: usize,
    /// The threads end.
    is_closed: bool,
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

/// Work for a thread.
trait Work: Send {
    /// Does it. May panic.
    fn run(&mut self);

    /// Tells what came of it: nothing, when it has panicked.
    fn tell(self: Box<Self>);
}

struct Task<W, T> {
    work: Option<W>,
    outcome: Option<T>,
    told: oneshot::Sender<T>,
}

impl<W: FnOnce() -> T + Send, T: Send> Work for Task<W, T> {
    fn run(&mut self) {
        self.outcome = self.work.take().map(|work| work());
    }

    fn tell(self: Box<Self>) {
        let Self { outcome, told, .. } = *self;
        if let Some(outcome) = outcome {
            // It is no error when the one who asked for the work has gone.
            drop(told.send(outcome));
        }
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts work in line, and counts it.
    fn spawn<T: Send + 'static>(
        &self,
        account: &Account,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let load = Arc::clone(&self.load);
        load.waiting.fetch_add(1, Ordering::Relaxed);
        load.unfinished.fetch_add(1, Ordering::Relaxed);
        self.add(account, move || {
            load.waiting.fetch_sub(1, Ordering::Relaxed);
            work()
        })
    }

    /// Puts work in line that has been counted as unfinished.
    fn add<T: Send + 'static>(
        &self,
        account: &Account,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (told, outcome) = oneshot::channel();
        let mut state = self.state();
        state.turns.add(account, Box::new(Task { work: Some(work), outcome: None, told }));
        let has_sleeping = state.sleeping > 0;
        drop(state);
        if has_sleeping {
            self.changed.notify_one();
        }
        outcome
    }

    /// Waits for the work that is next. None when the line is closed.
    fn next(&self) -> Option<(Account, Box<dyn Work>)> {
        let mut state = self.state();
        while !state.is_closed {
            if let Some(next) = state.turns.take() {
                return Some(next);
            }
            state.sleeping += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
        }
        None
    }

    /// What each thread does until the line is closed.
    fn serve(&self) {
        while let Some((account, mut work)) = self.next() {
            let begun = Instant::now();
            // The panic has been reported, and is told to those who wait for the work.
            drop(catch_unwind(AssertUnwindSafe(|| work.run())));
            // No work is free, however coarse the clock is.
            let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
            self.state().turns.end(&account, nanoseconds);
            self.load.unfinished.fetch_sub(1, Ordering::Relaxed);
            // Dropping an outcome that nobody waits for may panic, too.
            drop(catch_unwind(AssertUnwindSafe(|| work.tell())));
        }
    }

    /// Ends the threads, each after the work that it is doing. Work that waits is dropped.
    fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let dropped = take(&mut state.turns);
        drop(state);
        self.changed.notify_all();
        drop(dropped);
    }
}

impl Workers {
    /// Starts this many threads. They work for the service itself, until it is told [for whom](Self::of).
    ///
    /// # Errors
    /// When the system does not start all of them.
    pub fn new(threads: NonZeroUsize) -> io::Result<Self> {
        let pool = Pool {
            short: Arc::default(),
            long: Arc::default(),
            threads: threads.get(),
            uploads: AtomicU64::new(0),
            spare_texts: Mutex::default(),
        };
        for (line, name) in [(&pool.short, "parser"), (&pool.long, "parser-long")] {
            for _ in 0..pool.threads {
                let line = Arc::clone(line);
                // When one cannot be started, the pool is dropped, and with it those before.
                thread::Builder::new().name(name.into()).spawn(move || line.serve())?;
            }
        }
        Ok(Self { pool: Arc::new(pool), account: Account::default(), turn: Turn::Short })
    }

    /// The same threads, for what is done for this tenant besides its uploads.
    #[must_use]
    pub fn of(&self, tenant: impl Into<Arc<str>>) -> Self {
        Self { account: Account { tenant: Some(tenant.into()), upload: 0 }, ..self.clone() }
    }

    /// The same threads, for one upload of the same tenant, the batches of which take such turns.
    #[must_use]
    pub fn for_upload(&self, turn: Turn) -> Self {
        let upload = self.pool.uploads.fetch_add(1, Ordering::Relaxed) + 1;
        Self { account: Account { upload, ..self.account.clone() }, turn, ..self.clone() }
    }

    /// Queues work that reads one batch. It also runs when the receiver is dropped. When the work panics, the receiver gets an error.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        self.line().spawn(&self.account, work)
    }

    /// Queues work if a thread is idle. Returns false, and drops the work, if none is. Other work may still take that thread first, perhaps for
    /// long.
    pub(super) fn spawn_if_idle(&self, work: impl FnOnce() + Send + 'static) -> bool {
        let one_more = |unfinished| (unfinished < self.pool.threads).then_some(unfinished + 1);
        let is_idle = self.load().unfinished.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if is_idle {
            // It does not count as waiting: no upload gives way to it.
            drop(self.line().add(&self.account, work));
        }
        is_idle
    }

    /// True when a thread has nothing to do.
    pub(super) fn are_idle(&self) -> bool {
        self.load().unfinished.load(Ordering::Relaxed) < self.pool.threads
    }

    /// Runs something that computes, however long, as soon as it is its turn.
    ///
    /// # Errors
    /// When it panics.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkerPanicked> {
        self.pool.long.spawn(&self.account, work).await.map_err(|_| WorkerPanicked)
    }

    /// Of the threads that read the batches of the upload.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.line().load
    }

    fn line(&self) -> &Arc<Line> {
        match self.turn {
            Turn::Short => &self.pool.short,
            Turn::Long => &self.pool.long,
        }
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
        if spare.len() < SPARE_TEXTS * self.pool.threads {
            spare.push(text);
        }
    }

    fn spare_texts(&self) -> MutexGuard<'_, Vec<Text>> {
        self.pool.spare_texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    /// Does not wait for the threads: the one that drops the pool may belong to a runtime, or to the pool.
    fn drop(&mut self) {
        self.short.close();
        self.long.close();
    }
}

/// A worker panicked: a defect in this program. The panic itself has been reported where it happened.
#[derive(Debug, Error)]
#[error("internal error while reading the data")]
pub struct WorkerPanicked;

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use futures_util::FutureExt as _;
    use tokio::runtime::Builder;

    use super::*;

    fn workers(threads: usize) -> Workers {
        Workers::new(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    /// Keeps the only thread busy until the sender is dropped.
    fn occupy(workers: &Workers) -> Sender<()> {
        let (end, ended) = channel::<()>();
        let (begun, begins) = channel();
        drop(workers.spawn(move || {
            begun.send(()).unwrap();
            ended.recv()
        }));
        begins.recv().unwrap();
        end
    }

    /// Work that tells its name.
    fn note(workers: &Workers, done: &Sender<&'static str>, name: &'static str) {
        let done = done.clone();
        drop(workers.spawn(move || done.send(name)));
    }

    fn rest(done: &Receiver<&'static str>, sender: Sender<&'static str>) -> Vec<&'static str> {
        drop(sender);
        done.iter().collect()
    }

    /// In this order: work counts as ended before its end is told.
    #[test]
    fn threads_are_idle_again_whenever_work_has_ended() {
        let waiting = Builder::new_current_thread().build().unwrap();
        let workers = workers(1);
        assert!(workers.are_idle());
        for _ in 0..3 {
            let (end, ended) = channel::<()>();
            let work = workers.spawn(move || ended.recv());
            assert!(!workers.are_idle());
            assert!(!workers.spawn_if_idle(|| ()));
            drop(end);
            assert!(waiting.block_on(work).unwrap().is_err());
            assert!(workers.are_idle());
            assert!(waiting.block_on(workers.spawn(|| panic!("as the test wants"))).is_err());
            assert!(workers.are_idle());
        }
        assert!(!workers.load().are_wanted());
    }

    #[test]
    fn the_work_of_one_tenant_does_not_hold_up_that_of_another() {
        let service = workers(1);
        let (many, one) = (service.of("many"), service.of("one"));
        let busy = occupy(&service);
        let (done, notes) = channel();
        for _ in 0..100 {
            note(&many.for_upload(Turn::Short), &done, "many");
        }
        note(&one.for_upload(Turn::Short), &done, "one");
        drop(busy);
        let order = rest(&notes, done);
        assert_eq!(order.len(), 101);
        // The first one came first, and has used the thread for some time since.
        assert_eq!(order[..2], ["many", "one"]);
    }

    #[test]
    fn an_upload_does_not_hold_up_another_one_of_its_tenant() {
        let tenant = workers(1).of("a");
        let (large, small) = (tenant.for_upload(Turn::Short), tenant.for_upload(Turn::Short));
        let busy = occupy(&tenant);
        let (done, notes) = channel();
        for _ in 0..10 {
            note(&large, &done, "large");
        }
        note(&small, &done, "small");
        drop(busy);
        assert_eq!(rest(&notes, done)[..2], ["large", "small"]);
    }

    #[test]
    fn long_turns_do_not_hold_up_short_ones_nor_short_ones_them() {
        let waiting = Builder::new_current_thread().build().unwrap();
        let service = workers(1);
        let (plain, brotli) = (service.for_upload(Turn::Short), service.for_upload(Turn::Long));
        let busy = occupy(&brotli);
        assert!(plain.are_idle() && !brotli.are_idle());
        waiting.block_on(plain.spawn(|| ())).unwrap();
        // `run` queues with the long turns, even for a plain upload.
        let (done, notes) = channel();
        note(&brotli, &done, "batch");
        let mut merged = pin!(plain.run(|| ()));
        assert!(merged.as_mut().now_or_never().is_none());
        drop(busy);
        assert_eq!(rest(&notes, done), ["batch"]);
        waiting.block_on(merged).unwrap();
        let _busy = occupy(&plain);
        waiting.block_on(plain.run(|| ())).unwrap();
        waiting.block_on(brotli.spawn(|| ())).unwrap();
    }

    #[test]
    fn work_is_done_also_when_nobody_waits_for_it() {
        let workers = workers(1).for_upload(Turn::Long);
        let busy = occupy(&workers);
        let (done, notes) = channel();
        let sender = done.clone();
        assert!(workers.run(move || sender.send("done")).now_or_never().is_none());
        drop(busy);
        assert_eq!(rest(&notes, done), ["done"]);
    }

    #[test]
    fn threads_end_with_the_pool_without_being_waited_for() {
        let workers = workers(2);
        let lines = [&workers.pool.short, &workers.pool.long].map(Arc::downgrade);
        let busy = occupy(&workers);
        let (done, notes) = channel();
        let own = workers.clone();
        // The last one that drops the pool is one of its threads.
        note(&workers, &done, "done");
        drop(workers.spawn(move || drop(own)));
        drop(workers);
        drop(busy);
        assert_eq!(rest(&notes, done), ["done"]);
        while lines.iter().any(|line| line.strong_count() > 0) {
            thread::yield_now();
        }
    }
}
