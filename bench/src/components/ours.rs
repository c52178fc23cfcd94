//! Our side: the functions that an agent calls for what it has proven and unpacked.

use std::path::Path;

use modunest_core::name::PluginName;

use super::plugins::component;
use super::{Measured, SERVICE, measure};
use crate::error::Error;
use crate::plain::{self, Tier, call};

/// Loads, calls each once, and then the first again and again.
pub fn run(folder: &Path, state: &Path, count: usize) -> Result<Measured, Error> {
    let settings = Tier::Component.settings(state)?;
    let names = (0..count).map(name).collect::<Result<Vec<_>, _>>()?;
    let prepared = names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let path = component(folder, number);
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            plain::component(name, "", &bytes, state)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    measure(
        count,
        || {
            let host = plain::load(prepared, &settings, state)?;
            for cell in host.cells() {
                cell.call(call(SERVICE, b"x")).map_err(Error::wrong("a call"))?;
            }
            let first = plain::cell(&host, &name(0)?)?.clone();
            Ok((host, first))
        },
        |(_, cell), payload| {
            let answer = cell.call(call(SERVICE, payload));
            Ok(answer.map_err(Error::wrong("a call"))?.into_vec())
        },
    )
}

/// The component with a number.
pub fn name(number: usize) -> Result<PluginName, Error> {
    format!("bench/component-{number}").parse().map_err(Error::wrong("a plugin's name"))
}
