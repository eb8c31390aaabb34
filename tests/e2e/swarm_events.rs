//! What listeners hear of the swarm, on whichever manager they listen.

use crate::{SOON, load_hello, swarm};
use serde_json::Value;
use testkit::{Lab, wait_for};

/// Everything that a manager has told of one kind of object since `since`: time, action, name, and what else is said.
fn told(lab: &Lab, n: u8, kind: &str, since: &str) -> Vec<String> {
    let filter = format!("type={kind}");
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let options = ["--since", since, "--until", &until, "--filter", &filter, "--filter", "scope=swarm"];
    let lines = lab.rswarm(n, &[&["events", "--format", "json"][..], &options].concat()).ok();
    let shown = |line: &str| {
        let event: Value = serde_json::from_str(line).expect("an event");
        let attributes = &event["Actor"]["Attributes"];
        let name = attributes["name"].as_str().expect("a name");
        format!("{} {} {name} {attributes}", event["timeNano"], event["Action"].as_str().expect("an action"))
    };
    lines.lines().map(shown).collect()
}

/// Waits until a manager has told of all of these, and returns what it told.
fn wait_until_told(lab: &Lab, n: u8, kind: &str, since: &str, wanted: &[&str]) -> Vec<String> {
    wait_for(&format!("host {n} to tell of {wanted:?}"), SOON, || {
        let told = told(lab, n, kind, since);
        let all = wanted.iter().all(|part| told.iter().any(|line| line.contains(part)));
        if all { Ok(told) } else { Err(format!("{told:?}{}", lab.daemon_logs())) }
    })
}

#[test]
fn every_manager_tells_the_same_of_the_swarm_and_whoever_missed_it_can_ask_later() {
    let mut lab = swarm(3, 3);
    load_hello(&lab, 1);
    let since = lab.rswarm(1, &["info", "--format", "{{.SystemTime}}"]).ok().trim().to_owned();
    let create = ["service", "create", "--detach", "--name", "web", "rswarm/hello", "web"];
    lab.rswarm(2, &create).ok();
    lab.rswarm(3, &["scale", "--detach", "web=2"]).ok();
    lab.rswarm(1, &["network", "create", "--driver", "overlay", "back"]).ok();
    let secret = lab.dir().join("secret");
    std::fs::write(&secret, "hidden").expect("a file");
    let secret = secret.to_str().expect("a readable path");
    lab.rswarm(2, &["secret", "create", "key", secret]).ok();
    lab.rswarm(3, &["config", "create", "page", secret]).ok();
    lab.rswarm(1, &["node", "update", "--availability", "pause", "host3"]).ok();
    for (what, name) in [("service", "web"), ("network", "back"), ("secret", "key"), ("config", "page")] {
        lab.rswarm(1, &[what, "rm", name]).ok();
    }
    let of_web = [" create web ", "\"replicas.new\":\"2\",\"replicas.old\":\"1\"", " remove web "];
    let of_nodes = ["\"availability.new\":\"pause\",\"availability.old\":\"active\""];
    for (kind, wanted) in [
        ("service", &of_web[..]),
        ("network", &[" create back ", " remove back "]),
        ("secret", &[" create key ", " remove key "]),
        ("config", &[" create page ", " remove page "]),
        ("node", &of_nodes),
    ] {
        // With the same times: who goes on at another manager asks it for what came since.
        let first = wait_until_told(&lab, 1, kind, &since, wanted);
        assert!(!first.join("").contains("hidden"));
        for n in 2..=3 {
            wait_until_told(&lab, n, kind, &since, wanted);
            wait_for("the managers to tell the same", SOON, || {
                let (one, other) = (told(&lab, 1, kind, &since), told(&lab, n, kind, &since));
                if one == other { Ok(()) } else { Err(format!("{one:?}\n{other:?}")) }
            });
        }
    }

    // A host that is lost, and a manager that was not there meanwhile.
    lab.tell("kill 3").expect("host 3 to be killed");
    let down = [" update host3 ", "\"state.new\":\"down\",\"state.old\":\"ready\""];
    for n in 1..=2 {
        wait_until_told(&lab, n, "node", &since, &down);
    }
    lab.tell("start 3").expect("host 3 to be started");
    lab.wait_for_daemon(3).expect("its daemon");
    let back = ["\"state.new\":\"ready\",\"state.old\":\"down\""];
    for n in 1..=3 {
        wait_until_told(&lab, n, "node", &since, &back);
    }
    wait_until_told(&lab, 3, "service", &since, &of_web);
}
