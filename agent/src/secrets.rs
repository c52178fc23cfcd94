//! Secrets in the configuration: sealed to one host and one plugin, opened only when the
//! plugin is made.
//!
//! ```text
//! sealed:v1:BASE64URL(encapsulated key, 32 bytes; ciphertext with its tag)
//! ```
//!
//! It is HPKE in base mode (RFC 9180; X25519, HKDF-SHA256, ChaCha20Poly1305) with the plugin's
//! name as associated data, so that a value that is copied to another plugin's table opens
//! nothing. The host's key is a file in the state folder that only its owner reads.
//!
//! What is opened is handed to the plugin's `create` and overwritten afterwards. The running
//! agent keeps, shows, logs and writes the sealed form only.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, io};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use modunest_core::name::PluginName;
use zeroize::{Zeroize as _, Zeroizing};

type Kem = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::ChaCha20Poly1305;

/// What every sealed value begins with.
pub const SEALED: &str = "sealed:v1:";
/// What every host's public key begins with.
const PUBLIC: &str = "modunest-host-v1:";
/// Separates this use of the key from any other.
const INFO: &[u8] = b"modunest configuration secret v1";
/// Largest secret, in bytes: a certificate chain with its key.
pub const SECRET_MAX_BYTES: usize = 16 * 1024;
/// Bytes of an encapsulated key, a private and a public one.
const KEY_BYTES: usize = 32;
/// Bytes of a ciphertext's tag.
const TAG_BYTES: usize = 16;
/// The key's file within the state folder.
const KEY_FILE: &str = "secret.key";

/// Why a secret cannot be sealed or opened. Never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is a key already.
    #[error("{} is there already; what is sealed to it would be lost with it", .0.display())]
    KeyExists(PathBuf),
    /// There is no key.
    #[error("this host has no key for secrets; make one with `modunest-agent secret init`")]
    NoKey,
    /// The key cannot be read or written.
    #[error("{}: {source}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than its owner may read the key.
    #[error("{} may be read by others than its owner; run `chmod 600` on it", .0.display())]
    KeyOpen(PathBuf),
    /// The key's file holds something else.
    #[error("{} holds no key", .0.display())]
    KeyBroken(PathBuf),
    /// The text is no public key.
    #[error("that is no host's public key; `modunest-agent secret public` on the host prints it")]
    PublicKey,
    /// The secret is too long, empty or no text.
    #[error("a secret is a text of 1 to {SECRET_MAX_BYTES} bytes")]
    Secret,
    /// The value is cut or altered.
    #[error(
        "a sealed value is cut or altered; seal it again with `modunest-agent secret seal --plugin {0}`"
    )]
    Malformed(PluginName),
    /// The value was sealed to another host or another plugin.
    #[error(
        "a sealed value opens neither on this host nor for this plugin; seal it again with `modunest-agent secret seal --plugin {0}`"
    )]
    Refused(PluginName),
}

/// Random numbers from the operating system.
struct System;

impl TryRng for System {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes(modunest_runtime::random::bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_le_bytes(modunest_runtime::random::bytes()))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Self::Error> {
        for piece in into.chunks_mut(KEY_BYTES) {
            let mut bytes = modunest_runtime::random::bytes::<KEY_BYTES>();
            piece.copy_from_slice(&bytes[..piece.len()]);
            bytes.zeroize();
        }
        Ok(())
    }
}

impl TryCryptoRng for System {}

/// A host's key: opens what was sealed to it.
pub struct HostKey {
    private: <Kem as hpke::Kem>::PrivateKey,
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostKey(…)")
    }
}

