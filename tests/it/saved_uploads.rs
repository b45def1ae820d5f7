//! An upload that is saved and restored, wherever it was cut, ends as if nothing had happened.

use adtally::engine::{Fatal, RestoreError, TallyOptions};
use adtally::ingest::{
    Coding, ContentError, Pipeline, PipelineOptions, PipelineReader, SavedPipeline, Sha256Digest, encoding_for_label,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::harness::{HEADER, Outcome, gzip, lines, zstandard};
use crate::properties::{any_kernel, config};
use crate::senders::csv;
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
            let other_kernel = PipelineOptions { tally: TallyOptions { kernel, ..text.options }, ..options };
            prop_assert_eq!(go_on(&other_kernel, &saved, &bytes), read_at_once(&options, &bytes));
        }
    }

    #[test]
    fn compressed_uploads_go_on_where_a_member_or_frame_ends(
        text in text(1..40),
        cuts in prop::collection::vec(any::<Index>(), 1..5),
        asked_at in any::<Index>(),
        is_zstd in any::<bool>(),
    ) {
        let compress = if is_zstd { zstandard } else { gzip };
        let members: Vec<Vec<u8>> = text.cut(&cuts).into_iter().map(compress).collect();
        let ends: Vec<u64> = members.iter().scan(0, |end, member| { *end += member.len() as u64; Some(*end) }).collect();
        let bytes = members.concat();
        let options = options_for(&text, "utf-8");
        let whole = read_at_once(&options, &bytes);
        let mut pipeline = Pipeline::new(&options).unwrap();
        // Up to the last byte but one: the end of the last member is never reached.
        let cut = bytes.len() - 1;
        let asked_at = asked_at.index(cut);
        if pipeline.push(&bytes[..asked_at]).is_ok() {
            pipeline.save_when_possible();
            if pipeline.push(&bytes[asked_at..cut]).is_ok() {
                let next_end = ends.iter().find(|end| **end > asked_at as u64 && **end <= cut as u64).copied();
                let saved = pipeline.take_latest();
                let offset = saved.as_ref().map(|saved| saved.offset);
                // Asked right behind a member, the state is the one there.
                let is_there = offset == Some(asked_at as u64) && ends.contains(&(asked_at as u64));
                prop_assert!(offset == next_end || is_there, "{offset:?} {ends:?}");
                if let Some(saved) = saved {
                    prop_assert_eq!(go_on(&options, &saved, &bytes), whole);
                }
            }
        }
    }
}

#[test]
fn no_state_follows_a_later_one() {
    let options = PipelineOptions::default();
    let members = [csv(10), csv(20), csv(30)].map(|text| gzip(&text));
    let mut pipeline = Pipeline::new(&options).unwrap();
    let (start, rest) = members[0].split_at(30);
    pipeline.push(start).unwrap();
    assert_eq!(pipeline.take_latest(), None, "within a member");
    pipeline.save_when_possible();
    // The state at the end of the first member is there, and the one at the end of the second is later.
    pipeline.push(&[rest, &members[1]].concat()).unwrap();
    let latest = pipeline.take_latest().unwrap();
    assert_eq!(latest.offset, (members[0].len() + members[1].len()) as u64);
    pipeline.push(&members[2][..30]).unwrap();
    assert_eq!(pipeline.take_latest(), None);
}

#[test]
fn there_is_no_going_on_within_compressed_data_or_multi_byte_charsets() {
    let rows = format!("{HEADER}{}", lines(9, |number| format!("CMP{number},2025-01-01,1000,10,1.5,1\n")));
    for (bytes, label) in
        [(gzip(rows.as_bytes()), "utf-8"), (zstandard(rows.as_bytes()), "utf-8"), (rows.into(), "gbk")]
    {
        let options = PipelineOptions { encoding: encoding_for_label(label).unwrap(), ..PipelineOptions::default() };
        let mut pipeline = Pipeline::new(&options).unwrap();
        pipeline.push(&bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(pipeline.save(), None, "{label}");
    }
}

#[test]
fn a_changed_or_cut_state_is_refused() {
    let options = PipelineOptions { with_digest: true, ..PipelineOptions::default() };
    let mut pipeline = Pipeline::new(&options).unwrap();
    pipeline.push(HEADER.as_bytes()).unwrap();
    pipeline.push(b"CMP001,2025-01-01,1000,10,1.5,1\nCMP0").unwrap();
    let pieces = pipeline.save().unwrap().pieces;
    assert_eq!(pieces.len(), 2);
    let restored = |pieces: &[Vec<u8>]| restore(&options, pieces).map(|_| ());
    assert_eq!(restored(&pieces), Ok(()));
    for number in 0..pieces.len() {
        for place in 0..pieces[number].len() {
            let mut damaged = pieces.clone();
            damaged[number][place] ^= 0x10;
            // Zstandard says some things in more than one way; the state is the same then.
            let is_the_same =
                restore(&options, &damaged).is_ok_and(|pipeline| pipeline.save().unwrap().pieces == pieces);
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
