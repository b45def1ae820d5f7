//! The documents: CSV tables and the statistics.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use csv_async::{AsyncWriter, ByteRecord};
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};

use super::aggregate::{Aggregate, Reject};
use super::number::{Conversions, Money};
use super::rank::Metric;
use super::reading::{KeyedBy, Reading};
use super::record::Position;
use super::reject_log::{RejectLog, RejectRow, SHOWN_RECORD_BYTES};
use super::totals::CampaignTotals;

/// The columns of every table of campaigns.
pub const CAMPAIGN_COLUMNS: [&str; 7] =
    ["campaign_id", "total_impressions", "total_clicks", "total_spend", "total_conversions", "CTR", "CPA"];

/// Clicks per impression with 4 decimals, rounded half up from the exact value; 0 without impressions.
pub struct Ctr {
    clicks: u128,
    impressions: u128,
}

impl fmt::Display for Ctr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.impressions == 0 {
            return f.write_str("0.0000");
        }
        let (mut whole, mut rest) = (self.clicks / self.impressions, self.clicks % self.impressions);
        let mut decimals = 0;
        for _ in 0..4 {
            // Totals stay far enough below 2^128 for ten times a remainder.
            decimals = decimals * 10 + rest * 10 / self.impressions;
            rest = rest * 10 % self.impressions;
        }
        decimals += u128::from(rest >= self.impressions - rest);
        if decimals == 10_000 {
            (whole, decimals) = (whole + 1, 0);
        }
        write!(f, "{whole}.{decimals:04}")
    }
}

/// Spend per conversion with 2 decimals, rounded half up from the exact value; empty without conversions.
pub struct Cpa {
    spend: Money,
    conversions: Conversions,
}

impl fmt::Display for Cpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spend, conversions } = *self;
        if conversions.are_none() {
            return Ok(());
        }
        if conversions.units() == 0 {
            // What the division drops is less than one unit, and half a cent is a whole number of units: rounding cannot
            // tell the difference.
            return Money(spend.0 / conversions.whole()).fmt(f);
        }
        // Totals with decimals stay far enough below 2^128 units for ten times a remainder.
        let units = conversions.checked_units().unwrap_or(u128::MAX / 16);
        let (mut cents, mut rest) = (spend.0 / units, spend.0 % units);
        for _ in 0..2 {
            cents = cents * 10 + rest * 10 / units;
            rest = rest * 10 % units;
        }
        cents += u128::from(rest >= units - rest);
        write!(f, "{}.{:02}", cents / 100, cents % 100)
    }
}

impl CampaignTotals<'_> {
    /// The click-through rate, ready to print.
    #[must_use]
    pub fn ctr(&self) -> Ctr {
        Ctr { clicks: self.clicks, impressions: self.impressions }
    }

    /// The cost per acquisition, ready to print.
    #[must_use]
    pub fn cpa(&self) -> Cpa {
        Cpa { spend: self.spend, conversions: self.conversions }
    }

    /// The id as text.
    #[must_use]
    pub fn id_text(&self) -> &str {
        // Only UTF-8 ids are ever counted.
        std::str::from_utf8(self.campaign_id).unwrap_or_default()
    }

    /// Fills a record with the fields of [`CAMPAIGN_COLUMNS`].
    fn fill(&self, record: &mut ByteRecord) {
        let Self { campaign_id, impressions, clicks, spend, conversions } = self;
        record.clear();
        record.push_field(campaign_id);
        for field in [impressions.to_string(), clicks.to_string(), spend.to_string(), conversions.to_string()] {
            record.push_field(field.as_bytes());
        }
        record.push_field(self.ctr().to_string().as_bytes());
        record.push_field(self.cpa().to_string().as_bytes());
    }
}

/// Writing to a string cannot fail.
fn push_display(out: &mut String, arguments: fmt::Arguments<'_>) {
    let _ = out.write_fmt(arguments);
}

/// Appends a field, in quotes only where RFC 4180 needs them.
fn push_field(out: &mut String, field: &str) {
    if field.contains([',', '"', '\r', '\n']) {
        push_display(out, format_args!("\"{}\"", field.replace('"', "\"\"")));
    } else {
        out.push_str(field);
    }
}

