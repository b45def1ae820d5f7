-- Rows that did not count, of files that are being received: blocks that no longer change, each stored once. A checkpoint says how many of the
-- first ones belong to it. Those that no file goes on from are freed, some at a time.
CREATE TABLE reject_blocks (
    file_id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (file_id, sequence)
);
