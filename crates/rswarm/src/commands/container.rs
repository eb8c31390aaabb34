//! Containers: `ps run exec logs stop kill rm`; `exec` and `logs` reach tasks on any host.

use super::{
    credentials, each, inspect,
    joined::{Joined, Over, pump},
    logs::copy_logs,
    service_logs, sized, target,
};
use crate::{
    cli::{
        AttachArgs, Container, CreateArgs, ExecArgs, KillArgs, LeaveFlags, LogsArgs, Names, PsArgs, Pull,
        RenameArgs, RmArgs, RunArgs, StartArgs, StopArgs, UpdateArgs,
    },
    list::{self, List},
    output, terminal,
};
use anyhow::{Context, Result, anyhow, bail};
use docker_api::{
    client::{Client, Query},
    detach_keys::DetachKeys,
    types::{self, StrSlice},
};
use nix::sys::signal::Signal;
use std::process::ExitCode;

pub(crate) async fn command(client: &Client, command: Container) -> Result<ExitCode> {
    match command {
        Container::Ls(args) => ps(client, &args).await?,
        Container::Prune(args) => super::prune::run(client, super::prune::Kind::Containers, &args).await?,
        Container::Run(args) => return run(client, &args).await,
        Container::Create(args) => return create(client, &args).await,
        Container::Exec(args) => return exec(client, args).await,
        Container::Logs(args) => logs(client, &args).await?,
        Container::Start(args) => return start(client, &args).await,
        Container::Stop(args) => stop(client, &args, "stop").await?,
        Container::Restart(args) => stop(client, &args, "restart").await?,
        Container::Kill(args) => kill(client, &args).await?,
        Container::Pause(args) => act(client, &args.names, "pause").await?,
        Container::Unpause(args) => act(client, &args.names, "unpause").await?,
        Container::Rm(args) => rm(client, &args).await?,
        Container::Rename(args) => rename(client, &args).await?,
        Container::Update(args) => update(client, &args).await?,
        Container::Wait(args) => wait(client, &args).await?,
        Container::Attach(args) => return attach(client, &args).await,
        Container::Cp(args) => super::copy::cp(client, &args).await?,
        Container::Diff(args) => super::look::diff(client, &args.container).await?,
        Container::Export(args) => super::image::export(client, &args).await?,
        Container::Commit(args) => super::image::commit(client, &args).await?,
        Container::Port(args) => super::look::port(client, &args).await?,
        Container::Stats(args) => super::look::stats(client, &args).await?,
        Container::Top(args) => super::look::top(client, &args).await?,
        Container::Inspect(args) => inspect(client, sized("containers", args.size), &args.inspect).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is listed of containers.
const COLUMNS: &[(&str, &str)] = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];
/// With `--size` alone: to find it out takes time.
const SIZE: (&str, &str) = ("SIZE", "Size");
/// Where it is, in a list of those of all nodes.
const NODE: (&str, &str) = ("NODE", "Node");

pub(crate) async fn rename(client: &Client, args: &RenameArgs) -> Result<()> {
    Ok(client.container_act(&args.container, "rename", &[("name", &args.name)]).await?)
}

/// Lists containers, of this host or of all nodes.
///
/// # Errors
/// A node that should have answered did not: what there is of the others is printed nevertheless.
pub(crate) async fn ps(client: &Client, args: &PsArgs) -> Result<()> {
    let filters = list::filters(&args.list.filter)?;
    let flag = |on: bool| if on { "1" } else { "0" };
    let limit = if args.latest { Some(1) } else { args.last.filter(|count| *count > 0) };
    let count = limit.unwrap_or(0).to_string();
    let all = flag(args.all || limit.is_some());
    let query = [("all", all), ("limit", &count), ("size", flag(args.size)), ("filters", &filters)];
    if args.all_nodes {
        return ps_everywhere(client, args, &query).await;
    }
    let mut table = List::new(&[COLUMNS, size_column(args)].concat());
    for container in client.containers(&query).await? {
        table.row(row(container, args));
    }
    table.print(&args.list)
}

async fn ps_everywhere(client: &Client, args: &PsArgs, query: Query<'_>) -> Result<()> {
    let nodes = client.containers_everywhere(query).await.map_err(|error| {
        if error.is_not_found() {
            anyhow!(
                "{error}\nhint: containers of all nodes are told by managers of this version; upgrade them"
            )
        } else {
            error.into()
        }
    })?;
    let mut table = List::new(&[COLUMNS, size_column(args), &[NODE]].concat());
    let mut silent = Vec::new();
    for node in nodes {
        let name = node.hostname;
        match (node.ready, node.error.as_str()) {
            (_, "") => {}
            (true, why) => silent.push(format!("{name}: {why}")),
            (false, why) => output::warning(&format!("the containers of {name} are not known: {why}")),
        }
        for container in node.containers {
            table.row([row(container, args), vec![name.clone()]].concat());
        }
    }
    table.print(&args.list)?;
    if silent.is_empty() {
        return Ok(());
    }
    bail!("the list is not whole: {}", silent.join("; "))
}

/// Returns what is listed of a container.
fn row(container: types::ContainerSummary<'static>, args: &PsArgs) -> Vec<String> {
    let now = list::now().0 / 1_000_000_000;
    let age = std::time::Duration::from_secs(u64::try_from(now - container.created).unwrap_or(0));
    let [of_id, of_command] = if args.no_trunc { [usize::MAX; 2] } else { [12, 20] };
    let command: String = container.command.chars().take(of_command).collect();
    let names = container.names.iter().map(|name| name.trim_start_matches('/'));
    let mut values = vec![
        container.id.chars().take(of_id).collect(),
        container.image.split('@').next().unwrap_or_default().to_owned(),
        format!("\"{command}\""),
        format!("{} ago", list::human(age)),
        container.status.clone(),
        ports(&container),
        names.collect::<Vec<_>>().join(","),
    ];
    if args.size {
        let size = |bytes: i64| list::size(u64::try_from(bytes).unwrap_or(0));
        values.push(format!("{} (virtual {})", size(container.size_rw), size(container.size_root_fs)));
    }
    values
}

fn size_column(args: &PsArgs) -> &'static [(&'static str, &'static str)] {
    if args.size { &[SIZE] } else { &[] }
}

