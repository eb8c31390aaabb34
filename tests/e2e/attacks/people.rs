//! People with a role try what it does not give them: on a worker, with a token or certificate, after it was taken back.

use crate::{
    SOON, load_hello,
    sockets::{Authority, certificate},
    swarm, wait_for_replicas,
};
use std::{
    fs,
    io::{BufRead as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};
use testkit::{Lab, Output, wait_for};

/// What `name` does with a token on host `n`.
struct User {
    token: String,
}

impl User {
    fn on(&self, lab: &Lab, n: u8, args: &[&str]) -> Output {
        lab.rswarm_with(n, &[("RSWARM_TOKEN", self.token.as_str())], args)
    }
}

fn user(lab: &Lab, name: &str, role: &[&str]) -> User {
    lab.rswarm(1, &[&["user", "add", name, "--role"], role].concat()).ok();
    let token = lab.rswarm(1, &["user", "token", "create", name, "--label", "test"]).ok();
    User { token: token.trim().to_owned() }
}

fn stack(lab: &Lab, name: &str, extra: &str) -> String {
    let path = lab.dir().join(format!("{name}.yml"));
    let text =
        format!("name: {name}\nservices:\n  web:\n    image: rswarm/hello\n    command: [web]\n{extra}");
    fs::write(&path, text).expect("a file");
    path.to_str().expect("a readable path").to_owned()
}

#[track_caller]
fn refused(said: Output, words: &str) {
    let said = said.fails();
    assert!(said.contains(words), "{said}");
}

#[test]
fn a_role_is_all_that_a_user_has_and_what_was_done_is_told() {
    let lab = swarm(2, 1);
    load_hello(&lab, 1);
    // A worker's host runs nothing of the swarm for those who are only its own.
    for args in [&["service", "ls"][..], &["node", "ls"], &["swarm", "join-token", "worker"], &["user", "ls"]]
    {
        let said = lab.rswarm(2, args).fails();
        assert!(said.contains("Worker nodes can't be used to view or modify cluster state"), "{said}");
        assert!(said.contains("rswarm user login"), "{said}");
    }
    lab.rswarm(2, &["network", "ls"]).ok();

    let ann = user(&lab, "ann", &["admin"]);
    let dan = user(&lab, "dan", &["deploy", "--stack", "shop*"]);
    let rob = user(&lab, "rob", &["read"]);
    let shown = lab.rswarm(1, &["user", "inspect", "dan"]).ok();
    assert!(!shown.contains(dan.token.rsplit('-').next().expect("a secret")), "{shown}");
    lab.rswarm(1, &["config", "create", "note", "h1/daemon.log"]).ok();
    lab.rswarm(1, &["secret", "create", "bank_key", "h1/daemon.log"]).ok();
    let bank = stack(&lab, "bank", "");
    lab.rswarm(1, &["deploy", "--yes", "--detach", &bank]).ok();

    // An admin may everything, on any node.
    assert!(ann.on(&lab, 2, &["node", "ls", "--format", "{{.Hostname}}"]).ok().contains("host1"));
    assert!(ann.on(&lab, 2, &["swarm", "join-token", "-q", "worker"]).ok().starts_with("SWMTKN"));

    // Who reads, reads.
    assert!(rob.on(&lab, 2, &["service", "ls"]).ok().contains("bank_web"));
    for (args, words) in [
        (&["service", "create", "--detach", "--name", "x", "rswarm/hello"][..], "role read"),
        (&["service", "rm", "bank_web"], "role read"),
        (&["stack", "rm", "bank"], "role read"),
        (&["secret", "create", "x", "h1/daemon.log"], "role read"),
        (&["secret", "rm", "bank_key"], "role read"),
        (&["network", "create", "-d", "overlay", "x"], "role read"),
        (&["node", "update", "--availability", "drain", "host2"], "role read"),
        (&["swarm", "join-token", "manager"], "role admin"),
        (&["swarm", "update", "--task-history-limit", "1"], "role admin"),
        (&["user", "ls"], "role read may not read users"),
        (&["user", "add", "eve", "--role", "admin"], "role read"),
        (&["user", "update", "rob", "--role", "admin"], "may not read users"),
        (&["user", "token", "create", "ann"], "role read"),
        (&["user", "rm", "ann"], "may not read users"),
    ] {
        for n in [1, 2] {
            refused(rob.on(&lab, n, args), words);
        }
    }

    // Who deploys some stacks, deploys those, and gets no further through them.
    let shop = stack(&lab, "shop", "");
    dan.on(&lab, 2, &["deploy", "--yes", "--detach", "--message", "grand opening", &shop]).ok();
    wait_for_replicas(&lab, 1, "shop_web", "1/1");
    for (extra, words) in [
        ("    volumes: [\"/:/host\"]\n", "bind mount"),
        ("    privileged: true\n", "privileged"),
        ("    cap_add: [SYS_ADMIN]\n", "SYS_ADMIN"),
        ("    pid: host\n", "pid"),
        ("    devices: [\"/dev/kmsg\"]\n", "device"),
        ("    security_opt: [\"seccomp=unconfined\"]\n", "security_opt"),
        ("    network_mode: host\n", "network host"),
        ("    post_start: [{command: [\"x\"], privileged: true}]\n", "privileged hook"),
        ("    secrets: [bank_key]\nsecrets:\n  bank_key:\n    external: true\n", "bank_key"),
        (
            "    networks: [theirs]\nnetworks:\n  theirs:\n    name: bank_default\n    external: true\n",
            "bank",
        ),
        ("    volumes: [\"theirs:/v\"]\nvolumes:\n  theirs:\n    name: bank_data\n", "bank_data"),
    ] {
        let file = stack(&lab, "shop", extra);
        refused(dan.on(&lab, 1, &["deploy", "--yes", "--detach", &file]), words);
    }
    let bank = stack(&lab, "bank", "    environment: [STOLEN=1]\n");
    for (args, words) in [
        (&["deploy", "--yes", "--detach", &bank][..], "bank"),
        (&["stack", "rm", "bank"], "bank"),
        (&["service", "update", "--detach", "--env-add", "A=1", "bank_web"], "bank"),
        (&["service", "rm", "bank_web"], "bank"),
        (&["config", "rm", "note"], "is of no stack"),
        (&["service", "create", "--detach", "--name", "mine", "rswarm/hello"], "is of no stack"),
        (
            &[
                "service",
                "create",
                "--detach",
                "-l",
                "com.docker.stack.namespace=shop",
                "--name",
                "bank_x",
                "rswarm/hello",
            ],
            "must begin with",
        ),
        (&["node", "update", "--availability", "drain", "host2"], "role admin"),
        (&["swarm", "join-token", "worker"], "role admin"),
        (&["user", "add", "eve", "--role", "admin"], "role admin"),
    ] {
        refused(dan.on(&lab, 2, args), words);
    }

    // What was done is told, with whom.
    let history = lab.rswarm(1, &["stack", "history", "shop", "--format", "{{.Author}}: {{.Note}}"]).ok();
    assert_eq!(history, "dan: grand opening\n");
    let records = rob.on(&lab, 2, &["audit", "--user", "dan", "--format", "json"]).ok();
    let first = records.lines().next().expect("a record");
    for part in ["\"Action\":\"deploy\"", "\"Object\":\"stack shop\"", "\"Before\":0", "grand opening"] {
        assert!(first.contains(part), "{part} is not in {records}");
    }
    let created =
        lab.rswarm(1, &["audit", "--object", "secret bank_key", "--format", "{{.Person}} {{.Action}}"]);
    assert_eq!(created.ok(), "root@host1 create\nrob remove refused\n");
    assert_eq!(lab.rswarm(1, &["audit", "--since", "0s", "--format", "json"]).ok(), "");
    let log = fs::read_to_string(lab.dir().join("h1/daemon.log")).expect("the log");
    assert!(log.contains("\"outcome\":\"refused\""), "{log}");
    assert!(!log.contains(dan.token.rsplit('-').next().expect("a secret")), "a token is in the log");

    // A token ends when it is removed, when it expires, and with its user.
    let id = lab.rswarm(1, &["user", "token", "ls", "rob", "-q"]).ok();
    lab.rswarm(1, &["user", "token", "rm", "rob", id.trim()]).ok();
    refused(rob.on(&lab, 2, &["service", "ls"]), "the token is no user's");
    let short = lab.rswarm(1, &["user", "token", "create", "rob", "--expires", "1s"]).ok();
    let short = User { token: short.trim().to_owned() };
    wait_for("the token to expire", SOON, || {
        let said = short.on(&lab, 2, &["service", "ls"]);
        if said.stderr.contains("is not good any more") { Ok(()) } else { Err(format!("{said:?}")) }
    });
    let mut following = Command::new(env!("CARGO_BIN_EXE_rswarm"))
        .args(["service", "logs", "-f", "shop_web"])
        .env("DOCKER_HOST", format!("unix://{}", lab.socket(1).display()))
        .env("RSWARM_TOKEN", &dan.token)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program");
    let mut line = String::new();
    let mut log = std::io::BufReader::new(following.stdout.take().expect("a pipe"));
    log.read_line(&mut line).expect("a first line");
    assert!(!line.is_empty());
    lab.rswarm(1, &["user", "rm", "dan"]).ok();
    wait_for(
        "the log to end with its reader's rights",
        std::time::Duration::from_secs(5),
        || match following.try_wait().expect("a child") {
            Some(_) => Ok(()),
            None => Err("it goes on".to_owned()),
        },
    );
    for n in [1, 2] {
        refused(dan.on(&lab, n, &["service", "ls"]), "the token is no user's");
    }
    lab.rswarm(1, &["user", "add", "dan", "--role", "admin"]).ok();
    refused(dan.on(&lab, 1, &["service", "ls"]), "the token is no user's");
    // What is not the swarm's is the host's own business.
    dan.on(&lab, 2, &["ps"]).ok();
}

/// Runs `rswarm ARGS` against host `n` with something on standard input.
fn with_input(lab: &Lab, n: u8, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rswarm"))
        .args(args)
        .env("DOCKER_HOST", format!("unix://{}", lab.socket(n).display()))
        .env("HOME", lab.dir())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let said = child.wait_with_output().expect("its end");
    Output {
        code: said.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&said.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&said.stderr).into_owned(),
    }
}

