//! A generated index whose shape follows Debian's package lists.
//!
//! Measured with `apt-cache dumpavail` on Debian 12 (main, amd64: 63,666 packages, 279,872
//! dependencies, first alternatives) in November 2026. What Debian's one suite cannot show,
//! several versions of a package, is scaled to the 2.43 versions a name of a graph of
//! several suites (243,010 versions of 96,365 to 100,000 names).

use std::sync::Arc;

use modunest_core::name::PluginName;
use modunest_core::relation::{
    BuildTarget, Dependency, HostFacts, HostRequirement, Incompatibility, LibcFloor,
};
use modunest_core::resolve::{Candidate, Status};
use modunest_core::{Version, VersionReq};

/// Names in the index.
pub const PLUGINS: usize = 100_000;

/// Cumulative share of packages with at most so many dependencies: 12.0 % none, 18.9 % one,
/// ... ; mean 4.40, median 3, p90 10, p99 28, p99.9 62.
const DEPENDENCIES: [(f64, f64); 12] = [
    (0.120, 0.0),
    (0.309, 1.0),
    (0.471, 2.0),
    (0.603, 3.0),
    (0.689, 4.0),
    (0.754, 5.0),
    (0.804, 6.0),
    (0.900, 10.0),
    (0.950, 14.0),
    (0.990, 28.0),
    (0.999, 62.0),
    (1.0, 120.0),
];
/// Recommends and Suggests, which are optional dependencies here: mean 0.87.
const OPTIONAL: [(f64, f64); 7] =
    [(0.68, 0.0), (0.79, 1.0), (0.89, 2.0), (0.95, 4.0), (0.99, 11.0), (0.999, 49.0), (1.0, 80.0)];
/// Conflicts and Breaks whose target exists: 7,606 of 63,666 packages; mean 0.12.
const INCOMPATIBLE: [(f64, f64); 4] = [(0.93, 0.0), (0.97, 1.0), (0.995, 3.0), (1.0, 12.0)];
/// Share of all dependencies that go to the so many most wanted packages: `libc6` alone
/// takes 7.8 %, the first ten 21 %. 55 % of packages are wanted by any other.
const POPULARITY: [(f64, f64); 6] = [
    (0.078, 1.0),
    (0.212, 10.0),
    (0.376, 100.0),
    (0.613, 1_000.0),
    (0.876, 10_000.0),
    (1.0, 55_000.0),
];
/// Of dependencies: 41.8 % name no version, 50.2 % a lowest, 6.8 % exactly one, 1.2 % a
/// first that is too new.
const ANY: f64 = 0.418;
const LOWEST: f64 = 0.920;
const EXACT: f64 = 0.988;
/// 13.3 % of dependencies go to a package built from the same source; the exact ones do.
const SAME_SOURCE: f64 = 0.133;
/// 87 % of the incompatibilities with existing packages name versions (Breaks: foo (<< 2)).
const VERSIONED_INCOMPATIBILITY: f64 = 0.87;
/// 91 % of Recommends and Suggests name no version.
const OPTIONAL_ANY: f64 = 0.91;
/// Packages of one source: mean 1.86.
const SOURCE_SIZE: [(f64, f64); 5] =
    [(0.70, 1.0), (0.85, 2.0), (0.93, 4.0), (0.98, 8.0), (1.0, 14.0)];
/// Versions of one name: mean 2.43.
const VERSIONS: [(f64, f64); 6] =
    [(0.35, 1.0), (0.62, 2.0), (0.79, 3.0), (0.90, 4.0), (0.97, 6.0), (1.0, 9.0)];

