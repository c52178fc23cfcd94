//! What becomes of running plugins whose release may not run any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use modunest_core::name::PluginName;

use super::{Cell, Host, State};
use crate::config::OnQuarantine;

impl Host {
    /// Does by `policy` what is to be done about `condemned` plugins, each with the reason, and
    /// lets go on again what was denied before and is not among them. Answers whether plugins
    /// have to be loaded anew for that. Blocks while plugins are stopped.
    pub fn heed(
        &self,
        condemned: &BTreeMap<PluginName, String>,
        policy: OnQuarantine,
        timeout: Duration,
    ) -> bool {
        for (name, reason) in condemned {
            let Some(cell) = self.cell(name) else { continue };
            if cell.status().reason.as_ref() == Some(reason) {
                continue;
            }
            tracing::error!(plugin = %name, version = %cell.version(), reason, "a running plugin may not run any more");
            match policy {
                OnQuarantine::Warn => cell.warn(reason.clone()),
                // Nobody gets in from here on; unloading follows.
                OnQuarantine::Deny | OnQuarantine::Unload => cell.deny(reason.clone()),
            }
        }
        if policy == OnQuarantine::Unload {
            self.unload(condemned, timeout);
        }
        self.cells.values().any(|cell| {
            let status = cell.status();
            let is_freed = !condemned.contains_key(cell.name());
            is_freed && matches!(status.state, State::Denied)
        })
    }

    /// Stops condemned plugins and those that cannot be without them, users first.
    fn unload(&self, condemned: &BTreeMap<PluginName, String>, timeout: Duration) {
        let mut lost: BTreeMap<&PluginName, String> = BTreeMap::new();
        for name in &self.order {
            let Some(cell) = self.cell(name) else { continue };
            if let Some(reason) = condemned.get(name) {
                lost.insert(name, format!("is denied: {reason}"));
            } else if let Some(needed) = needed(cell).find(|needed| lost.contains_key(needed)) {
                let version = self.cell(needed).map(|cell| cell.version().to_string());
                let trouble = lost.get(needed).cloned().unwrap_or_default();
                let reason =
                    format!("needs {needed} {}, which {trouble}", version.unwrap_or_default());
                lost.insert(name, reason);
            }
        }
        let until = Instant::now() + timeout;
        for name in self.order.iter().rev() {
            let (Some(cell), Some(reason)) = (self.cell(name), lost.get(name)) else { continue };
            let is_condemned = condemned.contains_key(name);
            if cell.status().state == State::Blocked || cell.is_unloaded() {
                continue;
            }
            cell.clone().stop(until);
            if is_condemned {
                cell.deny(condemned.get(name).cloned().unwrap_or_default());
            } else {
                tracing::warn!(plugin = %name, reason, "unloaded");
                cell.set(State::Blocked, Some(reason.clone()));
            }
        }
    }
}

/// What a plugin cannot be without.
fn needed(cell: &Arc<Cell>) -> impl Iterator<Item = &PluginName> {
    let needed = cell.manifest().dependencies.iter().filter(|dependency| !dependency.optional);
    let names: BTreeSet<&PluginName> = needed.map(|dependency| &dependency.plugin).collect();
    names.into_iter()
}
