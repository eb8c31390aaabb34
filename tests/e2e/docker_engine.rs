//! One host and the real `docker` CLI: what a person does with it, told by what it prints and its exit code. With
//! `ORACLE=1` (as `cargo xtask oracles` sets it) a real dockerd is asked the same; where it answers something else,
//! `differences.txt` says why.

use crate::{
    SOON,
    clis::{Subject, judge_all},
    lab,
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};
use testkit::{Dockerd, Lab, Networks, Output, wait_for};

/// Who is asked.
pub(crate) enum Machine {
    Ours(Lab),
    Theirs { dockerd: Dockerd, differences: BTreeMap<String, String>, wrong: RefCell<Vec<String>> },
}

impl Machine {
    fn docker(&self, args: &[&str]) -> Output {
        match self {
            Self::Ours(lab) => lab.docker(1, args),
            Self::Theirs { dockerd, .. } => dockerd.docker(args).expect("docker runs"),
        }
    }

    /// Where it listens, as `DOCKER_HOST` has it.
    pub(crate) fn host(&self) -> String {
        let socket = match self {
            Self::Ours(lab) => lab.socket(1),
            Self::Theirs { dockerd, .. } => dockerd.dir().join("docker.sock"),
        };
        format!("unix://{}", socket.display())
    }

    pub(crate) fn dir(&self) -> &Path {
        match self {
            Self::Ours(lab) => lab.dir(),
            Self::Theirs { dockerd, .. } => dockerd.dir(),
        }
    }
}

/// Reads `differences.txt`: a command per line, its reason indented below it.
pub(crate) fn differences() -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut last = String::new();
    for line in
        include_str!("differences.txt").lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
    {
        if line.starts_with(' ') {
            let reason = found.get_mut(&last).expect("a command comes before its reason");
            reason.push_str(line.trim());
        } else {
            line.strip_prefix("docker ").expect("a command of docker").clone_into(&mut last);
            found.insert(last.clone(), String::new());
        }
    }
    assert!(found.values().all(|reason| !reason.is_empty()), "a difference has no reason");
    found
}

/// Runs a test on a host of ours and, if asked to, on a real dockerd.
pub(crate) fn on_each(test: impl Fn(&Machine)) {
    each(|machine| {
        test(machine);
        let Machine::Theirs { wrong, .. } = machine else { return };
        let wrong = wrong.borrow();
        assert!(wrong.is_empty(), "dockerd answers otherwise:\n{}", wrong.join("\n"));
    });
}

/// Hands out a host of ours and, if asked to, a real dockerd, both with the image `bb`.
pub(crate) fn each(mut test: impl FnMut(&Machine)) {
    test(&Machine::Ours(host()));
    if std::env::var("ORACLE").is_ok_and(|value| value == "1") {
        let tree: PathBuf =
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/oracle-dockerd")).into();
        let dockerd = Dockerd::start(Some(&tree), Networks::Bridges).expect("run `cargo xtask oracles`");
        let wrong = RefCell::default();
        let theirs = Machine::Theirs { dockerd, differences: differences(), wrong };
        import_busybox(&theirs);
        test(&theirs);
    }
}

/// A lab of one host that has the image `bb`, a busybox.
pub(crate) fn host() -> Lab {
    let machine = Machine::Ours(lab(1));
    import_busybox(&machine);
    match machine {
        Machine::Ours(lab) => lab,
        Machine::Theirs { .. } => unreachable!("it is ours"),
    }
}

fn import_busybox(machine: &Machine) {
    let tar = busybox_root(machine.dir(), &["data"]);
    machine.docker(&["import", "-c", "CMD [\"sh\"]", "-c", "ENV PATH=/bin", &tar, "bb"]).ok();
}

/// Imports a busybox with the folders that programs look for, under a name and with such changes.
pub(crate) fn import_root(lab: &Lab, n: u8, name: &str, changes: &[&str]) {
    let folders =
        ["data", "dev", "home", "opt", "proc", "root", "sbin", "sys", "usr/bin", "var/opt", "var/tmp"];
    let tar = busybox_root(lab.dir(), &folders);
    let changes = changes.iter().flat_map(|change| ["-c", *change]);
    let command: Vec<&str> = ["import"].into_iter().chain(changes).chain([tar.as_str(), name]).collect();
    lab.docker(n, &command).ok();
}

