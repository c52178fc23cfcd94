//! Our log, read by a checker that nobody here wrote: Go's `golang.org/x/mod/sumdb/tlog` and
//! `note`, from Debian, driven by `tests/peers/tlog/main.go`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod made;
mod reader;
mod registry;
