//! What is said over HTTP below `/v1/`, and the discovery document.
//!
//! Times are milliseconds since the epoch. Every error is a [`crate::problem::Problem`].
//!
//! | Method and path | Body | Answer |
//! |---|---|---|
//! | `POST /v1/releases` | [`PublishRequest`] | [`PublishResponse`] |
//! | `GET /v1/sessions/{session}` | - | [`SessionView`] |
//! | `DELETE /v1/sessions/{session}` | - | [`SessionView`] |
//! | `POST /v1/statements` | [`StatementRequest`] | [`StatementResponse`] |
//! | `GET /v1/whoami` | - | [`WhoAmI`] |
//! | `POST /v1/users` | [`CreateUser`] | [`UserView`] |
//! | `POST /v1/tokens` | [`CreateToken`] | [`TokenCreated`] |
//! | `DELETE /v1/tokens/{id}` | - | 204 |
//! | `POST /v1/orgs` | [`CreateOrg`] | [`OrgView`] |
//! | `GET /v1/orgs/{org}` | - | [`OrgView`] |
//! | `PUT /v1/orgs/{org}/members/{user}` | [`SetMember`] | [`OrgView`] |
//! | `DELETE /v1/orgs/{org}/members/{user}` | - | [`OrgView`] |
//! | `POST /v1/orgs/{org}/keys` | [`RegisterKey`] | [`StatementResponse`] |
//! | `POST /v1/orgs/{org}/keys/{hash}/rotate` | [`RotateKey`] | [`StatementResponse`] |
//! | `POST /v1/orgs/{org}/keys/{hash}/revoke` | [`RevokeKey`] | [`StatementResponse`] |
//! | `POST /v1/plugins/{org}/{name}/quarantine` | [`SetQuarantine`] | [`StatementResponse`] |
//! | `POST /v1/plugins/{org}/{name}/trust` | [`SetTrust`] | [`StatementResponse`] |
//! | `POST /v1/downloads` | [`DownloadBatch`] | 204 |
//! | `GET /v1/plugins/{org}/{name}/downloads` | - | [`DownloadsView`], for anybody |
//!
//! All but the last need a token.

mod downloads;

use std::collections::BTreeMap;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::authorise::{Role, Scope};
use crate::digest::Digest;
use crate::keys::SessionId;
use crate::name::{OrgName, PluginName, UserName};
use crate::problem::Problem;
use crate::publish::State;
use crate::statement::{KeyEnd, KeyState, TrustLevel};
use crate::time::Timestamp;

pub use downloads::{
    BatchId, BatchIdError, DOWNLOAD_COUNT_MAX, DOWNLOAD_DAYS_AHEAD, DOWNLOAD_DAYS_BACK,
    DOWNLOADS_DAYS_SHOWN, DOWNLOADS_MAX, DOWNLOADS_PATH, Day, DayDownloads, DayError,
    DownloadBatch, Downloaded, DownloadsView, VersionDownloads,
};

/// Version of the public paths and formats that this code speaks.
pub const PROTOCOL_VERSION: u32 = 1;
/// Largest JSON body the API reads, in bytes: a statement of 8 KB, escaped, with room.
pub const BODY_MAX_BYTES: usize = 64 * 1024;

/// The document at [`crate::keys::DISCOVERY_PATH`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// Protocol versions that the registry speaks.
    pub protocols: Vec<u32>,
    /// Name of the registry, as in its heads.
    pub origin: String,
    /// Where the API's paths start.
    pub api: String,
    /// Where files start.
    pub files: String,
    /// The registry's keys as `name+hash+base64`. For people to compare: agents believe
    /// only the keys in their own configuration.
    pub keys: Vec<String>,
}

/// A release to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// The signed release statement, as text: signed notes are UTF-8.
    pub statement: String,
    /// Run every check that can run before the upload, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Where to put one archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// SHA-256 of the archive.
    pub archive: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The HTTP method: `PUT`.
    pub method: String,
    /// Presigned URL; good once, until `expires_at`.
    pub url: String,
    /// Headers that are part of the signature and must be sent as they stand.
    pub headers: BTreeMap<String, String>,
    /// When the URL expires.
    pub expires_at: Timestamp,
}

/// Answer to a publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishResponse {
    /// The session to follow; absent for a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Where it stands.
    pub state: State,
    /// What to upload; empty when the registry has every archive.
    pub uploads: Vec<Upload>,
}

/// A session, for whoever follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// The session.
    pub session: SessionId,
    /// The plugin.
    pub plugin: PluginName,
    /// The version.
    pub version: Version,
    /// Where it stands.
    pub state: State,
    /// How often work on it was begun.
    pub attempt: u32,
    /// When it came to this state.
    pub changed_at: Timestamp,
    /// Until when uploads are accepted.
    pub upload_until: Timestamp,
    /// Why it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Problem>,
    /// What the scan noticed without rejecting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// The scan's report, to be read at `/report/<digest>`, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Digest>,
    /// Epoch of the first head that shows the release, once published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// A signed statement of a plugin's owner other than a release: a yank, a deprecation, or
/// that the plugin goes to another organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementRequest {
    /// The signed statement, as text.
    pub statement: String,
}

/// A statement that readers can see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementResponse {
    /// SHA-256 of the statement.
    pub statement: Digest,
    /// Epoch of a head that shows it.
    pub epoch: u64,
}

/// Who the token belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAmI {
    /// The user.
    pub user: UserName,
    /// Whether the user administers the registry.
    pub registry_admin: bool,
    /// The token's scopes.
    pub scopes: Vec<Scope>,
    /// When the token expires.
    pub token_expires_at: Option<Timestamp>,
}

