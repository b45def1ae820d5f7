//! Generated CSV texts: rows as the real data has them, between all that makes reading hard.

use std::fmt;
use std::ops::Range;

use adtally::engine::{Delimiter, Limits, TallyOptions};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::oracle::Rules;

/// A text and how it is to be read.
#[derive(Clone)]
pub(crate) struct Text {
    pub(crate) bytes: Vec<u8>,
    pub(crate) options: TallyOptions,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\" read with {:?}", self.bytes.escape_ascii(), self.options)
    }
}

impl Text {
    /// How the oracle is to read it.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            delimiter: self.options.delimiter.byte(),
            has_header: self.options.has_header,
            max_record_bytes: self.options.limits.max_record_bytes,
        }
    }

    /// The text cut at these places, in this order.
    pub(crate) fn cut(&self, cuts: &[Index]) -> Vec<&[u8]> {
        let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(self.bytes.len() + 1)).collect();
        places.extend([0, self.bytes.len()]);
        places.sort_unstable();
        places.windows(2).map(|pair| &self.bytes[pair[0]..pair[1]]).collect()
    }
}

/// Where texts are cut: mostly a few times, sometimes to shreds.
pub(crate) fn cuts() -> impl Strategy<Value = Vec<Index>> {
    prop_oneof![3 => vec(any::<Index>(), 0..8), 1 => vec(any::<Index>(), 0..400)]
}

/// A text of up to so many lines, most of them rows.
pub(crate) fn text(lines: Range<usize>) -> impl Strategy<Value = Text> {
    (dialect(), vec((line(), line_end()), lines)).prop_map(|(dialect, lines)| {
        let mut bytes = dialect.header();
        for (line, line_end) in &lines {
            dialect.write_line(&mut bytes, line);
            bytes.extend(line_end.unwrap_or(dialect.line_end).as_bytes());
        }
        if !dialect.ends_with_line_end {
            while bytes.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
                bytes.pop();
            }
        }
        Text { bytes, options: dialect.options() }
    })
}

/// The columns of a file: one of those that count by its place in [`KNOWN`], or another.
#[derive(Clone, Copy, Debug)]
enum Column {
    Known(usize),
    Other,
}

const KNOWN: [&str; 6] = ["campaign_id", "date", "impressions", "clicks", "spend", "conversions"];
const USUAL: [Column; 6] = {
    use Column::Known;
    [Known(0), Known(1), Known(2), Known(3), Known(4), Known(5)]
};

#[derive(Clone, Debug)]
enum Header {
    /// There is none, and the reader knows.
    None,
    Names,
    /// Names in quotes and capitals, with spaces around, behind blank lines.
    OddNames,
    /// Something else stands there.
    Broken(Vec<Piece>),
}

/// What all lines of a text have in common.
#[derive(Clone, Debug)]
struct Dialect {
    delimiter: u8,
    header: Header,
    columns: Vec<Column>,
    line_end: &'static str,
    /// Every field is in quotes.
    is_quoted: bool,
    ends_with_line_end: bool,
    max_record_bytes: usize,
}

fn dialect() -> impl Strategy<Value = Dialect> {
    let delimiter = prop_oneof![
        12 => Just(b','),
        4 => select(&b";\t|"[..]),
        // Allowed, and at odds with numbers or trimming.
        1 => select(&b" .15-+e\x01"[..]),
    ];
    let header = prop_oneof![
        20 => Just(Header::Names),
        3 => Just(Header::None),
        2 => Just(Header::OddNames),
        1 => vec(piece(), 0..20).prop_map(Header::Broken),
    ];
    let columns = prop_oneof![
        3 => Just(USUAL.to_vec()),
        1 => Just(vec![0, 2, 3, 4, 5].into_iter().map(Column::Known).collect()),
        1 => (0..4_usize, any::<bool>()).prop_flat_map(|(others, has_date)| {
            let mut columns = USUAL.to_vec();
            if !has_date {
                columns.remove(1);
            }
            columns.extend(vec![Column::Other; others]);
            Just(columns).prop_shuffle()
        }),
    ];
    let line_end = prop_oneof![5 => Just("\n"), 5 => Just("\r\n"), 1 => Just("\r")];
    let max_record_bytes = prop_oneof![
        6 => Just(Limits::default().max_record_bytes),
        // About as long as what the scanner looks at in one go, so that it is still in use.
        2 => 8192..8300_usize,
        2 => 1..200_usize,
    ];
    (delimiter, header, columns, line_end, weighted(0.15), any::<bool>(), max_record_bytes).prop_map(
        |(delimiter, header, columns, line_end, is_quoted, ends_with_line_end, max_record_bytes)| {
            let columns = if matches!(header, Header::None) { USUAL.to_vec() } else { columns };
            Dialect { delimiter, header, columns, line_end, is_quoted, ends_with_line_end, max_record_bytes }
        },
    )
}

