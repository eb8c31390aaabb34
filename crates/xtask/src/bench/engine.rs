//! What a person does on one host, through the same `docker` CLI on our daemon and on dockerd: run, start many, pull,
//! rebuild, list; and what daemons cost with many idle containers.

use super::{
    Row,
    front_door::FrontDoor,
    hosts::{containers, succeed},
    idle::{processes, proportional_kb, resident_kb},
    median, milliseconds, quantile, ratio,
};
use anyhow::{Context, Result, bail};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};
use testkit::{Dockerd, Lab, Networks};

const RUNS: usize = 20;
const CLIENTS: usize = 4;
const STARTED: usize = 100;
const IDLE: usize = 1000;
const LISTS: usize = 200;
/// Of the pulled image, unpacked. *Unit:* bytes.
const PULLED: usize = 700 << 20;
const LAYERS: usize = 4;
const REGISTRY: &str = "127.0.0.1:5009";

/// What one daemon did. *Units:* milliseconds, containers per second, kB.
struct Did {
    run: f64,
    each_second: f64,
    rebuild: f64,
    pull: f64,
    list: f64,
    list_p99: f64,
    resident: f64,
    proportional: f64,
}

/// A daemon that listens.
struct Daemon<'a> {
    socket: PathBuf,
    /// For files.
    dir: &'a Path,
    /// What is in the command line of each of its processes.
    mark: String,
}

impl Daemon<'_> {
    fn docker(&self, args: &[&str]) -> Result<String> {
        self.docker_with(args, &[])
    }

    fn docker_with(&self, args: &[&str], input: &[u8]) -> Result<String> {
        use std::io::Write as _;
        let mut child = Command::new("docker")
            .args(args)
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_BUILDKIT", "0")
            .env("HOME", self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("docker is not installed")?;
        child.stdin.take().context("a pipe")?.write_all(input)?;
        let ended = child.wait_with_output()?;
        if !ended.status.success() {
            bail!("docker {}: {}", args.join(" "), String::from_utf8_lossy(&ended.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }

    fn timed(&self, args: &[&str], input: &[u8]) -> Result<f64> {
        let start = Instant::now();
        self.docker_with(args, input)?;
        Ok(milliseconds(start.elapsed()))
    }

    /// Imports a busybox as `bb`.
    fn import(&self) -> Result<()> {
        let root = self.dir.join("bb");
        std::fs::create_dir_all(root.join("bin"))?;
        for name in ["busybox", "true", "sh", "sleep"] {
            std::fs::copy("/bin/busybox", root.join("bin").join(name)).context("busybox-static")?;
        }
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_dir_all(".", &root)?;
        self.docker_with(&["import", "-c", "ENV PATH=/bin", "-", "bb"], &tar.into_inner()?).map(drop)
    }

    fn measure(&self) -> Result<Did> {
        self.import()?;
        let once = || self.timed(&["run", "--rm", "bb", "true"], &[]);
        once()?;
        let run = median((0..RUNS).map(|_| once()).collect::<Result<_>>()?);

        let start = Instant::now();
        std::thread::scope(|scope| {
            let client = |_| {
                scope.spawn(|| {
                    (0..STARTED / CLIENTS)
                        .try_for_each(|_| self.docker(&["run", "-d", "bb", "sleep", "3600"]).map(drop))
                })
            };
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            clients.into_iter().try_for_each(|c| c.join().unwrap_or_else(|_| bail!("a client panicked")))
        })?;
        let each_second = STARTED as f64 / start.elapsed().as_secs_f64();

        let mut dockerfile = "FROM bb\n".to_owned();
        (0..20).try_for_each(|n| writeln!(dockerfile, "RUN echo {n} >/{n}"))?;
        let build = || self.timed(&["build", "-q", "-t", "built", "-"], dockerfile.as_bytes());
        build()?;
        let rebuild = median((0..5).map(|_| build()).collect::<Result<_>>()?);

        let image = format!("{REGISTRY}/big");
        let pull = self.timed(&["pull", "-q", &image], &[])?;

        let mut door = FrontDoor::open(&self.socket)?;
        let idle = serde_json::json!({"Image": "bb", "Cmd": ["sleep", "86400"]});
        for _ in containers(&mut door)?..IDLE {
            let created = door.post("/containers/create", &idle)?;
            let id = created["Id"].as_str().context("the id of a container")?;
            door.post(&format!("/containers/{id}/start"), &serde_json::Value::Null)?;
        }
        let pids = processes(&[&self.mark])?;
        let resident = pids.iter().filter_map(|pid| resident_kb(*pid).ok()).sum();
        let proportional = pids.iter().filter_map(|pid| proportional_kb(*pid).ok()).sum();
        let mut list = || {
            let start = Instant::now();
            door.bytes("/containers/json?all=1")?;
            Ok(milliseconds(start.elapsed()))
        };
        let times = (0..LISTS).map(|_| list()).collect::<Result<Vec<_>>>()?;
        let (list, list_p99) = (median(times.clone()), quantile(times, 0.99));
        Ok(Did { run, each_second, rebuild, pull, list, list_p99, resident, proportional })
    }

    /// Pushes the image that is pulled later: layers of bytes that compress to about half.
    fn push(&self) -> Result<()> {
        let context = self.dir.join("big");
        std::fs::create_dir_all(&context)?;
        let mut dockerfile = "FROM scratch\n".to_owned();
        for layer in 0..LAYERS {
            let folder = context.join(layer.to_string());
            std::fs::create_dir(&folder)?;
            for file in 0..50 {
                let seed = (layer * 100 + file + 1) as u64;
                std::fs::write(folder.join(file.to_string()), noise(seed, PULLED / LAYERS / 50))?;
            }
            writeln!(dockerfile, "COPY {layer} /{layer}")?;
        }
        std::fs::write(context.join("Dockerfile"), dockerfile)?;
        let image = format!("{REGISTRY}/big");
        let context = context.display().to_string();
        self.docker(&["build", "-q", "-t", &image, &context])?;
        self.docker(&["push", "-q", &image])?;
        self.docker(&["rmi", "-f", &image])?;
        // Else the layers are still there, and nothing is pulled.
        self.docker(&["builder", "prune", "-a", "-f"]).map(drop)
    }
}

/// Half of it random words, half of it a repeated one.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut all = Vec::with_capacity(bytes);
    while all.len() < bytes {
        // Source: Marsaglia, "Xorshift RNGs".
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_le_bytes());
        all.extend_from_slice(b"the same");
    }
    all
}

fn registry_settings(dir: &Path, storage: &Path) -> Result<PathBuf> {
    let path = dir.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {REGISTRY}}}\n",
        storage.display()
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

