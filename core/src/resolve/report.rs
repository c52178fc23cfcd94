//! What a person is told when nothing satisfies a request, as data and as text.

use std::fmt;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::name::PluginName;
use crate::relation::BuildTarget;

/// Lines about one plugin's versions in the text; the data has all.
const LINES_SHOWN: usize = 8;
/// Versions of one asker written out before they are shortened to first and last.
const ASKER_VERSIONS_SHOWN: usize = 3;

/// Why no choice of versions satisfies a request. `Display` gives the plain text, of
/// several lines without a newline at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The facts that contradict one another, from the request downwards. Each is needed:
    /// without any one of them, the others could be satisfied (unless the search for a
    /// smallest set was cut short, when some may be superfluous).
    pub because: Vec<Because>,
    /// The plugins for which the facts leave no version.
    pub dead_ends: Vec<DeadEnd>,
    /// What may be done, most useful first.
    pub advice: Vec<String>,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Because {
    /// Who says so.
    pub asker: Asker,
    /// How it binds.
    pub relation: Relation,
    /// The plugin it is about.
    pub plugin: PluginName,
    /// The versions it is about.
    pub requirement: VersionReq,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Asker {
    /// The request itself.
    Request,
    /// Releases of a plugin.
    Plugin {
        /// The plugin.
        plugin: PluginName,
        /// The releases that say the same, oldest first.
        versions: Vec<Version>,
    },
}

/// How a fact binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// A version of the requirement must be chosen.
    Needs,
    /// If the plugin is chosen, then in a version of the requirement.
    WorksWith,
    /// No version of the requirement may be chosen.
    Excludes,
}

/// A plugin for which no version is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadEnd {
    /// The plugin.
    pub plugin: PluginName,
    /// Whether the registry has it at all.
    pub exists: bool,
    /// A known name that may be meant, when the registry has none such.
    pub nearest: Option<PluginName>,
    /// Every version, newest first, and why it is none.
    pub versions: Vec<Considered>,
}

/// One version of a dead end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    /// The version.
    pub version: Version,
    /// Why it cannot be chosen.
    pub verdict: Verdict,
}

/// Why a version cannot be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// A fact does not admit it.
    Contradicts {
        /// Position of the fact in [`Report::because`].
        because: usize,
        /// Whether the only obstacle is that it is a pre-release nobody named.
        pre_release: bool,
    },
    /// It may not be chosen, whatever is asked.
    Excluded(Exclusion),
}

/// Why a release may not be chosen, whatever is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "exclusion", rename_all = "kebab-case")]
pub enum Exclusion {
    /// Taken back by its owner, and not locked.
    Yanked,
    /// Refused by the registry.
    Quarantined {
        /// Why, in words.
        reason: String,
    },
    /// Refused by the host's own policy.
    Policy {
        /// In words that follow the version.
        reason: String,
    },
    /// Gone.
    Removed,
    /// Asks for another version of the host.
    HostVersion {
        /// In words.
        reason: String,
    },
    /// Asks for an ABI that the host does not load.
    HostAbi {
        /// In words.
        reason: String,
    },
    /// No build runs on the host.
    NoBuild {
        /// Every build and why not; empty when the release has none.
        builds: Vec<BuildMisfit>,
    },
    /// The index lists this version more than once.
    Ambiguous,
    /// Its own dependencies or incompatibilities rule it out.
    ContradictsItself,
}

