//! `rswarm doctor` and `rswarm doctor security` on hosts that keep their promises, and on one that does not.

use crate::{SOON, lab, load_hello, swarm, wait_for_replicas};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use testkit::Lab;

/// What the doctor said: its exit code, and state and words of each check.
struct Examined {
    code: i32,
    checks: BTreeMap<String, (String, String)>,
}

impl Examined {
    fn state(&self, check: &str) -> &str {
        &self.checks.get(check).unwrap_or_else(|| panic!("no check {check}")).0
    }

    #[track_caller]
    fn says(&self, check: &str, state: &str, words: &str) {
        let (is, found) = &self.checks[check];
        assert!(is == state && found.contains(words), "{check}: {is} {found}");
    }

    fn in_state(&self, state: &str) -> Vec<String> {
        let all = self.checks.iter().filter(|(_, (is, _))| is == state);
        all.map(|(check, (_, found))| format!("{check}: {found}")).collect()
    }
}

/// Runs the doctor on host `n`, beside its daemon.
fn examine(lab: &mut Lab, n: u8, more: &[&str]) -> Examined {
    run(lab, n, &[&["security"], more].concat())
}

fn run(lab: &mut Lab, n: u8, about: &[&str]) -> Examined {
    let (home, socket) =
        (format!("HOME={}", lab.dir().display()), format!("unix://{}", lab.socket(n).display()));
    let program = env!("CARGO_BIN_EXE_rswarm");
    let args =
        [&["/usr/bin/env", home.as_str(), program, "-H", socket.as_str(), "doctor"], about, &["--json"]];
    let ended = lab.exec(n, &args.concat()).expect("a program").wait(SOON).expect("its end");
    read(ended.code, &ended.stdout)
}

fn read(code: i32, text: &str) -> Examined {
    let rows: Vec<Value> = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let word = |row: &Value, key: &str| row[key].as_str().expect("a text").to_owned();
    let checks = rows.iter().filter(|row| row["Check"] != "");
    let checks = checks.map(|row| (word(row, "Check"), (word(row, "State"), word(row, "Found")))).collect();
    Examined { code, checks }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a change of mode");
}

#[test]
fn a_healthy_swarm_has_nothing_that_is_open() {
    let mut lab = swarm(2, 1);
    load_hello(&lab, 1);
    load_hello(&lab, 2);
    let file = lab.dir().join("web.yml");
    let text = "name: shop\nservices:\n  web:\n    image: rswarm/hello\n    command: [web]\n    ports: [\"8080:80\"]\n    \
                deploy: {mode: global}\n";
    fs::write(&file, text).expect("a file");
    lab.rswarm(1, &["deploy", "--yes", file.to_str().expect("a path")]).ok();
    wait_for_replicas(&lab, 1, "shop_web", "2/2");
    for n in [1, 2] {
        lab.rswarm(n, &["run", "-d", "--name", "own", "-p", "9090:80", "rswarm/hello", "web"]).ok();
    }
    lab.rswarm(1, &["user", "add", "ann", "--role", "admin"]).ok();
    for n in [1, 2] {
        let examined = examine(&mut lab, n, &[]);
        assert_eq!(examined.in_state("bad"), [""; 0], "host {n}");
        assert_eq!(examined.in_state("unknown"), [""; 0], "host {n}: all can be looked at");
        assert_eq!(examined.code, 0);
        for check in [
            "folders",
            "setuid files",
            "key files",
            "node certificate",
            "socket",
            "tunnel filter",
            "published ports",
            "locked ports of bridges",
            "locked ports of overlays",
            "seccomp of containers",
            "privileged containers",
        ] {
            assert_eq!(examined.state(check), "ok", "host {n}: {check}");
        }
    }
    let reads = |lab: &Lab| {
        let log = lab.rswarm(1, &["audit", "--format", "{{.Action}}"]).ok();
        log.lines().filter(|action| *action == "read").count()
    };
    let before = reads(&lab);
    let manager = examine(&mut lab, 1, &[]);
    manager.says("admins", "ok", "ann");
    manager.says("audit", "ok", "records since");
    manager.says("autolock", "warn", "swarm's keys");
    manager.says("containers without limits", "warn", "own");
    // To ask is not to read the swarm's tokens, which would be told.
    assert_eq!(reads(&lab), before);
    examine(&mut lab, 2, &[]).says("autolock", "none", "worker");

    // From outside of the host's network nothing is said of it.
    let outside = lab.rswarm(1, &["doctor", "security", "--json"]);
    read(outside.code, &outside.stdout).says("tunnel filter", "unknown", "another net namespace");
}

