//! What the ceremonies do. Each makes drafts and then settles: the keys at hand sign, and when
//! all that belongs together has enough signatures, it moves into the folder at once.

use std::collections::BTreeSet;
use std::path::Path;

use modunest_core::digest::Digest;
use modunest_core::time::Timestamp;
use modunest_core::trust::{
    self, Config, File, PublicKey, ROOT_LIVES_FOR, RoleKeys, RoleName, Roles, Root, Signed,
    SigningKey, TARGETS_LIVE_FOR, Targets,
};
use serde::Serialize;

use super::folder::Folder;
use crate::error::Error;

/// Keys and thresholds of a first root.
pub struct Founders {
    /// Who signs roots.
    pub root: Vec<PublicKey>,
    /// How many of them must.
    pub threshold: usize,
    /// Who signs configurations, and how many must.
    pub targets: (Vec<PublicKey>, usize),
    /// Who signs snapshots and timestamps; one of them is enough.
    pub online: Vec<PublicKey>,
}

/// What a ceremony came to.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Files to upload, in this order.
    pub upload: Vec<String>,
    /// What still lacks signatures.
    pub waiting: Vec<Waiting>,
    /// Whether snapshot and timestamp are to be signed by the online key.
    pub refresh: bool,
}

/// Metadata that lacks signatures.
#[derive(Debug, Serialize)]
pub struct Waiting {
    /// The draft.
    pub file: String,
    /// Identifiers of the keys that signed.
    pub signed: Vec<Digest>,
    /// Whose signatures are missing: groups of keys with how many of each must still sign.
    pub missing: Vec<Missing>,
}

/// Keys of which some must still sign.
#[derive(Debug, Serialize)]
pub struct Missing {
    /// How many.
    pub signatures: usize,
    /// Of these.
    pub of: Vec<Digest>,
}

fn rule(error: trust::MetadataError) -> Error {
    Error::Input(error.to_string())
}

/// Makes the first root and the first targets.
///
/// # Errors
/// When the folder holds a trust root already, or the keys cannot be meant.
pub fn create(
    folder: &Folder,
    founders: &Founders,
    config: &Config,
    keys: &[SigningKey],
    now: Timestamp,
) -> Result<Report, Error> {
    free_of_drafts(folder)?;
    if folder.newest::<Root>()?.is_some() {
        return Err(Error::Usage(format!(
            "{} holds a trust root already; choose another folder, or change that one with `modunest trust replace-root`",
            folder.path().display()
        )));
    }
    let (targets, targets_threshold) = &founders.targets;
    let roles = Roles {
        root: RoleKeys::new(&founders.root, founders.threshold),
        targets: RoleKeys::new(targets, *targets_threshold),
        snapshot: RoleKeys::new(&founders.online, 1),
        timestamp: RoleKeys::new(&founders.online, 1),
    };
    let all = founders.root.iter().chain(targets).chain(&founders.online);
    let root = Root::new(1, now.plus(ROOT_LIVES_FOR), all, roles).map_err(rule)?;
    folder.drafts().write(File::Root(1), &Signed::new(root).to_bytes())?;
    draft_targets(folder, 1, &config.to_bytes(), now)?;
    settle(folder, keys, now)
}

/// Makes the next root. `change` gets the roles of the last one; `added` are keys that it may
/// name. Where the new root gives the configuration to other keys, these sign it anew.
///
/// # Errors
/// When the roles ask for what the keys cannot give.
pub fn change_root(
    folder: &Folder,
    added: &[PublicKey],
    change: impl FnOnce(&mut Roles),
    keys: &[SigningKey],
    now: Timestamp,
) -> Result<Report, Error> {
    free_of_drafts(folder)?;
    let (last, _) = folder.root()?;
    let mut roles = last.signed.roles.clone();
    change(&mut roles);
    let version = last.signed.common.version + 1;
    let known = last.signed.keys.values().chain(added);
    let root = Root::new(version, now.plus(ROOT_LIVES_FOR), known, roles).map_err(rule)?;
    if let Some((targets, _)) = folder.newest::<Targets>()?
        && targets.check(&root).is_err()
    {
        let config = read_config(folder, &targets.signed)?;
        draft_targets(folder, targets.signed.common.version + 1, &config, now)?;
    }
    folder.drafts().write(File::Root(version), &Signed::new(root).to_bytes())?;
    settle(folder, keys, now)
}

