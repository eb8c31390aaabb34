//! What a large stack file costs: reading it, beside Docker's CLI, and making a plan of it; with the growth from 500
//! services on.

use super::{Row, hosts::swarm};
use anyhow::{Context, Result, bail};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

const SIZES: [usize; 4] = [500, 1000, 2000, 5000];
const PLAN: [&str; 4] = ["deploy", "--name", "big", "--plan"];

/// A file of `services` services on twenty networks, which want no tasks.
fn file(services: usize) -> String {
    let mut text = "version: '3.8'\nx-env: &env\n  LOG: info\n  TIER: prod\nservices:\n".to_owned();
    for n in 0..services {
        let next = (n + 1) % services;
        text += &format!(
            "  svc{n}:\n    image: rswarm/hello\n    command: [web]\n    environment: {{<<: *env, NAME: n{n}, PEER: svc{next}}}\n    \
             labels: [team=t{}]\n    networks: [net{}]\n    deploy: {{replicas: 0, resources: {{limits: {{memory: 64M}}}}}}\n",
            n % 17,
            n % 20
        );
    }
    text.push_str("networks:\n");
    for n in 0..20 {
        text += &format!("  net{n}: {{}}\n");
    }
    text
}

fn seconds(command: &mut Command, codes: &[i32]) -> Result<f64> {
    let begin = Instant::now();
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().context("cannot run it")?;
    if !output.status.code().is_some_and(|code| codes.contains(&code)) {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(begin.elapsed().as_secs_f64())
}

pub(super) fn bench(program: &Path) -> Result<Vec<Row>> {
    let lab = swarm(program, 1, 1)?;
    let socket = format!("unix://{}", lab.socket(1).display());
    let mut rows = Vec::new();
    for size in SIZES {
        let path = lab.dir().join(format!("big{size}.yml"));
        std::fs::write(&path, file(size))?;
        let ours = seconds(Command::new(program).args(["stack", "config", "-c"]).arg(&path), &[0])?;
        let note = match seconds(Command::new("docker").args(["stack", "config", "-c"]).arg(&path), &[0]) {
            Ok(docker) => format!("docker {docker:.2} s, ratio {:.2}", ours / docker),
            Err(error) => format!("no docker to compare with: {error:#}"),
        };
        rows.push(Row::new(format!("stack config, {size} services"), ours, "s").note(note));
        // A plan with changes exits with 2.
        let plan = seconds(Command::new(program).args(["-H", &socket]).args(PLAN).arg(&path), &[2])?;
        rows.push(
            Row::new(format!("plan of a first deploy, {size} services"), plan, "s").note("reading included"),
        );
    }
    let path = lab.dir().join(format!("big{}.yml", SIZES[3]));
    let deploy = ["deploy", "--name", "big", "--detach", "--yes"];
    let applied = seconds(Command::new(program).args(["-H", &socket]).args(deploy).arg(&path), &[0])?;
    rows.push(
        Row::new(format!("deploy of {} services that want no tasks", SIZES[3]), applied, "s")
            .note("one write"),
    );
    let plan = seconds(Command::new(program).args(["-H", &socket]).args(PLAN).arg(&path), &[0])?;
    rows.push(
        Row::new(format!("plan that finds no change, {} services", SIZES[3]), plan, "s")
            .note("reading included"),
    );
    Ok(rows)
}
