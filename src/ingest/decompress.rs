//! Decompression, step by step, of data in pieces of any size.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::brotli_memory::CountingAlloc;
use super::gzip::{self, Gzip, PlaceInMember};
use super::inflate::{Inflated, Inflater, Wrapper};
use super::step::{Step, StopAt};
use crate::engine::{Fatal, RestoreError};

/// Windows of Zstandard frames as powers of two: what `zstd --long` makes, and what untrusted senders may ask for.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
const UNTRUSTED_ZSTD_WINDOW_LOG: u32 = 23;

/// Memory of inflating: its state, and a window of 32 KiB.
const INFLATE_BYTES: usize = 64 * 1024;

/// The most memory of Zstandard with the window that untrusted senders may ask for: the window, blocks before and behind it, and the state.
const MOST_ZSTD_BYTES: usize = (1 << UNTRUSTED_ZSTD_WINDOW_LOG) + 1024 * 1024;

/// The most memory of Brotli: a window of 16 MiB, with what is written behind its end, and the tables of codes.
const MOST_BROTLI_BYTES: usize = 24 * 1024 * 1024;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How data is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952, also many members.
    Gzip,
    /// RFC 8878, also many frames.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// What HTTP calls deflate: the zlib format of RFC 1950, or the bare RFC 1951 that some senders mean.
    Deflate,
}

impl Coding {
    /// Bytes that [`Self::sniff`] wants to see.
    pub const SNIFF_BYTES: usize = 4;

    /// Recognises data by its first bytes.
    #[must_use]
    pub fn sniff(start: &[u8]) -> Self {
        // RFC 8878, 3.1.2: a file may start with a frame that readers skip.
        let is_skippable = matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        if start.starts_with(&gzip::MAGIC) {
            Self::Gzip
        } else if start.starts_with(&ZSTD_MAGIC) || is_skippable {
            Self::Zstd
        } else {
            Self::Identity
        }
    }

    /// Refuses files that are known not to be CSV by their first bytes: spreadsheets, and archives, which those of today are.
    pub(super) fn refuse_other_files(start: &[u8]) -> Result<(), Fatal> {
        // APPNOTE.TXT, 4.3.7 and 4.3.16; [MS-CFB], 2.2.
        let kinds: [(&[u8], _); 3] = [
            (b"PK\x03\x04", "an Excel workbook or another zip archive"),
            (b"PK\x05\x06", "an empty zip archive"),
            (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
        ];
        match kinds.into_iter().find(|(magic, _)| start.starts_with(magic)) {
            Some((_, kind)) => Err(Fatal::NotCsv { kind }),
            None => Ok(()),
        }
    }

    /// The name in messages and headers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Deflate => "deflate",
        }
    }

    /// The coding of this name in HTTP's registry, without regard to case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "identity" => Some(Self::Identity),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            "br" => Some(Self::Brotli),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }
}

/// Compressed data that cannot be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecompressError {
    /// It stops before its end.
    #[error("the {} data is cut off: its end is missing", .0.name())]
    Truncated(Coding),
    /// It is damaged, or something else follows it.
    #[error("the {} data is damaged: {reason}", .coding.name())]
    Damaged {
        /// What it should be.
        coding: Coding,
        /// What the decompressor says.
        reason: String,
    },
}

/// A position in compressed data from which another decompressor can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(At);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum At {
    Start(Coding),
    /// Behind a member or frame, or behind the end.
    Between(Coding),
    /// Within a gzip member, at the end of a deflate block.
    InMember(PlaceInMember),
}

impl Place {
    /// The first byte.
    pub(super) fn start(coding: Coding) -> Self {
        Self(At::Start(coding))
    }

    /// Behind a member or frame.
    pub(super) fn between(coding: Coding) -> Self {
        Self(At::Between(coding))
    }

    pub(super) fn coding(&self) -> Coding {
        match self.0 {
            At::Start(coding) | At::Between(coding) => coding,
            At::InMember(_) => Coding::Gzip,
        }
    }
}

/// Decompresses members and frames one behind the other.
pub struct Decompressor {
    stream: Stream,
    /// Within a member or frame, or before the first.
    is_unfinished: bool,
}

enum Stream {
    Identity,
    Gzip(Gzip),
    Zstd(DCtx<'static>),
    Brotli(Box<BrotliState<CountingAlloc, CountingAlloc, CountingAlloc>>, CountingAlloc),
    /// `None` before the first byte, which tells the two formats apart.
    Deflate(Option<Inflater>),
}

impl Decompressor {
    /// A decompressor for data from its first byte. Zstandard frames may have windows of up to 128 MiB.
    ///
    /// # Errors
    /// When the decompressor's memory cannot be had.
    pub fn new(coding: Coding) -> Result<Self, DecompressError> {
        Self::with_window_log(coding, MAX_ZSTD_WINDOW_LOG)
    }

