//! Faults at the worst moments, and that nothing is left behind after them.

use crate::{SOON, lab, load_hello, program, swarm, wait_for_replicas};
use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};
use testkit::{Lab, on_a_shared_machine, wait_for};

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
fn a_host_that_cannot_run_containers_says_so_and_gets_no_tasks_until_it_can() {
    let mut lab = crate::swarm(2, 1);
    load_hello(&lab, 1);
    let message = |lab: &Lab| {
        let format = "{{.Status.State}}{{with .Status.Message}} {{.}}{{end}}";
        lab.rswarm(1, &["node", "inspect", "--format", format, "host2"]).ok()
    };
    on_host(&mut lab, 2, &["/bin/mount", "-t", "tmpfs", "tmpfs", "/sys/fs/cgroup"]);
    // Hosts look at themselves every 20 s.
    wait_for("host 2 to say what is wrong", Duration::from_secs(40), || {
        let said = message(&lab);
        if said.contains("ready no containers can run here: control groups") { Ok(()) } else { Err(said) }
    });
    let info = lab.rswarm(2, &["info"]);
    let warning = "no containers can run here: control groups at /sys/fs/cgroup";
    assert!(info.stderr.contains(warning), "{info:?}");
    let create = ["service", "create", "--name", "web", "--replicas", "2", "rswarm/hello", "web"];
    lab.rswarm(1, &create).ok();
    wait_for_replicas(&lab, 1, "web", "2/2");
    let nodes =
        |lab: &Lab, service: &str| lab.rswarm(1, &["service", "ps", "--format", "{{.Node}}", service]).ok();
    assert!(!nodes(&lab, "web").contains("host2"), "{}", nodes(&lab, "web"));
    let there = [
        "service",
        "create",
        "-d",
        "--name",
        "there",
        "--constraint",
        "node.hostname==host2",
        "rswarm/hello",
        "web",
    ];
    lab.rswarm(1, &there).ok();
    wait_for("its task to say why it waits", SOON, || {
        let said = lab.rswarm(1, &["service", "ps", "--no-trunc", "there"]).ok();
        if said.contains("no containers can run on 1 node") { Ok(()) } else { Err(said) }
    });
    on_host(&mut lab, 2, &["/bin/umount", "/sys/fs/cgroup"]);
    wait_for("the task to run", Duration::from_secs(40), || {
        let said = lab.rswarm(1, &["service", "ls", "--filter", "name=there"]).ok();
        if said.contains("1/1") { Ok(()) } else { Err(said) }
    });
    assert_eq!(message(&lab).trim(), "ready");
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
    let role = |n: u8, role: &str| lab.rswarm(1, &["node", "update", "--role", role, &format!("host{n}")]);
    for _ in 0..3 {
        for n in [2, 3] {
            // Refused while the others would be no majority without it.
            role(n, "worker");
            role(n, "manager");
        }
    }
    for (n, last) in [(3, "worker"), (3, "manager"), (2, "worker")] {
        wait_for("the last word on a host", SOON, || {
            let said = role(n, last);
            if said.code == 0 { Ok(()) } else { Err(format!("{said:?}")) }
        });
    }
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

/// The last answer of `hello ask`: when it came and from whom. In a service's log it stands behind the task's name.
fn last_answer(said: &str) -> Option<(u128, String)> {
    let lines = said.lines().rev().map(|line| line.rsplit("| ").next().unwrap_or(line).trim());
    let words = lines.filter_map(|line| line.split_once(' '));
    words.filter_map(|(at, who)| Some((at.parse().ok()?, who.to_owned()))).next()
}

fn millis() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_millis()
}

/// Waits until each flow has been answered since now, by somebody whom `by` takes.
fn answered(what: &str, within: Duration, lab: &Lab, flows: &[testkit::Exec], by: impl Fn(&str) -> bool) {
    let since = millis();
    wait_for(what, within, || {
        let said: Vec<String> = flows
            .iter()
            .map(testkit::Exec::said)
            .chain([lab.rswarm(1, &["service", "logs", "asker"]).stdout])
            .collect();
        let last: Vec<_> = said.iter().map(|said| last_answer(said)).collect();
        let fine =
            |last: &Option<(u128, String)>| last.as_ref().is_some_and(|(at, who)| *at > since && by(who));
        if last.iter().all(fine) {
            Ok(())
        } else {
            Err(format!("since {since}: outside, loopback, virtual address: {last:?}"))
        }
    });
}

