//! Plugins in runners ([`crate::runner`]), which a sandbox confines: native libraries, and
//! components that are not trusted with the agent's own process.
//!
//! A call takes a lane of the runner, and the thread that makes it waits there and serves what
//! the plugin asks meanwhile ([`lane`]). One thread watches all processes ([`reactor`]), one
//! starts them ([`spawn`]); a process that ends is started again ([`supervisor`]), and one that holds
//! too much is ended ([`cgroup`], [`bounds`]). Whatever a
//! runner sends is distrusted: what is no message ends it.

mod backoff;
mod bounds;
mod cgroup;
mod child;
mod death;
mod groups;
mod lane;
mod reactor;
mod spawn;
mod supervisor;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use modunest_core::archive::FileRecord;
use modunest_sdk::Error;
use modunest_sdk::abi::OwnedBuffer;

use super::component::{self, Confined};
use super::native::{self, LoadError};
use super::tier::Tier;
use super::vitals::{self, Vitals};
use super::{Call, Cell, FileAccess, Instance, Unserved};
use crate::config::HostSettings;
use crate::runner::setup::Load;
use crate::runner::wire::{Body, Kind, Message};
use crate::sandbox::{Limits, SandboxPolicy};
use crate::secrets::OpenConfig;
use crate::store::LIBRARY_NAME;

pub use backoff::RestartPolicy;
pub use death::Crash;

use child::lock;
use groups::Groups;
use supervisor::Runner;

/// Addresses beside the memory that may be used: libraries, stacks that are mostly empty,
/// heaps that are reserved, and the lanes' memories.
const ADDRESSES_MORE_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Does something that takes no time after a while, on the thread that watches runners; at once
/// where there can be none.
pub(super) fn later(pause: Duration, act: impl FnOnce() + Send + 'static) {
    match reactor::reactor() {
        Ok(reactor) => reactor.at(Instant::now() + pause, Box::new(act)),
        Err(_) => act(),
    }
}

/// The runners of what is loaded together: those of trust groups are shared ([`groups`]).
pub(super) struct Runners {
    settings: HostSettings,
    groups: Mutex<Groups>,
}

impl Runners {
    /// For these plugins, under these settings.
    pub(super) fn new<'c>(
        cells: impl Iterator<Item = (&'c Arc<Cell>, Tier)>,
        settings: &HostSettings,
    ) -> Self {
        let groups = Mutex::new(Groups::new(cells, settings));
        Runners { settings: settings.clone(), groups }
    }

    fn of(&self, cell: &Cell, tier: Tier) -> Arc<Runner> {
        let shared = lock(&self.groups).runner_of(cell, tier, &self.settings);
        shared.unwrap_or_else(|| {
            let mut policy = policy_of(cell, tier, &self.settings);
            policy.limits.reserve(reserved_bytes(cell, tier, &self.settings));
            Runner::new(cell.name().to_string(), policy, &self.settings)
        })
    }

    /// Loads a native library behind a sandbox. Blocks.
    pub(super) fn load_native(
        &self,
        cell: &Arc<Cell>,
        record: &FileRecord,
        config: &OpenConfig,
        piece: &mut Vec<u8>,
    ) -> Result<ProcessInstance, LoadError> {
        let file = native::sealed_copy(&cell.folder().join(LIBRARY_NAME), record, piece)?;
        let load = Load::Native { assets: cell.assets().to_owned() };
        self.load(cell, Tier::Process, file, load, config)
    }

    /// Loads a component's machine code behind a sandbox. Blocks.
    pub(super) fn load_component(
        &self,
        cell: &Arc<Cell>,
        code: OwnedFd,
        assets: &component::Assets,
        settings: component::Settings,
        config: &OpenConfig,
    ) -> Result<Confined<ProcessInstance>, LoadError> {
        let load = Load::Component { assets: assets.clone(), settings };
        let process = self.load(cell, Tier::ComponentProcess, code, load, config)?;
        Ok(Confined::new(process, settings.stores, settings.call_timeout))
    }

    fn load(
        &self,
        cell: &Arc<Cell>,
        tier: Tier,
        file: OwnedFd,
        load: Load,
        config: &OpenConfig,
    ) -> Result<ProcessInstance, LoadError> {
        let runner = self.of(cell, tier);
        let number = runner.join(cell, file, load, config)?;
        let group = lock(&self.groups).name_of(cell, tier, &self.settings);
        let cell = Arc::downgrade(cell);
        let has_left = AtomicBool::new(false);
        Ok(ProcessInstance { tier, runner, group, number, cell, has_left })
    }
}

