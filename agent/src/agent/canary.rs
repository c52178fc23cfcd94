//! Changes that are tried: what a new generation changes runs beside what it replaces, and is
//! promoted or rolled back.
//!
//! The generation that serves stays the current one on the disk, so a process that is started
//! anew begins with it, and then with the trial from its beginning. Where a generation changes
//! more than what is tried, the rest is changed at once, and what serves is a generation of its
//! own, mixed of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use modunest_core::name::PluginName;

use super::{Inner, STOP_TIMEOUT};
use crate::config::{CanaryRule, Config};
use crate::embed::Event;
use crate::host::{
    Cell, Decision, Hindrance, Host, NotSwitched, NotTried, Plan, RolledBack, load_all, prepare,
};
use crate::store::{Condemned, Fresh, Generation, Proven, Tries};
use crate::sync::{Lock, clash, mixed};
use crate::{Error, blocking};

/// Plugins whose change is tried, and how.
type Held = BTreeMap<PluginName, CanaryRule>;

impl Inner {
    /// Takes a generation that was synced by this configuration into service, or what of it is
    /// not tried first. Answers the generation that serves then. Blocks.
    pub(super) fn take_in(
        &self,
        config: &Config,
        next: &Generation,
        proven: Vec<Proven>,
        fresh: Fresh,
    ) -> Result<u64, Error> {
        self.resume(config, next)?;
        let running = self.last().generation;
        if running.is_none_or(|running| running == next.number) {
            self.take_in_whole(config, next, proven, fresh)?;
            self.try_again(config)?;
            return Ok(next.number);
        }
        let running = self.syncer.generations().read(running.unwrap_or(next.number))?;
        let mut held = held(config, &running.lock, &next.lock);
        let host = self.host();
        held.retain(|name, _| host.cell(name).is_some_and(|old| old.status().state.serves()));
        self.end_trials(&host, "another generation changes it otherwise", |name, old| {
            let locked = next.lock.plugins.iter().find(|locked| locked.plugin == *name);
            let trial = old.trial();
            let is_wanted = trial.zip(locked).is_some_and(|(trial, locked)| {
                held.contains_key(name) && trial.is_of(locked.statement, locked.files)
            });
            !is_wanted
        });
        if held.is_empty() {
            self.take_in_whole(config, next, proven, fresh)?;
            self.forget_candidate()?;
            return Ok(next.number);
        }
        let names: BTreeSet<PluginName> = held.keys().cloned().collect();
        let lock = mixed(&next.lock, &running.lock, &names, config.plugins.keys());
        let (serving, tried) = self.parts(config, &lock, &running, next, proven)?;
        if let Some((plugin, why)) = clash(&serving, &tried) {
            self.syncer.serve_whole(&running)?;
            let reason = format!(
                "cannot be tried beside the release that runs: {why}; with share_percent = 0 \
                 under lifecycle.canary.plugins it is changed at once"
            );
            let error = NotSwitched { plugin, reason, hindrance: Hindrance::Next };
            return Err(Error::NotSwitched { generation: next.number, error });
        }
        let base = self.syncer.serve(lock, next, &running)?;
        if base.number != running.number {
            self.load(config, serving.clone(), Fresh::default(), base.number)?;
        }
        self.serves(config, base.number, Some(next.number))?;
        self.begin(config, serving, tried, &held, fresh)?;
        Ok(base.number)
    }

    /// Takes a generation into service of which nothing is tried first.
    fn take_in_whole(
        &self,
        config: &Config,
        next: &Generation,
        proven: Vec<Proven>,
        fresh: Fresh,
    ) -> Result<(), Error> {
        self.load(config, proven, fresh, next.number)?;
        let candidate = self.tries().candidate;
        let was_tried = candidate == Some(next.number);
        if was_tried {
            self.syncer.serve_whole(next)?;
        }
        self.serves(config, next.number, candidate.filter(|_| !was_tried)).map(drop)
    }

