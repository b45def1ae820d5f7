//! Bodies of requests: limits on them, and what happens to a body that is not read to its end.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderMap, HeaderValue, Request, Version};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::caller::{Caller, token_revoked};
use super::pace::{Pace, PaceLimits};
use crate::jobs::{Failure, FailureKind, Stopped};

/// What a sender may do with a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// The most bytes, as they are sent.
    pub(super) max_upload_bytes: u64,
    /// How slowly they may come.
    pub(super) pace: PaceLimits,
    /// Bytes that are still to come of its file, when that is known: none of a further one counts.
    pub(super) bytes_to_come: Option<u64>,
}

/// The body of an upload: its bytes, within its limits, until the upload is stopped.
pub(super) struct UploadBody {
    body: Body,
    limits: BodyLimits,
    pace: Pace,
    /// None when nothing but its sender and its limits ends it.
    stopped: Option<Stopped>,
    caller: Option<Caller>,
    revoked: Pin<Box<dyn Future<Output = ()> + Send>>,
    trailers: HeaderMap,
    end: EndMark,
    has_ended: bool,
}

/// What tells that a body has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndMark {
    /// HTTP/1: the body ends without an error only when it is whole.
    NoError,
    /// HTTP/2: hyper ends a body without an error also when its stream was reset with `NO_ERROR`. A whole one says that its
    /// stream has ended.
    EndOfStream,
}

impl UploadBody {
    pub(super) fn new(request: Request<Body>, limits: BodyLimits, stopped: Stopped) -> Self {
        Self::begin(request, limits, Some(stopped))
    }

    /// A body that is no upload: nothing stops it.
    pub(super) fn of_document(request: Request<Body>, limits: BodyLimits) -> Self {
        Self::begin(request, limits, None)
    }

    fn begin(request: Request<Body>, limits: BodyLimits, stopped: Option<Stopped>) -> Self {
        let end = if request.version() == Version::HTTP_2 { EndMark::EndOfStream } else { EndMark::NoError };
        let caller = request.extensions().get::<Caller>().cloned();
        let revoked: Pin<Box<dyn Future<Output = ()> + Send>> = match &caller {
            Some(caller) => Box::pin(caller.revoked()),
            None => Box::pin(pending()),
        };
        Self {
            caller,
            revoked,
            body: request.into_body(),
            limits,
            pace: Pace::new(limits.pace),
            stopped,
            trailers: HeaderMap::new(),
            end,
            has_ended: false,
        }
    }

    /// Checks once more that the caller's token is valid, unless everything has come: then the file is complete, and must not be shown as
    /// waiting at its end.
    fn check_caller(&self) -> Result<(), Failure> {
        match &self.caller {
            Some(caller) if !self.has_everything() => caller.check(),
            _ => Ok(()),
        }
    }

    fn has_everything(&self) -> bool {
        self.limits.bytes_to_come == Some(self.pace.received_bytes())
    }

    fn is_whole(&self) -> bool {
        self.end == EndMark::NoError || self.body.is_end_stream()
    }

    fn broken_off(&self, reason: &dyn std::fmt::Display) -> Failure {
        let detail = format!("the upload broke off after {} bytes: {reason}", self.pace.received_bytes());
        FailureKind::UploadIncomplete.because(detail)
    }

    /// The fields that followed the last byte.
    pub(super) fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    fn take_frame(&mut self, frame: Frame<Bytes>) -> Option<Result<Bytes, Failure>> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                self.trailers = frame.into_trailers().unwrap_or_default();
                return None;
            }
        };
        // Before the bytes count: none may complete a file for a caller who has no right to it any more.
        if let Err(failure) = self.check_caller() {
            self.has_ended = true;
            return Some(Err(failure));
        }
        let max_upload_bytes = self.limits.max_upload_bytes;
        if self.pace.received_bytes() > max_upload_bytes {
            self.has_ended = true;
            return Some(Err(too_large(max_upload_bytes)));
        }
        if let Some(bytes_to_come) = self.limits.bytes_to_come
            && self.pace.received_bytes() > bytes_to_come
        {
            self.has_ended = true;
            let detail = format!("more came than the {bytes_to_come} bytes that were announced");
            return Some(Err(FailureKind::LengthMismatch.because(detail)));
        }
        Some(Ok(data))
    }
}

