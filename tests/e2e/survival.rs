//! The runbooks of README's *When managers are lost*, each carried out: a majority lost, a backup and its restoration,
//! dead managers, a manager with another address.

use crate::{SOON, clis::Cli, lab, load_hello, swarm, wait_for_replicas};
use std::{os::unix::fs::PermissionsExt as _, path::Path};
use testkit::{Lab, wait_for};

/// Waits until `node ls` on host `n` has each of these lines: host, status, and a manager's standing.
fn wait_for_nodes(lab: &Lab, n: u8, wanted: &[&str]) {
    wait_for(&format!("{wanted:?} on host {n}"), SOON, || {
        let nodes =
            lab.rswarm(n, &["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"]);
        let lines: Vec<&str> = nodes.stdout.lines().map(str::trim_end).collect();
        if wanted.iter().all(|line| lines.contains(line)) && lines.len() == wanted.len() {
            return Ok(());
        }
        Err(format!("{}{}{}", nodes.stdout, nodes.stderr, lab.daemon_logs()))
    });
}

fn token(lab: &Lab, n: u8, role: &str) -> String {
    lab.rswarm(n, &["swarm", "join-token", "-q", role]).ok()
}

fn containers(lab: &Lab, n: u8) -> String {
    lab.rswarm(n, &["ps", "-q"]).ok()
}

/// Deploys a stack of this name, whose one service has a secret and runs on host `on`.
fn deploy(lab: &Lab, n: u8, name: &str, on: u8) {
    file(lab, "s.txt", "hidden");
    let text = format!(
        "name: {name}\nservices:\n  web:\n    image: rswarm/hello\n    command: [web]\n    secrets: [s]\n    deploy:\n      \
         placement: {{constraints: [node.hostname==host{on}]}}\nsecrets: {{s: {{file: ./s.txt}}}}\n"
    );
    let stack = file(lab, &format!("{name}.yml"), &text);
    lab.rswarm(n, &["deploy", &stack]).ok();
    wait_for_replicas(lab, n, &format!("{name}_web"), "1/1");
}

fn file(lab: &Lab, name: &str, content: &str) -> String {
    let path = lab.dir().join(name);
    std::fs::write(&path, content).expect("a file");
    path.to_str().expect("a readable path").to_owned()
}

