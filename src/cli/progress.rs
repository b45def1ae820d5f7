//! The progress of a run: a bar on a terminal, lines on request, otherwise nothing.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::stop::say;
use crate::ingest::Observer;

/// Enough for a bar that moves smoothly.
const REDRAWS_PER_SECOND: u8 = 10;

/// Shows progress on standard error.
pub(super) struct Progress {
    bytes: AtomicU64,
    rows: AtomicU64,
    /// A line whenever this many more rows have been read.
    line_every_rows: Option<u64>,
    /// Bytes of all inputs, if known.
    expected_bytes: Option<u64>,
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    pub(super) fn new(expected_bytes: Option<u64>, line_every_rows: Option<u64>) -> Self {
        let is_shown = line_every_rows.is_none() && std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(expected_bytes, ProgressDrawTarget::hidden())
            .with_style(style(expected_bytes));
        if is_shown {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND));
            bar.enable_steady_tick(Duration::from_secs(1) / u32::from(REDRAWS_PER_SECOND));
        }
        let counter = || AtomicU64::new(0);
        Self { bytes: counter(), rows: counter(), line_every_rows, expected_bytes, bar, started: Instant::now() }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, bytes: u64, rows: u64) -> String {
        let of_all = match self.expected_bytes {
            Some(expected) if expected > 0 => format!(" ({}%)", (bytes * 100 / expected).min(100)),
            _ => String::new(),
        };
        format!("rows_read={rows} bytes={bytes}{of_all} elapsed_seconds={:.1}", self.started.elapsed().as_secs_f64())
    }
}

impl Observer for Progress {
    fn advanced(&self, bytes: u64, rows: u64) {
        let bytes_now = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let rows_before = self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bar.set_position(bytes_now);
        if let Some(every) = self.line_every_rows
            && (rows_before + rows) / every > rows_before / every
        {
            say(&self.line(bytes_now, rows_before + rows));
        }
    }
}

fn style(expected_bytes: Option<u64>) -> ProgressStyle {
    let template = match expected_bytes {
        Some(_) => "{bar:40} {percent:>3}%  {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  ETA {eta}",
        None => "{spinner} {decimal_bytes}  {decimal_bytes_per_sec}  {elapsed}",
    };
    // Both templates are valid. If one were not, the default style would be good enough.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
