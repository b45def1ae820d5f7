//! Results as they are fetched: whole, in part, as JSON, compressed, or not at all when they are known already.

use std::io::Read as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{HEADER, Workspace, lines};
use crate::senders::{csv, curl};
use crate::service::{Reply, Service};

/// A service with one job, and the paths of its results.
struct Done {
    service: Service,
    job: Value,
}

impl Done {
    fn new(body: &[u8]) -> Self {
        let service = Service::start();
        let job = service.put("/v1/jobs/ad_data.csv", body).expect(201);
        Self { service, job }
    }

    fn path(&self, name: &str) -> &str {
        self.job["links"]["results"][name].as_str().unwrap()
    }

    #[track_caller]
    fn get(&self, name: &str, headers: &[(&str, &str)]) -> Reply {
        self.service.send("GET", self.path(name), headers, b"")
    }

    /// Asks for a part, and checks that it is that part.
    #[track_caller]
    fn assert_part(&self, name: &str, whole: &[u8], range: &str, start: usize, end: usize) {
        let reply = self.get(name, &[("range", range)]);
        assert_eq!(reply.status, 206, "{range}: {}", reply.text());
        assert!(reply.body == whole[start..end], "{range}: {} bytes", reply.body.len());
        let content_range = format!("bytes {start}-{}/{}", end - 1, whole.len());
        assert_eq!(reply.header("content-range"), Some(&*content_range));
        assert_eq!(reply.header("content-length"), Some(&*(end - start).to_string()));
    }
}

const BAD_ROW: &[u8] = b"c1,2025-01-01,x,1,1,1\n";

#[test]
fn every_result_says_what_it_is() {
    let done = Done::new(&[&*csv(30), BAD_ROW].concat());
    let table = "text/csv; charset=utf-8; header=present";
    for (name, content_type) in [
        ("top10_ctr.csv", table),
        ("top10_cpa.csv", table),
        ("campaigns.csv", table),
        ("rejects.csv", table),
        ("stats.json", "application/json"),
    ] {
        let reply = done.get(name, &[]);
        assert_eq!(reply.status, 200, "{name}");
        assert_eq!(reply.header("content-type"), Some(content_type), "{name}");
        assert_eq!(reply.header("content-disposition"), Some(&*format!("attachment; filename=\"{name}\"")));
        assert_eq!(reply.header("content-length"), Some(&*reply.body.len().to_string()), "{name}");
        assert_eq!(reply.header("accept-ranges"), Some("bytes"), "{name}");
        assert_eq!(reply.header("content-location"), Some(done.path(name)), "{name}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{name}");
        // The same under the job's name.
        let named = done.service.get(&format!("/v1/jobs/ad_data.csv/results/{name}"));
        assert_eq!((named.status, &named.body), (200, &reply.body), "{name}");
        assert_eq!(named.header("content-location"), Some(done.path(name)), "{name}");
        let head = done.service.request("HEAD", done.path(name));
        assert_eq!((head.status, head.body.len()), (200, 0), "{name}");
        for field in ["content-type", "content-length", "etag", "content-disposition", "accept-ranges"] {
            assert_eq!(head.header(field), reply.header(field), "{name}: {field}");
        }
        let file = done.service.path("results").join(done.job["id"].as_str().unwrap()).join(name);
        assert_eq!(std::fs::read(file).unwrap(), reply.body, "{name}");
    }
}

