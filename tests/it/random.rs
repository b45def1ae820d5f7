//! Random numbers that can be repeated, and how many rounds a random test runs.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

/// Repeats the random numbers of an earlier run.
const SEED_VARIABLE: &str = "ADTALLY_SEED";

/// Random numbers from a seed (`SplitMix64`).
pub(crate) struct Random(u64);

impl Random {
    /// The seed is the one in the environment, or another one each time. A test that fails shows it.
    pub(crate) fn new() -> Self {
        let seed = number_in(SEED_VARIABLE).unwrap_or_else(|| {
            let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
            u64::try_from(nanoseconds & u128::from(u64::MAX)).unwrap()
        });
        println!("{SEED_VARIABLE}={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one.
    #[track_caller]
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// True in one of so many cases.
    pub(crate) fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }
}

/// How many rounds to run: what an environment variable says, or a few.
pub(crate) fn rounds(variable: &str, few: usize) -> usize {
    number_in(variable).map_or(few, |number| usize::try_from(number).unwrap())
}

fn number_in(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
