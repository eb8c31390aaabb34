//! Stacks: each has one person who deploys it, rolls it back and removes it. What he was told is what is so, and nobody but
//! him may have changed it meanwhile.

use super::{
    asked::Ask,
    people::{PORTS, Person, file_of},
};
use crate::tests::{state::service_spec, swarm::Control};
use model::*;
use proto::{
    WireId as _,
    control::{
        ApplyStackRequest, ListRequest, PlannedRemoval, PlannedService, RemoveRequest, RollbackStackRequest,
    },
    types::{self, ObjectKind},
};
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Code, Response, Status};

/// A request that nobody answered may still be on its way for so long.
const LOST: Duration = Duration::from_secs(20);

/// What the owner of a stack knows of it.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownStack {
    /// What he was told last, if that is how it must be: the stack, or that there is none.
    told: Option<Option<Stack>>,
    /// From this index on; `None`: he is not sure from when on.
    since: Option<u64>,
    /// It was told before what is asked now.
    before: Option<Option<Stack>>,
    under_way: bool,
    /// When a request was last made that nobody answered.
    lost: Option<Instant>,
}

impl KnownStack {
    fn begins(&mut self) {
        if self.under_way {
            self.lost = Some(Instant::now());
            self.told = None;
        }
        self.under_way = true;
        self.before = self.told.take();
        self.since = None;
    }

    /// Whoever has this state has what he was told.
    pub(super) fn is_since(&self, index: u64) -> bool {
        self.since.is_some_and(|since| since <= index)
    }

    /// Takes note of an answer; an error says what is wrong with it.
    fn ends(&mut self, name: &str, answer: &Result<Option<Stack>, Status>) -> Result<(), String> {
        let is_sure = self.lost.is_none_or(|at| at.elapsed() > LOST);
        match answer {
            Ok(stack) => {
                self.under_way = false;
                self.told = is_sure.then(|| stack.clone());
                self.since = stack.as_ref().map(|stack| stack.meta.version);
                Ok(())
            }
            Err(status) if is_definite(status) => {
                self.under_way = false;
                self.told = self.before.take();
                let has_reason = matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied);
                if let Some(told) = self.told.as_ref().filter(|_| is_sure && !has_reason) {
                    let is = told.as_ref().map(|stack| stack.revisions.len());
                    return Err(format!("{name} with revisions {is:?} was refused a change: {status}"));
                }
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// Tells whether a stack is as its owner was told. What is about to go, and was its, is there until it is gone.
    pub(super) fn holds(&self, name: &str, view: &Tables, may_be_going: bool) -> Result<(), String> {
        let is = view.stacks.values().find(|stack| stack.name == *name && !stack.pending_delete);
        match &self.told {
            None => Ok(()),
            Some(Some(told)) => match is {
                Some(is) if is.revisions.last() == told.revisions.last() => Ok(()),
                _ => Err(format!("{name} was said to be {told:?}, and is {is:?}")),
            },
            Some(None) => {
                let objects = of_stack(name, view).into_iter();
                let left: Vec<_> = objects.filter(|object| !(may_be_going && object.is_leaving())).collect();
                if left.is_empty() { Ok(()) } else { Err(left_behind(name, &left)) }
            }
        }
    }
}

fn left_behind(stack: &str, left: &[Object]) -> String {
    let left: Vec<_> = left.iter().map(|object| (object.key(), object.name())).collect();
    format!("{stack} was removed, and something of it is there: {left:?}")
}

/// Returns a stack, and all that has its label.
fn of_stack(name: &str, view: &Tables) -> Vec<Object> {
    view.objects().filter(|object| is_of(name, object)).collect()
}

fn is_of(stack: &str, object: &Object) -> bool {
    let is_labelled = |labels: &Labels| labels.get(STACK_LABEL).is_some_and(|of| of == stack);
    match object {
        Object::Stack(object) => object.name == stack,
        Object::Service(object) => is_labelled(&object.spec.labels),
        Object::Network(object) => is_labelled(&object.spec.labels),
        Object::Secret(object) => is_labelled(&object.spec.labels),
        Object::Config(object) => is_labelled(&object.spec.labels),
        Object::Cluster(_) | Object::Node(_) | Object::Task(_) | Object::User(_) | Object::Audit(_) => false,
    }
}

/// Nothing was done, and nothing will be.
fn is_definite(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Aborted
    )
}

/// What there is of a stack.
#[derive(Default)]
struct There {
    stack: Option<Stack>,
    services: Vec<Service>,
    network: Option<Network>,
}

impl Person {
    pub(super) async fn act_on_stack(&mut self, mut control: Control) -> Result<(), Status> {
        let name = format!("stack{}", self.number);
        match self.random.below(8) {
            0 => self.remove_stack(&mut control, &name).await,
            // At once, and it must succeed.
            1 | 2 => {
                self.remove_stack(&mut control, &name).await?;
                self.deploy(&mut control, &name).await
            }
            3 => self.roll_stack_back(&mut control, &name).await,
            _ => self.deploy(&mut control, &name).await,
        }
    }

