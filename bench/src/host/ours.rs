//! Our side: the functions that an agent calls from a lock file to running plugins.

use std::collections::BTreeMap;
use std::path::Path;

use modunest_agent::config::{HostSettings, Pattern};
use modunest_agent::host::{Call, Plan, Resources, State, load_all, prepare};
use modunest_agent::store::{Generations, Proven, Store};
use modunest_agent::sync::Policy;
use modunest_core::statement::RegistryKeys;
use modunest_sdk::abi::RequestKind;

use super::{Steps, Watch, in_parallel, plugins, processors};
use crate::error::Error;

/// All steps, from files to answers.
pub fn run(plugins: &Path, work: &Path) -> Result<Steps, Error> {
    let settings =
        HostSettings { in_process: vec![Pattern::Org(plugins::org()?)], ..HostSettings::default() };
    let keys = RegistryKeys::in_use([plugins::registry_key()?]);
    let policy = Policy::default();
    // Where the download of each archive would have left it.
    let numbers: BTreeMap<_, _> = (0..plugins::COUNT)
        .map(|number| Ok((plugins::name(number)?, number)))
        .collect::<Result<_, Error>>()?;

    let mut watch = Watch::start();
    let generations = Generations::open(plugins).map_err(Error::wrong("the generation"))?;
    let generation = generations.current().map_err(Error::wrong("the generation"))?;
    let generation = generation
        .ok_or_else(|| Error::Wrong { what: "the generation", why: "there is none".to_owned() })?;
    let proven = generation.prove(&keys, &policy).map_err(Error::wrong("the generation"))?;
    watch.step();

    let store = Store::open(work).map_err(Error::wrong("the store"))?;
    let one = |plugin: &Proven| {
        let path = plugins::archive(plugins, numbers[&plugin.release.plugin]);
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        store.stage(&bytes, plugin).map_err(Error::wrong("an archive"))
    };
    let staged = in_parallel(&proven, processors(), one)?;
    watch.step();

    let fresh = store.commit(staged).map_err(Error::wrong("the store"))?;
    watch.step();

    let prepared = prepare(&store, proven, fresh);
    let resources = Resources::new(work, settings.grants.outbound.clone());
    let plan = Plan::build(prepared, &BTreeMap::new(), &settings, &resources, None);
    let host = load_all(plan, &settings);
    watch.step();

    for (name, number) in &numbers {
        let wrong = |why: String| Error::Wrong { what: "a loaded plugin", why };
        let cell = host.cell(name).ok_or_else(|| wrong(format!("{name} is not there")))?;
        let status = cell.status();
        if status.state != State::Ready {
            return Err(wrong(format!("{name} is {}: {:?}", status.state.as_str(), status.reason)));
        }
        let call = Call {
            kind: RequestKind::Service,
            target: plugins::SERVICE,
            payload: &[],
            trace: "",
            caller: "",
            deadline_ms: 0,
        };
        let answer = cell.call(call).map_err(Error::wrong("a call"))?;
        if *answer != *number.to_string().as_bytes() {
            return Err(wrong(format!("{name} answered {answer:?}")));
        }
    }
    watch.step();
    Ok(watch.end())
}
