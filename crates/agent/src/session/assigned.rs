//! What the managers assign: each task has an actor that keeps it as it was last told.

use super::{
    Loop, Unacknowledged,
    link::{MISSED_PERIODS, Session, SessionEnd},
};
use crate::{
    TaskAssignment,
    backoff::Backoff,
    task::{Actor, Directive},
};
use model::{
    Config, ConfigId, Duration, Panicked, Secret, SecretBytes, SecretId, ServiceId, Task, TaskId, TaskState,
    caught,
};
use proto::{WireId as _, dispatcher::Assignments};
use std::{collections::BTreeSet, sync::Arc};
use tokio::{sync::watch, time::Instant};
use tracing::{error, warn};

/// Before a task whose actor panicked gets another one; doubles each time.
const ACTOR_PAUSE: Duration = Duration::from_millis(200);
const ACTOR_PAUSE_MAX: Duration = Duration::from_secs(60);

pub(super) struct Assigned {
    pub(super) directive: watch::Sender<Directive>,
    pub(super) task: Arc<Task>,
    /// How often its actor has panicked.
    pub(super) panics: u32,
}

impl Loop {
    pub(super) fn on_assignments(&mut self, session: &mut Session, a: Assignments) -> Result<(), SessionEnd> {
        if !a.complete && session.assignments.map(|s| s + 1) != Some(a.sequence) {
            return Err(SessionEnd::Gap { have: session.assignments, got: a.sequence });
        }
        // Managers give a node up when none of them has heard it for so long, and what was meant for it runs elsewhere.
        if Instant::now() >= session.answered_at + session.period * MISSED_PERIODS {
            return Err(SessionEnd::Late);
        }
        session.assignments = Some(a.sequence);
        if a.complete {
            self.secrets.clear();
            self.configs.clear();
            self.auths.clear();
        }
        for secret in a.secrets {
            let secret: Secret = secret.try_into()?;
            self.secrets.insert(secret.id, Arc::new(secret));
        }
        for config in a.configs {
            let config: Config = config.try_into()?;
            self.configs.insert(config.id, Arc::new(config));
        }
        for auth in a.auths {
            self.auths.insert(ServiceId::from_wire(&auth.service)?, SecretBytes(auth.auth));
        }
        let mut named = BTreeSet::new();
        for task in a.tasks {
            let task: Task = task.try_into()?;
            named.insert(task.id);
            self.assign(Arc::new(task));
        }
        let mut gone =
            a.removed_tasks.iter().map(|id| TaskId::from_wire(id)).collect::<Result<Vec<_>, _>>()?;
        if a.complete {
            // Tables come before tasks: a network without one is not ours any more.
            for network in self.networks.difference(&session.networks).copied().collect::<Vec<_>>() {
                self.drop_network(network, 0);
            }
            gone.extend(self.tasks.keys().filter(|id| !named.contains(id)));
            for (id, held) in std::mem::take(&mut self.held) {
                warn!(task.id = %id, container.id = held.container.container_id, "removing a container of no task");
                self.adopt_stray(id);
            }
        }
        // Tasks that were told before may have waited for what came now.
        let waiting: Vec<Arc<Task>> =
            self.tasks.values().filter(|a| !named.contains(&a.task.id)).map(|a| a.task.clone()).collect();
        for task in waiting {
            let assignment = self.resolve(task.clone());
            if let Some(assigned) = self.tasks.get(&task.id) {
                assigned.directive.send_if_modified(|d| {
                    let more = assignment.secrets.len() > d.assignment.secrets.len()
                        || assignment.configs.len() > d.assignment.configs.len()
                        || assignment.registry_auth.is_some()
                            && assignment.registry_auth != d.assignment.registry_auth;
                    if more {
                        d.assignment = assignment;
                    }
                    more
                });
            }
        }
        for id in gone {
            if let Some(assigned) = self.tasks.get(&id) {
                assigned.directive.send_modify(|d| d.removed = true);
            }
        }
        for id in a.removed_secrets {
            self.secrets.remove(&SecretId::from_wire(&id)?);
        }
        for id in a.removed_auths {
            self.auths.remove(&ServiceId::from_wire(&id)?);
        }
        for id in a.removed_configs {
            self.configs.remove(&ConfigId::from_wire(&id)?);
        }
        Ok(())
    }

