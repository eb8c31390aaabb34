//! A swarm to plan for: stored tables, a clock turned by hand, agents that do what they are told.
//!
//! Commands are text in the words of the domain; see [`World::run`]. After every step the invariants are
//! checked: batches apply, no slot runs twice, no address is given twice, nothing is overbooked.

use model::*;
use plan::{Acks, Clock, Plan};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
};

const START: Timestamp = Timestamp(1_700_000_000_000_000_000);

pub(crate) struct World {
    pub(crate) tables: Tables,
    pub(crate) now: Timestamp,
    /// When the present leader began to lead, by its own clock.
    since: Timestamp,
    next_id: u128,
    /// Nodes whose agents do not work.
    deaf: BTreeSet<NodeId>,
    /// Images whose containers fail at once.
    broken: BTreeSet<String>,
    /// Acknowledged versions stay where they are.
    acks_held: Option<Acks>,
    last: Plan,
    /// How often the last step looked into the tables: see [`table::looks`].
    pub(crate) looks: u64,
    /// Why what was asked for was not done.
    refused: Vec<String>,
    /// Ordinal of each task within its slot, for names.
    ordinals: BTreeMap<TaskId, (String, u64)>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            tables: Tables::default(),
            now: START,
            since: START.before(duration("1s")),
            next_id: 0,
            deaf: BTreeSet::new(),
            broken: BTreeSet::new(),
            acks_held: None,
            last: Plan::default(),
            looks: 0,
            refused: Vec::new(),
            ordinals: BTreeMap::new(),
        };
        world.put(Object::Cluster(Arc::new(Cluster::new(ClusterId(1)))));
        world
    }

    /// Runs one command line (several commands with ` ; ` between) and returns what it shows.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let shown: String = line.split(" ; ").map(|command| self.command(command.trim())).collect();
        let refused: String = self.refused.drain(..).map(|why| format!("  refused: {why}\n")).collect();
        refused + &shown
    }

    fn command(&mut self, text: &str) -> String {
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some((verb, rest)) = words.split_first() else { return String::new() };
        match *verb {
            "nodes" => rest.iter().for_each(|name| self.edit_node(name, &[])),
            "node" => self.edit_node(rest[0], &rest[1..]),
            "cluster" => self.edit_cluster(rest),
            "network" => self.create_network(rest[0], &rest[1..]),
            "service" => self.create_service(rest[0], &rest[1..]),
            "update" => self.update_service(rest[0], &rest[1..]),
            "scale" => self.update_service(rest[0], &[&format!("replicas={}", rest[1])]),
            "rollback" => self.rollback(rest[0]),
            "rerun" => self.edit_service(rest[0], |s| s.job_iteration += 1),
            "rm" => self.edit_service(rest[0], |s| s.pending_delete = true),
            "attach" => self.attach(rest[0], rest[1], rest[2]),
            "detach" => {
                for task in self.live_tasks().iter().filter(|t| t.attaches.as_deref() == Some(rest[0])) {
                    self.report(task, TaskState::Complete, "");
                }
            }
            "rm-network" => self.remove_network(rest[0]),
            "down" => self.set_state(rest[0], NodeState::Down),
            "away" => self.set_state(rest[0], NodeState::Away),
            "unknown" => self.set_state(rest[0], NodeState::Unknown),
            "up" => self.set_state(rest[0], NodeState::Ready),
            "drain" => self.set_availability(rest[0], Availability::Drain),
            "pause" => self.set_availability(rest[0], Availability::Pause),
            "activate" => self.set_availability(rest[0], Availability::Active),
            "rm-node" => self.remove_node(rest[0]),
            "label" => self.edit_node(rest[0], &[&format!("label.{}", rest[1])]),
            "deaf" => drop(self.deaf.insert(self.node(rest[0]).id)),
            "hears" => drop(self.deaf.remove(&self.node(rest[0]).id)),
            "broken" => drop(self.broken.insert(rest[0].to_owned())),
            "fixed" => drop(self.broken.remove(rest[0])),
            "end" => {
                let n = rest[0].parse::<usize>().unwrap();
                let live = self.live_tasks();
                if let Some(task) = live.get(n % live.len().max(1)).cloned() {
                    let state = if rest[1] == "well" { TaskState::Complete } else { TaskState::Failed };
                    self.report(&task, state, "");
                }
            }
            "fail" => self.end(rest[0], TaskState::Failed, "task: non-zero exit (1)"),
            "reject" => self.end(rest[0], TaskState::Rejected, "No such image"),
            "finish" => self.end(rest[0], TaskState::Complete, ""),
            "acks" => self.acks_held = (rest[0] == "hold").then(|| self.acks()),
            "lead" => self.lead(rest[0]),
            "tick" => self.now = self.now.after(duration(rest[0])),
            "agents" => drop(self.agents_run()),
            "step" => {
                let before = self.tables.clone();
                self.step();
                return self.difference(&before);
            }
            "settle" => {
                let before = self.tables.clone();
                self.settle();
                return self.difference(&before);
            }
            "wait" => {
                let before = self.tables.clone();
                self.wait(duration(rest[0]));
                return self.difference(&before);
            }
            "foresee" => return self.foresee(rest[0]),
            "explain" => return self.explain(rest[0]),
            "tasks" => return self.list_tasks(rest.first().copied()),
            "show" => return self.show(rest[0]),
            "why" => {
                return self.last.report.lines.iter().fold(String::new(), |mut out, line| {
                    writeln!(out, "  {line}").unwrap();
                    out
                });
            }
            other => panic!("unknown command {other:?} in {text:?}"),
        }
        String::new()
    }

    // ---- time and agents ------------------------------------------------------------------------------

    /// Plans once and applies it; true if anything changed.
    pub(crate) fn step(&mut self) -> bool {
        let acks = self.acks_held.clone().unwrap_or_else(|| self.acks());
        let mut next_id = self.next_id;
        let mut ids = || {
            next_id += 1;
            next_id
        };
        let looks = table::looks();
        let plan = plan::step(&self.tables, self.clock(), &acks, &mut ids);
        self.looks = table::looks() - looks;
        self.next_id = next_id;
        let before = self.tables.clone();
        let mut keys = BTreeSet::new();
        for batch in &plan.batches {
            assert!(!batch.changes.is_empty() && batch.changes.len() <= 200);
            for change in &batch.changes {
                let key = match change {
                    Change::Put(object) => object.key(),
                    Change::Delete { key, .. } => *key,
                };
                assert!(keys.insert(key), "{key} is changed twice in one plan");
            }
            let index = self.tables.index + 1;
            self.tables.apply(index, batch).expect("a plan applies to the tables it was made from");
        }
        self.check_placements(&before);
        let changed = !plan.batches.is_empty();
        self.last = plan;
        self.name_tasks();
        self.check(&before);
        changed
    }

    /// Lets manager and agents work, the clock standing still, until nobody has anything to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            let stepped = self.step();
            if !self.agents_run() && !stepped {
                return;
            }
        }
        panic!("does not settle; last report: {:#?}", self.last.report.lines);
    }

    /// Lets time pass; the manager wakes when it asked to.
    fn clock(&self) -> Clock {
        Clock { now: self.now, since: self.since }
    }

    /// Another leader takes over whose clock is ahead (`+1h`) or behind (`-1h`); or the leader's clock is set so.
    fn lead(&mut self, by: &str) {
        let offset = duration(&by[1..]);
        self.now = if by.starts_with('-') { self.now.before(offset) } else { self.now.after(offset) };
        self.since = self.now;
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now.after(time);
        self.settle();
        while let Some(at) = self.last.wake_at.filter(|at| *at <= end) {
            assert!(at > self.now, "asked to be woken in the past");
            self.now = at;
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Every agent that hears does what is wanted of its tasks, one state further each time.
    pub(crate) fn agents_run(&mut self) -> bool {
        let mut changed = false;
        let tasks: Vec<Arc<Task>> = self.tables.tasks.values().cloned().collect();
        for task in tasks {
            let Some(node) = task.node().and_then(|id| self.tables.nodes.get(&id)) else { continue };
            if node.status.state != NodeState::Ready || self.deaf.contains(&node.id) {
                continue;
            }
            let is = task.status.state;
            if is.is_some_and(TaskState::is_terminal) {
                continue;
            }
            let broken = self.broken.contains(&task.spec.container.image);
            let next = match task.desired {
                Desired::Ready => TaskState::Ready,
                Desired::Running | Desired::Complete if broken => TaskState::Failed,
                Desired::Running | Desired::Complete => TaskState::Running,
                Desired::Shutdown | Desired::Remove => TaskState::Shutdown,
            };
            if is.is_none_or(|is| is < next) {
                self.report(&task, next, if broken { "task: non-zero exit (1)" } else { "" });
                changed = true;
            }
        }
        changed
    }

    fn report(&mut self, task: &Task, state: TaskState, error: &str) {
        let mut task = task.clone();
        task.status.state = Some(state);
        task.status.at = self.now;
        task.status.error = (!error.is_empty()).then(|| error.to_owned());
        self.put(Object::Task(Arc::new(task)));
    }

    fn end(&mut self, name: &str, state: TaskState, error: &str) {
        let mut named = self.live_tasks().into_iter().filter(|t| self.short_name(t) == name);
        let task = named.next_back().unwrap_or_else(|| panic!("no live task {name}"));
        drop(named);
        self.report(&task, state, error);
    }

    /// Returns the placed tasks that are wanted and have not ended, oldest first.
    pub(crate) fn live_tasks(&self) -> Vec<Arc<Task>> {
        let wanted = |t: &&Arc<Task>| t.desired <= Desired::Complete && t.may_hold_resources();
        let mut tasks: Vec<_> = self.tables.tasks.values().filter(wanted).cloned().collect();
        tasks.sort_by_key(|t| (t.meta.created_at, t.id));
        tasks
    }

    /// Every node with a task on a network has the table of now.
    fn acks(&self) -> Acks {
        let held = self.tables.tasks.values().filter(|t| t.may_hold_resources());
        let networks = held.flat_map(|t| t.attachments.iter().map(|a| a.network));
        Acks { networks: networks.map(|n| (n, self.tables.index)).collect(), mesh: Some(self.tables.index) }
    }

    // ---- what people do -------------------------------------------------------------------------------

    /// A node asks for a place for a container that was started there.
    fn attach(&mut self, container: &str, node: &str, network: &str) {
        let network = self.tables.network_named(network).expect("a network to attach to").id;
        let id = TaskId(self.fresh_id());
        let task = Task::attachment(
            id,
            container,
            container,
            self.node(node).id,
            vec![NetworkAttachmentSpec::new(network, Vec::new())],
        );
        self.put(Object::Task(Arc::new(task)));
    }

    fn put(&mut self, object: Object) {
        let index = self.tables.index + 1;
        let batch = Batch { at: self.now, changes: vec![Change::Put(object)] };
        if let Err(conflict) = self.tables.apply(index, &batch) {
            let made_from_an_old_one = matches!(conflict, Conflict::OutOfSequence { .. });
            assert!(!made_from_an_old_one, "the scenario asks for something possible: {conflict}");
            self.refused.push(conflict.to_string());
        }
    }

    fn fresh_id(&mut self) -> u128 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn find_node(&self, name: &str) -> Option<Arc<Node>> {
        self.tables.nodes.values().find(|n| n.display_name() == name).cloned()
    }

    fn node(&self, name: &str) -> Arc<Node> {
        self.find_node(name).unwrap_or_else(|| panic!("no node {name}"))
    }

    fn edit_node(&mut self, name: &str, words: &[&str]) {
        let mut node = match self.find_node(name) {
            Some(node) => Node::clone(&node),
            None => self.new_node(name),
        };
        let description = node.description.as_mut().expect("nodes here are described");
        for (key, value) in words.iter().filter_map(|w| w.split_once('=')) {
            match key {
                "cpu" => description.resources.cpu_nanos = number(value) * 1_000_000_000,
                "memory" => description.resources.memory_bytes = number(value),
                "has" => description.generic = resource::generic_resources(list(value)).unwrap(),
                "reaches" => description.networks = list(value).map(|net| net.parse().unwrap()).collect(),
                "arch" => value.clone_into(&mut description.platform.architecture),
                "role" => {
                    node.certified_role = if value == "manager" { Role::Manager } else { Role::Worker };
                    node.spec.role = node.certified_role;
                }
                _ => {
                    let label = key.strip_prefix("label.").unwrap_or_else(|| panic!("unknown {key}"));
                    node.spec.labels.insert(label.to_owned(), value.to_owned());
                }
            }
        }
        self.put(Object::Node(Arc::new(node)));
    }

    fn new_node(&mut self, name: &str) -> Node {
        let index = (1..).find(|i| self.tables.owner_of_index(*i).is_none()).expect("a free index");
        let address = IpAddr::from([192, 168, 0, index.to_le_bytes()[0]]);
        Node {
            id: NodeId(self.fresh_id()),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            index,
            certified_role: Role::Worker,
            description: Some(NodeDescription {
                tls: model::NodeTls::default(),
                hostname: name.to_owned(),
                platform: Platform { os: "linux".into(), architecture: "amd64".into() },
                resources: Resources { cpu_nanos: 4_000_000_000, memory_bytes: 4 << 30, pids: 0 },
                generic: model::GenericResources::new(),
                engine_version: "test".into(),
                engine_labels: Labels::new(),
                addr: (address, 2377).into(),
                data_addr: address,
                feature_level: model::FEATURE_LEVEL,
                networks: vec![],
            }),
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                since: self.now,
                addr: Some(address),
            },
            manager: None,
        }
    }

    fn set_state(&mut self, name: &str, state: NodeState) {
        let mut node = Node::clone(&self.node(name));
        node.status.state = state;
        node.status.since = self.now;
        self.put(Object::Node(Arc::new(node)));
    }

    fn set_availability(&mut self, name: &str, availability: Availability) {
        let mut node = Node::clone(&self.node(name));
        node.spec.availability = availability;
        self.put(Object::Node(Arc::new(node)));
    }

    fn delete(&mut self, key: ObjectRef) {
        let version = self.tables.get(key).expect("it exists").version();
        let index = self.tables.index + 1;
        let batch = Batch { at: self.now, changes: vec![Change::Delete { key, version }] };
        self.tables.apply(index, &batch).expect("it can be deleted");
    }

    fn remove_node(&mut self, name: &str) {
        self.delete(ObjectRef::Node(self.node(name).id));
    }

    fn edit_cluster(&mut self, words: &[&str]) {
        let mut cluster = Cluster::clone(self.tables.cluster.as_ref().expect("there is a cluster"));
        for (key, value) in words.iter().filter_map(|w| w.split_once('=')) {
            match key {
                "level" => cluster.feature_level = value.parse().unwrap(),
                "history" => cluster.spec.task_history_limit = value.parse().unwrap(),
                "prefix" => cluster.subnet_prefix = value.parse().unwrap(),
                "pool" => cluster.address_pools = vec![value.parse().unwrap()],
                "tasks" => cluster.task_pool = value.parse().unwrap(),
                _ => panic!("unknown {key}"),
            }
        }
        self.put(Object::Cluster(Arc::new(cluster)));
    }

    fn create_network(&mut self, name: &str, words: &[&str]) {
        let id = NetworkId(self.fresh_id());
        let mut spec = NetworkSpec::new(name, NetworkDriver::Overlay);
        spec.internal = words.contains(&"internal");
        if words.contains(&"host") {
            spec.driver = NetworkDriver::Host;
        }
        for (key, value) in words.iter().filter_map(|w| w.split_once('=')) {
            match key {
                "subnet" => spec.subnet = Some(value.parse().unwrap()),
                "range" => spec.ip_range = Some(value.parse().unwrap()),
                _ => panic!("unknown {key}"),
            }
        }
        let network = Network { id, meta: Meta::default(), spec, allocation: None, pending_delete: false };
        self.put(Object::Network(Arc::new(network)));
    }

    fn remove_network(&mut self, name: &str) {
        let mut network = Network::clone(self.tables.network_named(name).expect("it exists"));
        network.pending_delete = true;
        self.put(Object::Network(Arc::new(network)));
    }

    pub(crate) fn create_service(&mut self, name: &str, words: &[&str]) {
        let mut task = TaskSpec::default();
        "v1".clone_into(&mut task.container.image);
        let mut spec = ServiceSpec {
            name: name.to_owned(),
            labels: Labels::new(),
            task: Arc::new(task),
            mode: Mode::Replicated { replicas: 1 },
            update: UpdatePolicy::default(),
            rollback: UpdatePolicy::default(),
            endpoint: EndpointSpec::default(),
            depends_on: Vec::new(),
            said: model::Said::default(),
        };
        self.describe(&mut spec, words);
        let service = Service {
            id: ServiceId(self.fresh_id()),
            meta: Meta::default(),
            spec: Arc::new(spec),
            spec_version: 1,
            previous: None,
            stack: None,
            endpoint: Endpoint::default(),
            update: None,
            pending_delete: false,
            job_iteration: 0,
            registry_auth: None,
        };
        self.put(Object::Service(Arc::new(service)));
    }

    pub(crate) fn update_service(&mut self, name: &str, words: &[&str]) {
        let mut service = Service::clone(self.tables.service_named(name).expect("it exists"));
        let mut spec = ServiceSpec::clone(&service.spec);
        self.describe(&mut spec, words);
        service.previous = Some(service.spec.clone());
        service.spec = Arc::new(spec);
        service.spec_version += 1;
        service.update = None;
        self.put(Object::Service(Arc::new(service)));
    }

    fn rollback(&mut self, name: &str) {
        let now = self.now;
        self.edit_service(name, |s| {
            s.spec = s.previous.take().expect("there is a previous spec");
            s.spec_version += 1;
            s.update = Some(UpdateStatus {
                state: UpdateState::RollbackStarted,
                started_at: now,
                completed_at: None,
                message: "manually requested rollback".into(),
            });
        });
    }

    fn edit_service(&mut self, name: &str, edit: impl FnOnce(&mut Service)) {
        let mut service = Service::clone(self.tables.service_named(name).expect("it exists"));
        edit(&mut service);
        self.put(Object::Service(Arc::new(service)));
    }

    fn describe(&self, spec: &mut ServiceSpec, words: &[&str]) {
        let task = Arc::make_mut(&mut spec.task);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "replicas" => spec.mode = Mode::Replicated { replicas: number(value) },
                "global" => spec.mode = Mode::Global,
                "global-job" => spec.mode = Mode::GlobalJob,
                "job" => {
                    let (max_concurrent, total) = value.split_once('/').expect("job=CONCURRENT/TOTAL");
                    spec.mode =
                        Mode::ReplicatedJob { max_concurrent: number(max_concurrent), total: number(total) };
                }
                "image" => value.clone_into(&mut task.container.image),
                "grace" => task.container.stop_grace_period = Some(duration(value)),
                "cpu" => task.resources.reservations.cpu_nanos = number(value) * 1_000_000_000,
                "memory" => task.resources.reservations.memory_bytes = number(value),
                "wants" => task.resources.generic = list(value).map(want).collect(),
                "force" => task.force_update += 1,
                "networks" => {
                    task.networks = list(value)
                        .map(|n| {
                            let network = self.tables.network_named(n).expect("the network exists").id;
                            NetworkAttachmentSpec::new(network, vec![spec.name.clone()])
                        })
                        .collect();
                }
                "dnsrr" => spec.endpoint.mode = EndpointMode::DnsRr,
                "ports" => spec.endpoint.ports = list(value).map(port).collect(),
                "constraint" => {
                    task.placement.constraints = list(value).map(|c| c.parse().unwrap()).collect()
                }
                "spread" => task.placement.spread = list(value).map(str::to_owned).collect(),
                "max-per-node" => task.placement.max_replicas_per_node = number(value),
                "platform" => {
                    task.placement.platforms =
                        vec![Platform { os: "linux".into(), architecture: value.to_owned() }];
                }
                "restart" => {
                    task.restart.condition = match value {
                        "none" => RestartCondition::None,
                        "on-failure" => RestartCondition::OnFailure,
                        _ => RestartCondition::Any,
                    }
                }
                "delay" => task.restart.delay = duration(value),
                "attempts" => task.restart.max_attempts = number(value),
                "window" => task.restart.window = duration(value),
                "parallelism" => spec.update.parallelism = number(value),
                "update-delay" => spec.update.delay = duration(value),
                "monitor" => spec.update.monitor = duration(value),
                "progress" => spec.update.progress_deadline = Some(duration(value)),
                "ratio" => spec.update.max_failure_ratio_ppm = (value.parse::<f64>().unwrap() * 1e6) as u32,
                "start-first" => spec.update.order = UpdateOrder::StartFirst,
                "stop-first" => spec.update.order = UpdateOrder::StopFirst,
                "on-failure" => {
                    spec.update.on_failure = match value {
                        "continue" => FailureAction::Continue,
                        "rollback" => FailureAction::Rollback,
                        _ => FailureAction::Pause,
                    }
                }
                "rollback-parallelism" => spec.rollback.parallelism = number(value),
                "depends" => {
                    spec.depends_on = list(value)
                        .map(|d| {
                            let (service, condition) = d.split_once(':').unwrap_or((d, "started"));
                            let condition = match condition {
                                "healthy" => DependencyCondition::Healthy,
                                "completed" => DependencyCondition::CompletedSuccessfully,
                                _ => DependencyCondition::Started,
                            };
                            Dependency { service: service.to_owned(), condition }
                        })
                        .collect();
                }
                _ => panic!("unknown service word {word:?}"),
            }
        }
    }

    // ---- what can be seen -----------------------------------------------------------------------------

    fn name_tasks(&mut self) {
        let mut tasks: Vec<&Arc<Task>> = self.tables.tasks.values().collect();
        tasks.sort_by_key(|t| (t.meta.created_at, t.id));
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (name, _) in self.ordinals.values() {
            *counts.entry(name.clone()).or_default() += 1;
        }
        for task in tasks {
            if !self.ordinals.contains_key(&task.id) {
                let name = self.short_name(task);
                let nth = counts.entry(name.clone()).or_default();
                *nth += 1;
                self.ordinals.insert(task.id, (name, *nth));
            }
        }
    }

    fn node_name(&self, id: NodeId) -> String {
        self.tables.nodes.get(&id).map_or_else(|| "(gone)".to_owned(), |n| n.display_name())
    }

    /// `web.1`, or `web.a` for the task of a global service on node a.
    fn short_name(&self, task: &Task) -> String {
        match task.slot {
            _ if task.attaches.is_some() => task.name(),
            Slot::Replica(n) => format!("{}.{n}", task.service_name),
            Slot::Node(node) => format!("{}.{}", task.service_name, self.node_name(node)),
        }
    }

    /// `web.1`, its second attempt `web.1#2`.
    fn label(&self, id: TaskId) -> String {
        let Some((name, nth)) = self.ordinals.get(&id) else { return id.to_string() };
        if *nth == 1 { name.clone() } else { format!("{name}#{nth}") }
    }

    fn describe_task(&self, task: &Task) -> String {
        let mut out = self.label(task.id);
        match &task.placement {
            Placement::On(node) => write!(out, "@{}", self.node_name(*node)).unwrap(),
            Placement::Pending { reason } => write!(out, " pending: {reason}").unwrap(),
            Placement::Unallocated => out.push_str(" unallocated"),
        }
        let desired = format!("{:?}", task.desired).to_lowercase();
        let is = task.status.state.map(|s| format!("{s:?}").to_lowercase());
        match is {
            Some(is) if is == desired => write!(out, " {is}").unwrap(),
            Some(is) => write!(out, " {is} desired={desired}").unwrap(),
            None => write!(out, " desired={desired}").unwrap(),
        }
        if task.spec.container.image != "v1" && task.attaches.is_none() {
            write!(out, " image={}", task.spec.container.image).unwrap();
        }
        out
    }

    fn difference(&self, before: &Tables) -> String {
        let mut lines = Vec::new();
        for old in before.tasks.values() {
            if !self.tables.tasks.contains(&old.id) {
                lines.push(format!("{} gone", self.label(old.id)));
            }
        }
        for new in self.tables.tasks.values() {
            let text = self.describe_task(new);
            let old = before.tasks.get(&new.id).map(|t| self.describe_task(t));
            if old.as_ref() != Some(&text) {
                lines.push(text);
            }
        }
        for old in before.services.values() {
            match self.tables.services.get(&old.id) {
                None => lines.push(format!("service {} gone", old.spec.name)),
                Some(new) if new.update != old.update => lines.push(self.describe_update(new)),
                Some(_) => {}
            }
        }
        for old in before.networks.values().filter(|n| !self.tables.networks.contains(&n.id)) {
            lines.push(format!("network {} gone", old.spec.name));
        }
        lines.sort();
        if lines.is_empty() {
            lines.push("nothing".to_owned());
        }
        if let Some(at) = self.last.wake_at {
            lines.push(format!("wakes in {:?}", at.since(self.now)));
        }
        lines.iter().fold(String::new(), |out, line| out + "  " + line + "\n")
    }

    fn describe_update(&self, service: &Service) -> String {
        let Some(update) = &service.update else {
            return format!("service {} update: none", service.spec.name);
        };
        let mut message = update.message.clone();
        for id in self.ordinals.keys() {
            message = message.replace(&id.to_string(), &self.label(*id));
        }
        format!("service {} {:?}: {message}", service.spec.name, update.state)
    }

    fn list_tasks(&self, service: Option<&str>) -> String {
        let wanted = |t: &&Arc<Task>| service.is_none_or(|s| t.service_name == s);
        let mut lines: Vec<String> =
            self.tables.tasks.values().filter(wanted).map(|t| self.describe_task(t)).collect();
        lines.sort();
        if lines.is_empty() {
            lines.push("none".to_owned());
        }
        lines.iter().fold(String::new(), |out, line| out + "  " + line + "\n")
    }

    /// Addresses and ports of a service and its tasks, or of a network.
    /// Where a service's tasks would be in the end; nothing is changed.
    fn foresee(&self, service: &str) -> String {
        let service = self.tables.service_named(service).expect("a service").id;
        let mut next_id = u128::MAX / 2;
        let mut ids = || {
            next_id += 1;
            next_id
        };
        let mut lines = String::new();
        for seen in plan::foresee(&self.tables, self.clock(), &[service], &mut ids) {
            for (node, tasks) in seen.placed {
                writeln!(lines, "  {tasks} on {}", self.tables.nodes.get(&node).unwrap().display_name())
                    .unwrap();
            }
            for (reason, tasks) in seen.waiting {
                writeln!(lines, "  {tasks} would wait: {reason}").unwrap();
            }
            assert!(seen.is_whole, "it is looked at to the end");
        }
        lines
    }

    /// How each node stands to one more task of a service.
    fn explain(&self, service: &str) -> String {
        let service = self.tables.service_named(service).expect("a service").id;
        let mut lines = String::new();
        for verdict in plan::verdicts(&self.tables, self.clock(), service) {
            let node = self.tables.nodes.get(&verdict.node).unwrap().display_name().to_owned();
            let why =
                if verdict.obstacles.is_empty() { "fits".to_owned() } else { verdict.obstacles.join("; ") };
            writeln!(lines, "  {node}: {why}").unwrap();
        }
        lines
    }

    fn show(&self, name: &str) -> String {
        let mut lines = Vec::new();
        if let Some(network) = self.tables.network_named(name) {
            let allocation = network.allocation;
            lines.push(allocation.map_or("not allocated".to_owned(), |a| {
                format!("vni {} subnet {} gateway {}", a.vni, a.subnet, a.gateway)
            }));
        }
        if let Some(service) = self.tables.service_named(name) {
            for vip in &service.endpoint.vips {
                let network = self.tables.networks.get(&vip.network).expect("a vip has a network");
                lines.push(format!("vip {} on {}", vip.address, network.spec.name));
            }
            for port in &service.endpoint.ports {
                lines.push(
                    format!("port {} -> {} {:?}", port.published, port.target, port.mode).to_lowercase(),
                );
            }
        }
        let mut tasks: Vec<_> = self.tables.tasks.values().filter(|t| t.service_name == name).collect();
        tasks.sort_by_key(|t| self.label(t.id));
        for task in tasks {
            let mut line = self.label(task.id);
            for attachment in &task.attachments {
                write!(line, " {}", attachment.address).unwrap();
            }
            if let Some(address) = task.gateway_address {
                write!(line, " gateway {address}").unwrap();
            }
            for (kind, supply) in &task.generic {
                write!(line, " {kind} {}", shown(supply)).unwrap();
            }
            for port in &task.host_ports {
                write!(line, " host port {} -> {}", port.published, port.target).unwrap();
            }
            lines.push(line);
        }
        assert!(!lines.is_empty(), "nothing is called {name}");
        lines.iter().fold(String::new(), |out, line| out + "  " + line + "\n")
    }

    // ---- invariants -----------------------------------------------------------------------------------

    /// A task goes only where it is allowed to.
    fn check_placements(&self, before: &Tables) {
        for task in self.tables.tasks.values() {
            let was = before.tasks.get(&task.id).and_then(|t| t.node());
            assert!(was.is_none() || was == task.node(), "{} moved", task.name());
            let Some(node) = task.node().filter(|_| was.is_none()) else { continue };
            let node = self.tables.nodes.get(&node).expect("placed on a node that exists");
            assert!(
                task.attaches.is_some() || node.accepts_tasks(),
                "{} placed on {}",
                task.name(),
                node.display_name()
            );
            for constraint in &task.spec.placement.constraints {
                assert!(plan::constraint_matches(constraint, node), "{} against {constraint}", task.name());
            }
        }
    }

    /// Nobody is let go while a container of its slot may still run, but for start-first.
    fn check_slots(&self, before: &Tables) {
        let goes_on = |task: &Task| matches!(task.desired, Desired::Running | Desired::Complete);
        let lost = |id| self.tables.nodes.get(&id).is_none_or(|n| n.status.state == NodeState::Down);
        let stops = |old: &&Arc<Task>| {
            old.desired > Desired::Complete && old.may_hold_resources() && !old.node().is_some_and(lost)
        };
        let stopping: BTreeMap<(ServiceId, Slot), TaskId> =
            self.tables.tasks.values().filter(stops).map(|t| ((t.service, t.slot), t.id)).collect();
        for task in self.tables.tasks.values().filter(|t| goes_on(t)) {
            if before.tasks.get(&task.id).is_some_and(|t| goes_on(t)) {
                continue;
            }
            let Some(service) = self.tables.services.get(&task.service) else { continue };
            if service.spec.update.order == UpdateOrder::StartFirst
                || service.spec.rollback.order == UpdateOrder::StartFirst
            {
                continue;
            }
            let beside = stopping.get(&(task.service, task.slot));
            assert!(beside.is_none(), "{} starts beside {beside:?}", task.name());
        }
    }

    /// What must hold after every step, whatever happened.
    fn check(&self, before: &Tables) {
        self.check_slots(before);
        let mut live: BTreeMap<(ServiceId, Slot), u32> = BTreeMap::new();
        let mut reserved: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        let mut ports = BTreeSet::new();
        let mut named = BTreeSet::new();
        for task in self.tables.tasks.values() {
            let over = task.status.state.is_some_and(TaskState::is_terminal);
            if matches!(task.desired, Desired::Running | Desired::Complete) && !over {
                *live.entry((task.service, task.slot)).or_default() += 1;
            }
            if let Some(node) = task.node().filter(|_| task.may_hold_resources()) {
                let sum = reserved.entry(node).or_default();
                sum.0 += task.spec.resources.reservations.cpu_nanos;
                sum.1 += task.spec.resources.reservations.memory_bytes;
                for (kind, supply) in &task.generic {
                    let Supply::Named(names) = supply else { continue };
                    for name in names {
                        assert!(named.insert((node, kind, name)), "{kind} {name} belongs to two tasks");
                    }
                }
                let lost = self.tables.nodes.get(&node).is_none_or(|n| n.status.state == NodeState::Down);
                for port in task.host_ports.iter().filter(|_| !lost) {
                    assert!(ports.insert((node, port.protocol, port.published)), "{port:?} twice on a node");
                }
            }
            for attachment in &task.attachments {
                let Some(network) = self.tables.networks.get(&attachment.network) else { continue };
                let allocation = network.allocation.expect("attached to a network without a subnet");
                assert!(allocation.subnet.contains(&attachment.address.addr()));
                assert_ne!(attachment.address.addr(), allocation.gateway);
            }
        }
        for ((service, slot), count) in live {
            let Some(service) = self.tables.services.get(&service) else { continue };
            // A step that gives an update up changes the order; the next one goes by it.
            let orders = [Some(service), before.services.get(&service.id)].into_iter().flatten();
            let overlap = orders.map(|s| s.spec.update.order).any(|o| o == UpdateOrder::StartFirst);
            assert!(
                count <= if overlap { 2 } else { 1 },
                "{}.{slot:?} runs {count} times",
                service.spec.name
            );
        }
        for (node, (cpu, memory)) in reserved {
            let Some(node) = self.tables.nodes.get(&node).filter(|n| n.accepts_tasks()) else { continue };
            let has = node.description.as_ref().expect("nodes here are described").resources;
            // A node that shrank is relieved by stopping tasks, which takes a moment.
            let stopping = self.tables.tasks_of_node(node.id).any(|t| t.desired >= Desired::Shutdown);
            assert!(
                stopping || (cpu <= has.cpu_nanos && memory <= has.memory_bytes),
                "{node:?} is overbooked"
            );
        }
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter(|v| !v.is_empty())
}

