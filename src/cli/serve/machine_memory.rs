//! How much memory there is for this process.

use std::fs;

use crate::cli::values;
use crate::jobs::MIN_MEMORY_BUDGET_BYTES;

/// The part of the memory that uploads may take, in percent: the rest is for connections, the database's cache, and what the allocator keeps.
const BUDGET_PERCENT: u64 = 60;

/// When nothing tells how much memory there is.
const UNKNOWN_MEMORY_BYTES: u64 = 1 << 30;

/// Limits of the control group (cgroups(7)), in version 2 and in version 1, as a container sees its own.
const GROUP_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// The budget unless one is set.
pub(super) fn default_memory_budget() -> u64 {
    let limits = GROUP_LIMITS.map(|path| fs::read_to_string(path).unwrap_or_default());
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = available(&machine, limits.iter().map(String::as_str)).unwrap_or(UNKNOWN_MEMORY_BYTES);
    (memory / 100 * BUDGET_PERCENT).max(MIN_MEMORY_BUDGET_BYTES)
}

/// A size with which uploads can be served.
pub(super) fn parse_memory_budget(text: &str) -> Result<u64, String> {
    match values::parse_size(text)? {
        0..MIN_MEMORY_BUDGET_BYTES => Err(format!("expected at least {} MiB", MIN_MEMORY_BUDGET_BYTES >> 20)),
        size => Ok(size),
    }
}

/// The least of what the machine has and what limits say. Without a limit, version 2 says `max` and version 1 a number beyond all memory.
fn available<'a>(machine: &str, limits: impl Iterator<Item = &'a str>) -> Option<u64> {
    limits.filter_map(|limit| limit.trim().parse().ok()).chain(machine_bytes(machine)).min()
}

/// `MemTotal` of `/proc/meminfo`, see proc(5), in kibibytes.
fn machine_bytes(machine: &str) -> Option<u64> {
    let line = machine.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_holds() {
        let machine = "MemTotal:       16384 kB\nMemFree:         1024 kB\n";
        let available = |limits: [&str; 2]| available(machine, limits.into_iter());
        assert_eq!(available(["max\n", ""]), Some(16 << 20));
        assert_eq!(available(["8388608\n", ""]), Some(8 << 20));
        assert_eq!(available(["", "9223372036854771712\n"]), Some(16 << 20));
        assert_eq!(super::available("", ["max", ""].into_iter()), None);
    }
}
