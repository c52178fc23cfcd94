//! Generations: what the host runs, and what proves it, switched as one.
//!
//! ```text
//! generations/<n>/modunest.lock   the chosen releases
//! generations/<n>/evidence        the index files that prove them
//! current -> generations/<n>
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modunest_core::Version;
use modunest_core::digest::Digest;
use modunest_core::index::INDEX_FILE_MAX_BYTES;
use modunest_core::name::PluginName;
use modunest_core::statement::{Build, RegistryKeys, Release, Status, Subject, TrustLevel};
use modunest_core::time::Timestamp;

use super::Error;
use crate::files;
use crate::registry::fold::{Files, fold};
use crate::sync::{Judgement, LOCK_MAX_BYTES, LOCK_NAME, Lock, Policy};

/// Generations that are kept to go back to.
pub const KEPT_GENERATIONS: usize = 10;
/// How long a generation is kept to go back to.
pub const GENERATIONS_KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Name of the file that names the generation which is stayed with.
const PIN_NAME: &str = "pinned";
/// Largest evidence file, in bytes: 10,000 plugins with 50 KB of statements.
const EVIDENCE_MAX_BYTES: usize = 512 * 1024 * 1024;

/// Index files, verbatim: everything that proves a generation, without a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence(pub Files);

/// One generation.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Its number; later ones have larger ones.
    pub number: u64,
    /// What was chosen.
    pub lock: Lock,
    /// What proves it.
    pub evidence: Evidence,
}

/// A chosen release, proven by signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The release statement's content, as it was folded.
    pub release: Arc<Release>,
    /// The build to load.
    pub build: Build,
    /// Digest of the release statement.
    pub statement: Digest,
    /// Chosen plugins that it uses, and whether it also works without.
    pub uses: BTreeMap<PluginName, bool>,
    /// The owner took the release back.
    pub yanked: bool,
    /// How far the registry trusts the plugin.
    pub trust: TrustLevel,
}

/// All generations of an agent.
#[derive(Clone, Debug)]
pub struct Generations {
    state_dir: PathBuf,
}

