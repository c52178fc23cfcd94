//! From a plan to running components.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use modunest_core::digest::Digest;
use modunest_core::name::PluginName;
use modunest_core::relation::BuildTarget;
use modunest_core::scan::COMPONENT_NAME;
use modunest_core::statement::TrustLevel;

use super::side::OwnProcess;
use super::{Assets, Cache, Compiled, ComponentInstance, Settings, Source};
use crate::config::HostSettings;
use crate::host::{Cell, Instance, LoadError};
use crate::store::{Installed, Proven};

/// A component in the store.
pub(in crate::host) struct Unpacked {
    source: Source,
    assets: Arc<Assets>,
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
        Some(Unpacked { source: Source { path, record }, assets })
    }
}

/// Why a component may not run, before anything is tried.
pub(in crate::host) fn refuse(
    plugin: &PluginName,
    trust: TrustLevel,
    settings: &HostSettings,
) -> Option<String> {
    let from = settings.component.own_process;
    if settings.allows_in_process(plugin) || from.is_some_and(|from| trust >= from) {
        return None;
    }
    let least = from.map_or("none".to_owned(), |from| format!("those of {from} and above"));
    Some(format!(
        "it is a component of the trust level {trust}, and of components this host runs {least}; name a lower level in own_process under [host.component], or add \"{plugin}\" to in_process under [host]"
    ))
}

/// A component whose turn to be loaded has come.
pub(in crate::host) struct Ready {
    compiled: Result<Compiled, LoadError>,
    settings: Settings,
    assets: Arc<Assets>,
}

/// Compiles what is to be loaded and not compiled yet, and forgets what no plugin of the plan
/// is made of any more.
pub(in crate::host) fn prepare<W>(
    components: BTreeMap<PluginName, Unpacked>,
    waits: &BTreeMap<PluginName, W>,
    settings: &HostSettings,
) -> BTreeMap<PluginName, Ready> {
    let cache = Cache::new(settings.component.cache.clone());
    let used: BTreeSet<Digest> =
        components.values().map(|unpacked| unpacked.source.record.sha256).collect();
    if let Err(error) = cache.retain(|digest| used.contains(&digest)) {
        // They take room on the disk, and nothing else.
        tracing::warn!(%error, "compiled components that nobody needs cannot be removed");
    }
    let wanted: BTreeMap<PluginName, Unpacked> =
        components.into_iter().filter(|(name, _)| waits.contains_key(name)).collect();
    let sources = wanted.iter().map(|(name, of)| (name.clone(), of.source.clone())).collect();
    let mut compiled = Compiled::load_all(sources, &cache);
    let ready = wanted.into_iter().filter_map(|(name, unpacked)| {
        let ready = Ready {
            compiled: compiled.remove(&name)?,
            settings: Settings {
                memory_max_bytes: settings.component.memory_max_bytes,
                stores: settings.component.stores_of(&name),
                load_timeout: settings.load_timeout,
                call_timeout: settings.call_timeout,
            },
            assets: unpacked.assets,
        };
        Some((name, ready))
    });
    ready.collect()
}

impl Ready {
    /// Makes the instance, in the agent's own process.
    ///
    /// # Errors
    /// Why it does not start.
    pub(in crate::host) fn start(self, cell: &Arc<Cell>) -> Result<Box<dyn Instance>, LoadError> {
        let side = Arc::new(OwnProcess::of(cell));
        let config = cell.config()?;
        let instance =
            ComponentInstance::start(self.compiled?, self.settings, &config, side, self.assets)
                .map_err(|error| error.scrubbed(&config))?;
        Ok(Box::new(instance))
    }
}
