//! `/rswarm/users`, `/rswarm/audit`: people and what they did. Not in Docker.

use super::answer::Answer;
use super::{
    ApiError, State, filters,
    request::{Json, Params, Use},
    routing::{delete, door, get, post},
};
use crate::{convert, types};
use axum::{Router, extract::Path, http::StatusCode};
use model::{AuditRecord, Timestamp, User, UserId};
use proto::control::{
    CreateUserTokenReply, CreateUserTokenRequest, IssueUserCertificateRequest, LoginRequest,
    RemoveUserTokenRequest, RevokeUserCertificateRequest, SetPasswordRequest, UserSpec, create_request,
    update_request,
};

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/rswarm/users", get(list).post(door(create)))
        .route("/rswarm/users/{name}", get(inspect).delete(door(remove)))
        .route("/rswarm/users/{name}/update", post(update))
        .route("/rswarm/users/{name}/tokens", post(create_token))
        .route("/rswarm/users/{name}/tokens/{id}", delete(remove_token))
        .route("/rswarm/users/{name}/password", post(set_password))
        .route("/rswarm/users/{name}/certificate", post(issue_certificate))
        .route("/rswarm/users/{name}/certificates/{serial}", delete(revoke_certificate))
        .route("/rswarm/whoami", get(who_am_i))
        .route("/rswarm/login", post(login))
        .route("/rswarm/audit", get(audit))
}

async fn list(Use(state): Use<State>, params: Params) -> Result<Answer<Vec<types::User>>, ApiError> {
    let filters = params.filters(filters::USERS)?;
    let users = state.list::<User>().await?;
    let shown = users.iter().filter(|u| {
        filters.prefix("id", &u.id.to_string())
            && filters.prefix("name", &u.name)
            && filters.any("role", |r| r == u.role.word())
    });
    Ok(Answer(shown.map(|u| convert::user_json(u)).collect()))
}

async fn inspect(Use(state): Use<State>, Path(name): Path<String>) -> Result<Answer<types::User>, ApiError> {
    Ok(Answer(convert::user_json(&*state.find::<User>(&name).await?)))
}

fn spec(from: types::UserSpec) -> Result<UserSpec, ApiError> {
    let role = convert::person_role(&from.role, from.stacks)?;
    Ok(UserSpec { name: from.name, role: Some((&role).into()) })
}

async fn create(
    Use(state): Use<State>,
    Json(from): Json<types::UserSpec>,
) -> Result<(StatusCode, Answer<types::ObjectId>), ApiError> {
    let id: UserId = state.create(create_request::Spec::User(spec(from)?)).await?;
    Ok((StatusCode::CREATED, Answer(types::ObjectId { id: id.to_string() })))
}

async fn update(
    Use(state): Use<State>,
    Path(name): Path<String>,
    params: Params,
    Json(from): Json<types::UserSpec>,
) -> Result<(), ApiError> {
    let version = params.version("user")?;
    let user = state.find::<User>(&name).await?;
    state.update(user.id, version, update_request::Spec::User(spec(from)?)).await
}

async fn remove(Use(state): Use<State>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    let user = state.find::<User>(&name).await?;
    state.remove::<User>(user.id, false).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn lifetime(seconds: u64) -> Option<proto::types::Duration> {
    let nanos = seconds.saturating_mul(1_000_000_000);
    (seconds > 0).then_some(proto::types::Duration { nanos })
}

fn given(token: CreateUserTokenReply) -> Answer<types::GivenUserToken> {
    let expires_at = token.expires.map(|nanos| Timestamp(nanos).into());
    Answer(types::GivenUserToken { token: token.token, expires_at })
}

async fn create_token(
    Use(state): Use<State>,
    Path(user): Path<String>,
    Json(wanted): Json<types::NewUserToken>,
) -> Result<(StatusCode, Answer<types::GivenUserToken>), ApiError> {
    let lifetime = lifetime(wanted.lifetime_seconds);
    let request = CreateUserTokenRequest { user, label: wanted.label, lifetime };
    let reply = state.control().await?.create_user_token(request).await?.into_inner();
    Ok((StatusCode::CREATED, given(reply)))
}

async fn remove_token(
    Use(state): Use<State>,
    Path((user, token)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    state.control().await?.remove_user_token(RemoveUserTokenRequest { user, token }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_password(
    Use(state): Use<State>,
    Path(user): Path<String>,
    Json(wanted): Json<types::UserPassword>,
) -> Result<StatusCode, ApiError> {
    let request = SetPasswordRequest { user, password: wanted.password };
    state.control().await?.set_password(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn issue_certificate(
    Use(state): Use<State>,
    Path(user): Path<String>,
    Json(wanted): Json<types::UserCertificateRequest>,
) -> Result<(StatusCode, Answer<types::UserCertificate>), ApiError> {
    let lifetime = lifetime(wanted.lifetime_seconds);
    let request = IssueUserCertificateRequest { user, csr: wanted.csr, lifetime };
    let reply = state.control().await?.issue_user_certificate(request).await?.into_inner();
    Ok((StatusCode::CREATED, Answer(types::UserCertificate { chain: reply.chain })))
}

async fn revoke_certificate(
    Use(state): Use<State>,
    Path((user, serial)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let request = RevokeUserCertificateRequest { user, serial };
    state.control().await?.revoke_user_certificate(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn who_am_i(Use(state): Use<State>) -> Result<Answer<types::WhoAmI>, ApiError> {
    let known = state.who_am_i().await?;
    let (role, stacks) = convert::person_role_json(&known.role);
    Ok(Answer(types::WhoAmI { name: known.name, role, stacks, swarm: known.swarm.to_string() }))
}

/// Whoever knows a password need not prove anything else.
async fn login(
    Use(state): Use<State>,
    Json(from): Json<types::UserLogin>,
) -> Result<(StatusCode, Answer<types::GivenUserToken>), ApiError> {
    let door = state.asker().at_the_door();
    let request = LoginRequest {
        user: from.name,
        password: from.password,
        label: from.token.label,
        lifetime: lifetime(from.token.lifetime_seconds),
        from: door.from(),
    };
    let mut control = state.swarm().control(&door).await?;
    Ok((StatusCode::CREATED, given(control.login(request).await?.into_inner())))
}

/// `?since=&until=&user=&object=`, newest last. `object` is a kind, a name, or both as in `service web`.
async fn audit(Use(state): Use<State>, params: Params) -> Result<Answer<Vec<types::AuditRecord>>, ApiError> {
    let (since, until) = (params.moment("since")?, params.moment("until")?);
    let records = state.list::<AuditRecord>().await?;
    let shown = records.iter().filter(|record| {
        let at = record.meta.created_at;
        since.is_none_or(|since| at >= since)
            && until.is_none_or(|until| at <= until)
            && params.get("user").is_none_or(|user| record.person == user)
            && params.get("object").is_none_or(|object| is_about(record, object))
    });
    Ok(Answer(shown.map(|record| convert::audit_json(record)).collect()))
}

fn is_about(record: &AuditRecord, object: &str) -> bool {
    let (kind, name) = record.object.split_once(' ').unwrap_or((&record.object, ""));
    record.object == object || kind == object || name == object
}
