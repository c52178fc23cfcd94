//! What a store may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

/// Most table entries: function pointers of a large program, and as many again.
pub(super) const TABLE_ENTRIES_MAX: usize = 200_000;
/// Most core instances, tables and memories of one store: what the scan lets through.
pub(super) const INSTANCES_MAX: usize = 256;
pub(super) const TABLES_MAX: usize = 64;
pub(in crate::host) const MEMORIES_MAX: usize = 4;

/// Limits of one store, and what it has taken.
pub(super) struct Limits {
    memory_max_bytes: u64,
    taken_bytes: u64,
    /// Of all stores of the plugin.
    total_bytes: Arc<AtomicU64>,
    /// Whether more memory was asked for than there may be.
    pub(super) reached: bool,
}

impl Limits {
    pub(super) fn new(memory_max_bytes: u64, total_bytes: Arc<AtomicU64>) -> Self {
        Limits { memory_max_bytes, taken_bytes: 0, total_bytes, reached: false }
    }

    pub(super) fn memory_max_bytes(&self) -> u64 {
        self.memory_max_bytes
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = (desired as u64).saturating_sub(current as u64);
        let wanted = self.taken_bytes.saturating_add(more);
        if wanted > self.memory_max_bytes {
            self.reached = true;
            return Ok(false);
        }
        self.taken_bytes = wanted;
        self.total_bytes.fetch_add(more, Ordering::Relaxed);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ENTRIES_MAX)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.total_bytes.fetch_sub(self.taken_bytes, Ordering::Relaxed);
    }
}
