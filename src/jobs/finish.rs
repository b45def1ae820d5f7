//! How a job ends: recorded in the store first, then shown.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::sleep_until;

use super::board::{Live, Loading, Unrecorded, cancelled, fenced, leaders_of};
use super::context::{Context, Presence};
use super::failure::{Failure, FailureKind};
use super::memory::{Kind, MemoryShare};
use super::model::{FileState, Job, JobFile, State, now};
use super::publish::publish_results;
use super::reports::{Reports, hex, storing_bytes};
use super::store::{EndedBy, Finishing, StoreError, StoredFile};
use crate::engine::report::Stats;
use crate::engine::{Aggregate, AggregateReader, Metric};
use crate::ingest::{ContentError, Sha256Digest, Workers};

/// Ends a job that has not ended. Gives false when it has ended otherwise, is gone, or another has taken the place of `by`.
///
/// # Errors
/// When that cannot be recorded; it is tried again later.
pub(super) async fn end_without_results(
    context: &Context,
    live: &Live,
    by: EndedBy,
    failure: Failure,
) -> Result<bool, StoreError> {
    let state = if failure.kind == FailureKind::UploadCancelled { State::Cancelled } else { State::Failed };
    let mut job = Job::clone(&live.latest());
    if job.state.is_final() {
        return Ok(false);
    }
    job.end(state, Some(failure), context.config.keep_finished);
    record_end(context, live, by, Arc::new(job)).await
}

/// Records that a job has ended, and only then shows it.
pub(super) async fn record_end(context: &Context, live: &Live, by: EndedBy, job: Arc<Job>) -> Result<bool, StoreError> {
    let frees_key = job.details.error.as_ref().is_none_or(|failure| failure.kind.is_retryable());
    match context.store.end(&job, frees_key, by).await {
        Ok(is_recorded) => {
            if is_recorded {
                count_end(&job);
                live.end(Arc::clone(&job));
            }
            // A job whose file has another writer goes on.
            if is_recorded || !matches!(by, EndedBy::Writer(_)) {
                context.forget_live(job.id);
            }
            Ok(is_recorded)
        }
        Err(error) => {
            tracing::error!(job = %job.id, %error, "the end of a job could not be recorded yet");
            context.keep_live(job.id);
            live.keep_unrecorded(Unrecorded::End(by, job));
            Err(error)
        }
    }
}

/// Records that a job is open again whose results this finisher could not store, and only then shows it.
async fn reopen(context: &Context, live: &Live, finisher: i64) {
    let (id, keep) = (live.latest().id, context.config.keep_open);
    match context.store.end_finishing(id, finisher, keep).await {
        Ok(()) => live.update(|job| job.settle(keep)),
        Err(error) => {
            tracing::error!(job = %id, %error, "a job without results could not be opened again yet");
            context.keep_live(id);
            live.keep_unrecorded(Unrecorded::Reopening(finisher));
        }
    }
}

/// Records what could not be recorded of a job before. What fails again has been logged, and is kept for the next time.
pub(super) async fn record_unrecorded(context: &Context, live: &Live) {
    match live.take_unrecorded() {
        Some(Unrecorded::End(by, job)) => drop(record_end(context, live, by, job).await),
        Some(Unrecorded::Reopening(finisher)) => reopen(context, live, finisher).await,
        None => {}
    }
}

/// What a piece of totals has uncompressed.
const PIECE_BYTES: usize = 1024 * 1024;

/// A file all of which has been counted, and which is recorded as complete only with the success of its job.
pub(super) struct LastFile {
    pub(super) file: JobFile,
    pub(super) sha256: Option<Sha256Digest>,
}

/// Makes a job succeed with what its files have counted. When this returns a job, it and its results are in the store for good.
///
/// # Errors
/// When the job is gone, another has taken the place of `by`, or the job cannot succeed. It has not been recorded as failed then.
pub(super) async fn conclude(
    context: &Arc<Context>,
    live: &Arc<Live>,
    by: EndedBy,
    last_file: Option<LastFile>,
    aggregate: Aggregate,
) -> Result<Arc<Job>, Failure> {
    let keep = context.config.keep_finished;
    let summarized = Arc::clone(live);
    let summary = context.workers_for(live).run(move || summarize(&summarized, last_file, aggregate, keep)).await?;
    let Some((job, reports)) = summary else {
        return Err(cancelled());
    };
    let room = context.memory.room_for_results(storing_bytes(&reports.aggregate)).await;
    match context.store.succeed(&job, by, reports.produce(room)).await {
        Ok(true) => {}
        Ok(false) => {
            let stored = context.store.job(live.owner(), job.id).await.map_err(|error| Failure::from(&error))?;
            let goes_on = stored.is_some_and(|job| !job.state.is_final());
            return Err(if goes_on { fenced() } else { cancelled() });
        }
        Err(error) => {
            tracing::error!(job = %job.id, %error, "the results could not be stored");
            return Err(Failure::from(&error));
        }
    }
    let job = Arc::new(job);
    count_end(&job);
    publish_results(context, &job).await;
    live.end(Arc::clone(&job));
    context.forget_live(job.id);
    Ok(job)
}

