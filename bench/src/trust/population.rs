//! A registry's statements without the registry: organisations, plugins, releases and verdicts,
//! as many as are asked for and as long as real ones.

use std::sync::Arc;

use modunest_core::digest::Digest;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::relation::{
    BuildTarget, Dependency, HostRequirement, NATIVE_ABI, ServiceExport,
};
use modunest_core::scan;
use modunest_core::statement::{
    Build, Key, KeyChange, Link, Release, SignedStatement, Statement, Verdict, VerdictOutcome,
};
use modunest_core::{Version, VersionReq};
use modunest_tlog::{SigningKey, VerifyingKey};

use crate::error::Error;
use crate::host::plugins::letters;

/// Plugins of one organisation.
pub const PLUGINS_PER_ORG: usize = 10;
/// Dependencies of a plugin: its number modulo this, so 3 on average.
const DEPENDENCIES_BELOW: usize = 7;
/// What each release is built for.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];
/// The lowest C library of those builds.
const LIBC: &str = "2.31";

fn parsed<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, Error>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(Error::wrong(what))
}

/// The organisation with a number.
pub fn org(number: usize) -> Result<OrgName, Error> {
    parsed("an organisation's name", &format!("studio-{}", letters(number)))
}

/// The organisation that a plugin belongs to.
pub const fn org_of(plugin: usize) -> usize {
    plugin / PLUGINS_PER_ORG
}

/// The plugin with a number.
pub fn plugin(number: usize) -> Result<PluginName, Error> {
    let org = org(org_of(number))?;
    parsed("a plugin's name", &format!("{org}/image-tools-{}", letters(number)))
}

/// The version with a number, from 0.
pub fn version(number: usize) -> Version {
    Version::new(1, number as u64, 0)
}

/// The key of an organisation.
pub fn publisher(number: usize) -> Result<SigningKey, Error> {
    let name = parsed("a key's name", org(number)?.as_str())?;
    Ok(SigningKey::from_seed(name, Digest::of(&number.to_le_bytes()).as_bytes()))
}

/// That a key may sign for an organisation.
pub fn key(org: OrgName, key: &VerifyingKey) -> Statement {
    let Link { sequence, previous } = Link::FIRST;
    Statement::Key(Key {
        org,
        sequence,
        previous,
        key: key.to_string(),
        change: KeyChange::Add,
        replaces: None,
        reason: None,
    })
}

/// A release of a plugin, of which there are `plugins`.
pub fn release(
    number: usize,
    version_number: usize,
    link: Link,
    plugins: usize,
) -> Result<Statement, Error> {
    let name = plugin(number)?;
    let named = |part: &str| Digest::of(format!("{name} {version_number} {part}").as_bytes());
    let dependency = |step: usize| {
        Ok(Dependency {
            plugin: plugin((number + step * PLUGINS_PER_ORG + step) % plugins)?,
            requirement: parsed::<VersionReq>("a requirement", "^1.0")?,
            optional: step == 4,
        })
    };
    // In a small registry the steps would lead back.
    let count = if plugins > 100 { number % DEPENDENCIES_BELOW } else { 0 };
    let dependencies = (1..=count).map(dependency).collect::<Result<Vec<_>, Error>>()?;
    let build = |target: &&str| {
        Ok(Build {
            target: BuildTarget::Native {
                target: parsed("a target", target)?,
                libc: Some(parsed("a C library", LIBC)?),
                abi: NATIVE_ABI,
            },
            archive: named(target),
            size_bytes: 72_000 + number as u64,
            files: named(&format!("{target} files")),
        })
    };
    Ok(Statement::Release(Arc::new(Release {
        version: version(version_number),
        sequence: link.sequence,
        previous: link.previous,
        manifest: named("manifest"),
        host: HostRequirement { abi: NATIVE_ABI, version: None },
        dependencies,
        incompatible: Vec::new(),
        services: vec![ServiceExport {
            name: parsed("a service's name", "resize")?,
            version: Version::new(1, 2, 0),
            deprecated: None,
        }],
        capabilities: vec!["net:https://images.example.org".to_owned()],
        builds: TARGETS.iter().map(build).collect::<Result<_, Error>>()?,
        plugin: name,
    })))
}

/// The registry's verdict about a release.
pub fn verdict(release: &SignedStatement, link: Link) -> Result<Statement, Error> {
    let Statement::Release(content) = release.statement() else {
        return Err(Error::Wrong { what: "a verdict", why: "it is about no release".to_owned() });
    };
    let statement = release.digest();
    Ok(Statement::Verdict(Verdict {
        plugin: content.plugin.clone(),
        version: content.version.clone(),
        sequence: link.sequence,
        previous: link.previous,
        statement,
        ruleset: scan::RULESET,
        outcome: VerdictOutcome::Clean,
        report: Digest::of(statement.as_bytes()),
    }))
}

/// Signs.
pub fn signed(statement: &Statement, key: &SigningKey) -> Result<SignedStatement, Error> {
    statement.sign(key).map_err(Error::wrong("a statement"))
}
