//! What an owner does: stop, kill, restart, pause, rename, update, remove, and what follows an exit.

use crate::{
    ask::{
        gate::{self, signal_number},
        merge,
    },
    error::{Error, Result, runtime_failed},
    files::mounts::GOES_WITH_FOLDER,
    life::{
        command::{Reply, answer},
        owner::{AfterExit, GRACE, Owner, Places, Stopping},
        streams::ShimEnds,
    },
    networks::links,
    seen::container::*,
    spec::limits,
    volumes::local::Volume,
};
use model::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

const KILL: i32 = 9;
const TERM: i32 = 15;
/// Exit codes above this are the program's signals.
const SIGNALLED: i32 = 128;

impl Owner {
    /// Start by a person: policy counters begin anew.
    pub(crate) async fn start_on_demand(&mut self) -> Result<()> {
        if self.inner.host_goes() {
            return Err(Error::HostGoes);
        }
        match self.container.state.status {
            Status::Running => return Err(Error::AlreadyStarted(self.container.id.clone())),
            Status::Paused => return Err(Error::StartPaused),
            Status::Removing | Status::Dead => return Err(Error::StartRemoving),
            Status::Created | Status::Restarting | Status::Exited => {}
        }
        self.restart_at = None;
        self.backoff = crate::life::restart::Backoff::default();
        self.container.restart_count = 0;
        self.container.manually_stopped = false;
        let result = self.start().await;
        if result.is_err() && self.container.config.host.auto_remove {
            self.remove_now(RemoveOptions { force: true, volumes: true }).await?;
        }
        result
    }

    /// Start by the restart policy; a failure counts as an exit.
    pub(crate) async fn start_again(&mut self) {
        if self.inner.host_goes() {
            return; // the next engine does
        }
        self.container.restart_count += 1;
        if let Err(e) = self.start().await {
            tracing::warn!(container.id = %self.container.id, error = %e, "restart failed");
            let code = self.container.state.exit_code;
            self.follow_policy(code, Duration::ZERO).await;
        }
    }

    fn stop_signal(&self, wanted: Option<&str>) -> Result<i32> {
        match wanted.or(self.container.config.stop_signal.as_deref()) {
            Some(name) => signal_number(name),
            None => Ok(TERM),
        }
    }

    pub(crate) async fn stop(&mut self, options: &StopOptions, reply: Reply<()>) {
        self.container.manually_stopped = true;
        if self.container.state.status == Status::Restarting {
            self.restart_at = None;
            self.container.state.status = Status::Exited;
            let result = self.save().await;
            self.event("stop", []);
            return answer(reply, result);
        }
        if !self.container.state.is_running() {
            self.note().await;
            return answer(reply, Err(Error::AlreadyStopped(self.container.id.clone())));
        }
        match self.begin_stop(options, false).await {
            Ok(()) => self.after_exit.stopped.push(reply),
            Err(e) => answer(reply, Err(e)),
        }
    }

    /// Stops because the host goes down: what a restart policy starts again, it starts when the host is back.
    pub(crate) async fn host_goes(&mut self, reply: Reply<()>) {
        if self.restart_at.take().is_some() {
            self.container.state.status = Status::Exited;
            self.container.stopped_for_host = true;
            self.note().await;
        }
        if !self.container.state.is_running() {
            return answer(reply, Ok(()));
        }
        // A stop that somebody asked for goes on as he asked.
        let begun = match self.stopping {
            Some(_) => Ok(()),
            None => self.begin_stop(&StopOptions::default(), true).await,
        };
        match begun {
            Ok(()) => self.after_exit.stopped.push(reply),
            Err(e) => answer(reply, Err(e)),
        }
    }

