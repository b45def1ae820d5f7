//! The state of an upload as bytes, to go on with it later: after the sender has vanished, in another process, on another
//! machine.
//!
//! The form is a sequence of pieces, each compressed for itself (Zstandard): first where the upload stands, in an envelope of its own; then
//! the bytes that have to be read again, if there are any; then what has been counted, as the engine saves it. So a large state is never in
//! memory as a whole, neither saved nor restored. Blocks of rejects are stored separately, each once, however often the state is saved. Version 2 had no bytes to be read again; in version 1 the first piece was the only one,
//! and held what had been counted, too.
//!
//! Decompressors do not give their state away. So the state of compressed data has the latest place from which another decompressor
//! can go on, and the bytes since then (`tail.rs`); likewise that of text in a multi-byte charset (`charset.rs`).

use std::iter::once;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState as _, SerializedState};

use super::charset::SavedDecoder;
use super::decompress::{Coding, Place};
use super::tail::MAX_TAIL_BYTES;
use crate::engine::{Aggregate, Envelope, RestoreError, read_whole};

const MAGIC: [u8; 8] = *b"adtpipe\0";
const ENVELOPE: Envelope = Envelope { magic: MAGIC, version: 3 };
const ENVELOPE_2: Envelope = Envelope { magic: MAGIC, version: 2 };
const ENVELOPE_1: Envelope = Envelope { magic: MAGIC, version: 1 };

/// The most bytes of a piece before it is compressed, or a little more.
const PIECE_BYTES: usize = 1024 * 1024;

/// What a piece can have uncompressed: of the first one, an unfinished record and what waits to be decoded.
const MAX_PIECE_BYTES: usize = 64 * 1024 * 1024;

/// Fast, and a third of the size.
const ZSTD_LEVEL: i32 = 1;

/// A position in an upload from which it can be gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPipeline {
    /// Bytes received up to there, as they were sent.
    pub offset: u64,
    /// CRC-64/NVME of these bytes, when all of them are known.
    pub crc64: Option<u64>,
    /// How many bytes before it are repeated in the state, to be read again.
    pub tail_bytes: u64,
    /// The state, of which a [`PipelineReader`](super::PipelineReader) takes one piece after the other.
    pub pieces: Vec<Vec<u8>>,
    /// The blocks of rejects that the state needs besides. Of one upload, those of an earlier state are the first of a later one.
    pub reject_blocks: Vec<Arc<[u8]>>,
}

impl SavedPipeline {
    /// Memory of the state, without the blocks of rejects: these belong to the pipeline, too.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.pieces.iter().map(Vec::capacity).sum()
    }
}

/// Where an upload stands.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) bytes_received: u64,
    pub(super) text_bytes: u64,
    pub(super) input: SavedInput,
    pub(super) decoder: SavedDecoder,
    pub(super) sha256: Option<Vec<u8>>,
    pub(super) tally: Vec<u8>,
    pub(super) crc64: Option<u64>,
}

/// The same, in version 1.
#[derive(Deserialize)]
struct State1 {
    bytes_received: u64,
    text_bytes: u64,
    input: SavedInput,
    decoder: SavedDecoder,
    sha256: Option<Vec<u8>>,
    tally: Vec<u8>,
}

/// Where the bytes stand on their way to text.
#[derive(Serialize, Deserialize)]
pub(super) enum SavedInput {
    /// The first bytes, too few to tell how they are compressed.
    Start(Vec<u8>),
    Plain,
    /// Behind a member or frame, in versions 1 and 2.
    Between(Coding),
    Compressed {
        /// Where a decompressor goes on, and the text before that.
        place: Place,
        text_before_place: u64,
        /// What it has to read again. Pieces with these bytes follow.
        tail_bytes: u64,
        tail_crc32: u32,
    },
}

impl SavedInput {
    pub(super) fn compressed(place: Place, text_before_place: u64, tail: &[u8]) -> Self {
        let tail_crc32 = crc32fast::hash(tail);
        Self::Compressed { place, text_before_place, tail_bytes: tail.len() as u64, tail_crc32 }
    }
}

/// Joins the pieces with the bytes that have to be read again.
pub(super) struct TailReader {
    expected_bytes: u64,
    crc32: u32,
    bytes: Vec<u8>,
}

