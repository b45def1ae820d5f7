//! What holds for every input: the result does not depend on how a text is cut or by which instructions it is read, it is
//! what the contract says, and merging takes any order.
//!
//! `PROPTEST_CASES=100000 cargo test --release properties` tries longer. Inputs that failed are kept in
//! `regressions.txt` and tried first.

use std::fmt::Write as _;

use adtally::engine::report::campaign_table;
use adtally::engine::{
    Aggregate, CombinedLeaders, Delimiter, Fatal, Kernel, Limits, Metric, Money, TallyOptions, combined_leaders,
};
use futures_util::StreamExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, FileFailurePersistence};

use crate::harness::{HEADER, KERNELS, Outcome, outcome, tally};
use crate::oracle::{self, Record};
use crate::texts::{Text, cuts, text};

/// So many cases, unless the environment asks for another number.
pub(crate) fn config(cases: u32) -> Config {
    let asked = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { cases };
    let regressions = FileFailurePersistence::Direct(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/regressions.txt"));
    // A smaller input is nice to have, but not for every time.
    Config { cases, failure_persistence: Some(Box::new(regressions)), max_shrink_time: 30_000, ..asked }
}

pub(crate) fn any_kernel() -> impl Strategy<Value = Kernel> {
    select(&KERNELS[..])
}

fn with_kernel(text: &Text, kernel: Kernel) -> TallyOptions {
    TallyOptions { kernel, ..text.options }
}

/// The outcome of a text that is read at once.
pub(crate) fn outcome_of(text: &Text, kernel: Kernel) -> Result<Outcome, Fatal> {
    outcome(with_kernel(text, kernel), [&text.bytes[..]])
}

/// What the oracle makes of records.
fn expected(records: &[Record], text: &Text) -> Result<Outcome, &'static str> {
    oracle::aggregate(records, text.rules(), text.bytes.len())
}

/// A text cut off before the first record that is malformed, as `csv` knows no limit and closes open quotes.
fn well_formed_part(text: &Text) -> Text {
    let records = oracle::records(&text.bytes, text.rules());
    let malformed = records.iter().find(|record| record.fields.is_none());
    let end = malformed.map_or(text.bytes.len(), |record| record.byte_offset);
    Text { bytes: text.bytes[..end].to_vec(), options: text.options }
}

/// The records of a text as the `csv-async` crate finds them; where they stand it does not tell.
fn csv_async_records(text: &Text) -> Vec<Record> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut reader = csv_async::AsyncReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(text.options.delimiter.byte())
        .create_reader(&text.bytes[..]);
    let found = runtime.block_on(reader.byte_records().map(Result::unwrap).collect::<Vec<_>>());
    let record = |fields: csv_async::ByteRecord| Record {
        line: 0,
        byte_offset: 0,
        text: Vec::new(),
        fields: Some(fields.iter().map(<[u8]>::to_vec).collect()),
    };
    found.into_iter().map(record).collect()
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn cutting_into_pieces_changes_nothing(text in text(0..80), cuts in cuts(), kernel in any_kernel()) {
        let cut = outcome(with_kernel(&text, kernel), text.cut(&cuts));
        prop_assert_eq!(cut, outcome_of(&text, kernel));
    }

    #[test]
    fn all_kernels_agree(text in text(0..150)) {
        let generally_read = outcome_of(&text, Kernel::Off);
        prop_assert_eq!(&outcome_of(&text, Kernel::Detect), &generally_read);
        prop_assert_eq!(&outcome_of(&text, Kernel::Portable), &generally_read);
    }

    #[test]
    fn results_are_what_the_contract_says(text in text(0..80), kernel in any_kernel()) {
        let records = oracle::records(&text.bytes, text.rules());
        prop_assert_eq!(outcome_of(&text, kernel).map_err(|error| error.code()), expected(&records, &text));
    }

    #[test]
    fn records_are_those_of_csv_async(text in text(0..80), kernel in any_kernel()) {
        let text = well_formed_part(&text);
        let mut outcome = outcome_of(&text, kernel).map_err(|error| error.code());
        let mut expected = expected(&csv_async_records(&text), &text);
        for outcome in [&mut outcome, &mut expected].into_iter().flatten() {
            // Of the rejects csv-async knows the reasons.
            for reject in &mut outcome.rejects {
                (reject.line, reject.byte_offset) = (0, 0);
                reject.record.0.clear();
            }
        }
        prop_assert_eq!(outcome, expected);
    }
}

