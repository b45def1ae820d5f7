-- no-transaction
-- An idempotency key belongs to a tenant. SQLite cannot change a constraint of a table, so the table is made anew, in the way of
-- https://www.sqlite.org/lang_altertable.html#otheralter: with foreign keys on, dropping it would delete files and results. The whole can
-- be repeated, should the process die before it is recorded.
PRAGMA foreign_keys = OFF;
BEGIN IMMEDIATE;
DROP TABLE IF EXISTS new_jobs;
CREATE TABLE new_jobs (
    id TEXT NOT NULL PRIMARY KEY,
    -- Never NULL: UNIQUE takes each NULL for another value.
    tenant TEXT NOT NULL DEFAULT '',
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    expires_at BIGINT,
    -- NULL again once the upload that used it has failed in a way that a retry may mend.
    idempotency_key TEXT,
    -- 0: open until it is completed. 1: finishes with its file. 2: finishes with the form that makes it.
    closes_itself BIGINT NOT NULL DEFAULT 1,
    -- 1 once its results are being made: its files no longer change.
    finishing BIGINT NOT NULL DEFAULT 0,
    -- One more with every finisher: an earlier one can store nothing more.
    finisher_epoch BIGINT NOT NULL DEFAULT 0,
    -- JSON: what is not searched for.
    details TEXT NOT NULL,
    UNIQUE (tenant, idempotency_key)
);
INSERT INTO new_jobs (id, name, state, created_at, finished_at, expires_at, idempotency_key, closes_itself, finishing, details)
    SELECT id, name, state, created_at, finished_at, expires_at, idempotency_key, closes_itself, finishing, details FROM jobs;
DROP TABLE jobs;
ALTER TABLE new_jobs RENAME TO jobs;
CREATE INDEX jobs_by_name ON jobs (name, id);
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_by_expiry ON jobs (expires_at);
CREATE TRIGGER files_go_with_the_end_of_their_job AFTER UPDATE OF state ON jobs
    WHEN NEW.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
    DELETE FROM files WHERE job_id = NEW.id;
END;
COMMIT;
PRAGMA foreign_keys = ON;
