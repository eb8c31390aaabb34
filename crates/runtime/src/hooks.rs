//! Hooks: programs that run at points of a container's life, most of them of the host. Source: OCI runtime spec,
//! "POSIX-platform Hooks" and "Lifecycle".
//!
//! | hook | who runs it | where |
//! |---|---|---|
//! | `prestart`, `createRuntime` | the shim, before the root is changed | the host |
//! | `createContainer` | the container's first process, before the root is changed | the container's namespaces |
//! | `startContainer` | the same, before it becomes the program | the container, with the program's rights |
//! | `poststart`, `poststop` | whoever starts and removes the container | the host |

use crate::{
    Error, state,
    wire::{Hook, Hooks, Launch, Pair},
};
use oci_spec::runtime::{self as oci, ContainerState, Spec, StateBuilder};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::MemfdFlags,
    io::Errno,
    process::{Pid, PidfdFlags, Signal},
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::AsFd,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long a hook may take that does not say. *Unit:* seconds.
const SECONDS: u32 = 30;
/// No hook may take longer, whatever it says. *Unit:* seconds.
const SECONDS_MAX: u32 = 120;
/// A start is waited for less long.
const START_SECONDS_MAX: u32 = 5;
/// How much of what a hook says is told. *Unit:* bytes.
const SAID_MAX: u64 = 4096;

/// Translates the hooks that the shim and the container's process run.
pub(crate) fn translate(spec: &Spec, dir: &Path) -> Result<Option<Hooks>, String> {
    let Some(hooks) = spec.hooks() else { return Ok(None) };
    // `prestart` is deprecated and means the same as `createRuntime`, which comes after it.
    let prestart = hooks.prestart();
    let mut create_runtime = list("prestart", prestart.as_ref(), SECONDS_MAX)?;
    create_runtime.extend(list("createRuntime", hooks.create_runtime().as_ref(), SECONDS_MAX)?);
    let hooks = Hooks {
        create_runtime,
        create_container: list("createContainer", hooks.create_container().as_ref(), SECONDS_MAX)?,
        start_container: list("startContainer", hooks.start_container().as_ref(), START_SECONDS_MAX)?,
        annotations: spec
            .annotations()
            .iter()
            .flatten()
            .map(|(key, value)| Pair { key: key.clone(), value: value.clone() })
            .collect(),
        bundle: bundle(dir).into_os_string().into_vec(),
    };
    Ok(Some(hooks))
}

fn list(kind: &str, hooks: Option<&Vec<oci::Hook>>, seconds_max: u32) -> Result<Vec<Hook>, String> {
    let one = |hook: &oci::Hook| {
        if !hook.path().is_absolute() {
            return Err(format!("the path of a {kind} hook, {:?}, is not absolute", hook.path()));
        }
        let seconds = match hook.timeout() {
            None => SECONDS,
            Some(n) => u32::try_from(n)
                .ok()
                .filter(|n| *n > 0)
                .ok_or("the timeout of a hook must be greater than 0")?,
        };
        let bytes = |texts: &Option<Vec<String>>| -> Vec<Vec<u8>> {
            texts.iter().flatten().map(|text| text.clone().into_bytes()).collect()
        };
        Ok(Hook {
            kind: kind.to_owned(),
            path: hook.path().as_os_str().as_bytes().to_vec(),
            args: bytes(hook.args()),
            env: bytes(hook.env()),
            seconds: seconds.min(seconds_max),
        })
    };
    hooks.into_iter().flatten().map(one).collect()
}

/// Returns how long the hooks between a container's creation and its being ready may take together.
pub(crate) fn creation_limit(launch: &Launch) -> Duration {
    let hooks = launch.hooks.iter().flat_map(|h| h.create_runtime.iter().chain(&h.create_container));
    Duration::from_secs(hooks.map(|hook| u64::from(hook.seconds)).sum())
}

/// Runs hooks one after the other; the first that fails ends it.
pub(crate) fn run(hooks: &[Hook], launch: &Launch, status: ContainerState, pid: Pid) -> Result<(), String> {
    if hooks.is_empty() {
        return Ok(());
    }
    let Some(all) = &launch.hooks else { return Ok(()) };
    let pairs = all.annotations.iter().map(|pair| (pair.key.clone(), pair.value.clone()));
    let annotations: HashMap<String, String> = pairs.collect();
    let state = StateBuilder::default()
        .version("1.2.0")
        .id(launch.id.clone())
        .status(status)
        .pid(pid.as_raw_nonzero().get())
        .bundle(PathBuf::from(OsStr::from_bytes(&all.bundle)))
        .annotations(annotations)
        .build()
        .map_err(|error| error.to_string())?;
    run_all(hooks, &state)
}

