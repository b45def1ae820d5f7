//! One upload from the bytes that were sent to the engine: digest, decompression, charset, tally.

use std::sync::Arc;

use crc_fast::CrcAlgorithm;
use encoding_rs::{Encoding, UTF_8};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::charset::TextDecoder;
use super::counter::Counter;
use super::decompress::{Coding, DecompressError, Place};
use super::saved::{Opened, SavedInput, SavedPipeline, State, TailReader, decompress, restore_digest, save_digest};
use super::tail::Compressed;
use super::text::STEP_BYTES;
use super::workers::Workers;
use crate::engine::{Aggregate, AggregateReader, Dialect, Fatal, RestoreError, Tally, TallyOptions};

/// Text from which on the decompression ratio is looked at: a short text may well consist of one row repeated.
pub const RATIO_FREE_BYTES: u64 = 64 * 1024 * 1024;

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
        })
    }

    /// Goes on where another pipeline [stood](Self::save). How the text is read is part of the state; the kernel, and the
    /// limits of decompression, are those of `options`.
    fn restore(state: State, tail: &[u8], tally: Tally, options: &PipelineOptions) -> Result<Self, RestoreError> {
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
        self.save_at(self.bytes_received)
    }

    /// Asks for a state to be saved at the next position that can be gone on from: at the end of the next piece, or, behind more compressed
    /// data than [is kept](super::MAX_TAIL_BYTES), where a member, a frame, or a block of gzip ends.
    pub fn save_when_possible(&mut self) {
        self.is_save_wanted = true;
    }

    /// The latest state: the one after the last byte that was read, or else the one that was [asked for](Self::save_when_possible). Each is
    /// given once, and none that lies before another one that was given.
    pub fn take_latest(&mut self) -> Option<SavedPipeline> {
        let asked_for = self.saved.take();
        self.save().or(asked_for)
    }

    fn save_at(&self, offset: u64) -> Option<SavedPipeline> {
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
        let pieces = state.seal(tail, self.so_far());
        let reject_blocks = self.so_far().reject_blocks().cloned().collect();
        Some(SavedPipeline { offset, crc64: self.crc64(), tail_bytes: tail.len() as u64, pieces, reject_blocks })
    }

    /// Saves the state if that was asked for and this is a position to go on from. `unread` bytes have been received and
    /// are still to be read.
    fn save_if_wanted(&mut self, unread: usize) -> Result<(), ContentError> {
        let has_place = match &self.input {
            Input::Compressed(compressed) => compressed.kept().is_some(),
            _ => true,
        };
        if !self.is_save_wanted || !has_place {
            return Ok(());
        }
        self.counter.settle()?;
        if let Some(saved) = self.save_at(self.bytes_received - unread as u64) {
            self.is_save_wanted = false;
            self.saved = Some(saved);
        }
        Ok(())
    }

    /// How many bytes a state that is saved now has to repeat, as they cannot be gone on from.
    #[must_use]
    pub fn tail_bytes(&self) -> u64 {
        match &self.input {
            Input::Compressed(compressed) => compressed.kept().map_or(0, |(_, _, tail)| tail.len() as u64),
            _ => 0,
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
        self.bytes_received = self.bytes_received.saturating_add(piece.len() as u64);
        let Input::Start(start) = &mut self.input else {
            return self.read(piece);
        };
        let missing = Coding::SNIFF_BYTES - start.len();
        let (first, rest) = piece.split_at(piece.len().min(missing));
        start.extend_from_slice(first);
        if start.len() < Coding::SNIFF_BYTES {
            return self.save_if_wanted(0);
        }
        self.start(rest.len())?;
        self.read(rest)
    }

    /// Reads the next pieces. While text of compressed ones is decompressed, other workers that have nothing to do count what came before;
    /// when this returns, all has been counted.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub(super) fn push_all(
        &mut self,
        mut pieces: impl Iterator<Item = impl AsRef<[u8]>>,
        workers: &Workers,
    ) -> Result<(), ContentError> {
        if matches!(self.input, Input::Plain) {
            return pieces.try_for_each(|piece| self.push(piece.as_ref()));
        }
        let HandingOver { pipeline, .. } = &mut HandingOver::begin(self, workers);
        let read = pieces.try_for_each(|piece| pipeline.push(piece.as_ref()));
        // What is wrong with text comes before what is wrong behind it.
        pipeline.counter.settle()?;
        read
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
        self.read_before(&start, unread)
    }

    fn read(&mut self, piece: &[u8]) -> Result<(), ContentError> {
        self.read_before(piece, 0)
    }

    /// Reads a piece that is followed by `unread` bytes.
    fn read_before(&mut self, mut piece: &[u8], unread: usize) -> Result<(), ContentError> {
        if matches!(self.input, Input::Plain) {
            self.digest(piece);
            self.counter.count(piece)?;
            return self.save_if_wanted(unread);
        }
        loop {
            let (consumed, may_have_more) = self.step(piece)?;
            let (consumed, rest) = piece.split_at(consumed);
            self.digest(consumed);
            piece = rest;
            self.save_if_wanted(piece.len() + unread)?;
            if piece.is_empty() && !may_have_more {
                return Ok(());
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
        let step = compressed.step(piece, self.counter.room())?;
        let counted = usize::try_from(counted).map_or(step.produced, |counted| counted.min(step.produced));
        self.text_bytes = self.text_bytes.saturating_add((step.produced - counted) as u64);
        if self.text_bytes > self.max_text_bytes {
            return Err(ContentError::TextTooLarge { max_text_bytes: self.max_text_bytes });
        }
        let ratio_bound = self.bytes_received.saturating_mul(self.max_decompression_ratio);
        if self.text_bytes > ratio_bound.max(RATIO_FREE_BYTES) {
            return Err(ContentError::RatioTooHigh { max_decompression_ratio: self.max_decompression_ratio });
        }
        self.counter.add(counted..step.produced)?;
        Ok((step.consumed, step.produced == STEP_BYTES))
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

/// A pipeline that hands text over to other workers until this is dropped. Then it counts here again, also when something has panicked.
struct HandingOver<'a> {
    pipeline: &'a mut Pipeline,
    workers: &'a Workers,
}

impl<'a> HandingOver<'a> {
    fn begin(pipeline: &'a mut Pipeline, workers: &'a Workers) -> Self {
        pipeline.counter.begin_handing_over(workers);
        Self { pipeline, workers }
    }
}

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        self.pipeline.counter.end_handing_over(self.workers);
    }
}

