//! Who may call what: one table of every RPC of every service, deny by default.
//!
//! A certificate is a claim, the state is the truth. Whoever calls is what its certificate says *and* what the state
//! says, whichever is less; a node that the state does not know, or knows to have left, is nobody's node any more.
//!
//! ```text
//!  connection --certificate--> node ---.                     .--> Node    a current node, in its lesser role
//!  metadata `rswarm-caller-bin`  ------+-- the state's word --+--> Person  whom `resolve_person` makes sure of
//!  metadata `rswarm-person-bin`  ------'                      '--> Nobody  no certificate: may join, nothing else
//! ```
//!
//! People are not nodes: `Control` is for people only, and everything else is for nodes only. Managers forward calls
//! to the leader in the name of their caller; such a claim counts only from a current member of Raft, the caller that
//! it names is judged against the state once more, and what is forwarded is not forwarded again.

use crate::standing::{Known, Standing};
use model::{NodeId, Person, PersonRole, Role, Tables, Timestamp, User, UserId};
use pki::{Identity, PersonToken, tls::Peer};
use prost::Message as _;
use proto::{
    CALLER_KEY, PersonalClaim, WireId as _,
    control::{ForwardedCaller, ForwardedNode, PersonClaim, forwarded_caller, person_claim::Proof},
    types,
};
use std::{net::SocketAddr, sync::Arc};
use tonic::{Request, Status, metadata::MetadataValue};

/// What is said of a caller in whose name another manager asks, and who cannot be read; versions before this one said so, too.
pub(crate) const MALFORMED_CALLER: &str = "malformed caller";

/// *Limit* of what a front door says of where a request came from. *Unit:* characters.
const FROM_CHARS_MAX: usize = 128;

/// Who may call an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Also without a certificate: how a node gets its first one.
    Anyone,
    /// Any current node of this swarm; what it asks for is its own.
    Node,
    /// A current manager, also one that has yet to join Raft.
    Manager,
    /// A manager that takes part in Raft.
    Member,
    /// A manager by its certificate, also one that is not known here: the swarm may have begun anew without this node.
    Announcer,
    /// A person, with the rights that `people` gives.
    Person,
}

/// Whether a follower may pass a call on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The caller's own connection must end here.
    Direct,
    /// To the leader, in the caller's name.
    Forwarded,
}

macro_rules! methods {
    ($($service:literal { $($method:ident: $rule:ident, $way:ident;)* })*) => {
        /// Every RPC that a node or a manager answers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Method { $($($method,)*)* }

        impl Method {
            /// Every one of them.
            pub const ALL: &[Self] = &[$($(Self::$method,)*)*];

            /// Returns its service's full name and its own, as in `proto/*.proto`.
            pub fn name(self) -> (&'static str, &'static str) {
                match self { $($(Self::$method => ($service, stringify!($method)),)*)* }
            }

            /// Returns the one that is called at a path of HTTP/2. Source: gRPC over HTTP2, "Path".
            pub(crate) fn at(path: &str) -> Option<Self> {
                match path { $($(concat!("/", $service, "/", stringify!($method)) => Some(Self::$method),)*)* _ => None }
            }

            pub(crate) fn rule(self) -> Rule {
                match self { $($(Self::$method => Rule::$rule,)*)* }
            }

            fn way(self) -> Way {
                match self { $($(Self::$method => Way::$way,)*)* }
            }
        }
    };
}

