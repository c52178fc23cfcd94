//! Looking for news, and taking them in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::sync::watch;

use super::pause::Pause;
use super::turn::{to_the_end, told};
use super::{Inner, STOP_TIMEOUT, Synced};
use crate::config::Config;
use crate::status::LastSync;
use crate::sync::{Options, Outcome, age_text};
use crate::{Error, blocking};

/// Pause before the second try of a sync that never succeeded; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

impl Inner {
    pub(super) async fn look_for_news(
        self: Arc<Self>,
        options: Options,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut pause = FIRST_PAUSE;
        loop {
            let every = self.config().host.check_every;
            // An agent that runs nothing yet tries more often, for registries that start
            // together with it.
            let wait = if self.last().generation.is_none() { pause.min(every) } else { every };
            pause = pause.saturating_mul(2);
            tokio::select! {
                () = told(&mut stopped) => return,
                () = tokio::time::sleep(wait) => {}
            }
            // Whoever stops waits for the end of what is being loaded.
            tokio::select! {
                () = told(&mut stopped) => return,
                synced = to_the_end(self.clone().look(options)) => if let Err(error) = synced {
                    tracing::warn!(%error, "looking for news failed; what runs goes on");
                }
            }
        }
    }

    /// Looks for news once, without anybody's word.
    pub(super) async fn look(self: Arc<Self>, options: Options) -> Result<Synced, Error> {
        self.sync(options, false).await
    }

    /// Syncs, and loads a generation that does not run yet. One that was gone back to is only
    /// left by an `explicit` sync. Releases that may not run any more are dealt with in any
    /// case, also where there is nothing to take their place.
    pub(crate) async fn sync(
        self: &Arc<Self>,
        options: Options,
        explicit: bool,
    ) -> Result<Synced, Error> {
        let context = modunest_runtime::trace::root();
        modunest_runtime::trace::scope(context, "sync", async {
            let _turn = self.turn().await?;
            let options = Options { offline: options.offline || self.offline, ..options };
            let config = self.config();
            let outcome = self.sync_in_turn(&config, options, explicit, false).await;
            self.end_sync(options, outcome).await
        })
        .await
    }

    /// What follows a sync, however it ended. By whoever has the turn.
    pub(super) async fn end_sync(
        self: &Arc<Self>,
        options: Options,
        outcome: Result<Synced, Error>,
    ) -> Result<Synced, Error> {
        if !options.offline
            && let Err(error) = self.heed().await
            && !matches!(error, Error::Stopping)
        {
            tracing::error!(%error, "what the registry says of running releases is not known");
        }
        let mut last = self.last();
        last.settled = true;
        last.sync = Some(LastSync {
            at: modunest_runtime::clock::now().to_string(),
            error: outcome.as_ref().err().map(ToString::to_string),
            offline: outcome.as_ref().ok().and_then(|synced| synced.offline.clone()),
        });
        outcome
    }

    /// Syncs by this configuration, by whoever has the turn. With `anew`, the generation that
    /// runs is loaded again: another configuration of the same releases is another set of plugins.
    pub(super) async fn sync_in_turn(
        self: &Arc<Self>,
        config: &Arc<Config>,
        options: Options,
        explicit: bool,
        anew: bool,
    ) -> Result<Synced, Error> {
        let is_pinned = !explicit && self.syncer.generations().pinned()?.is_some();
        let outcome = if is_pinned && !options.offline {
            self.unless_stopped(self.syncer.stay(config)).await??
        } else {
            let progress = ProgressBar::hidden();
            self.unless_stopped(self.syncer.sync(config, options, &progress)).await??
        };
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
        if running == Some(generation.number) && !anew {
            return Ok(Synced { generation: generation.number, changed: false, offline });
        }
        // What is being tried is no news, and does not run yet.
        if let Some(running) = running.filter(|_| !anew && self.is_tried(generation.number)) {
            return Ok(Synced { generation: running, changed: false, offline });
        }
        // Whoever asks for it has it tried at once.
        if !explicit && !anew {
            let now = Instant::now();
            let last = self.last();
            if let Some(error) = last.paused.as_ref().and_then(|p| p.holds(generation.number, now))
            {
                return Err(error);
            }
        }
        let (this, config) = (self.clone(), config.clone());
        let take_in = move || {
            let number = generation.number;
            let taken = this.take_in(&config, &generation, proven, fresh);
            let mut last = this.last();
            last.paused = Pause::behind(last.paused.take(), number, &taken, Instant::now());
            drop(last);
            taken
        };
        let number = blocking::run(take_in).await??;
        let changed = running != Some(number) || anew;
        Ok(Synced { generation: number, changed, offline })
    }

    /// Asks what the registry says now of the releases that run, if it has said anything new,
    /// and does by the operator's policy what is to be done.
    async fn heed(self: &Arc<Self>) -> Result<(), Error> {
        let Some(number) = self.last().generation else { return Ok(()) };
        let index = self.syncer.client().kept_head().map(|head| head.index);
        let key = (index, number);
        if self.last().heeded == Some(key) {
            return Ok(());
        }
        let this = self.clone();
        let read = move || this.syncer.generations().read(number);
        let generation = blocking::run(read).await??;
        let config = self.config();
        let asked = self.syncer.condemned(&config, &generation.lock);
        let condemned = self.unless_stopped(asked).await??;
        if let Some(candidate) = self.syncer.candidate(&self.tries())? {
            let asked = self.syncer.condemned(&config, &candidate.lock);
            let tried = self.unless_stopped(asked).await??;
            let this = self.clone();
            blocking::run(move || this.heed_trials(&tried)).await?;
        }
        let (host, policy) = (self.host.load_full(), config.host.lifecycle.on_quarantine);
        let this = self.clone();
        let again = blocking::run(move || {
            let is_freed = host.heed(&condemned, policy, STOP_TIMEOUT);
            this.last().heeded = Some(key);
            is_freed
        });
        if again.await? {
            let this = self.clone();
            blocking::run(move || this.load_again()).await??;
        }
        Ok(())
    }
}
