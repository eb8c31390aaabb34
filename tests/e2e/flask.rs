//! The "Get started" app of Docker's documentation, Flask and Redis from Debian packages, with the real `docker` CLI.

use crate::{SOON, clis::Cli, swarm, wait_for_replicas, wait_for_update};
use std::{collections::BTreeSet, path::PathBuf};
use testkit::{Lab, wait_for};

const STACK: &str = "services:
  web:
    image: app/flask:1
    command: [python3, /app/app.py]
    init: true
    ports: ['8000:8000']
    deploy: {replicas: 3}
  redis:
    image: app/redis:1
    command: [redis-server, --save, '', --protected-mode, 'no']
";

/// Returns the root of an image that `cargo xtask oracles` makes.
fn root_of(image: &str) -> String {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-images"));
    let path = folder.join(format!("{image}.tar"));
    assert!(path.exists(), "{} is missing: run `cargo xtask oracles`", path.display());
    path.display().to_string()
}

/// Returns the greeting, the count and the replica of an answer.
fn read(answer: &str) -> (String, u64, String) {
    let (greeting, rest) = answer.trim().split_once(" I have been seen ").expect("the app's words");
    let (count, replica) = rest.split_once(" times. ").expect("the app's words");
    (greeting.to_owned(), count.parse().expect("a count"), replica.to_owned())
}

/// Asks every host in turn; each answer must count on from the last.
fn ask_around(lab: &mut Lab, last: &mut u64, rounds: u8) -> BTreeSet<String> {
    let mut replicas = BTreeSet::new();
    for round in 0..rounds {
        let host = 1 + round % 3;
        let logs = lab.daemon_logs();
        let answer = wait_for("an answer", SOON, || lab.http(host, 8000).map_err(|e| format!("{e}{logs}")));
        let (_, count, replica) = read(&answer);
        assert!(count > *last, "{answer} after {last}");
        *last = count;
        replicas.insert(replica);
    }
    replicas
}

