//! The plugins of a fleet, made and published.

use std::path::Path;

use modunest_core::archive::{MANIFEST_NAME, PackFile};
use modunest_core::name::PluginName;
use modunest_core::relation::{BuildTarget, COMPONENT_WORLD};
use modunest_core::scan::{COMPONENT_NAME, LIBRARY_NAME};

use crate::calls::echo_library;
use crate::components::plugins::PROBE;
use crate::error::Error;
use crate::host::plugins::{self, letters};
use crate::plain::{self, Tier};
use crate::publish::publisher::Publisher;

/// One plugin of a fleet.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: PluginName,
    /// Where it runs.
    pub tier: Tier,
    /// What is asked for, to call it: it counts.
    pub path: String,
    /// Which configuration it has.
    pub round: u32,
}

/// Publishes so many, of each tier as many as of the others. All keep a count, which a
/// successor takes over.
pub async fn publish(
    publisher: &Publisher,
    folder: &Path,
    count: usize,
) -> Result<Vec<Member>, Error> {
    let library = echo_library(folder)?;
    let library = std::fs::read(&library).map_err(Error::io(&library))?;
    let mut members = Vec::new();
    for number in 0..count {
        let tier = Tier::ALL[number % Tier::ALL.len()];
        let id = letters(number);
        let name: PluginName =
            format!("bench/soak{id}").parse().map_err(Error::wrong("a plugin's name"))?;
        let route = if tier.has_components() {
            format!("/{id}/{{service}}")
        } else {
            format!("/{id}/count")
        };
        let more = format!(
            "\n[[route]]\npath = \"{route}\"\nmethods = [\"GET\"]\n\n[state]\nversion = 1\n"
        );
        let text = plain::manifest(&name, &more);
        let file = |name: &str, content: &[u8], executable| PackFile {
            name: name.to_owned(),
            content: content.to_vec(),
            executable,
        };
        let (text, target, code) = if tier.has_components() {
            (
                format!(
                    "{text}\n[build]\nwasm = {{ library = \"probe\", world = \"{COMPONENT_WORLD}\" }}\n"
                ),
                BuildTarget::Wasm { world: COMPONENT_WORLD },
                file(COMPONENT_NAME, PROBE, false),
            )
        } else {
            (
                format!("{text}\n[build]\nnative = {{ library = \"plugin\" }}\n"),
                plugins::native_target(&library)?,
                file(LIBRARY_NAME, &library, true),
            )
        };
        let files = vec![file(MANIFEST_NAME, text.as_bytes(), false), code];
        publisher.publish(&plugins::archived(&text, target, files)?).await?;
        members.push(Member { name, tier, path: format!("/{id}/count"), round: 0 });
    }
    Ok(members)
}
