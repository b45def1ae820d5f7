//! The options that tell how reports are written: every door takes them, and refuses what they cannot be.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::files::{file_path, job_path, open};
use crate::harness::{HEADER, Workspace, adtally, run};
use crate::senders::{FORM_TYPE, form};
use crate::service::{PATIENCE, Reply, Service};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Every option that is a word, with a value under which a plain file is read as without it.
const OPTIONS: [(&str, &str); 15] = [
    ("format", "google_ads_api"),
    ("columns", COLUMNS),
    ("header", "first"),
    ("delimiter", ","),
    ("decimal", "."),
    ("thousands", "none"),
    ("conversions", "whole"),
    ("currency", "none"),
    ("spend_unit", "1"),
    ("zero_if_empty", "none"),
    ("totals", "none"),
    ("end", "file"),
    ("id_brackets", "false"),
    ("rejects", "all"),
    ("max_skipped", "12.5%"),
];

const COLUMNS: &str =
    "campaign_id:campaign_id;date:date;impressions:impressions;clicks:clicks;spend:spend|Cost;conversions:conversions";

/// A value that each of them does not take, and what the refusal says.
const WRONG: [(&str, &str, &str); 17] = [
    ("format", "googleads", "expected one of google_ads, google_ads_api, meta_ads, microsoft_ads"),
    ("format", "", "expected one of"),
    ("columns", "cost:Cost", "campaign_id, date, impressions, clicks, spend, conversions"),
    ("header", "second", "expected first, find"),
    ("delimiter", "::", "delimiter"),
    ("decimal", "dot", "expected \".\", \",\", auto"),
    ("thousands", "_", "expected none, \",\", \".\", space, \"'\", any"),
    ("conversions", "2", "expected whole, decimal"),
    ("currency", "EUR", "expected none, strip"),
    ("spend_unit", "100", "expected 1, micros"),
    ("zero_if_empty", "spend", "expected clicks, conversions"),
    ("end", "never", "expected file, blank_line"),
    ("id_brackets", "yes", "expected true or false"),
    ("rejects", "none", "expected first, all"),
    ("max_skipped", "0.00001%", "at most 4 decimals"),
    ("max_skipped", "101%", "at most 100%"),
    ("max_skipped", "-1", "a number of rows"),
];

/// Options that contradict each other, and the one to be changed.
const CONFLICTS: [(&[(&str, &str)], &str); 7] = [
    (&[("decimal", ","), ("thousands", ",")], "thousands"),
    (&[("thousands", "point")], "thousands"),
    (&[("format", "linkedin_ads"), ("decimal", "comma")], "thousands"),
    (&[("format", "dv360"), ("has_header", "false")], "has_header"),
    (&[("columns", "spend:Cost"), ("has_header", "false")], "has_header"),
    (&[("header", "find"), ("has_header", "false")], "has_header"),
    (&[("delimiter", "auto"), ("has_header", "false")], "has_header"),
];

fn query(options: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(options).finish()
}

fn metadata(options: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = options.iter().map(|(name, value)| format!("{name} {}", STANDARD.encode(value))).collect();
    pairs.join(",")
}

/// The flags of the command that say the same.
fn flags(options: &[(&str, &str)]) -> Vec<String> {
    options.iter().map(|(name, value)| format!("--{}={value}", name.replace('_', "-"))).collect()
}

/// A file that the plain contract reads.
fn plain() -> Vec<u8> {
    format!("{HEADER}A,2025-01-01,100,5,1.50,1\n").into_bytes()
}

/// A document whose members have the types that JSON has for them.
fn document(options: &[(&str, &str)]) -> String {
    let value = |name: &str, value: &str| match (name, value) {
        ("has_header", "true" | "false") => json!(value == "true"),
        _ => json!(value),
    };
    let options: serde_json::Map<_, _> =
        options.iter().map(|(name, text)| ((*name).to_owned(), value(name, text))).collect();
    json!({"options": options}).to_string()
}

