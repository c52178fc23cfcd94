//! The whole agent as a value: sync, load, serve, look for news, stop.

mod canary;
mod control;
mod facts;
mod load;
mod news;
mod pause;
mod servers;
mod upkeep;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use modunest_core::digest::Digest;
use modunest_core::name::PluginName;
use modunest_sdk::abi::RequestKind;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Config, Listen};
use crate::embed::{AgentBuilder, ConfigFile, Configuration, Event};
use crate::gateway::Gateway;
use crate::host::drive::drive;
use crate::host::{Host, Item, OwnedCall, Resources};
use crate::status::{AgentStatus, LastSync, any_failed};
use crate::store::Tries;
use crate::sync::{Options, Syncer};
use crate::{Error, admin, blocking};

pub use control::{Reloaded, TrialWord};
pub use facts::kept_generations;
use pause::Pause;
use servers::AdminListener;

/// How long plugins and requests may take to end when the agent stops or changes
/// generations; below the 30 s after which Kubernetes kills.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the gateway may take to cut what did not end in time.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// A running agent.
pub struct Agent {
    inner: Arc<Inner>,
    gateway: SocketAddr,
    admin: Listen,
    /// Tells the gateway to drain, and the search for news to end.
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    /// Tells the admin server to end, which it does last.
    stop_admin: watch::Sender<bool>,
    admin_task: JoinHandle<()>,
}

/// What the tasks of an agent share.
pub(crate) struct Inner {
    config: ArcSwap<Config>,
    /// Where it is read anew; nothing where it was made in code.
    source: Option<Arc<dyn Configuration>>,
    syncer: Syncer,
    host: Arc<ArcSwap<Host>>,
    resources: Arc<Resources>,
    server: Arc<Gateway>,
    gateway: SocketAddr,
    last: Mutex<Last>,
    /// What is remembered of releases that are or were tried.
    tries: Mutex<Tries>,
    /// Whether it was told to use no network, which holds for whatever it is asked later.
    offline: bool,
    /// One sync at a time.
    syncing: tokio::sync::Mutex<()>,
    /// Whether it takes no new requests any more.
    stopping: AtomicBool,
}

#[derive(Default)]
struct Last {
    generation: Option<u64>,
    sync: Option<LastSync>,
    /// Whether the first load has come to its end, whatever the end.
    settled: bool,
    /// The index and the generation whose releases were asked after last, and heeded.
    heeded: Option<(Option<Digest>, u64)>,
    /// The generation that calls kept from being switched to last.
    paused: Option<Pause>,
}

/// What a sync of a running agent came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The generation that runs now.
    pub generation: u64,
    /// Whether it is another one than before.
    pub changed: bool,
    /// Why this came about without the registry.
    pub offline: Option<String>,
}

impl Agent {
    /// A host that is put together before it is started.
    pub fn builder(configuration: impl Configuration + 'static) -> AgentBuilder {
        AgentBuilder::new(configuration)
    }

    /// Binds both servers, syncs, and loads. A sync that fails does not keep the agent from
    /// starting: it tries again, and says so in its status.
    ///
    /// # Errors
    /// When an address or the state folder cannot be used.
    pub async fn start(config: Config) -> Result<Agent, Error> {
        Self::start_with(config, Options::default()).await
    }

