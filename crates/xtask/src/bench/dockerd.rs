//! The peer dockerd, where `dockerd` and `docker` are installed: with roots of its own, in namespaces that end
//! with it.

use super::{
    front_door::FrontDoor,
    hosts::until,
    milliseconds,
    scale::{self, TASKS, Took},
};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running dockerd; it, its containers and its files end with this value.
struct Dockerd {
    dir: tempfile::TempDir,
    /// `unshare`, which takes everything in its pid namespace along.
    process: Child,
    cgroup_parent: String,
}

impl Dockerd {
    /// Starts dockerd with the hello image of `program`.
    fn start(program: &Path) -> Result<Self> {
        Command::new("dockerd").arg("--version").output().context("dockerd is not installed")?;
        let dir = tempfile::Builder::new().prefix("bench-dockerd-").tempdir()?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let log = std::fs::File::create(dir.path().join("log"))?;
        let cgroup_parent = format!("bench-dockerd-{}", std::process::id());
        // It dies with us, and its namespaces with it.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare"])
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh", "-c", "ip link set lo up; exec dockerd \"$@\"", "sh"])
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["-H", &format!("unix://{}", path("docker.sock"))])
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--userland-proxy=false"])
            .args(["--storage-driver=overlay2", &format!("--cgroup-parent=/{cgroup_parent}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run setpriv")?;
        let dockerd = Self { dir, process, cgroup_parent };
        let socket = dockerd.socket();
        until("dockerd answers", Duration::from_secs(30), || {
            Ok(FrontDoor::open(&socket).and_then(|mut door| door.get("/version")).is_ok())
        })
        .with_context(|| dockerd.log())?;
        dockerd.import(program)?;
        Ok(dockerd)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn docker(&self, args: &[&str]) -> Result<std::process::Output> {
        let host = format!("unix://{}", self.socket().display());
        Command::new("docker").env("DOCKER_HOST", host).args(args).output().context("docker is not installed")
    }

    fn docker_ok(&self, args: &[&str]) -> Result<()> {
        let output = self.docker(args)?;
        if !output.status.success() {
            bail!("docker {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn import(&self, program: &Path) -> Result<()> {
        let (root, archive) = (self.dir.path().join("image"), self.dir.path().join("image.tar"));
        std::fs::create_dir(&root)?;
        std::fs::copy(program, root.join("hello"))?;
        let tar = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("hello").status()?;
        if !tar.success() {
            bail!("tar failed");
        }
        let archive = archive.display().to_string();
        self.docker_ok(&["import", "--change", r#"ENTRYPOINT ["/hello"]"#, &archive, "rswarm/hello"])
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // dockerd is pid 1 of its namespace: when it is killed, so are containerd, the shims and the containers.
        let ended = self.process.kill().and_then(|()| self.process.wait());
        if let Err(error) = ended {
            eprintln!("dockerd not ended: {error}");
        }
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies.map(|e| e.path()).chain([PathBuf::from("/sys/fs/cgroup")]) {
            remove_cgroup(&hierarchy.join(&self.cgroup_parent));
        }
    }
}

/// Removes a cgroup and those below it; its processes may need a moment to be gone.
fn remove_cgroup(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let limit = Instant::now() + Duration::from_secs(5);
    while path.exists() && std::fs::remove_dir(path).is_err() && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns how long `docker run --rm` of a program that ends at once took each of `count` times, in milliseconds.
pub(super) fn run(program: &Path, count: usize) -> Result<Vec<f64>> {
    let dockerd = Dockerd::start(program)?;
    let mut times = Vec::new();
    // The first warms caches.
    for _ in 0..=count {
        let start = Instant::now();
        let ran = dockerd.docker(&["run", "--rm", "--network", "none", "rswarm/hello", "none"])?;
        let said = String::from_utf8_lossy(&ran.stderr);
        if !said.contains("usage: hello") {
            bail!("{said}");
        }
        times.push(milliseconds(start.elapsed()));
    }
    Ok(times.split_off(1))
}

/// Returns what scaling a service of its swarm up and removing it took, measured as ours.
pub(super) fn scale(program: &Path) -> Result<Took> {
    let dockerd = Dockerd::start(program)?;
    dockerd.docker_ok(&["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1"])?;
    let door = FrontDoor::open(&dockerd.socket())?;
    scale::measure(&mut [door], "web", TASKS).with_context(|| tail(&dockerd.log()))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
