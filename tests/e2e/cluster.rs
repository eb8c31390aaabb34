//! Three hosts: deploy, scale, update, drain, and what happens when something is pulled.

use crate::{SOON, ask, attacks::post, lab, load_hello, swarm, wait_for_replicas};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
};
use testkit::{Lab, wait_for};

fn hello_stack(lab: &Lab) -> String {
    let path = lab.dir().join("hello.yml");
    std::fs::write(&path, include_str!("../../examples/hello/stack.yml")).expect("a file");
    path.to_str().expect("a readable path").to_owned()
}

fn count(greeting: &str) -> u64 {
    greeting.trim().rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{greeting}"))
}

#[test]
fn a_stack_answers_on_every_host_counts_on_and_leaves_nothing_behind() {
    let mut lab = swarm(3, 3);
    load_hello(&lab, 1);
    let stack = hello_stack(&lab);
    lab.rswarm(1, &["deploy", &stack]).ok();

    // Whichever host is asked and whichever replica answers, the one counter goes up.
    let mut last = 0;
    let mut replicas = BTreeSet::new();
    for round in 0..12 {
        let n = 1 + round % 3;
        let greeting = ask(&mut lab, n, 8080);
        let seen = count(&greeting);
        assert!(seen > last, "{greeting} after {last}");
        last = seen;
        replicas.insert(
            greeting.split("I am ").nth(1).map(|t| t.split('.').next().unwrap_or_default().to_owned()),
        );
    }
    assert!(replicas.len() > 1, "only one replica ever answered: {replicas:?}");

    // The task sees who asked: the lab itself, outside the hosts.
    assert!(ask(&mut lab, 2, 8080).contains("You are 198.18.0.254"), "the client's address was lost");

    // An unchanged deploy touches nothing.
    let before = lab.rswarm(1, &["service", "ps", "hello_web", "-q"]).ok();
    lab.rswarm(2, &["deploy", &stack]).ok();
    assert_eq!(lab.rswarm(1, &["service", "ps", "hello_web", "-q"]).ok(), before);

    lab.rswarm(3, &["scale", "hello_web=6"]).ok();
    wait_for_replicas(&lab, 2, "hello_web", "6/6");

    lab.rswarm(1, &["stack", "rm", "hello"]).ok();
    assert_eq!(lab.rswarm(1, &["service", "ls", "-q"]).ok(), "");
    for n in 1..=3 {
        wait_for("the containers to be gone", SOON, || {
            let left = lab.rswarm(n, &["ps", "-a", "-q"]).ok();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}

#[test]
fn tasks_of_a_dead_worker_run_elsewhere() {
    let mut lab = swarm(3, 1);
    load_hello(&lab, 1);
    lab.rswarm(1, &["service", "create", "--name", "web", "--replicas", "3", "rswarm/hello", "web"]).ok();
    wait_for_replicas(&lab, 1, "web", "3/3");
    lab.tell("kill 3").expect("host 3 to be killed");
    wait_for("host 3 to be seen as down", SOON, || {
        let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).ok();
        if nodes.contains("host3 Down") { Ok(()) } else { Err(nodes) }
    });
    wait_for_replicas(&lab, 1, "web", "3/3");
    let nodes =
        lab.rswarm(1, &["service", "ps", "web", "-f", "desired-state=running", "--format", "{{.Node}}"]).ok();
    assert!(!nodes.contains("host3"), "{nodes}");
}

#[test]
fn tasks_of_a_worker_that_was_cut_off_run_elsewhere_and_end_there_when_it_is_back() {
    let mut lab = swarm(3, 1);
    load_hello(&lab, 1);
    let create =
        ["service", "create", "--name", "web", "--replicas", "6", "-p", "8080:80", "rswarm/hello", "web"];
    lab.rswarm(1, &create).ok();
    wait_for_replicas(&lab, 1, "web", "6/6");
    let status = |lab: &Lab, wanted: &str| {
        wait_for(wanted, SOON, || {
            let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).ok();
            if nodes.contains(wanted) { Ok(()) } else { Err(nodes) }
        });
    };
    lab.tell("cut 3").expect("the cable of host 3 to be pulled");
    status(&lab, "host3 Down");
    wait_for_replicas(&lab, 1, "web", "6/6");
    let alone = lab.rswarm(3, &["ps", "-q"]).ok();
    assert!(!alone.is_empty(), "a host without managers ended its containers");

    lab.tell("heal 3").expect("the cable to be put back");
    status(&lab, "host3 Ready");
    wait_for("the containers that were replaced to end", SOON, || {
        let left = lab.rswarm(3, &["ps", "-q"]).ok();
        if left.lines().any(|id| alone.contains(id)) { Err(left) } else { Ok(()) }
    });
    wait_for_replicas(&lab, 1, "web", "6/6");
    for n in 1..=3 {
        wait_for("the host to answer", SOON, || lab.http_path(n, 8080, "/healthz"));
    }
}

#[test]
fn a_dead_leader_is_replaced_and_nothing_is_lost() {
    let mut lab = swarm(3, 3);
    load_hello(&lab, 1);
    lab.rswarm(1, &["service", "create", "--name", "web", "--replicas", "2", "rswarm/hello", "web"]).ok();
    lab.tell("kill 1").expect("the leader to be killed");
    // The first write after the election is the proof that the swarm lives.
    wait_for("a write through a new leader", SOON, || {
        let scaled = lab.rswarm(2, &["scale", "--detach", "web=4"]);
        if scaled.code == 0 { Ok(()) } else { Err(format!("{scaled:?}{}", lab.daemon_logs())) }
    });
    wait_for_replicas(&lab, 3, "web", "4/4");

    // Back again, it catches up and serves.
    lab.tell("start 1").expect("host 1 to be started");
    lab.wait_for_daemon(1).expect("its daemon");
    wait_for("host 1 to answer for the swarm", SOON, || {
        let list = lab.rswarm(1, &["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]);
        if list.stdout.trim() == "web 4/4" { Ok(()) } else { Err(format!("{list:?}{}", lab.daemon_logs())) }
    });
}

#[test]
fn a_minority_acknowledges_no_write() {
    let mut lab = swarm(3, 3);
    let file = lab.dir().join("s");
    std::fs::write(&file, "secret").expect("a file");
    lab.tell("cut 3").expect("the cable of host 3 to be pulled");
    wait_for("host 3 to notice", SOON, || {
        let refused = lab.rswarm(3, &["secret", "create", "lonely", file.to_str().expect("a path")]);
        assert_ne!(refused.code, 0, "a minority acknowledged a write: {refused:?}");
        if refused.stderr.contains("manager") || refused.stderr.contains("leader") {
            Ok(())
        } else {
            Err(refused.stderr)
        }
    });
    wait_for("the majority to go on", SOON, || {
        let made = lab.rswarm(1, &["secret", "create", "ours", file.to_str().expect("a path")]);
        if made.code == 0 || made.stderr.contains("taken") { Ok(()) } else { Err(format!("{made:?}")) }
    });
    lab.tell("heal 3").expect("the cable to be put back");
    wait_for("host 3 to catch up", SOON, || {
        let names = lab.rswarm(3, &["secret", "ls", "--format", "{{.Name}}"]);
        if names.stdout.trim() == "ours" { Ok(()) } else { Err(format!("{names:?}")) }
    });
}

#[test]
fn containers_outlive_their_daemon_and_its_restart() {
    let mut lab = swarm(3, 3);
    load_hello(&lab, 1);
    let stack = hello_stack(&lab);
    lab.rswarm(1, &["deploy", &stack]).ok();
    let pids =
        |lab: &Lab| lab.rswarm(2, &["ps", "-q"]).ok().lines().map(str::to_owned).collect::<BTreeSet<_>>();
    // The counter's name has arrived everywhere.
    for n in 1..=3 {
        ask(&mut lab, n, 8080);
    }
    let before = pids(&lab);
    let load = Load::begin(&mut lab, &[1, 3]);
    load.wait_for(20);
    lab.tell("kill-daemon 2").expect("the daemon of host 2 to be killed");
    wait_for("host 2 to be shown as alive", SOON, || {
        let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Hostname}}: {{.Status}}"]);
        let is_away = nodes.stdout.lines().any(|line| line == "host2: Ready (daemon restarting)");
        if is_away { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
    // While it is away the other hosts' ports lead to its tasks too.
    for n in [1, 3] {
        lab.http_path(n, 8080, "/healthz").unwrap_or_else(|e| panic!("host {n}: {e}"));
    }
    lab.tell("start-daemon 2").expect("the daemon to be started");
    lab.wait_for_daemon(2).expect("its answer");
    wait_for("host 2 to be a member again", SOON, || {
        let list = lab.rswarm(2, &["service", "ls", "-q"]);
        if list.code == 0 { Ok(()) } else { Err(list.stderr) }
    });
    load.wait_for(20);
    assert_eq!(load.end(), Vec::<String>::new(), "requests failed while a daemon was killed and restarted");
    assert_eq!(pids(&lab), before, "a container was replaced");
}

/// Clients that ask hosts for greetings, each of which takes a name and a connection to the counter, all the time.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn begin(lab: &mut Lab, hosts: &[u8]) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = hosts.iter().chain(hosts).map(|&n| {
            let door = lab.door(n, 8080).expect("a way in");
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Relaxed) {
                    match door.get("/") {
                        Ok(greeting) if greeting.contains("Visits") => drop(answered.fetch_add(1, Relaxed)),
                        other => failures.push(format!("host {n}: {other:?}")),
                    }
                }
                failures
            })
        });
        let clients = clients.collect();
        Self { stop, answered, clients }
    }

    /// Waits for that many more answers.
    fn wait_for(&self, more: usize) {
        let enough = self.answered.load(Relaxed) + more;
        wait_for("clients to be answered", SOON, || {
            let now = self.answered.load(Relaxed);
            if now >= enough { Ok(()) } else { Err(format!("{now} of {enough}")) }
        });
    }

    /// Returns what failed.
    fn end(self) -> Vec<String> {
        self.stop.store(true, Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    }
}

