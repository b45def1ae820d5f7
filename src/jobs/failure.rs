//! Why a job or a file failed, in the words of its sender.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::engine::{Fatal, SkipReason, SkippedRow};
use crate::ingest::{ContentError, WorkerPanicked};

/// Why a job ended without results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{detail}")]
pub struct Failure {
    /// What kind of reason it is.
    pub kind: FailureKind,
    /// The reason, with what was expected.
    pub detail: String,
    /// The limit that was passed, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// The rows that were skipped, when there were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Box<SkippedRows>>,
}

/// Rows that were skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedRows {
    /// How many for which reason.
    pub reasons: BTreeMap<SkipReason, u64>,
    /// The first of them.
    pub first: Vec<SkippedRow>,
}

/// A limit in force, as a reader of the configuration knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Its name, with its unit.
    pub name: Cow<'static, str>,
    /// Its value.
    pub value: u64,
}

impl Failure {
    /// Adds the limit that was passed.
    #[must_use]
    pub fn with_limit(mut self, name: &'static str, value: u64) -> Self {
        self.limit = Some(Limit { name: name.into(), value });
        self
    }
}

/// The kinds of reasons for which a job ends without results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There is no record at all.
    EmptyInput,
    /// The header lacks required names.
    MissingColumns,
    /// The header has required names more than once.
    DuplicateColumns,
    /// There is a header with several delimiters.
    AmbiguousDelimiter,
    /// The first spend does not show the decimal mark.
    UndecidedDecimalMark,
    /// A spend has the other decimal mark.
    MixedDecimalMarks,
    /// Rows are in several currencies.
    MixedCurrencies,
    /// The file repeats the numbers of its campaigns in other rows.
    UnsupportedReport,
    /// The file is of another kind than CSV.
    NotCsv,
    /// More rows were skipped than its sender allows.
    TooManySkipped,
    /// More campaigns than allowed.
    TooManyCampaigns,
    /// It takes more memory than all uploads together may take.
    MemoryBudgetExceeded,
    /// Sums beyond what the reports can compute with.
    TotalsOverflow,
    /// Compressed data that is cut off or damaged.
    DamagedCompression,
    /// More text came out of decompression than allowed.
    TextTooLarge,
    /// Hardly any data made very much text.
    DecompressionRatio,
    /// More bytes than allowed.
    UploadTooLarge,
    /// The sender vanished before the end.
    UploadIncomplete,
    /// The sender fell silent.
    SenderStalled,
    /// The sender sent less in a time than it must.
    SenderTooSlow,
    /// Not as many bytes as announced.
    LengthMismatch,
    /// Other contents than the digest says.
    DigestMismatch,
    /// Other bytes in a part of a file than its checksum says.
    ChecksumMismatch,
    /// A digest that cannot be understood, and came too late to refuse the upload.
    InvalidDigest,
    /// A form that cannot be taken apart.
    MalformedForm,
    /// A form without a file.
    FormWithoutFile,
    /// A form with more parts than allowed.
    FormTooLarge,
    /// A file's name that cannot be one.
    InvalidName,
    /// An option in a form that cannot have its value.
    InvalidOption,
    /// The job was cancelled on request.
    UploadCancelled,
    /// The file was deleted while it was being received.
    FileDeleted,
    /// The token that it was sent with is no longer valid.
    TokenRevoked,
    /// The server was stopped, or fell, before the upload was complete.
    ServerStopped,
    /// What was stored of the file cannot be read.
    CheckpointLost,
    /// The file cannot be cut there: what came cannot be stored as a whole.
    NotDivisible,
    /// All memory for uploads is taken.
    MemoryBudget,
    /// There is no room for the results.
    StorageFull,
    /// The store does not answer.
    StoreUnavailable,
    /// A defect in this program.
    Internal,
}

