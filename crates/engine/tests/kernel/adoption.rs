//! Containers outlive the daemon: what a new one finds of them.

use crate::kit::{GUEST, Host, eventually, guest_with};
use engine::{
    ContainerConfig, Error, HealthStatus, Healthcheck, LogOptions, NetworkMode, Port, PortBinding, Status,
    StopOptions, WaitCondition,
};
use model::ContainerRestart;
use std::{io::Read, net::TcpStream, path::Path, time::Duration};

/// A container whose steps can wait for files of the test.
fn waiting(host: &Host, steps: &[&str], change: impl FnOnce(&mut ContainerConfig)) -> String {
    let shared = host.shared();
    host.start(guest_with(steps, |c| {
        c.host.binds = vec![shared];
        change(c);
    }))
}

/// Waits until a process is gone or a zombie.
fn until_ended(pid: u32) {
    eventually("the process has ended", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
    });
}

#[test]
fn running_container_is_adopted_by_a_new_daemon() {
    let mut host = Host::new();
    let id = waiting(
        &host,
        &["say:before", "wait:/shared/a", "say:meanwhile", "wait:/shared/b", "exit:7"],
        |_| {},
    );
    host.until_said(&id, "before\n");
    let before = host.inspect(&id);
    host.kill_daemon();
    host.give("a");
    host.start_daemon();
    let after = host.inspect(&id);
    assert_eq!((after.state.status, after.state.pid), (Status::Running, before.state.pid));
    assert_eq!(after.state.started_at, before.state.started_at);
    host.until_said(&id, "before\nmeanwhile\n");
    let follow = LogOptions { stdout: true, follow: true, tail: Some(0), ..LogOptions::default() };
    let mut logs = host.on(async |engine| engine.logs(&id, follow).await.unwrap());
    assert_eq!(host.exec(&id, &[GUEST, "say:inside", "exit:3"], "").unwrap().code, 3);
    host.give("b");
    assert_eq!(host.wait(&id), 7);
    assert!(host.on(async |_| logs.recv().await).is_none(), "followed logs end with it");
    assert!(matches!(host.try_start(&id), Ok(())), "it can be started again");
}

