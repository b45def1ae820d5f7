//! How much one tenant may ask of the service: requests in a second, and connections at once.
//!
//! A connection is not anybody's before its first request has been authorised. It counts for the tenant of its latest request, as a proxy may
//! send requests of several tenants over one.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;
use axum::http::header::RETRY_AFTER;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::problem::{Kind, Problem};
use crate::jobs::{NoPermit, TenantPermit, TenantPermits};

/// What a tenant may use, and what each does.
pub(super) struct TenantLimits {
    max_request_rate: Option<RequestRate>,
    /// Those that are open.
    connections: Option<Arc<TenantPermits>>,
}

/// The limit on requests in a second. After a second without requests, as many may come at once. It remembers every tenant that has sent one: no
/// more than the token file names.
struct RequestRate {
    requests: DefaultKeyedRateLimiter<Arc<str>>,
    max_requests: NonZeroU32,
}

/// A connection, as its requests know it.
#[derive(Clone, Default)]
pub(super) struct Connection(Arc<Mutex<Option<CountedConnection>>>);

/// For whom a connection counts.
struct CountedConnection {
    tenant: Arc<str>,
    _permit: TenantPermit,
}

impl TenantLimits {
    /// The limits on requests in a second and on connections at once, for each tenant. `None` means no limit.
    pub(super) fn new(max_request_rate: Option<NonZeroU32>, max_connections: Option<usize>) -> Arc<Self> {
        let max_request_rate = max_request_rate.map(|max_requests| RequestRate {
            requests: RateLimiter::keyed(Quota::per_second(max_requests)),
            max_requests,
        });
        let connections = max_connections.map(TenantPermits::of_each_tenant);
        Arc::new(Self { max_request_rate, connections })
    }

    /// Lets a request of a tenant in.
    ///
    /// # Errors
    /// When the tenant has too many connections with this one, or has sent too many requests.
    pub(super) fn admit(&self, tenant: &Arc<str>, connection: Option<&Connection>) -> Result<(), Problem> {
        if let (Some(connection), Some(connections)) = (connection, &self.connections) {
            connection.count_for(tenant, connections)?;
        }
        let Some(RequestRate { requests, max_requests }) = &self.max_request_rate else {
            return Ok(());
        };
        requests.check_key(tenant).map_err(|too_early| {
            let wait = too_early.wait_time_from(DefaultClock::default().now());
            let detail = format!("more than {max_requests} requests of this tenant in a second");
            Problem::new(Kind::TooManyRequests, detail)
                .with_limit("max_request_rate", max_requests.get().into())
                .with_header(RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)))
        })
    }
}

impl Connection {
    fn count_for(&self, tenant: &Arc<str>, connections: &Arc<TenantPermits>) -> Result<(), Problem> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.as_ref().is_none_or(|counted| counted.tenant != *tenant) {
            // The old count goes first: it must not be in the way of the same tenant's new one.
            *counted = None;
            let permit = connections.permit(tenant).map_err(too_many_connections)?;
            *counted = Some(CountedConnection { tenant: Arc::clone(tenant), _permit: permit });
        }
        Ok(())
    }
}

fn too_many_connections((NoPermit::InAll { max } | NoPermit::OfTenant { max }): NoPermit) -> Problem {
    let detail = format!("{max} connections of this tenant are open, as many as may be; close some");
    Problem::new(Kind::TooManyConnections, detail).with_limit("max_connections_per_tenant", max as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_once_and_for_the_tenant_of_its_latest_request() {
        let limits = TenantLimits::new(None, Some(1));
        let admit = |tenant: &str, connection: &Connection| {
            let tenant = Arc::from(tenant);
            limits.admit(&tenant, Some(connection)).map_err(|problem| problem.kind())
        };
        let (first, second) = (Connection::default(), Connection::default());
        assert_eq!(admit("mine", &first), Ok(()));
        assert_eq!(admit("mine", &first), Ok(()));
        assert_eq!(admit("mine", &second), Err(Kind::TooManyConnections));
        assert_eq!(admit("yours", &second), Ok(()));
        assert_eq!(admit("yours", &first), Err(Kind::TooManyConnections));
        // The refused connection counts for no tenant any more, so there is room for another one.
        assert_eq!(admit("mine", &Connection::default()), Ok(()));
        drop(second);
        assert_eq!(admit("yours", &first), Ok(()));
    }
}
