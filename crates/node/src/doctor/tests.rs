//! Each check on a host where all is well, and on one with a fault of its kind.

use super::*;
use crate::Settings;
use docker_api::types;
use network::{Guard, Guards};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
};

const DAY: i64 = 86_400 * 1_000_000_000;
const NOW: i64 = 20_000 * DAY;
/// The daemon, and the one process of a container.
const DAEMON: u32 = 4242;
const CONTAINER: u32 = 77;

pub(super) fn read<T: types::Wire>(value: &Value) -> T {
    types::parse(value.to_string().as_bytes()).unwrap()
}

fn write(path: &Path, text: &str, mode: u32) {
    let parent = path.parent().unwrap();
    fs::create_dir_all(parent).unwrap();
    fs::write(path, text).unwrap();
    chmod(path, mode);
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn at(days_ago: i64) -> String {
    types::Time::from(model::Timestamp(NOW - days_ago * DAY)).to_string()
}

fn info(cluster: &Value) -> Value {
    json!({"Swarm": {"LocalNodeState": "active", "ControlAvailable": true, "Cluster": cluster}})
}

fn cluster() -> Value {
    json!({"CreatedAt": at(10), "Spec": {"EncryptionConfig": {"AutoLockManagers": true},
        "CAConfig": {"NodeCertExpiry": 90 * DAY}}})
}

fn container() -> Value {
    json!({"Name": "/web", "State": {"Pid": CONTAINER}, "Config": {"User": "1000"},
        "HostConfig": {"Memory": 1 << 20, "PidsLimit": 100, "SecurityOpt": ["no-new-privileges"],
            "NetworkMode": "bridge", "IpcMode": "private"},
        "Mounts": [{"Type": "volume", "Source": "/x/volumes/a/_data", "RW": true}]})
}

fn user() -> Value {
    json!({"Name": "ann", "Role": "admin", "Tokens": [{"ID": "aa", "ExpiresAt": at(-5)}]})
}

/// A manager where there is nothing to find.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.log_opts = [("max-size".into(), "1m".into())].into();
    settings
}

pub(super) fn host(root: &Path) -> Host {
    chmod(root, 0o755);
    let place = Place {
        data_root: root.join("data"),
        run_root: root.join("run"),
        config: root.join("daemon.toml"),
        daemon: Some(DAEMON),
    };
    for (folder, mode) in [
        ("data", 0o710),
        ("run", 0o711),
        ("data/containers", 0o700),
        ("data/volumes", 0o700),
        ("data/images", 0o700),
        ("data/images/layers", 0o700),
        ("data/swarm", 0o700),
        ("data/swarm/raft", 0o700),
        ("data/swarm/certificates", 0o700),
        ("home", 0o700),
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
        chmod(&root.join(folder), mode);
    }
    let key = pki::UnlockKey::generate().unwrap();
    write(&root.join("data/swarm/raft.key"), &key.seal("raft log", b"secret").unwrap(), 0o600);
    let sealed = key.seal("node certificate", b"secret").unwrap();
    let certificate = certificate(10, 80);
    write(&root.join("data/swarm/certificates/node.pem"), &format!("{sealed}{certificate}"), 0o600);
    write(&root.join("home/.config/rswarm/logins.json"), "{}", 0o600);
    let socket = root.join("run/docker.sock");
    drop(UnixListener::bind(&socket).unwrap());
    chmod(&socket, 0o660);
    let gid = rustix::process::getegid().as_raw();
    for (path, text) in [
        ("etc/group", format!("wheel:x:{gid}:root\n")),
        ("etc/passwd", format!("root:x:0:{gid}:root:/root:/bin/sh\nann:x:1000:99999::/:/bin/sh\n")),
        (&format!("proc/{DAEMON}/limits"), "Max open files            1048576              1048576\n".into()),
        (&format!("proc/{DAEMON}/uid_map"), "0 100000 65536\n".into()),
        (&format!("proc/{CONTAINER}/status"), "Name:\tweb\nSeccomp:\t2\n".into()),
        ("proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 1 0 1\n".into()),
        ("proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow\n".into()),
        ("proc/sys/kernel/unprivileged_userns_clone", "0\n".into()),
        ("proc/sys/kernel/kptr_restrict", "1\n".into()),
        ("proc/sys/net/ipv4/ip_forward", "1\n".into()),
        ("proc/sys/net/ipv4/conf/all/route_localnet", "0\n".into()),
        ("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n".into()),
        ("proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n".into()),
        ("sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n".into()),
        ("sys/module/apparmor/parameters/enabled", "Y\n".into()),
        ("sys/kernel/security/apparmor/profiles", "docker-default (enforce)\n".into()),
    ] {
        write(&root.join(path), &text, 0o644);
    }
    Host {
        place,
        root: root.to_owned(),
        settings: Ok(settings()),
        daemon: Daemon::Up(Box::new(Answers {
            info: Ok(read(&info(&cluster()))),
            containers: Ok(vec![read(&container())]),
            users: Ok(vec![read(&user())]),
            audit: Ok(vec![read(&json!({"At": at(3), "Action": "create", "Object": "service web"}))]),
            // That a node is down is no oddity.
            nodes: Ok(vec![read(&node("ready", "")), read(&node("down", "heartbeat failure"))]),
        })),
        guards: Ok(Guards {
            host: Guard::InForce,
            tunnel: Guard::InForce,
            local_ports: Guard::InForce,
            overlay_ports: Guard::InForce,
        }),
        forward_dropped: Ok(true),
        other_firewalls: Ok(network::OtherFirewalls::default()),
        probes: None,
        now: model::Timestamp(NOW),
        apart: Vec::new(),
        home: Some(root.join("home")),
        uid: rustix::process::geteuid().as_raw(),
    }
}

