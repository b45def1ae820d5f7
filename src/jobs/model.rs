//! What a job is, and which states follow which.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::failure::Failure;
use super::options::JobOptions;
use crate::engine::report::Stats;
use crate::engine::{CampaignTotals, Conversions};
use crate::ingest::{Coding, FileProgress};

/// An id: a `UUIDv7` (RFC 9562), so that later ones are greater.
macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// An id greater than all this process has made.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// The id of a job.
    JobId
);

impl JobId {
    /// True for a `UUIDv7`: other UUIDs were made by others.
    pub(super) fn is_made_here(self) -> bool {
        self.0.get_version() == Some(uuid::Version::SortRand)
    }
}

id!(
    /// The id of a file of a job.
    FileId
);

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Made, waiting for files.
    Open,
    /// Bytes are coming in.
    Receiving,
    /// A sender vanished; it may come back.
    Interrupted,
    /// Done, with results.
    Succeeded,
    /// Ended without results; `error` says why.
    Failed,
    /// Ended on request, without results.
    Cancelled,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Open, Self::Receiving, Self::Interrupted, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The name in documents and in the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Receiving => "receiving",
            Self::Interrupted => "interrupted",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// True for a state that a job stays in.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A word that names no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of open, receiving, interrupted, succeeded, failed, cancelled")]
pub struct UnknownState;

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or(UnknownState)
    }
}

/// How far a job has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Bytes of the files as they were sent.
    pub bytes_received: u64,
    /// Bytes to come in all, when the sender told.
    pub bytes_expected: Option<u64>,
    /// Data records so far.
    pub rows_read: u64,
    /// Those that did not count.
    pub rows_skipped: u64,
    /// Campaigns with at least one row that counted.
    pub unique_campaigns: u64,
    /// On average since the job began.
    pub bytes_per_second: u64,
    /// Until all bytes will be there, at this rate.
    pub eta_seconds: Option<u64>,
}

/// Where a file of a job stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// It has no writer.
    Waiting,
    /// Bytes are coming in.
    #[default]
    Receiving,
    /// All of it has been read, and counts when the job succeeds.
    Complete,
    /// It adds nothing to the job.
    Failed,
}

impl FileState {
    /// The name in documents and in the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Receiving => "receiving",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for FileState {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let all = [Self::Waiting, Self::Receiving, Self::Complete, Self::Failed];
        all.into_iter().find(|state| state.name() == name).ok_or(UnknownState)
    }
}

/// A file of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobFile {
    /// The name its sender gave it.
    pub name: String,
    /// Where it stands.
    pub state: FileState,
    /// Bytes received, as they were sent.
    pub offset: u64,
    /// Those of them that are stored for good: where the file goes on when its sender vanishes.
    pub durable_offset: u64,
    /// How it is read: fixed by its first writer.
    pub format: FileFormat,
    /// SHA-256 of its bytes as they are sent, in hexadecimal digits, when its sender has told it.
    pub sha256: Option<String>,
    /// Bytes in all, when known.
    pub length: Option<u64>,
    /// Data records so far.
    pub rows_read: u64,
    /// Those that did not count.
    pub rows_skipped: u64,
    /// CRC-64/NVME of its bytes as they were sent, in 16 hexadecimal digits, once all have come.
    pub crc64nvme: Option<String>,
    /// Why it failed, or why its last writer did not complete it.
    pub error: Option<Failure>,
    /// What its sender said about it when it was created, as it was written: it is told so again.
    pub metadata: Option<String>,
    /// Memory of what its state becomes when it goes on; 0 when that is not known.
    pub memory_bytes: u64,
}

/// How the bytes of a file are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileFormat {
    /// Its own header and encoding may be others than those of its job.
    pub options: JobOptions,
    /// How it is compressed; `None`: its beginning tells.
    pub coding: Option<Coding>,
    /// The digest of its bytes as they are sent is computed.
    pub with_digest: bool,
}

impl FileFormat {
    /// True when both formats give the same totals for the same bytes. A digest does not change totals.
    #[must_use]
    pub fn reads_like(&self, other: &Self) -> bool {
        (&self.options, self.coding) == (&other.options, other.coding)
    }
}

impl JobFile {
    /// A file whose first byte is still to come.
    #[must_use]
    pub fn begin(name: impl Into<String>, format: FileFormat, length: Option<u64>) -> Self {
        Self { name: name.into(), length, format, ..Self::default() }
    }

    /// True when something has been received, and its sender may go on.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.state == FileState::Waiting && self.durable_offset > 0
    }

    /// Shows how far it has been read.
    pub(super) fn show(&mut self, progress: FileProgress) {
        self.offset = progress.bytes_received;
        self.rows_read = progress.rows_read;
        self.rows_skipped = progress.rows_skipped;
    }
}

mod as_number {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use serde_json::value::RawValue;

    use crate::engine::Conversions;

    pub(super) fn serialize<S: Serializer>(conversions: &Conversions, serializer: S) -> Result<S::Ok, S::Error> {
        match conversions.units() {
            0 => serializer.serialize_u128(conversions.whole()),
            // As a number it would be rounded by many readers.
            _ => serializer.collect_str(conversions),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Conversions, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        text.get().trim_matches('"').parse().map_err(D::Error::custom)
    }
}

/// A campaign of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The campaign.
    pub campaign_id: String,
    /// Sum of its impressions.
    pub total_impressions: u128,
    /// Sum of its clicks.
    pub total_clicks: u128,
    /// Sum of its spends, with 2 decimals.
    pub total_spend: String,
    /// Sum of its conversions: a number in JSON, or, with decimals, a text.
    #[serde(with = "as_number")]
    pub total_conversions: Conversions,
    /// Clicks per impression, with 4 decimals.
    pub ctr: String,
    /// Spend per conversion, with 2 decimals; none without conversions.
    pub cpa: Option<String>,
}

