//! `rswarm demo`: a cluster on one machine, and `rswarm lab`: the same hosts without a script, for tests.

mod datagrams;
mod door;
pub(crate) mod hello;
pub(crate) mod host;
mod lab;
mod load;
mod show;

use anyhow::{Context, Result};
use lab::Lab;
use nix::{
    sys::signal::{SigSet, Signal, killpg},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    net::{Shutdown, TcpListener},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};
use tokio::io::{AsyncBufReadExt, BufReader};

/// How long a demo may clean up after Ctrl-C.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// The port the hello stack publishes.
const DEMO_PORT: u16 = 8080;
/// Name of the image this binary carries.
pub(crate) const HELLO_IMAGE: &str = "rswarm/hello:latest";
/// The stack the demo deploys when no file is given.
pub(crate) const HELLO_STACK: &str = include_str!("../../../../examples/hello/stack.yml");

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// How many hosts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) hosts: u8,
    /// Leave the hosts up until Ctrl-C and say how to use them.
    #[arg(long)]
    pub(crate) keep: bool,
    /// A stack to deploy instead of hello.
    pub(crate) file: Option<PathBuf>,
    /// Where the hosts keep their things; set for the process that makes the namespaces.
    #[arg(long, hide = true)]
    around: Option<PathBuf>,
    /// The same; set for the part inside the namespaces.
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LabArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    inside: bool,
}

/// Runs `rswarm demo`. Call before any thread exists.
pub(crate) fn demo(args: &DemoArgs) -> Result<ExitCode> {
    if let Some(dir) = &args.inside {
        return inside(|| show::run(dir.clone(), args.clone()));
    }
    if let Some(dir) = &args.around {
        lab::die_with_parent()?;
        // SIGINT is blocked, as around this: what is inside is told, too, cleans up and ends.
        let result = run_in_namespaces(dir, &again(args, "--inside", dir));
        // An ordinary user may remove what containers left only as the root of this user namespace.
        let removed = remove_folder(dir);
        return result.and_then(|code| removed.map(|()| code));
    }
    // This process stays where the person is: with its threads it could not enter the namespaces, and inside, the
    // person's loopback does not exist.
    let listeners = if args.keep { listen(args.hosts)? } else { Vec::new() };
    if let Some(file) = &args.file {
        file.canonicalize().with_context(|| format!("cannot read {}", file.display()))?;
    }
    let dir = tempfile_dir()?;
    let result = attend(&dir, args, listeners);
    // What was killed may still be dying.
    let deadline = Instant::now() + LAST_WORDS;
    while !remove_cgroups(&cgroup_parent(&dir)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let removed = remove_folder(&dir);
    result.and_then(|code| removed.map(|()| code))
}

/// Removes what is there.
fn remove_folder(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Returns the command line of the next process of a demo.
fn again(args: &DemoArgs, part: &str, dir: &Path) -> Vec<String> {
    let mut again = vec!["demo".to_owned(), part.to_owned(), dir.display().to_string()];
    again.extend(["--hosts".to_owned(), args.hosts.to_string()]);
    if args.keep {
        again.push("--keep".to_owned());
    }
    again.extend(args.file.as_ref().map(|file| file.display().to_string()));
    again
}

/// Runs the demo in another process, with ways into it, until it ends by itself or by a signal.
fn attend(dir: &Path, args: &DemoArgs, listeners: Vec<(u8, TcpListener)>) -> Result<ExitCode> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block().context("cannot block signals")?;
    let mut around = Command::new("/proc/self/exe");
    // A process group of its own: what comes from the terminal is passed on by this process alone.
    let around = around.args(again(args, "--around", dir)).process_group(0);
    let mut around = around.spawn().context("cannot start the demo")?;
    for (n, listener) in listeners {
        relay(dir, n, listener);
    }
    let process = Pid::from_raw(i32::try_from(around.id()).context("a process id")?);
    std::thread::spawn(move || {
        // It may be over already; then there is nobody to tell.
        let tell = move |signal| killpg(process, signal).unwrap_or_default();
        if signals.wait().is_ok() {
            tell(Signal::SIGINT);
            std::thread::spawn(move || {
                std::thread::sleep(LAST_WORDS);
                tell(Signal::SIGKILL);
            });
        }
        if signals.wait().is_ok() {
            tell(Signal::SIGKILL);
        }
    });
    let status = around.wait().context("cannot wait for the demo")?;
    Ok(exit_code(status))
}

fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    status.code().and_then(|c| u8::try_from(c).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Runs `rswarm lab`. Call before any thread exists.
pub(crate) fn lab(args: &LabArgs) -> Result<ExitCode> {
    if args.inside {
        return inside(|| serve_lab(args.dir.clone()));
    }
    // Whoever started the lab may be killed: it must not outlive that.
    lab::die_with_parent()?;
    let dir = args.dir.display().to_string();
    run_in_namespaces(&args.dir, &["lab".to_owned(), "--inside".to_owned(), "--dir".to_owned(), dir])
}

fn tempfile_dir() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("rswarm-demo-{}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Starts this program again as pid 1 of new namespaces and returns how it ended.
fn run_in_namespaces(dir: &Path, args: &[String]) -> Result<ExitCode> {
    lab::enter_namespaces()?;
    lab::own_subordinate_ids(dir)?;
    let status =
        Command::new("/proc/self/exe").args(args).status().context("cannot start inside the namespaces")?;
    if !remove_cgroups(&cgroup_parent(dir)) {
        tracing::warn!(dir = %dir.display(), "cgroups not removed");
    }
    Ok(exit_code(status))
}

fn inside<F: Future<Output = Result<()>>>(work: impl FnOnce() -> F) -> Result<ExitCode> {
    lab::die_with_parent()?;
    // What was blocked around this is not to be blocked in here, nor in what is started from here.
    SigSet::all().thread_unblock().context("cannot unblock signals")?;
    lab::mount_proc()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work())?;
    Ok(ExitCode::SUCCESS)
}

/// The cgroup under which all containers of a lab live, named after its directory.
fn cgroup_parent(dir: &Path) -> String {
    dir.file_name().map_or_else(|| "rswarm-lab".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Removes a lab's cgroups from every hierarchy; false if one still has processes. What an ordinary user could not
/// make is not there.
fn remove_cgroups(parent: &str) -> bool {
    let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
    let roots = roots.chain([PathBuf::from("/sys/fs/cgroup")]);
    // All of them, also after one that stays.
    let gone: Vec<bool> = roots.map(|root| remove_cgroup(&root.join(parent))).collect();
    !gone.contains(&false)
}

fn remove_cgroup(path: &Path) -> bool {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    match std::fs::remove_dir(path) {
        Ok(()) => true,
        Err(e) => matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory),
    }
}

/// Binds one port a host on the person's loopback, for a browser: host N answers on 8080 + N.
fn listen(hosts: u8) -> Result<Vec<(u8, TcpListener)>> {
    (1..=hosts)
        .map(|n| {
            let port = browser_port(n);
            let listener = TcpListener::bind(("127.0.0.1", port))
                .with_context(|| format!("cannot listen on 127.0.0.1:{port} for a browser"))?;
            Ok((n, listener))
        })
        .collect()
}

/// Returns where a browser finds port 8080 of host `n`.
fn browser_port(n: u8) -> u16 {
    8080 + u16::from(n)
}

/// Passes what arrives on a browser's socket to the lab, through the Unix socket that crosses its namespaces.
/// Runs for as long as the process.
fn relay(dir: &Path, n: u8, listener: TcpListener) {
    let path = forward_path(dir, n, DEMO_PORT);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = UnixStream::connect(&path) else { continue };
            let (Ok(client_in), Ok(server_in)) = (client.try_clone(), server.try_clone()) else { continue };
            std::thread::spawn(move || copy(client_in, &server, |s| s.shutdown(Shutdown::Write)));
            std::thread::spawn(move || copy(server_in, &client, |c| c.shutdown(Shutdown::Write)));
        }
    });
}

