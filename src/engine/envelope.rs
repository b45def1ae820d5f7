//! The envelope of saved states: what tells that bytes are a whole, unchanged state of a known kind and version.
//!
//! The form: eight bytes that name the kind, the version as a little-endian `u16`, the content in the
//! [postcard](https://postcard.jamesmunns.com/wire-format) wire format, and the CRC-32 (IEEE 802.3) of all before it as a
//! little-endian `u32`.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of the checksum at the end.
pub(crate) const CHECKSUM_BYTES: usize = 4;

/// Why saved bytes cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Cut, or something else altogether.
    #[error("this is no saved state of this kind")]
    OtherKind,
    /// Changed since it was saved.
    #[error("the saved state is damaged: its checksum does not match")]
    Damaged,
    /// Written by a version that saves differently.
    #[error("the saved state has format version {found}, this program reads version {expected}")]
    OtherVersion {
        /// The version it says.
        found: u16,
        /// The version this program reads.
        expected: u16,
    },
    /// The checksum matches and the contents make no sense.
    #[error("the saved state is inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// A kind of saved states.
#[derive(Clone, Copy)]
pub(crate) struct Envelope {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u16,
}

impl Envelope {
    /// The state of these contents.
    pub(crate) fn seal<T: Serialize>(self, content: &T) -> Vec<u8> {
        Self::close(append(self.begin(), content)).0
    }

    /// The start of a state, to which contents are [appended](append) before it is [closed](Self::close).
    pub(crate) fn begin(self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes
    }

    /// The whole state, and the checksum at its end.
    pub(crate) fn close(mut bytes: Vec<u8>) -> (Vec<u8>, [u8; CHECKSUM_BYTES]) {
        let checksum = crc32fast::hash(&bytes).to_le_bytes();
        bytes.extend(checksum);
        (bytes, checksum)
    }

    /// The bytes of the contents, to be read with [`read`] or [`read_whole`]; and the checksum.
    ///
    /// # Errors
    /// When the bytes are not a whole, unchanged state of this kind and version.
    pub(crate) fn open(self, bytes: &[u8]) -> Result<(&[u8], [u8; CHECKSUM_BYTES]), RestoreError> {
        let (sealed, checksum) = bytes.split_last_chunk().ok_or(RestoreError::OtherKind)?;
        let (magic, rest) = sealed.split_first_chunk().ok_or(RestoreError::OtherKind)?;
        let (version, content) = rest.split_first_chunk().ok_or(RestoreError::OtherKind)?;
        if *magic != self.magic {
            return Err(RestoreError::OtherKind);
        }
        if u32::from_le_bytes(*checksum) != crc32fast::hash(sealed) {
            return Err(RestoreError::Damaged);
        }
        let found = u16::from_le_bytes(*version);
        if found != self.version {
            return Err(RestoreError::OtherVersion { found, expected: self.version });
        }
        Ok((content, *checksum))
    }
}

/// Adds contents to a state that has [begun](Envelope::begin).
pub(crate) fn append<T: Serialize>(bytes: Vec<u8>, content: &T) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "memory cannot refuse to be written, and every part has a length")]
    postcard::to_extend(content, bytes).expect("a state can be written to memory")
}

/// The first value in the bytes of contents, and the bytes behind it.
pub(crate) fn read<'a, T: Deserialize<'a>>(content: &'a [u8]) -> Result<(T, &'a [u8]), RestoreError> {
    postcard::take_from_bytes(content).map_err(|_| RestoreError::Inconsistent("it cannot be read"))
}

/// The only value in the bytes of contents.
pub(crate) fn read_whole<'a, T: Deserialize<'a>>(content: &'a [u8]) -> Result<T, RestoreError> {
    match read(content)? {
        (value, []) => Ok(value),
        _ => Err(RestoreError::Inconsistent("there is more than a state")),
    }
}