/// Every byte that may stand between fields, and a text that uses it and some others.
#[test]
fn all_kernels_agree_on_every_delimiter() {
    for delimiter in (0..=u8::MAX).filter_map(|byte| Delimiter::try_from(byte).ok()) {
        let row = |fields: [&str; 6]| fields.join(&char::from(delimiter.byte()).to_string());
        let mut text = row(["A", "2025-01-01", "1", "1", "1", "1"]) + "\n";
        for number in 0..200_u32 {
            let numbers = [number * 977, number % 7, number, number % 3].map(|number| number.to_string());
            let id = format!("CMP{}", number % 9);
            text += &row([&id, "2025-01-01", &numbers[0], &numbers[1], &format!("{}.25", numbers[2]), &numbers[3]]);
            text += if number % 10 == 0 { "\r\n" } else { "\n" };
        }
        let options = TallyOptions { delimiter, has_header: false, ..TallyOptions::default() };
        let text = Text { bytes: text.into_bytes(), options };
        let records = oracle::records(&text.bytes, text.rules());
        for kernel in KERNELS {
            let outcome = outcome_of(&text, kernel).map_err(|error| error.code());
            assert_eq!(outcome, expected(&records, &text), "delimiter {delimiter}, {kernel:?}");
        }
    }
}

/// Rows that are not what they look like, at every place relative to the blocks of 64 bytes that are read at once. The ids
/// they seem to have are known, so that nothing but the look can tell.
#[test]
fn odd_rows_are_seen_at_every_place() {
    let known: String = ["a", "x", "ax", "a\"\"", "a\"\"x", "a\"\"x\"\"", "\"\"a", "\"\"a\"\"", "a\nx", "a,x", "a\r"]
        .map(|id| format!("\"{id}\",,1,1,1,1\n"))
        .concat();
    for odd in [
        "\"a\"x,,1,1,1,1\n",
        "\"a\"x\",,1,1,1,1\n",
        "\"a\"\"\",,1,1,1,1\n",
        "\"a\"\"x\",,1,1,1,1\n",
        "\"\"a\",,1,1,1,1\n",
        "a\",,1,1,1,1\n",
        "a\"x\",,1,1,1,1\n",
        "\"a\",,\"1\"1,1,1,1\n",
        "\"a\",,\"1\",\"1\"1,1,1\n",
        "a,,1,1,1,\"1\"\r\n",
        "a,,1,1,1,\"1\"1\r\n",
        "\"a\nx\",,1,1,1,1\n",
        "\"a,x\",,1,1,1,1\n",
        "\"a\r\",,1,1,1,1\n",
        "a,\"\n\",1,1,1,1\n",
        "a,\"\r\n\",1,1,1,1\r\n",
        "a,,1,1,1,1\r",
        "a,,1,1,1,1\r\r\n",
        "a,,1,1,1,1\r\n",
        "a,,1,1,1,1\n\n",
        "a,,1,1,1,1\r\n\r\n",
        "a,,1,1,1,\r\n",
        "a,,1,1,1,1,\n",
        "a,,1,1,1\n",
        ",,1,1,1,1\n",
        "\"\",,1,1,1,1\n",
        " a ,,1,1,1,1\n",
        "a,,1,1, 1 ,1\n",
        "a,,\"\",1,1,1\n",
        "a,,1,1,\"1.25\",1\n",
        "a,,1,1,1.5,1\n",
        "a,,1,1,.5,1\n",
        "a,,1,1,5.,1\n",
        "a,,1.,1,1,1\n",
        "a,,1,1.,5,1\n",
        "a,,12345678,1,123456,1\n",
        "a,,123456789,1,1234567,1\n",
        "a,,1,1,12345.67,1\n",
        "a,,1,1,123456.78,1\n",
        "a,,1,1,123456.7,1\n",
        "a,,1,/,1,1\n",
        "a,,1,:,1,1\n",
        "a,,1,1,1.,1\n",
        "a,,1,1,1..5,1\n",
        "a,,1,1,1.5.5,1\n",
        "a,,1,1,\0.50,1\n",
        "a,,1,1,1,1\0\n",
    ] {
        for shift in 0..64 {
            let line_end = if odd.ends_with("\r\n") { "\r\n" } else { "\n" };
            // More than a block of plain rows before the padding, so that it is not passed over with what was odd before,
            // and as many behind the odd row, so that nothing but itself can give it away.
            let plain = format!("ax,,1,1,1,1{line_end}").repeat(8);
            let padding = format!("{},,1,1,1,1{line_end}", "p".repeat(1 + shift));
            let text = HEADER.to_owned() + &known + &[&plain, &padding, odd, &plain[..]].concat().repeat(2);
            let text = Text { bytes: text.into_bytes(), options: TallyOptions::default() };
            let records = oracle::records(&text.bytes, text.rules());
            let expected = expected(&records, &text);
            for kernel in KERNELS {
                let found = outcome_of(&text, kernel).map_err(|error| error.code());
                assert_eq!(found, expected, "{odd:?} moved by {shift} bytes, with {kernel:?}");
            }
        }
    }
}

