//! Writes advertising CSV data of any size to standard output.
//!
//! Two modes share one row format and one way of drawing values:
//!
//! * **Free** (`--campaigns M`): every row picks one of M campaigns and draws each value from the
//!   distribution of the public data set (see [`RULES`]).
//! * **Totals** (`--totals CSV`): the sums per campaign come out exactly as listed. The rows are split
//!   over the campaigns in proportion to their impressions. Each row then draws its values from the
//!   same distributions, only centred on the average of what its campaign still has to give, so the
//!   random walk is pulled back all the time and the last row can take precisely the remainder and
//!   still look like any other. Memory is O(campaigns), whatever the number of rows.
//!
//! All arithmetic is on integers (spend in cents, rates in fixed point), so the same seed gives the
//! same bytes on every machine. Bad rows come from a random stream of their own: the good rows of a
//! file do not depend on how many bad ones stand between them in totals mode.
//!
//! Reports of an advertising platform (`--report`) have another row format and values of their own, see `report.rs`.

mod output;
mod report;

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use output::{Output, dates};

/// Write advertising CSV data to standard output, the same bytes for the same options.
#[derive(Parser)]
#[command(name = "generate_ads")]
struct Args {
    /// Number of data rows, bad ones included; with --totals only the good rows are counted
    #[arg(long, value_name = "N")]
    rows: u64,

    /// Number of campaigns, CMP001 and up; with --totals the file decides and this may be left out
    #[arg(long, value_name = "M", required_unless_present = "totals",
          value_parser = clap::value_parser!(u64).range(1..))]
    campaigns: Option<u64>,

    /// Seed of the random numbers
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// End lines with CR LF instead of LF
    #[arg(long)]
    crlf: bool,

    /// Put every field in quotes, the header too
    #[arg(long)]
    quoted: bool,

    /// Share of bad rows in percent of all rows, up to 4 decimals: wrong column count, empty id, and
    /// text, negative, empty or fractional numbers. With --totals they come on top of the N good rows
    /// and do not count in the totals. How many there are of each kind is printed to standard error
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    bad_rows: u64,

    /// CSV of totals to hit exactly, one line per campaign: id, impressions, clicks, spend and
    /// conversions under their usual header, unquoted; further columns are ignored. N must be at least
    /// the number of campaigns. Values leave their usual ranges only where the totals demand it
    #[arg(long, value_name = "CSV")]
    totals: Option<PathBuf>,

    /// How the ids of campaigns look
    #[arg(long, value_enum, default_value_t = Ids::Short, conflicts_with_all = ["totals", "report"])]
    ids: Ids,

    /// Write a report as this platform exports it, with rows of totals at its end
    #[arg(long, value_name = "PLATFORM", conflicts_with_all = ["crlf", "quoted", "bad_rows", "totals"])]
    report: Option<Report>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ids {
    /// CMP001 and up
    Short,
    /// 18 digits, as large platforms number their campaigns
    Digits,
    /// 36 characters
    Uuid,
}

#[derive(Clone, Copy, ValueEnum)]
enum Report {
    #[value(name = "google_ads")]
    GoogleAds,
}

/// The whole in units of `--bad-rows`: a percent with 4 decimals is a count of millionths.
const MILLION: u64 = 1_000_000;

fn percent(text: &str) -> Result<u64, String> {
    fixed(text, 4)
        .filter(|&parts| parts <= MILLION)
        .ok_or_else(|| "a number from 0 to 100 with at most 4 decimals is needed".to_owned())
}

/// Reads a plain decimal number as a count of its last place, `12.5` with 2 decimals as 1250.
fn fixed(text: &str, decimals: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction:0<decimals$}");
    let plain = !whole.is_empty() && fraction.len() <= decimals && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// `SplitMix64`: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014;
/// the constants are those of Vigna's public domain <https://prng.di.unimi.it/splitmix64.c>.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to and without `end`. The high half of the product needs no division; its bias is
    /// at most `end` / 2^64.
    fn below(&mut self, end: u64) -> u64 {
        self.next().carrying_mul(end, 0).1
    }

    fn index(&mut self, len: usize) -> usize {
        let end = u64::try_from(len).unwrap_or(0);
        usize::try_from(self.below(end)).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }
}

