//! Counting the text of an upload.
//!
//! Text that comes out of decompression is counted step by step. While another worker has nothing to do, that one counts it, a block of
//! several steps at once, and the next block is decompressed meanwhile.

use std::mem::take;
use std::ops::Range;

use super::block::BLOCK_BYTES;
use super::charset::{SavedDecoder, TextDecoder};
use super::handoff::{CountText, Handoff};
use super::text::Text;
use super::workers::Workers;
use crate::engine::{Aggregate, Fatal, Tally};

/// What counts text, on the thread that has it.
struct Counting {
    decoder: TextDecoder,
    tally: Tally,
}

impl CountText for Counting {
    fn count(&mut self, text: &[u8]) -> Result<(), Fatal> {
        self.decoder.push(text, |text| self.tally.push(text))
    }
}

/// Counts the text of one upload.
pub(super) struct Counter {
    /// None while it is handed over.
    counting: Option<Box<Counting>>,
    /// What has been decompressed, and has been neither counted nor handed over. It is empty, unless there is a handoff.
    text: Text,
    /// None while all text is counted here.
    handoff: Option<Handoff<Counting>>,
}

/// What counts is here unless it is handed over.
const COUNTING_IS_BACK: &str =
    "it is handed over only while pieces are read, and is back after `settle` and `end_handing_over`";

impl Counter {
    pub(super) fn new(decoder: TextDecoder, tally: Tally) -> Self {
        Self { counting: Some(Box::new(Counting { decoder, tally })), text: Text::default(), handoff: None }
    }

    #[expect(clippy::expect_used, reason = "a stated invariant")]
    fn counting(&self) -> &Counting {
        self.counting.as_ref().expect(COUNTING_IS_BACK)
    }

    #[expect(clippy::expect_used, reason = "a stated invariant")]
    fn counting_mut(&mut self) -> &mut Counting {
        self.counting.as_mut().expect(COUNTING_IS_BACK)
    }

    /// What has been counted so far.
    pub(super) fn so_far(&self) -> &Aggregate {
        self.counting().tally.so_far()
    }

    /// Memory of what counts, without buffers that belong to the workers. All text must have been [settled](Self::settle).
    pub(super) fn memory_bytes(&self) -> usize {
        let Counting { decoder, tally } = self.counting();
        decoder.memory_bytes() + tally.memory_bytes()
    }

    /// The most memory that counting this much, before it is decoded, takes on top of that.
    pub(super) fn growth_bytes(&self, bytes: usize) -> usize {
        let Counting { decoder, tally } = self.counting();
        decoder.growth_bytes(bytes) + tally.growth_bytes(decoder.text_bound(bytes))
    }

    /// Where the counting stands, but for what has been counted.
    pub(super) fn save(&self) -> Option<(SavedDecoder, Vec<u8>)> {
        let Counting { decoder, tally } = self.counting();
        Some((decoder.save()?, tally.save_position()))
    }

    /// Gives up the buffer for text, all of which has been counted.
    pub(super) fn free_room(&mut self) {
        self.text = Text::default();
    }

    /// Counts text at once.
    ///
    /// # Errors
    /// When the text cannot be used. Nothing more may be counted then.
    pub(super) fn count(&mut self, text: &[u8]) -> Result<(), Fatal> {
        self.counting_mut().count(text)
    }