/// Makes an archive of a busybox in `dir`, with such folders beside what each has, and returns where it is.
fn busybox_root(dir: &Path, folders: &[&str]) -> String {
    let (root, tar) = (dir.join("busybox"), dir.join("busybox.tar"));
    if tar.exists() {
        return tar.display().to_string();
    }
    for folder in ["bin", "etc", "tmp"].iter().chain(folders) {
        std::fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var:/bin/sh\n\
                  user:x:1000:1000:user:/home:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), passwd).expect("a file");
    std::fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("a file");
    std::fs::write(root.join("data/seed"), "seed\n").expect("a file");
    let applets = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|a| *a != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    let mut archive = tar::Builder::new(std::fs::File::create(&tar).expect("a file"));
    archive.follow_symlinks(false);
    archive.append_dir_all(".", &root).and_then(|()| archive.finish()).expect("a tar");
    tar.display().to_string()
}

/// Runs a line of words in single quotes or without, as a shell would.
pub(crate) fn docker(machine: &Machine, line: &str) -> Output {
    machine.docker(&words(line))
}

pub(crate) fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (n, part) in line.split('\'').enumerate() {
        match n % 2 {
            0 => words.extend(part.split_whitespace()),
            _ => words.push(part),
        }
    }
    words
}

/// Demands an exit code and, in either stream, a text.
#[track_caller]
fn says(machine: &Machine, line: &str, code: i32, text: &str) {
    let said = docker(machine, line);
    let all = format!("{}{}", said.stdout, said.stderr);
    let fits = said.code == code && all.contains(text);
    let complaint = format!("docker {line}\nwant {code} and {text:?}\ngot {said:?}");
    judge(machine, line, fits, &complaint);
}

/// Demands that what was said fits; on a real dockerd, unless the line is a known difference.
#[track_caller]
pub(crate) fn judge(machine: &Machine, line: &str, fits: bool, complaint: &str) {
    match machine {
        Machine::Ours(_) => assert!(fits, "{complaint}"),
        Machine::Theirs { differences, wrong, .. } => match (fits, differences.contains_key(line)) {
            (true, false) | (false, true) => {}
            (false, false) => wrong.borrow_mut().push(complaint.to_owned()),
            (true, true) => wrong.borrow_mut().push(format!("{line}\nis no difference any more")),
        },
    }
}

/// What is asked for, each on machines of its own.
const SUBJECTS: &[Subject] = &[
    ("run", || on_each(run_gives_output_exit_code_and_what_was_asked_for)),
    ("capabilities", || on_each(a_container_may_do_what_its_capabilities_say_and_no_more)),
    ("a running container", || on_each(a_running_container_is_looked_into_changed_and_ended)),
    ("policies, health and logs", || on_each(policies_health_and_logs_tell_what_happened)),
    ("images", || on_each(images_are_committed_saved_loaded_and_kept_while_used)),
    ("volumes and networks", || on_each(volumes_and_networks_of_one_host_serve_its_containers)),
];

#[test]
#[ignore = "oracle: docker, dockerd, busybox"]
fn what_a_person_asks_of_one_host_is_answered_as_dockerd_answers_it() {
    judge_all(SUBJECTS);
}

