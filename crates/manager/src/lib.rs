//! What a manager does: takes orders, decides (when it leads), and keeps agents informed.
//!
//! ```text
//!  people  --Control-->  control ----specs----.
//!  joiners --Ca------->  ca ------nodes-------+--> store (Raft) --view--> publisher --tables, tasks--.
//!  managers --Membership-> members ----.      |       ^                                              v
//!                                      |      |       | desired, placed, observed        dispatcher sessions
//!                        roles --------'      '--- leader loop <-- plan::step                |       ^
//!                        (leader only)                ^  (leader only)                       v       |
//!                                                     '---- presence, observations <------- agents --'
//! ```
//!
//! Tasks (of tokio), all children of [`Manager::run`]: *publisher* turns each new view into the tables that nodes
//! need; *reporter* tells the leader which nodes this manager hears and learns what all of them hold; *lease* ends the
//! sessions when this manager has lost touch with the leader; *stall watch* measures how long the process stood still,
//! which excuses who was not heard in that time; the *leader* task runs, while this manager leads, the leader loop, the
//! role loop, the one that asks hosts of silent nodes, and those that end a change of the root certificate and raise the
//! feature level; one task per agent session. When one of these but a session ends, by a panic too, the manager ends:
//! whoever runs it begins anew with all of them.
//!
//! Invariants: only `control` writes specs, only `plan` desired state, only the leader loop observed state; every
//! RPC is authorised from one table (module `authorize`), which names them all; a follower decides nothing: it
//! forwards, with the caller's identity; what is decided on a view holds in the serial apply
//! (`model::cluster`) or is decided anew; what was acknowledged is seen by every later read; the wall clock decides
//! nothing but what certificates and tokens say of it (module `clock`).
//!
//! *Start reading at* `leader::lead`, then `dispatcher::session`.

mod announce;
mod assignments;
mod audit;
mod authorize;
pub mod ca;
mod clock;
mod control;
mod departed;
mod dispatcher;
mod doubts;
mod early;
mod forward;
mod history;
mod inbox;
mod ingress;
mod leader;
mod level;
mod notes;
#[cfg(test)]
mod planted;
mod presence;
mod published;
mod publisher;
mod random;
mod reach;
pub mod recovery;
mod refusals;
mod rights;
mod roles;
mod rotation;
mod shared;
mod stalls;
pub mod standing;
pub mod tables;
#[cfg(test)]
mod tests;
mod trouble;
mod turns;
mod under_way;
mod vouch;
mod work;

pub use authorize::Method;
pub use forward::InNameOf;
pub use under_way::{Account, Place, USERS_UNDER_WAY_MAX, UnderWay};
pub use vouch::voucher;

use authorize::{Evidence, Who};
use early::Early;
use model::{NodeId, Role, Timestamp, caught};
use proto::control::PersonClaim;
use shared::Shared;
use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    body::Body,
    codegen::{Service, http},
    service::Routes,
    transport::Channel,
};

/// Returns a (lazily connecting) channel to the manager at this address, authenticated both ways; if the node is named,
/// to this very one or nowhere. What is asked in different names shares no connection.
pub type Connect = Arc<dyn Fn(SocketAddr, Option<NodeId>, &InNameOf) -> Channel + Send + Sync>;
/// Returns true if a host answers at this address: it takes a connection or refuses it. May take for ever.
pub type Answers = Arc<dyn Fn(SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;
/// Returns the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// *Limit* of what a person asks for: a stack with its configs and secrets. *Unit:* bytes.
pub const REQUEST_BYTES_MAX: usize = 64 << 20;
/// *Limit* of what a leader answers to another manager, which believes it. *Unit:* bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// *Limit* of what managers tell each other of nodes and tasks. *Unit:* bytes.
const NEWS_BYTES_MAX: usize = 64 << 20;
/// *Limit* of what a node asks for in its own name: ids and names. *Unit:* bytes.
const WORK_BYTES_MAX: usize = 256 << 10;
/// *Limit* of a certificate request or a join. *Unit:* bytes.
const JOIN_BYTES_MAX: usize = 64 << 10;

/// What a manager needs.
#[derive(Clone)]
pub struct Options {
    /// The state this manager replicates.
    pub store: store::Handle,
    /// The node this manager runs on.
    pub node: NodeId,
    pub connect: Connect,
    /// Asked of nodes that are not heard.
    pub answers: Answers,
    pub clock: Clock,
    /// This manager is about to go on without the others.
    pub recovering: Arc<AtomicBool>,
    /// Of people, at this manager: what else it does for them takes its place there, too.
    pub under_way: UnderWay,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A node that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    pub node: NodeId,
    /// It takes part in Raft.
    pub manager: bool,
}

/// Returns the node that makes a request, if it may call `method`: the gate of what nodes answer that are no managers.
///
/// # Errors
/// As the caller is told.
pub fn admit<T>(
    method: Method,
    request: &Request<T>,
    known: &standing::Known<'_>,
) -> Result<Admitted, Status> {
    let evidence = Evidence::of(request)?;
    // No person is let in here, so no token's expiry is looked at.
    let end_of_time = Timestamp(i64::MAX);
    let caller =
        authorize::authorize(method, &evidence, known, end_of_time).map_err(|refused| refused.status)?;
    let Who::Node { id: node, role } = caller.who else {
        return Err(Status::unauthenticated("a node certificate is needed"));
    };
    let manager = role == Role::Manager && known.standing(node) == standing::Standing::Member;
    Ok(Admitted { node, manager })
}

/// Returns what a person proves who calls `method` through another node, if he may, and that node: the gate of what
/// managers answer besides `Control`.
///
/// # Errors
/// As the caller is told.
pub fn admit_person<T>(
    method: Method,
    request: &Request<T>,
    known: &standing::Known<'_>,
    now: Timestamp,
) -> Result<(PersonClaim, NodeId), Status> {
    let evidence = Evidence::of(request)?;
    let caller = authorize::authorize(method, &evidence, known, now).map_err(|refused| refused.status)?;
    caller.claim.ok_or_else(|| Status::unauthenticated("a person is needed"))
}

/// A part of a manager ended although nobody told it to.
#[derive(Debug, thiserror::Error)]
#[error("the manager's {part} {why}")]
pub struct PartEnded {
    part: &'static str,
    why: String,
}

/// Runs a part of the manager to its end, and tells how that was.
pub(crate) async fn part(part: &'static str, run: impl Future<Output = ()>) -> PartEnded {
    let why =
        caught(run).await.map_or_else(|panicked| panicked.to_string(), |()| "ended by itself".to_owned());
    PartEnded { part, why }
}

/// Returns how the first of some parts ended.
pub(crate) fn first_of(joined: Option<Result<PartEnded, JoinError>>) -> PartEnded {
    match joined {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => PartEnded { part: "leader", why: error.to_string() },
        None => PartEnded { part: "parts", why: "have all ended".to_owned() },
    }
}

/// What a manager does, for who watches it from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// Agents whose sessions it serves.
    pub sessions: usize,
    /// How long its plans took while it led.
    pub plans: model::Timing,
}

