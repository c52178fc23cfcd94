//! The trait that a plugin implements.

use crate::stream::{Piece, StreamRequest};
use crate::{Decision, Error, GuardRequest, Host, HttpRequest, HttpResponse};

/// A call to one of the plugin's services or events.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// Name of the service or event.
    pub target: &'a str,
    /// What it is called with; each service documents its form.
    pub payload: &'a [u8],
    /// `org/name` of the calling plugin; `None` if the host itself calls.
    pub caller: Option<&'a str>,
    /// W3C `traceparent` of the call. [`Host::service`] passes it on by itself.
    pub trace: Option<&'a str>,
    /// When the caller stops waiting, on the clock of [`Host::now_ms`].
    pub deadline_ms: Option<u64>,
}

impl<'a> Request<'a> {
    /// A call by the host itself, without trace or deadline.
    #[must_use]
    pub const fn new(target: &'a str, payload: &'a [u8]) -> Self {
        Self { target, payload, caller: None, trace: None, deadline_ms: None }
    }
}

/// The moments of a plugin's life of which the host tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// The instance exists and its dependencies are loaded; no call has been
    /// let in yet. An error keeps the plugin from loading.
    BeforeLoad,
    /// Services and routes are open.
    AfterLoad,
    /// The plugin will be unloaded; calls still come in.
    BeforeUnload,
    /// Calls have drained; `stop` follows.
    AfterUnload,
    /// A call of this plugin failed or panicked; the payload is the text.
    OnError,
}

impl Hook {
    /// All hooks, in the order of a plugin's life.
    pub const ALL: [Self; 5] =
        [Self::BeforeLoad, Self::AfterLoad, Self::BeforeUnload, Self::AfterUnload, Self::OnError];

    /// The name that crosses the border as a request's target.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeLoad => "before-load",
            Self::AfterLoad => "after-load",
            Self::BeforeUnload => "before-unload",
            Self::AfterUnload => "after-unload",
            Self::OnError => "on-error",
        }
    }

    /// The hook with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }
}

/// A plugin. One value is one loaded instance.
///
/// Calls come from several threads at once, so state that changes sits behind a
/// lock or an atomic. A panic ends only the call in which it happens: the caller
/// gets it as an error, and the instance keeps serving.
pub trait Plugin: Send + Sync + Sized + 'static {
    /// Makes an instance from the operator's configuration: bytes in the form
    /// that the plugin documents, empty if there is none.
    ///
    /// # Errors
    ///
    /// Whatever keeps the plugin from working; it then does not load.
    fn create(host: Host, config: &[u8]) -> Result<Self, Error>;

    /// Serves a call to a service that the manifest exports.
    ///
    /// # Errors
    ///
    /// What the caller shall see. By default no service is known.
    fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        Err(Error::NotFound(format!("no service `{}`", request.target)))
    }

    /// Serves a request to a route that the manifest declares.
    ///
    /// # Errors
    ///
    /// What the gateway shall answer with, by [`Error::http_status`]. By default
    /// there is nothing at any path.
    fn http(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        Err(Error::NotFound(format!("nothing at `{}`", request.path)))
    }

    /// Decides for one of the manifest's guards whether a request may go on. It is asked
    /// before the route or the service, and sees no body.
    ///
    /// # Errors
    ///
    /// Why it cannot be decided; the request is then denied. By default no guard is known.
    fn guard(&self, request: GuardRequest) -> Result<Decision, Error> {
        Err(Error::Unsupported(format!("no guard `{}`", request.guard)))
    }

    /// Goes on with a stream that a response named: see [`crate::stream`], whose
    /// [`Streams`](crate::stream::Streams) does the work.
    ///
    /// # Errors
    ///
    /// What went wrong; the client's connection is cut. By default there is no stream.
    fn stream(&self, request: StreamRequest<'_>) -> Result<Piece, Error> {
        Err(Error::NotFound(format!("no stream {}", request.id)))
    }

    /// Takes note of an event that the manifest listens to; [`Request::caller`] is the plugin
    /// that published it. Events of one publisher come in order. One whose handling failed or
    /// took too long comes again, so the same event may come twice.
    ///
    /// # Errors
    ///
    /// Whatever made the event's handling fail. By default no event is known.
    fn event(&self, request: Request<'_>) -> Result<(), Error> {
        Err(Error::Unsupported(format!("no handler for event `{}`", request.target)))
    }

    /// Says whether the instance can do its work.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    fn health(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The state that a successor needs, in a form that the plugin chooses. Empty
    /// (the default) if there is none.
    ///
    /// # Errors
    ///
    /// Why the state cannot be written; a reload then leaves this instance serving.
    fn snapshot(&self) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }

    /// Takes over a predecessor's snapshot, perhaps of another version.
    ///
    /// # Errors
    ///
    /// Why it cannot be used. By default only the empty snapshot can.
    fn restore(&self, snapshot: &[u8]) -> Result<(), Error> {
        if snapshot.is_empty() {
            return Ok(());
        }
        Err(Error::Unsupported("this plugin keeps no state to restore".to_owned()))
    }

    /// Ends background work. Nothing is called afterwards; the value is dropped.
    ///
    /// # Errors
    ///
    /// What could not be ended; it is logged.
    fn stop(&self) -> Result<(), Error> {
        Ok(())
    }

    /// See [`Hook::BeforeLoad`].
    ///
    /// # Errors
    ///
    /// Why the plugin must not load.
    fn before_load(&self) -> Result<(), Error> {
        Ok(())
    }

    /// See [`Hook::AfterLoad`].
    ///
    /// # Errors
    ///
    /// What went wrong; it is logged.
    fn after_load(&self) -> Result<(), Error> {
        Ok(())
    }

    /// See [`Hook::BeforeUnload`].
    ///
    /// # Errors
    ///
    /// What went wrong; it is logged.
    fn before_unload(&self) -> Result<(), Error> {
        Ok(())
    }

    /// See [`Hook::AfterUnload`].
    ///
    /// # Errors
    ///
    /// What went wrong; it is logged.
    fn after_unload(&self) -> Result<(), Error> {
        Ok(())
    }

    /// See [`Hook::OnError`]. `text` says what failed.
    ///
    /// # Errors
    ///
    /// What went wrong; it is logged and reported no further.
    fn on_error(&self, text: &str) -> Result<(), Error> {
        let _ = text;
        Ok(())
    }
}
