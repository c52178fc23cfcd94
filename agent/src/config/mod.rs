//! The agent's configuration: one TOML file, read once and validated whole.
//!
//! ```toml
//! state_dir = "/var/lib/modunest"
//!
//! [gateway]
//! listen = "127.0.0.1:8080"
//! [admin]
//! listen = "unix:/run/modunest/admin.sock"   # or "127.0.0.1:8081"; else below state_dir
//!
//! [[registry]]
//! name = "local"
//! url = "http://127.0.0.1:7878"
//! origin = "local.modunest"
//! root = "root.json"          # or keys = ["local.modunest+hash+base64"]
//!
//! [plugins]
//! "demo/gallery" = "^1"       # or { version = "^1", config = { … } }
//!
//! [policy]
//! require_verdict = true      # of the registry's scan
//! allow_findings = true       # with a warning
//! minimum_trust = "community"
//!
//! [host]
//! in_process = ["internal/*"]  # native code that is trusted like the agent itself
//!
//! [host.process]              # where other native code runs
//! memory_max_mib = 512
//!
//! [[grant]]                   # see grants
//! plugins = ["demo/*"]
//! allow = ["http:api.example.org"]
//! ```
//!
//! Links between plugins (`[[service]]`, `[[guard]]`, `[links]`) are described in `docs/links.md`.
//! What else `[gateway]` takes stands in [`gateway`]; `[[issuer]]` and `[[access]]` in [`users`].

pub mod canary;
mod component;
pub mod gateway;
pub mod grants;
mod lifecycle;
mod links;
mod network;
mod process;
mod read;
mod seen;
#[cfg(test)]
mod tests;
pub mod users;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use modunest_core::VersionReq;
use modunest_core::name::{NameError, OrgName, PluginName};
use modunest_tlog::VerifyingKey;
use url::Url;

pub use canary::{CanaryRule, CanarySettings};
pub use component::ComponentSettings;
pub use gateway::GatewaySettings;
pub use grants::Grants;
pub use lifecycle::{HealthSettings, LifecycleSettings, OnQuarantine, RetrySettings};
pub use links::{GuardRule, LinkSettings, ServiceRule};
pub use network::{Network, is_public};
pub use process::{CALLS_MAX, ProcessSettings};
pub use read::{ConfigError, Problem};
pub use seen::TelemetrySettings;
pub use users::UserSettings;

use crate::embed::Hooks;
use crate::sync::Policy;

/// Most concurrent loads: above it, loading waits for the dynamic linker's lock anyway.
pub const SLOTS_MAX: usize = 64;
/// Most parallel downloads: what a home router's connection table bears beside others.
pub const DOWNLOADS_MAX: usize = 64;

/// Name of the admin API's socket below the state folder.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// Everything the agent is told. Made by [`Config::load`] or, in code, by [`Config::new`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from; absent when it was made in code.
    pub file: Option<PathBuf>,
    /// Folder of the agent's own: index cache, store, generations, lock file.
    pub state_dir: PathBuf,
    /// Where plugin routes are served.
    pub gateway: SocketAddr,
    /// Where the admin API is served.
    pub admin: Listen,
    /// Where traces go.
    pub telemetry: TelemetrySettings,
    /// The registry that plugins come from.
    pub registry: Registry,
    /// The plugins that are wanted; what they depend on comes with them.
    pub plugins: BTreeMap<PluginName, Wanted>,
    /// What is asked of releases beyond their proof.
    pub policy: Policy,
    /// How plugins are loaded.
    pub host: HostSettings,
    /// What clients of the gateway may cost.
    pub gateway_limits: GatewaySettings,
    /// Whose tokens are believed, and who may use what.
    pub users: UserSettings,
}

/// A registry, and why it is believed.
#[derive(Clone, Debug)]
pub struct Registry {
    /// The operator's name for it.
    pub name: String,
    /// Where it, a mirror or a cache of it answers.
    pub url: Url,
    /// The name it signs under.
    pub origin: String,
    /// The file with its trust root, which says what its keys are ([`crate::trust`]).
    pub root: Option<PathBuf>,
    /// Keys of that name; at least one where there is no root, and none where there is one.
    pub keys: Vec<VerifyingKey>,
}

