//! `service scale` 0 -> 100 and removal, until the API says so: tasks that obey SIGTERM, and tasks that do not.

use super::{
    Row, dockerd,
    front_door::FrontDoor,
    hosts::{LIMIT, containers, running, succeed, swarm, until},
    ratio,
};
use anyhow::{Context, Result};
use serde_json::json;
use std::{path::Path, time::Instant};

pub(super) const TASKS: u64 = 100;

/// What scaling took. *Unit:* seconds.
pub(super) struct Took {
    pub(super) up: f64,
    pub(super) down: f64,
}

pub(super) fn bench(program: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut one_host = None;
    for hosts in [1, 3] {
        let took = ours(program, hosts, "web", TASKS)?;
        let note =
            "POST /services/ID/update -> all RUNNING in GET /services; no network of their own; target 1";
        rows.push(Row::new(format!("scale 0 -> {TASKS} tasks, {hosts} host(s)"), took.up, "s").note(note));
        let note = "DELETE /services/ID -> no container in GET /containers of any host; tasks obey SIGTERM; target 1";
        rows.push(Row::new(format!("remove {TASKS} tasks, {hosts} host(s)"), took.down, "s").note(note));
        if hosts == 1 {
            one_host = Some(took);
        }
    }
    let deaf = ours(program, 1, "deaf", 10)?;
    rows.push(
        Row::new("remove 10 tasks that ignore SIGTERM, 1 host", deaf.down, "s")
            .note("the stop grace of 10 s is in it"),
    );
    match (dockerd::scale(program), one_host) {
        (Ok(peer), Some(ours)) => {
            rows.push(
                Row::new(format!("dockerd: scale 0 -> {TASKS} tasks, 1 host"), peer.up, "s")
                    .note(ratio(ours.up, peer.up, "dockerd")),
            );
            rows.push(
                Row::new(format!("dockerd: remove {TASKS} tasks, 1 host"), peer.down, "s")
                    .note(ratio(ours.down, peer.down, "dockerd")),
            );
        }
        (Err(error), _) => rows.push(Row::missing("dockerd: scale", format!("{error:#}"))),
        _ => {}
    }
    Ok(rows)
}

fn ours(program: &Path, hosts: u8, command: &str, tasks: u64) -> Result<Took> {
    let lab = swarm(program, hosts, hosts)?;
    let mut doors = (1..=hosts).map(|n| FrontDoor::open(&lab.socket(n))).collect::<Result<Vec<_>>>()?;
    // One task on each host and back, so that every host has the image.
    let create = ["service", "create", "--mode", "global", "--name", "first", "rswarm/hello", "web"];
    succeed(lab.rswarm(1, &create))?;
    succeed(lab.rswarm(1, &["service", "rm", "first"]))?;
    empty(&mut doors)?;

    measure(&mut doors, command, tasks)
}

/// Scales a service with no network of its own from 0 to `tasks` and removes it, all by the API of the first of
/// `doors`; the others are those of the swarm's other hosts.
pub(super) fn measure(doors: &mut [FrontDoor], command: &str, tasks: u64) -> Result<Took> {
    let spec = |replicas: u64| {
        json!({
            "Name": "many",
            "TaskTemplate": {"ContainerSpec": {"Image": "rswarm/hello", "Args": [command]}},
            "Mode": {"Replicated": {"Replicas": replicas}},
        })
    };
    let created = doors[0].post("/services/create", &spec(0))?;
    let id = created["ID"].as_str().context("a service id")?;
    let version = doors[0].get(&format!("/services/{id}"))?["Version"]["Index"].clone();
    let start = Instant::now();
    doors[0].post(&format!("/services/{id}/update?version={version}"), &spec(tasks))?;
    until("tasks running", LIMIT, || Ok(running(&mut doors[0], "many")? == tasks))?;
    let up = start.elapsed().as_secs_f64();
    let start = Instant::now();
    doors[0].delete(&format!("/services/{id}"))?;
    empty(doors)?;
    Ok(Took { up, down: start.elapsed().as_secs_f64() })
}

fn empty(doors: &mut [FrontDoor]) -> Result<()> {
    until("no container", LIMIT, || {
        let left = doors.iter_mut().map(containers).sum::<Result<usize>>()?;
        Ok(left == 0)
    })?;
    Ok(())
}
