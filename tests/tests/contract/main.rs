//! The HTTP contract: one table of requests and answers, to the letter, that every shell keeps.
//! A difference between two shells, or between a shell and the table, is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod objects;
mod shells;
mod table;

mod api;
mod files;
mod forward;
mod streaming;

mod downloads;
mod faults;
