//! Each event is one line of the log, also when a text in it has line ends.

use std::borrow::Cow;
use std::io::{self, Write};

/// Standard error. An event that holds line ends, such as those in the text of an error, is written with `\n` and `\r` in their place: nothing
/// that came from outside can pass for a line of its own.
pub(super) struct LogLines;

impl Write for LogLines {
    /// Takes a whole event, which is how the log writes.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&one_line(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let text = event.strip_suffix(b"\n").unwrap_or(event);
    if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Cow::Borrowed(event);
    }
    let mut line = Vec::with_capacity(event.len() + 16);
    for byte in text {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            other => line.push(*other),
        }
    }
    line.push(b'\n');
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        for (event, line) in [
            ("a b\n", "a b\n"),
            ("a\nb\n", "a\\nb\n"),
            ("a\r\n2026-01-01T00:00:00Z ERROR b\n", "a\\r\\n2026-01-01T00:00:00Z ERROR b\n"),
            ("", ""),
        ] {
            assert_eq!(one_line(event.as_bytes()), line.as_bytes(), "{event:?}");
        }
    }
}
