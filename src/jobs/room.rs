//! Whether the store has room for more: in all, on its disk, and for a tenant.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::JobError;
use super::store::{DiskCondition, GROWTH_NEEDS_BYTES, Store, StoreError};

/// For how long a measurement of the store is good.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// Measuring what a tenant has takes at most this share of the time: with very many jobs it is not quick.
const MEASURE_SHARE: u32 = 20;

/// What the store may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoomLimits {
    pub(super) max_stored_bytes: u64,
    pub(super) max_stored_bytes_per_tenant: Option<u64>,
    pub(super) disk_reserve_bytes: u64,
}

/// The room that there is, measured every so often.
pub(super) struct Room {
    limits: RoomLimits,
    whole: Mutex<MeasuredStore>,
    tenants: Mutex<HashMap<String, MeasuredTenant>>,
}

/// What the store had in use and its disk had left at some time.
struct MeasuredStore {
    at: Instant,
    stored_bytes: u64,
    disk: DiskCondition,
}

/// What a tenant had stored at some time.
struct MeasuredTenant {
    stored_bytes: u64,
    good_until: Instant,
}

impl Room {
    /// Measures the store for the first time.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn measure(store: &Store, limits: RoomLimits) -> Result<Self, StoreError> {
        let (stored_bytes, disk) = (store.stored_bytes().await?, store.disk_condition().await);
        let whole = Mutex::new(MeasuredStore { at: Instant::now(), stored_bytes, disk });
        Ok(Self { limits, whole, tenants: Mutex::default() })
    }

    fn whole(&self) -> MutexGuard<'_, MeasuredStore> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<String, MeasuredTenant>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that the store has room.
    ///
    /// # Errors
    /// When it has none, does not answer, or is no longer where it was.
    pub(super) async fn check(&self, store: &Store) -> Result<(), JobError> {
        let is_due = {
            let at = &mut self.whole().at;
            // The others do not wait for it.
            let is_due = at.elapsed() >= MEASURE_INTERVAL;
            if is_due {
                *at = Instant::now();
            }
            is_due
        };
        if is_due {
            self.measure_again(store).await?;
        }
        let RoomLimits { max_stored_bytes, disk_reserve_bytes, .. } = self.limits;
        let MeasuredStore { stored_bytes, disk, .. } = *self.whole();
        if !disk.is_in_place {
            return Err(StoreError::Removed.into());
        }
        if disk.free_bytes < disk_reserve_bytes {
            return Err(JobError::DiskFull { free_bytes: disk.free_bytes, disk_reserve_bytes });
        }
        if stored_bytes < max_stored_bytes { Ok(()) } else { Err(JobError::StoreFull { max_stored_bytes }) }
    }

    /// Measures the store before that is due.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn measure_again(&self, store: &Store) -> Result<(), StoreError> {
        let disk = store.disk_condition().await;
        self.whole().disk = disk;
        if self.is_too_little(disk) {
            store.note_shortage();
        }
        if disk.is_in_place {
            let stored_bytes = store.stored_bytes().await?;
            self.whole().stored_bytes = stored_bytes;
        }
        Ok(())
    }

    /// True while the disk has too little room for some uploads.
    pub(super) async fn is_short(&self, store: &Store) -> bool {
        self.is_too_little(store.disk_condition().await)
    }

    fn is_too_little(&self, disk: DiskCondition) -> bool {
        disk.free_bytes < self.limits.disk_reserve_bytes.max(GROWTH_NEEDS_BYTES) + GROWTH_NEEDS_BYTES
    }

    /// Checks that the store has room for more of a tenant.
    ///
    /// # Errors
    /// As [`Self::check`], and when the tenant has as much as it may.
    pub(super) async fn check_for(&self, store: &Store, tenant: &str) -> Result<(), JobError> {
        self.check(store).await?;
        let Some(max_stored_bytes_per_tenant) = self.limits.max_stored_bytes_per_tenant else {
            return Ok(());
        };
        let stored_bytes = match self.known(tenant) {
            Some(stored_bytes) => stored_bytes,
            None => self.measure_tenant(store, tenant).await?,
        };
        if stored_bytes < max_stored_bytes_per_tenant {
            Ok(())
        } else {
            Err(JobError::TenantStoreFull { max_stored_bytes_per_tenant })
        }
    }

    fn known(&self, tenant: &str) -> Option<u64> {
        let tenants = self.tenants();
        let known = tenants.get(tenant).filter(|known| Instant::now() < known.good_until);
        known.map(|known| known.stored_bytes)
    }

    async fn measure_tenant(&self, store: &Store, tenant: &str) -> Result<u64, StoreError> {
        let begun = Instant::now();
        let stored_bytes = store.stored_bytes_of(tenant).await?;
        let good_until = Instant::now() + MEASURE_INTERVAL.max(begun.elapsed() * MEASURE_SHARE);
        let mut tenants = self.tenants();
        // Tenants that have gone are not kept.
        tenants.retain(|_, known| begun < known.good_until);
        tenants.insert(tenant.to_owned(), MeasuredTenant { stored_bytes, good_until });
        Ok(stored_bytes)
    }

    /// Forgets what a tenant was measured to have, as it may have less now.
    pub(super) fn forget(&self, tenant: &str) {
        self.tenants().remove(tenant);
    }
}
