//! Publishes, in batches and one by one, and how an agent learns of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use modunest_agent::registry::{Client, Settings};
use modunest_core::name::PluginName;
use modunest_core::statement::{Link, SignedStatement};
use modunest_tlog::SigningKey;
use tempfile::TempDir;

use super::population::{self, PLUGINS_PER_ORG};
use super::registry::{Counts, Registry};
use crate::error::Error;
use crate::host::plugins::ORIGIN;
use crate::host::process_cpu_time;
use crate::report::{Report, Row, Target};
use crate::{disk, folders, process, stats};

/// Plugins of the registry: issue 4.
const PLUGINS: usize = 1_000;
/// Releases of each that are sequenced, one of each plugin at a time: as many statements as a
/// plugin's chain lets wait together.
const VERSIONS: usize = 10;
/// Publishes one by one.
const SINGLE: usize = 50;
/// Every so many plugins one is in use by an agent: a host with 100, and one with as many as are
/// planned for.
const IN_USE_EVERY: [usize; 2] = [10, 2];
/// Plugins that one publish each changes between two looks of the agent.
const SOME: usize = 100;
/// Issue 4: what the sequencer must reach on two cores.
const STATEMENTS_PER_SECOND_MIN: f64 = 1_000.0;
/// Issue 4: what may prove the statement of a changed plugin.
const PROOF_BYTES_MAX: f64 = 1_024.0;

/// Adds the figures.
pub async fn measure(report: &mut Report) -> Result<(), Error> {
    let scratch = folders::scratch()?;
    let (sync_p50, _) = disk::sync_ms(scratch.path())?;
    let registry = Registry::start(&scratch.path().join("registry")).await?;
    let mut publishers = Publishers::register(&registry).await?;
    batches(report, &registry, &mut publishers).await?;

    let mut agents = Vec::new();
    for every in IN_USE_EVERY {
        let agent = Agent::new(&registry, every)?;
        agent.look(&registry).await?.rows(report, &agent.what("first look"), None);
        agents.push(agent);
    }
    singles(report, &registry, &mut publishers, sync_p50).await?;
    // The state before each measured step is that of an agent that has just looked.
    looks(report, &registry, &agents, None).await?;
    publishers.publish(&registry, [0]).await?;
    looks(
        report,
        &registry,
        &agents,
        Some(Published { what: "1 publish", changed: |_| 1, each: 1 }),
    )
    .await?;
    publishers.publish(&registry, (0..PLUGINS).step_by(PLUGINS / SOME)).await?;
    looks(
        report,
        &registry,
        &agents,
        Some(Published { what: "100 publishes", changed: |_| SOME, each: 1 }),
    )
    .await?;
    for _ in 0..VERSIONS {
        publishers.publish(&registry, 0..PLUGINS).await?;
    }
    let all = |what, each| Published { what, changed: |agent| agent.names.len(), each };
    looks(report, &registry, &agents, Some(all("10000 publishes", VERSIONS))).await?;
    publishers.publish(&registry, 0..PLUGINS).await?;
    looks(report, &registry, &agents, Some(all("1000 publishes", 1))).await?;
    for agent in &agents {
        agent.look(&registry).await?.rows(report, &agent.what("nothing new"), None);
    }
    report.note(format!(
        "of {PLUGINS} plugins; proof is everything that is no index file and no bundle of \
         entries; after 10000 and 1000 publishes it is that of the changed plugins in use, with \
         {VERSIONS} and one new statement each, before of each that changed"
    ));
    registry.stop().await
}

/// What was published since the last look.
#[derive(Clone, Copy)]
struct Published {
    what: &'static str,
    /// How many plugins that changed, for an agent.
    changed: fn(&Agent) -> usize,
    /// New statements of each.
    each: usize,
}

/// Lets each agent look, and adds the figures where something was published.
async fn looks(
    report: &mut Report,
    registry: &Registry,
    agents: &[Agent],
    published: Option<Published>,
) -> Result<(), Error> {
    for agent in agents {
        let look = agent.look(registry).await?;
        if let Some(Published { what, changed, each }) = published {
            look.rows(report, &agent.what(what), Some((changed(agent), each)));
        }
    }
    Ok(())
}

