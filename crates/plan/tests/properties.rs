//! Whatever people, nodes and containers do, in any order: the plan settles, its invariants hold after every
//! step (`World::step` checks them), and once all is well again every service has what was asked for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod world;

use model::{Desired, Mode, NodeState, TaskState};
use proptest::prelude::*;
use world::{World, duration};

fn node_name() -> impl Strategy<Value = &'static str> + Clone {
    prop::sample::select(vec!["a", "b", "c", "d"])
}

/// A command in the words of the scenarios.
fn event() -> impl Strategy<Value = String> {
    let service = prop::sample::select(vec!["web", "db", "log", "job"]);
    let node = node_name();
    let change = prop::sample::select(vec![
        "image=v1",
        "image=v2",
        "image=bad",
        "force",
        "replicas=1",
        "replicas=5",
        "start-first",
        "stop-first",
        "on-failure=rollback",
        "on-failure=continue",
        "parallelism=0",
        "update-delay=3s",
        "attempts=2",
        "max-per-node=2",
        "constraint=node.hostname!=a",
        "constraint=",
        "ports=8080:80",
        "ports=host:0:80",
        "ports=",
        "networks=net",
        "networks=",
        "cpu=1",
        "cpu=0",
    ]);
    let life =
        prop::sample::select(vec!["down", "up", "drain", "activate", "pause", "deaf", "hears", "unknown"]);
    let time = prop::sample::select(vec![
        "lead +1h",
        "lead -24h",
        "lead +24h",
        "tick 1s",
        "tick 6s",
        "wait 20s",
        "settle",
        "step",
        "agents",
        "step",
    ]);
    let outcome = prop::sample::select(vec!["badly", "badly", "well"]);
    prop_oneof![
        3 => (service, change).prop_map(|(s, c)| format!("update {s} {c}")),
        2 => (life, node.clone()).prop_map(|(l, n)| format!("{l} {n}")),
        1 => node.prop_map(|n| format!("label {n} x=y")),
        4 => time.prop_map(str::to_owned),
        1 => node_name().prop_map(|n| format!("attach c {n} net")),
        2 => (0usize..20, outcome).prop_map(|(n, o)| format!("end {n} {o}")),
    ]
}

fn fresh(feature_level: u32) -> World {
    let mut world = World::new();
    world.run(&format!("cluster level={feature_level}"));
    world.run("nodes a b c d ; network net ; broken bad");
    world.run(
        "service web replicas=3 networks=net delay=1s ; service db replicas=2 delay=1s restart=on-failure",
    );
    world.run("service log global networks=net delay=2s ; service job job=2/4 delay=1s");
    world
}

/// All nodes are well, all images good, nothing limits: then everything runs.
fn recover(world: &mut World) {
    for node in ["a", "b", "c", "d"] {
        world.run(&format!("up {node} ; activate {node} ; hears {node}"));
    }
    world.run("fixed bad");
    for service in ["web", "db", "log"] {
        world
            .run(&format!("update {service} image=v9 ports= constraint= cpu=0 max-per-node=0 parallelism=0"));
    }
    world.run("rerun job ; update job image=v9 constraint= cpu=0 max-per-node=0 ports=");
    world.wait(duration("10m"));
}

fn check_all_is_well(world: &World) {
    for service in world.tables.services.values() {
        let tasks: Vec<_> = world.tables.tasks_of_service(service.id).collect();
        let running = tasks
            .iter()
            .filter(|t| t.desired == Desired::Running && t.status.state == Some(TaskState::Running));
        let running = running.count() as u64;
        let live = tasks.iter().filter(|t| t.desired <= Desired::Complete).count() as u64;
        match service.spec.mode {
            Mode::Replicated { replicas } => {
                assert_eq!((running, live), (replicas, replicas), "{}: {tasks:#?}", service.spec.name);
            }
            Mode::Global => {
                let nodes =
                    world.tables.nodes.values().filter(|n| n.status.state == NodeState::Ready).count() as u64;
                assert_eq!((running, live), (nodes, nodes), "{}: {tasks:#?}", service.spec.name);
            }
            Mode::ReplicatedJob { .. } => assert!(live > 0),
            Mode::GlobalJob => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_plan_converges_whatever_happens(
        level in 1..=model::FEATURE_LEVEL,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = fresh(level);
        for event in &events {
            // Below this level the newest task of a slot is told by the clocks of those who led, as it always was.
            if event.starts_with("lead") && level < 2 {
                continue;
            }
            // The mode of a service cannot be changed.
            if !event.contains("replicas=") || event.contains("web") || event.contains("db") {
                world.run(event);
            }
        }
        recover(&mut world);
        check_all_is_well(&world);
        world.run("detach c ; rm web ; rm db ; rm log ; rm job ; rm-network net");
        world.settle();
        prop_assert!(world.tables.tasks.is_empty(), "{:?}", world.tables.tasks);
        prop_assert!(world.tables.services.is_empty());
        prop_assert!(world.tables.networks.is_empty());
    }
}

#[test]
fn a_large_service_is_placed_evenly_in_one_step() {
    let mut world = World::new();
    let nodes: Vec<String> = (0..100).map(|n| format!("n{n}")).collect();
    world.run(&format!("nodes {}", nodes.join(" ")));
    world.run("network net subnet=10.1.0.0/16 ; service web replicas=2000 networks=net");
    assert!(world.step());
    for node in world.tables.nodes.values() {
        assert_eq!(world.tables.tasks_of_node(node.id).count(), 20);
    }
    assert!(!world.step(), "one step is enough");
}
