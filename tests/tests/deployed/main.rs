//! A registry out of deployed parts, the local one with the worker, and clients of others.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod registry;
mod up;

mod cache;
mod clients;

mod kms;
mod trust_root;
