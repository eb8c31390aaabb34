//! How hosts follow the roles that people give them: what `node::member` does in a daemon.
//!
//! ```text
//!  it hears                                    what it does
//!  it is to be a manager, and is a worker      gets a certificate, begins a store under a new number, asks to be taken in
//!  it is to be a worker, out of Raft           gets a certificate, ends its manager for good
//!  it is not taken in as a manager             waits until it is out of Raft, gets a certificate of what it is to be
//!  it is out of Raft, and to be a manager      begins anew under another number
//!  its people want it to leave                 asks to; when it may, forgets what the swarm ran here
//!  the swarm knows it no more                  its people have it join again, as another node
//! ```

use super::{
    HOSTS, Storm,
    asked::Ask,
    host::{Host, addr_of},
    mistakes::Mistake,
};
use model::*;
use pki::{Credentials, Identity, NodeKey};
use proto::{
    ca::{
        IssueCertificateRequest, JoinRaftRequest, ca_client::CaClient, membership_client::MembershipClient,
    },
    dispatcher::{LeaveRequest, work_client::WorkClient},
    types,
};
use std::net::SocketAddr;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tonic::{Code, Status, transport::Channel};

/// How long an answer may take. *Source:* `node::member`.
const ANSWER: Duration = Duration::from_secs(20);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(500);
/// How long a manager that takes part in Raft may seem not to, by its session. *Source:* `node::member::keeper`.
const OUT_OF_RAFT: Duration = Duration::from_secs(3);
/// How long the others have to take a member out of Raft that they do not want. *Source:* `node::member`.
const DISMISSAL: Duration = Duration::from_secs(15);
/// After so long people believe a host that it is refused.
const BELIEF: Duration = Duration::from_secs(3);

/// After so long they believe that it will not find a manager by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// What people at a host want of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    Renew,
    JoinRaft,
    Leave,
    /// Becomes a node of the swarm, of which it is none.
    Enter,
}

#[derive(Debug)]
enum Answer {
    Certified(Identity),
    Done,
    Refused(Status),
    /// No answer: it asks again.
    Nothing,
}

/// What a daemon is about to find out, one thing at a time.
#[derive(Debug, Default)]
pub(super) struct Errands {
    under_way: JoinSet<(Errand, Answer)>,
    not_taken_in: Option<Instant>,
    out_of_raft: Option<Instant>,
    refused: Option<Instant>,
    lost: Option<Instant>,
    /// It has left, or was removed: nothing is left of its membership but the wish to have another.
    is_out: bool,
}

impl Errands {
    pub(super) fn is_out(&self) -> bool {
        self.is_out
    }

    pub(super) fn give_up(&mut self) {
        *self = Self { is_out: self.is_out, ..Self::default() };
    }
}

/// People know where the managers are, whatever a host has heard.
fn everybody() -> Vec<SocketAddr> {
    (1..=HOSTS).map(addr_of).collect()
}

/// Gets a certificate of one of these managers, of whatever role it says.
pub(super) async fn certify(dials: Vec<Channel>, token: &str) -> Result<Identity, Status> {
    let key = NodeKey::generate().unwrap();
    let request = IssueCertificateRequest {
        csr_pem: key.csr_pem().unwrap(),
        token: token.to_owned(),
        availability: types::Availability::Active as i32,
    };
    let mut last = Status::unavailable("no manager is known");
    for dial in dials {
        match timeout(ANSWER, CaClient::new(dial).issue_certificate(request.clone())).await {
            Ok(Ok(reply)) => {
                let reply = reply.into_inner();
                let credentials =
                    Credentials::in_memory(&key.pem(), &reply.certificate_pem, &reply.root_pem).unwrap();
                return Ok(credentials.identity());
            }
            Ok(Err(status)) => last = status,
            Err(_) => {}
        }
    }
    Err(last)
}

