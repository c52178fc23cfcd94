//! Clocks, random numbers and environment variables.

use std::time::Duration;

use super::form::{Form as _, answer, form};
use super::{CLOCK_MONOTONIC, CLOCK_WALL, ENVIRONMENT, RANDOM};
use crate::{Error, Host};

/// Most random bytes of one request.
pub const RANDOM_MAX_BYTES: usize = 64 * 1024;

form! {
    /// An environment variable of the host.
    Variable<'a> {
        /// Its name.
        name: &'a str,
    }
}
form! {
    /// Its value.
    VariableValue {
        /// None where it is not set.
        value: Option<String>,
    }
}

impl Host {
    /// Milliseconds since 1970 on the host's clock, with `clock:wall`.
    ///
    /// # Errors
    /// [`Error::Denied`] where it is not granted.
    pub fn wall_clock_ms(&self) -> Result<u64, Error> {
        answer(&self.operate(CLOCK_WALL, &[])?)
    }

    /// Time that passed since some moment before the plugin was loaded, with
    /// `clock:monotonic`.
    ///
    /// # Errors
    /// [`Error::Denied`] where it is not granted.
    pub fn monotonic_clock(&self) -> Result<Duration, Error> {
        answer(&self.operate(CLOCK_MONOTONIC, &[])?).map(Duration::from_nanos)
    }

    /// Random bytes, fit for secrets, with `random:secure`.
    ///
    /// # Errors
    /// [`Error::Denied`] where it is not granted, [`Error::InvalidInput`] above
    /// [`RANDOM_MAX_BYTES`].
    pub fn random(&self, count: u32) -> Result<Vec<u8>, Error> {
        let bytes = self.operate(RANDOM, &count.encode())?;
        if bytes.len() == count as usize {
            Ok(bytes)
        } else {
            Err(Error::Failed(format!("the host answered {} random bytes", bytes.len())))
        }
    }

    /// The value of an environment variable of the host, with `env:NAME`; none where it is not
    /// set.
    ///
    /// # Errors
    /// [`Error::Denied`] where it is not granted.
    pub fn environment(&self, name: &str) -> Result<Option<String>, Error> {
        let bytes = self.operate(ENVIRONMENT, &Variable { name }.encode())?;
        Ok(answer::<VariableValue>(&bytes)?.value)
    }
}