    /// A decompressor for data of untrusted senders: Zstandard frames may have windows of up to 8 MiB, as RFC 9659 has it
    /// for content codings. A frame that asks for more would be given the memory.
    ///
    /// # Errors
    /// When the decompressor's memory cannot be had.
    pub fn untrusted(coding: Coding) -> Result<Self, DecompressError> {
        Self::with_window_log(coding, UNTRUSTED_ZSTD_WINDOW_LOG)
    }

    fn with_window_log(coding: Coding, max_window_log: u32) -> Result<Self, DecompressError> {
        let stream = match coding {
            Coding::Identity => Stream::Identity,
            Coding::Gzip => Stream::Gzip(Gzip::new().map_err(|reason| damaged(coding, &reason))?),
            Coding::Zstd => {
                let mut decoder = DCtx::try_create().ok_or_else(|| damaged(coding, &"there is no memory"))?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(max_window_log))
                    .map_err(|error| damaged(coding, &get_error_name(error)))?;
                Stream::Zstd(decoder)
            }
            Coding::Brotli => {
                let memory = CountingAlloc::default();
                let allocator = || memory.clone();
                let state = Box::new(BrotliState::new_strict(allocator(), allocator(), allocator()));
                Stream::Brotli(state, memory)
            }
            Coding::Deflate => Stream::Deflate(None),
        };
        Ok(Self { stream, is_unfinished: coding != Coding::Identity })
    }

    /// A decompressor for what an untrusted sender sends from this place on, as [`Self::untrusted`].
    ///
    /// # Errors
    /// When there is no such place, or the decompressor's memory cannot be had.
    pub fn at(place: &Place) -> Result<Self, RestoreError> {
        let no_memory = |_| RestoreError::Inconsistent("no decompressor");
        match &place.0 {
            At::Start(coding) => Self::untrusted(*coding).map_err(no_memory),
            At::Between(Coding::Gzip) => {
                let gzip = Gzip::behind_member().map_err(RestoreError::Inconsistent)?;
                Ok(Self { stream: Stream::Gzip(gzip), is_unfinished: false })
            }
            At::Between(coding) => Ok(Self { is_unfinished: false, ..Self::untrusted(*coding).map_err(no_memory)? }),
            At::InMember(place) => Ok(Self { stream: Stream::Gzip(Gzip::within_member(place)?), is_unfinished: true }),
        }
    }

