//! Each kind of caller against every RPC.

use super::*;
use crate::{
    standing::Told,
    tests::state::{State, state},
};
use model::{ClusterId, ManagerStatus, NodeState};
use pki::Identity;
use proto::control::Operator;
use std::{collections::BTreeSet, path::Path};

const NOW: Timestamp = Timestamp(1_000);
const MANAGER: u128 = 1;
const JOINING: u128 = 2;
const WORKER: u128 = 3;
const DEMOTED: u128 = 4;
const LEFT: u128 = 5;
const REMOVED: u128 = 8;
const STRANGER: u128 = 9;

fn member(node: &mut model::Node) {
    node.spec.role = Role::Manager;
    let raft_id = u64::try_from(node.id.0).unwrap();
    node.manager = Some(ManagerStatus { raft_id, addr: "192.0.2.1:2377".parse().unwrap(), seen: None });
}

/// A swarm with a node of each kind.
fn swarm() -> State {
    let nodes = [MANAGER, JOINING, WORKER, DEMOTED, LEFT].into_iter().fold(state().cluster(), State::node);
    nodes
        .change_node(MANAGER, member)
        .change_node(JOINING, |n| n.spec.role = Role::Manager)
        .change_node(DEMOTED, |n| {
            member(n); // its place in Raft is given up last
            n.spec.role = Role::Worker;
        })
        .change_node(LEFT, |n| n.status.state = NodeState::Disconnected)
        .revoke(REMOVED)
}

fn request(tables: &Tables, certificate: Option<(u128, Role)>) -> Request<()> {
    let cluster = tables.cluster.as_ref().unwrap().id;
    let identity = certificate.map(|(id, role)| Identity { node: NodeId(id), role, cluster });
    let mut request = Request::new(());
    request.extensions_mut().insert(Peer { identity, expired: None, addr: "192.0.2.9:5".parse().unwrap() });
    request
}

fn judge(method: Method, request: &Request<()>, tables: &Tables) -> Result<Caller, Status> {
    authorize(method, &Evidence::of(request)?, &Known::State(tables), NOW).map_err(|refused| refused.status)
}

/// Returns the RPCs that a holder of this certificate may call.
fn allowed(tables: &Tables, certificate: Option<(u128, Role)>) -> Vec<Method> {
    let request = request(tables, certificate);
    Method::ALL.iter().copied().filter(|m| judge(*m, &request, tables).is_ok()).collect()
}

fn with_rules(rules: &[Rule]) -> Vec<Method> {
    Method::ALL.iter().copied().filter(|m| rules.contains(&m.rule())).collect()
}

fn operator() -> PersonClaim {
    let operator = Operator { uid: 0, name: "root".into(), host: "h1".into() };
    PersonClaim { proof: Some(Proof::Operator(operator)), from: "unix uid 0 on h1".into() }
}

fn with_claim(mut request: Request<()>, claim: &PersonClaim) -> Request<()> {
    use tonic::service::Interceptor as _;
    let metadata = PersonalClaim::new(claim).call(Request::new(())).unwrap().metadata().clone();
    *request.metadata_mut() = metadata;
    request
}

/// Returns a call of `caller` as the holder of `through` passes it on.
fn passed_on(tables: &Tables, caller: &Caller, through: Option<(u128, Role)>) -> Request<()> {
    let mut request = request(tables, through);
    *request.metadata_mut() = on_behalf_of(caller, ()).metadata().clone();
    request
}

fn node(id: u128, role: Role) -> Caller {
    let who = Who::Node { id: NodeId(id), role };
    Caller { who, addr: "192.0.2.7:1".parse().unwrap(), forwarded: false, claim: None }
}

