//! The system's limit on open files: every connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open beside connections: the database, results, sockets that listen, and what is read for a moment.
const OTHER_FILES: u64 = 128;

/// The least number of connections that is tried with.
const MIN_CONNECTIONS: u64 = 16;

/// Raises the limit as far as these connections need it and the system allows, and gives how many there may be.
pub(super) fn allow_connections(max_connections: usize) -> usize {
    let wanted = (max_connections as u64).saturating_add(OTHER_FILES);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let Some(current) = current.filter(|current| *current < wanted) else {
        return max_connections;
    };
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted)).max(current);
    let allowed = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => current,
    };
    if allowed >= wanted {
        return max_connections;
    }
    let connections = allowed.saturating_sub(OTHER_FILES).max(MIN_CONNECTIONS);
    tracing::warn!(
        open_files = allowed,
        connections,
        "the system allows too few open files for --max-connections: there will be fewer"
    );
    usize::try_from(connections).map_or(max_connections, |connections| connections.min(max_connections))
}
