//! What makes a whole input unusable.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::dialect::{Delimiter, Field, Format, HeaderError, HeaderHint, REQUIRED_COLUMNS, SearchError};
use super::row::SkipReason;

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
    /// No record near the start holds all the columns that the dialect asks for.
    #[error(
        "no header was found in the first {searched} record{}: line {line} comes closest and lacks {}{}",
        if *searched == 1 { "" } else { "s" }, missing_text(missing), formats_text(formats)
    )]
    HeaderNotFound {
        /// Records that were looked at.
        searched: usize,
        /// The physical line of the record that has most of the columns.
        line: u64,
        /// The fields that it lacks, and the names that would do.
        missing: Vec<(Field, Vec<String>)>,
        /// The formats that would find theirs.
        formats: Vec<Format>,
    },
    /// The first record does not end near the start.
    #[error(
        "line {line}: the first record does not end within 65,536 bytes: is a quote never closed, or are there no line ends?"
    )]
    EndlessHeader {
        /// The physical line on which it starts.
        line: u64,
    },
    /// The header has names more than once that fields are found by.
    #[error("line {line}: the header names columns that count more than once: {}; expected each once", .names.join(", "))]
    DuplicateNames {
        /// The physical line of the header.
        line: u64,
        /// The names as they are written there.
        names: Vec<String>,
    },
    /// There is a header with several delimiters.
    #[error("a header is found with {}: set the delimiter", .delimiters.iter().map(|one| name_delimiter(*one)).collect::<Vec<_>>().join(" and with "))]
    AmbiguousDelimiter {
        /// The delimiters.
        delimiters: Vec<Delimiter>,
    },
    /// The first spend does not show the decimal mark.
    #[error(
        "line {line}: the first spend, {spend:?}, does not show whether the decimal mark is . or , (expected one or two decimals): set it (decimal=. or decimal=,)"
    )]
    UndecidedDecimalMark {
        /// The physical line of the first data row.
        line: u64,
        /// Its spend.
        spend: String,
    },
    /// A spend has the other decimal mark.
    #[error(
        "line {line}: the spend {spend:?} has another decimal mark than the rows before it ({decimal:?}): expected one in all of the file"
    )]
    MixedDecimalMarks {
        /// The physical line of the row.
        line: u64,
        /// Its spend.
        spend: String,
        /// The mark of the rows before it.
        decimal: char,
    },
    /// Rows are in several currencies.
    #[error(
        "line {line}: the currency is {second:?}, and {first:?} in the rows before it: amounts in several currencies have no sum"
    )]
    MixedCurrencies {
        /// The physical line of the row.
        line: u64,
        /// The currency of the rows before it.
        first: String,
        /// Its currency.
        second: String,
    },
    /// The file repeats the numbers of its campaigns in other rows.
    #[error(
        "line {line}: the column {column:?} shows that this is no report of campaigns but a sheet that repeats their numbers in other rows: export a report of campaigns"
    )]
    UnsupportedReport {
        /// The physical line of the header.
        line: u64,
        /// The column that shows it.
        column: String,
    },
    /// The file is of another kind.
    #[error("this is {kind}: unpack it or save it as CSV, and send that")]
    NotCsv {
        /// What it is.
        kind: &'static str,
    },
    /// More rows were skipped than allowed.
    #[error("{}", skipped_text(max_skipped, *rows_skipped, *rows_read, reasons, first))]
    TooManySkipped {
        /// The limit in force, as it is written in options.
        max_skipped: String,
        /// Rows that were skipped.
        rows_skipped: u64,
        /// Data records among which they were.
        rows_read: u64,
        /// How many for which reason.
        reasons: Vec<(SkipReason, u64)>,
        /// The first of them.
        first: Vec<SkippedRow>,
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
            Self::MissingColumns { .. } | Self::HeaderNotFound { .. } | Self::EndlessHeader { .. } => "missing_columns",
            Self::DuplicateColumns { .. } | Self::DuplicateNames { .. } => "duplicate_columns",
            Self::AmbiguousDelimiter { .. } => "ambiguous_delimiter",
            Self::UndecidedDecimalMark { .. } => "undecided_decimal_mark",
            Self::MixedDecimalMarks { .. } => "mixed_decimal_marks",
            Self::MixedCurrencies { .. } => "mixed_currencies",
            Self::UnsupportedReport { .. } => "unsupported_report",
            Self::NotCsv { .. } => "not_csv",
            Self::TooManySkipped { .. } => "too_many_skipped",
            Self::TooManyCampaigns { .. } => "too_many_campaigns",
            Self::TotalsOverflow => "totals_overflow",
        }
    }

    /// Says which formats would read the input.
    pub(crate) fn with_formats(mut self, formats: Vec<Format>) -> Self {
        if let Self::MissingColumns { hint, .. } = &mut self
            && !formats.is_empty()
        {
            *hint = HeaderHint::Formats(formats);
        }
        self
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

impl From<SearchError> for Fatal {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Empty => Self::EmptyInput,
            SearchError::Endless { line } => Self::EndlessHeader { line },
            SearchError::NotFound { searched, line, missing } => {
                Self::HeaderNotFound { searched, line, missing, formats: Vec::new() }
            }
            SearchError::Duplicate { line, names } => Self::DuplicateNames { line, names },
            SearchError::Ambiguous { delimiters } => Self::AmbiguousDelimiter { delimiters },
            SearchError::Refused { line, column } => Self::UnsupportedReport { line, column },
        }
    }
}

fn missing_text(missing: &[(Field, Vec<String>)]) -> String {
    let fields: Vec<_> = missing
        .iter()
        .map(|(field, names)| {
            let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
            format!("{field} ({})", quoted.join(" or "))
        })
        .collect();
    format!(
        "{}: name the columns to be taken (columns={}:NAME)",
        fields.join(", "),
        missing.first().map_or("", |(field, _)| field.name())
    )
}

/// A row that was skipped, as it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedRow {
    /// The physical line on which the record starts, from 1.
    pub line: u64,
    /// The first reason that applies.
    pub reason: SkipReason,
    /// Its first bytes, as text.
    pub record: String,
}

fn skipped_text(
    max_skipped: &str,
    rows_skipped: u64,
    rows_read: u64,
    reasons: &[(SkipReason, u64)],
    first: &[SkippedRow],
) -> String {
    let reasons: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} for {reason}")).collect();
    let rows: Vec<_> =
        first.iter().take(3).map(|row| format!("line {} ({}): {:?}", row.line, row.reason, row.record)).collect();
    format!(
        "{rows_skipped} of {rows_read} rows were skipped, and at most {max_skipped} may be (max_skipped): {}. The first: {}",
        reasons.join(", "),
        rows.join("; ")
    )
}

/// What would read the file instead.
fn formats_text(formats: &[Format]) -> String {
    if formats.is_empty() {
        return String::new();
    }
    let titles: Vec<_> = formats.iter().map(|format| format.definition().title).collect();
    let options: Vec<_> = formats.iter().map(|format| format!("format={format}")).collect();
    format!("; this looks like a report of {}: try {}", titles.join(" or "), options.join(" or "))
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
        HeaderHint::Formats(formats) => formats_text(formats),
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
