//! Object keys, public paths and cache headers. Nothing else in the system spells them.
//!
//! The public bucket's keys are the public paths without the leading slash.

use std::fmt;

use modunest_tlog::TileId;

use crate::digest::Digest;
use crate::trust;

/// An object that readers may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// The signed head of the index. One of the two objects that change.
    Head,
    /// The log's signed size and root. The other one.
    Checkpoint,
    /// A tile of the log: of hashes, or a bundle of entries.
    Tile(TileId),
    /// A file of the trust root. Its timestamp changes too.
    Trust(trust::File),
    /// A node of the index tree.
    Node(Digest),
    /// A bin of the index tree.
    Bin(Digest),
    /// An index file.
    Index(Digest),
    /// An archive, a manifest or a README, named by its content.
    Blob(Digest),
    /// The report of a scan.
    Report(Digest),
}

/// How long an answer may be kept, by anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// Named by its content: right for ever.
    Immutable,
    /// Changes: kept for a moment and then asked for again.
    Short,
    /// Statistics: some minutes late is soon enough.
    Minutes,
    /// Not to be kept at all.
    NoStore,
}

impl CachePolicy {
    /// The `Cache-Control` value (RFC 9111, section 5.2; `immutable` from RFC 8246).
    pub const fn header_value(self) -> &'static str {
        match self {
            CachePolicy::Immutable => "public, max-age=31536000, immutable",
            CachePolicy::Short => "public, max-age=1, must-revalidate",
            CachePolicy::Minutes => "public, max-age=300",
            CachePolicy::NoStore => "no-store",
        }
    }
}

/// Path of the discovery document.
pub const DISCOVERY_PATH: &str = "/.well-known/modunest.json";
/// Where every API path starts.
pub const API_PREFIX: &str = "/v1/";
/// Path of the closure: everything that a resolution can need, in one answer. The read side
/// answers it itself; it is no part of the API behind it.
pub const CLOSURE_PATH: &str = "/v1/closure";
/// Where every key of the trust root starts: what a ceremony leaves in its folder.
const TRUST_PREFIX: &str = "trust/";
/// Path of the liveness check.
pub const HEALTH_PATH: &str = "/healthz";
/// Path of the readiness check.
pub const READY_PATH: &str = "/readyz";

impl ObjectKey {
    /// Reads a public path.
    pub fn from_path(path: &str) -> Option<ObjectKey> {
        ObjectKey::from_key(path.strip_prefix('/')?)
    }

    /// Reads a key of the public bucket.
    pub fn from_key(key: &str) -> Option<ObjectKey> {
        match key {
            "head" => return Some(ObjectKey::Head),
            "checkpoint" => return Some(ObjectKey::Checkpoint),
            _ if key.starts_with("tile/") => return TileId::from_path(key).map(ObjectKey::Tile),
            _ => {}
        }
        if let Some(file) = key.strip_prefix(TRUST_PREFIX) {
            return file.parse().ok().map(ObjectKey::Trust);
        }
        let (kind, hex) = key.rsplit_once('/')?;
        let digest = hex.parse().ok()?;
        match kind {
            "node" => Some(ObjectKey::Node(digest)),
            "bin" => Some(ObjectKey::Bin(digest)),
            "index" => Some(ObjectKey::Index(digest)),
            "blob/sha256" => Some(ObjectKey::Blob(digest)),
            "report" => Some(ObjectKey::Report(digest)),
            _ => None,
        }
    }

    /// The objects that change. Readers ask for them anew each time.
    pub const CHANGING: [ObjectKey; 3] =
        [ObjectKey::Head, ObjectKey::Checkpoint, ObjectKey::Trust(trust::File::Timestamp)];

    /// The public path, with its leading slash.
    pub fn path(&self) -> String {
        format!("/{self}")
    }

    /// The SHA-256 that the content must have; `None` for what changes, and for what is named
    /// by its position.
    pub fn content_digest(&self) -> Option<Digest> {
        match self {
            ObjectKey::Head | ObjectKey::Checkpoint | ObjectKey::Tile(_) => None,
            ObjectKey::Trust(trust::File::Config(d)) => Some(*d),
            ObjectKey::Trust(_) => None,
            ObjectKey::Node(d)
            | ObjectKey::Bin(d)
            | ObjectKey::Index(d)
            | ObjectKey::Blob(d)
            | ObjectKey::Report(d) => Some(*d),
        }
    }

    /// How long it may be kept.
    pub const fn cache_policy(&self) -> CachePolicy {
        match self {
            ObjectKey::Head | ObjectKey::Checkpoint | ObjectKey::Trust(trust::File::Timestamp) => {
                CachePolicy::Short
            }
            _ => CachePolicy::Immutable,
        }
    }

    /// The `Content-Type` it is stored and served with.
    pub const fn content_type(&self) -> &'static str {
        match self {
            ObjectKey::Head | ObjectKey::Checkpoint | ObjectKey::Bin(_) | ObjectKey::Index(_) => {
                "text/plain; charset=utf-8"
            }
            ObjectKey::Tile(_) | ObjectKey::Node(_) | ObjectKey::Blob(_) => {
                "application/octet-stream"
            }
            ObjectKey::Trust(_) | ObjectKey::Report(_) => "application/json",
        }
    }
}

