//! Problems as HTTP answers.

use ::http::StatusCode;
use ::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use modunest_core::problem::{PROBLEM_CONTENT_TYPE, Problem, Refusal};

/// A problem on its way out.
#[derive(Debug, Clone)]
pub struct ProblemResponse(pub Problem);

/// Takes the trace of the present task.
impl From<Refusal> for ProblemResponse {
    fn from(refusal: Refusal) -> Self {
        ProblemResponse(refusal.into_problem(crate::trace::current_id()))
    }
}

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = [(CONTENT_TYPE, PROBLEM_CONTENT_TYPE), (CACHE_CONTROL, "no-store")];
        (status, headers, self.0.to_json()).into_response()
    }
}
