//! All rejected rows are kept, up to a limit: the same ones however a file is cut, forked, saved and resumed.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::Arc;

use adtally::engine::report::{rejects_pieces, rejects_table};
use adtally::engine::{
    Aggregate, AggregateReader, DEFAULT_MAX_REJECTS_BYTES, Kernel, Limits, MAX_REJECTS, REJECT_ROW_BYTES, RestoreError,
    Tally, TallyOptions,
};
use adtally::ingest::{
    Input, LocalOptions, Observer, Pipeline, PipelineOptions, PipelineReader, SavedPipeline, aggregate_local,
    encoding_for_label,
};
use adtally::jobs::store::{ChangedBy, Checkpoint, NewBlocks, OpenedFile, ResumedFile};
use adtally::jobs::{Details, FileFormat, Job, JobFile, JobId, Scope, State, Store};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::files::{complete, file_path, open};
use crate::harness::{HEADER, KERNELS, Workspace, tally};
use crate::properties::{any_kernel, config};
use crate::resume::{patch, place};
use crate::service::Service;
use crate::texts::{cuts, text};

const KEEP: SignedDuration = SignedDuration::from_hours(1);

fn options(max_rejects_bytes: u64) -> TallyOptions {
    TallyOptions { max_rejects_bytes: Some(max_rejects_bytes), ..TallyOptions::default() }
}

/// The document of rejects of a single file.
fn document(aggregate: &Aggregate) -> String {
    rejects_pieces(aggregate, false, 1 << 20).collect()
}

fn document_of_files(aggregate: &Aggregate) -> String {
    rejects_pieces(aggregate, true, 1 << 20).collect()
}

/// A file in which every other row is bad, and the document of its rejects without a limit.
struct Example {
    text: String,
    document: String,
    /// What each row counts for.
    row_bytes: Vec<u64>,
}

impl Example {
    fn new(bad_rows: u32) -> Self {
        let (mut text, mut line) = (HEADER.to_owned(), 2);
        let (mut document, mut row_bytes) = ("line,byte_offset,reason,record\n".to_owned(), Vec::new());
        for number in 0..bad_rows {
            let (reason, record, shown) = match number % 4 {
                0 => ("impressions", format!("CMP{number},d,x{number},1,1,1"), None),
                1 => ("column_count", format!("CMP{number}"), None),
                2 => {
                    let record = format!("\"CMP{number}\n\r\n\",d,1,1,1,-1");
                    ("conversions", record.clone(), Some(format!("\"{}\"", record.replace('"', "\"\""))))
                }
                _ => {
                    ("campaign_id", format!(",{},1,1,1,1", "d".repeat(300)), Some(format!("\",{}\"", "d".repeat(199))))
                }
            };
            let shown =
                shown.unwrap_or_else(|| if record.contains(',') { format!("\"{record}\"") } else { record.clone() });
            writeln!(document, "{line},{},{reason},{shown}", text.len()).unwrap();
            row_bytes.push(REJECT_ROW_BYTES + record.len().min(200) as u64);
            text += &record;
            text += if number % 3 == 0 { "\r\n" } else { "\n" };
            text += "CMP001,2025-01-01,1000,10,1.5,1\n\n";
            line += 3 + record.matches('\n').count() as u64;
        }
        Self { text, document, row_bytes }
    }

    /// The document under a limit.
    fn limited_document(&self, max_rejects_bytes: u64) -> String {
        let mut left = max_rejects_bytes;
        let fits = |bytes: &&u64| left.checked_sub(**bytes).is_some_and(|rest| (left = rest, true).1);
        let kept = self.row_bytes.iter().take_while(fits).count();
        let missing = self.row_bytes.len() - kept;
        if missing == 0 {
            return self.document.clone();
        }
        let ends = self.row_ends();
        let end = if kept == 0 { self.document.find('\n').unwrap() + 1 } else { ends[kept - 1] };
        format!(
            "{},,limit_reached,{missing} more skipped rows are not listed: max_rejects_bytes is {max_rejects_bytes}\n",
            &self.document[..end]
        )
    }