/// Numbers that are not what they look like, each beside each other: what one has too many must not make up for what another
/// lacks. In rows short and long, and behind columns that end like a number.
#[test]
fn odd_numbers_are_seen_beside_each_other() {
    const NUMBERS: [&str; 21] = [
        "",
        "1",
        "12.",
        ".5",
        "1.5",
        "1.25",
        ".",
        "..5",
        "x1",
        "1x",
        "x.5",
        "12345678",
        "123456789",
        "12345.67",
        "12345.6",
        "123456",
        "1234567",
        "+1",
        "-1",
        "1,2",
        "\u{e9}9",
    ];
    let long = "7".repeat(70);
    for (header, id) in [
        (HEADER, "a"),
        (HEADER, "a campaign of more bytes"),
        ("note,spend,clicks,campaign_id,conversions,impressions\r\n", "campaign-of-15b"),
    ] {
        for note in ["", "7.", &long] {
            let mut text = header.to_owned();
            let mut push_row = |numbers: [&str; 3], quote: &str| {
                let fields = header.split(',').map(|name| match name.trim() {
                    "campaign_id" => id,
                    "impressions" => numbers[0],
                    "clicks" => numbers[1],
                    "spend" => numbers[2],
                    "conversions" => "12",
                    _ => note,
                });
                let fields: Vec<_> = fields.map(|field| format!("{quote}{field}{quote}")).collect();
                text += &fields.join(",");
                text += if header == HEADER { "\n" } else { "\r\n" };
            };
            for quote in ["", "\""] {
                // What is known is added to without a further look.
                push_row(["1"; 3], quote);
                for impressions in NUMBERS {
                    for clicks in NUMBERS {
                        for spend in NUMBERS {
                            push_row([impressions, clicks, spend], quote);
                        }
                    }
                }
            }
            let text = Text { bytes: text.into_bytes(), options: TallyOptions::default() };
            let expected = outcome_of(&text, Kernel::Off);
            for kernel in [Kernel::Detect, Kernel::Portable] {
                assert!(outcome_of(&text, kernel) == expected, "{header:?} with {id:?}, {note:?} and {kernel:?}");
            }
        }
    }
}

/// Texts that a reader may lose much time over: looking again and again at what it has seen. None of these would be done
/// in reasonable time if the cost were not linear.
#[test]
fn no_text_is_read_again_and_again() {
    for pattern in [
        "\"",
        "\r",
        "\n",
        "a\n",
        "\"\n",
        "\"a\n",
        "\n\"",
        ",",
        "\",",
        ",\"",
        "a\"b\n",
        "\"\"\n",
        "A,,1,1,1,1\r",
        "A,,1,1,1,1\n\"",
        "A,,1,1,1,1\nA,,\"1\"x,1,1,1\n",
        "A,,1,1,1,1\n\"A\n\",,1,1,1,1\n",
    ] {
        let text = HEADER.to_owned() + &pattern.repeat((4 << 20) / pattern.len());
        for kernel in KERNELS {
            let options = TallyOptions { kernel, ..TallyOptions::default() };
            let at_once = outcome(options, [text.as_bytes()]).unwrap();
            assert_eq!(outcome(options, text.as_bytes().chunks(100)).unwrap(), at_once, "{pattern:?} with {kernel:?}");
        }
    }
}

