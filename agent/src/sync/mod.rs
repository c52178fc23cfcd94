//! From what is wanted to a generation on disk: resolve, lock, fetch, prove, switch.
//!
//! Every step can be repeated after a crash. What was read, fetched and unpacked before is
//! not fetched again. When the registry cannot be reached, the current generation serves,
//! if it holds everything that is wanted.

mod bundle;
mod choice;
mod download;
mod lock;
mod policy;
mod resolve;
mod tried;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use modunest_core::Version;
use modunest_core::index::Head;
use modunest_core::name::PluginName;
use modunest_core::resolve::{Exceeded, Report, Root, Warning};
use modunest_core::statement::Status;
use serde::Serialize;

pub use bundle::Bundled;
pub use lock::{LOCK_MAX_BYTES, LOCK_NAME, Lock, Locked};
pub use policy::{Judgement, Policy};
pub use resolve::{Resolved, resolve};
pub(crate) use tried::{clash, mixed};

use crate::config::{Config, Wanted};
use crate::registry::{self, Client};
use crate::store::{self, Fresh, Generation, Generations, Proven, Store};
use crate::{blocking, files, trust};
use choice::{Choice, facts};

/// How a sync is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Use the lock file as it is, or fail.
    pub frozen: bool,
    /// Use no network.
    pub offline: bool,
    /// Let go of the lock file's versions and take the newest.
    pub update: bool,
}

/// What a sync came to.
#[derive(Debug)]
pub struct Outcome {
    /// The generation to run.
    pub generation: Generation,
    /// Its releases, proven.
    pub proven: Vec<Proven>,
    /// Whether the generation is new.
    pub changed: bool,
    /// Archives that were fetched.
    pub fetched: usize,
    /// What came of them: store entries that need not be opened again.
    pub fresh: Fresh,
    /// The newest believed head.
    pub head: HeadSummary,
    /// Why this came about without the registry.
    pub offline: Option<String>,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
}

/// What people want to know of a head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeadSummary {
    /// The registry's origin.
    pub origin: String,
    /// Its epoch.
    pub epoch: u64,
    /// When it was signed, RFC 3339.
    pub issued_at: String,
    /// How long ago that is.
    pub age_s: u64,
}

impl HeadSummary {
    /// Of a head, now.
    pub fn of(head: &Head) -> Self {
        HeadSummary {
            origin: head.origin.clone(),
            epoch: head.epoch,
            issued_at: head.issued_at.to_string(),
            age_s: modunest_runtime::clock::now().since(head.issued_at).as_secs(),
        }
    }
}

/// Why a sync did not come to a generation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read of the registry failed.
    #[error(transparent)]
    Registry(#[from] Box<registry::Error>),
    /// Nothing satisfies what is wanted.
    #[error("{0}")]
    NoSolution(Box<Report>),
    /// A limit of the resolver was met.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// The resolver chose what was not read: a bug, and no reason to go on.
    #[error("the resolver chose a release of {plugin} that was not read")]
    Solution {
        /// The plugin.
        plugin: PluginName,
    },
    /// An archive was refused.
    #[error("{plugin} {version}: {error}")]
    Archive {
        /// The plugin.
        plugin: PluginName,
        /// The version.
        version: Version,
        /// Why.
        error: Box<store::Error>,
    },
    /// The store or a generation cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The lock file cannot be read.
    #[error("{}: {rule}; delete it to resolve anew", .path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        rule: String,
    },
    /// With `--frozen`, the lock file does not do.
    #[error("the lock file does not hold what is wanted ({0}), and --frozen forbids to change it")]
    Frozen(String),
    /// Without a network, what is there does not do.
    #[error("{reason}, and what is on this machine does not do: {rule}")]
    Offline {
        /// Why there is no network.
        reason: String,
        /// What is missing.
        rule: String,
        /// Whether that was asked for.
        asked: bool,
    },
    /// Another process works on the state folder.
    #[error("another process is syncing {}; wait for it to end", .0.display())]
    Busy(PathBuf),
    /// A helper thread ended without an answer.
    #[error(transparent)]
    Blocking(#[from] blocking::Lost),
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        Error::Registry(Box::new(error))
    }
}