pub(super) fn node(state: &str, message: &str) -> Value {
    json!({
        "ID": "n", "Version": {"Index": 1}, "Spec": {"Role": "worker", "Availability": "active"},
        "Description": {"Hostname": "one"}, "Status": {"State": state, "Message": message},
    })
}

fn stopped(certain: bool) -> network::Stopped {
    let by = "the policy of chain FORWARD of table ip filter".to_owned();
    network::Stopped { what: "port 80/tcp".into(), by, certain, remedy: "nft insert rule".into() }
}

/// A node's certificate that began so many days ago and ends in so many days.
fn certificate(began: i64, ends: i64) -> String {
    pki::install_crypto();
    let root = pki::RootCa::generate(model::ClusterId(5)).unwrap();
    let csr = pki::NodeKey::generate().unwrap().csr_pem().unwrap();
    let life = model::Duration::from_nanos(u64::try_from((began + ends) * DAY).unwrap());
    let at = model::Timestamp(NOW - began * DAY);
    root.sign_csr_at(at, &csr, model::NodeId(7), model::Role::Manager, model::ClusterId(5), life).unwrap()
}

pub(super) fn answers(host: &mut Host) -> &mut Answers {
    match &mut host.daemon {
        Daemon::Up(answers) => answers,
        Daemon::Down(why) => panic!("{why}"),
    }
}

/// Puts something else into the JSON of the one container.
fn contained(host: &mut Host, pointer: &str, value: Value) {
    let mut container = container();
    *container.pointer_mut(pointer).unwrap() = value;
    answers(host).containers = Ok(vec![read(&container)]);
}

fn with_option(host: &mut Host, key: &str, value: Value) {
    let mut options = container()["HostConfig"].clone();
    options[key] = value;
    contained(host, "/HostConfig", options);
}

fn clustered(host: &mut Host, pointer: &str, value: Value) {
    let mut cluster = cluster();
    *cluster.pointer_mut(pointer).unwrap() = value;
    answers(host).info = Ok(read(&info(&cluster)));
}

pub(super) fn plant(host: &Host, path: &str, text: &str) {
    write(&host.root.join(path), text, 0o600);
}

fn guards(host: &mut Host) -> &mut Guards {
    host.guards.as_mut().unwrap()
}

