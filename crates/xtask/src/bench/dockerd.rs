//! The peer dockerd, where `dockerd` and `docker` are installed.

use super::{
    front_door::FrontDoor,
    milliseconds,
    scale::{self, TASKS, Took},
};
use anyhow::{Context, Result, bail};
use std::{path::Path, time::Instant};
use testkit::{Dockerd, Networks};

/// Starts dockerd with the hello image of `program`.
fn start(program: &Path) -> Result<Dockerd> {
    let dockerd = Dockerd::start(None, Networks::None)?;
    let archive = dockerd.dir().join("image.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive)?);
    tar.append_path_with_name(program, "hello")?;
    tar.finish()?;
    let archive = archive.display().to_string();
    docker_ok(&dockerd, &["import", "--change", r#"ENTRYPOINT ["/hello"]"#, &archive, "rswarm/hello"])?;
    Ok(dockerd)
}

fn docker_ok(dockerd: &Dockerd, args: &[&str]) -> Result<()> {
    let output = dockerd.docker(args)?;
    if output.code != 0 {
        bail!("docker {}: {}", args.join(" "), output.stderr.trim());
    }
    Ok(())
}

/// Returns how long `docker run --rm` of a program that ends at once took each of `count` times, in milliseconds.
pub(super) fn run(program: &Path, count: usize) -> Result<Vec<f64>> {
    let dockerd = start(program)?;
    let mut times = Vec::new();
    // The first warms caches.
    for _ in 0..=count {
        let start = Instant::now();
        let ran = dockerd.docker(&["run", "--rm", "--network", "none", "rswarm/hello", "none"])?;
        if !ran.stderr.contains("usage: hello") {
            bail!("{}", ran.stderr);
        }
        times.push(milliseconds(start.elapsed()));
    }
    Ok(times.split_off(1))
}

/// Returns what scaling a service of its swarm up and removing it took, measured as ours.
pub(super) fn scale(program: &Path) -> Result<Took> {
    let dockerd = start(program)?;
    docker_ok(&dockerd, &["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1"])?;
    let door = FrontDoor::open(&dockerd.socket())?;
    scale::measure(&mut [door], "web", TASKS).with_context(|| tail(&dockerd.log()))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
