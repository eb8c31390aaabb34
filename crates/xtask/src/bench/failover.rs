//! From SIGKILL to everything in order again.

use super::{
    Row,
    front_door::FrontDoor,
    hosts::{succeed, swarm, until},
    median, quantile,
};
use anyhow::{Result, anyhow};
use serde_json::json;
use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(60);
/// How many leaders are killed; an election's length is partly chance.
const LEADERS: usize = 5;

pub(super) fn bench(program: &Path) -> Result<Vec<Row>> {
    let mut rows = worker(program)?;
    rows.extend(leader(program)?);
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

/// A client that is patient with an attempt learns of the new leader when that attempt fails; one that starts anew
/// all the time learns of it at once. Both count.
fn leader(program: &Path) -> Result<Vec<Row>> {
    let (mut patient, mut anew) = (Vec::new(), Vec::new());
    for _ in 0..LEADERS {
        let mut lab = swarm(program, 3, 3)?;
        lab.tell("kill 1")?;
        let socket = lab.socket(2);
        let start = Instant::now();
        std::thread::scope(|scope| {
            let one = scope.spawn(|| {
                until("a patient client's write", LIMIT, || Ok(write(&socket)))?;
                anyhow::Ok(start.elapsed().as_secs_f64())
            });
            let (accepted, first) = std::sync::mpsc::sync_channel(1);
            until("a write", LIMIT, || {
                let accepted = accepted.clone();
                scope.spawn({
                    let socket = &socket;
                    // The receiver is gone once the first write was accepted.
                    move || {
                        if write(socket) {
                            let _gone = accepted.send(start.elapsed());
                        }
                    }
                });
                Ok(first.recv_timeout(Duration::from_millis(50)).is_ok_and(|took| {
                    anew.push(took.as_secs_f64());
                    true
                }))
            })?;
            patient.push(one.join().map_err(|_| anyhow!("the patient client panicked"))??);
            anyhow::Ok(())
        })?;
    }
    let row = |how: &str, times: Vec<f64>| {
        let worst = quantile(times.clone(), 1.0);
        Row::new(format!("leader killed -> first write accepted, {how}"), median(times), "s").note(format!(
            "median of {LEADERS}, worst {worst:.2}; SIGKILL to every process of the host, 3 managers; target 3"
        ))
    };
    Ok(vec![row("attempts every 50 ms", anew), row("one attempt after the other", patient)])
}

fn write(socket: &Path) -> bool {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let name = format!("c{}", NAMES.fetch_add(1, Ordering::Relaxed));
    // A daemon may close a connection whose request failed: each attempt has its own.
    let door = FrontDoor::open(socket);
    door.and_then(|mut door| door.post("/configs/create", &json!({"Name": name, "Data": "eA=="}))).is_ok()
}
