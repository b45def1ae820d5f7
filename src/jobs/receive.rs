//! A file that is being received.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval_at, sleep};

use super::board::{LEADERS_INTERVAL, Stopped, fenced};
use super::checkpoint::{Checkpoints, DueStates, TakenState};
use super::context::Presence;
use super::durable::{Durable, crc64_text};
use super::error::JobError;
use super::failure::{Failure, FailureKind};
use super::file_options::BodyEnd;
use super::finish::{LastFile, conclude, end_without_results, show_leaders};
use super::live_file::{LiveFile, Running, upload_bytes};
use super::memory::MemoryShare;
use super::model::{FileFormat, FileState, Job, JobFile};
use super::observer::FileObserver;
use super::reports::{hex, storing_bytes};
use super::store::{EndedBy, StoreError, Writer};
use super::watched::Watched;
use crate::engine::Aggregate;
use crate::ingest::{ContentError, FileProgress, Finished, LaneError, Pipeline, Sha256Digest, Workers, receive};

/// Stored totals are cut into pieces of at most this size.
const PIECE_BYTES: usize = 1024 * 1024;

/// Fast, and a third of the size.
const ZSTD_LEVEL: i32 = 1;

/// How often the end of a writer is tried to be recorded when the store refuses.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);

/// What a whole file came to.
struct Read {
    aggregate: Aggregate,
    progress: FileProgress,
    sha256: Option<Sha256Digest>,
    crc64nvme: Option<String>,
}

impl Read {
    /// The file as it is once that is recorded.
    fn file(&self, upload: &FileUpload) -> JobFile {
        let mut file = JobFile::begin(upload.name.clone(), upload.format.clone(), Some(self.progress.bytes_received));
        file.metadata.clone_from(&upload.metadata);
        file.show(self.progress);
        file.durable_offset = file.offset;
        (file.state, file.crc64nvme) = (FileState::Complete, self.crc64nvme.clone());
        file
    }
}

/// A file that is being received. It is [complete](Self::complete), [finishes its job](Self::finish), [waits](Self::pause) for more or
/// [fails](Self::fail); when it is dropped before, its sender has vanished.
pub struct FileUpload {
    presence: Presence,
    /// The threads that compute, for this upload.
    workers: Workers,
    writer: Writer,
    name: String,
    format: FileFormat,
    length: Option<u64>,
    sha256: Option<String>,
    metadata: Option<String>,
    /// A part of the body adds nothing: what is wrong with the body is known at its end.
    takes_only_whole_body: bool,
    live_file: Arc<LiveFile>,
    /// The latest checkpoint.
    durable: Mutex<Durable>,
    checkpoints: Arc<Checkpoints>,
    read: Option<Read>,
    has_ended: bool,
    _running: Arc<Running>,
}

impl FileUpload {
    /// Shows the file as being received by this writer.
    pub(super) fn begin(
        presence: Presence,
        writer: Writer,
        mut file: JobFile,
        (pipeline, memory): (Pipeline, MemoryShare),
        running: Arc<Running>,
    ) -> Self {
        let keep = presence.context().config.keep_open;
        let (name, format, length) = (file.name.clone(), file.format.clone(), file.length);
        let (sha256, metadata) = (file.sha256.clone(), file.metadata.clone());
        let progress = FileProgress::of(&pipeline);
        let (memory_bytes, turn) = (pipeline.memory_bytes() as u64, pipeline.turn());
        let durable = Mutex::new(Durable { progress, crc64: pipeline.crc64(), memory_bytes });
        let checkpoints = Arc::new(Checkpoints::behind(&pipeline));
        file.state = FileState::Receiving;
        let live_file = presence.live().add_file(&name, pipeline, memory, &running);
        presence.live().update(|job| {
            file.show(progress);
            job.put_file(file);
            job.settle(keep);
            if job.closes_itself && job.details.progress.bytes_expected.is_none() {
                // A length may be told late.
                job.details.progress.bytes_expected = length;
            }
        });
        Self {
            workers: presence.context().workers_for(presence.live()).for_upload(turn),
            presence,
            writer,
            name,
            format,
            length,
            sha256,
            metadata,
            takes_only_whole_body: false,
            live_file,
            durable,
            checkpoints,
            read: None,
            has_ended: false,
            _running: running,
        }
    }

