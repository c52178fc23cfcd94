//! `[gateway]`: where plugins' routes are served, and what clients may cost.
//!
//! ```toml
//! [gateway]
//! listen = "127.0.0.1:8080"
//! connections = 1024            # at the same time; more wait to be accepted
//! header_timeout_ms = 10000     # for a request's head; so long a connection may be idle, too
//! header_bytes = 65536          # of a request's head; more is answered by 431
//! request_timeout_ms = 30000    # from the head to the answer's head; call_timeout_ms of [host]
//! idle_timeout_ms = 30000       # for a body to come on, in either direction
//! progress_bytes = 16384        # by which it has to come on in that time, as far as its client
//!                               # is waited for; less is answered by 408, or cut off
//! body_bytes = 1073741824       # of an upload; other bodies have at most 16 MiB
//! buffered_bytes = 268435456    # of all bodies that are held in memory, requests' and answers',
//!                               # beyond the first 64 KiB of each
//! calls = 128                   # at the same time, of all plugins; beside them, each plugin may
//!                               # have one call, and one request that guards are asked about
//! plugin_calls = 16             # at the same time, of one plugin; half of them may be uploads
//! plugin_queue = 64             # requests that wait for one plugin; more are answered by 503
//! stream_timeout_ms = 3600000   # of an upload, a streamed answer, a WebSocket
//! message_bytes = 1048576       # of a WebSocket's message
//! messages_per_s = 100          # of one WebSocket's client, with bursts of so many
//! drain_delay_ms = 0            # from being not ready to refusing connections, for balancers
//! drain_timeout_ms = 20000      # for what runs when the agent stops
//! ```

use std::time::Duration;

use modunest_sdk::http::MAX_BODY_BYTES;
use serde::Deserialize;
use toml::Spanned;

use super::read::Check;

