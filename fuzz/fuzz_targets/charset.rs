//! Text cut anywhere is decoded as the Encoding Standard decodes the whole of it; UTF-8 is left as it is.

#![no_main]

use std::convert::Infallible;

use adtally::ingest::TextDecoder;
use encoding_rs::{BIG5, EUC_JP, Encoding, GB18030, ISO_2022_JP, SHIFT_JIS, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use libfuzzer_sys::fuzz_target;

const ENCODINGS: [&Encoding; 9] =
    [UTF_8, UTF_16LE, UTF_16BE, WINDOWS_1252, SHIFT_JIS, ISO_2022_JP, GB18030, EUC_JP, BIG5];

fuzz_target!(|input: (u8, Vec<&[u8]>)| {
    let (choice, pieces) = input;
    let declared = ENCODINGS[usize::from(choice) % ENCODINGS.len()];
    let whole = pieces.concat();
    let mut text = Vec::new();
    let mut sink = |piece: &[u8]| {
        text.extend_from_slice(piece);
        Ok::<_, Infallible>(())
    };
    let mut decoder = TextDecoder::new(declared);
    for piece in pieces {
        let Ok(()) = decoder.push(piece, &mut sink);
    }
    let Ok(()) = decoder.finish(&mut sink);
    let (expected, encoding, _) = declared.decode(&whole);
    if encoding == UTF_8 {
        assert_eq!(text, whole.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&whole));
    } else {
        assert_eq!(text, expected.as_bytes());
    }
});