    async fn begin_stop(&mut self, options: &StopOptions, for_host: bool) -> Result<()> {
        let signal = self.stop_signal(options.signal.as_deref())?;
        let grace = options.timeout.or(self.container.config.stop_timeout).unwrap_or(GRACE);
        let kill_at = Instant::now().checked_add(grace);
        self.thaw().await?;
        self.stopping = Some(Stopping { kill_at: kill_at.filter(|_| !grace.is_zero()), for_host });
        self.signal(signal).await?;
        self.event("kill", [("signal", signal.to_string())]);
        // As Docker: it is told, and given no time.
        if grace.is_zero() {
            self.kill_hard().await;
        }
        Ok(())
    }

    /// A container that ended a moment ago is not an error here: its exit is on the way.
    async fn signal(&self, number: i32) -> Result<()> {
        match self.with_shim("signal", move |shim| shim.signal(number, false)).await {
            Err(Error::Runtime { source, .. }) if is_gone(source.downcast_ref()) => Ok(()),
            other => other,
        }
    }

    pub(crate) async fn kill_hard(&self) {
        let killed = self.with_shim("kill", |shim| shim.signal(KILL, true)).await;
        if let Err(e) = killed {
            tracing::debug!(container.id = %self.container.id, error = %e, "kill found nobody");
        }
        self.event("kill", [("signal", KILL.to_string())]);
    }

    pub(crate) async fn kill(&mut self, number: i32, reply: Reply<()>) {
        if !self.container.state.is_running() {
            return answer(reply, Err(Error::KillNotRunning(self.container.id.clone())));
        }
        let stops = number == KILL || self.stop_signal(None).is_ok_and(|s| s == number);
        if stops {
            self.container.manually_stopped = true;
        }
        if number == KILL
            && let Err(e) = self.thaw().await
        {
            return answer(reply, Err(e));
        }
        let sent = self.signal(number).await;
        if sent.is_ok() {
            self.event("kill", [("signal", number.to_string())]);
        }
        match sent {
            Ok(()) if number == KILL => self.after_exit.stopped.push(reply),
            other => answer(reply, other),
        }
    }

    pub(crate) async fn restart(&mut self, options: &StopOptions, reply: Reply<()>) {
        if !self.container.state.is_running() {
            let result = self.start_on_demand().await;
            if result.is_ok() {
                self.event("restart", []);
            }
            return answer(reply, result);
        }
        match self.begin_stop(options, false).await {
            Ok(()) => self.after_exit.restart.push(reply),
            Err(e) => answer(reply, Err(e)),
        }
    }

    /// The run is over: everything of it is taken down, then policy decides.
    pub(crate) async fn ended(&mut self, exit: runtime::ExitStatus) {
        let at = exit.at.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let ran_for = self.started.take().map_or(Duration::ZERO, |s| s.elapsed());
        let (killed, stopping) = (self.container.manually_stopped, self.stopping.take());
        self.probe = None;
        self.probe_at = None;
        self.forget_execs();
        {
            let state = &mut self.container.state;
            state.status = Status::Exited;
            state.pid = None;
            state.exit_code = exit.code;
            state.oom_killed = exit.oom;
            state.finished_at = Some(Timestamp(i64::try_from(at).unwrap_or(i64::MAX)));
        }
        self.container.exits += 1;
        self.container.ports.clear();
        self.container.netns = None;
        for endpoint in self.container.networks.values_mut() {
            endpoint.leave();
        }
        // The exit is ours from here on, and only now may the shim forget it.
        let path = self.dir.join("state.json");
        let record = self.container.clone();
        let written = crate::blocking(move || crate::disk::persist::append_json(&path, &record, true)).await;
        if let Err(e) = written {
            tracing::error!(container.id = %self.container.id, error = %e, "exit not written");
        }
        self.take_down().await;
        self.event(
            "die",
            [("exitCode", exit.code.to_string()), ("execDuration", ran_for.as_secs().to_string())],
        );
        self.tell_of_places(Places::Left);
        if stopping.is_some() {
            self.event("stop", []);
        }
        tracing::info!(container.id = %self.container.id, code = exit.code, signalled = exit.code > SIGNALLED, "container ended");
        let AfterExit { stopped, restart, remove } = std::mem::take(&mut self.after_exit);
        if restart.is_empty() && remove.is_none() {
            let asked = killed || stopping.is_some_and(|stopping| !stopping.for_host);
            self.follow_policy_of(exit.code, ran_for, asked).await;
        } else {
            self.publish();
        }
        stopped.into_iter().for_each(|reply| answer(reply, Ok(())));
        if let Some((options, replies)) = remove {
            let result = self.remove_now(options).await.map_err(Arc::new);
            for reply in replies {
                answer(reply, result.clone().map_err(|e| Error::Conflict(e.to_string())));
            }
        } else if !restart.is_empty() {
            let mut result = self.start_on_demand().await;
            if result.is_ok() {
                self.event("restart", []);
            }
            for reply in restart {
                answer(reply, std::mem::replace(&mut result, Ok(())));
            }
        }
    }

