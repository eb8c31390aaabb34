//! The hooks of a spec: those that the shim and the container's process run are translated for them, those for after
//! start and end are run here. [`shim::hooks`] says which is which.

use crate::{
    Error,
    config::{self as oci, Spec},
    state,
};
use shim::{
    hooks::{State, Status, run_all},
    wire::{Hook, Hooks, Pair},
};
use std::{
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// How long a hook may take that does not say. *Unit:* seconds.
const SECONDS: u32 = 30;
/// No hook may take longer, whatever it says. *Unit:* seconds.
const SECONDS_MAX: u32 = 120;
/// A start is waited for less long.
const START_SECONDS_MAX: u32 = 5;

/// Translates the hooks that the shim and the container's process run.
pub(crate) fn translate(spec: &Spec, dir: &Path) -> Result<Option<Hooks>, String> {
    let Some(hooks) = &spec.hooks else { return Ok(None) };
    // `prestart` is deprecated and means the same as `createRuntime`, which comes after it.
    let mut create_runtime = list("prestart", hooks.prestart.as_ref(), SECONDS_MAX)?;
    create_runtime.extend(list("createRuntime", hooks.create_runtime.as_ref(), SECONDS_MAX)?);
    let hooks = Hooks {
        create_runtime,
        create_container: list("createContainer", hooks.create_container.as_ref(), SECONDS_MAX)?,
        start_container: list("startContainer", hooks.start_container.as_ref(), START_SECONDS_MAX)?,
        annotations: annotations(spec),
        bundle: bundle(dir).into_os_string().into_vec(),
    };
    Ok(Some(hooks))
}

fn list(kind: &str, hooks: Option<&Vec<oci::Hook>>, seconds_max: u32) -> Result<Vec<Hook>, String> {
    let one = |hook: &oci::Hook| {
        if !hook.path.is_absolute() {
            return Err(format!("the path of a {kind} hook, {:?}, is not absolute", hook.path));
        }
        let seconds = match hook.timeout {
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
            path: hook.path.as_os_str().as_bytes().to_vec(),
            args: bytes(&hook.args),
            env: bytes(&hook.env),
            seconds: seconds.min(seconds_max),
        })
    };
    hooks.into_iter().flatten().map(one).collect()
}

/// Runs the hooks for after the program was executed.
///
/// # Errors
/// [`Error::Create`] with the first that failed; the container should be killed then.
pub fn poststart(dir: &Path, id: &str, pid: u32) -> Result<(), Error> {
    let failed = |message: String| Error::Create { message };
    let Some(spec) = loaded(dir, "poststart") else { return Ok(()) };
    let hooks = list("poststart", spec.hooks.as_ref().and_then(|h| h.poststart.as_ref()), SECONDS_MAX)
        .map_err(failed)?;
    let pid = i32::try_from(pid).unwrap_or_default();
    run_of(&hooks, &spec, dir, id, Status::Running, pid).map_err(failed)
}

/// Runs the hooks for after the container has ended. What fails hinders nothing.
///
/// # Errors
/// With the first that failed.
pub fn poststop(dir: &Path) -> Result<(), String> {
    let Some(spec) = loaded(dir, "poststop") else { return Ok(()) };
    let hooks = list("poststop", spec.hooks.as_ref().and_then(|h| h.poststop.as_ref()), SECONDS_MAX)?;
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    run_of(&hooks, &spec, dir, &id, Status::Stopped, 0)
}

/// Reads the spec if hooks of this kind are in it, which they seldom are.
fn loaded(dir: &Path, kind: &str) -> Option<Spec> {
    let path = dir.join(state::CONFIG);
    if !std::fs::read_to_string(&path).ok()?.contains(kind) {
        return None;
    }
    Spec::load(&path).ok()
}

fn bundle(dir: &Path) -> PathBuf {
    std::fs::read(dir.join(state::BUNDLE))
        .map_or_else(|_| dir.to_owned(), |path| OsStr::from_bytes(&path).into())
}

fn annotations(spec: &Spec) -> Vec<Pair> {
    let all = spec.annotations.iter().flatten();
    all.map(|(key, value)| Pair { key: key.clone(), value: value.clone() }).collect()
}

fn run_of(hooks: &[Hook], spec: &Spec, dir: &Path, id: &str, status: Status, pid: i32) -> Result<(), String> {
    let bundle = bundle(dir);
    let state = State {
        version: &spec.oci_version,
        id,
        status,
        pid,
        bundle: &bundle,
        annotations: annotations(spec),
    };
    run_all(hooks, &state)
}
