//! Contents and requests that are meant to harm others: readers of results, of logs, of names, and users of browsers.

use std::io::Read as _;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::json;

use crate::harness::{HEADER, Running, Workspace, gzip, lines};
use crate::senders::{FORM_TYPE, csv, form};
use crate::service::{Reply, Service};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Rows whose ids are formulas for spreadsheet programs, and one that is skipped.
fn formulas() -> Vec<u8> {
    let rows = "\"=HYPERLINK(\"\"http://evil.example\"\",1)\",d,100,5,1.50,1\n+1,d,100,4,1.00,1\n-1,d,100,3,1.00,1\n\
        @SUM(A1),d,100,2,1.00,0\n\"plain, with a comma\",d,100,1,1.00,1\na=b,d,200,1,1.00,1\n=1+1,d,x,1,1,1\n";
    (HEADER.to_owned() + rows).into_bytes()
}

const SAFE_BY_CTR: &str = "campaign_id,total_impressions,total_clicks,total_spend,total_conversions,CTR,CPA\n\
    \"'=HYPERLINK(\"\"http://evil.example\"\",1)\",100,5,1.50,1,0.0500,1.50\n\
    \"'+1\",100,4,1.00,1,0.0400,1.00\n\
    \"'-1\",100,3,1.00,1,0.0300,1.00\n\
    \"'@SUM(A1)\",100,2,1.00,0,0.0200,\n\
    \"plain, with a comma\",100,1,1.00,1,0.0100,1.00\n\
    a=b,200,1,1.00,1,0.0050,1.00\n";

#[test]
fn tables_for_spreadsheet_programs_hold_no_formulas() {
    let service = Service::start();
    let job = service.put("/v1/jobs/ads.csv", &formulas()).expect(201);
    let path = |name: &str| job["links"]["results"][name].as_str().unwrap().to_owned();
    let exact = service.get(&path("top10_ctr.csv"));
    assert!(exact.text().contains("\n+1,100,"), "{}", exact.text());
    assert!(!exact.text().contains('\''), "{}", exact.text());
    let address = path("top10_ctr.csv") + "?spreadsheet=safe";
    let safe = service.get(&address);
    assert_eq!((safe.status, safe.text()), (200, SAFE_BY_CTR));
    assert_eq!(safe.header("content-type"), exact.header("content-type"));
    assert_eq!(safe.header("content-disposition"), exact.header("content-disposition"));
    assert_eq!(safe.header("content-location"), Some(&*address));
    let rejects = service.get(&(path("rejects.csv") + "?spreadsheet=safe"));
    assert!(rejects.text().ends_with(",impressions,\"'=1+1,d,x,1,1,1\"\n"), "{}", rejects.text());
    for name in ["top10_cpa.csv", "campaigns.csv"] {
        let text = service.get(&(path(name) + "?spreadsheet=safe"));
        assert!(text.text().contains("\"'-1\",100,3,1.00,1,0.0300,1.00\n"), "{name}: {}", text.text());
    }
    // It is a representation of its own, known by its own tag, and always sent whole.
    let tag = safe.header("etag").unwrap();
    assert_ne!(Some(tag), exact.header("etag"));
    let known = service.send("GET", &address, &[("if-none-match", tag)], b"");
    assert_eq!((known.status, known.header("etag")), (304, Some(tag)));
    let other = service.send("GET", &address, &[("if-none-match", exact.header("etag").unwrap())], b"");
    assert_eq!(other.status, 200);
    assert_eq!(safe.header("accept-ranges"), None);
    let part = service.send("GET", &address, &[("range", "bytes=5-9")], b"");
    assert_eq!((part.status, part.text()), (200, SAFE_BY_CTR));
    let head = service.request("HEAD", &address);
    assert_eq!((head.status, head.header("etag"), head.body.len()), (200, Some(tag), 0));
}

