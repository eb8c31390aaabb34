//! What people ask of the managers of a storm, each of any of them, and what they were told.

use super::{
    Door, Random, Storm, Story,
    asked::{Ask, Asks, Is},
    judge::{BROKEN, is_job},
    roles::Wish,
    stacks::KnownStack,
};
use crate::tests::{
    linear::{read, register, replace},
    state::service_spec,
    swarm::Control,
};
use model::*;
use proto::{
    WireId as _,
    control::{
        CreateRequest, GetRequest, ListRequest, RemoveRequest, UpdateRequest, create_request, update_request,
    },
    types::{self, ObjectKind},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use testkit::history::{Asked, Operation, Told};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// A person waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const PEOPLE: usize = 5;
const CLIENTS: usize = 4;
/// Who each have a stack.
const OWNERS: usize = 2;
const SERVICES_MAX: usize = 6;
const OTHERS_MAX: usize = 4;
pub(super) const PORTS: u16 = 3;

/// What people know of an object that they made.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) kind: ObjectKind,
    pub(super) name: String,
    /// Of its spec, as last acknowledged.
    pub(super) version: u64,
    /// Somebody asked for its removal; whether it is there, only the answer says.
    pub(super) going: bool,
    pub(super) gone: bool,
}

/// What people were told.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) objects: BTreeMap<(i32, u128), Known>,
    pub(super) history: Vec<Operation>,
    pub(super) stacks: BTreeMap<String, KnownStack>,
    names: u64,
    pub(super) answered: usize,
    /// What must not be and was.
    pub(super) wrong: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct People {
    pub(super) memory: Arc<Mutex<Memory>>,
    start: Instant,
}

impl People {
    pub(super) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to ask; ends when told to stop, having answered for what was under way.
    pub(super) fn begin(
        storm: &Storm,
        id: ConfigId,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let this = Self { memory: Arc::default(), start: Instant::now() };
        for number in 0..PEOPLE {
            let person = Person {
                number,
                people: this.clone(),
                doors: storm.doors(),
                random: Random::new(storm.seed.wrapping_mul(1000) + 100 + number as u64),
                story: storm.story.clone(),
                asks: storm.asks.clone(),
            };
            tasks.spawn(person.live(stop.clone()));
        }
        for client in 0..CLIENTS {
            let random = Random::new(storm.seed.wrapping_mul(1000) + 200 + client as u64);
            tasks.spawn(this.clone().work(client, storm.doors(), id, random, stop.clone()));
        }
        this
    }

    fn record(&self, operation: Operation) {
        let mut memory = self.lock();
        memory.answered += usize::from(operation.told != Told::Unknown);
        memory.history.push(operation);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    /// Reads a register and writes it, each time the version that was seen last.
    async fn work(
        self,
        client: usize,
        doors: Vec<Door>,
        id: ConfigId,
        mut random: Random,
        stop: CancellationToken,
    ) {
        let mut known = 0;
        for number in 0_u64.. {
            if stop.is_cancelled() {
                return;
            }
            let mut control = some_door(&doors, &mut random).control();
            let began = self.now();
            let (asked, told) = if known == 0 || random.once_in(2) {
                (Asked::Read, read(&mut control, id).await)
            } else {
                let value = (client as u64 + 1) * 1_000_000 + number;
                (Asked::Replace { version: known, value }, replace(&mut control, id, known, value).await)
            };
            let ended = self.now().max(began + 1);
            known = match told {
                Told::Holds { version, .. } | Told::Replaced { version } => version,
                Told::Refused => 0,
                Told::Unknown => known,
            };
            self.record(Operation { client, began, ended, asked, told });
            tokio::time::sleep(random.millis(20, 200)).await;
        }
    }
}

/// People go where a manager runs.
fn some_door<'a>(doors: &'a [Door], random: &mut Random) -> &'a Door {
    let serving: Vec<&Door> = doors.iter().filter(|door| door.serves()).collect();
    let any = random.below(doors.len().max(1) * 60);
    if serving.is_empty() { &doors[any % doors.len()] } else { serving[any % serving.len()] }
}

