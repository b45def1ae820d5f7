//! Local files and standard input, on all cores.
//!
//! A large plain file is cut into segments ([`super::segments`]), one for each thread. Everything else is read, and
//! decompressed, by one thread while another parses.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use encoding_rs::{Encoding, UTF_8};

use super::block::BLOCK_BYTES;
use super::charset::TextDecoder;
use super::decompress::{Coding, Decompressor};
use super::input::{Input, LocalError, LocalProblem, Observer};
use super::segments::SegmentedFile;
use crate::engine::{Aggregate, Dialect, SkipBudget, Tally, TallyOptions};

/// Segments smaller than this are not worth a thread.
const MIN_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Blocks between the thread that reads and the one that parses.
const QUEUED_BLOCKS: usize = 2;

/// How to read local inputs.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// How to read the text.
    pub tally: TallyOptions,
    /// How the text is written where that is not the plain contract.
    pub dialect: Option<Arc<Dialect>>,
    /// How many rows of each input may be skipped.
    pub max_skipped: Option<SkipBudget>,
    /// The encoding of inputs without a byte-order mark.
    pub encoding: &'static Encoding,
    /// How many threads parse.
    pub threads: NonZeroUsize,
}

/// Reads all inputs as one data set. Blocks until done.
///
/// # Errors
/// When one of the inputs cannot be read to its end, or its contents are unusable as a whole.
pub fn aggregate_local(
    inputs: &[Input],
    options: &LocalOptions,
    observer: &dyn Observer,
) -> Result<Aggregate, LocalError> {
    let mut all: Option<Aggregate> = None;
    for input in inputs {
        let fail = |problem| LocalError { input: input.name(), problem };
        let mut aggregate = read_input(input, options, observer).map_err(fail)?;
        if let Some(max_skipped) = options.max_skipped {
            aggregate.check_skipped(max_skipped).map_err(|error| fail(error.into()))?;
        }
        if inputs.len() > 1 {
            aggregate.name_file(&input.name());
        }
        match &mut all {
            Some(all) => all.merge(aggregate).map_err(|error| fail(error.into()))?,
            None => all = Some(aggregate),
        }
    }
    Ok(all.unwrap_or_else(|| Aggregate::new(options.tally.limits.max_campaigns)))
}

fn read_input(input: &Input, options: &LocalOptions, observer: &dyn Observer) -> Result<Aggregate, LocalProblem> {
    match input {
        Input::Stdin => read_stream(io::stdin().lock(), Vec::new(), options, observer),
        Input::File(path) => read_file(path, options, observer),
    }
}

fn read_file(path: &Path, options: &LocalOptions, observer: &dyn Observer) -> Result<Aggregate, LocalProblem> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
    }
    let mut start = vec![0; Coding::SNIFF_BYTES];
    let len = read_full(&mut file, &mut start)?;
    start.truncate(len);
    Coding::refuse_other_files(&start)?;
    let (encoding, mark_bytes) = TextDecoder::sniff(options.encoding, &start);
    let is_plain_text = Coding::sniff(&start) == Coding::Identity && encoding == UTF_8;
    let is_divisible = options.dialect.as_ref().is_none_or(|dialect| dialect.is_divisible());
    let segments =
        if is_divisible { (metadata.len() / MIN_SEGMENT_BYTES).min(options.threads.get() as u64) } else { 1 };
    if metadata.is_file() && is_plain_text && segments > 1 {
        let segmented = SegmentedFile { file: &file, len: metadata.len(), mark_bytes: mark_bytes as u64, observer };
        segmented.read(&|| Tally::in_dialect(options.tally, options.dialect.clone()), segments)
    } else {
        read_stream(file, start, options, observer)
    }
}

/// Fills the buffer as far as the input goes. Gives the number of bytes.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match input.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// A block on its way from the reader to the parser.
struct Block {
    text: Vec<u8>,
    /// Bytes of the input that were read for it.
    input_bytes: u64,
}

/// Reads an input from front to back, of which `start` has been read before.
fn read_stream(
    input: impl Read,
    start: Vec<u8>,
    options: &LocalOptions,
    observer: &dyn Observer,
) -> Result<Aggregate, LocalProblem> {
    let (full_sender, full_blocks) = mpsc::sync_channel::<Block>(QUEUED_BLOCKS);
    let (used_sender, used_blocks) = mpsc::channel::<Vec<u8>>();
    for _ in 0..=QUEUED_BLOCKS {
        // Cannot fail: the receiver is alive.
        let _ = used_sender.send(Vec::new());
    }
    let encoding = options.encoding;
    let mut tally = Tally::in_dialect(options.tally, options.dialect.clone());
    thread::scope(|scope| {
        let parse = move || -> Result<_, LocalProblem> {
            let mut decoder = TextDecoder::new(encoding);
            for block in full_blocks {
                let rows_before = tally.so_far().counters().rows_read;
                decoder.push(&block.text, |text| tally.push(text))?;
                observer.advanced(block.input_bytes, tally.so_far().counters().rows_read - rows_before);
                // Fails when the reader has ended and needs no more buffers.
                let _ = used_sender.send(block.text);
            }
            Ok((decoder, tally))
        };
        let parser = thread::Builder::new().spawn_scoped(scope, parse)?;
        let read = read_blocks(input, start, &used_blocks, &full_sender);
        drop(full_sender);
        let parsed = parser.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // An error in the contents is reported before one of the reader. The input has ended only when the reader has
        // come to its end.
        let (decoder, mut tally) = parsed?;
        read?;
        decoder.finish(|text| tally.push(text))?;
        Ok(tally.finish()?)
    })
}

/// Reads and decompresses until the input ends or the parser does.
fn read_blocks(
    mut input: impl Read,
    mut start: Vec<u8>,
    used_blocks: &mpsc::Receiver<Vec<u8>>,
    full_sender: &mpsc::SyncSender<Block>,
) -> Result<(), LocalProblem> {
    let known = start.len();
    start.resize(Coding::SNIFF_BYTES, 0);
    let len = known + read_full(&mut input, &mut start[known..])?;
    start.truncate(len);
    Coding::refuse_other_files(&start)?;
    let coding = Coding::sniff(&start);
    let mut input = start.chain(input);
    if coding == Coding::Identity {
        while let Ok(mut text) = used_blocks.recv() {
            text.resize(BLOCK_BYTES, 0);
            let len = read_full(&mut input, &mut text)?;
            text.truncate(len);
            if len == 0 || full_sender.send(Block { text, input_bytes: len as u64 }).is_err() {
                break;
            }
        }
        return Ok(());
    }
    let mut decompressor = Decompressor::new(coding)?;
    let mut compressed = vec![0; BLOCK_BYTES / 4];
    let mut pending: &[u8] = &[];
    let mut is_at_end = false;
    // The parser ends first only when it has found something wrong.
    while let Ok(mut text) = used_blocks.recv() {
        text.resize(BLOCK_BYTES, 0);
        let (mut len, mut input_bytes) = (0, 0);
        while len < text.len() && !is_at_end {
            if pending.is_empty() {
                let count = read_full(&mut input, &mut compressed)?;
                pending = &compressed[..count];
                is_at_end = count == 0;
                input_bytes += count as u64;
            }
            let step = decompressor.step(pending, &mut text[len..])?;
            pending = &pending[step.consumed..];
            len += step.produced;
            is_at_end &= step.produced == 0;
        }
        text.truncate(len);
        if full_sender.send(Block { text, input_bytes }).is_err() {
            return Ok(());
        }
        if is_at_end {
            return Ok(decompressor.finish()?);
        }
    }
    Ok(())
}
