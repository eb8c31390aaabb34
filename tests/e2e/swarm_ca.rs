//! The swarm's keys: the lock of managers that restart, join tokens, certificates and their authority.

use crate::{SOON, clis::Cli, lab, load_hello, swarm, wait_for_replicas};
use std::path::{Path, PathBuf};
use testkit::{Lab, wait_for};

const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";

fn restart_daemon(lab: &mut Lab, n: u8) {
    lab.tell(&format!("kill-daemon {n}")).expect("the daemon to be killed");
    lab.tell(&format!("start-daemon {n}")).expect("the daemon to be started");
    lab.wait_for_daemon(n).expect("the daemon to answer");
}

fn state(lab: &Lab, n: u8) -> String {
    lab.rswarm(n, &["info", "--format", "{{.Swarm.LocalNodeState}}"]).ok().trim().to_owned()
}

fn wait_for_state(lab: &Lab, n: u8, wanted: &str) {
    wait_for(&format!("host {n} to be {wanted}"), SOON, || {
        let now = state(lab, n);
        if now == wanted { Ok(()) } else { Err(format!("{now}{}", lab.daemon_logs())) }
    });
}

fn unlock_key(cli: Cli, lab: &Lab, n: u8) -> String {
    cli.run(lab, n, &["swarm", "unlock-key", "-q"]).ok().trim().to_owned()
}

fn data_root(lab: &Lab, n: u8) -> PathBuf {
    lab.dir().join(format!("h{n}/data"))
}

/// Tells whether a manager's key files are as they are with autolock on.
fn is_locked_on_disk(lab: &Lab, n: u8) -> Result<(), String> {
    let swarm = data_root(lab, n).join("swarm");
    for file in ["raft.key", "certificates/node.pem"] {
        let bytes = std::fs::read(swarm.join(file)).map_err(|e| format!("{file}: {e}"))?;
        let text = String::from_utf8_lossy(&bytes);
        if text.matches("BEGIN RSWARM LOCKED KEY").count() != 1 || text.contains("PRIVATE KEY") {
            return Err(format!("{file} of host {n} is not locked"));
        }
    }
    Ok(())
}

/// Returns the files below `dir` that contain one of the texts.
fn files_with(dir: &Path, texts: &[&[u8]]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() {
            found.extend(files_with(&path, texts));
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if texts.iter().any(|text| bytes.windows(text.len()).any(|window| window == *text)) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_locked_manager_comes_up_only_with_its_key_and_its_containers_do_not_care() {
    lock(Cli::Ours);
}

pub(crate) fn lock(cli: Cli) {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    cli.run(&lab, 1, &["run", "-d", "--name", "alone", "rswarm/hello", "web"]).ok();
    let said = cli.run(&lab, 1, &["swarm", "init", "--autolock", "--advertise-addr", &Lab::address(1)]).ok();
    let key = unlock_key(cli, &lab, 1);
    assert!(key.starts_with("SWMKEY-1-") && said.contains(&key), "{said}");
    cli.told(&lab, 1, &["secret", "create", "words", "-"], "correct-horse-battery-staple");
    let create = ["service", "create", "--name", "web", "--secret", "words", "-d", "rswarm/hello", "web"];
    cli.run(&lab, 1, &create).ok();
    wait_for_replicas(&lab, 1, "web", "1/1");
    let running = cli.run(&lab, 1, &["ps", "-q"]).ok();
    let token = cli.run(&lab, 1, &["swarm", "join-token", "-q", "worker"]).ok();

    restart_daemon(&mut lab, 1);
    assert_eq!(state(&lab, 1), "locked");
    for args in [&["node", "ls"][..], &["service", "ls"], &["secret", "ls"], &["swarm", "unlock-key"]] {
        let refused = cli.run(&lab, 1, args).fails();
        assert!(refused.contains(&cli.tells(LOCKED)), "{args:?}: {refused}");
    }
    let again = cli.run(&lab, 1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]).fails();
    assert!(again.contains("already part of a swarm"), "{again}");
    let leave = cli.run(&lab, 1, &["swarm", "leave"]).fails();
    assert!(leave.contains("encrypted and locked"), "{leave}");
    // The host goes on.
    assert_eq!(cli.run(&lab, 1, &["ps", "-q"]).ok(), running);
    cli.run(&lab, 1, &["run", "--rm", "rswarm/hello", "--help"]);
    cli.run(&lab, 1, &["restart", "alone"]).ok();

    // Who has the disk has neither the secret nor a key.
    is_locked_on_disk(&lab, 1).expect("what was asked for");
    let root = data_root(&lab, 1);
    let found =
        files_with(&root, &[b"correct-horse-battery-staple", key.as_bytes(), token.trim().as_bytes()]);
    assert!(found.is_empty(), "{found:?}");
    let found = files_with(&root.join("swarm"), &[b"PRIVATE KEY"]);
    assert!(found.is_empty(), "{found:?}");

    let other = "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for wrong in [other, "nonsense"] {
        let refused = cli.told(&lab, 1, &["swarm", "unlock"], wrong).fails();
        assert!(refused.contains("invalid key provided"), "{refused}");
        assert_eq!(state(&lab, 1), "locked");
    }
    cli.told(&lab, 1, &["swarm", "unlock"], &key).ok();
    let info = cli.run(&lab, 1, &["info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.Error}}"]).ok();
    assert!(info.starts_with("active"), "{info}{}", lab.daemon_logs());
    wait_for_replicas(&lab, 1, "web", "1/1");
    let refused = cli.told(&lab, 1, &["swarm", "unlock"], &key).fails();
    assert!(refused.contains("not locked"), "{refused}");
}

