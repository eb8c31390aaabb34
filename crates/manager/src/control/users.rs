//! Users of the swarm: their roles and what they prove themselves with.

use super::{ControlService, edit, invalid};
use crate::{
    audit::{Deed, Judge},
    authorize::Caller,
};
use model::{
    CERTIFICATES_MAX, Change, Duration, Meta, Object, Person, PersonRole, STACK_PATTERNS_MAX, SecretBytes,
    TOKENS_MAX, Tables, Timestamp, USERS_MAX, User, UserCertificate, UserId, UserToken,
};
use pki::{PASSWORD_BYTES, PersonCertificate, PersonToken, RootCa, hash_password, password_matches};
use proto::{
    control::{
        CreateUserTokenReply, CreateUserTokenRequest, IssueUserCertificateReply, IssueUserCertificateRequest,
        LoginRequest, RemoveUserTokenRequest, RevokeUserCertificateRequest, SetPasswordRequest, UserSpec,
    },
    types::{self, ObjectKind},
};
use std::sync::Arc;
use tonic::Status;

/// *Limit* of a user's name, a label, a stack pattern. *Unit:* bytes.
const NAME_BYTES_MAX: usize = 64;
/// As long as a revoked one is remembered at most.
const CERTIFICATE_LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// How long a password waits for its turn to be looked at.
const LOGIN_WAIT: Duration = Duration::from_secs(10);

