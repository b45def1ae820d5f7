//! Connections: HTTP/1.1 and HTTP/2 without TLS, with limits and time-outs that a bare `axum::serve` does not set.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// What is read from a connection at once, at most: a block, as the parser likes it. It bounds the head of a request.
const MAX_READ_BYTES: usize = 256 * 1024;

/// How much a sender may be ahead on a stream and on a connection of HTTP/2.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// After an error in accepting, such as no file handles being left, others get this time to go away.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are idle when the server stops are closed within this time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What strangers can make grow.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// From the first byte of a request to the end of its head, and from one request to the next.
    pub header_timeout: Duration,
    /// The most header fields of a request.
    pub max_header_fields: usize,
    /// Requests at once on a connection of HTTP/2.
    pub max_streams: u32,
}

/// Serves until it is told to stop; then lets the requests that are running come to their end.
pub async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, stop: CancellationToken) {
    let builder = Arc::new(connection_builder(limits));
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = async {
            // Never closed.
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => break,
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
        let service = TowerToHyperService::new(router.clone());
        let watcher = graceful.watcher();
        let builder = Arc::clone(&builder);
        tokio::spawn(async move {
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection).await {
                // Clients come and go as they like.
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    // Whoever holds a connection open without a request is not waited for.
    drop(timeout(CLOSE_TIMEOUT, graceful.shutdown()).await);
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
