//! Tables for spreadsheet programs, which take text that begins like a formula for one (CSV injection).

use std::borrow::Cow;
use std::io;

use csv_async::{AsyncReaderBuilder, ByteRecord};
use futures_util::FutureExt as _;

/// Columns with text from outside. All others hold numbers and words of our own.
const TEXT_COLUMNS: [&str; 3] = ["campaign_id", "record", "file"];

/// What ends a cell for programs that do not take commas for delimiters, and do not see the quotes around a field therefore.
const DELIMITERS: [char; 4] = [';', '\t', '\r', '\n'];

/// A table whose text cannot become a formula. Apart from that, it is the table that it is made from.
#[derive(Debug, Default)]
pub struct SpreadsheetTable {
    /// For each column, whether it holds text from outside; empty before the first piece.
    is_text: Vec<bool>,
}

impl SpreadsheetTable {
    /// Converts the next piece of a table. Each piece consists of whole rows; the first one starts with the names of the columns.
    ///
    /// # Errors
    /// When the piece is not CSV.
    pub fn convert(&mut self, piece: &[u8]) -> csv_async::Result<Vec<u8>> {
        let pending = || Err(io::Error::from(io::ErrorKind::WouldBlock).into());
        // Memory gives all it has at once.
        self.convert_rows(piece).now_or_never().unwrap_or_else(pending)
    }

    async fn convert_rows(&mut self, piece: &[u8]) -> csv_async::Result<Vec<u8>> {
        let mut rows = Vec::with_capacity(piece.len() + piece.len() / 8);
        let mut reader = AsyncReaderBuilder::new().has_headers(false).flexible(true).create_reader(piece);
        let mut record = ByteRecord::new();
        while reader.read_byte_record(&mut record).await? {
            if self.is_text.is_empty() {
                self.is_text = record.iter().map(|name| TEXT_COLUMNS.map(str::as_bytes).contains(&name)).collect();
            }
            for (index, field) in record.iter().enumerate() {
                if index > 0 {
                    rows.push(b',');
                }
                let is_text = self.is_text.get(index).copied().unwrap_or(true);
                push_field(&mut rows, &String::from_utf8_lossy(field), is_text);
            }
            rows.push(b'\n');
        }
        Ok(rows)
    }
}

fn push_field(rows: &mut Vec<u8>, field: &str, is_text: bool) {
    let harmless = if is_text { neutralize(field) } else { Cow::Borrowed(field) };
    // Quotes around what was changed: OWASP advises them, as the text may hold delimiters of other programs.
    if matches!(harmless, Cow::Owned(_)) || harmless.contains([',', '"', '\r', '\n']) {
        rows.push(b'"');
        rows.extend_from_slice(harmless.replace('"', "\"\"").as_bytes());
        rows.push(b'"');
    } else {
        rows.extend_from_slice(harmless.as_bytes());
    }
}

/// Puts an apostrophe before what begins like a formula, at the start of the text and wherever a program that takes semicolons or tabs
/// for delimiters would see the start of a cell.
fn neutralize(text: &str) -> Cow<'_, str> {
    let mut harmless = String::new();
    let mut copied = 0;
    let mut start = 0;
    loop {
        let cell = &text[start..];
        let end = cell.find(DELIMITERS);
        if begins_like_formula(&cell[..end.unwrap_or(cell.len())]) || (start == 0 && cell.starts_with(char::is_control))
        {
            harmless.push_str(&text[copied..start]);
            harmless.push('\'');
            copied = start;
        }
        match end {
            Some(end) => start += end + 1,
            None => break,
        }
    }
    if harmless.is_empty() {
        return Cow::Borrowed(text);
    }
    harmless.push_str(&text[copied..]);
    Cow::Owned(harmless)
}

/// True for the characters that OWASP names, also behind what programs may take away: quotes, blanks, control characters.
fn begins_like_formula(cell: &str) -> bool {
    let is_dropped = |c: char| c == '"' || c == '\u{feff}' || c.is_whitespace() || c.is_control();
    let first = cell.trim_start_matches(is_dropped).chars().next();
    first.is_some_and(|first| "=+-@\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}".contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_like_a_formula_is_neutralized_and_nothing_else() {
        for (text, harmless) in [
            ("=1+1", "'=1+1"),
            ("+49", "'+49"),
            ("-5", "'-5"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("\r=1", "'\r'=1"),
            ("\nx", "'\nx"),
            ("\0=1", "'\0=1"),
            ("\u{ff1d}1", "'\u{ff1d}1"),
            ("\u{ff20}x", "'\u{ff20}x"),
            (" \"=1", "' \"=1"),
            ("a;=1", "a;'=1"),
            ("a\t\"=1\"\n-2;b", "a\t'\"=1\"\n'-2;b"),
            ("a\r\nb;", "a\r\nb;"),
            ("a;b", "a;b"),
            ("a=b", "a=b"),
            ("a,-1", "a,-1"),
            ("'=1", "'=1"),
            ("", ""),
            (" ", " "),
            ("\u{2212}5", "\u{2212}5"),
        ] {
            assert_eq!(neutralize(text), harmless, "{text:?}");
        }
    }

    #[test]
    fn a_table_is_otherwise_as_it_was() {
        let mut table = SpreadsheetTable::default();
        let first = table.convert(b"campaign_id,total_spend,CPA\n\"a,\"\"b\",-1.00,\n").unwrap();
        assert_eq!(String::from_utf8(first).unwrap(), "campaign_id,total_spend,CPA\n\"a,\"\"b\",-1.00,\n");
        let next = table.convert(b"\"=HYPERLINK(\"\"x\"\",1)\",2.00,-3\n-1,2.00,\n").unwrap();
        assert_eq!(String::from_utf8(next).unwrap(), "\"'=HYPERLINK(\"\"x\"\",1)\",2.00,-3\n\"'-1\",2.00,\n");
    }
}
