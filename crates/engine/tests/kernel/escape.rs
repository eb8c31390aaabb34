//! Attempts of containers, and of images and volumes that somebody hostile has made, to reach the host: each test is
//! one way in that a container engine has had. They fail when something outside has changed or was seen.

use crate::kit::{GUEST, Host, Outcome, chain, guest_with};
use engine::{ContainerConfig, Error, ExecConfig, ExecStart, Mount, MountKind};
use std::{
    fs,
    io::Cursor,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};
use tokio::io::AsyncReadExt;

/// How often a race is run.
const ROUNDS: usize = 15;
const SECRET: &str = "the host's secret";

/// A host with a folder that no container is given. Looks at the end whether it is as it was.
struct Target {
    host: Host,
    outside: PathBuf,
}

impl Target {
    fn new() -> Self {
        let host = Host::new();
        let outside = host.path("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), SECRET).unwrap();
        fs::set_permissions(outside.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        Self { host, outside }
    }

    fn outside(&self) -> String {
        self.outside.display().to_string()
    }

    #[track_caller]
    fn is_untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.outside).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"], "files were made outside");
        let secret = self.outside.join("secret");
        assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
        let mode = |path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&secret), mode(&self.outside)), (0o600, 0o755), "modes were changed outside");
    }

    /// Runs a container; `None` = the engine refuses to.
    #[track_caller]
    fn attempt(&self, config: ContainerConfig) -> Option<Outcome> {
        let id = self.host.try_create(config).ok()?.id;
        let outcome = self.host.try_start(&id).ok().map(|()| {
            let code = self.host.wait(&id);
            let (stdout, stderr) = self.host.logs(&id);
            Outcome { code, stdout, stderr }
        });
        self.host.remove(&id).unwrap();
        if let Some(outcome) = &outcome {
            assert!(!outcome.stdout.contains("secret"), "the outside was seen: {}", outcome.stdout);
        }
        outcome
    }
}

/// Files that are masked, of those that this kernel has.
fn masked_files() -> Vec<&'static str> {
    let mut files =
        vec!["/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug"];
    files.retain(|path| fs::exists(path).unwrap());
    assert!(!files.is_empty(), "this kernel has nothing to mask");
    files
}

fn of_image(image: &str, steps: &[&str]) -> ContainerConfig {
    guest_with(steps, |c| c.image = image.into())
}

fn link(tar: &mut tar::Builder<Vec<u8>>, path: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_link(&mut header, path, target).unwrap();
}

fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, path, content).unwrap();
}

// ---- images ----

#[test]
fn links_in_place_of_the_kernels_folders_do_not_lead_out() {
    let target = Target::new();
    let relative = format!("../../../../../../..{}", target.outside());
    for folder in ["proc", "sys", "dev", "etc"] {
        for (n, to) in
            [&target.outside(), &relative, "/work", "/proc/self/fd", "/proc/1/root"].iter().enumerate()
        {
            let image = format!("{folder}{n}");
            target.host.image(&image, &[], |tar| link(tar, folder, to));
            let masked = format!("kind:{}", masked_files()[0]);
            let ran = target.attempt(of_image(&image, &["kind:/dev/null", &masked]));
            target.is_untouched();
            match (folder, ran) {
                // CVE-2019-19921: where these are decides what the runtime itself believes.
                ("proc" | "sys", ran) => assert_eq!(ran, None, "{folder} -> {to}"),
                (_, Some(ran)) if *to == "/work" => {
                    assert_eq!(ran.stdout, "char 1:3\nchar 1:3\n", "{folder}")
                }
                _ => {}
            }
        }
    }
}

