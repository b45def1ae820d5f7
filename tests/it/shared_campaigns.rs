//! Tallies that share the campaigns of one text: together they count what one counts.

use std::fmt::Write as _;
use std::num::NonZeroUsize;

use adtally::engine::{Aggregate, Fatal, Kernel, Limits, Parcel, Tally, TallyOptions};
use adtally::ingest::{Input, LocalOptions, aggregate_local, encoding_for_label};

use crate::harness::{HEADER, KERNELS, Outcome, Workspace, tally};
use crate::many_campaigns::rows;
use crate::parallel::Counting;
use crate::random::Random;

/// Enough for three threads, each of which has more campaigns than it counts alone.
const FILE_ROWS: usize = 330_000;
const FILE_CAMPAIGNS: usize = 400_000;

/// Cuts a text at line starts, reads the parts by turns in pieces, and hands parcels over in any order.
fn read_shared(options: TallyOptions, text: &str, tallies: usize, from_campaigns: usize) -> Result<Aggregate, Fatal> {
    let mut random = Random::new();
    let mut first = Tally::new(options);
    first.push(HEADER.as_bytes())?;
    let mut starts = vec![HEADER.len()];
    for part in 1..tallies {
        let guess = text.len() / tallies * part;
        let newline = text.as_bytes()[guess..].iter().position(|byte| *byte == b'\n');
        starts.push(guess + newline.unwrap() + 1);
    }
    let forks: Vec<_> = starts[1..].iter().map(|start| first.fork(*start as u64).unwrap()).collect();
    let mut all: Vec<_> = std::iter::once(first).chain(forks).collect();
    for tally in &mut all {
        tally.share_campaigns(tallies, from_campaigns);
    }
    let ends = starts.iter().copied().skip(1).chain([text.len()]);
    let mut unread: Vec<_> = starts.iter().zip(ends).map(|(start, end)| &text.as_bytes()[*start..end]).collect();
    let mut on_their_way: Vec<(usize, Parcel)> = Vec::new();
    while unread.iter().any(|part| !part.is_empty()) {
        let reader = random.below(tallies);
        let (piece, rest) = unread[reader].split_at(unread[reader].len().min(random.below(40_000)));
        unread[reader] = rest;
        all[reader].push(piece)?;
        for owner in 0..tallies {
            let mut parcel = Parcel::default();
            if all[reader].swap_parcel(owner, &mut parcel) {
                on_their_way.push((owner, parcel));
            }
        }
        while !on_their_way.is_empty() && random.one_in(2) {
            let (owner, mut parcel) = on_their_way.swap_remove(random.below(on_their_way.len()));
            all[owner].count_parcel(&mut parcel)?;
            assert_eq!(parcel.rows(), 0);
        }
    }
    for (owner, mut parcel) in on_their_way {
        all[owner].count_parcel(&mut parcel)?;
    }
    let are_shared = all.iter().any(Tally::has_shared);
    assert_eq!(are_shared, options.kernel != Kernel::Off && from_campaigns < 100_000);
    let mut all = all.into_iter();
    let mut whole = all.next().unwrap();
    for other in all {
        assert!(whole.join(other)?.is_none(), "every part starts at a record");
    }
    whole.finish()
}

#[test]
fn tallies_that_share_campaigns_count_what_one_counts() {
    for is_plain in [true, false] {
        let text = rows(40_000, 15_000, is_plain);
        let expected = tally(TallyOptions { kernel: Kernel::Off, ..TallyOptions::default() }, [text.as_bytes()]);
        let expected = expected.unwrap();
        for kernel in KERNELS {
            for (tallies, from_campaigns) in [(2, 0), (2, 3000), (3, 1), (5, 500), (3, 100_000)] {
                let options = TallyOptions { kernel, ..TallyOptions::default() };
                let found = read_shared(options, &text, tallies, from_campaigns).unwrap();
                assert_eq!(Outcome::of(&found), Outcome::of(&expected), "{kernel:?}, {tallies}, {from_campaigns}");
                assert!(found.campaigns().eq(expected.campaigns()), "{kernel:?}, {tallies}, {from_campaigns}");
            }
        }
    }
}

#[test]
fn the_limit_of_campaigns_is_that_of_all_shares_together() {
    let text = rows(20_000, 5_000, true);
    let campaigns = tally(TallyOptions::default(), [text.as_bytes()]).unwrap().unique_campaigns();
    for (max_campaigns, is_enough) in [(campaigns, true), (campaigns - 1, false), (1000, false)] {
        let limits = Limits { max_campaigns, ..Limits::default() };
        let read = read_shared(TallyOptions { limits, ..TallyOptions::default() }, &text, 3, 0);
        match read {
            Ok(aggregate) => assert!(is_enough && aggregate.unique_campaigns() == campaigns),
            Err(error) => {
                assert!(!is_enough);
                assert!(matches!(error, Fatal::TooManyCampaigns { max_campaigns: limit } if limit == max_campaigns));
            }
        }
    }
}

