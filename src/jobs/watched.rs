//! How long a sender has been silent.

use std::pin::Pin;
use std::task::{self, Poll};

use futures_util::Stream;

use super::live_file::LiveFile;

/// A source of bytes that tells how long it has been waited for. Time during which nothing was asked of it does not count.
pub(super) struct Watched<'a, S> {
    pub(super) source: &'a mut S,
    pub(super) file: &'a LiveFile,
}

impl<S: Stream + Unpin> Stream for Watched<'_, S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<S::Item>> {
        let polled = Pin::new(&mut *self.source).poll_next(context);
        match &polled {
            Poll::Pending => self.file.waits(),
            Poll::Ready(_) => self.file.waits_no_more(),
        }
        polled
    }
}
