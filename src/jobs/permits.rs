//! How many uploads run at once: in all, and of each tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::JobError;

/// Permits for uploads.
pub(super) struct UploadPermits {
    all: Arc<Semaphore>,
    max_concurrent_uploads: usize,
    max_uploads_per_tenant: usize,
    /// Uploads that run, by tenant. A tenant without any is not in it.
    running: Mutex<HashMap<String, usize>>,
}

/// Lets one upload run until it is dropped.
pub(super) struct UploadPermit {
    permits: Arc<UploadPermits>,
    tenant: String,
    _permit: OwnedSemaphorePermit,
}

impl UploadPermits {
    pub(super) fn new(max_concurrent_uploads: usize, max_uploads_per_tenant: usize) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(max_concurrent_uploads));
        Arc::new(Self { all, max_concurrent_uploads, max_uploads_per_tenant, running: Mutex::default() })
    }

    /// Permits one more upload of a tenant.
    pub(super) fn permit(self: &Arc<Self>, tenant: &str) -> Result<UploadPermit, JobError> {
        let (max_concurrent_uploads, max_uploads_per_tenant) =
            (self.max_concurrent_uploads, self.max_uploads_per_tenant);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let permit = Arc::clone(&self.all).try_acquire_owned();
        let permit = permit.map_err(|_| JobError::TooManyUploads { max_concurrent_uploads })?;
        if running.get(tenant).is_some_and(|running| *running >= max_uploads_per_tenant) {
            return Err(JobError::TooManyUploadsOfTenant { max_uploads_per_tenant });
        }
        *running.entry(tenant.to_owned()).or_default() += 1;
        Ok(UploadPermit { permits: Arc::clone(self), tenant: tenant.to_owned(), _permit: permit })
    }

    /// Uploads that run.
    pub(super) fn running(&self) -> usize {
        self.max_concurrent_uploads.saturating_sub(self.all.available_permits())
    }

    /// Waits until none runs.
    pub(super) async fn wait_for_all(&self) {
        let all = u32::try_from(self.max_concurrent_uploads).unwrap_or(u32::MAX);
        // Never closed.
        drop(self.all.acquire_many(all).await);
    }
}

impl Drop for UploadPermit {
    fn drop(&mut self) {
        let mut running = self.permits.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_as_many_as_it_may_and_all_have_as_many_as_there_are() {
        let permits = UploadPermits::new(3, 2);
        let first = permits.permit("a").unwrap();
        let _second = permits.permit("a").unwrap();
        assert!(matches!(permits.permit("a"), Err(JobError::TooManyUploadsOfTenant { max_uploads_per_tenant: 2 })));
        let _third = permits.permit("b").unwrap();
        assert!(matches!(permits.permit("b"), Err(JobError::TooManyUploads { max_concurrent_uploads: 3 })));
        assert_eq!(permits.running(), 3);
        drop(first);
        assert!(permits.permit("a").is_ok());
        assert_eq!(permits.running.lock().unwrap().len(), 2);
    }
}
