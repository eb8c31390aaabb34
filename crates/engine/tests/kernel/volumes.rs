//! Volumes, bind mounts, tmpfs.

use crate::kit::{self, Host, guest, guest_with};
use engine::{ContainerConfig, Error, Filters, Mount, MountKind, RemoveOptions, VolumeConfig};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

fn bound(steps: &[&str], binds: &[&str]) -> ContainerConfig {
    guest_with(steps, |c| c.host.binds = binds.iter().map(|&bind| bind.to_owned()).collect())
}

fn volume_names(host: &Host) -> Vec<String> {
    host.on(async |engine| engine.volumes(&Filters::default()).into_iter().map(|v| v.name).collect())
}

#[test]
fn named_volume_keeps_what_one_container_wrote_for_the_next() {
    let host = Host::new();
    let first = host.start(bound(&["write:/data/note=kept"], &["notes:/data"]));
    assert_eq!(host.wait(&first), 0);
    host.remove(&first).unwrap();
    assert_eq!(host.run(bound(&["read:/data/note"], &["notes:/data"])).stdout, "kept");
    assert_eq!(host.run(bound(&["write:/data/note=x"], &["notes:/data:ro"])).code, 9);
    assert_eq!(volume_names(&host), ["notes"]);
}

#[test]
fn new_volume_gets_the_images_content_and_a_used_one_is_left_alone() {
    let host = Host::new();
    let outcome = host.run(bound(&["read:/seed/file", "write:/seed/more=x"], &["seeds:/seed"]));
    assert_eq!((outcome.stdout.as_str(), outcome.code), ("from the image\n", 0));
    let root = host.on(async |engine| engine.volume("seeds").unwrap().mountpoint);
    let (folder, file) = (fs::metadata(&root).unwrap(), fs::metadata(root.join("file")).unwrap());
    assert_eq!((folder.permissions().mode() & 0o7777, file.permissions().mode() & 0o7777), (0o750, 0o640));
    let owner = if kit::squashed() { 0 } else { 33 };
    assert_eq!((folder.uid(), file.uid(), file.gid()), (owner, owner, owner));
    // At another place, with other content in the image.
    assert_eq!(host.run(bound(&["list:/work"], &["seeds:/work:ro"])).stdout, "file more\n");
}

#[test]
fn volume_stays_empty_if_asked() {
    let host = Host::new();
    assert_eq!(host.run(bound(&["list:/seed"], &["empty:/seed:nocopy"])).stdout, "\n");
}

fn make_tmpfs(host: &Host, name: &str) {
    let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,noexec")];
    let driver_opts = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let config = VolumeConfig { name: name.to_owned(), driver_opts, ..VolumeConfig::default() };
    host.on(async |engine| engine.volume_create(config).await.unwrap());
}

#[test]
fn filesystem_of_a_volume_is_mounted_while_containers_run_with_it_and_no_longer() {
    let mut host = Host::new();
    make_tmpfs(&host, "shared");
    let folder = host.on(async |engine| engine.volume("shared").unwrap().mountpoint);
    let mounted = || {
        fs::read_to_string("/proc/self/mounts").unwrap().contains(&format!(" {} tmpfs ", folder.display()))
    };
    let writer = host.start(bound(&["write:/data/note=seen by both", "park"], &["shared:/data:nocopy"]));
    kit::eventually("the note", || folder.join("note").exists());
    assert_eq!(host.run(bound(&["read:/data/note"], &["shared:/data"])).stdout, "seen by both");
    assert!(mounted(), "the first container still has it");
    host.kill_daemon();
    host.start_daemon();
    assert!(mounted(), "and still after its daemon");
    assert_eq!(host.run(bound(&["read:/data/note"], &["shared:/data"])).stdout, "seen by both");
    host.remove(&writer).unwrap();
    assert!(!mounted());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "it was in memory");
    assert_eq!(host.run(bound(&["list:/data"], &["shared:/data:nocopy"])).stdout, "\n");
}

