//! A swarm that begins anew on this host: from this manager's own state after the loss of a majority (`swarm recover`,
//! Docker's `init --force-new-cluster`), or from a backup (`swarm restore`).
//!
//! ```text
//!  recover   ask the others -> stop -> salvage(raft) -> seed(raft.successor) -> record names it -> finish -> start
//!  restore   read backup -> (leave) -> certificate -> seed(raft) -> record -> start
//! ```
//! The record is the moment of decision: a crash before it leaves everything as it was, one behind it is made up for by
//! [`Folder::finish`] at the next start.
//!
//! Two survivors must not both go on: each says that it is about to before it asks the other, so that of two at the same
//! time none goes on, and who comes second finds the first one's later life of the swarm. Only those who cannot hear each
//! other can both do it; then the later life wins as soon as they can ([`model::Incarnation`]).

use crate::{
    address,
    clock::clock,
    connect::Connections,
    member::{Begin, new_raft_id},
    record::{Folder, Record, clear},
    swarm::{NodeSwarm, Order, internal},
};
use anyhow::Context as _;
use docker_api::server::{ApiError, RecoverRequest, RestoreRequest};
use futures::future::join_all;
use manager::recovery::{First, recovered, restored};
use model::{Incarnation, NodeId, Role, with_causes};
use pki::{Credentials, CredentialsError, UnlockKey};
use proto::ca::{SurvivingReply, SurvivingRequest, membership_client::MembershipClient};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use store::{Dek, Seed};
use tokio::time::timeout;

/// How long another manager may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(4);
/// How long the one manager may take to lead.
const LEADS: Duration = Duration::from_secs(15);
/// How often this host's addresses are looked at.
const LOOK_AT_ADDRESSES: Duration = Duration::from_secs(3);
/// How long after a new one was seen: it counts when it is there the second time.
const LOOK_TWICE: Duration = Duration::from_secs(1);
/// How long after one that could not be taken.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What another manager said when it was asked whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Silence,
    /// It does not take this node for a manager.
    Disowns,
    Here {
        recovering: bool,
        in_touch: bool,
        incarnation: Option<Incarnation>,
    },
}

/// Says that this manager is about to go on alone, for as long as it lives.
struct Mark(Arc<AtomicBool>);

