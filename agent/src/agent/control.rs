//! What an operator can have a running agent do: go back, restart a plugin, read its
//! configuration anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use modunest_core::name::PluginName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Inner, Synced};
use crate::config::Config;
use crate::store::Fresh;
use crate::sync::Options;
use crate::{Error, blocking};

/// An operator's word about a release that is or was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialWord {
    /// It takes the place of what runs now.
    Promote,
    /// It is rolled back.
    Abort,
    /// It may be tried again although it was rolled back.
    Forgive,
}

/// What reading the configuration anew came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// Sections that are in force now.
    pub applied: Vec<String>,
    /// Sections that changed and wait for a restart.
    pub needs_restart: Vec<String>,
    /// The generation that runs now.
    pub generation: Option<u64>,
}

impl Inner {
    /// Goes back to a generation, by default the one before the one that runs, and stays with
    /// it until the next explicit sync.
    pub(crate) async fn rollback(self: &Arc<Self>, number: Option<u64>) -> Result<Synced, Error> {
        let _turn = self.turn().await?;
        let running = self.last().generation;
        let this = self.clone();
        let number = blocking::run(move || {
            let generations = this.syncer.generations();
            let before = || {
                let numbers = generations.numbers()?;
                // What is only tried never ran as a whole.
                let tried = this.tries().candidate;
                let before = |number: &u64| {
                    running.is_some_and(|running| *number < running) && Some(*number) != tried
                };
                numbers.into_iter().rfind(before).ok_or(Error::NoEarlier)
            };
            let number = number.map_or_else(before, Ok)?;
            if !generations.numbers()?.contains(&number) {
                return Err(Error::NotKept(number));
            }
            let chosen = generations.read(number)?;
            // What cannot be proven is not gone back to.
            let config = this.config();
            this.syncer.verify(&config, &chosen)?;
            let proven = this.syncer.prove(&config, &chosen)?;
            this.load(&config, proven, Fresh::default(), number)?;
            crate::sync::go_back(&config.state_dir, generations, &chosen)?;
            this.serves(&config, number, this.tries().candidate)?;
            this.leave_trials()?;
            Ok::<_, Error>(number)
        })
        .await??;
        self.last().generation = Some(number);
        tracing::warn!(generation = number, "went back; this generation is stayed with");
        Ok(Synced { generation: number, changed: running != Some(number), offline: None })
    }

    /// Puts another instance in the place of a plugin's, loaded beside it so that no call fails;
    /// in place where that cannot be done. Its state is not taken over.
    pub(crate) async fn restart(
        self: &Arc<Self>,
        plugin: &PluginName,
        reason: &str,
    ) -> Result<(), Error> {
        let _turn = self.turn().await?;
        let (this, plugin, reason) = (self.clone(), plugin.clone(), reason.to_owned());
        blocking::run(move || {
            let host = this.host.load_full();
            let cell = host.cell(&plugin).ok_or(Error::NoPlugin(plugin.clone()))?;
            cell.wear_out();
            let loaded = this.load_again();
            if let Err(error) = &loaded
                && !matches!(error, Error::Stopping)
            {
                tracing::warn!(%plugin, %error, "no instance could be loaded beside the plugin's");
                if cell.restart_in_place(&reason).is_ok() {
                    return Ok(());
                }
            }
            loaded
        })
        .await?
    }

    /// Loads the running generation anew: what goes on unchanged is left alone.
    pub(super) fn load_again(&self) -> Result<(), Error> {
        let number = self.last().generation.ok_or(Error::NoGeneration)?;
        let generation = self.syncer.generations().read(number)?;
        let config = self.config();
        let proven = self.syncer.prove(&config, &generation)?;
        self.load(&config, proven, Fresh::default(), number)?;
        self.try_again(&config)
    }

