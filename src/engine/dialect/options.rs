//! The options of a dialect as a caller gives them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::formats::Format;
use super::values::{
    ColumnNames, ConversionDigits, CurrencySigns, DataEnd, DecimalMark, HeaderPlace, InvalidValue, SpendUnit,
    Thousands, TotalsRule, ZeroIfEmpty,
};

/// The longest value that a caller may give. What is stored may be longer: it is written in another way.
const MAX_VALUE_BYTES: usize = 4096;

/// What was said about how an input is written. What was not said is as the format has it, or else as in the plain contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DialectOptions {
    /// The preset that the others change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The names of columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<ColumnNames>,
    /// Where the header is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderPlace>,
    /// The decimal mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decimal: Option<DecimalMark>,
    /// The mark between groups of whole digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thousands: Option<Thousands>,
    /// Whether conversions may have decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversions: Option<ConversionDigits>,
    /// What becomes of currency signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<CurrencySigns>,
    /// What a spend counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spend_unit: Option<SpendUnit>,
    /// The fields in which an empty cell is zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_if_empty: Option<ZeroIfEmpty>,
    /// Which rows are sums of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub totals: Option<TotalsRule>,
    /// Where the data ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<DataEnd>,
    /// Campaign ids may stand in brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_brackets: Option<bool>,
}

impl DialectOptions {
    /// The names of the options.
    pub const NAMES: [&str; 12] = [
        "format",
        "columns",
        "header",
        "decimal",
        "thousands",
        "conversions",
        "currency",
        "spend_unit",
        "zero_if_empty",
        "totals",
        "end",
        "id_brackets",
    ];

    /// Sets an option by its name. Gives false when there is none of this name.
    ///
    /// # Errors
    /// When the value is none of this option.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, InvalidValue> {
        if value.len() > MAX_VALUE_BYTES && Self::NAMES.contains(&name) {
            return Err(InvalidValue::new("…", format!("expected at most {MAX_VALUE_BYTES} bytes")));
        }
        match name {
            "format" => self.format = Some(value.parse()?),
            "columns" => self.columns = Some(value.parse()?),
            "header" => self.header = Some(value.parse()?),
            "decimal" => self.decimal = Some(value.parse()?),
            "thousands" => self.thousands = Some(value.parse()?),
            "conversions" => self.conversions = Some(value.parse()?),
            "currency" => self.currency = Some(value.parse()?),
            "spend_unit" => self.spend_unit = Some(value.parse()?),
            "zero_if_empty" => self.zero_if_empty = Some(value.parse()?),
            "totals" => self.totals = Some(value.parse()?),
            "end" => self.end = Some(value.parse()?),
            "id_brackets" => {
                let is_on = value.parse();
                self.id_brackets = Some(is_on.map_err(|_| InvalidValue::new(value, "expected true or false"))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// True when nothing was said.
    #[must_use]
    pub fn are_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Options that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DialectConflict {
    /// The option finds columns by the header.
    #[error("has_header=false: {option} needs a header")]
    NeedsHeader {
        /// The option that does.
        option: &'static str,
    },
    /// One mark cannot mean both.
    #[error(
        "thousands: the mark is the decimal mark: expected two different ones (without thousands, it is that of the format)"
    )]
    SameMarks,
}

impl DialectConflict {
    /// The option that the caller must change.
    #[must_use]
    pub fn option(&self) -> &'static str {
        match self {
            Self::NeedsHeader { .. } => "has_header",
            Self::SameMarks => "thousands",
        }
    }
}