/// Returns ports as a list shows them.
pub(crate) fn ports(container: &types::ContainerSummary<'static>) -> String {
    let port = |p: &types::SummaryPort| match p.public_port {
        0 => format!("{}/{}", p.private_port, p.kind),
        public => format!("{}:{public}->{}/{}", p.ip, p.private_port, p.kind),
    };
    container.ports.iter().map(port).collect::<Vec<_>>().join(", ")
}

pub(crate) async fn create(client: &Client, args: &CreateArgs) -> Result<ExitCode> {
    let id = make(client, args, true).await?;
    output::line(&id)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a container, with its image pulled if asked or needed; returns its id.
async fn make(client: &Client, args: &CreateArgs, attached: bool) -> Result<String> {
    let flags = &args.flags;
    let body = super::create::body(args, attached)?;
    let mut cidfile = match &flags.cidfile {
        None => None,
        Some(path) => {
            Some(std::fs::OpenOptions::new().write(true).create_new(true).open(path).with_context(|| {
                format!(
                    "ID file {}, make sure the other container isn't running or delete it",
                    path.display()
                )
            })?)
        }
    };
    let pull = || async {
        let platform = flags.platform.clone();
        let args = crate::cli::PullArgs { image: args.image().to_owned(), quiet: flags.quiet, platform };
        super::image::pull(client, &args).await
    };
    if flags.pull == Pull::Always {
        pull().await?;
    }
    let name = flags.name.as_deref();
    let mut query: Vec<(&str, &str)> = name.map(|name| ("name", name)).into_iter().collect();
    let platform = flags.platform.as_deref().filter(|platform| !platform.is_empty());
    query.extend(platform.map(|platform| ("platform", platform)));
    let create = || client.post::<types::Created>("/containers/create", &query, &body);
    let created = match create().await {
        Err(error) if error.is_not_found() && flags.pull == Pull::Missing => {
            pull().await?;
            create().await
        }
        other => other,
    };
    if let (Err(_), Some(path)) = (&created, &flags.cidfile) {
        // Nothing was made that it could name.
        drop(std::fs::remove_file(path));
    }
    let created = created?;
    if let Some(file) = &mut cidfile {
        std::io::Write::write_all(file, created.id.as_bytes()).context("cannot write the ID file")?;
    }
    for warning in &created.warnings {
        output::warning(warning);
    }
    Ok(created.id)
}

pub(crate) async fn run(client: &Client, args: &RunArgs) -> Result<ExitCode> {
    let flags = &args.container.flags;
    let id = match make(client, &args.container, !args.detach).await {
        Ok(id) => id,
        Err(error) => {
            output::error(&error);
            return Ok(ExitCode::from(REFUSED));
        }
    };
    if args.detach {
        if let Err(error) = client.container_act(&id, "start", &[]).await {
            return Ok(not_started(error.into()));
        }
        output::line(&id)?;
        return Ok(ExitCode::SUCCESS);
    }
    let joined = Joined::of(flags);
    let how = Attached {
        tty: flags.tty,
        stdin: joined.stdin,
        stdout: joined.stdout,
        stderr: joined.stderr,
        removed: flags.rm,
        signals: args.signals.sig_proxy,
        leave: args.leave.clone(),
    };
    attached(client, &id, how).await
}

/// How a container that is made for a person is joined.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Attached {
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Signals to this process are passed on, unless the container has a terminal.
    pub(crate) signals: bool,
    /// It is removed when it has ended.
    pub(crate) removed: bool,
    pub(crate) leave: LeaveFlags,
}

