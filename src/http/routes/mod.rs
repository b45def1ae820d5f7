//! One file for each resource.

pub(super) mod appends;
pub(super) mod events;
mod file_answers;
pub(super) mod files;
pub(super) mod jobs;
pub(super) mod page;
pub(super) mod results;
pub(super) mod service;
pub(super) mod tus;
pub(super) mod uploads;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Sets a field to a value that is made of ids, digits and names of results.
fn set_field(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
