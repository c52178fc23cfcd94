//! Repository tasks, run as `cargo xtask NAME`.
//!
//! In scope: what a developer and continuous integration run over the whole repository, and
//! the rules about it that a machine can check. Not in scope: anything that ships.

// A program for the terminal: its output is its purpose.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod clones;
mod cloud;
mod edge;
mod error;
mod folders;
mod fuzz;
mod process;
mod steps;
mod tidy;
mod tools;
mod wasm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::bench::Bench;
use crate::error::Error;
use crate::folders::Folders;
use crate::steps::Step;

/// Tasks over the whole repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check and every test, the quick ones first.
    ///
    /// Tools that are missing are installed at pinned versions below ~/.cache/modunest/tools.
    /// Build output goes to CARGO_TARGET_DIR, or else to ~/.cache/modunest/target.
    Test {
        /// Run only these steps, in the usual order.
        #[arg(long, value_delimiter = ',', value_name = "STEP", conflicts_with = "skip")]
        only: Vec<Step>,
        /// Run all steps but these.
        #[arg(long, value_delimiter = ',', value_name = "STEP")]
        skip: Vec<Step>,
    },
    /// Check the repository's own rules (crate boundaries, purity, sizes, words).
    Tidy,
    /// Build core and tlog for wasm32-unknown-unknown.
    Wasm,
    /// Install what builds and checks the worker and the functions, at pinned versions.
    Tools,
    /// Build the edge's worker into edge/build and ~/.cache/modunest/worker.
    ///
    /// This is the build command in wrangler.toml.
    Edge,
    /// Run fuzz targets, all of them unless named.
    Fuzz {
        /// Names of targets, as in fuzz/fuzz_targets.
        targets: Vec<String>,
        /// Seconds for each target.
        #[arg(long, default_value_t = 30)]
        seconds: u32,
    },
    /// Measure against peers and physical limits; a missed target is said, and is no failure.
    Bench {
        /// What to measure.
        #[arg(default_value = "all")]
        bench: Bench,
        /// Print one line of JSON a benchmark. The resolver's prints its table all the same.
        #[arg(long)]
        json: bool,
        /// Seconds of the soak, or of load at each rate of `publish`; they have defaults.
        #[arg(long)]
        seconds: Option<u64>,
        /// What the soak chooses by.
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<(), Error> {
    let folders = Folders::from_environment()?;
    match task {
        Task::Test { only, skip } => steps::run(&folders, &only, &skip),
        Task::Tidy => tidy::run(&folders.repository),
        Task::Wasm => wasm::run(&folders),
        Task::Tools => tools::run(&folders),
        Task::Edge => edge::run(&folders),
        Task::Fuzz { targets, seconds } => fuzz::run(&folders, &targets, seconds),
        Task::Bench { bench, json, seconds, seed } => {
            bench::run(&folders, bench, json, seconds, seed)
        }
    }
}
