//! More programs in a running container.

use crate::kit::{GUEST, Host, Outcome, guest, guest_with};
use engine::{Error, ExecConfig, ExecStart};

#[test]
fn exec_has_its_own_exit_code_and_outputs() {
    let host = Host::new();
    let id = host.start(guest(&["park"]));
    let outcome = host.exec(&id, &[GUEST, "say:out", "cry:err", "exit:6"], "").unwrap();
    assert_eq!(outcome, Outcome { code: 6, stdout: "out\n".into(), stderr: "err\n".into() });
    assert_eq!(host.logs(&id).0, "", "an exec does not write the container's log");
}

#[test]
fn exec_reads_its_input_to_the_end() {
    let host = Host::new();
    let id = host.start(guest(&["park"]));
    let big = "line\n".repeat(200_000);
    let outcome = host.exec(&id, &[GUEST, "copy"], &big).unwrap();
    assert!(outcome.code == 0 && outcome.stdout == big, "{} bytes", outcome.stdout.len());
}

#[test]
fn exec_runs_where_and_as_whom_the_container_or_its_caller_says() {
    let host = Host::new();
    let id = host.start(guest_with(&["park"], |c| {
        c.working_dir = Some("/work".into());
        c.env = vec!["A=container".into(), "B=container".into()];
        c.hostname = Some("inside".into());
    }));
    let cmd = |steps: &[&str]| [&[GUEST], steps].concat().iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
    let config = ExecConfig {
        cmd: cmd(&["folder", "hostname", "variable:A", "variable:B"]),
        env: vec!["B=exec".into()],
        ..ExecConfig::default()
    };
    assert_eq!(host.exec_with(&id, config, "").unwrap().stdout, "/work\ninside\ncontainer\nexec\n");
    let config = ExecConfig {
        cmd: cmd(&["folder", "user"]),
        working_dir: Some("/tmp".into()),
        user: Some("web".into()),
        ..ExecConfig::default()
    };
    let user = if crate::kit::squashed() { "0:0" } else { "33:33" };
    assert_eq!(host.exec_with(&id, config, "").unwrap().stdout, format!("/tmp\n{user}\n"));
}

#[test]
fn a_terminal_has_its_size_before_the_program_looks() {
    let host = Host::new();
    let outcome = host.run(guest_with(&["terminal"], |c| {
        c.tty = true;
        c.host.console_size = Some((33, 77));
    }));
    assert_eq!(outcome.stdout, "33 77\r\n");
    let id = host.start(guest(&["park"]));
    host.on(async |engine| {
        let cmd = [GUEST, "terminal"].map(str::to_owned).to_vec();
        let config = ExecConfig { cmd, tty: true, attach_stdout: true, ..ExecConfig::default() };
        let exec = engine.exec_create(&id, config).await.unwrap();
        let start = ExecStart { console_size: Some((44, 55)), ..ExecStart::default() };
        let streams = engine.exec_start(&exec, start).await.unwrap();
        assert_eq!(crate::kit::converse(streams, "").await.0, "44 55\r\n");
    });
}

#[test]
fn program_that_cannot_be_executed_is_126_or_127_and_the_container_goes_on() {
    let host = Host::new();
    let id = host.start(guest(&["park"]));
    for (program, code) in [("nothing", 127), ("/bin/nothing", 127), ("/bin/not-a-program", 126)] {
        let exec = host.on(async |engine| {
            let config = ExecConfig { cmd: vec![program.into()], ..ExecConfig::default() };
            engine.exec_create(&id, config).await.unwrap()
        });
        let error = host.on(async |engine| engine.exec_start(&exec, ExecStart::default()).await.unwrap_err());
        assert!(matches!(error, Error::ExecFailed { exit_code, .. } if exit_code == code), "{error}");
        let ended = host.on(async |engine| engine.exec_wait(&exec).await.unwrap());
        assert_eq!((ended.running, ended.exit_code), (false, Some(code)), "{program}");
    }
    assert_eq!(host.exec(&id, &["guest", "exit:0"], "").unwrap().code, 0);
}

#[test]
fn exec_needs_a_running_container() {
    let host = Host::new();
    let id = host.create(guest(&["park"]));
    let error = host.exec(&id, &[GUEST], "").unwrap_err();
    assert_eq!(error.to_string(), format!("container {id} is not running"));
    let error = host.exec(&id, &[], "").unwrap_err();
    assert_eq!(error.to_string(), "No exec command specified");
}

#[test]
fn exec_ends_with_its_container() {
    let host = Host::new();
    let id = host.start(guest(&["park"]));
    let exec = host.on(async |engine| {
        let config = ExecConfig { cmd: vec![GUEST.into(), "park".into()], ..ExecConfig::default() };
        let exec = engine.exec_create(&id, config).await.unwrap();
        engine.exec_start(&exec, ExecStart { detach: true, ..ExecStart::default() }).await.unwrap();
        exec
    });
    assert!(host.on(async |engine| { engine.exec_inspect(&exec).unwrap().running }));
    assert_eq!(host.inspect(&id).exec_ids, std::slice::from_ref(&exec));
    host.on(async |engine| engine.kill(&id, None).await.unwrap());
    let ended = host.on(async |engine| engine.exec_wait(&exec).await.unwrap());
    assert_eq!((ended.running, ended.exit_code), (false, Some(137)));
}

#[test]
fn exec_runs_once() {
    let host = Host::new();
    let id = host.start(guest(&["park"]));
    host.on(async |engine| {
        let config = ExecConfig { cmd: vec![GUEST.into()], ..ExecConfig::default() };
        let exec = engine.exec_create(&id, config).await.unwrap();
        engine.exec_start(&exec, ExecStart::default()).await.unwrap();
        engine.exec_wait(&exec).await.unwrap();
        let again = engine.exec_start(&exec, ExecStart::default()).await.unwrap_err();
        assert!(matches!(again, Error::ExecHasRun(_)), "{again}");
    });
}
