//! Every value that an option of a dialect accepts is the same after it was saved as JSON and read again.

#![no_main]

use adtally::engine::{DelimiterChoice, Dialect, DialectOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut all = DialectOptions::default();
    for name in DialectOptions::NAMES {
        let mut one = DialectOptions::default();
        let Ok(is_known) = one.set(name, text) else {
            assert!(one.are_empty(), "{name} is set to a value that was refused");
            continue;
        };
        assert!(is_known && !one.are_empty(), "{name} is not set");
        assert_saved(&one);
        assert_eq!(all.set(name, text), Ok(true), "{name} depends on other options");
    }
    assert_saved(&all);
    // Options may contradict each other.
    for has_header in [false, true] {
        for delimiter in [None, Some(DelimiterChoice::Auto)] {
            let _ = Dialect::new(&all, delimiter, has_header);
        }
    }
});

#[track_caller]
fn assert_saved(options: &DialectOptions) {
    let saved = serde_json::to_string(options).expect("options can be saved");
    let restored: DialectOptions =
        serde_json::from_str(&saved).unwrap_or_else(|error| panic!("{saved} is not read again: {error}"));
    assert_eq!(&restored, options, "{saved}");
}
