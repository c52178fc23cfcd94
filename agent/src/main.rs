//! `modunest-agent`: runs plugins, and says what it does.

mod commands;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    if let Some(code) = modunest_agent::runner::run_if_asked() {
        return code;
    }
    commands::Cli::parse().run()
}