/// The folders of an agent, and its registry.
pub struct Syncer {
    state_dir: PathBuf,
    client: Client,
    store: Store,
    generations: Generations,
    /// The lock file of a bundle: its versions are taken before all others.
    offered: Option<Lock>,
}

impl Syncer {
    /// Opens an agent's folders. Nothing is fetched yet.
    ///
    /// # Errors
    /// A folder or the trust root cannot be used, or what was kept is damaged.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let folder = folder_name(&config.registry.origin);
        let client = client(config, config.state_dir.join("registry").join(folder))?;
        Ok(Syncer {
            state_dir: config.state_dir.clone(),
            client,
            store: Store::open(&config.state_dir)?,
            generations: Generations::open(&config.state_dir)?,
            offered: None,
        })
    }

    /// Verified reads.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The generations.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Resolves what the configuration wants, changing nothing but caches. `fresh` lets go
    /// of the lock file's versions.
    ///
    /// # Errors
    /// As [`Syncer::sync`].
    pub async fn resolve(&self, config: &Config, fresh: bool) -> Result<Resolved, Error> {
        let locked = self.read_lock()?;
        self.head(config, locked.as_ref()).await?;
        let locked = locked.filter(|_| !fresh);
        let versions = locked.map(|lock| lock.versions()).unwrap_or_default();
        let policy = self.policy(config)?;
        let (host, tried) = (facts(config), self.tries()?);
        resolve(&self.client, &config.plugins, versions, host, &policy, &tried).await
    }

    /// Brings this machine to what the configuration wants.
    ///
    /// # Errors
    /// Why there is no generation to run. The current one is untouched then.
    pub async fn sync(
        &self,
        config: &Config,
        options: Options,
        progress: &ProgressBar,
    ) -> Result<Outcome, Error> {
        let _held = self.hold()?;
        if options.offline {
            return self.offline(config, "--offline was given".to_owned(), true);
        }
        let outcome = self.online(config, options, progress).await;
        if outcome.is_ok() {
            self.generations.pin(None)?;
        }
        match outcome {
            // Whoever answers wrongly is refused; only silence lets the old state serve.
            Err(Error::Registry(error)) if error.kind() == registry::Kind::Unreachable => {
                self.offline(config, error.to_string(), false)
            }
            other => other,
        }
    }

    async fn online(
        &self,
        config: &Config,
        options: Options,
        progress: &ProgressBar,
    ) -> Result<Outcome, Error> {
        progress.set_message("asking the registry");
        let last = self.read_lock()?;
        let head = self.head(config, last.as_ref()).await?;
        let current = self.generations.current()?;
        let (choice, chosen_by) = (Choice::of(config), Choice::last(&self.state_dir)?);
        let known = last.as_ref().is_some_and(|lock| {
            lock.index == head.index
                && self.offered.is_none()
                && chosen_by == Some(choice)
                && wanted_in(lock, &config.plugins).is_ok()
        });
        let (policy, tried) = (self.policy(config)?, self.tries()?);
        // The same index gives the same answer, if nothing else is wanted.
        let mut warnings = Vec::new();
        let (lock, evidence) = match (&last, &current) {
            (Some(lock), Some(current))
                if known
                    && !options.update
                    && lock.plugins == current.lock.plugins
                    && roots_only(lock, &config.plugins) =>
            {
                (lock.clone(), current.evidence.clone())
            }
            _ => {
                progress.set_message("resolving");
                let kept = last.as_ref().filter(|_| !options.update);
                let kept = self.offered.as_ref().or(kept);
                let versions = kept.map(Lock::versions).unwrap_or_default();
                let host = facts(config);
                let resolved =
                    resolve(&self.client, &config.plugins, versions, host, &policy, &tried).await?;
                warnings = resolved.solution.warnings;
                (Lock::new(&head, resolved.locked), resolved.evidence)
            }
        };
        let same = |other: &Lock| other.plugins == lock.plugins;
        if options.frozen && !last.as_ref().is_some_and(same) {
            return Err(Error::Frozen(difference(last.as_ref(), &lock)));
        }
        let authority = self.client.authority()?;
        let (lock, evidence, proven) = blocking::run(move || {
            let proven = store::prove(&lock, &evidence, &authority.statement_keys, &policy)?;
            Ok::<_, store::Error>((lock, evidence, proven))
        })
        .await??;
        progress.set_message("fetching");
        let downloads = download::Downloads {
            fetcher: self.client.fetcher().share(),
            store: &self.store,
            folder: self.state_dir.join("downloads"),
            parallel: config.host.downloads,
            progress,
        };
        let fresh = downloads.fetch(&proven).await?;
        let fetched = fresh.len();
        let same = |other: &Lock| other.plugins == lock.plugins;
        let lock_path = self.state_dir.join(LOCK_NAME);
        let candidate = self.candidate(&tried)?.filter(|candidate| same(&candidate.lock));
        if last.as_ref() != Some(&lock) && !options.frozen && candidate.is_none() {
            files::write_durable(&lock_path, &lock.to_bytes())
                .map_err(|e| store::Error::io(&lock_path, e))?;
        }
        // While a lock is only tried, the lock file is of the choice before.
        if chosen_by != Some(choice) && candidate.is_none() {
            choice.keep(&self.state_dir)?;
        }
        let (generation, changed) = match current {
            Some(current) if same(&current.lock) => (current, false),
            // What is being tried already is no other generation.
            _ => match candidate {
                Some(candidate) => (candidate, false),
                None => (self.generations.add(lock, evidence)?, true),
            },
        };
        if changed {
            let used = self.generations.prune(generation.number, modunest_runtime::clock::now())?;
            self.store.retain(&used)?;
        }
        let head = HeadSummary::of(&head);
        let offline = None;
        Ok(Outcome { generation, proven, changed, fetched, fresh, head, offline, warnings })
    }

    /// Asks for the newest head and stays with the current generation, whatever else there is:
    /// what a check of an agent does that went back to it.
    ///
    /// # Errors
    /// As [`Syncer::sync`].
    pub async fn stay(&self, config: &Config) -> Result<Outcome, Error> {
        let _held = self.hold()?;
        let reason = match self.client.refresh().await {
            Ok(_) => None,
            Err(error) if error.kind() == registry::Kind::Unreachable => Some(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let asked = "a generation is stayed with".to_owned();
        let outcome = self.offline(config, reason.clone().unwrap_or(asked), reason.is_none())?;
        Ok(Outcome { offline: reason, ..outcome })
    }

    /// Which plugins of a lock may not run any more, by what the registry says under the
    /// newest head that is known, and why.
    ///
    /// # Errors
    /// A read of the registry failed.
    pub async fn condemned(
        &self,
        config: &Config,
        lock: &Lock,
    ) -> Result<BTreeMap<PluginName, String>, Error> {
        let names = lock.plugins.iter().map(|locked| locked.plugin.clone()).collect();
        let read = self.client.read(&names).await?;
        let policy = self.policy(config)?;
        let mut condemned = BTreeMap::new();
        for locked in &lock.plugins {
            let state = read.plugins.get(&locked.plugin).and_then(Option::as_ref);
            let release =
                state.and_then(|state| Some((state, state.releases.get(&locked.version)?)));
            let reason = match release {
                None => Some("the registry has no such release any more".to_owned()),
                Some((state, release)) => {
                    match (state.status(release), policy.judge(state, release)) {
                        (Status::Quarantined { reason }, _) => {
                            Some(format!("its release was quarantined: {reason}"))
                        }
                        (_, Judgement::Refused(reason)) => Some(format!("its release {reason}")),
                        _ => None,
                    }
                }
            };
            condemned.extend(reason.map(|reason| (locked.plugin.clone(), reason)));
        }
        Ok(condemned)
    }

    /// The newest head. Where plugins are wanted that were never read, the registry is asked
    /// for all that their resolution needs at once; see the rule in `registry::closure`.
    async fn head(&self, config: &Config, locked: Option<&Lock>) -> Result<Head, Error> {
        let cold = self.client.kept_head().is_none();
        // What is locked was read once, and is not looked up again at every sync.
        let is_locked = |plugin: &PluginName| {
            locked.is_some_and(|lock| lock.plugins.iter().any(|one| one.plugin == *plugin))
        };
        let asked = config.plugins.keys().filter(|plugin| cold || !is_locked(plugin));
        let unread = self.client.unread(asked);
        let roots = config.plugins.iter().filter(|(plugin, _)| unread.contains(*plugin)).map(
            |(plugin, wanted)| Root {
                plugin: plugin.clone(),
                requirement: wanted.requirement.clone(),
            },
        );
        match self.client.prefetch(roots, &facts(config)).await {
            Some(head) => Ok(head),
            None => Ok(self.client.refresh().await?),
        }
    }

    fn offline(&self, config: &Config, reason: String, asked: bool) -> Result<Outcome, Error> {
        let missing = |rule: String| Error::Offline { reason: reason.clone(), rule, asked };
        let generation = self.generations.current()?;
        let generation = generation.ok_or_else(|| missing("nothing was ever synced".to_owned()))?;
        wanted_in(&generation.lock, &config.plugins).map_err(&missing)?;
        let proven = self.prove(config, &generation)?;
        for plugin in &proven {
            if !self.store.has(plugin.build.files)? {
                return Err(missing(format!("{} is not in the store", plugin.release.plugin)));
            }
        }
        let head = self.client.kept_head().ok_or(registry::Error::NoHead)?;
        let head = HeadSummary::of(&head);
        let offline = Some(reason);
        let warnings = Vec::new();
        let (changed, fetched, fresh) = (false, 0, Fresh::default());
        Ok(Outcome { generation, proven, changed, fetched, fresh, head, offline, warnings })
    }

    /// What the operator and the registry ask of releases.
    fn policy(&self, config: &Config) -> Result<Policy, Error> {
        Ok(config.policy.with(&self.client.authority()?.policy))
    }

    /// Proves a generation, by what was said of its plugins since, too: a release that was
    /// quarantined after it was locked is not run without a network either.
    ///
    /// # Errors
    /// Which proof failed.
    pub fn prove(&self, config: &Config, generation: &Generation) -> Result<Vec<Proven>, Error> {
        let mut evidence = generation.evidence.clone();
        self.client.renew(&mut evidence.0)?;
        let authority = self.client.authority()?;
        let keys = &authority.statement_keys;
        Ok(store::prove(&generation.lock, &evidence, keys, &self.policy(config)?)?)
    }

    /// Proves everything of a generation again: signatures, lists, and every file in the
    /// store. Answers how many plugins that are.
    ///
    /// # Errors
    /// The first proof that failed.
    pub fn verify(&self, config: &Config, generation: &Generation) -> Result<usize, Error> {
        let proven = self.prove(config, generation)?;
        for plugin in &proven {
            self.store.installed(&plugin.release, &plugin.build)?.verify()?;
        }
        Ok(proven.len())
    }

    fn read_lock(&self) -> Result<Option<Lock>, Error> {
        let path = self.state_dir.join(LOCK_NAME);
        let bytes =
            files::read_limited(&path, LOCK_MAX_BYTES).map_err(|e| store::Error::io(&path, e))?;
        let lock = bytes.map(|bytes| Lock::parse(&bytes)).transpose();
        lock.map_err(|rule| Error::Lock { path, rule })
    }

    /// Keeps other processes away from the state folder while the value lives.
    fn hold(&self) -> Result<Held, Error> {
        let path = self.state_dir.join("busy");
        let file = File::create(&path).map_err(|e| store::Error::io(&path, e))?;
        match file.try_lock() {
            Ok(()) => {
                self.store.sweep()?;
                Ok(Held(file))
            }
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::Busy(self.state_dir.clone())),
            Err(std::fs::TryLockError::Error(error)) => Err(store::Error::io(&path, error).into()),
        }
    }
}