/// The rate 1 in fixed point.
const ONE: u64 = 1 << 20;
const HALF: u64 = ONE / 2;

/// Largest total (and number of rows) in totals mode: keeps `total * ONE` and its double in 64 bits.
const LIMIT: u64 = 1 << 42;

fn scaled(rate: u64, whole: u64, rounding: u64) -> u64 {
    let product = u128::from(rate) * u128::from(whole) + u128::from(rounding);
    u64::try_from(product / u128::from(ONE)).unwrap_or(u64::MAX)
}

/// The numbers of one row, or of all rows a campaign still has to give: number of rows, impressions,
/// clicks, spend in cents, conversions.
type Values = [u64; 5];

/// The index in `Values` from which each value follows.
const FROM: [usize; 5] = [0, 0, 1, 2, 2];

/// How a value follows from another: `whole` x U(low, high), made an integer by adding the third
/// number and cutting the fraction off, that is rounded with `HALF`.
type Rule = (u64, u64, u64);

/// The public data set. Of impressions, every integer from 1,000 to 50,000 is equally likely.
const RULES: [Rule; 4] = [
    (1_000 * ONE, 50_001 * ONE - 1, 0),
    (ONE * 5 / 1_000, ONE * 50 / 1_000, 0),
    (10 * ONE, 200 * ONE, HALF),
    (ONE / 100, ONE / 10, 0),
];

fn draw(rng: &mut Rng) -> Values {
    let mut row = [1, 0, 0, 0, 0];
    for (column, (low, high, rounding)) in (1..).zip(RULES) {
        let rate = low + rng.below(high - low + 1);
        row[column] = scaled(rate, row[FROM[column]], rounding);
    }
    row
}

/// What a campaign still has to give in totals mode.
struct Rest {
    name: String,
    values: Values,
    rules: [Rule; 4],
}

impl Rest {
    /// Widens the usual rules where a total lies beyond them.
    fn fit_rules(&mut self) {
        for (column, (low, high, _)) in (1..).zip(&mut self.rules) {
            let (whole, total) = (self.values[FROM[column]], self.values[column]);
            if total < scaled(*low, whole, 0) {
                *low = 0;
            }
            if total > scaled(*high, whole, 0) {
                // Up to 1 keeps clicks <= impressions and conversions <= clicks where the totals do.
                let average = (total * ONE).div_ceil(whole.max(1));
                *high = (*high).max(if total <= whole { ONE } else { 2 * average });
            }
        }
    }

    /// Every total lies between `low` and `high` times what it follows from at the first row, and the
    /// bounds `least` and `most` keep it there for the rows to come. So the last row can take all that
    /// is left, and no row leaves its range by more than one.
    fn take(&mut self, rng: &mut Rng) -> Values {
        let rows = self.values[0];
        if rows <= 1 {
            return std::mem::take(&mut self.values);
        }
        let before = self.values;
        let mut row = [1, 0, 0, 0, 0];
        self.values[0] -= 1;
        for (column, &(low, high, rounding)) in (1..).zip(&self.rules) {
            let (whole, total) = (before[FROM[column]], before[column]);
            let (piece, later) = (row[FROM[column]], whole - row[FROM[column]]);
            // Cutting off loses half a unit per row, which the average rate has to make up for.
            let mean = (total * ONE + rows * (HALF - rounding)) / whole.max(1);
            let mean = mean.max(low).min(high);
            let reach = (mean - low).min(high - mean);
            let rate = mean - reach + rng.below(2 * reach + 1);
            let least = total.saturating_sub(scaled(high, later, 0));
            let most = total.saturating_sub(scaled(low, later, 0));
            row[column] = scaled(rate, piece, rounding).max(least).min(most);
            self.values[column] = total - row[column];
        }
        row
    }
}

