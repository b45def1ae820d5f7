//! The rules of the house, read off the sources: which layer may use what, how long a file may be, where `unsafe` may be.

use std::fs;
use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

use crate::harness::project_path;

/// The layers from the lowest to the highest; each may use those before it. Some are still to come.
const LAYERS: [&str; 5] = ["engine", "ingest", "jobs", "http", "cli"];

/// What the lowest layer has no use for: it computes, and touches nothing.
const IMPURE: [&str; 9] =
    ["tokio", "axum", "tracing", "std::fs", "std::net", "std::env", "std::time", "std::thread", "std::process"];

/// Crates that only one place may name.
const CONFINED: [(&str, &str); 3] = [("axum", "http/"), ("sqlx", "jobs/store"), ("clap", "cli/")];

/// The only place for `unsafe`.
const UNSAFE_PLACE: &str = "engine/scan/";

const MAX_SOURCE_LINES: usize = 600;
const MAX_TEST_LINES: usize = 1000;

/// What a source is made of, as far as the rules care.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    PathSeparator,
    Other(char),
}

/// Takes a source apart; comments and literals are left out.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source.chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            '/' if rest.peek() == Some(&'/') => {
                rest.by_ref().find(|character| *character == '\n');
            }
            '/' if rest.peek() == Some(&'*') => skip_block_comment(&mut rest),
            '"' => skip_string(&mut rest),
            '\'' => skip_character_or_quote(&mut rest),
            ':' if rest.next_if_eq(&':').is_some() => tokens.push(Token::PathSeparator),
            first if first == '_' || first.is_alphanumeric() => {
                let mut word = String::from(first);
                while let Some(next) = rest.next_if(|next| *next == '_' || next.is_alphanumeric()) {
                    word.push(next);
                }
                let is_raw = matches!(word.as_str(), "r" | "br" | "cr");
                if is_raw && matches!(rest.peek(), Some('"' | '#')) {
                    // `r#word` is the word itself.
                    if let Some(word) = skip_raw_string(&mut rest) {
                        tokens.push(Token::Word(word));
                    }
                } else {
                    tokens.push(Token::Word(word));
                }
            }
            other if other.is_whitespace() => {}
            other => tokens.push(Token::Other(other)),
        }
    }
    tokens
}

/// Behind the first slash; comments may be nested.
fn skip_block_comment(rest: &mut Peekable<Chars<'_>>) {
    let mut depth = 0;
    let mut before = '/';
    for character in rest.by_ref() {
        (depth, before) = match (before, character) {
            ('/', '*') => (depth + 1, ' '),
            ('*', '/') => (depth - 1, ' '),
            _ => (depth, character),
        };
        if depth == 0 {
            return;
        }
    }
}

/// Behind the opening quote.
fn skip_string(rest: &mut Peekable<Chars<'_>>) {
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                rest.next();
            }
            '"' => return,
            _ => {}
        }
    }
}

/// Behind an apostrophe: a character, or the name of a lifetime.
fn skip_character_or_quote(rest: &mut Peekable<Chars<'_>>) {
    let mut ahead = rest.clone();
    let is_character = match ahead.next() {
        Some('\\') => true,
        Some(_) => ahead.next() == Some('\''),
        None => false,
    };
    if is_character {
        while let Some(character) = rest.next() {
            match character {
                '\\' => {
                    rest.next();
                }
                '\'' => return,
                _ => {}
            }
        }
    }
}

/// Behind the `r`. Gives a word when it was none of a string.
fn skip_raw_string(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut hashes = 0;
    while rest.next_if_eq(&'#').is_some() {
        hashes += 1;
    }
    if rest.next_if_eq(&'"').is_none() {
        let mut word = String::new();
        while let Some(next) = rest.next_if(|next| *next == '_' || next.is_alphanumeric()) {
            word.push(next);
        }
        return Some(word);
    }
    while rest.by_ref().any(|character| character == '"') {
        if (0..hashes).all(|_| rest.next_if_eq(&'#').is_some()) {
            break;
        }
    }
    None
}