    /// The volumes that it has.
    pub(crate) fn volumes(&self) -> Vec<Volume> {
        let volumes = &self.inner.volumes;
        self.container.mounts.iter().filter_map(|m| volumes.get(&m.name).ok()).collect()
    }

    /// Ends the shim and removes cgroup, run folder and network of the run that is over. Goes on after errors.
    /// Ends what may be left of a run that nothing else tells of, and takes its control group away.
    pub(crate) async fn end_run(&self) {
        let (run_dir, cgroup) = (self.run_dir.clone(), self.cgroup());
        let removed = crate::blocking(move || Ok(runtime::remove(&run_dir, Some(&cgroup)))).await;
        for error in removed.ok().and_then(Result::err).into_iter().flatten() {
            tracing::warn!(container.id = %self.container.id, error = %error, "leftover of a container");
        }
    }

    pub(crate) async fn take_down(&mut self) {
        self.readiness = None;
        let (shim, run_dir, cgroup) = (self.shim.take(), self.run_dir.clone(), self.cgroup());
        let (id, inner) = (self.container.id.clone(), self.inner.clone());
        let removed = crate::blocking(move || {
            inner.volumes.release(&id);
            if let Some(shim) = shim {
                let shim = shim.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Err(e) = shim.shutdown() {
                    tracing::debug!(container.id = %id, error = %e, "shim did not say goodbye");
                }
            }
            if let Err(reason) = runtime::poststop(&run_dir) {
                tracing::warn!(container.id = %id, reason, "a hook failed");
            }
            Ok(runtime::remove(&run_dir, Some(&cgroup)))
        });
        let (removed, network) = tokio::join!(removed, self.inner.network.remove_sandbox(&self.container.id));
        for error in removed.ok().and_then(Result::err).into_iter().flatten() {
            tracing::warn!(container.id = %self.container.id, error = %error, "leftover of a container");
        }
        for error in network.err().into_iter().flatten() {
            tracing::warn!(container.id = %self.container.id, error = %error, "leftover of a sandbox");
        }
        // Only now may others have its addresses.
        self.container.overlays.clear();
    }

    pub(crate) async fn follow_policy(&mut self, exit_code: i32, ran_for: Duration) {
        self.follow_policy_of(exit_code, ran_for, self.container.manually_stopped).await;
    }

    async fn follow_policy_of(&mut self, exit_code: i32, ran_for: Duration, stopped: bool) {
        let host = &self.container.config.host;
        let restarts = self.container.restart_count;
        match self.backoff.after_exit(host.restart, exit_code, restarts, ran_for, stopped) {
            Some(_) if self.inner.host_goes() => {
                self.container.stopped_for_host = true;
                self.note().await;
            }
            Some(wait) => {
                self.container.state.status = Status::Restarting;
                self.restart_at = Some(Instant::now() + wait);
                self.note().await;
            }
            None if host.auto_remove => {
                self.publish();
                if let Err(e) = self.remove_now(RemoveOptions { force: true, volumes: true }).await {
                    tracing::warn!(container.id = %self.container.id, error = %e, "container not removed");
                }
            }
            None => self.note().await,
        }
    }

