//! The rules of the house, read off the sources: which layer may use what, that files do not name each other in circles,
//! how long a file may be, where `unsafe` may be.

use std::collections::BTreeMap;

use crate::harness::project_path;
use crate::sources::{circles, edges, has_word, named_in, sources_in};

/// The layers from the lowest to the highest; each may use those before it. Some are still to come.
const LAYERS: [&str; 5] = ["engine", "ingest", "jobs", "http", "cli"];

/// What the lowest layer has no use for: it computes, and touches nothing.
const IMPURE: [&str; 9] =
    ["tokio", "axum", "tracing", "std::fs", "std::net", "std::env", "std::time", "std::thread", "std::process"];

/// Crates that only one place may name.
const CONFINED: [(&str, &str); 6] = [
    ("axum", "http/"),
    ("sqlx", "jobs/store"),
    ("clap", "cli/"),
    ("libc", "main.rs"),
    ("libz_rs_sys", "ingest/inflate.rs"),
    ("tokio_rustls", "http/tls"),
];

/// The only places for `unsafe`.
const UNSAFE_PLACES: [&str; 3] = ["engine/scan/", "ingest/inflate.rs", "main.rs"];

const MAX_SOURCE_LINES: usize = 600;
const MAX_TEST_LINES: usize = 1000;

/// What a source file does against the rules. The file is given by its path below `src/`.
fn offences(file: &str, source: &str) -> Vec<String> {
    let mut offences = Vec::new();
    let lines = source.lines().count();
    if lines > MAX_SOURCE_LINES {
        offences.push(format!("{file} has {lines} lines, more than {MAX_SOURCE_LINES}"));
    }
    if has_word(source, "unsafe") && !UNSAFE_PLACES.iter().any(|place| file.starts_with(place)) {
        offences.push(format!("{file} has unsafe code, which belongs in {}", UNSAFE_PLACES.join(", ")));
    }
    let layer = LAYERS.iter().position(|layer| file.starts_with(&format!("{layer}/")) || file == format!("{layer}.rs"));
    for words in named_in(source).into_iter().map(|named| named.words) {
        let path = words.join("::");
        // `super::super::http` leaves its layer as `crate::http` does.
        let inner = words.iter().position(|word| !matches!(word.as_str(), "crate" | "super" | "self" | "adtally"));
        let named_layer =
            inner.filter(|inner| *inner > 0).and_then(|inner| LAYERS.iter().position(|layer| *layer == words[inner]));
        if let (Some(layer), Some(named)) = (layer, named_layer)
            && named > layer
        {
            offences.push(format!("{file} is in {} and names {path}, which is above it", LAYERS[layer]));
        }
        let is_or_is_in = |what: &str| path == what || path.starts_with(&format!("{what}::"));
        if layer == Some(0)
            && let Some(what) = IMPURE.into_iter().find(|what| is_or_is_in(what))
        {
            offences.push(format!("{file} is in engine and names {path}: engine has no use for {what}"));
        }
        for (name, place) in CONFINED {
            if is_or_is_in(name) && !file.starts_with(place) {
                offences.push(format!("{file} names {path}: {name} belongs in {place}"));
            }
        }
    }
    offences
}

/// The circles among the files of a layer.
fn forbidden_circles(sources: &BTreeMap<String, String>) -> Vec<String> {
    circles(edges(sources))
}

