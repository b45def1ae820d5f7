//! The commands: flags and the terminal in, exit codes out.

mod aggregate;
mod format_flags;
mod formats;
mod healthcheck;
mod output;
mod progress;
mod serve;
mod stop;
mod token;
mod values;

use std::env;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use stop::{Stop, say};

#[derive(Parser)]
#[command(name = "adtally", version, about, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Aggregate(Box<aggregate::Arguments>),
    Formats(formats::Arguments),
    Serve(Box<serve::Arguments>),
    Token(token::Arguments),
    Healthcheck(healthcheck::Arguments),
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    let matches = Cli::command().try_get_matches().unwrap_or_else(|error| {
        name_empty_variable(&error);
        error.exit()
    });
    // What does not fit the types has been refused already.
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut Cli::command()).exit());
    let given = matches.subcommand().map_or(&matches, |(_, given)| given);
    let result = match cli.command {
        Command::Aggregate(arguments) => aggregate::run(&arguments),
        Command::Formats(arguments) => formats::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments, given),
        Command::Token(arguments) => token::run(&arguments),
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

/// Says that a refused value comes from an environment variable without one: the error names the flag only, which was not given.
fn name_empty_variable(error: &clap::Error) {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return;
    };
    for (variable, _) in env::vars_os().filter(|(_, value)| value.is_empty()) {
        let variable = variable.to_string_lossy();
        let Some(name) = variable.strip_prefix("ADTALLY_") else {
            continue;
        };
        if argument.starts_with(&format!("--{} <", name.to_lowercase().replace('_', "-"))) {
            say(&format!("adtally: the environment variable {variable} is empty: give it a value, or unset it"));
        }
    }
}
