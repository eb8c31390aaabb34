//! `rswarm oci` beside runc and crun: the same bundles, the same life, the same view from inside.

use crate::program;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{IoSliceMut, Read},
    mem::MaybeUninit,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use testkit::wait_for;

/// Time for one container.
const SOON: Duration = Duration::from_secs(20);

/// One of the programs compared, with a folder of its own.
struct Runtime {
    name: &'static str,
    command: Vec<String>,
    temp: tempfile::TempDir,
    log: PathBuf,
}

impl Runtime {
    fn new(name: &'static str, command: Vec<String>) -> Self {
        let temp = tempfile::Builder::new().prefix("rswarm-oci-").tempdir().expect("a folder");
        // Users of the container look into its root.
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let log = temp.path().join("log");
        Self { name, command, temp, log }
    }

    /// Runs a verb; its streams are files: what the container inherits must not hold the caller up.
    fn verb(&self, args: &[&str]) -> (bool, String) {
        let (out, err) = (self.temp.path().join("out"), self.temp.path().join("err"));
        let status = Command::new(&self.command[0])
            .args(&self.command[1..])
            .arg("--root")
            .arg(self.temp.path().join("state"))
            .arg("--log")
            .arg(&self.log)
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file"))
            .stderr(File::create(&err).expect("a file"))
            .status()
            .unwrap_or_else(|e| panic!("{}: {e}", self.name));
        (status.success(), fs::read_to_string(out).expect("its output"))
    }

    fn ok(&self, args: &[&str]) -> String {
        let (ok, said) = self.verb(args);
        assert!(ok, "{} {args:?}: {}", self.name, self.complaint());
        said
    }

    fn complaint(&self) -> String {
        let of = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        format!("{}{}", of(&self.temp.path().join("err")), of(&self.log))
    }

    /// The state of `c`, or `gone`.
    fn status(&self) -> String {
        match self.verb(&["state", "c"]) {
            (true, said) => {
                let state: Value = serde_json::from_str(&said).expect("the state is JSON");
                state["status"].as_str().expect("a status").to_owned()
            }
            (false, _) => "gone".into(),
        }
    }

    fn wait_until(&self, status: &str) {
        wait_for(&format!("{}: {status}", self.name), SOON, || {
            let is = self.status();
            if is == status { Ok(()) } else { Err(format!("{is}; {}", self.complaint())) }
        });
    }

    fn bundle(&self) -> PathBuf {
        self.temp.path().join("bundle")
    }

    fn write(&self, spec: &Value) {
        fs::write(self.bundle().join("config.json"), spec.to_string()).expect("config.json");
    }

    /// Creates, starts and removes the container of a spec; returns what its program wrote, or where it failed.
    fn run(&self, spec: &Value) -> String {
        self.write(spec);
        let bundle = self.bundle().display().to_string();
        let output = self.bundle().join("rootfs/tmp/output");
        let (created, _) = self.verb(&["create", "--bundle", &bundle, "c"]);
        if !created || !self.verb(&["start", "c"]).0 {
            // runc and crun look the program up in `create`, we in `start`: either way it never ran.
            let why = self.complaint();
            self.verb(&["delete", "--force", "c"]);
            assert_eq!(self.status(), "gone", "{}: {why}", self.name);
            return "does not start".into();
        }
        self.wait_until("stopped");
        // crun may say no although the container goes: it looks for its state again when a hook after the end failed.
        let (deleted, _) = self.verb(&["delete", "c"]);
        let is_gone = deleted || (self.name != "rswarm" && self.status() == "gone");
        assert!(is_gone, "{} delete: {}", self.name, self.complaint());
        fs::read_to_string(&output).unwrap_or_else(|e| format!("no output: {e}"))
    }

    /// Demands an error in its log, in the form in which engines read it.
    fn tells_errors(&self) {
        let log = self.temp.path().join("json");
        let Output { status, .. } = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(["--log-format", "json", "--log"])
            .arg(&log)
            .arg("--root")
            .arg(self.temp.path().join("state"))
            .args(["start", "nobody"])
            .output()
            .expect("a runtime");
        assert!(!status.success());
        let text = fs::read_to_string(&log).expect("a log");
        let line: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        assert_eq!(line["level"], "error", "{}: {text}", self.name);
        assert!(line["msg"].is_string() && line["time"].is_string(), "{}: {text}", self.name);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.verb(&["delete", "--force", "c"]);
    }
}