/// `gpu:2`, `gpu:all`, `gpu:a+b`.
fn want(text: &str) -> (String, Want) {
    let (kind, value) = text.split_once(':').expect("KIND:WHAT");
    let want = match (value, value.parse()) {
        ("all", _) => Want::All,
        (_, Ok(n)) => Want::Count(n),
        _ => Want::These(value.split('+').map(str::to_owned).collect()),
    };
    (kind.to_owned(), want)
}

fn shown(supply: &Supply) -> String {
    match supply {
        Supply::Count(n) => n.to_string(),
        Supply::Named(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join("+"),
    }
}

/// `80`, `8080:80`, `53:53/udp`, `host:8080:80`; published 0 = chosen.
fn port(text: &str) -> PortConfig {
    let (text, protocol) = match text.split_once('/') {
        Some((text, "udp")) => (text, Protocol::Udp),
        _ => (text, Protocol::Tcp),
    };
    let (text, mode) = match text.strip_prefix("host:") {
        Some(text) => (text, PublishMode::Host),
        None => (text, PublishMode::Ingress),
    };
    let (published, target) = text.split_once(':').unwrap_or(("0", text));
    PortConfig {
        name: String::new(),
        protocol,
        target: target.parse().unwrap(),
        published: published.parse().unwrap(),
        mode,
    }
}

pub(crate) fn duration(text: &str) -> Duration {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let n: u64 = digits.parse().unwrap_or_else(|_| panic!("bad duration {text:?}"));
    match &text[digits.len()..] {
        "ms" => Duration::from_millis(n),
        "s" => Duration::from_secs(n),
        "m" => Duration::from_secs(n * 60),
        "h" => Duration::from_secs(n * 3600),
        other => panic!("bad unit {other:?}"),
    }
}

fn number(text: &str) -> u64 {
    let (digits, factor) = match text.strip_suffix('g') {
        Some(digits) => (digits, 1 << 30),
        None => (text, 1),
    };
    digits.parse::<u64>().unwrap_or_else(|_| panic!("bad number {text:?}")) * factor
}
