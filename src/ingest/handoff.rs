//! Text that one thread decompresses while another counts it, in order.
//!
//! The thread that decompresses hands text over, and calls a thread that has nothing to do. When none comes, it counts the text itself: it
//! waits only for a thread that is counting.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::text::Text;
use super::workers::Workers;
use crate::engine::Fatal;

/// Counts text that is given in order.
pub(super) trait CountText: Send + 'static {
    /// Counts the next text.
    ///
    /// # Errors
    /// When the text cannot be used. Nothing more may be counted then.
    fn count(&mut self, text: &[u8]) -> Result<(), Fatal>;
}

/// Hands text over to other threads, to be counted by `C`.
pub(super) struct Handoff<C> {
    workers: Workers,
    shared: Arc<Shared<C>>,
}

/// What the thread that decompresses shares with the one that counts.
struct Shared<C> {
    state: Mutex<State<C>>,
    /// The thread that counts has taken a text, or has counted one.
    changed: Condvar,
}

struct State<C> {
    /// None while a thread counts, and while nothing is handed over.
    counter: Option<Box<C>>,
    is_counting: bool,
    /// What is counted next. While there is one, there is a counter, or a thread counts.
    next: Option<Text>,
    /// Why counting has ended. Then nothing is counted next.
    failure: Option<Failure>,
    /// A thread has been called, and has not come yet.
    is_called: bool,
    /// Buffers to be used again.
    spare: Vec<Text>,
}

enum Failure {
    Fatal(Fatal),
    Panic(Box<dyn Any + Send>),
}

impl<C> State<C> {
    fn take_next(&mut self) -> Option<(Box<C>, Text)> {
        if self.is_counting {
            return None;
        }
        let text = self.next.take()?;
        let counter = self.counter.take()?;
        self.is_counting = true;
        Some((counter, text))
    }
}

impl<C: CountText> Handoff<C> {
    /// Nothing handed over.
    pub(super) fn new(workers: &Workers) -> Self {
        let state =
            State { counter: None, is_counting: false, next: None, failure: None, is_called: false, spare: Vec::new() };
        Self {
            workers: workers.clone(),
            shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }),
        }
    }

    /// True when a thread would come.
    pub(super) fn is_possible(&self) -> bool {
        self.workers.are_idle()
    }

    /// Hands over a text, in place of which there is an empty one then, and the counter, if it is here.
    ///
    /// # Errors
    /// When this text or one before it cannot be used. The counter is back then.
    ///
    /// # Panics
    /// When counting has panicked: with the same panic. The counter is back then.
    pub(super) fn hand_over(&self, counter: &mut Option<Box<C>>, text: &mut Text) -> Result<(), Fatal> {
        let mut state = self.shared.wait_until(|state| state.next.is_none());
        let empty = state.spare.pop().unwrap_or_else(|| self.workers.take_text());
        let text = std::mem::replace(text, empty);
        if state.failure.is_some() {
            drop(state);
            return self.settle(counter);
        }
        if counter.is_some() {
            state.counter = counter.take();
        }
        state.next = Some(text);
        if !state.is_counting && !state.is_called {
            let shared = Arc::clone(&self.shared);
            state.is_called = self.workers.spawn_if_idle(move || shared.come());
            if !state.is_called {
                drop(state);
                return self.settle(counter);
            }
        }
        Ok(())
    }

    /// Waits until all that was handed over has been counted, and takes the counter back.
    ///
    /// # Errors
    /// When some text cannot be used.
    ///
    /// # Panics
    /// When counting has panicked: with the same panic.
    pub(super) fn settle(&self, counter: &mut Option<Box<C>>) -> Result<(), Fatal> {
        let mut state = self.shared.wait_until(|state| state.next.is_none() && !state.is_counting);
        if state.counter.is_some() {
            *counter = state.counter.take();
        }
        let failure = state.failure.take();
        drop(state);
        match failure {
            None => Ok(()),
            Some(Failure::Fatal(fatal)) => Err(fatal),
            Some(Failure::Panic(panic)) => resume_unwind(panic),
        }
    }

    /// Takes the counter back as soon as no thread counts with it. What is still to be counted is not.
    pub(super) fn take_back(&self, counter: &mut Option<Box<C>>) {
        self.shared.state().next = None;
        let mut state = self.shared.wait_until(|state| !state.is_counting);
        if state.counter.is_some() {
            *counter = state.counter.take();
        }
        state.spare.drain(..).for_each(|text| self.workers.keep_text(text));
    }
}