/// A header and rows of so many campaigns, so many that looking them up takes another path.
fn rows_of_campaigns(campaigns: u32) -> String {
    let mut text = HEADER.to_owned();
    for number in 0..campaigns {
        // Some ids are longer than fits into a key.
        let id = if number % 50 == 0 { format!("campaign number {number}") } else { format!("c{number}") };
        writeln!(text, "{id},2025-01-01,{},{},{}.5,{}", number * 7, number % 11, number % 13, number % 3).unwrap();
    }
    text
}

/// So many that different ids share what is remembered of their hashes.
#[test]
fn a_great_many_campaigns_are_kept_apart() {
    const CAMPAIGNS: u32 = 250_000;
    let text = rows_of_campaigns(CAMPAIGNS);
    let rows = text.strip_prefix(HEADER).unwrap();
    let mut expected: Vec<_> = rows.lines().collect();
    expected.sort_by_key(|row| row.split(',').next());
    for kernel in KERNELS {
        let options = TallyOptions { kernel, ..TallyOptions::default() };
        let aggregate = tally(options, [text.as_bytes(), rows.as_bytes()]).unwrap();
        assert_eq!(aggregate.counters().rows_skipped(), 0);
        assert_eq!(aggregate.unique_campaigns(), expected.len());
        for (campaign, row) in aggregate.campaigns().zip(&expected) {
            let fields: Vec<_> = row.split(',').collect();
            let twice = |column: usize| 2 * fields[column].parse::<u128>().unwrap();
            assert_eq!(campaign.id_text(), fields[0], "{kernel:?}");
            assert_eq!(
                [campaign.impressions, campaign.clicks, campaign.conversions.whole()],
                [2, 3, 5].map(twice),
                "{row}"
            );
            assert_eq!(campaign.spend, Money(2 * oracle::read_spend(fields[4].as_bytes()).unwrap()), "{row}");
        }
    }
}

proptest! {
    #![proptest_config(config(16))]

    #[test]
    fn many_campaigns_are_no_other_matter(
        campaigns in prop_oneof![Just(4090_u32), Just(4097), 4000..20_000_u32],
        seen_again in vec((0..21_000_u32, 0..1000_u32), 0..400),
        text in text(1..60),
        cuts in cuts(),
    ) {
        let mut all = rows_of_campaigns(campaigns);
        for (number, clicks) in seen_again {
            writeln!(all, "c{number},2025-01-01,{clicks},{clicks},{clicks}.25,1").unwrap();
        }
        let mut bytes = all.into_bytes();
        bytes.extend(&text.bytes);
        let text = Text { bytes, options: TallyOptions { has_header: true, delimiter: Delimiter::COMMA, ..text.options } };
        let records = oracle::records(&text.bytes, text.rules());
        let expected = expected(&records, &text);
        for kernel in KERNELS {
            prop_assert_eq!(&outcome_of(&text, kernel).map_err(|error| error.code()), &expected);
        }
        let cut = outcome(text.options, text.cut(&cuts));
        prop_assert_eq!(&cut.map_err(|error| error.code()), &expected);
    }
}

/// Texts that may be numbers.
fn number() -> impl Strategy<Value = String> {
    let sign = || select(vec!["", "", "", "+", "-"]);
    let exponent = prop_oneof![
        3 => Just(String::new()),
        2 => (select(vec!["e", "E"]), sign(), 0..40_u32).prop_map(|(e, sign, size)| format!("{e}{sign}{size}")),
        1 => (select(vec!["e", "E"]), sign(), "[0-9]{0,25}").prop_map(|(e, sign, digits)| format!("{e}{sign}{digits}")),
    ];
    let digits = prop_oneof!["[0-9]{0,9}", "[0-9]{0,30}", "0{0,30}[0-9]{0,3}", "9{0,20}", "10{0,20}"];
    let fraction = prop_oneof![
        2 => Just(String::new()),
        3 => "\\.[0-9]{0,3}",
        1 => "\\.[0-9]{10,15}",
        1 => "\\.[0-9]{11,12}50{0,20}[01]?",
        1 => "\\.0{0,20}[0-9]{0,3}",
    ];
    prop_oneof![
        12 => (sign(), digits, fraction, exponent).prop_map(|(sign, digits, fraction, exponent)| sign.to_owned() + &digits + &fraction + &exponent),
        // The limits and what lies beside them, with the point anywhere.
        2 => (select(vec!["9223372036854775807", "9223372036854775808", "1000000000000000", "1000000000000001", "18446744073709551616"]), 0..30_i32).prop_map(
            |(digits, places)| format!("{digits}{:0>width$}e-{places}", "", width = usize::try_from(places).unwrap())
        ),
        2 => (select(vec!["9223372036854775807", "1000000000000000"]), select(vec![".", ".0", ".000", ".0000000000001", ".5"]))
            .prop_map(|(digits, fraction)| digits.to_owned() + fraction),
        1 => "[0-9.eE+\\- \tx_]{0,10}",
    ]
}

