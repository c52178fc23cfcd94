//! `status` and `plugins`: what runs, the trouble first.

use clap::Args;
use modunest_agent::admin::STATUS_PATH;
use modunest_agent::status::{AgentStatus, PluginStatus};
use modunest_agent::sync::age_text;
use modunest_agent::{Config, EXIT_FAILED, EXIT_OK, Error};

use super::client::AgentClient;
use super::units::{size, time};
use super::{print, query};

/// Plugins that `status` lists all; of more, it lists those that want to be looked at.
const LISTED: usize = 20;
/// Longest reason in a table, in characters; `--json` has the whole.
const REASON_MAX: usize = 160;

#[derive(Args)]
pub(super) struct PluginsArguments {
    /// Only plugins with this in their name, version, state or tier
    #[arg(default_value = "")]
    filter: String,
    /// Show what each plugin of the running agent asks for, and what it was granted
    #[arg(long)]
    capabilities: bool,
}

pub(super) async fn status(config: &Config, json: bool) -> Result<u8, Error> {
    let status: AgentStatus = AgentClient::of(config)?.get(STATUS_PATH).await?;
    print::text_or_json(json, &summary(&status), &status)?;
    Ok(if status.ready.is_ok() { EXIT_OK } else { EXIT_FAILED })
}

pub(super) async fn plugins(
    config: &Config,
    arguments: &PluginsArguments,
    json: bool,
) -> Result<u8, Error> {
    let asked: Result<AgentStatus, Error> = AgentClient::of(config)?.get(STATUS_PATH).await;
    match asked {
        Ok(status) => {
            let wanted = arguments.filter.to_lowercase();
            let matches = |plugin: &PluginStatus| {
                [&plugin.plugin, &plugin.version, &plugin.state, &plugin.tier_text()]
                    .iter()
                    .any(|text| text.to_lowercase().contains(&wanted))
            };
            let plugins: Vec<PluginStatus> =
                status.plugins.into_iter().filter(|plugin| matches(plugin)).collect();
            let text = if arguments.capabilities {
                capability_table(&plugins)
            } else {
                table(plugins.iter())
            };
            print::text_or_json(json, &text, &plugins)?;
        }
        Err(Error::NoAgent { .. }) if !arguments.capabilities => {
            let generation = query::current(config)?;
            let rows: Vec<[String; 3]> = generation
                .lock
                .plugins
                .iter()
                .filter(|p| p.plugin.as_str().contains(&arguments.filter))
                .map(|p| [p.plugin.to_string(), p.version.to_string(), "not running".to_owned()])
                .collect();
            let text = print::table(["PLUGIN", "VERSION", "STATE"], &rows);
            print::text_or_json(json, &text, &generation.lock.plugins)?;
        }
        Err(error) => return Err(error),
    }
    Ok(EXIT_OK)
}

fn capability_table(plugins: &[PluginStatus]) -> String {
    let rows: Vec<[String; 4]> = plugins
        .iter()
        .flat_map(|plugin| {
            plugin.capabilities.iter().map(|one| {
                let (word, denials) = (one.outcome.clone(), plugin.denials.to_string());
                let outcome = match one.parts.as_slice() {
                    [] => word,
                    parts => format!("{word} to {}", parts.join(" ")),
                };
                [plugin.plugin.clone(), denials, one.asked.clone(), outcome]
            })
        })
        .collect();
    if rows.is_empty() {
        return "no plugin asks for anything\n".to_owned();
    }
    print::table(["PLUGIN", "DENIALS", "ASKS FOR", "OUTCOME"], &rows)
}

