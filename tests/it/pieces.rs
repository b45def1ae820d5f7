//! An aggregate that is saved in pieces and restored is the same; pieces that do not belong together are refused.

use adtally::engine::report::rejects_table;
use adtally::engine::{Aggregate, AggregateReader, Fatal, Limits, RestoreError, Tally, TallyOptions};
use flate2::Crc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::harness::{HEADER, Outcome, lines, tally};
use crate::properties::config;
use crate::texts::{Text, text};

/// Larger than a head or any item of the texts here.
const SMALL_PIECE_BYTES: usize = 1000;

/// Bytes before the content: the name of the kind and the version.
const START_BYTES: usize = 10;
const CHECKSUM_BYTES: usize = 4;

fn restore(pieces: &[Vec<u8>]) -> Result<Aggregate, RestoreError> {
    let mut reader = AggregateReader::new(Limits::default().max_campaigns);
    pieces.iter().try_for_each(|piece| reader.push(piece))?;
    reader.finish()
}

fn save(aggregate: &Aggregate, max_piece_bytes: usize) -> Vec<Vec<u8>> {
    aggregate.save_pieces(max_piece_bytes).collect()
}

/// What can be seen of an aggregate, with the files of its rejects.
fn seen(aggregate: &Aggregate) -> (Outcome, String) {
    (Outcome::of(aggregate), rejects_table(aggregate.rejects(), true))
}

/// Several files together, each reject with the name of its file.
fn merged(texts: &[(Text, String)]) -> Aggregate {
    let mut all = Aggregate::new(Limits::default().max_campaigns);
    for (text, name) in texts {
        if let Ok(mut aggregate) = tally(text.options, [&text.bytes[..]]) {
            aggregate.name_file(name);
            all.merge(aggregate).unwrap();
        }
    }
    all
}

fn files() -> impl Strategy<Value = Vec<(Text, String)>> {
    vec((text(0..40), "\\PC{0,20}"), 0..4)
}

fn sum_of(mut left: Aggregate, right: Aggregate) -> Result<(Outcome, String), Fatal> {
    left.merge(right).map(|()| seen(&left))
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_restored_aggregate_is_the_same(
        files in files(),
        others in files(),
        max_piece_bytes in prop_oneof![0..400_usize, SMALL_PIECE_BYTES..5000, Just(1 << 20)],
    ) {
        let (aggregate, other) = (merged(&files), merged(&others));
        let pieces = save(&aggregate, max_piece_bytes);
        if max_piece_bytes >= SMALL_PIECE_BYTES {
            prop_assert!(pieces.iter().all(|piece| piece.len() <= max_piece_bytes));
        }
        let restored = restore(&pieces).unwrap();
        prop_assert_eq!(seen(&restored), seen(&aggregate));
        prop_assert_eq!(save(&restored, max_piece_bytes), pieces, "a restored aggregate saves itself as the same bytes");
        prop_assert_eq!(sum_of(restored.clone(), other.clone()), sum_of(aggregate.clone(), other.clone()));
        prop_assert_eq!(sum_of(other.clone(), restored), sum_of(other, aggregate));
    }

    /// Bytes with a matching checksum may be anything, and are no panic.
    #[test]
    fn forged_pieces_are_no_panic(
        changes in vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Option<(Index, Index)>>(),
    ) {
        let mut pieces = save(&example(), 300);
        let count = pieces.len();
        if let Some((piece, place)) = cut {
            let piece = &mut pieces[piece.index(count)];
            piece.truncate(START_BYTES + CHECKSUM_BYTES + place.index(piece.len() - START_BYTES - CHECKSUM_BYTES));
        }
        for (piece, place, byte) in changes {
            let piece = &mut pieces[piece.index(count)];
            let content = piece.len() - CHECKSUM_BYTES;
            if content > START_BYTES {
                piece[START_BYTES + place.index(content - START_BYTES)] = byte;
            }
        }
        sealed_again(&mut pieces);
        if let Ok(restored) = restore(&pieces) {
            prop_assert!(restore(&save(&restored, 300)).is_ok(), "what is restored can be saved");
            let _ = seen(&restored);
        }
    }
}

/// Changes to pieces, with checksums that fit again, also where the next piece repeats them.
fn sealed_again(pieces: &mut [Vec<u8>]) {
    let mut previous = [0; CHECKSUM_BYTES];
    for piece in pieces {
        let content = piece.len() - CHECKSUM_BYTES;
        // The number of each of these pieces is one byte.
        if content >= START_BYTES + 1 + CHECKSUM_BYTES {
            piece[START_BYTES + 1..][..CHECKSUM_BYTES].copy_from_slice(&previous);
        }
        let mut checksum = Crc::new();
        checksum.update(&piece[..content]);
        previous = checksum.sum().to_le_bytes();
        piece[content..].copy_from_slice(&previous);
    }
}

