-- Only the tenant that had a job is told that it has expired.
ALTER TABLE expired_jobs ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
-- A tenant's jobs are found without a look at those of others.
CREATE INDEX jobs_by_tenant ON jobs (tenant, id);
CREATE INDEX jobs_by_tenant_and_name ON jobs (tenant, name, id);
CREATE INDEX jobs_by_tenant_and_state ON jobs (tenant, state, id);