    /// At the first load of a process: what served before serves again, if what comes next is
    /// to be tried beside it.
    fn resume(&self, config: &Config, next: &Generation) -> Result<(), Error> {
        let (running, serving) = (self.last().generation, self.tries().serving);
        let serving = serving.filter(|number| *number != next.number && running.is_none());
        let Some(serving) = serving else { return Ok(()) };
        let generations = self.syncer.generations();
        if !generations.numbers()?.contains(&serving) {
            return Ok(());
        }
        let before = generations.read(serving)?;
        if held(config, &before.lock, &next.lock).is_empty() {
            return Ok(());
        }
        let loaded = self.syncer.prove(config, &before).map_err(Error::from);
        match loaded.and_then(|proven| self.load(config, proven, Fresh::default(), serving)) {
            Ok(()) => self.last().generation = Some(serving),
            // It was quarantined, or has lost a file: there is nothing to try a change beside.
            Err(error) => {
                tracing::error!(generation = serving, %error, "what served before does not any more; what comes next is not tried beside it");
            }
        }
        Ok(())
    }

    /// Begins again what an earlier process was trying, or what has lost the instance beside
    /// which it was tried.
    pub(super) fn try_again(&self, config: &Config) -> Result<(), Error> {
        let Some(next) = self.syncer.candidate(&self.tries())? else { return Ok(()) };
        let running = self.last().generation.filter(|number| *number != next.number);
        let Some(running) = running else { return Ok(()) };
        let running = self.syncer.generations().read(running)?;
        let held = held(config, &running.lock, &next.lock);
        if held.is_empty() {
            self.end_trials(&self.host(), "the configuration tries nothing any more", |_, _| true);
            return self.forget_candidate();
        }
        let proven = self.syncer.prove(config, &next)?;
        let (serving, tried) = self.parts(config, &running.lock, &running, &next, proven)?;
        self.begin(config, serving, tried, &held, Fresh::default())
    }

    /// The proven releases of `lock`, which is made of both generations, and those of `next`
    /// that are tried beside them, with all that only they use.
    fn parts(
        &self,
        config: &Config,
        lock: &Lock,
        running: &Generation,
        next: &Generation,
        proven: Vec<Proven>,
    ) -> Result<(Vec<Proven>, Vec<Proven>), Error> {
        let known = self.syncer.prove(config, running)?;
        let is = |one: &Proven, locked: &crate::sync::Locked| {
            one.statement == locked.statement && one.build.files == locked.files
        };
        let mut serving = Vec::with_capacity(lock.plugins.len());
        for locked in &lock.plugins {
            let mut all = known.iter().chain(&proven);
            serving.extend(all.find(|one| is(one, locked)).cloned());
        }
        let serves = |one: &Proven| lock.plugins.iter().any(|locked| is(one, locked));
        let of_next = |one: &Proven| next.lock.plugins.iter().any(|locked| is(one, locked));
        let tried = proven.iter().filter(|one| !serves(one) && of_next(one)).cloned().collect();
        Ok((serving, tried))
    }

    /// Loads what is tried, and gives it its share of the calls.
    fn begin(
        &self,
        config: &Config,
        serving: Vec<Proven>,
        tried: Vec<Proven>,
        held: &Held,
        fresh: Fresh,
    ) -> Result<(), Error> {
        let host = self.host();
        let is_tried_already = |one: &Proven| {
            let trial = host.cell(&one.release.plugin).and_then(|old| old.trial());
            trial.is_some_and(|trial| trial.is_of(one.statement, one.build.files))
        };
        let tried: Vec<Proven> = tried.into_iter().filter(|one| !is_tried_already(one)).collect();
        let replaced: BTreeSet<&PluginName> = tried.iter().map(|one| &one.release.plugin).collect();
        let all = serving.into_iter().filter(|one| !replaced.contains(&one.release.plugin));
        let all: Vec<Proven> = all.chain(tried.iter().cloned()).collect();
        let settings = &config.host;
        let prepared = prepare(self.syncer.store(), all, fresh);
        let plan = Plan::build(prepared, &config.plugins, settings, &self.resources, Some(&host));
        let beside = load_all(plan, settings);
        let is_new = |cell: &&Arc<Cell>| {
            !host.cell(cell.name()).is_some_and(|other| Arc::ptr_eq(other, cell))
        };
        let until = || Instant::now() + STOP_TIMEOUT;
        let alone = |cell: &&Arc<Cell>| host.cell(cell.name()).is_none();
        let company: Vec<Arc<Cell>> = beside.cells().filter(alone).cloned().collect();
        for cell in beside.cells().filter(is_new).filter(|cell| !alone(cell)) {
            let name = cell.name();
            let one = tried.iter().find(|one| one.release.plugin == *name);
            let (Some(old), Some(rule), Some(one)) = (host.cell(name), held.get(name), one) else {
                // It was not up, and was loaded again on the way.
                cell.clone().stop(until());
                continue;
            };
            match old.try_out(cell, *rule, &company, &host, &settings.lifecycle) {
                Ok(()) => {
                    let share_percent = rule.share_percent;
                    tracing::info!(plugin = %name, version = %cell.version(), beside = %old.version(), share_percent, "a change is being tried");
                    let (version, serving) = (cell.version(), old.version());
                    self.tell(&Event::TrialBegan { plugin: name, version, serving, share_percent });
                }
                // What it uses may have been stopped.
                Err(_) if self.is_over() => cell.clone().stop(until()),
                Err(NotTried::Unfit(reason)) => {
                    cell.clone().stop(until());
                    self.condemn(old, one, reason)?;
                }
                Err(NotTried::Later(reason)) => {
                    cell.clone().stop(until());
                    tracing::warn!(plugin = %name, version = %cell.version(), reason, "a change is not tried now; the next `modunest-agent sync --update` tries again");
                }
            }
        }
        // What began behind a stop is stopped by nobody else, and is tried again by the next process.
        if self.is_over() {
            host.stop_trials(until());
            company.into_iter().for_each(|cell| cell.stop(until()));
            return Err(Error::Stopping);
        }
        if !self.tries_any(&host) {
            company.into_iter().for_each(|cell| cell.stop(until()));
            self.forget_candidate()?;
        }
        Ok(())
    }

