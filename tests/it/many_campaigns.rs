//! Tables that do not fit the caches: their rows are looked up many at a time, and merged many at a time.

use std::fmt::Write as _;

use adtally::engine::{Aggregate, Kernel, Limits, TallyOptions};

use crate::harness::{HEADER, KERNELS, Outcome, outcome, tally};
use crate::random::Random;

/// Ids of every length, some of which are no ASCII, in quotes, or between blanks.
fn id(number: usize) -> String {
    match number % 11 {
        0 => format!("{number}"),
        1 => format!("campaign {number:015}"),
        2 => format!("1202{number:014}"),
        3 => format!("{number:08x}-8d57-4f6e-9b1d-0e9b2c1a8d57"),
        4 => format!("{}{number}", "x".repeat(number % 70)),
        5 => format!("Zürich {number}"),
        6 => format!("\"Frühjahr, {number}\""),
        7 => format!(" {number} "),
        8 => format!("\" {number:020}\""),
        9 => format!("\"{number}\"\"s campaign\""),
        // The same as others, written otherwise.
        _ => format!("\"{}\"", number / 11 * 11),
    }
}

pub(crate) fn rows(count: usize, campaigns: usize, is_plain: bool) -> String {
    let mut random = Random::new();
    let mut text = HEADER.to_owned();
    for row in 0..count {
        let number = random.below(campaigns);
        if random.one_in(50) {
            // Before a row whose first separator is far away, too.
            writeln!(text, "{}", ["", "\r", "E3", "\t", "0,,", "a,b,c,d,e"][random.below(6)]).unwrap();
        }
        let number = if is_plain { number / 11 * 11 + number % 5 } else { number };
        writeln!(text, "{},2025-01-01,{row},{},0.25,1", id(number), row % 7).unwrap();
    }
    text
}

fn read(text: &str, kernel: Kernel, piece_bytes: usize) -> Aggregate {
    let options = TallyOptions { kernel, ..TallyOptions::default() };
    tally(options, text.as_bytes().chunks(piece_bytes)).unwrap()
}

#[test]
fn ids_of_every_kind_are_found_again_among_many() {
    for is_plain in [true, false] {
        let text = rows(60_000, 15_000, is_plain);
        let expected = Outcome::of(&read(&text, Kernel::Off, text.len()));
        for kernel in KERNELS {
            for piece_bytes in [text.len(), 50_000] {
                assert_eq!(Outcome::of(&read(&text, kernel, piece_bytes)), expected, "{kernel:?}, {piece_bytes}");
            }
        }
    }
}

#[test]
fn large_tables_are_merged_as_if_all_had_been_read_in_order() {
    let [first, second] = [true, false].map(|is_plain| rows(40_000, 12_000, is_plain));
    let whole = format!("{first}{}", &second[HEADER.len()..]);
    let mut merged = read(&first, Kernel::Detect, first.len());
    merged.merge(read(&second, Kernel::Detect, second.len())).unwrap();
    let whole = read(&whole, Kernel::Off, whole.len());
    assert!(merged.campaigns().eq(whole.campaigns()));
    assert_eq!(merged.unique_campaigns(), whole.unique_campaigns());
}

#[test]
fn the_limit_of_campaigns_holds_also_for_those_that_are_added_many_at_a_time() {
    let text = rows(60_000, 15_000, true);
    let campaigns = read(&text, Kernel::Off, text.len()).unique_campaigns();
    for kernel in KERNELS {
        for (max_campaigns, is_enough) in [(campaigns, true), (campaigns - 1, false), (5000, false)] {
            let limits = Limits { max_campaigns, ..Limits::default() };
            let result = outcome(TallyOptions { kernel, limits, ..TallyOptions::default() }, [text.as_bytes()]);
            assert_eq!(result.is_ok(), is_enough, "{kernel:?}, {max_campaigns}");
        }
    }
}
