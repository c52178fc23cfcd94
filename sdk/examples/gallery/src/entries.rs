//! The folder: one Markdown file and one image of the same name for each entry.

use std::fs;
use std::path::{Path, PathBuf};

use modunest_sdk::Error;

/// Most entries of a gallery, as each is a card of one page.
pub const MAX_ENTRIES: usize = 100;
/// Most bytes of an entry's text; a card is no book.
pub const MAX_TEXT_BYTES: u64 = 64 * 1024;
/// Most bytes of an entry's image, below what one service call carries.
pub const MAX_IMAGE_BYTES: u64 = 8 * 1024 * 1024;

/// An image form that browsers and `demo/thumbnail` both read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageType {
    Jpeg,
    Png,
}

impl ImageType {
    const ALL: [(&'static str, Self); 2] = [("jpg", Self::Jpeg), ("png", Self::Png)];

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
        }
    }
}

/// One entry: a text and an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in paths: lower-case letters, digits and hyphens.
    pub name: String,
    /// Its text.
    pub markdown: String,
    /// Where its image is.
    pub image: PathBuf,
    pub(crate) image_type: ImageType,
}

/// Reads all entries, by name.
///
/// # Errors
///
/// The file that does not fit, or that there is no entry at all: a package
/// without its entries is broken, and shall not load.
pub fn read_folder(folder: &Path) -> Result<Vec<Entry>, Error> {
    let failed = |error| Error::failed(format!("{}: {error}", folder.display()));
    let mut entries = Vec::new();
    for file in fs::read_dir(folder).map_err(failed)? {
        let path = file.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            if entries.len() == MAX_ENTRIES {
                return Err(Error::failed(format!(
                    "{} has more than {MAX_ENTRIES} entries",
                    folder.display()
                )));
            }
            entries.push(read_entry(&path)?);
        }
    }
    if entries.is_empty() {
        return Err(Error::failed(format!("{} has no entries", folder.display())));
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn read_entry(path: &Path) -> Result<Entry, Error> {
    let name = path
        .file_stem()
        .and_then(|name| name.to_str())
        .filter(|name| is_name(name))
        .ok_or_else(|| Error::failed(format!("{}: not a name for an entry", path.display())))?;
    check_size(path, MAX_TEXT_BYTES)?;
    let markdown = fs::read_to_string(path)
        .map_err(|error| Error::failed(format!("{}: {error}", path.display())))?;
    let (image, image_type) = ImageType::ALL
        .into_iter()
        .map(|(extension, image_type)| (path.with_extension(extension), image_type))
        .find(|(image, _)| image.is_file())
        .ok_or_else(|| Error::failed(format!("{}: no image beside it", path.display())))?;
    check_size(&image, MAX_IMAGE_BYTES)?;
    Ok(Entry { name: name.to_owned(), markdown, image, image_type })
}

fn check_size(path: &Path, limit: u64) -> Result<(), Error> {
    let size = fs::metadata(path)
        .map_err(|error| Error::failed(format!("{}: {error}", path.display())))?
        .len();
    if size > limit {
        return Err(Error::failed(format!(
            "{}: {size} bytes are above the limit of {limit}",
            path.display()
        )));
    }
    Ok(())
}

/// Names go into paths and HTML as they are, so they hold nothing to escape.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    #[test]
    fn entries_are_read_in_order() {
        let folder =
            folder(&[("b.md", b"B"), ("b.png", b"x"), ("a.md", b"A"), ("a.jpg", b"y"), ("z", b"")]);
        let entries = read_folder(folder.path()).unwrap();
        let names: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.image_type)).collect();
        assert_eq!(names, [("a", ImageType::Jpeg), ("b", ImageType::Png)]);
        assert_eq!(entries[0].markdown, "A");
    }

    #[test]
    fn folders_that_do_not_fit_are_refused_with_the_file() {
        let large = vec![b'a'; MAX_TEXT_BYTES as usize + 1];
        for (files, why) in [
            (&[][..], "has no entries"),
            (&[("a.md", &b"A"[..])][..], "a.md: no image beside it"),
            (&[("A<b>.md", &b"A"[..])][..], "not a name for an entry"),
            (&[("a.md", &b"\xff"[..]), ("a.png", b"x")][..], "valid UTF-8"),
            (&[("a.md", &large[..]), ("a.png", b"x")][..], "above the limit of 65536"),
        ] {
            let folder = folder(files);
            let error = read_folder(folder.path()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(read_folder(Path::new("/nonexistent")).is_err());
    }
}
