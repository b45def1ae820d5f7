//! The query of an address, and the options of jobs and files.

use std::borrow::Cow;
use std::str::{FromStr, Utf8Error};
use std::sync::LazyLock;

use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use mime::Mime;
use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use super::fields::invalid_header;
use super::problem::{Kind, Problem};
use crate::ingest::encoding_for_label;
use crate::jobs::JobOptions;

/// The parameters behind the question mark of an address.
#[derive(Clone, Debug, Default)]
pub(super) struct Query<'a>(Vec<Pair<'a>>);

/// A name and its value.
type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

impl<'a> Query<'a> {
    /// Reads parameters of which only these may be there, each once.
    pub(super) fn read(uri: &'a Uri, known: &[&str]) -> Result<Self, Problem> {
        let pairs = decode(uri.query().unwrap_or_default())?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_ref()) {
                let detail = match known {
                    [] => format!("{name:?}: this address takes no options"),
                    _ => format!("{name:?}: expected one of {}", known.join(", ")),
                };
                return Err(Problem::new(Kind::UnknownOption, detail));
            }
            if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(invalid_option(name, &"it is given more than once"));
            }
        }
        Ok(Self(pairs))
    }

    /// Adds a parameter that was not in the address.
    pub(super) fn add(&mut self, name: String, value: String) -> Result<(), Problem> {
        if self.text(&name).is_some() {
            return Err(invalid_option(&name, &"it is given more than once"));
        }
        self.0.push((Cow::Owned(name), Cow::Owned(value)));
        Ok(())
    }

    /// Options that are not told by an address.
    pub(super) fn from_pairs(pairs: Vec<(String, String)>) -> Query<'static> {
        Query(pairs.into_iter().map(|(name, value)| (Cow::Owned(name), Cow::Owned(value))).collect())
    }

    /// The same, apart from the address.
    pub(super) fn into_owned(self) -> Query<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Query(self.0.into_iter().map(|(name, value)| (owned(name), owned(value))).collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_ref())
    }

    /// All parameters with their values.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.text(name).map(|value| value.parse().map_err(|error| invalid_option(name, &error))).transpose()
    }
}

/// The names and values of a query. Bytes that are not UTF-8 are refused: as U+FFFD, they would mean another name or value.
fn decode(query: &str) -> Result<Vec<Pair<'_>>, Problem> {
    let text = |encoded: &str| -> Result<String, Utf8Error> {
        let spaced = encoded.replace('+', " ");
        percent_decode(spaced.as_bytes()).decode_utf8().map(Cow::into_owned)
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (encoded_name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = text(encoded_name)
            .map_err(|_| Problem::new(Kind::UnknownOption, format!("{encoded_name:?}: expected UTF-8")))?;
        let value = text(value).map_err(|_| invalid_option(&name, &"expected UTF-8"))?;
        Ok((Cow::Owned(name), Cow::Owned(value)))
    });
    pairs.collect()
}

pub(super) fn invalid_option(name: &str, reason: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::InvalidOption, format!("{name}: {reason}"))
}

/// The options of a new job.
pub(super) const JOB_OPTIONS: [&str; JobOptions::NAMES.len()] = JobOptions::NAMES;

/// The options that a job has, and not one of its files.
const ONLY_OF_JOBS: &str = "top";

/// The options of a file of an open job.
pub(super) static FILE_OPTIONS: LazyLock<Vec<&str>> =
    LazyLock::new(|| JOB_OPTIONS.into_iter().filter(|name| *name != ONLY_OF_JOBS).collect());

/// Refuses what only a job has, of a file of an open one.
pub(super) fn refuse_job_options(query: &Query<'_>) -> Result<(), Problem> {
    match query.text(ONLY_OF_JOBS) {
        None => Ok(()),
        Some(_) => Err(invalid_option(ONLY_OF_JOBS, &"the job has it, not one of its files")),
    }
}

/// Reads the options of a new job. A parameter wins over the content type.
pub(super) fn job_options(query: &Query<'_>, content_type: Option<&Mime>) -> Result<JobOptions, Problem> {
    file_options(query, content_type, JobOptions::default())
}

/// Reads the options of a file, which are those of its job unless it has others. A parameter wins over the content type.
pub(super) fn file_options(
    query: &Query<'_>,
    content_type: Option<&Mime>,
    mut options: JobOptions,
) -> Result<JobOptions, Problem> {
    // RFC 4180, 3: the type's parameters. Those that a parameter of the address replaces are not looked at.
    if let Some(content_type) = content_type {
        if let Some(charset) = content_type.get_param("charset").filter(|_| query.text("encoding").is_none()) {
            options.encoding = encoding_for_label(charset.as_str())
                .map_err(|error| invalid_header(&CONTENT_TYPE, format_args!("charset: {error}")))?;
        }
        let header = content_type.get_param("header").filter(|_| query.text("has_header").is_none());
        match header.map(|header| header.as_str().to_ascii_lowercase()).as_deref() {
            None => {}
            Some("present") => options.has_header = true,
            Some("absent") => options.has_header = false,
            Some(other) => {
                let reason = format_args!("header: {other:?}: expected present or absent");
                return Err(invalid_header(&CONTENT_TYPE, reason));
            }
        }
    }
    options.change(query.pairs()).map_err(|error| invalid_option(&error.name, &error.reason))?;
    Ok(options)
}

/// The members of the `options` of a JSON document, as they are written in a query.
///
/// # Errors
/// When one of them is no option, or of another type.
pub(super) fn options_of_json(members: Map<String, Value>) -> Result<Query<'static>, String> {
    let mut pairs = Vec::new();
    for (name, value) in members {
        if !JOB_OPTIONS.contains(&name.as_str()) {
            return Err(format!("options: {name:?}: expected one of {}", JOB_OPTIONS.join(", ")));
        }
        let (is_right, expected) = match name.as_str() {
            "top" => (value.is_u64(), "a whole number"),
            "has_header" => (value.is_boolean(), "true or false"),
            "id_brackets" => (value.is_boolean() || value.is_string(), "true or false"),
            "max_skipped" => (value.is_number() || value.is_string(), "a number or a string"),
            _ => (value.is_string(), "a string"),
        };
        match value {
            Value::Null => {}
            Value::String(text) if is_right => pairs.push((name, text)),
            value if is_right => pairs.push((name, value.to_string())),
            value => return Err(format!("options: {name}: {value}: expected {expected}")),
        }
    }
    Ok(Query::from_pairs(pairs))
}
