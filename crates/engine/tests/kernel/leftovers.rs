//! Removal leaves nothing, and neither does a daemon that was killed at a bad moment.

use crate::inventory::walk;
use crate::kit::{GUEST, Host, becomes, eventually, guest, guest_with};
use engine::{ContainerFile, Error, NetworkMode, Port, PortBinding, RemoveOptions, SecretBytes, Status};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Everything of a host that a container could leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Inventory {
    mounts: Vec<String>,
    cgroups: BTreeSet<PathBuf>,
    links: Vec<String>,
    rules: usize,
    sandboxes: usize,
    processes: Vec<String>,
    files: BTreeSet<PathBuf>,
}

fn inventory(host: &Host) -> Inventory {
    let mut files = BTreeSet::new();
    let data = host.path("data");
    // Layers are unpacked once, when the first container needs them; logs of the network's own are not ours.
    walk(&data, &mut |path| !path.starts_with(data.join("images")), &mut files);
    walk(&host.path("run"), &mut |_| true, &mut files);
    Inventory {
        mounts: host.mounts(),
        cgroups: host.cgroups(),
        links: host.links(),
        rules: host.rules(),
        sandboxes: host.on(async |engine| engine.network_service().sandboxes().await.unwrap().len()),
        processes: host.processes(),
        files,
    }
}

/// Waits until a host without containers has come to rest, and returns what it has then: bridge, image, records.
fn at_rest(host: &Host) -> Inventory {
    becomes(&vec!["docker0".to_owned(), "lo".to_owned()], || host.links());
    becomes(&0, || fs::read_dir(host.path("data/containers")).unwrap().count());
    becomes(&vec![], || host.audit());
    inventory(host)
}

/// A container that uses all there is.
fn everything(steps: &[&str]) -> engine::ContainerConfig {
    guest_with(steps, |c| {
        c.host.network_mode = NetworkMode::Bridge;
        let container = "80/tcp".parse::<Port>().unwrap();
        c.host.port_bindings =
            vec![PortBinding { container, host_ip: None, host_port: None, last_port: None }];
        c.volumes.insert("/seed".into());
        drop(c.host.tmpfs.insert("/scratch".into(), String::new()));
        c.host.files = vec![ContainerFile {
            target: "/run/secrets/key".into(),
            uid: 0,
            gid: 0,
            mode: 0o400,
            content: SecretBytes(Arc::from(&b"secret"[..])),
        }];
    })
}

#[test]
fn removal_leaves_nothing() {
    let host = Host::new();
    // The first container brings the bridge and the unpacked image.
    let first = host.start(everything(&["park"]));
    host.remove(&first).unwrap();
    let before = at_rest(&host);

    let ended = host.start(everything(&["say:x", "exit:3"]));
    host.wait(&ended);
    let killed = host.start(everything(&["say:ready", "park"]));
    host.until_said(&killed, "ready\n");
    host.exec(&killed, &[GUEST, "write:/work/a=x"], "").unwrap();
    let made = host.create(everything(&["park"]));
    let broken = host.create(guest_with(&[], |c| c.entrypoint = Some(vec!["/nothing".into()])));
    host.try_start(&broken).unwrap_err();
    let full = inventory(&host);
    assert!(full.files.len() > before.files.len() && full.links.len() > before.links.len(), "{full:#?}");
    assert!(full.processes.len() > before.processes.len() && full.rules > before.rules, "{full:#?}");
    for id in [&ended, &killed, &made, &broken] {
        host.remove(id).unwrap();
    }
    becomes(&before, || inventory(&host));
    assert_eq!(host.audit(), [""; 0]);
}

/// As of a task that its manager takes back while it is made, or a client that goes away.
#[test]
fn a_creation_that_nobody_waits_for_leaves_nothing() {
    let host = Host::new();
    let first = host.start(everything(&["park"]));
    host.remove(&first).unwrap();
    let before = at_rest(&host);
    let named = |turn: u64| {
        guest_with(&[], |c| {
            *c = everything(&["park"]);
            c.name = Some(format!("turn-{turn}"));
        })
    };
    let mut cut_short = 0;
    for turn in 0..40 {
        let made = host.on(async |engine| {
            // Cut off later each time, from before the first step to after the last.
            let limit = std::time::Duration::from_micros(250 * turn);
            tokio::time::timeout(limit, engine.create(named(turn))).await
        });
        match made {
            Ok(created) => host.remove(&created.unwrap().id).unwrap(),
            Err(_) => cut_short += 1,
        }
    }
    assert!(cut_short > 0, "no creation was cut short");
    for turn in 0..40 {
        eventually("its name is free", || {
            let made = host.on(async |engine| engine.create(named(turn)).await);
            made.is_ok_and(|created| host.remove(&created.id).is_ok())
        });
    }
    // The secrets are out of memory, the folders gone.
    becomes(&before, || inventory(&host));
}