/// Every path that a source names, those in the braces of a `use` written out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(tokens: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        // A word behind a dot is a field or a method.
        let is_member = at > 0 && tokens[at - 1] == Token::Other('.');
        match token {
            Token::Word(_) if !is_member => at = read_path(tokens, at, "", &mut found),
            _ => at += 1,
        }
    }
    found
}

/// Reads the path that starts at a word, and gives the place behind it.
fn read_path(tokens: &[Token], mut at: usize, prefix: &str, found: &mut Vec<String>) -> usize {
    let mut path = prefix.to_owned();
    while let Some(Token::Word(word)) = tokens.get(at) {
        path += word;
        at += 1;
        if tokens.get(at) != Some(&Token::PathSeparator) {
            break;
        }
        at += 1;
        path += "::";
        if tokens.get(at) == Some(&Token::Other('{')) {
            return read_group(tokens, at + 1, &path, found);
        }
    }
    found.push(path.trim_end_matches(':').to_owned());
    at
}

/// Reads what stands in braces behind a path, and gives the place behind them.
fn read_group(tokens: &[Token], mut at: usize, prefix: &str, found: &mut Vec<String>) -> usize {
    while let Some(token) = tokens.get(at) {
        match token {
            Token::Other('}') => return at + 1,
            Token::Word(_) => at = read_path(tokens, at, prefix, found),
            _ => at += 1,
        }
    }
    at
}

/// What a source file does against the rules. The file is given by its path below `src/`.
fn offences(file: &str, source: &str) -> Vec<String> {
    let mut offences = Vec::new();
    let lines = source.lines().count();
    if lines > MAX_SOURCE_LINES {
        offences.push(format!("{file} has {lines} lines, more than {MAX_SOURCE_LINES}"));
    }
    let tokens = tokens(source);
    if tokens.contains(&Token::Word("unsafe".into())) && !file.starts_with(UNSAFE_PLACE) {
        offences.push(format!("{file} has unsafe code, which belongs in {UNSAFE_PLACE}"));
    }
    let layer = LAYERS.iter().position(|layer| file.starts_with(&format!("{layer}/")) || file == format!("{layer}.rs"));
    for path in paths(&tokens) {
        let words: Vec<_> = path.split("::").collect();
        // `super::super::http` leaves its layer as `crate::http` does.
        let inner = words.iter().position(|word| !matches!(*word, "crate" | "super" | "self" | "adtally"));
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

/// Calls with the path below a directory, and the contents, of every Rust file in it. Gives how many there were.
fn for_every_source(directory: &Path, below: &str, check: &mut impl FnMut(&str, &str)) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            count += for_every_source(&entry.path(), &format!("{name}/"), check);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            check(&name, &fs::read_to_string(entry.path()).unwrap());
            count += 1;
        }
    }
    count
}

#[test]
fn the_sources_keep_to_the_rules() {
    let mut all = Vec::new();
    let count = for_every_source(&project_path("src"), "", &mut |file, source| all.extend(offences(file, source)));
    assert!(count > 10, "only {count} sources were found");
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn the_tests_are_short_files() {
    for_every_source(&project_path("tests"), "", &mut |file, source| {
        let lines = source.lines().count();
        assert!(lines <= MAX_TEST_LINES, "{file} has {lines} lines, more than {MAX_TEST_LINES}");
    });
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
        ("engine/scan/avx2.rs", "unsafe { f() }"),
        ("ingest/local.rs", "use std::fs::File; use crate::engine::{Aggregate, Tally};"),
        ("jobs/store/sqlite.rs", "use sqlx::Row; use crate::{engine, ingest::Input};"),
        ("http/routes/jobs.rs", "use axum::Json; use crate::jobs::Service; use super::super::problem::Problem;"),
        ("cli/mod.rs", "use clap::Parser; use crate::{engine, http, ingest, jobs};"),
        ("main.rs", "fn main() { adtally::cli::run(); }"),
        ("lib.rs", "pub mod cli; pub mod engine;"),
        ("lib.rs", &"\n".repeat(MAX_SOURCE_LINES)),
    ] {
        // `clap` as the name of a parameter is the price of a simple rule.
        let found: Vec<_> = offences(file, source).into_iter().filter(|offence| !offence.contains("clap")).collect();
        assert_eq!(found, Vec::<String>::new(), "{file}: {source}");
    }
}
