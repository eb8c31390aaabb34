//! What no write may break, whoever decides it.

use model::*;
use std::{net::IpAddr, sync::Arc};

fn secret(id: u128, name: &str, version: u64) -> Object {
    Object::Secret(Arc::new(Secret {
        id: SecretId(id),
        meta: Meta { version, ..Meta::default() },
        spec: SecretSpec {
            templated: false,
            name: name.into(),
            labels: Labels::new(),
            data: SecretBytes(b"x".to_vec()),
        },
    }))
}

fn task(id: u128, address: &str) -> Object {
    Object::Task(Arc::new(Task {
        id: TaskId(id),
        meta: Meta::default(),
        service: ServiceId(1),
        service_name: "web".into(),
        service_labels: model::Labels::new(),
        slot: Slot::Replica(1),
        spec: Arc::default(),
        spec_version: 1,
        job_iteration: 0,
        log_driver: None,
        host_ports: Vec::new(),
        generic: model::GenericResources::new(),
        placement: Placement::On(NodeId(7)),
        desired: Desired::Running,
        attachments: vec![Attachment {
            network: NetworkId(1),
            address: address.parse().expect("an address"),
            aliases: Vec::new(),
        }],
        gateway_address: None,
        status: TaskStatus::default(),
        desired_at: Timestamp(0),
        node_network: None,
        attaches: None,
    }))
}

fn put(objects: impl IntoIterator<Item = Object>) -> Batch {
    Batch { at: Timestamp(5), changes: objects.into_iter().map(Change::Put).collect() }
}

#[test]
fn a_change_made_from_an_old_version_is_refused_whole() {
    let mut tables = Tables::default();
    tables.apply(1, &put([secret(1, "a", 0)])).expect("new object");
    tables.apply(2, &put([secret(1, "a", 1)])).expect("made from version 1");
    let before = tables.clone();
    let error = tables.apply(3, &put([secret(2, "b", 0), secret(1, "a", 1)])).expect_err("version 1 is old");
    assert_eq!(error, Conflict::OutOfSequence { key: ObjectRef::Secret(SecretId(1)), named: 1, stored: 2 });
    assert_eq!(tables, before);
    assert_eq!(tables.index, 2);
}

#[test]
fn one_address_has_one_owner_until_it_is_given_up() {
    let mut tables = Tables::default();
    let address: IpAddr = "10.0.0.5".parse().expect("an address");
    tables.apply(1, &put([task(1, "10.0.0.5/24")])).expect("free");
    assert!(matches!(tables.apply(2, &put([task(2, "10.0.0.5/24")])), Err(Conflict::AddressTaken { .. })));
    assert_eq!(tables.owner_of_address(NetworkId(1), address), Some(ObjectRef::Task(TaskId(1))));

    // One batch may take from one and give to the other, in whatever order it says so.
    let mut hand_over = put([task(2, "10.0.0.5/24")]);
    hand_over.changes.push(Change::Delete { key: ObjectRef::Task(TaskId(1)), version: 1 });
    tables.apply(2, &hand_over).expect("freed in the same batch");
    assert_eq!(tables.owner_of_address(NetworkId(1), address), Some(ObjectRef::Task(TaskId(2))));
    assert_eq!(tables.tasks_of_node(NodeId(7)).count(), 1);
    assert_eq!(tables.tasks_of_service(ServiceId(1)).count(), 1);
}

#[test]
fn one_name_has_one_owner_within_its_kind() {
    let mut tables = Tables::default();
    tables.apply(1, &put([secret(1, "a", 0)])).expect("free");
    assert!(matches!(tables.apply(2, &put([secret(2, "a", 0)])), Err(Conflict::NameTaken { .. })));
    tables.apply(2, &put([secret(1, "b", 1), secret(2, "a", 0)])).expect("renamed in the same batch");
}

#[test]
fn restoring_every_object_gives_the_same_state_with_its_indexes() {
    let mut tables = Tables::default();
    tables.apply(1, &put([secret(1, "a", 0), task(1, "10.0.0.5/24")])).expect("free");
    let mut restored = Tables::default();
    restored.index = tables.index;
    for object in tables.objects() {
        restored.restore(object).expect("a consistent snapshot");
    }
    assert_eq!(restored, tables);
    assert_eq!(restored.tasks_of_node(NodeId(7)).count(), 1);
    assert!(restored.apply(2, &put([secret(2, "a", 0)])).is_err(), "names are indexed again");
}

#[test]
fn the_next_address_is_looked_for_behind_the_one_handed_out_last() {
    let mut tables = Tables::default();
    tables.apply(1, &put([task(1, "10.0.0.5/24")])).expect("free");
    tables.apply(2, &put([task(2, "10.0.0.6/24")])).expect("free");
    // A report about the first task puts it again with the address it has.
    let Some(Object::Task(first)) = tables.get(ObjectRef::Task(TaskId(1))) else {
        panic!("task 1 is stored")
    };
    tables.apply(3, &put([Object::Task(first)])).expect("at its version");
    assert_eq!(tables.last_address(NetworkId(1)), Some("10.0.0.6".parse().expect("an address")));
}