/// The ways in which a job is made, each with what it is answered.
fn doors(service: &Service, options: &[(&str, &str)]) -> Vec<(&'static str, Reply)> {
    let (query, file) = (query(options), plain());
    let file_part = ("name=\"file\"; filename=\"a.csv\"", &*file);
    let names: Vec<_> = options.iter().map(|(name, _)| format!("name=\"{name}\"")).collect();
    let mut parts: Vec<_> =
        names.iter().zip(options).map(|(name, (_, value))| (name.as_str(), value.as_bytes())).collect();
    parts.push(file_part);
    let post = |path: &str, content_type: &str, body: &[u8]| {
        service.send("POST", path, &[("content-type", content_type)], body)
    };
    let length = file.len().to_string();
    let fields = [
        ("tus-resumable", "1.0.0"),
        ("upload-length", &*length),
        ("upload-metadata", &metadata(options)),
        ("content-type", "application/offset+octet-stream"),
    ];
    vec![
        ("PUT", service.put(&format!("/v1/jobs?{query}"), &file)),
        ("PUT with a name", service.put(&format!("/v1/jobs/a.csv?{query}"), &file)),
        ("POST", post(&format!("/v1/jobs?{query}"), "text/csv", &file)),
        ("query of a form", post(&format!("/v1/jobs?{query}"), FORM_TYPE, &form(&[file_part]))),
        ("fields of a form", post("/v1/jobs", FORM_TYPE, &form(&parts))),
        ("JSON", post("/v1/jobs", "application/json", document(options).as_bytes())),
        ("tus", service.send("POST", "/v1/tus", &fields, &file)),
    ]
}

/// The job that one of the doors has made.
#[track_caller]
fn made(service: &Service, door: &str, reply: &Reply) -> Value {
    assert_eq!(reply.status, 201, "{door}: {}", reply.text());
    let location = reply.header("location").unwrap();
    service.get(&job_path(location.split('/').nth(3).unwrap())).expect(200)
}

#[test]
fn every_door_takes_every_option() {
    let service = Service::start();
    let mut expected = json!({"delimiter": ",", "has_header": true, "encoding": "utf-8", "top": 10});
    for (name, value) in OPTIONS {
        expected[name] = json!(value);
    }
    expected["id_brackets"] = json!(false);
    for (door, reply) in doors(&service, &OPTIONS) {
        let job = made(&service, door, &reply);
        assert_eq!(job["options"], expected, "{door}");
        let is_open = door == "JSON";
        assert_eq!(job["state"], if is_open { "open" } else { "succeeded" }, "{door}: {job}");
    }
    // One at a time: no other option is shown.
    for option in OPTIONS.into_iter().filter(|(name, _)| *name != "format") {
        let mut expected = json!({"delimiter": ",", "has_header": true, "encoding": "utf-8", "top": 10});
        expected[option.0] = if option.0 == "id_brackets" { json!(false) } else { json!(option.1) };
        let job = service.send("POST", "/v1/jobs", &[JSON], document(&[option]).as_bytes()).expect(201);
        assert_eq!(job["options"], expected, "{option:?}");
    }
}

#[test]
fn every_door_refuses_what_an_option_cannot_be() {
    let service = Service::start();
    for (name, value, says) in WRONG {
        for (door, reply) in doors(&service, &[(name, value)]) {
            assert_eq!(reply.status, 400, "{door}: {name}={value}: {}", reply.text());
            reply.expect_problem(400, "invalid_option", &[&format!("{name}: "), says]);
        }
    }
    for (options, name) in CONFLICTS {
        for (door, reply) in doors(&service, options) {
            assert_eq!(reply.status, 400, "{door}: {options:?}: {}", reply.text());
            reply.expect_problem(400, "invalid_option", &[&format!("{name}: ")]);
        }
    }
    // Forms whose fields came too late to refuse them have made jobs, which failed.
    let jobs = service.get("/v1/jobs?limit=100").expect(200)["jobs"].clone();
    let failed = jobs.as_array().unwrap();
    assert_eq!(failed.len(), WRONG.len() + CONFLICTS.len());
    assert!(failed.iter().all(|job| job["state"] == "failed"), "{jobs}");
    let typed = [("text/csv; header=absent", "format=meta_ads"), ("text/csv; header=absent", "delimiter=auto")];
    for (content_type, query) in typed {
        let reply = service.send("PUT", &format!("/v1/jobs?{query}"), &[("content-type", content_type)], &plain());
        reply.expect_problem(400, "invalid_option", &["has_header: "]);
    }
}