    /// Lets a release that is tried take over, ends its trial, or lets it be tried again.
    pub(crate) async fn decide_trial(
        self: &Arc<Self>,
        plugin: &PluginName,
        word: TrialWord,
    ) -> Result<(), Error> {
        let _turn = self.turn().await?;
        let (this, plugin) = (self.clone(), plugin.clone());
        blocking::run(move || match word {
            TrialWord::Promote => this.promote(&plugin).map(drop),
            TrialWord::Abort => this.roll_back(&plugin, "an operator ended its trial".to_owned()),
            TrialWord::Forgive if this.forgive(&plugin)? => Ok(()),
            TrialWord::Forgive => Err(Error::NotRolledBack(plugin)),
        })
        .await?
    }

    /// Reads the configuration anew, and puts in force what can be without a restart: all of it
    /// or, after an error, nothing.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, Error> {
        let context = modunest_runtime::trace::root();
        modunest_runtime::trace::scope(context, "reload", async {
            let _turn = self.turn().await?;
            self.reload_in_turn().await
        })
        .await
    }

    async fn reload_in_turn(self: &Arc<Self>) -> Result<Reloaded, Error> {
        let source = self.source.clone().ok_or(Error::NoConfigFile)?;
        let mut next = blocking::run(move || source.load()).await??;
        let now = self.config();
        let mut reloaded = Reloaded::default();
        let fixed = differing(&now, &next);
        // What cannot change keeps being what it is.
        next.file = now.file.clone();
        next.state_dir = now.state_dir.clone();
        next.gateway = now.gateway;
        next.admin = now.admin.clone();
        next.registry = now.registry.clone();
        next.telemetry = now.telemetry.clone();
        next.host.hooks = now.host.hooks.clone();
        reloaded.needs_restart = fixed.into_iter().map(str::to_owned).collect();
        // Key sets in files are read here, so a bad one is told before anything has changed.
        let rules = self.server.rules_of(&next)?;
        let loads = [
            ("plugins", now.plugins != next.plugins),
            ("policy", now.policy != next.policy),
            ("host", now.host != next.host),
        ];
        let other = [
            ("users", self.server.changes_users(&rules)),
            ("gateway_limits", now.gateway_limits != next.gateway_limits),
        ];
        let differs = loads.iter().chain(&other).filter(|(_, differs)| *differs);
        reloaded.applied = differs.map(|(section, _)| (*section).to_owned()).collect();
        let next = Arc::new(next);
        if loads.iter().any(|(_, differs)| *differs) {
            self.load_by(&now, &next).await?;
        } else {
            self.config.store(next);
        }
        self.server.change(rules);
        reloaded.generation = self.last().generation;
        tracing::info!(
            applied = reloaded.applied.join(", "),
            needs_restart = reloaded.needs_restart.join(", "),
            "the configuration was read anew"
        );
        Ok(reloaded)
    }

    /// Loads what another configuration wants, and puts that one in force if it can be loaded.
    async fn load_by(
        self: &Arc<Self>,
        now: &Arc<Config>,
        next: &Arc<Config>,
    ) -> Result<Synced, Error> {
        let options = Options { offline: self.offline, ..Options::default() };
        // Other releases are a word of the operator's to leave what was gone back to; other
        // settings for the same ones are not.
        let prefers = |config: &Config| config.host.component.prefer;
        let chooses = now.plugins != next.plugins
            || now.policy != next.policy
            || prefers(now) != prefers(next);
        // Plugins may send requests while they are made.
        self.resources.send_by(&next.host.grants.outbound);
        let outcome = self.sync_in_turn(next, options, chooses, true).await;
        if outcome.is_ok() {
            self.config.store(next.clone());
        } else {
            self.resources.send_by(&now.host.grants.outbound);
        }
        self.end_sync(options, outcome).await
    }
}

/// Sections that differ and cannot change while the agent runs.
fn differing(now: &Config, next: &Config) -> BTreeSet<&'static str> {
    let registry = |config: &Config| {
        let registry = &config.registry;
        let keys: Vec<String> = registry.keys.iter().map(ToString::to_string).collect();
        (registry.url.clone(), registry.origin.clone(), registry.root.clone(), keys)
    };
    let differs = [
        ("state_dir", now.state_dir != next.state_dir),
        ("gateway", now.gateway != next.gateway),
        ("admin", now.admin != next.admin),
        ("registry", registry(now) != registry(next)),
        ("telemetry", now.telemetry != next.telemetry),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(section, _)| section).collect()
}
