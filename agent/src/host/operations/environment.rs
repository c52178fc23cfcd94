//! Clocks, random numbers and environment variables.

use std::sync::OnceLock;
use std::time::Instant;

use modunest_core::capability::{Capability, Clock};
use modunest_sdk::Error;
use modunest_sdk::operation::environment::{RANDOM_MAX_BYTES, Variable, VariableValue};
use modunest_sdk::operation::form::{Form as _, request as parse};
use modunest_sdk::operation::{CLOCK_MONOTONIC, CLOCK_WALL, RANDOM};

use super::Operations;
use crate::embed::Hooks;

/// Longest value of a variable that is handed on, in bytes.
const VALUE_MAX_BYTES: usize = 64 * 1024;

pub(super) fn serve(
    operations: &Operations,
    number: u32,
    request: &[u8],
) -> Result<Vec<u8>, Error> {
    match number {
        CLOCK_WALL => {
            nothing(request)?;
            operations.need(&Capability::Clock(Clock::Wall))?;
            Ok(modunest_runtime::clock::now().as_millis().encode())
        }
        CLOCK_MONOTONIC => {
            nothing(request)?;
            operations.need(&Capability::Clock(Clock::Monotonic))?;
            static START: OnceLock<Instant> = OnceLock::new();
            let passed = START.get_or_init(Instant::now).elapsed();
            // 584 years fit.
            Ok(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX).encode())
        }
        RANDOM => {
            let count = parse::<u32>(request)? as usize;
            operations.need(&Capability::Random)?;
            random(count)
        }
        _ => {
            let Variable { name } = parse(request)?;
            // Only what can stand in a manifest can be granted.
            let used = Capability::parse("env", name)
                .map_err(|error| Error::InvalidInput(error.to_string()))?;
            operations.need(&used)?;
            variable(operations.hooks(), name)
        }
    }
}

pub(super) fn nothing(request: &[u8]) -> Result<(), Error> {
    if request.is_empty() {
        Ok(())
    } else {
        Err(Error::InvalidInput("the request of this operation is empty".to_owned()))
    }
}

fn random(count: usize) -> Result<Vec<u8>, Error> {
    /// What is drawn at once.
    const PIECE_BYTES: usize = 256;
    if count > RANDOM_MAX_BYTES {
        let text = format!("{count} random bytes are above the limit of {RANDOM_MAX_BYTES}");
        return Err(Error::InvalidInput(text));
    }
    let mut bytes = vec![0; count];
    for piece in bytes.chunks_mut(PIECE_BYTES) {
        piece.copy_from_slice(&modunest_runtime::random::bytes::<PIECE_BYTES>()[..piece.len()]);
    }
    Ok(bytes)
}

fn variable(hooks: &Hooks, name: &str) -> Result<Vec<u8>, Error> {
    let value = match hooks.variable(name).map_err(Error::Failed)? {
        None => None,
        Some(value) => match value.into_string() {
            Ok(value) if value.len() <= VALUE_MAX_BYTES => Some(value),
            _ => {
                let text = format!("{name} is not UTF-8 or longer than {VALUE_MAX_BYTES} bytes");
                return Err(Error::Failed(text));
            }
        },
    };
    Ok(VariableValue { value }.encode())
}
