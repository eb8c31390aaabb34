//! Files in and out of a container that is down: what it would see, mounts and all.

use crate::kit::{Host, guest, guest_with};
use engine::{Error, PutOptions, VolumeConfig};
use std::{collections::BTreeMap, fs, io::Cursor};
use tokio::io::AsyncReadExt as _;

fn tar_of(name: &str, content: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

/// Puts a file into a folder of a container.
fn put(host: &Host, id: &str, folder: &str, name: &str, content: &str) -> Result<(), Error> {
    host.on(async |engine| {
        engine.archive_put(id, folder, Cursor::new(tar_of(name, content)), PutOptions::default()).await
    })
}

/// Returns the files at a path of a container: their names in the tar, and what is in them.
fn get(host: &Host, id: &str, path: &str) -> BTreeMap<String, String> {
    let tar = host.on(async |engine| {
        let mut tar = Vec::new();
        engine.archive_get(id, path).await.unwrap().1.read_to_end(&mut tar).await.unwrap();
        tar
    });
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let mut content = String::new();
            std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
    }
    files
}

fn one(name: &str, content: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), content.to_owned())].into()
}

#[test]
fn volumes_are_where_they_would_be() {
    let host = Host::new();
    fs::create_dir(host.path("of-the-host")).unwrap();
    fs::write(host.path("of-the-host/known"), "to both").unwrap();
    let bind = format!("{}:/vol/inner:ro", host.path("of-the-host").display());
    let id = host.create(guest_with(&["read:/vol/new", "write:/vol/made=inside"], |c| {
        c.volumes = ["/vol".to_owned()].into();
        c.host.binds = vec![bind];
    }));
    put(&host, &id, "/vol", "new", "from outside\n").unwrap();
    assert_eq!(get(&host, &id, "/vol/inner"), one("inner/known", "to both"));
    let refused = put(&host, &id, "/vol/inner", "x", "").unwrap_err().to_string();
    assert!(refused.contains("read-only"), "{refused}");

    host.try_start(&id).unwrap();
    assert_eq!(host.wait(&id), 0);
    assert_eq!(host.logs(&id).0, "from outside\n");
    assert_eq!(get(&host, &id, "/vol/made"), one("made", "inside"));
    let all = get(&host, &id, "/vol");
    assert_eq!(all.keys().collect::<Vec<_>>(), ["vol/inner/known", "vol/made", "vol/new"]);
    let changes = host.on(async |engine| engine.changes(&id).await.unwrap());
    assert!(changes.iter().all(|change| !change.path.starts_with("/vol")), "{changes:?}");

    // What the host has no more is in nobody's way.
    fs::remove_dir_all(host.path("of-the-host")).unwrap();
    assert_eq!(get(&host, &id, "/vol/made"), one("made", "inside"));

    // Nothing of it stays mounted on the host.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&host.path("").display().to_string()), "{mounts}");
}

#[test]
fn a_filesystem_of_a_volume_is_there_and_goes_again() {
    let host = Host::new();
    let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let config = VolumeConfig {
        name: "memory".into(),
        driver_opts: [option("type", "tmpfs"), option("device", "tmpfs")].into(),
        ..VolumeConfig::default()
    };
    host.on(async |engine| engine.volume_create(config).await.unwrap());
    let id = host.create(guest_with(&["park"], |c| c.host.binds = vec!["memory:/m".into()]));
    put(&host, &id, "/m", "gone", "soon").unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&host.path("").display().to_string()), "{mounts}");
    assert_eq!(get(&host, &id, "/m"), BTreeMap::new(), "a new filesystem each time");
}

#[test]
fn a_root_that_is_read_only_takes_files_in_its_volumes_alone() {
    let host = Host::new();
    let id = host.create(guest_with(&["read:/vol/a"], |c| {
        c.volumes = ["/vol".to_owned()].into();
        c.host.read_only = true;
    }));
    assert!(put(&host, &id, "/", "a", "").unwrap_err().to_string().contains("read-only"));
    put(&host, &id, "/vol", "a", "b").unwrap();
    host.try_start(&id).unwrap();
    assert_eq!((host.wait(&id), host.logs(&id).0.as_str()), (0, "b"));
}

