//! From the bytes of a file to UTF-8 text.
//!
//! A byte-order mark decides the encoding and is dropped; without one the declared encoding holds. UTF-8 passes through
//! as it is, valid or not; other encodings are decoded as the WHATWG Encoding Standard says, with U+FFFD for what cannot
//! be.

use encoding_rs::{CoderResult, Encoding, ISO_2022_JP, UTF_8, UTF_16BE, UTF_16LE};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::engine::RestoreError;

/// The longest byte-order mark.
const MAX_MARK_BYTES: usize = 3;

/// Decoded text is handed on in pieces of this size.
const PIECE_BYTES: usize = 32 * 1024;

/// A label that names no encoding.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "unknown encoding {0:?}: expected a label of the WHATWG Encoding Standard, such as utf-8, windows-1252 or utf-16le"
)]
pub struct UnknownEncoding(pub String);

/// The encoding a label means.
///
/// # Errors
/// When the label is not one of the Encoding Standard, or stands for an encoding that must not be decoded.
pub fn encoding_for_label(label: &str) -> Result<&'static Encoding, UnknownEncoding> {
    Encoding::for_label_no_replacement(label.as_bytes()).ok_or_else(|| UnknownEncoding(label.into()))
}

/// Decodes one file, given in pieces of any size.
pub struct TextDecoder {
    declared: &'static Encoding,
    state: State,
}

enum State {
    /// Fewer bytes have been seen than a mark may have.
    Start { held: Vec<u8> },
    /// The text is UTF-8.
    Passing,
    Decoding {
        decoder: Box<encoding_rs::Decoder>,
        piece: Vec<u8>,
        /// Of UTF-16, the beginning of a character whose end has not come, at most [`MAX_HELD_UNIT_BYTES`]. So the decoder
        /// keeps nothing, and can be replaced by a new one.
        held: Vec<u8>,
        /// Of other multi-byte charsets, the bytes since the decoder last kept nothing. None when that is too much.
        line: Option<Vec<u8>>,
    },
}

/// A high surrogate and the first byte of the next unit.
const MAX_HELD_UNIT_BYTES: usize = 3;

/// The longest line within which multi-byte text can be gone on with. Longer records are errors anyway.
const MAX_LINE_BYTES: usize = 1024 * 1024;

const ESCAPE: u8 = 0x1b;
/// What follows an escape that leads back to ASCII (RFC 1468).
const TO_ASCII: &[u8] = b"(B";

/// Where a decoder stands, as far as another needs to know.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedDecoder {
    declared: String,
    state: SavedState,
}

#[derive(Serialize, Deserialize)]
enum SavedState {
    Start {
        held: Vec<u8>,
    },
    Passing,
    Decoding {
        encoding: String,
        held: Vec<u8>,
    },
    /// In the middle of a line that another decoder has to read again.
    InLine {
        encoding: String,
        line: Vec<u8>,
    },
}

impl TextDecoder {
    /// A decoder for a file of the declared encoding.
    #[must_use]
    pub fn new(declared: &'static Encoding) -> Self {
        Self { declared, state: State::Start { held: Vec::with_capacity(MAX_MARK_BYTES) } }
    }

    /// The encoding, and how long the mark is, of a file that starts with `start`: all of it, or at least three bytes.
    #[must_use]
    pub fn sniff(declared: &'static Encoding, start: &[u8]) -> (&'static Encoding, usize) {
        Encoding::for_bom(start).unwrap_or((declared, 0))
    }

