//! One upload from the bytes that were sent to the engine: digest, decompression, charset, tally.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use crc_fast::CrcAlgorithm;
use encoding_rs::{Encoding, UTF_8};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::charset::TextDecoder;
use super::counter::Counter;
use super::decompress::{Coding, DecompressError, Place};
use super::growth::{Growth, Pushed};
use super::saved::{SavedInput, SavedPipeline, State, restore_digest, save_digest};
use super::tail::Compressed;
use super::text::STEP_BYTES;
use super::workers::{Load, Turn, Workers};
use crate::engine::{Aggregate, Dialect, Fatal, RestoreError, Tally, TallyOptions};

/// Text from which on the decompression ratio is looked at: a short text may well consist of one row repeated.
pub const RATIO_FREE_BYTES: u64 = 64 * 1024 * 1024;

/// Compressed data is asked memory for in steps of this much text, so that text is seldom waited for to be counted.
const PERMITTED_TEXT_BYTES: usize = 4 * 1024 * 1024;

/// How long compressed data is read before the upload gives way to others, even in the middle of a batch. It is about what a batch of plain
/// text takes: an upload that always waits for its next batch would get less than its share beside longer turns.
const TURN: Duration = Duration::from_micros(100);

/// The least that memory is asked for.
const LEAST_TEXT_BYTES: usize = STEP_BYTES;

/// A SHA-256 digest (FIPS 180-4).
pub type Sha256Digest = [u8; 32];

/// How to read an upload.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// How to read the text.
    pub tally: TallyOptions,
    /// How the text is written where that is not the plain contract.
    pub dialect: Option<Arc<Dialect>>,
    /// The encoding of text without a byte-order mark.
    pub encoding: &'static Encoding,
    /// How the bytes are compressed; `None`: their beginning tells.
    pub coding: Option<Coding>,
    /// The most bytes that may come out of decompression.
    pub max_text_bytes: u64,
    /// How many times more bytes may come out of decompression than went in, beyond [`RATIO_FREE_BYTES`].
    pub max_decompression_ratio: u64,
    /// Compute the digest of the bytes as they were sent.
    pub with_digest: bool,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            tally: TallyOptions::default(),
            dialect: None,
            encoding: UTF_8,
            coding: None,
            max_text_bytes: 256 << 30,
            max_decompression_ratio: 250,
            with_digest: false,
        }
    }
}

/// Contents that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ContentError {
    /// The text as a whole makes no sense.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The compressed data is cut off or damaged.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// More text than allowed.
    #[error("more than {max_text_bytes} bytes of text come out of decompression; the limit is max_text_bytes")]
    TextTooLarge {
        /// The limit in force.
        max_text_bytes: u64,
    },
    /// Hardly any data makes very much text.
    #[error(
        "the data decompresses to more than {max_decompression_ratio} times its size; the limit is max_decompression_ratio"
    )]
    RatioTooHigh {
        /// The limit in force.
        max_decompression_ratio: u64,
    },
}

/// What an upload came to.
pub struct Finished {
    /// What it counted.
    pub aggregate: Aggregate,
    /// The digest of the bytes as sent, when it was wanted.
    pub sha256: Option<Sha256Digest>,
    /// CRC-64/NVME of the bytes as sent, when all of them are known.
    pub crc64: Option<u64>,
}

/// Reads one upload, pushed in pieces of any size.
pub struct Pipeline {
    input: Input,
    counter: Counter,
    /// Of the bytes that have been read; a little behind `bytes_received` while a piece is being read.
    sha256: Option<Sha256>,
    /// Of the same bytes; none behind a state that does not have it, because an earlier version saved it.
    crc64: Option<crc_fast::Digest>,
    bytes_received: u64,
    text_bytes: u64,
    max_text_bytes: u64,
    max_decompression_ratio: u64,
    /// A save at the next possible position was asked for.
    is_save_wanted: bool,
    saved: Option<SavedPipeline>,
    /// Text that may be counted before memory is asked for. Without limit, unless pieces are read that have to ask.
    permitted_text: usize,
    /// The decompressor may have more text of what it has taken.
    has_more_text: bool,
}

enum Input {
    /// Fewer bytes have been seen than tell how they are compressed.
    Start(Vec<u8>),
    Plain,
    Compressed(Compressed),
}

impl Input {
    fn new(coding: Coding) -> Result<Self, DecompressError> {
        if coding == Coding::Identity {
            return Ok(Self::Plain);
        }
        Compressed::new(coding).map(Self::Compressed)
    }
}

