//! The `adtally` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    adtally::cli::run()
}
