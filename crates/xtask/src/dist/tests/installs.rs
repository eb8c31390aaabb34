//! install.sh on a host: what it does, does again, refuses and takes away.

use super::{
    Packed,
    hosts::{Host, Mounted},
    packed,
};
use std::fs;

const PROGRAM: &str = "usr/local/bin/rswarm";
const UNIT: &str = "usr/local/lib/systemd/system/rswarm.service";

/// Returns a host with the release in `/tmp/release`.
fn host(packed: &Packed) -> Host {
    let host = Host::new();
    host.bring(&packed.folder, "tmp/release");
    host
}

#[test]
fn a_release_is_installed_upgraded_and_taken_away() {
    let packed = packed();
    let host = host(&packed);
    let said = host.run(&["sh", "/tmp/release/install.sh"]).ok();
    assert!(said.contains("systemd does not run here, so nothing was started"), "{said}");
    assert!(said.lines().all(|line| line.starts_with("install.sh: ")), "{said}");
    host.run(&["rswarm", "--version"]).ok();
    assert_eq!([host.mode(PROGRAM), host.mode(UNIT), host.mode("etc/rswarm")], [0o755, 0o644, 0o755]);
    assert_eq!(host.mode("var/lib/rswarm"), 0o710);
    assert!(host.read("etc/group").contains("\nrswarm:"));
    assert!(host.read(UNIT).contains(&format!("ExecStart=/{PROGRAM} daemon\n")));
    for path in
        ["etc/rswarm/daemon.toml", "etc/apparmor.d/docker-default", "usr/local/share/man/man1/rswarm.1"]
    {
        assert!(host.path(path).exists(), "{path}");
    }

    // Twice is as once, but for what an operator has changed.
    let once = host.changes();
    host.run_with(&[("RSWARM_FROM", "/tmp/release")], &["sh", "/usr/local/share/rswarm/install.sh"]).ok();
    host.is_as(&once, "the second time");
    host.write("etc/rswarm/daemon.toml", "mtu = 1400\n", 0o600);
    host.write("usr/local/share/man/man1/rswarm-old.1", "of an older release", 0o644);
    let noted = host.read("usr/local/share/rswarm/installed");
    let old = format!("{noted}{}  /usr/local/share/man/man1/rswarm-old.1\n", "0".repeat(64));
    host.write("usr/local/share/rswarm/installed", &old, 0o644);
    let newer = Packed::of("a newer one");
    host.bring(&newer.folder, "tmp/newer");
    let said = host.run(&["sh", "/tmp/release/install.sh", "file:///tmp/newer/"]).ok();
    assert!(said.contains("/etc/rswarm/daemon.toml is kept as it is"), "{said}");
    assert!(host.run(&["rswarm", "--version"]).ok().contains("a newer one"));
    assert_eq!(
        (host.read("etc/rswarm/daemon.toml").as_str(), host.mode("etc/rswarm/daemon.toml")),
        ("mtu = 1400\n", 0o600)
    );
    assert!(!host.path("usr/local/share/man/man1/rswarm-old.1").exists(), "the newer one has no such page");

    host.write("var/lib/rswarm/volumes/kept", "data", 0o600);
    let said = host.run(&["sh", "/usr/local/share/rswarm/install.sh", "--uninstall"]).ok();
    assert!(said.contains("/etc/rswarm/daemon.toml is kept: it was changed"), "{said}");
    for path in [
        PROGRAM,
        UNIT,
        "usr/local/share/rswarm",
        "usr/local/share/man/man1/rswarm.1",
        "etc/apparmor.d/docker-default",
    ] {
        assert!(!host.path(path).exists(), "{path}");
    }
    assert_eq!(host.read("var/lib/rswarm/volumes/kept"), "data");
    let said = host.run(&["sh", "/tmp/release/install.sh", "--uninstall"]).fails();
    assert!(said.contains("nothing is installed by this"), "{said}");
    host.run(&["sh", "/tmp/release/install.sh", "--uninstall", "--purge"]).ok();
    for path in ["etc/rswarm", "var/lib/rswarm"] {
        assert!(!host.path(path).exists(), "{path}");
    }
    assert!(!host.read("etc/group").contains("rswarm"));
}