/// Returns the register's first spec.
pub(super) fn first_register() -> create_request::Spec {
    create_request::Spec::Config((&register(0)).into())
}

pub(super) struct Person {
    pub(super) number: usize,
    pub(super) people: People,
    doors: Vec<Door>,
    pub(super) random: Random,
    story: Story,
    pub(super) asks: Asks,
}

impl Person {
    async fn live(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let control = some_door(&self.doors, &mut self.random).control();
            // What was asked for and not answered may be done all the same: that is taken note of before.
            if tokio::time::timeout(PATIENCE, self.act(control)).await.is_ok_and(|answer| answer.is_ok()) {
                self.people.lock().answered += 1;
            }
            tokio::time::sleep(self.random.millis(50, 600)).await;
        }
    }

    async fn act(&mut self, control: Control) -> Result<(), Status> {
        match self.random.below(24) {
            16..=19 if self.number < OWNERS => self.act_on_stack(control).await,
            16..=18 => self.change_role(control).await,
            19 => self.send_away(control).await,
            20 => {
                self.edit_service(control, |spec| {
                    // What can never run: what its policy says is done about it.
                    if matches!(spec.mode, Mode::Replicated { .. } | Mode::Global) {
                        Arc::make_mut(&mut spec.task).container.image = BROKEN.to_owned();
                    }
                })
                .await
            }
            21 => {
                let ports = if self.random.once_in(3) { vec![] } else { vec![self.port()] };
                self.edit_service(control, |spec| spec.endpoint.ports = ports).await
            }
            0..=2 => self.create_service(control).await,
            3 => self.create_other(control).await,
            4 | 5 => {
                let replicas = 1 + self.random.below(4) as u64;
                self.edit_service(control, |spec| {
                    if matches!(spec.mode, Mode::Replicated { .. }) {
                        spec.mode = Mode::Replicated { replicas };
                    }
                })
                .await
            }
            6..=8 => {
                let mark = self.random.below(1000);
                self.edit_service(control, |spec| {
                    Arc::make_mut(&mut spec.task).container.env = vec![format!("MARK={mark}")];
                })
                .await
            }
            9 => self.roll_back(control).await,
            10 => self.remove(control, ObjectKind::Service).await,
            11 => {
                let kinds = [ObjectKind::Network, ObjectKind::Secret, ObjectKind::Config];
                let kind = kinds[self.random.below(kinds.len())];
                self.remove(control, kind).await
            }
            12 | 13 => self.set_availability(control).await,
            _ => self.look(control).await,
        }
    }

    /// Returns an object of this kind that nobody wants removed.
    fn some(&mut self, kind: ObjectKind) -> Option<(u128, Known)> {
        let memory = self.people.lock();
        let of_kind = memory.objects.iter().filter(|((of, _), known)| *of == kind as i32 && !known.going);
        let of_kind: Vec<_> = of_kind.map(|((_, id), known)| (*id, known.clone())).collect();
        drop(memory);
        (!of_kind.is_empty()).then(|| of_kind[self.random.below(of_kind.len())].clone())
    }

    fn count(&self, kind: ObjectKind) -> usize {
        let memory = self.people.lock();
        memory.objects.iter().filter(|((of, _), known)| *of == kind as i32 && !known.gone).count()
    }

    pub(super) fn name(&self, word: &str) -> String {
        let mut memory = self.people.lock();
        memory.names += 1;
        format!("{word}{}", memory.names)
    }

    /// Returns an id that nothing has.
    pub(super) fn fresh_id(&self) -> u128 {
        let mut memory = self.people.lock();
        memory.names += 1;
        (1 << 100) | u128::from(memory.names)
    }

    async fn create(
        &self,
        mut control: Control,
        kind: ObjectKind,
        name: String,
        spec: create_request::Spec,
    ) -> Result<(u128, u64), Status> {
        let request = CreateRequest { spec: Some(spec), registry_auth: None };
        let reply = control.create(request).await?.into_inner();
        let known = Known { kind, name, version: reply.version, going: false, gone: false };
        let id = ServiceId::from_wire(&reply.id).unwrap().0;
        self.people.lock().objects.insert((kind as i32, id), known);
        Ok((id, reply.version))
    }

    async fn create_service(&mut self, control: Control) -> Result<(), Status> {
        if self.count(ObjectKind::Service) >= SERVICES_MAX {
            return Ok(());
        }
        let name = self.name("service");
        let mut spec = service_spec(&name);
        spec.mode = match self.random.below(8) {
            0 => Mode::Global,
            1 | 2 => Mode::ReplicatedJob { max_concurrent: 1 + self.random.below(3) as u64, total: 4 },
            3 => Mode::GlobalJob,
            n => Mode::Replicated { replicas: n as u64 - 3 },
        };
        let is_job = matches!(spec.mode, Mode::ReplicatedJob { .. } | Mode::GlobalJob);
        // For as long as it lives: two copies of a slot may run at any time, or never.
        let orders = [UpdateOrder::StartFirst, UpdateOrder::StopFirst];
        spec.update.order = orders[self.random.below(2)];
        spec.update.delay = Duration::ZERO;
        spec.update.monitor = Duration::from_millis(200);
        let actions = [FailureAction::Continue, FailureAction::Pause, FailureAction::Rollback];
        spec.update.on_failure = actions[self.random.below(3)];
        spec.rollback = UpdatePolicy { on_failure: FailureAction::Continue, ..spec.update.clone() };
        let task = Arc::make_mut(&mut spec.task);
        task.restart.delay = Duration::from_millis(100);
        let images = if is_job {
            ["work-100", "work-700", "work-700", "work-3000"]
        } else {
            ["web", "stubborn", "flaky", "bomb"]
        };
        task.container.image = images[self.random.below(4)].to_owned();
        task.container.stop_grace_period = Some(Duration::from_secs(4));
        if self.random.once_in(2)
            && let Some((network, _)) = self.some(ObjectKind::Network)
        {
            task.networks = vec![NetworkAttachmentSpec::new(NetworkId(network), Vec::new())];
        }
        if self.random.once_in(3)
            && let Some((secret, known)) = self.some(ObjectKind::Secret)
        {
            task.container.secrets.push(file_of(SecretId(secret), &known.name));
        }
        if !is_job && self.random.once_in(2) {
            spec.endpoint.ports = vec![self.port()];
        }
        let spec = Arc::new(spec);
        self.asks.ask(Ask::Service { name: name.clone(), version: 0, spec: spec.clone() });
        let new = create_request::Spec::Service((&*spec).into());
        let (id, index) = self.create(control, ObjectKind::Service, name, new).await?;
        self.asks.told(ObjectRef::Service(ServiceId(id)), index, Is::Service(1, spec));
        Ok(())
    }

    async fn create_other(&mut self, control: Control) -> Result<(), Status> {
        let kinds = [ObjectKind::Network, ObjectKind::Secret, ObjectKind::Config];
        let kind = kinds[self.random.below(kinds.len())];
        if self.count(kind) >= OTHERS_MAX {
            return Ok(());
        }
        let name = self.name("other");
        let spec = match kind {
            ObjectKind::Network => {
                create_request::Spec::Network((&NetworkSpec::new(&name, NetworkDriver::Overlay)).into())
            }
            ObjectKind::Secret => create_request::Spec::Secret(
                (&SecretSpec {
                    templated: false,
                    name: name.clone(),
                    labels: Labels::new(),
                    data: SecretBytes(b"x".to_vec()),
                })
                    .into(),
            ),
            _ => create_request::Spec::Config(
                (&ConfigSpec {
                    templated: false,
                    name: name.clone(),
                    labels: Labels::new(),
                    data: b"x".to_vec(),
                })
                    .into(),
            ),
        };
        self.create(control, kind, name, spec).await.map(drop)
    }

    /// Returns an object as it is now; what is known to be there, and is not, is noted.
    async fn get(
        &self,
        control: &mut Control,
        kind: ObjectKind,
        id: u128,
    ) -> Result<Option<types::object::Kind>, Status> {
        let id_or_name = ServiceId(id).to_string();
        match control.get(GetRequest { kind: kind as i32, id_or_name }).await {
            Ok(reply) => Ok(reply.into_inner().kind),
            Err(status) => {
                let mut memory = self.people.lock();
                let known = memory.objects.get(&(kind as i32, id)).filter(|known| !known.going).cloned();
                if let Some(known) = known
                    && status.code() == tonic::Code::NotFound
                {
                    memory
                        .wrong
                        .get_or_insert_with(|| format!("{known:?} was made, and a read says {status}"));
                }
                Err(status)
            }
        }
    }

    async fn edit_service(
        &mut self,
        mut control: Control,
        change: impl FnOnce(&mut ServiceSpec),
    ) -> Result<(), Status> {
        let Some((id, _)) = self.some(ObjectKind::Service) else { return Ok(()) };
        let Some(types::object::Kind::Service(service)) =
            self.get(&mut control, ObjectKind::Service, id).await?
        else {
            return Ok(());
        };
        let service = Service::try_from(service).unwrap();
        let mut spec = (*service.spec).clone();
        change(&mut spec);
        let wanted = update_request::Spec::Service((&spec).into());
        self.update(control, &service, wanted, spec.into()).await
    }

    async fn roll_back(&mut self, mut control: Control) -> Result<(), Status> {
        let Some((id, _)) = self.some(ObjectKind::Service) else { return Ok(()) };
        let Some(types::object::Kind::Service(service)) =
            self.get(&mut control, ObjectKind::Service, id).await?
        else {
            return Ok(());
        };
        let service = Service::try_from(service).unwrap();
        let Some(previous) = service.previous.clone() else { return Ok(()) };
        self.update(control, &service, update_request::Spec::Rollback(true), previous).await
    }

    /// Changes a service of which nothing was changed since it was read.
    async fn update(
        &self,
        mut control: Control,
        service: &Service,
        wanted: update_request::Spec,
        spec: Arc<ServiceSpec>,
    ) -> Result<(), Status> {
        let version = update_service(&mut control, &self.asks, service, wanted, spec).await?;
        let mut memory = self.people.lock();
        if let Some(known) = memory.objects.get_mut(&(ObjectKind::Service as i32, service.id.0)) {
            known.version = known.version.max(version);
        }
        Ok(())
    }

    async fn remove(&mut self, mut control: Control, kind: ObjectKind) -> Result<(), Status> {
        let Some((id, _)) = self.some(kind) else { return Ok(()) };
        let going = |people: &People, going: bool, gone: bool| {
            if let Some(known) = people.lock().objects.get_mut(&(kind as i32, id)) {
                (known.going, known.gone) = (going, gone);
            }
        };
        going(&self.people, true, false);
        self.asks.ask(Ask::Removal(key_of(kind, id)));
        let request = RemoveRequest { kind: kind as i32, id: id.to_be_bytes().to_vec(), force: false };
        match control.remove(request).await {
            Ok(_) => {
                going(&self.people, true, true);
                // Whoever is asked.
                let control = self.some_door();
                self.look_at(control, kind).await?;
            }
            // It is used, and stays.
            Err(status) if status.code() == tonic::Code::InvalidArgument => {
                going(&self.people, false, false);
                return Err(status);
            }
            Err(status) => return Err(status),
        }
        Ok(())
    }

    fn some_node(&mut self) -> NodeId {
        self.doors[self.random.below(self.doors.len())].papers().node
    }

    async fn change_role(&mut self, mut control: Control) -> Result<(), Status> {
        let (node, role) = (self.some_node(), [Role::Manager, Role::Worker][self.random.below(2)]);
        edit_node(&mut control, &self.asks, node, |spec| spec.role = role).await?;
        self.story.tell(&format!("told: node {node} is to be {role:?}"));
        Ok(())
    }

    /// Has a host leave the swarm, or the swarm remove it.
    async fn send_away(&mut self, mut control: Control) -> Result<(), Status> {
        let door = self.doors[self.random.below(self.doors.len())].clone();
        if self.random.once_in(2) {
            self.story.tell(&format!("told: host {} is to leave", door.number));
            *door.wish.lock().unwrap() = Some(Wish::Leave);
            return Ok(());
        }
        let node = door.papers().node;
        let force = self.random.once_in(2);
        self.asks.ask(Ask::Removal(ObjectRef::Node(node)));
        control.remove(RemoveRequest { kind: ObjectKind::Node as i32, id: node.to_wire(), force }).await?;
        self.story.tell(&format!("told: node {node} is removed"));
        Ok(())
    }

    async fn set_availability(&mut self, mut control: Control) -> Result<(), Status> {
        let node = self.some_node();
        let availability =
            [Availability::Active, Availability::Drain, Availability::Pause][self.random.below(3)];
        set_availability(&mut control, &self.asks, node, availability).await
    }

    pub(super) fn some_door(&mut self) -> Control {
        some_door(&self.doors, &mut self.random).control()
    }

    async fn look(&mut self, control: Control) -> Result<(), Status> {
        let kinds = [ObjectKind::Service, ObjectKind::Network, ObjectKind::Secret, ObjectKind::Config];
        let kind = kinds[self.random.below(kinds.len())];
        self.look_at(control, kind).await
    }

    /// Lists what there is: everything that is known to be there is, and nothing that is known to be gone.
    async fn look_at(&self, mut control: Control, kind: ObjectKind) -> Result<(), Status> {
        let known: Vec<(u128, Known)> = {
            let memory = self.people.lock();
            let of_kind = memory.objects.iter().filter(|((of, _), _)| *of == kind as i32);
            of_kind.map(|((_, id), known)| (*id, known.clone())).collect()
        };
        let known = known.into_iter().filter(|(_, known)| !known.going || known.gone);
        let (gone, before): (Vec<_>, Vec<_>) = known.partition(|(_, known)| known.gone);
        let mut chunks = control.list(ListRequest { kind: kind as i32, brief: false }).await?.into_inner();
        let mut there = BTreeMap::new();
        while let Some(chunk) = chunks.message().await? {
            for (id, _) in &gone {
                self.asks.told(key_of(kind, *id), chunk.index, Is::Gone);
            }
            for object in chunk.objects {
                let object = Object::try_from(object).unwrap();
                there.insert(id_of(&object), object.version());
            }
        }
        let mut memory = self.people.lock();
        if let Some((_, known)) = gone.iter().find(|(id, _)| there.contains_key(id)) {
            memory.wrong.get_or_insert_with(|| format!("{known:?} was removed, and is listed"));
        }
        for (id, known) in before {
            // Somebody may have removed it meanwhile.
            let going = memory.objects.get(&(kind as i32, id)).is_none_or(|known| known.going);
            let listed = there.get(&id);
            if !going && listed.is_none_or(|version| *version < known.version) {
                memory
                    .wrong
                    .get_or_insert_with(|| format!("{known:?} was made, and is listed as {listed:?}"));
            }
        }
        Ok(())
    }
}

