//! A release for tests of this crate.

use super::{Build, Link, Release};
use crate::digest::Digest;
use crate::relation::{BuildTarget, HostRequirement};

/// A release with one build, that breaks no rule.
pub(crate) fn test_release(plugin: &str, version: &str, link: Link) -> Release {
    Release {
        plugin: plugin.parse().unwrap(),
        version: version.parse().unwrap(),
        sequence: link.sequence,
        previous: link.previous,
        manifest: Digest::of(b"manifest"),
        host: HostRequirement { abi: 1, version: None },
        dependencies: vec![],
        incompatible: vec![],
        services: vec![],
        capabilities: vec![],
        builds: vec![Build {
            target: BuildTarget::Native {
                target: "x86_64-unknown-linux-gnu".parse().unwrap(),
                libc: None,
                abi: 1,
            },
            archive: Digest::of(b"archive"),
            size_bytes: 7,
            files: Digest::of(b"files"),
        }],
    }
}