fn weighted(probability: f64) -> impl Strategy<Value = bool> {
    proptest::bool::weighted(probability)
}

#[derive(Clone, Debug)]
enum Line {
    Row(Row),
    /// So many rows that differ only in their numbers: regular over many blocks.
    Rows {
        count: u32,
        seed: u32,
    },
    Pieces(Vec<Piece>),
    /// A row whose other field has so many bytes.
    Long {
        bytes: usize,
        is_quoted: bool,
    },
    Blank(&'static str),
}

fn line() -> impl Strategy<Value = Line> {
    let long = prop_oneof![20..400_usize, 8000..8400_usize, Just(20_000_usize)];
    prop_oneof![
        60 => row().prop_map(Line::Row),
        4 => (1..150_u32, any::<u32>()).prop_map(|(count, seed)| Line::Rows { count, seed }),
        4 => vec(piece(), 0..25).prop_map(Line::Pieces),
        1 => (long, any::<bool>()).prop_map(|(bytes, is_quoted)| Line::Long { bytes, is_quoted }),
        2 => select(vec!["", "\n", "\r", " ", " \t ", "\"\"", "\"  \""]).prop_map(Line::Blank),
    ]
}

/// `None`: as in the rest of the text.
fn line_end() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![60 => Just(None), 1 => select(vec!["\n", "\r\n", "\r", "\n\n", "\r\r\n", ""]).prop_map(Some)]
}

/// The shreds that odd lines are made of.
#[derive(Clone, Debug)]
enum Piece {
    Bytes(&'static [u8]),
    Delimiter,
    /// A quote, a delimiter, a quote.
    BetweenQuotedFields,
    Repeated(u8, usize),
}

fn piece() -> impl Strategy<Value = Piece> {
    let bytes: Vec<&'static [u8]> = vec![
        b"\"",
        b"\"",
        b"\"",
        b"\"\"",
        b"\"\"\"",
        b"\r",
        b"\n",
        b"\n",
        b"\r\n",
        b"0",
        b"7",
        b"12",
        b"1.5",
        b".",
        b"e",
        b"E3",
        b"-",
        b"+",
        b" ",
        b"\t",
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xc3\xa9",
        b"A",
        b"CMP001",
    ];
    prop_oneof![
        12 => select(bytes).prop_map(Piece::Bytes),
        5 => Just(Piece::Delimiter),
        2 => Just(Piece::BetweenQuotedFields),
        1 => (select(&b"a1 \0\"\n"[..]), 1..150_usize).prop_map(|(byte, count)| Piece::Repeated(byte, count)),
    ]
}

/// The fields of a row in the order of [`KNOWN`], and how it is written.
#[derive(Clone, Debug)]
struct Row {
    fields: [Vec<u8>; 6],
    /// One bit a column: put in quotes. Fields that need it always are, but for a rare slip.
    quotes: u16,
    is_careless: bool,
    padding: &'static str,
    /// Fields too many, or too few.
    surplus: i8,
}

