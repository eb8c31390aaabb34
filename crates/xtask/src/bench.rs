//! The benchmarks. Each takes a lab of hosts in namespaces and the release program, and returns rows.

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use testkit::Lab;

/// One measured figure.
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    note: String,
}

impl Row {
    fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, note: String::new() }
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

type Bench = fn(&Path) -> Result<Vec<Row>>;

/// Runs the benchmarks whose names contain `only` and prints a table.
///
/// # Errors
/// A lab does not come up, or a state is not reached within its deadline.
pub(crate) fn run(only: &str, json: Option<&Path>) -> Result<()> {
    let program = build()?;
    let all: [(&str, Bench); 4] =
        [("run", container_run), ("scale", scale), ("failover", failover), ("idle", idle)];
    let mut rows = Vec::new();
    for (name, bench) in all.into_iter().filter(|(name, _)| name.contains(only)) {
        eprintln!("-- {name}");
        rows.extend(bench(&program).with_context(|| format!("benchmark {name}"))?);
    }
    if rows.is_empty() {
        bail!("no benchmark is called {only:?}");
    }
    print(&rows)?;
    if let Some(path) = json {
        let rows: Vec<_> = rows
            .iter()
            .map(|r| serde_json::json!({"name": r.name, "value": r.value, "unit": r.unit, "note": r.note}))
            .collect();
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)
            .with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

fn print(rows: &[Row]) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for row in rows {
        writeln!(out, "{:<58} {:>10.2} {:<4} {}", row.name, row.value, row.unit, row.note)?;
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    let status =
        Command::new("cargo").args(["build", "--release", "-p", "rswarm"]).status().context("cargo")?;
    if !status.success() {
        bail!("the release build failed");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    Ok(root.join("target/x86_64-unknown-linux-gnu/release/rswarm"))
}

fn succeed(output: testkit::Output) -> Result<String> {
    if output.code != 0 {
        bail!("exit code {}: {}{}", output.code, output.stdout, output.stderr);
    }
    Ok(output.stdout)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn swarm(program: &Path, hosts: u8, managers: u8) -> Result<Lab> {
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

/// Waits for a state, asking as often as the answer comes.
fn until(what: &str, limit: Duration, mut there: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while !there()? {
        if start.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(start.elapsed())
}

fn replicas(lab: &Lab, n: u8, service: &str) -> Result<String> {
    let list = lab.rswarm(n, &["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]);
    let line = list.stdout.lines().find_map(|l| l.strip_prefix(&format!("{service} ")).map(str::to_owned));
    Ok(line.unwrap_or_default())
}

/// `run --rm` of a program that ends at once, by our CLI on our daemon; runc on a bundle of the same program is
/// the peer (it makes no layers, network or logs).
fn container_run(program: &Path) -> Result<Vec<Row>> {
    let lab = Lab::start(program, 1)?;
    succeed(lab.rswarm(1, &["image", "hello"]))?;
    let once = |network: &str| -> Result<f64> {
        let start = Instant::now();
        let ran = lab.rswarm(1, &["run", "--rm", "--network", network, "rswarm/hello", "none"]);
        if !ran.stderr.contains("usage: hello") {
            bail!("{ran:?}");
        }
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    };
    let mut rows = Vec::new();
    for network in ["none", "bridge"] {
        once(network)?;
        let times = (0..40).map(|_| once(network)).collect::<Result<Vec<_>>>()?;
        rows.push(Row::new(format!("run --rm, --network {network}, median of 40"), median(times), "ms"));
    }
    for peer in ["runc", "crun"] {
        match oci_peer(&lab, program, peer) {
            Ok(ms) => {
                let ratio = rows[0].value / ms;
                rows.push(
                    Row::new(format!("{peer} run of the same program, median of 20"), ms, "ms")
                        .note(format!("ours / {peer} = {ratio:.2}")),
                );
            }
            Err(error) => {
                rows.push(Row::new(format!("{peer} run"), f64::NAN, "ms").note(format!("{error:#}")))
            }
        }
    }
    Ok(rows)
}

fn oci_peer(lab: &Lab, program: &Path, peer: &str) -> Result<f64> {
    let bundle = lab.dir().join(format!("bundle-{peer}"));
    std::fs::create_dir_all(bundle.join("rootfs"))?;
    std::fs::copy(program, bundle.join("rootfs/hello"))?;
    let spec = Command::new(peer).arg("spec").current_dir(&bundle).output().context("not installed")?;
    if !spec.status.success() {
        bail!("{peer} spec: {}", String::from_utf8_lossy(&spec.stderr).trim());
    }
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["args"] = serde_json::json!(["/hello", "none"]);
    config["process"]["terminal"] = false.into();
    std::fs::write(&path, config.to_string())?;
    let mut times = Vec::new();
    for n in 0..21 {
        let start = Instant::now();
        let ran = Command::new(peer)
            .args(["run", &format!("bench-{}-{n}", std::process::id())])
            .current_dir(&bundle)
            .stdin(Stdio::null())
            .output()?;
        if !String::from_utf8_lossy(&ran.stderr).contains("usage: hello") {
            bail!("{}", String::from_utf8_lossy(&ran.stderr).trim());
        }
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(median(times.split_off(1)))
}

/// `service scale` 0 -> 100 -> 0 until the API says so, on one host and on three.
fn scale(program: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for hosts in [1, 3] {
        let lab = swarm(program, hosts, hosts)?;
        // `hello counter` without a volume ends at SIGTERM like any program with a handler or an init.
        let create = ["service", "create", "-d", "--name", "many", "--replicas", "0", "rswarm/hello", "web"];
        succeed(lab.rswarm(1, &create))?;
        let start = Instant::now();
        succeed(lab.rswarm(1, &["scale", "--detach", "many=100"]))?;
        until("100 tasks", Duration::from_secs(300), || Ok(replicas(&lab, 1, "many")? == "100/100"))?;
        rows.push(Row::new(
            format!("scale 0 -> 100 tasks, {hosts} host(s)"),
            start.elapsed().as_secs_f64(),
            "s",
        ));
        let start = Instant::now();
        succeed(lab.rswarm(1, &["service", "rm", "many"]))?;
        until("no container", Duration::from_secs(300), || {
            let mut left = 0;
            for n in 1..=hosts {
                left += succeed(lab.rswarm(n, &["ps", "-a", "-q"]))?.lines().count();
            }
            Ok(left == 0)
        })?;
        rows.push(Row::new(format!("remove 100 tasks, {hosts} host(s)"), start.elapsed().as_secs_f64(), "s"));
    }
    Ok(rows)
}

/// From SIGKILL to everything running again.
fn failover(program: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut lab = swarm(program, 3, 1)?;
    succeed(
        lab.rswarm(1, &["service", "create", "--name", "web", "--replicas", "6", "rswarm/hello", "web"]),
    )?;
    lab.tell("kill 3")?;
    let start = Instant::now();
    until("host 3 down", Duration::from_secs(60), || {
        Ok(lab
            .rswarm(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])
            .stdout
            .contains("host3 Down"))
    })?;
    rows.push(Row::new("worker killed -> seen as down", start.elapsed().as_secs_f64(), "s"));
    until("6 tasks", Duration::from_secs(60), || Ok(replicas(&lab, 1, "web")? == "6/6"))?;
    rows.push(
        Row::new("worker killed -> all replicas running", start.elapsed().as_secs_f64(), "s")
            .note("target 8 s"),
    );
    drop(lab);

    let mut lab = swarm(program, 3, 3)?;
    let config = lab.dir().join("config");
    std::fs::write(&config, "x")?;
    let config = config.to_str().context("a readable path")?.to_owned();
    lab.tell("kill 1")?;
    let start = Instant::now();
    let mut n = 0;
    until("a write", Duration::from_secs(60), || {
        n += 1;
        Ok(lab.rswarm(2, &["config", "create", &format!("c{n}"), &config]).code == 0)
    })?;
    rows.push(
        Row::new("leader killed -> first write accepted", start.elapsed().as_secs_f64(), "s")
            .note("target 3 s"),
    );
    Ok(rows)
}

/// Memory of daemons and shims at rest.
fn idle(program: &Path) -> Result<Vec<Row>> {
    let lab = swarm(program, 2, 1)?;
    let mut rows = Vec::new();
    for tasks in [0, 100] {
        if tasks > 0 {
            let create = [
                "service",
                "create",
                "--name",
                "many",
                "--replicas",
                &tasks.to_string(),
                "rswarm/hello",
                "web",
            ];
            succeed(lab.rswarm(1, &create))?;
        }
        std::thread::sleep(Duration::from_secs(2)); // at rest: a measurement, not a test
        for (n, role) in [(1, "manager"), (2, "worker")] {
            let root = lab.dir().join(format!("h{n}"));
            let daemons = memory(&["daemon".to_owned(), root.display().to_string()])?;
            rows.push(Row::new(
                format!("{role} daemon, {tasks} tasks in the swarm: RSS"),
                daemons.0 / 1024.0,
                "MB",
            ));
        }
        if tasks > 0 {
            let (kilobytes, count) = memory(&["shim".to_owned(), lab.dir().display().to_string()])?;
            let note = format!("of {count} shims");
            rows.push(Row::new("shim: RSS, mean", kilobytes / count.max(1) as f64, "kB").note(note));
        }
    }
    Ok(rows)
}

/// Sums the resident memory of the processes whose command line has all `words`. *Unit:* kB, processes.
fn memory(words: &[String]) -> Result<(f64, usize)> {
    let (mut sum, mut count) = (0.0, 0);
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if !words.iter().all(|w| line.contains(w.as_str())) {
            continue;
        }
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let rss = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
        sum += rss.unwrap_or(0.0);
        count += 1;
    }
    Ok((sum, count))
}
