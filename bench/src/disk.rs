//! The physical floor of every durable write: one small write and its sync.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use crate::error::Error;
use crate::stats;

/// How often it is measured.
const REPETITIONS: usize = 200;
/// Bytes of one write: a page, the smallest that a disk takes.
const PAGE_BYTES: usize = 4096;

/// Median and 99th percentile of writing 4 KiB and waiting for the disk, in milliseconds.
pub fn sync_ms(folder: &Path) -> Result<(f64, f64), Error> {
    let path = folder.join("sync");
    let file = File::create(&path).map_err(Error::io(&path))?;
    let mut times = Vec::with_capacity(REPETITIONS);
    for round in 0..REPETITIONS {
        let page = [round as u8; PAGE_BYTES];
        let begun = Instant::now();
        file.write_all_at(&page, (round * PAGE_BYTES) as u64).map_err(Error::io(&path))?;
        file.sync_all().map_err(Error::io(&path))?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok((stats::quantile(&mut times, 0.5), stats::quantile(&mut times, 0.99)))
}
