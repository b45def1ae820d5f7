//! Bodies of answers: handed to the connection in small frames, and watched whether they are taken.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::streams::StreamWatch;

/// The largest frame. hyper holds up to 16 of them for a connection of HTTP/1.1, and two for a stream of HTTP/2.
const MAX_FRAME_BYTES: usize = 8 * 1024;

/// The body of an answer.
pub(super) struct SentBody<B> {
    body: B,
    /// What is left of a frame of `body`.
    rest: Bytes,
    /// None for HTTP/1.1, where the connection is watched.
    watch: Option<StreamWatch>,
}

impl<B> SentBody<B> {
    /// Must be called by the task of the stream that the body is for.
    pub(super) fn new(body: B) -> Self {
        Self { body, rest: Bytes::new(), watch: StreamWatch::current() }
    }
}

impl<B: Body<Data = Bytes> + Unpin> SentBody<B> {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.len() > MAX_FRAME_BYTES => self.rest = data,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return end,
            }
        }
        let length = self.rest.len().min(MAX_FRAME_BYTES);
        // A copy: frames that wait to be sent must not keep all of what they were cut from.
        let frame = Bytes::copy_from_slice(&self.rest.split_to(length));
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for SentBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = self.poll_next(context);
        if let Some(watch) = &self.watch {
            watch.set_waiting(matches!(polled, Poll::Ready(Some(Ok(_)))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
