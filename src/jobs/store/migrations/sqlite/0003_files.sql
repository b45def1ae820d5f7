-- 1: the job finishes with the request that brings its files. 0: it is open until it is completed.
ALTER TABLE jobs ADD COLUMN closes_itself BIGINT NOT NULL DEFAULT 1;
-- 1 once its results are being made: its files no longer change.
ALTER TABLE jobs ADD COLUMN finishing BIGINT NOT NULL DEFAULT 0;

-- Files of open jobs. A job that has ended shows them in its details.
CREATE TABLE files (
    -- UUIDv7 as text.
    id TEXT NOT NULL PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    -- waiting, receiving, complete, failed
    state TEXT NOT NULL,
    -- One more with every writer: an earlier one can write nothing more.
    epoch BIGINT NOT NULL,
    -- The order of completion.
    place BIGINT,
    -- JSON: what is not searched for.
    details TEXT NOT NULL,
    UNIQUE (job_id, name)
);

-- What complete files have counted, each piece compressed for itself (Zstandard). Upkeep frees those of files that are gone, a few at a
-- time.
CREATE TABLE file_totals (
    file_id TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (file_id, epoch, sequence)
);
