//! What plugins may use: `[[grant]]`, `[quota]` and `[outbound]`.
//!
//! ```toml
//! [[grant]]
//! plugins = ["demo/*"]
//! allow = ["http:api.example.org", "files:read:/srv/photos", "env:TZ"]
//! # Without what needs no grant: the private folder, stores, clocks, random numbers,
//! # services and events.
//! defaults = false
//! # More, or less, than [quota] says.
//! quota = { store_bytes = 268435456 }
//!
//! [quota]                          # a plugin; these are the defaults
//! store_bytes = 67108864
//! store_keys = 100000
//! files_bytes = 268435456
//! files_count = 10000
//! http_requests_per_minute = 600
//! http_bytes_per_minute = 67108864
//! http_concurrent = 8
//! log_lines_per_second = 100
//! log_lines_burst = 1000
//!
//! [outbound]
//! timeout_ms = 30000
//! networks = ["10.1.0.0/16"]       # private networks that granted names may lead to
//! addresses = { "api.example.org" = ["192.0.2.7"] }   # instead of asking DNS
//! ```
//!
//! Every `[[grant]]` that names a plugin adds to what it may use. A quota is the last one
//! that names the plugin.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use modunest_core::capability::{Capability, Effective, effective, is_free};
use modunest_core::manifest::Manifest;
use modunest_core::name::PluginName;
use serde::Deserialize;
use toml::Spanned;

use super::Pattern;
use super::network::Network;
use super::read::Check;
use crate::secrets::{SEALED, is_well_formed};

/// Largest quota, in bytes or in numbers: what a number in TOML and a disk of today hold.
const QUOTA_MAX: u64 = 1 << 50;
/// Most requests out that one plugin may have at the same time: beyond it the host's own
/// connections would suffer.
const CONCURRENT_MAX: u64 = 256;
/// Most lines of the log a second and at once: beyond it the log is the agent's main work.
const LOG_LINES_MAX: u64 = 1_000_000;
/// Longest time for a request out: as for a call.
const OUTBOUND_TIMEOUT_MAX_MS: u64 = 3600 * 1000;

/// What plugins may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The operator's grants, in the order of the file.
    pub rules: Vec<Grant>,
    /// How much of it a plugin may use, where no grant says otherwise.
    pub quota: Quota,
    /// How requests out are made.
    pub outbound: OutboundSettings,
}

/// One `[[grant]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// For whom.
    pub plugins: Vec<Pattern>,
    /// What they may use, if they ask for it.
    pub allow: Vec<Capability>,
    /// Whether they have what needs no grant. One grant that says no is enough.
    pub defaults: bool,
    /// The quota, where it differs.
    pub quota: Option<Quota>,
}

/// How much a plugin may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Keys and values in all its stores, in bytes.
    pub store_bytes: u64,
    /// Keys in all its stores.
    pub store_keys: u64,
    /// Files in its private folder, in bytes.
    pub files_bytes: u64,
    /// Files and folders in its private folder.
    pub files_count: u64,
    /// Requests out in a minute.
    pub http_requests_per_minute: u64,
    /// Bytes of bodies in both directions in a minute.
    pub http_bytes_per_minute: u64,
    /// Requests out at the same time.
    pub http_concurrent: u64,
    /// Lines of the host's log in a second; more are dropped and counted.
    pub log_lines_per_second: u64,
    /// Lines at once, after a time with fewer.
    pub log_lines_burst: u64,
}

/// How requests out are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundSettings {
    /// How long one request may take, redirects included.
    pub timeout: Duration,
    /// Networks that are not public and that granted names may lead to all the same.
    pub networks: Vec<Network>,
    /// Addresses of names, instead of asking DNS.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
}

impl Default for Quota {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Quota {
            store_bytes: 64 * MIB,
            store_keys: 100_000,
            files_bytes: 256 * MIB,
            files_count: 10_000,
            http_requests_per_minute: 600,
            http_bytes_per_minute: 64 * MIB,
            http_concurrent: 8,
            log_lines_per_second: 100,
            log_lines_burst: 1000,
        }
    }
}

