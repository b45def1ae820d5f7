//! What the fuzz targets share: texts made from a fuzzer's bytes, and results that are compared to the last unit.

mod case;
mod snippets;

use adtally::engine::report::rejects_pieces;
use adtally::engine::{Aggregate, Fatal, Kernel, Metric, Tally};

pub use case::{Case, Cuts};

/// Every way in which the engine can look for rows.
pub const KERNELS: [Kernel; 3] = [Kernel::Detect, Kernel::Portable, Kernel::Off];

/// How an input ends.
pub type Ending = Result<Aggregate, Fatal>;

/// Reads a text that comes in these pieces.
pub fn read<'a>(mut tally: Tally, pieces: impl IntoIterator<Item = &'a [u8]>) -> Ending {
    for piece in pieces {
        tally.push(piece)?;
    }
    tally.finish()
}

/// Checks that two endings cannot be told apart.
#[track_caller]
pub fn assert_same_ending(found: &Ending, expected: &Ending) {
    match (found, expected) {
        (Ok(found), Ok(expected)) => assert_same(found, expected),
        (Err(found), Err(expected)) => assert_eq!(found, expected),
        (found, expected) => {
            let error = |ending: &Ending| ending.as_ref().map(|_| "fine").map_err(Clone::clone);
            assert_eq!(error(found), error(expected));
        }
    }
}

/// Checks that two aggregates cannot be told apart. Spends are compared to their twelfth decimal.
#[track_caller]
pub fn assert_same(found: &Aggregate, expected: &Aggregate) {
    assert_eq!(found.counters(), expected.counters());
    assert_eq!(found.rejects(), expected.rejects());
    // A table is the same in pieces of any size.
    assert_eq!(rejects_text(found, 1000), rejects_text(expected, usize::MAX));
    assert_eq!(found.readings(), expected.readings());
    assert_eq!(found.unique_campaigns(), expected.unique_campaigns());
    for (found, expected) in found.campaigns().zip(expected.campaigns()) {
        assert_eq!(found, expected);
    }
    for metric in [Metric::Ctr, Metric::Cpa] {
        assert_eq!(found.leaders(metric, 5), expected.leaders(metric, 5));
    }
}

fn rejects_text(aggregate: &Aggregate, piece_bytes: usize) -> String {
    rejects_pieces(aggregate, true, piece_bytes).collect()
}

/// Checks that two unfinished tallies cannot be told apart.
#[track_caller]
pub fn assert_same_tally(found: &Tally, expected: &Tally) {
    let place = |tally: &Tally| (tally.offset(), tally.can_fork(), tally.is_between_records());
    assert_eq!(place(found), place(expected));
    assert_same(found.so_far(), expected.so_far());
}
