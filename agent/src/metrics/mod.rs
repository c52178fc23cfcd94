//! What is counted: per plugin in a [`Meter`], with its processor time; of the process in
//! [`process`]; and all of it in Prometheus' text form by [`prometheus`].

pub(crate) mod cpu;
mod histogram;
mod links;
mod meter;
pub mod process;
pub mod prometheus;

pub use histogram::{Histogram, Latency};
pub(crate) use meter::pass_untimed;
pub use meter::{Begun, Meter, Outcome, Reading, Waiting};