/// The key in the public bucket.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectKey::Head => f.write_str("head"),
            ObjectKey::Checkpoint => f.write_str("checkpoint"),
            ObjectKey::Tile(tile) => tile.fmt(f),
            ObjectKey::Trust(file) => write!(f, "{TRUST_PREFIX}{file}"),
            ObjectKey::Node(digest) => write!(f, "node/{digest}"),
            ObjectKey::Bin(digest) => write!(f, "bin/{digest}"),
            ObjectKey::Index(digest) => write!(f, "index/{digest}"),
            ObjectKey::Blob(digest) => write!(f, "blob/sha256/{digest}"),
            ObjectKey::Report(digest) => write!(f, "report/{digest}"),
        }
    }
}

/// Identifier of a publish session: 32 lower-case hexadecimal digits, from 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// From 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        SessionId(bytes)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// The text is not a session's identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a session is named by 32 lower-case hexadecimal digits")]
pub struct SessionIdError;

impl std::str::FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(text: &str) -> Result<Self, SessionIdError> {
        let canonical =
            text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !canonical {
            return Err(SessionIdError);
        }
        u128::from_str_radix(text, 16)
            .map(|n| SessionId(n.to_be_bytes()))
            .map_err(|_| SessionIdError)
    }
}

impl serde::Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An object in the staging bucket, which readers never see. Publishers write uploads only,
/// through URLs that name the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StagingKey {
    /// One uploaded archive of a session.
    Upload(SessionId, Digest),
    /// Written by the registry when a session needs no upload at all: its storage event
    /// starts the same work as an upload's.
    Ready(SessionId),
    /// What the sequencer decided and has perhaps not carried out yet, named by its content.
    /// Never expires: the sequencer removes it.
    Bundle(Digest),
}

impl StagingKey {
    /// Reads a key of the staging bucket.
    pub fn from_key(key: &str) -> Option<StagingKey> {
        let (kind, rest) = key.split_once('/')?;
        match kind {
            "upload" => {
                let (session, digest) = rest.split_once('/')?;
                Some(StagingKey::Upload(session.parse().ok()?, digest.parse().ok()?))
            }
            "ready" => Some(StagingKey::Ready(rest.parse().ok()?)),
            "bundle" => Some(StagingKey::Bundle(rest.parse().ok()?)),
            _ => None,
        }
    }

    /// The session it belongs to; `None` for what belongs to the sequencer.
    pub const fn session(&self) -> Option<SessionId> {
        match self {
            StagingKey::Upload(session, _) | StagingKey::Ready(session) => Some(*session),
            StagingKey::Bundle(_) => None,
        }
    }
}

impl fmt::Display for StagingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StagingKey::Upload(session, digest) => write!(f, "upload/{session}/{digest}"),
            StagingKey::Ready(session) => write!(f, "ready/{session}"),
            StagingKey::Bundle(digest) => write!(f, "bundle/{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_round_trip_and_nothing_else_is_one() {
        let digest = Digest::of(b"x");
        for key in [
            ObjectKey::Head,
            ObjectKey::Checkpoint,
            ObjectKey::Tile(TileId::hashes(1, 2, 200_000).unwrap()),
            ObjectKey::Tile(TileId::entries(0, 3).unwrap()),
            ObjectKey::Tile(TileId::entries(1234, 1_000_000).unwrap()),
            ObjectKey::Node(digest),
            ObjectKey::Bin(digest),
            ObjectKey::Index(digest),
            ObjectKey::Blob(digest),
            ObjectKey::Trust(trust::File::Root(1)),
            ObjectKey::Trust(trust::File::Timestamp),
            ObjectKey::Trust(trust::File::Config(digest)),
            ObjectKey::Report(digest),
        ] {
            assert_eq!(ObjectKey::from_path(&key.path()), Some(key));
            assert_eq!(ObjectKey::from_key(&key.to_string()), Some(key));
        }
        for bad in [
            "",
            "/",
            "head",
            "/head/",
            "/node/",
            "/node/xyz",
            "/blob/sha512/x",
            "//head",
            "/node/../head",
            "/trust/",
            "/trust/root.json",
            "/trust/targets/config.json",
            "/tile/0/1234",
            "/tile/entries/000.p/256",
            "/tile/8/../0/000",
        ] {
            assert_eq!(ObjectKey::from_path(bad), None, "{bad}");
        }
        assert_eq!(
            ObjectKey::from_path(&format!("/node/{}", digest.to_hex().to_uppercase())),
            None
        );
    }

    #[test]
    fn staging_keys_round_trip() {
        let session = SessionId::from_bytes([0xab; 16]);
        for key in [
            StagingKey::Upload(session, Digest::of(b"x")),
            StagingKey::Ready(session),
            StagingKey::Bundle(Digest::of(b"x")),
        ] {
            assert_eq!(StagingKey::from_key(&key.to_string()), Some(key));
        }
        assert_eq!(StagingKey::from_key("upload/../x"), None);
    }

    #[test]
    fn head_checkpoint_and_timestamp_change_and_nothing_else() {
        for key in ObjectKey::CHANGING {
            assert_eq!((key.cache_policy(), key.content_digest()), (CachePolicy::Short, None));
        }
        let tile = TileId::entries(0, 3).unwrap();
        assert_eq!(ObjectKey::Tile(tile).cache_policy(), CachePolicy::Immutable);
        assert_eq!(ObjectKey::Node(Digest::ZERO).cache_policy(), CachePolicy::Immutable);
        let root = ObjectKey::Trust(trust::File::Root(1));
        assert_eq!((root.cache_policy(), root.content_digest()), (CachePolicy::Immutable, None));
    }
}
