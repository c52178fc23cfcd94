//! `modunest info`.

use std::collections::BTreeMap;
use std::time::Duration;

use modunest_core::Version;
use modunest_core::api::{Day, DownloadsView, plugin_downloads_path};
use modunest_core::name::{OrgName, PluginName};
use modunest_core::statement::{PluginState, ReleaseState, Status, TrustLevel, VerdictOutcome};
use serde::Serialize;

use super::{Context, registry, registry_error};
use crate::api::Api;
use crate::error::Error;
use crate::output;

/// How long the counts of downloads are waited for. All else has been read and proven by
/// then, and is shown in any case.
const DOWNLOADS_TIMEOUT: Duration = Duration::from_secs(3);
/// The status of a release that nothing is said against.
const ACTIVE: &str = "active";
/// Days that count as lately, today included.
const LATELY_DAYS: u32 = 7;

#[derive(Serialize)]
struct Info {
    plugin: PluginName,
    registry: String,
    epoch: u64,
    /// The organisation whose keys sign for it.
    owner: OrgName,
    trust: TrustLevel,
    /// Told by the API, and not proven by anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    downloads: Option<Downloads>,
    #[serde(skip_serializing_if = "Option::is_none")]
    downloads_unknown: Option<String>,
    releases: Vec<ReleaseInfo>,
}

#[derive(Serialize)]
struct Downloads {
    total: u64,
    last_7_days: u64,
}

#[derive(Serialize)]
struct ReleaseInfo {
    version: String,
    /// `active`, `deprecated`, `yanked` or `quarantined`: the gravest that holds.
    status: &'static str,
    /// Why, or what to do instead, in the words of whoever said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<VerdictInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    downloads: Option<u64>,
    statement: String,
    /// Position of the statement in the registry's log.
    position: u64,
    /// The key that signed it.
    signer: String,
    dependencies: Vec<String>,
    services: Vec<String>,
    capabilities: Vec<String>,
    builds: Vec<BuildInfo>,
}

#[derive(Serialize)]
struct VerdictInfo {
    outcome: VerdictOutcome,
    /// SHA-256 of the report, to be read at `/report/<digest>`.
    report: String,
}

#[derive(Serialize)]
struct BuildInfo {
    target: String,
    size_bytes: u64,
    archive: String,
}

/// Shows a plugin's releases, newest first, as the signed index has them, and how often they
/// were downloaded, as the API says.
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
    let path = plugin_downloads_path(plugin);
    let told = Api::read_public(&profile.url, &path, DOWNLOADS_TIMEOUT).await;
    let today = Day::of(modunest_runtime::clock::now());
    let mut info = describe(&state, profile.origin.clone(), head.epoch);
    add_downloads(&mut info, told, today);
    context.output.print(&info, text)
}

fn describe(state: &PluginState, registry: String, epoch: u64) -> Info {
    let releases = state.releases.values().rev().map(|it| release(state, it)).collect();
    Info {
        plugin: state.plugin.clone(),
        registry,
        epoch,
        owner: state.owner.clone(),
        trust: state.trust,
        downloads: None,
        downloads_unknown: None,
        releases,
    }
}

fn add_downloads(info: &mut Info, told: Result<DownloadsView, Error>, today: Day) {
    let view = match told {
        Ok(view) => view,
        Err(error) => {
            info.downloads_unknown = Some(error.to_string());
            return;
        }
    };
    let first = today.back(LATELY_DAYS - 1);
    let lately = view.days.iter().filter(|day| day.day >= first).map(|day| day.count).sum();
    info.downloads = Some(Downloads { total: view.total, last_7_days: lately });
    let versions: BTreeMap<String, u64> =
        view.versions.into_iter().map(|v| (Version::to_string(&v.version), v.total)).collect();
    for release in &mut info.releases {
        release.downloads = Some(versions.get(&release.version).copied().unwrap_or(0));
    }
}

