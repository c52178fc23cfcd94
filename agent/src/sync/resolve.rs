//! Drives the resolver with verified reads.

use std::collections::{BTreeMap, BTreeSet};

use modunest_core::Version;
use modunest_core::index::IndexFile;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::relation::HostFacts;
use modunest_core::resolve::{
    Candidate, Request, Resolver, Root, Solution, Status as CandidateStatus, Step, Warning,
};
use modunest_core::statement::{PluginState, ReleaseState, Status, Subject};

use super::policy::{Judgement, Policy};
use super::{Error, Locked};
use crate::config::Wanted;
use crate::registry::{self, Client};
use crate::store::{Evidence, Tries};

/// An answer of the resolver, with the statements that it rests on.
#[derive(Debug)]
pub struct Resolved {
    /// The answer.
    pub solution: Solution,
    /// The chosen releases, by name.
    pub locked: Vec<Locked>,
    /// What proves them.
    pub evidence: Evidence,
    /// Plugins that were looked at.
    pub considered: usize,
}

/// Resolves what is wanted under the client's head. `locked` versions are preferred; what
/// `policy` refuses is not chosen, and neither is what was `tried` in vain.
///
/// # Errors
/// [`Error::NoSolution`] with the whole report, [`Error::Exceeded`], or a read that failed.
pub async fn resolve(
    client: &Client,
    wanted: &BTreeMap<PluginName, Wanted>,
    locked: BTreeMap<PluginName, Version>,
    host: HostFacts,
    policy: &Policy,
    tried: &Tries,
) -> Result<Resolved, Error> {
    let roots = wanted
        .iter()
        .map(|(plugin, wanted)| Root {
            plugin: plugin.clone(),
            requirement: wanted.requirement.clone(),
        })
        .collect();
    let mut resolver = Resolver::new(Request { roots, locked, host });
    let mut states: BTreeMap<PluginName, PluginState> = BTreeMap::new();
    let mut evidence = Evidence::default();
    let mut considered = 0;
    let mut solution = loop {
        match resolver.step() {
            Step::Need(names) => {
                tracing::debug!(count = names.len(), "reading index files");
                let read = client.read(&names).await?;
                evidence.0.extend(read.files);
                for (name, state) in read.plugins {
                    considered += 1;
                    resolver.provide(&name, candidates(&name, state.as_ref(), policy, tried));
                    states.extend(state.map(|state| (name, state)));
                }
            }
            Step::Done(solution) => break solution,
            Step::NoSolution(report) => return Err(Error::NoSolution(Box::new(report))),
            Step::Exceeded(limit) => return Err(Error::Exceeded(limit)),
        }
    };
    let proving: BTreeSet<OrgName> = evidence
        .0
        .iter()
        .filter(|(subject, _)| matches!(subject, Subject::Plugin(plugin) if solution.chosen.contains_key(plugin)))
        .map(|(subject, file)| IndexFile::parse(subject, file).map(|file| file.orgs()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(registry::Error::from)?
        .into_iter()
        .flatten()
        .collect();
    evidence.0.retain(|subject, _| match subject {
        Subject::Plugin(plugin) => solution.chosen.contains_key(plugin),
        Subject::Org(org) => proving.contains(org),
    });
    solution.warnings.extend(findings(&solution, &states, policy));
    let locked = locked_releases(&solution, &states)?;
    Ok(Resolved { solution, locked, evidence, considered })
}

/// Warnings about chosen releases whose scan found something.
fn findings(
    solution: &Solution,
    states: &BTreeMap<PluginName, PluginState>,
    policy: &Policy,
) -> Vec<Warning> {
    let chosen = solution.chosen.iter().filter_map(|(plugin, chosen)| {
        let state = states.get(plugin)?;
        match policy.judge(state, state.releases.get(&chosen.version)?) {
            Judgement::Findings(report) => {
                let (plugin, version) = (plugin.clone(), chosen.version.clone());
                Some(Warning::Findings { plugin, version, report })
            }
            Judgement::Allowed | Judgement::Refused(_) => None,
        }
    });
    chosen.collect()
}

fn status(
    plugin: &PluginState,
    release: &ReleaseState,
    policy: &Policy,
    rolled_back: Option<String>,
) -> CandidateStatus {
    let judgement = rolled_back.map_or_else(|| policy.judge(plugin, release), Judgement::Refused);
    match (plugin.status(release), judgement) {
        (Status::Quarantined { reason }, _) => CandidateStatus::Quarantined(reason),
        (_, Judgement::Refused(reason)) => CandidateStatus::Refused(reason),
        (Status::Active, _) => CandidateStatus::Active,
        (Status::Deprecated { message }, _) => {
            CandidateStatus::Deprecated(message.unwrap_or_default())
        }
        (Status::Yanked { .. }, _) => CandidateStatus::Yanked,
    }
}

fn candidates(
    name: &PluginName,
    state: Option<&PluginState>,
    policy: &Policy,
    tried: &Tries,
) -> Vec<Candidate> {
    let releases = state
        .into_iter()
        .flat_map(|plugin| plugin.releases.values().map(move |release| (plugin, release)));
    releases
        .map(|(plugin, state)| Candidate {
            version: state.release.version.clone(),
            status: status(plugin, state, policy, tried.refusal(name, state.statement)),
            dependencies: state.release.dependencies.clone(),
            incompatible: state.release.incompatible.clone(),
            host: state.release.host.clone(),
            builds: state.release.builds.iter().map(|build| build.target.clone()).collect(),
        })
        .collect()
}

fn locked_releases(
    solution: &Solution,
    states: &BTreeMap<PluginName, PluginState>,
) -> Result<Vec<Locked>, Error> {
    let one = |(plugin, chosen): (&PluginName, &modunest_core::resolve::Chosen)| {
        let state = states.get(plugin)?.releases.get(&chosen.version)?;
        let build = state.release.builds.get(chosen.build_index)?;
        let uses = solution.edges.get(plugin).into_iter().flatten();
        Some(Locked {
            plugin: plugin.clone(),
            version: chosen.version.clone(),
            statement: state.statement,
            target: build.target.clone(),
            archive: build.archive,
            size_bytes: build.size_bytes,
            files: build.files,
            uses: uses.map(|edge| edge.plugin.clone()).collect(),
        })
    };
    solution
        .chosen
        .iter()
        .map(|entry| one(entry).ok_or_else(|| Error::Solution { plugin: entry.0.clone() }))
        .collect()
}
