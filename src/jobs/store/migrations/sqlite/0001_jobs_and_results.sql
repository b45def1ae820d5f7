-- Times are microseconds since 1970 in UTC. Ids are UUIDv7 as text: their order is the order of creation.
CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    expires_at BIGINT,
    -- Free again (NULL) once the upload that used it came to nothing.
    idempotency_key TEXT UNIQUE,
    -- JSON: what nobody looks for by.
    details TEXT NOT NULL
);

CREATE INDEX jobs_by_name ON jobs (name, id);
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_by_expiry ON jobs (expires_at);

CREATE TABLE results (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    length BIGINT NOT NULL,
    -- Hexadecimal digits of the SHA-256 of the contents.
    etag TEXT NOT NULL,
    PRIMARY KEY (job_id, name)
);

-- A result's contents, each piece compressed for itself (Zstandard).
CREATE TABLE result_pieces (
    job_id TEXT NOT NULL,
    name TEXT NOT NULL,
    -- Where in the contents the piece starts.
    start BIGINT NOT NULL,
    length BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (job_id, name, start),
    FOREIGN KEY (job_id, name) REFERENCES results (job_id, name) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

-- Jobs that were there once.
CREATE TABLE expired_jobs (
    id TEXT NOT NULL PRIMARY KEY,
    expired_at BIGINT NOT NULL
);
