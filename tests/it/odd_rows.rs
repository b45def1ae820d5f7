//! Rows that are read in other ways than plain ones, all in the same way by every kernel, wherever the text is cut.

use std::fmt::Write as _;

use std::sync::Arc;

use adtally::engine::{Dialect, DialectOptions, Kernel, Tally, TallyOptions};

use crate::harness::{HEADER, KERNELS, Outcome, tally};

/// Compares all kernels, for the whole text and for pieces of some sizes.
#[track_caller]
fn assert_read_alike(text: &str, what: &str) {
    let read = |kernel, piece_bytes: usize| {
        let options = TallyOptions { kernel, ..TallyOptions::default() };
        tally(options, text.as_bytes().chunks(piece_bytes)).map(|aggregate| Outcome::of(&aggregate))
    };
    let expected = read(Kernel::Off, text.len()).unwrap();
    for kernel in KERNELS {
        for piece_bytes in [text.len(), 1000, 333, 97] {
            assert_eq!(read(kernel, piece_bytes).as_ref(), Ok(&expected), "{what}, {kernel:?}, {piece_bytes}");
        }
    }
}

/// As many rows, each ending as told.
fn rows(count: usize, line_end: impl Fn(usize) -> &'static str) -> String {
    let mut text = String::new();
    for row in 0..count {
        write!(text, "A{},2025-01-01,{},{row},0.5,1{}", row % 5, 1000 + row, line_end(row)).unwrap();
    }
    text
}

#[test]
fn line_ends_may_change_anywhere() {
    let header = HEADER.trim_end();
    for change in 0..70 {
        for (first, then) in [("\r", "\n"), ("\r", "\r\n"), ("\n", "\r"), ("\r\n", "\r"), ("\r", "\r\r\n\n")] {
            let line_end = |row: usize| if row < change { first } else { then };
            let text = format!("{header}{first}{}", rows(140, line_end));
            assert_read_alike(&text, &format!("{first:?} to {then:?} at row {change}"));
        }
    }
}

/// A pair that two blocks of 64 bytes share is one line end, in a text whose lines otherwise end with CR.
#[test]
fn a_pair_of_return_and_newline_is_one_line_end_between_blocks() {
    for padding in 0..128 {
        let text = format!(
            "{}\r{}{},,1,1,1,1\r\n{}broken\r",
            HEADER.trim_end(),
            rows(40, |_| "\r"),
            "B".repeat(padding + 1),
            rows(40, |_| "\r"),
        );
        assert_read_alike(&text, &format!("{padding} bytes"));
    }
}

