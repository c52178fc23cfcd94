//! How releases relate to one another and to their host: what a manifest declares, a
//! release statement binds, and the resolver decides with.

use std::fmt;
use std::str::FromStr;

use semver::{Version, VersionReq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::{PluginName, ServiceName};

/// Native ABI numbers this code base knows. Appending to a table keeps the number;
/// a change that old plugins cannot survive takes the next one.
pub const NATIVE_ABI: u32 = 1;

/// The newest world of components that hosts of this version offer (`sdk/wit/v1`). A host runs
/// what was built for it, or for an earlier one with the same major number.
pub const COMPONENT_WORLD: Version = Version::new(1, 0, 0);

/// A requirement on another plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// The plugin that is needed.
    pub plugin: PluginName,
    /// Versions that will do.
    pub requirement: VersionReq,
    /// When true, the release also works without; if the plugin is chosen for another
    /// reason, it must still satisfy the requirement.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Versions of another plugin that must not be loaded beside this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incompatibility {
    /// The plugin that is excluded.
    pub plugin: PluginName,
    /// The excluded versions.
    pub requirement: VersionReq,
}

/// A service that a release offers to other plugins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceExport {
    /// Name, unique within the plugin.
    pub name: ServiceName,
    /// Version of the service's contract, apart from the plugin's own.
    pub version: Version,
    /// Why callers should move on, and to what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
}

/// What a release asks of its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRequirement {
    /// Native ABI number.
    pub abi: u32,
    /// Host versions that will do; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionReq>,
}

/// What a build is made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum BuildTarget {
    /// A shared library for one target.
    Native {
        /// For example `x86_64-unknown-linux-gnu`.
        target: TargetTriple,
        /// Lowest C library that has every imported symbol; absent where the target has
        /// no versioned C library.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        libc: Option<LibcFloor>,
        /// Native ABI number the library was built against.
        abi: u32,
    },
    /// A WebAssembly component for one WIT world.
    Wasm {
        /// World version.
        world: Version,
    },
}

impl fmt::Display for BuildTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildTarget::Native { target, libc, abi } => {
                write!(f, "native {target}, abi {abi}")?;
                match libc {
                    Some(floor) => write!(f, ", glibc {floor}"),
                    None => Ok(()),
                }
            }
            BuildTarget::Wasm { world } => write!(f, "wasm, world {world}"),
        }
    }
}

/// A target as rustc names it: `[a-z0-9_]` words joined by hyphens, 3 to 64 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetTriple(Box<str>);

/// The text is not a target triple.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a target triple such as x86_64-unknown-linux-gnu")]
pub struct TargetError(String);

impl TargetTriple {
    /// The triple as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TargetTriple {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let words = text.split('-').count();
        let good = (3..=64).contains(&text.len())
            && (2..=4).contains(&words)
            && text.split('-').all(|word| {
                !word.is_empty()
                    && word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
            });
        if good {
            Ok(TargetTriple(text.into()))
        } else {
            Err(TargetError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for TargetTriple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TargetTriple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TargetTriple({})", self.0)
    }
}

impl Serialize for TargetTriple {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TargetTriple {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::parsed(deserializer)
    }
}

/// A glibc version such as `2.36`; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LibcFloor {
    /// Major number, 2 for every glibc in use.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// The text is not `major.minor`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a C library version such as 2.36")]
pub struct LibcError(String);

impl FromStr for LibcFloor {
    type Err = LibcError;

    fn from_str(text: &str) -> Result<Self, LibcError> {
        let number = |part: &str| {
            (part.len() <= 6 && part.bytes().all(|b| b.is_ascii_digit()))
                .then(|| part.parse().ok())
                .flatten()
        };
        text.split_once('.')
            .and_then(|(major, minor)| {
                Some(LibcFloor { major: number(major)?, minor: number(minor)? })
            })
            .ok_or_else(|| LibcError(text.chars().take(40).collect()))
    }
}

impl fmt::Display for LibcFloor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for LibcFloor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LibcFloor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::parsed(deserializer)
    }
}

/// What a host can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Version of the host program.
    pub version: Version,
    /// Native target, for example `x86_64-unknown-linux-gnu`.
    pub target: TargetTriple,
    /// C library on the host; absent where it has no version.
    pub libc: Option<LibcFloor>,
    /// Lowest and highest native ABI number the host can load.
    pub abi: (u32, u32),
    /// WIT world the host offers; absent when it runs no components.
    pub world: Option<Version>,
    /// Whether it takes the component where a release has a native build that fits as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prefers_components: bool,
}

