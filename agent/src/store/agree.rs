//! Whether a manifest says what the release statement says.

use std::fmt;

use modunest_core::digest::Digest;
use modunest_core::manifest::Manifest;
use modunest_core::statement::Release;

use super::Error;

/// The first field about which manifest and statement disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement(&'static str);

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Reads the manifest that `release` names.
pub(super) fn manifest(bytes: &[u8], release: &Release) -> Result<Manifest, Error> {
    if Digest::of(bytes) != release.manifest {
        return Err(Error::ManifestDigest);
    }
    let manifest = Manifest::parse_bytes(bytes)?;
    let fields = [
        ("the name", manifest.name == release.plugin),
        ("the version", manifest.version == release.version),
        ("the host", manifest.host == release.host),
        ("the dependencies", same(&manifest.dependencies, &release.dependencies)),
        ("the incompatibilities", same(&manifest.incompatible, &release.incompatible)),
        ("the services", same(&manifest.services, &release.services)),
        ("the capabilities", same(&manifest.capability_texts(), &release.capabilities)),
    ];
    match fields.into_iter().find(|(_, agree)| !agree) {
        Some((field, _)) => Err(Error::Disagreement(Disagreement(field))),
        None => Ok(manifest),
    }
}

/// Whether two lists hold the same, in whatever order. Entries of one list differ.
fn same<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.len() == other.len() && one.iter().all(|entry| other.contains(entry))
}
