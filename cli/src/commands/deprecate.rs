//! `modunest deprecate`.

use std::path::Path;

use modunest_core::Version;
use modunest_core::name::PluginName;
use modunest_core::statement::{Deprecation, Statement};
use serde::Serialize;

use super::{Context, yank};
use crate::error::Error;

#[derive(Serialize)]
struct Done {
    plugin: PluginName,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    deprecated: bool,
    epoch: u64,
}

/// Deprecates a release or a whole plugin, or takes that back.
///
/// # Errors
/// Why it failed.
pub async fn run(
    context: &Context,
    what: &str,
    undo: bool,
    message: Option<String>,
    key: Option<&Path>,
) -> Result<(), Error> {
    let (plugin, version) = parse(what)?;
    let publisher = context.publisher(key)?;
    let answer = publisher
        .say(&plugin, |link| {
            Statement::Deprecation(Deprecation {
                plugin: plugin.clone(),
                version: version.clone(),
                sequence: link.sequence,
                previous: link.previous,
                deprecated: !undo,
                message: message.clone(),
            })
        })
        .await?;
    let done = Done { plugin, version, deprecated: !undo, epoch: answer.epoch };
    context.output.print(&done, |done| {
        let what = match &done.version {
            Some(version) => format!("{} {version}", done.plugin),
            None => format!("{}, every release of it,", done.plugin),
        };
        if done.deprecated {
            format!("{what} is deprecated from epoch {} on: whoever gets it is warned", done.epoch)
        } else {
            format!("{what} is no longer deprecated from epoch {} on", done.epoch)
        }
    })
}

/// `org/name@version`, or `org/name` for all of it.
fn parse(text: &str) -> Result<(PluginName, Option<Version>), Error> {
    if text.contains('@') {
        let (plugin, version) = yank::parse(text)?;
        return Ok((plugin, Some(version)));
    }
    let plugin = text.parse().map_err(|error| Error::Usage(format!("{error}")))?;
    Ok((plugin, None))
}
