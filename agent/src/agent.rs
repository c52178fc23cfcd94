//! The whole agent as a value: sync, load, serve, look for news, stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use indicatif::ProgressBar;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Config, Listen};
use crate::host::{Host, Plan, State, load_all, prepare};
use crate::status::{AgentStatus, HeadStatus, LastSync, any_failed, plugins};
use crate::store::{Fresh, Proven};
use crate::sync::{HeadSummary, Options, Outcome, Syncer, age_text};
use crate::{Error, admin, blocking, gateway};

/// How long plugins and requests may take to end when the agent stops or changes
/// generations; below the 30 s after which Kubernetes kills.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause before the second try of a sync that never succeeded; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A running agent.
pub struct Agent {
    inner: Arc<Inner>,
    gateway: SocketAddr,
    admin: Listen,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the tasks of an agent share.
pub(crate) struct Inner {
    config: Config,
    syncer: Syncer,
    host: Arc<ArcSwap<Host>>,
    gateway: SocketAddr,
    last: Mutex<Last>,
    /// One sync at a time.
    syncing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Last {
    generation: Option<u64>,
    sync: Option<LastSync>,
    /// Whether the first load has come to its end, whatever the end.
    settled: bool,
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
        let inner = Arc::new(Inner {
            host: Arc::new(ArcSwap::from_pointee(Host::empty())),
            gateway,
            syncer,
            last: Mutex::default(),
            syncing: tokio::sync::Mutex::default(),
            config,
        });
        let timeout = inner.config.host.call_timeout;
        let mut tasks = vec![
            serve(listener, gateway::router(inner.host.clone(), timeout), stopped.clone()),
            admin_listener.serve(admin::router(inner.clone()), stopped.clone()),
        ];
        tracing::info!(%gateway, %admin, "listening");
        if let Err(error) = inner.sync(options).await {
            tracing::error!(%error, "the first sync failed; trying again");
        }
        if !options.offline {
            tasks.push(tokio::spawn(inner.clone().look_for_news(options, stopped)));
        }
        Ok(Agent { inner, gateway, admin, stop, tasks })
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

    /// Looks for news now, and loads them.
    ///
    /// # Errors
    /// Why the sync failed; what runs goes on.
    pub async fn sync(&self) -> Result<Synced, Error> {
        self.inner.sync(Options::default()).await
    }

    /// Ends requests, stops plugins, and waits for both, 20 s at most for each.
    pub async fn shutdown(self) {
        // Fails only when every server has ended already.
        let _ = self.stop.send(true);
        for task in self.tasks {
            let abort = task.abort_handle();
            if tokio::time::timeout(STOP_TIMEOUT, task).await.is_err() {
                abort.abort();
            }
        }
        let host = self.inner.host.swap(Arc::new(Host::empty()));
        let stopped = blocking::run(move || host.stop(None, STOP_TIMEOUT)).await;
        if let Err(error) = stopped {
            tracing::warn!(%error, "plugins were not stopped cleanly");
        }
    }
}

impl Inner {
    async fn look_for_news(self: Arc<Self>, options: Options, mut stopped: watch::Receiver<bool>) {
        let every = self.config.host.check_every;
        let mut pause = FIRST_PAUSE;
        loop {
            // An agent that runs nothing yet tries more often, for registries that start
            // together with it.
            let wait = if self.last().generation.is_none() { pause.min(every) } else { every };
            pause = pause.saturating_mul(2);
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(wait) => {}
            }
            // The plugins of a sync are swapped in whole, so it may be dropped half-way.
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                synced = self.sync(options) => if let Err(error) = synced {
                    tracing::warn!(%error, "looking for news failed; what runs goes on");
                }
            }
        }
    }

    /// Syncs, and loads a generation that does not run yet.
    async fn sync(self: &Arc<Self>, options: Options) -> Result<Synced, Error> {
        let context = modunest_runtime::trace::root();
        modunest_runtime::trace::scope(context, "sync", async {
            let _turn = self.syncing.lock().await;
            let outcome = self.sync_in_turn(options).await;
            let mut last = self.last();
            last.settled = true;
            last.sync = Some(LastSync {
                at: modunest_runtime::clock::now().to_string(),
                error: outcome.as_ref().err().map(ToString::to_string),
                offline: outcome.as_ref().ok().and_then(|synced| synced.offline.clone()),
            });
            outcome
        })
        .await
    }

