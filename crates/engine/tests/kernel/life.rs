//! Stop, kill, restart policies, names.

use crate::kit::{Host, guest, guest_with};
use engine::{Error, RemoveOptions, Status, StopOptions, WaitCondition};
use model::ContainerRestart;
use std::time::{Duration, Instant};

fn stop(host: &Host, id: &str, timeout: Duration) -> Result<(), Error> {
    let options = StopOptions { timeout: Some(timeout), ..StopOptions::default() };
    host.on(async |engine| engine.stop(id, options).await)
}

const LONG: Duration = Duration::from_secs(40);
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn stop_sends_the_stop_signal_and_returns_when_it_has_ended() {
    let host = Host::new();
    let id = host.start(guest(&["on:TERM=7", "say:ready", "park"]));
    host.until_said(&id, "ready\n");
    stop(&host, &id, LONG).unwrap();
    let state = &host.inspect(&id).state;
    assert_eq!((state.status, state.exit_code), (Status::Exited, 7));
    assert!(matches!(stop(&host, &id, LONG), Err(Error::AlreadyStopped(_))));
}

#[test]
fn stop_signal_is_the_containers_or_the_callers() {
    let host = Host::new();
    let steps = ["on:TERM=1", "on:USR1=2", "on:INT=3", "say:ready", "park"];
    let config = || guest_with(&steps, |c| c.stop_signal = Some("SIGUSR1".into()));
    let id = host.start(config());
    host.until_said(&id, "ready\n");
    stop(&host, &id, LONG).unwrap();
    assert_eq!(host.wait(&id), 2);
    let id = host.start(config());
    host.until_said(&id, "ready\n");
    let options = StopOptions { signal: Some("INT".into()), timeout: Some(LONG) };
    host.on(async |engine| engine.stop(&id, options).await.unwrap());
    assert_eq!(host.wait(&id), 3);
}

#[test]
fn stop_kills_after_the_grace_period_and_not_before() {
    let host = Host::new();
    let id = host.start(guest(&["ignore:TERM", "say:ready", "park"]));
    host.until_said(&id, "ready\n");
    let began = Instant::now();
    stop(&host, &id, SHORT).unwrap();
    assert!(began.elapsed() >= SHORT, "{:?}", began.elapsed());
    assert_eq!(host.wait(&id), 137);
}

#[test]
fn kill_is_at_once_and_other_signals_reach_the_program() {
    let host = Host::new();
    let id = host.start(guest(&["on:HUP=8", "say:ready", "park"]));
    host.until_said(&id, "ready\n");
    host.on(async |engine| engine.kill(&id, Some("SIGHUP")).await.unwrap());
    assert_eq!(host.wait(&id), 8);
    let id = host.start(guest(&["ignore:TERM", "park"]));
    host.on(async |engine| engine.kill(&id, None).await.unwrap());
    assert_eq!(host.inspect(&id).state.exit_code, 137, "kill returns when it has ended");
    let error = host.on(async |engine| engine.kill(&id, None).await.unwrap_err());
    assert_eq!(error.to_string(), format!("cannot kill container: {id}: container {id} is not running"));
    let error = host.on(async |engine| engine.kill(&id, Some("NOPE")).await.unwrap_err());
    assert_eq!(error.to_string(), "invalid signal: NOPE");
}

#[test]
fn restart_gives_a_new_process() {
    let host = Host::new();
    let id = host.start(guest(&["on:TERM=0", "say:ready", "park"]));
    host.until_said(&id, "ready\n");
    let first = host.pid(&id);
    host.on(async |engine| engine.restart(&id, StopOptions::default()).await.unwrap());
    host.until_said(&id, "ready\nready\n");
    assert_ne!(host.pid(&id), first);
    assert_eq!(host.inspect(&id).restart_count, 0, "only the policy counts");
}