#[test]
fn a_locked_manager_can_be_made_to_leave_without_its_key() {
    leave_while_locked(Cli::Ours);
}

pub(crate) fn leave_while_locked(cli: Cli) {
    let mut lab = lab(1);
    cli.run(&lab, 1, &["swarm", "init", "--autolock", "--advertise-addr", &Lab::address(1)]).ok();
    restart_daemon(&mut lab, 1);
    assert_eq!(state(&lab, 1), "locked");
    cli.run(&lab, 1, &["swarm", "leave", "--force"]).ok();
    assert_eq!(state(&lab, 1), "inactive");
    cli.run(&lab, 1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]).ok();
}

#[test]
fn turning_the_lock_on_off_and_to_another_key_reaches_every_manager_and_no_worker() {
    turn_the_lock(Cli::Ours);
}

pub(crate) fn turn_the_lock(cli: Cli) {
    let mut lab = swarm(3, 2);
    let said = cli.change(&lab, 1, &["swarm", "update", "--autolock=true"]).ok();
    let first = unlock_key(cli, &lab, 2);
    assert!(said.contains(&first), "{said}");
    for n in [1, 2] {
        wait_for("the lock to reach the managers", SOON, || is_locked_on_disk(&lab, n));
    }
    assert!(is_locked_on_disk(&lab, 3).is_err());
    restart_daemon(&mut lab, 2);
    assert_eq!(state(&lab, 2), "locked");
    restart_daemon(&mut lab, 3);
    wait_for_state(&lab, 3, "active"); // a worker has no lock
    cli.told(&lab, 2, &["swarm", "unlock"], &first).ok();

    // A worker that becomes a manager never has its new keys without the lock.
    cli.change(&lab, 1, &["node", "promote", "host3"]).ok();
    wait_for("host 3 to be a manager", SOON, || is_locked_on_disk(&lab, 3));
    wait_for("host 3 to answer", SOON, || {
        let seen = cli.run(&lab, 3, &["node", "ls", "-q"]);
        if seen.code == 0 { Ok(()) } else { Err(seen.stderr) }
    });

    let before: Vec<Vec<u8>> = (1..=3)
        .map(|n| std::fs::read(data_root(&lab, n).join("swarm/raft.key")).expect("what was asked for"))
        .collect();
    cli.change(&lab, 1, &["swarm", "unlock-key", "--rotate", "-q"]).ok();
    let second = unlock_key(cli, &lab, 3);
    assert_ne!(first, second);
    for n in 1..=3 {
        wait_for("the new key to reach the managers", SOON, || {
            let now = std::fs::read(data_root(&lab, n).join("swarm/raft.key")).expect("what was asked for");
            if now == before[usize::from(n) - 1] {
                Err("as before".to_owned())
            } else {
                is_locked_on_disk(&lab, n)
            }
        });
    }
    restart_daemon(&mut lab, 3);
    let refused = cli.told(&lab, 3, &["swarm", "unlock"], &first).fails();
    assert!(refused.contains("invalid key provided"), "{refused}");
    cli.told(&lab, 3, &["swarm", "unlock"], &second).ok();

    // A manager that becomes a worker has no lock any more, and nothing of the log.
    cli.change(&lab, 1, &["node", "demote", "host3"]).ok();
    wait_for("host 3 to be a worker", SOON, || {
        let swarm = data_root(&lab, 3).join("swarm");
        let pem = std::fs::read_to_string(swarm.join("certificates/node.pem")).expect("what was asked for");
        let open = pem.contains("PRIVATE KEY") && !swarm.join("raft.key").exists();
        if open { Ok(()) } else { Err(lab.daemon_logs()) }
    });

    cli.change(&lab, 1, &["swarm", "update", "--autolock=false"]).ok();
    for n in [1, 2] {
        wait_for("the lock to be off", SOON, || match is_locked_on_disk(&lab, n) {
            Ok(()) => Err(format!("host {n} is locked")),
            Err(_) => Ok(()),
        });
    }
    restart_daemon(&mut lab, 2);
    wait_for_state(&lab, 2, "active");
}

