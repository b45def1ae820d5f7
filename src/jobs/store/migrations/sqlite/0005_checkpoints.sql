-- Bytes of the file that are stored for good, and the state to go on from there: none while that is the file's first byte.
ALTER TABLE files ADD COLUMN durable_offset BIGINT NOT NULL DEFAULT 0;
ALTER TABLE files ADD COLUMN checkpoint_epoch BIGINT;
ALTER TABLE files ADD COLUMN checkpoint_number BIGINT;

-- Saved states of files that are being received, in pieces. Those that no file goes on from are freed, a few at a time.
CREATE TABLE checkpoints (
    file_id TEXT NOT NULL,
    -- The writer that saved it, and its number among that writer's.
    epoch BIGINT NOT NULL,
    number BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (file_id, epoch, number, sequence)
);