fn broken() -> Guard {
    Guard::Broken("chain x is gone".to_owned())
}

fn set(host: &mut Host, change: fn(&mut Settings)) {
    change(host.settings.as_mut().unwrap());
}

type Case = (&'static str, State, &'static str, fn(&mut Host));

/// A check, what it must say, a word of it, and the fault.
const FAULTS: &[Case] = &[
    ("admins", State::Warn, "6 of 6 users", |h| {
        let mut users = vec![user(); 6];
        users[3]["Name"] = "eve".into();
        answers(h).users = Ok(users.iter().map(read).collect());
    }),
    ("lasting tokens", State::Warn, "bb of bob", |h| {
        let bob = json!({"Name": "bob", "Role": "read", "Tokens": [{"ID": "bb"}]});
        answers(h).users = Ok(vec![read(&user()), read(&bob)]);
    }),
    ("audit", State::Warn, "less than a day", |h| {
        let record: types::AuditRecord =
            read(&json!({"At": at(0), "Action": "create", "Object": "service x"}));
        answers(h).audit = Ok(vec![record; model::AUDIT_MAX]);
    }),
    ("autolock", State::Warn, "copies a manager's disk", |h| {
        clustered(h, "/Spec/EncryptionConfig/AutoLockManagers", false.into());
    }),
    ("sealed keys", State::Bad, "raft.key is not sealed", |h| {
        plant(h, "data/swarm/raft.key", "0123456789abcdef0123456789abcdef");
    }),
    ("node certificate", State::Bad, "expired 3 days ago", |h| {
        plant(h, "data/swarm/certificates/node.pem", &certificate(90, -3));
    }),
    ("node certificate", State::Warn, "not renewed", |h| {
        plant(h, "data/swarm/certificates/node.pem", &certificate(85, 5));
    }),
    ("node certificate", State::Bad, "PEM", |h| plant(h, "data/swarm/certificates/node.pem", "nonsense")),
    ("certificate life", State::Warn, "4000 days", |h| {
        clustered(h, "/Spec/CAConfig/NodeCertExpiry", (4000 * DAY).into());
    }),
    ("descriptors", State::Warn, "1024 files", |h| {
        plant(h, &format!("proc/{DAEMON}/limits"), "Max open files   1024   4096   files\n");
    }),
    ("tunnel filter", State::Bad, "chain x", |h| guards(h).tunnel = broken()),
    ("locked ports of bridges", State::Bad, "chain x", |h| guards(h).local_ports = broken()),
    ("locked ports of overlays", State::Bad, "chain x", |h| guards(h).overlay_ports = broken()),
    ("published ports", State::Bad, "chain x", |h| guards(h).host = broken()),
    ("published ports", State::Unknown, "not permitted", |h| h.guards = Err("not permitted".into())),
    ("published ports", State::Unknown, "another net namespace", |h| h.apart = vec!["net"]),
    ("loopback routing", State::Warn, "next door", |h| {
        plant(h, "proc/sys/net/ipv4/conf/all/route_localnet", "1\n");
    }),
    ("folders", State::Bad, "data/volumes has mode 755", |h| {
        chmod(&h.place.data_root.join("volumes"), 0o755)
    }),
    ("folders", State::Bad, "run has mode 777", |h| chmod(&h.place.run_root, 0o777)),
    ("setuid files", State::Bad, "images/layers", |h| {
        for folder in ["", "images", "images/layers"] {
            chmod(&h.place.data_root.join(folder), 0o711);
        }
    }),
    ("seccomp of the kernel", State::Bad, "no system calls", |h| {
        plant(h, "proc/sys/kernel/seccomp/actions_avail", "kill_process\n");
    }),
    ("seccomp of containers", State::Bad, "in effect in web", |h| {
        plant(h, &format!("proc/{CONTAINER}/status"), "Name:\tweb\nSeccomp:\t0\n");
    }),
    ("swap", State::Warn, "/swapfile", |h| {
        plant(h, "proc/swaps", "Filename Type Size Used Priority\n/swapfile file 1 0 1\n");
    }),
    ("damaged records", State::Warn, "config.json.damaged", |h| {
        plant(h, "data/containers/abc/config.json.damaged", "{");
    }),
    ("socket", State::Bad, "mode 666", |h| chmod(&h.place.run_root.join("docker.sock"), 0o666)),
    ("socket", State::Bad, "is no socket", |h| {
        fs::remove_file(h.place.run_root.join("docker.sock")).unwrap();
        plant(h, "run/docker.sock", "");
    }),
    ("group of the socket", State::Warn, "wheel: bob, eve", |h| {
        let gid = rustix::process::getegid().as_raw();
        plant(h, "etc/group", &format!("other:x:{}:joe\nwheel:x:{gid}:root,eve\n", gid + 1));
        plant(h, "etc/passwd", &format!("bob:x:1001:{gid}::/:/bin/sh\nann:x:1000:{}::/:/bin/sh\n", gid + 1));
    }),
    ("tcp addresses", State::Bad, "0.0.0.0:2375", |h| {
        set(h, |s| (s.hosts, s.tls) = (vec!["tcp://0.0.0.0".into()], Some(false)));
    }),
    ("tcp addresses", State::Warn, "127.0.0.1:9", |h| {
        set(h, |s| (s.hosts, s.tls) = (vec!["tcp://127.0.0.1:9".into()], Some(false)));
    }),
    ("tcp addresses", State::Bad, "encrypted, but for everybody", |h| {
        set(h, |s| (s.hosts, s.tls) = (vec!["tcp://192.0.2.1".into()], Some(true)));
    }),
    ("key files", State::Bad, "raft.key has mode 640", |h| {
        chmod(&h.place.data_root.join("swarm/raft.key"), 0o640);
    }),
    ("logins", State::Bad, "logins.json has mode 644", |h| {
        chmod(&h.root.join("home/.config/rswarm/logins.json"), 0o644);
    }),
    ("join tokens", State::Warn, "200 days old", |h| {
        clustered(h, "/CreatedAt", at(200).into());
        // Only one of the two was changed.
        let rotated = json!({"At": at(1), "Action": "rotate", "Object": "swarm join-token worker"});
        answers(h).audit = Ok(vec![read(&rotated)]);
    }),
    ("privileged containers", State::Bad, "web", |h| with_option(h, "Privileged", true.into())),
    ("host namespaces", State::Bad, "web (pid)", |h| with_option(h, "PidMode", "host".into())),
    ("host namespaces", State::Warn, "web (network)", |h| with_option(h, "NetworkMode", "host".into())),
    ("daemon's socket in containers", State::Bad, "web (/var/run/docker.sock)", |h| {
        contained(h, "/Mounts", json!([{"Type": "bind", "Source": "/var/run/docker.sock", "RW": false}]));
    }),
    ("host folders in containers", State::Bad, "web (/)", |h| {
        contained(h, "/Mounts", json!([{"Type": "bind", "Source": "/", "RW": true}]));
    }),
    ("host folders in containers", State::Bad, "/data", |h| {
        let source = h.place.data_root.display().to_string();
        contained(h, "/Mounts", json!([{"Type": "bind", "Source": source, "RW": true}]));
    }),
    ("capabilities", State::Warn, "web (SYS_ADMIN)", |h| {
        with_option(h, "CapAdd", json!(["NET_BIND_SERVICE", "cap_sys_admin"]));
    }),
    ("unconfined containers", State::Warn, "seccomp=unconfined", |h| {
        with_option(h, "SecurityOpt", json!(["seccomp=unconfined"]));
    }),
    ("root in containers", State::Warn, "web", |h| contained(h, "/Config/User", "0:5".into())),
    ("containers without limits", State::Warn, "web (memory, processes)", |h| {
        contained(h, "/HostConfig", json!({}));
    }),
    ("no-new-privileges", State::Warn, "web", |h| {
        with_option(h, "SecurityOpt", json!(["no-new-privileges=false"]));
    }),
    ("settings", State::Bad, "insecure-registries", |h| {
        set(h, |s| s.insecure_registries = vec!["10.0.0.0/8".into()]);
    }),
    ("settings", State::Bad, "http://mirror", |h| {
        set(h, |s| s.registry_mirrors = vec!["http://mirror.example".into()]);
    }),
    ("settings", State::Warn, "max-size", |h| set(h, |s| s.log_opts.clear())),
    ("settings", State::Bad, "unknown key", |h| h.settings = Err("unknown key \"icc\"".into())),
    ("cgroups", State::Bad, "for memory:", |h| plant(h, "sys/fs/cgroup/cgroup.controllers", "cpu pids\n")),
    ("cgroups", State::Bad, "for cpu, memory, pids:", |h| plant(h, "proc/self/mounts", "")),
    ("cgroups", State::Bad, "for cpu, pids:", |h| {
        plant(h, "proc/self/mounts", "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n");
    }),
    ("AppArmor", State::Warn, "no AppArmor", |h| plant(h, "sys/module/apparmor/parameters/enabled", "N\n")),
    ("AppArmor", State::Warn, "not loaded", |h| {
        plant(h, "sys/kernel/security/apparmor/profiles", "x (enforce)\n")
    }),
    ("user namespaces", State::Warn, "root of the host", |h| {
        plant(h, &format!("proc/{DAEMON}/uid_map"), "         0          0 4294967295\n");
    }),
    ("kernel settings", State::Warn, "kptr_restrict", |h| plant(h, "proc/sys/kernel/kptr_restrict", "0\n")),
    ("odd nodes", State::Warn, "one: clock is 60 min ahead", |h| {
        answers(h).nodes = Ok(vec![read(&node("ready", "clock is 60 min ahead"))]);
    }),
    ("other firewalls", State::Warn, "of table ip filter stops port 80/tcp", |h| {
        h.other_firewalls = Ok(network::OtherFirewalls { stopped: vec![stopped(true)], old_tables: true });
    }),
    ("other firewalls", State::Warn, "may stop port 80/tcp", |h| {
        h.other_firewalls = Ok(network::OtherFirewalls { stopped: vec![stopped(false)], old_tables: false });
    }),
    ("other firewalls", State::Unknown, "xtables", |h| {
        h.other_firewalls = Ok(network::OtherFirewalls { stopped: vec![], old_tables: true });
    }),
    ("forward policy", State::Warn, "forwards between all its links", |h| h.forward_dropped = Ok(false)),
];

