//! What the history tells, and certificates of users that were taken back.

use super::{
    state::service_spec,
    swarm::{Control, Swarm, channel, until},
};
use crate::authorize::Method;
use model::*;
use pki::{JoinToken, NodeKey, PersonCertificate, PersonToken, RootCa};
use proto::{
    PersonalClaim, WireId as _,
    ca::{NoteRequest, membership_client::MembershipClient},
    control::{
        ApplyStackRequest, BackupRequest, CreateUserTokenRequest, EnterTaskRequest, ExplainServiceRequest,
        GetRequest, GetSwarmRequest, IssueUserCertificateRequest, JudgeStackRequest, ListRequest,
        LoginRequest, PersonClaim, RemoveRequest, RemoveUserTokenRequest, RevokeUserCertificateRequest,
        RollbackStackRequest, SetPasswordRequest, UpdateRequest, UpdateSwarmRequest, UserCertificate,
        UserSpec, WatchRequest, WhoAmIRequest, control_client::ControlClient, create_request,
        get_swarm_request::Wanted, person_claim::Proof, update_request,
    },
    types::{self, ObjectKind},
};
use testkit::on_a_shared_machine;
use tonic::Code;

/// As somebody asks through a manager's front door.
fn control_as(swarm: &Swarm, proof: Proof) -> Control {
    control_at_as(swarm, 0, proof)
}

fn control_at_as(swarm: &Swarm, manager: usize, proof: Proof) -> Control {
    let manager = &swarm.managers[manager];
    let claim = PersonClaim { proof: Some(proof), from: "192.0.2.7:4711".into() };
    let channel = channel(&manager.credentials, manager.addr);
    ControlClient::with_interceptor(channel, PersonalClaim::new(&claim))
}

async fn user(swarm: &Swarm, name: &str, role: PersonRole) -> UserId {
    let spec = UserSpec { name: name.to_owned(), role: Some((&role).into()) };
    UserId(swarm.create(create_request::Spec::User(spec)).await.unwrap())
}

/// Returns who, what, to whom, and why, of all that was told, in the order of time.
fn told(swarm: &Swarm) -> Vec<String> {
    let line = |r: &AuditRecord| format!("{}: {} {}: {}", r.person, r.action, r.object, r.message);
    swarm.view().audit.values().map(|record| line(record)).collect()
}

