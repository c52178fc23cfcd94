//! `verify` and `rollback`.

use clap::Args;
use modunest_agent::store::{Generation, Generations};
use modunest_agent::sync::Syncer;
use modunest_agent::{Config, EXIT_OK, Error};
use serde_json::json;

use super::print;

#[derive(Args)]
pub(super) struct RollbackArguments {
    /// The generation to go back to; the one before the current one if none is given
    generation: Option<u64>,
}

pub(super) async fn verify(config: &Config, json: bool) -> Result<u8, Error> {
    let generation = current(config)?;
    let count = Syncer::open(config)?.verify(config, &generation)?;
    let text = format!(
        "generation {}: {count} plugins proven, from the registry's key to every file",
        generation.number
    );
    let value = json!({ "generation": generation.number, "plugins": count, "proven": true });
    print::text_or_json(json, &text, &value)?;
    Ok(EXIT_OK)
}

pub(super) fn rollback(
    config: &Config,
    arguments: &RollbackArguments,
    json: bool,
) -> Result<u8, Error> {
    let current = current(config)?;
    let generations = Generations::open(&config.state_dir)?;
    let before = generations.numbers()?.into_iter().rfind(|number| *number < current.number);
    let number = arguments.generation.or(before).ok_or(Error::NoGeneration)?;
    let chosen = generations.read(number)?;
    // What cannot be proven is not gone back to.
    Syncer::open(config)?.verify(config, &chosen)?;
    modunest_agent::sync::go_back(&config.state_dir, &generations, &chosen)?;
    let text = format!("generation {number} is current; restart the agent to load it");
    print::text_or_json(json, &text, &json!({ "generation": number }))?;
    Ok(EXIT_OK)
}

pub(super) fn current(config: &Config) -> Result<Generation, Error> {
    Generations::open(&config.state_dir)?.current()?.ok_or(Error::NoGeneration)
}