methods! {
    "rswarm.ca.v1.Ca" {
        GetRootCa: Anyone, Direct;
        IssueCertificate: Anyone, Forwarded;
    }
    "rswarm.ca.v1.Membership" {
        JoinRaft: Manager, Forwarded;
        Vouch: Manager, Direct;
        Note: Member, Direct;
        Surviving: Manager, Direct;
    }
    "rswarm.dispatcher.v1.Dispatcher" {
        Session: Node, Direct;
    }
    "rswarm.dispatcher.v1.Work" {
        FindNetwork: Node, Forwarded;
        Networks: Node, Direct;
        Attach: Node, Forwarded;
        Attachment: Node, Forwarded;
        Leave: Node, Forwarded;
        Depart: Node, Forwarded;
        ImageSources: Node, Direct;
        MayFetch: Node, Direct;
    }
    "rswarm.dispatcher.v1.Liveness" {
        Alive: Member, Direct;
        Observe: Member, Direct;
    }
    "rswarm.control.v1.Control" {
        Get: Person, Forwarded;
        List: Person, Forwarded;
        Create: Person, Forwarded;
        Update: Person, Forwarded;
        Remove: Person, Forwarded;
        Watch: Person, Direct;
        GetSwarm: Person, Forwarded;
        UpdateSwarm: Person, Forwarded;
        Backup: Person, Forwarded;
        ApplyStack: Person, Forwarded;
        RollbackStack: Person, Forwarded;
        JudgeStack: Person, Forwarded;
        ForeseeStack: Person, Forwarded;
        ExplainService: Person, Forwarded;
        WhoAmI: Person, Forwarded;
        EnterTask: Person, Forwarded;
        CreateUserToken: Person, Forwarded;
        RemoveUserToken: Person, Forwarded;
        SetPassword: Person, Forwarded;
        IssueUserCertificate: Person, Forwarded;
        RevokeUserCertificate: Person, Forwarded;
        // Who has nothing to show but a password comes through a node.
        Login: Node, Forwarded;
    }
    "rswarm.raft.v1.Raft" {
        Append: Member, Direct;
        Vote: Member, Direct;
        Snapshot: Member, Direct;
        TransferLeader: Member, Direct;
    }
    "rswarm.node.v1.Peer" {
        Tunnel: Member, Direct;
        // Managers only know people: no worker relays.
        Relay: Person, Direct;
        ResolveImage: Node, Direct;
        ReadBlob: Node, Direct;
        Announce: Announcer, Direct;
    }
}

/// On whose behalf a call is made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Caller {
    pub(crate) who: Who,
    /// Where the caller's own connection comes from.
    pub(crate) addr: SocketAddr,
    /// Another manager took us for the leader.
    pub(crate) forwarded: bool,
    /// What a person said to be one, so that the leader can make sure of it again, and the node that passed it on.
    pub(crate) claim: Option<(PersonClaim, NodeId)>,
}

/// Who calls, as far as certificate and state agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// Showed no certificate.
    Nobody,
    Node {
        id: NodeId,
        /// The lesser of what the certificate and the state say.
        role: Role,
    },
    Person(Person),
}

impl Caller {
    /// Returns the calling node.
    ///
    /// # Errors
    /// UNAUTHENTICATED when it is none.
    pub(crate) fn node(&self) -> Result<NodeId, Status> {
        match &self.who {
            Who::Node { id, .. } => Ok(*id),
            Who::Nobody | Who::Person(_) => Err(Status::unauthenticated("a node certificate is needed")),
        }
    }
}

/// What a request brings to show who makes it.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    peer: Peer,
    forwarded: Option<ForwardedCaller>,
    person: Option<PersonClaim>,
}

impl Evidence {
    /// Reads the evidence of a request.
    ///
    /// # Errors
    /// It came past the listener that says who is at the other end, or carries what cannot be read.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let peer =
            Peer::of(request).ok_or_else(|| Status::unauthenticated("the connection has no identity"))?;
        let forwarded = match request.metadata().get_bin(CALLER_KEY) {
            None => None,
            Some(value) => {
                let malformed = || Status::invalid_argument(MALFORMED_CALLER);
                let bytes = value.to_bytes().map_err(|_| malformed())?;
                Some(ForwardedCaller::decode(bytes).map_err(|_| malformed())?)
            }
        };
        Ok(Self { peer, forwarded, person: PersonalClaim::of(request.metadata())? })
    }

    /// Returns what a person shows who is not let in, without what is secret of it, and who that is as far as it says.
    pub(crate) fn stranger(&self, tables: &Tables) -> Option<(String, Person)> {
        let claim = self.person.as_ref().or_else(|| match self.forwarded.as_ref()?.who.as_ref()? {
            forwarded_caller::Who::Person(claim) => Some(claim),
            forwarded_caller::Who::Node(_) => None,
        })?;
        let (user, shown) = match claim.proof.as_ref()? {
            Proof::Token(text) => match text.parse::<PersonToken>() {
                Ok(token) => (Some(token.user), format!("token {}", token.id)),
                Err(_) => (None, "token".to_owned()),
            },
            Proof::Certificate(certificate) => {
                let user = UserId::from_wire(&certificate.user).ok();
                (user, format!("certificate {}", certificate.serial))
            }
            Proof::Operator(operator) => (None, format!("socket of {}", operator.host)),
        };
        let known = user.and_then(|id| tables.users.get(&id));
        let person = Person {
            name: known.map_or_else(|| "nobody".to_owned(), |user| user.name.clone()),
            role: PersonRole::Read,
            from: claim.from.chars().take(FROM_CHARS_MAX).collect(),
            via: self.node().unwrap_or(NodeId(0)),
        };
        Some((shown, person))
    }

    /// Returns the node that the connection's certificate names.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.peer.identity.map(|i| i.node)
    }
}

