//! Text that one thread decompresses while another counts it, in order.
//!
//! The thread that decompresses hands text over and calls a thread that has nothing to do. As long as no thread counts, it can count the
//! text itself. So it waits only for a thread that is counting.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::text::Text;
use super::workers::{Load, Workers};
use crate::engine::Fatal;

/// Counts text that is given in order.
pub(super) trait CountText: Send + 'static {
    /// Counts the next text.
    ///
    /// # Errors
    /// When the text cannot be used. Nothing more may be counted then.
    fn count(&mut self, text: &[u8]) -> Result<(), Fatal>;
}

/// Hands text over to other threads, where `C` counts it.
pub(super) struct Handoff<C> {
    workers: Workers,
    shared: Arc<Shared<C>>,
}

/// What the thread that decompresses shares with the one that counts.
struct Shared<C> {
    state: Mutex<State<C>>,
    /// A thread has taken a text, or has counted one. Only the thread that decompresses waits for that.
    changed: Condvar,
    /// Not the workers themselves: a call that has not been answered must not keep them.
    load: Arc<Load>,
}

struct State<C> {
    /// What counts. None while a thread counts with it, and while nothing is handed over.
    counting: Option<Box<C>>,
    /// A thread counts.
    is_running: bool,
    /// What is counted next. While there is one, `counting` is here, or a thread counts.
    next: Option<Text>,
    /// Why counting has ended. Then nothing is counted next.
    failure: Option<Failure>,
    /// A thread has been called and has not begun yet.
    is_call_pending: bool,
    /// Buffers to be used again.
    spare: Vec<Text>,
}

enum Failure {
    Fatal(Fatal),
    Panic(Box<dyn Any + Send>),
}

impl<C> State<C> {
    fn take_next(&mut self) -> Option<(Box<C>, Text)> {
        match (self.counting.take(), self.next.take()) {
            (Some(counting), Some(text)) => {
                self.is_running = true;
                Some((counting, text))
            }
            (counting, next) => {
                (self.counting, self.next) = (counting, next);
                None
            }
        }
    }
}

impl<C: CountText> Handoff<C> {
    /// Nothing handed over.
    pub(super) fn new(workers: &Workers) -> Self {
        let state = State {
            counting: None,
            is_running: false,
            next: None,
            failure: None,
            is_call_pending: false,
            spare: Vec::new(),
        };
        let (state, changed, load) = (Mutex::new(state), Condvar::new(), Arc::clone(workers.load()));
        Self { workers: workers.clone(), shared: Arc::new(Shared { state, changed, load }) }
    }

    /// True when a thread has nothing to do.
    pub(super) fn has_idle_thread(&self) -> bool {
        self.workers.are_idle()
    }

    /// Hands over a text, in place of which there is an empty one then, and what counts, if it is here.
    ///
    /// # Errors
    /// When this text or one before it cannot be used. What counts is back then.
    ///
    /// # Panics
    /// When counting has panicked: with the same panic. What counts is back then.
    pub(super) fn hand_over(&mut self, counting: &mut Option<Box<C>>, text: &mut Text) -> Result<(), Fatal> {
        let mut state = self.shared.wait_until(|state| state.next.is_none());
        let empty = state.spare.pop().unwrap_or_else(|| self.workers.take_text());
        let text = std::mem::replace(text, empty);
        if state.failure.is_some() {
            drop(state);
            return self.settle(counting);
        }
        if counting.is_some() {
            state.counting = counting.take();
        }
        state.next = Some(text);
        if !state.is_running && !state.is_call_pending {
            let shared = Arc::clone(&self.shared);
            state.is_call_pending = self.workers.spawn_if_idle(move || shared.answer_call());
            if !state.is_call_pending {
                drop(state);
                return self.settle(counting);
            }
        }
        Ok(())
    }

    /// Waits until all that was handed over has been counted, and takes back what counts.
    ///
    /// # Errors
    /// When some text cannot be used.
    ///
    /// # Panics
    /// When counting has panicked: with the same panic.
    pub(super) fn settle(&mut self, counting: &mut Option<Box<C>>) -> Result<(), Fatal> {
        let mut state = self.shared.wait_until(|state| state.next.is_none() && !state.is_running);
        if state.counting.is_some() {
            *counting = state.counting.take();
        }
        let failure = state.failure.take();
        drop(state);
        match failure {
            None => Ok(()),
            Some(Failure::Fatal(fatal)) => Err(fatal),
            Some(Failure::Panic(panic)) => resume_unwind(panic),
        }
    }

    /// Takes back what counts, as soon as no thread counts with it. Text that is still to be counted is not.
    pub(super) fn take_back(&mut self, counting: &mut Option<Box<C>>) {
        self.shared.state().next = None;
        let mut state = self.shared.wait_until(|state| !state.is_running);
        if state.counting.is_some() {
            *counting = state.counting.take();
        }
        state.spare.drain(..).for_each(|text| self.workers.keep_text(text));
    }
}

