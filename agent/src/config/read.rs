//! From text to [`Config`]: every broken rule at once, each with its place and a way out.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use modunest_core::VersionReq;
use modunest_core::name::PluginName;
use modunest_tlog::VerifyingKey;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use toml::Spanned;
use url::Url;

use crate::sync::Policy;

use super::component::ComponentTable;
use super::gateway::GatewayTable;
use super::grants::{GrantTable, OutboundTable, QuotaTable};
use super::lifecycle::LifecycleTable;
use super::links::{GuardTable, LinksTable, ServiceTable};
use super::process::ProcessTable;
use super::seen::TelemetryTable;
use super::users::{AccessTable, IssuerTable};
use super::{
    ComponentSettings, Config, DOWNLOADS_MAX, HostSettings, Listen, Pattern, Registry, SLOTS_MAX,
    Wanted,
};

/// Largest configuration file, in bytes: thousands of plugins.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Where plugin routes are served, where nothing else is said.
const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

const GATEWAY_EXAMPLE: &str = "127.0.0.1:8080";
const ADMIN_EXAMPLE: &str = "unix:/run/modunest/admin.sock";

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; give its place with --config", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file breaks rules.
    #[error("{}", render(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The broken rules, in the order of the file.
        problems: Vec<Problem>,
    },
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key, such as `gateway.listen`; empty where the text is no TOML.
    pub key: String,
    /// The rule that is broken.
    pub rule: String,
    /// The way out.
    pub help: String,
}

