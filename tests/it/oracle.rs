//! The contract once more, written to be obviously right and not to be fast.
//!
//! Nothing of the engine is used but the names of its results: records are read by recursive descent and not by a state
//! machine, numbers are strings of digits, fractions are compared by Euclid's algorithm, totals lie in a sorted map.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use adtally::engine::SkipReason;

use crate::harness::{Bytes, Outcome, Skipped};

/// How to read a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) delimiter: u8,
    pub(crate) has_header: bool,
    pub(crate) max_record_bytes: usize,
}

/// A record as it stands in the text.
#[derive(Debug)]
pub(crate) struct Record {
    /// The physical line on which it starts, from 1.
    pub(crate) line: u64,
    pub(crate) byte_offset: usize,
    /// Without the line end.
    pub(crate) text: Vec<u8>,
    /// `None` when it is too long, or its quote is still open at the end of the text.
    pub(crate) fields: Option<Vec<Vec<u8>>>,
}

/// Takes a text apart.
pub(crate) fn records(text: &[u8], rules: Rules) -> Vec<Record> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut lines = Lines::default();
    loop {
        at += text[at..].iter().take_while(|byte| is_line_end(**byte)).count();
        if at == text.len() {
            return found;
        }
        let line = lines.number_of(text, at);
        let start = at;
        // One byte more than a record may have: it must be the line end.
        let limit = text.len().min(start + rules.max_record_bytes + 1);
        let mut reader = FieldReader { text: &text[..limit], at: start, delimiter: rules.delimiter };
        let fields = reader.read_record();
        let is_too_long = reader.at == limit && limit - start > rules.max_record_bytes;
        let end = reader.at;
        if is_too_long {
            let behind = start + rules.max_record_bytes;
            at = behind + text[behind..].iter().take_while(|byte| !is_line_end(**byte)).count();
            found.push(Record { line, byte_offset: start, text: text[start..behind].to_vec(), fields: None });
        } else {
            at = end;
            found.push(Record { line, byte_offset: start, text: text[start..end].to_vec(), fields });
        }
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// Counts lines on the way through a text.
#[derive(Default)]
struct Lines {
    passed: usize,
    ended: u64,
}

impl Lines {
    /// The number of the line of a place that follows those asked for before, and does not lie between CR and LF.
    fn number_of(&mut self, text: &[u8], place: usize) -> u64 {
        let part = String::from_utf8_lossy(&text[self.passed..place]).replace("\r\n", "\n").replace('\r', "\n");
        self.ended += part.matches('\n').count() as u64;
        self.passed = place;
        self.ended + 1
    }
}

struct FieldReader<'a> {
    text: &'a [u8],
    at: usize,
    delimiter: u8,
}

impl FieldReader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// The fields up to a line end or the end of the text; `None` when the text ends within quotes.
    fn read_record(&mut self) -> Option<Vec<Vec<u8>>> {
        let mut fields = vec![self.read_field()?];
        while self.peek() == Some(self.delimiter) {
            self.take();
            fields.push(self.read_field()?);
        }
        Some(fields)
    }

    fn read_field(&mut self) -> Option<Vec<u8>> {
        let mut field = if self.peek() == Some(b'"') { self.read_quoted()? } else { Vec::new() };
        while let Some(byte) = self.peek().filter(|byte| !is_line_end(*byte) && *byte != self.delimiter) {
            field.push(byte);
            self.take();
        }
        Some(field)
    }

    fn read_quoted(&mut self) -> Option<Vec<u8>> {
        let mut contents = Vec::new();
        self.take();
        loop {
            match self.take()? {
                b'"' if self.peek() == Some(b'"') => {
                    self.take();
                    contents.push(b'"');
                }
                b'"' => return Some(contents),
                byte => contents.push(byte),
            }
        }
    }
}

/// One campaign's totals; spend in units of 10^-12.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) impressions: u128,
    pub(crate) clicks: u128,
    pub(crate) spend: u128,
    pub(crate) conversions: u128,
}

/// Where the columns are.
struct Columns {
    count: usize,
    campaign_id: usize,
    impressions: usize,
    clicks: usize,
    spend: usize,
    conversions: usize,
}

