//! A write time-out for each stream of HTTP/2. The connection may be read all the time while its peer lets one stream wait for ever.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    static WATCH: StreamWatch;
}

/// Knows since when the latest frame of an answer waits to be sent.
#[derive(Clone, Default)]
pub(super) struct StreamWatch(Arc<Mutex<Option<Instant>>>);

impl StreamWatch {
    /// The one of the stream whose task this is; none for HTTP/1.1.
    pub(super) fn current() -> Option<Self> {
        WATCH.try_with(Self::clone).ok()
    }

    /// A frame has been handed over. The next one is asked for when it has been sent, as far as it exceeds what hyper holds; until then
    /// it waits. Otherwise there is nothing to send.
    pub(super) fn set_waiting(&self, is_waiting: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = is_waiting.then(Instant::now);
    }

    fn waiting_since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the streams of HTTP/2 of a connection. One whose peer takes nothing for the write time-out ends; so does its answer's body.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    write_timeout: Duration,
}

impl StreamExecutor {
    pub(super) fn new(write_timeout: Duration) -> Self {
        Self { write_timeout }
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let watch = StreamWatch::default();
        let watched =
            Watched { stream: Box::pin(stream), watch: watch.clone(), write_timeout: self.write_timeout, timer: None };
        tokio::spawn(WATCH.scope(watch, watched));
    }
}

/// A stream with its time-out.
struct Watched<F> {
    stream: Pin<Box<F>>,
    watch: StreamWatch,
    write_timeout: Duration,
    /// Set anew only when it goes off before the deadline. None before anything waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = this.watch.waiting_since() else {
            return Poll::Pending;
        };
        let deadline = since + this.write_timeout;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() < deadline {
                timer.as_mut().reset(deadline);
                continue;
            }
            tracing::debug!("the peer takes nothing of an answer over HTTP/2 any more");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
