//! Stolen key material against every RPC of every service: what is written down in `proto/*.proto` is tried, so that a
//! new one without a rule is found here too.

use crate::{SOON, load_hello, swarm, wait_for_replicas};
use model::{NodeId, Role};
use pki::{Credentials, Expected, NodeKey, RootCa};
use prost::Message as _;
use proto::{
    CALLER_KEY, PERSON_KEY, PersonalClaim, WireId as _,
    ca::{IssueCertificateRequest, ca_client::CaClient},
    control::{
        ForwardedCaller, ForwardedNode, Operator, PersonClaim, WatchRequest, control_client::ControlClient,
        forwarded_caller, person_claim::Proof,
    },
    node::{Bytes, peer_client::PeerClient},
    types,
};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use testkit::{Lab, on_a_shared_machine, wait_for};
use tokio::{runtime::Runtime, task::JoinSet};
use tonic::{
    Code, Request, Status,
    metadata::{MetadataMap, MetadataValue},
    service::Interceptor as _,
    transport::{Channel, Endpoint},
};

/// What a node may call in its own name; [`ENDS`] are left out where the node is still needed.
const OF_NODES: [&str; 13] = [
    "Ca.GetRootCa",
    "Ca.IssueCertificate",
    "Dispatcher.Session",
    "Work.FindNetwork",
    "Work.Networks",
    "Work.Attach",
    "Work.Attachment",
    "Work.Leave",
    "Work.Depart",
    "Work.ImageSources",
    "Work.MayFetch",
    "Peer.ResolveImage",
    "Peer.ReadBlob",
];

/// What takes the calling node's tasks away, or the node.
const ENDS: [&str; 2] = ["Work.Leave", "Work.Depart"];

/// Reads which RPCs there are: full path, and the last two names.
fn rpcs() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("the proto folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "proto") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let (mut package, mut service) = (String::new(), String::new());
        for line in text.lines() {
            let word = |keyword| {
                let rest: Option<&str> = line.trim().strip_prefix(keyword);
                rest.and_then(|r| r.split([' ', '(', ';', '{']).next()).map(str::to_owned)
            };
            package = word("package ").unwrap_or(package);
            service = word("service ").unwrap_or(service);
            if let Some(rpc) = word("rpc ") {
                found.push((format!("/{package}.{service}/{rpc}"), format!("{service}.{rpc}")));
            }
        }
    }
    assert!(found.len() > 25, "{found:?}");
    found
}

/// The attacker's machine: threads of its own, and ways to the hosts' node-to-node ports.
struct Attacker {
    runtime: Runtime,
    proxies: Vec<(u8, SocketAddr)>,
    _serving: JoinSet<()>,
}

impl Attacker {
    fn at(lab: &mut Lab, hosts: u8) -> Self {
        pki::install_crypto();
        let runtime = Runtime::new().expect("a runtime");
        let (mut proxies, mut serving) = (Vec::new(), JoinSet::new());
        for n in 1..=hosts {
            lab.tell(&format!("forward {n} 2377")).expect("a way to the host");
            let way = lab.dir().join(format!("forward-{n}-2377.sock"));
            proxies.push((n, runtime.block_on(proxy(&mut serving, way))));
        }
        Self { runtime, proxies, _serving: serving }
    }

    /// Returns a channel to host `n` with this key material; none = without any.
    fn channel(&self, n: u8, stolen: Option<&Credentials>, root: [u8; 32]) -> Channel {
        let addr = self.proxies.iter().find(|(host, _)| *host == n).expect("a host").1;
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address");
        let connector = match stolen {
            Some(credentials) => pki::tls::connector(credentials, Expected::Member),
            None => pki::tls::bootstrap_connector(root),
        };
        let _inside = self.runtime.enter();
        endpoint.connect_with_connector_lazy(connector)
    }

    /// Calls an RPC with an empty message, and returns how far that got.
    fn call(&self, channel: &Channel, path: &str, metadata: &MetadataMap) -> Result<(), Status> {
        let path = path.parse().expect("a path");
        let attempt = async {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let mut request = Request::new(tokio_stream_once());
            *request.metadata_mut() = metadata.clone();
            let codec = tonic_prost::ProstCodec::<(), ()>::default();
            let mut answer = grpc.streaming(request, path, codec).await?.into_inner();
            answer.message().await.map(drop)
        };
        let limited = async { tokio::time::timeout(Duration::from_secs(10), attempt).await };
        self.runtime.block_on(limited).unwrap_or_else(|_| Err(Status::deadline_exceeded("not a word")))
    }