/// A refusal, and whether the state behind it may only be late.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: Status,
    /// A newer state could say otherwise: the node may have joined, or changed its role, a moment ago.
    pub(crate) perhaps_late: bool,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self { status, perhaps_late: false }
    }
}

/// What a node may pass for.
#[derive(Debug, Clone, Copy)]
struct Ranked {
    id: NodeId,
    role: Role,
    /// Takes part in Raft.
    member: bool,
    /// The certificate says more than the state does.
    perhaps_late: bool,
}

/// Returns what certificate and state agree on.
fn rank(id: NodeId, certified: Role, known: &Known<'_>) -> Result<Ranked, Refused> {
    let standing = known.standing(id);
    let (role, member) = match standing {
        Standing::Removed => return Err(removed().into()),
        Standing::Left => return Err(Status::permission_denied("this node left the swarm").into()),
        Standing::Unknown => return Err(Refused { status: removed(), perhaps_late: true }),
        Standing::Worker => (Role::Worker, false),
        Standing::Manager => (certified, false),
        Standing::Member => (certified, certified == Role::Manager),
    };
    Ok(Ranked { id, role, member, perhaps_late: certified == Role::Manager && !member })
}

fn removed() -> Status {
    Status::permission_denied("this node was removed from the swarm")
}

/// Returns the caller if it may call `method`. The one gate of every RPC.
///
/// # Errors
/// UNAUTHENTICATED: a certificate or a person is needed. PERMISSION_DENIED: it is not enough, or no longer true.
/// UNAVAILABLE: this node knows nothing yet to judge by.
pub(crate) fn authorize(
    method: Method,
    evidence: &Evidence,
    known: &Known<'_>,
    now: Timestamp,
) -> Result<Caller, Refused> {
    let peer = evidence.peer;
    // A certificate that has expired is good for its own renewal only.
    let renews = method == Method::IssueCertificate && evidence.forwarded.is_none();
    let Some(identity) = peer.identity.or(peer.expired.filter(|_| renews)) else {
        if evidence.forwarded.is_some() || evidence.person.is_some() {
            return Err(Status::permission_denied("only managers forward calls").into());
        }
        if method.rule() != Rule::Anyone {
            return Err(Status::unauthenticated("a node certificate is needed").into());
        }
        return Ok(Caller { who: Who::Nobody, addr: peer.addr, forwarded: false, claim: None });
    };
    let cluster = known.cluster().ok_or_else(|| Status::unavailable("this node has no state yet"))?;
    if identity.cluster != cluster {
        return Err(Status::permission_denied("the certificate is of another swarm").into());
    }
    if method.rule() == Rule::Announcer {
        return announcer(method, evidence, identity, known).map_err(Into::into);
    }
    let direct = rank(identity.node, identity.role, known)?;
    let (caller, ranked) = match &evidence.forwarded {
        Some(named) => forwarded(method, direct, named, peer.addr, known, now)?,
        None => match &evidence.person {
            Some(claim) => (of_person(claim, direct, peer.addr, known, now)?, None),
            None => {
                let who = Who::Node { id: direct.id, role: direct.role };
                (Caller { who, addr: peer.addr, forwarded: false, claim: None }, Some(direct))
            }
        },
    };
    let allowed = match (method.rule(), &caller.who, ranked) {
        (Rule::Anyone, Who::Nobody | Who::Node { .. }, _)
        | (Rule::Node, Who::Node { .. }, _)
        | (Rule::Manager, Who::Node { role: Role::Manager, .. }, _)
        | (Rule::Person, Who::Person(_), _) => true,
        (Rule::Member, Who::Node { .. }, Some(ranked)) => ranked.member,
        (Rule::Anyone | Rule::Node | Rule::Manager | Rule::Member | Rule::Announcer | Rule::Person, _, _) => {
            false
        }
    };
    if allowed {
        return Ok(caller);
    }
    let what = format!("{method:?}");
    let status = match method.rule() {
        Rule::Person => Status::permission_denied(format!(
            "a node's certificate may not call {what}: only people may, who name themselves"
        )),
        Rule::Manager | Rule::Member | Rule::Announcer => {
            Status::permission_denied(format!("only managers may call {what}, and this node is none"))
        }
        Rule::Anyone | Rule::Node => {
            Status::permission_denied(format!("only nodes may call {what}, in their own name"))
        }
    };
    let perhaps_late = ranked.is_some_and(|r| r.perhaps_late);
    Err(Refused { status, perhaps_late })
}

