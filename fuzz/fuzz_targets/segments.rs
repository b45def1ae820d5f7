//! Segments that start behind LFs, read apart and joined as `src/ingest/segments.rs` does it, give what reading in order gives;
//! also when they share the campaigns.

#![no_main]

use adtally::engine::{Aggregate, Fatal, Kernel, Parcel, Tally};
use adtally_fuzz::{Case, Ending, KERNELS, assert_same_ending, assert_same_tally, read};
use libfuzzer_sys::fuzz_target;

/// As a processor might have cores.
const MAX_SEGMENTS: usize = 12;

fuzz_target!(|bytes: &[u8]| {
    let Some(mut case) = Case::new(bytes) else { return };
    let choice = case.cuts.choose(9);
    let kernel = KERNELS[choice % 3];
    let shared_from = [None, Some(0), Some(3)][choice / 3];
    let expected = read(case.tally(Kernel::Off), [&case.text[..]]);
    assert_same_ending(&read_in_segments(&case, kernel, shared_from), &expected);
});

fn read_in_segments(case: &Case, kernel: Kernel, shared_from: Option<usize>) -> Ending {
    let mut tally = case.tally(kernel);
    let mut pieces = case.pieces();
    let is_divisible = case.dialect.as_ref().is_none_or(|dialect| dialect.is_divisible());
    // Forks need the columns and the decimal mark.
    let mut at = 0;
    while !tally.can_fork()
        && let Some(piece) = pieces.next()
    {
        tally.push(piece)?;
        at += piece.len();
    }
    assert!(is_divisible || !tally.can_fork(), "an input that is not divisible can be forked");
    let starts = if tally.can_fork() { segment_starts(case, at) } else { Vec::new() };
    let ends = starts.iter().copied().skip(1).chain([case.text.len()]);
    let segments = starts.iter().zip(ends).map(|(start, end)| &case.text[*start..end]);
    let forks = starts.iter().map(|start| tally.fork(*start as u64).expect("it can fork"));
    let mut forks: Vec<_> = forks.zip(segments).map(|(fork, segment)| (Ok(fork), segment)).collect();
    if let Some(from_campaigns) = shared_from {
        let tallies = 1 + forks.len();
        tally.share_campaigns(tallies, from_campaigns);
        forks.iter_mut().flat_map(|(fork, _)| fork).for_each(|fork| fork.share_campaigns(tallies, from_campaigns));
    }
    let first = tally.push(&case.text[at..starts.first().copied().unwrap_or(case.text.len())]);
    for (fork, segment) in &mut forks {
        *fork = std::mem::replace(fork, Err(Fatal::EmptyInput)).and_then(|mut fork| fork.push(segment).map(|()| fork));
    }
    let mut all: Vec<_> = std::iter::once(&mut tally).chain(forks.iter_mut().flat_map(|(fork, _)| fork)).collect();
    if all.iter().any(|tally| tally.has_shared()) {
        let is_whole = first.is_ok() && all.len() == 1 + starts.len() && exchange(&mut all).is_ok();
        let joined = is_whole.then(|| join_shared(tally, forks)).flatten();
        return joined.map_or_else(|| read(case.tally(kernel), [&case.text[..]]), Ok);
    }
    first?;
    tally.stop_sharing();
    for (fork, _) in &mut forks {
        fork.iter_mut().for_each(Tally::stop_sharing);
    }
    for (fork, segment) in forks {
        let is_right = tally.is_between_records();
        match fork {
            Ok(fork) => {
                let is_joined = tally.join(fork)?.is_none();
                assert!(is_right || !is_joined, "a segment that starts within a record is wrong");
                if !is_joined {
                    // Where reading in order ends with an error (too many skipped rows, another currency), it does so here.
                    tally.push(segment)?;
                    assert!(!is_right, "a segment that starts at a record is right");
                }
            }
            // Its error counts lines from its own start. A segment that starts within a record may have failed for nothing.
            Err(error) => {
                tally.push(segment)?;
                assert!(!is_right, "a segment that starts at a record fails only when it is read apart: {error}");
            }
        }
    }
    let mut in_order = case.tally(Kernel::Off);
    in_order.push(&case.text)?;
    assert_same_tally(&tally, &in_order);
    tally.finish()
}

/// Hands over all sorted rows.
fn exchange(all: &mut [&mut Tally]) -> Result<(), Fatal> {
    for from in 0..all.len() {
        for to in 0..all.len() {
            let mut parcel = Parcel::default();
            all[from].swap_parcel(to, &mut parcel);
            all[to].count_parcel(&mut parcel)?;
        }
    }
    Ok(())
}

/// `None` when only reading in order tells what the text contains.
fn join_shared(mut whole: Tally, forks: Vec<(Result<Tally, Fatal>, &[u8])>) -> Option<Aggregate> {
    for (fork, _) in forks {
        if whole.join(fork.ok()?).ok()?.is_some() {
            return None;
        }
    }
    whole.finish().ok()
}

/// Behind the first LFs at or behind the places where the case is cut.
fn segment_starts(case: &Case, at: usize) -> Vec<usize> {
    let behind_newline = |place: &usize| {
        let newline = case.text[*place..].iter().position(|byte| *byte == b'\n')?;
        Some(place + newline + 1)
    };
    let places: Vec<_> = case.places.iter().copied().filter(|place| *place >= at).collect();
    let few_places = places.iter().step_by(places.len() / MAX_SEGMENTS + 1);
    let mut starts: Vec<_> = few_places.filter_map(behind_newline).collect();
    starts.dedup();
    starts
}
