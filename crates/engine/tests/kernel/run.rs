//! What a container is when it runs: its program, environment, user, names, output.

use crate::kit::{self, Host, Outcome, guest, guest_with};
use engine::{Error, LogOptions, Status};
use tokio::io::AsyncReadExt as _;

#[test]
fn exit_code_and_both_outputs_are_kept_apart() {
    let host = Host::new();
    let outcome = host.run(guest(&["say:one", "cry:two", "say:three", "exit:3"]));
    assert_eq!(outcome, Outcome { code: 3, stdout: "one\nthree\n".into(), stderr: "two\n".into() });
}

#[test]
fn state_tells_when_it_ran_and_how_it_ended() {
    let host = Host::new();
    let id = host.create(guest(&["exit:4"]));
    let created = host.inspect(&id);
    assert_eq!((created.state.status, created.state.started_at), (Status::Created, None));
    host.try_start(&id).unwrap();
    assert_eq!(host.wait(&id), 4);
    let ended = host.inspect(&id);
    assert_eq!((ended.state.status, ended.state.exit_code, ended.state.pid), (Status::Exited, 4, None));
    assert!(ended.state.started_at.unwrap() < ended.state.finished_at.unwrap());
    assert!(created.created_at < ended.state.started_at.unwrap());
}

#[test]
fn program_gets_the_images_entrypoint_and_the_callers_arguments() {
    let host = Host::new();
    assert_eq!(host.run(guest(&["arguments", "say:x"])).stdout, "guest arguments say:x\nx\n");
    let replaced =
        guest_with(&["say:hello"], |c| c.entrypoint = Some(vec![kit::GUEST.into(), "arguments".into()]));
    assert_eq!(host.run(replaced).stdout, "/bin/guest arguments say:hello\nhello\n");
}

#[test]
fn environment_is_the_images_and_the_callers() {
    let host = Host::new();
    let steps =
        ["variable:FROM_IMAGE", "variable:GREETING", "variable:HOME", "variable:HOSTNAME", "variable:USER"];
    let asked = guest_with(&steps, |c| {
        c.env = vec!["GREETING=hello you".into()];
        c.hostname = Some("web-1".into());
    });
    assert_eq!(host.run(asked).stdout, "yes\nhello you\n/root\nweb-1\n(unset)\n");
    let removed = guest_with(&["variable:FROM_IMAGE"], |c| c.env = vec!["FROM_IMAGE".into()]);
    assert_eq!(host.run(removed).stdout, "(unset)\n");
}

#[test]
fn user_folder_and_hostname_take_effect() {
    let host = Host::new();
    let asked = guest_with(&["user", "folder", "hostname", "variable:HOME"], |c| {
        c.user = Some("web".into());
        c.working_dir = Some("/tmp".into());
        c.hostname = Some("inside".into());
    });
    let user = if kit::squashed() { "0:0" } else { "33:33" };
    assert_eq!(host.run(asked).stdout, format!("{user}\n/tmp\ninside\n/var/www\n"));
    let unknown = host.start_error(guest_with(&["user"], |c| c.user = Some("nobody-knows".into())));
    assert!(unknown.to_string().contains("nobody-knows"), "{unknown}");
}

#[test]
fn hostname_is_the_short_id_unless_asked_otherwise() {
    let host = Host::new();
    let id = host.start(guest(&["hostname", "read:/etc/hostname"]));
    host.wait(&id);
    let short = &id[..12];
    assert_eq!(host.logs(&id).0, format!("{short}\n{short}\n"));
}

#[test]
fn missing_program_is_127_an_unrunnable_one_126_and_both_can_be_tried_again() {
    let host = Host::new();
    for (program, code) in [("/bin/nothing", 127), ("/bin/not-a-program", 126)] {
        let id = host.create(guest_with(&[], |c| c.entrypoint = Some(vec![program.into()])));
        for _ in 0..2 {
            let error = host.try_start(&id).unwrap_err();
            assert!(matches!(error, Error::Start { exit_code, .. } if exit_code == code), "{error}");
            let state = &host.inspect(&id).state;
            assert_eq!((state.status, state.exit_code, state.pid), (Status::Created, code, None));
            assert!(state.error.contains(program), "{}", state.error);
        }
    }
}

#[test]
fn attached_client_talks_with_the_program() {
    let host = Host::new();
    let id = host.create(guest_with(&["cry:ready", "copy", "exit:5"], |c| {
        (c.open_stdin, c.stdin_once) = (true, true);
    }));
    let streams = host.attach(&id);
    host.try_start(&id).unwrap();
    let (stdout, stderr) = host.on(async |_| kit::converse(streams, "hello\n").await);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("hello\n", "ready\n"));
    assert_eq!(host.wait(&id), 5);
}

