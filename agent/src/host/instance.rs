//! The contract of a running plugin, whatever tier it runs in.

use modunest_sdk::Error;
use modunest_sdk::abi::{OwnedBuffer, RequestKind};

use super::Vitals;
use super::drive::Serving;
use super::native::NativeInstance;

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Service, route, hook or event.
    pub kind: RequestKind,
    /// Which one.
    pub target: &'a str,
    /// What it is called with.
    pub payload: &'a [u8],
    /// W3C `traceparent`, or empty.
    pub trace: &'a str,
    /// `org/name` of the calling plugin, or empty when the host itself calls.
    pub caller: &'a str,
    /// When the caller stops waiting, in Unix milliseconds; zero for never.
    pub deadline_ms: u64,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// The plugin was not called: it takes no calls now, it is left alone, or no place was free for
    /// the call until its deadline. It is not to blame for this call.
    Refused(Error),
    /// It failed at the call, or the call did not end.
    Failed(Error),
}

impl Unserved {
    /// What the caller hears.
    pub fn into_error(self) -> Error {
        match self {
            Unserved::Refused(error) | Unserved::Failed(error) => error,
        }
    }

    /// The same, still here.
    pub(super) fn error(&self) -> &Error {
        match self {
            Unserved::Refused(error) | Unserved::Failed(error) => error,
        }
    }
}

impl From<Error> for Unserved {
    fn from(error: Error) -> Self {
        Unserved::Failed(error)
    }
}

impl From<Unserved> for Error {
    fn from(unserved: Unserved) -> Self {
        unserved.into_error()
    }
}

/// A running plugin. Calls block, unless they are futures, and may come from several threads at
/// once. Dropping it frees it, once no call runs any more.
pub trait Instance: Send + Sync {
    /// Serves a call.
    ///
    /// # Errors
    /// What the plugin answered, or what became of it.
    fn call(&self, call: Call<'_>) -> Result<OwnedBuffer, Error>;

    /// Serves a call, and tells where the plugin was not called at all.
    ///
    /// # Errors
    /// As [`Instance::call`].
    fn try_call(&self, call: Call<'_>) -> Result<OwnedBuffer, Unserved> {
        self.call(call).map_err(Unserved::Failed)
    }

    /// Whether [`Instance::call_async`] holds no thread while it waits.
    fn is_async(&self) -> bool {
        false
    }

    /// Serves a call as a future. Where [`Instance::is_async`] says no, polling it blocks. A call
    /// whose future is dropped is given up.
    ///
    /// # Errors
    /// As [`Instance::try_call`].
    fn call_async<'a>(&'a self, call: Call<'a>) -> Serving<'a, Result<OwnedBuffer, Unserved>> {
        Box::pin(async move { self.try_call(call) })
    }

    /// Asks whether it can do its work.
    ///
    /// # Errors
    /// Why it cannot.
    fn health(&self) -> Result<(), Error>;

    /// The state that a successor needs.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn snapshot(&self) -> Result<Vec<u8>, Error>;

    /// Takes over a predecessor's state, before the first call.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn restore(&self, snapshot: &[u8]) -> Result<(), Error>;

    /// Ends background work; nothing is called afterwards.
    ///
    /// # Errors
    /// What could not be ended.
    fn stop(&self) -> Result<(), Error>;

    /// Starts anew what the plugin runs in, as after a crash: its calls fail, and its state is
    /// lost.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the tier cannot, [`Error::Unavailable`] where nothing runs.
    fn restart(&self, reason: &str) -> Result<(), Error> {
        let _ = reason;
        Err(Error::Unsupported("a plugin in this tier cannot be started anew".to_owned()))
    }

    /// Ends what the plugin runs in, for good and for this reason. Answers false where the tier
    /// cannot, or where nothing runs just now.
    fn end(&self, reason: &str) -> bool {
        let _ = reason;
        false
    }

    /// Whether a call of it goes on in this process: then it may cost less than a look at a
    /// clock, and not every call is timed.
    fn stays_in_process(&self) -> bool {
        true
    }

    /// How it does, seen from outside it.
    fn vitals(&self) -> Vitals {
        Vitals::in_process()
    }
}

/// What an [`Instance`] that stands for a plugin in a test has of a state: none, and nothing to stop.
#[cfg(test)]
macro_rules! without_state {
    () => {
        fn snapshot(&self) -> Result<Vec<u8>, modunest_sdk::Error> {
            Ok(Vec::new())
        }
        fn restore(&self, _: &[u8]) -> Result<(), modunest_sdk::Error> {
            Ok(())
        }
        fn stop(&self) -> Result<(), modunest_sdk::Error> {
            Ok(())
        }
    };
}
#[cfg(test)]
pub(super) use without_state;

/// A plugin that runs, as a [`Cell`](super::Cell) has it.
pub(super) enum Loaded {
    /// A library in this process: a call of it costs so little that the way to it counts.
    Library(NativeInstance),
    /// Anything else.
    Other(Box<dyn Instance>),
}

impl std::ops::Deref for Loaded {
    type Target = dyn Instance;

    fn deref(&self) -> &Self::Target {
        match self {
            Loaded::Library(library) => library,
            Loaded::Other(other) => other.as_ref(),
        }
    }
}

/// A call on its own.
#[derive(Clone, Debug)]
pub(crate) struct OwnedCall {
    pub(crate) kind: RequestKind,
    pub(crate) target: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) trace: String,
    pub(crate) caller: String,
    pub(crate) deadline_ms: u64,
}

impl OwnedCall {
    /// As it is made.
    pub(crate) fn call(&self) -> Call<'_> {
        Call {
            kind: self.kind,
            target: &self.target,
            payload: &self.payload,
            trace: &self.trace,
            caller: &self.caller,
            deadline_ms: self.deadline_ms,
        }
    }
}
