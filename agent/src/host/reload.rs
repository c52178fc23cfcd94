//! From one set of plugins to the next while calls come in.
//!
//! The next set is loaded beside the running one. Plugins that keep state (`[state]` in the
//! manifest) are held then: their calls wait, the running ones end, the snapshot of the old
//! instance is restored into the new one, which is asked after its health, and the calls that
//! waited go on there. All others are replaced without a pause. Whoever still has a reference
//! to an old instance is sent on to its successor, so no call fails because of a switch.
//!
//! Nothing is lost by a switch that does not come about: the old instances go on. After one
//! that did, they are kept for a while, so that going back is another switch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use modunest_core::manifest::Manifest;
use modunest_core::name::PluginName;
use modunest_sdk::Error;

use super::{Cell, Host, State};
use crate::config::LifecycleSettings;

/// How long who cannot be reached is left alone before it is asked again.
const AGAIN: Duration = Duration::from_millis(20);

/// What becomes of an instance's state when another release takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// There is none, or the new release keeps none.
    Nothing,
    /// It is restored into the new instance.
    Restore,
    /// The new release keeps state and cannot take over the old one's.
    Refused,
}

/// Decides from what both manifests say of their state.
pub fn takeover(old: &Manifest, new: &Manifest) -> Takeover {
    match (&old.state, &new.state) {
        (Some(old), Some(new)) if new.accepts.contains(&old.version) => Takeover::Restore,
        (Some(_), Some(_)) => Takeover::Refused,
        (Some(_) | None, None) | (None, Some(_)) => Takeover::Nothing,
    }
}

/// What stands in the way where a state cannot be taken over.
pub(super) fn refused_state(old: &Manifest, new: &Manifest) -> String {
    let version = old.state.as_ref().map_or(0, |state| state.version);
    let accepts = new.state.as_ref().map(|state| state.accepts.clone()).unwrap_or_default();
    format!(
        "accepts states of version {accepts:?}, and what runs keeps version {version}; \
         publish a release that migrates, or restart the agent to begin without it"
    )
}

/// What stood in the way of a switch, as far as another try is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The next set itself, which will do no better next time.
    Next,
    /// What runs did not let go of its state: calls did not end, or its snapshot was not had. Each
    /// try costs those calls a pause.
    Running,
    /// Something that has passed by the next try.
    Passing,
}

/// Why a set of plugins was not switched to. What ran before goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{plugin}: {reason}")]
pub struct NotSwitched {
    /// The plugin that stood in the way.
    pub plugin: PluginName,
    /// Why.
    pub reason: String,
    /// What another try may come to.
    pub hindrance: Hindrance,
}

/// A plugin of the next set, and the one in whose place it comes.
struct Pair<'h> {
    old: &'h Arc<Cell>,
    new: &'h Arc<Cell>,
    /// Whether the old one's state is handed over.
    restores: bool,
}

/// Switches from `previous` to `next`, which is loaded. Blocks for as long as the states take.
///
/// # Errors
/// What stood in the way. `previous` serves then as before, and `next` is to be stopped.
pub fn switch(
    previous: &Host,
    next: &Host,
    settings: &LifecycleSettings,
) -> Result<(), NotSwitched> {
    let pairs = pairs(previous, next)?;
    // What is lost by the new set is not lost quietly.
    let until = Instant::now() + settings.drain_timeout;
    for pair in &pairs {
        let state = pair.new.status().state;
        if !matches!(state, State::Idle) {
            asked_after_health(pair, until)?;
        }
    }
    let held = pairs.iter().filter(|pair| pair.restores);
    // Users before what they use: a call that still runs may need what is held next.
    let held: Vec<&Pair<'_>> = held.collect::<Vec<_>>().into_iter().rev().collect();
    if let Err(error) = hand_over(&held, settings) {
        held.iter().for_each(|pair| pair.old.release_calls());
        return Err(error);
    }
    for cell in next.cells() {
        cell.relink(next);
        if let Some(trial) = cell.trial() {
            trial.relink(next);
        }
    }
    for pair in &pairs {
        if pair.old.is_worn() {
            pair.new.go_on_from(pair.old);
        }
        pair.new.take_over();
        pair.old.stand_by(pair.new);
    }
    let until = Instant::now() + settings.keep_old;
    let spent = previous.take_standby();
    let mut standby: Vec<_> =
        spent.into_iter().filter(|(cell, _)| cell.status().state == State::Standby).collect();
    standby.extend(pairs.iter().map(|pair| (pair.old.clone(), until)));
    next.keep_standby(standby);
    // Those that were opened by their load have been told by it.
    for pair in pairs.iter().filter(|pair| pair.new.inherits()) {
        pair.new.tell_loaded();
    }
    Ok(())
}

fn not(pair: &Pair<'_>, hindrance: Hindrance, reason: String) -> NotSwitched {
    NotSwitched {
        plugin: pair.new.name().clone(),
        reason: format!("{} {reason}", pair.new.version()),
        hindrance,
    }
}

