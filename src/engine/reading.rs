//! What was found out about a file that was read in a dialect: how it is written, and what in it was no data.

use serde::{Deserialize, Serialize};

use super::dialect::{CheckedTotal, ConversionDigits, DecimalMark, Delimiter, Dialect, Field};
use super::number::{Conversions, Money};
use super::record::MAX_TEXT_BYTES;

/// Lines of totals that are reported.
const MAX_TOTAL_LINES: usize = 10;

/// Bytes of a currency, or of what conversions count, that are compared and reported.
pub(crate) const MAX_WORD_BYTES: usize = 64;

/// How far a total may be from the sum of its rows, for each of them: platforms round both to two decimals.
const ROUNDING_PER_ROW: u128 = Money::UNITS_PER_CENT / 2;

/// What rows were added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyedBy {
    /// The campaign's id.
    Id,
    /// Its name: campaigns of one name are one, and a renamed one is two.
    Name,
}

/// A word of the file, and the line on which it was first seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) word: String,
    pub(crate) line: u64,
}

impl Seen {
    fn new(word: &[u8], line: u64) -> Self {
        let word = &word[..word.len().min(MAX_WORD_BYTES)];
        Self { word: String::from_utf8_lossy(word).into_owned(), line }
    }

    fn is(&self, word: &[u8]) -> bool {
        let word = &word[..word.len().min(MAX_WORD_BYTES)];
        self.word.as_bytes() == word || self.word == String::from_utf8_lossy(word)
    }
}

/// The numbers of a row that is a sum of others, as far as they could be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TotalRow {
    pub(crate) line: u64,
    pub(crate) impressions: Option<u64>,
    pub(crate) clicks: Option<u64>,
    pub(crate) spend: Option<Money>,
    /// The fields whose cells have a value that cannot be read.
    pub(crate) unreadable: Vec<(Field, String)>,
    /// Whole ones, and units of 10^-12.
    pub(crate) conversions: Option<(u64, u64)>,
}

/// The total that a file has of its rows, beside their sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalsCheck {
    /// All that could be compared is equal, apart from rounding.
    pub is_equal: bool,
    /// The line of the total.
    pub line: u64,
    /// What differs.
    pub different: Vec<String>,
}

/// What was found out about a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The file's name; empty until it is set for a data set of several files.
    pub file: String,
    /// The byte between two fields.
    pub delimiter: Delimiter,
    /// The decimal mark; unknown while no row has shown it.
    pub decimal: Option<char>,
    /// The line of the header; none without one.
    pub header_line: Option<u64>,
    /// The name in the header that each field was found by.
    pub columns: Vec<(Field, String)>,
    /// What rows are added up by.
    pub keyed_by: KeyedBy,
    /// Records before the header.
    pub rows_preamble: u64,
    /// Rows that are sums of others.
    pub rows_total: u64,
    /// Records behind the end of the data.
    pub rows_footer: u64,
    /// The lines of the first totals, at most ten.
    pub total_lines: Vec<u64>,
    /// The sum of the spends of all totals that have one.
    pub total_spend: Money,
    /// The file's own total beside the sum of its rows, once that is known.
    pub totals_check: Option<TotalsCheck>,
    /// Warnings about the results, once the file has ended.
    pub warnings: Vec<String>,
    /// A blank line has ended the data.
    pub(crate) has_ended: bool,
    /// Records behind the end of the data that would have counted before it.
    pub(crate) footers_like_data: u64,
    /// Totals that nothing but the missing campaign id shows.
    pub(crate) unlabelled: u64,
    /// A row that repeats the header.
    pub(crate) repeated_header: Option<u64>,
    /// Totals that could be the one to be checked.
    pub(crate) candidates: u64,
    pub(crate) candidate: Option<TotalRow>,
    pub(crate) currency: Option<Seen>,
    pub(crate) sign: Option<Seen>,
    /// What the conversions count, and something else that they count, too.
    pub(crate) indicators: (Option<Seen>, Option<Seen>),
}

/// Impressions, clicks, spend, conversions.
pub(crate) type Sums = (u128, u128, Money, Conversions);

