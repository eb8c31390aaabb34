//! An agent on a fake host, told what to do by a fake manager.

use crate::{Agent, Options, fake::FakeHost};
use model::*;
use proto::{
    WireId as _,
    dispatcher::{
        AgentMessage, Assignments, Heartbeat, ManagerMessage, StatusAck, Welcome,
        agent_message::Message as Up,
        dispatcher_server::{Dispatcher, DispatcherServer},
        manager_message::Message as Down,
    },
};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Endpoint};

type Down1 = Result<ManagerMessage, Status>;

/// The manager's end of each session, as it comes.
struct FakeManager {
    sessions: mpsc::Sender<(Streaming<AgentMessage>, mpsc::Sender<Down1>)>,
}

#[tonic::async_trait]
impl Dispatcher for FakeManager {
    type SessionStream = ReceiverStream<Down1>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (down, stream) = mpsc::channel(64);
        self.sessions.send((request.into_inner(), down)).await.map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// One session, from the manager's side.
struct Session {
    up: Streaming<AgentMessage>,
    down: mpsc::Sender<Down1>,
    /// Newest status heard of each task.
    heard: std::collections::BTreeMap<TaskId, TaskStatus>,
    acks: Vec<u64>,
    /// Networks that it said it dropped, and when it was told to.
    gone: Vec<(Vec<u8>, u64)>,
    /// Networks that it said it may hold.
    may_hold: Vec<Vec<u8>>,
    acknowledge: bool,
    heartbeats: usize,
}

impl Session {
    async fn send(&self, message: Down) {
        self.down.send(Ok(ManagerMessage { message: Some(message), gone_at: 0 })).await.unwrap();
    }

    /// Says something that nobody may hear any more.
    async fn say(&self, message: Down) {
        drop(self.down.send(Ok(ManagerMessage { message: Some(message), gone_at: 0 })).await);
    }

    async fn assign(&self, complete: bool, sequence: u64, tasks: &[Task]) {
        let tasks = tasks.iter().map(Into::into).collect();
        self.send(Down::Assignments(Assignments { complete, sequence, tasks, ..Assignments::default() }))
            .await;
    }

    /// Reads until `done`, acknowledging what comes.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + std::time::Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < limit, "{what}: heard only {:?}", self.heard);
            let Ok(message) = tokio::time::timeout(Duration::from_millis(200), self.up.message()).await
            else {
                continue;
            };
            match message.unwrap().unwrap().message.unwrap() {
                Up::Heartbeat(_) => {
                    self.heartbeats += 1;
                    self.send(Down::Heartbeat(Heartbeat::default())).await;
                }
                Up::Statuses(report) => {
                    for task in report.tasks {
                        let id = TaskId::from_wire(&task.task).unwrap();
                        self.heard.insert(id, task.status.unwrap().try_into().unwrap());
                    }
                    if self.acknowledge {
                        self.send(Down::StatusAck(StatusAck { sequence: report.sequence })).await;
                    }
                }
                Up::NetworkAck(ack) if ack.gone => self.gone.push((ack.network, ack.version)),
                Up::NetworkAck(ack) => self.acks.push(ack.version),
                Up::Description(_) => {}
                Up::Hello(_) => panic!("a second hello"),
            }
        }
    }

    async fn until_state(&mut self, task: u128, state: TaskState) {
        let what = format!("task {task} {state:?}");
        self.until(&what, |s| s.heard.get(&TaskId(task)).is_some_and(|h| h.state == Some(state))).await;
    }
}

struct Rig {
    dir: tempfile::TempDir,
    host: Arc<FakeHost>,
    addr: SocketAddr,
    sessions: mpsc::Receiver<(Streaming<AgentMessage>, mpsc::Sender<Down1>)>,
    agent: JoinSet<()>,
    cancel: CancellationToken,
    _server: JoinSet<()>,
    clock: Arc<Mutex<i64>>,
    incarnation: watch::Sender<Option<Incarnation>>,
}

