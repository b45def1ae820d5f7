//! The query of an address, and the options of jobs and files.

use std::borrow::Cow;
use std::str::FromStr;

use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use mime::Mime;

use super::fields::invalid_header;
use super::problem::{Kind, Problem};
use crate::engine::Delimiter;
use crate::ingest::encoding_for_label;
use crate::jobs::JobOptions;

/// The parameters behind the question mark of an address.
#[derive(Debug, Default)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads parameters of which only these may be there, each once.
    pub(super) fn read(uri: &'a Uri, known: &[&str]) -> Result<Self, Problem> {
        let pairs: Vec<_> = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect();
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

    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.text(name).map(|value| value.parse().map_err(|error| invalid_option(name, &error))).transpose()
    }
}

pub(super) fn invalid_option(name: &str, reason: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::InvalidOption, format!("{name}: {reason}"))
}

/// The options of a new job.
pub(super) const JOB_OPTIONS: [&str; 4] = ["delimiter", "has_header", "encoding", "top"];

/// The options of a file of an open job.
pub(super) const FILE_OPTIONS: [&str; 3] = ["delimiter", "has_header", "encoding"];

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
    // RFC 4180, 3: the type's parameters.
    if let Some(content_type) = content_type {
        if let Some(charset) = content_type.get_param("charset") {
            options.encoding = encoding_for_label(charset.as_str())
                .map_err(|error| invalid_header(&CONTENT_TYPE, format_args!("charset: {error}")))?;
        }
        match content_type.get_param("header").map(|header| header.as_str().to_ascii_lowercase()).as_deref() {
            None => {}
            Some("present") => options.has_header = true,
            Some("absent") => options.has_header = false,
            Some(other) => {
                let reason = format_args!("header: {other:?}: expected present or absent");
                return Err(invalid_header(&CONTENT_TYPE, reason));
            }
        }
    }
    if let Some(delimiter) = query.parsed::<Delimiter>("delimiter")? {
        options.delimiter = delimiter;
    }
    match query.text("has_header") {
        None => {}
        Some("true") => options.has_header = true,
        Some("false") => options.has_header = false,
        Some(other) => return Err(invalid_option("has_header", &format_args!("{other:?}: expected true or false"))),
    }
    if let Some(label) = query.text("encoding") {
        options.encoding = encoding_for_label(label).map_err(|error| invalid_option("encoding", &error))?;
    }
    if let Some(top) = query.text("top") {
        let parsed = top.parse().ok().filter(|top| (1..=JobOptions::MAX_TOP).contains(top));
        options.top = parsed.ok_or_else(|| {
            invalid_option("top", &format_args!("{top:?}: expected a number from 1 to {}", JobOptions::MAX_TOP))
        })?;
    }
    Ok(options)
}
