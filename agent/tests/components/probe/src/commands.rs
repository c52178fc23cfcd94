//! What a request's body tells it to do with other plugins:
//!
//! ```text
//! publish EVENT PAYLOAD            publishes an event
//! call PLUGIN SERVICE PAYLOAD      calls a service by name
//! open PLUGIN:SERVICE              answers the handle in hexadecimal digits, then the version
//! handle HEX METHOD PAYLOAD        calls a service by handle; the method "-" is none
//! seen                             answers what its guards and events saw, a line each
//! ```

use modunest_sdk::Error;
use modunest_sdk::links::{CALL_SERVICE, HANDLE_BYTES, OPEN_SERVICE};

use crate::{Probe, text};

pub(crate) fn run(probe: &Probe, body: &[u8]) -> Result<Vec<u8>, Error> {
    let (command, rest) = word(text(body)?);
    match command {
        "seen" => Ok(probe.seen().into_bytes()),
        "publish" => {
            let (event, payload) = word(rest);
            probe.host.publish(event, payload.as_bytes()).map(|()| Vec::new())
        }
        "call" => {
            let (plugin, rest) = word(rest);
            let (service, payload) = word(rest);
            probe.host.service(plugin, service, payload.as_bytes())
        }
        "open" => {
            let answer = probe.host.operate(OPEN_SERVICE, rest.as_bytes())?;
            let (handle, version) = answer
                .split_first_chunk::<HANDLE_BYTES>()
                .ok_or_else(|| Error::failed("no handle"))?;
            let digits: String = handle.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok([digits.as_bytes(), b" ", version].concat())
        }
        "handle" => {
            let (digits, rest) = word(rest);
            let (method, payload) = word(rest);
            let method = if method == "-" { "" } else { method };
            let mut request = Vec::new();
            for at in (0..digits.len()).step_by(2) {
                let pair = digits.get(at..at + 2).unwrap_or_default();
                request.push(u8::from_str_radix(pair, 16).map_err(Error::invalid_input)?);
            }
            request.push(method.len() as u8);
            request.extend_from_slice(method.as_bytes());
            request.extend_from_slice(payload.as_bytes());
            probe.host.operate(CALL_SERVICE, &request)
        }
        other => Err(Error::invalid_input(format!("no such command: {other}"))),
    }
}

/// Cuts the first word off.
fn word(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}
