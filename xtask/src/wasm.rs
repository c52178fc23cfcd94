//! The pure crates, built for `wasm32-unknown-unknown`: the edge runs them there.

use std::env;
use std::process::Command;

use crate::error::Error;
use crate::folders::Folders;
use crate::process;

const TARGET: &str = "wasm32-unknown-unknown";

/// The crates that know no runtime.
const PURE: [&str; 2] = ["modunest-core", "modunest-tlog"];

/// What a pure crate must not reach on that target, through any dependency: runtimes, network and
/// clocks. (`getrandom` is reached by `resolvo`'s hash tables, which take their seeds from it, and
/// by `zip`'s encryption, which nothing of ours calls. Our own sources may not: see tidy's purity.)
const IMPURE: [&str; 8] =
    ["tokio", "async-std", "reqwest", "hyper", "axum", "js-sys", "chrono", "time"];

/// Keeps every tool from fetching a target by itself: the address refuses at once.
const NO_RUSTUP_DOWNLOADS: (&str, &str) = ("RUSTUP_DIST_SERVER", "http://127.0.0.1:9");

/// Builds the pure crates, after making the target's std if rustup has none.
pub fn run(folders: &Folders) -> Result<(), Error> {
    for package in PURE {
        check_dependencies(folders, package)?;
    }
    let mut build = cargo(folders)?;
    build.args(["build", "--locked", "--target", TARGET]);
    for package in PURE {
        build.args(["--package", package]);
    }
    process::run(&mut build)
}

/// A cargo that can build for the target, in a target folder of its own (it may be another
/// compiler than the workspace's).
fn cargo(folders: &Folders) -> Result<Command, Error> {
    let mut command = Command::new("cargo");
    command
        .current_dir(&folders.repository)
        .env_remove("RUSTFLAGS")
        .env(NO_RUSTUP_DOWNLOADS.0, NO_RUSTUP_DOWNLOADS.1)
        .env("CARGO_TARGET_DIR", folders.cache.join("target-wasm"));
    if rustup_has_target() {
        return Ok(command);
    }
    let toolchain = folders.cache.join("wasm-toolchain");
    process::run(
        Command::new("bash")
            .arg(folders.repository.join("xtask/scripts/wasm-toolchain.sh"))
            .arg(&toolchain)
            .env(NO_RUSTUP_DOWNLOADS.0, NO_RUSTUP_DOWNLOADS.1),
    )?;
    let bin = toolchain.join("bin");
    let inherited = env::var_os("PATH").unwrap_or_default();
    let parts = std::iter::once(bin.clone()).chain(env::split_paths(&inherited));
    let path = env::join_paths(parts)
        .map_err(|error| Error::File { path: bin.clone(), source: std::io::Error::other(error) })?;
    // A cargo that rustup started would look past PATH for rustup's own rustc.
    command.env("PATH", path).env("RUSTC", bin.join("rustc")).env_remove("RUSTUP_TOOLCHAIN");
    Ok(command)
}

fn rustup_has_target() -> bool {
    let mut list = Command::new("rustup");
    list.args(["target", "list", "--installed"]).env(NO_RUSTUP_DOWNLOADS.0, NO_RUSTUP_DOWNLOADS.1);
    // No rustup means no such target: the private toolchain then does the work.
    process::output(&mut list).is_ok_and(|text| text.lines().any(|line| line.trim() == TARGET))
}

fn check_dependencies(folders: &Folders, package: &'static str) -> Result<(), Error> {
    let tree = process::output(
        Command::new("cargo")
            .current_dir(&folders.repository)
            .args(["tree", "--locked", "--quiet", "--package", package])
            .args(["--target", TARGET, "--edges", "normal", "--prefix", "none"]),
    )?;
    match impure(&tree) {
        Some(dependency) => Err(Error::Impure { package, dependency }),
        None => Ok(()),
    }
}

/// The first line of a flat `cargo tree` that names something impure.
fn impure(tree: &str) -> Option<String> {
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .find(|name| IMPURE.contains(name))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::impure;

    #[test]
    fn an_impure_dependency_is_found_by_its_whole_name() {
        let tree = "modunest-core v0.1.0 (core)\nserde v1.0.229\ntokio v1.48.0\n";
        assert_eq!(impure(tree).as_deref(), Some("tokio"));
        assert_eq!(impure("modunest-core v0.1.0\ntokio-like v1.0.0\n"), None);
    }
}
