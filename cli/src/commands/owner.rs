//! `modunest owner`.

use std::path::Path;

use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{Ownership, Statement};
use serde::Serialize;

use super::Context;
use crate::error::Error;

#[derive(Serialize)]
struct Done {
    plugin: PluginName,
    owner: OrgName,
    epoch: u64,
}

/// Gives a plugin to another organisation.
///
/// # Errors
/// Why it failed.
pub async fn run(
    context: &Context,
    plugin: PluginName,
    owner: OrgName,
    key: Option<&Path>,
) -> Result<(), Error> {
    let publisher = context.publisher(key)?;
    let answer = publisher
        .say(&plugin, |link| {
            Statement::Ownership(Ownership {
                plugin: plugin.clone(),
                sequence: link.sequence,
                previous: link.previous,
                owner: owner.clone(),
            })
        })
        .await?;
    let done = Done { plugin, owner, epoch: answer.epoch };
    context.output.print(&done, |done| {
        format!(
            "{} belongs to {} from epoch {} on: its keys sign for it, and its name stays",
            done.plugin, done.owner, done.epoch
        )
    })
}