/// Everything of a boot is gone then, but the control groups of a host that is a container itself.
#[test]
fn a_host_that_went_down_without_a_note_of_a_start_leaves_nothing_of_it() {
    let mut host = Host::new();
    // Without a sandbox, which would tell of it.
    let id = host.create(guest_with(&["park"], |c| c.host.network_mode = NetworkMode::Host));
    let record = host.path("data/containers").join(&id).join("state.json");
    let made = fs::read(&record).unwrap();
    host.try_start(&id).unwrap();
    let pid = host.on(async |engine| engine.inspect(&id).unwrap().state.pid).expect("it runs");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let shim = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).unwrap().to_owned();
    host.kill_daemon();
    for pid in [pid.to_string(), shim] {
        let killed = std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
        assert!(killed.success(), "{pid}");
    }
    becomes(&vec![], || host.processes());
    fs::write(&record, made).unwrap();
    fs::remove_dir_all(host.path("run/c").join(&id)).unwrap();
    host.start_daemon();
    assert_eq!(host.on(async |engine| engine.inspect(&id).unwrap().state.status), Status::Created);
    becomes(&BTreeSet::new(), || host.cgroups());
    host.remove(&id).unwrap();
}

#[test]
fn a_container_whose_record_is_damaged_costs_itself_and_can_be_removed() {
    let mut host = Host::new();
    let whole = host.start(everything(&["park"]));
    let hurt = host.start(everything(&["park"]));
    let state = host.path("data/containers").join(&hurt).join("state.json");
    let record = fs::read(&state).unwrap();
    for damage in [&b""[..], &record[..20], b"\xff\x00", b"[]"] {
        host.kill_daemon();
        fs::write(&state, damage).unwrap();
        host.start_daemon();
        assert!(host.inspect(&whole).state.is_running());
        assert!(host.processes().len() >= 2, "both run on");
        let refused = host.on(async |engine| engine.remove(&hurt[..12], RemoveOptions::default()).await);
        assert!(refused.unwrap_err().to_string().contains("damaged"));
    }
    host.kill_daemon();
    fs::write(&state, &record).unwrap();
    host.start_daemon();
    assert!(host.inspect(&hurt).state.is_running(), "mended");

    host.kill_daemon();
    fs::write(&state, b"").unwrap();
    host.start_daemon();
    host.remove(&hurt[..12]).unwrap();
    host.remove(&whole).unwrap();
    becomes(&0, || fs::read_dir(host.path("data/containers")).unwrap().count());
    becomes(&0, || fs::read_dir(host.path("run/secrets")).unwrap().count());
    becomes(&Vec::<String>::new(), || host.processes());
}

#[test]
fn ended_container_holds_only_its_files() {
    let host = Host::new();
    let first = host.start(everything(&["exit:0"]));
    host.wait(&first);
    becomes(&vec!["docker0".to_owned(), "lo".to_owned()], || host.links());
    let mut before = inventory(&host);
    eventually("nothing is being written", || {
        before = inventory(&host);
        !before.files.iter().any(|file| file.ends_with(".new"))
    });
    host.try_start(&first).unwrap();
    host.wait(&first);
    becomes(&before, || inventory(&host));
}

/// What a daemon that was killed while it made or removed a container can leave.
#[test]
fn half_made_folders_are_gone_after_the_next_open() {
    let mut host = Host::new();
    let whole = host.create(guest_with(&["park"], |c| c.name = Some("whole".into())));
    let root = host.path("data/containers");
    let record = fs::read(root.join(&whole).join("state.json")).unwrap();
    host.kill_daemon();
    let id = |digit: &str| digit.repeat(64);
    for folder in ["a", "b", "c"] {
        fs::create_dir_all(root.join(id(folder)).join("upper/sub")).unwrap();
        fs::create_dir_all(root.join(id(folder)).join("work/work")).unwrap();
    }
    fs::write(root.join(id("b")).join("config.json"), "{}").unwrap();
    fs::write(root.join(id("c")).join("state.json"), record).unwrap();
    fs::write(root.join(id("c")).join("config.new"), "{").unwrap();
    fs::create_dir_all(root.join(format!(".removed-{}", id("d"))).join("upper")).unwrap();
    fs::create_dir_all(host.path("run/c").join(id("e"))).unwrap();
    fs::write(host.path("run/c").join(id("e")).join("plan"), "half").unwrap();
    fs::create_dir_all(host.path("run/secrets").join(id("f"))).unwrap();
    host.start_daemon();
    let left: Vec<_> = fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [whole.as_str()]);
    for folder in ["run/c", "run/secrets"] {
        assert_eq!(fs::read_dir(host.path(folder)).unwrap().count(), 0, "{folder}");
    }
    let status = host.inspect("whole").state.status;
    assert_eq!(status, Status::Created);
    host.try_start("whole").unwrap();
}

