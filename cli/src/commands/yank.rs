//! `modunest yank`.

use std::path::Path;

use modunest_core::Version;
use modunest_core::name::PluginName;
use modunest_core::statement::{Statement, Yank};
use serde::Serialize;

use super::Context;
use crate::error::Error;

#[derive(Serialize)]
struct Done {
    plugin: PluginName,
    version: Version,
    yanked: bool,
    epoch: u64,
}

/// Yanks a release, or takes a yank back.
///
/// # Errors
/// Why it failed.
pub async fn run(
    context: &Context,
    release: &str,
    undo: bool,
    reason: Option<String>,
    key: Option<&Path>,
) -> Result<(), Error> {
    let (plugin, version) = parse(release)?;
    let publisher = context.publisher(key)?;
    let answer = publisher
        .say(&plugin, |link| {
            Statement::Yank(Yank {
                plugin: plugin.clone(),
                version: version.clone(),
                sequence: link.sequence,
                previous: link.previous,
                yanked: !undo,
                reason: reason.clone(),
            })
        })
        .await?;
    let done = Done { plugin, version, yanked: !undo, epoch: answer.epoch };
    context.output.print(&done, |done| {
        if done.yanked {
            format!("{} {} is yanked from epoch {} on: nobody new gets it, hosts that locked it keep it", done.plugin, done.version, done.epoch)
        } else {
            format!("{} {} is no longer yanked from epoch {} on", done.plugin, done.version, done.epoch)
        }
    })
}

/// Splits `org/name@version`.
///
/// # Errors
/// When it is not of that form.
pub fn parse(text: &str) -> Result<(PluginName, Version), Error> {
    let (name, version) = text.split_once('@').ok_or_else(|| {
        Error::Usage(format!(
            "\"{text}\" is not of the form org/name@version, for example demo/markdown@1.0.0"
        ))
    })?;
    let name = name.parse().map_err(|error| Error::Usage(format!("{error}")))?;
    let version = version
        .parse()
        .map_err(|error| Error::Usage(format!("\"{version}\" is not a version: {error}")))?;
    Ok((name, version))
}
