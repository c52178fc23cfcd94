//! What is counted: per plugin in a [`Meter`], of the process in [`process`], and all of it in
//! Prometheus' text form by [`prometheus`].

mod histogram;
mod links;
mod meter;
pub mod process;
pub mod prometheus;

pub use histogram::{Histogram, Latency};
pub use meter::{Begun, Meter, Outcome, Reading, Waiting};