    /// True when the job finishes with this file.
    #[must_use]
    pub fn finishes_job(&self) -> bool {
        let job = self.presence.live().latest();
        job.closes_itself && !job.details.is_form
    }

    /// Bytes that are still to come, when the file's length is known.
    #[must_use]
    pub fn bytes_to_come(&self) -> Option<u64> {
        Some(self.length?.saturating_sub(self.live_file.progress().bytes_received))
    }

    /// Makes the next body count as a whole or not at all. Meanwhile nothing of it is stored, and when it fails the file goes on where it
    /// did before.
    pub fn take_only_whole_body(&mut self) {
        self.takes_only_whole_body = true;
    }

    /// Has the file checked against a digest that is told late. It must have been hashed from its first byte.
    pub fn expect_sha256(&mut self, digest: Sha256Digest) {
        self.sha256 = Some(hex(digest));
    }

    /// True when the sender may go on after this failure. The results of a file that the store does not take can be made again from its latest
    /// checkpoint; those of a form cannot.
    fn is_interruption(&self, failure: FailureKind) -> bool {
        failure.is_interruption()
            || (self.takes_only_whole_body && failure.is_about_digest())
            || (failure.is_about_store() && !self.presence.live().latest().details.is_form)
    }

    /// Resolves on cancel, shutdown, or when the file is deleted. The byte source must poll it.
    #[must_use]
    pub fn stopped(&self) -> Stopped {
        self.presence.live().stopped(Some(&self.live_file))
    }

    /// Reads a body to its end. Gives false when the file has not ended with it, and waits for more: then it must [pause](Self::pause).
    ///
    /// # Errors
    /// When the source fails, or the file cannot be used. The caller must [fail](Self::fail) the file with that.
    pub async fn read(
        &mut self,
        source: &mut (impl Stream<Item = Result<Bytes, Failure>> + Unpin),
        end: BodyEnd,
    ) -> Result<bool, Failure> {
        self.receive(source).await?;
        let bytes_received = self.live_file.progress().bytes_received;
        match (self.length, end) {
            (None, BodyEnd::LeavesOpen) => return Ok(false),
            (Some(length), _) if bytes_received < length => return Ok(false),
            (Some(length), _) if bytes_received > length => {
                let detail = format!("{bytes_received} bytes came of the {length} that were announced");
                return Err(FailureKind::LengthMismatch.because(detail));
            }
            _ => {}
        }
        self.prepare_to_finish().await?;
        let pipeline = Arc::clone(self.live_file.pipeline());
        let max_skipped = self.format.options.max_skipped;
        let finish = move || -> Result<Read, Failure> {
            let pipeline = pipeline.lock().unwrap_or_else(PoisonError::into_inner).take();
            let pipeline = pipeline.ok_or_else(|| FailureKind::Internal.because("internal error"))?;
            let Finished { aggregate, sha256, crc64 } = pipeline.finish()?;
            if let Some(max_skipped) = max_skipped {
                aggregate.check_skipped(max_skipped).map_err(ContentError::from)?;
            }
            // The last row may have had no line end.
            let progress = FileProgress {
                bytes_received,
                rows_read: aggregate.counters().rows_read,
                rows_skipped: aggregate.counters().rows_skipped(),
                unique_campaigns: aggregate.unique_campaigns() as u64,
            };
            Ok(Read { aggregate, progress, sha256, crc64nvme: crc64.map(crc64_text) })
        };
        let mut read = self.workers.run(finish).await??;
        if let (Some(told), Some(computed)) = (&self.sha256, read.sha256)
            && *told != hex(computed)
        {
            let detail = "the SHA-256 of what came is another one; nothing was counted";
            return Err(FailureKind::DigestMismatch.because(detail));
        }
        read.aggregate.name_file(&self.name);
        self.live_file.memory().settle(upload_bytes(read.aggregate.memory_bytes()));
        self.read = Some(read);
        Ok(true)
    }