    /// Returns the RPCs of host `n` that let the caller in. `leave_out` are not tried.
    fn let_in(
        &self,
        n: u8,
        stolen: Option<&Credentials>,
        root: [u8; 32],
        metadata: &MetadataMap,
        leave_out: &[&str],
    ) -> BTreeSet<String> {
        let mut open = BTreeSet::new();
        let mut channel = self.channel(n, stolen, root);
        for (path, name) in rpcs() {
            if leave_out.contains(&name.as_str()) {
                continue;
            }
            // A connection that was just closed under the attacker's hands is tried once more, and one that was not
            // made yet too. A stream that stays open without a word each time let the caller in.
            let again = [Code::Unavailable, Code::Unknown, Code::DeadlineExceeded, Code::Cancelled];
            let mut outcome = Ok(());
            for _ in 0..3 {
                outcome = self.call(&channel, &path, metadata);
                if !outcome.as_ref().is_err_and(|status| again.contains(&status.code())) {
                    break;
                }
                channel = self.channel(n, stolen, root);
            }
            let refused = [Code::PermissionDenied, Code::Unauthenticated, Code::Unimplemented];
            match outcome {
                Err(status) if refused.contains(&status.code()) => {}
                other => {
                    println!("host {n}, {name}: {other:?}");
                    open.insert(name);
                }
            }
        }
        open
    }
}

fn tokio_stream_once() -> impl futures::Stream<Item = ()> + Send + 'static {
    futures::stream::iter([()])
}

/// Accepts on loopback and passes on to a unix socket, until `serving` ends.
async fn proxy(serving: &mut JoinSet<()>, way: PathBuf) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut ours, _)) = listener.accept().await {
            let way = way.clone();
            connections.spawn(async move {
                if let Ok(mut theirs) = tokio::net::UnixStream::connect(&way).await {
                    drop(tokio::io::copy_bidirectional(&mut ours, &mut theirs).await);
                }
            });
        }
    });
    addr
}

/// Copies a host's key material, which may be exchanged meanwhile.
fn steal(lab: &Lab, n: u8) -> Credentials {
    let dir = lab.dir().join(format!("h{n}/data/swarm/certificates"));
    let copy = || -> Result<Credentials, Box<dyn std::error::Error>> {
        let loot = tempfile::tempdir()?;
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            std::fs::copy(entry.path(), loot.path().join(entry.file_name()))?;
        }
        Ok(Credentials::load(loot.path(), None)?.ok_or("nothing is there")?)
    };
    wait_for("key material of the host", SOON, || copy().map_err(|error| error.to_string()))
}

fn metadata_of(claim: &PersonClaim) -> MetadataMap {
    PersonalClaim::new(claim).call(Request::new(())).expect("metadata").metadata().clone()
}

/// What an attacker may write into the metadata of a call: nothing, that it is the operator, that it speaks for a
/// manager or for its operator.
fn pretences(manager: NodeId) -> Vec<MetadataMap> {
    let operator = Operator { uid: 0, name: "root".into(), host: "host1".into() };
    let claim = PersonClaim { proof: Some(Proof::Operator(operator)), from: String::new() };
    let caller = |who| {
        let named = ForwardedCaller { who: Some(who), via: manager.to_wire(), addr: String::new() };
        let mut map = MetadataMap::new();
        map.insert_bin(proto::CALLER_KEY, MetadataValue::from_bytes(&named.encode_to_vec()));
        map
    };
    let node = ForwardedNode { id: manager.to_wire(), role: types::Role::Manager as i32 };
    let mut token = MetadataMap::new();
    let guess = PersonClaim { proof: Some(Proof::Token("guess".into())), from: String::new() };
    token.insert_bin(PERSON_KEY, MetadataValue::from_bytes(&guess.encode_to_vec()));
    vec![
        MetadataMap::new(),
        metadata_of(&claim),
        caller(forwarded_caller::Who::Node(node)),
        caller(forwarded_caller::Who::Person(claim)),
        token,
    ]
}

impl Attacker {
    /// Asks host `n` for a certificate as a manager does that passes on what another node asks; returns whose it gets.
    fn certificate_of(
        &self,
        n: u8,
        stolen: &Credentials,
        root: [u8; 32],
        victim: NodeId,
    ) -> Result<Vec<u8>, Status> {
        let csr_pem = NodeKey::generate().expect("a key").csr_pem().expect("a request");
        let node = ForwardedNode { id: victim.to_wire(), role: types::Role::Manager as i32 };
        let who = Some(forwarded_caller::Who::Node(node));
        let named = ForwardedCaller { who, via: victim.to_wire(), addr: String::new() };
        let mut request = Request::new(IssueCertificateRequest { csr_pem, ..Default::default() });
        let named = MetadataValue::from_bytes(&named.encode_to_vec());
        request.metadata_mut().insert_bin(CALLER_KEY, named);
        let mut ca = CaClient::new(self.channel(n, Some(stolen), root));
        let asked = async { tokio::time::timeout(SOON, ca.issue_certificate(request)).await };
        let answer = self.runtime.block_on(asked).expect("an answer in time")?.into_inner();
        assert!(answer.certificate_pem.contains("BEGIN CERTIFICATE"));
        Ok(answer.node_id)
    }

