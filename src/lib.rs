#![doc = include_str!("../docs/architecture.md")]

pub mod cli;
pub mod engine;
pub mod http;
pub mod ingest;
pub mod jobs;