#[test]
fn two_of_three_managers_dead_and_back_leave_state_and_addresses_intact() {
    let mut lab = swarm(3, 3);
    load_hello(&lab, 1);
    let stack = lab.dir().join("app.yml");
    let text = "name: app\nservices:\n  web:\n    image: rswarm/hello\n    command: [web]\n    ports: ['8080:80']\n    \
                deploy: {replicas: 6}\n";
    std::fs::write(&stack, text).expect("a file");
    lab.rswarm(1, &["deploy", stack.to_str().expect("a readable path")]).ok();
    lab.tell("kill 2").expect("host 2 to be killed");
    lab.tell("kill 3").expect("host 3 to be killed");

    let refused = lab.rswarm(1, &["scale", "--detach", "app_web=1"]);
    assert_ne!(refused.code, 0, "one manager of three acknowledged a write: {refused:?}");
    // Some flows meet the dead hosts' tasks; those of this host answer without any manager.
    wait_for("an answer without managers", SOON, || lab.http_path(1, 8080, "/healthz"));

    for n in [2, 3] {
        lab.tell(&format!("start {n}")).expect("the host to be started");
        lab.wait_for_daemon(n).expect("its daemon");
    }
    wait_for("a write", SOON, || {
        let scaled = lab.rswarm(2, &["scale", "--detach", "app_web=9"]);
        if scaled.code == 0 { Ok(()) } else { Err(format!("{scaled:?}{}", lab.daemon_logs())) }
    });
    wait_for_replicas(&lab, 3, "app_web", "9/9");
    for n in 1..=3 {
        wait_for("the host to answer", SOON, || lab.http_path(n, 8080, "/healthz"));
    }
    let running = ["service", "ps", "app_web", "-f", "desired-state=running", "-q", "--no-trunc"];
    let tasks = lab.rswarm(1, &running).ok();
    let mut addresses = BTreeSet::new();
    for task in tasks.lines() {
        let attachments = lab.rswarm(1, &["inspect", "--format", "{{json .NetworksAttachments}}", task]).ok();
        let address = attachments.split("\"Addresses\":").nth(1).and_then(|rest| rest.split(']').next());
        let address = address.unwrap_or_else(|| panic!("no address in {attachments}")).to_owned();
        assert!(addresses.insert(address.clone()), "{address} was given twice");
    }
    assert_eq!(addresses.len(), 9);
}

