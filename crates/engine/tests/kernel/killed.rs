//! A daemon that is killed in the middle of its work, again and again, at any point of it.

use crate::kit::{Host, becomes, eventually};
use engine::{Filters, ListOptions, RemoveOptions, Status};
use std::{collections::BTreeSet, fs, time::Duration};

/// Names of the entries of a folder of the host, without the mark that says that the folder is ours.
fn entries(host: &Host, folder: &str) -> BTreeSet<String> {
    let names = fs::read_dir(host.path(folder)).into_iter().flatten();
    let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name != ".rswarm").collect()
}

/// Opens the engine over what the killed one left, and checks that it tells the truth and can tidy up.
fn check(host: &mut Host) {
    host.start_daemon();
    let all = ListOptions { all: true, ..ListOptions::default() };
    let containers = host.on(async |engine| engine.list(all).await.unwrap());
    let ids: BTreeSet<String> = containers.iter().map(|c| c.id.clone()).collect();
    let running = containers.iter().filter(|c| c.state.is_running());
    let running: BTreeSet<String> = running.map(|c| c.id.clone()).collect();
    for container in &containers {
        let status = container.state.status;
        assert!(matches!(status, Status::Created | Status::Running | Status::Exited), "{container:?}");
    }
    assert_eq!(entries(host, "data/containers"), ids);
    // Of those that ran, short ones may have ended meanwhile.
    becomes(&BTreeSet::new(), || {
        entries(host, "run/c").difference(&running).cloned().collect::<BTreeSet<_>>()
    });
    becomes(&BTreeSet::new(), || entries(host, "run/network/netns").difference(&running).cloned().collect());
    for id in &ids {
        host.on(async |engine| {
            engine.remove(id, RemoveOptions { force: true, volumes: true }).await.unwrap();
        });
    }
    becomes(&BTreeSet::new(), || entries(host, "data/containers"));
    for folder in ["run/c", "run/secrets", "run/network/netns"] {
        assert_eq!(entries(host, folder), BTreeSet::new(), "{folder}");
    }
    let volumes = host.on(async |engine| engine.volumes(&Filters::default()));
    assert_eq!(volumes, [], "anonymous volumes go with their containers, made or half-made");
    becomes(&vec![], || host.processes());
    assert_eq!(host.mounts(), [""; 0]);
    assert_eq!(host.cgroups(), BTreeSet::new());
    becomes(&vec![], || host.audit());
    becomes(&vec![], || host.links().into_iter().filter(|l| l != "lo" && l != "docker0").collect::<Vec<_>>());
    host.kill_daemon();
}

#[test]
fn whatever_a_killed_daemon_was_doing_the_next_one_knows_and_tidies() {
    let mut host = Host::new();
    host.kill_daemon();
    // Primes spread over the milliseconds in which a container is made, started and removed.
    for milliseconds in [0, 2, 5, 11, 17, 23, 31, 41, 53, 67, 83, 101, 127] {
        let mut daemon = host.other_daemon(4);
        // It works once its first container has a folder.
        eventually("it works", || {
            assert_eq!(daemon.try_wait().unwrap(), None, "it ended by itself");
            !entries(&host, "data/containers").is_empty()
        });
        std::thread::sleep(Duration::from_millis(milliseconds));
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        check(&mut host);
    }
    host.start_daemon();
}