#[test]
fn spreadsheet_tables_are_for_nothing_else() {
    let service = Service::start();
    let job = service.put("/v1/jobs/ads.csv", &formulas()).expect(201);
    let results = job["links"]["results"].as_object().unwrap();
    let table = results["campaigns.csv"].as_str().unwrap();
    let refused = |reply: &Reply, says: &str| {
        reply.expect_problem(400, "invalid_option", &["spreadsheet", says]);
    };
    refused(&service.get(&format!("{}?spreadsheet=safe", results["stats.json"].as_str().unwrap())), "JSON");
    refused(&service.send("GET", &format!("{table}?spreadsheet=safe"), &[("accept", "application/json")], b""), "JSON");
    refused(&service.get(&format!("{table}?spreadsheet=yes")), "expected safe");
    refused(&service.get(&format!("{table}?spreadsheet=safe&spreadsheet=safe")), "more than once");
    service.get(&format!("{table}?sheet=safe")).expect_problem(400, "unknown_option", &["spreadsheet"]);
}

#[test]
fn a_large_table_is_made_safe_piece_by_piece() {
    let rows = lines(60_000, |number| format!("=campaign-{number:010},d,100,1,1.00,1"));
    let service = Service::start();
    service.put("/v1/jobs/large", (HEADER.to_owned() + &rows).as_bytes()).expect(201);
    let exact = service.get("/v1/jobs/large/results/campaigns.csv");
    assert!(exact.body.len() > 2 << 20, "there are several pieces");
    let safe = service.get("/v1/jobs/large/results/campaigns.csv?spreadsheet=safe");
    let (head, rows) = exact.text().split_once('\n').unwrap();
    let rows = rows.lines().map(|row| row.split_once(',').unwrap());
    let expected: Vec<_> = rows.map(|(id, numbers)| format!("\"'{id}\",{numbers}\n")).collect();
    assert!(safe.text() == format!("{head}\n{}", expected.concat()), "{} bytes", safe.body.len());
}

#[test]
fn the_command_writes_tables_for_spreadsheet_programs() {
    let place = Workspace::new();
    place.write("ads.csv", formulas());
    place.run("--input ads.csv --output exact --all-campaigns").assert_done();
    place.run("--input ads.csv --output safe --all-campaigns --spreadsheet-safe").assert_done();
    assert_eq!(place.read("safe/top10_ctr.csv"), SAFE_BY_CTR);
    assert!(place.read("safe/campaigns.csv").contains("\"'+1\",100,"));
    assert!(place.read("safe/rejects.csv").ends_with(",\"'=1+1,d,x,1,1,1\"\n"));
    assert!(place.read("exact/campaigns.csv").contains("\n+1,100,"));
}

/// Names that look like others, or are shown as others. The first one is shown as `badexe.csv`.
const FALSE_NAMES: [&str; 6] =
    ["bad\u{202e}vsc.exe", "ads\u{200b}.csv", "a\u{2028}b", "\u{feff}ads.csv", "a\u{2066}b", "a\u{378}"];

