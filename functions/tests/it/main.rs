//! The write side against the embedded services: what publishers, members and administrators
//! see, and what readers find in the public bucket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod faulty;
mod log;
mod package;
mod registry;
mod runtime_api;

mod crash;
mod downloads;
mod identity;
mod lambda;
mod publish;
mod refuse;
mod sequence;
mod simulate;
mod statements;
