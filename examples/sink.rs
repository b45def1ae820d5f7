//! A server that reads every request body and drops it: the floor for `benches/upload.py`, for measuring only.
//!
//! Usage: `sink [--listen ADDRESS]`
//!
//! Same libraries and same connection settings as the service, and nothing behind them. Whatever the method and the
//! path, the answer is 201 with the number of bytes of the body.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};

/// Read request bodies and drop them.
#[derive(Parser)]
#[command(name = "sink")]
struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

// As the service has them.
const MAX_BUFFER_BYTES: usize = 256 << 10;
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let listener = TcpListener::bind(args.listen).await?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", listener.local_addr()?)?;
    stdout.flush()?;

    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(server.clone(), stream));
    }
}

async fn serve(server: Builder<TokioExecutor>, stream: TcpStream) {
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service_fn(drop_body)).await {
        eprintln!("connection: {error}");
    }
}

async fn drop_body(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        // Trailers are dropped too.
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    let mut response = Response::new(Full::from(format!("{length}\n")));
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}
