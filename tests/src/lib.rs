//! The harness of the end-to-end tests: it starts the real programs as child processes, each
//! with its own ports and folders, and speaks to them as any third party could.
//!
//! In scope: starting, killing and reading the logs of programs ([`process`], [`registry`],
//! [`agent`]), a small publisher of our own ([`client`]), plugins to publish ([`fixtures`]),
//! exchanges to the letter ([`raw`]), parts in the test's own process ([`site`]), the worker in
//! its runtime ([`workerd`]), an issuer of users' tokens ([`issuer`]),
//! a reader that proves the whole index ([`snapshot`]) and a server that lies ([`liar`]),
//! and texts that are the same in every run ([`stable`]).
//! Not in scope: anything that would stand in for a real part of the system.
//!
//! Everything here panics where it cannot go on: that is how a test fails, at the line that
//! was wrong, and each program's log is shown with it.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// Problems are what many tests are about; a box around each would only be in the way.
#![allow(clippy::result_large_err)]

pub mod process;

pub mod agent;
pub mod registry;

pub mod client;
pub mod fixtures;
pub mod raw;

pub mod gate;
pub mod origin;
pub mod site;
pub mod tools;

pub mod deployed;
pub mod issuer;
pub mod lambda;
pub mod workerd;

pub mod liar;
pub mod snapshot;
pub mod stable;