    /// Reads a body that is the whole file, and gives its digest when that was wanted.
    ///
    /// # Errors
    /// When the source fails, or the file cannot be used. The caller must [fail](Self::fail) the file with that.
    pub async fn read_whole(
        &mut self,
        source: &mut (impl Stream<Item = Result<Bytes, Failure>> + Unpin),
    ) -> Result<Option<Sha256Digest>, Failure> {
        if self.read(source, BodyEnd::EndsFile).await? {
            return Ok(self.read.as_ref().and_then(|read| read.sha256));
        }
        let (came, length) = (self.live_file.progress().bytes_received, self.length.unwrap_or_default());
        let detail = format!("{came} bytes came of the {length} that were announced");
        Err(FailureKind::LengthMismatch.because(detail))
    }

    /// Gets the memory for the end of the file. From then on nothing interrupts it.
    async fn prepare_to_finish(&self) -> Result<(), Failure> {
        let memory = self.live_file.memory();
        let pipeline = Arc::clone(self.live_file.pipeline());
        let measure = move || {
            let pipeline = pipeline.lock().unwrap_or_else(PoisonError::into_inner);
            pipeline.as_ref().map(Pipeline::finish_growth)
        };
        if let Some(growth) = self.workers.run(measure).await? {
            let raised = memory.raise_in_turn(upload_bytes(growth.now_bytes), upload_bytes(growth.most_bytes));
            tokio::select! {
                raised = raised => raised?,
                failure = self.stopped() => return Err(failure),
            }
        }
        if memory.finish() { Ok(()) } else { Err(memory.failure()) }
    }

    /// Reads a body, and stores the file's state every so often meanwhile.
    async fn receive(&self, source: &mut (impl Stream<Item = Result<Bytes, Failure>> + Unpin)) -> Result<(), Failure> {
        let context = self.presence.context();
        let interval = (!self.takes_only_whole_body).then_some(context.config.checkpoint_interval);
        let (states, mut taken) = DueStates::new(interval, self.live_file.progress().bytes_received);
        let (live, file) = (Arc::clone(self.presence.live()), Arc::clone(&self.live_file));
        let budget = Arc::clone(&context.memory);
        let waits_for_memory = AtomicBool::new(false);
        let observer = Arc::new(FileObserver { live, file, states, budget, waits_for_memory });
        let storing = async {
            while let Some(state) = taken.recv().await {
                let (begun, taking) = (Instant::now(), state.taking);
                self.store_checkpoint(state).await?;
                observer.states.stored(taking, begun.elapsed());
            }
            pending().await
        };
        // What a sender has sent before it fell silent is looked at, too.
        let looking = async {
            let mut ticks = interval_at(Instant::now() + LEADERS_INTERVAL, LEADERS_INTERVAL);
            loop {
                ticks.tick().await;
                let live = Arc::clone(self.presence.live());
                if live.are_leaders_behind() && self.live_file.silence() >= LEADERS_INTERVAL {
                    // What may not be done yet is tried again; a panic there has been reported.
                    drop(context.workers_for(&live).run(move || live.show_leaders()).await);
                }
            }
        };
        // While nothing is read the source is not asked whether the upload is to end.
        let mut stopped = pin!(self.stopped());
        let stopped_while_waiting = poll_fn(|task| {
            if observer.waits_for_memory.load(Ordering::Relaxed) { stopped.as_mut().poll(task) } else { Poll::Pending }
        });
        let memory = self.live_file.memory();
        let mut source = Watched { source, file: &self.live_file };
        let receiving = receive(&mut source, self.live_file.pipeline(), &self.workers, &observer);
        tokio::select! {
            biased;
            received = receiving => received.map_err(|error| match error {
                LaneError::Source(failure) => failure,
                LaneError::Content(error) => error.into(),
                LaneError::Worker(error) => error.into(),
            }),
            () = memory.interrupted().cancelled() => Err(memory.failure()),
            failure = stopped_while_waiting => Err(failure),
            stopped = storing => stopped,
            () = looking => Ok(()),
        }
    }

