//! What is known of a file ahead of its bytes.

use super::model::{FileFormat, JobFile};
use super::reports::hex;
use crate::ingest::Sha256Digest;

/// What is known of a file before its first byte.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The name its sender gave it.
    pub name: String,
    /// How it is read.
    pub format: FileFormat,
    /// Bytes to come, as they are sent.
    pub length: Option<u64>,
    /// The digest of these bytes, when the sender tells.
    pub sha256: Option<Sha256Digest>,
    /// What its sender says about it besides, to be told again.
    pub metadata: Option<String>,
}

impl FileOptions {
    /// The file as it begins.
    pub(super) fn file(self) -> JobFile {
        JobFile {
            sha256: self.sha256.map(hex),
            metadata: self.metadata,
            ..JobFile::begin(self.name, self.format, self.length)
        }
    }
}

/// What the end of a body means for its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// The file is complete, unless it has a known length and is shorter.
    EndsFile,
    /// The file waits for more, unless it has reached a known length.
    LeavesOpen,
}
