//! Results as files: written once a job has succeeded, removed once it is gone.
//!
//! The store always changes first. What a crash leaves between the two is mended at the next start: missing directories are
//! written, those without a job removed.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::access::Scope;
use super::context::Context;
use super::model::{Job, JobId, State};
use super::results::read_result;
use super::results_dir::{ResultsDir, Staged};
use super::store::JobFilter;

/// Writes a job's results as files, if that is wanted. What fails is tried again at the next start.
pub(super) async fn publish_results(context: &Arc<Context>, job: &Job) {
    let Some(directory) = &context.results_dir else {
        return;
    };
    let written = write_directory(context, directory, job).await;
    // A delete removes the job's directory behind the job, but not one that appears later.
    if matches!(context.store.contains(job.id).await, Ok(false)) {
        remove_published(context, job.id).await;
    } else if let Err(error) = written {
        tracing::error!(job = %job.id, %error, "the results could not be written to the results directory");
    }
}

async fn write_directory(context: &Arc<Context>, directory: &ResultsDir, job: &Job) -> io::Result<()> {
    let staged = directory.stage(job.id).await?;
    match write_results(context, job, &staged).await {
        Ok(()) => staged.publish().await,
        Err(error) => {
            staged.discard().await;
            Err(error)
        }
    }
}

async fn write_results(context: &Arc<Context>, job: &Job, staged: &Staged) -> io::Result<()> {
    for name in &job.details.results {
        let result = context.store.result(&Scope::All, job.id, name).await.map_err(io::Error::other)?;
        let length = result.map_or(0, |result| result.length);
        let mut file = staged.create(name).await?;
        let mut pieces = pin!(read_result(context, &Scope::All, job.id, name, 0, length));
        while let Some(piece) = pieces.next().await {
            file.write_all(&piece.map_err(io::Error::other)?).await?;
        }
        Staged::close(file).await?;
    }
    Ok(())
}

/// Removes the files of a job that is gone.
pub(super) async fn remove_published(context: &Context, id: JobId) {
    if let Some(directory) = &context.results_dir
        && let Err(error) = directory.remove(id).await
    {
        tracing::error!(job = %id, %error, "the results could not be removed from the results directory");
    }
}

/// Removes files of jobs that are gone, and what broken attempts left.
pub(super) async fn sweep_results_dir(context: &Context) {
    let Some(directory) = &context.results_dir else {
        return;
    };
    let jobs = match directory.jobs().await {
        Ok(jobs) => jobs,
        Err(error) => return tracing::error!(%error, "the results directory cannot be read"),
    };
    for id in jobs {
        // The files of a job that is being received are its upload's.
        if context.stopping.is_cancelled() || context.live_job(&Scope::All, id).is_some() {
            continue;
        }
        if let Err(error) = directory.remove_staged(id).await {
            tracing::error!(job = %id, %error, "staged files could not be removed");
        }
        match context.store.contains(id).await {
            Ok(true) => {}
            Ok(false) => remove_published(context, id).await,
            Err(error) => return tracing::error!(%error, "jobs could not be looked up"),
        }
    }
}

/// Writes the files of jobs that have none.
pub(super) async fn publish_missing(context: &Arc<Context>) {
    let Some(directory) = &context.results_dir else {
        return;
    };
    let mut filter = JobFilter { state: Some(State::Succeeded), limit: 100, ..JobFilter::default() };
    loop {
        let jobs = match context.store.list(&Scope::All, &filter).await {
            Ok(page) => page.jobs,
            Err(error) => return tracing::error!(%error, "jobs could not be listed"),
        };
        let Some(last) = jobs.last() else {
            return;
        };
        filter.before = Some(last.id);
        for job in jobs {
            if context.stopping.is_cancelled() {
                return;
            }
            if context.live_job(&Scope::All, job.id).is_none() && !directory.has(job.id).await {
                publish_results(context, &job).await;
            }
        }
    }
}