    /// As [`Agent::start`]. With `offline`, the network is never used.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub async fn start_with(config: Config, options: Options) -> Result<Agent, Error> {
        let file = config.file.clone();
        let source = file.map(|file| Arc::new(ConfigFile(file)) as Arc<dyn Configuration>);
        Self::start_from(source, config, options).await
    }

    /// As [`Agent::start_with`], with a configuration that `source` gave and gives again.
    pub(crate) async fn start_from(
        source: Option<Arc<dyn Configuration>>,
        config: Config,
        options: Options,
    ) -> Result<Agent, Error> {
        let state_dir = config.state_dir.clone();
        std::fs::create_dir_all(&state_dir)
            .map_err(|source| Error::StateDir { path: state_dir, source })?;
        let syncer = Syncer::open(&config)?;
        let bind = |source| Error::Bind { address: config.gateway.to_string(), source };
        let listener = TcpListener::bind(config.gateway).await.map_err(bind)?;
        let gateway = listener.local_addr().map_err(bind)?;
        let admin_listener = AdminListener::bind(&config.admin).await?;
        let admin = admin_listener.address(&config.admin);
        let (stop, stopped) = watch::channel(false);
        let host = Arc::new(ArcSwap::from_pointee(Host::empty()));
        let server = Gateway::new(host.clone(), &config)?;
        let inner = Arc::new(Inner {
            host,
            source,
            server: server.clone(),
            resources: Resources::with_hooks(
                &config.state_dir,
                config.host.grants.outbound.clone(),
                config.host.hooks.clone(),
            ),
            gateway,
            tries: Mutex::new(syncer.tries()?),
            syncer,
            last: Mutex::default(),
            offline: options.offline,
            syncing: tokio::sync::Mutex::default(),
            stopping: AtomicBool::new(false),
            config: ArcSwap::from_pointee(config),
        });
        let mut tasks = vec![tokio::spawn(server.serve(listener, stopped.clone()))];
        let (stop_admin, admin_stopped) = watch::channel(false);
        let admin_task = admin_listener.serve(admin::router(inner.clone()), admin_stopped);
        tracing::info!(%gateway, %admin, "listening");
        if let Err(error) = inner.sync(options, false).await {
            tracing::error!(%error, "the first sync failed; trying again");
        }
        tasks.push(tokio::spawn(inner.clone().keep_up(stopped.clone())));
        if !options.offline {
            tasks.push(tokio::spawn(inner.clone().look_for_news(options, stopped)));
        }
        Ok(Agent { inner, gateway, admin, stop, tasks, stop_admin, admin_task })
    }

    /// Where plugin routes are served.
    pub fn gateway_addr(&self) -> SocketAddr {
        self.gateway
    }

    /// Where the status is served.
    pub fn admin(&self) -> &Listen {
        &self.admin
    }

    /// What `/status` answers.
    pub fn status(&self) -> AgentStatus {
        self.inner.status()
    }

    /// Whether any plugin could not be loaded.
    pub fn any_failed(&self) -> bool {
        any_failed(&self.inner.host.load())
    }

    /// Calls a service of a loaded plugin, `service` or `service/method`, as the host itself:
    /// guards and rules for callers are about plugins. It may take as long as a request at the
    /// gateway.
    ///
    /// # Errors
    /// What the plugin answered, or why it was not called.
    pub async fn call_service(
        &self,
        plugin: &str,
        service: &str,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Vec<u8>, modunest_sdk::Error> {
        use modunest_sdk::Error as Refused;
        let host = self.inner.host();
        let name = plugin.parse().map_err(|error| Refused::InvalidInput(format!("{error}")))?;
        let cell = host.cell(&name).cloned();
        let cell = cell.ok_or_else(|| Refused::NotFound(format!("{plugin} is not loaded")))?;
        let exported = service.split('/').next().unwrap_or_default();
        if !cell.manifest().services.iter().any(|one| one.export.name.as_str() == exported) {
            let version = cell.version();
            return Err(Refused::NotFound(format!(
                "{plugin} {version} exports no service {service}"
            )));
        }
        let deadline = modunest_runtime::clock::now().plus(self.inner.config().host.call_timeout);
        let trace =
            modunest_runtime::trace::current().unwrap_or_else(modunest_runtime::trace::root);
        let (service, payload) = (service.to_owned(), payload.into());
        let tried = cell.tried(Item::Service(exported));
        let cell = tried.unwrap_or(cell);
        let call = OwnedCall {
            kind: RequestKind::Service,
            target: service,
            payload,
            trace: trace.to_string(),
            caller: String::new(),
            deadline_ms: deadline.as_millis(),
        };
        let answer = drive(cell.call_async(call), None).await?;
        Ok(answer.into_vec())
    }

    /// Looks for news now, and loads them.
    ///
    /// # Errors
    /// Why the sync failed; what runs goes on.
    pub async fn sync(&self) -> Result<Synced, Error> {
        self.sync_with(Options::default()).await
    }

    /// As [`Agent::sync`]. With `update`, the newest versions are taken.
    ///
    /// # Errors
    /// As [`Agent::sync`].
    pub async fn sync_with(&self, options: Options) -> Result<Synced, Error> {
        self.inner.sync(options, true).await
    }

    /// Goes back to a generation, by default to the one before the one that runs, and stays
    /// with it until the next explicit sync.
    ///
    /// # Errors
    /// It is not there, cannot be proven any more, or cannot be loaded; what runs goes on.
    pub async fn rollback(&self, generation: Option<u64>) -> Result<Synced, Error> {
        self.inner.rollback(generation).await
    }

    /// Puts another instance in the place of a plugin's. Its state is not taken over.
    ///
    /// # Errors
    /// There is no such plugin, or its new instance does not load; what runs goes on.
    pub async fn restart(&self, plugin: &PluginName) -> Result<(), Error> {
        self.inner.restart(plugin, "asked for").await
    }

    /// Says what becomes of a release of this plugin that is or was tried.
    ///
    /// # Errors
    /// [`Error::NoTrial`] and [`Error::NotRolledBack`]; or it cannot take over, and what ran
    /// goes on.
    pub async fn decide_trial(&self, plugin: &PluginName, word: TrialWord) -> Result<(), Error> {
        self.inner.decide_trial(plugin, word).await
    }

    /// Reads the configuration anew where it came from, and puts in force what can be without a
    /// restart: all of it or, after an error, nothing.
    ///
    /// # Errors
    /// It is not valid, or what it wants cannot be had. What was in force goes on, and the next
    /// call tries again. [`Error::NoConfigFile`] where [`Agent::start`] was given a value that
    /// came from no file.
    pub async fn reload(&self) -> Result<Reloaded, Error> {
        self.inner.reload().await
    }

    /// Says that it is not ready, lets the gateway end what it has begun, stops plugins, and
    /// ends the admin server at last. Waits 20 s at most for each, and for the gateway as long
    /// as its drain may take.
    pub async fn shutdown(self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        let config = self.inner.config();
        let limits = &config.gateway_limits;
        tokio::time::sleep(limits.drain_delay).await;
        // Fails only when every server has ended already.
        let _ = self.stop.send(true);
        let patience = limits.drain_timeout.max(STOP_TIMEOUT) + CUT_TIMEOUT;
        for task in self.tasks {
            end(task, patience).await;
        }
        let host = self.inner.host.swap(Arc::new(Host::empty()));
        let stopped = blocking::run(move || host.stop(None, STOP_TIMEOUT)).await;
        if let Err(error) = stopped {
            tracing::warn!(%error, "plugins were not stopped cleanly");
        }
        let _ = self.stop_admin.send(true);
        end(self.admin_task, STOP_TIMEOUT).await;
    }
}

/// Waits for a task, and aborts it at the end of patience.
async fn end(task: JoinHandle<()>, patience: Duration) {
    let abort = task.abort_handle();
    if tokio::time::timeout(patience, task).await.is_err() {
        abort.abort();
    }
}

impl Inner {
    /// The configuration that is in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Tells whoever observes this host. No lock is held.
    fn tell(&self, event: &Event<'_>) {
        self.config.load().host.hooks.tell(event);
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
