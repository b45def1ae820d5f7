//! An upload that is saved and restored, wherever it was cut, ends as if nothing had happened.

use adtally::engine::{Fatal, RestoreError, TallyOptions};
use adtally::ingest::{
    Coding, ContentError, MAX_TAIL_BYTES, Pipeline, PipelineOptions, PipelineReader, SavedPipeline, Sha256Digest,
    encoding_for_label,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::codings::{bare_deflate, brotli, gzip_of_many_blocks, zlib};
use crate::harness::{HEADER, Outcome, gzip, lines, zstandard};
use crate::properties::{any_kernel, config};
use crate::texts::{Text, text};

type End = Result<(Outcome, Option<Sha256Digest>, Option<u64>), ContentError>;

fn restore(options: &PipelineOptions, pieces: &[Vec<u8>]) -> Result<Pipeline, RestoreError> {
    let mut reader = PipelineReader::new(options);
    for piece in pieces {
        reader.push(piece)?;
    }
    reader.finish()
}

fn options_for(text: &Text, label: &str) -> PipelineOptions {
    PipelineOptions {
        tally: text.options,
        encoding: encoding_for_label(label).unwrap(),
        with_digest: true,
        ..PipelineOptions::default()
    }
}

fn end_of(pipeline: Pipeline) -> End {
    let finished = pipeline.finish()?;
    Ok((Outcome::of(&finished.aggregate), finished.sha256, finished.crc64))
}

fn read_at_once(options: &PipelineOptions, bytes: &[u8]) -> End {
    let mut pipeline = Pipeline::new(options)?;
    pipeline.push(bytes)?;
    end_of(pipeline)
}

/// Goes on from a saved state with what follows it.
fn go_on(options: &PipelineOptions, saved: &SavedPipeline, bytes: &[u8]) -> End {
    let mut pipeline = restore(options, &saved.pieces).unwrap();
    assert_eq!(pipeline.bytes_received(), saved.offset);
    assert_eq!(pipeline.save().as_ref(), Some(saved), "a restored upload saves itself as the same bytes");
    pipeline.push(&bytes[usize::try_from(saved.offset).unwrap()..])?;
    end_of(pipeline)
}

/// Text as an encoding writes it, with a mark or without; the samples are ASCII and a little more.
fn encode(text: &[u8], label: &str, with_mark: bool) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let mark = if with_mark { "\u{feff}" } else { "" };
    let units = mark.encode_utf16().chain(text.encode_utf16());
    match label {
        "utf-16le" => units.flat_map(u16::to_le_bytes).collect(),
        "utf-16be" => units.flat_map(u16::to_be_bytes).collect(),
        _ => [mark.as_bytes(), text.as_bytes()].concat(),
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn plain_uploads_go_on_at_any_byte(
        text in text(0..40),
        place in any::<Index>(),
        label in prop::sample::select(vec!["utf-8", "windows-1252", "utf-16le", "utf-16be"]),
        with_mark in any::<bool>(),
        kernel in any_kernel(),
    ) {
        let bytes = encode(&text.bytes, label, with_mark);
        let options = options_for(&text, label);
        let place = place.index(bytes.len() + 1);
        let mut pipeline = Pipeline::new(&options).unwrap();
        if pipeline.push(&bytes[..place]).is_ok() && Coding::sniff(&bytes) == Coding::Identity {
            let saved = pipeline.save().expect("text of these encodings can be gone on with at any byte");
            prop_assert_eq!(saved.offset, place as u64);
            let other_kernel = PipelineOptions { tally: TallyOptions { kernel, ..text.options }, ..options.clone() };
            prop_assert_eq!(go_on(&other_kernel, &saved, &bytes), read_at_once(&options, &bytes));
        }
    }

    #[test]
    fn compressed_uploads_go_on_at_any_byte(
        text in text(1..40),
        cuts in prop::collection::vec(any::<Index>(), 1..5),
        place in any::<Index>(),
        coding in 0..CODINGS.len(),
    ) {
        let (coding, compress) = CODINGS[coding];
        let bytes = if matches!(coding, Coding::Gzip | Coding::Zstd) {
            text.cut(&cuts).into_iter().map(compress).collect::<Vec<_>>().concat()
        } else {
            compress(&text.bytes)
        };
        let options = PipelineOptions { coding: Some(coding), ..options_for(&text, "utf-8") };
        let place = place.index(bytes.len() + 1);
        let mut pipeline = Pipeline::new(&options).unwrap();
        if pipeline.push(&bytes[..place]).is_ok() {
            let saved = pipeline.save().expect("so little can be read again");
            prop_assert_eq!(saved.offset, place as u64);
            prop_assert_eq!(go_on(&options, &saved, &bytes), read_at_once(&options, &bytes));
        }
    }
}

type Compress = fn(&[u8]) -> Vec<u8>;

const CODINGS: [(Coding, Compress); 5] = [
    (Coding::Gzip, gzip),
    (Coding::Zstd, zstandard),
    (Coding::Brotli, brotli),
    (Coding::Deflate, zlib),
    (Coding::Deflate, bare_deflate),
];

/// A file of much that is new in every row.
fn varied(rows: u32) -> String {
    let row = |number: u32| {
        let random = u64::from(number).wrapping_add(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let random = (random ^ random >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        format!("\u{e9}{},2025-01-01,{},1,{}.5,1", random >> 45, random >> 20 & 0xfff, random & 0xfff)
    };
    format!("{HEADER}{}", lines(rows, row))
}

/// Reads an upload in parts; after each it is saved and another pipeline goes on.
#[track_caller]
fn read_in_parts(options: &PipelineOptions, bytes: &[u8], parts: usize, piece_bytes: usize) -> End {
    let mut pipeline = Pipeline::new(options)?;
    for part in bytes.chunks(bytes.len().div_ceil(parts)) {
        for piece in part.chunks(piece_bytes) {
            pipeline.push(piece)?;
        }
        let saved = pipeline.save().expect("it can be gone on with");
        assert_eq!(saved.offset, pipeline.bytes_received());
        pipeline = restore(options, &saved.pieces).unwrap();
        assert_eq!((pipeline.bytes_received(), pipeline.crc64()), (saved.offset, saved.crc64));
        assert_eq!(pipeline.save().as_ref(), Some(&saved));
    }
    end_of(pipeline)
}

#[test]
fn every_coding_and_encoding_goes_on_in_five_parts() {
    let text = varied(2000);
    let halves = text.as_bytes().split_at(text.len() / 2);
    let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let japanese = text.replace('\u{e9}', "\u{3042}");
    let (shift_jis, ..) = encoding_rs::SHIFT_JIS.encode(&japanese);
    let (iso_2022_jp, ..) = encoding_rs::ISO_2022_JP.encode(&japanese);
    let mut files = vec![
        ("utf-8", None, text.clone().into_bytes()),
        ("utf-16le", None, utf_16.clone()),
        ("shift_jis", None, shift_jis.to_vec()),
        ("iso-2022-jp", None, iso_2022_jp.to_vec()),
        ("shift_jis", Some(Coding::Gzip), gzip(&shift_jis)),
        ("utf-16le", Some(Coding::Zstd), zstandard(&utf_16)),
        ("utf-8", None, [gzip(halves.0), gzip(halves.1)].concat()),
        ("utf-8", None, [zstandard(halves.0), zstandard(halves.1)].concat()),
    ];
    files.extend(CODINGS.map(|(coding, compress)| ("utf-8", Some(coding), compress(text.as_bytes()))));
    for (label, coding, bytes) in files {
        let encoding = encoding_for_label(label).unwrap();
        let options = PipelineOptions { encoding, coding, with_digest: true, ..PipelineOptions::default() };
        let whole = read_at_once(&options, &bytes);
        assert!(whole.is_ok());
        for piece_bytes in [bytes.len(), 1000, 1] {
            assert_eq!(read_in_parts(&options, &bytes, 5, piece_bytes), whole, "{label}, {coding:?}, {piece_bytes}");
        }
        assert_eq!(read_in_parts(&options, &bytes, 300, bytes.len()), whole, "{label}, {coding:?}");
    }
}

#[test]
fn a_large_gzip_member_needs_little_to_be_read_again() {
    let text = varied(300_000);
    let options = PipelineOptions { with_digest: true, ..PipelineOptions::default() };
    let bytes = gzip_of_many_blocks(text.as_bytes());
    let whole = read_at_once(&options, &bytes);
    let mut pipeline = Pipeline::new(&options).unwrap();
    let mut longest = 0;
    for (number, piece) in bytes.chunks(50_001).enumerate() {
        pipeline.push(piece).unwrap();
        longest = longest.max(pipeline.tail_bytes());
        if number % 9 == 8 {
            let saved = pipeline.save().unwrap();
            pipeline = restore(&options, &saved.pieces).unwrap();
            assert_eq!(pipeline.bytes_received(), saved.offset);
        }
    }
    assert!(bytes.len() > 2_500_000 && longest < 256 * 1024, "{longest} of {}", bytes.len());
    assert_eq!(end_of(pipeline), whole);
}

#[test]
fn behind_more_than_can_be_read_again_the_next_place_is_taken() {
    let options = PipelineOptions { coding: Some(Coding::Zstd), ..PipelineOptions::default() };
    // A frame of stored blocks (RFC 8878, 3.1.1): a window of 1 MiB; of each block a header of three bytes.
    let text = [HEADER.as_bytes(), &b"c,2025-01-01,1,1,1,1\n".repeat(900_000)].concat();
    let mut frame = b"\x28\xb5\x2f\xfd\0\x50".to_vec();
    for block in text.chunks(100_000) {
        frame.extend_from_slice(&(u32::try_from(block.len()).unwrap() << 3).to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame.extend_from_slice(&[1, 0, 0]);
    assert!(frame.len() > MAX_TAIL_BYTES + 1_000_000);
    let bytes = [&frame[..], &frame].concat();
    let mut pipeline = Pipeline::new(&options).unwrap();
    pipeline.push(&frame[..MAX_TAIL_BYTES]).unwrap();
    let early = pipeline.take_latest().expect("that can be read again");
    assert_eq!((early.offset, early.tail_bytes), (MAX_TAIL_BYTES as u64, MAX_TAIL_BYTES as u64));
    pipeline.push(&frame[MAX_TAIL_BYTES..frame.len() - 1]).unwrap();
    assert_eq!((pipeline.take_latest(), pipeline.tail_bytes()), (None, 0));
    pipeline.save_when_possible();
    // Far into the next frame, which is as large.
    pipeline.push(&bytes[frame.len() - 1..2 * frame.len() - 1]).unwrap();
    let between = pipeline.take_latest().expect("it was asked for");
    assert_eq!((between.offset, between.tail_bytes), (frame.len() as u64, 0));
    assert_eq!(pipeline.take_latest(), None);
    let whole = read_at_once(&options, &bytes);
    assert_eq!(go_on(&options, &early, &bytes), whole);
    assert_eq!(go_on(&options, &between, &bytes), whole);
}

#[test]
fn a_changed_or_cut_state_is_refused() {
    let options = PipelineOptions { with_digest: true, ..PipelineOptions::default() };
    let text = format!("{HEADER}CMP001,2025-01-01,1000,10,1.5,1\nCMP0");
    for (bytes, piece_count) in [(text.clone().into(), 2), (gzip(text.as_bytes())[..40].to_vec(), 3)] {
        check_that_changes_are_refused(&options, &bytes, piece_count);
    }
}

fn check_that_changes_are_refused(options: &PipelineOptions, bytes: &[u8], piece_count: usize) {
    let mut pipeline = Pipeline::new(options).unwrap();
    pipeline.push(bytes).unwrap();
    let pieces = pipeline.save().unwrap().pieces;
    assert_eq!(pieces.len(), piece_count);
    let restored = |pieces: &[Vec<u8>]| restore(options, pieces).map(|_| ());
    assert_eq!(restored(&pieces), Ok(()));
    for number in 0..pieces.len() {
        for place in 0..pieces[number].len() {
            let mut damaged = pieces.clone();
            damaged[number][place] ^= 0x10;
            // Zstandard says some things in more than one way; the state is the same then.
            let is_the_same =
                restore(options, &damaged).is_ok_and(|pipeline| pipeline.save().unwrap().pieces == pieces);
            assert!(is_the_same || restored(&damaged).is_err(), "piece {number} is changed at {place}");
            damaged.clone_from(&pieces);
            damaged[number].truncate(place);
            assert!(restored(&damaged).is_err(), "piece {number} is cut at {place}");
        }
        let mut missing = pieces.clone();
        missing.remove(number);
        assert!(restored(&missing).is_err(), "piece {number} is missing");
    }
    assert!(restored(&[&pieces[..], &pieces[1..]].concat()).is_err(), "one is doubled");
    assert_eq!(restored(&[Vec::new()]), Err(RestoreError::OtherKind));
    assert_eq!(restored(&[]), Err(RestoreError::Inconsistent("there is no piece")));
    let tally = zstandard(&adtally::engine::Tally::new(options.tally).save());
    assert_eq!(restored(&[tally]), Err(RestoreError::OtherKind));
}

#[test]
fn limits_of_decompression_go_on_counting() {
    let text = [HEADER.as_bytes(), &b"C,d,1,1,1,1\n".repeat(1000)].concat();
    let member = gzip(&text);
    let options = PipelineOptions { max_text_bytes: text.len() as u64 + 10, ..PipelineOptions::default() };
    let mut pipeline = Pipeline::new(&options).unwrap();
    pipeline.push(&member).unwrap();
    let saved = pipeline.save().unwrap();
    let two = [member.clone(), member].concat();
    let refused = Err(ContentError::TextTooLarge { max_text_bytes: options.max_text_bytes });
    assert_eq!(go_on(&options, &saved, &two), refused);
}

#[test]
fn an_empty_upload_is_still_empty() {
    let options = PipelineOptions::default();
    let mut pipeline = Pipeline::new(&options).unwrap();
    pipeline.push(b"").unwrap();
    let saved = pipeline.save().unwrap();
    assert_eq!(go_on(&options, &saved, b""), Err(ContentError::Fatal(Fatal::EmptyInput)));
}
