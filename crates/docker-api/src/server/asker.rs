//! Who asks: what a connection proved, and what the head of a request says.
//!
//! ```text
//!  unix socket         root, or its group      engine of this host; the swarm as its operator, on a manager
//!                      anybody else            the swarm with a token, and nothing without
//!  TCP                 -                       engine of this host, as Docker has it; the swarm with a token only
//!  TLS, operator's CA  common name             engine of this host; the swarm as its operator, on a manager
//!  TLS, swarm's CA     a user's certificate    the swarm in the user's role, on a manager
//!  tunnel              a manager's word        the containers of this host, in the role that the manager names
//!  relay, on a manager a token, by a worker    the containers of tasks, as a manager's own front door would let in
//! ```
//!
//! A token (`Authorization: Bearer`) makes any of them that user towards the swarm. Who asks travels with the
//! [`State`](super::State) that a route takes from its request: there is no other way to the engine or to a manager.

use super::ApiError;
use axum::http::{HeaderMap, header::AUTHORIZATION};
use model::{NodeId, PersonRole};
use proto::control::{Operator, PersonClaim, UserCertificate, person_claim::Proof};
use std::{fmt, net::SocketAddr};

/// Where a connection comes from, and what it proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A unix socket of this host, with root or a member of its group at the other end.
    Unix { uid: u32 },
    /// The same with somebody else there, whom the mode of its file let in.
    Outsider { uid: u32, group: String },
    /// TCP, where nobody proves anything.
    Tcp { addr: SocketAddr },
    /// TLS with a certificate.
    Tls { addr: SocketAddr, shown: Shown },
    /// Another node's front door: answered from this host alone.
    Peer,
    /// A worker's front door, whose word counts for nothing: a person with a token, who asks for containers of tasks.
    Relay(Relayed),
}

/// What a node passes on of a person. Never shows a token in logs.
#[derive(Clone, PartialEq)]
pub struct Relayed {
    pub claim: PersonClaim,
    /// Whose front door it is.
    pub node: NodeId,
}

impl Eq for Relayed {}

impl fmt::Debug for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relayed").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Whose certificate a client showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// One that the operator of this host has signed.
    Operator { name: String },
    /// One that the swarm has signed for a user: its id, and the certificate's serial number.
    User { id: Vec<u8>, serial: String },
}

/// The person behind a request. Never shows a token in logs.
#[derive(Clone, Default)]
pub struct Asker {
    claim: Option<PersonClaim>,
    engine: Reach,
    /// Of whom nothing is claimed.
    from: String,
    /// What is answered ends with the rights of the person in the swarm.
    tied: bool,
    /// The role in which the request was judged, if it was needed.
    judged_as: Option<PersonRole>,
    /// The engine is his as far as he may act in a container, not beyond.
    confined: bool,
    /// He is at a worker's front door.
    relayed: bool,
}

/// How much of this host's engine a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Reach {
    #[default]
    Nothing,
    Everything,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.claim.as_ref().and_then(|c| c.proof.as_ref()) {
            None => "nobody",
            Some(Proof::Operator(_)) => "operator",
            Some(Proof::Token(_)) => "token",
            Some(Proof::Certificate(_)) => "certificate",
        };
        write!(f, "Asker({how}, engine: {:?})", self.engine)
    }
}

impl Asker {
    /// Returns who asks. `hostname`: of this host.
    ///
    /// # Errors
    /// 401 when there is an `Authorization` that is no token's; 403 for somebody whom the socket is not for.
    pub(crate) fn of(origin: &Origin, headers: &HeaderMap, hostname: &str) -> Result<Self, ApiError> {
        let token = token(headers)?.map(Proof::Token);
        let (proof, from, engine) = match origin {
            Origin::Unix { uid } => {
                let operator = Operator { uid: *uid, name: account(*uid), host: hostname.to_owned() };
                let from = format!("unix uid {uid} on {hostname}");
                (Some(Proof::Operator(operator)), from, Reach::Everything)
            }
            Origin::Outsider { uid, .. } if token.is_some() => {
                (None, format!("unix uid {uid} on {hostname}"), Reach::Nothing)
            }
            Origin::Outsider { uid, group } => {
                let name = account(*uid);
                return Err(ApiError::forbidden(format!(
                    "{name} is neither root nor in group {group}, whom this socket is for; hint: usermod -aG {group} \
                     {name}, then log in anew, or show a token of a user of the swarm"
                )));
            }
            Origin::Tcp { addr } => (None, addr.to_string(), Reach::Everything),
            Origin::Tls { addr, shown: Shown::Operator { name } } => {
                let operator = Operator { uid: u32::MAX, name: name.clone(), host: hostname.to_owned() };
                (Some(Proof::Operator(operator)), addr.to_string(), Reach::Everything)
            }
            Origin::Tls { addr, shown: Shown::User { id, serial } } => {
                let certificate = UserCertificate { user: id.clone(), serial: serial.clone() };
                (Some(Proof::Certificate(certificate)), addr.to_string(), Reach::Nothing)
            }
            Origin::Peer => {
                return Ok(Self { engine: Reach::Everything, ..Self::default() });
            }
            Origin::Relay(Relayed { claim, .. }) => {
                let (claim, from) = (Some(claim.clone()), claim.from.clone());
                return Ok(Self { claim, from, relayed: true, ..Self::default() });
            }
        };
        let claim = token.or(proof).map(|proof| PersonClaim { proof: Some(proof), from: from.clone() });
        Ok(Self { claim, engine, from, ..Self::default() })
    }

