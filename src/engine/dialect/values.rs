//! The values of the options of a dialect, as they are written everywhere: in queries, forms, flags, and stored jobs.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A word as it is listed: a mark in quotes, as lists have marks, too.
fn quote_mark(word: &str) -> String {
    if word.bytes().any(|byte| byte.is_ascii_punctuation() && byte != b'_') {
        format!("{word:?}")
    } else {
        word.to_owned()
    }
}

/// The most names of a field, or labels: each is looked for in every cell of a header, or in every row.
const MAX_NAMES: usize = 64;

/// A value that an option does not take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{value:?}: {reason}")]
pub struct InvalidValue {
    value: String,
    reason: String,
}

impl InvalidValue {
    pub(in crate::engine) fn new(value: &str, reason: impl Into<String>) -> Self {
        Self { value: value.into(), reason: reason.into() }
    }
}

/// Saves a value as it is written in options.
macro_rules! saved_as_text {
    ($name:ty) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(<D::Error as serde::de::Error>::custom)
            }
        }
    };
}

pub(in crate::engine) use saved_as_text;

saved_as_text!(super::delimiter::DelimiterChoice);

/// An option with a few words for values; the first word of each is the one that is shown.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $($word:literal)|+),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant),+
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($($word)|+ => Ok(Self::$variant),)+
                    _ => {
                        let words = [$(words!(@first $($word)|+)),+];
                        Err(InvalidValue::new(text, format!("expected {}", words.map(quote_mark).join(", "))))
                    }
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => words!(@first $($word)|+)),+
                })
            }
        }

        saved_as_text!($name);
    };
    (@first $first:literal $(| $other:literal)*) => { $first };
}

words! {
    /// Where the header is.
    HeaderPlace {
        /// The first record.
        First = "first",
        /// The first record that holds all required columns.
        Find = "find",
    }
}

words! {
    /// The mark between the whole digits of a number and its decimals.
    DecimalMark {
        /// `.`
        Point = "." | "point",
        /// `,`
        Comma = "," | "comma",
        /// The one that the first data row's spend shows.
        Auto = "auto",
    }
}

words! {
    /// The mark between groups of three whole digits.
    Thousands {
        /// Digits are not grouped.
        None = "none",
        /// `,`
        Comma = "," | "comma",
        /// `.`
        Point = "." | "point",
        /// U+0020, U+00A0, U+202F, U+2009
        Space = "space" | " ",
        /// `'`
        Apostrophe = "'" | "apostrophe",
        /// Any of them but the decimal mark.
        Any = "any",
    }
}

words! {
    /// Whether conversions may have decimals.
    ConversionDigits {
        /// They are whole.
        Whole = "whole",
        /// Up to 12 decimals, kept exactly.
        Decimal = "decimal",
    }
}

words! {
    /// What becomes of a currency sign in a spend.
    CurrencySigns {
        /// It is no number then.
        None = "none",
        /// One sign or code before or behind the number is passed over.
        Strip = "strip",
    }
}

words! {
    /// What a spend counts.
    SpendUnit {
        /// The currency's unit.
        One = "1" | "one",
        /// Millionths of it.
        Micros = "micros",
    }
}

words! {
    /// Where the data ends.
    DataEnd {
        /// With the file.
        File = "file",
        /// With the first blank line behind data. What follows describes the report.
        BlankLine = "blank_line",
    }
}

words! {
    /// A column that counts, or the date.
    Field {
        /// What rows are added up by.
        CampaignId = "campaign_id",
        /// Its contents are not read; its name is reported.
        Date = "date",
        /// A count.
        Impressions = "impressions",
        /// A count.
        Clicks = "clicks",
        /// An amount.
        Spend = "spend",
        /// A count, perhaps with decimals.
        Conversions = "conversions",
    }
}

impl Field {
    /// Every field, in the order of the columns.
    pub const ALL: [Self; 6] =
        [Self::CampaignId, Self::Date, Self::Impressions, Self::Clicks, Self::Spend, Self::Conversions];

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CampaignId => "campaign_id",
            Self::Date => "date",
            Self::Impressions => "impressions",
            Self::Clicks => "clicks",
            Self::Spend => "spend",
            Self::Conversions => "conversions",
        }
    }
}

/// The fields in which an empty cell is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroIfEmpty {
    /// In the clicks.
    pub clicks: bool,
    /// In the conversions.
    pub conversions: bool,
}

