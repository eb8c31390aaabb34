//! What was acknowledged is seen by everybody from then on, whichever manager is asked and whatever fails.

use super::{
    links::{Links, Wire},
    swarm::{Control, LIMIT, Swarm, until},
};
use model::{Config, ConfigId, ConfigSpec, Duration, Labels};
use proto::{
    WireId as _,
    control::{CreateRequest, GetRequest, RemoveRequest, UpdateRequest, create_request, update_request},
    types::{self, ObjectKind},
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};
use testkit::history::{Asked, Operation, Told, linearize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const LABEL: &str = "value";
/// A client waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
const CLIENTS: usize = 6;

/// Returns what a register is that holds this value.
pub(super) fn register(value: u64) -> ConfigSpec {
    let labels = Labels::from([(LABEL.to_owned(), value.to_string())]);
    ConfigSpec { templated: false, name: "register".into(), labels, data: b"x".to_vec() }
}

/// What all clients did.
#[derive(Debug)]
struct History {
    start: Instant,
    operations: Mutex<Vec<Operation>>,
    answered: AtomicUsize,
}

impl History {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    fn record(&self, operation: Operation) {
        if operation.told != Told::Unknown {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// Waits until clients got this many answers more.
    async fn answers(&self, more: usize, when: &str) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        until(&format!("the clients get answers, {when}"), || self.answered.load(Ordering::Relaxed) >= goal)
            .await;
    }
}

pub(super) async fn read(control: &mut Control, id: ConfigId) -> Told {
    let request = GetRequest { kind: ObjectKind::Config as i32, id_or_name: id.to_string() };
    match tokio::time::timeout(PATIENCE, control.get(request)).await {
        Ok(Ok(reply)) => {
            let config = match reply.into_inner().kind {
                Some(types::object::Kind::Config(config)) => Config::try_from(config).unwrap(),
                other => panic!("not what was asked for: {other:?}"),
            };
            Told::Holds { version: config.meta.version, value: config.spec.labels[LABEL].parse().unwrap() }
        }
        Ok(Err(_)) | Err(_) => Told::Unknown,
    }
}

pub(super) async fn replace(control: &mut Control, id: ConfigId, version: u64, value: u64) -> Told {
    let spec = Some(update_request::Spec::Config((&register(value)).into()));
    let request = UpdateRequest { id: id.to_wire(), version, spec, registry_auth: None };
    match tokio::time::timeout(PATIENCE, control.update(request)).await {
        Ok(Ok(reply)) => Told::Replaced { version: reply.into_inner().version },
        Ok(Err(status)) if status.message() == "update out of sequence" => Told::Refused,
        Ok(Err(_)) | Err(_) => Told::Unknown,
    }
}

/// Reads and replaces in turns, each time the version that it saw last.
async fn work(
    client: usize,
    dial: impl Fn() -> Control,
    id: ConfigId,
    history: Arc<History>,
    stop: CancellationToken,
) {
    let (mut control, mut known) = (dial(), 0);
    for number in 0_u64.. {
        if stop.is_cancelled() {
            return;
        }
        let value = (client as u64 + 1) * 1_000_000 + number;
        let reads = known == 0 || (number + client as u64).is_multiple_of(2);
        let began = history.now();
        let (asked, told) = if reads {
            (Asked::Read, read(&mut control, id).await)
        } else {
            let asked = Asked::Replace { version: known, value };
            (asked, replace(&mut control, id, known, value).await)
        };
        let ended = history.now();
        match told {
            Told::Holds { version, .. } | Told::Replaced { version } => known = version,
            Told::Refused => known = 0,
            // Who answers may be what is left of a manager that was killed; one that is off refuses at once.
            Told::Unknown => {
                control = dial();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        history.record(Operation { client, began, ended, asked, told });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_explains_what_all_clients_of_all_managers_saw() {
    let links = Links::new();
    let mut swarm = Swarm::on(links.clone()).await;
    swarm.join_manager().await;
    swarm.join_manager().await;
    let id = ConfigId(swarm.create(create_request::Spec::Config((&register(0)).into())).await.unwrap());
    let first = swarm.view().configs.get(&id).unwrap().meta.version;

    let history = Arc::new(History {
        start: Instant::now(),
        operations: Mutex::default(),
        answered: AtomicUsize::new(0),
    });
    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let dial = swarm.dial(&swarm.managers[client % 3]);
        clients.spawn(work(client, dial, id, history.clone(), stop.clone()));
    }
    history.answers(30, "nothing fails").await;
    let addrs = swarm.addrs();
    for round in 0..4 {
        let leader = swarm.managers.iter().position(|m| m.store.leader_now().me).unwrap_or(round % 3);
        let [one, other] = [1, 2].map(|n| addrs[(leader + n) % 3]);
        match round % 4 {
            0 => {
                swarm.managers[leader].kill().await;
                // Connections end with a process; here there is but one.
                let set = |wire| [one, other].into_iter().for_each(|to| links.set(addrs[leader], to, wire));
                set(Wire::Cut);
                history.answers(30, "the leader is off").await;
                swarm.managers[leader].restart().await;
                set(Wire::Whole);
            }
            // The leader hears nobody, and may believe that it leads for a while.
            1 => {
                for follower in [one, other] {
                    links.set(addrs[leader], follower, Wire::Silent);
                }
                history.answers(40, "the leader is silent").await;
            }
            2 => links.set(addrs[leader], one, Wire::Cut),
            _ => {
                links.set(addrs[leader], one, Wire::OneWay);
                links.set(one, other, Wire::Cut);
            }
        }
        history.answers(30, &format!("round {round}, leader {leader}")).await;
        for (n, m) in [(0, 1), (0, 2), (1, 2)] {
            links.set(addrs[n], addrs[m], Wire::Whole);
        }
        history.answers(20, &format!("after round {round}, leader {leader}")).await;
    }
    stop.cancel();
    tokio::time::timeout(LIMIT, async { while clients.join_next().await.is_some() {} }).await.unwrap();

    let operations = history.operations.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let count = |of: fn(&Told) -> bool| operations.iter().filter(|o| of(&o.told)).count();
    let (replaced, read) =
        (count(|t| matches!(t, Told::Replaced { .. })), count(|t| matches!(t, Told::Holds { .. })));
    assert!(replaced > 15 && read > 50, "{replaced} replaced, {read} read");
    if let Err(unexplained) = linearize((first, 0), &operations) {
        panic!("{unexplained}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_replaced_unseen_refuses_nothing_by_what_it_knew() {
    let links = Links::new();
    let mut swarm = Swarm::on(links.clone()).await;
    swarm.join_manager().await;
    swarm.join_manager().await;
    let id = swarm.create(create_request::Spec::Config((&register(0)).into())).await.map(ConfigId).unwrap();
    let old = swarm.managers.iter().position(|m| m.store.leader_now().me).unwrap();
    let [one, other] = [1, 2].map(|n| (old + n) % 3);
    for follower in [one, other] {
        links.set(swarm.managers[old].addr, swarm.managers[follower].addr, Wire::Silent);
    }
    // The others elect one of them, who removes what the old leader still has.
    let ask = |at: usize| swarm.control_at(&swarm.managers[at]);
    let gone = |at: usize| !swarm.managers[at].store.view().configs.contains(&id);
    let remove =
        RemoveRequest { kind: ObjectKind::Config as i32, id: id.0.to_be_bytes().to_vec(), force: false };
    until("the others remove it", || {
        let leads = [one, other].into_iter().find(|at| swarm.managers[*at].store.leader_now().me);
        let removed = leads.map(|at| {
            let (mut control, remove) = (ask(at), remove.clone());
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(control.remove(remove)))
        });
        removed.is_some_and(|removed| removed.is_ok()) || gone(one) || gone(other)
    })
    .await;
    assert!(!gone(old), "nothing reaches it");
    // A name that is taken as far as it knows; and one that is not there, as it would be told of.
    let limit = Duration::from_secs(15);
    let again = Some(create_request::Spec::Config((&register(0)).into()));
    let again = CreateRequest { spec: again, registry_auth: None };
    let created = tokio::time::timeout(limit, ask(old).create(again)).await;
    let read = GetRequest { kind: ObjectKind::Config as i32, id_or_name: "nowhere".into() };
    let read = tokio::time::timeout(limit, ask(old).get(read)).await;
    for told in [created.map(|told| told.map(drop)), read.map(|told| told.map(drop))].into_iter().flatten() {
        let refused = told.unwrap_err();
        assert!(
            matches!(refused.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded),
            "{refused}"
        );
    }
}