#[test]
fn a_drained_node_gives_its_tasks_away() {
    let lab = swarm(2, 1);
    load_hello(&lab, 1);
    lab.rswarm(1, &["service", "create", "--name", "web", "--replicas", "4", "rswarm/hello", "web"]).ok();
    wait_for_replicas(&lab, 1, "web", "4/4");
    lab.rswarm(1, &["node", "update", "--availability", "drain", "host2"]).ok();
    wait_for("host 2 to be empty", SOON, || {
        let nodes = lab.rswarm(
            1,
            &[
                "service",
                "ps",
                "web",
                "-f",
                "desired-state=running",
                "--format",
                "{{.Node}} {{.CurrentState}}",
            ],
        );
        let there = nodes.stdout.lines().filter(|l| l.starts_with("host1 Running")).count();
        if there == 4 { Ok(()) } else { Err(nodes.stdout) }
    });
}

#[test]
fn an_impossible_constraint_says_why_the_task_waits() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let create = [
        "service",
        "create",
        "-d",
        "--name",
        "web",
        "--constraint",
        "node.labels.ssd==true",
        "rswarm/hello",
        "web",
    ];
    lab.rswarm(1, &create).ok();
    wait_for("the reason", SOON, || {
        let tasks = lab.rswarm(1, &["service", "ps", "web", "--no-trunc"]).ok();
        if tasks.contains("no suitable node") { Ok(()) } else { Err(tasks) }
    });
    // The label cures it.
    lab.rswarm(1, &["node", "update", "--label-add", "ssd=true", "host1"]).ok();
    wait_for_replicas(&lab, 1, "web", "1/1");
}

