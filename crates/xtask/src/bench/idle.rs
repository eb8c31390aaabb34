//! What daemons and shims cost at rest.

use super::{
    Row,
    cycle::shim_rows,
    hosts::{succeed, swarm},
};
use anyhow::{Context, Result};
use std::{path::Path, time::Duration};

/// How long a daemon is watched at rest.
const WATCH: Duration = Duration::from_secs(20);
/// `sysconf(_SC_CLK_TCK)` of every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn bench(program: &Path) -> Result<Vec<Row>> {
    let lab = swarm(program, 2, 1)?;
    let mut rows = Vec::new();
    for tasks in ["0", "100"] {
        if tasks != "0" {
            let create = ["service", "create", "--name", "many", "--replicas", tasks];
            let rest = ["--constraint", "node.hostname==host2", "rswarm/hello", "web"];
            succeed(lab.rswarm(1, &[create.as_slice(), &rest].concat()))?;
        }
        std::thread::sleep(Duration::from_secs(3)); // to rest: a measurement, not a test
        let mut daemons = Vec::new();
        for (n, role) in [(1, "manager"), (2, "worker")] {
            let root = lab.dir().join(format!("h{n}")).display().to_string();
            let pid = processes(&["daemon", &root])?.pop().context("a daemon")?;
            daemons.push((role, pid, cpu_seconds(pid)?));
        }
        std::thread::sleep(WATCH);
        for (role, pid, before) in daemons {
            let name = format!("{role} at rest, {tasks} tasks on the worker");
            rows.push(Row::new(format!("{name}: RSS"), resident_kb(pid)? / 1024.0, "MB"));
            let each_minute = (cpu_seconds(pid)? - before) * 60.0 / WATCH.as_secs_f64();
            let note = format!("user and system, watched for {} s", WATCH.as_secs());
            rows.push(Row::new(format!("{name}: CPU per minute"), each_minute, "s").note(note));
        }
    }
    // A shim's argument is the folder of its container.
    let shims = processes(&[&lab.dir().join("h2/run/c/").display().to_string()])?;
    rows.extend(shim_rows(&shims, "of a daemon's task")?);
    Ok(rows)
}

/// Returns the processes whose command line has all `words`.
pub(super) fn processes(words: &[&str]) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if words.iter().all(|word| line.contains(word)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Returns the memory of a process that is in RAM, with what it shares. Source: proc(5), `status`, `VmRSS`.
pub(super) fn resident_kb(pid: u32) -> Result<f64> {
    kb_of(pid, "status", "VmRSS:")
}

/// Returns the memory of a process, a page of several counted to each by its part. Source: proc(5), `smaps_rollup`, `Pss`.
pub(super) fn proportional_kb(pid: u32) -> Result<f64> {
    kb_of(pid, "smaps_rollup", "Pss:")
}

/// Returns a number that a file of `/proc/PID` tells in a line of its own.
fn kb_of(pid: u32, file: &str, name: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let told =
        text.lines().find_map(|l| l.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok());
    told.with_context(|| format!("{file} has no {name}"))
}

/// Returns the time a process has spent in user and system mode. Source: proc_pid_stat(5), fields 14 and 15.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("no stat")?;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}
