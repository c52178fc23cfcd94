//! The pure crates, built for `wasm32-unknown-unknown`: the edge runs them there.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::error::Error;
use crate::folders::Folders;
use crate::{process, tools};

/// What they are built for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The crates that know no runtime.
const PURE: [&str; 2] = ["modunest-core", "modunest-tlog"];

/// What a pure crate must not reach on that target, through any dependency: runtimes, network and
/// clocks. (`getrandom` is reached by `resolvo`'s hash tables, which take their seeds from it, and
/// by `zip`'s encryption, which nothing of ours calls. Our own sources may not: see tidy's purity.)
const IMPURE: [&str; 8] =
    ["tokio", "async-std", "reqwest", "hyper", "axum", "js-sys", "chrono", "time"];

/// Keeps every tool from fetching a target by itself: the address refuses at once.
const NO_RUSTUP_DOWNLOADS: [(&str, &str); 2] =
    [("RUSTUP_DIST_SERVER", "http://127.0.0.1:9"), ("RUSTUP_UPDATE_ROOT", "http://127.0.0.1:9")];

/// Builds the pure crates, after making the target's std if rustup has none.
pub fn run(folders: &Folders) -> Result<(), Error> {
    for package in PURE {
        check_dependencies(folders, package)?;
    }
    let mut build = Command::new("cargo");
    build.current_dir(&folders.repository).args(["build", "--locked", "--target", TARGET]);
    for package in PURE {
        build.args(["--package", package]);
    }
    Toolchain::find(folders)?.apply(&mut build, folders, [])?;
    process::run(&mut build)
}

/// What compiles for the target.
pub struct Toolchain {
    /// The folder of a compiler of our own, where rustup's will not do.
    bin: Option<PathBuf>,
}

impl Toolchain {
    /// Rustup's where it has the target, or else one of our own, made on first use.
    pub fn find(folders: &Folders) -> Result<Self, Error> {
        if rustup_has_target() {
            return Ok(Self { bin: None });
        }
        let home = folders.cache.join("wasm-toolchain");
        process::run(
            Command::new("bash")
                .arg(folders.repository.join("xtask/scripts/wasm-toolchain.sh"))
                .arg(&home)
                .envs(NO_RUSTUP_DOWNLOADS),
        )?;
        Ok(Self { bin: Some(home.join("bin")) })
    }

    /// Makes a command, and the cargo that it starts, build with this toolchain, into a target
    /// folder of its own (it may be another compiler than the workspace's). `more` folders come
    /// after it on the search path.
    pub fn apply(
        &self,
        command: &mut Command,
        folders: &Folders,
        more: impl IntoIterator<Item = PathBuf>,
    ) -> Result<(), Error> {
        let path: OsString = tools::path_with(self.bin.iter().cloned().chain(more))?;
        command
            .env("PATH", path)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET")
            .envs(NO_RUSTUP_DOWNLOADS)
            .env("CARGO_TARGET_DIR", target(folders));
        if let Some(bin) = &self.bin {
            // A cargo that rustup started would look past PATH for rustup's own rustc.
            command
                .env("RUSTC", bin.join("rustc"))
                .env_remove("CARGO")
                .env_remove("RUSTUP_TOOLCHAIN");
        }
        Ok(())
    }
}

/// Where builds for the target go.
pub fn target(folders: &Folders) -> PathBuf {
    folders.cache.join("target-wasm")
}

fn rustup_has_target() -> bool {
    let mut list = Command::new("rustup");
    list.args(["target", "list", "--installed"]).envs(NO_RUSTUP_DOWNLOADS);
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
