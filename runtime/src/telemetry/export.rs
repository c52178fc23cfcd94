//! The thread that hands spans to a collector, in OTLP over HTTP.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{RetryPolicy, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};

use super::span::Finished;
use super::{DROPPED, EXPORTED, Kind, Settings, Sink, Value, install, uninstall};

/// How long the last spans may take to be sent when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer of a collector that is read, in bytes: it says "taken" or a sentence.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// How often a collector that takes nothing is complained about.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Why no spans are exported.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nobody can be sent anything.
    #[error("no traces can be exported to {endpoint}: {reason}")]
    Exporter {
        /// Where.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// This process exports already, to wherever it was told first.
    #[error("this process exports its traces already")]
    Started,
}

/// Spans are exported while this lives.
#[derive(Debug)]
#[must_use = "spans are exported while this lives"]
pub struct Exporter {
    ended: Receiver<()>,
}

/// Starts to record and export.
///
/// # Errors
/// [`StartError`].
pub fn start(settings: Settings) -> Result<Exporter, StartError> {
    let failed =
        |reason: String| StartError::Exporter { endpoint: settings.endpoint.clone(), reason };
    let client = crate::http::client().map_err(|error| failed(error.to_string()))?;
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Client { http: client, timeout: settings.timeout })
        .with_endpoint(&settings.endpoint)
        // A second try would hold up the spans behind it, and they are many.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .map_err(|error| failed(error.to_string()))?;
    exporter.set_resource(&resource(&settings));
    let (queue, waiting) = sync_channel(settings.queue);
    let (end, ended) = sync_channel(1);
    if !install(Sink { queue, sampler: settings.sampler }) {
        return Err(StartError::Started);
    }
    let endpoint = settings.endpoint.clone();
    let thread = std::thread::Builder::new().name("telemetry".to_owned()).spawn(move || {
        // Made and dropped on this thread: a runtime may not be dropped within another.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                uninstall();
                tracing::error!(%error, "no traces can be exported");
                return;
            }
        };
        let scope =
            InstrumentationScope::builder("modunest").with_version(settings.version).build();
        let mut sender =
            Sender { exporter, runtime, scope, endpoint: settings.endpoint, complained: None };
        while let Some(batch) = next(&waiting, settings.batch, settings.delay) {
            sender.send(batch);
        }
        // Fails only when nobody waits for the end.
        let _ = end.send(());
    });
    if let Err(error) = thread {
        uninstall();
        return Err(StartError::Exporter { endpoint, reason: error.to_string() });
    }
    Ok(Exporter { ended })
}

impl Exporter {
    /// Stops recording, and waits until what was recorded is sent, 3 s at most. Blocks.
    pub fn shutdown(self) {
        uninstall();
        // An end is sent, or its sender is dropped when the thread ends otherwise.
        if self.ended.recv_timeout(FLUSH_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last spans were not sent in time");
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        uninstall();
    }
}

/// The next spans to send; `None` when there will be no more.
fn next(waiting: &Receiver<Finished>, batch: usize, delay: Duration) -> Option<Vec<Finished>> {
    let mut spans = vec![waiting.recv().ok()?];
    let until = Instant::now() + delay;
    while spans.len() < batch {
        match waiting.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(span) => spans.push(span),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    Some(spans)
}

struct Sender {
    exporter: opentelemetry_otlp::SpanExporter,
    runtime: tokio::runtime::Runtime,
    scope: InstrumentationScope,
    endpoint: String,
    complained: Option<Instant>,
}

impl Sender {
    fn send(&mut self, spans: Vec<Finished>) {
        let count = spans.len() as u64;
        let spans = spans.into_iter().map(|span| data(span, &self.scope)).collect();
        match self.runtime.block_on(self.exporter.export(spans)) {
            Ok(()) => {
                EXPORTED.fetch_add(count, Ordering::Relaxed);
                if self.complained.take().is_some() {
                    tracing::info!(endpoint = self.endpoint, "the collector takes spans again");
                }
            }
            Err(error) => {
                DROPPED.fetch_add(count, Ordering::Relaxed);
                if self.complained.is_none_or(|since| since.elapsed() >= COMPLAIN_EVERY) {
                    tracing::warn!(endpoint = self.endpoint, %error, "the collector takes no spans; they are dropped");
                    self.complained = Some(Instant::now());
                }
            }
        }
    }
}

/// What all spans of the process have in common. The environment's name wins.
fn resource(settings: &Settings) -> Resource {
    const NAME: &str = "service.name";
    let found = Resource::builder().build();
    let named = found
        .iter()
        .any(|(key, value)| key.as_str() == NAME && !value.as_str().starts_with("unknown_service"));
    let builder = Resource::builder()
        .with_attribute(KeyValue::new("service.version", settings.version))
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())));
    if named { builder.build() } else { builder.with_service_name(settings.service).build() }
}

fn data(span: Finished, scope: &InstrumentationScope) -> SpanData {
    let Finished { context, remote_parent, kind, name, start, end, attributes, error } = span;
    let span_context = SpanContext::new(
        TraceId::from(u128::from_be_bytes(context.trace_bytes())),
        SpanId::from(u64::from_be_bytes(context.span_bytes())),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    );
    let parent = context.parent_bytes().map_or(0, u64::from_be_bytes);
    SpanData {
        span_context,
        parent_span_id: SpanId::from(parent),
        parent_span_is_remote: remote_parent,
        span_kind: match kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        },
        name,
        start_time: start,
        end_time: end,
        attributes: attributes
            .into_iter()
            .map(|(key, value)| match value {
                Value::Text(text) => KeyValue::new(key, text),
                Value::Number(number) => KeyValue::new(key, number),
            })
            .collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

/// Our own client: with the trust roots and limits that every request of ours has.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    timeout: Duration,
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let url = head.uri.to_string();
        let request = self.http.request(head.method, url).timeout(self.timeout);
        let asked = request.headers(head.headers).body(body).send().await;
        let answer = asked.inspect_err(|error| {
            tracing::debug!(error = crate::http::reason(error), "a collector could not be reached");
        })?;
        let status = answer.status();
        let body = crate::http::body(answer, ANSWER_MAX_BYTES).await?;
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        Ok(response)
    }
}
