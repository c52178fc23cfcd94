//! The manifest that a release statement names.

use modunest_core::digest::Digest;
use modunest_core::manifest::Manifest;
use modunest_core::statement::Release;

use super::Error;

/// Reads the manifest that `release` names, and whether it says what the statement says.
/// `found` is what the bytes hash to.
pub(super) fn manifest(bytes: &[u8], found: Digest, release: &Release) -> Result<Manifest, Error> {
    if found != release.manifest {
        return Err(Error::ManifestDigest);
    }
    let manifest = Manifest::parse_bytes(bytes)?;
    release.agrees_with(&manifest)?;
    Ok(manifest)
}
