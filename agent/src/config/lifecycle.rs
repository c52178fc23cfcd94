//! `[lifecycle]`: how plugins are kept up, and how they are changed while they run.
//!
//! ```toml
//! [lifecycle]
//! hook_timeout_ms = 5000      # of each lifecycle hook
//! load_timeout_max_ms = 60000 # what a manifest may ask for at most to load
//! drain_timeout_ms = 5000     # how long a swap with state waits for running calls
//! queue = 256                 # calls that wait for the end of a swap
//! keep_old_s = 120            # how long a replaced instance is kept to go back to
//! on_quarantine = "unload"    # or "deny" (stays in memory, answers nothing), or "warn"
//! retry_s = 60                # until a plugin that has failed is loaded anew; doubles; 0 for never
//! retry_max_s = 1800          # the longest of these pauses
//!
//! [lifecycle.health]
//! every_s = 10                # 0 for never
//! timeout_ms = 2000           # what is later is a failure, unless calls have ended meanwhile
//! failures = 3                # in a row, until a plugin is unhealthy
//! restart = true              # an unhealthy plugin
//! restarts = 5                # in 10 minutes; then it stays unhealthy
//!
//! [lifecycle.breaker]
//! failures = 5                # in a row
//! open_s = 60
//! probes = 1
//! failure_percent = 50        # of the last `window` calls; left out: only failures in a row
//! window = 20
//!
//! [lifecycle.critical_breaker] # the same keys, for plugins that are critical
//! ```
//!
//! `[lifecycle.canary]` is described in [`canary`](super::canary).

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::canary::{CanarySettings, CanaryTable};
use super::read::Check;
use crate::doubling;
use crate::host::{BreakerSettings, Rate, WINDOW_MAX};

/// How plugins are kept up, and changed while they run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifecycleSettings {
    /// How long one lifecycle hook may take.
    pub hook_timeout: Duration,
    /// What a manifest may ask for at most to load.
    pub load_timeout_max: Duration,
    /// How long a swap with state waits for the calls that run.
    pub drain_timeout: Duration,
    /// Calls of one plugin that wait for the end of a swap.
    pub queue: usize,
    /// How long a replaced instance is kept to go back to.
    pub keep_old: Duration,
    /// What becomes of a running plugin whose release is quarantined.
    pub on_quarantine: OnQuarantine,
    /// When plugins that have failed are loaded anew.
    pub retry: RetrySettings,
    /// How health is asked after.
    pub health: HealthSettings,
    /// Breakers of plugins that are not critical.
    pub breaker: BreakerSettings,
    /// Breakers of critical plugins.
    pub critical_breaker: BreakerSettings,
    /// How changes are tried.
    pub canary: CanarySettings,
}

/// What becomes of a running plugin whose release is quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnQuarantine {
    /// It is stopped, and those that need it are blocked.
    Unload,
    /// It stays in memory and answers no call.
    Deny,
    /// It goes on, and its status says so.
    Warn,
}

/// When a plugin that has failed is loaded anew: it could not be loaded, or ended once too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Pause before the first time; it doubles with each. Zero for never.
    pub first: Duration,
    /// Longest pause. Who is well for so long begins with the first pause again.
    pub max: Duration,
}

impl RetrySettings {
    /// The pause behind so many loads.
    pub(crate) fn pause(&self, loads: u32) -> Duration {
        doubling::pause(self.first, loads, self.max.max(self.first))
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        RetrySettings { first: Duration::from_secs(60), max: Duration::from_secs(30 * 60) }
    }
}

/// How health is asked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// How often; zero for never.
    pub every: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many failures in a row make a plugin unhealthy.
    pub failures: u32,
    /// Whether an unhealthy plugin is restarted.
    pub restart: bool,
    /// How often in ten minutes.
    pub restarts: u32,
}

