//! What a released version stored is read by every later one. The files in `tests/released` are never made anew.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use adtally::engine::{AggregateReader, Dialect, DialectOptions, Kernel, Tally, TallyOptions};
use adtally::ingest::{Pipeline, PipelineOptions, PipelineReader, encoding_for_label};
use adtally::jobs::fingerprint;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{Outcome, project_path, tally, zstandard};
use crate::service::Service;

const STATES: usize = 9;
const PIPELINES: usize = 6;
/// Names of saved aggregates and their numbers of pieces.
const AGGREGATES: [(&str, usize); 2] = [("huge_sums", 1), ("with_rejects", 3)];

/// Uploads saved by later versions, their encodings and numbers of pieces. Their inputs are those of version 1.
const PIPELINES_2: [(&str, &str, usize); 6] = [
    ("between_gzip_members", "utf-8", 2),
    ("between_zstd_frames", "utf-8", 2),
    ("first_bytes", "utf-8", 2),
    ("plain", "utf-8", 2),
    ("utf_16_within_a_unit", "utf-8", 2),
    ("windows_1252", "windows-1252", 2),
];

/// The same of version 3, with inputs of their own.
const PIPELINES_3: [(&str, &str, usize); 4] = [
    ("plain", "utf-8", 2),
    ("within_a_gzip_member", "utf-8", 3),
    ("within_a_shift_jis_line", "shift_jis", 2),
    ("within_a_zstd_frame", "utf-8", 3),
];

fn released(name: &str) -> PathBuf {
    project_path("tests/released/v1").join(name)
}

/// Every saved state of a kind: its name, its bytes, and the whole input that it was in the middle of.
fn saved(kind: &str) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let names = fs::read_dir(released("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let states = names.filter(|name| name.ends_with(kind)).map(|name| {
        let input = fs::read(released(&format!("{name}.input"))).unwrap();
        (name.clone(), fs::read(released(&name)).unwrap(), input)
    });
    states.collect()
}

#[test]
fn tallies_saved_by_version_1_go_on() {
    let states = saved(".tally");
    assert_eq!(states.len(), STATES);
    for (name, state, input) in states {
        let mut restored = Tally::restore(&state, Kernel::Detect).unwrap_or_else(|error| panic!("{name}: {error}"));
        restored.push(&input[usize::try_from(restored.offset()).unwrap()..]).unwrap();
        let whole = tally(TallyOptions::default(), [input.as_slice()]).unwrap();
        assert_eq!(Outcome::of(&restored.finish().unwrap()), Outcome::of(&whole), "{name}");
    }
}

