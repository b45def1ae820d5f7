//! Decompression in pieces of any size gives what other decoders make of the whole; damage is an error, never a panic.

#![no_main]

use std::io::{Read as _, Write as _};

use adtally::ingest::{Coding, DecompressError, Decompressor};
use adtally_fuzz::Cuts;
use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use libfuzzer_sys::fuzz_target;

/// Small input can become very much text: further it is not looked at.
const MAX_TEXT_BYTES: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((choices, contents)) = bytes.split_first_chunk::<8>() else { return };
    let [kind, scale, damage, place_low, place_high, level, seed @ ..] = *choices;
    let mut data = match kind % 4 {
        // As they are, behind a magic number or not.
        0 => contents.to_vec(),
        1 => [&[0x1f, 0x8b, 8], contents].concat(),
        _ => {
            let coding = if kind % 4 == 2 { Coding::Gzip } else { Coding::Zstd };
            let lines = contents.split_inclusive(|byte| *byte == b'\n');
            lines.take(20).flat_map(|part| compressed(coding, part, level)).collect()
        }
    };
    let place = usize::from(u16::from_le_bytes([place_low, place_high])) % (data.len() + 1);
    match damage % 8 {
        0 => data.truncate(place),
        1 => data.splice(place..place, [damage / 8]).for_each(drop),
        2 => data.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= damage | 1),
        3 => data.resize(data.len() + usize::from(damage / 8), 0),
        _ => {}
    }
    let mut cuts = Cuts::new(scale, seed);
    let coding = Coding::sniff(&data);
    match (decompress(coding, &data, &mut cuts), expected(coding, &data)) {
        (Ok(text), _) if text.len() >= MAX_TEXT_BYTES => {}
        (Ok(text), Some(expected)) => assert!(text == expected, "{text:?} is not {expected:?}"),
        (Ok(text), None) => panic!("{text:?} comes from damaged data"),
        (Err(error), None) => drop(error),
        // A stream may want no more memory than its decoder allows; for a whole buffer there is no such limit.
        (Err(DecompressError::Damaged { reason, .. }), Some(_)) if reason.contains("memory") => {}
        (Err(error), Some(expected)) => panic!("{error}, expected {expected:?}"),
    }
});

fn compressed(coding: Coding, part: &[u8], level: u8) -> Vec<u8> {
    if coding == Coding::Zstd {
        return zstd::encode_all(part, (level % 8).into()).unwrap();
    }
    let mut header = GzBuilder::new();
    if level & 0x10 > 0 {
        header = header.filename("ads.csv").comment("a file");
    }
    if level & 0x20 > 0 {
        header = header.extra(vec![7; part.len() % 300]);
    }
    let mut encoder = header.write(Vec::new(), Compression::new((level % 10).into()));
    encoder.write_all(part).unwrap();
    encoder.finish().unwrap()
}

/// Decompresses data that comes in pieces into buffers of all sizes.
fn decompress(coding: Coding, data: &[u8], cuts: &mut Cuts) -> Result<Vec<u8>, DecompressError> {
    let mut decompressor = Decompressor::new(coding)?;
    let mut text = Vec::new();
    let mut rest = data;
    while text.len() < MAX_TEXT_BYTES {
        let (mut piece, behind) = rest.split_at(rest.len().min(cuts.length()));
        rest = behind;
        let is_last = piece.is_empty();
        loop {
            let mut output = vec![0; cuts.length()];
            let step = decompressor.step(piece, &mut output)?;
            text.extend_from_slice(&output[..step.produced]);
            assert!(step.consumed + step.produced > 0 || piece.is_empty(), "no progress");
            piece = &piece[step.consumed..];
            // All there is has been written when room is left.
            if (piece.is_empty() && step.produced < output.len()) || text.len() >= MAX_TEXT_BYTES {
                break;
            }
        }
        if is_last {
            decompressor.finish()?;
            break;
        }
    }
    Ok(text)
}

/// What the data means; `None` when it is damaged or cut off.
fn expected(coding: Coding, data: &[u8]) -> Option<Vec<u8>> {
    match coding {
        Coding::Identity => Some(data.to_vec()),
        Coding::Gzip => gzip_members(data),
        Coding::Zstd => zstd::bulk::decompress(data, 2 * MAX_TEXT_BYTES).ok(),
        Coding::Brotli | Coding::Deflate => unreachable!("their beginning does not tell"),
    }
}

/// Members one behind the other, then padding.
fn gzip_members(data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let mut member = GzDecoder::new(rest);
        // Further it is of no interest, as above.
        member.by_ref().take(2 * MAX_TEXT_BYTES as u64).read_to_end(&mut text).ok()?;
        if text.len() >= MAX_TEXT_BYTES {
            break;
        }
        let behind = member.into_inner();
        rest = &behind[behind.iter().take_while(|byte| **byte == 0).count()..];
    }
    Some(text)
}