    /// Where each row of the document ends: behind a line end outside quotes.
    fn row_ends(&self) -> Vec<usize> {
        let mut is_quoted = false;
        let ends = self.document.bytes().enumerate().filter_map(|(place, byte)| {
            is_quoted ^= byte == b'"';
            (byte == b'\n' && !is_quoted).then_some(place + 1)
        });
        // The header has one, too.
        ends.skip(1).collect()
    }
}

/// More than three blocks of 64 KiB.
const MANY: u32 = 6000;

#[test]
fn all_of_them_are_listed_however_the_text_is_cut() {
    let example = Example::new(MANY);
    for kernel in KERNELS {
        for piece_bytes in [example.text.len(), 100_003, 997, 7] {
            let options = TallyOptions { kernel, ..options(DEFAULT_MAX_REJECTS_BYTES) };
            let aggregate = tally(options, example.text.as_bytes().chunks(piece_bytes)).unwrap();
            assert!(document(&aggregate) == example.document, "{kernel:?}, pieces of {piece_bytes}");
            assert_eq!(aggregate.rejects().len(), MAX_REJECTS);
        }
    }
    let aggregate = tally(options(DEFAULT_MAX_REJECTS_BYTES), [example.text.as_bytes()]).unwrap();
    assert!(aggregate.reject_blocks().count() >= 3);
    let pieces: Vec<_> = rejects_pieces(&aggregate, false, 1000).collect();
    assert!(pieces.len() > 3 && pieces.iter().all(|piece| !piece.is_empty() && piece.len() < 300_000));
    assert!(pieces.concat() == example.document);
}

#[test]
fn without_the_option_the_first_ones_are_listed_as_before() {
    let example = Example::new(300);
    let aggregate = tally(TallyOptions::default(), [example.text.as_bytes()]).unwrap();
    assert_eq!(document(&aggregate), rejects_table(aggregate.rejects(), false));
    assert_eq!(document(&aggregate), example.document[..example.row_ends()[MAX_REJECTS - 1]]);
    assert_eq!(aggregate.reject_blocks().count(), 0);
    let none = tally(options(1000), [HEADER.as_bytes()]).unwrap();
    assert_eq!(document(&none), "line,byte_offset,reason,record\n");
}

#[test]
fn the_limit_cuts_behind_a_row_and_the_document_says_so() {
    let example = Example::new(40);
    let all: u64 = example.row_bytes.iter().sum();
    for limit in (0..all + 300).step_by(13).chain([all - 1, all, all + 1, u64::MAX]) {
        let aggregate = tally(options(limit), example.text.as_bytes().chunks(50)).unwrap();
        assert_eq!(document(&aggregate), example.limited_document(limit), "{limit}");
        assert_eq!(aggregate.counters().rows_skipped(), 40);
    }
}

/// The places behind each LF.
fn line_starts(text: &[u8]) -> Vec<usize> {
    (1..text.len()).filter(|place| text[place - 1] == b'\n').collect()
}

/// Reads a text with forks that start at some lines, and reads again what starts within a record.
fn read_in_forks(options: TallyOptions, text: &[u8], starts: &[usize]) -> Aggregate {
    let mut tally = Tally::new(options);
    tally.push(&text[..starts[0]]).unwrap();
    let ends = starts.iter().copied().skip(1).chain([text.len()]);
    for (start, end) in starts.iter().copied().zip(ends) {
        let mut fork = tally.fork(start as u64).unwrap();
        fork.push(&text[start..end]).unwrap();
        if tally.join(fork).unwrap().is_some() {
            tally.push(&text[start..end]).unwrap();
        }
    }
    tally.finish().unwrap()
}