    /// Sees that nobody gets a certificate of somebody else.
    #[track_caller]
    fn gets_no_certificate_of(&self, who: &str, stolen: &Credentials, root: [u8; 32], victim: NodeId) {
        for n in [1, 2] {
            let refused = self.certificate_of(n, stolen, root, victim);
            // One that was removed may not even have a connection.
            let codes = [Code::PermissionDenied, Code::Unauthenticated, Code::Unavailable, Code::Unknown];
            assert!(
                refused.as_ref().is_err_and(|status| codes.contains(&status.code())),
                "host {n} gives a {who} a certificate of {victim}: {refused:?}"
            );
        }
    }
}

fn of_nodes() -> BTreeSet<String> {
    OF_NODES.iter().copied().map(str::to_owned).collect()
}

#[test]
fn stolen_key_material_gives_what_the_state_says_of_its_node_and_no_more() {
    let mut lab = swarm(4, 3);
    load_hello(&lab, 1);
    let attacker = Attacker::at(&mut lab, 4);
    let (first, manager, worker) = (steal(&lab, 1), steal(&lab, 3), steal(&lab, 4));
    let root = RootCa::digest_of(&worker.root_pem()).expect("a root");
    let (leader, demoted) = (first.identity().node, manager.identity());
    let nothing = BTreeSet::new();

    // Nobody, and somebody with key material of another swarm.
    for n in [1, 2, 4] {
        // Who has only a token's digest talks to managers alone.
        for metadata in pretences(leader).into_iter().filter(|_| n != 4) {
            let open = attacker.let_in(n, None, root, &metadata, &[]);
            assert!(open.iter().all(|rpc| rpc == "Ca.GetRootCa"), "host {n} let nobody in: {open:?}");
        }
        let elsewhere = of_another_swarm(&worker);
        let channel = attacker.channel(n, Some(&elsewhere), root);
        let refused = attacker.call(&channel, "/rswarm.ca.v1.Ca/GetRootCa", &MetadataMap::new());
        assert!(refused.is_err(), "host {n} shook hands with another swarm's node");
    }

    // A worker's: its own work. Where it pretends to speak for others, nothing.
    for n in [1, 2, 4] {
        let [plain, pretended @ ..] = &pretences(leader)[..] else { unreachable!() };
        let open = attacker.let_in(n, Some(&worker), root, plain, &ENDS);
        let more: Vec<_> = open.difference(&of_nodes()).cloned().collect();
        assert!(more.is_empty(), "host {n} lets a worker call {more:?}");
        // That it may do its work shows that the others are turned away for what they are.
        let own = ["Dispatcher.Session", "Work.MayFetch", "Work.FindNetwork", "Ca.IssueCertificate"];
        assert!(
            n == 4 || own.iter().all(|rpc| open.contains(*rpc)),
            "host {n} lets a worker call only {open:?}"
        );
        for metadata in pretended {
            // A worker judges its callers' certificates alone: what they pretend is nothing to it. On a manager not even
            // what ends a node is done for another.
            let open = attacker.let_in(n, Some(&worker), root, metadata, &[]);
            let more: Vec<_> = open.difference(&of_nodes()).cloned().collect();
            assert!(more.is_empty(), "host {n} lets a worker call {more:?}");
        }
    }

    // A manager passes on who renews, so the attack is well made; a worker does not.
    let victim = worker.identity().node;
    let passed_on = attacker.certificate_of(1, &manager, root, victim).expect("what a manager passes on");
    assert_eq!(passed_on, victim.to_wire());
    attacker.gets_no_certificate_of("worker", &worker, root, leader);

    // A manager's opens a tunnel and watches, until it is demoted.
    let (tunnel, watch) = (attacker.tunnel(&manager, root), attacker.watch(&manager, root));
    let asked = Instant::now();
    lab.rswarm(1, &["node", "demote", "host3"]).ok();
    attacker.ends_within(on_a_shared_machine(Duration::from_secs(1)), tunnel, watch);

    // It is a worker soon, and works.
    let create = ["service", "create", "-d", "--name", "there", "--constraint", "node.hostname==host3"];
    lab.rswarm(1, &[&create[..], &["rswarm/hello", "web"]].concat()).ok();
    wait_for("the demoted manager to hold a worker's certificate", SOON, || {
        let now = steal(&lab, 3).identity();
        if now.role == Role::Worker { Ok(()) } else { Err(format!("{now:?}{}", lab.daemon_logs())) }
    });
    wait_for_replicas(&lab, 1, "there", "1/1");
    let limit = on_a_shared_machine(Duration::from_secs(10));
    assert!(asked.elapsed() < limit, "it took {:?}", asked.elapsed());

    // The certificate that it had as a manager gives what a worker's gives, on managers and workers alike.
    assert_eq!(demoted.role, Role::Manager);
    for n in [1, 2, 4] {
        for metadata in pretences(leader) {
            let open = attacker.let_in(n, Some(&manager), root, &metadata, &ENDS);
            let more: Vec<_> = open.difference(&of_nodes()).cloned().collect();
            assert!(more.is_empty(), "host {n} lets a demoted manager call {more:?}");
        }
    }

    attacker.gets_no_certificate_of("demoted manager", &manager, root, victim);

    // Removed: nothing at all, neither by the certificate of then nor by the one of now.
    let former = steal(&lab, 3);
    lab.rswarm(1, &["service", "rm", "there"]).ok();
    lab.rswarm(1, &["node", "rm", "--force", "host3"]).ok();
    lab.rswarm(1, &["node", "rm", "--force", "host4"]).ok();
    wait_for("the removed nodes' sessions to end", SOON, || {
        let logs = [3, 4]
            .map(|n| std::fs::read_to_string(lab.dir().join(format!("h{n}/daemon.log"))).unwrap_or_default());
        if logs.iter().all(|log| log.contains("was removed from the swarm")) {
            Ok(())
        } else {
            Err(lab.daemon_logs())
        }
    });
    for (who, stolen) in [("manager", &manager), ("former manager", &former), ("worker", &worker)] {
        for n in [1, 2] {
            for metadata in pretences(leader) {
                let open = attacker.let_in(n, Some(stolen), root, &metadata, &[]);
                assert_eq!(open, nothing, "host {n} lets a removed {who} in");
            }
        }
        attacker.gets_no_certificate_of(who, stolen, root, leader);
    }
    // And the swarm goes on.
    lab.rswarm(2, &["service", "create", "-d", "--name", "after", "rswarm/hello", "web"]).ok();
    wait_for_replicas(&lab, 2, "after", "1/1");
}