impl HostKey {
    /// Makes a key and keeps it in the state folder.
    ///
    /// # Errors
    /// There is one already, or it cannot be written.
    pub fn create(state_dir: &Path) -> Result<Self, SecretError> {
        let path = state_dir.join(KEY_FILE);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => SecretError::KeyExists(path.clone()),
            _ => SecretError::Key { path: path.clone(), source },
        };
        std::fs::create_dir_all(state_dir).map_err(failed)?;
        let (private, _) = Kem::gen_keypair_with_rng(&mut System);
        let mut bytes = private.to_bytes();
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes));
        bytes.zeroize();
        // Written aside and linked, so that a crash leaves a whole key or none, and a key that
        // is there is never replaced.
        let aside = crate::files::aside(&path);
        let written = (|| {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::hard_link(&aside, &path)
        })();
        let removed = std::fs::remove_file(&aside);
        written.map_err(failed)?;
        removed.map_err(failed)?;
        crate::files::sync_folder(state_dir).map_err(failed)?;
        Ok(HostKey { private })
    }

    /// Reads the key of the state folder.
    ///
    /// # Errors
    /// There is none, it cannot be read, or others can read it.
    pub fn open(state_dir: &Path) -> Result<Self, SecretError> {
        let path = state_dir.join(KEY_FILE);
        let failed = |source| SecretError::Key { path: path.clone(), source };
        let Some(content) = crate::files::read_limited(&path, 128).map_err(failed)? else {
            return Err(SecretError::NoKey);
        };
        let content = Zeroizing::new(content);
        let mode = std::fs::metadata(&path).map_err(failed)?.mode();
        if mode & 0o077 != 0 {
            return Err(SecretError::KeyOpen(path));
        }
        let broken = || SecretError::KeyBroken(path.clone());
        let bytes = URL_SAFE_NO_PAD.decode(content.trim_ascii()).map_err(|_| broken())?;
        let bytes = Zeroizing::new(bytes);
        let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(&bytes).map_err(|_| broken())?;
        Ok(HostKey { private })
    }

    /// What secrets are sealed to.
    pub fn public(&self) -> PublicKey {
        PublicKey(Kem::sk_to_pk(&self.private))
    }

    /// Opens a sealed value.
    fn unseal(&self, plugin: &PluginName, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let malformed = || SecretError::Malformed(plugin.clone());
        let bytes = sealed.strip_prefix(SEALED).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let bytes = bytes.ok_or_else(malformed)?;
        let (encapsulated, ciphertext) = bytes.split_at_checked(KEY_BYTES).ok_or_else(malformed)?;
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated);
        let opened = hpke::single_shot_open::<Aead, Kdf, Kem>(
            &OpModeR::Base,
            &self.private,
            &encapsulated.map_err(|_| malformed())?,
            INFO,
            ciphertext,
            plugin.as_str().as_bytes(),
        );
        opened.map(Zeroizing::new).map_err(|_| SecretError::Refused(plugin.clone()))
    }
}

/// What secrets for a host are sealed to.
#[derive(Clone)]
pub struct PublicKey(<Kem as hpke::Kem>::PublicKey);

