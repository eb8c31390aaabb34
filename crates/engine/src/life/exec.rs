//! More processes in a running container: `docker exec` and healthchecks.

use crate::{
    ask::{
        execs::{Exec, ExecConfig, ExecStart, Execs},
        gate,
    },
    error::{Error, Result},
    files::layers::{self, Layers},
    inner::Inner,
    life::{
        command::Command,
        owner::Owner,
        streams::{self, ShimEnds, Streams, Wanted},
    },
    networks::links,
    seen::{
        container::{Container, Status},
        event::Event,
        event::container_event,
    },
    spec::{oci, users},
};
use runtime::config::Process;
use std::time::Duration;

/// How long an ended instance can still be inspected.
const KEPT: Duration = Duration::from_secs(300);
/// *Limit* of instances of a container that have no process: not begun, or ended. Whoever makes more loses the oldest.
const IDLE_MAX: usize = 1024;
/// *Limit* of what these say, but for the newest. *Unit:* bytes.
const IDLE_BYTES_MAX: usize = 8 << 20;

pub(crate) fn create(inner: &Inner, container: &Container, config: ExecConfig) -> Result<String> {
    if config.cmd.is_empty() {
        return Err(Error::invalid("No exec command specified"));
    }
    gate::exec(&config)?;
    must_run(container)?;
    let id = crate::random_id();
    let exec = Exec {
        id: id.clone(),
        container_id: container.id.clone(),
        running: false,
        exit_code: None,
        pid: None,
        finished_at: None,
        can_remove: false,
        made_at: crate::now(),
        config,
    };
    let now = exec.made_at;
    let mut execs = inner.execs();
    execs.retain(|_, e| e.finished_at.is_none_or(|at| now.since(at) < KEPT));
    inner.publish(event(container, "exec_create", &exec, []));
    execs.insert(id.clone(), exec);
    forget_oldest(&mut execs, &container.id);
    Ok(id)
}

/// Makes room among the instances of a container that have no process: nobody need ever start one, and each may say as much
/// as a command line.
fn forget_oldest(execs: &mut Execs, container: &str) {
    let idle = execs.values().filter(|exec| exec.container_id == container && !exec.running);
    let mut idle: Vec<_> = idle.map(|exec| (exec.made_at, exec.id.clone(), exec.config.bytes())).collect();
    idle.sort_unstable_by(|one, other| other.cmp(one));
    let mut bytes = 0;
    for (newer, (_, id, said)) in idle.into_iter().enumerate() {
        bytes += said;
        if newer >= IDLE_MAX || (newer > 0 && bytes > IDLE_BYTES_MAX) {
            execs.remove(&id);
        }
    }
}

fn must_run(container: &Container) -> Result<()> {
    match container.state.status {
        Status::Running => Ok(()),
        Status::Paused => Err(Error::ExecPaused(container.id.clone())),
        Status::Created | Status::Restarting | Status::Removing | Status::Exited | Status::Dead => {
            Err(Error::NotRunning(container.id.clone()))
        }
    }
}

pub(crate) fn event<const N: usize>(
    container: &Container,
    action: &str,
    exec: &Exec,
    more: [(&str, String); N],
) -> Event {
    let action = match action {
        // Source: moby `daemon/exec.go`, `daemon/monitor.go`: how it began is told with its command.
        "exec_die" | "exec_detach" => action.to_owned(),
        _ => format!("{action}: {}", exec.config.cmd.join(" ")),
    };
    let mut event = container_event(container, action, more);
    event.attributes.insert("execID".into(), exec.id.clone());
    event
}

pub(crate) async fn start(inner: &Inner, id: &str, start: ExecStart) -> Result<Streams> {
    let exec = inner.exec(id)?;
    let container = inner.inspect(&exec.container_id)?;
    must_run(&container)?;
    claim(inner, id)?;
    let started = start_claimed(inner, &exec, &container, start).await;
    if let Err(e) = &started {
        let code = match e {
            Error::ExecFailed { exit_code, .. } => *exit_code,
            _ => 126,
        };
        finish(inner, id, code);
    }
    started
}

pub(crate) fn can_start(inner: &Inner, id: &str) -> Result<()> {
    let exec = inner.exec(id)?;
    must_run(&*inner.inspect(&exec.container_id)?)?;
    not_started(&exec)
}

fn not_started(exec: &Exec) -> Result<()> {
    match exec.exit_code {
        _ if exec.running => Err(Error::ExecRunning(exec.id.clone())),
        Some(_) => Err(Error::ExecHasRun(exec.id.clone())),
        None => Ok(()),
    }
}

/// Marks it running, so that nobody else starts it.
fn claim(inner: &Inner, id: &str) -> Result<()> {
    let mut execs = inner.execs();
    let exec = execs.get_mut(id).ok_or_else(|| Error::NoSuchExec(id.to_owned()))?;
    not_started(exec)?;
    exec.running = true;
    Ok(())
}

async fn start_claimed(
    inner: &Inner,
    exec: &Exec,
    container: &Container,
    start: ExecStart,
) -> Result<Streams> {
    let process = process(inner, container, &exec.config, start.console_size).await?;
    let wanted = if start.detach {
        Wanted::default()
    } else {
        Wanted {
            stdin: exec.config.attach_stdin,
            stdout: exec.config.attach_stdout,
            stderr: exec.config.attach_stderr,
        }
    };
    let (ours, ends) =
        streams::pair(wanted, exec.config.tty).map_err(Error::io("make socket pair for", &exec.id))?;
    let id = exec.id.clone();
    inner
        .ask(&exec.container_id, |reply| Command::Exec {
            id: id.clone(),
            process: Box::new(process),
            ends,
            reply,
        })
        .await?;
    inner.publish(event(container, "exec_start", exec, []));
    Ok(ours)
}

