//! The byte between two fields.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The byte between two fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Delimiter(u8);

/// A delimiter that cannot separate fields.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} cannot be the delimiter: expected one ASCII character other than a quote or a line end, or `tab`")]
pub struct InvalidDelimiter(pub String);

impl Delimiter {
    /// The default, a comma.
    pub const COMMA: Self = Self(b',');
    /// As spreadsheets of some countries write it.
    pub const SEMICOLON: Self = Self(b';');
    /// As UTF-16 exports write it.
    pub const TAB: Self = Self(b'\t');

    /// One of the bytes that this program itself knows as delimiters.
    pub(super) const fn of(byte: u8) -> Self {
        Self(byte)
    }

    /// The byte itself.
    #[must_use]
    pub fn byte(self) -> u8 {
        self.0
    }
}

impl Default for Delimiter {
    fn default() -> Self {
        Self::COMMA
    }
}

impl TryFrom<u8> for Delimiter {
    type Error = InvalidDelimiter;

    fn try_from(byte: u8) -> Result<Self, Self::Error> {
        match byte {
            b'"' | b'\r' | b'\n' | 0 | 0x80.. => Err(InvalidDelimiter(char::from(byte).into())),
            _ => Ok(Self(byte)),
        }
    }
}

impl From<Delimiter> for u8 {
    fn from(delimiter: Delimiter) -> Self {
        delimiter.0
    }
}

impl std::str::FromStr for Delimiter {
    type Err = InvalidDelimiter;

    /// One character, or the word `tab`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            [byte] => Self::try_from(*byte).map_err(|_| InvalidDelimiter(text.into())),
            b"tab" | b"\\t" => Ok(Self(b'\t')),
            _ => Err(InvalidDelimiter(text.into())),
        }
    }
}

impl std::fmt::Display for Delimiter {
    /// As it is written in options: the character, or `tab`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            b'\t' => f.write_str("tab"),
            byte => write!(f, "{}", char::from(byte)),
        }
    }
}

/// Which byte separates fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelimiterChoice {
    /// Tab, comma or semicolon: the one with which a header is found.
    Auto,
    /// This one.
    Fixed(Delimiter),
}

impl Default for DelimiterChoice {
    fn default() -> Self {
        Self::Fixed(Delimiter::COMMA)
    }
}

impl std::str::FromStr for DelimiterChoice {
    type Err = InvalidDelimiter;

    /// A [`Delimiter`], or the word `auto`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Fixed) }
    }
}

impl std::fmt::Display for DelimiterChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(delimiter) => delimiter.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_are_one_plain_byte() {
        assert_eq!("tab".parse::<Delimiter>().unwrap().byte(), b'\t');
        assert_eq!(";".parse::<Delimiter>().unwrap().byte(), b';');
        for text in ["", "\"", "\n", "\r", ",,", "\u{e9}", "\0"] {
            assert!(text.parse::<Delimiter>().is_err(), "{text:?}");
        }
    }
}