#[test]
fn a_login_is_kept_for_one_daemon_and_a_password_makes_one() {
    let lab = swarm(2, 1);
    lab.rswarm(1, &["user", "add", "ann", "--role", "read"]).ok();
    let token = lab.rswarm(1, &["user", "token", "create", "ann", "--expires", "never"]).ok();
    refused(with_input(&lab, 2, &["user", "login", "--token-stdin"], "nonsense\n"), "the token is no user's");
    with_input(&lab, 2, &["user", "login", "--token-stdin"], &token).ok();
    assert_eq!(lab.rswarm(2, &["user", "whoami"]).ok(), "ann: read\n");
    let file = lab.dir().join(".config/rswarm/logins.json");
    assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    assert_eq!(lab.rswarm(1, &["user", "whoami"]).ok(), "root@host1: admin\n", "a login is for its daemon");
    lab.rswarm(2, &["user", "logout"]).ok();
    refused(lab.rswarm(2, &["user", "whoami"]), "Worker nodes can't be used");

    refused(with_input(&lab, 1, &["user", "passwd", "ann", "--password-stdin"], "short\n"), "10 to 1024");
    with_input(&lab, 1, &["user", "passwd", "ann", "--password-stdin"], "correct horse\n").ok();
    for (name, password) in [("ann", "correct horsf"), ("bob", "correct horse"), ("root@host1", "")] {
        let said =
            with_input(&lab, 2, &["user", "login", name, "--password-stdin"], &format!("{password}\n"));
        assert_ne!(said.code, 0, "{said:?}");
    }
    with_input(&lab, 2, &["user", "login", "ann", "--password-stdin"], "correct horse\n").ok();
    assert_eq!(lab.rswarm(2, &["user", "whoami"]).ok(), "ann: read\n");
    lab.rswarm(1, &["user", "passwd", "ann", "--remove"]).ok();
    let again = with_input(&lab, 2, &["user", "login", "ann", "--password-stdin"], "correct horse\n");
    refused(again, "wrong name or password");
    let audit = lab.rswarm(1, &["audit", "--user", "ann", "--format", "{{.Action}} {{.Object}}"]).ok();
    assert_eq!(audit, "login refused user ann\nlogin user ann\n");
    let all = fs::read_to_string(lab.dir().join("h1/daemon.log")).expect("the log");
    assert!(!all.contains("correct hors"), "a password is in the log");
}