    /// Room for what a step of decompression makes: [`STEP_BYTES`](super::text::STEP_BYTES).
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.text.step_room()
    }

    /// Counts, now or later, a part of what a step has written to the [room](Self::room).
    ///
    /// # Errors
    /// When this text or some before it cannot be used. Nothing more may be counted then.
    pub(super) fn add(&mut self, part: Range<usize>) -> Result<(), Fatal> {
        self.text.append(part);
        match &mut self.handoff {
            Some(handoff) if self.counting.is_none() || handoff.has_idle_thread() => {
                if self.text.bytes().len() < BLOCK_BYTES {
                    return Ok(());
                }
                handoff.hand_over(&mut self.counting, &mut self.text)
            }
            _ => self.count_here(),
        }
    }

    /// Counts all text that is still to be counted.
    ///
    /// # Errors
    /// When some of it cannot be used. Nothing more may be counted then.
    pub(super) fn settle(&mut self) -> Result<(), Fatal> {
        if let Some(handoff) = &mut self.handoff {
            handoff.settle(&mut self.counting).inspect_err(|_| self.text.clear())?;
        }
        self.count_here()
    }

    /// Counts what has been decompressed, after all text before it.
    fn count_here(&mut self) -> Result<(), Fatal> {
        let Self { counting: Some(counting), text, .. } = self else { return Ok(()) };
        if text.bytes().is_empty() {
            return Ok(());
        }
        let counted = counting.count(text.bytes());
        text.clear();
        counted
    }

    /// Lets other workers count while text is decompressed, until [the end](Self::end_handing_over) of that.
    pub(super) fn begin_handing_over(&mut self, workers: &Workers) {
        self.handoff = Some(Handoff::new(workers));
        self.text = workers.take_text();
    }

    /// Counts here from now on. Text that is still to be counted is not.
    pub(super) fn end_handing_over(&mut self, workers: &Workers) {
        if let Some(mut handoff) = self.handoff.take() {
            handoff.take_back(&mut self.counting);
        }
        workers.keep_text(take(&mut self.text));
    }

    /// Counts the end of the text.
    ///
    /// # Errors
    /// When the text cannot be used.
    #[expect(clippy::expect_used, reason = "a stated invariant")]
    pub(super) fn finish(self) -> Result<Aggregate, Fatal> {
        let Counting { decoder, mut tally } = *self.counting.expect(COUNTING_IS_BACK);
        decoder.finish(|text| tally.push(text))?;
        tally.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::io::Write as _;
    use std::num::NonZeroUsize;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use bytes::Bytes;

    use super::super::decompress::{Coding, DecompressError};
    use super::super::growth::{Growth, Pushed};
    use super::super::lane::FileProgress;
    use super::super::pipeline::{ContentError, Finished, Pipeline, PipelineOptions};
    use super::super::pipeline_reader::PipelineReader;
    use super::super::saved::SavedPipeline;
    use super::*;
    use crate::engine::{Limits, TallyOptions};

    const HEADER: &str = "campaign_id,date,impressions,clicks,spend,conversions\n";

    /// A file of much that is new in every row, a hundredth of which does not count.
    fn varied(rows: u32) -> String {
        let row = |number: u32| {
            let random = u64::from(number).wrapping_add(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let clicks = if number.is_multiple_of(100) { "many".into() } else { (random >> 40 & 0xfff).to_string() };
            format!("CMP{},2025-01-01,{},{clicks},{}.5,1\n", random >> 52, random >> 32 & 0xffff, random >> 58)
        };
        HEADER.to_owned() + &(0..rows).map(row).collect::<String>()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(text: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(text, 1).unwrap()
    }

    fn workers(threads: usize) -> Workers {
        Workers::new(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    /// What can be seen of an upload: after each batch the latest state and the progress, and the end.
    #[derive(Debug, PartialEq)]
    struct Seen {
        states: Vec<(Option<SavedPipeline>, FileProgress)>,
        /// What had been counted.
        progress: FileProgress,
        end: Result<(Vec<u8>, Option<u64>), ContentError>,
    }

    /// How data is cut and read.
    #[derive(Clone, Copy, Debug)]
    struct Cut {
        piece_bytes: usize,
        batch_pieces: usize,
        saves: bool,
    }

    /// Reads data with workers, or piece by piece in order.
    fn read(options: &PipelineOptions, data: &[u8], cut: Cut, workers: Option<&Workers>) -> Seen {
        let mut pipeline = Pipeline::new(options).unwrap();
        let mut states = Vec::new();
        let mut read_all = |pipeline: &mut Pipeline| {
            for batch in data.chunks(cut.piece_bytes * cut.batch_pieces) {
                let mut pieces = batch.chunks(cut.piece_bytes);
                match workers {
                    Some(workers) => push_all(pipeline, pieces, workers)?,
                    None => pieces.try_for_each(|piece| pipeline.push(piece))?,
                }
                if cut.saves {
                    states.push((pipeline.take_latest(), FileProgress::of(pipeline)));
                    pipeline.save_when_possible();
                }
            }
            Ok(())
        };
        let read = read_all(&mut pipeline);
        let progress = FileProgress { bytes_received: 0, ..FileProgress::of(&pipeline) };
        let end = read.and_then(|()| {
            let finished = pipeline.finish()?;
            Ok((finished.aggregate.save_pieces_without_blocks(usize::MAX).flatten().collect(), finished.crc64))
        });
        Seen { states, progress, end }
    }

    /// Reads pieces with workers. Memory is refused every third time.
    fn push_all<'a>(
        pipeline: &mut Pipeline,
        pieces: impl Iterator<Item = &'a [u8]>,
        workers: &Workers,
    ) -> Result<(), ContentError> {
        let mut pieces: VecDeque<_> = pieces.map(Bytes::copy_from_slice).collect();
        let asked = Cell::new(0);
        let permit = |_| {
            asked.set(asked.get() + 1);
            asked.get() % 3 != 0
        };
        while pipeline.push_all(&mut pieces, workers, permit)? != Pushed::All {}
        Ok(())
    }

    /// Checks that nothing depends on how many threads there are.
    fn check(options: &PipelineOptions, data: &[u8], cut: Cut) -> Seen {
        let expected = read(options, data, cut, None);
        for threads in [1, 2] {
            let seen = read(options, data, cut, Some(&workers(threads)));
            assert_eq!(seen.end, expected.end, "{threads} threads, {cut:?}");
            assert_eq!(seen.progress, expected.progress, "{threads} threads, {cut:?}, {:?}", seen.end);
            assert!(seen == expected, "other states with {threads} threads, {cut:?}");
        }
        expected
    }

    #[test]
    fn reports_and_states_do_not_depend_on_the_threads() {
        let text = varied(60_000);
        let halves = text.as_bytes().split_at(text.len() / 2);
        let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let default = PipelineOptions::default();
        let in_utf_16 = PipelineOptions { encoding: encoding_rs::UTF_16LE, with_digest: true, ..default.clone() };
        for (options, data) in [
            (&default, text.clone().into_bytes()),
            (&default, gzip(text.as_bytes())),
            (&default, [gzip(halves.0), gzip(halves.1)].concat()),
            (&default, [zstandard(halves.0), zstandard(halves.1)].concat()),
            (&in_utf_16, gzip(&utf_16)),
        ] {
            for (piece_bytes, batch_pieces) in [(data.len(), 1), (100_000, 3), (16_384, 16), (4099, 7)] {
                for saves in [false, true] {
                    let seen = check(options, &data, Cut { piece_bytes, batch_pieces, saves });
                    assert!(seen.end.is_ok());
                    assert!(!saves || seen.states.iter().all(|(state, _)| state.is_some()));
                }
            }
        }
    }

    #[test]
    fn a_state_within_a_batch_stands_where_it_was_asked_for() {
        // Frames longer than what is kept to be read again: after a break, the upload continues only from the end of one.
        let text = [HEADER.as_bytes(), &b"c,2025-01-01,1,1,1,1\n".repeat(900_000)].concat();
        let mut frame = b"\x28\xb5\x2f\xfd\0\x50".to_vec();
        for block in text.chunks(100_000) {
            frame.extend_from_slice(&(u32::try_from(block.len()).unwrap() << 3).to_le_bytes()[..3]);
            frame.extend_from_slice(block);
        }
        frame.extend_from_slice(&[1, 0, 0]);
        let data = [&frame[..], &frame].concat();
        let options = PipelineOptions { coding: Some(Coding::Zstd), ..PipelineOptions::default() };
        let seen = check(&options, &data, Cut { piece_bytes: 50_000, batch_pieces: 374, saves: true });
        let offsets: Vec<_> = seen.states.iter().map(|(state, _)| state.as_ref().map(|state| state.offset)).collect();
        assert_eq!(offsets, [None, Some(frame.len() as u64), Some(data.len() as u64)]);
    }

    #[test]
    fn an_error_comes_before_those_behind_it() {
        let text = varied(30_000);
        let good = gzip(text.as_bytes());
        let skips = |max_skipped| TallyOptions { max_skipped: Some(max_skipped), ..TallyOptions::default() };
        let campaigns = |max_campaigns| TallyOptions {
            limits: Limits { max_campaigns, ..Limits::default() },
            ..TallyOptions::default()
        };
        let (mut of_text, mut of_data) = (0, 0);
        for place in (20..good.len() - 10).step_by(good.len() / 9) {
            let mut damaged = good.clone();
            damaged[place..place + 8].fill(0xff);
            for tally in [skips(20), skips(150), skips(250), campaigns(4000), TallyOptions::default()] {
                for max_text_bytes in [u64::MAX, text.len() as u64 / 2] {
                    let options = PipelineOptions { tally, max_text_bytes, ..PipelineOptions::default() };
                    for (piece_bytes, batch_pieces) in [(good.len(), 1), (16_384, 8)] {
                        let seen = check(&options, &damaged, Cut { piece_bytes, batch_pieces, saves: false });
                        match seen.end.unwrap_err() {
                            ContentError::Fatal(_) => of_text += 1,
                            ContentError::Decompress(DecompressError::Damaged { .. }) => of_data += 1,
                            _ => {}
                        }
                    }
                }
            }
        }
        assert!(of_text > 20 && of_data > 20, "{of_text} and {of_data}");
    }

    #[test]
    fn text_is_handed_over_while_a_thread_has_nothing_to_do() {
        let data = gzip(varied(60_000).as_bytes());
        let (workers, cut) = (workers(1), Cut { piece_bytes: 16_384, batch_pieces: 1000, saves: false });
        assert!(read(&PipelineOptions::default(), &data, cut, Some(&workers)).end.is_ok());
        // Reading in order takes one buffer, and the first text that is handed over another one.
        assert_eq!(workers.kept_texts(), 2);
    }

    /// Goes on where a state stands, and reads to the end.
    fn go_on(options: &PipelineOptions, state: &SavedPipeline, data: &[u8]) -> Finished {
        let mut reader = PipelineReader::new(options);
        state.pieces.iter().for_each(|piece| reader.push(piece).unwrap());
        let mut pipeline = reader.finish().unwrap();
        assert_eq!(pipeline.bytes_received(), state.offset);
        pipeline.push(&data[usize::try_from(state.offset).unwrap()..]).unwrap();
        pipeline.finish().unwrap()
    }

    fn outcome(finished: &Finished) -> (Vec<u8>, Option<u64>) {
        (finished.aggregate.save_pieces_without_blocks(usize::MAX).flatten().collect(), finished.crc64)
    }

    /// Reads data as one batch. Gives how often the turn was over before its end, and what it came to. Some of the states on the way are gone on
    /// from.
    fn read_in_turns(
        options: &PipelineOptions,
        data: &[u8],
        piece_bytes: usize,
        workers: &Workers,
    ) -> (usize, (Vec<u8>, Option<u64>)) {
        let mut pipeline = Pipeline::new(options).unwrap();
        let mut pieces: VecDeque<_> = data.chunks(piece_bytes).map(Bytes::copy_from_slice).collect();
        let mut states = Vec::new();
        let mut rows_read = 0;
        while pipeline.push_all(&mut pieces, workers, |_| true).unwrap() == Pushed::TurnOver {
            let rows_before = std::mem::replace(&mut rows_read, FileProgress::of(&pipeline).rows_read);
            assert!(rows_before < rows_read && !pieces.is_empty());
            states.push(pipeline.take_latest().unwrap());
        }
        let came_to = outcome(&pipeline.finish().unwrap());
        for state in states.iter().step_by(states.len().div_ceil(6).max(1)) {
            assert!(outcome(&go_on(options, state, data)) == came_to, "from {}", state.offset);
        }
        (states.len(), came_to)
    }

    #[test]
    fn a_batch_of_much_text_takes_turns_with_what_waits_and_comes_to_the_same() {
        let text = [varied(100_000).into_bytes(), b"c,2025-01-01,1,1,1,1\n".repeat(500_000)].concat();
        let utf_16: Vec<_> = text.iter().flat_map(|byte| [*byte, 0]).collect();
        let halves = text.split_at(text.len() / 2);
        let default = PipelineOptions::default();
        let in_utf_16 = PipelineOptions { encoding: encoding_rs::UTF_16LE, with_digest: true, ..default.clone() };
        for (options, data, text_bytes) in [
            (&default, gzip(&text), text.len()),
            (&default, [gzip(halves.0), gzip(halves.1)].concat(), text.len()),
            (&default, zstandard(&text), text.len()),
            (&in_utf_16, gzip(&utf_16), utf_16.len()),
        ] {
            for piece_bytes in [data.len(), 16_384, 997] {
                let workers = workers(1);
                let alone = read_in_turns(options, &data, piece_bytes, &workers);
                let (end, ended) = std::sync::mpsc::channel::<()>();
                drop(workers.spawn(move || ended.recv()));
                // This waits as long as the thread is busy.
                drop(workers.spawn(|| ()));
                let (turns, came_to) = read_in_turns(options, &data, piece_bytes, &workers);
                drop(end);
                assert!(alone == (0, came_to), "in pieces of {piece_bytes}");
                // No turn is shorter than a step, and none is much longer than 100 µs.
                assert!((1..=text_bytes / (16 * 1024)).contains(&turns), "in pieces of {piece_bytes}: {turns}");
            }
        }
    }

    #[test]
    fn a_pipeline_can_be_looked_at_after_a_panic_between_its_pieces() {
        let data = gzip(varied(60_000).as_bytes());
        let mut pipeline = Pipeline::new(&PipelineOptions::default()).unwrap();
        let mut pieces: VecDeque<_> = data.chunks(8192).map(Bytes::copy_from_slice).collect();
        let count = pieces.len();
        let asked = Cell::new(0);
        let permit = |growth: Growth| {
            asked.set(asked.get() + 1);
            assert!(asked.get() < 20, "as the test wants");
            growth.is_least
        };
        let workers = workers(1);
        catch_unwind(AssertUnwindSafe(|| pipeline.push_all(&mut pieces, &workers, permit))).unwrap_err();
        assert!(pieces.len() < count);
        assert!(FileProgress::of(&pipeline).rows_read > 0);
        assert!(pipeline.save().is_some());
    }

    #[test]
    fn nothing_waits_for_threads_that_are_busy() {
        let text = varied(30_000);
        let data = gzip(text.as_bytes());
        let (workers, cut) = (workers(1), Cut { piece_bytes: 16_384, batch_pieces: 16, saves: true });
        let (end, ended) = std::sync::mpsc::channel::<()>();
        drop(workers.spawn(move || ended.recv()));
        let options = PipelineOptions::default();
        assert!(read(&options, &data, cut, Some(&workers)) == read(&options, &data, cut, None));
        drop(end);
    }
}
