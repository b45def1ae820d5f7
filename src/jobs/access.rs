//! Whose jobs a request reaches.

use std::sync::Arc;

/// Which jobs are reached. All others do not exist for the one who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of one tenant.
    Tenant(Arc<str>),
    /// Those of every tenant: for administrators, and for what the service does by itself.
    All,
}

impl Scope {
    /// True when a job of this tenant is reached.
    #[must_use]
    pub fn reaches(&self, tenant: &str) -> bool {
        match self {
            Self::Tenant(own) => **own == *tenant,
            Self::All => true,
        }
    }
}

/// What a caller may do: the jobs that it reaches, and the tenant that its new jobs belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    tenant: Arc<str>,
    scope: Scope,
}

impl Access {
    /// A caller that reaches the jobs of its own tenant. The tenant without a name has the jobs of a service without tokens.
    #[must_use]
    pub fn tenant(tenant: impl Into<Arc<str>>) -> Self {
        let tenant = tenant.into();
        Self { scope: Scope::Tenant(Arc::clone(&tenant)), tenant }
    }

    /// A caller that reaches all jobs, and makes those of this tenant.
    #[must_use]
    pub fn administrator(tenant: impl Into<Arc<str>>) -> Self {
        Self { tenant: tenant.into(), scope: Scope::All }
    }

    /// The tenant that new jobs belong to.
    #[must_use]
    pub fn own_tenant(&self) -> &str {
        &self.tenant
    }

    /// The jobs that are reached.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// True when the jobs of all tenants are reached.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.scope == Scope::All
    }
}
