//! The shim: one small process per container, which outlives the daemon. For `runtime`, which starts it and talks to it.
//!
//! It makes the container, holds its standard streams or terminal, writes its log, collects its exit status, and
//! starts further processes in it. One thread, one `poll` loop (`server`), no state but what its directory and
//! its descriptors hold. The daemon is any number of clients on its socket; none at all is fine.
//!
//! *Invariant:* the OCI spec and the parsers that come with it are not here: whatever needs them is done by the daemon
//! (`plan` in the state directory is what is left of the spec), so that every container costs little memory, and so that
//! a release build, which makes this a program of its own, compiles little twice.
//!
//! *Start reading at* [`main`].

pub mod cgroup;
pub mod hooks;
pub mod state;
pub mod userns;
pub mod wire;

mod child;
mod conversation;
mod create;
mod failure;
mod forward;
mod log;
mod mounts;
mod paths;
mod server;
mod streams;
mod users;

pub use child::CAPABILITIES;
pub use state::ExitStatus;

use failure::Failure;
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType},
    process::{Resource, Rlimit},
};
use std::{
    ffi::OsString,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
};
use sys::process::{Cloned, SingleThreaded};
use wire::{Answer, Body, Launch, Received};

/// Runs as the shim of the container whose state directory is the only argument; standard input is the connection
/// to the daemon. To be called first thing in `main`, before any thread exists. Returns when the container has
/// ended and the daemon has said so, or at once in the process that the daemon started, which only forks. With other
/// arguments it is the process in which `runtime::UserNamespace::new` makes namespaces, or that `runtime::try_layers`
/// starts (module `userns`).
#[must_use]
pub fn main(args: &[OsString]) -> ExitCode {
    match detach_and_run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn detach_and_run(args: &[OsString]) -> io::Result<ExitCode> {
    match args {
        [first, more @ ..] if first == userns::KEEPER => {
            userns::keep(rustix::stdio::stdin(), more)?;
            return Ok(ExitCode::SUCCESS);
        }
        [first, dir] if first == userns::TRIAL => return try_layers(Path::new(dir)),
        _ => {}
    }
    let [dir] = args else { return Err(io::Error::other("usage: shim STATE-DIRECTORY")) };
    let dir = PathBuf::from(dir);
    let proof = SingleThreaded::prove()?;
    sys::process::close_on_exec_from(3)?;
    if let Some(soft) = std::env::var(state::DESCRIPTORS).ok().and_then(|text| text.parse::<u64>().ok()) {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let current = limit.maximum.map_or(soft, |hard| hard.min(soft));
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit })?;
    }
    let daemon = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    drop(null);
    match sys::process::clone3(proof, 0, None)? {
        Cloned::Parent { .. } => sys::process::exit_now(0),
        Cloned::Child => {}
    }
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    sys::signal::ignore_for_supervisor();
    // Without the right to do so it is as likely a victim as the others.
    drop(fs::write("/proc/self/oom_score_adj", "-999"));
    rustix::process::chdir("/")?;
    run(proof, dir, daemon)
}

fn run(proof: SingleThreaded, dir: PathBuf, daemon: OwnedFd) -> io::Result<ExitCode> {
    let refuse = |failure: Failure| -> io::Result<ExitCode> {
        let body = Body::Failed(wire::Failed { message: failure.message, exec_code: failure.exec_code });
        wire::send(daemon.as_fd(), &Answer { version: wire::VERSION, seq: 0, body: Some(body) }, &[])?;
        Ok(ExitCode::SUCCESS)
    };
    let mut launch = match read_plan(&dir) {
        Ok(launch) => launch,
        Err(error) => return refuse(Failure::other(format!("cannot read the plan: {error}"))),
    };
    if let Err(failure) = users::complete(proof, &mut launch) {
        return refuse(failure);
    }
    let inherited = match inherited(&launch, &daemon) {
        Ok(streams) => streams,
        Err(error) => return refuse(Failure::other(format!("cannot take over the streams: {error}"))),
    };
    let container = match create::create(proof, &launch, &dir, inherited) {
        Ok(container) => container,
        Err(failure) => return refuse(failure),
    };
    let listener = match listen(&dir) {
        Ok(listener) => listener,
        Err(error) => {
            create::destroy(&container);
            return refuse(Failure::other(format!("cannot listen in {}: {error}", dir.display())));
        }
    };
    server::Server::new(proof, dir, launch, container, listener)?.run(daemon)?;
    Ok(ExitCode::SUCCESS)
}

/// Mounts the layers of a plan that has little else, in this process's own mount namespace, which ends with it.
fn try_layers(dir: &Path) -> io::Result<ExitCode> {
    let proof = SingleThreaded::prove()?;
    let launch = read_plan(dir)?;
    let asked = launch.users.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
    let tried = users::Users::open(proof, asked).and_then(|users| mounts::prepare(&launch, dir, &users));
    tried.map(|_| ExitCode::SUCCESS).map_err(|failure| io::Error::other(failure.message))
}

/// Takes the descriptors that the daemon sent before anything else, if it did.
fn inherited(launch: &Launch, daemon: &OwnedFd) -> io::Result<Option<conversation::ChildEnds>> {
    if !launch.inherit_streams {
        return Ok(None);
    }
    let Received::Message(wire::Empty {}, fds) = wire::receive(daemon.as_fd())? else {
        return Err(io::Error::other("they did not come"));
    };
    let mut fds = fds.into_iter();
    Ok(Some(conversation::ChildEnds { stdin: fds.next(), stdout: fds.next(), stderr: fds.next() }))
}

fn read_plan(dir: &Path) -> io::Result<Launch> {
    let launch = <Launch as prost::Message>::decode(fs::read(dir.join(state::PLAN))?.as_slice())?;
    if launch.version > wire::VERSION {
        return Err(io::Error::other(format!(
            "it is of version {}, this is {}",
            launch.version,
            wire::VERSION
        )));
    }
    Ok(launch)
}

fn listen(dir: &Path) -> io::Result<OwnedFd> {
    let (address, _dir) = state::socket_address(dir)?;
    let listener = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, 16)?;
    Ok(listener)
}
