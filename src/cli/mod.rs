//! The commands: flags and the terminal in, exit codes out.

mod aggregate;
mod healthcheck;
mod output;
mod progress;
mod serve;

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::engine::Limits;

#[derive(Parser)]
#[command(name = "adtally", version, about, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Aggregate(aggregate::Arguments),
    Serve(Box<serve::Arguments>),
    Healthcheck(healthcheck::Arguments),
}

/// Why a command ends early.
enum Stop {
    /// The data or the system refused; the line says what and why.
    Refused(String),
    /// The arguments do not fit together.
    Usage(String),
    /// A signal asked for it.
    Signal(i32),
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Aggregate(arguments) => aggregate::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Refused(line)) => {
            say(&format!("adtally: {line}"));
            ExitCode::FAILURE
        }
        Err(Stop::Usage(line)) => Cli::command().error(ErrorKind::ArgumentConflict, line).exit(),
        // As shells report it.
        Err(Stop::Signal(number)) => {
            say("adtally: stopped before the end; no results were written");
            ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))
        }
    }
}

/// Writes a line to standard error. There is nobody to tell when that is closed.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn parse_max_record_bytes(text: &str) -> Result<usize, String> {
    parse_limit(text, 1 << 30)
}

fn parse_max_campaigns(text: &str) -> Result<usize, String> {
    parse_limit(text, Limits::default().max_campaigns)
}

/// A number of things of which there has to be one at least.
fn parse_count(text: &str) -> Result<usize, String> {
    parse_limit(text, 1 << 20)
}

fn parse_limit(text: &str, largest: usize) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=largest).contains(limit));
    limit.ok_or_else(|| format!("expected a number from 1 to {largest}"))
}
