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
fn a_node_that_is_busy_with_its_tasks_is_not_taken_for_dead() {
    let lab = swarm(2, 1);
    load_hello(&lab, 1);
    lab.limit_cpu(2, 20).expect("a fifth of a processor");
    let words = ["service", "create", "-d", "--name", "web", "--replicas", "24"];
    let more = ["--constraint", "node.hostname==host2", "rswarm/hello", "web"];
    lab.rswarm(1, &[&words[..], &more].concat()).ok();
    wait_for("all of them to run", SOON * 5, || {
        let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).ok();
        assert!(nodes.contains("host2 Ready"), "{nodes}{}", lab.daemon_logs());
        let replicas = lab.rswarm(1, &["service", "ls", "--format", "{{.Replicas}}"]).ok();
        if replicas.trim() == "24/24" { Ok(()) } else { Err(replicas) }
    });
    let tasks = lab.rswarm(1, &["service", "ps", "web", "-q"]).ok();
    assert_eq!(tasks.lines().count(), 24, "none was given up and replaced: {tasks}");
}

#[test]
fn how_long_an_update_waits_for_a_node_is_the_services_to_say() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let create = |deadline: &str| {
        let words = ["service", "create", "-d", "--name", "web", "--update-progress-deadline", deadline];
        lab.rswarm(1, &[&words[..], &["rswarm/hello", "web"]].concat())
    };
    assert!(create("0s").fails().contains("must be longer than nothing"));
    create("90s").ok();
    let update =
        || lab.rswarm(1, &["service", "inspect", "web", "--format", "{{json .Spec.UpdateConfig}}"]).ok();
    assert!(update().contains("\"ProgressDeadline\":90000000000"), "{}", update());
    assert!(update().contains("\"Parallelism\":1"), "as without: {}", update());
    wait_for_replicas(&lab, 1, "web", "1/1");
    lab.rswarm(1, &["service", "update", "-d", "--update-progress-deadline", "3m", "web"]).ok();
    assert!(update().contains("\"ProgressDeadline\":180000000000"), "{}", update());
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

/// Runs a program in the namespaces of host `n`.
fn on_host(lab: &mut Lab, n: u8, words: &[&str]) {
    let output = lab.exec(n, words).expect("the host to be up").wait(SOON).expect("its end");
    assert_eq!(output.code, 0, "{words:?}: {}", output.stdout);
}

/// Returns each host's word in `node ls`, as host `n` shows it.
fn manager_status(lab: &Lab, n: u8) -> String {
    lab.rswarm(n, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]).stdout
}

#[test]
fn a_manager_whose_disk_is_full_says_so_and_comes_back_by_itself() {
    let mut lab = lab(3);
    load_hello(&lab, 1);
    let folder = lab.dir().join("h1/data/swarm");
    let folder = folder.to_str().expect("a readable path").to_owned();
    on_host(&mut lab, 1, &["/bin/mkdir", "-p", &folder]);
    on_host(&mut lab, 1, &["/bin/mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", &folder]);
    crate::join_all(&lab, 3, 3);
    lab.rswarm(1, &["service", "create", "--name", "web", "--replicas", "3", "rswarm/hello", "web"]).ok();
    wait_for_replicas(&lab, 1, "web", "3/3");
    let running = lab.rswarm(1, &["ps", "-q"]).ok();
    assert!(manager_status(&lab, 2).contains("host1 Leader"));

    let ballast = format!("of={folder}/ballast");
    let fill = lab.exec(1, &["/bin/dd", "if=/dev/zero", &ballast, "bs=64k"]).expect("the host to be up");
    assert_ne!(fill.wait(SOON).expect("its end").code, 0, "the disk is full");
    // Each config takes half a megabyte of the log; host 1 has 16 in reserve and what its segment has left.
    let content = lab.dir().join("big");
    std::fs::write(&content, vec![b'x'; 480_000]).expect("a file");
    let content = content.to_str().expect("a readable path").to_owned();
    let mut number = 0;
    wait_for("host 1 to be out of Raft", SOON * 2, || {
        number += 1;
        lab.rswarm(2, &["config", "create", &format!("big{number}"), &content]);
        let status = manager_status(&lab, 2);
        if status.contains("host1 Unreachable") {
            Ok(())
        } else {
            Err(format!("{status}{}", lab.daemon_logs()))
        }
    });
    let others = manager_status(&lab, 3);
    assert!(others.contains("Leader") && !others.contains("host1 Leader"), "{others}");
    assert_eq!(lab.rswarm(1, &["ps", "-q"]).ok(), running, "containers run on");

    on_host(&mut lab, 1, &["/bin/rm", &format!("{folder}/ballast")]);
    wait_for("host 1 to take part again", SOON, || {
        let status = manager_status(&lab, 2);
        if status.contains("host1 Reachable") {
            Ok(())
        } else {
            Err(format!("{status}{}", lab.daemon_logs()))
        }
    });
    let log = std::fs::read_to_string(lab.dir().join("h1/daemon.log")).expect("a log");
    assert!(log.len() < 200_000, "{} bytes of log", log.len());
}

