//! Nodes that are promoted, demoted, leave and are removed faster than they can follow.

use super::{
    links::Links,
    swarm::{Running, Swarm, channel, control_by},
};
use model::*;
use pki::{Credentials, NodeKey};
use proto::{
    WireId as _,
    ca::{
        IssueCertificateRequest, JoinRaftRequest, ca_client::CaClient, membership_client::MembershipClient,
    },
    control::{RemoveRequest, UpdateRequest, update_request},
    dispatcher::{LeaveRequest, work_client::WorkClient},
    types::ObjectKind,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use testkit::on_a_shared_machine;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tonic::Code;

const CHANGES: usize = 200;
/// Between two moments to follow.
const AT_ONCE: usize = 20;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Within this all is as it was said last.
const SETTLED: Duration = on_a_shared_machine(Duration::from_secs(10));

/// What the hosts of this test share.
struct World {
    begun: Instant,
    /// The managers that run, by node: how the hosts hear of the swarm.
    managers: Mutex<BTreeMap<NodeId, Place>>,
    /// Told to leave the swarm.
    leaving: Mutex<BTreeSet<NodeId>>,
    token: String,
    next_raft_id: AtomicU64,
    /// What happened, for who reads of a failure.
    story: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Place {
    store: store::Handle,
    addr: SocketAddr,
    credentials: Credentials,
}

impl World {
    fn leader(&self) -> Option<Place> {
        let managers = self.managers.lock().unwrap();
        managers.values().find(|m| m.store.leader_now().me && m.store.is_current()).cloned()
    }

    fn tell(&self, node: NodeId, what: &str) {
        let line = format!("{:8.3} {:.4}: {what}", self.begun.elapsed().as_secs_f64(), node.to_string());
        self.story.lock().unwrap().push(line);
    }

    /// Says how roles and Raft differ; empty: they do not.
    fn differences(&self) -> String {
        let Some(leader) = self.leader() else { return "nobody leads".to_owned() };
        let (view, members) = (leader.store.view(), leader.store.members());
        let running = self.managers.lock().unwrap();
        let mut text = String::new();
        for node in view.nodes.values() {
            let is_in_raft =
                members.iter().any(|m| m.node == Some(node.id) && m.voter && m.reachable == Some(true));
            let wanted = node.spec.role == Role::Manager && node.status.state != NodeState::Disconnected;
            let is = [node.manager.is_some(), is_in_raft, running.contains_key(&node.id)];
            if is != [wanted; 3] {
                text.push_str(&format!(
                    "{:.4} is to be a manager: {wanted}; recorded, in Raft, running: {is:?}\n",
                    node.id.to_string()
                ));
            }
        }
        let strange = members.iter().filter(|m| m.node.is_none_or(|id| !view.nodes.contains(&id)));
        strange.for_each(|m| text.push_str(&format!("a stranger in Raft: {m:?}\n")));
        text
    }

    /// Panics with all that happened.
    fn fail(&self, why: &str) -> ! {
        let story = self.story.lock().unwrap().join("\n");
        let managers = self.managers.lock().unwrap();
        let stores = managers.iter().map(|(id, m)| {
            let (store, now) = (&m.store, m.store.leader_now());
            let members: Vec<_> = store.members().iter().map(|m| (m.raft_id, m.voter)).collect();
            format!("{:.4} = {}: {now:?}, members {members:?}\n", id.to_string(), store.raft_id())
        });
        panic!("{story}\n{}{why}", stores.collect::<String>());
    }
}

/// A node as the daemon is one: it gets the certificate of the role that it is to have, begins to be a manager or ends
/// it, begins anew when it finds itself out of Raft, and joins again when it left or was removed.
struct Host {
    node: NodeId,
    credentials: Credentials,
    running: Option<Running>,
    world: Arc<World>,
}

impl Host {
    async fn run(mut self) {
        loop {
            self.look().await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn look(&mut self) {
        let Some(leader) = self.world.leader() else { return };
        if self.world.leaving.lock().unwrap().contains(&self.node) {
            return self.leave(leader.addr).await;
        }
        // Who leads since a moment ago may not know this node yet.
        let Ok(Ok(index)) = timeout(ANSWER, leader.store.read_index()).await else { return };
        let Ok(Ok(())) = timeout(ANSWER, leader.store.wait_applied(index)).await else { return };
        let node = leader.store.view().nodes.get(&self.node).cloned();
        let Some(node) = node.filter(|n| n.status.state != NodeState::Disconnected) else {
            return self.join_swarm(&leader).await;
        };
        let own = self.running.as_ref().map(|r| r.store.raft_id());
        let in_raft = self.running.as_ref().is_some_and(|r| r.store.is_current());
        match (node.spec.role, own) {
            (Role::Manager, None) => self.promote(leader.addr).await,
            (Role::Worker, Some(_)) if node.manager.is_none() => self.demote(leader.addr).await,
            // While the leader sends it entries it is in Raft, whatever is recorded.
            (Role::Manager, own) if node.manager.map(|m| m.raft_id) != own && !in_raft => {
                self.end("finds itself out of Raft").await;
            }
            (Role::Manager | Role::Worker, _) => {}
        }
    }

    /// Leaves, if it may.
    async fn leave(&mut self, addr: SocketAddr) {
        let mut work = WorkClient::new(channel(&self.credentials, addr));
        let outcome = match timeout(Duration::from_secs(20), work.leave(LeaveRequest::default())).await {
            Ok(Ok(_)) => "left".to_owned(),
            Ok(Err(status)) if status.code() == Code::Unavailable => return, // it asks again
            Ok(Err(status)) => format!("may not leave: {}", status.message()),
            Err(_) => return,
        };
        self.world.tell(self.node, &outcome);
        self.world.leaving.lock().unwrap().remove(&self.node);
        if outcome == "left" {
            self.end("ends, having left").await;
        }
    }

    /// Becomes another node of the swarm that it left or was removed from.
    async fn join_swarm(&mut self, leader: &Place) {
        self.end("is no node any more").await;
        let certified =
            Swarm::certify_through(&leader.credentials.root_pem(), leader.addr, &self.world.token).await;
        if let Ok(credentials) = certified {
            self.node = credentials.identity().node;
            self.credentials = credentials;
            self.world.tell(self.node, "joined as a worker");
        }
    }

    async fn renew(&self, addr: SocketAddr) -> Option<Credentials> {
        let key = NodeKey::generate().unwrap();
        let request = IssueCertificateRequest { csr_pem: key.csr_pem().unwrap(), ..Default::default() };
        let mut ca = CaClient::new(channel(&self.credentials, addr));
        let reply = timeout(ANSWER, ca.issue_certificate(request)).await.ok()?.ok()?.into_inner();
        Some(Credentials::in_memory(&key.pem(), &reply.certificate_pem, &reply.root_pem).unwrap())
    }

    async fn promote(&mut self, addr: SocketAddr) {
        if self.credentials.identity().role != Role::Manager {
            let Some(renewed) = self.renew(addr).await else { return };
            self.credentials = renewed;
            if self.credentials.identity().role != Role::Manager {
                return;
            }
        }
        let raft_id = self.world.next_raft_id.fetch_add(1, Relaxed);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let links = Links::default();
        // The node's agent goes on, and hears which managers there are.
        let world = self.world.clone();
        let seeds = Arc::new(move || world.managers.lock().unwrap().values().map(|m| m.addr).collect());
        let mut running =
            Running::start(self.credentials.clone(), raft_id, listener, None, seeds, links).await;
        self.world.tell(self.node, &format!("begins as member {raft_id}"));
        let addr = running.addr.to_string();
        let request = JoinRaftRequest { raft_id, addr, feature_level: FEATURE_LEVEL };
        loop {
            // The one that took it in may be gone before it said so; this one may lead by now.
            if running.store.is_voter() {
                break;
            }
            let Some(leader) = self.world.leader() else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let mut client = MembershipClient::new(channel(&self.credentials, leader.addr));
            match timeout(ANSWER, client.join_raft(request.clone())).await {
                Ok(Ok(_)) => break,
                Ok(Err(status)) if status.code() == Code::PermissionDenied => {
                    // If it was taken in before, it goes on until it is out again.
                    let limit = Instant::now() + Duration::from_secs(15);
                    while running.store.is_current() && Instant::now() < limit {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    running.kill().await;
                    self.world.tell(self.node, &format!("not taken in: {}", status.message()));
                    if let Some(renewed) = self.renew(leader.addr).await {
                        self.credentials = renewed;
                    }
                    return;
                }
                Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        self.world.tell(self.node, &format!("is member {raft_id}"));
        let (store, addr) = (running.store.clone(), running.addr);
        let place = Place { store, addr, credentials: self.credentials.clone() };
        self.world.managers.lock().unwrap().insert(self.node, place);
        self.running = Some(running);
    }

    async fn demote(&mut self, addr: SocketAddr) {
        let Some(renewed) = self.renew(addr).await else { return };
        if renewed.identity().role == Role::Worker {
            self.credentials = renewed;
            self.end("is a worker").await;
        }
    }

    async fn end(&mut self, why: &str) {
        self.world.managers.lock().unwrap().remove(&self.node);
        if let Some(mut running) = self.running.take() {
            running.kill().await;
            self.world.tell(self.node, why);
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Role(Role),
    Leave,
    Remove { force: bool },
}

/// Returns whether something is to change now: it may be refused, or be so already.
async fn ask(world: &World, what: Ask, random: u64) -> bool {
    let Some(leader) = world.leader() else { return false };
    let view = leader.store.view();
    let count = u64::try_from(view.nodes.len()).unwrap();
    let position = usize::try_from(random % count).unwrap();
    let node = view.nodes.values().nth(position).unwrap().clone();
    let mut control = control_by(&leader.credentials, leader.addr);
    let told = match what {
        Ask::Role(role) if node.spec.role == role => return false,
        Ask::Role(role) => {
            let spec = NodeSpec { role, ..node.spec.clone() };
            let spec = Some(update_request::Spec::Node((&spec).into()));
            let (id, version) = (node.id.to_wire(), node.meta.version);
            let request = UpdateRequest { id, version, spec, registry_auth: None };
            matches!(timeout(ANSWER, control.update(request)).await, Ok(Ok(_)))
        }
        Ask::Leave if node.status.state == NodeState::Disconnected => return false,
        Ask::Leave => world.leaving.lock().unwrap().insert(node.id),
        Ask::Remove { force } => {
            let request = RemoveRequest { kind: ObjectKind::Node as i32, id: node.id.to_wire(), force };
            matches!(timeout(ANSWER, control.remove(request)).await, Ok(Ok(_)))
        }
    };
    if told {
        world.tell(node.id, &format!("told: {what:?}"));
    }
    told
}

/// Waits until all is as it was said.
async fn settle(world: &World, changes: usize) {
    let limit = Instant::now() + SETTLED;
    while !world.leaving.lock().unwrap().is_empty() || !world.differences().is_empty() {
        if Instant::now() > limit {
            world.fail(&format!("after {changes} changes:\n{}", world.differences()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_changes_of_roles_end_in_what_was_said_last() {
    let mut swarm = Swarm::new().await;
    let token = swarm.token(Role::Worker).await;
    let first = swarm.managers.remove(0);
    let root = first.credentials.root_pem();
    let (store, addr, credentials) = (first.store.clone(), first.addr, first.credentials.clone());
    let world = Arc::new(World {
        begun: Instant::now(),
        managers: Mutex::new([(first.node, Place { store, addr, credentials })].into()),
        leaving: Mutex::default(),
        token,
        next_raft_id: AtomicU64::new(1_000),
        story: Mutex::default(),
    });
    let mut hosts = JoinSet::new();
    let host = |credentials: Credentials, running| Host {
        node: credentials.identity().node,
        credentials,
        running,
        world: world.clone(),
    };
    hosts.spawn(host(first.credentials.clone(), Some(first)).run());
    for _ in 0..4 {
        let credentials = Swarm::certify_through(&root, addr, &world.token).await.unwrap();
        hosts.spawn(host(credentials, None).run());
    }

    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random >> 11
    };
    let mut changes = 0;
    let mut limit = Instant::now() + SETTLED;
    while changes < CHANGES {
        if Instant::now() > limit {
            world.fail(&format!("{changes} changes only:\n{}", world.differences()));
        }
        let what = match next() % 20 {
            0..10 => Ask::Role(Role::Manager),
            10..16 => Ask::Role(Role::Worker),
            16..18 => Ask::Leave,
            18 => Ask::Remove { force: true },
            _ => Ask::Remove { force: false },
        };
        if !ask(&world, what, next()).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        changes += 1;
        limit = Instant::now() + SETTLED;
        if changes % AT_ONCE == 0 {
            settle(&world, changes).await;
        } else {
            // From nothing to long enough for the first steps of a join.
            let pause = [0, 0, 0, 20, 100, 300][usize::try_from(next() % 6).unwrap()];
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
    settle(&world, changes).await;
    while let Some(joined) = hosts.try_join_next() {
        if joined.is_err() {
            world.fail("a host panicked");
        }
    }
    hosts.shutdown().await;
}
