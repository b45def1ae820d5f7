//! What a released version stored is read by every later one. The files in `tests/released` are never made anew.

use std::fs;
use std::path::PathBuf;

use adtally::engine::{AggregateReader, Kernel, Tally, TallyOptions};
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