#[test]
fn who_reads_slowly_gets_the_last_byte_although_the_program_has_ended() {
    let host = Host::new();
    let shared = host.shared();
    std::fs::write(host.path("shared/much"), vec![b'x'; 900_000]).unwrap();
    let id = host.create(guest_with(&["read:/shared/much"], |c| c.host.binds = vec![shared]));
    let streams = host.attach(&id);
    host.try_start(&id).unwrap();
    let read = host.on(async |_| {
        let (mut stdout, mut chunk, mut read) = (streams.stdout.unwrap(), vec![0; 32 * 1024], 0);
        loop {
            match stdout.read(&mut chunk).await.unwrap() {
                0 => return read,
                more => read += more,
            }
            // It is somebody who takes his time.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    assert_eq!(read, 900_000);
    assert_eq!(host.wait(&id), 0);
}

#[test]
fn logs_can_be_cut_to_the_last_lines_and_one_stream() {
    let host = Host::new();
    let id = host.start(guest(&["say:1", "cry:2", "say:3", "say:4"]));
    host.wait(&id);
    let lines = |options: LogOptions| {
        host.on(async |engine| {
            let mut logs = engine.logs(&id, options).await.unwrap();
            let mut text = String::new();
            while let Some(entry) = logs.recv().await {
                text += &String::from_utf8_lossy(&entry.unwrap().line);
            }
            text
        })
    };
    let stdout = LogOptions { stdout: true, ..LogOptions::default() };
    assert_eq!(lines(LogOptions { tail: Some(2), ..stdout.clone() }), "3\n4\n");
    assert_eq!(lines(LogOptions { tail: Some(0), ..stdout.clone() }), "");
    assert_eq!(lines(LogOptions { stdout: false, stderr: true, ..stdout.clone() }), "2\n");
    assert_eq!(lines(LogOptions { follow: true, ..stdout }), "1\n3\n4\n");
}

#[test]
fn followed_logs_come_while_it_runs_and_end_with_it() {
    let host = Host::new();
    let shared = host.shared();
    let id = host.start(guest_with(&["say:first", "wait:/shared/go", "say:second"], |c| {
        c.host.binds = vec![shared];
    }));
    let options = LogOptions { stdout: true, follow: true, ..LogOptions::default() };
    let mut logs = host.on(async |engine| engine.logs(&id, options).await.unwrap());
    assert_eq!(host.on(async |_| logs.recv().await).unwrap().unwrap().line, "first\n");
    host.give("go");
    assert_eq!(host.on(async |_| logs.recv().await).unwrap().unwrap().line, "second\n");
    assert!(host.on(async |_| logs.recv().await).is_none());
}

#[test]
fn log_driver_none_keeps_nothing() {
    let host = Host::new();
    let id = host.start(guest_with(&["say:gone"], |c| c.host.log.driver = "none".into()));
    host.wait(&id);
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let error = host.on(async |engine| engine.logs(&id, options).await.unwrap_err());
    assert_eq!(error.to_string(), "configured logging driver does not support reading");
}

#[test]
fn secret_is_a_file_of_its_owner_in_memory() {
    let host = Host::new();
    let config = guest_with(&["read:/run/secrets/key"], |c| {
        c.host.files = vec![engine::ContainerFile {
            target: "/run/secrets/key".into(),
            uid: 0,
            gid: 0,
            mode: 0o400,
            content: engine::SecretBytes(std::sync::Arc::from(&b"hunter2"[..])),
        }];
    });
    let id = host.start(config);
    host.wait(&id);
    assert_eq!(host.logs(&id).0, "hunter2");
    host.remove(&id).unwrap();
}

#[test]
fn syslog_gets_each_line_and_the_log_has_it_too() {
    let host = Host::new();
    let path = host.path("syslog");
    let service = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    service.set_read_timeout(Some(kit::DEADLINE)).unwrap();
    let options = [
        ("syslog-address", format!("unixgram://{}", path.display())),
        ("syslog-facility", "local1".to_owned()),
        ("tag", "{{.Name}} of {{.ImageName}}".to_owned()),
    ];
    let options = options.map(|(k, v)| (k.to_owned(), v)).into();
    let outcome = host.run(guest_with(&["say:one", "cry:two"], |c| {
        c.name = Some("web".into());
        c.host.log = engine::LogConfig { driver: "syslog".into(), options };
    }));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("one\n", "two\n"));
    let received = || {
        let mut bytes = [0; 1024];
        let count = service.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let mut lines = [received(), received()];
    lines.sort();
    assert!(lines[0].starts_with("<139>") && lines[0].ends_with("]: two"), "{lines:?}");
    assert!(lines[1].starts_with("<142>") && lines[1].contains(" web of guest:latest["), "{lines:?}");
}

#[test]
fn log_service_that_is_not_there_is_an_error() {
    let host = Host::new();
    let options = [("syslog-address".to_owned(), "unixgram:///no/such/socket".to_owned())].into();
    let error = host.start_error(guest_with(&["say:x"], |c| {
        c.host.log = engine::LogConfig { driver: "syslog".into(), options };
    }));
    let text = kit::chain(&error);
    assert!(text.contains("logging driver") && text.contains("/no/such/socket"), "{text}");
}