impl Default for LifecycleSettings {
    fn default() -> Self {
        LifecycleSettings {
            hook_timeout: Duration::from_secs(5),
            load_timeout_max: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(5),
            queue: 256,
            keep_old: Duration::from_secs(120),
            on_quarantine: OnQuarantine::Unload,
            retry: RetrySettings::default(),
            health: HealthSettings {
                every: Duration::from_secs(10),
                timeout: Duration::from_secs(2),
                failures: 3,
                restart: true,
                restarts: 5,
            },
            breaker: BreakerSettings::COMMON,
            critical_breaker: BreakerSettings::CRITICAL,
            canary: CanarySettings::default(),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct LifecycleTable {
    hook_timeout_ms: Option<Spanned<u64>>,
    load_timeout_max_ms: Option<Spanned<u64>>,
    drain_timeout_ms: Option<Spanned<u64>>,
    queue: Option<Spanned<u64>>,
    keep_old_s: Option<Spanned<u64>>,
    on_quarantine: Option<Spanned<String>>,
    retry_s: Option<Spanned<u64>>,
    retry_max_s: Option<Spanned<u64>>,
    #[serde(default)]
    health: HealthTable,
    #[serde(default)]
    breaker: BreakerTable,
    #[serde(default)]
    critical_breaker: BreakerTable,
    canary: Option<CanaryTable>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct HealthTable {
    every_s: Option<Spanned<u64>>,
    timeout_ms: Option<Spanned<u64>>,
    failures: Option<Spanned<u64>>,
    restart: Option<bool>,
    restarts: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct BreakerTable {
    failures: Option<Spanned<u64>>,
    open_s: Option<Spanned<u64>>,
    probes: Option<Spanned<u64>>,
    failure_percent: Option<Spanned<u64>>,
    window: Option<Spanned<u64>>,
}

/// A day: what is kept or watched for longer is not a matter of one change any more.
const DAY_S: u64 = 24 * 3600;
/// Ten minutes: longer than any hook or drain that makes sense.
const TEN_MINUTES_MS: u64 = 600_000;

impl Check<'_> {
    pub(super) fn lifecycle(&mut self, table: LifecycleTable) -> LifecycleSettings {
        let defaults = LifecycleSettings::default();
        let millis = |duration: Duration| duration.as_millis() as u64;
        let hook_ms = self.number(
            "lifecycle.hook_timeout_ms",
            table.hook_timeout_ms,
            (1, TEN_MINUTES_MS),
            millis(defaults.hook_timeout),
        );
        let load_max_ms = self.number(
            "lifecycle.load_timeout_max_ms",
            table.load_timeout_max_ms,
            (1, TEN_MINUTES_MS),
            millis(defaults.load_timeout_max),
        );
        let drain_ms = self.number(
            "lifecycle.drain_timeout_ms",
            table.drain_timeout_ms,
            (1, TEN_MINUTES_MS),
            millis(defaults.drain_timeout),
        );
        let queue =
            self.number("lifecycle.queue", table.queue, (1, 100_000), defaults.queue as u64);
        let keep_s = self.number(
            "lifecycle.keep_old_s",
            table.keep_old_s,
            (0, DAY_S),
            defaults.keep_old.as_secs(),
        );
        let RetrySettings { first, max } = defaults.retry;
        let retry_s = (table.retry_s, table.retry_max_s);
        let first_s = self.number("lifecycle.retry_s", retry_s.0, (0, DAY_S), first.as_secs());
        let max_s = self.number("lifecycle.retry_max_s", retry_s.1, (1, DAY_S), max.as_secs());
        let on_quarantine = match table.on_quarantine {
            None => defaults.on_quarantine,
            Some(text) => match text.get_ref().as_str() {
                "unload" => OnQuarantine::Unload,
                "deny" => OnQuarantine::Deny,
                "warn" => OnQuarantine::Warn,
                other => {
                    let help = "write \"unload\", \"deny\" or \"warn\"";
                    let rule = format!("\"{other}\" is no such policy");
                    self.refuse(text.span().start, "lifecycle.on_quarantine", rule, help);
                    defaults.on_quarantine
                }
            },
        };
        LifecycleSettings {
            hook_timeout: Duration::from_millis(hook_ms),
            load_timeout_max: Duration::from_millis(load_max_ms),
            drain_timeout: Duration::from_millis(drain_ms),
            queue: queue as usize,
            keep_old: Duration::from_secs(keep_s),
            on_quarantine,
            retry: RetrySettings {
                first: Duration::from_secs(first_s),
                max: Duration::from_secs(max_s),
            },
            health: self.health(table.health, defaults.health),
            breaker: self.breaker("lifecycle.breaker", table.breaker, defaults.breaker),
            critical_breaker: self.breaker(
                "lifecycle.critical_breaker",
                table.critical_breaker,
                defaults.critical_breaker,
            ),
            canary: self.canary(table.canary),
        }
    }

    fn health(&mut self, table: HealthTable, defaults: HealthSettings) -> HealthSettings {
        let every_s = defaults.every.as_secs();
        let every_s = self.number("lifecycle.health.every_s", table.every_s, (0, DAY_S), every_s);
        let timeout_ms = self.number(
            "lifecycle.health.timeout_ms",
            table.timeout_ms,
            (1, TEN_MINUTES_MS),
            defaults.timeout.as_millis() as u64,
        );
        let mut small = |key: &str, value, min: u64, default: u32| {
            self.number(key, value, (min, 1000), u64::from(default)) as u32
        };
        HealthSettings {
            every: Duration::from_secs(every_s),
            timeout: Duration::from_millis(timeout_ms),
            failures: small("lifecycle.health.failures", table.failures, 1, defaults.failures),
            restart: table.restart.unwrap_or(defaults.restart),
            restarts: small("lifecycle.health.restarts", table.restarts, 0, defaults.restarts),
        }
    }

    fn breaker(
        &mut self,
        section: &str,
        table: BreakerTable,
        defaults: BreakerSettings,
    ) -> BreakerSettings {
        let key = |name: &str| format!("{section}.{name}");
        let window_at = table.window.as_ref().map(|window| window.span().start);
        let has_rate = table.failure_percent.is_some();
        if let (Some(at), false) = (window_at, has_rate) {
            let help = "add failure_percent, or remove it";
            self.refuse(at, &key("window"), "stands without failure_percent", help);
        }
        let percent = self.number(&key("failure_percent"), table.failure_percent, (1, 100), 50);
        let window = (2, u64::from(WINDOW_MAX));
        let window = self.number(&key("window"), table.window, window, 20);
        let failures = u64::from(defaults.failures);
        let failures = self.number(&key("failures"), table.failures, (1, 1_000_000), failures);
        let open_s = self.number(&key("open_s"), table.open_s, (1, DAY_S), defaults.open_ms / 1000);
        let probes = self.number(&key("probes"), table.probes, (1, 1000), defaults.probes.into());
        BreakerSettings {
            failures: failures as u32,
            rate: has_rate.then_some(Rate { percent: percent as u32, window: window as u32 }),
            open_ms: open_s * 1000,
            probes: probes as u32,
        }
    }
}