    fn tries_any(&self, host: &Host) -> bool {
        host.cells().any(|cell| cell.trial().is_some())
    }

    /// Whether this generation is one of which something is being tried.
    pub(super) fn is_tried(&self, number: u64) -> bool {
        self.tries().candidate == Some(number) && self.tries_any(&self.host())
    }

    /// Remembers that a release is not to be chosen any more.
    fn condemn(&self, old: &Cell, tried: &Proven, reason: String) -> Result<(), Error> {
        let (plugin, version) = (&tried.release.plugin, &tried.release.version);
        tracing::error!(%plugin, %version, serving = %old.version(), reason, "a change was rolled back");
        self.tell(&Event::TrialRolledBack { plugin, version, reason: &reason });
        let at = modunest_runtime::clock::now();
        let (version, statement) = (version.clone(), tried.statement);
        old.note_rolled_back(Some(RolledBack {
            version: version.clone(),
            at,
            reason: reason.clone(),
        }));
        let one = Condemned { plugin: plugin.clone(), version, statement, at, reason };
        self.change_tries(|tries| {
            tries
                .condemned
                .retain(|other| (&other.plugin, other.statement) != (&one.plugin, statement));
            tries.condemned.push(one);
        })
    }

    /// Ends trials that `is_to_end` says, without a word against what was tried.
    fn end_trials(
        &self,
        host: &Host,
        reason: &str,
        is_to_end: impl Fn(&PluginName, &Arc<Cell>) -> bool,
    ) {
        for old in host.cells().filter(|old| old.trial().is_some()) {
            if is_to_end(old.name(), old)
                && let Some(trial) = old.end_trial()
            {
                let (plugin, version) = (old.name(), trial.canary().version());
                tracing::warn!(%plugin, %version, reason, "a trial ended");
                self.tell(&Event::TrialEnded { plugin, version, reason });
                trial.stop(host, Some(old), STOP_TIMEOUT);
            }
        }
    }

    /// Ends all trials, because an operator goes elsewhere.
    pub(super) fn leave_trials(&self) -> Result<(), Error> {
        self.end_trials(&self.host(), "an operator went back to another generation", |_, _| true);
        self.forget_candidate()
    }

    /// Ends the trials of instances that `next` does not go on with.
    pub(super) fn end_lost_trials(&self, previous: &Host, next: &Host) {
        for old in previous.cells().filter(|old| old.trial().is_some()) {
            let new = next.cell(old.name());
            if new.is_some_and(|new| Arc::ptr_eq(new, old)) {
                continue;
            }
            if let Some(trial) = old.end_trial() {
                let (plugin, version) = (old.name(), trial.canary().version());
                let reason = "the instance beside it was replaced";
                tracing::warn!(%plugin, %version, reason, "a trial ended");
                self.tell(&Event::TrialEnded { plugin, version, reason });
                trial.stop(next, new, STOP_TIMEOUT);
            }
        }
    }

