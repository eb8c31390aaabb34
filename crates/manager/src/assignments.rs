//! What a node has been told and what it must be told next: pure bookkeeping of one session.

use model::{ConfigId, NodeId, SecretBytes, SecretId, ServiceId, Tables, Task, TaskId};
use prost::Message as _;
use proto::{
    WireId as _,
    dispatcher::{Assignments, RegistryAuth},
};
use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

/// What one message carries of secrets and configs, and one more: agents take no message of more than 256 MiB, and a
/// session whose first one is too large never begins. *Unit:* bytes.
const FILES_BYTES: usize = 16 << 20;

/// What a session has sent.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sequence: u64,
    tasks: BTreeMap<TaskId, Arc<Task>>,
    secrets: BTreeSet<SecretId>,
    configs: BTreeSet<ConfigId>,
    auths: BTreeMap<ServiceId, SecretBytes>,
}

impl Ledger {
    /// Returns the next messages, all there is for the first time and then differences; none if nothing changed.
    /// Changes of tasks that `hold` returns true for wait.
    ///
    /// Secrets and configs that are much come behind, in messages of their own: a task waits for those that it names.
    pub(crate) fn next(
        &mut self,
        tables: &Tables,
        node: NodeId,
        mut hold: impl FnMut(&Task) -> bool,
    ) -> Vec<Assignments> {
        let complete = self.sequence == 0;
        let mut message = Assignments { complete, ..Assignments::default() };
        let mut there = BTreeSet::new();
        let (mut secrets, mut configs) = (BTreeSet::new(), BTreeSet::new());
        let mut auths = BTreeMap::new();
        for task in tables.tasks_of_node(node) {
            there.insert(task.id);
            let told = self.tasks.get(&task.id);
            if needs_files(task) {
                secrets.extend(task.spec.container.secrets.iter().map(|s| s.id));
                configs.extend(task.spec.container.configs.iter().map(|c| c.id));
                let auth = tables.services.get(&task.service).and_then(|s| s.registry_auth.clone());
                auths.extend(auth.map(|auth| (task.service, auth)));
            }
            let news = told.is_none_or(|told| told.desired != task.desired);
            if news && !(told.is_some() && hold(task)) {
                message.tasks.push((&**task).into());
                self.tasks.insert(task.id, task.clone());
            }
        }
        for id in self.tasks.keys().filter(|id| !there.contains(id)) {
            message.removed_tasks.push(id.to_wire());
        }
        self.tasks.retain(|id, _| there.contains(id));

        for secret in secrets.difference(&self.secrets).filter_map(|id| tables.secrets.get(id)) {
            message.secrets.push((&**secret).into());
        }
        for config in configs.difference(&self.configs).filter_map(|id| tables.configs.get(id)) {
            message.configs.push((&**config).into());
        }
        message.removed_secrets = self.secrets.difference(&secrets).map(|id| id.to_wire()).collect();
        message.removed_configs = self.configs.difference(&configs).map(|id| id.to_wire()).collect();
        // One that is referred to before it is stored is sent when it is.
        self.secrets = secrets.into_iter().filter(|id| tables.secrets.contains(id)).collect();
        self.configs = configs.into_iter().filter(|id| tables.configs.contains(id)).collect();

        for (service, auth) in auths.iter().filter(|(id, auth)| self.auths.get(id) != Some(auth)) {
            message.auths.push(RegistryAuth { service: service.to_wire(), auth: auth.0.clone() });
        }
        let unneeded = self.auths.keys().filter(|id| !auths.contains_key(id));
        message.removed_auths = unneeded.map(|id| id.to_wire()).collect();
        self.auths = auths;

        let news = !(message.tasks.is_empty()
            && message.auths.is_empty()
            && message.removed_auths.is_empty()
            && message.removed_tasks.is_empty()
            && message.secrets.is_empty()
            && message.configs.is_empty()
            && message.removed_secrets.is_empty()
            && message.removed_configs.is_empty());
        if !complete && !news {
            return Vec::new();
        }
        let mut messages = in_parts(message);
        for message in &mut messages {
            self.sequence += 1;
            message.sequence = self.sequence;
        }
        messages
    }
}

/// Cuts a message so that no part has many secrets and configs. The first one has everything else.
fn in_parts(mut message: Assignments) -> Vec<Assignments> {
    let (secrets, configs) = (std::mem::take(&mut message.secrets), std::mem::take(&mut message.configs));
    let (mut parts, mut bytes) = (vec![message], 0);
    let mut place = |more: usize| {
        if bytes > 0 && bytes + more > FILES_BYTES {
            parts.push(Assignments::default());
            bytes = 0;
        }
        bytes += more;
        parts.len() - 1
    };
    let secrets: Vec<_> = secrets.into_iter().map(|secret| (place(secret.encoded_len()), secret)).collect();
    let configs: Vec<_> = configs.into_iter().map(|config| (place(config.encoded_len()), config)).collect();
    secrets.into_iter().for_each(|(at, secret)| parts[at].secrets.push(secret));
    configs.into_iter().for_each(|(at, config)| parts[at].configs.push(config));
    parts
}