impl<C: CountText> Shared<C> {
    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts, as long as no other thread does, until this is so.
    fn wait_until(&self, is_so: impl Fn(&State<C>) -> bool) -> MutexGuard<'_, State<C>> {
        let mut state = self.state();
        while !is_so(&state) {
            state = if state.is_running {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.count_next(state)
            };
        }
        state
    }

    /// What a thread does that was called: it counts until no text is left, or other uploads want a thread.
    fn answer_call(&self) {
        let mut state = self.state();
        state.is_call_pending = false;
        while !state.is_running && state.next.is_some() && !self.load.are_wanted() {
            state = self.count_next(state);
        }
    }

    /// Counts the next text, unless another thread counts.
    fn count_next<'a>(&'a self, mut state: MutexGuard<'a, State<C>>) -> MutexGuard<'a, State<C>> {
        let Some((mut counting, mut text)) = state.take_next() else {
            return state;
        };
        drop(state);
        self.changed.notify_one();
        let outcome = catch_unwind(AssertUnwindSafe(|| counting.count(text.bytes())));
        text.clear();
        let mut state = self.state();
        (state.counting, state.is_running) = (Some(counting), false);
        state.spare.push(text);
        state.failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(fatal)) => Some(Failure::Fatal(fatal)),
            Err(panic) => Some(Failure::Panic(panic)),
        };
        if state.failure.is_some() {
            state.next = None;
        }
        self.changed.notify_one();
        state
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::{self, ThreadId};

    use super::*;

    const UNUSABLE: &[u8] = b"unusable";
    const PANICS: &[u8] = b"panics";

    /// Notes what it counts. When there are gates, it waits for one before each text.
    struct Log {
        texts: Vec<Vec<u8>>,
        /// Told which thread begins to count.
        begun: Sender<ThreadId>,
        gates: Option<Receiver<()>>,
    }

    impl CountText for Log {
        fn count(&mut self, text: &[u8]) -> Result<(), Fatal> {
            self.begun.send(thread::current().id()).unwrap();
            if let Some(gates) = &self.gates {
                gates.recv().unwrap();
            }
            assert_ne!(text, PANICS, "as the test wants");
            self.texts.push(text.to_vec());
            if text == UNUSABLE { Err(Fatal::EmptyInput) } else { Ok(()) }
        }
    }

    fn workers(threads: usize) -> Workers {
        Workers::new(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    fn log(gates: Option<Receiver<()>>) -> (Option<Box<Log>>, Receiver<ThreadId>) {
        let (begun, threads) = channel();
        (Some(Box::new(Log { texts: Vec::new(), begun, gates })), threads)
    }

    fn text(bytes: &[u8]) -> Text {
        let mut text = Text::default();
        text.step_room()[..bytes.len()].copy_from_slice(bytes);
        text.append(0..bytes.len());
        text
    }

    /// Keeps all threads busy until the sender is dropped.
    fn occupy(workers: &Workers, threads: usize) -> Vec<Sender<()>> {
        let occupy_one = |_| {
            let (end, ended) = channel::<()>();
            drop(workers.spawn(move || ended.recv()));
            end
        };
        (0..threads).map(occupy_one).collect()
    }

    #[test]
    fn a_thread_that_has_nothing_to_do_counts() {
        let mut handoff = Handoff::new(&workers(1));
        let (mut counting, threads) = log(None);
        handoff.hand_over(&mut counting, &mut text(b"a")).unwrap();
        // This thread does nothing meanwhile.
        assert_ne!(threads.recv().unwrap(), thread::current().id());
        handoff.settle(&mut counting).unwrap();
        assert_eq!(counting.unwrap().texts, [b"a"]);
    }

    #[test]
    fn texts_are_counted_in_order_by_any_number_of_threads() {
        for (threads, is_occupied) in [(1, false), (2, false), (1, true)] {
            let workers = workers(threads);
            let _occupied = is_occupied.then(|| occupy(&workers, threads));
            let mut handoff = Handoff::new(&workers);
            let (mut counting, _threads) = log(None);
            let texts: Vec<_> = (0..5000_u32).map(|number| number.to_be_bytes().to_vec()).collect();
            let mut buffer = Text::default();
            for (number, bytes) in texts.iter().enumerate() {
                buffer.step_room()[..bytes.len()].copy_from_slice(bytes);
                buffer.append(0..bytes.len());
                handoff.hand_over(&mut counting, &mut buffer).unwrap();
                assert!(buffer.bytes().is_empty());
                if number % 7 == 0 {
                    handoff.settle(&mut counting).unwrap();
                    assert_eq!(counting.as_ref().unwrap().texts.len(), number + 1);
                }
            }
            handoff.settle(&mut counting).unwrap();
            assert_eq!(counting.unwrap().texts, texts);
        }
    }

    #[test]
    fn without_an_idle_thread_texts_are_counted_at_once() {
        let workers = workers(2);
        let _occupied = occupy(&workers, 2);
        let mut handoff = Handoff::new(&workers);
        assert!(!handoff.has_idle_thread());
        let (mut counting, threads) = log(None);
        handoff.hand_over(&mut counting, &mut text(b"a")).unwrap();
        assert_eq!(threads.recv().unwrap(), thread::current().id());
        assert_eq!(counting.unwrap().texts, [b"a"]);
    }

    #[test]
    fn what_no_thread_takes_is_taken_back() {
        let mut handoff = Handoff::new(&workers(1));
        let (mut counting, threads) = log(None);
        // A thread has been called that does not come.
        handoff.shared.state().is_call_pending = true;
        for bytes in [b"a", b"b", b"c"] {
            handoff.hand_over(&mut counting, &mut text(bytes)).unwrap();
        }
        assert!(counting.is_none());
        handoff.settle(&mut counting).unwrap();
        assert_eq!(counting.as_ref().unwrap().texts, [b"a", b"b", b"c"]);
        // Now it comes.
        handoff.shared.answer_call();
        assert_eq!(threads.try_iter().collect::<Vec<_>>(), [thread::current().id(); 3]);
    }

    #[test]
    fn a_thread_that_counts_is_waited_for() {
        let mut handoff = Handoff::new(&workers(1));
        let (open, gates) = channel();
        let (mut counting, threads) = log(Some(gates));
        handoff.hand_over(&mut counting, &mut text(b"a")).unwrap();
        threads.recv().unwrap();
        handoff.hand_over(&mut counting, &mut text(b"b")).unwrap();
        let opener = thread::spawn(move || (0..3).for_each(|_| open.send(()).unwrap()));
        handoff.hand_over(&mut counting, &mut text(b"c")).unwrap();
        handoff.settle(&mut counting).unwrap();
        opener.join().unwrap();
        assert_eq!(counting.unwrap().texts, [b"a", b"b", b"c"]);
    }

    /// Hands over what cannot be counted, to a thread that comes or to one that does not, and gives what comes back.
    fn fail(bytes: &[u8], comes: bool) -> (thread::Result<Result<(), Fatal>>, Vec<Vec<u8>>) {
        let mut handoff = Handoff::new(&workers(1));
        let (open, gates) = channel();
        (0..2).for_each(|_| open.send(()).unwrap());
        let (mut counting, threads) = log(Some(gates));
        handoff.shared.state().is_call_pending = !comes;
        handoff.hand_over(&mut counting, &mut text(b"a")).unwrap();
        if comes {
            threads.recv().unwrap();
        }
        let mut behind = text(b"behind");
        let failed = catch_unwind(AssertUnwindSafe(|| {
            handoff.hand_over(&mut counting, &mut text(bytes))?;
            handoff.hand_over(&mut counting, &mut behind)?;
            handoff.settle(&mut counting)
        }));
        assert_eq!(handoff.settle(&mut counting), Ok(()), "it is told once");
        (failed, counting.expect("the counting is back").texts)
    }

    #[test]
    fn what_cannot_be_used_ends_the_counting() {
        for comes in [true, false] {
            let (failed, texts) = fail(UNUSABLE, comes);
            assert_eq!(failed.unwrap(), Err(Fatal::EmptyInput));
            assert_eq!(texts, [b"a", UNUSABLE]);
        }
    }

    #[test]
    fn a_panic_comes_back_with_the_counter() {
        for comes in [true, false] {
            let (failed, texts) = fail(PANICS, comes);
            let panic = failed.unwrap_err();
            assert!(panic.downcast_ref::<String>().is_some_and(|text| text.contains("as the test wants")));
            assert_eq!(texts, [b"a"]);
        }
    }

    #[test]
    fn what_was_not_counted_when_all_is_taken_back_never_is() {
        let mut handoff = Handoff::new(&workers(1));
        let (open, gates) = channel();
        let (mut counting, threads) = log(Some(gates));
        handoff.hand_over(&mut counting, &mut text(b"a")).unwrap();
        threads.recv().unwrap();
        handoff.hand_over(&mut counting, &mut text(b"b")).unwrap();
        let shared = Arc::clone(&handoff.shared);
        thread::scope(|scope| {
            scope.spawn(move || {
                // Not before the text that is left has been dropped.
                while shared.state().next.is_some() {
                    thread::yield_now();
                }
                (0..2).for_each(|_| open.send(()).unwrap());
            });
            handoff.take_back(&mut counting);
        });
        assert_eq!(counting.unwrap().texts, [b"a"]);
    }

    #[test]
    fn a_called_thread_counts_no_more_once_others_want_one() {
        let workers = workers(2);
        let mut handoff = Handoff::new(&workers);
        let (open, gates) = channel();
        let (mut counting, threads) = log(Some(gates));
        handoff.hand_over(&mut counting, &mut text(b"a")).unwrap();
        let called = threads.recv().unwrap();
        handoff.hand_over(&mut counting, &mut text(b"b")).unwrap();
        // One of these begins, and the other one waits in line.
        let _occupied = occupy(&workers, 2);
        while !workers.load().are_wanted() {
            thread::yield_now();
        }
        (0..2).for_each(|_| open.send(()).unwrap());
        handoff.settle(&mut counting).unwrap();
        assert_ne!(threads.recv().unwrap(), called);
        assert_eq!(counting.unwrap().texts, [b"a", b"b"]);
    }
}
