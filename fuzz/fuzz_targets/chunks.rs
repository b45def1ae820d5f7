//! A text cut anywhere gives the same result as in one piece.

#![no_main]

use adtally_fuzz::{Case, KERNELS, assert_same_ending, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(case) = Case::new(bytes) else { return };
    for kernel in KERNELS {
        let options = case.with_kernel(kernel);
        assert_same_ending(&read(options, case.pieces()), &read(options, [&case.text[..]]));
    }
});