/// Draws campaigns without replacement, each as likely as it has rows left: the order of a shuffled
/// file without the file. A complete binary tree in which every inner node counts the rows to its left.
struct Shuffle {
    left: Vec<u64>,
    rows: u64,
}

impl Shuffle {
    fn new(rests: &[Rest]) -> Self {
        let leaves = rests.len().next_power_of_two();
        let mut sums = vec![0; leaves];
        sums.extend(rests.iter().map(|rest| rest.values[0]));
        sums.resize(2 * leaves, 0);
        let rows = sums[leaves..].iter().sum();
        let mut left = vec![0; leaves];
        for node in (1..leaves).rev() {
            left[node] = sums[2 * node];
            sums[node] = sums[2 * node] + sums[2 * node + 1];
        }
        Self { left, rows }
    }

    fn take(&mut self, rng: &mut Rng) -> usize {
        let mut row = rng.below(self.rows);
        self.rows -= 1;
        let mut node = 1;
        while let Some(left) = self.left.get_mut(node) {
            let right = row >= *left;
            // Without branches: which way to go is as good as a coin toss for the processor.
            row -= *left * u64::from(right);
            *left -= u64::from(!right);
            node = 2 * node + usize::from(right);
        }
        node - self.left.len()
    }
}

enum Source {
    Free(u64),
    Totals(Vec<Rest>, Shuffle),
}

#[derive(Clone, Copy)]
enum Id<'a> {
    Number(u64),
    Name(&'a str),
}

impl Source {
    fn totals(mut rests: Vec<Rest>, rows: u64) -> Result<Self, String> {
        let campaigns = u64::try_from(rests.len()).unwrap_or(u64::MAX);
        if rows < campaigns || rows > LIMIT {
            return Err(format!("{campaigns} campaigns need from {campaigns} to {LIMIT} rows, not {rows}"));
        }
        // One row each, and the others by impressions: rounded in the running sum, so none is lost.
        // The 1 is for totals without any impressions.
        let weight = |rest: &Rest| u128::from(rest.values[1]) + 1;
        let all: u128 = rests.iter().map(weight).sum();
        let (mut seen, mut given) = (0, 0);
        for rest in &mut rests {
            seen += weight(rest);
            let due = u64::try_from(u128::from(rows - campaigns) * seen / all).unwrap_or(given);
            rest.values[0] = 1 + due - given;
            given = due;
            rest.fit_rules();
        }
        let shuffle = Shuffle::new(&rests);
        Ok(Self::Totals(rests, shuffle))
    }

    fn good_row(&mut self, rng: &mut Rng) -> (Id<'_>, Values) {
        match self {
            Self::Free(_) => (self.any_id(rng), draw(rng)),
            Self::Totals(rests, shuffle) => {
                let rest = &mut rests[shuffle.take(rng)];
                let values = rest.take(rng);
                (Id::Name(&rest.name), values)
            }
        }
    }

    /// The id of any campaign, without taking a row from it.
    fn any_id(&self, rng: &mut Rng) -> Id<'_> {
        match self {
            Self::Free(campaigns) => Id::Number(1 + rng.below(*campaigns)),
            Self::Totals(rests, _) => Id::Name(&rng.pick(rests).name),
        }
    }
}

const TOTALS_HEADER: &str = "campaign_id,total_impressions,total_clicks,total_spend,total_conversions";

fn read_totals(path: &Path) -> Result<Vec<Rest>, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut lines = (1..).zip(text.lines());
    let header = lines.next().map_or("", |(_, line)| line);
    if !header.split(',').take(5).eq(TOTALS_HEADER.split(',')) {
        return Err(format!("the header must be {TOTALS_HEADER}"));
    }
    let mut rests = Vec::new();
    let mut known = HashSet::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let mut fields = line.split(',');
        let name = fields.next().unwrap_or("").trim();
        if name.is_empty() || name.len() > LONGEST_ID || line.contains(['"', '\r']) {
            return Err(format!("line {number}: the id must have 1 to {LONGEST_ID} bytes and no quote or CR"));
        }
        if !known.insert(name) {
            return Err(format!("line {number}: campaign {name} is listed twice"));
        }
        let mut values = [0; 5];
        for (value, decimals) in values[1..].iter_mut().zip([0, 0, 2, 0]) {
            *value =
                fields.next().and_then(|field| fixed(field, decimals)).filter(|&value| value <= LIMIT).ok_or_else(
                    || {
                        format!(
                            "line {number}: four totals are needed, whole but for two decimals of spend, \
                         from 0 to {LIMIT} (spend in cents)"
                        )
                    },
                )?;
        }
        rests.push(Rest { name: name.to_owned(), values, rules: RULES });
    }
    if rests.is_empty() {
        return Err("no campaign is listed".to_owned());
    }
    Ok(rests)
}