/// The file name of the list of the first `top` campaigns.
#[must_use]
pub fn list_name(metric: Metric, top: u16) -> String {
    match metric {
        Metric::Ctr => format!("top{top}_ctr.csv"),
        Metric::Cpa => format!("top{top}_cpa.csv"),
    }
}

/// The header line of every table of campaigns.
#[must_use]
pub fn campaign_header() -> String {
    CAMPAIGN_COLUMNS.join(",") + "\n"
}

/// The next lines of a table of campaigns, which end soon behind `piece_bytes`; nothing when there are none. So a table of any size
/// never is in memory as a whole.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "it does not")]
pub fn campaign_lines<'a>(campaigns: &mut impl Iterator<Item = CampaignTotals<'a>>, piece_bytes: usize) -> Vec<u8> {
    let lines = async {
        let mut writer = AsyncWriter::from_writer(Vec::new());
        let mut record = ByteRecord::new();
        let mut bytes = 0;
        while bytes < piece_bytes
            && let Some(campaign) = campaigns.next()
        {
            campaign.fill(&mut record);
            // With the commas and the line end.
            bytes += record.as_slice().len() + record.len();
            writer.write_byte_record(&record).await?;
        }
        Ok::<_, csv_async::Error>(writer.into_inner().await)
    };
    #[expect(clippy::expect_used, reason = "memory takes everything at once, without an error")]
    let lines = lines.now_or_never().and_then(Result::ok).and_then(Result::ok).expect("lines in memory");
    lines
}

