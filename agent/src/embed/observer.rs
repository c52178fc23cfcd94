//! Who hears of what happens in a host.

use std::time::Duration;

use modunest_core::Version;
use modunest_core::name::PluginName;

use crate::host::State;
use crate::metrics::Outcome;

/// Hears of what happens in a host, on the thread on which it happens: keep it short, hand on
/// what takes longer, and call nothing of the host from within.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn observe(&self, event: &Event<'_>);
}

/// A closure is an observer.
impl<F: Fn(&Event<'_>) + Send + Sync> Observer for F {
    fn observe(&self, event: &Event<'_>) {
        self(event);
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A plugin came into another state: it loads, is ready, failed, was stopped.
    Plugin {
        /// The plugin.
        plugin: &'a PluginName,
        /// Its version.
        version: &'a Version,
        /// Where it stands now.
        state: State,
        /// Why, where it failed or is blocked.
        reason: Option<&'a str>,
    },
    /// A call reached a plugin and ended.
    Call {
        /// The plugin.
        plugin: &'a PluginName,
        /// Its version.
        version: &'a Version,
        /// The route, service, event or hook.
        target: &'a str,
        /// `org/name` of the plugin that called, or empty.
        caller: &'a str,
        /// How it ended.
        outcome: Outcome,
        /// How long it took; absent for most calls inside the process, of which one in 509
        /// is timed.
        took: Option<Duration>,
    },
    /// A circuit breaker opened: the plugin, or one service of it, failed too often.
    BreakerOpened {
        /// The plugin.
        plugin: &'a PluginName,
        /// The service whose call made it open, or empty.
        service: &'a str,
    },
    /// A release is tried beside the one that serves, for a share of its calls.
    TrialBegan {
        /// The plugin.
        plugin: &'a PluginName,
        /// The version that is tried.
        version: &'a Version,
        /// The version that serves.
        serving: &'a Version,
        /// Its share of the calls, in percent.
        share_percent: u32,
    },
    /// A release that was tried has taken the place of the one beside it.
    TrialPromoted {
        /// The plugin.
        plugin: &'a PluginName,
        /// The version that was tried, and serves now.
        version: &'a Version,
    },
    /// A release that was tried, or could not be, is not chosen any more.
    TrialRolledBack {
        /// The plugin.
        plugin: &'a PluginName,
        /// The version that was tried.
        version: &'a Version,
        /// Why.
        reason: &'a str,
    },
    /// A trial ended before anything was found out about the release that was tried.
    TrialEnded {
        /// The plugin.
        plugin: &'a PluginName,
        /// The version that was tried.
        version: &'a Version,
        /// Why.
        reason: &'a str,
    },
    /// Another generation serves from now on.
    Generation {
        /// Its number.
        number: u64,
        /// Its plugins.
        plugins: usize,
        /// Those of them that are ready.
        ready: usize,
    },
}
