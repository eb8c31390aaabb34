//! What a container cannot do and see.

use crate::kit::{self, Fixture, bind};
use runtime::config::{
    LinuxCapabilities, LinuxNamespace, LinuxNamespaceType, LinuxSeccomp, LinuxSeccompAction, LinuxSyscall,
    Mount, PosixRlimit, PosixRlimitType, Root,
};
use std::{collections::BTreeMap, fs, os::unix::fs::symlink};

#[test]
fn capabilities_are_dockers_default() {
    let output = Fixture::guest(&["read:/proc/self/status"]).run().1;
    let field = |name: &str| {
        let line = output
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name} in {output}"));
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    for set in ["CapBnd", "CapEff", "CapPrm", "CapInh"] {
        assert_eq!(field(set), "00000000a80425fb", "{set}");
    }
    assert_eq!(field("CapAmb"), "0000000000000000");
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("0".into(), "2".into()));
    assert_eq!(field("SigIgn"), "0000000000000000", "no signal is ignored");
    assert_eq!(field("SigBlk"), "0000000000000000", "no signal is blocked");
}

#[test]
fn capabilities_can_be_dropped_and_no_new_privileges_kept() {
    let fixture = Fixture::guest(&["read:/proc/self/status"]).process(|process| {
        process.capabilities = Some(LinuxCapabilities::default());
        process.no_new_privileges = Some(true);
    });
    let output = fixture.run().1;
    assert!(output.contains("CapBnd:\t0000000000000000") && output.contains("NoNewPrivs:\t1"), "{output}");
    assert!(output.contains("Seccomp:\t2"), "{output}");
}

#[test]
fn seccomp_denies_namespaces_and_mounts() {
    let (status, output) = Fixture::guest(&["try:unshare:user", "try:unshare:mount", "try:mount:/tmp"]).run();
    assert_eq!(status.code, 0);
    let said: Vec<_> = output.lines().collect();
    assert_eq!(said[..2], ["Operation not permitted"; 2]);
    // AppArmor has its own word for it.
    assert!(["Operation not permitted", "Permission denied"].contains(&said[2]), "{output}");
}

/// Allows all but these.
fn all_but<'a>(names: impl IntoIterator<Item = &'a str>, errno_ret: Option<u32>) -> LinuxSeccomp {
    let denied = LinuxSyscall {
        names: names.into_iter().map(str::to_owned).collect(),
        action: LinuxSeccompAction::ScmpActErrno,
        errno_ret,
        args: None,
    };
    LinuxSeccomp {
        default_action: LinuxSeccompAction::ScmpActAllow,
        default_errno_ret: None,
        architectures: None,
        flags: None,
        syscalls: Some(vec![denied]),
    }
}

#[test]
fn own_seccomp_profile_is_obeyed() {
    let profile = all_but(["mkdir", "mkdirat"], Some(38));
    let fixture = Fixture::guest(&["try:make:/tmp/x"]).spec(|spec| {
        spec.linux.as_mut().unwrap().seccomp = Some(profile.into());
    });
    assert_eq!(fixture.run().1, "Function not implemented\n");
}

#[test]
fn a_profile_may_deny_what_prepares_the_program() {
    // What runc too can do without once the filter is there; and with no_new_privs, all but execve.
    let before = "close_range dup3 fcntl chdir setgroups setresgid setresuid setuid setgid prctl umask setsid \
                  rt_sigaction prlimit64 personality";
    for (no_new_privs, more) in [(false, ""), (true, "capset capget seccomp")] {
        let names = before.split_ascii_whitespace().chain(more.split_ascii_whitespace());
        let profile = all_but(names, None);
        let fixture = Fixture::guest(&["read:/proc/self/status"])
            .spec(|spec| {
                spec.linux.as_mut().unwrap().seccomp = Some(profile.into());
            })
            .process(|process| {
                process.no_new_privileges = Some(no_new_privs);
            });
        let (status, output) = fixture.run();
        assert_eq!(status.code, 0, "{output}");
        let bit = u8::from(no_new_privs);
        // Docker's fourteen: the privilege that installed the filter is gone.
        for line in ["CapEff:\t00000000a80425fb", &format!("NoNewPrivs:\t{bit}"), "Seccomp:\t2"] {
            assert!(output.lines().any(|l| l == line), "{line}: {output}");
        }
    }
}

#[test]
fn masked_paths_are_empty_and_proc_is_read_only() {
    let steps = [
        "length:/proc/keys",
        "length:/proc/timer_list",
        "list:/sys/firmware",
        "try:write:/proc/sys/kernel/panic=1",
        "try:write:/proc/irq/default_smp_affinity=1",
        "try:write:/sys/x=",
    ];
    let output = Fixture::guest(&steps).run().1;
    let refused = "Read-only file system";
    assert_eq!(output.lines().collect::<Vec<_>>(), ["0", "0", "", refused, refused, refused]);
}

