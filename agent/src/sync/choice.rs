//! What the operator says that makes other choices of the same index.

use modunest_core::relation::HostFacts;

use super::Policy;
use crate::config::Config;

/// Under another one, releases and builds are chosen anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    prefers_components: bool,
    policy: Policy,
}

impl Choice {
    pub(super) fn of(config: &Config) -> Self {
        Choice { prefers_components: config.host.component.prefer, policy: config.policy }
    }
}

/// What this host can run, and what of it its operator prefers.
pub(super) fn facts(config: &Config) -> HostFacts {
    HostFacts { prefers_components: config.host.component.prefer, ..crate::host::facts() }
}
