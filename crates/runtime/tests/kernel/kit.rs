//! Containers for tests: the guest on an overlay, a shim, and everything taken away at the end.

use runtime::{
    AttachFds, ContainerPlan, Error, Event, ExecPlan, ExitStatus, LogTarget, Rootfs, Shim, ShimProgram,
    config::{LinuxNamespaceType, Mount, Process, Spec},
};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::{
    fs::{self, File},
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// True for an ordinary user's tests: one uid is mapped, cgroups cannot be written.
pub(crate) fn squashed() -> bool {
    runtime::single_uid()
}

/// True where limits can be tested.
pub(crate) fn has_cgroups() -> bool {
    !squashed()
}

pub(crate) fn program() -> &'static ShimProgram {
    static PROGRAM: OnceLock<ShimProgram> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        ShimProgram::sealed(Path::new(env!("CARGO_BIN_EXE_runtime-shim")), Vec::new())
            .expect("the shim is built")
    })
}

/// One container and its directories.
pub(crate) struct Fixture {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) plan: ContainerPlan,
}

impl Fixture {
    /// A container whose guest takes these steps (see `tests/guest`).
    pub(crate) fn guest(steps: &[&str]) -> Self {
        Self::new(&guest(steps))
    }

    /// One that stays.
    pub(crate) fn parked() -> Self {
        Self::guest(&["park"])
    }

    /// A container that will run `args`.
    pub(crate) fn new(args: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let temp = tempfile::Builder::new().prefix("rswarm-runtime-").tempdir().unwrap();
        let lower = temp.path().join("lower");
        root(&lower);
        for dir in ["upper", "work"] {
            fs::create_dir(temp.path().join(dir)).unwrap();
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:032x}{:032x}", std::process::id(), number);
        let mut spec = runtime::default_spec(args.iter().map(|&arg| arg.to_owned()).collect());
        let name = temp.path().file_name().unwrap().to_string_lossy().into_owned();
        // Of its own from the top: a shared one would go, being empty, while another test makes its group below.
        spec.linux.as_mut().unwrap().cgroups_path = Some(format!("/rswarm-test-{name}").into());
        let plan = ContainerPlan {
            id,
            dir: temp.path().join("state"),
            spec,
            rootfs: Rootfs::Overlay {
                lowers: vec![lower],
                upper: temp.path().join("upper"),
                work: temp.path().join("work"),
            },
            log: LogTarget::JsonFile {
                path: temp.path().join("log.json"),
                max_size_bytes: None,
                max_files: 1,
                attrs: Vec::new(),
                forward: None,
            },
            tty: false,
            stdin_open: false,
            init: false,
            userns_squash: squashed(),
        };
        Self { temp, plan }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut ContainerPlan)) -> Self {
        change(&mut self.plan);
        self
    }

    pub(crate) fn spec(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.plan.spec);
        self
    }

    pub(crate) fn process(self, change: impl FnOnce(&mut Process)) -> Self {
        self.spec(|spec| change(spec.process.as_mut().unwrap()))
    }

    pub(crate) fn without_namespace(self, kind: LinuxNamespaceType) -> Self {
        self.spec(|spec| {
            let linux = spec.linux.as_mut().unwrap();
            linux.namespaces.as_mut().unwrap().retain(|namespace| namespace.kind != kind);
        })
    }

    pub(crate) fn lower(&self) -> PathBuf {
        self.temp.path().join("lower")
    }

    pub(crate) fn cgroup(&self) -> String {
        self.plan.spec.linux.as_ref().unwrap().cgroups_path.as_ref().unwrap().display().to_string()
    }

    pub(crate) fn create(&self) -> Result<Shim, Error> {
        Shim::spawn(program(), &self.plan)
    }

    /// Creates and starts.
    #[track_caller]
    pub(crate) fn start(&self) -> Shim {
        let mut shim = self.create().unwrap_or_else(|error| panic!("create: {}", chain(&error)));
        shim.start().unwrap_or_else(|error| panic!("start: {}", chain(&error)));
        shim
    }

    /// Runs it to its end and returns how it ended and what it wrote.
    #[track_caller]
    pub(crate) fn run(&self) -> (ExitStatus, String) {
        let mut shim = self.start();
        let status = wait(&mut shim);
        shim.shutdown().unwrap();
        (status, self.output())
    }

    /// What the log holds, without its JSON.
    pub(crate) fn output(&self) -> String {
        let text = fs::read_to_string(self.temp.path().join("log.json")).unwrap_or_default();
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("the log is JSON");
        // The last one may be half there.
        let whole = text.split_inclusive('\n').filter(|text| text.ends_with('\n'));
        whole.map(|text| line(text)["log"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let removed = runtime::remove(&self.plan.dir, Some(&self.cgroup()));
        if let Err(errors) = removed
            && !std::thread::panicking()
        {
            panic!("remove: {errors:?}");
        }
    }
}

/// A bind mount of the host's `source`.
pub(crate) fn bind(source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some("bind".to_owned()),
        source: Some(source.as_ref().to_owned()),
        options: Some(options.iter().map(|&option| option.to_owned()).collect()),
        ..Mount::default()
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

fn guest<'a>(steps: &[&'a str]) -> Vec<&'a str> {
    [&["guest"], steps].concat()
}

/// Makes the root of a container: the guest, a user, a file that is no program.
fn root(root: &Path) {
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev", "var"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    testkit::copy_program(Path::new(env!("CARGO_BIN_EXE_runtime-guest")), &root.join("bin/guest"), 0o755);
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n").unwrap();
    fs::write(root.join("bin/not-a-program"), "nothing\n").unwrap();
}

/// Waits for the next event.
#[track_caller]
pub(crate) fn event(shim: &mut Shim) -> Event {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(event) = shim.next_event().unwrap() {
            return event;
        }
        assert!(Instant::now() < until, "no event in time");
        poll(shim);
    }
}

fn poll(shim: &Shim) {
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(shim, PollFlags::IN)], Some(&second)).unwrap();
}

/// Waits for the container's end.
#[track_caller]
pub(crate) fn wait(shim: &mut Shim) -> ExitStatus {
    loop {
        if let Event::Exited(status) = event(shim) {
            return status;
        }
    }
}

/// Waits until something is true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2)); // what is waited for needs the processors more
    }
}

/// A guest for [`exec`] that takes these steps.
pub(crate) fn steps(plan: &ContainerPlan, steps: &[&str]) -> Process {
    process(plan, &guest(steps))
}

/// A process for [`exec`].
pub(crate) fn process(plan: &ContainerPlan, args: &[&str]) -> Process {
    let mut process = plan.spec.process.clone().unwrap();
    process.args = Some(args.iter().map(|&arg| arg.to_owned()).collect());
    process
}

/// Runs a process in the container and returns its exit code and output.
#[track_caller]
pub(crate) fn exec(shim: &mut Shim, id: &str, process: Process) -> Result<(i32, String), Error> {
    let (mut read, write) = pipe();
    let stdio = AttachFds { stdout: Some(write), ..AttachFds::default() };
    shim.exec(ExecPlan { id: id.to_owned(), process, stdio })?;
    let mut output = String::new();
    read.read_to_string(&mut output).unwrap();
    loop {
        match event(shim) {
            Event::ExecExited { id: ended, code } if ended == id => return Ok((code, output)),
            Event::Exited(status) => panic!("the container ended: {status:?}"),
            _ => {}
        }
    }
}

pub(crate) fn pipe() -> (File, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (File::from(read), write)
}
