//! No bytes make restoring panic, whatever their checksum; and what can be restored can be used and saved.

#![no_main]

use adtally::engine::report::{Stats, campaign_table, rejects_pieces};
use adtally::engine::{Fatal, Metric, Tally};
use adtally_fuzz::{Case, KERNELS, assert_same_tally};
use flate2::Crc;
use libfuzzer_sys::fuzz_target;

/// The magic number and the version.
const START_1: Start = b"adtally\0\x01\0";
const START_2: Start = b"adtally\0\x02\0";
type Start = &'static [u8; 10];

/// Id, lanes, and wide sums, of which version 1 had only the first four.
type Campaign = (Vec<u8>, [u64; 4], [u128; 5]);
/// What stands before the campaigns in version 2 and not in version 1, when nothing of it is there.
const ABSENT: [u8; 7] = [0; 7];

const ROWS: &str =
    "CMP001,2025-01-01,12000,340,56.78,12\nCMP001,x,1,2,3.456,4\n,x,1,2,3,4\n\"CMP002\",x,1,2,3,-4\r\n\n";

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let kernel = KERNELS[usize::from(*kind) % 3];
    let start = if kind & 0x20 == 0 { START_2 } else { START_1 };
    let restored = match kind >> 6 {
        0 => Tally::restore(bytes, kernel),
        1 => Tally::restore(&sealed(start, bytes), kernel),
        _ => {
            let Some(state) = forged(start, bytes) else { return };
            Tally::restore(&sealed(start, &state), kernel)
        }
    };
    if let Ok(tally) = restored {
        // It may end as it likes.
        let _ = use_up(tally);
    }
});

/// A state between its magic number and its checksum.
fn sealed(start: Start, state: &[u8]) -> Vec<u8> {
    let mut bytes = [start, state].concat();
    let mut checksum = Crc::new();
    checksum.update(&bytes);
    bytes.extend(checksum.sum().to_le_bytes());
    bytes
}

/// The state of a tally that has read a text, some of its numbers replaced: nearly every change of such bytes is one that
/// can be read.
fn forged(start: Start, bytes: &[u8]) -> Option<Vec<u8>> {
    let (changes, bytes) = bytes.split_first_chunk::<8>()?;
    let mut case = Case::new(bytes)?;
    if start == START_1 {
        case = case.in_plain_contract();
    }
    let mut tally = case.tally(case.options.kernel);
    tally.push(&case.text).ok()?;
    let saved = tally.save();
    let mut state = saved[start.len()..saved.len() - 4].to_vec();
    if start == START_1 {
        state = as_version_1(&state, tally.so_far().unique_campaigns())?;
        let restored = Tally::restore(&sealed(start, &state), case.options.kernel);
        assert_same_tally(&restored.unwrap_or_else(|error| panic!("version 1 is not restored: {error}")), &tally);
    }
    for [place, value] in changes.as_chunks().0 {
        replace_number(&mut state, (*place).into(), *value);
    }
    Some(state)
}

/// A state of version 2 as version 1 saved it. `None` when it has something that version 1 did not know.
fn as_version_1(state: &[u8], campaign_count: usize) -> Option<Vec<u8>> {
    let mut starts = (0..state.len()).filter(|start| state[*start..].starts_with(&ABSENT));
    starts.find_map(|start| {
        let campaigns = &state[start + ABSENT.len()..];
        let (campaigns, rest) = postcard::take_from_bytes::<Vec<Campaign>>(campaigns).ok()?;
        if !rest.is_empty() || campaigns.len() != campaign_count {
            return None;
        }
        let campaigns: Vec<_> = campaigns
            .into_iter()
            .map(|(id, lanes, [impressions, clicks, spend, conversions, _])| {
                (id, lanes, [impressions, clicks, spend, conversions])
            })
            .collect();
        let campaigns = postcard::to_allocvec(&campaigns).expect("it fits into memory");
        Some([&state[..start], &campaigns].concat())
    })
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
    rejects_pieces(&aggregate, true, 1000).for_each(drop);
    let _ = Stats::new(&aggregate, 1.0);
    Ok(())
}

fn save_and_restore(tally: &Tally) -> Tally {
    Tally::restore(&tally.save(), KERNELS[0]).unwrap_or_else(|error| panic!("what it saves is not restored: {error}"))
}
