//! HTTP: paths, bodies and problems. Every handler is one call.

mod input;
mod routes;

use axum::extract::DefaultBodyLimit;
use axum::http::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Router, middleware};
use modunest_core::api::{BODY_MAX_BYTES, DOWNLOADS_PATH};
use modunest_core::keys::{CachePolicy, HEALTH_PATH, READY_PATH};
use modunest_core::problem::{Code, Refusal};
use modunest_runtime::problem::ProblemResponse;

use crate::Functions;
use crate::error::Error;

/// What `Retry-After` says, in seconds, when a service does not answer: about as long as a
/// restart takes.
const RETRY_AFTER_SECS: &str = "2";

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct ApiError(Refusal);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        ApiError(error.into_refusal())
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        ApiError(refusal)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.0.code;
        let mut response = ProblemResponse::from(self.0).into_response();
        let headers = response.headers_mut();
        match code {
            Code::Unauthenticated => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Code::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECS));
            }
            _ => {}
        }
        response
    }
}

/// Every path, as the table in `core::api` lists them.
pub(crate) fn router(functions: Functions) -> Router {
    let router = Router::new()
        .route("/v1/releases", post(routes::publish))
        .route("/v1/sessions/{session}", get(routes::session).delete(routes::cancel))
        .route("/v1/statements", post(routes::statement))
        .route("/v1/whoami", get(routes::who_am_i))
        .route("/v1/users", post(routes::create_user))
        .route("/v1/tokens", post(routes::create_token))
        .route("/v1/tokens/{id}", delete(routes::delete_token))
        .route("/v1/orgs", post(routes::create_org))
        .route("/v1/orgs/{org}", get(routes::org))
        .route(
            "/v1/orgs/{org}/members/{user}",
            put(routes::set_member).delete(routes::remove_member),
        )
        .route("/v1/orgs/{org}/keys", post(routes::register_key))
        .route("/v1/orgs/{org}/keys/{hash}/rotate", post(routes::rotate_key))
        .route("/v1/orgs/{org}/keys/{hash}/revoke", post(routes::revoke_key))
        .route("/v1/plugins/{org}/{name}/quarantine", post(routes::quarantine))
        .route("/v1/plugins/{org}/{name}/trust", post(routes::set_trust))
        .route(DOWNLOADS_PATH, post(routes::count_downloads))
        .route("/v1/plugins/{org}/{name}/downloads", get(routes::downloads))
        .route(HEALTH_PATH, get(routes::health))
        .route(READY_PATH, get(routes::ready))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(middleware::map_response(no_store))
        .with_state(functions);
    modunest_runtime::trace::layer(router)
}

async fn not_found() -> ApiError {
    Refusal::new(Code::NotFound, "there is nothing at this path; see the API's table of paths")
        .into()
}

async fn method_not_allowed() -> ApiError {
    Refusal::new(
        Code::MethodNotAllowed,
        "this path takes other methods; the Allow header names them",
    )
    .into()
}

/// Whatever does not say otherwise is about somebody or about now.
async fn no_store(mut response: Response) -> Response {
    let value = HeaderValue::from_static(CachePolicy::NoStore.header_value());
    response.headers_mut().entry(CACHE_CONTROL).or_insert(value);
    response
}
