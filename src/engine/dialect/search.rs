//! Finding the header of an input that is read in a dialect: in its first records, with each delimiter that it may have.

use serde::{Deserialize, Serialize};

use super::definition::Dialect;
use super::delimiter::{Delimiter, DelimiterChoice};
use super::formats::{CURRENCY_COLUMNS, Format};
use super::header::Columns;
use super::notation::trim_wide;
use super::values::{Field, HeaderPlace};
use crate::engine::record::{Fields, Found, LastRecord, LineCounter, RecordFinder, is_blank, is_line_end};

/// Bytes of text in which a header has to end.
pub(crate) const MAX_SEARCHED_BYTES: usize = 64 * 1024;

/// Records among which a header has to be.
const MAX_SEARCHED_RECORDS: usize = 100;

/// What delimiters are tried when none is given.
const TRIED: [Delimiter; 3] = [Delimiter::TAB, Delimiter::COMMA, Delimiter::SEMICOLON];

/// Where everything stands in the records of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub(crate) delimiter: Delimiter,
    pub(crate) columns: Columns,
    /// The columns that name the currency of a row.
    pub(crate) currency: Vec<usize>,
    /// The column that tells what the conversions count.
    pub(crate) result_indicator: Option<usize>,
}

impl Layout {
    /// That of an input without a header.
    pub(crate) fn without_header(delimiter: Delimiter) -> Self {
        Self { delimiter, columns: Columns::DEFAULT, currency: Vec::new(), result_indicator: None }
    }

    /// True when every index lies within a record.
    pub(crate) fn is_consistent(&self) -> bool {
        let others = self.currency.iter().chain(&self.result_indicator);
        self.columns.is_consistent() && others.into_iter().all(|place| *place < self.columns.count)
    }
}

/// A header and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderSearch {
    pub(crate) layout: Layout,
    /// The physical line on which it starts, from 1.
    pub(crate) line: u64,
    /// Records before it.
    pub(crate) preamble: u64,
    /// The name that each field was found by, as it is written there.
    pub(crate) names: Vec<(Field, String)>,
}

/// Why there is no header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SearchError {
    /// There is no record at all.
    Empty,
    /// The first record does not end within the text that is looked at.
    Endless { line: u64 },
    /// No record has all columns.
    NotFound {
        /// Records that were looked at.
        searched: usize,
        /// The line of the one that has most of them.
        line: u64,
        /// What it lacks: the names that would do.
        missing: Vec<(Field, Vec<String>)>,
    },
    /// A column that counts is there more than once.
    Duplicate { line: u64, names: Vec<String> },
    /// There is a header with each of these delimiters.
    Ambiguous { delimiters: Vec<Delimiter> },
    /// The file holds other rows than those that can be added up.
    Refused { line: u64, column: String },
}

impl HeaderSearch {
    /// Looks for the header at the start of a text: all of it, or its first [`MAX_SEARCHED_BYTES`].
    pub(crate) fn run(
        text: &[u8],
        is_whole: bool,
        dialect: &Dialect,
        max_record_bytes: usize,
    ) -> Result<Self, SearchError> {
        let delimiters = match &dialect.delimiter {
            DelimiterChoice::Fixed(delimiter) => std::slice::from_ref(delimiter),
            DelimiterChoice::Auto => &TRIED,
        };
        let max_records = if dialect.header == Some(HeaderPlace::Find) { MAX_SEARCHED_RECORDS } else { 1 };
        let (mut headers, mut best) = (Vec::new(), None::<Candidate>);
        let mut searched = 0;
        for delimiter in delimiters {
            let records = Records::new(text, is_whole, *delimiter, max_record_bytes).take(max_records);
            for (number, record) in records.enumerate() {
                searched = searched.max(number + 1);
                let missing = record.missing(dialect);
                if missing.is_empty() {
                    headers.push((record, number, *delimiter));
                    break;
                }
                if best.as_ref().is_none_or(|best| missing.len() < best.missing.len()) {
                    best = Some(Candidate { start: record.start, missing });
                }
            }
        }
        let line = |start: usize| LineCounter::line_of(text, start);
        match (&headers[..], best) {
            ([(record, number, delimiter)], _) => {
                record.header(dialect, *delimiter, line(record.start), *number as u64)
            }
            ([], None) => match text.iter().position(|byte| !byte.is_ascii_whitespace()) {
                Some(start) => Err(SearchError::Endless { line: line(start) }),
                None => Err(SearchError::Empty),
            },
            ([], Some(Candidate { start, missing })) => {
                Err(SearchError::NotFound { searched, line: line(start), missing })
            }
            (several, _) => {
                let delimiters = several.iter().map(|(_, _, delimiter)| *delimiter).collect();
                Err(SearchError::Ambiguous { delimiters })
            }
        }
    }
}