#[test]
fn forks_join_to_the_same_rows_whatever_the_limit() {
    let example = Example::new(MANY);
    let starts = line_starts(example.text.as_bytes());
    let all: u64 = example.row_bytes.iter().sum();
    for limit in [0, 1000, all / 3, all / 2 + 17, all - 1, all, DEFAULT_MAX_REJECTS_BYTES] {
        let expected = example.limited_document(limit);
        for every in [7, 500, 5000, 20_001] {
            let starts: Vec<_> = starts.iter().copied().step_by(every).collect();
            let aggregate = read_in_forks(options(limit), example.text.as_bytes(), &starts);
            assert!(document(&aggregate) == expected, "a limit of {limit}, a fork every {every} lines");
            let blocks: Vec<_> = aggregate.reject_blocks().cloned().collect();
            let without_blocks: Vec<_> = aggregate.save_pieces_without_blocks(1000).collect();
            for restored in
                [restore(&aggregate.save_pieces(1000).collect::<Vec<_>>(), &[]), restore(&without_blocks, &blocks)]
            {
                assert!(document(&restored.unwrap()) == expected, "a limit of {limit}, a fork every {every} lines");
            }
        }
    }
}

#[test]
fn threads_find_the_same_rows() {
    struct Unobserved;
    impl Observer for Unobserved {
        fn advanced(&self, _: u64, _: u64) {}
    }
    let example = Example::new(140_000);
    let place = Workspace::new();
    place.write("ads.csv", &example.text);
    assert!(example.text.len() > 12 << 20, "so much is read by three threads");
    let all: u64 = example.row_bytes.iter().sum();
    for limit in [DEFAULT_MAX_REJECTS_BYTES, all / 2, all * 4 / 5] {
        let expected = example.limited_document(limit);
        for threads in [1, 2, 3] {
            let (encoding, threads) = (encoding_for_label("utf-8").unwrap(), NonZeroUsize::new(threads).unwrap());
            let options = LocalOptions { tally: options(limit), dialect: None, max_skipped: None, encoding, threads };
            let input = Input::File(place.path("ads.csv"));
            let aggregate = aggregate_local(std::slice::from_ref(&input), &options, &Unobserved).unwrap();
            assert!(document(&aggregate) == expected, "{threads} threads, a limit of {limit}");
        }
    }
}

fn restore(pieces: &[Vec<u8>], blocks: &[Arc<[u8]>]) -> Result<Aggregate, RestoreError> {
    let mut reader = AggregateReader::new(Limits::default().max_campaigns);
    pieces.iter().try_for_each(|piece| reader.push(piece))?;
    blocks.iter().try_for_each(|block| reader.push_reject_block(block.to_vec()))?;
    reader.finish()
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_restored_tally_keeps_the_same_rows(
        text in text(0..60),
        place in any::<Index>(),
        kernels in [any_kernel(), any_kernel()],
        cuts in cuts(),
        limit in prop_oneof![0..3000_u64, Just(DEFAULT_MAX_REJECTS_BYTES)],
    ) {
        let options = |kernel| TallyOptions { kernel, max_rejects_bytes: Some(limit), ..text.options };
        let whole = tally(options(Kernel::Off), [&text.bytes[..]]).map(|aggregate| document(&aggregate));
        let place = place.index(text.bytes.len() + 1);
        let mut tally = Tally::new(options(kernels[0]));
        if tally.push(&text.bytes[..place]).is_ok() {
            let counted = restore(&tally.so_far().save_pieces_without_blocks(500).collect::<Vec<_>>(), &[]).unwrap();
            for mut restored in [
                Tally::restore(&tally.save(), kernels[1]).unwrap(),
                Tally::restore_position(&tally.save_position(), counted, kernels[1]).unwrap(),
            ] {
                prop_assert_eq!(restored.save(), tally.save());
                let rest = crate::texts::Text { bytes: text.bytes[place..].to_vec(), options: text.options };
                let ended = rest.cut(&cuts).into_iter().try_for_each(|piece| restored.push(piece)).and_then(|()| restored.finish());
                prop_assert_eq!(ended.map(|aggregate| document(&aggregate)), whole.clone());
            }
        }
    }

    #[test]
    fn forks_keep_the_same_rows(
        text in text(0..60),
        every in 1..12_usize,
        limit in prop_oneof![0..3000_u64, Just(DEFAULT_MAX_REJECTS_BYTES)],
        kernel in any_kernel(),
    ) {
        let options = TallyOptions { kernel, max_rejects_bytes: Some(limit), ..text.options };
        let starts: Vec<_> = line_starts(&text.bytes).into_iter().step_by(every).collect();
        if let (Ok(whole), Some(first)) = (tally(options, [&text.bytes[..]]), starts.first()) {
            let mut head = Tally::new(options);
            head.push(&text.bytes[..*first]).unwrap();
            if head.can_fork() {
                prop_assert_eq!(document(&read_in_forks(options, &text.bytes, &starts)), document(&whole));
            }
        }
    }

    /// Up to a hundred rows, the first ones are all.
    #[test]
    fn few_rows_are_listed_as_without_the_option(text in text(0..60)) {
        let all = TallyOptions { max_rejects_bytes: Some(DEFAULT_MAX_REJECTS_BYTES), ..text.options };
        if let Ok(aggregate) = tally(all, [&text.bytes[..]]) && aggregate.counters().rows_skipped() <= MAX_REJECTS as u64 {
            prop_assert_eq!(document(&aggregate), rejects_table(aggregate.rejects(), false));
        }
    }
}