/// CVE-2025-31133: what covers a masked path is the host's null device, whatever the image has at its name.
#[test]
fn masked_paths_stay_masked_whatever_the_images_null_device_is() {
    let target = Target::new();
    target.host.image("link", &[], |tar| link(tar, "dev/null", "/work"));
    target.host.image("file", &[], |tar| file(tar, "dev/null", b"text"));
    let volume = ["VOLUME /dev"];
    target.host.image("volume-link", &volume, |tar| link(tar, "dev/null", "/work"));
    target.host.image("volume-file", &volume, |tar| file(tar, "dev/null", b"text"));
    for image in ["link", "file", "volume-link", "volume-file"] {
        let masked: Vec<String> = masked_files().iter().map(|path| format!("kind:{path}")).collect();
        let masked: Vec<&str> = masked.iter().map(String::as_str).collect();
        let ran = target.attempt(guest_with(&masked, |c| {
            c.image = image.into();
            c.open_stdin = true;
        }));
        let nulls = "char 1:3\n".repeat(masked.len());
        assert!(ran.as_ref().is_none_or(|ran| ran.stdout == nulls), "{image}: {ran:?}");
        // With ours over the image's there is nothing to refuse.
        assert!(ran.is_some() || image.starts_with("volume"), "{image}");
    }
}

/// The runtime opens the null device of the container for streams that nobody wants; its name must not lead to a
/// descriptor of the runtime.
#[test]
fn a_link_for_a_null_device_gives_no_descriptor_of_the_runtime() {
    let target = Target::new();
    for n in 3..24 {
        let image = format!("fd{n}");
        target
            .host
            .image(&image, &["VOLUME /dev"], |tar| link(tar, "dev/null", &format!("/proc/self/fd/{n}")));
        if let Some(ran) = target.attempt(of_image(&image, &["descriptors:self"])) {
            assert_only_streams(&ran.stdout);
        }
    }
}

// ---- volumes ----

/// CVE-2021-30465.
#[test]
fn mounts_below_a_volume_stay_in_the_container_while_its_content_is_exchanged() {
    let target = Target::new();
    let attacker = target.host.start(guest_with(
        &[
            "make:/data/a",
            &format!("link:/data/b={}", target.outside()),
            "say:ready",
            "swap:/data/a=/data/b",
            "park",
        ],
        |c| c.host.binds = vec!["evil:/data".into()],
    ));
    target.host.until_said(&attacker, "ready\n");
    for _ in 0..ROUNDS {
        target.attempt(guest_with(&["list:/data/a", "write:/data/a/new=x", "list:/data/a/sub"], |c| {
            c.host.binds = vec!["evil:/data".into(), "other:/data/a".into()];
            drop(c.host.tmpfs.insert("/data/a/sub".into(), String::new()));
        }));
        target.is_untouched();
    }
}

/// CVE-2017-1002101.
#[test]
fn subpath_that_became_a_link_does_not_lead_out_of_its_volume() {
    let target = Target::new();
    let of_volume = |steps: &[&str]| guest_with(steps, |c| c.host.binds = vec!["evil:/data".into()]);
    let with_subpath = || {
        let kind = MountKind::Volume {
            name: Some("evil".into()),
            driver: None,
            driver_opts: Default::default(),
            labels: Default::default(),
            no_copy: false,
            subpath: Some("a/sub".into()),
        };
        guest_with(&["list:/there", "write:/there/new=x"], |c| {
            c.host.mounts = vec![Mount { target: "/there".into(), read_only: false, kind }];
        })
    };
    assert_eq!(target.host.run(of_volume(&["make:/data/a/sub", "write:/data/a/sub/own=x"])).code, 0);
    let victim = target.host.create(with_subpath());
    target.host.try_start(&victim).unwrap();
    target.host.wait(&victim);
    assert_eq!(target.host.logs(&victim).0, "own\n");
    // Between two starts.
    let outside = target.outside();
    let link = format!("link:/data/a/sub={outside}");
    assert_eq!(target.host.run(of_volume(&["rename:/data/a/sub=/data/a/was", &link])).code, 0);
    let started = target.host.try_start(&victim);
    if started.is_ok() {
        target.host.wait(&victim);
    }
    target.is_untouched();
    assert!(!target.host.logs(&victim).0.contains("secret"), "{started:?}");
    // While it starts.
    let swaps =
        ["remove:/data/a/sub", "rename:/data/a/was=/data/a/sub", &format!("link:/data/a/was={outside}")];
    let swaps = [&swaps[..], &["say:ready", "swap:/data/a/sub=/data/a/was", "park"]].concat();
    let attacker = target.host.start(of_volume(&swaps));
    target.host.until_said(&attacker, "ready\n");
    for _ in 0..ROUNDS {
        target.attempt(with_subpath());
        target.is_untouched();
    }
}