/// The record that comes closest to being the header.
struct Candidate {
    start: usize,
    missing: Vec<(Field, Vec<String>)>,
}

/// The formats whose header is at the start of a text.
pub(crate) fn find_formats(text: &[u8], is_whole: bool, max_record_bytes: usize) -> Vec<Format> {
    let records: Vec<Vec<_>> = TRIED
        .map(|delimiter| Records::new(text, is_whole, delimiter, max_record_bytes).take(MAX_SEARCHED_RECORDS).collect())
        .into();
    let has_header = |format: &Format| {
        let has = |record: &SplitRecord, field| format.definition().names_of(field).any(|name| record.has(name));
        let is_header = |record: &SplitRecord| {
            Field::ALL.into_iter().filter(|field| *field != Field::Date).all(|field| has(record, field))
        };
        records.iter().flatten().any(is_header)
    };
    Format::all().filter(has_header).collect()
}

/// True for the name of a column that holds the name of a campaign, on any platform.
pub(crate) fn is_campaign_name(column: &str) -> bool {
    let names = Format::all().flat_map(|format| format.definition().names);
    names.into_iter().any(|name| Name::new(name).is(&normal(column.as_bytes())))
}

/// The fields of the first record of a text.
pub(crate) fn first_record(text: &[u8], delimiter: Delimiter, max_record_bytes: usize) -> Vec<Vec<u8>> {
    Records::new(text, true, delimiter, max_record_bytes).next().map_or_else(Vec::new, |record| record.cells)
}

/// A record of the text, taken apart.
struct SplitRecord {
    start: usize,
    /// None when it is malformed.
    cells: Vec<Vec<u8>>,
    /// The cells as names are compared.
    names: Vec<Vec<u8>>,
}

impl SplitRecord {
    fn new(start: usize, cells: Vec<Vec<u8>>) -> Self {
        let names = cells.iter().map(|cell| normal(trim_wide(cell))).collect();
        Self { start, cells, names }
    }
}

impl SplitRecord {
    /// The places of a name.
    fn places(&self, name: &str) -> Vec<usize> {
        let wanted = Name::new(name);
        (0..self.names.len()).filter(|place| wanted.is(&self.names[*place])).collect()
    }

    fn has(&self, name: &str) -> bool {
        let wanted = Name::new(name);
        self.names.iter().any(|name| wanted.is(name))
    }

    /// The required fields of which no name is there.
    fn missing(&self, dialect: &Dialect) -> Vec<(Field, Vec<String>)> {
        let required = dialect.names.iter().filter(|(field, _)| *field != Field::Date);
        required.filter(|(_, names)| !names.iter().any(|name| self.has(name))).cloned().collect()
    }

    /// Reads the header that the record is.
    fn header(
        &self,
        dialect: &Dialect,
        delimiter: Delimiter,
        line: u64,
        preamble: u64,
    ) -> Result<HeaderSearch, SearchError> {
        let shown = |place: usize| String::from_utf8_lossy(trim_wide(&self.cells[place])).into_owned();
        let (mut names, mut found, mut twice) = (Vec::new(), [0; 6], Vec::new());
        for ((field, alternatives), found) in dialect.names.iter().zip(&mut found) {
            let places = alternatives.iter().map(|name| self.places(name)).find(|places| !places.is_empty());
            match places.as_deref() {
                Some([place]) => {
                    *found = *place;
                    names.push((*field, shown(*place)));
                }
                Some(several @ [_, ..]) if *field != Field::Date => {
                    twice.extend(several.iter().map(|place| shown(*place)));
                }
                _ => {}
            }
        }
        if !twice.is_empty() {
            return Err(SearchError::Duplicate { line, names: twice });
        }
        if let Some(column) = dialect.refused_column()
            && self.has(column)
        {
            return Err(SearchError::Refused { line, column: column.into() });
        }
        let [campaign_id, _, impressions, clicks, spend, conversions] = found;
        let columns = Columns { count: self.cells.len(), campaign_id, impressions, clicks, spend, conversions };
        let mut currency: Vec<_> = CURRENCY_COLUMNS.iter().flat_map(|name| self.places(name)).collect();
        currency.sort_unstable();
        currency.dedup();
        let result_indicator = dialect.result_indicator().and_then(|name| self.places(name).first().copied());
        let layout = Layout { delimiter, columns, currency, result_indicator };
        Ok(HeaderSearch { layout, line, preamble, names })
    }
}

