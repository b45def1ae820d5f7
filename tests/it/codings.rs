//! Data as its senders compress and encode it.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// Data as one gzip member of many blocks, as the command makes it: the fastest level makes a single one.
pub(crate) fn gzip_of_many_blocks(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn bare_deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Data as a Brotli stream of stored blocks (RFC 7932, 9.2): nothing here compresses to it.
pub(crate) fn brotli(data: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    // A window of 2^22 bytes, in front of the first block; what is stored ends on a byte.
    let mut bits = 0x0b;
    let mut length = 4;
    for block in data.chunks(1 << 16) {
        // Not the last one, 16 bits for the length less one, stored.
        let header = u32::try_from(block.len() - 1).unwrap() << 3 | 1 << 19;
        bits |= header << length;
        stream.extend_from_slice(&bits.to_le_bytes()[..3]);
        stream.extend_from_slice(block);
        (bits, length) = (0, 0);
    }
    // The last one, which is empty.
    bits |= 3 << length;
    stream.push(bits.to_le_bytes()[0]);
    stream
}
