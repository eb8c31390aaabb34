//! Healthchecks.

use crate::kit::{GUEST, Host, guest_with};
use engine::{ContainerConfig, HealthStatus, Healthcheck};
use std::time::Duration;

fn checked(probe: &[&str], retries: u32, shared: String) -> ContainerConfig {
    guest_with(&["park"], |c| {
        c.host.binds = vec![shared];
        c.healthcheck = Some(Healthcheck {
            test: ["CMD", GUEST].iter().chain(probe).map(|&word| word.to_owned()).collect(),
            interval: Some(Duration::from_millis(50)),
            timeout: Some(Duration::from_secs(20)),
            retries: Some(retries),
            ..Healthcheck::default()
        });
    })
}

#[track_caller]
fn until(host: &Host, id: &str, status: HealthStatus) -> engine::Health {
    let reached = host.until(id, status.as_str(), |c| c.health().is_some_and(|h| h.status == status));
    reached.health().cloned().unwrap()
}

#[test]
fn container_becomes_healthy_then_unhealthy_then_healthy_again() {
    let host = Host::new();
    let shared = host.shared();
    let id = host.start(checked(&["say:looking", "read:/shared/well"], 2, shared));
    assert_eq!(host.inspect(&id).health().unwrap().status, HealthStatus::Starting);
    host.give("well");
    let health = until(&host, &id, HealthStatus::Healthy);
    let last = health.log.last().unwrap();
    assert_eq!((last.exit_code, last.output.as_str(), health.failing_streak), (0, "looking\n", 0));
    assert!(last.start < last.end);
    host.take("well");
    let health = until(&host, &id, HealthStatus::Unhealthy);
    let last = health.log.last().unwrap();
    assert!(last.exit_code == 9 && health.failing_streak >= 2, "{health:?}");
    assert!(last.output.contains("looking\n") && last.output.contains("No such file"), "{}", last.output);
    assert_eq!(host.logs(&id).0, "", "probes do not write the container's log");
    host.give("well");
    until(&host, &id, HealthStatus::Healthy);
}

#[test]
fn health_events_tell_each_change() {
    let host = Host::new();
    let (_, mut events) = host.on(async |engine| engine.events());
    let shared = host.shared();
    let id = host.start(checked(&["exit:1"], 1, shared));
    until(&host, &id, HealthStatus::Unhealthy);
    let told = host.on(async |_| {
        loop {
            let event = events.recv().await.unwrap();
            if event.action.starts_with("health_status") {
                return event.action.clone();
            }
        }
    });
    assert_eq!(told, "health_status: unhealthy");
}

#[test]
fn probe_that_does_not_answer_fails_and_is_not_left_behind() {
    let host = Host::new();
    let shared = host.shared();
    let mut config = checked(&["park"], 1, shared);
    config.healthcheck.as_mut().unwrap().timeout = Some(Duration::from_millis(100));
    config.healthcheck.as_mut().unwrap().interval = Some(Duration::from_secs(3600));
    config.healthcheck.as_mut().unwrap().start_period = Some(Duration::from_secs(0));
    config.healthcheck.as_mut().unwrap().interval = Some(Duration::from_millis(100));
    let id = host.start(config);
    let health = until(&host, &id, HealthStatus::Unhealthy);
    assert_eq!(health.log[0].exit_code, -1);
    assert!(health.log[0].output.starts_with("Health check exceeded timeout"), "{}", health.log[0].output);
    host.until(&id, "it goes on probing", |c| c.health().is_some_and(|h| h.failing_streak >= 3));
    let top = host.on(async |engine| engine.top(&id, "-ef").await.unwrap());
    assert!(top.processes.len() <= 3, "{:?}", top.processes);
}

#[test]
fn program_of_the_probe_that_is_missing_makes_it_unhealthy() {
    let host = Host::new();
    let shared = host.shared();
    let mut config = checked(&[], 1, shared);
    config.healthcheck.as_mut().unwrap().test = vec!["CMD".into(), "/bin/nothing".into()];
    let id = host.start(config);
    let health = until(&host, &id, HealthStatus::Unhealthy);
    assert!(health.log[0].output.contains("/bin/nothing"), "{}", health.log[0].output);
}

#[test]
fn health_begins_anew_with_each_start() {
    let host = Host::new();
    let shared = host.shared();
    let id = host.start(checked(&["exit:1"], 1, shared));
    until(&host, &id, HealthStatus::Unhealthy);
    host.on(async |engine| engine.kill(&id, None).await.unwrap());
    host.try_start(&id).unwrap();
    let health = host.inspect(&id).health().cloned().unwrap();
    assert!(health.log.len() <= 1, "{health:?}");
}