fn run_gives_output_exit_code_and_what_was_asked_for(machine: &Machine) {
    for (line, code, text) in [
        ("run --rm bb echo hi", 0, "hi\n"),
        ("run --rm bb sh -c 'echo out; echo err >&2; exit 7'", 7, "out\nerr\n"),
        ("run --rm bb nope", 127, "exec: \"nope\": executable file not found in $PATH"),
        ("run --rm bb /etc", 126, "is a directory"),
        ("run --rm no/such/image:1 true", 125, "Unable to find image 'no/such/image:1' locally"),
        ("run --rm -u user bb id", 0, "uid=1000(user) gid=1000(user)"),
        ("run --rm -u nobody-here bb id", 125, "nobody-here"),
        ("run --rm -w /data bb pwd", 0, "/data\n"),
        ("run --rm -h hh bb hostname", 0, "hh\n"),
        ("run --rm -h hh --domainname b.c bb hostname -f", 0, "hh.b.c\n"),
        ("run --rm -e A=1 bb env", 0, "A=1\n"),
        ("run --rm --entrypoint echo bb a b", 0, "a b\n"),
        ("run --rm --group-add 7 bb id", 0, "groups=0(root),7"),
        ("run --rm -t bb tty", 0, "/dev/pts/0"),
        ("run --rm --read-only --tmpfs /t bb touch /x", 1, "Read-only file system"),
        ("run --rm --read-only --tmpfs /t bb touch /t/x", 0, ""),
        ("run --rm --mount type=tmpfs,dst=/x,tmpfs-size=1m bb df /x", 0, "1024"),
        ("run --rm --shm-size 16m bb df /dev/shm", 0, "16384"),
        (
            "run --rm --mount type=bind,src=/nonexist,dst=/x bb ls",
            125,
            "bind source path does not exist: /nonexist",
        ),
        ("run --rm --ulimit nofile=99:99 bb sh -c 'ulimit -n'", 0, "99\n"),
        ("run --rm --sysctl net.ipv4.ip_forward=1 bb cat /proc/sys/net/ipv4/ip_forward", 0, "1\n"),
        ("run --rm --oom-score-adj 500 bb cat /proc/self/oom_score_adj", 0, "500\n"),
        ("run --rm --add-host a.b:192.0.2.4 bb cat /etc/hosts", 0, "192.0.2.4\ta.b"),
        ("run --rm --dns 192.0.2.53 bb cat /etc/resolv.conf", 0, "nameserver 192.0.2.53"),
        ("run --rm --network none bb ip -o link", 0, "1: lo:"),
        ("run --rm --network host bb hostname", 0, "host1\n"),
        (
            "run --rm --mac-address 02:42:ac:11:00:99 bb cat /sys/class/net/eth0/address",
            0,
            "02:42:ac:11:00:99",
        ),
        ("run --rm --mac-address 01:00:00:00:00:01 bb true", 125, "is not the MAC address of one machine"),
        ("run --rm --ip 10.1.1.1 bb true", 125, "user defined networks only"),
        ("run --rm --platform linux/s390x bb true", 125, ""),
        (
            "run --rm --gpus all bb true",
            125,
            "could not select device driver \"\" with capabilities: [[gpu]]",
        ),
        ("run --rm --ipc host --uts host --cgroupns host bb true", 0, ""),
    ] {
        says(machine, line, code, text);
    }
    assert_eq!(docker(machine, "ps -a -q").ok(), "");
}

fn a_container_may_do_what_its_capabilities_say_and_no_more(machine: &Machine) {
    for (line, code, text) in [
        ("run --rm bb mount -t tmpfs x /tmp", 1, "permission denied"),
        ("run --rm --cap-add SYS_ADMIN bb mount -t tmpfs x /tmp", 0, ""),
        ("run --rm --privileged bb mount -t tmpfs x /tmp", 0, ""),
        ("run --rm bb chroot / echo chrooted", 0, "chrooted"),
        ("run --rm --cap-drop ALL bb chown user /tmp", 1, "Operation not permitted"),
        ("run --rm --cap-add NO_SUCH bb true", 125, "NO_SUCH"),
        ("run --rm bb grep Seccomp: /proc/self/status", 0, "2"),
        ("run --rm --security-opt seccomp=unconfined bb grep Seccomp: /proc/self/status", 0, "0"),
        ("run --rm --security-opt no-new-privileges bb grep NoNewPrivs /proc/self/status", 0, "1"),
        ("run --rm bb sh -c 'echo 1 > /proc/sys/kernel/hostname'", 1, "Read-only file system"),
        ("run --rm bb wc -c /proc/timer_list", 0, "0 /proc/timer_list"),
    ] {
        says(machine, line, code, text);
    }
}