impl Generations {
    /// Those below `state_dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let folder = state_dir.join("generations");
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        Ok(Generations { state_dir: state_dir.to_owned() })
    }

    fn folder(&self) -> PathBuf {
        self.state_dir.join("generations")
    }

    /// Numbers of all generations, ascending.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn numbers(&self) -> Result<Vec<u64>, Error> {
        let folder = self.folder();
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
            let name = entry.map_err(|e| Error::io(&folder, e))?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The generation that runs; `None` before the first sync.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Generation`].
    pub fn current(&self) -> Result<Option<Generation>, Error> {
        self.current_number()?.map(|number| self.read(number)).transpose()
    }

    fn current_number(&self) -> Result<Option<u64>, Error> {
        let link = self.state_dir.join("current");
        let target = match fs::read_link(&link) {
            Ok(target) => target,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&link, error)),
        };
        let number = target.file_name().and_then(|name| name.to_str()?.parse().ok());
        let number = number.ok_or_else(|| Error::Generation {
            number: 0,
            rule: format!("{} does not point to a generation", link.display()),
        })?;
        Ok(Some(number))
    }

    /// Reads one generation.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Generation`].
    pub fn read(&self, number: u64) -> Result<Generation, Error> {
        let folder = self.folder().join(number.to_string());
        let content = |name: &str, limit| {
            let path = folder.join(name);
            files::read_limited(&path, limit)
                .map_err(|e| Error::io(&path, e))?
                .ok_or_else(|| Error::Generation { number, rule: format!("has no {name}") })
        };
        let bad = |rule: String| Error::Generation { number, rule };
        let lock = Lock::parse(&content(LOCK_NAME, LOCK_MAX_BYTES)?).map_err(bad)?;
        let evidence = Evidence::parse(&content("evidence", EVIDENCE_MAX_BYTES)?)
            .ok_or_else(|| bad("its evidence is damaged".to_owned()))?;
        Ok(Generation { number, lock, evidence })
    }

    /// Writes the next generation and switches to it. After a crash, the old or the new one
    /// is current.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&self, lock: Lock, evidence: Evidence) -> Result<Generation, Error> {
        let number = self.numbers()?.last().map_or(1, |last| last + 1);
        let folder = self.folder().join(number.to_string());
        let aside = files::aside(&folder);
        fs::create_dir(&aside).map_err(|e| Error::io(&aside, e))?;
        let written = [(LOCK_NAME, lock.to_bytes()), ("evidence", evidence.to_bytes())];
        for (name, content) in written {
            let path = aside.join(name);
            files::write_durable(&path, &content).map_err(|e| Error::io(&path, e))?;
        }
        fs::rename(&aside, &folder).map_err(|e| Error::io(&folder, e))?;
        files::sync_folder(&self.folder()).map_err(|e| Error::io(&self.folder(), e))?;
        self.switch(number)?;
        Ok(Generation { number, lock, evidence })
    }

    /// When a generation was made.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn made_at(&self, number: u64) -> Result<Timestamp, Error> {
        let folder = self.folder().join(number.to_string());
        let made = fs::metadata(&folder).and_then(|data| data.modified());
        let made = made.map_err(|e| Error::io(&folder, e))?;
        let since = made.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The generation that is stayed with until the next explicit sync, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Generation`].
    pub fn pinned(&self) -> Result<Option<u64>, Error> {
        let path = self.state_dir.join(PIN_NAME);
        let text = files::read_limited(&path, 32).map_err(|e| Error::io(&path, e))?;
        let Some(text) = text else { return Ok(None) };
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        number.map(Some).ok_or_else(|| Error::Generation {
            number: 0,
            rule: format!("{} names no generation; delete it", path.display()),
        })
    }

    /// Stays with a generation from now on, or with none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pin(&self, number: Option<u64>) -> Result<(), Error> {
        let path = self.state_dir.join(PIN_NAME);
        let done = match number {
            Some(number) => files::write_durable(&path, format!("{number}\n").as_bytes()),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        };
        done.map_err(|e| Error::io(&path, e))
    }

    /// Makes a generation the current one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn switch(&self, number: u64) -> Result<(), Error> {
        let link = self.state_dir.join("current");
        let aside = files::aside(&link);
        let target = Path::new("generations").join(number.to_string());
        symlink(&target, &aside)
            .and_then(|()| fs::rename(&aside, &link))
            .and_then(|()| files::sync_folder(&self.state_dir))
            .map_err(|e| Error::io(&link, e))
    }

    /// Removes one generation, which must be neither current nor pinned.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn remove(&self, number: u64) -> Result<(), Error> {
        let path = self.folder().join(number.to_string());
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| Error::io(&path, e)),
        }
    }

    /// Removes all but the newest [`KEPT_GENERATIONS`], and what is older than
    /// [`GENERATIONS_KEPT_FOR`] at `now`; never `current`, the one before it, or the pinned
    /// one. Answers the file lists that the kept ones use.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Generation`].
    pub fn prune(&self, current: u64, now: Timestamp) -> Result<BTreeSet<Digest>, Error> {
        let (numbers, pinned) = (self.numbers()?, self.pinned()?);
        let surplus = numbers.len().saturating_sub(KEPT_GENERATIONS);
        let before = numbers.iter().rfind(|number| **number < current).copied();
        let mut used = BTreeSet::new();
        for (position, number) in numbers.into_iter().enumerate() {
            let is_needed = number == current || Some(number) == before || Some(number) == pinned;
            let is_old = now.since(self.made_at(number)?) > GENERATIONS_KEPT_FOR;
            if (position < surplus || is_old) && !is_needed {
                let path = self.folder().join(number.to_string());
                fs::remove_dir_all(&path).map_err(|e| Error::io(&path, e))?;
            } else {
                used.extend(self.read(number)?.lock.plugins.iter().map(|plugin| plugin.files));
            }
        }
        Ok(used)
    }
}

