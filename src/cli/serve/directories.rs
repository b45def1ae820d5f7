//! The directories that the service writes to.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::cli::stop::Stop;

/// Makes a directory if need be, and makes sure that files can be written to it.
pub(super) fn prepare_directory(path: &Path, flag: &str) -> Result<(), Stop> {
    let refused = |error: io::Error| Stop::Refused(format!("{flag} {}: {}", path.display(), explain(path, &error)));
    fs::create_dir_all(path).map_err(refused)?;
    tempfile::tempfile_in(path).map(drop).map_err(refused)
}

/// Makes sure that a directory can be made, and files can be written to it, and leaves everything as it is.
pub(super) fn check_directory(path: &Path, flag: &str) -> Result<(), String> {
    let written = tempfile::tempfile_in(nearest_existing(path)).map(drop);
    written.map_err(|error| format!("{flag} {}: {}", path.display(), explain(path, &error)))
}

/// The directory itself, or the nearest one above it that exists.
fn nearest_existing(path: &Path) -> &Path {
    // The last ancestor of a relative path is empty, and no empty path exists.
    let ancestors =
        path.ancestors().map(|ancestor| if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor });
    ancestors.into_iter().find(|ancestor| ancestor.exists()).unwrap_or(path)
}

/// Says what a person has to change.
fn explain(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return format!("files cannot be written there: {error}");
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let id = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        // Real, effective, saved, file system: proc(5).
        line.split_whitespace().nth(1).map(str::to_owned)
    };
    let who = match (id("Uid:"), id("Gid:")) {
        (Some(user), Some(group)) => format!("user id {user}, group id {group}"),
        _ => "the user that runs adtally".into(),
    };
    let existing = nearest_existing(path);
    let owner = fs::metadata(existing).map_or_else(
        |_| String::new(),
        |metadata| format!("; it belongs to user id {}, mode {:o}", metadata.uid(), metadata.mode() & 0o7777),
    );
    format!("permission denied: {who} must be able to write to {}{owner}", existing.display())
}
