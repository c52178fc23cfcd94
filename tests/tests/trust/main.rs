//! Who checks the registry, through the real programs: witnesses, the sequencer's collection of
//! their cosignatures, monitors, and people who follow the chain of proof.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod ledger;
mod witness_process;

mod collect;
mod monitor;
mod quorum;
mod registry;
mod verify;
mod witness;