impl Mark {
    fn set(flag: &Arc<AtomicBool>) -> Self {
        flag.store(true, SeqCst);
        Self(Arc::clone(flag))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

impl NodeSwarm {
    /// Makes this manager the only one of its swarm.
    pub(crate) async fn recover_here(&self, request: RecoverRequest) -> Result<NodeId, ApiError> {
        let _changing = self.changing().await;
        let folder = self.folder();
        let Some(record) = folder.load().map_err(|e| internal(&e))? else {
            return Err(ApiError::unavailable(
                "This node is not part of a swarm: there is nothing to recover. hint: recover on a manager that is left, \
                 or `swarm restore` a backup here",
            ));
        };
        let current = self.current();
        let credentials = match &current {
            Some(current) => current.connections.credentials().clone(),
            None => stored_credentials(folder)?,
        };
        let identity = credentials.identity();
        if identity.role != Role::Manager || record.raft_id.is_none() {
            return Err(ApiError::unavailable(
                "This node is not a manager: it has no state to go on from. hint: recover on a manager that is left, or \
                 `swarm restore` a backup on a host that is in no swarm",
            ));
        }
        let next = match &request.advertise_addr {
            Some(_) => Self::readdressed(&record, &request)?,
            None => record.clone(),
        };
        let (connections, others) = match &current {
            Some(current) => {
                let store = current.view.borrow().store.clone();
                let members = store.map(|s| (s.raft_id(), s.members())).unwrap_or_default();
                let others = members.1.into_iter().filter(|m| m.voter && m.raft_id != members.0);
                (Arc::clone(&current.connections), others.map(|m| (m.addr, m.node)).collect())
            }
            None => {
                let known = record.managers.iter().filter(|a| **a != record.advertise_addr);
                let others: Vec<_> = known.map(|addr| (*addr, None)).collect();
                (self.connections_of(&credentials, &record), others)
            }
        };
        let _mark = Mark::set(&connections.gate().recovering);
        if !request.force {
            let answers = ask_all(&connections, others).await;
            let own = *connections.gate().incarnation.borrow();
            may_go_on(own, &answers).map_err(ApiError::conflict)?;
        }
        self.order(|done| Order::Halt { done }).await.map_err(|e| internal(&e))?;
        let rebuilt = rebuild(folder, &credentials, next, &request.person).await;
        let (go_on, outcome) = match rebuilt {
            Ok(record) => (record, Ok(identity.node)),
            Err(error) => (record, Err(internal(&error.context("nothing was changed")))),
        };
        let (record, begin) = (Box::new(go_on), Box::new(Begin::Resume));
        let started = self.order(|done| Order::Start { record, credentials, begin, done }).await;
        let node = outcome?;
        started
            .map_err(|e| internal(&e.context("the swarm was recovered, but this manager does not start")))?;
        self.until_it_leads().await?;
        Ok(node)
    }

    /// Makes this host the one manager of a swarm that a backup holds.
    pub(crate) async fn restore_here(&self, request: RestoreRequest) -> Result<NodeId, ApiError> {
        let _changing = self.changing().await;
        let folder = self.folder();
        let is_member = self.current().is_some() || !matches!(folder.load(), Ok(None));
        if is_member && !request.force {
            return Err(ApiError::unavailable(
                "This node is part of a swarm. What it would lose: its membership, its copy of that swarm's state, which \
                 is the last one if no other manager is left, and the containers of its tasks. hint: restore on a host \
                 that is in no swarm, or use `--force`",
            ));
        }
        let bytes = request.backup;
        let backup = image::blocking(move || store::backup::unpack(&bytes)).await;
        let backup = backup.map_err(|e| ApiError::internal(with_causes(&e)))?;
        let backup = backup.map_err(|e| ApiError::bad_request(e.to_string()))?;
        let mut record = Self::addresses(
            request.listen_addr.as_deref(),
            request.advertise_addr.as_deref(),
            request.data_path_addr.as_deref(),
        )?;
        let raft_id = new_raft_id();
        let first = First { raft_id, addr: record.advertise_addr, person: request.person };
        let made = restored(&backup.tables, &first, request.availability, clock());
        let (made, incarnation) = made.map_err(|e| ApiError::bad_request(with_causes(&e)))?;
        let lock = match &made.unlock_key {
            Some(key) => {
                let text = std::str::from_utf8(&key.0).unwrap_or_default();
                let key = text.parse::<UnlockKey>();
                Some(key.map_err(|_| ApiError::bad_request("the unlock key in the backup is none"))?)
            }
            None => None,
        };
        let key = String::from_utf8(made.key.0).map_err(|e| ApiError::internal(e.to_string()))?;
        if is_member {
            tracing::warn!("this host gives its membership up for the swarm of a backup");
            self.order(|done| Order::Leave { done }).await.map_err(|e| internal(&e))?;
        }
        record.raft_id = Some(raft_id);
        record.raft_joined = true;
        record.lock_version = made.tables.cluster.as_ref().map_or(0, |cluster| cluster.meta.version);
        record.set_incarnation(Some(incarnation));
        let (node, cluster) = (made.node, backup.cluster);
        let written = async {
            let credentials =
                Credentials::create(&folder.credentials(), &key, &made.chain, &made.root, lock.clone())?;
            let dek = Dek::load_or_create(&folder.raft_key(), lock.as_ref())?;
            let seed = Seed { raft_id, node, addr: record.advertise_addr, dek, term: 0 };
            clear(&folder.raft())?;
            store::seed(&folder.raft(), &seed, made.tables).await?;
            folder.store(&record)?;
            anyhow::Ok(credentials)
        };
        let started = match written.await {
            Ok(credentials) => {
                tracing::warn!(cluster.id = %cluster, node.id = %node, "a swarm is restored from a backup");
                let (record, begin) = (Box::new(record), Box::new(Begin::Resume));
                self.order(|done| Order::Start { record, credentials, begin, done }).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            folder.forget().map_err(|e| internal(&e))?;
            return Err(internal(&error.context("the swarm was not restored")));
        }
        self.until_it_leads().await?;
        Ok(node)
    }

    /// Gives this host, which stays what it is in its swarm, other addresses.
    pub(crate) async fn readdress_here(&self, request: RecoverRequest) -> Result<(), ApiError> {
        self.move_to(|old| Self::readdressed(old, &request)).await
    }

    /// Keeps the others told where this host is, as long as it runs: a node that was to be reached at an interface, or
    /// at its only address, is, whatever that becomes (DHCP, a VPN that dials anew, a reboot elsewhere).
    pub(crate) async fn follow_address(self) {
        let mut seen: Option<SocketAddr> = None;
        let mut wait = Duration::ZERO; // a host that comes up elsewhere is not heard of until it is known there
        loop {
            tokio::time::sleep(wait).await;
            let record = self.folder().load().ok().flatten();
            let new = record.as_ref().and_then(|record| followed(record, &address::interfaces()));
            let new = new.map(|record| record.advertise_addr);
            // An address that passes by, as while a link is set up, is not followed.
            let stays = new.is_some() && new == seen;
            seen = new;
            wait = if seen.is_some() { LOOK_TWICE } else { LOOK_AT_ADDRESSES };
            let Some(to) = seen.filter(|_| stays) else { continue };
            let moved =
                self.move_to(|old| Ok(followed(old, &address::interfaces()).unwrap_or_else(|| old.clone())));
            if let Err(error) = moved.await {
                tracing::warn!(%to, %error, "this node has another address, and cannot be reached there yet");
                wait = LOOK_AGAIN;
            }
        }
    }

    async fn move_to(&self, new: impl FnOnce(&Record) -> Result<Record, ApiError>) -> Result<(), ApiError> {
        let _changing = self.changing().await;
        let folder = self.folder();
        let Some(old) = folder.load().map_err(|e| internal(&e))? else {
            return Err(ApiError::unavailable("This node is not part of a swarm"));
        };
        let credentials = match self.current() {
            Some(current) => current.connections.credentials().clone(),
            None => stored_credentials(folder)?,
        };
        let new = new(&old)?;
        self.order(|done| Order::Halt { done }).await.map_err(|e| internal(&e))?;
        let moved_to = folder.load().and_then(|now| moved(folder, now, &new));
        let started = match moved_to {
            Ok(record) => self.go_on(record, &credentials).await,
            Err(error) => Err(error),
        };
        let Err(error) = started else { return Ok(()) };
        // As it was: a node without its part in the swarm is worse off than one at its old address.
        let back = folder.load().and_then(|now| moved(folder, now, &old)).map_err(|e| internal(&e))?;
        self.go_on(back, &credentials).await.map_err(|e| internal(&e))?;
        Err(internal(&error.context("this node keeps its address")))
    }

    /// Starts the member again that was halted.
    async fn go_on(&self, record: Record, credentials: &Credentials) -> anyhow::Result<()> {
        let (record, credentials, begin) = (Box::new(record), credentials.clone(), Box::new(Begin::Resume));
        self.order(|done| Order::Start { record, credentials, begin, done }).await
    }

    /// Returns a record with the addresses that a request names; it keeps its place to listen at unless that is named.
    fn readdressed(record: &Record, request: &RecoverRequest) -> Result<Record, ApiError> {
        let listen = record.listen_addr.to_string();
        let listen = request.listen_addr.as_deref().unwrap_or(&listen);
        let advertise = request.advertise_addr.as_deref();
        let typed = Self::addresses(Some(listen), advertise, request.data_path_addr.as_deref())?;
        let Record { listen_addr, advertise_addr, data_addr, follows, .. } = typed;
        Ok(Record { listen_addr, advertise_addr, data_addr, follows, ..record.clone() })
    }

    async fn until_it_leads(&self) -> Result<(), ApiError> {
        let store = self.current().and_then(|current| current.view.borrow().store.clone());
        let store = store.ok_or_else(|| ApiError::internal("the manager has ended"))?;
        let mut leader = store.leader();
        let leads = timeout(LEADS, leader.wait_for(|l| l.me)).await.is_ok_and(|l| l.is_ok());
        if leads {
            Ok(())
        } else {
            Err(ApiError::unavailable("the swarm began anew, but nobody leads it yet"))
        }
    }
}

/// Returns the record of a node whose address is no more that of this host, with the one that is there in its place;
/// `None`: it still is, or was typed, or it cannot be told which is to be it.
fn followed(record: &Record, interfaces: &[(String, IpAddr)]) -> Option<Record> {
    let old = record.advertise_addr;
    if interfaces.iter().any(|(_, addr)| *addr == old.ip()) {
        return None;
    }
    let new = address::advertise(record.follows.as_deref(), old.port(), interfaces).ok();
    let passing = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if v4.is_link_local());
    let new = new.filter(|new| record.follows.is_some() && !passing(new.ip()))?;
    let data_addr = if record.data_addr == old.ip() { new.ip() } else { record.data_addr };
    Some(Record { advertise_addr: new, data_addr, ..record.clone() })
}

/// Writes new addresses into the record of a member that has just ended.
fn moved(folder: &Folder, now: Option<Record>, new: &Record) -> anyhow::Result<Record> {
    let now = now.context("this node has left its swarm meanwhile")?;
    let Record { listen_addr, advertise_addr, data_addr, ref follows, .. } = *new;
    let managers = now.managers.iter().copied().filter(|addr| *addr != now.advertise_addr).collect();
    let follows = follows.clone();
    let record = Record { listen_addr, advertise_addr, data_addr, follows, managers, ..now };
    folder.store(&record)?;
    tracing::info!(from = %now.advertise_addr, to = %advertise_addr, "this node has another address");
    Ok(record)
}

fn stored_credentials(folder: &Folder) -> Result<Credentials, ApiError> {
    match Credentials::load(&folder.credentials(), None) {
        Ok(Some(credentials)) => Ok(credentials),
        Ok(None) => Err(ApiError::internal("this node has no certificate")),
        Err(CredentialsError::Locked) => Err(ApiError::swarm_locked()),
        Err(error) => Err(ApiError::internal(with_causes(&error))),
    }
}

async fn ask_all(
    connections: &Connections,
    others: Vec<(SocketAddr, Option<NodeId>)>,
) -> Vec<(SocketAddr, Answer)> {
    let asked = others.into_iter().map(|(addr, node)| async move {
        let mut other = MembershipClient::new(connections.manager(addr, node));
        let answer = match timeout(ANSWER, other.surviving(SurvivingRequest {})).await {
            Ok(Ok(reply)) => {
                let SurvivingReply { recovering, in_touch, incarnation } = reply.into_inner();
                let incarnation = incarnation.map(|i| Incarnation { number: i.number, tag: i.tag });
                Answer::Here { recovering, in_touch, incarnation }
            }
            Ok(Err(status)) => match status.code() {
                tonic::Code::PermissionDenied => Answer::Disowns,
                // A manager of an earlier version.
                tonic::Code::Unimplemented => {
                    Answer::Here { recovering: false, in_touch: false, incarnation: None }
                }
                _ => Answer::Silence,
            },
            Err(_) => Answer::Silence,
        };
        tracing::info!(manager.addr = %addr, ?answer, "asked before going on without the others");
        (addr, answer)
    });
    join_all(asked).await
}

/// Tells whether this manager may go on without the others, given what they answered; else why not, and what to do.
fn may_go_on(own: Option<Incarnation>, answers: &[(SocketAddr, Answer)]) -> Result<(), String> {
    const ELSE: &str = "hint: `swarm leave --force` here, then `swarm join` with a token from there; if that manager is \
                        not to be the one, `swarm recover --force` here goes on from this one's state nevertheless";
    for (addr, answer) in answers {
        match answer {
            Answer::Silence => {}
            Answer::Disowns => {
                return Err(format!(
                    "manager {addr} does not take this node for a manager (any more): the swarm has gone on without it; \
                     {ELSE}"
                ));
            }
            Answer::Here { incarnation, .. } if *incarnation > own => {
                return Err(format!(
                    "the swarm was recovered or restored already, with manager {addr}; {ELSE}"
                ));
            }
            Answer::Here { recovering: true, .. } => {
                return Err(format!(
                    "manager {addr} is about to recover the swarm at this moment; hint: recover on one manager only, \
                     and let the others join it"
                ));
            }
            Answer::Here { in_touch: true, .. } => {
                return Err(format!(
                    "manager {addr} has a majority: the swarm is not lost; hint: `node demote` takes dead managers out \
                     of it; if it is to go on from this one's state nevertheless, `swarm recover --force`"
                ));
            }
            Answer::Here { .. } => {}
        }
    }
    let voters = answers.len() + 1;
    let here = 1 + answers.iter().filter(|(_, answer)| *answer != Answer::Silence).count();
    if here > voters / 2 && voters > 1 {
        return Err(format!(
            "{here} of {voters} managers are there: a majority, which goes on by itself in a moment; hint: wait, or \
             look at `node ls`; if they cannot, `swarm recover --force` goes on from this one's state alone"
        ));
    }
    Ok(())
}

/// Makes a store with one member of what this manager's store has, and puts it into its place. The member must not run.
/// Returns the record of the manager that it is then.
async fn rebuild(
    folder: &Folder,
    credentials: &Credentials,
    mut record: Record,
    person: &str,
) -> anyhow::Result<Record> {
    folder.finish(&mut record)?;
    let dek = Dek::load_or_create(&folder.raft_key(), credentials.lock().as_ref())?;
    let old = record.raft_id.context("this manager has no number in Raft")?;
    let salvaged = store::salvage(&folder.raft(), &dek, old).await.context("cannot read its own state")?;
    let (node, raft_id) = (credentials.identity().node, new_raft_id());
    let first = First { raft_id, addr: record.advertise_addr, person: person.to_owned() };
    let (tables, incarnation) = recovered(&salvaged.tables, node, &first, clock())?;
    let (unfinished, whole) = (folder.raft_unfinished(), folder.raft_successor());
    clear(&unfinished)?;
    clear(&whole)?;
    let seed = Seed { raft_id, node, addr: first.addr, dek, term: salvaged.term };
    store::seed(&unfinished, &seed, tables).await.context("cannot write the state anew")?;
    fs::rename(&unfinished, &whole).with_context(|| format!("cannot rename {}", unfinished.display()))?;
    folder.sync()?;
    record.successor = Some(raft_id);
    record.managers = vec![record.advertise_addr];
    record.set_incarnation(Some(incarnation));
    folder.store(&record)?;
    tracing::warn!(
        raft.id = raft_id,
        incarnation = incarnation.number,
        "the swarm goes on with this manager alone"
    );
    folder.finish(&mut record)?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use store::Store;

    fn here(recovering: bool, in_touch: bool, number: u64) -> Answer {
        let incarnation = (number > 0).then_some(Incarnation { number, tag: 0 });
        Answer::Here { recovering, in_touch, incarnation }
    }

    /// Judges answers in the second life of a swarm.
    fn check(answers: &[Answer]) -> Result<(), String> {
        let addr = "192.0.2.1:2377".parse().unwrap();
        let answers: Vec<_> = answers.iter().map(|answer| (addr, answer.clone())).collect();
        may_go_on(Some(Incarnation { number: 2, tag: 0 }), &answers)
    }

    #[test]
    fn a_manager_goes_on_alone_only_where_no_other_can() {
        use Answer::{Disowns, Silence};
        let idle = || here(false, false, 2);
        for fine in [
            &[][..],
            &[Silence],
            &[Silence, Silence],
            &[idle(), Silence, Silence, Silence],
            &[here(false, false, 0), Silence, Silence],
        ] {
            assert_eq!(check(fine), Ok(()), "{fine:?}");
        }
        for (refused, why) in [
            (&[idle()][..], "2 of 2 managers"),
            (&[idle(), Silence], "2 of 3 managers"),
            (&[idle(), idle(), Silence, Silence], "3 of 5 managers"),
            (&[Silence, Silence, here(true, false, 2)], "at this moment"),
            (&[Silence, Silence, here(false, true, 2)], "has a majority"),
            (&[Silence, Silence, here(false, true, 3)], "recovered or restored already"),
            (&[Silence, Silence, Disowns], "has gone on without it"),
        ] {
            let said = check(refused).unwrap_err();
            assert!(said.contains(why) && said.contains("hint: "), "{refused:?}: {said}");
        }
    }

    /// Makes a manager with a store of one member; it does not run.
    async fn manager(root: &Path) -> (Folder, Credentials, Record) {
        let folder = Folder::new(root);
        let addr = "127.0.0.1:9".parse().unwrap();
        let made = manager::ca::bootstrap(manager::ca::Init::new(7, addr), clock()).unwrap();
        let key = String::from_utf8(made.key.0).unwrap();
        let credentials =
            Credentials::create(&folder.credentials(), &key, &made.chain, &made.root, None).unwrap();
        let dek = Dek::load_or_create(&folder.raft_key(), None).unwrap();
        let mut tables = model::Tables::default();
        tables.apply(1, &made.batch).unwrap();
        let seed = Seed { raft_id: 7, node: made.node, addr, dek, term: 1 };
        store::seed(&folder.raft(), &seed, tables).await.unwrap();
        let record = Record {
            listen_addr: addr,
            advertise_addr: addr,
            data_addr: addr.ip(),
            follows: None,
            raft_id: Some(7),
            raft_joined: true,
            managers: vec![addr, "127.0.0.1:8".parse().unwrap()],
            lock_version: 0,
            successor: None,
            incarnation: None,
        };
        folder.store(&record).unwrap();
        (folder, credentials, record)
    }

    #[test]
    fn an_address_that_was_not_typed_is_followed() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let record = |follows: Option<&str>| Record {
            listen_addr: "0.0.0.0:2377".parse().unwrap(),
            advertise_addr: "192.0.2.3:2377".parse().unwrap(),
            data_addr: ip("192.0.2.3"),
            follows: follows.map(str::to_owned),
            raft_id: None,
            raft_joined: false,
            managers: Vec::new(),
            lock_version: 0,
            successor: None,
            incarnation: None,
        };
        let on = |all: &[(&str, &str)]| -> Vec<(String, IpAddr)> {
            all.iter().map(|(name, addr)| ((*name).to_owned(), ip(addr))).collect()
        };
        let to = |follows, all: &[(&str, &str)]| {
            followed(&record(follows), &on(all)).map(|r| r.advertise_addr.ip())
        };
        assert_eq!(to(Some(""), &[("eth0", "192.0.2.33")]), Some(ip("192.0.2.33")));
        assert_eq!(
            to(Some("eth1"), &[("eth0", "192.0.2.33"), ("eth1", "198.51.100.3")]),
            Some(ip("198.51.100.3"))
        );
        for (follows, all) in [
            (Some(""), &[("eth0", "192.0.2.3")][..]), // still there
            (Some(""), &[("eth0", "192.0.2.33"), ("eth1", "192.0.2.3")]),
            (Some(""), &[("eth0", "192.0.2.33"), ("eth1", "198.51.100.3")]), // which of them?
            (Some(""), &[]),
            (Some(""), &[("eth0", "169.254.7.7")]),
            (Some("eth1"), &[("eth0", "192.0.2.33")]),
            (None, &[("eth0", "192.0.2.33")]), // it was typed: NAT, for instance
        ] {
            assert_eq!(to(follows, all), None, "{follows:?} {all:?}");
        }
        // A tunnel address of its own stays.
        let apart = Record { data_addr: ip("10.9.9.9"), ..record(Some("")) };
        let moved = followed(&apart, &on(&[("eth0", "192.0.2.33")])).unwrap();
        assert_eq!((moved.data_addr, moved.advertise_addr.port()), (ip("10.9.9.9"), 2377));
        for (typed, follows) in [
            (None, Some("")),
            (Some(""), Some("")),
            (Some("eth0"), Some("eth0")),
            (Some("eth0:7"), Some("eth0:7")),
            (Some("192.0.2.1"), None),
            (Some("192.0.2.1:7"), None),
        ] {
            assert_eq!(address::follows(typed).as_deref(), follows, "{typed:?}");
        }
    }

    #[tokio::test]
    async fn a_crash_at_any_point_leaves_the_old_store_or_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, credentials, record) = manager(dir.path()).await;
        // Before the record names it, what was made does not count.
        fs::create_dir_all(folder.raft_successor()).unwrap();
        let mut old = folder.load().unwrap().unwrap();
        folder.finish(&mut old).unwrap();
        assert_eq!(old, record);

        let new = rebuild(&folder, &credentials, record.clone(), "root@a").await.unwrap();
        assert_eq!(folder.load().unwrap().unwrap(), new);
        assert!(new.raft_id != Some(7) && new.incarnation().is_some() && new.successor.is_none());
        assert_eq!(new.managers, [new.advertise_addr]);
        assert_eq!(Store::stored_raft_id(&folder.raft()).unwrap(), new.raft_id);

        // After it does, each moment of the exchange is made up for.
        let raft_id = new.raft_id;
        let named = || Record { successor: raft_id, raft_id: Some(7), ..new.clone() };
        fs::rename(folder.raft(), folder.raft_successor()).unwrap();
        for old_is_there in [true, false] {
            if old_is_there {
                fs::create_dir_all(folder.raft().join("log")).unwrap();
            }
            let mut record = named();
            folder.finish(&mut record).unwrap();
            assert_eq!(record, new);
            let mut again = named();
            folder.finish(&mut again).unwrap();
            assert_eq!(again, new, "the store is there, the record is not yet");
            fs::rename(folder.raft(), folder.raft_successor()).unwrap();
        }
        fs::remove_dir_all(folder.raft_successor()).unwrap();
        folder.finish(&mut named()).unwrap_err();
    }
}