/// Restores a pipeline from the pieces that [`Pipeline::save`] gives.
pub struct PipelineReader {
    options: PipelineOptions,
    /// What the first piece says, and how far those behind it have been read.
    position: Option<(State, TailReader, AggregateReader)>,
    whole: Option<Pipeline>,
}

impl PipelineReader {
    /// Nothing read yet. How the text is read is part of the state; the kernel, and the limits of decompression, are those of `options`.
    #[must_use]
    pub fn new(options: &PipelineOptions) -> Self {
        Self { options: options.clone(), position: None, whole: None }
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// When it is not the next piece, whole and unchanged, of the same state and of a known version.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), RestoreError> {
        if self.whole.is_some() {
            return Err(RestoreError::Inconsistent("there is a piece too many"));
        }
        if let Some((_, tail, counted)) = &mut self.position {
            let piece = decompress(piece)?;
            return if tail.is_whole() { counted.push(&piece) } else { tail.push(&piece) };
        }
        let kernel = self.options.tally.kernel;
        match State::open(piece)? {
            Opened::Position(state) => {
                let max_campaigns = Tally::max_campaigns_of(&state.tally)?;
                let tail = TailReader::new(&state.input);
                self.position = Some((state, tail, AggregateReader::new(max_campaigns)));
            }
            Opened::Whole(state) => {
                let tally = Tally::restore(&state.tally, kernel)?;
                self.whole = Some(Pipeline::restore(state, &[], tally, &self.options)?);
            }
        }
        Ok(())
    }

    /// How many blocks of rejects the state needs besides its pieces. Known after the last piece.
    #[must_use]
    pub fn reject_blocks(&self) -> u64 {
        self.position.as_ref().map_or(0, |(_, _, counted)| counted.reject_blocks())
    }

