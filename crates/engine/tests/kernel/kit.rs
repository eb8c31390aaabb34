//! A host for tests: roots in a temporary folder, a network namespace of its own, an image that holds the test guest,
//! and a daemon (an engine with its network service) that can be shut down, killed, and started again.

use crate::inventory::new_netns;
use engine::{
    AttachOptions, Container, ContainerConfig, Created, Engine, Error, ExecConfig, ExecStart, ListOptions,
    LogOptions, LogStream, NetworkMode, Options, RemoveOptions, Streams, WaitCondition, Wanted,
};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Runtime,
};

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// *Unit:* bytes at the end of a tar. Source: POSIX `pax`.
const END_MARK: usize = 1024;
/// Name of the image, whose entrypoint is the guest.
pub(crate) const IMAGE: &str = "guest:latest";
/// Path of the guest in its image.
pub(crate) const GUEST: &str = "/bin/guest";

/// True for an ordinary user's tests: one uid is mapped, cgroups cannot be written.
pub(crate) fn squashed() -> bool {
    runtime::single_uid()
}

/// A container that takes these steps (see `tests/guest`), without a network.
pub(crate) fn guest(steps: &[&str]) -> ContainerConfig {
    let mut config = ContainerConfig {
        image: IMAGE.into(),
        cmd: Some(steps.iter().map(|&step| step.to_owned()).collect()),
        ..ContainerConfig::default()
    };
    config.host.network_mode = NetworkMode::None;
    config
}

/// The same, changed.
pub(crate) fn guest_with(steps: &[&str], change: impl FnOnce(&mut ContainerConfig)) -> ContainerConfig {
    let mut config = guest(steps);
    change(&mut config);
    config
}

/// How a program ended and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

struct Daemon {
    runtime: Runtime,
    engine: Engine,
    network: network::Network,
}

/// One host; everything of it is gone when dropped.
pub(crate) struct Host {
    /// Gone before the folder it is in.
    _disk: Option<Disk>,
    temp: tempfile::TempDir,
    netns: File,
    daemon: Option<Daemon>,
    /// Of the next daemon.
    pub(crate) userns_remap: Option<runtime::IdMap>,
}

impl Host {
    /// A host whose daemon runs and has the image.
    pub(crate) fn new() -> Self {
        Self::on_disk(None, None)
    }

    /// A host whose containers' ids are these of it.
    pub(crate) fn remapped(map: runtime::IdMap) -> Self {
        Self::on_disk(None, Some(map))
    }

    /// A host whose data root is a disk of so many bytes.
    pub(crate) fn on_disk_of(bytes: u64) -> Self {
        Self::on_disk(Some(bytes), None)
    }

    fn on_disk(bytes: Option<u64>, userns_remap: Option<runtime::IdMap>) -> Self {
        let temp = tempfile::Builder::new().prefix("rswarm-engine-").tempdir().unwrap();
        let disk = bytes.map(|bytes| Disk::new(&temp.path().join("data"), bytes));
        let mut host = Self { _disk: disk, temp, netns: new_netns(), daemon: None, userns_remap };
        host.start_daemon();
        host.image(IMAGE, &["ENV FROM_IMAGE=yes"], |_| {});
        host
    }