proptest! {
    #![proptest_config(config(400))]

    /// Each number stands in every column of a row of its own, so that every value can be told from the others.
    #[test]
    fn numbers_mean_what_the_grammar_says(numbers in vec(number(), 1..30), kernel in any_kernel()) {
        let mut bytes = HEADER.as_bytes().to_vec();
        for (row, number) in numbers.iter().enumerate() {
            for (column, fields) in [[number, "1", "1", "1"], ["1", number, "1", "1"], ["1", "1", number, "1"], ["1", "1", "1", number]].into_iter().enumerate() {
                bytes.extend(format!("{row}/{column},,{}\n", fields.join(",")).bytes());
            }
        }
        let text = Text { bytes, options: TallyOptions::default() };
        let records = oracle::records(&text.bytes, text.rules());
        prop_assert_eq!(outcome_of(&text, kernel).map_err(|error| error.code()), expected(&records, &text));
    }

    /// A spend is kept to twelve decimals, which the tables do not show.
    #[test]
    fn spends_are_exact_to_twelve_decimals(numbers in vec(number(), 1..30), kernel in any_kernel()) {
        let options = TallyOptions { kernel, ..TallyOptions::default() };
        for number in numbers {
            let text = format!("{HEADER}A,,1,1,{number},1\n");
            let aggregate = tally(options, [text.as_bytes()]).unwrap();
            let found = aggregate.campaigns().next().map(|campaign| campaign.spend);
            let expected = oracle::read_spend(number.trim_matches([' ', '\t']).as_bytes());
            prop_assert_eq!(found, expected.map(Money), "{}", number);
        }
    }

    #[test]
    fn merging_takes_any_order(texts in vec(text(0..25), 1..6), order in vec(any::<Index>(), 6), grouping in any::<Index>()) {
        let aggregates: Vec<_> = texts.iter().filter_map(|text| tally(text.options, [&text.bytes[..]]).ok()).collect();
        let in_order = merged(aggregates.clone());
        let mut shuffled = aggregates.clone();
        for (place, index) in order.iter().enumerate().take(shuffled.len()) {
            let other = index.index(shuffled.len());
            shuffled.swap(place, other);
        }
        prop_assert_eq!(without_rejects(&merged(shuffled)), without_rejects(&in_order));
        // Grouped otherwise nothing changes at all, not even the rejects.
        let mut left = aggregates;
        let right = left.split_off(grouping.index(left.len() + 1));
        prop_assert_eq!(Outcome::of(&merged(vec![merged(left), merged(right)])), Outcome::of(&in_order));
    }

    #[test]
    fn combined_leaders_are_those_of_the_merged_parts(texts in vec(text(0..25), 0..6), top in 0..70_usize) {
        let parts: Vec<_> = texts.iter().filter_map(|text| tally(text.options, [&text.bytes[..]]).ok()).collect();
        let all = merged(parts.clone());
        prop_assert_eq!(combined_leaders(&parts.iter().collect::<Vec<_>>(), top), leaders_of(&all, top));
    }
}

fn merged(aggregates: Vec<Aggregate>) -> Aggregate {
    let mut all = Aggregate::new(Limits::default().max_campaigns);
    for aggregate in aggregates {
        all.merge(aggregate).unwrap();
    }
    all
}

fn leaders_of(aggregate: &Aggregate, top: usize) -> CombinedLeaders<'_> {
    CombinedLeaders {
        by_ctr: aggregate.leaders(Metric::Ctr, top),
        by_cpa: aggregate.leaders(Metric::Cpa, top),
        unique_campaigns: aggregate.unique_campaigns(),
    }
}

