//! A deploy that cannot work says why, soon and in one line; and it does not wait for what cannot come.

use crate::{SOON, lab, load_hello, program, swarm};
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};
use testkit::{Lab, on_a_shared_machine, wait_for};

/// From when the managers know a cause until it is on the screen.
pub(crate) const AT_ONCE: Duration = on_a_shared_machine(Duration::from_secs(3));

/// Ways in which a deploy cannot work: a word, the service, and what of the cause is to be seen.
const WAYS: [(&str, &str, &str); 12] = [
    ("image", "image: '127.0.0.1:5999/nothing:1'", "cannot reach http://127.0.0.1:5999"),
    ("program", "{image: rswarm/hello, entrypoint: [/no/such/program]}", "exec: \"/no/such/program\""),
    ("crash", "{image: rswarm/hello, command: [no-such-word]}", "non-zero exit (1)"),
    ("user", "{image: rswarm/hello, command: [web], user: nobody-knows}", "unable to find user"),
    (
        "health",
        "{image: rswarm/hello, command: [web], healthcheck: {test: [CMD, /hello, x], interval: 300ms, retries: 1}}",
        "unhealthy container",
    ),
    (
        "reserves",
        "{image: rswarm/hello, command: [web], deploy: {resources: {reservations: {cpus: '640'}}}}",
        "insufficient resources on 3 nodes",
    ),
    (
        "seats",
        "{image: rswarm/hello, command: [web], deploy: {resources: {reservations: {generic_resources: \
         [{discrete_resource_spec: {kind: SEAT, value: 1}}]}}}}",
        "insufficient resources on 3 nodes",
    ),
    (
        "label",
        "{image: rswarm/hello, command: [web], deploy: {placement: {constraints: ['node.labels.disk == ssd']}}}",
        "scheduling constraints not satisfied on 3 nodes",
    ),
    (
        "spread",
        "{image: rswarm/hello, command: [web], deploy: {replicas: 4, placement: {max_replicas_per_node: 1}}}",
        "max replicas per node",
    ),
    (
        "port",
        "{image: rswarm/hello, command: [web], deploy: {replicas: 4}, ports: [{target: 80, published: 8093, mode: host}]}",
        "host-mode port already in use on 3 nodes",
    ),
    (
        "mount",
        "{image: rswarm/hello, command: [web], volumes: [{type: bind, source: /nothing/there, target: /d, \
         bind: {create_host_path: false}}]}",
        "bind source path does not exist: /nothing/there",
    ),
    ("driver", "{image: rswarm/hello, command: [web], volumes: ['d:/d']}", "volume plugin rexray"),
];