/// A swarm of a manager with TLS on its address and a worker; the operator's folder of certificates.
fn encrypted_swarm() -> (Lab, std::path::PathBuf) {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let mut lab = swarm(2, 1);
    let ca = Authority::new();
    let [server, operator] = ["server", "operator"].map(|name| lab.dir().join(name));
    certificate(&server, &Lab::address(1), ServerAuth, &ca);
    certificate(&operator, "ops", ClientAuth, &ca);
    let settings = format!(
        "hosts = [\"tcp://{}\", \"tcp://127.0.0.1:2375\"]\ntlsverify = true\ntlscacert = \"{s}/ca.pem\"\n\
         tlscert = \"{s}/cert.pem\"\ntlskey = \"{s}/key.pem\"\n",
        Lab::address(1),
        s = server.display()
    );
    fs::write(lab.dir().join("h1/daemon.toml"), settings).expect("the settings");
    lab.tell("kill-daemon 1").expect("the daemon to be killed");
    lab.tell("start-daemon 1").expect("the daemon to be started");
    lab.wait_for_daemon(1).expect("the daemon");
    wait_for("the manager to answer", SOON, || {
        let said = lab.rswarm(1, &["node", "ls"]);
        if said.code == 0 { Ok(()) } else { Err(format!("{said:?}")) }
    });
    (lab, operator)
}

