//! A large plain file, read by several threads.
//!
//! It is cut into as many segments as there are threads. Each segment but the first starts behind the first LF of its
//! part. Whether that LF ends a record is not known until the segments before it have been read: it may stand within
//! quotes. So every segment is read on the assumption that it does, and joined in order. Where the assumption was wrong,
//! the tally of the segments before reads the segment again. The result is always the same as with one thread.
//!
//! From some number of campaigns on, the threads share them: each counts the rows of its share of the campaigns,
//! which the others send it. Then nothing that one of them has counted can be taken back, and when any assumption was wrong
//! or any segment ended with an error, the whole file is read again, in order, by one thread.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use super::input::{LocalProblem, Observer};
use crate::engine::{Aggregate, Fatal, Parcel, Tally};

/// Bytes that a thread reads and then parses itself: few enough to stay in the nearer caches.
const READ_BYTES: usize = 64 * 1024;

/// From this number of campaigns in the table of a thread on, it costs less to send rows to the thread that counts them.
const SHARED_FROM_CAMPAIGNS: usize = 1 << 15;

/// Parcels on their way to one thread. Each has at most the rows of [`READ_BYTES`].
const QUEUED_PARCELS: usize = 8;

/// A large plain file.
pub(super) struct SegmentedFile<'a> {
    pub(super) file: &'a File,
    pub(super) len: u64,
    /// The length of the byte-order mark.
    pub(super) mark_bytes: u64,
    pub(super) observer: &'a dyn Observer,
}

/// A part of the file, and what it is read into.
struct Segment {
    tally: Tally,
    start: u64,
    end: u64,
}

/// How the reading of a segment has ended.
enum Outcome {
    Whole,
    /// Another thread, which shares campaigns with this one, has ended early.
    Abandoned,
    /// Only for the first segment, this is for sure what is wrong with the file; and only when no campaigns were shared.
    Failed(Fatal),
}

/// How parcels come to the threads that count them.
struct Exchange {
    inbox: Receiver<Parcel>,
    /// By thread; none for this one.
    others: Vec<Option<SyncSender<Parcel>>>,
    /// Empty ones, whose memory is used again.
    spare: Vec<Parcel>,
}