/// A table of campaigns, header included.
#[must_use]
pub fn campaign_table(campaigns: &[CampaignTotals<'_>]) -> String {
    // Only UTF-8 ids are ever counted.
    campaign_header() + &String::from_utf8_lossy(&campaign_lines(&mut campaigns.iter().copied(), usize::MAX))
}

/// The table of skipped rows: `line,byte_offset,reason,record`, and `file` when the rows of several files are in it.
#[must_use]
pub fn rejects_table(rejects: &[Reject], with_files: bool) -> String {
    let mut table = rejects_header(with_files);
    push_rejects(&mut table, rejects, with_files);
    table
}

/// The table of all skipped rows that are kept, in pieces of about this size: so it never is in memory as a whole. Without a log of rejects, it
/// is that of the first ones. When rows are missing because of the limit, its last line says so.
pub fn rejects_pieces(aggregate: &Aggregate, with_files: bool, piece_bytes: usize) -> impl Iterator<Item = String> {
    let log = aggregate.reject_log.as_ref();
    let mut table = rejects_header(with_files);
    let mut chunks = log.into_iter().flat_map(RejectLog::chunks);
    let mut has_ended = false;
    std::iter::from_fn(move || {
        while table.len() < piece_bytes && !has_ended {
            if let Some(chunk) = chunks.next() {
                let file = with_files.then(|| chunk.file());
                chunk.rows().for_each(|row| push_reject(&mut table, row, file));
                continue;
            }
            has_ended = true;
            match log {
                Some(log) if log.is_full() => push_limit_line(&mut table, aggregate, log, with_files),
                Some(_) => {}
                None => push_rejects(&mut table, aggregate.rejects(), with_files),
            }
        }
        Some(std::mem::take(&mut table)).filter(|table| !table.is_empty())
    })
}

fn rejects_header(with_files: bool) -> String {
    let columns = if with_files { "line,byte_offset,reason,record,file\n" } else { "line,byte_offset,reason,record\n" };
    columns.into()
}

fn push_rejects(table: &mut String, rejects: &[Reject], with_files: bool) {
    for Reject { line, byte_offset, reason, record, file } in rejects {
        let position = Position { line: *line, byte_offset: *byte_offset };
        push_reject(table, RejectRow { position, reason: *reason, record }, with_files.then_some(file));
    }
}

fn push_reject(table: &mut String, row: RejectRow<'_>, file: Option<&str>) {
    let Position { line, byte_offset } = row.position;
    push_display(table, format_args!("{line},{byte_offset},{},", row.reason));
    push_field(table, &shown_text(row.record));
    if let Some(file) = file {
        table.push(',');
        push_field(table, file);
    }
    table.push('\n');
}

fn push_limit_line(table: &mut String, aggregate: &Aggregate, log: &RejectLog, with_files: bool) {
    let missing = aggregate.counters().rows_skipped().saturating_sub(log.rows());
    let (limit, end) = (log.max_bytes(), if with_files { ",\n" } else { "\n" });
    let sentence = format_args!("{missing} more skipped rows are not listed: max_rejects_bytes is {limit}");
    push_display(table, format_args!(",,limit_reached,{sentence}{end}"));
}

/// Bytes as text. A character that the cut at [`SHOWN_RECORD_BYTES`] broke is left out, other bytes that are no UTF-8 show
/// as U+FFFD.
fn shown_text(record: &[u8]) -> String {
    let mut text = String::with_capacity(record.len());
    let mut chunks = record.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let is_cut = chunks.peek().is_none()
            && record.len() == SHOWN_RECORD_BYTES
            && std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
        if !chunk.invalid().is_empty() && !is_cut {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

/// The statistics of a finished run: the contents of `stats.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Data records: neither blank lines nor headers.
    pub rows_read: u64,
    /// Data records that did not count.
    pub rows_skipped: u64,
    /// Those of them that were skipped for another reason than their campaign id.
    pub parse_errors: u64,
    /// Campaigns with at least one row that counted.
    pub unique_campaigns: u64,
    /// Skipped rows by reason; reasons without rows are left out.
    pub skipped: BTreeMap<super::row::SkipReason, u64>,
    /// Bytes of text: after decompression, decoded to UTF-8, byte-order marks not included.
    pub bytes_read: u64,
    /// From the start to the totals; writing them is not included.
    pub elapsed_seconds: f64,
    /// `rows_read` per second.
    pub rows_per_second: f64,
    /// What was found out about files that were read in a dialect; none when there was none.
    #[serde(flatten)]
    pub readings: Option<ReadingStats>,
}

/// What was found out about files that were read in a dialect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadingStats {
    /// Records before the headers.
    pub rows_preamble: u64,
    /// Rows that are sums of others.
    pub rows_total: u64,
    /// Records behind the end of the data.
    pub rows_footer: u64,
    /// Warnings about the results, of all files.
    pub warnings: Vec<String>,
    /// Each file for itself.
    pub files: Vec<FileStats>,
}

/// What was found out about a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileStats {
    /// Its name; empty for the only input of the command.
    pub name: String,
    /// The byte between two fields, or `tab`.
    pub delimiter: String,
    /// The decimal mark; none when no row has shown it.
    pub decimal: Option<char>,
    /// The line of the header.
    pub header_line: Option<u64>,
    /// The name in the header that each field was found by.
    pub columns: BTreeMap<String, String>,
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
    /// The sum of the spends of all totals, with 2 decimals.
    pub total_spend: String,
    /// The file's own total beside the sum of its rows; none when it has none that could be compared.
    pub totals_check: Option<CheckStats>,
    /// Warnings about the results.
    pub warnings: Vec<String>,
}

/// The total that a file has of its rows, beside their sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckStats {
    /// `equal` or `different`.
    pub result: String,
    /// The line of the total.
    pub line: u64,
    /// What differs.
    pub different: Vec<String>,
}

impl FileStats {
    fn new(reading: &Reading) -> Self {
        let columns = reading.columns.iter().map(|(field, name)| (field.name().to_owned(), name.clone()));
        Self {
            name: reading.file.clone(),
            delimiter: reading.delimiter.to_string(),
            decimal: reading.decimal,
            header_line: reading.header_line,
            columns: columns.collect(),
            keyed_by: reading.keyed_by,
            rows_preamble: reading.rows_preamble,
            rows_total: reading.rows_total,
            rows_footer: reading.rows_footer,
            total_lines: reading.total_lines.clone(),
            total_spend: reading.total_spend.to_string(),
            totals_check: reading.totals_check.as_ref().map(|check| CheckStats {
                result: if check.is_equal { "equal".into() } else { "different".into() },
                line: check.line,
                different: check.different.clone(),
            }),
            warnings: reading.warnings.clone(),
        }
    }
}

