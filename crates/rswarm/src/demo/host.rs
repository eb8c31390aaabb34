//! `rswarm lab-host`: one host of a lab. A keeper makes the host's namespaces and waits; pid 1 inside them
//! sets up the network, starts the daemon when told to and reaps what is orphaned.

use super::lab;
use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};
use std::{
    io::BufRead,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
};

/// What a host is started with.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HostArgs {
    #[arg(long)]
    index: u8,
    #[arg(long)]
    root: PathBuf,
    #[arg(long)]
    cgroup_parent: String,
    /// Set for pid 1, inside the namespaces.
    #[arg(long)]
    init: bool,
}

impl HostArgs {
    fn hostname(&self) -> String {
        format!("host{}", self.index)
    }
}

/// Runs the keeper, or with `--init` pid 1 of the host. Call before any thread exists.
pub(crate) fn run(args: &HostArgs) -> Result<ExitCode> {
    if args.init { init(args) } else { keep(args) }
}

fn keep(args: &HostArgs) -> Result<ExitCode> {
    lab::die_with_parent()?;
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags).context("cannot make the host's namespaces")?;
    let mut init = Command::new("/proc/self/exe")
        .args(["lab-host", "--init", "--index", &args.index.to_string()])
        .args(["--cgroup-parent", &args.cgroup_parent])
        .arg("--root")
        .arg(&args.root)
        .stdin(Stdio::inherit())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start pid 1 of the host")?;
    crate::output::line(&init.id().to_string())?;
    let status = init.wait().context("cannot wait for the host")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The daemon's pid while it runs, and a wake-up for whoever waits for it to start or end.
#[derive(Debug, Default)]
struct Daemon {
    pid: Mutex<Option<Pid>>,
    changed: Condvar,
}

fn init(args: &HostArgs) -> Result<ExitCode> {
    lab::die_with_parent()?;
    lab::mount_proc()?;
    nix::unistd::sethostname(args.hostname()).context("cannot set the host name")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, lab::configure_host(args.index))?;
    drop(runtime);

    let daemon = Arc::new(Daemon::default());
    std::thread::spawn({
        let daemon = Arc::clone(&daemon);
        move || reap(&daemon)
    });
    for command in std::io::stdin().lock().lines() {
        let mut pid = daemon.pid.lock().unwrap_or_else(PoisonError::into_inner);
        match command?.as_str() {
            "start" => {
                // A killed daemon may not be reaped yet.
                while pid.is_some() {
                    pid = daemon.changed.wait(pid).unwrap_or_else(PoisonError::into_inner);
                }
                *pid = Some(start_daemon(args)?);
                daemon.changed.notify_all();
            }
            "kill" => {
                if let Some(running) = *pid {
                    kill(running, Signal::SIGKILL).context("cannot kill the daemon")?;
                }
            }
            other => anyhow::bail!("host {}: unknown command {other:?}", args.index),
        }
    }
    // The lab closed the pipe: this host ends, and its namespaces with it.
    Ok(ExitCode::SUCCESS)
}

fn start_daemon(args: &HostArgs) -> Result<Pid> {
    let child = Command::new("/proc/self/exe")
        .arg("daemon")
        .arg("--data-root")
        .arg(args.root.join("data"))
        .arg("--run-root")
        .arg(args.root.join("run"))
        .args(["--hostname", &args.hostname()])
        .args(["--cgroup-parent", &format!("{}/{}", args.cgroup_parent, args.hostname())])
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .spawn()
        .context("cannot start the daemon")?;
    Ok(Pid::from_raw(i32::try_from(child.id()).context("pid out of range")?))
}

/// Waits for every child: the daemon, and the shims it leaves behind.
fn reap(daemon: &Daemon) {
    loop {
        match waitpid(None, None) {
            Ok(status) => {
                let mut pid = daemon.pid.lock().unwrap_or_else(PoisonError::into_inner);
                if pid.is_some() && status.pid() == *pid {
                    *pid = None;
                    daemon.changed.notify_all();
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => {
                // No child: wait for the next start.
                let mut pid = daemon.pid.lock().unwrap_or_else(PoisonError::into_inner);
                while pid.is_none() {
                    pid = daemon.changed.wait(pid).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}
