//! One file for each resource.

pub(super) mod events;
pub(super) mod jobs;
pub(super) mod results;
pub(super) mod service;
pub(super) mod uploads;
