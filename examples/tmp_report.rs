//! Temporary.
use adtally::engine::{Dialect, DialectOptions, TallyOptions};
use adtally::ingest::{Input, LocalOptions, Observer, aggregate_local};
use std::num::NonZeroUsize;
use std::sync::Arc;
struct Quiet;
impl Observer for Quiet {
    fn advanced(&self, _: u64, _: u64) {}
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mut given = DialectOptions::default();
    if args[2] != "-" {
        given.set("format", &args[2]).unwrap();
    }
    let dialect = Dialect::new(&given, None, true).unwrap().map(Arc::new);
    let options = LocalOptions {
        tally: TallyOptions::default(),
        dialect,
        encoding: encoding_rs::UTF_8,
        threads: NonZeroUsize::new(args[3].parse().unwrap()).unwrap(),
    };
    let begun = std::time::Instant::now();
    let aggregate =
        aggregate_local(&[Input::File(args[1].clone().into())], &options, &Quiet).map_err(|e| e.to_string()).unwrap();
    println!(
        "{:?} {:?} rows {} skipped {} total {:?} check {:?}",
        begun.elapsed(),
        aggregate.unique_campaigns(),
        aggregate.counters().rows_read,
        aggregate.counters().rows_skipped(),
        aggregate.readings().first().map(|r| r.rows_total),
        aggregate.readings().first().map(|r| r.totals_check.clone())
    );
}
