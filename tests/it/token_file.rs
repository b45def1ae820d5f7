//! A token file that changes while the service runs, and what that means for requests that are under way.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use serde_json::json;

use crate::harness::{Run, Workspace, adtally, run, send_signal};
use crate::senders::csv;
use crate::service::{PATIENCE, Service};
use crate::tokens::{Client, Guarded, make_token};

/// Tries again until it is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

fn is_taken(client: &Client<'_>) -> bool {
    client.get("/v1/jobs").status == 200
}

/// A server with tokens of these names, all of one tenant; the tokens, and their lines.
fn team<const N: usize>(names: [&str; N], arguments: &[&str]) -> (Guarded, [String; N], [String; N]) {
    let made = names.map(|name| make_token(&[name, "--tenant", "team"]));
    let lines = made.clone().map(|(_, line)| line);
    let mut guarded = Guarded::prepare(&lines.each_ref().map(String::as_str), arguments);
    guarded.service.launch();
    (guarded, made.map(|(token, _)| token), lines)
}

impl Guarded {
    fn hang_up(&mut self) {
        let process = self.service.process().id();
        send_signal("HUP", process);
    }

    fn log(&self) -> String {
        self.service.log()
    }
}

#[test]
fn a_file_that_changes_is_read_again() {
    let (guarded, [one, other], [line, other_line]) = team(["one", "other"], &[]);
    // Put in its place.
    guarded.replace_file(&other_line);
    wait_until("the first token is revoked", || !is_taken(&guarded.client(&one)));
    assert!(is_taken(&guarded.client(&other)));
    // Written over.
    fs::write(guarded.path("tokens"), format!("{line}\n{other_line}\n")).unwrap();
    wait_until("the first token is taken again", || is_taken(&guarded.client(&one)));
    // As orchestrators do: a link to a directory that another one replaces.
    for (version, text) in [("v1", &line), ("v2", &other_line)] {
        fs::create_dir(guarded.path(version)).unwrap();
        fs::write(guarded.path(version).join("tokens"), text).unwrap();
    }
    let switch = |version: &str, name: &str| {
        std::os::unix::fs::symlink(guarded.path(version), guarded.path("next")).unwrap();
        fs::rename(guarded.path("next"), guarded.path(name)).unwrap();
    };
    switch("v1", "current");
    std::os::unix::fs::symlink("current/tokens", guarded.path("link")).unwrap();
    fs::rename(guarded.path("link"), guarded.path("tokens")).unwrap();
    wait_until("the second token is revoked", || !is_taken(&guarded.client(&other)));
    switch("v2", "current");
    wait_until("the tokens are exchanged", || is_taken(&guarded.client(&other)) && !is_taken(&guarded.client(&one)));
}

#[test]
fn sighup_has_the_file_read_at_once() {
    let (mut guarded, [one, other], [_, other_line]) = team(["one", "other"], &[]);
    guarded.replace_file(&other_line);
    guarded.hang_up();
    wait_until("it was read", || guarded.log().contains("the token file was read"));
    assert!(!is_taken(&guarded.client(&one)) && is_taken(&guarded.client(&other)));
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    let (mut guarded, [token], [line]) = team(["one"], &[]);
    for (text, says) in [
        (format!("# tokens\n{line}\nother:team\n"), "line 3: expected NAME:TENANT:SHA256[:admin][:expires=DATE]"),
        (format!("{line}\n{line}\n"), "line 2: an earlier line has a token of the same name"),
        (format!("{line}\nother:team:{token}\n"), "line 2: SHA256: expected the 64 hexadecimal digits"),
    ] {
        guarded.replace_file(&text);
        guarded.hang_up();
        wait_until(says, || guarded.log().contains(says));
        assert!(is_taken(&guarded.client(&token)), "{says}");
    }
    fs::remove_file(guarded.path("tokens")).unwrap();
    guarded.hang_up();
    wait_until("it is missed", || guarded.log().contains("No such file"));
    assert!(is_taken(&guarded.client(&token)));
    assert!(!guarded.log().contains(&token[8..40]), "the log shows a token that stands in the file");
    assert!(guarded.log().contains("what was read before stays in use"));
}