#[test]
fn one_manager_of_three_goes_on_with_its_containers_and_the_others_come_back_as_workers() {
    let mut lab = swarm(4, 3);
    for n in [1, 4] {
        load_hello(&lab, n);
    }
    for n in [1, 4] {
        deploy(&lab, 1, &format!("on{n}"), n);
    }
    let (worker_token, manager_token) = (token(&lab, 1, "worker"), token(&lab, 1, "manager"));
    let before = [1, 4].map(|n| containers(&lab, n));

    let refused = lab.rswarm(1, &["swarm", "recover"]).fails();
    assert!(refused.contains("has a majority") && refused.contains("--force"), "{refused}");
    let refused = lab.rswarm(4, &["swarm", "recover"]).fails();
    assert!(refused.contains("This node is not a manager"), "{refused}");
    lab.tell("kill 3").expect("host 3 to be killed");
    lab.tell("kill 2").expect("host 2 to be killed");
    wait_for("the majority to be missed", SOON, || {
        let nodes = lab.rswarm(1, &["node", "ls"]);
        if nodes.code == 0 { Err(nodes.stdout) } else { Ok(()) }
    });
    lab.rswarm(1, &["swarm", "recover"]).ok();
    wait_for_nodes(&lab, 1, &["host1 Ready Leader", "host2 Down", "host3 Down", "host4 Ready"]);
    assert_eq!([1, 4].map(|n| containers(&lab, n)), before, "containers run on");
    assert_eq!((token(&lab, 1, "worker"), token(&lab, 1, "manager")), (worker_token, manager_token));
    assert!(lab.rswarm(1, &["secret", "ls"]).ok().contains("on1_s"));
    let history = lab.rswarm(1, &["audit"]).ok();
    assert!(history.lines().any(|l| l.contains("recover") && l.contains("root@host1")), "{history}");
    lab.rswarm(1, &["scale", "on4_web=2"]).ok();
    wait_for_replicas(&lab, 1, "on4_web", "2/2");

    // The two others are a majority of what they remember: they must not go on as that, and do not want to.
    for n in [2, 3] {
        lab.tell(&format!("start {n}")).expect("the host to be started");
    }
    for n in [2, 3] {
        lab.wait_for_daemon(n).expect("its daemon");
    }
    wait_for_nodes(&lab, 1, &["host1 Ready Leader", "host2 Ready", "host3 Ready", "host4 Ready"]);
    let refused = lab.rswarm(2, &["swarm", "recover"]).fails();
    assert!(refused.contains("hint: "), "{refused}");
    assert_eq!(containers(&lab, 1), before[0]);

    lab.rswarm(1, &["node", "promote", "host2", "host3"]).ok();
    wait_for_nodes(
        &lab,
        2,
        &["host1 Ready Leader", "host2 Ready Reachable", "host3 Ready Reachable", "host4 Ready"],
    );
    // What was one is a swarm again that stands the loss of a manager.
    lab.tell("kill 1").expect("host 1 to be killed");
    wait_for("another leader", SOON, || {
        let nodes = lab.rswarm(2, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
        if nodes.stdout.contains("Leader") && !nodes.stdout.contains("host1 Leader") {
            Ok(())
        } else {
            Err(format!("{nodes:?}"))
        }
    });
}

#[test]
fn a_new_cluster_is_made_of_one_manager_by_dockers_flag() {
    force_new_cluster(Cli::Ours);
}

pub(crate) fn force_new_cluster(cli: Cli) {
    let mut lab = swarm(2, 2);
    let before = token(&lab, 1, "worker");
    lab.tell("kill 2").expect("host 2 to be killed");
    let init = ["swarm", "init", "--force-new-cluster"];
    wait_for("the command to be taken", SOON, || {
        let made = cli.run(&lab, 1, &init);
        if made.code == 0 { Ok(()) } else { Err(format!("{made:?}")) }
    });
    wait_for_nodes(&lab, 1, &["host1 Ready Leader", "host2 Down"]);
    assert_eq!(token(&lab, 1, "worker"), before);
    // With another address, as with Docker.
    cli.run(
        &lab,
        1,
        &[
            "swarm",
            "init",
            "--force-new-cluster",
            "--advertise-addr",
            "198.18.0.1:2378",
            "--listen-addr",
            "0.0.0.0:2378",
        ],
    )
    .ok();
    let info = cli.run(&lab, 1, &["info", "--format", "{{json .Swarm.RemoteManagers}}"]).ok();
    assert!(info.contains("198.18.0.1:2378"), "{info}");
}

#[test]
fn a_backup_restored_on_another_host_has_its_workers_back_with_their_containers() {
    let mut lab = lab(3);
    crate::join_all(&lab, 2, 1);
    load_hello(&lab, 2);
    lab.rswarm(1, &["user", "add", "--role", "read", "ann"]).ok();
    deploy(&lab, 1, "app", 2);
    let running = containers(&lab, 2);
    let joins = token(&lab, 1, "worker");

    let plain = lab.dir().join("plain.backup");
    let plain = plain.to_str().expect("a readable path");
    let said = lab.rswarm(1, &["swarm", "backup", "--to", plain]);
    assert!(said.stderr.contains("not encrypted"), "{said:?}");
    let mode = std::fs::metadata(plain).expect("the backup").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let passphrase = file(&lab, "passphrase", "correct horse\n");
    let sealed = lab.dir().join("sealed.backup");
    let sealed = sealed.to_str().expect("a readable path");
    let with = ["swarm", "backup", "--passphrase-file", &passphrase, "--to", sealed];
    let said = lab.rswarm(1, &with);
    assert!(said.code == 0 && !said.stderr.contains("not encrypted"), "{said:?}");
    let history = lab.rswarm(1, &["audit"]).ok();
    assert!(history.lines().any(|l| l.contains("backup") && l.contains("root@host1")), "{history}");
    // Not in it: the restored swarm must not take its number for something else.
    let other = file(&lab, "other.txt", "something else");
    lab.rswarm(1, &["secret", "create", "later", &other]).ok();

    let refused = lab.rswarm(2, &["swarm", "restore", plain]).fails();
    assert!(refused.contains("What it would lose") && refused.contains("--force"), "{refused}");
    let wrong = file(&lab, "wrong", "correct house\n");
    let torn = lab.dir().join("torn.backup");
    let bytes = std::fs::read(plain).expect("the backup");
    std::fs::write(&torn, &bytes[..bytes.len() - 1]).expect("a file");
    let at = ["--advertise-addr", "198.18.0.3"];
    for (words, why) in [
        (["swarm", "restore", "--passphrase-file", &wrong, sealed], "passphrase is wrong"),
        (
            ["swarm", "restore", "--passphrase-file", &wrong, torn.to_str().expect("a readable path")],
            "damaged or was cut short",
        ),
        (["swarm", "restore", "--passphrase-file", &wrong, &other], "no backup of a swarm"),
    ] {
        let refused = lab.rswarm(3, &[&words[..], &at[..]].concat()).fails();
        assert!(refused.contains(why), "{words:?}: {refused}");
    }
    assert!(!Path::new(&lab.dir().join("h3/data/swarm/member.json")).exists(), "nothing was changed");

    lab.tell("kill 1").expect("host 1 to be killed");
    let words = ["swarm", "restore", "--passphrase-file", &passphrase, sealed];
    lab.rswarm(3, &[&words[..], &at[..]].concat()).ok();
    // Host 2 has never heard of host 3: it is told.
    wait_for_nodes(&lab, 3, &["host1 Down", "host2 Ready", "host3 Ready Leader"]);
    wait_for_replicas(&lab, 3, "app_web", "1/1");
    assert_eq!(containers(&lab, 2), running, "its container runs on");
    assert_eq!(token(&lab, 3, "worker"), joins);
    let secrets = lab.rswarm(3, &["secret", "ls"]).ok();
    assert!(secrets.contains("app_s") && !secrets.contains("later"), "{secrets}");
    assert!(lab.rswarm(3, &["user", "ls"]).ok().contains("ann"));
    lab.rswarm(3, &["scale", "app_web=2"]).ok();
    wait_for_replicas(&lab, 3, "app_web", "2/2");

    // The manager that was lost comes back, as a worker of the restored swarm.
    lab.tell("start 1").expect("host 1 to be started");
    lab.wait_for_daemon(1).expect("its daemon");
    wait_for_nodes(&lab, 3, &["host1 Ready", "host2 Ready", "host3 Ready Leader"]);
    assert!(lab.rswarm(1, &["node", "ls"]).fails().contains("not a swarm manager"), "host 1 is a worker");
}

#[test]
fn a_manager_that_is_gone_for_good_is_a_worker_once_the_others_can_do_without_it() {
    let mut lab = swarm(4, 4);
    let refused = lab.rswarm(1, &["swarm", "update", "--dead-manager-after", "5s"]).fails();
    assert!(refused.contains("10 s"), "{refused}");
    lab.rswarm(1, &["swarm", "update", "--dead-manager-after", "10s"]).ok();
    lab.tell("kill 4").expect("host 4 to be killed");
    wait_for_nodes(
        &lab,
        1,
        &["host1 Ready Leader", "host2 Ready Reachable", "host3 Ready Reachable", "host4 Down"],
    );
    let history = lab.rswarm(1, &["audit"]).ok();
    assert!(history.lines().any(|l| l.contains("demote") && l.contains("node host4")), "{history}");
    lab.tell("start 4").expect("host 4 to be started");
    lab.wait_for_daemon(4).expect("its daemon");
    wait_for_nodes(
        &lab,
        1,
        &["host1 Ready Leader", "host2 Ready Reachable", "host3 Ready Reachable", "host4 Ready"],
    );
}

#[test]
fn a_manager_at_another_address_is_reached_there_by_raft_and_by_workers() {
    let mut lab = swarm(4, 3);
    lab.rswarm(2, &["swarm", "readdress", "198.18.0.2:2378", "--listen-addr", "0.0.0.0:2378"]).ok();
    wait_for("the managers to know the new address", SOON, || {
        let inspect = [
            "node",
            "inspect",
            "--format",
            "{{.ManagerStatus.Addr}} {{.ManagerStatus.Reachability}}",
            "host2",
        ];
        let shown = lab.rswarm(1, &inspect);
        if shown.stdout.trim() == "198.18.0.2:2378 reachable" {
            return Ok(());
        }
        Err(format!("{shown:?}{}", lab.daemon_logs()))
    });
    // Without Raft there no two of three would be left.
    lab.tell("kill 3").expect("host 3 to be killed");
    wait_for_nodes(
        &lab,
        1,
        &["host1 Ready Leader", "host2 Ready Reachable", "host3 Down Unreachable", "host4 Ready"],
    );
    lab.rswarm(2, &["service", "create", "-d", "--name", "web", "rswarm/hello", "web"]).ok();
    lab.rswarm(4, &["swarm", "readdress", "198.18.0.4:2379", "--listen-addr", "0.0.0.0:2379"]).ok();
    wait_for_nodes(
        &lab,
        1,
        &["host1 Ready Leader", "host2 Ready Reachable", "host3 Down Unreachable", "host4 Ready"],
    );
    let refused = lab.rswarm(4, &["swarm", "readdress", "nonsense"]).fails();
    assert!(refused.contains("nonsense"), "{refused}");
    // Port 1 is taken by nobody, but 192.0.2.1 is no address of this host: it goes on as it was.
    let refused =
        lab.rswarm(4, &["swarm", "readdress", "198.18.0.4:1", "--listen-addr", "192.0.2.1:1"]).fails();
    assert!(refused.contains("keeps its address"), "{refused}");
    wait_for_nodes(
        &lab,
        1,
        &["host1 Ready Leader", "host2 Ready Reachable", "host3 Down Unreachable", "host4 Ready"],
    );
}
