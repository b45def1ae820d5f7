//! The general reader: where a record ends, and which fields it has.
//!
//! This is the meaning of the format, RFC 4180 as the `csv` crate reads it; the scanner beside it is only faster. A quote
//! opens a field at its first byte and nowhere else, `""` inside quotes is a quote, text behind the closing quote is
//! appended, and LF, CRLF or a lone CR ends a record.

use serde::{Deserialize, Serialize};

/// More text than any storage holds (1 PiB). A saved state with more is refused as forged; up to here, counts cannot
/// overflow.
pub(crate) const MAX_TEXT_BYTES: u64 = 1 << 50;

/// Where in a record the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// Before the first byte of a record.
    RecordStart,
    /// Before the first byte of a further field.
    FieldStart,
    /// In a field, or behind its closing quote: quotes are ordinary.
    Unquoted,
    /// Between quotes: nothing but a quote matters.
    Quoted,
    /// Behind a quote that closes the field, or is the first half of a doubled one.
    QuoteInQuoted,
    /// The record was too long: waiting for a line end.
    Skipping,
}

/// Finds record ends in text that arrives in pieces of any size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordFinder {
    state: State,
    /// Bytes of the unfinished record so far; at most `max_record_bytes`.
    length: usize,
    max_record_bytes: usize,
    delimiter: u8,
}

/// What [`RecordFinder::feed`] found; the numbers count bytes of its input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All of the input belongs to a record that goes on.
    Unfinished,
    /// The record ends: `content` bytes belong to it, a line end follows.
    Record { content: usize },
    /// The record is longer than allowed, as the byte behind `content` shows. What follows is skipped.
    TooLong { content: usize },
    /// All of the input is skipped.
    StillSkipping,
    /// The skipped text ends with a line end behind `skipped` bytes.
    SkippedTo { skipped: usize },
}

/// What the end of the input leaves behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LastRecord {
    /// Nothing, or a record reported as too long before.
    None,
    /// A record without a line end.
    Complete,
    /// A record whose quote is still open.
    OpenQuote,
}

/// True for a blank line, which is no record: one field, empty after trimming.
pub(crate) fn is_blank(count: usize, first_field: &[u8]) -> bool {
    count == 1 && first_field.iter().all(|byte| *byte == b' ' || *byte == b'\t')
}

pub(crate) fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// Where a record starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Physical line, from 1.
    pub(crate) line: u64,
    pub(crate) byte_offset: u64,
}

impl Position {
    /// True when a text of at most [`MAX_TEXT_BYTES`] has such a position.
    pub(crate) fn is_possible(self) -> bool {
        self.line <= MAX_TEXT_BYTES && self.byte_offset <= MAX_TEXT_BYTES
    }
}

/// Counts line ends: LF, CRLF and CR are one each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LineCounter {
    pub(crate) ended: u64,
    pub(crate) after_return: bool,
}

impl LineCounter {
    /// Passes over text.
    pub(crate) fn pass(&mut self, text: &[u8]) {
        for byte in text {
            let completes_pair = *byte == b'\n' && self.after_return;
            self.ended += u64::from(is_line_end(*byte) && !completes_pair);
            self.after_return = *byte == b'\r';
        }
    }

    /// The number of the line that starts at a place of a text, from 1.
    pub(crate) fn line_of(text: &[u8], place: usize) -> u64 {
        let mut lines = Self::default();
        lines.pass(&text[..place]);
        lines.ended + 1
    }
}

impl RecordFinder {
    pub(crate) fn new(delimiter: u8, max_record_bytes: usize) -> Self {
        Self { state: State::RecordStart, length: 0, max_record_bytes, delimiter }
    }

    /// True between two records.
    pub(crate) fn is_between_records(&self) -> bool {
        self.state == State::RecordStart
    }

    /// True when a restored finder has the settings of a new one, and counts as many bytes as were kept of its record.
    pub(crate) fn fits(&self, new: &Self, kept_bytes: usize) -> bool {
        self.delimiter == new.delimiter
            && self.max_record_bytes == new.max_record_bytes
            && self.length <= self.max_record_bytes
            && self.length == kept_bytes
            && matches!(self.state, State::RecordStart | State::Skipping) == (kept_bytes == 0)
    }

    /// Reads on, up to the end of the record at most. Between records the input must not start with a line end: empty
    /// lines are no records. Behind a record or skipped text the caller drops the line end and calls again.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Found {
        if self.state == State::Skipping {
            return self.skip(input);
        }
        // The record may have `room` more bytes; the one behind them must be a line end.
        let room = self.max_record_bytes - self.length;
        let visible = &input[..input.len().min(room.saturating_add(1))];
        if let Some(end) = self.find_end(visible) {
            self.start_record();
            return Found::Record { content: end };
        }
        if visible.len() > room {
            self.start_record();
            self.state = State::Skipping;
            return Found::TooLong { content: room };
        }
        self.length += visible.len();
        Found::Unfinished
    }

    /// Says what the end of the input makes of an unfinished record.
    pub(crate) fn finish(&mut self) -> LastRecord {
        let last = match self.state {
            State::RecordStart | State::Skipping => LastRecord::None,
            State::Quoted => LastRecord::OpenQuote,
            State::FieldStart | State::Unquoted | State::QuoteInQuoted => LastRecord::Complete,
        };
        self.start_record();
        last
    }

    fn start_record(&mut self) {
        self.state = State::RecordStart;
        self.length = 0;
    }

    fn skip(&mut self, input: &[u8]) -> Found {
        match input.iter().position(|byte| is_line_end(*byte)) {
            Some(skipped) => {
                self.start_record();
                Found::SkippedTo { skipped }
            }
            None => Found::StillSkipping,
        }
    }

    /// The index of the line end that ends the record.
    fn find_end(&mut self, input: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(byte) = input.get(at) {
            self.state = match (self.state, *byte) {
                (State::Quoted, _) => match input[at..].iter().position(|byte| *byte == b'"') {
                    Some(quote) => {
                        at += quote;
                        State::QuoteInQuoted
                    }
                    None => return None,
                },
                (State::RecordStart | State::FieldStart | State::QuoteInQuoted, b'"') => State::Quoted,
                (_, b'\n' | b'\r') => return Some(at),
                (_, byte) if byte == self.delimiter => State::FieldStart,
                _ => State::Unquoted,
            };
            at += 1;
        }
        None
    }
}

