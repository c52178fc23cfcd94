//! What holds for any bytes; the fuzz target and the corpus test call this.

use super::{Archive, RATIO_MAX, UNPACKED_MAX_BYTES, path};

/// Reads `bytes` as an archive and checks what every accepted archive promises.
///
/// # Panics
/// When a promise is broken: that is a bug in the gate.
#[doc(hidden)]
pub fn check_invariants(bytes: &[u8]) {
    let Ok(archive) = Archive::open(bytes) else { return };
    let declared: u64 = archive.entries().map(super::Entry::size_bytes).sum();
    assert!(declared <= UNPACKED_MAX_BYTES && declared <= bytes.len() as u64 * RATIO_MAX);
    for entry in archive.entries() {
        assert_eq!(path::check(entry.name()), Ok(()));
        if let Ok(content) = archive.read(entry) {
            assert_eq!(content.len() as u64, entry.size_bytes());
        }
    }
    let mut received = 0u64;
    let result = archive.unpack(|part| {
        if let super::Part::Data(piece) = part {
            received += piece.len() as u64;
        }
        Ok::<(), std::convert::Infallible>(())
    });
    assert!(received <= declared);
    if let Ok(list) = result {
        assert_eq!((list.total_bytes(), list.files().len()), (declared, archive.entries().len()));
        assert_eq!(archive.file_list().map(|again| again.digest()), Ok(list.digest()));
    }
}