/// What the records result in, or the code of the error.
pub(crate) fn aggregate(records: &[Record], rules: Rules, bytes_read: usize) -> Result<Outcome, &'static str> {
    let mut records = records.iter().filter(|record| !is_blank(record)).peekable();
    if records.peek().is_none() {
        return Err("empty_input");
    }
    let columns = if rules.has_header {
        read_header(records.next().and_then(|header| header.fields.as_deref()).ok_or("missing_columns")?)?
    } else {
        Columns { count: 6, campaign_id: 0, impressions: 2, clicks: 3, spend: 4, conversions: 5 }
    };
    let mut campaigns: BTreeMap<Vec<u8>, Totals> = BTreeMap::new();
    let mut skipped: BTreeMap<SkipReason, u64> = BTreeMap::new();
    let mut rejects = Vec::new();
    let mut rows_read = 0;
    for record in records {
        rows_read += 1;
        match read_row(record, &columns) {
            Ok((id, row)) => {
                let totals = campaigns.entry(id).or_default();
                totals.impressions += row.impressions;
                totals.clicks += row.clicks;
                totals.spend += row.spend;
                totals.conversions += row.conversions;
            }
            Err(reason) => {
                *skipped.entry(reason).or_default() += 1;
                rejects.push(Skipped {
                    line: record.line,
                    byte_offset: record.byte_offset as u64,
                    reason,
                    record: Bytes(record.text[..record.text.len().min(200)].to_vec()),
                });
            }
        }
    }
    rejects.truncate(100);
    let rows_skipped = skipped.values().sum();
    let (top_ctr, top_cpa) = (top_ctr(&campaigns, 10), top_cpa(&campaigns, 10));
    Ok(Outcome {
        bytes_read: bytes_read as u64,
        rows_read,
        rows_skipped,
        parse_errors: rows_skipped - skipped.get(&SkipReason::CampaignId).copied().unwrap_or(0),
        unique_campaigns: campaigns.len(),
        skipped,
        rejects,
        campaigns: table(campaigns.iter()),
        top_ctr,
        top_cpa,
    })
}

fn is_blank(record: &Record) -> bool {
    record.fields.as_ref().is_some_and(|fields| fields.len() == 1 && trim(&fields[0]).is_empty())
}

fn trim(mut field: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = field {
        field = rest;
    }
    field
}

fn read_header(names: &[Vec<u8>]) -> Result<Columns, &'static str> {
    let names: Vec<_> = names.iter().map(|name| trim(name).to_ascii_lowercase()).collect();
    let places = |wanted: &str| (0..names.len()).filter(|place| names[*place] == wanted.as_bytes()).collect::<Vec<_>>();
    let required = ["campaign_id", "impressions", "clicks", "spend", "conversions"].map(places);
    if required.iter().any(Vec::is_empty) {
        return Err("missing_columns");
    }
    if required.iter().any(|places| places.len() > 1) {
        return Err("duplicate_columns");
    }
    let [campaign_id, impressions, clicks, spend, conversions] = required.map(|places| places[0]);
    Ok(Columns { count: names.len(), campaign_id, impressions, clicks, spend, conversions })
}

fn read_row(record: &Record, columns: &Columns) -> Result<(Vec<u8>, Totals), SkipReason> {
    let fields = record.fields.as_ref().ok_or(SkipReason::MalformedRecord)?;
    if fields.len() != columns.count {
        return Err(SkipReason::ColumnCount);
    }
    let field = |place: usize| trim(&fields[place]);
    let id = field(columns.campaign_id);
    if id.is_empty() || id.len() > 256 || std::str::from_utf8(id).is_err() {
        return Err(SkipReason::CampaignId);
    }
    let impressions = read_count(field(columns.impressions)).ok_or(SkipReason::Impressions)?;
    let clicks = read_count(field(columns.clicks)).ok_or(SkipReason::Clicks)?;
    let spend = read_spend(field(columns.spend)).ok_or(SkipReason::Spend)?;
    let conversions = read_count(field(columns.conversions)).ok_or(SkipReason::Conversions)?;
    Ok((id.to_vec(), Totals { impressions, clicks, spend, conversions }))
}

