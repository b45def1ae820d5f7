//! The flags that tell how the input is written: one for each option, all from one table.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::jobs::{InvalidOption, JobOptions};

/// Each flag: the option's name, what stands for its value, and one line of help.
const FLAGS: [(&str, &str, &str); 15] = [
    ("format", "NAME", "Report of an ad platform, see `adtally formats`; the flags below change what it stands for"),
    ("columns", "FIELD:NAME|NAME;…", "Names of columns; of several names the first one in the header is taken"),
    ("header", "first|find", "Whether the first record is the header, or the first one that has all columns"),
    ("delimiter", "C|tab|auto", "The character between two fields; a comma, or auto with --format"),
    ("decimal", ".|,|auto", "The decimal mark; auto: the one of the first row's spend"),
    ("thousands", "MARK", "The mark between groups of three digits: none , . ' space any"),
    ("conversions", "whole|decimal", "Whether conversions may have decimals, up to 12"),
    ("currency", "none|strip", "Whether a currency sign or code beside a spend is passed over"),
    ("spend-unit", "1|micros", "What a spend counts: units of the currency, or millionths of them"),
    ("zero-if-empty", "FIELDS", "Fields in which an empty cell is zero: clicks,conversions or none"),
    (
        "totals",
        "LABEL|LABEL",
        "Labels of rows that are sums of others, which do not count; none: there are no such rows",
    ),
    ("end", "file|blank_line", "Whether the data ends with the file or with the first blank line behind data"),
    ("id-brackets", "true|false", "Whether [123] as a campaign id means 123"),
    ("rejects", "first|all", "Which skipped rows rejects.csv shows: the first 100, or all"),
    (
        "max-skipped",
        "N|P%",
        "Most rows that may be skipped, a number or a share of the rows read; more refuse the input",
    ),
];

/// The options that were given as flags.
#[derive(Debug, Default)]
pub(super) struct FormatFlags(Vec<(&'static str, String)>);

impl FormatFlags {
    /// Changes the options as the flags ask for.
    ///
    /// # Errors
    /// When options contradict each other.
    pub(super) fn change(&self, options: &mut JobOptions) -> Result<(), InvalidOption> {
        let pairs: Vec<_> = self.0.iter().map(|(flag, value)| (option_of(flag), value.as_str())).collect();
        options.change(pairs.iter().map(|(name, value)| (name.as_str(), *value)))
    }
}

/// The name of an option as it is in queries.
fn option_of(flag: &str) -> String {
    flag.replace('-', "_")
}

fn argument((name, values, help): (&'static str, &'static str, &'static str)) -> Arg {
    let parse = move |text: &str| {
        let checked = JobOptions::default().set(&option_of(name), text);
        checked.map(|()| text.to_owned()).map_err(|error| error.reason)
    };
    Arg::new(name).long(name).value_name(values).help(help).help_heading("Format").value_parser(parse)
}

impl Args for FormatFlags {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FormatFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        let given = FLAGS.into_iter().filter_map(|(name, ..)| Some((name, matches.get_one::<String>(name)?.clone())));
        self.0 = given.collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_flag() {
        // Those that are no text have flags of their own.
        let others = ["has_header", "encoding", "top"];
        let mut names: Vec<_> =
            FLAGS.iter().map(|(name, ..)| option_of(name)).chain(others.map(str::to_owned)).collect();
        names.sort();
        let mut expected = JobOptions::NAMES.map(str::to_owned);
        expected.sort();
        assert_eq!(names, expected);
    }
}
