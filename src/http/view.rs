//! Jobs as they are shown.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::problem::Document;
use crate::engine::report::Stats;
use crate::jobs::{Job, JobFile, JobId, JobOptions, Leader, Progress, State};

#[derive(Serialize)]
pub(super) struct JobView<'a> {
    id: JobId,
    name: &'a str,
    state: State,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    options: &'a JobOptions,
    progress: &'a Progress,
    files: &'a [JobFile],
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
    results: BTreeMap<&'a str, String>,
}

impl<'a> JobView<'a> {
    /// Everything.
    pub(super) fn new(job: &'a Job) -> Self {
        let details = &job.details;
        let path = path(job.id);
        let results = details.results.iter().map(|name| (name.as_str(), format!("{path}/results/{name}"))).collect();
        Self {
            id: job.id,
            name: &job.name,
            state: job.state,
            created_at: job.created_at,
            finished_at: job.finished_at,
            expires_at: job.expires_at,
            options: &details.options,
            progress: &details.progress,
            files: &details.files,
            stats: details.stats.as_ref(),
            top_ctr: Some(&details.top_ctr),
            top_cpa: Some(&details.top_cpa),
            error: details.error.as_ref().map(Document::from),
            links: Links { events: format!("{path}/events"), results, job: path },
        }
    }

    /// Everything but the lists.
    pub(super) fn summary(job: &'a Job) -> Self {
        Self { top_ctr: None, top_cpa: None, ..Self::new(job) }
    }
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
