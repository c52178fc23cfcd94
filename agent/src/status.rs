//! What a running agent says about itself.

use std::collections::BTreeMap;
use std::time::Duration;

use modunest_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::host::{Cell, Host, Lacks, LinkStatus, RolledBack, State, Tier, Vitals};
use crate::metrics::process::Usage;
use crate::metrics::{Latency, Outcome};

/// The whole answer of `/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
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
    #[schema(schema_with = ready_schema)]
    pub ready: Result<(), String>,
    /// What the agent's own process takes; absent where the kernel does not say.
    #[serde(default)]
    pub process: Option<Usage>,
    /// Every plugin, by name.
    pub plugins: Vec<PluginStatus>,
}

/// The newest believed head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastSync {
    /// When, RFC 3339.
    pub at: String,
    /// Why it failed; absent when it did not.
    pub error: Option<String>,
    /// Why it went without the registry; absent when it did not.
    pub offline: Option<String>,
}

/// One plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PluginStatus {
    /// `org/name`.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// One of [`State`]'s words.
    pub state: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why, where it failed or is blocked, or serves and something that it needs does not any more.
    pub reason: Option<String>,
    /// Whether the host is not ready without it.
    pub critical: bool,
    /// Where it runs: `in-process`, `process`, `component` (in the agent's own process) or
    /// `component-process`.
    pub tier: String,
    /// Calls that reached it, with those that are being served.
    pub calls: u64,
    /// Of these, those that failed by whatever fault of the plugin's, as its breaker and trials
    /// count them: the outcomes `failed`, `panicked` (also: crashed), `late` and `unavailable`,
    /// `faults`, and calls that still run although their time is over.
    pub errors: u64,
    /// Of these, those that panicked.
    pub panics: u64,
    /// Answers that say themselves that something failed: HTTP from 500 on, or no HTTP at all.
    /// Their outcome is `answered`.
    #[serde(default)]
    pub faults: u64,
    /// The same calls by how they ended: `answered`, `failed`, `panicked`, `late`,
    /// `unavailable`, `unknown`, `invalid`, `denied`, and `abandoned` where they failed because
    /// their clients went away. What never happened is left out.
    pub outcomes: BTreeMap<String, u64>,
    /// How long calls took; absent before the first that was timed.
    pub latency: Option<LatencyStatus>,
    /// Calls that are being served.
    pub running: u64,
    /// Calls that wait for their turn.
    pub queued: u64,
    /// Calls that were refused before they reached it.
    pub refused: u64,
    /// What it asked for and may not have.
    pub denials: u64,
    /// Lines that it wrote to the log and that were dropped, because they were too many.
    #[serde(default)]
    pub log_lines_dropped: u64,
    /// How long its load took, in milliseconds; absent before it has loaded.
    pub activation_ms: Option<f64>,
    /// Times that it was started anew after it had failed; absent where that cannot be.
    pub restarts: Option<u64>,
    /// Its processor time in milliseconds, or that of its group's process (`runs.group`). In the
    /// agent's own process, that of its calls, by a sample of them. Absent where nothing runs.
    pub cpu_ms: Option<u64>,
    /// Its memory in bytes, or that of its group's process (`runs.group`); absent where nothing
    /// runs, and where it cannot be told from the agent's (`runs.memory_unknown`).
    pub memory_bytes: Option<u64>,
    /// Where its circuit breaker stands: `closed`, `open` or `half-open`.
    pub breaker: String,
    /// Until when it refuses every call, RFC 3339; absent where it does not.
    pub breaker_open_until: Option<String>,
    /// Services whose own breaker is not closed, with where it stands.
    pub service_breakers: BTreeMap<String, String>,
    /// What it calls, what guards denied, and its events.
    #[serde(default)]
    pub links: LinkStatus,
    /// Services it exports, as `name version`.
    pub services: Vec<String>,
    /// Routes it answers, as `GET /path`.
    pub routes: Vec<String>,
    /// How it runs; absent where it was never loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Runs>,
    /// What it asks its host for, and what came of each.
    #[serde(default)]
    pub capabilities: Vec<CapabilityStatus>,
    /// The release that is being tried in its place; absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Box<CanaryStatus>>,
    /// The release that was tried last and rolled back; absent once another one serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBackStatus>,
}

impl PluginStatus {
    /// Whether its process runs without all that should confine it.
    pub fn is_unconfined(&self) -> bool {
        self.runs.as_ref().is_some_and(|runs| runs.pid.is_some() && !runs.confined)
    }

    /// Where it runs, for people.
    pub fn tier_text(&self) -> String {
        tier_text(&self.tier, self.is_unconfined())
    }
}

