//! What the operator says about links between plugins: who may call a service, which guards
//! stand before routes, and how long events are tried.
//!
//! ```toml
//! [[service]]                     # narrows: without an entry, every importer may call
//! name = "demo/store:keep"
//! callers = ["demo/*"]            # absent: any
//! methods = ["get"]               # absent: all
//!
//! [[guard]]                       # asked before the guards of the route itself
//! use = "demo/door:staff"
//! plugins = ["demo/gallery"]      # absent: the routes of every plugin
//! paths = ["/gallery/admin"]      # absent: every path
//!
//! [links]
//! guard_timeout_ms = 2000         # a guard that takes longer denies
//! event_timeout_ms = 10000        # a receiver that takes longer is tried again
//! event_attempts = 5              # then the event is given up, and counted
//! ```

use std::time::Duration;

use modunest_core::manifest::PluginItem;
use modunest_core::name::{PluginName, ServiceName};
use serde::Deserialize;
use toml::Spanned;

use super::Pattern;
use super::read::Check;

/// Longest patience with a guard: whoever asked waits meanwhile.
const GUARD_TIMEOUT_MAX_MS: u64 = 60_000;
/// Longest patience with the receiver of an event: others wait behind it.
const EVENT_TIMEOUT_MAX_MS: u64 = 600_000;
/// Most attempts: pauses between them double, and 20 of them last a day.
const ATTEMPTS_MAX: u64 = 20;

/// Links between plugins, as the operator wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// Who may call which service; a service without an entry is for all that import it.
    pub services: Vec<ServiceRule>,
    /// Guards before routes, in the order in which they are asked.
    pub guards: Vec<GuardRule>,
    /// How long one guard may take.
    pub guard_timeout: Duration,
    /// How long one delivery of an event may take.
    pub event_timeout: Duration,
    /// How often an event is tried with one receiver.
    pub event_attempts: u32,
}

/// Who may call a service. Where there are several for one, each adds to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRule {
    /// The service.
    pub service: PluginItem,
    /// Plugins that may call it; empty for all.
    pub callers: Vec<Pattern>,
    /// Methods that they may call; empty for all.
    pub methods: Vec<ServiceName>,
}

/// A guard before routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardRule {
    /// The exported guard.
    pub guard: PluginItem,
    /// Plugins whose routes are guarded; empty for all.
    pub plugins: Vec<Pattern>,
    /// Paths that are guarded, with what is below them; empty for all.
    pub paths: Vec<String>,
}

impl ServiceRule {
    /// Whether this entry lets a plugin call a method; no method is the service itself.
    pub fn allows(&self, caller: &PluginName, method: &str) -> bool {
        (self.callers.is_empty() || self.callers.iter().any(|one| one.matches(caller)))
            && (self.methods.is_empty() || self.methods.iter().any(|one| one.as_str() == method))
    }
}

impl Default for LinkSettings {
    fn default() -> Self {
        LinkSettings {
            services: Vec::new(),
            guards: Vec::new(),
            guard_timeout: Duration::from_secs(2),
            event_timeout: Duration::from_secs(10),
            event_attempts: 5,
        }
    }
}

/// `[links]`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct LinksTable {
    guard_timeout_ms: Option<Spanned<u64>>,
    event_timeout_ms: Option<Spanned<u64>>,
    event_attempts: Option<Spanned<u64>>,
}

/// `[[service]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceTable {
    name: Spanned<String>,
    #[serde(default)]
    callers: Vec<Spanned<String>>,
    #[serde(default)]
    methods: Vec<Spanned<String>>,
}

/// `[[guard]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GuardTable {
    #[serde(rename = "use")]
    guard: Spanned<String>,
    #[serde(default)]
    plugins: Vec<Spanned<String>>,
    #[serde(default)]
    paths: Vec<Spanned<String>>,
}

impl Check<'_> {
    /// The settings of links.
    pub(super) fn links(
        &mut self,
        table: LinksTable,
        services: Vec<ServiceTable>,
        guards: Vec<GuardTable>,
    ) -> LinkSettings {
        let default = LinkSettings::default();
        let guard_ms = self.number(
            "links.guard_timeout_ms",
            table.guard_timeout_ms,
            (1, GUARD_TIMEOUT_MAX_MS),
            default.guard_timeout.as_millis() as u64,
        );
        let event_ms = self.number(
            "links.event_timeout_ms",
            table.event_timeout_ms,
            (1, EVENT_TIMEOUT_MAX_MS),
            default.event_timeout.as_millis() as u64,
        );
        let attempts = self.number(
            "links.event_attempts",
            table.event_attempts,
            (1, ATTEMPTS_MAX),
            u64::from(default.event_attempts),
        );
        let services = services.into_iter().filter_map(|table| self.service(table)).collect();
        let guards = guards.into_iter().filter_map(|table| self.guard(table)).collect();
        LinkSettings {
            services,
            guards,
            guard_timeout: Duration::from_millis(guard_ms),
            event_timeout: Duration::from_millis(event_ms),
            event_attempts: attempts as u32,
        }
    }

    fn service(&mut self, table: ServiceTable) -> Option<ServiceRule> {
        let callers = self.patterns("service.callers", table.callers);
        let mut methods = Vec::new();
        for text in table.methods {
            let help = "write the method's name as the plugin's manifest has it";
            methods.extend(self.parsed("service.methods", &text, help));
        }
        let help = "write organisation/plugin:service, for example \"demo/store:keep\"";
        let service = self.parsed("service.name", &table.name, help)?;
        Some(ServiceRule { service, callers, methods })
    }

    fn guard(&mut self, table: GuardTable) -> Option<GuardRule> {
        let plugins = self.patterns("guard.plugins", table.plugins);
        let mut paths = Vec::new();
        for path in table.paths {
            let plain = |b: u8| b.is_ascii_graphic() && !b"%?#\\".contains(&b);
            if path.get_ref().starts_with('/') && path.get_ref().bytes().all(plain) {
                paths.push(path.into_inner());
                continue;
            }
            let rule = format!("\"{}\" is not a path", path.get_ref());
            let help = "write it decoded and with its first slash, for example \"/admin\"";
            self.refuse(path.span().start, "guard.paths", rule, help);
        }
        let help = "write organisation/plugin:guard, for example \"demo/door:staff\"";
        let guard = self.parsed("guard.use", &table.guard, help)?;
        Some(GuardRule { guard, plugins, paths })
    }

    fn parsed<T>(&mut self, key: &str, text: &Spanned<String>, help: &str) -> Option<T>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        match text.get_ref().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(text.span().start, key, error.to_string(), help);
                None
            }
        }
    }
}