impl<C: CountText> Shared<C> {
    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what no other thread does until this is so.
    fn wait_until(&self, is_so: impl Fn(&State<C>) -> bool) -> MutexGuard<'_, State<C>> {
        let mut state = self.state();
        while !is_so(&state) {
            state = if state.is_counting {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.count_next(state)
            };
        }
        state
    }

    /// What a thread does that has been called.
    fn come(&self) {
        let mut state = self.state();
        state.is_called = false;
        while !state.is_counting && state.next.is_some() {
            state = self.count_next(state);
        }
    }

    /// Counts the next text, unless another thread counts.
    fn count_next<'a>(&'a self, mut state: MutexGuard<'a, State<C>>) -> MutexGuard<'a, State<C>> {
        let Some((mut counter, mut text)) = state.take_next() else {
            return state;
        };
        drop(state);
        self.changed.notify_one();
        let outcome = catch_unwind(AssertUnwindSafe(|| counter.count(text.bytes())));
        text.clear();
        let mut state = self.state();
        (state.counter, state.is_counting) = (Some(counter), false);
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
        Workers::new(NonZeroUsize::new(threads).unwrap())
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
        let handoff = Handoff::new(&workers(1));
        let (mut counter, threads) = log(None);
        handoff.hand_over(&mut counter, &mut text(b"a")).unwrap();
        // This thread does nothing meanwhile.
        assert_ne!(threads.recv().unwrap(), thread::current().id());
        handoff.settle(&mut counter).unwrap();
        assert_eq!(counter.unwrap().texts, [b"a"]);
    }

    #[test]
    fn texts_are_counted_in_order_by_whichever_thread() {
        for (threads, is_occupied) in [(1, false), (2, false), (1, true)] {
            let workers = workers(threads);
            let _occupied = is_occupied.then(|| occupy(&workers, threads));
            let handoff = Handoff::new(&workers);
            let (mut counter, _threads) = log(None);
            let texts: Vec<_> = (0..5000_u32).map(|number| number.to_be_bytes().to_vec()).collect();
            let mut buffer = Text::default();
            for (number, bytes) in texts.iter().enumerate() {
                buffer.step_room()[..bytes.len()].copy_from_slice(bytes);
                buffer.append(0..bytes.len());
                handoff.hand_over(&mut counter, &mut buffer).unwrap();
                assert!(buffer.bytes().is_empty());
                if number % 7 == 0 {
                    handoff.settle(&mut counter).unwrap();
                    assert_eq!(counter.as_ref().unwrap().texts.len(), number + 1);
                }
            }
            handoff.settle(&mut counter).unwrap();
            assert_eq!(counter.unwrap().texts, texts);
        }
    }

    #[test]
    fn without_an_idle_thread_texts_are_counted_at_once() {
        let workers = workers(2);
        let _occupied = occupy(&workers, 2);
        let handoff = Handoff::new(&workers);
        assert!(!handoff.is_possible());
        let (mut counter, threads) = log(None);
        handoff.hand_over(&mut counter, &mut text(b"a")).unwrap();
        assert_eq!(threads.recv().unwrap(), thread::current().id());
        assert_eq!(counter.unwrap().texts, [b"a"]);
    }

    #[test]
    fn what_no_thread_takes_is_taken_back() {
        let handoff = Handoff::new(&workers(1));
        let (mut counter, threads) = log(None);
        // A thread has been called that does not come.
        handoff.shared.state().is_called = true;
        for bytes in [b"a", b"b", b"c"] {
            handoff.hand_over(&mut counter, &mut text(bytes)).unwrap();
        }
        assert!(counter.is_none());
        handoff.settle(&mut counter).unwrap();
        assert_eq!(counter.as_ref().unwrap().texts, [b"a", b"b", b"c"]);
        // Now it comes.
        handoff.shared.come();
        assert_eq!(threads.try_iter().collect::<Vec<_>>(), [thread::current().id(); 3]);
    }

    #[test]
    fn a_thread_that_counts_is_waited_for() {
        let handoff = Handoff::new(&workers(1));
        let (open, gates) = channel();
        let (mut counter, threads) = log(Some(gates));
        handoff.hand_over(&mut counter, &mut text(b"a")).unwrap();
        threads.recv().unwrap();
        handoff.hand_over(&mut counter, &mut text(b"b")).unwrap();
        let opener = thread::spawn(move || (0..3).for_each(|_| open.send(()).unwrap()));
        handoff.hand_over(&mut counter, &mut text(b"c")).unwrap();
        handoff.settle(&mut counter).unwrap();
        opener.join().unwrap();
        assert_eq!(counter.unwrap().texts, [b"a", b"b", b"c"]);
    }

    /// Hands over what cannot be counted, to a thread that comes or to one that does not, and gives what comes back.
    fn fail(bytes: &[u8], comes: bool) -> (thread::Result<Result<(), Fatal>>, Vec<Vec<u8>>) {
        let handoff = Handoff::new(&workers(1));
        let (open, gates) = channel();
        (0..2).for_each(|_| open.send(()).unwrap());
        let (mut counter, threads) = log(Some(gates));
        handoff.shared.state().is_called = !comes;
        handoff.hand_over(&mut counter, &mut text(b"a")).unwrap();
        if comes {
            threads.recv().unwrap();
        }
        let mut behind = text(b"behind");
        let failed = catch_unwind(AssertUnwindSafe(|| {
            handoff.hand_over(&mut counter, &mut text(bytes))?;
            handoff.hand_over(&mut counter, &mut behind)?;
            handoff.settle(&mut counter)
        }));
        assert_eq!(handoff.settle(&mut counter), Ok(()), "it is told once");
        (failed, counter.expect("the counter is back").texts)
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
    fn a_counter_that_is_taken_back_counts_no_more() {
        let handoff = Handoff::new(&workers(1));
        let (open, gates) = channel();
        let (mut counter, threads) = log(Some(gates));
        handoff.hand_over(&mut counter, &mut text(b"a")).unwrap();
        threads.recv().unwrap();
        handoff.hand_over(&mut counter, &mut text(b"b")).unwrap();
        let mut state = handoff.shared.state();
        assert!(state.is_counting && state.next.take().is_some());
        drop(state);
        open.send(()).unwrap();
        handoff.take_back(&mut counter);
        assert_eq!(counter.unwrap().texts, [b"a"]);
    }
}
