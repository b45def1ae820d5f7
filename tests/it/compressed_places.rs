//! Decompressors that go on at each other's places give the same text.

use adtally::ingest::{Coding, DecompressError, Decompressor};
use flate2::{Compress, Compression, Crc, FlushCompress};
use proptest::prelude::*;

use crate::harness::zstandard;
use crate::properties::config;
use crate::texts::{cuts, text};

/// A text as one member of gzip, with block ends of many kinds.
fn gzip_member(parts: &[&[u8]], level: u32, flushes: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::new(level), false);
    let mut data = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    let mut crc = Crc::new();
    for (part, flush) in parts.iter().zip(flushes.iter().cycle()) {
        let flushes = [FlushCompress::None, FlushCompress::Partial, FlushCompress::Sync, FlushCompress::Full];
        data.reserve(2 * part.len() + 1000);
        let taken = compress.total_in();
        compress.compress_vec(part, &mut data, flushes[usize::from(*flush) % 4]).unwrap();
        assert_eq!(compress.total_in() - taken, part.len() as u64);
        crc.update(part);
    }
    data.reserve(100_000);
    compress.compress_vec(&[], &mut data, FlushCompress::Finish).unwrap();
    data.extend(crc.sum().to_le_bytes());
    data.extend(crc.amount().to_le_bytes());
    data
}

/// Decompresses data in pieces; at one of every few places another decompressor goes on.
fn read_on(coding: Coding, data: &[u8], lengths: &[usize], every: usize) -> Result<(Vec<u8>, usize), DecompressError> {
    let mut decompressor = Decompressor::untrusted(coding)?;
    let mut lengths = lengths.iter().copied().cycle();
    let mut next_length = || lengths.next().unwrap_or(1);
    let (mut text, mut rest) = (Vec::new(), data);
    let (mut places, mut moves) = (0, 0);
    loop {
        let (mut piece, behind) = rest.split_at(rest.len().min(next_length()));
        rest = behind;
        let is_last = piece.is_empty();
        loop {
            let mut output = vec![0; next_length()];
            let step = decompressor.step_to_place(piece, &mut output)?;
            text.extend_from_slice(&output[..step.produced]);
            piece = &piece[step.consumed..];
            if let Some(place) = decompressor.place() {
                places += 1;
                if places % every == 0 {
                    decompressor = Decompressor::at(&place).unwrap();
                    assert_eq!(decompressor.place(), Some(place));
                    moves += 1;
                }
            }
            if piece.is_empty() && step.produced < output.len() {
                break;
            }
        }
        if is_last {
            return decompressor.finish().map(|()| (text, moves));
        }
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn another_decompressor_goes_on_at_every_place(
        text in text(0..60),
        member_cuts in cuts(),
        block_cuts in cuts(),
        level in 0_u32..10,
        flushes in prop::collection::vec(any::<u8>(), 1..5),
        lengths in prop::collection::vec(prop_oneof![1_usize..5, 1_usize..300], 1..8),
        every in 1_usize..4,
        is_zstd in any::<bool>(),
    ) {
        let members = text.cut(&member_cuts);
        let data: Vec<u8> = members.iter().flat_map(|member| {
            if is_zstd {
                return zstandard(member);
            }
            let mut places: Vec<_> = block_cuts.iter().map(|cut| cut.index(member.len() + 1)).collect();
            places.extend([0, member.len()]);
            places.sort_unstable();
            let parts: Vec<_> = places.windows(2).map(|pair| &member[pair[0]..pair[1]]).collect();
            gzip_member(&parts, level, &flushes)
        }).collect();
        let coding = if is_zstd { Coding::Zstd } else { Coding::Gzip };
        let (read, moves) = read_on(coding, &data, &lengths, every).unwrap();
        prop_assert_eq!(&read, &text.bytes);
        prop_assert!(moves >= members.len() / every);
        // Damage is found all the same.
        for (place, bit) in [(data.len() / 2, 1), (data.len() - 2, 4)] {
            let mut damaged = data.clone();
            damaged[place] ^= bit;
            if !is_zstd && let Ok((read, _)) = read_on(coding, &damaged, &lengths, every) {
                prop_assert_eq!(&read, &text.bytes, "a field of a header may be another one");
            }
        }
    }
}
