//! The witness over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use modunest_tlog::{SIZE_CONTENT_TYPE, SUBMISSION_MAX_BYTES, SUBMISSION_PATH};

use super::{NotCosigned, Refusal, Witness};

/// How long a request's body may take: 128 KiB in 30 seconds are 4 KiB a second.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The witness's one call, at `/add-checkpoint`.
pub fn router(witness: Arc<Witness>) -> Router {
    let path = format!("/{SUBMISSION_PATH}");
    modunest_runtime::trace::layer(
        Router::new().route(&path, post(add_checkpoint)).with_state(witness),
    )
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, request: Request) -> Response {
    let body = match read(request.into_body()).await {
        Ok(body) => body,
        Err((status, text)) => return plain(status, text),
    };
    let now = modunest_runtime::clock::now();
    // It waits for the disk and for other requests about the same log.
    let judged = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body, now)).await;
    match judged {
        Ok(Ok(line)) => plain(StatusCode::OK, line),
        Ok(Err(NotCosigned::Refused(refusal))) => refused(&refusal),
        Ok(Err(error @ NotCosigned::Store(_))) => {
            tracing::error!(%error, "nothing is cosigned until this is repaired");
            plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the witness cannot write its state\n".to_owned(),
            )
        }
        Err(error) => {
            tracing::error!(%error, "a submission broke the witness");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the witness failed\n".to_owned())
        }
    }
}

async fn read(body: Body) -> Result<Vec<u8>, (StatusCode, String)> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, SUBMISSION_MAX_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a submission has at most {SUBMISSION_MAX_BYTES} bytes: {error}\n"),
        )),
        Err(_) => Err((
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} seconds\n", BODY_TIMEOUT.as_secs()),
        )),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Malformed(_) | Refusal::OldSize { .. } => StatusCode::BAD_REQUEST,
        Refusal::UnknownLog(_) => StatusCode::NOT_FOUND,
        Refusal::Unsigned(_) => StatusCode::FORBIDDEN,
        // The body of this status is the size alone, so that the log can try again from it.
        Refusal::Stale { known } | Refusal::Forked { known, .. } => {
            let headers = [(CONTENT_TYPE, SIZE_CONTENT_TYPE)];
            return (StatusCode::CONFLICT, headers, format!("{known}\n")).into_response();
        }
        Refusal::Inconsistent(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    plain(status, format!("{refusal}\n"))
}

fn plain(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
