//! What is shown: rates and times between two looks, sorted and filtered.

use std::cmp::Ordering;
use std::time::Instant;

use clap::ValueEnum;
use modunest_agent::metrics::Latency;
use modunest_agent::status::{
    AgentStatus, CanaryStatus, PluginStatus, RolledBackStatus, tier_text,
};
use serde::Serialize;

/// One look at the agent.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: AgentStatus,
    pub(super) plugins: Vec<PluginStatus>,
}

/// A column that can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Column {
    Plugin,
    State,
    Calls,
    Errors,
    P50,
    P99,
    Cpu,
    Memory,
    Restarts,
}

/// One plugin between two looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) plugin: String,
    pub(super) version: String,
    pub(super) state: String,
    pub(super) tier: String,
    /// Whether its process runs without all that should confine it.
    pub(super) unconfined: bool,
    /// Calls a second.
    pub(super) calls_s: f64,
    /// Calls a second that failed by whatever fault of the plugin's.
    pub(super) errors_s: f64,
    /// All of these since it was loaded.
    pub(super) errors: u64,
    /// Of the calls between the two looks; without any, of all since it was loaded.
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) running: u64,
    pub(super) queued: u64,
    /// Processors that it kept busy.
    pub(super) cpus: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
    /// The trust group whose process these two are of.
    pub(super) group: Option<String>,
    pub(super) restarts: Option<u64>,
    pub(super) breaker: String,
    pub(super) reason: Option<String>,
    /// The release that is being tried in its place, with its calls since its trial began.
    pub(super) canary: Option<Box<CanaryStatus>>,
    /// The release that was tried last and rolled back.
    pub(super) rolled_back: Option<RolledBackStatus>,
}

impl Row {
    /// Where it runs, for people: the tier, and whether that holds.
    pub(super) fn tier_text(&self) -> String {
        tier_text(&self.tier, self.unconfined)
    }
}

/// The whole agent between two looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    pub(super) version: String,
    pub(super) generation: Option<u64>,
    pub(super) ready: bool,
    /// Time between the two looks, in seconds.
    pub(super) interval_s: f64,
    /// Calls a second to all plugins.
    pub(super) calls_s: f64,
    pub(super) plugins: Vec<Row>,
}

/// What a user looks at.
#[derive(Debug)]
pub(super) struct View {
    before: Option<Sample>,
    now: Option<Sample>,
    /// Why there is nothing newer.
    pub(super) lost: Option<String>,
    pub(super) sort: Column,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// Whether the filter is being typed.
    pub(super) typing: bool,
    pub(super) help: bool,
    /// Whether new looks are left out.
    pub(super) paused: bool,
    /// Row that is chosen, from the top.
    pub(super) chosen: usize,
}

impl View {
    pub(super) fn new(sort: Column, filter: String) -> Self {
        View {
            before: None,
            now: None,
            lost: None,
            sort,
            reversed: false,
            filter,
            typing: false,
            help: false,
            paused: false,
            chosen: 0,
        }
    }

    /// Takes the next look in.
    pub(super) fn take(&mut self, sample: Sample) {
        self.lost = None;
        if !self.paused {
            self.before = self.now.replace(sample);
        }
    }

    /// The agent did not answer.
    pub(super) fn lost(&mut self, error: String) {
        self.lost = Some(error);
    }

    /// The agent at the last look.
    pub(super) fn status(&self) -> Option<&AgentStatus> {
        self.now.as_ref().map(|sample| &sample.status)
    }

    /// One plugin at the last look.
    pub(super) fn plugin(&self, name: &str) -> Option<&PluginStatus> {
        self.now.as_ref()?.plugins.iter().find(|plugin| plugin.plugin == name)
    }

    /// Time between the two last looks, in seconds.
    pub(super) fn interval_s(&self) -> f64 {
        match (&self.before, &self.now) {
            (Some(before), Some(now)) => now.at.duration_since(before.at).as_secs_f64(),
            _ => 0.0,
        }
    }

