//! Large files, which are read by several threads from several places at once: the result is that of one.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use adtally::engine::{Limits, TallyOptions};
use adtally::ingest::{Input, LocalOptions, Observer, aggregate_local, encoding_for_label};

use crate::harness::{HEADER, Outcome, Workspace, outcome};

/// Enough for three threads, each of which wants 4 MiB.
const FILE_BYTES: usize = 13 << 20;

#[derive(Default)]
pub(crate) struct Counting {
    bytes: AtomicU64,
    rows: AtomicU64,
}

impl Counting {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Observer for Counting {
    fn advanced(&self, bytes: u64, rows: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

/// Reads a file with so many threads. Gives the outcome, and the bytes and rows that were told of on the way.
fn read(contents: &[u8], tally: TallyOptions, threads: &[usize]) -> Vec<(Outcome, u64, u64)> {
    let place = Workspace::new();
    place.write("ads.csv", contents);
    let read_by = |threads: usize| {
        let encoding = encoding_for_label("utf-8").unwrap();
        let options = LocalOptions {
            tally,
            dialect: None,
            max_skipped: None,
            encoding,
            threads: NonZeroUsize::new(threads).unwrap(),
        };
        let observer = Counting::default();
        let aggregate = aggregate_local(&[Input::File(place.path("ads.csv"))], &options, &observer).unwrap();
        (Outcome::of(&aggregate), observer.bytes.into_inner(), observer.rows.into_inner())
    };
    threads.iter().map(|threads| read_by(*threads)).collect()
}

/// Checks that any number of threads gives what the engine makes of the text.
#[track_caller]
fn check(mark: &[u8], text: &str, options: TallyOptions) -> Outcome {
    let expected = outcome(options, [text.as_bytes()]).unwrap();
    for (found, _, _) in read(&[mark, text.as_bytes()].concat(), options, &[1, 2, 3, 7]) {
        assert!(found == expected, "expected {expected:#?}, found {found:#?}");
    }
    expected
}

/// A header and as many blocks as make a large file; each block is told its number.
fn large(mut write_block: impl FnMut(&mut String, usize)) -> String {
    let mut text = HEADER.to_owned();
    for number in 0.. {
        if text.len() >= FILE_BYTES {
            break;
        }
        write_block(&mut text, number);
    }
    text
}

fn plain_row(text: &mut String, number: usize, line_end: &str) {
    let (id, count, cents) = (number * 7919 % 50, number * 31 % 50_000, number % 100);
    write!(text, "CMP{id:03},2025-01-01,{count},{},{}.{cents:02},{}{line_end}", count / 20, count / 9, count / 300)
        .unwrap();
}

#[test]
fn rows_and_rejects_stand_on_the_lines_they_stand_on() {
    // Blank lines and bad rows, so that lines and rows are not the same; the last row has no line end.
    let mut text = large(|text, number| {
        plain_row(text, number, if number % 3 == 0 { "\r\n" } else { "\n" });
        if number % 4001 == 0 {
            text.push_str("\n\nCMP001,2025-01-01,-1,1,1,1\n");
        }
    });
    text.push_str("CMP001,2025-01-01,1,1,1");
    let outcome = check(b"", &text, TallyOptions::default());
    // One more than in the first segment of three can have been kept.
    assert!(outcome.rejects.len() > 60 && outcome.rejects.last().unwrap().byte_offset > 9 << 20, "{outcome:?}");
}

#[test]
fn nothing_is_read_twice_for_nothing() {
    let text = "\u{feff}".to_owned() + &large(|text, number| plain_row(text, number, "\n"));
    for (outcome, bytes, rows) in read(text.as_bytes(), TallyOptions::default(), &[1, 2, 3]) {
        // Three bytes are the mark, which may be passed over.
        assert!((text.len() as u64 - 3..=text.len() as u64).contains(&bytes), "{bytes} of {} bytes", text.len());
        assert_eq!(rows, outcome.rows_read);
    }
}

#[test]
fn a_mark_at_the_start_is_no_part_of_the_text() {
    let text = large(|text, number| plain_row(text, number, "\r\n"));
    check(b"\xef\xbb\xbf", &text, TallyOptions::default());
}

#[test]
fn a_line_end_in_quotes_is_no_place_to_start_at() {
    // Wherever a thread looks for a line to start at, it finds one that looks like a row and is none.
    let text = large(|text, number| {
        writeln!(text, "CMP{:03},\"a note", number % 50).unwrap();
        for line in 0..200 {
            plain_row(text, line, "\n");
        }
        text.push_str("the end\",1,1,1,1\n");
    });
    let outcome = check(b"", &text, TallyOptions::default());
    assert_eq!((outcome.rows_skipped, outcome.unique_campaigns), (0, 50));
}

#[test]
fn a_quote_that_is_never_closed_costs_one_record() {
    let text = large(|text, number| {
        plain_row(text, number, "\n");
        if number % 10_007 == 10_006 {
            text.push_str("CMP001,\"open,1,1,1,1\n");
        }
    });
    let outcome = check(b"", &text, TallyOptions::default());
    assert!(outcome.rows_skipped > 10, "{outcome:?}");
}

#[test]
fn a_file_may_have_no_newline() {
    let text = large(|text, number| plain_row(text, number, "\r")).replace('\n', "\r");
    check(b"", &text, TallyOptions::default());
}

#[test]
fn a_record_may_be_longer_than_a_thread_reads_at_once() {
    let limits = Limits { max_record_bytes: 8 << 20, ..Limits::default() };
    let long = "long ".repeat(1 << 20);
    let text = large(|text, number| {
        if number % 2 == 0 {
            writeln!(text, "CMP001,{long},1,1,1,1").unwrap();
        } else {
            writeln!(text, "CMP002,\"{long}\n{long}\",1,1,1,1").unwrap();
        }
        plain_row(text, number, "\n");
    });
    let outcome = check(b"", &text, TallyOptions { limits, ..TallyOptions::default() });
    // The second kind is longer than allowed.
    assert!(outcome.rows_skipped >= 1 && outcome.unique_campaigns > 1, "{outcome:?}");
}

#[test]
fn a_file_may_have_no_header() {
    let text = large(|text, number| plain_row(text, number, "\n"));
    let rows = text.strip_prefix(HEADER).unwrap();
    check(b"", rows, TallyOptions { has_header: false, ..TallyOptions::default() });
}
