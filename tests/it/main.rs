//! The whole suite as one program: the command as its users run it, and the engine through its public interface.

// A test that meets something unexpected is to stop right there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;
mod cli;
mod ground_truth;
mod harness;
mod oracle;
mod parallel;
mod properties;
mod saved;
mod service;
mod service_cases;
mod texts;
mod tidy;
mod wrong_input;