impl Default for OutboundSettings {
    fn default() -> Self {
        OutboundSettings {
            timeout: Duration::from_secs(30),
            networks: Vec::new(),
            addresses: BTreeMap::new(),
        }
    }
}

impl Grants {
    fn of<'g>(&'g self, plugin: &'g PluginName) -> impl Iterator<Item = &'g Grant> {
        let names = |grant: &&Grant| grant.plugins.iter().any(|pattern| pattern.matches(plugin));
        self.rules.iter().filter(names)
    }

    /// What a plugin may use of what its manifest asks for.
    pub fn effective(&self, manifest: &Manifest) -> Effective {
        let asks = manifest.asks();
        let mut granted: Vec<Capability> =
            self.of(&manifest.name).flat_map(|grant| grant.allow.iter().cloned()).collect();
        if self.of(&manifest.name).all(|grant| grant.defaults) {
            granted.extend(asks.iter().filter(|asked| is_free(asked)).cloned());
        }
        effective(&asks, &granted)
    }

    /// The plugin's quota.
    pub fn quota(&self, plugin: &PluginName) -> Quota {
        self.of(plugin).filter_map(|grant| grant.quota).last().unwrap_or(self.quota)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantTable {
    plugins: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    defaults: Option<bool>,
    quota: Option<QuotaTable>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct QuotaTable {
    store_bytes: Option<Spanned<u64>>,
    store_keys: Option<Spanned<u64>>,
    files_bytes: Option<Spanned<u64>>,
    files_count: Option<Spanned<u64>>,
    http_requests_per_minute: Option<Spanned<u64>>,
    http_bytes_per_minute: Option<Spanned<u64>>,
    http_concurrent: Option<Spanned<u64>>,
    log_lines_per_second: Option<Spanned<u64>>,
    log_lines_burst: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct OutboundTable {
    timeout_ms: Option<Spanned<u64>>,
    #[serde(default)]
    networks: Vec<Spanned<String>>,
    #[serde(default)]
    addresses: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
}

impl Check<'_> {
    pub(super) fn grants(
        &mut self,
        rules: Vec<GrantTable>,
        quota: QuotaTable,
        outbound: OutboundTable,
    ) -> Grants {
        let quota = self.quota("quota", quota, Quota::default());
        let rules = rules.into_iter().map(|table| self.grant(table, quota)).collect();
        Grants { rules, quota, outbound: self.outbound(outbound) }
    }

    /// Looks at every sealed value, wherever it stands: whether it opens is found out when its
    /// plugin is made, but a value that was cut while it was pasted is found here.
    pub(super) fn sealed_values(&mut self) {
        let text = self.text();
        for (at, _) in text.match_indices(SEALED) {
            let value = &text[at..];
            let end = value.find(['"', '\'', '\n']).unwrap_or(value.len());
            let in_quotes = text[..at].ends_with(['"', '\'']);
            if in_quotes && !is_well_formed(&value[..end]) {
                let help =
                    "seal it again with `modunest-agent secret seal`, and paste the whole line";
                self.refuse(at, "plugins", "a sealed value is cut or altered", help);
            }
        }
    }

    fn grant(&mut self, table: GrantTable, quota: Quota) -> Grant {
        if table.plugins.get_ref().is_empty() {
            let help = "name whom it is for, such as \"demo/gallery\" or \"demo/*\"";
            self.refuse(table.plugins.span().start, "grant.plugins", "is empty", help);
        }
        let plugins = self.patterns("grant.plugins", table.plugins.into_inner());
        let mut allow = Vec::new();
        for text in table.allow {
            match text.get_ref().parse::<Capability>() {
                Ok(capability) => allow.push(capability),
                Err(error) => {
                    let help = "write group:detail as the plugin's manifest asks for it, for example \"http:api.example.org\"";
                    self.refuse(text.span().start, "grant.allow", error.to_string(), help);
                }
            }
        }
        let quota = table.quota.map(|table| self.quota("grant.quota", table, quota));
        Grant { plugins, allow, defaults: table.defaults.unwrap_or(true), quota }
    }

    fn quota(&mut self, section: &str, table: QuotaTable, otherwise: Quota) -> Quota {
        let mut number = |name: &str, value: Option<Spanned<u64>>, max: u64, otherwise: u64| {
            let Some(value) = value else { return otherwise };
            let (at, value) = (value.span().start, value.into_inner());
            if value > max {
                let key = format!("{section}.{name}");
                self.refuse(at, &key, format!("{value} is above {max}"), "zero allows nothing");
            }
            value
        };
        Quota {
            store_bytes: number("store_bytes", table.store_bytes, QUOTA_MAX, otherwise.store_bytes),
            store_keys: number("store_keys", table.store_keys, QUOTA_MAX, otherwise.store_keys),
            files_bytes: number("files_bytes", table.files_bytes, QUOTA_MAX, otherwise.files_bytes),
            files_count: number("files_count", table.files_count, QUOTA_MAX, otherwise.files_count),
            http_requests_per_minute: number(
                "http_requests_per_minute",
                table.http_requests_per_minute,
                QUOTA_MAX,
                otherwise.http_requests_per_minute,
            ),
            http_bytes_per_minute: number(
                "http_bytes_per_minute",
                table.http_bytes_per_minute,
                QUOTA_MAX,
                otherwise.http_bytes_per_minute,
            ),
            http_concurrent: number(
                "http_concurrent",
                table.http_concurrent,
                CONCURRENT_MAX,
                otherwise.http_concurrent,
            ),
            log_lines_per_second: number(
                "log_lines_per_second",
                table.log_lines_per_second,
                LOG_LINES_MAX,
                otherwise.log_lines_per_second,
            ),
            log_lines_burst: number(
                "log_lines_burst",
                table.log_lines_burst,
                LOG_LINES_MAX,
                otherwise.log_lines_burst,
            ),
        }
    }

    fn outbound(&mut self, table: OutboundTable) -> OutboundSettings {
        let defaults = OutboundSettings::default();
        let timeout = table.timeout_ms.map_or(defaults.timeout, |value| {
            let (at, value) = (value.span().start, value.into_inner());
            if !(1..=OUTBOUND_TIMEOUT_MAX_MS).contains(&value) {
                let rule = format!("{value} is not from 1 to {OUTBOUND_TIMEOUT_MAX_MS}");
                self.refuse(at, "outbound.timeout_ms", rule, "choose one in range");
            }
            Duration::from_millis(value)
        });
        let mut networks = Vec::new();
        for text in table.networks {
            match text.get_ref().parse::<Network>() {
                Ok(network) => networks.push(network),
                Err(rule) => {
                    let help = "write an address and the length of its prefix, such as \"10.1.0.0/16\" or \"fd00::/8\"";
                    let rule = format!("\"{}\": {rule}", text.get_ref());
                    self.refuse(text.span().start, "outbound.networks", rule, help);
                }
            }
        }
        let mut addresses = BTreeMap::new();
        for (name, texts) in table.addresses {
            let good = format!("http:{}", name.get_ref()).parse::<Capability>().is_ok()
                && !name.get_ref().contains(['*', ':']);
            if !good {
                let rule = format!("\"{}\" is no host name", name.get_ref());
                let help = "write a lower-case name without port, such as \"api.example.org\"";
                self.refuse(name.span().start, "outbound.addresses", rule, help);
            }
            let mut parsed = Vec::new();
            for text in texts {
                match text.get_ref().parse::<IpAddr>() {
                    Ok(address) => parsed.push(address),
                    Err(error) => {
                        let rule = format!("\"{}\": {error}", text.get_ref());
                        let help = "write an address such as \"192.0.2.7\"";
                        self.refuse(text.span().start, "outbound.addresses", rule, help);
                    }
                }
            }
            addresses.insert(name.into_inner(), parsed);
        }
        OutboundSettings { timeout, networks, addresses }
    }
}
