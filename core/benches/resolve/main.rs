//! Resolution over a generated index of 100,000 plugins: our public API, with everything a
//! caller goes through, against the bare engine over the same graph in its own pool.
//!
//! Run with `cargo bench -p modunest-core --bench resolve`. Times are CPU time of the
//! thread, so other work on the machine changes little; each case is the median of three.
//!
//! How to read it: a resolution costs what it chooses, and what one root brings along lies
//! between 1 and about 1,000 plugins (in Debian as here). A bar on the slowest case is there
//! to find searches that lose their way, not large answers, so cases are compared with those
//! whose answer has the same number of digits: column "alike" is the worst of these groups.
//! Beside it stand the slowest case over the median of all ("max/med"; "bare" is the bare
//! engine's) and the same per chosen plugin ("a plugin"). The
//! engine keeps tables as long as the largest number in its pool; with few roots that is
//! most of the bare time, and ours has only what was provided.
#![allow(clippy::expect_used, clippy::print_stdout)]

mod bare;
mod debian;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use debian::{Index, PLUGINS, Random};
use modunest_core::VersionReq;
use modunest_core::name::PluginName;
use modunest_core::resolve::{Request, Resolver, Root, Solution, Step};
use rustix::time::{ClockId, clock_gettime};

const SEED: u64 = 20_261_122;
/// Roots of a request, and how many requests of that size are timed.
const GROUPS: [(usize, usize); 4] = [(1, 300), (10, 100), (200, 20), (500, 20)];
/// The bar: our median CPU time over the bare engine's.
const RATIO_MAX: f64 = 1.3;
/// The bar: the slowest case over the median of its group.
const TAIL_MAX: f64 = 10.0;

fn main() {
    let index = debian::generate(SEED);
    let numbers: HashMap<&PluginName, usize> = index.names.iter().zip(0..).collect();
    let mut pool = bare::Pool::new(&index);
    println!(
        "index: {PLUGINS} plugins, {} versions, {} dependencies and incompatibilities",
        index.versions, index.links
    );
    let mut random = Random(SEED);
    let (mut ratio_met, mut tail_met, mut each_met) = (true, true, true);
    println!(
        "{:>5} {:>6} {:>7} {:>7} {:>6} | {:>9} {:>9} {:>9} {:>6} {:>7} {:>5} {:>8} | {:>9} {:>9} | {:>6} {:>6}",
        "roots",
        "cases",
        "chosen",
        "at most",
        "rounds",
        "median ms",
        "p95 ms",
        "max ms",
        "alike",
        "max/med",
        "bare",
        "a plugin",
        "bare med",
        "bare p95",
        "ratio",
        "p95"
    );
    for (size, cases) in GROUPS {
        let (mut ours, mut bares) = (Vec::new(), Vec::new());
        let (mut chosen, mut rounds) = (Vec::new(), Vec::new());
        // Per chosen plugin, and of requests that cannot be satisfied.
        let (mut each, mut reports) = (Vec::new(), Vec::new());
        let mut unsolvable = 0;
        while ours.len() < cases {
            let roots: Vec<usize> = (0..size).map(|_| random.below(PLUGINS)).collect();
            let sets = pool.roots(&roots);
            let bare = pool.solve(&sets);
            let mut result = None;
            let first = cpu_time(|| result = Some(resolve(&index, &numbers, &roots)));
            let (step, taken) = result.expect("it ran");
            let (Some(bare), Step::Done(solution)) = (&bare, &step) else {
                assert!(bare.is_none() && matches!(step, Step::NoSolution(_)), "answers differ");
                unsolvable += 1;
                reports.push(first.as_secs_f64() * 1e3);
                assert!(unsolvable <= 10 * cases, "nearly nothing can be resolved");
                continue;
            };
            agree(&index, &pool, bare, solution);
            chosen.push(solution.chosen.len() as f64);
            // Alternating, so that a slow moment of the machine hits both.
            let mut pairs: [Vec<Duration>; 2] = Default::default();
            for _ in 0..3 {
                pairs[0].push(cpu_time(|| drop(resolve(&index, &numbers, &roots))));
                pairs[1].push(cpu_time(|| drop(pool.solve(&sets))));
            }
            let [our, bare] = pairs.map(|mut times| {
                times.sort();
                times[1].as_secs_f64() * 1e3
            });
            ours.push(our);
            bares.push(bare);
            rounds.push(f64::from(taken));
            each.push(our / solution.chosen.len() as f64);
        }
        let alike = slowest_among_alike(&chosen, &ours);
        let (our, bare) = (quantiles(&mut ours), quantiles(&mut bares));
        let (sizes, each) = (quantiles(&mut chosen), quantiles(&mut each));
        let ratio = our.median / bare.median;
        ratio_met &= ratio <= RATIO_MAX;
        tail_met &= alike < TAIL_MAX;
        each_met &= each.max < TAIL_MAX * each.median;
        println!(
            "{size:>5} {cases:>6} {:>7} {:>7} {:>6} | {:>9.3} {:>9.3} {:>9.3} {alike:>6.1} {:>7.1} {:>5.1} {:>8.1} | {:>9.3} {:>9.3} | {ratio:>6.2} {:>6.2}",
            sizes.median,
            sizes.max,
            quantiles(&mut rounds).max,
            our.median,
            our.p95,
            our.max,
            our.max / our.median,
            bare.max / bare.median,
            each.max / each.median,
            bare.median,
            bare.p95,
            our.p95 / bare.p95
        );
        if !reports.is_empty() {
            let time = quantiles(&mut reports);
            println!(
                "      {} more cannot be resolved; with the report median {:.1} ms, max {:.1} ms",
                reports.len(),
                time.median,
                time.max
            );
        }
    }
    let verdict = |met: bool| if met { "met" } else { "missed" };
    println!("ratio of medians at most {RATIO_MAX}: {}", verdict(ratio_met));
    println!("slowest case below {TAIL_MAX} medians of answers alike: {}", verdict(tail_met));
    println!("the same per chosen plugin: {}", verdict(each_met));
}

