//! Finding jobs, as they are now.

use std::sync::Arc;

use super::access::Scope;
use super::context::Context;
use super::error::JobError;
use super::model::{Job, JobId};
use super::store::{JobClosed, JobFilter, JobPage};

impl Context {
    /// The job that an id, or the newest one that a name means.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn find(&self, scope: &Scope, id_or_name: &str) -> Result<Arc<Job>, JobError> {
        let id = id_or_name.parse::<JobId>().ok();
        let stored = match id {
            Some(id) => match self.live_job(scope, id).map(|live| live.latest()).filter(|job| !job.has_expired()) {
                Some(job) => return Ok(job),
                None => self.store.job(scope, id).await?,
            },
            None => None,
        };
        let stored = match stored {
            Some(job) => Some(job),
            None => self.store.newest_named(scope, id_or_name).await?,
        };
        let Some(job) = stored else {
            return match id {
                Some(id) if self.store.has_expired(scope, id).await? => Err(JobError::Expired(id)),
                _ => Err(JobError::NotFound(id_or_name.into())),
            };
        };
        if job.has_expired() {
            return Err(JobError::Expired(job.id));
        }
        Ok(self.as_of_now(scope, job))
    }

    /// Jobs as the store knows them are behind while they are being received.
    fn as_of_now(&self, scope: &Scope, job: Job) -> Arc<Job> {
        self.live_job(scope, job.id).map_or_else(|| Arc::new(job), |live| live.latest())
    }

    /// Jobs, newest first.
    ///
    /// # Errors
    /// When the store refuses.
    pub(super) async fn list(&self, scope: &Scope, filter: &JobFilter) -> Result<JobPage<Arc<Job>>, JobError> {
        let JobPage { jobs, has_more } = self.store.list(scope, filter).await?;
        Ok(JobPage { jobs: jobs.into_iter().map(|job| self.as_of_now(scope, job)).collect(), has_more })
    }

    /// Why a job does not let its files be changed, as its sender is told.
    pub(super) async fn why_closed(&self, scope: &Scope, id: JobId, closed: JobClosed) -> JobError {
        match closed {
            JobClosed::Ended(state) => JobError::Ended { id, state },
            JobClosed::ClosesItself => JobError::ClosesItself(id),
            JobClosed::Finishing => JobError::Finishing(id),
            JobClosed::Gone => match self.find(scope, &id.to_string()).await {
                Ok(job) if job.state.is_final() => JobError::Ended { id, state: job.state },
                Ok(_) => JobError::NotFound(id.to_string()),
                Err(error) => error,
            },
        }
    }
}