/// Every plugin that takes the place of a serving one, dependencies first.
fn pairs<'h>(previous: &'h Host, next: &'h Host) -> Result<Vec<Pair<'h>>, NotSwitched> {
    let mut pairs = Vec::new();
    for name in next.order() {
        let (Some(old), Some(new)) = (previous.cell(name), next.cell(name)) else { continue };
        if Arc::ptr_eq(old, new) || !old.status().state.serves() {
            continue;
        }
        let state = new.status().state;
        let takeover = match takeover(old.manifest(), new.manifest()) {
            // Going back is always possible: it goes on with the state that it had.
            Takeover::Refused if state == State::Standby => {
                tracing::warn!(plugin = %name, version = %new.version(), "goes back to the state that it had");
                Takeover::Nothing
            }
            other => other,
        };
        // Without an instance there is no state.
        let loaded = !matches!(old.status().state, State::Idle | State::Activating);
        let loaded = loaded && !old.is_worn();
        let pair = Pair { old, new, restores: takeover == Takeover::Restore && loaded };
        if takeover == Takeover::Refused && loaded {
            let reason = refused_state(old.manifest(), new.manifest());
            return Err(not(&pair, Hindrance::Next, reason));
        }
        if pair.restores && state == State::Idle {
            let reason = "cannot take over: it was first used just now; the next try will do";
            return Err(not(&pair, Hindrance::Passing, reason.to_owned()));
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

/// Holds all of them, then hands their states over, in the opposite order.
fn hand_over(held: &[&Pair<'_>], settings: &LifecycleSettings) -> Result<(), NotSwitched> {
    let until = Instant::now() + settings.drain_timeout;
    for pair in held {
        pair.old.hold_calls(until).map_err(|calls| {
            let limit = settings.drain_timeout.as_millis();
            let reason = format!("cannot take over: {calls} calls did not end within {limit} ms");
            not(pair, Hindrance::Running, reason)
        })?;
    }
    for pair in held.iter().rev() {
        let failed = move |by| move |error| not(pair, by, format!("cannot take over: {error}"));
        let snapshot = until_reached(until, || pair.old.snapshot());
        let snapshot = snapshot.map_err(failed(Hindrance::Running))?;
        let restored = until_reached(until, || pair.new.restore(snapshot.clone()));
        restored.map_err(failed(Hindrance::Next))?;
        asked_after_health(pair, until)?;
    }
    Ok(())
}

fn asked_after_health(pair: &Pair<'_>, until: Instant) -> Result<(), NotSwitched> {
    until_reached(until, || pair.new.health())
        .map_err(|error| not(pair, Hindrance::Next, format!("is not healthy: {error}")))
}

/// Asks until it is answered, or until then. The process of an instance may have ended a moment
/// ago: it is started anew, and a switch that meets it on its way up waits for it.
fn until_reached<T>(until: Instant, mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    loop {
        match ask() {
            Err(Error::Unavailable(_)) if Instant::now() + AGAIN < until => {
                std::thread::sleep(AGAIN);
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_is_on_the_way_up_is_asked_again_and_whoever_refuses_is_not() {
        let soon = || Instant::now() + Duration::from_secs(60);
        let (starting, failed) =
            (Error::Unavailable("starting".to_owned()), Error::Failed("no".to_owned()));
        let mut answers = vec![Ok(7), Err(starting.clone()), Err(starting.clone())];
        assert_eq!(until_reached(soon(), || answers.pop().unwrap()), Ok(7));
        let mut answers = vec![Ok(7), Err(failed.clone()), Err(starting.clone())];
        assert_eq!(until_reached(soon(), || answers.pop().unwrap()), Err(failed));
        assert_eq!(answers.len(), 1);
        let mut answers = vec![Ok(7), Err(starting.clone())];
        assert_eq!(until_reached(Instant::now(), || answers.pop().unwrap()), Err(starting));
    }

    fn manifest(state: &str) -> Manifest {
        Manifest::parse(&format!(
            "[plugin]\nname = \"demo/counter\"\nversion = \"1.0.0\"\ndescription = \"A plugin for tests\"\nauthors = [\"Ada\"]\nlicense = \"MIT\"\n[host]\nabi = 1\n{state}"
        ))
        .unwrap()
    }

    #[test]
    fn states_are_taken_over_where_they_fit() {
        let none = manifest("");
        let one = manifest("[state]\nversion = 1\n");
        let two = manifest("[state]\nversion = 2\naccepts = [1]\n");
        let three = manifest("[state]\nversion = 3\naccepts = [2]\n");
        for (old, new, expected) in [
            (&none, &none, Takeover::Nothing),
            (&none, &one, Takeover::Nothing),
            (&one, &none, Takeover::Nothing),
            (&one, &one, Takeover::Restore),
            (&one, &two, Takeover::Restore),
            (&two, &three, Takeover::Restore),
            (&one, &three, Takeover::Refused),
            (&two, &one, Takeover::Refused),
        ] {
            assert_eq!(takeover(old, new), expected);
        }
    }
}
