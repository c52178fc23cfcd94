//! From a plugin's folder to the archives that are published, one a build.

mod build;
mod pack;
mod wasm;

pub use build::{Built, Kind, Which, build};
pub use pack::{Archived, Package, pack};

use std::path::{Path, PathBuf};

use modunest_core::archive::MANIFEST_NAME;
use modunest_core::manifest::Manifest;

use crate::error::Error;

/// A plugin's folder with its manifest.
#[derive(Clone, Debug)]
pub struct Source {
    /// The folder.
    pub folder: PathBuf,
    /// The manifest's bytes: its digest is over these.
    pub manifest_bytes: Vec<u8>,
    /// What they say.
    pub manifest: Manifest,
}

impl Source {
    /// Reads a plugin's folder.
    ///
    /// # Errors
    /// When there is no manifest, or with every rule that it breaks.
    pub fn open(folder: &Path) -> Result<Source, Error> {
        let path = folder.join(MANIFEST_NAME);
        let manifest_bytes = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Usage(format!(
                "{} is no plugin's folder: it has no {MANIFEST_NAME}. `modunest new ORG/NAME` makes one",
                folder.display()
            )),
            _ => Error::File { path: path.clone(), source: error },
        })?;
        let manifest = Manifest::parse_bytes(&manifest_bytes)
            .map_err(|error| Error::Input(format!("{} is not valid\n\n{error}", path.display())))?;
        Ok(Source { folder: folder.to_owned(), manifest_bytes, manifest })
    }
}