#[test]
fn settings_of_the_swarm_have_an_effect_or_are_refused() {
    set(Cli::Ours);
}

pub(crate) fn set(cli: Cli) {
    let lab = lab(1);
    let address = Lab::address(1);
    let init = |more: &[&str]| {
        let mut args = vec!["swarm", "init", "--advertise-addr", &address];
        args.extend_from_slice(more);
        cli.run(&lab, 1, &args)
    };
    for (flag, value, refusal) in [
        ("--cert-expiry", "59m", "minimum certificate expiry time"),
        ("--dispatcher-heartbeat", "1ms", "heartbeat time period"),
        ("--default-addr-pool", "10.20.30.0/25", "does not fit"),
    ] {
        let refused = init(&[flag, value]).fails();
        assert!(refused.contains(refusal), "{flag}: {refused}");
    }
    let pools = ["--default-addr-pool", "10.20.0.0/16", "--default-addr-pool-mask-length", "26"];
    let numbers = ["--snapshot-interval", "20", "--max-snapshots", "2", "--task-history-limit", "1"];
    init(&[&pools[..], &numbers, &["--cert-expiry", "2h", "--data-path-port", "7789"]].concat()).ok();

    let expiry =
        cli.run(&lab, 1, &["info", "--format", "{{json .Swarm.Cluster.Spec.CAConfig.NodeCertExpiry}}"]).ok();
    assert_eq!(expiry.trim(), "7200000000000");
    cli.run(&lab, 1, &["network", "create", "-d", "overlay", "net"]).ok();
    let subnet = ["network", "inspect", "net", "--format", "{{range .IPAM.Config}}{{.Subnet}}{{end}}"];
    wait_for("a subnet of the pool", SOON, || {
        let subnet = cli.run(&lab, 1, &subnet).ok();
        if subnet.starts_with("10.20.") && subnet.trim().ends_with("/26") { Ok(()) } else { Err(subnet) }
    });
    // Each label is an entry: snapshots are made as often, and as many are kept, as the settings say.
    let snapshots = || {
        let dir = data_root(&lab, 1).join("swarm/raft/snapshots");
        std::fs::read_dir(dir).into_iter().flatten().flatten().count()
    };
    let mut kept = 0;
    for number in 0..120 {
        lab.rswarm(1, &["node", "update", "--label-add", &format!("n={number}"), "self"]).ok();
        kept = kept.max(snapshots());
        if kept == 3 {
            break;
        }
    }
    assert_eq!(kept, 3, "two beside the newest");
}

/// Returns a field of `node inspect` of each node.
fn of_nodes(cli: Cli, lab: &Lab, field: &str) -> Vec<String> {
    let ids = cli.run(lab, 1, &["node", "ls", "-q"]).ok();
    let format = format!("{{{{json .Description.TLSInfo.{field}}}}}");
    let mut args = vec!["node", "inspect", "--format", format.as_str()];
    args.extend(ids.lines());
    cli.run(lab, 1, &args).ok().lines().map(str::to_owned).collect()
}

#[test]
fn the_root_certificate_is_replaced_on_every_node_and_one_that_is_down_holds_it_up_until_it_is_removed() {
    replace_the_root(Cli::Ours);
}