#[track_caller]
fn tells(swarm: &Swarm, words: &str, times: usize) {
    let told = told(swarm);
    let found = told.iter().filter(|line| line.contains(words)).count();
    assert_eq!(found, times, "{words} in {told:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_renewals_refusals_and_reads_of_keys_are_told() {
    let swarm = Swarm::new().await;
    let addr = swarm.managers[0].addr;
    let token = swarm.token(Role::Worker).await;
    tells(&swarm, "root@host: read swarm join-token, unlock-key", 1);
    // A program that asks every second is told once.
    for _ in 0..3 {
        for wanted in [Wanted::JoinTokens, Wanted::UnlockKey] {
            let request = GetSwarmRequest { wanted: wanted as i32 };
            let cluster = swarm.control().get_swarm(request).await.unwrap().into_inner();
            assert_eq!(
                cluster.worker_token.is_empty(),
                wanted == Wanted::UnlockKey,
                "no more than is needed"
            );
        }
    }
    tells(&swarm, "read swarm join-token:", 1);
    tells(&swarm, "read swarm unlock-key:", 1);

    let node = swarm.certify(addr, &token).await.unwrap();
    let id = node.identity().node;
    tells(&swarm, &format!("join token: join node {id}: swarm-worker"), 1);
    for _ in 0..3 {
        swarm.renew(&node).await.unwrap();
    }
    tells(&swarm, "renew certificate", 1);
    let digest = RootCa::digest_of(&swarm.managers[0].credentials.root_pem()).unwrap();
    let wrong = JoinToken::generate(digest).unwrap().to_string();
    for _ in 0..3 {
        assert_eq!(swarm.certify(addr, &wrong).await.unwrap_err().code(), Code::InvalidArgument);
    }
    tells(&swarm, "join token: join refused swarm: A valid join token is necessary", 1);

    let ann = user(&swarm, "ann", PersonRole::Read).await;
    let version = swarm.view().users.get(&ann).unwrap().meta.version;
    let role = PersonRole::Deploy { stacks: vec!["shop*".into()] };
    let spec = UserSpec { name: "ann".into(), role: Some((&role).into()) };
    let spec = Some(update_request::Spec::User(spec));
    let request = UpdateRequest { id: ann.to_wire(), version, spec, registry_auth: None };
    swarm.control().update(request).await.unwrap();
    tells(&swarm, "root@host: update user ann: role read -> deploy of shop*", 1);
    swarm.update_node(id, |spec| spec.role = Role::Manager).await.unwrap();
    tells(&swarm, "role worker -> manager", 1);

    // Who shows what is nobody's is turned away, and so is it told; the secret is not.
    let stolen = PersonToken::generate(ann).unwrap();
    let mut thief = control_as(&swarm, Proof::Token(stolen.to_string()));
    for _ in 0..20 {
        let refused = thief.who_am_i(WhoAmIRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    tells(&swarm, &format!("ann: authorisation refused token {}", stolen.id), 1);
    let secret = stolen.to_string();
    let secret = secret.rsplit('-').next().unwrap();
    tells(&swarm, secret, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manager_refuses_that_does_not_lead_is_told_too() {
    let mut swarm = Swarm::new().await;
    swarm.join_manager().await;
    let ann = user(&swarm, "ann", PersonRole::Read).await;
    let stolen = PersonToken::generate(ann).unwrap();
    let mut thief = control_at_as(&swarm, 1, Proof::Token(stolen.to_string()));
    for _ in 0..5 {
        let refused = thief.who_am_i(WhoAmIRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    let words = format!("ann: authorisation refused token {}", stolen.id);
    until("it is told", || told(&swarm).iter().any(|line| line.contains(&words))).await;
    tells(&swarm, &words, 1);
    // The leader takes such a word from members only.
    let worker = swarm.certify(swarm.managers[0].addr, &swarm.token(Role::Worker).await).await.unwrap();
    let mut leader = MembershipClient::new(channel(&worker, swarm.managers[0].addr));
    let lie = NoteRequest { person: "bob".into(), ..NoteRequest::default() };
    assert_eq!(leader.note(lie).await.unwrap_err().code(), Code::PermissionDenied);
    tells(&swarm, "bob", 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_all_there_is_is_for_admins_and_is_told() {
    let mut swarm = Swarm::new().await;
    swarm.join_manager().await;
    let ann = user(&swarm, "ann", PersonRole::Deploy { stacks: Vec::new() }).await;
    let request = IssueUserCertificateRequest {
        user: "ann".into(),
        csr: NodeKey::generate().unwrap().csr_pem().unwrap(),
        lifetime: Some(types::Duration { nanos: 3_600_000_000_000 }),
    };
    let chain = swarm.control().issue_user_certificate(request).await.unwrap().into_inner().chain;
    let serial = PersonCertificate::from_pem(&chain).unwrap().serial;
    let mut reader = control_as(&swarm, Proof::Certificate(UserCertificate { user: ann.to_wire(), serial }));
    let refused = reader.backup(BackupRequest {}).await.unwrap_err();
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains("admin"), "{refused}");
    tells(&swarm, "ann: read refused swarm backup", 1);

    // Through a manager that does not lead, too.
    for manager in &swarm.managers {
        let mut pieces = swarm.control_at(manager).backup(BackupRequest {}).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            bytes.extend(piece.data);
        }
        let back = store::backup::unpack(&bytes).unwrap().tables;
        let (cluster, now) = (back.cluster.unwrap(), swarm.view());
        let now = now.cluster.as_ref().unwrap();
        assert_eq!((&cluster.root_ca_key, &cluster.manager_token), (&now.root_ca_key, &now.manager_token));
        assert!(back.users.get(&ann).is_some() && back.nodes.len() == 2);
        let itself = back.audit.values().filter(|r| r.action == "backup" && r.object == "swarm");
        assert_eq!(itself.count(), 1, "it says that it was made");
    }
    tells(&swarm, "root@host: backup swarm", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_worth_nothing_at_once_and_the_others_go_on() {
    let swarm = Swarm::new().await;
    let ann = user(&swarm, "ann", PersonRole::Admin).await;
    let issue = async || {
        let request = IssueUserCertificateRequest {
            user: "ann".into(),
            csr: NodeKey::generate().unwrap().csr_pem().unwrap(),
            lifetime: Some(types::Duration { nanos: 3_600_000_000_000 }),
        };
        let chain = swarm.control().issue_user_certificate(request).await.unwrap().into_inner().chain;
        PersonCertificate::from_pem(&chain).unwrap().serial
    };
    let (stolen, kept) = (issue().await, issue().await);
    let shown =
        |serial: &str| Proof::Certificate(UserCertificate { user: ann.to_wire(), serial: serial.to_owned() });
    let listed: Vec<_> = swarm
        .view()
        .users
        .get(&ann)
        .unwrap()
        .certificates
        .iter()
        .map(|c| (c.serial.clone(), c.revoked))
        .collect();
    assert_eq!(listed, [(stolen.clone(), false), (kept.clone(), false)]);

    let mut thief = control_as(&swarm, shown(&stolen));
    let watch = || WatchRequest { since: 0, kinds: vec![ObjectKind::Service as i32] };
    let mut stream = thief.watch(watch()).await.unwrap().into_inner();
    let mut own = control_as(&swarm, shown(&kept));
    own.who_am_i(WhoAmIRequest {}).await.unwrap();
    let unknown = RevokeUserCertificateRequest { user: "ann".into(), serial: "00".into() };
    let refused = swarm.control().revoke_user_certificate(unknown).await.unwrap_err();
    assert!(refused.code() == Code::NotFound && refused.message().contains("inspect ann"), "{refused}");
    let request = RevokeUserCertificateRequest { user: "ann".into(), serial: stolen.clone() };
    swarm.control().revoke_user_certificate(request).await.unwrap();

    let ended = async { while stream.message().await.is_ok_and(|message| message.is_some()) {} };
    let limit = on_a_shared_machine(Duration::from_secs(1));
    tokio::time::timeout(limit, ended).await.expect("the stream to end at once");
    let refused = thief.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert!(refused.message().contains("was revoked"), "{refused}");
    own.who_am_i(WhoAmIRequest {}).await.unwrap();
    assert!(swarm.view().users.get(&ann).unwrap().has_revoked(&stolen), "known until it expires");
    until("it is told", || told(&swarm).iter().any(|line| line.contains(&format!("certificate {stolen}"))))
        .await;
}

/// Calls an RPC of people so that it does something; returns what the history is to tell of it, if anything.
async fn done(swarm: &Swarm, method: Method) -> Option<&'static str> {
    let mut control = swarm.control();
    let (kind, ann) = (ObjectKind::Service as i32, "ann".to_owned());
    let hour = Some(types::Duration { nanos: 3_600_000_000_000 });
    let stack = |message: &str| {
        let (name, message) = ("shop".to_owned(), message.to_owned());
        ApplyStackRequest { name, message, ..ApplyStackRequest::default() }
    };
    let user = || swarm.view().users.values().next().cloned().unwrap();
    match method {
        Method::Get => {
            control.get(GetRequest { kind, id_or_name: "web".into() }).await.unwrap();
            None
        }
        Method::List => {
            control.list(ListRequest { kind, brief: false }).await.unwrap();
            None
        }
        Method::Watch => {
            control.watch(WatchRequest { since: 0, kinds: vec![kind] }).await.unwrap();
            None
        }
        Method::WhoAmI => {
            control.who_am_i(WhoAmIRequest {}).await.unwrap();
            None
        }
        Method::ExplainService => {
            control.explain_service(ExplainServiceRequest { service: "web".into() }).await.unwrap();
            None
        }
        Method::ForeseeStack => {
            control.foresee_stack(stack("perhaps")).await.unwrap();
            None
        }
        Method::Create => {
            let spec = UserSpec { name: ann, role: Some((&PersonRole::Read).into()) };
            swarm.create(create_request::Spec::User(spec)).await.unwrap();
            Some("create user ann")
        }
        Method::Update => {
            let (id, version) = (user().id.to_wire(), user().meta.version);
            let spec = UserSpec { name: ann, role: Some((&PersonRole::Admin).into()) };
            let spec = Some(update_request::Spec::User(spec));
            control.update(UpdateRequest { id, version, spec, registry_auth: None }).await.unwrap();
            Some("update user ann")
        }
        Method::Remove => {
            let id = swarm.create_service(&service_spec("gone")).await.unwrap().to_wire();
            control.remove(RemoveRequest { kind, id, force: false }).await.unwrap();
            Some("remove service gone")
        }
        Method::GetSwarm => {
            let wanted = Wanted::JoinTokens as i32;
            control.get_swarm(GetSwarmRequest { wanted }).await.unwrap();
            Some("read swarm join-token")
        }
        Method::UpdateSwarm => {
            let view = swarm.view();
            let cluster = view.cluster.as_ref().unwrap();
            let spec = Some((&ClusterSpec { task_history_limit: 3, ..cluster.spec.clone() }).into());
            let version = cluster.meta.version;
            let request = UpdateSwarmRequest { version, spec, ..UpdateSwarmRequest::default() };
            control.update_swarm(request).await.unwrap();
            Some("update swarm")
        }
        Method::Backup => {
            control.backup(BackupRequest {}).await.unwrap();
            Some("backup swarm")
        }
        Method::ApplyStack => {
            control.apply_stack(stack("one")).await.unwrap();
            control.apply_stack(stack("two")).await.unwrap();
            Some("deploy stack shop: two")
        }
        Method::RollbackStack => {
            let request = RollbackStackRequest { name: "shop".into(), ..RollbackStackRequest::default() };
            control.rollback_stack(request).await.unwrap();
            Some("roll back stack shop")
        }
        Method::JudgeStack => {
            let name = "shop".to_owned();
            control.judge_stack(JudgeStackRequest { name, revision: 1, came_up: true }).await.unwrap();
            Some("came up stack shop")
        }
        Method::EnterTask => {
            let of_web = || swarm.view().tasks.values().find(|t| t.name() == "web.1").map(|t| t.id);
            until("there is a task", || of_web().is_some()).await;
            let task = of_web().unwrap().to_wire();
            control.enter_task(EnterTaskRequest { task, action: "exec".into() }).await.unwrap();
            Some("exec task web.1")
        }
        Method::CreateUserToken => {
            let request = CreateUserTokenRequest { user: ann, label: "l".into(), lifetime: hour };
            control.create_user_token(request).await.unwrap();
            Some("create token user ann")
        }
        Method::RemoveUserToken => {
            let token = user().tokens[0].id.clone();
            control.remove_user_token(RemoveUserTokenRequest { user: ann, token }).await.unwrap();
            Some("remove token user ann")
        }
        Method::SetPassword => {
            let password = "correct horse battery staple".to_owned();
            control.set_password(SetPasswordRequest { user: ann, password }).await.unwrap();
            Some("password user ann")
        }
        Method::IssueUserCertificate => {
            let csr = NodeKey::generate().unwrap().csr_pem().unwrap();
            let request = IssueUserCertificateRequest { user: ann, csr, lifetime: hour };
            control.issue_user_certificate(request).await.unwrap();
            Some("issue certificate user ann")
        }
        Method::RevokeUserCertificate => {
            let serial = user().certificates[0].serial.clone();
            control
                .revoke_user_certificate(RevokeUserCertificateRequest { user: ann, serial })
                .await
                .unwrap();
            Some("revoke certificate user ann")
        }
        Method::Login => {
            let manager = &swarm.managers[0];
            let mut door = ControlClient::new(channel(&manager.credentials, manager.addr));
            let password = "correct horse battery staple".to_owned();
            let request = LoginRequest { user: ann, password, lifetime: hour, ..LoginRequest::default() };
            door.login(request).await.unwrap();
            Some("ann: login user ann")
        }
        other => panic!("{other:?} is new: say here what it does, and what the history tells of it"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_of_people_that_changes_something_or_gives_a_key_away_is_told() {
    let swarm = Swarm::new().await;
    swarm.create_service(&service_spec("web")).await.unwrap();
    let of_people = Method::ALL.iter().filter(|method| method.name().0 == "rswarm.control.v1.Control");
    let mut seen = 0;
    for method in of_people {
        let before = told(&swarm).len();
        let words = done(&swarm, *method).await;
        let now = told(&swarm);
        match words {
            None => assert_eq!(now.len(), before, "{method:?} is told, and does nothing: {now:#?}"),
            Some(words) => {
                let new = now.len() > before && now.iter().any(|line| line.contains(words));
                assert!(new, "{method:?} is not told as {words:?}: {now:#?}");
            }
        }
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}