/// Ours, without a bundle.
fn ours() -> Runtime {
    Runtime::new("rswarm", vec![program().display().to_string(), "oci".into()])
}

/// Ours first; each with the root of a bundle.
fn runtimes() -> Vec<Runtime> {
    // It refuses a machine that has both versions of cgroups.
    let crun = "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec crun \"$@\"";
    let crun = ["unshare", "-m", "sh", "-c", crun, "crun"].map(str::to_owned).to_vec();
    let all = vec![ours(), Runtime::new("runc", vec!["runc".into()]), Runtime::new("crun", crun)];
    for runtime in &all {
        let root = runtime.bundle().join("rootfs");
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "mnt", "work"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o777)).expect("its mode");
        testkit::copy_program(Path::new("/bin/busybox"), &root.join("bin/busybox"), 0o755);
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("a link");
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("a file");
    }
    all
}

/// A container of `script`, whose output is kept below its root.
fn spec(runtime: &Runtime, script: &str) -> Value {
    let script = format!("export PATH=/bin; exec >/tmp/output 2>&1; {script}");
    let caps = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETUID"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin", "WORD=value"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "hostname": "inside",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "annotations": {"org.example.key": "value"},
        "linux": {
            "cgroupsPath": format!("/{}", runtime.temp.path().file_name().expect("a name").display()),
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/keys", "/sys/firmware", "/proc/no-such-file"],
            "readonlyPaths": ["/proc/sys", "/proc/bus"],
        },
    })
}

#[test]
#[ignore = "oracle: runc, crun, busybox"]
fn a_container_lives_as_with_other_runtimes() {
    let lives: Vec<(&str, Vec<String>)> =
        runtimes()
            .iter()
            .map(|runtime| {
                runtime.tells_errors();
                let script = "trap 'exit 3' TERM; echo up >/work/up; while :; do busybox sleep 0.05; done";
                runtime.write(&spec(runtime, script));
                let bundle = runtime.bundle().display().to_string();
                let pid_file = runtime.temp.path().join("pid");
                let pid_path = pid_file.display().to_string();
                let mut seen = Vec::new();
                let mut verb = |args: &[&str]| {
                    let (ok, _) = runtime.verb(args);
                    // How soon a signal ends the program is not what is compared.
                    if args[0] == "kill" && ok {
                        runtime.wait_until("stopped");
                    }
                    seen.push(
                        format!("{args:?}: {ok}, {}", runtime.status())
                            .replace(runtime.temp.path().to_str().unwrap_or_default(), ""),
                    );
                };
                verb(&["state", "c"]);
                verb(&["start", "c"]);
                verb(&["kill", "c", "KILL"]);
                verb(&["delete", "c"]);
                verb(&["delete", "--force", "c"]);
                verb(&["create", "--bundle", "/no/such/folder", "c"]);
                verb(&["create", "--bundle", &bundle, "../c"]);
                verb(&["create", "--bundle", &bundle, "--pid-file", &pid_path, "c"]);
                verb(&["create", "--bundle", &bundle, "c"]);
                let up = runtime.bundle().join("rootfs/work/up");
                assert!(!up.exists(), "{}: it waits for its start", runtime.name);
                let state: Value = serde_json::from_str(&runtime.ok(&["state", "c"])).expect("JSON");
                let pid = fs::read_to_string(&pid_file).expect("the pid file");
                assert_eq!(state["pid"].to_string(), pid.trim(), "{}: {state}", runtime.name);
                assert_eq!(state["bundle"], *bundle, "{}", runtime.name);
                assert_eq!(state["id"], "c", "{}", runtime.name);
                assert_eq!(state["annotations"]["org.example.key"], "value", "{}", runtime.name);
                verb(&["start", "c"]);
                wait_for("the program to run", SOON, || {
                    if up.exists() { Ok(()) } else { Err(runtime.complaint()) }
                });
                verb(&["start", "c"]);
                verb(&["delete", "c"]);
                verb(&["kill", "c", "SIGTERM"]);
                let state: Value = serde_json::from_str(&runtime.ok(&["state", "c"])).expect("JSON");
                assert!(state["pid"] == 0 || state["pid"].is_null(), "{}: {state}", runtime.name);
                verb(&["start", "c"]);
                verb(&["kill", "c", "TERM"]);
                verb(&["delete", "c"]);
                verb(&["delete", "c"]);
                // Killed before its program ever ran, and removed by force while it runs.
                verb(&["create", "--bundle", &bundle, "c"]);
                verb(&["kill", "c", "9"]);
                verb(&["delete", "c"]);
                verb(&["create", "--bundle", &bundle, "c"]);
                verb(&["start", "c"]);
                verb(&["delete", "--force", "c"]);
                (runtime.name, seen)
            })
            .collect();
    for (name, seen) in &lives[1..] {
        for (ours, theirs) in lives[0].1.iter().zip(seen) {
            println!("{name}: {theirs}{}", if ours == theirs { "" } else { "   <- differs" });
        }
        assert_eq!(lives[0].1, *seen, "beside {name}");
    }
}