/// Puts `new` in the place of `old` in every role that names it.
///
/// # Errors
/// When no role names `old`, and as [`change_root`].
pub fn rotate(
    folder: &Folder,
    old: Digest,
    new: &PublicKey,
    keys: &[SigningKey],
    now: Timestamp,
) -> Result<Report, Error> {
    let (last, _) = folder.root()?;
    if !last.signed.keys.contains_key(&old) {
        return Err(Error::Usage(format!(
            "the root names no key {old}; `modunest trust show` lists those that it names"
        )));
    }
    let replace = |role: &mut RoleKeys| {
        if role.keyids.contains(&old) {
            role.keyids.retain(|id| *id != old && *id != new.id());
            role.keyids.push(new.id());
            role.keyids.sort();
        }
    };
    let change = |roles: &mut Roles| {
        for role in [&mut roles.root, &mut roles.targets, &mut roles.snapshot, &mut roles.timestamp]
        {
            replace(role);
        }
    };
    change_root(folder, &[*new], change, keys, now)
}

/// Names another configuration.
///
/// # Errors
/// When there is no trust root yet.
pub fn configure(
    folder: &Folder,
    config: &Config,
    keys: &[SigningKey],
    now: Timestamp,
) -> Result<Report, Error> {
    free_of_drafts(folder)?;
    folder.root()?;
    let last = folder.newest::<Targets>()?.map_or(0, |(last, _)| last.signed.common.version);
    draft_targets(folder, last + 1, &config.to_bytes(), now)?;
    settle(folder, keys, now)
}

/// The bytes of the configuration that targets metadata names.
///
/// # Errors
/// When it is not in the folder, or is another one.
pub fn read_config(folder: &Folder, targets: &Targets) -> Result<Vec<u8>, Error> {
    let file = File::Config(targets.config().digest());
    let path = folder.path().join(file.to_string());
    match folder.read(file)? {
        Some(bytes) if Digest::of(&bytes) == targets.config().digest() => Ok(bytes),
        Some(_) => Err(Error::Input(format!("{} was changed; fetch it again", path.display()))),
        None => Err(Error::Input(format!("{} is missing; fetch it again", path.display()))),
    }
}

fn draft_targets(
    folder: &Folder,
    version: u64,
    config: &[u8],
    now: Timestamp,
) -> Result<(), Error> {
    let targets = Targets::new(version, now.plus(TARGETS_LIVE_FOR), config);
    let drafts = folder.drafts();
    drafts.write(File::Config(targets.config().digest()), config)?;
    drafts.write(File::Targets(version), &Signed::new(targets).to_bytes())
}

fn free_of_drafts(folder: &Folder) -> Result<(), Error> {
    let drafts = folder.drafts();
    if drafts.list()?.is_empty() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} holds what another ceremony has begun; finish it with `modunest trust sign`, or delete that folder",
        drafts.path().display()
    )))
}

/// Signs drafts with the keys at hand, moves them over if nothing lacks a signature, and renews
/// snapshot and timestamp if the online key is among the keys.
///
/// # Errors
/// When a file cannot be read or written, or a draft is not what it should be.
pub fn settle(folder: &Folder, keys: &[SigningKey], now: Timestamp) -> Result<Report, Error> {
    let drafts = folder.drafts();
    // A move that was cut short goes on where it stopped.
    for file in drafts.list()? {
        if folder.read(file)? == drafts.read(file)? {
            drafts.remove(file)?;
        }
    }
    let published = folder.newest::<Root>()?.map(|(root, _)| root.signed);
    let mut root = drafts.newest::<Root>()?.map(|(draft, _)| draft);
    let mut targets = drafts.newest::<Targets>()?.map(|(draft, _)| draft);
    let mut report = Report::default();

    if let Some(draft) = &mut root {
        let voices: Vec<Root> = published.iter().chain([&draft.signed]).cloned().collect();
        if let Some(last) = &published
            && draft.signed.common.version != last.common.version + 1
        {
            return Err(Error::Input(format!(
                "the drafted root is version {} and the newest is {}; delete {} and begin anew",
                draft.signed.common.version,
                last.common.version,
                drafts.path().display()
            )));
        }
        sign(&drafts, draft, &voices, keys, &mut report)?;
    }
    let authority = root.as_ref().map(|draft| draft.signed.clone()).or(published);
    let Some(authority) = authority else {
        return Err(Error::Usage(format!(
            "{} holds no trust root; `modunest trust create` makes one",
            folder.path().display()
        )));
    };
    if let Some(draft) = &mut targets {
        sign(&drafts, draft, std::slice::from_ref(&authority), keys, &mut report)?;
    }
    let mut moved = Vec::new();
    if report.waiting.is_empty() {
        if let Some(draft) = &targets {
            let config = File::Config(draft.signed.config().digest());
            // The same configuration, signed by others, is there already.
            let from = if drafts.read(config)?.is_some() { &drafts } else { folder };
            moved.push((config, read_config(from, &draft.signed)?));
            moved.push((File::Targets(draft.signed.common.version), draft.to_bytes()));
        }
        moved.extend(root.map(|draft| (File::Root(draft.signed.common.version), draft.to_bytes())));
        for (file, bytes) in &moved {
            folder.write(*file, bytes)?;
        }
        for (file, _) in &moved {
            drafts.remove(*file)?;
        }
    }
    let mut upload: Vec<File> = moved.into_iter().map(|(file, _)| file).collect();
    if report.waiting.is_empty() {
        upload.extend(renew(folder, &authority, keys, now, &mut report)?);
    }
    // What names others comes after them; a new root last but for the timestamp.
    upload.sort_by_key(|file| match file {
        File::Config(_) => 0,
        File::Targets(_) => 1,
        File::Snapshot(_) => 2,
        File::Root(_) => 3,
        File::Timestamp => 4,
    });
    report.upload = upload.iter().map(File::to_string).collect();
    Ok(report)
}