fn render(path: &Path, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|p| {
            let key = if p.key.is_empty() { String::new() } else { format!("{}: ", p.key) };
            let help =
                if p.help.is_empty() { String::new() } else { format!("\n  help: {}", p.help) };
            format!("{}:{}:{}: {key}{}{help}", path.display(), p.line, p.column, p.rule)
        })
        .collect();
    lines.join("\n")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    state_dir: Spanned<PathBuf>,
    #[serde(default)]
    gateway: GatewayTable,
    #[serde(default)]
    admin: Option<Server>,
    registry: Spanned<Vec<RegistryTable>>,
    #[serde(default)]
    telemetry: TelemetryTable,
    #[serde(default)]
    plugins: BTreeMap<PluginName, WantedEntry>,
    #[serde(default)]
    policy: PolicyTable,
    #[serde(default)]
    host: HostTable,
    #[serde(default)]
    lifecycle: LifecycleTable,
    #[serde(default)]
    links: LinksTable,
    #[serde(default)]
    service: Vec<ServiceTable>,
    #[serde(default)]
    guard: Vec<GuardTable>,
    #[serde(default)]
    issuer: Vec<Spanned<IssuerTable>>,
    #[serde(default)]
    access: Vec<Spanned<AccessTable>>,
    #[serde(default)]
    grant: Vec<GrantTable>,
    #[serde(default)]
    quota: QuotaTable,
    #[serde(default)]
    outbound: OutboundTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    listen: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryTable {
    name: String,
    url: Spanned<String>,
    origin: String,
    root: Option<Spanned<PathBuf>>,
    keys: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct PolicyTable {
    require_verdict: Option<bool>,
    allow_findings: Option<bool>,
    minimum_trust: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct HostTable {
    #[serde(default)]
    in_process: Vec<Spanned<String>>,
    slots: Option<Spanned<usize>>,
    load_timeout_ms: Option<Spanned<u64>>,
    call_timeout_ms: Option<Spanned<u64>>,
    downloads: Option<Spanned<usize>>,
    check_every_s: Option<Spanned<u64>>,
    #[serde(default)]
    component: ComponentTable,
    #[serde(default)]
    process: ProcessTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedTable {
    version: VersionReq,
    #[serde(default)]
    config: Option<toml::Table>,
}

struct WantedEntry(WantedTable);

impl<'de> Deserialize<'de> for WantedEntry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = WantedEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a requirement such as \"^1\", or { version = \"^1\", config = { } }")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<WantedEntry, E> {
                let version = text.parse().map_err(|error| {
                    E::custom(format!("\"{text}\" is not a version requirement: {error}"))
                })?;
                Ok(WantedEntry(WantedTable { version, config: None }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WantedEntry, A::Error> {
                WantedTable::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(WantedEntry)
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

/// Reads and validates the file at `path`.
pub(super) fn load(path: &Path) -> Result<Config, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_MAX_BYTES {
        return Err(unreadable(std::io::Error::other(format!(
            "it has {size} bytes, at most {FILE_MAX_BYTES} are read"
        ))));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&text, folder)
        .map(|config| Config { file: Some(path.to_owned()), ..config })
        .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
}

/// Validates `text`; relative paths are meant from `folder`.
pub(super) fn parse(text: &str, folder: &Path) -> Result<Config, Vec<Problem>> {
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let (line, column) = place(text, at);
        let rule = error.message().trim().to_owned();
        vec![Problem { line, column, key: key_at(text, line), rule, help: String::new() }]
    })?;
    let mut check = Check { text, problems: Vec::new() };
    let config = check.file(file, folder);
    if check.problems.is_empty() {
        // Nothing was refused, so nothing is missing.
        config.ok_or(check.problems)
    } else {
        check.problems.sort_by_key(|p| (p.line, p.column));
        Err(check.problems)
    }
}

/// What is wrong with a text, as it is found.
pub(super) struct Check<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

impl<'t> Check<'t> {
    /// The whole file.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    pub(super) fn refuse(&mut self, at: usize, key: &str, rule: impl Into<String>, help: &str) {
        let (line, column) = place(self.text, at);
        let (key, rule, help) = (key.to_owned(), rule.into(), help.to_owned());
        self.problems.push(Problem { line, column, key, rule, help });
    }

    fn file(&mut self, file: File, folder: &Path) -> Option<Config> {
        let state_dir = folder.join(file.state_dir.get_ref());
        if file.state_dir.get_ref().as_os_str().is_empty() {
            let at = file.state_dir.span().start;
            self.refuse(at, "state_dir", "is empty", "name a folder that the agent may write");
        }
        let gateway_limits = self.gateway_limits(&file.gateway);
        let gateway = match file.gateway.listen {
            Some(listen) => self.listen("gateway.listen", Server { listen }),
            None => Some((Listen::Tcp(GATEWAY), 0)),
        };
        let admin = self.admin(file.admin, &state_dir);
        let telemetry = self.telemetry(file.telemetry);
        let gateway = match gateway {
            Some((Listen::Tcp(address), _)) => Some(address),
            Some((Listen::Unix(_), at)) => {
                let help = "write an address and port; only admin.listen may be a Unix socket";
                self.refuse(at, "gateway.listen", "is a Unix socket", help);
                None
            }
            None => None,
        };
        let registry = self.registries(file.registry, folder);
        let policy = self.policy(file.policy);
        let lifecycle = self.lifecycle(file.lifecycle);
        let links = self.links(file.links, file.service, file.guard);
        let mut host = HostSettings { lifecycle, links, ..self.host(file.host) };
        host.component.cache = ComponentSettings::cache_in(&state_dir);
        let users = self.users(file.issuer, file.access, folder);
        host.grants = self.grants(file.grant, file.quota, file.outbound);
        self.sealed_values();
        let plugins = file.plugins.into_iter().map(|(name, WantedEntry(entry))| {
            let config = match entry.config {
                // Tables of strings, numbers and dates always are JSON.
                Some(table) => serde_json::to_vec(&table).unwrap_or_default(),
                None => Vec::new(),
            };
            (name, Wanted { requirement: entry.version, config })
        });
        let plugins = plugins.collect();
        Some(Config {
            file: None,
            state_dir,
            gateway: gateway?,
            admin: admin?,
            registry: registry?,
            telemetry,
            plugins,
            policy,
            host,
            gateway_limits,
            users,
        })
    }

    pub(super) fn listen(&mut self, key: &str, server: Server) -> Option<(Listen, usize)> {
        let (at, text) = (server.listen.span().start, server.listen.into_inner());
        match text.parse() {
            Ok(listen) => Some((listen, at)),
            Err(rule) => {
                let rule = format!("\"{text}\": {rule}");
                let example = if key == "admin.listen" { ADMIN_EXAMPLE } else { GATEWAY_EXAMPLE };
                self.refuse(at, key, rule, &format!("for example \"{example}\""));
                None
            }
        }
    }

    fn registries(&mut self, list: Spanned<Vec<RegistryTable>>, folder: &Path) -> Option<Registry> {
        let at = list.span().start;
        let mut tables = list.into_inner().into_iter();
        let (Some(table), None) = (tables.next(), tables.next()) else {
            let help = "keep exactly one [[registry]]: a plugin has exactly one home";
            self.refuse(at, "registry", "there is not exactly one registry", help);
            return None;
        };
        let url = match Url::parse(table.url.get_ref()) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.query().is_none() => {
                Some(url)
            }
            _ => {
                let rule = format!("\"{}\" is not an http or https URL", table.url.get_ref());
                let help = "for example \"https://registry.example.org\"";
                self.refuse(table.url.span().start, "registry.url", rule, help);
                None
            }
        };
        match (&table.root, &table.keys) {
            (Some(root), None) if root.get_ref().as_os_str().is_empty() => {
                let help = "name the root file that whoever runs the registry gave you";
                self.refuse(root.span().start, "registry.root", "is empty", help);
            }
            (Some(root), Some(_)) => {
                let help = "keep the root: it says which keys are good, also tomorrow";
                self.refuse(root.span().start, "registry.root", "stands beside keys", help);
            }
            (None, None) => {
                let help =
                    "name its trust root, such as root = \"root.json\"; there is no unsigned mode";
                self.refuse(at, "registry.root", "is missing", help);
            }
            (None, Some(keys)) if keys.get_ref().is_empty() => {
                let help = "paste the registry's public key; there is no unsigned mode";
                self.refuse(keys.span().start, "registry.keys", "is empty", help);
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let root = table.root.map(|root| folder.join(root.into_inner()));
        let mut keys = Vec::new();
        for text in table.keys.map(Spanned::into_inner).unwrap_or_default() {
            let at = text.span().start;
            match text.get_ref().parse::<VerifyingKey>() {
                Ok(key) if key.name().as_str() == table.origin => keys.push(key),
                Ok(key) => {
                    let rule = format!("the key's name is {}, not {}", key.name(), table.origin);
                    let help = "a registry's keys carry its origin as their name";
                    self.refuse(at, "registry.keys", rule, help);
                }
                Err(error) => {
                    let help = "copy the registry's public key, name+hash+base64, whole";
                    self.refuse(at, "registry.keys", error.to_string(), help);
                }
            }
        }
        let (name, origin) = (table.name, table.origin);
        Some(Registry { name, url: url?, origin, root, keys })
    }

    fn policy(&mut self, table: PolicyTable) -> Policy {
        let defaults = Policy::default();
        let mut minimum_trust = defaults.minimum_trust;
        if let Some(text) = table.minimum_trust {
            match text.get_ref().parse() {
                Ok(level) => minimum_trust = level,
                Err(error) => {
                    let rule = format!("\"{}\": {error}", text.get_ref());
                    let help = "\"community\" loads all but what the registry warns of";
                    self.refuse(text.span().start, "policy.minimum_trust", rule, help);
                }
            }
        }
        Policy {
            require_verdict: table.require_verdict.unwrap_or(defaults.require_verdict),
            allow_findings: table.allow_findings.unwrap_or(defaults.allow_findings),
            minimum_trust,
        }
    }

    fn host(&mut self, table: HostTable) -> HostSettings {
        let defaults = HostSettings::default();
        let component = self.component(table.component);
        let in_process = self.patterns("host.in_process", table.in_process);
        let process = self.process(table.process);
        let mut number = |key: &str, value: Option<Spanned<u64>>, max: u64, default: u64| {
            self.number(key, value, (1, max), default)
        };
        let wide = |value: Option<Spanned<usize>>| {
            value.map(|v| Spanned::new(v.span(), v.into_inner() as u64))
        };
        let millis = |duration: Duration| duration.as_millis() as u64;
        /// An hour: longer than any load, call or pause between checks that makes sense.
        const HOUR_S: u64 = 3600;
        let hour_ms = HOUR_S * 1000;
        let slots =
            number("host.slots", wide(table.slots), SLOTS_MAX as u64, defaults.slots as u64);
        let downloads = number(
            "host.downloads",
            wide(table.downloads),
            DOWNLOADS_MAX as u64,
            defaults.downloads as u64,
        );
        let load_ms = number(
            "host.load_timeout_ms",
            table.load_timeout_ms,
            hour_ms,
            millis(defaults.load_timeout),
        );
        let call_ms = number(
            "host.call_timeout_ms",
            table.call_timeout_ms,
            hour_ms,
            millis(defaults.call_timeout),
        );
        let check_s = number(
            "host.check_every_s",
            table.check_every_s,
            24 * HOUR_S,
            defaults.check_every.as_secs(),
        );
        HostSettings {
            in_process,
            slots: slots as usize,
            load_timeout: Duration::from_millis(load_ms),
            call_timeout: Duration::from_millis(call_ms),
            downloads: downloads as usize,
            check_every: Duration::from_secs(check_s),
            component,
            process,
            ..defaults
        }
    }

    /// A number within bounds, or its default.
    pub(super) fn number(
        &mut self,
        key: &str,
        value: Option<Spanned<u64>>,
        (min, max): (u64, u64),
        default: u64,
    ) -> u64 {
        let Some(value) = value else { return default };
        let (at, value) = (value.span().start, value.into_inner());
        if (min..=max).contains(&value) {
            return value;
        }
        self.refuse(at, key, format!("{value} is not from {min} to {max}"), "choose one in range");
        default
    }

    /// Plugins, or all of an organisation.
    pub(super) fn patterns(&mut self, key: &str, texts: Vec<Spanned<String>>) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for text in texts {
            match text.get_ref().parse::<Pattern>() {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    let help = "write \"org/name\", or \"org/*\" for all of an organisation";
                    self.refuse(text.span().start, key, error.to_string(), help);
                }
            }
        }
        patterns
    }
}

/// Line and column, from 1, of a byte.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The key on a line with the table it stands in, as well as it can be told from the text.
fn key_at(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().take(line).collect();
    let own = lines.last().and_then(|l| l.split_once('=')).map_or("", |(key, _)| key.trim());
    let table = lines
        .iter()
        .rev()
        .map(|l| l.trim())
        .find(|l| l.starts_with('['))
        .map_or("", |l| l.split(']').next().unwrap_or_default().trim_start_matches('['));
    match (table, own) {
        ("", own) => own.to_owned(),
        (table, "") => table.to_owned(),
        (table, own) => format!("{table}.{own}"),
    }
}