/// Runs a program on host 1 with the certificates of a folder.
fn shown(lab: &mut Lab, program: &[&str], folder: &Path, args: &[&str]) -> Output {
    let flags = [
        "-H".to_owned(),
        format!("tcp://{}:2376", Lab::address(1)),
        "--tlsverify".into(),
        format!("--tlscacert={}/ca.pem", folder.display()),
        format!("--tlscert={}/cert.pem", folder.display()),
        format!("--tlskey={}/key.pem", folder.display()),
    ];
    let all: Vec<&str> =
        program.iter().copied().chain(flags.iter().map(String::as_str)).chain(args.iter().copied()).collect();
    let ended = lab.exec(1, &all).expect("a program").wait(SOON).expect("its end");
    Output { stderr: ended.stdout.clone(), ..ended }
}

/// Makes a certificate of a user and returns its folder.
fn user_certificate(lab: &Lab, name: &str, operator: &Path) -> std::path::PathBuf {
    let folder = lab.dir().join(format!("cert-{name}"));
    let out = folder.to_str().expect("a readable path");
    lab.rswarm(1, &["user", "cert", name, "--out", out, "--expires", "1h"]).ok();
    assert_eq!(fs::metadata(folder.join("key.pem")).expect("the key").permissions().mode() & 0o777, 0o600);
    fs::copy(operator.join("ca.pem"), folder.join("ca.pem")).expect("a copy");
    folder
}