fn example_file(bad_rows: u32, limit: u64, name: &str) -> Aggregate {
    let mut aggregate = tally(options(limit), [Example::new(bad_rows).text.as_bytes()]).unwrap();
    aggregate.name_file(name);
    aggregate
}

fn sum(mut left: Aggregate, right: Aggregate) -> Aggregate {
    left.merge(right).unwrap();
    left
}

#[test]
fn files_are_listed_one_after_the_other_under_one_limit() {
    let whole_bytes: u64 = Example::new(3000).row_bytes.iter().sum();
    for limit in [0, 500, whole_bytes - 1, whole_bytes, whole_bytes + 700, 2 * whole_bytes, DEFAULT_MAX_REJECTS_BYTES] {
        let file = |name| example_file(3000, limit, name);
        let few = || example_file(3, limit, "few, but named");
        let empty = || Aggregate::new(Limits::default().max_campaigns);
        let left = sum(sum(sum(empty(), file("a")), few()), file("b"));
        let right = sum(file("a"), sum(sum(few(), empty()), file("b")));
        let expected = document_of_files(&left);
        assert!(document_of_files(&right) == expected, "{limit}");
        let restored = restore(&left.save_pieces(100_000).collect::<Vec<_>>(), &[]).unwrap();
        assert!(document_of_files(&restored) == expected, "{limit}");
        // What is there is a beginning of what is there without a limit.
        let unlimited = |name| example_file(3000, u64::MAX, name);
        let all =
            document_of_files(&sum(sum(unlimited("a"), example_file(3, u64::MAX, "few, but named")), unlimited("b")));
        let end = expected.find(",,limit_reached,").unwrap_or(expected.len());
        assert!(all.starts_with(&expected[..end]), "{limit}");
        assert_eq!(end == expected.len(), expected.len() == all.len(), "{limit}");
        if limit == whole_bytes {
            assert!(expected.ends_with(&format!(
                ",,limit_reached,3003 more skipped rows are not listed: max_rejects_bytes is {limit},\n"
            )));
        }
        if limit == DEFAULT_MAX_REJECTS_BYTES {
            assert_eq!(expected.matches("\"few, but named\"\n").count(), 3);
        }
    }
}

#[test]
fn of_a_file_that_kept_only_the_first_these_are_listed() {
    let first = |name: &str| {
        let mut aggregate = tally(TallyOptions::default(), [Example::new(3).text.as_bytes()]).unwrap();
        aggregate.name_file(name);
        aggregate
    };
    let mixed = document_of_files(&sum(sum(first("a"), example_file(3, 1 << 20, "b")), first("c")));
    assert_eq!(mixed, rejects_table(sum(sum(first("a"), first("b")), first("c")).rejects(), true));
}