/// What the sequencer takes for many statements that wait.
async fn batches(
    report: &mut Report,
    registry: &Registry,
    publishers: &mut Publishers,
) -> Result<(), Error> {
    let objects = registry.objects().await?;
    let mut taken = Taken::default();
    for _ in 0..VERSIONS {
        let statements = publishers.next(0..PLUGINS)?;
        taken.add(registry, &statements).await?;
    }
    let count = taken.statements as f64;
    let objects = (registry.objects().await? - objects) as f64;
    let what = format!("{count} statements, {PLUGINS} waiting at a time: sequenced a second");
    let row = Row::new(what, "1/s", count / taken.wall.as_secs_f64());
    report.row(row.target(Target::AtLeast(STATEMENTS_PER_SECOND_MIN)));
    let cpu = taken.cpu.as_secs_f64() * 1e6 / count;
    report.row(Row::new("the same, CPU with both services, a statement", "us", cpu));
    let row = Row::new("the same, written to the disk a statement", "B", taken.written_each());
    report.row(row.against("its bytes", taken.bytes as f64 / count));
    report.row(Row::new("the same, public objects a publish", "", objects / count));
    Ok(())
}

/// What it takes for one statement.
async fn singles(
    report: &mut Report,
    registry: &Registry,
    publishers: &mut Publishers,
    sync_ms: f64,
) -> Result<(), Error> {
    let objects = registry.objects().await?;
    let mut taken = Taken::default();
    let mut times = Vec::new();
    for number in 0..SINGLE {
        let statements = publishers.next([number * (PLUGINS / SINGLE)])?;
        let before = taken.wall;
        taken.add(registry, &statements).await?;
        times.push((taken.wall - before).as_secs_f64() * 1e3);
    }
    let objects = (registry.objects().await? - objects) as f64;
    let row = Row::new("one statement, sequenced, median", "ms", stats::median(times));
    report.row(row.against("one sync, p50", sync_ms));
    let row = Row::new("the same, written to the disk", "B", taken.written_each());
    report.row(row.against("its bytes", taken.bytes as f64 / SINGLE as f64));
    report.row(Row::new("the same, public objects a publish", "", objects / SINGLE as f64));
    Ok(())
}

/// What runs of the sequencer took, services included.
#[derive(Default)]
struct Taken {
    statements: usize,
    bytes: usize,
    wall: Duration,
    cpu: Duration,
    written_bytes: u64,
}

impl Taken {
    /// Hands statements in, and measures what is done with them.
    async fn add(
        &mut self,
        registry: &Registry,
        statements: &[SignedStatement],
    ) -> Result<(), Error> {
        registry.hand_in(statements).await?;
        let (cpu, written) = (process_cpu_time(), process::written_bytes(std::process::id())?);
        let begun = Instant::now();
        registry.sequence(statements.len()).await?;
        self.wall += begun.elapsed();
        self.cpu += process_cpu_time() - cpu;
        self.written_bytes += process::written_bytes(std::process::id())? - written;
        self.statements += statements.len();
        self.bytes += statements.iter().map(|signed| signed.bytes().len()).sum::<usize>();
        Ok(())
    }

    fn written_each(&self) -> f64 {
        self.written_bytes as f64 / self.statements as f64
    }
}

/// Who publishes: each plugin's newest version and place in its chain.
struct Publishers {
    keys: Vec<SigningKey>,
    plugins: Vec<(usize, Link)>,
}

impl Publishers {
    /// Registers the keys of all organisations.
    async fn register(registry: &Registry) -> Result<Publishers, Error> {
        let orgs = PLUGINS.div_ceil(PLUGINS_PER_ORG);
        let keys = (0..orgs).map(population::publisher).collect::<Result<Vec<_>, Error>>()?;
        let one = |(number, key): (usize, &SigningKey)| {
            let statement = population::key(population::org(number)?, &key.verifying_key());
            population::signed(&statement, registry.statement_key())
        };
        let statements = keys.iter().enumerate().map(one).collect::<Result<Vec<_>, Error>>()?;
        registry.hand_in(&statements).await?;
        registry.sequence(statements.len()).await?;
        Ok(Publishers { keys, plugins: vec![(0, Link::FIRST); PLUGINS] })
    }