#[test]
fn uploads_saved_by_version_1_go_on() {
    let states = saved(".pipeline");
    assert_eq!(states.len(), PIPELINES);
    for (name, state, input) in states {
        let label = if name.starts_with("windows_1252") { "windows-1252" } else { "utf-8" };
        let encoding = encoding_for_label(label).unwrap();
        let options = PipelineOptions { encoding, with_digest: true, ..PipelineOptions::default() };
        let mut reader = PipelineReader::new(&options);
        reader.push(&zstandard(&state)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut restored = reader.finish().unwrap_or_else(|error| panic!("{name}: {error}"));
        restored.push(&input[usize::try_from(restored.bytes_received()).unwrap()..]).unwrap();
        let mut whole = Pipeline::new(&options).unwrap();
        whole.push(&input).unwrap();
        let (restored, whole) = (restored.finish().unwrap(), whole.finish().unwrap());
        assert_eq!(Outcome::of(&restored.aggregate), Outcome::of(&whole.aggregate), "{name}");
        assert_eq!(restored.sha256, whole.sha256, "{name}");
    }
}

/// Goes on with an upload that a later version saved.
fn go_on(directory: &str, name: &str, label: &str, piece_count: usize, input: &[u8]) {
    let encoding = encoding_for_label(label).unwrap();
    let options = PipelineOptions { encoding, with_digest: true, ..PipelineOptions::default() };
    let mut reader = PipelineReader::new(&options);
    for number in 0..piece_count {
        let piece = fs::read(project_path("tests/released").join(directory).join(format!("{name}.{number}.pipeline")));
        reader.push(&piece.unwrap()).unwrap_or_else(|error| panic!("{name}, piece {number}: {error}"));
    }
    let mut restored = reader.finish().unwrap_or_else(|error| panic!("{name}: {error}"));
    restored.push(&input[usize::try_from(restored.bytes_received()).unwrap()..]).unwrap();
    let mut whole = Pipeline::new(&options).unwrap();
    whole.push(input).unwrap();
    let (restored, whole) = (restored.finish().unwrap(), whole.finish().unwrap());
    assert_eq!(Outcome::of(&restored.aggregate), Outcome::of(&whole.aggregate), "{name}");
    assert_eq!((restored.sha256, restored.crc64), (whole.sha256, whole.crc64), "{name}");
}

#[test]
fn uploads_saved_by_version_2_go_on() {
    for (name, label, piece_count) in PIPELINES_2 {
        let input = fs::read(released(&format!("{name}.pipeline.input"))).unwrap();
        go_on("v2", name, label, piece_count, &input);
    }
}

#[test]
fn uploads_saved_by_version_3_go_on() {
    for (name, label, piece_count) in PIPELINES_3 {
        let input = fs::read(project_path("tests/released/v3").join(format!("{name}.pipeline.input"))).unwrap();
        go_on("v3", name, label, piece_count, &input);
    }
}

/// A report whose upload, and whose aggregate, version 4 saved.
struct Report {
    name: &'static str,
    format: &'static str,
    encoding: &'static str,
    input: Vec<u8>,
    /// Bytes that had been received.
    received: usize,
    /// Pieces of the upload, pieces of the aggregate, blocks of rejects of each.
    counts: [usize; 4],
    max_rejects_bytes: Option<u64>,
}

impl Report {
    fn options(&self) -> PipelineOptions {
        let mut dialect = DialectOptions::default();
        assert_eq!(dialect.set("format", self.format), Ok(true));
        PipelineOptions {
            encoding: encoding_for_label(self.encoding).unwrap(),
            with_digest: true,
            dialect: Dialect::new(&dialect, None, true).unwrap().map(Arc::new),
            tally: TallyOptions { max_rejects_bytes: self.max_rejects_bytes, ..TallyOptions::default() },
            ..PipelineOptions::default()
        }
    }
}

fn reports_of_version_4() -> Vec<Report> {
    let export = |name: &'static str, file: &str, format, encoding, received, counts| {
        let input = fs::read(project_path("tests/exports").join(file)).unwrap();
        Report { name, format, encoding, input, received, counts, max_rejects_bytes: None }
    };
    let mut rejected = b"Campaign report\n2025\nCampaign ID,Day,Impr.,Clicks,Cost,Conversions\n".to_vec();
    for row in 0..6000 {
        let impressions = if row % 3 == 0 { "\"1,000\"".to_owned() } else { format!("no number {row}") };
        rejected.extend(format!("{},2025-01-01,{impressions},5,0.5,1.25\n", row % 7).bytes());
    }
    rejected.extend(b"Total: Campaigns,,\"2,000,000\",\"10,000\",\"1,000.00\",\"2,500.00\"\n");
    let with_rejects = Report {
        name: "with_all_rejects",
        format: "google_ads",
        encoding: "utf-8",
        received: rejected.len() * 7 / 8,
        input: rejected,
        counts: [2, 1, 2, 0],
        max_rejects_bytes: Some(1 << 24),
    };
    vec![
        export("before_the_header", "google_ads_en.csv", "google_ads", "utf-8", 25, [2, 1, 0, 0]),
        export("google_ads", "google_ads_en.csv", "google_ads", "utf-8", 1500, [2, 1, 0, 0]),
        export("utf_16", "google_ads_en_excel.csv", "google_ads", "utf-16le", 3001, [2, 1, 0, 0]),
        export("decimal_commas", "google_ads_de_resaved.csv", "google_ads", "utf-8", 1000, [2, 1, 0, 0]),
        export("google_ads_api", "google_ads_api.csv", "google_ads_api", "utf-8", 1100, [2, 1, 0, 0]),
        export("meta_ads", "meta_ads.csv", "meta_ads", "utf-8", 2000, [2, 1, 0, 0]),
        export("microsoft_ads", "microsoft_ads.csv", "microsoft_ads", "utf-8", 1500, [2, 1, 0, 0]),
        with_rejects,
    ]
}

fn of_version_4(name: &str, number: usize, kind: &str) -> PathBuf {
    project_path("tests/released/v4").join(format!("{name}.{number}.{kind}"))
}