/// Returns the keys at which one leaves, as they are said and to look for. Source: docker/cli `cli/config/configfile`,
/// `detachKeys`.
///
/// # Errors
/// They are no keys.
fn leaving(flags: &LeaveFlags) -> Result<(String, DetachKeys)> {
    let said = flags.detach_keys.clone().or_else(credentials::detach_keys).unwrap_or_default();
    let keys = DetachKeys::parse(&said)?;
    Ok((said, keys))
}

/// Leaving is what was wanted: no failure.
fn left() -> ExitCode {
    output::progress("read escape sequence");
    ExitCode::SUCCESS
}

/// Starts a container with this process's streams; ends with its exit code.
pub(crate) async fn attached(client: &Client, id: &str, how: Attached) -> Result<ExitCode> {
    let flag = |on: bool| if on { "1" } else { "0" };
    let (said, keys) = leaving(&how.leave)?;
    let query = [
        ("stream", "1"),
        ("stdin", flag(how.stdin)),
        ("stdout", flag(how.stdout)),
        ("stderr", flag(how.stderr)),
        ("detachKeys", said.as_str()),
    ];
    let streams = client.container_attach(id, &query).await?;
    let condition = if how.removed { "removed" } else { "next-exit" };
    let waiting = client.container_wait(id, condition).await?;
    if let Err(error) = client.container_act(id, "start", &[]).await {
        return Ok(not_started(error.into()));
    }
    let _raw = terminal::raw_if(how.tty && how.stdin)?;
    if how.tty {
        resize(client, "containers", id).await;
    }
    let ended = async {
        if pump(streams, how.tty, how.stdin, keys).await? == Over::Left {
            return Ok(left());
        }
        Ok(exit_code(Client::wait_answer(waiting).await?.status_code))
    };
    passing_signals(client, id, how.signals && !how.tty, ended).await
}

/// Signals that a command which shows a container's streams passes on to it. *Source:* docker/cli `signals.go`; those
/// of the terminal's own (window, stop) and of this process (pipe, child) are not the container's.
const PASSED: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// So many times a person asks this command to end, and it does, whatever the container does. *Source:* docker/cli
/// `cmd/docker/docker.go`, `forceExitAfter3TerminationSignals`.
const IMPATIENT: usize = 3;

