//! Little data that much text comes out of, in every coding. It is made without the text.

use std::io::{Read, copy, repeat};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use crate::harness::HEADER;

/// Text that comes out of each bomb: more than what any ratio is allowed for (64 MiB).
const TEXT_BYTES: u64 = 80 << 20;

/// The text: the header line, without which it would be refused for that, and one byte without end.
const BYTE: u8 = b'x';

/// Every coding by the name that `Content-Encoding` has for it, with a bomb in it.
pub(crate) fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("gzip", gzip_bomb()),
        ("deflate", zlib_bomb()),
        ("deflate", bare_deflate_bomb()),
        ("zstd", zstandard_bomb()),
        ("br", brotli_bomb()),
    ]
}

fn text() -> impl Read {
    HEADER.as_bytes().chain(repeat(BYTE).take(TEXT_BYTES))
}

pub(crate) fn gzip_bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    copy(&mut text(), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn zlib_bomb() -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    copy(&mut text(), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn bare_deflate_bomb() -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
    copy(&mut text(), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// A Zstandard frame (RFC 8878, 3.1.1) of blocks that each say one byte and how often it comes: 4 bytes for 128 KiB.
pub(crate) fn zstandard_bomb() -> Vec<u8> {
    const BLOCK_BYTES: u32 = 128 << 10;
    const RLE_BLOCK: u32 = 1 << 1;
    const LAST_BLOCK: u32 = 1;
    // No checksum, no size; a window of 8 MiB, the largest that is taken from strangers.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (23 - 10) << 3];
    let header_length = u32::try_from(HEADER.len()).unwrap();
    frame.extend_from_slice(&(header_length << 3).to_le_bytes()[..3]);
    frame.extend_from_slice(HEADER.as_bytes());
    let blocks = TEXT_BYTES.div_ceil(u64::from(BLOCK_BYTES));
    for number in 1..=blocks {
        let header = BLOCK_BYTES << 3 | RLE_BLOCK | if number == blocks { LAST_BLOCK } else { 0 };
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(BYTE);
    }
    frame
}

/// Bits of a Brotli stream, the lowest first.
#[derive(Default)]
struct Bits {
    value: u128,
    count: u32,
}

impl Bits {
    fn put(mut self, value: u32, count: u32) -> Self {
        self.value |= u128::from(value) << self.count;
        self.count += count;
        self
    }

    /// Ends with an empty block of metadata, behind which the next one begins with a byte (RFC 7932, 9.2).
    fn into_block(self) -> Vec<u8> {
        self.put(0, 1).put(3, 2).put(0, 1).put(0, 2).into_bytes()
    }

    fn into_bytes(self) -> Vec<u8> {
        self.value.to_le_bytes()[..self.count.div_ceil(8) as usize].to_vec()
    }
}

/// A Brotli stream with the largest window, whose blocks are one command each: 14 bytes for 16 MiB.
pub(crate) fn brotli_bomb() -> Vec<u8> {
    const BLOCK_BYTES: u32 = 1 << 24;
    /// Many literals, and a copy that the end of the block leaves out; the least number of literals that it may say.
    const COMMAND: u32 = 504;
    const COMMAND_BASE: u32 = 22_594;
    let block = Bits::default()
        // Not the last one; its length in six times 4 bits; compressed.
        .put(0, 1)
        .put(2, 2)
        .put(BLOCK_BYTES - 1, 24)
        .put(0, 1)
        // One type of block for each of three things, plain distances, one context, one tree each.
        .put(0, 3)
        .put(0, 6)
        .put(0, 4)
        // Codes that have one symbol, and so no bits: the literal, the command, the distance.
        .put(1, 4)
        .put(u32::from(BYTE), 8)
        .put(1, 4)
        .put(COMMAND, 10)
        .put(1, 4)
        .put(0, 6)
        // The command: how many literals.
        .put(BLOCK_BYTES - COMMAND_BASE, 24)
        .into_block();
    let blocks = usize::try_from(TEXT_BYTES.div_ceil(u64::from(BLOCK_BYTES))).unwrap();
    let window = Bits::default().put(0xf, 4).into_block();
    // Not the last one; its length in four times 4 bits; as it is.
    let header_length = u32::try_from(HEADER.len()).unwrap();
    let header = Bits::default().put(0, 1).put(0, 2).put(header_length - 1, 16).put(1, 1).into_bytes();
    [window, header, HEADER.as_bytes().to_vec(), block.repeat(blocks), vec![3]].concat()
}
