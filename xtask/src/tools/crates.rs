//! Programs from crates.io.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::folders::Folders;
use crate::process;
use crate::tools::path_with;

/// A program from crates.io.
pub struct Tool {
    /// The crate.
    package: &'static str,
    /// The program's file name.
    program: &'static str,
    /// The version that is installed where none will do.
    version: Cow<'static, str>,
    /// How the program tells its version.
    version_arguments: &'static [&'static str],
    /// Whether no other version will do.
    is_exact: bool,
    /// Whether its own lock file is kept to.
    is_locked: bool,
    /// Optimisation: more takes longer to build, less takes longer to work.
    opt_level: &'static str,
}

/// Test runner. This version is on the build images.
pub const NEXTEST: Tool = Tool::new("cargo-nextest", "0.9.143", &["nextest", "--version"]);

/// Licences, sources, bans and duplicate versions. Without its default allocator it builds in
/// under a minute.
pub const DENY: Tool = Tool::new("cargo-deny", "0.20.2", &["--version"]);

/// Unused dependencies. `cargo-shear` sees more, but its releases need newer compilers than ours.
pub const MACHETE: Tool = Tool::new("cargo-machete", "0.9.2", &["--version"]);

/// Makes a worker out of a crate. Of the same release as the `worker` crate.
pub const WORKER_BUILD: Tool = Tool::new("worker-build", "0.8.7", &["--version"]);

/// Writes the JavaScript that calls a module. It must be of the version that the crate
/// `wasm-bindgen` in our lock file has: they agree on a private format.
pub fn wasm_bindgen(folders: &Folders) -> Result<Tool, Error> {
    let path = folders.repository.join("Cargo.lock");
    let text =
        fs::read_to_string(&path).map_err(|source| Error::File { path: path.clone(), source })?;
    let version = locked_version(&text, "wasm-bindgen")
        .ok_or(Error::NotLocked { package: "wasm-bindgen" })?;
    Ok(Tool {
        package: "wasm-bindgen-cli",
        program: "wasm-bindgen",
        version: Cow::Owned(version.to_owned()),
        version_arguments: &["--version"],
        is_exact: true,
        // The lock file that it is published with names versions that were withdrawn.
        is_locked: false,
        // It reads and writes each module as a whole.
        opt_level: "1",
    })
}

impl Tool {
    const fn new(
        name: &'static str,
        version: &'static str,
        version_arguments: &'static [&'static str],
    ) -> Self {
        Self {
            package: name,
            program: name,
            version: Cow::Borrowed(version),
            version_arguments,
            is_exact: false,
            is_locked: true,
            // Each works for a second or two, and builds in a fraction.
            opt_level: "0",
        }
    }

    /// Returns a `PATH` in which the program is found, after installing it if needed.
    pub fn search_path(&self, folders: &Folders) -> Result<OsString, Error> {
        path_with(self.install_if_missing(folders)?.parent().map(Path::to_owned))
    }

    /// Returns the program's file, or its bare name where `PATH` has it, after installing it if
    /// needed.
    pub fn install_if_missing(&self, folders: &Folders) -> Result<PathBuf, Error> {
        let bare = PathBuf::from(self.program);
        if self.is_good(&bare) {
            return Ok(bare);
        }
        let home = folders.cache.join("tools").join(format!("{}-{}", self.package, self.version));
        let program = home.join("bin").join(self.program);
        if !self.is_good(&program) {
            self.install(folders, &home)?;
        }
        Ok(program)
    }

    fn is_good(&self, program: &Path) -> bool {
        let line = process::first_line(Command::new(program).args(self.version_arguments));
        line.is_some_and(|line| accepts(&self.version, self.is_exact, &line))
    }

    fn install(&self, folders: &Folders, home: &Path) -> Result<(), Error> {
        eprintln!("installing {} {} into {}", self.package, self.version, home.display());
        process::run(
            Command::new("cargo")
                .args(["install", "--quiet", "--debug", "--bin", self.program])
                .args(self.is_locked.then_some("--locked"))
                .args(["--version", &self.version, self.package])
                .arg("--root")
                .arg(home)
                // Outside the repository, so that its aliases and settings do not apply.
                .current_dir("/")
                .env("CARGO_TARGET_DIR", folders.cache.join("target-tools"))
                .env("CARGO_PROFILE_DEV_DEBUG", "0")
                .env("CARGO_PROFILE_DEV_OPT_LEVEL", self.opt_level)
                .env_remove("RUSTFLAGS"),
        )
    }
}

/// The version of a package in a lock file; of several, the first.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

/// Whether a program that calls itself `line` can stand in for `pinned`: of the same series
/// (`0.9`), and not older; or the very same.
fn accepts(pinned: &str, is_exact: bool, line: &str) -> bool {
    let parse = |text: &str| -> Option<(u32, u32, u32)> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??, parts.next()??))
    };
    let Some(pinned) = parse(pinned) else { return false };
    line.split_whitespace().find_map(parse).is_some_and(|found| {
        let is_same_series = (found.0, found.1) == (pinned.0, pinned.1);
        found == pinned || (!is_exact && is_same_series && found.2 >= pinned.2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_patch_of_the_same_series_will_do() {
        assert!(accepts("0.9.143", false, "cargo-nextest 0.9.143 (60fa45f63 2026-08-04)"));
        assert!(accepts("0.9.143", false, "cargo-nextest 0.9.151"));
        assert!(accepts("0.9.2", false, "0.9.2"));
    }

    #[test]
    fn older_other_and_unreadable_versions_will_not() {
        assert!(!accepts("0.9.143", false, "cargo-nextest 0.9.142"));
        assert!(!accepts("0.9.143", false, "cargo-nextest 0.10.0"));
        assert!(!accepts("0.9.143", false, "cargo-nextest"));
        assert!(!accepts("0.9.143", false, "error: 0.9"));
    }

    #[test]
    fn where_one_version_will_do_no_other_does() {
        assert!(accepts("0.2.130", true, "wasm-bindgen 0.2.130"));
        assert!(!accepts("0.2.130", true, "wasm-bindgen 0.2.131"));
    }

    #[test]
    fn a_locked_version_is_that_of_the_whole_name() {
        let lock = "[[package]]\nname = \"a-b\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"a\"\nversion = \"2.0.1\"\n";
        assert_eq!(locked_version(lock, "a"), Some("2.0.1"));
        assert_eq!(locked_version(lock, "b"), None);
    }
}
