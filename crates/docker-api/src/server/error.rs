//! Refusals as Docker words them: an HTTP status and `{"message": ..}`.

use super::Asker;
use super::answer::Answer;
use crate::types::ErrorBody;
use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tonic::Code;

/// What Docker says, word for word, to a cluster command on a host that is in no swarm.
pub const NOT_IN_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// What Docker says, word for word, to a cluster command on a worker. Source: moby `daemon/cluster/errors.go`.
pub const NOT_A_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";

/// What Docker says, word for word, to a cluster command on a manager that restarted with autolock on.
pub const SWARM_LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";

/// A request that failed. Source: Docker API "Errors".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $status:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self { status: StatusCode::$status, message: message.into() }
        }
    )*};
}

impl ApiError {
    constructors! {
        /// 400
        bad_request = BAD_REQUEST;
        /// 401
        unauthorized = UNAUTHORIZED;
        /// 403
        forbidden = FORBIDDEN;
        /// 404
        not_found = NOT_FOUND;
        /// 409
        conflict = CONFLICT;
        /// 500
        internal = INTERNAL_SERVER_ERROR;
        /// 501
        not_implemented = NOT_IMPLEMENTED;
        /// 503
        unavailable = SERVICE_UNAVAILABLE;
    }

    /// 503 in Docker's words: this host is in no swarm.
    pub fn not_in_swarm() -> Self {
        Self::unavailable(NOT_IN_SWARM)
    }

    /// 503 in Docker's words: this host is a worker, and who asks has shown no token.
    pub fn not_a_manager(asker: &Asker) -> Self {
        let hint = if asker.has_certificate() {
            "certificates of users are honoured by managers only; a token of a user is on any node"
        } else {
            "users of the swarm may use any node: log in with `rswarm user login`"
        };
        Self::unavailable(format!("{NOT_A_MANAGER}\nhint: {hint}"))
    }

    /// 403: nobody knows who asks.
    pub fn nobody() -> Self {
        Self::forbidden(
            "who asks for this is not known: over TCP the swarm takes orders from users with a token or certificate; \
             hint: log in with `rswarm user login`, or use the socket of a manager",
        )
    }

    /// 503 in Docker's words: this manager waits for its unlock key.
    pub fn swarm_locked() -> Self {
        Self::unavailable(SWARM_LOCKED)
    }

    /// 304: already so.
    pub fn not_modified() -> Self {
        Self { status: StatusCode::NOT_MODIFIED, message: String::new() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        let message = shortened(self.message);
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), error = %message, "request failed");
        }
        (self.status, Answer(ErrorBody { message })).into_response()
    }
}

/// *Limit* of the text of a refusal, which may repeat what was asked for, however long that was. *Unit:* bytes.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// Cuts a text that is too long to be read by anybody.
fn shortened(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push_str("...");
    }
    text
}

impl From<tonic::Status> for ApiError {
    /// Maps gRPC codes as dockerd does for SwarmKit's.
    fn from(status: tonic::Status) -> Self {
        let message = match status.code() {
            // Docker's clients look for these words.
            code if status.message().is_empty() => format!("rpc error: {code}"),
            code => format!("rpc error: code = {code:?} desc = {}", status.message()),
        };
        match status.code() {
            Code::NotFound => Self::not_found(status.message()),
            Code::InvalidArgument | Code::OutOfRange => Self::bad_request(message),
            Code::AlreadyExists => Self::conflict(message),
            // Docker answers 400 to a removal of something in use, and 500 "update out of sequence".
            Code::FailedPrecondition => Self::bad_request(message),
            Code::Aborted => Self::internal(message),
            Code::PermissionDenied | Code::Unauthenticated => Self::forbidden(message),
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => {
                Self::unavailable(message)
            }
            Code::Unimplemented => Self::not_implemented(message),
            Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
                Self::internal(message)
            }
        }
    }
}

impl From<proto::Invalid> for ApiError {
    fn from(error: proto::Invalid) -> Self {
        Self::internal(format!("a manager sent what this node cannot read: {error}"))
    }
}

impl From<crate::convert::Invalid> for ApiError {
    fn from(error: crate::convert::Invalid) -> Self {
        Self::bad_request(error.0)
    }
}

impl From<crate::detach_keys::NoKeys> for ApiError {
    fn from(error: crate::detach_keys::NoKeys) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<engine::Error> for ApiError {
    fn from(error: engine::Error) -> Self {
        let status = match error.kind() {
            engine::ErrorKind::NotFound => StatusCode::NOT_FOUND,
            engine::ErrorKind::Conflict => StatusCode::CONFLICT,
            engine::ErrorKind::InvalidParameter => StatusCode::BAD_REQUEST,
            engine::ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
            engine::ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            engine::ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, message: model::with_causes(&error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_does_not_repeat_all_that_was_asked_for() {
        assert_eq!(shortened("no such thing".into()), "no such thing");
        for unit in ["x", "é", "\u{1f980}"] {
            let cut = shortened(unit.repeat(MESSAGE_BYTES_MAX + 1));
            assert!(cut.starts_with(&unit.repeat(100)) && cut.ends_with("..."), "{unit}");
            assert!((MESSAGE_BYTES_MAX..=MESSAGE_BYTES_MAX + 3).contains(&cut.len()), "{unit}");
        }
    }
}