/// Two currencies in one file, in the order in which they come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtherCurrency {
    pub(crate) line: u64,
    pub(crate) first: String,
    pub(crate) second: String,
}

impl Reading {
    pub(crate) fn new(delimiter: Delimiter) -> Self {
        Self {
            file: String::new(),
            delimiter,
            decimal: None,
            header_line: None,
            columns: Vec::new(),
            keyed_by: KeyedBy::Id,
            rows_preamble: 0,
            rows_total: 0,
            rows_footer: 0,
            total_lines: Vec::new(),
            total_spend: Money::default(),
            totals_check: None,
            warnings: Vec::new(),
            has_ended: false,
            footers_like_data: 0,
            unlabelled: 0,
            repeated_header: None,
            candidates: 0,
            candidate: None,
            currency: None,
            sign: None,
            indicators: (None, None),
        }
    }

    /// True when a text of at most [`MAX_TEXT_BYTES`] can have given this.
    pub(crate) fn is_possible(&self) -> bool {
        let rows = [
            self.rows_preamble,
            self.rows_total,
            self.rows_footer,
            self.candidates,
            self.footers_like_data,
            self.unlabelled,
        ];
        rows.into_iter().all(|rows| rows <= MAX_TEXT_BYTES)
            && self.total_lines.len() <= MAX_TOTAL_LINES
            && self.total_lines.iter().all(|line| *line <= MAX_TEXT_BYTES)
            && self.candidate.as_ref().is_none_or(|candidate| candidate.line <= MAX_TEXT_BYTES)
            && matches!(self.decimal, None | Some('.' | ','))
    }

    /// The reading of a later part of the same file, before its first row.
    pub(crate) fn fork(&self) -> Self {
        Self {
            decimal: self.decimal,
            header_line: self.header_line,
            columns: self.columns.clone(),
            keyed_by: self.keyed_by,
            ..Self::new(self.delimiter)
        }
    }

    /// Appends the reading of the part of the file that follows, in which lines are counted from its start, behind
    /// `lines_before`.
    pub(crate) fn join(&mut self, mut next: Self, lines_before: u64) {
        let here = |seen: Option<Seen>| seen.map(|Seen { word, line }| Seen { word, line: line + lines_before });
        self.currency = self.currency.take().or(here(next.currency));
        self.sign = self.sign.take().or(here(next.sign));
        for seen in [next.indicators.0, next.indicators.1].into_iter().flatten() {
            self.see_indicator(seen.word.as_bytes(), seen.line + lines_before);
        }
        self.rows_total += next.rows_total;
        self.rows_footer += next.rows_footer;
        let lines = next.total_lines.into_iter().map(|line| line + lines_before);
        self.total_lines.extend(lines.take(MAX_TOTAL_LINES - self.total_lines.len()));
        self.total_spend.0 = self.total_spend.0.saturating_add(next.total_spend.0);
        self.has_ended |= next.has_ended;
        self.footers_like_data += next.footers_like_data;
        self.candidates += next.candidates;
        self.unlabelled += next.unlabelled;
        self.repeated_header = self.repeated_header.or(next.repeated_header.map(|line| line + lines_before));
        if let Some(candidate) = &mut next.candidate {
            candidate.line += lines_before;
        }
        self.candidate = self.candidate.take().or(next.candidate);
    }

    /// True when a later part of the same file is in another currency.
    pub(crate) fn is_in_other_currency(&self, next: &Self) -> bool {
        let differ = |mine: &Option<Seen>, theirs: &Option<Seen>| match (mine, theirs) {
            (Some(mine), Some(theirs)) => mine.word != theirs.word,
            _ => false,
        };
        differ(&self.currency, &next.currency) || differ(&self.sign, &next.sign)
    }

