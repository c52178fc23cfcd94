//! Where things are: the repository, and the cache that outlives every clone.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The folders that tasks use.
pub struct Folders {
    /// The repository's top folder.
    pub repository: PathBuf,
    /// Build output of the workspace, shared by all clones of one user.
    pub target: PathBuf,
    /// Everything else that is costly to make: tools, the wasm toolchain.
    pub cache: PathBuf,
}

impl Folders {
    /// Reads the environment once.
    pub fn from_environment() -> Result<Self, Error> {
        let home = env::var_os("HOME").ok_or(Error::Variable("HOME"))?;
        let cache = Path::new(&home).join(".cache/modunest");
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache.join("target"), PathBuf::from);
        // Compiled in, so that the task works from any folder inside the repository; cargo sets
        // it anew at run time, which is right also when the build was made in another clone.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let repository = manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf);
        Ok(Self { repository, target, cache })
    }

    /// The built worker: its module and the WebAssembly that it loads.
    pub fn worker(&self) -> PathBuf {
        self.cache.join("worker")
    }
}
