//! Words the benchmarks share: a swarm of hosts in a lab, and waiting for it to say something.

use super::front_door::FrontDoor;
use anyhow::{Context, Result, bail};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use testkit::Lab;

/// Longer than anything measured here may take.
pub(super) const LIMIT: Duration = Duration::from_secs(300);

/// Returns standard output of a command that succeeded.
pub(super) fn succeed(output: testkit::Output) -> Result<String> {
    if output.code != 0 {
        bail!("exit code {}: {}{}", output.code, output.stdout, output.stderr);
    }
    Ok(output.stdout)
}

/// Returns `hosts` hosts in one swarm, the first `managers` of them managers, with the hello image.
pub(super) fn swarm(program: &Path, hosts: u8, managers: u8) -> Result<Lab> {
    let lab = Lab::start(program, hosts)?;
    succeed(lab.rswarm(1, &["swarm", "init", "--advertise-addr", &Lab::address(1)]))?;
    for n in 2..=hosts {
        let role = if n <= managers { "manager" } else { "worker" };
        let token = succeed(lab.rswarm(1, &["swarm", "join-token", "-q", role]))?;
        let first = format!("{}:2377", Lab::address(1));
        let join = ["swarm", "join", "--token", token.trim(), "--advertise-addr", &Lab::address(n), &first];
        succeed(lab.rswarm(n, &join))?;
    }
    succeed(lab.rswarm(1, &["image", "hello"]))?;
    Ok(lab)
}

/// Waits for a state, asking every few milliseconds.
pub(super) fn until(
    what: &str,
    limit: Duration,
    mut there: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    while !there()? {
        if start.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(start.elapsed())
}

/// Returns how many tasks of the service are RUNNING, as the API counts them.
pub(super) fn running(door: &mut FrontDoor, service: &str) -> Result<u64> {
    let services = door.get("/services?status=true")?;
    let service =
        services.as_array().context("a list of services")?.iter().find(|s| s["Spec"]["Name"] == service);
    Ok(service.and_then(|s| s["ServiceStatus"]["RunningTasks"].as_u64()).unwrap_or(0))
}

/// Returns how many containers there are on a host, ended ones too.
pub(super) fn containers(door: &mut FrontDoor) -> Result<usize> {
    Ok(door.get("/containers/json?all=1")?.as_array().context("a list of containers")?.len())
}