/// Copies until either side hangs up, then passes the half-close on; there is nobody to tell of an error.
fn copy<W>(mut from: impl std::io::Read, to: &W, close: impl Fn(&W) -> std::io::Result<()>)
where
    for<'a> &'a W: std::io::Write,
{
    let mut to_ref = to;
    drop(std::io::copy(&mut from, &mut to_ref));
    drop(close(to));
}

fn forward_path(dir: &Path, n: u8, port: u16) -> PathBuf {
    dir.join(format!("forward-{n}-{port}.sock"))
}

fn door_path(dir: &Path, n: u8, port: u16) -> PathBuf {
    dir.join(format!("door-{n}-{port}.sock"))
}

async fn serve_lab(dir: PathBuf) -> Result<()> {
    let mut lab = Lab::new(dir.clone(), cgroup_parent(&dir)).await?;
    let mut forwards = BTreeSet::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = match words.as_slice() {
            ["start", n] => lab.start_host(n.parse()?).await,
            ["kill", n] => lab.kill_host(n.parse()?),
            ["kill-daemon", n] => lab.kill_daemon(n.parse()?),
            ["start-daemon", n] => lab.start_daemon(n.parse()?),
            ["program", n, program, more @ ..] => {
                n.parse().map(|n| lab.program(n, program, more)).map_err(Into::into)
            }
            ["cut", n] => lab.cable(n.parse()?, false).await,
            ["heal", n] => lab.cable(n.parse()?, true).await,
            ["exec", n, name, args @ ..] => lab.exec(n.parse()?, name, args),
            ["forward", n, port] => {
                let (n, port) = (n.parse()?, port.parse()?);
                forward(forward_path(&dir, n, port), n, port, false, &mut forwards)
            }
            ["door", n, port] => {
                let (n, port) = (n.parse()?, port.parse()?);
                forward(door_path(&dir, n, port), n, port, true, &mut forwards)
            }
            ["serve", port] => serve_beside(&dir, port.parse()?).await,
            _ => Err(anyhow::anyhow!("unknown command {line:?}")),
        };
        match done {
            Ok(()) => crate::output::line("ok")?,
            Err(error) => crate::output::line(&format!("error: {error:#}"))?,
        }
    }
    Ok(())
}

/// Lets a client outside the namespaces reach a port of a host through a Unix socket in the lab's directory. At a
/// door that `tells` whoever gets no answer is told why.
fn forward(path: PathBuf, n: u8, port: u16, tells: bool, known: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !known.insert(path.clone()) {
        return Ok(());
    }
    let listener = tokio::net::UnixListener::bind(&path)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    tokio::task::spawn_local(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::task::spawn_local(door::serve(client, (lab::host_address(n), port).into(), tells));
        }
    });
    Ok(())
}

/// Lets the hosts reach, as port `port` of the gateway, who listens on a Unix socket in the lab's directory.
async fn serve_beside(dir: &Path, port: u16) -> Result<()> {
    let path = dir.join(format!("serve-{port}.sock"));
    let listener = tokio::net::TcpListener::bind((lab::GATEWAY, port))
        .await
        .with_context(|| format!("cannot listen on port {port} of the gateway"))?;
    tokio::task::spawn_local(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let path = path.clone();
            tokio::task::spawn_local(async move {
                if let Ok(mut server) = tokio::net::UnixStream::connect(path).await {
                    // Either side may hang up at any time; there is nobody to tell.
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
    });
    Ok(())
}
