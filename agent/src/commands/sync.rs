//! `sync` and `resolve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use modunest_agent::sync::{Bundled, Locked, Options, Outcome, Resolved, Syncer, age_text};
use modunest_agent::{Config, EXIT_OK, Error};
use serde_json::json;

use super::print;

#[derive(Args)]
pub(super) struct SyncArguments {
    /// Use the lock file as it is, or fail
    #[arg(long, conflicts_with = "update")]
    frozen: bool,
    /// Use no network: succeed only if the current generation has all that is wanted
    #[arg(long, conflicts_with = "update")]
    offline: bool,
    /// Let go of the lock file's versions and take the newest
    #[arg(long)]
    update: bool,
    /// Ask this bundle in place of the registry, and take its versions
    #[arg(long, value_name = "FILE", conflicts_with_all = ["update", "offline"])]
    bundle: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct BundleArguments {
    /// File to write
    out: PathBuf,
    /// Also hold what a host needs that knows the log up to this size
    #[arg(long, value_name = "ENTRIES")]
    known_size: Option<u64>,
}

#[derive(Args)]
pub(super) struct ResolveArguments {
    /// Let go of the lock file's versions and take the newest
    #[arg(long)]
    update: bool,
}

pub(super) async fn sync(
    config: &Config,
    arguments: &SyncArguments,
    json: bool,
) -> Result<u8, Error> {
    let SyncArguments { frozen, offline, update, bundle } = arguments;
    let (frozen, offline, update) = (*frozen, *offline, *update);
    std::fs::create_dir_all(&config.state_dir)
        .map_err(|source| Error::StateDir { path: config.state_dir.clone(), source })?;
    let syncer = match bundle {
        Some(path) => Syncer::open_bundle(config, path)?,
        None => Syncer::open(config)?,
    };
    let bar = progress(json);
    let outcome = syncer.sync(config, Options { frozen, offline, update }, &bar).await;
    bar.finish_and_clear();
    let Outcome { generation, changed, fetched, head, offline, warnings, .. } = outcome?;
    let mut text = String::new();
    for warning in &warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    if let Some(reason) = &offline {
        let age = age_text(head.age_s);
        text.push_str(&format!("warning: {reason}; the last head is {age} old\n"));
    }
    text.push_str(&print::table(["PLUGIN", "VERSION", "BUILD"], &rows(&generation.lock.plugins)));
    let news = if changed { "new" } else { "as before" };
    text.push_str(&format!(
        "generation {} ({news}), {fetched} archives fetched, epoch {} of {}",
        generation.number, head.epoch, head.origin
    ));
    let value = json!({
        "generation": generation.number,
        "changed": changed,
        "fetched": fetched,
        "head": head,
        "offline": offline,
        "warnings": warnings,
        "plugins": generation.lock.plugins,
    });
    print::text_or_json(json, &text, &value)?;
    Ok(EXIT_OK)
}

pub(super) async fn bundle(
    config: &Config,
    arguments: &BundleArguments,
    json: bool,
) -> Result<u8, Error> {
    let BundleArguments { out, known_size } = arguments;
    let Bundled { plugins, objects, log_size } =
        Syncer::open(config)?.bundle(config, out, *known_size).await?;
    let text = format!(
        "{}: {plugins} plugins and what proves them, {objects} objects, log of {log_size} entries",
        out.display()
    );
    let value = json!({ "plugins": plugins, "objects": objects, "log_size": log_size });
    print::text_or_json(json, &text, &value)?;
    Ok(EXIT_OK)
}

pub(super) async fn resolve(
    config: &Config,
    arguments: &ResolveArguments,
    json: bool,
) -> Result<u8, Error> {
    std::fs::create_dir_all(&config.state_dir)
        .map_err(|source| Error::StateDir { path: config.state_dir.clone(), source })?;
    let syncer = Syncer::open(config)?;
    let Resolved { solution, locked, considered, .. } =
        syncer.resolve(config, arguments.update).await?;
    let mut text = print::table(["PLUGIN", "VERSION", "BUILD"], &rows(&locked));
    for warning in &solution.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str(&format!("{} plugins chosen, {considered} looked at", locked.len()));
    let value =
        json!({ "plugins": locked, "warnings": solution.warnings, "considered": considered });
    print::text_or_json(json, &text, &value)?;
    Ok(EXIT_OK)
}

fn rows(plugins: &[Locked]) -> Vec<[String; 3]> {
    plugins
        .iter()
        .map(|locked| {
            [locked.plugin.to_string(), locked.version.to_string(), locked.target.to_string()]
        })
        .collect()
}

/// A bar on a terminal, nothing elsewhere.
fn progress(json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let template = "{spinner} {msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec}";
    // A template that does not parse would only cost the looks.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
