//! The gzip format (RFC 1952): members one behind the other, each a header, a deflate stream, and a trailer that checks its text.

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use super::inflate::{BlockEnd, Inflated, Inflater, Wrapper};
use super::step::{Step, StopAt};
use crate::engine::RestoreError;

/// The first bytes of every member.
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The only method of compression that there is.
const METHOD_DEFLATE: u8 = 8;

/// Flags of a header.
const HAS_CHECKSUM: u8 = 2;
const HAS_EXTRA: u8 = 4;
const HAS_NAME: u8 = 8;
const HAS_COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// Magic number, method, flags, time, extra flags, operating system.
const FIXED_HEADER_BYTES: u8 = 10;
/// Checksum and length.
const TRAILER_BYTES: usize = 8;

/// The end of a block within a member: all that is needed to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlaceInMember {
    block_end: BlockEnd,
    /// Of the member's text so far.
    text_bytes: u64,
    crc32: u32,
}

/// Reads members, given in pieces of any size.
pub(super) struct Gzip {
    stage: Stage,
    inflater: Inflater,
    text_bytes: u64,
    crc32: Hasher,
}

enum Stage {
    Header(Header),
    Body,
    Trailer {
        bytes: [u8; TRAILER_BYTES],
        seen: usize,
    },
    /// Behind a member there may be another, or padding with zeros.
    Behind,
}

impl Gzip {
    /// Before the first member.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub(super) fn new() -> Result<Self, &'static str> {
        let inflater = Inflater::new(Wrapper::Nothing)?;
        Ok(Self { stage: Stage::Header(Header::new(true)), inflater, text_bytes: 0, crc32: Hasher::new() })
    }

    /// Behind a member.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub(super) fn behind_member() -> Result<Self, &'static str> {
        Ok(Self { stage: Stage::Behind, ..Self::new()? })
    }

    /// Within a member.
    ///
    /// # Errors
    /// When there is no such place, or the memory cannot be had.
    pub(super) fn within_member(place: &PlaceInMember) -> Result<Self, RestoreError> {
        let PlaceInMember { block_end, text_bytes, crc32 } = place;
        Ok(Self {
            stage: Stage::Body,
            inflater: Inflater::behind(block_end)?,
            text_bytes: *text_bytes,
            crc32: Hasher::new_with_initial_len(*crc32, *text_bytes),
        })
    }

    /// True where a member has ended and nothing of the next one has been seen.
    pub(super) fn is_behind_member(&self) -> bool {
        matches!(self.stage, Stage::Behind)
    }

    /// The place, when the last step has [stopped](StopAt::BlockEnd) at the end of a block.
    pub(super) fn place_in_member(&self) -> Option<PlaceInMember> {
        let Stage::Body = self.stage else {
            return None;
        };
        let block_end = self.inflater.block_end()?;
        Some(PlaceInMember { block_end, text_bytes: self.text_bytes, crc32: self.crc32.clone().finalize() })
    }

    /// Takes from the input and writes to the output as much as goes, up to `stop_at`; it always stops at the end of a member.
    ///
    /// # Errors
    /// When the data is damaged.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8], stop_at: StopAt) -> Result<Step, &'static str> {
        let mut step = Step::default();
        if self.is_behind_member() {
            step.consumed = input.iter().take_while(|byte| **byte == 0).count();
            if step.consumed == input.len() {
                return Ok(step);
            }
            self.stage = Stage::Header(Header::new(false));
        }
        if let Stage::Header(header) = &mut self.stage {
            step.consumed += header.read(&input[step.consumed..])?;
            if header.field != Field::End {
                return Ok(step);
            }
            self.inflater.reset();
            (self.text_bytes, self.crc32) = (0, Hasher::new());
            self.stage = Stage::Body;
        }
        if let Stage::Body = self.stage {
            let Inflated { consumed, produced, has_ended } =
                self.inflater.inflate(&input[step.consumed..], output, stop_at)?;
            self.text_bytes = self.text_bytes.wrapping_add(produced as u64);
            self.crc32.update(&output[..produced]);
            step = Step { consumed: step.consumed + consumed, produced };
            if !has_ended {
                return Ok(step);
            }
            self.stage = Stage::Trailer { bytes: [0; TRAILER_BYTES], seen: 0 };
        }
        if let Stage::Trailer { bytes, seen } = &mut self.stage {
            let rest = &input[step.consumed..];
            let count = rest.len().min(TRAILER_BYTES - *seen);
            bytes[*seen..*seen + count].copy_from_slice(&rest[..count]);
            *seen += count;
            step.consumed += count;
            if *seen == TRAILER_BYTES {
                let bytes = *bytes;
                self.check_text(bytes)?;
                self.stage = Stage::Behind;
            }
        }
        Ok(step)
    }

    fn check_text(&self, trailer: [u8; TRAILER_BYTES]) -> Result<(), &'static str> {
        let expected = u64::from_le_bytes(trailer);
        let low = u64::from(u32::MAX);
        if u64::from(self.crc32.clone().finalize()) != expected & low {
            Err("its checksum is another one")
        } else if self.text_bytes & low != expected >> 32 {
            Err("its length is another one")
        } else {
            Ok(())
        }
    }
}

