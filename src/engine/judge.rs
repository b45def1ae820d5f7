//! From a record of an input in a dialect to a row that counts, or to what it is instead. `docs/formats.md` is the contract.

use super::dialect::{
    CheckedTotal, ConversionDigits, CurrencySigns, DataEnd, DecimalMark, Dialect, Field, Layout, Notation, SpendUnit,
    Thousands, TotalsRule, shown_decimal_mark, strip_sign, trim_wide,
};
use super::error::Fatal;
use super::number::{Money, Spend};
use super::reading::{OtherCurrency, Reading, TotalRow};
use super::record::is_blank;
use super::row::{MAX_CAMPAIGN_ID_BYTES, Row, SkipReason};
use super::short_number::{Count, DecimalConversions, Micros};

/// What a record is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// A row that counts, and has been counted.
    Counted,
    /// A row that does not.
    Skipped(SkipReason),
    /// No row: a blank line, a sum of other rows, or behind the end of the data.
    NoData,
}

/// Judges the records of an input.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'a> {
    pub(crate) dialect: &'a Dialect,
    pub(crate) layout: &'a Layout,
}

impl Judge<'_> {
    /// True when a blank line behind data ends it.
    pub(crate) fn ends_at_blank_line(&self) -> bool {
        self.dialect.end == DataEnd::BlankLine
    }

    /// Notes a blank line; `has_data`: there are rows or totals before it.
    pub(crate) fn pass_blank_line(&self, reading: &mut Reading, has_data: bool) {
        reading.has_ended |= has_data && self.ends_at_blank_line();
    }

    /// Judges a whole record of `count` fields, of which `field` gives the one at an index, on this line. A row that counts is
    /// given to `add`: returned, it would be copied from place to place.
    pub(crate) fn judge<'a>(
        &self,
        reading: &mut Reading,
        has_data: bool,
        count: usize,
        field: impl Fn(usize) -> &'a [u8],
        line: u64,
        add: impl FnOnce(&Row<'a>) -> Result<(), Fatal>,
    ) -> Result<Judged, Fatal> {
        let is_empty = || (0..count).all(|place| trim_wide(field(place)).is_empty());
        if is_blank(count, field(0)) || (self.ends_at_blank_line() && is_empty()) {
            self.pass_blank_line(reading, has_data);
            return Ok(Judged::NoData);
        }
        let columns = &self.layout.columns;
        if reading.has_ended {
            self.pass_footer(reading, (count == columns.count).then_some(&field));
            return Ok(Judged::NoData);
        }
        if count != columns.count {
            return Ok(Judged::Skipped(SkipReason::ColumnCount));
        }
        let id = trim_wide(field(columns.campaign_id));
        if self.is_total(id, &field) {
            self.take_total(reading, &field, line);
            return Ok(Judged::NoData);
        }
        let spend = trim_wide(field(columns.spend));
        let notation = match self.notation(reading) {
            Some(notation) => notation,
            None => self.decide(reading, spend, line)?,
        };
        let read_spend = self.read_spend(notation, spend);
        if read_spend.is_none() && self.dialect.decimal == DecimalMark::Auto {
            self.refuse_other_mark(notation, spend, line)?;
        }
        match self.row(notation, id, read_spend, &field) {
            Ok(row) => {
                self.see_currency(reading, &field, read_spend, line)?;
                add(&row)?;
                Ok(Judged::Counted)
            }
            Err(reason) => {
                if reading.header_line.is_some() {
                    self.see_header(reading, &field, line);
                }
                Ok(Judged::Skipped(reason))
            }
        }
    }

    /// Counts a record behind the end of the data, of which there is no field access when it is no whole row.
    pub(crate) fn pass_footer<'a>(&self, reading: &mut Reading, field: Option<&dyn Fn(usize) -> &'a [u8]>) {
        reading.rows_footer += 1;
        if let (Some(field), Some(notation)) = (field, self.notation(reading)) {
            let id = trim_wide(field(self.layout.columns.campaign_id));
            let spend = self.read_spend(notation, trim_wide(field(self.layout.columns.spend)));
            let is_data = !self.is_total(id, &field) && self.row(notation, id, spend, &field).is_ok();
            reading.footers_like_data += u64::from(is_data);
        }
    }

    /// How numbers are written, once that is known.
    pub(crate) fn notation(&self, reading: &Reading) -> Option<Notation> {
        let decimal = match (self.dialect.decimal, reading.decimal) {
            (DecimalMark::Point, _) | (DecimalMark::Auto, Some('.')) => b'.',
            (DecimalMark::Comma, _) | (DecimalMark::Auto, Some(_)) => b',',
            (DecimalMark::Auto, None) => return None,
        };
        Some(Notation::new(decimal, self.dialect.thousands))
    }

    /// Decides the decimal mark by the spend of the first data row.
    #[cold]
    fn decide(&self, reading: &mut Reading, spend: &[u8], line: u64) -> Result<Notation, Fatal> {
        let number = self.without_sign(spend).map_or(spend, |(number, _)| number);
        let same = match self.dialect.thousands {
            Thousands::Comma => Some(b','),
            Thousands::Point => Some(b'.'),
            _ => None,
        };
        match shown_decimal_mark(number).filter(|mark| Some(*mark) != same) {
            Some(mark) => {
                reading.decimal = Some(char::from(mark));
                Ok(Notation::new(mark, self.dialect.thousands))
            }
            None => Err(Fatal::UndecidedDecimalMark { line, spend: shown(spend) }),
        }
    }

    /// Refuses a spend that is no number with the decimal mark of the file, and is one with the other.
    #[cold]
    fn refuse_other_mark(&self, notation: Notation, spend: &[u8], line: u64) -> Result<(), Fatal> {
        let decimal = if notation.decimal == b'.' { b',' } else { b'.' };
        let Some((number, _)) = self.without_sign(spend) else { return Ok(()) };
        let other = Notation::new(decimal, Thousands::Any);
        if other.read::<Spend>(number).is_some() {
            let decimal = char::from(notation.decimal);
            return Err(Fatal::MixedDecimalMarks { line, spend: shown(spend), decimal });
        }
        Ok(())
    }

    /// A spend without its currency sign, and that, where signs are passed over.
    fn without_sign<'a>(&self, spend: &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        match self.dialect.currency {
            CurrencySigns::None => Some((spend, None)),
            CurrencySigns::Strip => strip_sign(spend),
        }
    }

    fn read_spend(&self, notation: Notation, spend: &[u8]) -> Option<Spend> {
        let (number, _) = self.without_sign(spend)?;
        match self.dialect.spend_unit {
            SpendUnit::One => notation.read(number),
            SpendUnit::Micros => notation.read(number).map(|Micros(spend)| spend),
        }
    }

    /// Whole conversions, and units of 10^-12.
    fn read_conversions(&self, notation: Notation, cell: &[u8]) -> Option<(u64, u64)> {
        match self.dialect.conversions {
            ConversionDigits::Whole => notation.read(cell).map(|Count(count)| (count, 0)),
            ConversionDigits::Decimal => notation.read(cell).map(|DecimalConversions(whole, units)| (whole, units)),
        }
    }

    /// Reads the fields of a row, all but the currency.
    #[inline]
    fn row<'a>(
        &self,
        notation: Notation,
        id: &'a [u8],
        spend: Option<Spend>,
        field: &impl Fn(usize) -> &'a [u8],
    ) -> Result<Row<'a>, SkipReason> {
        let columns = &self.layout.columns;
        let campaign_id = if self.dialect.id_brackets { without_brackets(id) } else { id };
        let is_id = !campaign_id.is_empty()
            && campaign_id.len() <= MAX_CAMPAIGN_ID_BYTES
            && (campaign_id.is_ascii() || std::str::from_utf8(campaign_id).is_ok())
            && !(self.dialect.refuses_rounded_ids() && is_rounded(campaign_id));
        if !is_id {
            return Err(SkipReason::CampaignId);
        }
        let zero_if_empty = self.dialect.zero_if_empty;
        let impressions = notation.read(trim_wide(field(columns.impressions))).map(|Count(count)| count);
        let clicks = match trim_wide(field(columns.clicks)) {
            [] if zero_if_empty.clicks => Some(0),
            cell => notation.read(cell).map(|Count(count)| count),
        };
        let conversions = match trim_wide(field(columns.conversions)) {
            [] if zero_if_empty.conversions => Some((0, 0)),
            cell => self.read_conversions(notation, cell),
        };
        let impressions = impressions.ok_or(SkipReason::Impressions)?;
        let clicks = clicks.ok_or(SkipReason::Clicks)?;
        let spend = spend.ok_or(SkipReason::Spend)?;
        let (conversions, conversion_units) = conversions.ok_or(SkipReason::Conversions)?;
        Ok(Row { campaign_id, impressions, clicks, spend, conversions, conversion_units })
    }

    /// Notes what a row that counts says about its currency, and about what its conversions count.
    fn see_currency<'a>(
        &self,
        reading: &mut Reading,
        field: &impl Fn(usize) -> &'a [u8],
        spend: Option<Spend>,
        line: u64,
    ) -> Result<(), Fatal> {
        let refused =
            |OtherCurrency { line, first, second }: OtherCurrency| Fatal::MixedCurrencies { line, first, second };
        for place in &self.layout.currency {
            let currency = trim_wide(field(*place));
            let is_known = reading.currency.as_ref().is_some_and(|seen| seen.word.as_bytes() == currency);
            if !is_known && !is_no_value(currency) {
                reading.see_currency(currency, line).map_err(refused)?;
            }
        }
        if self.dialect.currency == CurrencySigns::Strip && spend.is_some() {
            let sign = strip_sign(trim_wide(field(self.layout.columns.spend))).and_then(|(_, sign)| sign);
            if let Some(sign) = sign {
                reading.see_sign(sign, line).map_err(refused)?;
            }
        }
        if let Some(place) = self.layout.result_indicator {
            let indicator = trim_wide(field(place));
            if !indicator.is_empty() {
                reading.see_indicator(indicator, line);
            }
        }
        Ok(())
    }

    /// True for a sum of other rows: it has no campaign id, or its label in the place of one with nothing before it.
    fn is_total<'a>(&self, id: &[u8], field: &impl Fn(usize) -> &'a [u8]) -> bool {
        let TotalsRule::Labels(labels) = &self.dialect.totals else { return false };
        if is_no_value(id) || self.dialect.no_value().iter().any(|mark| mark.as_bytes() == id) {
            return true;
        }
        let is_first = || (0..self.layout.columns.campaign_id).all(|place| trim_wide(field(place)).is_empty());
        // Nearly every id differs from all labels in its first byte.
        let may_have = |label: &str| label.starts_with('#') || label.as_bytes().first() == id.first();
        let is_labelled = |label: &String| may_have(label) && has_label(id, label);
        labels.iter().any(is_labelled) && is_first()
    }

    #[cold]
    fn take_total<'a>(&self, reading: &mut Reading, field: &impl Fn(usize) -> &'a [u8], line: u64) {
        let columns = &self.layout.columns;
        let spend = trim_wide(field(columns.spend));
        // Before the first data row, the total shows its own mark, or cannot be read.
        let notation = self.notation(reading).or_else(|| {
            let decimal = shown_decimal_mark(self.without_sign(spend)?.0)?;
            Some(Notation::new(decimal, self.dialect.thousands))
        });
        let spend = notation.and_then(|notation| self.read_spend(notation, spend)).map(Spend::money);
        reading.count_total(line, spend);
        let first = (0..columns.count).map(|place| trim_wide(field(place))).find(|cell| !cell.is_empty());
        let first = first.unwrap_or_default();
        if let (TotalsRule::Labels(labels), Some(_)) = (&self.dialect.totals, self.dialect.format) {
            reading.unlabelled += u64::from(!labels.iter().any(|label| has_label(first, label)));
        }
        let is_checked = match self.dialect.checked_total() {
            CheckedTotal::None => false,
            CheckedTotal::Only => true,
            CheckedTotal::Labelled(labels) => labels.iter().any(|label| has_whole_label(first, label)),
        };
        if is_checked {
            reading.candidates += 1;
            reading.candidate.get_or_insert_with(|| self.read_total(notation, spend, field, line));
        }
    }

    /// The numbers of a total, as far as they can be read.
    fn read_total<'a>(
        &self,
        notation: Option<Notation>,
        spend: Option<Money>,
        field: &impl Fn(usize) -> &'a [u8],
        line: u64,
    ) -> TotalRow {
        let columns = &self.layout.columns;
        let read_count = |place| notation?.read(trim_wide(field(place))).map(|Count(count)| count);
        let conversions =
            notation.and_then(|notation| self.read_conversions(notation, trim_wide(field(columns.conversions))));
        let (impressions, clicks) = (read_count(columns.impressions), read_count(columns.clicks));
        let unreadable = [
            (Field::Impressions, columns.impressions, impressions.is_some()),
            (Field::Clicks, columns.clicks, clicks.is_some()),
            (Field::Spend, columns.spend, spend.is_some()),
            (Field::Conversions, columns.conversions, conversions.is_some()),
        ];
        let unreadable = unreadable
            .into_iter()
            .map(|(name, place, is_read)| (name, trim_wide(field(place)), is_read))
            .filter(|(_, cell, is_read)| !is_read && !is_no_value(cell))
            .map(|(name, cell, _)| (name, shown(cell)))
            .collect();
        TotalRow { line, impressions, clicks, spend, unreadable, conversions }
    }

    /// Notes a row that does not count and has the names of columns in their places.
    #[cold]
    fn see_header<'a>(&self, reading: &mut Reading, field: &impl Fn(usize) -> &'a [u8], line: u64) {
        let columns = &self.layout.columns;
        let is_name = |name: Field, place: usize| {
            let of_field = reading.columns.iter().find(|(known, _)| *known == name);
            of_field.is_some_and(|(_, name)| name.as_bytes() == trim_wide(field(place)))
        };
        let names = [(Field::CampaignId, columns.campaign_id), (Field::Spend, columns.spend)];
        if reading.repeated_header.is_none() && names.into_iter().all(|(name, place)| is_name(name, place)) {
            reading.repeated_header = Some(line);
        }
    }
}

