//! What an agent takes of the machine at one moment, and whether that is level.

use std::collections::BTreeMap;
use std::path::Path;

use super::{LEVEL_DESCRIPTORS_RATIO, LEVEL_RATIO};
use crate::error::Error;
use crate::process;
use crate::report::{Report, Row, Target};
use crate::stats;

const MB: f64 = 1e6;

/// One moment.
pub struct Sample {
    /// Megabytes of the agent that nobody shares.
    agent_mb: f64,
    /// Megabytes of the agent and all plugins' processes, with what they share counted once.
    tree_mb: f64,
    /// Descriptors of the agent.
    descriptors: f64,
    /// Descriptors of the agent and all plugins' processes.
    tree_descriptors: f64,
    /// The agent's by what they are.
    kinds: BTreeMap<String, usize>,
    threads: f64,
    /// Its processes, with those that have ended and nobody has waited for.
    children: f64,
}

impl Sample {
    /// Looks at an agent.
    pub fn take(agent: u32) -> Result<Sample, Error> {
        let folder = Path::new("/proc").join(agent.to_string());
        let count = |name: &str| {
            let path = folder.join(name);
            std::fs::read_dir(&path).map(Iterator::count).map_err(Error::io(&path))
        };
        let kinds = kinds(&folder.join("fd"))?;
        let children = process::children(agent)?;
        let mut tree = process::memory(agent)?;
        let agent_mb = tree.private_bytes as f64 / MB;
        let own = kinds.values().sum::<usize>();
        let mut descriptors = own;
        for child in &children {
            // One that ended meanwhile takes nothing.
            if let Ok(more) = process::memory_of_tree(*child) {
                tree += more;
            }
            let folder = Path::new("/proc").join(child.to_string()).join("fd");
            descriptors += std::fs::read_dir(folder).map_or(0, Iterator::count);
        }
        Ok(Sample {
            agent_mb,
            tree_mb: tree.proportional_bytes as f64 / MB,
            descriptors: own as f64,
            tree_descriptors: descriptors as f64,
            kinds,
            threads: count("task")? as f64,
            children: children.len() as f64,
        })
    }

    /// The one of both with fewer threads.
    pub fn calmer(self, other: Sample) -> Sample {
        if other.threads < self.threads { other } else { self }
    }
}

/// Descriptors by what they are, without their numbers.
fn kinds(folder: &Path) -> Result<BTreeMap<String, usize>, Error> {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        // One that was closed meanwhile is none.
        let Some(target) = entry.ok().and_then(|entry| std::fs::read_link(entry.path()).ok())
        else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let kind = target.split_once(":[").map_or(target.as_str(), |(kind, _)| kind);
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    Ok(kinds)
}

/// What is compared: its name, its unit, what counts as level, and how it is read.
type Figure = (&'static str, &'static str, f64, fn(&Sample) -> f64);

/// Compares the end with the start, at rest and while all went on.
pub fn add_rows(report: &mut Report, start: &Sample, end: &Sample, all: &[Sample]) {
    let figures: [Figure; 6] = [
        ("memory of the agent, private", "MB", LEVEL_RATIO, |s| s.agent_mb),
        ("memory of all, proportional", "MB", LEVEL_RATIO, |s| s.tree_mb),
        ("descriptors of the agent", "", LEVEL_DESCRIPTORS_RATIO, |s| s.descriptors),
        ("descriptors of all", "", LEVEL_DESCRIPTORS_RATIO, |s| s.tree_descriptors),
        ("threads of the agent", "", LEVEL_RATIO, |s| s.threads),
        ("processes below it", "", LEVEL_RATIO, |s| s.children),
    ];
    for (what, unit, level, get) in figures {
        let row = Row::new(format!("{what}, at rest"), unit, get(end));
        report.row(row.against("at the start", get(start)).target(Target::RatioMax(level)));
    }
    let quarter = all.len() / 4;
    if quarter > 0 {
        for (what, unit, _, get) in figures {
            let median = |part: &[Sample]| stats::median(part.iter().map(get).collect());
            let row =
                Row::new(format!("{what}, at work"), unit, median(&all[all.len() - quarter..]));
            report.row(row.against("first quarter", median(&all[..quarter])));
        }
        report.note("at work: medians of the last quarter's looks against the first quarter's");
    }
    let names = start.kinds.keys().chain(end.kinds.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names {
        let of = |sample: &Sample| sample.kinds.get(name).copied().unwrap_or(0);
        let (before, after) = (of(start), of(end));
        if before != after {
            report
                .note(format!("descriptors of {name}: {before} at the start, {after} at the end"));
        }
    }
}
