//! Memory for the components of the agent's own process: reserved once, handed from store to
//! store.
//!
//! Each trust level has a pool of its own, made when its first component is loaded; a runner is a
//! process and has memory of its own. What a store leaves behind is given back to the system before
//! its slot is another's, and only [`KEPT_BYTES`] of it are overwritten with zeros instead, which
//! is cheaper.
//!
//! A plugin takes its places when it is loaded, as many as its stores may ever need, and gives
//! them back with its last store: what was loaded never finds the pool empty behind a trap. A
//! plugin that finds no place runs with memory that is mapped for it alone.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};
use wasmtime::component::Component;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::engine::ADDRESSES_OF_MEMORY_BYTES;
use super::limits::{INSTANCES_MAX, TABLE_ENTRIES_MAX, TABLES_MAX};

/// Stores for which the pool has room, for each of its level that the first plan has: a reload
/// brings their successors up beside them, and more plugins may come.
const ROOM_FOR_MORE: usize = 4;

/// Fewest memories in the pool, and fewest that are worth one where addresses are limited.
const MEMORIES_MIN: usize = 64;
const MEMORIES_LIMITED_MIN: usize = 16;

/// Most memories in the pool. They take four of the 128 tebibytes that a process can address, and
/// those of all levels sixteen, and nothing else until they are used. Twice as many plugins as a
/// large host has find place.
const MEMORIES_MAX: usize = 1024;

/// Tables in the pool, for each memory: a program has one, and the encoder adds one.
const TABLES_OF_MEMORY: usize = 2;

/// Of the addresses that this process may have and other pools have not taken, the part that a pool
/// may take: plugins that find no place in it, libraries and threads need some as well.
const PART_OF_ADDRESSES: u64 = 4;

/// Addresses that the pools of this process take, in bytes.
static TAKEN_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes of a memory, and of a table, that stay when their slot is free: those that the smallest
/// plugins write.
const KEPT_BYTES: usize = 64 * 1024;

/// Free slots whose kept bytes are not given up for a slot that was never used.
const WARM_SLOTS_MAX: u32 = 16;

/// Most bytes that what the engine knows of one instance may take: a hundred thousand functions
/// with 32 bytes each, and as much for all else.
const INSTANCE_MAX_BYTES: usize = 8 * 1024 * 1024;

/// What is free of a pool.
#[derive(Debug)]
pub(super) struct Pool {
    memories: AtomicUsize,
    tables: AtomicUsize,
}

/// Places in a pool; given back when dropped.
#[derive(Debug)]
pub(super) struct Places {
    pool: &'static Pool,
    memories: usize,
    tables: usize,
}

impl Pool {
    /// Makes a configuration's memory come from a pool for so many stores, and for more that may
    /// come; nothing where this process may not address enough to be worth it.
    pub(super) fn of_process(config: &mut Config, stores: usize) -> Option<Self> {
        let wanted = stores.saturating_mul(ROOM_FOR_MORE).clamp(MEMORIES_MIN, MEMORIES_MAX);
        let taken = TAKEN_BYTES.load(Ordering::Relaxed);
        let fitting = |bytes: u64| {
            bytes.saturating_sub(taken) / PART_OF_ADDRESSES / ADDRESSES_OF_MEMORY_BYTES
        };
        let fitting = getrlimit(Resource::As).current.map_or(u64::MAX, fitting);
        let memories = usize::try_from(fitting).map_or(wanted, |fitting| fitting.min(wanted));
        if memories < MEMORIES_LIMITED_MIN {
            return None;
        }
        let takes = memories as u64 * ADDRESSES_OF_MEMORY_BYTES;
        TAKEN_BYTES.fetch_add(takes, Ordering::Relaxed);
        Some(Self::with(config, memories))
    }

    /// The same with so many memories.
    pub(super) fn with(config: &mut Config, memories: usize) -> Self {
        let tables = memories * TABLES_OF_MEMORY;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let mut pooling = PoolingAllocationConfig::new();
        pooling
            .total_memories(count(memories))
            .total_tables(count(tables))
            // Each store has a memory, and one stack.
            .total_stacks(count(memories))
            .total_component_instances(count(memories))
            .total_core_instances(count(memories.saturating_mul(INSTANCES_MAX)))
            .max_core_instance_size(INSTANCE_MAX_BYTES)
            .max_component_instance_size(INSTANCE_MAX_BYTES)
            .max_tables_per_module(count(TABLES_MAX))
            .table_elements(TABLE_ENTRIES_MAX)
            .max_unused_warm_slots(WARM_SLOTS_MAX)
            .linear_memory_keep_resident(KEPT_BYTES)
            .table_keep_resident(KEPT_BYTES);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling));
        Pool { memories: AtomicUsize::new(memories), tables: AtomicUsize::new(tables) }
    }

    /// Places for so many stores of a component; nothing where there are not so many.
    pub(super) fn reserve(&'static self, component: &Component, stores: usize) -> Option<Places> {
        // What cannot be told before it runs has no place.
        let needed = component.resources_required()?;
        // A component without memory has a stack all the same.
        let memories = (needed.num_memories as usize).max(1).checked_mul(stores)?;
        let tables = (needed.num_tables as usize).checked_mul(stores)?;
        if !take(&self.memories, memories) {
            return None;
        }
        if !take(&self.tables, tables) {
            self.memories.fetch_add(memories, Ordering::Relaxed);
            return None;
        }
        Some(Places { pool: self, memories, tables })
    }
}