impl Generation {
    /// Proves every chosen release from the evidence: see [`prove`].
    ///
    /// # Errors
    /// Which proof failed.
    pub fn prove(&self, registry: &RegistryKeys, policy: &Policy) -> Result<Vec<Proven>, Error> {
        prove(&self.lock, &self.evidence, registry, policy)
    }
}

/// Proves the releases of a lock: chains and signatures from the registry's keys downwards,
/// that each locked build stands in its release, that none is quarantined or refused by
/// `policy`, and that every dependency is met. That the log has the statements was proven when
/// they were read.
///
/// # Errors
/// Which proof failed.
pub fn prove(
    lock: &Lock,
    evidence: &Evidence,
    registry: &RegistryKeys,
    policy: &Policy,
) -> Result<Vec<Proven>, Error> {
    let mut folded = fold(&evidence.0, registry).map_err(Box::new)?;
    let versions: BTreeMap<&PluginName, &Version> =
        lock.plugins.iter().map(|p| (&p.plugin, &p.version)).collect();
    let mut proven = Vec::with_capacity(lock.plugins.len());
    for locked in &lock.plugins {
        let unproven = |rule: String| Error::Unproven {
            plugin: locked.plugin.clone(),
            version: locked.version.clone(),
            rule,
        };
        let plugin = folded.plugins.get_mut(&locked.plugin);
        let (status, judgement, state, trust) = plugin
            .and_then(|plugin| {
                let state = plugin.releases.remove(&locked.version)?;
                let judgement = policy.judge(plugin, &state);
                Some((plugin.status(&state), judgement, state, plugin.trust))
            })
            .ok_or_else(|| unproven("no statement releases this version".to_owned()))?;
        if let Status::Quarantined { reason } = &status {
            return Err(unproven(format!("it is quarantined: {reason}")));
        }
        if let Judgement::Refused(reason) = judgement {
            return Err(unproven(format!("it {reason}")));
        }
        if state.statement != locked.statement {
            return Err(unproven("the lock names another release statement".to_owned()));
        }
        let build = state.release.builds.iter().find(|build| build.target == locked.target);
        let build = build.filter(|b| b.archive == locked.archive && b.files == locked.files);
        let build =
            build.cloned().ok_or_else(|| unproven("the release has no such build".to_owned()))?;
        let mut uses = BTreeMap::new();
        for dependency in &state.release.dependencies {
            match versions.get(&dependency.plugin) {
                Some(version) if dependency.requirement.matches(version) => {
                    uses.insert(dependency.plugin.clone(), dependency.optional);
                }
                None if dependency.optional => {}
                _ => {
                    let rule = format!("its dependency {} is not met", dependency.plugin);
                    return Err(unproven(rule));
                }
            }
        }
        let yanked = matches!(status, Status::Yanked { .. });
        let (release, statement) = (state.release, state.statement);
        proven.push(Proven { release, build, statement, uses, yanked, trust });
    }
    Ok(proven)
}

impl Evidence {
    /// The bytes: `<subject> <length>`, a line feed and the index file, for each subject.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (subject, file) in &self.0 {
            bytes.extend_from_slice(format!("{subject} {}\n", file.len()).as_bytes());
            bytes.extend_from_slice(file);
        }
        bytes
    }

    /// Reads [`Evidence::to_bytes`].
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut evidence = Evidence::default();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| *b == b'\n')?;
            let line = std::str::from_utf8(&bytes[..end]).ok()?;
            let (subject, length) = line.split_once(' ')?;
            let length: usize = length.parse().ok().filter(|n| *n <= INDEX_FILE_MAX_BYTES)?;
            let (file, rest) = bytes[end + 1..].split_at_checked(length)?;
            evidence.0.insert(subject.parse::<Subject>().ok()?, file.into());
            bytes = rest;
        }
        Some(evidence)
    }
}