/// Judges a node that says that the swarm has begun anew. It need not be known; one that is known to be no manager is
/// none, whatever its certificate says.
fn announcer(
    method: Method,
    evidence: &Evidence,
    identity: Identity,
    known: &Known<'_>,
) -> Result<Caller, Status> {
    let is_worker = match (known.standing(identity.node), known) {
        (Standing::Removed, _) => return Err(removed()),
        (Standing::Left, _) => return Err(Status::permission_denied("this node left the swarm")),
        // A worker knows no other workers by name: `node::gate` remembers who was a manager.
        (Standing::Worker, Known::State(_)) => true,
        (Standing::Worker | Standing::Unknown | Standing::Manager | Standing::Member, _) => false,
    };
    let in_its_own_name = evidence.forwarded.is_none() && evidence.person.is_none();
    if is_worker || identity.role != Role::Manager || !in_its_own_name {
        return Err(Status::permission_denied(format!(
            "only managers may call {method:?}, in their own name, and this node is none"
        )));
    }
    let who = Who::Node { id: identity.node, role: Role::Manager };
    Ok(Caller { who, addr: evidence.peer.addr, forwarded: false, claim: None })
}

/// Judges a call that a manager passes on.
fn forwarded(
    method: Method,
    through: Ranked,
    named: &ForwardedCaller,
    addr: SocketAddr,
    known: &Known<'_>,
    now: Timestamp,
) -> Result<(Caller, Option<Ranked>), Refused> {
    if !through.member {
        let status = Status::permission_denied("only managers forward calls");
        return Err(Refused { status, perhaps_late: through.perhaps_late });
    }
    if method.way() == Way::Direct {
        return Err(Status::permission_denied(format!("{method:?} is not forwarded")).into());
    }
    let addr = named.addr.parse().unwrap_or(addr);
    let malformed = |e: proto::Invalid| Status::invalid_argument(format!("{MALFORMED_CALLER}: {e}"));
    let (mut caller, ranked) = match &named.who {
        None => (Caller { who: Who::Nobody, addr, forwarded: true, claim: None }, None),
        Some(forwarded_caller::Who::Node(node)) => {
            let id = NodeId::from_wire(&node.id).map_err(malformed)?;
            let role = match node.role() {
                types::Role::Manager => Role::Manager,
                types::Role::Worker | types::Role::Unspecified => Role::Worker,
            };
            let ranked = rank(id, role, known)?;
            let who = Who::Node { id, role: ranked.role };
            (Caller { who, addr, forwarded: true, claim: None }, Some(ranked))
        }
        Some(forwarded_caller::Who::Person(claim)) => {
            let id = NodeId::from_wire(&named.via).map_err(malformed)?;
            // What its own certificate said was the forwarding manager's to check; here the state alone counts.
            let via = rank(id, Role::Manager, known)?;
            (of_person(claim, via, addr, known, now)?, None)
        }
    };
    caller.forwarded = true;
    Ok((caller, ranked))
}

fn of_person(
    claim: &PersonClaim,
    via: Ranked,
    addr: SocketAddr,
    known: &Known<'_>,
    now: Timestamp,
) -> Result<Caller, Refused> {
    let Known::State(tables) = known else {
        return Err(Status::permission_denied("people ask managers").into());
    };
    let person = resolve_person(claim, via.id, via.member, tables, now).map_err(|status| {
        // A user may have been made, or given a token, a moment ago.
        let users = matches!(claim.proof, Some(Proof::Token(_) | Proof::Certificate(_)));
        Refused { status, perhaps_late: via.perhaps_late || users }
    })?;
    let claim = Some((claim.clone(), via.id));
    Ok(Caller { who: Who::Person(person), addr, forwarded: false, claim })
}

