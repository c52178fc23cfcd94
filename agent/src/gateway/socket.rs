//! WebSockets (RFC 6455) over a plugin's stream: its client's messages go in as calls, one at a
//! time; what the plugin has for the client is pulled.
//!
//! A client that sends too much or too fast, or that answers no ping, is closed with the reason.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use modunest_core::time::Timestamp;
use modunest_sdk::stream::{Piece, StreamEvent};
use modunest_sdk::{Error, HttpResponse};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Gateway;
use super::budget::Taken;
use super::server::ConnectionPlace;
use super::stream::{Pulled, Waited};

/// How long a client may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Accepts a WebSocket with a plugin's stream behind it.
pub(super) fn accept(
    gateway: &Arc<Gateway>,
    upgrade: WebSocketUpgrade,
    answer: &HttpResponse,
    pulled: Pulled,
    place: Option<ConnectionPlace>,
) -> Response {
    let limit = gateway.rules().settings.message_bytes;
    let mut upgrade = upgrade.max_message_size(limit).max_frame_size(limit);
    if let Some(protocol) = answer.header("sec-websocket-protocol") {
        upgrade = upgrade.protocols([protocol.to_owned()]);
    }
    let (running, gateway) = (gateway.running.clone(), gateway.clone());
    let span = tracing::Span::current();
    let context = modunest_runtime::trace::current();
    upgrade.on_upgrade(move |socket| async move {
        let serve = async move {
            let _place = place;
            let socket = Socket { socket, pulled, rate: Rate::new(&gateway), gateway };
            match context {
                Some(context) => {
                    modunest_runtime::trace::scope(context, "websocket", socket.run()).await;
                }
                None => socket.run().await,
            }
        };
        running.spawn(serve.instrument(span));
    })
}

struct Socket {
    socket: WebSocket,
    pulled: Pulled,
    rate: Rate,
    gateway: Arc<Gateway>,
}

/// Whom a WebSocket heard.
enum Heard {
    Client(Option<Result<Message, axum::Error>>),
    Plugin(Waited),
    /// Nobody, until a ping was due.
    Nothing,
}

/// Why a WebSocket ends.
enum Close {
    /// With a code and a reason for the client.
    With(u16, String),
    /// The client is gone.
    Gone,
}