/// Adds a job that has ended to the metrics.
fn count_end(job: &Job) {
    let outcome = job.details.error.as_ref().map_or(job.state.name(), |failure| failure.kind.name());
    metrics::counter!("adtally_uploads_total", "outcome" => outcome).increment(1);
    metrics::counter!("adtally_received_bytes_total").increment(job.details.progress.bytes_received);
    if let Some(stats) = &job.details.stats {
        let count = |result, rows| metrics::counter!("adtally_rows_total", "result" => result).increment(rows);
        count("counted", stats.rows_read - stats.rows_skipped);
        count("skipped", stats.rows_skipped);
    }
}

/// The job as it will be when its results are stored, and these; none when it has ended already.
fn summarize(
    live: &Live,
    last_file: Option<LastFile>,
    aggregate: Aggregate,
    keep: jiff::SignedDuration,
) -> Option<(Job, Reports)> {
    let mut job = Job::clone(&live.latest());
    if job.state.is_final() {
        return None;
    }
    if let Some(LastFile { file, sha256 }) = last_file {
        job.put_file(file);
        job.details.sha256 = sha256.map(hex);
    }
    let elapsed_seconds = if job.closes_itself {
        live.elapsed().as_secs_f64()
    } else {
        now().duration_since(job.created_at).as_secs_f64()
    };
    let stats = Stats::new(&aggregate, elapsed_seconds);
    let progress = &mut job.details.progress;
    progress.bytes_received = job.details.files.iter().map(|file| file.offset).sum();
    // Of a form, all that was announced is more than its files.
    progress.bytes_expected = progress.bytes_expected.map(|_| progress.bytes_received);
    progress.rows_read = stats.rows_read;
    progress.rows_skipped = stats.rows_skipped;
    progress.unique_campaigns = stats.unique_campaigns;
    let options = job.details.options.clone();
    job.details.stats = Some(stats.clone());
    job.details.top_ctr = leaders_of(&aggregate, Metric::Ctr, options.top);
    job.details.top_cpa = leaders_of(&aggregate, Metric::Cpa, options.top);
    job.end(State::Succeeded, None, keep);
    let reports = Reports { aggregate, stats, options, has_several_files: job.details.files.len() > 1 };
    job.details.results = reports.names();
    Some((job, reports))
}

