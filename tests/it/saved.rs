//! Stopping and going on: a tally that is saved and restored, or forked and joined, ends as if nothing had happened.

use adtally::engine::{Kernel, RestoreError, Tally, TallyOptions};
use flate2::Crc;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::harness::{HEADER, KERNELS, Outcome, outcome};
use crate::properties::{any_kernel, config, outcome_of};
use crate::texts::{Text, cuts, text};

/// A tally that has read so much of a text; `None` when it did not like it.
fn tally_of(text: &Text, kernel: Kernel, end: usize) -> Option<Tally> {
    let mut tally = Tally::new(TallyOptions { kernel, ..text.options });
    tally.push(&text.bytes[..end]).ok().map(|()| tally)
}

/// All that can be seen of a tally from outside.
fn seen(tally: &Tally) -> (u64, bool, bool, Outcome) {
    (tally.offset(), tally.can_fork(), tally.is_between_records(), Outcome::of(tally.so_far()))
}

fn restore(bytes: &[u8], kernel: Kernel) -> Tally {
    Tally::restore(bytes, kernel).unwrap()
}

/// Changes made to a saved state, with a checksum that fits again.
fn resealed(mut state: Vec<u8>) -> Vec<u8> {
    let content = state.len() - 4;
    let mut checksum = Crc::new();
    checksum.update(&state[..content]);
    state[content..].copy_from_slice(&checksum.sum().to_le_bytes());
    state
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn a_restored_tally_goes_on_as_if_nothing_had_happened(
        text in text(0..60),
        place in any::<Index>(),
        kernels in [any_kernel(), any_kernel()],
        cuts in cuts(),
    ) {
        let place = place.index(text.bytes.len() + 1);
        if let Some(tally) = tally_of(&text, kernels[0], place) {
            let saved = tally.save();
            let mut restored = restore(&saved, kernels[1]);
            prop_assert_eq!(seen(&restored), seen(&tally));
            prop_assert_eq!(restored.save(), saved, "a restored tally saves itself as the same bytes");
            let rest = Text { bytes: text.bytes[place..].to_vec(), options: text.options };
            let ended = rest.cut(&cuts).into_iter().try_for_each(|piece| restored.push(piece)).and_then(|()| restored.finish());
            prop_assert_eq!(ended.map(|aggregate| Outcome::of(&aggregate)), outcome_of(&text, Kernel::Off));
        }
    }

    #[test]
    fn a_fork_is_joined_or_given_back(text in text(0..60), places in [any::<Index>(), any::<Index>(), any::<Index>()], kernel in any_kernel()) {
        let starts = line_starts(&text);
        if !starts.is_empty() {
            let start = starts[places[0].index(starts.len())];
            let forked_at = places[1].index(start + 1);
            let end = start + places[2].index(text.bytes.len() - start + 1);
            check_fork(&text, kernel, forked_at, &[start], end)?;
        }
    }

    #[test]
    fn forks_of_forks_are_joined_in_order(text in text(0..60), ahead in any::<Index>(), kernel in any_kernel(), every in 1..12_usize) {
        let starts: Vec<_> = line_starts(&text).into_iter().step_by(every).collect();
        if let Some(first) = starts.first() {
            check_fork(&text, kernel, ahead.index(first + 1), &starts, text.bytes.len())?;
        }
    }
}

/// The places behind each LF.
fn line_starts(text: &Text) -> Vec<usize> {
    (1..=text.bytes.len()).filter(|place| text.bytes[place - 1] == b'\n').collect()
}

/// Reads up to the first of `starts`, while forks made after `forked_at` bytes read from each of them to the next, the last
/// one to `end`, and joins them in order. What is given back is read again. Then reads the rest.
fn check_fork(
    text: &Text,
    kernel: Kernel,
    forked_at: usize,
    starts: &[usize],
    end: usize,
) -> Result<(), TestCaseError> {
    let Some(mut tally) = tally_of(text, kernel, forked_at) else {
        return Ok(());
    };
    if !tally.can_fork() {
        prop_assert!(tally.fork(forked_at as u64).is_none(), "nobody knows the columns");
        return Ok(());
    }
    let ends = starts.iter().copied().skip(1).chain([end]);
    let parts: Vec<_> = starts.iter().copied().zip(ends).collect();
    let mut forks = Vec::new();
    for (start, end) in &parts {
        let mut fork = tally.fork(*start as u64).unwrap();
        fork.push(&text.bytes[*start..*end]).unwrap();
        forks.push(fork);
    }
    tally.push(&text.bytes[forked_at..starts[0]]).unwrap();
    for (fork, (start, end)) in forks.into_iter().zip(parts) {
        let was_between_records = tally.is_between_records();
        let before = seen(&tally);
        let refused = tally.join(fork).unwrap();
        prop_assert_eq!(refused.is_none(), was_between_records, "what started at a record is joined, and nothing else");
        if refused.is_some() {
            prop_assert_eq!(seen(&tally), before, "a refused fork leaves no trace");
            tally.push(&text.bytes[start..end]).unwrap();
        }
    }
    // The state is that of a tally that has read everything itself, down to the line of an unfinished record.
    let whole = tally_of(text, kernel, end).unwrap();
    prop_assert_eq!(seen(&tally), seen(&whole));
    tally.push(&text.bytes[end..]).unwrap();
    prop_assert_eq!(tally.finish().map(|aggregate| Outcome::of(&aggregate)), outcome_of(text, Kernel::Off));
    Ok(())
}

