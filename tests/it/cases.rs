//! The conformance cases: inputs with the exact documents they result in, tried in every way in.

use std::fs;
use std::path::PathBuf;

use adtally::engine::report::{campaign_table, rejects_table};
use adtally::engine::{Delimiter, Fatal, Metric, TallyOptions};
use adtally::ingest::{TextDecoder, encoding_for_label};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::{KERNELS, Run, Workspace, gzip, project_path, run, tally, zstandard};

/// The contents of `case.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expectation {
    pub(crate) delimiter: String,
    pub(crate) encoding: String,
    pub(crate) has_header: bool,
    pub(crate) top: usize,
    /// Absent when the input as a whole is refused.
    pub(crate) stats: Option<Value>,
    /// The code of the error.
    pub(crate) error: Option<String>,
}

pub(crate) struct Case {
    pub(crate) name: String,
    directory: PathBuf,
    pub(crate) expectation: Expectation,
    pub(crate) input: Vec<u8>,
}

impl Case {
    pub(crate) fn all() -> Vec<Self> {
        let mut cases: Vec<_> = fs::read_dir(project_path("tests/cases"))
            .unwrap()
            .map(|entry| {
                let directory = entry.unwrap().path();
                let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
                let expectation = serde_json::from_slice(&fs::read(directory.join("case.json")).unwrap())
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                let input = fs::read(directory.join("input.csv")).unwrap();
                Self { name, directory, expectation, input }
            })
            .collect();
        cases.sort_by(|left, right| left.name.cmp(&right.name));
        assert!(!cases.is_empty(), "there are no cases");
        cases
    }

    pub(crate) fn expected(&self, document: &str) -> String {
        fs::read_to_string(self.directory.join(document))
            .unwrap_or_else(|error| panic!("{} {document}: {error}", self.name))
    }

    /// The names of the two lists.
    pub(crate) fn lists(&self) -> [String; 2] {
        ["ctr", "cpa"].map(|metric| format!("top{}_{metric}.csv", self.expectation.top))
    }

    /// Runs the command on the input, kept in a file of this name; `-` is standard input. Checks what it leaves.
    fn check_command(&self, file: &str, contents: &[u8], more_arguments: &[&str]) {
        let place = Workspace::new();
        let Expectation { delimiter, encoding, has_header, top, .. } = &self.expectation;
        let (has_header, top) = (has_header.to_string(), top.to_string());
        let arguments = [
            "--input",
            file,
            "--output",
            "out",
            "--all-campaigns",
            "--delimiter",
            delimiter,
            "--encoding",
            encoding,
            "--has-header",
            &has_header,
            "--top",
            &top,
        ];
        if file != "-" {
            place.write(file, contents);
        }
        let input = if file == "-" { contents } else { b"" };
        let run = run(&mut place.aggregate(arguments.iter().chain(more_arguments)), input);
        let way = format!("{} as {file} {more_arguments:?}", self.name);
        if let Some(stats) = &self.expectation.stats {
            self.check_documents(&way, &place, &run, stats);
        } else {
            assert_eq!(run.code, Some(1), "{way}: {run:?}");
            assert!(place.names("out").is_empty(), "{way}: there are results");
            assert!(run.stderr.starts_with(&format!("adtally: {file}: ")), "{way}: {run:?}");
        }
    }

    fn check_documents(&self, way: &str, place: &Workspace, run: &Run, expected_stats: &Value) {
        assert_eq!(run.code, Some(0), "{way}: {run:?}");
        let mut expected_names = vec!["campaigns.csv".to_owned(), "stats.json".to_owned()];
        expected_names.extend(self.lists());
        let expected_rejects = self.expected("rejects.csv");
        if expected_rejects.lines().count() > 1 {
            expected_names.push("rejects.csv".to_owned());
            let rejects = first_three_columns(&place.read("out/rejects.csv"));
            assert_eq!(rejects, expected_rejects, "{way}: rejects.csv");
        }
        expected_names.sort();
        assert_eq!(place.names("out"), expected_names, "{way}");
        for document in ["campaigns.csv".to_owned()].into_iter().chain(self.lists()) {
            assert_eq!(place.read(&format!("out/{document}")), self.expected(&document), "{way}: {document}");
        }
        let stats = place.read_json("out/stats.json");
        for (name, value) in expected_stats.as_object().unwrap() {
            assert_eq!(stats[name], *value, "{way}: {name}");
        }
        for name in ["bytes_read", "elapsed_seconds", "rows_per_second"] {
            assert!(stats[name].is_number(), "{way}: {name} in {stats}");
        }
    }