#[test]
fn open_flows_of_udp_follow_their_service_through_every_fault() {
    /// What the table of backends takes to move a flow.
    const MOVE: Duration = on_a_shared_machine(Duration::from_secs(2));
    /// Until a host that says nothing is given up.
    const SILENCE: Duration = on_a_shared_machine(Duration::from_secs(6));
    let mut lab = swarm(3, 1);
    for n in 1..=3 {
        load_hello(&lab, n);
    }
    // Before there is anything: from host 3 through host 1, and on host 1 itself.
    let through = format!("{}:9953", Lab::address(1));
    let flows = [
        lab.exec(3, &["hello", "ask", &through]).expect("a client"),
        lab.exec(1, &["hello", "ask", "127.0.0.1:9953"]).expect("a client"),
    ];
    lab.rswarm(1, &["network", "create", "-d", "overlay", "back"]).ok();
    let create = |name: &str, more: &[&str], command: &[&str]| {
        let first = ["service", "create", "--detach", "--name", name, "--network", "back"];
        lab.rswarm(1, &[&first, more, &["rswarm/hello"], command].concat()).ok();
    };
    let workers = ["--replicas", "2", "--constraint", "node.role==worker", "-p", "9953:53/udp"];
    create("echo", &workers, &["echo", "53"]);
    create("asker", &["--constraint", "node.role==manager"], &["ask", "echo:53"]);
    wait_for_replicas(&lab, 1, "echo", "2/2");
    wait_for_replicas(&lab, 1, "asker", "1/1");
    answered("flows to reach a port that came later", MOVE, &lab, &flows, |_| true);

    let who = last_answer(&flows[0].said()).expect("an answer").1;
    let ids = |lab: &Lab, n: u8| lab.rswarm(n, &["ps", "-q"]).ok();
    let home = (2..=3).find(|n| ids(&lab, *n).contains(&who)).expect("the container that answers");
    lab.rswarm(home, &["kill", &who]).ok();
    answered("flows to leave a killed container", MOVE, &lab, &flows, |by| by != who);

    wait_for_replicas(&lab, 1, "echo", "2/2");
    lab.tell("kill 2").expect("host 2 to lose its power");
    let left = ids(&lab, 3);
    answered("flows to leave a dead host", SILENCE + MOVE, &lab, &flows, |by| left.contains(by));
}

#[test]
fn no_request_is_lost_while_a_daemon_is_away_and_when_it_returns() {
    /// Shorter than the lease of tasks whose daemon is away.
    const AWAY: Duration = Duration::from_secs(15);
    const AFTER: Duration = Duration::from_secs(5);
    let mut lab = swarm(3, 3);
    for n in 1..=3 {
        load_hello(&lab, n);
    }
    let web =
        ["service", "create", "--name", "web", "--replicas", "3", "-p", "8080:80", "rswarm/hello", "web"];
    lab.rswarm(1, &web).ok();
    wait_for_replicas(&lab, 1, "web", "3/3");
    let doors: Vec<_> = (1..=3).map(|n| lab.door(n, 8080).expect("a door")).collect();
    for door in &doors {
        wait_for("the port to answer", SOON, || door.get("/healthz"));
    }
    let ids = |lab: &Lab| [1, 2, 3].map(|n| lab.rswarm(n, &["ps", "-q"]).ok());
    let before = ids(&lab);
    let end = AtomicBool::new(false);
    let (asked, failed) = std::thread::scope(|scope| {
        let ask = |door: testkit::Door| {
            let end = &end;
            scope.spawn(move || {
                let (mut asked, mut failed) = (0, Vec::new());
                while !end.load(Ordering::Relaxed) {
                    asked += 1;
                    failed.extend(door.get("/healthz").err());
                }
                (asked, failed)
            })
        };
        let clients: Vec<_> = doors.iter().cloned().map(ask).collect();
        // The leader's and a follower's; the requests go on meanwhile.
        for n in [1, 2] {
            lab.tell(&format!("kill-daemon {n}")).expect("the daemon to be killed");
            std::thread::sleep(AWAY);
            lab.tell(&format!("start-daemon {n}")).expect("the daemon to be started");
            lab.wait_for_daemon(n).expect("its answer");
            std::thread::sleep(AFTER);
        }
        end.store(true, Ordering::Relaxed);
        let all = clients.into_iter().map(|client| client.join().expect("no panic"));
        all.fold((0, Vec::new()), |(asked, mut failed), (more, others)| {
            failed.extend(others);
            (asked + more, failed)
        })
    });
    assert!(asked > 1000, "only {asked} requests");
    assert!(
        failed.is_empty(),
        "{} of {asked} failed: {:?}{}",
        failed.len(),
        failed.first(),
        lab.daemon_logs()
    );
    assert_eq!(ids(&lab), before, "the same containers");
}