/// A tier, for people, and whether its walls are not there.
pub fn tier_text(tier: &str, is_unconfined: bool) -> String {
    format!("{tier}{}", if is_unconfined { " (unconfined)" } else { "" })
}

/// A release that is being tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CanaryStatus {
    /// Its version.
    pub version: String,
    /// One of [`State`]'s words.
    pub state: String,
    /// Why, where it is not well.
    pub reason: Option<String>,
    /// Of 100 calls, how many it serves.
    pub share_percent: u32,
    /// When its trial began, RFC 3339.
    pub since: String,
    /// How long it is watched at least, in seconds.
    pub watched_s: u64,
    /// How many calls it must have served at least.
    pub calls_wanted: u64,
    /// Calls that it has served.
    pub calls: u64,
    /// Those of them that failed, as `errors` of a plugin counts them.
    pub errors: u64,
    /// Calls that the instance beside it has served since the trial began.
    pub old_calls: u64,
    /// Those of them that failed.
    pub old_errors: u64,
}

/// A release that was tried and rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolledBackStatus {
    /// Its version.
    pub version: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    pub reason: String,
}

fn canary(old: &Cell) -> Option<Box<CanaryStatus>> {
    let trial = old.trial()?;
    let (rule, canary) = (trial.rule(), trial.canary());
    let (status, (before, now)) = (canary.status(), trial.served(old));
    Some(Box::new(CanaryStatus {
        version: canary.version().to_string(),
        state: status.state.as_str().to_owned(),
        reason: status.reason,
        share_percent: rule.share_percent,
        since: trial.began_at().to_string(),
        watched_s: rule.watch.as_secs(),
        calls_wanted: rule.calls,
        calls: now.calls,
        errors: now.failures,
        old_calls: before.calls,
        old_errors: before.failures,
    }))
}

fn rolled_back(cell: &Cell) -> Option<RolledBackStatus> {
    let RolledBack { version, at, reason } = cell.rolled_back()?;
    Some(RolledBackStatus { version: version.to_string(), at: at.to_string(), reason })
}

/// How a plugin runs, seen from outside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Runs {
    /// Whether everything that confines it is in force.
    pub confined: bool,
    /// Whether a control group bounds the memory, the threads and the processor time of its
    /// process at every moment. Without, the agent ends a process that it sees with too much.
    #[serde(default)]
    pub control_group: bool,
    /// Its process; absent where it shares the agent's, and while it is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The trust group that shares its process; absent where it shares it with none. Memory and
    /// processor time are those of the process, so each plugin of the group has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Why its memory is not told; absent where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_unknown: Option<String>,
    /// What ended it last; absent where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_crash: Option<LastCrash>,
}

/// Why the memory of a library in the agent's own process is not told.
const MEMORY_UNKNOWN: &str = "a library in the agent's own process takes its memory from the agent's heap, which does not say whose it is";

/// An end that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastCrash {
    /// When, RFC 3339.
    pub at: String,
    /// What happened.
    pub reason: String,
    /// The end of what it wrote; often empty.
    pub last_words: String,
}

impl From<Vitals> for Runs {
    fn from(vitals: Vitals) -> Self {
        let is_library = vitals.tier == Tier::InProcess;
        Runs {
            confined: vitals.confined,
            control_group: vitals.control_group,
            pid: vitals.pid,
            group: vitals.group,
            memory_unknown: is_library.then(|| MEMORY_UNKNOWN.to_owned()),
            last_crash: vitals.last_crash.map(|crash| LastCrash {
                at: crash.at.to_string(),
                reason: crash.reason,
                last_words: crash.last_words,
            }),
        }
    }
}

/// One capability that a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CapabilityStatus {
    /// What it asks for, as `group:detail`.
    pub asked: String,
    /// `free` (needs no grant), `granted`, `narrowed`, `refused`, or `refused-optional`, with
    /// which it loads all the same.
    pub outcome: String,
    /// Which parts of it were granted, where it was narrowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
}

/// How long a plugin's calls took. Of calls from plugin to plugin inside the agent's own
/// process, one in 509 is timed, and stands for those before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LatencyStatus {
    /// Half of the calls took no longer, in milliseconds, an eighth off at most.
    pub p50_ms: f64,
    /// 99 of 100 calls took no longer, likewise.
    pub p99_ms: f64,
    /// Every bucket that has calls: the least time in it, in nanoseconds, and how many.
    /// Only where it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<(u64, u64)>,
}