/// What can be seen from inside, in a form that does not depend on where the bundle is.
const LOOK: &str = "busybox grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Umask):' /proc/self/status; \
    busybox hostname; echo pid $$; pwd; echo word $WORD; umask; \
    ulimit -n; ulimit -Hn; ulimit -c; \
    busybox cat /proc/self/oom_score_adj; \
    busybox awk '{ i = 7; while ($i != \"-\") i++; print $5, $6, $(i + 1) }' /proc/self/mountinfo | \
    busybox grep -v ^/proc/keys | busybox sort; \
    busybox ls -l /dev | busybox awk '{ print $1, $3, $4, $5, $6, $NF }' | busybox grep -v total; \
    busybox ls /proc/self/fd | busybox wc -l; \
    busybox cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/domainname; \
    echo x >/proc/sys/kernel/domainname || echo readonly; busybox cat /proc/keys | busybox wc -c; \
    busybox ls /sys/firmware | busybox wc -l; echo x >/new || echo no new file; busybox ls /mnt";

type Change = fn(&mut Value, &Path);

/// What is changed in the spec, and how.
const CHANGES: &[(&str, Change)] = &[
    ("nothing", |_, _| {}),
    ("a user with groups and a umask", |spec, _| {
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 27], "umask": 0o27});
    }),
    ("ambient capabilities of a user", |spec, _| {
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            spec["process"]["capabilities"][set] = json!(["CAP_NET_BIND_SERVICE", "CAP_SYS_TIME"]);
        }
    }),
    ("no capabilities", |spec, _| spec["process"]["capabilities"] = json!({})),
    ("new privileges allowed", |spec, _| spec["process"]["noNewPrivileges"] = json!(false)),
    ("limits and a score", |spec, _| {
        spec["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]);
        spec["process"]["oomScoreAdj"] = json!(300);
    }),
    ("a working folder", |spec, _| spec["process"]["cwd"] = json!("/work")),
    ("a working folder that is not there", |spec, _| spec["process"]["cwd"] = json!("/work/made/now")),
    ("a root that is only read", |spec, _| {
        spec["root"]["readonly"] = json!(true);
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.push(
            json!({"destination": "/tmp", "type": "bind", "source": "rootfs/tmp", "options": ["bind", "rw"]}),
        );
    }),
    ("mounts of many kinds", |spec, outside| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.extend([
            json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"]}),
            json!({"destination": "/mnt", "type": "bind", "source": outside, "options": ["rbind", "ro", "nosuid"]}),
            json!({"destination": "/made/by/mount", "type": "tmpfs", "source": "tmpfs",
                "options": ["size=1m", "mode=700", "nodev", "noatime"]}),
            json!({"destination": "/made/file", "type": "bind", "source": outside.join("file"),
                "options": ["bind", "ro", "nodev", "noexec"]}),
        ]);
    }),
    ("a network setting", |spec, _| {
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "80"});
    }),
    ("devices", |spec, _| {
        spec["linux"]["devices"] = json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8},
        ]);
    }),
    ("no pid namespace of its own", |spec, _| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|n| n["type"] != "pid");
        spec["process"]["args"][2] = json!("exec >/tmp/output; test $$ = 1 || echo of the host");
    }),
    ("a cgroup namespace", |spec, _| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.push(json!({"type": "cgroup"}));
        spec["process"]["args"][2] =
            json!("exec >/tmp/output; busybox grep :pids: /proc/self/cgroup | busybox cut -d: -f2-");
    }),
    ("system calls refused", |spec, _| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": [format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_uppercase())],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                {"names": ["personality"], "action": "SCMP_ACT_KILL_PROCESS",
                    "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            ],
        });
        spec["process"]["args"][2] = json!(
            "exec >/tmp/output 2>&1; busybox mkdir /work/x; busybox setarch linux32 echo never; echo $?; \
                busybox grep ^Seccomp: /proc/self/status"
        );
    }),
    ("limits of the cgroup", |spec, _| {
        spec["linux"]["resources"] = json!({
            "memory": {"limit": 50_331_648, "reservation": 25_165_824}, "pids": {"limit": 40},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        });
        let path = spec["linux"]["cgroupsPath"].clone();
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/mnt", "type": "bind", "source": "/sys/fs/cgroup", "options": ["rbind", "ro"]}));
        let path = path.as_str().expect("a path");
        spec["process"]["args"][2] = json!(format!(
            "exec >/tmp/output 2>&1; cd /mnt; for file in memory{path}/memory.limit_in_bytes \
             memory{path}/memory.soft_limit_in_bytes pids{path}/pids.max cpu{path}/cpu.shares \
             cpu{path}/cpu.cfs_quota_us cpuset{path}/cpuset.cpus; \
             do busybox cat $file; done; busybox grep -c ^a devices{path}/devices.list"
        ));
    }),
    ("devices denied", |spec, _| {
        spec["linux"]["resources"] = json!({"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw"},
        ]});
        spec["linux"]["devices"] = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
        spec["process"]["args"][2] = json!(
            "exec >/tmp/output 2>&1; busybox head -c 3 /dev/zero | busybox wc -c; : </dev/kmsg && echo read"
        );
    }),
    // Bundles that no runtime accepts.
    ("no program", |spec, _| spec["process"]["args"] = json!([])),
    ("a program that is not there", |spec, _| spec["process"]["args"] = json!(["/bin/no-such-program"])),
    ("a program that is a folder", |spec, _| spec["process"]["args"] = json!(["/bin"])),
    ("a relative working folder", |spec, _| spec["process"]["cwd"] = json!("work")),
    ("a root that is not there", |spec, _| spec["root"]["path"] = json!("no-such-folder")),
    ("no root", |spec, _| {
        spec.as_object_mut().expect("an object").remove("root");
    }),
    ("an unknown namespace", |spec, _| {
        spec["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "soup"}));
    }),
    ("a namespace that is not there", |spec, _| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|n| n["type"] != "network");
        namespaces.push(json!({"type": "network", "path": "/no/such/file"}));
    }),
    ("a source that is not there", |spec, _| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts
            .push(json!({"destination": "/mnt", "type": "bind", "source": "/no/such", "options": ["bind"]}));
    }),
    ("a filesystem that is not there", |spec, _| {
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/mnt", "type": "soup", "source": "soup"}));
    }),
    ("a setting of the host", |spec, _| {
        spec["linux"]["sysctl"] = json!({"net.no.such": "1"});
    }),
    ("a terminal that nobody takes", |spec, _| spec["process"]["terminal"] = json!(true)),
];