impl From<&CampaignTotals<'_>> for Leader {
    fn from(totals: &CampaignTotals<'_>) -> Self {
        Self {
            campaign_id: totals.id_text().into(),
            total_impressions: totals.impressions,
            total_clicks: totals.clicks,
            total_spend: totals.spend.to_string(),
            total_conversions: totals.conversions,
            ctr: totals.ctr().to_string(),
            cpa: (!totals.conversions.are_none()).then(|| totals.cpa().to_string()),
        }
    }
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its name for good.
    pub id: JobId,
    /// Whose it is; empty without tenants.
    pub tenant: String,
    /// A label; not unique.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// It finishes with the request that brings its files. An open job waits until it is completed.
    pub closes_itself: bool,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it will be removed; unknown while it is being received.
    pub expires_at: Option<Timestamp>,
    /// All else.
    pub details: Details,
}

/// The parts of a job that are not searched for. Fields that a stored record lacks, because an earlier version wrote it, have
/// their defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// How its files are read and reported.
    pub options: JobOptions,
    /// The options of the request that made it, when fields of its form have changed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_options: Option<JobOptions>,
    /// How far it has come.
    pub progress: Progress,
    /// Its files, in the order in which they came.
    pub files: Vec<JobFile>,
    /// The final statistics, once it succeeded.
    pub stats: Option<Stats>,
    /// The campaigns with the highest CTR so far.
    pub top_ctr: Arc<[Leader]>,
    /// Those with the lowest CPA so far.
    pub top_cpa: Arc<[Leader]>,
    /// Why it ended without results.
    pub error: Option<Failure>,
    /// The names of its results, once it succeeded.
    pub results: Vec<String>,
    /// A form makes it.
    pub is_form: bool,
    /// SHA-256 of its one file as it is sent, in hexadecimal digits: as the sender told it, or as it was computed on demand.
    pub sha256: Option<String>,
}

impl Job {
    /// A job that begins now.
    pub(super) fn begin(id: JobId, name: String, state: State, options: JobOptions) -> Self {
        let details = Details { options, ..Details::default() };
        let closes_itself = state != State::Open;
        let tenant = String::new();
        Self { id, tenant, name, state, closes_itself, created_at: now(), finished_at: None, expires_at: None, details }
    }

    /// The latest file of this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&JobFile> {
        self.details.files.iter().rev().find(|file| file.name == name)
    }

    /// Derives the state of an open job from those of its files. It expires only while none is being received.
    pub(super) fn settle(&mut self, keep: jiff::SignedDuration) {
        // Between the files of a form, too.
        let is_receiving = (self.closes_itself && self.details.is_form)
            || self.details.files.iter().any(|file| file.state == FileState::Receiving);
        let is_interrupted = self.closes_itself || self.details.files.iter().any(JobFile::is_interrupted);
        self.state = match (is_receiving, is_interrupted) {
            (true, _) => State::Receiving,
            (false, true) => State::Interrupted,
            (false, false) => State::Open,
        };
        self.expires_at = if is_receiving { None } else { now().checked_add(keep).ok() };
        self.add_up();
    }

    /// Shows a file of an open job: complete ones in the order of completion, then the others.
    pub(super) fn put_file(&mut self, file: JobFile) {
        let files = &mut self.details.files;
        files.retain(|known| known.name != file.name);
        let complete = files.iter().take_while(|known| known.state == FileState::Complete).count();
        let place = if file.state == FileState::Complete { complete } else { files.len() };
        files.insert(place, file);
    }

    /// True when its time is over, whether it has been removed already or not.
    pub(super) fn has_expired(&self) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now())
    }

    /// Makes the progress of a job the sum of its files.
    pub(super) fn add_up(&mut self) {
        let Details { files, progress, .. } = &mut self.details;
        progress.bytes_received = files.iter().map(|file| file.offset).sum();
        progress.rows_read = files.iter().map(|file| file.rows_read).sum();
        progress.rows_skipped = files.iter().map(|file| file.rows_skipped).sum();
        if !self.closes_itself {
            let lengths = files.iter().filter(|file| file.state != FileState::Failed).map(|file| file.length);
            progress.bytes_expected = lengths.sum();
        }
    }

    /// Moves to a final state. Its files add nothing unless it succeeded.
    pub(super) fn end(&mut self, state: State, error: Option<Failure>, keep: jiff::SignedDuration) {
        debug_assert!(state.is_final() && !self.state.is_final(), "{:?} to {state:?}", self.state);
        let finished_at = now();
        self.state = state;
        self.finished_at = Some(finished_at);
        self.expires_at = finished_at.checked_add(keep).ok();
        self.details.error = error;
        self.details.progress.eta_seconds = None;
        if state != State::Succeeded {
            for file in &mut self.details.files {
                file.state = FileState::Failed;
            }
            // What has not been counted has no leaders.
            self.details.top_ctr = Arc::default();
            self.details.top_cpa = Arc::default();
        }
    }
}

/// The time, as exact as the store keeps it.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    // A time within range stays within range when it loses digits.
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