#[test]
fn a_manager_whose_log_is_damaged_keeps_its_tasks_and_goes_on_once_it_is_mended() {
    let mut lab = lab(3);
    load_hello(&lab, 1);
    crate::join_all(&lab, 3, 3);
    lab.rswarm(1, &["service", "create", "--name", "web", "--replicas", "3", "rswarm/hello", "web"]).ok();
    wait_for_replicas(&lab, 1, "web", "3/3");
    let running = lab.rswarm(3, &["ps", "-q"]).ok();
    lab.tell("kill-daemon 3").expect("the daemon to be killed");
    let log = lab.dir().join("h3/data/swarm/raft/log");
    let whole = lab.dir().join("whole");
    std::fs::create_dir(&whole).expect("a folder");
    for file in std::fs::read_dir(&log).expect("a log").map(|file| file.expect("a file").path()) {
        let name = file.file_name().expect("a name");
        std::fs::copy(&file, whole.join(name)).expect("a copy");
        std::fs::write(&file, b"\xff\x00garbage").expect("to damage it");
    }
    lab.tell("start-daemon 3").expect("the daemon to be started");
    lab.wait_for_daemon(3).expect("the daemon");
    let told = |n: u8| {
        lab.rswarm(n, &["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"]).stdout
    };
    wait_for("host 3 to be there, without its part in Raft", SOON, || {
        let (seen, info) = (told(1), lab.api(3, "/info").map_err(|e| e.to_string())?);
        let says = info.contains("\"ControlAvailable\":false") && info.contains("/swarm/raft/log");
        if seen.contains("host3 Ready Unreachable") && says { Ok(()) } else { Err(format!("{seen}{info}")) }
    });
    assert_eq!(lab.rswarm(3, &["ps", "-q"]).ok(), running, "{}", lab.daemon_logs());
    assert!(told(3).contains("host1 Ready"), "it asks the others: {}", told(3));
    // It is told what to run, and runs it.
    lab.rswarm(1, &["service", "scale", "web=6"]).ok();
    wait_for_replicas(&lab, 1, "web", "6/6");
    let now = lab.rswarm(3, &["ps", "-q"]).ok();
    assert!(now.lines().count() == 2 && now.contains(running.trim()), "{now}{}", lab.daemon_logs());

    for file in std::fs::read_dir(&whole).expect("the copies").map(|file| file.expect("a file").path()) {
        std::fs::copy(&file, log.join(file.file_name().expect("a name"))).expect("to mend it");
    }
    wait_for("host 3 to take part again", SOON * 2, || {
        let seen = told(1);
        if seen.contains("host3 Ready Reachable") {
            Ok(())
        } else {
            Err(format!("{seen}{}", lab.daemon_logs()))
        }
    });
    let end = lab.rswarm(3, &["ps", "-q"]).ok();
    assert!(now.lines().all(|id| end.contains(id)), "containers run on: {now}{end}");
}

