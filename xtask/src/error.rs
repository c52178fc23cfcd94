//! What can stop a task.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why a task failed. The program's own output, where there is one, came before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// The command line.
        command: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A program ended with a failure.
    #[error("`{command}` failed: {status}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A file or folder could not be read or made.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A variable that names a folder is not set.
    #[error("{0} is not set; it says where build output and tools are kept")]
    Variable(&'static str),
    /// The repository breaks its own rules; each was printed.
    #[error("{0} rule(s) broken; each line above says where, and the way out")]
    Untidy(usize),
    /// A crate that must stay pure reaches something impure.
    #[error(
        "{package} depends on {dependency} for wasm32; pure crates take facts as arguments, so \
         move what needs it to a shell crate (`cargo tree -p {package} -i {dependency}`)"
    )]
    Impure {
        /// The pure package.
        package: &'static str,
        /// What it reached.
        dependency: String,
    },
    /// There is no fuzz target of that name.
    #[error("no fuzz target `{name}`; there are: {known}")]
    NoTarget {
        /// What was asked for.
        name: String,
        /// The targets that exist.
        known: String,
    },
    /// A program is missing, and installing its package did not bring it.
    #[error("`{probe}` fails, and installing Debian's {package} did not help; install it by hand")]
    NoProgram {
        /// How it was looked for.
        probe: String,
        /// The package.
        package: String,
    },
    /// npm would install something else than the lock file says.
    #[error("{} differs from xtask/tools/package-lock.json; make both agree", path.display())]
    LockChanged {
        /// What npm made of the lock file.
        path: PathBuf,
    },
    /// The lock file lacks a package whose version a tool must have.
    #[error("Cargo.lock has no package `{package}`")]
    NotLocked {
        /// The package.
        package: &'static str,
    },
    /// The worker is larger than we allow.
    #[error("the worker takes {bytes} bytes compressed, and {bytes_max} are allowed")]
    WorkerSize {
        /// What it takes.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A step of the test run failed.
    #[error("step `{step}` failed: {source}")]
    Step {
        /// The step's name, as `--only` takes it.
        step: &'static str,
        /// Why.
        source: Box<Error>,
    },
}