/// splitmix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
/// generators", 2014): enough for shapes, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A count from a table of (cumulative share, count), between rows by chance.
    fn count(&mut self, table: &[(f64, f64)]) -> usize {
        let at = self.unit();
        let mut low = 0.0;
        for &(share, count) in table {
            if at <= share {
                let span = (count - low).max(1.0);
                return (count - (self.unit() * span).floor()) as usize;
            }
            low = count;
        }
        low as usize
    }

    /// A popularity rank: logarithmic between the rows of [`POPULARITY`].
    fn rank(&mut self) -> usize {
        let at = self.unit();
        let (mut low_share, mut low) = (0.0, 1.0_f64);
        for (share, rank) in POPULARITY {
            if at <= share {
                let part = (at - low_share) / (share - low_share);
                return (low * (rank / low).powf(part)) as usize - 1;
            }
            (low_share, low) = (share, rank);
        }
        low as usize - 1
    }
}

pub struct Index {
    pub names: Vec<PluginName>,
    /// Per name, oldest first as in an index file.
    pub candidates: Vec<Arc<[Candidate]>>,
    pub versions: usize,
    pub links: usize,
}

pub fn host() -> HostFacts {
    HostFacts {
        version: Version::new(1, 0, 0),
        target: "x86_64-unknown-linux-gnu".parse().expect("a triple"),
        libc: Some(LibcFloor { major: 2, minor: 36 }),
        abi: (1, 1),
        world: Some(Version::new(1, 0, 0)),
        prefers_components: false,
    }
}

/// Generates the index. A plugin's number is its popularity rank, and it depends on more
/// popular ones only, so that there are no cycles and closures stay as shallow as Debian's.
pub fn generate(seed: u64) -> Index {
    let mut random = Random(seed);
    let names: Vec<PluginName> = (0..PLUGINS)
        .map(|i| format!("org-{}/plugin-{i}", i % 997).parse().expect("a name"))
        .collect();
    // The packages of a source are neighbours and share their versions.
    let mut source_of: Vec<(usize, usize)> = Vec::with_capacity(PLUGINS);
    let mut versions_of: Vec<Arc<[Version]>> = Vec::with_capacity(PLUGINS);
    while source_of.len() < PLUGINS {
        let first = source_of.len();
        let size = random.count(&SOURCE_SIZE).min(PLUGINS - first);
        let versions: Arc<[Version]> = versions(&mut random).into();
        source_of.extend(std::iter::repeat_n((first, size), size));
        versions_of.extend(std::iter::repeat_n(versions, size));
    }
    let mut index = Index { names, candidates: Vec::with_capacity(PLUGINS), versions: 0, links: 0 };
    for plugin in 0..PLUGINS {
        let links = targets(&mut random, plugin, source_of[plugin]);
        let own = &versions_of[plugin];
        let candidates: Vec<Candidate> = (0..own.len())
            .map(|at| candidate(&mut random, &index.names, &versions_of, plugin, at, &links))
            .collect();
        index.versions += candidates.len();
        index.links +=
            candidates.iter().map(|c| c.dependencies.len() + c.incompatible.len()).sum::<usize>();
        index.candidates.push(candidates.into());
    }
    index
}

fn versions(random: &mut Random) -> Vec<Version> {
    let mut version = Version::new(random.below(4) as u64, random.below(10) as u64, 0);
    (0..random.count(&VERSIONS))
        .map(|_| {
            version = match random.below(10) {
                0..2 => Version::new(version.major + 1, 0, 0),
                2..7 => Version::new(version.major, version.minor + 1, 0),
                _ => Version::new(version.major, version.minor, version.patch + 1),
            };
            version.clone()
        })
        .collect()
}

/// What a plugin names in all of its versions.
struct Targets {
    /// With how the version is named, drawn once: it seldom changes between versions.
    needs: Vec<(usize, f64)>,
    optional: Vec<(usize, f64)>,
    avoids: Vec<(usize, f64)>,
}

