//! Ways to a daemon other than its socket.

use crate::{SOON, lab, load_hello};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use testkit::Lab;

/// An `ssh` that is at the far host at once: it runs what comes after `-- HOST`, `docker` being our program there.
/// Returns the PATH that has it first.
fn fake_ssh(lab: &Lab) -> String {
    let folder = lab.dir().join("fake");
    fs::create_dir(&folder).expect("a folder");
    let script = format!(
        "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\ncase $2 in far | me@far) shift 3 ;; *) exit 255 ;; esac\n\
         unset DOCKER_HOST; RSWARM_HOST=unix://{} exec {} \"$@\"\n",
        lab.socket(1).display(),
        env!("CARGO_BIN_EXE_rswarm"),
    );
    testkit::write_program(&folder.join("ssh"), &script, 0o755);
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn our_cli_reaches_a_daemon_through_ssh() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let path = fake_ssh(&lab);
    let far = |args: &[&str]| {
        let args = [&["-H", "ssh://me@far"], args].concat();
        lab.rswarm_with(1, &[("PATH", path.as_str())], &args)
    };
    assert!(far(&["images", "--format", "{{.Repository}}"]).ok().contains("rswarm/hello"));
    lab.rswarm(1, &["context", "create", "far", "--docker", "host=ssh://me@far"]).ok();
    let named = ["--context", "far", "images", "--format", "{{.Repository}}"];
    assert!(lab.rswarm_with(1, &[("PATH", path.as_str())], &named).ok().contains("rswarm/hello"));
    let ran = far(&["run", "--rm", "rswarm/hello"]);
    assert!(ran.code == 1 && ran.stderr.contains("usage: hello"), "{ran:?}");
    let nowhere = lab.rswarm_with(1, &[("PATH", path.as_str())], &["-H", "ssh://you@near", "ps"]);
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
    let without = lab.rswarm_with(1, &[("PATH", "/nowhere")], &["-H", "ssh://me@far", "ps"]).fails();
    assert!(without.contains("cannot start ssh"), "{without}");
}

/// A part of the oracle `docker_cli`.
pub(crate) fn dockers_cli_comes_through_ssh() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let path = fake_ssh(&lab);
    let docker = |args: &[&str]| {
        let said = Command::new(testkit::peer("docker"))
            .env("PATH", &path)
            .env("DOCKER_HOST", "ssh://me@far")
            .env("HOME", lab.dir())
            .args(args)
            .output()
            .expect("docker runs");
        (
            said.status.code(),
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr),
        )
    };
    let (code, said) = docker(&["images", "--format", "{{.Repository}}"]);
    assert!(code == Some(0) && said.contains("rswarm/hello"), "{said}");
    let (code, said) = docker(&["run", "--rm", "rswarm/hello"]);
    assert!(code == Some(1) && said.contains("usage: hello"), "{said}");
}

/// Writes `ca.pem`, `cert.pem` and `key.pem` into a folder: a certificate for the name or address, signed by a CA
/// that is made here or given.
pub(crate) fn certificate(
    folder: &Path,
    subject: &str,
    usage: rcgen::ExtendedKeyUsagePurpose,
    ca: &Authority,
) {
    fs::create_dir_all(folder).expect("a folder");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![subject.to_owned()]).expect("a subject");
    params.extended_key_usages = vec![usage];
    let signed = params.signed_by(&key, &ca.issuer).expect("a certificate");
    for (file, text) in
        [("ca.pem", ca.pem.clone()), ("cert.pem", signed.pem()), ("key.pem", key.serialize_pem())]
    {
        fs::write(folder.join(file), text).expect("a file");
    }
}

pub(crate) struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test CA");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }
}

/// A host whose daemon listens on TLS, and folders of certificates: of a friend, and of somebody else's friend.
fn encrypted_host() -> (Lab, PathBuf, PathBuf) {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let mut lab = lab(1);
    let (ours, theirs) = (Authority::new(), Authority::new());
    let [server, friend, stranger] = ["server", "friend", "stranger"].map(|name| lab.dir().join(name));
    certificate(&server, &Lab::address(1), ServerAuth, &ours);
    certificate(&friend, "friend", ClientAuth, &ours);
    certificate(&stranger, "stranger", ClientAuth, &theirs);
    // The stranger knows our CA, which is no secret.
    fs::write(stranger.join("ca.pem"), &ours.pem).expect("a file");
    let settings = format!(
        "hosts = [\"tcp://{}\"]\ntlsverify = true\ntlscacert = \"{s}/ca.pem\"\ntlscert = \"{s}/cert.pem\"\n\
         tlskey = \"{s}/key.pem\"\n",
        Lab::address(1),
        s = server.display()
    );
    fs::write(lab.dir().join("h1/daemon.toml"), settings).expect("the settings");
    lab.tell("kill-daemon 1").expect("the daemon to be killed");
    lab.tell("start-daemon 1").expect("the daemon to be started");
    lab.wait_for_daemon(1).expect("the daemon");
    (lab, friend, stranger)
}

