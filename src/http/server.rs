//! Connections: HTTP/1.1 and HTTP/2, with and without TLS, with limits and time-outs that a bare `axum::serve` does not set.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::activity::{Activity, GuardedBody, ObservedStream};
use super::body::Stopping;
use super::deadline::DetectionStream;
use super::sent_body::SentBody;
use super::streams::StreamExecutor;
use super::tenant_limits::Connection;
use super::tls::{TlsTermination, agreed_protocol};
use super::write_deadline::WriteDeadlineStream;

/// What is read from a connection at once, at most: a block, as the parser likes it. It bounds the head of a request.
const MAX_READ_BYTES: usize = 256 * 1024;

/// How much a sender may be ahead on a stream and on a connection of HTTP/2.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// The most bytes of an answer that one stream of HTTP/2 may have queued for a peer that takes no more.
const STREAM_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// The longest head of a request over HTTP/2, names and values and 32 bytes for each field. It also bounds how many CONTINUATION frames a
/// head may have.
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;

/// Streams of HTTP/2 that a peer may have reset before they were looked at. With more, its connection is closed.
const MAX_PENDING_RESET_STREAMS: usize = 20;

/// Streams of HTTP/2 that had to be reset because of what the peer did. With more, its connection is closed.
const MAX_ERROR_RESET_STREAMS: usize = 100;

/// Bytes that the kernel holds of a connection and has not sent. It takes more when half of them have been sent: without this limit it would
/// hold megabytes, and a peer that reads slowly but steadily would seem to take nothing for a long time.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 64 * 1024;

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
    /// The longest time in which a peer takes nothing of what there is to send, on a connection or on a stream of HTTP/2.
    pub write_timeout: Duration,
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
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    tls: Option<Arc<TlsTermination>>,
    shutdown: Shutdown,
) {
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let connections = TaskTracker::new();
    let server = Arc::new(Server { builders: Builders::new(limits), router, limits, tls, shutdown });
    loop {
        let accepted = async {
            // Never closed.
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = server.shutdown.stop.cancelled() => break,
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
        let server = Arc::clone(&server);
        connections.spawn(async move {
            server.begin(stream).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// What all connections share.
struct Server {
    builders: Builders,
    router: Router,
    limits: ConnectionLimits,
    tls: Option<Arc<TlsTermination>>,
    shutdown: Shutdown,
}

impl Server {
    /// Serves one connection, from its handshake on if there has to be one.
    async fn begin(&self, stream: TcpStream) {
        let header_deadline = Instant::now() + self.limits.header_timeout;
        let activity = Arc::new(Activity::default());
        // Below TLS, whose handshake and end wait for the peer, too.
        let observe = |stream| {
            ObservedStream::new(WriteDeadlineStream::new(stream, self.limits.write_timeout), Arc::clone(&activity))
        };
        let Some(tls) = &self.tls else {
            let stream = DetectionStream::new(observe(stream), header_deadline, Arc::clone(&activity));
            return self.serve_connection(&self.builders.any, stream, activity).await;
        };
        let handshake = tokio::select! {
            () = self.shutdown.stop.cancelled() => return,
            handshake = timeout(self.limits.header_timeout, tls.accept(stream, observe)) => handshake,
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took longer than the header timeout"),
        };
        let builder = match agreed_protocol(&stream) {
            Some(b"h2") => &self.builders.http2,
            Some(_) => &self.builders.http1,
            None => &self.builders.any,
        };
        let stream = DetectionStream::new(stream, header_deadline, Arc::clone(&activity));
        self.serve_connection(builder, stream, activity).await;
    }

    /// Serves one connection until it ends, has been idle for too long, or the server stops.
    async fn serve_connection(
        &self,
        builder: &Builder<StreamExecutor>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        activity: Arc<Activity>,
    ) {
        let Self { router, limits, shutdown, .. } = self;
        let user = Connection::default();
        let service = service_fn(|request: Request<Incoming>| {
            let guard = activity.begin_request();
            // The request's body, too: what is left of it may still be read after the answer.
            let mut request = request.map(|body| GuardedBody::new(body, guard.clone()));
            request.extensions_mut().insert(Stopping(shutdown.stop.clone()));
            request.extensions_mut().insert(user.clone());
            let response = router.clone().oneshot(request);
            async move { Ok::<_, Infallible>(response.await?.map(|body| GuardedBody::new(SentBody::new(body), guard))) }
        });
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
    #[cfg(target_os = "linux")]
    SockRef::from(&stream).set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
    Ok(stream)
}

/// How connections are served, by what their peers have said that they speak.
struct Builders {
    /// Either; the first bytes tell.
    any: Builder<StreamExecutor>,
    http1: Builder<StreamExecutor>,
    http2: Builder<StreamExecutor>,
}

impl Builders {
    fn new(limits: ConnectionLimits) -> Self {
        let any = connection_builder(limits);
        Self { http1: any.clone().http1_only(), http2: any.clone().http2_only(), any }
    }
}

fn connection_builder(limits: ConnectionLimits) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(StreamExecutor::new(limits.write_timeout));
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
        .max_pending_accept_reset_streams(MAX_PENDING_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_ERROR_RESET_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_send_buf_size(STREAM_SEND_BUFFER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}