#[test]
fn filesystem_that_cannot_be_mounted_is_an_error_that_names_it() {
    let host = Host::new();
    let options = [("type", "nosuchfs"), ("device", "/dev/null")];
    let driver_opts = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let config = VolumeConfig { name: "odd".to_owned(), driver_opts, ..VolumeConfig::default() };
    host.on(async |engine| engine.volume_create(config).await.unwrap());
    let id = host.create(bound(&["park"], &["odd:/data:nocopy"]));
    let error = host.try_start(&id).unwrap_err();
    let text = kit::chain(&error);
    assert!(text.contains("odd") && text.contains("nosuchfs"), "{text}");
}

#[test]
fn volume_in_use_is_not_removed() {
    let host = Host::new();
    let id = host.create(bound(&["park"], &["mine:/data"]));
    let remove = || host.on(async |engine| engine.volume_remove("mine", false).await);
    let error = remove().unwrap_err();
    assert!(matches!(&error, Error::VolumeInUse { containers, .. } if *containers == id), "{error}");
    host.remove(&id).unwrap();
    assert_eq!(volume_names(&host), ["mine"], "a named volume outlives its container");
    remove().unwrap();
    assert!(matches!(remove(), Err(Error::NoSuchVolume(_))));
}

#[test]
fn anonymous_volume_goes_with_its_container_only_if_asked() {
    let host = Host::new();
    let config = || guest_with(&["park"], |c| c.volumes = ["/data".into()].into());
    let (kept, gone) = (host.create(config()), host.create(config()));
    let names: Vec<String> =
        [&kept, &gone].iter().map(|id| host.inspect(id).mounts[0].name.clone()).collect();
    host.on(async |engine| {
        engine.remove(&kept, RemoveOptions::default()).await.unwrap();
        engine.remove(&gone, RemoveOptions { volumes: true, ..RemoveOptions::default() }).await.unwrap();
    });
    assert_eq!(volume_names(&host), names[..1]);
}

#[test]
fn volumes_of_another_container_are_shared() {
    let host = Host::new();
    let first =
        host.create(guest_with(&["write:/data/note=shared"], |c| c.volumes = ["/data".into()].into()));
    let from = |mode: &str| format!("{first}{mode}");
    host.try_start(&first).unwrap();
    host.wait(&first);
    let read =
        guest_with(&["read:/data/note", "write:/data/other=x"], |c| c.host.volumes_from = vec![from("")]);
    assert_eq!(host.run(read).stdout, "shared");
    let refused = guest_with(&["write:/data/note=x"], |c| c.host.volumes_from = vec![from(":ro")]);
    assert_eq!(host.run(refused).code, 9);
}

#[test]
fn container_that_cannot_be_made_leaves_no_volume() {
    let host = Host::new();
    let made_for_nothing = |change: fn(&mut ContainerConfig)| {
        let config = guest_with(&["park"], |c| {
            c.volumes.insert("/seed".into());
            c.name = Some("again".into());
            change(c);
        });
        let error = host.try_create(config).unwrap_err();
        assert_eq!(volume_names(&host), [""; 0], "{error}");
        let folders = fs::read_dir(host.path("data/containers")).unwrap().count();
        assert_eq!(folders, 0, "{error}");
    };
    made_for_nothing(|c| c.host.log.driver = "parchment".into());
    made_for_nothing(|c| {
        c.host.mounts = vec![bind_mount("/nowhere", false)];
    });
    made_for_nothing(|c| c.host.volumes_from = vec!["nobody".into()]);
    made_for_nothing(|c| c.image = "nothing".into());
    made_for_nothing(|c| {
        c.host.resources.memory_bytes = 1;
    });
}

fn bind_mount(source: &str, read_only: bool) -> Mount {
    let kind = MountKind::Bind {
        source: source.into(),
        propagation: None,
        create: false,
        recursion: model::BindRecursion::Enabled,
        idmap: false,
    };
    Mount { target: "/there".into(), read_only, kind }
}

