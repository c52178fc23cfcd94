//! Operations 100 to 199: services by handle, and events.
//!
//! | Number | Request | Answer |
//! |---|---|---|
//! | [`OPEN_SERVICE`] | `org/plugin:service`, UTF-8 | the handle's 16 bytes, then the version of the service's contract |
//! | [`CALL_SERVICE`] | the handle's 16 bytes, one byte with the length of the method's name, the name (none where the service has no methods), the payload | what the service answers |
//! | [`PUBLISH`] | one byte with the length of the event's name, the name, the payload | nothing |
//!
//! A handle is a random number that the host made for this one plugin and this one import. In
//! any other plugin's hands it opens nothing.

use crate::abi::MAX_MESSAGE_BYTES;
use crate::{Error, Host};

/// Opens an imported service.
pub const OPEN_SERVICE: u32 = 100;
/// Calls an opened service.
pub const CALL_SERVICE: u32 = 101;
/// Publishes an event.
pub const PUBLISH: u32 = 110;

/// Bytes of a handle: 128 random bits, which nobody guesses.
pub const HANDLE_BYTES: usize = 16;
/// Most bytes of an event's payload. An event says that something happened; a full queue of
/// 1,024 of them stays at a quarter GiB.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// An opened service of another plugin. Copies are free and may go to any thread.
#[derive(Clone, Debug)]
pub struct Service {
    host: Host,
    handle: [u8; HANDLE_BYTES],
    version: String,
}

impl Host {
    /// Opens the service `service` of the plugin `plugin` (`org/name`), which the manifest must
    /// import. The handle holds until this instance ends, also while the other plugin reloads.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if it is not imported or not granted, [`Error::NotFound`] if the plugin
    /// exports no such service, [`Error::Unavailable`] if the plugin is not there.
    pub fn open_service(&self, plugin: &str, service: &str) -> Result<Service, Error> {
        let answer = self.operate(OPEN_SERVICE, format!("{plugin}:{service}").as_bytes())?;
        let (handle, version) = answer
            .split_first_chunk::<HANDLE_BYTES>()
            .ok_or_else(|| Error::Failed("the host answered no handle".to_owned()))?;
        let version = String::from_utf8_lossy(version).into_owned();
        Ok(Service { host: *self, handle: *handle, version })
    }

    /// Publishes an event that the manifest declares. It reaches every plugin that receives it,
    /// in the order in which it was published, at least once while the host's process lives.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the manifest declares no such event, [`Error::InvalidInput`] above
    /// [`MAX_EVENT_BYTES`] or against the event's schema, [`Error::Unavailable`] if a receiver's
    /// queue is full; with `when_full = "wait"`, [`Error::DeadlineExceeded`] if it stays so.
    pub fn publish(&self, event: &str, payload: &[u8]) -> Result<(), Error> {
        self.operate(PUBLISH, &named(event, payload)?).map(drop)
    }
}

impl Service {
    /// Calls a service without methods.
    ///
    /// # Errors
    ///
    /// As [`Host::service`].
    pub fn call(&self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        self.call_method("", payload)
    }

    /// Calls a method of the service.
    ///
    /// # Errors
    ///
    /// As [`Host::service`]; [`Error::Denied`] if the manifest does not import the method.
    pub fn call_method(&self, method: &str, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request = [&self.handle[..], &named(method, payload)?].concat();
        self.host.operate(CALL_SERVICE, &request)
    }

    /// Version of the service's contract, as its plugin declares it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

fn named(name: &str, payload: &[u8]) -> Result<Vec<u8>, Error> {
    let length = u8::try_from(name.len())
        .map_err(|_| Error::InvalidInput(format!("a name of {} bytes", name.len())))?;
    let size = HANDLE_BYTES + 1 + name.len() + payload.len();
    if size > MAX_MESSAGE_BYTES {
        return Err(Error::InvalidInput(format!(
            "a payload of {} bytes is above the limit",
            payload.len()
        )));
    }
    Ok([&[length], name.as_bytes(), payload].concat())
}

/// The call of a service by handle, for hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleCall<'a> {
    /// The handle.
    pub handle: [u8; HANDLE_BYTES],
    /// The method, or nothing.
    pub method: &'a str,
    /// What it is called with.
    pub payload: &'a [u8],
}

