//! The OCI runtime command line's five verbs, as functions: `create`, `start`, `state`, `kill`, `delete`.
//!
//! A container made here has the caller's own standard streams (or sends its terminal to `console_socket`), as
//! runc does it, and writes no log. Its state lives in `root/<id>`. Source: OCI runtime spec, "runtime.md";
//! runc(8).

use crate::{
    ContainerPlan, Error, LogTarget, Rootfs, Shim, ShimProgram, cgroup,
    client::Streams,
    config::Spec,
    hooks, remove,
    state::{self, read_exit},
};
use rustix::stdio;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// Where the cgroups of bundles without `cgroupsPath` are.
const PARENT: &str = "/rswarm-oci";

/// What `create` is told.
#[derive(Debug, Clone)]
pub struct Create {
    pub id: String,
    /// Directory with `config.json`.
    pub bundle: PathBuf,
    /// Gets the master of the terminal; needed when the process wants a terminal.
    pub console_socket: Option<PathBuf>,
    /// Gets the process id.
    pub pid_file: Option<PathBuf>,
    /// As [`ContainerPlan::userns_squash`].
    pub userns_squash: bool,
}

/// What [`state()`] returns. *Source:* OCI runtime spec, "State".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    pub status: ContainerState,
    /// 0 when it has stopped.
    pub pid: i32,
    pub bundle: PathBuf,
    pub annotations: BTreeMap<String, String>,
}

/// How far a container is; [`create`] returns when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    Created,
    Running,
    Stopped,
}

fn prepare(dir: &Path) -> impl FnOnce(io::Error) -> Error {
    let dir = dir.to_owned();
    move |source| Error::Prepare { dir, source }
}

fn invalid(id: &str, reason: impl Into<String>) -> Error {
    Error::Spec { id: id.to_owned(), reason: reason.into() }
}

/// Reads the file that is in a bundle, and in the directory of each container.
fn loaded(dir: &Path, id: &str) -> Result<Spec, Error> {
    let path = dir.join(state::CONFIG);
    Spec::load(&path).map_err(|error| invalid(id, format!("{}: {error}", path.display())))
}

/// The id becomes a directory's name. Source: runc `validateID`.
fn directory(root: &Path, id: &str) -> Result<PathBuf, Error> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_+-.".contains(letter);
    if id.is_empty() || id == "." || id == ".." || !id.chars().all(allowed) {
        return Err(invalid(id, "container id may hold letters, digits and _ + - . only"));
    }
    Ok(root.join(id))
}

/// Makes the container of a bundle; its program waits for [`start`].
///
/// # Errors
/// When the id is taken, the bundle is invalid or a step fails; nothing is left then.
pub fn create(root: &Path, program: &ShimProgram, args: &Create) -> Result<(), Error> {
    let dir = directory(root, &args.id)?;
    let bundle = fs::canonicalize(&args.bundle).map_err(prepare(&args.bundle))?;
    let mut spec = loaded(&bundle, &args.id)?;
    let rootfs =
        spec.root.as_ref().map(|root| bundle.join(&root.path)).ok_or_else(|| invalid(&args.id, "no root"))?;
    let tty = spec.process.as_ref().and_then(|process| process.terminal).unwrap_or(false);
    if let Some(linux) = &mut spec.linux
        && linux.cgroups_path.is_none()
    {
        linux.cgroups_path = Some(format!("{PARENT}/{}", args.id).into());
    }
    // Source: OCI runtime spec, "Mounts": a relative source of a bind mount is below the bundle.
    for mount in spec.mounts.iter_mut().flatten() {
        let binds = mount.options.iter().flatten().any(|option| option == "bind" || option == "rbind");
        if let Some(source) = mount.source.as_ref().filter(|source| binds && source.is_relative()) {
            mount.source = Some(bundle.join(source));
        }
    }
    let streams = match (&args.console_socket, tty) {
        (Some(socket), true) => Streams::Console(socket),
        (None, true) => return Err(invalid(&args.id, "process.terminal needs a console socket")),
        (Some(_), false) => return Err(invalid(&args.id, "console socket without process.terminal")),
        (None, false) => Streams::Inherited([stdio::stdin(), stdio::stdout(), stdio::stderr()]),
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(prepare(root))?;
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(invalid(&args.id, "container with given ID already exists"));
        }
        result => result.map_err(prepare(&dir))?,
    }
    let plan = ContainerPlan {
        id: args.id.clone(),
        dir: dir.clone(),
        spec,
        rootfs: Rootfs::Directory(rootfs),
        log: LogTarget::None,
        tty,
        stdin_open: false,
        init: false,
        userns_squash: args.userns_squash,
    };
    let made = fs::write(dir.join(state::BUNDLE), bundle.as_os_str().as_encoded_bytes())
        .map_err(prepare(&dir))
        .and_then(|()| Shim::spawn_with(program, &plan, &streams))
        .and_then(|shim| match &args.pid_file {
            Some(file) => fs::write(file, shim.pid().to_string()).map_err(prepare(file)),
            None => Ok(()),
        });
    made.inspect_err(|_| {
        // The first error is the one to tell.
        drop(take_away(&dir));
    })
}

