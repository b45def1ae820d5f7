//! The engine in memory, on one thread: `cargo bench --bench engine`.
//!
//! Throughput is bytes of text per second. Each input has some 40 MB, so that it does not stay in the caches.

#![allow(clippy::unwrap_used, reason = "a benchmark that meets something unexpected is to stop right there")]

use adtally::engine::{Kernel, Tally, TallyOptions};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};

const ROWS: u64 = 1_000_000;
/// As large as what the service and the command hand over at once.
const PIECE_BYTES: usize = 256 * 1024;

/// How an input is written.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Plain,
    Crlf,
    Quoted,
    MillionCampaigns,
    OnePercentBad,
    UuidIds,
    FourDecimals,
    SixDecimals,
    WholeFractions,
    TwelveDigits,
    NineToTwelveDigits,
    Padded,
    ReorderedColumns,
    DoubledQuotes,
    LoneReturns,
}

const SHAPES: [Shape; 15] = [
    Shape::Plain,
    Shape::Crlf,
    Shape::Quoted,
    Shape::MillionCampaigns,
    Shape::OnePercentBad,
    Shape::UuidIds,
    Shape::FourDecimals,
    Shape::SixDecimals,
    Shape::WholeFractions,
    Shape::TwelveDigits,
    Shape::NineToTwelveDigits,
    Shape::Padded,
    Shape::ReorderedColumns,
    Shape::DoubledQuotes,
    Shape::LoneReturns,
];

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) % bound
    }
}

fn text(shape: Shape) -> String {
    let mut random = Random(7);
    let campaigns = if matches!(shape, Shape::MillionCampaigns) { 1_000_000 } else { 50 };
    let mut text = String::from("campaign_id,date,impressions,clicks,spend,conversions\r\n");
    if matches!(shape, Shape::ReorderedColumns) {
        text = "date,spend,clicks,impressions,conversions,note,campaign_id\r\n".into();
    }
    for row in 0..ROWS {
        let id = format!("CMP{:03}", random.below(campaigns) + 1);
        let date = format!("2025-{:02}-{:02}", random.below(6) + 1, random.below(28) + 1);
        let impressions = 1000 + random.below(49_001);
        let clicks = impressions * (5 + random.below(45)) / 1000;
        let cents = clicks * (10 + random.below(190));
        let conversions = clicks * (1 + random.below(9)) / 100;
        // Without the trailing zero, as the real data has it.
        let spend = match cents % 10 {
            0 => format!("{}.{}", cents / 100, cents / 10 % 10),
            _ => format!("{}.{:02}", cents / 100, cents % 100),
        };
        let bad = if matches!(shape, Shape::OnePercentBad) && row % 100 == 99 { random.below(4) } else { 4 };
        let line = match (shape, bad) {
            (_, 0) => format!("{id},{date},{impressions},{clicks},{spend}\r\n"),
            (_, 1) => format!("{id},{date},n/a,{clicks},{spend},{conversions}\r\n"),
            (_, 2) => format!(",{date},{impressions},{clicks},{spend},{conversions}\r\n"),
            (_, 3) => format!("{id},{date},{impressions},{clicks},-{spend},{conversions}\r\n"),
            (Shape::Plain, _) => format!("{id},{date},{impressions},{clicks},{spend},{conversions}\n"),
            (Shape::Crlf | Shape::MillionCampaigns | Shape::OnePercentBad, _) => {
                format!("{id},{date},{impressions},{clicks},{spend},{conversions}\r\n")
            }
            (Shape::Quoted, _) => {
                format!("\"{id}\",\"{date}\",\"{impressions}\",\"{clicks}\",\"{spend}\",\"{conversions}\"\r\n")
            }
            (Shape::UuidIds, _) => {
                format!("0e9b2c1a-8d57-4f6e-9b1d-{id}00000000,{date},{impressions},{clicks},{spend},{conversions}\r\n")
            }
            (Shape::FourDecimals, _) => format!("{id},{date},{impressions},{clicks},{spend}25,{conversions}\r\n"),
            (Shape::SixDecimals, _) => format!("{id},{date},{impressions},{clicks},{spend}1234,{conversions}\r\n"),
            (Shape::WholeFractions, _) => {
                format!("{id},{date},{impressions}.0,{clicks}.0,{spend},{conversions}.0\r\n")
            }
            (Shape::TwelveDigits, _) => {
                format!("{id},{date},{},{clicks},{spend},{conversions}\r\n", impressions * 10_000_019)
            }
            (Shape::NineToTwelveDigits, _) => {
                let least = 10_u64.pow(8 + u32::try_from(random.below(4)).unwrap());
                let impressions = least + random.below(9 * least);
                format!("{id},{date},{impressions},{clicks},{spend},{conversions}\r\n")
            }
            (Shape::DoubledQuotes, _) => {
                format!("{id},\"{date} \"\"x\"\"\",{impressions},{clicks},{spend},{conversions}\r\n")
            }
            (Shape::Padded, _) => format!("{id}, {date}, {impressions}, {clicks}, {spend}, {conversions}\r\n"),
            (Shape::ReorderedColumns, _) => format!("{date},{spend},{clicks},{impressions},{conversions},,{id}\r\n"),
            (Shape::LoneReturns, _) => format!("{id},{date},{impressions},{clicks},{spend},{conversions}\r"),
        };
        text.push_str(&line);
    }
    text
}

fn tally(text: &str, kernel: Kernel) -> u64 {
    let mut tally = Tally::new(TallyOptions { kernel, ..TallyOptions::default() });
    for piece in text.as_bytes().chunks(PIECE_BYTES) {
        tally.push(piece).unwrap();
    }
    tally.finish().unwrap().counters().rows_read
}

fn bench(bencher: Bencher<'_, '_>, shape: Shape, kernel: Kernel) {
    let text = text(shape);
    bencher.counter(BytesCount::of_str(&text)).bench(|| tally(black_box(&text), kernel));
}

/// The fastest instructions this processor has.
#[divan::bench(args = SHAPES, sample_count = 9)]
fn detected(bencher: Bencher<'_, '_>, shape: Shape) {
    bench(bencher, shape, Kernel::Detect);
}

/// The instructions every processor has.
#[divan::bench(args = SHAPES, sample_count = 5)]
fn portable(bencher: Bencher<'_, '_>, shape: Shape) {
    bench(bencher, shape, Kernel::Portable);
}

/// The general reader alone.
#[divan::bench(args = SHAPES, sample_count = 3)]
fn general(bencher: Bencher<'_, '_>, shape: Shape) {
    bench(bencher, shape, Kernel::Off);
}

fn main() {
    divan::main();
}