/// Reads a request of [`CALL_SERVICE`].
///
/// # Errors
///
/// [`Error::InvalidInput`] with what does not fit.
pub fn read_call(request: &[u8]) -> Result<HandleCall<'_>, Error> {
    let (handle, rest) = request
        .split_first_chunk::<HANDLE_BYTES>()
        .ok_or_else(|| Error::InvalidInput("a call without a handle".to_owned()))?;
    let (method, payload) = read_named(rest)?;
    Ok(HandleCall { handle: *handle, method, payload })
}

/// Reads a request of [`PUBLISH`]: the event's name and the payload.
///
/// # Errors
///
/// [`Error::InvalidInput`] with what does not fit.
pub fn read_publish(request: &[u8]) -> Result<(&str, &[u8]), Error> {
    let (name, payload) = read_named(request)?;
    if payload.len() > MAX_EVENT_BYTES {
        return Err(Error::InvalidInput(format!(
            "an event of {} bytes is above the limit of {MAX_EVENT_BYTES}; let it say where to fetch the rest",
            payload.len()
        )));
    }
    Ok((name, payload))
}

fn read_named(request: &[u8]) -> Result<(&str, &[u8]), Error> {
    let malformed = || Error::InvalidInput("the request ends within its name".to_owned());
    let (length, rest) = request.split_first().ok_or_else(malformed)?;
    let (name, payload) = rest.split_at_checked(usize::from(*length)).ok_or_else(malformed)?;
    let name = std::str::from_utf8(name)
        .map_err(|_| Error::InvalidInput("the request's name is not UTF-8".to_owned()))?;
    Ok((name, payload))
}

/// What holds for any bytes; the fuzz target and the corpus test call this.
///
/// # Panics
/// When a promise is broken: that is a bug in a reader.
#[doc(hidden)]
pub fn check_readers(bytes: &[u8]) -> bool {
    let call = read_call(bytes);
    if let Ok(call) = call {
        let name = named(call.method, call.payload);
        assert_eq!(name.map(|name| [&call.handle[..], &name].concat()).as_deref(), Ok(bytes));
    }
    let event = read_publish(bytes);
    if let Ok((name, payload)) = event {
        assert!(payload.len() <= MAX_EVENT_BYTES);
        assert_eq!(named(name, payload).as_deref(), Ok(bytes));
    }
    call.is_ok() || event.is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let event = named("added", b"payload").unwrap();
        assert_eq!(read_publish(&event), Ok(("added", &b"payload"[..])));
        let call = [&[7; HANDLE_BYTES][..], &named("get", b"key").unwrap()].concat();
        let read = HandleCall { handle: [7; HANDLE_BYTES], method: "get", payload: b"key" };
        assert_eq!(read_call(&call), Ok(read));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for bytes in [&b""[..], b"\x02a", b"\x01\xff"] {
            assert!(read_publish(bytes).is_err(), "{bytes:?}");
            assert!(read_call(&[&[0; HANDLE_BYTES], bytes].concat()).is_err(), "{bytes:?}");
        }
        assert!(read_call(&[0; HANDLE_BYTES - 1]).is_err());
        assert!(named(&"x".repeat(256), b"").is_err());
        let large = named("a", &vec![0; MAX_EVENT_BYTES + 1]).unwrap();
        assert!(read_publish(&large).unwrap_err().to_string().contains("above the limit"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..proptest::test_runner::Config::with_cases(500) })]

        #[test]
        fn any_bytes_keep_the_promises(start in 0_usize..8, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let mut all = b"\x05addedpayload"[..start].to_vec();
            all.extend(bytes);
            check_readers(&all);
        }
    }
}