#[test]
fn members_of_a_document_have_the_types_that_json_has_for_them() {
    let service = Service::start();
    let send =
        |options: &Value| service.send("POST", "/v1/jobs", &[JSON], json!({"options": options}).to_string().as_bytes());
    let options = json!({"id_brackets": true, "max_skipped": 1000, "totals": "", "delimiter": "tab", "columns": null});
    let shown = send(&options).expect(201)["options"].clone();
    let expected = json!({
        "delimiter": "\t", "has_header": true, "encoding": "utf-8", "top": 10, "id_brackets": true, "totals": "",
        "max_skipped": "1000",
    });
    assert_eq!(shown, expected);
    for options in [
        json!({"formats": "meta_ads"}),
        json!({"format": 7}),
        json!({"columns": {"spend": "Cost"}}),
        json!({"spend_unit": 1}),
        json!({"totals": ["Total:"]}),
        json!({"id_brackets": 1}),
        json!({"max_skipped": true}),
    ] {
        send(&options).expect_problem(400, "invalid_body", &["options: "]);
    }
    send(&json!({"max_skipped": 0.5})).expect_problem(400, "invalid_option", &["max_skipped: "]);
}

#[test]
fn options_in_a_form_come_before_its_files_and_once() {
    let service = Service::start();
    let file = plain();
    let send = |path: &str, headers: &[(&str, &str)], parts: &[(&str, &[u8])]| {
        service.send("POST", path, &[&[("content-type", FORM_TYPE)], headers].concat(), &form(parts))
    };
    let file_part = ("name=\"file\"; filename=\"a.csv\"", &*file);
    let option = |name: &'static str, value: &'static str| (name, value.as_bytes());
    let late = send("/v1/jobs", &[], &[file_part, option("name=\"top\"", "3")]);
    late.expect_problem(400, "invalid_option", &["top: ", "before the first file"]);
    let twice = send("/v1/jobs?top=3", &[], &[option("name=\"top\"", "3"), file_part]);
    twice.expect_problem(400, "invalid_option", &["top: ", "more than once"]);
    let long = "x".repeat(9000);
    let long = send("/v1/jobs", &[], &[("name=\"columns\"", long.as_bytes()), file_part]);
    long.expect_problem(400, "invalid_option", &["columns: ", "8192"]);
    let bytes = send("/v1/jobs", &[], &[("name=\"totals\"", b"\xff"), file_part]);
    bytes.expect_problem(400, "invalid_option", &["totals: ", "UTF-8"]);
    // Other fields are passed over, and a part with a file name is a file, whatever its name.
    let parts = [option("name=\"note\"", "x"), ("name=\"top\"; filename=\"top\"", &*file)];
    assert_eq!(send("/v1/jobs", &[], &parts).expect(201)["options"]["top"], 10);
    // What the form says holds for all of its files, for the results, and for a retry.
    let parts = [option("name=\"top\"", "3"), option("name=\"rejects\"", "all"), file_part, file_part];
    let key = [("idempotency-key", "k")];
    let job = send("/v1/jobs?max_skipped=7", &key, &parts).expect(201);
    assert_eq!((&job["options"]["top"], &job["options"]["max_skipped"]), (&json!(3), &json!("7")));
    assert!(job["links"]["results"]["top3_ctr.csv"].is_string(), "{job}");
    let again = send("/v1/jobs?max_skipped=7", &key, &parts);
    assert_eq!((again.header("idempotency-replayed"), &again.expect(200)["id"]), (Some("true"), &job["id"]));
    send("/v1/jobs?max_skipped=8", &key, &parts).expect_problem(422, "idempotency_key_reused", &[]);
}