    /// Stores a state ahead of the end of the body. What the store does not take now is tried again with the next one.
    async fn store_checkpoint(&self, state: TakenState) -> Result<(), Failure> {
        let durable = Durable::of(&state);
        let TakenState { saved, room: _room, .. } = state;
        let offset = saved.offset;
        if self.length == Some(offset) {
            // A file that stands at its end is complete, and this one is about to be.
            return Ok(());
        }
        let mut checkpoint = self.checkpoints.next(saved);
        // If the process is killed, it is told how far the file is, and how much memory going on will take.
        checkpoint.file = self.presence.live().latest().file(&self.name).cloned().map(Box::new);
        checkpoint.file.iter_mut().for_each(|file| durable.write_to(file));
        let block_count = checkpoint.reject_blocks.count();
        match self.presence.context().store.save_checkpoint(self.writer, checkpoint).await {
            Ok(true) => {
                self.live_file.set_durable_offset(offset);
                self.checkpoints.set_stored_blocks(block_count);
                *self.durable.lock().unwrap_or_else(PoisonError::into_inner) = durable;
                Ok(())
            }
            Ok(false) => Err(fenced()),
            Err(error) => {
                tracing::warn!(file = %self.writer.file, %error, "a checkpoint could not be stored");
                Ok(())
            }
        }
    }

    /// Ends the writer of a file that waits for more. When this returns, everything that came is stored for good.
    ///
    /// # Errors
    /// When it cannot be stored, or the file has another writer or is gone.
    pub async fn pause(mut self) -> Result<JobFile, JobError> {
        let id = self.presence.id();
        let received = self.live_file.progress().bytes_received;
        let failed = |failure, offset| JobError::FileFailed { id, failure, offset };
        match self.release(None).await.map_err(|failure| failed(failure, None))? {
            Some(file) if file.durable_offset == received => Ok(file),
            Some(JobFile { durable_offset, .. }) => {
                let detail = format!(
                    "the file cannot be cut after {received} bytes: too much of it would have to be read again, as it is compressed or encoded"
                );
                Err(failed(FailureKind::NotDivisible.because(detail), Some(durable_offset)))
            }
            None => Err(failed(fenced(), None)),
        }
    }

    /// Stores what the file has counted. When this returns, that is in the store for good.
    ///
    /// # Errors
    /// When it cannot be stored, or the file has another writer or is gone.
    pub async fn complete(mut self) -> Result<JobFile, JobError> {
        let Some(read) = self.read.take() else {
            return Err(self.fail(FailureKind::Internal.because("internal error")).await);
        };
        let file = read.file(&self);
        let aggregate = match self.store_totals(&file, read.aggregate).await {
            Ok(aggregate) => aggregate,
            Err(failure) => return Err(self.fail(failure).await),
        };
        self.has_ended = true;
        let live = self.presence.live();
        let (counted, id) = (Arc::clone(live), self.writer.file);
        if !matches!(self.workers.run(move || counted.count(id, aggregate)).await, Ok(Ok(()))) {
            // The end of the job will find the same.
            tracing::warn!(job = %self.presence.id(), "files cannot be shown together");
        }
        show(&self.presence, &self.live_file, file.clone());
        if !live.latest().closes_itself {
            show_leaders(&self.presence).await;
        }
        Ok(file)
    }

    /// Finishes the job, whose only file it is. When this returns a job, it and its results are in the store for good.
    ///
    /// # Errors
    /// When the job fails after all.
    pub async fn finish(mut self) -> Result<Arc<Job>, JobError> {
        let Some(read) = self.read.take() else {
            return Err(self.fail(FailureKind::Internal.because("internal error")).await);
        };
        let last_file = LastFile { file: read.file(&self), sha256: read.sha256 };
        let (context, live) = (self.presence.context(), self.presence.live());
        let concluded = conclude(context, live, EndedBy::Writer(self.writer), Some(last_file), read.aggregate).await;
        match concluded {
            Ok(job) => {
                self.has_ended = true;
                Ok(job)
            }
            Err(failure) => Err(self.fail(failure).await),
        }
    }

