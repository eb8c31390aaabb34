//! `rswarm`: the engine, the cluster and the client in one program.
//!
//! *Start reading at* [`main`]: what must run before any thread exists comes first, then the daemon, then the
//! commands, which all speak to a daemon's front door.

mod build;
mod cli;
mod commands;
mod demo;
mod list;
mod output;
mod terminal;

use anyhow::{Context, Result};
use clap::{FromArgMatches as _, parser::ValueSource};
use cli::{Builder, Cli, Command, System};
use commands::contexts::Said;
use docker_api::{client::Client, tls::Files};
use std::{ffi::OsString, process::ExitCode};

/// Where a daemon listens when nobody says otherwise.
const DEFAULT_HOST: &str = "unix:///run/rswarm/docker.sock";

/// Something that was to run cannot, and waiting does not cure it.
pub(crate) const CANNOT_RUN: u8 = 3;

/// Exit codes beyond those of a container: 1 = the command failed, 2 = it was typed wrong (clap), or a plan would
/// change something, 3 = a service cannot run, however long one waits, or would not as planned, 125 = the daemon
/// refused to make a container, 130 = Ctrl-C, 141 = nobody reads standard output any more.
fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|a| a == "shim") {
        return runtime::shim::main(&args[2..]);
    }
    // In the hello image this program is called `/hello`.
    let called = args.first().map(std::path::Path::new).and_then(|p| p.file_name());
    if called.is_some_and(|name| name == "hello") {
        let words: Vec<String> = args.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
        return finish(demo::hello::run(&words));
    }
    // A shell that asks what can be typed next; this ends here if it does.
    clap_complete::CompleteEnv::with_factory(|| commands::names::taught(cli::whole()))
        .var(commands::names::VARIABLE)
        .complete();
    let matches = cli::read(&args);
    // What the environment says is for commands that ask a daemon.
    let typed = matches.value_source("host") == Some(ValueSource::CommandLine);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    finish(dispatch(cli, typed))
}

fn finish(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        if output::is_closed(&error) {
            return ExitCode::from(output::CLOSED);
        }
        let hopeless = commands::converge::CannotRun::is_in(&error);
        output::error(&commands::door::explained(error));
        if hopeless { ExitCode::from(CANNOT_RUN) } else { ExitCode::FAILURE }
    })
}

/// `typed`: the host is one of the command line.
fn dispatch(cli: Cli, typed: bool) -> Result<ExitCode> {
    match cli.command {
        // These make namespaces, which a process may do only while it has one thread.
        Command::Demo(args) => demo::demo(&args),
        Command::Lab(args) => demo::lab(&args),
        Command::LabHost(args) => demo::host::run(&args),
        Command::Hello { args } => demo::hello::run(&args),
        Command::Oci(args) => commands::oci::run(&args),
        Command::Daemon(args) => {
            if cli.context.or(cli.context_before).is_some() {
                anyhow::bail!("--context says which daemon a command asks; the daemon itself takes -H");
            }
            daemon(args, cli.host.filter(|_| typed), cli.tls)
        }
        // These ask no daemon.
        Command::Completion { shell } => commands::manual::completion(shell).map(|()| ExitCode::SUCCESS),
        Command::Help { command } => commands::manual::help(&command).map(|()| ExitCode::SUCCESS),
        Command::Man { folder } => commands::manual::pages(&folder).map(|()| ExitCode::SUCCESS),
        Command::Stack(cli::Stack::Config(args)) => {
            commands::stack::config(&args).map(|()| ExitCode::SUCCESS)
        }
        Command::Context(command) => {
            let said = Said::gather(cli.host, typed, cli.context.or(cli.context_before))?;
            commands::context::run(&said, tls_files(&cli.tls)?, command).map(|()| ExitCode::SUCCESS)
        }
        command => {
            let said = Said::gather(cli.host, typed, cli.context.or(cli.context_before))?;
            // Docker's word for another thing.
            let hosts = typed && matches!(&command, Command::Service(cli::Service::Create(_)));
            let client = client(&said, &cli.tls).map_err(|error| match hosts {
                true => error.context(
                    "--host says which daemon is asked; hint: --add-host NAME:ADDRESS is for the service",
                ),
                false => error,
            })?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let result = runtime.block_on(ask(&client, command));
            // A read of standard input cannot be cancelled; it must not hold the exit up.
            runtime.shutdown_background();
            result
        }
    }
}

