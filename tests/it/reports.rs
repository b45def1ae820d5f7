//! Reports of ad platforms, beside an oracle in Python that knows nothing of the engine: exports as platforms write them,
//! random files in every dialect, and exports with something changed.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use adtally::engine::report::{FileStats, Stats};
use adtally::engine::{Aggregate, DelimiterChoice, Dialect, DialectOptions, Kernel, TallyOptions};
use adtally::ingest::{ContentError, Pipeline, PipelineOptions, PipelineReader, encoding_for_label};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::{KERNELS, project_path};

/// A file, how it is read, and what is expected of it.
#[derive(Deserialize)]
struct Case {
    name: String,
    options: BTreeMap<String, String>,
    data: String,
    expected: Value,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        STANDARD.decode(&self.data).unwrap()
    }

    fn options(&self, kernel: Kernel) -> PipelineOptions {
        let mut options =
            PipelineOptions { tally: TallyOptions { kernel, ..TallyOptions::default() }, ..PipelineOptions::default() };
        let (mut dialect, mut delimiter) = (DialectOptions::default(), None);
        for (name, value) in &self.options {
            match name.as_str() {
                "delimiter" => delimiter = Some(value.parse().unwrap()),
                "has_header" => options.tally.has_header = value == "true",
                "encoding" => options.encoding = encoding_for_label(value).unwrap(),
                _ => assert!(dialect.set(name, value).unwrap(), "{name}"),
            }
        }
        if let Some(DelimiterChoice::Fixed(delimiter)) = delimiter {
            options.tally.delimiter = delimiter;
        }
        options.dialect = Dialect::new(&dialect, delimiter, options.tally.has_header).unwrap().map(Arc::new);
        options
    }

    /// Reads the file in these pieces.
    fn read<'a>(&self, kernel: Kernel, pieces: impl IntoIterator<Item = &'a [u8]>) -> Value {
        let read = || {
            let mut pipeline = Pipeline::new(&self.options(kernel))?;
            pieces.into_iter().try_for_each(|piece| pipeline.push(piece))?;
            pipeline.finish()
        };
        self.shown(read().map(|finished| finished.aggregate))
    }

    /// Reads the file up to a place, and goes on behind it from the saved state.
    fn read_again_from(&self, kernel: Kernel, bytes: &[u8], place: usize) -> Value {
        let options = self.options(kernel);
        let read = || {
            let mut pipeline = Pipeline::new(&options)?;
            pipeline.push(&bytes[..place])?;
            if let Some(saved) = pipeline.save() {
                let mut reader =
                    PipelineReader::new(&PipelineOptions { tally: options.tally, ..PipelineOptions::default() });
                saved.pieces.iter().for_each(|piece| reader.push(piece).unwrap());
                pipeline = reader.finish().unwrap();
            }
            pipeline.push(&bytes[place..])?;
            pipeline.finish()
        };
        self.shown(read().map(|finished| finished.aggregate))
    }

    /// A result in the words of the oracle.
    fn shown(&self, result: Result<Aggregate, ContentError>) -> Value {
        match result {
            Ok(aggregate) => shown(&aggregate),
            Err(ContentError::Fatal(fatal)) => json!({"fatal": fatal.code()}),
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    fn is_plain(&self) -> bool {
        self.options(Kernel::Off).dialect.is_none()
    }

    #[track_caller]
    fn check(&self, found: &Value, how: &str) {
        let mut expected = self.expected.clone();
        if self.is_plain() && expected.get("fatal").is_none() {
            // Nothing is told but what is counted.
            for name in ["columns", "keyed_by", "decimal", "delimiter", "totals_check", "total_lines", "total_spend"] {
                expected.as_object_mut().unwrap().remove(name);
            }
        }
        let text = String::from_utf8_lossy(&self.bytes()).into_owned();
        assert_eq!(*found, expected, "{}, {how}, {:?}\n{text}", self.name, self.options);
    }
}

/// Units of 10^-12 as an exact decimal.
fn exact(units: u128) -> String {
    let text = format!("{}.{:012}", units / 1_000_000_000_000, units % 1_000_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn shown(aggregate: &Aggregate) -> Value {
    let counters = aggregate.counters();
    let campaigns: BTreeMap<_, _> = aggregate
        .campaigns()
        .map(|campaign| {
            let numbers = json!([
                u64::try_from(campaign.impressions).unwrap(),
                u64::try_from(campaign.clicks).unwrap(),
                exact(campaign.spend.0),
                campaign.conversions.to_string(),
            ]);
            (campaign.id_text().to_owned(), numbers)
        })
        .collect();
    let rejects: Vec<_> =
        aggregate.rejects().iter().map(|reject| json!([reject.line, reject.byte_offset, reject.reason])).collect();
    let skipped: BTreeMap<_, _> = counters.skipped().map(|(reason, count)| (reason.name(), count)).collect();
    let mut shown = json!({
        "rows_read": counters.rows_read,
        "rows_skipped": counters.rows_skipped(),
        "rows_preamble": 0,
        "rows_total": 0,
        "rows_footer": 0,
        "skipped": skipped,
        "rejects": rejects,
        "campaigns": campaigns,
    });
    if let [reading] = aggregate.readings() {
        let stats = Stats::new(aggregate, 1.0).readings.unwrap();
        let [FileStats { mut columns, keyed_by, totals_check, .. }] = <[_; 1]>::try_from(stats.files).unwrap();
        columns.remove("date");
        let shown = shown.as_object_mut().unwrap();
        for (name, value) in [
            ("rows_preamble", json!(reading.rows_preamble)),
            ("rows_total", json!(reading.rows_total)),
            ("rows_footer", json!(reading.rows_footer)),
            ("total_lines", json!(reading.total_lines)),
            ("total_spend", json!(exact(reading.total_spend.0))),
            ("columns", json!(columns)),
            ("keyed_by", json!(keyed_by)),
            ("decimal", json!(reading.decimal)),
            ("delimiter", json!(char::from(reading.delimiter.byte()))),
            ("totals_check", json!(totals_check.map(|check| check.result))),
        ] {
            shown.insert(name.into(), value);
        }
    }
    shown
}

/// The cases that the oracle makes; none without Python.
fn cases(arguments: &[&str]) -> Vec<Case> {
    // Some images have an interpreter without its library.
    let works = Command::new("python3").args(["-B", "-c", "import base64, csv, fractions, json"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no python3 with its library for the oracle");
        return Vec::new();
    }
    let oracle = project_path("tests/clients/report_oracle.py");
    let output = Command::new("python3").arg("-B").arg(oracle).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn exports() -> String {
    project_path("tests/exports").display().to_string()
}

/// How many random files are tried, and with which numbers: `ADTALLY_REPORTS=100000` tries longer.
fn count() -> String {
    std::env::var("ADTALLY_REPORTS").unwrap_or_else(|_| "1000".into())
}

/// Checks every case at once, in small pieces, and through a saved state.
fn check_all(cases: &[Case]) {
    for (number, case) in cases.iter().enumerate() {
        let bytes = case.bytes();
        for kernel in KERNELS {
            case.check(&case.read(kernel, [&bytes[..]]), "at once");
        }
        for step in [1, 7, 64] {
            case.check(&case.read(Kernel::Detect, bytes.chunks(step)), "in pieces");
        }
        let place = number * 7919 % (bytes.len() + 1);
        case.check(&case.read_again_from(Kernel::Detect, &bytes, place), &format!("saved at {place}"));
    }
}

#[test]
fn exports_of_platforms_are_read_exactly_wherever_they_are_cut() {
    for case in cases(&["samples", &exports()]) {
        let bytes = case.bytes();
        for place in 0..=bytes.len() {
            let (start, rest) = bytes.split_at(place);
            case.check(&case.read(Kernel::Detect, [start, rest]), &format!("cut at {place}"));
        }
        for place in (0..=bytes.len()).step_by(61) {
            case.check(&case.read_again_from(Kernel::Detect, &bytes, place), &format!("saved at {place}"));
        }
    }
}

#[test]
fn random_files_in_every_dialect_are_read_as_the_oracle_says() {
    check_all(&cases(&["random", "1", &count()]));
}

#[test]
fn changed_exports_are_read_exactly_or_refused() {
    check_all(&cases(&["mutated", &exports(), "1", &count()]));
}