    /// Checks what the engine makes of the text, in pieces of so many bytes.
    fn check_engine(&self, text: &[u8], options: TallyOptions, step: usize) {
        let way = format!("{} in pieces of {step} with {:?}", self.name, options.kernel);
        let aggregate = match (tally(options, text.chunks(step)), &self.expectation.error) {
            (Ok(aggregate), None) => aggregate,
            (result, expected) => {
                let code = result.as_ref().err().map(Fatal::code);
                assert_eq!(code, expected.as_deref(), "{way}");
                return;
            }
        };
        let counters = aggregate.counters();
        let skipped = counters.skipped().map(|(reason, count)| (reason.name().to_owned(), count.into()));
        let stats = json!({
            "rows_read": counters.rows_read,
            "rows_skipped": counters.rows_skipped(),
            "parse_errors": counters.parse_errors(),
            "unique_campaigns": aggregate.unique_campaigns(),
            "skipped": skipped.collect::<serde_json::Map<_, _>>(),
        });
        assert_eq!(Some(stats), self.expectation.stats, "{way}");
        assert_eq!(counters.bytes_read, text.len() as u64, "{way}");
        let [ctr, cpa] = [Metric::Ctr, Metric::Cpa].map(|metric| aggregate.leaders(metric, self.expectation.top));
        let [ctr_name, cpa_name] = self.lists();
        let campaigns: Vec<_> = aggregate.campaigns().collect();
        let rejects = first_three_columns(&rejects_table(aggregate.rejects(), false));
        for (document, contents) in [
            (ctr_name.as_str(), campaign_table(&ctr)),
            (&cpa_name, campaign_table(&cpa)),
            ("campaigns.csv", campaign_table(&campaigns)),
            ("rejects.csv", rejects),
        ] {
            assert_eq!(contents, self.expected(document), "{way}: {document}");
        }
    }

    /// The input as UTF-8 text without a byte-order mark.
    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut sink = |piece: &[u8]| {
            text.extend_from_slice(piece);
            Ok::<_, std::convert::Infallible>(())
        };
        let mut decoder = TextDecoder::new(encoding_for_label(&self.expectation.encoding).unwrap());
        decoder.push(&self.input, &mut sink).unwrap();
        decoder.finish(&mut sink).unwrap();
        text
    }
}

/// The table of rejects without the records themselves, as the cases have it.
pub(crate) fn first_three_columns(rejects: &str) -> String {
    let mut reader = csv_table(rejects).into_iter();
    let mut table = String::new();
    for record in &mut reader {
        table += &record[..3].join(",");
        table.push('\n');
    }
    table
}

/// Takes a table apart with a reader of other people's making.
pub(crate) fn csv_table(text: &str) -> Vec<Vec<String>> {
    use futures_util::StreamExt as _;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut reader = csv_async::AsyncReaderBuilder::new().has_headers(false).create_reader(text.as_bytes());
    let records = runtime.block_on(reader.records().map(Result::unwrap).collect::<Vec<_>>());
    records.iter().map(|record| record.iter().map(str::to_owned).collect()).collect()
}

#[test]
fn every_case_is_complete() {
    for case in Case::all() {
        let Expectation { stats, error, .. } = &case.expectation;
        assert!(stats.is_some() != error.is_some(), "{}: expected statistics or an error", case.name);
    }
}

#[test]
fn the_command_gives_the_documents_of_every_case() {
    for case in Case::all() {
        case.check_command("input.csv", &case.input, &[]);
        case.check_command("-", &case.input, &[]);
    }
}

#[test]
fn threads_change_no_document() {
    for case in Case::all() {
        case.check_command("input.csv", &case.input, &["--threads", "1"]);
        case.check_command("input.csv", &case.input, &["--threads", "2"]);
    }
}

#[test]
fn compression_changes_no_document() {
    for case in Case::all() {
        case.check_command("input.csv.gz", &gzip(&case.input), &[]);
        case.check_command("input.csv.zst", &zstandard(&case.input), &[]);
        // What counts are the first bytes, not the name.
        case.check_command("-", &zstandard(&case.input), &[]);
        case.check_command("input.csv", &gzip(&case.input), &["--threads", "2"]);
    }
}

#[test]
fn the_engine_gives_the_documents_of_every_case() {
    for case in Case::all() {
        let delimiter: Delimiter = case.expectation.delimiter.parse().unwrap();
        let text = case.text();
        for kernel in KERNELS {
            let has_header = case.expectation.has_header;
            let options = TallyOptions { delimiter, has_header, kernel, ..TallyOptions::default() };
            for step in [1, 2, 3, 7, 64, 65, 1000, 8192, usize::MAX] {
                case.check_engine(&text, options, step);
            }
        }
    }
}
