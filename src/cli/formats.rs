//! `adtally formats`: the presets for reports of ad platforms.

use std::io::{self, Write as _};

use clap::Args;

use super::stop::Stop;
use crate::engine::Format;

/// Lists the reports of ad platforms that `adtally aggregate --format NAME` reads.
///
/// A verified format has been tried with real files; an experimental one is after the platform's documentation and a few
/// files.
///
/// Exit codes: 0 done, 1 the system refused, 2 wrong usage.
#[derive(Args)]
pub(super) struct Arguments {
    /// Print the options that this one stands for
    #[arg(value_name = "NAME")]
    name: Option<Format>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Stop> {
    let lines = match arguments.name {
        Some(format) => options(format),
        None => Format::all().map(line).collect(),
    };
    match io::stdout().write_all(lines.as_bytes()) {
        // Its reader has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Stop::Refused(format!("standard output cannot be written to: {error}")))
        }
        _ => Ok(()),
    }
}

fn line(format: Format) -> String {
    let definition = format.definition();
    format!("{:<15} {:<13} {}\n", definition.name, definition.status(), definition.title)
}

/// The options as the command takes them, and as shells read them.
fn options(format: Format) -> String {
    let flag =
        |(name, value): (&str, String)| format!("--{} '{}'\n", name.replace('_', "-"), value.replace('\'', r"'\''"));
    format.definition().options().into_iter().map(flag).collect()
}
