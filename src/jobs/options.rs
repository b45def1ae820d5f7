//! The options of jobs and files, as requests give them and as they are stored.

use std::fmt::Display;

use encoding_rs::{Encoding, UTF_8};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::engine::{Delimiter, DelimiterChoice, Dialect, DialectConflict, DialectOptions, KeptRejects, SkipBudget};
use crate::ingest::encoding_for_label;

/// How a job's files are read and reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobOptions {
    /// What separates two fields.
    #[serde(with = "as_character")]
    pub delimiter: DelimiterChoice,
    /// Whether the first row names the columns.
    pub has_header: bool,
    /// The encoding of files without a byte-order mark.
    #[serde(with = "as_label")]
    pub encoding: &'static Encoding,
    /// How many campaigns each list has, 1 to [`Self::MAX_TOP`].
    pub top: u16,
    /// How the files are written, where that is not the plain contract.
    #[serde(flatten)]
    pub dialect: DialectOptions,
    /// Which of the rows that were skipped are kept.
    #[serde(skip_serializing_if = "is_default")]
    pub rejects: KeptRejects,
    /// How many rows of a file may be skipped; any number, if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_skipped: Option<SkipBudget>,
}

/// An option that cannot have its value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name}: {reason}")]
pub struct InvalidOption {
    /// Its name.
    pub name: String,
    /// What was expected.
    pub reason: String,
}

impl InvalidOption {
    fn new(name: &str, reason: impl Display) -> Self {
        Self { name: name.to_owned(), reason: reason.to_string() }
    }
}

impl From<DialectConflict> for InvalidOption {
    fn from(conflict: DialectConflict) -> Self {
        let (name, text) = (conflict.option(), conflict.to_string());
        // The text starts with the name, perhaps with its value.
        let reason = text.strip_prefix(name).unwrap_or(&text);
        Self::new(name, reason.trim_start_matches(['=', ':', ' ']))
    }
}

/// Options that are no part of [`DialectOptions`].
const OTHER_NAMES: [&str; 6] = ["delimiter", "has_header", "encoding", "top", "rejects", "max_skipped"];

impl JobOptions {
    /// The longest lists.
    pub const MAX_TOP: u16 = 1000;

    /// The names of all options.
    pub const NAMES: [&str; OTHER_NAMES.len() + DialectOptions::NAMES.len()] = {
        let mut names = [""; OTHER_NAMES.len() + DialectOptions::NAMES.len()];
        let mut place = 0;
        while place < names.len() {
            names[place] = match place.checked_sub(OTHER_NAMES.len()) {
                None => OTHER_NAMES[place],
                Some(place) => DialectOptions::NAMES[place],
            };
            place += 1;
        }
        names
    };

    /// Changes the options as a request asks for. A format begins anew: of the options before it only those stay that do not tell how
    /// the files are written. Names that are none of an option are passed over.
    ///
    /// # Errors
    /// When an option does not take its value, or contradicts another one.
    pub fn change<'a>(
        &mut self,
        given: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Result<(), InvalidOption> {
        if given.clone().into_iter().any(|(name, _)| name == "format") {
            self.dialect = DialectOptions::default();
            self.delimiter = DelimiterChoice::Auto;
        }
        for (name, value) in given {
            self.set(name, value)?;
        }
        self.dialect()?;
        Ok(())
    }

    /// Sets one option. Whether it contradicts others is not looked at.
    ///
    /// # Errors
    /// When the option does not take the value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidOption> {
        let invalid = |reason: &dyn Display| InvalidOption::new(name, reason);
        match name {
            "delimiter" => self.delimiter = value.parse().map_err(|error| invalid(&error))?,
            "has_header" => {
                self.has_header =
                    value.parse().map_err(|_| invalid(&format_args!("{value:?}: expected true or false")))?;
            }
            "encoding" => self.encoding = encoding_for_label(value).map_err(|error| invalid(&error))?,
            "top" => {
                let top = value.parse().ok().filter(|top| (1..=Self::MAX_TOP).contains(top));
                self.top = top.ok_or_else(|| {
                    invalid(&format_args!("{value:?}: expected a number from 1 to {}", Self::MAX_TOP))
                })?;
            }
            "rejects" => self.rejects = value.parse().map_err(|error| invalid(&error))?,
            "max_skipped" => self.max_skipped = Some(value.parse().map_err(|error| invalid(&error))?),
            _ => {
                self.dialect.set(name, value).map_err(|error| invalid(&error))?;
            }
        }
        Ok(())
    }

    /// How the files are written; `None` when that is the plain contract.
    ///
    /// # Errors
    /// When options contradict each other.
    pub fn dialect(&self) -> Result<Option<Dialect>, DialectConflict> {
        Dialect::new(&self.dialect, Some(self.delimiter), self.has_header)
    }

    /// The delimiter without a [dialect](Self::dialect), which has its own.
    #[must_use]
    pub fn plain_delimiter(&self) -> Delimiter {
        match self.delimiter {
            DelimiterChoice::Fixed(delimiter) => delimiter,
            DelimiterChoice::Auto => Delimiter::COMMA,
        }
    }
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            delimiter: DelimiterChoice::default(),
            has_header: true,
            encoding: UTF_8,
            top: 10,
            dialect: DialectOptions::default(),
            rejects: KeptRejects::default(),
            max_skipped: None,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A delimiter is one character, or the word `auto`.