/// What an error comes from: the words around it say no more than that a body could not be read.
fn root_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    error.source().map_or(error, root_cause)
}

/// The failure of an upload that has more bytes than allowed.
pub(super) fn too_large(max_upload_bytes: u64) -> Failure {
    let detail = format!("the upload has more than {max_upload_bytes} bytes; the limit is max_upload_bytes");
    FailureKind::UploadTooLarge.because(detail).with_limit("max_upload_bytes", max_upload_bytes)
}

impl Stream for UploadBody {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        if let Some(stopped) = &mut this.stopped
            && let Poll::Ready(failure) = Pin::new(stopped).poll(context)
        {
            this.has_ended = true;
            return Poll::Ready(Some(Err(failure)));
        }
        if !this.has_everything() && this.revoked.as_mut().poll(context).is_ready() {
            this.has_ended = true;
            return Poll::Ready(Some(Err(token_revoked())));
        }
        // Before the clock: time during which no bytes were asked for does not count.
        while let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
            this.pace.received(bytes);
            match frame {
                Some(Ok(frame)) => {
                    if let Some(item) = this.take_frame(frame) {
                        return Poll::Ready(Some(item));
                    }
                }
                Some(Err(error)) => {
                    this.has_ended = true;
                    return Poll::Ready(Some(Err(this.broken_off(&root_cause(&error)))));
                }
                None => {
                    this.has_ended = true;
                    let whole = if this.is_whole() {
                        this.check_caller()
                    } else {
                        Err(this.broken_off(&"its stream was reset"))
                    };
                    return Poll::Ready(whole.err().map(Err));
                }
            }
        }
        this.pace.poll_stalled(context).map(|failure| {
            this.has_ended = true;
            Some(Err(failure))
        })
    }
}

/// Bytes of a form that have been handed to its reader since that last had something to show. The reader keeps them until it
/// has, so there must not be many.
#[derive(Clone, Debug, Default)]
pub(super) struct UnparsedBytes(Arc<AtomicU64>);

impl UnparsedBytes {
    /// The reader has shown something.
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The most bytes of a form between two of its parts, headers of parts included, and before the first.
pub(super) const MAX_UNPARSED_BYTES: u64 = 1024 * 1024;

/// The body of an upload that is a form. The form's reader has one of these, and leaves what follows the form to another.
#[derive(Clone)]
pub(super) struct FormBody(Arc<Mutex<UploadBody>>);

impl FormBody {
    pub(super) fn new(body: UploadBody) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }
}

impl Stream for FormBody {
    type Item = Result<Bytes, Failure>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context)
    }
}

/// The body of an upload that is a form, for the form's reader.
pub(super) fn form_source(
    body: FormBody,
    unparsed: UnparsedBytes,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send + 'static {
    body.map(move |piece| {
        let piece = piece?;
        let unparsed_bytes = unparsed.0.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if unparsed_bytes > MAX_UNPARSED_BYTES {
            let detail = format!("no part of the form begins or goes on within {MAX_UNPARSED_BYTES} bytes");
            return Err(FailureKind::MalformedForm.because(detail));
        }
        Ok(piece)
    })
}

/// The most bodies of refused requests that are read and discarded at once. Each needs a buffer, and its sender needs no token.
/// Beyond this number, connections are closed without reading the rest.
pub(super) const MAX_LINGERING_BODIES: usize = 256;

