//! The statements, the same for every database.

use sqlx::Any;
use sqlx::any::AnyArguments;
use sqlx::query::Query;

use crate::jobs::access::Scope;

pub(super) const CHECK: &str = "SELECT 1 FROM jobs LIMIT 1";

pub(super) const INSERT_JOB: &str = "INSERT INTO jobs \
    (id, name, state, created_at, finished_at, expires_at, idempotency_key, closes_itself, details, tenant) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (tenant, idempotency_key) DO NOTHING";

/// Only a job that has not ended can change. Its files go with its end. The condition of an [`EndedBy`](super::EndedBy) follows.
pub(super) const END_JOB: &str = "UPDATE jobs SET state = $2, finished_at = $3, expires_at = $4, details = $5, \
    idempotency_key = CASE WHEN $6 = 1 THEN NULL ELSE idempotency_key END \
    WHERE id = $1 AND state IN ('open', 'receiving', 'interrupted')";

/// The jobs of a tenant, or all. It follows a condition, and its parameter has this number; [`bind_scope`] binds it.
pub(super) fn within(scope: &Scope, parameter: usize) -> String {
    match scope {
        Scope::Tenant(_) => format!(" AND tenant = ${parameter}"),
        Scope::All => String::new(),
    }
}

/// The same for a statement about what belongs to the job `$1`.
pub(super) fn of_job_within(scope: &Scope, parameter: usize) -> String {
    match scope {
        Scope::Tenant(_) => format!(" AND EXISTS (SELECT 1 FROM jobs WHERE id = $1 AND tenant = ${parameter})"),
        Scope::All => String::new(),
    }
}

/// Binds the parameter of [`within`] or [`of_job_within`].
pub(super) fn bind_scope<'q>(query: Query<'q, Any, AnyArguments>, scope: &Scope) -> Query<'q, Any, AnyArguments> {
    match scope {
        Scope::Tenant(tenant) => query.bind(tenant.to_string()),
        Scope::All => query,
    }
}

pub(super) const NEWEST_FIRST: &str = " ORDER BY id DESC";

/// The queries for jobs are completed with a scope ([`within`]), an order and a limit.
pub(super) const JOB_BY_ID: &str = "SELECT id, tenant, name, state, created_at, finished_at, expires_at, closes_itself, details FROM jobs WHERE id = $1";

/// [`NEWEST_FIRST`] follows.
pub(super) const NEWEST_JOB_BY_NAME: &str = "SELECT id, tenant, name, state, created_at, finished_at, expires_at, closes_itself, details \
    FROM jobs WHERE name = $1";

pub(super) const JOB_BY_IDEMPOTENCY_KEY: &str = "SELECT id, tenant, name, state, created_at, finished_at, expires_at, closes_itself, details \
    FROM jobs WHERE tenant = $1 AND idempotency_key = $2";

pub(super) const LIST_JOBS: &str = "SELECT id, tenant, name, state, created_at, finished_at, expires_at, closes_itself, details \
    FROM jobs WHERE id < $1 AND (expires_at IS NULL OR expires_at > $2)";

/// Follows [`LIST_JOBS`]: only jobs of this name.
pub(super) fn name_is(parameter: usize) -> String {
    format!(" AND name = ${parameter}")
}

/// Follows [`LIST_JOBS`]: only jobs in this state.
pub(super) fn state_is(parameter: usize) -> String {
    format!(" AND state = ${parameter}")
}

/// Follows [`LIST_JOBS`]: only jobs whose names match the [pattern](containing). Upper and lower case of ASCII letters are the same.
pub(super) fn name_is_like(parameter: usize) -> String {
    format!(" AND lower(name) LIKE lower(${parameter}) ESCAPE '\\'")
}