#[test]
fn what_was_opened_is_found_with_and_without_a_daemon() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    let root: PathBuf = lab.dir().join("h1");
    let socket = lab.socket(1);
    let mount = format!("{}:/docker.sock", socket.display());
    lab.rswarm(1, &["run", "-d", "--name", "strong", "--privileged", "rswarm/hello", "web"]).ok();
    lab.rswarm(1, &["run", "-d", "--name", "near", "-v", &mount, "rswarm/hello", "web"]).ok();
    lab.rswarm(1, &["run", "-d", "--name", "seeing", "--pid", "host", "rswarm/hello", "web"]).ok();
    assert_eq!(examine(&mut lab, 1, &[]).code, 1);
    chmod(&root.join("data/volumes"), 0o755);
    chmod(&socket, 0o666);
    fs::write(
        root.join("daemon.toml"),
        "insecure-registries = [\"10.0.0.0/8\"]\nhosts = [\"tcp://0.0.0.0:2375\"]\ntls = false\n",
    )
    .expect("the settings");
    fs::write(root.join("data/networks/abc.json.damaged"), "{").expect("a file");
    let examined = examine(&mut lab, 1, &[]);
    assert_eq!(examined.code, 1);
    for (check, state, words) in [
        ("folders", "bad", "data/volumes has mode 755"),
        ("socket", "bad", "mode 666"),
        ("settings", "bad", "10.0.0.0/8"),
        ("tcp addresses", "bad", "0.0.0.0:2375"),
        ("damaged records", "warn", "abc.json.damaged"),
        ("privileged containers", "bad", "strong"),
        ("daemon's socket in containers", "bad", "near"),
        ("host namespaces", "bad", "seeing (pid)"),
        ("root in containers", "warn", "strong"),
        ("admins", "none", "in no swarm"),
    ] {
        examined.says(check, state, words);
    }
    let text = lab.rswarm(1, &["doctor", "security"]);
    assert_eq!(text.code, 1, "{text:?}");
    for line in [
        "no file of a container, image or volume is in reach of the host's other users  [engine::folders]",
        "hint: chmod 700",
        "a table in the program, without a switch",
        " bad, ",
    ] {
        assert!(text.stdout.contains(line), "{line} is not in {}", text.stdout);
    }

    lab.tell("kill-daemon 1").expect("the daemon to be killed");
    let (data, config) = (root.join("data"), root.join("daemon.toml"));
    let told = ["--data-root", data.to_str().expect("a path"), "--config", config.to_str().expect("a path")];
    let examined = examine(&mut lab, 1, &told);
    assert_eq!(examined.code, 1);
    examined.says("folders", "bad", "data/volumes has mode 755");
    examined.says("settings", "bad", "10.0.0.0/8");
    examined.says("published ports", "ok", "as it should be");
    examined.says("privileged containers", "unknown", "needs the daemon");
}

#[test]
fn a_host_is_looked_at_as_a_whole_and_so_are_its_ways_to_others() {
    let mut lab = swarm(3, 3);
    let healthy = run(&mut lab, 1, &[]);
    // How full this machine's disk is, and how fast, is no matter of ours.
    let of_the_disk =
        |found: &String| ["space: ", "files: ", "sync: "].iter().any(|check| found.starts_with(check));
    let bad: Vec<String> = healthy.in_state("bad").into_iter().filter(|found| !of_the_disk(found)).collect();
    assert_eq!(bad, [""; 0]);
    assert!(healthy.code == 0 || !healthy.in_state("bad").is_empty());
    for check in
        ["daemon", "settings", "namespaces", "overlay file system", "membership", "nodes", "versions"]
    {
        assert_eq!(healthy.state(check), "ok", "{check}");
    }
    healthy.says("node port", "ok", "of 2 other nodes");
    healthy.says("packet size", "ok", "of 2 other nodes");
    healthy.says("managers", "ok", "3 of 3 managers are reached; 1 can be lost");

    fs::write(lab.dir().join("h1/daemon.toml"), "storage-driver = \"btrfs\"\n").expect("the settings");
    lab.tell("kill-daemon 3").expect("its daemon to end");
    let sick = run(&mut lab, 1, &[]);
    sick.says("settings", "warn", "line 1: storage-driver");
    sick.says("node port", "bad", "host3 at 198.18.0.3:2377 refuses");
    assert_eq!(sick.code, 1);
    // From outside of its network the ways to others are not said to be well.
    let text = lab.rswarm(1, &["doctor"]).stdout;
    for line in ["the disk is fast enough, and has room  [disk]", "another net namespace", " bad, "] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[test]
#[ignore = "oracle: nft"]
fn a_firewall_between_hosts_is_found_by_what_it_does() {
    let mut lab = swarm(3, 3);
    for rule in [
        "add table inet other",
        "add chain inet other in { type filter hook input priority 0 ; }",
        "add rule inet other in tcp dport 2377 drop",
        "add rule inet other in udp dport 4789 reject",
    ] {
        let words: Vec<&str> = ["/usr/sbin/nft"].into_iter().chain(rule.split(' ')).collect();
        assert_eq!(lab.exec(2, &words).expect("a program").wait(SOON).expect("its end").code, 0, "{rule}");
    }
    let sick = run(&mut lab, 1, &[]);
    sick.says("node port", "bad", "host2 at 198.18.0.2:2377 does not answer");
    sick.says("overlay port", "bad", "host2 at 198.18.0.2:4789/udp refuses");
    assert_eq!(sick.code, 1);
}