#[test]
fn other_names_are_no_results() {
    let done = Done::new(&csv(3));
    let id = done.job["id"].as_str().unwrap();
    for name in
        ["rejects.csv", "top25_ctr.csv", "nothing", "TOP10_CTR.CSV", "%2e%2e", "..%2fadtally.db", "a%00b", "%20"]
    {
        let reply = done.service.get(&format!("/v1/jobs/{id}/results/{name}"));
        let problem = reply.expect_problem(404, "result_not_found", &["it has top10_ctr.csv, top10_cpa.csv"]);
        assert_eq!(problem["job"], done.job["links"]["self"], "{name}");
    }
    done.service.get(&format!("/v1/jobs/{id}/results/%ff")).expect_problem(400, "invalid_name", &[]);
    done.service.get(&format!("/v1/jobs/{id}/results/")).expect_problem(404, "not_found", &[]);
    done.service.get(&format!("/v1/jobs/{id}/results")).expect_problem(404, "not_found", &[]);
    done.service.get("/v1/jobs/nobody/results/top10_ctr.csv").expect_problem(404, "job_not_found", &["nobody"]);
    let reply = done.service.get(&format!("{}?x=1", done.path("campaigns.csv")));
    reply.expect_problem(400, "unknown_option", &["expected one of spreadsheet"]);
}

#[test]
fn tables_are_json_for_those_who_ask_for_it() {
    let body = [&b"\xef\xbb\xbf"[..], HEADER.as_bytes(), b"\"a,\"\"b\"\"\",d,3,1,2.5,0\nz,d,4,1,7,2\n,,x\n"].concat();
    let done = Done::new(&body);
    let json = |name: &str| {
        let reply = done.get(name, &[("accept", "application/json")]);
        assert_eq!(reply.header("content-type"), Some("application/json"), "{name}");
        reply.expect(200)
    };
    let first = json!({"campaign_id": "a,\"b\"", "total_impressions": 3, "total_clicks": 1, "total_spend": "2.50",
        "total_conversions": 0, "ctr": "0.3333", "cpa": null});
    let second = json!({"campaign_id": "z", "total_impressions": 4, "total_clicks": 1, "total_spend": "7.00",
        "total_conversions": 2, "ctr": "0.2500", "cpa": "3.50"});
    assert_eq!(json("campaigns.csv"), json!([first, second]));
    assert_eq!(json("top10_ctr.csv"), json!([first, second]));
    assert_eq!(json("top10_ctr.csv"), done.job["top_ctr"]);
    assert_eq!(json("top10_cpa.csv"), json!([second]));
    let offset = body.len() - 3 - 4;
    let reject = json!({"line": 4, "byte_offset": offset, "reason": "column_count", "record": ",,x"});
    assert_eq!(json("rejects.csv"), json!([reject]));
    assert_eq!(json("stats.json"), done.job["stats"]);
    for (accept, content_type) in [
        ("*/*", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv;q=0.1, application/json", "application/json"),
        ("application/json;q=0.1, text/csv", "text/csv"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/csv"),
    ] {
        let reply = done.get("campaigns.csv", &[("accept", accept)]);
        assert!(reply.header("content-type").unwrap().starts_with(content_type), "{accept}: {reply:?}");
        assert!(reply.header("vary").unwrap().contains("accept"), "{reply:?}");
    }
    for accept in ["image/png", "text/csv;q=0", "application/xml, text/html"] {
        let reply = done.get("campaigns.csv", &[("accept", accept)]);
        reply.expect_problem(406, "not_acceptable", &["text/csv or application/json"]);
    }
    // An empty list is one, too.
    let empty = Done::new(HEADER.as_bytes());
    for name in ["campaigns.csv", "top10_cpa.csv"] {
        assert_eq!(empty.get(name, &[("accept", "application/json")]).expect(200), json!([]), "{name}");
        assert_eq!(empty.get(name, &[]).text().lines().count(), 1);
    }
}

#[test]
fn results_that_are_known_are_not_sent_again() {
    let done = Done::new(&csv(30));
    let etag = |headers: &[(&str, &str)]| done.get("campaigns.csv", headers).header("etag").unwrap().to_owned();
    let (csv_tag, json_tag) = (etag(&[]), etag(&[("accept", "application/json")]));
    assert_ne!(csv_tag, json_tag, "other bytes, another tag");
    for (known, accept, status) in [
        (&*csv_tag, "text/csv", 304),
        (&*json_tag, "application/json", 304),
        ("*", "text/csv", 304),
        (&*format!("\"x\", {csv_tag}"), "text/csv", 304),
        (&*format!("W/{csv_tag}"), "text/csv", 304),
        (&*json_tag, "text/csv", 200),
        (&*csv_tag, "application/json", 200),
        ("\"x\"", "text/csv", 200),
    ] {
        let reply = done.get("campaigns.csv", &[("if-none-match", known), ("accept", accept)]);
        assert_eq!(reply.status, status, "{known} {accept}");
        assert_eq!(reply.body.is_empty(), status == 304, "{known} {accept}");
        assert!(reply.header("etag").is_some() && reply.header("cache-control").is_some(), "{reply:?}");
    }
    // The same contents have the same tag in another job.
    let again = done.service.put("/v1/jobs/again", &csv(30)).expect(201);
    let reply = done.service.get(again["links"]["results"]["campaigns.csv"].as_str().unwrap());
    assert_eq!(reply.header("etag"), Some(&*csv_tag));
}

#[test]
fn parts_of_results_are_served() {
    let done = Done::new(&csv(30));
    let whole = done.get("campaigns.csv", &[]).body;
    let length = whole.len();
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=5-", 5, length),
        ("bytes=0-", 0, length),
        ("bytes=-1", length - 1, length),
        ("bytes=-10", length - 10, length),
        ("bytes=10-1000000", 10, length),
        ("bytes=10-18446744073709551615", 10, length),
    ] {
        done.assert_part("campaigns.csv", &whole, range, start, end);
    }
    for range in [format!("bytes={length}-"), format!("bytes={}-{}", length + 5, length + 9), "bytes=-0".to_owned()] {
        let reply = done.get("campaigns.csv", &[("range", &range)]);
        reply.expect_problem(416, "range_not_satisfiable", &[&length.to_string()]);
        assert_eq!(reply.header("content-range"), Some(&*format!("bytes */{length}")), "{range}");
    }
    // Other units and more than one range may be answered with the whole.
    for range in ["lines=0-1", "bytes=0-1,5-6", "bytes"] {
        let reply = done.get("campaigns.csv", &[("range", range)]);
        assert_eq!((reply.status, &reply.body), (200, &whole), "{range}");
    }
    let etag = done.get("campaigns.csv", &[]).header("etag").unwrap().to_owned();
    for (condition, status) in [
        (&*etag, 206),
        ("\"other\"", 200),
        (&*format!("W/{etag}"), 200),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 200),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 200),
    ] {
        let reply = done.get("campaigns.csv", &[("range", "bytes=1-4"), ("if-range", condition)]);
        assert_eq!(reply.status, status, "{condition}");
        let expected = if status == 206 { &whole[1..5] } else { &whole[..] };
        assert_eq!(reply.body, expected, "{condition}");
    }
}