/// An ended task's files are not needed any more.
fn needs_files(task: &Task) -> bool {
    task.may_hold_resources()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;
    use model::{Desired, TaskState};

    const NODE: NodeId = NodeId(1);

    /// The one message that there is.
    fn one(mut messages: Vec<Assignments>) -> Assignments {
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    fn ids(message: &Assignments) -> Vec<u128> {
        message.tasks.iter().map(|t| TaskId::from_wire(&t.id).unwrap().0).collect()
    }

    #[test]
    fn a_node_is_told_everything_once_and_then_only_what_changed() {
        let mut ledger = Ledger::default();
        let empty = state().node(1).service(1, &[], &[]);
        let first = one(ledger.next(&empty.clone().tables(), NODE, |_| false));
        assert!(first.complete && first.tasks.is_empty());

        let placed = empty.task(1, 1, 1, None).task(2, 1, 2, None);
        let second = one(ledger.next(&placed.clone().tables(), NODE, |_| false));
        assert_eq!((second.complete, second.sequence, ids(&second)), (false, 2, vec![1]));
        // What the node itself reported is no news to it.
        let running = placed.change_task(1, |t| t.status.state = Some(TaskState::Running));
        assert_eq!(ledger.next(&running.clone().tables(), NODE, |_| false), []);

        let stopped = running.change_task(1, |t| t.desired = Desired::Shutdown);
        assert_eq!(ledger.next(&stopped.clone().tables(), NODE, |_| true), [], "held back");
        assert_eq!(ids(&one(ledger.next(&stopped.clone().tables(), NODE, |_| false))), [1]);
        let gone = stopped.delete_task(1).tables();
        assert_eq!(one(ledger.next(&gone, NODE, |_| true)).removed_tasks, [TaskId(1).to_wire()]);
    }

    #[test]
    fn credentials_for_a_registry_go_only_to_nodes_with_a_living_task_of_the_service() {
        let mut ledger = Ledger::default();
        let base = state().node(1).node(2).service(1, &[], &[]).service(2, &[], &[]);
        let with = |id, text: &str| {
            let auth = SecretBytes(text.as_bytes().to_vec());
            move |s: crate::tests::state::State| {
                s.change_service(id, |s| s.registry_auth = Some(auth.clone()))
            }
        };
        let placed = with(2, "theirs")(with(1, "ours")(base)).task(1, 1, 1, None).task(2, 2, 2, None);
        let told = |message: &Assignments| {
            message.auths.iter().map(|a| String::from_utf8_lossy(&a.auth).into_owned()).collect::<Vec<_>>()
        };
        let first = one(ledger.next(&placed.clone().tables(), NODE, |_| false));
        assert_eq!(told(&first), ["ours"]);
        let changed = with(1, "newer")(placed);
        assert_eq!(told(&one(ledger.next(&changed.clone().tables(), NODE, |_| false))), ["newer"]);
        let ended = changed.change_task(1, |t| t.status.state = Some(TaskState::Failed)).tables();
        let next = one(ledger.next(&ended, NODE, |_| false));
        assert_eq!(next.removed_auths, [ServiceId(1).to_wire()]);
    }

    #[test]
    fn secrets_go_only_to_nodes_with_a_living_task_that_names_them() {
        let mut ledger = Ledger::default();
        let base = state().node(1).node(2).secret(1).secret(2).service(1, &[], &[]);
        let uses = base.task(1, 1, 1, None).use_secret(1, 1).task(2, 1, 2, None).use_secret(2, 2);
        let first = one(ledger.next(&uses.clone().tables(), NODE, |_| false));
        assert_eq!(first.secrets.len(), 1);
        assert_eq!(first.secrets[0].id, SecretId(1).to_wire());
        let ended = uses.change_task(1, |t| t.status.state = Some(TaskState::Failed)).tables();
        let next = one(ledger.next(&ended, NODE, |_| false));
        assert_eq!(next.removed_secrets, [SecretId(1).to_wire()]);
    }

    #[test]
    fn files_of_many_megabytes_come_in_messages_of_a_size_that_an_agent_takes() {
        let mut world = state().node(1).service(1, &[], &[]).task(1, 1, 1, None);
        for id in 1..=100 {
            world = world.secret(id).use_secret(1, id);
        }
        let mut tables = world.tables();
        for secret in tables.secrets.values().cloned().collect::<Vec<_>>() {
            let mut secret = (*secret).clone();
            secret.spec.data = SecretBytes(vec![7; 499_000]);
            tables.restore(model::Object::Secret(Arc::new(secret))).unwrap();
        }
        let mut ledger = Ledger::default();
        let messages = ledger.next(&tables, NODE, |_| false);
        assert_eq!(messages.iter().map(|m| m.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(messages.iter().all(|m| m.encoded_len() < FILES_BYTES + 1_000_000));
        assert!(
            messages[0].complete && messages[1..].iter().all(|m| !m.complete),
            "the first one names all tasks"
        );
        let count = |of: fn(&Assignments) -> usize| messages.iter().map(of).sum::<usize>();
        assert_eq!((count(|m| m.tasks.len()), count(|m| m.secrets.len())), (1, 100));
        assert_eq!(ledger.next(&tables, NODE, |_| false), [], "and all was told");
    }
}
