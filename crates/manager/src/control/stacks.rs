//! Stacks: what was deployed, when and by whom; and what goes with a stack when it is removed.
//! Membership is Docker's label, so stacks deployed by `docker stack deploy` are stacks too.

use super::validate;
use model::{
    Change, Labels, Meta, Network, Object, ObjectRef, Service, Stack, StackId, StackRevision, Tables,
    Timestamp,
};
use proto::control::RecordStackRequest;
use std::sync::Arc;
use tonic::Status;

/// Source: docker CLI `cli/compose/convert`.
const LABEL: &str = "com.docker.stack.namespace";
const REVISIONS_MAX: usize = 10;

/// Returns the stored stack that an object with these labels belongs to.
pub(super) fn owner(view: &Tables, labels: &Labels) -> Option<StackId> {
    view.stack_named(labels.get(LABEL)?).map(|stack| stack.id)
}

/// Records a deployment: a new revision, and the stack's services as its own.
pub(super) fn record(
    view: &Tables,
    now: Timestamp,
    request: RecordStackRequest,
) -> Result<(StackId, Vec<Change>), Status> {
    if request.name.is_empty() {
        return Err(Status::invalid_argument("a stack needs a name"));
    }
    let mut stack = match view.stack_named(&request.name) {
        Some(known) => Stack::clone(known),
        None => Stack {
            id: StackId(crate::shared::random_id()?),
            meta: Meta::default(),
            name: request.name,
            revisions: Vec::new(),
            pending_delete: false,
        },
    };
    stack.pending_delete = false;
    let number = stack.revisions.last().map_or(1, |r| r.number + 1);
    stack.revisions.push(StackRevision { number, at: now, author: request.author, source: request.source });
    let surplus = stack.revisions.len().saturating_sub(REVISIONS_MAX);
    stack.revisions.drain(..surplus);
    let adopted = members(&stack, view.services.values(), |s| &s.spec.labels)
        .filter(|s| s.stack != Some(stack.id) && !s.pending_delete)
        .map(|s| Change::Put(Object::Service(Arc::new(Service { stack: Some(stack.id), ..(**s).clone() }))));
    let mut changes: Vec<Change> = adopted.collect();
    let id = stack.id;
    changes.push(Change::Put(Object::Stack(Arc::new(stack))));
    Ok((id, changes))
}

/// Returns what removing a stack changes: its services and networks go, and the secrets and configs that no other
/// service uses.
pub(super) fn removal(view: &Tables, stack: &Arc<Stack>) -> Vec<Change> {
    let mut after = view.clone();
    let mut changes = Vec::new();
    let services = members(stack, view.services.values(), |s| &s.spec.labels);
    changes.extend(
        services.filter(|s| !s.pending_delete).map(|s| {
            Change::Put(Object::Service(Arc::new(Service { pending_delete: true, ..(**s).clone() })))
        }),
    );
    let batch = model::Batch { at: stack.meta.updated_at, changes: changes.clone() };
    // What is still in use is asked of the state in which the services are gone.
    if after.apply(view.index + 1, &batch).is_err() {
        after = view.clone();
    }
    let networks = members(stack, view.networks.values(), |n| &n.spec.labels);
    changes.extend(
        networks.filter(|n| !n.pending_delete && !used_by_others(&after, n)).map(|n| {
            Change::Put(Object::Network(Arc::new(Network { pending_delete: true, ..(**n).clone() })))
        }),
    );
    let secrets = members(stack, view.secrets.values(), |s| &s.spec.labels);
    changes.extend(
        secrets
            .filter(|s| validate::secret_unused(&after, s).is_ok())
            .map(|s| Change::Delete { key: ObjectRef::Secret(s.id), version: s.meta.version }),
    );
    let configs = members(stack, view.configs.values(), |c| &c.spec.labels);
    changes.extend(
        configs
            .filter(|c| validate::config_unused(&after, c).is_ok())
            .map(|c| Change::Delete { key: ObjectRef::Config(c.id), version: c.meta.version }),
    );
    changes.push(Change::Put(Object::Stack(Arc::new(Stack { pending_delete: true, ..(**stack).clone() }))));
    changes
}

/// A network that services outside the stack use stays, as with Docker.
fn used_by_others(after: &Tables, network: &Network) -> bool {
    let mut living = after.services.values().filter(|s| !s.pending_delete);
    living.any(|s| s.spec.task.networks.iter().any(|n| n.network == network.id))
}

fn members<'a, T: 'a>(
    stack: &'a Stack,
    objects: impl Iterator<Item = &'a Arc<T>> + 'a,
    labels: impl Fn(&T) -> &Labels + 'a,
) -> impl Iterator<Item = &'a Arc<T>> + 'a {
    objects.filter(move |o| labels(o).get(LABEL) == Some(&stack.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::state::state;
    use model::ServiceId;

    fn request() -> RecordStackRequest {
        RecordStackRequest { name: "shop".into(), author: "me".into(), source: "services: {}".into() }
    }

    fn labelled() -> Tables {
        state()
            .network(1)
            .service(1, &[1], &[])
            .change_service(1, |s| {
                Arc::make_mut(&mut s.spec).labels.insert(LABEL.into(), "shop".into());
            })
            .change_network(1, |n| {
                n.spec.labels.insert(LABEL.into(), "shop".into());
            })
            .tables()
    }

    #[test]
    fn a_stack_keeps_its_last_ten_revisions_and_owns_its_services() {
        let mut tables = labelled();
        for _ in 0..12 {
            let (_, changes) = record(&tables, Timestamp(5), request()).unwrap();
            tables.apply(tables.index + 1, &model::Batch { at: Timestamp(5), changes }).unwrap();
        }
        let stack = tables.stack_named("shop").unwrap();
        let numbers: Vec<u64> = stack.revisions.iter().map(|r| r.number).collect();
        assert_eq!(numbers, (3..=12).collect::<Vec<_>>());
        assert_eq!(tables.services.get(&ServiceId(1)).unwrap().stack, Some(stack.id));
    }

    #[test]
    fn removing_a_stack_removes_what_it_made() {
        let mut tables = labelled();
        let (id, changes) = record(&tables, Timestamp(5), request()).unwrap();
        tables.apply(tables.index + 1, &model::Batch { at: Timestamp(5), changes }).unwrap();
        let changes = removal(&tables, tables.stacks.get(&id).unwrap());
        tables.apply(tables.index + 1, &model::Batch { at: Timestamp(6), changes }).unwrap();
        assert!(tables.services.values().all(|s| s.pending_delete));
        assert!(tables.networks.values().all(|n| n.pending_delete));
        assert!(tables.stacks.values().all(|s| s.pending_delete));
    }
}