#[test]
fn paused_container_waits_and_goes_on() {
    let host = Host::new();
    let shared = host.shared();
    let id =
        host.start(guest_with(&["say:ready", "wait:/shared/go", "exit:2"], |c| c.host.binds = vec![shared]));
    host.until_said(&id, "ready\n");
    let paused = host.on(async |engine| engine.pause(&id).await);
    if crate::kit::squashed() {
        // Without a freezer of its own it cannot be held; it must say so and go on.
        assert!(paused.is_err());
        assert_eq!(host.inspect(&id).state.status, Status::Running);
        return;
    }
    paused.unwrap();
    assert_eq!(host.inspect(&id).state.status, Status::Paused);
    let error = host.exec(&id, &[crate::kit::GUEST], "").unwrap_err();
    assert!(matches!(error, Error::ExecPaused(_)), "{error}");
    host.give("go");
    host.on(async |engine| engine.unpause(&id).await.unwrap());
    assert_eq!(host.wait(&id), 2);
}

#[test]
fn on_failure_restarts_so_often_and_no_more() {
    let host = Host::new();
    let id = host.start(guest_with(&["say:again", "exit:5"], |c| {
        c.host.restart = ContainerRestart::OnFailure { max_retries: Some(2) };
    }));
    let ended = host.until(&id, "it gives up", |c| c.state.status == Status::Exited);
    assert_eq!((ended.restart_count, ended.state.exit_code), (2, 5));
    assert_eq!(host.logs(&id).0, "again\n".repeat(3));
    let id = host.start(guest_with(&["exit:0"], |c| {
        c.host.restart = ContainerRestart::OnFailure { max_retries: Some(2) };
    }));
    host.wait(&id);
    assert_eq!(host.inspect(&id).restart_count, 0, "success is no failure");
}

#[test]
fn a_wait_is_over_at_each_end_of_one_that_is_started_again() {
    let host = Host::new();
    let shared = host.shared();
    let id = host.start(guest_with(&["wait:/shared/go", "exit:7"], |c| {
        c.host.restart = ContainerRestart::Always;
        c.host.binds = vec![shared];
    }));
    let waiting = host.on(async |engine| engine.wait(&id, engine::WaitCondition::NotRunning).unwrap());
    host.give("go");
    host.on(async |_| waiting.exit().await);
    let refused = host.on(async |engine| engine.remove(&id, engine::RemoveOptions::default()).await);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("stop the container before"), "{refused}");
}

#[test]
fn always_restarts_until_it_is_stopped_and_a_persons_start_begins_a_new_count() {
    let host = Host::new();
    let shared = host.shared();
    let id = host.create(guest_with(&["on:TERM=0", "wait:/shared/go"], |c| {
        c.host.restart = ContainerRestart::Always;
        c.host.binds = vec![shared];
    }));
    host.give("go");
    host.try_start(&id).unwrap();
    host.until(&id, "it was started again", |c| c.restart_count >= 2);
    host.take("go");
    let stopped = stop(&host, &id, SHORT);
    assert!(matches!(stopped, Ok(()) | Err(Error::AlreadyStopped(_))), "{stopped:?}");
    let at_rest = host.inspect(&id);
    assert!(at_rest.state.status == Status::Exited && at_rest.restart_count >= 2, "{at_rest:?}");
    host.try_start(&id).unwrap();
    assert_eq!(host.inspect(&id).restart_count, 0);
    host.give("go");
    host.until(&id, "it is started again", |c| c.restart_count >= 1);
}

#[test]
fn unless_stopped_and_always_differ_after_a_stop_and_a_new_daemon() {
    let mut host = Host::new();
    let start = |name: &str, policy| {
        host.start(guest_with(&["on:TERM=0", "say:ready", "park"], |c| {
            c.name = Some(name.into());
            c.host.restart = policy;
        }))
    };
    let ids = [start("unless", ContainerRestart::UnlessStopped), start("always", ContainerRestart::Always)];
    for id in &ids {
        host.until_said(id, "ready\n");
        stop(&host, id, LONG).unwrap();
        assert_eq!(host.inspect(id).state.status, Status::Exited);
    }
    host.stop_daemon();
    host.start_daemon();
    host.until("always", "always is up again", |c| c.state.status == Status::Running);
    assert_eq!(host.inspect("unless").state.status, Status::Exited);
}