/// Some campaigns, some rejects.
fn example() -> Aggregate {
    let rows = lines(40, |number| format!("CMP{number},2025-01-01,1000,{number},1.000000{number},1"));
    let rejects = lines(10, |number| format!("CMP{number},2025-01-01,1000,x,1.5,1"));
    let long = "a campaign with a long id,,9223372036854775807,1,1,1\n";
    let mut aggregate = tally(TallyOptions::default(), [HEADER, &rows, &rejects, long].map(str::as_bytes)).unwrap();
    aggregate.name_file("ad data.csv");
    aggregate
}

#[test]
fn pieces_that_do_not_belong_together_are_refused() {
    let pieces = save(&example(), 300);
    assert!(pieces.len() > 3, "{}", pieces.len());
    assert_eq!(restore(&pieces).map(|restored| seen(&restored)), Ok(seen(&example())));
    let mut other = example();
    other.merge(example()).unwrap();
    let others = save(&other, 300);
    for place in 0..pieces.len() {
        let with = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let mut changed = pieces.clone();
            change(&mut changed);
            restore(&changed).err()
        };
        assert!(with(&|pieces| drop(pieces.remove(place))).is_some(), "{place} is missing");
        assert!(with(&|pieces| pieces.insert(place, pieces[place].clone())).is_some(), "{place} is doubled");
        assert!(with(&|pieces| pieces.truncate(place)).is_some(), "only {place} pieces");
        assert!(with(&|pieces| pieces[place].clone_from(&others[place])).is_some(), "{place} is another's");
        if place > 0 {
            assert!(with(&|pieces| pieces.swap(place - 1, place)).is_some(), "{place} comes too early");
        }
        for byte in 0..pieces[place].len() {
            assert!(with(&|pieces| pieces[place][byte] ^= 1).is_some(), "byte {byte} of {place} is changed");
            assert!(with(&|pieces| pieces[place].truncate(byte)).is_some(), "{place} is cut at {byte}");
        }
        let tally = Tally::new(TallyOptions::default()).save();
        assert_eq!(with(&|pieces| pieces[place].clone_from(&tally)), Some(RestoreError::OtherKind));
    }
    assert!(restore(&[&pieces[..], &pieces].concat()).is_err());
    assert!(restore(&[&pieces[..], &others].concat()).is_err());
}

#[test]
fn a_refused_piece_is_the_end() {
    let pieces = save(&example(), 1 << 20);
    let mut reader = AggregateReader::new(1000);
    reader.push(&pieces[0]).unwrap();
    reader.push(&pieces[0]).unwrap_err();
    assert!(reader.push(&pieces[0]).is_err());
    assert!(reader.finish().is_err(), "even if nothing is missing");
    let mut reader = AggregateReader::new(40);
    let error = reader.push(&pieces[0]).unwrap_err();
    assert_eq!(error, RestoreError::Inconsistent("there are too many campaigns"), "there are 41");
    let mut other_version = pieces;
    other_version[0][8] = 7;
    sealed_again(&mut other_version);
    assert_eq!(restore(&other_version).err(), Some(RestoreError::OtherVersion { found: 7, expected: 2 }));
}

#[test]
fn an_empty_aggregate_is_one_piece() {
    let pieces = save(&Aggregate::new(10), 0);
    assert_eq!(pieces.len(), 1);
    assert_eq!(restore(&pieces).map(|restored| restored.unique_campaigns()), Ok(0));
    assert!(restore(&[]).is_err());
}

#[test]
fn huge_sums_come_back() {
    let most = "9223372036854775807";
    let rows = format!("A,,{most},{most},1e15,{most}\n").repeat(50) + "B,,1,1,0.000000000001,1\n";
    let mut aggregate = tally(TallyOptions::default(), [HEADER.as_bytes(), rows.as_bytes()]).unwrap();
    for _ in 0..20 {
        aggregate.merge(aggregate.clone()).unwrap();
        let restored = restore(&save(&aggregate, 100)).unwrap();
        let spends = |aggregate: &Aggregate| aggregate.campaigns().map(|campaign| campaign.spend).collect::<Vec<_>>();
        assert_eq!(spends(&restored), spends(&aggregate), "also what tables do not show");
        assert_eq!(seen(&restored), seen(&aggregate));
    }
}