    /// Hands the text of the next bytes to `sink`.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn push<E>(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let State::Start { held } = &mut self.state else {
            return self.decode(bytes, false, &mut sink);
        };
        let missing = MAX_MARK_BYTES - held.len();
        let (first, rest) = bytes.split_at(bytes.len().min(missing));
        held.extend_from_slice(first);
        if held.len() < MAX_MARK_BYTES {
            return Ok(());
        }
        self.start(&mut sink)?;
        self.decode(rest, false, &mut sink)
    }

    /// Hands on what the end of the input leaves.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish<E>(mut self, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if matches!(self.state, State::Start { .. }) {
            self.start(&mut sink)?;
        }
        self.decode(&[], true, &mut sink)
    }

    fn start<E>(&mut self, sink: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let State::Start { held } = std::mem::replace(&mut self.state, State::Passing) else {
            return Ok(());
        };
        let (encoding, mark_bytes) = Self::sniff(self.declared, &held);
        if encoding != UTF_8 {
            let decoder = Box::new(encoding.new_decoder_without_bom_handling());
            self.state =
                State::Decoding { decoder, piece: vec![0; PIECE_BYTES], held: Vec::new(), line: Some(Vec::new()) };
        }
        self.decode(&held[mark_bytes..], false, sink)
    }

    fn decode<E>(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let State::Decoding { decoder, piece, held, line } = &mut self.state else {
            return if bytes.is_empty() { Ok(()) } else { sink(bytes) };
        };
        let joined;
        let mut bytes = bytes;
        if !held.is_empty() {
            joined = [held, bytes].concat();
            bytes = &joined;
            held.clear();
        }
        if !is_last {
            let (whole, rest) = bytes.split_at(whole_characters(decoder.encoding(), bytes));
            held.extend_from_slice(rest);
            bytes = whole;
        }
        if !can_be_replaced(decoder.encoding()) {
            remember_line(line, decoder.encoding(), bytes);
        }
        loop {
            let (result, read, written, _) = decoder.decode_to_utf8(bytes, piece, is_last);
            bytes = &bytes[read..];
            if written > 0 {
                sink(&piece[..written])?;
            }
            if result == CoderResult::InputEmpty {
                return Ok(());
            }
        }
    }

    /// Memory of the decoder.
    pub(super) fn memory_bytes(&self) -> usize {
        match &self.state {
            State::Start { .. } | State::Passing => 0,
            State::Decoding { piece, held, line, .. } => {
                size_of::<encoding_rs::Decoder>()
                    + piece.capacity()
                    + held.capacity()
                    + line.as_ref().map_or(0, Vec::capacity)
            }
        }
    }

    /// The most memory that decoding this much takes on top of that: a copy of it, and what may have to be read again.
    pub(super) fn growth_bytes(&self, bytes: usize) -> usize {
        match &self.state {
            State::Passing => 0,
            State::Start { .. } | State::Decoding { .. } => PIECE_BYTES + bytes + (2 * bytes).max(2 * MAX_LINE_BYTES),
        }
    }

    /// The most text that comes out of this much.
    pub(super) fn text_bound(&self, bytes: usize) -> usize {
        match &self.state {
            State::Passing => bytes,
            // A byte may become a character of three bytes.
            State::Start { .. } | State::Decoding { .. } => bytes.saturating_mul(3),
        }
    }

    /// Where the decoder stands; `None` when only the decoder itself knows: in the middle of a very long line in a multi-byte charset.
    pub(super) fn save(&self) -> Option<SavedDecoder> {
        let state = match &self.state {
            State::Start { held } => SavedState::Start { held: held.clone() },
            State::Passing => SavedState::Passing,
            State::Decoding { decoder, held, line, .. } => {
                let encoding = decoder.encoding();
                let name = encoding.name().into();
                if can_be_replaced(encoding) {
                    SavedState::Decoding { encoding: name, held: held.clone() }
                } else {
                    SavedState::InLine { encoding: name, line: line.clone()? }
                }
            }
        };
        Some(SavedDecoder { declared: self.declared.name().into(), state })
    }

    /// A decoder that goes on where another stood.
    ///
    /// # Errors
    /// When no decoder can have stood there.
    pub(super) fn restore(saved: SavedDecoder) -> Result<Self, RestoreError> {
        let inconsistent = |reason| Err(RestoreError::Inconsistent(reason));
        let declared = encoding_named(&saved.declared)?;
        let state = match saved.state {
            SavedState::Start { held } if held.len() < MAX_MARK_BYTES => State::Start { held },
            SavedState::Start { .. } => return inconsistent("it has more first bytes than a mark"),
            SavedState::Passing => State::Passing,
            SavedState::Decoding { encoding, held } => {
                let encoding = encoding_named(&encoding)?;
                if !can_be_replaced(encoding) || encoding == UTF_8 {
                    return inconsistent("its text cannot be gone on with");
                }
                if held.len() > MAX_HELD_UNIT_BYTES || whole_characters(encoding, &held) > 0 {
                    return inconsistent("it holds back whole characters");
                }
                let decoder = Box::new(encoding.new_decoder_without_bom_handling());
                State::Decoding { decoder, piece: vec![0; PIECE_BYTES], held, line: None }
            }
            SavedState::InLine { encoding, line } => {
                let encoding = encoding_named(&encoding)?;
                if can_be_replaced(encoding) || line.len() > MAX_LINE_BYTES {
                    return inconsistent("its line cannot be gone on with");
                }
                let decoder = Box::new(encoding.new_decoder_without_bom_handling());
                let state =
                    State::Decoding { decoder, piece: vec![0; PIECE_BYTES], held: Vec::new(), line: Some(Vec::new()) };
                let mut restored = Self { declared, state };
                // Its text has been handed on.
                let nowhere = |_: &[u8]| Ok::<_, RestoreError>(());
                restored.decode(&line, false, &mut { nowhere })?;
                return Ok(restored);
            }
        };
        Ok(Self { declared, state })
    }
}