impl TailReader {
    pub(super) fn new(input: &SavedInput) -> Self {
        let (expected_bytes, crc32) = match input {
            SavedInput::Compressed { tail_bytes, tail_crc32, .. } => (*tail_bytes, *tail_crc32),
            _ => (0, 0),
        };
        Self { expected_bytes, crc32, bytes: Vec::new() }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.expected_bytes
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// When it is too long, or is the last one and the bytes are not those that were saved.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), RestoreError> {
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() as u64 > self.expected_bytes {
            return Err(RestoreError::Inconsistent("its tail is too long"));
        }
        if self.is_whole() && crc32fast::hash(&self.bytes) != self.crc32 {
            return Err(RestoreError::Damaged);
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The first piece of a state.
pub(super) enum Opened {
    /// Pieces of what was counted follow.
    Position(State),
    /// All of it is there.
    Whole(State),
}

impl State {
    /// The pieces of the state, of the bytes to be read again, and of what has been counted, without the blocks of rejects. None when they take
    /// more memory than this.
    pub(super) fn seal(&self, tail: &[u8], counted: &Aggregate, max_bytes: usize) -> Option<Vec<Vec<u8>>> {
        // Compressing into memory cannot fail; an empty piece would be refused when it is restored.
        let compress = |piece: &[u8]| zstd::bulk::compress(piece, ZSTD_LEVEL).unwrap_or_default();
        let counted = counted.save_pieces_without_blocks(PIECE_BYTES).map(|piece| compress(&piece));
        let pieces = once(compress(&ENVELOPE.seal(self))).chain(tail.chunks(PIECE_BYTES).map(compress)).chain(counted);
        let mut left_bytes = max_bytes;
        let within = pieces.map(|piece| {
            left_bytes = left_bytes.checked_sub(piece.capacity())?;
            Some(piece)
        });
        within.collect()
    }

    pub(super) fn open(piece: &[u8]) -> Result<Opened, RestoreError> {
        let bytes = decompress(piece)?;
        match ENVELOPE.open(&bytes) {
            Ok((content, _)) => read_whole::<Self>(content)?.checked().map(Opened::Position),
            // What is new in version 3 is additions.
            Err(RestoreError::OtherVersion { found, .. }) if found == ENVELOPE_2.version => {
                read_whole::<Self>(ENVELOPE_2.open(&bytes)?.0)?.checked().map(Opened::Position)
            }
            Err(RestoreError::OtherVersion { found, .. }) if found == ENVELOPE_1.version => {
                let State1 { bytes_received, text_bytes, input, decoder, sha256, tally } =
                    read_whole(ENVELOPE_1.open(&bytes)?.0)?;
                let state = Self { bytes_received, text_bytes, input, decoder, sha256, tally, crc64: None };
                state.checked().map(Opened::Whole)
            }
            Err(error) => Err(error),
        }
    }

    fn checked(self) -> Result<Self, RestoreError> {
        use RestoreError::Inconsistent;

        match &self.input {
            SavedInput::Start(start) if start.len() >= Coding::SNIFF_BYTES => {
                Err(Inconsistent("it has more first bytes than it waits for"))
            }
            SavedInput::Start(start) if start.len() as u64 != self.bytes_received => {
                Err(Inconsistent("it has other bytes than its first"))
            }
            SavedInput::Between(Coding::Identity) => Err(Inconsistent("what is not compressed has no members")),
            SavedInput::Compressed { place, .. } if place.coding() == Coding::Identity => {
                Err(Inconsistent("what is not compressed is not decompressed"))
            }
            SavedInput::Compressed { tail_bytes, .. }
                if *tail_bytes > (MAX_TAIL_BYTES as u64).min(self.bytes_received) =>
            {
                Err(Inconsistent("its tail is too long"))
            }
            SavedInput::Compressed { text_before_place, .. } if *text_before_place > self.text_bytes => {
                Err(Inconsistent("it has less text than before"))
            }
            _ => Ok(self),
        }
    }
}

/// The bytes of a piece.
pub(super) fn decompress(piece: &[u8]) -> Result<Vec<u8>, RestoreError> {
    zstd::bulk::decompress(piece, uncompressed_bytes(piece)).map_err(|_| RestoreError::Damaged)
}

/// The most bytes that a piece has uncompressed.
pub(super) fn uncompressed_bytes(piece: &[u8]) -> usize {
    zstd::bulk::Decompressor::upper_bound(piece).unwrap_or(MAX_PIECE_BYTES).min(MAX_PIECE_BYTES)
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
