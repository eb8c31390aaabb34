//! Stacks: each has one person who deploys it, rolls it back and removes it. What he was told is what is so, and nobody but
//! him may have changed it meanwhile.

use super::people::{PORTS, Person, file_of};
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
use tonic::{Code, Status};

/// A request that nobody answered may still be on its way for so long.
const LOST: Duration = Duration::from_secs(20);

/// What the owner of a stack knows of it.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownStack {
    /// What he was told last, if that is how it must be: the stack, or that there is none.
    told: Option<Option<Stack>>,
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
    }

    /// Takes note of an answer; an error says what is wrong with it.
    fn ends(&mut self, name: &str, answer: &Result<Option<Stack>, Status>) -> Result<(), String> {
        let is_sure = self.lost.is_none_or(|at| at.elapsed() > LOST);
        match answer {
            Ok(stack) => {
                self.under_way = false;
                self.told = is_sure.then(|| stack.clone());
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

    /// Tells whether a stack is as its owner was told.
    pub(super) fn holds(&self, name: &str, view: &Tables) -> Result<(), String> {
        let is = view.stacks.values().find(|stack| stack.name == *name && !stack.pending_delete);
        match &self.told {
            None => Ok(()),
            Some(Some(told)) => match is {
                Some(is) if is.revisions.last() == told.revisions.last() => Ok(()),
                _ => Err(format!("{name} was said to be {told:?}, and is {is:?}")),
            },
            Some(None) => {
                let label = |labels: &Labels| labels.get(STACK_LABEL).is_some_and(|of| of == name);
                let left = is.is_some()
                    || view.services.values().any(|o| label(&o.spec.labels))
                    || view.networks.values().any(|o| label(&o.spec.labels))
                    || view.secrets.values().any(|o| label(&o.spec.labels))
                    || view.configs.values().any(|o| label(&o.spec.labels));
                if left { Err(format!("{name} was removed, and something of it is there")) } else { Ok(()) }
            }
        }
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

    async fn list(control: &mut Control, kind: ObjectKind) -> Result<Vec<Object>, Status> {
        let mut chunks = control.list(ListRequest { kind: kind as i32 }).await?.into_inner();
        let mut all = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            all.extend(chunk.objects.into_iter().map(|object| Object::try_from(object).unwrap()));
        }
        Ok(all)
    }

    async fn there(control: &mut Control, name: &str) -> Result<There, Status> {
        let mut there = There::default();
        let is_of = |labels: &Labels| labels.get(STACK_LABEL).is_some_and(|of| of == name);
        for kind in [ObjectKind::Stack, ObjectKind::Service, ObjectKind::Network] {
            for object in Self::list(control, kind).await? {
                match object {
                    Object::Stack(stack) if stack.name == name && !stack.pending_delete => {
                        there.stack = Some((*stack).clone());
                    }
                    Object::Service(service) if is_of(&service.spec.labels) && !service.pending_delete => {
                        there.services.push((*service).clone());
                    }
                    Object::Network(network) if is_of(&network.spec.labels) && !network.pending_delete => {
                        there.network = Some((*network).clone());
                    }
                    _ => {}
                }
            }
        }
        Ok(there)
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
        let mut services = Vec::new();
        for (bit, part) in [(1, "web"), (2, "job")] {
            if which & bit == 0 {
                continue;
            }
            let spec = self.stack_service(name, part, &network, &secret, &config);
            let old = there.services.iter().find(|service| service.spec.name == spec.name);
            services.push(PlannedService {
                spec: Some((&spec).into()),
                version: old.map_or(0, |service| service.spec_version),
                registry_auth: None,
            });
        }
        let is_named = |service: &&Service| {
            services.iter().any(|s| s.spec.as_ref().is_some_and(|spec| spec.name == service.spec.name))
        };
        let removed = there
            .services
            .iter()
            .filter(|service| !is_named(service))
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
        self.ends(name, answer.map(|reply| Some(Stack::try_from(reply.into_inner()).unwrap())))
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
        let Some(stack) = Self::there(control, name).await?.stack else { return Ok(()) };
        let Some(newest) = stack.revisions.last().filter(|revision| revision.number > 1) else {
            return Ok(());
        };
        let request = RollbackStackRequest {
            name: name.to_owned(),
            revision: 0,
            author: String::new(),
            newest: newest.number,
        };
        self.begins(name);
        let answer = control.rollback_stack(request).await;
        self.ends(name, answer.map(|reply| Some(Stack::try_from(reply.into_inner()).unwrap())))
    }

    async fn remove_stack(&mut self, control: &mut Control, name: &str) -> Result<(), Status> {
        let Some(stack) = Self::there(control, name).await?.stack else { return Ok(()) };
        let request = RemoveRequest { kind: ObjectKind::Stack as i32, id: stack.id.to_wire(), force: false };
        self.begins(name);
        let answer = control.remove(request).await;
        self.ends(name, answer.map(|_| None))
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