    /// Where the last step has ended, if another decompressor can go on from there: behind a member or frame, and at the end of a deflate
    /// block of gzip when the step [stops](Self::step_to_place) there.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        if !self.is_unfinished {
            return Some(Place::between(self.coding()));
        }
        match &self.stream {
            Stream::Gzip(gzip) => gzip.place_in_member().map(|place| Place(At::InMember(place))),
            _ => None,
        }
    }

    /// Memory of the decompressor.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.stream {
                Stream::Identity | Stream::Deflate(None) => 0,
                Stream::Gzip(_) | Stream::Deflate(Some(_)) => INFLATE_BYTES,
                Stream::Zstd(decoder) => decoder.sizeof(),
                Stream::Brotli(state, memory) => size_of_val(&**state) + memory.bytes(),
            }
    }

    /// The most memory that it takes on top of that for data of [untrusted senders](Self::untrusted).
    #[must_use]
    pub fn growth_bytes(&self) -> usize {
        let most = match self.coding() {
            Coding::Identity => 0,
            Coding::Gzip | Coding::Deflate => INFLATE_BYTES,
            Coding::Zstd => MOST_ZSTD_BYTES,
            Coding::Brotli => MOST_BROTLI_BYTES,
        };
        most.saturating_sub(self.memory_bytes())
    }

    fn coding(&self) -> Coding {
        match self.stream {
            Stream::Identity => Coding::Identity,
            Stream::Gzip(_) => Coding::Gzip,
            Stream::Zstd(_) => Coding::Zstd,
            Stream::Brotli(..) => Coding::Brotli,
            Stream::Deflate(_) => Coding::Deflate,
        }
    }

    /// Takes from the input and writes to the output as much as goes. It has written all there is when the input is
    /// used up and room is left in the output.
    ///
    /// # Errors
    /// When the data is damaged.
    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, DecompressError> {
        self.step_to(input, output, StopAt::StreamEnd)
    }

    /// As [`Self::step`], but stops at the next [place](Self::place) from which another decompressor can go on. Where it stops, it may have
    /// done nothing.
    ///
    /// # Errors
    /// When the data is damaged.
    pub fn step_to_place(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, DecompressError> {
        self.step_to(input, output, StopAt::BlockEnd)
    }

    fn step_to(&mut self, input: &[u8], output: &mut [u8], stop_at: StopAt) -> Result<Step, DecompressError> {
        match &mut self.stream {
            Stream::Identity => {
                let count = input.len().min(output.len());
                output[..count].copy_from_slice(&input[..count]);
                Ok(Step { consumed: count, produced: count })
            }
            Stream::Gzip(gzip) => {
                let step = gzip.step(input, output, stop_at).map_err(|reason| damaged(Coding::Gzip, &reason))?;
                self.is_unfinished = !gzip.is_behind_member();
                Ok(step)
            }
            Stream::Zstd(decoder) => {
                let (mut input, mut output) = (InBuffer::around(input), OutBuffer::around(output));
                let wanted = decoder
                    .decompress_stream(&mut output, &mut input)
                    .map_err(|error| damaged(Coding::Zstd, &get_error_name(error)))?;
                let step = Step { consumed: input.pos(), produced: output.pos() };
                // Nothing wanted: a frame has ended. A call that did nothing tells nothing.
                if step != Step::default() {
                    self.is_unfinished = wanted != 0;
                }
                Ok(step)
            }
            Stream::Brotli(..) => self.step_brotli(input, output),
            Stream::Deflate(_) => self.step_deflate(input, output),
        }
    }

    fn step_brotli(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, DecompressError> {
        let Stream::Brotli(state, _) = &mut self.stream else {
            return Ok(Step::default());
        };
        if !self.is_unfinished {
            return expect_no_more(Coding::Brotli, input);
        }
        let (mut available_in, mut available_out) = (input.len(), output.len());
        let (mut consumed, mut produced, mut total) = (0, 0, 0);
        let result = BrotliDecompressStream(
            &mut available_in,
            &mut consumed,
            input,
            &mut available_out,
            &mut produced,
            output,
            &mut total,
            state,
        );
        match result {
            BrotliResult::ResultFailure => return Err(damaged(Coding::Brotli, &"it does not follow the format")),
            BrotliResult::ResultSuccess => self.is_unfinished = false,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        Ok(Step { consumed, produced })
    }

    fn step_deflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, DecompressError> {
        let (Stream::Deflate(stream), Some(first)) = (&mut self.stream, input.first()) else {
            return self.inflate_rest(output);
        };
        if !self.is_unfinished {
            return expect_no_more(Coding::Deflate, input);
        }
        // RFC 1950, 2.2: the low four bits are 8 for deflate, and the others at most 7; RFC 1951 starts with the
        // same only for a stored block with odd padding, which no compressor writes.
        let has_zlib_header = first & 0x0f == 8 && first >> 4 <= 7;
        let wrapper = if has_zlib_header { Wrapper::Zlib } else { Wrapper::Nothing };
        let inflater = match stream {
            Some(inflater) => inflater,
            None => stream.insert(Inflater::new(wrapper).map_err(|reason| damaged(Coding::Deflate, &reason))?),
        };
        let Inflated { consumed, produced, has_ended } = inflate(inflater, input, output)?;
        self.is_unfinished = !has_ended;
        Ok(Step { consumed, produced })
    }

    /// Writes what a full output held back.
    fn inflate_rest(&mut self, output: &mut [u8]) -> Result<Step, DecompressError> {
        match &mut self.stream {
            Stream::Deflate(Some(inflater)) if self.is_unfinished => {
                let Inflated { consumed, produced, has_ended } = inflate(inflater, &[], output)?;
                self.is_unfinished = !has_ended;
                Ok(Step { consumed, produced })
            }
            _ => Ok(Step::default()),
        }
    }

    /// Checks that the data is complete.
    ///
    /// # Errors
    /// When its end is missing.
    pub fn finish(&self) -> Result<(), DecompressError> {
        if self.is_unfinished { Err(DecompressError::Truncated(self.coding())) } else { Ok(()) }
    }
}

/// Some formats are one stream: nothing may follow.
fn expect_no_more(coding: Coding, input: &[u8]) -> Result<Step, DecompressError> {
    if input.is_empty() { Ok(Step::default()) } else { Err(damaged(coding, &"something else follows its end")) }
}

fn inflate(inflater: &mut Inflater, input: &[u8], output: &mut [u8]) -> Result<Inflated, DecompressError> {
    inflater.inflate(input, output, StopAt::StreamEnd).map_err(|reason| damaged(Coding::Deflate, &reason))
}

fn damaged(coding: Coding, reason: &dyn std::fmt::Display) -> DecompressError {
    DecompressError::Damaged { coding, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        // As the command line tool does: without, damage can only be found where it breaks the form.
        encoder.include_checksum(true).unwrap();
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn bare_deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// "some text" as one stored block (RFC 7932, 9.2), with a window of 2^16 bytes.
    fn brotli() -> Vec<u8> {
        [&b"\x0b\x04\x80"[..], b"some text", b"\x03"].concat()
    }

    fn decompress(coding: Coding, data: &[u8], in_step: usize, out_step: usize) -> Result<Vec<u8>, DecompressError> {
        let mut decompressor = Decompressor::new(coding)?;
        let (mut text, mut output) = (Vec::new(), vec![0; out_step]);
        for mut piece in data.chunks(in_step) {
            loop {
                let step = decompressor.step(piece, &mut output)?;
                text.extend_from_slice(&output[..step.produced]);
                piece = &piece[step.consumed..];
                if piece.is_empty() && step.produced < out_step {
                    break;
                }
            }
        }
        decompressor.finish()?;
        Ok(text)
    }

    #[test]
    fn members_and_frames_follow_each_other_however_they_are_cut() {
        let parts = [&b"first,"[..], b"", b"second"];
        for (coding, data) in [
            (Coding::Gzip, parts.map(gzip).concat()),
            (Coding::Gzip, [parts.map(gzip).concat(), vec![0; 7]].concat()),
            (Coding::Zstd, parts.map(zstd).concat()),
            (Coding::Identity, parts.concat()),
        ] {
            assert_eq!(Coding::sniff(&data), coding);
            for in_step in 1..=data.len() {
                for out_step in [1, 3, 64] {
                    let text = decompress(coding, &data, in_step, out_step).unwrap();
                    assert_eq!(text, b"first,second", "{coding:?} in pieces of {in_step}, out {out_step}");
                }
            }
        }
    }

    #[test]
    fn single_streams_are_read_however_they_are_cut_and_need_their_end() {
        let text = b"some text";
        for (coding, data) in
            [(Coding::Deflate, zlib(text)), (Coding::Deflate, bare_deflate(text)), (Coding::Brotli, brotli())]
        {
            for in_step in 1..=data.len() {
                for out_step in [1, 3, 64] {
                    let read = decompress(coding, &data, in_step, out_step);
                    assert_eq!(read.as_deref(), Ok(&text[..]), "{coding:?} in pieces of {in_step}, out {out_step}");
                }
            }
            for len in 0..data.len() {
                let read = decompress(coding, &data[..len], 5, 64);
                assert_eq!(read, Err(DecompressError::Truncated(coding)), "{coding:?}: {len} bytes");
            }
            let trailing = [&data[..], b"x"].concat();
            assert!(matches!(decompress(coding, &trailing, 4, 64), Err(DecompressError::Damaged { .. })), "{coding:?}");
        }
    }

    #[test]
    fn strangers_get_no_more_than_the_usual_window() {
        // RFC 8878, 3.1.1: magic number, descriptor without anything, window of 2^(10 + exponent); an empty last block.
        let frame = |window_log: u8| [&ZSTD_MAGIC[..], &[0, (window_log - 10) << 3], &[1, 0, 0]].concat();
        for (window_log, is_fine) in [(23, true), (24, false)] {
            let mut decompressor = Decompressor::untrusted(Coding::Zstd).unwrap();
            let step = decompressor.step(&frame(window_log), &mut [0; 8]);
            assert_eq!(step.is_ok(), is_fine, "2^{window_log}: {step:?}");
        }
        assert!(decompress(Coding::Zstd, &frame(27), 64, 64).is_ok());
    }

    #[test]
    fn a_missing_end_is_an_error_at_every_byte() {
        for (coding, data) in [(Coding::Gzip, gzip(b"text")), (Coding::Zstd, zstd(b"text"))] {
            for len in 0..data.len() {
                let result = decompress(coding, &data[..len], 5, 64);
                assert_eq!(result, Err(DecompressError::Truncated(coding)), "{len} of {} bytes", data.len());
            }
        }
    }

    #[test]
    fn damage_and_trailing_bytes_are_errors() {
        for (coding, data) in [(Coding::Gzip, gzip(b"some text")), (Coding::Zstd, zstd(b"some text"))] {
            let mut damaged = data.clone();
            damaged[data.len() / 2] ^= 0x55;
            assert!(decompress(coding, &damaged, 64, 64).is_err(), "{coding:?}");
            let trailing = [data, b"more".to_vec()].concat();
            assert!(decompress(coding, &trailing, 64, 64).is_err(), "{coding:?}");
        }
    }
}
