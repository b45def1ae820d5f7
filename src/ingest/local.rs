//! Local files and standard input, on all cores.
//!
//! A large plain file is cut into as many segments as there are threads. Each segment but the first starts behind the
//! first LF of its part. Whether that LF ends a record is not known until the segments before it have been read: it may
//! stand within quotes. So every segment is read on the assumption that it does, and joined in order. Where the
//! assumption was wrong, the tally of the segments before reads the segment again. The result is always the same as
//! with one thread.
//!
//! Everything else is read, and decompressed, by one thread while another parses.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use encoding_rs::{Encoding, UTF_8};
use thiserror::Error;

use super::block::BLOCK_BYTES;
use super::charset::TextDecoder;
use super::decompress::{Coding, DecompressError, Decompressor};
use crate::engine::{Aggregate, Dialect, Fatal, SkipBudget, Tally, TallyOptions};

/// Segments smaller than this are not worth a thread.
const MIN_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of a file that a thread reads and then parses itself: few enough to stay in the nearer caches.
const SEGMENT_READ_BYTES: usize = 64 * 1024;

/// Blocks between the thread that reads and the one that parses.
const QUEUED_BLOCKS: usize = 2;

/// Where data comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// The name in messages and in `rejects.csv`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "-".into(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl From<&std::ffi::OsStr> for Input {
    /// A path, or `-` for standard input.
    fn from(argument: &std::ffi::OsStr) -> Self {
        if argument == "-" { Self::Stdin } else { Self::File(argument.into()) }
    }
}

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

/// Learns of progress, from any thread.
pub trait Observer: Sync {
    /// `bytes` further bytes of the inputs, as they are stored, and `rows` further rows have been read.
    fn advanced(&self, bytes: u64, rows: u64);
}

/// Why an input could not be read.
#[derive(Debug, Error)]
#[error("{input}: {problem}")]
pub struct LocalError {
    /// The input's name.
    pub input: String,
    /// What is wrong with it.
    #[source]
    pub problem: LocalProblem,
}

/// What is wrong with an input.
#[derive(Debug, Error)]
pub enum LocalProblem {
    /// The system refused.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The compressed data is cut off or damaged.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// The contents are unusable.
    #[error(transparent)]
    Fatal(#[from] Fatal),
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
        segmented.read(Tally::in_dialect(options.tally, options.dialect.clone()), segments)
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

/// A large plain file.
struct SegmentedFile<'a> {
    file: &'a File,
    len: u64,
    mark_bytes: u64,
    observer: &'a dyn Observer,
}

impl SegmentedFile<'_> {
    fn read(&self, mut tally: Tally, segments: u64) -> Result<Aggregate, LocalProblem> {
        let mut buffer = vec![0; SEGMENT_READ_BYTES];
        let mut at = self.mark_bytes;
        while !tally.can_fork() && at < self.len {
            at += self.push_block(&mut tally, at, self.len, &mut buffer)? as u64;
        }
        let starts = self.segment_starts(at, segments, &mut buffer)?;
        let forks: Vec<_> = starts.iter().filter_map(|start| tally.fork(start - self.mark_bytes)).collect();
        let ends: Vec<_> = starts.iter().copied().skip(1).chain([self.len]).collect();
        thread::scope(|scope| {
            let others: Vec<_> = forks
                .into_iter()
                .zip(starts.iter().zip(&ends))
                .map(|(mut fork, (start, end))| {
                    let read = move || self.push_segment(&mut fork, *start, *end).map(|()| fork);
                    thread::Builder::new().spawn_scoped(scope, read)
                })
                .collect();
            self.push_segment(&mut tally, at, starts.first().copied().unwrap_or(self.len))?;
            for (other, (start, end)) in others.into_iter().zip(starts.iter().zip(&ends)) {
                let is_joined = match other {
                    Ok(other) => {
                        match other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                            Ok(read) => tally.join(read)?.is_none(),
                            // A segment that failed is read again: it may have started within a record, and its error
                            // names a line that is counted from its start.
                            Err(LocalProblem::Fatal(_)) => false,
                            Err(problem) => return Err(problem),
                        }
                    }
                    // The thread could not be started: this one reads the segment.
                    Err(_) => false,
                };
                if !is_joined {
                    self.push_segment(&mut tally, *start, *end)?;
                }
            }
            Ok(tally.finish()?)
        })
    }

    /// Where the second and the further segments start: each behind an LF, in parts as equal as the LFs allow.
    fn segment_starts(&self, at: u64, segments: u64, buffer: &mut [u8]) -> Result<Vec<u64>, LocalProblem> {
        let mut starts = Vec::new();
        for segment in 1..segments {
            let mut guess = at + (self.len - at) / segments * segment;
            let newline = loop {
                let len = self.read_at(guess, self.len, buffer)?;
                match buffer[..len].iter().position(|byte| *byte == b'\n') {
                    Some(newline) => break guess + newline as u64,
                    None => guess += len as u64,
                }
                if guess >= self.len {
                    return Ok(starts);
                }
            };
            if starts.last().is_none_or(|last| *last <= newline) && newline + 1 < self.len {
                starts.push(newline + 1);
            }
        }
        Ok(starts)
    }

    fn push_segment(&self, tally: &mut Tally, start: u64, end: u64) -> Result<(), LocalProblem> {
        let mut buffer = vec![0; SEGMENT_READ_BYTES];
        let mut at = start;
        while at < end {
            at += self.push_block(tally, at, end, &mut buffer)? as u64;
        }
        Ok(())
    }

    fn push_block(&self, tally: &mut Tally, at: u64, end: u64, buffer: &mut [u8]) -> Result<usize, LocalProblem> {
        let rows_before = tally.so_far().counters().rows_read;
        let len = self.read_at(at, end, buffer)?;
        tally.push(&buffer[..len])?;
        self.observer.advanced(len as u64, tally.so_far().counters().rows_read - rows_before);
        Ok(len)
    }

    /// Reads what lies between two positions, at least one byte, at most a buffer full.
    fn read_at(&self, at: u64, end: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        loop {
            match self.file.read_at(&mut buffer[..room], at) {
                Ok(0) if room > 0 => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}