fn key_of(kind: ObjectKind, id: u128) -> ObjectRef {
    match kind {
        ObjectKind::Service => ObjectRef::Service(ServiceId(id)),
        ObjectKind::Network => ObjectRef::Network(NetworkId(id)),
        ObjectKind::Secret => ObjectRef::Secret(SecretId(id)),
        ObjectKind::Config => ObjectRef::Config(ConfigId(id)),
        other => panic!("nobody asked for {other:?}"),
    }
}

fn id_of(object: &Object) -> u128 {
    match object.key() {
        ObjectRef::Service(id) => id.0,
        ObjectRef::Network(id) => id.0,
        ObjectRef::Secret(id) => id.0,
        ObjectRef::Config(id) => id.0,
        other => panic!("nobody asked for {other:?}"),
    }
}

/// Returns where the file of a secret or a config is put.
pub(super) fn file_of<Id>(id: Id, name: &str) -> FileRef<Id> {
    FileRef { id, name: name.to_owned(), target: "s".into(), uid: "0".into(), gid: "0".into(), mode: 0o444 }
}

/// Sets what a node is to do.
///
/// # Errors
/// As the person is told.
pub(super) async fn set_availability(
    control: &mut Control,
    asks: &Asks,
    id: NodeId,
    availability: Availability,
) -> Result<(), Status> {
    edit_node(control, asks, id, |spec| spec.availability = availability).await
}