/// A build that does not run on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildMisfit {
    /// The build.
    pub build: BuildTarget,
    /// Why not, in words.
    pub reason: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no choice of versions satisfies the request, because\n")?;
        for fact in &self.because {
            write!(f, "\n  {fact}")?;
        }
        for end in &self.dead_ends {
            f.write_str("\n\n")?;
            self.write_dead_end(f, end)?;
        }
        if !self.advice.is_empty() {
            f.write_str("\n")?;
        }
        for advice in &self.advice {
            write!(f, "\nhelp: {advice}")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_dead_end(&self, f: &mut fmt::Formatter<'_>, end: &DeadEnd) -> fmt::Result {
        let plugin = &end.plugin;
        if !end.exists {
            return write!(f, "{plugin} does not exist in the registry");
        }
        match end.versions.len() {
            0 => write!(f, "{plugin} has no version")?,
            1 => write!(f, "{plugin} has one version, which cannot be used:")?,
            count => write!(f, "{plugin} has {count} versions, none of which can be used:")?,
        }
        // Neighbours with the same verdict share a line.
        let alike: Vec<&[Considered]> =
            end.versions.chunk_by(|a, b| a.verdict == b.verdict).collect();
        let shown: Vec<(String, String)> = alike
            .iter()
            .take(LINES_SHOWN)
            .filter_map(|run| {
                let (newest, oldest) = (run.first()?, run.last()?);
                let versions = if run.len() == 1 {
                    newest.version.to_string()
                } else {
                    format!("{} to {}", oldest.version, newest.version)
                };
                Some((versions, self.in_words(&newest.verdict)))
            })
            .collect();
        let width = shown.iter().map(|(versions, _)| versions.len()).max().unwrap_or(0);
        for (versions, verdict) in &shown {
            write!(f, "\n  {versions:width$}  {verdict}")?;
        }
        match alike.iter().skip(LINES_SHOWN).map(|run| run.len()).sum() {
            0 => Ok(()),
            1 => write!(f, "\n  and an older one"),
            rest => write!(f, "\n  and {rest} older ones"),
        }
    }

    fn in_words(&self, verdict: &Verdict) -> String {
        match verdict {
            Verdict::Excluded(exclusion) => exclusion.to_string(),
            Verdict::Contradicts { because, pre_release } => {
                let Some(fact) = self.because.get(*because) else {
                    return "contradicts the request".to_owned();
                };
                let Because { asker, relation, requirement, .. } = fact;
                match (relation, pre_release) {
                    (Relation::Excludes, _) => format!("is excluded by {asker}"),
                    (_, true) => format!(
                        "is a pre-release, and {requirement} of {asker} names no pre-release of it"
                    ),
                    (Relation::Needs, false) => {
                        format!("is not {requirement}, which {asker} {}", asker.needs())
                    }
                    (Relation::WorksWith, false) => {
                        format!("is not {requirement}, which {asker} {} beside it", asker.needs())
                    }
                }
            }
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Because { asker, relation, plugin, requirement } = self;
        let many = asker.is_many();
        match relation {
            Relation::Needs => write!(f, "{asker} {} {plugin} {requirement}", asker.needs()),
            Relation::WorksWith => {
                let verb = if many { "work" } else { "works" };
                write!(
                    f,
                    "{asker} {verb} with {plugin} only at {requirement} (optional dependency)"
                )
            }
            Relation::Excludes => {
                let verb = if many { "are" } else { "is" };
                write!(f, "{asker} {verb} incompatible with {plugin} {requirement}")
            }
        }
    }
}

impl Asker {
    fn is_many(&self) -> bool {
        matches!(self, Asker::Plugin { versions, .. } if versions.len() > 1)
    }

    fn needs(&self) -> &'static str {
        if self.is_many() { "need" } else { "needs" }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asker::Request => f.write_str("the request"),
            Asker::Plugin { plugin, versions } => {
                write!(f, "{plugin}")?;
                if versions.len() <= ASKER_VERSIONS_SHOWN {
                    for (position, version) in versions.iter().enumerate() {
                        write!(f, "{}{version}", if position == 0 { " " } else { ", " })?;
                    }
                    return Ok(());
                }
                match (versions.first(), versions.last()) {
                    (Some(first), Some(last)) => {
                        write!(f, " {first} to {last} ({} versions)", versions.len())
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exclusion::Yanked => f.write_str("was yanked by its owner"),
            Exclusion::Quarantined { reason } => write!(f, "is quarantined: {reason}"),
            Exclusion::Policy { reason } => f.write_str(reason),
            Exclusion::Removed => f.write_str("was removed from the registry"),
            Exclusion::HostVersion { reason } | Exclusion::HostAbi { reason } => {
                f.write_str(reason)
            }
            Exclusion::NoBuild { builds } if builds.is_empty() => f.write_str("has no build"),
            Exclusion::NoBuild { builds } => {
                f.write_str("has no build for this host: ")?;
                for (position, misfit) in builds.iter().enumerate() {
                    let comma = if position == 0 { "" } else { "; " };
                    let kind = match misfit.build {
                        BuildTarget::Native { .. } => "native",
                        BuildTarget::Wasm { .. } => "wasm",
                    };
                    write!(f, "{comma}{kind} {}", misfit.reason)?;
                }
                Ok(())
            }
            Exclusion::Ambiguous => f.write_str("is listed more than once in the index"),
            Exclusion::ContradictsItself => {
                f.write_str("excludes itself by its own dependencies or incompatibilities")
            }
        }
    }
}
