//! Whether all is as it was asked to be.

use super::{
    Member, Storm,
    people::{People, set_availability},
};
use crate::presence::subjects_of;
use model::*;
use plan::Acks;
use proto::types::ObjectKind;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::IpAddr,
    sync::Arc,
};
use testkit::history::linearize;

fn is_live(task: &Task) -> bool {
    !task.status.state.is_some_and(TaskState::is_terminal)
}

impl Storm {
    fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.handle().is_some_and(|handle| handle.leader_now().me))
    }

    /// Returns what is not yet as it was asked for. Nodes are to be active: they are `asked` to be if they are not.
    pub(super) async fn missing(&mut self, asked: bool) -> Option<String> {
        let Some(leader) = self.leader() else { return Some("nobody leads".to_owned()) };
        let (view, number) = (leader.handle()?.view(), leader.number);
        for worker in &self.workers {
            let Some(node) = view.nodes.get(&worker.node) else {
                return Some(format!("worker {} is unknown", worker.number));
            };
            if node.spec.availability != Availability::Active && asked {
                let mut control = self.dials()[usize::from(number) - 1]();
                let limit = Duration::from_secs(5);
                let set = set_availability(&mut control, worker.node, Availability::Active);
                // If that does not succeed it is asked again.
                drop(tokio::time::timeout(limit, set).await);
                return Some(format!("worker {} is {:?}", worker.number, node.spec.availability));
            }
            if node.status.state != NodeState::Ready {
                return Some(format!("worker {} is {:?}", worker.number, node.status));
            }
        }
        let missing = self.missing_services(&view).or_else(|| self.missing_on_hosts(&view));
        missing.or_else(|| self.missing_of_managers(&view))
    }

    fn missing_services(&self, view: &Tables) -> Option<String> {
        for service in view.services.values() {
            let name = &service.spec.name;
            if service.pending_delete {
                return Some(format!("{name} is not removed"));
            }
            let wanted = match service.spec.mode {
                Mode::Replicated { replicas } => replicas,
                _ => self.workers.len() as u64,
            };
            let tasks: Vec<_> = view.tasks_of_service(service.id).filter(|task| is_live(task)).collect();
            let runs =
                |t: &&Arc<Task>| t.status.state == Some(TaskState::Running) && t.desired == Desired::Running;
            if tasks.len() as u64 != wanted || !tasks.iter().all(runs) {
                let states: Vec<_> =
                    tasks.iter().map(|t| (t.id, t.desired, t.status.state, &t.placement)).collect();
                return Some(format!("{name} of {wanted} has {states:?}"));
            }
            let state = service.update.as_ref().map(|update| update.state);
            if matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted)) {
                return Some(format!("{name} is being updated"));
            }
        }
        let going = view.networks.values().find(|network| network.pending_delete);
        going.map(|network| format!("network {} is not removed", network.spec.name))
    }

    fn missing_on_hosts(&self, view: &Tables) -> Option<String> {
        for worker in &self.workers {
            let should: BTreeSet<TaskId> =
                view.tasks_of_node(worker.node).filter(|task| is_live(task)).map(|task| task.id).collect();
            let running: BTreeSet<TaskId> = worker.host.running().into_iter().collect();
            let state = worker.host.state();
            if running != should {
                return Some(format!("worker {} runs {running:?}, not {should:?}", worker.number));
            }
            // Those of ended tasks stay for as long as these are remembered.
            let known: BTreeSet<TaskId> = view.tasks_of_node(worker.node).map(|task| task.id).collect();
            if let Some(task) = state.containers.keys().find(|task| !known.contains(task)) {
                return Some(format!("worker {} has a container of {task}, which is no task", worker.number));
            }
            let needs: BTreeSet<NetworkId> = subjects_of(view, worker.node).into_iter().flatten().collect();
            let holds: BTreeSet<NetworkId> = state.networks.keys().copied().collect();
            if holds != needs {
                return Some(format!("worker {} holds {holds:?} and needs {needs:?}", worker.number));
            }
        }
        None
    }

    /// Managers are as far as the leader, and it has nothing left to decide.
    fn missing_of_managers(&self, view: &Arc<Tables>) -> Option<String> {
        let views = self.members.iter().map(|member| member.handle().map(|handle| handle.view().index));
        let behind: Vec<_> = views.collect();
        if behind.iter().any(|index| *index != Some(view.index)) {
            return Some(format!("managers are at {behind:?}"));
        }
        let shared = &self.leader()?.running.as_ref()?.manager.shared;
        let acks = shared.presence().cluster_acks(view);
        let acks = Acks {
            mesh: acks.get(&None).copied(),
            networks: acks.into_iter().filter_map(|(subject, index)| Some((subject?, index))).collect(),
        };
        let mut ids = || crate::random::random_id().expect("an id");
        let plan = plan::step(view, shared.time(), &acks, &mut ids);
        plan.batches.first().map(|batch| format!("the leader has yet to do {:?}", batch.changes))
    }

    /// Judges what people were told by what there is now, and what there is by itself.
    pub(super) async fn judge(&mut self, people: &People, first: (u64, u64)) -> Result<(), String> {
        let views: Vec<Arc<Tables>> =
            self.members.iter().filter_map(|member| Some(member.handle()?.view())).collect();
        let all: Vec<Vec<Object>> = views.iter().map(|view| view.objects().collect()).collect();
        if views.len() != self.members.len() || all.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err("the managers' tables are not alike".to_owned());
        }
        let view = &views[0];
        let memory = people.lock();
        for ((_, id), known) in &memory.objects {
            let version = match known.kind {
                ObjectKind::Service => view.services.get(&ServiceId(*id)).map(|o| o.meta.version),
                ObjectKind::Network => view.networks.get(&NetworkId(*id)).map(|o| o.meta.version),
                ObjectKind::Secret => view.secrets.get(&SecretId(*id)).map(|o| o.meta.version),
                _ => view.configs.get(&ConfigId(*id)).map(|o| o.meta.version),
            };
            let is_lost = !known.going && version.is_none_or(|version| version < known.version);
            if is_lost || (known.gone && version.is_some()) {
                return Err(format!("{known:?} was acknowledged, and is at {version:?}"));
            }
        }
        linearize(first, &memory.history).map_err(|unexplained| unexplained.to_string())?;
        drop(memory);
        one_owner(view)
    }
}