/// A text with a bit of everything.
const EXAMPLE: &str = "A,2025-01-01,100,5,1.50,1\nB,x,1,1,0.0000001,0\r\nA,,1,1\na campaign with a long id,,1,1,9,1\n\
                       \"quoted \"\"id\"\"\",,9223372036854775807,1,1,1\n,,1,1,1,1\n\"an open\nquote";

fn example() -> Tally {
    let mut tally = Tally::new(TallyOptions::default());
    tally.push(HEADER.as_bytes()).unwrap();
    tally.push(EXAMPLE.as_bytes()).unwrap();
    tally
}

#[test]
fn every_byte_is_a_place_to_stop_at() {
    let text = Text { bytes: [HEADER, EXAMPLE].concat().into_bytes(), options: TallyOptions::default() };
    let expected = outcome(text.options, [&text.bytes[..]]).unwrap();
    for place in 0..=text.bytes.len() {
        for (from, into) in KERNELS.into_iter().zip([Kernel::Off, Kernel::Detect, Kernel::Portable]) {
            let saved = tally_of(&text, from, place).unwrap().save();
            let mut restored = restore(&saved, into);
            assert_eq!(restored.save(), saved, "after {place} bytes");
            restored.push(&text.bytes[place..]).unwrap();
            assert_eq!(Outcome::of(&restored.finish().unwrap()), expected, "after {place} bytes");
        }
    }
}

#[test]
fn every_line_is_a_place_to_fork_at() {
    let rows = "A,2025-01-01,100,5,1.50,1\n".repeat(5) + EXAMPLE + "\",,1,1,1,1\nB,\"a\n\n\",1,1,1,1\nC,,1,1\n";
    let text = Text { bytes: (HEADER.to_owned() + &rows).into_bytes(), options: TallyOptions::default() };
    let starts = line_starts(&text);
    for kernel in KERNELS {
        for start in &starts {
            for end in *start..=text.bytes.len() {
                check_fork(&text, kernel, HEADER.len(), &[*start], end).unwrap();
            }
        }
        check_fork(&text, kernel, HEADER.len(), &starts, text.bytes.len()).unwrap();
    }
}

#[test]
fn a_fork_belongs_where_it_started() {
    let mut tally = Tally::new(TallyOptions::default());
    tally.push(HEADER.as_bytes()).unwrap();
    let fork = tally.fork(1000).unwrap();
    assert!(tally.join(fork).unwrap().is_some(), "there is a gap between");
}

#[test]
fn a_damaged_state_is_refused_whatever_the_bit() {
    let saved = example().save();
    for bit in 0..saved.len() * 8 {
        let mut damaged = saved.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Tally::restore(&damaged, Kernel::Detect).is_err(), "bit {bit} of {} bytes", saved.len());
    }
    for len in 0..saved.len() {
        assert!(Tally::restore(&saved[..len], Kernel::Detect).is_err(), "{len} of {} bytes", saved.len());
    }
    for more in [&b"\0"[..], &saved] {
        assert!(Tally::restore(&[&saved, more].concat(), Kernel::Detect).is_err());
    }
}

/// Of as many columns no row can have fields, and no reader may make room for them.
#[test]
fn columns_beyond_all_records_are_no_panic() {
    let mut tally = Tally::new(TallyOptions { has_header: false, ..TallyOptions::default() });
    tally.push(EXAMPLE.as_bytes()).unwrap();
    let mut state = tally.save();
    // How many there are, and where those stand that count.
    let place = state.windows(6).position(|bytes| bytes == [6, 0, 2, 3, 4, 5]).unwrap();
    state.splice(place..=place, [[0xff; 9].as_slice(), &[1]].concat());
    let state = resealed(state);
    for kernel in KERNELS {
        let mut tally = restore(&state, kernel);
        let rows_read = tally.so_far().counters().rows_read;
        tally.push("A,2025-01-01,100,5,1.50,1\n".repeat(20).as_bytes()).unwrap();
        assert_eq!(tally.so_far().counters().rows_read, rows_read);
    }
}

#[test]
fn a_refusal_says_what_is_wrong() {
    let error = |state: &[u8]| Tally::restore(state, Kernel::Detect).err().unwrap();
    let saved = example().save();
    assert_eq!(error(b""), RestoreError::OtherKind);
    assert_eq!(error(HEADER.as_bytes()), RestoreError::OtherKind);
    let mut damaged = saved.clone();
    damaged[20] ^= 1;
    assert_eq!(error(&damaged), RestoreError::Damaged);
    let mut other_version = saved;
    other_version[8] = 7;
    assert_eq!(error(&resealed(other_version)), RestoreError::OtherVersion { found: 7, expected: 2 });
}

proptest! {
    #![proptest_config(config(2000))]

    /// Whoever can write a checksum can do harm, but not by a panic.
    #[test]
    fn a_forged_state_is_no_panic(changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4), cut in any::<Index>(), is_cut: bool) {
        let mut forged = example().save();
        if is_cut {
            forged.truncate(14 + cut.index(forged.len() - 14));
        }
        for (place, byte) in changes {
            let place = 10 + place.index(forged.len() - 14 + 1).min(forged.len() - 11);
            forged[place] = byte;
        }
        if let Ok(tally) = Tally::restore(&resealed(forged), Kernel::Detect) {
            prop_assert!(Tally::restore(&tally.save(), Kernel::Portable).is_ok(), "what is restored can be saved");
        }
    }
}