pub(crate) fn replace_the_root(cli: Cli) {
    let mut lab = swarm(3, 2);
    let old_root = cli.run(&lab, 1, &["swarm", "ca"]).ok();
    let old_token = cli.run(&lab, 1, &["swarm", "join-token", "-q", "worker"]).ok();
    let old_issuers = of_nodes(cli, &lab, "CertIssuerPublicKey");
    assert!(old_issuers.iter().all(|i| i == &old_issuers[0] && i.len() > 40), "{old_issuers:?}");

    let said = cli.change(&lab, 1, &["swarm", "ca", "--rotate"]).ok();
    let new_root = cli.run(&lab, 2, &["swarm", "ca"]).ok();
    assert_ne!(old_root, new_root);
    assert!(said.contains(new_root.trim()), "{said}");
    let progress =
        if cli == Cli::Dockers { "desired root digest: sha256:" } else { "rotated CA certificates" };
    assert!(said.contains(progress), "{said}");
    let new_issuers = of_nodes(cli, &lab, "CertIssuerPublicKey");
    assert!(new_issuers.iter().all(|i| i == &new_issuers[0] && i != &old_issuers[0]), "{new_issuers:?}");
    assert_ne!(cli.run(&lab, 1, &["swarm", "join-token", "-q", "worker"]).ok(), old_token);
    let rotating = ["info", "--format", "{{.Swarm.Cluster.RootRotationInProgress}}"];
    assert_eq!(cli.run(&lab, 1, &rotating).ok().trim(), "false");
    // What nodes keep for a restart trusts the new root alone.
    for n in 1..=3 {
        let file = data_root(&lab, n).join("swarm/certificates/root.pem");
        wait_for("the old root to be forgotten", SOON, || {
            let roots = std::fs::read_to_string(&file).expect("what was asked for");
            if roots.trim() == new_root.trim() { Ok(()) } else { Err(roots) }
        });
    }

    lab.tell("kill 3").expect("host 3 to be killed");
    wait_for("host 3 to be seen as down", SOON, || {
        let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).ok();
        if nodes.contains("host3 Down") { Ok(()) } else { Err(nodes) }
    });
    cli.change(&lab, 1, &["swarm", "ca", "--rotate", "--detach"]).ok();
    wait_for("the two others to have new certificates", SOON, || {
        let issuers = of_nodes(cli, &lab, "CertIssuerPublicKey");
        if issuers.iter().filter(|i| *i != &new_issuers[0]).count() == 2 {
            Ok(())
        } else {
            Err(format!("{issuers:?}"))
        }
    });
    assert_eq!(cli.run(&lab, 1, &rotating).ok().trim(), "true");
    cli.run(&lab, 1, &["node", "rm", "host3"]).ok();
    wait_for("the rotation to end", SOON, || {
        let now = cli.run(&lab, 1, &rotating).ok();
        if now.trim() == "false" { Ok(()) } else { Err(lab.daemon_logs()) }
    });
    refuse_an_external_authority(cli, &lab);
}

/// Ours has no flag for it, and whoever asks all the same is refused.
fn refuse_an_external_authority(cli: Cli, lab: &Lab) {
    let (refused, why) = match cli {
        Cli::Dockers => {
            let root = cli.run(lab, 1, &["swarm", "ca"]).ok();
            std::fs::write(lab.dir().join("root.pem"), root).expect("a file");
            let pem = lab.dir().join("root.pem").display().to_string();
            let external = ["--external-ca", "protocol=cfssl,url=https://192.0.2.1"];
            let rotate = ["swarm", "ca", "--rotate", "--ca-cert", &pem];
            let refused = cli.run(lab, 1, &[&rotate[..], &external].concat()).fails();
            (refused, "an external authority that keeps the key is not supported")
        }
        Cli::Ours => {
            let swarm = lab.api(1, "/v1.51/swarm").expect("the swarm");
            let mut swarm: serde_json::Value = serde_json::from_str(&swarm).expect("JSON");
            swarm["Spec"]["CAConfig"]["ExternalCAs"] =
                serde_json::json!([{"Protocol": "cfssl", "URL": "https://192.0.2.1"}]);
            let path = format!("/swarm/update?version={}", swarm["Version"]["Index"]);
            let (status, said) = crate::attacks::post(lab, &path, &swarm["Spec"].to_string());
            assert!(status >= 400, "{status} {said}");
            (said, "external certificate authorities are not supported")
        }
    };
    assert!(refused.contains(why), "{refused}");
}

