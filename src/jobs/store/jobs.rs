//! The records of jobs.

use jiff::Timestamp;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row as _, Transaction};

use super::database::Store;
use super::error::StoreError;
use super::files::{Writer, settle, write_file};
use super::sql;
use crate::jobs::access::Scope;
use crate::jobs::failure::Failure;
use crate::jobs::model::{Details, FileId, Job, JobFile, JobId, State, now};

/// How long an id is remembered after its job has expired.
const REMEMBER_EXPIRED: jiff::SignedDuration = jiff::SignedDuration::from_hours(24 * 90);

/// Expired jobs that are removed in one transaction: others want to write, too.
const MAX_EXPIRED_AT_ONCE: usize = 100;

/// How many jobs of one name are looked at when newer ones are damaged.
const MAX_NAMESAKES: usize = 16;

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those of this name.
    pub name: Option<String>,
    /// Only those whose names contain this text. Upper and lower case of ASCII letters are the same.
    pub search: Option<String>,
    /// Only those that began before this one.
    pub before: Option<JobId>,
    /// The most jobs to list.
    pub limit: usize,
}

/// Jobs that are listed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPage<J> {
    /// As many as were asked for, or fewer when they have a thousand files.
    pub jobs: Vec<J>,
    /// Further ones follow.
    pub has_more: bool,
}

/// A page ends with the job whose files make it so many: a job may have a thousand.
const MAX_PAGE_FILES: usize = 1000;

/// Rows that are read at once: that of a job may be large.
const ROWS_AT_ONCE: usize = 8;

/// How the attempt to add a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    Done,
    /// Its idempotency key is taken.
    KeyTaken,
    /// As many jobs are open as may be.
    TooManyOpen,
    /// As many jobs of the tenant are open as may be.
    TooManyOpenOfTenant,
}

/// How many jobs may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenJobLimits {
    /// In all.
    pub max_open_jobs: u64,
    /// Of each tenant.
    pub max_open_jobs_per_tenant: u64,
}

/// Who ends a job, and ends nothing once another has taken its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// A request about the whole job, such as its cancellation.
    Request,
    /// The writer of its one file.
    Writer(Writer),
    /// The one who makes its results, by number.
    Finisher(i64),
}

impl EndedBy {
    /// A condition on the job `$1` that holds until another takes the place. Its parameters have the numbers from `first` on.
    pub(super) fn condition(self, first: usize) -> String {
        match self {
            Self::Request => String::new(),
            Self::Writer(_) => format!(
                " AND EXISTS (SELECT 1 FROM files WHERE id = ${first} AND epoch = ${} AND state = 'receiving')",
                first + 1
            ),
            Self::Finisher(_) => format!(" AND finishing = 1 AND finisher_epoch = ${first}"),
        }
    }

    /// Binds the parameters of the condition.
    pub(super) fn bind(self, query: Query<'_, Any, AnyArguments>) -> Query<'_, Any, AnyArguments> {
        match self {
            Self::Request => query,
            Self::Writer(Writer { file, epoch }) => query.bind(file.to_string()).bind(epoch),
            Self::Finisher(epoch) => query.bind(epoch),
        }
    }

    /// True when another may have been in the place before, and left staged results.
    pub(super) fn may_follow_another(self) -> bool {
        !matches!(self, Self::Writer(Writer { epoch: 1, .. }))
    }
}

impl Store {
    /// Adds a job.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn insert(&self, job: &Job, idempotency_key: Option<&str>) -> Result<Inserted, StoreError> {
        let (turn, mut transaction) = self.begin_growing().await?;
        let inserted = insert(&mut transaction, job, idempotency_key).await?;
        turn.commit(transaction).await?;
        Ok(inserted)
    }