/// The encoding of this name, which another process has written.
fn encoding_named(name: &str) -> Result<&'static Encoding, RestoreError> {
    let encoding = Encoding::for_label_no_replacement(name.as_bytes());
    encoding.ok_or(RestoreError::Inconsistent("its encoding is unknown"))
}

/// True for encodings whose decoders keep nothing between whole characters.
fn can_be_replaced(encoding: &'static Encoding) -> bool {
    encoding.is_single_byte() || encoding == UTF_8 || is_utf_16(encoding)
}

/// Notes bytes that a decoder of a multi-byte charset reads. Behind an LF it keeps nothing, as LF is never a part of a longer character; but
/// in ISO-2022-JP it does, unless the text there is in ASCII.
fn remember_line(line: &mut Option<Vec<u8>>, encoding: &'static Encoding, bytes: &[u8]) {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let (before, behind) = bytes.split_at(end);
    let keeps_nothing = if encoding == ISO_2022_JP {
        let mut before_line_end = line.take();
        if let Some(known) = &mut before_line_end {
            known.extend_from_slice(before);
        }
        let text = before_line_end.as_deref().unwrap_or(before);
        let is_ascii = match text.iter().rposition(|byte| *byte == ESCAPE) {
            Some(escape) => text[escape + 1..].starts_with(TO_ASCII),
            None => before_line_end.is_some(),
        };
        *line = before_line_end;
        end > 0 && is_ascii
    } else {
        end > 0
    };
    if keeps_nothing {
        line.get_or_insert_default().clear();
    }
    if let Some(known) = line {
        known.extend_from_slice(behind);
        if known.len() > MAX_LINE_BYTES {
            *line = None;
        }
    }
}

fn is_utf_16(encoding: &'static Encoding) -> bool {
    encoding == UTF_16LE || encoding == UTF_16BE
}

