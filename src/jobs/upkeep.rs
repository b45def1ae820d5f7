//! What is done in the background: ends that could not be recorded, expiry, the results directory.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::access::Scope;
use super::context::Context;
use super::failure::FailureKind;
use super::finish::{finish_files, record_unrecorded};
use super::model::{JobId, now};
use super::publish::{publish_missing, remove_published, sweep_results_dir};
use super::store::StoreError;

/// How often the database is searched for room that it does not need, while there is too little.
const SHORTAGE_INTERVAL: Duration = Duration::from_secs(1);

/// How often jobs are looked through for what has expired or could not be recorded.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Ends the jobs that an earlier process was receiving.
pub(super) async fn end_left_behind(context: &Context) -> Result<(), StoreError> {
    let reason = "the server stopped before the upload was complete; nothing was counted: send it again";
    let failure = FailureKind::ServerStopped.because(reason);
    let left_behind =
        context.store.fail_receiving(&failure, context.config.keep_finished, context.config.keep_open).await?;
    if left_behind > 0 {
        tracing::warn!(jobs = left_behind, "jobs were being received when the server stopped; they have failed");
    }
    Ok(())
}

/// Finishes the jobs that an earlier process was finishing, puts the results directory in order, then sweeps until the server stops.
pub(super) async fn run_upkeep(context: Arc<Context>, left_finishing: Vec<JobId>) {
    resume_finishing(&context, left_finishing).await;
    sweep_results_dir(&context).await;
    publish_missing(&context).await;
    let mut sweeps = interval(SWEEP_INTERVAL);
    let mut shortages = interval(SHORTAGE_INTERVAL);
    shortages.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let shortage = async {
            shortages.tick().await;
            context.store.shortage().await;
        };
        tokio::select! {
            () = context.stopping.cancelled() => return,
            () = shortage => {}
            _ = sweeps.tick() => sweep(&context).await,
        }
        if let Err(error) = free_unused(&context).await {
            tracing::error!(%error, "totals, checkpoints and rejects that are no longer used could not be removed");
        }
        match give_back_unused(&context).await {
            // It goes on when something is deleted: that has the reserve.
            Ok(()) | Err(StoreError::Full(_)) => {}
            Err(error) => tracing::error!(%error, "unused room of the database could not be given back"),
        }
    }
}

async fn sweep(context: &Context) {
    for live in context.live_jobs() {
        record_unrecorded(context, &live).await;
    }
    if let Err(error) = expire(context).await {
        tracing::error!(%error, "expired jobs could not be removed");
    }
}

/// Finishes the jobs whose results an earlier process was making.
async fn resume_finishing(context: &Arc<Context>, left_finishing: Vec<JobId>) {
    let resumed = async {
        for id in left_finishing {
            if let Some(presence) = context.enter(&Scope::All, id).await?
                && let Some(finishing) = context.store.resume_finishing(id).await?
            {
                // What fails has been logged, and shows in the job.
                drop(finish_files(&presence, finishing).await);
            }
        }
        Ok::<_, StoreError>(())
    };
    if let Err(error) = resumed.await {
        tracing::error!(%error, "jobs could not be finished");
    }
}

async fn free_unused(context: &Context) -> Result<(), StoreError> {
    while !context.stopping.is_cancelled() && context.store.free_totals().await? > 0 {}
    while !context.stopping.is_cancelled() && context.store.free_checkpoints().await? > 0 {}
    while !context.stopping.is_cancelled() && context.store.free_reject_blocks().await? > 0 {}
    Ok(())
}

/// Gives room that the database no longer uses back to the disk, while that has too little. Otherwise the database keeps it for what
/// comes next.
async fn give_back_unused(context: &Context) -> Result<(), StoreError> {
    while !context.stopping.is_cancelled()
        && context.room.is_short(&context.store).await
        && context.store.give_back_some().await?
    {}
    Ok(())
}

/// Removes what has expired.
pub(super) async fn expire(context: &Context) -> Result<(), StoreError> {
    loop {
        let expired = context.store.expire(now()).await?;
        if expired.is_empty() {
            return Ok(());
        }
        tracing::info!(jobs = expired.len(), "expired jobs were removed");
        for id in expired {
            // It may be watched.
            if let Some(live) = context.live_job(&Scope::All, id) {
                context.end_removed(&live);
            }
            remove_published(context, id).await;
        }
    }
}