/// A user to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// The handle.
    pub user: UserName,
    /// Whether the user administers the registry.
    #[serde(default)]
    pub registry_admin: bool,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    /// The handle.
    pub user: UserName,
    /// Whether the user administers the registry.
    pub registry_admin: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A token to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Whose token; one's own when absent. Others' need the scope `admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// For whoever reads the list later; 1 to 100 characters.
    pub label: String,
    /// How long it lives, in seconds; at most a year.
    pub lifetime_secs: u64,
}

/// Path of a plugin's [`DownloadsView`].
pub fn plugin_downloads_path(plugin: &PluginName) -> String {
    format!("/v1/plugins/{plugin}/downloads")
}

/// A new token. The only time its text is shown.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenCreated {
    /// Names the token without being it.
    pub id: String,
    /// The token.
    pub token: String,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreated")
            .field("id", &self.id)
            .field("token", &"…")
            .finish_non_exhaustive()
    }
}

/// An organisation to found; whoever does becomes its first owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateOrg {
    /// The name.
    pub org: OrgName,
}

/// An organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgView {
    /// The name.
    pub org: OrgName,
    /// Members and their roles.
    pub members: BTreeMap<UserName, Role>,
    /// Every publisher key that there ever was, in the order they were added.
    pub keys: Vec<OrgKey>,
}

/// A publisher key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgKey {
    /// The key as `name+hash+base64`.
    pub key: String,
    /// Whether it may sign now.
    pub status: KeyStatus,
}

impl OrgKey {
    /// What is known of a key, as it is shown.
    pub fn of(state: &KeyState) -> Self {
        let status = match state.end {
            None => KeyStatus::Valid,
            Some(KeyEnd::Rotated(_)) => KeyStatus::Rotated,
            Some(KeyEnd::Revoked(_)) => KeyStatus::Revoked,
        };
        OrgKey { key: state.key.to_string(), status }
    }

    /// The eight hexadecimal digits behind the key's name, which name it in paths.
    pub fn hash(&self) -> Option<&str> {
        self.key.split('+').nth(1)
    }
}

/// What a publisher key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyStatus {
    /// It may sign.
    Valid,
    /// Another key replaced it. What it signed before stays good.
    Rotated,
    /// It signs nothing more, and nothing that it ever signed is good any longer.
    Revoked,
}

/// A member's role to set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetMember {
    /// The role.
    pub role: Role,
}

/// A publisher key to register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterKey {
    /// The key as `name+hash+base64`; its name is the organisation's.
    pub key: String,
    /// A signed note over [`RegisterKey::proof_text`] made with the key:
    /// nobody registers a key that they do not hold.
    pub proof: String,
}

impl RegisterKey {
    /// The text that the new key signs to prove that it is held.
    pub fn proof_text(org: &OrgName, key: &str) -> String {
        format!("modunest/key-proof/v1\n{org}\n{key}\n")
    }
}

/// A publisher key that takes the place of another, which signs nothing more. What that one
/// signed before stays good: this is for keys that nobody stole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// The new key as `name+hash+base64`; its name is the organisation's.
    pub key: String,
    /// A signed note over [`RotateKey::proof_text`] with two signatures, of the old key and
    /// of the new one: whoever rotates holds both.
    pub proof: String,
}

impl RotateKey {
    /// The text that both keys sign.
    pub fn proof_text(org: &OrgName, old: &str, new: &str) -> String {
        format!("modunest/key-rotation/v1\n{org}\n{old}\n{new}\n")
    }
}

/// The end of a publisher key and of everything that it ever signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeKey {
    /// Why, for everybody to read; at most [`REASON_MAX_CHARS`](crate::statement::REASON_MAX_CHARS)
    /// characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A quarantine of a release, or the end of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetQuarantine {
    /// The release.
    pub version: Version,
    /// True to quarantine, false to release from it.
    pub quarantined: bool,
    /// Why, for everybody to read; 1 to [`REASON_MAX_CHARS`](crate::statement::REASON_MAX_CHARS)
    /// characters.
    pub reason: String,
}

/// How far the registry trusts a plugin from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetTrust {
    /// The level.
    pub level: TrustLevel,
    /// Why, for everybody to read; at most [`REASON_MAX_CHARS`](crate::statement::REASON_MAX_CHARS)
    /// characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Path that takes a [`SetQuarantine`].
pub fn plugin_quarantine_path(plugin: &PluginName) -> String {
    format!("/v1/plugins/{plugin}/quarantine")
}

/// Path that takes a [`SetTrust`].
pub fn plugin_trust_path(plugin: &PluginName) -> String {
    format!("/v1/plugins/{plugin}/trust")
}

#[cfg(test)]
mod tests {
    use modunest_tlog::SigningKey;

    use super::*;

    #[test]
    fn a_key_is_shown_with_how_its_time_ended() {
        let key = SigningKey::from_seed("demo".parse().unwrap(), &[1; 32]).verifying_key();
        let shown = |end| OrgKey::of(&KeyState { key: key.clone(), since: 1, end });
        assert_eq!(shown(None).status, KeyStatus::Valid);
        assert_eq!(shown(Some(KeyEnd::Rotated(2))).status, KeyStatus::Rotated);
        let revoked = shown(Some(KeyEnd::Revoked(2)));
        let hash = revoked.hash().unwrap();
        assert!(hash.len() == 8 && revoked.key.starts_with(&format!("demo+{hash}+")));
        let json = serde_json::to_value(&revoked).unwrap();
        assert_eq!(json["status"], "revoked");
    }
}