/// A plugin that the operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Versions that will do.
    pub requirement: VersionReq,
    /// What its `create` is given: JSON, or nothing.
    pub config: Vec<u8>,
}

/// How plugins are loaded and called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// Plugins that may run inside the agent's own process, by the operator's word.
    pub in_process: Vec<Pattern>,
    /// Plugins that load at the same time.
    pub slots: usize,
    /// How long one plugin may take to load.
    pub load_timeout: Duration,
    /// How long one call may take.
    pub call_timeout: Duration,
    /// Archives that are downloaded at the same time.
    pub downloads: usize,
    /// How often a running agent asks for news.
    pub check_every: Duration,
    /// Services, guards and events between plugins.
    pub links: LinkSettings,
    /// How plugins are kept up, and changed while they run.
    pub lifecycle: LifecycleSettings,
    /// What the program that has this host inside plugged into it.
    pub hooks: Hooks,
    /// How components run.
    pub component: ComponentSettings,
    /// How plugins run in processes of their own.
    pub process: ProcessSettings,
    /// What plugins may use.
    pub grants: Grants,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// `org/name`, or `org/*` for all of an organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Every plugin of an organisation.
    Org(OrgName),
    /// One plugin.
    Plugin(PluginName),
}

impl Config {
    /// Reads and validates a file. A relative `state_dir` is meant from the file's folder.
    ///
    /// # Errors
    /// Every broken rule with line, column, key and way out.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        read::load(path)
    }

    /// A configuration in code, with defaults, no plugins, and a free port on loopback.
    pub fn new(state_dir: impl Into<PathBuf>, registry: Registry) -> Self {
        let state_dir = state_dir.into();
        let mut host = HostSettings::default();
        host.component.cache = ComponentSettings::cache_in(&state_dir);
        Config {
            file: None,
            gateway: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admin: Listen::below(&state_dir),
            state_dir,
            telemetry: TelemetrySettings::default(),
            registry,
            plugins: BTreeMap::new(),
            policy: Policy::default(),
            host,
            gateway_limits: GatewaySettings::default(),
            users: UserSettings::default(),
        }
    }
}

impl HostSettings {
    /// Whether a plugin may run inside the agent's own process.
    pub fn allows_in_process(&self, plugin: &PluginName) -> bool {
        self.in_process.iter().any(|pattern| pattern.matches(plugin))
    }
}

impl Default for HostSettings {
    fn default() -> Self {
        HostSettings {
            in_process: Vec::new(),
            slots: std::thread::available_parallelism().map_or(1, usize::from).min(SLOTS_MAX),
            load_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            downloads: 8,
            check_every: Duration::from_secs(60),
            links: LinkSettings::default(),
            lifecycle: LifecycleSettings::default(),
            hooks: Hooks::default(),
            component: ComponentSettings::default(),
            process: ProcessSettings::default(),
            grants: Grants::default(),
        }
    }
}

impl Pattern {
    /// Whether the plugin is meant.
    pub fn matches(&self, plugin: &PluginName) -> bool {
        match self {
            Pattern::Org(org) => plugin.org() == *org,
            Pattern::Plugin(one) => one == plugin,
        }
    }
}

impl FromStr for Pattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_suffix("/*") {
            Some(org) => org.parse().map(Pattern::Org),
            None => text.parse().map(Pattern::Plugin),
        }
    }
}

impl Listen {
    /// The Unix socket below a state folder, where nothing else is said.
    pub fn below(state_dir: &Path) -> Self {
        Listen::Unix(state_dir.join(ADMIN_SOCKET))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) if Path::new(path).is_absolute() => Ok(Listen::Unix(path.into())),
            Some(_) => Err("the path of a Unix socket is absolute"),
            None => text
                .parse()
                .map(Listen::Tcp)
                .map_err(|_| "not an address and port such as 127.0.0.1:8081"),
        }
    }
}
