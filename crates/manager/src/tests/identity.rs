//! What happens to those who are no more what their certificates say, in a swarm of real managers.

use super::{
    state::service_spec,
    swarm::{Swarm, channel, operator, until},
};
use crate::authorize::on_behalf_of;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use model::*;
use pki::Credentials;
use proto::{
    PersonalClaim, WireId as _,
    control::{
        CreateRequest, ListRequest, PersonClaim, UpdateSwarmRequest, WatchRequest,
        control_client::ControlClient, create_request,
    },
    dispatcher::{
        AgentMessage, AliveRequest, Assignments, AttachRequest, Hello, ImageSourcesRequest, ManagerMessage,
        MayFetchRequest, ObserveRequest, ObservedTask, StatusReport, TaskReport,
        agent_message::Message as Up, dispatcher_client::DispatcherClient, liveness_client::LivenessClient,
        manager_message::Message as Down,
    },
    types::ObjectKind,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};
use testkit::on_a_shared_machine;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    body::Body,
    codegen::{Service as _, http},
};

/// How soon what a node may no longer have must be gone.
const AT_ONCE: Duration = on_a_shared_machine(Duration::from_secs(1));

fn service(name: &str, on: NodeId, secret: Option<SecretId>) -> ServiceSpec {
    let mut spec = service_spec(name);
    let task = Arc::make_mut(&mut spec.task);
    task.placement.constraints = vec![format!("node.id=={on}").parse().expect("a constraint")];
    task.container.image = format!("{name}:latest");
    task.container.secrets = secret
        .map(|id| FileRef {
            id,
            name: name.into(),
            target: name.into(),
            uid: "0".into(),
            gid: "0".into(),
            mode: 0o400,
        })
        .into_iter()
        .collect();
    spec
}

/// A session as somebody holds it who has the key material and nothing else.
struct Session {
    up: mpsc::Sender<AgentMessage>,
    down: Streaming<ManagerMessage>,
}

impl Session {
    async fn open(swarm: &Swarm, credentials: &Credentials, addr: &str) -> Result<Self, Status> {
        let (up, messages) = mpsc::channel(16);
        let described = swarm.view();
        let described = described.nodes.values().find_map(|n| n.description.clone());
        let mut description = described.expect("a node that described itself");
        description.addr = addr.parse().unwrap();
        description.data_addr = description.addr.ip();
        let hello =
            Up::Hello(Hello { description: Some((&description).into()), networks: Vec::new(), process: 0 });
        up.send(AgentMessage { message: Some(hello) }).await.unwrap();
        let mut client = DispatcherClient::new(channel(credentials, swarm.addrs()[0]));
        let down = client.session(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { up, down })
    }

