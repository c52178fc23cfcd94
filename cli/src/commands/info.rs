//! `modunest info`.

use modunest_core::name::PluginName;
use modunest_core::statement::{PluginState, ReleaseState, Status};
use serde::Serialize;

use super::{Context, registry, registry_error};
use crate::error::Error;
use crate::output;

#[derive(Serialize)]
struct Info {
    plugin: PluginName,
    registry: String,
    epoch: u64,
    releases: Vec<ReleaseInfo>,
}

#[derive(Serialize)]
struct ReleaseInfo {
    version: String,
    yanked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    statement: String,
    dependencies: Vec<String>,
    services: Vec<String>,
    capabilities: Vec<String>,
    builds: Vec<BuildInfo>,
}

#[derive(Serialize)]
struct BuildInfo {
    target: String,
    size_bytes: u64,
    archive: String,
}

/// Shows a plugin's releases, newest first, as the signed index has them.
///
/// # Errors
/// Why it failed.
pub async fn run(context: &Context, plugin: &PluginName) -> Result<(), Error> {
    let profile = context.profile()?;
    let registry = registry(&profile)?;
    let head = registry.refresh().await.map_err(registry_error)?;
    let state = registry.plugin(plugin).await.map_err(registry_error)?.ok_or_else(|| {
        Error::Failed(format!(
            "{} has no plugin {plugin}, proven by its index at epoch {}",
            profile.origin, head.epoch
        ))
    })?;
    let info = describe(&state, profile.origin.clone(), head.epoch);
    context.output.print(&info, text)
}

fn describe(state: &PluginState, registry: String, epoch: u64) -> Info {
    let releases = state.releases.values().rev().map(release).collect();
    Info { plugin: state.plugin.clone(), registry, epoch, releases }
}

fn release(state: &ReleaseState) -> ReleaseInfo {
    let release = &state.release;
    let (yanked, reason) = match &state.status {
        Status::Active => (false, None),
        Status::Yanked { reason } => (true, reason.clone()),
    };
    ReleaseInfo {
        version: release.version.to_string(),
        yanked,
        reason,
        statement: state.statement.to_hex(),
        dependencies: release
            .dependencies
            .iter()
            .map(|d| {
                format!(
                    "{} {}{}",
                    d.plugin,
                    d.requirement,
                    if d.optional { " (optional)" } else { "" }
                )
            })
            .collect(),
        services: release.services.iter().map(|s| format!("{} {}", s.name, s.version)).collect(),
        capabilities: release.capabilities.clone(),
        builds: release
            .builds
            .iter()
            .map(|build| BuildInfo {
                target: build.target.to_string(),
                size_bytes: build.size_bytes,
                archive: build.archive.to_hex(),
            })
            .collect(),
    }
}

fn text(info: &Info) -> String {
    let mut text = format!(
        "{} at {}, epoch {}, signatures and index proven",
        info.plugin, info.registry, info.epoch
    );
    for release in &info.releases {
        text.push_str(&format!("\n\n{}", release.version));
        if release.yanked {
            let reason = release.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
            text.push_str(&format!("  yanked{reason}"));
        }
        for (what, list) in [
            ("needs", &release.dependencies),
            ("offers", &release.services),
            ("asks for", &release.capabilities),
        ] {
            if !list.is_empty() {
                text.push_str(&format!("\n  {what:9} {}", list.join(", ")));
            }
        }
        for build in &release.builds {
            text.push_str(&format!(
                "\n  build     {}, {}\n            sha256 {}",
                build.target,
                output::size(build.size_bytes),
                build.archive
            ));
        }
    }
    text
}