#[test]
fn a_suffix_longer_than_the_result_is_all_of_it() {
    let done = Done::new(&csv(3));
    let whole = done.get("campaigns.csv", &[]).body;
    // RFC 9110, 14.1.2: "the entire representation is used".
    done.assert_part("campaigns.csv", &whole, "bytes=-1000000", 0, whole.len());
}

#[test]
fn ranges_that_make_no_sense_are_passed_over() {
    let done = Done::new(&csv(3));
    let whole = done.get("campaigns.csv", &[]).body;
    // RFC 9110, 14.1.1 and 14.2: invalid, so as if it were not there.
    for range in ["bytes=5-2", "bytes=-", "bytes=a-b", "bytes=", "bytes=1"] {
        let reply = done.get("campaigns.csv", &[("range", range)]);
        assert_eq!((reply.status, &reply.body), (200, &whole), "{range}");
    }
}

#[test]
fn answers_are_compressed_for_those_who_ask_for_it() {
    let done = Done::new(&csv(2000));
    let whole = done.get("campaigns.csv", &[]).body;
    for (coding, decompress) in
        [("gzip", gunzip as fn(&[u8]) -> Vec<u8>), ("zstd", |data| zstd::decode_all(data).unwrap())]
    {
        for accept in ["text/csv", "application/json"] {
            let headers = [("accept-encoding", coding), ("accept", accept)];
            let reply = done.get("campaigns.csv", &headers);
            assert_eq!(reply.header("content-encoding"), Some(coding));
            assert!(reply.header("vary").is_some());
            let plain = done.get("campaigns.csv", &[("accept", accept)]);
            assert_eq!(plain.header("content-encoding"), None);
            assert_eq!(decompress(&reply.body), plain.body, "{coding} {accept}");
        }
        let safe = format!("{}?spreadsheet=safe", done.job["links"]["results"]["campaigns.csv"].as_str().unwrap());
        let reply = done.service.send("GET", &safe, &[("accept-encoding", coding)], b"");
        assert_eq!(reply.header("content-encoding"), Some(coding));
        assert_eq!(decompress(&reply.body), done.service.get(&safe).body, "{coding}");
        let reply = done.service.send("GET", "/v1/jobs/ad_data.csv", &[("accept-encoding", coding)], b"");
        let job: Value = serde_json::from_slice(&decompress(&reply.body)).unwrap();
        assert_eq!(job, done.job, "{coding}");
        // A part is a part of what is not compressed.
        let headers = [("accept-encoding", coding), ("range", "bytes=0-99")];
        let reply = done.get("campaigns.csv", &headers);
        assert_eq!((reply.status, reply.header("content-encoding"), &reply.body[..]), (206, None, &whole[..100]));
    }
}

