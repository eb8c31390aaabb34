//! Containers with a user namespace of their own: root in them is an ordinary user of the host.

use crate::kit::{self, Fixture, bind};
use runtime::{
    IdMap, IdRange, UserNamespace,
    config::{
        LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, PosixRlimit,
        PosixRlimitType, User,
    },
};
use rustix::process::geteuid;
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
};

const ROOT: u32 = 100_000;

fn map() -> IdMap {
    let ranges = vec![IdRange { inside: 0, outside: ROOT, count: 65_536 }];
    IdMap { uids: ranges.clone(), gids: ranges }
}

fn mappings() -> Vec<LinuxIdMapping> {
    vec![LinuxIdMapping { container_id: 0, host_id: ROOT, size: 65_536 }]
}

/// With a user namespace of its own, which the shim makes or, with `path`, finds.
fn remapped(fixture: Fixture, path: Option<&Path>) -> Fixture {
    fixture.spec(|spec| {
        let linux = spec.linux.as_mut().unwrap();
        let user = LinuxNamespace { kind: LinuxNamespaceType::User, path: path.map(Path::to_owned) };
        linux.namespaces.as_mut().unwrap().push(user);
        linux.uid_mappings = Some(mappings());
        linux.gid_mappings = Some(mappings());
    })
}

/// An ordinary user cannot map ids of others.
fn is_root() -> bool {
    geteuid().is_root() && !kit::squashed()
}

#[test]
fn root_of_the_container_is_an_ordinary_user_of_the_host() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::guest(&[
        "read:/proc/self/uid_map",
        "user",
        "owner:/bin/guest",
        "owner:/etc/passwd",
        "permissions:/made",
        "write:/new=",
        "write:/host/new=",
        "write:/mapped/new=",
        "make:/dir",
        "owner:/host",
        "owner:/mapped",
        "owner:/mapped/old",
        "owner:/new",
        "remove:/bin/not-a-program",
        "try:write:/secret/x=x",
        "hostname",
        "kind:/dev/mine",
        "permissions:/dev/mine",
        "owner:/dev/mine",
        "permissions:/dev/null",
        "owner:/dev/null",
        "permissions:/dev/tty",
        "owner:/dev/tty",
        "write:/dev/null=x",
        "first:/dev/mine=3",
        "read:/proc/sys/kernel/shmmax",
        "processes",
        "list:/sys/class/net",
        "owner:/dev/shm",
        "owner:/proc/self/fd/1",
        "try:mount:/tmp",
    ]);
    fs::write(fixture.lower().join("made"), "").unwrap();
    chown(fixture.lower().join("etc/passwd"), Some(33), Some(44)).unwrap();
    let (host, mapped, secret) = ("host", "mapped", "secret");
    for (name, mode) in [(host, 0o777), (mapped, 0o700), (secret, 0o700)] {
        let dir = fixture.temp.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    }
    let dir = fixture.temp.path().to_owned();
    fs::write(dir.join("mapped/old"), "").unwrap();
    chown(dir.join("mapped/old"), Some(7), Some(7)).unwrap();
    let fixture = remapped(fixture, None).spec(|spec| {
        let mounts = spec.mounts.as_mut().unwrap();
        mounts.push(bind(dir.join(host), "/host", &["rbind"]));
        mounts.push(bind(dir.join(mapped), "/mapped", &["rbind", "ridmap"]));
        mounts.push(bind(dir.join(secret), "/secret", &["rbind"]));
        spec.hostname = Some("remapped".into());
        let linux = spec.linux.as_mut().unwrap();
        linux.sysctl = Some([("kernel.shmmax".to_owned(), "4096".to_owned())].into());
        let mine = LinuxDevice {
            path: "/dev/mine".into(),
            kind: LinuxDeviceType::C,
            major: 1,
            minor: 5,
            file_mode: Some(0o600),
            uid: Some(0),
            gid: Some(7),
        };
        linux.devices = Some(vec![mine]);
    });
    let (status, output) = fixture.run();
    let expected = "         0     100000      65536\n0:0\n0:0 /bin/guest\n33:44 /etc/passwd\n644\n\
        65534:65534 /host\n0:0 /mapped\n7:7 /mapped/old\n0:0 /new\nPermission denied\nremapped\n\
        char 1:5\n600\n0:7 /dev/mine\n666\n0:0 /dev/null\n666\n0:0 /dev/tty\n3\n4096\n1\nlo\n\
        0:0 /dev/shm\n0:0 /proc/self/fd/1\nOperation not permitted\n";
    assert_eq!(output, expected);
    assert_eq!(status.code, 0, "{output}");
    let owner = |path: &str| fs::symlink_metadata(dir.join(path)).unwrap().uid();
    assert_eq!(owner("host/new"), ROOT, "on a bind mount the host sees who made it");
    for path in ["mapped/new", "upper/new", "upper/dir", "upper/bin/not-a-program"] {
        assert_eq!(owner(path), 0, "{path}: on the disk is what the container sees");
    }
}