type Change<'a> = &'a dyn Fn(&mut Vec<Arc<[u8]>>);

#[test]
fn blocks_that_do_not_belong_to_a_state_are_refused() {
    let aggregate = tally(options(DEFAULT_MAX_REJECTS_BYTES), [Example::new(MANY).text.as_bytes()]).unwrap();
    let pieces: Vec<_> = aggregate.save_pieces_without_blocks(1 << 20).collect();
    let blocks: Vec<_> = aggregate.reject_blocks().cloned().collect();
    let restored = restore(&pieces, &blocks).unwrap();
    assert_eq!(document(&restored), document(&aggregate));
    let with = |change: Change<'_>| {
        let mut changed = blocks.clone();
        change(&mut changed);
        restore(&pieces, &changed).err()
    };
    assert!(with(&|blocks| drop(blocks.pop())).is_some(), "one is missing");
    assert!(with(&|blocks| drop(blocks.remove(0))).is_some(), "the first one is missing");
    assert!(with(&|blocks| blocks.push(blocks[0].clone())).is_some(), "there is one too many");
    assert!(with(&|blocks| blocks.swap(0, 1)).is_some(), "two have changed places");
    for place in (0..blocks[0].len()).step_by(97) {
        let change = |blocks: &mut Vec<Arc<[u8]>>| {
            let mut body = blocks[0].to_vec();
            body[place] ^= 0x20;
            blocks[0] = body.into();
        };
        assert!(with(&change).is_some(), "byte {place} is another");
    }
    // Without a log there are none.
    let plain = tally(TallyOptions::default(), [HEADER.as_bytes()]).unwrap();
    assert!(restore(&plain.save_pieces(1000).collect::<Vec<_>>(), &blocks).is_err());
    // A position and what was counted have the same limit.
    let mut tally = Tally::new(options(1000));
    tally.push(HEADER.as_bytes()).unwrap();
    assert!(Tally::restore_position(&tally.save_position(), plain, Kernel::Detect).is_err());
}

fn restore_pipeline(options: &PipelineOptions, saved: &SavedPipeline) -> Pipeline {
    let mut reader = PipelineReader::new(options);
    saved.pieces.iter().for_each(|piece| reader.push(piece).unwrap());
    assert_eq!(reader.reject_blocks(), saved.reject_blocks.len() as u64);
    saved.reject_blocks.iter().for_each(|block| reader.push_reject_block(block.to_vec()).unwrap());
    reader.finish().unwrap()
}

#[test]
fn states_of_an_upload_share_their_blocks() {
    let example = Example::new(4 * MANY);
    let options = PipelineOptions { tally: options(DEFAULT_MAX_REJECTS_BYTES), ..PipelineOptions::default() };
    let mut pipeline = Pipeline::new(&options).unwrap();
    let mut before: Vec<Arc<[u8]>> = Vec::new();
    for part in example.text.as_bytes().chunks(example.text.len().div_ceil(10)) {
        pipeline.push(part).unwrap();
        let saved = pipeline.save().unwrap();
        assert!(before.iter().zip(&saved.reject_blocks).all(|(before, now)| Arc::ptr_eq(before, now)));
        assert!(saved.reject_blocks.len() > before.len());
        before.clone_from(&saved.reject_blocks);
        let bytes: usize = saved.pieces.iter().map(Vec::len).sum();
        assert!(bytes < 100_000, "closed blocks are not repeated: {bytes}");
        let restored = restore_pipeline(&options, &saved);
        assert_eq!(restored.save().as_ref(), Some(&saved));
    }
    assert!(document(&pipeline.finish().unwrap().aggregate) == example.document);
}