#[test]
fn bind_mount_shows_the_hosts_files_and_refuses_writes_if_read_only() {
    let host = Host::new();
    let shared = host.shared();
    fs::write(host.path("shared/a"), "of the host\n").unwrap();
    let outcome = host.run(bound(&["read:/shared/a", "write:/shared/b=of the guest"], &[&shared]));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "of the host\n"));
    assert_eq!(fs::read_to_string(host.path("shared/b")).unwrap(), "of the guest");

    let outcome = host.run(bound(&["read:/shared/a", "write:/shared/c=x"], &[&format!("{shared}:ro")]));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (9, "of the host\n"));
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);

    let mount = bind_mount(host.path("shared").to_str().unwrap(), true);
    let outcome = host.run(guest_with(&["write:/there/c=x"], |c| c.host.mounts = vec![mount]));
    assert!(outcome.code == 9 && outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    assert!(!host.path("shared/c").exists());
}

#[test]
fn mounts_below_a_bind_come_along_as_asked() {
    use model::BindRecursion::{Disabled, Enabled, ReadOnly, Writable};
    let host = Host::new();
    host.shared();
    let below = kit::Disk::new(&host.path("shared/below"), 1 << 20);
    fs::write(host.path("shared/below/file"), "below").unwrap();
    let run = |recursion, read_only, step: &str| {
        let mut mount = bind_mount(host.path("shared").to_str().unwrap(), read_only);
        if let MountKind::Bind { recursion: wanted, .. } = &mut mount.kind {
            *wanted = recursion;
        }
        let outcome = host.run(guest_with(&[step], |c| c.host.mounts = vec![mount]));
        (outcome.code, outcome.stdout)
    };
    assert_eq!(run(Enabled, false, "list:/there/below"), (0, "file\n".into()));
    assert_eq!(run(Disabled, false, "list:/there/below"), (0, "\n".into()), "the folder under it");
    for recursion in [Enabled, ReadOnly] {
        assert_eq!(run(recursion, true, "write:/there/below/new=x").0, 9, "{recursion:?}");
    }
    assert_eq!(run(Writable, true, "write:/there/below/new=x").0, 0);
    assert_eq!(run(Writable, true, "write:/there/new=x").0, 9);
    drop(below);
    assert!(!host.path("shared/below/new").exists(), "it was written into the mount");
}

#[test]
fn missing_source_is_made_for_a_bind_and_refused_for_a_mount() {
    let host = Host::new();
    let source = host.path("new/folder");
    host.run(bound(&["write:/data/a=x"], &[&format!("{}:/data", source.display())]));
    assert!(source.join("a").exists());
    let missing = host.path("missing");
    let mount = bind_mount(missing.to_str().unwrap(), false);
    let error = host.try_create(guest_with(&["park"], |c| c.host.mounts = vec![mount])).unwrap_err();
    assert!(error.to_string().contains("bind source path does not exist"), "{error}");
    assert!(!missing.exists());
}

#[test]
fn tmpfs_is_new_at_each_start_and_never_on_disk() {
    let host = Host::new();
    let steps = ["list:/scratch", "write:/scratch/a=x", "read:/proc/self/mounts"];
    let id = host.create(guest_with(&steps, |c| {
        drop(c.host.tmpfs.insert("/scratch".into(), "size=1m,mode=1770".into()));
    }));
    for run in 1..=2 {
        host.try_start(&id).unwrap();
        assert_eq!(host.wait(&id), 0);
        let said = host.logs(&id).0;
        let lists = said.lines().filter(|line| line.is_empty()).count();
        assert_eq!(lists, run, "it is empty at each start: {said}");
        let mount = said.lines().find(|line| line.contains(" /scratch tmpfs ")).expect("it is mounted");
        assert!(mount.contains("size=1024k") && mount.contains("mode=1770"), "{mount}");
    }
    let upper = host.path("data/containers").join(&id).join("upper");
    assert!(!upper.join("scratch/a").exists());
    let full = guest_with(&["write:/scratch/a=x"], |c| {
        c.host.mounts = vec![Mount {
            target: "/scratch".into(),
            read_only: true,
            kind: MountKind::Tmpfs { size_bytes: Some(1 << 20), mode: None },
        }];
    });
    assert_eq!(host.run(full).code, 9);
}

