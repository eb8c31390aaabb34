//! `rswarm lab-host`: one host of a lab. A keeper makes the host's namespaces and waits; pid 1 inside them
//! sets up the network, starts the daemon and other programs when told to and reaps what is orphaned.

use super::lab;
use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    io::BufRead,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

// What a host is started with.
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

/// The children of pid 1 that it knows, and a wake-up for whoever waits for one to start or end.
#[derive(Debug, Default)]
struct Children {
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    daemon: Option<Pid>,
    /// Where the exit code of a program goes.
    programs: BTreeMap<Pid, PathBuf>,
}

impl Children {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, known: MutexGuard<'a, Known>) -> MutexGuard<'a, Known> {
        self.changed.wait(known).unwrap_or_else(PoisonError::into_inner)
    }
}

fn init(args: &HostArgs) -> Result<ExitCode> {
    lab::die_with_parent()?;
    lab::mount_proc()?;
    mount_disk(&args.root)?;
    nix::unistd::sethostname(args.hostname()).context("cannot set the host name")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, lab::configure_host(args.index))?;
    drop(runtime);

    let children = Arc::new(Children::default());
    std::thread::spawn({
        let children = Arc::clone(&children);
        move || reap(&children)
    });
    for command in std::io::stdin().lock().lines() {
        let command = command?;
        let words: Vec<&str> = command.split(' ').collect();
        // Held while a child starts, so that it is known before it is reaped.
        let mut known = children.lock();
        match words.as_slice() {
            ["start", program, more @ ..] => {
                // A killed daemon may not be reaped yet.
                while known.daemon.is_some() {
                    known = children.wait(known);
                }
                known.daemon = Some(start_daemon(args, program, more)?);
                children.changed.notify_all();
            }
            ["kill"] => {
                if let Some(running) = known.daemon {
                    kill(running, Signal::SIGKILL).context("cannot kill the daemon")?;
                }
            }
            ["exec", name, words @ ..] => {
                let output = args.root.join(name);
                let pid = start_program(&output, words)?;
                known.programs.insert(pid, output.with_extension("code"));
                children.changed.notify_all();
            }
            _ => anyhow::bail!("host {}: unknown command {command:?}", args.index),
        }
    }
    // The lab closed the pipe: this host ends, and its namespaces with it.
    Ok(ExitCode::SUCCESS)
}

/// Has the host keep its data on a disk of its own if its folder has one (`disk`, a block device with ext4): mounted in
/// this namespace alone, so that it is let go when the host dies.
fn mount_disk(root: &Path) -> Result<()> {
    use nix::mount::{MsFlags, mount};
    let (disk, data) = (root.join("disk"), root.join("data"));
    if !disk.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    mount(Some(&disk), &data, Some("ext4"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount {} at {}", disk.display(), data.display()))
}

fn start_daemon(args: &HostArgs, program: &str, more: &[&str]) -> Result<Pid> {
    // One that is named must be there; a test may have written it.
    let settings = args.root.join("daemon.toml");
    if !settings.exists() {
        std::fs::write(&settings, "").with_context(|| format!("cannot write {}", settings.display()))?;
    }
    let child = Command::new(program)
        .arg("daemon")
        .arg("--data-root")
        .arg(args.root.join("data"))
        .arg("--run-root")
        .arg(args.root.join("run"))
        .arg("--config")
        .arg(&settings)
        .args(["--hostname", &args.hostname()])
        .args(["--cgroup-parent", &format!("{}/{}", args.cgroup_parent, args.hostname())])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .spawn()
        .with_context(|| format!("cannot start the daemon {program}"))?;
    pid_of(&child)
}

fn start_program(output: &Path, args: &[&str]) -> Result<Pid> {
    let output =
        std::fs::File::create(output).with_context(|| format!("cannot write {}", output.display()))?;
    let (program, args) = match args {
        [program, args @ ..] if program.starts_with('/') => (*program, args),
        args => ("/proc/self/exe", args),
    };
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot start {args:?}"))?;
    pid_of(&child)
}

fn pid_of(child: &std::process::Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id()).context("pid out of range")?))
}

/// Waits for every child: the daemon, the shims it leaves behind, and programs.
fn reap(children: &Children) {
    loop {
        match waitpid(None, None) {
            Ok(status) => {
                let mut known = children.lock();
                if known.daemon.is_some() && status.pid() == known.daemon {
                    known.daemon = None;
                    children.changed.notify_all();
                }
                if let Some(file) = status.pid().and_then(|pid| known.programs.remove(&pid)) {
                    tell_code(&file, status);
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => {
                // No child: wait for the next start.
                let mut known = children.lock();
                while known.daemon.is_none() && known.programs.is_empty() {
                    known = children.wait(known);
                }
            }
        }
    }
}

/// Writes how a program ended, as a shell counts, in one step: whoever sees the file sees all of it.
fn tell_code(file: &Path, status: WaitStatus) {
    let code = match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => return,
    };
    let new = file.with_extension("new");
    let told = std::fs::write(&new, code.to_string()).and_then(|()| std::fs::rename(&new, file));
    if let Err(error) = told {
        tracing::warn!(path = %file.display(), %error, "exit code not written");
    }
}
