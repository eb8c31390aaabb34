//! Many who ask at once, and what they leave to others.

use super::swarm::{Running, Swarm, channel, operator};
use crate::{Account, InNameOf, USERS_UNDER_WAY_MAX};
use model::*;
use proto::{
    PersonalClaim,
    control::{
        BackupRequest, CreateUserTokenRequest, GetRequest, ListRequest, LoginRequest, PersonClaim, UserSpec,
        WatchEvent, WatchRequest, control_client::ControlClient, create_request, person_claim::Proof,
    },
    dispatcher::{FindNetworkRequest, work_client::WorkClient},
    types::ObjectKind,
};
use std::time::Instant;
use tonic::{Code, Status, Streaming, service::interceptor::InterceptedService, transport::Channel};

/// Makes a user and returns what he shows.
async fn user(swarm: &Swarm, name: &str) -> Proof {
    let spec = UserSpec { name: name.to_owned(), role: Some((&PersonRole::Read).into()) };
    swarm.create(create_request::Spec::User(spec)).await.unwrap();
    token(swarm, name).await
}

async fn token(swarm: &Swarm, name: &str) -> Proof {
    let request = CreateUserTokenRequest { user: name.to_owned(), ..Default::default() };
    Proof::Token(swarm.control().create_user_token(request).await.unwrap().into_inner().token)
}

type Control = ControlClient<InterceptedService<Channel, PersonalClaim>>;

/// Through a manager's front door.
fn control(manager: &Running, proof: &Proof) -> Control {
    let claim = PersonClaim { proof: Some(proof.clone()), from: "192.0.2.7:4711".into() };
    ControlClient::with_interceptor(channel(&manager.credentials, manager.addr), PersonalClaim::new(&claim))
}

async fn watch(control: &mut Control) -> Result<Streaming<WatchEvent>, Status> {
    let kinds = vec![ObjectKind::Task as i32];
    control.watch(WatchRequest { since: 0, kinds }).await.map(tonic::Response::into_inner)
}

const NODES: ListRequest = ListRequest { kind: ObjectKind::Node as i32, brief: false };

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_on_goes_by_the_connection_of_whoever_asked() {
    let mut swarm = Swarm::new().await;
    swarm.join_manager().await;
    let worker_token = swarm.token(Role::Worker).await;
    let worker = swarm.certify(swarm.managers[0].addr, &worker_token).await.unwrap();
    let ann = user(&swarm, "ann").await;
    let follower = &swarm.managers[1];
    let index = swarm.managers[0].store.read_index().await.unwrap();
    follower.store.wait_applied(index).await.unwrap();
    assert!(!follower.store.leader_now().me);
    let forgotten = || follower.faults.called_for.lock().unwrap().clear();
    let went = |what: &str, name: &InNameOf| {
        let called = follower.faults.called_for.lock().unwrap().clone();
        assert!(called.contains(name), "{what}: {called:?}");
        forgotten();
    };
    let proofs = [operator().proof.unwrap(), ann];
    for proof in &proofs {
        let account = Account::of(&PersonClaim { proof: Some(proof.clone()), from: String::new() });
        assert_ne!(account, Account::Nobody);
        let his = InNameOf::Person(account);
        let mut asks = control(follower, proof);
        forgotten();
        asks.list(NODES).await.unwrap();
        went("a list", &his);
        let request = GetRequest { kind: ObjectKind::Node as i32, id_or_name: follower.node.to_string() };
        asks.get(request).await.unwrap();
        went("a question", &his);
        let backup = asks.backup(BackupRequest {}).await;
        assert_eq!(backup.is_ok(), matches!(proof, Proof::Operator(_)));
        went("a backup", &his);
    }

    let mut door = ControlClient::new(channel(&follower.credentials, follower.addr));
    let login = LoginRequest { user: "ann".into(), password: "wrong, but long".into(), ..Default::default() };
    door.login(login).await.unwrap_err();
    went("a login", &InNameOf::Stranger);

    swarm.certify(follower.addr, &worker_token).await.unwrap();
    went("a new node", &InNameOf::Joiner);

    let its = InNameOf::Node(worker.identity().node);
    swarm.renew_at(&worker, 1).await.unwrap();
    went("a renewal", &its);
    let request = FindNetworkRequest { id_or_name: "none".into() };
    WorkClient::new(channel(&worker, follower.addr)).find_network(request).await.unwrap_err();
    went("a network", &its);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_leaves_room_for_others_whatever_he_shows() {
    let swarm = Swarm::new().await;
    let manager = &swarm.managers[0];
    let (ann, bob) = (user(&swarm, "ann").await, user(&swarm, "bob").await);
    let tokens = [ann, token(&swarm, "ann").await];
    let mut controls = tokens.map(|token| control(manager, &token));
    // Answers without end, which nobody takes.
    let (held, status) = until_refused(&mut controls).await;
    assert_eq!(held.len(), USERS_UNDER_WAY_MAX / 2);
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("under way") && status.message().contains("hint:"), "{status}");
    // It is not about streams.
    let status = controls[1].list(NODES).await.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");

    let mut bobs = control(manager, &bob);
    bobs.list(NODES).await.unwrap();
    let his = watch(&mut bobs).await.unwrap();
    swarm.control().list(NODES).await.unwrap();
    drop(his);

    // What was taken is over, also where it was refused.
    drop(held);
    let give_up = Instant::now() + super::swarm::LIMIT;
    while let Err(status) = controls[0].list(NODES).await {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(Instant::now() < give_up, "his places are not free: {status}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Begins streams by turns until one is refused.
async fn until_refused(controls: &mut [Control; 2]) -> (Vec<Streaming<WatchEvent>>, Status) {
    let mut held = Vec::new();
    for turn in 0.. {
        match watch(&mut controls[turn % 2]).await {
            Ok(stream) => held.push(stream),
            Err(status) => return (held, status),
        }
        assert!(held.len() <= USERS_UNDER_WAY_MAX, "he has more than all may have");
    }
    unreachable!("it is refused or fails")
}