#[test]
fn a_file_is_read_as_its_job_says_unless_it_says_otherwise() {
    let service = Service::start();
    let file = plain();
    let of_job = [("columns", COLUMNS), ("totals", "Total:"), ("max_skipped", "0.5%")];
    let options: serde_json::Map<_, _> =
        of_job.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let id = open(&service, &json!({"options": options}));
    let put = |name: &str, query: &str| service.put(&format!("{}?{query}", file_path(&id, name)), &file);
    let is_same = |name: &str, query: &str| match put(name, query).status {
        200 => true,
        409 => false,
        status => panic!("{status}"),
    };
    // Sent again, a complete file must be read as it was.
    assert_eq!(put("inherits", "").status, 201);
    assert!(is_same("inherits", "") && is_same("inherits", &query(&of_job)));
    assert!(is_same("inherits", "delimiter=,") && !is_same("inherits", "delimiter=auto"));
    assert!(!is_same("inherits", "totals=none") && !is_same("inherits", "max_skipped=1"));
    assert_eq!(put("adds", "decimal=point").status, 201);
    assert!(is_same("adds", "decimal=.") && is_same("adds", "totals=Total:&decimal=.") && !is_same("adds", ""));
    // A format begins anew, but for what does not tell how the file is written.
    let format = query(&[("format", "google_ads_api"), ("columns", COLUMNS), ("spend_unit", "1")]);
    assert_eq!(put("format", &format).status, 201);
    assert!(is_same("format", &format) && is_same("format", &format!("{format}&delimiter=auto&max_skipped=0.5%")));
    assert!(
        !is_same("format", &format!("{format}&totals=Total:")) && !is_same("format", &format!("{format}&delimiter=,"))
    );
    assert!(!is_same("format", "") && !is_same("format", &format!("{format}&max_skipped=1")));
    // What is refused is refused before the file is looked for.
    for (options, name) in CONFLICTS {
        put("conflict", &query(options)).expect_problem(400, "invalid_option", &[&format!("{name}: ")]);
    }
    for (name, value, says) in WRONG {
        put("wrong", &query(&[(name, value)])).expect_problem(400, "invalid_option", &[&format!("{name}: "), says]);
    }
    let without_header = [("content-type", "text/csv; header=absent")];
    let reply = service.send("PUT", &file_path(&id, "typed"), &without_header, &file);
    reply.expect_problem(400, "invalid_option", &["has_header: "]);
    put("top", "top=3").expect_problem(400, "unknown_option", &["top", "max_skipped"]);
    let decimal = service.put(&format!("{}?thousands=.", file_path(&id, "adds")), &file);
    decimal.expect_problem(400, "invalid_option", &["thousands: "]);
    service.request("POST", &format!("{}/complete", job_path(&id))).expect(200);
}

#[test]
fn a_tus_upload_to_a_job_has_options_of_its_own() {
    let service = Service::start();
    let id = open(&service, &json!({"options": {"decimal": ",", "conversions": "decimal"}}));
    let file = plain();
    let length = file.len().to_string();
    let create = |name: &str, options: &[(&str, &str)]| {
        let metadata = metadata(&[&[("filename", name), ("job", &*id)], options].concat());
        let fields = [("tus-resumable", "1.0.0"), ("upload-length", &*length), ("upload-metadata", &*metadata)];
        service.send("POST", "/v1/tus", &fields, b"")
    };
    assert_eq!(create("a.csv", &[("decimal", "."), ("thousands", ",")]).status, 201);
    create("b.csv", &[("thousands", ",")]).expect_problem(400, "invalid_option", &["thousands: "]);
    create("b.csv", &[("top", "3")]).expect_problem(400, "invalid_option", &["top: "]);
    create("b.csv", &[("format", "x")]).expect_problem(400, "invalid_option", &["format: ", "expected one of"]);
    // Only the file with the options it was created with is that file.
    let put = |query: &str| service.put(&format!("{}?{query}", file_path(&id, "a.csv")), &file);
    put("thousands=none").expect_problem(409, "other_options", &[]);
    assert_eq!(put("decimal=.&thousands=,&conversions=decimal").status, 201);
}

#[test]
fn jobs_of_forms_that_break_off_keep_the_options_of_their_fields() {
    let mut service = Service::start();
    let body = form(&[("name=\"rejects\"", b"all"), ("name=\"f\"; filename=\"a.csv\"", &plain())]);
    let mut connection = service.connect();
    let head = format!("POST /v1/jobs?name=form HTTP/1.1\r\nHost: test\r\nContent-Type: {FORM_TYPE}\r\n");
    connection.send(format!("{head}Content-Length: {}\r\n\r\n", body.len() + 10)).send(&body);
    let wait = |service: &Service, is_there: &dyn Fn(&Value) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let job = service.get("/v1/jobs/form").json();
            if is_there(&job) {
                return job;
            }
            assert!(Instant::now() < deadline, "{job}");
        }
    };
    let options = wait(&service, &|job| job["progress"]["rows_read"] == 1)["options"].clone();
    assert_eq!(options["rejects"], "all");
    drop(connection);
    assert_eq!(wait(&service, &|job| job["state"] == "open")["options"], options);
    service.crash_and_restart();
    assert_eq!(service.get("/v1/jobs/form").expect(200)["options"], options);
}

