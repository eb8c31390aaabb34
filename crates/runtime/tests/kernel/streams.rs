//! Logs, attached clients, terminals, execs.

use crate::kit::{self, Fixture, bind};
use runtime::{AttachFds, Error, Event, ExecPlan, LogTarget};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
};

#[test]
fn log_is_dockers_json() {
    let fixture = Fixture::guest(&["say:a<b", "write:/dev/stderr=bad"]).with(|plan| {
        if let LogTarget::JsonFile { attrs, .. } = &mut plan.log {
            attrs.push(("tag".into(), "x".into()));
        }
    });
    fixture.run();
    let text = fs::read_to_string(fixture.temp.path().join("log.json")).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let cut = |line: &str| line.split(r#","time":""#).next().unwrap().to_owned();
    assert_eq!(cut(lines[0]), r#"{"log":"a\u003cb\n","stream":"stdout","attrs":{"tag":"x"}"#);
    assert_eq!(cut(lines[1]), r#"{"log":"bad","stream":"stderr","attrs":{"tag":"x"}"#);
}

#[test]
fn log_is_rotated() {
    let fixture = Fixture::guest(&["count:1000"]).with(|plan| {
        if let LogTarget::JsonFile { max_size_bytes, max_files, .. } = &mut plan.log {
            (*max_size_bytes, *max_files) = (Some(10_000), 3);
        }
    });
    fixture.run();
    let log = |suffix: &str| fixture.temp.path().join(format!("log.json{suffix}"));
    assert!(log(".1").exists() && log(".2").exists() && !log(".3").exists());
    assert!(fs::read_to_string(log("")).unwrap().contains(r#""log":"1000\n""#));
}

#[test]
fn attached_client_sees_everything_and_then_the_end() {
    let fixture =
        Fixture::guest(&["say:out", "cry:err", "copy", "say:done"]).with(|plan| plan.stdin_open = true);
    let mut shim = fixture.create().unwrap();
    let (mut stdin, shim_stdin) = UnixStream::pair().unwrap();
    let (mut stdout, shim_stdout) = UnixStream::pair().unwrap();
    let (mut stderr, shim_stderr) = UnixStream::pair().unwrap();
    let stdio = AttachFds {
        stdin: Some(shim_stdin.into()),
        stdout: Some(shim_stdout.into()),
        stderr: Some(shim_stderr.into()),
        stdin_once: true,
    };
    shim.attach(stdio).unwrap();
    shim.start().unwrap();
    let big = "line\n".repeat(100_000);
    let writer = std::thread::spawn({
        let big = big.clone();
        move || stdin.write_all(big.as_bytes()).unwrap()
    });
    let (mut out, mut err) = (String::new(), String::new());
    stdout.read_to_string(&mut out).unwrap();
    stderr.read_to_string(&mut err).unwrap();
    writer.join().unwrap();
    assert_eq!((out, err.as_str()), (format!("out\n{big}done\n"), "err\n"));
    assert_eq!(kit::wait(&mut shim).code, 0);
    shim.shutdown().unwrap();
}

#[test]
fn input_can_be_closed_by_request() {
    let fixture = Fixture::guest(&["copy"]).with(|plan| plan.stdin_open = true);
    let mut shim = fixture.start();
    let (mut stdin, shim_stdin) = UnixStream::pair().unwrap();
    shim.attach(AttachFds { stdin: Some(shim_stdin.into()), ..AttachFds::default() }).unwrap();
    stdin.write_all(b"hello\n").unwrap();
    kit::eventually("it is echoed", || fixture.output() == "hello\n");
    drop(stdin);
    shim.close_stdin().unwrap();
    assert_eq!(kit::wait(&mut shim).code, 0);
    shim.shutdown().unwrap();
}

#[test]
fn client_that_does_not_read_is_dropped_and_the_container_goes_on() {
    let steps = ["fill:/dev/stdout=3000000", "say:end"];
    let fixture = Fixture::guest(&steps).with(|plan| plan.log = LogTarget::None);
    let mut shim = fixture.create().unwrap();
    let (mut read, write) = kit::pipe();
    shim.attach(AttachFds { stdout: Some(write), ..AttachFds::default() }).unwrap();
    shim.start().unwrap();
    assert_eq!(kit::wait(&mut shim).code, 0);
    let mut got = Vec::new();
    read.read_to_end(&mut got).unwrap();
    assert!(got.len() < 3_000_000, "{} bytes", got.len());
    shim.shutdown().unwrap();
}

#[test]
fn terminal_has_a_size_an_echo_and_one_stream() {
    let steps = ["tty", "terminal", "terminals", "kind:/dev/console", "hear"];
    let fixture = Fixture::guest(&steps).with(|plan| (plan.tty, plan.stdin_open) = (true, true));
    let mut shim = fixture.create().unwrap();
    shim.resize(None, 33, 101).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let stdin = theirs.try_clone().unwrap();
    let stdio =
        AttachFds { stdin: Some(stdin.into()), stdout: Some(theirs.into()), stderr: None, stdin_once: false };
    shim.attach(stdio).unwrap();
    shim.start().unwrap();
    // What is typed is echoed at once, so it is typed when nothing else is written.
    let said = "/dev/pts/0\r\n33 101\r\n0 1 2\r\nchar 136:0\r\n";
    let mut out = vec![0; said.len()];
    ours.set_read_timeout(Some(kit::DEADLINE)).unwrap();
    ours.read_exact(&mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), said);
    ours.write_all(b"word\n").unwrap();
    assert_eq!(kit::wait(&mut shim).code, 0);
    let mut out = String::new();
    ours.read_to_string(&mut out).unwrap();
    assert_eq!(out, "word\r\nheard word\r\n");
    assert!(matches!(shim.resize(None, 1, 1), Err(Error::Refused { .. })));
    shim.shutdown().unwrap();
}

#[test]
fn exec_runs_in_the_container_as_asked() {
    let fixture = Fixture::parked().spec(|spec| {
        spec.hostname = Some("inside".into());
    });
    let mut shim = fixture.start();
    let mut run = |id: &str, args: &[&str]| kit::exec(&mut shim, id, kit::process(&fixture.plan, args));
    assert_eq!(run("a", &["guest", "hostname", "exit:3"]).unwrap(), (3, "inside\n".into()));
    let status = run("b", &["guest", "read:/proc/self/status"]).unwrap().1;
    assert!(status.contains("CapEff:\t00000000a80425fb") && status.contains("Seccomp:\t2"), "{status}");
    let fds = run("c", &["guest", "list:/proc/self/fd", "target:/proc/self/cwd"]).unwrap();
    assert_eq!(fds, (0, "0 1 2 3\n/\n".into()));
    assert_eq!(run("d", &["guest", "die:KILL"]).unwrap().0, 137);
    for (program, code) in [("nosuch", 127), ("/bin/not-a-program", 126)] {
        let error = run("e", &[program]).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
    }
    if kit::has_cgroups() {
        let own = run("f", &["guest", "read:/proc/self/cgroup"]).unwrap().1;
        assert!(
            own.lines()
                .filter(|line| !line.contains("::") && !line.contains("systemd"))
                .all(|l| l.ends_with(":/"))
        );
    }
    shim.signal(9, false).unwrap();
    kit::wait(&mut shim);
    let error = shim.exec(ExecPlan {
        id: "g".into(),
        process: kit::steps(&fixture.plan, &[]),
        stdio: AttachFds::default(),
    });
    assert_eq!(error.unwrap_err().to_string(), "container is not running");
    shim.shutdown().unwrap();
}

#[test]
fn exec_has_input_and_loses_nothing_to_a_slow_reader() {
    let fixture = Fixture::parked();
    let mut shim = fixture.start();
    let (mut stdin, shim_stdin) = UnixStream::pair().unwrap();
    let (read, write) = kit::pipe();
    let stdio = AttachFds { stdin: Some(shim_stdin.into()), stdout: Some(write), ..AttachFds::default() };
    shim.exec(ExecPlan { id: "copy".into(), process: kit::steps(&fixture.plan, &["copy"]), stdio }).unwrap();
    let big = vec![b'x'; 4 << 20];
    let writer = std::thread::spawn({
        let big = big.clone();
        move || stdin.write_all(&big).unwrap()
    });
    let mut got = Vec::new();
    let mut read: File = read;
    read.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == big, "{} of {} bytes", got.len(), big.len());
    assert_eq!(kit::event(&mut shim), Event::ExecExited { id: "copy".into(), code: 0 });
    shim.signal(9, false).unwrap();
    kit::wait(&mut shim);
    shim.shutdown().unwrap();
}

#[test]
fn exec_with_a_terminal_can_be_resized() {
    let fixture = Fixture::parked();
    let mut shim = fixture.start();
    let mut process = kit::steps(&fixture.plan, &["hear", "terminal", "tty"]);
    process.terminal = Some(true);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let stdin = theirs.try_clone().unwrap();
    let stdio = AttachFds { stdin: Some(stdin.into()), stdout: Some(theirs.into()), ..AttachFds::default() };
    shim.exec(ExecPlan { id: "tty".into(), process, stdio }).unwrap();
    shim.resize(Some("tty"), 20, 40).unwrap();
    ours.write_all(b"\n").unwrap();
    let mut out = String::new();
    ours.read_to_string(&mut out).unwrap();
    assert!(out.contains("20 40\r\n/dev/pts/0\r\n"), "{out}");
    assert_eq!(kit::event(&mut shim), Event::ExecExited { id: "tty".into(), code: 0 });
    shim.shutdown().unwrap();
}

#[test]
fn exit_of_an_exec_waits_for_a_daemon_that_is_away() {
    let fixture = Fixture::parked();
    let shared = fixture.temp.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let fixture =
        fixture.spec(|spec| spec.mounts.as_mut().unwrap().push(bind(&shared, "/shared", &["rbind"])));
    let shim = fixture.start();
    let process = kit::steps(&fixture.plan, &["wait:/shared/go", "write:/shared/done=", "exit:6"]);
    shim.exec(ExecPlan { id: "late".into(), process, stdio: AttachFds::default() }).unwrap();
    drop(shim);
    fs::write(shared.join("go"), "").unwrap();
    kit::eventually("the exec is done", || shared.join("done").exists());
    let mut shim = runtime::Shim::connect(&fixture.plan.dir).unwrap();
    assert_eq!(kit::event(&mut shim), Event::ExecExited { id: "late".into(), code: 6 });
    shim.shutdown().unwrap();
}

#[test]
fn fifty_execs_at_once() {
    let fixture = Fixture::parked();
    let mut shim = fixture.start();
    for n in 0..50 {
        let process = kit::steps(&fixture.plan, &["exit:2"]);
        shim.exec(ExecPlan { id: n.to_string(), process, stdio: AttachFds::default() }).unwrap();
    }
    let mut ended = 0;
    while ended < 50 {
        assert!(matches!(kit::event(&mut shim), Event::ExecExited { code: 2, .. }));
        ended += 1;
    }
    shim.shutdown().unwrap();
}
