//! The embedded services through the AWS SDK, their only client.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod conditions;
mod crash;
mod dynamodb;
mod events;
mod harness;
mod objects;
mod signatures;
mod start;
mod uploads;
