//! The state of an upload as bytes, to go on with it later: after the sender has vanished, in another process, on another
//! machine.
//!
//! The form: the eight bytes `adtpipe\0`, the version as a little-endian `u16`, the state in the
//! [postcard](https://postcard.jamesmunns.com/wire-format) wire format, and the CRC-32 (IEEE 802.3) of all before it as a
//! little-endian `u32`. The tally inside has a form of its own.
//!
//! Not every position can be gone on from. Decompressors do not give their state away, so compressed data can be continued
//! where a member or frame ends; neither do the decoders of multi-byte charsets. Text in UTF-8, UTF-16 and single-byte
//! charsets can be continued at any byte.

use encoding_rs::Encoding;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState as _, SerializedState};
use thiserror::Error;

use super::charset::SavedDecoder;
use super::decompress::Coding;
use crate::engine::RestoreError;

const MAGIC: [u8; 8] = *b"adtpipe\0";
const VERSION: u16 = 1;
const CHECKSUM_BYTES: usize = 4;

/// A position in an upload from which it can be gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPipeline {
    /// Bytes received up to there, as they were sent.
    pub offset: u64,
    /// The state, which [`Pipeline::restore`](super::Pipeline::restore) takes back.
    pub bytes: Vec<u8>,
}

/// Why saved bytes are not a state to go on from.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestorePipelineError {
    /// Cut, or something else altogether.
    #[error("this is no saved upload")]
    NotAPipeline,
    /// Changed since it was saved.
    #[error("the saved upload is damaged: its checksum does not match")]
    Damaged,
    /// Written by a version that saves differently.
    #[error("the saved upload has format version {found}, this program reads version {VERSION}")]
    OtherVersion {
        /// The version it says.
        found: u16,
    },
    /// The checksum matches and the contents make no sense.
    #[error("the saved upload is inconsistent: {0}")]
    Inconsistent(&'static str),
    /// What was counted cannot be restored.
    #[error(transparent)]
    Tally(#[from] RestoreError),
}

/// All there is to save.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) bytes_received: u64,
    pub(super) text_bytes: u64,
    pub(super) input: SavedInput,
    pub(super) decoder: SavedDecoder,
    pub(super) sha256: Option<Vec<u8>>,
    pub(super) tally: Vec<u8>,
}

/// Where the bytes stand on their way to text.
#[derive(Serialize, Deserialize)]
pub(super) enum SavedInput {
    /// The first bytes, too few to tell how they are compressed.
    Start(Vec<u8>),
    Plain,
    /// Behind a member or frame.
    Between(Coding),
}

impl State {
    pub(super) fn seal(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        #[expect(clippy::expect_used, reason = "memory cannot refuse to be written, and every part has a length")]
        let mut bytes = postcard::to_extend(self, bytes).expect("a state can be written to memory");
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn open(bytes: &[u8]) -> Result<Self, RestorePipelineError> {
        use RestorePipelineError::{Damaged, Inconsistent, NotAPipeline, OtherVersion};

        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(NotAPipeline)?;
        let (magic, rest) = content.split_first_chunk().ok_or(NotAPipeline)?;
        let (version, state) = rest.split_first_chunk().ok_or(NotAPipeline)?;
        if *magic != MAGIC {
            return Err(NotAPipeline);
        }
        if u32::from_le_bytes(*checksum) != crc32fast::hash(content) {
            return Err(Damaged);
        }
        let found = u16::from_le_bytes(*version);
        if found != VERSION {
            return Err(OtherVersion { found });
        }
        let state: Self = postcard::from_bytes(state).map_err(|_| Inconsistent("it cannot be read"))?;
        match &state.input {
            SavedInput::Start(start) if start.len() >= Coding::SNIFF_BYTES => {
                Err(Inconsistent("it has more first bytes than it waits for"))
            }
            SavedInput::Start(start) if start.len() as u64 != state.bytes_received => {
                Err(Inconsistent("it has other bytes than its first"))
            }
            SavedInput::Between(Coding::Identity) => Err(Inconsistent("what is not compressed has no members")),
            _ => Ok(state),
        }
    }
}

/// A digest's state. Its form is that of the `sha2` crate, stable within a minor version of it.
pub(super) fn save_digest(sha256: &Sha256) -> Vec<u8> {
    sha256.serialize().to_vec()
}

pub(super) fn restore_digest(bytes: &[u8]) -> Result<Sha256, RestorePipelineError> {
    let state = SerializedState::<Sha256>::try_from(bytes).ok();
    let sha256 = state.and_then(|state| Sha256::deserialize(&state).ok());
    sha256.ok_or(RestorePipelineError::Inconsistent("its digest cannot be gone on with"))
}

/// The encoding of this name, which another process has written.
pub(super) fn encoding_named(name: &str) -> Result<&'static Encoding, RestorePipelineError> {
    let encoding = Encoding::for_label_no_replacement(name.as_bytes());
    encoding.ok_or(RestorePipelineError::Inconsistent("its encoding is unknown"))
}
