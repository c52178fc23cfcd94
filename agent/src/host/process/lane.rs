//! The agent's end of a lane: one request at a time. While the runner works on it, the thread
//! that waits for the answer serves what the plugin asks, so that calls from within a call
//! find its deadline, its trace and its depth on their thread, as in every tier.

use std::time::Instant;

use modunest_sdk::abi::MAX_ERROR_TEXT_BYTES;
use modunest_sdk::{Error, Status};

use super::super::Cell;
use super::super::ask::ServiceAsk;
use crate::runner::channel::{self, Broken, Channel};
use crate::runner::wire::{Body, Kind, Malformed, Message, TEXT_MAX_BYTES};

/// A lane that nobody else uses.
pub(super) struct Lane {
    channel: Channel,
    received: Vec<u8>,
    scratch: Vec<u8>,
}

/// What a request came to.
pub(super) struct Outcome {
    /// A status, or [`crate::runner::wire::NOT_LOADED`].
    pub(super) code: u32,
    /// The answer, or a text.
    pub(super) body: Vec<u8>,
}

impl Outcome {
    /// As the plugin meant it.
    pub(super) fn answer(self) -> Result<Vec<u8>, Error> {
        modunest_sdk::native::outcome(self.code.cast_signed(), &self.body)?;
        Ok(self.body)
    }
}

impl Lane {
    pub(super) fn new(channel: Channel) -> Self {
        Lane { channel, received: channel::buffer(), scratch: Vec::new() }
    }

    /// Sends a request and waits for what it comes to.
    pub(super) fn request(
        &mut self,
        request: &Message<'_>,
        cell: &Cell,
        until: Instant,
    ) -> Result<Outcome, Broken> {
        if request.kind != Kind::Load {
            self.channel.send(request, &mut self.scratch)?;
            return self.outcome(cell, until);
        }
        // It may hold secrets, which are the plugin's alone from here on.
        self.channel.send_secret(request, &mut self.scratch)?;
        let outcome = self.outcome(cell, until);
        self.channel.forget()?;
        outcome
    }

    /// Serves what the plugin asks until its request comes to something.
    fn outcome(&mut self, cell: &Cell, until: Instant) -> Result<Outcome, Broken> {
        loop {
            match self.turn(cell, until, true)? {
                Some(outcome) => return Ok(outcome),
                // A plugin that asks without end is as late as one that computes without end.
                None if Instant::now() >= until => return Err(Broken::Late),
                None => {}
            }
        }
    }

    /// Takes one message: the end of a request, or something asked, which is served or, once
    /// nobody waits any more, refused.
    fn turn(
        &mut self,
        cell: &Cell,
        until: Instant,
        is_awaited: bool,
    ) -> Result<Option<Outcome>, Broken> {
        let message = self.channel.receive(&mut self.received, Some(until))?;
        if message.kind == Kind::Done {
            let body = self.channel.body(message.body)?.into_owned();
            return Ok(Some(Outcome { code: message.code, body }));
        }
        serve(&self.channel, &message, &mut self.scratch, cell, is_awaited)?;
        Ok(None)
    }

    /// Serves a lane whose caller gave up, when there is something on it; true when its
    /// request has ended and it can be used again.
    pub(super) fn abandoned_turn(&mut self, cell: &Cell) -> Result<bool, Broken> {
        Ok(self.turn(cell, Instant::now(), false)?.is_some())
    }
}

impl std::os::fd::AsFd for Lane {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Serves what a plugin asks.
pub(super) fn serve(
    channel: &Channel,
    message: &Message<'_>,
    scratch: &mut Vec<u8>,
    cell: &Cell,
    is_awaited: bool,
) -> Result<(), Broken> {
    let body = channel.body(message.body)?;
    let answer = match message.kind {
        Kind::Log => {
            cell.log(message.code, &body);
            return Ok(());
        }
        Kind::Remade => {
            let cut = body.get(..MAX_ERROR_TEXT_BYTES).unwrap_or(&body);
            cell.remade(&String::from_utf8_lossy(cut));
            return Ok(());
        }
        Kind::Service | Kind::Operate if !is_awaited => {
            Err(Error::DeadlineExceeded("nobody waits for this call any more".to_owned()))
        }
        Kind::Service => {
            let [plugin, service, trace] = message.texts;
            let deadline_ms = message.deadline_ms;
            cell.call_service(ServiceAsk { plugin, service, payload: &body, trace, deadline_ms })
        }
        Kind::Operate => cell.operate(message.code, &body),
        other => return Err(Malformed::Unexpected(other).into()),
    };
    let (status, bytes) = match answer {
        Ok(bytes) => (Status::Ok, bytes),
        Err(error) => {
            let end = error.text().floor_char_boundary(MAX_ERROR_TEXT_BYTES);
            (error.status(), error.text().as_bytes()[..end].to_vec().into())
        }
    };
    let code = status.code().cast_unsigned();
    let answer =
        Message { code, ..Message::new(Kind::Answer, message.plugin, Body::Inline(&bytes)) };
    channel.send(&answer, scratch)
}

/// A text that fits into a message, or an error that names it.
pub(super) fn text<'t>(text: &'t str, what: &str) -> Result<&'t str, Error> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(Error::InvalidInput(format!(
            "{what} of {} bytes is above the limit of {TEXT_MAX_BYTES}",
            text.len()
        )));
    }
    Ok(text)
}