/// Tries to start a server that is to refuse.
fn serve(arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let place = Workspace::new();
    let mut command = adtally();
    command.args(["serve", "--data-dir"]).arg(place.path("data")).args(arguments).envs(variables.iter().copied());
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        assert!(!place.path("data").exists(), "a server that refuses makes nothing");
    } else {
        server.kill().unwrap();
    }
    Run { stdout: line, ..Run::of(server.wait_with_output().unwrap()) }
}

#[test]
fn a_server_does_not_start_with_a_file_that_cannot_be_used() {
    let place = Workspace::new();
    let file = place.path("tokens").to_str().unwrap().to_owned();
    let start = || serve(&["--listen", "127.0.0.1:0", "--token-file", &file], &[]);
    start().assert_refused(&["--token-file", &file, "No such file"]);
    place.write("tokens", "# tokens\n\nci:acme:12\n");
    start().assert_refused(&["--token-file", &file, "line 3: SHA256: expected the 64 hexadecimal digits"]);
    let check = run(adtally().args(["serve", "--check", "--listen", "127.0.0.1:0", "--token-file", &file]), b"");
    assert!(check.code == Some(1) && check.stderr.contains("line 3: SHA256"), "{check:?}");
    place.write("tokens", "");
    assert!(start().stdout.starts_with("listening"), "an empty file lets nobody in");
}

#[test]
fn without_tokens_a_server_listens_on_this_machine_only() {
    let place = Workspace::new();
    place.write("tokens", make_token(&["ci"]).1);
    let file = place.path("tokens").to_str().unwrap().to_owned();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
        let refused = serve(&["--listen", address], &[]);
        refused.assert_refused(&["--listen", address, "--token-file", "127.0.0.1", "--insecure-no-auth"]);
        assert_eq!(serve(&[], &[("ADTALLY_LISTEN", address)]).code, Some(1), "{address}");
    }
    let everywhere = ["--listen", "0.0.0.0:0"];
    let warned = serve(&[&everywhere[..], &["--insecure-no-auth"]].concat(), &[]);
    assert!(warned.stdout.starts_with("listening on http://0.0.0.0:"), "{warned:?}");
    assert!(warned.stderr.contains("everybody who reaches the address can use the service"), "{warned:?}");
    let check = run(adtally().args(["serve", "--check", "--listen", "0.0.0.0:0"]), b"");
    assert!(check.code == Some(1) && check.stderr.contains("--insecure-no-auth"), "{check:?}");
    for (arguments, variables) in [
        (&["--token-file", file.as_str()][..], &[][..]),
        (&[], &[("ADTALLY_TOKEN_FILE", file.as_str())]),
        (&[], &[("ADTALLY_INSECURE_NO_AUTH", "1")]),
        (&[], &[("ADTALLY_INSECURE_NO_AUTH", "true")]),
    ] {
        let run = serve(&[&everywhere[..], arguments].concat(), variables);
        assert!(run.stdout.starts_with("listening on http://0.0.0.0:"), "{run:?}");
    }
    assert_eq!(serve(&everywhere, &[("ADTALLY_INSECURE_NO_AUTH", "false")]).code, Some(1));
    let loopback = serve(&["--listen", "127.0.0.2:0"], &[]);
    assert!(loopback.stdout.starts_with("listening on http://127.0.0.2:") && !loopback.stderr.contains("WARN"));
    // With both, tokens are asked for.
    let service = Service::start_with(&["--token-file", &file, "--insecure-no-auth"]);
    service.get("/v1/jobs").expect_problem(401, "unauthorized", &[]);
}