#[test]
fn adopted_container_can_be_stopped_and_removed() {
    let mut host = Host::new();
    let id = waiting(&host, &["on:TERM=4", "say:ready", "park"], |_| {});
    host.until_said(&id, "ready\n");
    host.kill_daemon();
    host.start_daemon();
    host.on(async |engine| engine.stop(&id, StopOptions::default()).await.unwrap());
    assert_eq!(host.inspect(&id).state.exit_code, 4);
    let id = waiting(&host, &["park"], |_| {});
    let pid = host.pid(&id);
    host.kill_daemon();
    host.start_daemon();
    host.remove(&id).unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn end_that_no_daemon_saw_is_collected() {
    let mut host = Host::new();
    let id = waiting(&host, &["wait:/shared/go", "say:last words", "exit:6"], |_| {});
    let pid = host.pid(&id);
    host.kill_daemon();
    host.give("go");
    until_ended(pid);
    host.start_daemon();
    // Its shim may still be at writing it down.
    let ended = host.until(&id, "it is known to have ended", |c| c.state.status == Status::Exited);
    assert_eq!((ended.state.exit_code, ended.state.pid), (6, None));
    assert!(ended.state.finished_at.unwrap() > ended.state.started_at.unwrap());
    assert_eq!(host.logs(&id).0, "last words\n");
    assert_eq!(
        host.on(async |engine| engine.wait(&id, WaitCondition::NotRunning).unwrap().exit().await).code,
        6
    );
}

#[test]
fn restart_policy_decides_about_an_end_that_no_daemon_saw() {
    let mut host = Host::new();
    let on_failure = ContainerRestart::OnFailure { max_retries: Some(3) };
    let ids = [
        ("wait:/shared/go", "exit:0", on_failure),
        ("wait:/shared/go", "exit:1", on_failure),
        ("wait:/shared/go", "exit:0", ContainerRestart::Always),
        ("wait:/shared/go", "exit:1", ContainerRestart::No),
    ]
    .map(|(wait, exit, policy)| waiting(&host, &[wait, exit], |c| c.host.restart = policy));
    let pids = ids.each_ref().map(|id| host.pid(id));
    host.kill_daemon();
    host.give("go");
    pids.into_iter().for_each(until_ended);
    host.take("go");
    host.start_daemon();
    // A shim may still be at writing the end down, and until then its container is taken for one that runs.
    for id in &ids[1..3] {
        host.until(id, "it runs again", |c| c.state.status == Status::Running && c.restart_count == 1);
    }
    for (id, code) in [(&ids[0], 0), (&ids[3], 1)] {
        let down = host.until(id, "it stays down", |c| c.state.status == Status::Exited);
        assert_eq!((down.restart_count, down.state.exit_code), (0, code));
    }
}

#[test]
fn exhausted_retries_are_not_granted_again_by_a_new_daemon() {
    let mut host = Host::new();
    let id = waiting(&host, &["append:/shared/runs=x", "wait:/shared/go", "exit:1"], |c| {
        c.host.restart = ContainerRestart::OnFailure { max_retries: Some(1) };
    });
    host.give("go");
    host.until(&id, "it has given up", |c| c.state.status == Status::Exited && c.restart_count == 1);
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(host.inspect(&id).state.status, Status::Exited);
    assert_eq!(std::fs::read_to_string(host.path("shared/runs")).unwrap(), "x\nx\n");
}

#[test]
fn lost_container_ended_by_a_kill_and_its_policy_starts_it_again() {
    let mut host = Host::new();
    let ids = [ContainerRestart::No, ContainerRestart::Always, ContainerRestart::UnlessStopped]
        .map(|policy| waiting(&host, &["park"], |c| c.host.restart = policy));
    let pids = ids.each_ref().map(|id| host.pid(id));
    host.kill_daemon();
    // As a power cut: programs and shims are gone without a word, and so is all under the run root.
    host.power_cut();
    host.start_daemon();
    let lost = host.inspect(&ids[0]);
    assert_eq!((lost.state.status, lost.state.exit_code), (Status::Exited, 137));
    for id in &ids[1..] {
        host.until(id, "it runs again", |c| c.state.status == Status::Running);
    }
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[test]
fn container_that_removes_itself_is_gone_after_an_end_that_no_daemon_saw() {
    let mut host = Host::new();
    let id = waiting(&host, &["wait:/shared/go"], |c| {
        c.host.auto_remove = true;
        c.volumes.insert("/data".into());
    });
    let pid = host.pid(&id);
    host.kill_daemon();
    host.give("go");
    until_ended(pid);
    host.start_daemon();
    // Its shim may still be at writing down that it ended.
    eventually("it is gone", || {
        host.on(async |engine| {
            let gone = matches!(engine.inspect(&id), Err(Error::NoSuchContainer(_)));
            gone && engine.volumes(&engine::Filters::default()).is_empty()
        })
    });
}

#[test]
fn paused_container_is_still_paused_for_a_new_daemon() {
    if crate::kit::squashed() {
        return; // see `paused_container_waits_and_goes_on`
    }
    let mut host = Host::new();
    let id = waiting(&host, &["wait:/shared/go", "exit:2"], |_| {});
    host.on(async |engine| engine.pause(&id).await.unwrap());
    host.kill_daemon();
    host.give("go");
    host.start_daemon();
    assert_eq!(host.inspect(&id).state.status, Status::Paused);
    host.on(async |engine| engine.unpause(&id).await.unwrap());
    assert_eq!(host.wait(&id), 2);
}

#[test]
fn published_port_answers_while_no_daemon_runs_and_after() {
    let mut host = Host::new();
    let id = waiting(&host, &["serve:80=still here"], |c| {
        c.host.network_mode = NetworkMode::Bridge;
        let container = "80/tcp".parse::<Port>().unwrap();
        c.host.port_bindings =
            vec![PortBinding { container, host_ip: None, host_port: Some(8090), last_port: None }];
    });
    host.until_said(&id, "listening\n");
    let fetch = |host: &Host| {
        host.inside(|| {
            let mut answer = String::new();
            TcpStream::connect("127.0.0.1:8090").unwrap().read_to_string(&mut answer).unwrap();
            answer
        })
    };
    let before = host.inspect(&id);
    assert_eq!(fetch(&host), "still here\n");
    host.kill_daemon();
    assert_eq!(fetch(&host), "still here\n");
    host.start_daemon();
    assert_eq!(fetch(&host), "still here\n");
    let after = host.inspect(&id);
    assert_eq!((&after.ports, &after.networks), (&before.ports, &before.networks));
    let report = host.on(async |engine| engine.network_service().audit_now().await.unwrap());
    assert_eq!((report.repairs, report.errors), (vec![], vec![]));
    let rival = host.create(ContainerConfig { name: None, ..(*after.config).clone() });
    assert!(host.try_start(&rival).is_err(), "the port is still taken");
}

#[test]
fn health_goes_on_where_it_was() {
    let mut host = Host::new();
    let id = waiting(&host, &["park"], |c| {
        c.healthcheck = Some(Healthcheck {
            test: ["CMD", GUEST, "read:/shared/well"].map(str::to_owned).to_vec(),
            interval: Some(Duration::from_millis(50)),
            retries: Some(1),
            ..Healthcheck::default()
        });
    });
    host.until(&id, "unhealthy", |c| c.health().is_some_and(|h| h.status == HealthStatus::Unhealthy));
    let record = host.path("data/containers").join(&id).join("state.json");
    eventually("it is noted", || std::fs::read_to_string(&record).unwrap().contains("unhealthy"));
    host.kill_daemon();
    host.start_daemon();
    assert_ne!(host.inspect(&id).health().unwrap().status, HealthStatus::Starting);
    host.give("well");
    host.until(&id, "healthy", |c| c.health().is_some_and(|h| h.status == HealthStatus::Healthy));
}

#[test]
fn names_labels_and_limits_survive_the_daemon() {
    let mut host = Host::new();
    let id = host.create(guest_with(&["park"], |c| {
        c.name = Some("kept".into());
        c.labels = [("a".to_owned(), "b".to_owned())].into();
        c.stop_signal = Some("USR1".into());
    }));
    let before = host.inspect(&id);
    host.stop_daemon();
    host.start_daemon();
    let after = host.inspect("kept");
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
}