impl FromStr for ZeroIfEmpty {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut fields = Self::default();
        if text == "none" {
            return Ok(fields);
        }
        for field in text.split(',') {
            match field.trim() {
                "clicks" => fields.clicks = true,
                "conversions" => fields.conversions = true,
                _ => return Err(InvalidValue::new(text, "expected clicks, conversions, both, or none")),
            }
        }
        Ok(fields)
    }
}

impl fmt::Display for ZeroIfEmpty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.clicks, self.conversions) {
            (true, true) => "clicks,conversions",
            (true, false) => "clicks",
            (false, true) => "conversions",
            (false, false) => "none",
        })
    }
}

saved_as_text!(ZeroIfEmpty);

/// The word for no totals.
const NO_TOTALS: &str = "none";

/// Which rows are sums of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TotalsRule {
    /// None are looked for.
    Off,
    /// Those without a campaign id, and those that start with one of these labels in the campaign id's place.
    Labels(Vec<String>),
}

impl FromStr for TotalsRule {
    type Err = InvalidValue;

    /// `none`, or labels with `|` between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim() == NO_TOTALS {
            return Ok(Self::Off);
        }
        let mut labels: Vec<_> = split_list(text, '|').iter().map(|label| label.trim().to_owned()).collect();
        labels.retain(|label| !label.is_empty());
        if labels.len() > MAX_NAMES {
            return Err(InvalidValue::new("…", format!("expected at most {MAX_NAMES} labels")));
        }
        if labels.iter().any(|label| label.contains('#') && label.ends_with(':')) {
            return Err(InvalidValue::new(text, "a label with # cannot end in a colon"));
        }
        Ok(Self::Labels(labels))
    }
}

impl fmt::Display for TotalsRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str(NO_TOTALS),
            // Alone it would say that there are none.
            Self::Labels(labels) if labels.len() == 1 && labels[0] == NO_TOTALS => f.write_str("none|"),
            Self::Labels(labels) => f.write_str(&join_names(labels)),
        }
    }
}

saved_as_text!(TotalsRule);

/// The names that fields may have in the header. Of several the first that is present is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnNames(Vec<(Field, Vec<String>)>);

impl ColumnNames {
    /// The names of a field, if they are given.
    #[must_use]
    pub fn of(&self, field: Field) -> Option<&[String]> {
        self.0.iter().find(|(known, _)| *known == field).map(|(_, names)| names.as_slice())
    }
}

impl FromStr for ColumnNames {
    type Err = InvalidValue;

    /// `FIELD:NAME|NAME;FIELD:NAME`. A comma, too, separates two fields where a field follows, and `=` does for the colon. A
    /// backslash before `|`, `;`, `,` and itself takes away what they mean.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || {
            let fields = Field::ALL.map(Field::name).join(", ");
            InvalidValue::new(text, format!("expected FIELD:NAME|NAME;FIELD:NAME, each field one of {fields}"))
        };
        let mut columns: Vec<(Field, Vec<String>)> = Vec::new();
        for entry in split_entries(text) {
            let (field, names) = split_field(entry).ok_or_else(expected)?;
            let names: Vec<_> = split_list(names, '|').into_iter().map(|name| name.trim().to_owned()).collect();
            if names.iter().any(String::is_empty) {
                return Err(expected());
            }
            if names.len() > MAX_NAMES {
                return Err(InvalidValue::new("…", format!("expected at most {MAX_NAMES} names of a field")));
            }
            if columns.iter().any(|(known, _)| *known == field) {
                return Err(InvalidValue::new(text, format!("{field} is given more than once")));
            }
            columns.push((field, names));
        }
        Ok(Self(columns))
    }
}

impl fmt::Display for ColumnNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<_> = self.0.iter().map(|(field, names)| format!("{field}:{}", join_names(names))).collect();
        f.write_str(&entries.join(";"))
    }
}

saved_as_text!(ColumnNames);

/// Names with `|` between them, as they are read.
pub(super) fn join_names<T: AsRef<str>>(names: &[T]) -> String {
    let escaped: Vec<_> = names.iter().map(|name| escape(name.as_ref())).collect();
    escaped.join("|")
}

fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for (place, character) in name.char_indices() {
        let has_meaning = match character {
            '\\' | '|' | ';' => true,
            ',' => split_field(&name[place + 1..]).is_some(),
            _ => false,
        };
        if has_meaning {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// The parts between separators that no backslash stands before. Before another character it is one of its own.
fn split_list(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == separator {
            parts.push(String::new());
            continue;
        }
        let escaped = characters.next_if(|next| character == '\\' && matches!(next, '|' | ';' | ',' | '\\'));
        let taken = escaped.unwrap_or(character);
        if let Some(part) = parts.last_mut() {
            part.push(taken);
        }
    }
    parts
}

/// The entries of [`ColumnNames`], still with their backslashes.
fn split_entries(text: &str) -> Vec<&str> {
    let mut entries = Vec::new();
    let (mut start, mut is_escaped) = (0, false);
    for (place, character) in text.char_indices() {
        let is_end = match character {
            _ if is_escaped => false,
            ';' => true,
            ',' => split_field(&text[place + 1..]).is_some(),
            _ => false,
        };
        is_escaped = character == '\\' && !is_escaped;
        if is_end {
            entries.push(&text[start..place]);
            start = place + 1;
        }
    }
    entries.push(&text[start..]);
    entries
}

/// The field that an entry starts with, and the names behind it.
fn split_field(entry: &str) -> Option<(Field, &str)> {
    let (field, names) = entry.split_once([':', '='])?;
    Some((field.trim().parse().ok()?, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_columns_are_read_as_they_are_shown() {
        let columns: ColumnNames =
            "campaign_id:Campaign ID|Campaign; spend=Cost,clicks: Clicks (a, b)".parse().unwrap();
        assert_eq!(columns.of(Field::CampaignId).unwrap(), ["Campaign ID", "Campaign"]);
        assert_eq!(columns.of(Field::Spend).unwrap(), ["Cost"]);
        assert_eq!(columns.of(Field::Clicks).unwrap(), ["Clicks (a, b)"]);
        assert_eq!(columns.of(Field::Conversions), None);
        let odd: ColumnNames = r"spend:a\|b|c\;d|e\\f,g:h".parse().unwrap();
        assert_eq!(odd.of(Field::Spend).unwrap(), ["a|b", "c;d", r"e\f,g:h"]);
        for columns in [columns, odd] {
            assert_eq!(columns.to_string().parse::<ColumnNames>().unwrap(), columns);
        }
        for wrong in ["", "Cost", "cost:Cost", "spend:", "spend:a|", "spend:a;", "spend:a;spend:b"] {
            assert!(wrong.parse::<ColumnNames>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_accepted_is_read_as_it_is_shown() {
        let pieces = ["spend", "clicks", ":", "=", "|", ";", ",", "\\", " ", "none", "Cost", "#", "x"];
        let mut state = 7_usize;
        let mut draw = |end: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        let mut accepted = 0;
        for _ in 0..200_000 {
            let text: String = (0..draw(9)).map(|_| pieces[draw(pieces.len())]).collect();
            if let Ok(rule) = text.parse::<TotalsRule>() {
                assert_eq!(rule.to_string().parse(), Ok(rule), "{text:?}");
            }
            if let Ok(columns) = text.parse::<ColumnNames>() {
                accepted += 1;
                assert_eq!(columns.to_string().parse(), Ok(columns), "{text:?}");
            }
        }
        assert!(accepted > 1000, "{accepted}");
    }

    #[test]
    fn labels_and_words_are_read_as_they_are_shown() {
        for (text, labels) in [("", vec![]), ("Total:|Gesamt:", vec!["Total:", "Gesamt:"]), (r"a\|b", vec!["a|b"])] {
            let rule: TotalsRule = text.parse().unwrap();
            assert_eq!(rule, TotalsRule::Labels(labels.into_iter().map(str::to_owned).collect()), "{text}");
            assert_eq!(rule.to_string(), text);
        }
        assert_eq!("none".parse::<TotalsRule>().unwrap(), TotalsRule::Off);
        assert_eq!("point".parse::<DecimalMark>().unwrap().to_string(), ".");
        assert_eq!(
            "semicolon".parse::<DecimalMark>().unwrap_err().to_string(),
            "\"semicolon\": expected \".\", \",\", auto"
        );
        for text in ["clicks", "conversions", "clicks,conversions", "none"] {
            assert_eq!(text.parse::<ZeroIfEmpty>().unwrap().to_string(), text);
        }
        assert!("spend".parse::<ZeroIfEmpty>().is_err());
    }
}
