//! A refresh, and what is kept of the one before.

use std::future::Future;

use modunest_core::keys::ObjectKey;
use modunest_core::time::Timestamp;
use modunest_core::trust::{
    CONFIG_MAX_BYTES, CONFIG_TARGET, Config, METADATA_MAX_BYTES, RoleName, TargetMeta,
};
use sigstore_tuf::metadata::Role as _;
use sigstore_tuf::{TrustedMetadataSet, UpdaterConfig};

use super::source::Fetch;
use super::{Error, Kind, Trusted, Updater};
use crate::registry;

/// Most new roots in one refresh: a root every month for 20 years, which this host slept
/// through.
const ROOTS_MAX: u32 = 240;

impl Updater {
    /// Asks for the newest files and believes them if every signature, version, hash and time
    /// is right. When nobody answers, what is kept serves until it expires
    /// ([`Trusted::offline`] says why).
    ///
    /// `fetch` gives the bytes of a file, at most as many as it is told, or `None` where the
    /// registry says that there is no such file.
    ///
    /// # Errors
    /// [`Error`]. What was believed before stays as it was, or has moved on to files that were
    /// proven.
    pub async fn refresh<F, A>(&self, fetch: F, now: Timestamp) -> Result<Trusted, Error>
    where
        F: Fn(ObjectKey, usize) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Option<Vec<u8>>, registry::Error>> + Send + 'static,
    {
        let fetched = tokio::time::timeout(self.timeout, self.fetch(fetch, now)).await;
        match fetched.unwrap_or(Err(Error::Slow(self.timeout))) {
            Err(error) if error.kind() == Kind::Unreachable => {
                // Without anything kept, that nobody answers is what there is to say.
                let mut trusted = match self.kept(now) {
                    Err(Error::NothingKept) => return Err(error),
                    kept => kept?,
                };
                tracing::debug!(%error, "the kept trust root serves");
                trusted.offline = Some(error.to_string());
                Ok(trusted)
            }
            fetched => fetched,
        }
    }

    async fn fetch<F, A>(&self, fetch: F, now: Timestamp) -> Result<Trusted, Error>
    where
        F: Fn(ObjectKey, usize) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Option<Vec<u8>>, registry::Error>> + Send + 'static,
    {
        self.kept.check(&self.root)?;
        let ours = |error| Error::of(error, ROOTS_MAX);
        let mut updater = sigstore_tuf::Updater::new(Fetch(fetch), &self.root.bytes)
            .map_err(ours)?
            .with_config(limits())
            .with_store(self.kept.clone());
        self.kept.failure()?;
        let time = moment(now)?;
        let refreshed = updater.refresh(time).await;
        // What could not be kept would be forgotten, and then an older one believed.
        self.kept.failure()?;
        refreshed.map_err(ours)?;
        let bytes = updater.get_target(CONFIG_TARGET, time).await;
        self.kept.failure()?;
        trusted(updater.trusted(), &bytes.map_err(ours)?)
    }

    /// What was believed last, if nothing of it has expired.
    ///
    /// # Errors
    /// [`Error::NothingKept`] before the first refresh, [`Error::Expired`], and whatever else is
    /// wrong with what is kept.
    pub fn kept(&self, now: Timestamp) -> Result<Trusted, Error> {
        let (ours, time) = (|error| Error::of(error, ROOTS_MAX), moment(now)?);
        let mut roots = self.kept.roots(&self.root)?;
        let mut set = roots.pop().ok_or(Error::NothingKept)?;
        let read =
            |role: RoleName| self.kept.read(&format!("{role}.json"))?.ok_or(Error::NothingKept);
        let timestamp = read(RoleName::Timestamp)?;
        let (snapshot, targets) = (read(RoleName::Snapshot)?, read(RoleName::Targets)?);
        let config = self.kept.config()?.ok_or(Error::NothingKept)?;
        set.check_root_expired(time).map_err(ours)?;
        set.update_timestamp(&timestamp, time).map_err(ours)?;
        set.update_snapshot(&snapshot, time).map_err(ours)?;
        set.update_targets(&targets, time).map_err(ours)?;
        trusted(&set, &config)
    }
}

/// Every file is as short as the ceremonies make it.
fn limits() -> UpdaterConfig {
    let metadata = METADATA_MAX_BYTES as u64;
    let mut limits = UpdaterConfig::default();
    limits.root_max_length = metadata;
    limits.timestamp_max_length = metadata;
    limits.snapshot_max_length = metadata;
    limits.targets_max_length = metadata;
    limits.target_max_length = CONFIG_MAX_BYTES as u64;
    limits.max_root_rotations = ROOTS_MAX;
    limits.max_delegations = 1;
    limits
}

/// The library believes metadata at the moment at which it expires; the specification does not
/// (section 5, "MUST be higher than"). So it is told a millisecond more.
fn moment(now: Timestamp) -> Result<jiff::Timestamp, Error> {
    i64::try_from(now.as_millis())
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis.saturating_add(1)).ok())
        .ok_or_else(|| Error::Malformed(format!("this clock says {now}; set it")))
}

/// The configuration that a verified set names.
fn trusted(set: &TrustedMetadataSet, config: &[u8]) -> Result<Trusted, Error> {
    let (Some(timestamp), Some(snapshot), Some(targets)) =
        (set.timestamp(), set.snapshot(), set.targets_role("targets"))
    else {
        return Err(Error::NothingKept);
    };
    let target = targets.target(CONFIG_TARGET).ok_or(Error::NoConfig)?;
    let found = TargetMeta::of(config);
    let hash = target.hashes.get("sha256").map(String::as_str);
    if target.length != found.length || hash != Some(&found.digest().to_hex()) {
        return Err(Error::Mixed(format!("{CONFIG_TARGET} is not what the targets name")));
    }
    let root = set.root();
    let roles = [
        (RoleName::Root, root.version, root.expires()),
        (RoleName::Targets, targets.version, targets.expires()),
        (RoleName::Snapshot, snapshot.version, snapshot.expires()),
        (RoleName::Timestamp, timestamp.version, timestamp.expires()),
    ];
    let expires = roles.iter().map(|(_, _, expires)| expires.as_millisecond()).min();
    let expires = expires.and_then(|millis| u64::try_from(millis).ok()).unwrap_or(0);
    Ok(Trusted {
        config: Config::parse(config)?,
        versions: roles.map(|(role, version, _)| (role, version)),
        expires: Timestamp::from_millis(expires),
        offline: None,
    })
}
