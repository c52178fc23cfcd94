//! What every Modu-Nest process shares: the parts of a shell that are the same in the
//! functions, at the edge, in the agent and in the command line tool.
//!
//! In scope: logging, the W3C trace context of the present task and its spans, clock and random numbers,
//! HTTP clients, problem answers, signals, and AWS clients (feature `aws`). Out of scope:
//! decisions of any kind; they live in `modunest-core`.

pub mod clock;
pub mod http;
pub mod logging;
pub mod problem;
pub mod random;
pub mod shutdown;
pub mod telemetry;
pub mod trace;

#[cfg(feature = "aws")]
pub mod aws;