/// In Docker's words: its CLI tells by them which exit code to end with.
#[test]
fn subpath_is_a_path_below_its_volume_that_is_there() {
    let target = Target::new();
    let host = &target.host;
    let made = guest_with(&["make:/data/a"], |c| c.host.binds = vec!["vol:/data".into()]);
    assert_eq!(host.run(made).code, 0);
    let start = |subpath: &str| {
        let kind = MountKind::Volume {
            name: Some("vol".into()),
            driver: None,
            driver_opts: Default::default(),
            labels: Default::default(),
            no_copy: false,
            subpath: Some(subpath.into()),
        };
        let config = guest_with(&["list:/there"], |c| {
            c.host.mounts = vec![Mount { target: "/there".into(), read_only: false, kind }];
        });
        let made = host.try_create(config).map_err(|error| error.to_string())?;
        host.try_start(&made.id).map_err(|error| error.to_string())
    };
    for outside in ["/a", "..", "a/../../vol", "/"] {
        let refused = start(outside).expect_err(outside);
        assert!(
            refused.contains("subpath must be a relative path within the volume"),
            "{outside}: {refused}"
        );
    }
    let missing = start("a/nothing").unwrap_err();
    assert!(
        missing.contains("cannot access path ") && missing.ends_with("a/nothing: no such file or directory"),
        "{missing}"
    );
    start("a").unwrap();
}

/// A new volume is filled by the engine, as root of the host, while other containers may have it.
#[test]
fn filling_a_volume_with_an_images_content_follows_no_link_that_a_container_makes() {
    let target = Target::new();
    target.host.image("seeds", &[], |tar| {
        for n in 0..200 {
            file(tar, &format!("seed/sub/{n}"), b"of the image");
        }
    });
    for round in 0..ROUNDS {
        let volume = format!("evil{round}");
        let ambush = format!("ambush:/data/sub={}", target.outside());
        let attacker = target.host.start(guest_with(&[&ambush, "say:ready", "park"], |c| {
            c.host.binds = vec![format!("{volume}:/data")];
        }));
        target.host.until_said(&attacker, "ready\n");
        target.attempt(guest_with(&["list:/seed"], |c| {
            c.image = "seeds".into();
            c.host.binds = vec![format!("{volume}:/seed")];
        }));
        target.host.remove(&attacker).unwrap();
        target.is_untouched();
    }
}

// ---- descriptors of the runtime ----

/// Of what a program inherits, only its three streams are there.
#[track_caller]
fn assert_only_streams(descriptors: &str) {
    let numbers: Vec<_> = descriptors.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{descriptors}");
    for line in descriptors.lines() {
        let to = line.split_once(' ').map(|(_, to)| to).unwrap_or_default();
        assert!(
            to.starts_with("pipe:[") || to == "/dev/null" || to.starts_with("/dev/pts/"),
            "{descriptors}"
        );
    }
}

#[test]
fn programs_inherit_their_streams_and_nothing_else() {
    let target = Target::new();
    for init in [false, true] {
        let id = target.host.start(guest_with(&["descriptors:self", "park"], |c| c.host.init = Some(init)));
        target.host.until(&id, "it runs", |now| now.state.is_running());
        crate::kit::eventually("it said so", || target.host.logs(&id).0.lines().count() >= 3);
        assert_only_streams(&target.host.logs(&id).0);
        let exec = target.host.exec(&id, &[GUEST, "descriptors:self"], "").unwrap();
        assert_only_streams(&exec.stdout);
        // The first process is the guest, whose own descriptors are not files, or our init, which lets nobody look.
        let first = target.host.exec(&id, &[GUEST, "descriptors:1"], "").unwrap();
        let path = |line: &&str| line.contains(" /") && !line.ends_with(" /dev/null");
        assert_eq!(first.stdout.lines().find(path), None, "init {init}");
        assert!(first.code == 0 || init, "{}", first.stderr);
    }
}

