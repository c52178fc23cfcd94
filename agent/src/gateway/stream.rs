//! Streams behind answers: pulled from their plugin, piece by piece, as fast as the client
//! takes them.
//!
//! A stream keeps its plugin's instance: a new generation waits for those that come to an end.
//! Those that wait for something to happen (events, WebSockets) are ended instead, so that their
//! clients come back to the new one; and so they are when the user's token expires.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use modunest_sdk::abi::RequestKind;
use modunest_sdk::stream::{Piece, StreamEvent, StreamRequest};
use modunest_sdk::{Error, HttpResponse};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::{self, Taken};
use super::queue::Caller;
use super::{Called, Gateway, Served};
use crate::host::drive::drive;
use crate::host::{Hold, Opened, OwnedCall};

/// How often a source that waits is asked though nobody woke it: one that forgets to wake is
/// slow, and not stuck. Events get a comment then, by which peers that are gone are found out.
const ASK_EVERY: Duration = Duration::from_secs(15);

/// An open stream of a plugin.
pub(super) struct Pulled {
    gateway: Arc<Gateway>,
    called: Called,
    opened: Opened,
    /// The plugin goes on as long as it is there.
    _hold: Hold,
    waker: Arc<Notify>,
    until: Instant,
    /// Whether it only waits for something to happen, and is ended when its plugin is.
    is_long: bool,
    has_ended: bool,
}

/// Why a wait for a stream's source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// There is something.
    Woken,
    /// Nothing happened for a while.
    Quiet,
    /// The stream has to end: its time is over, or its plugin is going.
    Over,
}

impl Pulled {
    /// Takes the stream that an answer names; `None` if it is open already, or its plugin gone.
    pub(super) fn open(
        gateway: &Arc<Gateway>,
        called: Called,
        id: u64,
        is_long: bool,
    ) -> Option<Self> {
        let waker = Arc::new(Notify::new());
        let hold = called.cell.hold()?;
        let opened = called.cell.streams().open_stream(id, waker.clone())?;
        let mut until = Instant::now() + gateway.rules().settings.stream_timeout;
        if let (true, Some(identity)) = (is_long, &called.identity) {
            let now_ms = modunest_runtime::clock::now().as_millis();
            let left = Duration::from_millis(identity.expires_ms.saturating_sub(now_ms));
            until = until.min(Instant::now() + left);
        }
        let gateway = gateway.clone();
        Some(Pulled {
            gateway,
            called,
            opened,
            _hold: hold,
            waker,
            until,
            is_long,
            has_ended: false,
        })
    }

    /// Asks the plugin, or tells it. The answer comes with its memory, which is to be held as
    /// long as the piece is.
    pub(super) async fn ask(&mut self, event: StreamEvent<'_>) -> Result<(Piece, Taken), Error> {
        let until = self.until.min(Instant::now() + self.gateway.rules().timeout);
        let late = || Error::DeadlineExceeded("no piece in time".to_owned());
        let cell = &self.called.cell;
        let place = self.gateway.queues.place(cell.name(), Caller::Open, until).await;
        let place = place.map_err(|_| late())?;
        let (target, payload) = StreamRequest { id: self.opened.id, event }.encode();
        let gateway = &self.gateway;
        let target = target.to_owned();
        let served =
            gateway.run(&self.called, RequestKind::Stream, target, payload, place, until).await;
        // After an error the plugin is still told that it is over.
        let Served { bytes, place } = served.ok_or_else(late)??;
        let piece = Piece::decode(&bytes)?;
        self.has_ended |= piece == Piece::End;
        let size = bytes.len();
        drop(bytes);
        let taken = gateway.budget.take(size, until).await;
        let taken = taken.ok_or_else(|| Error::Unavailable(budget::FULL.to_owned()))?;
        // Not before: there are no more pieces without memory than there are places.
        drop(place);
        Ok((piece, taken))
    }

    /// Waits until the plugin wakes the stream.
    pub(super) async fn wait(&self) -> Waited {
        let quiet = Instant::now() + ASK_EVERY;
        let over = |at: Instant| at <= Instant::now();
        let draining = &self.gateway.running.draining;
        tokio::select! {
            () = self.waker.notified() => {}
            () = draining.cancelled() => return Waited::Over,
            () = tokio::time::sleep_until(quiet.min(self.until)) => {
                if !over(self.until) && !self.is_going() {
                    return Waited::Quiet;
                }
            }
        }
        if self.is_going() || over(self.until) { Waited::Over } else { Waited::Woken }
    }

    /// Whether the plugin's instance is about to be stopped.
    fn is_going(&self) -> bool {
        self.called.cell.is_stopping()
    }

    /// Whether the stream should end before its next piece, though it could go on.
    pub(super) fn must_end(&self) -> bool {
        let late = self.until <= Instant::now();
        late || (self.is_long && (self.is_going() || self.gateway.running.draining.is_cancelled()))
    }
}

/// The client is gone, or the host gives up: the plugin hears of it.
impl Drop for Pulled {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let (called, id) = (self.called.clone(), self.opened.id);
        let hold = called.cell.hold();
        let deadline = modunest_runtime::clock::now().plus(self.gateway.rules().timeout);
        // Outside of a runtime, everything ends anyway.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let _hold = hold;
            let (target, payload) = StreamRequest { id, event: StreamEvent::Closed }.encode();
            let call = OwnedCall {
                kind: RequestKind::Stream,
                target: target.to_owned(),
                payload,
                trace: String::new(),
                caller: String::new(),
                deadline_ms: deadline.as_millis(),
            };
            let (plugin, identity) = (called.cell.name().clone(), called.identity.clone());
            let told = drive(called.cell.clone().call_async(call), identity).await;
            if let Err(error) = told {
                tracing::debug!(%plugin, id, %error, "a plugin was not told of a closed stream");
            }
        });
    }
}

/// Whether an answer is a stream of server-sent events.
pub(super) fn is_events(answer: &HttpResponse) -> bool {
    let kind = answer.header("content-type").unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

/// A body that is pulled. One that breaks off breaks the connection, so that no client takes a
/// part for the whole.
pub(super) fn body(pulled: Pulled, first: Bytes, is_events: bool) -> Body {
    struct State {
        pulled: Pulled,
        first: Bytes,
        over: bool,
    }
    let state = State { pulled, first, over: false };
    let pieces = futures_util::stream::unfold(state, move |mut state| async move {
        if !state.first.is_empty() {
            return Some((Ok(std::mem::take(&mut state.first)), state));
        }
        while !state.over {
            if state.pulled.must_end() {
                if is_events {
                    return None;
                }
                state.over = true;
                return Some((Err(io::Error::other("the stream took too long")), state));
            }
            let bytes = match state.pulled.ask(StreamEvent::Next).await {
                Ok((Piece::Bytes(bytes), taken)) => budget::held(bytes, taken),
                Ok((Piece::Text(text), taken)) => budget::held(text.into_bytes(), taken),
                Ok((Piece::End, _)) => return None,
                Ok((Piece::Wait, _)) => match state.pulled.wait().await {
                    Waited::Woken => continue,
                    Waited::Quiet if is_events => Bytes::from_static(b":\n\n"),
                    Waited::Quiet | Waited::Over => continue,
                },
                Err(error) => {
                    let plugin = state.pulled.called.cell.name();
                    tracing::warn!(%plugin, %error, "a streamed answer broke off");
                    state.over = true;
                    return Some((Err(io::Error::other(error)), state));
                }
            };
            if !bytes.is_empty() {
                return Some((Ok(bytes), state));
            }
        }
        None
    });
    Body::from_stream(pieces)
}