/// Runs a command of ours or `/usr/bin/env docker` on the host itself, for its network's sake.
fn on_host(lab: &mut Lab, program: &[&str], folder: &Path, host: &str) -> (i32, String) {
    let flags = [
        "-H".to_owned(),
        host.to_owned(),
        "--tlsverify".into(),
        format!("--tlscacert={}/ca.pem", folder.display()),
        format!("--tlscert={}/cert.pem", folder.display()),
        format!("--tlskey={}/key.pem", folder.display()),
    ];
    let args: Vec<&str> =
        program.iter().copied().chain(flags.iter().map(String::as_str)).chain(["info"]).collect();
    let ended = lab.exec(1, &args).expect("a program").wait(SOON).expect("its end");
    (ended.code, ended.stdout)
}

#[test]
fn a_daemon_lets_those_in_over_tcp_whose_certificate_its_ca_has_signed() {
    let (mut lab, friend, stranger) = encrypted_host();
    // The port is 2376 by default.
    let host = format!("tcp://{}", Lab::address(1));
    let (code, said) = on_host(&mut lab, &[], &friend, &host);
    assert!(code == 0 && said.contains("Server Version"), "{said}");
    let (code, said) = on_host(&mut lab, &[], &stranger, &host);
    assert!(code == 1 && !said.contains("Server Version"), "{said}");
    // Without a certificate, and without TLS.
    fs::remove_file(friend.join("cert.pem")).expect("a file");
    fs::remove_file(friend.join("key.pem")).expect("a file");
    let (code, said) = on_host(&mut lab, &[], &friend, &host);
    assert!(code == 1 && !said.contains("Server Version"), "{said}");
    let plain = format!("{host}:2376");
    let ended = lab.exec(1, &["-H", &plain, "info"]).expect("a program").wait(SOON).expect("its end");
    assert!(ended.code == 1 && !ended.stdout.contains("Server Version"), "{ended:?}");
}

#[test]
fn a_context_has_certificates_of_its_own() {
    let (mut lab, friend, stranger) = encrypted_host();
    let home = lab.dir().join("home");
    let script = lab.dir().join("asks.sh");
    let create = |name: &str, folder: &Path| {
        let files = ["ca", "cert", "key"].map(|file| format!("{file}={}/{file}.pem", folder.display()));
        format!("$1 context create {name} --docker host=tcp://{},{}", Lab::address(1), files.join(","))
    };
    let lines = [
        format!("export HOME={}; unset DOCKER_HOST RSWARM_HOST", home.display()),
        create("friend", &friend),
        create("stranger", &stranger),
        // What was given is in the store: the files may go.
        format!("rm -r {} {}", friend.display(), stranger.display()),
        "$1 --context friend info --format {{.Name}} && ! $1 --context stranger info".to_owned(),
    ];
    fs::write(&script, lines.join("\n")).expect("a script");
    let (script, program) = (script.display().to_string(), crate::program().display().to_string());
    let ended = lab.exec(1, &["/bin/sh", &script, &program]).expect("a host").wait(SOON).expect("its end");
    assert!(
        ended.code == 0 && ended.stdout.lines().any(|line| line == "host1"),
        "{ended:?}{}",
        lab.daemon_logs()
    );
}

/// A part of the oracle `docker_cli`.
pub(crate) fn dockers_cli_comes_over_tcp_with_its_certificates() {
    let (mut lab, friend, stranger) = encrypted_host();
    let host = format!("tcp://{}:2376", Lab::address(1));
    let (code, said) = on_host(&mut lab, &["/usr/bin/env", "docker"], &friend, &host);
    assert!(code == 0 && said.contains("Server Version"), "{said}");
    let (_, said) = on_host(&mut lab, &["/usr/bin/env", "docker"], &stranger, &host);
    assert!(!said.contains("Server Version"), "{said}");
}

#[test]
fn settings_of_the_operator_hold_for_containers_and_networks() {
    let mut lab = lab(1);
    load_hello(&lab, 1);
    let bad = lab.dir().join("bad.json");
    fs::write(&bad, "{\"live-restore\": true,\n\"bib\": 3}").expect("a file");
    let refused = lab.rswarm(1, &["daemon", "--config", bad.to_str().expect("a path")]).fails();
    assert!(
        refused.contains("bad.json") && refused.contains("bib") && refused.contains("line 2"),
        "{refused}"
    );

    let settings = "bip = \"10.200.0.1/24\"\nmtu = 1300\ndefault-address-pools = [{base = \"10.9.0.0/16\", size = 24}]\n\
        log-opts = {max-size = \"1m\"}\ndefault-ulimits = {nofile = {Soft = 77, Hard = 99}}\n";
    fs::write(lab.dir().join("h1/daemon.toml"), settings).expect("the settings");
    lab.tell("kill-daemon 1").expect("the daemon to be killed");
    lab.tell("start-daemon 1").expect("the daemon to be started");
    lab.wait_for_daemon(1).expect("the daemon");
    lab.rswarm(1, &["run", "-d", "--name", "web", "rswarm/hello", "web"]).ok();
    let inspect =
        |format: &str| lab.rswarm(1, &["inspect", "--format", format, "web"]).ok().trim().to_owned();
    assert_eq!(inspect("{{.NetworkSettings.Networks.bridge.Gateway}}"), "10.200.0.1");
    let host = inspect("{{json .HostConfig}}");
    assert!(host.contains("\"max-size\":\"1m\"") && host.contains("\"Soft\":77"), "{host}");
    lab.rswarm(1, &["network", "create", "own"]).ok();
    let networks = lab.rswarm(1, &["network", "inspect", "own", "bridge"]).ok();
    assert!(networks.contains("10.9.0.0/24") && networks.contains("\"1300\""), "{networks}");
}