fn without_rejects(aggregate: &Aggregate) -> Outcome {
    Outcome { rejects: Vec::new(), ..Outcome::of(aggregate) }
}

/// Doubles an aggregate until its totals are refused. Gives the last one that was not.
fn doubled_until_refused(row: &str) -> Aggregate {
    // Without a header, so that the number of bytes does not run out first.
    let options = TallyOptions { has_header: false, ..TallyOptions::default() };
    let mut all = tally(options, [row.as_bytes()]).unwrap();
    for _ in 0..200 {
        let before = all.clone();
        if let Err(error) = all.merge(before.clone()) {
            assert_eq!(error.code(), "totals_overflow");
            return before;
        }
    }
    panic!("totals grow without end");
}

#[test]
fn totals_are_refused_before_anything_wraps() {
    let most = "9223372036854775807";
    for (row, small) in [
        (format!("A,,{most},0,0,0\n"), "A,,0,1,1,1\n"),
        (format!("A,,0,{most},0,0\n"), "A,,1,0,1,1\n"),
        ("A,,0,0,1e15,0\n".to_owned(), "A,,1,1,0,1\n"),
        (format!("A,,0,0,0,{most}\n"), "A,,1,1,1,0\n"),
    ] {
        let mut largest = doubled_until_refused(&row);
        largest.merge(tally(TallyOptions::default(), [HEADER.as_bytes(), small.as_bytes()]).unwrap()).unwrap();
        // Whatever is accepted can be reported.
        let outcome = Outcome::of(&largest);
        assert_eq!(outcome.campaigns.lines().count(), 2, "{row}");
        assert_eq!(outcome.top_ctr, outcome.campaigns, "{row}");
        let once = combined_leaders(&[&largest], 1);
        assert_eq!(once, leaders_of(&largest, 1), "{row}");
        // What is refused by merging stays at a limit, and can be shown.
        let often = combined_leaders(&[&largest; 1000], 1);
        assert_eq!(often.unique_campaigns, 1);
        assert!(often.by_ctr[0].impressions >= once.by_ctr[0].impressions);
        assert_eq!(campaign_table(&often.by_ctr).lines().count(), 2, "{row}");
        assert_eq!(campaign_table(&often.by_cpa).lines().count(), 2, "{row}");
    }
}

/// Tables of different sizes, short ids and long ones.
#[test]
fn combined_leaders_of_many_campaigns() {
    let parts = [3000, 1, 5000, 200].map(|campaigns| {
        let text = rows_of_campaigns(campaigns) + "only here,,1,1,1,1\n";
        tally(TallyOptions::default(), [text.as_bytes()]).unwrap()
    });
    let all = merged(parts.to_vec());
    for top in [0, 1, 10, 4000, usize::MAX] {
        assert_eq!(combined_leaders(&parts.each_ref(), top), leaders_of(&all, top), "the first {top}");
    }
}

#[test]
fn more_campaigns_than_allowed_are_refused() {
    let limits = Limits { max_campaigns: 2, ..Limits::default() };
    for kernel in KERNELS {
        let options = TallyOptions { limits, kernel, ..TallyOptions::default() };
        let count = |rows: &str| tally(options, [HEADER.as_bytes(), rows.as_bytes()]);
        let two = count("A,,1,1,1,1\nB,,1,1,1,1\nA,,1,1,1,1\n").unwrap();
        assert_eq!(two.unique_campaigns(), 2);
        assert_eq!(count("A,,1,1,1,1\nB,,1,1,1,1\nC,,1,1,1,1\n").unwrap_err().code(), "too_many_campaigns");
        let mut all = two;
        assert_eq!(all.merge(count("C,,1,1,1,1\n").unwrap()).unwrap_err().code(), "too_many_campaigns");
    }
}

#[test]
fn leaders_are_the_start_of_the_whole_order() {
    let text = rows_of_campaigns(3000);
    let aggregate = tally(TallyOptions::default(), [text.as_bytes()]).unwrap();
    for metric in [Metric::Ctr, Metric::Cpa] {
        let all = aggregate.leaders(metric, usize::MAX);
        for top in [0, 1, 2, 10, 999, 1000, 5000] {
            assert_eq!(aggregate.leaders(metric, top), all[..all.len().min(top)], "the first {top}");
        }
    }
}
