//! What a running agent says about itself.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Inner;
use crate::admin::GenerationStatus;
use crate::host::{Cell, Host};
use crate::metrics::{process, prometheus};
use crate::status::{AgentStatus, Dependency, Detail, HeadStatus, Readiness, plugin, plugins};
use crate::store::{Error, Generations};
use crate::sync::{HeadSummary, age_text};

impl Inner {
    /// What is loaded now.
    pub(crate) fn host(&self) -> Arc<Host> {
        self.host.load_full()
    }

    /// The agent and all plugins. Reads files of the kernel's, two a process.
    pub(crate) fn status(&self) -> AgentStatus {
        AgentStatus { plugins: plugins(&self.host.load()), ..self.own_status() }
    }

    /// The agent, without its plugins.
    fn own_status(&self) -> AgentStatus {
        let head = self.syncer.client().kept_head().map(|head| {
            let HeadSummary { origin, epoch, issued_at, age_s } = HeadSummary::of(&head);
            HeadStatus { origin, epoch, issued_at, age_s }
        });
        let readiness = self.readiness();
        let last = self.last();
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            gateway: self.gateway.to_string(),
            generation: last.generation,
            head,
            last_sync: last.sync.clone(),
            ready: readiness.reason.map_or(Ok(()), Err),
            process: process::own(),
            plugins: Vec::new(),
        }
    }

    /// What this host depends on, and whether it is ready by that: the first load has ended,
    /// and every critical plugin does all that it is there for.
    pub(crate) fn readiness(&self) -> Readiness {
        let host = self.host.load();
        let (settled, generation, sync) = {
            let last = self.last();
            (last.settled, last.generation, last.sync.clone())
        };
        let dependency = |name: &str, required, ok, detail: String| Dependency {
            name: name.to_owned(),
            required,
            ok,
            detail,
        };
        let first =
            if settled { "the first sync has ended" } else { "the first sync has not ended" };
        let loaded = match generation {
            Some(number) => format!("generation {number} runs"),
            None => "no generation could be loaded".to_owned(),
        };
        let nothing_wanted = self.config().plugins.is_empty();
        let registry = match &sync {
            None => (false, "it was not asked yet".to_owned()),
            Some(last) => match last.error.as_ref().or(last.offline.as_ref()) {
                Some(reason) => (false, reason.clone()),
                None => (true, format!("it answered at {}", last.at)),
            },
        };
        let mut dependencies = Vec::new();
        if self.stopping.load(Ordering::Relaxed) {
            let detail = "the agent is stopping".to_owned();
            dependencies.push(dependency("agent", true, false, detail));
        }
        dependencies.extend([
            dependency("sync", true, settled, first.to_owned()),
            dependency("generation", true, generation.is_some() || nothing_wanted, loaded),
            dependency("registry", false, registry.0, registry.1),
        ]);
        if let Some(head) = self.syncer.client().kept_head() {
            let head = HeadSummary::of(&head);
            let detail = format!("epoch {}, {} old", head.epoch, age_text(head.age_s));
            dependencies.push(dependency("head", false, true, detail));
        }
        for (cell, is_ready, detail) in host.critical() {
            let name = format!("plugin {}", cell.name());
            dependencies.push(dependency(&name, true, is_ready, detail));
        }
        let missing = dependencies.iter().find(|dependency| dependency.required && !dependency.ok);
        let reason = missing.map(|missing| match missing.name.strip_prefix("plugin ") {
            Some(plugin) => format!("{plugin} is critical and {}", missing.detail),
            None => missing.detail.clone(),
        });
        Readiness { ready: reason.is_none(), reason, dependencies }
    }

    /// Every kept generation, the newest first. Blocks.
    pub(crate) fn generations(&self) -> Result<Vec<GenerationStatus>, Error> {
        list(self.syncer.generations(), self.last().generation)
    }

    /// All that is counted, in Prometheus' text form. Reads files as [`Inner::status`] does.
    pub(crate) fn metrics(&self) -> Result<String, fmt::Error> {
        let host = self.host();
        let status = AgentStatus { plugins: plugins(&host), ..self.own_status() };
        let canaries: Vec<_> = host.cells().filter_map(|cell| cell.trial()).collect();
        let canaries = canaries.iter().map(|trial| trial.canary());
        let statuses = canaries.clone().map(|cell| plugin(cell, Detail::Short)).collect();
        let latency = |cell: &Arc<Cell>| cell.meter().read().latency;
        let latencies = host.cells().chain(canaries).map(latency).collect();
        prometheus::Exposition { status, canaries: statuses, latencies }.encode()
    }
}

/// Every generation that is kept below a state folder, the newest first, where no agent runs.
///
/// # Errors
/// One of them cannot be read.
pub fn kept_generations(state_dir: &Path) -> Result<Vec<GenerationStatus>, Error> {
    list(&Generations::open(state_dir)?, None)
}

fn list(generations: &Generations, running: Option<u64>) -> Result<Vec<GenerationStatus>, Error> {
    let current = generations.current()?.map(|generation| generation.number);
    let pinned = generations.pinned()?;
    let numbers = generations.numbers()?.into_iter().rev();
    let one = |number| {
        let lock = generations.read(number)?.lock;
        let plugins = lock.plugins.iter();
        Ok(GenerationStatus {
            number,
            current: current == Some(number),
            running: running == Some(number),
            pinned: pinned == Some(number),
            made_at: generations.made_at(number)?.to_string(),
            issued_at: lock.issued_at.to_string(),
            epoch: lock.epoch,
            plugins: plugins.map(|p| format!("{} {}", p.plugin, p.version)).collect(),
        })
    };
    numbers.map(one).collect()
}
