//! The conformance cases through the service: whatever way a file takes, the same documents come out.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cases::{Case, csv_table, first_three_columns};
use crate::codings::{bare_deflate, brotli, zlib};
use crate::harness::{gzip, zstandard};
use crate::senders::{FORM_TYPE, form};
use crate::service::{Reply, Service};

/// Text as the value of a parameter in an address.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        write!(escaped, "%{byte:02X}").unwrap();
        escaped
    })
}

/// The options of a case as parameters.
fn parameters(case: &Case) -> String {
    let expectation = &case.expectation;
    let (delimiter, encoding) = (escape(&expectation.delimiter), escape(&expectation.encoding));
    let (has_header, top) = (expectation.has_header, expectation.top);
    format!("delimiter={delimiter}&encoding={encoding}&has_header={has_header}&top={top}")
}

/// Checks an answer to an upload of a case, and the documents behind it.
fn check(service: &Service, case: &Case, way: &str, reply: &Reply) {
    let way = format!("{} {way}", case.name);
    match (&case.expectation.stats, &case.expectation.error) {
        (Some(stats), _) => {
            assert_eq!(reply.status, 201, "{way}: {}", reply.text());
            check_documents(service, case, &way, &reply.json(), stats);
        }
        (None, code) => {
            assert_eq!(reply.status, 422, "{way}: {}", reply.text());
            let problem = reply.expect_problem(422, code.as_deref().unwrap(), &[]);
            check_failed_job(service, &way, &problem);
        }
    }
}

fn check_documents(service: &Service, case: &Case, way: &str, job: &Value, expected_stats: &Value) {
    assert_eq!(job["state"], "succeeded", "{way}");
    let rejects = case.expected("rejects.csv");
    let mut names = vec!["campaigns.csv".to_owned(), "stats.json".to_owned()];
    names.extend(case.lists());
    if rejects.lines().count() > 1 {
        names.push("rejects.csv".to_owned());
    }
    names.sort();
    let links = job["links"]["results"].as_object().unwrap();
    assert_eq!(links.keys().cloned().collect::<Vec<_>>(), names, "{way}");
    let document = |name: &str| {
        let reply = service.get(links[name].as_str().unwrap());
        assert_eq!(reply.status, 200, "{way}: {name}");
        reply.text().to_owned()
    };
    for name in ["campaigns.csv".to_owned()].into_iter().chain(case.lists()) {
        assert_eq!(document(&name), case.expected(&name), "{way}: {name}");
    }
    if rejects.lines().count() > 1 {
        assert_eq!(first_three_columns(&document("rejects.csv")), rejects, "{way}: rejects.csv");
    }
    let stats: Value = serde_json::from_str(&document("stats.json")).unwrap();
    assert_eq!(job["stats"], stats, "{way}");
    for (name, value) in expected_stats.as_object().unwrap() {
        assert_eq!(stats[name], *value, "{way}: {name}");
    }
    // The lists in the job are those of the tables.
    for (list, name) in ["top_ctr", "top_cpa"].into_iter().zip(case.lists()) {
        let text = |leader: &Value, member: &str| leader[member].as_str().unwrap_or_default().to_owned();
        let leaders = job[list].as_array().unwrap().iter();
        let leaders: Vec<_> =
            leaders.map(|leader| ["campaign_id", "total_spend", "ctr", "cpa"].map(|name| text(leader, name))).collect();
        let rows = csv_table(&case.expected(&name));
        let rows: Vec<_> = rows[1..].iter().map(|row| [0, 3, 5, 6].map(|column| row[column].clone())).collect();
        assert_eq!(leaders, rows, "{way}: {list}");
    }
}

/// A job that failed has the same problem as its sender was told, and no results.
fn check_failed_job(service: &Service, way: &str, problem: &Value) {
    let job = service.get(problem["job"].as_str().unwrap()).expect(200);
    assert_eq!(job["state"], "failed", "{way}");
    for member in ["type", "title", "status", "detail"] {
        assert_eq!(job["error"][member], problem[member], "{way}: {member}");
    }
    assert_eq!(job["stats"], Value::Null, "{way}");
    assert_eq!(job["links"]["results"], Value::Object(serde_json::Map::new()), "{way}");
    let results = format!("{}/results/campaigns.csv", problem["job"].as_str().unwrap());
    service.get(&results).expect_problem(409, "job_not_finished", &["failed"]);
}

/// Sends every case to one server.
fn for_every_case(way: &str, send: impl Fn(&Service, &Case, &str) -> Reply) {
    let service = Service::start();
    for case in Case::all() {
        let reply = send(&service, &case, &parameters(&case));
        check(&service, &case, way, &reply);
    }
}

#[test]
fn a_body_of_known_length_gives_the_documents_of_every_case() {
    for_every_case("known length", |service, case, options| {
        service.put(&format!("/v1/jobs/input.csv?{options}"), &case.input)
    });
}

#[test]
fn a_chunked_body_gives_the_documents_of_every_case() {
    for_every_case("chunked", |service, case, options| {
        service.put_chunked(&format!("/v1/jobs/?{options}"), &mut case.input.as_slice())
    });
}

#[test]
fn a_posted_table_gives_the_documents_of_every_case() {
    for_every_case("text/csv", |service, case, _| {
        let expectation = &case.expectation;
        let header = if expectation.has_header { "present" } else { "absent" };
        let content_type = format!("text/csv; charset={}; header={header}", expectation.encoding);
        let path = format!("/v1/jobs?delimiter={}&top={}", escape(&expectation.delimiter), expectation.top);
        service.send("POST", &path, &[("content-type", &content_type)], &case.input)
    });
}

#[test]
fn a_form_gives_the_documents_of_every_case() {
    for_every_case("form", |service, case, options| {
        let body = form(&[("name=\"comment\"", b"none"), ("name=\"file\"; filename=\"input.csv\"", &case.input)]);
        service.send("POST", &format!("/v1/jobs?{options}"), &[("content-type", FORM_TYPE)], &body)
    });
}

#[test]
fn compression_known_by_its_first_bytes_changes_no_document() {
    for_every_case("gzip by its first bytes", |service, case, options| {
        service.put(&format!("/v1/jobs/input.csv.gz?{options}"), &gzip(&case.input))
    });
    for_every_case("zstd by its first bytes", |service, case, options| {
        service.put(&format!("/v1/jobs/input.csv.zst?{options}"), &zstandard(&case.input))
    });
}

#[test]
fn compression_within_a_form_changes_no_document() {
    for_every_case("gzip in a form", |service, case, options| {
        let body = form(&[("name=\"file\"; filename=\"input.csv.gz\"", &gzip(&case.input))]);
        service.send("POST", &format!("/v1/jobs?{options}"), &[("content-type", FORM_TYPE)], &body)
    });
}

#[test]
fn content_codings_change_no_document() {
    type Compress = fn(&[u8]) -> Vec<u8>;
    let codings: [(&str, Compress); 5] =
        [("gzip", gzip), ("zstd", zstandard), ("deflate", zlib), ("deflate", bare_deflate), ("br", brotli)];
    for (coding, compress) in codings {
        for_every_case(coding, |service, case, options| {
            let headers = [("content-encoding", coding)];
            service.send("PUT", &format!("/v1/jobs/input.csv?{options}"), &headers, &compress(&case.input))
        });
    }
}