#[test]
fn options_survive_a_restart() {
    let mut service = Service::start();
    let id = open(&service, &json!({"options": {"format": "google_ads", "columns": COLUMNS, "max_skipped": "1%"}}));
    let before = service.get(&job_path(&id)).expect(200)["options"].clone();
    assert_eq!(before["delimiter"], "auto");
    service.crash_and_restart();
    assert_eq!(service.get(&job_path(&id)).expect(200)["options"], before);
}

#[test]
fn the_command_has_a_flag_for_every_option() {
    let place = Workspace::new();
    place.write("ads.csv", plain());
    let files = ["--input", "ads.csv", "--output", "results"].map(str::to_owned);
    let aggregate = |options: &[(&str, &str)]| run(&mut place.aggregate([&files[..], &flags(options)].concat()), b"");
    aggregate(&OPTIONS).assert_done();
    let spread = ["--thousands", "none", "--spend-unit", "1", "--id-brackets", "false"].map(str::to_owned);
    run(&mut place.aggregate([&files[..], &spread].concat()), b"").assert_done();
    for (name, value, says) in WRONG {
        let wrong = aggregate(&[(name, value)]);
        wrong.assert_misused(&format!("--{}", name.replace('_', "-"))).assert_misused(says);
    }
    for (options, name) in CONFLICTS {
        aggregate(options).assert_misused(&format!("{name}: "));
    }
    let help = run(adtally().args(["aggregate", "--help"]), b"");
    for (name, _) in OPTIONS {
        assert!(
            help.assert_done().stdout.contains(&format!("--{} <", name.replace('_', "-"))),
            "{name}: {}",
            help.stdout
        );
    }
}

#[test]
fn the_formats_are_listed() {
    let service = Service::start();
    let formats = service.get("/v1/formats").expect(200)["formats"].clone();
    let formats = formats.as_array().unwrap();
    let named = |name: &str| formats.iter().find(|format| format["name"] == name).unwrap_or_else(|| panic!("{name}"));
    let google = named("google_ads");
    assert_eq!((&google["title"], &google["status"]), (&json!("Google Ads"), &json!("verified")));
    let columns = "campaign_id:Campaign ID|Kampagnen-ID|ID de la campagne|Campaign|Kampagne|Campagne;date:Day|Tag|Jour;\
        impressions:Impr.|Impressionen;clicks:Clicks|Klicks|Clics;spend:Cost|Kosten|Coût;conversions:Conversions";
    let options = json!({
        "columns": columns, "header": "find", "delimiter": "auto", "decimal": "auto", "thousands": "any",
        "conversions": "decimal", "totals": "Total:|Gesamt:",
    });
    assert_eq!(google["options"], options);
    assert_eq!(named("dv360")["status"], "experimental");
    let microsoft = &named("microsoft_ads")["options"];
    assert_eq!((&microsoft["id_brackets"], &microsoft["end"]), (&json!("true"), &json!("blank_line")));
    service.get("/v1/formats?name=x").expect_problem(400, "unknown_option", &["takes no options"]);
    // What a format stands for can be given as it is listed.
    for format in formats {
        let body = json!({"options": format["options"]}).to_string();
        let job = service.send("POST", "/v1/jobs", &[JSON], body.as_bytes()).expect(201);
        let (shown, listed) = (job["options"].as_object().unwrap(), format["options"].as_object().unwrap());
        for (name, value) in listed {
            assert_eq!(shown[name].to_string().trim_matches('"'), value.to_string().trim_matches('"'), "{name}: {job}");
        }
        assert_eq!(shown.len(), listed.len() + ["has_header", "encoding", "top"].len(), "{job}");
    }
    let list = run(adtally().arg("formats"), b"");
    let lines: Vec<_> = list.assert_done().stdout.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), formats.len());
    for (line, format) in lines.iter().zip(formats) {
        let text = |name: &str| format[name].as_str().unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!((words[0], words[1]), (text("name"), text("status")), "{line}");
        assert!(line.ends_with(text("title")), "{line}");
        let shown = run(adtally().args(["formats", text("name")]), b"");
        let listed = format["options"].as_object().unwrap();
        assert_eq!(shown.assert_done().stdout.lines().count(), listed.len(), "{shown:?}");
        for (name, value) in listed {
            let line = format!("--{} '{}'\n", name.replace('_', "-"), value.as_str().unwrap());
            assert!(shown.stdout.contains(&line), "{line} is missing: {shown:?}");
        }
    }
    run(adtally().args(["formats", "googleads"]), b"").assert_misused("expected one of google_ads, google_ads_api");
}
