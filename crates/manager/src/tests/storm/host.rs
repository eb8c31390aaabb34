//! A host of a storm: its disk, its containers, its daemon with an agent, and while it is a manager a store and loops.

use super::{
    Storm,
    net::Net,
    roles::{Errands, Wish},
};
use crate::{
    InNameOf, Manager, Options,
    tests::swarm::{Control, operator},
};
use agent::{Agent, fake::FakeHost};
use model::*;
use pki::Identity;
use proto::{PersonalClaim, control::control_client::ControlClient};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
};
use store::{Dek, Store};
use testkit::lossy::{Lie, Lossy};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// What all wall clocks show when a storm begins, if nobody has set them.
pub(super) const BEGIN: Timestamp = Timestamp(1_800_000_000_000_000_000);

pub(super) fn addr_of(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 2377))
}

/// What a host keeps of its membership, as `node::record` does: always on its disk.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Of a manager.
    pub(super) raft_id: Option<u64>,
    pub(super) raft_joined: bool,
    /// As last heard.
    pub(super) managers: Vec<SocketAddr>,
}

/// What people at a host know of it, and what they can ask of it.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) number: u8,
    net: Net,
    papers: Arc<Mutex<Identity>>,
    /// Its manager runs.
    serves: Arc<AtomicBool>,
    pub(super) wish: Arc<Mutex<Option<Wish>>>,
}

impl Door {
    /// Returns what its certificate says.
    pub(super) fn papers(&self) -> Identity {
        *self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn serves(&self) -> bool {
        self.serves.load(Relaxed)
    }

    /// Returns a way to its manager for its own people.
    pub(super) fn control(&self) -> Control {
        let addr = addr_of(self.number);
        let channel = self.net.channel(addr.ip(), Some(self.papers()), addr);
        ControlClient::with_interceptor(channel, PersonalClaim::new(&operator()))
    }
}

pub(super) struct Running {
    pub(super) store: Store,
    pub(super) manager: Manager,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

/// What runs of a daemon beside its manager.
pub(super) struct Daemon {
    pub(super) heard: watch::Receiver<agent::View>,
    known: watch::Sender<Vec<SocketAddr>>,
    _agent: JoinSet<()>,
}

pub(super) struct Host {
    pub(super) number: u8,
    pub(super) door: Door,
    pub(super) record: Record,
    /// What its manager writes to.
    pub(super) disk: Lossy,
    pub(super) running: Option<Running>,
    pub(super) containers: Arc<FakeHost>,
    /// `None` while its daemon is away.
    pub(super) daemon: Option<Daemon>,
    pub(super) errands: Errands,
    /// By how much its clock is ahead. *Unit:* nanoseconds.
    pub(super) ahead: Arc<AtomicI64>,
    agent_dir: tempfile::TempDir,
    // Last: what runs may still write there.
    raft_dir: tempfile::TempDir,
}

impl Host {
    pub(super) fn new(number: u8, identity: Identity, net: Net, lie: Option<Lie>) -> Self {
        let raft_dir = tempfile::tempdir().unwrap();
        let door = Door {
            number,
            net,
            papers: Arc::new(Mutex::new(identity)),
            serves: Arc::default(),
            wish: Arc::default(),
        };
        Self {
            number,
            door,
            record: Record::default(),
            disk: new_disk(&raft_dir, lie),
            running: None,
            containers: Arc::new(FakeHost::new(&format!("host{number}"), addr_of(number))),
            daemon: None,
            errands: Errands::default(),
            ahead: Arc::default(),
            agent_dir: tempfile::tempdir().unwrap(),
            raft_dir,
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        addr_of(self.number)
    }

    pub(super) fn identity(&self) -> Identity {
        self.door.papers()
    }

    pub(super) fn node(&self) -> NodeId {
        self.identity().node
    }

    pub(super) fn set_papers(&self, identity: Identity) {
        *self.door.papers.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    pub(super) fn handle(&self) -> Option<store::Handle> {
        self.running.as_ref().map(|running| running.store.handle())
    }

    /// Begins anew in Raft, if ever: nothing is left of an earlier part in it.
    pub(super) fn discard_raft(&mut self, lie: Option<Lie>) {
        self.record.raft_id = None;
        self.record.raft_joined = false;
        self.raft_dir = tempfile::tempdir().unwrap();
        self.disk = new_disk(&self.raft_dir, lie);
    }

    /// Returns the managers to ask: also this host itself if it serves as one.
    pub(super) fn managers(&self) -> Vec<SocketAddr> {
        let mut all = self.other_managers();
        if self.running.is_some() {
            all.push(self.addr());
        }
        all
    }

    pub(super) fn other_managers(&self) -> Vec<SocketAddr> {
        self.record.managers.iter().copied().filter(|addr| *addr != self.addr()).collect()
    }

    /// Notes what its session tells of the managers.
    pub(super) fn learn(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let managers = daemon.heard.borrow().managers.clone();
        if !managers.is_empty() && managers != self.record.managers {
            self.record.managers = managers;
            daemon.known.send_replace(self.managers());
        }
    }

    /// Ends its agent and whatever it is about to find out.
    pub(super) fn end_agent(&mut self) {
        self.daemon = None;
        self.errands.give_up();
    }

    /// Ends its manager at once, whatever it is about to do.
    pub(super) async fn end_manager(&mut self) {
        self.door.serves.store(false, Relaxed);
        if let Some(mut running) = self.running.take() {
            running.tasks.shutdown().await;
            running.cancel.cancel();
            running.store.shutdown().await;
        }
    }

    pub(super) async fn end_daemon(&mut self) {
        self.end_agent();
        self.end_manager().await;
    }

    /// Removes what the swarm ran here, as a node does that has left.
    pub(super) async fn forget_swarm(&mut self) {
        agent::forget(&*self.containers, self.agent_dir.path()).await.unwrap();
        self.containers.state().networks.clear();
    }
}

fn new_disk(dir: &tempfile::TempDir, lie: Option<Lie>) -> Lossy {
    let disk = Lossy::new(dir.path()).at_once();
    if let Some(lie) = lie { disk.lying(lie) } else { disk }
}

fn clock(start: Instant, ahead: Arc<AtomicI64>) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    Arc::new(move || Timestamp(BEGIN.after(start.elapsed()).0 + ahead.load(Relaxed)))
}

impl Storm {
    /// Starts a host's daemon in the role that its certificate says.
    pub(super) async fn start_daemon(&mut self, position: usize) -> Result<(), store::OpenError> {
        let host = &mut self.hosts[position];
        if host.identity().role == Role::Manager {
            let is_gone = || matches!(Store::stored_raft_id(host.raft_dir.path()), Ok(None));
            if host.record.raft_joined && is_gone() {
                // Under its old number it would vote again where it has voted.
                host.discard_raft(self.lie);
            }
            if host.record.raft_id.is_none() {
                host.discard_raft(self.lie);
                self.last_raft_id += 1;
                host.record.raft_id = Some(self.last_raft_id);
            }
            self.start_manager(position).await?;
        }
        self.start_agent(position);
        Ok(())
    }

