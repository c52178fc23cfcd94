//! Benchmarks: release builds of what is measured, then the program that measures.

use std::path::PathBuf;
use std::process::Command;

use clap::ValueEnum;

use crate::error::Error;
use crate::folders::Folders;
use crate::wasm::{self, Toolchain};
use crate::{edge, process, tools};

/// One benchmark, as `modunest-bench` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// Memory of the idle agent and the idle registry.
    Memory,
    /// Starts of the demo.
    Demo,
    /// The read side's two shells under load, and cold starts.
    Edge,
    /// 500 native plugins, against bare library calls; time and memory by tier.
    Host,
    /// 500 components, against bare wasmtime and another plugin host.
    Components,
    /// What a call costs in each tier, against what is below it.
    Calls,
    /// Plugins replaced while calls come in.
    Reload,
    /// A hundred plugins under random calls, replacements and kills.
    Soak,
    /// From a publish to a reader who sees it, against verdaccio.
    Publish,
    /// Resolution over 100,000 plugins, against the bare engine.
    Resolve,
    /// Proof checks, sequencing, an agent's catching up, and the bytes of a large registry.
    Trust,
    /// All of them but the soak, one after another.
    All,
}

/// Builds and runs a benchmark. Its exit code says whether it ran, not whether targets are met.
/// `seconds` is for those that run for a time, `seed` for those that choose.
pub fn run(
    folders: &Folders,
    bench: Bench,
    json: bool,
    seconds: Option<u64>,
    seed: Option<u64>,
) -> Result<(), Error> {
    let cargo = || {
        let mut command = Command::new("cargo");
        command.current_dir(&folders.repository).env("CARGO_TARGET_DIR", &folders.target);
        command
    };
    let name = bench.to_possible_value().map(|value| value.get_name().to_owned());
    if bench != Bench::Resolve {
        if matches!(bench, Bench::Edge | Bench::All) {
            edge::run(folders)?;
        }
        let packages = ["modunest", "modunest-agent", "modunest-functions", "modunest-bench"]
            .map(|package| ["-p", package])
            .concat();
        process::run(cargo().args(["build", "--release", "--locked", "--bins"]).args(packages))?;
        // Not by `cargo run`: for one package alone cargo chooses features anew, and builds most
        // of them again.
        let mut program = Command::new(folders.target.join("release/modunest-bench"));
        if matches!(bench, Bench::Calls | Bench::Components | Bench::All) {
            program.env("MODUNEST_ECHO", echo(folders)?);
            program.env("MODUNEST_EXTISM_ECHO", extism_echo(folders)?);
        }
        process::run(
            program
                .args(name)
                .args(json.then_some("--json"))
                .args(seconds.map(|seconds| format!("--seconds={seconds}")))
                .args(seed.map(|seed| format!("--seed={seed}")))
                // The demo finds its samples from here, and builds them into the same folder.
                .current_dir(&folders.repository)
                .env("CARGO_TARGET_DIR", &folders.target)
                .envs(tools::environment(folders)),
        )?;
    }
    if matches!(bench, Bench::Resolve | Bench::All) {
        let arguments = ["bench", "--locked", "-p", "modunest-core", "--bench", "resolve"];
        process::run(cargo().args(arguments))?;
    }
    Ok(())
}

/// The plugin that our components are measured with, built as its author would.
fn echo(folders: &Folders) -> Result<PathBuf, Error> {
    let mut build = Command::new(folders.target.join("release/modunest"));
    build.args(["build", "--only", "wasm"]).current_dir(folders.repository.join("bench/echo"));
    Toolchain::find(folders)?.apply(&mut build, folders, [])?;
    process::run(&mut build)?;
    Ok(built(folders, "echo.component.wasm"))
}

/// The plugin that the other host runs, made with that host's own kit.
fn extism_echo(folders: &Folders) -> Result<PathBuf, Error> {
    let mut build = Command::new("cargo");
    build.current_dir(folders.repository.join("bench/peers/extism-echo")).args([
        "build",
        "--release",
        "--locked",
        "--target",
        wasm::TARGET,
    ]);
    Toolchain::find(folders)?.apply(&mut build, folders, [])?;
    process::run(&mut build)?;
    Ok(built(folders, "extism_echo.wasm"))
}

/// Where a release build for wasm32 leaves a file.
fn built(folders: &Folders, file: &str) -> PathBuf {
    wasm::target(folders).join(wasm::TARGET).join("release").join(file)
}