    /// Stores totals piece by piece: all but the last are staged, with that one the file is complete. What was staged is discarded when that fails.
    async fn store_totals(&self, file: &JobFile, aggregate: Aggregate) -> Result<Aggregate, Failure> {
        let mut staged = 0;
        let stored = self.store_pieces(file, aggregate, &mut staged).await;
        if stored.is_err() && staged > 0 {
            self.presence.context().store.discard_totals(self.writer).await;
        }
        stored
    }

    async fn store_pieces(&self, file: &JobFile, aggregate: Aggregate, staged: &mut i64) -> Result<Aggregate, Failure> {
        let context = self.presence.context();
        let _room = context.memory.room_for_results(storing_bytes(&aggregate)).await;
        let (sender, mut pieces) = mpsc::channel(1);
        let save = spawn_blocking(move || {
            for piece in aggregate.save_pieces(PIECE_BYTES) {
                let piece = zstd::bulk::compress(&piece, ZSTD_LEVEL).map_err(|error| error.to_string());
                if sender.blocking_send(piece).is_err() {
                    // The store has refused.
                    break;
                }
            }
            aggregate
        });
        let failed = |error: StoreError| {
            tracing::error!(file = %self.writer.file, %error, "the totals of a file could not be stored");
            Failure::from(&error)
        };
        let mut next = pieces.recv().await;
        while let Some(piece) = next {
            let piece = piece.map_err(|error| FailureKind::Internal.because(error))?;
            next = pieces.recv().await;
            if next.is_some() {
                context.store.stage_totals(self.writer, *staged, piece).await.map_err(failed)?;
                *staged += 1;
                continue;
            }
            let (job, keep) = (self.presence.id(), context.config.keep_open);
            let is_complete = context.store.complete_file(job, self.writer, file, (*staged, piece), keep).await;
            if !is_complete.map_err(failed)? {
                return Err(fenced());
            }
        }
        save.await.map_err(|_| FailureKind::Internal.because("internal error"))
    }

    /// Ends the writer without a complete file, and gives what its sender is told. One that was interrupted waits for its sender to go on;
    /// otherwise a job that closes itself fails with its file.
    pub async fn fail(mut self, failure: Failure) -> JobError {
        let id = self.presence.id();
        let closes_itself = self.presence.live().latest().closes_itself;
        let is_interruption = self.is_interruption(failure.kind);
        match self.release(Some(failure.clone())).await {
            Ok(Some(file)) if is_interruption => {
                JobError::FileFailed { id, failure, offset: Some(file.durable_offset) }
            }
            // It is released as soon as the store takes that.
            Err(_) if is_interruption => JobError::FileFailed { id, failure, offset: None },
            _ if closes_itself => JobError::Failed { id, failure },
            _ => JobError::FileFailed { id, failure, offset: None },
        }
    }