    /// Takes an assignment over: a known task's actor is told, a new one gets an actor.
    pub(super) fn assign(&mut self, task: Arc<Task>) {
        let assignment = self.resolve(task.clone());
        if let Some(assigned) = self.tasks.get_mut(&task.id) {
            let status = assigned.task.status.clone();
            assigned.task = Arc::new(Task { status, ..(*task).clone() });
            let directive = Directive { assignment, removed: false };
            assigned.directive.send_if_modified(|current| {
                let changed = *current != directive;
                *current = directive;
                changed
            });
            self.ledger.put_task(&assigned.task);
            return;
        }
        let held = self.held.remove(&task.id);
        let mut status = task.status.clone();
        if status.state == Some(TaskState::Running) && held.is_none() {
            // The host was restarted: a task is never started twice.
            status.state = Some(TaskState::Failed);
            status.error = Some("the container is gone: the host was restarted".to_owned());
            status.at = (self.options.clock)();
            self.unacknowledged.insert(task.id, Unacknowledged { status: status.clone(), sent: None });
        }
        self.spawn(Arc::new(Task { status, ..(*task).clone() }), assignment, false);
    }

    /// Gives a container that belongs to no task an actor that removes it.
    fn adopt_stray(&mut self, id: TaskId) {
        let executor = self.around.executor.clone();
        self.actors.spawn(async move {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
            while let Err(error) = executor.remove(id).await {
                warn!(task.id = %id, %error, "cannot remove a container of no task, will retry");
                tokio::time::sleep(backoff.delay()).await;
            }
            None
        });
    }

    fn spawn(&mut self, task: Arc<Task>, assignment: TaskAssignment, removed: bool) {
        let (directive, receiver) = watch::channel(Directive { assignment, removed });
        self.run_actor(&task, receiver, Duration::ZERO);
        self.ledger.put_task(&task);
        self.tasks.insert(task.id, Assigned { directive, task, panics: 0 });
    }

    fn run_actor(&mut self, task: &Task, directive: watch::Receiver<Directive>, after: Duration) {
        let id = task.id;
        let actor = Actor::new(self.around.clone(), id, task.status.clone(), directive);
        self.actors.spawn(async move {
            tokio::time::sleep(after).await;
            caught(actor.run()).await.err().map(|panicked| (id, panicked))
        });
    }

    /// Gives a task another actor, which goes on from what was last observed. Its fault is this task's alone.
    pub(super) fn restart_actor(&mut self, id: TaskId, panicked: &Panicked) {
        let Some(assigned) = self.tasks.get_mut(&id) else { return };
        let after = (ACTOR_PAUSE * 2_u32.saturating_pow(assigned.panics)).min(ACTOR_PAUSE_MAX);
        assigned.panics += 1;
        error!(task.id = %id, %panicked, ?after, times = assigned.panics, "a task's actor panicked, another one follows");
        let (task, directive) = (assigned.task.clone(), assigned.directive.subscribe());
        self.run_actor(&task, directive, after);
    }

    fn resolve(&self, task: Arc<Task>) -> TaskAssignment {
        let container = &task.spec.container;
        let secrets = container.secrets.iter().filter_map(|s| self.secrets.get_key_value(&s.id));
        let configs = container.configs.iter().filter_map(|c| self.configs.get_key_value(&c.id));
        TaskAssignment {
            secrets: secrets.map(|(id, s)| (*id, s.clone())).collect(),
            configs: configs.map(|(id, c)| (*id, c.clone())).collect(),
            registry_auth: self.auths.get(&task.service).cloned(),
            task,
        }
    }
}