/// Adds the signatures of keys that one of `voices` gives the role, and notes who is missing.
fn sign<T: trust::Role>(
    drafts: &Folder,
    draft: &mut Signed<T>,
    voices: &[Root],
    keys: &[SigningKey],
    report: &mut Report,
) -> Result<(), Error> {
    let before = draft.signatures.len();
    for key in keys {
        let id = key.public().id();
        let may = voices.iter().any(|root| root.role(T::NAME).keyids.contains(&id));
        if may && !draft.signatures.iter().any(|signature| signature.keyid == id) {
            draft.sign(key);
        }
    }
    let file = File::of(T::NAME, draft.signed.common().version);
    if draft.signatures.len() != before {
        drafts.write(file, &draft.to_bytes())?;
    }
    let mut signed = BTreeSet::new();
    let mut missing = Vec::new();
    for root in voices {
        let signers = draft.signers(root);
        let RoleKeys { keyids, threshold } = root.role(T::NAME);
        if signers.len() < *threshold {
            let of: Vec<Digest> =
                keyids.iter().filter(|id| !signers.contains(id)).copied().collect();
            let signatures = threshold - signers.len();
            if !missing.iter().any(|m: &Missing| m.of == of && m.signatures == signatures) {
                missing.push(Missing { signatures, of });
            }
        }
        signed.extend(signers);
    }
    if !missing.is_empty() {
        let file = drafts.path().join(file.to_string()).display().to_string();
        report.waiting.push(Waiting { file, signed: signed.into_iter().collect(), missing });
    }
    Ok(())
}

fn renew(
    folder: &Folder,
    root: &Root,
    keys: &[SigningKey],
    now: Timestamp,
    report: &mut Report,
) -> Result<Vec<File>, Error> {
    let online = &root.role(RoleName::Timestamp).keyids;
    let is_online = keys.iter().any(|key| online.contains(&key.public().id()));
    let renewed = folder.with_current(|current| {
        // Without the key this only finds out whether something is due.
        let keys = if is_online { keys } else { &[] };
        match trust::renew(current, keys, now) {
            Err(trust::MetadataError::Threshold { role, .. })
                if !is_online && matches!(role, RoleName::Snapshot | RoleName::Timestamp) =>
            {
                Ok(None)
            }
            renewed => renewed.map(Some).map_err(rule),
        }
    })?;
    let Some(Some(renewed)) = renewed else {
        report.refresh = true;
        return Ok(Vec::new());
    };
    for (file, bytes) in &renewed.files {
        folder.write(*file, bytes)?;
    }
    Ok(renewed.files.into_iter().map(|(file, _)| file).collect())
}

/// Reads a configuration file.
///
/// # Errors
/// When it cannot be read or breaks a rule.
pub fn read_config_file(path: &Path) -> Result<Config, Error> {
    let bytes = std::fs::read(path).map_err(Error::file(path))?;
    Config::parse(&bytes).map_err(|error| Error::Input(format!("{}: {error}", path.display())))
}