fn release(plugin: &PluginState, state: &ReleaseState) -> ReleaseInfo {
    let release = &state.release;
    let (status, reason) = match plugin.status(state) {
        Status::Active => (ACTIVE, None),
        Status::Deprecated { message } => ("deprecated", message),
        Status::Yanked { reason } => ("yanked", reason),
        Status::Quarantined { reason } => ("quarantined", Some(reason)),
    };
    let verdict =
        state.verdict.map(|(outcome, report)| VerdictInfo { outcome, report: report.to_hex() });
    ReleaseInfo {
        version: release.version.to_string(),
        status,
        reason,
        verdict,
        downloads: None,
        statement: state.statement.to_hex(),
        position: state.position,
        signer: state.signer.to_string(),
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
    text.push_str(&format!("\nowner {}, trust level {}", info.owner, info.trust));
    if let Some(downloads) = &info.downloads {
        text.push_str(&format!(
            "\ndownloads: {}, of them {} in the last {LATELY_DAYS} days",
            downloads.total, downloads.last_7_days
        ));
    }
    if let Some(why) = &info.downloads_unknown {
        text.push_str(&format!("\ndownloads: unknown ({why})"));
    }
    for release in &info.releases {
        text.push_str(&format!("\n\n{}", release.version));
        if release.status != ACTIVE {
            let reason = release.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
            text.push_str(&format!("  {}{reason}", release.status));
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
        match &release.verdict {
            Some(verdict) => text.push_str(&format!(
                "\n  scan      {}, report {}",
                verdict.outcome.as_str(),
                verdict.report
            )),
            None => text.push_str("\n  scan      no verdict"),
        }
        text.push_str(&format!(
            "\n  log       position {}, signed with {}",
            release.position, release.signer
        ));
        if let Some(downloads) = release.downloads {
            text.push_str(&format!("\n  downloads {downloads}"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use modunest_core::api::{DayDownloads, VersionDownloads};

    fn info() -> Info {
        let release = |version: &str| ReleaseInfo {
            version: version.to_owned(),
            status: ACTIVE,
            reason: None,
            verdict: None,
            downloads: None,
            statement: "00".to_owned(),
            position: 7,
            signer: "demo+01234567+AQ==".to_owned(),
            dependencies: vec![],
            services: vec![],
            capabilities: vec![],
            builds: vec![],
        };
        Info {
            plugin: "demo/plugin".parse().unwrap(),
            registry: "local.modunest".to_owned(),
            epoch: 3,
            owner: "demo".parse().unwrap(),
            trust: TrustLevel::Community,
            downloads: None,
            downloads_unknown: None,
            releases: vec![release("2.0.0"), release("1.0.0")],
        }
    }

    #[test]
    fn downloads_of_versions_and_of_a_week() {
        let today: Day = "2026-03-01".parse().unwrap();
        let day = |back, count| DayDownloads { day: today.back(back), count };
        let view = DownloadsView {
            total: 111,
            versions: vec![VersionDownloads { version: Version::new(1, 0, 0), total: 111 }],
            days: vec![day(7, 100), day(6, 10), day(0, 1)],
        };
        let mut info = info();
        add_downloads(&mut info, Ok(view), today);
        insta::assert_snapshot!(text(&info), @r"
        demo/plugin at local.modunest, epoch 3, signatures and index proven
        owner demo, trust level community
        downloads: 111, of them 11 in the last 7 days

        2.0.0
          scan      no verdict
          log       position 7, signed with demo+01234567+AQ==
          downloads 0

        1.0.0
          scan      no verdict
          log       position 7, signed with demo+01234567+AQ==
          downloads 111
        ");
        let json = serde_json::to_value(&info).unwrap();
        assert_eq!(json["downloads"], serde_json::json!({"total": 111, "last_7_days": 11}));
        assert_eq!(json["releases"][1]["downloads"], 111);
    }

    #[test]
    fn the_rest_is_shown_without_them() {
        let mut info = info();
        let unreachable =
            Error::Unreachable { what: "the API".to_owned(), why: "refused".to_owned() };
        let said = unreachable.to_string();
        add_downloads(&mut info, Err(unreachable), Day::of(modunest_runtime::clock::now()));
        let text = text(&info);
        assert!(text.contains(&format!("downloads: unknown ({said})")), "{text}");
        assert!(text.contains("2.0.0"), "{text}");
        let json = serde_json::to_value(&info).unwrap();
        assert_eq!(json["downloads_unknown"], said);
        assert!(json.get("downloads").is_none());
    }
}
