//! From SIGKILL to everything in order again.

use super::{
    Row,
    front_door::FrontDoor,
    hosts::{succeed, swarm, until},
};
use anyhow::Result;
use serde_json::json;
use std::{
    path::Path,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn bench(program: &Path) -> Result<Vec<Row>> {
    let mut rows = worker(program)?;
    rows.push(leader(program)?);
    Ok(rows)
}

fn worker(program: &Path) -> Result<Vec<Row>> {
    let mut lab = swarm(program, 3, 1)?;
    let create = ["service", "create", "--name", "web", "--replicas", "6", "rswarm/hello", "web"];
    succeed(lab.rswarm(1, &create))?;
    let mut door = FrontDoor::open(&lab.socket(1))?;
    lab.tell("kill 3")?;
    let start = Instant::now();
    until("host 3 down", LIMIT, || {
        let nodes = door.get("/nodes")?;
        let mut nodes = nodes.as_array().into_iter().flatten();
        Ok(nodes.any(|n| n["Description"]["Hostname"] == "host3" && n["Status"]["State"] == "down"))
    })?;
    let seen = start.elapsed().as_secs_f64();
    until("6 tasks", LIMIT, || Ok(super::hosts::running(&mut door, "web")? == 6))?;
    Ok(vec![
        Row::new("worker killed -> seen as down", seen, "s"),
        Row::new("worker killed -> all 6 replicas running", start.elapsed().as_secs_f64(), "s")
            .note("SIGKILL to every process of the host; target 8"),
    ])
}

fn leader(program: &Path) -> Result<Row> {
    let mut lab = swarm(program, 3, 3)?;
    lab.tell("kill 1")?;
    let start = Instant::now();
    let socket = lab.socket(2);
    let mut n = 0;
    until("a write", LIMIT, || {
        n += 1;
        // A daemon may close a connection whose request failed: each attempt has its own.
        let config = json!({"Name": format!("c{n}"), "Data": "eA=="});
        Ok(FrontDoor::open(&socket)?.post("/configs/create", &config).is_ok())
    })?;
    Ok(Row::new("leader killed -> first write accepted", start.elapsed().as_secs_f64(), "s")
        .note("SIGKILL to every process of the host, 3 managers; target 3"))
}
