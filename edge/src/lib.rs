//! The read side of Modu-Nest.
//!
//! Every read is an object in the public bucket, through a cache. What a request means and
//! which headers its answer carries is decided by pure functions in [`plan`], from facts
//! about the request and about the object; they know no runtime and build for wasm32. A
//! shell gathers the facts, asks, and carries the answer out: `native` is the axum shell
//! over an S3 bucket, `worker` the one that runs as WebAssembly at Cloudflare's edge.
//!
//! Out of scope: any decision about who may publish or what is published. Requests below
//! `/v1/` are passed on to the API as they stand.

pub mod plan;

#[cfg(not(target_arch = "wasm32"))]
pub mod native;

#[cfg(target_arch = "wasm32")]
mod worker;