/// Finishes a job whose files are complete and no longer change: their totals are loaded in the order of completion, merged,
/// and become results. A job that cannot have results fails; an open one whose results cannot be stored is open again.
///
/// # Errors
/// Why there are no results.
pub(super) async fn finish_files(presence: &Presence, finishing: Finishing) -> Result<Arc<Job>, Failure> {
    let Finishing { epoch, files } = finishing;
    let by = EndedBy::Finisher(epoch);
    let (context, live) = (presence.context(), presence.live());
    // Only for show, and as large as what is being loaded.
    live.reset_counted();
    let freed = Arc::clone(live);
    // A panic there has been reported.
    drop(context.workers_for(live).run(move || freed.free_counted()).await);
    // What is shown is behind, when the last file has only just been stored, and not certain to be in the same order.
    live.update(|job| {
        job.details.files = files.iter().map(|stored| stored.file.clone()).collect();
        (job.state, job.expires_at) = (State::Receiving, None);
        job.add_up();
    });
    let memory = context.memory.begin_finishing();
    let loaded = tokio::select! {
        loaded = load_totals(context, live, files, &memory) => loaded,
        // What waits for memory must not keep others from merging.
        () = live.ended() => Err(cancelled()),
    };
    let finished = match loaded {
        Ok(aggregate) => conclude(context, live, by, None, aggregate).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = &finished {
        if failure.kind.is_about_contents() || live.latest().closes_itself {
            // What cannot be recorded now is recorded later.
            drop(end_without_results(context, live, by, failure.clone()).await);
        } else {
            reopen(context, live, epoch).await;
        }
    }
    finished
}

/// Merges the totals of complete files, in the order of completion.
async fn load_totals(
    context: &Context,
    live: &Live,
    files: Vec<StoredFile>,
    memory: &MemoryShare,
) -> Result<Aggregate, Failure> {
    // Two that hold memory could wait for each other's.
    let _turn = context.merging.lock().await;
    let workers = context.workers_for(live);
    let mut merged = Aggregate::new(context.config.limits.max_campaigns);
    for stored in files {
        let merged_bytes = merged.memory_bytes();
        let aggregate = load_file(context, &workers, &stored, memory, merged_bytes).await?;
        let both_bytes = merged_bytes + aggregate.memory_bytes();
        let most_bytes = both_bytes + merged.merge_growth_bytes(&aggregate);
        memory.raise_in_turn(both_bytes as u64, most_bytes as u64).await?;
        let merge = move || merged.merge(aggregate).map(|()| merged);
        merged = workers.run(merge).await?.map_err(|fatal| Failure::from(ContentError::from(fatal)))?;
    }
    memory.settle(merged.memory_bytes() as u64);
    Ok(merged)
}

/// The totals of a complete file. `before_bytes` of the memory are taken for something else.
async fn load_file(
    context: &Context,
    workers: &Workers,
    StoredFile { writer, file }: &StoredFile,
    memory: &MemoryShare,
    before_bytes: usize,
) -> Result<Aggregate, Failure> {
    let damaged = |error: &dyn std::fmt::Display| {
        tracing::error!(file = %writer.file, %error, "stored totals cannot be read");
        FailureKind::Internal
            .because(format!("what was counted of {:?} cannot be read: delete the file and send it again", file.name))
    };
    let mut reader = AggregateReader::new(context.config.limits.max_campaigns);
    for sequence in 0.. {
        let piece = context.store.totals(*writer, sequence).await.map_err(|error| Failure::from(&error))?;
        let Some(piece) = piece else {
            break;
        };
        let text_bytes = zstd::bulk::Decompressor::upper_bound(&piece).unwrap_or(PIECE_BYTES);
        let now_bytes = before_bytes + reader.memory_bytes_with(0);
        let most_bytes = before_bytes + reader.memory_bytes_with(text_bytes) + text_bytes + piece.len();
        memory.raise_in_turn(now_bytes as u64, most_bytes as u64).await?;
        let read = move || -> Result<_, String> {
            let piece = zstd::decode_all(piece.as_slice()).map_err(|error| error.to_string())?;
            reader.push(&piece).map_err(|error| error.to_string())?;
            Ok(reader)
        };
        reader = workers.run(read).await?.map_err(|error| damaged(&error))?;
    }
    reader.finish().map_err(|error| damaged(&error))
}

/// Loads, in a task of its own, what files have counted that were completed before the job came to the board, unless that is done already:
/// leaders are those of all files.
pub(super) fn load_counted(presence: &Presence) {
    if let Some(loading) = presence.live().begin_loading() {
        presence.context().tracker.spawn(load_all_counted(presence.clone(), loading));
    }
}

async fn load_all_counted(presence: Presence, loading: Loading) {
    let (context, live) = (presence.context(), presence.live());
    // Only for show: it is given up before anything else has to.
    let Ok(memory) = context.memory.begin(Kind::Shown, 0) else {
        return live.give_up_loading(loading);
    };
    let workers = context.workers_for(live);
    let loaded = async {
        let files = context.store.files(presence.id()).await.map_err(|error| Failure::from(&error))?;
        for stored in files.into_iter().filter(|stored| stored.file.state == FileState::Complete) {
            let id = stored.writer.file;
            if !live.has_counted(id) {
                let aggregate = load_file(context, &workers, &stored, &memory, 0).await?;
                let live = Arc::clone(live);
                let counted = workers.run(move || live.count_loaded(loading, id, aggregate)).await?;
                counted.map_err(|fatal| Failure::from(ContentError::from(fatal)))?;
            }
        }
        Ok::<_, Failure>(())
    };
    match loaded.await {
        Ok(()) => {
            live.end_loading(loading);
            show_leaders(&presence).await;
        }
        // Without them there are no leaders to be shown; the end of the job will find the same.
        Err(failure) => {
            live.give_up_loading(loading);
            tracing::warn!(job = %presence.id(), %failure, "files cannot be shown together");
        }
    }
}

/// Looks for the leaders once a file is complete, and keeps them with the job for when it is not on the board: now, or when that may be
/// done without taking more than its share of the time. Only for show: what fails is not told.
pub(super) async fn show_leaders(presence: &Presence) {
    if presence.live().plan_look()
        && let Err(next_look) = look_now(presence).await
    {
        presence.context().tracker.spawn(look_later(presence.clone(), next_look));
    }
}

async fn look_now(presence: &Presence) -> Result<(), Instant> {
    let (context, live) = (presence.context(), presence.live());
    let looking = Arc::clone(live);
    let Ok(looked) = context.workers_for(live).run(move || looking.show_leaders()).await else {
        return Ok(());
    };
    looked?;
    if let Err(error) = context.store.save_leaders(&live.latest()).await {
        tracing::warn!(job = %presence.id(), %error, "the leaders of an open job could not be kept");
    }
    Ok(())
}

async fn look_later(presence: Presence, mut next_look: Instant) {
    loop {
        tokio::select! {
            () = presence.context().stopping.cancelled() => return,
            () = sleep_until(next_look.into()) => {}
        }
        match look_now(&presence).await {
            Ok(()) => return,
            Err(later) => next_look = later,
        }
    }
}