#[test]
fn reports_saved_by_version_4_go_on() {
    for report in reports_of_version_4() {
        let Report { name, counts: [pieces, aggregate_pieces, blocks, aggregate_blocks], .. } = report;
        let read = |number, kind| fs::read(of_version_4(name, number, kind)).unwrap();
        let options = report.options();
        // The state says how the file is written.
        let mut reader = PipelineReader::new(&PipelineOptions { dialect: None, ..options.clone() });
        for number in 0..pieces {
            reader.push(&read(number, "pipeline")).unwrap_or_else(|error| panic!("{name}, piece {number}: {error}"));
        }
        assert_eq!(reader.reject_blocks(), blocks as u64, "{name}");
        for number in 0..blocks {
            reader.push_reject_block(read(number, "pipeline_block")).unwrap();
        }
        let mut restored = reader.finish().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(restored.bytes_received(), report.received as u64, "{name}");
        restored.push(&report.input[report.received..]).unwrap();
        let mut whole = Pipeline::new(&options).unwrap();
        whole.push(&report.input).unwrap();
        let (restored, mut whole) = (restored.finish().unwrap(), whole.finish().unwrap());
        assert_eq!(Outcome::of(&restored.aggregate), Outcome::of(&whole.aggregate), "{name}");
        assert_eq!(restored.aggregate.readings(), whole.aggregate.readings(), "{name}");
        assert_eq!(restored.sha256, whole.sha256, "{name}");
        assert!(whole.aggregate.reject_blocks().eq(restored.aggregate.reject_blocks()), "{name}");

        let mut reader = AggregateReader::new(1000);
        for number in 0..aggregate_pieces {
            reader.push(&read(number, "aggregate")).unwrap_or_else(|error| panic!("{name}, piece {number}: {error}"));
        }
        assert_eq!(reader.reject_blocks(), aggregate_blocks as u64, "{name}");
        for number in 0..aggregate_blocks {
            reader.push_reject_block(read(number, "aggregate_block")).unwrap();
        }
        let restored = reader.finish().unwrap();
        whole.aggregate.name_file("ad data.csv");
        assert_eq!(Outcome::of(&restored), Outcome::of(&whole.aggregate), "{name}");
        assert_eq!(restored.readings(), whole.aggregate.readings(), "{name}");
    }
}

#[test]
fn aggregates_saved_by_version_1_are_restored() {
    for (name, piece_count) in AGGREGATES {
        let mut reader = AggregateReader::new(1000);
        for number in 0..piece_count {
            let piece = fs::read(released(&format!("{name}.{number}.aggregate"))).unwrap();
            reader.push(&piece).unwrap_or_else(|error| panic!("{name}, piece {number}: {error}"));
        }
        let restored = reader.finish().unwrap();
        let input = fs::read(released(&format!("{name}.aggregate.input"))).unwrap();
        let mut expected = tally(TallyOptions::default(), [input.as_slice()]).unwrap();
        expected.name_file("ad data.csv");
        assert_eq!(Outcome::of(&restored), Outcome::of(&expected), "{name}");
        assert_eq!(restored.rejects(), expected.rejects(), "{name}");
    }
}

/// Checks that everything `old` says is still said; there may be more.
#[track_caller]
fn assert_says(new: &Value, old: &Value, place: &str) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            for (name, old) in old {
                assert_says(new.get(name).unwrap_or(&Value::Null), old, &format!("{place}.{name}"));
            }
        }
        (Value::Array(new), Value::Array(old)) if new.len() == old.len() => {
            for (index, (new, old)) in new.iter().zip(old).enumerate() {
                assert_says(new, old, &format!("{place}[{index}]"));
            }
        }
        _ => assert_eq!(new, old, "{place}"),
    }
}

#[test]
fn a_database_of_version_1_opens_with_all_its_jobs() {
    let mut service = Service::prepare(&[]);
    fs::create_dir_all(service.path("data")).unwrap();
    let database = zstd::decode_all(fs::File::open(released("store.db.zst")).unwrap()).unwrap();
    fs::write(service.path("data").join("adtally.db"), database).unwrap();
    service.launch();
    let known: Value = serde_json::from_slice(&fs::read(released("store.jobs.json")).unwrap()).unwrap();
    let known_jobs = known["jobs"].as_array().unwrap();
    for old in known_jobs {
        let path = old["links"]["self"].as_str().unwrap();
        let new = service.get(path).expect(200);
        if old["state"] == "receiving" {
            assert_eq!((&new["state"], &new["name"]), (&json!("failed"), &old["name"]));
            assert_eq!(new["error"]["type"], "urn:adtally:problem:server_stopped", "{new}");
            continue;
        }
        assert_says(&new, old, path);
        for (name, link) in old["links"]["results"].as_object().unwrap() {
            let result = service.get(link.as_str().unwrap());
            let etag = format!("\"{}\"", fingerprint(Sha256::digest(&result.body).into()));
            assert_eq!((result.status, result.header("etag")), (200, Some(etag.as_str())), "{path} {name}");
        }
    }
    let listed = service.get("/v1/jobs?limit=100").expect(200);
    assert_eq!(listed["jobs"].as_array().unwrap().len(), known_jobs.len());
    let expired = known["expired"].as_str().unwrap();
    service.get(&format!("/v1/jobs/{expired}")).expect_problem(410, "job_expired", &[expired]);
    // Keys still mean the jobs they meant.
    let replay = service.send("PUT", "/v1/jobs/ad_data.csv?top=25", &[("idempotency-key", "key-of-ad_data")], b"");
    assert_eq!((replay.status, replay.header("idempotency-replayed")), (200, Some("true")));
    service.put("/v1/jobs/new", b"campaign_id,date,impressions,clicks,spend,conversions\n").expect(201);
}
