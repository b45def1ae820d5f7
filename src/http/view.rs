//! Jobs as they are shown.

use std::collections::BTreeMap;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::caller::Caller;
use super::problem::Document;
use crate::engine::report::Stats;
use crate::jobs::{FileState, Job, JobFile, JobId, JobOptions, Leader, Progress, State};

#[derive(Serialize)]
pub(super) struct JobView<'a> {
    id: JobId,
    name: &'a str,
    /// For administrators: the others know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    state: State,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    options: &'a JobOptions,
    progress: &'a Progress,
    files: Vec<FileView<'a>>,
    stats: Option<&'a Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_ctr: Option<&'a [Leader]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_cpa: Option<&'a [Leader]>,
    error: Option<Document<'a>>,
    links: Links<'a>,
}

#[derive(Serialize)]
struct Links<'a> {
    #[serde(rename = "self")]
    job: String,
    events: String,
    /// The file that waits for its sender.
    resume: Option<String>,
    results: BTreeMap<&'a str, String>,
}

impl<'a> JobView<'a> {
    /// Everything that this caller is shown.
    pub(super) fn new(job: &'a Job, caller: &Caller) -> Self {
        let details = &job.details;
        let path = path(job.id);
        let results = details.results.iter().map(|name| (name.as_str(), format!("{path}/results/{name}"))).collect();
        Self {
            id: job.id,
            name: &job.name,
            tenant: caller.is_administrator().then_some(&job.tenant),
            state: job.state,
            created_at: job.created_at,
            finished_at: job.finished_at,
            expires_at: job.expires_at,
            options: &details.options,
            progress: &details.progress,
            files: details.files.iter().map(|file| FileView::new(file, job.id)).collect(),
            stats: details.stats.as_ref(),
            top_ctr: Some(&details.top_ctr),
            top_cpa: Some(&details.top_cpa),
            error: details.error.as_ref().map(Document::from),
            links: Links { events: format!("{path}/events"), resume: resume_path(job), results, job: path },
        }
    }

    /// Everything but the lists.
    pub(super) fn summary(job: &'a Job, caller: &Caller) -> Self {
        Self { top_ctr: None, top_cpa: None, ..Self::new(job, caller) }
    }
}

/// A file as it is shown.
#[derive(Serialize)]
pub(super) struct FileView<'a> {
    name: &'a str,
    state: &'static str,
    offset: u64,
    length: Option<u64>,
    rows_read: u64,
    rows_skipped: u64,
    crc64nvme: Option<&'a str>,
    error: Option<Document<'a>>,
    links: FileLinks,
}

#[derive(Serialize)]
struct FileLinks {
    #[serde(rename = "self")]
    file: String,
}

impl<'a> FileView<'a> {
    pub(super) fn new(file: &'a JobFile, job: JobId) -> Self {
        Self {
            name: &file.name,
            state: if file.is_interrupted() { "interrupted" } else { file.state.name() },
            offset: file.offset,
            length: file.length,
            rows_read: file.rows_read,
            rows_skipped: file.rows_skipped,
            crc64nvme: file.crc64nvme.as_deref(),
            error: file.error.as_ref().map(Document::from),
            links: FileLinks { file: file_path(job, &file.name) },
        }
    }
}

/// The first file that waits for its sender.
fn resume_path(job: &Job) -> Option<String> {
    let is_created = job.closes_itself && job.state == State::Open;
    if job.state != State::Interrupted && !is_created {
        return None;
    }
    let waits = |file: &&JobFile| file.state == FileState::Waiting && (job.closes_itself || file.is_interrupted());
    job.details.files.iter().find(waits).map(|file| file_path(job.id, &file.name))
}

/// What of a path segment has to be escaped (RFC 3986, 3.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a file of a job is found.
pub(super) fn file_path(job: JobId, name: &str) -> String {
    format!("{}/files/{}", path(job), utf8_percent_encode(name, SEGMENT))
}

/// Where a file of a job is found by tus.
pub(super) fn tus_path(job: JobId, name: &str) -> String {
    format!("/v1/tus/{job}/{}", utf8_percent_encode(name, SEGMENT))
}

/// Where a job is found.
pub(super) fn path(id: JobId) -> String {
    format!("/v1/jobs/{id}")
}

/// A list of jobs.
#[derive(Serialize)]
pub(super) struct JobList<'a> {
    pub(super) jobs: Vec<JobView<'a>>,
    pub(super) next_cursor: Option<JobId>,
}
