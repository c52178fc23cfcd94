//! Trust groups: plugins that share a runner, as far as they are alike.
//!
//! Who shares a process shares everything in it, and a process has one sandbox. So the members of a
//! group that share one are of one kind, since a component's sandbox is stricter than a native
//! plugin's, and of one trust level, since the least trusted could do whatever the others may. A
//! group whose members differ is divided, and that is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use modunest_core::name::PluginName;
use modunest_core::statement::TrustLevel;

use super::super::Cell;
use super::super::tier::Tier;
use super::supervisor::Runner;
use super::{policy_of, reserved_bytes};
use crate::config::HostSettings;
use crate::sandbox::SandboxPolicy;

/// Plugins that share a process: the group by its place in the settings, kind and trust level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    group: usize,
    is_component: bool,
    trust: TrustLevel,
}

impl Part {
    /// Where a plugin that runs in this tier belongs; `None` where it shares with nobody.
    fn of(cell: &Cell, tier: Tier, settings: &HostSettings) -> Option<Part> {
        let group = settings.process.group_of(cell.name())?;
        let is_component = tier == Tier::ComponentProcess;
        Some(Part { group, is_component, trust: cell.trust() })
    }

    fn kind(self) -> &'static str {
        if self.is_component { "a component" } else { "native code" }
    }
}

/// What the plugins of one part share.
struct Shared {
    /// For all of them.
    policy: SandboxPolicy,
    /// One of them, for messages.
    example: PluginName,
    runner: Weak<Runner>,
}

/// The trust groups of what is loaded together.
pub(super) struct Groups(BTreeMap<Part, Shared>);

impl Groups {
    /// Of these plugins, under these settings.
    pub(super) fn new<'c>(
        cells: impl Iterator<Item = (&'c Arc<Cell>, Tier)>,
        settings: &HostSettings,
    ) -> Self {
        let mut parts: BTreeMap<Part, Shared> = BTreeMap::new();
        for (cell, tier) in cells {
            let Some(part) = Part::of(cell, tier, settings) else { continue };
            let own = policy_of(cell, tier, settings);
            let shared = parts
                .entry(part)
                .and_modify(|shared| shared.policy.allow(&own))
                .or_insert_with(|| {
                    let example = cell.name().clone();
                    Shared { policy: own.clone(), example, runner: Weak::new() }
                });
            shared.policy.limits.reserve(reserved_bytes(cell, tier, settings));
        }
        let groups = Groups(parts);
        groups.tell_of_divided();
        groups
    }

    fn tell_of_divided(&self) {
        for ((one, first), (other, second)) in self.0.iter().zip(self.0.iter().skip(1)) {
            if one.group == other.group {
                tracing::warn!(
                    group = %group_name(one.group),
                    "{} is {} of the trust level {}, and {} is {} of the trust level {}, so they share no process although share under [host.process] says so; name plugins of one kind and one level in each group to be rid of this",
                    first.example,
                    one.kind(),
                    one.trust,
                    second.example,
                    other.kind(),
                    other.trust
                );
            }
        }
    }

    /// What those are called that this plugin shares its process with, if it may share it.
    pub(super) fn name_of(
        &self,
        cell: &Cell,
        tier: Tier,
        settings: &HostSettings,
    ) -> Option<String> {
        Some(self.name(Part::of(cell, tier, settings)?))
    }

    /// The group's name, with kind and level where it is divided.
    fn name(&self, part: Part) -> String {
        let group = group_name(part.group);
        if self.0.keys().filter(|other| other.group == part.group).count() <= 1 {
            return group;
        }
        let kind = if part.is_component { "component" } else { "native" };
        format!("{group}-{kind}-{}", part.trust)
    }

    /// The runner that this plugin shares, made if there is none; `None` where it is to have its
    /// own.
    pub(super) fn runner_of(
        &mut self,
        cell: &Cell,
        tier: Tier,
        settings: &HostSettings,
    ) -> Option<Arc<Runner>> {
        let part = Part::of(cell, tier, settings)?;
        let name = self.name(part);
        let shared = self.0.get_mut(&part)?;
        Some(shared.runner.upgrade().unwrap_or_else(|| {
            let made = Runner::new(name, shared.policy.clone(), settings);
            shared.runner = Arc::downgrade(&made);
            made
        }))
    }
}

/// What a trust group is called, by its place in the settings.
fn group_name(group: usize) -> String {
    format!("group-{group}")
}
