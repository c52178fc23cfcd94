//! What a plugin author depends on.
//!
//! A plugin is a type that implements [`Plugin`], exported by
//! [`export_plugin!`] from a crate of type `cdylib`:
//!
//! ```
//! use modunest_sdk::{Error, Host, Plugin, Request, export_plugin};
//!
//! struct Shout;
//!
//! impl Plugin for Shout {
//!     fn create(_host: Host, _config: &[u8]) -> Result<Self, Error> {
//!         Ok(Self)
//!     }
//!
//!     fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
//!         match request.target {
//!             "shout" => Ok(request.payload.to_ascii_uppercase()),
//!             other => Err(Error::not_found(format!("no service `{other}`"))),
//!         }
//!     }
//! }
//!
//! export_plugin!(Shout);
//! ```
//!
//! In scope: the trait and what it speaks in ([`Request`], [`http`], [`Error`],
//! [`Host`], [`guard`], [`links`]), the native ABI ([`abi`], and `include/modunest.h` for C), the world of
//! components (`wit/`, a folder a version), the glue between each and the trait
//! (`native` and `component`, whichever the crate is built for), and a scripted host
//! for a plugin's own tests (`testing`, native only). Not in scope: loading
//! libraries, which is the agent's.
//!
//! A plugin's source names nothing that exists only natively, so that the same
//! source is built as a component by `--target wasm32-unknown-unknown`.

pub mod abi;
#[cfg(target_arch = "wasm32")]
pub mod component;
mod dispatch;
mod error;
mod export;
pub mod guard;
mod host;
pub mod http;
pub mod identity;
pub mod links;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
pub mod operation;
mod plugin;
pub mod stream;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use error::{Error, Status};
pub use guard::{Decision, GuardRequest};
pub use host::{Host, Level};
pub use http::{HttpRequest, HttpResponse};
pub use identity::Identity;
pub use links::Service;
pub use plugin::{Hook, Plugin, Request};
