//! What is counted of services, guards and events, for plugins that have had any.

use super::prometheus::Counted;
use crate::host::{EventCounters, LinkStatus};
use crate::status::PluginStatus;

/// The counters.
pub(super) const COUNTERS: [Counted; 8] = [
    (
        "modunest_plugin_service_calls_refused",
        "Calls of the plugin's services that broke a schema, a rule or a guard",
        |p| counted(p, |links| links.refused_calls),
    ),
    ("modunest_plugin_guard_denied", "Requests to the plugin that a guard denied", |p| {
        counted(p, |links| links.denied)
    }),
    (
        "modunest_plugin_guard_undecided",
        "Requests to the plugin that were denied because a guard could not decide",
        |p| counted(p, |links| links.undecided),
    ),
    ("modunest_plugin_events_published", "Events that the plugin published", |p| {
        counted(p, |links| links.events.published)
    }),
    ("modunest_plugin_events_refused", "Events that the plugin could not publish", |p| {
        counted(p, |links| links.events.refused)
    }),
    ("modunest_plugin_events_delivered", "Events that the plugin received and dealt with", |p| {
        counted(p, |links| links.events.delivered)
    }),
    (
        "modunest_plugin_events_retried",
        "Deliveries to the plugin that failed and were tried again",
        |p| counted(p, |links| links.events.retried),
    ),
    ("modunest_plugin_events_dead", "Events that were given up with the plugin", |p| {
        counted(p, |links| links.events.dead)
    }),
];

/// A value of a plugin that has any; most plugins have no links, and shall have no series.
fn counted(plugin: &PluginStatus, value: impl Fn(&LinkStatus) -> u64) -> Option<u64> {
    let links = &plugin.links;
    let LinkStatus { imports: _, refused_calls, denied, undecided, events } = links;
    let any = refused_calls + denied + undecided > 0 || *events != EventCounters::default();
    any.then(|| value(links))
}
