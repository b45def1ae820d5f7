//! The scanner agrees with the general reader, whatever its instructions.

#![no_main]

use adtally::engine::Kernel;
use adtally_fuzz::{Case, assert_same_ending, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(case) = Case::new(bytes) else { return };
    let expected = read(case.tally(Kernel::Off), [&case.text[..]]);
    for kernel in [Kernel::Detect, Kernel::Portable] {
        assert_same_ending(&read(case.tally(kernel), [&case.text[..]]), &expected);
    }
});
