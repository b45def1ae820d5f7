//! Writes text and numbers into a buffer, and the buffer when it is nearly full.

use std::io::{self, Write};

const BUFFER: usize = 1 << 20;
/// More than any row takes, with the longest id and numbers.
const ROOM: usize = 1 << 10;

pub(crate) fn digit(n: u64) -> u8 {
    b'0' + u8::try_from(n % 10).unwrap_or(0)
}

/// Eight decimal digits of `n`, one per byte, the first in the lowest: halves, quarters and eighths by
/// multiplication. After Paul Khuong, "How to print integers really fast", <https://pvk.ca>, 2017.
fn eight_digits(n: u64) -> u64 {
    let halves = (n / 10_000) | ((n % 10_000) << 32);
    let hundreds = ((halves * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | ((halves - 100 * hundreds) << 16);
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((pairs - 10 * tens) << 8)
}

/// The days of the first half of a year.
pub(crate) fn dates() -> Vec<[u8; 10]> {
    let months = [(1, 31), (2, 28), (3, 31), (4, 30), (5, 31), (6, 30)];
    let days = months.iter().flat_map(|&(month, days)| (1..=days).map(move |day| (month, day)));
    let date = |(month, day): (u64, u64)| {
        let mut date = *b"2025-00-00";
        date[6] = digit(month);
        date[8] = digit(day / 10);
        date[9] = digit(day);
        date
    };
    days.map(date).collect()
}

pub(crate) struct Output<W> {
    sink: W,
    bytes: Vec<u8>,
    len: usize,
}

impl<W: Write> Output<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { sink, bytes: vec![0; BUFFER], len: 0 }
    }

    pub(crate) fn put(&mut self, text: &[u8]) {
        let end = self.len + text.len();
        self.bytes[self.len..end].copy_from_slice(text);
        self.len = end;
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Takes back what was put last.
    pub(crate) fn drop_last(&mut self, bytes: usize) {
        self.len -= bytes;
    }

    /// To be called after every row, so that there is room for the next one.
    pub(crate) fn make_room(&mut self) -> io::Result<()> {
        if self.len < BUFFER - ROOM {
            return Ok(());
        }
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.sink.write_all(&self.bytes[..self.len])?;
        self.len = 0;
        self.sink.flush()
    }

    pub(crate) fn number(&mut self, n: u64) {
        let mut digits = eight_digits(n % 100_000_000);
        let mut leading = 0;
        if n >= 100_000_000 {
            self.number(n / 100_000_000);
        } else {
            leading = (digits.trailing_zeros() / 8).min(7);
            digits >>= 8 * leading;
        }
        // A fixed number of bytes and no branch on the length: lengths vary from number to number.
        self.put(&(digits | 0x3030_3030_3030_3030).to_le_bytes());
        self.len -= usize::try_from(leading).unwrap_or(0);
    }

    /// With both decimals.
    pub(crate) fn hundredths(&mut self, n: u64) {
        self.number(n / 100);
        self.put(&[b'.', digit(n / 10), digit(n)]);
    }
}