    /// Reads until it ends.
    async fn end(mut self) -> Status {
        loop {
            match self.down.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }
}

/// Reports in a session of a node, and returns what the node is told first in it. The node's own agent takes the
/// session back whenever it dials: then it is begun anew.
async fn acknowledged(swarm: &Swarm, credentials: &Credentials, report: &StatusReport) -> Assignments {
    let attempt = async || {
        let mut session = Session::open(swarm, credentials, "192.0.2.1:2377").await.ok()?;
        let assignments = loop {
            if let Some(Down::Assignments(assignments)) = session.down.message().await.ok()??.message {
                break assignments;
            }
        };
        let report = AgentMessage { message: Some(Up::Statuses(report.clone())) };
        session.up.send(report).await.ok()?;
        loop {
            if let Some(Down::StatusAck(_)) = session.down.message().await.ok()??.message {
                return Some(assignments);
            }
        }
    };
    let attempts = async {
        loop {
            if let Some(assignments) = attempt().await {
                return assignments;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), attempts).await.expect("an acknowledgement")
}

async fn with_workers(count: usize) -> Swarm {
    let mut swarm = Swarm::new().await;
    for _ in 0..count {
        swarm.join_worker().await;
    }
    until("the nodes are ready", || ready(&swarm) == count).await;
    swarm
}

fn ready(swarm: &Swarm) -> usize {
    let view = swarm.view();
    let is_ready = |n: &&Arc<Node>| n.status.state == NodeState::Ready && n.description.is_some();
    view.nodes.values().filter(is_ready).count()
}

/// Managers whose agents are there, too: who is not heard of counts as down.
async fn with_managers(count: usize) -> Swarm {
    let mut swarm = Swarm::new().await;
    for _ in 1..count {
        swarm.join_manager().await;
    }
    for (number, manager) in (100..).zip(&swarm.managers) {
        let node = super::swarm::Node::start(&manager.credentials, swarm.addrs(), number);
        swarm.nodes.push(node);
    }
    until("the managers' nodes are ready", || ready(&swarm) == count).await;
    swarm
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_nodes_session_ends_at_once_and_it_is_nobody_from_then_on() {
    let mut swarm = with_workers(1).await;
    let token = swarm.token(Role::Worker).await;
    let credentials = swarm.certify(swarm.managers[0].addr, &token).await.unwrap();
    let id = credentials.identity().node;
    let session = Session::open(&swarm, &credentials, "192.0.2.99:2377").await.unwrap();
    until("the node is ready", || {
        swarm.view().nodes.get(&id).is_some_and(|n| n.status.state == NodeState::Ready)
    })
    .await;
    let request =
        proto::control::RemoveRequest { kind: ObjectKind::Node as i32, id: id.to_wire(), force: true };
    swarm.control().remove(request).await.unwrap();
    let ended = tokio::time::timeout(AT_ONCE, session.end()).await.expect("the session to end");
    assert_eq!(ended.message(), "this node was removed from the swarm");
    assert!(swarm.view().cluster.as_ref().unwrap().removed.iter().any(|r| r.node == id));
    let refused = Session::open(&swarm, &credentials, "192.0.2.99:2377").await.err().unwrap();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, ended.message()));
    let refused = swarm.renew(&credentials).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // The others go on.
    swarm.join_worker().await;
    let service = swarm.create_service(&service("web", swarm.nodes[1].id, None)).await.unwrap();
    swarm.until_running(service, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_certificate_reads_and_writes_nothing_but_its_own() {
    let swarm = with_workers(2).await;
    let (mine, other) = (&swarm.nodes[0], &swarm.nodes[1]);
    let spec = SecretSpec {
        templated: false,
        name: "key".into(),
        labels: Labels::new(),
        data: SecretBytes(b"open".to_vec()),
    };
    let secret = SecretId(swarm.create(create_request::Spec::Secret((&spec).into())).await.unwrap());
    let theirs = swarm.create_service(&service("theirs", other.id, Some(secret))).await.unwrap();
    let ours = swarm.create_service(&service("ours", mine.id, None)).await.unwrap();
    swarm.until_running(theirs, 1).await;
    swarm.until_running(ours, 1).await;

    // Control is not a node's, with or without a claim that only a manager can make.
    let mut control = ControlClient::new(channel(&mine.credentials, swarm.managers[0].addr));
    let denied = |status: Status| assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    for kind in [ObjectKind::Cluster, ObjectKind::Service, ObjectKind::Secret] {
        denied(control.list(ListRequest { kind: kind as i32, brief: false }).await.err().unwrap());
    }
    let claimed = channel(&mine.credentials, swarm.managers[0].addr);
    let mut claimed = ControlClient::with_interceptor(claimed, PersonalClaim::new(&operator()));
    denied(claimed.get_swarm(proto::control::GetSwarmRequest::default()).await.unwrap_err());
    let spec = Some(create_request::Spec::Service((&service_spec("mine")).into()));
    denied(claimed.create(CreateRequest { spec, registry_auth: None }).await.unwrap_err());
    denied(claimed.update_swarm(UpdateSwarmRequest::default()).await.unwrap_err());
    denied(claimed.watch(WatchRequest::default()).await.err().unwrap());

    // Its session has its own tasks, and no secret that none of them uses; what it says of tasks of others is not taken.
    let task = swarm.view().tasks_of_service(theirs).next().unwrap().clone();
    let failed =
        TaskStatus { state: Some(TaskState::Failed), at: Timestamp(i64::MAX), ..task.status.clone() };
    let report = TaskReport { task: task.id.to_wire(), status: Some((&failed).into()) };
    let report = StatusReport { sequence: 1, tasks: vec![report] };
    let assignments = acknowledged(&swarm, &mine.credentials, &report).await;
    let services: Vec<_> =
        assignments.tasks.iter().map(|t| ServiceId::from_wire(&t.service).unwrap()).collect();
    assert_eq!((services.as_slice(), assignments.secrets.len()), (&[ours][..], 0));
    assert_eq!(swarm.view().tasks.get(&task.id).unwrap().status.state, Some(TaskState::Running));
    let mut liveness = LivenessClient::new(channel(&mine.credentials, swarm.managers[0].addr));
    denied(liveness.alive(AliveRequest::default()).await.unwrap_err());
    let reported = ObservedTask {
        node: other.id.to_wire(),
        report: Some(TaskReport { task: task.id.to_wire(), status: Some((&failed).into()) }),
    };
    let observed = ObserveRequest { nodes: Vec::new(), tasks: vec![reported] };
    denied(liveness.observe(observed).await.unwrap_err());

    // Images: those of its own tasks.
    let mut work = swarm.work_as(&mine.credentials);
    let image = |name: &str| ImageSourcesRequest { image: format!("{name}:latest") };
    assert_eq!(work.image_sources(image("ours")).await.unwrap().into_inner().sources.len(), 1);
    denied(work.image_sources(image("theirs")).await.unwrap_err());
    let mut may = async |node: NodeId, name: &str| {
        let request = MayFetchRequest { node: node.to_wire(), image: format!("{name}:latest") };
        work.may_fetch(request).await.unwrap().into_inner().may
    };
    assert!(may(mine.id, "ours").await && may(other.id, "theirs").await);
    assert!(!may(mine.id, "theirs").await && !may(other.id, "ours").await && !may(NodeId(5), "ours").await);
    assert!(may(swarm.managers[0].node, "theirs").await);

    // An attachment does not pass for a task of a service, nor take the place of another one.
    for number in [ours.0, theirs.0, task.id.0] {
        let request = AttachRequest {
            task: TaskId(number).to_wire(),
            container: "c".into(),
            name: "c".into(),
            networks: Vec::new(),
        };
        let refused = work.attach(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_cannot_claim_the_address_of_a_node_that_is_up() {
    let swarm = with_workers(1).await;
    let token = swarm.token(Role::Worker).await;
    let credentials = swarm.certify(swarm.managers[0].addr, &token).await.unwrap();
    let theirs = swarm.view().nodes.get(&swarm.nodes[0].id).unwrap().description.clone().unwrap().addr;
    let session = Session::open(&swarm, &credentials, &theirs.to_string()).await.unwrap();
    let refused = session.end().await;
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert!(refused.message().contains("which is up"), "{refused}");
    let id = credentials.identity().node;
    assert_eq!(swarm.view().nodes.get(&id).unwrap().description, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_manager_keeps_nothing_of_a_manager() {
    let swarm = with_managers(3).await;
    let (demoted, addr) = (swarm.managers[2].credentials.clone(), swarm.managers[2].addr);
    let claim = PersonalClaim::new(&operator());
    let watched = ControlClient::with_interceptor(channel(&demoted, swarm.managers[0].addr), claim.clone());
    let watch = WatchRequest { since: 0, kinds: vec![ObjectKind::Secret as i32] };
    let mut watch = watched.clone().watch(watch).await.unwrap().into_inner();
    let id = demoted.identity().node;
    let asked = Instant::now();
    swarm.update_node(id, |n| n.role = Role::Worker).await.unwrap();
    let ended = tokio::time::timeout(AT_ONCE, async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    });
    let ended = ended.await.expect("the watch to end").expect("a reason");
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
    let refused = watched
        .clone()
        .list(ListRequest { kind: ObjectKind::Secret as i32, brief: false })
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut liveness = LivenessClient::new(channel(&demoted, swarm.managers[0].addr));
    assert_eq!(liveness.alive(AliveRequest::default()).await.unwrap_err().code(), Code::PermissionDenied);

    // It answers no more as a manager itself: whoever is in a session with it goes elsewhere.
    let token = swarm.token(Role::Worker).await;
    let worker = swarm.certify(swarm.managers[0].addr, &token).await.unwrap();
    until("the demoted manager turns nodes away", || {
        let mut client = DispatcherClient::new(channel(&worker, addr));
        let asked = async { client.session(tokio_stream::empty()).await.map(drop) };
        let refused = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(asked));
        refused.is_err_and(|s| s.code() == Code::Unavailable)
    })
    .await;
    // Raft has let it go, and its next certificate is a worker's.
    until("it is a worker", || {
        swarm.managers[0].store.members().len() == 2
            && swarm.view().nodes.get(&id).is_some_and(|n| n.manager.is_none())
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
    assert_eq!(swarm.renew(&demoted).await.unwrap().identity().role, Role::Worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_that_come_and_go_do_not_lock_out_one_that_was_away() {
    let mut swarm = with_managers(3).await;
    swarm.managers[2].kill().await;
    swarm.join_manager().await;
    swarm.join_manager().await;
    // The one that is away knows neither the fourth nor the fifth, which leads now.
    let leader = swarm.managers[0].store.clone();
    let fifth = swarm.managers[4].store.raft_id();
    leader.transfer_leadership(Some(fifth)).await.unwrap();
    until("the fifth leads", || swarm.managers[4].store.leader_now().me).await;
    swarm.managers[2].restart().await;
    let index = swarm.managers[4].store.propose(Batch::default()).await.unwrap().0;
    swarm.managers[2].store.wait_applied(index).await.unwrap();
    // Two of those that it knew are gone for good, then it is alone with newer ones.
    swarm.managers[2].kill().await;
    for gone in [1, 0] {
        let gone_id = swarm.managers[gone].store.raft_id();
        swarm.managers[4].store.remove_member(gone_id).await.unwrap();
        if gone == 1 {
            // One of those that the third knows is left to speak for the others.
            swarm.managers[2].restart().await;
            let index = swarm.managers[4].store.propose(Batch::default()).await.unwrap().0;
            swarm.managers[2].store.wait_applied(index).await.unwrap();
        }
    }
    let index = swarm.managers[4].store.propose(Batch::default()).await.unwrap().0;
    swarm.managers[2].store.wait_applied(index).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_passes_people_on_and_the_leader_makes_sure_of_them() {
    let mut swarm = Swarm::new().await;
    swarm.join_manager().await;
    let (leader, follower) = (&swarm.managers[0], &swarm.managers[1]);
    assert!(leader.store.leader_now().me);
    let list = ListRequest { kind: ObjectKind::Node as i32, brief: false };
    swarm.control_at(follower).list(list).await.unwrap();
    // A call that a manager passes on in the name of a person who came through a worker.
    let token = swarm.token(Role::Worker).await;
    let worker = swarm.certify(leader.addr, &token).await.unwrap().identity().node;
    for (via, passes) in [(follower.node, true), (worker, false), (NodeId(99), false)] {
        let person = crate::authorize::Who::Person(Person {
            name: "root".into(),
            role: PersonRole::Admin,
            from: String::new(),
            via,
        });
        let caller = crate::authorize::Caller {
            who: person,
            addr: follower.addr,
            forwarded: false,
            claim: Some((operator(), via)),
        };
        let mut control = ControlClient::new(channel(&follower.credentials, leader.addr));
        let outcome = control.list(on_behalf_of(&caller, list)).await.map(drop);
        assert_eq!(outcome.is_ok(), passes, "{via}: {outcome:?}");
    }
}

/// Begins a call whose message says that it has `bytes`, and returns how it was answered and how much was taken of it.
async fn sent(
    credentials: &Credentials,
    addr: SocketAddr,
    path: &str,
    person: Option<&PersonClaim>,
    bytes: u32,
) -> (Code, usize) {
    const CHUNK: usize = 16 << 10;
    let taken = Arc::new(AtomicUsize::new(0));
    let head = [&[0][..], &bytes.to_be_bytes()].concat();
    let chunks = std::iter::repeat_n(vec![0x0a; CHUNK], usize::try_from(bytes).unwrap() / CHUNK);
    let counted = Arc::clone(&taken);
    let frames = std::iter::once(head).chain(chunks).map(move |chunk| {
        counted.fetch_add(chunk.len(), Ordering::Relaxed);
        Ok::<_, Status>(Frame::data(Bytes::from(chunk)))
    });
    let mut request = http::Request::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    if let Some(claim) = person {
        let mut named = tonic::Request::new(());
        named = tonic::service::Interceptor::call(&mut PersonalClaim::new(claim), named).unwrap();
        request.headers_mut().extend(named.into_parts().0.into_headers());
    }
    let mut channel = channel(credentials, addr);
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let answer = channel.call(request).await.unwrap();
    let said = Status::from_header_map(answer.headers());
    let trailers = answer.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
    let status = said.or_else(|| Status::from_header_map(&trailers)).expect("a status");
    (status.code(), taken.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_of_a_message_that_its_sender_may_not_send_or_that_is_too_large() {
    let swarm = with_workers(1).await;
    let (worker, manager) = (&swarm.nodes[0].credentials, &swarm.managers[0]);
    let token = proto::control::person_claim::Proof::Token("rswarm-user-x-y".into());
    let nobody = PersonClaim { proof: Some(token), from: "somewhere".into() };
    let root = operator();
    let large = 32 << 20;
    for (who, path, person, bytes, code) in [
        (worker, "control.v1.Control/Create", None, large, Code::PermissionDenied),
        (worker, "control.v1.Control/ApplyStack", Some(&root), large, Code::PermissionDenied),
        (worker, "control.v1.Control/ApplyStack", Some(&nobody), large, Code::Unauthenticated),
        (worker, "dispatcher.v1.Liveness/Observe", None, large, Code::PermissionDenied),
        (worker, "ca.v1.Membership/JoinRaft", None, large, Code::PermissionDenied),
        (worker, "dispatcher.v1.Work/Attach", None, 1 << 20, Code::OutOfRange),
        (worker, "ca.v1.Ca/IssueCertificate", None, 1 << 20, Code::OutOfRange),
        (&manager.credentials, "control.v1.Control/Create", Some(&root), 65 << 20, Code::OutOfRange),
        (&manager.credentials, "dispatcher.v1.Liveness/Alive", None, 65 << 20, Code::OutOfRange),
    ] {
        let (said, taken) = sent(who, manager.addr, &format!("/rswarm.{path}"), person, bytes).await;
        assert_eq!(said, code, "{path}");
        // What is on its way when the answer comes is in the windows and buffers of the connection.
        assert!(taken < 8 << 20, "{path}: {taken} bytes were taken");
    }
    let (said, taken) =
        sent(worker, manager.addr, "/rswarm.dispatcher.v1.Dispatcher/Session", None, large).await;
    assert!(said != Code::Ok && taken < 8 << 20, "{said:?} {taken}");
}