/// What of a body is read and thrown away after the request has been answered.
#[derive(Clone, Debug)]
pub(super) struct LingerLimits {
    pub(super) max_bytes: u64,
    pub(super) max_time: Duration,
    /// One for each body, [`MAX_LINGERING_BODIES`] in all.
    pub(super) permits: Arc<Semaphore>,
}

/// Tells a request that the server is stopping: what is only read to be thrown away must not hold it up.
#[derive(Clone, Debug)]
pub(super) struct Stopping(pub(super) CancellationToken);

/// How long a body is still read to be thrown away once the server is stopping.
const STOP_LINGER_TIME: Duration = Duration::from_millis(500);

/// Counts the bytes of a request's body.
#[derive(Clone, Debug, Default)]
pub(super) struct ReceivedBytes(Arc<AtomicU64>);

impl ReceivedBytes {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes sure that the sender of a body which is not read to its end still gets to see the answer: senders look for one
/// only when they have sent everything, and a connection that is closed with bytes unread takes the answer with it. So
/// the rest is read, within limits.
///
/// A body that the sender holds back until it is asked for (`Expect: 100-continue`) is not read. hyper closes a connection of
/// HTTP/1.1 after such an answer, so the answer says so.
///
/// After any other answer that begins before the body has ended, a connection of HTTP/1.1 is closed as well: when the rest of the body comes
/// while the answer is still being sent, hyper (1.12) is not ready for a further request. A good one waited for a minute, a malformed one was
/// answered in the middle of the first answer.
pub(super) async fn linger(State(limits): State<LingerLimits>, mut request: Request<Body>, next: Next) -> Response {
    let received = ReceivedBytes::default();
    request.extensions_mut().insert(received.clone());
    let is_held_back = request.headers().contains_key(EXPECT) && !request.body().is_end_stream();
    let is_asked_for = Arc::new(AtomicBool::new(!is_held_back));
    let has_connection_field = request.version() <= Version::HTTP_11;
    let has_ended = Arc::new(AtomicBool::new(request.body().is_end_stream()));
    let stopping = request.extensions_mut().remove::<Stopping>();
    let lingering = (Arc::clone(&is_asked_for), Arc::clone(&has_ended));
    let request = request.map(|body| {
        let (is_asked_for, has_ended) = lingering;
        Body::new(Lingering { body, limits, received, is_asked_for, stopping, has_ended })
    });
    let mut response = next.run(request).await;
    if has_connection_field && !has_ended.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

struct Lingering {
    body: Body,
    limits: LingerLimits,
    received: ReceivedBytes,
    is_asked_for: Arc<AtomicBool>,
    stopping: Option<Stopping>,
    has_ended: Arc<AtomicBool>,
}

impl http_body::Body for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_asked_for.store(true, Ordering::Relaxed);
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.received.0.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Poll::Ready(Some(Err(_)) | None) => self.has_ended.store(true, Ordering::Relaxed),
            Poll::Pending => {}
        }
        if self.body.is_end_stream() {
            self.has_ended.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.has_ended.load(Ordering::Relaxed)
            || !self.is_asked_for.load(Ordering::Relaxed)
            || self.body.is_end_stream()
        {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Ok(permit) = Arc::clone(&self.limits.permits).try_acquire_owned() else {
            return;
        };
        let mut rest = std::mem::take(&mut self.body);
        let LingerLimits { max_bytes, max_time, .. } = self.limits;
        let stopping = self.stopping.take();
        runtime.spawn(async move {
            let throw_away = async {
                let mut bytes = 0;
                while let Some(Ok(frame)) = rest.frame().await {
                    bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                    if bytes > max_bytes {
                        break;
                    }
                }
            };
            let stopped = async {
                match stopping {
                    Some(Stopping(token)) => token.cancelled().await,
                    None => pending().await,
                }
                sleep(STOP_LINGER_TIME).await;
            };
            tokio::select! {
                () = throw_away => {}
                () = sleep(max_time) => {}
                () = stopped => {}
            }
            drop(permit);
        });
    }
}