fn a_running_container_is_looked_into_changed_and_ended(machine: &Machine) {
    let command =
        "mkdir /www; echo page > /www/i; rm /data/seed; trap 'exit 5' TERM; while :; do sleep 0.1; done";
    machine
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            "127.0.0.1:8099:80/udp",
            "-p",
            "8080:80",
            "bb",
            "sh",
            "-c",
            command,
        ])
        .ok();
    wait_for("its files", SOON, || {
        let said = docker(machine, "exec web cat /www/i");
        if said.stdout == "page\n" { Ok(()) } else { Err(format!("{said:?}")) }
    });
    for (line, code, text) in [
        ("ps --format {{.Names}},{{.Image}}", 0, "web,bb\n"),
        ("port web", 0, "80/tcp -> 0.0.0.0:8080"),
        ("port web", 0, "80/udp -> 127.0.0.1:8099"),
        ("run --rm -p 8080:1 bb true", 125, "Bind for 0.0.0.0:8080 failed: port is already allocated"),
        ("run --rm --name web bb true", 125, "is already in use by container"),
        ("inspect -f {{.State.Status}} web", 0, "running\n"),
        ("top web", 0, "sh -c mkdir"),
        ("stats --no-stream --format {{.Name}} web", 0, "web\n"),
        ("diff web", 0, "A /www/i\n"),
        ("diff web", 0, "D /data/seed\n"),
        (
            "exec -u user -w /tmp web sh -c 'id; pwd'",
            0,
            "uid=1000(user) gid=1000(user) groups=1000(user)\n/tmp\n",
        ),
        ("exec -e X=y web env", 0, "X=y\n"),
        ("exec web sh -c 'exit 3'", 3, ""),
        (
            "exec web nope",
            127,
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nope\"",
        ),
        ("cp web:/www/i i.html", 0, ""),
        ("cp web:/nope x", 1, "Could not find the file /nope in container web"),
        ("cp i.html web:/www/copy", 0, ""),
        ("exec web cat /www/copy", 0, "page\n"),
        ("pause web", 0, "web"),
        ("ps --format {{.Status}}", 0, "(Paused)"),
        ("exec web true", 1, "is paused, unpause the container before exec"),
        ("unpause web", 0, "web"),
        ("rename web web2", 0, ""),
        ("update --memory 64m --memory-swap 128m web2", 0, "web2"),
        ("inspect -f {{.HostConfig.Memory}} web2", 0, "67108864"),
        ("container rm web2", 1, "container is running"),
        ("run --rm --network container:web2 bb true", 0, ""),
        ("run --rm --link web2:alias bb cat /etc/hosts", 0, "\talias "),
        ("stop -t 5 web2", 0, "web2"),
        ("inspect -f {{.State.ExitCode}} web2", 0, "5\n"),
        ("start web2", 0, "web2"),
        ("kill web2", 0, "web2"),
        ("wait web2", 0, "137\n"),
        ("rm web2", 0, "web2"),
        ("rm web2", 1, "No such container: web2"),
    ] {
        says(machine, line, code, text);
    }
}

fn policies_health_and_logs_tell_what_happened(machine: &Machine) {
    docker(machine, "run -d --restart on-failure:2 --name rr bb sh -c 'exit 1'").ok();
    wait_for("two restarts", SOON, || {
        let said =
            docker(machine, "inspect -f '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}' rr").ok();
        if said.trim() == "2 exited 1" { Ok(()) } else { Err(said) }
    });
    docker(
        machine,
        "run -d --name hh --health-cmd 'test -e /ok' --health-interval 200ms --health-retries 2 bb sleep 100",
    )
    .ok();
    let health = |wanted: &str| {
        wait_for(wanted, SOON, || {
            let said = docker(machine, "inspect -f {{.State.Health.Status}} hh").ok();
            if said.trim() == wanted { Ok(()) } else { Err(said) }
        });
    };
    health("unhealthy");
    docker(machine, "exec hh touch /ok").ok();
    health("healthy");

    docker(machine, "run -d --name ll bb sh -c 'for i in 1 2 3; do echo l$i; sleep 0.2; done'").ok();
    says(machine, "logs -f ll", 0, "l1\nl2\nl3\n");
    assert_eq!(docker(machine, "logs --tail 1 ll").ok(), "l3\n");
    assert_eq!(docker(machine, "logs --until 2001-01-01T00:00:00Z ll").ok(), "");
    docker(machine, "rm -f rr hh ll").ok();
    // The client cuts its time to whole seconds.
    wait_for("the events", SOON, || {
        let events =
            docker(machine, "events --since 1h --until 0s --format {{.Action}} --filter container=ll").ok();
        let all = ["create", "start", "die", "destroy"].iter().all(|a| events.lines().any(|line| line == *a));
        if all { Ok(()) } else { Err(events) }
    });
}

fn images_are_committed_saved_loaded_and_kept_while_used(machine: &Machine) {
    docker(machine, "run --name maker bb sh -c 'echo new > /data/new; rm /data/seed'").ok();
    let commit =
        ["commit", "-m", "hi", "-a", "me", "-c", "ENV B=2", "-c", "CMD [\"env\"]", "maker", "snap:1"];
    machine.docker(&commit).ok();
    for (line, code, text) in [
        ("run --rm snap:1", 0, "B=2\n"),
        ("run --rm snap:1 ls /data", 0, "new\n"),
        ("history --format {{.Comment}} snap:1", 0, "hi\nImported from -\n"),
        ("inspect -f '{{.Author}} {{.Config.Cmd}}' snap:1", 0, "me [env]"),
        ("save -o snap.tar snap:1", 0, ""),
        ("rmi snap:1", 0, "Deleted: sha256:"),
        ("load -i snap.tar", 0, "Loaded image: snap:1"),
        ("run --rm snap:1", 0, "B=2\n"),
        ("tag snap:1 again:2", 0, ""),
        ("images --format {{.Repository}}:{{.Tag}}", 0, "again:2\n"),
        ("rmi again:2", 0, "Untagged: again:2"),
        ("rmi bb", 1, "(must be forced) - container"),
        ("image prune -a -f", 0, ""),
        ("run --rm bb echo still here", 0, "still here"),
        ("system df --format {{.Type}},{{.TotalCount}}", 0, "Images,"),
        ("rm maker", 0, ""),
        ("rmi bb", 0, "Deleted: sha256:"),
    ] {
        if line == "rmi bb" && code == 1 {
            // Docker says `must force` for a name, `must be forced` for an id.
            says(machine, line, code, "(must force) - container");
            continue;
        }
        says(machine, line, code, text);
    }
}

