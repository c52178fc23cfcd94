//! Names, formats and decisions of Modu-Nest.
//!
//! In scope: everything that must come out the same in the command line tool, in the
//! functions, at the edge and in the agent: validated names, the manifest, the archive
//! gate, signed statements, the index tree, the trust root, the resolver, authorisation, the
//! API's types, the table of problems, object keys and cache headers.
//!
//! Out of scope: I/O of any kind. This crate has no async, clock, environment, network,
//! disk or random numbers; time comes in as an argument. It builds for
//! `wasm32-unknown-unknown`.
//!
//! The modules stand in the order of the story: what things are called, what an author
//! writes, what is packed, what is signed, what readers find, whom they believe, what is
//! decided, and what is said over HTTP.

pub mod digest;
pub mod name;
mod text;
pub mod time;

pub mod capability;
pub mod manifest;
pub mod relation;

pub mod archive;
pub mod scan;

pub mod statement;

pub mod index;

pub mod trust;

pub mod keys;

pub mod authorise;
pub mod publish;
pub mod resolve;
pub mod user;

pub mod bundle;
pub mod closure;

pub mod api;
pub mod problem;
pub mod trace;

pub use semver::{Version, VersionReq};
