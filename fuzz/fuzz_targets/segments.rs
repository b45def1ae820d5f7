//! Segments that start behind LFs, read side by side and joined, give what reading in order gives.

#![no_main]

use adtally::engine::{Kernel, Tally};
use adtally_fuzz::{Case, Ending, KERNELS, assert_same_ending, assert_same_tally, read};
use libfuzzer_sys::fuzz_target;

/// As a processor might have cores.
const MAX_SEGMENTS: usize = 12;

fuzz_target!(|bytes: &[u8]| {
    let Some(mut case) = Case::new(bytes) else { return };
    case.options.kernel = KERNELS[case.cuts.choose(3)];
    let expected = read(case.with_kernel(Kernel::Off), [&case.text[..]]);
    assert_same_ending(&read_in_segments(&case), &expected);
});

fn read_in_segments(case: &Case) -> Ending {
    let mut tally = Tally::new(case.options);
    let mut pieces = case.pieces();
    // Forks need the columns.
    let mut at = 0;
    while !tally.has_columns()
        && let Some(piece) = pieces.next()
    {
        tally.push(piece)?;
        at += piece.len();
    }
    let starts = segment_starts(case, at);
    let ends = starts.iter().copied().skip(1).chain([case.text.len()]);
    let segments = starts.iter().zip(ends).map(|(start, end)| &case.text[*start..end]);
    let forks = starts.iter().filter_map(|start| tally.fork(*start as u64));
    let forks = forks.zip(segments).map(|(mut fork, segment)| (fork.push(segment).map(|()| fork), segment));
    let forks: Vec<_> = forks.collect();
    tally.push(&case.text[at..starts.first().copied().unwrap_or(case.text.len())])?;
    for (fork, segment) in forks {
        if tally.is_between_records() {
            assert!(tally.join(fork?)?.is_none(), "a segment that starts at a record is right");
        } else {
            // Such a segment may also have failed for nothing.
            if let Ok(fork) = fork {
                assert!(tally.join(fork)?.is_some(), "a segment that starts within a record is wrong");
            }
            tally.push(segment)?;
        }
    }
    let mut in_order = Tally::new(case.with_kernel(Kernel::Off));
    in_order.push(&case.text)?;
    assert_same_tally(&tally, &in_order);
    tally.finish()
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
