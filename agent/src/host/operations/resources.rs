//! What the plugins of an agent share, each seeing its own part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use modunest_core::name::PluginName;
use modunest_sdk::Error;

use super::meter::{Meter, lock};
use super::outbound::Outbound;
use super::store::Database;
use crate::config::grants::OutboundSettings;
use crate::embed::Hooks;
use crate::secrets::{HostKey, SecretError};

/// Private folders, key-value stores, the client for requests out, and the key for secrets.
/// Each is opened when it is first used. They outlive generations of plugins.
pub struct Resources {
    state_dir: PathBuf,
    outbound: ArcSwap<Outbound>,
    hooks: Hooks,
    database: Mutex<Option<Arc<Database>>>,
    meters: Mutex<BTreeMap<PluginName, Arc<Meter>>>,
}

impl Resources {
    /// Resources below a state folder. Nothing is opened or made yet.
    pub fn new(state_dir: impl Into<PathBuf>, outbound: OutboundSettings) -> Arc<Self> {
        Resources::with_hooks(state_dir, outbound, Hooks::default())
    }

    /// The same, where plugins see the environment that `hooks` have.
    pub fn with_hooks(
        state_dir: impl Into<PathBuf>,
        outbound: OutboundSettings,
        hooks: Hooks,
    ) -> Arc<Self> {
        Arc::new(Resources {
            state_dir: state_dir.into(),
            outbound: ArcSwap::from_pointee(Outbound::new(outbound)),
            hooks,
            database: Mutex::default(),
            meters: Mutex::default(),
        })
    }

    /// The folder that holds all private folders.
    pub(super) fn private_root(&self) -> PathBuf {
        self.state_dir.join("private")
    }

    pub(super) fn meter(&self, plugin: &PluginName) -> Arc<Meter> {
        lock(&self.meters).entry(plugin.clone()).or_default().clone()
    }

    /// The stores of all plugins. An open that failed is tried again by the next.
    pub(super) fn database(&self) -> Result<Arc<Database>, Error> {
        let mut database = lock(&self.database);
        if let Some(database) = database.as_ref() {
            return Ok(database.clone());
        }
        let opened = Database::open(&self.state_dir.join("stores.redb"))?;
        *database = Some(opened.clone());
        Ok(opened)
    }

    /// How requests out are made now.
    pub(super) fn outbound(&self) -> Arc<Outbound> {
        self.outbound.load_full()
    }

    /// Makes requests out by these settings from now on, whichever instance asks for them. Those
    /// that were sent go on by the old ones.
    pub(crate) fn send_by(&self, settings: &OutboundSettings) {
        if *self.outbound.load().settings() != *settings {
            self.outbound.store(Arc::new(Outbound::new(settings.clone())));
        }
    }

    pub(super) fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    pub(super) fn host_key(&self) -> Result<HostKey, SecretError> {
        HostKey::open(&self.state_dir)
    }

    /// The state folder.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }
}