#[test]
fn a_root_of_ones_own_signs_for_every_node_and_for_those_that_join() {
    let mut lab = lab(3);
    lab.rswarm(1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]).ok();
    let join = |lab: &Lab, n: u8| {
        let token = lab.rswarm(1, &["swarm", "join-token", "-q", "worker"]).ok();
        let first = format!("{}:2377", Lab::address(1));
        lab.rswarm(
            n,
            &["swarm", "join", "--token", token.trim(), "--advertise-addr", &Lab::address(n), &first],
        )
        .ok();
    };
    join(&lab, 2);
    wait_for("both to be ready", SOON, || {
        let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Status}}"]).ok();
        if nodes == "Ready\nReady\n" { Ok(()) } else { Err(nodes) }
    });
    let (cert, key) = own_root();
    for (name, text) in [("own.pem", &cert), ("own.key", &key)] {
        std::fs::write(lab.dir().join(name), text).expect("a file");
    }
    let rotate = ["swarm", "ca", "--rotate", "--ca-cert", "own.pem"];
    // Without its key there would be nobody who signs.
    lab.rswarm(1, &rotate).fails();
    lab.rswarm(1, &[&rotate[..], &["--ca-key", "own.key"]].concat()).ok();
    assert_eq!(lab.rswarm(2, &["swarm", "ca"]).code, 1, "a worker's own people see nothing of the swarm");
    assert_eq!(lab.rswarm(1, &["swarm", "ca"]).ok().trim(), cert.trim());
    join(&lab, 3);
    wait_for("the third to be ready", SOON, || {
        let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Status}}"]).ok();
        if nodes == "Ready\nReady\nReady\n" { Ok(()) } else { Err(format!("{nodes}{}", lab.daemon_logs())) }
    });
    for n in [2, 3] {
        let root = data_root(&lab, n).join("swarm/certificates/root.pem");
        wait_for("the old root to be forgotten", SOON, || {
            let roots = std::fs::read_to_string(&root).expect("what was asked for");
            if roots.trim() == cert.trim() { Ok(()) } else { Err(roots) }
        });
    }
    // The key was taken into the managers' state; in clear text it is on nobody's disk.
    let secret: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    let mut files = vec![data_root(&lab, 1).join("swarm")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(&path).expect("what was asked for").map(|entry| entry.unwrap().path()),
            );
        } else if let Ok(content) = std::fs::read(&path) {
            // What comes before is the same in every such key.
            let part = &secret.as_bytes()[50..90];
            assert!(!content.windows(40).any(|words| words == part), "the key is in {}", path.display());
        }
    }
    lab.tell("kill-daemon 2").expect("the daemon to be killed");
    lab.tell("start-daemon 2").expect("the daemon to be started");
    lab.wait_for_daemon(2).expect("its daemon");
    load_hello(&lab, 1);
    let create = ["service", "create", "-d", "--name", "there", "--constraint", "node.hostname==host2"];
    lab.rswarm(1, &[&create[..], &["rswarm/hello", "web"]].concat()).ok();
    wait_for_replicas(&lab, 1, "there", "1/1");
}

/// Makes a root certificate and its key, PEM, as an operator would with his own tool.
fn own_root() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "our own root");
    let cert = params.self_signed(&key).expect("a certificate").pem();
    (cert, key.serialize_pem())
}

#[test]
fn a_node_that_was_removed_says_what_to_do() {
    let mut lab = swarm(2, 1);
    // Its host goes on: without this setting it would be waited for.
    lab.rswarm(1, &["swarm", "update", "--daemon-grace", "0s"]).ok();
    lab.tell("kill-daemon 2").expect("the daemon to be killed");
    wait_for("host 2 to be seen as down", SOON, || {
        let nodes = lab.rswarm(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).ok();
        if nodes.contains("host2 Down") { Ok(()) } else { Err(nodes) }
    });
    lab.rswarm(1, &["node", "rm", "host2"]).ok();
    lab.tell("start-daemon 2").expect("the daemon to be started");
    lab.wait_for_daemon(2).expect("its daemon");
    wait_for("host 2 to know that it was removed", SOON, || {
        let error = lab.rswarm(2, &["info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.Error}}"]).ok();
        let told =
            error.starts_with("error") && error.contains("removed") && error.contains("swarm leave --force");
        if told { Ok(()) } else { Err(format!("{error}{}", lab.daemon_logs())) }
    });
    lab.rswarm(2, &["swarm", "leave", "--force"]).ok();
    let token = lab.rswarm(1, &["swarm", "join-token", "-q", "worker"]).ok();
    let first = format!("{}:2377", Lab::address(1));
    lab.rswarm(2, &["swarm", "join", "--token", token.trim(), "--advertise-addr", &Lab::address(2), &first])
        .ok();
}