#[test]
fn the_sources_keep_to_the_rules() {
    let sources = sources_in(&project_path("src"));
    assert!(sources.len() > 10, "only {} sources were found", sources.len());
    let mut all: Vec<_> = sources.iter().flat_map(|(file, source)| offences(file, source)).collect();
    all.extend(forbidden_circles(&sources).into_iter().map(|circle| format!("a circle: {circle}")));
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn the_tests_are_short_files() {
    for (file, source) in sources_in(&project_path("tests")) {
        let lines = source.lines().count();
        assert!(lines <= MAX_TEST_LINES, "{file} has {lines} lines, more than {MAX_TEST_LINES}");
    }
}

#[test]
fn what_is_against_the_rules_is_found() {
    for (file, source) in [
        ("engine/tally.rs", "use crate::ingest::Input;"),
        ("engine/scan/avx2.rs", "use super::super::super::jobs::Job;"),
        ("engine/tally.rs", "fn f() { crate::http::serve() }"),
        ("engine/tally.rs", "use crate::{engine::Tally, cli::{self, Stop}};"),
        ("engine/mod.rs", "fn f() { let a = 'a'; let b = '\\''; adtally::cli::run(); }"),
        ("engine.rs", "pub use crate\n    ::cli\n    ::run;"),
        ("ingest/local.rs", "use crate::jobs;"),
        ("jobs/store/mod.rs", "use crate::http::Problem;"),
        ("http/mod.rs", "use crate::cli::Flags;"),
        ("engine/tally.rs", "use std::{fmt, fs::File};"),
        ("engine/tally.rs", "use std::io; fn f() -> std::time::Instant { todo!() }"),
        ("engine/tally.rs", "use std::{collections::{BTreeMap, BTreeSet}, thread};"),
        ("engine/tally.rs", "#[tracing::instrument] fn f() {}"),
        ("engine/tally.rs", "use tokio::sync::mpsc;"),
        ("engine/tally.rs", "/* a /* nested */ comment */ use std::env;"),
        ("engine/tally.rs", "const A: &str = r#\"a \" quote\"#; use std::net::TcpStream;"),
        ("jobs/mod.rs", "use axum::Router;"),
        ("lib.rs", "use axum;"),
        ("jobs/service.rs", "async fn f(pool: &sqlx::SqlitePool) {}"),
        ("main.rs", "#[derive(clap::Parser)] struct A;"),
        ("engine/tally.rs", "fn f(a: &'static [u8]) { unsafe { a.get_unchecked(0) } }"),
        ("ingest/gzip.rs", "fn f() { unsafe { g() } }"),
        ("ingest/gzip.rs", "use libz_rs_sys::inflate;"),
        ("http/server.rs", "use libc::mallopt;"),
        ("http/server.rs", "use tokio_rustls::TlsAcceptor;"),
        ("cli/mod.rs", &"\n".repeat(MAX_SOURCE_LINES + 1)),
    ] {
        assert!(!offences(file, source).is_empty(), "{file}: {source}");
    }
}

#[test]
fn what_the_rules_allow_is_not_found() {
    for (file, source) in [
        ("engine/tally.rs", "use std::fmt; use super::scan::{Kernel, Scanner}; use crate::engine::Tally;"),
        ("engine/tally.rs", "//! Not `tokio::spawn`, not crate::cli.\n/* std::fs */ // unsafe\nfn f() {}"),
        ("engine/tally.rs", "const A: &str = \"use std::fs; \\\" unsafe\"; const B: &[u8] = br##\"\"# axum::\"##;"),
        ("engine/tally.rs", "fn f(clap: u8) -> bool { a.thread.unsafe_code && std::matches!('\"', '\\\"') }"),
        ("engine/tally.rs", "#![expect(unsafe_code)] fn f<'a>(r#type: &'a str) { a.axum::<u8>(); }"),
        ("engine/scan/avx2.rs", "fn g() { unsafe { f() } }"),
        ("ingest/inflate.rs", "use libz_rs_sys::inflate; fn f() { unsafe { inflate() } }"),
        ("ingest/local.rs", "use std::fs::File; use crate::engine::{Aggregate, Tally};"),
        ("jobs/store/sqlite.rs", "use sqlx::Row; use crate::{engine, ingest::Input};"),
        ("http/routes/jobs.rs", "use axum::Json; use crate::jobs::Service; use super::super::problem::Problem;"),
        ("cli/mod.rs", "use clap::Parser; use crate::{engine, http, ingest, jobs};"),
        ("main.rs", "fn main() { unsafe { libc::mallopt(-3, 1) }; adtally::cli::run(); }"),
        ("lib.rs", "pub mod cli; pub mod engine;"),
        ("lib.rs", &"\n".repeat(MAX_SOURCE_LINES)),
    ] {
        let found = offences(file, source);
        assert_eq!(found, Vec::<String>::new(), "{file}: {source}");
    }
}

/// Some files, and the circles among them.
fn circles_among(files: &[(&str, &str)]) -> Vec<String> {
    let sources = files.iter().map(|(file, source)| ((*file).to_owned(), (*source).to_owned())).collect();
    forbidden_circles(&sources)
}

#[test]
fn circles_are_found() {
    for (a, b) in [
        ("use super::b::B;", "use super::a::A;"),
        ("use crate::engine::{row, b::{self, B}};", "use crate::engine::a::*;"),
        ("fn f() { super::b::f() }", "impl super::a::A for B {}"),
        ("fn f(b: &crate::engine::b::B<u8>) {}", "fn f() { let _ = matches!(x, (self::super::a::A { .. })); }"),
        ("mod inner { use super::super::b::B; }", "#[derive(super::a::A)] struct B;"),
        ("fn f() { use super::b::B; }", "use super::a; #[cfg(test)] mod tests {}"),
        ("pub use adtally::engine::b::B as C;", "#[cfg(not(test))] use super::a;"),
    ] {
        let files = [("lib.rs", ""), ("engine/mod.rs", "mod a; mod b;"), ("engine/a.rs", a), ("engine/b.rs", b)];
        assert_eq!(circles_among(&files), ["engine/a.rs -> engine/b.rs -> engine/a.rs"], "{a} {b}");
    }
    let re_exported = [("engine/mod.rs", "mod a; pub use a::A;"), ("engine/a.rs", "use super::A;")];
    assert_eq!(circles_among(&re_exported), ["engine/a.rs -> engine/mod.rs -> engine/a.rs"]);
    let called = [("engine/mod.rs", "mod a; fn f() { a::f() }"), ("engine/a.rs", "use crate::engine;")];
    assert_eq!(circles_among(&called), ["engine/a.rs -> engine/mod.rs -> engine/a.rs"]);
    let of_three =
        [("engine/a.rs", "use super::b;"), ("engine/b.rs", "use super::c;"), ("engine/c.rs", "use super::a;")];
    assert_eq!(circles_among(&of_three).len(), 1);
    let two =
        [("engine/a.rs", "use super::{b, c};"), ("engine/b.rs", "use super::a;"), ("engine/c.rs", "use super::a;")];
    assert_eq!(circles_among(&two).len(), 2);
}

#[test]
fn what_is_no_circle_is_not_found() {
    for (a, b) in [
        ("use super::b::B;", "#[cfg(test)] mod tests { use crate::engine::a::A; }"),
        ("use super::b::B;", "struct B; impl B { #[cfg(test)] fn f() { super::a::f() } }"),
        ("use super::b::B;", "pub(super) struct B; pub(in crate::engine) fn f() {} // super::a"),
        ("use super::b;", "use a::A; fn f() { ::a::f(); a::g(); self::f(); Self::a(); }"),
        ("use super::b;", "/// [`super::a::A`]\nconst B: &str = \"super::a\";"),
        ("use super::b;", "mod a { fn f() {} } use self::a::f;"),
        ("fn f() {}", "use super::a; use crate::engine::a::f; use self::B; struct B;"),
    ] {
        let engine = "mod a; mod b; pub use a::A; pub use b::B;";
        let files = [("lib.rs", "pub mod engine;"), ("engine/mod.rs", engine), ("engine/a.rs", a), ("engine/b.rs", b)];
        assert_eq!(circles_among(&files), Vec::<String>::new(), "{a} {b}");
    }
}