/// Returns a new user.
pub(super) fn new_user(view: &Tables, id: UserId, spec: UserSpec) -> Result<User, Status> {
    if view.users.len() >= USERS_MAX {
        return Err(Status::resource_exhausted(format!("the swarm has {USERS_MAX} users already")));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name = &spec.name;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(good) {
        return Err(Status::invalid_argument(format!(
            "invalid user name {name:?}: letters, digits, '.', '_' and '-', at most {NAME_BYTES_MAX}"
        )));
    }
    let role = role(spec.role)?;
    Ok(User {
        id,
        meta: Meta::default(),
        name: spec.name,
        role,
        password: None,
        tokens: Vec::new(),
        certificates: Vec::new(),
    })
}

/// Returns the user with another role.
pub(super) fn updated_user(old: &User, spec: UserSpec) -> Result<User, Status> {
    if spec.name != old.name {
        return Err(Status::invalid_argument("only the role of a user can be changed"));
    }
    Ok(User { role: role(spec.role)?, ..old.clone() })
}

fn role(wire: Option<types::PersonRole>) -> Result<PersonRole, Status> {
    let role = wire.ok_or_else(|| Status::invalid_argument("a user needs a role"))?;
    let role = PersonRole::try_from(role).map_err(invalid)?;
    if let PersonRole::Deploy { stacks } = &role {
        if stacks.len() > STACK_PATTERNS_MAX {
            return Err(Status::invalid_argument(format!("more than {STACK_PATTERNS_MAX} stack patterns")));
        }
        if let Some(bad) = stacks.iter().find(|s| s.is_empty() || s.len() > NAME_BYTES_MAX) {
            return Err(Status::invalid_argument(format!("invalid stack pattern {bad:?}")));
        }
    }
    Ok(role)
}

fn named(view: &Tables, wanted: &str) -> Result<Arc<User>, Status> {
    match edit::find(view, ObjectKind::User, wanted)? {
        Object::User(user) => Ok(user),
        other => Err(Status::internal(format!("{} is no user", other.key()))),
    }
}

fn put(user: User) -> Vec<Change> {
    vec![Change::Put(Object::User(Arc::new(user)))]
}

/// Returns a user's new token and when it expires.
fn token(
    user: UserId,
    label: &str,
    lifetime: Option<types::Duration>,
    now: Timestamp,
) -> Result<(PersonToken, UserToken), Status> {
    if label.len() > NAME_BYTES_MAX {
        return Err(Status::invalid_argument(format!("a label has at most {NAME_BYTES_MAX} bytes")));
    }
    let expires = match lifetime {
        None => None,
        Some(types::Duration { nanos: 0 }) => return Err(Status::invalid_argument("a token of no life")),
        Some(life) => Some(now.after(Duration::from_nanos(life.nanos))),
    };
    let shown = PersonToken::generate(user).map_err(|e| Status::internal(e.to_string()))?;
    let kept = UserToken {
        id: shown.id.clone(),
        hash: SecretBytes(shown.hash().to_vec()),
        label: label.to_owned(),
        created: now,
        expires,
    };
    Ok((shown, kept))
}

/// Returns the user with one more token; those that have expired make room.
fn with_token(user: &User, token: UserToken, now: Timestamp) -> Result<User, Status> {
    let mut user = user.clone();
    if user.tokens.len() >= TOKENS_MAX {
        user.tokens.retain(|t| t.is_valid_at(now));
    }
    if user.tokens.len() >= TOKENS_MAX {
        return Err(Status::resource_exhausted(format!(
            "user {} has {TOKENS_MAX} tokens; hint: rswarm user token rm {0} TOKEN",
            user.name
        )));
    }
    if user.tokens.iter().any(|t| t.id == token.id) {
        return Err(Status::aborted("another token has this id by chance"));
    }
    user.tokens.push(token);
    Ok(user)
}

/// Returns the user with one more certificate; those that have expired are forgotten.
fn with_certificate(user: &User, certificate: UserCertificate, now: Timestamp) -> Result<User, Status> {
    let mut user = user.clone();
    user.certificates.retain(|known| known.expires > now);
    if user.certificates.len() >= CERTIFICATES_MAX {
        return Err(Status::resource_exhausted(format!(
            "user {} has {CERTIFICATES_MAX} certificates that have not expired, revoked ones among them; hint: give \
             them shorter lives, or a token instead: rswarm user token create {0}",
            user.name
        )));
    }
    user.certificates.push(certificate);
    Ok(user)
}

/// Returns the user without this certificate's use.
fn without_certificate(user: &User, serial: &str, now: Timestamp) -> Result<User, Status> {
    let mut user = user.clone();
    user.certificates.retain(|known| known.expires > now);
    let Some(certificate) = user.certificates.iter_mut().find(|known| known.serial == serial) else {
        return Err(Status::not_found(format!(
            "user {} has no certificate {serial}; hint: rswarm user inspect {0}",
            user.name
        )));
    };
    certificate.revoked = true;
    Ok(user)
}

impl ControlService {
    pub(super) async fn new_token(
        &self,
        caller: &Caller,
        request: &CreateUserTokenRequest,
    ) -> Result<CreateUserTokenReply, Status> {
        let deed = Deed::new(caller.person()?, "create token");
        let decided = self.0.decide_for(deed, 0, |view| {
            let (user, now) = (named(view, &request.user)?, (self.0.clock)());
            let (shown, kept) = token(user.id, &request.label, request.lifetime, now)?;
            let expires = kept.expires.map(|at| at.0);
            Ok(((shown.to_string(), expires), put(with_token(&user, kept, now)?)))
        });
        let (_, (token, expires)) = decided.await?;
        Ok(CreateUserTokenReply { token, expires })
    }

    pub(super) async fn forget_token(
        &self,
        caller: &Caller,
        request: &RemoveUserTokenRequest,
    ) -> Result<(), Status> {
        let deed = Deed::new(caller.person()?, "remove token");
        let decided = self.0.decide_for(deed, 0, |view| {
            let mut user = User::clone(&*named(view, &request.user)?);
            let before = user.tokens.len();
            user.tokens.retain(|t| t.id != request.token);
            if user.tokens.len() == before {
                return Err(Status::not_found(format!("user {} has no token {}", user.name, request.token)));
            }
            Ok(((), put(user)))
        });
        decided.await.map(drop)
    }

    pub(super) async fn new_password(
        &self,
        caller: &Caller,
        request: SetPasswordRequest,
    ) -> Result<(), Status> {
        // Judged before a second of a processor is spent on it, and again with what is written.
        let person = caller.person()?;
        if person.role != PersonRole::Admin {
            let (object, reason) = (format!("user {}", request.user), "changing users takes role admin");
            return Err(self.0.refused(person, "set password", &object, reason).await);
        }
        named(&self.0.store.view(), &request.user)?;
        let hash = if request.password.is_empty() {
            None
        } else if PASSWORD_BYTES.contains(&request.password.len()) {
            let hashed = self.one_at_a_time(move || hash_password(&request.password)).await?;
            Some(SecretBytes(hashed.map_err(|e| Status::internal(e.to_string()))?))
        } else {
            return Err(Status::invalid_argument(format!(
                "a password has {} to {} bytes",
                PASSWORD_BYTES.start(),
                PASSWORD_BYTES.end()
            )));
        };
        let action = if hash.is_some() { "set password" } else { "remove password" };
        let decided = self.0.decide_for(Deed::new(person, action), 0, |view| {
            let user = named(view, &request.user)?;
            Ok(((), put(User { password: hash.clone(), ..User::clone(&user) })))
        });
        decided.await.map(drop)
    }

    /// Lets in whoever knows a user's password. Whether there is such a user, and whether it has a password, takes as
    /// long to find out as whether the password is right.
    pub(super) async fn log_in(
        &self,
        caller: &Caller,
        request: LoginRequest,
    ) -> Result<CreateUserTokenReply, Status> {
        let via = caller.node()?;
        let known = self.0.store.view().user_named(&request.user).cloned();
        let stored = known.as_ref().and_then(|user| user.password.clone());
        let (password, hash) = (request.password, stored.clone());
        let right = self
            .one_at_a_time(move || password_matches(&password, hash.as_ref().map(|h| h.0.as_slice())))
            .await?;
        let who = |role| Person { name: request.user.clone(), role, from: request.from.clone(), via };
        let Some(user) = known.filter(|_| right) else {
            let object = format!("user {}", request.user);
            self.0.refused(&who(PersonRole::Read), "login", &object, "wrong name or password").await;
            return Err(Status::unauthenticated("wrong name or password"));
        };
        let person = who(user.role.clone());
        let deed = Deed { judged_by: Judge::Nobody, ..Deed::new(&person, "login") };
        let decided = self.0.decide_for(deed, 0, |view| {
            let gone = || Status::unauthenticated("wrong name or password");
            let current = view.users.get(&user.id).filter(|u| u.password == stored).ok_or_else(gone)?;
            let now = (self.0.clock)();
            let (shown, kept) = token(current.id, &request.label, request.lifetime, now)?;
            let expires = kept.expires.map(|at| at.0);
            Ok(((shown.to_string(), expires), put(with_token(current, kept, now)?)))
        });
        let (_, (token, expires)) = decided.await?;
        Ok(CreateUserTokenReply { token, expires })
    }

    pub(super) async fn new_certificate(
        &self,
        caller: &Caller,
        request: &IssueUserCertificateRequest,
    ) -> Result<IssueUserCertificateReply, Status> {
        let life = request.lifetime.map_or(Duration::ZERO, |life| Duration::from_nanos(life.nanos));
        if life.is_zero() || life > CERTIFICATE_LIFE_MAX {
            return Err(Status::invalid_argument("a user's certificate is good for at most 366 days"));
        }
        let person = caller.person()?;
        let view = self.0.store.view();
        let user = named(&view, &request.user)?;
        let deed = Deed { judged_by: Judge::Admin, ..Deed::new(person, "issue certificate") };
        let decided = self.0.decide_for(deed, 0, |view| {
            let known = view.users.get(&user.id);
            let user = known.ok_or_else(|| Status::not_found(format!("user {} not found", request.user)))?;
            let cluster = super::stored_cluster(view)?;
            let internal = |e: String| Status::internal(format!("cannot sign: {e}"));
            let key =
                String::from_utf8(cluster.root_ca_key.0.clone()).map_err(|e| internal(e.to_string()))?;
            let root = RootCa::from_pem(&cluster.root_ca_cert, &key).map_err(|e| internal(e.to_string()))?;
            let now = (self.0.clock)();
            let chain = root
                .sign_user_csr_at(now, &request.csr, user.id, cluster.id, life)
                .map_err(|e| Status::invalid_argument(model::with_causes(&e)))?;
            let serial = PersonCertificate::from_pem(&chain).map_err(|e| internal(e.to_string()))?.serial;
            let issued = UserCertificate { serial, issued: now, expires: now.after(life), revoked: false };
            Ok((chain, put(with_certificate(user, issued, now)?)))
        });
        let (_, chain) = decided.await?;
        Ok(IssueUserCertificateReply { chain })
    }

    pub(super) async fn revoke_certificate(
        &self,
        caller: &Caller,
        request: &RevokeUserCertificateRequest,
    ) -> Result<(), Status> {
        let message = format!("certificate {}", request.serial);
        let deed = Deed { message, ..Deed::new(caller.person()?, "revoke certificate") };
        let decided = self.0.decide_for(deed, 0, |view| {
            let user = named(view, &request.user)?;
            Ok(((), put(without_certificate(&user, &request.serial, (self.0.clock)())?)))
        });
        decided.await.map(drop)
    }

    /// Runs what is slow on purpose beside the asynchronous threads, two at once and no more.
    async fn one_at_a_time<T: Send + 'static>(
        &self,
        slow: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let turn = tokio::time::timeout(LOGIN_WAIT, self.0.logins.clone().acquire_owned()).await;
        let busy = || Status::resource_exhausted("too many logins at once; hint: try again in a moment");
        let _turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        tokio::task::spawn_blocking(slow).await.map_err(|e| Status::internal(e.to_string()))
    }
}