    async fn sync_in_turn(self: &Arc<Self>, options: Options) -> Result<Synced, Error> {
        let outcome = self.syncer.sync(&self.config, options, &ProgressBar::hidden()).await?;
        let Outcome { generation, proven, fresh, head, offline, warnings, .. } = outcome;
        for warning in warnings {
            tracing::warn!(%warning, "a chosen release needs attention");
        }
        if let Some(reason) = &offline {
            tracing::warn!(
                reason,
                generation = generation.number,
                head_age = age_text(head.age_s),
                "running without the registry, on what was proven before"
            );
        }
        let running = self.last().generation;
        if running == Some(generation.number) {
            return Ok(Synced { generation: generation.number, changed: false, offline });
        }
        let this = self.clone();
        let number = generation.number;
        blocking::run(move || this.load(proven, fresh, number)).await??;
        self.last().generation = Some(number);
        Ok(Synced { generation: number, changed: true, offline })
    }

    /// Loads a generation beside the running one and switches to it. Blocks.
    fn load(&self, proven: Vec<Proven>, fresh: Fresh, number: u64) -> Result<(), Error> {
        let previous = self.host.load_full();
        let (wanted, settings) = (&self.config.plugins, &self.config.host);
        let prepared = prepare(self.syncer.store(), proven, fresh);
        let plan = Plan::build(prepared, wanted, settings, Some(&previous));
        let next = Arc::new(load_all(plan, settings));
        let lost = previous.cells().find(|cell| {
            let is_ready = |cell: &crate::host::Cell| cell.status().state == State::Ready;
            is_ready(cell) && next.cell(cell.name()).is_some_and(|next| !is_ready(next))
        });
        if let Some(cell) = lost {
            let reason = next.cell(cell.name()).and_then(|next| next.status().reason);
            let error = Error::Worse {
                generation: number,
                plugin: cell.name().clone(),
                reason: reason.unwrap_or_default(),
            };
            next.stop(Some(&previous), STOP_TIMEOUT);
            return Err(error);
        }
        self.host.store(next.clone());
        let ready = next.cells().filter(|cell| cell.status().state == State::Ready).count();
        tracing::info!(
            generation = number,
            plugins = next.cells().count(),
            ready,
            "generation loaded"
        );
        previous.stop(Some(&next), STOP_TIMEOUT);
        Ok(())
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the first load has ended and every critical plugin is ready.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let host = self.host.load();
        let (settled, generation) = {
            let last = self.last();
            (last.settled, last.generation)
        };
        match (settled, generation) {
            (false, _) => Err("the first sync has not ended".to_owned()),
            (true, None) if !self.config.plugins.is_empty() => {
                Err("no generation could be loaded".to_owned())
            }
            _ => host.ready().map_err(|(plugin, status)| {
                let reason = status.reason.unwrap_or_default();
                format!("{plugin} is critical and {}: {reason}", status.state.as_str())
            }),
        }
    }

    pub(crate) fn status(&self) -> AgentStatus {
        let head = self.syncer.client().kept_head().map(|head| {
            let HeadSummary { origin, epoch, issued_at, age_s } = HeadSummary::of(&head);
            HeadStatus { origin, epoch, issued_at, age_s }
        });
        let ready = self.ready();
        let last = self.last();
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            gateway: self.gateway.to_string(),
            generation: last.generation,
            head,
            last_sync: last.sync.clone(),
            ready,
            plugins: plugins(&self.host.load()),
        }
    }
}

fn serve<L>(listener: L, router: axum::Router, stopped: watch::Receiver<bool>) -> JoinHandle<()>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(until(stopped)).await;
        if let Err(error) = served {
            tracing::error!(%error, "a server ended");
        }
    })
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the agent was dropped, which is a stop as well.
    drop(stopped.wait_for(|stop| *stop).await);
}

enum AdminListener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl AdminListener {
    async fn bind(listen: &Listen) -> Result<Self, Error> {
        let bind = |source| Error::Bind { address: listen.to_string(), source };
        match listen {
            Listen::Tcp(address) => {
                TcpListener::bind(address).await.map(AdminListener::Tcp).map_err(bind)
            }
            Listen::Unix(path) => {
                // A socket that nobody answers on is left from a crash.
                if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
                    std::fs::remove_file(path).map_err(bind)?;
                }
                let listener = UnixListener::bind(path).map_err(bind)?;
                Ok(AdminListener::Unix(listener, path.clone()))
            }
        }
    }

    fn address(&self, asked: &Listen) -> Listen {
        match self {
            AdminListener::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| asked.clone(), Listen::Tcp)
            }
            AdminListener::Unix(_, path) => Listen::Unix(path.clone()),
        }
    }

    fn serve(self, router: axum::Router, stopped: watch::Receiver<bool>) -> JoinHandle<()> {
        match self {
            AdminListener::Tcp(listener) => serve(listener, router, stopped),
            AdminListener::Unix(listener, path) => {
                let served = serve(listener, router, stopped);
                tokio::spawn(async move {
                    drop(served.await);
                    if let Err(error) = std::fs::remove_file(&path) {
                        tracing::warn!(path = %path.display(), %error, "cannot remove the socket");
                    }
                })
            }
        }
    }
}