#[test]
#[ignore = "oracle: runc, crun, busybox"]
fn a_container_sees_what_it_sees_with_other_runtimes() {
    let runtimes = runtimes();
    let mut different = Vec::new();
    for (what, change) in CHANGES {
        let views: Vec<String> = runtimes
            .iter()
            .map(|runtime| {
                let outside = runtime.temp.path().join("outside");
                fs::create_dir_all(outside.join("inner")).expect("a folder");
                fs::write(outside.join("file"), "text").expect("a file");
                let output = runtime.bundle().join("rootfs/tmp/output");
                drop(fs::remove_file(output));
                let mut spec = spec(runtime, LOOK);
                change(&mut spec, &outside);
                runtime.run(&spec)
            })
            .collect();
        // The others differ here and there; we must be like one of them.
        if !views[1..].contains(&views[0]) {
            let named: Vec<String> =
                runtimes.iter().zip(&views).map(|(r, view)| format!("--- {}\n{view}", r.name)).collect();
            different.push(format!("=== {what}\n{}", named.join("\n")));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
#[ignore = "oracle: runc, crun, busybox"]
fn a_terminal_goes_to_whoever_listens() {
    let words: Vec<String> = runtimes()
        .iter()
        .map(|runtime| {
            let mut spec = spec(runtime, "");
            spec["process"]["terminal"] = json!(true);
            spec["process"]["consoleSize"] = json!({"height": 30, "width": 90});
            spec["process"]["args"][2] =
                json!("busybox tty; busybox stty size; test -c /dev/console && echo console");
            runtime.write(&spec);
            let path = runtime.temp.path().join("console");
            let listener = UnixListener::bind(&path).expect("a socket");
            let (bundle, socket) = (runtime.bundle().display().to_string(), path.display().to_string());
            runtime.ok(&["create", "--bundle", &bundle, "--console-socket", &socket, "c"]);
            let (connection, _) = listener.accept().expect("a connection");
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut name = [0; 64];
            rustix::net::recvmsg(
                &connection,
                &mut [IoSliceMut::new(&mut name)],
                &mut control,
                RecvFlags::empty(),
            )
            .expect("a message");
            let mut fds = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
                _ => None,
            });
            let mut terminal = File::from(fds.next().expect("the terminal"));
            runtime.ok(&["start", "c"]);
            let mut said = Vec::new();
            // A terminal whose other side is closed gives EIO, after all that was written.
            drop(terminal.read_to_end(&mut said));
            runtime.wait_until("stopped");
            runtime.ok(&["delete", "c"]);
            String::from_utf8_lossy(&said).into_owned()
        })
        .collect();
    assert_eq!(words[0], words[1], "beside runc");
    assert_eq!(words[0], words[2], "beside crun");
}

#[test]
fn an_error_is_in_the_log_as_engines_read_it() {
    ours().tells_errors();
}

/// Hooks that note their name, and the status that they are told, in a file of the host or of the container.
fn hooks(runtime: &Runtime) -> Value {
    let host = runtime.temp.path().join("hooks");
    let hook = |name: &str, program: &str, file: &Path| {
        let script = format!(
            "state=$({program} cat | {program} tr -d ' \\n'); status=${{state#*\\\"status\\\":\\\"}}; \
             echo {name} $0 $WORD ${{status%%\\\"*}} >> {}",
            file.display()
        );
        json!([{"path": program, "args": ["sh", "-c", script, "zero"], "env": ["WORD=value"], "timeout": 10}])
    };
    json!({
        "createRuntime": hook("createRuntime", "/bin/busybox", &host),
        "createContainer": hook("createContainer", "/bin/busybox", &host),
        "startContainer": hook("startContainer", "/bin/busybox", Path::new("/tmp/hooks")),
        "poststart": hook("poststart", "/bin/busybox", &host),
        "poststop": hook("poststop", "/bin/busybox", &host),
    })
}

#[test]
#[ignore = "oracle: runc, crun, busybox"]
fn hooks_run_where_and_when_runc_runs_them() {
    for runtime in runtimes() {
        let mut spec = spec(&runtime, "cat /tmp/hooks");
        spec["hooks"] = hooks(&runtime);
        let seen = runtime.run(&spec);
        let told = fs::read_to_string(runtime.temp.path().join("hooks")).expect("hooks ran");
        // runc 1.1 says "created" after the start, where the program may also have ended already; crun says it before.
        let told = ["created", "running", "stopped"].iter().fold(told, |told, status| {
            told.replace(&format!("poststart zero value {status}"), "poststart zero value started")
        });
        let told = told.replace(" value created", " value creating");
        assert_eq!(
            told,
            "createRuntime zero value creating\ncreateContainer zero value creating\n\
             poststart zero value started\npoststop zero value stopped\n",
            "{}",
            runtime.name
        );
        // "starting" is crun's own word.
        let seen = seen.replace("starting", "created");
        assert_eq!(seen, "startContainer zero value created\n", "{}", runtime.name);
    }
}

#[test]
#[ignore = "oracle: runc, crun, busybox"]
fn a_hook_that_fails_ends_the_container_and_one_after_its_end_does_not_matter() {
    for runtime in runtimes() {
        for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststop"] {
            let mut spec = spec(&runtime, "echo ran");
            // crun dies of the broken pipe, and removes nothing, when a hook ends before it was told the state.
            let fails = match runtime.name {
                "crun" => json!(["sh", "-c", "busybox cat >/dev/null; exit 1"]),
                _ => json!(["false"]),
            };
            spec["hooks"] = json!({kind: [{"path": "/bin/busybox", "args": fails, "env": ["PATH=/bin"]}]});
            // The start of the others does not wait for it: how they end then is a race.
            if kind == "startContainer" && runtime.name != "rswarm" {
                continue;
            }
            let expected = if kind == "poststop" { "ran\n" } else { "does not start" };
            assert_eq!(runtime.run(&spec), expected, "{} {kind}", runtime.name);
            fs::remove_file(runtime.bundle().join("rootfs/tmp/output")).ok();
        }
    }
}
