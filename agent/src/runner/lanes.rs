//! The way back: what plugins ask, over the lane of the call that their thread serves, or over
//! the background lane.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use modunest_sdk::Error;
use modunest_sdk::abi::OwnedBuffer;

use super::channel::{self, Broken, Channel};
use super::serve::Shared;
use super::wire::{Body, Kind, Message, TEXT_MAX_BYTES};
use crate::host::ask::{LOG_MAX_BYTES, ServiceAsk};
use crate::host::side::HostSide;

thread_local! {
    /// The lane that this thread serves.
    static LANE: RefCell<Option<Rc<Channel>>> = const { RefCell::new(None) };
    /// A buffer for answers, and one for what is sent.
    static BUFFERS: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// From now on, what this thread asks goes over this lane.
pub(super) fn serve_on(lane: Rc<Channel>) {
    LANE.set(Some(lane));
}

/// The lane of the plugins' own threads.
pub(super) struct Background(Mutex<Channel>);

impl Background {
    pub(super) fn new(channel: Channel) -> Self {
        Background(Mutex::new(channel))
    }
}

/// Who answers a plugin in a runner.
pub(super) struct FarSide {
    /// Its number in this runner.
    pub(super) plugin: u32,
    pub(super) assets: String,
    pub(super) shared: Arc<Shared>,
}

impl FarSide {
    /// Sends a message and, where one follows, waits for its answer.
    fn ask(&self, message: &Message<'_>, is_answered: bool) -> Result<Vec<u8>, Error> {
        // Both are gone only while a thread ends, after its last call.
        let lane = LANE.try_with(|lane| lane.borrow().clone()).unwrap_or_default();
        match lane {
            Some(lane) => exchange(&lane, message, is_answered),
            None => {
                let background = self.shared.background();
                let lane = background.0.lock().unwrap_or_else(PoisonError::into_inner);
                exchange(&lane, message, is_answered)
            }
        }
    }
}

fn exchange(lane: &Channel, message: &Message<'_>, is_answered: bool) -> Result<Vec<u8>, Error> {
    let lost = |broken: Broken| Error::Unavailable(format!("the host does not answer: {broken}"));
    let taken = BUFFERS.try_with(RefCell::take).unwrap_or_default();
    let (mut received, mut scratch) = taken;
    if received.is_empty() {
        received = channel::buffer();
    }
    let answer = lane.send(message, &mut scratch).map_err(lost).and_then(|()| {
        if !is_answered {
            return Ok(Vec::new());
        }
        let answer = lane.receive(&mut received, None).map_err(lost)?;
        if answer.kind != Kind::Answer {
            return Err(Error::Failed("the host answered something else".to_owned()));
        }
        let body = lane.body(answer.body).map_err(lost)?;
        modunest_sdk::native::outcome(answer.code.cast_signed(), &body)?;
        Ok(body.into_owned())
    });
    // Lost with a thread that ends.
    let _ = BUFFERS.try_with(|buffers| buffers.replace((received, scratch)));
    answer
}

fn text<'t>(text: &'t str, what: &str) -> Result<&'t str, Error> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(Error::InvalidInput(format!("the call's {what} is too long")));
    }
    Ok(text)
}

impl HostSide for FarSide {
    fn assets(&self) -> &str {
        &self.assets
    }

    fn log(&self, level: u32, message: &[u8]) {
        let cut = message.get(..LOG_MAX_BYTES).unwrap_or(message);
        let line =
            Message { code: level, ..Message::new(Kind::Log, self.plugin, Body::Inline(cut)) };
        // Without an agent, nobody reads logs, and this process is about to end.
        let _ = self.ask(&line, false);
    }

    fn remade(&self, reason: &str) {
        let note = Message::new(Kind::Remade, self.plugin, Body::Inline(reason.as_bytes()));
        // As above.
        let _ = self.ask(&note, false);
    }

    fn call_service(&self, ask: ServiceAsk<'_>) -> Result<OwnedBuffer, Error> {
        let ServiceAsk { plugin, service, payload, trace, deadline_ms } = ask;
        let texts = [text(plugin, "plugin")?, text(service, "service")?, text(trace, "trace")?];
        let body = Body::Inline(payload);
        let message =
            Message { texts, deadline_ms, ..Message::new(Kind::Service, self.plugin, body) };
        self.ask(&message, true).map(OwnedBuffer::from)
    }

    fn operate(&self, operation: u32, request: &[u8]) -> Result<OwnedBuffer, Error> {
        let body = Body::Inline(request);
        let message = Message { code: operation, ..Message::new(Kind::Operate, self.plugin, body) };
        self.ask(&message, true).map(OwnedBuffer::from)
    }
}
