//! Rates of work on one thread: operations a second of CPU time, because time on the wall is
//! other people's too.

use std::time::Duration;

use crate::error::Error;
use crate::host::process_cpu_time;
use crate::stats;

/// Turns of each kind of work; the figures are medians over them.
const ROUNDS: usize = 9;
/// Length of one turn.
const TURN: Duration = Duration::from_millis(150);

/// Work in pieces; each says how many operations it did.
pub type Work<'a> = &'a mut dyn FnMut() -> Result<u64, Error>;

/// Operations a second of each kind of work. They take turns.
pub fn rates<const N: usize>(mut works: [Work<'_>; N]) -> Result<[f64; N], Error> {
    let mut all = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (work, rates) in works.iter_mut().zip(&mut all) {
            rates.push(turn(work)?);
        }
    }
    Ok(all.map(stats::median))
}

fn turn(work: &mut Work<'_>) -> Result<f64, Error> {
    let begun = process_cpu_time();
    let mut operations = 0;
    loop {
        operations += work()?;
        let taken = process_cpu_time() - begun;
        if taken >= TURN {
            return Ok(operations as f64 / taken.as_secs_f64());
        }
    }
}
