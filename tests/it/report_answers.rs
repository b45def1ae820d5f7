//! Reports of ad platforms from outside: by the command and over HTTP, whole and resumed, and what is told when they cannot be
//! read.

use std::fs;

use serde_json::{Value, json};

use crate::files::{complete, file_path, open};
use crate::harness::{HEADER, Workspace, project_path};
use crate::resume::{outcome, patch, place};
use crate::service::Service;

type Options = Vec<(&'static str, String)>;

/// Exports as platforms write them, how they are read, and what is expected of each.
fn exports() -> Vec<(String, Vec<u8>, Options, Value)> {
    let directory = project_path("tests/exports");
    let names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut exports: Vec<_> = names.filter_map(|name| name.strip_suffix(".csv").map(str::to_owned)).collect();
    exports.sort();
    assert_eq!(exports.len(), 7);
    let export = |name: String| {
        let expected: Value =
            serde_json::from_slice(&fs::read(directory.join(format!("{name}.json"))).unwrap()).unwrap();
        let preset = expected["preset"].as_str().unwrap();
        let mut options = vec![("format", preset.split(' ').next().unwrap().to_owned())];
        if let Some(encoding) = expected["options"]["encoding"].as_str() {
            options.push(("encoding", encoding.to_owned()));
            options.push(("decimal", ",".to_owned()));
            options.push(("thousands", ".".to_owned()));
        }
        (name.clone(), fs::read(directory.join(format!("{name}.csv"))).unwrap(), options, expected["expected"].clone())
    };
    exports.into_iter().map(export).collect()
}

fn query(options: &[(&str, String)]) -> String {
    let pairs: Vec<_> = options.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// The rows of a kind that the JSON beside an export tells of.
fn told(expected: &Value, reason: &str) -> usize {
    expected["skipped"].as_array().unwrap().iter().filter(|row| row["reason"] == reason).count()
}

/// Spend with two decimals, rounded half up.
fn cents(spend: &str) -> String {
    let (whole, decimals) = spend.split_once('.').unwrap_or((spend, ""));
    let thousandths: u64 = format!("{whole}{decimals:0<3.3}").parse().unwrap();
    let cents = (thousandths + 5) / 10;
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// Checks a table of campaigns and the statistics of an export.
#[track_caller]
fn check(name: &str, expected: &Value, campaigns: &str, stats: &Value) {
    let mut lines = campaigns.lines().skip(1);
    for (id, sums) in expected["campaigns"].as_object().unwrap() {
        let text = |field: &str| sums[field].as_str().map_or_else(|| sums[field].to_string(), str::to_owned);
        let is_quoted = id.contains([',', '"']);
        let id = if is_quoted { format!("\"{}\"", id.replace('"', "\"\"")) } else { id.clone() };
        let wanted =
            [id, text("impressions"), text("clicks"), cents(&text("spend")), text("conversions")].join(",") + ",";
        let found = lines.next().unwrap_or_default();
        assert!(found.starts_with(&wanted), "{name}: expected {wanted}, found {found}");
    }
    assert_eq!(lines.next(), None, "{name}");
    assert_eq!(
        (&stats["rows_read"], &stats["rows_skipped"]),
        (&expected["rows_counted"], &json!(0)),
        "{name}: {stats}"
    );
    assert_eq!(stats["rows_total"], told(expected, "total"), "{name}: {stats}");
    assert_eq!(stats["rows_footer"], told(expected, "footer"), "{name}: {stats}");
    let total_lines: Vec<_> = expected["skipped"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["reason"] == "total")
        .map(|row| &row["line"])
        .collect();
    assert_eq!(stats["files"][0]["total_lines"], json!(total_lines), "{name}: {stats}");
}

#[test]
fn exports_of_platforms_are_read_by_the_command() {
    for (name, contents, options, expected) in exports() {
        let place = Workspace::new();
        place.write("export.csv", contents);
        let flags: Vec<_> = options.iter().map(|(name, value)| format!("--{name} {value}")).collect();
        place.run(&format!("--input export.csv --output out --all-campaigns {}", flags.join(" "))).assert_done();
        check(&name, &expected, &place.read("out/campaigns.csv"), &place.read_json("out/stats.json"));
    }
}

#[test]
fn exports_of_platforms_are_read_over_http_whole_and_resumed() {
    let mut service = Service::start();
    for (name, contents, options, expected) in exports() {
        let whole = service.put(&format!("/v1/jobs/exported?{}", query(&options)), &contents).expect(201);
        // Once more, in parts: the sender vanishes, the server is killed, another goes on.
        let sent = contents.len() / 2;
        let target = format!("/v1/jobs/exported?{}", query(&options));
        let head = format!("PUT {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", contents.len());
        let mut connection = service.connect();
        connection.send(head).send(&contents[..sent]).half_close();
        assert!(connection.read_rest().contains("upload_incomplete"), "{name}");
        service.crash_and_restart();
        let (resume, offset) = place(&service, &service.get("/v1/jobs/exported").expect(200));
        assert_eq!(offset, sent, "{name}");
        let resumed = patch(&service, &resume, offset, &contents[offset..]).expect(200);
        assert_eq!(outcome(&service, &resumed), outcome(&service, &whole), "{name}");
        for job in [whole, resumed] {
            let campaigns = service.get(job["links"]["results"]["campaigns.csv"].as_str().unwrap());
            check(&name, &expected, campaigns.text(), &job["stats"]);
        }
    }
}

#[test]
fn what_was_found_out_about_a_report_is_told() {
    let service = Service::start();
    let contents = fs::read(project_path("tests/exports/google_ads_en.csv")).unwrap();
    let job = service.put("/v1/jobs/told?format=google_ads", &contents).expect(201);
    let stats = &job["stats"];
    assert_eq!((&stats["rows_preamble"], &stats["rows_total"], &stats["warnings"]), (&json!(2), &json!(4), &json!([])));
    let file = &stats["files"][0];
    assert_eq!((&file["keyed_by"], &file["decimal"], &file["delimiter"]), (&json!("id"), &json!("."), &json!(",")));
    assert_eq!(file["columns"]["impressions"], "Impr.");
    assert_eq!(file["columns"]["campaign_id"], "Campaign ID");
    assert_eq!(file["totals_check"], json!({"result": "equal", "line": 24, "different": []}));
    // The account's total and those of the kinds are spends of totals, too.
    assert_eq!(file["total_spend"], "824325.41");
    let conversions: Vec<_> =
        job["top_ctr"].as_array().unwrap().iter().map(|leader| &leader["total_conversions"]).collect();
    assert!(conversions.contains(&&json!("3917.2")), "{conversions:?}");
    let excel = fs::read(project_path("tests/exports/google_ads_en_excel.csv")).unwrap();
    let job = service.put("/v1/jobs/told?format=google_ads", &excel).expect(201);
    assert_eq!(job["stats"]["files"][0]["keyed_by"], "name");
    assert_eq!(job["stats"]["files"][0]["delimiter"], "tab");
}

#[test]
fn a_doubtful_report_is_read_with_a_warning() {
    let service = Service::start();
    let contents = fs::read_to_string(project_path("tests/exports/meta_ads.csv")).unwrap();
    let other_kind = contents.replacen("actions:offsite_conversion.fb_pixel_purchase", "actions:link_click", 1);
    let without_id = other_kind.replacen("\"Sales | Lamps\",120211111111111113", "\"Sales | Lamps\",", 1);
    let job = service.put("/v1/jobs/meta?format=meta_ads", without_id.as_bytes()).expect(201);
    let warnings = job["stats"]["warnings"].to_string();
    for says in ["2 rows without a campaign", "several kinds", "actions:link_click"] {
        assert!(warnings.contains(says), "{warnings}");
    }
    let more = contents.replace("108646", "108647");
    let job = service.put("/v1/jobs/meta?format=meta_ads", more.as_bytes()).expect(201);
    let warnings = job["stats"]["warnings"].to_string();
    assert!(warnings.contains("impressions: 108647 in the file, 108646 counted"), "{warnings}");
}

#[test]
fn a_refused_header_names_the_format_that_would_read_the_file() {
    let service = Service::start();
    for (name, contents, options, _) in exports().into_iter().filter(|(name, ..)| !name.contains("_de_")) {
        let format = &options[0].1;
        let says = format!("format={format}");
        service.put("/v1/jobs/plain", &contents).expect_problem(422, "missing_columns", &[&says]);
        let place = Workspace::new();
        place.write("export.csv", &contents);
        place.run("--input export.csv --output out").assert_refused(&[&says]);
        // With another format, too.
        let other = if format == "google_ads_api" { "meta_ads" } else { "google_ads_api" };
        let reply = service.put(&format!("/v1/jobs/other?format={other}"), &contents);
        reply.expect_problem(422, "missing_columns", &[&says, "no header was found in the first", "comes closest"]);
        assert!(!name.is_empty());
    }
    let unknown = "name,spend\nA,1\n";
    let problem =
        service.put("/v1/jobs/plain", unknown.as_bytes()).expect_problem(422, "missing_columns", &["campaign_id"]);
    assert!(!problem["detail"].as_str().unwrap().contains("format="), "{problem}");
}

#[test]
fn spreadsheets_and_archives_are_told_from_csv() {
    let service = Service::start();
    for (start, says) in
        [(&b"PK\x03\x04\x14\0"[..], "zip"), (b"PK\x05\x06\0\0", "zip"), (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel")]
    {
        let contents = [start, &[7; 1000]].concat();
        service.put("/v1/jobs/sheet", &contents).expect_problem(422, "not_csv", &[says, "save it as CSV"]);
        service.put("/v1/jobs/sheet?format=tiktok_ads", &contents).expect_problem(422, "not_csv", &[says]);
        let place = Workspace::new();
        place.write("sheet.csv", &contents);
        for input in ["sheet.csv", "-"] {
            let run = place.run_with_input(&format!("--input {input} --output out --has-header false"), &contents);
            run.assert_refused(&[says, "save it as CSV"]);
        }
    }
}

#[test]
fn too_many_skipped_rows_fail_the_job_and_say_why() {
    let service = Service::start();
    let rows = |bad: usize| {
        HEADER.to_owned() + &"A,,x,1,1,1\n".repeat(bad) + "A,,1,1,y,1\n" + &"A,,1,1,1,1\n".repeat(199 - bad)
    };
    for (bad, max_skipped) in [(4, "5"), (0, "0.5%"), (1, "1%"), (199, "100%")] {
        service
            .put(&format!("/v1/jobs/some?max_skipped={}", max_skipped.replace('%', "%25")), rows(bad).as_bytes())
            .expect(201);
        let place = Workspace::new();
        place.write("ads.csv", rows(bad));
        place.run(&format!("--input ads.csv --output out --max-skipped {max_skipped}")).assert_done();
    }
    for (bad, max_skipped, told) in [
        (5, "5", "6 of 6 rows"),
        (0, "0", "1 of 1 rows"),
        (1, "0.5%", "2 of 200 rows"),
        (0, "0.4999%", "1 of 200 rows"),
    ] {
        let path = format!("/v1/jobs/some?max_skipped={}", max_skipped.replace('%', "%25"));
        let says = ["max_skipped", told, &format!("at most {max_skipped} may be"), "1 for spend"];
        let problem = service.put(&path, rows(bad).as_bytes()).expect_problem(422, "too_many_skipped", &says);
        let first = &problem["skipped"]["first"][bad];
        assert_eq!(*first, json!({"line": bad + 2, "reason": "spend", "record": "A,,1,1,y,1"}), "{problem}");
        assert_eq!(problem["skipped"]["reasons"]["spend"], 1);
        let job = service.get(problem["job"].as_str().unwrap()).expect(200);
        assert_eq!(job["error"]["skipped"], problem["skipped"]);
        let place = Workspace::new();
        place.write("ads.csv", rows(bad));
        let run = place.run(&format!("--input ads.csv --output out --max-skipped {max_skipped}"));
        run.assert_refused(&[told, "line 2 ("]);
        assert!(!place.path("out").exists());
    }
}

#[test]
fn the_budget_of_a_job_is_that_of_each_of_its_files() {
    let service = Service::start();
    let id = open(&service, &json!({"options": {"max_skipped": 1}}));
    let file = |name: &str| file_path(&id, name);
    let bad = HEADER.to_owned() + "A,,1,1,1,1\nA,,1,1,y,1\n";
    service.put(&file("a.csv"), bad.as_bytes()).expect(201);
    let worse = bad.clone() + "A,,1,1,z,1\n";
    service.put(&file("b.csv"), worse.as_bytes()).expect_problem(422, "too_many_skipped", &["2 of 3 rows"]);
    let share = format!("{}?max_skipped=60%25", file("b.csv"));
    service.put(&share, worse.as_bytes()).expect_problem(422, "too_many_skipped", &["2 of 3 rows", "60%"]);
    service.put(&format!("{}?max_skipped=70%25", file("b.csv")), worse.as_bytes()).expect(201);
    assert_eq!(complete(&service, &id).expect(200)["stats"]["rows_skipped"], 3);
    let place = Workspace::new();
    place.write("a.csv", &bad);
    place.write("b.csv", &worse);
    place.run("--input a.csv a.csv --output out --max-skipped 1").assert_done();
    place.run("--input a.csv b.csv --output out --max-skipped 1").assert_refused(&["adtally: b.csv: 2 of 3 rows"]);
}

#[test]
fn files_that_do_not_belong_together_are_told() {
    let service = Service::start();
    let id = open(&service, &json!({"options": {"format": "meta_ads"}}));
    let report = |key: &str, currency: &str| {
        format!("{key},Impressions,Link clicks,Amount spent ({currency}),Results\n1,1,1,1.50,1\n")
    };
    service.put(&file_path(&id, "a.csv"), report("Campaign ID", "EUR").as_bytes()).expect(201);
    service.put(&file_path(&id, "b.csv"), report("Campaign name", "USD").as_bytes()).expect(201);
    let warnings = complete(&service, &id).expect(200)["stats"]["warnings"].to_string();
    assert!(warnings.contains("several currencies, which have no sum: EUR, USD"), "{warnings}");
    assert!(warnings.contains("others by its name"), "{warnings}");
    let put = |format: &str, text: &str| {
        let job = service.put(&format!("/v1/jobs/x?format={format}"), text.as_bytes()).expect(201);
        job["stats"]["warnings"].to_string()
    };
    let google = "Campaign ID,Impr.,Clicks,Cost,Conversions\n";
    let twice = format!("{google}7,10,1,1.50,1\nCampaign ID,Clicks,Impr.,Cost,Conversions\n7,1,10,1.50,1\n");
    assert!(put("google_ads", &twice).contains("line 3 repeats the header"));
    assert!(put("google_ads", &format!("{google}7,x,1,1.50,1\n")).contains("none of 1 row counts"));
    let pinterest = "Campaign ID,Impressions,Pin clicks,Spend in account currency,Total conversions (Checkout)\n";
    let warnings = put("pinterest_ads", &format!("{pinterest}7,10,1,1.50,1\n,10,1,1.50,1\n"));
    assert!(warnings.contains("1 row without a campaign"), "{warnings}");
    let unreadable = format!("{google}7,10,1,1.50,1\nTotal: Campaigns,10,1,\"9.999,50\",1\n");
    assert!(put("google_ads", &unreadable).contains("spend: \\\"9.999,50\\\" in the file cannot be read"));
}
