//! Faults at the worst moments, and that nothing is left behind after them.

use crate::{SOON, lab, load_hello, program, swarm, wait_for_replicas};
use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use testkit::{Lab, wait_for};

/// Looks at a host without containers once the last one's folders were swept up.
fn traces_at_rest(lab: &Lab, n: u8) -> BTreeSet<String> {
    wait_for("removals to be finished", SOON, || {
        let traces = lab.traces(n).map_err(|e| format!("{e:#}"))?;
        if traces.iter().any(|t| ["/containers/", "/run/c/", "link rsx"].iter().any(|p| t.contains(p))) {
            return Err(format!("{traces:#?}"));
        }
        Ok(traces)
    })
}

fn wait_for_traces(lab: &Lab, n: u8, wanted: &BTreeSet<String>) {
    wait_for("nothing to be left", SOON, || {
        let now = lab.traces(n).map_err(|e| format!("{e:#}"))?;
        if now == *wanted {
            return Ok(());
        }
        let (more, less): (Vec<_>, Vec<_>) =
            (now.difference(wanted).collect(), wanted.difference(&now).collect());
        Err(format!("left: {more:#?}\nmissing: {less:#?}{}", lab.daemon_logs()))
    });
}

#[test]
fn a_daemon_killed_at_any_moment_of_a_start_leaves_nothing() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    let socket = lab.socket(1);
    let run = |name: &str| {
        let mut command = Command::new(program());
        command.args(["run", "-d", "--name", name, "-p", "8080:80", "rswarm/hello", "web"]);
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the client to start")
    };
    let begun = Instant::now();
    assert!(run("first").wait().expect("its end").success());
    let whole = begun.elapsed();
    lab.rswarm(1, &["rm", "-f", "first"]).ok();
    let before = traces_at_rest(&lab, 1);

    let moments = 12;
    for moment in 0..moments {
        let mut client = run(&format!("c{moment}"));
        // Not waiting for anything: this chooses the moment.
        std::thread::sleep(whole * moment / moments);
        lab.tell("kill-daemon 1").expect("the daemon to be killed");
        client.wait().expect("the client's end");
        lab.tell("start-daemon 1").expect("the daemon to be started");
        lab.wait_for_daemon(1).expect("its answer");
        let there = lab.rswarm(1, &["ps", "-a", "-q"]).ok();
        for id in there.lines() {
            lab.rswarm(1, &["rm", "-f", id]).ok();
        }
        wait_for_traces(&lab, 1, &before);
    }
    // The port is free, the name too.
    lab.rswarm(1, &["run", "-d", "--name", "c0", "-p", "8080:80", "rswarm/hello", "web"]).ok();
}

#[test]
fn a_stack_that_came_and_went_leaves_nothing_on_its_hosts() {
    let lab = swarm(2, 1);
    load_hello(&lab, 1);
    let stack = lab.dir().join("app.yml");
    let text = "name: app\nservices:\n  web:\n    image: rswarm/hello\n    command: [web]\n    ports: ['8080:80']\n    \
                secrets: [s]\n    deploy: {replicas: 4}\nsecrets: {s: {file: ./s.txt}}\n";
    std::fs::write(&stack, text).expect("a file");
    std::fs::write(lab.dir().join("s.txt"), "hidden").expect("a file");
    let stack = stack.to_str().expect("a readable path");
    let round = || {
        lab.rswarm(1, &["deploy", stack]).ok();
        wait_for_replicas(&lab, 1, "app_web", "4/4");
        lab.rswarm(1, &["stack", "rm", "app"]).ok();
        for n in 1..=2 {
            wait_for("the containers to be gone", SOON, || {
                let left = lab.rswarm(n, &["ps", "-a", "-q"]).ok();
                if left.is_empty() { Ok(()) } else { Err(left) }
            });
        }
    };
    // The first round makes what stays: the mesh, the data namespace.
    round();
    let before = [1, 2].map(|n| traces_at_rest(&lab, n));
    round();
    wait_for_traces(&lab, 1, &before[0]);
    wait_for_traces(&lab, 2, &before[1]);
}

#[test]
fn a_deploy_while_the_leader_dies_is_done_or_refused_and_works_after() {
    let mut lab = swarm(3, 3);
    load_hello(&lab, 1);
    // Everybody has the image: it shall not be the dead host alone.
    for n in [2, 3] {
        load_hello(&lab, n);
    }
    let stack = lab.dir().join("app.yml");
    let text = "name: app\nservices:\n  web: {image: rswarm/hello, command: [web], deploy: {replicas: 3}}\n";
    std::fs::write(&stack, text).expect("a file");
    let stack = stack.to_str().expect("a readable path");
    lab.tell("kill 1").expect("the leader to be killed");
    let begun = Instant::now();
    let first = lab.rswarm(2, &["deploy", "--detach", stack]);
    assert!(begun.elapsed() < Duration::from_secs(60), "no answer for {:?}", begun.elapsed());
    if first.code != 0 {
        assert!(first.stderr.contains("leader") || first.stderr.contains("manager"), "{first:?}");
        wait_for("a deploy through the new leader", SOON, || {
            let deployed = lab.rswarm(2, &["deploy", "--detach", stack]);
            if deployed.code == 0 { Ok(()) } else { Err(format!("{deployed:?}")) }
        });
    }
    wait_for_replicas(&lab, 3, "app_web", "3/3");
    assert_eq!(lab.rswarm(3, &["service", "ls", "-q"]).ok().lines().count(), 1);
}

#[test]
fn an_image_that_nobody_has_is_told_by_the_task() {
    let lab = swarm(1, 1);
    lab.rswarm(1, &["service", "create", "-d", "--name", "web", "127.0.0.1:9/no/such:1"]).ok();
    wait_for("the reason", SOON, || {
        let tasks = lab.rswarm(1, &["service", "ps", "web", "--no-trunc"]).ok();
        if tasks.contains("Rejected") && tasks.contains("no/such") { Ok(()) } else { Err(tasks) }
    });
}

#[test]
fn a_port_that_is_taken_and_a_node_that_lives_are_told() {
    let lab = swarm(2, 1);
    load_hello(&lab, 1);
    let create = |name: &str| {
        lab.rswarm(1, &["service", "create", "-d", "--name", name, "-p", "8080:80", "rswarm/hello", "web"])
    };
    create("one").ok();
    let refused = create("two").fails();
    assert!(refused.contains("port '8080' is already in use by service 'one'"), "{refused}");
    assert_eq!(lab.rswarm(1, &["service", "ls", "-q"]).ok().lines().count(), 1);

    let refused = lab.rswarm(1, &["node", "rm", "host2"]).fails();
    assert!(refused.contains("is not down"), "{refused}");
    assert_eq!(lab.rswarm(1, &["node", "ls", "-q"]).ok().lines().count(), 2);
}
