//! The header of an input without a dialect: which column is which, and what a first row is that names none.

use serde::{Deserialize, Serialize};

use super::delimiter::Delimiter;
use super::formats::Format;

/// The columns of a file without a header, in this order.
pub const DEFAULT_COLUMNS: [&str; 6] = ["campaign_id", "date", "impressions", "clicks", "spend", "conversions"];

/// The columns a header must name; `date` may be absent.
pub const REQUIRED_COLUMNS: [&str; 5] = ["campaign_id", "impressions", "clicks", "spend", "conversions"];

/// Where the columns that count stand in a record. Every index is less than `count`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Columns {
    /// Fields in every record.
    pub(crate) count: usize,
    pub(crate) campaign_id: usize,
    pub(crate) impressions: usize,
    pub(crate) clicks: usize,
    pub(crate) spend: usize,
    pub(crate) conversions: usize,
}

impl Columns {
    /// `campaign_id,date,impressions,clicks,spend,conversions`.
    pub(crate) const DEFAULT: Self =
        Self { count: 6, campaign_id: 0, impressions: 2, clicks: 3, spend: 4, conversions: 5 };

    /// Reads the names of a header.
    pub(crate) fn from_header<'a>(
        names: impl Iterator<Item = &'a [u8]> + Clone,
        delimiter: Delimiter,
    ) -> Result<Self, HeaderError> {
        let find = |column: &str| {
            let mut places =
                names.clone().enumerate().filter(|(_, name)| trim(name).eq_ignore_ascii_case(column.as_bytes()));
            (places.next().map(|(place, _)| place), places.next().is_some())
        };
        let missing: Vec<_> = REQUIRED_COLUMNS.into_iter().filter(|column| find(column).0.is_none()).collect();
        if !missing.is_empty() {
            return Err(HeaderError::Missing { columns: missing, hint: HeaderHint::guess(names, delimiter) });
        }
        let twice: Vec<_> = REQUIRED_COLUMNS.into_iter().filter(|column| find(column).1).collect();
        if !twice.is_empty() {
            return Err(HeaderError::Duplicate { columns: twice });
        }
        // Present, as just checked; 0 stands for nothing.
        let place = |column| find(column).0.unwrap_or(0);
        Ok(Self {
            count: names.clone().count(),
            campaign_id: place("campaign_id"),
            impressions: place("impressions"),
            clicks: place("clicks"),
            spend: place("spend"),
            conversions: place("conversions"),
        })
    }

    /// True when every index lies within a record.
    pub(crate) fn is_consistent(&self) -> bool {
        [self.campaign_id, self.impressions, self.clicks, self.spend, self.conversions]
            .into_iter()
            .all(|place| place < self.count)
    }
}

/// A header that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Missing { columns: Vec<&'static str>, hint: HeaderHint },
    Duplicate { columns: Vec<&'static str> },
}

/// What a first row without the required names looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderHint {
    /// Nothing in particular.
    None,
    /// A data row: the header is missing.
    LooksLikeData,
    /// A header with another delimiter.
    OtherDelimiter(Delimiter),
    /// No text at all.
    NotText,
    /// The first line did not end within the record limit.
    TooLong {
        /// The limit in force.
        max_record_bytes: usize,
    },
    /// The first record opens a quote that nothing closes.
    OpenQuote,
    /// The header of these formats follows.
    Formats(Vec<Format>),
}

impl HeaderHint {
    fn guess<'a>(names: impl Iterator<Item = &'a [u8]> + Clone, delimiter: Delimiter) -> Self {
        let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        if names.clone().any(|name| name.iter().any(is_control) || std::str::from_utf8(name).is_err()) {
            return Self::NotText;
        }
        for other in [b',', b';', b'\t', b'|', b':', b' '] {
            let known =
                |name: &&[u8]| REQUIRED_COLUMNS.iter().any(|column| name.eq_ignore_ascii_case(column.as_bytes()));
            let is_header =
                names.clone().any(|name| name.split(|byte| *byte == other).map(trim).filter(known).count() > 1);
            if other != delimiter.byte() && is_header {
                return Self::OtherDelimiter(Delimiter::of(other));
            }
        }
        let numbers = names.filter(|name| crate::engine::number::parse_spend(trim(name)).is_some()).count();
        if numbers >= 2 { Self::LooksLikeData } else { Self::None }
    }
}

/// A field without the spaces and tabs around it.
pub(crate) fn trim(field: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| *byte != b' ' && *byte != b'\t';
    let start = field.iter().position(is_text).unwrap_or(field.len());
    let end = field.iter().rposition(is_text).map_or(start, |last| last + 1);
    &field[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Result<Columns, HeaderError> {
        Columns::from_header(text.as_bytes().split(|byte| *byte == b','), Delimiter::COMMA)
    }

    #[test]
    fn names_may_come_in_any_order_and_case_with_others_between() {
        let columns = header(" Spend ,note,CLICKS,campaign_id,conversions\t,impressions").unwrap();
        assert_eq!(columns, Columns { count: 6, campaign_id: 3, impressions: 5, clicks: 2, spend: 0, conversions: 4 });
    }

    #[test]
    fn a_bad_header_says_what_it_looks_like() {
        let hint = |text| match header(text) {
            Err(HeaderError::Missing { hint, .. }) => hint,
            other => panic!("{other:?}"),
        };
        assert_eq!(hint("A,2025-01-01,100,5,1.50,1"), HeaderHint::LooksLikeData);
        assert_eq!(
            hint("campaign_id;date;impressions;clicks;spend;conversions"),
            HeaderHint::OtherDelimiter(Delimiter::SEMICOLON)
        );
        assert_eq!(hint("\u{89}PNG\u{1a}"), HeaderHint::NotText);
        assert_eq!(hint("campaign,cost"), HeaderHint::None);
        assert_eq!(
            header("campaign_id,impressions,clicks,spend,conversions,spend"),
            Err(HeaderError::Duplicate { columns: vec!["spend"] })
        );
    }
}