impl PublicKey {
    /// Seals a secret for a plugin.
    ///
    /// # Errors
    /// It is empty, too long, or no text.
    pub fn seal(&self, plugin: &PluginName, secret: &[u8]) -> Result<String, SecretError> {
        let text = std::str::from_utf8(secret);
        if secret.is_empty() || secret.len() > SECRET_MAX_BYTES || text.is_err() {
            return Err(SecretError::Secret);
        }
        let sealed = hpke::single_shot_seal_with_rng::<Aead, Kdf, Kem>(
            &OpModeS::Base,
            &self.0,
            INFO,
            secret,
            plugin.as_str().as_bytes(),
            &mut System,
        );
        // Fails only for a key of small order, which is nobody's.
        let (encapsulated, ciphertext) = sealed.map_err(|_| SecretError::PublicKey)?;
        let bytes = [&encapsulated.to_bytes()[..], &ciphertext].concat();
        Ok(format!("{SEALED}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", URL_SAFE_NO_PAD.encode(self.0.to_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let bytes = text.strip_prefix(PUBLIC).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        bytes
            .and_then(|bytes| <Kem as hpke::Kem>::PublicKey::from_bytes(&bytes).ok())
            .map(PublicKey)
            .ok_or(SecretError::PublicKey)
    }
}

/// Whether a text that begins with [`SEALED`] can be a sealed value at all.
pub fn is_well_formed(text: &str) -> bool {
    let bytes = text.strip_prefix(SEALED).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    bytes.is_some_and(|bytes| {
        (KEY_BYTES + TAG_BYTES + 1..=KEY_BYTES + TAG_BYTES + SECRET_MAX_BYTES)
            .contains(&bytes.len())
    })
}

/// A plugin's configuration with its secrets opened; overwritten when dropped.
pub struct OpenConfig {
    bytes: Zeroizing<Vec<u8>>,
    secrets: Vec<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for OpenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenConfig(…)")
    }
}

impl std::ops::Deref for OpenConfig {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl OpenConfig {
    /// A text that the plugin gave back, without its secrets.
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if let Ok(secret) = std::str::from_utf8(secret) {
                text = text.replace(secret, "…");
            }
        }
        text
    }
}

/// Opens every sealed value of a plugin's configuration, which is JSON as `serde_json` writes
/// it, or nothing. `key` is asked for only if there is any.
///
/// # Errors
/// A value cannot be opened.
pub fn open_config(
    plugin: &PluginName,
    config: &[u8],
    key: impl FnOnce() -> Result<HostKey, SecretError>,
) -> Result<OpenConfig, SecretError> {
    let mut key = Some(key);
    let mut host = None;
    let mut secrets = Vec::new();
    // Where each sealed text begins and ends. It holds nothing that JSON escapes, and a quote
    // that opens a string has no backslash before it.
    let opening = format!("\"{SEALED}");
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(found) = find(&config[at..], opening.as_bytes()) {
        let start = at + found;
        let end = find(&config[start + 1..], b"\"").map_or(config.len(), |end| start + 1 + end);
        at = end;
        if start > 0 && config[start - 1] == b'\\' {
            continue;
        }
        if let Some(key) = key.take() {
            host = Some(key()?);
        }
        let malformed = || SecretError::Malformed(plugin.clone());
        let sealed = std::str::from_utf8(&config[start + 1..end]).map_err(|_| malformed())?;
        let secret = host.as_ref().ok_or(SecretError::NoKey)?.unseal(plugin, sealed)?;
        secrets.push(secret);
        places.push((start, (end + 1).min(config.len())));
    }
    // Escaping makes six bytes of one at most. Reserved whole: growing would leave copies.
    let room = config.len() + secrets.iter().map(|secret| 6 * secret.len() + 2).sum::<usize>();
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let mut copied = 0;
    for ((start, end), secret) in places.into_iter().zip(&secrets) {
        bytes.extend_from_slice(&config[copied..start]);
        let text = std::str::from_utf8(secret).map_err(|_| SecretError::Secret)?;
        serde_json::to_writer(&mut *bytes, text).map_err(|_| SecretError::Secret)?;
        copied = end;
    }
    bytes.extend_from_slice(&config[copied..]);
    Ok(OpenConfig { bytes, secrets })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn name(text: &str) -> PluginName {
        text.parse().unwrap()
    }

    #[test]
    fn secrets_open_on_their_host_for_their_plugin_only() {
        let folder = tempfile::tempdir().unwrap();
        let key = HostKey::create(folder.path()).unwrap();
        assert!(matches!(HostKey::create(folder.path()), Err(SecretError::KeyExists(_))));
        let public: PublicKey = key.public().to_string().parse().unwrap();
        let notes = name("demo/notes");
        let secret = "s3cret with \"quotes\" and \u{7}";
        let sealed = public.seal(&notes, secret.as_bytes()).unwrap();
        assert!(is_well_formed(&sealed) && !sealed.contains("s3cret"));
        assert_ne!(sealed, public.seal(&notes, secret.as_bytes()).unwrap());

        let open = || HostKey::open(folder.path());
        let config = serde_json::to_vec(&serde_json::json!({
            "token": sealed, "title": "not \"sealed:v1:x", "list": [sealed]
        }))
        .unwrap();
        let opened = open_config(&notes, &config, open).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&opened).unwrap();
        assert_eq!(value["token"], secret);
        assert_eq!(value["list"][0], secret);
        assert_eq!(value["title"], "not \"sealed:v1:x");
        assert_eq!(opened.scrub(&format!("bad token {secret}!")), "bad token …!");
        assert!(!format!("{opened:?}{key:?}").contains("s3cret"));

        let refused = open_config(&name("demo/other"), &config, open).unwrap_err();
        assert!(matches!(refused, SecretError::Refused(_)), "{refused}");
        let other = tempfile::tempdir().unwrap();
        let refused = open_config(&notes, &config, || HostKey::open(other.path())).unwrap_err();
        assert!(matches!(refused, SecretError::NoKey), "{refused}");
        HostKey::create(other.path()).unwrap();
        let refused = open_config(&notes, &config, || HostKey::open(other.path())).unwrap_err();
        assert!(matches!(refused, SecretError::Refused(_)), "{refused}");
        let mut cut = sealed.clone();
        cut.truncate(30);
        let config = serde_json::to_vec(&serde_json::json!({ "token": cut })).unwrap();
        let refused = open_config(&notes, &config, open).unwrap_err();
        assert!(matches!(refused, SecretError::Malformed(_)), "{refused}");
        assert!(!is_well_formed(&cut));
    }

    #[test]
    fn without_secrets_no_key_is_needed() {
        let never = || panic!("no key is needed");
        assert!(open_config(&name("demo/notes"), b"", never).unwrap().is_empty());
        let never = || panic!("no key is needed");
        assert_eq!(&*open_config(&name("demo/notes"), b"{\"a\":1}", never).unwrap(), b"{\"a\":1}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        HostKey::create(folder.path()).unwrap();
        let path = folder.path().join(KEY_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(HostKey::open(folder.path()), Err(SecretError::KeyOpen(_))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(HostKey::open(folder.path()), Err(SecretError::KeyBroken(_))));
    }

    #[test]
    fn what_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let public = HostKey::create(folder.path()).unwrap().public();
        for secret in [&b""[..], &[0xff], &[b'x'; SECRET_MAX_BYTES + 1]] {
            let refused = public.seal(&name("demo/notes"), secret);
            assert!(matches!(refused, Err(SecretError::Secret)));
        }
        assert!("modunest-host-v1:AAAA".parse::<PublicKey>().is_err());
    }
}