#[test]
fn read_only_root_refuses_writes_but_not_to_mounts() {
    let root = Root { path: "rootfs".into(), readonly: Some(true) };
    let fixture = Fixture::guest(&["try:write:/x=", "try:write:/dev/shm/y="]).spec(|spec| {
        spec.root = Some(root);
    });
    assert_eq!(fixture.run().1, "Read-only file system\nok\n");
}

#[test]
fn bind_mounts_are_placed_read_only_or_not() {
    let fixture =
        Fixture::guest(&["read:/in/file", "try:write:/in/new=", "try:write:/out/new=", "read:/one"]);
    let host = fixture.temp.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "hello\n").unwrap();
    let source = host.to_str().unwrap().to_owned();
    let fixture = fixture.spec(|spec| {
        let mounts = spec.mounts.as_mut().unwrap();
        mounts.push(bind(&source, "/in", &["rbind", "ro"]));
        mounts.push(bind(&source, "/out", &["rbind", "rprivate"]));
        mounts.push(bind(format!("{source}/file"), "/one", &["bind"]));
    });
    assert_eq!(fixture.run().1, "hello\nRead-only file system\nok\nhello\n");
    assert!(host.join("new").exists());
}

#[test]
fn tmpfs_has_its_options() {
    let mount = Mount {
        destination: "/scratch/deep".into(),
        kind: Some("tmpfs".to_owned()),
        source: Some("tmpfs".into()),
        options: Some(["noexec", "size=64k", "mode=1700"].map(str::to_owned).to_vec()),
        ..Mount::default()
    };
    let fixture = Fixture::guest(&["permissions:/scratch/deep", "try:fill:/scratch/deep/x=102400"]);
    let output = fixture.spec(|spec| spec.mounts.as_mut().unwrap().push(mount)).run().1;
    assert_eq!(output, "1700\nNo space left on device\n");
}

#[test]
fn symlinked_mount_target_cannot_escape() {
    let fixture = Fixture::guest(&[]);
    let outside = fixture.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "x").unwrap();
    symlink(&outside, fixture.lower().join("absolute")).unwrap();
    symlink("../../../../../../..", fixture.lower().join("up")).unwrap();
    let source = fixture.temp.path().join("host");
    fs::create_dir(&source).unwrap();
    let source = source.to_str().unwrap().to_owned();
    let inside = format!("/up{}", outside.display());
    let fixture = fixture.spec(|spec| {
        let mounts = spec.mounts.as_mut().unwrap();
        mounts.push(bind(&source, "/absolute/made", &["rbind"]));
        mounts.push(bind(&source, &format!("{inside}/made"), &["rbind"]));
    });
    assert_eq!(fixture.run().0.code, 0);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was made outside");
    // It was made inside instead, where the link's text leads from the container's root.
    let upper = fixture.temp.path().join("upper");
    assert!(upper.join(outside.strip_prefix("/").unwrap()).join("made").is_dir());
}

