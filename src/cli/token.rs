//! `adtally token`: makes a token.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use super::stop::{Stop, say};
use crate::http::{NewToken, SECRET_BYTES, TokenTable, check_tenant, check_token_name, parse_expiry};

/// Makes a token for `adtally serve --token-file`.
///
/// Prints the token to standard output, once: it is stored nowhere. The line for the token file goes to standard error, or with --append to
/// the end of that file.
///
/// Exit codes: 0 done, 1 the system refused, 2 wrong usage.
#[derive(Args)]
pub(super) struct Arguments {
    /// Name of the token, by which the log tells it from others: up to 64 of A-Z a-z 0-9 . _ -
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: String,

    /// Tenant whose jobs it reaches; the name of the token if not given. '' reaches the jobs of a service without tokens
    #[arg(long, value_name = "TENANT", value_parser = parse_tenant)]
    tenant: Option<String>,

    /// Let it reach the jobs of all tenants, and the metrics
    #[arg(long)]
    admin: bool,

    /// Day from whose beginning in UTC on it is refused, such as 2027-01-31; also a time such as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    expires: Option<String>,

    /// Token file to which the line is added; made if it is not there
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
}

fn parse_name(text: &str) -> Result<String, String> {
    check_token_name(text).map(|()| text.to_owned())
}

fn parse_tenant(text: &str) -> Result<String, String> {
    check_tenant(text).map(|()| text.to_owned())
}

/// Keeps it as it is written.
fn parse_date(text: &str) -> Result<String, String> {
    parse_expiry(text).map(|_| text.to_owned())
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Stop> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret)
        .map_err(|error| Stop::Refused(format!("the system gives no random bytes: {error}")))?;
    let tenant = arguments.tenant.as_deref().unwrap_or(&arguments.name);
    let made = NewToken::new(&arguments.name, tenant, arguments.admin, arguments.expires.as_deref(), secret);
    if let Some(date) = &arguments.expires
        && parse_expiry(date).is_ok_and(|expiry| expiry <= Timestamp::now())
    {
        say(&format!("warning: {date} has passed: the token is refused from the beginning"));
    }
    if let Some(path) = &arguments.append {
        // Before the token is shown: one that is not stored is none.
        append(path, &made.line).map_err(|error| Stop::Refused(format!("--append {}: {error}", path.display())))?;
    } else {
        say("Add this line to the token file:");
        say(&made.line);
        say("The token, which is shown only now:");
    }
    writeln!(io::stdout(), "{}", made.token)
        .map_err(|error| Stop::Refused(format!("standard output cannot be written to: {error}")))
}

fn append(path: &Path, line: &str) -> Result<(), String> {
    let told = |error: io::Error| error.to_string();
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(told)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(told)?;
    // One write, so that a service which reads the file meanwhile sees all of the line. A line end before it, in case the last line has none.
    let is_between_lines = text.last().is_none_or(|last| *last == b'\n');
    let line = format!("{}{line}\n", if is_between_lines { "" } else { "\n" });
    text.extend_from_slice(line.as_bytes());
    // The service would refuse it, for example when the name is taken.
    TokenTable::parse(&text).map_err(|error| format!("with this token the file could not be read: {error}"))?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(told)
}
