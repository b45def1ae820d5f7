//! What makes a whole input unusable.

use thiserror::Error;

use super::dialect::{Delimiter, HeaderError, HeaderHint, REQUIRED_COLUMNS};

/// An input from which nothing is produced. The message says what was expected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fatal {
    /// There is no record at all.
    #[error("the input is empty: expected a header line and rows")]
    EmptyInput,
    /// The header lacks required names.
    #[error("line {line}: the first row lacks the column{} {}{}", if .columns.len() == 1 { "" } else { "s" }, .columns.join(", "), hint_text(.hint))]
    MissingColumns {
        /// The physical line of the first row.
        line: u64,
        /// The names that are missing.
        columns: Vec<&'static str>,
        /// What the first row looks like instead.
        hint: HeaderHint,
    },
    /// The header has required names more than once.
    #[error("line {line}: the header names {} more than once: expected each column once", .columns.join(", "))]
    DuplicateColumns {
        /// The physical line of the header.
        line: u64,
        /// The names.
        columns: Vec<&'static str>,
    },
    /// More campaigns than allowed.
    #[error(
        "more than {max_campaigns} different campaign ids: is campaign_id the right column? The limit is max_campaigns"
    )]
    TooManyCampaigns {
        /// The limit in force.
        max_campaigns: usize,
    },
    /// Sums beyond what the reports can compute with.
    #[error("a campaign's totals are too large to be reported exactly (more than 1.7e26 spent, or 1.3e36 of a count)")]
    TotalsOverflow,
}

impl Fatal {
    /// The stable name of this error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyInput => "empty_input",
            Self::MissingColumns { .. } => "missing_columns",
            Self::DuplicateColumns { .. } => "duplicate_columns",
            Self::TooManyCampaigns { .. } => "too_many_campaigns",
            Self::TotalsOverflow => "totals_overflow",
        }
    }

    /// All required columns are missing, and this is why.
    pub(crate) fn no_header(line: u64, hint: HeaderHint) -> Self {
        Self::MissingColumns { line, columns: REQUIRED_COLUMNS.to_vec(), hint }
    }

    pub(crate) fn bad_header(line: u64, error: HeaderError) -> Self {
        match error {
            HeaderError::Missing { columns, hint } => Self::MissingColumns { line, columns, hint },
            HeaderError::Duplicate { columns } => Self::DuplicateColumns { line, columns },
        }
    }
}

fn hint_text(hint: &HeaderHint) -> String {
    match hint {
        HeaderHint::None => format!(": expected a header with {} in any order", REQUIRED_COLUMNS.join(", ")),
        HeaderHint::LooksLikeData => {
            "; it looks like data: if the file has no header, say so (has_header=false)".into()
        }
        HeaderHint::OtherDelimiter(delimiter) => {
            format!("; its fields seem to be separated by {}: set the delimiter", name_delimiter(*delimiter))
        }
        HeaderHint::NotText => "; it is not CSV text, or in another encoding than declared".into(),
        HeaderHint::TooLong { max_record_bytes } => {
            format!(
                "; it does not end within max_record_bytes ({max_record_bytes}): is this a CSV file with line ends?"
            )
        }
        HeaderHint::OpenQuote => "; it opens a quote that is never closed".into(),
    }
}

fn name_delimiter(delimiter: Delimiter) -> String {
    match delimiter.byte() {
        b'\t' => "tabs".into(),
        b' ' => "spaces".into(),
        byte => format!("{:?}", char::from(byte)),
    }
}
