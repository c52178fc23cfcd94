//! Files that hold secrets, and files that must be whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::error::Error;

/// Mode of a file with a secret: its owner reads and writes, nobody else.
const SECRET_MODE: u32 = 0o600;
/// Mode of any other file.
const PLAIN_MODE: u32 = 0o644;

/// Writes a secret that did not exist before.
///
/// # Errors
/// When the file exists already: a key that is overwritten is lost.
pub fn create_secret(path: &Path, text: &str) -> Result<(), Error> {
    if path.exists() {
        return Err(Error::Usage(format!(
            "{} exists and is not overwritten; choose another file or move that one away",
            path.display()
        )));
    }
    replace(path, text, SECRET_MODE)
}

/// Writes or replaces a secret.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_secret(path: &Path, text: &str) -> Result<(), Error> {
    replace(path, text, SECRET_MODE)
}

/// Writes or replaces a file.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    replace(path, text, PLAIN_MODE)
}

/// Reads a secret, and refuses one that others can read.
///
/// # Errors
/// When it cannot be read, or its mode is too wide.
pub fn read_secret(path: &Path) -> Result<String, Error> {
    let mode = fs::metadata(path).map_err(Error::file(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::Input(format!(
            "{}: others may read this secret (mode {:o}); run `chmod 600 {}`",
            path.display(),
            mode & 0o777,
            path.display()
        )));
    }
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(Error::file(path))
}

/// Locks a file, made where there is none, until what is answered is dropped. `None` when
/// another process holds the lock.
///
/// # Errors
/// When the file cannot be made or locked.
pub fn lock(path: &Path) -> Result<Option<File>, Error> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(Error::file(path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(Error::file(path)(error)),
    }
}

fn replace(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = Path::new(&aside);
    let write = || {
        let mut file: File =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(aside, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(Error::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/key");
        create_secret(&path, "secret\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_secret(&path).unwrap(), "secret");
        assert!(matches!(create_secret(&path, "other"), Err(Error::Usage(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_secret(&path), Err(Error::Input(_))));
    }
}