    /// Ends one trial for good.
    pub(super) fn roll_back(&self, plugin: &PluginName, reason: String) -> Result<(), Error> {
        let host = self.host();
        let old = host.cell(plugin).ok_or_else(|| Error::NoPlugin(plugin.clone()))?;
        let trial = old.end_trial().ok_or_else(|| Error::NoTrial(plugin.clone()))?;
        let tries = self.tries();
        let candidate = self.syncer.candidate(&tries)?;
        let of_trial = |locked: &&crate::sync::Locked| {
            locked.plugin == *plugin && trial.is_of(locked.statement, locked.files)
        };
        let locked = candidate.iter().flat_map(|one| &one.lock.plugins).find(of_trial);
        let condemned = match locked {
            None => {
                let version = trial.canary().version();
                self.tell(&Event::TrialEnded { plugin, version, reason: &reason });
                Ok(())
            }
            Some(locked) => {
                let version = trial.canary().version().clone();
                let at = modunest_runtime::clock::now();
                tracing::error!(%plugin, %version, serving = %old.version(), reason, "a change was rolled back");
                self.tell(&Event::TrialRolledBack { plugin, version: &version, reason: &reason });
                let noted = RolledBack { version: version.clone(), at, reason: reason.clone() };
                old.note_rolled_back(Some(noted));
                let (plugin, statement) = (plugin.clone(), locked.statement);
                let one = Condemned { plugin, version, statement, at, reason };
                self.change_tries(|tries| tries.condemned.push(one))
            }
        };
        trial.stop(&host, Some(old), STOP_TIMEOUT);
        condemned?;
        if self.tries_any(&host) { Ok(()) } else { self.forget_candidate() }
    }

    /// Lets what is tried take the place of what runs, as every other change. Where it is not for what
    /// is tried that this fails, its trial goes on.
    pub(super) fn promote(&self, plugin: &PluginName) -> Result<u64, Error> {
        let host = self.host();
        let old = host.cell(plugin).ok_or_else(|| Error::NoPlugin(plugin.clone()))?;
        let no_trial = || Error::NoTrial(plugin.clone());
        let trial = old.trial().ok_or_else(no_trial)?;
        let (config, tries) = (self.config(), self.tries());
        let candidate = self.syncer.candidate(&tries)?.ok_or_else(no_trial)?;
        let running = self.last().generation.ok_or(Error::NoGeneration)?;
        let running = self.syncer.generations().read(running)?;
        let mut held: BTreeSet<PluginName> =
            changed(&running.lock, &candidate.lock).cloned().collect();
        held.remove(plugin);
        let lock = mixed(&candidate.lock, &running.lock, &held, config.plugins.keys());
        let next = self.syncer.serve(lock, &candidate, &running)?;
        old.end_trial();
        let proven = self.syncer.prove(&config, &next).map_err(Error::from);
        let loaded =
            proven.and_then(|proven| self.load(&config, proven, Fresh::default(), next.number));
        if loaded.is_ok() {
            self.last().generation = Some(next.number);
        }
        if let Err(error) = &loaded
            && !error.is_of_next()
            && !self.is_over()
        {
            old.resume_trial(trial);
            self.syncer.serve_whole(&running)?;
            return loaded.map(|()| next.number);
        }
        let now = self.host();
        trial.stop(&now, now.cell(plugin), STOP_TIMEOUT);
        let version = trial.canary().version();
        if let Err(error) = loaded {
            let reason = format!("it could not be promoted: {error}");
            self.tell(&Event::TrialEnded { plugin, version, reason: &reason });
            self.syncer.serve_whole(&running)?;
            return Err(error);
        }
        tracing::info!(%plugin, %version, generation = next.number, "a change was promoted");
        self.tell(&Event::TrialPromoted { plugin, version });
        self.change_tries(|tries| tries.condemned.retain(|one| one.plugin != *plugin))?;
        let candidate = self.tries_any(&now).then_some(candidate.number);
        self.serves(&config, next.number, candidate)
    }

    /// Lets a release be tried again that was rolled back. Answers whether there was one.
    pub(super) fn forgive(&self, plugin: &PluginName) -> Result<bool, Error> {
        let mut found = false;
        self.change_tries(|tries| {
            let before = tries.condemned.len();
            tries.condemned.retain(|one| one.plugin != *plugin);
            found = tries.condemned.len() < before;
        })?;
        if let Some(cell) = self.host().cell(plugin) {
            cell.note_rolled_back(None);
        }
        Ok(found)
    }

