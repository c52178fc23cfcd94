//! A lane's thread: requests in, answers out.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use modunest_sdk::abi::{MAX_ERROR_TEXT_BYTES, OwnedBuffer, RequestKind};
use modunest_sdk::{Error, Status};
use zeroize::Zeroize as _;

use super::channel::{self, Channel};
use super::lanes::{self, Background, FarSide};
use super::setup::Load;
use super::wire::{Body, Kind, Message, NOT_LOADED};
use crate::host::component::{Compiled, ComponentInstance};
use crate::host::native::{self, LoadError, NativeInstance};
use crate::host::{Call, Instance, native_host};

/// How long a load waits for its file, which was sent before it over another socket.
const FILE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the threads of a runner share.
pub(super) struct Shared {
    background: Background,
    files: Mutex<BTreeMap<u32, OwnedFd>>,
    filed: Condvar,
    instances: RwLock<BTreeMap<u32, Arc<dyn Instance>>>,
}

impl Shared {
    pub(super) fn new(background: Channel) -> Self {
        Shared {
            background: Background::new(background),
            files: Mutex::default(),
            filed: Condvar::new(),
            instances: RwLock::default(),
        }
    }

    pub(super) fn background(&self) -> &Background {
        &self.background
    }

    pub(super) fn keep_file(&self, plugin: u32, file: OwnedFd) {
        self.files().insert(plugin, file);
        self.filed.notify_all();
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<u32, OwnedFd>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_file(&self, plugin: u32) -> Option<OwnedFd> {
        let is_missing = |files: &mut BTreeMap<u32, OwnedFd>| !files.contains_key(&plugin);
        let waited = self.filed.wait_timeout_while(self.files(), FILE_TIMEOUT, is_missing);
        waited.unwrap_or_else(PoisonError::into_inner).0.remove(&plugin)
    }

    fn instance(&self, plugin: u32) -> Result<Arc<dyn Instance>, Error> {
        let instances = self.instances.read().unwrap_or_else(PoisonError::into_inner);
        let found = instances.get(&plugin).cloned();
        found.ok_or_else(|| Error::Unavailable("the plugin is not loaded".to_owned()))
    }
}

/// Serves a lane until the agent hangs up.
pub(super) fn serve(shared: &Arc<Shared>, lane: Channel) {
    let lane = Rc::new(lane);
    lanes::serve_on(lane.clone());
    let (mut buffer, mut scratch) = (channel::buffer(), Vec::new());
    // Whatever breaks a lane, its agent notices, and decides.
    while let Ok(message) = lane.receive(&mut buffer, None) {
        let (plugin, kind) = (message.plugin, message.kind);
        let answer = lane
            .body(message.body)
            .map_err(|broken| Error::Failed(broken.to_string()))
            .and_then(|body| match message.kind {
                Kind::Load => Ok(load(shared, plugin, &body)),
                _ => answer(shared, &message, &body).map(Ok),
            });
        if kind == Kind::Load {
            // It may hold secrets, which the plugin has now and nobody else needs.
            buffer.as_mut_slice().zeroize();
        }
        let (code, bytes) = match answer {
            Ok(Ok(bytes)) => (Status::Ok.code().cast_unsigned(), bytes),
            Ok(Err(LoadError::Start(error))) | Err(error) => failure(&error),
            Ok(Err(error)) => (NOT_LOADED, cut(&error.to_string())),
        };
        let done = Message { code, ..Message::new(Kind::Done, plugin, Body::Inline(&bytes)) };
        if lane.send(&done, &mut scratch).is_err() {
            // The agent has hung up, or the answer lies where nothing can be read. Then this
            // ends the process by the fault that it is, as a plugin's own would.
            drop(std::hint::black_box(bytes.to_vec()));
            return;
        }
    }
}

fn failure(error: &Error) -> (u32, OwnedBuffer) {
    (error.status().code().cast_unsigned(), cut(error.text()))
}

fn cut(text: &str) -> OwnedBuffer {
    text.as_bytes()[..text.floor_char_boundary(MAX_ERROR_TEXT_BYTES)].to_vec().into()
}

fn answer(shared: &Arc<Shared>, message: &Message<'_>, body: &[u8]) -> Result<OwnedBuffer, Error> {
    let plugin = message.plugin;
    let nothing = || OwnedBuffer::from(Vec::new());
    match message.kind {
        Kind::Call => {
            let [target, trace, caller] = message.texts;
            let kind = RequestKind::from_number(message.code)
                .ok_or_else(|| Error::Unsupported("a request of another version".to_owned()))?;
            let deadline_ms = message.deadline_ms;
            let call = Call { kind, target, payload: body, trace, caller, deadline_ms };
            shared.instance(plugin)?.call(call)
        }
        Kind::Health => shared.instance(plugin)?.health().map(|()| nothing()),
        Kind::Snapshot => shared.instance(plugin)?.snapshot().map(OwnedBuffer::from),
        Kind::Restore => shared.instance(plugin)?.restore(body).map(|()| nothing()),
        Kind::Stop => shared.instance(plugin)?.stop().map(|()| nothing()),
        Kind::Destroy => {
            let mut instances = shared.instances.write().unwrap_or_else(PoisonError::into_inner);
            let gone = instances.remove(&plugin);
            drop(instances);
            // Freed here, or by the last call that still runs.
            drop(gone);
            Ok(nothing())
        }
        other => Err(Error::Unsupported(format!("a runner serves no {other:?}"))),
    }
}

fn load(shared: &Arc<Shared>, plugin: u32, how: &[u8]) -> Result<OwnedBuffer, LoadError> {
    let (how, config) = Load::parse(how).map_err(|error| LoadError::Open(error.to_string()))?;
    let file =
        shared.take_file(plugin).ok_or_else(|| LoadError::Open("it was not sent".to_owned()))?;
    let instance: Arc<dyn Instance> = match how {
        Load::Native { assets } => {
            let table = native::open(&file)?;
            let side = FarSide { plugin, assets, shared: shared.clone() };
            let host = native_host::table(Box::new(side), table.abi_version);
            Arc::new(NativeInstance::start(table, host, config)?)
        }
        Load::Component { assets, settings } => {
            let compiled = Compiled::open(&file)?;
            let folder = assets.folder.to_string_lossy().into_owned();
            let side = Arc::new(FarSide { plugin, assets: folder, shared: shared.clone() });
            let assets = Arc::new(assets);
            Arc::new(ComponentInstance::start(compiled, settings, config, side, assets)?)
        }
    };
    let mut instances = shared.instances.write().unwrap_or_else(PoisonError::into_inner);
    instances.insert(plugin, instance);
    Ok(Vec::new().into())
}