/// A whole resolution as a caller does it, and its number of rounds.
fn resolve(index: &Index, numbers: &HashMap<&PluginName, usize>, roots: &[usize]) -> (Step, u32) {
    let roots = roots
        .iter()
        .map(|&root| Root { plugin: index.names[root].clone(), requirement: VersionReq::STAR })
        .collect();
    let request = Request { roots, locked: BTreeMap::new(), host: debian::host() };
    let mut resolver = Resolver::new(request);
    let mut rounds = 0;
    loop {
        match resolver.step() {
            Step::Need(names) => {
                rounds += 1;
                for name in &names {
                    resolver.provide(name, index.candidates[numbers[name]].clone());
                }
            }
            step => return (step, rounds),
        }
    }
}

/// Both must have chosen the same, up to what the engine holds that nothing needs.
fn agree(index: &Index, pool: &bare::Pool, bare: &[resolvo::SolvableId], solution: &Solution) {
    let bare: HashMap<usize, _> = bare.iter().map(|&id| pool.resolve(id)).collect();
    let bare: HashMap<&PluginName, _> =
        bare.into_iter().map(|(number, version)| (&index.names[number], version)).collect();
    for (plugin, chosen) in &solution.chosen {
        assert_eq!(bare.get(plugin), Some(&&chosen.version), "{plugin}");
    }
}

/// The slowest case over the median, among cases with as many roots and with an answer of as
/// many digits: the worst of these groups.
fn slowest_among_alike(chosen: &[f64], times: &[f64]) -> f64 {
    let mut groups: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for (chosen, time) in chosen.iter().zip(times) {
        groups.entry((*chosen as u64).max(1).ilog10()).or_default().push(*time);
    }
    let tails = groups.values_mut().map(|times| {
        let times = quantiles(times);
        times.max / times.median
    });
    tails.fold(0.0, f64::max)
}

struct Quantiles {
    median: f64,
    p95: f64,
    max: f64,
}

fn quantiles(values: &mut [f64]) -> Quantiles {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() as f64 * share) as usize).min(values.len() - 1)];
    Quantiles { median: at(0.5), p95: at(0.95), max: at(1.0) }
}

fn cpu_time(work: impl FnOnce()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let start = now();
    work();
    now() - start
}
