//! What native plugins put into their private folders by themselves: the kernel bounds each file,
//! and nobody but the agent bounds all of them together.

use std::sync::Arc;
use std::time::Instant;

use modunest_core::name::PluginName;

use super::{Cell, Host, State, Tier};

/// Files and folders that one look goes through before it leaves the other plugins to the next.
const ENTRIES_PER_LOOK: u64 = 50_000;

impl Host {
    /// Counts the private folders of native plugins in processes of their own, those behind `last`
    /// first, and ends the processes of those whose folder is above its quota. Their files stay.
    /// Answers where the next look goes on. Blocks.
    ///
    /// A look begins no folder once it has gone through [`ENTRIES_PER_LOOK`], and counts none
    /// further than one entry above its quota.
    pub(crate) fn look_into_folders(
        &self,
        last: Option<&PluginName>,
        now: Instant,
    ) -> Option<PluginName> {
        let all = self.cells.values();
        let before = all.clone().filter(|cell| last.is_some_and(|last| cell.name() <= last));
        let behind = all.filter(|cell| last.is_none_or(|last| cell.name() > last));
        let mut entries = 0;
        for cell in behind.chain(before) {
            let writers: Vec<Arc<Cell>> =
                self.instances(cell).into_iter().filter(|one| one.writes_by_itself()).collect();
            if writers.is_empty() {
                continue;
            }
            let look = cell.operations().look_into_folder(now);
            if let Some(excess) = look.excess {
                let ended = writers.iter().filter(|writer| writer.end_for_good(&excess)).count();
                if ended > 0 {
                    tracing::error!(plugin = %cell.name(), excess, "a plugin's process is ended");
                }
            }
            entries += look.entries;
            if entries >= ENTRIES_PER_LOOK {
                return Some(cell.name().clone());
            }
        }
        None
    }

    /// All instances of a plugin: the one that serves, one that is tried, and those that are kept.
    fn instances(&self, cell: &Arc<Cell>) -> Vec<Arc<Cell>> {
        let tried = cell.trial().map(|trial| trial.canary().clone());
        let kept = self.kept().into_iter().filter(|kept| kept.name() == cell.name());
        [cell.clone()].into_iter().chain(tried).chain(kept).collect()
    }
}

impl Cell {
    /// Whether it runs where only the kernel sees what it writes.
    fn writes_by_itself(&self) -> bool {
        self.is_loaded()
            && self.meant_for() == Tier::Process
            && self.status().state != State::Failed
    }
}