/// A column's name as it is compared: without case (ASCII), and with plain spaces.
struct Name {
    /// Before and behind a currency code, where the name has a place for one.
    parts: (Vec<u8>, Option<Vec<u8>>),
}

impl Name {
    fn new(name: &str) -> Self {
        let parts = match name.split_once("(*)") {
            Some((before, behind)) => (format!("{before}("), Some(format!("){behind}"))),
            None => (name.to_owned(), None),
        };
        Self { parts: (normal(parts.0.as_bytes()), parts.1.map(|behind| normal(behind.as_bytes()))) }
    }

    /// True for a name in its normal form.
    fn is(&self, cell: &[u8]) -> bool {
        match &self.parts {
            (name, None) => cell == *name,
            (before, Some(behind)) => {
                let code = cell.strip_prefix(&before[..]).and_then(|rest| rest.strip_suffix(&behind[..]));
                code.is_some_and(|code| code.len() == 3 && code.iter().all(u8::is_ascii_alphabetic))
            }
        }
    }
}

fn normal(name: &[u8]) -> Vec<u8> {
    let mut normal = Vec::with_capacity(name.len());
    let mut rest = trim_wide(name);
    while let Some((first, behind)) = rest.split_first() {
        let space = ["\u{a0}", "\u{202f}"].into_iter().find_map(|space| rest.strip_prefix(space.as_bytes()));
        normal.push(if space.is_some() { b' ' } else { first.to_ascii_lowercase() });
        rest = space.unwrap_or(behind);
    }
    normal
}

/// The records at the start of a text that are not blank, as far as they are whole.
struct Records<'a> {
    text: &'a [u8],
    is_whole: bool,
    delimiter: Delimiter,
    finder: RecordFinder,
    fields: Fields,
    at: usize,
}

impl<'a> Records<'a> {
    fn new(text: &'a [u8], is_whole: bool, delimiter: Delimiter, max_record_bytes: usize) -> Self {
        let finder = RecordFinder::new(delimiter.byte(), max_record_bytes);
        Self { text, is_whole, delimiter, finder, fields: Fields::default(), at: 0 }
    }

    /// The next record, blank or not: where it starts, and its bytes unless it is malformed.
    fn next_record(&mut self) -> Option<(usize, Option<&'a [u8]>)> {
        loop {
            if self.finder.is_between_records() {
                self.at += self.text[self.at..].iter().take_while(|byte| is_line_end(**byte)).count();
            }
            let (start, rest) = (self.at, &self.text[self.at..]);
            if rest.is_empty() {
                return None;
            }
            match self.finder.feed(rest) {
                Found::Record { content } => {
                    self.at += content;
                    return Some((start, Some(&rest[..content])));
                }
                Found::TooLong { content } => {
                    self.at += content;
                    return Some((start, None));
                }
                Found::SkippedTo { skipped } => self.at += skipped,
                Found::StillSkipping => return None,
                Found::Unfinished => {
                    self.at = self.text.len();
                    return match self.finder.finish() {
                        LastRecord::Complete if self.is_whole => Some((start, Some(rest))),
                        LastRecord::OpenQuote if self.is_whole => Some((start, None)),
                        _ => None,
                    };
                }
            }
        }
    }
}