/// The unescaped fields of one record, in buffers that are used again.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// The fields one behind the other.
    text: Vec<u8>,
    /// Where each field ends in `text`, ascending.
    ends: Vec<usize>,
}

impl Fields {
    /// Memory of the fields.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// Takes apart a whole record, given without its line end.
    pub(crate) fn split(&mut self, record: &[u8], delimiter: u8) {
        self.text.clear();
        self.ends.clear();
        let mut state = State::FieldStart;
        for byte in record {
            state = match (state, *byte) {
                (State::Quoted, b'"') => State::QuoteInQuoted,
                (State::FieldStart, b'"') => State::Quoted,
                (State::QuoteInQuoted, b'"') | (State::Quoted, _) => {
                    self.text.push(*byte);
                    State::Quoted
                }
                (_, byte) if byte == delimiter => {
                    self.ends.push(self.text.len());
                    State::FieldStart
                }
                (_, byte) => {
                    self.text.push(byte);
                    State::Unquoted
                }
            };
        }
        self.ends.push(self.text.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index]]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a text cut into pieces of `step` bytes; `!` stands for one too long.
    fn records(text: &str, max_record_bytes: usize, step: usize) -> Vec<String> {
        let mut finder = RecordFinder::new(b',', max_record_bytes);
        let (mut found, mut record) = (Vec::new(), String::new());
        for piece in text.as_bytes().chunks(step) {
            let mut rest = std::str::from_utf8(piece).unwrap();
            loop {
                if finder.is_between_records() {
                    rest = rest.trim_start_matches(['\r', '\n']);
                }
                if rest.is_empty() {
                    break;
                }
                match finder.feed(rest.as_bytes()) {
                    Found::Unfinished => {
                        record.push_str(rest);
                        rest = "";
                    }
                    Found::Record { content } => {
                        record.push_str(&rest[..content]);
                        found.push(std::mem::take(&mut record));
                        rest = &rest[content..];
                    }
                    Found::TooLong { content } => {
                        record.clear();
                        found.push("!".into());
                        rest = &rest[content..];
                    }
                    Found::StillSkipping => rest = "",
                    Found::SkippedTo { skipped } => rest = &rest[skipped..],
                }
            }
        }
        match finder.finish() {
            LastRecord::None => {}
            LastRecord::Complete => found.push(record),
            LastRecord::OpenQuote => found.push("?".into()),
        }
        found
    }

    #[test]
    fn records_end_where_the_format_says_however_the_text_is_cut() {
        for (text, expected) in [
            ("a,b\nc\n", vec!["a,b", "c"]),
            ("a\r\nb\rc", vec!["a", "b", "c"]),
            ("\n\r\n\ra", vec!["a"]),
            ("\"a\nb\",c\nd", vec!["\"a\nb\",c", "d"]),
            ("\"a\"\"\nb\"\n", vec!["\"a\"\"\nb\""]),
            ("a\"b\nc\n", vec!["a\"b", "c"]),
            ("\"a\"b\"\nc", vec!["\"a\"b\"", "c"]),
            ("a,\"\n", vec!["?"]),
            ("12345678\n1\n", vec!["12345678", "1"]),
            ("123456789\n1\n", vec!["!", "1"]),
            ("\"2345678\n\n1\n", vec!["!", "1"]),
            ("\"\n2345678\r\n1\n", vec!["!", "1"]),
            ("123456789", vec!["!"]),
        ] {
            for step in 1..=text.len() {
                assert_eq!(records(text, 8, step), expected, "{text:?} in pieces of {step}");
            }
        }
    }

    #[test]
    fn fields_are_unescaped() {
        let mut fields = Fields::default();
        for (record, expected) in [
            ("a,b", vec!["a", "b"]),
            ("", vec![""]),
            (",", vec!["", ""]),
            ("\"a\"\"b\",\"c,d\"", vec!["a\"b", "c,d"]),
            ("\"A\"x,y\"z\"", vec!["Ax", "y\"z\""]),
            ("\"A\"\"", vec!["A\""]),
            (" \"a\",\"\"", vec![" \"a\"", ""]),
        ] {
            fields.split(record.as_bytes(), b',');
            let found: Vec<_> = fields.iter().map(|field| std::str::from_utf8(field).unwrap()).collect();
            assert_eq!(found, expected, "{record:?}");
        }
    }
}
