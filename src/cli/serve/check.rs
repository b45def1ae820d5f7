//! `adtally serve --check`: the settings in effect, where each comes from, and why the service would not start with them.

use std::io::{self, Write as _};
use std::net::TcpListener;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command};

use super::arguments::Arguments;
use super::directories::check_directory;
use super::refusals::{cannot_listen, cannot_listen_for_metrics, cannot_open};
use super::token_file::{self, TokenFile};
use crate::cli::stop::{Stop, say};
use crate::cli::values;
use crate::jobs::DatabaseLock;

/// The argument that asks for the check.
const CHECK: &str = "check";

/// Prints every setting. Refuses when the service would. Writes nothing to the disk, and leaves the database alone.
pub(super) fn check(arguments: &Arguments, given: &ArgMatches) -> Result<(), Stop> {
    print_settings(arguments, given).map_err(|error| Stop::Refused(format!("standard output: {error}")))?;
    let refusals = refusals(arguments);
    for refusal in &refusals {
        say(&format!("adtally: {refusal}"));
    }
    match refusals.len() {
        0 => Ok(()),
        1 => Err(Stop::Refused("the service would not start, for the reason above".into())),
        count => Err(Stop::Refused(format!("the service would not start, for the {count} reasons above"))),
    }
}

fn print_settings(arguments: &Arguments, given: &ArgMatches) -> io::Result<()> {
    let command = Arguments::augment_args(Command::new("serve"));
    let settings = command.get_arguments().filter(|argument| argument.get_id() != CHECK).filter_map(|argument| {
        let id = argument.get_id().as_str();
        let values: Vec<_> = given.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy()).collect();
        let value = if values.is_empty() { "-".to_owned() } else { without_password(&values.join(",")) };
        let source = match given.value_source(id) {
            Some(ValueSource::CommandLine) => "command line".to_owned(),
            Some(ValueSource::EnvVariable) => argument.get_env().unwrap_or_default().to_string_lossy().into_owned(),
            Some(_) => "default".to_owned(),
            None => "not set".to_owned(),
        };
        let (value, source) = match derived_default(arguments, id) {
            Some((derived, origin)) if given.value_source(id).is_none() => (derived, format!("default ({origin})")),
            _ => (value, source),
        };
        Some((format!("--{}", argument.get_long()?), value, source))
    });
    let settings: Vec<_> = settings.collect();
    let width =
        |text: fn(&(String, String, String)) -> &str| settings.iter().map(|row| text(row).len()).max().unwrap_or(0);
    let (names, values) = (width(|row| &row.0), width(|row| &row.1));
    let mut output = io::stdout().lock();
    for (name, value, source) in &settings {
        writeln!(output, "{name:names$}  {value:values$}  {source}")?;
    }
    Ok(())
}

/// What a setting is when it is not given, and what that is made of; none for one that has a fixed default, or none at all.
fn derived_default(arguments: &Arguments, id: &str) -> Option<(String, &'static str)> {
    let jobs = || arguments.jobs_config();
    Some(match id {
        "database_url" => (jobs().database_url, "a file in --data-dir"),
        "memory_budget" => (values::show_size(jobs().memory_budget_bytes), "a share of the machine's memory"),
        "parser_threads" => (jobs().parser_threads.to_string(), "as many as there are cores"),
        "max_open_jobs_per_tenant" => (jobs().open_jobs.max_open_jobs_per_tenant.to_string(), "--max-open-jobs"),
        "max_uploads_per_tenant" => (jobs().max_uploads_per_tenant.to_string(), "--max-concurrent-uploads"),
        "max_downloads_per_tenant" => {
            (arguments.http_config(None).max_downloads_per_tenant.to_string(), "--max-concurrent-downloads")
        }
        _ => return None,
    })
}

/// The address of a database may have a password in it.
fn without_password(value: &str) -> String {
    match value.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, place)) => format!("{scheme}://…@{place}"),
        None => value.to_owned(),
    }
}

/// Everything for which the service would not start.
fn refusals(arguments: &Arguments) -> Vec<String> {
    let mut refused = Vec::new();
    refused.extend(token_file::check_listen(arguments).err());
    refused.extend(arguments.token_file.as_deref().and_then(|path| TokenFile::load(path).err()));
    refused.extend(check_directory(&arguments.data_dir, "--data-dir").err());
    refused.extend(arguments.results_dir.as_deref().and_then(|path| check_directory(path, "--results-dir").err()));
    refused.extend(cannot_listen_on(arguments));
    refused.extend(arguments.load_tls().err());
    // Without an address of its own the database is in the data directory, which the service makes.
    if arguments.database_url.is_some() || arguments.data_dir.exists() {
        let database = arguments.jobs_config().database_url;
        refused.extend(DatabaseLock::check(&database).err().map(|error| cannot_open(&database, &error)));
    }
    refused
}

/// Why the service could not listen. Both addresses are taken at once, as the service does.
fn cannot_listen_on(arguments: &Arguments) -> Vec<String> {
    let main = TcpListener::bind(arguments.listen);
    let metrics = arguments.metrics_listen.map(|address| (address, TcpListener::bind(address)));
    let mut refused = Vec::new();
    if let Err(error) = &main {
        refused.push(cannot_listen("--listen", arguments.listen, error));
    }
    if let Some((address, Err(error))) = &metrics {
        refused.push(match &main {
            Ok(_) => cannot_listen_for_metrics(*address, arguments.listen, error),
            Err(_) => cannot_listen("--metrics-listen", *address, error),
        });
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (value, shown) in [
            ("postgres://user:sesame@db/adtally", "postgres://…@db/adtally"),
            ("postgres://user:a@b@db/adtally", "postgres://…@db/adtally"),
            ("sqlite://data/adtally.db", "sqlite://data/adtally.db"),
            ("64GiB", "64GiB"),
        ] {
            assert_eq!(without_password(value), shown);
        }
    }
}