#[test]
fn a_wrong_token_and_a_second_join_are_refused() {
    let lab = swarm(2, 1);
    let token = lab.rswarm(1, &["swarm", "join-token", "-q", "worker"]).ok();
    let remote = format!("{}:2377", Lab::address(1));
    let again = lab.rswarm(2, &["swarm", "join", "--token", token.trim(), &remote]).fails();
    assert!(again.contains("already part of a swarm"), "{again}");

    lab.rswarm(2, &["swarm", "leave"]).ok();
    let mut wrong = token.trim().to_owned();
    let last = if wrong.pop() == Some('0') { '1' } else { '0' };
    wrong.push(last);
    let refused = lab.rswarm(2, &["swarm", "join", "--token", &wrong, &remote]).fails();
    assert!(refused.contains("token"), "{refused}");

    // A rotated token no longer lets anybody in; the new one does.
    let new = lab.rswarm(1, &["swarm", "join-token", "-q", "--rotate", "worker"]).ok();
    let refused = lab.rswarm(2, &["swarm", "join", "--token", token.trim(), &remote]).fails();
    assert!(refused.contains("token"), "{refused}");
    lab.rswarm(2, &["swarm", "join", "--token", new.trim(), &remote]).ok();
}

#[test]
fn tasks_whose_service_names_no_log_driver_have_the_swarms_from_then_on() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let service = |name: &str, driver: Value| {
        let task = json!({"ContainerSpec": {"Image": "rswarm/hello", "Args": ["web"]}, "LogDriver": driver});
        let (status, answer) =
            post(&lab, "/services/create", &json!({"Name": name, "TaskTemplate": task}).to_string());
        assert_eq!(status, 201, "{answer}");
        wait_for_replicas(&lab, 1, name, "1/1");
    };
    let log = |name: &str| {
        let id = lab.rswarm(1, &["ps", "-q", "--filter", &format!("name={name}.1")]).ok();
        let one: Value =
            serde_json::from_str(&lab.api(1, &format!("/v1.51/containers/{}/json", id.trim())).unwrap())
                .unwrap();
        one["HostConfig"]["LogConfig"].clone()
    };
    service("before", Value::Null);
    let mut swarm: Value = serde_json::from_str(&lab.api(1, "/v1.51/swarm").unwrap()).unwrap();
    let options = json!({"max-file": "3", "max-size": "7m"});
    swarm["Spec"]["TaskDefaults"] = json!({"LogDriver": {"Name": "local", "Options": options}});
    let update = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
    let (status, answer) = post(&lab, &update, &swarm["Spec"].to_string());
    assert_eq!(status, 200, "{answer}");
    let shown: Value = serde_json::from_str(&lab.api(1, "/v1.51/swarm").unwrap()).unwrap();
    assert_eq!(shown["Spec"]["TaskDefaults"]["LogDriver"]["Name"], "local");

    service("after", Value::Null);
    service("own", json!({"Name": "json-file", "Options": {"max-size": "1m"}}));
    assert_eq!(log("after"), json!({"Type": "local", "Config": options}));
    assert_eq!(log("own"), json!({"Type": "json-file", "Config": {"max-size": "1m"}}));
    assert_eq!(log("before")["Type"], "json-file", "what runs goes on as it is");
}

