//! The test run: every check and every test, the quick ones first.

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::error::Error;
use crate::folders::Folders;
use crate::{clones, cloud, edge, process, tidy, tools, wasm};

/// One step, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// The repository's own rules.
    Tidy,
    /// Formatting.
    Fmt,
    /// Licences, sources, banned and duplicate dependencies.
    Deny,
    /// Dependencies that nothing uses.
    Unused,
    /// Lints over all targets.
    Clippy,
    /// Core and tlog for wasm32.
    Wasm,
    /// The edge's worker: its build, its size, and wrangler's dry run.
    Edge,
    /// The stack's template: lints, and SAM's build of the functions.
    Cloud,
    /// Documentation without warnings.
    Doc,
    /// Compile all tests.
    Compile,
    /// Examples in documentation.
    Doctest,
    /// All other tests. Its summary closes the run.
    Test,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Tidy => "tidy",
            Self::Fmt => "fmt",
            Self::Deny => "deny",
            Self::Unused => "unused",
            Self::Clippy => "clippy",
            Self::Wasm => "wasm",
            Self::Edge => "edge",
            Self::Cloud => "cloud",
            Self::Doc => "doc",
            Self::Compile => "compile",
            Self::Doctest => "doctest",
            Self::Test => "test",
        }
    }

    fn run(self, folders: &Folders) -> Result<(), Error> {
        match self {
            Self::Tidy => tidy::run(&folders.repository),
            Self::Fmt => {
                process::run(cargo(folders).args(["fmt", "--all", "--check"]))?;
                let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
                process::run(cargo(folders).args(fuzz))
            }
            Self::Deny => {
                let path = tools::DENY.search_path(folders)?;
                // No advisories: deny.toml says why.
                process::run(
                    cargo(folders)
                        .args(["deny", "--workspace", "--locked", "check"])
                        .args(["--hide-inclusion-graph", "--deny", "unmatched-skip"])
                        .args(["bans", "licenses", "sources"])
                        .env("PATH", path),
                )
            }
            Self::Unused => {
                let path = tools::MACHETE.search_path(folders)?;
                // By its own name: as cargo's subcommand it takes its options for folders.
                process::run(
                    Command::new("cargo-machete")
                        .current_dir(&folders.repository)
                        .arg("--with-metadata")
                        .env("PATH", path),
                )
            }
            Self::Clippy => {
                let arguments = ["clippy", "--workspace", "--all-targets", "--locked"];
                process::run(cargo(folders).args(arguments).args(["--", "-D", "warnings"]))
            }
            Self::Wasm => wasm::run(folders),
            Self::Edge => edge::dry_run(folders),
            Self::Cloud => cloud::run(folders),
            Self::Doc => {
                let arguments = ["doc", "--workspace", "--no-deps", "--locked"];
                process::run(cargo(folders).args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
            }
            Self::Compile => {
                // The programs too: end-to-end tests start them.
                process::run(cargo(folders).args(["build", "--workspace", "--bins", "--locked"]))?;
                nextest(folders, &["--no-run"])
            }
            Self::Doctest => {
                process::run(cargo(folders).args(["test", "--doc", "--workspace", "--locked"]))
            }
            Self::Test => {
                tools::peers(folders)?;
                nextest(folders, &[])
            }
        }
    }
}

/// Runs the chosen steps, stopping at the first that fails.
pub fn run(folders: &Folders, only: &[Step], skip: &[Step]) -> Result<(), Error> {
    let mut done = Vec::new();
    clones::claim(folders, &folders.target)?;
    for step in chosen(only, skip) {
        // Before the tests, so that the runner's own summary is what closes the run.
        if step == Step::Test {
            print_table(&done);
        }
        println!("── {} ──", step.name());
        let start = Instant::now();
        let result = step.run(folders);
        done.push((step.name(), result.is_ok(), start.elapsed()));
        if let Err(source) = result {
            print_table(&done);
            return Err(Error::Step { step: step.name(), source: Box::new(source) });
        }
    }
    if !done.iter().any(|(name, ..)| *name == Step::Test.name()) {
        print_table(&done);
    }
    Ok(())
}

fn chosen(only: &[Step], skip: &[Step]) -> Vec<Step> {
    let is_chosen = |step: &Step| (only.is_empty() || only.contains(step)) && !skip.contains(step);
    Step::value_variants().iter().copied().filter(is_chosen).collect()
}

fn cargo(folders: &Folders) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(&folders.repository).env("CARGO_TARGET_DIR", &folders.target);
    command
}

fn nextest(folders: &Folders, arguments: &[&str]) -> Result<(), Error> {
    let path = tools::NEXTEST.search_path(folders)?;
    let mut command = cargo(folders);
    command.args(["nextest", "run", "--workspace", "--locked"]).args(arguments);
    // Tests of the deployed parts find them there.
    command.env("PATH", path).envs(tools::environment(folders));
    if env::var_os("CI").is_some() {
        command.args(["--profile", "ci"]);
    }
    process::run(&mut command)
}

fn print_table(rows: &[(&'static str, bool, Duration)]) {
    if rows.is_empty() {
        return;
    }
    println!("\n{:<10}{:<8}{:>9}", "step", "result", "seconds");
    for (name, is_good, duration) in rows {
        let result = if *is_good { "ok" } else { "FAILED" };
        println!("{name:<10}{result:<8}{:>9.1}", duration.as_secs_f64());
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_their_order_whatever_the_request() {
        assert_eq!(chosen(&[Step::Doc, Step::Tidy], &[]), [Step::Tidy, Step::Doc]);
        assert_eq!(chosen(&[], &[]).len(), Step::value_variants().len());
        assert!(!chosen(&[], &[Step::Clippy]).contains(&Step::Clippy));
    }

    #[test]
    fn tests_come_last_so_that_their_summary_closes_the_run() {
        assert_eq!(chosen(&[], &[]).last(), Some(&Step::Test));
    }

    #[test]
    fn each_step_is_called_what_the_command_line_calls_it() {
        for step in Step::value_variants() {
            let value = step.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(value.as_deref(), Some(step.name()));
        }
    }
}