#[test]
fn an_upload_whose_token_is_revoked_is_interrupted_and_goes_on_with_another() {
    let (mut guarded, [revoked, other], [_, other_line]) = team(["revoked", "other"], &[]);
    let whole = csv(20_000);
    let half = whole.len() / 2;
    let client = guarded.client(&revoked);
    let mut connections = Vec::new();
    // One of known length, one that its end alone completes, and one that gets all of its bytes but the end.
    let length = format!("Content-Length: {}\r\n", whole.len());
    for (name, fields, sent) in [
        ("known", length.as_str(), whole[..half].to_vec()),
        ("chunked", "Transfer-Encoding: chunked\r\n", crate::senders::chunk(&whole[..half])),
        ("whole", "Transfer-Encoding: chunked\r\n", crate::senders::chunk(&whole)),
    ] {
        let mut connection = guarded.service.connect();
        connection.send(client.head("PUT", &format!("/v1/jobs/{name}"), fields)).send(sent);
        connections.push((name, connection));
    }
    for (name, _) in &connections {
        let other = guarded.client(&other);
        wait_until("bytes come", || {
            let job = other.get(&format!("/v1/jobs/{name}"));
            job.status == 200 && job.json()["progress"]["rows_read"].as_u64() > Some(9000)
        });
    }
    guarded.replace_file(&other_line);
    guarded.hang_up();
    let client = guarded.client(&other);
    for (name, mut connection) in connections {
        let refused = connection.read_reply();
        refused.expect_problem(401, "token_revoked", &["revoked or has expired"]);
        assert_eq!(refused.headers_named("www-authenticate").len(), 2);
        let job = client.get(&format!("/v1/jobs/{name}")).expect(200);
        assert_eq!((&job["state"], &job["stats"]), (&json!("interrupted"), &json!(null)), "{job}");
        let resume = job["links"]["resume"].as_str().unwrap();
        let offset = client.send("HEAD", resume, &[], b"").header("upload-offset").unwrap().to_owned();
        assert_eq!(refused.header("upload-offset"), Some(&*offset));
        let offset: usize = offset.parse().unwrap();
        assert!(offset >= half, "what came is stored: {offset}");
        let rest =
            client.send("PATCH", resume, &[("upload-offset", &offset.to_string())], &whole[offset..]).expect(200);
        assert_eq!((&rest["state"], &rest["stats"]["rows_read"]), (&json!("succeeded"), &json!(20_000)), "{name}");
    }
}

#[test]
fn waiting_and_watching_end_with_the_token() {
    let (mut guarded, [revoked, other], [_, other_line]) = team(["revoked", "other"], &[]);
    let client = guarded.client(&revoked);
    let job = client.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let path = job["links"]["self"].as_str().unwrap();
    let mut events = guarded.service.connect();
    events.send(client.head("GET", &format!("{path}/events"), "Connection: close\r\n")).read_until("event: state");
    let mut waiting = guarded.service.connect();
    waiting.send(client.head("GET", path, "Prefer: wait=60\r\n"));
    // That it waits cannot be seen from outside; a wait that begins later is refused at once, as every request.
    guarded.replace_file(&other_line);
    guarded.hang_up();
    let refused = waiting.read_reply();
    assert_eq!(refused.status, 401, "{refused:?}");
    events.read_until_closed();
    guarded.client(&other).get(path).expect(200);
}

#[test]
fn a_token_that_expires_ends_what_runs_with_it() {
    let (guarded, [token], [line]) = team(["one"], &[]);
    let client = guarded.client(&token);
    let job = client.send("POST", "/v1/jobs", &[("content-type", "application/json")], b"{}").expect(201);
    let path = job["links"]["self"].as_str().unwrap();
    let mut events = guarded.service.connect();
    events.send(client.head("GET", &format!("{path}/events"), "Connection: close\r\n")).read_until("event: state");
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    guarded.replace_file(&format!("{line}:expires={soon}"));
    wait_until("the new date is known", || guarded.log().contains("the token file was read"));
    events.read_until_closed();
    client.get(path).expect_problem(401, "token_expired", &[]);
}