    fn begins(&self, name: &str) {
        self.people.lock().stacks.entry(name.to_owned()).or_default().begins();
    }

    fn ends(&self, name: &str, answer: Result<Option<Stack>, Status>) -> Result<(), Status> {
        let mut memory = self.people.lock();
        let known = memory.stacks.get_mut(name).expect("it was asked about");
        if let Err(wrong) = known.ends(name, &answer) {
            memory.wrong.get_or_insert(wrong);
        }
        answer.map(drop)
    }

    /// Returns all of a kind, and the index at which they were so.
    async fn list(control: &mut Control, kind: ObjectKind) -> Result<(u64, Vec<Object>), Status> {
        let mut chunks = control.list(ListRequest { kind: kind as i32, brief: false }).await?.into_inner();
        let (mut index, mut all) = (0, Vec::new());
        while let Some(chunk) = chunks.message().await? {
            index = chunk.index;
            all.extend(chunk.objects.into_iter().map(|object| Object::try_from(object).unwrap()));
        }
        Ok((index, all))
    }

    async fn there(control: &mut Control, name: &str) -> Result<There, Status> {
        let mut there = There::default();
        for kind in [ObjectKind::Stack, ObjectKind::Service, ObjectKind::Network] {
            let (_, objects) = Self::list(control, kind).await?;
            for object in objects.into_iter().filter(|object| is_of(name, object) && !object.is_leaving()) {
                match object {
                    Object::Stack(stack) => there.stack = Some((*stack).clone()),
                    Object::Service(service) => there.services.push((*service).clone()),
                    Object::Network(network) => there.network = Some((*network).clone()),
                    _ => {}
                }
            }
        }
        Ok(there)
    }

    /// Whoever reads finds nothing of a stack that was removed.
    async fn find_nothing(&mut self, name: &str) -> Result<(), Status> {
        let kinds = [
            ObjectKind::Stack,
            ObjectKind::Service,
            ObjectKind::Network,
            ObjectKind::Secret,
            ObjectKind::Config,
        ];
        let mut control = self.some_door();
        let (mut since, mut left) = (0, Vec::new());
        for kind in kinds {
            let (index, objects) = Self::list(&mut control, kind).await?;
            since = since.max(index);
            left.extend(objects.into_iter().filter(|object| is_of(name, object)));
        }
        let mut memory = self.people.lock();
        let known = memory.stacks.get_mut(name).expect("it was asked about");
        if known.told == Some(None) {
            known.since = Some(since);
            if !left.is_empty() {
                memory.wrong.get_or_insert_with(|| left_behind(name, &left));
            }
        }
        Ok(())
    }

    async fn deploy(&mut self, control: &mut Control, name: &str) -> Result<(), Status> {
        let there = Self::there(control, name).await?;
        let labels = Labels::from([(STACK_LABEL.to_owned(), name.to_owned())]);
        let network = there.network.clone().unwrap_or_else(|| Network {
            id: NetworkId(self.fresh_id()),
            meta: Meta::default(),
            spec: NetworkSpec {
                labels: labels.clone(),
                ..NetworkSpec::new(format!("{name}_net"), NetworkDriver::Overlay)
            },
            allocation: None,
            pending_delete: false,
        });
        let data = b"x".to_vec();
        let secret = Secret {
            id: SecretId(self.fresh_id()),
            meta: Meta::default(),
            spec: SecretSpec {
                templated: false,
                name: self.name(&format!("{name}_secret")),
                labels: labels.clone(),
                data: SecretBytes(data.clone()),
            },
        };
        let config = Config {
            id: ConfigId(self.fresh_id()),
            meta: Meta::default(),
            spec: ConfigSpec { templated: false, name: self.name(&format!("{name}_config")), labels, data },
        };
        let which = 1 + self.random.below(3);
        let (mut services, mut specs) = (Vec::new(), Vec::new());
        for (bit, part) in [(1, "web"), (2, "job")] {
            if which & bit == 0 {
                continue;
            }
            let spec = self.stack_service(name, part, &network, &secret, &config);
            let old = there.services.iter().find(|service| service.spec.name == spec.name);
            let version = old.map_or(0, |service| service.spec_version);
            services.push(PlannedService { spec: Some((&spec).into()), version, registry_auth: None });
            let spec = Arc::new(spec);
            self.asks.ask(Ask::Service { name: spec.name.clone(), version, spec: spec.clone() });
            specs.push(spec);
        }
        let removed = self.without(&there.services, &specs);
        let removed = removed
            .iter()
            .map(|service| PlannedRemoval { service: service.id.to_wire(), version: service.spec_version });
        let removed = removed.collect();
        let networks: Vec<types::Network> =
            if there.network.is_none() { vec![(&network).into()] } else { vec![] };
        let request = ApplyStackRequest {
            name: name.to_owned(),
            networks,
            secrets: vec![(&secret).into()],
            configs: vec![(&config).into()],
            services,
            removed,
            ..ApplyStackRequest::default()
        };
        self.begins(name);
        let answer = control.apply_stack(request).await;
        self.is_to_be(name, answer, 0, specs)
    }