/// Reads which RPCs there are, where they are written down.
fn rpcs_of_the_proto_files() -> BTreeSet<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "proto") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let (mut package, mut service) = ("", "");
        for line in text.lines().map(str::trim) {
            let word = |keyword| {
                line.strip_prefix(keyword).map(|rest: &str| {
                    rest.split(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_')).next().unwrap()
                })
            };
            package = word("package ").unwrap_or(package);
            service = word("service ").unwrap_or(service);
            if let Some(rpc) = word("rpc ") {
                found.insert((format!("{package}.{service}"), rpc.to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_rpc_has_a_rule() {
    let ruled = Method::ALL.iter().map(|m| m.name()).map(|(s, r)| (s.to_owned(), r.to_owned())).collect();
    assert!(Method::ALL.len() > 25);
    assert_eq!(rpcs_of_the_proto_files(), ruled);
}

#[test]
fn a_certificate_gives_no_more_than_the_state_says() {
    let tables = swarm().tables();
    let (open, node, manager) = (
        [Rule::Anyone],
        [Rule::Anyone, Rule::Node],
        [Rule::Anyone, Rule::Node, Rule::Manager, Rule::Announcer],
    );
    let member = [Rule::Anyone, Rule::Node, Rule::Manager, Rule::Member, Rule::Announcer];
    for (certificate, rules) in [
        (None, &open[..]),
        (Some((MANAGER, Role::Manager)), &member[..]),
        (Some((MANAGER, Role::Worker)), &node), // promoted, but not certified anew yet
        (Some((JOINING, Role::Manager)), &manager),
        (Some((WORKER, Role::Worker)), &node),
        (Some((WORKER, Role::Manager)), &node), // it was a manager once
        (Some((DEMOTED, Role::Manager)), &node),
        (Some((LEFT, Role::Manager)), &[]),
        (Some((LEFT, Role::Worker)), &[]),
        (Some((REMOVED, Role::Manager)), &[]),
        (Some((REMOVED, Role::Worker)), &[]),
        (Some((STRANGER, Role::Manager)), &[Rule::Announcer]), // of a swarm that begins anew without this node
        (Some((STRANGER, Role::Worker)), &[]),
    ] {
        assert_eq!(allowed(&tables, certificate), with_rules(rules), "{certificate:?}");
    }
}

#[test]
fn a_certificate_of_another_swarm_and_a_manager_without_state_allow_nothing() {
    let tables = swarm().tables();
    let other = state().cluster().node(MANAGER).change_node(MANAGER, member).tables();
    let request = request(&other, Some((MANAGER, Role::Manager)));
    for method in Method::ALL {
        let refused = judge(*method, &request, &tables).unwrap_err();
        assert_eq!(refused.message(), "the certificate is of another swarm");
        let refused = judge(*method, &request, &Tables::default()).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{method:?}: asked again later");
        assert!(judge(*method, &Request::new(()), &tables).is_err(), "{method:?}: past the listener");
    }
}

#[test]
fn only_the_word_of_a_current_manager_makes_an_operator() {
    let tables = swarm().tables();
    let people = with_rules(&[Rule::Person]);
    for (certificate, says_so) in [
        (Some((MANAGER, Role::Manager)), true),
        (Some((MANAGER, Role::Worker)), false),
        (Some((JOINING, Role::Manager)), false),
        (Some((DEMOTED, Role::Manager)), false),
        (Some((WORKER, Role::Worker)), false),
        (Some((REMOVED, Role::Manager)), false),
        (Some((STRANGER, Role::Manager)), false),
        (None, false),
    ] {
        let request = with_claim(request(&tables, certificate), &operator());
        let may: Vec<Method> =
            Method::ALL.iter().copied().filter(|m| judge(*m, &request, &tables).is_ok()).collect();
        assert_eq!(may, if says_so { people.clone() } else { Vec::new() }, "{certificate:?}");
    }
    let nobody = with_claim(request(&tables, Some((MANAGER, Role::Manager))), &PersonClaim::default());
    assert!(Method::ALL.iter().all(|m| judge(*m, &nobody, &tables).is_err()));
}

#[test]
fn a_forwarded_call_is_the_callers_and_is_judged_again() {
    let tables = swarm().tables();
    let through = Some((MANAGER, Role::Manager));
    let worker = node(WORKER, Role::Worker);
    let caller = judge(Method::Attach, &passed_on(&tables, &worker, through), &tables).unwrap();
    assert_eq!(caller, Caller { forwarded: true, ..worker.clone() });
    // Named as more than the state says, or as what the state does not know.
    let lies = [(WORKER, Role::Manager), (DEMOTED, Role::Manager)];
    for (id, role) in lies {
        assert!(judge(Method::JoinRaft, &passed_on(&tables, &node(id, role), through), &tables).is_err());
    }
    for id in [REMOVED, LEFT, STRANGER] {
        for method in Method::ALL {
            let request = passed_on(&tables, &node(id, Role::Manager), through);
            assert!(judge(*method, &request, &tables).is_err(), "{id} {method:?}");
        }
    }
}

#[test]
fn only_current_managers_forward_and_only_what_is_forwarded_at_all() {
    let tables = swarm().tables();
    for through in [
        None,
        Some((WORKER, Role::Worker)),
        Some((WORKER, Role::Manager)),
        Some((JOINING, Role::Manager)),
        Some((DEMOTED, Role::Manager)),
        Some((REMOVED, Role::Manager)),
        Some((STRANGER, Role::Manager)),
    ] {
        for method in Method::ALL {
            let request = passed_on(&tables, &node(MANAGER, Role::Manager), through);
            assert!(judge(*method, &request, &tables).is_err(), "{through:?} {method:?}");
        }
    }
    for method in Method::ALL.iter().filter(|m| m.way() == Way::Direct) {
        let request = passed_on(&tables, &node(MANAGER, Role::Manager), Some((MANAGER, Role::Manager)));
        assert!(judge(*method, &request, &tables).is_err(), "{method:?}");
    }
}

#[test]
fn a_forwarded_person_is_made_sure_of_again() {
    let tables = swarm().tables();
    let asked = with_claim(request(&tables, Some((MANAGER, Role::Manager))), &operator());
    let caller = judge(Method::Create, &asked, &tables).unwrap();
    let Who::Person(person) = &caller.who else { panic!("{caller:?}") };
    assert_eq!(
        (person.name.as_str(), &person.role, person.via),
        ("root@h1", &PersonRole::Admin, NodeId(MANAGER))
    );
    let again = passed_on(&tables, &caller, Some((MANAGER, Role::Manager)));
    let at_the_leader = judge(Method::Create, &again, &tables).unwrap();
    assert_eq!(at_the_leader, Caller { forwarded: true, ..caller.clone() });
    // The front door's node is a manager no more.
    let since = swarm().change_node(MANAGER, |n| n.spec.role = Role::Worker).tables();
    assert!(judge(Method::Create, &again, &since).is_err());
    for via in [WORKER, DEMOTED, JOINING, REMOVED, STRANGER] {
        let lie = Caller { claim: Some((operator(), NodeId(via))), ..caller.clone() };
        let request = passed_on(&tables, &lie, Some((MANAGER, Role::Manager)));
        assert!(judge(Method::Create, &request, &tables).is_err(), "{via}");
    }
}

#[test]
fn what_was_allowed_ends_when_the_state_says_so() {
    let before = swarm().tables();
    let demoted = swarm().change_node(MANAGER, |n| n.spec.role = Role::Worker).tables();
    let asked = with_claim(request(&before, Some((MANAGER, Role::Manager))), &operator());
    let person = judge(Method::Watch, &asked, &before).unwrap();
    assert!(still(Method::Watch, &person, &before, NOW));
    assert!(!still(Method::Watch, &person, &demoted, NOW));
    let worker = node(WORKER, Role::Worker);
    assert!(still(Method::Session, &worker, &before, NOW));
    assert!(!still(Method::Session, &node(REMOVED, Role::Worker), &before, NOW));
    assert!(still(Method::Tunnel, &node(MANAGER, Role::Manager), &before, NOW));
    assert!(!still(Method::Tunnel, &node(MANAGER, Role::Manager), &demoted, NOW));
}

#[test]
fn a_worker_judges_by_what_it_was_told() {
    let told =
        Told { cluster: ClusterId(1), managers: [NodeId(MANAGER)].into(), removed: [NodeId(REMOVED)].into() };
    let may = |method, id, role| {
        let identity = Some(Identity { node: NodeId(id), role, cluster: ClusterId(1) });
        let peer = Peer { identity, expired: None, addr: "192.0.2.9:5".parse().unwrap() };
        let evidence = Evidence { peer, forwarded: None, person: None };
        authorize(method, &evidence, &Known::Told(&told), NOW).is_ok()
    };
    assert!(may(Method::Tunnel, MANAGER, Role::Manager));
    assert!(!may(Method::Tunnel, MANAGER, Role::Worker));
    assert!(!may(Method::Tunnel, WORKER, Role::Manager), "it was a manager once");
    assert!(!may(Method::Tunnel, REMOVED, Role::Manager));
    assert!(may(Method::ReadBlob, WORKER, Role::Worker));
    assert!(!may(Method::ReadBlob, REMOVED, Role::Worker));
}

#[test]
fn a_user_is_whom_a_token_or_certificate_names_while_the_state_knows_him() {
    use model::{SecretBytes, User, UserToken};
    use proto::control::UserCertificate;
    let mut tables = swarm().tables();
    let token = pki::PersonToken::generate(UserId(7)).unwrap();
    let kept = UserToken {
        id: token.id.clone(),
        hash: SecretBytes(token.hash().to_vec()),
        label: String::new(),
        created: Timestamp(0),
        expires: Some(Timestamp(NOW.0 + 1)),
    };
    let user = |tokens| User {
        id: UserId(7),
        meta: model::Meta { version: 1, ..Default::default() },
        name: "ann".into(),
        role: PersonRole::Read,
        password: None,
        tokens,
        certificates: Vec::new(),
    };
    tables.restore(model::Object::User(user(vec![kept.clone()]).into())).unwrap();
    let claim = |proof| PersonClaim { proof: Some(proof), from: "192.0.2.5:1".into() };
    let shown = claim(Proof::Token(token.to_string()));
    let certificate = |user: UserId| {
        claim(Proof::Certificate(UserCertificate { user: user.to_wire(), serial: "1".into() }))
    };
    let name = |claim: &PersonClaim, manager: bool, now, tables: &Tables| {
        resolve_person(claim, NodeId(MANAGER), manager, tables, now).map(|p| (p.name, p.role)).ok()
    };
    let ann = Some(("ann".to_owned(), PersonRole::Read));
    for manager in [true, false] {
        assert_eq!(name(&shown, manager, NOW, &tables), ann, "any node may pass a token on");
    }
    assert_eq!(name(&shown, true, Timestamp(NOW.0 + 1), &tables), None, "it has expired");
    let other = pki::PersonToken::generate(UserId(7)).unwrap();
    assert_eq!(name(&claim(Proof::Token(other.to_string())), true, NOW, &tables), None);
    assert_eq!(name(&claim(Proof::Token(String::new())), true, NOW, &tables), None);
    assert_eq!(name(&certificate(UserId(7)), true, NOW, &tables), ann);
    assert_eq!(name(&certificate(UserId(7)), false, NOW, &tables), None, "a worker says what it likes");
    assert_eq!(name(&certificate(UserId(8)), true, NOW, &tables), None);
    assert_eq!(name(&operator(), true, NOW, &tables).unwrap().0, "root@h1");
    assert_eq!(name(&operator(), false, NOW, &tables), None);

    // A stream that a token opened ends with the token.
    let request = with_claim(request(&tables, Some((WORKER, Role::Worker))), &shown);
    let caller = judge(Method::Watch, &request, &tables).unwrap();
    assert!(still(Method::Watch, &caller, &tables, NOW));
    assert!(!still(Method::Watch, &caller, &tables, Timestamp(NOW.0 + 1)));
    let mut without = swarm().tables();
    without.restore(model::Object::User(user(Vec::new()).into())).unwrap();
    assert!(!still(Method::Watch, &caller, &without, NOW));
    assert!(!still(Method::Watch, &caller, &swarm().tables(), NOW));
}

#[test]
fn a_certificate_that_has_expired_is_good_for_its_renewal_only() {
    let tables = swarm().tables();
    let expired = |id, method| {
        let identity =
            Identity { node: NodeId(id), role: Role::Manager, cluster: tables.cluster.as_ref().unwrap().id };
        let peer = Peer { identity: None, expired: Some(identity), addr: "192.0.2.9:5".parse().unwrap() };
        let evidence = Evidence { peer, forwarded: None, person: None };
        authorize(method, &evidence, &Known::State(&tables), NOW).map_err(|refused| refused.status)
    };
    for method in Method::ALL.iter().copied() {
        let caller = expired(MANAGER, method);
        match method {
            Method::IssueCertificate => assert_eq!(caller.unwrap().node().unwrap(), NodeId(MANAGER)),
            // As anybody.
            Method::GetRootCa => assert_eq!(caller.unwrap().who, Who::Nobody),
            _ => assert!(caller.is_err(), "{method:?}"),
        }
    }
    assert!(expired(REMOVED, Method::IssueCertificate).is_err());
    assert!(expired(STRANGER, Method::IssueCertificate).is_err());
}