#[test]
fn a_resumed_upload_lists_the_same_rows() {
    let example = Example::new(MANY);
    let all: u64 = example.row_bytes.iter().sum();
    for limit in [all / 2, DEFAULT_MAX_REJECTS_BYTES] {
        let options = PipelineOptions { tally: options(limit), ..PipelineOptions::default() };
        // The limit is part of the state.
        let others = PipelineOptions::default();
        let mut pipeline = Pipeline::new(&options).unwrap();
        for part in example.text.as_bytes().chunks(50_021) {
            pipeline.push(part).unwrap();
            pipeline = restore_pipeline(&others, &pipeline.save().unwrap());
        }
        assert!(document(&pipeline.finish().unwrap().aggregate) == example.limited_document(limit), "{limit}");
    }
}

/// What a service does with an upload that breaks off again and again.
#[test]
fn an_upload_that_is_resumed_from_the_store_lists_the_same_rows() {
    let example = Example::new(4 * MANY);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&Store::file_url(&directory.path().join("adtally.db"))).await.unwrap();
        let job = Job {
            id: JobId::new(),
            tenant: String::new(),
            name: "job".into(),
            state: State::Open,
            closes_itself: false,
            created_at: Timestamp::now(),
            finished_at: None,
            expires_at: None,
            details: Details::default(),
        };
        store.insert(&job, None).await.unwrap();
        let file = JobFile::begin("a.csv", FileFormat::default(), None);
        let opened = store.open_file(&Scope::All, job.id, &file, ChangedBy::Others, 9, KEEP).await.unwrap();
        let OpenedFile::Writer(mut writer) = opened else { panic!("{opened:?}") };
        let options = PipelineOptions { tally: options(DEFAULT_MAX_REJECTS_BYTES), ..PipelineOptions::default() };
        let mut pipeline = Pipeline::new(&options).unwrap();
        let mut stored = 0;
        for (number, part) in example.text.as_bytes().chunks(200_003).enumerate() {
            pipeline.push(part).unwrap();
            let SavedPipeline { offset, pieces, mut reject_blocks, .. } = pipeline.save().unwrap();
            let blocks = reject_blocks.split_off(stored);
            let reject_blocks = NewBlocks { stored, blocks };
            stored = reject_blocks.count();
            let checkpoint =
                Checkpoint { number: i64::try_from(number).unwrap(), offset, pieces, reject_blocks, file: None };
            assert!(store.save_checkpoint(writer, checkpoint).await.unwrap());
            // The process dies; another one goes on, but not always.
            if number % 3 > 0 {
                let resumed = store.resume_file(&Scope::All, job.id, "a.csv", offset, KEEP).await.unwrap();
                let ResumedFile::Writer(file, Some(checkpoint)) = resumed else { panic!("{resumed:?}") };
                writer = file.writer;
                let mut reader = PipelineReader::new(&options);
                for sequence in 0.. {
                    let Some(piece) = store.checkpoint_piece(writer, checkpoint, sequence).await.unwrap() else {
                        break;
                    };
                    reader.push(&piece).unwrap();
                }
                for sequence in 0..reader.reject_blocks() {
                    reader
                        .push_reject_block(store.reject_block(writer.file, sequence).await.unwrap().unwrap())
                        .unwrap();
                }
                pipeline = reader.finish().unwrap();
            }
        }
        assert!(stored > 10, "{stored}");
        assert!(document(&pipeline.finish().unwrap().aggregate) == example.document);
    });
}

#[test]
fn the_command_lists_all_of_them() {
    let example = Example::new(3000);
    let place = Workspace::new();
    place.write("a.csv", &example.text);
    place.write("b.csv", format!("{HEADER}short\n"));
    place.run("-i a.csv -o one --rejects all").assert_done();
    assert!(place.read("one/rejects.csv") == example.document);
    place.run("-i b.csv a.csv -o two --rejects all").assert_done();
    let both = place.read("two/rejects.csv");
    assert!(
        both.starts_with("line,byte_offset,reason,record,file\n2,54,column_count,short,b.csv\n2,54,"),
        "{}",
        &both[..200]
    );
    assert_eq!(both.matches(",a.csv\n").count(), 3000);
    place.run("-i a.csv -o one").assert_done();
    assert_eq!(place.read("one/rejects.csv"), example.document[..example.row_ends()[MAX_REJECTS - 1]]);
}

