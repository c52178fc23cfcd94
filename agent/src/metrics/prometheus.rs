//! Everything that is counted, in the text form that Prometheus reads (version 0.0.4).
//!
//! Names follow its conventions: base units, a unit at the end, `_total` for what only grows.
//! The labels are `plugin`, `version` and `tier`, so there are as many series as loaded
//! plugins times a constant: about 48 each, and 3 for each service. A release that is being tried
//! has as many of its own, with the label `variant="canary"`.

use std::fmt;

use modunest_runtime::telemetry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Latency, Outcome, links};
use crate::host::BreakerState;
use crate::status::{AgentStatus, PluginStatus};

pub use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// Name, help, and value of a counter that each plugin may have.
pub(super) type Counted = (&'static str, &'static str, fn(&PluginStatus) -> Option<u64>);
/// Name, help, unit and value of a gauge that each plugin may have.
type Gauged = (&'static str, &'static str, Option<&'static Unit>, fn(&PluginStatus) -> Option<f64>);

/// Families whose values are those of a plugin's process, whoever shares it.
const OF_PROCESS: [&str; 2] = [CPU, RESIDENT_MEMORY];
const CPU: &str = "modunest_plugin_cpu";
const RESIDENT_MEMORY: &str = "modunest_plugin_resident_memory";

/// States of breakers, and what they are called in a label.
const BREAKER_STATES: [(BreakerState, &str); 3] = [
    (BreakerState::Closed, "closed"),
    (BreakerState::Open, "open"),
    (BreakerState::HalfOpen, "half_open"),
];

/// All that one answer says.
#[derive(Debug)]
pub struct Exposition {
    /// The agent and its plugins.
    pub status: AgentStatus,
    /// Releases that are being tried beside those plugins.
    pub canaries: Vec<PluginStatus>,
    /// For each plugin of the status and then for each canary, in their order, how long calls
    /// took.
    pub latencies: Vec<Latency>,
}

impl Exposition {
    /// The text.
    ///
    /// # Errors
    /// When a value cannot be written, which a string never refuses.
    pub fn encode(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn agent(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let status = &self.status;
        let mut info =
            to.encode_descriptor("modunest_agent", "The running agent", None, MetricType::Info)?;
        info.encode_info(&[("version", status.version.as_str())])?;
        gauge(
            to,
            "modunest_ready",
            "Whether every critical plugin is ready",
            None,
            u64::from(status.ready.is_ok()),
        )?;
        if let Some(number) = status.generation {
            gauge(to, "modunest_generation", "Number of the generation that runs", None, number)?;
        }
        if let Some(head) = &status.head {
            let help = "Time since the newest believed head was signed";
            gauge(to, "modunest_head_age", help, Some(&Unit::Seconds), head.age_s)?;
            gauge(
                to,
                "modunest_head_epoch",
                "Epoch of the newest believed head",
                None,
                head.epoch,
            )?;
        }
        if let Some(last) = &status.last_sync {
            let succeeded = u64::from(last.error.is_none());
            gauge(
                to,
                "modunest_last_sync_succeeded",
                "Whether the last look for news came to its end",
                None,
                succeeded,
            )?;
        }
        let mut states =
            to.encode_descriptor("modunest_plugins", "Plugins by state", None, MetricType::Gauge)?;
        for state in crate::host::State::ALL {
            let count = status.plugins.iter().filter(|p| p.state == state.as_str()).count() as u64;
            let labels = [("state", state.as_str())];
            ConstGauge::new(count).encode(states.encode_family(&labels)?)?;
        }
        if let Some(counts) = telemetry::counts() {
            let help = "Spans that a collector has taken";
            counter(to, "modunest_spans_exported", help, None, counts.exported as f64)?;
            let help = "Spans that were lost, because the queue was full or the collector away";
            counter(to, "modunest_spans_dropped", help, None, counts.dropped as f64)?;
        }
        let Some(usage) = status.process else { return Ok(()) };
        let help = "Processor time of the agent's own process";
        counter(to, "process_cpu", help, Some(&Unit::Seconds), usage.cpu_s)?;
        let help = "Memory of the agent's own process";
        gauge(to, "process_resident_memory", help, Some(&Unit::Bytes), usage.resident_bytes)?;
        gauge(
            to,
            "process_open_fds",
            "Open descriptors of the agent's own process",
            None,
            usage.descriptors,
        )?;
        gauge(to, "process_threads", "Threads of the agent's own process", None, usage.threads)
    }

    /// One family of all plugins that have a value for it.
    fn family<'a, T>(
        &'a self,
        to: &mut DescriptorEncoder<'_>,
        (name, help, unit, kind): (&str, &str, Option<&Unit>, MetricType),
        value: impl Fn(usize, &'a PluginStatus) -> Option<T>,
        encode: impl Fn(&T, MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let values = self.variants().map(|(plugin, _)| plugin).enumerate();
        let mut values =
            values.filter_map(|(at, plugin)| Some((plugin, value(at, plugin)?))).peekable();
        // A family without members would be a header over nothing.
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family = to.encode_descriptor(name, help, unit, kind)?;
        for (plugin, value) in values {
            let mut labels = self.labels(plugin);
            // What a process takes is all of its plugins'.
            let is_of_process = OF_PROCESS.contains(&name);
            let group = plugin.runs.as_ref().and_then(|runs| runs.group.as_deref());
            labels.extend(group.filter(|_| is_of_process).map(|group| ("group", group)));
            encode(&value, family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Where breakers stand: of each the state that it is in is 1, the others are 0.
    fn breakers(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Where the plugin's circuit breaker stands";
        let mut family =
            to.encode_descriptor("modunest_plugin_breaker", help, None, MetricType::Gauge)?;
        for (plugin, _) in self.variants() {
            for (state, label) in BREAKER_STATES {
                let mut labels = self.labels(plugin);
                labels.push(("state", label));
                let is_in_it = u64::from(plugin.breaker == state.as_str());
                ConstGauge::new(is_in_it).encode(family.encode_family(&labels)?)?;
            }
        }
        let services = self.variants().flat_map(|(plugin, _)| {
            // Each is `name version`.
            let names = plugin.services.iter().filter_map(|service| service.split(' ').next());
            names.map(move |service| (plugin, service))
        });
        let mut services = services.peekable();
        if services.peek().is_none() {
            return Ok(());
        }
        let help = "Where the circuit breaker of the plugin's service stands";
        let mut family =
            to.encode_descriptor("modunest_service_breaker", help, None, MetricType::Gauge)?;
        for (plugin, service) in services {
            // Those that are closed are not named.
            let closed = BreakerState::Closed.as_str();
            let standing = plugin.service_breakers.get(service).map_or(closed, String::as_str);
            for (state, label) in BREAKER_STATES {
                let mut labels = self.labels(plugin);
                labels.extend([("service", service), ("state", label)]);
                let is_in_it = u64::from(standing == state.as_str());
                ConstGauge::new(is_in_it).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// All that runs of plugins, and whether it is only tried.
    fn variants(&self) -> impl Iterator<Item = (&PluginStatus, bool)> {
        let plugins = self.status.plugins.iter().map(|plugin| (plugin, false));
        plugins.chain(self.canaries.iter().map(|plugin| (plugin, true)))
    }

    fn labels<'p>(&self, plugin: &'p PluginStatus) -> Vec<(&'static str, &'p str)> {
        let mut labels = vec![
            ("plugin", plugin.plugin.as_str()),
            ("version", plugin.version.as_str()),
            ("tier", plugin.tier.as_str()),
        ];
        if self.canaries.iter().any(|canary| std::ptr::eq(canary, plugin)) {
            labels.push(("variant", "canary"));
        }
        labels
    }

    fn plugins(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Calls that reached the plugin, by how they ended";
        let mut calls =
            to.encode_descriptor("modunest_plugin_calls", help, None, MetricType::Counter)?;
        for (plugin, _) in self.variants() {
            for outcome in Outcome::ALL {
                let count = plugin.outcomes.get(outcome.as_str()).copied().unwrap_or_default();
                let mut labels = self.labels(plugin);
                labels.push(("outcome", outcome.as_str()));
                ConstCounter::new(count).encode(calls.encode_family(&labels)?)?;
            }
        }
        let help = "How long calls of the plugin took";
        let kind =
            ("modunest_plugin_call_duration", help, Some(&Unit::Seconds), MetricType::Histogram);
        self.family(
            to,
            kind,
            |at, _| self.latencies.get(at),
            |latency, mut to| {
                let buckets = latency.exported();
                to.encode_histogram::<NoLabelSet>(latency.sum_s(), latency.count(), &buckets, None)
            },
        )?;
        let counters: [Counted; 6] = [
            (
                "modunest_plugin_failures",
                "Calls that failed by whatever fault of the plugin's, as its breaker counts them",
                |p| Some(p.errors),
            ),
            (
                "modunest_plugin_faults",
                "Answers of the plugin that say themselves that something failed",
                |p| Some(p.faults),
            ),
            (
                "modunest_plugin_calls_refused",
                "Calls that were refused before they reached the plugin",
                |p| Some(p.refused),
            ),
            ("modunest_plugin_denials", "What the plugin asked for and may not have", |p| {
                Some(p.denials)
            }),
            (
                "modunest_plugin_log_lines_dropped",
                "Lines of the plugin that were not logged, because they were too many",
                |p| Some(p.log_lines_dropped),
            ),
            (
                "modunest_plugin_restarts",
                "Times that the plugin was started anew after it had failed",
                |p| p.restarts,
            ),
        ];
        for (name, help, value) in counters.into_iter().chain(links::COUNTERS) {
            self.family(
                to,
                (name, help, None, MetricType::Counter),
                |_, p| value(p),
                |value, to| ConstCounter::new(*value).encode(to),
            )?;
        }
        let cpu = (
            CPU,
            "Processor time of the plugin, or of the process that its group shares",
            Some(&Unit::Seconds),
            MetricType::Counter,
        );
        self.family(
            to,
            cpu,
            |_, p| p.cpu_ms,
            |ms, to| ConstCounter::new(*ms as f64 / 1e3).encode(to),
        )?;
        let gauges: [Gauged; 8] = [
            ("modunest_plugin_ready", "Whether the plugin serves", None, |p| {
                Some(f64::from(u8::from(p.state == "ready")))
            }),
            ("modunest_plugin_calls_running", "Calls that are being served", None, |p| {
                Some(p.running as f64)
            }),
            ("modunest_plugin_calls_queued", "Calls that wait for their turn", None, |p| {
                Some(p.queued as f64)
            }),
            (
                "modunest_plugin_activation",
                "How long the last load took",
                Some(&Unit::Seconds),
                |p| p.activation_ms.map(|ms| ms / 1e3),
            ),
            (
                RESIDENT_MEMORY,
                "Memory of the plugin, or of the process that its group shares",
                Some(&Unit::Bytes),
                |p| p.memory_bytes.map(|bytes| bytes as f64),
            ),
            (
                "modunest_plugin_breaker_open",
                "Whether calls are refused because too many failed, but for one that tries",
                None,
                |p| Some(f64::from(u8::from(p.breaker != "closed"))),
            ),
            (
                "modunest_plugin_canary_share_ratio",
                "Share of the calls that another release serves, which is being tried",
                None,
                |p| p.canary.as_ref().map(|canary| f64::from(canary.share_percent) / 100.0),
            ),
            ("modunest_plugin_rolled_back", "Whether its last change was rolled back", None, |p| {
                Some(f64::from(u8::from(p.rolled_back.is_some())))
            }),
        ];
        for (name, help, unit, value) in gauges {
            self.family(
                to,
                (name, help, unit, MetricType::Gauge),
                |_, p| value(p),
                |value, to| ConstGauge::new(*value).encode(to),
            )?;
        }
        let help = "Whether everything that confines the plugin's process is in force";
        self.family(
            to,
            ("modunest_plugin_confined", help, None, MetricType::Gauge),
            |_, p| p.runs.as_ref().filter(|runs| runs.pid.is_some()).map(|runs| runs.confined),
            |confined, to| ConstGauge::new(u64::from(*confined)).encode(to),
        )
    }
}

impl Collector for Exposition {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        self.agent(&mut to)?;
        self.plugins(&mut to)?;
        self.breakers(&mut to)
    }
}

fn gauge(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> fmt::Result {
    ConstGauge::new(value).encode(to.encode_descriptor(name, help, unit, MetricType::Gauge)?)
}

fn counter(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> fmt::Result {
    ConstCounter::new(value).encode(to.encode_descriptor(name, help, unit, MetricType::Counter)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::host::{EventCounters, LinkStatus};
    use crate::metrics::{Histogram, process::Usage};
    use crate::status::{CanaryStatus, HeadStatus, LastSync, Runs};

    fn plugin(name: &str, tier: &str, own_process: bool) -> PluginStatus {
        PluginStatus {
            plugin: name.to_owned(),
            version: "1.2.0".to_owned(),
            state: "ready".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            reason: None,
            critical: false,
            tier: tier.to_owned(),
            calls: 5,
            errors: 1,
            panics: 1,
            faults: 0,
            outcomes: BTreeMap::from([("answered".to_owned(), 4), ("panicked".to_owned(), 1)]),
            latency: None,
            running: 1,
            queued: 2,
            refused: 3,
            denials: 4,
            log_lines_dropped: 5,
            activation_ms: own_process.then_some(12.5),
            restarts: own_process.then_some(2),
            cpu_ms: own_process.then_some(1500),
            memory_bytes: own_process.then_some(4096),
            breaker: if own_process { "open" } else { "closed" }.to_owned(),
            breaker_open_until: None,
            service_breakers: BTreeMap::from([("put".to_owned(), "half-open".to_owned())]),
            capabilities: Vec::new(),
            links: LinkStatus {
                denied: if own_process { 0 } else { 6 },
                events: EventCounters { published: u64::from(!own_process), ..Default::default() },
                ..LinkStatus::default()
            },
            services: if own_process {
                vec!["get 1.0.0".into(), "put 1.0.0".into()]
            } else {
                vec![]
            },
            routes: Vec::new(),
            runs: own_process.then(|| Runs {
                confined: true,
                control_group: false,
                pid: Some(7),
                group: Some("group-0".to_owned()),
                memory_unknown: None,
                last_crash: None,
            }),
            canary: own_process.then(|| {
                Box::new(CanaryStatus {
                    version: "1.3.0".to_owned(),
                    state: "ready".to_owned(),
                    reason: None,
                    share_percent: 10,
                    since: String::new(),
                    watched_s: 0,
                    calls_wanted: 0,
                    calls: 0,
                    errors: 0,
                    old_calls: 0,
                    old_errors: 0,
                })
            }),
            rolled_back: None,
        }
    }

    fn text() -> String {
        let histogram = Histogram::default();
        for micros in [1, 10, 100, 1000, 10_000] {
            histogram.add(std::time::Duration::from_micros(micros), 1);
        }
        let status = AgentStatus {
            version: "0.1.0".to_owned(),
            gateway: "127.0.0.1:8080".to_owned(),
            generation: Some(7),
            head: Some(HeadStatus {
                origin: "a \"quoted\" origin".to_owned(),
                epoch: 9,
                issued_at: "2026-01-01T00:00:00Z".to_owned(),
                age_s: 30,
            }),
            last_sync: Some(LastSync { at: String::new(), error: None, offline: None }),
            ready: Ok(()),
            process: Some(Usage {
                cpu_s: 1.5,
                resident_bytes: 1 << 20,
                descriptors: 9,
                threads: 4,
            }),
            plugins: vec![
                plugin("demo/inside", "in-process", false),
                plugin("demo/own", "process", true),
            ],
        };
        let mut own = plugin("demo/own", "process", true);
        own.version = "1.3.0".to_owned();
        let latencies = vec![Latency::default(), histogram.read(), Latency::default()];
        Exposition { status, canaries: vec![own], latencies }.encode().unwrap()
    }

    #[test]
    fn everything_is_exposed() {
        insta::assert_snapshot!(text());
    }

    /// The conventions of <https://prometheus.io/docs/practices/naming/>, as `promtool check
    /// metrics` judges them.
    #[test]
    fn names_follow_the_conventions() {
        let text = text();
        let mut families = BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(families.insert(name, kind).is_none(), "{name} is there twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                let fine = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                assert!(fine, "{name}");
                for unit in ["_ms", "_millis", "_us", "_ns", "_kb", "_mb", "_percent"] {
                    assert!(!name.contains(unit), "{name} is in no base unit");
                }
            }
        }
        let mut series = BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(key), "{key} is there twice");
        }
        let of_one = series.iter().filter(|key| key.contains("demo/own\",version=\"1.2.0")).count();
        let of_services = 2 * BREAKER_STATES.len();
        assert!(of_one <= 50 + of_services, "{of_one} series a plugin");
    }

    /// The names in the first column of the table, and all that can be told.
    #[test]
    fn the_documentation_names_every_family_and_no_other() {
        let page = include_str!("../../../docs/operations.md");
        let (_, section) = page.split_once("\n## Metrics\n").unwrap();
        let rows = section.split("\n## ").next().unwrap().lines();
        let first = rows.filter_map(|row| row.strip_prefix("| ")?.split(" |").next());
        let told: BTreeSet<&str> = first
            .flat_map(|column| column.split('`').skip(1).step_by(2))
            .filter(|name| name.starts_with("modunest_") || name.starts_with("process_"))
            .collect();
        let text = text();
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        // Only a process that exports spans counts them.
        let of_spans = ["modunest_spans_exported_total", "modunest_spans_dropped_total"];
        let families: BTreeSet<&str> = names.chain(of_spans).collect();
        assert_eq!(told, families);
    }
}