/// A cell as it is reported.
fn shown(cell: &[u8]) -> String {
    String::from_utf8_lossy(&cell[..cell.len().min(64)]).into_owned()
}

/// True for a cell that has no value, on every platform: it is empty, or up to three dashes.
fn is_no_value(cell: &[u8]) -> bool {
    cell.len() <= 3 && cell.iter().all(|byte| *byte == b'-')
}

/// The digits in brackets; anything else as it is.
fn without_brackets(id: &[u8]) -> &[u8] {
    match id {
        [b'[', digits @ .., b']'] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => id,
    }
}

/// True for a number as spreadsheets write large ones: its last digits are lost.
fn is_rounded(id: &[u8]) -> bool {
    // Nearly every id differs from such a number in its first two bytes.
    let [b'0'..=b'9', b'.' | b',' | b'e' | b'E', ..] = id else { return false };
    let Some(e) = id.iter().position(|byte| matches!(byte, b'e' | b'E')) else { return false };
    let (mantissa, exponent) = id.split_at(e);
    let are_digits = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let is_mantissa = match mantissa {
        [first, b'.' | b',', decimals @ ..] => first.is_ascii_digit() && are_digits(decimals),
        [first] => first.is_ascii_digit(),
        _ => false,
    };
    let has_decimals = mantissa.len() > 1;
    is_mantissa
        && match exponent {
            [_, b'+', digits @ ..] => are_digits(digits),
            // As many programs write it; a name may well be like 5E3.
            [_, digits @ ..] => has_decimals && are_digits(digits),
            [] => false,
        }
}