#[test]
fn container_whose_folder_is_gone_is_ended_and_swept() {
    let mut host = Host::new();
    let first = host.start(everything(&["park"]));
    host.remove(&first).unwrap();
    let before = at_rest(&host);
    let id = host.start(guest_with(&["park"], |c| c.host.network_mode = NetworkMode::Bridge));
    let pid = host.pid(&id);
    host.kill_daemon();
    fs::remove_dir_all(host.path("data/containers").join(&id)).unwrap();
    host.start_daemon();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    becomes(&before, || inventory(&host));
}

#[test]
fn record_of_a_run_without_a_trace_of_it_is_an_end() {
    let mut host = Host::new();
    let id = host.start(guest(&["park"]));
    let running = fs::read(host.path("data/containers").join(&id).join("state.json")).unwrap();
    host.on(async |engine| engine.kill(&id, None).await.unwrap());
    host.kill_daemon();
    fs::write(host.path("data/containers").join(&id).join("state.json"), running).unwrap();
    host.start_daemon();
    let state = &host.inspect(&id).state;
    assert_eq!((state.status, state.exit_code, state.pid), (Status::Exited, 137, None));
    host.try_start(&id).unwrap();
}

#[test]
fn run_that_was_never_noted_is_found() {
    let mut host = Host::new();
    let id = host.create(guest(&["park"]));
    let created = fs::read(host.path("data/containers").join(&id).join("state.json")).unwrap();
    host.try_start(&id).unwrap();
    let pid = host.pid(&id);
    host.kill_daemon();
    fs::write(host.path("data/containers").join(&id).join("state.json"), created).unwrap();
    host.start_daemon();
    let state = &host.inspect(&id).state;
    assert_eq!((state.status, state.pid), (Status::Running, Some(pid)));
}

#[test]
fn removal_that_was_cut_is_finished() {
    let mut host = Host::new();
    let id = host.create(guest(&["park"]));
    let path = host.path("data/containers").join(&id).join("state.json");
    host.kill_daemon();
    let record = fs::read_to_string(&path).unwrap();
    fs::write(&path, record.replace(r#""status":"created""#, r#""status":"removing""#)).unwrap();
    host.start_daemon();
    host.on(async |engine| assert!(matches!(engine.inspect(&id), Err(Error::NoSuchContainer(_)))));
}

#[test]
fn container_that_cannot_be_read_is_left_alone_and_does_not_keep_the_others_from_opening() {
    let mut host = Host::new();
    let id = host.start(guest(&["park"]));
    let other = host.create(guest(&["park"]));
    let pid = host.pid(&id);
    let path = host.path("data/containers").join(&id).join("state.json");
    let record = fs::read(&path).unwrap();
    host.kill_daemon();
    fs::write(&path, "{ not json").unwrap();
    host.start_daemon();
    assert_eq!(host.inspect(&other).state.status, Status::Created);
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "what cannot be read is not killed either");
    host.kill_daemon();
    fs::write(&path, record).unwrap();
    host.start_daemon();
    assert_eq!(host.pid(&id), pid, "once it can be read it is adopted");
}

#[test]
fn folder_that_cannot_be_removed_does_not_keep_the_engine_from_opening() {
    let mut host = Host::new();
    let id = host.create(guest(&["park"]));
    host.kill_daemon();
    let stuck = host.path("data/containers").join(format!(".removed-{}", "a".repeat(64))).join("upper");
    fs::create_dir_all(&stuck).unwrap();
    let _mounted = crate::inventory::mount_tmpfs(&stuck);
    host.start_daemon();
    assert_eq!(host.inspect(&id).state.status, Status::Created);
}

#[test]
fn made_container_that_removes_itself_is_gone_with_its_daemon() {
    let mut host = Host::new();
    let id = host.create(guest_with(&["park"], |c| c.host.auto_remove = true));
    host.kill_daemon();
    host.start_daemon();
    host.on(async |engine| assert!(matches!(engine.inspect(&id), Err(Error::NoSuchContainer(_)))));
}