#[test]
fn what_is_put_in_is_the_users_if_asked() {
    let host = Host::new();
    let id = host.create(guest_with(&["park"], |c| c.user = Some("web".into())));
    host.on(async |engine| {
        for (name, of_the_user) in [("mine", true), ("as-it-was", false)] {
            let options = PutOptions { of_the_user, ..PutOptions::default() };
            engine.archive_put(&id, "/tmp", Cursor::new(tar_of(name, "")), options).await.unwrap();
        }
        let mut tar = Vec::new();
        engine.archive_get(&id, "/tmp").await.unwrap().1.read_to_end(&mut tar).await.unwrap();
        for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
            let header = entry.unwrap().header().clone();
            let name = header.path().unwrap().display().to_string();
            let mine = name.ends_with("mine") && !crate::kit::squashed();
            if header.entry_type().is_file() {
                assert_eq!(header.uid().unwrap(), if mine { 33 } else { 0 }, "{name}");
            }
        }
    });
}

#[test]
fn the_files_of_etc_are_there_before_the_first_start_and_what_docker_has_beside_them() {
    let host = Host::new();
    let id = host.create(guest(&["read:/.dockerenv", "list:/etc"]));
    for name in ["hosts", "hostname", "resolv.conf"] {
        assert_eq!(get(&host, &id, &format!("/etc/{name}")), one(name, ""));
    }
    assert_eq!(get(&host, &id, "/.dockerenv"), one(".dockerenv", ""));
    let mtab = host.on(async |engine| engine.archive_stat(&id, "/etc/mtab").await.unwrap());
    assert_eq!(mtab.link_target, "/proc/mounts");
    assert_eq!(host.on(async |engine| engine.changes(&id).await.unwrap()), []);
    host.try_start(&id).unwrap();
    host.wait(&id);
    let hosts = get(&host, &id, "/etc/hosts");
    assert!(hosts["hosts"].contains("localhost"), "{hosts:?}");
    assert_eq!(host.on(async |engine| engine.changes(&id).await.unwrap()), []);
}

#[test]
fn a_container_that_ends_while_it_is_committed_is_committed() {
    let host = Host::new();
    for _ in 0..5 {
        let id = host.start(guest(&["write:/made=here"]));
        host.on(async |engine| {
            // Without a cgroup of its own it cannot be paused.
            let pause = !crate::kit::squashed();
            let options = engine::CommitOptions { pause, ..engine::CommitOptions::default() };
            let image = engine.commit(&id, options).await.unwrap();
            let image = engine.images().find(&image.to_string()).await.unwrap();
            assert_eq!(image.config.container, id);
        });
        host.wait(&id);
    }
}

#[test]
fn what_is_no_folder_takes_no_archive() {
    let host = Host::new();
    let id = host.create(guest(&["park"]));
    put(&host, &id, "/", "file", "content").unwrap();
    let refused = |path: &str| put(&host, &id, path, "x", "").unwrap_err().kind();
    assert_eq!(refused("/file"), engine::ErrorKind::InvalidParameter);
    assert_eq!(refused("/nothing"), engine::ErrorKind::NotFound);
}

#[test]
fn what_a_commit_is_given_goes_before_what_the_container_says() {
    let host = Host::new();
    let id = host.create(guest_with(&["park"], |c| {
        c.env = vec!["KEPT=1".into(), "MINE=old".into()];
        c.labels = [("kept".into(), "1".into())].into();
    }));
    let asked = engine::ContainerConfig {
        cmd: Some(vec!["other".into()]),
        env: vec!["MINE=new".into()],
        labels: [("mine".into(), "2".into())].into(),
        ..engine::ContainerConfig::default()
    };
    let options = engine::CommitOptions { config: Some(Box::new(asked)), ..engine::CommitOptions::default() };
    let image = host.on(async |engine| {
        let image = engine.commit(&id, options).await.unwrap();
        engine.images().find(&image.to_string()).await.unwrap()
    });
    let config = &image.config.config;
    assert_eq!(config.cmd, ["other"]);
    assert!(config.env.starts_with(&["MINE=new".to_owned(), "KEPT=1".to_owned()]), "{:?}", config.env);
    assert_eq!(config.labels.keys().collect::<Vec<_>>(), ["kept", "mine"]);
}