/// How many of the bytes are whole characters, as far as that can be told: of UTF-16 all but an odd byte and a high surrogate
/// at the end.
fn whole_characters(encoding: &'static Encoding, bytes: &[u8]) -> usize {
    if !is_utf_16(encoding) {
        return bytes.len();
    }
    let units = bytes.as_chunks::<2>().0;
    let is_high_surrogate = |unit: &[u8; 2]| {
        let unit = if encoding == UTF_16LE { u16::from_le_bytes(*unit) } else { u16::from_be_bytes(*unit) };
        (0xd800..0xdc00).contains(&unit)
    };
    let cut_off = usize::from(units.last().is_some_and(is_high_surrogate));
    2 * (units.len() - cut_off)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn decode(label: &str, bytes: &[u8], step: usize) -> Vec<u8> {
        let mut text = Vec::new();
        let mut sink = |piece: &[u8]| {
            text.extend_from_slice(piece);
            Ok::<_, Infallible>(())
        };
        let mut decoder = TextDecoder::new(encoding_for_label(label).unwrap());
        for piece in bytes.chunks(step) {
            decoder.push(piece, &mut sink).unwrap();
        }
        decoder.finish(&mut sink).unwrap();
        text
    }

    #[test]
    fn a_mark_decides_and_is_dropped_however_the_bytes_are_cut() {
        for (label, bytes, text) in [
            ("utf-8", &b"\xef\xbb\xbfa\xff"[..], &b"a\xff"[..]),
            ("latin1", b"\xef\xbb\xbf\xc3\xa9", "\u{e9}".as_bytes()),
            ("latin1", b"caf\xe9", "caf\u{e9}".as_bytes()),
            ("utf-8", b"\xff\xfea\0\xe9\0", "a\u{e9}".as_bytes()),
            ("utf-8", b"\xfe\xff\0a\xd8\x3d\xde\0", "a\u{1f600}".as_bytes()),
            ("utf-16le", b"a\0b", "a\u{fffd}".as_bytes()),
            ("shift_jis", b"\x82\xa0\x82", "\u{3042}\u{fffd}".as_bytes()),
            ("utf-8", b"\xef\xbb", b"\xef\xbb"),
            ("utf-8", b"\xff\xfe", b""),
            ("utf-8", b"", b""),
        ] {
            for step in 1..=bytes.len().max(1) {
                assert_eq!(decode(label, bytes, step), text, "{bytes:?} as {label} in pieces of {step}");
            }
        }
    }

    /// Decodes bytes, with another decoder from each of these places on.
    fn decode_on(encoding: &'static Encoding, bytes: &[u8], places: &[usize]) -> Vec<u8> {
        let mut text = Vec::new();
        let mut sink = |piece: &[u8]| {
            text.extend_from_slice(piece);
            Ok::<_, Infallible>(())
        };
        let mut decoder = TextDecoder::new(encoding);
        let mut start = 0;
        for place in places {
            decoder.push(&bytes[start..*place], &mut sink).unwrap();
            let saved = postcard::to_allocvec(&decoder.save().unwrap()).unwrap();
            decoder = TextDecoder::restore(postcard::from_bytes(&saved).unwrap()).unwrap();
            assert_eq!(postcard::to_allocvec(&decoder.save().unwrap()).unwrap(), saved);
            start = *place;
        }
        decoder.push(&bytes[start..], &mut sink).unwrap();
        decoder.finish(&mut sink).unwrap();
        text
    }

    #[test]
    fn text_of_every_encoding_goes_on_at_any_byte() {
        // Characters of many lengths, cut ones, and what leads from one set of characters of ISO-2022-JP to another.
        let bytes = b"caf\xe9\n\x82\xa0\n\x8f\xa1\n\x811\n\x8130\x81\x30\n\x88b\n\x1b$B$\"$\n$!a\n\x1b(B\na\x1b$B$\"\x1b(J\n~\x1b\n(Ba\n\x1b(Bb\n\x1b(I1";
        for label in ["shift_jis", "gbk", "gb18030", "big5", "euc-jp", "euc-kr", "iso-2022-jp", "utf-16le", "koi8-r"] {
            let encoding = encoding_for_label(label).unwrap();
            let whole = decode(label, bytes, bytes.len());
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    assert_eq!(decode_on(encoding, bytes, &[first, second]), whole, "{label} at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn very_long_lines_cannot_be_gone_on_with() {
        let mut decoder = TextDecoder::new(encoding_rs::SHIFT_JIS);
        let push = |decoder: &mut TextDecoder, bytes: &[u8]| decoder.push(bytes, |_| Ok::<_, Infallible>(())).unwrap();
        push(&mut decoder, &vec![b'a'; MAX_LINE_BYTES + MAX_MARK_BYTES]);
        assert!(decoder.save().is_none());
        push(&mut decoder, b"a\nb");
        assert!(decoder.save().is_some());
    }

    #[test]
    fn labels_are_those_of_the_standard() {
        assert_eq!(encoding_for_label("Latin1").unwrap(), encoding_rs::WINDOWS_1252);
        assert!(encoding_for_label("klingon").is_err());
        assert!(encoding_for_label("iso-2022-kr").is_err());
    }
}
