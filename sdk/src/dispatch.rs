//! From a request as it crosses the border to the method of [`Plugin`] that serves it: the same
//! in every tier.

use crate::abi::RequestKind;
use crate::stream::{Piece, StreamRequest};
use crate::{Error, GuardRequest, Hook, HttpRequest, Plugin, Request};

/// Serves a request whose texts have been checked.
pub(crate) fn dispatch<P: Plugin>(
    plugin: &P,
    kind: u32,
    request: Request<'_>,
) -> Result<Vec<u8>, Error> {
    let nothing = |()| Vec::new();
    match RequestKind::from_number(kind) {
        Some(RequestKind::Service) => plugin.call(request),
        Some(RequestKind::Http) => {
            let request = HttpRequest::decode(request.payload).map_err(Error::invalid_input)?;
            let response = plugin.http(request)?;
            response
                .encode()
                .map_err(|error| Error::failed(format!("the plugin's own response: {error}")))
        }
        Some(RequestKind::Lifecycle) => match Hook::from_name(request.target) {
            Some(Hook::BeforeLoad) => plugin.before_load().map(nothing),
            Some(Hook::AfterLoad) => plugin.after_load().map(nothing),
            Some(Hook::BeforeUnload) => plugin.before_unload().map(nothing),
            Some(Hook::AfterUnload) => plugin.after_unload().map(nothing),
            Some(Hook::OnError) => {
                plugin.on_error(&String::from_utf8_lossy(request.payload)).map(nothing)
            }
            None => Err(Error::Unsupported(format!("no lifecycle hook `{}`", request.target))),
        },
        Some(RequestKind::Guard) => {
            let asked = GuardRequest::decode(request.target, request.payload);
            plugin.guard(asked.map_err(Error::invalid_input)?).map(|decision| decision.encode())
        }
        Some(RequestKind::Event) => plugin.event(request).map(nothing),
        Some(RequestKind::Stream) => StreamRequest::decode(request.target, request.payload)
            .and_then(|request| plugin.stream(request))
            .map(Piece::encode),
        None => Err(Error::Unsupported(format!("requests of kind {kind} are unknown here"))),
    }
}
