//! The token file: read at the start, and again when it changes or on SIGHUP.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio::time::interval;

use super::arguments::Arguments;
use crate::http::{TokenTable, Tokens};

/// How often the file is looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The largest token file.
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Refuses to listen for others than this machine without asking who they are.
pub(super) fn check_listen(arguments: &Arguments) -> Result<(), String> {
    let Arguments { listen, token_file, insecure_no_auth, .. } = arguments;
    if token_file.is_some() || *insecure_no_auth || listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(format!(
        "--listen {listen}: other machines could use the service, and nothing asks them for a token: name a --token-file, \
         listen on 127.0.0.1, or say --insecure-no-auth if something in front of the service asks"
    ))
}

/// A token file, and the tokens that it had when it was read at the start.
pub(super) struct TokenFile {
    path: PathBuf,
    version: Option<Version>,
    tokens: Tokens,
}

impl TokenFile {
    /// Reads the token file at the start.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        // First: what changes behind it is read again.
        let version = Version::of(path);
        let refused = |reason| format!("--token-file {}: {reason}", path.display());
        Ok(Self { path: path.to_owned(), version, tokens: Tokens::new(read(path).map_err(refused)?) })
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }
}

fn read(path: &Path) -> Result<TokenTable, String> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    TokenTable::parse(&text).map_err(|error| error.to_string())
}

/// What is another one when the file was written, replaced, or a link leads to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Replaces the tokens whenever the file changes, and on SIGHUP. A file that cannot be read or understood changes nothing. Never returns.
pub(super) async fn watch(file: TokenFile, mut hangups: Signal) {
    let TokenFile { path, version, tokens } = file;
    let mut polls = interval(POLL_INTERVAL);
    let mut known = Some(version);
    let mut seen = known;
    loop {
        let is_asked = tokio::select! {
            _ = hangups.recv() => true,
            _ = polls.tick() => false,
        };
        let looked_at = path.clone();
        let Ok(version) = spawn_blocking(move || Version::of(&looked_at)).await else {
            continue;
        };
        // A file that has just changed may not have been written to its end: it is read once it has stayed the same from one look to the next.
        let is_settled = seen.replace(version) == Some(version);
        if is_asked || (is_settled && known != Some(version)) {
            known = Some(version);
            reload(&path, &tokens).await;
        }
        tokens.end_expired();
    }
}

async fn reload(path: &Path, tokens: &Tokens) {
    let read_from = path.to_owned();
    // A panic there has been reported.
    let Ok(table) = spawn_blocking(move || read(&read_from)).await else {
        return;
    };
    let file = path.display();
    match table {
        Ok(table) => {
            tracing::info!(%file, tokens = table.len(), "the token file was read");
            tokens.replace(table);
        }
        Err(reason) => tracing::error!(%file, reason, "the token file cannot be used; the tokens stay as they were"),
    }
}