impl Pipeline {
    /// Nothing read yet.
    ///
    /// # Errors
    /// When the memory of a decompressor cannot be had.
    pub fn new(options: &PipelineOptions) -> Result<Self, ContentError> {
        Ok(Self {
            input: match options.coding {
                Some(coding) => Input::new(coding)?,
                None => Input::Start(Vec::with_capacity(Coding::SNIFF_BYTES)),
            },
            counter: Counter::new(
                TextDecoder::new(options.encoding),
                Tally::in_dialect(options.tally, options.dialect.clone()),
            ),
            sha256: options.with_digest.then(Sha256::new),
            crc64: Some(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme)),
            bytes_received: 0,
            text_bytes: 0,
            max_text_bytes: options.max_text_bytes,
            max_decompression_ratio: options.max_decompression_ratio,
            is_save_wanted: false,
            saved: None,
            permitted_text: usize::MAX,
            has_more_text: false,
        })
    }

    /// Goes on where another pipeline [stood](Self::save). How the text is read is part of the state; the kernel, and the
    /// limits of decompression, are those of `options`.
    pub(super) fn restore(
        state: State,
        tail: &[u8],
        tally: Tally,
        options: &PipelineOptions,
    ) -> Result<Self, RestoreError> {
        let input = match state.input {
            SavedInput::Start(start) => Input::Start(start),
            SavedInput::Plain => Input::Plain,
            SavedInput::Between(coding) => Input::Compressed(Compressed::at(Place::between(coding), state.text_bytes)?),
            SavedInput::Compressed { place, text_before_place, .. } => {
                Input::Compressed(Compressed::at(place, text_before_place)?)
            }
        };
        let mut pipeline = Self {
            input,
            counter: Counter::new(TextDecoder::restore(state.decoder)?, tally),
            sha256: state.sha256.as_deref().map(restore_digest).transpose()?,
            crc64: state.crc64.map(|crc| crc_fast::Digest::new_with_init_state(CrcAlgorithm::Crc64Nvme, crc)),
            bytes_received: state.bytes_received,
            text_bytes: state.text_bytes,
            max_text_bytes: options.max_text_bytes,
            max_decompression_ratio: options.max_decompression_ratio,
            is_save_wanted: false,
            saved: None,
            permitted_text: usize::MAX,
            has_more_text: false,
        };
        pipeline.read_again(tail).map_err(|_| RestoreError::Inconsistent("its tail cannot be read"))?;
        pipeline.counter.free_room();
        Ok(pipeline)
    }

    /// Reads the tail of a state, which has been digested, and the text of which has been counted.
    fn read_again(&mut self, mut tail: &[u8]) -> Result<(), ContentError> {
        let mut may_have_more = false;
        while !tail.is_empty() || may_have_more {
            let (consumed, is_full) = self.step(tail)?;
            tail = &tail[consumed..];
            may_have_more = is_full;
        }
        Ok(())
    }

    /// The state after the last byte that was read; `None` when it cannot be gone on from there.
    #[must_use]
    pub fn save(&self) -> Option<SavedPipeline> {
        self.save_at(self.bytes_received, usize::MAX)
    }

    /// Asks for a state to be saved at the next position that can be gone on from: at the end of the next piece, or, behind more compressed
    /// data than [is kept](super::MAX_TAIL_BYTES), where a member, a frame, or a block of gzip ends.
    pub fn save_when_possible(&mut self) {
        self.is_save_wanted = true;
    }

    /// The latest state: the one after the last byte that was read, or else the one that was [asked for](Self::save_when_possible). Each is
    /// given once, and none that lies before another one that was given.
    pub fn take_latest(&mut self) -> Option<SavedPipeline> {
        self.take_latest_within(usize::MAX)
    }

    /// The same, unless the state takes more memory than this.
    pub fn take_latest_within(&mut self, max_bytes: usize) -> Option<SavedPipeline> {
        let asked_for = self.saved.take();
        self.save_at(self.bytes_received, max_bytes).or(asked_for)
    }

    /// How much memory a state takes at most: an estimate, as campaigns are compressed.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let tail_bytes = usize::try_from(self.tail_bytes()).unwrap_or(usize::MAX);
        self.memory_bytes().saturating_add(tail_bytes)
    }

    fn save_at(&self, offset: u64, max_bytes: usize) -> Option<SavedPipeline> {
        let mut tail: &[u8] = &[];
        let input = match &self.input {
            Input::Start(start) => SavedInput::Start(start.clone()),
            Input::Plain => SavedInput::Plain,
            Input::Compressed(compressed) => {
                let (place, text_before_place, kept) = compressed.kept()?;
                tail = kept;
                SavedInput::compressed(place.clone(), text_before_place, tail)
            }
        };
        let (decoder, tally) = self.counter.save()?;
        let state = State {
            bytes_received: offset,
            text_bytes: self.text_bytes,
            input,
            decoder,
            sha256: self.sha256.as_ref().map(save_digest),
            tally,
            crc64: self.crc64.as_ref().map(crc_fast::Digest::get_state),
        };
        let pieces = state.seal(tail, self.so_far(), max_bytes)?;
        let reject_blocks = self.so_far().reject_blocks().cloned().collect();
        Some(SavedPipeline { offset, crc64: self.crc64(), tail_bytes: tail.len() as u64, pieces, reject_blocks })
    }

    /// Saves the state if that was asked for and this is a position to go on from. `unread` bytes have been received and
    /// are still to be read.
    fn save_if_wanted(&mut self, unread: usize) -> Result<(), ContentError> {
        if !self.is_save_wanted || !self.has_place() {
            return Ok(());
        }
        self.counter.settle()?;
        if let Some(saved) = self.save_at(self.bytes_received - unread as u64, usize::MAX) {
            self.is_save_wanted = false;
            self.saved = Some(saved);
        }
        Ok(())
    }

    fn has_place(&self) -> bool {
        match &self.input {
            Input::Compressed(compressed) => compressed.kept().is_some(),
            _ => true,
        }
    }

    /// True when the upload can be gone on with from here.
    #[must_use]
    pub fn can_be_saved(&self) -> bool {
        self.has_place() && self.counter.save().is_some()
    }

    /// How many bytes a state that is saved now has to repeat, as they cannot be gone on from.
    #[must_use]
    pub fn tail_bytes(&self) -> u64 {
        match &self.input {
            Input::Compressed(compressed) => compressed.kept().map_or(0, |(_, _, tail)| tail.len() as u64),
            _ => 0,
        }
    }

    /// Which turns its batches take: of Brotli, a step within a batch may fill a window of 16 MiB.
    #[must_use]
    pub fn turn(&self) -> Turn {
        match &self.input {
            Input::Compressed(compressed) if compressed.coding() == Coding::Brotli => Turn::Long,
            _ => Turn::Short,
        }
    }

    /// Bytes read so far, as they were sent.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// CRC-64/NVME (NVM Express, NVM Command Set Specification) of the bytes that have been read, when all of them are known. These are
    /// all that have been received, but for the first few while too few of them are there to be read.
    #[must_use]
    pub fn crc64(&self) -> Option<u64> {
        self.crc64.as_ref().map(crc_fast::Digest::finalize)
    }

    /// What has been counted so far.
    #[must_use]
    pub fn so_far(&self) -> &Aggregate {
        self.counter.so_far()
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// When the contents cannot be used. The pipeline is of no more use then.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), ContentError> {
        self.push_permitted(piece).map(drop)
    }

    /// Reads as much of the next piece as is permitted, and gives how much that was.
    fn push_permitted(&mut self, piece: &[u8]) -> Result<usize, ContentError> {
        self.bytes_received = self.bytes_received.saturating_add(piece.len() as u64);
        let mut rest = piece;
        if let Input::Start(start) = &mut self.input {
            let missing = Coding::SNIFF_BYTES - start.len();
            let first;
            (first, rest) = piece.split_at(piece.len().min(missing));
            start.extend_from_slice(first);
            if start.len() < Coding::SNIFF_BYTES {
                return self.save_if_wanted(0).map(|()| piece.len());
            }
            self.start(rest.len())?;
        }
        let unread = rest.len() - self.read_before(rest, 0)?;
        self.bytes_received -= unread as u64;
        Ok(piece.len() - unread)
    }

    /// Reads the next pieces. While text of compressed ones is decompressed, other workers that have nothing to do count what came before;
    /// when this returns, all that was read has been counted. Memory is asked for ahead of it; when it is refused, some pieces are left. So they
    /// are when other work waits in line after a [`TURN`]: hardly any bytes may become very much text.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(super) fn push_all(
        &mut self,
        pieces: &mut VecDeque<Bytes>,
        workers: &Workers,
        permit: impl Fn(Growth) -> bool,
    ) -> Result<Pushed, ContentError> {
        let reading = &mut Reading::begin(self, workers);
        let read = reading.pipeline.push_as_permitted(pieces, workers.load(), permit);
        // What is wrong with text comes before what is wrong behind it.
        reading.pipeline.counter.settle()?;
        read
    }

    fn push_as_permitted(
        &mut self,
        pieces: &mut VecDeque<Bytes>,
        load: &Load,
        permit: impl Fn(Growth) -> bool,
    ) -> Result<Pushed, ContentError> {
        let (begun, begun_text) = (Instant::now(), self.text_bytes);
        let mut left: usize = pieces.iter().map(Bytes::len).sum();
        while let Some(piece) = pieces.front_mut() {
            if let Input::Start(start) = &self.input {
                // How much memory the rest takes depends on how it is compressed.
                let first = piece.split_to(piece.len().min(Coding::SNIFF_BYTES - start.len()));
                left -= first.len();
                self.permitted_text = STEP_BYTES;
                self.push_permitted(&first)?;
                self.permitted_text = 0;
            } else if self.text_bytes > begun_text && self.is_turn_over(begun, load) {
                // Not before something was read: each turn makes progress, even when the thread was taken away at its beginning.
                return Ok(Pushed::TurnOver);
            } else if self.is_permitted() || self.permit(left, &permit)? {
                // One step of compressed data, to look at the turn behind it.
                let kept = if matches!(self.input, Input::Plain) { 0 } else { self.permitted_text - STEP_BYTES };
                self.permitted_text -= kept;
                let consumed = self.push_permitted(piece)?;
                self.permitted_text += kept;
                left -= consumed;
                piece.advance(consumed);
            } else {
                return Ok(Pushed::Part);
            }
            if piece.is_empty() && !self.has_more_text {
                pieces.pop_front();
            }
        }
        Ok(Pushed::All)
    }

    /// True when other work waits and this turn, which began then, has lasted long enough.
    fn is_turn_over(&self, begun: Instant, load: &Load) -> bool {
        !matches!(self.input, Input::Plain) && load.are_wanted() && begun.elapsed() >= TURN
    }

    /// True when something may be read.
    fn is_permitted(&self) -> bool {
        self.permitted_text >= if matches!(self.input, Input::Plain) { 1 } else { STEP_BYTES }
    }

    /// Asks for the memory that counting more text takes. `left` bytes are to be read.
    fn permit(&mut self, left: usize, permit: impl Fn(Growth) -> bool) -> Result<bool, ContentError> {
        self.counter.settle()?;
        let wanted = match self.input {
            Input::Plain => left,
            _ => left.max(PERMITTED_TEXT_BYTES),
        };
        let now_bytes = self.memory_bytes();
        for text_bytes in [wanted, LEAST_TEXT_BYTES] {
            let is_least = text_bytes <= LEAST_TEXT_BYTES;
            let most_bytes = now_bytes + self.growth_bytes(text_bytes, left);
            if permit(Growth { now_bytes, most_bytes, is_least }) {
                self.permitted_text = text_bytes;
                return Ok(true);
            }
            if is_least {
                break;
            }
        }
        Ok(false)
    }

    /// Memory of the pipeline, with what it has counted. Between two pieces.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let input = match &self.input {
            Input::Start(_) | Input::Plain => 0,
            Input::Compressed(compressed) => compressed.memory_bytes(),
        };
        let saved = self.saved.as_ref().map_or(0, SavedPipeline::memory_bytes);
        size_of::<Self>() + input + saved + self.counter.memory_bytes()
    }

    /// The most memory that reading so many bytes, and as much text of them as this, takes on top of that.
    fn growth_bytes(&self, text_bytes: usize, bytes: usize) -> usize {
        let input = match &self.input {
            Input::Start(_) | Input::Plain => 0,
            Input::Compressed(compressed) => compressed.growth_bytes(bytes),
        };
        let state = if self.is_save_wanted { self.state_bytes() } else { 0 };
        input + state + self.counter.growth_bytes(text_bytes)
    }

    /// The most memory that [`Self::finish`] takes besides the pipeline.
    #[must_use]
    pub fn finish_growth(&self) -> Growth {
        let now_bytes = self.memory_bytes();
        let most_bytes = now_bytes + self.counter.growth_bytes(Coding::SNIFF_BYTES);
        Growth { now_bytes, most_bytes, is_least: true }
    }

    /// Ends the upload.
    ///
    /// # Errors
    /// When the contents cannot be used.
    pub fn finish(mut self) -> Result<Finished, ContentError> {
        if matches!(self.input, Input::Start(_)) {
            self.start(0)?;
        }
        if let Input::Compressed(compressed) = &self.input {
            compressed.finish()?;
        }
        let crc64 = self.crc64();
        let Self { counter, sha256, .. } = self;
        Ok(Finished { aggregate: counter.finish()?, sha256: sha256.map(|sha256| sha256.finalize().into()), crc64 })
    }

    /// Reads the bytes that were held back; `unread` bytes follow them.
    fn start(&mut self, unread: usize) -> Result<(), ContentError> {
        let Input::Start(start) = std::mem::replace(&mut self.input, Input::Plain) else {
            return Ok(());
        };
        Coding::refuse_other_files(&start)?;
        self.input = Input::new(Coding::sniff(&start))?;
        // Too little for text to come out of it, if it is compressed.
        self.read_before(&start, unread).map(drop)
    }

    /// Reads as much as is permitted of a piece that is followed by `unread` bytes, and gives how much that was.
    fn read_before(&mut self, piece: &[u8], unread: usize) -> Result<usize, ContentError> {
        if matches!(self.input, Input::Plain) {
            let (permitted, rest) = piece.split_at(piece.len().min(self.permitted_text));
            self.permitted_text -= permitted.len();
            self.digest(permitted);
            self.counter.count(permitted)?;
            self.save_if_wanted(rest.len() + unread)?;
            return Ok(permitted.len());
        }
        let mut rest = piece;
        loop {
            let consumed;
            (consumed, self.has_more_text) = self.step(rest)?;
            let consumed = rest.split_off(..consumed).unwrap_or_default();
            self.digest(consumed);
            self.save_if_wanted(rest.len() + unread)?;
            let is_all = rest.is_empty() && !self.has_more_text;
            if is_all || !self.is_permitted() {
                return Ok(piece.len() - rest.len());
            }
        }
    }

    /// Takes compressed bytes from a piece and counts their text. Gives how many, and whether more text may come without further bytes.
    fn step(&mut self, piece: &[u8]) -> Result<(usize, bool), ContentError> {
        let Input::Compressed(compressed) = &mut self.input else {
            return Ok((piece.len(), false));
        };
        // Behind a state that was restored, text comes again that has been counted.
        let counted = self.text_bytes.saturating_sub(compressed.text_bytes());
        let room = self.counter.room();
        let room_bytes = room.len();
        let step = compressed.step(piece, room)?;
        let counted = usize::try_from(counted).map_or(step.produced, |counted| counted.min(step.produced));
        self.text_bytes = self.text_bytes.saturating_add((step.produced - counted) as u64);
        if self.text_bytes > self.max_text_bytes {
            return Err(ContentError::TextTooLarge { max_text_bytes: self.max_text_bytes });
        }
        let ratio_bound = self.bytes_received.saturating_mul(self.max_decompression_ratio);
        if self.text_bytes > ratio_bound.max(RATIO_FREE_BYTES) {
            return Err(ContentError::RatioTooHigh { max_decompression_ratio: self.max_decompression_ratio });
        }
        self.permitted_text = self.permitted_text.saturating_sub(step.produced);
        self.counter.add(counted..step.produced)?;
        Ok((step.consumed, step.produced == room_bytes))
    }

    fn digest(&mut self, bytes: &[u8]) {
        if let Some(crc64) = &mut self.crc64 {
            crc64.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }
}

/// A pipeline that asks for memory, and that hands text over to other workers if it is compressed, until this is dropped. Then it counts
/// here again, also when something has panicked.
struct Reading<'a> {
    pipeline: &'a mut Pipeline,
    workers: &'a Workers,
    hands_over: bool,
}

impl<'a> Reading<'a> {
    fn begin(pipeline: &'a mut Pipeline, workers: &'a Workers) -> Self {
        let hands_over = !matches!(pipeline.input, Input::Plain);
        if hands_over {
            pipeline.counter.begin_handing_over(workers);
        }
        pipeline.permitted_text = 0;
        Self { pipeline, workers, hands_over }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.pipeline.permitted_text = usize::MAX;
        if self.hands_over {
            self.pipeline.counter.end_handing_over(self.workers);
        }
    }
}