#[test]
fn what_one_campaign_has_in_several_tables_is_added_up() {
    // Sums that are finer than cents, or larger than the lanes of a table, are not sorted.
    let mut text = HEADER.to_owned();
    for _ in 0..200 {
        text += "A,2025-01-01,1,1,0.25,1\nB,2025-01-01,4294967296,1,0.001,1\nB,2025-01-01,1,1,1,1\n\
                 a long id for two tables,2025-01-01,1,1,0.000001,1\na long id for two tables,2025-01-01,1,1,1,1\n";
    }
    let expected = tally(TallyOptions::default(), [text.as_bytes()]).unwrap();
    let found = read_shared(TallyOptions::default(), &text, 3, 0).unwrap();
    assert!(found.campaigns().eq(expected.campaigns()));
}

/// Reads a file. Gives what it contains, and how many bytes were read.
fn read_file(text: &str, options: TallyOptions, threads: usize) -> (Result<Aggregate, String>, u64) {
    let place = Workspace::new();
    place.write("ads.csv", text);
    let options = LocalOptions {
        tally: options,
        dialect: None,
        max_skipped: None,
        encoding: encoding_for_label("utf-8").unwrap(),
        threads: NonZeroUsize::new(threads).unwrap(),
    };
    let observer = Counting::default();
    let read = aggregate_local(&[Input::File(place.path("ads.csv"))], &options, &observer);
    (read.map_err(|error| error.problem.to_string()), observer.bytes())
}

/// Checks that threads find what one finds. Gives how many bytes each number of threads has read.
#[track_caller]
fn check_file(text: &str, options: TallyOptions) -> [u64; 2] {
    let expected = read_file(text, options, 1).0;
    let expected = expected.map(|aggregate| Outcome::of(&aggregate));
    [2, 3].map(|threads| {
        let (found, bytes) = read_file(text, options, threads);
        assert!(found.map(|aggregate| Outcome::of(&aggregate)) == expected, "{threads} threads");
        bytes
    })
}

#[test]
fn threads_share_the_campaigns_of_a_file() {
    // With quotes within quotes nearly all rows are counted by the thread that reads them.
    for is_plain in [true, false] {
        let text = rows(FILE_ROWS, FILE_CAMPAIGNS, is_plain);
        assert!(text.len() > 13 << 20, "three segments");
        let bytes_read = check_file(&text, TallyOptions::default());
        assert_eq!(bytes_read, [text.len() as u64; 2], "nothing is read twice");
    }
}

/// Plain rows, each with a campaign of its own, between notes of several lines that look like rows. With an odd number of notes
/// that is no multiple of three, the second of two threads and of three starts within a note.
fn rows_with_notes(notes: usize, lines: usize) -> String {
    const ROWS_BETWEEN: usize = 8;
    let note = "CMP1,2025-01-01,1000,100,10.00,10\n".repeat(lines);
    let mut text = HEADER.to_owned();
    for number in 0..notes {
        writeln!(text, "CMP1,\"{note}\",1,1,0.25,1").unwrap();
        for row in number * ROWS_BETWEEN..(number + 1) * ROWS_BETWEEN {
            writeln!(text, "a campaign {row:06},2025-01-01,{},1,0.25,1", 1000 + row % 1000).unwrap();
        }
    }
    text
}

#[test]
fn a_file_is_read_in_order_when_a_thread_that_shared_campaigns_was_wrong() {
    let text = rows_with_notes(14_003, 25);
    let bytes_read = check_file(&text, TallyOptions::default());
    assert_eq!(bytes_read, [2 * text.len() as u64; 2], "all is read again");
}

#[test]
fn a_segment_is_read_again_by_a_thread_that_shares_nothing() {
    // Each thread stays below the number of campaigns from which threads share them. Their joined table passes it.
    let text = rows_with_notes(5_003, 70);
    let bytes_read = check_file(&text, TallyOptions::default());
    let is_read_again = |bytes| (text.len() as u64 + 1..text.len() as u64 * 7 / 4).contains(&bytes);
    assert!(bytes_read.into_iter().all(is_read_again), "{bytes_read:?} bytes of {}", text.len());
}

#[test]
fn errors_are_those_of_reading_in_order() {
    let mut text = rows(FILE_ROWS, FILE_CAMPAIGNS, true);
    let skipped = "CMP1,2025-01-01,-1,1,1,1\n";
    text += &skipped.repeat(1000);
    let rows_before = tally(TallyOptions::default(), [text.as_bytes()]).unwrap().counters().rows_skipped();
    let campaigns = tally(TallyOptions::default(), [text.as_bytes()]).unwrap().unique_campaigns();
    for max_campaigns in [20_000, 90_000, campaigns - 1] {
        for max_skipped in [None, Some(rows_before - 500)] {
            let limits = Limits { max_campaigns, ..Limits::default() };
            check_file(&text, TallyOptions { limits, max_skipped, ..TallyOptions::default() });
        }
    }
}