/// A state folder that is this process's. Given free by a call: closing the file would leave it
/// held as long as a program that is just being started has inherited it.
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the state folder stays held until this process ends");
        }
    }
}

/// Reads of the configured registry, kept in `cache_dir`.
fn client(config: &Config, cache_dir: PathBuf) -> Result<Client, Error> {
    let registry = &config.registry;
    let settings = registry::Settings {
        url: registry.url.clone(),
        origin: registry.origin.clone(),
        keys: registry.keys.clone(),
        cache_dir,
    };
    Ok(match pinned_root(config)? {
        Some(root) => Client::open_rooted(settings, root)?,
        None => Client::open(settings)?,
    })
}

/// The root file that a configuration names; `None` where it has keys in its place.
///
/// # Errors
/// It cannot be read, or is no trust root.
pub fn pinned_root(config: &Config) -> Result<Option<trust::Root>, Error> {
    let root = config.registry.root.as_deref().map(trust::Root::load).transpose();
    Ok(root.map_err(|e| registry::Error::Trust(Box::new(e)))?)
}

/// How long ago a head was signed, for people.
pub fn age_text(age_s: u64) -> String {
    let age = Duration::from_secs(age_s);
    match age.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// Whether a lock holds a fitting version of everything that is wanted.
fn wanted_in(lock: &Lock, wanted: &BTreeMap<PluginName, Wanted>) -> Result<(), String> {
    for (plugin, Wanted { requirement, .. }) in wanted {
        match lock.plugins.iter().find(|locked| locked.plugin == *plugin) {
            Some(locked) if requirement.matches(&locked.version) => {}
            Some(locked) => {
                return Err(format!("{plugin} is {}, wanted is {requirement}", locked.version));
            }
            None => return Err(format!("{plugin} is missing")),
        }
    }
    Ok(())
}

/// Whether nothing is locked that nothing wanted needs any more.
fn roots_only(lock: &Lock, wanted: &BTreeMap<PluginName, Wanted>) -> bool {
    let by_name: BTreeMap<&PluginName, &Locked> =
        lock.plugins.iter().map(|locked| (&locked.plugin, locked)).collect();
    let mut reached = std::collections::BTreeSet::new();
    let mut queue: Vec<&PluginName> = wanted.keys().collect();
    while let Some(plugin) = queue.pop() {
        if reached.insert(plugin) {
            queue.extend(by_name.get(plugin).into_iter().flat_map(|locked| &locked.uses));
        }
    }
    lock.plugins.iter().all(|locked| reached.contains(&locked.plugin))
}

fn difference(last: Option<&Lock>, next: &Lock) -> String {
    let Some(last) = last else { return "there is none".to_owned() };
    let (last, next) = (last.versions(), next.versions());
    let changed = next.iter().find(|(plugin, version)| last.get(*plugin) != Some(version));
    match (changed, last.keys().find(|plugin| !next.contains_key(*plugin))) {
        (Some((plugin, version)), _) => match last.get(plugin) {
            Some(old) => format!("{plugin} would change from {old} to {version}"),
            None => format!("{plugin} {version} would come in"),
        },
        (None, Some(plugin)) => format!("{plugin} would go"),
        (None, None) => "a release has other contents".to_owned(),
    }
}

/// A folder's name for an origin: origins may have characters that paths cannot.
fn folder_name(origin: &str) -> String {
    modunest_core::digest::Digest::of(origin.as_bytes()).to_hex()
}

/// Makes an earlier generation, which the caller has verified, the current one, and its lock
/// the lock file. Checks of an agent stay with it until the next explicit sync.
///
/// # Errors
/// The disk said no.
pub fn go_back(
    state_dir: &Path,
    generations: &Generations,
    chosen: &Generation,
) -> Result<(), store::Error> {
    let path = state_dir.join(LOCK_NAME);
    // First, so that no check undoes the rest.
    generations.pin(Some(chosen.number))?;
    files::write_durable(&path, &chosen.lock.to_bytes()).map_err(|e| store::Error::io(&path, e))?;
    generations.switch(chosen.number)
}