#[test]
fn a_users_name_is_his_alone() {
    let user = |id, version| {
        Object::User(Arc::new(User {
            id: UserId(id),
            meta: Meta { version, ..Meta::default() },
            name: "ann".into(),
            role: PersonRole::Read,
            password: None,
            tokens: Vec::new(),
            certificates: Vec::new(),
        }))
    };
    let mut tables = Tables::default();
    tables.apply(1, &put([user(1, 0)])).expect("new");
    assert_eq!(tables.user_named("ann").map(|u| u.id), Some(UserId(1)));
    assert!(matches!(tables.apply(2, &put([user(2, 0)])), Err(Conflict::NameTaken { kind: "user", .. })));
    let gone = Change::Delete { key: ObjectRef::User(UserId(1)), version: 1 };
    tables.apply(3, &Batch { at: Timestamp(6), changes: vec![gone] }).expect("there");
    assert_eq!(tables.user_named("ann"), None);
}

#[test]
fn the_audit_history_forgets_its_oldest_records() {
    let record = |at| {
        Object::Audit(Arc::new(AuditRecord {
            id: AuditId::new(Timestamp(at), 7),
            meta: Meta::default(),
            person: "ann".into(),
            from: String::new(),
            via: None,
            action: "create".into(),
            object: "service web".into(),
            before: 0,
            message: String::new(),
        }))
    };
    let mut tables = Tables::default();
    let max = i64::try_from(AUDIT_MAX).expect("small");
    tables.apply(1, &put((1..=max).map(record))).expect("new records");
    assert_eq!(tables.audit.len(), AUDIT_MAX);
    let events = tables.apply(2, &put([record(max + 1)])).expect("a new record");
    assert_eq!(events.len(), 2, "one came, one went");
    let kept: Vec<_> = tables.audit.values().map(|r| r.id).collect();
    assert_eq!(kept.len(), AUDIT_MAX);
    assert_eq!(kept.first(), Some(&AuditId::new(Timestamp(2), 7)));
}

#[test]
fn batches_of_one_entry_apply_each_whole_or_not_at_all() {
    let tasks = |ids: &[u128], address: &str| put(ids.iter().map(|id| task(*id, address)));
    let batches = [
        put([secret(1, "a", 0)]),
        tasks(&[1], "10.0.0.5/24"),
        // Each of these fails half-way, behind a change that could be made.
        put([task(2, "10.0.0.6/24"), secret(2, "a", 0)]),
        put([secret(3, "c", 0), task(3, "10.0.0.5/24")]),
        put([secret(1, "a", 9)]),
        put([secret(2, "b", 0)]),
        put([secret(1, "renamed", 7), secret(4, "a", 0)]),
        tasks(&[4, 5], "10.0.0.9/24"),
    ];
    let (mut together, mut apart) = (Tables::default(), Tables::default());
    let outcomes = together.apply_all(7, &batches);
    let expected: Vec<_> = batches.iter().map(|batch| apart.apply(7, batch)).collect();
    assert_eq!(outcomes, expected);
    assert_eq!(
        outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, true, false, false, false, true, true, false]
    );
    assert_eq!(together, apart);
    let names = |tables: &Tables| tables.secrets.values().map(|s| s.spec.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&together), ["renamed", "b", "a"]);
    for tables in [&together, &apart] {
        assert_eq!(
            tables.last_address(NetworkId(1)),
            Some("10.0.0.5".parse().unwrap()),
            "no other was handed out"
        );
        assert_eq!(tables.owner_of_address(NetworkId(1), "10.0.0.6".parse().unwrap()), None);
        assert_eq!(tables.tasks_of_node(NodeId(7)).map(|task| task.id).collect::<Vec<_>>(), [TaskId(1)]);
    }
}

#[test]
fn a_task_that_moves_or_gives_an_address_up_frees_what_it_had() {
    let mut tables = Tables::default();
    tables.apply(1, &put([task(1, "10.0.0.5/24")])).expect("free");
    let Object::Task(old) = tables.get(ObjectRef::Task(TaskId(1))).expect("it was put") else {
        unreachable!()
    };
    let mut new = (*old).clone();
    new.placement = Placement::On(NodeId(8));
    new.service = ServiceId(2);
    new.attachments[0].address = "10.0.0.6/24".parse().expect("an address");
    tables.apply(2, &put([Object::Task(Arc::new(new))])).expect("made from its version");
    let ids = |tasks: Vec<&Arc<Task>>| tasks.into_iter().map(|task| task.id.0).collect::<Vec<_>>();
    assert_eq!(ids(tables.tasks_of_node(NodeId(7)).collect()), [0_u128; 0]);
    assert_eq!(ids(tables.tasks_of_node(NodeId(8)).collect()), [1]);
    assert_eq!(ids(tables.tasks_of_service(ServiceId(1)).collect()), [0_u128; 0]);
    assert_eq!(ids(tables.tasks_of_service(ServiceId(2)).collect()), [1]);
    tables.apply(3, &put([task(2, "10.0.0.5/24")])).expect("it was given up");
}
