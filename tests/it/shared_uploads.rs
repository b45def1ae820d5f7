//! A compressed upload that two workers read comes to the same as one that is read in order.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use adtally::engine::TallyOptions;
use adtally::ingest::{
    ContentError, FileProgress, LaneError, LaneObserver, Pipeline, PipelineOptions, SavedPipeline, SharedPipeline,
    Turn, Workers, receive,
};
use bytes::Bytes;
use futures_util::stream;

use crate::codings::gzip_of_many_blocks;
use crate::harness::{HEADER, Outcome, zstandard};

/// Saves after every batch.
#[derive(Default)]
struct Saving(Mutex<Vec<(SavedPipeline, FileProgress)>>);

impl LaneObserver for Saving {
    fn batch_read(&self, pipeline: &mut Pipeline) {
        if let Some(saved) = pipeline.take_latest() {
            self.0.lock().unwrap().push((saved, FileProgress::of(pipeline)));
        }
        pipeline.save_when_possible();
    }

    fn advanced(&self, _: FileProgress) {}
}

/// A file of much that is new in every row, a hundredth of which does not count.
fn varied(rows: u32) -> String {
    let row = |number: u32| {
        let random = u64::from(number).wrapping_add(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let clicks = if number.is_multiple_of(100) { "many".into() } else { (random >> 40 & 0xfff).to_string() };
        format!("CMP{},2025-01-01,{},{clicks},{}.5,1\n", random >> 52, random >> 32 & 0xffff, random >> 58)
    };
    HEADER.to_owned() + &(0..rows).map(row).collect::<String>()
}

/// The end of an upload, and the states on the way there.
type Read = (Result<(Outcome, Option<u64>), ContentError>, Vec<(SavedPipeline, FileProgress)>);

/// Sends pieces through a lane.
fn send(options: &PipelineOptions, pieces: &[Bytes], workers: &Workers) -> Read {
    let pipeline = Arc::new(Mutex::new(Some(Pipeline::new(options).unwrap())));
    let observer = Arc::new(Saving::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut source = stream::iter(pieces.iter().cloned().map(Ok::<_, std::convert::Infallible>));
    let received = runtime.block_on(receive(&mut source, &pipeline, workers, &observer));
    let end = match received {
        Ok(()) => pipeline.lock().unwrap().take().unwrap().finish(),
        Err(LaneError::Content(error)) => Err(error),
        Err(error) => panic!("{error}"),
    };
    let end = end.map(|finished| (Outcome::of(&finished.aggregate), finished.crc64));
    (end, std::mem::take(&mut observer.0.lock().unwrap()))
}

/// Reads pieces in order, with the state after each.
fn read_in_order(options: &PipelineOptions, pieces: &[Bytes]) -> Read {
    let mut pipeline = Pipeline::new(options).unwrap();
    let mut states = Vec::new();
    for piece in pieces {
        if let Err(error) = pipeline.push(piece) {
            return (Err(error), states);
        }
        states.push((pipeline.save().unwrap(), FileProgress::of(&pipeline)));
    }
    let end = pipeline.finish().map(|finished| (Outcome::of(&finished.aggregate), finished.crc64));
    (end, states)
}

/// Checks an upload. Where its batches end is a matter of time, but the state there is that of reading in order.
fn check(options: &PipelineOptions, data: &[u8], piece_bytes: usize, workers: &Workers) {
    let data = Bytes::copy_from_slice(data);
    let ends = (piece_bytes..data.len()).step_by(piece_bytes).chain([data.len()]);
    let pieces: Vec<_> = ends.scan(0, |start, end| Some(data.slice(std::mem::replace(start, end)..end))).collect();
    let (expected, expected_states) = read_in_order(options, &pieces);
    let expected_states: BTreeMap<_, _> =
        expected_states.into_iter().map(|(saved, progress)| (saved.offset, (saved, progress))).collect();
    let (end, states) = send(options, &pieces, workers);
    assert_eq!(end, expected, "in pieces of {piece_bytes}");
    assert!(!states.is_empty() || end.is_err());
    // A turn of compressed data may be over within a piece, where reading in order has no state. That such states are gone on from rightly is what
    // the tests of turns show.
    let is_plain = options.coding.is_none() && !data.starts_with(b"\x1f\x8b") && !data.starts_with(b"\x28\xb5\x2f\xfd");
    for state in states {
        let offset = state.0.offset;
        assert!(offset <= data.len() as u64);
        assert!(!is_plain || Some(&state) == expected_states.get(&offset), "at {offset}, in pieces of {piece_bytes}");
    }
}

fn workers(threads: usize) -> Workers {
    Workers::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

#[test]
fn any_number_of_workers_gives_the_same() {
    let text = varied(100_000);
    let options = PipelineOptions::default();
    for data in [text.clone().into_bytes(), gzip_of_many_blocks(text.as_bytes()), zstandard(text.as_bytes())] {
        for threads in 1..=3 {
            for piece_bytes in [100_000, 16_384, 5003] {
                check(&options, &data, piece_bytes, &workers(threads));
            }
        }
    }
}

#[test]
fn any_number_of_workers_finds_the_same_error() {
    let text = varied(60_000);
    let good = gzip_of_many_blocks(text.as_bytes());
    let max_skipped = |max_skipped| TallyOptions { max_skipped: Some(max_skipped), ..TallyOptions::default() };
    for place in (good.len() / 3..good.len()).step_by(good.len() / 7) {
        let mut damaged = good.clone();
        damaged[place..].fill(0xff);
        for tally in [max_skipped(300), max_skipped(400), TallyOptions::default()] {
            let options = PipelineOptions { tally, ..PipelineOptions::default() };
            for threads in 1..=2 {
                check(&options, &damaged, 16_384, &workers(threads));
            }
        }
    }
}

#[test]
fn an_upload_needs_no_second_worker() {
    let data = gzip_of_many_blocks(varied(60_000).as_bytes());
    let workers = workers(2);
    let busy = workers.clone();
    let (end, ended) = channel::<()>();
    let (start, started) = channel();
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(busy.run(move || {
            start.send(()).unwrap();
            ended.recv()
        }))
    });
    started.recv().unwrap();
    check(&PipelineOptions::default(), &data, 16_384, &workers);
    drop(end);
    assert!(other.join().unwrap().is_ok());
}

#[test]
fn many_uploads_share_two_workers() {
    let data = gzip_of_many_blocks(varied(60_000).as_bytes());
    let workers = workers(2);
    std::thread::scope(|scope| {
        for piece_bytes in [5000, 16_384, 30_000, 65_536] {
            let (data, workers) = (&data, &workers);
            scope.spawn(move || check(&PipelineOptions::default(), data, piece_bytes, workers));
        }
    });
}

/// Notes how far the upload is whenever it gives up its worker.
#[derive(Default)]
struct Noting(Mutex<Vec<FileProgress>>);

impl LaneObserver for Noting {
    fn batch_read(&self, _: &mut Pipeline) {}

    fn advanced(&self, progress: FileProgress) {
        self.0.lock().unwrap().push(progress);
    }
}

/// Rows that a pipeline has read.
fn rows_read(pipeline: &SharedPipeline) -> u64 {
    pipeline.lock().unwrap().as_ref().map_or(0, |pipeline| FileProgress::of(pipeline).rows_read)
}

/// Sends a bomb of one piece to the only worker while that is busy for another tenant, and then other work, unless there is none. Gives what
/// that work saw, how often the upload had a turn, and its outcome.
fn send_bomb(bomb: &[u8], other: Option<&Workers>, workers: &Workers) -> (Option<u64>, usize, Outcome) {
    let busy = workers.of("busy");
    let pipeline = Arc::new(Mutex::new(Some(Pipeline::new(&PipelineOptions::default()).unwrap())));
    let observer = Arc::new(Noting::default());
    let (end, ended) = channel::<()>();
    let mut source = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::copy_from_slice(bomb))]);
    let seen = Arc::clone(&pipeline);
    let look = async {
        match other {
            Some(other) => Some(other.run(move || rows_read(&seen)).await.unwrap()),
            None => None,
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (busy, received, seen, ()) = runtime.block_on(async {
        // In this order.
        tokio::join!(busy.run(move || ended.recv()), receive(&mut source, &pipeline, workers, &observer), look, async {
            drop(end);
        })
    });
    assert!(busy.unwrap().is_err());
    received.unwrap();
    let finished = pipeline.lock().unwrap().take().unwrap().finish().unwrap();
    (seen, observer.0.lock().unwrap().len(), Outcome::of(&finished.aggregate))
}

#[test]
fn a_bomb_gives_way_in_the_middle_of_its_batch_to_uploads_and_tenants() {
    const ROWS: u64 = 600_000;
    let text = HEADER.to_owned() + &"bomb,2025-01-01,1,1,1,1\n".repeat(usize::try_from(ROWS).unwrap());
    let bomb = gzip_of_many_blocks(text.as_bytes());
    assert!(bomb.len() < 256 * 1024, "it is one batch");
    // All are in the line of long turns, as what `run` runs is there.
    let workers_of_attacker = || workers(1).of("attacker");
    let (seen, turns, alone) = send_bomb(&bomb, None, &workers_of_attacker().for_upload(Turn::Long));
    assert_eq!((seen, turns), (None, 1));
    let others: [fn(&Workers) -> Workers; 3] =
        [|attacker| attacker.of("other"), |attacker| attacker.for_upload(Turn::Long), Workers::clone];
    for other in others {
        // New ones: an upload that has just ended may be ahead of others for a moment.
        let attacker = workers_of_attacker();
        let (seen, turns, outcome) = send_bomb(&bomb, Some(&other(&attacker)), &attacker.for_upload(Turn::Long));
        let rows = seen.unwrap();
        assert!((1..ROWS / 3).contains(&rows), "{rows} rows had been read");
        assert_eq!(turns, 2, "once nothing waits, the rest is read in one go");
        assert!(outcome == alone);
    }
}