const HEADER: &str = "campaign_id,date,impressions,clicks,spend,conversions";
const COLUMNS: usize = 6;
const LONGEST_ID: usize = 256;

/// What makes a row bad: so many columns, and in the column of the second number (if there is such a
/// one) this text.
type Flaw = (usize, usize, &'static str);

const NO_FLAW: Flaw = (COLUMNS, COLUMNS, "");

const BAD_TEXTS: [(usize, &[&str]); 5] = [
    (0, &["", "   "]),
    (2, &["", "n/a", "-4500", "1200.5"]),
    (3, &["", "many", "-7", "3.25", "0x1F"]),
    (4, &["", "$12.50", "-0.01", "NaN", "1.2.3"]),
    (5, &["", "none", "-1", "0.5"]),
];

/// One share for the column count and one for each column that can be bad.
fn draw_flaw(rng: &mut Rng) -> Flaw {
    match BAD_TEXTS.get(rng.index(BAD_TEXTS.len() + 1)) {
        None => (*rng.pick(&[1, 3, 5, 7]), COLUMNS, ""),
        Some((column, texts)) => (COLUMNS, *column, *rng.pick(texts)),
    }
}

/// Writes the rows of a plain file.
struct Plain<W> {
    output: Output<W>,
    quoted: bool,
    crlf: bool,
    ids: Ids,
    dates: Vec<[u8; 10]>,
}

impl<W: Write> Plain<W> {
    fn new(sink: W, args: &Args) -> Self {
        Self { output: Output::new(sink), quoted: args.quoted, crlf: args.crlf, ids: args.ids, dates: dates() }
    }

    fn quote(&mut self) {
        if self.quoted {
            self.output.byte(b'"');
        }
    }

    fn separate(&mut self, column: usize) {
        if column > 0 {
            self.quote();
            self.output.byte(b',');
        }
        self.quote();
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.quote();
        if self.crlf {
            self.output.byte(b'\r');
        }
        self.output.byte(b'\n');
        self.output.make_room()
    }

    fn id(&mut self, id: Id) {
        match id {
            Id::Name(name) => self.output.put(name.as_bytes()),
            Id::Number(number) => match self.ids {
                Ids::Short => {
                    match number {
                        0..10 => self.output.put(b"CMP00"),
                        10..100 => self.output.put(b"CMP0"),
                        _ => self.output.put(b"CMP"),
                    }
                    self.output.number(number);
                }
                Ids::Digits => self.output.put(eighteen_digits(number).as_bytes()),
                Ids::Uuid => self.output.put(uuid(number).as_bytes()),
            },
        }
    }

    /// Like the `repr` of a Python float: at least one decimal, and no trailing zero after it.
    fn money(&mut self, cents: u64) {
        self.output.hundredths(cents);
        self.output.drop_last(usize::from(cents.is_multiple_of(10)));
    }

    fn header(&mut self) -> io::Result<()> {
        for (column, name) in HEADER.split(',').enumerate() {
            self.separate(column);
            self.output.put(name.as_bytes());
        }
        self.end_row()
    }

    fn row(&mut self, id: Id, values: &Values, flaw: Flaw, rng: &mut Rng) -> io::Result<()> {
        let (columns, wrong, text) = flaw;
        for column in 0..columns {
            self.separate(column);
            match column {
                _ if column == wrong => self.output.put(text.as_bytes()),
                0 => self.id(id),
                1 => self.output.put(rng.pick::<[u8; 10]>(&self.dates)),
                2 => self.output.number(values[1]),
                3 => self.output.number(values[2]),
                4 => self.money(values[3]),
                _ => self.output.number(values[4]),
            }
        }
        self.end_row()
    }
}

/// Another for every number below 10^16: the factor has no divisor in common with that.
fn eighteen_digits(number: u64) -> String {
    let digits = u128::from(number) * 3_935_559_000_370_003 % 10_000_000_000_000_000;
    format!("12{digits:016}")
}

/// Version 4 (RFC 9562) in its form; of two numbers, the same is as good as impossible.
fn uuid(number: u64) -> String {
    let mut rng = Rng(number);
    let bits = u128::from(rng.next()) << 64 | u128::from(rng.next());
    let hex = format!("{:032x}", bits & !(0xf << 76 | 0xc << 60) | 0x4 << 76 | 0x8 << 60);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Where the rows come from, and how many of them there are with how many bad ones among them.
fn plan(args: &Args) -> Result<(Source, u64, u64), String> {
    let bad_per = |parts: u64| {
        let product = u128::from(args.rows) * u128::from(args.bad_rows);
        u64::try_from((product + u128::from(parts / 2)) / u128::from(parts)).unwrap_or(u64::MAX)
    };
    let Some(path) = &args.totals else {
        let source = Source::Free(args.campaigns.unwrap_or(1));
        return Ok((source, args.rows, bad_per(MILLION)));
    };
    if args.bad_rows == MILLION {
        return Err("--bad-rows 100 leaves no room for the rows of --totals".to_owned());
    }
    let rests = read_totals(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let listed = u64::try_from(rests.len()).unwrap_or(u64::MAX);
    if args.campaigns.is_some_and(|wanted| wanted != listed) {
        return Err(format!("--campaigns must be {listed} as in --totals"));
    }
    let bad = bad_per(MILLION - args.bad_rows);
    let source = Source::totals(rests, args.rows)?;
    Ok((source, args.rows.saturating_add(bad), bad))
}

fn write_all(args: &Args, source: &mut Source, rows: u64, mut bad: u64) -> io::Result<()> {
    let mut rng = Rng(args.seed);
    let mut bad_rng = Rng(Rng(!args.seed).next());
    // By column; the last one is for a wrong number of columns.
    let mut counts = [0_u64; COLUMNS + 1];
    let mut output = Plain::new(io::stdout().lock(), args);
    output.header()?;
    for left in (1..=rows).rev() {
        // Selection by counting (Knuth, TAOCP 2, 3.4.2, algorithm S): the number comes out exactly.
        if bad > 0 && bad_rng.below(left) < bad {
            bad -= 1;
            let flaw = draw_flaw(&mut bad_rng);
            counts[flaw.1] += 1;
            let values = draw(&mut bad_rng);
            output.row(source.any_id(&mut bad_rng), &values, flaw, &mut bad_rng)?;
        } else {
            let (id, values) = source.good_row(&mut rng);
            output.row(id, &values, NO_FLAW, &mut rng)?;
        }
    }
    output.output.flush()?;
    if args.bad_rows > 0 {
        let sum: u64 = counts.iter().sum();
        eprintln!("bad rows: {sum} of {rows}");
        for (name, count) in HEADER.split(',').chain(["column_count"]).zip(counts) {
            if count > 0 {
                eprintln!("  {name}: {count}");
            }
        }
    }
    Ok(())
}

fn run(args: &Args) -> Result<(), String> {
    let written = match args.report {
        Some(Report::GoogleAds) => {
            report::write(io::stdout().lock(), args.rows, args.campaigns.unwrap_or(1), Rng(args.seed))
        }
        None => {
            let (mut source, rows, bad) = plan(args)?;
            write_all(args, &mut source, rows, bad)
        }
    };
    match written {
        // The reader has seen enough, `| head` for one.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| format!("cannot write the data: {error}")),
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
