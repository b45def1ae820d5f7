//! The engine means what the contract says, and finds the records that csv-async finds.

#![no_main]

use std::cell::RefCell;

use adtally::engine::report::campaign_table;
use adtally::engine::{Limits, Metric};
use adtally_fuzz::{Case, Ending, read};
use csv_async::{AsyncReaderBuilder, ByteRecord};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

use harness::{Bytes, Outcome, Skipped};
use oracle::{Record, Rules};

#[path = "../../tests/it/oracle.rs"]
mod oracle;

/// What the oracle needs of the tests around it.
mod harness {
    use std::collections::BTreeMap;

    use adtally::engine::SkipReason;

    #[derive(Debug, PartialEq)]
    pub(crate) struct Bytes(pub(crate) Vec<u8>);

    #[derive(Debug, PartialEq)]
    pub(crate) struct Skipped {
        pub(crate) line: u64,
        pub(crate) byte_offset: u64,
        pub(crate) reason: SkipReason,
        pub(crate) record: Bytes,
    }

    #[derive(Debug, PartialEq)]
    pub(crate) struct Outcome {
        pub(crate) bytes_read: u64,
        pub(crate) rows_read: u64,
        pub(crate) rows_skipped: u64,
        pub(crate) parse_errors: u64,
        pub(crate) unique_campaigns: usize,
        pub(crate) skipped: BTreeMap<SkipReason, u64>,
        pub(crate) rejects: Vec<Skipped>,
        pub(crate) campaigns: String,
        pub(crate) top_ctr: String,
        pub(crate) top_cpa: String,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some(case) = Case::new(bytes) else { return };
    let mut case = case.in_plain_contract();
    // The oracle does not know this limit either.
    case.options.limits.max_campaigns = Limits::default().max_campaigns;
    let rules = Rules {
        delimiter: case.options.delimiter.byte(),
        has_header: case.options.has_header,
        max_record_bytes: case.options.limits.max_record_bytes,
    };
    let records = oracle::records(&case.text, rules);
    check_with_csv_async(&case, &records);
    let expected = oracle::aggregate(&records, rules, case.text.len());
    assert_eq!(outcome(read(case.tally(case.options.kernel), case.pieces())), expected);
});

/// csv-async knows no limit and closes open quotes: it reads what stands between malformed records.
fn check_with_csv_async(case: &Case, records: &[Record]) {
    let mut records = records.iter().peekable();
    while let Some(record) = records.next() {
        if record.fields.is_none() {
            continue;
        }
        let mut expected = vec![record];
        expected.extend(std::iter::from_fn(|| records.next_if(|record| record.fields.is_some())));
        let end = records.peek().map_or(case.text.len(), |malformed| malformed.byte_offset);
        let found = csv_async_records(&case.text[record.byte_offset..end], case.options.delimiter.byte());
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.iter().eq(expected.fields.iter().flatten()), "found {found:?}, expected {expected:?}");
        }
    }
}

fn csv_async_records(text: &[u8], delimiter: u8) -> Vec<ByteRecord> {
    thread_local! {
        static RUNTIME: RefCell<Runtime> = RefCell::new(Builder::new_current_thread().build().unwrap());
    }
    // Not at the start of the text, or csv-async would take it for one, is a byte-order mark.
    let text = [b"\n", text].concat();
    let mut reader =
        AsyncReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).create_reader(&text[..]);
    let mut records = Vec::new();
    let mut record = ByteRecord::new();
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            while reader.read_byte_record(&mut record).await.unwrap() {
                records.push(record.clone());
            }
        });
    });
    records
}

fn outcome(ending: Ending) -> Result<Outcome, &'static str> {
    let aggregate = ending.map_err(|error| error.code())?;
    let counters = aggregate.counters();
    let rejects = aggregate.rejects().iter().map(|reject| Skipped {
        line: reject.line,
        byte_offset: reject.byte_offset,
        reason: reject.reason,
        record: Bytes(reject.record.clone()),
    });
    Ok(Outcome {
        bytes_read: counters.bytes_read,
        rows_read: counters.rows_read,
        rows_skipped: counters.rows_skipped(),
        parse_errors: counters.parse_errors(),
        unique_campaigns: aggregate.unique_campaigns(),
        skipped: counters.skipped().collect(),
        rejects: rejects.collect(),
        campaigns: campaign_table(&aggregate.campaigns().collect::<Vec<_>>()),
        top_ctr: campaign_table(&aggregate.leaders(Metric::Ctr, 10)),
        top_cpa: campaign_table(&aggregate.leaders(Metric::Cpa, 10)),
    })
}
