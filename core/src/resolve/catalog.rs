//! What was provided, interned: names, sets of versions and usable releases are numbers,
//! each made once. Numbers follow the order of arrival and never decide anything.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use semver::{Version, VersionReq};

use super::report::{BuildMisfit, Exclusion};
use super::{CANDIDATES_MAX, Candidate, Exceeded, LINKS_MAX, PLUGINS_MAX, Status};
use crate::name::PluginName;
use crate::relation::{BuildTarget, HostFacts, Misfit};

macro_rules! index {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) struct $type(pub(super) u32);

        impl $type {
            pub(super) fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index!(
    /// A plugin name, provided or only mentioned.
    NameIx
);
index!(
    /// Some versions of one plugin: those a requirement matches, or all but those.
    SetIx
);
index!(
    /// A release that may be chosen. Releases of a plugin are consecutive, best first.
    ReleaseIx
);

/// A range of the links' arena.
pub(super) type Span = (u32, u32);

/// What a release says about other plugins. Links to the release's own plugin are left
/// out: a release that contradicts itself is not usable, and other ones are no news.
#[derive(Clone, Copy)]
pub(super) struct Links {
    pub(super) needs: Span,
    /// Optional dependencies.
    pub(super) bounds: Span,
    /// Incompatibilities.
    pub(super) avoids: Span,
}

struct Set {
    name: NameIx,
    avoid: bool,
    requirement: VersionReq,
    /// Next set with the same hash.
    next: Option<SetIx>,
}

struct Release {
    plugin: NameIx,
    candidate: u32,
    build: u32,
    links: Option<Links>,
}

struct Plugin {
    candidates: Arc<[Candidate]>,
    releases: Range<u32>,
}

pub(super) struct Catalog {
    host: HostFacts,
    locked: BTreeMap<PluginName, Version>,
    names: Vec<PluginName>,
    name_index: HashMap<PluginName, NameIx>,
    plugins: Vec<Option<Plugin>>,
    plugins_provided: usize,
    sets: Vec<Set>,
    set_index: HashMap<u64, SetIx>,
    releases: Vec<Release>,
    links: Vec<SetIx>,
    /// What the roots ask of a plugin.
    root_sets: HashMap<NameIx, Vec<SetIx>>,
}

impl Catalog {
    pub(super) fn new(host: HostFacts, locked: BTreeMap<PluginName, Version>) -> Self {
        Catalog {
            host,
            locked,
            names: Vec::new(),
            name_index: HashMap::new(),
            plugins: Vec::new(),
            plugins_provided: 0,
            sets: Vec::new(),
            set_index: HashMap::new(),
            releases: Vec::new(),
            links: Vec::new(),
            root_sets: HashMap::new(),
        }
    }

    pub(super) fn set_roots(&mut self, roots: &[SetIx]) {
        for &set in roots {
            self.root_sets.entry(self.set_name(set)).or_default().push(set);
        }
    }

    pub(super) fn provide(
        &mut self,
        plugin: &PluginName,
        candidates: Arc<[Candidate]>,
    ) -> Result<(), Exceeded> {
        let name = self.intern_name(plugin);
        if self.is_provided(name) {
            return Ok(());
        }
        if self.plugins_provided == PLUGINS_MAX {
            return Err(Exceeded::Plugins);
        }
        if candidates.len() > CANDIDATES_MAX {
            return Err(Exceeded::Candidates { plugin: plugin.clone(), count: candidates.len() });
        }
        if let Some(large) = candidates.iter().find(|c| links_len(c) > LINKS_MAX) {
            return Err(Exceeded::Links {
                plugin: plugin.clone(),
                version: large.version.clone(),
                count: links_len(large),
            });
        }
        let locked = self.locked.get(plugin);
        let order = by_preference(&candidates, locked);
        let first = self.releases.len() as u32;
        for candidate in order {
            if let Ok(build) = usable(&self.host, plugin, &candidates[candidate as usize], locked) {
                self.releases.push(Release { plugin: name, candidate, build, links: None });
            }
        }
        let releases = first..self.releases.len() as u32;
        self.plugins[name.index()] = Some(Plugin { candidates, releases });
        self.plugins_provided += 1;
        Ok(())
    }

    pub(super) fn names_len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, name: NameIx) -> &PluginName {
        &self.names[name.index()]
    }

    /// Names that were provided with at least one release, or are merely mentioned.
    pub(super) fn names_not_missing(&self) -> impl Iterator<Item = &PluginName> {
        self.names.iter().zip(&self.plugins).filter_map(|(name, plugin)| {
            plugin.as_ref().is_none_or(|p| !p.candidates.is_empty()).then_some(name)
        })
    }

    pub(super) fn is_provided(&self, name: NameIx) -> bool {
        self.plugins[name.index()].is_some()
    }

    /// Everything the registry has of a plugin, usable or not.
    pub(super) fn candidates(&self, name: NameIx) -> &[Candidate] {
        self.plugins[name.index()].as_ref().map_or(&[], |plugin| &plugin.candidates)
    }

    /// The usable releases of a plugin, best first.
    pub(super) fn releases(
        &self,
        name: NameIx,
    ) -> impl ExactSizeIterator<Item = ReleaseIx> + use<> {
        let range = self.plugins[name.index()].as_ref().map_or(0..0, |p| p.releases.clone());
        range.map(ReleaseIx)
    }

    pub(super) fn plugin_of(&self, release: ReleaseIx) -> NameIx {
        self.releases[release.index()].plugin
    }

    pub(super) fn candidate(&self, release: ReleaseIx) -> &Candidate {
        let entry = &self.releases[release.index()];
        &self.candidates(entry.plugin)[entry.candidate as usize]
    }

    pub(super) fn build(&self, release: ReleaseIx) -> usize {
        self.releases[release.index()].build as usize
    }

    /// Why a candidate may not be chosen, whatever is asked.
    pub(super) fn exclusion(&self, name: NameIx, candidate: &Candidate) -> Option<Exclusion> {
        let plugin = self.name(name);
        let twins = self.candidates(name).iter().filter(|other| other.version == candidate.version);
        if twins.count() > 1 {
            return Some(Exclusion::Ambiguous);
        }
        usable(&self.host, plugin, candidate, self.locked.get(plugin)).err()
    }

    pub(super) fn host(&self) -> &HostFacts {
        &self.host
    }

    pub(super) fn find(&self, plugin: &PluginName) -> Option<NameIx> {
        self.name_index.get(plugin).copied()
    }

    pub(super) fn set_name(&self, set: SetIx) -> NameIx {
        self.sets[set.index()].name
    }

    pub(super) fn requirement(&self, set: SetIx) -> &VersionReq {
        &self.sets[set.index()].requirement
    }

    pub(super) fn admits(&self, set: SetIx, release: ReleaseIx) -> bool {
        self.admits_version(set, &self.candidate(release).version)
    }

    pub(super) fn admits_version(&self, set: SetIx, version: &Version) -> bool {
        let set = &self.sets[set.index()];
        set.requirement.matches(version) != set.avoid
    }

    /// Whether everything the roots ask of this plugin admits the release.
    pub(super) fn roots_admit(&self, release: ReleaseIx) -> bool {
        self.root_sets
            .get(&self.plugin_of(release))
            .is_none_or(|sets| sets.iter().all(|&set| self.admits(set, release)))
    }

    /// The set of versions that `requirement` matches.
    pub(super) fn need(&mut self, plugin: &PluginName, requirement: &VersionReq) -> SetIx {
        let name = self.intern_name(plugin);
        self.intern_set(name, false, requirement)
    }

    pub(super) fn links(&mut self, release: ReleaseIx) -> Links {
        let Release { plugin, candidate, links, .. } = self.releases[release.index()];
        if let Some(links) = links {
            return links;
        }
        let Some(entry) = &self.plugins[plugin.index()] else {
            // A release exists only after its plugin.
            return Links { needs: (0, 0), bounds: (0, 0), avoids: (0, 0) };
        };
        let candidates = Arc::clone(&entry.candidates);
        let candidate = &candidates[candidate as usize];
        let mut spans = [(0, 0); 3];
        for (span, optional) in spans.iter_mut().zip([false, true]) {
            let start = self.links.len() as u32;
            for dependency in candidate.dependencies.iter().filter(|d| d.optional == optional) {
                let name = self.intern_name(&dependency.plugin);
                if name != plugin {
                    let set = self.intern_set(name, false, &dependency.requirement);
                    self.links.push(set);
                }
            }
            *span = (start, self.links.len() as u32);
        }
        let start = self.links.len() as u32;
        for other in &candidate.incompatible {
            let name = self.intern_name(&other.plugin);
            if name != plugin {
                let set = self.intern_set(name, true, &other.requirement);
                self.links.push(set);
            }
        }
        spans[2] = (start, self.links.len() as u32);
        let [needs, bounds, avoids] = spans;
        let links = Links { needs, bounds, avoids };
        self.releases[release.index()].links = Some(links);
        links
    }

    pub(super) fn link_sets(&self, span: Span) -> &[SetIx] {
        &self.links[span.0 as usize..span.1 as usize]
    }

    fn intern_name(&mut self, plugin: &PluginName) -> NameIx {
        if let Some(&name) = self.name_index.get(plugin) {
            return name;
        }
        let name = NameIx(self.names.len() as u32);
        self.names.push(plugin.clone());
        self.plugins.push(None);
        self.name_index.insert(plugin.clone(), name);
        name
    }

    fn intern_set(&mut self, name: NameIx, avoid: bool, requirement: &VersionReq) -> SetIx {
        // Looked up by hash and compared in place: a tuple key would have to be cloned for
        // every look-up, and most look-ups find.
        let mut hasher = DefaultHasher::new();
        (name, avoid, requirement).hash(&mut hasher);
        let hash = hasher.finish();
        let first = self.set_index.get(&hash).copied();
        let mut next = first;
        while let Some(set) = next {
            let entry = &self.sets[set.index()];
            if entry.name == name && entry.avoid == avoid && entry.requirement == *requirement {
                return set;
            }
            next = entry.next;
        }
        let set = SetIx(self.sets.len() as u32);
        self.sets.push(Set { name, avoid, requirement: requirement.clone(), next: first });
        self.set_index.insert(hash, set);
        set
    }
}