/// All that `status` says.
fn summary(status: &AgentStatus) -> String {
    let mut text = match &status.ready {
        Ok(()) => "ready\n".to_owned(),
        Err(reason) => format!("NOT READY: {}\n", print::printable(reason)),
    };
    let mut line = |name: &str, what: String| text.push_str(&format!("{name:<11}{what}\n"));
    line("agent", format!("{}, gateway http://{}", status.version, status.gateway));
    line("generation", status.generation.map_or("none".to_owned(), |number| number.to_string()));
    if let Some(head) = &status.head {
        let age = age_text(head.age_s);
        line("head", format!("epoch {} of {}, {age} old", head.epoch, head.origin));
    }
    if let Some(last) = &status.last_sync {
        let how = match (&last.error, &last.offline) {
            (Some(error), _) => format!("FAILED: {}", print::printable(error)),
            (None, Some(reason)) => format!("without the registry: {}", print::printable(reason)),
            (None, None) => "done".to_owned(),
        };
        line("last sync", format!("{}, {how}", last.at));
    }
    if let Some(process) = &status.process {
        line("process", format!("{}, {} threads", size(process.resident_bytes), process.threads));
    }
    line("plugins", counted(&status.plugins));
    match status.plugins.iter().filter(|plugin| plugin.is_unconfined()).count() {
        0 => {}
        count => line("UNCONFINED", format!("{count} of these, whose sandbox is not whole")),
    }
    let (listed, rest): (Vec<&PluginStatus>, usize) = if status.plugins.len() <= LISTED {
        (status.plugins.iter().collect(), 0)
    } else {
        let listed: Vec<&PluginStatus> =
            status.plugins.iter().filter(|plugin| wants_a_look(plugin)).collect();
        let rest = status.plugins.len() - listed.len();
        (listed, rest)
    };
    if !listed.is_empty() {
        text.push('\n');
        text.push_str(&table(listed.into_iter()));
    }
    if rest > 0 {
        text.push_str(&format!(
            "\n{rest} more serve without trouble; `modunest-agent plugins` lists all\n"
        ));
    }
    text
}

/// How many there are, by state.
fn counted(plugins: &[PluginStatus]) -> String {
    let mut states: Vec<(&str, usize)> = Vec::new();
    for plugin in plugins {
        match states.iter_mut().find(|(state, _)| *state == plugin.state) {
            Some((_, count)) => *count += 1,
            None => states.push((&plugin.state, 1)),
        }
    }
    states.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let states: Vec<String> =
        states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    if states.is_empty() { "none".to_owned() } else { states.join(", ") }
}

fn wants_a_look(plugin: &PluginStatus) -> bool {
    let is_changing = plugin.canary.is_some() || plugin.rolled_back.is_some();
    let is_well = plugin.state == "ready" && plugin.reason.is_none();
    !is_well || plugin.errors > 0 || plugin.breaker != "closed" || is_changing
}

/// Less is worse.
fn trouble(plugin: &PluginStatus) -> u8 {
    match plugin.state.as_str() {
        "failed" => 0,
        "blocked" => 1,
        "ready" if wants_a_look(plugin) => 3,
        "ready" => 4,
        _ => 2,
    }
}

fn table<'p>(plugins: impl Iterator<Item = &'p PluginStatus>) -> String {
    let mut plugins: Vec<&PluginStatus> = plugins.collect();
    plugins.sort_by_key(|plugin| trouble(plugin));
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows: Vec<[String; 9]> = plugins
        .into_iter()
        .map(|plugin| {
            let latency = plugin.latency.as_ref();
            [
                plugin.plugin.clone(),
                plugin.version.clone(),
                plugin.state.clone(),
                plugin.tier_text(),
                plugin.calls.to_string(),
                plugin.errors.to_string(),
                or_nothing(latency.map(|latency| time(latency.p99_ms))),
                or_nothing(plugin.memory_bytes.map(size)),
                remark(plugin),
            ]
        })
        .collect();
    let header = [
        "PLUGIN",
        "VERSION",
        "STATE",
        "TIER",
        "CALLS",
        "ERRORS",
        "P99",
        "MEMORY",
        "ROUTES, OR WHY NOT",
    ];
    print::table(header, &rows)
}