    /// Makes an image of the guest and more files (which replace those of the same name), with these instructions.
    pub(crate) fn image(&self, name: &str, changes: &[&str], more: impl FnOnce(&mut tar::Builder<Vec<u8>>)) {
        let mut tar = tar::Builder::new(Vec::new());
        more(&mut tar);
        let mut whole = root_tarball();
        whole.truncate(whole.len() - END_MARK);
        whole.extend(tar.into_inner().unwrap());
        let changes =
            [&[r#"ENTRYPOINT ["guest"]"#], changes].concat().iter().map(|&c| c.to_owned()).collect();
        let reference = Some(name.parse().unwrap());
        let options = image::ImportOptions { reference, changes, ..image::ImportOptions::default() };
        self.on(async |engine| {
            engine.images().import(std::io::Cursor::new(whole), options).await.unwrap();
        });
    }

    // ---- the daemon ----

    pub(crate) fn start_daemon(&mut self) {
        assert!(self.daemon.is_none(), "a daemon runs");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (data_root, run_root) = (self.path("data"), self.path("run"));
        let mut network = network::Options::new(run_root.join("network"), data_root.join("network"));
        network.rootless = squashed();
        network.host_netns = Some(format!("/proc/self/fd/{}", self.netns.as_raw_fd()).into());
        network.resolvers = Some(vec![]);
        let (cgroup_parent, cdi, remap) = (self.cgroup(), self.path("cdi"), self.userns_remap.clone());
        let (engine, network) = runtime.block_on(async move {
            let images = image::Store::open(&data_root.join("images"), squashed()).await.unwrap();
            let network = network::Network::start(network).await.unwrap();
            let options = Options {
                data_root,
                run_root,
                images,
                network: network.clone(),
                shim: runtime::ShimProgram::sealed(Path::new(env!("CARGO_BIN_EXE_engine-shim")), vec![])
                    .unwrap(),
                userns_squash: squashed(),
                userns_remap: remap,
                hostname: "host".into(),
                cgroup_parent,
                defaults: engine::Defaults { cdi_spec_dirs: vec![cdi], ..engine::Defaults::default() },
            };
            (Engine::open(options).await.unwrap(), network)
        });
        self.daemon = Some(Daemon { runtime, engine, network });
    }

    /// Ends the daemon as SIGTERM does.
    pub(crate) fn stop_daemon(&mut self) {
        let Daemon { runtime, engine, network } = self.daemon.take().expect("a daemon runs");
        runtime.block_on(async {
            engine.shutdown().await;
            network.shutdown().await;
        });
        drop(engine);
        runtime.shutdown_timeout(DEADLINE);
    }

    /// Ends the daemon as SIGKILL does: every task stops where it is and nothing says goodbye.
    pub(crate) fn kill_daemon(&mut self) {
        let Daemon { runtime, engine, network } = self.daemon.take().expect("a daemon runs");
        drop(engine);
        runtime.shutdown_timeout(DEADLINE);
        // What is left of it is one thread, which has to let go of the kernel before another daemon comes.
        let last = tokio::runtime::Builder::new_current_thread().build().unwrap();
        last.block_on(network.shutdown());
    }

    /// Starts a daemon that is a program of its own and works for so many clients (see `engine-daemon`), to be killed.
    pub(crate) fn other_daemon(&self, clients: u32) -> Child {
        assert!(self.daemon.is_none(), "a daemon runs");
        let netns = format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd());
        Command::new(env!("CARGO_BIN_EXE_engine-daemon"))
            .arg(self.temp.path())
            .args([&netns, &self.cgroup(), env!("CARGO_BIN_EXE_engine-shim"), IMAGE, &clients.to_string()])
            .spawn()
            .unwrap()
    }

    /// As after a boot: nothing of the old network is there.
    pub(crate) fn new_netns(&mut self) {
        assert!(self.daemon.is_none(), "a daemon runs");
        self.netns = new_netns();
    }

    /// Waits for what `work` does with the engine.
    #[track_caller]
    pub(crate) fn on<T>(&self, work: impl AsyncFnOnce(Engine) -> T) -> T {
        let daemon = self.daemon.as_ref().expect("a daemon runs");
        let work = work(daemon.engine.clone());
        let result = daemon.runtime.block_on(async { tokio::time::timeout(DEADLINE, work).await });
        result.expect("not in time")
    }

    // ---- places ----

    /// A path in the temporary folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Makes a folder that containers can share with the test, and returns the `-v` text that mounts it on `/shared`.
    pub(crate) fn shared(&self) -> String {
        fs::create_dir_all(self.path("shared")).unwrap();
        format!("{}:/shared", self.path("shared").display())
    }

    /// Makes the file that a guest waits for.
    pub(crate) fn give(&self, name: &str) {
        File::create(self.path("shared").join(name)).unwrap();
    }

    /// Removes it again.
    pub(crate) fn take(&self, name: &str) {
        fs::remove_file(self.path("shared").join(name)).unwrap();
    }

    /// The cgroup of all its containers.
    pub(crate) fn cgroup(&self) -> String {
        self.temp.path().file_name().unwrap().to_string_lossy().into_owned()
    }

    /// Runs `work` on a thread inside the host's network namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&self.netns, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            entered.join().expect("the work inside a namespace panicked")
        })
    }

    // ---- containers ----

    pub(crate) fn try_create(&self, config: ContainerConfig) -> Result<Created, Error> {
        self.on(async |engine| engine.create(config).await)
    }

    /// Makes a container and returns its id.
    #[track_caller]
    pub(crate) fn create(&self, config: ContainerConfig) -> String {
        self.try_create(config).unwrap_or_else(|e| panic!("create: {}", chain(&e))).id
    }

    pub(crate) fn try_start(&self, id: &str) -> Result<(), Error> {
        self.on(async |engine| engine.start(id).await)
    }

    /// Makes and starts a container.
    #[track_caller]
    pub(crate) fn start(&self, config: ContainerConfig) -> String {
        let id = self.create(config);
        self.try_start(&id).unwrap_or_else(|e| panic!("start: {}", chain(&e)));
        id
    }

    /// Makes a container that cannot be started, and returns why.
    #[track_caller]
    pub(crate) fn start_error(&self, config: ContainerConfig) -> Error {
        let id = self.create(config);
        self.try_start(&id).expect_err("it started")
    }

    /// Runs a container to its end.
    #[track_caller]
    pub(crate) fn run(&self, config: ContainerConfig) -> Outcome {
        let id = self.start(config);
        let code = self.wait(&id);
        let (stdout, stderr) = self.logs(&id);
        Outcome { code, stdout, stderr }
    }

    /// Waits for the end of a container and returns its exit code.
    #[track_caller]
    pub(crate) fn wait(&self, id: &str) -> i32 {
        self.on(async |engine| engine.wait(id, WaitCondition::NotRunning).unwrap().exit().await.code)
    }

    pub(crate) fn inspect(&self, id: &str) -> Arc<Container> {
        self.on(async |engine| engine.inspect(id).unwrap())
    }

    /// Pid of the running container's first process.
    pub(crate) fn pid(&self, id: &str) -> u32 {
        self.inspect(id).state.pid.expect("it runs")
    }

    /// Waits until a container is as wished.
    #[track_caller]
    pub(crate) fn until(&self, id: &str, what: &str, holds: impl Fn(&Container) -> bool) -> Arc<Container> {
        let reached = self.on(async |engine| {
            let mut view = engine.watch(id).unwrap();
            let waiting = view.wait_for(|now| holds(now));
            tokio::time::timeout(DEADLINE / 2, waiting).await.map(|now| now.unwrap().clone())
        });
        reached.unwrap_or_else(|_| panic!("not in time: {what}; it is {:#?}", self.inspect(id).state))
    }

    /// What it wrote to stdout and stderr so far.
    pub(crate) fn logs(&self, id: &str) -> (String, String) {
        self.on(async |engine| {
            let options = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
            let mut logs = engine.logs(id, options).await.unwrap();
            let (mut stdout, mut stderr) = (String::new(), String::new());
            while let Some(entry) = logs.recv().await {
                let entry = entry.unwrap();
                let stream = if entry.stream == LogStream::Stdout { &mut stdout } else { &mut stderr };
                stream.push_str(&String::from_utf8_lossy(&entry.line));
            }
            (stdout, stderr)
        })
    }

    /// Waits until its stdout is this.
    #[track_caller]
    pub(crate) fn until_said(&self, id: &str, text: &str) {
        eventually(&format!("it says {text:?}"), || self.logs(id).0 == text);
    }

    /// Runs a program in a container, with this input, to its end.
    pub(crate) fn exec(&self, id: &str, command: &[&str], input: &str) -> Result<Outcome, Error> {
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        self.exec_with(id, ExecConfig { cmd, ..ExecConfig::default() }, input)
    }

    pub(crate) fn exec_with(&self, id: &str, config: ExecConfig, input: &str) -> Result<Outcome, Error> {
        let config = ExecConfig { attach_stdin: true, attach_stdout: true, attach_stderr: true, ..config };
        self.on(async |engine| {
            let exec = engine.exec_create(id, config).await?;
            let streams = engine.exec_start(&exec, ExecStart::default()).await?;
            let (stdout, stderr) = converse(streams, input).await;
            let code = engine.exec_wait(&exec).await?.exit_code.unwrap();
            Ok(Outcome { code, stdout, stderr })
        })
    }

    /// Opens the streams of a container.
    pub(crate) fn attach(&self, id: &str) -> Streams {
        let streams = Wanted { stdin: true, stdout: true, stderr: true };
        self.on(async |engine| engine.attach(id, AttachOptions { streams }).await.unwrap())
    }

    pub(crate) fn remove(&self, id: &str) -> Result<(), Error> {
        self.on(async |engine| engine.remove(id, RemoveOptions { force: true, volumes: true }).await)
    }
}