    /// Does what the looks at a trial came to.
    pub(super) async fn settle(self: Arc<Self>, plugin: PluginName, decision: Decision) {
        let Ok(_turn) = self.turn().await else { return };
        let (this, name) = (self.clone(), plugin.clone());
        let settled = blocking::run(move || match decision {
            Decision::GoOn => Ok(()),
            Decision::RollBack(reason) => this.roll_back(&name, reason),
            Decision::Promote => match this.promote(&name) {
                Ok(_) => Ok(()),
                Err(error) if error.is_of_next() => this.condemn_candidate(&name, &error),
                Err(error) => {
                    if let Some(trial) = this.host().cell(&name).and_then(|old| old.trial()) {
                        trial.postpone(Instant::now());
                    }
                    Err(error)
                }
            },
        });
        let settled = settled.await.map_err(Error::from).flatten();
        // Another one may have been faster.
        if let Err(error) = settled
            && !matches!(error, Error::NoTrial(_))
        {
            tracing::error!(%plugin, %error, "a trial could not be settled");
        }
    }

    /// A release that did well as long as it was tried, and could not take over.
    fn condemn_candidate(&self, plugin: &PluginName, error: &Error) -> Result<(), Error> {
        let host = self.host();
        let Some(candidate) = self.syncer.candidate(&self.tries())? else { return Ok(()) };
        let proven = self.syncer.prove(&self.config(), &candidate)?;
        let one = proven.iter().find(|one| one.release.plugin == *plugin);
        if let (Some(old), Some(one)) = (host.cell(plugin), one) {
            self.condemn(old, one, format!("could not be promoted: {error}"))?;
        }
        if self.tries_any(&host) { Ok(()) } else { self.forget_candidate() }
    }

    /// Rolls back what the registry does not let run any more.
    pub(super) fn heed_trials(&self, condemned: &BTreeMap<PluginName, String>) {
        let host = self.host();
        self.end_trials(&host, "its release may not run any more", |name, _| {
            condemned.contains_key(name)
        });
    }

    /// Remembers which generation serves, and which one is tried beside it.
    pub(super) fn serves(
        &self,
        config: &Config,
        number: u64,
        candidate: Option<u64>,
    ) -> Result<u64, Error> {
        let mut condemned = Vec::new();
        if config.host.lifecycle.canary.tries_any() || self.tries() != Tries::default() {
            self.change_tries(|tries| {
                (tries.serving, tries.candidate) = (Some(number), candidate);
                condemned = tries.condemned.clone();
            })?;
        }
        self.last().generation = Some(number);
        let host = self.host();
        for Condemned { plugin, version, at, reason, .. } in condemned {
            let noted = RolledBack { version: version.clone(), at, reason };
            if let Some(cell) = host.cell(&plugin).filter(|cell| *cell.version() != version) {
                cell.note_rolled_back(Some(noted));
            }
        }
        Ok(number)
    }

    /// No trial goes on: its generation is no longer one to be gone to.
    fn forget_candidate(&self) -> Result<(), Error> {
        let Some(number) = self.tries().candidate else { return Ok(()) };
        self.change_tries(|tries| tries.candidate = None)?;
        let generations = self.syncer.generations();
        let current = generations.current()?.map(|current| current.number);
        if ![current, generations.pinned()?, self.last().generation].contains(&Some(number)) {
            generations.remove(number)?;
        }
        Ok(())
    }

    /// What is remembered of trials.
    pub(super) fn tries(&self) -> Tries {
        self.tries.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn change_tries(&self, change: impl FnOnce(&mut Tries)) -> Result<(), Error> {
        let mut tries = self.tries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut next = tries.clone();
        change(&mut next);
        if *tries != next {
            next.write(&self.config().state_dir)?;
            *tries = next;
        }
        Ok(())
    }
}

/// Plugins that both have, in other releases or builds.
fn changed<'l>(running: &'l Lock, next: &'l Lock) -> impl Iterator<Item = &'l PluginName> {
    let is_changed = |locked: &&crate::sync::Locked| {
        let mut others = running.plugins.iter().filter(|other| other.plugin == locked.plugin);
        let same = (locked.statement, locked.files);
        others.any(|other| (other.statement, other.files) != same)
    };
    next.plugins.iter().filter(is_changed).map(|locked| &locked.plugin)
}

fn held(config: &Config, running: &Lock, next: &Lock) -> Held {
    let rules = &config.host.lifecycle.canary;
    let names = changed(running, next);
    names.filter_map(|name| Some((name.clone(), rules.rule(name)?))).collect()
}
