//! What a running agent says about itself.

use std::collections::BTreeMap;

use modunest_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::{Counters, Host, LinkStatus, State};

/// The whole answer of `/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Version of the agent.
    pub version: String,
    /// Where plugin routes are served.
    pub gateway: String,
    /// Number of the generation that runs; absent before the first.
    pub generation: Option<u64>,
    /// The newest believed head; absent before the first.
    pub head: Option<HeadStatus>,
    /// When and how the last sync ended; absent before the first.
    pub last_sync: Option<LastSync>,
    /// Whether every critical plugin is ready, and why not.
    pub ready: Result<(), String>,
    /// Every plugin, by name.
    pub plugins: Vec<PluginStatus>,
}

/// The newest believed head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadStatus {
    /// The registry's origin.
    pub origin: String,
    /// Its epoch.
    pub epoch: u64,
    /// When it was signed, RFC 3339.
    pub issued_at: String,
    /// How long ago that is, in seconds.
    pub age_s: u64,
}

/// How the last sync ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSync {
    /// When, RFC 3339.
    pub at: String,
    /// Why it failed; absent when it did not.
    pub error: Option<String>,
    /// Why it went without the registry; absent when it did not.
    pub offline: Option<String>,
}

/// One plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// `org/name`.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// One of [`State`]'s words.
    pub state: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why, where it failed or is blocked.
    pub reason: Option<String>,
    /// Whether the host is not ready without it.
    pub critical: bool,
    /// Calls that reached it.
    pub calls: u64,
    /// Of these, those that failed or panicked.
    pub errors: u64,
    /// Of these, those that panicked.
    pub panics: u64,
    /// Where its circuit breaker stands: `closed`, `open` or `half-open`.
    pub breaker: String,
    /// Until when it refuses every call, RFC 3339; absent where it does not.
    pub breaker_open_until: Option<String>,
    /// Services whose own breaker is not closed, with where it stands.
    pub service_breakers: BTreeMap<String, String>,
    /// Calls that breakers kept from it.
    pub refused: u64,
    /// What it calls, what guards denied, and its events.
    #[serde(default)]
    pub links: LinkStatus,
    /// Services it exports, as `name version`.
    pub services: Vec<String>,
    /// Routes it answers, as `GET /path`.
    pub routes: Vec<String>,
}

/// The status of every plugin of a host, by name.
pub fn plugins(host: &Host) -> Vec<PluginStatus> {
    host.cells()
        .map(|cell| {
            let (status, manifest) = (cell.status(), cell.manifest());
            let Counters { calls, errors, panics, refused } = cell.counters();
            let (breaker, services) = cell.breakers().states();
            let open_until_ms = Some(breaker.open_until_ms()).filter(|ms| *ms > 0);
            PluginStatus {
                plugin: cell.name().to_string(),
                version: cell.version().to_string(),
                state: status.state.as_str().to_owned(),
                since: status.since.to_string(),
                reason: status.reason,
                critical: manifest.critical,
                calls,
                errors,
                panics,
                breaker: breaker.state().as_str().to_owned(),
                breaker_open_until: open_until_ms.map(|ms| Timestamp::from_millis(ms).to_string()),
                service_breakers: services
                    .into_iter()
                    .map(|(name, state)| (name, state.as_str().to_owned()))
                    .collect(),
                refused,
                links: cell.link_status(),
                services: manifest
                    .services
                    .iter()
                    .map(|service| format!("{} {}", service.export.name, service.export.version))
                    .collect(),
                routes: manifest
                    .routes
                    .iter()
                    .map(|route| format!("{} {}", route.methods.join(","), route.path))
                    .collect(),
            }
        })
        .collect()
}

/// Whether any plugin could not be loaded.
pub fn any_failed(host: &Host) -> bool {
    host.cells().any(|cell| matches!(cell.status().state, State::Failed | State::Blocked))
}
