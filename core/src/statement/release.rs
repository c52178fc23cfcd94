//! The release statement: everything about a release that anybody relies on.

use std::collections::BTreeSet;

use semver::Version;
use serde::{Deserialize, Serialize};

use super::{Link, StatementError, field};
use crate::archive::ARCHIVE_MAX_BYTES;
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::name::PluginName;
use crate::relation::{BuildTarget, Dependency, HostRequirement, Incompatibility, ServiceExport};

/// Most builds of a release: every tier-one and tier-two target of rustc with room to spare.
pub const BUILDS_MAX: usize = 32;
/// Most entries in each of a release's lists. The 8 KB of a statement end earlier for
/// long names; this bound keeps the error clear.
pub const LIST_MAX: usize = 64;

/// One archive of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// What it is built for.
    pub target: BuildTarget,
    /// SHA-256 of the archive.
    pub archive: Digest,
    /// Size of the archive in bytes.
    pub size_bytes: u64,
    /// Digest of the archive's file list (`archive::FileList::digest`).
    pub files: Digest,
}

/// A release of a plugin. Signed by the plugin's organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The plugin.
    pub plugin: PluginName,
    /// The version.
    pub version: Version,
    /// Place in the plugin's chain.
    pub sequence: u64,
    /// SHA-256 of the statement before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// SHA-256 of `plugin.toml`, byte for byte as every build's archive holds it.
    pub manifest: Digest,
    /// What the release asks of its host.
    pub host: HostRequirement,
    /// Other plugins it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// Other plugins it must not stand beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incompatible: Vec<Incompatibility>,
    /// Services it exports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceExport>,
    /// Capabilities it asks for, as `group:detail` texts in the manifest's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// One archive a build, at least one.
    pub builds: Vec<Build>,
}

/// A field in which a release statement and the manifest it names differ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the manifest's {field} differ from what the release statement says; sign the statement again from this manifest"
)]
pub struct Disagreement {
    /// The statement's field.
    pub field: &'static str,
}

impl Release {
    /// The release that a manifest declares: everything but the builds comes from it.
    pub fn declared_by(
        manifest: &Manifest,
        digest: Digest,
        link: Link,
        builds: Vec<Build>,
    ) -> Self {
        Release {
            plugin: manifest.name.clone(),
            version: manifest.version.clone(),
            sequence: link.sequence,
            previous: link.previous,
            manifest: digest,
            host: manifest.host.clone(),
            dependencies: manifest.dependencies.clone(),
            incompatible: manifest.incompatible.clone(),
            services: manifest.exports(),
            capabilities: manifest.capability_texts(),
            builds,
        }
    }

    /// Whether the statement says what the manifest says. The manifest's digest is the
    /// caller's to compare, who has the bytes.
    ///
    /// # Errors
    /// The first field that differs.
    pub fn agrees_with(&self, manifest: &Manifest) -> Result<(), Disagreement> {
        for (field, same) in [
            ("name", self.plugin == manifest.name),
            ("version", self.version == manifest.version),
            ("host requirements", self.host == manifest.host),
            ("dependencies", self.dependencies == manifest.dependencies),
            ("incompatibilities", self.incompatible == manifest.incompatible),
            ("services", self.services == manifest.exports()),
            ("capabilities", self.capabilities == manifest.capability_texts()),
        ] {
            if !same {
                return Err(Disagreement { field });
            }
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), StatementError> {
        for (name, length) in [
            ("dependencies", self.dependencies.len()),
            ("incompatible", self.incompatible.len()),
            ("services", self.services.len()),
            ("capabilities", self.capabilities.len()),
        ] {
            if length > LIST_MAX {
                return Err(field(
                    name,
                    format!("{length} entries; at most {LIST_MAX} are allowed"),
                ));
            }
        }
        if self.builds.is_empty() || self.builds.len() > BUILDS_MAX {
            return Err(field("builds", format!("a release has 1 to {BUILDS_MAX} builds")));
        }
        unique("builds", self.builds.iter().map(|build| build.target.to_string()))?;
        unique("dependencies", self.dependencies.iter().map(|d| d.plugin.to_string()))?;
        unique("services", self.services.iter().map(|s| s.name.to_string()))?;
        if self.dependencies.iter().any(|d| d.plugin == self.plugin) {
            return Err(field("dependencies", "a plugin cannot depend on itself"));
        }
        for build in &self.builds {
            if build.size_bytes == 0 || build.size_bytes > ARCHIVE_MAX_BYTES as u64 {
                return Err(field(
                    "builds",
                    format!(
                        "an archive has 1 to {ARCHIVE_MAX_BYTES} bytes, not {}",
                        build.size_bytes
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn unique(
    name: &'static str,
    values: impl ExactSizeIterator<Item = String>,
) -> Result<(), StatementError> {
    // Most releases have one build, which is not worth a text.
    if values.len() < 2 {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    for value in values {
        if seen.contains(&value) {
            return Err(field(name, format!("{value} stands twice")));
        }
        seen.insert(value);
    }
    Ok(())
}