#[track_caller]
fn rejects_of(service: &Service, job: &Value) -> String {
    assert_eq!(job["state"], "succeeded", "{job}");
    service.get(job["links"]["results"]["rejects.csv"].as_str().unwrap()).text().to_owned()
}

#[test]
fn the_service_lists_all_of_them_whatever_breaks_off() {
    let example = Example::new(4 * MANY);
    let whole = example.text.as_bytes();
    let mut service = Service::start_with(&["--checkpoint-interval", "0s"]);
    let mut connection = service.connect();
    let head =
        format!("PUT /v1/jobs/all?rejects=all HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", whole.len());
    connection.send(head).send(&whole[..whole.len() / 3]).half_close();
    connection.read_rest();
    for _ in 0..4 {
        let (file, offset) = place(&service, &service.get("/v1/jobs/all").expect(200));
        assert!(patch(&service, &file, offset, &whole[offset..offset + whole.len() / 7]).status < 300);
        service.crash_and_restart();
    }
    let (file, offset) = place(&service, &service.get("/v1/jobs/all").expect(200));
    assert!(offset > whole.len() / 2);
    patch(&service, &file, offset, &whole[offset..]).expect(200);
    let job = service.get("/v1/jobs/all").expect(200);
    assert!(rejects_of(&service, &job) == example.document);
    // As JSON, too.
    let link = job["links"]["results"]["rejects.csv"].as_str().unwrap();
    let rows = service.send("GET", link, &[("accept", "application/json")], b"").expect(200);
    assert_eq!(rows.as_array().unwrap().len(), example.row_bytes.len());
    // A file that starts over has its own only.
    let other = Example::new(MANY / 2);
    let id = open(&service, &json!({"options": {"rejects": "all"}}));
    let mut connection = service.connect();
    let path = file_path(&id, "a.csv");
    let head = format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", whole.len());
    connection.send(head).send(&whole[..whole.len() / 2]).half_close();
    connection.read_rest();
    service.put(&path, other.text.as_bytes()).expect(201);
    let job = complete(&service, &id).expect(200);
    assert!(rejects_of(&service, &job) == other.document);
}

#[test]
fn the_service_says_when_the_limit_is_reached() {
    let example = Example::new(500);
    let service = Service::start_with(&["--max-rejects", "3000"]);
    let limited = service.put("/v1/jobs/limited?rejects=all", example.text.as_bytes()).expect(201);
    let expected = example.limited_document(3000);
    assert_eq!(rejects_of(&service, &limited), expected);
    let first = service.put("/v1/jobs/first", example.text.as_bytes()).expect(201);
    assert_eq!(rejects_of(&service, &first), example.document[..example.row_ends()[MAX_REJECTS - 1]]);
    // All files of a job have one limit together.
    let id = open(&service, &json!({"options": {"rejects": "all"}}));
    for name in ["a.csv", "b.csv"] {
        service.put(&file_path(&id, name), Example::new(20).text.as_bytes()).expect(201);
    }
    let job = complete(&service, &id).expect(200);
    let text = rejects_of(&service, &job);
    let listed = |name: &str| text.matches(&format!(",{name}\n")).count();
    let missing = 40 - listed("a.csv") - listed("b.csv");
    assert!(listed("a.csv") == 20 && listed("b.csv") > 0 && missing > 0, "{text}");
    let end = format!(",,limit_reached,{missing} more skipped rows are not listed: max_rejects_bytes is 3000,\n");
    assert!(text.ends_with(&end), "{text}");
    let link = job["links"]["results"]["rejects.csv"].as_str().unwrap();
    let rows = service.send("GET", link, &[("accept", "application/json")], b"").expect(200);
    let last = rows.as_array().unwrap().last().unwrap();
    let says = format!("{missing} more skipped rows are not listed: max_rejects_bytes is 3000");
    let expected = json!({"line": null, "byte_offset": null, "reason": "limit_reached", "record": says, "file": null});
    assert_eq!(*last, expected);
}
