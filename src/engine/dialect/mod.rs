//! How an input is written: which column is which, how its numbers look, and what in it is no data.
//!
//! Without a [`Dialect`] an input is read by the plain contract. A dialect is made of [`DialectOptions`], which a [`Format`],
//! the preset of an ad platform, may fill.

mod definition;
mod delimiter;
mod formats;
mod header;
mod notation;
mod options;
mod search;
mod values;

pub use definition::Dialect;
pub use delimiter::{Delimiter, DelimiterChoice, InvalidDelimiter};
pub(crate) use formats::CheckedTotal;
pub use formats::{Format, FormatDefinition};
pub(crate) use header::{Columns, HeaderError, trim};
pub use header::{DEFAULT_COLUMNS, HeaderHint, REQUIRED_COLUMNS};
pub(crate) use notation::{Notation, digits_at_end, shown_decimal_mark, strip_sign, trim_wide};
pub use options::{DialectConflict, DialectOptions};
pub(crate) use search::{
    HeaderSearch, Layout, MAX_SEARCHED_BYTES, SearchError, find_formats, first_record, is_campaign_name,
};
pub(in crate::engine) use values::saved_as_text;
pub use values::{
    ColumnNames, ConversionDigits, CurrencySigns, DataEnd, DecimalMark, Field, HeaderPlace, InvalidValue, SpendUnit,
    Thousands, TotalsRule, ZeroIfEmpty,
};