#[test]
fn the_daemon_is_started_with_the_release_and_stopped_in_order_before_it_goes() {
    let packed = Packed::of("with systemd");
    let host = host(&packed);
    host.boot();
    host.write("etc/systemd/system/rswarm.service", "[Service]\n", 0o644);
    let said = host.run(&["sh", "/tmp/release/install.sh"]).ok();
    assert!(said.contains("/etc/systemd/system/rswarm.service is used in place of"), "{said}");
    let asked = ["daemon-reload", "enable rswarm.service", "restart rswarm.service"];
    assert_eq!(host.read("tmp/systemctl").lines().collect::<Vec<_>>(), asked);
    host.write("tmp/systemctl", "", 0o644);
    let below = host.path("var/lib/rswarm/volumes");
    fs::create_dir_all(&below).unwrap();
    let somebodys = Mounted::on(&below);
    let said = host.run(&["sh", "/tmp/release/install.sh", "--uninstall", "--purge"]).fails();
    assert!(said.contains("something is mounted below /var/lib/rswarm"), "{said}");
    assert!(host.path(PROGRAM).exists() && below.exists());
    assert_eq!(host.read("tmp/told"), "unix:///run/rswarm/docker.sock: system shutdown\n");
    drop(somebodys);
    let held = host.path("run/rswarm/netns/n1");
    fs::create_dir_all(&held).unwrap();
    let _held = Mounted::on(&held);
    host.run(&["sh", "/tmp/release/install.sh", "--uninstall", "--purge"]).ok();
    assert!(!host.path("run/rswarm").exists());
    let asked = host.read("tmp/systemctl");
    assert!(
        asked.contains("disable --now rswarm.service\n") && asked.ends_with("daemon-reload\n"),
        "{asked}"
    );
    assert!(!host.path(PROGRAM).exists() && !host.path("var/lib/rswarm").exists());
}

