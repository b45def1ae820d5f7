//! Why commands end early, and lines on standard error.

use std::io::Write as _;

/// Why a command ends early.
pub(super) enum Stop {
    /// The data or the system refused; the line says what and why.
    Refused(String),
    /// The arguments do not fit together.
    Usage(String),
    /// A signal with this number stopped it.
    Signal(i32),
}

/// Writes a line to standard error. That it is closed is no error.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