#[test]
fn auto_removed_container_is_gone_after_its_end_and_its_code_is_told() {
    let host = Host::new();
    let id = host.create(guest_with(&["exit:3"], |c| c.host.auto_remove = true));
    let waiting = host.on(async |engine| engine.wait(&id, WaitCondition::Removed).unwrap());
    host.try_start(&id).unwrap();
    assert_eq!(host.on(async |_| waiting.exit().await).code, 3);
    host.on(async |engine| assert!(matches!(engine.inspect(&id), Err(Error::NoSuchContainer(_)))));
}

#[test]
fn name_in_use_is_an_error_until_its_holder_is_gone() {
    let host = Host::new();
    let named = || guest_with(&["park"], |c| c.name = Some("web".into()));
    let id = host.create(named());
    let error = host.try_create(named()).unwrap_err();
    assert!(matches!(&error, Error::NameInUse { name, holder } if name == "web" && *holder == id), "{error}");
    let other = host.create(guest_with(&["park"], |c| c.name = Some("other".into())));
    let error = host.on(async |engine| engine.rename(&other, "web").await.unwrap_err());
    assert!(matches!(error, Error::NameInUse { .. }), "{error}");
    host.remove("web").unwrap();
    host.on(async |engine| engine.rename(&other, "web").await.unwrap());
    assert_eq!(host.inspect("web").id, other);
    assert_eq!(host.create(guest_with(&["park"], |c| c.name = Some("other".into()))).len(), 64);
}

#[test]
fn running_container_is_removed_only_by_force() {
    let host = Host::new();
    let id = host.start(guest(&["park"]));
    let error = host.on(async |engine| engine.remove(&id, RemoveOptions::default()).await.unwrap_err());
    assert!(matches!(error, Error::RemoveRunning { .. }), "{error}");
    host.remove(&id).unwrap();
    host.on(async |engine| assert!(matches!(engine.inspect(&id), Err(Error::NoSuchContainer(_)))));
}

#[test]
fn containers_are_stopped_for_their_host_with_signal_and_grace_and_come_back_as_their_policy_says() {
    let mut host = Host::new();
    let start = |name: &str, steps: &[&str], policy, grace: u64| {
        let id = host.start(guest_with(steps, |c| {
            c.name = Some(name.into());
            c.host.restart = policy;
            c.stop_timeout = Some(Duration::from_secs(grace));
        }));
        host.until_said(&id, "ready\n");
    };
    let (polite, deaf) = (["on:TERM=0", "say:ready", "park"], ["ignore:TERM", "say:ready", "park"]);
    start("plain", &polite, ContainerRestart::No, 60);
    start("always", &polite, ContainerRestart::Always, 60);
    start("unless", &deaf, ContainerRestart::UnlessStopped, 1);
    start("failing", &deaf, ContainerRestart::OnFailure { max_retries: None }, 1);
    start("by-hand", &polite, ContainerRestart::UnlessStopped, 60);
    stop(&host, "by-hand", LONG).unwrap();
    assert_eq!(host.on(async |engine| engine.longest_grace()), Duration::from_secs(60));

    let begun = std::time::Instant::now();
    let done = host.on(async |engine| engine.stop_for_host().await);
    assert_eq!((done.stopped, done.left), (4, vec![]));
    assert!(begun.elapsed() >= Duration::from_secs(1), "who does not listen has its grace");
    assert_eq!(host.on(async |engine| engine.longest_grace()), Duration::ZERO, "nothing runs");
    let codes = ["plain", "always", "unless", "failing"].map(|name| host.inspect(name).state.exit_code);
    assert_eq!(codes, [0, 0, 137, 137]);
    let refused = host.try_start("plain").unwrap_err();
    assert!(refused.to_string().contains("this host goes down"), "{refused}");

    host.stop_daemon();
    host.start_daemon();
    for name in ["always", "unless", "failing"] {
        host.until(name, "it is back", |c| c.state.status == Status::Running);
    }
    for name in ["plain", "by-hand"] {
        assert_eq!(host.inspect(name).state.status, Status::Exited, "{name}");
    }
}
