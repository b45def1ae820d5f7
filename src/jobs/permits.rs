//! How many of something run at once: in all, and of each tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits for uploads, downloads or connections.
#[derive(Debug)]
pub struct TenantPermits {
    all: Arc<Semaphore>,
    max_in_all: usize,
    max_per_tenant: usize,
    /// Those that run, by tenant. A tenant without any is not in it.
    running: Mutex<HashMap<String, usize>>,
}

/// Lets one run until it is dropped.
#[derive(Debug)]
pub struct TenantPermit {
    permits: Arc<TenantPermits>,
    tenant: String,
    _permit: OwnedSemaphorePermit,
}

/// As many run as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPermit {
    /// In all.
    InAll {
        /// The limit.
        max: usize,
    },
    /// Of the tenant.
    OfTenant {
        /// The limit.
        max: usize,
    },
}

impl TenantPermits {
    /// At most so many at once.
    #[must_use]
    pub fn new(max_in_all: usize, max_per_tenant: usize) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(max_in_all));
        Arc::new(Self { all, max_in_all, max_per_tenant, running: Mutex::default() })
    }

    /// Permits this many at once for each tenant, and any number in all.
    #[must_use]
    pub fn of_each_tenant(max_per_tenant: usize) -> Arc<Self> {
        Self::new(Semaphore::MAX_PERMITS, max_per_tenant)
    }

    /// Permits one more of a tenant.
    ///
    /// # Errors
    /// When as many run as may.
    pub fn permit(self: &Arc<Self>, tenant: &str) -> Result<TenantPermit, NoPermit> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let permit = Arc::clone(&self.all).try_acquire_owned();
        let permit = permit.map_err(|_| NoPermit::InAll { max: self.max_in_all })?;
        if running.get(tenant).is_some_and(|running| *running >= self.max_per_tenant) {
            return Err(NoPermit::OfTenant { max: self.max_per_tenant });
        }
        *running.entry(tenant.to_owned()).or_default() += 1;
        Ok(TenantPermit { permits: Arc::clone(self), tenant: tenant.to_owned(), _permit: permit })
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.max_in_all.saturating_sub(self.all.available_permits())
    }

    /// Waits until none runs.
    pub(super) async fn wait_for_all(&self) {
        let all = u32::try_from(self.max_in_all).unwrap_or(u32::MAX);
        // Never closed.
        drop(self.all.acquire_many(all).await);
    }
}

impl Drop for TenantPermit {
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
        let permits = TenantPermits::new(3, 2);
        let first = permits.permit("a").unwrap();
        let _second = permits.permit("a").unwrap();
        assert_eq!(permits.permit("a").unwrap_err(), NoPermit::OfTenant { max: 2 });
        let _third = permits.permit("b").unwrap();
        assert_eq!(permits.permit("b").unwrap_err(), NoPermit::InAll { max: 3 });
        assert_eq!(permits.running(), 3);
        drop(first);
        assert!(permits.permit("a").is_ok());
        assert_eq!(permits.running.lock().unwrap().len(), 2);
    }
}