fn gunzip(data: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(data).read_to_end(&mut text).unwrap();
    text
}

#[test]
fn compressed_bytes_do_not_carry_the_strong_tag_of_the_plain_ones() {
    let done = Done::new(&csv(2000));
    let plain = done.get("campaigns.csv", &[]).header("etag").unwrap().to_owned();
    let reply = done.get("campaigns.csv", &[("accept-encoding", "gzip")]);
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    // RFC 9110, 8.8.3: with the same strong tag a broken download would be continued with the wrong bytes.
    let tag = reply.header("etag").unwrap_or_default();
    assert!(tag.is_empty() || tag.starts_with("W/") || tag != plain, "{tag} for both");
}

#[test]
fn all_campaigns_of_a_large_job_are_those_of_the_command() {
    let rows = lines(100_000, |number| {
        // Ids of all lengths, so that pieces end anywhere.
        let padding = "x".repeat(number as usize * 7 % 60);
        format!(
            "campaign-{number}-{padding},2025-01-01,{},{},{}.25,{}",
            1000 + number,
            number % 50,
            number % 90,
            number % 7
        )
    });
    let body = HEADER.to_owned() + &rows;
    let place = Workspace::new();
    place.write("ads.csv", &body);
    place.run("--input ads.csv --output out --all-campaigns").assert_done();
    let expected = place.read("out/campaigns.csv").into_bytes();
    let done = Done::new(body.as_bytes());
    for name in ["top10_ctr.csv", "top10_cpa.csv"] {
        assert_eq!(done.get(name, &[]).text(), place.read(&format!("out/{name}")), "{name}");
    }
    let whole = done.get("campaigns.csv", &[]).body;
    assert!(whole == expected, "{} and {} bytes", whole.len(), expected.len());
    assert!(whole.len() > 4 << 20, "there are several pieces");
    // Parts that begin, end, or lie around the places where pieces meet: each ends with the line that reaches 256 KiB.
    let line_end = |from: usize| from + whole[from..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut borders = vec![line_end(line_end(0) + (256 << 10) - 1)];
    while borders.last().unwrap() + (512 << 10) < whole.len() {
        borders.push(line_end(borders.last().unwrap() + (256 << 10) - 1));
    }
    for at in borders.into_iter().chain([1 << 20, 2 << 20]) {
        for (start, end) in
            [(at - 1, at + 1), (at, at + 1), (at - 1, at), (at - 300, at + 300), (0, at), (at, whole.len())]
        {
            let range = format!("bytes={start}-{}", end - 1);
            done.assert_part("campaigns.csv", &whole, &range, start, end);
        }
    }
    // Put together from parts as a download that breaks off again and again.
    let mut joined = Vec::new();
    while joined.len() < whole.len() {
        let range = format!("bytes={}-{}", joined.len(), joined.len() + 777_777);
        joined.extend(done.get("campaigns.csv", &[("range", &range)]).body);
    }
    assert!(joined == whole);
    let json = done.get("campaigns.csv", &[("accept", "application/json")]).expect(200);
    let json = json.as_array().unwrap();
    let lines: Vec<_> = std::str::from_utf8(&whole).unwrap().lines().skip(1).collect();
    assert_eq!(json.len(), lines.len());
    for (row, line) in json.iter().zip(lines) {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| row[name].as_u64().unwrap();
        let again = format!(
            "{},{},{},{},{},{},{}",
            text("campaign_id"),
            number("total_impressions"),
            number("total_clicks"),
            text("total_spend"),
            number("total_conversions"),
            text("ctr"),
            text("cpa")
        );
        assert_eq!(again, line);
    }
    let gzipped = done.get("campaigns.csv", &[("accept-encoding", "gzip")]);
    assert!(gunzip(&gzipped.body) == whole);
}

#[test]
fn curl_fetches_results_and_goes_on_where_it_stopped() {
    let done = Done::new(&csv(200));
    let place = Workspace::new();
    let whole = done.get("campaigns.csv", &[]).body;
    let url = done.service.url(done.path("campaigns.csv"));
    let file = place.path("campaigns.csv");
    let file = file.to_str().unwrap();
    let Some(run) = curl(&["--output", file, &url], Stdio::null()) else { return };
    assert_eq!((run.code, run.status), (Some(0), 200), "{run:?}");
    assert_eq!(std::fs::read(file).unwrap(), whole);
    std::fs::write(file, &whole[..100]).unwrap();
    let Some(run) = curl(&["--continue-at", "-", "--output", file, &url], Stdio::null()) else { return };
    assert_eq!((run.code, run.status), (Some(0), 206), "{run:?}");
    assert_eq!(std::fs::read(file).unwrap(), whole);
    let Some(run) = curl(&["--compressed", &url], Stdio::null()) else { return };
    assert_eq!(run.body.as_bytes(), whole, "{run:?}");
}

#[test]
fn entity_tags_that_are_none_match_nothing() {
    let service = Service::start();
    service.put("/v1/jobs/a", &csv(50)).expect(201);
    let path = "/v1/jobs/a/results/campaigns.csv";
    let whole = service.get(path).body;
    for tag in ["\"a b\"", "\"a", "a\"", "W/\"a\tb\"", "\"a\", \"b c\""] {
        assert_eq!(service.send("GET", path, &[("if-none-match", tag)], b"").status, 200, "{tag}");
        assert_eq!(service.send("GET", "/v1/jobs/a", &[("if-none-match", tag)], b"").status, 200, "{tag}");
        let part = service.send("GET", path, &[("if-range", tag), ("range", "bytes=0-3")], b"");
        assert_eq!((part.status, &part.body), (200, &whole), "{tag}");
        let refused = service.send("DELETE", "/v1/jobs/a", &[("if-match", tag)], b"");
        refused.expect_problem(400, "invalid_header", &["if-match", "entity tags"]);
        let refused = service.send("PUT", "/v1/jobs/new", &[("if-none-match", tag)], &csv(1));
        refused.expect_problem(400, "invalid_header", &["if-none-match", "expected *"]);
    }
    service.get("/v1/jobs/new").expect_problem(404, "job_not_found", &[]);
}