/// Returns what speaks with the daemon that is meant.
fn client(said: &Said, tls: &cli::TlsArgs) -> Result<Client> {
    let place = said.place()?;
    // A context has its own files; flags win over them, variables do not.
    let encrypted = match (place.host.starts_with("tcp://"), place.named && !tls.tlsverify) {
        (true, true) => place.tls,
        (true, false) => tls_files(tls)?,
        (false, _) => None,
    };
    let client = match encrypted {
        Some(files) => Client::with_tls(&place.host, docker_api::tls::client_config(&files)?)?,
        None => Client::new(&place.host)?,
    };
    // As for Docker's CLI: an older daemon is spoken to in its own version.
    let version = std::env::var("DOCKER_API_VERSION").ok().filter(|version| !version.is_empty());
    let client = match version {
        Some(version) => client.with_version(version.trim_start_matches('v')),
        None => client,
    };
    Ok(match commands::logins::token(client.host())? {
        Some(token) => client.with_token(&token)?,
        None => client,
    })
}

/// Returns the files for TLS, if it is asked for; Docker's variables stand for flags.
fn tls_files(args: &cli::TlsArgs) -> Result<Option<Files>> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if !args.tlsverify && set("DOCKER_TLS_VERIFY").is_none() {
        return Ok(None);
    }
    let folder = match (set("DOCKER_CERT_PATH"), set("HOME")) {
        (Some(folder), _) => folder.into(),
        (None, Some(home)) => std::path::PathBuf::from(home).join(".docker"),
        (None, None) => anyhow::bail!("TLS needs --tlscacert, or DOCKER_CERT_PATH, or HOME"),
    };
    let usual = Files::in_folder(&folder);
    Ok(Some(Files {
        ca: args.tlscacert.clone().unwrap_or(usual.ca),
        cert: args.tlscert.clone().unwrap_or(usual.cert),
        key: args.tlskey.clone().unwrap_or(usual.key),
    }))
}

