//! How long the smallest request takes while others are as much work as a request can be.

use super::{Row, front_door::FrontDoor, milliseconds, quantile};
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};
use testkit::Lab;

const TIME: Duration = Duration::from_secs(10);
const VARIABLES: usize = 100_000;
const FILTERS: usize = 990;

/// Sends one request over and over until told to end. That it is refused in the end (there is no such image) does not
/// matter: it is read and judged before.
fn load(socket: &Path, (method, path, body): &(&str, String, Value), over: &AtomicBool) -> Result<u64> {
    let (mut door, mut count) = (FrontDoor::open(socket)?, 0);
    while !over.load(Ordering::Relaxed) {
        let answer = if *method == "GET" { door.get(path) } else { door.post(path, body) };
        if let Err(error) = answer
            && !error.to_string().contains("404")
        {
            return Err(error);
        }
        count += 1;
    }
    Ok(count)
}

fn pings(socket: &Path, time: Duration) -> Result<Vec<f64>> {
    let mut door = FrontDoor::open(socket)?;
    let (begin, mut took) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        let start = Instant::now();
        door.bytes("/_ping")?;
        took.push(milliseconds(start.elapsed()));
    }
    Ok(took)
}

pub(super) fn bench(program: &Path) -> Result<Vec<Row>> {
    let lab = Lab::start(program, 1)?;
    let socket = lab.socket(1);
    let variables: Vec<String> = (0..VARIABLES).map(|n| format!("VARIABLE_{n}={n}")).collect();
    let labels: Vec<String> = (0..FILTERS).map(|n| format!("label{n}=x")).collect();
    let filters = json!({"label": labels}).to_string().replace('"', "%22").replace(['{', '}'], "");
    let filters = format!("%7B{filters}%7D").replace('[', "%5B").replace(']', "%5D");
    let work = [
        ("POST", "/containers/create".to_owned(), json!({"Image": "none:none", "Env": variables})),
        ("GET", format!("/containers/json?all=1&filters={filters}"), Value::Null),
    ];
    let quiet = pings(&socket, TIME / 5)?;
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let busy = std::thread::scope(|scope| {
        let workers: Vec<_> = work.iter().map(|one| scope.spawn(|| load(&socket, one, &over))).collect();
        let busy = pings(&socket, TIME);
        over.store(true, Ordering::Relaxed);
        for worker in workers {
            match worker.join() {
                Ok(count) => done.fetch_add(count?, Ordering::Relaxed),
                Err(_) => bail!("a client panicked"),
            };
        }
        busy
    })?;
    let note = format!("beside {} requests of 100,000 variables or 990 filters", done.into_inner());
    Ok(vec![
        Row::new("_ping on a quiet host, p99", quantile(quiet, 0.99), "ms"),
        Row::new("_ping beside heavy requests, p99", quantile(busy.clone(), 0.99), "ms").note(note),
        Row::new("the same, the worst", quantile(busy, 1.0), "ms"),
    ])
}
