//! Hooks: programs that run at points of a container's life, most of them of the host. Source: OCI runtime spec,
//! "POSIX-platform Hooks" and "Lifecycle".
//!
//! | hook | who runs it | where |
//! |---|---|---|
//! | `prestart`, `createRuntime` | the shim, before the root is changed | the host |
//! | `createContainer` | the container's first process, before the root is changed | the container's namespaces |
//! | `startContainer` | the same, before it becomes the program | the container, with the program's rights |
//! | `poststart`, `poststop` | whoever starts and removes the container | the host |

use crate::wire::{Hook, Launch, Pair};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::MemfdFlags,
    io::Errno,
    process::{Pid, PidfdFlags, Signal},
};
use serde_json::{Map, Value, json};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How much of what a hook says is told. *Unit:* bytes.
const SAID_MAX: u64 = 4096;

/// What hooks are told of their container. *Source:* OCI runtime spec, "State".
#[derive(Debug)]
pub struct State<'a> {
    /// Of the OCI runtime spec.
    pub version: &'a str,
    pub id: &'a str,
    pub status: Status,
    /// The container's first process; 0 when it has ended.
    pub pid: i32,
    pub bundle: &'a Path,
    pub annotations: Vec<Pair>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Stopped,
}

impl State<'_> {
    fn to_json(&self) -> Result<Vec<u8>, String> {
        let bundle = self.bundle.to_str().ok_or("path contains invalid UTF-8 characters")?;
        let status = match self.status {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Stopped => "stopped",
        };
        let annotations: Map<String, Value> =
            self.annotations.iter().map(|pair| (pair.key.clone(), pair.value.clone().into())).collect();
        let state = json!({
            "ociVersion": self.version,
            "id": self.id,
            "status": status,
            "pid": self.pid,
            "bundle": bundle,
            "annotations": annotations,
        });
        Ok(state.to_string().into_bytes())
    }
}

/// Returns how long the hooks between a container's creation and its being ready may take together.
pub fn creation_limit(launch: &Launch) -> Duration {
    let hooks = launch.hooks.iter().flat_map(|h| h.create_runtime.iter().chain(&h.create_container));
    Duration::from_secs(hooks.map(|hook| u64::from(hook.seconds)).sum())
}

/// Runs hooks of the container that is being made; the first that fails ends it.
pub(crate) fn run(hooks: &[Hook], launch: &Launch, status: Status, pid: Pid) -> Result<(), String> {
    let Some(all) = &launch.hooks else { return Ok(()) };
    let state = State {
        version: "1.2.0",
        id: &launch.id,
        status,
        pid: pid.as_raw_nonzero().get(),
        bundle: Path::new(OsStr::from_bytes(&all.bundle)),
        annotations: all.annotations.clone(),
    };
    run_all(hooks, &state)
}

/// Runs hooks one after the other.
///
/// # Errors
/// In words, with the first that failed; those after it are not run.
pub fn run_all(hooks: &[Hook], state: &State<'_>) -> Result<(), String> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = state.to_json()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_reads_the_state_as_the_spec_writes_it() {
        let state = State {
            version: "1.2.0",
            id: "a \"quoted\" id",
            status: Status::Creating,
            pid: 7,
            bundle: Path::new("/run/bundle"),
            annotations: vec![Pair { key: "org.example".into(), value: "line\nbreak".into() }],
        };
        let expected = r#"{"ociVersion":"1.2.0","id":"a \"quoted\" id","status":"creating","pid":7,"bundle":"/run/bundle","annotations":{"org.example":"line\nbreak"}}"#;
        assert_eq!(String::from_utf8(state.to_json().unwrap()).unwrap(), expected);
        let odd = State { bundle: Path::new(OsStr::from_bytes(b"/\xff")), ..state };
        assert!(odd.to_json().is_err());
    }
}