/// Warnings about several files together.
fn warnings_of_all(readings: &[Reading]) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut currencies: Vec<_> = readings.iter().filter_map(Reading::shown_currency).collect();
    currencies.sort_unstable();
    currencies.dedup();
    if currencies.len() > 1 {
        warnings.push(format!("the files are in several currencies, which have no sum: {}", currencies.join(", ")));
    }
    if readings.iter().any(|reading| reading.keyed_by != readings[0].keyed_by) {
        warnings.push("some files are added up by the campaign's id, others by its name".into());
    }
    warnings
}

impl ReadingStats {
    fn new(readings: &[Reading]) -> Option<Self> {
        if readings.is_empty() {
            return None;
        }
        let sum = |rows: fn(&Reading) -> u64| readings.iter().map(rows).fold(0, u64::saturating_add);
        let named = |reading: &Reading, warning: &String| match reading.file.as_str() {
            "" => warning.clone(),
            file => format!("{file}: {warning}"),
        };
        let of_file = |reading: &'_ Reading| -> Vec<_> {
            reading.warnings.iter().map(|warning| named(reading, warning)).collect()
        };
        Some(Self {
            rows_preamble: sum(|reading| reading.rows_preamble),
            rows_total: sum(|reading| reading.rows_total),
            rows_footer: sum(|reading| reading.rows_footer),
            warnings: readings.iter().flat_map(of_file).chain(warnings_of_all(readings)).collect(),
            files: readings.iter().map(FileStats::new).collect(),
        })
    }
}

impl Stats {
    /// The statistics of a run that took `elapsed_seconds`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is an approximation")]
    pub fn new(aggregate: &Aggregate, elapsed_seconds: f64) -> Self {
        let counters = aggregate.counters();
        let rate = if elapsed_seconds > 0.0 { counters.rows_read as f64 / elapsed_seconds } else { 0.0 };
        Self {
            rows_read: counters.rows_read,
            rows_skipped: counters.rows_skipped(),
            parse_errors: counters.parse_errors(),
            unique_campaigns: aggregate.unique_campaigns() as u64,
            skipped: counters.skipped().collect(),
            bytes_read: counters.bytes_read,
            // Further digits would be below the precision of the clock.
            elapsed_seconds: (elapsed_seconds * 1e6).round() / 1e6,
            rows_per_second: (rate * 10.0).round() / 10.0,
            readings: ReadingStats::new(aggregate.readings()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpa_shows_two_decimals_rounded_half_up_also_of_a_part_of_a_conversion() {
        const CENT: u128 = Money::UNITS_PER_CENT;
        for (spend, whole, units, shown) in [
            (100 * CENT, 0, 0, ""),
            (100 * CENT, 3, 0, "0.33"),
            (100 * CENT, 2, 500_000_000_000, "0.40"),
            (100 * CENT, 0, 1, "1000000000000.00"),
            (1, 0, 200, "0.01"),
            (1, 0, 201, "0.00"),
            (u128::MAX / 2, 1 << 83, 1, "17.59"),
        ] {
            let cpa = Cpa { spend: Money(spend), conversions: Conversions::new(whole, units) };
            assert_eq!(cpa.to_string(), shown, "{spend} / {whole} + {units}");
        }
    }

    #[test]
    fn ctr_shows_four_decimals_rounded_half_up() {
        let huge = 1 << 120;
        for (clicks, impressions, shown) in [
            (0, 0, "0.0000"),
            (5, 0, "0.0000"),
            (1, 3, "0.3333"),
            (2, 3, "0.6667"),
            (1, 20_000, "0.0001"),
            (1, 20_001, "0.0000"),
            (99_995, 100_000, "1.0000"),
            (7, 2, "3.5000"),
            (huge, 1, "1329227995784915872903807060280344576.0000"),
            (1, huge, "0.0000"),
            (huge - 1, huge, "1.0000"),
        ] {
            assert_eq!(Ctr { clicks, impressions }.to_string(), shown, "{clicks}/{impressions}");
        }
    }
}
