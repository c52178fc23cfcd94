//! Entry bundles: the log's entries as files (<https://c2sp.org/tlog-tiles>, "Log entries").

use crate::tile::{TILE_WIDTH, TileId, TileKind};

/// Longest entry: its length is two bytes.
pub const ENTRY_MAX_BYTES: usize = u16::MAX as usize;

/// Why bytes are not a bundle, or an entry cannot be in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// An entry is longer than its length field can say.
    #[error("an entry has {0} bytes; at most {ENTRY_MAX_BYTES} fit")]
    EntryTooLong(usize),
    /// The bundle ends within an entry.
    #[error("{0} ends within an entry")]
    Truncated(TileId),
    /// It has another number of entries than its name says.
    #[error("{0} has another number of entries than its name says")]
    Count(TileId),
    /// Its name is that of a tile of hashes.
    #[error("{0} holds hashes, not entries")]
    Kind(TileId),
}

/// Appends an entry to a bundle's bytes.
///
/// # Errors
/// [`BundleError::EntryTooLong`]; nothing is appended.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), BundleError> {
    let length = u16::try_from(entry.len()).map_err(|_| BundleError::EntryTooLong(entry.len()))?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle, which must be as many as `tile` says. Whether they are those of
/// the log is for a proof to say.
///
/// # Errors
/// [`BundleError`], for the first thing that is wrong.
pub fn parse_entries(tile: TileId, mut bundle: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
    if tile.kind() != TileKind::Entries {
        return Err(BundleError::Kind(tile));
    }
    // A tile's width is at most 256, whatever the bytes say.
    let mut entries = Vec::with_capacity(usize::from(tile.width()).min(TILE_WIDTH as usize));
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        if entries.len() == usize::from(tile.width()) {
            return Err(BundleError::Count(tile));
        }
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or(BundleError::Truncated(tile))?;
        entries.push(entry);
        bundle = rest;
    }
    if !bundle.is_empty() {
        return Err(BundleError::Truncated(tile));
    }
    if entries.len() != usize::from(tile.width()) {
        return Err(BundleError::Count(tile));
    }
    Ok(entries)
}

/// What holds for any bytes; the fuzz target and the corpus test call this. The first byte
/// says how many entries there should be.
///
/// # Panics
/// When a bundle that is accepted is not written as it was read: that is a bug.
#[doc(hidden)]
pub fn check_bundle_invariants(bytes: &[u8]) -> bool {
    let Some((width, bundle)) = bytes.split_first() else { return false };
    let Some(tile) = TileId::entries(0, u64::from(*width)) else { return false };
    let Ok(entries) = parse_entries(tile, bundle) else { return false };
    let mut again = Vec::new();
    for entry in entries {
        assert_eq!(push_entry(&mut again, entry), Ok(()));
    }
    assert_eq!(again, bundle);
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bundles_say_how_long_each_entry_is() {
        let tile = TileId::entries(0, 3).unwrap();
        let mut bundle = Vec::new();
        for entry in [&b"one"[..], b"", b"three"] {
            push_entry(&mut bundle, entry).unwrap();
        }
        assert_eq!(bundle, b"\x00\x03one\x00\x00\x00\x05three");
        assert_eq!(parse_entries(tile, &bundle).unwrap(), [&b"one"[..], b"", b"three"]);
        assert_eq!(parse_entries(tile, &bundle[..8]), Err(BundleError::Truncated(tile)));
        assert_eq!(parse_entries(tile, &bundle[..7]), Err(BundleError::Count(tile)));
        assert_eq!(parse_entries(tile, &bundle[..6]), Err(BundleError::Truncated(tile)));
        let fewer = TileId::entries(0, 2).unwrap();
        assert_eq!(parse_entries(fewer, &bundle), Err(BundleError::Count(fewer)));
        let hashes = TileId::hashes(0, 0, 3).unwrap();
        assert_eq!(parse_entries(hashes, &bundle), Err(BundleError::Kind(hashes)));
        let long = vec![0; ENTRY_MAX_BYTES + 1];
        assert_eq!(push_entry(&mut bundle, &long), Err(BundleError::EntryTooLong(65_536)));
    }
}