async fn join_raft(dials: Vec<Channel>, request: JoinRaftRequest, store: store::Handle) -> Answer {
    for dial in dials {
        match timeout(ANSWER, MembershipClient::new(dial).join_raft(request.clone())).await {
            Ok(Ok(_)) => return Answer::Done,
            Ok(Err(status)) if status.code() == Code::PermissionDenied => return Answer::Refused(status),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    // The one that took it in may be gone before it said so; this one may lead by now.
    if store.is_voter() { Answer::Done } else { Answer::Nothing }
}

async fn leave(dials: Vec<Channel>) -> Answer {
    for dial in dials {
        match timeout(ANSWER, WorkClient::new(dial).leave(LeaveRequest::default())).await {
            Ok(Ok(_)) => return Answer::Done,
            // It had left, and the answer was lost; or it was removed meanwhile.
            Ok(Err(status)) if status.code() == Code::PermissionDenied => return Answer::Done,
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => return Answer::Refused(status),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Answer::Nothing
}

impl Host {
    /// Tells whether it is about to leave the swarm or to come into it.
    pub(super) fn is_on_its_way(&self) -> bool {
        let errands = &self.errands;
        errands.is_out
            || errands.refused.is_some()
            || errands.lost.is_some()
            || self.door.wish.lock().unwrap().is_some()
    }

    /// Tells what is to be found out next. `managers`: where some are.
    fn next_errand(&mut self, managers: &[SocketAddr]) -> Option<Errand> {
        let Some(daemon) = &self.daemon else {
            return self.errands.is_out.then_some(Errand::Enter);
        };
        let heard = daemon.heard.borrow().clone();
        // All managers that it knows are none any more: it was away for too long, as with Docker.
        let knows_some = self.managers().iter().any(|known| managers.contains(known));
        if knows_some || managers.is_empty() {
            self.errands.lost = None;
        } else if self.errands.lost.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Some(Errand::Enter);
        }
        let is_refused = heard.error.is_some() && heard.refused;
        if !is_refused {
            self.errands.refused = None;
        } else if self.errands.refused.get_or_insert_with(Instant::now).elapsed() > BELIEF {
            return Some(Errand::Enter);
        }
        if *self.door.wish.lock().unwrap() == Some(Wish::Leave) {
            return Some(Errand::Leave);
        }
        let node = heard.node.as_ref();
        if self.identity().role == Role::Worker {
            return node.is_some_and(|node| node.spec.role == Role::Manager).then_some(Errand::Renew);
        }
        let is_current = self.running.as_ref().is_some_and(|running| running.store.handle().is_current());
        if let Some(since) = self.errands.not_taken_in {
            // One that was demoted while it joined may be a voter, whose silence could cost the others their majority.
            return (!is_current || since.elapsed() > DISMISSAL).then_some(Errand::Renew);
        }
        if !self.record.raft_joined {
            return Some(Errand::JoinRaft);
        }
        node.is_some_and(|node| node.spec.role == Role::Worker && node.manager.is_none())
            .then_some(Errand::Renew)
    }

    /// Tells whether its session has said for long enough that it is out of Raft, and to be a manager.
    fn is_out_of_raft(&mut self) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        let heard = daemon.heard.borrow().clone();
        let is_current = self.running.as_ref().is_some_and(|running| running.store.handle().is_current());
        let own = self.record.raft_id;
        let seems = self.identity().role == Role::Manager
            && self.record.raft_joined
            && !is_current
            && heard.manager.is_some()
            && heard.node.is_some_and(|node| {
                node.spec.role == Role::Manager && node.manager.map(|manager| manager.raft_id) != own
            });
        if !seems {
            self.errands.out_of_raft = None;
        }
        seems && self.errands.out_of_raft.get_or_insert_with(Instant::now).elapsed() > OUT_OF_RAFT
    }
}

impl Storm {
    /// Lets a host follow what it hears.
    pub(super) async fn follow(&mut self, position: usize) -> Result<(), String> {
        // Not one that was taken out of Raft and has yet to hear so.
        let serves = |host: &&Host| host.handle().is_some_and(|handle| handle.is_current());
        let managers: Vec<SocketAddr> = self.hosts.iter().filter(serves).map(Host::addr).collect();
        let host = &mut self.hosts[position];
        host.learn();
        if let Some(done) = host.errands.under_way.try_join_next() {
            let (errand, answer) = done.map_err(|error| format!("an errand ended: {error}"))?;
            self.returns(position, errand, answer).await?;
        }
        let host = &mut self.hosts[position];
        if !host.errands.under_way.is_empty() {
            return Ok(());
        }
        if host.is_out_of_raft() {
            self.tell(format!("host {} finds itself out of Raft", position + 1));
            return self.begin_anew(position, None).await;
        }
        let Some(errand) = host.next_errand(&managers) else { return Ok(()) };
        let (addr, identity, net) = (host.addr(), host.identity(), self.net.clone());
        let dial = move |as_node: bool, to: Vec<SocketAddr>| {
            let channel = |to| net.channel(addr.ip(), as_node.then_some(identity), to);
            to.into_iter().map(channel).collect::<Vec<_>>()
        };
        match errand {
            Errand::Renew => {
                let dials = dial(true, host.managers());
                host.errands
                    .under_way
                    .spawn(async move { (errand, certified(certify(dials, "").await).await) });
            }
            Errand::Enter => {
                let dials = dial(false, everybody());
                let token = self.worker_token.clone();
                host.errands
                    .under_way
                    .spawn(async move { (errand, certified(certify(dials, &token).await).await) });
            }
            Errand::JoinRaft => {
                let Some(store) = host.running.as_ref().map(|running| running.store.handle()) else {
                    return Ok(());
                };
                let request = JoinRaftRequest {
                    raft_id: store.raft_id(),
                    addr: addr.to_string(),
                    feature_level: FEATURE_LEVEL,
                };
                let dials = dial(true, host.other_managers());
                host.errands.under_way.spawn(async move {
                    let answer = join_raft(dials, request, store).await;
                    if matches!(answer, Answer::Nothing) {
                        tokio::time::sleep(RETRY).await;
                    }
                    (errand, answer)
                });
            }
            Errand::Leave => {
                self.asks.ask(Ask::Leaves(identity.node));
                let dials = dial(true, everybody());
                host.errands.under_way.spawn(async move {
                    let answer = leave(dials).await;
                    tokio::time::sleep(RETRY).await;
                    (errand, answer)
                });
            }
        }
        Ok(())
    }

    async fn returns(&mut self, position: usize, errand: Errand, answer: Answer) -> Result<(), String> {
        let number = position + 1;
        let keeps = self.mistake == Some(Mistake::LeaverKeepsItsTasks);
        let host = &mut self.hosts[position];
        match (errand, answer) {
            (_, Answer::Nothing) => Ok(()),
            (Errand::Renew, Answer::Certified(identity)) => {
                let again = host.errands.not_taken_in.is_some();
                if identity.role == host.identity().role && !again {
                    return Ok(());
                }
                self.tell(format!("host {number} is certified as {:?}", identity.role));
                self.begin_anew(position, Some(identity)).await
            }
            (Errand::Enter, Answer::Certified(identity)) => {
                host.end_daemon().await;
                host.forget_swarm().await;
                host.errands.is_out = false;
                *host.door.wish.lock().unwrap() = None;
                host.record.managers = everybody();
                self.tell(format!("host {number} joins as node {}", identity.node));
                self.begin_anew(position, Some(identity)).await
            }
            (Errand::JoinRaft, Answer::Done) => {
                host.record.raft_joined = true;
                let raft_id = host.record.raft_id;
                self.tell(format!("host {number} is a manager, member {raft_id:?}"));
                Ok(())
            }
            (Errand::JoinRaft, Answer::Refused(status)) => {
                host.errands.not_taken_in = Some(Instant::now());
                self.tell(format!("host {number} is not taken in: {}", status.message()));
                Ok(())
            }
            (Errand::Leave, Answer::Done) => {
                host.end_daemon().await;
                if !keeps {
                    host.forget_swarm().await;
                }
                host.discard_raft(self.lie);
                host.errands.is_out = true;
                *host.door.wish.lock().unwrap() = None;
                self.tell(format!("host {number} has left"));
                Ok(())
            }
            (Errand::Leave, Answer::Refused(status)) => {
                *host.door.wish.lock().unwrap() = None;
                self.tell(format!("host {number} may not leave: {}", status.message()));
                Ok(())
            }
            // A certificate is asked for again; so is whoever is refused for good.
            (Errand::Renew | Errand::Enter, _) | (_, Answer::Certified(_)) => Ok(()),
        }
    }

    /// Starts a host's daemon anew, with another certificate or as what it is already, and with no part in Raft so far.
    async fn begin_anew(&mut self, position: usize, identity: Option<Identity>) -> Result<(), String> {
        let host = &mut self.hosts[position];
        host.end_daemon().await;
        if let Some(identity) = identity {
            host.set_papers(identity);
            if identity.role == Role::Worker {
                let own = host.addr();
                host.record.managers.retain(|addr| *addr != own);
            }
        }
        host.discard_raft(self.lie);
        let started = self.start_daemon(position).await;
        started.map_err(|error| format!("host {} does not begin anew: {error:?}", position + 1))
    }
}

async fn certified(outcome: Result<Identity, Status>) -> Answer {
    match outcome {
        Ok(identity) => Answer::Certified(identity),
        Err(_) => {
            tokio::time::sleep(RETRY).await;
            Answer::Nothing
        }
    }
}
