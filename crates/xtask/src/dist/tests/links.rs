//! Docker's socket as others look for it: the unit's two commands, carried out on a host.

use super::{hosts::Host, repository};
use std::fs;

/// Returns the command of a key of rswarm.service, as systemd reads it. *Source:* systemd.service(5), "COMMAND LINES".
fn command(key: &str) -> Vec<String> {
    let unit = fs::read_to_string(repository().join("deploy/rswarm.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=-"))).unwrap();
    let (shell, script) = line.split_once(" -c ").unwrap();
    let script = script.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
    let script = script.replace("\\\"", "\"").replace("$$", "$");
    vec![shell.to_owned(), "-c".to_owned(), script]
}

fn tell(host: &Host, key: &str) {
    let command = command(key);
    let _status = host.run(&command.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn dockers_socket_is_ours_while_nothing_else_is_there_and_the_daemon_runs() {
    let host = Host::new();
    let socket = host.path("run/docker.sock");
    let target = || fs::read_link(&socket).map(|to| to.display().to_string()).unwrap_or_default();
    tell(&host, "ExecStartPost");
    assert_eq!(target(), "/run/rswarm/docker.sock");
    // A restart without a stop in between.
    tell(&host, "ExecStartPost");
    assert_eq!(target(), "/run/rswarm/docker.sock");
    tell(&host, "ExecStopPost");
    assert!(fs::symlink_metadata(&socket).is_err(), "it goes with the daemon");
    tell(&host, "ExecStopPost");

    let listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for key in ["ExecStartPost", "ExecStopPost"] {
        tell(&host, key);
        assert!(
            fs::symlink_metadata(&socket).is_ok_and(|found| !found.is_symlink()),
            "{key}: it is another's"
        );
    }
    drop(listening);
    tell(&host, "ExecStartPost");
    assert!(
        fs::symlink_metadata(&socket).is_ok_and(|found| !found.is_symlink()),
        "it is what another has left"
    );
    fs::remove_file(&socket).unwrap();

    std::os::unix::fs::symlink("/run/podman/podman.sock", &socket).unwrap();
    for key in ["ExecStartPost", "ExecStopPost"] {
        tell(&host, key);
        assert_eq!(target(), "/run/podman/podman.sock", "{key}");
    }
    fs::remove_file(&socket).unwrap();

    // What is left of a container that was to mount a socket which was not there.
    fs::create_dir(&socket).unwrap();
    for key in ["ExecStartPost", "ExecStopPost"] {
        tell(&host, key);
        assert_eq!(fs::read_dir(&socket).unwrap().count(), 0, "{key}");
    }
}
