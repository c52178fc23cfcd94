//! What it costs that everything is proven: checks against the machine's hash rate, sequencing
//! against the embedded services, an agent's way to the newest state, and the bytes of it all.

mod proofs;
mod publishes;
mod volume;

pub mod population;
mod rate;
mod registry;

use crate::error::Error;
use crate::report::Report;

/// Measures all.
pub fn run() -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Io { what: "threads".to_owned(), source })?;
    let mut report = Report::begin("trust");
    proofs::measure(&mut report)?;
    runtime.block_on(publishes::measure(&mut report))?;
    volume::measure(&mut report)?;
    Ok(report)
}