    /// Records that the file has no writer any more, with everything that came of it, and shows it. Gives the file as it waits; none when
    /// it has another writer, is gone, or has failed with its job.
    fn release(
        &mut self,
        failure: Option<Failure>,
    ) -> impl Future<Output = Result<Option<JobFile>, Failure>> + Send + use<> {
        self.has_ended = true;
        let is_interruption = failure.as_ref().is_none_or(|failure| self.is_interruption(failure.kind));
        let takes_part = !self.takes_only_whole_body;
        let takes_anything = is_interruption && (takes_part || failure.is_none());
        let mut file = JobFile::begin(self.name.clone(), self.format.clone(), self.length);
        file.sha256.clone_from(&self.sha256);
        file.metadata.clone_from(&self.metadata);
        let is_about_contents = failure.as_ref().is_some_and(|failure| failure.kind.is_about_contents());
        file.state = if is_about_contents { FileState::Failed } else { FileState::Waiting };
        file.error.clone_from(&failure);
        let durable = *self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        let (presence, writer, live_file) = (self.presence.clone(), self.writer, Arc::clone(&self.live_file));
        let (checkpoints, length, workers) = (Arc::clone(&self.checkpoints), self.length, self.workers.clone());
        async move {
            let (context, live) = (presence.context(), presence.live());
            let job = live.latest();
            if job.closes_itself && !is_interruption {
                let failure = failure.unwrap_or_else(|| FailureKind::Internal.because("internal error"));
                let by = if job.details.is_form { EndedBy::Request } else { EndedBy::Writer(writer) };
                // What cannot be recorded is tried again later.
                if matches!(end_without_results(context, live, by, failure).await, Ok(false)) {
                    live.remove_file(&live_file, |_| {});
                }
                return Ok(None);
            }
            let pipeline = Arc::clone(live_file.pipeline());
            let memory = live_file.memory();
            memory.stop_waiting();
            // No more is read of the body.
            let room = if takes_anything { context.memory.room_to_save(memory.settled_bytes()).await } else { None };
            let take = move || {
                let mut pipeline = pipeline.lock().unwrap_or_else(PoisonError::into_inner).take()?;
                TakenState::take(&mut pipeline, room?)
            };
            let taken = workers.run(take).await?;
            memory.settle(upload_bytes(0));
            // Another state than the stored one, when anything has come.
            let received = live_file.progress().bytes_received;
            let taken = taken
                .filter(|state| state.saved.offset > durable.progress.bytes_received)
                // A file that stands at its end is complete, and this one is not.
                .filter(|state| length != Some(state.saved.offset))
                .filter(|state| takes_part || state.saved.offset == received);
            taken.as_ref().map_or(durable, Durable::of).write_to(&mut file);
            let (saved, _room) = taken.map(|state| (state.saved, state.room)).unzip();
            let checkpoint = saved.map(|saved| checkpoints.next(saved));
            let keep = context.config.keep_open;
            match context.store.release_file(presence.id(), writer, &file, checkpoint, keep).await {
                Ok(Some(durable_offset)) => {
                    // A checkpoint that was being stored when the body ended may have been.
                    (file.offset, file.durable_offset) = (durable_offset, durable_offset);
                    show(&presence, &live_file, file.clone());
                    Ok(Some(file))
                }
                // It is another writer's, or gone.
                Ok(None) => {
                    live.remove_file(&live_file, |_| {});
                    Ok(None)
                }
                Err(error) => {
                    tracing::error!(file = %writer.file, %error, "what came of a file could not be stored");
                    durable.write_to(&mut file);
                    context.tracker.spawn(release_later(presence.clone(), writer, live_file, file));
                    Err(Failure::from(&error))
                }
            }
        }
    }
}

/// Records that a file has no writer any more as soon as the store takes it: until then only a sender that goes on where the file
/// stands gets it.
async fn release_later(presence: Presence, writer: Writer, live_file: Arc<LiveFile>, mut file: JobFile) {
    let context = presence.context();
    loop {
        tokio::select! {
            // The next start releases the file.
            () = context.stopping.cancelled() => return,
            () = sleep(RELEASE_INTERVAL) => {}
        }
        match context.store.release_file(presence.id(), writer, &file, None, context.config.keep_open).await {
            Ok(Some(durable_offset)) => {
                (file.offset, file.durable_offset) = (durable_offset, durable_offset);
                return show(&presence, &live_file, file);
            }
            // It is another writer's, or gone.
            Ok(None) => return presence.live().remove_file(&live_file, |_| {}),
            Err(error) => tracing::debug!(file = %writer.file, %error, "the end of a writer could not be recorded yet"),
        }
    }
}

/// Shows a file that has no writer any more.
fn show(presence: &Presence, live_file: &Arc<LiveFile>, file: JobFile) {
    let keep = presence.context().config.keep_open;
    presence.live().remove_file(live_file, |job| {
        job.put_file(file);
        job.settle(keep);
        if job.closes_itself {
            // Nothing is being received that could have leaders.
            (job.details.top_ctr, job.details.top_cpa) = (Arc::default(), Arc::default());
        }
    });
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let failure = vanished();
        // Without a runtime the process is ending, and the next start releases the file.
        if let Ok(runtime) = Handle::try_current() {
            let released = self.release(Some(failure));
            drop(self.presence.context().tracker.spawn_on(released, &runtime));
        }
    }
}

/// Why an upload ends whose task is dropped.
pub(super) fn vanished() -> Failure {
    if std::thread::panicking() {
        FailureKind::Internal.because("internal error")
    } else {
        FailureKind::UploadIncomplete.because("the sender vanished before the end")
    }
}