#[test]
fn quotes_may_be_doubled_in_any_column() {
    for (column, cell) in
        [(0, "\"a\"\"b\""), (0, "\"a\"\"\"\"b\""), (1, "\"\"\"x\"\", y\""), (2, "\"1\"\"0\""), (4, "\"\"\"\"")]
    {
        let mut text = HEADER.to_owned();
        for row in 0..400 {
            let mut cells = ["a\"b", "2025-01-01", "10", "5", "0.5", "1"];
            // As an id that stands for itself in the table.
            cells[0] = ["A", "\"a\"\"\"\"b\"", "B"][row % 3];
            if row % 7 == 3 {
                cells[column] = cell;
            }
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        assert_read_alike(&text, &format!("{cell} in column {column}"));
    }
}

#[test]
fn numbers_may_be_written_in_every_way_that_counts() {
    let spellings = [
        ["12.0", "3.00", "0.123456", "1."],
        ["1234567890", "12345678901234", "12345.678901", "0.0"],
        [" 12", "3\t", "\t0.5 ", "  1"],
        ["\"12\"", "\" 3\"", "\"0.5\"", "1"],
        ["012", "00000000003", "00.5", "1"],
        ["+12", "3e0", ".5", "1"],
        ["12.5", "3", "0.5", "1"],
        ["12", "3", "1000000000000000", "1"],
        ["12", "3", "1000000000000000.5", "1"],
        ["12", "3", "0.1234567890123", "1"],
        ["4294967295", "4294967296", "42949672.96", "99999999999999999"],
        [".", "3", "0.5", "1"],
        ["1.2.3", "3", "0.5", "1"],
        ["12", "1,2", "0.5", "1"],
        ["", "3", "0.5", "1"],
        ["123456789012", "9999999999", "0.1234567", "12"],
        ["10.0", "7.0", "100000.25", "3.0"],
        [" 12.0 ", "\t3", " 1234.567890 ", "1"],
        ["999999999", "1234567890.0", "12.1234", "0"],
        ["0000000012", "00000003.0", "123456.123456", "1"],
        ["9223372036854775807", "9999999999999999", "0.01", "4294967296"],
        [".0", "3", "0.5", "1"],
        ["12", "3", "0.12.345", "1"],
        ["12", "3", ".125", "1"],
        ["12", "3", "7.12a5", "1"],
        ["12a45678901", "3", "0.5", "1"],
    ];
    for spelling in &spellings {
        for share in [1, 2, 9] {
            let mut text = HEADER.to_owned();
            for row in 0..600 {
                let [impressions, clicks, spend, conversions] =
                    if row % share == 0 { *spelling } else { ["12", "3", "0.5", "1"] };
                writeln!(text, "C{},,{impressions},{clicks},{spend},{conversions}", row % 7).unwrap();
            }
            assert_read_alike(&text, &format!("{spelling:?}, one in {share}"));
        }
    }
}

/// Rows whose fields are not all near each other, with numbers as many programs write them.
#[test]
fn numbers_of_every_spelling_may_stand_in_long_rows() {
    let long = "x".repeat(70);
    for (id, date) in [
        ("C", &*long),
        ("C", &*format!("\"{long}, {long}\"")),
        (&*long, "2025-01-01"),
        (&*format!("\"{long}\"\"\""), "2025-01-01"),
        ("\"C\"", &*format!("\"{long}\"\"\"")),
        ("0e9b2c1a-8d57-4f6e-9b1d-2f3a4b5c6d7e", "2025-01-01"),
    ] {
        for line_end in ["\n", "\r\n", "\r"] {
            let mut text = format!("{}{line_end}", HEADER.trim_end());
            for row in 0..500 {
                let spend = ["0.123456", "1234.5000", "7"][row % 3];
                write!(text, "{id},{date},{row}.0,1234567890, {spend},3{line_end}").unwrap();
            }
            assert_read_alike(&text, &format!("{id}, {date}, {line_end:?}"));
        }
    }
}

/// The judge compares what a cell means, cut to 64 bytes; other rows are told by the bytes of their cells.
#[test]
fn currencies_and_kinds_of_results_are_compared_as_they_are_meant() {
    let long = "x".repeat(62);
    let words = [
        ("\"\"\"\"\"x\"", "\"\"\"x\""),
        (&*format!("{long}\u{a0}y"), &*format!("{long}\u{a0}")),
        ("USD", "\u{a0}USD "),
        ("USD", "\"USD\""),
        ("USD", "EUR"),
        ("USD", "--"),
    ];
    let mut options = DialectOptions::default();
    assert_eq!(options.set("format", "meta_ads"), Ok(true));
    let dialect = Dialect::new(&options, None, true).unwrap().map(Arc::new);
    for (first, then) in words {
        for is_currency in [true, false] {
            let mut text =
                "Campaign ID,Day,Impressions,Link clicks,Amount spent (USD),Results,Currency,Result indicator\n"
                    .to_owned();
            for row in 0..200 {
                let word = if row % 50 == 49 { then } else { first };
                let (currency, indicator) = if is_currency { (word, "a") } else { ("USD", word) };
                writeln!(text, "c,2025-01-01,10,2,3.5,4,{currency},{indicator}").unwrap();
            }
            let read = |kernel| {
                let mut tally = Tally::in_dialect(TallyOptions { kernel, ..TallyOptions::default() }, dialect.clone());
                tally.push(text.as_bytes())?;
                let aggregate = tally.finish()?;
                Ok::<_, adtally::engine::Fatal>((Outcome::of(&aggregate), aggregate.readings().to_vec()))
            };
            let expected = read(Kernel::Off);
            for kernel in KERNELS {
                assert_eq!(read(kernel), expected, "{first:?} and {then:?}, {kernel:?}");
            }
        }
    }
}
