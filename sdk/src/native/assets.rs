//! The files of a plugin's archive, read from the folder where they are unpacked: what a
//! component asks its host for.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Component, Path};

use crate::Error;
use crate::abi::MAX_MESSAGE_BYTES;

/// The names of all files below a folder, sorted, with `/` between their parts.
pub(super) fn list(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let failed = |error| Error::failed(format!("{}: {error}", next.display()));
        for entry in fs::read_dir(&next).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).map_err(Error::failed)?;
                // An archive's names are UTF-8, by its gate.
                let name = name.to_str().ok_or_else(|| {
                    Error::failed(format!("{}: the name is not UTF-8", path.display()))
                })?;
                names.push(name.to_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}

/// One file below a folder.
pub(super) fn read(folder: &Path, name: &str) -> Result<Vec<u8>, Error> {
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !plain {
        return Err(Error::InvalidInput(format!("{name:?} is no name of a file in the archive")));
    }
    let path = folder.join(name);
    let file = File::open(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound(format!("the archive has no {name}")),
        _ => Error::failed(format!("{}: {error}", path.display())),
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_MESSAGE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::failed(format!("{}: {error}", path.display())))?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(Error::Failed(format!(
            "{name} has more than the {MAX_MESSAGE_BYTES} bytes that are read at once"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_and_read_by_name_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("inside/assets")).unwrap();
        fs::write(folder.path().join("outside"), b"secret").unwrap();
        let inside = folder.path().join("inside");
        fs::write(inside.join("plugin.toml"), b"x").unwrap();
        fs::write(inside.join("assets/a.md"), b"A").unwrap();
        assert_eq!(list(&inside).unwrap(), ["assets/a.md", "plugin.toml"]);
        assert_eq!(read(&inside, "assets/a.md").unwrap(), b"A");
        assert!(matches!(read(&inside, "assets/b.md"), Err(Error::NotFound(_))));
        assert!(matches!(read(&inside, "assets"), Err(Error::Failed(_))));
        for name in ["", "../outside", "assets/../../outside", "/etc/passwd", "./plugin.toml"] {
            assert!(matches!(read(&inside, name), Err(Error::InvalidInput(_))), "{name}");
        }
        let large = File::create(inside.join("large")).unwrap();
        large.set_len(MAX_MESSAGE_BYTES as u64 + 1).unwrap();
        assert!(matches!(read(&inside, "large"), Err(Error::Failed(_))));
    }
}
