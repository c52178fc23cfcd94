//! A trust root in words.

use std::time::Duration;

use modunest_agent::trust::{Root as Pinned, Updater, from_folder};
use modunest_core::digest::Digest;
use modunest_core::statement::RegistryKeys;
use modunest_core::time::Timestamp;
use modunest_core::trust::{
    self, Config, File, Role, RoleKeys, RoleName, Root, Signed, Snapshot, Targets,
};
use serde::Serialize;

use super::ceremony::read_config;
use super::folder::Folder;
use crate::commands::Context;
use crate::error::Error;

/// From when on the holders are reminded that a signature of theirs ends: two months are
/// enough to bring them together.
const REMIND: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// What is shown.
#[derive(Debug, Serialize)]
pub struct View {
    /// The roles, from the root down.
    pub roles: Vec<RoleView>,
    /// The configuration, if there is one.
    pub config: Option<serde_json::Value>,
    /// What still lacks signatures.
    pub drafts: Vec<String>,
    /// Why a new host that is given the oldest root here does not come to this configuration;
    /// absent when it does.
    pub refused: Option<String>,
}

/// One role.
#[derive(Debug, Serialize)]
pub struct RoleView {
    /// Its name.
    pub role: RoleName,
    /// How many of its keys must sign.
    pub threshold: usize,
    /// Its keys.
    pub keys: Vec<Digest>,
    /// The newest metadata; absent where there is none.
    pub newest: Option<Newest>,
}

/// A role's newest metadata.
#[derive(Debug, Serialize)]
pub struct Newest {
    /// Its version.
    pub version: u64,
    /// Until when it is believed.
    pub expires: String,
    /// Whether its end is near or past.
    pub due: bool,
    /// Keys of the role that signed it.
    pub signed: Vec<Digest>,
}

/// Shows the folder.
///
/// # Errors
/// When it holds no trust root, or a file cannot be read.
pub async fn run(context: &Context, folder: &Folder, now: Timestamp) -> Result<(), Error> {
    let (view, config) = view(folder, now).await?;
    context.output.print(&view, |view| words(view, config.as_ref()))?;
    view.refused.map_or(Ok(()), |reason| Err(Error::Unproven(reason)))
}

/// What the folder holds.
///
/// # Errors
/// When it holds no trust root, or a file cannot be read.
pub async fn view(folder: &Folder, now: Timestamp) -> Result<(View, Option<Config>), Error> {
    let (root, _) = folder.root()?;
    let targets = folder.newest::<Targets>()?.map(|(it, _)| it);
    let snapshot = folder.newest::<Snapshot>()?.map(|(it, _)| it);
    let timestamp = folder.metadata::<trust::Timestamp>(File::Timestamp)?.map(|(it, _)| it);
    let config = match &targets {
        Some(targets) => Some(read_config(folder, &targets.signed)?),
        None => None,
    };
    let config = match config {
        Some(bytes) => Some(Config::parse(&bytes).map_err(|e| Error::Input(e.to_string()))?),
        None => None,
    };
    let keys = &root.signed;
    let roles = vec![
        role(keys, Some(&root), now),
        role(keys, targets.as_ref(), now),
        role(keys, snapshot.as_ref(), now),
        role(keys, timestamp.as_ref(), now),
    ];
    let drafts = folder.drafts().list()?.iter().map(File::to_string).collect();
    let refused = verify(folder, now).await?;
    let json = config.as_ref().map(super::config_json).transpose()?;
    Ok((View { roles, config: json, drafts, refused }, config))
}

fn role<T: Role>(root: &Root, newest: Option<&Signed<T>>, now: Timestamp) -> RoleView {
    let RoleKeys { keyids, threshold } = root.role(T::NAME);
    let newest = newest.map(|newest| {
        let common = newest.signed.common();
        let remind = match T::NAME {
            RoleName::Root | RoleName::Targets => REMIND,
            RoleName::Snapshot | RoleName::Timestamp => Duration::ZERO,
        };
        Newest {
            version: common.version,
            expires: common.expires.to_string(),
            due: common.expires <= now.plus(remind),
            signed: newest.signers(root).into_iter().collect(),
        }
    });
    RoleView { role: T::NAME, threshold: *threshold, keys: keyids.clone(), newest }
}

/// Reads the folder as a new host would; answers why it is refused, if it is.
async fn verify(folder: &Folder, now: Timestamp) -> Result<Option<String>, Error> {
    let oldest = folder.list()?.into_iter().find(|file| matches!(file, File::Root(_)));
    let bytes = match oldest {
        Some(file) => folder.read(file)?.unwrap_or_default(),
        None => return Ok(Some("there is no root".to_owned())),
    };
    let kept = tempfile::tempdir().map_err(Error::file("a temporary folder"))?;
    let updater = match Pinned::from_bytes(bytes).and_then(|root| Updater::open(root, kept.path()))
    {
        Ok(updater) => updater,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let refreshed = updater.refresh(from_folder(folder.path().to_owned()), now).await;
    Ok(refreshed.err().map(|error| error.to_string()))
}

/// The view in words.
pub fn words(view: &View, config: Option<&Config>) -> String {
    let mut lines = Vec::new();
    for RoleView { role, threshold, keys, newest } in &view.roles {
        let does = match role {
            RoleName::Root => "says which keys the roles have",
            RoleName::Targets => "says which configuration is right",
            RoleName::Snapshot => "says which targets metadata is the newest",
            RoleName::Timestamp => "says which snapshot is the newest",
        };
        lines.push(format!("{role}: {does}; {threshold} of {} keys must sign", keys.len()));
        match newest {
            Some(newest) => {
                let due = if newest.due { ": sign it anew" } else { "" };
                lines.push(format!(
                    "  version {}, believed until {}{due}",
                    newest.version, newest.expires
                ));
                lines.extend(keys.iter().map(|id| {
                    let signed = if newest.signed.contains(id) { "signed" } else { "      " };
                    format!("  {signed} {id}")
                }));
            }
            None => lines.push("  there is none yet".to_owned()),
        }
    }
    if let Some(config) = config {
        lines.push(format!("configuration of {}", config.origin));
        lines.push(format!("  the log is signed by       {}", config.log_key));
        for (what, keys) in [
            ("the head is signed by     ", &config.head_keys),
            ("statements are signed by  ", &config.statement_keys),
        ] {
            lines.extend(key_lines(what, keys));
        }
        let policy = config.witnesses.text().trim_end().replace('\n', "\n    ");
        lines.push(format!("  witnesses of the log:\n    {policy}"));
        let policy = &config.policy;
        lines.push(format!(
            "  a head may be {} s old, a checkpoint {} s",
            policy.head_max_age.as_secs(),
            policy.checkpoint_max_age.as_secs()
        ));
        let verdict = if policy.verdict_required { "need" } else { "do not need" };
        lines.push(format!(
            "  releases {verdict} a verdict; plugins below the level {} are not loaded",
            policy.lowest_level
        ));
    }
    for draft in &view.drafts {
        lines.push(format!("waiting for signatures: {draft}"));
    }
    lines.push(match &view.refused {
        None => "a new host that is given the oldest root here believes this".to_owned(),
        Some(reason) => format!("a new host does not believe this: {reason}"),
    });
    lines.join("\n")
}

fn key_lines(what: &str, keys: &RegistryKeys) -> Vec<String> {
    let line = |key: &modunest_core::statement::RegistryKey| match key.until {
        None => format!("  {what} {}", key.key),
        Some(until) => format!("  {what} {} (below position {until} only)", key.key),
    };
    keys.0.iter().map(line).collect()
}
