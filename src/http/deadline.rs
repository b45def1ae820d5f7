//! A deadline for the first bytes of a connection.
//!
//! hyper-util reads up to 24 bytes to tell HTTP/2 from HTTP/1.1 before any timer of hyper runs (hyper-util issue 3962). Without
//! this deadline a peer that sends nothing, or a part of the preface, would keep its connection for ever.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::Activity;

/// The first bytes of every HTTP/2 connection (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose reads fail with `TimedOut` when the protocol is still unknown at the deadline. It also records in
/// [`Activity`] which protocol it is.
pub(super) struct DetectionStream<S> {
    stream: S,
    activity: Arc<Activity>,
    /// `None` once the protocol is known: from then on a read costs one branch more.
    detection: Option<Detection>,
}

struct Detection {
    /// Bytes read so far; all of them are the beginning of the preface.
    matched_bytes: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> DetectionStream<S> {
    pub(super) fn new(stream: S, deadline: Instant, activity: Arc<Activity>) -> Self {
        let detection = Detection { matched_bytes: 0, deadline: Box::pin(sleep_until(deadline)) };
        Self { stream, activity, detection: Some(detection) }
    }
}

impl Detection {
    /// Compares bytes with the preface. `Some(true)` when it is complete, `Some(false)` when something else begins.
    fn push(&mut self, bytes: &[u8]) -> Option<bool> {
        let expected = &HTTP2_PREFACE[self.matched_bytes..];
        let compared_bytes = bytes.len().min(expected.len());
        // No bytes are the end of the stream.
        if bytes.is_empty() || bytes[..compared_bytes] != expected[..compared_bytes] {
            return Some(false);
        }
        self.matched_bytes += compared_bytes;
        (self.matched_bytes == HTTP2_PREFACE.len()).then_some(true)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DetectionStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(detection) = &mut this.detection else {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        };
        let filled_bytes = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        match &polled {
            Poll::Pending if detection.deadline.as_mut().poll(context).is_ready() => {
                let reason = "neither a request nor the preface of HTTP/2 within the header timeout";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)));
            }
            Poll::Pending | Poll::Ready(Err(_)) => {}
            Poll::Ready(Ok(())) => {
                if let Some(is_http2) = detection.push(&buffer.filled()[filled_bytes..]) {
                    this.detection = None;
                    if is_http2 {
                        this.activity.set_http2();
                    }
                }
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DetectionStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(matched_bytes: usize) -> Detection {
        Detection { matched_bytes, deadline: Box::pin(sleep_until(Instant::now())) }
    }

    #[tokio::test]
    async fn the_protocol_is_known_with_the_last_byte_of_the_preface_or_the_first_other_one() {
        for split in 1..HTTP2_PREFACE.len() {
            let (left, right) = HTTP2_PREFACE.split_at(split);
            let mut detection = detection(0);
            assert_eq!(detection.push(left), None, "{split}");
            assert_eq!(detection.push(right), Some(true), "{split}");
        }
        let whole = [&HTTP2_PREFACE[..], b"more"].concat();
        assert_eq!(detection(0).push(&whole), Some(true));
        for (matched_bytes, bytes, outcome) in [
            (0, &b"GET / HTTP/1.1\r\n\r\n"[..], Some(false)),
            (0, b"", Some(false)),
            (0, b"P", None),
            (1, b"UT /", Some(false)),
            (2, b"I * HTTP/1.1", Some(false)),
            (23, b"x", Some(false)),
        ] {
            assert_eq!(detection(matched_bytes).push(bytes), outcome, "{matched_bytes} {bytes:?}");
        }
    }
}
