#![allow(clippy::unwrap_used, clippy::expect_used)]
//! A small language for registries, so that each test reads as the situation it is about.

mod choices;
mod properties;
mod reports;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::relation::LibcFloor;

pub(super) const HERE: &str = "x86_64-unknown-linux-gnu";

pub(super) fn name(text: &str) -> PluginName {
    let full = if text.contains('/') { text.to_owned() } else { format!("demo/{text}") };
    full.parse().unwrap()
}

pub(super) fn version(text: &str) -> Version {
    text.parse().unwrap()
}

pub(super) fn host() -> HostFacts {
    HostFacts {
        version: version("0.2.0"),
        target: HERE.parse().unwrap(),
        libc: Some(LibcFloor { major: 2, minor: 36 }),
        abi: (1, 1),
        world: Some(version("1.0.0")),
        prefers_components: false,
    }
}

pub(super) fn native(target: &str, libc: Option<&str>, abi: u32) -> BuildTarget {
    BuildTarget::Native {
        target: target.parse().unwrap(),
        libc: libc.map(|floor| floor.parse().unwrap()),
        abi,
    }
}

pub(super) fn wasm(world: &str) -> BuildTarget {
    BuildTarget::Wasm { world: version(world) }
}

/// A release: `links` is a comma-separated list of `name req`, `name? req` (optional) and
/// `!name req` (incompatible).
pub(super) fn release(text: &str, links: &str) -> Candidate {
    let mut candidate = Candidate {
        version: version(text),
        status: Status::Active,
        dependencies: Vec::new(),
        incompatible: Vec::new(),
        host: HostRequirement { abi: 1, version: None },
        builds: vec![native(HERE, Some("2.17"), 1)],
    };
    for link in links.split(',').map(str::trim).filter(|link| !link.is_empty()) {
        let (other, requirement) = link.split_once(' ').unwrap();
        let requirement = requirement.parse().unwrap();
        if let Some(other) = other.strip_prefix('!') {
            candidate.incompatible.push(Incompatibility { plugin: name(other), requirement });
        } else {
            let optional = other.ends_with('?');
            let plugin = name(other.trim_end_matches('?'));
            candidate.dependencies.push(Dependency { plugin, requirement, optional });
        }
    }
    candidate
}

#[derive(Clone, Debug, Default)]
pub(super) struct Registry(pub(super) BTreeMap<PluginName, Vec<Candidate>>);

impl Registry {
    pub(super) fn with(mut self, plugin: &str, candidate: Candidate) -> Self {
        self.0.entry(name(plugin)).or_default().push(candidate);
        self
    }

    pub(super) fn plain(self, plugin: &str, text: &str, links: &str) -> Self {
        self.with(plugin, release(text, links))
    }

    /// Resolves, fetching what is asked for and nothing else.
    pub(super) fn run(&self, request: Request) -> (Step, Vec<BTreeSet<PluginName>>) {
        let mut resolver = Resolver::new(request);
        let mut rounds = Vec::new();
        loop {
            match resolver.step() {
                Step::Need(names) => {
                    for plugin in &names {
                        let found = self.0.get(plugin).cloned().unwrap_or_default();
                        resolver.provide(plugin, found);
                    }
                    rounds.push(names);
                }
                step => return (step, rounds),
            }
        }
    }

    pub(super) fn solve(&self, request: Request) -> Solution {
        match self.run(request).0 {
            Step::Done(solution) => solution,
            Step::NoSolution(report) => panic!("{report}"),
            step => panic!("{step:?}"),
        }
    }

    pub(super) fn fail(&self, request: Request) -> Report {
        match self.run(request).0 {
            Step::NoSolution(report) => report,
            step => panic!("{step:?}"),
        }
    }
}

/// A request: a comma-separated list of `name req`.
pub(super) fn want(roots: &str) -> Request {
    let roots = roots
        .split(',')
        .map(|root| {
            let (plugin, requirement) = root.trim().split_once(' ').unwrap();
            Root { plugin: name(plugin), requirement: requirement.parse().unwrap() }
        })
        .collect();
    Request { roots, locked: BTreeMap::new(), host: host() }
}

pub(super) fn locking(mut request: Request, locked: &[(&str, &str)]) -> Request {
    request.locked = locked.iter().map(|(plugin, text)| (name(plugin), version(text))).collect();
    request
}

/// `name version` of everything chosen, in one line.
pub(super) fn chosen(solution: &Solution) -> String {
    let parts: Vec<String> =
        solution.chosen.iter().map(|(n, c)| format!("{} {}", n.short(), c.version)).collect();
    parts.join(", ")
}