type Ended = tokio::task::JoinHandle<Result<(), Status>>;

impl Attacker {
    /// Opens a tunnel to the front door of host 4, and returns what ends with it.
    fn tunnel(&self, stolen: &Credentials, root: [u8; 32]) -> Ended {
        let channel = self.channel(4, Some(stolen), root);
        let request = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";
        let open = async {
            let (up, messages) = tokio::sync::mpsc::channel(4);
            up.send(Bytes { data: request.into() }).await.expect("a queue");
            let messages = futures::stream::unfold(messages, |mut m| async { Some((m.recv().await?, m)) });
            let stream = PeerClient::new(channel).tunnel(messages).await.expect("a tunnel for a manager");
            (stream.into_inner(), up)
        };
        let (mut stream, up) = self.runtime.block_on(open);
        self.runtime.spawn(async move {
            let _open = up;
            while stream.message().await?.is_some() {}
            Ok(())
        })
    }

    /// Watches the swarm through host 1.
    fn watch(&self, stolen: &Credentials, root: [u8; 32]) -> Ended {
        let channel = self.channel(1, Some(stolen), root);
        let operator = Operator { uid: 0, name: "root".into(), host: "host3".into() };
        let claim = PersonClaim { proof: Some(Proof::Operator(operator)), from: String::new() };
        let mut control = ControlClient::with_interceptor(channel, PersonalClaim::new(&claim));
        let watch = async { control.watch(WatchRequest::default()).await };
        let mut stream = self.runtime.block_on(watch).expect("a watch for a manager").into_inner();
        self.runtime.spawn(async move {
            while stream.message().await?.is_some() {}
            Ok(())
        })
    }

    fn ends_within(&self, limit: Duration, tunnel: Ended, watch: Ended) {
        let both = async { tokio::time::timeout(limit, async { tokio::join!(tunnel, watch) }).await };
        let (tunnel, watch) = self.runtime.block_on(both).expect("both streams to end in time");
        drop((tunnel.expect("its end"), watch.expect("its end")));
    }
}

/// Returns key material that another swarm made for a node with the same name.
fn of_another_swarm(like: &Credentials) -> Credentials {
    let identity = like.identity();
    let ca = RootCa::generate(identity.cluster).expect("a root");
    let key = NodeKey::generate().expect("a key");
    let csr = key.csr_pem().expect("a request");
    let day = Duration::from_secs(24 * 3600);
    let chain =
        ca.sign_csr(&csr, identity.node, Role::Manager, identity.cluster, day).expect("a certificate");
    Credentials::in_memory(&key.pem(), &chain, &like.root_pem()).expect("credentials")
}
