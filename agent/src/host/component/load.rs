//! From a plan to running components.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use modunest_core::digest::Digest;
use modunest_core::name::PluginName;
use modunest_core::relation::BuildTarget;
use modunest_core::scan::COMPONENT_NAME;
use modunest_core::statement::TrustLevel;

use super::engine::Runtime;
use super::{Assets, Cache, Compiled, ComponentInstance, Settings, Source, engine};
use crate::config::{ComponentSettings, HostSettings};
use crate::host::process::Runners;
use crate::host::side::OwnProcess;
use crate::host::{Cell, Instance, LoadError, Tier};
use crate::store::{Installed, Proven};

/// A component in the store.
pub(in crate::host) struct Unpacked {
    source: Source,
    assets: Arc<Assets>,
    trust: TrustLevel,
}

impl Unpacked {
    /// What is to be compiled of a release; `None` where it is no component.
    pub(in crate::host) fn of(proven: &Proven, installed: &Installed) -> Option<Self> {
        if !matches!(proven.build.target, BuildTarget::Wasm { .. }) {
            return None;
        }
        let record = installed.file(COMPONENT_NAME)?.clone();
        let path = installed.folder.join(COMPONENT_NAME);
        let (folder, files) = (installed.folder.clone(), installed.files.clone());
        let assets = Arc::new(Assets { folder, files });
        Some(Unpacked { source: Source { path, record }, assets, trust: proven.trust })
    }

    /// What its file hashes to.
    pub(in crate::host) fn digest(&self) -> Digest {
        self.source.record.sha256
    }
}

/// Machine code, where it is to run.
enum Code {
    /// Mapped, in the agent's own process.
    Mapped(Compiled),
    /// Sealed, for a runner.
    Sealed(OwnedFd),
}

/// Machine code before its plugin is loaded.
enum Prepared {
    /// Kept from before: to prove and map it, or to seal it, is part of the load.
    Kept(Making),
    /// Compiled just now.
    Made(Code),
}

/// What machine code is made of, and where it is to run.
struct Making {
    source: Source,
    tier: Tier,
    stores: usize,
    cache: Arc<Cache>,
    pooled: Option<&'static Runtime>,
}

impl Making {
    /// Compiles, unless that was done before.
    fn prepare(self) -> Result<Prepared, LoadError> {
        let runtime = match self.pooled {
            Some(runtime) => runtime,
            None => engine::runtime()?,
        };
        if self.cache.has(runtime, self.source.record.sha256) {
            return Ok(Prepared::Kept(self));
        }
        self.make().map(Prepared::Made)
    }

    fn make(self) -> Result<Code, LoadError> {
        let Making { source, tier, stores, cache, pooled } = self;
        if tier == Tier::ComponentProcess {
            return cache.sealed(engine::runtime()?, &source).map(Code::Sealed);
        }
        Compiled::load(&source, &cache, stores, pooled).map(Code::Mapped)
    }
}

/// A component whose turn to be loaded has come.
pub(in crate::host) struct Ready {
    code: Result<Prepared, LoadError>,
    settings: Settings,
    assets: Arc<Assets>,
}

/// Compiles what is wanted and not compiled yet, and forgets what is not among the `used` files.
/// Answers in the order of what is wanted.
pub(in crate::host) fn prepare(
    wanted: Vec<(PluginName, Tier, Unpacked)>,
    used: &BTreeSet<Digest>,
    settings: &HostSettings,
) -> impl Iterator<Item = Ready> {
    let cache = Arc::new(Cache::new(settings.component.cache.clone()));
    if let Err(error) = cache.retain(|digest| used.contains(&digest)) {
        // They take room on the disk, and nothing else.
        tracing::warn!(%error, "compiled components that nobody needs cannot be removed");
    }
    let codes = make_all(&wanted, &cache, &settings.component);
    wanted.into_iter().zip(codes).map(|((name, _, unpacked), code)| {
        let settings = Settings::of(&name, settings.load_timeout, settings);
        Ready { code, settings, assets: unpacked.assets }
    })
}