    /// Asks for the removal of services that are not among these, and returns them.
    fn without<'a>(&self, are: &'a [Service], specs: &[Arc<ServiceSpec>]) -> Vec<&'a Service> {
        let is_left = |service: &&Service| specs.iter().all(|spec| spec.name != service.spec.name);
        let removed: Vec<_> = are.iter().filter(is_left).collect();
        removed.iter().for_each(|service| self.asks.ask(Ask::Removal(ObjectRef::Service(service.id))));
        removed
    }

    /// Whoever has a stack deployed or put back is told that its newest revision is what he asked for.
    fn is_to_be(
        &self,
        name: &str,
        answer: Result<Response<types::Stack>, Status>,
        restores: u64,
        mut specs: Vec<Arc<ServiceSpec>>,
    ) -> Result<(), Status> {
        let answer = answer.map(|reply| Some(Stack::try_from(reply.into_inner()).unwrap()));
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        if let Ok(Some(stack)) = &answer {
            let newest = stack.revisions.last().map(|revision| (revision.restores, &revision.services));
            if newest != Some((restores, &specs)) {
                let wrong = format!(
                    "{name} was asked to be {specs:?} (revision {restores} again, if any), and is said to be {newest:?}"
                );
                self.people.lock().wrong.get_or_insert(wrong);
            }
        }
        self.ends(name, answer)
    }

    fn stack_service(
        &mut self,
        stack: &str,
        part: &str,
        network: &Network,
        secret: &Secret,
        config: &Config,
    ) -> ServiceSpec {
        let mut spec = service_spec(&format!("{stack}_{part}"));
        spec.labels.insert(STACK_LABEL.to_owned(), stack.to_owned());
        let number = 1 + self.random.below(3) as u64;
        let is_job = part == "job";
        spec.mode = if is_job {
            Mode::ReplicatedJob { max_concurrent: number, total: 3 }
        } else {
            Mode::Replicated { replicas: number }
        };
        spec.update.monitor = Duration::from_millis(200);
        spec.update.on_failure = FailureAction::Continue;
        spec.rollback = spec.update.clone();
        if !is_job && self.random.once_in(3) {
            spec.endpoint.ports = vec![self.port()];
        }
        let task = Arc::make_mut(&mut spec.task);
        task.restart.delay = Duration::from_millis(100);
        task.networks = vec![NetworkAttachmentSpec::new(network.id, Vec::new())];
        let images = if is_job { ["work-300", "work-2000"] } else { ["web", "stubborn"] };
        task.container.image = images[self.random.below(2)].to_owned();
        task.container.stop_grace_period = Some(Duration::from_secs(4));
        task.container.secrets.push(file_of(secret.id, &secret.spec.name));
        task.container.configs.push(file_of(config.id, &config.spec.name));
        spec
    }

    async fn roll_stack_back(&mut self, control: &mut Control, name: &str) -> Result<(), Status> {
        let there = Self::there(control, name).await?;
        let Some([earlier @ .., newest]) = there.stack.as_ref().map(|stack| &*stack.revisions) else {
            return Ok(());
        };
        // Nobody has waited for any of them: none is known to have come up, or to have failed.
        let Some(last) = earlier.last() else { return Ok(()) };
        for spec in &last.services {
            let old = there.services.iter().find(|service| service.spec.name == spec.name);
            let version = old.map_or(0, |service| service.spec_version);
            self.asks.ask(Ask::Service { name: spec.name.clone(), version, spec: spec.clone() });
        }
        self.without(&there.services, &last.services);
        let request = RollbackStackRequest {
            name: name.to_owned(),
            revision: 0,
            author: String::new(),
            newest: newest.number,
        };
        self.begins(name);
        let answer = control.rollback_stack(request).await;
        self.is_to_be(name, answer, last.number, last.services.clone())
    }

    async fn remove_stack(&mut self, control: &mut Control, name: &str) -> Result<(), Status> {
        let Some(stack) = Self::there(control, name).await?.stack else { return Ok(()) };
        let request = RemoveRequest { kind: ObjectKind::Stack as i32, id: stack.id.to_wire(), force: false };
        self.asks.ask(Ask::Removal(ObjectRef::Stack(stack.id)));
        self.begins(name);
        let answer = control.remove(request).await;
        self.ends(name, answer.map(|_| None))?;
        self.find_nothing(name).await
    }

    pub(super) fn port(&mut self) -> PortConfig {
        PortConfig {
            name: String::new(),
            protocol: Protocol::Tcp,
            target: 80,
            published: 8000 + u16::try_from(self.random.below(PORTS.into())).unwrap(),
            mode: PublishMode::Ingress,
        }
    }
}
