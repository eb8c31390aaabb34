//! What comes and goes leaves nothing in memory, however often: `cargo xtask soak` asks for many rounds and draws what
//! this prints.

use super::{
    state::service_spec,
    swarm::{LIMIT, Swarm, until},
};
use model::*;
use proto::types::ObjectKind;
use std::{sync::Arc, time::Instant};
use tonic::{Code, Status};

/// What fills up at first (changes for slow readers, entries for late members) is full after so many rounds.
const FULL_AFTER: u32 = 200;
/// Entries between two snapshots. What there is of the log until the next one is no growth, so that memory is a saw, with
/// a tooth of some 95 rounds.
const SNAPSHOT_INTERVAL: u64 = 2_000;
/// Rounds, more than a tooth has, whose least figure counts.
const WINDOW: u32 = 100;

/// What the process has at the end of a round. *Unit:* bytes.
#[derive(Debug, Clone, Copy)]
struct Figures {
    resident: u64,
    allocated: u64,
}

fn figures() -> Figures {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kilobytes = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Figures {
        resident: kilobytes.unwrap().parse::<u64>().unwrap() << 10,
        allocated: sys::memory::allocated() as u64,
    }
}

/// Asks until the answer is yes: on a busy machine there is an election now and then.
async fn patiently<T, F: Future<Output = Result<T, Status>>>(what: &str, ask: impl Fn() -> F) -> T {
    let limit = Instant::now() + LIMIT * 2;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(refused) => assert!(Instant::now() < limit, "{what}: {refused}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A service comes, grows, is updated and goes.
async fn round(swarm: &Swarm, number: u32) {
    let mut spec = service_spec(&format!("web{number}"));
    spec.mode = Mode::Replicated { replicas: 3 };
    spec.update.monitor = Duration::from_millis(10);
    spec.update.parallelism = 0;
    let made = || swarm.view().services.values().find(|s| s.spec.name == spec.name).map(|s| s.id);
    let id = patiently("a service is made", || async {
        match swarm.create_service(&spec).await {
            // It may have been done, although nobody could say so.
            Err(refused) => made().ok_or(refused),
            made => made,
        }
    })
    .await;
    let update = async |what: &str, change: &dyn Fn(&mut ServiceSpec)| {
        patiently(what, || swarm.update_service(id, change)).await;
    };
    swarm.until_running(id, 3).await;
    update("it grows", &|s| s.mode = Mode::Replicated { replicas: 5 }).await;
    swarm.until_running(id, 5).await;
    update("it is updated", &|s| {
        Arc::make_mut(&mut s.task).container.env = vec![format!("ROUND={number}")];
    })
    .await;
    until("each task is a new one", || {
        let view = swarm.view();
        let is_new = |task: &&Arc<Task>| {
            task.status.state == Some(TaskState::Running) && !task.spec.container.env.is_empty()
        };
        view.tasks_of_service(id).filter(is_new).count() == 5
    })
    .await;
    patiently("it is removed", || async {
        match swarm.remove(ObjectKind::Service, id.0).await {
            Err(refused) if refused.code() == Code::NotFound => Ok(()),
            outcome => outcome,
        }
    })
    .await;
    until("nothing is left", || {
        let view = swarm.view();
        view.services.is_empty()
            && view.tasks.is_empty()
            && swarm.nodes.iter().all(|n| n.host.state().containers.is_empty())
    })
    .await;
    for node in &swarm.nodes {
        node.host.state().steps.clear(); // its diary is the test's
    }
}

/// Has as many requests on record as are kept: it would take 2,500 rounds until one more replaces the oldest.
async fn fill_audit(swarm: &Swarm) {
    let record = |number: usize| {
        let at = Timestamp(i64::try_from(number).expect("small"));
        Change::Put(Object::Audit(Arc::new(AuditRecord {
            id: AuditId::new(at, 0),
            meta: Meta::default(),
            person: "root".into(),
            from: "unix uid 0 on host".into(),
            via: swarm.leader().node.into(),
            action: "update".into(),
            object: format!("service web{number}"),
            before: 7,
            message: String::new(),
        })))
    };
    let numbers: Vec<usize> = (1..=AUDIT_MAX).collect();
    for some in numbers.chunks(500) {
        patiently("requests are put on record", || async {
            let batch = Batch { at: Timestamp(1), changes: some.iter().copied().map(record).collect() };
            swarm.leader().store.propose(batch).await.map_err(|why| Status::internal(why.to_string()))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "oracle: minutes of time"]
async fn memory_after_many_rounds_is_what_it_was_after_the_first_ones() {
    sys::memory::share_arenas().unwrap();
    let rounds = std::env::var("SOAK_ROUNDS").map_or(FULL_AFTER + 2 * WINDOW, |n| n.parse().unwrap());
    let mut swarm = Swarm::new().await;
    for _ in 0..2 {
        swarm.join_manager().await;
        swarm.join_worker().await;
    }
    until("the workers are ready", || {
        swarm.view().nodes.values().filter(|n| n.status.state == NodeState::Ready).count() >= 2
    })
    .await;
    for manager in &swarm.managers {
        manager.store.set_snapshots(SNAPSHOT_INTERVAL, 0, 500);
    }
    fill_audit(&swarm).await;
    let mut seen = Vec::new();
    for number in 1..=rounds {
        round(&swarm, number).await;
        let now = figures();
        println!("soak {number} {} {}", now.resident, now.allocated);
        seen.push(now);
    }
    let least = |upto: u32| -> Figures {
        let window = &seen[(upto - WINDOW) as usize..upto as usize];
        Figures {
            resident: window.iter().map(|f| f.resident).min().unwrap(),
            allocated: window.iter().map(|f| f.allocated).min().unwrap(),
        }
    };
    let (first, last) = (least(FULL_AFTER + WINDOW), least(rounds));
    println!("after {FULL_AFTER} rounds: {first:?}; after {rounds}: {last:?}");
    assert!(last.allocated * 10 <= first.allocated * 11, "allocated: {first:?}, then {last:?}");
    assert!(last.resident * 10 <= first.resident * 11, "resident: {first:?}, then {last:?}");
}
