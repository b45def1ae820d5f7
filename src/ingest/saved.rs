//! The state of an upload as bytes, to go on with it later: after the sender has vanished, in another process, on another
//! machine.
//!
//! The form is that of an engine's state, in an envelope of its own. The tally inside has its own envelope, too.
//!
//! Not every position can be gone on from. Decompressors do not give their state away, so compressed data can be continued
//! where a member or frame ends; neither do the decoders of multi-byte charsets. Text in UTF-8, UTF-16 and single-byte
//! charsets can be continued at any byte.

use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState as _, SerializedState};

use super::charset::SavedDecoder;
use super::decompress::Coding;
use crate::engine::{Envelope, RestoreError, read_whole};

const ENVELOPE: Envelope = Envelope { magic: *b"adtpipe\0", version: 1 };

/// A position in an upload from which it can be gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPipeline {
    /// Bytes received up to there, as they were sent.
    pub offset: u64,
    /// The state, which [`Pipeline::restore`](super::Pipeline::restore) takes back.
    pub bytes: Vec<u8>,
}

/// The whole state.
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
        ENVELOPE.seal(self)
    }

    pub(super) fn open(bytes: &[u8]) -> Result<Self, RestoreError> {
        use RestoreError::Inconsistent;

        let state: Self = read_whole(ENVELOPE.open(bytes)?.0)?;
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

pub(super) fn restore_digest(bytes: &[u8]) -> Result<Sha256, RestoreError> {
    let state = SerializedState::<Sha256>::try_from(bytes).ok();
    let sha256 = state.and_then(|state| Sha256::deserialize(&state).ok());
    sha256.ok_or(RestoreError::Inconsistent("its digest cannot be gone on with"))
}
