//! `adtally healthcheck`: asks a running service whether it is ready.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::stop::Stop;
use crate::http::{TlsClientError, connect_pinned, is_other_certificate};

/// Time for each step: connecting, asking, being answered.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// Far more than the answer needs.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

/// Asks the service at an address whether it is ready.
///
/// Exit codes: 0 it is, 1 it is not, or does not answer, 2 wrong usage.
#[derive(Args)]
pub(super) struct Arguments {
    /// Address the service listens on; 0.0.0.0 and [::] mean this machine
    #[arg(long, env = "ADTALLY_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Certificate that the service has (--tls-cert of `adtally serve`); it is asked over TLS then, and must have this very one
    #[arg(long, env = "ADTALLY_TLS_CERT", value_name = "PATH")]
    tls_cert: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Stop> {
    let address = reachable(arguments.listen);
    let answer = ask(address, arguments.tls_cert.as_deref())?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    Err(Stop::Refused(format!("{address} is not ready: {status} {body}")))
}

/// Listening on every address includes this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr, certificate: Option<&Path>) -> Result<String, Stop> {
    let no_answer = |error: io::Error| Stop::Refused(format!("{address} does not answer: {error}"));
    let stream = connect(address).map_err(no_answer)?;
    let Some(certificate) = certificate else {
        return exchange(stream, address).map_err(no_answer);
    };
    let stream = connect_pinned(stream, address, certificate).map_err(|error| match error {
        TlsClientError::Certificate(error) => Stop::Refused(format!("--tls-cert: {error}")),
        TlsClientError::Tls(error) => Stop::Refused(format!("{address}: {error}")),
    })?;
    exchange(stream, address).map_err(|error| {
        if is_other_certificate(&error) {
            return Stop::Refused(format!("{address} has another certificate than {}", certificate.display()));
        }
        no_answer(error)
    })
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, STEP_TIMEOUT)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    Ok(stream)
}

fn exchange(mut stream: impl Read + Write, address: SocketAddr) -> io::Result<String> {
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
