//! Whether what the managers agree on may be so at any moment, and whether all is as it was asked to be in the end.

use super::{
    Host, ROLES, Storm,
    people::{People, give_up_node, roll_back, set_availability, set_image},
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
use tokio::time::Instant;

/// What a person has time to wait for in the end.
const PATIENCE: Duration = Duration::from_secs(5);
/// The image of what cannot be started.
pub(super) const BROKEN: &str = "broken";

/// What the managers had agreed on a moment ago, and what follows from what was before.
#[derive(Debug, Default)]
pub(super) struct Before {
    view: Option<Arc<Tables>>,
    /// Tasks of nodes that were given up since: another may run in their place.
    given_up: BTreeSet<TaskId>,
    /// Members of Raft that are to be none, since when, by the leader that sees them.
    unfit: BTreeMap<(u64, u64), Instant>,
}

fn is_live(task: &Task) -> bool {
    !task.status.state.is_some_and(TaskState::is_terminal)
}

pub(super) fn is_job(mode: Mode) -> bool {
    matches!(mode, Mode::ReplicatedJob { .. } | Mode::GlobalJob)
}

impl Storm {
    fn leader(&self) -> Option<&Host> {
        self.hosts.iter().find(|host| host.handle().is_some_and(|handle| handle.leader_now().me))
    }

    /// Returns the newest state that any manager has.
    fn newest(&self) -> Option<Arc<Tables>> {
        self.hosts.iter().filter_map(|host| Some(host.handle()?.view())).max_by_key(|view| view.index)
    }

    /// Judges what the managers agree on now, and what runs.
    pub(super) fn judge_moment(&mut self) -> Result<(), String> {
        let Some(view) = self.newest() else { return Ok(()) };
        let before = self.before.view.replace(view.clone()).unwrap_or_default();
        if view.index < before.index {
            // Whoever was the farthest is away.
            self.before.view = Some(before);
            return Ok(());
        }
        for host in &self.hosts {
            let (was, is) = (before.nodes.get(&host.node()), view.nodes.get(&host.node()));
            let since = |node: Option<&Arc<Node>>| node.map(|node| node.status.since);
            // A node may have been given up and be back by now.
            if since(was) != since(is) && is.is_none_or(|node| node.status.state != NodeState::Away) {
                // Also what it will start again from what it remembers, before it hears that this is another's now.
                self.before.given_up.extend(view.tasks_of_node(host.node()).map(|task| task.id));
                self.before.given_up.extend(host.containers.state().containers.keys());
            }
        }
        self.leavers_run_nothing()?;
        self.no_strangers()?;
        if view.index == before.index {
            return self.one_copy(&view);
        }
        for (old, task) in view.tasks.values().filter_map(|task| Some((before.tasks.get(&task.id)?, task))) {
            if task.status.state < old.status.state {
                return Err(format!("{} went back from {:?} to {:?}", task.name(), old.status, task.status));
            }
        }
        one_owner(&view)?;
        stacks_are_whole(&view)?;
        jobs_end_once(&view)?;
        tasks_are_of_their_spec(&view)?;
        updates_end_when_done(&view)?;
        self.asks.judge(&before, &view)?;
        self.one_copy(&view)
    }

    /// Whoever has left has ended what it ran for the swarm.
    fn leavers_run_nothing(&self) -> Result<(), String> {
        for host in self.hosts.iter().filter(|host| host.errands.is_out()) {
            let running = host.containers.running();
            if !running.is_empty() {
                return Err(format!("host {} has left, and runs {running:?}", host.number));
            }
        }
        Ok(())
    }

    /// Stacks are as their owners were told, as soon as anybody knows what they were told.
    pub(super) fn judge_stacks(&self, people: &People) -> Result<(), String> {
        let Some(view) = self.newest() else { return Ok(()) };
        let memory = people.lock();
        let mut known = memory.stacks.iter().filter(|(_, known)| known.is_since(view.index));
        known.try_for_each(|(name, known)| known.holds(name, &view, true))
    }

    /// No two containers of a slot run, but of those that were given up, and of services that ask for it.
    fn one_copy(&self, view: &Tables) -> Result<(), String> {
        let mut copies: BTreeMap<(ServiceId, Slot), Vec<(u8, TaskId)>> = BTreeMap::new();
        for host in self.hosts.iter().filter(|host| self.net.passes(host.addr().ip(), host.addr().ip())) {
            for id in host.containers.running() {
                let Some(task) = view.tasks.get(&id).filter(|_| !self.before.given_up.contains(&id)) else {
                    continue;
                };
                copies.entry((task.service, task.slot)).or_default().push((host.number, id));
            }
        }
        for ((service, slot), tasks) in copies.into_iter().filter(|(_, tasks)| tasks.len() > 1) {
            let overlaps = view.services.get(&service).is_none_or(|service| {
                [&service.spec.update, &service.spec.rollback]
                    .iter()
                    .any(|policy| policy.order == UpdateOrder::StartFirst)
            });
            if !overlaps {
                let states: Vec<_> = tasks.iter().map(|(_, id)| view.tasks.get(id)).collect();
                return Err(format!("{slot:?} of {service} runs more than once: {tasks:?}, {states:?}"));
            }
        }
        Ok(())
    }

    /// Returns what roles are not yet as they were given: of nodes in the state, in Raft, and of what runs.
    pub(super) fn roles_missing(&self) -> Option<String> {
        let Some(leader) = self.leader() else {
            let handles = self.hosts.iter().filter_map(Host::handle);
            let unfit = handles.max_by_key(|h| h.view().index).map(|handle| self.unfit_members(&handle));
            return Some(format!("nobody leads: {unfit:?}"));
        };
        let handle = leader.handle()?;
        let (view, members) = (handle.view(), handle.members());
        for node in view.nodes.values() {
            let is_in_raft =
                members.iter().any(|m| m.node == Some(node.id) && m.voter && m.reachable == Some(true));
            let runs = self.hosts.iter().any(|host| host.node() == node.id && host.running.is_some());
            let wanted = node.spec.role == Role::Manager && node.status.state != NodeState::Disconnected;
            let is = [node.manager.is_some(), is_in_raft, runs];
            if is != [wanted; 3] {
                let name = node.display_name();
                return Some(format!(
                    "{name} is to be a manager: {wanted}; recorded, in Raft, running: {is:?}"
                ));
            }
        }
        let stranger = members.iter().find(|m| m.node.is_none_or(|id| !view.nodes.contains(&id)));
        stranger.map(|member| format!("a stranger in Raft: {member:?}"))
    }

    /// Returns the members of Raft that are to be none, as a manager sees them: their nodes have left or are gone, have
    /// another number, or are certified as workers.
    fn unfit_members(&self, handle: &store::Handle) -> BTreeMap<u64, String> {
        let view = handle.view();
        let is_fit = |member: &store::Member| {
            let node = member.node.and_then(|id| view.nodes.get(&id));
            let is_its = node.is_some_and(|node| {
                node.status.state != NodeState::Disconnected
                    && node.manager.is_none_or(|manager| manager.raft_id == member.raft_id)
            });
            let mut hosts = self.hosts.iter().filter(|host| Some(host.node()) == member.node);
            is_its && hosts.all(|host| host.identity().role == Role::Manager)
        };
        let unfit = handle.members().into_iter().filter(|member| !is_fit(member));
        unfit
            .map(|member| {
                let node = member.node.and_then(|id| view.nodes.get(&id));
                let is = node.map(|node| (node.display_name(), node.spec.role, node.status.state));
                (
                    member.raft_id,
                    format!("member {} in Raft, voter: {}, is of {is:?}", member.raft_id, member.voter),
                )
            })
            .collect()
    }

    /// Under a leader that others follow, whoever is no manager any more is soon out of Raft.
    fn no_strangers(&mut self) -> Result<(), String> {
        let handle = self.leader().and_then(Host::handle).filter(store::Handle::is_current);
        let Some(handle) = handle else {
            self.before.unfit.clear();
            return Ok(());
        };
        let (leader, unfit, now) = (handle.raft_id(), self.unfit_members(&handle), Instant::now());
        let known = &mut self.before.unfit;
        known.retain(|(by, member), _| *by == leader && unfit.contains_key(member));
        for (member, what) in unfit {
            let since = *known.entry((leader, member)).or_insert(now);
            if since.elapsed() > ROLES {
                return Err(format!("{what}, for {ROLES:?} of one leader"));
            }
        }
        Ok(())
    }

    /// Rolls back every service that is not a stack's, and may be.
    pub(super) async fn roll_back_all(&self) {
        let Some((view, mut control)) =
            self.leader().and_then(|leader| Some((leader.handle()?.view(), leader.door.control())))
        else {
            return;
        };
        for service in view.services.values().filter(|s| s.stack.is_none() && s.previous.is_some()) {
            // A port that it had may be another's by now.
            let told = tokio::time::timeout(PATIENCE, roll_back(&mut control, &self.asks, service)).await;
            self.tell(format!("told: {} is rolled back: {}", service.spec.name, matches!(told, Ok(Ok(())))));
        }
    }

    /// Has a host drained; returns what yet runs on it.
    pub(super) async fn drained_missing(&self, position: usize) -> Option<String> {
        let Some(leader) = self.leader() else { return Some("nobody leads".to_owned()) };
        let (view, mut control) = (leader.handle()?.view(), leader.door.control());
        let host = &self.hosts[position];
        let node = view.nodes.get(&host.node()).map(|node| node.spec.availability);
        if node != Some(Availability::Drain) {
            let set = set_availability(&mut control, &self.asks, host.node(), Availability::Drain);
            drop(tokio::time::timeout(PATIENCE, set).await);
            return Some(format!("host {} is {node:?}", host.number));
        }
        let running = host.containers.running();
        (!running.is_empty()).then(|| format!("host {} is drained and runs {running:?}", host.number))
    }

    /// Returns a node that is no host's any more, and has not left: its host joined again, as another.
    fn left_over(&self, view: &Tables) -> Option<Arc<Node>> {
        let is_ours = |node: &Node| self.hosts.iter().any(|host| host.node() == node.id);
        let mut nodes = view.nodes.values();
        nodes.find(|node| !is_ours(node) && node.status.state != NodeState::Disconnected).cloned()
    }

    /// Tells whether people have yet to give up a node.
    pub(super) fn has_left_overs(&self) -> bool {
        self.newest().is_some_and(|view| self.left_over(&view).is_some())
    }

    /// Returns what is not yet as it was asked for. Nodes are to be active, and services to be of what can run: they are
    /// asked to be if they are not.
    pub(super) async fn missing(&mut self) -> Option<String> {
        let Some(leader) = self.leader() else { return self.roles_missing() };
        let (view, mut control) = (leader.handle()?.view(), leader.door.control());
        for host in &self.hosts {
            let number = host.number;
            let Some(node) = view.nodes.get(&host.node()) else {
                return Some(format!("host {number} is unknown"));
            };
            if node.spec.availability != Availability::Active {
                let set = set_availability(&mut control, &self.asks, node.id, Availability::Active);
                // If that does not succeed it is asked again.
                drop(tokio::time::timeout(PATIENCE, set).await);
                return Some(format!("host {number} is {:?}", node.spec.availability));
            }
            if node.status.state != NodeState::Ready {
                return Some(format!("host {number} is {:?}", node.status));
            }
        }
        let broken = view.services.values().find(|s| s.spec.task.container.image == BROKEN);
        if let Some(service) = broken {
            drop(
                tokio::time::timeout(PATIENCE, set_image(&mut control, &self.asks, service.id, "web")).await,
            );
            return Some(format!("{} cannot run", service.spec.name));
        }
        if let Some(node) = self.left_over(&view) {
            drop(tokio::time::timeout(PATIENCE, give_up_node(&mut control, &self.asks, &node)).await);
            return Some(format!("{} is nobody's: {node:?}", node.display_name()));
        }
        let missing = self.missing_services(&view);
        let missing = missing.or_else(|| self.missing_on_hosts(&view));
        missing.or_else(|| self.missing_of_managers(&view)).or_else(|| self.roles_missing())
    }

    fn missing_services(&self, view: &Tables) -> Option<String> {
        for service in view.services.values() {
            let name = &service.spec.name;
            if service.pending_delete {
                let of_service = view.tasks_of_service(service.id);
                let tasks: Vec<_> = of_service.map(|t| (t.id, t.desired, t.status.state, t.node())).collect();
                return Some(format!("{name} is not removed: {tasks:?}"));
            }
            let wanted = match service.spec.mode {
                Mode::Replicated { replicas: wanted } | Mode::ReplicatedJob { total: wanted, .. } => wanted,
                Mode::Global | Mode::GlobalJob => self.hosts.len() as u64,
            };
            let tasks: Vec<_> = view.tasks_of_service(service.id).collect();
            let state = service.update.as_ref().map(|update| update.state);
            // Until a person changes it, some tasks are of the spec before.
            let stands = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
            let is_fine = |task: &&&Arc<Task>| match service.spec.mode {
                Mode::Replicated { .. } | Mode::Global => {
                    task.status.state == Some(TaskState::Running)
                        && task.desired == Desired::Running
                        && (stands || task.spec.container == service.spec.task.container)
                }
                Mode::ReplicatedJob { .. } | Mode::GlobalJob => {
                    task.status.state == Some(TaskState::Complete)
                        && task.job_iteration == service.job_iteration
                }
            };
            let of_nodes_there = |task: &&&Arc<Task>| match task.slot {
                Slot::Node(node) => self.hosts.iter().any(|host| host.node() == node),
                Slot::Replica(_) => true,
            };
            let slots: BTreeSet<Slot> =
                tasks.iter().filter(is_fine).filter(of_nodes_there).map(|task| task.slot).collect();
            // What ran on a node that is gone nobody will ever hear of.
            let is_lost = |task: &&&Arc<Task>| {
                task.desired >= Desired::Shutdown
                    && task.node().is_some_and(|node| self.hosts.iter().all(|host| host.node() != node))
            };
            let others =
                tasks.iter().filter(|task| is_live(task) && !is_fine(task) && !is_lost(task)).count();
            if slots.len() as u64 != wanted || others > 0 {
                let states: Vec<_> =
                    tasks.iter().map(|t| (t.id, t.slot, t.desired, t.status.state, &t.placement)).collect();
                return Some(format!("{name}, {:?} of {wanted}, has {states:?}", service.spec.mode));
            }
            if matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted)) {
                let of_slot = |t: &&Arc<Task>| (t.slot, t.spec_version, t.desired, t.status.state, t.node());
                let tasks: Vec<_> = tasks.iter().map(of_slot).collect();
                return Some(format!("{name} is being updated: {service:?} with {tasks:?}"));
            }
        }
        let is_stray = |task: &&Arc<Task>| {
            is_live(task) && !view.services.contains(&task.service) && task.attaches.is_none()
        };
        // What ran on a node that is gone nobody will ever hear of.
        let is_there = |task: &&Arc<Task>| self.hosts.iter().any(|host| Some(host.node()) == task.node());
        if let Some(task) = view.tasks.values().find(|task| is_stray(task) && is_there(task)) {
            return Some(format!("{} is of a service that is gone: {task:?}", task.name()));
        }
        if let Some(stack) = view.stacks.values().find(|stack| stack.pending_delete) {
            return Some(format!("stack {} is not removed", stack.name));
        }
        let going = view.networks.values().find(|network| network.pending_delete);
        going.map(|network| format!("network {} is not removed", network.spec.name))
    }

    fn missing_on_hosts(&self, view: &Tables) -> Option<String> {
        for host in &self.hosts {
            let (number, node) = (host.number, host.node());
            let should: BTreeSet<TaskId> =
                view.tasks_of_node(node).filter(|task| is_live(task)).map(|task| task.id).collect();
            let running: BTreeSet<TaskId> = host.containers.running().into_iter().collect();
            let state = host.containers.state();
            if running != should {
                return Some(format!("host {number} runs {running:?}, not {should:?}"));
            }
            let runs_other = |id: &&TaskId| {
                let container = state.containers.get(id).map(|container| &container.image);
                container != view.tasks.get(id).map(|task| &task.spec.container.image)
            };
            if let Some(task) = running.iter().find(runs_other) {
                return Some(format!("host {number} runs {:?} as {task}", state.containers.get(task)));
            }
            // Those of ended tasks stay for as long as these are remembered.
            let known: BTreeSet<TaskId> = view.tasks_of_node(node).map(|task| task.id).collect();
            if let Some(task) = state.containers.keys().find(|task| !known.contains(task)) {
                return Some(format!("host {number} has a container of {task}, which is no task"));
            }
            let needs: BTreeSet<NetworkId> = subjects_of(view, node).into_iter().flatten().collect();
            let holds: BTreeSet<NetworkId> = state.networks.keys().copied().collect();
            if holds != needs {
                return Some(format!("host {number} holds {holds:?} and needs {needs:?}"));
            }
        }
        None
    }

    /// Managers are as far as the leader, and it has nothing left to decide.
    fn missing_of_managers(&self, view: &Arc<Tables>) -> Option<String> {
        let views = self.hosts.iter().filter_map(|host| Some((host.number, host.handle()?.view().index)));
        let behind: Vec<_> = views.collect();
        if behind.iter().any(|(_, index)| *index != view.index) {
            return Some(format!("the leader is at {}, managers are at {behind:?}", view.index));
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
    pub(super) fn judge(&self, people: &People, first: (u64, u64)) -> Result<(), String> {
        let views: Vec<Arc<Tables>> =
            self.hosts.iter().filter_map(|host| Some(host.handle()?.view())).collect();
        let all: Vec<Vec<Object>> = views.iter().map(|view| view.objects().collect()).collect();
        if all.windows(2).any(|pair| pair[0] != pair[1]) {
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
        for (name, known) in &memory.stacks {
            known.holds(name, view, false)?;
        }
        linearize(first, &memory.history).map(drop).map_err(|unexplained| unexplained.to_string())
    }
}

/// What a stack's newest revision says is what its services are: a deploy is done as a whole, or not at all.
fn stacks_are_whole(view: &Tables) -> Result<(), String> {
    for stack in view.stacks.values() {
        let of_stack = view.services.values().filter(|s| s.stack == Some(stack.id) && !s.pending_delete);
        let mut are: Vec<&ServiceSpec> = of_stack.map(|service| &*service.spec).collect();
        are.sort_by(|a, b| a.name.cmp(&b.name));
        let newest = stack.revisions.last().filter(|_| !stack.pending_delete);
        let said: Vec<&ServiceSpec> =
            newest.iter().flat_map(|revision| &revision.services).map(|spec| &**spec).collect();
        if are != said {
            return Err(format!("stack {} is said to be {said:?}, and is {are:?}", stack.name));
        }
        for spec in said {
            let networks = spec.task.networks.iter().map(|n| view.networks.contains(&n.network));
            let secrets = spec.task.container.secrets.iter().map(|s| view.secrets.contains(&s.id));
            let configs = spec.task.container.configs.iter().map(|c| view.configs.contains(&c.id));
            if !networks.chain(secrets).chain(configs).all(|is_there| is_there) {
                return Err(format!("service {} uses what is not there", spec.name));
            }
        }
    }
    Ok(())
}

/// What a task was made of is what its service was at that version.
fn tasks_are_of_their_spec(view: &Tables) -> Result<(), String> {
    for service in view.services.values() {
        let of_version = |task: &&Arc<Task>| task.spec_version == service.spec_version;
        let mut tasks = view.tasks_of_service(service.id).filter(of_version);
        if let Some(task) = tasks.find(|task| task.spec != service.spec.task) {
            return Err(format!(
                "{} is of version {} of its service, {:?}, and runs {:?}",
                task.name(),
                task.spec_version,
                service.spec.task,
                task.spec
            ));
        }
    }
    Ok(())
}

/// When an update or a rollback is said to be done, no task of another spec serves, but where one of the new spec has
/// failed and the policy is to go on.
fn updates_end_when_done(view: &Tables) -> Result<(), String> {
    for service in view.services.values().filter(|s| !s.pending_delete && !is_job(s.spec.mode)) {
        let state = service.update.as_ref().map(|update| update.state);
        if !matches!(state, Some(UpdateState::Completed | UpdateState::RollbackCompleted)) {
            continue;
        }
        let tasks: Vec<_> = view.tasks_of_service(service.id).collect();
        let is_of_spec = |task: &Task| task.spec.container == service.spec.task.container;
        let serves =
            |task: &&Arc<Task>| is_live(task) && task.desired == Desired::Running && !is_of_spec(task);
        let has_failed = |slot: Slot| tasks.iter().any(|t| t.slot == slot && is_of_spec(t) && !is_live(t));
        let other = tasks.iter().copied().filter(serves).find(|task| !has_failed(task.slot));
        if let Some(task) = other {
            let in_slot = tasks.iter().filter(|other| other.slot == task.slot);
            let in_slot: Vec<_> =
                in_slot.map(|t| (t.id, t.spec_version, t.desired, t.status.state, t.node())).collect();
            return Err(format!(
                "{} is said to be {state:?} at version {}, and {} is of version {}: {in_slot:?}, {service:?}",
                service.spec.name,
                service.spec_version,
                task.name(),
                task.spec_version,
            ));
        }
    }
    Ok(())
}

/// No part of a job runs when it is done, or is done twice, but where a node was given up meanwhile.
fn jobs_end_once(view: &Tables) -> Result<(), String> {
    for service in view.services.values().filter(|service| is_job(service.spec.mode)) {
        let mut done: BTreeMap<Slot, TaskId> = BTreeMap::new();
        let wanted = |task: &&Arc<Task>| {
            task.job_iteration == service.job_iteration && task.desired < Desired::Shutdown
        };
        let tasks: Vec<_> = view.tasks_of_service(service.id).filter(wanted).collect();
        for task in tasks.iter().filter(|task| task.status.state == Some(TaskState::Complete)) {
            if let Some(other) = done.insert(task.slot, task.id) {
                return Err(format!("{} was done by {other} and by {}", task.name(), task.id));
            }
        }
        let again = tasks.iter().find(|task| is_live(task) && done.contains_key(&task.slot));
        if let Some(task) = again {
            return Err(format!("{} is done, and is to be done by {}", task.name(), task.id));
        }
        if let Mode::ReplicatedJob { total, .. } = service.spec.mode
            && done.len() as u64 > total
        {
            return Err(format!("{} is done {} times, not {total}", service.spec.name, done.len()));
        }
    }
    Ok(())
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
    // Names and ports are free at once when what had them is to go; numbers and addresses are not.
    for service in view.services.values().filter(|service| !service.pending_delete) {
        own(format!("service name {}", service.spec.name), &service.id)?;
        for port in &service.spec.endpoint.ports {
            own(format!("port {}", port.published), &service.spec.name)?;
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
        if !network.pending_delete {
            own(format!("network name {}", network.spec.name), &network.id)?;
        }
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
