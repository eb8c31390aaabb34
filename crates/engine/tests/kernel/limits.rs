//! Limits of memory, processes and time.

use crate::kit::{Host, guest_with, squashed};
use engine::ContainerConfig;

fn limited(steps: &[&str], memory_mebibytes: u64) -> ContainerConfig {
    guest_with(steps, |c| {
        c.host.resources.memory_bytes = memory_mebibytes << 20;
        c.host.resources.memory_swap_bytes = i64::try_from(memory_mebibytes << 20).unwrap();
    })
}

#[test]
fn program_that_takes_too_much_memory_is_killed_and_reported() {
    let host = Host::new();
    let created = host.try_create(limited(&["eat:200"], 16)).unwrap();
    if squashed() {
        // An ordinary user has no cgroups: it is told so, and runs all the same.
        assert!(created.warnings.iter().any(|w| w.contains("limit")), "{:?}", created.warnings);
        host.try_start(&created.id).unwrap();
        assert_eq!(host.wait(&created.id), 0);
        return;
    }
    assert_eq!(created.warnings, [""; 0]);
    let (_, mut events) = host.on(async |engine| engine.events());
    host.try_start(&created.id).unwrap();
    assert_eq!(host.wait(&created.id), 137);
    assert!(host.inspect(&created.id).state.oom_killed);
    let first = host.on(async |_| {
        loop {
            let event = events.recv().await.unwrap();
            if matches!(event.action.as_str(), "oom" | "die") {
                return event.action.clone();
            }
        }
    });
    assert_eq!(first, "oom");
}

#[test]
fn program_that_is_only_killed_is_no_oom() {
    let host = Host::new();
    let id = host.start(limited(&["park"], 64));
    host.on(async |engine| engine.kill(&id, None).await.unwrap());
    let state = &host.inspect(&id).state;
    assert_eq!((state.exit_code, state.oom_killed), (137, false));
}

#[test]
fn limit_can_be_raised_while_it_runs() {
    if squashed() {
        return; // told at creation, see above
    }
    let host = Host::new();
    let shared = host.shared();
    let mut config = limited(&["wait:/shared/go", "eat:40"], 16);
    config.host.binds = vec![shared];
    let id = host.start(config);
    let mut update = engine::Update::default();
    update.resources.memory_bytes = 128 << 20;
    update.resources.memory_swap_bytes = 128 << 20;
    host.on(async |engine| engine.update(&id, update).await.unwrap());
    host.give("go");
    assert_eq!(host.wait(&id), 0);
    assert_eq!(host.inspect(&id).config.host.resources.memory_bytes, 128 << 20);
}

#[test]
fn usage_of_a_running_container_is_measured() {
    let host = Host::new();
    let id = host.start(guest_with(&["eat:20", "park"], |_| {}));
    host.until_said(&id, "ate 20\n");
    let stats = host.on(async |engine| engine.stats(&id).await);
    if squashed() {
        return drop(stats); // nobody counts for an ordinary user
    }
    let stats = format!("{:?}", stats.unwrap());
    assert!(stats.contains("memory"), "{stats}");
}