mod as_character {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::engine::DelimiterChoice;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(delimiter: &DelimiterChoice, serializer: S) -> Result<S::Ok, S::Error> {
        match delimiter {
            DelimiterChoice::Fixed(delimiter) => serializer.serialize_char(char::from(delimiter.byte())),
            DelimiterChoice::Auto => serializer.serialize_str("auto"),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DelimiterChoice, D::Error> {
        DelimiterChoice::deserialize(deserializer)
    }
}

mod as_label {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::{Encoding, encoding_for_label};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(encoding: &&'static Encoding, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encoding.name().to_ascii_lowercase())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static Encoding, D::Error> {
        encoding_for_label(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(options: &JobOptions) -> serde_json::Value {
        serde_json::to_value(options).unwrap()
    }

    #[test]
    fn what_earlier_versions_stored_is_read() {
        for (text, delimiter) in
            [(r#"{"delimiter":";","top":3}"#, b';'), (r#"{"delimiter":"\t"}"#, b'\t'), ("{}", b',')]
        {
            let options: JobOptions = serde_json::from_str(text).unwrap();
            assert_eq!(options.plain_delimiter().byte(), delimiter, "{text}");
            assert_eq!(options.dialect(), Ok(None), "{text}");
        }
    }

    #[test]
    fn options_are_stored_as_they_were_given() {
        let mut options = JobOptions::default();
        assert_eq!(
            stored(&options),
            serde_json::json!({"delimiter": ",", "has_header": true, "encoding": "utf-8", "top": 10})
        );
        let given = [("format", "meta_ads"), ("id_brackets", "true"), ("rejects", "all"), ("max_skipped", "0.50%")];
        options.change(given).unwrap();
        let expected = serde_json::json!({
            "delimiter": "auto", "has_header": true, "encoding": "utf-8", "top": 10, "format": "meta_ads",
            "id_brackets": true, "rejects": "all", "max_skipped": "0.5%",
        });
        assert_eq!(stored(&options), expected);
        assert_eq!(serde_json::from_value::<JobOptions>(expected).unwrap(), options);
    }

    #[test]
    fn a_format_begins_anew() {
        let mut options = JobOptions::default();
        options.change([("decimal", ","), ("delimiter", ";"), ("top", "3")]).unwrap();
        options.change([("thousands", "."), ("max_skipped", "1")]).unwrap();
        let mut other = options.clone();
        other.change([("delimiter", "tab"), ("format", "dv360"), ("end", "file")]).unwrap();
        let expected = serde_json::json!({
            "delimiter": "\t", "has_header": true, "encoding": "utf-8", "top": 3, "format": "dv360", "end": "file",
            "max_skipped": "1",
        });
        assert_eq!(stored(&other), expected);
        // The same again changes nothing.
        let before = other.clone();
        other.change([("delimiter", "tab"), ("format", "dv360"), ("end", "file")]).unwrap();
        assert_eq!(other, before);
        let conflict = options.change([("decimal", ".")]).unwrap_err();
        assert_eq!(
            conflict.to_string(),
            "thousands: the mark is the decimal mark: expected two different ones (without thousands, it is that of the format)"
        );
        let conflict = JobOptions::default().change([("has_header", "false"), ("columns", "spend:a")]).unwrap_err();
        assert_eq!(conflict.to_string(), "has_header: false: columns needs a header");
    }

    #[test]
    fn every_name_is_that_of_an_option() {
        for name in JobOptions::NAMES {
            let refused = JobOptions::default().set(name, "\n\"\n");
            let takes_any_text = name == "totals";
            assert_eq!(refused.is_err(), !takes_any_text, "{name}");
        }
        assert_eq!(JobOptions::default().set("name", "x"), Ok(()));
    }
}
