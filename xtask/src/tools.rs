//! Pinned tools, installed once for every clone.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::folders::Folders;
use crate::process;

/// A program from crates.io.
pub struct Tool {
    /// The crate, and the program's file name.
    name: &'static str,
    /// The version that is installed where none will do.
    version: &'static str,
    /// How the program tells its version.
    version_arguments: &'static [&'static str],
}

/// Test runner. This version is on the build images.
pub const NEXTEST: Tool = Tool {
    name: "cargo-nextest",
    version: "0.9.143",
    version_arguments: &["nextest", "--version"],
};

/// Licences, sources, bans and duplicate versions. Without its default allocator it builds in
/// under a minute.
pub const DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", version_arguments: &["--version"] };

/// Unused dependencies. `cargo-shear` sees more, but its releases need newer compilers than ours.
pub const MACHETE: Tool =
    Tool { name: "cargo-machete", version: "0.9.2", version_arguments: &["--version"] };

impl Tool {
    /// Returns a `PATH` in which `cargo NAME` finds the tool, after installing it if needed.
    pub fn search_path(&self, folders: &Folders) -> Result<OsString, Error> {
        let inherited = env::var_os("PATH").unwrap_or_default();
        if self.is_good(Path::new(self.name)) {
            return Ok(inherited);
        }
        let home = folders.cache.join("tools").join(format!("{}-{}", self.name, self.version));
        let bin = home.join("bin");
        if !self.is_good(&bin.join(self.name)) {
            self.install(folders, &home)?;
        }
        let parts = std::iter::once(bin.clone()).chain(env::split_paths(&inherited));
        env::join_paths(parts)
            .map_err(|error| Error::File { path: bin, source: std::io::Error::other(error) })
    }

    fn is_good(&self, program: &Path) -> bool {
        process::first_line(Command::new(program).args(self.version_arguments))
            .is_some_and(|line| accepts(self.version, &line))
    }

    fn install(&self, folders: &Folders, home: &PathBuf) -> Result<(), Error> {
        eprintln!("installing {} {} into {}", self.name, self.version, home.display());
        process::run(
            Command::new("cargo")
            // Without optimisation: each works for a second or two, and builds in a fraction.
            .args(["install", "--quiet", "--locked", "--debug"])
            .args(["--version", self.version, self.name])
            .arg("--root")
            .arg(home)
            // Outside the repository, so that its aliases and settings do not apply.
            .current_dir("/")
            .env("CARGO_TARGET_DIR", folders.cache.join("target-tools"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env_remove("RUSTFLAGS"),
        )
    }
}

/// Whether a program that calls itself `line` can stand in for `pinned`: of the same series
/// (`0.9`), and not older.
fn accepts(pinned: &str, line: &str) -> bool {
    let parse = |text: &str| -> Option<(u32, u32, u32)> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??, parts.next()??))
    };
    let Some(pinned) = parse(pinned) else { return false };
    line.split_whitespace()
        .find_map(parse)
        .is_some_and(|found| (found.0, found.1) == (pinned.0, pinned.1) && found.2 >= pinned.2)
}

#[cfg(test)]
mod tests {
    use super::accepts;

    #[test]
    fn a_newer_patch_of_the_same_series_will_do() {
        assert!(accepts("0.9.143", "cargo-nextest 0.9.143 (60fa45f63 2026-08-04)"));
        assert!(accepts("0.9.143", "cargo-nextest 0.9.151"));
        assert!(accepts("0.9.2", "0.9.2"));
    }

    #[test]
    fn older_other_and_unreadable_versions_will_not() {
        assert!(!accepts("0.9.143", "cargo-nextest 0.9.142"));
        assert!(!accepts("0.9.143", "cargo-nextest 0.10.0"));
        assert!(!accepts("0.9.143", "cargo-nextest"));
        assert!(!accepts("0.9.143", "error: 0.9"));
    }
}