    /// The next release of each of these plugins.
    fn next(
        &mut self,
        plugins: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<SignedStatement>, Error> {
        let mut next = |number: usize| {
            let (version, link) = &mut self.plugins[number];
            let release = population::release(number, *version, *link, PLUGINS)?;
            let signed = population::signed(&release, &self.keys[population::org_of(number)])?;
            (*version, *link) = (*version + 1, signed.next_link());
            Ok(signed)
        };
        plugins.into_iter().map(&mut next).collect()
    }

    /// Publishes them.
    async fn publish(
        &mut self,
        registry: &Registry,
        plugins: impl IntoIterator<Item = usize>,
    ) -> Result<(), Error> {
        let statements = self.next(plugins)?;
        registry.hand_in(&statements).await?;
        registry.sequence(statements.len()).await
    }
}

/// An agent that uses some of the plugins.
struct Agent {
    client: Client,
    names: BTreeSet<PluginName>,
    _cache: TempDir,
}

/// What a look for news took.
struct Look {
    counts: Counts,
    wall: Duration,
}

impl Agent {
    fn new(registry: &Registry, every: usize) -> Result<Agent, Error> {
        let cache = folders::memory()?;
        let client = Client::open(Settings {
            url: registry.url.clone(),
            origin: ORIGIN.to_owned(),
            keys: registry.verifying_keys(),
            cache_dir: cache.path().to_owned(),
        });
        let names = (0..PLUGINS).step_by(every).map(population::plugin);
        Ok(Agent {
            client: client.map_err(Error::wrong("the agent"))?,
            names: names.collect::<Result<_, Error>>()?,
            _cache: cache,
        })
    }

    fn what(&self, step: &str) -> String {
        format!("agent with {} plugins, {step}", self.names.len())
    }

    async fn look(&self, registry: &Registry) -> Result<Look, Error> {
        registry.take_counts();
        let begun = Instant::now();
        self.client.refresh().await.map_err(Error::wrong("the agent"))?;
        let read = self.client.read(&self.names).await.map_err(Error::wrong("the agent"))?;
        let wall = begun.elapsed();
        if read.plugins.values().any(Option::is_none) {
            return Err(Error::Wrong {
                what: "the agent",
                why: "a plugin is not there".to_owned(),
            });
        }
        Ok(Look { counts: registry.take_counts(), wall })
    }
}

impl Look {
    /// Adds the figures; with the number of changed plugins and of new statements of each, what
    /// proves one. The bar is for a plugin with its one statement.
    fn rows(&self, report: &mut Report, what: &str, changed: Option<(usize, usize)>) {
        let Counts { requests, statement_bytes, proof_bytes } = self.counts;
        let kilobytes = |bytes: u64| bytes as f64 / 1e3;
        report.row(Row::new(format!("{what}: requests"), "", requests as f64));
        report.row(Row::new(format!("{what}: statements"), "kB", kilobytes(statement_bytes)));
        report.row(Row::new(format!("{what}: proof"), "kB", kilobytes(proof_bytes)));
        if let Some((changed, statements)) = changed {
            let each = proof_bytes as f64 / changed as f64;
            if statements > 1 {
                let what = format!("{what}: proof a changed plugin, {statements} statements each");
                report.row(Row::new(what, "B", each));
            }
            let what = match statements {
                1 => format!("{what}: proof a changed plugin"),
                _ => format!("{what}: proof a new statement"),
            };
            let row = Row::new(what, "B", each / statements as f64);
            report.row(row.target(Target::AtMost(PROOF_BYTES_MAX)));
        }
        let wall = self.wall.as_secs_f64() * 1e3;
        report.row(Row::new(format!("{what}: time with the registry's"), "ms", wall));
    }
}
