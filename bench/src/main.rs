//! Benchmarks, run as `cargo xtask bench NAME`.
//!
//! Each measures us and a peer (or a physical limit) in one run on one machine, and prints
//! our figure, theirs, the ratio and the target. A missed target is said, and is no failure
//! of the run: times on shared machines are evidence, not a gate.
//!
//! In scope: whole programs and whole paths. The resolver is measured by
//! `cargo bench -p modunest-core --bench resolve`, without processes around it.

// A program for the terminal: its output is its purpose.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod report;

mod calls;
mod components;
mod edge;
mod host;
mod publish;
mod reload;
mod soak;
mod trust;

mod demo;
mod fleet;
mod memory;
mod plain;

mod api;
mod disk;
mod process;
mod registry;
mod stats;
mod verdaccio;

mod error;
mod folders;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;
use crate::plain::Tier;
use crate::report::Report;

/// Benchmarks against peers and physical limits.
#[derive(Parser)]
#[command(name = "modunest-bench")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
    /// Print one line of JSON a benchmark instead of tables.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Bench {
    /// The read side's two shells under load, against nginx, a bare worker and verdaccio; cold
    /// starts of the worker and the functions.
    Edge,
    /// 500 native plugins proven, unpacked, loaded and called, against bare library calls; time
    /// and memory of 10, 100 and 500 in each tier.
    Host,
    /// 500 components loaded and called, against bare wasmtime and another plugin host.
    Components,
    /// What a call costs in each tier, against what is below it.
    Calls,
    /// Plugins replaced while calls come in.
    Reload,
    /// A hundred plugins under random calls, replacements and kills: memory and descriptors.
    Soak {
        /// Seconds of it, behind a warm-up.
        #[arg(long, default_value_t = soak::SECONDS)]
        seconds: u64,
        /// What chooses.
        #[arg(long, default_value_t = soak::SEED)]
        seed: u64,
    },
    /// From a publish to a reader who sees it, against verdaccio and one fsync.
    Publish {
        /// Seconds of load at each rate.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Proof checks, sequencing, an agent's catching up, and the bytes of a large registry.
    Trust,
    /// Memory of the idle agent and the idle registry.
    Memory,
    /// Starts of the demo.
    Demo,
    /// All of them but the soak, one after another.
    All,
    /// What a benchmark starts as a process of its own.
    #[command(subcommand, hide = true)]
    Child(Child),
}

#[derive(Subcommand)]
enum Child {
    /// Serve two objects by the read side until standard input closes.
    EdgeServer {
        /// Where it tells of downloads.
        api: url::Url,
    },
    /// Send requests over a fixed number of connections.
    Load(edge::load::Plan),
    /// Do all steps by the agent's functions.
    HostOurs { plugins: PathBuf, work: PathBuf },
    /// Do all steps by bare library calls on so many threads.
    HostBare { plugins: PathBuf, work: PathBuf, threads: usize },
    /// Load components by the agent's functions.
    ComponentsOurs { folder: PathBuf, state: PathBuf, count: usize },
    /// Load components by wasmtime alone.
    ComponentsBare { folder: PathBuf, state: PathBuf, count: usize },
    /// Load components by another plugin host.
    ComponentsExtism {
        folder: PathBuf,
        state: PathBuf,
        count: usize,
        #[arg(long)]
        library: PathBuf,
    },
    /// Open and call unpacked libraries.
    HostOpen { plugins: PathBuf },
    /// Copy libraries to memory, seal and hash them.
    HostSeal { plugins: PathBuf },
    /// Load plugins into one tier.
    HostTier { tier: Tier, components: PathBuf, state: PathBuf, count: usize },
    /// Call plugins of one tier, in processes of their own.
    CallsOurs {
        work: PathBuf,
        tier: Tier,
        #[arg(long)]
        far: Option<usize>,
    },
    /// Call a plugin in this process, by the host and by its pointers.
    CallsWithin {
        work: PathBuf,
        #[arg(long, default_value_t = 0)]
        shift: usize,
    },
    /// Call another process over a bare socket.
    CallsSocket {
        #[arg(long)]
        far: Option<usize>,
    },
    /// That other process.
    CallsSocketEcho,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // As the agent does; whoever is compared with it gets the same.
    if let Err(error) = modunest_agent::clib::start_anew_where_copies_are_slow() {
        eprintln!("bench: not started anew, so large messages are copied slowly: {error}");
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let show = |report: Report| report.print(arguments.json);
    match &arguments.bench {
        Bench::Edge => show(edge::run()?),
        Bench::Host => show(host::run()?),
        Bench::Components => show(components::run()?),
        Bench::Calls => show(calls::run()?),
        Bench::Reload => show(reload::run()?),
        Bench::Soak { seconds, seed } => show(soak::run(*seconds, *seed)?),
        Bench::Publish { seconds } => show(publish::run(*seconds)?),
        Bench::Trust => show(trust::run()?),
        Bench::Memory => show(memory::run()?),
        Bench::Demo => show(demo::run()?),
        Bench::All => {
            show(memory::run()?)?;
            show(demo::run()?)?;
            show(edge::run()?)?;
            show(host::run()?)?;
            show(components::run()?)?;
            show(calls::run()?)?;
            show(reload::run()?)?;
            show(publish::run(publish::SECONDS)?)?;
            show(trust::run()?)
        }
        Bench::Child(child) => run_child(child),
    }
}

fn run_child(child: &Child) -> Result<(), Error> {
    match child {
        Child::EdgeServer { api } => edge::server::run(api),
        Child::Load(plan) => process::answer(&edge::load::run(plan)?),
        Child::HostOurs { plugins, work } => process::answer(&host::ours::run(plugins, work)?),
        Child::HostBare { plugins, work, threads } => {
            process::answer(&host::bare::run(plugins, work, *threads)?)
        }
        Child::ComponentsOurs { folder, state, count } => {
            process::answer(&components::ours::run(folder, state, *count)?)
        }
        Child::ComponentsBare { folder, count, .. } => {
            process::answer(&components::bare::run(folder, *count)?)
        }
        Child::ComponentsExtism { count, library, .. } => {
            process::answer(&components::extism::run(library, *count)?)
        }
        Child::HostTier { tier, components, state, count } => {
            process::answer(&host::tiers::run(*tier, components, state, *count)?)
        }
        Child::CallsOurs { work, tier, far } => {
            process::answer(&calls::ours::run(*tier, work, *far)?)
        }
        Child::CallsWithin { work, shift } => process::answer(&calls::ours::within(work, *shift)?),
        Child::CallsSocket { far } => process::answer(&calls::bare::socket(*far)?),
        Child::CallsSocketEcho => calls::bare::socket_echo(),
        Child::HostOpen { plugins } => process::answer(&host::bare::open(plugins)?),
        Child::HostSeal { plugins } => process::answer(&host::bare::seal(plugins)?),
    }
}
