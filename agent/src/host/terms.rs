//! Under which settings an instance was made.

use std::sync::Arc;
use std::time::Duration;

use modunest_core::manifest::Manifest;
use modunest_core::statement::TrustLevel;

use super::{Tier, component};
use crate::config::{
    CanarySettings, HostSettings, LifecycleSettings, OnQuarantine, ProcessSettings, RetrySettings,
};

/// Where an instance runs and under which settings it was made, as far as it keeps them for as
/// long as it lives: under others, another instance takes its place. What is read whenever it is
/// needed (links, trials, quarantine, requests out) is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// Nothing for a plugin that may not run anywhere.
    tier: Option<Tier>,
    load_timeout: Duration,
    lifecycle: Arc<LifecycleSettings>,
    component: Option<Box<component::Settings>>,
    process: Option<Box<ProcessTerms>>,
}

/// What a plugin's process was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ProcessTerms {
    settings: ProcessSettings,
    call_timeout: Duration,
    /// Where it may share its process: that is with plugins of its own level.
    trust: Option<TrustLevel>,
}

impl Terms {
    /// Those of a plugin of a trust level in a tier, which has so long to load.
    pub(super) fn of(
        manifest: &Manifest,
        tier: Option<Tier>,
        trust: TrustLevel,
        load_timeout: Duration,
        (settings, kept): (&HostSettings, &Kept),
    ) -> Self {
        let name = &manifest.name;
        let is_component = matches!(tier, Some(Tier::Component | Tier::ComponentProcess));
        let is_confined = tier.is_some_and(Tier::is_confined);
        Terms {
            tier,
            load_timeout,
            lifecycle: if manifest.critical { &kept.critical } else { &kept.other }.clone(),
            component: is_component
                .then(|| Box::new(component::Settings::of(name, load_timeout, settings))),
            process: is_confined.then(|| {
                let mut process = settings.process.clone();
                // Other groups are no matter of this plugin.
                let group = process.group_of(name);
                process.share = group.map(|at| process.share.swap_remove(at)).into_iter().collect();
                let trust = group.map(|_| trust);
                let call_timeout = settings.call_timeout;
                Box::new(ProcessTerms { settings: process, call_timeout, trust })
            }),
        }
    }

    /// How far a plugin is trusted that may share its process.
    pub(super) fn trust(&self) -> TrustLevel {
        self.process.as_ref().and_then(|process| process.trust).unwrap_or_default()
    }

    /// Where it runs, or was to run.
    pub(super) fn tier(&self) -> Option<Tier> {
        self.tier
    }
}

/// What instances keep of `[lifecycle]`: made once, for all of a plan.
pub(super) struct Kept {
    critical: Arc<LifecycleSettings>,
    other: Arc<LifecycleSettings>,
}

impl Kept {
    pub(super) fn of(lifecycle: &LifecycleSettings) -> Self {
        let one = |is_critical| Arc::new(kept(lifecycle, is_critical));
        Kept { critical: one(true), other: one(false) }
    }
}

/// What an instance keeps of it, one that is critical or another.
fn kept(lifecycle: &LifecycleSettings, is_critical: bool) -> LifecycleSettings {
    let LifecycleSettings { breaker, critical_breaker, .. } = *lifecycle;
    let breaker = if is_critical { critical_breaker } else { breaker };
    LifecycleSettings {
        breaker,
        critical_breaker: breaker,
        // What the plugin has of it is among the terms.
        load_timeout_max: Duration::ZERO,
        // Of a switch, not of an instance.
        drain_timeout: Duration::ZERO,
        keep_old: Duration::ZERO,
        // Of the next instance.
        retry: RetrySettings::default(),
        canary: CanarySettings::default(),
        on_quarantine: OnQuarantine::Unload,
        ..lifecycle.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn terms(tier: Tier, change: impl FnOnce(&mut HostSettings)) -> Terms {
        let mut settings = HostSettings::default();
        change(&mut settings);
        let manifest = super::super::tests::manifest("demo/one", "");
        let kept = Kept::of(&settings.lifecycle);
        let second = Duration::from_secs(1);
        Terms::of(&manifest, Some(tier), TrustLevel::Community, second, (&settings, &kept))
    }

    #[test]
    fn another_trust_level_makes_another_instance_of_one_that_may_share_its_process() {
        let manifest = super::super::tests::manifest("demo/one", "");
        let at = |trust, tier, settings: &HostSettings| {
            let kept = Kept::of(&settings.lifecycle);
            Terms::of(&manifest, Some(tier), trust, Duration::from_secs(1), (settings, &kept))
        };
        let (alone, mut shared) = (HostSettings::default(), HostSettings::default());
        shared.process.share = vec![vec!["demo/*".parse().unwrap()]];
        let [low, high] = [TrustLevel::Community, TrustLevel::Verified];
        for tier in [Tier::Process, Tier::ComponentProcess] {
            assert_eq!(at(low, tier, &alone), at(high, tier, &alone));
            assert_ne!(at(low, tier, &shared), at(high, tier, &shared));
        }
        assert_eq!(at(low, Tier::Component, &shared), at(high, Tier::Component, &shared));
    }

    #[test]
    fn only_what_an_instance_keeps_makes_another_one_of_it() {
        type Change = fn(&mut HostSettings);
        let hook: Change = |s| s.lifecycle.hook_timeout += Duration::from_secs(1);
        let breaker: Change = |s| s.lifecycle.breaker.failures += 1;
        let critical: Change = |s| s.lifecycle.critical_breaker.failures += 1;
        let canary: Change = |s| s.lifecycle.canary.common.share_percent += 1;
        let retry: Change = |s| s.lifecycle.retry.first += Duration::from_secs(1);
        let memory: Change = |s| s.process.memory_max_bytes += 1;
        let own_group: Change = |s| s.process.share = vec![vec!["demo/*".parse().unwrap()]];
        let other_group: Change = |s| s.process.share = vec![vec!["other/*".parse().unwrap()]];
        let store: Change = |s| s.component.stores = [("demo/one".parse().unwrap(), 2)].into();
        let other_store: Change =
            |s| s.component.stores = [("demo/two".parse().unwrap(), 2)].into();
        let call: Change = |s| s.call_timeout += Duration::from_secs(1);
        let slots: Change = |s| s.slots += 1;
        let [inside, process] = [Tier::InProcess, Tier::Process];
        let [component, runner] = [Tier::Component, Tier::ComponentProcess];
        let all = [inside, process, component, runner];
        for (what, change, tiers) in [
            ("hook", hook, &all[..]),
            ("breaker", breaker, &all),
            ("critical breaker", critical, &[]),
            ("canary", canary, &[]),
            ("retry", retry, &[]),
            ("memory", memory, &[process, runner]),
            ("own group", own_group, &[process, runner]),
            ("other group", other_group, &[]),
            ("store", store, &[component, runner]),
            ("other store", other_store, &[]),
            ("call", call, &[process, component, runner]),
            ("slots", slots, &[]),
        ] {
            for tier in all {
                let is_another = terms(tier, change) != terms(tier, |_| {});
                assert_eq!(is_another, tiers.contains(&tier), "{what}, {}", tier.as_str());
            }
        }
        assert_ne!(terms(inside, |_| {}), terms(process, |_| {}));
    }
}
