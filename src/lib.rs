#![doc = include_str!("../docs/architecture.md")]

pub mod cli;
pub mod engine;
pub mod ingest;
