//! Turns of ours, bare wasmtime and another plugin host, each in a fresh process.

use std::path::Path;

use super::{
    CALL_RATIO_MAX, LOAD_RATIO_MAX, Measured, PEER_CALL_RATIO_MAX, PEER_LOAD_RATIO_MAX, ROUNDS,
    extism,
};
use crate::error::Error;
use crate::report::{Row, Target};
use crate::{process, stats};

/// Who else runs components or modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The engine by itself, with the same component.
    Wasmtime,
    /// Another plugin host, with an echo made by its own kit.
    Extism,
}

impl Peer {
    /// Both of them.
    pub const ALL: [Peer; 2] = [Peer::Wasmtime, Peer::Extism];

    /// What a load with its first call may take of theirs.
    pub fn load_target(self) -> Target {
        Target::RatioMax(match self {
            Peer::Wasmtime => LOAD_RATIO_MAX,
            Peer::Extism => PEER_LOAD_RATIO_MAX,
        })
    }

    /// What a call may take of theirs.
    pub fn call_target(self) -> Target {
        Target::RatioMax(match self {
            Peer::Wasmtime => CALL_RATIO_MAX,
            Peer::Extism => PEER_CALL_RATIO_MAX,
        })
    }
}

/// What each has measured, turn by turn.
#[derive(Default)]
pub struct Turns {
    ours: Vec<Measured>,
    bare: Vec<Measured>,
    theirs: Vec<Measured>,
}

impl Turns {
    /// Takes them, with `count` plugins of `folder`, on one processor or on any. `library` is the
    /// other host's.
    pub fn take(
        folder: &Path,
        state: &Path,
        library: &Path,
        count: usize,
        processor: Option<usize>,
    ) -> Result<Self, Error> {
        let turn = |child: &str| -> Result<Measured, Error> {
            let mut command = process::own(&[child], processor)?;
            command.arg(folder).arg(state).arg(count.to_string());
            if child == extism::CHILD {
                command.arg("--library").arg(library);
            }
            process::ask(command)
        };
        let mut turns = Self::default();
        // The first turn of each fills the caches: ours and the other host's compile.
        for round in 0..=ROUNDS {
            let all = [turn("components-ours")?, turn("components-bare")?, turn(extism::CHILD)?];
            if round > 0 {
                let [ours, bare, theirs] = all;
                turns.ours.push(ours);
                turns.bare.push(bare);
                turns.theirs.push(theirs);
            }
        }
        Ok(turns)
    }

    /// The medians of a figure, ours against a peer's.
    pub fn row(
        &self,
        what: String,
        unit: &'static str,
        peer: Peer,
        get: &dyn Fn(&Measured) -> f64,
    ) -> Row {
        let median = |all: &[Measured]| stats::median(all.iter().map(get).collect());
        let (name, theirs) = match peer {
            Peer::Wasmtime => ("wasmtime", &self.bare),
            Peer::Extism => ("extism", &self.theirs),
        };
        Row::new(what, unit, median(&self.ours)).against(name, median(theirs))
    }
}
