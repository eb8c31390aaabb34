//! Every command and flag that Docker's CLI shows in its help is one of ours too, or is named with the reason in
//! `docker_flags.txt`: a list that is held from both sides.

use crate::{load_hello, program, swarm};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};
use testkit::Output;

/// What a command's help shows: its commands and its flags.
#[derive(Debug, Default)]
struct Help {
    commands: Vec<String>,
    flags: BTreeSet<String>,
}

fn help(program: &Path, path: &[String]) -> Option<Help> {
    let output = Command::new(program)
        .args(path)
        .arg("--help")
        // Their plugins are programs of their own.
        .env("DOCKER_CLI_PLUGIN_EXTRA_DIRS", "/nonexistent")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    output.status.success().then(|| read(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads help as both programs lay it out: titles that end with a colon, two blanks before a command, flags first in
/// their line.
fn read(text: &str) -> Help {
    let mut help = Help::default();
    let mut of_commands = false;
    for line in text.lines() {
        if !line.starts_with(' ') && line.ends_with(':') {
            of_commands = line.to_lowercase().contains("commands");
            continue;
        }
        let inner = line.trim_start();
        let deep = line.len() - inner.len();
        if inner.starts_with('-') && deep <= 6 {
            let words = inner.split([' ', ',', '=']).filter(|word| !word.is_empty());
            let flags = words
                .take_while(|word| word.starts_with('-'))
                .map(|flag| flag.trim_end_matches("[").to_owned());
            help.flags.extend(flags);
        } else if of_commands && deep == 2 {
            help.commands.extend(inner.split(' ').next().map(|name| name.trim_end_matches('*').to_owned()));
        }
    }
    help
}

/// The list: `COMMAND FLAG`, the reason indented below; `*` is any command, and a command alone is all of it.
fn listed() -> BTreeMap<(String, String), String> {
    let mut all = BTreeMap::new();
    let mut waiting = Vec::new();
    for line in
        include_str!("docker_flags.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if line.starts_with(' ') {
            for key in waiting.drain(..) {
                assert!(all.insert(key, line.trim().to_owned()).is_none(), "{line} is there twice");
            }
        } else {
            let (command, flag) = match line.rsplit_once(' ') {
                Some((command, flag)) if flag.starts_with('-') => (command.to_owned(), flag.to_owned()),
                _ => (line.to_owned(), String::new()),
            };
            waiting.push((command, flag));
        }
    }
    assert!(waiting.is_empty(), "{waiting:?} has no reason");
    all
}

#[test]
fn each_difference_has_its_reason() {
    assert!(listed().len() > 10);
}

/// Judged with Docker's own CLI, as [`crate::docker_cli`] has it.
pub(crate) fn each_flag_of_dockers_cli_is_ours_or_named_with_the_reason() {
    let (docker, listed) = (testkit::peer("docker"), listed());
    let (mut used, mut missing, mut looked) = (BTreeSet::new(), Vec::new(), 0);
    let mut left: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = left.pop() {
        let name = if path.is_empty() { "docker".to_owned() } else { path.join(" ") };
        let theirs = help(docker, &path).unwrap_or_else(|| panic!("docker {name} --help fails"));
        if let Some((key, _)) = listed.get_key_value(&(name.clone(), String::new())) {
            used.insert(key.clone());
            continue;
        }
        let Some(ours) = help(program(), &path) else {
            missing.push(format!("rswarm has no command {name:?}"));
            continue;
        };
        looked += theirs.flags.len();
        for flag in theirs.flags.difference(&ours.flags) {
            let keys = [(name.clone(), flag.clone()), ("*".to_owned(), flag.clone())];
            match keys.iter().find(|key| listed.contains_key(key)) {
                Some(key) => {
                    used.insert(key.clone());
                }
                None => missing.push(format!("rswarm {name} has no {flag}")),
            }
        }
        // `docker compose` and `docker buildx` are plugins, and other programs.
        let own = theirs
            .commands
            .into_iter()
            .filter(|below| !matches!(below.as_str(), "compose" | "buildx" | "help"));
        left.extend(own.map(|below| [path.clone(), vec![below]].concat()));
    }
    assert!(missing.is_empty(), "{} of {looked}:\n{}", missing.len(), missing.join("\n"));
    // The list is of this version; another one lacks some of what it names.
    let version = std::process::Command::new(docker).arg("--version").output().expect("docker runs").stdout;
    if String::from_utf8_lossy(&version).contains(" version 28.") {
        let stale: Vec<_> = listed.keys().filter(|key| !used.contains(*key)).collect();
        assert!(stale.is_empty(), "is a difference no more: {stale:?}");
    }
    assert!(looked > 300, "only {looked} flags were looked at");
}

/// Flags of `service create` in sets that go together.
const CREATED: &[&[&str]] = &[
    &[],
    &[
        "--replicas",
        "2",
        "--replicas-max-per-node",
        "3",
        "--constraint",
        "node.role==manager",
        "--placement-pref",
        "spread=node.labels.x",
    ],
    &["--mode", "global", "--endpoint-mode", "dnsrr", "--container-label", "a=b", "-l", "c=d"],
    &["--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2", "--restart-condition", "none"],
    &[
        "--mode",
        "global-job",
        "--restart-condition",
        "on-failure",
        "--restart-max-attempts",
        "2",
        "--restart-delay",
        "1s",
        "--restart-window",
        "9s",
    ],
    &[
        "-e",
        "A=1",
        "--hostname",
        "h",
        "-u",
        "1:2",
        "-w",
        "/tmp",
        "-t",
        "--init",
        "--read-only",
        "--stop-signal",
        "USR1",
        "--stop-grace-period",
        "3s",
        "--group",
        "5",
    ],
    &[
        "--cap-add",
        "net_admin",
        "--cap-drop",
        "CHOWN",
        "--oom-score-adj",
        "50",
        "--sysctl",
        "net.core.somaxconn=99",
        "--ulimit",
        "nofile=100:200",
    ],
    &[
        "--limit-cpu",
        "0.5",
        "--limit-memory",
        "64m",
        "--limit-pids",
        "99",
        "--reserve-cpu",
        "0.1",
        "--reserve-memory",
        "8m",
    ],
    &[
        "--update-parallelism",
        "2",
        "--update-delay",
        "1s",
        "--update-failure-action",
        "rollback",
        "--update-max-failure-ratio",
        "0.5",
        "--update-monitor",
        "2s",
        "--update-order",
        "start-first",
    ],
    &[
        "--rollback-parallelism",
        "0",
        "--rollback-delay",
        "1s",
        "--rollback-failure-action",
        "continue",
        "--rollback-monitor",
        "2s",
        "--rollback-order",
        "start-first",
    ],
    &[
        "--health-cmd",
        "true",
        "--health-interval",
        "5s",
        "--health-timeout",
        "2s",
        "--health-retries",
        "4",
        "--health-start-period",
        "1s",
        "--health-start-interval",
        "1s",
    ],
    &[
        "--no-healthcheck",
        "--log-driver",
        "json-file",
        "--log-opt",
        "max-size=1m",
        "--dns",
        "9.9.9.9",
        "--dns-search",
        "x.y",
        "--dns-option",
        "ndots:2",
    ],
    &[
        "-p",
        "9090:80",
        "-p",
        "9091:81/udp",
        "-p",
        "published=9092,target=82,mode=host",
        "--network",
        "back",
        "--network",
        "name=front,alias=other",
    ],
    &[
        "--mount",
        "type=volume,source=v,target=/v,volume-nocopy",
        "--mount",
        "type=tmpfs,target=/t,tmpfs-size=1m",
        "--secret",
        "s",
        "--secret",
        "source=s,target=/x,mode=0400,uid=3",
        "--config",
        "c",
        "--config",
        "source=c,target=/etc/c",
    ],
    &["--entrypoint", "/hello web"],
];

/// Flags of `service update`, each after the other to one service.
const UPDATED: &[&[&str]] = &[
    &[
        "--env-add",
        "A=1",
        "--env-add",
        "B=2",
        "--label-add",
        "a=b",
        "--container-label-add",
        "c=d",
        "--group-add",
        "7",
    ],
    &["--env-rm", "A", "--label-rm", "a", "--container-label-rm", "c", "--group-rm", "7"],
    &["--publish-add", "9190:80", "--publish-add", "published=9191,target=81,protocol=udp"],
    &["--publish-rm", "80", "--publish-add", "9192:82", "--endpoint-mode", "vip"],
    &["--network-add", "back", "--network-add", "name=front,alias=z"],
    &["--network-rm", "back"],
    &[
        "--secret-add",
        "s",
        "--config-add",
        "source=c,target=/etc/c",
        "--mount-add",
        "type=volume,source=v,target=/v",
    ],
    &["--secret-rm", "s", "--config-rm", "c", "--mount-rm", "/v"],
    &[
        "--constraint-add",
        "node.role==manager",
        "--placement-pref-add",
        "spread=node.labels.x",
        "--replicas-max-per-node",
        "2",
    ],
    &["--constraint-rm", "node.role==manager", "--placement-pref-rm", "spread=node.labels.x"],
    &[
        "--dns-add",
        "9.9.9.9",
        "--dns-search-add",
        "x.y",
        "--dns-option-add",
        "ndots:2",
        "--host-add",
        "db:10.1.2.3",
        "--host-add",
        "dc:10.1.2.4",
    ],
    &["--dns-rm", "9.9.9.9", "--dns-search-rm", "x.y", "--dns-option-rm", "ndots:2", "--host-rm", "db"],
    &[
        "--cap-add",
        "NET_ADMIN",
        "--cap-drop",
        "CHOWN",
        "--sysctl-add",
        "net.core.somaxconn=99",
        "--ulimit-add",
        "nofile=100:200",
    ],
    &["--cap-drop", "NET_ADMIN", "--sysctl-rm", "net.core.somaxconn", "--ulimit-rm", "nofile"],
    &["--limit-cpu", "0.5", "--limit-memory", "64m", "--reserve-memory", "8m", "--limit-pids", "50"],
    &[
        "--update-delay",
        "1s",
        "--rollback-order",
        "start-first",
        "--restart-condition",
        "on-failure",
        "--restart-max-attempts",
        "3",
    ],
    &["--health-cmd", "true", "--health-interval", "3s"],
    &["--no-healthcheck"],
    &[
        "--tty",
        "--init=false",
        "--read-only",
        "--user",
        "9",
        "--workdir",
        "/tmp",
        "--stop-grace-period",
        "2s",
    ],
    &["--args", "web 'a b'", "--log-driver", "json-file", "--log-opt", "max-size=1m", "--force"],
    &["--replicas", "2"],
    &["--cap-drop", "KILL"],
    &["--cap-add", "KILL"],
];

/// Judged with Docker's own CLI, as [`crate::docker_cli`] has it.
pub(crate) fn services_are_what_dockers_cli_makes_of_the_same_flags() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let ours = |args: &[&str]| lab.rswarm(1, args);
    let by = |name: &str, args: &[&str]| -> Output {
        if name == "ours" { lab.rswarm(1, args) } else { lab.docker(1, args) }
    };
    let file = lab.dir().join("file");
    std::fs::write(&file, "content").expect("a file");
    for network in ["back", "front"] {
        ours(&["network", "create", "-d", "overlay", network]).ok();
    }
    ours(&["secret", "create", "s", "file"]).ok();
    ours(&["config", "create", "c", "file"]).ok();
    let spec = |name: &str| {
        let mut spec: serde_json::Value =
            serde_json::from_str(&ours(&["service", "inspect", "-f", "{{json .Spec}}", name]).ok())
                .expect("a spec");
        spec.as_object_mut().expect("an object").remove("Name");
        // Docker's CLI gathers these in Go's maps and so says them in an order that is drawn by lot.
        for unordered in ["Env", "Secrets", "Configs"] {
            if let Some(items) = spec["TaskTemplate"]["ContainerSpec"][unordered].as_array_mut() {
                items.sort_by_key(serde_json::Value::to_string);
            }
        }
        // By id, which is drawn by lot, with Docker's CLI; ours keeps the order in which they were asked for.
        if let Some(networks) = spec["TaskTemplate"]["Networks"].as_array_mut() {
            networks.sort_by_key(|network| network["Target"].to_string());
        }
        // Docker's CLI says it also where nobody did.
        if let Some(container) = spec["TaskTemplate"]["ContainerSpec"].as_object_mut() {
            container.retain(|key, value| key != "Init" || *value != false);
        }
        spec
    };
    let mut others = Vec::new();
    // One after the other: a port is one service's. No task is to run: what is compared is what was asked for.
    for flags in CREATED {
        let specs = ["ours", "theirs"].map(|name| {
            let fixed = ["--detach", "--no-resolve-image", "--constraint", "node.hostname==nowhere"];
            let start = ["service", "create", "--name", name];
            let made = by(name, &[&start, &fixed[..], flags, &["rswarm/hello:latest", "web"]].concat());
            assert_eq!(made.code, 0, "{name} {flags:?}: {made:?}");
            let spec = spec(name);
            ours(&["service", "rm", name]).ok();
            spec
        });
        if specs[0] != specs[1] {
            others.push(format!("create {flags:?}\n{}\n{}", specs[0], specs[1]));
        }
    }
    let specs = ["ours", "theirs"].map(|name| {
        let waiting = ["--constraint", "node.hostname==nowhere", "rswarm/hello:latest", "web"];
        ours(&[&["service", "create", "--detach", "--name", name], &waiting[..]].concat()).ok();
        let specs: Vec<_> = UPDATED
            .iter()
            .map(|flags| {
                let fixed = ["service", "update", "--detach", "--no-resolve-image"];
                let made = by(name, &[&fixed[..], flags, &[name]].concat());
                assert_eq!(made.code, 0, "{name} {flags:?}: {made:?}");
                spec(name)
            })
            .collect();
        ours(&["service", "rm", name]).ok();
        specs
    });
    for (flags, (ours, theirs)) in UPDATED.iter().zip(specs[0].iter().zip(&specs[1])) {
        if ours != theirs {
            others.push(format!("update {flags:?}\n{ours}\n{theirs}"));
        }
    }
    assert!(others.is_empty(), "ours, theirs:\n{}", others.join("\n\n"));
}
