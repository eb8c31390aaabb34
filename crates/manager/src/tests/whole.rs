//! What a swarm does as a whole.

use super::{
    state::service_spec,
    swarm::{LIMIT, Node, Swarm, channel, until},
};
use model::*;
use proto::{
    WireId as _,
    ca::{JoinRaftRequest, membership_client::MembershipClient},
    control::{ListRequest, RemoveRequest, UpdateRequest, WatchRequest, create_request, update_request},
    dispatcher::{AttachRequest, LeaveRequest},
    types::ObjectKind,
};
use std::{collections::BTreeSet, sync::Arc};

fn web(replicas: u64) -> ServiceSpec {
    let mut spec = service_spec("web");
    spec.mode = Mode::Replicated { replicas };
    let task = Arc::make_mut(&mut spec.task);
    task.restart.delay = Duration::from_millis(10);
    spec
}

fn overlay(name: &str) -> NetworkSpec {
    NetworkSpec::new(name, NetworkDriver::Overlay)
}

async fn with_workers(count: usize) -> Swarm {
    let mut swarm = Swarm::new().await;
    for _ in 0..count {
        swarm.join_worker().await;
    }
    until("the workers are ready", || {
        swarm.view().nodes.values().filter(|n| n.status.state == NodeState::Ready).count() == count
    })
    .await;
    swarm
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_runs_scales_updates_and_goes() {
    let swarm = with_workers(2).await;
    let id = swarm.create_service(&web(4)).await.unwrap();
    swarm.until_running(id, 4).await;
    for node in &swarm.nodes {
        assert_eq!(node.host.running().len(), 2, "spread over the nodes");
    }
    swarm.update_service(id, |s| s.mode = Mode::Replicated { replicas: 6 }).await.unwrap();
    swarm.until_running(id, 6).await;
    swarm.update_service(id, |s| s.mode = Mode::Replicated { replicas: 1 }).await.unwrap();
    until("one container runs", || swarm.nodes.iter().map(|n| n.host.running().len()).sum::<usize>() == 1)
        .await;
    swarm
        .update_service(id, |s| {
            Arc::make_mut(&mut s.task).container.env = vec!["A=1".into()];
            s.update.monitor = Duration::from_millis(50);
        })
        .await
        .unwrap();
    until("the task was replaced", || {
        let view = swarm.view();
        let mut tasks = view.tasks_of_service(id).filter(|t| t.status.state == Some(TaskState::Running));
        tasks.all(|t| !t.spec.container.env.is_empty()) && swarm.running(id) == 1
    })
    .await;
    swarm.remove(ObjectKind::Service, id.0).await.unwrap();
    until("nothing is left", || {
        let view = swarm.view();
        view.services.is_empty()
            && view.tasks.is_empty()
            && swarm.nodes.iter().all(|n| n.host.state().containers.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_one_object_has_an_end() {
    let swarm = Swarm::new().await;
    let labelled = |bytes: usize| {
        let mut spec = web(1);
        spec.labels.insert("note".into(), "x".repeat(bytes));
        spec
    };
    let refused = swarm.create_service(&labelled(2 << 20)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("service web has 2097"), "{refused}");
    let id = swarm.create_service(&labelled(1 << 20)).await.unwrap();
    let grow = |spec: &mut ServiceSpec| drop(spec.labels.insert("note".into(), "x".repeat(2 << 20)));
    let refused = swarm.update_service(id, grow).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let mut network = overlay("back");
    network.labels.insert("note".into(), "x".repeat(2 << 20));
    let refused = swarm.create(create_request::Spec::Network((&network).into())).await.unwrap_err();
    assert!(refused.message().contains("network back has"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_at_once_are_never_both_right_where_one_can_be() {
    let swarm = Swarm::new().await;
    let names = |name: &str| [format!("{name}-a"), format!("{name}-b")];
    for round in 0..12 {
        let specs = names(&format!("port{round}")).map(|name| {
            let mut spec = service_spec(&name);
            spec.endpoint.ports = vec![PortConfig {
                name: String::new(),
                protocol: Protocol::Tcp,
                target: 80,
                published: 8000 + round,
                mode: PublishMode::Ingress,
            }];
            spec
        });
        let (a, b) = tokio::join!(swarm.create_service(&specs[0]), swarm.create_service(&specs[1]));
        let refused = match (a, b) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
            other => panic!("one of them has port {}: {other:?}", 8000 + round),
        };
        assert!(refused.message().contains("is already in use by service"), "{refused}");

        let secret = SecretSpec {
            templated: false,
            name: format!("secret{round}"),
            labels: Labels::new(),
            data: SecretBytes(b"x".to_vec()),
        };
        let id = swarm.create(create_request::Spec::Secret((&secret).into())).await.unwrap();
        let mut user = service_spec(&format!("user{round}"));
        Arc::make_mut(&mut user.task).container.secrets.push(FileRef {
            id: SecretId(id),
            name: secret.name,
            target: "s".into(),
            uid: "0".into(),
            gid: "0".into(),
            mode: 0o444,
        });
        let (created, removed) =
            tokio::join!(swarm.create_service(&user), swarm.remove(ObjectKind::Secret, id));
        let refused = match (created, removed) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(())) => refused,
            other => panic!("secret{round} is there as long as it is used: {other:?}"),
        };
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "in Docker's words: {refused}");

        let subnets = ["10.77.0.0/16", "10.77.5.0/24"].map(|s| s.replace("77", &(100 + round).to_string()));
        let networks = names(&format!("net{round}")).into_iter().zip(subnets).map(|(name, subnet)| {
            let spec = NetworkSpec { subnet: Some(subnet.parse().unwrap()), ..overlay(&name) };
            create_request::Spec::Network((&spec).into())
        });
        let networks: Vec<_> = networks.collect();
        let (a, b) = tokio::join!(swarm.create(networks[0].clone()), swarm.create(networks[1].clone()));
        assert!(a.is_ok() != b.is_ok(), "one of them has the addresses: {a:?} {b:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_node_that_is_heard_no_more_run_elsewhere() {
    let mut swarm = with_workers(2).await;
    let id = swarm.create_service(&web(2)).await.unwrap();
    swarm.until_running(id, 2).await;
    let lost = swarm.nodes[0].id;
    swarm.nodes[0].kill();
    until("the other node runs both", || swarm.nodes[1].host.running().len() == 2).await;
    assert_eq!(swarm.view().nodes.get(&lost).unwrap().status.state, NodeState::Down);
    assert_eq!(swarm.nodes[0].host.running().len(), 1, "its container goes on, unheard");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_by_days_changes_nothing() {
    const DAYS: i64 = 2 * 24 * 3600 * 1_000_000_000;
    let mut swarm = with_workers(2).await;
    let id = swarm.create_service(&web(2)).await.unwrap();
    swarm.until_running(id, 2).await;
    swarm.nodes[0].kill();
    until("the other node runs both", || swarm.nodes[1].host.running().len() == 2).await;
    for (value, ahead) in [("A=1", DAYS), ("A=2", -DAYS)] {
        swarm.managers[0].clock_ahead.store(ahead, std::sync::atomic::Ordering::Relaxed);
        swarm
            .update_service(id, |s| {
                Arc::make_mut(&mut s.task).container.env = vec![value.into()];
                s.update.monitor = Duration::from_millis(50);
            })
            .await
            .unwrap();
        until("the update is completed", || {
            let view = swarm.view();
            let service = view.services.get(&id).unwrap();
            service.update.as_ref().is_some_and(|u| u.state == UpdateState::Completed)
                && service.spec.task.container.env == [value]
                && swarm.running(id) == 2
        })
        .await;
        let view = swarm.view();
        // Its node was lost a moment ago, not a day.
        let lost = view.tasks_of_node(swarm.nodes[0].id).next().unwrap();
        assert_eq!(lost.status.state, Some(TaskState::Running), "{lost:?}");
        let ready = view.nodes.values().filter(|n| n.status.state == NodeState::Ready).count();
        assert_eq!(ready, 1, "the other worker is heard as before");
    }
}

/// What people are told of a node that is ready.
fn message(swarm: &Swarm, node: usize) -> String {
    swarm.view().nodes.get(&swarm.nodes[node].id).unwrap().status.message.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_off_is_said_to_be_with_the_amount() {
    let swarm = with_workers(3).await;
    let set = |node: usize, ahead: i64| {
        swarm.nodes[node].clock_ahead.store(ahead * 1_000_000_000, std::sync::atomic::Ordering::Relaxed);
    };
    set(1, 5000);
    until("one clock is off", || message(&swarm, 1) == "clock is 83 min ahead").await;
    assert_eq!((message(&swarm, 0), message(&swarm, 2)), (String::new(), String::new()));
    set(1, 0);
    until("it is right again", || message(&swarm, 1).is_empty()).await;
    // The manager's own is set: what was compared before it and what is after it go together.
    swarm.managers[0].clock_ahead.store(-5_000_000_000_000, std::sync::atomic::Ordering::Relaxed);
    set(2, 60);
    until("the others agree", || {
        let said = message(&swarm, 2);
        let seconds =
            said.strip_prefix("clock is ").and_then(|s| s.strip_suffix(" s ahead")?.parse::<f64>().ok());
        seconds.is_some_and(|seconds| (59.0..=61.0).contains(&seconds))
    })
    .await;
    assert_eq!((message(&swarm, 0), message(&swarm, 1)), (String::new(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_node_is_noticed_while_it_runs() {
    let mut swarm = with_workers(2).await;
    let (credentials, managers) = (swarm.nodes[0].credentials.clone(), vec![swarm.managers[0].addr]);
    let copy = Node::start(&credentials, managers, 1);
    let said = "two processes have its certificate";
    until("the copy is noticed", || message(&swarm, 0).starts_with(said)).await;
    assert_eq!(message(&swarm, 1), "");
    drop(copy);
    // A node that was started anew is no copy.
    let (credentials, managers) = (swarm.nodes[1].credentials.clone(), vec![swarm.managers[0].addr]);
    swarm.nodes[1].kill();
    let id = swarm.nodes[1].id;
    until("it is lost", || swarm.view().nodes.get(&id).unwrap().status.state == NodeState::Down).await;
    swarm.nodes[1] = Node::start(&credentials, managers, 2);
    until("it is back", || swarm.view().nodes.get(&id).unwrap().status.state == NodeState::Ready).await;
    assert_eq!(message(&swarm, 1), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_reach_the_nodes_with_tasks_and_removal_frees_everything() {
    let swarm = with_workers(2).await;
    let network =
        NetworkId(swarm.create(create_request::Spec::Network((&overlay("net")).into())).await.unwrap());
    let mut spec = web(2);
    Arc::make_mut(&mut spec.task).networks = vec![NetworkAttachmentSpec::new(network, vec!["w".into()])];
    spec.endpoint.ports = vec![PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target: 80,
        published: 8080,
        mode: PublishMode::Ingress,
    }];
    let id = swarm.create_service(&spec).await.unwrap();
    swarm.until_running(id, 2).await;
    until("both nodes know both endpoints and the mesh", || {
        swarm.nodes.iter().all(|n| {
            let state = n.host.state();
            let endpoints = state
                .networks
                .get(&network)
                .is_some_and(|t| t.endpoints.values().filter(|e| e.ready).count() == 2);
            let ports = state.ingress.as_ref().and_then(|t| t.ports.get(&(Protocol::Tcp, 8080)));
            endpoints && ports.is_some_and(|backends| backends.len() == 2)
        })
    })
    .await;
    let refused = swarm.remove(ObjectKind::Network, network.0).await.unwrap_err();
    assert!(refused.message().contains("is in use by service"), "{refused}");
    let mut other = web(1);
    other.name = "other".into();
    other.endpoint.ports.clone_from(&spec.endpoint.ports);
    let refused = swarm.create_service(&other).await.unwrap_err();
    assert_eq!(
        refused.message(),
        format!("port '8080' is already in use by service 'web' ({id}) as an ingress port")
    );
    swarm.remove(ObjectKind::Service, id.0).await.unwrap();
    until("the tasks are gone", || swarm.view().tasks.is_empty()).await;
    swarm.remove(ObjectKind::Network, network.0).await.unwrap();
    until("the network is gone everywhere", || {
        swarm.view().networks.get(&network).is_none()
            && swarm.nodes.iter().all(|n| n.host.state().networks.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_leaves_the_maps_before_it_is_told_to_stop() {
    let swarm = with_workers(1).await;
    let network =
        NetworkId(swarm.create(create_request::Spec::Network((&overlay("net")).into())).await.unwrap());
    let mut spec = web(1);
    Arc::make_mut(&mut spec.task).networks = vec![NetworkAttachmentSpec::new(network, Vec::new())];
    let id = swarm.create_service(&spec).await.unwrap();
    let host = swarm.nodes[0].host.clone();
    let ready = |host: &agent::fake::FakeHost| {
        host.state().networks.values().flat_map(|t| t.endpoints.values()).filter(|e| e.ready).count()
    };
    let stopped = |host: &agent::fake::FakeHost| {
        host.state().steps.iter().filter(|s| s.starts_with("shutdown")).count()
    };
    let late = || swarm.managers[0].manager.shared.late_drains.load(std::sync::atomic::Ordering::Relaxed);
    for round in 0..5 {
        swarm.update_service(id, |s| s.mode = Mode::Replicated { replicas: 1 }).await.unwrap();
        until("it is ready", || ready(&host) == 1).await;
        swarm.update_service(id, |s| s.mode = Mode::Replicated { replicas: 0 }).await.unwrap();
        until("it is stopped, and was out of the maps before", || {
            let is_stopped = stopped(&host) > round;
            assert!(ready(&host) == 0 || !is_stopped, "stopped while connections were sent to it");
            is_stopped
        })
        .await;
        assert_eq!(late(), 0, "stop {round}: acknowledged, not timed out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_arrive_with_the_tasks_that_use_them_and_lists_are_without_contents() {
    let swarm = with_workers(1).await;
    let spec = SecretSpec {
        templated: false,
        name: "key".into(),
        labels: Labels::new(),
        data: SecretBytes(b"opensesame".to_vec()),
    };
    let secret = SecretId(swarm.create(create_request::Spec::Secret((&spec).into())).await.unwrap());
    let taken = swarm.create(create_request::Spec::Secret((&spec).into())).await.unwrap_err();
    assert_eq!((taken.code(), taken.message()), (tonic::Code::AlreadyExists, "secret key already exists"));
    let mut service = web(1);
    Arc::make_mut(&mut service.task).container.secrets = vec![FileRef {
        id: secret,
        name: "key".into(),
        target: "key".into(),
        uid: "0".into(),
        gid: "0".into(),
        mode: 0o444,
    }];
    let id = swarm.create_service(&service).await.unwrap();
    swarm.until_running(id, 1).await;
    let contents = swarm.nodes[0].host.state().containers.values().next().unwrap().secrets.clone();
    assert_eq!(contents["key"], b"opensesame");
    let listed = swarm.list(&swarm.managers[0], ObjectKind::Secret).await;
    let [Object::Secret(listed)] = listed.as_slice() else { panic!("{listed:?}") };
    assert!(listed.spec.data.0.is_empty());
    let refused = swarm.remove(ObjectKind::Secret, secret.0).await.unwrap_err();
    assert_eq!(refused.message(), "secret 'key' is in use by the following service: web");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_token_makes_a_node() {
    let swarm = Swarm::new().await;
    let addr = swarm.managers[0].addr;
    let worker = swarm.token(Role::Worker).await;
    let credentials = swarm.certify(addr, &worker).await.unwrap();
    assert_eq!(credentials.identity().role, Role::Worker);
    assert_eq!(swarm.view().nodes.get(&credentials.identity().node).unwrap().index, 2);
    for bad in [worker.replace("SWMTKN-1-", "SWMTKN-1-x"), format!("{}0", &worker[..worker.len() - 1])] {
        if bad != worker {
            let refused = swarm.certify(addr, &bad).await.unwrap_err();
            assert_eq!(refused.message(), "A valid join token is necessary to join this cluster");
        }
    }
    let cluster = swarm.view().cluster.clone().unwrap();
    let rotate = proto::control::UpdateSwarmRequest {
        version: cluster.meta.version,
        rotate_worker_token: true,
        ..Default::default()
    };
    swarm.control().update_swarm(rotate).await.unwrap();
    assert!(swarm.certify(addr, &worker).await.is_err(), "rotated");
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_updates_are_refused_and_watchers_see_changes() {
    let swarm = with_workers(1).await;
    let watch = WatchRequest { since: swarm.view().index, kinds: vec![ObjectKind::Service as i32] };
    let mut events = swarm.control().watch(watch).await.unwrap().into_inner();
    let id = swarm.create_service(&web(1)).await.unwrap();
    let event = events.message().await.unwrap().unwrap();
    let Ok(Object::Service(seen)) = Object::try_from(event.object.unwrap()) else { panic!("not a service") };
    assert_eq!(seen.id, id);
    swarm.until_running(id, 1).await;
    let spec = Some(update_request::Spec::Service((&web(2)).into()));
    let stale = UpdateRequest { id: id.to_wire(), version: 99, spec, registry_auth: None };
    let refused = swarm.control().update(stale).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::Aborted, "update out of sequence"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_cannot_be_removed_nor_the_last_one_demoted() {
    let swarm = Swarm::new().await;
    let id = swarm.managers[0].node;
    let request = RemoveRequest { kind: ObjectKind::Node as i32, id: id.to_wire(), force: true };
    let refused = swarm.control().remove(request).await.unwrap_err();
    assert!(refused.message().contains("must be demoted to worker before removal"), "{refused}");
    let refused = swarm.update_node(id, |n| n.role = Role::Worker).await.unwrap_err();
    assert_eq!(refused.message(), "attempting to demote the last manager of the swarm");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_managers_serve_alike_and_survive_the_loss_of_their_leader() {
    let mut swarm = Swarm::new().await;
    swarm.join_manager().await;
    swarm.join_manager().await;
    for _ in 0..3 {
        swarm.join_worker().await;
    }
    until("the workers are ready", || {
        swarm.view().nodes.values().filter(|n| n.status.state == NodeState::Ready).count() == 3
    })
    .await;
    // A follower takes orders and answers.
    let id = swarm.create_service(&web(3)).await.unwrap();
    swarm.until_running(id, 3).await;
    for manager in &swarm.managers {
        let request = |brief| ListRequest { kind: ObjectKind::Task as i32, brief };
        for brief in [false, true] {
            let tasks = swarm.list_as(manager, request(brief)).await;
            assert_eq!(tasks.len(), 3);
            for task in tasks {
                let Object::Task(task) = task else { panic!("{task:?} is no task") };
                assert_eq!((task.service, task.status.state), (id, Some(TaskState::Running)));
                assert_eq!(*task.spec == TaskSpec::default(), brief, "{:?}", task.spec);
            }
        }
    }
    let leader = swarm.managers.iter().position(|m| m.store.leader_now().me).unwrap();
    let before: BTreeSet<TaskId> = swarm.view().tasks.values().map(|t| t.id).collect();
    swarm.managers[leader].kill().await;
    until("another leads", || {
        swarm.managers.iter().enumerate().any(|(i, m)| i != leader && m.store.leader_now().me)
    })
    .await;
    until("it takes orders", || {
        let update = swarm.update_service(id, |s| s.mode = Mode::Replicated { replicas: 5 });
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(update)).is_ok()
    })
    .await;
    swarm.until_running(id, 5).await;
    let after: BTreeSet<TaskId> = swarm.view().tasks.values().map(|t| t.id).collect();
    assert!(before.is_subset(&after), "no task was replaced");
    let stopped =
        swarm.nodes.iter().flat_map(|n| n.host.state().steps.clone()).filter(|s| s.starts_with("shutdown"));
    assert_eq!(stopped.count(), 0, "no container was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_hears_its_leader_no_more_hands_its_agents_over() {
    let mut swarm = Swarm::new().await;
    swarm.join_manager().await;
    swarm.join_manager().await;
    let stale = swarm.managers.iter().position(|m| !m.store.leader_now().me).unwrap();
    // It knows this one manager; of the others it hears in its session.
    let token = swarm.token(Role::Worker).await;
    let credentials = swarm.certify(swarm.managers[0].addr, &token).await.unwrap();
    swarm.nodes.push(Node::start(&credentials, vec![swarm.managers[stale].addr], 9));
    let node = swarm.nodes[0].id;
    let serves = |manager: usize| swarm.managers[manager].manager.shared.sessions.serves(node);
    until("the stale one serves it", || serves(stale)).await;
    until("it is ready", || swarm.view().nodes.get(&node).unwrap().status.state == NodeState::Ready).await;

    swarm.managers[stale].faults.deaf.store(true, std::sync::atomic::Ordering::Relaxed);
    until("another one serves it, and it was never down", || {
        assert_eq!(swarm.view().nodes.get(&node).unwrap().status.state, NodeState::Ready);
        !serves(stale) && (0..3).any(|manager| manager != stale && serves(manager))
    })
    .await;
    assert!(!swarm.managers[stale].store.is_current());
    let listed = swarm.list(&swarm.managers[(stale + 1) % 3], ObjectKind::Node).await;
    let seen = |id: NodeId| {
        listed.iter().find_map(|o| match o {
            Object::Node(node) if node.id == id => node.manager.and_then(|m| m.seen),
            _ => None,
        })
    };
    assert_eq!(seen(swarm.managers[stale].node).map(|s| s.reachable), Some(false), "{listed:?}");
    assert_eq!(seen(swarm.managers[(stale + 1) % 3].node).map(|s| s.reachable), Some(true));

    swarm.managers[stale].faults.deaf.store(false, std::sync::atomic::Ordering::Relaxed);
    until("it keeps up again", || swarm.managers[stale].store.is_current()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_part_of_a_manager_ends_the_manager() {
    let swarm = Swarm::new().await;
    let faults = &swarm.managers[0].faults;
    faults.broken_clock.store(true, std::sync::atomic::Ordering::Relaxed);
    swarm.managers[0].manager.shared.presence_changed.notify_one();
    until("it has ended", || faults.ended.get().is_some()).await;
    let why = faults.ended.get().unwrap();
    assert!(why.contains("leader") && why.contains("the clock is broken"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_go_on_without_any_manager_and_are_known_again_when_one_returns() {
    let mut swarm = with_workers(2).await;
    let id = swarm.create_service(&web(4)).await.unwrap();
    swarm.until_running(id, 4).await;
    let before: BTreeSet<TaskId> = swarm.view().tasks.values().map(|t| t.id).collect();
    swarm.managers[0].kill().await;
    let failing = swarm.nodes[0].host.running()[0];
    swarm.nodes[0].host.exit(failing, 9);
    swarm.managers[0].restart().await;
    until("the failure is known and made good", || {
        let view = swarm.view();
        let failed = view.tasks.get(&failing).and_then(|t| t.status.error.clone());
        failed.as_deref() == Some("task: non-zero exit (9)") && swarm.running(id) == 4
    })
    .await;
    let view = swarm.view();
    let kept = view.tasks_of_service(id).filter(|t| before.contains(&t.id) && t.desired == Desired::Running);
    assert_eq!(kept.count(), 3, "the others were left alone");
    let stopped = swarm.nodes.iter().flat_map(|n| n.host.state().steps.clone());
    let stopped = stopped.filter(|s| s.starts_with("shutdown") && !s.contains(&failing.to_string()));
    assert_eq!(stopped.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_follow_the_spec_through_raft_and_certificates() {
    let mut swarm = with_workers(1).await;
    let worker = swarm.nodes[0].credentials.clone();
    swarm.update_node(swarm.nodes[0].id, |n| n.role = Role::Manager).await.unwrap();
    assert_eq!(swarm.renew(&worker).await.unwrap().identity().role, Role::Manager);

    swarm.join_manager().await;
    swarm.join_manager().await;
    for (number, manager) in (10..).zip(&swarm.managers) {
        swarm.nodes.push(Node::start(&manager.credentials, vec![manager.addr], number));
    }
    until("the managers' nodes are ready", || {
        swarm.view().nodes.values().filter(|n| n.status.state == NodeState::Ready).count() == 4
    })
    .await;
    let demoted = (swarm.managers[2].node, swarm.managers[2].credentials.clone());
    swarm.update_node(demoted.0, |n| n.role = Role::Worker).await.unwrap();
    let leader = swarm.managers[0].store.clone();
    until("it is out of Raft and of the record", || {
        leader.members().len() == 2 && leader.view().nodes.get(&demoted.0).unwrap().manager.is_none()
    })
    .await;
    assert_eq!(swarm.renew(&demoted.1).await.unwrap().identity().role, Role::Worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_left_is_replaced_and_one_that_was_removed_is_a_stranger() {
    let mut swarm = with_workers(2).await;
    let id = swarm.create_service(&web(2)).await.unwrap();
    swarm.until_running(id, 2).await;
    let (left, credentials) = (swarm.nodes[0].id, swarm.nodes[0].credentials.clone());
    swarm.nodes[0].kill();
    swarm.work_as(&credentials).leave(LeaveRequest::default()).await.unwrap();
    assert_eq!(swarm.view().nodes.get(&left).unwrap().status.state, NodeState::Disconnected);
    until("the other node runs both", || swarm.nodes[1].host.running().len() == 2).await;
    swarm.remove(ObjectKind::Node, left.0).await.unwrap();
    let refused = swarm.renew(&credentials).await.unwrap_err();
    assert_eq!(refused.message(), "this node was removed from the swarm");
    let living = swarm.remove(ObjectKind::Node, swarm.nodes[1].id.0).await.unwrap_err();
    assert!(living.message().contains("is not down and can't be removed"), "{living}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_join_that_failed_nothing_is_left() {
    let swarm = Swarm::new().await;
    let (leader, addr) = (swarm.managers[0].store.clone(), swarm.managers[0].addr);
    let token = swarm.token(Role::Manager).await;
    let root = swarm.managers[0].credentials.root_pem();
    let joiner = Swarm::certify_through(&root, addr, &token).await.unwrap();
    let old = JoinRaftRequest { raft_id: 77, addr: "192.0.2.9:2377".into(), feature_level: 1 };
    let refused = MembershipClient::new(channel(&joiner, addr)).join_raft(old).await.unwrap_err();
    assert!(refused.message().contains("feature level"), "{refused}");
    let node = joiner.identity().node;
    assert!(leader.view().nodes.contains(&node), "it was given a certificate");
    let undo = LeaveRequest { undone: true };
    swarm.work_as(&joiner).leave(undo).await.unwrap();
    assert!(!leader.view().nodes.contains(&node));
    assert_eq!((leader.view().nodes.values().count(), leader.members().len()), (1, 1));
    let refused = swarm.work_as(&joiner).leave(undo).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "its certificate is worth nothing: {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_tasks_is_not_forgotten_whatever_it_says_of_its_join() {
    let mut swarm = with_workers(1).await;
    let id = swarm.create_service(&web(1)).await.unwrap();
    swarm.until_running(id, 1).await;
    let (node, credentials) = (swarm.nodes[0].id, swarm.nodes[0].credentials.clone());
    swarm.nodes[0].kill();
    swarm.work_as(&credentials).leave(LeaveRequest { undone: true }).await.unwrap();
    let view = swarm.view();
    assert_eq!(view.nodes.get(&node).unwrap().status.state, NodeState::Disconnected);
    assert_eq!(view.tasks_of_node(node).count(), 1, "what it holds is its own until it is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_can_leave() {
    let mut swarm = Swarm::new().await;
    swarm.join_manager().await;
    swarm.join_manager().await;
    let leader = swarm.leader();
    let (left, credentials) = (leader.node, leader.credentials.clone());
    // As a node does: it asks again where nobody leads just then.
    let give_up = std::time::Instant::now() + LIMIT;
    while let Err(status) = swarm.work_as(&credentials).leave(LeaveRequest::default()).await {
        assert!(status.code() == tonic::Code::Unavailable && std::time::Instant::now() < give_up, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rest = swarm.managers.iter().find(|manager| manager.node != left).unwrap().store.clone();
    until("two are left, and know it", || {
        rest.members().len() == 2 && rest.view().nodes.get(&left).is_some_and(|n| n.manager.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_whom_the_others_need_may_not_leave() {
    let mut swarm = Swarm::new().await;
    swarm.join_manager().await;
    swarm.join_manager().await;
    swarm.managers[2].kill().await;
    let leader = swarm.managers[0].store.clone();
    until("one is known to be silent", || leader.members().iter().any(|m| m.reachable == Some(false))).await;
    let (wants_to, credentials) = (swarm.managers[1].node, swarm.managers[1].credentials.clone());
    let refused = swarm.work_as(&credentials).leave(LeaveRequest::default()).await.unwrap_err();
    assert!(refused.message().contains("would result in a loss of quorum"), "{refused}");
    assert_eq!(leader.members().len(), 3);
    let view = leader.view();
    let node = view.nodes.get(&wants_to).unwrap();
    assert_eq!((node.spec.role, node.status.state == NodeState::Disconnected), (Role::Manager, false));
    // The silent one is none of them.
    let silent = swarm.managers[2].credentials.clone();
    swarm.work_as(&silent).leave(LeaveRequest::default()).await.unwrap();
    assert_eq!(leader.members().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_tasks_run_soon() {
    let swarm = with_workers(3).await;
    let started = std::time::Instant::now();
    let network =
        NetworkId(swarm.create(create_request::Spec::Network((&overlay("net")).into())).await.unwrap());
    let mut spec = web(100);
    Arc::make_mut(&mut spec.task).networks = vec![NetworkAttachmentSpec::new(network, Vec::new())];
    let id = swarm.create_service(&spec).await.unwrap();
    swarm.until_running(id, 100).await;
    let up = started.elapsed();
    swarm.update_service(id, |s| s.mode = Mode::Replicated { replicas: 0 }).await.unwrap();
    until("all are stopped", || swarm.nodes.iter().all(|n| n.host.running().is_empty())).await;
    let stopped = started.elapsed() - up;
    until("all are gone", || swarm.view().tasks.is_empty()).await;
    let down = started.elapsed() - up;
    let limit = testkit::on_a_shared_machine(Duration::from_secs(5));
    assert!(up < limit && down < limit, "up {up:?}, down {down:?}");
    println!("100 tasks: up {up:?}, stopped {stopped:?}, gone {down:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_acknowledged_and_docker_words_say_why() {
    let mut swarm = Swarm::new().await;
    swarm.join_manager().await;
    swarm.join_manager().await;
    let before = swarm.view().services.len();
    swarm.managers[1].kill().await;
    swarm.managers[2].kill().await;
    let mut client = swarm.control_at(&swarm.managers[0]);
    let spec = Some(create_request::Spec::Service((&web(1)).into()));
    let refused =
        client.create(proto::control::CreateRequest { spec, registry_auth: None }).await.unwrap_err();
    assert!(matches!(refused.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded), "{refused}");
    assert!(refused.message().starts_with("The swarm does not have a leader."), "{refused}");
    assert_eq!(swarm.managers[0].store.view().services.len(), before);
    swarm.managers[1].restart().await;
    let spec = web(1);
    until("a majority takes orders again", || {
        let create = swarm.create_service(&spec);
        let created = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(create));
        // One whose outcome was unknown may have been made after all.
        created.is_ok() || !swarm.view().services.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_never_held_twice_while_tasks_come_and_go() {
    let swarm = with_workers(2).await;
    let network =
        NetworkId(swarm.create(create_request::Spec::Network((&overlay("net")).into())).await.unwrap());
    let mut spec = web(8);
    let task = Arc::make_mut(&mut spec.task);
    task.networks = vec![NetworkAttachmentSpec::new(network, Vec::new())];
    spec.update.parallelism = 4;
    spec.update.monitor = Duration::from_millis(1);
    let id = swarm.create_service(&spec).await.unwrap();
    swarm.until_running(id, 8).await;
    let mut seen = 0;
    for round in 1..=3u64 {
        swarm.update_service(id, |s| Arc::make_mut(&mut s.task).force_update = round).await.unwrap();
        until("a rolling update", || {
            for node in &swarm.nodes {
                for table in node.host.state().networks.values() {
                    let addresses: BTreeSet<_> = table.endpoints.values().map(|e| e.address).collect();
                    assert_eq!(addresses.len(), table.endpoints.len(), "an address held twice");
                    seen += 1;
                }
            }
            let view = swarm.view();
            let mut tasks = view.tasks_of_service(id).filter(|t| t.desired == Desired::Running);
            swarm.running(id) == 8 && tasks.all(|t| t.spec.force_update == round)
        })
        .await;
    }
    assert!(seen > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_addresses_for_a_container_started_by_hand() {
    let swarm = with_workers(2).await;
    let mut open = overlay("open");
    open.attachable = true;
    let open = NetworkId(swarm.create(create_request::Spec::Network((&open).into())).await.unwrap());
    let closed =
        NetworkId(swarm.create(create_request::Spec::Network((&overlay("closed")).into())).await.unwrap());
    let id = TaskId(77);
    let asked = |network: NetworkId| AttachRequest {
        task: id.to_wire(),
        container: "c1".into(),
        name: "shell".into(),
        networks: vec![(&NetworkAttachmentSpec::new(network, vec!["sh".into()])).into()],
    };
    let mut control = swarm.work_as(&swarm.nodes[1].credentials);
    let refused = control.attach(asked(closed)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert_eq!(refused.message(), "network closed not manually attachable");
    let unknown = control.attach(asked(NetworkId(5))).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    control.attach(asked(open)).await.unwrap();
    control.attach(asked(open)).await.unwrap(); // the answer was lost
    until("its node has it", || swarm.nodes[1].host.running() == [id]).await;
    assert!(swarm.nodes[0].host.running().is_empty());
    let task = swarm.view().tasks.get(&id).unwrap().clone();
    assert_eq!(task.attachments.len(), 1);
    assert!(task.gateway_address.is_some());
    until("its name is known", || {
        let state = swarm.nodes[1].host.state();
        state.networks.get(&open).is_some_and(|table| {
            table.endpoints.get(&id).is_some_and(|e| e.names == ["shell"])
                && table.services.values().any(|s| s.name == "shell" && s.aliases == ["sh"])
        })
    })
    .await;
    let refused = swarm.remove(ObjectKind::Network, open.0).await.unwrap_err();
    assert!(refused.message().contains("is in use by task"), "{refused}");

    swarm.nodes[1].host.exit(id, 0);
    until("it is forgotten", || swarm.view().tasks.is_empty()).await;
    swarm.remove(ObjectKind::Network, open.0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_off_for_longer_than_its_certificate_renews_it_and_may_do_nothing_else_before() {
    let mut swarm = with_workers(1).await;
    swarm.join_manager().await;
    let node = swarm.nodes[0].id;
    let state = swarm.view();
    let cluster = state.cluster.as_ref().unwrap();
    let root_key = std::str::from_utf8(&cluster.root_ca_key.0).unwrap();
    let root = pki::RootCa::from_pem(&cluster.root_ca_cert, root_key).unwrap();
    let key = pki::NodeKey::generate().unwrap();
    let (long_ago, day) =
        (Timestamp(super::swarm::now().0 - 365 * 24 * 3600 * 1_000_000_000), Duration::from_secs(24 * 3600));
    let csr = key.csr_pem().unwrap();
    let chain = root.sign_csr_at(long_ago, &csr, node, Role::Worker, cluster.id, day).unwrap();
    let expired = pki::Credentials::in_memory(&key.pem(), &chain, root.cert_pem()).unwrap();

    let refused = swarm.work_as(&expired).leave(LeaveRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused:?}");
    for manager in 0..2 {
        let renewed = swarm.renew_at(&expired, manager).await.unwrap();
        assert_eq!(renewed.identity(), expired.identity());
        assert!(renewed.validity().1 > super::swarm::now());
    }

    swarm.nodes[0].kill();
    until("it is seen as down", || swarm.view().nodes.get(&node).unwrap().status.state == NodeState::Down)
        .await;
    swarm.remove(ObjectKind::Node, node.0).await.unwrap();
    let refused = swarm.renew(&expired).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
}