/// True when a cell has a label: one that ends in a colon is its start, another is all of it. `#` stands for a number, and
/// spaces before a colon say nothing.
fn has_label(cell: &[u8], label: &str) -> bool {
    if let Some(stem) = label.strip_suffix(':') {
        return cell.strip_prefix(stem.as_bytes()).is_some_and(|rest| trim_wide(rest).starts_with(b":"));
    }
    match label.split_once('#') {
        None => cell == label.as_bytes(),
        Some((before, behind)) => {
            let number = cell.strip_prefix(before.as_bytes()).and_then(|rest| rest.strip_suffix(behind.as_bytes()));
            let is_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b',' | b'.');
            number.is_some_and(|number| number.iter().any(u8::is_ascii_digit) && number.iter().all(is_number))
        }
    }
}

/// True when a cell is a label with a colon, apart from the spaces around the colon.
fn has_whole_label(cell: &[u8], label: &str) -> bool {
    let Some((stem, what)) = label.split_once(':') else { return cell == label.as_bytes() };
    let rest = cell.strip_prefix(stem.as_bytes()).map(trim_wide).and_then(|rest| rest.strip_prefix(b":"));
    rest.is_some_and(|rest| trim_wide(rest) == what.trim().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_whole_cells_or_start_them() {
        for (cell, label, has_it) in [
            ("Total: Campaigns", "Total:", true),
            ("Total : Campagnes", "Total:", true),
            ("Total\u{a0}: Campagnes", "Total:", true),
            ("Total Wine & Co", "Total:", false),
            ("Total awareness", "Total", false),
            ("Total", "Total", true),
            ("Total of 1,234 results", "Total of # results", true),
            ("Total of  results", "Total of # results", false),
            ("Total of my results", "Total of # results", false),
        ] {
            assert_eq!(has_label(cell.as_bytes(), label), has_it, "{cell}");
        }
        assert!(has_whole_label("Total\u{a0}: Campagnes".as_bytes(), "Total: Campagnes"));
        assert!(!has_whole_label(b"Total: Account", "Total: Campaigns"));
    }

    #[test]
    fn ids_that_a_spreadsheet_has_rounded_are_told() {
        for id in ["1.20211E+17", "1,20211E+17", "1E+17", "9.1e+5", "1.20211111111111104E17"] {
            assert!(is_rounded(id.as_bytes()), "{id}");
        }
        for id in ["120211111111111111", "Winter E+17", "5E3", "12.5E+17", "1.E+17", "E+17", "1.5E+", "3E", ""] {
            assert!(!is_rounded(id.as_bytes()), "{id}");
        }
    }

    #[test]
    fn brackets_go_from_digits_alone() {
        assert_eq!(without_brackets(b"[518730332]"), b"518730332");
        for id in [&b"[]"[..], b"[a]", b"[1", b"1]", b"1"] {
            assert_eq!(without_brackets(id), id);
        }
    }
}
