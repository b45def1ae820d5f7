//! How a job ends: recorded in the store first, then shown.

use std::sync::Arc;

use super::board::{Live, cancelled, leaders_of};
use super::context::Context;
use super::failure::{Failure, FailureKind};
use super::model::{Job, State};
use super::publish::publish_results;
use super::reports::Reports;
use super::store::StoreError;
use crate::engine::report::Stats;
use crate::engine::{Aggregate, Metric};

/// Ends a job that is being received. Gives false when it has ended otherwise, or is gone.
///
/// # Errors
/// When that cannot be recorded; it is tried again later.
pub(super) async fn end_without_results(context: &Context, live: &Live, failure: Failure) -> Result<bool, StoreError> {
    let state = if failure.kind == FailureKind::UploadCancelled { State::Cancelled } else { State::Failed };
    let mut job = Job::clone(&live.latest());
    if job.state.is_final() {
        return Ok(false);
    }
    job.end(state, Some(failure), context.config.keep_finished);
    record_end(context, live, Arc::new(job)).await
}

/// Records that a job has ended, and only then shows it.
pub(super) async fn record_end(context: &Context, live: &Live, job: Arc<Job>) -> Result<bool, StoreError> {
    let frees_key = job.details.error.as_ref().is_none_or(|failure| failure.kind.is_retryable());
    match context.store.end(&job, frees_key).await {
        Ok(is_recorded) => {
            if is_recorded {
                count_end(&job);
                live.end(Arc::clone(&job));
            }
            context.forget_live(job.id);
            Ok(is_recorded)
        }
        Err(error) => {
            tracing::error!(job = %job.id, %error, "the end of a job could not be recorded yet");
            live.keep_unrecorded(job);
            Err(error)
        }
    }
}

/// Makes a job succeed with what its files have counted. When this returns a job, it and its results are in the store for good.
///
/// # Errors
/// When the job is gone or cannot succeed. It has not been recorded as failed then.
pub(super) async fn conclude(
    context: &Arc<Context>,
    live: &Arc<Live>,
    aggregate: Aggregate,
) -> Result<Arc<Job>, Failure> {
    let keep = context.config.keep_finished;
    let summarized = Arc::clone(live);
    let (job, reports) = context.workers.run(move || summarize(&summarized, aggregate, keep)).await?;
    match context.store.succeed(&job, reports.produce()).await {
        Ok(true) => {}
        // It was cancelled or deleted first.
        Ok(false) => return Err(cancelled()),
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

/// The job as it will be when its results are stored, and these.
fn summarize(live: &Live, aggregate: Aggregate, keep: jiff::SignedDuration) -> (Job, Reports) {
    let mut job = Job::clone(&live.latest());
    let stats = Stats::new(aggregate.counters(), aggregate.unique_campaigns(), live.elapsed().as_secs_f64());
    let bytes_received = job.details.files.iter().map(|file| file.offset).sum();
    live.set_progress(&mut job, bytes_received, &[&aggregate]);
    // Of a form, all that was announced is more than its files.
    job.details.progress.bytes_expected = job.details.progress.bytes_expected.map(|_| bytes_received);
    let options = job.details.options;
    job.details.stats = Some(stats.clone());
    job.details.top_ctr = leaders_of(&aggregate, Metric::Ctr, options.top);
    job.details.top_cpa = leaders_of(&aggregate, Metric::Cpa, options.top);
    job.end(State::Succeeded, None, keep);
    let reports = Reports { aggregate, stats, options, has_several_files: job.details.files.len() > 1 };
    job.details.results = reports.names();
    (job, reports)
}
