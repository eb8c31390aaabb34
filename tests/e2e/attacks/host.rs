//! An ordinary user of a host, and who may send requests to its socket: neither gets at what is the host's.

use crate::{SOON, lab, load_hello, swarm};
use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
};
use testkit::{Lab, wait_for};

/// Sends a body as it is; returns the status and what came with it.
pub(crate) fn post(lab: &Lab, path: &str, body: &str) -> (u16, String) {
    ask(lab, "POST", path, body)
}

/// As [`post`], by any method.
pub(crate) fn ask(lab: &Lab, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(lab.socket(1)).expect("the socket");
    let length = body.len();
    let request = format!(
        "{method} /v1.51{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    // Who refuses a long body need not read it to its end.
    match stream.write_all(request.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        outcome => outcome.expect("a request"),
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    (status, answer.rsplit_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}

#[test]
fn an_ordinary_user_of_the_host_reaches_no_file_of_a_container() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let file = lab.dir().join("tool");
    fs::write(&file, "#!/bin/sh\nid\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    let id = lab.rswarm(1, &["create", "-v", "kept:/kept", "rswarm/hello"]).ok().trim().to_owned();
    lab.rswarm(1, &["cp", "-a", file.to_str().unwrap(), &format!("{id}:/tool")]).ok();

    let data = lab.dir().join("h1/data");
    let inside = data.join(format!("containers/{id}/upper/tool"));
    assert_eq!(fs::metadata(&inside).expect("where the file is").mode() & 0o7777, 0o4755);
    let others =
        |path: &Path| fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).mode() & 0o7;
    assert_eq!(others(&data), 0, "the data root");
    let private =
        ["containers", "images", "images/layers", "volumes", "volumes/kept", "network", "networks", "build"];
    for folder in private.map(|name| data.join(name)).iter().chain([&data.join("containers").join(&id)]) {
        assert_eq!(others(folder), 0, "{}", folder.display());
    }
    let run = lab.dir().join("h1/run");
    for folder in ["c", "secrets", "network"] {
        assert_eq!(others(&run.join(folder)), 0, "{folder}");
    }
    assert_eq!(fs::metadata(lab.socket(1)).unwrap().mode() & 0o777, 0o660, "the socket");

    if is_real_root() {
        // The way there is open, but for what is ours.
        for folder in [lab.dir(), &lab.dir().join("h1")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let tried = Command::new(&inside).uid(65534).gid(65534).output();
        assert!(tried.is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied));
    }
}

fn is_real_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
        && fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"))
}

#[test]
fn who_is_neither_root_nor_in_the_sockets_group_is_not_heard() {
    if !is_real_root() {
        return; // an ordinary user's daemon knows no other users
    }
    let mut lab = lab(1);
    fs::write(lab.dir().join("h1/daemon.toml"), "group = \"no-such-group\"\n").expect("the settings");
    let unit = lab.dir().join("h1/daemon.toml");
    let refused = lab.rswarm(
        1,
        &[
            "daemon",
            "--config",
            unit.to_str().unwrap(),
            "--data-root",
            lab.dir().join("d").to_str().unwrap(),
            "--run-root",
            lab.dir().join("r").to_str().unwrap(),
        ],
    );
    let said = refused.fails();
    assert!(said.contains("groupadd --system no-such-group"), "{said}");

    fs::write(lab.dir().join("h1/daemon.toml"), "group = \"54321\"\n").expect("the settings");
    lab.tell("kill-daemon 1").expect("the daemon to be killed");
    lab.tell("start-daemon 1").expect("the daemon to be started");
    lab.wait_for_daemon(1).expect("the daemon");
    let socket = fs::metadata(lab.socket(1)).unwrap();
    assert_eq!((socket.gid(), socket.mode() & 0o777), (54_321, 0o660));
    // The way there is open, as it is on a host.
    for folder in [lab.dir(), &lab.dir().join("h1")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = lab.dir().join("rswarm");
    testkit::copy_program(Path::new(env!("CARGO_BIN_EXE_rswarm")), &program, 0o755);
    let asked = |groups: &str| {
        let said = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", groups])
            .arg(&program)
            .args(["ps", "-q"])
            .env("DOCKER_HOST", format!("unix://{}", lab.socket(1).display()))
            .env("HOME", "/nonexistent")
            .output()
            .expect("setpriv, of every Debian");
        (said.status.success(), String::from_utf8_lossy(&said.stderr).into_owned())
    };
    assert_eq!(asked("--groups=54321"), (true, String::new()));
    let (heard, said) = asked("--clear-groups");
    assert!(!heard && said.contains("permission denied at the daemon's socket"), "{said}");
    assert!(said.contains("root and group 54321 may use it"), "{said}");
    // Somebody opened it to everybody.
    fs::set_permissions(lab.socket(1), fs::Permissions::from_mode(0o666)).unwrap();
    let (heard, said) = asked("--groups=4,27");
    assert!(!heard && said.contains("neither root nor in group 54321"), "{said}");
    assert_eq!(asked("--groups=27,54321"), (true, String::new()));
}

#[test]
fn a_request_that_would_reach_the_host_is_refused_by_its_key_and_leaves_nothing() {
    let lab = lab(1);
    load_hello(&lab, 1);
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let host = |body: &str| format!(r#"{{"Image":"rswarm/hello","HostConfig":{{{body}}}}}"#);
    let config = |body: &str| format!(r#"{{"Image":"rswarm/hello",{body}}}"#);
    for (body, said) in [
        (host(r#""CgroupParent":"/../../../escape""#), "CgroupParent"),
        (host(r#""ExtraHosts":["evil:1.2.3.4\n6.6.6.6 x"]"#), "ExtraHosts"),
        (host(r#""DnsSearch":["a\nnameserver 6.6.6.6"]"#), "DnsSearch"),
        (host(r#""Binds":["/etc:/proc/sys"]"#), "inside /proc"),
        (host(r#""Tmpfs":{"/proc/self":""}"#), "inside /proc"),
        (host(r#""Tmpfs":{"/t":"size=1m,context=evil"}"#), "tmpfs"),
        (host(r#""Sysctls":{"kernel.core_pattern":"x"}"#), "kernel.core_pattern"),
        (host(r#""Sysctls":{"net.ipv4/../../kernel/core_pattern":"x"}"#), "core_pattern"),
        (host(r#""NetworkMode":"host","Sysctls":{"net.core.somaxconn":"1"}"#), "host network"),
        (host(r#""SecurityOpt":["label=type:svirt"]"#), "label"),
        (host(r#""SecurityOpt":["seccomp={\"a\":"]"#), "seccomp"),
        (host(r#""Runtime":"../../bin/sh""#), "runtime name"),
        (host(r#""Isolation":"hyperv""#), "Isolation"),
        (host(r#""CgroupnsMode":"evil""#), "cgroup namespace mode"),
        (host(r#""Devices":[{"PathOnHost":"/dev/../etc/shadow","PathInContainer":"/dev/x"}]"#), "PathOnHost"),
        (host(r#""LogConfig":{"Type":"json-file","Config":{"path":"/etc/cron.d/x"}}"#), "path"),
        (config(r#""Hostname":"a\n6.6.6.6 x""#), "Hostname"),
        (config(r#""WorkingDir":"/proc/self/fd/5""#), "WorkingDir"),
        (config(r#""User":"4294967296""#), "User"),
        (config(r#""Env":["A=\u0000"]"#), "Env"),
        (config(r#""StopSignal":"999""#), "signal"),
    ] {
        let (status, answer) = post(&lab, "/containers/create", &body);
        assert!(status == 400 && answer.contains(said), "{body}: {status} {answer}");
    }
    let (status, answer) = post(&lab, "/containers/create?name=..%2F..%2Fx", &config(r#""Tty":false"#));
    assert!(status == 400 && answer.contains("Invalid container name"), "{status} {answer}");
    let network = |name: &str, more: &str| format!(r#"{{"Name":"{name}","IPAM":{{"Config":[{{{more}}}]}}}}"#);
    let bridge =
        |name: &str| format!(r#"{{"Name":"x","Options":{{"com.docker.network.bridge.name":"{name}"}}}}"#);
    for (body, code, said) in [
        (network("a\\nb", ""), 400, "control characters"),
        (network("x", r#""Subnet":"127.0.0.0/8""#), 400, "127.0.0.0/8"),
        (network("x", r#""Subnet":"0.0.0.0/0""#), 400, "0.0.0.0/8"),
        (network("x", r#""Subnet":"198.18.0.0/24""#), 403, "overlaps route"),
        (bridge("../../x"), 400, "name of a bridge"),
        (bridge("eth0"), 403, "not of rswarm's making"),
    ] {
        let (status, answer) = post(&lab, "/networks/create", &body);
        assert!(status == code && answer.contains(said), "{body}: {status} {answer}");
    }
    for body in [r#"{"Name":"../../evil"}"#, r#"{"Name":"a\nb"}"#] {
        let (status, answer) = post(&lab, "/volumes/create", body);
        assert!(status == 400 && answer.contains("invalid characters"), "{body}: {status} {answer}");
    }
    let (status, answer) = post(&lab, "/images/rswarm%2Fhello/tag?repo=..%2F..%2Fx&tag=y", "");
    assert!(status == 400 && answer.contains("invalid reference format"), "{status} {answer}");
    assert_eq!(lab.rswarm(1, &["ps", "-aq"]).ok(), "");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

/// Everything that gets a name from outside, and names that lead elsewhere, end early, or are another line of a file.
#[test]
fn no_name_leads_out_of_what_it_names() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    let mine = lab.rswarm(1, &["create", "--name", "mine", "rswarm/hello", "web"]).ok().trim().to_owned();
    let long = "x".repeat(1 << 20);
    // As JSON and in a query: one NUL, one line feed, one escape of a terminal, one mark that turns text around.
    let names = [
        ("../../../../tmp/evil", "..%2F..%2F..%2F..%2Ftmp%2Fevil"),
        ("/etc/passwd", "%2Fetc%2Fpasswd"),
        ("..", ".."),
        ("a\\u0000b", "a%00b"),
        ("a\\nb", "a%0Ab"),
        ("\\u001b[2Ja", "%1B%5B2Ja"),
        ("a\\u202eb", "a%E2%80%AEb"),
        ("a b", "a%20b"),
        (" ", "%20"),
        (long.as_str(), long.as_str()),
    ];
    let task = r#""TaskTemplate":{"ContainerSpec":{"Image":"rswarm/hello"}}"#;
    let options = r#"{"com.docker.network.bridge.name":"NAME"}"#;
    let mounts = r#"[{"Type":"volume","Source":"NAME","Target":"/x"}]"#;
    let bodies = [
        ("/volumes/create", r#"{"Name":"NAME"}"#.to_owned()),
        ("/services/create", format!(r#"{{"Name":"NAME",{task}}}"#)),
        ("/secrets/create", r#"{"Name":"NAME","Data":"eA=="}"#.to_owned()),
        ("/configs/create", r#"{"Name":"NAME","Data":"eA=="}"#.to_owned()),
        ("/networks/create", format!(r#"{{"Name":"n","Options":{options}}}"#)),
        ("/containers/create", format!(r#"{{"Image":"rswarm/hello","HostConfig":{{"Mounts":{mounts}}}}}"#)),
    ];
    let long_in_a_query = "x".repeat(1000);
    for (in_json, in_query) in names {
        for (path, body) in &bodies {
            let (status, answer) = post(&lab, path, &body.replace("NAME", in_json));
            let name = &in_json[..in_json.len().min(40)];
            assert!((400..500).contains(&status), "{path} {name}: {status} {answer}");
        }
        let in_query = if in_query.len() > 1000 { &long_in_a_query } else { in_query };
        for path in [
            format!("/containers/create?name={in_query}"),
            format!("/containers/{mine}/rename?name={in_query}"),
            format!("/images/rswarm%2Fhello/tag?repo={in_query}&tag=x"),
            format!("/images/rswarm%2Fhello/tag?repo=x&tag={in_query}"),
            format!("/commit?container={mine}&repo={in_query}"),
        ] {
            // A name of a container may be long, and begins with what ends it in no path.
            let (status, answer) = post(&lab, &path, r#"{"Image":"rswarm/hello"}"#);
            let path = &path[..path.len().min(100)];
            let long = in_query.len() == 1000 && path.contains("name=");
            assert!((400..500).contains(&status) || long, "{path}: {status} {answer}");
        }
    }
    assert!(!Path::new("/tmp/evil").exists());
    assert_eq!(lab.rswarm(1, &["volume", "ls", "-q"]).ok(), "");
    assert_eq!(lab.rswarm(1, &["service", "ls", "-q"]).ok(), "");
    for kind in ["secret", "config"] {
        assert_eq!(lab.rswarm(1, &[kind, "ls", "-q"]).ok(), "", "{kind}");
    }
}

/// As root, `save --output /dev/null` would cost the host that device.
#[test]
fn what_a_command_writes_takes_the_place_of_no_device() {
    let lab = swarm(1, 1);
    load_hello(&lab, 1);
    lab.rswarm(1, &["create", "--name", "mine", "-v", "kept:/kept", "rswarm/hello"]).ok();
    let fifo = lab.dir().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("a fifo");
    let to = fifo.to_str().expect("a readable path");
    for args in [
        &["save", "-o", to, "rswarm/hello"][..],
        &["export", "-o", to, "mine"],
        &["volume", "export", "-o", to, "kept"],
        &["swarm", "backup", "--to", to],
        &["cp", "mine:/etc/hostname", to],
    ] {
        let said = lab.rswarm(1, args).fails();
        assert!(said.contains("must be a directory or a regular file"), "{args:?}: {said}");
        let found = fs::symlink_metadata(&fifo).expect("what was there");
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&found.file_type()), "{args:?}");
    }
    // A file takes the place of a file, and is its owner's alone.
    let file = lab.dir().join("saved.tar");
    fs::write(&file, "old").expect("a file");
    lab.rswarm(1, &["save", "-o", file.to_str().expect("a readable path"), "rswarm/hello"]).ok();
    let found = fs::metadata(&file).expect("the archive");
    assert!(found.len() > 1000 && found.mode() & 0o777 == 0o600, "{found:?}");
}

/// Lets containers of image `bare` run the host's own programs.
const PROGRAMS: &str = "/usr:/usr:ro";

/// Makes an image that has no more than the links to [`PROGRAMS`], as `bare`.
fn import_bare(lab: &Lab) {
    let path = lab.dir().join("bare.tar");
    let mut tar = tar::Builder::new(fs::File::create(&path).expect("a file"));
    for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, link, target).expect("a link");
    }
    tar.into_inner().expect("a tar");
    lab.rswarm(1, &["import", "-c", "ENV PATH=/bin", path.to_str().expect("a path"), "bare"]).ok();
}

/// Has the daemon of a host give containers ids of their own.
fn remap(lab: &mut Lab) {
    fs::write(lab.dir().join("h1/daemon.toml"), "userns-remap = \"default\"\n").expect("the settings");
    lab.tell("kill-daemon 1").expect("the daemon to be killed");
    lab.tell("start-daemon 1").expect("the daemon to be started");
    lab.wait_for_daemon(1).expect("the daemon");
}

#[test]
fn root_of_a_container_with_ids_of_its_own_plants_no_root_on_its_host() {
    if !is_real_root() {
        return;
    }
    let mut lab = lab(1);
    import_bare(&lab);
    let (open, closed) = (lab.dir().join("open"), lab.dir().join("closed"));
    for (folder, mode) in [(&open, 0o777), (&closed, 0o700)] {
        fs::create_dir(folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(closed.join("key"), "secret of the host").unwrap();
    // Whoever talks a deployer into a bind mount: a program of root for any user of the host, a look at what is root's.
    let attack = |lab: &Lab, more: &[&str], name: &str| {
        let (open, closed) = (format!("{}:/open", open.display()), format!("{}:/closed", closed.display()));
        let script = format!(
            "cp /bin/id /open/{name} && chmod 4755 /open/{name}; cat /closed/key; mknod /open/{name}.disk b 254 0; \
             stat -c %u /open/{name}; id -u"
        );
        let mounts = ["-v", PROGRAMS, "-v", &open, "-v", &closed];
        let run = [&["run", "--rm"], &mounts[..], more, &["bare", "sh", "-c", &script]].concat();
        lab.rswarm(1, &run).stdout
    };
    let planted = |name: &str| {
        let found = fs::metadata(open.join(name)).expect("what was planted");
        (found.uid(), found.mode() & 0o7777)
    };
    let said = attack(&lab, &[], "without");
    assert!(said.contains("secret of the host") && said.ends_with("0\n0\n"), "the attack works: {said}");
    assert_eq!(planted("without"), (0, 0o4755), "a program of root lies on the host");
    assert!(open.join("without.disk").exists(), "and the host's disk");

    remap(&mut lab);
    assert!(lab.rswarm(1, &["info", "--format", "{{json .SecurityOptions}}"]).ok().contains("name=userns"));
    let said = attack(&lab, &[], "with");
    assert_eq!(said, "0\n0\n", "it is root, and sees nothing of the host's");
    assert_eq!(planted("with"), (100_000, 0o4755), "what it plants is nobody's");
    assert!(!open.join("with.disk").exists());
    let id = lab.rswarm(1, &["run", "-d", "-v", PROGRAMS, "bare", "sleep", "1000"]).ok();
    let pid = lab.rswarm(1, &["exec", id.trim(), "cat", "/proc/self/uid_map"]).ok();
    assert_eq!(pid.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    for (flags, refused) in [
        (vec!["--privileged"], "privileged mode is incompatible with user namespaces"),
        (vec!["--network", "host"], "cannot share the host's network namespace"),
        (vec!["--pid", "host"], "cannot share the host PID namespace"),
        (vec!["--userns", "auto"], "invalid user namespace mode: auto"),
    ] {
        let run = [&["run", "--rm"], flags.as_slice(), &["bare", "id"]].concat();
        assert!(lab.rswarm(1, &run).fails().contains(refused), "{flags:?}");
    }
    // The way around it is the operator's, in Docker's word.
    assert!(attack(&lab, &["--userns", "host"], "host").contains("secret of the host"));
    assert_eq!(planted("host"), (0, 0o4755));
}

#[test]
fn tasks_have_the_ids_of_their_node_and_their_secrets_are_their_own() {
    if !is_real_root() {
        return;
    }
    let mut lab = lab(1);
    remap(&mut lab);
    import_bare(&lab);
    lab.rswarm(1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]).ok();
    let key = lab.dir().join("key");
    fs::write(&key, "hunter2\n").unwrap();
    lab.rswarm(1, &["secret", "create", "key", key.to_str().expect("a path")]).ok();
    lab.rswarm(1, &["network", "create", "-d", "overlay", "back"]).ok();
    let file = lab.dir().join("stack.yml");
    let text = "services:\n  web:\n    image: bare\n    command: [sh, -c, \"cat /proc/self/uid_map /run/secrets/key; \
        stat -c %u /run/secrets/key /data; sleep 1000\"]\n    secrets: [key]\n    networks: [back]\n    \
        volumes: ['data:/data', '/usr:/usr:ro']\n  plain:\n    image: bare\n    userns_mode: host\n    \
        volumes: ['/usr:/usr:ro']\n    \
        command: [sh, -c, 'cat /proc/self/uid_map; sleep 1000']\n\
        secrets: {key: {external: true}}\nnetworks: {back: {external: true}}\nvolumes: {data: }\n";
    fs::write(&file, text).unwrap();
    lab.rswarm(1, &["deploy", "--name", "s", file.to_str().expect("a path")]).ok();
    let logs = |service: &str| lab.rswarm(1, &["service", "logs", "--raw", service]).stdout;
    wait_for("what the tasks say", SOON, || {
        let (web, plain) = (logs("s_web"), logs("s_plain"));
        let words: Vec<&str> = web.split_whitespace().collect();
        match words == ["0", "100000", "65536", "hunter2", "0", "0"] && plain.contains("4294967295") {
            true => Ok(()),
            false => Err(format!("{web}{plain}")),
        }
    });
}