    /// Ends the file, of which this many rows were read and have counted, with these sums.
    pub(crate) fn finish(&mut self, rows_read: u64, rows: u64, sums: Sums, dialect: &Dialect) {
        let has_one_total = dialect.checked_total() == CheckedTotal::Only;
        let is_decided = dialect.decimal != DecimalMark::Auto || self.decimal.is_some();
        if is_decided && !(has_one_total && self.candidates > 1) {
            self.check_totals(rows, sums, dialect.conversions == ConversionDigits::Decimal);
        }
        match dialect.decimal {
            DecimalMark::Point => self.decimal = Some('.'),
            DecimalMark::Comma => self.decimal = Some(','),
            DecimalMark::Auto => {}
        }
        if !has_one_total && self.unlabelled > 0 {
            self.warnings.push(format!(
                "{} without a campaign: taken for totals, without the label of one: see total_lines",
                rows_text(self.unlabelled)
            ));
        }
        if let Some(line) = self.repeated_header {
            self.warnings.push(format!(
                "line {line} repeats the header: if two files were put together, their columns may differ"
            ));
        }
        if rows == 0 && rows_read > 0 {
            self.warnings.push(format!("none of {} counts", rows_text(rows_read)));
        }
        if has_one_total && self.rows_total > 1 {
            self.warnings.push(format!(
                "{} without a campaign: taken for totals, of which such a report has one: see total_lines",
                rows_text(self.rows_total)
            ));
        }
        if let Some(TotalsCheck { is_equal: false, line, different }) = &self.totals_check {
            let different = different.join("; ");
            self.warnings.push(format!("the total on line {line} is not the sum of the rows that count: {different}"));
        }
        if let (Some(code), Some(seen)) = (self.currency_of_header(), &self.currency)
            && !seen.word.eq_ignore_ascii_case(code)
        {
            let (word, line) = (&seen.word, seen.line);
            self.warnings.push(format!("the header says that spend is in {code}, line {line} that it is in {word:?}"));
        }
        if self.footers_like_data > 0 {
            let rows = rows_text(self.footers_like_data);
            self.warnings.push(format!("behind the blank line that ends the data, {rows} would count"));
        }
        if let (Some(first), Some(other)) = &self.indicators {
            let (first, other, line) = (&first.word, &other.word, other.line);
            self.warnings.push(format!(
                "the conversions are of several kinds: {first:?}, and {other:?} on line {line}; their sum may mean nothing"
            ));
        }
    }

    /// The currency that the rows name, or else the header, or else the signs of the amounts.
    pub(crate) fn shown_currency(&self) -> Option<&str> {
        let seen = self.currency.as_ref().map(|seen| seen.word.as_str());
        let sign = || self.sign.as_ref().map(|seen| seen.word.as_str());
        seen.or_else(|| self.currency_of_header()).or_else(sign)
    }