    /// Reads the next block of rejects.
    ///
    /// # Errors
    /// When it makes no sense, or the state has none.
    pub fn push_reject_block(&mut self, block: Vec<u8>) -> Result<(), RestoreError> {
        let position = self.position.as_mut().ok_or(RestoreError::Inconsistent("it has no blocks of rejects"));
        position.and_then(|(_, _, counted)| counted.push_reject_block(block))
    }

    /// The pipeline, after the last piece and the last block of rejects.
    ///
    /// # Errors
    /// When a piece or a block is missing or was refused.
    pub fn finish(self) -> Result<Pipeline, RestoreError> {
        if let Some(pipeline) = self.whole {
            return Ok(pipeline);
        }
        let (state, tail, counted) = self.position.ok_or(RestoreError::Inconsistent("there is no piece"))?;
        let tally = Tally::restore_position(&state.tally, counted.finish()?, self.options.tally.kernel)?;
        Pipeline::restore(state, tail.bytes(), tally, &self.options)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn restore(pieces: &[Vec<u8>]) -> Result<Pipeline, RestoreError> {
        let mut reader = PipelineReader::new(&PipelineOptions::default());
        for piece in pieces {
            reader.push(piece)?;
        }
        reader.finish()
    }

    /// The state of an upload within a gzip member, what has to be read again, and the rest of the data.
    fn within_a_member() -> (State, Vec<u8>, Vec<u8>) {
        let text = [&b"campaign_id,date,impressions,clicks,spend,conversions\n"[..], &b"c,d,1,1,1,1\n".repeat(500)];
        let data = gzip(&text.concat());
        let mut pipeline = Pipeline::new(&PipelineOptions::default()).unwrap();
        let (sent, rest) = data.split_at(data.len() - 10);
        pipeline.push(sent).unwrap();
        let Opened::Position(state) = State::open(&pipeline.save().unwrap().pieces[0]).unwrap() else { panic!() };
        (state, sent.to_vec(), rest.to_vec())
    }

    type Change<'a> = &'a dyn Fn(&mut State, &mut Vec<u8>);

    #[test]
    fn states_that_cannot_be_do_no_harm() {
        let (_, sent, rest) = within_a_member();
        let change = |change: Change<'_>| {
            let (mut state, mut tail, _) = within_a_member();
            change(&mut state, &mut tail);
            let mut counted = Pipeline::new(&PipelineOptions::default()).unwrap();
            counted.push(&sent).unwrap();
            restore(&state.seal(&tail, counted.so_far()))
        };
        let compressed = |place, text, tail: &[u8]| SavedInput::compressed(place, text, tail);
        let start = || Place::start(Coding::Gzip);
        let mut fine = change(&|_, _| {}).unwrap();
        fine.push(&rest).unwrap();
        assert_eq!(fine.finish().unwrap().aggregate.counters().rows_read, 500);
        let refused: [Change<'_>; 8] = [
            &|_, tail| tail[20] ^= 1,
            &|_, tail| tail.truncate(20),
            &|_, tail| tail.push(0),
            &|state, tail| state.input = compressed(start(), u64::MAX, tail),
            &|state, tail| state.input = compressed(Place::start(Coding::Identity), 0, tail),
            &|state, tail| state.input = compressed(Place::start(Coding::Zstd), 0, tail),
            &|state, tail| state.input = compressed(Place::between(Coding::Brotli), 0, tail),
            &|state, _| state.bytes_received = 1,
        ];
        for (number, refused) in refused.into_iter().enumerate() {
            assert!(change(refused).is_err(), "{number}");
        }
        // These cannot be told from right ones; they may end as they like.
        let unlikely: [Change<'_>; 4] = [
            &|state, _| state.text_bytes = 0,
            &|state, _| (state.text_bytes, state.bytes_received) = (1 << 30, u64::MAX),
            &|state, tail| {
                (state.text_bytes, state.bytes_received) = (1 << 35, u64::MAX);
                state.input = compressed(start(), 1 << 35, tail);
            },
            &|state, tail| {
                tail.clear();
                state.input = compressed(start(), 0, tail);
            },
        ];
        for unlikely in unlikely {
            if let Ok(mut pipeline) = change(unlikely) {
                assert!(pipeline.save().is_some());
                drop(pipeline.push(&rest));
            }
        }
    }
}