    pub(crate) async fn pause(&mut self) -> Result<()> {
        let id = self.container.id.clone();
        match self.container.state.status {
            Status::Running => {}
            Status::Paused => return Err(Error::AlreadyPaused(id)),
            Status::Created | Status::Restarting | Status::Removing | Status::Exited | Status::Dead => {
                return Err(Error::NotRunning(id));
            }
        }
        let cgroup = self.cgroup();
        crate::blocking(move || runtime::pause(&cgroup).map_err(|e| runtime_failed("pause", &id, e))).await?;
        self.container.state.status = Status::Paused;
        self.save().await?;
        self.event("pause", []);
        Ok(())
    }

    pub(crate) async fn unpause(&mut self) -> Result<()> {
        if self.container.state.status != Status::Paused {
            return Err(Error::NotPaused(self.container.id.clone()));
        }
        self.thaw().await
    }

    /// Unpauses if it is paused.
    async fn thaw(&mut self) -> Result<()> {
        if self.container.state.status != Status::Paused {
            return Ok(());
        }
        let (id, cgroup) = (self.container.id.clone(), self.cgroup());
        crate::blocking(move || runtime::unpause(&cgroup).map_err(|e| runtime_failed("unpause", &id, e)))
            .await?;
        self.container.state.status = Status::Running;
        self.save().await?;
        self.event("unpause", []);
        Ok(())
    }

    pub(crate) async fn rename(&mut self, name: String) -> Result<()> {
        if name == self.container.name {
            return Err(Error::invalid("Renaming a container with the same name as its current name"));
        }
        let registry = &self.inner.registry;
        registry.reserve(&name, &self.container.id)?;
        let old = std::mem::replace(&mut self.container.name, name.clone());
        if let Err(e) = self.save().await {
            self.container.name = old;
            registry.release(&name, &self.container.id);
            return Err(e);
        }
        registry.release(&old, &self.container.id);
        let own_network = self.container.networks.values().any(|endpoint| endpoint.address.is_some());
        if self.container.state.is_running() && own_network {
            let renamed = self.inner.network.rename(&self.container.id, &old, &self.container.name).await;
            if let Err(error) = renamed {
                tracing::warn!(container.id = %self.container.id, %error, "others find it by its old name");
            }
        }
        self.event("rename", [("oldName", format!("/{old}"))]);
        Ok(())
    }

    pub(crate) async fn update(&mut self, update: Update) -> Result<()> {
        let mut config = (*self.container.config).clone();
        config.host = gate::updated(&config.host, &update)?;
        let limits = limits::cgroup(&config.host.resources)?;
        if self.container.state.is_running() {
            let (id, cgroup) = (self.container.id.clone(), self.cgroup());
            crate::blocking(move || {
                runtime::update(&cgroup, &limits).map_err(|e| runtime_failed("update", &id, e))
            })
            .await?;
        }
        self.reconfigure(config).await?;
        self.event("update", []);
        Ok(())
    }

    /// Writes another configuration down, and has it from then on.
    async fn reconfigure(&mut self, config: crate::ask::config::ContainerConfig) -> Result<()> {
        let config = Arc::new(config);
        let (path, record) = (self.dir.join("config.json"), config.clone());
        crate::blocking(move || crate::disk::persist::write_json(&path, &*record)).await?;
        self.container.config = config;
        self.publish();
        Ok(())
    }

    pub(crate) async fn unlink(&mut self, alias: &str) -> Result<()> {
        let mut config = (*self.container.config).clone();
        let (kept, gone) = links::without(std::mem::take(&mut config.host.links), alias);
        let gone = gone.ok_or_else(|| Error::NoSuchContainer(format!("{}/{alias}", self.container.name)))?;
        config.host.links = kept;
        self.reconfigure(config).await?;
        let (inner, hosts) = (self.inner.clone(), self.container.hosts_path.clone());
        crate::blocking(move || links::forget(&inner, &hosts, &gone)).await
    }