    /// The code in parentheses at the end of the spend's name.
    fn currency_of_header(&self) -> Option<&str> {
        let (_, name) = self.columns.iter().find(|(field, _)| *field == Field::Spend)?;
        let code = name.strip_suffix(')')?.rsplit_once('(')?.1;
        (code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase())).then_some(code)
    }

    /// Notes a total and its spend, if it has one.
    pub(crate) fn count_total(&mut self, line: u64, spend: Option<Money>) {
        self.rows_total += 1;
        if self.total_lines.len() < MAX_TOTAL_LINES {
            self.total_lines.push(line);
        }
        self.total_spend.0 = self.total_spend.0.saturating_add(spend.unwrap_or_default().0);
    }

    /// Notes the currency of a row that counts.
    pub(crate) fn see_currency(&mut self, word: &[u8], line: u64) -> Result<(), OtherCurrency> {
        see(&mut self.currency, word, line)
    }

    /// Notes the currency sign of a row that counts.
    pub(crate) fn see_sign(&mut self, word: &[u8], line: u64) -> Result<(), OtherCurrency> {
        see(&mut self.sign, word, line)
    }

    /// Notes what the conversions of a row count.
    pub(crate) fn see_indicator(&mut self, word: &[u8], line: u64) {
        let (first, other) = &mut self.indicators;
        match first {
            None => *first = Some(Seen::new(word, line)),
            Some(first) if other.is_none() && !first.is(word) => *other = Some(Seen::new(word, line)),
            Some(_) => {}
        }
    }

    /// Compares the file's own total with the sum of its rows. `decimals`: conversions have been rounded, too.
    fn check_totals(&mut self, rows: u64, sums: Sums, decimals: bool) {
        let Some(total) = &self.candidate else { return };
        let (impressions, clicks, spend, conversions) = sums;
        let rounding = ROUNDING_PER_ROW * u128::from(rows);
        let mut compared = 0;
        let unreadable =
            total.unreadable.iter().map(|(field, cell)| format!("{field}: {cell:?} in the file cannot be read"));
        let mut different: Vec<_> = unreadable.collect();
        let mut compare = |name: &str, is_equal: Option<bool>, shown: String| {
            compared += u32::from(is_equal.is_some());
            if is_equal == Some(false) {
                different.push(format!("{name}: {shown}"));
            }
        };
        let equal = |total: u64, sum: u128| u128::from(total) == sum;
        let shown =
            |total: Option<String>, sum: String| format!("{} in the file, {sum} counted", total.unwrap_or_default());
        let text = |number: Option<u64>| number.map(|number| number.to_string());
        compare(
            "impressions",
            total.impressions.map(|total| equal(total, impressions)),
            shown(text(total.impressions), impressions.to_string()),
        );
        compare(
            "clicks",
            total.clicks.map(|total| equal(total, clicks)),
            shown(text(total.clicks), clicks.to_string()),
        );
        compare(
            "spend",
            total.spend.map(|total| total.0.abs_diff(spend.0) <= rounding),
            shown(total.spend.map(|total| total.to_string()), spend.to_string()),
        );
        let total_conversions = total.conversions.map(|(whole, units)| Conversions::new(whole.into(), units.into()));
        let allowed = if decimals { rounding } else { 0 };
        let distance = total_conversions.and_then(Conversions::checked_units).zip(conversions.checked_units());
        compare(
            "conversions",
            distance.map(|(total, sum)| total.abs_diff(sum) <= allowed),
            shown(total_conversions.map(|total| total.to_string()), conversions.to_string()),
        );
        if compared > 0 || !different.is_empty() {
            self.totals_check = Some(TotalsCheck { is_equal: different.is_empty(), line: total.line, different });
        }
    }
}

fn rows_text(rows: u64) -> String {
    if rows == 1 { "1 row".into() } else { format!("{rows} rows") }
}

fn see(seen: &mut Option<Seen>, word: &[u8], line: u64) -> Result<(), OtherCurrency> {
    match seen {
        None => *seen = Some(Seen::new(word, line)),
        Some(first) if first.is(word) => {}
        Some(first) => {
            let second = Seen::new(word, line);
            return Err(OtherCurrency { line, first: first.word.clone(), second: second.word });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_file_are_joined_as_if_they_were_one() {
        let mut first = Reading::new(Delimiter::COMMA);
        first.see_currency(b"EUR", 3).unwrap();
        first.count_total(4, Some(Money(5)));
        let mut second = first.fork();
        second.see_currency(b"EUR", 2).unwrap();
        (1..=12).for_each(|line| second.count_total(line, None));
        first.join(second, 10);
        assert_eq!((first.rows_total, first.total_spend), (13, Money(5)));
        assert_eq!(first.total_lines, [4, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
        let mut third = first.fork();
        third.see_currency(b"USD", 7).unwrap();
        assert!(first.is_in_other_currency(&third) && !first.is_in_other_currency(&first.fork()));
    }

    #[test]
    fn a_total_may_be_half_a_cent_a_row_away() {
        let total = |cents| TotalRow {
            line: 9,
            impressions: Some(10),
            clicks: None,
            spend: Some(Money::from_cents(cents)),
            unreadable: Vec::new(),
            conversions: Some((1, 0)),
        };
        let check = |cents, rows| {
            let mut reading =
                Reading { candidates: 1, candidate: Some(total(cents)), ..Reading::new(Delimiter::COMMA) };
            reading.check_totals(rows, (10, 7, Money::from_cents(100), Conversions::from(1)), true);
            reading.totals_check.unwrap()
        };
        assert!(check(101, 2).is_equal);
        assert!(check(99, 2).is_equal);
        assert_eq!(check(102, 2).different, ["spend: 1.02 in the file, 1.00 counted"]);
    }
}