/// The status of every plugin of a host, by name.
pub fn plugins(host: &Host) -> Vec<PluginStatus> {
    let mut known = Lacks::new();
    host.cells().map(|cell| described(cell, Detail::Short, &mut known)).collect()
}

/// How much of the latency is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Two quantiles.
    Short,
    /// The buckets, too.
    Buckets,
}

/// The status of one plugin.
pub fn plugin(cell: &Cell, detail: Detail) -> PluginStatus {
    described(cell, detail, &mut Lacks::new())
}

fn described(cell: &Cell, detail: Detail, known: &mut Lacks) -> PluginStatus {
    let (status, manifest, reading) = (cell.status(), cell.manifest(), cell.meter().read());
    let (running, vitals) = (cell.running(), cell.vitals());
    let tier = vitals.as_ref().map_or_else(|| cell.meant_for(), |vitals| vitals.tier);
    let restarts = vitals.as_ref().filter(|_| tier != Tier::InProcess).map(|v| v.restarts);
    let (breaker, services) = cell.breakers().states();
    let open_until_ms = Some(breaker.open_until_ms()).filter(|ms| *ms > 0);
    let lacks = || status.state.serves().then(|| cell.lacks(known)).flatten();
    let reason = status.reason.clone().or_else(lacks);
    let outcomes = Outcome::ALL.into_iter().filter(|outcome| reading.count(*outcome) > 0);
    PluginStatus {
        plugin: cell.name().to_string(),
        version: cell.version().to_string(),
        state: status.state.as_str().to_owned(),
        since: status.since.to_string(),
        reason,
        critical: manifest.critical,
        tier: tier.as_str().to_owned(),
        calls: reading.calls() + running,
        errors: reading.served().failures,
        panics: reading.count(Outcome::Panicked),
        faults: reading.faults,
        outcomes: outcomes.map(|o| (o.as_str().to_owned(), reading.count(o))).collect(),
        latency: latency(&reading.latency, detail),
        running,
        queued: reading.queued,
        refused: reading.refused,
        denials: reading.denials,
        log_lines_dropped: reading.lines_dropped,
        activation_ms: reading.activation.map(millis),
        restarts: restarts.map(|restarts| restarts + cell.restarts()),
        cpu_ms: vitals.as_ref().and_then(|vitals| vitals.cpu_ms),
        memory_bytes: vitals.as_ref().and_then(|vitals| vitals.resident_bytes),
        breaker: breaker.state().as_str().to_owned(),
        breaker_open_until: open_until_ms.map(|ms| Timestamp::from_millis(ms).to_string()),
        service_breakers: services
            .into_iter()
            .map(|(name, state)| (name, state.as_str().to_owned()))
            .collect(),
        links: cell.link_status(),
        services: manifest
            .services
            .iter()
            .map(|service| format!("{} {}", service.export.name, service.export.version))
            .collect(),
        capabilities: cell.capabilities(),
        routes: manifest
            .routes
            .iter()
            .map(|route| format!("{} {}", route.methods.join(","), route.path))
            .collect(),
        runs: vitals.map(Runs::from),
        canary: canary(cell),
        rolled_back: rolled_back(cell),
    }
}

fn latency(latency: &Latency, detail: Detail) -> Option<LatencyStatus> {
    Some(LatencyStatus {
        p50_ms: millis(latency.quantile(0.5)?),
        p99_ms: millis(latency.quantile(0.99)?),
        buckets: if detail == Detail::Buckets { latency.buckets() } else { Vec::new() },
    })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// `{"Ok": null}` or `{"Err": "why not"}`.
fn ready_schema() -> utoipa::openapi::Schema {
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
    let object = |key: &str, content: Type| {
        ObjectBuilder::new()
            .property(key, ObjectBuilder::new().schema_type(content))
            .required(key)
            .build()
    };
    let both = OneOfBuilder::new().item(object("Ok", Type::Null)).item(object("Err", Type::String));
    both.build().into()
}

/// Whether any plugin could not be loaded.
pub fn any_failed(host: &Host) -> bool {
    host.cells().any(|cell| matches!(cell.status().state, State::Failed | State::Blocked))
}

/// Whether requests should be sent to this host, and what that depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether everything is well without which it does no work.
    pub ready: bool,
    /// The first thing that is not; absent where it is ready.
    pub reason: Option<String>,
    /// Everything it depends on.
    pub dependencies: Vec<Dependency>,
}

/// One thing that a host depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dependency {
    /// `sync`, `generation`, `registry`, or `plugin org/name`.
    pub name: String,
    /// Whether the host is not ready without it.
    pub required: bool,
    /// Whether it is well.
    pub ok: bool,
    /// How it is, in words.
    pub detail: String,
}