/// Resolves user and environment of an exec in the container's own files.
pub(crate) async fn process(
    inner: &Inner,
    container: &Container,
    exec: &ExecConfig,
    console: Option<(u16, u16)>,
) -> Result<Process> {
    let folders = layers::of_container(inner, container).await?;
    // One that it is linked to may have ended meanwhile: no reason not to look into this one.
    let links = links::environment(inner, container).unwrap_or_default();
    let (config, exec) = (container.config.clone(), exec.clone());
    let hostname = match &config.hostname {
        Some(name) if !name.is_empty() => name.clone(),
        _ => container.id[..12].to_owned(),
    };
    crate::blocking(move || {
        let user = exec.user.as_deref().or(config.user.as_deref()).unwrap_or_default();
        let group_add: &[String] = if exec.user.is_some() { &[] } else { &config.host.group_add };
        let identity = users::resolve(&Layers { folders }, user, group_add)?;
        oci::exec_process(&config, &identity, &exec, &hostname, &links, console)
    })
    .await
}

/// Notes the end of an instance; returns it if it was one.
pub(crate) fn finish(inner: &Inner, id: &str, code: i32) -> Option<Exec> {
    let mut execs = inner.execs();
    let exec = execs.get_mut(id)?;
    exec.running = false;
    exec.exit_code = Some(code);
    exec.finished_at = Some(crate::now());
    exec.can_remove = true;
    let exec = exec.clone();
    drop(execs);
    inner.exec_ended.send_replace(());
    Some(exec)
}

/// Tells that somebody left an instance that goes on.
pub(crate) fn detached(inner: &Inner, id: &str) {
    let Ok(exec) = inner.exec(id) else { return };
    if let Ok(container) = inner.inspect(&exec.container_id) {
        inner.publish(event(&container, "exec_detach", &exec, []));
    }
}

pub(crate) async fn wait(inner: &Inner, id: &str) -> Result<Exec> {
    let mut ended = inner.exec_ended.subscribe();
    loop {
        ended.borrow_and_update();
        let exec = inner.exec(id)?;
        if exec.exit_code.is_some() {
            return Ok(exec);
        }
        ended.changed().await.map_err(|_| Error::ShuttingDown)?;
    }
}

impl Owner {
    pub(crate) async fn exec(&mut self, id: String, process: Process, ends: ShimEnds) -> Result<()> {
        if self.container.state.status == Status::Paused {
            return Err(Error::ExecPaused(self.container.id.clone()));
        }
        let plan = runtime::ExecPlan { id: id.clone(), process, stdio: ends.attached(true) };
        let started = self.with_shim("exec in", move |shim| shim.exec(plan)).await;
        match started {
            Ok(()) => {
                self.container.exec_ids.push(id);
                self.publish();
                Ok(())
            }
            Err(Error::Start { message, exit_code }) => Err(Error::ExecFailed { message, exit_code }),
            Err(e) => Err(e),
        }
    }

    pub(crate) async fn exec_ended(&mut self, id: &str, code: i32) {
        if self.probe.as_ref().is_some_and(|p| p.id == id) {
            return self.probe_ended(code).await;
        }
        self.container.exec_ids.retain(|e| e != id);
        self.publish();
        if let Some(exec) = finish(&self.inner, id, code) {
            let event = event(&self.container, "exec_die", &exec, [("exitCode", code.to_string())]);
            self.inner.publish(event);
        }
    }

    /// All of them ended with the container.
    pub(crate) fn forget_execs(&mut self) {
        for id in std::mem::take(&mut self.container.exec_ids) {
            finish(&self.inner, &id, 137);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    fn exec(number: usize, container: &str, bytes: usize, running: bool) -> (String, Exec) {
        let exec = Exec {
            id: format!("{container}{number}"),
            container_id: container.to_owned(),
            config: ExecConfig { cmd: vec!["x".repeat(bytes)], ..ExecConfig::default() },
            running,
            exit_code: None,
            pid: None,
            finished_at: None,
            can_remove: false,
            made_at: Timestamp(i64::try_from(number).unwrap()),
        };
        (exec.id.clone(), exec)
    }

    #[test]
    fn instances_that_nobody_starts_push_out_each_other_and_nothing_else() {
        let many = (0..2000).map(|n| exec(n, "flood", 1, n == 7));
        let mut execs: Execs = many.chain([exec(0, "quiet", 1, false)]).collect();
        forget_oldest(&mut execs, "flood");
        assert_eq!(execs.len(), IDLE_MAX + 2);
        for (id, there) in [("flood1999", true), ("flood976", true), ("flood975", false), ("flood7", true)] {
            assert_eq!(execs.contains_key(id), there, "{id}");
        }
        assert!(execs.contains_key("quiet0"));

        let mut large: Execs = (0..9).map(|n| exec(n, "flood", 2 << 20, false)).collect();
        forget_oldest(&mut large, "flood");
        assert_eq!(large.into_keys().collect::<Vec<_>>(), ["flood6", "flood7", "flood8"]);
        let mut one = Execs::from([exec(0, "flood", 64 << 20, false)]);
        forget_oldest(&mut one, "flood");
        assert_eq!(one.len(), 1, "the newest can be started");
    }
}
