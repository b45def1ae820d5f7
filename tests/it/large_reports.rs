//! Reports of ad platforms in large files: many threads find what one finds, to the line of an error.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::Arc;

use adtally::engine::report::ReadingStats;
use adtally::engine::{Aggregate, Dialect, DialectOptions, TallyOptions};
use adtally::ingest::{Input, LocalOptions, Observer, aggregate_local, encoding_for_label};

use crate::harness::{Outcome, Workspace};

/// Enough for several segments.
const FILE_BYTES: usize = 18 << 20;

struct Unobserved;

impl Observer for Unobserved {
    fn advanced(&self, _: u64, _: u64) {}
}

/// A report whose rows are told their numbers.
fn report(mut row: impl FnMut(usize) -> String) -> String {
    let mut text =
        "Campaign report\nAll time\nCampaign status,Campaign,Campaign ID,Currency code,Impr.,Clicks,Cost,Conversions\n"
            .to_owned();
    for number in 0.. {
        if text.len() >= FILE_BYTES {
            break;
        }
        writeln!(text, "{}", row(number)).unwrap();
    }
    text
}

fn usual_row(number: usize) -> String {
    format!(
        "Enabled,\"Roof, {number}\",2081123456{},EUR,\"1,{:03}\",{},12.50,\"3,917.{:02}\"",
        number % 7,
        number % 1000,
        number % 9,
        number % 100
    )
}

fn read(text: &str, format: &str, threads: usize, max_skipped: Option<u64>) -> Result<Aggregate, String> {
    let place = Workspace::new();
    place.write("report.csv", text);
    let dialect = DialectOptions { format: Some(format.parse().unwrap()), ..DialectOptions::default() };
    let options = LocalOptions {
        tally: TallyOptions { max_skipped, ..TallyOptions::default() },
        dialect: Dialect::new(&dialect, None, true).unwrap().map(Arc::new),
        max_skipped: None,
        encoding: encoding_for_label("utf-8").unwrap(),
        threads: NonZeroUsize::new(threads).unwrap(),
    };
    aggregate_local(&[Input::File(place.path("report.csv"))], &options, &Unobserved)
        .map_err(|error| error.problem.to_string())
}

/// All that can be told of a result.
fn shown(result: Result<Aggregate, String>) -> Result<(Outcome, Option<ReadingStats>), String> {
    let stats = |aggregate: &Aggregate| adtally::engine::report::Stats::new(aggregate, 1.0).readings;
    result.map(|aggregate| (Outcome::of(&aggregate), stats(&aggregate)))
}

/// Checks that any number of threads gives the same.
#[track_caller]
fn check(text: &str, format: &str, max_skipped: Option<u64>) -> Result<(Outcome, Option<ReadingStats>), String> {
    let by_one = shown(read(text, format, 1, max_skipped));
    for threads in [2, 3, 4] {
        assert!(shown(read(text, format, threads, max_skipped)) == by_one, "{threads} threads, one: {by_one:#?}");
    }
    by_one
}

#[test]
fn many_threads_find_what_one_finds() {
    let mut text = report(|number| match number % 1000 {
        // Totals, rows that do not count, and line ends within quotes, everywhere.
        500 => "Total: Campaigns, --, --,EUR,\"1,000\",5,12.50,\"3,917.20\"".into(),
        501 => usual_row(number).replace("12.50", "12.5O"),
        502 => usual_row(number).replace("Roof, ", "Roof,\n"),
        _ => usual_row(number),
    });
    text.push_str("Total: Account,,,EUR,1,1,1.00,1.00\n");
    let (outcome, stats) = check(&text, "google_ads", None).unwrap();
    let stats = stats.unwrap();
    assert!(outcome.rows_skipped > 100 && stats.rows_total > 100, "{stats:?}");
    assert_eq!((stats.rows_preamble, stats.files[0].total_lines.len()), (2, 10));
    assert_eq!(stats.files[0].decimal, Some('.'));
}

#[test]
fn an_error_names_the_line_in_the_file_whoever_found_it() {
    let rows = report(usual_row).lines().count();
    for (odd_row, says) in [
        (usual_row(7).replace("EUR", "USD"), "the currency is \"USD\""),
        (usual_row(7).replace("12.50", "\"12,50\""), "another decimal mark"),
    ] {
        let text = report(|number| if number + 10 == rows { odd_row.clone() } else { usual_row(number) });
        let line = rows - 10 + 4;
        let error = check(&text, "google_ads", None).unwrap_err();
        assert!(error.contains(says) && error.contains(&format!("line {line}:")), "{error}");
    }
    // All rows of the second half are in another currency.
    let text =
        report(|number| if number * 2 > rows { usual_row(number).replace("EUR", "USD") } else { usual_row(number) });
    check(&text, "google_ads", None).unwrap_err();
}

#[test]
fn too_many_skipped_rows_are_told_at_the_same_row() {
    let text =
        report(|number| if number % 100 == 3 { usual_row(number).replace("12.50", "") } else { usual_row(number) });
    let (outcome, _) = check(&text, "google_ads", None).unwrap();
    let skipped = outcome.rows_skipped;
    check(&text, "google_ads", Some(skipped)).unwrap();
    for max_skipped in [0, 5, skipped - 1] {
        let error = check(&text, "google_ads", Some(max_skipped)).unwrap_err();
        let expected = format!("{} of {} rows were skipped", max_skipped + 1, max_skipped * 100 + 4);
        assert!(error.starts_with(&expected), "{error}");
        assert!(
            error.contains(&format!("{} for spend", max_skipped + 1)) && error.contains("line 7 (spend)"),
            "{error}"
        );
    }
}

#[test]
fn a_blank_line_that_ends_the_data_ends_it_for_all() {
    let header = "TimePeriod,CampaignName,CampaignId,CurrencyCode,Impressions,Clicks,Spend,Conversions\r\n";
    let row = "2026-09-01,\"Bolts, wide\",401000001,EUR,2969,15,53.70,1\r\n";
    let rows = FILE_BYTES / row.len();
    let text = format!("{header}{}\r\n{}", row.repeat(rows), row.repeat(rows));
    let (outcome, stats) = check(&text, "microsoft_ads", None).unwrap();
    let stats = stats.unwrap();
    assert_eq!((outcome.rows_read, stats.rows_footer), (rows as u64, rows as u64));
    assert!(stats.warnings[0].contains(&format!("{rows} rows would count")), "{:?}", stats.warnings);
}