/// Each name, number and address has one owner.
fn one_owner(view: &Tables) -> Result<(), String> {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let mut own = |what: String, owner: &dyn Debug| match owners.insert(what.clone(), format!("{owner:?}")) {
        Some(other) => Err(format!("{what} is {other}'s and {owner:?}'s")),
        None => Ok(()),
    };
    for node in view.nodes.values() {
        own(format!("node index {}", node.index), &node.id)?;
    }
    for service in view.services.values() {
        own(format!("service name {}", service.spec.name), &service.id)?;
        for port in &service.spec.endpoint.ports {
            own(format!("port {}", port.published), &service.id)?;
        }
    }
    for secret in view.secrets.values() {
        own(format!("secret name {}", secret.spec.name), &secret.id)?;
    }
    for config in view.configs.values() {
        own(format!("config name {}", config.spec.name), &config.id)?;
    }
    let networks: Vec<_> = view.networks.values().collect();
    for (nth, network) in networks.iter().enumerate() {
        own(format!("network name {}", network.spec.name), &network.id)?;
        let Some(allocation) = network.allocation else { continue };
        own(format!("VNI {}", allocation.vni), &network.id)?;
        for other in networks[..nth].iter().filter_map(|other| other.allocation) {
            let overlap = allocation.subnet.contains(&other.subnet.network())
                || other.subnet.contains(&allocation.subnet.network());
            if overlap {
                return Err(format!("two networks have {allocation:?} and {other:?}"));
            }
        }
    }
    for task in view.tasks.values().filter(|task| task.may_hold_resources()) {
        for attachment in &task.attachments {
            let address: IpAddr = attachment.address.addr();
            own(format!("{address} on {:?}", attachment.network), &task.id)?;
        }
        if let Some(address) = task.gateway_address {
            own(format!("gateway {address}"), &task.id)?;
        }
    }
    Ok(())
}
