//! Gzip is what another decoder makes of it, also when other decompressors go on at the ends of its blocks.

#![no_main]

use std::io::{Read as _, Write as _};

use adtally::ingest::{Coding, DecompressError, Decompressor};
use adtally_fuzz::Cuts;
use flate2::bufread::GzDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use libfuzzer_sys::fuzz_target;

/// Small input can become very much text: further it is not looked at.
const MAX_TEXT_BYTES: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((choices, contents)) = bytes.split_first_chunk::<8>() else { return };
    let [kind, scale, level, every, _, _, seed @ ..] = *choices;
    let data = match kind % 3 {
        // A stream as it is, whose checksum is hardly right; the text before that is looked at.
        0 => [&b"\x1f\x8b\x08\0\0\0\0\0\0\xff"[..], contents].concat(),
        1 => contents.to_vec(),
        _ => contents
            .split_inclusive(|byte| *byte == b'\n')
            .take(50)
            .collect::<Vec<_>>()
            .chunks(9)
            .flat_map(|parts| member(parts, level))
            .collect(),
    };
    let mut cuts = Cuts::new(scale, seed);
    let (text, end) = decompress(&data, &mut cuts, usize::from(every % 4));
    let mut expected = Vec::new();
    let expected_end = gzip_members(&data, &mut expected);
    let length = text.len().min(expected.len());
    assert!(text[..length] == expected[..length], "the text is another one");
    if text.len() < MAX_TEXT_BYTES {
        assert_eq!(end.is_ok(), expected_end, "{end:?}");
        assert!(end.is_err() || text == expected, "the text is cut");
    }
});

/// A member whose blocks end behind each part.
fn member(parts: &[&[u8]], level: u8) -> Vec<u8> {
    let mut crc = Crc::new();
    let mut encoder =
        DeflateEncoder::new(b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec(), Compression::new((level % 10).into()));
    for part in parts {
        encoder.write_all(part).unwrap();
        encoder.flush().unwrap();
        crc.update(part);
    }
    let mut data = encoder.finish().unwrap();
    data.extend(crc.sum().to_le_bytes());
    data.extend(crc.amount().to_le_bytes());
    data
}

/// Decompresses data that comes in pieces into buffers of all sizes; at one of every few places another decompressor goes on.
fn decompress(data: &[u8], cuts: &mut Cuts, every: usize) -> (Vec<u8>, Result<(), DecompressError>) {
    let mut text = Vec::new();
    let end = decompress_into(&mut text, data, cuts, every);
    (text, end)
}

fn decompress_into(text: &mut Vec<u8>, data: &[u8], cuts: &mut Cuts, every: usize) -> Result<(), DecompressError> {
    let mut decompressor = Decompressor::untrusted(Coding::Gzip)?;
    let mut rest = data;
    let mut places = 0;
    while text.len() < MAX_TEXT_BYTES {
        let (mut piece, behind) = rest.split_at(rest.len().min(cuts.length()));
        rest = behind;
        let is_last = piece.is_empty();
        loop {
            let mut output = vec![0; cuts.length()];
            let step = decompressor.step_to_place(piece, &mut output)?;
            text.extend_from_slice(&output[..step.produced]);
            piece = &piece[step.consumed..];
            if let Some(place) = decompressor.place() {
                places += 1;
                if every > 0 && places % every == 0 {
                    decompressor = Decompressor::at(&place).expect("a place is one to go on from");
                    assert_eq!(decompressor.place(), Some(place));
                }
            }
            // All there is has been written when room is left.
            if (piece.is_empty() && step.produced < output.len()) || text.len() >= MAX_TEXT_BYTES {
                break;
            }
        }
        if is_last {
            return decompressor.finish();
        }
    }
    Ok(())
}

/// Members one behind the other, then padding. Gives whether they are whole and right.
fn gzip_members(data: &[u8], text: &mut Vec<u8>) -> bool {
    let mut rest = data;
    loop {
        let mut member = GzDecoder::new(rest);
        if member.by_ref().take(2 * MAX_TEXT_BYTES as u64).read_to_end(text).is_err() {
            return false;
        }
        if text.len() >= MAX_TEXT_BYTES {
            return true;
        }
        let behind = member.into_inner();
        rest = &behind[behind.iter().take_while(|byte| **byte == 0).count()..];
        if rest.is_empty() {
            return true;
        }
    }
}