    /// Returns what managers are told of the person; `None`: nobody has proved anything.
    pub fn claim(&self) -> Option<&PersonClaim> {
        self.claim.as_ref()
    }

    /// Returns who asks as histories name him: an operator's account and host, else where he comes from.
    pub(crate) fn person(&self) -> String {
        match self.claim.as_ref().map(|claim| (&claim.proof, &claim.from)) {
            Some((Some(Proof::Operator(operator)), _)) => format!("{}@{}", operator.name, operator.host),
            Some((_, from)) => from.clone(),
            None => self.from.clone(),
        }
    }

    /// Returns true if managers can check who asks by themselves, whichever node passes it on.
    pub fn has_token(&self) -> bool {
        matches!(self.claim, Some(PersonClaim { proof: Some(Proof::Token(_)), .. }))
    }

    /// Returns true if the person is a user of the swarm who proved it by a certificate.
    pub fn has_certificate(&self) -> bool {
        matches!(self.claim, Some(PersonClaim { proof: Some(Proof::Certificate(_)), .. }))
    }

    /// Returns nobody in particular, who comes from the same place and has a password to show.
    pub(crate) fn at_the_door(&self) -> Self {
        let claim = Some(PersonClaim { proof: None, from: self.from() });
        Self { claim, engine: Reach::Nothing, ..Self::default() }
    }

    /// Returns where the request came from, for people to read.
    pub(crate) fn from(&self) -> String {
        self.claim.as_ref().map_or_else(|| self.from.clone(), |claim| claim.from.clone())
    }

    /// Returns true if nothing was proved yet: good for a login and nothing else.
    pub fn is_at_the_door(&self) -> bool {
        matches!(self.claim, Some(PersonClaim { proof: None, .. }))
    }

    /// Returns true for somebody at a worker's front door.
    pub(crate) fn is_relayed(&self) -> bool {
        self.relayed
    }

    pub(crate) fn reach(&self) -> Reach {
        self.engine
    }

    /// Returns the same person, a user of the swarm in what is asked: streams end when he is one no more.
    pub(crate) fn tied(&self) -> Self {
        Self { tied: self.has_token() || self.has_certificate(), ..self.clone() }
    }

    /// Returns the same person, whose streams end when he has another role than this.
    pub(crate) fn tied_to(&self, role: Option<PersonRole>) -> Self {
        Self { judged_as: role, ..self.tied() }
    }

    pub(crate) fn judged_as(&self) -> Option<&PersonRole> {
        self.judged_as.as_ref()
    }

    pub(crate) fn is_tied(&self) -> bool {
        self.tied
    }

    /// Returns the same person, who acts in a container as those who deploy it may: nothing that he asks for there
    /// reaches further.
    pub(crate) fn confined(&self) -> Self {
        Self { confined: true, ..self.clone() }
    }

    pub(crate) fn is_confined(&self) -> bool {
        self.confined
    }

    /// Returns the same person with the whole engine: what is asked has been judged already.
    pub(crate) fn with_engine(&self) -> Self {
        Self { engine: Reach::Everything, ..self.clone() }
    }
}

/// Returns the token of a request.
fn token(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let bearer = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    bearer.map(Some).ok_or_else(|| ApiError {
        status: axum::http::StatusCode::UNAUTHORIZED,
        message: "the request's Authorization is no \"Bearer TOKEN\"".to_owned(),
    })
}

/// Returns the name of an account of this host; its number if it has none.
fn account(uid: u32) -> String {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| if uid == 0 { "root".to_owned() } else { format!("uid {uid}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn asker(origin: &Origin, authorization: Option<&'static str>) -> Result<Asker, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
        }
        Asker::of(origin, &headers, "h")
    }

    #[test]
    fn a_connection_is_whom_it_proved_to_be_and_a_token_is_its_user() {
        let addr = "192.0.2.1:9".parse().unwrap();
        let user = Shown::User { id: vec![1; 16], serial: "5".into() };
        let operator = Shown::Operator { name: "ops".into() };
        for (origin, claimed, reach) in [
            (Origin::Unix { uid: 0 }, "operator", Reach::Everything),
            (Origin::Tcp { addr }, "nobody", Reach::Everything),
            (Origin::Tls { addr, shown: operator }, "operator", Reach::Everything),
            (Origin::Tls { addr, shown: user }, "certificate", Reach::Nothing),
        ] {
            let plain = asker(&origin, None).unwrap();
            assert_eq!(format!("{plain:?}"), format!("Asker({claimed}, engine: {reach:?})"));
            let named = asker(&origin, Some("Bearer abc")).unwrap();
            assert!(named.has_token());
            assert_eq!(named.reach(), reach, "a token gives nothing of the host");
        }
        let outsider = Origin::Outsider { uid: 4_000_000, group: "rswarm".into() };
        let refusal = asker(&outsider, None).unwrap_err();
        assert_eq!(refusal.status, axum::http::StatusCode::FORBIDDEN);
        assert!(
            refusal.message.contains("in group rswarm") && refusal.message.contains("4000000"),
            "{refusal}"
        );
        let named = asker(&outsider, Some("Bearer abc")).unwrap();
        assert!(named.has_token() && named.reach() == Reach::Nothing);
        assert!(!asker(&Origin::Peer, Some("Bearer abc")).unwrap().has_token());
        for bad in ["abc", "Basic abc", ""] {
            assert!(asker(&Origin::Unix { uid: 0 }, Some(bad)).is_err(), "{bad}");
        }
    }
}