/// Makes sure of a person. `via` is the node whose front door took the request; `via_is_manager`: it takes part in
/// Raft, so its word counts for what happened at its own sockets.
///
/// # Errors
/// UNAUTHENTICATED: the claim proves nothing. PERMISSION_DENIED: it is not `via`'s to make.
pub(crate) fn resolve_person(
    claim: &PersonClaim,
    via: NodeId,
    via_is_manager: bool,
    tables: &Tables,
    now: Timestamp,
) -> Result<Person, Status> {
    let from = claim.from.chars().take(FROM_CHARS_MAX).collect();
    let user = match &claim.proof {
        Some(Proof::Operator(operator)) if via_is_manager => {
            // No user's name has an @: nobody can be taken for an operator.
            let name = format!("{}@{}", operator.name, operator.host);
            return Ok(Person { name, role: PersonRole::Admin, from, via });
        }
        Some(Proof::Operator(_)) => {
            return Err(Status::permission_denied("only a manager's own people run the swarm"));
        }
        Some(Proof::Token(token)) => user_of_token(tables, token, now)?,
        Some(Proof::Certificate(certificate)) if via_is_manager => {
            let id = UserId::from_wire(&certificate.user).ok();
            let known = id.and_then(|id| tables.users.get(&id));
            let known = known.ok_or_else(|| {
                Status::unauthenticated("the certificate is of no user of this swarm any more")
            })?;
            if known.has_revoked(&certificate.serial) {
                return Err(Status::unauthenticated(
                    "the certificate was revoked; hint: ask an admin for another: rswarm user cert",
                ));
            }
            known
        }
        Some(Proof::Certificate(_)) => {
            return Err(Status::permission_denied("users show their certificates to managers"));
        }
        None => return Err(Status::unauthenticated("the claim names nobody")),
    };
    Ok(Person { name: user.name.clone(), role: user.role.clone(), from, via })
}

/// Returns true while a caller that was let in would be let in again: what holds a stream open asks this whenever the
/// state changes.
pub(crate) fn still(method: Method, caller: &Caller, tables: &Tables, now: Timestamp) -> bool {
    let known = Known::State(tables);
    match (&caller.who, &caller.claim) {
        (Who::Person(person), Some((claim, via))) => rank(*via, Role::Manager, &known).is_ok_and(|via| {
            resolve_person(claim, via.id, via.member, tables, now).is_ok_and(|now| now == *person)
        }),
        (Who::Node { id, role }, _) => rank(*id, *role, &known).is_ok_and(|now| match method.rule() {
            Rule::Member => now.member,
            Rule::Manager | Rule::Announcer => now.role == Role::Manager,
            Rule::Anyone | Rule::Node | Rule::Person => true,
        }),
        (Who::Nobody, _) => method.rule() == Rule::Anyone,
        (Who::Person(_), None) => false,
    }
}

/// Returns `message` as a call in the name of `caller`, for the leader.
pub(crate) fn on_behalf_of<T>(caller: &Caller, message: T) -> Request<T> {
    use forwarded_caller::Who as Named;
    let (who, via) = match (&caller.who, &caller.claim) {
        (Who::Node { id, role }, _) => {
            let node = ForwardedNode { id: id.to_wire(), role: types::Role::from(*role) as i32 };
            (Some(Named::Node(node)), Vec::new())
        }
        (Who::Person(_), Some((claim, via))) => (Some(Named::Person(claim.clone())), via.to_wire()),
        (Who::Nobody, _) | (Who::Person(_), None) => (None, Vec::new()),
    };
    let named = ForwardedCaller { who, via, addr: caller.addr.to_string() };
    let mut value = MetadataValue::from_bytes(&named.encode_to_vec());
    value.set_sensitive(true);
    let mut request = Request::new(message);
    request.metadata_mut().insert_bin(CALLER_KEY, value);
    request
}

/// Returns the user whose token this is.
///
/// # Errors
/// UNAUTHENTICATED: it is nobody's, or not good any more; the text does not say which.
fn user_of_token<'a>(tables: &'a Tables, text: &str, now: Timestamp) -> Result<&'a Arc<User>, Status> {
    let refusal = || {
        Status::unauthenticated("the token is no user's, or is not good any more; hint: rswarm user login")
    };
    let shown: PersonToken = text.parse().map_err(|_| refusal())?;
    let user = tables.users.get(&shown.user).ok_or_else(refusal)?;
    let kept = user.tokens.iter().find(|t| t.id == shown.id).ok_or_else(refusal)?;
    if shown.matches(&kept.hash.0) && kept.is_valid_at(now) { Ok(user) } else { Err(refusal()) }
}

#[cfg(test)]
mod tests;