fn row() -> impl Strategy<Value = Row> {
    let date = prop_oneof![9 => Just("2025-01-31".to_owned()), 1 => select(vec!["", "any text", "a\"b", "1,2"]).prop_map(str::to_owned)];
    let spoiled = prop_oneof![12 => Just(None), 1 => (0..6_usize, odd_field()).prop_map(Some)];
    let quotes = prop_oneof![12 => Just(0), 1 => any::<u16>(), 1 => Just(u16::MAX)];
    let padding = prop_oneof![30 => Just(""), 1 => select(vec![" ", "\t", "  \t "])];
    let surplus = prop_oneof![40 => Just(0_i8), 1 => -3..3_i8];
    (campaign_id(), date, count(), count(), spend(), count(), spoiled, (quotes, weighted(0.05), padding, surplus))
        .prop_map(
            |(id, date, impressions, clicks, spend, conversions, spoiled, (quotes, is_careless, padding, surplus))| {
                let mut fields = [id, date, impressions, clicks, spend, conversions].map(String::into_bytes);
                if let Some((place, field)) = spoiled {
                    fields[place] = field;
                }
                Row { fields, quotes, is_careless, padding, surplus }
            },
        )
}

/// Few enough that they come again. Ids of up to 15 bytes are kept otherwise than longer ones.
fn campaign_id() -> impl Strategy<Value = String> {
    let exact = |len: usize| "x".repeat(len);
    prop_oneof![
        20 => (1..=50_u32).prop_map(|number| format!("CMP{number:03}")),
        1 => select(vec!["A", "a", "AB", "A\0", "A B", "=1+1", "\u{e9}", "caf\u{e9} \u{1f600}", "a,b", "a\"b", "a\nb"])
            .prop_map(str::to_owned),
        1 => select(vec![14, 15, 16, 17, 31, 32, 33, 64, 255, 256, 257]).prop_map(exact),
        1 => "[a-c]{1,2}",
    ]
}

/// Whole numbers of every length that is read in its own way.
fn count() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => (1..100_000_u32).prop_map(|count| count.to_string()),
        1 => "[0-9]{1,9}",
        1 => "0{0,8}[0-9]{1,19}",
    ]
}

fn spend() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => (0..10_000_000_u32).prop_map(|cents| format!("{}.{:02}", cents / 100, cents % 100)),
        10 => (0..1_000_000_u32).prop_map(|tenths| format!("{}.{}", tenths / 10, tenths % 10)),
        1 => "[0-9]{0,8}\\.?[0-9]{0,4}",
        1 => "[0-9]{1,15}\\.[0-9]{1,20}",
    ]
}

/// A field that is no number, or hardly one.
fn odd_field() -> impl Strategy<Value = Vec<u8>> {
    let texts: Vec<&'static [u8]> = vec![
        b"",
        b" ",
        b"-",
        b".",
        b"-1",
        b"-0",
        b"+7",
        b"1e3",
        b"1E-2",
        b"5.0",
        b"5.",
        b".5",
        b"1..5",
        b"1.2.3",
        b"99999999",
        b"100000000",
        b"123456.7",
        b"12345.67",
        b"1234567.8",
        b"9223372036854775807",
        b"9223372036854775808",
        b"1000000000000000",
        b"1000000000000000.01",
        b"0x1F",
        b"1_0",
        b"NaN",
        b"\xd9\xa1",
        b"\0",
        b"1\0",
        b"\xff",
        b"1,5",
        b"1 2",
        b"/",
        b":",
        b"1:2",
        b"\"",
        b"1\r",
    ];
    prop_oneof![
        3 => select(texts).prop_map(<[u8]>::to_vec),
        1 => "[0-9.eE+\\- \t]{0,12}".prop_map(String::into_bytes),
    ]
}

impl Dialect {
    fn options(&self) -> TallyOptions {
        TallyOptions {
            delimiter: Delimiter::try_from(self.delimiter).unwrap(),
            has_header: !matches!(self.header, Header::None),
            limits: Limits { max_record_bytes: self.max_record_bytes, ..Limits::default() },
            ..TallyOptions::default()
        }
    }