    /// Before the start the streams wait; afterwards they go to the shim.
    pub(crate) async fn attach(&mut self, ends: ShimEnds) -> Result<()> {
        if self.container.state.is_running() {
            let once = self.container.config.stdin_once;
            self.with_shim("attach", move |shim| shim.attach(ends.attached(once))).await?;
        } else {
            self.early.push(ends);
        }
        self.event("attach", []);
        Ok(())
    }

    pub(crate) async fn remove_on_demand(&mut self, options: RemoveOptions, reply: Reply<()>) {
        let state = &self.container.state;
        match state.status {
            Status::Removing => {
                answer(reply, Err(Error::RemovalInProgress(self.container.id.clone())));
            }
            Status::Running | Status::Paused | Status::Restarting if !options.force => {
                let name = self.container.name.clone();
                answer(reply, Err(Error::RemoveRunning { name, state: state.status.as_str() }));
            }
            Status::Running | Status::Paused => {
                self.container.manually_stopped = true;
                if let Err(e) = self.thaw().await {
                    return answer(reply, Err(e));
                }
                match &mut self.after_exit.remove {
                    Some((wanted, replies)) => {
                        wanted.volumes |= options.volumes;
                        replies.push(reply);
                    }
                    none => *none = Some((options, vec![reply])),
                }
                self.kill_hard().await;
            }
            Status::Created | Status::Restarting | Status::Exited | Status::Dead => {
                let result = self.remove_now(options).await;
                answer(reply, result);
            }
        }
    }

    /// Removes a container that does not run. One rename makes it gone; the rest is swept up behind it.
    pub(crate) async fn remove_now(&mut self, options: RemoveOptions) -> Result<()> {
        self.restart_at = None;
        self.container.state.status = Status::Removing;
        self.publish();
        let inner = self.inner.clone();
        let (dir, id) = (self.dir.clone(), self.container.id.clone());
        let anonymous: Vec<_> =
            self.container.mounts.iter().filter(|m| m.anonymous).map(|m| m.name.clone()).collect();
        let noted = if options.volumes { anonymous.clone() } else { vec![] };
        let gone = dir.with_file_name(format!("{}{id}", crate::disk::folders::REMOVED));
        let swept = gone.clone();
        let renamed = crate::blocking(move || {
            crate::files::secrets::remove(&inner, &id)?;
            if !noted.is_empty() {
                crate::disk::persist::write_json_lazily(&dir.join(GOES_WITH_FOLDER), &noted)?;
            }
            std::fs::rename(&dir, &gone).map_err(Error::io("rename", &dir))
        })
        .await;
        if let Err(e) = renamed {
            self.container.state.status = Status::Dead;
            self.container.state.error = e.to_string();
            self.note().await;
            return Err(e);
        }
        let inner = &self.inner;
        inner.execs().retain(|_, exec| exec.container_id != self.container.id);
        inner.registry.remove(&self.container.id);
        crate::files::image_mounts::release(inner, &self.container.id).await;
        self.gone = true;
        if options.volumes {
            for name in &anonymous {
                // Somebody else may use it by --volumes-from: then it stays.
                if let Err(e) = self.inner.volume_remove(name, true).await {
                    tracing::debug!(volume = %name, error = %e, "anonymous volume stays");
                }
            }
        }
        inner.tasks.spawn_blocking(move || {
            if let Err(e) = crate::disk::folders::remove_tree(&swept) {
                tracing::warn!(path = %swept.display(), error = %e, "folder not removed");
            }
        });
        self.event("destroy", []);
        Ok(())
    }

    /// The cgroup of this container, below the hierarchies' roots.
    pub(crate) fn cgroup(&self) -> String {
        self.inner.cgroup_path(&self.container)
    }

    /// Returns path and arguments of its process, for the record.
    pub(crate) fn command_line(config: &crate::ask::config::ContainerConfig) -> (String, Vec<String>) {
        let mut command = merge::command(config).into_iter();
        (command.next().unwrap_or_default(), command.collect())
    }
}

fn is_gone(error: Option<&runtime::Error>) -> bool {
    matches!(error, Some(runtime::Error::Gone | runtime::Error::Refused { .. }))
}
