//! The whole agent as a value: sync, load, serve, look for news, stop.

mod canary;
mod control;
mod facts;
mod load;
mod news;
mod pause;
mod retries;
mod servers;
mod turn;
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
pub(crate) use turn::to_the_end;

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
    /// How it is to begin, until it has.
    begins: Option<Options>,
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
    /// Whose turn it is to change what runs: one at a time.
    syncing: tokio::sync::Mutex<()>,
    /// Whether it takes no new requests any more.
    stopping: AtomicBool,
    /// Says when no change is begun any more, and none waits for others.
    stopped: watch::Receiver<bool>,
    /// Whether what served was taken away for good; held while either is decided.
    is_over: Mutex<bool>,
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
    /// As [`Agent::start`], and [`Error::NothingKept`] with `offline` where nothing was ever synced:
    /// nothing would ever be there to run.
    pub async fn start_with(config: Config, options: Options) -> Result<Agent, Error> {
        let source = file_of(&config);
        Self::start_from(source, config, options).await
    }

    /// The first half of [`Agent::start_with`], which waits for nobody: binds both servers, and
    /// answers. [`Agent::begin`] is the other half. Whoever may be told to stop before that has ended
    /// can drop it and call [`Agent::shutdown`].
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub async fn bind(config: Config, options: Options) -> Result<Agent, Error> {
        let source = file_of(&config);
        Self::bind_from(source, config, options).await
    }

    /// As [`Agent::start_with`], with a configuration that `source` gave and gives again.
    pub(crate) async fn start_from(
        source: Option<Arc<dyn Configuration>>,
        config: Config,
        options: Options,
    ) -> Result<Agent, Error> {
        let mut agent = Self::bind_from(source, config, options).await?;
        agent.begin().await;
        Ok(agent)
    }

    async fn bind_from(
        source: Option<Arc<dyn Configuration>>,
        config: Config,
        options: Options,
    ) -> Result<Agent, Error> {
        let state_dir = config.state_dir.clone();
        std::fs::create_dir_all(&state_dir)
            .map_err(|source| Error::StateDir { path: state_dir, source })?;
        let syncer = Syncer::open(&config)?;
        if options.offline && syncer.generations().current()?.is_none() {
            return Err(Error::NothingKept(config.state_dir));
        }
        let bind = |source| Error::Bind { address: config.gateway.to_string(), source };
        let listener = TcpListener::bind(config.gateway).await.map_err(bind)?;
        let gateway = listener.local_addr().map_err(bind)?;
        let (stop, stopped) = watch::channel(false);
        let host = Arc::new(ArcSwap::from_pointee(Host::empty()));
        let server = Gateway::new(host.clone(), &config)?;
        let tries = syncer.tries()?;
        // The last that may fail: a socket stays where it is bound.
        let admin_listener = AdminListener::bind(&config.admin).await?;
        let admin = admin_listener.address(&config.admin);
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
            tries: Mutex::new(tries),
            syncer,
            last: Mutex::default(),
            offline: options.offline,
            syncing: tokio::sync::Mutex::default(),
            stopping: AtomicBool::new(false),
            stopped: stopped.clone(),
            is_over: Mutex::default(),
            config: ArcSwap::from_pointee(config),
        });
        let tasks = vec![tokio::spawn(server.serve(listener, stopped))];
        let (stop_admin, admin_stopped) = watch::channel(false);
        let admin_task = admin_listener.serve(admin::router(inner.clone()), admin_stopped);
        tracing::info!(%gateway, %admin, "listening");
        let begins = Some(options);
        Ok(Agent { inner, gateway, admin, stop, tasks, stop_admin, admin_task, begins })
    }

    /// The other half of [`Agent::start_with`]: syncs and loads, and looks after both from then on. A
    /// second call does nothing.
    pub async fn begin(&mut self) {
        let Some(options) = self.begins.take() else { return };
        if let Err(error) = to_the_end(self.inner.clone().look(options)).await {
            tracing::error!(%error, "the first sync failed; trying again");
        }
        self.tasks.push(tokio::spawn(self.inner.clone().keep_up(self.stop.subscribe())));
        self.tasks.push(tokio::spawn(self.inner.clone().watch_folders(self.stop.subscribe())));
        if !options.offline {
            let looking = self.inner.clone().look_for_news(options, self.stop.subscribe());
            self.tasks.push(tokio::spawn(looking));
        }
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

    /// Looks for news now, and loads them. As every change of what runs it has a turn of its own, and
    /// goes on to its end where its caller goes away.
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
        let inner = self.inner.clone();
        to_the_end(async move { inner.sync(options, true).await }).await
    }

    /// Goes back to a generation, by default to the one before the one that runs, and stays
    /// with it until the next explicit sync.
    ///
    /// # Errors
    /// It is not there, cannot be proven any more, or cannot be loaded; what runs goes on.
    pub async fn rollback(&self, generation: Option<u64>) -> Result<Synced, Error> {
        let inner = self.inner.clone();
        to_the_end(async move { inner.rollback(generation).await }).await
    }

    /// Puts another instance in the place of a plugin's. Its state is not taken over.
    ///
    /// # Errors
    /// There is no such plugin, or its new instance does not load; what runs goes on.
    pub async fn restart(&self, plugin: &PluginName) -> Result<(), Error> {
        let (inner, plugin) = (self.inner.clone(), plugin.clone());
        to_the_end(async move { inner.restart(&plugin, "asked for").await }).await
    }

    /// Says what becomes of a release of this plugin that is or was tried.
    ///
    /// # Errors
    /// [`Error::NoTrial`] and [`Error::NotRolledBack`]; or it cannot take over, and what ran
    /// goes on.
    pub async fn decide_trial(&self, plugin: &PluginName, word: TrialWord) -> Result<(), Error> {
        let (inner, plugin) = (self.inner.clone(), plugin.clone());
        to_the_end(async move { inner.decide_trial(&plugin, word).await }).await
    }

    /// Reads the configuration anew where it came from, and puts in force what can be without a
    /// restart: all of it or, after an error, nothing.
    ///
    /// # Errors
    /// It is not valid, or what it wants cannot be had. What was in force goes on, and the next
    /// call tries again. [`Error::NoConfigFile`] where [`Agent::start`] was given a value that
    /// came from no file.
    pub async fn reload(&self) -> Result<Reloaded, Error> {
        let inner = self.inner.clone();
        to_the_end(async move { inner.reload().await }).await
    }

    /// Says that it is not ready, lets the gateway end what it has begun, stops plugins, and
    /// ends the admin server at last. Waits 20 s at most for each, and for the gateway as long
    /// as its drain may take. A change that is under way comes to its end meanwhile, and what it has
    /// loaded is stopped.
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
        let host = self.inner.take_out_of_service();
        let stopping = blocking::run(move || host.stop(None, STOP_TIMEOUT));
        let (stopped, ()) = tokio::join!(stopping, self.inner.last_turn(STOP_TIMEOUT));
        if let Err(error) = stopped {
            tracing::warn!(%error, "plugins were not stopped cleanly");
        }
        let _ = self.stop_admin.send(true);
        end(self.admin_task, STOP_TIMEOUT).await;
    }
}

/// Where a configuration is read anew that came from a file.
fn file_of(config: &Config) -> Option<Arc<dyn Configuration>> {
    let file = config.file.clone()?;
    Some(Arc::new(ConfigFile(file)))
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