/// A small disk of its own.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn new(path: &Path, bytes: u64) -> Self {
        fs::create_dir(path).unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", path, "tmpfs", flags, size.as_c_str()).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let gone = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        assert!(gone.is_ok() || thread::panicking(), "{gone:?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.daemon.is_none() {
            self.start_daemon();
        }
        let cleaned = self.on(async |engine| {
            let mut errors = vec![];
            let all = ListOptions { all: true, ..ListOptions::default() };
            for container in engine.list(all).await.unwrap() {
                let options = RemoveOptions { force: true, volumes: true };
                errors.extend(engine.remove(&container.id, options).await.err().map(|e| e.to_string()));
            }
            engine.shutdown().await;
            errors.extend(engine.network_service().destroy().await.err().map(|e| format!("{e:?}")));
            errors
        });
        runtime::cgroup::remove_if_empty(&format!("/{}", self.cgroup()));
        if !thread::panicking() {
            assert!(cleaned.is_empty(), "cannot clean up: {cleaned:?}");
        }
    }
}

/// Sends the input and its end, and reads both outputs to their ends.
pub(crate) async fn converse(streams: Streams, input: &str) -> (String, String) {
    let Streams { stdin, stdout, stderr } = streams;
    let send = async {
        if let Some(mut stdin) = stdin {
            stdin.write_all(input.as_bytes()).await.ok(); // it may have ended already
            stdin.shutdown().await.ok();
        }
    };
    let ((), stdout, stderr) = tokio::join!(send, read(stdout), read(stderr));
    (stdout, stderr)
}