fn targets(random: &mut Random, plugin: usize, source: (usize, usize)) -> Targets {
    let mut needs: Vec<(usize, f64)> = Vec::new();
    let (first, _) = source;
    let wanted = random.count(&DEPENDENCIES).min(plugin);
    for _ in 0..wanted {
        let same_source = random.unit() < SAME_SOURCE && plugin > first;
        let target = if same_source {
            first + random.below(plugin - first)
        } else {
            // The popular ones have few others above them: draw again, then give up.
            match (0..8).map(|_| random.rank()).find(|&rank| rank < plugin) {
                Some(rank) => rank,
                None => continue,
            }
        };
        if needs.iter().all(|&(other, _)| other != target) {
            let how = if same_source && random.unit() < 0.5 { EXACT } else { random.unit() };
            needs.push((target, if same_source { how } else { how.min(LOWEST) + rare(random) }));
        }
    }
    let optional = (0..random.count(&OPTIONAL))
        .map(|_| (random.rank().max(random.below(PLUGINS) / 4), random.unit()))
        .filter(|&(target, _)| target != plugin)
        .collect();
    // Without a version only among those nobody needs, as two mail servers are: were it
    // otherwise, hardly any 500 packages could be installed together.
    let avoids = (0..random.count(&INCOMPATIBLE))
        .map(|_| (random.unit(), random.rank(), PLUGINS - 1 - random.below(PLUGINS * 45 / 100)))
        .map(|(how, wanted, unwanted)| {
            (if how < VERSIONED_INCOMPATIBILITY { wanted } else { unwanted }, how)
        })
        .filter(|&(target, _)| target != plugin)
        .collect();
    Targets { needs, optional, avoids }
}

/// Lifts the share of 1.2 % of dependencies into "first that is too new".
fn rare(random: &mut Random) -> f64 {
    if random.unit() < 1.0 - EXACT { 1.0 } else { 0.0 }
}

fn candidate(
    random: &mut Random,
    names: &[PluginName],
    versions_of: &[Arc<[Version]>],
    plugin: usize,
    at: usize,
    links: &Targets,
) -> Candidate {
    let own = &versions_of[plugin];
    // Releases of one time belong together: the newest here goes with the newest there.
    let there = |target: usize| {
        let versions = &versions_of[target];
        let position = (at + 1) * versions.len() / own.len();
        (versions, position.saturating_sub(1))
    };
    let mut dependencies = Vec::with_capacity(links.needs.len() + links.optional.len());
    for (list, any, optional) in [(&links.needs, ANY, false), (&links.optional, OPTIONAL_ANY, true)]
    {
        for &(target, how) in list {
            let (versions, position) = there(target);
            let requirement = if how < any {
                VersionReq::STAR
            } else if how > 1.0 {
                let next = versions.get(position + 1).cloned();
                let next = next.unwrap_or_else(|| Version::new(versions[position].major + 1, 0, 0));
                parse(&format!("<{next}"))
            } else if how == EXACT && versions.len() == own.len() {
                parse(&format!("={}", versions[at]))
            } else {
                parse(&format!(">={}", versions[random.below(position + 1)]))
            };
            dependencies.push(Dependency { plugin: names[target].clone(), requirement, optional });
        }
    }
    let incompatible = links
        .avoids
        .iter()
        .map(|&(target, how)| {
            let (versions, position) = there(target);
            let requirement = if how < VERSIONED_INCOMPATIBILITY {
                parse(&format!("<{}", versions[random.below(position + 1)]))
            } else {
                VersionReq::STAR
            };
            Incompatibility { plugin: names[target].clone(), requirement }
        })
        .collect();
    Candidate {
        version: own[at].clone(),
        status: Status::Active,
        dependencies,
        incompatible,
        host: HostRequirement { abi: 1, version: None },
        builds: vec![
            BuildTarget::Native {
                target: "x86_64-unknown-linux-gnu".parse().expect("a triple"),
                libc: Some(LibcFloor { major: 2, minor: 17 }),
                abi: 1,
            },
            BuildTarget::Wasm { world: Version::new(1, 0, 0) },
        ],
    }
}

fn parse(text: &str) -> VersionReq {
    text.parse().expect("a requirement")
}