/// A pattern for texts that contain this one.
pub(super) fn containing(text: &str) -> String {
    format!("%{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
}

pub(super) const RECEIVING_JOBS: &str = "SELECT id, tenant, name, state, created_at, finished_at, expires_at, closes_itself, details \
    FROM jobs WHERE state = 'receiving' AND closes_itself > 0 AND finishing = 0";

/// [`within`] follows where a request asks for it.
pub(super) const DELETE_JOB: &str = "DELETE FROM jobs WHERE id = $1";

pub(super) const EXPIRED_JOBS: &str = "SELECT id FROM jobs WHERE expires_at <= $1 ORDER BY expires_at";

pub(super) const REMEMBER_EXPIRED_JOB: &str =
    "INSERT INTO expired_jobs (id, expired_at, tenant) SELECT id, $2, tenant FROM jobs WHERE id = $1";

pub(super) const FORGET_EXPIRED_JOBS: &str = "DELETE FROM expired_jobs WHERE expired_at < $1";

/// [`within`] follows.
pub(super) const EXPIRED_JOB: &str = "SELECT 1 FROM expired_jobs WHERE id = $1";

/// Present while a job has not ended. The condition of an [`EndedBy`](super::EndedBy) follows.
pub(super) const UNENDED_JOB: &str =
    "SELECT 1 FROM jobs WHERE id = $1 AND state IN ('open', 'receiving', 'interrupted')";

pub(super) const CONTAINS_JOB: &str = "SELECT 1 FROM jobs WHERE id = $1";

/// A result some of whose pieces are stored already: its length and tag follow with the last one.
pub(super) const STAGE_RESULT: &str =
    "INSERT INTO results (job_id, name, length, etag) VALUES ($1, $2, 0, '') ON CONFLICT (job_id, name) DO NOTHING";

/// [`insert_rows`] completes it with the rows, and [`COMPLETE_STAGED`] follows them.
pub(super) const INSERT_RESULTS: &str = "INSERT INTO results (job_id, name, length, etag)";

pub(super) const COMPLETE_STAGED: &str =
    " ON CONFLICT (job_id, name) DO UPDATE SET length = excluded.length, etag = excluded.etag";

/// [`insert_rows`] completes it.
pub(super) const INSERT_PIECES: &str = "INSERT INTO result_pieces (job_id, name, start, length, body)";

/// The pieces go with their results.
pub(super) const DISCARD_RESULTS: &str = "DELETE FROM results WHERE job_id = $1";

/// Staged results of a job that has ended without them, or that [`UNENDED_JOB`] and a condition select.
pub(super) fn discard_staged(unended: &str) -> String {
    format!(
        "{DISCARD_RESULTS} AND (EXISTS (SELECT 1 FROM jobs WHERE id = $1 AND state IN ('failed', 'cancelled')) OR EXISTS ({unended}))"
    )
}

/// Staged results of jobs that will never succeed.
pub(super) const DISCARD_ALL_STAGED: &str =
    "DELETE FROM results WHERE job_id IN (SELECT id FROM jobs WHERE state <> 'succeeded')";

/// A statement that inserts rows of some columns.
pub(super) fn insert_rows(insert: &str, columns: usize, rows: usize) -> String {
    let row = |row: usize| {
        let places: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", places.join(", "))
    };
    let rows: Vec<_> = (0..rows).map(row).collect();
    format!("{insert} VALUES {}", rows.join(", "))
}

/// Of a result that is only staged nothing is shown. [`of_job_within`] follows.
pub(super) const RESULT: &str = "SELECT length, etag FROM results WHERE job_id = $1 AND name = $2 AND etag <> ''";

/// The piece that a position lies in. [`of_job_within`] and [`LAST_PIECE`] follow.
pub(super) const PIECE_AT: &str = "SELECT start, length, body FROM result_pieces \
    WHERE job_id = $1 AND name = $2 AND start <= $3";

pub(super) const LAST_PIECE: &str = " ORDER BY start DESC LIMIT 1";

/// What a tenant's jobs take: their documents, results and states, as they are stored.
pub(super) const STORED_BYTES_OF_TENANT: &str = "SELECT \
    (SELECT COALESCE(SUM(LENGTH(details)), 0) FROM jobs WHERE tenant = $1) \
    + (SELECT COALESCE(SUM(LENGTH(body)), 0) FROM jobs JOIN result_pieces ON job_id = jobs.id WHERE tenant = $1) \
    + (SELECT COALESCE(SUM(LENGTH(files.details)), 0) FROM jobs JOIN files ON job_id = jobs.id WHERE tenant = $1) \
    + (SELECT COALESCE(SUM(LENGTH(body)), 0) FROM jobs JOIN files ON job_id = jobs.id JOIN file_totals ON file_id = files.id \
        WHERE tenant = $1) \
    + (SELECT COALESCE(SUM(LENGTH(body)), 0) FROM jobs JOIN files ON job_id = jobs.id JOIN checkpoints ON file_id = files.id \
        WHERE tenant = $1) \
    + (SELECT COALESCE(SUM(LENGTH(body)), 0) FROM jobs JOIN files ON job_id = jobs.id JOIN reject_blocks ON file_id = files.id \
        WHERE tenant = $1)";

/// [`within`] follows.
pub(super) const JOB_STATE: &str = "SELECT state, closes_itself, finishing FROM jobs WHERE id = $1";

/// Open jobs that have not ended, in all and of a tenant. Those that close themselves are open until their file has its first writer.
pub(super) const COUNT_OPEN_JOBS: &str = "SELECT COUNT(*), COUNT(CASE WHEN tenant = $2 THEN 1 END) FROM jobs WHERE state IN ('open', 'receiving', 'interrupted') \
    AND (closes_itself = 0 OR state = 'open') AND (expires_at IS NULL OR expires_at > $1)";

pub(super) const FILES: &str = "SELECT id, name, state, epoch, durable_offset, checkpoint_epoch, checkpoint_number, details FROM files WHERE job_id = $1 \
    ORDER BY CASE WHEN place IS NULL THEN 1 ELSE 0 END, place, id";

pub(super) const FILE_BY_NAME: &str = "SELECT id, name, state, epoch, durable_offset, checkpoint_epoch, checkpoint_number, details FROM files WHERE job_id = $1 AND name = $2";

pub(super) const COUNT_FILES: &str = "SELECT COUNT(*) FROM files WHERE job_id = $1";

/// From its first byte: what an earlier writer has stored is another file's.
pub(super) const OPEN_FILE: &str = "INSERT INTO files (id, job_id, name, state, epoch, details) \
    VALUES ($1, $2, $3, 'receiving', $4, $5) ON CONFLICT (job_id, name) DO UPDATE \
    SET state = 'receiving', epoch = excluded.epoch, details = excluded.details, \
    durable_offset = 0, checkpoint_epoch = NULL, checkpoint_number = NULL";

pub(super) const RESUME_FILE: &str = "UPDATE files SET state = 'receiving', epoch = $2, details = $3 WHERE id = $1";

pub(super) const COMPLETE_FILE: &str = "UPDATE files SET state = $3, details = $4, place = \
    (SELECT COALESCE(MAX(place), 0) + 1 FROM files AS others WHERE others.job_id = files.job_id) \
    WHERE id = $1 AND epoch = $2 AND state = 'receiving'";

/// Behind [`WRITTEN_FILE`].
pub(super) const RELEASE_FILE: &str = "UPDATE files SET state = $2, details = $3 WHERE id = $1";

/// Present while a file has this writer.
pub(super) const WRITTEN_FILE: &str =
    "SELECT durable_offset FROM files WHERE id = $1 AND epoch = $2 AND state = 'receiving'";

/// Behind [`WRITTEN_FILE`].
pub(super) const SET_CHECKPOINT: &str =
    "UPDATE files SET durable_offset = $2, checkpoint_epoch = $3, checkpoint_number = $4 WHERE id = $1";

/// Behind [`WRITTEN_FILE`].
pub(super) const DESCRIBE_FILE: &str = "UPDATE files SET details = $2 WHERE id = $1";

pub(super) const INSERT_CHECKPOINT_PIECE: &str =
    "INSERT INTO checkpoints (file_id, epoch, number, sequence, body) VALUES ($1, $2, $3, $4, $5)";

pub(super) const CHECKPOINT_PIECE: &str =
    "SELECT body FROM checkpoints WHERE file_id = $1 AND epoch = $2 AND number = $3 AND sequence = $4";

/// Of the files from one id to another, a few pieces at a time: others want to write, too. What a file goes on from stays, and what its
/// writer is about to store.
pub(super) const FREE_CHECKPOINTS: &str = "DELETE FROM checkpoints WHERE (file_id, epoch, number, sequence) IN \
    (SELECT file_id, epoch, number, sequence FROM checkpoints AS old WHERE file_id >= $1 AND file_id <= $2 AND NOT EXISTS \
    (SELECT 1 FROM files WHERE files.id = old.file_id AND ((checkpoint_epoch = old.epoch AND checkpoint_number = old.number) \
    OR (state = 'receiving' AND files.epoch = old.epoch \
    AND (checkpoint_epoch IS NULL OR checkpoint_epoch <> old.epoch OR checkpoint_number < old.number)))) LIMIT 4)";

/// Unless the file goes on from it.
pub(super) const DISCARD_CHECKPOINT: &str = "DELETE FROM checkpoints WHERE file_id = $1 AND epoch = $2 AND number = $3 AND NOT EXISTS \
    (SELECT 1 FROM files WHERE id = $1 AND checkpoint_epoch = $2 AND checkpoint_number = $3)";

/// [`insert_rows`] completes it with the rows, and [`REPLACE_REJECT_BLOCKS`] follows them.
pub(super) const INSERT_REJECT_BLOCKS: &str = "INSERT INTO reject_blocks (file_id, sequence, body)";

/// Blocks that an earlier writer stored behind its last checkpoint are not used.
pub(super) const REPLACE_REJECT_BLOCKS: &str = " ON CONFLICT (file_id, sequence) DO UPDATE SET body = excluded.body";

pub(super) const REJECT_BLOCK: &str = "SELECT body FROM reject_blocks WHERE file_id = $1 AND sequence = $2";

/// Those from a number on.
pub(super) const DELETE_REJECT_BLOCKS: &str = "DELETE FROM reject_blocks WHERE file_id = $1 AND sequence >= $2";

/// Some at a time: others want to write, too. What a complete file has counted holds its rejects, and a failed file starts over.
pub(super) const FREE_REJECT_BLOCKS: &str = "DELETE FROM reject_blocks WHERE (file_id, sequence) IN \
    (SELECT file_id, sequence FROM reject_blocks WHERE NOT EXISTS (SELECT 1 FROM files \
    WHERE files.id = reject_blocks.file_id AND state IN ('waiting', 'receiving')) LIMIT 32)";

pub(super) const DELETE_FILE: &str = "DELETE FROM files WHERE job_id = $1 AND name = $2";

/// The files that an earlier process was receiving wait for another writer.
pub(super) const RELEASE_ALL_FILES: &str = "UPDATE files SET state = 'waiting' WHERE state = 'receiving'";

/// A job that is finishing is shown as `receiving`, and so is one that a form makes (`closes_itself` is 2), between its files, too. Another
/// one that closes itself waits for its sender, not for files.
pub(super) const SETTLE_JOB: &str = "UPDATE jobs SET \
    state = CASE WHEN finishing = 1 OR closes_itself = 2 \
        OR EXISTS (SELECT 1 FROM files WHERE job_id = $1 AND state = 'receiving') THEN 'receiving' \
        WHEN closes_itself = 1 \
        OR EXISTS (SELECT 1 FROM files WHERE job_id = $1 AND state = 'waiting' AND durable_offset > 0) THEN 'interrupted' \
        ELSE 'open' END, \
    expires_at = CASE WHEN finishing = 1 OR closes_itself = 2 \
        OR EXISTS (SELECT 1 FROM files WHERE job_id = $1 AND state = 'receiving') THEN NULL ELSE $2 END \
    WHERE id = $1 AND state IN ('open', 'receiving', 'interrupted')";

/// A job that a form was making becomes an open one. The form may be sent again: its key is free.
pub(super) const LEAVE_OPEN: &str = "UPDATE jobs SET closes_itself = 0, idempotency_key = NULL \
    WHERE id = $1 AND closes_itself = 2 AND finishing = 0 AND state IN ('open', 'receiving', 'interrupted')";

pub(super) const UNSETTLED_JOBS: &str = "SELECT id FROM jobs WHERE closes_itself = 0 AND state = 'receiving'";

pub(super) const BEGIN_FINISHING: &str = "UPDATE jobs \
    SET finishing = 1, finisher_epoch = finisher_epoch + 1, state = 'receiving', expires_at = NULL WHERE id = $1";

pub(super) const FINISHER: &str = "SELECT finisher_epoch FROM jobs WHERE id = $1";

pub(super) const END_FINISHING: &str = "UPDATE jobs SET finishing = 0 WHERE id = $1 AND finisher_epoch = $2";

pub(super) const FINISHING_JOBS: &str =
    "SELECT id FROM jobs WHERE finishing = 1 AND state IN ('open', 'receiving', 'interrupted')";

pub(super) const INSERT_TOTALS: &str =
    "INSERT INTO file_totals (file_id, epoch, sequence, body) VALUES ($1, $2, $3, $4)";

pub(super) const TOTALS: &str = "SELECT body FROM file_totals WHERE file_id = $1 AND epoch = $2 AND sequence = $3";

/// Unless they count.
pub(super) const DISCARD_TOTALS: &str = "DELETE FROM file_totals WHERE file_id = $1 AND epoch = $2 AND NOT EXISTS \
    (SELECT 1 FROM files WHERE id = $1 AND epoch = $2 AND state = 'complete')";

/// A few at a time: others want to write, too.
pub(super) const FREE_TOTALS: &str = "DELETE FROM file_totals WHERE (file_id, epoch, sequence) IN \
    (SELECT file_id, epoch, sequence FROM file_totals WHERE NOT EXISTS \
    (SELECT 1 FROM files WHERE files.id = file_totals.file_id AND files.epoch = file_totals.epoch) LIMIT 4)";

pub(super) const SAVE_FORM: &str = "UPDATE jobs SET details = $2 WHERE id = $1 AND closes_itself = 2 \
    AND finishing = 0 AND state IN ('open', 'receiving', 'interrupted')";

pub(super) const SAVE_OPEN_JOB: &str = "UPDATE jobs SET details = $2 WHERE id = $1 AND closes_itself = 0 \
    AND finishing = 0 AND state IN ('open', 'receiving', 'interrupted')";
