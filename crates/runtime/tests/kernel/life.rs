//! Birth, exit and removal.

use crate::kit::{self, Fixture};
use runtime::config::{LinuxNamespaceType, User};
use runtime::{Error, Event, Shim};
use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

#[test]
fn exit_codes_are_reported() {
    for (step, code) in [("exit:0", 0), ("exit:1", 1), ("exit:42", 42)] {
        let fixture = Fixture::guest(&[step]);
        let (status, _) = fixture.run();
        assert_eq!((status.code, status.signal), (code, None), "{step}");
        assert_eq!(runtime::read_exit(&fixture.plan.dir), Some(status));
    }
}

#[test]
fn killed_container_reports_the_signal() {
    let fixture = Fixture::parked();
    let mut shim = fixture.start();
    shim.signal(9, false).unwrap();
    let status = kit::wait(&mut shim);
    assert_eq!((status.code, status.signal, status.oom), (137, Some(9), false));
    assert!(matches!(shim.signal(9, false), Err(Error::Refused { .. })));
    shim.shutdown().unwrap();
}

#[test]
fn missing_program_is_127_and_unrunnable_one_is_126() {
    for (program, code, message) in [
        ("nosuch", 127, r#"exec: "nosuch": executable file not found in $PATH"#),
        ("not-a-program", 127, r#"exec: "not-a-program": executable file not found in $PATH"#),
        ("/nosuch", 127, r#"exec: "/nosuch": stat /nosuch: no such file or directory"#),
        ("/bin/not-a-program", 126, r#"exec: "/bin/not-a-program": permission denied"#),
        ("/bin", 126, r#"exec: "/bin": is a directory"#),
    ] {
        let fixture = Fixture::new(&[program]);
        let mut shim = fixture.create().unwrap();
        let error = shim.start().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (message, code));
        assert_eq!(kit::wait(&mut shim).code, code);
        shim.shutdown().unwrap();
    }
}

#[test]
fn environment_directory_hostname_and_home_are_as_planned() {
    let steps = ["variable:GREETING", "variable:HOME", "folder", "hostname", "status:Umask"];
    let fixture = Fixture::guest(&steps)
        .process(|process| {
            process.env.as_mut().unwrap().push("GREETING=hello".into());
            process.cwd = "/tmp".into();
        })
        .spec(|spec| {
            spec.hostname = Some("web-1".into());
        });
    assert_eq!(fixture.run().1, "hello\n/root\n/tmp\nweb-1\n0022\n");
}

#[test]
fn missing_working_directory_is_made_for_a_container_and_told_to_an_exec() {
    let fixture = Fixture::guest(&["folder", "park"]).process(|process| {
        process.cwd = "/no/such".into();
    });
    let mut shim = fixture.start();
    kit::eventually("it is there", || fixture.output() == "/no/such\n");
    let mut process = fixture.plan.spec.process.clone().unwrap();
    process.cwd = "/none".into();
    let error = kit::exec(&mut shim, "one", process).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"chdir to cwd ("/none") set in config.json failed: no such file or directory"#
    );
    assert_eq!(error.exit_code(), 127);
    shim.shutdown().unwrap();
}

#[test]
fn user_is_taken_or_squashed() {
    let user = User { uid: 33, gid: 33, additional_gids: Some(vec![44]), umask: None };
    let steps = ["user", "status:Groups", "variable:HOME", "append:/dev/stdout=x"];
    let fixture = Fixture::guest(&steps).process(|process| {
        process.user = user;
    });
    let expected = if kit::squashed() { "0:0\n" } else { "33:33\n44\n/var/www\nx\n" };
    let output = fixture.run().1;
    assert!(output.starts_with(expected), "{output}");
}

#[test]
fn init_reaps_forwards_signals_and_returns_the_code() {
    let fixture = Fixture::guest(&["on:TERM=7", "pid", "orphan", "park"]).with(|plan| plan.init = true);
    let mut shim = fixture.start();
    kit::eventually("an orphan is reaped", || fixture.output().ends_with("\nreaped\n"));
    assert_ne!(fixture.output().lines().next(), Some("1"));
    let name = kit::exec(&mut shim, "name", kit::steps(&fixture.plan, &["read:/proc/1/comm"])).unwrap();
    assert_eq!(name, (0, "docker-init\n".to_owned()));
    shim.signal(15, false).unwrap();
    assert_eq!(kit::wait(&mut shim).code, 7);
    shim.shutdown().unwrap();

    let fixture = Fixture::new(&["nosuch"]).with(|plan| plan.init = true);
    let mut shim = fixture.create().unwrap();
    assert_eq!(shim.start().unwrap_err().exit_code(), 127);
    assert_eq!(kit::wait(&mut shim).code, 127);
    shim.shutdown().unwrap();
}

#[test]
fn client_may_go_and_another_one_come_back() {
    let fixture = Fixture::guest(&["on:TERM=5", "park"]);
    let pid = fixture.start().pid();
    let again = Shim::connect(&fixture.plan.dir).unwrap();
    assert_eq!((again.pid(), again.started()), (pid, true));
    // It may not be ready for it yet.
    kit::eventually("it ends", || {
        drop(again.signal(15, false));
        runtime::read_exit(&fixture.plan.dir).is_some()
    });
    drop(again);
    let mut third = Shim::connect(&fixture.plan.dir).unwrap();
    let status = kit::wait(&mut third);
    assert_eq!((status.code, Some(status)), (5, runtime::read_exit(&fixture.plan.dir)));
    third.shutdown().unwrap();
    kit::eventually("the shim is gone", || Shim::connect(&fixture.plan.dir).is_err());
}

#[test]
fn shim_keeps_descriptors_for_the_next_client() {
    let fixture = Fixture::parked();
    let shim = fixture.start();
    assert_eq!(shim.kept().unwrap().len(), 0);
    let (ours, theirs) = UnixStream::pair().unwrap();
    shim.keep(&[theirs.as_fd()]).unwrap();
    drop((shim, theirs));
    (&ours).write_all(b"waiting").unwrap();
    let next = Shim::connect(&fixture.plan.dir).unwrap();
    let [kept] = <[OwnedFd; 1]>::try_from(next.kept().unwrap()).unwrap();
    let mut said = [0; 7];
    UnixStream::from(kept).read_exact(&mut said).unwrap();
    assert_eq!(&said, b"waiting");
    next.shutdown().unwrap();
    assert_eq!((&ours).read(&mut said).unwrap(), 0, "the shim's copy is closed");
}

#[test]
fn two_clients_hear_of_the_end() {
    let fixture = Fixture::parked();
    let mut first = fixture.start();
    let mut second = Shim::connect(&fixture.plan.dir).unwrap();
    second.signal(9, true).unwrap();
    for shim in [&mut first, &mut second] {
        assert!(matches!(kit::event(shim), Event::Exited(status) if status.code == 137));
    }
    first.shutdown().unwrap();
    second.shutdown().unwrap();
}

#[test]
fn long_state_directory_is_no_obstacle() {
    let fixture =
        Fixture::guest(&[]).with(|plan| plan.dir = plan.dir.join("x".repeat(100)).join("y".repeat(100)));
    let mut shim = fixture.start();
    drop(Shim::connect(&fixture.plan.dir).unwrap());
    assert_eq!(kit::wait(&mut shim).code, 0);
    shim.shutdown().unwrap();
}

#[test]
fn container_that_cannot_be_made_leaves_nothing() {
    let mount = kit::bind("/nosuch", "/there", &[]);
    let fixture = Fixture::guest(&[]).spec(|spec| spec.mounts.as_mut().unwrap().push(mount));
    let error = fixture.create().unwrap_err();
    let text =
        r#"error mounting "/nosuch" to rootfs at "/there": cannot open "/nosuch": no such file or directory"#;
    assert_eq!(error.to_string(), text);
    assert!(runtime::stats(&fixture.cgroup()).is_err());
}

#[test]
fn killed_shim_takes_its_container_along_and_removal_finishes() {
    let fixture = Fixture::parked();
    let shim = fixture.start();
    let pid = rustix::process::Pid::from_raw(i32::try_from(shim.shim_pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let init = format!("/proc/{}/stat", shim.pid());
    kit::eventually("the container is gone", || {
        fs::read_to_string(&init).map_or(true, |stat| stat.contains(") Z "))
    });
    assert!(Shim::connect(&fixture.plan.dir).is_err());
    runtime::remove(&fixture.plan.dir, Some(&fixture.cgroup())).unwrap();
    assert!(!fixture.plan.dir.exists());
    assert!(!Path::new(&init).exists(), "not even a zombie");
}

#[test]
fn nothing_is_left_behind() {
    let count = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let mounts = count();
    let (dir, cgroup) = {
        let fixture = Fixture::guest(&["make:/tmp/x", "spawn:park"]);
        let mut shim = fixture.start();
        let processes = [shim.pid(), shim.shim_pid()];
        kit::wait(&mut shim);
        shim.shutdown().unwrap();
        assert_eq!(count(), mounts, "mounts in the host's namespace");
        runtime::remove(&fixture.plan.dir, Some(&fixture.cgroup())).unwrap();
        for pid in processes {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid}, dead or alive");
        }
        (fixture.plan.dir.clone(), fixture.cgroup())
    };
    assert!(!dir.exists());
    assert!(runtime::stats(&cgroup).is_err());
}

#[test]
fn host_namespaces_can_be_shared() {
    let fixture =
        Fixture::guest(&["target:/proc/self/ns/net", "target:/proc/self/ns/pid", "target:/proc/self/ns/uts"])
            .without_namespace(LinuxNamespaceType::Network)
            .without_namespace(LinuxNamespaceType::Pid)
            .without_namespace(LinuxNamespaceType::Uts);
    let expected: String = ["net", "pid", "uts"]
        .map(|kind| format!("{}\n", fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display()))
        .concat();
    assert_eq!(fixture.run().1, expected);
}

#[test]
fn namespaces_of_another_container_can_be_joined() {
    let first = Fixture::parked();
    let mut shim = first.start();
    let pid = shim.pid();
    let kinds = ["net", "ipc", "uts", "pid"];
    let steps = kinds.map(|kind| format!("target:/proc/self/ns/{kind}"));
    let fixture = Fixture::guest(&steps.each_ref().map(String::as_str)).spec(|spec| {
        for namespace in spec.linux.as_mut().unwrap().namespaces.as_mut().unwrap() {
            let kind = match namespace.kind {
                LinuxNamespaceType::Network => "net",
                LinuxNamespaceType::Ipc => "ipc",
                LinuxNamespaceType::Uts => "uts",
                LinuxNamespaceType::Pid => "pid",
                _ => continue,
            };
            namespace.path = Some(format!("/proc/{pid}/ns/{kind}").into());
        }
    });
    let expected: String = kinds
        .map(|kind| format!("{}\n", fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display()))
        .concat();
    assert_eq!(fixture.run().1, expected);
    shim.signal(9, false).unwrap();
    kit::wait(&mut shim);
    shim.shutdown().unwrap();
}