pub(super) fn checks(promises: &[Promise]) -> Vec<Check> {
    let checked = promises.iter().filter_map(|promise| match promise.kept {
        Kept::Checked(checks) => Some(checks),
        Kept::ByProgram(_) => None,
    });
    checked.flatten().copied().collect()
}

pub(super) fn found(promises: &[Promise], host: &Host, name: &str) -> Finding {
    let check = checks(promises).into_iter().find(|check| check.name == name).expect("a check of this name");
    (check.look)(host).unwrap_or_else(|finding| finding)
}

#[test]
fn a_host_where_all_is_well_has_nothing_to_mend() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    for row in examine(SECURITY, &host) {
        let fine = matches!(row.finding.state, State::Ok | State::None | State::Program);
        assert!(fine && row.finding.hint.is_empty(), "{row:?}");
        assert!(!row.finding.found.is_empty(), "{row:?}");
    }
}

#[test]
fn each_fault_is_found_by_its_check_with_what_to_type() {
    for (name, state, words, fault) in FAULTS {
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(dir.path());
        fault(&mut host);
        let finding = found(SECURITY, &host, name);
        assert_eq!(finding.state, *state, "{name}: {finding:?}");
        assert!(finding.found.contains(words), "{name}: {words} is not in {finding:?}");
        let needs_hint = *state != State::Unknown;
        assert!(!needs_hint || !finding.hint.is_empty(), "{name}: {finding:?}");
    }
    // What a disk holds depends on where the test's folder is.
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    plant(&host, "run/secrets/abc/password", "x");
    let in_memory = rustix::fs::statfs(dir.path()).unwrap().f_type == 0x0102_1994;
    let expected = if in_memory { State::Ok } else { State::Bad };
    assert_eq!(found(SECURITY, &host, "secrets in memory").state, expected);
}

