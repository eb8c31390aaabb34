//! A real dockerd to compare with: with roots of its own, in namespaces that end with it.

use crate::Output;
use anyhow::{Context, Result};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long it may take to start.
const LIMIT: Duration = Duration::from_secs(30);

/// Which networks its containers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Networks {
    /// Loopback only.
    None,
    /// Bridges, without a way out; ports are published by docker-proxy.
    Bridges,
}

/// A running dockerd; it, its containers and its files end with this value.
#[derive(Debug)]
pub struct Dockerd {
    dir: tempfile::TempDir,
    /// `unshare`, which takes everything in its pid namespace along.
    process: Child,
    cgroup_parent: String,
}

impl Dockerd {
    /// Starts dockerd: of an unpacked tree of Debian's packages (`usr/sbin/dockerd` ...), else the one on PATH.
    ///
    /// # Errors
    /// It is not installed or does not answer within 30 s; its log is in the error.
    pub fn start(tree: Option<&Path>, networks: Networks) -> Result<Self> {
        Self::start_beside(tree, networks, None)
    }

    /// As [`start`](Self::start), with another command line that runs in the same namespaces and ends with them.
    ///
    /// # Errors
    /// As there.
    pub fn start_beside(tree: Option<&Path>, networks: Networks, beside: Option<&str>) -> Result<Self> {
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        let mut libraries = OsString::new();
        if let Some(tree) = tree {
            let of_tree = |folders: &[&str]| folders.iter().map(|f| tree.join(f)).collect::<Vec<_>>();
            let programs = of_tree(&["usr/sbin", "usr/bin"]);
            path = std::env::join_paths(programs.into_iter().chain(std::env::split_paths(&path)))?;
            let multiarch = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
            libraries = std::env::join_paths(of_tree(&[&multiarch, &format!("usr/{multiarch}")]))?;
        }
        let mut version = Command::new("dockerd");
        version.arg("--version").env("PATH", &path).env("LD_LIBRARY_PATH", &libraries);
        version.output().context("dockerd is not installed")?;
        let dir = tempfile::Builder::new().prefix("peer-dockerd-").tempdir()?;
        let inside = |name: &str| dir.path().join(name).display().to_string();
        let log = std::fs::File::create(dir.path().join("log"))?;
        let name = dir.path().file_name().unwrap_or_default();
        let cgroup_parent = name.to_string_lossy().into_owned();
        // It dies with us, and its namespaces with it.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare"])
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args([
                "--propagation",
                "private",
                "sh",
                "-c",
                "ip link set lo up; $BESIDE & exec dockerd \"$@\"",
                "sh",
            ])
            .args([
                "--data-root",
                &inside("data"),
                "--exec-root",
                &inside("exec"),
                "--pidfile",
                &inside("pid"),
            ])
            .args(["-H", &format!("unix://{}", inside("docker.sock"))])
            .args(["--iptables=false", "--ip6tables=false"])
            .args(match networks {
                Networks::None => &["--bridge=none", "--userland-proxy=false"][..],
                Networks::Bridges => &["--userland-proxy=true"],
            })
            .args(["--storage-driver=overlay2", &format!("--cgroup-parent=/{cgroup_parent}")])
            .env("PATH", &path)
            .env("BESIDE", beside.unwrap_or(":"))
            .env("LD_LIBRARY_PATH", &libraries)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run setpriv")?;
        let dockerd = Self { dir, process, cgroup_parent };
        let limit = Instant::now() + LIMIT;
        while dockerd.docker(&["version"])?.code != 0 {
            anyhow::ensure!(Instant::now() < limit, "dockerd does not answer\n{}", dockerd.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(dockerd)
    }

    /// Returns where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Returns a folder that goes with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns what it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Runs the `docker` of PATH against it.
    ///
    /// # Errors
    /// There is none.
    pub fn docker(&self, args: &[&str]) -> Result<Output> {
        let host = format!("unix://{}", self.socket().display());
        let said = Command::new("docker")
            .env("DOCKER_HOST", host)
            .env("HOME", self.dir())
            .current_dir(self.dir())
            .args(args)
            .stdin(Stdio::null())
            .output();
        let said = said.context("docker is not installed")?;
        Ok(Output {
            code: said.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&said.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&said.stderr).into_owned(),
        })
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