/// What of a header has been read.
struct Header {
    is_first: bool,
    field: Field,
    flags: u8,
    /// Of all before the checksum.
    crc32: Hasher,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    /// The number of its bytes that have been read.
    Fixed(u8),
    /// The first byte, when it has been seen.
    ExtraLength(Option<u8>),
    /// The number of its bytes that are still to come.
    Extra(u16),
    Name,
    Comment,
    /// The first byte, when it has been seen.
    Checksum(Option<u8>),
    End,
}

impl Header {
    fn new(is_first: bool) -> Self {
        Self { is_first, field: Field::Fixed(0), flags: 0, crc32: Hasher::new() }
    }

    /// Takes from the input what belongs to the header, and gives how much that is.
    fn read(&mut self, input: &[u8]) -> Result<usize, &'static str> {
        let mut consumed = 0;
        while self.field != Field::End
            && let rest = &input[consumed..]
            && let Some(first) = rest.first()
        {
            let count = match self.field {
                Field::Extra(missing) => rest.len().min(missing.into()),
                Field::Name | Field::Comment => {
                    rest.iter().position(|byte| *byte == 0).map_or(rest.len(), |end| end + 1)
                }
                _ => 1,
            };
            if !matches!(self.field, Field::Checksum(_)) {
                self.crc32.update(&rest[..count]);
            }
            self.take(*first, &rest[..count])?;
            consumed += count;
        }
        Ok(consumed)
    }

    /// Takes bytes of the field, of which there is at least one.
    fn take(&mut self, first: u8, bytes: &[u8]) -> Result<(), &'static str> {
        let has_zero = bytes.last() == Some(&0);
        self.field = match self.field {
            Field::Fixed(index) => {
                self.check_fixed(index, first)?;
                if index + 1 < FIXED_HEADER_BYTES { Field::Fixed(index + 1) } else { self.field_from(HAS_EXTRA) }
            }
            Field::ExtraLength(None) => Field::ExtraLength(Some(first)),
            Field::ExtraLength(Some(low)) => match u16::from_le_bytes([low, first]) {
                0 => self.field_from(HAS_NAME),
                missing => Field::Extra(missing),
            },
            Field::Extra(missing) => {
                match u16::try_from(bytes.len()).map_or(0, |count| missing.saturating_sub(count)) {
                    0 => self.field_from(HAS_NAME),
                    missing => Field::Extra(missing),
                }
            }
            Field::Name if has_zero => self.field_from(HAS_COMMENT),
            Field::Comment if has_zero => self.field_from(HAS_CHECKSUM),
            Field::Checksum(None) => Field::Checksum(Some(first)),
            Field::Checksum(Some(low)) => {
                let [expected_low, expected_high, ..] = self.crc32.clone().finalize().to_le_bytes();
                if [low, first] != [expected_low, expected_high] {
                    return Err("the checksum of a header is another one");
                }
                Field::End
            }
            field @ (Field::Name | Field::Comment | Field::End) => field,
        };
        Ok(())
    }

    fn check_fixed(&mut self, index: u8, byte: u8) -> Result<(), &'static str> {
        match index {
            0 | 1 if byte != MAGIC[usize::from(index)] => Err(if self.is_first {
                "it does not start as gzip does"
            } else {
                "something else follows its last member"
            }),
            2 if byte != METHOD_DEFLATE => Err("its method of compression is unknown"),
            3 if byte & RESERVED != 0 => Err("a header has unknown flags"),
            3 => {
                self.flags = byte;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The next field of those that may be missing, from this one on.
    fn field_from(&self, first: u8) -> Field {
        let fields = [
            (HAS_EXTRA, Field::ExtraLength(None)),
            (HAS_NAME, Field::Name),
            (HAS_COMMENT, Field::Comment),
            (HAS_CHECKSUM, Field::Checksum(None)),
        ];
        let from = fields.into_iter().skip_while(|(flag, _)| *flag != first);
        from.into_iter().find(|(flag, _)| self.flags & flag != 0).map_or(Field::End, |(_, field)| field)
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// A text with few repetitions.
    fn text() -> Vec<u8> {
        (0_u32..400)
            .flat_map(|number| format!("CMP{},{}\n", number.wrapping_mul(2_654_435_761), number % 7).into_bytes())
            .collect()
    }

    /// A deflate stream of many blocks, which end at all bits of a byte.
    fn deflate(text: &[u8], level: u32) -> Vec<u8> {
        let mut compress = Compress::new(Compression::new(level), false);
        let mut data = Vec::with_capacity(2 * text.len() + 4096);
        let flushes = [FlushCompress::Partial, FlushCompress::None, FlushCompress::Sync, FlushCompress::Partial];
        for (part, flush) in text.chunks(211).zip(flushes.into_iter().cycle()) {
            compress.compress_vec(part, &mut data, flush).unwrap();
        }
        compress.compress_vec(&[], &mut data, FlushCompress::Finish).unwrap();
        assert_eq!(compress.total_in(), text.len() as u64);
        data
    }

    fn trailer(text: &[u8]) -> [u8; TRAILER_BYTES] {
        let length = u64::try_from(text.len()).unwrap();
        (u64::from(crc32fast::hash(text)) | length << 32).to_le_bytes()
    }

    /// A header with these flags and all that they announce.
    fn header(flags: u8) -> Vec<u8> {
        let mut header = [&MAGIC[..], &[METHOD_DEFLATE, flags, 1, 2, 3, 4, 0, 255]].concat();
        for (flag, field) in [(HAS_EXTRA, &b"\x03\0abc"[..]), (HAS_NAME, b"ads.csv\0"), (HAS_COMMENT, b"\xe9 file\0")] {
            if flags & flag != 0 {
                header.extend_from_slice(field);
            }
        }
        if flags & HAS_CHECKSUM != 0 {
            let checksum = crc32fast::hash(&header).to_le_bytes();
            header.extend_from_slice(&checksum[..2]);
        }
        header
    }

    fn member(flags: u8, text: &[u8], level: u32) -> Vec<u8> {
        [header(flags), deflate(text, level), trailer(text).to_vec()].concat()
    }

    /// What has been taken and written where a step has stopped at the end of a block.
    type Places = Vec<(usize, usize, PlaceInMember)>;

    fn read(
        gzip: &mut Gzip,
        data: &[u8],
        (in_step, out_step): (usize, usize),
        stop_at: StopAt,
    ) -> Result<(Vec<u8>, Places), &'static str> {
        let (mut text, mut output, mut places) = (Vec::new(), vec![0; out_step], Vec::new());
        let mut taken = 0;
        for mut piece in data.chunks(in_step) {
            loop {
                let step = gzip.step(piece, &mut output, stop_at)?;
                text.extend_from_slice(&output[..step.produced]);
                piece = &piece[step.consumed..];
                taken += step.consumed;
                if let Some(place) = gzip.place_in_member() {
                    places.push((taken, text.len(), place));
                }
                if piece.is_empty() && step.produced < out_step {
                    break;
                }
            }
        }
        if gzip.is_behind_member() { Ok((text, places)) } else { Err("cut off") }
    }

    fn read_whole(data: &[u8]) -> Result<Vec<u8>, &'static str> {
        read(&mut Gzip::new()?, data, (data.len().max(1), 1000), StopAt::StreamEnd).map(|(text, _)| text)
    }

    #[test]
    fn headers_have_all_fields_or_none_however_they_are_cut() {
        for flags in 0..0x20 {
            let data = [member(flags, b"some text", 6), member(!flags & 0x1f, b", more", 1), vec![0; 3]].concat();
            for in_step in 1..=data.len() {
                for out_step in [1, 3, 64] {
                    for stop_at in [StopAt::StreamEnd, StopAt::BlockEnd] {
                        let (text, _) = read(&mut Gzip::new().unwrap(), &data, (in_step, out_step), stop_at).unwrap();
                        assert_eq!(text, b"some text, more", "flags {flags:#x} in pieces of {in_step}, out {out_step}");
                    }
                }
            }
        }
        let long = [
            &[31, 139, 8, HAS_EXTRA, 0, 0, 0, 0, 0, 0, 255, 255][..],
            &vec![7; 65535],
            &deflate(b"a", 6),
            &trailer(b"a"),
        ];
        assert_eq!(read_whole(&long.concat()).unwrap(), b"a");
    }

    #[test]
    fn what_is_wrong_in_headers_and_trailers_is_found() {
        let whole = member(HAS_CHECKSUM, b"some text", 6);
        assert!(read_whole(&whole).is_ok());
        let header_bytes = usize::from(FIXED_HEADER_BYTES) + 2;
        for place in (0..header_bytes).chain(whole.len() - TRAILER_BYTES..whole.len()) {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[place] ^= 1 << bit;
                assert!(read_whole(&damaged).is_err(), "bit {bit} of byte {place} is another one");
            }
        }
        for flag in [0x20, 0x40, 0x80] {
            assert_eq!(read_whole(&member(flag, b"", 6)), Err("a header has unknown flags"));
        }
        for len in 0..whole.len() {
            assert_eq!(read_whole(&whole[..len]), Err("cut off"), "{len} bytes");
        }
        for behind in [&b"x"[..], b"\0\x1f\x8c", b"\x1fx"] {
            let data = [&whole, behind].concat();
            assert_eq!(read_whole(&data), Err("something else follows its last member"), "{behind:?}");
        }
    }

    #[test]
    fn every_block_end_is_a_place_to_go_on_from() {
        let text = text();
        for level in 0..=9 {
            let data = [member(0, &text, level), member(0, b"more", level)].concat();
            let whole = [&text[..], b"more"].concat();
            let mut counts = Vec::new();
            for steps in [(data.len(), 1 << 16), (1, 1), (7, 64), (100, 33)] {
                let (read_text, places) = read(&mut Gzip::new().unwrap(), &data, steps, StopAt::BlockEnd).unwrap();
                assert_eq!(read_text, whole);
                counts.push(places.iter().map(|(taken, ..)| taken).collect::<std::collections::BTreeSet<_>>().len());
                for (taken, text_bytes, place) in places.iter().step_by(if steps.0 == 1 { 7 } else { 1 }) {
                    let mut gzip = Gzip::within_member(place).unwrap();
                    assert_eq!(gzip.place_in_member().as_ref(), Some(place), "it is the same place");
                    let (rest, _) = read(&mut gzip, &data[*taken..], (data.len(), 999), StopAt::StreamEnd).unwrap();
                    assert!(rest == whole[*text_bytes..], "level {level}, {steps:?}, from byte {taken}");
                }
            }
            assert!(counts[0] > 20 && counts.iter().all(|count| *count == counts[0]), "level {level}: {counts:?}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_is_refused_or_does_no_harm() {
        let text = text();
        let data = member(0, &text, 6);
        let (_, places) = read(&mut Gzip::new().unwrap(), &data, (data.len(), 1 << 16), StopAt::BlockEnd).unwrap();
        for (taken, text_bytes, place) in places {
            // The bytes of a saved place: bits, their value, the length of the window, and so on.
            let saved = postcard::to_allocvec(&place).unwrap();
            for index in 0..saved.len().min(12) {
                for change in 1..=255 {
                    let mut saved = saved.clone();
                    saved[index] ^= change;
                    let Ok(other) = postcard::from_bytes::<PlaceInMember>(&saved) else { continue };
                    let Ok(mut gzip) = Gzip::within_member(&other) else { continue };
                    // The checksum tells that the text is another one, if nothing else does.
                    let rest = read(&mut gzip, &data[taken..], (data.len(), 999), StopAt::BlockEnd);
                    let is_wrong = rest.is_ok_and(|(rest, _)| rest != text[text_bytes..]);
                    assert!(!is_wrong, "byte {index} is changed by {change}");
                }
            }
        }
    }

    #[test]
    fn windows_and_bits_have_their_limits() {
        let place = |unused_bits: u8, bits: u8, window_bytes: usize| {
            let block_end = (unused_bits, bits, vec![b'a'; window_bytes]);
            postcard::from_bytes::<PlaceInMember>(&postcard::to_allocvec(&(block_end, 7_u64, 7_u32)).unwrap()).unwrap()
        };
        for (unused_bits, bits, window_bytes, is_fine) in [
            (0, 0, 0, true),
            (7, 127, 32768, true),
            (0, 1, 0, false),
            (3, 8, 0, false),
            (7, 128, 0, false),
            (8, 0, 0, false),
            (255, 0, 0, false),
            (0, 0, 32769, false),
        ] {
            let restored = Gzip::within_member(&place(unused_bits, bits, window_bytes));
            assert_eq!(restored.is_ok(), is_fine, "{unused_bits} bits of value {bits}, window {window_bytes}");
        }
    }
}