fn volumes_and_networks_of_one_host_serve_its_containers(machine: &Machine) {
    for (line, code, text) in [
        ("volume create v1", 0, "v1"),
        ("run --rm -v v1:/data bb cat /data/seed", 0, "seed\n"),
        ("run --rm -v v1:/data bb sh -c 'echo k > /data/k'", 0, ""),
        ("run --rm -v v1:/x:ro bb cat /x/k", 0, "k\n"),
        ("run --rm -v v1:/x:ro bb touch /x/k", 1, "Read-only file system"),
        ("run -d --name user -v v1:/x bb sleep 100", 0, ""),
        ("volume rm v1", 1, "volume is in use"),
        ("run --rm --volumes-from user bb cat /x/k", 0, "k\n"),
        ("rm -f user", 0, ""),
        ("volume rm v1", 0, "v1"),
        ("network create --subnet 10.99.0.0/24 n1", 0, ""),
        ("network create --subnet 10.99.0.0/25 n2", 1, "overlaps"),
        ("run -d --name s1 --network n1 --network-alias db --ip 10.99.0.77 bb sleep 100", 0, ""),
        ("run --rm --network n1 bb ping -c1 -W2 db", 0, "64 bytes from 10.99.0.77"),
        ("run --rm --network n1 bb ping -c1 -W2 s1", 0, "64 bytes from 10.99.0.77"),
        ("run --rm bb ping -c1 -W1 10.99.0.77", 1, "100% packet loss"),
        ("network connect bridge s1", 0, ""),
        ("exec s1 ip -o -4 addr", 0, "eth1"),
        (
            "network create --ipv6 --subnet 10.98.0.0/24 --gateway 10.98.0.1 --subnet fd00:98::/64 --gateway fd00:98::9 n6",
            0,
            "",
        ),
        (
            "network inspect -f '{{.EnableIPv6}} {{range .IPAM.Config}}{{.Gateway}} {{end}}' n6",
            0,
            "true 10.98.0.1 fd00:98::9",
        ),
        ("network connect --ip6 fd00:98::77 n6 s1", 0, ""),
        (
            "inspect -f '{{.NetworkSettings.Networks.n6.GlobalIPv6Address}}/{{.NetworkSettings.Networks.n6.GlobalIPv6PrefixLen}}' s1",
            0,
            "fd00:98::77/64\n",
        ),
        (
            "run --rm --network n6 --ip6 fd00:98::78 bb sh -c 'ip -6 addr show eth0 | grep -c fd00:98::78/64'",
            0,
            "1\n",
        ),
        (
            "run --rm --network n6 bb sh -c 'ip -6 route | grep ^default'",
            0,
            "default via fd00:98::9 dev eth0",
        ),
        ("run --rm --network n6 bb ping -6 -c1 -W2 s1", 0, "64 bytes from fd00:98::77"),
        ("run --rm --network n6 --ip6 fd00:99::1 bb true", 125, "fd00:99::1"),
        ("run --rm --network n1 --ip6 fd00:98::7 bb true", 125, ""),
        ("network disconnect n6 s1", 0, ""),
        ("network rm n6", 0, "n6"),
        (
            "network create -d macvlan -o parent=eth0 --subnet 10.97.0.0/24 --aux-address host=10.97.0.2 m1",
            0,
            "",
        ),
        (
            "run --rm --network m1 bb sh -c 'ip -o -4 addr show eth0 | grep -o 10.97.0.*/24'",
            0,
            "10.97.0.3/24\n",
        ),
        ("network rm m1", 0, "m1"),
        ("network rm n1", 1, "has active endpoints"),
        ("network disconnect n1 s1", 0, ""),
        ("network rm n1", 0, "n1"),
        ("rm -f s1", 0, ""),
        ("system prune -f --volumes", 0, "Total reclaimed space"),
    ] {
        says(machine, line, code, text);
    }
}
