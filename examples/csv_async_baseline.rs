//! The same job done with the `csv-async` crate, as a yardstick for `benches/compare.py`.
//!
//! Usage: `csv_async_baseline FILE OUTPUT_DIR`
//!
//! It reads the six columns in their usual order, keeps integer cents in a `HashMap` and writes `top10_ctr.csv` and
//! `top10_cpa.csv`. Rows that are not plain (a wrong number of fields, an empty id, anything but unsigned digits with
//! at most two decimals in the spend) are skipped and counted. That is enough for generated files; the full meaning of
//! a row is the business of `adtally` itself.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use csv_async::{AsyncReaderBuilder, ByteRecord};

const COLUMNS: [&str; 6] = ["campaign_id", "date", "impressions", "clicks", "spend", "conversions"];
const TOP: usize = 10;
/// Large enough that the time spent on asking for more input does not matter.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Default)]
struct Totals {
    impressions: u64,
    clicks: u64,
    cents: u64,
    conversions: u64,
}

struct Row<'a> {
    id: &'a [u8],
    impressions: u64,
    clicks: u64,
    cents: u64,
    conversions: u64,
}

type Table = HashMap<Vec<u8>, Totals>;
type Entry<'a> = (&'a [u8], &'a Totals);

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(input), Some(output), None) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: csv_async_baseline FILE OUTPUT_DIR");
        return ExitCode::from(2);
    };
    match run(&input, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", input.display());
            ExitCode::FAILURE
        }
    }
}

fn run(input: &Path, output: &Path) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (table, skipped) = runtime.block_on(aggregate(input))?;
    if skipped > 0 {
        eprintln!("rows_skipped: {skipped}");
    }
    fs::create_dir_all(output)?;

    let mut entries: Vec<Entry> = table.iter().map(|(id, totals)| (id.as_slice(), totals)).collect();
    entries.sort_unstable_by(by_ctr);
    write_report(&output.join("top10_ctr.csv"), &entries)?;
    entries.retain(|(_, totals)| totals.conversions > 0);
    entries.sort_unstable_by(by_cpa);
    write_report(&output.join("top10_cpa.csv"), &entries)?;
    Ok(())
}

async fn aggregate(input: &Path) -> Result<(Table, u64), Box<dyn Error>> {
    let file = tokio::fs::File::open(input).await?;
    let mut reader = AsyncReaderBuilder::new()
        // A row with too few or too many fields must be one skipped row, not the end of the job.
        .flexible(true)
        .buffer_capacity(BUFFER_BYTES)
        .create_reader(file);
    let header = reader.byte_headers().await?;
    if !header.iter().eq(COLUMNS.iter().map(|name| name.as_bytes())) {
        return Err(format!("expected the header {}", COLUMNS.join(",")).into());
    }

    let mut table = Table::new();
    let mut skipped = 0_u64;
    // One record for the whole file: a fresh one per row would measure the allocator.
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).await? {
        match read_row(&record) {
            Some(row) => add(&mut table, &row)?,
            None => skipped += 1,
        }
    }
    Ok((table, skipped))
}

fn read_row(record: &ByteRecord) -> Option<Row<'_>> {
    if record.len() != COLUMNS.len() {
        return None;
    }
    let id = record.get(0)?.trim_ascii();
    if id.is_empty() {
        return None;
    }
    Some(Row {
        id,
        impressions: whole(record.get(2)?)?,
        clicks: whole(record.get(3)?)?,
        cents: cents(record.get(4)?)?,
        conversions: whole(record.get(5)?)?,
    })
}

fn add(table: &mut Table, row: &Row) -> Result<(), &'static str> {
    // Looked up before inserting, so that only a new campaign costs an allocation.
    let totals = match table.get_mut(row.id) {
        Some(totals) => totals,
        None => table.entry(row.id.to_vec()).or_default(),
    };
    let sum = |a: u64, b: u64| a.checked_add(b).ok_or("a total is larger than this example can hold");
    totals.impressions = sum(totals.impressions, row.impressions)?;
    totals.clicks = sum(totals.clicks, row.clicks)?;
    totals.cents = sum(totals.cents, row.cents)?;
    totals.conversions = sum(totals.conversions, row.conversions)?;
    Ok(())
}