    /// Adds a job that waits for files, or for the first byte of this one, unless as many of that kind as may be have not ended.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn insert_open(
        &self,
        job: &Job,
        file: Option<&JobFile>,
        idempotency_key: Option<&str>,
        limits: OpenJobLimits,
    ) -> Result<Inserted, StoreError> {
        let (turn, mut transaction) = self.begin_growing().await?;
        let inserted = insert(&mut transaction, job, idempotency_key).await?;
        if inserted == Inserted::Done {
            let row = sqlx::query(sql::COUNT_OPEN_JOBS).bind(now().as_microsecond()).bind(job.tenant.clone());
            let row = row.fetch_one(&mut *transaction).await?;
            let count = |column| row.try_get::<i64, _>(column).map(|count| u64::try_from(count).unwrap_or_default());
            if count(0)? > limits.max_open_jobs {
                return Ok(Inserted::TooManyOpen);
            }
            if count(1)? > limits.max_open_jobs_per_tenant {
                return Ok(Inserted::TooManyOpenOfTenant);
            }
            if let Some(file) = file {
                let first_writer = Writer { file: FileId::new(), epoch: 1 };
                write_file(&mut transaction, job.id, first_writer, file).await?;
            }
        }
        turn.commit(transaction).await?;
        Ok(inserted)
    }

    /// Adds a job that closes itself together with its one file, and makes the caller the file's writer. None, and nothing is added,
    /// when the idempotency key is taken.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn insert_with_file(
        &self,
        job: &Job,
        idempotency_key: Option<&str>,
        file: &JobFile,
    ) -> Result<Option<Writer>, StoreError> {
        let (turn, mut transaction) = self.begin_growing().await?;
        if insert(&mut transaction, job, idempotency_key).await? != Inserted::Done {
            return Ok(None);
        }
        let writer = Writer { file: FileId::new(), epoch: 1 };
        write_file(&mut transaction, job.id, writer, file).await?;
        turn.commit(transaction).await?;
        Ok(Some(writer))
    }

    /// Makes a job that a form was making an open one, with the files that it has. Gives false, and changes nothing, when it has ended.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn leave_open(&self, id: JobId, keep_open: jiff::SignedDuration) -> Result<bool, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let left = sqlx::query(sql::LEAVE_OPEN).bind(id.to_string()).execute(&mut *transaction).await?;
        settle(&mut transaction, id, keep_open).await?;
        turn.commit(transaction).await?;
        Ok(left.rows_affected() > 0)
    }

    /// Records that a job has ended without results. Gives false, and changes nothing, when it has ended already or is gone; also when
    /// another has taken the place of `by`.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn end(&self, job: &Job, frees_key: bool, by: EndedBy) -> Result<bool, StoreError> {
        self.with_reserve(|| self.try_end(job, frees_key, by)).await
    }

    async fn try_end(&self, job: &Job, frees_key: bool, by: EndedBy) -> Result<bool, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let is_recorded = end_job(&mut transaction, job, frees_key, by).await?;
        turn.commit(transaction).await?;
        Ok(is_recorded)
    }

    /// The job with this id.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn job(&self, scope: &Scope, id: JobId) -> Result<Option<Job>, StoreError> {
        let query = sql::JOB_BY_ID.to_owned() + &sql::within(scope, 2);
        self.one(&query, &with_tenant([id.to_string()], scope)).await
    }

    /// The newest job of this name.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn newest_named(&self, scope: &Scope, name: &str) -> Result<Option<Job>, StoreError> {
        let query = sql::NEWEST_JOB_BY_NAME.to_owned() + &sql::within(scope, 2) + sql::NEWEST_FIRST;
        self.one(&query, &with_tenant([name.to_owned()], scope)).await
    }

    /// The job that a tenant has created with this key.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn job_by_key(&self, tenant: &str, idempotency_key: &str) -> Result<Option<Job>, StoreError> {
        let values = [tenant, idempotency_key].map(|text| Value::Text(text.to_owned()));
        self.one(sql::JOB_BY_IDEMPOTENCY_KEY, &values).await
    }

    async fn one(&self, query: &str, values: &[Value]) -> Result<Option<Job>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let rows = readable(&mut connection, query, values, MAX_NAMESAKES).await?;
        drop(connection);
        let mut damage = rows.damage;
        for row in &rows.rows {
            match job_of_row(row) {
                Ok(job) => return Ok(Some(self.with_files(job).await?)),
                Err(error) => damage = Some(error),
            }
        }
        damage.map_or(Ok(None), Err)
    }

    /// True when there is a job of this id, whether its record can be read or not.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn contains(&self, id: JobId) -> Result<bool, StoreError> {
        let row = sqlx::query(sql::CONTAINS_JOB).bind(id.to_string()).fetch_optional(&self.pool).await?;
        Ok(row.is_some())
    }

    /// Jobs that have not expired, newest first. Damaged records are passed over.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn list(&self, scope: &Scope, filter: &JobFilter) -> Result<JobPage<Job>, StoreError> {
        // Every id starts with a hexadecimal digit.
        let mut before = filter.before.map_or_else(|| "g".to_owned(), |id| id.to_string());
        let (mut jobs, mut files) = (Vec::new(), 0);
        loop {
            // One more tells whether there are more.
            let wanted = (filter.limit - jobs.len() + 1).min(ROWS_AT_ONCE);
            let Readable { rows, damage } = self.rows_before(scope, before, wanted, filter).await?;
            for job in rows.iter().filter_map(|row| job_of_row(row).inspect_err(warn_of_damage).ok()) {
                if jobs.len() == filter.limit || files >= MAX_PAGE_FILES {
                    return Ok(JobPage { jobs, has_more: true });
                }
                let job = self.with_files(job).await?;
                files += job.details.files.len();
                jobs.push(job);
            }
            let is_last_page = rows.len() < wanted && damage.is_none();
            match rows.iter().rev().find_map(|row| row.try_get("id").ok()) {
                Some(last) if !is_last_page => before = last,
                _ => return Ok(JobPage { jobs, has_more: false }),
            }
        }
    }

    async fn rows_before(
        &self,
        scope: &Scope,
        before: String,
        limit: usize,
        filter: &JobFilter,
    ) -> Result<Readable, StoreError> {
        let mut query = sql::LIST_JOBS.to_owned();
        let mut values = vec![Value::Text(before), Value::Number(now().as_microsecond())];
        for (condition, text) in [
            (sql::name_is as fn(usize) -> String, filter.name.clone()),
            (sql::state_is, filter.state.map(|state| state.name().to_owned())),
            (sql::name_is_like, filter.search.as_deref().map(sql::containing)),
        ] {
            if let Some(text) = text {
                values.push(Value::Text(text));
                query += &condition(values.len());
            }
        }
        query = query + &sql::within(scope, values.len() + 1) + sql::NEWEST_FIRST;
        values.extend(tenant_of(scope).map(Value::Text));
        readable(&mut *self.pool.acquire().await?, &query, &values, limit).await
    }

    /// Removes a job with its results. Gives whether there was one.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn delete(&self, scope: &Scope, id: JobId) -> Result<bool, StoreError> {
        self.with_reserve(|| self.try_delete(scope, id)).await
    }

    async fn try_delete(&self, scope: &Scope, id: JobId) -> Result<bool, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let statement = sql::DELETE_JOB.to_owned() + &sql::within(scope, 2);
        let query = sqlx::query(AssertSqlSafe(statement)).bind(id.to_string());
        let deleted = sql::bind_scope(query, scope).execute(&mut *transaction).await?;
        turn.commit(transaction).await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// Removes the jobs whose time is over, and gives their ids, which are remembered for a while.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn expire(&self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        self.with_reserve(|| self.try_expire(now)).await
    }

    async fn try_expire(&self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let values = [Value::Number(now.as_microsecond())];
        let rows = readable(&mut transaction, sql::EXPIRED_JOBS, &values, MAX_EXPIRED_AT_ONCE).await?;
        let mut expired = Vec::new();
        for row in &rows.rows {
            let Ok(id) = row.try_get::<String, _>(0).map_err(StoreError::from).inspect_err(warn_of_damage) else {
                continue;
            };
            sqlx::query(sql::REMEMBER_EXPIRED_JOB)
                .bind(id.clone())
                .bind(now.as_microsecond())
                .execute(&mut *transaction)
                .await?;
            sqlx::query(sql::DELETE_JOB).bind(id.clone()).execute(&mut *transaction).await?;
            // A record whose id is damaged has no files.
            expired.extend(parse_id(&id).inspect_err(warn_of_damage).ok());
        }
        let forget = now.checked_sub(REMEMBER_EXPIRED).unwrap_or(Timestamp::MIN).as_microsecond();
        sqlx::query(sql::FORGET_EXPIRED_JOBS).bind(forget).execute(&mut *transaction).await?;
        turn.commit(transaction).await?;
        Ok(expired)
    }

    /// True when a job of this id has expired.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn has_expired(&self, scope: &Scope, id: JobId) -> Result<bool, StoreError> {
        let statement = sql::EXPIRED_JOB.to_owned() + &sql::within(scope, 2);
        let query = sqlx::query(AssertSqlSafe(statement)).bind(id.to_string());
        Ok(sql::bind_scope(query, scope).fetch_optional(&self.pool).await?.is_some())
    }

    /// Ends every job that an earlier process was receiving, and discards what it had staged of their results. Open jobs stay: their
    /// files wait for other writers.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn fail_receiving(
        &self,
        failure: &Failure,
        keep: jiff::SignedDuration,
        keep_open: jiff::SignedDuration,
    ) -> Result<usize, StoreError> {
        self.with_reserve(|| self.try_fail_receiving(failure, keep, keep_open)).await
    }

    async fn try_fail_receiving(
        &self,
        failure: &Failure,
        keep: jiff::SignedDuration,
        keep_open: jiff::SignedDuration,
    ) -> Result<usize, StoreError> {
        let (turn, mut transaction) = self.begin().await?;
        let Readable { rows, .. } = readable(&mut transaction, sql::RECEIVING_JOBS, &[], usize::MAX).await?;
        let (mut interrupted, mut failed) = (Vec::new(), 0);
        for row in &rows {
            let job = job_of_row(row);
            if let Ok(job) = &job
                && (job.details.is_form || has_files(&mut transaction, job.id).await?)
            {
                // Its sender may go on.
                sqlx::query(sql::LEAVE_OPEN).bind(job.id.to_string()).execute(&mut *transaction).await?;
                interrupted.push(job.id);
                continue;
            }
            match job.or_else(|error| undamaged_part(row).ok_or(error)) {
                Ok(mut job) => {
                    job.end(State::Failed, Some(failure.clone()), keep);
                    end_job(&mut transaction, &job, true, EndedBy::Request).await?;
                    failed += 1;
                }
                Err(error) => warn_of_damage(&error),
            }
        }
        sqlx::query(sql::DISCARD_ALL_STAGED).execute(&mut *transaction).await?;
        sqlx::query(sql::RELEASE_ALL_FILES).execute(&mut *transaction).await?;
        for id in interrupted {
            settle(&mut transaction, id, keep_open).await?;
        }
        let unsettled = sqlx::query(sql::UNSETTLED_JOBS).fetch_all(&mut *transaction).await?;
        for row in &unsettled {
            if let Ok(id) = parse_id(row.try_get("id")?).inspect_err(warn_of_damage) {
                settle(&mut transaction, id, keep_open).await?;
            }
        }
        turn.commit(transaction).await?;
        Ok(failed)
    }
}