impl FailureKind {
    /// True when the same upload may well succeed another time: the key it was sent with is free again.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::UploadIncomplete
                | Self::SenderStalled
                | Self::SenderTooSlow
                | Self::LengthMismatch
                | Self::DigestMismatch
                | Self::ChecksumMismatch
                | Self::UploadCancelled
                | Self::FileDeleted
                | Self::TokenRevoked
                | Self::ServerStopped
                | Self::MemoryBudget
                | Self::StorageFull
                | Self::StoreUnavailable
                | Self::Internal
        )
    }

    /// True when a sender may go on where the file stands.
    #[must_use]
    pub fn is_interruption(self) -> bool {
        matches!(
            self,
            Self::UploadIncomplete
                | Self::SenderStalled
                | Self::TokenRevoked
                | Self::SenderTooSlow
                | Self::ServerStopped
                | Self::MemoryBudget
                | Self::LengthMismatch
                | Self::NotDivisible
        )
    }

    /// True when the store did not take what was to be stored.
    #[must_use]
    pub fn is_about_store(self) -> bool {
        matches!(self, Self::StorageFull | Self::StoreUnavailable)
    }

    /// True when what came is not what its sender has said it is.
    #[must_use]
    pub fn is_about_digest(self) -> bool {
        matches!(self, Self::DigestMismatch | Self::ChecksumMismatch | Self::InvalidDigest)
    }

    /// True when the contents of a file are the reason: the same file will fail again.
    #[must_use]
    pub fn is_about_contents(self) -> bool {
        matches!(
            self,
            Self::EmptyInput
                | Self::MissingColumns
                | Self::DuplicateColumns
                | Self::AmbiguousDelimiter
                | Self::UndecidedDecimalMark
                | Self::MixedDecimalMarks
                | Self::MixedCurrencies
                | Self::UnsupportedReport
                | Self::NotCsv
                | Self::TooManySkipped
                | Self::TooManyCampaigns
                | Self::MemoryBudgetExceeded
                | Self::TotalsOverflow
                | Self::DamagedCompression
                | Self::TextTooLarge
                | Self::DecompressionRatio
        )
    }

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EmptyInput => "empty_input",
            Self::MissingColumns => "missing_columns",
            Self::DuplicateColumns => "duplicate_columns",
            Self::AmbiguousDelimiter => "ambiguous_delimiter",
            Self::UndecidedDecimalMark => "undecided_decimal_mark",
            Self::MixedDecimalMarks => "mixed_decimal_marks",
            Self::MixedCurrencies => "mixed_currencies",
            Self::UnsupportedReport => "unsupported_report",
            Self::NotCsv => "not_csv",
            Self::TooManySkipped => "too_many_skipped",
            Self::TooManyCampaigns => "too_many_campaigns",
            Self::MemoryBudgetExceeded => "memory_budget_exceeded",
            Self::MemoryBudget => "memory_budget",
            Self::TotalsOverflow => "totals_overflow",
            Self::DamagedCompression => "damaged_compression",
            Self::TextTooLarge => "text_too_large",
            Self::DecompressionRatio => "decompression_ratio",
            Self::UploadTooLarge => "upload_too_large",
            Self::UploadIncomplete => "upload_incomplete",
            Self::SenderStalled => "sender_stalled",
            Self::SenderTooSlow => "sender_too_slow",
            Self::LengthMismatch => "length_mismatch",
            Self::DigestMismatch => "digest_mismatch",
            Self::ChecksumMismatch => "checksum_mismatch",
            Self::InvalidDigest => "invalid_digest",
            Self::MalformedForm => "malformed_form",
            Self::FormWithoutFile => "form_without_file",
            Self::FormTooLarge => "form_too_large",
            Self::InvalidName => "invalid_name",
            Self::InvalidOption => "invalid_option",
            Self::UploadCancelled => "upload_cancelled",
            Self::FileDeleted => "file_deleted",
            Self::TokenRevoked => "token_revoked",
            Self::ServerStopped => "server_stopped",
            Self::CheckpointLost => "checkpoint_lost",
            Self::NotDivisible => "not_divisible",
            Self::StorageFull => "storage_full",
            Self::StoreUnavailable => "store_unavailable",
            Self::Internal => "internal",
        }
    }

    /// This reason, in these words.
    pub fn because(self, detail: impl Into<String>) -> Failure {
        Failure { kind: self, detail: detail.into(), limit: None, skipped: None }
    }
}

impl From<ContentError> for Failure {
    fn from(error: ContentError) -> Self {
        let kind = match &error {
            ContentError::Fatal(Fatal::EmptyInput) => FailureKind::EmptyInput,
            ContentError::Fatal(
                Fatal::MissingColumns { .. } | Fatal::HeaderNotFound { .. } | Fatal::EndlessHeader { .. },
            ) => FailureKind::MissingColumns,
            ContentError::Fatal(Fatal::DuplicateColumns { .. } | Fatal::DuplicateNames { .. }) => {
                FailureKind::DuplicateColumns
            }
            ContentError::Fatal(Fatal::AmbiguousDelimiter { .. }) => FailureKind::AmbiguousDelimiter,
            ContentError::Fatal(Fatal::UndecidedDecimalMark { .. }) => FailureKind::UndecidedDecimalMark,
            ContentError::Fatal(Fatal::MixedDecimalMarks { .. }) => FailureKind::MixedDecimalMarks,
            ContentError::Fatal(Fatal::MixedCurrencies { .. }) => FailureKind::MixedCurrencies,
            ContentError::Fatal(Fatal::UnsupportedReport { .. }) => FailureKind::UnsupportedReport,
            ContentError::Fatal(Fatal::NotCsv { .. }) => FailureKind::NotCsv,
            ContentError::Fatal(Fatal::TooManySkipped { .. }) => FailureKind::TooManySkipped,
            ContentError::Fatal(Fatal::TooManyCampaigns { .. }) => FailureKind::TooManyCampaigns,
            ContentError::Fatal(Fatal::TotalsOverflow) => FailureKind::TotalsOverflow,
            ContentError::Decompress(_) => FailureKind::DamagedCompression,
            ContentError::TextTooLarge { .. } => FailureKind::TextTooLarge,
            ContentError::RatioTooHigh { .. } => FailureKind::DecompressionRatio,
        };
        let failure = kind.because(error.to_string());
        match error {
            ContentError::Fatal(Fatal::TooManySkipped { reasons, first, .. }) => {
                let skipped = Some(Box::new(SkippedRows { reasons: reasons.into_iter().collect(), first }));
                Failure { skipped, ..failure }
            }
            ContentError::Fatal(Fatal::TooManyCampaigns { max_campaigns }) => {
                failure.with_limit("max_campaigns", max_campaigns as u64)
            }
            ContentError::TextTooLarge { max_text_bytes } => failure.with_limit("max_text_bytes", max_text_bytes),
            ContentError::RatioTooHigh { max_decompression_ratio } => {
                failure.with_limit("max_decompression_ratio", max_decompression_ratio)
            }
            _ => failure,
        }
    }
}

impl From<WorkerPanicked> for Failure {
    fn from(error: WorkerPanicked) -> Self {
        FailureKind::Internal.because(error.to_string())
    }
}
