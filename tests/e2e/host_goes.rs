//! A host goes down in order: what `rswarm-host.service` has the daemon do when systemd shuts the host down.

use crate::{SOON, load_hello, swarm, wait_for_replicas};
use serde_json::Value;
use testkit::{Lab, wait_for};

const REPLICAS: usize = 6;

fn nodes(lab: &Lab, asked: u8) -> Vec<String> {
    let format = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";
    let list = lab.rswarm(asked, &["node", "ls", "--format", format]);
    list.stdout.lines().map(str::to_owned).collect()
}

fn running(lab: &Lab, n: u8) -> Vec<String> {
    lab.rswarm(n, &["ps", "--format", "{{.Names}}"]).ok().lines().map(str::to_owned).collect()
}

/// Waits until a node is seen from another one as it should be.
fn wait_for_node(lab: &Lab, asked: u8, line: &str) {
    wait_for(line, SOON, || {
        let nodes = nodes(lab, asked);
        if nodes.iter().any(|node| node == line) {
            Ok(())
        } else {
            Err(format!("{nodes:?}{}", lab.daemon_logs()))
        }
    });
}

/// The leader's host, which has the most to hand over.
#[test]
fn a_host_that_goes_down_hands_its_part_over_and_is_back_as_it_was() {
    let mut lab = swarm(3, 3);
    (1..=3).for_each(|n| load_hello(&lab, n));
    let replicas = REPLICAS.to_string();
    lab.rswarm(1, &["service", "create", "--name", "web", "--replicas", &replicas, "rswarm/hello", "web"])
        .ok();
    wait_for_replicas(&lab, 1, "web", &format!("{REPLICAS}/{REPLICAS}"));
    let leader = nodes(&lab, 1).iter().find_map(|node| node.strip_suffix(" Ready Leader").map(str::to_owned));
    let leader = leader.expect("a leader");
    let gone: u8 = leader.trim_start_matches("host").parse().expect("a number");
    let (left, other) = (gone % 3 + 1, (gone + 1) % 3 + 1);
    let run = |name: &str, restart: &str| {
        lab.rswarm(gone, &["run", "-d", "--restart", restart, "--name", name, "rswarm/hello", "web"]).ok();
    };
    run("kept", "always");
    run("once", "no");
    assert!(running(&lab, gone).len() > 2, "it has tasks, too");

    let said = lab.rswarm(gone, &["system", "shutdown"]).ok();
    assert!(said.contains("the swarm knows that this host goes down"), "{said}");
    assert_eq!(running(&lab, gone), Vec::<String>::new(), "{said}");
    let node = lab.rswarm(left, &["node", "inspect", &leader]).ok();
    let node: Value = serde_json::from_str(&node).expect("JSON");
    assert_eq!(node[0]["Status"]["State"], "down", "{node}");
    assert_eq!(node[0]["Status"]["Message"], "its host goes down", "before it is missed");
    wait_for("another one to lead", SOON, || {
        let nodes = nodes(&lab, left);
        let led = nodes.iter().any(|node| node.ends_with(" Ready Leader") && !node.starts_with(&leader));
        if led { Ok(()) } else { Err(format!("{nodes:?}{}", lab.daemon_logs())) }
    });
    wait_for("its tasks to run elsewhere", SOON, || {
        let tasks = [left, other].map(|n| running(&lab, n));
        let count = tasks.iter().flatten().filter(|name| name.starts_with("web.")).count();
        if count == REPLICAS { Ok(()) } else { Err(format!("{tasks:?}{}", lab.daemon_logs())) }
    });
    let refused = lab.rswarm(gone, &["start", "once"]).fails();
    assert!(refused.contains("this host goes down"), "{refused}");
    assert_eq!(lab.rswarm(gone, &["system", "shutdown"]).ok(), "0 containers stopped\n", "safe to repeat");

    // The host boots.
    lab.stop_daemon(gone).expect("its daemon to end");
    lab.tell(&format!("start-daemon {gone}")).expect("a daemon");
    lab.wait_for_daemon(gone).expect("the daemon");
    wait_for_node(&lab, left, &format!("{leader} Ready Reachable"));
    wait_for("what is always to run to be back", SOON, || {
        let names = running(&lab, gone);
        if names.iter().any(|name| name == "kept") { Ok(()) } else { Err(format!("{names:?}")) }
    });
    assert!(!running(&lab, gone).iter().any(|name| name == "once"));
    wait_for_replicas(&lab, gone, "web", &format!("{REPLICAS}/{REPLICAS}"));
}

/// Nobody can be told by then, and containers have their grace all the same.
#[test]
fn the_last_host_of_a_swarm_goes_down_with_what_it_has() {
    let mut lab = swarm(2, 2);
    load_hello(&lab, 1);
    lab.rswarm(1, &["service", "create", "--name", "web", "--mode", "global", "rswarm/hello", "web"]).ok();
    wait_for_replicas(&lab, 1, "web", "2/2");
    lab.tell("kill-daemon 2").expect("its daemon to end");
    let done = lab.rswarm(1, &["system", "shutdown"]);
    assert_eq!(done.code, 0, "{done:?}{}", lab.daemon_logs());
    assert!(done.stderr.contains("the swarm was not told"), "{done:?}");
    assert_eq!(running(&lab, 1), Vec::<String>::new());
}