/// The one thing to know beside the numbers.
fn remark(plugin: &PluginStatus) -> String {
    if let Some(reason) = &plugin.reason {
        return shortened(reason);
    }
    if let Some(canary) = &plugin.canary {
        let errors = match canary.errors {
            0 => String::new(),
            errors => format!(", {errors} failed"),
        };
        return format!(
            "tries {} for {} of 100 calls: {} served{errors}",
            canary.version, canary.share_percent, canary.calls
        );
    }
    if let Some(tried) = &plugin.rolled_back {
        return format!("{} was rolled back: {}", tried.version, shortened(&tried.reason));
    }
    if plugin.breaker != "closed" {
        let until = plugin.breaker_open_until.as_deref().unwrap_or("its next call");
        return format!("its circuit breaker is {} until {until}", plugin.breaker);
    }
    plugin.routes.join(" ")
}

fn shortened(reason: &str) -> String {
    let mut letters = reason.chars();
    let shown: String = letters.by_ref().take(REASON_MAX).collect();
    if letters.next().is_some() { format!("{shown}…") } else { shown }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn plugin(name: &str, more: serde_json::Value) -> PluginStatus {
        let mut value = json!({
            "plugin": name, "version": "1.0.0", "state": "ready", "since": "2026-01-01T00:00:00Z",
            "reason": null, "critical": false, "tier": "process", "calls": 120, "errors": 0,
            "panics": 0, "outcomes": { "answered": 120 }, "latency": { "p50_ms": 0.4, "p99_ms": 2.5 },
            "running": 0, "queued": 0, "refused": 0, "denials": 0, "activation_ms": 3.0,
            "restarts": 0, "cpu_ms": 12, "memory_bytes": 3_145_728, "breaker": "closed",
            "breaker_open_until": null, "service_breakers": {}, "capabilities": [], "services": [],
            "routes": [format!("GET /{}", name.split('/').next_back().unwrap())],
        });
        let more = more.as_object().unwrap().clone();
        value.as_object_mut().unwrap().extend(more);
        serde_json::from_value(value).unwrap()
    }

    fn status(plugins: Vec<PluginStatus>) -> AgentStatus {
        serde_json::from_value(json!({
            "version": "0.1.0", "gateway": "127.0.0.1:8080", "generation": 12,
            "head": { "origin": "local.modunest", "epoch": 40, "issued_at": "2026-01-01T00:00:00Z", "age_s": 65 },
            "last_sync": { "at": "2026-01-01T00:01:00Z", "error": null, "offline": null },
            "ready": { "Err": "demo/door is critical and failed: no\u{1b}[31m library" },
            "process": { "cpu_s": 2.0, "resident_bytes": 52_428_800, "descriptors": 30, "threads": 14 },
            "plugins": serde_json::to_value(plugins).unwrap(),
        }))
        .unwrap()
    }

    #[test]
    fn trouble_comes_first_and_many_that_serve_are_counted() {
        let mut few = vec![
            plugin("demo/page", json!({})),
            plugin(
                "demo/slow",
                json!({ "errors": 7, "breaker": "open", "breaker_open_until": "2026-01-01T00:05:00Z" }),
            ),
            plugin(
                "demo/door",
                json!({ "state": "failed", "reason": "no\u{1b}[31m library\n".repeat(20), "latency": null }),
            ),
            plugin(
                "demo/user",
                json!({ "state": "blocked", "reason": "needs demo/door 1.0.0, which failed", "memory_bytes": null }),
            ),
        ];
        let lacks = json!({ "reason": "needs demo/door 1.0.0, which failed" });
        few.push(plugin("demo/lacks", lacks));
        let runs = |confined: bool| json!({ "runs": { "confined": confined, "pid": 7 } });
        few.push(plugin("demo/walled", runs(true)));
        few.push(plugin("demo/free", runs(false)));
        let some = summary(&status(few.clone()));
        few.extend((0..300).map(|n| plugin(&format!("demo/p{n}"), json!({}))));
        let many = summary(&status(few));
        insta::assert_snapshot!(format!("{some}\n---\n{many}"));
    }
}