#[test]
fn a_certificate_is_its_user_who_has_the_swarm_but_not_the_host() {
    let (mut lab, operator) = encrypted_swarm();
    load_hello(&lab, 1);
    lab.rswarm(1, &["run", "-d", "--name", "mine", "rswarm/hello", "web"]).ok();
    for (name, role) in [("ann", "admin"), ("rob", "read")] {
        lab.rswarm(1, &["user", "add", name, "--role", role]).ok();
    }
    let (ann, rob) = (user_certificate(&lab, "ann", &operator), user_certificate(&lab, "rob", &operator));
    assert!(shown(&mut lab, &[], &operator, &["user", "whoami"]).ok().contains("@host1: admin"));
    assert!(shown(&mut lab, &[], &rob, &["user", "whoami"]).ok().contains("rob: read"));
    shown(&mut lab, &[], &rob, &["service", "ls"]).ok();
    shown(&mut lab, &[], &rob, &["info"]).ok();
    let create = ["service", "create", "--detach", "--name", "x", "rswarm/hello", "web"];
    refused(shown(&mut lab, &[], &rob, &create), "role read");
    for args in [
        &["ps"][..],
        &["logs", "mine"],
        &["exec", "mine", "/hello"],
        &["rm", "-f", "mine"],
        &["run", "-d", "rswarm/hello"],
        &["images"],
        &["volume", "ls"],
        &["system", "df"],
        &["network", "create", "x"],
        &["swarm", "leave", "--force"],
    ] {
        let said = shown(&mut lab, &[], &rob, args).fails();
        assert!(said.contains("may not use the containers, images"), "{args:?}: {said}");
    }
    assert!(shown(&mut lab, &[], &ann, &["ps"]).ok().contains("mine"));
    shown(&mut lab, &[], &ann, &create).ok();
    let audit =
        lab.rswarm(1, &["audit", "--object", "service x", "--format", "{{.Person}} {{.Action}}"]).ok();
    assert_eq!(audit, "rob create refused\nann create\n");
    // One of several that a user has can be taken back alone.
    let inspected = lab.rswarm(1, &["user", "inspect", "rob"]).ok();
    let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
    let serial = inspected[0]["Certificates"][0]["Serial"].as_str().expect("a serial number").to_owned();
    fs::rename(&rob, lab.dir().join("stolen")).expect("a theft");
    let stolen = lab.dir().join("stolen");
    let kept = user_certificate(&lab, "rob", &operator);
    let token = lab.rswarm(1, &["user", "token", "create", "rob"]).ok();
    let id = lab.rswarm(1, &["user", "token", "ls", "rob", "-q"]).ok();
    lab.rswarm(1, &["user", "revoke", "rob", "--certificate", &serial, "--token", id.trim()]).ok();
    refused(shown(&mut lab, &[], &stolen, &["service", "ls"]), "certificate was revoked");
    refused(
        lab.rswarm_with(2, &[("RSWARM_TOKEN", token.trim())], &["service", "ls"]),
        "the token is no user's",
    );
    shown(&mut lab, &[], &kept, &["service", "ls"]).ok();
    let again = lab.rswarm(1, &["user", "revoke", "rob", "--certificate", "00ff"]).fails();
    assert!(again.contains("no certificate 00ff") && again.contains("rswarm user inspect rob"), "{again}");
    let listed = ["user", "ls", "--format", "{{.Name}} {{.Certificates}}"];
    assert!(lab.rswarm(1, &listed).ok().contains("rob 1\n"));

    lab.rswarm(1, &["user", "rm", "ann"]).ok();
    refused(shown(&mut lab, &[], &ann, &["service", "ls"]), "no user of this swarm any more");
    refused(shown(&mut lab, &[], &ann, &["ps"]), "no user of this swarm any more");
    // A node's own certificate opens no front door.
    let node = fs::read_to_string(lab.dir().join("h2/data/swarm/certificates/node.pem"));
    if let Ok(node) = node {
        let thief = lab.dir().join("thief");
        fs::create_dir(&thief).expect("a folder");
        for file in ["cert.pem", "key.pem"] {
            fs::write(thief.join(file), &node).expect("a file");
        }
        fs::copy(operator.join("ca.pem"), thief.join("ca.pem")).expect("a copy");
        shown(&mut lab, &[], &thief, &["info"]).fails();
    } else {
        panic!("{node:?}");
    }
}

