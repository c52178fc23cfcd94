//! `modunest-agent`: runs plugins, and says what it does.

mod commands;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    commands::Cli::parse().run()
}
