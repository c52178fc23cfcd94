//! What is looked after while plugins run: their health, their schedules, their private folders,
//! those that have failed, and instances that were replaced.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use modunest_core::name::{PluginName, ServiceName};
use modunest_core::time::Timestamp;
use modunest_sdk::abi::RequestKind;
use tokio::sync::watch;

use super::retries::Retries;
use super::turn::told;
use super::{Inner, STOP_TIMEOUT};
use crate::blocking;
use crate::clib;
use crate::host::drive::drive;
use crate::host::{Cell, Decision, Host, OwnedCall};

/// How often is looked. Schedules have minutes, health has seconds.
const EVERY: Duration = Duration::from_secs(1);
/// How often memory is given back to the system, where anything left some behind.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);
/// Minutes that are made up for after a pause, such as a laptop's sleep: the last one only.
const MINUTES_MADE_UP: u64 = 1;

/// Schedules that are being served: the next turn of one that takes long is left out.
type Running = Arc<Mutex<BTreeSet<(PluginName, ServiceName)>>>;
/// Plugins whose trial is being ended, which takes longer than from one look to the next.
type Settling = Arc<Mutex<BTreeSet<PluginName>>>;

impl Inner {
    pub(super) async fn keep_up(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let running = Running::default();
        let settling = Settling::default();
        let mut retries = Retries::default();
        let mut minute = modunest_runtime::clock::now().as_secs() / 60;
        let (mut given_back, mut left_behind) = (Instant::now(), false);
        loop {
            tokio::select! {
                () = told(&mut stopped) => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let host = self.host.load_full();
            self.clone().ask_after_health(&host);
            self.look_after_trials(&settling, &host);
            self.look_after_failed(&mut retries, &host);
            let now = modunest_runtime::clock::now().as_secs() / 60;
            for due in minutes(minute, now) {
                let at = Timestamp::from_millis(due * 60_000);
                for (cell, name) in due_schedules(&host, at) {
                    self.serve_schedule(&running, cell, name, at);
                }
            }
            minute = now;
            let swept = blocking::run(move || host.stop_spent(Instant::now(), STOP_TIMEOUT));
            match swept.await {
                Ok(any) => left_behind |= any,
                Err(error) => tracing::warn!(%error, "replaced instances were not stopped"),
            }
            if left_behind && given_back.elapsed() >= GIVE_BACK_EVERY {
                (given_back, left_behind) = (Instant::now(), false);
                if let Err(error) = blocking::run(clib::give_back).await {
                    tracing::warn!(%error, "memory was not given back");
                }
            }
        }
    }

    /// Looks into folders that plugins write to by themselves. Apart from the rest, since it takes
    /// as long as there are many files.
    pub(super) async fn watch_folders(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut last = None;
        loop {
            tokio::select! {
                () = told(&mut stopped) => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let host = self.host.load_full();
            let from = last.take();
            let look = move || host.look_into_folders(from.as_ref(), Instant::now());
            match blocking::run(look).await {
                Ok(next) => last = next,
                Err(error) => tracing::warn!(%error, "nobody looked into private folders"),
            }
        }
    }

    fn ask_after_health(self: Arc<Self>, host: &Host) {
        let runtime = tokio::runtime::Handle::current();
        let restart = move |cell: &Arc<Cell>, reason: &str| {
            let restarted = runtime.block_on(self.restart(cell.name(), reason));
            match restarted {
                Ok(()) => tracing::warn!(plugin = %cell.name(), reason, "restarted"),
                Err(error) => {
                    tracing::error!(plugin = %cell.name(), %error, "not restarted");
                }
            }
        };
        host.ask_after_health(Instant::now(), &restart);
    }

    fn look_after_trials(self: &Arc<Self>, settling: &Settling, host: &Host) {
        for old in host.cells() {
            let Some(trial) = old.trial() else { continue };
            let decision = trial.decide(old);
            let plugin = old.name().clone();
            if decision == Decision::GoOn || !lock(settling).insert(plugin.clone()) {
                continue;
            }
            let (this, settling) = (self.clone(), settling.clone());
            tokio::spawn(async move {
                this.settle(plugin.clone(), decision).await;
                lock(&settling).remove(&plugin);
            });
        }
    }

    /// Loads plugins anew whose load has failed, once it is time, and with them those that could not
    /// be without them. What serves is left alone.
    fn look_after_failed(self: &Arc<Self>, retries: &mut Retries, host: &Host) {
        let settings = self.config().host.lifecycle.retry;
        if !retries.are_due(Instant::now(), &host.failed(), &settings) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            let Ok(_turn) = this.turn().await else { return };
            // Meanwhile a sync may have loaded them.
            let failed = this.host().failed();
            if failed.is_empty() {
                return;
            }
            let names: Vec<&str> = failed.iter().map(PluginName::as_str).collect();
            tracing::info!(plugins = names.join(", "), "what has failed is loaded anew");
            let loading = this.clone();
            let loaded = blocking::run(move || loading.load_again()).await;
            if let Err(error) = loaded.map_err(crate::Error::from).flatten() {
                tracing::warn!(%error, "what has failed was not loaded anew");
            }
        });
    }

    fn serve_schedule(&self, running: &Running, cell: Arc<Cell>, name: ServiceName, at: Timestamp) {
        let key = (cell.name().clone(), name);
        if !lock(running).insert(key.clone()) {
            tracing::warn!(plugin = %key.0, schedule = %key.1, "its last turn has not ended, so this one is left out");
            return;
        }
        let running = running.clone();
        let deadline_ms =
            modunest_runtime::clock::now().plus(self.config().host.call_timeout).as_millis();
        tokio::spawn(async move {
            let call = OwnedCall {
                kind: RequestKind::Event,
                target: key.1.to_string(),
                payload: serde_json::json!({ "at": at.to_string() }).to_string().into_bytes(),
                trace: modunest_runtime::trace::root().to_string(),
                caller: String::new(),
                deadline_ms,
            };
            let answer = drive(cell.call_async(call), None).await;
            if let Err(error) = answer {
                tracing::warn!(plugin = %key.0, schedule = %key.1, %error, "a schedule failed");
            }
            lock(&running).remove(&key);
        });
    }
}

/// Minutes that have begun since `last`.
fn minutes(last: u64, now: u64) -> std::ops::RangeInclusive<u64> {
    (last + 1).max(now.saturating_sub(MINUTES_MADE_UP - 1))..=now
}

/// Schedules whose minute this is.
fn due_schedules(host: &Host, at: Timestamp) -> Vec<(Arc<Cell>, ServiceName)> {
    let serving = host.cells().filter(|cell| cell.keeps_schedules());
    let all = serving.flat_map(|cell| {
        let schedules = cell.manifest().schedules.iter();
        schedules.map(move |schedule| (cell, schedule))
    });
    let due = all.filter(|(_, schedule)| schedule.cron.is_due(at));
    due.map(|(cell, schedule)| (cell.clone(), schedule.name.clone())).collect()
}

/// What it holds is never left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::minutes;

    #[test]
    fn every_minute_has_one_turn_and_a_pause_is_not_made_up_for() {
        let all = |last, now| minutes(last, now).collect::<Vec<_>>();
        assert!(all(7, 7).is_empty());
        assert_eq!(all(7, 8), [8]);
        assert_eq!(all(7, 99), [99]);
        // A clock that was set back.
        assert!(all(7, 3).is_empty());
    }
}