#[test]
fn a_host_whose_clock_is_an_hour_ahead_is_named_and_keeps_its_tasks() {
    let mut lab = swarm(3, 3);
    for n in 1..=3 {
        load_hello(&lab, n);
    }
    lab.rswarm(1, &["service", "create", "--name", "web", "--replicas", "3", "rswarm/hello", "web"]).ok();
    wait_for_replicas(&lab, 1, "web", "3/3");
    let running = lab.rswarm(3, &["ps", "-q"]).ok();
    let restart = |lab: &mut Lab, more: &str| {
        lab.tell("kill-daemon 3").expect("the daemon to be killed");
        lab.tell(&format!("program 3 {} {more}", program().display())).expect("other words for it");
        lab.tell("start-daemon 3").expect("the daemon to be started");
        lab.wait_for_daemon(3).expect("its answer");
    };
    let wait_for_message = |lab: &Lab, wanted: &str| {
        wait_for(&format!("{wanted:?} to be said of host 3"), SOON, || {
            let format = "{{.Status.State}} {{with .Status.Message}}{{.}}{{end}}";
            let said = lab.rswarm(1, &["node", "inspect", "--format", format, "host3"]);
            if said.stdout.trim() == wanted { Ok(()) } else { Err(format!("{said:?}{}", lab.daemon_logs())) }
        });
    };
    restart(&mut lab, "--clock-offset 3600");
    wait_for_message(&lab, "ready clock is 60 min ahead");
    // What it runs it was given before, and what it is given now it runs.
    lab.rswarm(1, &["service", "scale", "web=6"]).ok();
    wait_for_replicas(&lab, 1, "web", "6/6");
    let now = lab.rswarm(3, &["ps", "-q"]).ok();
    assert!(running.lines().all(|id| now.contains(id)), "{running}{now}");
    restart(&mut lab, "");
    wait_for_message(&lab, "ready");
    assert_eq!(lab.rswarm(3, &["ps", "-q"]).ok(), now, "{}", lab.daemon_logs());
}

#[test]
fn networks_keep_off_the_hosts_own_and_each_other_and_none_is_made_without_a_subnet() {
    let lab = lab(1);
    load_hello(&lab, 1);
    // The hosts are on 198.18.0.0/24 themselves.
    let pool = ["--default-addr-pool", "198.18.0.0/23", "--default-addr-pool-mask-length", "24"];
    lab.rswarm(1, &[&["swarm", "init", "--advertise-addr", &Lab::address(1)][..], &pool].concat()).ok();
    let subnet = |name: &str| {
        let shown = lab.rswarm(1, &["network", "inspect", name]).ok();
        let value = shown.split("\"Subnet\": \"").nth(1).and_then(|rest| rest.split('"').next());
        value.unwrap_or("none yet").to_owned()
    };
    wait_for("the node to have told what it reaches", SOON, || {
        let made = lab.rswarm(1, &["network", "create", "-d", "overlay", "one"]);
        let given = if made.code == 0 { subnet("one") } else { made.stderr };
        if given == "198.18.1.0/24" {
            return Ok(());
        }
        lab.rswarm(1, &["network", "rm", "one"]);
        Err(given)
    });
    // With no other choice left, this; and then nothing.
    lab.rswarm(1, &["network", "create", "-d", "overlay", "two"]).ok();
    let refused = lab.rswarm(1, &["network", "create", "-d", "overlay", "three"]).fails();
    assert!(refused.contains("could not find an available, non-overlapping IPv4 address pool"), "{refused}");
    let stack = lab.dir().join("app.yml");
    let text = "name: app\nservices:\n  web: {image: rswarm/hello, command: [web]}\n";
    std::fs::write(&stack, text).expect("a file");
    let refused = lab.rswarm(1, &["deploy", stack.to_str().expect("a readable path")]).fails();
    assert!(refused.contains("network app_default: could not find an available"), "{refused}");

    // The next of Docker's for bridges would be 172.18.0.0/16.
    let taken = ["network", "create", "-d", "overlay", "--subnet", "172.18.0.0/16", "far"];
    lab.rswarm(1, &taken).ok();
    lab.rswarm(1, &["service", "create", "--name", "web", "--network", "far", "rswarm/hello", "web"]).ok();
    wait_for_replicas(&lab, 1, "web", "1/1");
    lab.rswarm(1, &["network", "create", "near"]).ok();
    assert_eq!(subnet("near"), "172.19.0.0/16");
}
