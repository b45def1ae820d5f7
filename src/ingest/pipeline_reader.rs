//! Taking a pipeline back from its saved state.

use super::pipeline::{Pipeline, PipelineOptions};
use super::saved::{Opened, State, TailReader, decompress, uncompressed_bytes};
use crate::engine::{AggregateReader, RestoreError, Tally};

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

    /// Memory of what has been read so far, and the most that the next piece takes besides it.
    #[must_use]
    pub fn memory_bytes_with(&self, piece: &[u8]) -> usize {
        // It is decompressed as a whole.
        let piece_bytes = uncompressed_bytes(piece);
        let read = self
            .position
            .as_ref()
            .map_or(0, |(_, tail, counted)| 3 * tail.bytes().len() + counted.memory_bytes_with(piece_bytes));
        read + 2 * piece_bytes + self.whole.as_ref().map_or(0, Pipeline::memory_bytes)
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

    use super::super::decompress::{Coding, Place};
    use super::super::saved::SavedInput;
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
            restore(&state.seal(&tail, counted.so_far(), usize::MAX).unwrap())
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