/// Compiles on all processors, before the clock of any load runs: what is new may take seconds.
/// Answers in the order of what is wanted.
fn make_all(
    wanted: &[(PluginName, Tier, Unpacked)],
    cache: &Arc<Cache>,
    settings: &ComponentSettings,
) -> Vec<Result<Prepared, LoadError>> {
    let mut stores: BTreeMap<TrustLevel, usize> = BTreeMap::new();
    for (name, _, unpacked) in wanted.iter().filter(|(_, tier, _)| *tier == Tier::Component) {
        *stores.entry(unpacked.trust).or_default() += settings.stores_of(name);
    }
    let pools = stores.into_iter().map(|(level, stores)| (level, engine::pooled(level, stores)));
    let pools: BTreeMap<TrustLevel, Option<&'static Runtime>> = pools.collect();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, tier, unpacked)) = wanted.get(at) else { return done };
            let (source, tier) = (unpacked.source.clone(), *tier);
            let (stores, cache) = (settings.stores_of(name), cache.clone());
            let is_here = tier == Tier::Component;
            let pooled = pools.get(&unpacked.trust).copied().flatten().filter(|_| is_here);
            done.push((at, Making { source, tier, stores, cache, pooled }.prepare()));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let helpers: Vec<_> =
            (1..processors.min(wanted.len())).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for helper in helpers {
            match helper.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, code)| code).collect()
}

impl Ready {
    /// Makes the instance, where its code is to run.
    ///
    /// # Errors
    /// Why it does not start.
    pub(in crate::host) fn start(
        self,
        cell: &Arc<Cell>,
        runners: &Runners,
    ) -> Result<Box<dyn Instance>, LoadError> {
        let config = cell.config()?;
        let settings = Settings { load_timeout: cell.load_timeout(), ..self.settings };
        let code = match self.code? {
            Prepared::Kept(making) => making.make()?,
            Prepared::Made(code) => code,
        };
        let started = match code {
            Code::Mapped(compiled) => {
                let side = Arc::new(OwnProcess::of(cell));
                ComponentInstance::start(compiled, settings, &config, side, self.assets)
                    .map(|made| Box::new(made) as Box<dyn Instance>)
            }
            Code::Sealed(code) => runners
                .load_component(cell, code, &self.assets, settings, &config)
                .map(|made| Box::new(made) as Box<dyn Instance>),
        };
        started.map_err(|error| error.scrubbed(&config))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use modunest_core::archive::FileList;
    use wasmtime::Engine;

    use super::super::tests::probe;
    use super::*;

    #[test]
    fn components_of_two_trust_levels_share_no_pool_and_the_code_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let compiled = folder.path().join("compiled");
        let cache = Arc::new(Cache::new(Some(compiled.clone())));
        let source = probe(folder.path());
        let levels = [TrustLevel::Verified, TrustLevel::Internal, TrustLevel::Verified];
        let wanted: Vec<_> = levels
            .into_iter()
            .enumerate()
            .map(|(number, trust)| {
                let name = format!("demo/plugin-{number}").parse().unwrap();
                let files = FileList::default();
                let assets = Arc::new(Assets { folder: folder.path().to_owned(), files });
                (name, Tier::Component, Unpacked { source: source.clone(), assets, trust })
            })
            .collect();
        let codes = make_all(&wanted, &cache, &ComponentSettings::default());
        let runtimes: Vec<&Runtime> = codes
            .into_iter()
            .map(|code| match code.unwrap() {
                Prepared::Made(code) => code,
                // Another of them had compiled it before.
                Prepared::Kept(making) => making.make().unwrap(),
            })
            .map(|code| match code {
                Code::Mapped(compiled) => compiled.runtime,
                Code::Sealed(_) => panic!("it is to run here"),
            })
            .collect();
        let is_same = |one: usize, other: usize| {
            let pools = [one, other].map(|at| runtimes[at].pool().expect("there is room for one"));
            let is_same = Engine::same(runtimes[one].engine(), runtimes[other].engine());
            assert_eq!(is_same, std::ptr::eq(pools[0], pools[1]));
            is_same
        };
        assert!(!is_same(0, 1) && is_same(0, 2));
        // One key, one piece of code, and its proof.
        assert_eq!(std::fs::read_dir(compiled).unwrap().count(), 3);
    }
}
