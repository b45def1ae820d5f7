//! Bytes in, totals and reports out: synchronous and pure.
//!
//! A [`Tally`] reads one file's text, pushed in pieces of any size, and ends as an [`Aggregate`]: exact totals, counters and
//! the first rejects. Aggregates merge, and give the reports of [`report`].

mod aggregate;
mod budget;
mod dialect;
mod envelope;
mod error;
mod judge;
mod key;
mod lookup;
mod memory;
mod number;
mod pieces;
mod rank;
mod reading;
mod record;
mod reject_log;
pub mod report;
mod row;
mod saved;
mod scan;
mod shares;
mod short_number;
mod spreadsheet;
mod sums;
mod tally;
mod totals;

pub use aggregate::{Aggregate, Counters, MAX_REJECTS, Reject};
pub use budget::{KeptRejects, SkipBudget};
pub use dialect::{
    ColumnNames, ConversionDigits, CurrencySigns, DEFAULT_COLUMNS, DataEnd, DecimalMark, Delimiter, DelimiterChoice,
    Dialect, DialectConflict, DialectOptions, Field, Format, FormatDefinition, HeaderHint, HeaderPlace,
    InvalidDelimiter, InvalidValue, REQUIRED_COLUMNS, SpendUnit, Thousands, TotalsRule, ZeroIfEmpty,
};
pub use envelope::RestoreError;
pub(crate) use envelope::{Envelope, read_whole};
pub use error::{Fatal, SkippedRow};
pub use number::{Conversions, MAX_COUNT, Money};
pub use pieces::AggregateReader;
pub use rank::{CombinedLeaders, Metric, combined_leaders};
pub use reading::{KeyedBy, Reading, TotalsCheck};
pub use reject_log::{DEFAULT_MAX_REJECTS_BYTES, REJECT_ROW_BYTES, SHOWN_RECORD_BYTES};
pub use row::{MAX_CAMPAIGN_ID_BYTES, SkipReason};
pub use scan::Kernel;
pub use shares::Parcel;
pub use spreadsheet::SpreadsheetTable;
pub use tally::{Limits, Tally, TallyOptions};
pub use totals::CampaignTotals;
