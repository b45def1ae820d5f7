//! A tally that is saved anywhere and restored, with any kernel, ends as if nothing had happened.

#![no_main]

use adtally::engine::{Fatal, Kernel, Tally};
use adtally_fuzz::{Case, Ending, KERNELS, assert_same_ending, assert_same_tally, read};
use libfuzzer_sys::fuzz_target;

/// Saving takes time for every campaign.
const MAX_STOPS: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let Some(case) = Case::new(bytes) else { return };
    let expected = read(case.tally(Kernel::Off), [&case.text[..]]);
    assert_same_ending(&read_with_stops(case), &expected);
});

fn read_with_stops(mut case: Case) -> Ending {
    let kernel = KERNELS[case.cuts.choose(3)];
    let mut tally = case.tally(kernel);
    let few_stops = case.places.len() / MAX_STOPS + 1;
    case.places = case.places.into_iter().step_by(few_stops).collect();
    let mut cuts = case.cuts.clone();
    for piece in case.pieces() {
        tally.push(piece)?;
        tally = stop_and_go_on(&tally, KERNELS[cuts.choose(3)])?;
    }
    tally.finish()
}

fn stop_and_go_on(tally: &Tally, kernel: Kernel) -> Result<Tally, Fatal> {
    let saved = tally.save();
    let restored = Tally::restore(&saved, kernel).unwrap_or_else(|error| panic!("{error}"));
    assert_same_tally(&restored, tally);
    assert!(restored.save() == saved, "it saves itself as other bytes");
    Ok(restored)
}