fn wait_for_greeting(lab: &mut Lab, greeting: &str) {
    for host in 1..=3 {
        wait_for(greeting, SOON, || match lab.http(host, 8000) {
            Ok(answer) if read(&answer).0 == greeting => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

#[test]
#[ignore = "oracle: docker, images of Debian packages"]
fn flask_and_redis_count_on_through_scale_update_rollback_and_drain() {
    let mut lab = swarm(3, 3);
    lab.docker(1, &["import", &root_of("redis"), "app/redis:1"]).ok();
    lab.docker(1, &["import", &root_of("flask"), "app/flask:1"]).ok();
    let again = ["import", "--change", "ENV GREETING=\"Hello again!\"", &root_of("flask"), "app/flask:2"];
    lab.docker(1, &again).ok();
    let stack = lab.dir().join("app.yml");
    std::fs::write(&stack, STACK).expect("a file");
    let stack = stack.to_str().expect("a readable path");
    lab.docker(1, &["stack", "deploy", "--detach=true", "-c", stack, "app"]).ok();
    wait_for_replicas(&lab, 1, "app_redis", "1/1");
    wait_for_replicas(&lab, 1, "app_web", "3/3");

    // A running task is one whose process runs: the app may listen a while later.
    let (mut last, mut replicas) = (0, BTreeSet::new());
    wait_for("answers of all three replicas", SOON, || {
        replicas.append(&mut ask_around(&mut lab, &mut last, 3));
        if replicas.len() == 3 { Ok(()) } else { Err(format!("{replicas:?} only")) }
    });

    Cli::Dockers.change(&lab, 2, &["service", "scale", "--detach", "app_web=5"]).ok();
    wait_for_replicas(&lab, 3, "app_web", "5/5");
    ask_around(&mut lab, &mut last, 6);

    Cli::Dockers
        .change(&lab, 1, &["service", "update", "--detach", "--image", "app/flask:2", "app_web"])
        .ok();
    wait_for_update(&lab, "app_web", "completed");
    wait_for_greeting(&mut lab, "Hello again!");
    Cli::Dockers.change(&lab, 1, &["service", "rollback", "--detach", "app_web"]).ok();
    wait_for_update(&lab, "app_web", "rollback_completed");
    wait_for_greeting(&mut lab, "Hello World!");
    ask_around(&mut lab, &mut last, 6);

    // Of a drained host the counter may move too: its memory goes with it, so the count starts anew then.
    let running = ["service", "ps", "-f", "desired-state=running", "--format", "{{.Node}}"];
    let counter = lab.docker(1, &[&running[..], &["app_redis"]].concat()).ok();
    let drained = if counter.trim() == "host3" { "host2" } else { "host3" };
    Cli::Dockers.change(&lab, 1, &["node", "update", "--availability", "drain", drained]).ok();
    wait_for("the host to be empty", SOON, || {
        let nodes = lab.docker(1, &[&running[..], &["app_web"]].concat()).ok();
        let tasks = lab.docker(1, &["node", "ps", "-f", "desired-state=running", "-q", drained]).ok();
        if nodes.lines().count() == 5 && tasks.is_empty() { Ok(()) } else { Err(format!("{nodes}{tasks}")) }
    });
    wait_for_replicas(&lab, 1, "app_web", "5/5");
    ask_around(&mut lab, &mut last, 9);

    let logs = lab.docker(2, &["service", "logs", "app_web"]);
    let said = format!("{}{}", logs.stdout, logs.stderr);
    assert!(said.contains("GET / HTTP/1.0\" 200"), "{said}");

    // Into every task, from one host: most run on another.
    let running = ["service", "ps", "app_web", "-f", "desired-state=running", "-q", "--no-trunc"];
    for task in lab.docker(1, &running).ok().lines() {
        let container = ["inspect", "--format", "{{.Status.ContainerStatus.ContainerID}}", task];
        let container = lab.docker(1, &container).ok();
        let said = lab.docker(1, &["exec", container.trim(), "python3", "-c", "print(6 * 7)"]);
        assert_eq!(said.stdout.trim(), "42", "{said:?}{}", lab.daemon_logs());
    }

    lab.docker(1, &["stack", "rm", "app"]).ok();
    for host in 1..=3 {
        wait_for("the containers to be gone", SOON, || {
            let left = lab.docker(host, &["ps", "-a", "-q"]).ok();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}

#[test]
#[ignore = "oracle: docker-compose, images of Debian packages"]
fn docker_compose_of_2021_brings_the_app_up_scales_it_and_takes_it_down() {
    let lab = crate::lab(1);
    lab.docker(1, &["import", &root_of("redis"), "app/redis:1"]).ok();
    lab.docker(1, &["import", &root_of("flask"), "app/flask:1"]).ok();
    let text = format!("version: '3.8'\n{STACK}").replace("'8000:8000'", "'8000'");
    let text = text.replace("    deploy: {replicas: 3}\n", "    depends_on: [redis]\n");
    std::fs::write(lab.dir().join("docker-compose.yml"), text).expect("a file");
    let compose = |args: &[&str]| {
        let mut command = std::process::Command::new("docker-compose");
        command.args(["-p", "app"]).args(args).current_dir(lab.dir()).env("HOME", lab.dir());
        command.env("DOCKER_HOST", format!("unix://{}", lab.socket(1).display()));
        let said = command.stdin(std::process::Stdio::null()).output().expect("docker-compose runs");
        let text =
            format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success(), "docker-compose {args:?}: {text}{}", lab.daemon_logs());
        text
    };
    compose(&["up", "-d"]);
    let ask = "import urllib.request as u; print(u.urlopen('http://web:8000').read().decode())";
    let mut last = 0;
    let mut greet = || {
        let answer = wait_for("the app to answer", SOON, || {
            let container = lab.docker(1, &["ps", "-q", "-f", "name=app_web_1"]).ok();
            let said = lab.docker(1, &["exec", container.trim(), "python3", "-c", ask]);
            if said.code == 0 { Ok(said.stdout) } else { Err(format!("{said:?}")) }
        });
        let (_, count, _) = read(&answer);
        assert!(count > last, "{answer} after {last}");
        last = count;
    };
    greet();
    compose(&["up", "-d", "--scale", "web=3"]);
    let up = compose(&["ps"]);
    assert_eq!(
        up.lines().filter(|line| line.contains("app_web_") && line.contains(" Up ")).count(),
        3,
        "{up}"
    );
    let resolve = "import socket; print(len(socket.gethostbyname_ex('web')[2]))";
    assert_eq!(compose(&["exec", "-T", "redis", "redis-cli", "ping"]).trim(), "PONG");
    assert_eq!(compose(&["exec", "-T", "--index=2", "web", "python3", "-c", resolve]).trim(), "3");
    assert!(compose(&["logs", "redis"]).contains("Ready to accept connections"));
    assert!(compose(&["run", "--rm", "web", "python3", "-c", "print(6 * 7)"]).contains("42"));
    compose(&["restart", "web"]);
    greet();
    compose(&["down", "-v"]);
    assert_eq!(lab.docker(1, &["ps", "-a", "-q"]).ok(), "");
    assert!(!lab.docker(1, &["network", "ls"]).ok().contains("app_default"));
}
