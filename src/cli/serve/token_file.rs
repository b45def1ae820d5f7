//! The token file.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::interval;

use super::arguments::Arguments;
use crate::http::{TokenTable, Tokens};

/// How often tokens are looked through for those that have expired.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

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

/// A token file, and the tokens that it has.
pub(super) struct TokenFile {
    path: PathBuf,
    tokens: Tokens,
}

impl TokenFile {
    /// Reads the token file at the start.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let refused = |reason| format!("--token-file {}: {reason}", path.display());
        Ok(Self { path: path.to_owned(), tokens: Tokens::new(read(path).map_err(refused)?) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Replaces the tokens by what the file says now. A file that cannot be read or understood changes nothing. Blocks on the file system.
    pub(super) fn reload(&self) -> Result<(), String> {
        let table = read(&self.path).map_err(|reason| format!("{}: {reason}", self.path.display()))?;
        tracing::info!(tokens = table.len(), "the token file was read");
        self.tokens.replace(table);
        Ok(())
    }
}

fn read(path: &Path) -> Result<TokenTable, String> {
    let mut text = Vec::new();
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a regular file".into());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    TokenTable::parse(&text).map_err(|error| error.to_string())
}

/// Ends what requests with tokens that have expired are doing. Never returns.
pub(super) async fn end_expired(tokens: Tokens) {
    let mut looks = interval(EXPIRY_INTERVAL);
    loop {
        looks.tick().await;
        tokens.end_expired();
    }
}
