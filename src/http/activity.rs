//! What happens on one connection: requests in flight, and whether the peer takes what is sent.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;

/// The state of one connection, shared by its stream, its requests and the task that drives it.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests that have begun and have not ended.
    in_flight: watch::Sender<usize>,
    is_http2: AtomicBool,
    is_write_blocked: AtomicBool,
    written_bytes: AtomicU64,
}

impl Activity {
    /// Counts a request as in flight until the guard and all its clones are dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.in_flight.send_modify(|requests| *requests += 1);
        RequestGuard { _end: Arc::new(EndOfRequest(Arc::clone(self))) }
    }

    /// Records that the connection speaks HTTP/2.
    pub(super) fn set_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    /// True once the whole preface of HTTP/2 has been read.
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// Records a write: how many bytes the peer's side took, or that they wait because it does not read.
    fn note_write(&self, written_bytes: Option<usize>) {
        self.is_write_blocked.store(written_bytes.is_none(), Ordering::Relaxed);
        self.written_bytes.fetch_add(written_bytes.unwrap_or(0) as u64, Ordering::Relaxed);
    }

    /// Waits until no request has been in flight for this period, and either no bytes wait to be sent or none was taken meanwhile.
    pub(super) async fn idle(&self, period: Duration) {
        let mut in_flight = self.in_flight.subscribe();
        loop {
            // An error would mean that the sender is gone: it lives as long as `self`.
            if in_flight.wait_for(|requests| *requests == 0).await.is_err() {
                return;
            }
            let written_bytes = self.written_bytes.load(Ordering::Relaxed);
            let is_quiet = timeout(period, in_flight.changed()).await.is_err();
            let takes_bytes = self.is_write_blocked.load(Ordering::Relaxed)
                && self.written_bytes.load(Ordering::Relaxed) != written_bytes;
            if is_quiet && !takes_bytes {
                return;
            }
        }
    }
}

/// Keeps a request in flight.
#[derive(Clone, Debug)]
pub(super) struct RequestGuard {
    _end: Arc<EndOfRequest>,
}

#[derive(Debug)]
struct EndOfRequest(Arc<Activity>);

impl Drop for EndOfRequest {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|requests| *requests -= 1);
    }
}

/// A body that keeps its request in flight until it is dropped.
pub(super) struct GuardedBody<B> {
    body: B,
    _guard: RequestGuard,
}

impl<B> GuardedBody<B> {
    pub(super) fn new(body: B, guard: RequestGuard) -> Self {
        Self { body, _guard: guard }
    }
}

impl<B: Body + Unpin> Body for GuardedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket of a connection. It records in [`Activity`] whether the peer takes what is sent. It is below TLS, which keeps bytes
/// back that it has taken.
pub(super) struct ObservedStream<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> ObservedStream<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn note_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.note_write(match &written {
            Poll::Ready(Ok(bytes)) => Some(*bytes),
            Poll::Ready(Err(_)) => Some(0),
            Poll::Pending => None,
        });
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ObservedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ObservedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