/// What a plugin's process may do: read the plugin's own files and use what it was granted,
/// within limits. A private folder that cannot be made is not among it; the plugin's own attempt
/// says why. A component uses its host by operations alone, so its process gets no folders.
fn policy_of(cell: &Cell, tier: Tier, settings: &HostSettings) -> SandboxPolicy {
    let process = &settings.process;
    let is_component = tier == Tier::ComponentProcess;
    let granted = if is_component { Ok(FileAccess::default()) } else { cell.file_access() };
    let FileAccess { mut read, write } = granted.unwrap_or_else(|error| {
        tracing::warn!(plugin = %cell.name(), %error, "the plugin gets no folders of the host");
        FileAccess::default()
    });
    read.push(cell.folder().to_owned());
    SandboxPolicy {
        read,
        write,
        libraries: !is_component,
        limits: Limits {
            memory_max_bytes: Some(process.memory_max_bytes),
            addresses_max_bytes: Some(process.memory_max_bytes + ADDRESSES_MORE_BYTES),
            files_max: Some(process.files_max),
            file_max_bytes: Some(process.file_max_bytes),
        },
    }
}

/// Addresses that a plugin's memories take beside what they use: each of a component's could
/// grow to all that its own addresses reach.
fn reserved_bytes(cell: &Cell, tier: Tier, settings: &HostSettings) -> u64 {
    if tier != Tier::ComponentProcess {
        return 0;
    }
    let memories = settings.component.stores_of(cell.name()) * component::MEMORIES_MAX;
    memories as u64 * component::ADDRESSES_OF_MEMORY_BYTES
}

/// A plugin in a runner.
pub(super) struct ProcessInstance {
    tier: Tier,
    runner: Arc<Runner>,
    /// The trust group that shares the runner.
    group: Option<String>,
    number: u32,
    cell: Weak<Cell>,
    has_left: AtomicBool,
}

impl ProcessInstance {
    fn request(&self, request: &Message<'_>, timeout: Duration) -> Result<Vec<u8>, Unserved> {
        let cell = self.cell().map_err(Unserved::Refused)?;
        let until = Instant::now() + timeout;
        let child = self.runner.child().map_err(Unserved::Refused)?;
        child.request(request, &cell, until)?.answer().map_err(Unserved::Failed)
    }

    fn cell(&self) -> Result<Arc<Cell>, Error> {
        self.cell.upgrade().ok_or_else(|| Error::Unavailable("the plugin is gone".to_owned()))
    }

    fn ask(&self, kind: Kind, body: &[u8]) -> Result<Vec<u8>, Error> {
        let request = Message::new(kind, self.number, Body::Inline(body));
        self.request(&request, self.runner.call_timeout()).map_err(Unserved::into_error)
    }
}

impl Instance for ProcessInstance {
    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error> {
        self.try_call(call).map_err(Unserved::into_error)
    }

    fn try_call(&self, call: Call<'_>) -> Result<OwnedBuffer, Unserved> {
        let target = lane::text(call.target, "a target")?;
        let trace = lane::text(call.trace, "a trace")?;
        let caller = lane::text(call.caller, "a caller")?;
        let request = Message {
            code: call.kind as u32,
            deadline_ms: call.deadline_ms,
            texts: [target, trace, caller],
            ..Message::new(Kind::Call, self.number, Body::Inline(call.payload))
        };
        let longest = self.runner.call_timeout();
        let timeout = match call.deadline_ms {
            0 => longest,
            deadline => {
                let now = modunest_runtime::clock::now().as_millis();
                Duration::from_millis(deadline.saturating_sub(now))
            }
        };
        self.request(&request, timeout).map(OwnedBuffer::from)
    }

    fn health(&self) -> Result<(), Error> {
        self.ask(Kind::Health, &[]).map(drop)
    }

    fn snapshot(&self) -> Result<Vec<u8>, Error> {
        self.ask(Kind::Snapshot, &[])
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        self.ask(Kind::Restore, snapshot).map(drop)
    }

    fn stop(&self) -> Result<(), Error> {
        let stopped = self.ask(Kind::Stop, &[]).map(drop);
        // Nothing is called afterwards, so its process need not wait for the last reference.
        if !self.has_left.swap(true, Ordering::AcqRel) {
            match self.cell() {
                Ok(cell) => self.runner.destroy(self.number, &cell),
                Err(_) => self.runner.leave(self.number),
            }
        }
        stopped
    }

    fn restart(&self, reason: &str) -> Result<(), Error> {
        self.runner.restart(reason)
    }

    fn end(&self, reason: &str) -> bool {
        self.runner.end(reason)
    }

    fn stays_in_process(&self) -> bool {
        false
    }

    fn vitals(&self) -> Vitals {
        let seen = self.runner.seen();
        let (resident_bytes, cpu_ms) = seen.pid.map_or((None, None), vitals::of_process);
        Vitals {
            tier: self.tier,
            pid: seen.pid,
            restarts: seen.restarts,
            last_crash: seen.last_crash,
            group: self.group.clone(),
            resident_bytes,
            cpu_ms,
            confined: seen.confined,
            control_group: seen.control_group,
        }
    }
}

impl Drop for ProcessInstance {
    fn drop(&mut self) {
        if !self.has_left.swap(true, Ordering::AcqRel) {
            self.runner.leave(self.number);
        }
    }
}
