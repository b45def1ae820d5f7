//! `adtally token`: what it prints is what the server takes.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Workspace, adtally, run};
use crate::service::Service;
use crate::tokens::{Client, make_token};

#[test]
fn a_token_is_printed_once_with_the_line_to_store() {
    let (token, line) = make_token(&["ci_1", "--tenant", "acme", "--admin", "--expires", "2099-12-31"]);
    let (name, secret) = token.rsplit_once('_').unwrap();
    assert_eq!((name, secret.len()), ("adt_ci_1", 64));
    assert!(secret.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(line.starts_with("ci_1:acme:") && line.ends_with(":admin:expires=2099-12-31"), "{line}");
    assert!(!line.contains(secret));
    let tokens: BTreeSet<_> = (0..10).map(|_| make_token(&["ci"]).0).collect();
    assert_eq!(tokens.len(), 10);
    // Without a tenant, a token shares its jobs with no other.
    assert!(make_token(&["ci"]).1.starts_with("ci:ci:"));
    assert!(make_token(&["ci", "--tenant", ""]).1.starts_with("ci::"));
}

#[test]
fn lines_are_added_to_a_file_that_the_server_takes() {
    let place = Workspace::new();
    let file = place.path("tokens");
    let append = |arguments: &[&str]| {
        let made = run(adtally().arg("token").args(arguments).arg("--append").arg(&file), b"");
        made.assert_done();
        assert_eq!(made.stderr, "", "{made:?}");
        assert_eq!(made.stdout.lines().count(), 1, "{made:?}");
        made.stdout.trim_end().to_owned()
    };
    let first = append(&["first"]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // A last line without an end.
    let text = place.read("tokens");
    place.write("tokens", text.trim_end());
    let second = append(&["second", "--tenant", "first", "--admin"]);
    let service = Service::start_with(&["--token-file", file.to_str().unwrap()]);
    for token in [&first, &second] {
        Client { service: &service, token }.get("/v1/jobs").expect(200);
    }
    Client { service: &service, token: &second }.get("/metrics");
    // What the server would refuse is not added.
    let before = place.read("tokens");
    let again = run(adtally().args(["token", "second", "--append"]).arg(&file), b"");
    again.assert_refused(&["--append", "tokens", "line 3: an earlier line has a token of the same name"]);
    assert_eq!((again.stdout.as_str(), place.read("tokens")), ("", before));
    let nowhere = run(adtally().args(["token", "ci", "--append"]).arg(place.path("no/such/file")), b"");
    nowhere.assert_refused(&["--append", "no/such/file"]);
}

#[test]
fn a_date_that_has_passed_is_warned_of() {
    let made = run(adtally().args(["token", "late", "--expires", "2020-01-31"]), b"");
    made.assert_done();
    assert!(made.stderr.starts_with("warning: 2020-01-31 has passed"), "{made:?}");
}

#[test]
fn names_that_cannot_be_one() {
    let long = "n".repeat(65);
    for name in ["", "a b", "a:b", "a/b", "\u{e4}", "a\n", &long] {
        run(adtally().args(["token", name]), b"").assert_misused("1 to 64 of the characters A-Z a-z 0-9 . _ -");
    }
    for tenant in ["a b", "a:b", "../a", &long] {
        run(adtally().args(["token", "ci", "--tenant", tenant]), b"").assert_misused("at most 64 of the characters");
    }
    for date in ["", "soon", "2027-13-01", "31.01.2027", "tomorrow"] {
        run(adtally().args(["token", "ci", "--expires", date]), b"").assert_misused("2027-01-31");
    }
    run(adtally().arg("token"), b"").assert_misused("NAME");
}