#[test]
fn read_only_root_refuses_writes_but_not_in_its_volumes() {
    let host = Host::new();
    let steps = ["write:/data/a=x", "say:volume", "write:/work/a=x"];
    let outcome = host.run(guest_with(&steps, |c| {
        c.host.read_only = true;
        c.host.binds = vec!["free:/data".into()];
    }));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (9, "volume\n"));
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
}

#[test]
fn own_files_stay_over_a_restart_and_go_with_the_container() {
    let host = Host::new();
    let id = host.create(guest(&["append:/work/log=x", "read:/work/log"]));
    for said in ["x\n", "x\nx\nx\n"] {
        host.try_start(&id).unwrap();
        host.wait(&id);
        assert_eq!(host.logs(&id).0, said);
    }
}

#[test]
fn volume_of_a_folder_of_the_host_is_that_folder() {
    let host = Host::new();
    host.shared();
    let device = host.path("shared").display().to_string();
    let options = [("type", "none"), ("o", "bind"), ("device", &device)];
    let config = VolumeConfig {
        name: "device".into(),
        driver_opts: options.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..VolumeConfig::default()
    };
    host.on(async |engine| engine.volume_create(config).await.unwrap());
    host.run(bound(&["write:/data/a=x"], &["device:/data"]));
    assert!(host.path("shared/a").exists());
}

fn image_mount(reference: &str, target: &str, subpath: Option<&str>) -> Mount {
    let kind = MountKind::Image { reference: reference.into(), subpath: subpath.map(str::to_owned) };
    Mount { target: target.into(), read_only: false, kind }
}

#[test]
fn an_images_files_are_seen_at_a_path_and_the_image_stays_while_they_are() {
    let mut host = Host::new();
    host.image("tools:1", &[], |tar| {
        for (path, text) in [("share/doc/one", "first"), ("share/two", "second")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
    });
    let mounts = [
        image_mount("tools:1", "/tools", None),
        image_mount("tools:1", "/doc", Some("share/doc")),
        image_mount("tools:1", "/file", Some("share/two")),
    ];
    let steps = ["read:/tools/share/doc/one", "read:/doc/one", "read:/file", "write:/doc/new=x"];
    let id = host.create(guest_with(&steps, |c| c.host.mounts = mounts.into()));
    let mounted = host.inspect(&id).mounts.clone();
    assert!(mounted.iter().all(|m| m.kind.as_str() == "image" && m.name == "tools:1" && !m.writable));
    // Held beside the container's own image, over a restart of the daemon too.
    for _ in 0..2 {
        let refused = host.on(async |engine| engine.images().remove("tools:1", false).await.unwrap_err());
        assert!(refused.to_string().contains(&id[..12]), "{refused}");
        host.kill_daemon();
        host.start_daemon();
    }
    host.try_start(&id).unwrap();
    // Nothing can be written there.
    assert_ne!(host.wait(&id), 0);
    assert_eq!(host.logs(&id).0, "firstfirstsecond");
    host.remove(&id).unwrap();
    host.on(async |engine| engine.images().remove("tools:1", false).await.unwrap());

    let refused = |mount: Mount| {
        host.try_create(guest_with(&["read:/x"], |c| c.host.mounts = vec![mount])).unwrap_err().to_string()
    };
    assert!(refused(image_mount("tools:1", "/x", None)).contains("No such image: tools:1"));
    let missing = refused(image_mount(kit::IMAGE, "/x", Some("no/such")));
    assert!(missing.contains("cannot access path no/such: no such file or directory"), "{missing}");
    assert!(host.on(async |engine| engine.images().holders().await).is_empty(), "held for nobody");
}
