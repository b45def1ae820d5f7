//! Reports in the shape in which Google Ads exports them: two lines before the header, counts of 1,000 and more
//! grouped and therefore in quotes, conversions with two decimals, a cost that is never grouped, ` --` where there
//! is no value, and rows of totals at the end.

use std::io::{self, Write};

use super::output::{Output, dates, digit};
use super::{HALF, ONE, Rng, scaled};

const PREAMBLE: &[u8] = b"Campaign report\n\"January 1, 2025 - June 30, 2025\"\n";
const HEADER: &[u8] = b"Campaign status,Campaign,Campaign ID,Currency code,Day,Impr.,Clicks,CTR,Currency code,Cost,\
    Avg. CPC,Conversions,Cost / conv.,Search impr. share\n";

/// Names as they stand in a file, and whether they need quotes. The next dozen has the same names with a 2, and so on.
const NAMES: [(&str, bool); 12] = [
    ("Roof repair, metro", true),
    ("Brand", false),
    // These two are no rows of totals.
    ("Total Wine & Co", false),
    ("Total: Refresh 2025", false),
    ("Search | Non-brand | Plumbing", false),
    ("Shoes, bags, belts", true),
    ("Performance Max", false),
    ("Café Zürich", false),
    ("Display - Remarketing - All visitors", false),
    ("The \"\"big\"\" sale, spring", true),
    ("DSA", false),
    ("Video: awareness", false),
];

const FIRST_ID: u64 = 20_811_234_567;
const NO_VALUE: &[u8] = b" --";
/// Largest numbers of impressions of a row, each as likely: most rows of an account are small ones.
const MAGNITUDES: [u64; 7] = [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// The numbers of a row, or of all rows.
#[derive(Default)]
struct Numbers {
    impressions: u64,
    clicks: u64,
    cents: u64,
    /// In hundredths.
    conversions: u64,
}

impl Numbers {
    fn draw(rng: &mut Rng) -> Self {
        let mut between = |low: u64, high: u64| low + rng.below(high - low + 1);
        // From 0.5 to 5 % click, which costs from 0.10 to 2.00; of clicks, up to 10 % convert.
        let click = between(ONE * 5 / 1_000, ONE * 50 / 1_000);
        let price = between(10 * ONE, 200 * ONE);
        let convert = between(0, ONE / 10);
        // One row in eight was not shown at all.
        let impressions = if rng.below(8) == 0 {
            0
        } else {
            let magnitude = *rng.pick(&MAGNITUDES);
            rng.below(magnitude)
        };
        let clicks = scaled(click, impressions, 0);
        let mut conversions = scaled(convert, 100 * clicks, 0);
        // As many campaigns count each conversion once as share it among several clicks.
        if rng.below(2) == 0 {
            conversions -= conversions % 100;
        }
        Self { impressions, clicks, cents: scaled(price, clicks, HALF), conversions }
    }

    fn add(&mut self, row: &Self) {
        self.impressions += row.impressions;
        self.clicks += row.clicks;
        self.cents += row.cents;
        self.conversions += row.conversions;
    }
}

/// Rounded half up.
fn ratio(part: u64, whole: u64) -> u64 {
    (part + whole / 2) / whole
}

/// With a comma between groups of three digits.
fn grouped<W: Write>(output: &mut Output<W>, n: u64) {
    if n < 1_000 {
        output.number(n);
    } else {
        grouped(output, n / 1_000);
        output.put(&[b',', digit(n / 100), digit(n / 10), digit(n)]);
    }
}

/// In quotes where there are groups.
fn count<W: Write>(output: &mut Output<W>, n: u64) {
    if n < 1_000 {
        output.number(n);
    } else {
        output.byte(b'"');
        grouped(output, n);
        output.byte(b'"');
    }
}

fn grouped_hundredths<W: Write>(output: &mut Output<W>, n: u64) {
    if n < 100_000 {
        output.hundredths(n);
    } else {
        output.byte(b'"');
        grouped(output, n / 100);
        output.put(&[b'.', digit(n / 10), digit(n), b'"']);
    }
}

/// The columns from `Impr.` to `Cost / conv.`, each with a comma after it.
fn metrics<W: Write>(output: &mut Output<W>, numbers: &Numbers) {
    let &Numbers { impressions, clicks, cents, conversions } = numbers;
    count(output, impressions);
    output.byte(b',');
    count(output, clicks);
    output.byte(b',');
    if impressions == 0 {
        output.put(NO_VALUE);
    } else {
        output.hundredths(ratio(10_000 * clicks, impressions));
        output.byte(b'%');
    }
    output.put(b",USD,");
    output.hundredths(cents);
    output.byte(b',');
    if clicks == 0 {
        output.byte(b'0');
    } else {
        output.hundredths(ratio(cents, clicks));
    }
    output.byte(b',');
    grouped_hundredths(output, conversions);
    output.byte(b',');
    output.hundredths(if conversions == 0 { 0 } else { ratio(100 * cents, conversions) });
    output.byte(b',');
}

/// Status, name and id of a campaign; numbers count from 0.
fn campaign<W: Write>(output: &mut Output<W>, number: u64) {
    output.put(if number % 5 == 2 { b"Paused," } else { b"Enabled," });
    let dozen = number / 12;
    let (name, quoted) = NAMES[usize::try_from(number % 12).unwrap_or(0)];
    if quoted {
        output.byte(b'"');
    }
    output.put(name.as_bytes());
    if dozen > 0 {
        output.byte(b' ');
        output.number(dozen + 1);
    }
    if quoted {
        output.byte(b'"');
    }
    output.byte(b',');
    output.number(FIRST_ID + number);
}

fn impression_share<W: Write>(output: &mut Output<W>, rng: &mut Rng) {
    match rng.below(4) {
        0 => output.put(NO_VALUE),
        1 => output.put(b"< 10%"),
        2 => output.put(b"> 90%"),
        _ => {
            output.hundredths(1_000 + rng.below(8_001));
            output.byte(b'%');
        }
    }
}

/// Writes a report with this number of rows, each of a random campaign and day, and its two rows of totals.
pub(crate) fn write(sink: impl Write, rows: u64, campaigns: u64, mut rng: Rng) -> io::Result<()> {
    let days = dates();
    let mut output = Output::new(sink);
    let mut total = Numbers::default();
    output.put(PREAMBLE);
    output.put(HEADER);
    for _ in 0..rows {
        let numbers = Numbers::draw(&mut rng);
        total.add(&numbers);
        campaign(&mut output, rng.below(campaigns));
        output.put(b",USD,");
        output.put(rng.pick::<[u8; 10]>(&days));
        output.byte(b',');
        metrics(&mut output, &numbers);
        impression_share(&mut output, &mut rng);
        output.byte(b'\n');
        output.make_room()?;
    }
    output.put(b"Total: Campaigns, --, --,USD, --,");
    metrics(&mut output, &total);
    output.put(b"< 10%\n");
    // The account has campaigns that were removed: no row tells of them, only its total.
    total.add(&Numbers { impressions: 7_340, clicks: 208, cents: 31_190, conversions: 200 });
    output.put(b"Total: Account,,,USD,,");
    metrics(&mut output, &total);
    output.byte(b'\n');
    output.flush()
}
