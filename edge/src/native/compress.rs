//! The gzip form of a text, made once and kept.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Compresses. A text of 1 MiB takes some 20 ms, so large ones belong on a thread that may
/// block.
///
/// # Errors
/// None that memory could give.
pub(super) fn gzip(plain: &[u8]) -> io::Result<Bytes> {
    // Texts shrink to about a third.
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 3), Compression::default());
    encoder.write_all(plain)?;
    encoder.finish().map(Bytes::from)
}