impl Iterator for Records<'_> {
    type Item = SplitRecord;

    fn next(&mut self) -> Option<SplitRecord> {
        loop {
            let (start, record) = self.next_record()?;
            let Some(record) = record else {
                return Some(SplitRecord::new(start, Vec::new()));
            };
            self.fields.split(record, self.delimiter.byte());
            if !is_blank(self.fields.len(), self.fields.get(0)) {
                return Some(SplitRecord::new(start, self.fields.iter().map(<[u8]>::to_vec).collect()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::DialectOptions;
    use super::*;

    fn search(format: &str, text: &str) -> Result<HeaderSearch, SearchError> {
        let options = DialectOptions { format: Some(format.parse().unwrap()), ..DialectOptions::default() };
        let dialect = Dialect::new(&options, None, true).unwrap().unwrap();
        HeaderSearch::run(text.as_bytes(), true, &dialect, 65_536)
    }

    const HEADER: &str = "Campaign,Campaign ID,Impr.,Clicks,Cost,Conversions";

    #[test]
    fn the_header_is_found_behind_other_lines_with_its_delimiter() {
        for (delimiter, byte) in [(",", b','), (";", b';'), ("\t", b'\t')] {
            let header = HEADER.replace(',', delimiter);
            let found = search("google_ads", &format!("Report\r\n\r\n\"9/1, 2026\"\r\n{header}\r\n")).unwrap();
            assert_eq!(found.layout.delimiter.byte(), byte);
            assert_eq!((found.line, found.preamble), (4, 2));
            assert_eq!(found.names[0], (Field::CampaignId, "Campaign ID".into()));
            assert_eq!(found.layout.columns.campaign_id, 1);
        }
        let wide = "campagne\u{a0},\u{202f}IMPR.,Clics,Coût,Conversions,Code\u{a0}de la devise";
        let found = search("google_ads", wide).unwrap();
        assert_eq!((found.layout.columns.campaign_id, &found.layout.currency[..]), (0, &[5][..]));
    }

    #[test]
    fn a_header_that_cannot_be_told_is_refused() {
        let near = search("google_ads", "Report\nCampaign,Impr.,Clicks,Conversions\n").unwrap_err();
        let missing = vec![(Field::Spend, ["Cost", "Kosten", "Coût"].map(str::to_owned).to_vec())];
        assert_eq!(near, SearchError::NotFound { searched: 2, line: 2, missing });
        assert_eq!(search("google_ads", "\n\n"), Err(SearchError::Empty));
        let twice = search("google_ads", &format!("{HEADER},Cost"));
        assert_eq!(twice, Err(SearchError::Duplicate { line: 1, names: vec!["Cost".into(), "Cost".into()] }));
        let both = format!("{HEADER}\n{}\n", HEADER.replace(',', ";"));
        let delimiters = vec![Delimiter::COMMA, Delimiter::SEMICOLON];
        assert_eq!(search("google_ads", &both), Err(SearchError::Ambiguous { delimiters }));
        let late = "x\n".repeat(MAX_SEARCHED_RECORDS) + HEADER;
        assert!(matches!(search("google_ads", &late), Err(SearchError::NotFound { searched: 100, line: 1, .. })));
        let refused = search("amazon_sp", "Entity,Campaign Name,Impressions,Clicks,Spend,Purchases");
        assert_eq!(refused, Err(SearchError::Refused { line: 1, column: "Entity".into() }));
    }

    #[test]
    fn names_are_whole_and_a_currency_code_is_three_letters() {
        for (name, is_found) in [
            ("Amount spent (EUR)", true),
            ("amount spent (usd)", true),
            ("Amount spent (EURO)", false),
            ("Amount spent", false),
            ("Amount spent (*)", false),
            ("All Amount spent (EUR)", false),
        ] {
            let text = format!("Campaign name,Impressions,Clicks (all),{name},Results");
            assert_eq!(search("meta_ads", &text).is_ok(), is_found, "{name}");
        }
    }

    #[test]
    fn formats_are_told_by_their_headers() {
        let found = |text: &str| find_formats(text.as_bytes(), true, 65_536);
        assert_eq!(found(&format!("Report\nSeptember\n{HEADER}\n")), ["google_ads".parse().unwrap()]);
        assert_eq!(found("campaign_id,impressions\n"), []);
    }
}
