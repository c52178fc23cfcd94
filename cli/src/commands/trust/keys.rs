//! Key files of a trust root: PEM, private ones readable by their owner only.

use std::fs;
use std::path::{Path, PathBuf};

use modunest_core::trust::{PublicKey, SigningKey};

use crate::error::Error;
use crate::files;

/// What the public half's file has behind the private one's name.
const PUBLIC_SUFFIX: &str = ".pub";

/// A key that is named in a ceremony, with its private half if the file has it.
pub struct Named {
    /// The public half.
    pub public: PublicKey,
    /// The private half.
    pub private: Option<SigningKey>,
}

/// Reads files with either half of a key.
///
/// # Errors
/// When one cannot be read, is no key, or is private and readable by others.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Named>, Error> {
    paths.iter().map(|path| read_one(path)).collect()
}

fn read_one(path: &Path) -> Result<Named, Error> {
    let text = fs::read_to_string(path).map_err(Error::file(path))?;
    if let Ok(public) = text.parse() {
        return Ok(Named { public, private: None });
    }
    let private = signing(path)?;
    Ok(Named { public: private.public(), private: Some(private) })
}

/// Reads files with private keys.
///
/// # Errors
/// As [`read`], and when a file holds a public half only.
pub fn read_signing(paths: &[PathBuf]) -> Result<Vec<SigningKey>, Error> {
    paths.iter().map(|path| signing(path)).collect()
}

fn signing(path: &Path) -> Result<SigningKey, Error> {
    let input = |error| Error::Input(format!("{}: {error}", path.display()));
    files::read_secret(path)?.parse().map_err(input)
}

/// Makes a key: the private half in `path`, the public one beside it.
///
/// # Errors
/// When one of the files exists already.
pub fn create(path: &Path) -> Result<(PublicKey, PathBuf), Error> {
    let key = SigningKey::from_seed(&modunest_runtime::random::bytes());
    let mut beside = path.as_os_str().to_owned();
    beside.push(PUBLIC_SUFFIX);
    let beside = PathBuf::from(beside);
    if beside.exists() {
        return Err(Error::Usage(format!("{} exists and is not overwritten", beside.display())));
    }
    files::create_secret(path, &key.expose())?;
    files::write(&beside, &key.public().to_string())?;
    Ok((key.public(), beside))
}