async fn rig() -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (sender, sessions) = mpsc::channel(4);
    let mut server = JoinSet::new();
    server.spawn(async move {
        let service = DispatcherServer::new(FakeManager { sessions: sender });
        let router = tonic::transport::Server::builder().add_service(service);
        router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    let host = Arc::new(FakeHost::new("host", addr));
    let mut rig = Rig {
        dir: tempfile::tempdir().unwrap(),
        host,
        addr,
        sessions,
        agent: JoinSet::new(),
        cancel: CancellationToken::new(),
        _server: server,
        clock: Arc::default(),
        incarnation: watch::Sender::new(None),
    };
    rig.start();
    rig
}

impl Rig {
    fn start(&mut self) {
        let clock = self.clock.clone();
        let agent = Agent::new(Options {
            managers: watch::channel(vec![self.addr]).1,
            connect: Arc::new(|addr| Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_lazy()),
            executor: self.host.clone(),
            state_dir: self.dir.path().join("agent"),
            clock: Arc::new(move || {
                let mut now = clock.lock().unwrap();
                *now += 1;
                Timestamp(*now)
            }),
            incarnation: self.incarnation.clone(),
        });
        self.cancel = CancellationToken::new();
        let cancel = self.cancel.clone();
        self.agent.spawn(async move { agent.run(cancel).await.unwrap() });
    }

    /// Ends the agent; its containers stay.
    async fn stop(&mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.agent.join_next().await {
            ended.unwrap();
        }
    }

    async fn session(&mut self) -> Session {
        self.session_of(None).await
    }

    /// Opens a session as a manager of this life of the swarm does.
    async fn session_of(&mut self, incarnation: Option<Incarnation>) -> Session {
        let next = tokio::time::timeout(Duration::from_secs(20), self.sessions.recv());
        let (mut up, down) = next.await.expect("a session in time").unwrap();
        let hello = up.message().await.unwrap().unwrap().message;
        let Some(Up::Hello(hello)) = hello else { panic!("{hello:?}") };
        let session = Session {
            up,
            down,
            heard: Default::default(),
            acks: Vec::new(),
            gone: Vec::new(),
            may_hold: hello.networks,
            acknowledge: true,
            heartbeats: 0,
        };
        let incarnation = incarnation.as_ref().map(Into::into);
        session.send(Down::Welcome(Welcome { incarnation, ..welcome() })).await;
        session
    }

    async fn until(&self, what: &str, done: impl Fn(&FakeHost) -> bool) {
        let limit = Instant::now() + std::time::Duration::from_secs(20);
        while !done(&self.host) {
            assert!(Instant::now() < limit, "{what}: {:?}", *self.host.state());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn table(version: u64) -> NetworkTable {
    NetworkTable {
        network: NetworkId(4),
        name: "net".into(),
        version,
        allocation: NetworkAllocation {
            vni: 4097,
            subnet: "10.0.0.0/24".parse().unwrap(),
            gateway: IpAddr::from([10, 0, 0, 1]),
        },
        internal: false,
        mtu_bytes: 1450,
        endpoints: Default::default(),
        services: Default::default(),
    }
}

fn welcome() -> Welcome {
    let node = Node {
        id: NodeId(9),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        index: 3,
        certified_role: Role::Worker,
        description: None,
        status: NodeStatus::default(),
        manager: None,
    };
    Welcome {
        node: Some((&node).into()),
        heartbeat_period_ms: 200,
        data_path_port: 4789,
        mesh_subnet: "10.254.0.0/16".into(),
        task_pool: "10.255.0.0/16".into(),
        index: 3,
        managers: None,
        incarnation: None,
    }
}

pub(crate) fn task(number: u128, image: &str) -> Task {
    Task {
        id: TaskId(number),
        meta: Meta::default(),
        service: ServiceId(1),
        service_name: "web".into(),
        service_labels: model::Labels::new(),
        slot: Slot::Replica(1),
        spec: Arc::new(TaskSpec {
            container: ContainerSpec { image: image.into(), ..ContainerSpec::default() },
            ..TaskSpec::default()
        }),
        spec_version: 1,
        job_iteration: 0,
        log_driver: None,
        host_ports: Vec::new(),
        generic: model::GenericResources::new(),
        placement: Placement::On(NodeId(9)),
        desired: Desired::Running,
        attachments: Vec::new(),
        gateway_address: None,
        status: TaskStatus::default(),
        desired_at: Timestamp(0),
        node_network: None,
        attaches: None,
    }
}

fn with(mut task: Task, change: impl FnOnce(&mut Task)) -> Task {
    change(&mut task);
    task
}

/// How many tasks an agent that starts now would know.
fn remembered_tasks(dir: &Path) -> usize {
    crate::ledger::Ledger::open(&dir.join("agent")).unwrap().1.tasks.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_of_an_earlier_life_of_the_swarm_is_left_and_not_listened_to() {
    let mut rig = rig().await;
    let life = |number| Some(Incarnation { number, tag: 1 });
    let runs = |host: &FakeHost, number| host.running().contains(&TaskId(number));
    let nothing = || Down::Assignments(Assignments { complete: true, sequence: 2, ..Assignments::default() });
    let first = rig.session_of(None).await;
    first.assign(true, 1, &[task(1, "a")]).await;
    rig.until("it takes the task up", |host| runs(host, 1)).await;

    // Heard from elsewhere: this manager's swarm was recovered without it.
    rig.incarnation.send_replace(life(5));
    first.say(nothing()).await;
    // Nor does it listen to others, before it meets one of the later life.
    for earlier in [life(4), None] {
        rig.session_of(earlier).await.say(nothing()).await;
    }
    let last = rig.session_of(life(6)).await;
    last.assign(true, 1, &[task(1, "a"), task(2, "b")]).await;
    rig.until("it takes the second task up", |host| runs(host, 2)).await;
    assert!(runs(&rig.host, 1), "the first one was ended");
    assert_eq!(*rig.incarnation.borrow(), life(6));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_pull_says_how_far_it_is() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    session.assign(true, 1, &[task(1, "large")]).await;
    let told =
        |s: &Session| s.heard.get(&TaskId(1)).is_some_and(|h| h.message.starts_with("pulling 10.0 MB"));
    session.until("how far the pull is", told).await;
    assert_eq!(session.heard[&TaskId(1)].state, Some(TaskState::Preparing));
    session.until_state(1, TaskState::Running).await;
    assert_eq!(session.heard[&TaskId(1)].message, "started");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_prepared_held_started_and_stopped_as_desired() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    let held = with(task(1, "web"), |t| t.desired = Desired::Ready);
    session.assign(true, 1, &[held]).await;
    session.until_state(1, TaskState::Ready).await;
    assert!(rig.host.running().is_empty(), "it waits while READY is desired");
    session.assign(false, 2, &[task(1, "web")]).await;
    session.until_state(1, TaskState::Running).await;
    session.assign(false, 3, &[with(task(1, "web"), |t| t.desired = Desired::Shutdown)]).await;
    session.until_state(1, TaskState::Shutdown).await;
    assert_eq!(session.heard[&TaskId(1)].container.as_ref().unwrap().exit_code, Some(143));
    assert_eq!(rig.host.state().containers.len(), 1, "its logs stay until it is forgotten");
    let removed_tasks = vec![TaskId(1).to_wire()];
    session
        .send(Down::Assignments(Assignments { sequence: 4, removed_tasks, ..Assignments::default() }))
        .await;
    rig.until("the container is removed", |h| h.state().containers.is_empty()).await;
    rig.stop().await;
    assert_eq!(remembered_tasks(rig.dir.path()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_end_a_task_where_docker_says() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    let images = ["missing", "exit-3", "exit-0", "broken", "flaky"];
    let tasks: Vec<Task> = images.iter().zip(1..).map(|(image, n)| task(n, image)).collect();
    session.assign(true, 1, &tasks).await;
    let check = |n: u128| (TaskId(n), n);
    for (n, state, error) in [
        (1, TaskState::Rejected, Some("No such image: missing:latest")),
        (2, TaskState::Failed, Some("task: non-zero exit (3)")),
        (3, TaskState::Complete, None),
        (4, TaskState::Failed, Some("exec: \"broken\": executable file not found in $PATH")),
        (5, TaskState::Running, None),
    ] {
        session.until_state(n, state).await;
        assert_eq!(session.heard[&check(n).0].error.as_deref(), error, "task {n}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_agent_and_their_exit_codes_are_reported_after_its_restart() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    session.assign(true, 1, &[task(1, "web"), task(2, "web")]).await;
    session.until_state(1, TaskState::Running).await;
    session.until_state(2, TaskState::Running).await;
    drop(session);
    rig.stop().await;
    assert_eq!(rig.host.running().len(), 2);
    rig.host.exit(TaskId(2), 7);
    rig.start();
    let mut session = rig.session().await;
    // Nothing is assigned anew: it speaks from its ledger.
    session.until_state(2, TaskState::Failed).await;
    assert_eq!(session.heard[&TaskId(2)].error.as_deref(), Some("task: non-zero exit (7)"));
    session.until_state(1, TaskState::Running).await;
    let steps = rig.host.state().steps.clone();
    assert_eq!(steps.iter().filter(|s| s.starts_with("start")).count(), 2, "{steps:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_one_tasks_actor_is_that_tasks_affair_and_it_goes_on() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    session.assign(true, 1, &[task(1, "bomb"), task(2, "web")]).await;
    session.until_state(2, TaskState::Running).await;
    session.until_state(1, TaskState::Running).await;
    let steps = rig.host.state().steps.clone();
    assert_eq!(steps.iter().filter(|s| s.starts_with("start")).count(), 2, "{steps:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_rebooted_fails_its_tasks_instead_of_starting_them_again() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    session.assign(true, 1, &[task(1, "web")]).await;
    session.until_state(1, TaskState::Running).await;
    drop(session);
    rig.stop().await;
    rig.host.reboot();
    rig.start();
    let mut session = rig.session().await;
    session.until_state(1, TaskState::Failed).await;
    assert_eq!(rig.host.state().steps.iter().filter(|s| s.starts_with("start")).count(), 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_is_said_again_in_the_next_session() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    session.acknowledge = false;
    session.assign(true, 1, &[task(1, "exit-0")]).await;
    session.until_state(1, TaskState::Complete).await;
    drop(session);
    let mut session = rig.session().await;
    session.until_state(1, TaskState::Complete).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_assignment_removes_what_it_does_not_name_and_containers_of_no_task() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    session.assign(true, 1, &[task(1, "web"), task(2, "web")]).await;
    session.until_state(1, TaskState::Running).await;
    session.until_state(2, TaskState::Running).await;
    drop(session);
    rig.stop().await;
    rig.host.state().containers.insert(TaskId(77), crate::fake::FakeContainer::default());
    rig.start();
    let mut session = rig.session().await;
    session.assign(true, 1, &[task(1, "web")]).await;
    session.until("only task 1 is left", |_| true).await;
    rig.until("only task 1 is left", |h| h.state().containers.keys().eq([&TaskId(1)])).await;
    assert_eq!(rig.host.running(), [TaskId(1)]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_no_time_to_look_at_itself_still_says_that_it_lives() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    rig.host.busy.send_replace(true);
    // It is asked what it is now: its certificate is about to change.
    session.send(Down::RootCa("a root".to_owned())).await;
    let before = session.heartbeats;
    session.until("it sends heartbeats", |s| s.heartbeats >= before + 10).await;
    rig.host.busy.send_replace(false);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_the_assignments_ends_the_session() {
    let mut rig = rig().await;
    let session = rig.session().await;
    session.assign(true, 1, &[]).await;
    session.assign(false, 3, &[]).await;
    let mut session = rig.session().await;
    session.assign(true, 1, &[task(1, "web")]).await;
    session.until_state(1, TaskState::Running).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_manager_is_left() {
    let mut rig = rig().await;
    let _hanging = rig.session().await; // never answers a heartbeat
    let mut session = rig.session().await;
    session.assign(true, 1, &[task(1, "web")]).await;
    session.until_state(1, TaskState::Running).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_assigned_when_this_node_may_have_been_given_up_is_not_begun() {
    let mut rig = rig().await;
    // It speaks, but answers no heartbeat: what it says may have been on its way since before that.
    let mut late = rig.session().await;
    let mut unanswered = 0;
    while unanswered < 4 {
        if let Ok(message) = tokio::time::timeout(Duration::from_millis(50), late.up.message()).await {
            unanswered += u32::from(matches!(message.unwrap().unwrap().message, Some(Up::Heartbeat(_))));
        }
        late.send(Down::Managers(Default::default())).await;
    }
    late.assign(true, 1, &[task(1, "web")]).await;
    let mut session = rig.session().await;
    session.assign(true, 1, &[task(2, "web")]).await;
    session.until_state(2, TaskState::Running).await;
    assert!(!session.heard.contains_key(&TaskId(1)), "{:?}", session.heard);
    assert_eq!(rig.host.running(), [TaskId(2)]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_applied_before_the_tasks_that_need_them_and_acknowledged() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    let attached = with(task(1, "web"), |t| {
        t.attachments = vec![Attachment {
            network: NetworkId(4),
            address: "10.0.0.5/24".parse().unwrap(),
            aliases: vec![],
        }];
    });
    session.assign(true, 1, &[attached]).await;
    session.until_state(1, TaskState::Preparing).await;
    assert!(rig.host.state().steps.is_empty(), "no network yet");
    let table = table(42);
    session.send(Down::NetworkTable((&table).into())).await;
    session.until_state(1, TaskState::Running).await;
    session.until("the table is acknowledged", |s| s.acks == [42]).await;
    let gone = ManagerMessage { message: Some(Down::NetworkGone(NetworkId(4).to_wire())), gone_at: 50 };
    session.down.send(Ok(gone)).await.unwrap();
    rig.until("the network is dropped", |h| h.state().networks.is_empty()).await;
    let said = (NetworkId(4).to_wire(), 50);
    session.until("the agent says so", |s| s.gone == [said.clone()]).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_at_each_session_which_networks_it_may_hold_until_they_are_dropped() {
    let mut rig = rig().await;
    let network = NetworkId(4).to_wire();
    let mut first = rig.session().await;
    assert!(first.may_hold.is_empty());
    first.send(Down::NetworkTable((&table(42)).into())).await;
    first.assign(true, 1, &[]).await;
    first.until("the table is acknowledged", |s| s.acks == [42]).await;
    drop(first);
    let mut second = rig.session().await;
    assert_eq!(second.may_hold, std::slice::from_ref(&network));
    second.assign(true, 1, &[]).await; // without a table of it: it is not this node's any more
    second.until("it is dropped", |s| s.gone == [(network.clone(), 0)]).await;
    assert!(rig.host.state().networks.is_empty());
    drop(second);
    assert!(rig.session().await.may_hold.is_empty());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_waits_for_the_secrets_it_names_and_none_is_written_to_disk() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    let secret = Secret {
        id: SecretId(5),
        meta: Meta::default(),
        spec: SecretSpec {
            templated: false,
            name: "key".into(),
            labels: Labels::new(),
            data: SecretBytes(b"opensesame".to_vec()),
        },
    };
    let named = with(task(1, "web"), |t| {
        Arc::make_mut(&mut t.spec).container.secrets.push(FileRef {
            id: SecretId(5),
            name: "key".into(),
            target: "key".into(),
            uid: "0".into(),
            gid: "0".into(),
            mode: 0o444,
        });
    });
    session.assign(true, 1, &[named]).await;
    session.until_state(1, TaskState::Preparing).await;
    let secrets = vec![(&secret).into()];
    session.send(Down::Assignments(Assignments { sequence: 2, secrets, ..Assignments::default() })).await;
    session.until_state(1, TaskState::Running).await;
    let held = rig.host.state().containers[&TaskId(1)].secrets.clone();
    assert_eq!(held["key"], b"opensesame");
    rig.stop().await;
    let bytes = std::fs::read(rig.dir.path().join("agent/ledger")).unwrap();
    assert!(bytes.windows(3).any(|w| w == b"key"), "the secret is named");
    assert!(!bytes.windows(10).any(|w| w == b"opensesame"));
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_removes_every_container_and_the_ledger() {
    let mut rig = rig().await;
    let mut session = rig.session().await;
    session.assign(true, 1, &[task(1, "web"), task(2, "exit-0")]).await;
    session.until_state(1, TaskState::Running).await;
    session.until_state(2, TaskState::Complete).await;
    rig.stop().await;
    crate::forget(&*rig.host, &rig.dir.path().join("agent")).await.unwrap();
    assert!(rig.host.state().containers.is_empty());
    assert!(!rig.dir.path().join("agent").exists());
}
