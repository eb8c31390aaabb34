//! Limits, usage, pausing. Without writable cgroups: the warning.

use crate::kit::{self, Fixture};
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};
use runtime::Event;

fn limited(fixture: Fixture, change: impl FnOnce(&mut LinuxResources)) -> Fixture {
    fixture.spec(|spec| change(spec.linux_mut().as_mut().unwrap().resources_mut().as_mut().unwrap()))
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
#[ignore = "oracle: busybox"]
fn memory_limit_kills_and_says_so() {
    let fixture = limited(Fixture::sh("head -c 200m /dev/zero | tail -c 200m > /dev/shm/x"), |resources| {
        let memory = LinuxMemoryBuilder::default().limit(16_i64 << 20).swap(16_i64 << 20).build().unwrap();
        resources.set_memory(Some(memory));
    });
    let fixture = fixture.process(|process| {
        let script = "exec dd if=/dev/zero of=/dev/null bs=200M count=1";
        process.set_args(Some(["sh", "-c", script].map(str::to_owned).to_vec()));
    });
    if !kit::has_cgroups() {
        return runs_with_a_warning(&Fixture::new(&["sleep", "1000"]));
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
#[ignore = "oracle: busybox"]
fn killed_without_need_of_memory_is_no_oom() {
    let fixture = Fixture::new(&["sleep", "1000"]);
    let mut shim = fixture.start();
    shim.signal(9, true).unwrap();
    assert!(!kit::wait(&mut shim).oom);
    shim.shutdown().unwrap();
}

#[test]
#[ignore = "oracle: busybox"]
fn pids_limit_stops_forks() {
    if !kit::has_cgroups() {
        return;
    }
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; true";
    let fixture = limited(Fixture::sh(script), |resources| {
        resources.set_pids(Some(LinuxPidsBuilder::default().limit(5_i64).build().unwrap()));
    });
    let (status, output) = fixture.run();
    assert!(status.code != 0 && output.contains("fork"), "{status:?} {output}");
}

#[test]
#[ignore = "oracle: busybox"]
fn usage_is_read_and_limits_can_be_changed() {
    if !kit::has_cgroups() {
        return;
    }
    let fixture = limited(Fixture::new(&["sleep", "1000"]), |resources| {
        resources.set_memory(Some(
            LinuxMemoryBuilder::default().limit(64_i64 << 20).swap(64_i64 << 20).build().unwrap(),
        ));
        resources.set_pids(Some(LinuxPidsBuilder::default().limit(10_i64).build().unwrap()));
    });
    let mut shim = fixture.start();
    let stats = runtime::stats(&fixture.cgroup()).unwrap();
    assert_eq!((stats.pids, stats.pids_limit, stats.memory_limit_bytes), (1, Some(10), Some(64 << 20)));
    assert!(stats.memory_usage_bytes > 0 && stats.cpu_usage_nanos > 0 && stats.memory.contains_key("rss"));

    let more = LinuxResourcesBuilder::default()
        .memory(LinuxMemoryBuilder::default().limit(128_i64 << 20).swap(256_i64 << 20).build().unwrap())
        .cpu(LinuxCpuBuilder::default().quota(50_000).period(100_000_u64).build().unwrap())
        .build()
        .unwrap();
    runtime::update(&fixture.cgroup(), &more).unwrap();
    assert_eq!(runtime::stats(&fixture.cgroup()).unwrap().memory_limit_bytes, Some(128 << 20));
    shim.signal(9, false).unwrap();
    kit::wait(&mut shim);
    shim.shutdown().unwrap();
}

#[test]
#[ignore = "oracle: busybox"]
fn paused_container_does_nothing_until_it_goes_on() {
    if !kit::has_cgroups() {
        return;
    }
    let fixture = Fixture::sh("while :; do echo x; usleep 1000; done");
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
    let error = kit::exec(&mut shim, "x", kit::process(&fixture.plan, &["true"])).unwrap_err();
    assert_eq!(error.to_string(), "container is paused");
    // A paused one can be ended too.
    shim.shutdown().unwrap();
    assert_eq!(kit::wait(&mut shim).code, 137);
}

#[test]
#[ignore = "oracle: busybox"]
fn container_sees_its_own_cgroup_only() {
    if !kit::has_cgroups() {
        return;
    }
    let output = Fixture::sh("cat /proc/self/cgroup; ls /sys/fs/cgroup; touch /sys/fs/cgroup/x").run().1;
    assert!(!output.contains("rswarm-test"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(output.contains("cgroup.procs") || output.contains("memory\n"), "{output}");
}