async fn read(stream: Option<UnixStream>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes).await.unwrap();
    }
    String::from_utf8(bytes).unwrap()
}

/// What is waited for needs the processors more than who waits.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// Waits until something is true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE / 2;
    while !done() {
        assert!(Instant::now() < until, "not in time: {what}");
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// Waits until what is found is what is expected, and tells the difference if it never is.
#[track_caller]
pub(crate) fn becomes<T: PartialEq + std::fmt::Debug>(expected: &T, mut found: impl FnMut() -> T) {
    let until = Instant::now() + DEADLINE / 2;
    let mut last = found();
    while last != *expected && Instant::now() < until {
        thread::sleep(BETWEEN_LOOKS);
        last = found();
    }
    assert_eq!(last, *expected);
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

/// The image's files: the guest, users, a folder with content.
fn root_tarball() -> Vec<u8> {
    static TARBALL: OnceLock<Vec<u8>> = OnceLock::new();
    TARBALL.get_or_init(pack).clone()
}

fn pack() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, uid: u64, content: Option<&[u8]>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if content.is_some() {
            tar::EntryType::Regular
        } else {
            tar::EntryType::Directory
        });
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_size(content.unwrap_or_default().len() as u64);
        tar.append_data(&mut header, path, content.unwrap_or_default()).unwrap();
    };
    for folder in ["bin/", "etc/", "proc/", "sys/", "dev/", "work/"] {
        add(folder, 0o755, 0, None);
    }
    add("tmp/", 0o1777, 0, None);
    add("seed/", 0o750, 33, None);
    add("seed/file", 0o640, 33, Some(b"from the image\n"));
    add("bin/guest", 0o755, 0, Some(&fs::read(env!("CARGO_BIN_EXE_engine-guest")).unwrap()));
    add("bin/not-a-program", 0o644, 0, Some(b"nothing\n"));
    add("etc/passwd", 0o644, 0, Some(b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n"));
    add("etc/group", 0o644, 0, Some(b"root:x:0:\nweb:x:33:\n"));
    tar.into_inner().unwrap()
}