/// A manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Manager {
    shared: Arc<Shared>,
}

impl Manager {
    pub fn new(options: Options) -> Self {
        Self { shared: Arc::new(Shared::new(options)) }
    }

    /// Returns the gRPC services of a manager: Control, Dispatcher, Work, Liveness, Ca and
    /// Membership. They expect
    /// [`pki::tls::Peer`] in the extensions of each request, as a server behind [`pki::tls::Listener`] puts it
    /// there, and refuse requests without.
    pub fn routes(&self) -> Routes {
        let mut routes = Routes::builder();
        let shared = &self.shared;
        routes
            .add_service(Early::new(shared, control::service(shared.clone())))
            .add_service(Early::new(shared, dispatcher::service(shared.clone())))
            .add_service(Early::new(shared, dispatcher::liveness_service(shared.clone())))
            .add_service(Early::new(shared, work::service(shared.clone())))
            .add_service(Early::new(shared, ca::service(shared.clone())))
            .add_service(Early::new(shared, ca::membership_service(shared.clone())));
        routes.routes()
    }

    /// Returns Control for calls of this very process, which need no connection. They are judged as those are that come
    /// over one: they expect [`pki::tls::Peer`] in their extensions, and are refused without.
    pub fn control(
        &self,
    ) -> impl Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + use<> {
        Early::new(&self.shared, control::service(self.shared.clone()))
    }

    /// Returns a new certificate of this manager's own node, if this manager leads.
    ///
    /// # Errors
    /// UNAVAILABLE: it does not lead. PERMISSION_DENIED: its node was removed.
    pub async fn renew(&self, csr_pem: &str) -> Result<proto::ca::IssueCertificateReply, tonic::Status> {
        ca::renew_own(self.shared.clone(), csr_pem).await
    }

    /// Returns what it does now, and has done since it was made.
    pub fn numbers(&self) -> Numbers {
        Numbers { sessions: self.shared.sessions.count(), plans: self.shared.plans.read() }
    }

    /// Runs until cancelled; then ends every session, so that agents look for another manager.
    ///
    /// # Errors
    /// One of its parts has ended by itself. Everything else is ended then too.
    ///
    /// # Cancel safety
    /// Dropping it ends everything at once.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), PartEnded> {
        let _sessions_end_with_us = self.shared.cancel.clone().drop_guard();
        let mut tasks = JoinSet::new();
        tasks.spawn(part("publisher", publisher::run(self.shared.clone())));
        tasks.spawn(part("reporter", dispatcher::reporter(self.shared.clone())));
        tasks.spawn(part("lease", dispatcher::lease(self.shared.clone())));
        let shared = self.shared.clone();
        let stalls = async move {
            let excuse = |late| {
                let period = clock::heartbeat_period(&shared.store.view());
                shared.presence().excuse(tokio::time::Instant::now(), period, late);
            };
            shared.stalls.measure(excuse).await;
        };
        tasks.spawn(part("stall watch", stalls));
        tasks.spawn(leader::run(self.shared.clone()));
        let ended = tokio::select! {
            () = cancel.cancelled() => Ok(()),
            ended = tasks.join_next() => Err(first_of(ended)),
        };
        self.shared.cancel.cancel();
        self.shared.sessions_tracker.close();
        self.shared.sessions_tracker.wait().await;
        tasks.shutdown().await;
        ended
    }
}