fn whole(field: &[u8]) -> Option<u64> {
    let field = field.trim_ascii();
    if field.is_empty() {
        return None;
    }
    digits(0, field)
}

/// Money as integer cents: no float, so no rounding to think about.
fn cents(field: &[u8]) -> Option<u64> {
    let field = field.trim_ascii();
    let Some(dot) = field.iter().position(|&byte| byte == b'.') else {
        return whole(field)?.checked_mul(100);
    };
    let (units, decimals) = (&field[..dot], &field[dot + 1..]);
    let scale = match decimals.len() {
        1 => 10,
        2 => 1,
        _ => return None,
    };
    digits(whole(units)?, decimals)?.checked_mul(scale)
}

fn digits(start: u64, text: &[u8]) -> Option<u64> {
    text.iter().try_fold(start, |value, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Compares `a / b` with `c / d` exactly; the two products fit because all four are `u64`.
fn compare_fractions((a, b): (u64, u64), (c, d): (u64, u64)) -> Ordering {
    (u128::from(a) * u128::from(d)).cmp(&(u128::from(c) * u128::from(b)))
}

/// Clicks per impression; no impressions count as zero.
fn ctr(totals: &Totals) -> (u64, u64) {
    if totals.impressions == 0 { (0, 1) } else { (totals.clicks, totals.impressions) }
}

fn by_ctr(a: &Entry, b: &Entry) -> Ordering {
    compare_fractions(ctr(b.1), ctr(a.1)).then_with(|| on_a_tie(a, b))
}

fn by_cpa(a: &Entry, b: &Entry) -> Ordering {
    compare_fractions((a.1.cents, a.1.conversions), (b.1.cents, b.1.conversions)).then_with(|| on_a_tie(a, b))
}

fn on_a_tie(a: &Entry, b: &Entry) -> Ordering {
    b.1.cents.cmp(&a.1.cents).then_with(|| a.0.cmp(b.0))
}

fn write_report(path: &Path, ranked: &[Entry]) -> std::io::Result<()> {
    let mut text = Vec::new();
    writeln!(text, "campaign_id,total_impressions,total_clicks,total_spend,total_conversions,CTR,CPA")?;
    for (id, totals) in ranked.iter().take(TOP) {
        write_id(&mut text, id)?;
        let (clicks, impressions) = ctr(totals);
        let ctr = decimal(rounded(u128::from(clicks) * 10_000, impressions), 4);
        let spend = decimal(u128::from(totals.cents), 2);
        let cpa = match totals.conversions {
            0 => String::new(),
            conversions => decimal(rounded(u128::from(totals.cents), conversions), 2),
        };
        let Totals { impressions, clicks, conversions, .. } = totals;
        writeln!(text, ",{impressions},{clicks},{spend},{conversions},{ctr},{cpa}")?;
    }
    fs::write(path, text)
}

fn write_id(text: &mut Vec<u8>, id: &[u8]) -> std::io::Result<()> {
    if !id.iter().any(|byte| b",\"\r\n".contains(byte)) {
        return text.write_all(id);
    }
    text.push(b'"');
    for &byte in id {
        if byte == b'"' {
            text.push(b'"');
        }
        text.push(byte);
    }
    text.push(b'"');
    Ok(())
}

/// The quotient rounded half up.
fn rounded(numerator: u128, denominator: u64) -> u128 {
    let denominator = u128::from(denominator);
    (2 * numerator + denominator) / (2 * denominator)
}

fn decimal(value: u128, places: u32) -> String {
    let one = 10_u128.pow(places);
    format!("{}.{:0width$}", value / one, value % one, width = places as usize)
}