/// Waits for the end of `work`, and passes signals on to a container meanwhile if that is wanted.
async fn passing_signals<T>(
    client: &Client,
    id: &str,
    wanted: bool,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    if !wanted {
        return work.await;
    }
    let mut heard = Vec::new();
    for signal in PASSED {
        let kind = tokio::signal::unix::SignalKind::from_raw(signal as i32);
        heard
            .push((signal.as_str(), tokio::signal::unix::signal(kind).context("cannot listen for signals")?));
    }
    let pass = async {
        let mut impatient = 0;
        loop {
            let waits = heard.iter_mut().map(|(name, signal)| {
                Box::pin(async move {
                    signal.recv().await;
                    *name
                })
            });
            let (name, ..) = futures::future::select_all(waits).await;
            // It may have ended already: then `work` is about to say so.
            drop(client.container_act(id, "kill", &[("signal", name)]).await);
            impatient += usize::from(matches!(name, "SIGINT" | "SIGTERM"));
            if impatient == IMPATIENT {
                break anyhow::anyhow!(
                    "got {IMPATIENT} SIGTERM/SIGINTs, forcefully exiting; the container goes on"
                );
            }
        }
    };
    tokio::select! {
        result = work => result,
        error = pass => Err(error),
    }
}

/// Exit code when there is no container to have one.
const REFUSED: u8 = 125;

/// Shows why a container does not start. *Source:* docker CLI, `toStatusError`: 127 and 126 as a shell has them.
fn not_started(error: anyhow::Error) -> ExitCode {
    output::error(&error);
    let text = format!("{error:#}");
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["executable file not found", "no such file or directory"]) {
        127.into()
    } else if says(&["permission denied", "is a directory"]) {
        126.into()
    } else {
        REFUSED.into()
    }
}

fn exit_code(code: i64) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::from(125), ExitCode::from)
}

/// A terminal that cannot be resized (it has ended already) is no reason to fail.
async fn resize(client: &Client, base: &str, id: &str) {
    if let Some((rows, columns)) = terminal::size() {
        drop(client.resize(base, id, rows, columns).await);
    }
}

