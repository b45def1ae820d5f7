//! Why the service does not start, in words for who starts it.

use std::io;
use std::net::SocketAddr;

use crate::jobs::StoreError;

/// Why the database at an address cannot be opened.
pub(super) fn cannot_open(database: &str, error: &StoreError) -> String {
    match error {
        StoreError::UnknownDatabase { .. } => format!("--database-url: {error}"),
        StoreError::NoThreads(_) => format!("--parser-threads: {error}"),
        error => format!("{database}: {error}"),
    }
}

/// Why the service cannot listen on the address for metrics, while it listens on its main one.
pub(super) fn cannot_listen_for_metrics(address: SocketAddr, main: SocketAddr, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::AddrInUse && address.port() == main.port() {
        return format!("--metrics-listen {address}: --listen {main} has this address and port: choose another port");
    }
    cannot_listen("--metrics-listen", address, error)
}

/// Why the service cannot listen on an address, and what to change.
pub(super) fn cannot_listen(flag: &str, address: SocketAddr, error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program listens there: stop it, or choose another port with {flag}")
        }
        io::ErrorKind::PermissionDenied => "permission denied: ports below 1024 are reserved; choose another".into(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        _ => error.to_string(),
    };
    format!("{flag} {address}: {reason}")
}
