//! The public data set of this task, made again in small: rows whose sums per campaign are known beforehand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use crate::harness::{Run, Workspace, example, project_path};
use crate::oracle::{Totals, top_cpa, top_ctr};

/// The data set has 26,843,544 rows and 50 campaigns.
const ROWS_OF_THE_DATA_SET: u64 = 26_843_544;
const ROWS: u64 = 50_000;

/// A campaign's line of the published totals: id, impressions, clicks, spend in cents, conversions.
fn published_totals() -> Vec<(String, [u64; 4])> {
    let text = fs::read_to_string(project_path("tests/truth/campaign_totals.csv")).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<_> = line.split(',').collect();
            let number = |place: usize| fields[place].replace('.', "").parse().unwrap();
            (fields[0].to_owned(), [number(1), number(2), number(3), number(4)])
        })
        .collect()
}

/// Generates rows with exactly these sums. Gives the file's name.
fn generate(place: &Workspace, totals: &[(String, [u64; 4])], flags: &[&str]) -> &'static str {
    let mut list = "campaign_id,total_impressions,total_clicks,total_spend,total_conversions\n".to_owned();
    for (id, [impressions, clicks, cents, conversions]) in totals {
        writeln!(list, "{id},{impressions},{clicks},{}.{:02},{conversions}", cents / 100, cents % 100).unwrap();
    }
    place.write("totals.csv", list);
    let output = fs::File::create(place.path("ads.csv")).unwrap();
    let mut generator = example("generate_ads");
    generator.args(["--rows", &ROWS.to_string(), "--totals"]).arg(place.path("totals.csv")).args(flags).stdout(output);
    Run::of(generator.output().unwrap()).assert_done();
    "ads.csv"
}

fn scaled_totals() -> Vec<(String, [u64; 4])> {
    let scale = |total: u64| total / (ROWS_OF_THE_DATA_SET / ROWS);
    published_totals().into_iter().map(|(id, totals)| (id, totals.map(scale))).collect()
}

/// Checks that the results in `out` are those of these totals.
fn check(place: &Workspace, totals: &[(String, [u64; 4])]) {
    let expected: BTreeMap<_, _> = totals
        .iter()
        .map(|(id, totals)| {
            let [impressions, clicks, cents, conversions] = totals.map(u128::from);
            let spend = cents * 10_000_000_000;
            (id.clone().into_bytes(), Totals { impressions, clicks, spend, conversions })
        })
        .collect();
    let found = place.read("out/campaigns.csv");
    let first_five = |line: &str| line.split(',').take(5).collect::<Vec<_>>().join(",");
    let found: Vec<_> = found.lines().map(first_five).collect();
    let listed = place.read("totals.csv");
    let listed: Vec<_> = listed.lines().collect();
    assert_eq!(found, listed, "the list is by campaign id, as the table is");
    assert_eq!(place.read("out/top10_ctr.csv"), top_ctr(&expected, 10));
    assert_eq!(place.read("out/top10_cpa.csv"), top_cpa(&expected, 10));
    let stats = place.read_json("out/stats.json");
    assert_eq!(stats["unique_campaigns"], totals.len());
    assert_eq!(stats["rows_read"].as_u64().unwrap() - stats["rows_skipped"].as_u64().unwrap(), ROWS);
}

#[test]
fn the_published_reports_follow_from_the_published_totals() {
    let campaigns: BTreeMap<_, _> = published_totals()
        .into_iter()
        .map(|(id, totals)| {
            let [impressions, clicks, cents, conversions] = totals.map(u128::from);
            (id.into_bytes(), Totals { impressions, clicks, spend: cents * 10_000_000_000, conversions })
        })
        .collect();
    assert_eq!(campaigns.len(), 50);
    for (name, found) in [("top10_ctr.csv", top_ctr(&campaigns, 10)), ("top10_cpa.csv", top_cpa(&campaigns, 10))] {
        let published = fs::read_to_string(project_path("tests/truth").join(name)).unwrap();
        assert_eq!(found, published, "{name}");
    }
}

#[test]
fn generated_rows_add_up_to_their_totals() {
    let place = Workspace::new();
    let totals = scaled_totals();
    let file = generate(&place, &totals, &["--crlf"]);
    place.run(&format!("--input {file} --output out --all-campaigns")).assert_done();
    check(&place, &totals);
    assert_eq!(place.read_json("out/stats.json")["rows_skipped"], 0);
}

#[test]
fn quotes_and_bad_rows_do_not_change_the_totals() {
    let place = Workspace::new();
    let totals = scaled_totals();
    let file = generate(&place, &totals, &["--quoted", "--bad-rows", "1.5", "--seed", "7"]);
    place.run(&format!("--input {file} --output out --all-campaigns")).assert_done();
    check(&place, &totals);
    let stats = place.read_json("out/stats.json");
    let skipped = stats["rows_skipped"].as_u64().unwrap();
    assert_eq!(skipped, (ROWS * 15 + 492) / 985, "1.5 percent of all rows");
    let by_reason = stats["skipped"].as_object().unwrap();
    assert_eq!(by_reason.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), skipped);
    assert_eq!(by_reason.len(), 6, "every kind of bad row: {by_reason:?}");
    assert_eq!(place.read("out/rejects.csv").lines().count(), 101);
}

#[test]
fn a_seed_stands_for_the_same_rows_every_time() {
    let rows = |seed: &str| {
        let output =
            example("generate_ads").args(["--rows", "500", "--campaigns", "9", "--seed", seed]).output().unwrap();
        Run::of(output).assert_done().stdout.clone()
    };
    assert_eq!(rows("5"), rows("5"));
    assert_ne!(rows("5"), rows("6"));
}