/// A number that is not negative, written out: its digits before and behind the point, without zeros that say nothing.
struct Written {
    whole: String,
    fraction: String,
}

/// Writes out a number of the grammar. `None` when it is not one, or negative.
fn write_out(field: &[u8]) -> Option<Written> {
    let field = std::str::from_utf8(field).ok()?;
    let (mantissa, exponent) = match field.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
        None => (field, 0),
    };
    let is_negative = mantissa.starts_with('-');
    let digits = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if all.bytes().all(|byte| byte == b'0') {
        return Some(Written { whole: String::new(), fraction: String::new() });
    }
    // A point that leaves the digits by more than a hundred places might as well leave them by exactly so many: the value
    // is far too large, or far less than a half of the last decimal, both times.
    let len = i64::try_from(all.len()).unwrap();
    let point = (i64::try_from(whole.len()).unwrap() + exponent).clamp(-100, len + 100);
    let zeros = |count: i64| "0".repeat(usize::try_from(count.max(0)).unwrap());
    let padded = format!("{}{all}{}", zeros(-point), zeros(point - len));
    let (whole, fraction) = padded.split_at(usize::try_from(point.max(0)).unwrap());
    let written =
        Written { whole: whole.trim_start_matches('0').into(), fraction: fraction.trim_end_matches('0').into() };
    (!is_negative).then_some(written)
}

/// Exponents too large to be told apart are cut.
fn read_exponent(text: &str) -> Option<i64> {
    const FAR: i64 = 1 << 40;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    let size = if significant.is_empty() { 0 } else { significant.parse().unwrap_or(FAR).min(FAR) };
    Some(if text.starts_with('-') { -size } else { size })
}

/// Compares whole numbers without leading zeros.
fn compare_digits(left: &str, right: &str) -> Ordering {
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

fn read_count(field: &[u8]) -> Option<u128> {
    let Written { whole, fraction } = write_out(field)?;
    let is_acceptable = fraction.is_empty() && compare_digits(&whole, "9223372036854775807").is_le();
    is_acceptable.then(|| if whole.is_empty() { 0 } else { whole.parse().unwrap() })
}

/// The spend that a field means, in units of 10^-12.
pub(crate) fn read_spend(field: &[u8]) -> Option<u128> {
    let Written { whole, fraction } = write_out(field)?;
    let most = compare_digits(&whole, "1000000000000000");
    if most.is_gt() || (most.is_eq() && !fraction.is_empty()) {
        return None;
    }
    let (kept, rest) = fraction.split_at(fraction.len().min(12));
    let units: u128 = format!("0{whole}{kept:0<12}").parse().unwrap();
    // Digits behind the point compare like text, as there are no zeros at their end.
    let round_up = match rest.cmp("5") {
        Ordering::Less => false,
        Ordering::Equal => units % 2 == 1,
        Ordering::Greater => true,
    };
    Some(units + u128::from(round_up))
}

/// Compares two fractions: their whole parts, and if these are equal, what is left, upside down.
fn compare_fractions(left: (u128, u128), right: (u128, u128)) -> Ordering {
    let ((a, b), (c, d)) = (left, right);
    let order = (a / b).cmp(&(c / d));
    if order.is_ne() {
        return order;
    }
    match (a % b, c % d) {
        (0, 0) => Ordering::Equal,
        (0, _) => Ordering::Less,
        (_, 0) => Ordering::Greater,
        (left_rest, right_rest) => compare_fractions((d, right_rest), (b, left_rest)),
    }
}

/// The list by clicks per impression.
pub(crate) fn top_ctr(campaigns: &BTreeMap<Vec<u8>, Totals>, top: usize) -> String {
    let ctr = |totals: &Totals| if totals.impressions == 0 { (0, 1) } else { (totals.clicks, totals.impressions) };
    let mut ranked: Vec<_> = campaigns.iter().collect();
    // The map is in the order of the ids, and sorting keeps that among equals.
    ranked.sort_by(|(_, left), (_, right)| {
        compare_fractions(ctr(right), ctr(left)).then_with(|| right.spend.cmp(&left.spend))
    });
    table(ranked.into_iter().take(top))
}

/// The list by spend per conversion.
pub(crate) fn top_cpa(campaigns: &BTreeMap<Vec<u8>, Totals>, top: usize) -> String {
    let mut ranked: Vec<_> = campaigns.iter().filter(|(_, totals)| totals.conversions > 0).collect();
    ranked.sort_by(|(_, left), (_, right)| {
        compare_fractions((left.spend, left.conversions), (right.spend, right.conversions))
            .then_with(|| right.spend.cmp(&left.spend))
    });
    table(ranked.into_iter().take(top))
}

fn table<'a>(campaigns: impl Iterator<Item = (&'a Vec<u8>, &'a Totals)>) -> String {
    let mut table = String::from("campaign_id,total_impressions,total_clicks,total_spend,total_conversions,CTR,CPA\n");
    for (id, totals) in campaigns {
        let Totals { impressions, clicks, spend, conversions } = totals;
        let ctr = match impressions {
            0 => "0.0000".into(),
            _ => decimal(clicks * 10_000, *impressions, 4),
        };
        let cpa = match conversions {
            0 => String::new(),
            _ => decimal(*spend, 10_000_000_000 * conversions, 2),
        };
        let fields = [
            quote(std::str::from_utf8(id).unwrap()),
            impressions.to_string(),
            clicks.to_string(),
            decimal(*spend, 10_000_000_000, 2),
            conversions.to_string(),
            ctr,
            cpa,
        ];
        table += &fields.join(",");
        table.push('\n');
    }
    table
}

