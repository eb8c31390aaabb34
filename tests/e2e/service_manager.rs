//! The daemon under a service manager: signals, its word that it is ready, settings that are read anew, its units.

use crate::{SOON, lab, load_hello, program};
use rustix::process::Signal;
use serde_json::Value;
use std::{fs, os::unix::net::UnixDatagram, process::Command};
use testkit::{Lab, wait_for};

fn write_settings(lab: &Lab, text: &str) {
    fs::write(lab.dir().join("h1/daemon.toml"), text).expect("the settings");
}

fn info(lab: &Lab) -> Value {
    serde_json::from_str(&lab.api(1, "/info").expect("its state")).expect("JSON")
}

fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.dir().join("h1/daemon.log")).expect("its log")
}

/// Waits until the daemon's log has all of these words in one line.
fn wait_for_line(lab: &Lab, words: &[&str]) {
    wait_for(&format!("a line with {words:?}"), SOON, || {
        let log = log(lab);
        let has = |line: &str| words.iter().all(|word| line.contains(word));
        if log.lines().any(has) { Ok(()) } else { Err(log) }
    });
}

#[test]
fn settings_that_are_read_anew_hold_at_once_or_are_named_and_containers_do_not_notice() {
    let lab = lab(1);
    load_hello(&lab, 1);
    lab.rswarm(1, &["run", "-d", "--name", "before", "rswarm/hello", "web"]).ok();
    let started = lab.rswarm(1, &["inspect", "--format", "{{.State.StartedAt}}", "before"]).ok();
    let init = |name: &str| {
        let host = lab.rswarm(1, &["inspect", "--format", "{{json .HostConfig}}", name]).ok();
        serde_json::from_str::<Value>(&host).expect("JSON")["Init"].clone()
    };
    assert_ne!(init("before"), true);

    write_settings(
        &lab,
        "labels = [\"zone=a\"]\ninsecure-registries = [\"registry.lan:5000\"]\ninit = true\nlog-level = \"debug\"\n\
         mtu = 1300\nexec-opts = [\"native.cgroupdriver=systemd\"]\n",
    );
    let pid = lab.signal_daemon(1, Signal::HUP).expect("a daemon");
    wait_for("the label to be there", SOON, || {
        let info = info(&lab);
        let there = info["Labels"][0] == "zone=a"
            && info["RegistryConfig"]["IndexConfigs"]["registry.lan:5000"]["Secure"] == false;
        if there { Ok(()) } else { Err(format!("{info}{}", lab.daemon_logs())) }
    });
    wait_for_line(&lab, &["WARN", "hold after a restart", "mtu"]);
    wait_for_line(
        &lab,
        &["INFO", "settings are read anew", "log-level", "labels", "insecure-registries", "init"],
    );
    wait_for_line(&lab, &["WARN", "left out", "line=6", "exec-opts"]);
    lab.rswarm(1, &["run", "-d", "--name", "after", "rswarm/hello", "web"]).ok();
    assert_eq!(init("after"), true);
    wait_for_line(&lab, &["DEBUG", "what the log has", "debug"]);

    write_settings(&lab, "labels = [\"zone=b\"]\nlabel = 3\n");
    lab.signal_daemon(1, Signal::HUP).expect("a daemon");
    wait_for_line(&lab, &["ERROR", "settings cannot be read anew", "line 2", "label"]);
    for signal in [Signal::USR1, Signal::USR2] {
        lab.signal_daemon(1, signal).expect("a daemon");
    }
    wait_for_line(&lab, &["SIGUSR2 means nothing here"]);
    assert_eq!(info(&lab)["Labels"][0], "zone=a", "what cannot be read changes nothing");
    assert_eq!(lab.signal_daemon(1, Signal::HUP).expect("a daemon"), pid, "it is the same daemon");
    assert_eq!(lab.rswarm(1, &["inspect", "--format", "{{.State.StartedAt}}", "before"]).ok(), started);
}

#[test]
fn constraints_follow_labels_that_are_given_to_a_host_while_it_runs() {
    let lab = crate::swarm(1, 1);
    load_hello(&lab, 1);
    let constraint = ["--constraint", "engine.labels.disk==ssd"];
    lab.rswarm(
        1,
        &[&["service", "create", "--detach", "--name", "fast"], &constraint[..], &["rswarm/hello", "web"]]
            .concat(),
    )
    .ok();
    write_settings(&lab, "labels = [\"disk=ssd\"]\n");
    lab.signal_daemon(1, Signal::HUP).expect("a daemon");
    crate::wait_for_replicas(&lab, 1, "fast", "1/1");
}

