//! The search engine, and the only place that knows which one it is: `resolvo`, a CDCL
//! solver that has optional dependencies and incompatibilities and no slow tail (RECIPES,
//! "Resolvers on a real graph").
//!
//! The engine reads a release's dependencies when it first chooses that release, so a solve
//! costs what the answer costs, not what the index costs.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Display;

use resolvo::{
    Candidates, Condition, ConditionId, Dependencies, DependencyProvider, Interner,
    KnownDependencies, NameId, Problem, SolvableId, Solver, SolverCache, StringId,
    UnsolvableOrCancelled, VersionSetId, VersionSetUnionId,
};

use super::catalog::{Catalog, NameIx, ReleaseIx, SetIx};

/// How a solve ended.
pub(super) enum Outcome {
    /// The chosen releases, in no useful order.
    Found(Vec<ReleaseIx>),
    /// The search needs plugins that were not provided: what it asks of them.
    Unfetched(Vec<SetIx>),
    /// Impossible; the releases whose links were considered prove it.
    Conflict(Vec<ReleaseIx>),
    /// The given number of rounds did not do.
    OutOfRounds,
}

/// How a link binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Needs,
    Bounds,
    Avoids,
}

/// One link of one release, or of the request.
pub(super) type Fact = (Option<ReleaseIx>, SetIx, Kind);

/// Facts in groups, some switched on. Facts in no group are off.
pub(super) struct Only<'a> {
    pub(super) group_of: &'a HashMap<Fact, usize>,
    pub(super) on: &'a [bool],
}

impl Only<'_> {
    fn has(&self, fact: Fact) -> bool {
        self.group_of.get(&fact).is_some_and(|&group| self.on[group])
    }
}

/// Searches for a choice that satisfies `roots`; with `only`, under those facts alone.
pub(super) fn solve(
    catalog: &mut Catalog,
    roots: &[SetIx],
    only: Option<&Only<'_>>,
    rounds_max: u64,
) -> Outcome {
    let requirements = roots
        .iter()
        .filter(|&&set| only.is_none_or(|only| only.has((None, set, Kind::Needs))))
        .map(|&set| version_set(set).into())
        .collect();
    let mut solver = Solver::new(Provider {
        catalog: RefCell::new(catalog),
        only,
        rounds_left: Cell::new(rounds_max),
        unfetched: RefCell::default(),
        touched: RefCell::default(),
    });
    let result = solver.solve(Problem::new().requirements(requirements));
    match result {
        Ok(solvables) => {
            Outcome::Found(solvables.into_iter().map(|id| ReleaseIx(id.into_raw())).collect())
        }
        Err(UnsolvableOrCancelled::Unsolvable(_)) => {
            Outcome::Conflict(solver.provider().touched.take())
        }
        Err(UnsolvableOrCancelled::Cancelled(_)) => {
            let unfetched = solver.provider().unfetched.take();
            if unfetched.is_empty() { Outcome::OutOfRounds } else { Outcome::Unfetched(unfetched) }
        }
    }
}

struct Provider<'a> {
    /// Links are interned when first read, so reading needs a mutable catalog.
    catalog: RefCell<&'a mut Catalog>,
    only: Option<&'a Only<'a>>,
    rounds_left: Cell<u64>,
    unfetched: RefCell<Vec<SetIx>>,
    touched: RefCell<Vec<ReleaseIx>>,
}

fn version_set(set: SetIx) -> VersionSetId {
    VersionSetId(set.0)
}

fn set_ix(id: VersionSetId) -> SetIx {
    SetIx(id.0)
}

fn release_ix(id: SolvableId) -> ReleaseIx {
    ReleaseIx(id.into_raw())
}

fn name_id(name: NameIx) -> NameId {
    NameId::from_raw(name.0)
}

impl Interner for Provider<'_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl Display + '_ {
        let catalog = self.catalog.borrow();
        let release = release_ix(solvable);
        let name = catalog.name(catalog.plugin_of(release));
        format!("{name} {}", catalog.candidate(release).version)
    }

    fn display_name(&self, name: NameId) -> impl Display + '_ {
        self.catalog.borrow().name(NameIx(name.into_raw())).to_string()
    }

    fn display_version_set(&self, set: VersionSetId) -> impl Display + '_ {
        self.catalog.borrow().requirement(set_ix(set)).to_string()
    }

    fn display_string(&self, _: StringId) -> impl Display + '_ {
        // No string is ever interned: excluded releases never reach the engine.
        ""
    }

    fn version_set_name(&self, set: VersionSetId) -> NameId {
        name_id(self.catalog.borrow().set_name(set_ix(set)))
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        name_id(self.catalog.borrow().plugin_of(release_ix(solvable)))
    }

    fn version_sets_in_union(&self, _: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        // No union is ever made.
        std::iter::empty()
    }

    fn resolve_condition(&self, condition: ConditionId) -> Condition {
        // No condition is ever made; a condition on set 0 would be the harmless reading.
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
        let catalog = self.catalog.borrow();
        let set = set_ix(set);
        candidates
            .iter()
            .copied()
            .filter(|&id| catalog.admits(set, release_ix(id)) != inverse)
            .collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let catalog = self.catalog.borrow();
        let releases = catalog.releases(NameIx(name.into_raw()));
        Some(Candidates {
            candidates: releases.map(|release| SolvableId::from_raw(release.0)).collect(),
            ..Candidates::default()
        })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, _: &mut [SolvableId]) {
        // Releases are numbered by preference, and filtering keeps their order.
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        let release = release_ix(solvable);
        let mut catalog = self.catalog.borrow_mut();
        let links = catalog.links(release);
        let applies = |set: SetIx, kind: Kind| {
            self.only.is_none_or(|only| only.has((Some(release), set, kind)))
        };
        let mut requirements = Vec::with_capacity((links.needs.1 - links.needs.0) as usize);
        for &set in catalog.link_sets(links.needs) {
            if !applies(set, Kind::Needs) {
                continue;
            }
            if !catalog.is_provided(catalog.set_name(set)) {
                self.unfetched.borrow_mut().push(set);
            }
            requirements.push(version_set(set).into());
        }
        // A bound on a plugin that nothing needed so far says nothing yet. If the search
        // comes to need it, it stops as unfetched and starts again with the bound in place.
        let constrains = [(links.bounds, Kind::Bounds), (links.avoids, Kind::Avoids)]
            .into_iter()
            .flat_map(|(span, kind)| catalog.link_sets(span).iter().map(move |&set| (set, kind)))
            .filter(|&(set, kind)| catalog.is_provided(catalog.set_name(set)) && applies(set, kind))
            .map(|(set, _)| version_set(set))
            .collect();
        self.touched.borrow_mut().push(release);
        Dependencies::Known(KnownDependencies { requirements, constrains })
    }

    fn should_cancel_with_value(&self) -> Option<Box<dyn Any>> {
        let left = self.rounds_left.get();
        self.rounds_left.set(left.saturating_sub(1));
        if left == 0 || !self.unfetched.borrow().is_empty() { Some(Box::new(())) } else { None }
    }
}