/// A command of ours that goes on.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Running {
    pub(crate) fn start(lab: &Lab, args: &[&str]) -> Self {
        let mut child = Command::new(program())
            .args(args)
            .env("DOCKER_HOST", format!("unix://{}", lab.socket(1).display()))
            .env_remove("RSWARM_HOST")
            .env("HOME", lab.dir())
            .current_dir(lab.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let (sender, lines) = mpsc::sync_channel(1000);
        let (out, err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
        let other = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        std::thread::spawn(move || {
            BufReader::new(err).lines().map_while(Result::ok).try_for_each(|l| other.send(l))
        });
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for a line with these words in it.
    pub(crate) fn until(&mut self, words: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{words:?} is not said within {limit:?}, but:\n{}", self.said.join("\n"));
            };
            self.said.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    /// As Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("an id"));
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).expect("a signal");
    }

    /// Returns the exit code and all that was said.
    pub(crate) fn end(mut self, limit: Duration) -> (i32, Vec<String>) {
        let end = Instant::now() + limit;
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.said.push(line);
        }
        let code = wait_for("the command to end", SOON, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            other => Err(format!("{other:?} {:?}", self.said)),
        });
        (code, std::mem::take(&mut self.said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Which host it is does not matter.
fn anywhere(line: &str) -> String {
    ["host1", "host2", "host3"].iter().fold(line.to_owned(), |line, host| line.replace(host, "HOST"))
}

#[test]
fn a_deploy_that_cannot_work_says_why_at_once() {
    let lab = swarm(3, 1);
    load_hello(&lab, 1);
    let mut seen = String::new();
    for (name, service, cause) in WAYS {
        let volumes = if name == "driver" { "volumes: {d: {driver: rexray}}\n" } else { "" };
        let service = if service.starts_with('{') { service.to_owned() } else { format!("{{{service}}}") };
        let file = lab.dir().join(format!("{name}.yml"));
        std::fs::write(&file, format!("name: {name}\nservices:\n  web: {service}\n{volumes}"))
            .expect("a file");
        let file = file.to_str().expect("a path");
        // What the scheduler is in the way of is known before.
        let plan = lab.rswarm(1, &["deploy", "--plan", file]);
        let foreseen = ["reserves", "seats", "label", "spread", "port"].contains(&name);
        assert_eq!(plan.code, if foreseen { 3 } else { 2 }, "{name}: {plan:?}");
        assert_eq!(plan.stdout.contains(cause), foreseen, "{name}: {plan:?}");
        let begun = Instant::now();
        let mut deploy = Running::start(&lab, &["deploy", "--yes", file]);
        deploy.until("is at revision 1", SOON);
        wait_for(&format!("the managers to know of {cause:?}"), SOON, || {
            let tasks = lab.rswarm(1, &["stack", "ps", "--no-trunc", "--format", "{{.Error}}", name]).ok();
            if tasks.contains(cause) { Ok(()) } else { Err(tasks) }
        });
        let known = begun.elapsed();
        // That it ended says little: what it printed last does, which its node is asked for.
        let shown = if name == "crash" { "last words: Error: usage" } else { cause };
        let mut told = deploy.until(shown, AT_ONCE);
        // What was only warned of comes by the other stream, before or after what it is behind.
        while told.starts_with("WARNING: ") {
            told = deploy.until(shown, AT_ONCE);
        }
        println!(
            "{name}: known to the managers {known:.1?} after the deploy began, told by {:.1?}",
            begun.elapsed()
        );
        seen += &format!("{name}\n  {}\n", anywhere(&told));
        let why = lab.rswarm(1, &["service", "explain", &format!("{name}_web")]).ok();
        assert!(why.contains(cause), "{name}: {why}");
        if name == "label" {
            assert!(
                why.contains("host2: no, and only for this: constraint not satisfied: node.labels.disk"),
                "{why}"
            );
        }
        if ["mount", "driver"].contains(&name) {
            let (code, said) = deploy.end(SOON);
            let end = said.iter().skip_while(|line| !line.starts_with("Error: "));
            let end: Vec<String> =
                end.filter(|line| !line.starts_with("task ")).map(|l| format!("  {l}\n")).collect();
            seen += &format!("{}  ends with {code}\n", anywhere(&end.concat()));
        } else {
            deploy.interrupt();
            let (code, said) = deploy.end(SOON);
            assert_eq!(code, 130, "{name}: {said:?}");
            assert!(said.iter().any(|line| line.contains("the swarm goes on to bring stack")), "{said:?}");
        }
        lab.rswarm(1, &["stack", "rm", name]).ok();
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/e2e/reasons.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &seen).expect("the file");
    }
    let wanted = std::fs::read_to_string(&file).expect("the file");
    assert_eq!(seen, wanted, "UPDATE_EXPECT=1 writes {}", file.display());
}

#[test]
fn what_changes_a_service_says_why_it_does_not_run_and_when_it_stops_to_wait() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let create = ["service", "create", "--name", "web", "--publish", "80", "rswarm/hello", "web"];
    lab.rswarm(1, &create).ok();
    let update = ["service", "update", "--image", "127.0.0.1:5999/nothing:1", "--timeout", "60s", "web"];
    let mut update = Running::start(&lab, &update);
    // Below its service, or where the update is paused: whichever comes first.
    update.until("cannot reach http://127.0.0.1:5999/v2/: Connection refused", SOON);
    let (code, said) = update.end(SOON);
    assert_eq!(code, 1, "{said:?}");
    assert!(said.iter().any(|line| line.contains("service web paused")), "{said:?}");
    lab.rswarm(1, &["service", "rollback", "web"]).ok();

    let bound = [
        "service",
        "create",
        "-d",
        "--name",
        "bound",
        "--constraint",
        "node.labels.a==b",
        "rswarm/hello",
        "web",
    ];
    lab.rswarm(1, &bound).ok();
    let scale = lab.rswarm(1, &["scale", "--timeout", "5s", "bound=2"]);
    assert_eq!(scale.code, 1);
    // While it waits a cause is said once, with as many tasks as had it then; at its end with all of them.
    let cause = "bound: scheduling constraints not satisfied on 1 node";
    assert!(scale.stdout.contains(&format!("{cause} (")), "{scale:?}");
    assert!(
        scale.stderr.contains(&format!("not converged within 5s:\n  {cause} (2 tasks wait)")),
        "{scale:?}"
    );
    let mut scale = Running::start(&lab, &["service", "scale", "bound=3"]);
    scale.until("constraints not satisfied", SOON);
    scale.interrupt();
    let (code, said) = scale.end(SOON);
    assert_eq!(code, 130);
    assert!(said.iter().any(|line| line.contains("the swarm goes on to bring service bound up")), "{said:?}");
    // What never ran is brought up by an update like any other.
    lab.rswarm(1, &["node", "update", "--label-add", "a=b", "host1"]).ok();
    let ran = lab.rswarm(1, &["service", "update", "--env-add", "A=1", "--timeout", "60s", "bound"]).ok();
    assert!(ran.contains("bound: 3/3"), "{ran}");
}

#[test]
fn the_program_knows_what_it_is_without_a_daemon() {
    let lab = lab(1);
    let with = lab.rswarm(1, &["version"]).ok();
    assert!(with.contains("Client: ") && with.contains("Server: "), "{with}");
    let without = lab.rswarm(1, &["-H", "unix:///nowhere/docker.sock", "version"]);
    assert_ne!(without.code, 0);
    let target = format!("Target: {}-unknown-linux-", std::env::consts::ARCH);
    for word in ["Client: ", "Commit: ", "Date: ", &target] {
        assert!(without.stdout.contains(word), "{without:?}");
    }
    let refused = lab.rswarm(1, &["service", "ls"]).fails();
    assert!(refused.contains("rswarm swarm init") && !refused.contains("docker swarm"), "{refused}");
}