#[test]
fn the_service_manager_is_told_when_the_daemon_is_ready_reads_its_settings_and_stops() {
    let mut lab = lab(1);
    lab.stop_daemon(1).expect("its daemon to end");
    let path = lab.dir().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(SOON)).expect("a limit");
    let (root, socket) = (lab.dir().join("h1"), format!("NOTIFY_SOCKET={}", path.display()));
    let (data, run) = (root.join("data").display().to_string(), root.join("run").display().to_string());
    let roots = ["--data-root", data.as_str(), "--run-root", run.as_str(), "--hostname", "host1"];
    let program = program().display().to_string();
    let daemon = [&["/usr/bin/env", &socket, program.as_str(), "daemon"], &roots[..]].concat();
    let ended = lab.exec(1, &daemon).expect("a daemon");
    let said = || {
        let mut buffer = [0; 1024];
        match manager.recv(&mut buffer) {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(error) => panic!("no word of the daemon: {error}: {}", ended.said()),
        }
    };

    let ready = said();
    assert!(ready.starts_with("READY=1\nSTATUS=answers at ") && ready.contains("docker.sock"), "{ready}");
    assert!(lab.api(1, "/_ping").is_ok(), "it answers as soon as it says so");
    lab.signal_daemon(1, Signal::HUP).expect("a daemon");
    let reloading = said();
    let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(
        reloading.starts_with("RELOADING=1\n") && since.is_some_and(|us| us.parse::<u64>().is_ok()),
        "{reloading}"
    );
    let ready = said();
    assert!(ready.starts_with("READY=1\n") && ready.contains("settings were read anew"), "{ready}");
    lab.signal_daemon(1, Signal::TERM).expect("a daemon");
    let stopping = said();
    assert!(
        stopping.starts_with("STOPPING=1\n") && stopping.contains("containers keep running"),
        "{stopping}"
    );
    assert_eq!(ended.wait(SOON).expect("its end").code, 0);
}

#[test]
fn settings_are_looked_at_without_a_daemon() {
    let lab = Lab::start(program(), 0).expect("a lab");
    let validate = |name: &str, text: &str| {
        let path = lab.dir().join(name);
        fs::write(&path, text).expect("a file");
        lab.rswarm(1, &["daemon", "--validate", "--config-file", path.to_str().expect("a path")])
    };
    let fine = validate("daemon.json", "{\"debug\": true,\n \"default-runtime\": \"nvidia\"}");
    assert_eq!((fine.code, fine.stdout.as_str()), (0, "configuration OK\n"), "{}", fine.stderr);
    assert!(fine.stderr.contains("line 2: default-runtime: runtime \"nvidia\""), "{}", fine.stderr);
    let refused = validate("daemon.json", "{\n\"selinux-enabled\": true}").fails();
    assert!(refused.contains("daemon.json: line 2: selinux-enabled"), "{refused}");
    let refused = validate("daemon.json", "{\n\"group\": \"no-such-group\"}").fails();
    assert!(refused.contains("no-such-group"), "{refused}");
    let absent = lab.dir().join("absent.json").display().to_string();
    for more in [&["--validate"][..], &[]] {
        let refused = lab.rswarm(1, &[&["daemon", "--config", absent.as_str()], more].concat()).fails();
        assert!(
            refused.contains("cannot read the settings file") && refused.contains("absent.json"),
            "{refused}"
        );
    }
}

#[test]
fn the_log_is_json_where_that_is_asked_for() {
    let mut lab = lab(1);
    lab.tell("kill-daemon 1").expect("its daemon to end");
    write_settings(&lab, "log-format = \"json\"\n");
    fs::write(lab.dir().join("h1/daemon.log"), "").expect("its log to begin anew");
    lab.tell("start-daemon 1").expect("a daemon");
    lab.wait_for_daemon(1).expect("the daemon");
    let ready = wait_for("its word that it is ready", SOON, || {
        let text = log(&lab);
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.into_iter().find(|line| line["message"] == "ready").ok_or(text)
    });
    assert_eq!(
        (&ready["level"], ready["socket"].as_str().is_some()),
        (&Value::from("INFO"), true),
        "{ready}"
    );
}

/// With our own program in place of the installed one.
#[test]
#[ignore = "oracle: systemd-analyze"]
fn systemd_finds_nothing_wrong_with_our_units() {
    let folder = tempfile::tempdir().expect("a folder");
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let mut units = Vec::new();
    for name in ["rswarm.service", "rswarm-host.service"] {
        let text = fs::read_to_string(deploy.join(name)).expect("a unit");
        let text = text.replace("/usr/local/bin/rswarm", program().to_str().expect("a path"));
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a unit");
        units.push(path);
    }
    let said = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=yes"])
        .args(&units)
        .output()
        .expect("systemd-analyze");
    let words = String::from_utf8_lossy(&said.stderr);
    let ours: Vec<&str> = words.lines().filter(|line| line.contains("rswarm")).collect();
    assert!(said.status.success() && ours.is_empty(), "{words}");
    // It must be able to find something.
    let bad = folder.path().join("rswarm-bad.service");
    fs::write(&bad, "[Service]\nExecStart=/no/such/program\nRestrat=always\n").expect("a unit");
    let said = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&bad).output().expect("it");
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(words.contains("Restrat") && words.contains("/no/such/program"), "{words}");
}
