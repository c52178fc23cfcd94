//! A generation beside the running one, and the switch to it.

use std::sync::Arc;

use super::{Inner, STOP_TIMEOUT};
use crate::Error;
use crate::config::Config;
use crate::embed::Event;
use crate::host::{Plan, State, load_all, prepare, switch};
use crate::store::{Fresh, Proven};

impl Inner {
    /// Loads a generation beside the running one, by this configuration, and switches to it.
    /// Blocks. What was loaded when the agent has stopped meanwhile is stopped as well.
    pub(super) fn load(
        &self,
        config: &Config,
        proven: Vec<Proven>,
        fresh: Fresh,
        number: u64,
    ) -> Result<(), Error> {
        let previous = self.host.load_full();
        let (wanted, settings) = (&config.plugins, &config.host);
        let prepared = prepare(self.syncer.store(), proven, fresh);
        let plan = Plan::build(prepared, wanted, settings, &self.resources, Some(&previous));
        let next = Arc::new(load_all(plan, settings));
        let lost = previous.cells().find(|cell| {
            let next = next.cell(cell.name());
            cell.status().state.serves() && next.is_some_and(|next| !next.status().state.is_up())
        });
        let switched = match lost {
            Some(cell) => {
                let reason = next.cell(cell.name()).and_then(|next| next.status().reason);
                let (plugin, reason) = (cell.name().clone(), reason.unwrap_or_default());
                Err(Error::Worse { generation: number, plugin, reason })
            }
            None => switch(&previous, &next, &settings.lifecycle)
                .map_err(|error| Error::NotSwitched { generation: number, error }),
        };
        if let Err(error) = switched {
            next.stop(Some(&previous), STOP_TIMEOUT);
            // What it uses may have been stopped.
            return Err(if self.is_over() { Error::Stopping } else { error });
        }
        if !self.take_into_service(&next) {
            next.stop(None, STOP_TIMEOUT);
            return Err(Error::Stopping);
        }
        self.end_lost_trials(&previous, &next);
        next.connect(&settings.links);
        let ready = next.cells().filter(|cell| cell.status().state == State::Ready).count();
        let plugins = next.cells().count();
        tracing::info!(generation = number, plugins, ready, "generation loaded");
        settings.hooks.tell(&Event::Generation { number, plugins, ready });
        previous.stop(Some(&next), STOP_TIMEOUT);
        Ok(())
    }
}
