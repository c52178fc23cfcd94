//! A host, put together.

use std::sync::Arc;

use super::{Configuration, Environment, Hooks, Observer, Permissions};
use crate::sync::Options;
use crate::{Agent, Error, blocking};

/// A host that is not started yet.
///
/// ```no_run
/// # async fn example() -> Result<(), modunest_agent::Error> {
/// use modunest_agent::Agent;
/// use modunest_agent::embed::{ConfigFile, Event};
///
/// let agent = Agent::builder(ConfigFile("agent.toml".into()))
///     .observer(|event: &Event<'_>| println!("{event:?}"))
///     .start()
///     .await?;
/// let answer = agent.call_service("demo/markdown", "render", b"# Hello").await;
/// agent.shutdown().await;
/// # drop(answer);
/// # Ok(())
/// # }
/// ```
#[must_use = "a host does nothing until it is started"]
pub struct AgentBuilder {
    configuration: Arc<dyn Configuration>,
    hooks: Hooks,
    options: Options,
}

impl AgentBuilder {
    pub(crate) fn new(configuration: impl Configuration + 'static) -> Self {
        AgentBuilder {
            configuration: Arc::new(configuration),
            hooks: Hooks::default(),
            options: Options::default(),
        }
    }

    /// Lets somebody hear of what happens. There may be several.
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.hooks = self.hooks.with_observer(observer);
        self
    }

    /// Lets somebody forbid what the configuration allows. There may be several; each may
    /// forbid.
    pub fn permissions(mut self, permissions: impl Permissions + 'static) -> Self {
        self.hooks = self.hooks.with_permissions(permissions);
        self
    }

    /// Shows plugins this environment in place of the process's own.
    pub fn environment(mut self, environment: impl Environment + 'static) -> Self {
        self.hooks = self.hooks.with_environment(environment);
        self
    }

    /// Uses no network: runs what was proven and kept before. Where nothing was, it does not start.
    pub fn offline(mut self) -> Self {
        self.options.offline = true;
        self
    }

    /// Takes the lock file as it is.
    pub fn frozen(mut self) -> Self {
        self.options.frozen = true;
        self
    }

    /// Reads the configuration, binds the servers, syncs and loads.
    ///
    /// # Errors
    /// A configuration that is not valid, and what [`Agent::start`] fails with.
    pub async fn start(self) -> Result<Agent, Error> {
        let source = self.configuration.clone();
        let mut config = blocking::run(move || source.load()).await??;
        config.host.hooks = self.hooks;
        Agent::start_from(Some(self.configuration), config, self.options).await
    }
}