impl Exchange {
    /// One for each thread.
    fn between(threads: usize) -> Vec<Self> {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..threads).map(|_| sync_channel(QUEUED_PARCELS)).unzip();
        let others_of = |own: usize| {
            let others = senders.iter().enumerate().map(|(thread, sender)| (thread != own).then(|| sender.clone()));
            others.collect()
        };
        let exchange = |(own, inbox)| Self { inbox, others: others_of(own), spare: Vec::new() };
        inboxes.into_iter().enumerate().map(exchange).collect()
    }

    /// Counts what has come in, and sends or counts the rows that the tally has sorted. False when another thread has ended
    /// early.
    fn pass_on(&mut self, tally: &mut Tally) -> Result<bool, Fatal> {
        self.count_arrived(tally)?;
        for thread in 0..self.others.len() {
            let mut parcel = self.spare.pop().unwrap_or_default();
            if !tally.swap_parcel(thread, &mut parcel) {
                self.keep(parcel);
            } else if !self.hand_over(tally, thread, parcel)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends a parcel to another thread, or counts it when it is for this one. False when the other has ended early.
    fn hand_over(&mut self, tally: &mut Tally, thread: usize, mut parcel: Parcel) -> Result<bool, Fatal> {
        loop {
            let Some(other) = &self.others[thread] else {
                self.count(tally, parcel)?;
                return Ok(true);
            };
            match other.try_send(parcel) {
                Ok(()) => return Ok(true),
                Err(TrySendError::Disconnected(_)) => return Ok(false),
                Err(TrySendError::Full(unsent)) => parcel = unsent,
            }
            // Does not only wait: the other thread may be waiting for room in this inbox.
            if !self.count_arrived(tally)? {
                thread::yield_now();
            }
        }
    }

    /// False when nothing had come in.
    fn count_arrived(&mut self, tally: &mut Tally) -> Result<bool, Fatal> {
        let mut has_arrived = false;
        while let Ok(parcel) = self.inbox.try_recv() {
            self.count(tally, parcel)?;
            has_arrived = true;
        }
        Ok(has_arrived)
    }

    fn count(&mut self, tally: &mut Tally, mut parcel: Parcel) -> Result<(), Fatal> {
        tally.count_parcel(&mut parcel)?;
        self.keep(parcel);
        Ok(())
    }

    fn keep(&mut self, parcel: Parcel) {
        if self.spare.len() < QUEUED_PARCELS {
            self.spare.push(parcel);
        }
    }

    /// Counts everything that still comes in: until all other threads have done the same, or ended.
    fn finish(self, tally: &mut Tally) -> Result<(), Fatal> {
        drop(self.others);
        self.inbox.into_iter().try_for_each(|mut parcel| tally.count_parcel(&mut parcel))
    }
}

impl SegmentedFile<'_> {
    /// Reads the file with as many threads as segments.
    pub(super) fn read(&self, new_tally: &dyn Fn() -> Tally, segments: u64) -> Result<Aggregate, LocalProblem> {
        if let Some(aggregate) = self.read_segments(new_tally(), segments)? {
            return Ok(aggregate);
        }
        let mut tally = new_tally();
        self.push_all(&mut tally, self.mark_bytes, self.len)?;
        Ok(tally.finish()?)
    }

    /// `None` when only reading in order tells what the file contains.
    fn read_segments(&self, mut tally: Tally, segments: u64) -> Result<Option<Aggregate>, LocalProblem> {
        let mut buffer = vec![0; READ_BYTES];
        let mut at = self.mark_bytes;
        while !tally.can_fork() && at < self.len {
            at += self.push_block(&mut tally, at, self.len, &mut buffer)? as u64;
        }
        let starts = self.segment_starts(at, segments, &mut buffer)?;
        let forks: Vec<_> = starts.iter().filter_map(|start| tally.fork(start - self.mark_bytes)).collect();
        let tallies = std::iter::once(tally).chain(forks);
        let starts: Vec<_> = std::iter::once(at).chain(starts).collect();
        let ends = starts.iter().copied().skip(1).chain([self.len]);
        let mut segments: Vec<_> = tallies
            .zip(starts.iter().zip(ends))
            .map(|(tally, (start, end))| Segment { tally, start: *start, end })
            .collect();
        let outcomes = self.read_at_once(&mut segments)?;
        if segments.iter().any(|segment| segment.tally.has_shared()) {
            return Ok(Self::join_shared(segments, &outcomes));
        }
        self.join_in_order(segments, outcomes).map(Some)
    }

    /// Joins segments that have shared campaigns. `None` when something is wrong: another segment may have caused that.
    fn join_shared(segments: Vec<Segment>, outcomes: &[Outcome]) -> Option<Aggregate> {
        if !outcomes.iter().all(|outcome| matches!(outcome, Outcome::Whole)) {
            return None;
        }
        let mut tallies = segments.into_iter().map(|segment| segment.tally);
        let mut whole = tallies.next()?;
        for tally in tallies {
            if whole.join(tally).ok()?.is_some() {
                return None;
            }
        }
        whole.finish().ok()
    }

    /// Joins segments that have not.
    fn join_in_order(&self, segments: Vec<Segment>, outcomes: Vec<Outcome>) -> Result<Aggregate, LocalProblem> {
        let mut whole: Option<Tally> = None;
        for (Segment { mut tally, start, end }, outcome) in segments.into_iter().zip(outcomes) {
            // There may be many campaigns only when all are joined.
            tally.stop_sharing();
            let is_whole = matches!(outcome, Outcome::Whole);
            let Some(before) = &mut whole else {
                if let Outcome::Failed(fatal) = outcome {
                    return Err(fatal.into());
                }
                whole = Some(tally);
                continue;
            };
            // A segment that failed is read again: it may have started within a record, and its error names a line that is
            // counted from its start.
            if !is_whole || before.join(tally)?.is_some() {
                self.push_all(before, start, end)?;
            }
        }
        // There is at least one segment.
        whole.map_or(Err(Fatal::EmptyInput.into()), |whole| Ok(whole.finish()?))
    }

    /// Reads all segments, each in a thread of its own. One of the system's errors ends it.
    fn read_at_once(&self, segments: &mut [Segment]) -> Result<Vec<Outcome>, LocalProblem> {
        let threads = segments.len();
        if threads > 1 {
            for Segment { tally, .. } in &mut *segments {
                tally.share_campaigns(threads, SHARED_FROM_CAMPAIGNS);
            }
        }
        thread::scope(|scope| {
            let mut readers = segments
                .iter_mut()
                .zip(Exchange::between(threads))
                .map(|(segment, exchange)| move || self.read_segment(segment, exchange));
            let first = readers.next();
            let others: Vec<_> = readers.map(|reader| thread::Builder::new().spawn_scoped(scope, reader)).collect();
            let first = first.map(|read| read());
            let join = |other: io::Result<thread::ScopedJoinHandle<'_, _>>| match other {
                Ok(other) => other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // The thread could not be started.
                Err(_) => Ok(Outcome::Abandoned),
            };
            first.into_iter().chain(others.into_iter().map(join)).collect()
        })
    }

    fn read_segment(&self, segment: &mut Segment, mut exchange: Exchange) -> Result<Outcome, LocalProblem> {
        let Segment { tally, start, end } = segment;
        let mut buffer = vec![0; READ_BYTES];
        let mut at = *start;
        let read = || {
            while at < *end {
                at += self.push_block(tally, at, *end, &mut buffer)? as u64;
                if !exchange.pass_on(tally)? {
                    return Ok(Outcome::Abandoned);
                }
            }
            exchange.finish(tally)?;
            Ok(Outcome::Whole)
        };
        match read() {
            Err(LocalProblem::Fatal(fatal)) => Ok(Outcome::Failed(fatal)),
            other => other,
        }
    }

    /// Reads everything between two positions.
    fn push_all(&self, tally: &mut Tally, start: u64, end: u64) -> Result<(), LocalProblem> {
        let mut buffer = vec![0; READ_BYTES];
        let mut at = start;
        while at < end {
            at += self.push_block(tally, at, end, &mut buffer)? as u64;
        }
        Ok(())
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