/// CVE-2024-21626.
#[test]
fn working_directory_among_the_runtimes_descriptors_is_refused() {
    let target = Target::new();
    let running = target.host.start(guest_with(&["park"], |_| {}));
    for n in 3..32 {
        let folder = format!("/proc/self/fd/{n}");
        let config =
            guest_with(&["folder", "list:..", "list:../../.."], |c| c.working_dir = Some(folder.clone()));
        if let Some(ran) = target.attempt(config) {
            assert!(ran.stdout.starts_with("/\n"), "{folder}: {ran:?}");
        }
        let cmd = [GUEST, "folder"].map(str::to_owned).to_vec();
        let config = ExecConfig { cmd, working_dir: Some(folder.clone()), ..ExecConfig::default() };
        if let Ok(ran) = target.host.exec_with(&running, config, "") {
            assert_eq!(ran.stdout, "/\n", "{folder}: {ran:?}");
        }
    }
}

/// CVE-2019-5736.
#[test]
fn the_runtimes_program_cannot_be_overwritten() {
    let target = Target::new();
    let shim = || fs::read(env!("CARGO_BIN_EXE_engine-shim")).unwrap();
    let before = shim();
    target.host.image("evil", &[], |tar| {
        file(tar, "bin/script", b"#!/proc/self/exe\n");
        link(tar, "bin/link", "/proc/self/exe");
    });
    let hunter = target.host.start(of_image("evil", &["hunt", "say:ready", "park"]));
    target.host.until_said(&hunter, "ready\n");
    for _ in 0..ROUNDS {
        for program in ["/bin/script", "/bin/link", "/proc/self/exe"] {
            // Whether it runs, as what is of no use to anybody, does not matter.
            drop(target.host.exec(&hunter, &[program, "/work"], ""));
        }
    }
    assert_eq!(target.host.logs(&hunter).0, "ready\n");
    assert!(before == shim(), "the runtime's program was overwritten");
    assert_eq!(target.host.exec(&hunter, &[GUEST, "say:still here"], "").unwrap().stdout, "still here\n");
}

/// Docker opens `/dev/null` of the container again; a name that leads to a descriptor must not be opened.
#[test]
fn exec_does_not_open_what_a_container_has_put_in_place_of_its_null_device() {
    let target = Target::new();
    target.host.image("evil", &[], |tar| link(tar, "dev", "/work/dev"));
    let steps = ["rename:/dev=/dev.was", "make:/dev", "say:ready", "park"];
    let id = target.host.start(guest_with(&steps, |c| {
        c.image = "evil".into();
        c.open_stdin = true;
    }));
    target.host.until_said(&id, "ready\n");
    for n in 3..24 {
        let link = format!("link:/dev/null.{n}=/proc/self/fd/{n}");
        let place = format!("rename:/dev/null.{n}=/dev/null");
        assert_eq!(target.host.exec(&id, &[GUEST, &link, &place], "").unwrap().code, 0);
        let ran: Result<String, Error> = target.host.on(async |engine| {
            let cmd = [GUEST, "descriptors:self"].map(str::to_owned).to_vec();
            let config = ExecConfig { cmd, attach_stdout: true, ..ExecConfig::default() };
            let exec = engine.exec_create(&id, config).await?;
            let streams = engine.exec_start(&exec, ExecStart::default()).await?;
            Ok(crate::kit::converse(streams, "").await.0)
        });
        match ran {
            Ok(said) => assert_only_streams(&said),
            Err(error) => assert!(chain(&error).contains("/dev/null"), "{}", chain(&error)),
        }
    }
}

// ---- devices ----

#[test]
fn the_hosts_device_nodes_keep_their_modes() {
    let target = Target::new();
    let mode = |name: &str| fs::metadata(format!("/dev/{name}")).unwrap().mode() & 0o7777;
    let names = ["null", "zero", "full", "random", "urandom", "tty"];
    let before = names.map(mode);
    for path in ["/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", masked_files()[0], "/dev/null"] {
        let ran = target.attempt(guest_with(&[&format!("mode:{path}=604")], |_| {}));
        let after = names.map(mode);
        for ((name, was), _) in names.iter().zip(before).zip(after).filter(|((_, was), is)| was != is) {
            fs::set_permissions(format!("/dev/{name}"), fs::Permissions::from_mode(was)).unwrap();
        }
        assert_eq!(before, after, "{path}: {ran:?}");
    }
}