pub(super) async fn insert(
    connection: &mut AnyConnection,
    job: &Job,
    idempotency_key: Option<&str>,
) -> Result<Inserted, StoreError> {
    let inserted = sqlx::query(sql::INSERT_JOB)
        .bind(job.id.to_string())
        .bind(job.name.clone())
        .bind(job.state.name())
        .bind(job.created_at.as_microsecond())
        .bind(job.finished_at.map(Timestamp::as_microsecond))
        .bind(job.expires_at.map(Timestamp::as_microsecond))
        .bind(idempotency_key.map(str::to_owned))
        .bind(if job.details.is_form { 2 } else { i64::from(job.closes_itself) })
        .bind(details_text(job)?)
        .bind(job.tenant.clone())
        .execute(connection)
        .await?;
    Ok(if inserted.rows_affected() == 0 { Inserted::KeyTaken } else { Inserted::Done })
}

async fn has_files(connection: &mut AnyConnection, job: JobId) -> Result<bool, StoreError> {
    let count: i64 = sqlx::query(sql::COUNT_FILES).bind(job.to_string()).fetch_one(connection).await?.try_get(0)?;
    Ok(count > 0)
}

/// Writes a job's end, unless it has ended or is gone, or another has taken the place of `by`. Gives whether it was written.
pub(super) async fn end_job(
    transaction: &mut Transaction<'static, Any>,
    job: &Job,
    frees_key: bool,
    by: EndedBy,
) -> Result<bool, StoreError> {
    let query = sqlx::query(AssertSqlSafe(sql::END_JOB.to_owned() + &by.condition(7)))
        .bind(job.id.to_string())
        .bind(job.state.name())
        .bind(job.finished_at.map(Timestamp::as_microsecond))
        .bind(job.expires_at.map(Timestamp::as_microsecond))
        .bind(details_text(job)?)
        .bind(i64::from(frees_key));
    Ok(by.bind(query).execute(&mut **transaction).await?.rows_affected() > 0)
}

