//! Connections: HTTP/1.1 and HTTP/2 without TLS, with limits and time-outs that a bare `axum::serve` does not set.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::activity::{Activity, GuardedBody};
use super::deadline::DetectionStream;

/// What is read from a connection at once, at most: a block, as the parser likes it. It bounds the head of a request.
const MAX_READ_BYTES: usize = 256 * 1024;

/// How much a sender may be ahead on a stream and on a connection of HTTP/2.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// After an error in accepting, such as no file handles being left, others get this time to go away.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When the server stops, a connection may stay this long without a request in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Limits on what any client can use.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// The longest time from the end of one request, or the start of the connection, to the end of the next request's head.
    pub header_timeout: Duration,
    /// The most header fields of a request.
    pub max_header_fields: usize,
    /// Requests at once on a connection of HTTP/2.
    pub max_streams: u32,
}

/// How a server is told to end.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Accept no more connections, close those that are idle, and let requests in flight finish.
    pub stop: CancellationToken,
    /// Close connections with requests in flight, too. It counts only after `stop`, and gives them a second to finish.
    pub abort: CancellationToken,
}

/// Serves until it is told to stop, and returns when all connections are closed.
pub async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, shutdown: Shutdown) {
    let builder = Arc::new(connection_builder(limits));
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            // Never closed.
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = shutdown.stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let stream = match accepted.and_then(|(stream, _)| prepare(stream)) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (builder, router, shutdown) = (Arc::clone(&builder), router.clone(), shutdown.clone());
        connections.spawn(async move {
            serve_connection(&builder, stream, router, limits, shutdown).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves one connection until it ends, has been idle for too long, or the server stops.
async fn serve_connection(
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    router: Router,
    limits: ConnectionLimits,
    shutdown: Shutdown,
) {
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request: Request<Incoming>| {
        let guard = activity.begin_request();
        // The request's body, too: what is left of it may still be read after the answer.
        let request = request.map(|body| GuardedBody::new(body, guard.clone()));
        let response = router.clone().oneshot(request);
        async move { Ok::<_, Infallible>(response.await?.map(|body| GuardedBody::new(body, guard))) }
    });
    let stream = DetectionStream::new(stream, limits.header_timeout, Arc::clone(&activity));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let must_stop = tokio::select! {
        biased;
        ended = connection.as_mut() => return note_end(ended),
        () = shutdown.stop.cancelled() => true,
        () = http2_idle(&activity, limits.header_timeout) => false,
    };
    connection.as_mut().graceful_shutdown();
    if !must_stop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return note_end(ended),
            () = shutdown.stop.cancelled() => {}
            // The peer was told to close and has not. A request that came at the last moment may go on.
            () = activity.idle(limits.header_timeout) => return,
        }
    }
    let aborted = async {
        sleep(CLOSE_TIMEOUT).await;
        shutdown.abort.cancelled().await;
    };
    tokio::select! {
        biased;
        ended = connection.as_mut() => note_end(ended),
        () = activity.idle(CLOSE_TIMEOUT) => {}
        () = aborted => {}
    }
}

/// Waits until a connection of HTTP/2 has been idle for this period. hyper closes idle connections of HTTP/1.1 itself.
async fn http2_idle(activity: &Activity, period: Duration) {
    loop {
        activity.idle(period).await;
        if activity.is_http2() {
            return;
        }
    }
}

fn note_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        // Peers may go away at any time.
        tracing::debug!(%error, "a connection ended early");
    }
}

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    // Answers are written in one go: there is nothing to be gained by holding them back.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn connection_builder(limits: ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        // Some clients end their side of the connection with their request, and still want the answer.
        .half_close(true)
        .max_headers(limits.max_header_fields)
        .max_buf_size(MAX_READ_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.header_timeout)
        .keep_alive_timeout(limits.header_timeout)
        .max_concurrent_streams(limits.max_streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}