fn quote(field: &str) -> String {
    if field.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.into() }
}

/// A fraction, given in units of its last decimal, rounded half up.
fn decimal(numerator: u128, denominator: u128, decimals: usize) -> String {
    let rounded = (2 * numerator + denominator) / (2 * denominator);
    let digits = format!("{rounded:0>width$}", width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    format!("{whole}.{fraction}")
}

#[test]
fn the_oracle_knows_the_contract() {
    let rules = Rules { delimiter: b',', has_header: true, max_record_bytes: 20 };
    let fields = |text: &str| {
        let found = records(text.as_bytes(), rules);
        found.iter().map(|record| (record.line, record.byte_offset, record.fields.clone())).collect::<Vec<_>>()
    };
    let record =
        |line, offset, of: &[&str]| (line, offset, Some(of.iter().map(|field| field.as_bytes().to_vec()).collect()));
    assert_eq!(fields("a,b\r\n\r\"c\r\n\"\"\"d,\n"), [record(1, 0, &["a", "b"]), record(3, 6, &["c\r\n\"d", ""])]);
    assert_eq!(fields("a\n\"b"), [record(1, 0, &["a"]), (2, 2, None)]);
    assert_eq!(fields("12345678901234567890\n1"), [record(1, 0, &["12345678901234567890"]), record(2, 21, &["1"])]);
    assert_eq!(fields("123456789012345678901\n1"), [(1, 0, None), record(2, 22, &["1"])]);
    for (text, count, spend) in [
        ("007", Some(7), Some(7_000_000_000_000)),
        ("-0.0", Some(0), Some(0)),
        ("1.5e1", Some(15), Some(15_000_000_000_000)),
        ("25e-13", None, Some(2)),
        ("35e-13", None, Some(4)),
        ("1e-99999999999999999999", None, Some(0)),
        ("9223372036854775807", Some(9_223_372_036_854_775_807), None),
        ("9223372036854775808", None, None),
        ("1e15", Some(1_000_000_000_000_000), Some(1_000_000_000_000_000_000_000_000_000)),
        ("1000000000000000.0000000000000001", None, None),
        ("-1", None, None),
        ("1e", None, None),
        (".", None, None),
        ("1+1", None, None),
    ] {
        assert_eq!((read_count(text.as_bytes()), read_spend(text.as_bytes())), (count, spend), "{text}");
    }
    assert_eq!(compare_fractions((1, 3), (33, 100)), Ordering::Greater);
    assert_eq!(compare_fractions((2, 6), (1, 3)), Ordering::Equal);
    assert_eq!([decimal(4, 1000, 2), decimal(25, 10, 2), decimal(123_449, 10, 4)], ["0.00", "0.03", "1.2345"]);
}
