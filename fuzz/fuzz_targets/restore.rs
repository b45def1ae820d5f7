//! No bytes make restoring panic, whatever their checksum; and what can be restored can be used and saved.

#![no_main]

use adtally::engine::report::{Stats, campaign_table, rejects_table};
use adtally::engine::{Fatal, Metric, Tally};
use adtally_fuzz::{Case, KERNELS};
use flate2::Crc;
use libfuzzer_sys::fuzz_target;

/// The magic number and version 1.
const START: &[u8] = b"adtally\0\x01\0";
const ROWS: &str =
    "CMP001,2025-01-01,12000,340,56.78,12\nCMP001,x,1,2,3.456,4\n,x,1,2,3,4\n\"CMP002\",x,1,2,3,-4\r\n\n";

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let kernel = KERNELS[usize::from(*kind) % 3];
    let restored = match kind >> 6 {
        0 => Tally::restore(bytes, kernel),
        1 => Tally::restore(&sealed(bytes.to_vec()), kernel),
        _ => {
            let Some(state) = forged(bytes) else { return };
            Tally::restore(&sealed(state), kernel)
        }
    };
    if let Ok(tally) = restored {
        // It may end as it likes.
        let _ = use_up(tally);
    }
});

/// A state between its magic number and its checksum.
fn sealed(state: Vec<u8>) -> Vec<u8> {
    let mut bytes = [START, &state].concat();
    let mut checksum = Crc::new();
    checksum.update(&bytes);
    bytes.extend(checksum.sum().to_le_bytes());
    bytes
}

/// The state of a tally that has read a text, some of its numbers replaced: nearly every change of such bytes is one that
/// can be read.
fn forged(bytes: &[u8]) -> Option<Vec<u8>> {
    let (changes, bytes) = bytes.split_first_chunk::<8>()?;
    let case = Case::new(bytes)?;
    let mut tally = Tally::new(case.options);
    tally.push(&case.text).ok()?;
    let saved = tally.save();
    let mut state = saved[START.len()..saved.len() - 4].to_vec();
    for [place, value] in changes.as_chunks().0 {
        replace_number(&mut state, (*place).into(), *value);
    }
    Some(state)
}

/// Replaces the number at a place, numbers being counted from the start: seven bits a byte, the highest bit set in all
/// but the last.
fn replace_number(state: &mut Vec<u8>, place: usize, value: u8) {
    let mut ends = state.iter().enumerate().filter(|(_, byte)| **byte < 0x80).map(|(index, _)| index + 1);
    let start = if place == 0 { Some(0) } else { ends.nth(place - 1) };
    let (Some(start), Some(end)) = (start, ends.next()) else { return };
    let power = 1_u64 << (value & 0x3f);
    let number = match value >> 6 {
        0 => u64::from(value),
        1 => power,
        2 => power - 1,
        _ => power.wrapping_neg(),
    };
    state.splice(start..end, written(number));
}

fn written(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

fn use_up(mut tally: Tally) -> Result<(), Fatal> {
    tally = save_and_restore(&tally);
    tally.push(ROWS.as_bytes())?;
    tally = save_and_restore(&tally);
    tally.push(ROWS.repeat(80).as_bytes())?;
    tally = save_and_restore(&tally);
    if tally.is_between_records()
        && let Some(mut fork) = tally.fork(tally.offset())
    {
        fork.push(ROWS.as_bytes())?;
        tally.join(fork)?;
    }
    let aggregate = tally.finish()?;
    // The reports' arithmetic has to cope as well.
    for metric in [Metric::Ctr, Metric::Cpa] {
        let _ = campaign_table(&aggregate.leaders(metric, 10));
    }
    let _ = rejects_table(aggregate.rejects(), true);
    let _ = Stats::new(aggregate.counters(), aggregate.unique_campaigns(), 1.0);
    Ok(())
}

fn save_and_restore(tally: &Tally) -> Tally {
    Tally::restore(&tally.save(), KERNELS[0]).unwrap_or_else(|error| panic!("what it saves is not restored: {error}"))
}