#[test]
fn each_check_has_a_fault_that_it_finds() {
    let all: BTreeSet<&str> = checks(SECURITY).iter().map(|check| check.name).collect();
    assert_eq!(all.len(), checks(SECURITY).len(), "two checks have one name");
    let mut tried: BTreeSet<&str> = FAULTS.iter().map(|(name, ..)| *name).collect();
    // The first is tried beside them; the second only tells.
    tried.extend(["secrets in memory", "bridge filtering"]);
    assert_eq!(all, tried);
}

#[test]
fn without_a_daemon_nothing_that_needs_it_is_said_to_be_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path());
    host.daemon = Daemon::Down("cannot connect".to_owned());
    host.place.daemon = None;
    for name in [
        "admins",
        "lasting tokens",
        "audit",
        "autolock",
        "sealed keys",
        "certificate life",
        "descriptors",
        "join tokens",
        "privileged containers",
        "seccomp of containers",
        "user namespaces",
    ] {
        let finding = found(SECURITY, &host, name);
        assert_eq!(finding.state, State::Unknown, "{name}: {finding:?}");
        assert!(finding.found.contains("needs the daemon"), "{name}: {finding:?}");
    }
    // And what lies on the disk is looked at all the same.
    for name in ["folders", "node certificate", "tcp addresses", "tunnel filter", "settings", "key files"] {
        assert_eq!(found(SECURITY, &host, name).state, State::Ok, "{name}");
    }
}