#[test]
fn devices_are_read_and_written_all_the_same() {
    let target = Target::new();
    let steps = ["write:/dev/null=x", "append:/dev/zero=x", "read:/dev/null", "append:/dev/tty=x"];
    let ran = target.attempt(guest_with(&steps, |c| c.tty = true)).unwrap();
    assert_eq!((ran.code, ran.stdout.trim()), (0, "x"), "{ran:?}");
}

// ---- copies ----

/// CVE-2018-15664.
#[test]
fn copies_stay_in_a_container_that_exchanges_files_meanwhile() {
    let target = Target::new();
    let id = target.host.start(guest_with(
        &[
            "make:/work/a",
            "write:/work/a/secret=x",
            &format!("link:/work/b={}", target.outside()),
            "say:ready",
            "swap:/work/a=/work/b",
            &format!("plant:/work/a/planted={}/secret", target.outside()),
            &format!("plant:/tmp/planted={}/secret", target.outside()),
            "park",
        ],
        |_| {},
    ));
    target.host.until_said(&id, "ready\n");
    let mut tar = tar::Builder::new(Vec::new());
    for _ in 0..20 {
        file(&mut tar, "planted", &[7; 100_000]);
        file(&mut tar, "deep/planted", b"x");
    }
    let tar = tar.into_inner().unwrap();
    for _ in 0..ROUNDS {
        for folder in ["/work/a", "/work/b", "/tmp"] {
            target.host.on(async |engine| {
                // Most of them fail: what is in the way changes all the time.
                drop(
                    engine
                        .archive_put(&id, folder, Cursor::new(tar.clone()), engine::PutOptions::default())
                        .await,
                );
            });
            target.is_untouched();
        }
        for path in ["/work/a/secret", "/work/a/", "/work/b/secret", "/work", "/tmp/planted"] {
            let seen = target.host.on(async |engine| {
                let mut seen = Vec::new();
                if let Ok((_, mut tar)) = engine.archive_get(&id, path).await {
                    drop(tar.read_to_end(&mut seen).await);
                }
                seen
            });
            let seen = String::from_utf8_lossy(&seen);
            assert!(!seen.contains(SECRET), "the host's file came out through {path}");
        }
    }
}

/// No escape, but the end of a daemon whose stack or descriptors end first.
#[test]
fn folders_nested_without_end_do_no_harm() {
    let target = Target::new();
    let id = target.host.start(guest_with(&["nest:/work=20000", "say:ready", "park"], |_| {}));
    target.host.until_said(&id, "ready\n");
    target.host.on(async |engine| {
        let mut tar = Vec::new();
        engine.archive_get(&id, "/work").await.unwrap().1.read_to_end(&mut tar).await.unwrap_err();
        engine.export(&id).await.unwrap().read_to_end(&mut tar).await.unwrap_err();
        engine.size(&id).await.unwrap();
    });
    target.host.remove(&id).unwrap();
    let left = || fs::read_dir(target.host.path("data/containers")).unwrap().count();
    crate::kit::eventually("its files are gone", || left() == 0);
}

/// Whoever shares the memory of a container gets what that container has at its place.
#[test]
fn shared_memory_that_a_container_has_replaced_by_a_link_does_not_lead_out() {
    let target = Target::new();
    let of =
        |owner: &str, steps: &[&str]| guest_with(steps, |c| c.host.ipc_mode = format!("container:{owner}"));
    let honest = target.host.start(guest_with(&["write:/dev/shm/a=shared", "say:ready", "park"], |c| {
        c.host.ipc_mode = "shareable".into();
    }));
    target.host.until_said(&honest, "ready\n");
    assert_eq!(target.host.run(of(&honest, &["read:/dev/shm/a"])).stdout, "shared");

    target.host.image("evil", &[], |tar| link(tar, "dev", "/work/dev"));
    let link = format!("link:/dev/shm={}", target.outside());
    let evil = target.host.start(guest_with(
        &["rename:/dev=/dev.was", "make:/dev", &link, "say:ready", "park"],
        |c| {
            c.image = "evil".into();
            c.open_stdin = true;
            c.host.ipc_mode = "shareable".into();
        },
    ));
    target.host.until_said(&evil, "ready\n");
    let ran = target.attempt(of(&evil, &["list:/dev/shm", "write:/dev/shm/new=x"]));
    target.is_untouched();
    assert!(ran.is_none(), "{ran:?}");
}
