//! Limits, usage, pausing. Without writable cgroups: the warning.

use crate::kit::{self, Fixture};
use runtime::{
    Event,
    config::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources},
};

fn limited(fixture: Fixture, change: impl FnOnce(&mut LinuxResources)) -> Fixture {
    fixture.spec(|spec| change(spec.linux.as_mut().unwrap().resources.as_mut().unwrap()))
}

/// So much memory, and with swap so much. *Unit:* MiB.
fn memory(limit: i64, swap: i64) -> Option<LinuxMemory> {
    Some(LinuxMemory { limit: Some(limit << 20), swap: Some(swap << 20), ..LinuxMemory::default() })
}

/// Where there are no cgroups the container runs, and says what it lacks.
fn runs_with_a_warning(fixture: &Fixture) {
    let mut shim = fixture.start();
    assert!(
        shim.warnings().iter().any(|warning| warning.starts_with("no resource limits")),
        "{:?}",
        shim.warnings()
    );
    shim.signal(9, false).unwrap();
    kit::wait(&mut shim);
    shim.shutdown().unwrap();
}

#[test]
fn memory_limit_kills_and_says_so() {
    let fixture = limited(Fixture::guest(&["eat:200"]), |resources| {
        resources.memory = memory(16, 16);
    });
    if !kit::has_cgroups() {
        return runs_with_a_warning(&Fixture::parked());
    }
    let mut shim = fixture.start();
    let mut told = false;
    let status = loop {
        match kit::event(&mut shim) {
            Event::Oom => told = true,
            Event::Exited(status) => break status,
            Event::ExecExited { .. } => {}
        }
    };
    assert!(told, "an event");
    assert_eq!((status.code, status.signal, status.oom), (137, Some(9), true));
    shim.shutdown().unwrap();
}

#[test]
fn killed_without_need_of_memory_is_no_oom() {
    let fixture = Fixture::parked();
    let mut shim = fixture.start();
    shim.signal(9, true).unwrap();
    assert!(!kit::wait(&mut shim).oom);
    shim.shutdown().unwrap();
}

#[test]
fn pids_limit_stops_forks() {
    if !kit::has_cgroups() {
        return;
    }
    let fixture = limited(Fixture::guest(&["spawn:park"; 9]), |resources| {
        resources.pids = Some(LinuxPids { limit: 5 });
    });
    let (status, output) = fixture.run();
    assert_eq!(status.code, 9, "a step failed: {output}");
    // The first process is one of the five. stdout and stderr come in any order.
    let refusal = "spawn:park: Resource temporarily unavailable";
    let (refused, pids): (Vec<_>, Vec<_>) = output.lines().partition(|line| line.starts_with(refusal));
    assert_eq!((refused.len(), pids.len()), (1, 4), "{output}");
}

#[test]
fn usage_is_read_and_limits_can_be_changed() {
    if !kit::has_cgroups() {
        return;
    }
    let fixture = limited(Fixture::parked(), |resources| {
        resources.memory = memory(64, 64);
        resources.pids = Some(LinuxPids { limit: 10 });
    });
    let mut shim = fixture.start();
    let stats = runtime::stats(&fixture.cgroup()).unwrap();
    assert_eq!((stats.pids, stats.pids_limit, stats.memory_limit_bytes), (1, Some(10), Some(64 << 20)));
    assert!(stats.memory_usage_bytes > 0 && stats.cpu_usage_nanos > 0 && stats.memory.contains_key("rss"));

    let cpu = LinuxCpu { quota: Some(50_000), period: Some(100_000), ..LinuxCpu::default() };
    let more = LinuxResources { memory: memory(128, 256), cpu: Some(cpu), ..LinuxResources::default() };
    runtime::update(&fixture.cgroup(), &more).unwrap();
    assert_eq!(runtime::stats(&fixture.cgroup()).unwrap().memory_limit_bytes, Some(128 << 20));
    shim.signal(9, false).unwrap();
    kit::wait(&mut shim);
    shim.shutdown().unwrap();
}

#[test]
fn paused_container_does_nothing_until_it_goes_on() {
    if !kit::has_cgroups() {
        return;
    }
    let fixture = Fixture::guest(&["tick:x"]);
    let mut shim = fixture.start();
    kit::eventually("it says something", || !fixture.output().is_empty());
    runtime::pause(&fixture.cgroup()).unwrap();
    let size = || fixture.temp.path().join("log.json").metadata().unwrap().len();
    // What was in the pipe may still arrive.
    let mut last = 0;
    kit::eventually("it is quiet", || {
        let now = size();
        let stays = now == last && now > 0;
        last = now;
        std::thread::sleep(std::time::Duration::from_millis(20));
        stays
    });
    runtime::unpause(&fixture.cgroup()).unwrap();
    kit::eventually("it goes on", || size() > last);
    runtime::pause(&fixture.cgroup()).unwrap();
    let error = kit::exec(&mut shim, "x", kit::steps(&fixture.plan, &[])).unwrap_err();
    assert_eq!(error.to_string(), "container is paused");
    // A paused one can be ended too.
    shim.shutdown().unwrap();
    assert_eq!(kit::wait(&mut shim).code, 137);
}

#[test]
fn container_sees_its_own_cgroup_only() {
    if !kit::has_cgroups() {
        return;
    }
    let steps = ["read:/proc/self/cgroup", "list:/sys/fs/cgroup", "try:write:/sys/fs/cgroup/x="];
    let output = Fixture::guest(&steps).run().1;
    assert!(!output.contains("rswarm-test"), "{output}");
    assert!(output.ends_with("\nRead-only file system\n"), "{output}");
    // Its processes with version 2, a controller with version 1.
    assert!(output.split_whitespace().any(|name| ["cgroup.procs", "memory"].contains(&name)), "{output}");
}