#[test]
fn control_groups_of_both_kinds_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    assert!(found(SECURITY, &host, "cgroups").found.contains("v2"));
    let old = "cgroup /c/a cgroup rw,cpu,cpuacct 0 0\ncgroup /c/m cgroup rw,memory 0 0\n\
               cgroup /c/p cgroup rw,pids 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n";
    plant(&host, "proc/self/mounts", old);
    let finding = found(SECURITY, &host, "cgroups");
    assert!(finding.state == State::Ok && finding.found.contains("v1"), "{finding:?}");
}

#[test]
fn a_worker_is_not_asked_what_managers_keep() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path());
    let worker = json!({"Swarm": {"LocalNodeState": "active", "ControlAvailable": false}});
    answers(&mut host).info = Ok(read(&worker));
    answers(&mut host).users = Err("Worker nodes can't be used to view or modify cluster state".to_owned());
    for name in ["admins", "audit", "autolock", "join tokens"] {
        assert_eq!(found(SECURITY, &host, name).state, State::None, "{name}");
    }
}

#[test]
fn a_name_does_not_break_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path());
    contained(&mut host, "/Name", "/a\nb\u{1b}[2J".into());
    with_privileges(&mut host);
    let finding = found(SECURITY, &host, "privileged containers");
    assert_eq!(finding.found, "a?b?[2J");
}

fn with_privileges(host: &mut Host) {
    let containers = answers(host).containers.as_mut().unwrap();
    containers[0].host_config.privileged = true;
}

#[test]
fn the_readme_says_the_same() {
    let readme = include_str!("../../../../README.md");
    let table = readme.split("| promise | gate | test |").nth(1).expect("the table of promises");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let said: Vec<(String, String)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            (cells[0].to_owned(), cells[1].replace('`', ""))
        })
        .collect();
    let printed: Vec<(String, String)> =
        SECURITY.iter().map(|promise| (promise.text.to_owned(), promise.gate.to_owned())).collect();
    assert_eq!(said, printed);
    for promise in SECURITY {
        match promise.kept {
            Kept::ByProgram(why) => assert!(why.len() > 20, "{}: a reason", promise.text),
            Kept::Checked(checks) => assert!(!checks.is_empty(), "{}: a check", promise.text),
        }
    }
}