/// What clients may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Connections at the same time. More wait in the kernel's queue.
    pub connections: usize,
    /// How long a request's head may take, from the end of the request before or the
    /// connection's beginning.
    pub header_timeout: Duration,
    /// Most bytes of a request's head.
    pub header_bytes: usize,
    /// From a request's head to its answer's; the agent's limit of a call where it is `None`.
    pub request_timeout: Option<Duration>,
    /// In what time a body has to come on by `progress_bytes`, in either direction, and a
    /// WebSocket's client has to answer a ping. Only time counts in which the client is waited
    /// for.
    pub idle_timeout: Duration,
    /// Least bytes by which a body has to come on in `idle_timeout`.
    pub progress_bytes: usize,
    /// Most bytes of an upload.
    pub body_bytes: u64,
    /// Most bytes of all bodies that are held in memory, of requests and of answers. The first
    /// 64 KiB of each are not counted: a connection's buffer holds as many.
    pub buffered_bytes: usize,
    /// Calls at the same time, of all plugins. Each may hold a thread. Beside them each plugin
    /// may have one call, and one request that its guards are asked about, so that it never
    /// waits for others alone: there are so many and twice as many as plugins at most.
    pub calls: usize,
    /// Calls at the same time, of one plugin. One that hangs holds so many threads. At most half
    /// of them, and at least one, are uploads, which take as long as their clients.
    pub plugin_calls: usize,
    /// Requests that wait for one plugin.
    pub plugin_queue: usize,
    /// How long an upload, a streamed answer or a WebSocket may last.
    pub stream_timeout: Duration,
    /// Most bytes of a WebSocket's message.
    pub message_bytes: usize,
    /// Messages of one WebSocket's client each second, and so many at once.
    pub messages_per_s: u32,
    /// How long a stopping agent still takes connections, though it says that it is not ready:
    /// as long as those in front of it take to notice.
    pub drain_delay: Duration,
    /// How long requests and streams may go on when the agent stops.
    pub drain_timeout: Duration,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        GatewaySettings {
            connections: 1024,
            header_timeout: Duration::from_secs(10),
            header_bytes: 64 * 1024,
            request_timeout: None,
            idle_timeout: Duration::from_secs(30),
            // About 500 bytes a second, below which Apache gives clients up as well.
            progress_bytes: 16 * 1024,
            body_bytes: 1024 * 1024 * 1024,
            buffered_bytes: 256 * 1024 * 1024,
            calls: 128,
            plugin_calls: 16,
            plugin_queue: 64,
            stream_timeout: Duration::from_secs(60 * 60),
            message_bytes: 1024 * 1024,
            messages_per_s: 100,
            drain_delay: Duration::ZERO,
            // Below the 30 s after which Kubernetes kills.
            drain_timeout: Duration::from_secs(20),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct GatewayTable {
    pub(super) listen: Option<Spanned<String>>,
    connections: Option<Spanned<u64>>,
    header_timeout_ms: Option<Spanned<u64>>,
    header_bytes: Option<Spanned<u64>>,
    request_timeout_ms: Option<Spanned<u64>>,
    idle_timeout_ms: Option<Spanned<u64>>,
    progress_bytes: Option<Spanned<u64>>,
    body_bytes: Option<Spanned<u64>>,
    buffered_bytes: Option<Spanned<u64>>,
    calls: Option<Spanned<u64>>,
    plugin_calls: Option<Spanned<u64>>,
    plugin_queue: Option<Spanned<u64>>,
    stream_timeout_ms: Option<Spanned<u64>>,
    message_bytes: Option<Spanned<u64>>,
    messages_per_s: Option<Spanned<u64>>,
    drain_delay_ms: Option<Spanned<u64>>,
    drain_timeout_ms: Option<Spanned<u64>>,
}

/// An hour, and a week, in milliseconds.
const HOUR_MS: u64 = 60 * 60 * 1000;
const WEEK_MS: u64 = 7 * 24 * HOUR_MS;
/// What a process may have open, as systems have it.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// More threads than this make nothing faster.
const CALLS_MAX: u64 = 4096;
/// Blocking threads that a runtime around the gateway has to allow: one for every call that may
/// be configured, also after a change, and as many for the plugins' calls beside them and for
/// the agent's own work. They exist only as they are needed.
pub const BLOCKING_THREADS_MAX: usize = 2 * CALLS_MAX as usize;
/// The smallest buffer that the HTTP parser takes.
const HEADER_MIN_BYTES: u64 = 8 * 1024;
/// What the head of a plugin's message holds.
const HEADER_MAX_BYTES: u64 = modunest_sdk::http::MAX_HEAD_BYTES as u64;
/// A terabyte: more than any disk behind a plugin takes in one piece.
const BODY_MAX_BYTES: u64 = 1 << 40;

impl Check<'_> {
    pub(super) fn gateway_limits(&mut self, table: &GatewayTable) -> GatewaySettings {
        let usual = GatewaySettings::default();
        let mut number =
            |key: &str, value: &Option<Spanned<u64>>, min: u64, max: u64, usual: u64| {
                self.number(&format!("gateway.{key}"), value.clone(), (min, max), usual)
            };
        let request_timeout = table.request_timeout_ms.is_some().then(|| {
            let value = number("request_timeout_ms", &table.request_timeout_ms, 1, HOUR_MS, 1);
            Duration::from_millis(value)
        });
        let mut size =
            |key: &str, value: &Option<Spanned<u64>>, min: u64, max: u64, usual: usize| {
                number(key, value, min, max, usual as u64) as usize
            };
        let connections =
            size("connections", &table.connections, 1, CONNECTIONS_MAX, usual.connections);
        let header_bytes = size(
            "header_bytes",
            &table.header_bytes,
            HEADER_MIN_BYTES,
            HEADER_MAX_BYTES,
            usual.header_bytes,
        );
        let buffered_bytes = size(
            "buffered_bytes",
            &table.buffered_bytes,
            MAX_BODY_BYTES as u64,
            BODY_MAX_BYTES,
            usual.buffered_bytes,
        );
        let progress_bytes = size(
            "progress_bytes",
            &table.progress_bytes,
            1,
            MAX_BODY_BYTES as u64,
            usual.progress_bytes,
        );
        let calls = size("calls", &table.calls, 1, CALLS_MAX, usual.calls);
        let plugin_calls =
            size("plugin_calls", &table.plugin_calls, 1, CALLS_MAX, usual.plugin_calls);
        let plugin_queue =
            size("plugin_queue", &table.plugin_queue, 0, 100_000, usual.plugin_queue);
        let message_bytes = size(
            "message_bytes",
            &table.message_bytes,
            1,
            MAX_BODY_BYTES as u64,
            usual.message_bytes,
        );
        let messages = size(
            "messages_per_s",
            &table.messages_per_s,
            1,
            1_000_000,
            usual.messages_per_s as usize,
        );
        let body_bytes =
            number("body_bytes", &table.body_bytes, 1, BODY_MAX_BYTES, usual.body_bytes);
        let drain_delay =
            Duration::from_millis(number("drain_delay_ms", &table.drain_delay_ms, 0, HOUR_MS, 0));
        let mut time = |key: &str, value: &Option<Spanned<u64>>, max: u64, usual: Duration| {
            Duration::from_millis(number(key, value, 1, max, usual.as_millis() as u64))
        };
        GatewaySettings {
            connections,
            header_timeout: time(
                "header_timeout_ms",
                &table.header_timeout_ms,
                HOUR_MS,
                usual.header_timeout,
            ),
            header_bytes,
            request_timeout,
            idle_timeout: time(
                "idle_timeout_ms",
                &table.idle_timeout_ms,
                HOUR_MS,
                usual.idle_timeout,
            ),
            progress_bytes,
            body_bytes,
            buffered_bytes,
            calls,
            plugin_calls,
            plugin_queue,
            stream_timeout: time(
                "stream_timeout_ms",
                &table.stream_timeout_ms,
                WEEK_MS,
                usual.stream_timeout,
            ),
            message_bytes,
            messages_per_s: u32::try_from(messages).unwrap_or(usual.messages_per_s),
            drain_delay,
            drain_timeout: time(
                "drain_timeout_ms",
                &table.drain_timeout_ms,
                HOUR_MS,
                usual.drain_timeout,
            ),
        }
    }
}
