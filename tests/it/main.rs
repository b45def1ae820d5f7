//! The whole suite as one program: the command as its users run it, and the engine through its public interface.

// A test that meets something unexpected is to stop right there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod all_rejects;
mod broken_uploads;
mod cases;
mod cli;
mod codings;
mod compressed_places;
mod connections;
mod crashes;
mod database;
mod durable_ends;
mod exact_answers;
mod expected;
mod file_refusals;
mod files;
mod formats;
mod graceful_stop;
mod ground_truth;
mod harness;
mod http2_aborts;
mod jobs;
mod large_reports;
mod many_campaigns;
mod odd_rows;
mod openapi;
mod oracle;
mod parallel;
mod pieces;
mod properties;
mod races;
mod random;
mod refusals;
mod released_states;
mod report_answers;
mod reports;
mod results;
mod resume;
mod resume_compressed;
mod saved;
mod saved_uploads;
mod senders;
mod service;
mod service_cases;
mod sources;
mod start_up;
mod storage;
mod store;
mod store_faults;
mod texts;
mod tidy;
mod tus;
mod tus_clients;
mod uploads;
mod wrong_input;