/// Takes so many, all or none.
fn take(free: &AtomicUsize, wanted: usize) -> bool {
    let less = |free: usize| free.checked_sub(wanted);
    free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}

impl Drop for Places {
    fn drop(&mut self) {
        self.pool.memories.fetch_add(self.memories, Ordering::Relaxed);
        self.pool.tables.fetch_add(self.tables, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::Arc;

    use wasmtime::{Instance, Module, Store};

    use super::super::deadline::Deadline;
    use super::super::engine::{self, Runtime};
    use super::super::imports::{Assets, State};
    use super::super::limits::Limits;
    use super::super::tests::{Noting, probe, service, start_compiled};
    use super::super::{Cache, Compiled};
    use super::*;
    use crate::host::Instance as _;

    /// A module with one page of memory, which it exports as `m`.
    const BARE: &[u8] = b"\0asm\x01\0\0\0\x05\x03\x01\x00\x01\x07\x05\x01\x01m\x02\x00";

    const PAGE_BYTES: usize = 64 * 1024;

    /// A pool with so many memories.
    fn pool_of(memories: usize) -> &'static Runtime {
        let mut config = engine::config();
        let pool = Pool::with(&mut config, memories);
        Box::leak(Box::new(Runtime::new(&config, Some(pool)).unwrap()))
    }

    fn state() -> State {
        State {
            side: Arc::<Noting>::default(),
            assets: Arc::new(Assets { folder: "/nowhere".into(), files: Default::default() }),
            limits: Limits::new(u64::MAX, Arc::<AtomicU64>::default()),
            deadline: Deadline::At(u64::MAX),
            last_words: None,
        }
    }

    /// Takes a slot of the pool, grows its memory to so many bytes, and looks at all of them.
    fn with_memory<T>(runtime: &Runtime, bytes: usize, look: impl FnOnce(&mut [u8]) -> T) -> T {
        let module = Module::new(runtime.engine(), BARE).unwrap();
        let mut store = Store::new(runtime.engine(), state());
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let memory = instance.get_memory(&mut store, "m").unwrap();
        memory.grow(&mut store, (bytes / PAGE_BYTES) as u64 - 1).unwrap();
        look(memory.data_mut(&mut store))
    }

    #[test]
    fn no_plugin_sees_what_another_one_left_behind() {
        const MARK: [u8; 16] = *b"a secret of one.";
        let bytes = 64 * 1024 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let source = probe(folder.path());
        // One slot: whoever comes next gets the one that was just given back.
        let runtime = pool_of(1);
        let cache = Cache::new(Some(folder.path().join("compiled")));
        for _ in 0..2 {
            let compiled = Compiled::load_into(runtime, &source, &cache, 1).unwrap().unwrap();
            let plugin = start_compiled(compiled);
            let marks = MARK.repeat(512 * 1024);
            assert_eq!(plugin.call(service("echo", &marks)).unwrap().into_vec(), marks);
            assert!(plugin.memory_bytes() > marks.len() as u64);
            drop(plugin);
            with_memory(runtime, bytes, |memory| {
                assert_eq!(memory.len(), bytes);
                assert!(memory.iter().all(|byte| *byte == 0));
                memory.fill(0xA7);
            });
        }
    }

    #[test]
    fn a_plugin_has_its_places_until_its_last_store_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let source = probe(folder.path());
        let cache = Cache::new(Some(folder.path().join("compiled")));
        let runtime = pool_of(2);
        let load = |stores| Compiled::load_into(runtime, &source, &cache, stores).unwrap();
        assert!(load(3).is_none());
        let plugin = start_compiled(load(1).unwrap());
        assert!(load(2).is_none());
        // A trap takes no place more.
        for _ in 0..4 {
            assert!(plugin.call(service("panic", b"")).is_err());
            assert_eq!(plugin.call(service("echo", b"x")), Ok(b"x".to_vec().into()));
        }
        let other = start_compiled(load(1).unwrap());
        assert!(load(1).is_none());
        drop((plugin, other));
        assert!(load(2).is_some());
    }
}