fn asked(lab: &Lab, path: &str) -> Value {
    serde_json::from_str(&lab.api(1, &format!("/v1.51{path}")).expect("an answer")).expect("JSON")
}

#[test]
fn who_has_made_a_swarm_finds_it_as_asked_for_and_its_node_ready() {
    let lab = lab(1);
    let spec = json!({"Raft": {"LogEntriesForSlowFollowers": 1200}, "CAConfig": {"ForceRotate": 6_000_000_000_000_u64}});
    let init = json!({"AdvertiseAddr": Lab::address(1), "ListenAddr": "0.0.0.0:2377", "Spec": spec});
    let (status, answer) = post(&lab, "/swarm/init", &init.to_string());
    assert_eq!(status, 200, "{answer}");
    let node = asked(&lab, "/nodes")[0].clone();
    assert_eq!(node["Status"]["State"], "ready", "{node}");
    assert_ne!(node["Description"]["Hostname"], "", "{node}");
    let mut swarm = asked(&lab, "/swarm");
    assert_eq!(swarm["Spec"]["Raft"]["LogEntriesForSlowFollowers"], 1200);
    assert_eq!(swarm["Spec"]["CAConfig"]["ForceRotate"], 6_000_000_000_000_u64);

    // What was read asks for no new root certificate when it is sent back; another number does.
    let root = swarm["TLSInfo"]["TrustRoot"].clone();
    let mut update = |change: &dyn Fn(&mut Value)| {
        change(&mut swarm["Spec"]);
        let path = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
        let (status, answer) = post(&lab, &path, &swarm["Spec"].to_string());
        assert_eq!(status, 200, "{answer}");
        swarm = asked(&lab, "/swarm");
        swarm.clone()
    };
    let kept = update(&|spec| spec["Raft"]["LogEntriesForSlowFollowers"] = 0.into());
    assert_eq!(kept["Spec"]["Raft"]["LogEntriesForSlowFollowers"], 1200, "0 is: as it is");
    assert_eq!((&kept["TLSInfo"]["TrustRoot"], &kept["RootRotationInProgress"]), (&root, &false.into()));
    let rotated = update(&|spec| spec["CAConfig"]["ForceRotate"] = 7.into());
    assert_ne!(rotated["TLSInfo"]["TrustRoot"], root);
    assert_eq!(rotated["Spec"]["CAConfig"]["ForceRotate"], 7);
}

#[test]
fn the_routing_mesh_is_a_network_that_can_be_removed_while_nobody_publishes_through_it() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let mesh = asked(&lab, "/networks/ingress");
    let shown = |mesh: &Value| {
        assert_eq!(
            (&mesh["Ingress"], &mesh["Scope"], &mesh["Driver"]),
            (&json!(true), &json!("swarm"), &json!("overlay"))
        );
        assert_eq!(mesh["IPAM"]["Config"][0]["Subnet"], "10.254.0.0/16", "{mesh}");
    };
    shown(&mesh);
    let service = |name: &str| {
        let task = json!({"ContainerSpec": {"Image": "rswarm/hello", "Args": ["web"]}});
        let ports = json!([{"TargetPort": 8080, "PublishedPort": 8088, "PublishMode": "ingress"}]);
        let spec = json!({"Name": name, "TaskTemplate": task, "EndpointSpec": {"Ports": ports}});
        post(&lab, "/services/create", &spec.to_string())
    };
    let (status, answer) = service("web");
    assert_eq!(status, 201, "{answer}");
    let refused = lab.rswarm(1, &["network", "rm", "ingress"]).fails();
    assert!(refused.contains("depends on it"), "{refused}");
    lab.rswarm(1, &["service", "rm", "web"]).ok();
    lab.rswarm(1, &["network", "rm", "ingress"]).ok();
    let (status, answer) = service("web");
    assert!(status != 201 && answer.contains("no ingress network is present"), "{answer}");
    let create = |name: &str| {
        post(
            &lab,
            "/networks/create",
            &json!({"Name": name, "Driver": "overlay", "Ingress": true}).to_string(),
        )
    };
    let (status, answer) = create("mesh");
    assert_eq!(status, 201, "{answer}");
    let (status, answer) = create("ingress");
    assert!(status != 201 && answer.contains("already present"), "{answer}");
    shown(&asked(&lab, "/networks/mesh"));
    let (status, answer) = service("web");
    assert_eq!(status, 201, "{answer}");
    wait_for_replicas(&lab, 1, "web", "1/1");
}
