//! Who may send a request: tokens that are right, wrong, missing, malformed, expired.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::harness::{Workspace, adtally, run};
use crate::openapi::{Description, filled};
use crate::senders::csv;
use crate::service::{Reply, Service};

/// A server with a token file.
pub(crate) struct Guarded {
    pub(crate) service: Service,
    place: Workspace,
}

/// Requests with a token.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    pub(crate) service: &'a Service,
    pub(crate) token: &'a str,
}

/// Makes a token and its line by the command, with these arguments.
pub(crate) fn make_token(arguments: &[&str]) -> (String, String) {
    let made = run(adtally().arg("token").args(arguments), b"");
    made.assert_done();
    let token = made.stdout.trim_end().to_owned();
    let line =
        made.stderr.lines().find(|line| line.matches(':').count() >= 2 && !line.contains(' ')).unwrap().to_owned();
    (token, line)
}

impl Guarded {
    /// A server that takes tokens made with these arguments, and the tokens.
    pub(crate) fn start<const N: usize>(tokens: [&[&str]; N], arguments: &[&str]) -> (Self, [String; N]) {
        let made = tokens.map(make_token);
        let lines: Vec<_> = made.iter().map(|(_, line)| line.as_str()).collect();
        let mut guarded = Self::prepare(&lines, arguments);
        guarded.service.launch();
        (guarded, made.map(|(token, _)| token))
    }

    /// A server with these lines in its token file, not yet started.
    pub(crate) fn prepare(lines: &[&str], arguments: &[&str]) -> Self {
        let place = Workspace::new();
        place.write("tokens", lines.join("\n"));
        let file = place.path("tokens");
        let service = Service::prepare(&[&["--token-file", file.to_str().unwrap()], arguments].concat());
        Self { service, place }
    }

    pub(crate) fn client<'a>(&'a self, token: &'a str) -> Client<'a> {
        Client { service: &self.service, token }
    }

    /// Replaces the token file as editors do: another file is put in its place.
    pub(crate) fn replace_file(&self, text: &str) {
        self.place.write("new", text);
        std::fs::rename(self.place.path("new"), self.place.path("tokens")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.place.path(name)
    }
}

impl Client<'_> {
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let bearer = format!("Bearer {}", self.token);
        self.service.send(method, path, &[headers, &[("authorization", &bearer)]].concat(), body)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: &[u8]) -> Reply {
        self.send("PUT", path, &[], body)
    }

    /// The head of a request, up to the empty line.
    pub(crate) fn head(&self, method: &str, path: &str, fields: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\n{fields}\r\n", self.token)
    }
}

/// Checks that an answer refuses a token and says how to show one.
#[track_caller]
fn assert_refused(reply: &Reply, method: &str, code: &str) {
    assert_eq!(reply.status, 401, "{reply:?}");
    let challenges = reply.headers_named("www-authenticate");
    assert_eq!(challenges, ["Bearer realm=\"adtally\"", "Basic realm=\"adtally\", charset=\"UTF-8\""], "{reply:?}");
    if method != "HEAD" {
        reply.expect_problem(401, code, &[]);
    }
}

fn is_open(operation: &Value) -> bool {
    operation["security"].as_array().is_some_and(Vec::is_empty)
}

#[test]
fn every_operation_asks_for_a_token_unless_its_description_says_otherwise() {
    let description = Description::read();
    let (guarded, [token, expired]) = Guarded::start([&["ci"], &["old", "--expires", "2001-01-01"]], &[]);
    let service = &guarded.service;
    let (name, secret) = token.rsplit_once('_').unwrap();
    let other_secret = format!("{name}_{}", secret.chars().rev().collect::<String>());
    let bearer = |token: &str| vec![format!("Bearer {token}")];
    let cases = [
        (vec![], "unauthorized"),
        (bearer(&other_secret), "invalid_token"),
        (bearer(&format!("adt_nobody_{secret}")), "invalid_token"),
        (bearer(&token[..token.len() - 1]), "invalid_token"),
        (bearer(""), "invalid_token"),
        (vec![token.clone()], "invalid_token"),
        (vec![format!("Digest {token}")], "invalid_token"),
        (vec![format!("Basic {token}")], "invalid_token"),
        (vec!["Basic !".to_owned()], "invalid_token"),
        (vec![format!("Basic {}", STANDARD.encode(&token))], "invalid_token"),
        ([bearer(&token), bearer(&token)].concat(), "invalid_token"),
        (bearer(&expired), "token_expired"),
        // Whoever does not know the secret is not told that the token has expired.
        (bearer("adt_old_00"), "invalid_token"),
    ];
    let paths = description.paths();
    let paths = paths.iter().flat_map(|(path, operations)| operations.iter().map(move |operation| (path, operation)));
    for (path, (method, operation)) in paths {
        for (values, code) in &cases {
            let fields: Vec<_> = values.iter().map(|value| ("authorization", value.as_str())).collect();
            let path = filled(path);
            let reply = service.send(method, &path, &fields, b"");
            if is_open(operation) {
                assert_eq!(reply.status, 200, "{method} {path}");
                continue;
            }
            assert_refused(&reply, method, code);
            if method != "HEAD" {
                description.assert_answers(operation, &reply);
            }
        }
    }
    // What the router does not know is not told to strangers, either.
    assert_refused(&service.get("/v1/nothing"), "GET", "unauthorized");
    assert_refused(&service.request("TRACE", "/healthz/"), "TRACE", "unauthorized");
    assert_refused(&service.request("TRACE", "/v1/jobs"), "TRACE", "unauthorized");
    assert_refused(&service.get("/%68ealthz"), "GET", "unauthorized");
    guarded.client(&token).get("/v1/nothing").expect_problem(404, "not_found", &[]);
}