fn links_len(candidate: &Candidate) -> usize {
    candidate.dependencies.len() + candidate.incompatible.len()
}

/// Newest first, the locked version before all. A version that is listed twice is left
/// out: two releases of one version cannot both be what the publisher means.
fn by_preference(candidates: &[Candidate], locked: Option<&Version>) -> Vec<u32> {
    let version = |index: u32| &candidates[index as usize].version;
    let mut order: Vec<u32> = (0..candidates.len() as u32).collect();
    order.sort_by(|&a, &b| version(b).cmp(version(a)));
    if order.windows(2).any(|pair| version(pair[0]) == version(pair[1])) {
        order = order
            .chunk_by(|&a, &b| version(a) == version(b))
            .filter_map(|same| if let [lone] = same { Some(*lone) } else { None })
            .collect();
    }
    if let Some(locked) = locked
        && let Some(position) = order.iter().position(|&index| version(index) == locked)
    {
        order[..=position].rotate_right(1);
    }
    order
}

/// The build to use, or why the release may not be chosen.
fn usable(
    host: &HostFacts,
    plugin: &PluginName,
    candidate: &Candidate,
    locked: Option<&Version>,
) -> Result<u32, Exclusion> {
    match &candidate.status {
        Status::Active | Status::Deprecated(_) => {}
        Status::Yanked if locked == Some(&candidate.version) => {}
        Status::Yanked => return Err(Exclusion::Yanked),
        Status::Quarantined(reason) => {
            return Err(Exclusion::Quarantined { reason: reason.clone() });
        }
        Status::Refused(reason) => return Err(Exclusion::Policy { reason: reason.clone() }),
        Status::Removed => return Err(Exclusion::Removed),
    }
    host.admits(&candidate.host).map_err(|misfit| match misfit {
        Misfit::HostVersion { .. } => Exclusion::HostVersion { reason: misfit.to_string() },
        _ => Exclusion::HostAbi { reason: misfit.to_string() },
    })?;
    let own = &candidate.version;
    let contradicts = candidate
        .dependencies
        .iter()
        .any(|d| d.plugin == *plugin && !d.requirement.matches(own))
        || candidate.incompatible.iter().any(|i| i.plugin == *plugin && i.requirement.matches(own));
    if contradicts {
        return Err(Exclusion::ContradictsItself);
    }
    let first_fitting = |native: bool| {
        candidate.builds.iter().position(|build| {
            matches!(build, BuildTarget::Native { .. }) == native && host.runs(build).is_ok()
        })
    };
    let native_first = !host.prefers_components;
    match first_fitting(native_first).or_else(|| first_fitting(!native_first)) {
        Some(build) => Ok(build as u32),
        None => Err(Exclusion::NoBuild {
            builds: candidate
                .builds
                .iter()
                .filter_map(|build| {
                    let misfit = host.runs(build).err()?;
                    Some(BuildMisfit { build: build.clone(), reason: misfit.to_string() })
                })
                .collect(),
        }),
    }
}
