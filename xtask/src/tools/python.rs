//! A Python environment: the SAM command line, `cfn-lint`, `cargo-lambda` with zig as its
//! linker, `boto3` for tests with another SDK's client, `tuf` for tests with another reader of
//! trust roots, `ministack`, which stands for AWS KMS in tests, and `prometheus_client`, which
//! reads metrics in tests as Prometheus does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::folders::Folders;
use crate::process;
use crate::tools::{debian, stamped};

/// The virtual environment.
pub struct Python {
    home: PathBuf,
}

impl Python {
    /// Where it is, or will be.
    pub fn at(folders: &Folders) -> Self {
        Self { home: folders.cache.join("tools/python") }
    }

    /// The environment's folder.
    pub fn folder(&self) -> &Path {
        &self.home
    }

    /// The folder of its programs, for `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.home.join("bin")
    }

    /// A command that runs one of its programs, without reports home.
    pub fn program(&self, folders: &Folders, name: &str) -> Command {
        let mut command = Command::new(self.bin().join(name));
        command
            .current_dir(&folders.repository)
            .env("SAM_CLI_TELEMETRY", "0")
            .env("SAM_CLI_CHECK_VERSION", "0");
        command
    }

    pub(super) fn install_if_missing(folders: &Folders) -> Result<Self, Error> {
        let python = Self::at(folders);
        let path = folders.repository.join("xtask/tools/requirements.txt");
        let wanted = fs::read_to_string(&path)
            .map_err(|source| Error::File { path: path.clone(), source })?;
        stamped(folders.cache.join("tools/python.stamp"), &wanted, || python.install(&path))?;
        Ok(python)
    }

    fn install(&self, requirements: &Path) -> Result<(), Error> {
        eprintln!("installing Python tools into {}", self.home.display());
        // Debian splits the module that makes environments off the interpreter.
        let probe = "import ensurepip, sys; print(sys.version)";
        debian::ensure(Command::new("python3").args(["-c", probe]), "python3-venv")?;
        // `--clear` empties what an older list, or an interrupted run, has left.
        process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&self.home))?;
        process::run(
            Command::new(self.bin().join("pip"))
                .args(["install", "--quiet", "--disable-pip-version-check", "--no-deps"])
                .arg("--requirement")
                .arg(requirements),
        )?;
        // `--no-deps` installs the list and nothing else; this says whether it is complete.
        process::run(Command::new(self.bin().join("pip")).arg("check"))
    }
}