#[test]
fn tokens_are_shown_as_bearer_or_as_a_password() {
    let (guarded, [token]) = Guarded::start([&["ci"]], &[]);
    let basic = |pair: String| format!("Basic {}", STANDARD.encode(pair));
    for value in [
        format!("Bearer {token}"),
        format!("bearer {token}"),
        format!("BEARER   {token}"),
        basic(format!(":{token}")),
        basic(format!("somebody:{token}")),
        basic(format!("{token}:{token}")).replace("Basic", "basic"),
    ] {
        let reply = guarded.service.send("GET", "/v1/jobs", &[("authorization", &value)], b"");
        assert_eq!(reply.expect(200)["jobs"], serde_json::json!([]), "{value}");
    }
}

#[test]
fn a_refused_upload_is_not_asked_for() {
    let (guarded, [token]) = Guarded::start([&["ci"]], &[]);
    let head = "PUT /v1/jobs/a HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    let mut connection = guarded.service.connect();
    let reply = connection.send(head).read_reply();
    reply.expect_problem(401, "unauthorized", &[]);
    assert_eq!(reply.header("connection"), Some("close"));
    // One without: the answer comes, and the body is not taken for anything.
    guarded.service.put("/v1/jobs/a", &csv(1000)).expect_problem(401, "unauthorized", &[]);
    let list = guarded.client(&token).get("/v1/jobs").expect(200);
    assert_eq!(list["jobs"], serde_json::json!([]), "a refused upload left a job");
}

#[test]
fn metrics_are_for_administrators() {
    let (guarded, [token, admin]) = Guarded::start([&["ci"], &["root", "--admin"]], &[]);
    let reply = guarded.client(&token).get("/metrics");
    reply.expect_problem(403, "forbidden", &["administrator"]);
    assert_eq!(reply.header("www-authenticate"), None);
    let metrics = guarded.client(&admin).get("/metrics");
    assert!(metrics.status == 200 && metrics.text().contains("http_requests_total"), "{metrics:?}");
    assert_eq!(Service::start().get("/metrics").status, 200, "without a token file nothing asks for one");
}

#[test]
fn the_log_names_tokens_and_never_shows_them() {
    let made = make_token(&["ci", "--tenant", "acme"]);
    let mut guarded = Guarded::prepare(&[&made.1], &["--log-level", "trace", "--log-format", "json"]);
    guarded.service.launch();
    let client = guarded.client(&made.0);
    client.put("/v1/jobs/a", &csv(10)).expect(201);
    let wrong = format!("{}x", &made.0[..made.0.len() - 1]);
    assert_eq!(guarded.client(&wrong).get("/v1/jobs").status, 401);
    let pair = format!("Basic {}", STANDARD.encode(format!(":{}", made.0)));
    assert_eq!(guarded.service.send("GET", "/v1/jobs", &[("authorization", &pair)], b"").status, 200);
    guarded.service.kill();
    let text = guarded.service.log();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let requests: Vec<_> = lines.filter(|line| line["message"] == "request").collect();
    assert_eq!(requests.len(), 3, "{text}");
    assert_eq!((&requests[0]["token"], &requests[0]["tenant"]), (&"ci".into(), &"acme".into()), "{}", requests[0]);
    assert_eq!((&requests[1]["token"], &requests[1]["status"]), (&Value::Null, &401.into()), "{}", requests[1]);
    let secret = made.0.rsplit_once('_').unwrap().1;
    for hidden in [&secret[..20], &wrong[10..30], &pair[20..60]] {
        assert!(!text.contains(hidden), "the log shows {hidden}");
    }
}

#[test]
fn pages_of_named_origins_may_send_tokens() {
    let origin = "https://ads.example.com";
    let (guarded, [token]) = Guarded::start([&["ci"]], &["--cors-origin", origin]);
    let asked = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "authorization"),
    ];
    // Browsers send no token with it.
    let preflight = guarded.service.send("OPTIONS", "/v1/jobs/a", &asked, b"");
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, Some(origin)));
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    assert!(allowed.split(',').any(|name| name.trim().eq_ignore_ascii_case("authorization")), "{allowed}");
    let refused = guarded.service.send("PUT", "/v1/jobs/a", &[("origin", origin)], &csv(3));
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some(origin)));
    let allowed = guarded.client(&token).send("PUT", "/v1/jobs/a", &[("origin", origin)], &csv(3));
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (201, Some(origin)));
}