#[test]
fn names_that_are_not_what_they_seem_are_refused() {
    let service = Service::start();
    let open = service.send("POST", "/v1/jobs", &[JSON], b"{}").expect(201)["id"].as_str().unwrap().to_owned();
    for name in FALSE_NAMES {
        let encoded = percent_encode(name.as_bytes(), NON_ALPHANUMERIC);
        let refused = |reply: Reply| {
            let problem = reply.expect_problem(400, "invalid_name", &["cannot be a name", "U+"]);
            assert!(!problem["detail"].as_str().unwrap().contains(name), "shown as it is: {problem}");
        };
        refused(service.put(&format!("/v1/jobs/{encoded}"), &csv(1)));
        refused(service.send("POST", &format!("/v1/jobs?name={encoded}"), &[], &csv(1)));
        refused(service.send("POST", "/v1/jobs", &[JSON], json!({ "name": name }).to_string().as_bytes()));
        refused(service.put(&format!("/v1/jobs/{open}/files/{encoded}"), &csv(1)));
        let form = form(&[(&format!("name=\"file\"; filename=\"{name}\""), &csv(1))]);
        refused(service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], &form));
        let metadata = format!("filename {}", STANDARD.encode(name));
        let tus = [("tus-resumable", "1.0.0"), ("upload-length", "9"), ("upload-metadata", &*metadata)];
        refused(service.send("POST", "/v1/tus", &tus, b""));
    }
    // Persian, Hebrew, an emoji of several characters.
    for name in [
        "%D9%85%DB%8C%E2%80%8C%D8%AE%D9%88%D8%A7%D9%87%D9%85",
        "%D7%93%D7%95%D7%97",
        "%E2%9D%A4%EF%B8%8F%E2%80%8D%F0%9F%94%A5",
    ] {
        service.put(&format!("/v1/jobs/{name}"), &csv(1)).expect(201);
        service.get(&format!("/v1/jobs/{name}")).expect(200);
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_not_replaced() {
    let service = Service::start();
    let name = service.send("POST", "/v1/jobs?name=%ff", &[], &csv(1));
    name.expect_problem(400, "invalid_option", &["name: expected UTF-8"]);
    service.get("/v1/jobs?name=a%c3").expect_problem(400, "invalid_option", &["name: expected UTF-8"]);
    service.put("/v1/jobs/x?delimiter=%ff", &csv(1)).expect_problem(400, "invalid_option", &["delimiter: expected"]);
    service.put("/v1/jobs/x?%ff=1", &csv(1)).expect_problem(400, "unknown_option", &["%ff"]);
    for path in ["/v1/jobs/%ff", "/v1/jobs/%ff/files/a", "/v1/jobs/a%fe"] {
        service.put(path, &csv(1)).expect_problem(400, "invalid_name", &[]);
    }
    let tus = |metadata: &str| {
        let fields = [("tus-resumable", "1.0.0"), ("upload-length", "9"), ("upload-metadata", metadata)];
        service.send("POST", "/v1/tus", &fields, b"")
    };
    for key in ["filename", "job", "delimiter"] {
        tus(&format!("{key} /w==")).expect_problem(400, "invalid_header", &["upload-metadata", key, "UTF-8"]);
    }
    let send = |disposition: &str, contents: &[u8]| {
        service.send("POST", "/v1/jobs", &[("content-type", FORM_TYPE)], &form(&[(disposition, contents)]))
    };
    send("name=\"delimiter\"", b"\xff").expect_problem(400, "invalid_option", &["delimiter: expected UTF-8"]);
    send("name=\"file\"; filename*=UTF-8''%ff.csv", &csv(1)).expect_problem(400, "invalid_name", &["charset"]);
    let document = b"{\"name\":\"\xff\"}";
    service.send("POST", "/v1/jobs", &[JSON], document).expect_problem(400, "invalid_body", &[]);
    service.send("POST", "/v1/jobs", &[JSON], br#"{"name":"\ud800"}"#).expect_problem(400, "invalid_body", &[]);
}

#[test]
fn browsers_are_told_what_they_must_not_do() {
    let service = Service::start_with(&["--cors-origin", "https://ads.example.com"]);
    let job = service.put("/v1/jobs/ads.csv", &formulas()).expect(201);
    let table = job["links"]["results"]["campaigns.csv"].as_str().unwrap();
    for path in
        ["/healthz", "/metrics", "/openapi.yaml", "/v1/jobs", "/v1/jobs/ads.csv", table, "/nothing", "/v1/jobs/nobody"]
    {
        for method in ["GET", "HEAD", "TRACE"] {
            let reply = service.request(method, path);
            let policy = reply.header("content-security-policy").unwrap_or_default();
            assert!(
                policy.starts_with("default-src 'none'; ") && policy.ends_with("frame-ancestors 'none'"),
                "{policy}"
            );
            assert!(!policy.contains("sha256"), "{policy}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
            assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{path}");
            assert_eq!(reply.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        }
    }
}

#[test]
fn pages_of_other_origins_change_nothing() {
    let service = Service::start_with(&["--cors-origin", "https://ads.example.com"]);
    let own = format!("http://{}", service.address());
    let job = service.send("PUT", "/v1/jobs/ads.csv", &[("origin", &*own)], &csv(1)).expect(201);
    let path = job["links"]["self"].as_str().unwrap();
    let cancel = format!("{path}/cancel");
    for fields in [
        &[("origin", "http://evil.example")][..],
        &[("origin", "null")],
        &[("origin", "http://127.0.0.1:1")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", &*own), ("sec-fetch-site", "cross-site")],
    ] {
        for (method, path) in
            [("PUT", path), ("POST", "/v1/jobs"), ("DELETE", path), ("POST", &*cancel), ("POST", "/v1/tus")]
        {
            let reply = service.send(method, path, fields, b"");
            reply.expect_problem(403, "cross_origin", &["--cors-origin"]);
        }
        // Reading is for those who are allowed to read the answer, which browsers see to.
        assert_eq!(service.send("GET", path, fields, b"").status, 200);
    }
    // Refused before the body: it is not even asked for.
    let mut connection = service.connect();
    connection.send(
        "POST /v1/jobs HTTP/1.1\r\nHost: test\r\nOrigin: null\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    );
    assert_eq!(connection.read_reply().status, 403);
    for fields in [
        &[("origin", "https://ads.example.com"), ("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-origin")],
        &[],
    ] {
        service.send("PUT", "/v1/jobs/allowed", fields, &csv(1)).expect(201);
    }
    let evil = [("content-type", FORM_TYPE), ("origin", "http://evil.example")];
    service.send("POST", "/v1/jobs", &evil, &form(&[("name=\"file\"; filename=\"a\"", b"x")])).expect_problem(
        403,
        "cross_origin",
        &["evil.example"],
    );
}

/// The status of a request for this host.
fn status_for(service: &Service, host: &str) -> u16 {
    service.connect().send(format!("GET /v1/jobs HTTP/1.1\r\nHost: {host}\r\n\r\n")).read_reply().status
}

#[test]
fn a_loopback_service_has_no_names_that_others_choose() {
    let service = Service::start_with(&["--allowed-host", "ads.example.com,proxy"]);
    for host in [
        "localhost",
        "localhost:8080",
        "x.localhost",
        "127.0.0.1:8080",
        "127.9.9.9",
        "[::1]:80",
        "192.0.2.7",
        "ADS.example.com",
        "proxy:80",
    ] {
        assert_eq!(status_for(&service, host), 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "ads.example.com.evil.example",
        "127.0.0.1.evil.example",
    ] {
        assert_eq!(status_for(&service, host), 421, "{host}");
    }
    let mut connection = service.connect();
    connection.send("GET http://evil.example/v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = connection.read_reply();
    reply.expect_problem(421, "unknown_host", &["evil.example", "--allowed-host"]);
    assert_eq!(status_for(&Service::start_with(&["--allowed-host", "*"]), "evil.example"), 200);
    for wrong in ["http://a", "a:80", "*.a", ""] {
        let mut command = Service::prepare(&["--allowed-host", wrong]).command();
        crate::harness::run(&mut command, b"").assert_misused("--allowed-host");
    }
}

#[test]
fn a_parameter_wins_over_a_bad_content_type() {
    let service = Service::start();
    let put = |query: &str, content_type: &str| {
        service.send("PUT", &format!("/v1/jobs/x{query}"), &[("content-type", content_type)], &csv(1))
    };
    for (query, content_type, name) in [
        ("?encoding=utf-8", "text/csv; charset=klingon", "charset"),
        ("?has_header=true", "text/csv; header=perhaps", "header"),
    ] {
        let job = put(query, content_type).expect(201);
        assert_eq!((&job["options"]["encoding"], &job["options"]["has_header"]), (&json!("utf-8"), &json!(true)));
        put("", content_type).expect_problem(400, "invalid_header", &["content-type", name]);
    }
    put("?encoding=utf-8", "text/csv; header=perhaps").expect_problem(400, "invalid_header", &["header"]);
}

#[test]
fn a_coding_that_is_named_twice_is_told_so() {
    let service = Service::start();
    let says = ["compressed twice", "gzip and then with gzip", "named once"];
    let head = "PUT /v1/jobs/x HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\nabc";
    service.connect().send(head).read_reply().expect_problem(415, "unsupported_content_coding", &says);
    let reply = service.send("PUT", "/v1/jobs/x", &[("content-encoding", "gzip, gzip")], &gzip(&csv(1)));
    reply.expect_problem(415, "unsupported_content_coding", &says);
    assert_eq!(reply.header("accept-encoding"), Some("gzip, zstd, br, deflate, identity"));
    let reply = service.send("PUT", "/v1/jobs/x", &[("content-encoding", "br, zstd")], b"abc");
    reply.expect_problem(415, "unsupported_content_coding", &["br and then with zstd"]);
}

#[test]
fn conditions_on_jobs_are_kept() {
    let service = Service::start();
    let job = service.put("/v1/jobs/ads.csv", &csv(1)).expect(201);
    let path = job["links"]["self"].as_str().unwrap();
    let tag = service.get(path).header("etag").unwrap().to_owned();
    let send = |method: &str, path: &str, condition: &str| service.send(method, path, &[("if-match", condition)], b"");
    for path in [path, "/v1/jobs/ads.csv"] {
        let refused = send("DELETE", path, "\"other\"");
        refused.expect_problem(412, "precondition_failed", &["if-match", &tag]);
        send("POST", &format!("{path}/cancel"), "\"other\"").expect_problem(412, "precondition_failed", &[]);
        send("POST", &format!("{path}/complete"), "\"other\"").expect_problem(412, "precondition_failed", &[]);
        send("POST", &format!("{path}/complete"), &tag).expect(200);
        send("POST", &format!("{path}/complete"), "*").expect(200);
    }
    send("DELETE", path, "nonsense").expect_problem(412, "precondition_failed", &["if-match"]);
    send("DELETE", "/v1/jobs/nobody", "*").expect_problem(404, "job_not_found", &[]);
    service.get(path).expect(200);
    assert_eq!(send("DELETE", "/v1/jobs/ads.csv", &format!("\"other\", {tag}")).status, 204);
    // A compressed answer is the same job.
    let job = service.put("/v1/jobs/ads.csv", &csv(2)).expect(201);
    let path = job["links"]["self"].as_str().unwrap();
    let compressed = service.send("GET", path, &[("accept-encoding", "gzip")], b"").header("etag").unwrap().to_owned();
    assert_eq!(send("DELETE", path, &compressed).status, 204);
}

#[test]
fn a_request_that_makes_a_job_never_meets_if_match() {
    let service = Service::start();
    let job = service.put("/v1/jobs/ads.csv", &csv(1));
    let tag = job.header("etag").unwrap_or("\"tag\"").to_owned();
    let form = "multipart/form-data; boundary=b";
    for condition in ["*", "\"other\"", &tag] {
        for (method, path, media) in [
            ("PUT", "/v1/jobs/ads.csv", "text/csv"),
            ("PUT", "/v1/jobs/new.csv", "text/csv"),
            ("PUT", "/v1/jobs", "text/csv"),
            ("POST", "/v1/jobs", "text/csv"),
            ("POST", "/v1/jobs", form),
            ("POST", "/v1/jobs", "application/json"),
        ] {
            // The answer comes without a byte of the body.
            let mut connection = service.connect();
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: {media}\r\nIf-Match: {condition}\r\n\
                 Expect: 100-continue\r\nContent-Length: 20\r\n\r\n"
            );
            connection.send(head).read_reply().expect_problem(412, "precondition_failed", &["if-match"]);
        }
    }
    let malformed = service.send("PUT", "/v1/jobs/ads.csv", &[("if-match", "\"a")], &csv(1));
    malformed.expect_problem(400, "invalid_header", &["if-match"]);
    assert_eq!(service.get("/v1/jobs").expect(200)["jobs"].as_array().unwrap().len(), 1, "nothing was made");
}

#[test]
fn a_job_is_only_made_where_its_name_is_free() {
    let service = Service::start();
    let create = |method: &str, path: &str, more: &[(&str, &str)]| {
        service.send(method, path, &[&[("if-none-match", "*")], more].concat(), &csv(1))
    };
    let job = create("PUT", "/v1/jobs/ads.csv", &[("idempotency-key", "k")]).expect(201);
    for (method, path) in [("PUT", "/v1/jobs/ads.csv"), ("POST", "/v1/jobs?name=ads.csv")] {
        let problem = create(method, path, &[]).expect_problem(412, "precondition_failed", &["ads.csv"]);
        assert_eq!(problem["job"], job["links"]["self"]);
    }
    let open = service.send("POST", "/v1/jobs", &[JSON, ("if-none-match", "*")], br#"{"name":"ads.csv"}"#);
    open.expect_problem(412, "precondition_failed", &[]);
    // The same request again is answered with what it made.
    let again = create("PUT", "/v1/jobs/ads.csv", &[("idempotency-key", "k")]).expect(200);
    assert_eq!(again["id"], job["id"]);
    // Other names, no name, and without the condition: as always.
    create("PUT", "/v1/jobs/other.csv", &[]).expect(201);
    create("PUT", "/v1/jobs", &[]).expect(201);
    service.put("/v1/jobs/ads.csv", &csv(1)).expect(201);
    let wrong = service.send("PUT", "/v1/jobs/ads.csv", &[("if-none-match", "\"tag\"")], &csv(1));
    wrong.expect_problem(400, "invalid_header", &["if-none-match"]);
    // A deleted job has no name.
    create("PUT", "/v1/jobs/brief", &[]).expect(201);
    assert_eq!(service.request("DELETE", "/v1/jobs/brief").status, 204);
    create("PUT", "/v1/jobs/brief", &[]).expect(201);
}

#[test]
fn of_many_who_need_a_free_name_one_gets_it() {
    let service = Service::start();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let create = || service.send("PUT", "/v1/jobs/once", &[("if-none-match", "*")], &csv(1)).status;
        let senders: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 7, "{statuses:?}");
}

#[test]
fn conditions_on_files_are_kept() {
    let service = Service::start();
    let open = service.send("POST", "/v1/jobs", &[JSON], b"{}").expect(201);
    let path = format!("{}/files/a.csv", open["links"]["self"].as_str().unwrap());
    let put = |condition: (&str, &str)| service.send("PUT", &path, &[condition], &csv(1));
    put(("if-match", "*")).expect_problem(412, "precondition_failed", &["if-match"]);
    put(("if-none-match", "*")).expect(201);
    put(("if-none-match", "*")).expect_problem(412, "precondition_failed", &["a.csv"]);
    put(("if-match", "\"tag\"")).expect_problem(412, "precondition_failed", &[]);
    // The same file again.
    put(("if-match", "*")).expect(200);
}

#[test]
fn no_request_writes_lines_of_its_own_to_the_log() {
    let service = Service::prepare(&[]);
    let mut process = service.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut address = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(process.stdout.take().unwrap()), &mut address).unwrap();
    let address = address.trim().rsplit('/').next().unwrap().to_owned();
    let mut log = process.stderr.take().unwrap();
    let mut process = Running(process);
    let requests = [
        "GET /v1/jobs/%0a2026-01-01T00:00:00Z%20ERROR%20forged HTTP/1.1",
        "GET /v1/jobs?name=%0d%0aERROR%20forged HTTP/1.1",
        "PUT /v1/jobs/a%0aforged HTTP/1.1\r\nContent-Length: 0",
        "GET /%1b%5b2J%0aforged HTTP/1.1",
        "FORGED-%0a /v1/jobs HTTP/1.1",
        "GET /v1/jobs HTTP/1.1\r\nUser-Agent: forged\u{1b}[2J\r\nX-Request-Id: forged\tforged",
    ];
    for request in requests {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        std::io::Write::write_all(
            &mut stream,
            format!("{request}\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    }
    crate::harness::send_signal("TERM", process.0.id());
    process.0.wait().unwrap();
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert!(text.contains(" request "), "{text}");
    assert!(!text.contains("forged") && !text.contains('\u{1b}'), "{text}");
    for line in text.lines() {
        let is_event = line.starts_with("20") && [" INFO ", " WARN "].iter().any(|level| line.contains(level));
        assert!(is_event, "{line:?} in {text}");
    }
}