/// Runs the hooks for after the program was executed.
///
/// # Errors
/// [`Error::Create`] with the first that failed; the container should be killed then.
pub fn poststart(dir: &Path, id: &str, pid: u32) -> Result<(), Error> {
    let failed = |message: String| Error::Create { message };
    let Some(spec) = loaded(dir, "poststart") else { return Ok(()) };
    let hooks = list("poststart", spec.hooks().as_ref().and_then(|h| h.poststart().as_ref()), SECONDS_MAX)
        .map_err(failed)?;
    let pid = i32::try_from(pid).unwrap_or_default();
    let state = state_of(&spec, dir, id, ContainerState::Running, pid).map_err(failed)?;
    run_all(&hooks, &state).map_err(failed)
}

/// Runs the hooks for after the container has ended. What fails hinders nothing.
///
/// # Errors
/// With the first that failed.
pub fn poststop(dir: &Path) -> Result<(), String> {
    let Some(spec) = loaded(dir, "poststop") else { return Ok(()) };
    let hooks = list("poststop", spec.hooks().as_ref().and_then(|h| h.poststop().as_ref()), SECONDS_MAX)?;
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    let state = state_of(&spec, dir, &id, ContainerState::Stopped, 0)?;
    run_all(&hooks, &state)
}

/// Reads the spec if hooks of this kind are in it, which they seldom are.
fn loaded(dir: &Path, kind: &str) -> Option<Spec> {
    let text = std::fs::read_to_string(dir.join(state::CONFIG)).ok()?;
    if !text.contains(kind) {
        return None;
    }
    serde_json::from_str(&text).ok()
}

fn bundle(dir: &Path) -> PathBuf {
    std::fs::read(dir.join(state::BUNDLE))
        .map_or_else(|_| dir.to_owned(), |path| OsStr::from_bytes(&path).into())
}

fn state_of(
    spec: &Spec,
    dir: &Path,
    id: &str,
    status: ContainerState,
    pid: i32,
) -> Result<oci::State, String> {
    StateBuilder::default()
        .version(spec.version())
        .id(id)
        .status(status)
        .pid(pid)
        .bundle(bundle(dir))
        .annotations(spec.annotations().clone().unwrap_or_default())
        .build()
        .map_err(|error| error.to_string())
}

fn run_all(hooks: &[Hook], state: &oci::State) -> Result<(), String> {
    let state = serde_json::to_vec(state).map_err(|error| error.to_string())?;
    for (number, hook) in hooks.iter().enumerate() {
        run_one(hook, &state).map_err(|why| format!("error running {} hook #{number}: {why}", hook.kind))?;
    }
    Ok(())
}

fn memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("hook", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<(), String> {
    let path = OsStr::from_bytes(&hook.path);
    let step = |error: io::Error| format!("{}: {error}", path.display());
    // In memory: neither side waits for the other.
    let stdin = memory(state).map_err(step)?;
    let mut said = memory(&[]).map_err(step)?;
    let mut args = hook.args.iter().map(|arg| OsStr::from_bytes(arg));
    let mut command = Command::new(path);
    command.arg0(args.next().unwrap_or(path)).args(args).env_clear();
    for entry in &hook.env {
        let at = entry.iter().position(|byte| *byte == b'=').unwrap_or(entry.len());
        let value = entry.get(at + 1..).unwrap_or_default();
        command.env(OsStr::from_bytes(&entry[..at]), OsStr::from_bytes(value));
    }
    let mut child = command
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(said.try_clone().map_err(step)?))
        .stderr(Stdio::from(said.try_clone().map_err(step)?))
        .process_group(0)
        .spawn()
        .map_err(step)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("it has no process id")?;
    let until = Instant::now() + Duration::from_secs(u64::from(hook.seconds));
    if !ends_before(pid, until) {
        rustix::process::kill_process_group(pid, Signal::KILL).ok();
        drop(child.wait());
        return Err(format!("{} did not end within {} s", path.display(), hook.seconds));
    }
    let status = child.wait().map_err(step)?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    // Whatever can be told.
    said.rewind().ok();
    said.take(SAID_MAX).read_to_string(&mut text).ok();
    Err(format!("{}: {status}: {}", path.display(), text.trim()))
}

/// Returns false if the child lives on at `until`; it stays to be waited for.
fn ends_before(pid: Pid, until: Instant) -> bool {
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return true };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}