/// `host`, `tls`: as dockerd takes them, one more address to listen at, and how `tcp://` addresses are protected.
fn daemon(args: cli::DaemonArgs, host: Option<String>, tls: cli::TlsArgs) -> Result<ExitCode> {
    let hostname = match args.hostname {
        Some(name) => name,
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let (config, group, remap) = (args.config, args.group, args.userns_remap);
    let read = move || {
        let mut settings = match &config {
            Some(path) => node::Settings::read(path)?,
            None => node::Settings::read_if_there(commands::doctor::DEFAULT_CONFIG.as_ref())?,
        };
        settings.group = group.clone().or(settings.group);
        settings.hosts.extend(host.clone());
        settings.tlsverify |= tls.tlsverify;
        settings.tlscacert = tls.tlscacert.clone().or(settings.tlscacert);
        settings.tlscert = tls.tlscert.clone().or(settings.tlscert);
        settings.tlskey = tls.tlskey.clone().or(settings.tlskey);
        settings.userns_remap = remap.clone().unwrap_or(settings.userns_remap);
        Ok(settings)
    };
    let settings = read()?;
    if args.validate {
        settings.try_out()?;
        for told in &settings.told {
            output::error(&anyhow::anyhow!("left out: {told}"));
        }
        output::line("configuration OK")?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = node::Options {
        data_root: args
            .data_root
            .or_else(|| settings.data_root.clone())
            .unwrap_or_else(|| "/var/lib/rswarm".into()),
        run_root: args.run_root,
        hostname,
        cgroup_parent: args
            .cgroup_parent
            .or_else(|| settings.cgroup_parent.clone())
            .unwrap_or_else(|| "rswarm".into()),
        settings,
        reread: node::Reread(Box::new(read)),
        clock_ahead_seconds: args.clock_offset,
    };
    node::prepare();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start tokio")?;
    runtime.block_on(node::run(options))?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(client: &Client, command: Command) -> Result<ExitCode> {
    use commands::{
        build, cluster, compose, container, copy, deploy, doctor, image, login, look, objects, prune,
        service, stack, system, user,
    };
    match command {
        Command::Deploy(args) => return deploy::run(client, &args).await,
        Command::Compose(args) => return compose::run(client, *args).await,
        Command::Scale(args) => return service::scale(client, &args).await,
        Command::Swarm(command) => cluster::swarm(client, command).await?,
        Command::Node(command) => cluster::node(client, command).await?,
        Command::Service(command) => return service::run(client, command).await,
        Command::User(command) => user::run(client, command).await?,
        Command::Audit(args) => user::audit(client, &args).await?,
        Command::Doctor(args) => return doctor::run(client, &args).await,
        Command::Stack(command) => return stack::run(client, command).await,
        Command::Image(command) => image::run(client, command).await?,
        Command::Secret(command) => objects::secret(client, command).await?,
        Command::Config(command) => objects::config(client, command).await?,
        Command::Network(command) => objects::network(client, command).await?,
        Command::Volume(command) => objects::volume(client, command).await?,
        Command::Container(command) => return container::command(client, command).await,
        Command::Ps(args) => container::ps(client, &args).await?,
        Command::Run(args) => return container::run(client, &args).await,
        Command::Create(args) => return container::create(client, &args).await,
        Command::Exec(args) => return container::exec(client, args).await,
        Command::Logs(args) => container::logs(client, &args).await?,
        Command::Start(args) => return container::start(client, &args).await,
        Command::Stop(args) => container::stop(client, &args, "stop").await?,
        Command::Restart(args) => container::stop(client, &args, "restart").await?,
        Command::Pause(args) => container::act(client, &args.names, "pause").await?,
        Command::Unpause(args) => container::act(client, &args.names, "unpause").await?,
        Command::Rename(args) => container::rename(client, &args).await?,
        Command::Wait(args) => container::wait(client, &args).await?,
        Command::Top(args) => look::top(client, &args).await?,
        Command::Port(args) => look::port(client, &args).await?,
        Command::Diff(args) => look::diff(client, &args.container).await?,
        Command::Stats(args) => look::stats(client, &args).await?,
        Command::Attach(args) => return container::attach(client, &args).await,
        Command::Cp(args) => copy::cp(client, &args).await?,
        Command::Export(args) => image::export(client, &args).await?,
        Command::Commit(args) => image::commit(client, &args).await?,
        Command::Kill(args) => container::kill(client, &args).await?,
        Command::Rm(args) => container::rm(client, &args).await?,
        Command::Build(args) => build::run(client, &args).await?,
        Command::Pull(args) => image::pull(client, &args).await?,
        Command::Push(args) => image::push(client, &args).await?,
        Command::Save(args) => image::save(client, &args).await?,
        Command::History(args) => image::history(client, &args).await?,
        Command::Login(args) => login::login(client, &args).await?,
        Command::Logout(args) => login::logout(&args)?,
        Command::Events(args) => look::events(client, &args).await?,
        Command::Rmi(args) => image::rm(client, &args).await?,
        Command::Search(args) => image::search(client, &args).await?,
        Command::Update(args) => container::update(client, &args).await?,
        Command::Images(args) => image::ls(client, &args).await?,
        Command::Load(args) => image::load(client, &args).await?,
        Command::Import(args) => image::import(client, &args).await?,
        Command::Tag(args) => image::tag(client, &args).await?,
        Command::Inspect(args) => system::inspect(client, &args).await?,
        Command::Builder(Builder::Build(args)) => build::run(client, &args).await?,
        Command::Builder(Builder::Prune(args)) => prune::run(client, prune::Kind::Builds, &args).await?,
        Command::System(System::DialStdio) => system::dial_stdio(client).await?,
        Command::System(System::Df(args)) => prune::df(client, &args).await?,
        Command::System(System::Prune(args)) => prune::system(client, &args).await?,
        Command::System(System::Events(args)) => look::events(client, &args).await?,
        Command::System(System::Shutdown) => return system::shutdown(client).await,
        Command::System(System::Info(args)) => system::info(client, &args).await?,
        Command::Info(args) => system::info(client, &args).await?,
        Command::Version(args) => system::version(client, &args).await?,
        Command::Completion { .. }
        | Command::Context(_)
        | Command::Help { .. }
        | Command::Man { .. }
        | Command::Daemon(_)
        | Command::Demo(_)
        | Command::Lab(_)
        | Command::LabHost(_)
        | Command::Oci(_)
        | Command::Hello { .. } => {
            unreachable!("dispatch() runs these itself")
        }
    }
    Ok(ExitCode::SUCCESS)
}