#[test]
fn what_is_wrong_is_refused_before_anything_is_changed() {
    let packed = packed();
    let host = host(&packed);
    let begun = host.changes();
    let refused = |name: &str, said: String, words: &str| {
        assert!(said.contains(words), "{name}: {said}");
        host.is_as(&begun, name);
        assert!(fs::read_dir(host.path("tmp")).unwrap().count() <= 4, "{name} left something");
    };
    let install = ["sh", "/tmp/release/install.sh"];
    host.fake("uname", "echo riscv64");
    refused("another machine", host.run(&install).fails(), "there is no program for riscv64");
    fs::remove_file(host.path("tmp/fake/uname")).unwrap();
    host.fake("id", "echo 1000");
    refused("not root", host.run(&install).fails(), "only root can install");
    fs::remove_file(host.path("tmp/fake/id")).unwrap();
    host.fake(
        "dpkg-query",
        "[ \"$2\" = /usr/local/bin/rswarm ] && echo 'docker-swarm: /usr/local/bin/rswarm'",
    );
    host.write(PROGRAM, "a package's", 0o755);
    let said = host.run(&install).fails();
    assert_eq!(host.read(PROGRAM), "a package's");
    host.run(&[&install[..], &["--uninstall", "--purge"]].concat()).fails();
    assert_eq!(host.read(PROGRAM), "a package's");
    fs::remove_file(host.path(PROGRAM)).unwrap();
    fs::remove_file(host.path("tmp/fake/dpkg-query")).unwrap();
    refused("a package's program", said, "is of the package docker-swarm; hint: upgrade that");
    let no_folder = host.run(&[&install[..], &["/tmp/nowhere"]].concat()).fails();
    refused("no folder", no_folder, "/tmp/nowhere is neither a folder nor an address");
    let plain = host.run(&[&install[..], &["http://192.0.2.1/rswarm"]].concat()).fails();
    refused("plain HTTP", plain, "can be changed on the way");
    let option = host.run(&[&install[..], &["--force"]].concat()).fails();
    refused("no option", option, "there is no option --force");
    let version = host.run_with(&[("RSWARM_VERSION", "9.9.9")], &install).fails();
    refused("no version", version, "has no 9.9.9 for ");
    let sums = host.run_with(&[("RSWARM_SUMS", "00")], &install).fails();
    refused("other sums", sums, "is not the one that RSWARM_SUMS asks for");

    // A half of the script, wherever it was cut, does nothing.
    let script = host.read("tmp/release/install.sh");
    for part in 1..10 {
        let half = &script[..script.len() * part / 10];
        host.write("tmp/half.sh", half, 0o644);
        let _whatever = host.run(&["sh", "/tmp/half.sh", "/tmp/release"]);
        host.is_as(&begun, &format!("{part} tenths of it"));
    }
    fs::remove_file(host.path("tmp/half.sh")).unwrap();

    let archives = || fs::read_dir(host.path("tmp/release")).unwrap().map(|entry| entry.unwrap().path());
    for path in archives().filter(|path| path.display().to_string().contains(".tar.")) {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    refused(
        "another content",
        host.run(&install).fails(),
        "is not what its SHA256SUMS says: nothing is installed",
    );
    fs::remove_file(host.path("tmp/release/SHA256SUMS")).unwrap();
    let said = host.run(&[&install[..], &["/tmp/release"]].concat()).fails();
    refused("no sums", said, "there is no SHA256SUMS in /tmp/release");
}

/// A process that was started from memory, as the one beside each container is.
#[test]
fn what_looks_after_running_containers_is_not_taken_away() {
    let packed = packed();
    let host = host(&packed);
    host.run(&["sh", "/tmp/release/install.sh"]).ok();
    let installed = host.changes();
    let memory = rustix::fs::memfd_create("rswarm-shim", rustix::fs::MemfdFlags::empty()).unwrap();
    std::io::copy(
        &mut fs::File::open("/bin/sleep").unwrap(),
        &mut fs::File::from(memory.try_clone().unwrap()),
    )
    .unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    let mut shim = std::process::Command::new(path);
    let said = host.run_beside(shim.arg("600"), &["sh", "/tmp/release/install.sh", "--uninstall", "--purge"]);
    drop(memory);
    let said = said.fails();
    assert!(said.contains("containers run; hint: systemctl start rswarm"), "{said}");
    host.is_as(&installed, "a refused uninstall");
    host.run(&["sh", "/tmp/release/install.sh", "--uninstall", "--purge"]).ok();
}

#[test]
fn what_cannot_be_started_is_not_installed() {
    let folder = tempfile::tempdir().unwrap();
    let mut release = super::release("never started");
    release.program = b"#!/bin/sh\nexit 1\n".to_vec();
    release.write(folder.path()).unwrap();
    let host = Host::new();
    host.bring(folder.path(), "tmp/release");
    let begun = host.changes();
    let said = host.run(&["sh", "/tmp/release/install.sh"]).fails();
    assert!(said.contains("does not start here: nothing is installed"), "{said}");
    host.is_as(&begun, "what cannot be started");
}

/// Without bash, coreutils, zstd, useradd: what a small host has.
#[test]
#[ignore = "oracle: busybox"]
fn a_host_with_nothing_but_busybox_can_install() {
    let packed = packed();
    let host = Host::with_busybox("/bin/busybox");
    host.bring(&packed.folder, "tmp/release");
    // Debian's busybox makes no groups.
    let said = host.run(&["sh", "/tmp/release/install.sh"]).ok();
    assert!(said.contains("the daemon's socket is for root alone"), "{said}");
    host.run(&["rswarm", "--version"]).ok();
    host.run(&["sh", "/usr/local/share/rswarm/install.sh"]).fails();
    host.run(&["sh", "/tmp/release/install.sh"]).ok();
    host.run(&["sh", "/usr/local/share/rswarm/install.sh", "--uninstall", "--purge"]).ok();
    assert!(!host.path(PROGRAM).exists() && !host.path("var/lib/rswarm").exists());
}

/// By Debian's dpkg, on a host of Debian's: the first time, an upgrade over changed settings, removal, purge.
#[test]
#[ignore = "oracle: dpkg"]
fn dpkg_installs_upgrades_removes_and_purges() {
    let packed = packed();
    let host = Host::with_packages();
    host.bring(&packed.folder, "tmp/release");
    host.boot();
    host.fake("deb-systemd-invoke", "echo \"$*\" >>/tmp/invoked; [ \"$1\" = stop ] || touch /tmp/active");
    let find = |end: &str| {
        let names = fs::read_dir(host.path("tmp/release")).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let machine = super::Target::here().debian();
        format!("/tmp/release/{}", names.find(|name| name.ends_with(&format!("{machine}{end}"))).unwrap())
    };
    let deb = find(".deb");
    let dpkg = |words: &[&str]| {
        let said = host
            .run(&[&["dpkg", "--force-depends", "--force-confold", "--no-triggers"], words].concat())
            .ok();
        println!("dpkg {words:?}: {said}");
    };
    host.write("usr/local/share/rswarm/installed", "", 0o644);
    let refused = host.run(&["dpkg", "--force-depends", "-i", &deb]).fails();
    assert!(refused.contains("install.sh --uninstall"), "{refused}");
    fs::remove_dir_all(host.path("usr/local/share/rswarm")).unwrap();
    dpkg(&["-i", &deb]);
    assert_eq!(host.read("tmp/invoked"), "start rswarm.service\n");
    assert!(host.path("etc/systemd/system/multi-user.target.wants/rswarm.service").is_symlink());
    host.run(&["/usr/bin/rswarm", "--version"]).ok();
    assert!(host.read("etc/group").contains("\nrswarm:"));
    let listed = host.run(&["dpkg-query", "-W", "-f", "${db:Status-Status} ${Conffiles}", "rswarm"]).ok();
    assert!(listed.starts_with("installed ") && listed.contains("/etc/rswarm/daemon.toml"), "{listed}");
    let refused = host.run(&["sh", "/tmp/release/install.sh"]).fails();
    assert!(refused.contains("/usr/bin/rswarm is of the package rswarm"), "{refused}");

    host.write("etc/rswarm/daemon.toml", "mtu = 1400\n", 0o644);
    host.run(&["rm", "/etc/systemd/system/multi-user.target.wants/rswarm.service"]).ok();
    dpkg(&["-i", &deb]);
    assert_eq!(host.read("tmp/invoked"), "start rswarm.service\nrestart rswarm.service\n");
    assert_eq!(host.read("etc/rswarm/daemon.toml"), "mtu = 1400\n");
    let enabled = host.path("etc/systemd/system/multi-user.target.wants/rswarm.service");
    assert!(!enabled.is_symlink(), "who has disabled it finds it so");

    host.write("var/lib/rswarm/volumes/kept", "data", 0o600);
    dpkg(&["-r", "rswarm"]);
    assert!(host.read("tmp/invoked").ends_with("stop rswarm.service\n"));
    assert!(!host.path("usr/bin/rswarm").exists());
    assert_eq!(host.read("etc/rswarm/daemon.toml"), "mtu = 1400\n");
    assert_eq!(host.read("var/lib/rswarm/volumes/kept"), "data");
    dpkg(&["-P", "rswarm"]);
    for path in ["etc/rswarm", "var/lib/rswarm", "etc/apparmor.d/docker-default"] {
        assert!(!host.path(path).exists(), "{path}");
    }
    assert!(!host.read("etc/group").contains("\nrswarm:"));
}
