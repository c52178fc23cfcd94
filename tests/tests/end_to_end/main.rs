//! What users see, through the real programs: each test starts its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod archive;
mod manifest;
mod publish;
mod upload;

mod identity;
mod secrets;
mod statements;
mod traces;

mod read_side;

mod agent;
mod lies;
mod metrics;
mod resolve;
mod users;

mod commands;
mod component;
mod demo;
mod dev;
mod embedded;

mod crash;
mod load;