    /// The rows to show, in their order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let Some(now) = &self.now else { return Vec::new() };
        let interval_s = self.interval_s();
        let earlier = |plugin: &PluginStatus| {
            let before = self.before.as_ref()?.plugins.iter();
            // Counters of another version, or of one that was loaded anew, start again.
            before
                .clone()
                .find(|b| b.plugin == plugin.plugin && b.version == plugin.version)
                .filter(|b| b.calls <= plugin.calls)
        };
        let mut rows: Vec<Row> =
            now.plugins.iter().map(|plugin| row(plugin, earlier(plugin), interval_s)).collect();
        let wanted = self.filter.to_lowercase();
        rows.retain(|row| {
            [&row.plugin, &row.version, &row.state, &row.tier_text()]
                .iter()
                .any(|text| text.to_lowercase().contains(&wanted))
        });
        rows.sort_by(|one, other| {
            let order = compare(self.sort, one, other);
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| one.plugin.cmp(&other.plugin))
        });
        rows
    }

    /// The same for programs.
    pub(super) fn report(&self) -> Report {
        let rows = self.rows();
        let status = self.status();
        Report {
            version: status.map(|status| status.version.clone()).unwrap_or_default(),
            generation: status.and_then(|status| status.generation),
            ready: status.is_some_and(|status| status.ready.is_ok()),
            interval_s: self.interval_s(),
            calls_s: rows.iter().map(|row| row.calls_s).sum(),
            plugins: rows,
        }
    }
}

/// The most interesting first: names rise, numbers fall, trouble is on top.
fn compare(column: Column, one: &Row, other: &Row) -> Ordering {
    let falling = |value: fn(&Row) -> f64| value(other).total_cmp(&value(one));
    match column {
        Column::Plugin => one.plugin.cmp(&other.plugin),
        Column::State => trouble(one).cmp(&trouble(other)).then(one.state.cmp(&other.state)),
        Column::Calls => falling(|row| row.calls_s),
        Column::Errors => falling(|row| row.errors_s).then(other.errors.cmp(&one.errors)),
        Column::P50 => falling(|row| row.p50_ms.unwrap_or(-1.0)),
        Column::P99 => falling(|row| row.p99_ms.unwrap_or(-1.0)),
        Column::Cpu => falling(|row| row.cpus.unwrap_or(-1.0)),
        Column::Memory => other.memory_bytes.cmp(&one.memory_bytes),
        Column::Restarts => other.restarts.cmp(&one.restarts),
    }
}

/// Less is worse.
fn trouble(row: &Row) -> u8 {
    match row.state.as_str() {
        "failed" => 0,
        "blocked" => 1,
        "ready" => 3,
        _ => 2,
    }
}

fn row(now: &PluginStatus, before: Option<&PluginStatus>, interval_s: f64) -> Row {
    let rate = |count: fn(&PluginStatus) -> u64| match before {
        Some(before) if interval_s > 0.0 => {
            count(now).saturating_sub(count(before)) as f64 / interval_s
        }
        _ => 0.0,
    };
    let latency = |plugin: &PluginStatus| {
        plugin.latency.as_ref().map(|latency| Latency::of_buckets(&latency.buckets))
    };
    let whole = latency(now).unwrap_or_default();
    let between = before.map(|before| whole.since(&latency(before).unwrap_or_default()));
    let latency = between.filter(|between| between.count() > 0).unwrap_or(whole);
    let quantile = |share| latency.quantile(share).map(|time| time.as_secs_f64() * 1e3);
    let cpus = now.cpu_ms.zip(before.and_then(|before| before.cpu_ms)).filter(|_| interval_s > 0.0);
    Row {
        plugin: now.plugin.clone(),
        version: now.version.clone(),
        state: now.state.clone(),
        tier: now.tier.clone(),
        unconfined: now.is_unconfined(),
        calls_s: rate(|plugin| plugin.calls),
        errors_s: rate(|plugin| plugin.errors),
        errors: now.errors,
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        running: now.running,
        queued: now.queued,
        cpus: cpus.map(|(now, before)| now.saturating_sub(before) as f64 / 1e3 / interval_s),
        memory_bytes: now.memory_bytes,
        group: now.runs.as_ref().and_then(|runs| runs.group.clone()),
        restarts: now.restarts,
        breaker: now.breaker.clone(),
        reason: now.reason.clone(),
        canary: now.canary.clone(),
        rolled_back: now.rolled_back.clone(),
    }
}