pub(crate) async fn exec(client: &Client, args: ExecArgs) -> Result<ExitCode> {
    let (detach_keys, keys) = leaving(&args.leave)?;
    let exec = types::ExecCreate {
        detach_keys,
        user: args.user.unwrap_or_default(),
        tty: args.tty,
        attach_stdin: args.interactive && !args.detach,
        attach_stdout: !args.detach,
        attach_stderr: !args.detach,
        privileged: args.privileged,
        env: super::create::environment(&args.env_file, &args.env)?,
        working_dir: args.workdir.unwrap_or_default(),
        cmd: StrSlice(args.command),
        ..Default::default()
    };
    let container = target::one(client, &args.container).await?;
    let id = client.exec_create(&container, &exec).await?.id;
    if args.detach {
        client.exec_start_detached(&id).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let streams = client.exec_start(&id, &types::ExecStart { tty: args.tty, ..Default::default() }).await?;
    let _raw = terminal::raw_if(args.tty && args.interactive)?;
    if args.tty {
        resize(client, "exec", &id).await;
    }
    if pump(streams, args.tty, args.interactive, keys).await? == Over::Left {
        return Ok(left());
    }
    Ok(exit_code(i64::from(client.exec_code(&id).await?)))
}

pub(crate) async fn update(client: &Client, args: &UpdateArgs) -> Result<()> {
    let body = types::ContainerUpdate {
        resources: super::create::limits(&args.limits)?,
        restart_policy: match &args.restart {
            None => None,
            some => Some(super::create::restart(some.as_deref())?),
        },
    };
    each(&args.containers, async |name| {
        let said: types::ContainerUpdated =
            client.post(&format!("/containers/{}/update", super::escape(name)), &[], &body).await?;
        said.warnings.iter().for_each(|warning| output::warning(warning));
        Ok(())
    })
    .await
}

/// Prints the logs of a container, of a task, or of all tasks of a service.
pub(crate) async fn logs(client: &Client, args: &LogsArgs) -> Result<()> {
    match client.container(&args.name).await {
        // The log of a container with a terminal has no frames.
        Ok(container) => {
            copy_logs(client, "containers", &args.name, args, args.details, container.config.tty).await
        }
        Err(missing) if target::is_not_here(&missing) => {
            let named = target::beyond(client, &args.name, missing).await?;
            service_logs::plain(client, &named, args).await
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn start(client: &Client, args: &StartArgs) -> Result<ExitCode> {
    if !args.attach && !args.interactive {
        act(client, &args.containers, "start").await?;
        return Ok(ExitCode::SUCCESS);
    }
    let [container] = args.containers.as_slice() else {
        bail!("you cannot start and attach multiple containers at once")
    };
    let tty = client.container(container).await?.config.tty;
    let (said, keys) = leaving(&args.leave)?;
    let mut query = vec![("stream", "1"), ("stdout", "1"), ("stderr", "1"), ("detachKeys", said.as_str())];
    if args.interactive {
        query.push(("stdin", "1"));
    }
    let streams = client.container_attach(container, &query).await?;
    let waiting = client.container_wait(container, "next-exit").await?;
    client.container_act(container, "start", &[]).await?;
    let _raw = terminal::raw_if(tty && args.interactive)?;
    let ended = async {
        if pump(streams, tty, args.interactive, keys).await? == Over::Left {
            return Ok(left());
        }
        Ok(exit_code(Client::wait_answer(waiting).await?.status_code))
    };
    passing_signals(client, container, !tty, ended).await
}

pub(crate) async fn attach(client: &Client, args: &AttachArgs) -> Result<ExitCode> {
    let id = target::one(client, &args.container).await?;
    let container = client.container(&id).await?;
    if !container.state.running {
        bail!("You cannot attach to a stopped container, start it first");
    }
    let (tty, stdin) = (container.config.tty, container.config.open_stdin && !args.no_stdin);
    let (said, keys) = leaving(&args.leave)?;
    let mut query = vec![("stream", "1"), ("stdout", "1"), ("stderr", "1"), ("detachKeys", said.as_str())];
    if stdin {
        query.push(("stdin", "1"));
    }
    let streams = client.container_attach(&id, &query).await?;
    let waiting = client.container_wait(&id, "not-running").await?;
    let _raw = terminal::raw_if(tty && stdin)?;
    if tty {
        resize(client, "containers", &id).await;
    }
    let ended = async {
        if pump(streams, tty, stdin, keys).await? == Over::Left {
            return Ok(left());
        }
        Ok(exit_code(Client::wait_answer(waiting).await?.status_code))
    };
    passing_signals(client, &id, args.signals.sig_proxy && !tty, ended).await
}

/// Does one thing without a parameter to each of several containers.
pub(crate) async fn act(client: &Client, names: &[String], action: &str) -> Result<()> {
    each(names, async |name| Ok(client.container_act(name, action, &[]).await?)).await
}

pub(crate) async fn wait(client: &Client, args: &Names) -> Result<()> {
    for name in &args.names {
        let id = target::one(client, name).await?;
        let waiting = client.container_wait(&id, "not-running").await?;
        output::line(&Client::wait_answer(waiting).await?.status_code.to_string())?;
    }
    Ok(())
}

/// `action` is `stop` or `restart`.
pub(crate) async fn stop(client: &Client, args: &StopArgs, action: &str) -> Result<()> {
    let time = args.timeout.map(|t| t.to_string());
    let mut query: Vec<(&str, &str)> = time.iter().map(|t| ("t", t.as_str())).collect();
    query.extend(args.signal.as_deref().map(|signal| ("signal", signal)));
    let query = &query;
    each(&args.containers, async |name| {
        let id = target::to_end(client, name, action).await?;
        Ok(client.container_act(&id, action, query).await?)
    })
    .await
}

pub(crate) async fn kill(client: &Client, args: &KillArgs) -> Result<()> {
    let signal = args.signal.as_str();
    each(&args.containers, async |name| {
        let id = target::to_end(client, name, "kill").await?;
        Ok(client.container_act(&id, "kill", &[("signal", signal)]).await?)
    })
    .await
}

pub(crate) async fn rm(client: &Client, args: &RmArgs) -> Result<()> {
    let flag = |on| if on { "1" } else { "0" };
    let query = [("force", flag(args.force)), ("v", flag(args.volumes))];
    let query = &query;
    each(&args.containers, async |name| Ok(client.container_remove(name, query).await?)).await
}
