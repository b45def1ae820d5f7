//! Values of flags that several commands have.

use crate::engine::Limits;

pub(super) fn parse_max_record_bytes(text: &str) -> Result<usize, String> {
    parse_limit(text, 1 << 30)
}

pub(super) fn parse_max_campaigns(text: &str) -> Result<usize, String> {
    parse_limit(text, Limits::default().max_campaigns)
}

/// A number of things, at least one.
pub(super) fn parse_count(text: &str) -> Result<usize, String> {
    parse_limit(text, 1 << 20)
}

fn parse_limit(text: &str, largest: usize) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=largest).contains(limit));
    limit.ok_or_else(|| format!("expected a number from 1 to {largest}"))
}