/// Docker's CLI is a user with a certificate or a token: a part of the oracle `docker_cli`. Ours is one in the tests around.
pub(crate) fn dockers_cli_is_a_user() {
    let (mut lab, operator) = encrypted_swarm();
    lab.rswarm(1, &["user", "add", "rob", "--role", "read"]).ok();
    let rob = user_certificate(&lab, "rob", &operator);
    let docker = ["/usr/bin/env", "docker"];
    assert!(shown(&mut lab, &docker, &rob, &["node", "ls"]).ok().contains("host2"));
    refused(shown(&mut lab, &docker, &rob, &["config", "create", "x", "/etc/hostname"]), "role read");
    refused(shown(&mut lab, &docker, &rob, &["ps"]), "may not use the containers");

    let token = lab.rswarm(1, &["user", "token", "create", "rob"]).ok();
    let config = lab.dir().join("docker-config");
    fs::create_dir(&config).expect("a folder");
    let headers = format!("{{\"HttpHeaders\": {{\"Authorization\": \"Bearer {}\"}}}}", token.trim());
    fs::write(config.join("config.json"), headers).expect("a file");
    let config = config.to_str().expect("a readable path");
    assert!(lab.docker(2, &["--config", config, "node", "ls"]).ok().contains("host2"));
    refused(lab.docker(2, &["--config", config, "config", "create", "x", "/etc/hostname"]), "role read");
    let without = lab.docker(2, &["node", "ls"]).fails();
    assert!(without.contains("This node is not a swarm manager. Worker nodes can't be used"), "{without}");
}

#[test]
fn a_workers_front_door_leads_to_containers_elsewhere_for_whom_managers_let_in() {
    let lab = swarm(3, 1);
    load_hello(&lab, 1);
    let text = |name: &str| {
        let service = |key: &str, host: u8| {
            format!(
                "  {key}:\n    image: rswarm/hello\n    command: [web]\n    deploy:\n      placement:\n        \
                 constraints: [node.hostname==host{host}]\n"
            )
        };
        let hosts: String =
            [("here", 2), ("there", 3), ("above", 1)].map(|(key, n)| service(key, n)).concat();
        format!("name: {name}\nservices:\n{hosts}")
    };
    let mut containers = Vec::new();
    for name in ["shop", "bank"] {
        let path = lab.dir().join(format!("{name}.yml"));
        fs::write(&path, text(name)).expect("a file");
        lab.rswarm(1, &["deploy", "--yes", "--detach", path.to_str().expect("a readable path")]).ok();
        for key in ["here", "there", "above"] {
            let service = format!("{name}_{key}");
            wait_for_replicas(&lab, 1, &service, "1/1");
            let format = "{{.Name}}.{{.ID}}";
            let task = ["service", "ps", "--no-trunc", "-f", "desired-state=running", "--format", format];
            containers.push(lab.rswarm(1, &[&task[..], &[&service]].concat()).ok().trim().to_owned());
        }
    }
    let [_, there, above, _, banks_there, banks_above] = &containers[..] else { panic!("{containers:?}") };
    let dan = user(&lab, "dan", &["deploy", "--stack", "shop"]);
    let rob = user(&lab, "rob", &["read"]);
    let note = lab.dir().join("note");
    fs::write(&note, "from dan\n").expect("a file");
    let (note, back) = (note.to_str().expect("a path"), lab.dir().join("back"));
    for mine in [there, above] {
        dan.on(&lab, 2, &["exec", mine, "/hello", "check", "127.0.0.1:80"]).ok();
        dan.on(&lab, 2, &["cp", note, &format!("{mine}:/note")]).ok();
        dan.on(&lab, 2, &["cp", &format!("{mine}:/note"), back.to_str().expect("a path")]).ok();
        assert_eq!(fs::read_to_string(&back).expect("what came back"), "from dan\n");
        fs::remove_file(&back).expect("a file");
        let privileged = ["exec", "--privileged", mine, "/hello", "check", "127.0.0.1:80"];
        refused(dan.on(&lab, 2, &privileged), "takes role admin");
        refused(dan.on(&lab, 2, &["stop", mine]), "takes role admin");
        rob.on(&lab, 2, &["logs", mine]).ok();
        refused(rob.on(&lab, 2, &["exec", mine, "/hello"]), "role admin");
    }
    assert_eq!(rob.on(&lab, 2, &["service", "logs", "shop_there"]).stderr, "");
    for theirs in [banks_there, banks_above] {
        refused(dan.on(&lab, 2, &["exec", theirs, "/hello"]), "is of stack bank");
        refused(dan.on(&lab, 2, &["attach", theirs]), "is of stack bank");
    }
    // The worker's own people are nobody to the swarm, and what is no task's is not within reach.
    refused(lab.rswarm(2, &["exec", there, "/hello"]), "No such container");
    lab.rswarm(1, &["run", "-d", "--name", "mine", "rswarm/hello", "web"]).ok();
    refused(dan.on(&lab, 2, &["exec", "mine", "/hello"]), "No such container");
    let told = lab.rswarm(1, &["audit", "--user", "dan", "--format", "{{.Action}} {{.Object}}"]).ok();
    for (action, times) in [("exec", 1), ("privileged exec refused", 1), ("copy into", 1), ("copy out of", 1)]
    {
        for task in ["shop_there.1", "shop_above.1"] {
            let line = format!("{action} task {task}");
            assert_eq!(told.lines().filter(|l| *l == line).count(), times, "{line}: {told}");
        }
    }
    assert!(told.contains("exec refused task bank_there.1"), "{told}");
}

