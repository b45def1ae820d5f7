//! A text cut anywhere gives the same result as in one piece.

#![no_main]

use adtally_fuzz::{Case, KERNELS, assert_same_ending, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(case) = Case::new(bytes) else { return };
    for kernel in KERNELS {
        assert_same_ending(&read(case.tally(kernel), case.pieces()), &read(case.tally(kernel), [&case.text[..]]));
    }
});
