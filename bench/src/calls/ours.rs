//! Our side: calls of a loaded plugin, as the host makes them for whoever asks.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::{CALLS, Measured, PAYLOADS, Payload, echo_library};
use modunest_sdk::abi::OwnedBuffer;

use crate::error::Error;
use crate::folders;
use crate::plain::{self, Tier, call};

/// Calls from one plugin to another that one measurement makes.
const BETWEEN: [u32; 2] = [200_000, 20_000];

/// Measures the calls of a tier of native plugins. With `far`, the plugin's process is put on
/// that processor. For `shift` see [`Payload`].
pub fn run(tier: Tier, work: &Path, far: Option<usize>, shift: usize) -> Result<Measured, Error> {
    let (echo, asks) = ("bench/echo", "bench/asks");
    let name = |name: &str| name.parse().map_err(Error::wrong("a plugin's name"));
    let services = |name: &str| format!("\n[[service]]\nname = \"{name}\"\nversion = \"1.0.0\"\n");
    let uses = format!(
        "\n[dependencies]\n\"{echo}\" = \"^1\"\n\n[[import]]\nplugin = \"{echo}\"\nservice = \"echo\"\n{}",
        services("ask")
    );
    let library = echo_library(work)?;
    let library = std::fs::read(&library).map_err(Error::io(&library))?;
    let prepared = vec![
        plain::native(&name(echo)?, &services("echo"), &library, work)?,
        plain::native(&name(asks)?, &uses, &library, work)?,
    ];
    let host = plain::load(prepared, &tier.settings(work)?, work)?;
    let cell = |name: &str| {
        let missing = || Error::Wrong { what: "a plugin", why: format!("{name} is gone") };
        let name = name.parse().map_err(Error::wrong("a plugin's name"))?;
        host.cell(&name).ok_or_else(missing)
    };
    let (echo_cell, asks_cell) = (cell(echo)?, cell(asks)?);
    if let Some(far) = far {
        for pid in [echo_cell, asks_cell].map(|cell| cell.vitals().and_then(|seen| seen.pid)) {
            let pid = pid.ok_or_else(|| Error::Wrong {
                what: "a plugin's process",
                why: format!("there is none in the tier {}", tier.word()),
            })?;
            put_on(pid, far)?;
        }
    }
    let mut measured = Measured::default();
    for ((size, calls), between) in PAYLOADS.into_iter().zip(CALLS).zip(BETWEEN) {
        let calls = if tier == Tier::InProcess { calls * 20 } else { calls };
        let payload = Payload::new(size, shift);
        // The first calls make lanes and fill caches.
        for count in [calls / 20, calls] {
            let begun = Instant::now();
            for _ in 0..count {
                let mut answer = OwnedBuffer::EMPTY;
                let called = echo_cell.call_into(&call("echo", &payload), &mut answer);
                called.map_err(Error::wrong("a call"))?;
                if answer.len() != size {
                    let why = format!("{} bytes", answer.len());
                    return Err(Error::Wrong { what: "an echo", why });
                }
            }
            let took = begun.elapsed().as_nanos() as f64 / f64::from(count);
            if count == calls {
                measured.call_ns.push(took);
            }
        }
        let between = if tier == Tier::InProcess { between } else { between / 20 };
        let numbers = [between, u32::try_from(size).unwrap_or(u32::MAX)];
        let mut payload: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        payload.extend_from_slice(echo.as_bytes());
        let answer = asks_cell.call(call("ask", &payload)).map_err(Error::wrong("a call"))?;
        let text = String::from_utf8_lossy(&answer);
        measured.between_ns.push(text.parse().map_err(Error::wrong("a measurement"))?);
    }
    Ok(measured)
}

/// Puts all threads of a process on a processor.
fn put_on(pid: u32, processor: usize) -> Result<(), Error> {
    let taskset = folders::program("taskset", "install Debian's util-linux")?;
    let mut command = Command::new(taskset);
    command.args(["--all-tasks", "--cpu-list", "--pid"]);
    command.args([processor.to_string(), pid.to_string()]);
    let output = command.output();
    let output = output.map_err(|source| Error::Io { what: "taskset".to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = format!(": {}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Failed { program: "taskset".to_owned(), status: output.status, said })
}