/// Has the swarm forget a node that will not come back.
///
/// # Errors
/// As the person is told.
pub(super) async fn give_up_node(control: &mut Control, asks: &Asks, node: &Node) -> Result<(), Status> {
    if node.spec.role == Role::Manager {
        return edit_node(control, asks, node.id, |spec| spec.role = Role::Worker).await;
    }
    asks.ask(Ask::Removal(ObjectRef::Node(node.id)));
    let request = RemoveRequest { kind: ObjectKind::Node as i32, id: node.id.to_wire(), force: true };
    control.remove(request).await.map(drop)
}

async fn edit_node(
    control: &mut Control,
    asks: &Asks,
    id: NodeId,
    change: impl FnOnce(&mut NodeSpec),
) -> Result<(), Status> {
    let request = GetRequest { kind: ObjectKind::Node as i32, id_or_name: id.to_string() };
    let Some(types::object::Kind::Node(node)) = control.get(request).await?.into_inner().kind else {
        panic!("a node was asked for");
    };
    let node = Node::try_from(node).unwrap();
    let mut spec = node.spec.clone();
    change(&mut spec);
    if spec == node.spec {
        return Ok(());
    }
    let version = node.meta.version;
    asks.ask(Ask::Node { node: id, version, spec: spec.clone() });
    let wanted = Some(update_request::Spec::Node((&spec).into()));
    let request = UpdateRequest { id: id.to_wire(), version, spec: wanted, registry_auth: None };
    let index = control.update(request).await?.into_inner().version;
    asks.told(ObjectRef::Node(id), index, Is::Node(spec));
    Ok(())
}