/// Why a build does not run on a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Another processor or system.
    #[error("built for {built}, this host is {host}")]
    Target {
        /// The build's target.
        built: TargetTriple,
        /// The host's target.
        host: TargetTriple,
    },
    /// The C library is too old.
    #[error("needs glibc {needed}, this host has {}", .host.map_or("none".to_owned(), |l| l.to_string()))]
    Libc {
        /// Floor of the build.
        needed: LibcFloor,
        /// What the host has.
        host: Option<LibcFloor>,
    },
    /// The ABI number is outside what the host loads.
    #[error("needs native ABI {needed}, this host loads {}", span(*.host))]
    Abi {
        /// Number of the build or of the release.
        needed: u32,
        /// What the host loads.
        host: (u32, u32),
    },
    /// The host runs no components, or another world.
    #[error("needs component world {needed}, this host offers {}", .host.as_ref().map_or("none".to_owned(), Version::to_string))]
    World {
        /// World of the build.
        needed: Version,
        /// World of the host.
        host: Option<Version>,
    },
    /// The release asks for another host version.
    #[error("needs host {needed}, this is {host}")]
    HostVersion {
        /// The requirement.
        needed: VersionReq,
        /// The host's version.
        host: Version,
    },
}

impl HostFacts {
    /// Whether a release with `requirement` may run here at all.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn admits(&self, requirement: &HostRequirement) -> Result<(), Misfit> {
        self.admits_abi(requirement.abi)?;
        match &requirement.version {
            // A pre-release of the host counts as the release it leads to: `>=0.2` admits
            // host 0.2.0-dev, which semver's own rule would refuse.
            Some(needed) if !needed.matches(&without_pre_release(&self.version)) => {
                Err(Misfit::HostVersion { needed: needed.clone(), host: self.version.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Whether a build runs here.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn runs(&self, build: &BuildTarget) -> Result<(), Misfit> {
        match build {
            BuildTarget::Native { target, libc, abi } => {
                if *target != self.target {
                    return Err(Misfit::Target {
                        built: target.clone(),
                        host: self.target.clone(),
                    });
                }
                self.admits_abi(*abi)?;
                match libc {
                    Some(needed) if self.libc.is_none_or(|have| have < *needed) => {
                        Err(Misfit::Libc { needed: *needed, host: self.libc })
                    }
                    _ => Ok(()),
                }
            }
            BuildTarget::Wasm { world } => match &self.world {
                Some(have) if have.major == world.major && have >= world => Ok(()),
                _ => Err(Misfit::World { needed: world.clone(), host: self.world.clone() }),
            },
        }
    }

    fn admits_abi(&self, needed: u32) -> Result<(), Misfit> {
        if (self.abi.0..=self.abi.1).contains(&needed) {
            Ok(())
        } else {
            Err(Misfit::Abi { needed, host: self.abi })
        }
    }
}

fn span((lowest, highest): (u32, u32)) -> String {
    if lowest == highest { lowest.to_string() } else { format!("{lowest} to {highest}") }
}

fn without_pre_release(version: &Version) -> Version {
    Version::new(version.major, version.minor, version.patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostFacts {
        HostFacts {
            version: "0.2.0-dev".parse().unwrap(),
            target: "x86_64-unknown-linux-gnu".parse().unwrap(),
            libc: Some(LibcFloor { major: 2, minor: 36 }),
            abi: (1, 1),
            world: None,
            prefers_components: false,
        }
    }

    #[test]
    fn builds_fit_or_say_why() {
        let native = |target: &str, libc: Option<&str>, abi| BuildTarget::Native {
            target: target.parse().unwrap(),
            libc: libc.map(|l| l.parse().unwrap()),
            abi,
        };
        let gnu = "x86_64-unknown-linux-gnu";
        assert_eq!(host().runs(&native(gnu, Some("2.36"), 1)), Ok(()));
        assert!(matches!(host().runs(&native(gnu, Some("2.37"), 1)), Err(Misfit::Libc { .. })));
        assert!(matches!(host().runs(&native(gnu, None, 2)), Err(Misfit::Abi { .. })));
        assert!(matches!(
            host().runs(&native("aarch64-unknown-linux-gnu", None, 1)),
            Err(Misfit::Target { .. })
        ));
        assert!(matches!(
            host().runs(&BuildTarget::Wasm { world: Version::new(1, 0, 0) }),
            Err(Misfit::World { .. })
        ));
    }

    #[test]
    fn host_requirement() {
        let asks = |req: &str| HostRequirement { abi: 1, version: Some(req.parse().unwrap()) };
        assert_eq!(host().admits(&asks(">=0.2")), Ok(()));
        assert!(matches!(host().admits(&asks(">=0.3")), Err(Misfit::HostVersion { .. })));
    }

    #[test]
    fn strict_text() {
        for bad in ["", "2", "2.", ".3", "2.3.4", "+2.3", "2.36 ", "a.b"] {
            assert!(bad.parse::<LibcFloor>().is_err(), "{bad}");
        }
        for bad in ["", "x86", "X86-linux", "a--b-c", "../x-y-z", "a-b-c-d-e"] {
            assert!(bad.parse::<TargetTriple>().is_err(), "{bad}");
        }
    }
}
