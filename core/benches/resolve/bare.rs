//! The engine alone: the same graph, already in a pool of its own, with nothing to intern,
//! check, sort or report.

use std::collections::HashMap;
use std::fmt::Display;

use modunest_core::name::PluginName;
use modunest_core::{Version, VersionReq};
use resolvo::{
    Candidates, Condition, ConditionId, Dependencies, DependencyProvider, Interner,
    KnownDependencies, NameId, Problem, SolvableId, Solver, SolverCache, StringId, VersionSetId,
    VersionSetUnionId,
};

use crate::debian::Index;

pub struct Pool {
    /// Per name, newest first.
    candidates: Vec<Vec<SolvableId>>,
    solvables: Vec<(NameId, Version, KnownDependencies)>,
    sets: Vec<(NameId, bool, VersionReq)>,
    set_ids: HashMap<(u32, bool, VersionReq), VersionSetId>,
}

impl Pool {
    pub fn new(index: &Index) -> Self {
        let ids: HashMap<&PluginName, NameId> =
            index.names.iter().zip(0..).map(|(name, id)| (name, NameId::from_raw(id))).collect();
        let mut pool = Pool {
            candidates: Vec::new(),
            solvables: Vec::new(),
            sets: Vec::new(),
            set_ids: HashMap::new(),
        };
        for (position, candidates) in index.candidates.iter().enumerate() {
            let mut newest_first = Vec::new();
            for candidate in candidates.iter().rev() {
                let mut known = KnownDependencies::default();
                for dependency in &candidate.dependencies {
                    let set =
                        pool.set(ids[&dependency.plugin], false, dependency.requirement.clone());
                    if dependency.optional {
                        known.constrains.push(set);
                    } else {
                        known.requirements.push(set.into());
                    }
                }
                for other in &candidate.incompatible {
                    let set = pool.set(ids[&other.plugin], true, other.requirement.clone());
                    known.constrains.push(set);
                }
                newest_first.push(SolvableId::from_raw(pool.solvables.len() as u32));
                let name = NameId::from_raw(position as u32);
                pool.solvables.push((name, candidate.version.clone(), known));
            }
            pool.candidates.push(newest_first);
        }
        pool
    }

    fn set(&mut self, name: NameId, avoid: bool, requirement: VersionReq) -> VersionSetId {
        let next = VersionSetId(self.sets.len() as u32);
        let key = (name.into_raw(), avoid, requirement.clone());
        let id = *self.set_ids.entry(key).or_insert(next);
        if id == next {
            self.sets.push((name, avoid, requirement));
        }
        id
    }

    /// What roots ask, made beforehand as everything else here.
    pub fn roots(&mut self, roots: &[usize]) -> Vec<VersionSetId> {
        roots
            .iter()
            .map(|&root| self.set(NameId::from_raw(root as u32), false, VersionReq::STAR))
            .collect()
    }

    /// Number of the plugin and version of everything chosen; nothing if impossible.
    pub fn solve(&self, roots: &[VersionSetId]) -> Option<Vec<SolvableId>> {
        let requirements = roots.iter().map(|&set| set.into()).collect();
        Solver::new(Provider(self)).solve(Problem::new().requirements(requirements)).ok()
    }

    pub fn resolve(&self, id: SolvableId) -> (usize, &Version) {
        let (name, version, _) = &self.solvables[id.into_raw() as usize];
        (name.into_raw() as usize, version)
    }

    fn solvable(&self, id: SolvableId) -> &(NameId, Version, KnownDependencies) {
        &self.solvables[id.into_raw() as usize]
    }
}

struct Provider<'a>(&'a Pool);

impl Interner for Provider<'_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, id: SolvableId) -> impl Display + '_ {
        id.into_raw()
    }
    fn display_name(&self, id: NameId) -> impl Display + '_ {
        id.into_raw()
    }
    fn display_version_set(&self, id: VersionSetId) -> impl Display + '_ {
        id.0
    }
    fn display_string(&self, id: StringId) -> impl Display + '_ {
        id.0
    }
    fn version_set_name(&self, id: VersionSetId) -> NameId {
        self.0.sets[id.0 as usize].0
    }
    fn solvable_name(&self, id: SolvableId) -> NameId {
        self.0.solvable(id).0
    }
    fn version_sets_in_union(&self, _: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        std::iter::empty()
    }
    fn resolve_condition(&self, condition: ConditionId) -> Condition {
        Condition::Requirement(VersionSetId(condition.as_u32()))
    }
}

impl DependencyProvider for Provider<'_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        let (_, avoid, requirement) = &self.0.sets[set.0 as usize];
        candidates
            .iter()
            .copied()
            .filter(|&id| (requirement.matches(&self.0.solvable(id).1) != *avoid) != inverse)
            .collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let candidates = self.0.candidates[name.into_raw() as usize].clone();
        Some(Candidates { candidates, ..Candidates::default() })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, _: &mut [SolvableId]) {
        // The pool is sorted, and filtering keeps the order.
    }

    async fn get_dependencies(&self, id: SolvableId) -> Dependencies {
        Dependencies::Known(self.0.solvable(id).2.clone())
    }
}