#[test]
fn further_processes_terminals_and_an_init_are_in_it_too() {
    if !is_root() {
        return;
    }
    let fixture = remapped(Fixture::parked(), None).with(|plan| plan.init = true).process(|p| {
        let limit = PosixRlimit { kind: PosixRlimitType::RlimitNofile, soft: files_max(), hard: files_max() };
        p.rlimits = Some(vec![limit]);
        p.oom_score_adj = Some(500);
    });
    let mut shim = fixture.start();
    let map = fs::read_to_string(format!("/proc/{}/uid_map", shim.pid())).unwrap();
    assert_eq!(map.split_ascii_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    let owner = fs::metadata(format!("/proc/{}", shim.pid())).unwrap().uid();
    assert!([0, ROOT].contains(&owner), "{owner}");
    let steps = [
        "read:/proc/self/uid_map",
        "read:/proc/self/oom_score_adj",
        "user",
        "target:/proc/self/ns/user",
        "read:/proc/1/cmdline",
        "append:/proc/self/fd/1=",
        "read:/proc/self/limits",
    ];
    let (code, output) = kit::exec(&mut shim, "one", kit::steps(&fixture.plan, &steps)).unwrap();
    assert_eq!(code, 0, "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].contains("100000") && lines[1] == "500", "{output}");
    let namespace = fs::read_link(format!("/proc/{}/ns/user", shim.pid())).unwrap();
    assert_eq!((lines[2], lines[3]), ("0:0", namespace.to_str().unwrap()));
    // What is left of the room for a longer one is empty.
    assert_eq!(lines[4].trim_end_matches('\0'), "/sbin/docker-init\0--\0guest\0park");
    let limit = lines.iter().find(|line| line.starts_with("Max open files")).unwrap();
    let soft_and_hard = limit.split_ascii_whitespace().skip(3).take(2);
    assert!(soft_and_hard.eq([files_max().to_string().as_str(); 2]), "{limit}");

    let mut web = kit::steps(&fixture.plan, &["user", "append:/dev/stdout=x", "tty"]);
    web.user = User { uid: 33, gid: 33, ..User::default() };
    web.terminal = Some(true);
    let (code, output) = kit::exec(&mut shim, "web", web.clone()).unwrap();
    assert_eq!((code, output.as_str()), (0, "33:33\r\nx\r\n/dev/pts/0\r\n"));
    web.user = User { uid: 65_536, ..User::default() };
    let refused = kit::exec(&mut shim, "nobody", web).unwrap_err();
    assert!(kit::chain(&refused).contains("user 65536 is not among the ids"), "{}", kit::chain(&refused));
    shim.signal(libc_kill(), true).unwrap();
    kit::wait(&mut shim);
    shim.shutdown().unwrap();
}

fn libc_kill() -> i32 {
    rustix::process::Signal::KILL.as_raw()
}

/// As many descriptors as can be had here: more than this process's own takes a right that a test may lack.
fn files_max() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    let raises = runtime::held_caps().contains(runtime::Capability::SysResource);
    limit.maximum.filter(|_| !raises).unwrap_or(most)
}

#[test]
fn namespaces_made_before_are_owned_by_its_root() {
    if !is_root() {
        return;
    }
    let mut users = UserNamespace::new(kit::program(), &map(), true).unwrap();
    let temp = tempfile::tempdir().unwrap();
    users.try_map(temp.path()).expect("this filesystem has idmapped mounts");
    let trial = temp.path().join("trial");
    runtime::try_layers(kit::program(), &map(), &trial).expect("overlayfs takes them as layers");
    assert!(!trial.exists());
    users.try_map(Path::new("/proc")).expect_err("that of /proc has not");
    let network = users.take_network().unwrap();
    use std::os::fd::AsRawFd as _;
    let netns = format!("/proc/{}/fd/{}", std::process::id(), network.as_raw_fd());
    for with_maps in [true, false] {
        let steps = [
            "read:/proc/sys/net/ipv4/ip_default_ttl",
            "read:/proc/self/uid_map",
            "list:/sys/class/net",
            "owner:/sys/class/net/lo/",
        ];
        let fixture = remapped(Fixture::guest(&steps), Some(&users.path())).spec(|spec| {
            let linux = spec.linux.as_mut().unwrap();
            for namespace in linux.namespaces.as_mut().unwrap() {
                if namespace.kind == LinuxNamespaceType::Network {
                    namespace.path = Some(netns.clone().into());
                }
            }
            if !with_maps {
                (linux.uid_mappings, linux.gid_mappings) = (None, None);
            }
            linux.sysctl = Some([("net.ipv4.ip_default_ttl".to_owned(), "7".to_owned())].into());
        });
        let (status, output) = fixture.run();
        let expected = "7\n         0     100000      65536\nlo\n0:0 /sys/class/net/lo/\n";
        assert_eq!((status.code, output.as_str()), (0, expected));
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_name_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let refused = |change: &dyn Fn(&mut runtime::config::Spec), words: &str| {
        let fixture = remapped(Fixture::guest(&[]), None).spec(|spec| change(spec));
        let error = kit::chain(&fixture.create().unwrap_err());
        assert!(error.contains(words), "{words}: {error}");
    };
    let linux = |spec: &mut runtime::config::Spec| spec.linux.clone().unwrap();
    refused(
        &|spec| {
            let mut changed = linux(spec);
            (changed.uid_mappings, changed.gid_mappings) = (None, None);
            spec.linux = Some(changed);
        },
        "linux.uidMappings",
    );
    refused(
        &|spec| {
            let mut changed = linux(spec);
            changed.namespaces.as_mut().unwrap().retain(|n| n.kind != LinuxNamespaceType::User);
            spec.linux = Some(changed);
        },
        "without a user namespace",
    );
    refused(
        &|spec| {
            let mut changed = linux(spec);
            let user = changed.namespaces.as_mut().unwrap().last_mut().unwrap();
            user.path = Some("/proc/self/ns/user".into());
            spec.linux = Some(changed);
        },
        "is the host's",
    );
    refused(
        &|spec| {
            let mut mount = bind(Path::new("/tmp"), "/x", &["rbind"]);
            mount.uid_mappings = Some(mappings());
            spec.mounts.as_mut().unwrap().push(mount);
        },
        "mappings of its own",
    );
    // /proc has no idmapped mounts.
    refused(
        &|spec| spec.mounts.as_mut().unwrap().push(bind(Path::new("/proc"), "/x", &["rbind", "idmap"])),
        "no idmapped mounts",
    );
    let alone = Fixture::guest(&[])
        .spec(|spec| spec.mounts.as_mut().unwrap().push(bind(Path::new("/tmp"), "/x", &["rbind", "idmap"])));
    assert!(kit::chain(&alone.create().unwrap_err()).contains("has no user namespace"));
}