/// Executes the program of a created container.
///
/// # Errors
/// When there is no such container, it was started already, or the program cannot be executed.
pub fn start(root: &Path, id: &str) -> Result<(), Error> {
    let dir = directory(root, id)?;
    let mut shim = Shim::connect(&dir)?;
    shim.start()?;
    hooks::poststart(&dir, id, shim.pid()).inspect_err(|_| {
        // The first error is the one to tell.
        drop(shim.signal(libc::SIGKILL, true));
    })
}

/// Returns the container's state as the runtime spec words it.
///
/// # Errors
/// When there is no such container.
pub fn state(root: &Path, id: &str) -> Result<State, Error> {
    let dir = directory(root, id)?;
    let bundle = fs::read_to_string(dir.join(state::BUNDLE)).map_err(prepare(&dir))?;
    let spec = loaded(&dir, id)?;
    let (status, pid) = match (read_exit(&dir), Shim::connect(&dir)) {
        (Some(_), _) | (None, Err(_)) => (ContainerState::Stopped, 0),
        (None, Ok(shim)) if shim.started() => (ContainerState::Running, shim.pid()),
        (None, Ok(shim)) => (ContainerState::Created, shim.pid()),
    };
    Ok(State {
        oci_version: spec.oci_version,
        id: id.to_owned(),
        status,
        pid: i32::try_from(pid).unwrap_or_default(),
        bundle: bundle.into(),
        annotations: spec.annotations.unwrap_or_default(),
    })
}

/// Sends a signal to the container's first process, or to all.
///
/// # Errors
/// When it does not run.
pub fn kill(root: &Path, id: &str, signal: i32, all: bool) -> Result<(), Error> {
    Shim::connect(&directory(root, id)?)?.signal(signal, all)
}

/// Removes a stopped container, or with `force` any. Returns what a hook failed with that ran after its end.
///
/// # Errors
/// When it has not stopped, or something of it cannot be taken away.
pub fn delete(root: &Path, id: &str, force: bool) -> Result<Option<String>, Vec<Error>> {
    let dir = directory(root, id).map_err(|error| vec![error])?;
    if !dir.exists() {
        return if force { Ok(None) } else { Err(vec![invalid(id, "container does not exist")]) };
    }
    if let Ok(shim) = Shim::connect(&dir) {
        if !force && read_exit(&dir).is_none() {
            return Err(vec![invalid(id, "cannot delete container that is not stopped")]);
        }
        shim.shutdown().map_err(|error| vec![error])?;
    }
    let warning = hooks::poststop(&dir).err();
    take_away(&dir)?;
    Ok(warning)
}

fn take_away(dir: &Path) -> Result<(), Vec<Error>> {
    let spec = Spec::load(&dir.join(state::CONFIG)).ok();
    let linux = spec.as_ref().and_then(|spec| spec.linux.as_ref());
    let path = linux.and_then(|linux| linux.cgroups_path.as_ref()).and_then(|path| path.to_str());
    match fs::remove_file(dir.join(state::BUNDLE)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(vec![Error::Remove { path: dir.join(state::BUNDLE), source }]);
        }
        _ => {}
    }
    remove(dir, path)?;
    if path.is_some_and(|path| path.starts_with(PARENT)) {
        cgroup::remove_if_empty(PARENT);
    }
    Ok(())
}