pub(super) fn bench(program: &Path) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let storage = dir.path().join("registry");
    let settings = registry_settings(dir.path(), &storage)?;
    let serve = format!("/usr/bin/docker-registry serve {}", settings.display());

    // The peer first: it fills the registry.
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/oracle-dockerd");
    let tree = tree.exists().then_some(tree.as_path());
    let theirs = (|| {
        let dockerd = Dockerd::start_beside(tree, Networks::Bridges, Some(&serve))?;
        let mark = dockerd.dir().display().to_string();
        let daemon = Daemon { socket: dockerd.socket(), dir: dockerd.dir(), mark };
        daemon.push()?;
        daemon.measure()
    })();

    let mut lab = Lab::start(program, 1)?;
    lab.exec(1, &serve.split(' ').collect::<Vec<_>>())?;
    let folder = lab.dir().to_owned();
    let daemon =
        Daemon { socket: lab.socket(1), dir: &folder, mark: folder.join("h1/").display().to_string() };
    succeed(lab.rswarm(1, &["version"]))?;
    if theirs.is_err() {
        daemon.push()?;
    }
    let ours = daemon.measure()?;
    drop(lab);

    let mut rows = Vec::new();
    let mut row = |name: String, unit, part: fn(&Did) -> f64, target: &str| {
        let value = part(&ours);
        rows.push(Row::new(name.clone(), value, unit).note(match &theirs {
            Ok(theirs) => format!("{}; target {target}", ratio(value, part(theirs), "dockerd")),
            Err(error) => format!("no dockerd: {error:#}"),
        }));
        if let Ok(theirs) = &theirs {
            rows.push(Row::new(format!("dockerd: {name}"), part(theirs), unit));
        }
    };
    row(format!("docker run --rm bb true, median of {RUNS}"), "ms", |d| d.run, "0.25");
    row(format!("{STARTED} containers by {CLIENTS} clients"), "/s", |d| d.each_second, "8");
    row("docker build of 20 steps without a change, median of 5".into(), "ms", |d| d.rebuild, "0.33");
    row(format!("docker pull of {} MB in {LAYERS} layers", PULLED >> 20), "ms", |d| d.pull, "0.5");
    row(format!("daemon and shims, {IDLE} idle containers: RSS"), "kB", |d| d.resident, "0.25");
    // What all shims share, their program, counts once.
    row(format!("daemon and shims, {IDLE} idle containers: PSS"), "kB", |d| d.proportional, "0.25");
    row(format!("list of {IDLE} containers, median of {LISTS}"), "ms", |d| d.list, "-");
    row(format!("list of {IDLE} containers, p99"), "ms", |d| d.list_p99, "20 ms");
    Ok(rows)
}
