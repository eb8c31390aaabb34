//! What one node has been told in its session, and what it must be told next. Pure.
//!
//! A running task that is to stop first leaves the maps everywhere: its agent is told only when every subscriber
//! of its networks has acknowledged tables without it, or after two seconds in which this process ran.

use super::{held::Held, subject_from_wire};
use crate::{
    assignments::Ledger,
    clock::heartbeat_period,
    presence::{ClusterAcks, Subject, subjects_of},
    published::Published,
};
use model::{Desired, Duration, NetworkId, Node, NodeId, PublishMode, Tables, Task, TaskId, TaskState};
use proto::{
    Invalid, WireId as _,
    dispatcher::{ManagerList, ManagerMessage, NetworkAck, Welcome, manager_message::Message as Down},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::time::Instant;
use tonic::Status;
use tracing::info;

const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// A task that waits until nobody sends to it any more.
struct Drain {
    /// Tables at or behind this index are without it.
    index: u64,
    /// Time in which this process stood still does not count: what was acknowledged waits in a socket.
    until: Instant,
    stalled_before: Duration,
}

/// One session's memory.
pub(crate) struct Told {
    node: NodeId,
    tasks: Ledger,
    held: Held,
    draining: BTreeMap<TaskId, Drain>,
    itself: Option<Arc<Node>>,
    managers: Option<Arc<ManagerList>>,
    root: String,
    period: Duration,
    /// Tasks that were told to stop although somebody may still send to them.
    late: u64,
}

impl Told {
    /// A session of `node` begins. `networks`, `tells_gone`: see [`Held::new`].
    pub(crate) fn new(node: NodeId, networks: impl IntoIterator<Item = NetworkId>, tells_gone: bool) -> Self {
        Self {
            node,
            tasks: Ledger::default(),
            held: Held::new(networks, tells_gone),
            draining: BTreeMap::new(),
            itself: None,
            managers: None,
            root: String::new(),
            period: Duration::ZERO,
            late: 0,
        }
    }

    /// Returns how often the node was told to send heartbeats.
    pub(crate) fn period(&self) -> Duration {
        self.period
    }

    /// Returns true while tasks of the node wait until nobody sends to them any more.
    pub(crate) fn is_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// Returns when the first of those tasks waits no longer.
    pub(crate) fn drained_at(&self) -> Option<Instant> {
        self.draining.values().map(|drain| drain.until).min()
    }

    /// Returns how many tasks were told to stop although somebody may still send to them, since this was asked last.
    pub(crate) fn take_late(&mut self) -> u64 {
        std::mem::take(&mut self.late)
    }

    /// Returns up to which index the node's kernel agrees with the state, by table.
    pub(crate) fn acks(&self) -> BTreeMap<Subject, u64> {
        self.held.acks()
    }

    /// The node says what its kernel holds, or has dropped.
    ///
    /// # Errors
    /// It names no network.
    pub(crate) fn hear(&mut self, ack: &NetworkAck) -> Result<(), Invalid> {
        match (subject_from_wire(&ack.network)?, ack.gone) {
            (Some(network), true) => self.held.dropped(network, ack.version),
            (subject, _) => self.held.acked(subject, ack.version),
        }
        Ok(())
    }

    /// Returns what is new for the node: who it is, then tables, then tasks, then what is no more. `acks`: what all nodes
    /// are known to hold; `stalled`: how long this process has stood still by now.
    ///
    /// # Errors
    /// PERMISSION_DENIED: it is no node of the swarm any more. UNAVAILABLE: there is no swarm yet.
    pub(crate) fn publish(
        &mut self,
        now: Instant,
        stalled: Duration,
        published: &Published,
        acks: &ClusterAcks,
    ) -> Result<Vec<ManagerMessage>, Status> {
        let view = &published.view;
        let node = view
            .nodes
            .get(&self.node)
            .ok_or_else(|| Status::permission_denied("this node was removed from the swarm"))?;
        let mut news = self.who_it_is(published, node)?;
        let subjects = subjects_of(view, self.node);
        news.extend(self.tables(published, &subjects));

        self.draining.retain(|id, _| view.tasks.contains(id));
        let (draining, late) = (&mut self.draining, &mut self.late);
        let assignments = self.tasks.next(view, self.node, |task| {
            let maps = maps_of(view, task);
            if maps.is_empty() {
                draining.remove(&task.id);
                return false;
            }
            let drain = draining.entry(task.id).or_insert(Drain {
                index: view.index,
                until: now + DRAIN_LIMIT,
                stalled_before: stalled,
            });
            drain.until += stalled.saturating_sub(drain.stalled_before);
            drain.stalled_before = stalled;
            let behind =
                maps.iter().find(|subject| acks.get(*subject).is_some_and(|held| *held < drain.index));
            let waits = behind.is_some() && now < drain.until;
            if !waits && let Some(subject) = behind {
                *late += 1;
                let (index, held) = (drain.index, acks.get(subject));
                info!(
                    task.id = %task.id, network.id = ?subject, raft.index = index, ?held,
                    "told to stop, although somebody may still send to it"
                );
            }
            if !waits {
                draining.remove(&task.id);
            }
            waits
        });
        news.extend(assignments.into_iter().map(Down::Assignments));
        let mut news: Vec<ManagerMessage> = news.into_iter().map(told_now).collect();

        for network in self.held.unneeded(&subjects) {
            self.held.told_to_drop(network, view.index);
            let gone = Down::NetworkGone(network.to_wire());
            news.push(ManagerMessage { message: Some(gone), gone_at: view.index });
        }
        self.held.sent_up_to(view.index);
        Ok(news)
    }

    fn who_it_is(&mut self, published: &Published, node: &Arc<Node>) -> Result<Vec<Down>, Status> {
        let (view, managers) = (&published.view, &published.managers);
        let cluster = view.cluster.as_ref().ok_or_else(|| Status::unavailable("the swarm is not ready"))?;
        let mut news = Vec::new();
        let period = heartbeat_period(view);
        if period != self.period {
            self.period = period;
            self.itself = Some(node.clone());
            self.managers = Some(managers.clone());
            news.push(Down::Welcome(Welcome {
                node: Some((&**node).into()),
                heartbeat_period_ms: u64::try_from(period.as_millis()).unwrap_or(u64::MAX),
                data_path_port: u32::from(cluster.data_path_port),
                mesh_subnet: cluster.mesh_subnet.to_string(),
                task_pool: cluster.task_pool.to_string(),
                index: u32::from(node.index),
                managers: Some((**managers).clone()),
                incarnation: cluster.incarnation.as_ref().map(Into::into),
            }));
        }
        let same = self.itself.as_ref().is_some_and(|told| {
            told.spec == node.spec
                && told.certified_role == node.certified_role
                && told.manager == node.manager
        });
        if !same {
            self.itself = Some(node.clone());
            news.push(Down::Node((&**node).into()));
        }
        if self.managers.as_ref().is_none_or(|told| !Arc::ptr_eq(told, managers)) {
            self.managers = Some(managers.clone());
            news.push(Down::Managers((**managers).clone()));
        }
        let roots = cluster.trusted_roots();
        if self.root != roots {
            self.root.clone_from(&roots);
            news.push(Down::RootCa(roots));
        }
        Ok(news)
    }

    fn tables(&mut self, published: &Published, subjects: &BTreeSet<Subject>) -> Vec<Down> {
        let mut news = Vec::new();
        for subject in subjects {
            let (version, message) = match subject {
                None => {
                    let table = &published.ingress;
                    if !self.held.lacks(*subject, table.version) {
                        continue;
                    }
                    (table.version, Down::Ingress((&**table).into()))
                }
                Some(network) => {
                    let Some(table) = published.networks.get(network) else { continue };
                    if !self.held.lacks(*subject, table.version) {
                        continue;
                    }
                    (table.version, Down::NetworkTable((&**table).into()))
                }
            };
            self.held.sent(*subject, version);
            news.push(message);
        }
        news
    }
}

pub(super) fn told_now(message: Down) -> ManagerMessage {
    ManagerMessage { message: Some(message), gone_at: 0 }
}

/// Returns the maps that may still send connections to a task which is to stop.
fn maps_of(tables: &Tables, task: &Task) -> Vec<Subject> {
    if task.desired < Desired::Shutdown || task.status.state != Some(TaskState::Running) {
        return Vec::new();
    }
    let published = task.gateway_address.is_some()
        && tables
            .services
            .get(&task.service)
            .is_some_and(|s| s.endpoint.ports.iter().any(|p| p.mode == PublishMode::Ingress));
    task.attachments.iter().map(|a| Some(a.network)).chain(published.then_some(None)).collect()
}
