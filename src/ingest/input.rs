//! Local inputs, how far they have been read, and why one cannot be read.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::decompress::DecompressError;
use crate::engine::Fatal;

/// Where data comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// The name in messages and in `rejects.csv`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "-".into(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl From<&std::ffi::OsStr> for Input {
    /// A path, or `-` for standard input.
    fn from(argument: &std::ffi::OsStr) -> Self {
        if argument == "-" { Self::Stdin } else { Self::File(argument.into()) }
    }
}

/// Learns of progress, from any thread.
pub trait Observer: Sync {
    /// `bytes` further bytes of the inputs, as they are stored, and `rows` further rows have been read.
    fn advanced(&self, bytes: u64, rows: u64);
}

/// Why an input could not be read.
#[derive(Debug, Error)]
#[error("{input}: {problem}")]
pub struct LocalError {
    /// The input's name.
    pub input: String,
    /// What is wrong with it.
    #[source]
    pub problem: LocalProblem,
}

/// What is wrong with an input.
#[derive(Debug, Error)]
pub enum LocalProblem {
    /// The system refused.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The compressed data is cut off or damaged.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// The contents are unusable.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}