    fn header(&self) -> Vec<u8> {
        let names = self.columns.iter().map(|column| match column {
            Column::Known(place) => KNOWN[*place],
            Column::Other => "note",
        });
        let mut header = Vec::new();
        match &self.header {
            Header::None => return header,
            Header::Names => {
                header.extend(names.collect::<Vec<_>>().join(&char::from(self.delimiter).to_string()).bytes());
            }
            Header::OddNames => {
                let names: Vec<_> = names.map(|name| format!("\" {}\t\"", name.to_uppercase())).collect();
                header.extend(b"\n \t\r\n");
                header.extend(names.join(&char::from(self.delimiter).to_string()).bytes());
            }
            Header::Broken(pieces) => self.write_pieces(&mut header, pieces),
        }
        header.extend(self.line_end.as_bytes());
        header
    }

    fn write_line(&self, out: &mut Vec<u8>, line: &Line) {
        match line {
            Line::Row(row) => self.write_row(out, row),
            Line::Rows { count, seed } => {
                for number in 0..*count {
                    if number > 0 {
                        out.extend(self.line_end.as_bytes());
                    }
                    // A linear congruential generator (Numerical Recipes) is as random as it has to be.
                    let random = seed.wrapping_add(number).wrapping_mul(1_664_525).wrapping_add(1_013_904_223) >> 8;
                    let fields = [
                        format!("CMP{:03}", random % 60),
                        "2025-02-01".into(),
                        (random % 50_000).to_string(),
                        (random % 977).to_string(),
                        format!("{}.{}", random % 499, random % 100),
                        (random % 89).to_string(),
                    ];
                    let fields = fields.map(String::into_bytes);
                    self.write_row(out, &Row { fields, quotes: 0, is_careless: false, padding: "", surplus: 0 });
                }
            }
            Line::Pieces(pieces) => self.write_pieces(out, pieces),
            Line::Long { bytes, is_quoted } => {
                let date = "long ".repeat(bytes / 5).into_bytes();
                let fields = [b"CMP001".to_vec(), date, b"9".to_vec(), b"8".to_vec(), b"7.5".to_vec(), b"6".to_vec()];
                let quotes = if *is_quoted { u16::MAX } else { 0 };
                self.write_row(out, &Row { fields, quotes, is_careless: false, padding: "", surplus: 0 });
            }
            Line::Blank(text) => out.extend(text.as_bytes()),
        }
    }

    fn write_row(&self, out: &mut Vec<u8>, row: &Row) {
        let count = self.columns.len().saturating_add_signed(row.surplus.into());
        for place in 0..count {
            if place > 0 {
                out.push(self.delimiter);
            }
            let field = match self.columns.get(place) {
                Some(Column::Known(known)) => &row.fields[*known][..],
                _ => b"other",
            };
            let is_special = |byte: &u8| *byte == self.delimiter || matches!(byte, b'"' | b'\r' | b'\n');
            let needs_quotes = field.iter().any(is_special) && !row.is_careless;
            if needs_quotes || self.is_quoted || row.quotes >> (place % 16) & 1 == 1 {
                out.push(b'"');
                out.extend(row.padding.as_bytes());
                for byte in field {
                    out.push(*byte);
                    if *byte == b'"' && !row.is_careless {
                        out.push(b'"');
                    }
                }
                out.extend(row.padding.as_bytes());
                out.push(b'"');
            } else {
                out.extend(row.padding.as_bytes());
                out.extend(field);
                out.extend(row.padding.as_bytes());
            }
        }
    }

    fn write_pieces(&self, out: &mut Vec<u8>, pieces: &[Piece]) {
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend(*bytes),
                Piece::Delimiter => out.push(self.delimiter),
                Piece::BetweenQuotedFields => out.extend([b'"', self.delimiter, b'"']),
                Piece::Repeated(byte, count) => out.extend(std::iter::repeat_n(*byte, *count)),
            }
        }
    }
}