    async fn start_manager(&mut self, position: usize) -> Result<(), store::OpenError> {
        let host = &self.hosts[position];
        let raft_id = host.record.raft_id.expect("a manager has a number");
        let (addr, identity, net) = (host.addr(), host.identity(), self.net.clone());
        let dialled = net.clone();
        let connect = move |_node: Option<NodeId>, to: SocketAddr| {
            let channel = dialled.channel(addr.ip(), Some(identity), to);
            async move { Ok::<_, store::ConnectError>(channel) }
        };
        let mut options =
            store::Options::new(raft_id, identity.node, addr, Dek::new(&[7; 32]), Arc::new(connect));
        options.disk = Arc::new(host.disk.clone());
        // So that snapshots, purged entries and members who need them are a part of it.
        (options.snapshot_interval, options.keep_entries) = (150, 20);
        // Drawn here, or the library would.
        let election_min = self.random.millis(750, 1250);
        let election_max = election_min + Duration::from_millis(1);
        options.timing = store::Timing { election_min, election_max, ..store::Timing::default() };
        let store = Store::open(host.raft_dir.path(), options).await?;
        let (dialled, answering) = (net.clone(), net.clone());
        let to_manager: crate::Connect =
            Arc::new(move |to, _node, _name: &InNameOf| dialled.channel(addr.ip(), Some(identity), to));
        let managers = host.record.managers.clone();
        let vouch = crate::voucher(store.handle(), to_manager.clone(), move || managers.clone());
        let manager = Manager::new(Options {
            store: store.handle(),
            node: identity.node,
            connect: to_manager,
            answers: Arc::new(move |host: SocketAddr| {
                let net = answering.clone();
                Box::pin(async move {
                    if !(net.passes(addr.ip(), host.ip()) && net.passes(host.ip(), addr.ip())) {
                        std::future::pending::<()>().await;
                    }
                    true
                })
            }),
            clock: clock(self.start, host.ahead.clone()),
            recovering: Arc::default(),
            under_way: crate::UnderWay::default(),
        });
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let incoming = ReceiverStream::new(net.listen(addr));
        let routes = manager.routes().add_service(store.service(store::Admission::Members(vouch)));
        tasks.spawn(async move {
            Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
        });
        let (stop, running) = (cancel.clone(), manager.clone());
        // One whose disk is off ends by itself.
        tasks.spawn(async move { drop(running.run(stop).await) });
        let host = &mut self.hosts[position];
        host.running = Some(Running { store, manager, cancel, tasks });
        host.door.serves.store(true, Relaxed);
        Ok(())
    }

    fn start_agent(&mut self, position: usize) {
        let (net, start) = (self.net.clone(), self.start);
        let host = &mut self.hosts[position];
        let (from, identity) = (host.addr().ip(), host.identity());
        let known = watch::Sender::new(host.managers());
        let agent = Agent::new(agent::Options {
            managers: known.subscribe(),
            connect: Arc::new(move |to| net.channel(from, Some(identity), to)),
            executor: host.containers.clone(),
            state_dir: host.agent_dir.path().to_owned(),
            clock: clock(start, host.ahead.clone()),
            incarnation: watch::Sender::new(None),
        });
        let heard = agent.view();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { agent.run(CancellationToken::new()).await.unwrap() });
        host.daemon = Some(Daemon { heard, known, _agent: tasks });
    }
}