#[test]
fn proc_cannot_be_a_link_or_be_covered() {
    let fixture = Fixture::guest(&[]);
    fs::remove_dir(fixture.lower().join("proc")).unwrap();
    symlink("/tmp", fixture.lower().join("proc")).unwrap();
    let error = fixture.create().unwrap_err().to_string();
    assert!(error.starts_with(r#"error mounting "proc" to rootfs at "/proc""#), "{error}");

    let fixture = Fixture::guest(&[])
        .spec(|spec| spec.mounts.as_mut().unwrap().push(bind("/tmp", "/proc/sys", &["rbind"])));
    let error = fixture.create().unwrap_err().to_string();
    assert!(error.contains("inside /proc"), "{error}");
}

#[test]
fn host_is_not_visible() {
    let steps = ["list:/", "list:/proc/self/fd", "target:/proc/self/cwd", "read:/proc/1/environ"];
    let output = Fixture::guest(&steps).run().1;
    let lines: Vec<_> = output.lines().collect();
    // It holds the folder itself open.
    assert_eq!(lines[..3], ["bin dev etc proc sys tmp var", "0 1 2 3", "/"], "{output}");
    assert!(output.contains("PATH=") && !output.contains("CARGO"), "{output}");
}

#[test]
fn devices_and_links_are_there() {
    let steps = [
        "kind:/dev/null",
        "kind:/dev/zero",
        "kind:/dev/full",
        "kind:/dev/random",
        "kind:/dev/urandom",
        "write:/dev/null=x",
        "first:/dev/zero=3",
        "target:/dev/fd",
        "target:/dev/stdin",
        "target:/dev/ptmx",
        "list:/dev/pts",
        "list:/dev/mqueue",
        "permissions:/dev/shm",
        "try:write:/dev/full=y",
        "list:/sys/fs/cgroup",
    ];
    let (status, output) = Fixture::guest(&steps).run();
    // Numbers. *Source:* kernel Documentation/admin-guide/devices.txt.
    let expected = "char 1:3\nchar 1:5\nchar 1:7\nchar 1:8\nchar 1:9\n3\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n\
        ptmx\n\n1777\nNo space left on device\n";
    assert!(status.code == 0 && output.starts_with(expected), "{output}");
}

#[test]
fn sysctls_and_rlimits_are_set() {
    let steps = [
        "read:/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "read:/proc/sys/kernel/shmmax",
        "read:/proc/self/limits",
    ];
    let fixture = Fixture::guest(&steps)
        .spec(|spec| {
            let sysctls = BTreeMap::from([
                ("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()),
                ("kernel.shmmax".to_owned(), "12345678".to_owned()),
            ]);
            spec.linux.as_mut().unwrap().sysctl = Some(sysctls);
        })
        .process(|process| {
            let limit = PosixRlimit { kind: PosixRlimitType::RlimitNofile, soft: 100, hard: 200 };
            process.rlimits = Some(vec![limit]);
        });
    let output = fixture.run().1;
    assert!(output.starts_with("0\n12345678\n"), "{output}");
    let limit = output.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(limit.split_ascii_whitespace().collect::<Vec<_>>()[3..5], ["100", "200"]);
}

/// The last gate: whoever wrote the spec.
#[test]
fn sysctls_of_the_host_are_refused_whatever_the_bundle_says() {
    let refused = |fixture: Fixture, name: &str| {
        let sysctl = BTreeMap::from([(name.to_owned(), "|/bin/false".to_owned())]);
        let fixture = fixture.spec(|spec| {
            spec.linux.as_mut().unwrap().sysctl = Some(sysctl);
        });
        let error = kit::chain(&fixture.create().map(drop).expect_err(name));
        assert!(error.contains(name), "{error}");
    };
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for name in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "net/../kernel/core_pattern",
        "kernel.hostname",
        "vm.overcommit_memory",
    ] {
        refused(Fixture::guest(&[]), name);
    }
    refused(Fixture::guest(&[]).without_namespace(LinuxNamespaceType::Ipc), "kernel.shmmax");
    refused(Fixture::guest(&[]).without_namespace(LinuxNamespaceType::Network), "net.core.somaxconn");
    let joined = Fixture::guest(&[]).without_namespace(LinuxNamespaceType::Network).spec(|spec| {
        let kind = LinuxNamespaceType::Network;
        let host = LinuxNamespace { kind, path: Some("/proc/self/ns/net".into()) };
        spec.linux.as_mut().unwrap().namespaces.as_mut().unwrap().push(host);
    });
    refused(joined, "net.core.somaxconn");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

#[test]
fn labels_that_cannot_be_applied_are_refused() {
    let fixture = Fixture::guest(&[]).process(|p| {
        p.selinux_label = Some("system_u:x".into());
    });
    assert!(kit::chain(&fixture.create().map(drop).unwrap_err()).contains("selinuxLabel"));
    if !runtime::apparmor_enabled() {
        let fixture = Fixture::guest(&[]).process(|p| {
            p.apparmor_profile = Some("strict".into());
        });
        assert!(kit::chain(&fixture.create().map(drop).unwrap_err()).contains("apparmor is not enabled"));
    }
}

#[test]
fn oom_score_is_not_the_shims() {
    assert_eq!(Fixture::guest(&["read:/proc/self/oom_score_adj"]).run().1, "0\n");
}

#[test]
fn shim_program_cannot_be_written() {
    let fixture = Fixture::parked();
    let shim = fixture.start();
    let error = fs::OpenOptions::new().write(true).open(format!("/proc/{}/exe", shim.shim_pid()));
    // Busy, or open but sealed.
    if let Ok(mut file) = error {
        std::io::Write::write_all(&mut file, b"x").unwrap_err();
    }
    shim.shutdown().unwrap();
    assert_eq!(runtime::read_exit(&fixture.plan.dir).map(|status| status.code), Some(137));
    kit::eventually("it is gone", || runtime::Shim::connect(&fixture.plan.dir).is_err());
}

#[test]
fn init_shows_dockers_command_line_and_no_path_of_the_host() {
    let steps = ["read:/proc/1/cmdline", "try:target:/proc/1/exe", "try:target:/proc/1/cwd", "environment"];
    let fixture = Fixture::guest(&steps).with(|plan| plan.init = true);
    let dir = fixture.plan.dir.display().to_string();
    let output = fixture.run().1.replace('\0', "|");
    assert!(output.starts_with("/sbin/docker-init|--|guest|read:/proc/1/cmdline|"), "{output}");
    assert!(output.contains("\nPATH=") && !output.contains(&dir), "{output}");
}

#[test]
fn init_cannot_be_looked_into() {
    let steps =
        ["try:read:/proc/1/environ", "try:read:/proc/1/mem", "try:target:/proc/1/exe", "try:list:/proc/1/fd"];
    let output = Fixture::guest(&steps).with(|plan| plan.init = true).run().1;
    assert_eq!(output, "Permission denied\nPermission denied\nPermission denied\n0 1 2\nok\n");
}
