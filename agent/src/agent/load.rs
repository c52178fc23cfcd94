//! A generation beside the running one, and the switch to it.

use std::sync::Arc;

use super::{Inner, STOP_TIMEOUT};
use crate::Error;
use crate::embed::Event;
use crate::host::{Plan, State, load_all, prepare};
use crate::store::{Fresh, Proven};

impl Inner {
    /// Loads a generation beside the running one and switches to it. Blocks.
    pub(super) fn load(&self, proven: Vec<Proven>, fresh: Fresh, number: u64) -> Result<(), Error> {
        let previous = self.host.load_full();
        let (wanted, settings) = (&self.config.plugins, &self.config.host);
        let prepared = prepare(self.syncer.store(), proven, fresh);
        let plan = Plan::build(prepared, wanted, settings, &self.resources, Some(&previous));
        let next = Arc::new(load_all(plan, settings));
        let lost = previous.cells().find(|cell| {
            let is_ready = |cell: &crate::host::Cell| cell.status().state == State::Ready;
            is_ready(cell) && next.cell(cell.name()).is_some_and(|next| !is_ready(next))
        });
        if let Some(cell) = lost {
            let reason = next.cell(cell.name()).and_then(|next| next.status().reason);
            let error = Error::Worse {
                generation: number,
                plugin: cell.name().clone(),
                reason: reason.unwrap_or_default(),
            };
            next.stop(Some(&previous), STOP_TIMEOUT);
            return Err(error);
        }
        self.host.store(next.clone());
        next.connect(&settings.links);
        let ready = next.cells().filter(|cell| cell.status().state == State::Ready).count();
        let plugins = next.cells().count();
        tracing::info!(generation = number, plugins, ready, "generation loaded");
        settings.hooks.tell(&Event::Generation { number, plugins, ready });
        previous.stop(Some(&next), STOP_TIMEOUT);
        Ok(())
    }
}
