//! The writer: the same files always give the same bytes.

use std::io::{Cursor, Write as _};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::{Archive, ArchiveError, MANIFEST_NAME};

/// A file to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackFile {
    /// Relative path with `/` between segments.
    pub name: String,
    /// The contents.
    pub content: Vec<u8>,
    /// Whether the file may be executed.
    pub executable: bool,
}

/// Why files could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The gate would refuse the result: a bad name, a collision, or a limit.
    #[error(transparent)]
    Refused(#[from] ArchiveError),
    /// The zip writer failed; memory is its only output.
    #[error("the archive could not be written")]
    Write(#[source] zip::result::ZipError),
}

/// Slowest and smallest: a plugin is packed once and downloaded often.
const DEFLATE_LEVEL: i64 = 9;

/// Packs files into a canonical archive: [`MANIFEST_NAME`] first, the others sorted by name,
/// no times, modes 0644 and 0755. The result has passed the gate's structural rules.
///
/// Contents that deflate would shrink beyond the gate's ratio are stored instead.
///
/// # Errors
/// The gate would refuse the result.
pub fn pack(mut files: Vec<PackFile>) -> Result<Vec<u8>, PackError> {
    files.sort_by(|a, b| {
        (a.name != MANIFEST_NAME, &a.name).cmp(&(b.name != MANIFEST_NAME, &b.name))
    });
    let mut names = super::path::NameSet::default();
    for file in &files {
        let shown = || super::error::shown(file.name.as_bytes());
        super::path::check(&file.name)
            .map_err(|problem| ArchiveError::Name { name: shown(), problem })?;
        names.insert(&file.name)?;
    }
    let bytes = write(&files, CompressionMethod::Deflated).map_err(PackError::Write)?;
    match Archive::open(&bytes) {
        Ok(_) => return Ok(bytes),
        Err(ArchiveError::Ratio { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let bytes = write(&files, CompressionMethod::Stored).map_err(PackError::Write)?;
    Archive::open(&bytes)?;
    Ok(bytes)
}

fn write(files: &[PackFile], method: CompressionMethod) -> zip::result::ZipResult<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for file in files {
        let (method, level) = match method {
            // Deflate makes two bytes of nothing.
            _ if file.content.is_empty() => (CompressionMethod::Stored, None),
            CompressionMethod::Deflated => (method, Some(DEFLATE_LEVEL)),
            other => (other, None),
        };
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .compression_level(level)
            .last_modified_time(DateTime::default())
            .system(zip::System::Unix)
            .unix_permissions(if file.executable { 0o755 } else { 0o644 });
        writer.start_file(file.name.as_str(), options)?;
        writer.write_all(&file.content)?;
    }
    Ok(writer.finish()?.into_inner())
}