/// Changes a service that was read, to what has this spec; returns its version as an object.
async fn update_service(
    control: &mut Control,
    asks: &Asks,
    service: &Service,
    wanted: update_request::Spec,
    spec: Arc<ServiceSpec>,
) -> Result<u64, Status> {
    let (id, version) = (service.id, service.spec_version);
    asks.ask(Ask::Service { name: spec.name.clone(), version, spec: spec.clone() });
    let request = UpdateRequest { id: id.to_wire(), version, spec: Some(wanted), registry_auth: None };
    let index = control.update(request).await?.into_inner().version;
    // A job that is rolled back to the spec that it has stays as it is.
    if spec != service.spec || !is_job(spec.mode) {
        asks.told(ObjectRef::Service(id), index, Is::Service(version + 1, spec));
    }
    Ok(index)
}

/// Puts a service's last other spec back.
///
/// # Errors
/// As the person is told.
pub(super) async fn roll_back(control: &mut Control, asks: &Asks, service: &Service) -> Result<(), Status> {
    let Some(previous) = service.previous.clone() else { return Ok(()) };
    update_service(control, asks, service, update_request::Spec::Rollback(true), previous).await.map(drop)
}

/// Has a service run this image.
///
/// # Errors
/// As the person is told.
pub(super) async fn set_image(
    control: &mut Control,
    asks: &Asks,
    id: ServiceId,
    image: &str,
) -> Result<(), Status> {
    let request = GetRequest { kind: ObjectKind::Service as i32, id_or_name: id.to_string() };
    let Some(types::object::Kind::Service(service)) = control.get(request).await?.into_inner().kind else {
        panic!("a service was asked for");
    };
    let service = Service::try_from(service).unwrap();
    let mut spec = (*service.spec).clone();
    Arc::make_mut(&mut spec.task).container.image = image.to_owned();
    let wanted = update_request::Spec::Service((&spec).into());
    update_service(control, asks, &service, wanted, spec.into()).await.map(drop)
}