#[test]
fn a_manager_whose_log_is_gone_takes_part_under_a_new_number() {
    let mut lab = swarm(3, 3);
    lab.tell("kill-daemon 3").expect("the daemon to be killed");
    std::fs::remove_dir_all(lab.dir().join("h3/data/swarm/raft")).expect("the log to be gone");
    lab.tell("start-daemon 3").expect("the daemon to be started");
    wait_for("host 3 to notice", SOON, || {
        let log = std::fs::read_to_string(lab.dir().join("h3/daemon.log")).map_err(|e| e.to_string())?;
        if log.contains("takes part under a new number") { Ok(()) } else { Err(log) }
    });
    wait_for("host 3 to be a manager again, and three in all", SOON, || {
        let status = manager_status(&lab, 1);
        let whole = status.contains("host3 Reachable") && status.matches("Reachable").count() == 2;
        if whole { Ok(()) } else { Err(format!("{status}{}", lab.daemon_logs())) }
    });
}

#[test]
fn roles_that_change_faster_than_nodes_follow_end_in_what_was_said_last() {
    let lab = swarm(3, 3);
    let role = |n: u8, role: &str| {
        lab.rswarm(1, &["node", "update", "--role", role, &format!("host{n}")]);
    };
    for _ in 0..3 {
        for n in [2, 3] {
            role(n, "worker");
            role(n, "manager");
        }
    }
    role(3, "worker");
    role(3, "manager");
    role(2, "worker");
    let expect = |what: &str, wanted: [&str; 3]| {
        wait_for(what, SOON, || {
            let status = manager_status(&lab, 1);
            let is = wanted.iter().zip(1..).all(|(word, n)| {
                let line =
                    status.lines().find_map(|l| l.strip_prefix(&format!("host{n}"))).unwrap_or("?").trim();
                line == *word || (*word == "manager" && ["Leader", "Reachable"].contains(&line))
            });
            if is { Ok(()) } else { Err(format!("{status}{}", lab.daemon_logs())) }
        });
    };
    expect("host 2 to be a worker and host 3 a manager", ["manager", "", "manager"]);
    wait_for("host 2 to know that it is a worker", SOON, || {
        let left = lab.rswarm(2, &["swarm", "leave"]);
        if left.code == 0 { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let token = lab.rswarm(1, &["swarm", "join-token", "-q", "manager"]).ok();
    let first = format!("{}:2377", Lab::address(1));
    let address = Lab::address(2);
    lab.rswarm(2, &["swarm", "join", "--token", token.trim(), "--advertise-addr", &address, &first]).ok();
    wait_for("three managers", SOON, || {
        let status = manager_status(&lab, 1);
        let managers = status.matches("Reachable").count() + status.matches("Leader").count();
        if managers == 3 { Ok(()) } else { Err(format!("{status}{}", lab.daemon_logs())) }
    });
    // The first one leaves, whether it leads or not; those that stay are asked by it, and agree.
    lab.rswarm(1, &["swarm", "leave", "--force"]).ok();
    wait_for("two managers, and the third known to have left", SOON, || {
        let status = manager_status(&lab, 2);
        let managers = status.matches("Reachable").count() + status.matches("Leader").count();
        let left = status.lines().any(|line| line.trim() == "host1");
        if managers == 2 && left { Ok(()) } else { Err(format!("{status}{}", lab.daemon_logs())) }
    });
    lab.rswarm(2, &["node", "rm", "host1"]).ok();
    let leave = lab.rswarm(2, &["swarm", "leave"]).fails();
    assert!(leave.contains("participating as a manager"), "{leave}");
    let logs =
        (1..=3).map(|n| std::fs::read_to_string(lab.dir().join(format!("h{n}/daemon.log"))).expect("a log"));
    assert!(!logs.collect::<String>().contains("address already in use"), "{}", lab.daemon_logs());
}