#[test]
fn files_of_images_are_where_they_would_be() {
    let host = Host::new();
    // Of two layers, and a folder that is in both.
    let first = host.create(guest(&["park"]));
    put(&host, &first, "/", "one", "first").unwrap();
    let commit = |id: &str, name: &str| {
        let reference = Some(name.parse().unwrap());
        let options = engine::CommitOptions { reference, ..engine::CommitOptions::default() };
        host.on(async |engine| engine.commit(id, options).await.unwrap());
    };
    commit(&first, "layers:1");
    let mount = |target: &str, subpath: Option<&str>| {
        let kind =
            engine::MountKind::Image { reference: "layers:1".into(), subpath: subpath.map(str::to_owned) };
        engine::Mount { target: target.into(), read_only: false, kind }
    };
    let mounts = vec![mount("/seen", None), mount("/file", Some("one"))];
    let id = host.create(guest_with(&["read:/seen/one"], |c| c.host.mounts = mounts));
    assert_eq!(get(&host, &id, "/seen/one"), one("one", "first"));
    assert_eq!(get(&host, &id, "/file"), one("file", "first"));
    let below = get(&host, &id, "/seen/seed/file");
    assert_eq!(below, one("file", "from the image\n"), "the layer below is seen too");
    let refused = put(&host, &id, "/seen", "new", "").unwrap_err().to_string();
    assert!(refused.contains("read-only"), "{refused}");
    host.try_start(&id).unwrap();
    assert_eq!(host.wait(&id), 0);
    assert_eq!(host.logs(&id).0, "first");
    assert_eq!(get(&host, &id, "/seen/one"), one("one", "first"));
}

#[test]
fn a_start_waits_until_a_copy_out_of_the_container_has_ended() {
    let host = Host::new();
    let id = host.create(guest(&["park"]));
    put(&host, &id, "/", "large", &"x".repeat(4 << 20)).unwrap();
    host.on(async |engine| {
        let (_, mut copy) = engine.archive_get(&id, "/large").await.unwrap();
        let mut start = std::pin::pin!(engine.start(&id));
        let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut start).await;
        assert!(early.is_err(), "two mounts have its files");
        let mut tar = Vec::new();
        copy.read_to_end(&mut tar).await.unwrap();
        start.await.unwrap();
    });
    // What is put into it while it runs is what it has.
    put(&host, &id, "/", "large", "small").unwrap();
    assert_eq!(get(&host, &id, "/large"), one("large", "small"));
}

#[test]
fn a_stop_that_comes_while_a_container_is_being_started_ends_it() {
    let host = Host::new();
    let id = host.create(guest(&["park"]));
    put(&host, &id, "/", "large", &"x".repeat(4 << 20)).unwrap();
    host.on(async |engine| {
        // A start waits for whoever copies.
        let (_, mut copy) = engine.archive_get(&id, "/large").await.unwrap();
        let start = tokio::time::timeout(std::time::Duration::from_millis(300), engine.start(&id)).await;
        assert!(start.is_err(), "it is under way, and nobody waits for it any more");
        assert_eq!(engine.watch(&id).unwrap().borrow().state.status, engine::Status::Created);
        let now = engine::StopOptions { signal: None, timeout: Some(std::time::Duration::ZERO) };
        let mut stop = std::pin::pin!(engine.stop(&id, now));
        let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut stop).await;
        assert!(early.is_err(), "there is nothing to stop yet");
        copy.read_to_end(&mut Vec::new()).await.unwrap();
        stop.await.unwrap();
        let status = engine.watch(&id).unwrap().borrow().state.status;
        assert_eq!(status, engine::Status::Exited);
    });
}

#[test]
fn an_export_of_what_is_down_has_nothing_of_its_mounts() {
    let host = Host::new();
    let id = host.create(guest_with(&["park"], |c| c.host.binds = vec!["vol:/volumes/data".into()]));
    let tar = host.on(async |engine| {
        let mut tar = Vec::new();
        engine.export(&id).await.unwrap().read_to_end(&mut tar).await.unwrap();
        tar
    });
    let mut archive = tar::Archive::new(&tar[..]);
    let paths: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
    assert!(paths.iter().any(|path| path.ends_with(".dockerenv")), "{paths:?}");
    assert!(!paths.iter().any(|path| path.to_string_lossy().contains("volumes")), "{paths:?}");
}