/// The rows of a query that can be read, and what is wrong with one of the others.
struct Readable {
    rows: Vec<AnyRow>,
    damage: Option<StoreError>,
}

/// A value for a statement.
enum Value {
    Text(String),
    Number(i64),
}

/// The tenant that a scope binds.
fn tenant_of(scope: &Scope) -> Option<String> {
    match scope {
        Scope::Tenant(tenant) => Some(tenant.to_string()),
        Scope::All => None,
    }
}

/// Texts, and behind them the tenant that a scope binds.
fn with_tenant<const N: usize>(texts: [String; N], scope: &Scope) -> Vec<Value> {
    texts.into_iter().chain(tenant_of(scope)).map(Value::Text).collect()
}

/// The rows of a query, at most `limit`. One that is damaged ends a query early: then they are read one by one.
async fn readable(
    connection: &mut AnyConnection,
    query: &str,
    values: &[Value],
    limit: usize,
) -> Result<Readable, StoreError> {
    let limited = async |connection: &mut AnyConnection, limit: usize, offset: usize| {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut query = sqlx::query(AssertSqlSafe(format!("{query} LIMIT {limit} OFFSET {offset}")));
        for value in values {
            query = match value {
                Value::Text(text) => query.bind(text.clone()),
                Value::Number(number) => query.bind(*number),
            };
        }
        query.fetch_all(connection).await.map_err(StoreError::from)
    };
    match limited(&mut *connection, limit, 0).await {
        Ok(rows) => return Ok(Readable { rows, damage: None }),
        Err(StoreError::Damaged(_)) => {}
        Err(error) => return Err(error),
    }
    let mut readable = Readable { rows: Vec::new(), damage: None };
    for offset in 0..limit {
        match limited(&mut *connection, 1, offset).await {
            Ok(rows) if rows.is_empty() => break,
            Ok(rows) => readable.rows.extend(rows),
            Err(error @ StoreError::Damaged(_)) => {
                warn_of_damage(&error);
                readable.damage = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(readable)
}

fn details_text(job: &Job) -> Result<String, StoreError> {
    serde_json::to_string(&job.details).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn job_of_row(row: &AnyRow) -> Result<Job, StoreError> {
    let damaged = |what: &dyn std::fmt::Display| StoreError::Damaged(what.to_string());
    let time = |microseconds: i64| Timestamp::from_microsecond(microseconds).map_err(|error| damaged(&error));
    let id: String = row.try_get("id")?;
    let state: String = row.try_get("state")?;
    let details: String = row.try_get("details")?;
    let details: Details = serde_json::from_str(&details).map_err(|error| damaged(&format!("job {id}: {error}")))?;
    Ok(Job {
        id: parse_id(&id)?,
        tenant: row.try_get("tenant")?,
        name: row.try_get("name")?,
        state: state.parse().map_err(|error| damaged(&format!("job {id}: state {state:?}: {error}")))?,
        closes_itself: row.try_get::<i64, _>("closes_itself")? != 0,
        created_at: time(row.try_get("created_at")?)?,
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(time).transpose()?,
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(time).transpose()?,
        details,
    })
}

/// What can be read of a job whose details are damaged.
fn undamaged_part(row: &AnyRow) -> Option<Job> {
    Some(Job {
        id: row.try_get::<String, _>("id").ok()?.parse().ok()?,
        tenant: row.try_get("tenant").ok()?,
        name: row.try_get("name").ok()?,
        state: row.try_get::<String, _>("state").ok()?.parse().ok()?,
        closes_itself: true,
        created_at: Timestamp::from_microsecond(row.try_get("created_at").ok()?).ok()?,
        finished_at: None,
        expires_at: None,
        details: Details::default(),
    })
}

fn warn_of_damage(error: &StoreError) {
    tracing::warn!(%error, "passed over");
}

fn parse_id(text: &str) -> Result<JobId, StoreError> {
    let id: JobId = text.parse().map_err(|error| StoreError::Damaged(format!("job id {text:?}: {error}")))?;
    // In another spelling it would be sorted elsewhere.
    if id.to_string() == text { Ok(id) } else { Err(StoreError::Damaged(format!("job id {text:?}: expected {id}"))) }
}