#[test]
fn who_deploys_acts_in_containers_of_his_stacks_and_in_no_others_on_any_node() {
    let (mut lab, operator) = encrypted_swarm();
    load_hello(&lab, 1);
    let two = |name: &str, extra: &str| {
        let service = |key: &str, host: u8| {
            format!(
                "  {key}:\n    image: rswarm/hello\n    command: [web]\n{extra}    deploy:\n      placement:\n        \
                 constraints: [node.hostname==host{host}]\n"
            )
        };
        let text = format!("name: {name}\nservices:\n{}{}", service("here", 1), service("there", 2));
        let path = lab.dir().join(format!("{name}.yml"));
        fs::write(&path, text).expect("a file");
        lab.rswarm(1, &["deploy", "--yes", "--detach", path.to_str().expect("a readable path")]).ok();
    };
    two("shop", "");
    two("bank", "");
    two("shop-root", "    privileged: true\n");
    for service in
        ["shop", "bank", "shop-root"].iter().flat_map(|s| [format!("{s}_here"), format!("{s}_there")])
    {
        wait_for_replicas(&lab, 1, &service, "1/1");
    }
    let container = |service: &str| {
        let task =
            ["service", "ps", "--no-trunc", "-f", "desired-state=running", "--format", "{{.Name}}.{{.ID}}"];
        lab.rswarm(1, &[&task[..], &[service]].concat()).ok().trim().to_owned()
    };
    let [here, there] = ["shop_here", "shop_there"].map(container);
    let theirs = ["bank_here", "bank_there"].map(container);
    let root = ["shop-root_here", "shop-root_there"].map(container);
    for (name, role) in
        [("dan", &["deploy", "--stack", "shop*"][..]), ("rob", &["read"]), ("ann", &["admin"])]
    {
        lab.rswarm(1, &[&["user", "add", name, "--role"][..], role].concat()).ok();
    }
    let [dan, rob, ann] = ["dan", "rob", "ann"].map(|name| user_certificate(&lab, name, &operator));
    // `cp` asks by HEAD first, and an answer to that has no body.
    let has_no_words = |args: &[&str], said: &str| args[0] == "cp" && said.contains("403 Forbidden");
    let (note, back) = (lab.dir().join("note"), lab.dir().join("back"));
    fs::write(&note, "from dan\n").expect("a file");
    let (note, back) = (note.to_str().expect("a path"), back.to_str().expect("a path"));

    for mine in [&here, &there] {
        shown(&mut lab, &[], &dan, &["exec", mine, "/hello", "check", "127.0.0.1:80"]).ok();
        shown(&mut lab, &[], &dan, &["cp", note, &format!("{mine}:/note")]).ok();
        shown(&mut lab, &[], &dan, &["cp", &format!("{mine}:/note"), back]).ok();
        assert_eq!(fs::read_to_string(back).expect("what came back"), "from dan\n");
        fs::remove_file(back).expect("a file");
        shown(&mut lab, &[], &dan, &["logs", mine]).ok();
        // No further: nothing of the host, and no end of what the swarm runs.
        let privileged = ["exec", "--privileged", mine, "/hello", "check", "127.0.0.1:80"];
        refused(shown(&mut lab, &[], &dan, &privileged), "takes role admin");
        for args in
            [&["stop", mine.as_str()][..], &["rm", "-f", mine], &["export", mine], &["commit", mine, "x"]]
        {
            shown(&mut lab, &[], &dan, args).fails();
        }
        for args in
            [&["exec", mine.as_str(), "/hello"][..], &["cp", note, &format!("{mine}:/n")], &["attach", mine]]
        {
            let said = shown(&mut lab, &[], &rob, args).fails();
            assert!(said.contains("role admin") || has_no_words(args, &said), "{args:?}: {said}");
        }
    }
    for (others, words) in [(&theirs, "is of stack bank"), (&root, "privileged reaches into the host")] {
        for other in others {
            let from = format!("{other}:/etc/hostname");
            for args in [
                &["exec", other.as_str(), "/hello"][..],
                &["attach", other],
                &["cp", note, &format!("{other}:/note")],
                &["cp", &from, back],
            ] {
                let said = shown(&mut lab, &[], &dan, args).fails();
                assert!(said.contains(words) || has_no_words(args, &said), "{args:?}: {said}");
            }
        }
    }
    shown(&mut lab, &[], &ann, &["exec", &theirs[1], "/hello", "check", "127.0.0.1:80"]).ok();
    let audit = ["audit", "--user", "dan", "--format", "{{.Action}} {{.Object}}"];
    let told = lab.rswarm(1, &audit).ok();
    for (action, times) in [("exec", 1), ("privileged exec refused", 1), ("copy into", 1), ("copy out of", 1)]
    {
        for task in ["shop_here.1", "shop_there.1"] {
            let line = format!("{action} task {task}");
            assert_eq!(told.lines().filter(|l| *l == line).count(), times, "{line}: {told}");
        }
    }
    let (refused_him, let_in) = told.lines().partition::<Vec<_>, _>(|line| line.contains(" refused "));
    assert!(let_in.iter().all(|line| !line.contains("bank")), "{told}");
    assert!(refused_him.contains(&"exec refused task bank_here.1"), "{told}");
    let told = lab.rswarm(1, &["audit", "--user", "ann", "--format", "{{.Action}} {{.Object}}"]).ok();
    assert_eq!(told, "exec task bank_there.1\n");

    // An attached stream ends with the rights of who opened it.
    let flags = ["--tlsverify".to_owned(), format!("--tlscacert={}/ca.pem", dan.display())];
    let more =
        [format!("--tlscert={}/cert.pem", dan.display()), format!("--tlskey={}/key.pem", dan.display())];
    let to = format!("tcp://{}:2376", Lab::address(1));
    let words: Vec<&str> = ["-H", &to]
        .into_iter()
        .chain(flags.iter().chain(&more).map(String::as_str))
        .chain(["attach", &there])
        .collect();
    let attached = lab.exec(1, &words).expect("a program");
    wait_for("the stream to be open", SOON, || {
        let told = lab.rswarm(1, &audit).ok();
        if told.contains("attach task shop_there.1") {
            Ok(())
        } else {
            Err(format!("{told}{}", attached.said()))
        }
    });
    lab.rswarm(1, &["user", "update", "dan", "--role", "read"]).ok();
    attached.wait(SOON).expect("its end");
    refused(shown(&mut lab, &[], &dan, &["exec", &here, "/hello"]), "role admin");
}
