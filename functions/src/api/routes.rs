//! One handler a path and method, in the order of the table in `core::api`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use modunest_core::api::{
    CreateOrg, CreateToken, CreateUser, DownloadBatch, OrgView, PublishRequest, PublishResponse,
    RegisterKey, RevokeKey, RotateKey, SessionView, SetMember, SetQuarantine, SetTrust,
    StatementRequest, StatementResponse, TokenCreated, UserView, WhoAmI,
};
use modunest_core::keys::CachePolicy;
use modunest_core::problem::Code;
use serde_json::{Value, json};

use super::ApiError;
use super::input::{Input, Segments};
use crate::Functions;
use crate::identity::Caller;

type Answer<T> = Result<Json<T>, ApiError>;
type Created<T> = Result<(StatusCode, Json<T>), ApiError>;

pub(super) async fn publish(
    State(functions): State<Functions>,
    caller: Caller,
    Input(request): Input<PublishRequest>,
) -> Answer<PublishResponse> {
    Ok(Json(Box::pin(functions.publish(&caller, &request)).await?))
}

pub(super) async fn session(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
) -> Answer<SessionView> {
    let id = segments.get("session", Code::NotFound)?;
    Ok(Json(functions.session_view(&caller, id).await?))
}

pub(super) async fn cancel(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
) -> Answer<SessionView> {
    let id = segments.get("session", Code::NotFound)?;
    Ok(Json(functions.cancel(&caller, id).await?))
}

pub(super) async fn statement(
    State(functions): State<Functions>,
    caller: Caller,
    Input(request): Input<StatementRequest>,
) -> Answer<StatementResponse> {
    Ok(Json(Box::pin(functions.state(&caller, &request)).await?))
}

pub(super) async fn who_am_i(caller: Caller) -> Json<WhoAmI> {
    Json(caller.who_am_i())
}

pub(super) async fn create_user(
    State(functions): State<Functions>,
    caller: Caller,
    Input(request): Input<CreateUser>,
) -> Created<UserView> {
    Ok((StatusCode::CREATED, Json(functions.create_user(&caller, request).await?)))
}

pub(super) async fn create_token(
    State(functions): State<Functions>,
    caller: Caller,
    Input(request): Input<CreateToken>,
) -> Created<TokenCreated> {
    Ok((StatusCode::CREATED, Json(functions.create_token(&caller, request).await?)))
}

pub(super) async fn delete_token(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
) -> Result<StatusCode, ApiError> {
    let id: String = segments.get("id", Code::NotFound)?;
    functions.delete_token(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn create_org(
    State(functions): State<Functions>,
    caller: Caller,
    Input(request): Input<CreateOrg>,
) -> Created<OrgView> {
    Ok((StatusCode::CREATED, Json(functions.create_org(&caller, request).await?)))
}

pub(super) async fn org(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
) -> Answer<OrgView> {
    let org = segments.get("org", Code::InvalidName)?;
    Ok(Json(functions.org_view(&caller, &org).await?))
}

pub(super) async fn set_member(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
    Input(request): Input<SetMember>,
) -> Answer<OrgView> {
    let org = segments.get("org", Code::InvalidName)?;
    let user = segments.get("user", Code::InvalidName)?;
    Ok(Json(functions.set_member(&caller, &org, &user, request.role).await?))
}

pub(super) async fn remove_member(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
) -> Answer<OrgView> {
    let org = segments.get("org", Code::InvalidName)?;
    let user = segments.get("user", Code::InvalidName)?;
    Ok(Json(functions.remove_member(&caller, &org, &user).await?))
}

pub(super) async fn register_key(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
    Input(request): Input<RegisterKey>,
) -> Created<StatementResponse> {
    let org = segments.get("org", Code::InvalidName)?;
    let answer = Box::pin(functions.register_key(&caller, &org, &request)).await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn rotate_key(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
    Input(request): Input<RotateKey>,
) -> Answer<StatementResponse> {
    let org = segments.get("org", Code::InvalidName)?;
    let hash: String = segments.get("hash", Code::NotFound)?;
    Ok(Json(Box::pin(functions.rotate_key(&caller, &org, &hash, &request)).await?))
}

pub(super) async fn revoke_key(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
    Input(request): Input<RevokeKey>,
) -> Answer<StatementResponse> {
    let org = segments.get("org", Code::InvalidName)?;
    let hash: String = segments.get("hash", Code::NotFound)?;
    Ok(Json(Box::pin(functions.revoke_key(&caller, &org, &hash, &request)).await?))
}

pub(super) async fn quarantine(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
    Input(request): Input<SetQuarantine>,
) -> Answer<StatementResponse> {
    let plugin = segments.plugin()?;
    Ok(Json(Box::pin(functions.quarantine(&caller, &plugin, &request)).await?))
}

pub(super) async fn set_trust(
    State(functions): State<Functions>,
    caller: Caller,
    segments: Segments,
    Input(request): Input<SetTrust>,
) -> Answer<StatementResponse> {
    let plugin = segments.plugin()?;
    Ok(Json(Box::pin(functions.set_trust(&caller, &plugin, &request)).await?))
}

pub(super) async fn count_downloads(
    State(functions): State<Functions>,
    caller: Caller,
    Input(batch): Input<DownloadBatch>,
) -> Result<StatusCode, ApiError> {
    Box::pin(functions.count_downloads(&caller, &batch)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn downloads(
    State(functions): State<Functions>,
    segments: Segments,
) -> Result<impl IntoResponse, ApiError> {
    let plugin = segments.plugin()?;
    let view = functions.downloads(&plugin).await?;
    Ok(([(CACHE_CONTROL, CachePolicy::Minutes.header_value())], Json(view)))
}

pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

pub(super) async fn ready(State(functions): State<Functions>) -> (StatusCode, Json<Value>) {
    let readiness = functions.ready().await;
    let state = |problem: &Option<String>| match problem {
        None => "ok",
        Some(reason) => {
            tracing::warn!(reason, "not ready");
            "unavailable"
        }
    };
    let status =
        if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "table": state(&readiness.table), "buckets": state(&readiness.buckets) });
    (status, Json(body))
}
