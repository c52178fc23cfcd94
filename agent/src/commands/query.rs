//! `verify`, `generations`, `rollback` and `reload`.

use clap::Args;
use modunest_agent::admin::{
    GENERATIONS_PATH, GenerationStatus, RELOAD_PATH, ROLLBACK_PATH, SyncAnswer,
};
use modunest_agent::store::{Generation, Generations, Tries};
use modunest_agent::sync::Syncer;
use modunest_agent::{Config, EXIT_OK, Error, Reloaded};
use serde_json::json;

use super::client::AgentClient;
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

pub(super) async fn generations(config: &Config, json: bool) -> Result<u8, Error> {
    let asked = AgentClient::of(config)?.get(GENERATIONS_PATH).await;
    let list: Vec<GenerationStatus> = match asked {
        Err(Error::NoAgent { .. }) => modunest_agent::kept_generations(&config.state_dir)?,
        other => other?,
    };
    let rows: Vec<[String; 4]> = list
        .iter()
        .map(|one| {
            let marks =
                [(one.running, "running"), (one.current, "current"), (one.pinned, "pinned")];
            let marks = marks.iter().filter(|(is, _)| *is).map(|(_, word)| *word);
            [
                one.number.to_string(),
                one.made_at.clone(),
                marks.collect::<Vec<_>>().join(" "),
                one.plugins.join(", "),
            ]
        })
        .collect();
    let text = print::table(["GENERATION", "MADE", "STATE", "PLUGINS"], &rows);
    print::text_or_json(json, &text, &list)?;
    Ok(EXIT_OK)
}

pub(super) async fn rollback(
    config: &Config,
    arguments: &RollbackArguments,
    json: bool,
) -> Result<u8, Error> {
    let query = arguments.generation.map_or(String::new(), |one| format!("?generation={one}"));
    let asked = AgentClient::of(config)?.post(&format!("{ROLLBACK_PATH}{query}")).await;
    let (number, how) = match asked {
        Ok(SyncAnswer { generation, .. }) => (generation, "runs"),
        Err(Error::NoAgent { .. }) => {
            (go_back(config, arguments.generation)?, "will run when the agent starts")
        }
        Err(error) => return Err(error),
    };
    let text = format!(
        "generation {number} {how}; it is stayed with until the next `modunest-agent sync`"
    );
    print::text_or_json(json, &text, &json!({ "generation": number }))?;
    Ok(EXIT_OK)
}

/// Goes back without an agent.
fn go_back(config: &Config, number: Option<u64>) -> Result<u64, Error> {
    let current = current(config)?;
    let generations = Generations::open(&config.state_dir)?;
    // What is only tried never ran as a whole.
    let tried = Tries::read(&config.state_dir)?.candidate;
    let is_before = |number: &u64| *number < current.number && Some(*number) != tried;
    let before = generations.numbers()?.into_iter().rfind(is_before);
    let number = number.or(before).ok_or(Error::NoGeneration)?;
    if !generations.numbers()?.contains(&number) {
        return Err(Error::NotKept(number));
    }
    let chosen = generations.read(number)?;
    // What cannot be proven is not gone back to.
    Syncer::open(config)?.verify(config, &chosen)?;
    modunest_agent::sync::go_back(&config.state_dir, &generations, &chosen)?;
    Ok(number)
}

pub(super) async fn reload(config: &Config, json: bool) -> Result<u8, Error> {
    let reloaded: Reloaded = AgentClient::of(config)?.post(RELOAD_PATH).await?;
    let mut text = match reloaded.applied.as_slice() {
        [] => "nothing that can change while the agent runs has changed\n".to_owned(),
        applied => format!("in force now: {}\n", applied.join(", ")),
    };
    if !reloaded.needs_restart.is_empty() {
        text.push_str(&format!(
            "restart the agent for the rest: {}\n",
            reloaded.needs_restart.join(", ")
        ));
    }
    print::text_or_json(json, &text, &reloaded)?;
    Ok(EXIT_OK)
}

pub(super) fn current(config: &Config) -> Result<Generation, Error> {
    Generations::open(&config.state_dir)?.current()?.ok_or(Error::NoGeneration)
}