impl Socket {
    async fn run(mut self) {
        if let Close::With(code, reason) = self.serve().await {
            tracing::debug!(code, reason, "a WebSocket is closed");
            let frame = CloseFrame { code, reason: reason.into() };
            let close = async {
                if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                    // The client's own close ends the connection.
                    while let Some(Ok(_)) = self.socket.recv().await {}
                }
            };
            // Whoever does not answer is cut.
            drop(tokio::time::timeout(CLOSE_TIMEOUT, close).await);
        }
    }

    async fn serve(&mut self) -> Close {
        let idle_timeout = self.gateway.rules().settings.idle_timeout;
        let ping_every = idle_timeout / 2;
        let mut heard = Instant::now();
        let mut ping_at = heard + ping_every;
        let mut may_have_more = true;
        loop {
            if self.pulled.must_end() {
                return going();
            }
            let deaf = Instant::now();
            if may_have_more {
                may_have_more = match self.ask_more().await {
                    Ok(more) => more,
                    Err(close) => return close,
                };
            }
            // While the plugin was asked, nobody listened: that time is not the client's.
            let deaf = deaf.elapsed();
            heard += deaf;
            ping_at += deaf;
            if may_have_more {
                continue;
            }
            match self.listen(ping_at).await {
                Heard::Plugin(Waited::Over) => return going(),
                Heard::Plugin(Waited::Woken | Waited::Quiet) => may_have_more = true,
                Heard::Nothing if heard.elapsed() >= idle_timeout => {
                    return Close::With(close_code::POLICY, "no answer to a ping".to_owned());
                }
                Heard::Nothing => {
                    ping_at = Instant::now() + ping_every;
                    if let Err(close) = self.write(Message::Ping(Default::default())).await {
                        return close;
                    }
                }
                Heard::Client(received) => {
                    if let Err(close) = self.take_in(received).await {
                        return close;
                    }
                    heard = Instant::now();
                }
            }
        }
    }

    /// Waits for the client, for the plugin, or until a ping is due. What the client has sent is
    /// heard before that.
    async fn listen(&mut self, ping_at: Instant) -> Heard {
        let (socket, pulled) = (&mut self.socket, &self.pulled);
        let either = async {
            tokio::select! {
                received = socket.recv() => Heard::Client(received),
                waited = pulled.wait() => Heard::Plugin(waited),
            }
        };
        tokio::select! {
            biased;
            heard = either => heard,
            () = tokio::time::sleep_until(ping_at) => Heard::Nothing,
        }
    }

    /// Sends what the plugin has next. Whether it may have more.
    async fn ask_more(&mut self) -> Result<bool, Close> {
        let next = self.pulled.ask(StreamEvent::Next).await;
        self.send(next).await
    }

    /// Hands what the client sent to the plugin, and sends its answer.
    async fn take_in(
        &mut self,
        received: Option<Result<Message, axum::Error>>,
    ) -> Result<(), Close> {
        let message = match received {
            None | Some(Ok(Message::Close(_))) => return Err(Close::Gone),
            Some(Err(error)) => return Err(broken(&error)),
            Some(Ok(message)) => message,
        };
        if !self.rate.admits() {
            return Err(Close::With(close_code::POLICY, "too many messages".to_owned()));
        }
        let answer = match &message {
            Message::Text(text) => self.pulled.ask(StreamEvent::Text(text)).await,
            Message::Binary(bytes) => self.pulled.ask(StreamEvent::Binary(bytes)).await,
            _ => return Ok(()),
        };
        self.send(answer).await.map(drop)
    }

    /// Sends a piece. Whether it was one.
    async fn send(&mut self, piece: Result<(Piece, Taken), Error>) -> Result<bool, Close> {
        let (piece, _taken) = piece.map_err(|error| self.failed(&error))?;
        let message = match piece {
            Piece::Bytes(bytes) => Message::Binary(bytes.into()),
            Piece::Text(text) => Message::Text(text.into()),
            Piece::Wait => return Ok(false),
            Piece::End => return Err(Close::With(close_code::NORMAL, String::new())),
        };
        self.write(message).await?;
        Ok(true)
    }

    /// Writes a message. One that is not taken for too long breaks the connection.
    async fn write(&mut self, message: Message) -> Result<(), Close> {
        self.socket.send(message).await.map_err(|_| Close::Gone)
    }

    fn failed(&self, error: &Error) -> Close {
        tracing::warn!(%error, "a plugin failed behind a WebSocket");
        Close::With(close_code::ERROR, "the plugin failed".to_owned())
    }
}

fn going() -> Close {
    Close::With(close_code::AWAY, "come again".to_owned())
}

fn broken(error: &axum::Error) -> Close {
    let text = error.to_string();
    // The library tells a message above the limit from other ends by its text alone.
    if text.contains("too long") {
        return Close::With(close_code::SIZE, "the message is too long".to_owned());
    }
    Close::Gone
}

/// So many messages a second, and so many at once: a bucket that refills.
struct Rate {
    per_s: u32,
    /// Thousandths of a message.
    left: u64,
    at: Timestamp,
}

impl Rate {
    fn new(gateway: &Gateway) -> Self {
        let per_s = gateway.rules().settings.messages_per_s;
        Rate { per_s, left: u64::from(per_s) * 1000, at: modunest_runtime::clock::now() }
    }

    fn admits(&mut self) -> bool {
        self.admits_at(modunest_runtime::clock::now())
    }

    fn admits_at(&mut self, now: Timestamp) -> bool {
        let per_s = u64::from(self.per_s);
        let passed_ms = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.left = self.left.saturating_add(passed_ms.saturating_mul(per_s)).min(per_s * 1000);
        self.at = now;
        let admits = self.left >= 1000;
        if admits {
            self.left -= 1000;
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_and_never_overflows() {
        let at = Timestamp::from_millis;
        let mut rate = Rate { per_s: 2, left: 2000, at: at(0) };
        let admitted: Vec<bool> = [0, 0, 0, 499, 500, 501, 60_000, 60_000, 60_000]
            .map(|ms| rate.admits_at(at(ms)))
            .into();
        assert_eq!(admitted, [true, true, false, false, true, false, true, true, false]);
    }
}
