//! What comes in: the caller, path segments and JSON bodies.

use std::fmt::Display;
use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use modunest_core::api::BODY_MAX_BYTES;
use modunest_core::name::{OrgName, PluginName};
use modunest_core::problem::{Code, Refusal};
use serde::de::DeserializeOwned;

use super::ApiError;
use crate::Functions;
use crate::identity::Caller;

/// Handlers that take a caller are open to nobody without a good token.
impl FromRequestParts<Functions> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        functions: &Functions,
    ) -> Result<Self, ApiError> {
        Ok(functions.authenticate(&parts.headers).await?)
    }
}

/// A JSON body.
pub(super) struct Input<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Functions> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, functions: &Functions) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, functions).await.map_err(|rejection| {
            let text = rejection.body_text();
            match rejection.into_response().status() {
                StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(
                    Code::TooLarge,
                    format!("a body has at most {BODY_MAX_BYTES} bytes"),
                ),
                _ => Refusal::new(
                    Code::InvalidRequest,
                    format!("the body could not be read: {text}"),
                ),
            }
        })?;
        serde_json::from_slice(&bytes).map(Input).map_err(|error| {
            Refusal::new(
                Code::InvalidRequest,
                format!("the body is not the JSON that this path takes: {error}"),
            )
            .into()
        })
    }
}

/// The variable segments of the path.
pub(super) struct Segments(Vec<(String, String)>);

impl FromRequestParts<Functions> for Segments {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        functions: &Functions,
    ) -> Result<Self, ApiError> {
        let raw = RawPathParams::from_request_parts(parts, functions)
            .await
            .map_err(|_| Refusal::new(Code::NotFound, "a segment of the path is not text"))?;
        Ok(Segments(raw.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }
}

impl Segments {
    /// A segment by its name in the route.
    pub(super) fn get<T>(&self, name: &str, code: Code) -> Result<T, ApiError>
    where
        T: FromStr<Err: Display>,
    {
        let text =
            self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
        text.parse()
            .map_err(|error| Refusal::new(code, format!("{{{name}}} in the path: {error}")).into())
    }

    /// The plugin of a path with `{org}` and `{name}`.
    pub(super) fn plugin(&self) -> Result<PluginName, ApiError> {
        let org: OrgName = self.get("org", Code::InvalidName)?;
        let name: String = self.get("name", Code::InvalidName)?;
        format!("{org}/{name}").parse().map_err(|error| {
            Refusal::new(Code::InvalidName, format!("{{name}} in the path: {error}")).into()
        })
    }
}
